// SPDX-License-Identifier: GPL-2.0-only
/*
 * kvmclock: the paravirtual clock of KVM's guests.
 *
 * A VM with a master clock has one line over the scaled TSC (kvmclock_line.h),
 * and whoever reads the VM's time evaluates it: each vCPU through its pvclock
 * page, the host through kvmclock_read_ns() and its relatives.  Nothing snaps
 * the line to any other clock.  It changes when
 *
 *  - userspace sets the clock;
 *  - the rate of the guest TSC, or what the host knows of its own, changes;
 *  - the host's time base is lost and had again: its clocksource is no longer
 *    the TSC, or the TSC stopped or restarted in a suspend.
 *
 * In between is base time: CLOCK_MONOTONIC_RAW plus the time slept since boot.
 * Leaving a line, the clock is expressed as base time plus an offset; entering
 * one, the line starts where that clock is.  Without a master clock - the host
 * does not keep time by its TSC, or the vCPUs' rates differ - the offset is
 * the clock, and each vCPU has a line of its own that is drawn anew at every
 * update and once in KVMCLOCK_REDRAW_NS.  It starts no lower than the old one was
 * when the vCPU left the guest, so the guest never sees its clock go backwards;
 * if that is ahead of the clock, it goes slower until they meet.
 *
 * The line and the stable bit change with the gate closed, that is with no vCPU in
 * the guest, and leave each vCPU with the request to see to guest memory:
 * kvmclock_page.c.  Who writes what under which lock is a table in
 * Documentation/virt/kvm/x86/kvmclock.rst.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/timekeeping.h>

#include <asm/pvclock-abi.h>
#include <asm/tsc.h>

/* Before KVM's own events, which are created elsewhere. */
#define CREATE_TRACE_POINTS
#include <trace/events/kvmclock.h>
#undef CREATE_TRACE_POINTS

#include "x86.h"
#include "hyperv.h"
#include "kvmclock.h"
#include "kvmclock_internal.h"
#include "trace.h"

/*
 * Rates
 */

/* Rate of the host TSC in kHz: by the master clock one, else this CPU's. */
static unsigned int kvmclock_host_khz(const struct kvm_clock *clock)
{
	return clock->master ? clock->host_khz : kvmclock_cpu_khz();
}

/*
 * Rate of the TSC at @ratio, in units of 2^-@frac_bits Hz: the kHz that were asked for
 * if the ratio is as near to them as it can be, so that guests find them in their page.
 */
static u64 kvmclock_scaled_rate(unsigned int host_khz, u64 ratio, unsigned int frac_bits)
{
	if (kvmclock_ratio_cuts_khz(host_khz, ratio, kvm_caps.tsc_scaling_ratio_frac_bits))
		return ((kvm_scale_tsc(host_khz, ratio) + 1) * 1000) << frac_bits;

	return kvm_scale_tsc((host_khz * 1000ULL) << frac_bits, ratio);
}

/*
 * A slow TSC's rate takes more bits of fraction to be as exact; there is room
 * for them up to 2^34 Hz, which no host has.
 */
static unsigned int kvmclock_frac_bits(u64 ratio)
{
	return ratio < kvm_caps.default_tsc_scaling_ratio ? KVMCLOCK_HZ_FRAC_BITS_SLOW :
							    KVMCLOCK_HZ_FRAC_BITS;
}

/* The slope of a line at @ratio.  False if the host's rate is unknown. */
static bool kvmclock_slope(unsigned int host_khz, u64 ratio, struct kvmclock_line *line)
{
	unsigned int frac_bits = kvmclock_frac_bits(ratio);

	return kvmclock_slope_of(kvmclock_scaled_rate(host_khz, ratio, frac_bits), frac_bits,
				 line);
}

/* Rate of the TSC that the VM's line is over, in Hz. */
u64 kvmclock_rate_hz(const struct kvm_clock *clock)
{
	return kvmclock_scaled_rate(clock->host_khz, clock->ratio, 0);
}

/*
 * Who has a master clock
 */

void kvmclock_compare_tscs(struct kvm *kvm, struct kvmclock_tscs *s)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;

	lockdep_assert_held(&kvm->arch.clock.lock);

	kvmclock_tscs_begin(s, kvm_tsc_default_ratio(kvm));
	kvm_for_each_vcpu(i, vcpu, kvm) {
		struct kvm_vcpu_clock *v = &vcpu->arch.clock;

		kvmclock_tscs_add(s, v->l1_ratio, v->l1_offset, v->catchup);
	}
}

