// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest TSC: its rate, its scaling, its offset, and who matches whom.
 *
 *	scaled TSC = host TSC * ratio		one per rate
 *	guest TSC  = scaled TSC + offset	one per vCPU
 *
 * vCPUs share a generation: the offset that a vCPU to come is given, so that
 * all TSCs of a VM are equal unless someone writes one.  The first generation
 * lets the TSC start at 0 together with the VM's clock.
 *
 * Where the host's TSC can't do it in hardware - it is unstable, or slower
 * than the guest's rate - the guest TSC is followed in software: the offset
 * moves forward to where base time says the TSC should be.  That never steps
 * back, and the clock does not notice, being a line over the scaled TSC.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/math64.h>
#include <linux/moduleparam.h>

#include <asm/tsc.h>

#include "x86.h"
#include "kvmclock.h"
#include "lapic.h"
#include "trace.h"

/*
 * Without hardware scaling, a rate this close to the host's is taken for the
 * host's: half of what NTP may correct.
 */
static u32 __read_mostly tsc_tolerance_ppm = 250;
module_param(tsc_tolerance_ppm, uint, 0644);

/*
 * Scaling
 */

u64 kvm_scale_tsc(u64 host_tsc, u64 ratio)
{
	if (ratio == kvm_caps.default_tsc_scaling_ratio)
		return host_tsc;

	return mul_u64_u64_shr(host_tsc, ratio, kvm_caps.tsc_scaling_ratio_frac_bits);
}

u64 kvm_read_l1_tsc(struct kvm_vcpu *vcpu, u64 host_tsc)
{
	return kvm_scale_tsc(host_tsc, kvm_l1_tsc_ratio(vcpu)) + kvm_l1_tsc_offset(vcpu);
}
EXPORT_SYMBOL_GPL(kvm_read_l1_tsc);

/* L2's TSC = (L1's TSC) * l2_ratio + l2_offset, as one offset over the host's. */
u64 kvm_calc_nested_tsc_offset(u64 l1_offset, u64 l2_offset, u64 l2_ratio)
{
	if (l2_ratio == kvm_caps.default_tsc_scaling_ratio)
		return l1_offset + l2_offset;

	return mul_s64_u64_shr((s64)l1_offset, l2_ratio,
			       kvm_caps.tsc_scaling_ratio_frac_bits) + l2_offset;
}
EXPORT_SYMBOL_GPL(kvm_calc_nested_tsc_offset);

u64 kvm_calc_nested_tsc_multiplier(u64 l1_ratio, u64 l2_ratio)
{
	return kvm_scale_tsc(l1_ratio, l2_ratio);
}
EXPORT_SYMBOL_GPL(kvm_calc_nested_tsc_multiplier);

/*
 * Userspace reads L1's TSC whatever the vCPU is doing, so that what it saves
 * does not depend on the moment; the guest reads the one that runs.
 */
u64 kvm_tsc_read_msr(struct kvm_vcpu *vcpu, bool host_initiated)
{
	u64 host_tsc = rdtsc();

	if (host_initiated)
		return kvm_read_l1_tsc(vcpu, host_tsc);

	return kvm_scale_tsc(host_tsc, kvm_tsc_ratio(vcpu)) + kvm_tsc_offset(vcpu);
}

/*
 * Rates
 */

/* How a rate is made out of the host's. */
struct kvm_tsc_plan {
	u64  ratio;
	bool always_catchup;
};

/*
 * With scaling hardware the guest gets exactly the rate that it is told, down
 * to the ratio's last bit.  Returns -EINVAL for a rate that can't be had.
 */
static int kvm_tsc_plan(u32 khz, struct kvm_tsc_plan *plan)
{
	u64 deviation;

	plan->ratio = kvm_caps.default_tsc_scaling_ratio;
	plan->always_catchup = false;

	if (!khz || !tsc_khz)
		return -EINVAL;

	if (khz == tsc_khz)
		return 0;

	if (kvm_caps.has_tsc_control) {
		u64 ratio = mul_u64_u32_div(plan->ratio, khz, tsc_khz);

		if (!ratio || ratio >= kvm_caps.max_tsc_scaling_ratio)
			return -EINVAL;

		plan->ratio = ratio;
		return 0;
	}

	deviation = khz > tsc_khz ? khz - tsc_khz : tsc_khz - khz;
	if (deviation * USEC_PER_SEC <= (u64)tsc_khz * tsc_tolerance_ppm)
		return 0;

	if (khz < tsc_khz)
		return -EINVAL;

	plan->always_catchup = true;
	return 0;
}

