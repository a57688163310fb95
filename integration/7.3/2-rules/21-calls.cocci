// SPDX-License-Identifier: GPL-2.0
// x86.c calls the clock, where 7.3 is not as older bases.
// changes: arch/x86/kvm/x86.c 9

@ load_request @
identifier vcpu, cpu;
statement S;
@@
 void kvm_arch_vcpu_load(struct kvm_vcpu *vcpu, int cpu)
 {
 <...
-if (!vcpu->kvm->arch.use_master_clock || vcpu->cpu == -1) S
 ...>
 }

@ precreate_vm @
identifier kvm, type, flags;
@@
 int kvm_arch_init_vm(struct kvm *kvm, unsigned long type)
 {
 ...
-unsigned long flags;
 ...
-raw_spin_lock_init(&kvm->arch.tsc_write_lock);
 mutex_init(&kvm->arch.apic_map_lock);
-seqcount_raw_spinlock_init(...);
-ratelimit_state_init(&kvm->arch.kvmclock_update_rs, ...);
-ratelimit_set_flags(&kvm->arch.kvmclock_update_rs, ...);
-kvm->arch.kvmclock_offset = ...;
-raw_spin_lock_irqsave(&kvm->arch.tsc_write_lock, flags);
-pvclock_update_vm_gtod_copy(kvm);
-raw_spin_unlock_irqrestore(&kvm->arch.tsc_write_lock, flags);
-kvm->arch.default_tsc_khz = ...;
+kvmclock_init_vm(kvm);
 ...
 }

@ ioctl_set_khz_vcpu @
typedef u32;
symbol vcpu, arg;
identifier khz, r;
expression E, E1, E2, E3;
statement S1, S2, S3;
@@
-u32 khz;
-r = -EINVAL;
-if (E3) S3
-khz = E;
-if (E1) S1
-if (E2) S2
-if (!kvm_set_tsc_khz(vcpu, khz)) r = 0;
-goto out;
+r = kvm_tsc_set_vcpu_khz(vcpu, (u32)arg);
+goto out;

// Only vCPUs to come have the VM's rate: that of those that are there is their own.
@ ioctl_set_khz_vm @
typedef u32;
symbol kvm, arg;
identifier khz, r;
expression E, E1, E2;
statement S1, S2;
@@
-u32 khz;
 r = -EINVAL;
-khz = E;
-if (E1) S1
-if (E2) S2
 mutex_lock(&kvm->lock);
 if (!kvm->created_vcpus) {
-WRITE_ONCE(kvm->arch.default_tsc_khz, khz);
-r = 0;
+r = kvm_tsc_set_vm_khz(kvm, (u32)arg);
 }

@ flags @
expression E;
@@
-#define KVM_CLOCK_VALID_FLAGS E
