// SPDX-License-Identifier: GPL-2.0
// Xen's time and the pseudo counters are readings of the VM's one clock.
// changes: arch/x86/kvm/xen.c 8
// changes: arch/x86/kvm/pmu.c 1

@ clock @
expression kvm;
@@
(
-get_kvmclock_ns(kvm)
+kvmclock_read_ns(kvm)
|
-kvm_get_wall_clock_epoch(kvm)
+kvmclock_epoch_ns(kvm)
)

// Where the guest's time lies is for the clock to know.
@ time_moved @
expression vcpu;
@@
 r = kvm_gpc_activate(&vcpu->arch.xen.vcpu_time_info_cache, ...);
 if (!r)
-	kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
+	kvmclock_page_moved(vcpu, KVMCLOCK_XEN_TIME, true);

@ info_moved @
expression vcpu, kvm;
@@
(
-kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu)
+kvmclock_page_moved(vcpu, KVMCLOCK_XEN_INFO, true)
|
-kvm_make_all_cpus_request(kvm, KVM_REQ_CLOCK_UPDATE)
+kvmclock_rewrite_pages(kvm)
)

@ includes @
@@
-#include <asm/pvclock.h>

@ pmu @
expression vcpu;
@@
-ktime_get_boottime_ns() + vcpu->kvm->arch.kvmclock_offset
+kvmclock_read_ns(vcpu->kvm)
