// SPDX-License-Identifier: GPL-2.0
// Xen's timer, as 7.3 has it, needs both clocks at one instant, and not the page.
// changes: arch/x86/kvm/xen.c 3
// gone: arch/x86/kvm/xen.c

@ timer @
identifier vcpu, xen, r, guest_now, kernel_now;
expression E, X;
@@
 void kvm_xen_start_timer(struct kvm_vcpu *vcpu, ...)
 {
-struct kvm_vcpu_xen *xen = X;
 ...
-int r = E;
-if (r) {
-...
-guest_now = get_kvmclock_ns(...);
-kernel_now = ktime_get();
-}
+guest_now = kvmclock_read_vcpu(vcpu, &kernel_now);
 ...
 }

@ functions @
identifier f = {xen_get_guest_pvclock};
@@
-f(...) { ... }
