// SPDX-License-Identifier: GPL-2.0
// What upstream/ has the master clock's callers do, which the clock itself does.
// changes: arch/x86/kvm/x86.c 3

@ created @
expression vcpu;
statement S;
@@
 kvm_synchronize_tsc(vcpu, NULL);
-if (<+... kvm_check_request(KVM_REQ_MASTERCLOCK_UPDATE, vcpu) ...+>) S

@ stopped @
expression vcpu, r;
@@
 r = kvm_set_guest_paused(vcpu);
-if (!r && kvm_check_request(...)) { ... }

@ rate @
expression vcpu, khz;
identifier r;
@@
-if (kvm_set_tsc_khz(vcpu, khz)) goto out;
-kvm_make_request(KVM_REQ_MASTERCLOCK_UPDATE, vcpu);
-r = 0;
+if (!kvm_set_tsc_khz(vcpu, khz)) r = 0;
