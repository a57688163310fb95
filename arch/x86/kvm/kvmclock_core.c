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
 * update.  It starts no lower than the old one was when the vCPU left the
 * guest, so the guest never sees its clock go backwards.
 *
 * Locking: kvm_clock.lock guards the state.  The line and the stable bit change
 * with the gate closed, that is with no vCPU in the guest, under gate_lock, and
 * leave each vCPU with the request to write the pages.  The first one back does
 * so, under pages_lock, for all vCPUs, the halted ones included, before any of
 * them is in the guest again.  Guest memory may be as slow as a page fault that
 * userspace serves; nothing but other writers waits for it.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/suspend.h>
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
#include "kvmclock_decide.h"
#include "lapic.h"
#include "trace.h"
#include "xen.h"

#ifdef CONFIG_KVM_PROVE_CLOCK
#define KVM_CLOCK_WARN_ON(x) WARN_ON_ONCE(x)
#else
#define KVM_CLOCK_WARN_ON(x) BUILD_BUG_ON_INVALID(x)
#endif

static_assert(sizeof(struct pvclock_vcpu_time_info) == 32);
static_assert(offsetof(struct pvclock_vcpu_time_info, tsc_timestamp) == 8);
static_assert(offsetof(struct pvclock_vcpu_time_info, flags) == 29);
static_assert(sizeof(struct pvclock_wall_clock) == 12);
static_assert(sizeof(struct kvm_vcpu_tsc_scale) == 16);
static_assert(sizeof(struct kvm_vcpu_tsc_value) == 64);
static_assert(offsetof(struct kvm_vcpu_tsc_value, reserved) == 24);

/*
 * Rates
 */

/* Rate of the host TSC in kHz: by the master clock one, else this CPU's. */
static unsigned int kvmclock_host_khz(const struct kvm_clock *clock)
{
	return clock->master ? clock->host_khz : kvmclock_cpu_khz();
}

/* Rate of the TSC at @ratio, in units of 2^-@frac_bits Hz. */
static u64 kvmclock_scaled_rate(unsigned int host_khz, u64 ratio, unsigned int frac_bits)
{
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

/*
 * Who has a master clock
 */

static void kvmclock_survey(struct kvm *kvm, struct kvmclock_survey *s)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;

	lockdep_assert_held(&kvm->arch.clock.lock);

	kvmclock_survey_begin(s, kvm_tsc_default_ratio(kvm));
	kvm_for_each_vcpu(i, vcpu, kvm) {
		struct kvm_vcpu_clock *v = &vcpu->arch.clock;

		kvmclock_survey_vcpu(s, v->l1_ratio, v->l1_offset, v->catchup);
	}
}

static void kvmclock_decide(struct kvm *kvm, const struct kvmclock_snapshot *now,
			    struct kvmclock_decision *want)
{
	struct kvmclock_survey s;
	unsigned int frac_bits;

	kvmclock_survey(kvm, &s);

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

static u64 kvmclock_at(const struct kvm_clock *clock, const struct kvmclock_snapshot *now)
{
	if (clock->master)
		return kvmclock_line_ns(&clock->line, kvm_scale_tsc(now->host_tsc, clock->ratio));

	return now->base_ns + clock->base_offset_ns;
}

/* Is the VM's line one over this vCPU's TSC, which only its own thread changes? */
static bool kvmclock_has_line(struct kvm_vcpu *vcpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;

	return clock->master && clock->ratio == kvm_l1_tsc_ratio(vcpu);
}

/* The clock goes on as base time. */
static void kvmclock_leave_line(struct kvm_clock *clock, const struct kvmclock_snapshot *now)
{
	clock->base_offset_ns = kvmclock_at(clock, now) - now->base_ns;
	clock->master = false;
	clock->stable = false;
}

/*
 * The last clock value that a vCPU, now out of the guest, can have read.  Its
 * thread may be on its way off the CPU, and note a later TSC meanwhile: either
 * will do.
 */
static u64 kvmclock_last_read_ns(const struct kvm_vcpu_clock *v)
{
	u64 host_tsc = READ_ONCE(v->last_host_tsc);

	return kvmclock_line_ns(&v->line, kvm_scale_tsc(host_tsc, v->l1_ratio));
}

/*
 * The clock goes on as a line, from a value that no vCPU has read beyond.  At
 * the rate of the last line it is parallel to it: that slope may have come
 * with the guest from elsewhere.
 */
static void kvmclock_enter_line(struct kvm *kvm, const struct kvmclock_snapshot *now,
				const struct kvmclock_decision *want)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	s64 ns = kvmclock_at(clock, now);
	struct kvm_vcpu *vcpu;
	unsigned long i;

	kvm_for_each_vcpu(i, vcpu, kvm) {
		if (vcpu->arch.clock.line.mul)
			ns = max_t(s64, ns, kvmclock_last_read_ns(&vcpu->arch.clock));
	}

	if (clock->ratio != want->ratio || clock->host_khz != want->host_khz) {
		clock->ratio = want->ratio;
		clock->host_khz = want->host_khz;
		clock->line = want->slope;
	}
	clock->line.ref_tsc = kvm_scale_tsc(now->host_tsc, clock->ratio);
	clock->line.ref_ns = ns;
	clock->master = true;
}

static void kvmclock_apply(struct kvm *kvm, const struct kvmclock_snapshot *now,
			   const struct kvmclock_decision *want)
{
	struct kvm_clock *clock = &kvm->arch.clock;

	if (!kvmclock_same_line(clock, want)) {
		u64 before_ns = kvmclock_at(clock, now);

		if (clock->master)
			kvmclock_leave_line(clock, now);
		if (want->master)
			kvmclock_enter_line(kvm, now, want);

		KVM_CLOCK_WARN_ON((s64)(kvmclock_at(clock, now) - before_ns) < 0);
	}
	clock->stable = want->stable;
}

