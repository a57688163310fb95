// SPDX-License-Identifier: GPL-2.0
// Memory that comes is given what the clock owes it, before the guest can see it:
// nothing is mapped in advance meanwhile (see also 4-patches/90-prefetch.patch).
// changes: arch/x86/kvm/mmu/mmu.c 3

@ faultin @
identifier f = {kvm_faultin_pfn, kvm_mmu_faultin_pfn};
identifier release = {kvm_release_pfn_clean, kvm_mmu_finish_page_fault};
identifier vcpu, fault;
expression list args;
expression E;
@@
 f(struct kvm_vcpu *vcpu, struct kvm_page_fault *fault, ...)
 {
 ...
 if (E) {
 release(args);
 return RET_PF_RETRY;
 }
+
+if (!kvmclock_memory_comes(vcpu, fault->gfn)) {
+	release(args);
+	return RET_PF_RETRY;
+}
 ...
 }

@ prefetch @
identifier vcpu;
@@
 direct_pte_prefetch(struct kvm_vcpu *vcpu, ...)
 {
 ...
 if (
-unlikely(vcpu->kvm->mmu_invalidate_in_progress)
+unlikely(vcpu->kvm->mmu_invalidate_in_progress || kvmclock_awaits_memory(vcpu->kvm))
 ) return;
 ...
 }

// A retry because the ring is full needs userspace.
@ prefault @
identifier f = {kvm_tdp_map_page, kvm_tdp_page_prefault};
identifier vcpu;
symbol current;
@@
 f(struct kvm_vcpu *vcpu, ...)
 {
 <...
 if (signal_pending(current))
 	return -EINTR;
+if (kvmclock_awaits_ring(vcpu))
+	return -EAGAIN;
 ...>
 }