/*
 * KVM_SET_TSC_KHZ: 0 stands for the host's rate.  KVM_GET_TSC_KHZ returns an
 * int, in which a rate has to fit.
 */
static int kvm_tsc_plan_user_khz(u32 *khz, struct kvm_tsc_plan *plan)
{
	if (*khz > INT_MAX)
		return -EINVAL;

	if (kvm_caps.has_tsc_control && *khz >= kvm_caps.max_guest_tsc_khz)
		return -EINVAL;

	if (!*khz)
		*khz = tsc_khz;

	return kvm_tsc_plan(*khz, plan);
}

/* The ratio of a VM that has no vCPU yet. */
u64 kvm_tsc_default_ratio(struct kvm *kvm)
{
	struct kvm_tsc_plan plan;

	kvm_tsc_plan(kvm->arch.clock.default_khz, &plan);
	return plan.ratio;
}

/*
 * Offsets and generations
 */

void kvm_tsc_init_vm(struct kvm *kvm, const struct kvmclock_snapshot *now)
{
	struct kvm_clock *clock = &kvm->arch.clock;

	clock->gen = (struct kvm_tsc_generation) {
		.id = 1,
		.khz = clock->default_khz,
		.offset = -kvm_scale_tsc(now->host_tsc, kvm_tsc_default_ratio(kvm)),
		.base_ns = now->base_ns,
	};
}

/*
 * The host's TSC has lost this many cycles since boot by restarting.  The
 * generation's offset makes up for them, as each vCPU's does when it is loaded
 * next: by the scaled total less the scaled total made up for, so that all end
 * equal no matter how many restarts each was away for.
 */
void kvm_tsc_host_restarted(struct kvm *kvm, u64 restart_cycles)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvm_tsc_plan plan;

	kvm_tsc_plan(clock->gen.khz, &plan);
	clock->gen.offset += kvm_scale_tsc(restart_cycles, plan.ratio) -
			     kvm_scale_tsc(clock->restart_cycles, plan.ratio);
	clock->restart_cycles = restart_cycles;
}

void kvm_tsc_write_offset(struct kvm_vcpu *vcpu, u64 offset)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	lockdep_assert_held(&vcpu->kvm->arch.clock.lock);

	trace_kvm_write_tsc_offset(vcpu->vcpu_id, v->l1_offset, offset);

	v->l1_offset = offset;
	v->pair_error = 0;

	/*
	 * A TSC written while in L2 is L1's all the same: L1 left the MSR to
	 * L2, or it is userspace that writes.
	 */
	v->offset = offset;
	if (is_guest_mode(vcpu)) {
		u64 l2_offset = kvm_x86_call(get_l2_tsc_offset)(vcpu);
		u64 l2_ratio = kvm_x86_call(get_l2_tsc_multiplier)(vcpu);

		v->offset = kvm_calc_nested_tsc_offset(offset, l2_offset, l2_ratio);
	}

	kvm_x86_call(write_tsc_offset)(vcpu);
}

static void kvm_tsc_write_ratio(struct kvm_vcpu *vcpu, u64 ratio)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	lockdep_assert_held(&vcpu->kvm->arch.clock.lock);

	v->l1_ratio = ratio;

	v->ratio = ratio;
	if (is_guest_mode(vcpu)) {
		u64 l2_ratio = kvm_x86_call(get_l2_tsc_multiplier)(vcpu);

		v->ratio = kvm_calc_nested_tsc_multiplier(ratio, l2_ratio);
	}

	if (kvm_caps.has_tsc_control)
		kvm_x86_call(write_tsc_multiplier)(vcpu);
}