/*
 * A vCPU's counter is at @host_tsc * @ratio next, whatever it was: its line
 * goes on there from what the guest can have read last.
 */
void kvmclock_carry_line(struct kvm_vcpu *vcpu, u64 host_tsc, u64 ratio)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	lockdep_assert_held(&vcpu->kvm->arch.clock.lock);

	if (v->line.mul && READ_ONCE(v->last_host_tsc)) {
		v->line.ref_ns = kvmclock_last_read_ns(v);
		v->line.ref_tsc = kvm_scale_tsc(host_tsc, ratio);
		if (ratio != v->l1_ratio)
			kvmclock_slope(kvmclock_host_khz(&vcpu->kvm->arch.clock), ratio, &v->line);
	}
	WRITE_ONCE(v->last_host_tsc, host_tsc);
}

/*
 * Guest memory no longer has the line, and can't have it here: it is written
 * on behalf of a vCPU only, lest a dirty ring miss it.
 */
static void kvmclock_line_changed(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvm_vcpu *vcpu;
	unsigned long i;

	WRITE_ONCE(clock->version, clock->version + 1);
	trace_kvmclock_change(clock);

	kvm_for_each_vcpu(i, vcpu, kvm)
		kvm_make_request(KVM_REQ_GLOBAL_CLOCK_UPDATE, vcpu);
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
void kvmclock_resume(struct kvm *kvm)
{
	const struct kvmclock_snapshot *before = &kvmclock_sleep.before;
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_snapshot now;
	struct kvm_vcpu *vcpu;
	unsigned long flags;
	unsigned long i;
	bool restarted;
	s64 missed_ns;

	if (likely(READ_ONCE(clock->resumes) == READ_ONCE(kvmclock_sleep.resumes)))
		return;

	raw_spin_lock_irqsave(&clock->lock, flags);
	if (clock->resumes == kvmclock_sleep.resumes)
		goto out_unlock;

	kvmclock_snapshot(&now);
	write_seqcount_begin(&clock->seq);

	restarted = clock->restart_cycles != kvmclock_sleep.restart_cycles;
	missed_ns = now.base_ns - before->base_ns -
		    (s64)(kvmclock_at(clock, &now) - kvmclock_at(clock, before));

	if (restarted || abs(missed_ns) >= NSEC_PER_SEC) {
		if (clock->master) {
			struct kvmclock_decision again = {
				.ratio = clock->ratio,
				.host_khz = clock->host_khz,
			};
			bool stable = clock->stable;

			kvmclock_leave_line(clock, before);
			if (now.paired) {
				kvmclock_enter_line(kvm, &now, &again);
				clock->stable = stable;
			}
		}
		kvm_for_each_vcpu(i, vcpu, kvm) {
			kvmclock_carry_line(vcpu, now.host_tsc, vcpu->arch.clock.l1_ratio);
			kvm_make_request(KVM_REQ_MASTERCLOCK_UPDATE, vcpu);
			kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
		}
		kvm_tsc_host_restarted(kvm, kvmclock_sleep.restart_cycles);
		kvmclock_line_changed(kvm);
	}

	write_seqcount_end(&clock->seq);
	WRITE_ONCE(clock->resumes, kvmclock_sleep.resumes);
out_unlock:
	raw_spin_unlock_irqrestore(&clock->lock, flags);
}

/*
 * Pages
 */

/* A line over a TSC with this offset, as a page has it. */
static struct pvclock_vcpu_time_info kvmclock_page(const struct kvmclock_line *line, u64 offset,
						   bool stable)
{
	return (struct pvclock_vcpu_time_info) {
		.tsc_timestamp = line->ref_tsc + offset,
		.system_time = line->ref_ns,
		.tsc_to_system_mul = line->mul,
		.tsc_shift = line->shift,
		.flags = stable ? PVCLOCK_TSC_STABLE_BIT : 0,
	};
}

/*
 * Writes one structure of the pvclock ABI into guest memory.  Its version is
 * odd while it is being written, and any vCPU may be reading it: the barriers
 * pair with those of the guest around its reads of the version.
 *
 * @page is what to write but for the version; @stopped, if not NULL, says
 * whether PVCLOCK_GUEST_STOPPED is owed, and the guest's copy of that flag is
 * kept: the guest clears it, in its own time.  Nothing is written, and false
 * returned, if there is no memory.
 */
static bool kvmclock_write_page(struct kvm_vcpu *vcpu, struct gfn_to_pfn_cache *gpc,
				unsigned int offset, struct pvclock_vcpu_time_info page,
				unsigned long *stopped)
{
	unsigned long len = offset + sizeof(page);
	struct pvclock_vcpu_time_info *to;
	unsigned long flags;

	read_lock_irqsave(&gpc->lock, flags);
	while (!kvm_gpc_check(gpc, len)) {
		read_unlock_irqrestore(&gpc->lock, flags);

		if (kvm_gpc_refresh(gpc, len)) {
			/* Its vCPU may be moving it: one place or the other. */
			trace_kvmclock_page_missing(vcpu->vcpu_id, data_race(gpc->gpa));
			return false;
		}
		read_lock_irqsave(&gpc->lock, flags);
	}

	to = gpc->khva + offset;

	page.version = READ_ONCE(to->version);
	page.version += 1 + (page.version & 1);
	WRITE_ONCE(to->version, page.version);
	smp_wmb();	/* odd version before any content */

	if (stopped) {
		page.flags |= READ_ONCE(to->flags) & PVCLOCK_GUEST_STOPPED;
		if (test_and_clear_bit(0, stopped))
			page.flags |= PVCLOCK_GUEST_STOPPED;
	}

	/* A guest may clear its flag at any time, on any vCPU: then it is set again. */
	data_race(*to = page);

	smp_wmb();	/* all content before the even version */
	WRITE_ONCE(to->version, ++page.version);

	kvm_gpc_mark_dirty_in_slot(gpc);
	read_unlock_irqrestore(&gpc->lock, flags);

	trace_kvm_pvclock_update(vcpu->vcpu_id, &page);
	return true;
}

/*
 * The Hyper-V TSC page has no modulo arithmetic: its reference must not be
 * before the guest's TSC 0.  One that is - a TSC was written back - is moved
 * forward along the line until it isn't.
 */
static void kvmclock_write_hv_page(struct kvm_vcpu *vcpu, struct kvmclock_line line,
				   u64 offset, bool stable)
{
	u64 now_tsc = kvm_scale_tsc(rdtsc(), vcpu->arch.clock.l1_ratio) + offset;
	struct pvclock_vcpu_time_info page;

	line.ref_tsc += offset;
	if (line.ref_tsc > now_tsc)
		kvmclock_line_advance(&line, ((-line.ref_tsc - 1) >> (32 - line.shift)) + 1);

	page = kvmclock_page(&line, 0, stable);
	kvm_hv_setup_tsc_page(vcpu->kvm, &page);
}

/*
 * The line into all that the guest reads on this vCPU.
 *
 * Memory that is not there may come back with what it had before, and the line
 * is owed to it then.  It can't be told when that is; but the guest can't read
 * it without an exit in between, as it had no mapping, and see
 * kvmclock_guest_exit().
 */
static void kvmclock_write_line(struct kvm_vcpu *vcpu, const struct kvmclock_line *line,
				u64 offset, bool stable)
{
	struct pvclock_vcpu_time_info page = kvmclock_page(line, offset, stable);
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	bool written = true;

	lockdep_assert_held(&vcpu->kvm->arch.clock.pages_lock);

	/* Switched by the vCPU's own thread, which requests an update then. */
	if (READ_ONCE(v->page.active))
		written &= kvmclock_write_page(vcpu, &v->page, 0, page, &v->guest_stopped);

	kvmclock_write_hv_page(vcpu, *line, offset, stable);

#ifdef CONFIG_KVM_XEN
	/* Old Xen guests trip over the stable bit unless they asked for it. */
	if (vcpu->kvm->arch.xen_hvm_config.flags & KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE)
		page.flags &= ~PVCLOCK_TSC_STABLE_BIT;

	if (READ_ONCE(vcpu->arch.xen.vcpu_info_cache.active))
		written &= kvmclock_write_page(vcpu, &vcpu->arch.xen.vcpu_info_cache,
					       offsetof(struct compat_vcpu_info, time),
					       page, NULL);
	if (READ_ONCE(vcpu->arch.xen.vcpu_time_info_cache.active))
		written &= kvmclock_write_page(vcpu, &vcpu->arch.xen.vcpu_time_info_cache, 0,
					       page, NULL);
#endif

	WRITE_ONCE(v->owed, !written);
}

/*
 * The line that a vCPU without a master clock reads from now on: where the
 * clock is, but no lower than where the vCPU's last line was.
 */
static void kvmclock_draw_line(struct kvm_vcpu *vcpu, const struct kvmclock_snapshot *now)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	s64 ns = kvmclock_at(clock, now);

	if (v->line.mul)
		ns = max_t(s64, ns, kvmclock_last_read_ns(v));

	/* With the host's rate unknown the slope stays: there is none better. */
	kvmclock_slope(kvmclock_host_khz(clock), v->l1_ratio, &v->line);
	v->line.ref_tsc = kvm_scale_tsc(now->host_tsc, v->l1_ratio);
	v->line.ref_ns = ns;
}

