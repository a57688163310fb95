// SPDX-License-Identifier: GPL-2.0
// Time in a runstate is not negative, nor is what is left of it unsigned.
// changes: arch/x86/kvm/xen.c 2

// The clock may be set back: time in a state stands still until it has come there again,
// so that the states' times stay as much as there was since the first one was entered.
@ runstate @
identifier now, delta, vx;
expression clock;
typedef u64;
@@
 u64 now =
-clock
+max(clock, vx->runstate_entry_time)
 ;
 u64 delta = now - vx->runstate_entry_time;

// The scheduler's delay comes from another clock, and may be another thread's.
@ runstate_steal @
identifier steal, delta, run_delay, vx;
typedef s64;
@@
-u64 steal = run_delay - vx->last_steal;
+u64 steal = clamp((s64)(run_delay - vx->last_steal), 0, (s64)delta);
 ...
 delta -= steal;