static void kvm_tsc_apply_plan(struct kvm_vcpu *vcpu, u32 khz, const struct kvm_tsc_plan *plan)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	v->khz = khz;
	v->always_catchup = plan->always_catchup;
	v->catchup = plan->always_catchup;
	kvmclock_ratio(khz * 1000ULL, NSEC_PER_SEC, &v->cycles_mul, &v->cycles_shift);
	kvm_tsc_write_ratio(vcpu, plan->ratio);
}

/* Cycles at the vCPU's rate in a span of base time, which may be negative. */
static u64 kvm_tsc_cycles(struct kvm_vcpu *vcpu, s64 base_ns)
{
	return kvmclock_scale_signed(base_ns, vcpu->arch.clock.cycles_mul,
				     vcpu->arch.clock.cycles_shift);
}

/* Where the generation's TSC is now, for a vCPU of its rate. */
static u64 kvm_tsc_of_generation(struct kvm_vcpu *vcpu, const struct kvmclock_snapshot *now)
{
	struct kvm_tsc_generation *gen = &vcpu->kvm->arch.clock.gen;

	if (kvmclock_host_tsc_unstable() || vcpu->arch.clock.always_catchup)
		return gen->tsc + kvm_tsc_cycles(vcpu, now->base_ns - gen->base_ns);

	return gen->offset + kvm_scale_tsc(now->host_tsc, kvm_l1_tsc_ratio(vcpu));
}

/* The vCPU takes the generation's TSC for its own. */
static void kvm_tsc_join(struct kvm_vcpu *vcpu, const struct kvmclock_snapshot *now)
{
	struct kvm_tsc_generation *gen = &vcpu->kvm->arch.clock.gen;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	u64 tsc = kvm_tsc_of_generation(vcpu, now);

	v->generation = gen->id;
	v->ref_guest_tsc = gen->tsc;
	v->ref_base_ns = gen->base_ns;
	kvm_tsc_write_offset(vcpu, tsc - kvm_scale_tsc(now->host_tsc, v->l1_ratio));
}

/* The vCPU has this TSC at this instant, whatever the others have. */
static void kvm_tsc_assign(struct kvm_vcpu *vcpu, u64 tsc, const struct kvmclock_snapshot *now)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	v->generation = 0;
	v->ref_guest_tsc = tsc;
	v->ref_base_ns = now->base_ns;
	kvm_tsc_write_offset(vcpu, tsc - kvm_scale_tsc(now->host_tsc, v->l1_ratio));
}

/* As kvm_tsc_assign(), and vCPUs to come, or to be written, may join. */
static void kvm_tsc_new_generation(struct kvm_vcpu *vcpu, u64 tsc,
				   const struct kvmclock_snapshot *now, u64 parent)
{
	struct kvm_tsc_generation *gen = &vcpu->kvm->arch.clock.gen;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	kvm_tsc_assign(vcpu, tsc, now);

	gen->id++;
	gen->parent = parent;
	gen->khz = v->khz;
	gen->offset = v->l1_offset;
	gen->tsc = tsc;
	gen->base_ns = now->base_ns;
	v->generation = gen->id;
}

/*
 * Before the vCPU is online: the VM's rate and TSC.  A host whose TSC rate is
 * unknown has guests whose rate is unknown, too.
 */
void kvm_tsc_vcpu_init(struct kvm_vcpu *vcpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvmclock_snapshot now;
	struct kvm_tsc_plan plan;
	unsigned long flags;
	u32 khz;

	kvmclock_resume(vcpu->kvm);

	raw_spin_lock_irqsave(&clock->lock, flags);
	kvmclock_snapshot(&now);
	khz = clock->default_khz;
	if (kvm_tsc_plan(khz, &plan))
		khz = 0;
	kvm_tsc_apply_plan(vcpu, khz, &plan);
	vcpu->arch.clock.restart_cycles = clock->restart_cycles;
	if (khz == clock->gen.khz)
		kvm_tsc_join(vcpu, &now);
	raw_spin_unlock_irqrestore(&clock->lock, flags);
}

/*
 * Now that the vCPU is online and counts.  It has the VM's TSC already, unless
 * the generation changed meanwhile or is of another rate.
 */
