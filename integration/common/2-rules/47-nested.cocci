// SPDX-License-Identifier: GPL-2.0
// L1 never goes on with a TSC that is L2's, or was its own before a write.
// changes: arch/x86/kvm/svm/nested.c 1
// changes: arch/x86/kvm/vmx/nested.c 2

// Leaving L2 without a #VMEXIT: vmcb01 has L1's offset, but an emulated RDMSR and
// the ratio, which is the CPU's and not the VMCB's, come from the vCPU's state.
@ leave @
identifier vcpu, svm;
@@
 void svm_leave_nested(struct kvm_vcpu *vcpu)
 {
 <...
 svm_switch_vmcb(svm, &svm->vmcb01);
+kvm_set_tsc_offset(vcpu, kvm_l1_tsc_offset(vcpu));
+kvm_set_tsc_ratio(vcpu, kvm_l1_tsc_ratio(vcpu));
+if (kvm_caps.has_tsc_control)
+	svm_write_tsc_multiplier(vcpu);
 ...>
 }

// Back on vmcs01 without a VM exit, which would bring it the offset that has changed with
// vmcs02 loaded: by an IA32_TSC in the entry's MSR list, if a later MSR of it fails; or
// while L2's pages were being mapped, which sleeps, by a host that suspended just then.
@ fail @
identifier vcpu, vmx, from_vmentry;
@@
 vmx_switch_vmcs(vcpu, &vmx->vmcs01);
+vmcs_write64(TSC_OFFSET, kvm_tsc_offset(vcpu));
(
 if (!from_vmentry) { ... }
|
 return NVMX_VMENTRY_KVM_INTERNAL_ERROR;
)