/*
 * What the TSCs are is counted as they change.  A vCPU that is online counts a
 * moment later, when it has joined: until then they are looked at one by one.
 */
static void kvmclock_get_tscs(struct kvm *kvm, struct kvmclock_tscs *s)
{
	const struct kvmclock_census *census = &kvm->arch.clock.census;
	struct kvmclock_tscs __maybe_unused check;

	if (!census->nr || census->nr != atomic_read(&kvm->online_vcpus)) {
		kvmclock_compare_tscs(kvm, s);
		return;
	}

	kvmclock_tscs_begin(s, kvm_get_vcpu(kvm, 0)->arch.clock.l1_ratio);
	s->same_rate = !census->rate_steps;
	s->same_tsc = kvmclock_census_same_tsc(census);

#ifdef CONFIG_KVM_PROVE_CLOCK
	kvmclock_compare_tscs(kvm, &check);
	KVM_CLOCK_WARN_ON(check.nr == census->nr &&
			  (check.ratio != s->ratio || check.same_rate != s->same_rate ||
			   check.same_tsc != s->same_tsc));
#endif
}

/*
 * A vCPU's TSC has changed.  Can the predicate say otherwise now?  A quick look at
 * what is counted, since few changes do that.  Yes, if it can't be told so.
 */
bool kvmclock_tscs_may_decide(struct kvm *kvm)
{
	const struct kvm_clock *clock = &kvm->arch.clock;
	const struct kvmclock_census *census = &clock->census;

	lockdep_assert_held(&clock->lock);

	if (!clock->master || !census->nr || census->nr != atomic_read(&kvm->online_vcpus) ||
	    census->rate_steps || kvm_get_vcpu(kvm, 0)->arch.clock.l1_ratio != clock->ratio)
		return true;

	return clock->stable != kvmclock_census_same_tsc(census);
}

static void kvmclock_decide(struct kvm *kvm, const struct kvmclock_snapshot *now,
			    struct kvmclock_decision *want)
{
	struct kvmclock_tscs s;
	unsigned int frac_bits;

	kvmclock_get_tscs(kvm, &s);

	want->host_khz = tsc_khz;
	frac_bits = kvmclock_frac_bits(s.ratio);
	kvmclock_predicate(&s, now->paired && !kvmclock_host_tsc_unstable(),
			   kvmclock_scaled_rate(want->host_khz, s.ratio, frac_bits), frac_bits,
			   want);

	trace_kvm_update_master_clock(want->master, kvmclock_host_mode(), s.same_tsc);
}

static bool kvmclock_same_line(const struct kvm_clock *clock,
			       const struct kvmclock_decision *want)
{
	return clock->master == want->master &&
	       (!want->master || (clock->ratio == want->ratio &&
				  clock->host_khz == want->host_khz));
}

/*
 * Changes of the line
 */

u64 kvmclock_at(const struct kvm_clock *clock, const struct kvmclock_snapshot *now)
{
	if (clock->master)
		return kvmclock_line_ns(&clock->line, kvm_scale_tsc(now->host_tsc, clock->ratio));

	return now->base_ns + clock->base_offset_ns;
}

/*
 * Does the VM's line apply to this vCPU's TSC, that is was it drawn at its ratio?
 * Not if the host's TSC is found to be broken, although the line is still there.
 */
bool kvmclock_has_line(struct kvm_vcpu *vcpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;

	lockdep_assert_held(&clock->lock);

	return clock->master && clock->ratio == kvm_l1_tsc_ratio(vcpu) &&
	       !kvmclock_host_tsc_unstable();
}

/* From here on the line is held against base time, should the TSC be broken. */
static void kvmclock_anchor(struct kvm_clock *clock, const struct kvmclock_snapshot *now)
{
	clock->anchor_ns = kvmclock_at(clock, now);
	clock->anchor_base_ns = now->base_ns;
}

/*
 * May the clock go on from the line?  Not from one over a TSC that the host has found
 * to be broken, unless it says what base time says, but for what they drift apart.  A
 * good TSC may be left, too: base time may have lost what passed between the readings
 * of the old clocksource and of the new one, the line has not.
 */