/*
 * A vCPU that is out of the guest, by another's thread: the VM's line or, as
 * only its own thread can draw a new one, the line that it has.
 */
static void kvmclock_write_other(struct kvm_vcpu *vcpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvmclock_line line;
	unsigned long flags;
	bool stable;
	u64 offset;

	raw_spin_lock_irqsave(&clock->lock, flags);
	if (clock->master)
		v->line = clock->line;
	else
		kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
	line = v->line;
	offset = v->l1_offset;
	stable = clock->stable;
	raw_spin_unlock_irqrestore(&clock->lock, flags);

	if (line.mul)
		kvmclock_write_line(vcpu, &line, offset, stable);
}

void kvmclock_update_all_pages(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvm_vcpu *vcpu;
	unsigned long i;
	u64 version;

	mutex_lock(&clock->pages_lock);
	version = READ_ONCE(clock->version);
	if (clock->published != version) {
		kvm_hv_request_tsc_page_update(kvm);
		kvm_for_each_vcpu(i, vcpu, kvm)
			kvmclock_write_other(vcpu);
		WRITE_ONCE(clock->published, version);
	}
	mutex_unlock(&clock->pages_lock);
}

static void kvmclock_update_rate_khz(struct kvm_vcpu *vcpu, unsigned int host_khz)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	u32 khz = div_u64(kvmclock_scaled_rate(host_khz, v->l1_ratio, 0) + 500, 1000);

	if (khz == v->rate_khz)
		return;

	v->rate_khz = khz;
	kvm_xen_update_tsc_info(vcpu);
}

