/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the clock's files tell each other, by floor: each calls what comes before it
 * here, and never what comes after.  CONTRIBUTING has the house, and checks/house.sh
 * looks that it stands.
 */
#ifndef _KVM_X86_KVMCLOCK_INTERNAL_H
#define _KVM_X86_KVMCLOCK_INTERNAL_H

#include <linux/kvm_host.h>

#include "kvmclock.h"
#include "kvmclock_decide.h"
#include "kvmclock_line.h"
#include "x86.h"

struct timekeeper;

#ifdef CONFIG_KVM_PROVE_CLOCK
#define KVM_CLOCK_WARN_ON(x) WARN_ON_ONCE(x)
#else
#define KVM_CLOCK_WARN_ON(x) BUILD_BUG_ON_INVALID(x)
#endif

static inline u64 kvm_scale_tsc(u64 host_tsc, u64 ratio)
{
	if (ratio == kvm_caps.default_tsc_scaling_ratio)
		return host_tsc;

	return mul_u64_u64_shr(host_tsc, ratio, kvm_caps.tsc_scaling_ratio_frac_bits);
}

/*
 * kvmclock_host.c: what the host knows
 */

/**
 * struct kvmclock_snapshot - the host's times at one instant
 * @host_tsc:	host TSC
 * @base_ns:	base time: CLOCK_MONOTONIC_RAW plus the time slept since boot
 * @real_ns:	CLOCK_REALTIME
 * @paired:	all three come from one TSC read.  Otherwise the host keeps
 *		time by something else, and the TSC was read just after.
 */
struct kvmclock_snapshot {
	u64  host_tsc;
	s64  base_ns;
	s64  real_ns;
	bool paired;
};

/**
 * struct kvmclock_sleep - what the host has slept, for kvmclock_make_up_for_suspend()
 * @resumes:	suspends that the host has been through
 * @restart_cycles: TSC cycles that it lost in them by restarting its TSC
 * @before:	its time on the way into the last one
 * @sleeps:	times that it slept at all, idle suspends included
 *
 * Written while tasks are being frozen, or are.
 */
struct kvmclock_sleep {
	unsigned int sleeps;
	unsigned int resumes;
	u64 restart_cycles;
	struct kvmclock_snapshot before;
};

extern struct kvmclock_sleep kvmclock_slept;

void kvmclock_take_snapshot(struct kvmclock_snapshot *now);
int kvmclock_host_mode(void);
unsigned int kvmclock_cpu_khz(void);
unsigned int kvmclock_max_khz(void);

void kvmclock_note_cpu_khz(unsigned int khz);
void kvmclock_note_max_khz(unsigned int khz);
void kvmclock_note_new_tsc(void);
bool kvmclock_note_timekeeper(const struct timekeeper *tk);
void kvmclock_note_suspend(bool begins);
void kvmclock_update_caps(void);

/*
 * kvmclock_owed.c: what guest memory owes
 */

/* A bit for each structure that a vCPU can have. */
#define KVMCLOCK_PLACES	3
#define KVMCLOCK_ALL	((1U << KVMCLOCK_PLACES) - 1)

/* Does the vCPU have memory that misleads, so that nobody enters the guest? */
static inline bool kvmclock_exposed(const struct kvm_vcpu_clock *v)
{
	return READ_ONCE(v->shared) && READ_ONCE(v->open);
}

/* Does the vCPU's memory lack the line? */
static inline bool kvmclock_stale(const struct kvm_vcpu_clock *v)
{
	return READ_ONCE(v->open) || READ_ONCE(v->absent);
}

void kvmclock_owe(struct kvm_vcpu *vcpu, bool shared, u8 open, u8 absent);
void kvmclock_owe_hv(struct kvm_clock *clock, bool stale, bool absent);
void kvmclock_claim(struct kvm_vcpu *vcpu);
void kvmclock_pages_stale(struct kvm *kvm);
void kvmclock_page_stale(struct kvm_vcpu *vcpu);

/*
 * kvmclock_tsc.c: how a guest TSC is made of the host's.  Under kvm_clock.lock, but
 * for the plan.
 */

int kvm_tsc_plan_user_khz(u32 *khz, struct kvm_tsc_plan *plan);
u64 kvm_tsc_default_ratio(struct kvm *kvm);
void kvm_tsc_init_vm(struct kvm *kvm, const struct kvmclock_snapshot *now);
void kvm_tsc_start(struct kvm_vcpu *vcpu, const struct kvmclock_snapshot *now);
void kvm_tsc_come_online(struct kvm_vcpu *vcpu, const struct kvmclock_snapshot *now);
void kvm_tsc_all_go(struct kvm *kvm);
void kvm_tsc_load_offset(struct kvm_vcpu *vcpu);
void kvm_tsc_step(struct kvm_vcpu *vcpu, u64 cycles);
void kvm_tsc_change_vm_khz(struct kvm *kvm, u32 khz, const struct kvm_tsc_plan *plan,
			   const struct kvmclock_snapshot *now);
bool kvm_tsc_khz_changes(struct kvm_vcpu *vcpu, u32 khz, struct kvm_tsc_plan *plan);
void kvm_tsc_change_khz(struct kvm_vcpu *vcpu, u32 khz, const struct kvm_tsc_plan *plan,
			const struct kvmclock_snapshot *now);
