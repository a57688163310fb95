// SPDX-License-Identifier: GPL-2.0
// The clock has the reference of Hyper-V's page not before the TSC's 0, so that all of
// its 64 bits count: upstream/ has them signed.
// changes: arch/x86/kvm/hyperv.c 1

@ product @
expression tsc, scale;
@@
-mul_s64_u64_shr(tsc, scale, 64)
+mul_u64_u64_shr(tsc, scale, 64)