/* Would the guest read less from the VM's line now than it can have before? */
static bool __maybe_unused kvmclock_goes_back(struct kvm_vcpu *vcpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	u64 now_ns = kvmclock_line_ns(&clock->line, kvm_scale_tsc(rdtsc(), clock->ratio));

	return v->line.mul && v->last_host_tsc && (s64)(now_ns - kvmclock_last_read_ns(v)) < 0;
}

void kvmclock_update_page(struct kvm_vcpu *vcpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvmclock_snapshot now;
	struct kvmclock_line line;
	unsigned int host_khz;
	unsigned long flags;
	u64 offset;
	bool stable;

	mutex_lock(&clock->pages_lock);

	raw_spin_lock_irqsave(&clock->lock, flags);
	host_khz = kvmclock_host_khz(clock);
	if (v->catchup || !clock->master) {
		kvmclock_snapshot(&now);
		if (v->catchup)
			kvm_tsc_catch_up(vcpu, &now);
	}
	if (!clock->master) {
		kvmclock_draw_line(vcpu, &now);
	} else {
		KVM_CLOCK_WARN_ON(kvmclock_goes_back(vcpu));
		v->line = clock->line;
	}
	line = v->line;
	offset = v->l1_offset;
	stable = clock->stable;
	raw_spin_unlock_irqrestore(&clock->lock, flags);

	kvmclock_update_rate_khz(vcpu, host_khz);
	kvmclock_write_line(vcpu, &line, offset, stable);

	mutex_unlock(&clock->pages_lock);
}

/*
 * Changes of the line, with the gate
 */

/* No vCPU is in the guest when this returns, nor enters it. */
static void kvmclock_close_gate(struct kvm *kvm)
{
	lockdep_assert_held(&kvm->arch.clock.gate_lock);

	kvm_make_all_cpus_request(kvm, KVM_REQ_MCLOCK_INPROGRESS);
}

static void kvmclock_open_gate(struct kvm *kvm)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;

	kvm_for_each_vcpu(i, vcpu, kvm)
		kvm_clear_request(KVM_REQ_MCLOCK_INPROGRESS, vcpu);
}

static void kvmclock_begin_change(struct kvm *kvm) __acquires(&kvm->arch.clock.lock)
{
	struct kvm_clock *clock = &kvm->arch.clock;

	raw_spin_lock_irq(&clock->lock);
	write_seqcount_begin(&clock->seq);
}

static void kvmclock_end_change(struct kvm *kvm) __releases(&kvm->arch.clock.lock)
{
	struct kvm_clock *clock = &kvm->arch.clock;

	kvmclock_line_changed(kvm);
	write_seqcount_end(&clock->seq);
	raw_spin_unlock_irq(&clock->lock);
}

/* Does the clock differ from what it should be? */
static bool kvmclock_out_of_date(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_decision want;
	struct kvmclock_snapshot now;
	unsigned long flags;
	bool differs;

	raw_spin_lock_irqsave(&clock->lock, flags);
	kvmclock_snapshot(&now);
	kvmclock_decide(kvm, &now, &want);
	differs = !kvmclock_same_line(clock, &want) || clock->stable != want.stable;
	raw_spin_unlock_irqrestore(&clock->lock, flags);

	return differs;
}

/*
 * Has the clock be what it should be; true if it wasn't.  Does not touch guest
 * memory, so that the host's events may call it under kvm_lock.
 */
bool kvmclock_reconsider(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_decision want;
	struct kvmclock_snapshot now;
	bool changed;

	kvmclock_resume(kvm);

	mutex_lock(&clock->gate_lock);
	changed = kvmclock_out_of_date(kvm);
	if (changed) {
		kvmclock_close_gate(kvm);

		kvmclock_begin_change(kvm);
		kvmclock_snapshot(&now);
		kvmclock_decide(kvm, &now, &want);
		kvmclock_apply(kvm, &now, &want);
		kvmclock_end_change(kvm);

		kvmclock_open_gate(kvm);
	}
	mutex_unlock(&clock->gate_lock);

	return changed;
}

void kvmclock_update_master(struct kvm *kvm)
{
	if (kvmclock_reconsider(kvm))
		kvm_hv_request_tsc_page_update(kvm);
}

/*
 * A vCPU's TSC, or its rate, changed: its page is out of date, Hyper-V's with
 * it, and maybe the decision.  Userspace may never run the vCPU again, so its
 * change takes effect at once; the guest's own does before the guest goes on.
 */
void kvmclock_tsc_changed(struct kvm_vcpu *vcpu, bool host_initiated)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvmclock_survey s;
	unsigned long flags;

	raw_spin_lock_irqsave(&clock->lock, flags);
	kvmclock_survey(vcpu->kvm, &s);
	trace_kvm_track_tsc(vcpu->vcpu_id, s.matched,
			    atomic_read(&vcpu->kvm->online_vcpus),
			    clock->master, kvmclock_host_mode());
	raw_spin_unlock_irqrestore(&clock->lock, flags);

	kvm_hv_request_tsc_page_update(vcpu->kvm);
	kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);

	if (host_initiated)
		kvmclock_update_master(vcpu->kvm);
	else
		kvm_make_request(KVM_REQ_MASTERCLOCK_UPDATE, vcpu);
}

/*
 * Reading the clock
 */

