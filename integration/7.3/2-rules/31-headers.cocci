// SPDX-License-Identifier: GPL-2.0
// Of the old clock's state and interface, what 6.12 does not have yet.
// changes: arch/x86/include/asm/kvm_host.h 3
// changes: arch/x86/kvm/x86.h 1
// gone: arch/x86/include/asm/kvm_host.h
// gone: arch/x86/kvm/x86.h
// gone: arch/x86/kvm arch\.

@ vm @
identifier f = {kvmclock_update_rs};
type T;
@@
 struct kvm_arch {
 ...
-T f;
 ...
 };

@ vcpu @
identifier f = {pvclock_tsc_shift, pvclock_tsc_mul, guest_tsc_protected};
type T;
@@
 struct kvm_vcpu_arch {
 ...
-T f;
 ...
 };

@ moved @
identifier f = {kvm_guest_time_update, kvm_synchronize_tsc,
	kvm_compute_l1_tsc_offset, kvm_vcpu_write_tsc_offset};
type T;
@@
-T f(...);