static bool kvmclock_line_is_sound(const struct kvm_clock *clock,
				   const struct kvmclock_snapshot *now)
{
	return !kvmclock_host_tsc_unstable() ||
	       kvmclock_is_drift(kvmclock_at(clock, now) - clock->anchor_ns,
				 now->base_ns - clock->anchor_base_ns,
				 max_t(u64, div_u64(kvmclock_rate_hz(clock), 1000), 1));
}

/*
 * The clock goes on as base time.  If the line has gone with the host's TSC, what base
 * time says has passed since the anchor counts.
 */
static void kvmclock_line_to_base(struct kvm_clock *clock, const struct kvmclock_snapshot *now)
{
	if (kvmclock_line_is_sound(clock, now))
		clock->base_offset_ns = kvmclock_at(clock, now) - now->base_ns;
	else
		clock->base_offset_ns = clock->anchor_ns - clock->anchor_base_ns;
	clock->master = false;
	clock->stable = false;
}

/*
 * The last clock value that a vCPU, now out of the guest, can have read.  Its
 * thread may be on its way off the CPU, and note a later TSC meanwhile, which
 * only raises the bound.
 */
static u64 kvmclock_last_read_ns(const struct kvm_vcpu_clock *v)
{
	u64 host_tsc = READ_ONCE(v->last_read_tsc);

	return kvmclock_line_ns(&v->line, kvm_scale_tsc(host_tsc, v->l1_ratio));
}

/*
 * The clock goes on as a line, from a value that no vCPU has read beyond.  At
 * the rate of the last line it is parallel to it: that slope may have come
 * with the guest from elsewhere.
 */
static void kvmclock_base_to_line(struct kvm *kvm, const struct kvmclock_snapshot *now,
				  const struct kvmclock_decision *want)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	u64 ns = kvmclock_at(clock, now);
	struct kvm_vcpu *vcpu;
	unsigned long i;

	kvm_for_each_vcpu(i, vcpu, kvm) {
		if (vcpu->arch.clock.line.mul)
			ns = kvmclock_later_ns(ns, kvmclock_last_read_ns(&vcpu->arch.clock));
	}

	if (clock->ratio != want->ratio || clock->host_khz != want->host_khz) {
		clock->ratio = want->ratio;
		clock->host_khz = want->host_khz;
		clock->line = want->slope;
	}
	clock->line.ref_tsc = kvm_scale_tsc(now->host_tsc, clock->ratio);
	clock->line.ref_ns = ns;
	clock->master = true;
	kvmclock_anchor(clock, now);
}

static void kvmclock_apply(struct kvm *kvm, const struct kvmclock_snapshot *now,
			   const struct kvmclock_decision *want)
{
	struct kvm_clock *clock = &kvm->arch.clock;

	if (!kvmclock_same_line(clock, want)) {
		bool __maybe_unused sound = !clock->master || kvmclock_line_is_sound(clock, now);
		u64 before_ns = kvmclock_at(clock, now);

		if (clock->master)
			kvmclock_line_to_base(clock, now);
		if (want->master)
			kvmclock_base_to_line(kvm, now, want);

		KVM_CLOCK_WARN_ON(sound && (s64)(kvmclock_at(clock, now) - before_ns) < 0);
	}
	clock->stable = want->stable;
}

/* The vCPU's line begins with what the guest can have read of it last. */
static void kvmclock_cut_line(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	u64 host_tsc = READ_ONCE(v->last_read_tsc);
	u64 scaled_tsc = kvm_scale_tsc(host_tsc, v->l1_ratio);

	lockdep_assert_held(&vcpu->kvm->arch.clock.lock);

	if (v->line.mul && host_tsc) {
		v->line.ref_ns = kvmclock_line_ns(&v->line, scaled_tsc);
		v->line.ref_tsc = scaled_tsc;
	}
}

/* A line that was cut goes on at @host_tsc * @ratio. */
static void kvmclock_join_line(struct kvm_vcpu *vcpu, u64 host_tsc, u64 ratio)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	if (v->line.mul) {
		v->line.ref_tsc = kvm_scale_tsc(host_tsc, ratio);
		if (ratio != v->l1_ratio)
			kvmclock_slope(kvmclock_host_khz(&vcpu->kvm->arch.clock), ratio, &v->line);
		kvmclock_page_stale(vcpu);
	}
	WRITE_ONCE(v->last_read_tsc, host_tsc);
	WRITE_ONCE(v->last_host_tsc, host_tsc);
}

