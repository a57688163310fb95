// SPDX-License-Identifier: GPL-2.0
// The MSRs of the clock and of the TSC are calls of the clock.
// changes in 6.12: arch/x86/kvm/x86.c 12
// changes in 7.3: arch/x86/kvm/msrs.c 12

@ msr_write_tsc @
expression vcpu, data;
identifier has, info;
statement S;
@@
(
-if (info->host_initiated) { kvm_synchronize_tsc(vcpu, &data); } else S
+kvm_tsc_write_msr(vcpu, data, info->host_initiated);
|
 if (has(vcpu, X86_FEATURE_TSC_ADJUST)) {
-	if (!info->host_initiated) { ... }
-	vcpu->arch.ia32_tsc_adjust_msr = data;
+	kvm_tsc_write_adjust_msr(vcpu, data, info->host_initiated);
 }
)

@ msr_write_clock @
symbol msr_info;
expression vcpu, data, old, by_host;
@@
(
-vcpu->kvm->arch.wall_clock = data;
-kvm_write_wall_clock(vcpu->kvm, data, 0);
+if (!kvmclock_set_wall_clock(vcpu, data, msr_info->host_initiated))
+	return 1;
|
-kvm_write_system_time(vcpu, data, old, by_host);
+kvmclock_set_system_time(vcpu, data, by_host);
)

@ msr_read_tsc @
identifier offset, ratio, info;
symbol vcpu;
statement S1, S2;
@@
-if (info->host_initiated) S1 else S2
-info->data = kvm_scale_tsc(rdtsc(), ratio) + offset;
+info->data = kvm_tsc_read_msr(vcpu, info->host_initiated);

@ msr_read_tsc_variables @
identifier v = {offset, ratio};
typedef u64;
@@
 int kvm_get_msr_common(...)
 {
 <...
-u64 v;
 ...>
 }

@ msr_read_clock @
typedef u64;
expression vcpu, X;
@@
(
-X = (u64)vcpu->arch.ia32_tsc_adjust_msr
+X = kvm_tsc_adjust_msr(vcpu)
|
-vcpu->kvm->arch.wall_clock
+kvmclock_wall_clock_msr(vcpu->kvm)
|
-vcpu->arch.time
+kvmclock_system_time_msr(vcpu)
)