/* The clock and the host's times at one instant; true if by the master clock. */
static bool kvmclock_read(struct kvm *kvm, struct kvmclock_snapshot *now, u64 *clock_ns)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	unsigned int seq;
	bool master;

	kvmclock_resume(kvm);

	do {
		seq = read_seqcount_begin(&clock->seq);
		kvmclock_snapshot(now);

		/* KCSAN forgets of this seqcount at the end of the snapshot's own. */
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
	unsigned long flags;
	ktime_t real_offset;
	u64 clock_ns;

	kvmclock_resume(vcpu->kvm);

	raw_spin_lock_irqsave(&clock->lock, flags);
	do {
		real_offset = ktime_mono_to_any(0, TK_OFFS_REAL);
		kvmclock_snapshot(&now);
	} while (real_offset != ktime_mono_to_any(0, TK_OFFS_REAL));

	if (!clock->master && v->line.mul)
		clock_ns = kvmclock_line_ns(&v->line, kvm_scale_tsc(now.host_tsc, v->l1_ratio));
	else
		clock_ns = kvmclock_at(clock, &now);
	raw_spin_unlock_irqrestore(&clock->lock, flags);

	*monotonic_ns = now.real_ns - ktime_to_ns(real_offset);
	return clock_ns;
}

/*
 * KVM_HC_CLOCK_PAIRING: the host's realtime and the guest's TSC of one TSC
 * read.  Refused to a guest whose TSC is moved in software: it could not use
 * the pair.
 */
int kvmclock_pairing(struct kvm_vcpu *vcpu, gpa_t gpa, unsigned long type)
{
	struct kvm_clock_pairing pairing = {};
	struct kvmclock_snapshot now;
	struct timespec64 real;

	if (type != KVM_CLOCK_PAIRING_WALLCLOCK || vcpu->arch.clock.always_catchup)
		return -KVM_EOPNOTSUPP;

	kvmclock_snapshot(&now);
	if (!now.paired)
		return -KVM_EOPNOTSUPP;

	real = ns_to_timespec64(now.real_ns);
	pairing.sec = real.tv_sec;
	pairing.nsec = real.tv_nsec;
	pairing.tsc = kvm_read_l1_tsc(vcpu, now.host_tsc);

	if (kvm_write_guest(vcpu->kvm, gpa, &pairing, sizeof(pairing)))
		return -KVM_EFAULT;

	return 0;
}

/*
 * The guest's interface
 */

/*
 * MSR_KVM_SYSTEM_TIME and its newer number, which mean the same: bit 0 enables
 * the page at the 4-byte aligned address in the others.  An address that is
 * not, or whose page would cross into the next, gets none; one without memory
 * behind it gets its page once there is some.  The guest is not told.
 */
void kvmclock_set_system_time(struct kvm_vcpu *vcpu, u64 data)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	gpa_t gpa = data & ~1ULL;

	v->system_time_msr = data;

	if (!(data & 1) || !IS_ALIGNED(gpa, sizeof(u32)) ||
	    kvm_gpc_activate(&v->page, gpa, sizeof(struct pvclock_vcpu_time_info)) == -EINVAL) {
		kvm_gpc_deactivate(&v->page);
		clear_bit(0, &v->guest_stopped);
		return;
	}

	kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
}

/*
 * MSR_KVM_WALL_CLOCK: the epoch is written once, now, to the given address.
 * The version ends even whatever happens, so that no guest waits for it.
 */
void kvmclock_set_wall_clock(struct kvm *kvm, u64 data)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct pvclock_wall_clock wall;
	struct timespec64 epoch;

	WRITE_ONCE(clock->wall_clock_msr, data);
	if (!data)
		return;

	mutex_lock(&clock->pages_lock);

	if (kvm_read_guest(kvm, data, &wall.version, sizeof(wall.version)))
		goto out_unlock;

	wall.version += 1 + (wall.version & 1);
	if (kvm_write_guest(kvm, data, &wall.version, sizeof(wall.version)))
		goto out_unlock;
	smp_wmb();	/* odd version before any content */

	epoch = ns_to_timespec64(kvmclock_epoch_ns(kvm));
	wall.sec = epoch.tv_sec;	/* the ABI ends in 2106 */
	wall.nsec = epoch.tv_nsec;
	kvm_write_guest(kvm, data, &wall, sizeof(wall));

	smp_wmb();	/* all content before the even version */
	wall.version++;
	kvm_write_guest(kvm, data, &wall.version, sizeof(wall.version));

out_unlock:
	mutex_unlock(&clock->pages_lock);
}

/*
 * Userspace's interface
 */

/*
 * KVM_GET_CLOCK: a flag is set exactly when its field is of the same instant
 * as the clock.  By the master clock that is always so for the TSC; by base
 * time it is for realtime.  The other one needs the host to pair them.
 */
int kvmclock_ioctl_get(struct kvm *kvm, void __user *argp)
{
	struct kvm_clock_data data = {};
	struct kvmclock_snapshot now;
	bool master;

	master = kvmclock_read(kvm, &now, &data.clock);

	if (master)
		data.flags |= KVM_CLOCK_TSC_STABLE;
	if (master || now.paired) {
		data.flags |= KVM_CLOCK_HOST_TSC;
		data.host_tsc = now.host_tsc;
	}
	if (!master || now.paired) {
		data.flags |= KVM_CLOCK_REALTIME;
		data.realtime = now.real_ns;
	}

	return copy_to_user(argp, &data, sizeof(data)) ? -EFAULT : 0;
}

/*
 * The clock is @ns at this instant.  The line keeps its slope; a reference of
 * now keeps the page's unsigned system_time from starting below zero.  vCPUs
 * with lines of their own have them moved by as much.
 */
static void kvmclock_set_ns(struct kvm *kvm, const struct kvmclock_snapshot *now, u64 ns)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	u64 step_ns = ns - kvmclock_at(clock, now);
	struct kvm_vcpu *vcpu;
	unsigned long i;

	if (clock->master) {
		clock->line.ref_tsc = kvm_scale_tsc(now->host_tsc, clock->ratio);
		clock->line.ref_ns = ns;
	} else {
		clock->base_offset_ns += step_ns;
	}

	kvm_for_each_vcpu(i, vcpu, kvm)
		vcpu->arch.clock.line.ref_ns += step_ns;
}

