// SPDX-License-Identifier: GPL-2.0
// Time in a runstate is not negative, nor is what is left of it unsigned.
// changes: arch/x86/kvm/xen.c 2

// The clock may be set back, and the scheduler's delay comes from another one.
@ runstate @
identifier now, delta, vx;
typedef u64;
@@
-u64 delta = now - vx->runstate_entry_time;
+u64 delta = now > vx->runstate_entry_time ? now - vx->runstate_entry_time : 0;

@ runstate_steal @
identifier steal, delta, run_delay, vx;
@@
-u64 steal = run_delay - vx->last_steal;
+u64 steal = min(run_delay - vx->last_steal, delta);
 ...
 delta -= steal;
