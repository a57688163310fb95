// SPDX-License-Identifier: GPL-2.0
// Xen's time and the pseudo counters are readings of the VM's one clock.
// changes: arch/x86/kvm/xen.c 11
// changes: arch/x86/kvm/pmu.c 1

@ clock @
expression kvm;
@@
(
-get_kvmclock_ns(kvm)
+kvmclock_read_ns(kvm)
|
-kvm_get_wall_clock_epoch(kvm)
+kvmclock_epoch_ns(kvm)
)

// The timer needs both clocks at one instant.
@ timer @
identifier vcpu, guest_now, kernel_now;
expression E;
statement S;
@@
 void kvm_xen_start_timer(struct kvm_vcpu *vcpu, ...)
 {
 <...
-if (E) { ... guest_now = __pvclock_read_cycles(...); ... }
-else { ... kernel_now = ktime_get(); ... }
+guest_now = kvmclock_read_vcpu(vcpu, &kernel_now);
 ...>
 }

@ cpuid @
expression vcpu;
@@
(
-vcpu->arch.hv_clock.tsc_to_system_mul
+kvmclock_xen_mul(vcpu)
|
-vcpu->arch.hv_clock.tsc_shift
+kvmclock_xen_shift(vcpu)
|
-vcpu->arch.hw_tsc_khz
+kvmclock_xen_khz(vcpu)
)

// Where the guest's time lies is for the clock to know.
@ moved @
expression vcpu, kvm;
@@
(
-kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu)
+kvmclock_page_moved(vcpu, true)
|
-kvm_make_all_cpus_request(kvm, KVM_REQ_CLOCK_UPDATE)
+kvmclock_rewrite_pages(kvm)
)

@ includes @
@@
-#include <asm/pvclock.h>

@ pmu @
expression vcpu;
@@
-ktime_get_boottime_ns() + vcpu->kvm->arch.kvmclock_offset
+kvmclock_read_ns(vcpu->kvm)
