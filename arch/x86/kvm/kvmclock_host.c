// SPDX-License-Identifier: GPL-2.0-only
/*
 * The host's time, as the clock of its guests needs it: all of it at one TSC read,
 * the rate of its TSC, and what it has slept.  kvmclock_event.c hears of what changes
 * about these, notes it here, and sees to the VMs.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/timekeeper_internal.h>
#include <linux/timekeeping.h>

#include <asm/tsc.h>

#include "x86.h"
#include "kvmclock.h"
#include "kvmclock_internal.h"

/* What the host keeps time by; written by the timekeeping core's notifier. */
static const struct clocksource *host_clocksource;
static int host_clock_mode = VDSO_CLOCKMODE_NONE;

/*
 * Rate of a CPU's TSC if that varies with the CPU's frequency and is known,
 * else 0.  tsc_khz is read at use: it is refined well after KVM's start.
 */
static DEFINE_PER_CPU(unsigned int, cpu_tsc_khz);

/* The highest rate a varying TSC can have, 0 if it does not vary. */
static unsigned int max_tsc_khz;

/* For the tracepoints: a value of enum vdso_clock_mode. */
int kvmclock_host_mode(void)
{
	return READ_ONCE(host_clock_mode);
}

bool kvmclock_host_on_tsc_page(void)
{
	return kvmclock_host_mode() == VDSO_CLOCKMODE_HVCLOCK;
}

/* Rate of this CPU's TSC in kHz; 0 if the host doesn't know. */
unsigned int kvmclock_cpu_khz(void)
{
	return raw_cpu_read(cpu_tsc_khz) ? : tsc_khz;
}

/* The highest rate that a CPU's TSC can have, in kHz. */
unsigned int kvmclock_max_khz(void)
{
	return max_tsc_khz ? : tsc_khz;
}

/* This CPU's TSC has a rate of its own, or, 0, that of all. */
void kvmclock_note_cpu_khz(unsigned int khz)
{
	__this_cpu_write(cpu_tsc_khz, khz);
}

void kvmclock_note_max_khz(unsigned int khz)
{
	max_tsc_khz = khz;
}

#ifdef CONFIG_KVM_PROVE_CLOCK
/* By so much the TSC is read after another clocksource: its CPU was away in between. */
static unsigned long late_tsc_cycles;
module_param(late_tsc_cycles, ulong, 0600);
#else
#define late_tsc_cycles 0UL
#endif

void kvmclock_take_snapshot(struct kvmclock_snapshot *now)
{
	struct system_time_snapshot times;
	unsigned long flags;

	local_irq_save(flags);

	ktime_get_snapshot_id(CLOCK_REALTIME, &times);
	if (unlikely(!times.valid)) {
		/* Timekeeping is suspended, and has warned: the clock stands still. */
		times = (struct system_time_snapshot) {
			.monoraw = ns_to_ktime(ktime_get_raw_fast_ns()),
			.systime = ns_to_ktime(ktime_get_real_fast_ns()),
		};
	}
	now->base_ns = ktime_to_ns(ktime_add(times.monoraw, ktime_mono_to_any(0, TK_OFFS_BOOT)));
	now->real_ns = ktime_to_ns(times.systime);

	now->paired = true;
	if (times.cs_id == CSID_X86_TSC || times.cs_id == CSID_X86_TSC_EARLY) {
		now->host_tsc = times.cycles;
	} else if (times.hw_csid == CSID_X86_TSC && kvmclock_host_on_tsc_page()) {
		/* The page's time was made of it. */
		now->host_tsc = times.hw_cycles;
	} else {
		now->host_tsc = rdtsc_ordered() + late_tsc_cycles;
		now->paired = false;
	}

	local_irq_restore(flags);
}

struct kvmclock_sleep kvmclock_slept;

/* Of the timekeeping core: what of its boot time was slept. */
static ktime_t host_boot_offset;

/* A suspend is under way: the boot CPU loses KVM for it, and nothing else. */
static bool suspending;

/* Host TSC when KVM left the boot CPU, the last one in a suspend. */
static u64 suspend_tsc;

#ifdef CONFIG_KVM_PROVE_CLOCK
/* Cycles that the TSC is to have lost in the next suspend: few machines' restart. */
static unsigned long lose_tsc_cycles;
module_param(lose_tsc_cycles, ulong, 0600);
#else
#define lose_tsc_cycles 0UL
#endif

/*
 * What the timekeeping core goes by now; inside its own seqcount.  True if that is
 * another clocksource, or another way to read it.
 */
bool kvmclock_note_timekeeper(const struct timekeeper *tk)
{
	const struct clocksource *clocksource = tk->tkr_mono.clock;
	bool other = clocksource != host_clocksource ||
		     clocksource->vdso_clock_mode != host_clock_mode;

	host_clocksource = clocksource;
	WRITE_ONCE(host_clock_mode, clocksource->vdso_clock_mode);

	/* An idle suspend, of a second or more: nobody else runs yet. */
	if (tk->offs_boot != host_boot_offset) {
		host_boot_offset = tk->offs_boot;
		WRITE_ONCE(kvmclock_slept.sleeps, kvmclock_slept.sleeps + 1);
	}
	return other;
}

/* A suspend begins, or is over. */
void kvmclock_note_suspend(bool begins)
{
	if (begins)
		kvmclock_take_snapshot(&kvmclock_slept.before);
	suspending = begins;
}

/*
 * KVM leaves the boot CPU as the last one in a suspend, and has it back as the
 * first.  Timekeeping may be suspended here: only the TSC is read.
 */
void kvmclock_host_suspends(void)
{
	if (suspending && num_online_cpus() == 1)
		suspend_tsc = rdtsc();
}

void kvmclock_host_resumed(void)
{
	u64 tsc = rdtsc();

	if (!suspending || num_online_cpus() > 1)
		return;

	if (tsc < suspend_tsc)
		kvmclock_slept.restart_cycles += suspend_tsc - tsc;
	kvmclock_slept.restart_cycles += lose_tsc_cycles;
	WRITE_ONCE(kvmclock_slept.resumes, kvmclock_slept.resumes + 1);
	WRITE_ONCE(kvmclock_slept.sleeps, kvmclock_slept.sleeps + 1);
}

void kvmclock_update_caps(void)
{
	u64 max_khz = tsc_khz;

	/* A rate is a signed int in places.  The lowest, 1 kHz, always works. */
	if (kvm_caps.has_tsc_control)
		max_khz = min_t(u64, INT_MAX,
				kvm_scale_tsc(tsc_khz, kvm_caps.max_tsc_scaling_ratio));
	kvm_caps.max_guest_tsc_khz = max_khz;
}

/* The TSC is another one from now on, and all CPUs' the same. */
void kvmclock_note_new_tsc(void)
{
	int cpu;

	for_each_present_cpu(cpu)
		per_cpu(cpu_tsc_khz, cpu) = 0;
	kvmclock_update_caps();
}
