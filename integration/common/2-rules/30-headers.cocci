// SPDX-License-Identifier: GPL-2.0
// All state is in two structs of ours; the interface is in kvmclock.h.
// changes in 6.12: arch/x86/include/asm/kvm_host.h 11
// changes in 7.3: arch/x86/include/asm/kvm_host.h 10
// changes in 6.12: arch/x86/kvm/x86.h 4
// changes in 7.3: arch/x86/kvm/x86.h 5
// gone: arch/x86/include/asm/kvm_host.h
// gone: arch/x86/kvm/x86.h
// gone: arch/x86/kvm arch\.

@ include_state @
@@
 #include <asm/kvm_page_track.h>
+#include <asm/kvmclock_state.h>

@ include_interface @
@@
 #include "cpuid.h"
+#include "kvmclock.h"

@ unused_includes @
@@
(
-#include <linux/pvclock_gtod.h>
|
-#include <asm/pvclock.h>
)

@ vm @
@@
 struct kvm_arch {
 ...
-gpa_t wall_clock;
+struct kvm_clock clock;
 ...
 };

@ vm_old @
identifier f = {kvmclock_offset, tsc_write_lock, last_tsc_nsec, last_tsc_write,
	last_tsc_khz, last_tsc_offset, cur_tsc_nsec, cur_tsc_write,
	cur_tsc_offset, cur_tsc_generation, nr_vcpus_matched_tsc,
	default_tsc_khz, user_set_tsc, pvclock_sc, use_master_clock,
	master_kernel_ns, master_cycle_now, backwards_tsc_observed,
	boot_vcpu_runs_old_kvmclock};
type T;
@@
 struct kvm_arch {
 ...
-T f;
 ...
 };

@ vcpu @
@@
 struct kvm_vcpu_arch {
 ...
-gpa_t time;
+struct kvm_vcpu_clock clock;
 ...
 };

@ vcpu_old @
identifier f = {hw_tsc_khz, pv_time,
	pvclock_set_guest_stopped_request, l1_tsc_offset, tsc_offset,
	last_guest_tsc, last_host_tsc, tsc_offset_adjustment, this_tsc_nsec,
	this_tsc_write, this_tsc_generation, tsc_catchup, tsc_always_catchup,
	virtual_tsc_shift, virtual_tsc_mult, virtual_tsc_khz,
	ia32_tsc_adjust_msr, l1_tsc_scaling_ratio, tsc_scaling_ratio};
type T;
@@
 struct kvm_vcpu_arch {
 ...
-T f;
 ...
 };

@ moved @
identifier f = {kvm_scale_tsc, kvm_read_l1_tsc,
	kvm_calc_nested_tsc_offset, kvm_calc_nested_tsc_multiplier,
	get_kvmclock_ns, kvm_get_wall_clock_epoch,
	kvm_get_monotonic_and_clockread};
type T;
@@
-T f(...);

@ functions @
@@
-nsec_to_cycles(...) { ... }

@ division @
expression E;
identifier n, base;
@@
-#define do_shl32_div32(n, base) E
