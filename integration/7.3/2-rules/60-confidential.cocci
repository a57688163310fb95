// SPDX-License-Identifier: GPL-2.0
// A vendor whose hardware or firmware makes the guest's TSC says so to the clock.
// changes: arch/x86/kvm/svm/sev.c 3
// changes: arch/x86/kvm/vmx/tdx.c 2

// TDX: both are its module's.
@ tdx @
expression vcpu, E1, E2;
symbol true;
@@
-vcpu->arch.guest_tsc_protected = true;
-vcpu->arch.tsc_offset = E1;
-vcpu->arch.l1_tsc_offset = vcpu->arch.tsc_offset;
-vcpu->arch.tsc_scaling_ratio = E2;
-vcpu->arch.l1_tsc_scaling_ratio = E2;
+kvm_tsc_protect(vcpu, E1, E2);

// Secure TSC: no offset, and KVM's ratio.
@ snp @
expression vcpu, E;
@@
-vcpu->arch.guest_tsc_protected = E;
+if (E)
+	kvm_tsc_protect(vcpu, 0, 0);

@ rate @
expression kvm;
@@
-kvm->arch.default_tsc_khz
+kvm_tsc_vm_khz(kvm)