void kvm_tsc_restore(struct kvm_vcpu *vcpu, u64 tsc, const struct kvmclock_snapshot *now);
void kvm_tsc_move_by_guest(struct kvm_vcpu *vcpu, u64 offset,
			   const struct kvmclock_snapshot *now);
void kvm_tsc_take_offset(struct kvm_vcpu *vcpu, u64 offset,
			 const struct kvmclock_snapshot *now);
void kvm_tsc_set_value(struct kvm_vcpu *vcpu, u64 tsc, u64 scaled_tsc, u64 slack_cycles,
		       s64 elapsed_ns, const struct kvmclock_snapshot *now);
void kvm_tsc_catch_up(struct kvm_vcpu *vcpu, const struct kvmclock_snapshot *now);
void kvm_tsc_host_restarted(struct kvm *kvm, u64 restart_cycles);

/*
 * kvmclock_core.c: the line
 */

/* How often a line without a master clock is drawn. */
#define KVMCLOCK_REDRAW_NS	NSEC_PER_SEC

/* For so long after it has got a page, a guest may take its TSC's rate from it. */
#define KVMCLOCK_CALIBRATE	(HZ / 2)

/* Has the host slept since the clock was looked at last? */
static inline bool kvmclock_suspend_missed(struct kvm *kvm)
{
	return READ_ONCE(kvm->arch.clock.resumes) != READ_ONCE(kvmclock_slept.resumes);
}

void __kvmclock_make_up_for_suspend(struct kvm *kvm);

/* The one way to kvm_clock.lock: whoever has it has made up for a suspend. */
static inline unsigned long kvmclock_lock(struct kvm *kvm)
	__acquires(&kvm->arch.clock.lock)
{
	unsigned long flags;

	raw_spin_lock_irqsave(&kvm->arch.clock.lock, flags);
	if (unlikely(kvmclock_suspend_missed(kvm)))
		__kvmclock_make_up_for_suspend(kvm);
	return flags;
}

/* ... and @now is one instant of it. */
static inline unsigned long kvmclock_lock_now(struct kvm *kvm, struct kvmclock_snapshot *now)
	__acquires(&kvm->arch.clock.lock)
{
	unsigned long flags = kvmclock_lock(kvm);

	kvmclock_take_snapshot(now);
	return flags;
}

static inline void kvmclock_unlock(struct kvm *kvm, unsigned long flags)
	__releases(&kvm->arch.clock.lock)
{
	raw_spin_unlock_irqrestore(&kvm->arch.clock.lock, flags);
}

void kvmclock_make_up_for_suspend(struct kvm *kvm);
void kvmclock_end_suspend(struct kvm *kvm);

/* Under the lock */
bool kvmclock_has_line(struct kvm_vcpu *vcpu);
bool kvmclock_take_line(struct kvm_vcpu *vcpu);
void kvmclock_carry_line(struct kvm_vcpu *vcpu, u64 host_tsc, u64 ratio);
u64 kvmclock_at(const struct kvm_clock *clock, const struct kvmclock_snapshot *now);
u64 kvmclock_rate_hz(const struct kvm_clock *clock);
void kvmclock_compare_tscs(struct kvm *kvm, struct kvmclock_tscs *s);
bool kvmclock_tscs_may_decide(struct kvm *kvm);

/* A change, between whose two ends no vCPU is in the guest; and what may change */
void kvmclock_begin_change(struct kvm *kvm, struct kvmclock_snapshot *now);
void kvmclock_end_change(struct kvm *kvm, bool changed);
void kvmclock_set_ns(struct kvm *kvm, const struct kvmclock_snapshot *now, u64 ns);
void kvmclock_assign_line(struct kvm *kvm, const struct kvmclock_line *line,
			  const struct kvmclock_snapshot *now);

void kvmclock_await_gate(struct kvm *kvm);
bool kvmclock_read(struct kvm *kvm, struct kvmclock_snapshot *now, u64 *clock_ns);
void kvmclock_update_line(struct kvm_vcpu *vcpu);
void kvmclock_start(struct kvm *kvm);
void kvmclock_redraw(struct work_struct *work);
void kvmclock_begin_new_tsc(struct kvm *kvm);
void kvmclock_end_new_tsc(struct kvm *kvm);

/*
 * kvmclock_page.c: guest memory
 */

struct pvclock_vcpu_time_info kvmclock_page(const struct kvmclock_line *line, u64 offset,
					    bool stable);
void kvmclock_page_init(struct kvm_vcpu *vcpu);
void kvmclock_load_page(struct kvm_vcpu *vcpu);
void kvmclock_serve_page(struct kvm_vcpu *vcpu);
void kvmclock_owe_stopped(struct kvm_vcpu *vcpu);
void kvmclock_tell_stopped(struct kvm_vcpu *vcpu);

/*
 * kvmclock_event.c, for kvmclock_uapi.c
 */

void kvmclock_tsc_changed(struct kvm_vcpu *vcpu, bool host_initiated);

#endif /* _KVM_X86_KVMCLOCK_INTERNAL_H */