void kvm_tsc_vcpu_join(struct kvm_vcpu *vcpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvmclock_snapshot now;
	unsigned long flags;

	raw_spin_lock_irqsave(&clock->lock, flags);
	if (vcpu->arch.clock.generation != clock->gen.id) {
		kvmclock_snapshot(&now);
		if (vcpu->arch.clock.khz == clock->gen.khz)
			kvm_tsc_join(vcpu, &now);
		else
			kvm_tsc_new_generation(vcpu, 0, &now, 0);
	}
	raw_spin_unlock_irqrestore(&clock->lock, flags);

	kvmclock_update_master(vcpu->kvm);
}

/*
 * Who sets a rate, a TSC, an offset
 */

/*
 * KVM_SET_TSC_KHZ of a VM: the rate of vCPUs to come.  Before the first vCPU
 * it is also the rate of the clock and of the TSC, which go on from where
 * they are.
 */
int kvm_tsc_set_vm_khz(struct kvm *kvm, u32 khz)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvmclock_snapshot now;
	struct kvm_tsc_plan plan;
	u64 old_ratio;
	int r;

	r = kvm_tsc_plan_user_khz(&khz, &plan);
	if (r)
		return r;

	kvmclock_resume(kvm);

	raw_spin_lock_irq(&clock->lock);
	old_ratio = kvm_tsc_default_ratio(kvm);
	clock->default_khz = khz;
	if (!atomic_read(&kvm->online_vcpus)) {
		kvmclock_snapshot(&now);
		clock->gen.tsc = clock->gen.offset + kvm_scale_tsc(now.host_tsc, old_ratio);
		clock->gen.base_ns = now.base_ns;
		clock->gen.offset = clock->gen.tsc - kvm_scale_tsc(now.host_tsc, plan.ratio);
		clock->gen.khz = khz;
		clock->gen.id++;
	}
	raw_spin_unlock_irq(&clock->lock);

	kvmclock_update_master(kvm);
	return 0;
}

/*
 * KVM_SET_TSC_KHZ of a vCPU: its TSC goes on at the new rate from the value
 * that it has.  vCPUs of one generation that change to one rate, each at its
 * own moment, end with one offset again: the first one's.
 */
int kvm_tsc_set_vcpu_khz(struct kvm_vcpu *vcpu, u32 khz)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvm_tsc_generation *gen = &clock->gen;
	struct kvmclock_snapshot now;
	struct kvm_tsc_plan plan;
	u64 guest_tsc;
	int r;

	r = kvm_tsc_plan_user_khz(&khz, &plan);
	if (r)
		return r;

	raw_spin_lock_irq(&clock->lock);
	if (khz == v->khz) {
		raw_spin_unlock_irq(&clock->lock);
		return 0;
	}

	kvmclock_snapshot(&now);
	guest_tsc = kvm_read_l1_tsc(vcpu, now.host_tsc);
	kvmclock_carry_line(vcpu, now.host_tsc, plan.ratio);
	kvm_tsc_apply_plan(vcpu, khz, &plan);

	if (gen->khz == khz && gen->parent && gen->parent == v->generation)
		kvm_tsc_join(vcpu, &now);
	else if (v->generation == gen->id)
		kvm_tsc_new_generation(vcpu, guest_tsc, &now, gen->id);
	else
		kvm_tsc_assign(vcpu, guest_tsc, &now);
	raw_spin_unlock_irq(&clock->lock);

	kvmclock_tsc_changed(vcpu, true);
	return 0;
}

/*
 * MSR_IA32_TSC written by userspace, as old userspace knows it.  It restores
 * vCPUs one by one, with values that it read one by one, and KVM has to guess
 * what was meant:
 *
 * - 0 means "as the others";
 * - a value within a second of what the others have means that too, once
 *   userspace has written any value in this VM;
 * - any other value starts a new generation.
 *
 * All of it is judged at one TSC read.  KVM_VCPU_TSC_VALUE does not guess.
 */
