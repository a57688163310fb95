// SPDX-License-Identifier: GPL-2.0
// Of the clock as upstream/ has mended it, what 7.3 does not have.
// changes: arch/x86/kvm/x86.c by-name
// changes: arch/x86/kvm/x86.h by-name
// changes: arch/x86/kvm/msrs.c by-name
// changes: arch/x86/include/asm/kvm_host.h by-name
// gone: arch/x86/kvm
// gone: arch/x86/include/asm/kvm_host.h

@ functions @
identifier f = {
	kvm_tsc_matches, kvm_nr_matched_tscs, kvm_tscs_match, kvm_can_use_master_clock,
	kvm_guest_moved_tsc, kvm_master_clock_ns, kvm_stop_master_clock,
	kvm_get_snapshot_tsc, kvm_get_realtime_and_base_ns
};
@@
-f(...) { ... }

@ declared @
identifier f = {
	kvm_guest_moved_tsc, get_cpu_tsc_khz
};
type T;
@@
-T f(...);

@ condition @
identifier f = {
	kvm_guest_moved_tsc
};
expression moved;
@@
-if (moved)
 f(...);

@ calls @
identifier f = {
	kvm_guest_moved_tsc
};
@@
-f(...);

@ vm @
identifier f = {
	tscs_match
};
type T;
@@
 struct kvm_arch {
 ...
-T f;
 ...
 };

@ hyperv @
identifier f = {
	tsc_last_sequence
};
type T;
@@
 struct kvm_hv {
 ...
-T f;
 ...
 };
