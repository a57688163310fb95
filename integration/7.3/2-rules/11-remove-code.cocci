// SPDX-License-Identifier: GPL-2.0
// Of the old clock, what 7.3 has elsewhere than in x86.c.
// changes: arch/x86/kvm/msrs.c by-name
// changes: arch/x86/kvm/x86.h by-name
// gone: arch/x86/kvm/msrs.c
// gone: arch/x86/kvm/x86.h

@ functions @
identifier f = {
	kvm_write_wall_clock, kvm_write_system_time,
	adjust_tsc_offset_guest, adjust_tsc_offset_host
};
@@
-f(...) { ... }
