// SPDX-License-Identifier: GPL-2.0-only
/*
 * The host's time, as the clock of its guests needs it: all of it at one TSC
 * read, and a word when something about it changes.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpufreq.h>
#include <linux/cpuhotplug.h>
#include <linux/irq_work.h>
#include <linux/kvm_host.h>
#include <linux/pvclock_gtod.h>
#include <linux/suspend.h>
#include <linux/timekeeper_internal.h>
#include <linux/timekeeping.h>
#include <linux/workqueue.h>

#include <asm/hypervisor.h>
#include <asm/mshyperv.h>
#include <asm/tsc.h>
#include <clocksource/hyperv_timer.h>

#include "x86.h"
#include "kvmclock.h"

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

/* On a Hyper-V host the TSC page is the clocksource, and it is a line, too. */
static bool host_on_tsc_page(void)
{
	return kvmclock_host_mode() == VDSO_CLOCKMODE_HVCLOCK;
}

bool kvmclock_host_tsc_unstable(void)
{
	/* Hyper-V has the TSC marked unstable where its own page is fine. */
	return !host_on_tsc_page() && check_tsc_unstable();
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

void kvmclock_snapshot(struct kvmclock_snapshot *now)
{
	struct system_time_snapshot times;
	unsigned long flags;
	u64 tsc, page_time;

	local_irq_save(flags);

	ktime_get_snapshot(&times);
	now->base_ns = ktime_to_ns(ktime_add(times.raw, ktime_mono_to_any(0, TK_OFFS_BOOT)));
	now->real_ns = ktime_to_ns(times.real);

	if (times.cs_id == CSID_X86_TSC || times.cs_id == CSID_X86_TSC_EARLY) {
		now->host_tsc = times.cycles;
		now->paired = true;
	} else if (host_on_tsc_page() &&
		   hv_read_tsc_page_tsc(hv_get_tsc_page(), &tsc, &page_time)) {
		/*
		 * times.cycles is the page's time, in units of 100 ns, and has
		 * no TSC value of its own.  Move the snapshot to one that has:
		 * the distance is exact for the raw clock, and for realtime
		 * within what NTP corrects in the moment between the reads.
		 */
		s64 later_ns = (s64)(page_time - times.cycles) * 100;

		now->host_tsc = tsc;
		now->base_ns += later_ns;
		now->real_ns += later_ns;
		now->paired = true;
	} else {
		now->host_tsc = rdtsc_ordered();
		now->paired = false;
	}

	local_irq_restore(flags);
}

struct kvmclock_sleep kvmclock_sleep;

/* A suspend is under way: the boot CPU loses KVM for it, and nothing else. */
static bool suspending;

/* Host TSC when KVM left the boot CPU, the last one in a suspend. */
static u64 suspend_tsc;

/*
 * KVM leaves the boot CPU as the last one in a suspend, and has it back as the
 * first.  Timekeeping may be suspended here: only the TSC is read.
 */
void kvmclock_cpu_disabled(void)
{
	if (suspending && num_online_cpus() == 1)
		suspend_tsc = rdtsc();
}

void kvmclock_cpu_enabled(void)
{
	u64 tsc = rdtsc();

	if (!suspending || num_online_cpus() > 1)
		return;

	if (tsc < suspend_tsc)
		kvmclock_sleep.restart_cycles += suspend_tsc - tsc;
	WRITE_ONCE(kvmclock_sleep.resumes, kvmclock_sleep.resumes + 1);
}

static int kvmclock_pm_notify(struct notifier_block *nb, unsigned long state, void *data)
{
	switch (state) {
	case PM_HIBERNATION_PREPARE:
	case PM_SUSPEND_PREPARE:
		kvmclock_snapshot(&kvmclock_sleep.before);
		suspending = true;
		break;
	case PM_POST_HIBERNATION:
	case PM_POST_SUSPEND:
		suspending = false;
		break;
	}
	return NOTIFY_OK;
}

static struct notifier_block kvmclock_pm_notifier = {
	.notifier_call = kvmclock_pm_notify,
};

static void kvmclock_update_caps(void)
{
	u64 max_khz = tsc_khz;

	/* A rate is a signed int in places.  The lowest, 1 kHz, always works. */
	if (kvm_caps.has_tsc_control)
		max_khz = min_t(u64, INT_MAX,
				kvm_scale_tsc(tsc_khz, kvm_caps.max_tsc_scaling_ratio));
	kvm_caps.max_guest_tsc_khz = max_khz;
}

/* What the host keeps time by changed, or got another rate. */
static void kvmclock_host_changed(struct work_struct *work)
{
	struct kvm *kvm;

	mutex_lock(&kvm_lock);
	kvmclock_update_caps();
	list_for_each_entry(kvm, &vm_list, vm_list)
		kvmclock_reconsider(kvm);
	mutex_unlock(&kvm_lock);
}

static DECLARE_WORK(kvmclock_host_work, kvmclock_host_changed);

static void kvmclock_queue_host_work(struct irq_work *work)
{
	queue_work(system_long_wq, &kvmclock_host_work);
}

/* The timekeeping core notifies inside its own seqcount: no work from there. */
static DEFINE_IRQ_WORK(kvmclock_host_irq_work, kvmclock_queue_host_work);

static int kvmclock_timekeeping_notify(struct notifier_block *nb, unsigned long was_set,
				       void *data)
{
	const struct timekeeper *tk = data;
	const struct clocksource *clocksource = tk->tkr_mono.clock;

	if (clocksource != host_clocksource || clocksource->vdso_clock_mode != host_clock_mode) {
		host_clocksource = clocksource;
		WRITE_ONCE(host_clock_mode, clocksource->vdso_clock_mode);
		irq_work_queue(&kvmclock_host_irq_work);
	}
	return NOTIFY_OK;
}

static struct notifier_block kvmclock_timekeeping_notifier = {
	.notifier_call = kvmclock_timekeeping_notify,
};

/*
 * A guest on Hyper-V was migrated to a host whose TSC has another rate.  Until
 * now Hyper-V has emulated the old one: every line ends here, while it still
 * is a line, and begins anew at the new rate.
 */
static void kvmclock_hyperv_tsc_changed(void)
{
	struct kvm *kvm;
	int cpu;

	mutex_lock(&kvm_lock);
	list_for_each_entry(kvm, &vm_list, vm_list)
		kvmclock_suspend_line(kvm);

	hyperv_stop_tsc_emulation();
	for_each_present_cpu(cpu)
		per_cpu(cpu_tsc_khz, cpu) = 0;
	kvmclock_update_caps();

	list_for_each_entry(kvm, &vm_list, vm_list)
		kvmclock_resume_line(kvm);
	mutex_unlock(&kvm_lock);
}

/*
 * A TSC whose rate varies with the CPU's frequency.  A vCPU's slope must be
 * the slower one whenever the TSC may be the faster: it is redrawn before the
 * rate rises, and after it falls.
 */
static void kvmclock_set_cpu_khz(void *khz)
{
	__this_cpu_write(cpu_tsc_khz, *(unsigned int *)khz);
}

static void kvmclock_cpu_khz_changed(int cpu, unsigned int khz)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;
	struct kvm *kvm;

	smp_call_function_single(cpu, kvmclock_set_cpu_khz, &khz, 1);

	mutex_lock(&kvm_lock);
	list_for_each_entry(kvm, &vm_list, vm_list) {
		kvm_for_each_vcpu(i, vcpu, kvm) {
			if (READ_ONCE(vcpu->cpu) != cpu)
				continue;
			kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
			kvm_vcpu_kick(vcpu);
		}
	}
	mutex_unlock(&kvm_lock);
}