/*
 * A vCPU's counter is at @host_tsc * @ratio next, whatever it was: its line
 * goes on there from what the guest can have read last.
 */
void kvmclock_carry_line(struct kvm_vcpu *vcpu, u64 host_tsc, u64 ratio)
{
	kvmclock_cut_line(vcpu);
	kvmclock_join_line(vcpu, host_tsc, ratio);
}

/* For KVM's statistics: spans without a master clock count when they are over. */
static void kvmclock_count_master(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	u64 now_ns;

	if (kvm->stat.clock_master == clock->master)
		return;

	now_ns = ktime_get_mono_fast_ns();
	if (clock->master)
		kvm->stat.clock_no_master_ns += now_ns - clock->lost_ns;
	else
		clock->lost_ns = now_ns;
	kvm->stat.clock_master = clock->master;
}

/* @cause counts, for KVM's statistics, what this comes of. */
static void kvmclock_line_changed(struct kvm *kvm, u64 *cause)
{
	struct kvm_clock *clock = &kvm->arch.clock;

	lockdep_assert_held(&clock->lock);

	WRITE_ONCE(clock->changes, clock->changes + 1);
	++*cause;
	kvmclock_count_master(kvm);
	trace_kvmclock_change(clock);

	kvmclock_pages_stale(kvm);
}

/*
 * After a host suspend, before any vCPU enters the guest again: every path to
 * it, and to the clock, comes by here first.
 *
 * A TSC that counted through has the line go on as if nothing had happened.
 * One that restarted, or that is a second or more from what the host's own
 * clock says (it reads a sleep from the RTC, in seconds), lost the line: the
 * clock goes on from the value at the suspend, by the time that has passed.
 */
void __kvmclock_make_up_for_suspend(struct kvm *kvm)
{
	const struct kvmclock_snapshot *before = &kvmclock_slept.before;
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_snapshot now;
	struct kvm_vcpu *vcpu;
	unsigned long i;
	bool restarted;
	s64 missed_ns;

	lockdep_assert_held(&clock->lock);

	kvmclock_take_snapshot(&now);
	write_seqcount_begin(&clock->seq);

	restarted = clock->restart_cycles != kvmclock_slept.restart_cycles;
	missed_ns = now.base_ns - before->base_ns -
		    (s64)(kvmclock_at(clock, &now) - kvmclock_at(clock, before));

	if (!restarted && abs(missed_ns) < NSEC_PER_SEC) {
		/* Base time has read the sleep from the RTC, in seconds. */
		kvmclock_anchor(clock, &now);
		write_seqcount_end(&clock->seq);
		goto out_resumed;
	}

	if (clock->master) {
		struct kvmclock_decision again = {
			.ratio = clock->ratio,
			.host_khz = clock->host_khz,
		};
		bool stable = clock->stable;

		kvmclock_anchor(clock, before);
		kvmclock_line_to_base(clock, before);
		if (now.paired) {
			kvmclock_base_to_line(kvm, &now, &again);
			clock->stable = stable;
		}
	}
	write_seqcount_end(&clock->seq);

	kvm_for_each_vcpu(i, vcpu, kvm) {
		kvmclock_carry_line(vcpu, now.host_tsc, vcpu->arch.clock.l1_ratio);
		kvm_make_request(KVM_REQ_MASTERCLOCK_UPDATE, vcpu);
	}
	kvm_tsc_host_restarted(kvm, kvmclock_slept.restart_cycles);
	kvmclock_line_changed(kvm, &kvm->stat.clock_changes_host);

out_resumed:
	WRITE_ONCE(clock->resumes, kvmclock_slept.resumes);
}

void kvmclock_make_up_for_suspend(struct kvm *kvm)
{
	kvmclock_unlock(kvm, kvmclock_lock(kvm));
}

/*
 * The host is out of a suspend, maybe of one that kept its CPUs on, for which nobody
 * notes a resume.  Base time may have read either from the RTC, in seconds: that is
 * nothing to hold the TSC against.
 */
