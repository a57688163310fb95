// SPDX-License-Identifier: GPL-2.0
// The accessors come by way of x86.h, which nothing else here needs.
// changes: arch/x86/kvm/debugfs.c 1

@ include @
@@
 #include "mmu/mmu_internal.h"
+#include "x86.h"
