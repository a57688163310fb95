// SPDX-License-Identifier: GPL-2.0
// Of the old clock, what 6.12 alone has, or has in x86.c.
// changes: arch/x86/kvm/x86.c by-name
// gone: arch/x86/kvm/x86.c

@ functions @
identifier f = {
	kvm_write_wall_clock, kvm_write_system_time,
	adjust_tsc_offset_guest, adjust_tsc_offset_host,
	kvmclock_update_fn, kvmclock_sync_fn, kvm_arch_suspend_notifier
};
@@
-f(...) { ... }

@ variables @
identifier v = {
	kvmclock_periodic_sync
};
type T;
@@
-static T v = ...;

@ parameters @
declarer name module_param;
identifier v = {
	kvmclock_periodic_sync
};
@@
-module_param(v, ...);

@ constants @
identifier d = {KVMCLOCK_UPDATE_DELAY, KVMCLOCK_SYNC_PERIOD};
expression E;
@@
-#define d E