void kvmclock_end_suspend(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_snapshot now;
	unsigned long flags;
	s64 apart_ns;

	flags = kvmclock_lock_now(kvm, &now);
	apart_ns = kvmclock_at(clock, &now) - clock->anchor_ns -
		   (now.base_ns - clock->anchor_base_ns);
	if (clock->master && !kvmclock_host_tsc_unstable() && abs(apart_ns) < NSEC_PER_SEC)
		kvmclock_anchor(clock, &now);
	kvmclock_unlock(kvm, flags);
}

/*
 * The line of a vCPU
 */

/*
 * The line that a vCPU without a master clock reads from now on: where the
 * clock is, but no lower than what its guest can have read last, and half of what has
 * passed since.  If that is ahead, it goes slower, so as to have lost its lead when it
 * is drawn next: what is left then is what the TSC and base time drift apart in that
 * time, and no more.  But not at first: guests take the rate of their TSC from the
 * page that they have just enabled, for good.
 */
static void kvmclock_draw_line(struct kvm_vcpu *vcpu, const struct kvmclock_snapshot *now)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	u64 scaled_tsc = kvm_scale_tsc(now->host_tsc, v->l1_ratio);
	u64 clock_ns = kvmclock_at(clock, now), ns = clock_ns;
	struct kvmclock_line line = v->line;
	s64 since_ns;

	line.ref_ns = kvmclock_last_read_ns(v);
	line.ref_tsc = kvm_scale_tsc(READ_ONCE(v->last_read_tsc), v->l1_ratio);
	/* With the host's rate unknown the slope stays: there is none better. */
	kvmclock_slope(kvmclock_host_khz(clock), v->l1_ratio, &line);

	if (v->line.mul) {
		/* Of the TSC's own slope: that of a line which loses its lead is less. */
		since_ns = kvmclock_line_ns(&line, scaled_tsc) - line.ref_ns;
		ns = kvmclock_later_ns(ns, line.ref_ns + max(since_ns, 0) / 2);
		/* The guest reads no less from now on, though it may not be drawn for it. */
		WRITE_ONCE(v->last_read_tsc, now->host_tsc);
	}

	line.ref_tsc = scaled_tsc;
	line.ref_ns = ns;
	if (ns != clock_ns && time_after(jiffies, v->moved_jiffies + KVMCLOCK_CALIBRATE))
		kvmclock_line_converge(&line, ns - clock_ns, KVMCLOCK_REDRAW_NS);
	v->line = line;
}

/* Would the guest read less from the VM's line from now on than it can have before? */
static bool __maybe_unused kvmclock_goes_back(struct kvm_vcpu *vcpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	u64 last_ns = kvmclock_last_read_ns(v), now_ns;

	/* Its thread may be leaving its CPU: what it noted by now was before this TSC. */
	now_ns = kvmclock_line_ns(&clock->line, kvm_scale_tsc(rdtsc_ordered(), clock->ratio));
	return v->line.mul && READ_ONCE(v->last_read_tsc) && (s64)(now_ns - last_ns) < 0;
}

/*
 * What the vCPU's memory is to have, by whatever thread writes it: the VM's line,
 * then true is returned, or, as only its own thread draws a new one, the line that
 * it has.
 */
bool kvmclock_take_line(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvmclock_snapshot now;

	if (kvmclock_has_line(vcpu)) {
		KVM_CLOCK_WARN_ON(kvmclock_goes_back(vcpu));
		v->line = vcpu->kvm->arch.clock.line;
		return true;
	}
	if (!v->line.mul) {
		kvmclock_take_snapshot(&now);
		kvmclock_draw_line(vcpu, &now);
	}
	return false;
}

/* The vCPU is about to write its own memory: catch up, draw, take its line. */
void kvmclock_update_line(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvmclock_snapshot now;
	unsigned long flags;
	bool has_line;

	flags = kvmclock_lock(vcpu->kvm);
	if (vcpu->kvm->arch.clock.tsc_changes || !v->counted) {
		/*
		 * Not yet: the last reading is one of the old TSC; or who creates the
		 * vCPU has not told anybody, and somebody runs it already.
		 */
		kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
		kvmclock_unlock(vcpu->kvm, flags);
		return;
	}

	/* Once: the host may find its TSC broken at any time. */
	has_line = kvmclock_has_line(vcpu);
	if (v->catchup || !has_line) {
		kvmclock_take_snapshot(&now);
		if (v->catchup)
			kvm_tsc_catch_up(vcpu, &now);
	}
	if (!has_line) {
		kvmclock_draw_line(vcpu, &now);
		kvmclock_page_stale(vcpu);
	} else {
		KVM_CLOCK_WARN_ON(kvmclock_goes_back(vcpu));
		v->line = vcpu->kvm->arch.clock.line;
	}
	kvmclock_unlock(vcpu->kvm, flags);
}