/*
 * KVM_SET_CLOCK, with KVM_CLOCK_REALTIME by what CLOCK_REALTIME says has
 * passed since @realtime; not if it says that nothing has: the clock that is
 * being restored has been read, and must not go back behind it.
 */
int kvmclock_ioctl_set(struct kvm *kvm, void __user *argp)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_snapshot now;
	struct kvm_clock_data data;

	if (copy_from_user(&data, argp, sizeof(data)))
		return -EFAULT;

	if (data.flags & ~KVM_CLOCK_VALID_FLAGS)
		return -EINVAL;

	kvmclock_resume(kvm);

	mutex_lock(&clock->gate_lock);
	kvmclock_close_gate(kvm);

	kvmclock_begin_change(kvm);
	kvmclock_snapshot(&now);
	if ((data.flags & KVM_CLOCK_REALTIME) && now.real_ns > data.realtime)
		data.clock += now.real_ns - data.realtime;
	kvmclock_set_ns(kvm, &now, data.clock);
	kvmclock_end_change(kvm);

	kvmclock_open_gate(kvm);
	mutex_unlock(&clock->gate_lock);

	/* The reference counter no longer comes from the TSC page. */
	kvm_hv_request_tsc_page_update(kvm);

	return 0;
}

/*
 * KVM_GET_CLOCK_GUEST: the line in the vCPU's page.  As far as a TSC that is
 * moved in software goes, there is no such line.
 */
int kvmclock_ioctl_get_guest(struct kvm_vcpu *vcpu, void __user *argp)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct pvclock_vcpu_time_info page;
	unsigned long flags;
	bool has_line;

	kvmclock_resume(vcpu->kvm);

	raw_spin_lock_irqsave(&clock->lock, flags);
	has_line = kvmclock_has_line(vcpu) && !vcpu->arch.clock.catchup;
	page = kvmclock_page(&clock->line, kvm_l1_tsc_offset(vcpu), clock->stable);
	raw_spin_unlock_irqrestore(&clock->lock, flags);

	if (!has_line)
		return -ENODATA;

	return copy_to_user(argp, &page, sizeof(page)) ? -EFAULT : 0;
}

/* How far apart the rates of an imported line and of its TSC may be. */
#define KVMCLOCK_IMPORT_HZ	1000

/* Rate of the counter that a line is over; its mul has no leading zero. */
static u64 kvmclock_line_hz(const struct kvmclock_line *line)
{
	u64 hz = (u64)NSEC_PER_SEC << 32;

	if (line->shift < 0)
		return mul_u64_u64_div_u64(hz, 1ULL << -line->shift, line->mul);
	return div64_u64(hz, (u64)line->mul << line->shift);
}

/*
 * The line of a page, over the scaled TSC.  Errors:
 * -EINVAL: not a page's content, or a reference after the vCPU's TSC or out of
 *	its reach;
 * -ENODATA: the VM has no line;
 * -ERANGE: the page's counter is at another rate.
 */
static int kvmclock_import(struct kvm_vcpu *vcpu, const struct pvclock_vcpu_time_info *page,
			   struct kvmclock_line *line)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	u64 hz, delta;

	lockdep_assert_held(&clock->lock);

	*line = (struct kvmclock_line) {
		.ref_tsc = page->tsc_timestamp - kvm_l1_tsc_offset(vcpu),
		.ref_ns = page->system_time,
		.mul = page->tsc_to_system_mul,
		.shift = page->tsc_shift,
	};

	if (page->pad0 || page->pad[0] || page->pad[1] ||
	    page->flags & ~(PVCLOCK_TSC_STABLE_BIT | PVCLOCK_GUEST_STOPPED) ||
	    line->shift < -31 || line->shift > 31)
		return -EINVAL;

	if (!kvmclock_has_line(vcpu) || vcpu->arch.clock.catchup)
		return -ENODATA;

	/* Fewer bits of mul and a larger shift would overflow early. */
	if (line->mul && line->mul < 1U << 31)
		return -EINVAL;

	hz = kvmclock_scaled_rate(clock->host_khz, clock->ratio, 0);
	if (!line->mul || abs_diff(kvmclock_line_hz(line), hz) > KVMCLOCK_IMPORT_HZ)
		return -ERANGE;

	/*
	 * Of the past, and less than half as old as it may ever become, 2^63 shifted
	 * cycles: from there on the clock would be computed wrong, and go back.
	 */
	delta = kvm_scale_tsc(rdtsc_ordered(), clock->ratio) - line->ref_tsc;
	if (delta >> (62 - max_t(s8, line->shift, 0)))
		return -EINVAL;

	return 0;
}

/*
 * KVM_SET_CLOCK_GUEST: the VM's clock is this line over the vCPU's TSC.  It is
 * assigned, so that it is the exported one bit for bit.
 */
int kvmclock_ioctl_set_guest(struct kvm_vcpu *vcpu, void __user *argp)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct pvclock_vcpu_time_info page;
	struct kvm *kvm = vcpu->kvm;
	struct kvmclock_line line;
	struct kvm_vcpu *other;
	unsigned long i;
	int r;

	if (copy_from_user(&page, argp, sizeof(page)))
		return -EFAULT;

	kvmclock_resume(kvm);

	mutex_lock(&clock->gate_lock);
	kvmclock_close_gate(kvm);

	/* Checked and assigned at once: a resume needs no more than the lock. */
	raw_spin_lock_irq(&clock->lock);
	r = kvmclock_import(vcpu, &page, &line);
	if (!r) {
		write_seqcount_begin(&clock->seq);
		clock->line = line;
		kvm_for_each_vcpu(i, other, kvm)
			other->arch.clock.line = line;
		kvmclock_line_changed(kvm);
		write_seqcount_end(&clock->seq);
	}
	raw_spin_unlock_irq(&clock->lock);

	kvmclock_open_gate(kvm);
	mutex_unlock(&clock->gate_lock);

	/* The reference counter no longer comes from the TSC page. */
	if (!r)
		kvm_hv_request_tsc_page_update(kvm);
	return r;
}

