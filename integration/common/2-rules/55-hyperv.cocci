// SPDX-License-Identifier: GPL-2.0
// Hyper-V's counter is a reading of the VM's one clock, and its page is written
// with the vCPU's own: enabling it is no reason to look at the master clock.
// changes: arch/x86/kvm/hyperv.c 8
// changes: arch/x86/kvm/hyperv.h 2
// gone: arch/x86/kvm/hyperv.c
// gone: arch/x86/kvm/hyperv.h

@ reference_page @
identifier hv;
expression vcpu;
@@
 hv->hv_tsc_page = ...;
 <...
(
-kvm_make_request(KVM_REQ_MASTERCLOCK_UPDATE, vcpu)
+kvmclock_hv_page_moved(vcpu)
|
-kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu)
+kvmclock_hv_page_moved(vcpu)
)
 ...>

// A page that does not have the line yet is no source of the time.
@ counter @
expression kvm;
@@
-get_time_ref_counter(kvm)
+kvmclock_read_hv(kvm)

// The page is written by kvmclock_page.c, which needs the formula.
@ functions @
identifier f = {kvm_hv_setup_tsc_page, kvm_hv_request_tsc_page_update, tsc_page_update_unsafe,
		get_time_ref_counter};
@@
-f(...) { ... }

@ declared @
identifier f = {kvm_hv_setup_tsc_page, kvm_hv_request_tsc_page_update};
type T;
@@
-T f(...);

@ formula @
identifier a, b;
typedef bool;
@@
-static bool compute_tsc_page_parameters(struct pvclock_vcpu_time_info *a, struct ms_hyperv_tsc_page *b)
+bool compute_tsc_page_parameters(struct pvclock_vcpu_time_info *a,
+				 struct ms_hyperv_tsc_page *b)
 { ... }