/*
 * Changes of the line, with the gate
 */

/*
 * KVM_REQ_MCLOCK_INPROGRESS: no vCPU is in the guest when this returns, nor enters
 * it.  Not one that is created meanwhile either: it does not count, so it does not
 * enter, before kvm_tsc_vcpu_join() has waited for the gate, and is asked from then on.
 */
static void kvmclock_close_gate(struct kvm *kvm)
{
	lockdep_assert_held(&kvm->arch.clock.change_lock);

	kvm->arch.clock.closed_ns = ktime_get_mono_fast_ns();
	kvm_make_all_cpus_request(kvm, KVM_REQ_MCLOCK_INPROGRESS);
}

static void kvmclock_open_gate(struct kvm *kvm)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;

	kvm_for_each_vcpu(i, vcpu, kvm)
		kvm_clear_request(KVM_REQ_MCLOCK_INPROGRESS, vcpu);
	kvm->stat.clock_gate_ns += ktime_get_mono_fast_ns() - kvm->arch.clock.closed_ns;
}

/*
 * A change of the line, in three steps: this, whatever it is that changes, and
 * kvmclock_end_change().  Between the two no vCPU is in the guest, readers wait, and
 * nobody else changes anything; @now is one instant of it.  Nothing sleeps, nor is
 * preempted: a vCPU of real-time priority, spinning at the gate, would not let who
 * holds it go on.
 */
static void __kvmclock_begin_change(struct kvm *kvm, struct kvmclock_snapshot *now)
	__acquires(&kvm->arch.clock.lock)
{
	preempt_disable();
	kvmclock_close_gate(kvm);
	kvmclock_lock_now(kvm, now);
	write_seqcount_begin(&kvm->arch.clock.seq);
}

/* @cause counts it; NULL if nothing changed after all. */
static void __kvmclock_end_change(struct kvm *kvm, u64 *cause)
	__releases(&kvm->arch.clock.lock)
{
	write_seqcount_end(&kvm->arch.clock.seq);
	if (cause)
		kvmclock_line_changed(kvm, cause);
	raw_spin_unlock_irq(&kvm->arch.clock.lock);
	kvmclock_open_gate(kvm);
	preempt_enable();
}

void kvmclock_begin_change(struct kvm *kvm, struct kvmclock_snapshot *now)
	__acquires(&kvm->arch.clock.lock)
{
	mutex_lock(&kvm->arch.clock.change_lock);
	__kvmclock_begin_change(kvm, now);
}

void kvmclock_end_change(struct kvm *kvm, bool changed)
	__releases(&kvm->arch.clock.lock)
{
	__kvmclock_end_change(kvm, changed ? &kvm->stat.clock_changes_user : NULL);
	mutex_unlock(&kvm->arch.clock.change_lock);
}

void kvmclock_await_gate(struct kvm *kvm)
{
	mutex_lock(&kvm->arch.clock.change_lock);
	mutex_unlock(&kvm->arch.clock.change_lock);
}

/* Does the clock differ from what it should be? */
static bool kvmclock_out_of_date(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_decision want;
	struct kvmclock_snapshot now;
	unsigned long flags;
	bool differs;

	flags = kvmclock_lock_now(kvm, &now);
	kvmclock_decide(kvm, &now, &want);
	differs = !kvmclock_same_line(clock, &want) || clock->stable != want.stable;
	kvmclock_unlock(kvm, flags);

	return differs;
}

static void kvmclock_plan_redraw(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;

	if (!READ_ONCE(clock->master) && atomic_read(&kvm->online_vcpus))
		queue_delayed_work(system_dfl_wq, &clock->redraw,
				   nsecs_to_jiffies(KVMCLOCK_REDRAW_NS));
}

/*
 * Has the clock be what it should be.  Judged without the gate first: kicking all
 * vCPUs is the price to be avoided.  And without the mutex: most of what asks changes
 * nothing, and does not wait for what does.  Does not touch guest memory, so that the
 * host's events may call it under kvm_lock.
 */