/*
 * KVM_KVMCLOCK_CTRL: the flag is in the page when this returns, so that it is
 * part of a snapshot taken next; if the page can't be written now, it comes
 * with the next update.
 */
int kvmclock_set_guest_stopped(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	int idx;

	if (!v->page.active)
		return -EINVAL;

	set_bit(0, &v->guest_stopped);
	kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);

	idx = srcu_read_lock(&vcpu->kvm->srcu);
	kvmclock_update_page(vcpu);
	srcu_read_unlock(&vcpu->kvm->srcu, idx);

	return 0;
}

#ifdef CONFIG_HAVE_KVM_PM_NOTIFIER
/* Into a suspend: the guest is told.  Out of it: no VM misses two. */
int kvm_arch_pm_notifier(struct kvm *kvm, unsigned long state)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;

	switch (state) {
	case PM_HIBERNATION_PREPARE:
	case PM_SUSPEND_PREPARE:
		kvm_for_each_vcpu(i, vcpu, kvm) {
			if (!READ_ONCE(vcpu->arch.clock.page.active))
				continue;
			set_bit(0, &vcpu->arch.clock.guest_stopped);
			kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
		}
		break;
	case PM_POST_HIBERNATION:
	case PM_POST_SUSPEND:
		kvmclock_resume(kvm);
		break;
	}

	return NOTIFY_DONE;
}
#endif

/*
 * KVM_VCPU_TSC_VALUE: the guest TSC and the clock at one instant, the last one
 * at which the clock drops no bit, or the reference if this CPU is some cycles
 * behind the one that set it.
 */
static int kvmclock_get_tsc_value(struct kvm_vcpu *vcpu, struct kvm_vcpu_tsc_value *value)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	unsigned long flags;
	int r = -ENODATA;
	u64 scaled_tsc;

	kvmclock_resume(vcpu->kvm);

	raw_spin_lock_irqsave(&clock->lock, flags);
	if (kvmclock_has_line(vcpu)) {
		scaled_tsc = kvm_scale_tsc(rdtsc_ordered(), clock->ratio);
		if ((s64)(scaled_tsc - clock->line.ref_tsc) < 0)
			scaled_tsc = clock->line.ref_tsc;

		*value = (struct kvm_vcpu_tsc_value) { .flags = KVM_TSC_VALUE_FRAC };
		value->kvm_ns = kvmclock_line_instant(&clock->line, &scaled_tsc,
						      &value->kvm_frac);
		value->tsc_val = scaled_tsc + kvm_l1_tsc_offset(vcpu);
		r = 0;
	}
	raw_spin_unlock_irqrestore(&clock->lock, flags);

	return r;
}

/*
 * The other way round: the vCPU's TSC is, was or will be @tsc_val when the
 * clock is at @kvm_ns.
 *
 * Instants of one line differ from this VM's line by one number of cycles
 * (kvmclock_line_tsc()), so vCPUs that had one offset get one, and others keep
 * their distance.  Without the fraction @kvm_ns stands for all instants that
 * read so: a nanosecond of cycles, and as many again as the clock's shift
 * drops.  Offsets that are no further apart were one.
 */
static int kvmclock_set_tsc_value(struct kvm_vcpu *vcpu, const struct kvm_vcpu_tsc_value *value)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	const struct kvmclock_line *line = &clock->line;
	struct kvmclock_snapshot now;
	u64 scaled_tsc, slack = 0;
	unsigned long flags;
	int r = -ENODATA;
	s64 elapsed_ns;

	if (value->flags & ~KVM_TSC_VALUE_VALID_FLAGS ||
	    memchr_inv(value->reserved, 0, sizeof(value->reserved)) ||
	    (value->kvm_frac && !(value->flags & KVM_TSC_VALUE_FRAC)))
		return -EINVAL;

	kvmclock_resume(vcpu->kvm);

	raw_spin_lock_irqsave(&clock->lock, flags);
	if (kvmclock_has_line(vcpu)) {
		kvmclock_snapshot(&now);
		scaled_tsc = kvmclock_line_tsc(line, value->kvm_ns, value->kvm_frac);
		elapsed_ns = kvmclock_at(clock, &now) - value->kvm_ns;
		if (!(value->flags & KVM_TSC_VALUE_FRAC))
			slack = kvmclock_line_tsc(line, line->ref_ns + 1, 0) - line->ref_tsc +
				(1ULL << max(0, -line->shift));
		kvm_tsc_set_value(vcpu, value->tsc_val, scaled_tsc, slack, elapsed_ns, &now);
		r = 0;
	}
	raw_spin_unlock_irqrestore(&clock->lock, flags);

	if (!r)
		kvmclock_tsc_changed(vcpu, true);
	return r;
}

/* KVM_VCPU_TSC_CTRL */
int kvmclock_has_attr(struct kvm_vcpu *vcpu, struct kvm_device_attr *attr)
{
	switch (attr->attr) {
	case KVM_VCPU_TSC_VALUE:
	case KVM_VCPU_TSC_OFFSET:
		return 0;
	case KVM_VCPU_TSC_SCALE:
		return kvm_caps.has_tsc_control ? 0 : -ENXIO;
	default:
		return -ENXIO;
	}
}