static void kvm_tsc_write_by_host(struct kvm_vcpu *vcpu, u64 tsc)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvm_tsc_generation *gen = &clock->gen;
	struct kvmclock_snapshot now;
	unsigned long flags;
	bool join = false;

	raw_spin_lock_irqsave(&clock->lock, flags);
	kvmclock_snapshot(&now);

	if (v->khz && v->khz == gen->khz) {
		s64 ahead = tsc - kvm_tsc_of_generation(vcpu, &now);
		s64 second = v->khz * 1000LL;

		join = !tsc || (gen->user_set && ahead > -second && ahead < second);
	}
	gen->user_set = true;

	if (join)
		kvm_tsc_join(vcpu, &now);
	else
		kvm_tsc_new_generation(vcpu, tsc, &now, 0);
	raw_spin_unlock_irqrestore(&clock->lock, flags);

	kvmclock_tsc_changed(vcpu, true);
}

/* Moves L1's TSC by what the guest asked for; the clock must not notice. */
static void kvm_tsc_move_by_guest(struct kvm_vcpu *vcpu, u64 offset,
				  const struct kvmclock_snapshot *now)
{
	kvm_tsc_assign(vcpu, kvm_scale_tsc(now->host_tsc, kvm_l1_tsc_ratio(vcpu)) + offset, now);
}

void kvm_tsc_write_msr(struct kvm_vcpu *vcpu, u64 tsc, bool host_initiated)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvmclock_snapshot now;
	unsigned long flags;
	u64 offset;

	if (host_initiated) {
		kvm_tsc_write_by_host(vcpu, tsc);
		return;
	}

	raw_spin_lock_irqsave(&clock->lock, flags);
	kvmclock_snapshot(&now);
	offset = tsc - kvm_scale_tsc(now.host_tsc, v->l1_ratio);
	v->adjust_msr += offset - v->l1_offset;
	kvm_tsc_move_by_guest(vcpu, offset, &now);
	raw_spin_unlock_irqrestore(&clock->lock, flags);

	kvmclock_tsc_changed(vcpu, false);
}

/* Userspace restores the MSR alone; the guest moves its TSC with it. */
void kvm_tsc_write_adjust_msr(struct kvm_vcpu *vcpu, u64 adjust, bool host_initiated)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvmclock_snapshot now;
	unsigned long flags;

	if (host_initiated || adjust == v->adjust_msr) {
		v->adjust_msr = adjust;
		return;
	}

	raw_spin_lock_irqsave(&clock->lock, flags);
	kvmclock_snapshot(&now);
	kvm_tsc_move_by_guest(vcpu, v->l1_offset + (adjust - v->adjust_msr), &now);
	v->adjust_msr = adjust;
	raw_spin_unlock_irqrestore(&clock->lock, flags);

	kvmclock_tsc_changed(vcpu, false);
}

/* Exactly this offset; equal offsets are one generation. */
static void kvm_tsc_take_offset(struct kvm_vcpu *vcpu, u64 offset,
				const struct kvmclock_snapshot *now)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvm_tsc_generation *gen = &vcpu->kvm->arch.clock.gen;

	gen->user_set = true;
	if (v->khz && v->khz == gen->khz && offset == gen->offset) {
		v->generation = gen->id;
		v->ref_guest_tsc = gen->tsc;
		v->ref_base_ns = gen->base_ns;
		kvm_tsc_write_offset(vcpu, offset);
	} else {
		kvm_tsc_new_generation(vcpu, kvm_scale_tsc(now->host_tsc, v->l1_ratio) + offset,
				       now, 0);
	}
}

/* KVM_VCPU_TSC_OFFSET */
void kvm_tsc_set_l1_offset(struct kvm_vcpu *vcpu, u64 offset)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvmclock_snapshot now;
	unsigned long flags;

	raw_spin_lock_irqsave(&clock->lock, flags);
	kvmclock_snapshot(&now);
	kvm_tsc_take_offset(vcpu, offset, &now);
	raw_spin_unlock_irqrestore(&clock->lock, flags);

	kvmclock_tsc_changed(vcpu, true);
}

/*
 * Another vCPU's offset, if its pair can't be told from the one that gave
 * @offset.  The pairs are compared, not what became of them: two pairs that are
 * this close may lie either side of one that was taken for a third offset.  Of
 * several the one written last counts, as the others may be yet to be restored.
 */