void kvmclock_update_master(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_decision want;
	struct kvmclock_snapshot now;

	if (kvmclock_out_of_date(kvm)) {
		mutex_lock(&clock->change_lock);
		/* Another may have been here before. */
		if (kvmclock_out_of_date(kvm)) {
			__kvmclock_begin_change(kvm, &now);
			kvmclock_decide(kvm, &now, &want);
			kvmclock_apply(kvm, &now, &want);
			__kvmclock_end_change(kvm, &kvm->stat.clock_changes_rule);
		}
		mutex_unlock(&clock->change_lock);
	}

	kvmclock_plan_redraw(kvm);
}

/*
 * Without a master clock: each vCPU's line is drawn anew before it can have gone
 * astray, that of one that never leaves the guest too.  A master clock that could
 * not be had for a moment is had again here.
 */
void kvmclock_redraw(struct work_struct *work)
{
	struct kvm_clock *clock = container_of(to_delayed_work(work), struct kvm_clock, redraw);
	struct kvm *kvm = container_of(clock, struct kvm, arch.clock);

	kvmclock_update_master(kvm);
	if (!READ_ONCE(clock->master))
		kvm_make_all_cpus_request(kvm, KVM_REQ_CLOCK_UPDATE | KVM_REQUEST_NO_WAKEUP);
}

/*
 * Reading the clock
 */

/* The clock and the host's times at one instant; true if by the master clock. */
bool kvmclock_read(struct kvm *kvm, struct kvmclock_snapshot *now, u64 *clock_ns)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	unsigned int seq;
	bool master;

	do {
		if (unlikely(kvmclock_suspend_missed(kvm)))
			kvmclock_make_up_for_suspend(kvm);

		seq = read_seqcount_begin(&clock->seq);
		kvmclock_take_snapshot(now);

		/* KCSAN does not nest seqcounts: the snapshot's own has ended this one. */
		*clock_ns = data_race(kvmclock_at(clock, now));
		master = READ_ONCE(clock->master);
	} while (read_seqcount_retry(&clock->seq, seq));

	return master;
}

u64 kvmclock_read_ns(struct kvm *kvm)
{
	struct kvmclock_snapshot now;
	u64 clock_ns;

	kvmclock_read(kvm, &now, &clock_ns);
	return clock_ns;
}

/*
 * CLOCK_REALTIME at which the clock was 0.  Both at one TSC read; they go at
 * different rates all the same, as NTP steers the one and not the other, so
 * this is a statement about now.
 */
u64 kvmclock_epoch_ns(struct kvm *kvm)
{
	struct kvmclock_snapshot now;
	u64 clock_ns;

	kvmclock_read(kvm, &now, &clock_ns);
	return now.real_ns - clock_ns;
}

/*
 * The clock as the vCPU's guest reads it, and CLOCK_MONOTONIC, at one instant.
 * For timers that the guest sets by the one and the host runs by the other.
 */
u64 kvmclock_read_vcpu(struct kvm_vcpu *vcpu, s64 *monotonic_ns)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvmclock_snapshot now;
	u64 clock_ns, scaled_tsc;
	unsigned long flags;
	ktime_t real_offset;

	flags = kvmclock_lock(vcpu->kvm);
	do {
		real_offset = ktime_mono_to_any(0, TK_OFFS_REAL);
		kvmclock_take_snapshot(&now);
	} while (real_offset != ktime_mono_to_any(0, TK_OFFS_REAL));

	clock_ns = kvmclock_at(clock, &now);
	/* A line that was carried over to another TSC lags until it is drawn again. */
	if (!kvmclock_has_line(vcpu) && v->line.mul && !clock->tsc_changes) {
		scaled_tsc = kvm_scale_tsc(now.host_tsc, v->l1_ratio);
		clock_ns = kvmclock_later_ns(clock_ns, kvmclock_line_ns(&v->line, scaled_tsc));
	}
	kvmclock_unlock(vcpu->kvm, flags);

	*monotonic_ns = now.real_ns - ktime_to_ns(real_offset);
	return clock_ns;
}

/*
 * Changes that userspace asks for, each within kvmclock_begin_change() and its end
 */

/*
 * The clock is @ns at this instant.  The line keeps its slope; a reference of
 * now keeps the page's unsigned system_time from starting below zero.  vCPUs
 * with lines of their own have them moved by as much.
 */
