// SPDX-License-Identifier: GPL-2.0-only
/*
 * What happens to the clock: vCPUs come, move and go, their TSCs change, the host
 * sleeps, or keeps time by something else.  Here is the order of what is to be done
 * then; how it is done is below, in the files that this one calls.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cpufreq.h>
#include <linux/cpuhotplug.h>
#include <linux/irq_work.h>
#include <linux/kvm_host.h>
#include <linux/moduleparam.h>
#include <linux/pvclock_gtod.h>
#include <linux/suspend.h>
#include <linux/workqueue.h>

#include <asm/hypervisor.h>
#include <asm/mshyperv.h>
#include <asm/tsc.h>

#include "x86.h"
#include "kvmclock.h"
#include "kvmclock_internal.h"
#include "lapic.h"
#include "trace.h"

/* On one cache line; those of processors from before 64 bits are half as long. */
static_assert(!IS_ENABLED(CONFIG_X86_64) ||
	      offsetofend(struct kvm_vcpu_clock, absent) <= SMP_CACHE_BYTES);
static_assert(!IS_ENABLED(CONFIG_X86_64) ||
	      offsetofend(struct kvm_clock, master) <= SMP_CACHE_BYTES);

/*
 * Life of a VM and of a vCPU
 */

void kvmclock_init_vm(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;

	mutex_init(&clock->change_lock);
	mutex_init(&clock->wall_lock);
	raw_spin_lock_init(&clock->lock);
	seqcount_raw_spinlock_init(&clock->seq, &clock->lock);
	INIT_DELAYED_WORK(&clock->redraw, kvmclock_redraw);

	WRITE_ONCE(clock->default_khz, kvmclock_max_khz());
	kvmclock_start(kvm);
}

/* No vCPU runs any more, and no event of the host finds the VM.  vCPUs go next. */
void kvmclock_destroy_vm(struct kvm *kvm)
{
	unsigned long flags;

	cancel_delayed_work_sync(&kvm->arch.clock.redraw);

	flags = kvmclock_lock(kvm);
	kvm_tsc_all_go(kvm);
	kvmclock_unlock(kvm, flags);
}

#ifdef CONFIG_KVM_PROVE_CLOCK
/* For tests: vCPUs to come are as SNP's, if 1, or as TDX's, of this ratio. */
static unsigned long protect_tsc;
module_param(protect_tsc, ulong, 0600);
#else
#define protect_tsc 0UL
#endif

void kvmclock_vcpu_init(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	kvmclock_page_init(vcpu);
	v->l1_ratio = kvm_caps.default_tsc_scaling_ratio;
	v->ratio = kvm_caps.default_tsc_scaling_ratio;
	v->sleeps = READ_ONCE(kvmclock_slept.sleeps);

	if (protect_tsc)
		kvm_tsc_protect(vcpu, 0, protect_tsc > 1 ? protect_tsc : 0);
}

/* Before the vCPU is online: the VM's rate and TSC. */
void kvm_tsc_vcpu_init(struct kvm_vcpu *vcpu)
{
	struct kvmclock_snapshot now;
	unsigned long flags;

	flags = kvmclock_lock_now(vcpu->kvm, &now);
	kvm_tsc_start(vcpu, &now);
	kvmclock_unlock(vcpu->kvm, flags);
}

/*
 * Now that the vCPU is online, and counts.  It does not enter the guest before that,
 * and a gate that was closed without it is open again: kvmclock_close_gate().
 */
void kvm_tsc_vcpu_join(struct kvm_vcpu *vcpu)
{
	struct kvmclock_snapshot now;
	unsigned long flags;

	if (vcpu->arch.clock.counted)
		return;

	kvmclock_await_gate(vcpu->kvm);

	flags = kvmclock_lock_now(vcpu->kvm, &now);
	kvm_tsc_come_online(vcpu, &now);
	kvmclock_unlock(vcpu->kvm, flags);

	kvmclock_update_master(vcpu->kvm);
}

/*
 * KVM_REQ_CLOCK_UPDATE.  Who runs a vCPU whose creator has not come to have it join,
 * for lack of the mutex that he holds now, does it for him.  Nobody has told it of
 * changes since it was loaded.
 */
void kvmclock_update_page(struct kvm_vcpu *vcpu)
{
	if (unlikely(!vcpu->arch.clock.counted) &&
	    kvm_get_vcpu(vcpu->kvm, vcpu->vcpu_idx) == vcpu) {
		kvm_tsc_vcpu_join(vcpu);
		kvmclock_load_page(vcpu);
	}
	kvmclock_serve_page(vcpu);
}