static u64 kvm_tsc_near_offset(struct kvm_vcpu *vcpu, u64 offset, u64 slack_cycles)
{
	u64 near = offset, newest = 0;
	struct kvm_vcpu *other;
	unsigned long i;

	kvm_for_each_vcpu(i, other, vcpu->kvm) {
		struct kvm_vcpu_clock *v = &other->arch.clock;
		u64 ahead = v->l1_offset + v->pair_error - offset;

		if (other == vcpu || v->l1_ratio != kvm_l1_tsc_ratio(vcpu) ||
		    ahead + slack_cycles > 2 * slack_cycles || v->generation < newest)
			continue;

		newest = v->generation;
		near = v->l1_offset;
	}

	return near;
}

/*
 * KVM_VCPU_TSC_VALUE: the TSC is @tsc when the scaled TSC is @scaled_tsc, which
 * is @elapsed_ns ago; known to within @slack_cycles.  A TSC that is moved in
 * software goes faster than the scaled one, and is where the nanoseconds say.
 */
void kvm_tsc_set_value(struct kvm_vcpu *vcpu, u64 tsc, u64 scaled_tsc, u64 slack_cycles,
		       s64 elapsed_ns, const struct kvmclock_snapshot *now)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	u64 pair = tsc - scaled_tsc;
	u64 offset;

	lockdep_assert_held(&vcpu->kvm->arch.clock.lock);

	if (v->always_catchup)
		pair = tsc + kvm_tsc_cycles(vcpu, elapsed_ns) -
		       kvm_scale_tsc(now->host_tsc, v->l1_ratio);

	offset = pair;
	if (slack_cycles && !v->always_catchup)
		offset = kvm_tsc_near_offset(vcpu, pair, slack_cycles);

	kvm_tsc_take_offset(vcpu, offset, now);
	v->pair_error = pair - offset;
}

/*
 * What the host does to a TSC
 */

/* Moves the TSC forward, never back, to where base time says it should be. */
void kvm_tsc_catch_up(struct kvm_vcpu *vcpu, const struct kvmclock_snapshot *now)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	u64 target = v->ref_guest_tsc + kvm_tsc_cycles(vcpu, now->base_ns - v->ref_base_ns);
	s64 behind = target - kvm_read_l1_tsc(vcpu, now->host_tsc);

	if (behind > 0)
		kvm_tsc_write_offset(vcpu, v->l1_offset + behind);
}

/*
 * The vCPU comes to a CPU: take up what the host's TSC did meanwhile.
 *
 * A TSC that restarted in a suspend has lost cycles, the same for all vCPUs:
 * see kvm_tsc_host_restarted().
 *
 * An unstable TSC may have any value here: the guest TSC goes on from where
 * it was, and catches up.
 */
void kvm_tsc_vcpu_load(struct kvm_vcpu *vcpu, int cpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	unsigned long flags;
	u64 host_tsc;

	if (unlikely(v->restart_cycles != clock->restart_cycles)) {
		raw_spin_lock_irqsave(&clock->lock, flags);
		kvm_tsc_write_offset(vcpu, v->l1_offset +
				     kvm_scale_tsc(clock->restart_cycles, v->l1_ratio) -
				     kvm_scale_tsc(v->restart_cycles, v->l1_ratio));
		v->restart_cycles = clock->restart_cycles;
		raw_spin_unlock_irqrestore(&clock->lock, flags);
	}

	if (!v->last_host_tsc)
		return;

	if (vcpu->cpu != cpu && (s64)(rdtsc() - v->last_host_tsc) < 0 && !check_tsc_unstable())
		mark_tsc_unstable("KVM: a vCPU moved to a CPU whose TSC is behind");

	if (likely(!kvmclock_host_tsc_unstable()))
		return;

	raw_spin_lock_irqsave(&clock->lock, flags);
	host_tsc = rdtsc();
	kvm_tsc_write_offset(vcpu, kvm_read_l1_tsc(vcpu, v->last_host_tsc) -
			     kvm_scale_tsc(host_tsc, v->l1_ratio));
	kvmclock_carry_line(vcpu, host_tsc, v->l1_ratio);
	v->catchup = true;
	raw_spin_unlock_irqrestore(&clock->lock, flags);
}
