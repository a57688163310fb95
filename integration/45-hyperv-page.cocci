// SPDX-License-Identifier: GPL-2.0
// A TSC page that can't be had now - the TSCs differ for a while - is not
// broken: the guest uses the counter until an update finds them equal again.
// files: arch/x86/kvm/hyperv.c

@ later @
expression clock, ref;
@@
 if (!compute_tsc_page_parameters(clock, ref))
-	goto out_err;
+{
+	hv->tsc_ref.tsc_sequence = tsc_seq;
+	goto out_unlock;
+}


// ... and the page that comes back has another sequence than the one that went:
// a reader that was interrupted in between must not take them for one.
@ sequence @
identifier hv, tsc_seq;
@@
 kvm_hv_setup_tsc_page(...)
 {
 ...
 u32 tsc_seq;
 ...
+if (!tsc_seq)
+	tsc_seq = hv->tsc_ref.tsc_sequence;
 hv->tsc_ref.tsc_sequence = 0;
 ...
 }
