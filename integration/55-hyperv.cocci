// SPDX-License-Identifier: GPL-2.0
// A TSC page that can't be had now - the TSCs differ for a while - is not
// broken: the guest uses the counter until an update finds them equal again.
// files: arch/x86/kvm/hyperv.c

@ later @
expression clock, ref;
@@
 if (!compute_tsc_page_parameters(clock, ref))
-	goto out_err;
+	goto out_unlock;
