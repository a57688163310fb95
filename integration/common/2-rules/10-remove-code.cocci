// SPDX-License-Identifier: GPL-2.0
// The old clock and guest TSC go, by name: functions, variables, types.
// changes: arch/x86/kvm/x86.c by-name
// gone: arch/x86/kvm/x86.c

@ functions @
identifier f = {
	update_pvclock_gtod, get_kvmclock_base_ns,
	div_frac, kvm_get_time_scale, adjust_tsc_khz,
	set_tsc_khz, kvm_set_tsc_khz, compute_guest_tsc, gtod_is_based_on_tsc,
	kvm_track_tsc_matching, __scale_tsc, kvm_scale_tsc,
	kvm_compute_l1_tsc_offset, kvm_read_l1_tsc,
	kvm_calc_nested_tsc_offset, kvm_calc_nested_tsc_multiplier,
	kvm_vcpu_write_tsc_offset, kvm_vcpu_write_tsc_multiplier,
	kvm_check_tsc_unstable, __kvm_synchronize_tsc, kvm_synchronize_tsc,
	read_tsc, vgettsc,
	do_kvmclock_base, do_monotonic, do_realtime,
	kvm_get_time_and_clockread, kvm_get_monotonic_and_clockread,
	kvm_get_walltime_and_clockread, pvclock_update_vm_gtod_copy,
	kvm_make_mclock_inprogress_request, __kvm_start_pvclock_update,
	kvm_start_pvclock_update, kvm_end_pvclock_update,
	kvm_update_masterclock, get_cpu_tsc_khz, __get_kvmclock, get_kvmclock,
	get_kvmclock_ns, kvm_setup_guest_pvclock, kvm_guest_time_update,
	kvm_get_wall_clock_epoch, kvm_gen_kvmclock_update,
	kvmclock_reset, kvm_set_guest_paused,
	kvm_arch_tsc_has_attr, kvm_arch_tsc_get_attr, kvm_arch_tsc_set_attr,
	kvm_arch_pm_notifier,
	kvm_vm_ioctl_get_clock, kvm_vm_ioctl_set_clock,
	kvmclock_cpu_down_prep, tsc_khz_changed, kvm_hyperv_tsc_notifier,
	__kvmclock_cpufreq_notifier, kvmclock_cpufreq_notifier,
	kvmclock_cpu_online, kvm_timer_init, pvclock_gtod_update_fn,
	pvclock_irq_work_fn, pvclock_gtod_notify, kvm_pv_clock_pairing
};
@@
-f(...) { ... }

@ forward @
identifier f = {
	kvm_vcpu_write_tsc_multiplier
};
type T;
@@
-T f(...);

@ exports @
declarer name EXPORT_SYMBOL_GPL, EXPORT_SYMBOL_FOR_KVM_INTERNAL;
identifier f = {
	kvm_read_l1_tsc, kvm_scale_tsc, kvm_calc_nested_tsc_offset,
	kvm_calc_nested_tsc_multiplier
};
@@
(
-EXPORT_SYMBOL_GPL(f);
|
-EXPORT_SYMBOL_FOR_KVM_INTERNAL(f);
)

@ variables @
identifier v = {
	pvclock_gtod_data, kvm_guest_has_master_clock, max_tsc_khz,
	kvmclock_cpufreq_notifier_block, pvclock_gtod_notifier,
	tsc_tolerance_ppm
};
type T;
@@
(
-static T v;
|
-static T v = ...;
)

@ parameters @
declarer name module_param;
identifier v = {
	tsc_tolerance_ppm
};
@@
-module_param(v, ...);

@ deferred @
declarer name DEFINE_PER_CPU, DECLARE_WORK, DEFINE_IRQ_WORK;
identifier v = {
	cpu_tsc_khz, pvclock_gtod_work, pvclock_irq_work
};
identifier f;
type T;
@@
(
-static DEFINE_PER_CPU(T, v);
|
-static DECLARE_WORK(v, f);
|
-static DEFINE_IRQ_WORK(v, f);
)

@ types @
identifier t = {
	pvclock_clock, pvclock_gtod_data
};
@@
-struct t { ... };
