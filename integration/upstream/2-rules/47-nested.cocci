// SPDX-License-Identifier: GPL-2.0
// L1 never goes on with a TSC that was its own before a write: what upstream/1-fixes
// leaves of that, where no MSR list has a part in it.
// changes: arch/x86/kvm/vmx/nested.c 1

// Back on vmcs01 without a VM exit, which would bring it the offset: mapping L2's pages
// sleeps, and a host that suspended just then has given the vCPU another one.
@ fail @
identifier vcpu, vmx;
@@
 vmx_switch_vmcs(vcpu, &vmx->vmcs01);
+vmcs_write64(TSC_OFFSET, kvm_tsc_offset(vcpu));
 return NVMX_VMENTRY_KVM_INTERNAL_ERROR;
