// SPDX-License-Identifier: GPL-2.0
// Who reads or writes a vCPU's TSC state uses accessors.
// changes: arch/x86/kvm/lapic.c 5
// changes: arch/x86/kvm/hyperv.c 1
// changes: arch/x86/kvm/debugfs.c 2
// changes: arch/x86/kvm/svm/svm.c 3
// changes: arch/x86/kvm/svm/nested.c 5
// changes in upstream: arch/x86/kvm/svm/nested.c 7
// changes: arch/x86/kvm/vmx/vmx.c 4
// changes: arch/x86/kvm/vmx/nested.c 11
// changes in upstream: arch/x86/kvm/vmx/nested.c 12

// L2's ratio is as old as its offset: forget both, and take L1's.
@ nested_failure @
expression vcpu, C, E;
@@
 if (C)
-vcpu->arch.tsc_offset -= E;
+{
+kvm_set_tsc_offset(vcpu, kvm_l1_tsc_offset(vcpu));
+kvm_set_tsc_ratio(vcpu, kvm_l1_tsc_ratio(vcpu));
+}

@ write @
expression vcpu, E;
@@
(
-vcpu->arch.tsc_offset = E
+kvm_set_tsc_offset(vcpu, E)
|
-vcpu->arch.tsc_scaling_ratio = E
+kvm_set_tsc_ratio(vcpu, E)
)

@ write_embedded @
expression svm, E;
@@
-svm->vcpu.arch.tsc_offset = E
+kvm_set_tsc_offset(&svm->vcpu, E)

@ read_hz @
typedef u64;
expression vcpu, X;
@@
-X = (u64)vcpu->arch.virtual_tsc_khz * 1000
+X = 1000ULL * kvm_tsc_khz(vcpu)

@ read @
expression vcpu;
@@
(
-vcpu->arch.virtual_tsc_khz
+kvm_tsc_khz(vcpu)
|
-vcpu->arch.l1_tsc_offset
+kvm_l1_tsc_offset(vcpu)
|
-vcpu->arch.l1_tsc_scaling_ratio
+kvm_l1_tsc_ratio(vcpu)
|
-vcpu->arch.tsc_offset
+kvm_tsc_offset(vcpu)
|
-vcpu->arch.tsc_scaling_ratio
+kvm_tsc_ratio(vcpu)
)

@ read_embedded @
expression svm;
@@
(
-svm->vcpu.arch.l1_tsc_offset
+kvm_l1_tsc_offset(&svm->vcpu)
|
-svm->vcpu.arch.tsc_offset
+kvm_tsc_offset(&svm->vcpu)
)
