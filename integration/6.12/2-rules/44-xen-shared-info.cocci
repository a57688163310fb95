// SPDX-License-Identifier: GPL-2.0
// changes: arch/x86/kvm/xen.c 1

// Mapping the shared page is no reason to look at the master clock.
@ shared_info @
identifier kvm;
@@
 int kvm_xen_shared_info_init(struct kvm *kvm)
 {
 <...
-kvm_make_all_cpus_request(kvm, KVM_REQ_MASTERCLOCK_UPDATE);
 ...>
 }
