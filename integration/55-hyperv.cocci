// SPDX-License-Identifier: GPL-2.0
// Hyper-V's counter is a reading of the VM's one clock, and its page is written
// with the vCPU's own: enabling it is no reason to look at the master clock.
// files: arch/x86/kvm/hyperv.c

@ reference_page @
identifier hv;
expression vcpu;
@@
 hv->hv_tsc_page = ...;
 <...
-KVM_REQ_MASTERCLOCK_UPDATE
+KVM_REQ_CLOCK_UPDATE
 ...>

@ clock @
expression kvm;
@@
-get_kvmclock_ns(kvm)
+kvmclock_read_ns(kvm)
