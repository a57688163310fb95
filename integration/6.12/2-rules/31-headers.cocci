// SPDX-License-Identifier: GPL-2.0
// Of the old clock's state and interface, what 6.12 alone has.
// changes: arch/x86/include/asm/kvm_host.h 4
// changes: arch/x86/kvm/x86.h 0
// gone: arch/x86/include/asm/kvm_host.h
// gone: arch/x86/kvm/x86.h
// gone: arch/x86/kvm arch\.

@ vm @
identifier f = {kvmclock_update_work, kvmclock_sync_work};
type T;
@@
 struct kvm_arch {
 ...
-T f;
 ...
 };

@ vcpu @
identifier f = {hv_clock};
type T;
@@
 struct kvm_vcpu_arch {
 ...
-T f;
 ...
 };

@ moved @
identifier f = {vcpu_tsc_khz};
type T;
@@
-T f(...);

@ flags @
expression E;
@@
-#define KVM_CLOCK_VALID_FLAGS E