int kvmclock_get_attr(struct kvm_vcpu *vcpu, struct kvm_device_attr *attr)
{
	void __user *uaddr = u64_to_user_ptr(attr->addr);
	struct kvm_vcpu_tsc_scale scale;
	struct kvm_vcpu_tsc_value value;
	u64 offset;
	int r;

	r = kvmclock_has_attr(vcpu, attr);
	if (r)
		return r;

	switch (attr->attr) {
	case KVM_VCPU_TSC_SCALE:
		scale.tsc_ratio = kvm_l1_tsc_ratio(vcpu);
		scale.tsc_frac_bits = kvm_caps.tsc_scaling_ratio_frac_bits;
		return copy_to_user(uaddr, &scale, sizeof(scale)) ? -EFAULT : 0;
	case KVM_VCPU_TSC_VALUE:
		r = kvmclock_get_tsc_value(vcpu, &value);
		if (r)
			return r;
		return copy_to_user(uaddr, &value, sizeof(value)) ? -EFAULT : 0;
	default:
		offset = kvm_l1_tsc_offset(vcpu);
		return copy_to_user(uaddr, &offset, sizeof(offset)) ? -EFAULT : 0;
	}
}

int kvmclock_set_attr(struct kvm_vcpu *vcpu, struct kvm_device_attr *attr)
{
	void __user *uaddr = u64_to_user_ptr(attr->addr);
	struct kvm_vcpu_tsc_value value;
	u64 offset;
	int r;

	r = kvmclock_has_attr(vcpu, attr);
	if (r)
		return r;

	switch (attr->attr) {
	case KVM_VCPU_TSC_SCALE:
		return -EINVAL;
	case KVM_VCPU_TSC_VALUE:
		if (copy_from_user(&value, uaddr, sizeof(value)))
			return -EFAULT;
		return kvmclock_set_tsc_value(vcpu, &value);
	default:
		if (copy_from_user(&offset, uaddr, sizeof(offset)))
			return -EFAULT;
		kvm_tsc_set_l1_offset(vcpu, offset);
		return 0;
	}
}

/*
 * Life of a vCPU and of a VM
 */

void kvmclock_vcpu_init(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	kvm_gpc_init(&v->page, vcpu->kvm);
	v->l1_ratio = kvm_caps.default_tsc_scaling_ratio;
	v->ratio = kvm_caps.default_tsc_scaling_ratio;
}

void kvmclock_vcpu_reset(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	kvm_gpc_deactivate(&v->page);
	clear_bit(0, &v->guest_stopped);
	v->system_time_msr = 0;
}

/*
 * Without a master clock a vCPU's line is of the CPU that it was drawn on.  A
 * vCPU that was created since the line changed has not been asked to write
 * pages, and may read another's.
 */
void kvmclock_vcpu_load(struct kvm_vcpu *vcpu, int cpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;

	kvmclock_resume(vcpu->kvm);
	kvm_tsc_vcpu_load(vcpu, cpu);

	if (unlikely(READ_ONCE(clock->published) != READ_ONCE(clock->version)))
		kvm_make_request(KVM_REQ_GLOBAL_CLOCK_UPDATE, vcpu);

	if (!READ_ONCE(clock->master) && (vcpu->cpu != cpu || kvmclock_host_tsc_unstable()))
		kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
}

void kvmclock_init_vm(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_decision want;
	struct kvmclock_snapshot now;

	mutex_init(&clock->gate_lock);
	mutex_init(&clock->pages_lock);
	raw_spin_lock_init(&clock->lock);
	seqcount_raw_spinlock_init(&clock->seq, &clock->lock);

	clock->default_khz = kvmclock_max_khz();

	kvmclock_begin_change(kvm);
	clock->resumes = kvmclock_sleep.resumes;
	clock->restart_cycles = kvmclock_sleep.restart_cycles;

	/* Clock and guest TSC start together, at 0. */
	kvmclock_snapshot(&now);
	clock->base_offset_ns = -now.base_ns;
	kvm_tsc_init_vm(kvm, &now);
	kvmclock_decide(kvm, &now, &want);
	kvmclock_apply(kvm, &now, &want);
	kvmclock_end_change(kvm);
	clock->published = clock->version;
}

/*
 * The host's TSC is about to become another one, with Hyper-V underneath.
 * Called for all VMs, then kvmclock_resume_line() for all, under kvm_lock and
 * with the gates closed in between.
 */
void kvmclock_suspend_line(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_snapshot now;

	mutex_lock_nest_lock(&clock->gate_lock, &kvm_lock);
	kvmclock_close_gate(kvm);

	kvmclock_begin_change(kvm);
	kvmclock_snapshot(&now);
	if (clock->master)
		kvmclock_leave_line(clock, &now);
	kvmclock_end_change(kvm);
}

void kvmclock_resume_line(struct kvm *kvm)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_decision want;
	struct kvmclock_snapshot now;
	struct kvm_vcpu *vcpu;
	unsigned long i;

	kvmclock_begin_change(kvm);
	kvmclock_snapshot(&now);
	kvm_for_each_vcpu(i, vcpu, kvm)
		kvmclock_carry_line(vcpu, now.host_tsc, vcpu->arch.clock.l1_ratio);
	kvmclock_decide(kvm, &now, &want);
	kvmclock_apply(kvm, &now, &want);
	kvmclock_end_change(kvm);

	kvm_for_each_vcpu(i, vcpu, kvm)
		kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
	kvmclock_open_gate(kvm);
	mutex_unlock(&clock->gate_lock);
}
