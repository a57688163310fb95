// SPDX-License-Identifier: GPL-2.0
// Xen's timer and its CPUID leaf, as 6.12 has them.
// changes: arch/x86/kvm/xen.c 3

// The timer needs both clocks at one instant.
@ timer @
identifier vcpu, guest_now, kernel_now;
expression E;
statement S;
@@
 void kvm_xen_start_timer(struct kvm_vcpu *vcpu, ...)
 {
 <...
-if (E) { ... guest_now = __pvclock_read_cycles(...); ... }
-else { ... kernel_now = ktime_get(); ... }
+guest_now = kvmclock_read_vcpu(vcpu, &kernel_now);
 ...>
 }

@ cpuid @
expression vcpu;
@@
(
-vcpu->arch.hv_clock.tsc_to_system_mul
+kvmclock_xen_mul(vcpu)
|
-vcpu->arch.hv_clock.tsc_shift
+kvmclock_xen_shift(vcpu)
|
-vcpu->arch.hw_tsc_khz
+kvmclock_xen_khz(vcpu)
)