void kvmclock_vcpu_reset(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	spin_lock(&v->page_lock);
	WRITE_ONCE(v->page_gpa, INVALID_GPA);
	spin_unlock(&v->page_lock);

	clear_bit(0, &v->guest_stopped);
	v->system_time_msr = 0;
}

/*
 * A vCPU comes to a CPU, or has another TSC
 */

/* The hardware takes up what kvm_tsc_host_restarted() has made up for. */
static void kvm_tsc_take_up_restart(struct kvm_vcpu *vcpu)
{
	unsigned long flags;

	flags = kvmclock_lock(vcpu->kvm);
	kvm_tsc_load_offset(vcpu);
	vcpu->arch.clock.restart_cycles = vcpu->kvm->arch.clock.restart_cycles;
	kvmclock_page_stale(vcpu);
	kvmclock_unlock(vcpu->kvm, flags);
}

/*
 * An unstable TSC may have any value on this CPU: the guest TSC goes on from where
 * it was, and catches up; one that the vendor makes is where it is.
 */
static void kvm_tsc_rebase(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	unsigned long flags;
	u64 host_tsc;

	flags = kvmclock_lock(vcpu->kvm);
	host_tsc = rdtsc();
	if (!kvm_tsc_is_protected(vcpu)) {
		v->catchup = true;
		kvm_tsc_step(vcpu, kvm_scale_tsc(READ_ONCE(v->last_host_tsc), v->l1_ratio) -
				   kvm_scale_tsc(host_tsc, v->l1_ratio));
	}
	kvmclock_carry_line(vcpu, host_tsc, v->l1_ratio);
	kvmclock_unlock(vcpu->kvm, flags);
}

/* The host's TSC is broken, found so by others or just now, by what it is here. */
static void kvm_tsc_load_unstable(struct kvm_vcpu *vcpu)
{
	if (READ_ONCE(vcpu->arch.clock.last_host_tsc))
		kvm_tsc_rebase(vcpu);

	kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
	if (READ_ONCE(vcpu->kvm->arch.clock.master))
		kvm_make_request(KVM_REQ_MASTERCLOCK_UPDATE, vcpu);
}

/* The host has slept: the guest is told at its first entry. */
static void kvmclock_load_after_sleep(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	v->sleeps = READ_ONCE(kvmclock_slept.sleeps);
	if (!kvm_is_error_gpa(v->page_gpa))
		kvmclock_owe_stopped(vcpu);
	kvm_lapic_restart_deadline_timer(vcpu);
}

/*
 * The vCPU comes to a CPU: take up what the host and its TSC did meanwhile.  On a
 * host that keeps time by Hyper-V's page the TSC may become another one at any time,
 * and is told; there it is no sign of anything.
 *
 * Without a master clock a vCPU's line is of the CPU that it was drawn on.
 */
void kvmclock_vcpu_load(struct kvm_vcpu *vcpu, int cpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	u64 last_host_tsc;

	if (unlikely(kvmclock_suspend_missed(vcpu->kvm)))
		kvmclock_make_up_for_suspend(vcpu->kvm);
	if (unlikely(v->restart_cycles != READ_ONCE(clock->restart_cycles)))
		kvm_tsc_take_up_restart(vcpu);

	if (vcpu->cpu != cpu) {
		/* Not earlier: to make up for a restart of the TSC is to write it. */
		last_host_tsc = READ_ONCE(v->last_host_tsc);
		if (last_host_tsc && (s64)(rdtsc() - last_host_tsc) < 0 &&
		    !check_tsc_unstable() && !kvmclock_host_on_tsc_page())
			mark_tsc_unstable("KVM: a vCPU moved to a CPU whose TSC is behind");
		if (unlikely(!READ_ONCE(clock->master)))
			kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
	}
	if (kvmclock_host_tsc_unstable())
		kvm_tsc_load_unstable(vcpu);

	if (unlikely(v->sleeps != READ_ONCE(kvmclock_slept.sleeps)))
		kvmclock_load_after_sleep(vcpu);

	kvmclock_load_page(vcpu);
}

/*
 * A vCPU's TSC, or its rate, changed: its page is out of date, Hyper-V's with it,
 * maybe the decision, and timers that the guest set by it.  Userspace may never
 * run the vCPU again, so its change takes effect at once; the guest's own does
 * before the guest goes on.
 */