static int kvmclock_cpufreq_notify(struct notifier_block *nb, unsigned long when, void *data)
{
	struct cpufreq_freqs *freqs = data;
	int cpu;

	if (when == (freqs->new > freqs->old ? CPUFREQ_PRECHANGE : CPUFREQ_POSTCHANGE)) {
		for_each_cpu(cpu, freqs->policy->cpus)
			kvmclock_cpu_khz_changed(cpu, freqs->new);
	}
	return NOTIFY_OK;
}

static struct notifier_block kvmclock_cpufreq_notifier = {
	.notifier_call = kvmclock_cpufreq_notify,
};

static int kvmclock_cpu_online(unsigned int cpu)
{
	__this_cpu_write(cpu_tsc_khz, cpufreq_quick_get(cpu));
	return 0;
}

static int kvmclock_cpu_offline(unsigned int cpu)
{
	__this_cpu_write(cpu_tsc_khz, 0);
	return 0;
}

static void kvmclock_watch_cpufreq(void)
{
	struct cpufreq_policy *policy = NULL;

	if (IS_ENABLED(CONFIG_CPU_FREQ))
		policy = cpufreq_cpu_get(raw_smp_processor_id());
	if (policy) {
		max_tsc_khz = policy->cpuinfo.max_freq;
		cpufreq_cpu_put(policy);
	}

	cpufreq_register_notifier(&kvmclock_cpufreq_notifier, CPUFREQ_TRANSITION_NOTIFIER);
	cpuhp_setup_state(CPUHP_AP_X86_KVM_CLK_ONLINE, "x86/kvm/clk:online",
			  kvmclock_cpu_online, kvmclock_cpu_offline);
}

void kvmclock_vendor_init(void)
{
	kvm_caps.default_tsc_scaling_ratio = 1ULL << kvm_caps.tsc_scaling_ratio_frac_bits;
	kvmclock_update_caps();

	if (!boot_cpu_has(X86_FEATURE_CONSTANT_TSC))
		kvmclock_watch_cpufreq();

	register_pm_notifier(&kvmclock_pm_notifier);
	pvclock_gtod_register_notifier(&kvmclock_timekeeping_notifier);
	if (hypervisor_is_type(X86_HYPER_MS_HYPERV))
		set_hv_tscchange_cb(kvmclock_hyperv_tsc_changed);
}

void kvmclock_vendor_exit(void)
{
	if (hypervisor_is_type(X86_HYPER_MS_HYPERV))
		clear_hv_tscchange_cb();
	pvclock_gtod_unregister_notifier(&kvmclock_timekeeping_notifier);
	unregister_pm_notifier(&kvmclock_pm_notifier);

	if (!boot_cpu_has(X86_FEATURE_CONSTANT_TSC)) {
		cpufreq_unregister_notifier(&kvmclock_cpufreq_notifier,
					    CPUFREQ_TRANSITION_NOTIFIER);
		cpuhp_remove_state_nocalls(CPUHP_AP_X86_KVM_CLK_ONLINE);
	}

	irq_work_sync(&kvmclock_host_irq_work);
	cancel_work_sync(&kvmclock_host_work);
}
