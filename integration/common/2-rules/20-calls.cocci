// SPDX-License-Identifier: GPL-2.0
// x86.c calls the clock instead of being it.
// changes: arch/x86/kvm/x86.c 42

@ load @
identifier vcpu, cpu;
@@
 void kvm_arch_vcpu_load(struct kvm_vcpu *vcpu, int cpu)
 {
 ...
-if (unlikely(vcpu->arch.tsc_offset_adjustment)) { ... }
+kvmclock_vcpu_load(vcpu, cpu);
 ...
 }

@ load_delta @
identifier vcpu, cpu, delta;
statement S;
expression E;
@@
 void kvm_arch_vcpu_load(struct kvm_vcpu *vcpu, int cpu)
 {
 <...
-s64 delta = E;
-if (delta < 0) S
 ...>
 }

@ load_offset @
identifier vcpu, cpu;
@@
 void kvm_arch_vcpu_load(struct kvm_vcpu *vcpu, int cpu)
 {
 <...
-if (kvm_check_tsc_unstable()) { ... }
 ...>
 }

@ put @
expression vcpu;
@@
-vcpu->arch.last_host_tsc = rdtsc();
+kvmclock_vcpu_put(vcpu);

@ enter_guest @
identifier vcpu;
@@
 vcpu_enter_guest(struct kvm_vcpu *vcpu)
 {
 <...
 guest_timing_enter_irqoff();
+kvmclock_guest_enter(vcpu);
 ...>
 }

@ leave_guest @
expression vcpu;
@@
-vcpu->arch.last_guest_tsc = kvm_read_l1_tsc(vcpu, rdtsc());
+kvmclock_guest_exit(vcpu);

@ leave_guest_catchup @
expression vcpu;
statement S;
@@
-if (unlikely(vcpu->arch.tsc_always_catchup)) S

@ requests @
expression vcpu;
@@
(
-kvm_update_masterclock(vcpu->kvm)
+kvmclock_update_master(vcpu->kvm)
|
-kvm_gen_kvmclock_update(vcpu)
+kvmclock_update_others(vcpu)
)

@ request_page @
expression vcpu, r;
statement S;
@@
-if (kvm_check_request(KVM_REQ_CLOCK_UPDATE, vcpu))
-{ r = kvm_guest_time_update(vcpu); if (unlikely(r)) S }
+if (kvm_check_request(KVM_REQ_CLOCK_UPDATE, vcpu))
+	kvmclock_update_page(vcpu);

@ unstable @
@@
-kvm_check_tsc_unstable()
+kvmclock_host_tsc_unstable()

@ create @
expression vcpu, kvm, R;
@@
(
-kvm_gpc_init(&vcpu->arch.pv_time, kvm);
+kvmclock_vcpu_init(vcpu);
|
-kvm_set_tsc_khz(vcpu, R);
+kvm_tsc_vcpu_init(vcpu);
|
-kvm_synchronize_tsc(vcpu, NULL);
+kvm_tsc_vcpu_join(vcpu);
|
-kvmclock_reset(vcpu);
+kvmclock_vcpu_reset(vcpu);
)

@ destroy_vm @
identifier kvm;
@@
 void kvm_arch_pre_destroy_vm(struct kvm *kvm)
 {
+kvmclock_destroy_vm(kvm);
 ...
 }

@ enable_cpu @
iterator name list_for_each_entry;
identifier v = {local_tsc, stable};
expression E;
statement S;
@@
 int kvm_arch_enable_virtualization_cpu(void)
 {
 <...
(
-v = E;
|
-list_for_each_entry(...) S
|
-if (backwards_tsc) S
)
 ...>
 }

@ enable_cpu_variables @
identifier v = {kvm, vcpu, i, local_tsc, stable};
identifier w = {max_tsc, backwards_tsc};
type T;
expression E;
@@
 int kvm_arch_enable_virtualization_cpu(void)
 {
 <...
(
-T v;
|
-T w = E;
)
 ...>
 }

@ enable_cpu_flag @
@@
 int kvm_arch_enable_virtualization_cpu(void)
 {
 ...
-bool backwards_tsc = false;
 ...
 }

@ enable_cpu_clock @
@@
 int kvm_arch_enable_virtualization_cpu(void)
 {
 ...
+kvmclock_host_resumed();
 return 0;
 }

@ disable_cpu_clock @
@@
 void kvm_arch_disable_virtualization_cpu(void)
 {
+kvmclock_host_suspends();
 ...
 }

@ vendor_init @
expression E;
statement S;
@@
(
-kvm_timer_init();
+kvmclock_vendor_init();
|
-pvclock_gtod_register_notifier(E);
|
-if (hypervisor_is_type(X86_HYPER_MS_HYPERV))
-	set_hv_tscchange_cb(E);
|
-kvm_caps.default_tsc_scaling_ratio = E;
)

@ vendor_init_scaling @
@@
-if (kvm_caps.has_tsc_control) {
-...
-kvm_caps.max_guest_tsc_khz = ...;
-}

@ vendor_exit @
expression E;
@@
(
+kvmclock_vendor_exit();
 kvm_unregister_perf_callbacks();
|
-if (hypervisor_is_type(X86_HYPER_MS_HYPERV))
-	clear_hv_tscchange_cb();
|
-if (!boot_cpu_has(X86_FEATURE_CONSTANT_TSC)) { cpufreq_unregister_notifier(...); ... }
|
-pvclock_gtod_unregister_notifier(E);
|
-irq_work_sync(&pvclock_irq_work);
|
-cancel_work_sync(&pvclock_gtod_work);
)

@ pairing @
expression vcpu, gpa, type_;
@@
-kvm_pv_clock_pairing(vcpu, gpa, type_)
+kvmclock_pairing(vcpu, gpa, type_)

@ ioctls @
expression kvm, vcpu, argp, attr;
@@
(
-kvm_vm_ioctl_set_clock(kvm, argp)
+kvmclock_ioctl_set(kvm, argp)
|
-kvm_vm_ioctl_get_clock(kvm, argp)
+kvmclock_ioctl_get(kvm, argp)
|
-kvm_set_guest_paused(vcpu)
+kvmclock_set_guest_stopped(vcpu)
|
-kvm_arch_tsc_has_attr(vcpu, attr)
+kvmclock_has_attr(vcpu, attr)
|
-kvm_arch_tsc_get_attr(vcpu, attr)
+kvmclock_get_attr(vcpu, attr)
|
-kvm_arch_tsc_set_attr(vcpu, attr)
+kvmclock_set_attr(vcpu, attr)
|
-READ_ONCE(kvm->arch.default_tsc_khz)
+kvm_tsc_vm_khz(kvm)
|
-vcpu->arch.virtual_tsc_khz
+kvm_tsc_khz(vcpu)
)

@ includes @
@@
(
-#include <linux/timekeeper_internal.h>
|
-#include <linux/pvclock_gtod.h>
|
-#include <linux/clocksource.h>
|
-#include <linux/cpufreq.h>
|
-#include <linux/suspend.h>
|
-#include <asm/pvclock.h>
|
-#include <asm/div64.h>
|
-#include <asm/mshyperv.h>
|
-#include <asm/hypervisor.h>
|
-#include <clocksource/hyperv_timer.h>
)