void kvmclock_tsc_changed(struct kvm_vcpu *vcpu, bool host_initiated)
{
	struct kvm *kvm = vcpu->kvm;
	struct kvmclock_tscs s;
	unsigned long flags;
	bool may_decide;

	flags = kvmclock_lock(kvm);
	may_decide = kvmclock_tscs_may_decide(kvm);
	if (trace_kvm_track_tsc_enabled()) {
		kvmclock_compare_tscs(kvm, &s);
		trace_kvm_track_tsc(vcpu->vcpu_id, s.matched, atomic_read(&kvm->online_vcpus),
				    kvm->arch.clock.master, kvmclock_host_mode());
	}
	kvmclock_unlock(kvm, flags);

	kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
	kvm_lapic_restart_deadline_timer(vcpu);

	if (!may_decide)
		return;
	if (host_initiated)
		kvmclock_update_master(kvm);
	else
		kvm_make_request(KVM_REQ_MASTERCLOCK_UPDATE, vcpu);
}

/*
 * The host sleeps
 */

static int kvmclock_pm_notify(struct notifier_block *nb, unsigned long state, void *data)
{
	switch (state) {
	case PM_HIBERNATION_PREPARE:
	case PM_SUSPEND_PREPARE:
		kvmclock_note_suspend(true);
		break;
	case PM_POST_HIBERNATION:
	case PM_POST_SUSPEND:
		kvmclock_note_suspend(false);
		break;
	}
	return NOTIFY_OK;
}

static struct notifier_block kvmclock_pm_notifier = {
	.notifier_call = kvmclock_pm_notify,
};

#ifdef CONFIG_HAVE_KVM_PM_NOTIFIER
/*
 * Out of a suspend, an idle VM catches up now: kvmclock_slept knows of the last one
 * only.  No other notifier has to come before or after this one: what a suspend
 * leaves to do was noted before anybody could run again.
 */
int kvm_arch_pm_notifier(struct kvm *kvm, unsigned long state)
{
	if (state == PM_POST_HIBERNATION || state == PM_POST_SUSPEND)
		kvmclock_end_suspend(kvm);

	return NOTIFY_DONE;
}
#endif

/*
 * The host keeps time by something else
 */

/* What the host keeps time by changed, or got another rate. */
static void kvmclock_host_changed(struct work_struct *work)
{
	struct kvm *kvm;

	mutex_lock(&kvm_lock);
	kvmclock_update_caps();
	list_for_each_entry(kvm, &vm_list, vm_list)
		kvmclock_update_master(kvm);
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
	if (kvmclock_note_timekeeper(data))
		irq_work_queue(&kvmclock_host_irq_work);
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

	mutex_lock(&kvm_lock);
	list_for_each_entry(kvm, &vm_list, vm_list)
		kvmclock_begin_new_tsc(kvm);

	hyperv_stop_tsc_emulation();
	/*
	 * vCPUs on their way off a CPU have noted their last reading of the old TSC.
	 * Soon: all gates are closed.
	 */
	synchronize_rcu_expedited();
	kvmclock_note_new_tsc();

	list_for_each_entry(kvm, &vm_list, vm_list)
		kvmclock_end_new_tsc(kvm);
	mutex_unlock(&kvm_lock);
}

/*
 * The host's TSC varies
 */

/*
 * A TSC whose rate varies with the CPU's frequency.  A vCPU's slope must be
 * the slower one whenever the TSC may be the faster: it is redrawn before the
 * rate rises, and after it falls.
 */
static void kvmclock_set_cpu_khz(void *khz)
{
	kvmclock_note_cpu_khz(*(unsigned int *)khz);
}

static void kvmclock_cpu_left_guest(void *unused)
{
}

/* When this returns, no guest runs on @cpu by the slope of another rate. */
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

	/* A kick does not wait; the CPU takes this call outside of the guest. */
	smp_call_function_single(cpu, kvmclock_cpu_left_guest, NULL, 1);
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
	kvmclock_note_cpu_khz(cpufreq_quick_get(cpu));
	return 0;
}

static int kvmclock_cpu_offline(unsigned int cpu)
{
	kvmclock_note_cpu_khz(0);
	return 0;
}

static void kvmclock_watch_cpufreq(void)
{
	struct cpufreq_policy *policy = NULL;

	if (IS_ENABLED(CONFIG_CPU_FREQ))
		policy = cpufreq_cpu_get(raw_smp_processor_id());
	if (policy) {
		kvmclock_note_max_khz(policy->cpuinfo.max_freq);
		cpufreq_cpu_put(policy);
	}

	cpufreq_register_notifier(&kvmclock_cpufreq_notifier, CPUFREQ_TRANSITION_NOTIFIER);
	cpuhp_setup_state(CPUHP_AP_X86_KVM_CLK_ONLINE, "x86/kvm/clk:online",
			  kvmclock_cpu_online, kvmclock_cpu_offline);
}

/*
 * Life of the module
 */

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
