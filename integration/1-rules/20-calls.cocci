// SPDX-License-Identifier: GPL-2.0
// x86.c calls the clock instead of being it.
// files: arch/x86/kvm/x86.c

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

@ load_request @
identifier vcpu, cpu;
@@
 void kvm_arch_vcpu_load(struct kvm_vcpu *vcpu, int cpu)
 {
 <...
-if (!vcpu->kvm->arch.use_master_clock || vcpu->cpu == -1)
-	kvm_make_request(KVM_REQ_GLOBAL_CLOCK_UPDATE, vcpu);
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

@ postcreate @
identifier vcpu, kvm;
statement S;
expression E;
@@
 void kvm_arch_vcpu_postcreate(struct kvm_vcpu *vcpu)
 {
-struct kvm *kvm = vcpu->kvm;
 ...
-if (kvmclock_periodic_sync && E) S
 }

@ precreate_vm @
identifier kvm, type, flags;
@@
 int kvm_arch_init_vm(struct kvm *kvm, unsigned long type)
 {
 ...
-unsigned long flags;
 ...
-raw_spin_lock_init(&kvm->arch.tsc_write_lock);
 mutex_init(&kvm->arch.apic_map_lock);
-seqcount_raw_spinlock_init(...);
-kvm->arch.kvmclock_offset = ...;
-raw_spin_lock_irqsave(&kvm->arch.tsc_write_lock, flags);
-pvclock_update_vm_gtod_copy(kvm);
-raw_spin_unlock_irqrestore(&kvm->arch.tsc_write_lock, flags);
-kvm->arch.default_tsc_khz = ...;
+kvmclock_init_vm(kvm);
 ...
 }

@ works @
expression kvm;
@@
(
-INIT_DELAYED_WORK(&kvm->arch.kvmclock_update_work, ...);
|
-INIT_DELAYED_WORK(&kvm->arch.kvmclock_sync_work, ...);
|
-cancel_delayed_work_sync(&kvm->arch.kvmclock_update_work);
|
-cancel_delayed_work_sync(&kvm->arch.kvmclock_sync_work);
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

@ msr_write_tsc @
expression vcpu, data;
identifier info;
@@
(
-if (info->host_initiated) { kvm_synchronize_tsc(vcpu, &data); } else { ... }
+kvm_tsc_write_msr(vcpu, data, info->host_initiated);
|
 if (guest_cpuid_has(vcpu, X86_FEATURE_TSC_ADJUST)) {
-	if (!info->host_initiated) { ... }
-	vcpu->arch.ia32_tsc_adjust_msr = data;
+	kvm_tsc_write_adjust_msr(vcpu, data, info->host_initiated);
 }
)

@ msr_write_clock @
symbol msr_info;
expression vcpu, data, old, by_host;
@@
(
-vcpu->kvm->arch.wall_clock = data;
-kvm_write_wall_clock(vcpu->kvm, data, 0);
+if (!kvmclock_set_wall_clock(vcpu, data, msr_info->host_initiated))
+	return 1;
|
-kvm_write_system_time(vcpu, data, old, by_host);
+kvmclock_set_system_time(vcpu, data, by_host);
)

@ msr_read_tsc @
identifier offset, ratio, info;
symbol vcpu;
statement S1, S2;
@@
-if (info->host_initiated) S1 else S2
-info->data = kvm_scale_tsc(rdtsc(), ratio) + offset;
+info->data = kvm_tsc_read_msr(vcpu, info->host_initiated);

@ msr_read_tsc_variables @
identifier v = {offset, ratio};
typedef u64;
@@
 int kvm_get_msr_common(...)
 {
 <...
-u64 v;
 ...>
 }

@ msr_read_clock @
typedef u64;
expression vcpu, X;
@@
(
-X = (u64)vcpu->arch.ia32_tsc_adjust_msr
+X = kvm_tsc_adjust_msr(vcpu)
|
-vcpu->kvm->arch.wall_clock
+kvmclock_wall_clock_msr(vcpu->kvm)
|
-vcpu->arch.time
+kvmclock_system_time_msr(vcpu)
)

@ ioctl_set_khz_vcpu @
typedef u32;
symbol vcpu, arg;
identifier khz, r;
expression E, E1, E2;
statement S1, S2;
@@
-u32 khz;
-r = -EINVAL;
-khz = E;
-if (E1) S1
-if (E2) S2
-if (!kvm_set_tsc_khz(vcpu, khz)) r = 0;
-goto out;
+r = kvm_tsc_set_vcpu_khz(vcpu, (u32)arg);
+goto out;

@ ioctl_set_khz_vm @
typedef u32;
symbol kvm, arg;
identifier khz, r;
expression E, E1, E2;
statement S1, S2;
@@
-u32 khz;
-r = -EINVAL;
-khz = E;
-if (E1) S1
-if (E2) S2
-WRITE_ONCE(kvm->arch.default_tsc_khz, khz);
-r = 0;
-goto out;
+r = kvm_tsc_set_vm_khz(kvm, (u32)arg);
+goto out;

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