void kvmclock_set_ns(struct kvm *kvm, const struct kvmclock_snapshot *now, u64 ns)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	u64 step_ns = ns - kvmclock_at(clock, now);
	struct kvm_vcpu_clock *v;

	if (clock->master) {
		clock->line.ref_tsc = kvm_scale_tsc(now->host_tsc, clock->ratio);
		clock->line.ref_ns = ns;
		kvmclock_anchor(clock, now);
	} else {
		clock->base_offset_ns += step_ns;
	}

	list_for_each_entry(v, &clock->row, in_row)
		v->line.ref_ns += step_ns;
}

/*
 * The VM's clock is this line, over the scaled TSC; within a change.  A vCPU that has
 * just been given another rate has a line of its own, which is moved by as much.
 */
void kvmclock_assign_line(struct kvm *kvm, const struct kvmclock_line *line,
			  const struct kvmclock_snapshot *now)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	u64 step_ns = -kvmclock_at(clock, now);
	struct kvm_vcpu_clock *v;

	clock->line = *line;
	step_ns += kvmclock_at(clock, now);
	kvmclock_anchor(clock, now);
	list_for_each_entry(v, &clock->row, in_row) {
		if (v->l1_ratio == clock->ratio)
			v->line = *line;
		else
			v->line.ref_ns += step_ns;
	}
}

/*
 * Beginnings and ends that are not as usual
 */

/* Clock and guest TSC start together, at 0.  There is no vCPU yet. */
void kvmclock_start(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_decision want;
	struct kvmclock_snapshot now;

	raw_spin_lock_irq(&clock->lock);
	clock->resumes = kvmclock_slept.resumes;
	clock->restart_cycles = kvmclock_slept.restart_cycles;
	kvmclock_take_snapshot(&now);
	clock->base_offset_ns = -now.base_ns;
	kvm_tsc_init_vm(kvm, &now);
	kvmclock_decide(kvm, &now, &want);
	write_seqcount_begin(&clock->seq);
	kvmclock_apply(kvm, &now, &want);
	write_seqcount_end(&clock->seq);
	/* That it has none is told, and timed, as a loss. */
	kvm->stat.clock_master = true;
	kvmclock_line_changed(kvm, &kvm->stat.clock_changes_rule);
	raw_spin_unlock_irq(&clock->lock);
}

/*
 * The host's TSC is about to become another one, with Hyper-V underneath.
 * Called for all VMs, then kvmclock_end_new_tsc() for all, under kvm_lock and
 * with the gates closed in between.
 */
void kvmclock_begin_new_tsc(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_snapshot now;
	struct kvm_vcpu *vcpu;
	unsigned long i;

	mutex_lock_nest_lock(&clock->change_lock, &kvm_lock);
	kvmclock_close_gate(kvm);

	kvmclock_lock(kvm);
	clock->tsc_changes = true;
	/* What is read last from here on may be of the TSC that comes. */
	kvm_for_each_vcpu(i, vcpu, kvm)
		kvmclock_cut_line(vcpu);
	kvmclock_take_snapshot(&now);
	write_seqcount_begin(&clock->seq);
	if (clock->master)
		kvmclock_line_to_base(clock, &now);
	write_seqcount_end(&clock->seq);
	kvmclock_line_changed(kvm, &kvm->stat.clock_changes_host);
	raw_spin_unlock_irq(&clock->lock);
}

void kvmclock_end_new_tsc(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_decision want;
	struct kvmclock_snapshot now;
	struct kvm_vcpu *vcpu;
	unsigned long i;

	kvmclock_lock(kvm);
	clock->tsc_changes = false;
	kvmclock_take_snapshot(&now);
	kvm_for_each_vcpu(i, vcpu, kvm)
		kvmclock_join_line(vcpu, now.host_tsc, vcpu->arch.clock.l1_ratio);
	kvmclock_decide(kvm, &now, &want);
	write_seqcount_begin(&clock->seq);
	kvmclock_apply(kvm, &now, &want);
	write_seqcount_end(&clock->seq);
	kvmclock_line_changed(kvm, &kvm->stat.clock_changes_host);
	raw_spin_unlock_irq(&clock->lock);

	kvmclock_open_gate(kvm);
	mutex_unlock(&clock->change_lock);
	kvmclock_plan_redraw(kvm);
}
