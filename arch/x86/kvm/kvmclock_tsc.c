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
#include <linux/rbtree_augmented.h>

#include <asm/tsc.h>

#include "x86.h"
#include "kvmclock.h"
#include "kvmclock_internal.h"
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

u64 kvm_read_l1_tsc(struct kvm_vcpu *vcpu, u64 host_tsc)
{
	return kvm_scale_tsc(host_tsc, kvm_l1_tsc_ratio(vcpu)) + kvm_l1_tsc_offset(vcpu);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_read_l1_tsc);

/* L2's TSC = (L1's TSC) * l2_ratio + l2_offset, as one offset over the host's. */
u64 kvm_calc_nested_tsc_offset(u64 l1_offset, u64 l2_offset, u64 l2_ratio)
{
	if (l2_ratio == kvm_caps.default_tsc_scaling_ratio)
		return l1_offset + l2_offset;

	return mul_s64_u64_shr((s64)l1_offset, l2_ratio,
			       kvm_caps.tsc_scaling_ratio_frac_bits) + l2_offset;
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_calc_nested_tsc_offset);

u64 kvm_calc_nested_tsc_multiplier(u64 l1_ratio, u64 l2_ratio)
{
	return kvm_scale_tsc(l1_ratio, l2_ratio);
}
EXPORT_SYMBOL_FOR_KVM_INTERNAL(kvm_calc_nested_tsc_multiplier);

/*
 * Rates
 */

static bool kvm_tsc_tolerates(u32 khz, u32 other_khz)
{
	return (u64)abs_diff(khz, other_khz) * USEC_PER_SEC <= (u64)other_khz * tsc_tolerance_ppm;
}

/*
 * With scaling hardware the guest gets exactly the rate that it is told, down
 * to the ratio's last bit.  Returns -EINVAL for a rate that can't be had.
 */
static int kvm_tsc_make_plan(u32 khz, struct kvm_tsc_plan *plan)
{
	*plan = (struct kvm_tsc_plan) { .ratio = kvm_caps.default_tsc_scaling_ratio };

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

	if (kvm_tsc_tolerates(khz, tsc_khz))
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
int kvm_tsc_plan_user_khz(u32 *khz, struct kvm_tsc_plan *plan)
{
	if (*khz > INT_MAX)
		return -EINVAL;

	if (kvm_caps.has_tsc_control && *khz >= kvm_caps.max_guest_tsc_khz)
		return -EINVAL;

	if (!*khz)
		*khz = tsc_khz;

	return kvm_tsc_make_plan(*khz, plan);
}

/* The ratio of a VM that has no vCPU yet. */
u64 kvm_tsc_default_ratio(struct kvm *kvm)
{
	struct kvm_tsc_plan plan;

	kvm_tsc_make_plan(kvm->arch.clock.default_khz, &plan);
	return plan.ratio;
}

/*
 * Offsets and generations
 */

void kvm_tsc_init_vm(struct kvm *kvm, const struct kvmclock_snapshot *now)
{
	struct kvm_clock *clock = &kvm->arch.clock;

	INIT_LIST_HEAD(&clock->row);
	clock->gen = (struct kvm_tsc_generation) {
		.id = 1,
		.khz = clock->default_khz,
		.ratio = kvm_tsc_default_ratio(kvm),
		.offset = -kvm_scale_tsc(now->host_tsc, kvm_tsc_default_ratio(kvm)),
		.base_ns = now->base_ns,
	};
}

/* A vCPU that is counted: its neighbours in the row are, too, or there is none. */
static const struct kvmclock_tsc_state *kvm_tsc_neighbour(struct kvm_vcpu *vcpu,
							  struct list_head *at)
{
	if (at == &vcpu->kvm->arch.clock.row)
		return NULL;
	return &list_entry(at, struct kvm_vcpu_clock, in_row)->state;
}

static void kvm_tsc_count(struct kvm_vcpu *vcpu, int sign)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	kvmclock_census_count(&vcpu->kvm->arch.clock.census,
			      kvm_tsc_neighbour(vcpu, v->in_row.prev), &v->state,
			      kvm_tsc_neighbour(vcpu, v->in_row.next), sign);
}

/* After each change of what a vCPU's TSC has a say by. */
static void kvm_tsc_recount(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	lockdep_assert_held(&vcpu->kvm->arch.clock.lock);

	if (!v->counted || (v->state.ratio == v->l1_ratio && v->state.offset == v->l1_offset &&
			    v->state.catchup == v->catchup))
		return;

	kvm_tsc_count(vcpu, -1);
	v->state = (struct kvmclock_tsc_state) {
		.ratio = v->l1_ratio,
		.offset = v->l1_offset,
		.catchup = v->catchup,
	};
	kvm_tsc_count(vcpu, 1);
}

/*
 * vCPUs that count, by their pairs: what userspace said that their offsets are.  Each
 * knows the newest of those at and below it in the tree, so that the newest of those
 * that are near a pair is found without looking at all.
 */
static u64 kvm_tsc_pair(const struct kvm_vcpu_clock *v)
{
	return v->l1_offset + v->pair_error;
}

#define kvm_tsc_of_node(node) rb_entry(node, struct kvm_vcpu_clock, pair_node)

static int kvm_tsc_index(const struct kvm_vcpu_clock *v)
{
	return container_of(v, struct kvm_vcpu, arch.clock)->vcpu_idx;
}

/*
 * Either may be NULL.  Of one generation it is the one with the higher index: there
 * is one newest of any vCPUs, or the tree could not tell that it has lost one.
 */
static const struct kvm_vcpu_clock *kvm_tsc_newer(const struct kvm_vcpu_clock *a,
						  const struct kvm_vcpu_clock *b)
{
	if (!a || !b)
		return a ? : b;
	if (a->generation != b->generation)
		return a->generation > b->generation ? a : b;
	return kvm_tsc_index(a) > kvm_tsc_index(b) ? a : b;
}

static const struct kvm_vcpu_clock *kvm_tsc_newest_below(const struct rb_node *node)
{
	return node ? kvm_tsc_of_node(node)->newest : NULL;
}

static bool kvm_tsc_find_newest(struct kvm_vcpu_clock *v, bool exit)
{
	const struct kvm_vcpu_clock *newest = v;

	newest = kvm_tsc_newer(newest, kvm_tsc_newest_below(v->pair_node.rb_left));
	newest = kvm_tsc_newer(newest, kvm_tsc_newest_below(v->pair_node.rb_right));
	if (exit && v->newest == newest)
		return true;
	v->newest = newest;
	return false;
}

RB_DECLARE_CALLBACKS(static, kvm_tsc_pairs, struct kvm_vcpu_clock, pair_node, newest,
		     kvm_tsc_find_newest);

static u64 kvm_tsc_pair_of_node(const struct rb_node *node)
{
	return kvm_tsc_pair(kvm_tsc_of_node(node));
}

static bool kvm_tsc_pair_is_less(struct rb_node *a, const struct rb_node *b)
{
	return kvm_tsc_pair_of_node(a) < kvm_tsc_pair_of_node(b);
}

static void kvm_tsc_note_pair(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	if (!v->counted)
		return;
	v->newest = v;
	rb_add_augmented_cached(&v->pair_node, &vcpu->kvm->arch.clock.pairs,
				kvm_tsc_pair_is_less, &kvm_tsc_pairs);
}

static void kvm_tsc_forget_pair(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	if (v->counted)
		rb_erase_augmented_cached(&v->pair_node, &vcpu->kvm->arch.clock.pairs,
					  &kvm_tsc_pairs);
}

/* The newest vCPU whose pair is from @first to @last, which is no less. */
static const struct kvm_vcpu_clock *kvm_tsc_newest_of(struct kvm *kvm, u64 first, u64 last)
{
	struct rb_node *top = kvm->arch.clock.pairs.rb_root.rb_node, *node;
	const struct kvm_vcpu_clock *newest;

	/* The highest of them: the others are below it, to its either side. */
	while (top && (kvm_tsc_pair_of_node(top) < first || kvm_tsc_pair_of_node(top) > last))
		top = kvm_tsc_pair_of_node(top) < first ? top->rb_right : top->rb_left;
	if (!top)
		return NULL;

	newest = kvm_tsc_of_node(top);
	for (node = top->rb_left; node; ) {
		if (kvm_tsc_pair_of_node(node) < first) {
			node = node->rb_right;
			continue;
		}
		newest = kvm_tsc_newer(newest, kvm_tsc_of_node(node));
		newest = kvm_tsc_newer(newest, kvm_tsc_newest_below(node->rb_right));
		node = node->rb_left;
	}
	for (node = top->rb_right; node; ) {
		if (kvm_tsc_pair_of_node(node) > last) {
			node = node->rb_left;
			continue;
		}
		newest = kvm_tsc_newer(newest, kvm_tsc_of_node(node));
		newest = kvm_tsc_newer(newest, kvm_tsc_newest_below(node->rb_left));
		node = node->rb_right;
	}
	return newest;
}

/* For KVM_PROVE_CLOCK: the same, of all others one by one. */
static const struct kvm_vcpu_clock * __maybe_unused
kvm_tsc_look_for_near(struct kvm_vcpu *vcpu, u64 pair, u64 slack_cycles)
{
	const struct kvm_vcpu_clock *near = NULL;
	struct kvm_vcpu *other;
	unsigned long i;

	kvm_for_each_vcpu(i, other, vcpu->kvm) {
		struct kvm_vcpu_clock *v = &other->arch.clock;

		if (other != vcpu && v->counted &&
		    kvm_tsc_pair(v) - pair + slack_cycles <= 2 * slack_cycles)
			near = kvm_tsc_newer(near, v);
	}
	return near;
}

/* The newest other vCPU whose pair is within @slack_cycles of @pair, modulo 2^64. */
static const struct kvm_vcpu_clock *kvm_tsc_near_pair(struct kvm_vcpu *vcpu, u64 pair,
						      u64 slack_cycles)
{
	u64 first = pair - slack_cycles, last = pair + slack_cycles;
	const struct kvm_vcpu_clock *near;

	kvm_tsc_forget_pair(vcpu);
	if (first <= last)
		near = kvm_tsc_newest_of(vcpu->kvm, first, last);
	else
		near = kvm_tsc_newer(kvm_tsc_newest_of(vcpu->kvm, first, U64_MAX),
				     kvm_tsc_newest_of(vcpu->kvm, 0, last));
	kvm_tsc_note_pair(vcpu);

	KVM_CLOCK_WARN_ON(near != kvm_tsc_look_for_near(vcpu, pair, slack_cycles));
	return near;
}

/*
 * The host's TSC has lost this many cycles since boot by restarting.  All offsets
 * make up for them at once, so that nobody compares an old one with a new one: by
 * the scaled total less the scaled total made up for, so that all end equal no
 * matter how many restarts there were.  The hardware has it when the vCPU is
 * loaded next.
 */
void kvm_tsc_host_restarted(struct kvm *kvm, u64 restart_cycles)
{
	struct kvm_clock *clock = &kvm->arch.clock;
	struct kvm_vcpu *vcpu;
	unsigned long i;

	lockdep_assert_held(&clock->lock);

	clock->gen.offset += kvm_scale_tsc(restart_cycles, clock->gen.ratio) -
			     kvm_scale_tsc(clock->restart_cycles, clock->gen.ratio);
	clock->pairs = RB_ROOT_CACHED;
	kvm_for_each_vcpu(i, vcpu, kvm) {
		struct kvm_vcpu_clock *v = &vcpu->arch.clock;

		if (!kvm_tsc_is_protected(vcpu))
			v->l1_offset += kvm_scale_tsc(restart_cycles, v->l1_ratio) -
					kvm_scale_tsc(clock->restart_cycles, v->l1_ratio);
		kvm_tsc_note_pair(vcpu);
		kvm_tsc_recount(vcpu);
	}
	clock->restart_cycles = restart_cycles;
}

/* The hardware has the vCPU's offset, in L2 with L2's on top, unless it is the vendor's. */
void kvm_tsc_load_offset(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	lockdep_assert_held(&vcpu->kvm->arch.clock.lock);

	if (kvm_tsc_is_protected(vcpu))
		return;

	/*
	 * A write in L2 sets L1's TSC: either L1 does not intercept the MSR, or
	 * userspace wrote it.
	 */
	v->offset = v->l1_offset;
	if (is_guest_mode(vcpu)) {
		u64 l2_offset = kvm_x86_call(get_l2_tsc_offset)(vcpu);
		u64 l2_ratio = kvm_x86_call(get_l2_tsc_multiplier)(vcpu);

		v->offset = kvm_calc_nested_tsc_offset(v->l1_offset, l2_offset, l2_ratio);
	}

	kvm_x86_call(write_tsc_offset)(vcpu);
}

/* The vCPU's offset: of this generation, or 0, and this far from what it was told. */
static void kvm_tsc_set_offset(struct kvm_vcpu *vcpu, u64 offset, u64 generation,
			       u64 pair_error)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	lockdep_assert_held(&vcpu->kvm->arch.clock.lock);

	if (kvm_tsc_is_protected(vcpu))
		return;

	trace_kvm_write_tsc_offset(vcpu->vcpu_id, v->l1_offset, offset);

	if (offset != v->l1_offset)
		kvmclock_page_stale(vcpu);

	if (offset != v->l1_offset || generation != v->generation || pair_error != v->pair_error) {
		kvm_tsc_forget_pair(vcpu);
		v->l1_offset = offset;
		v->generation = generation;
		v->pair_error = pair_error;
		kvm_tsc_note_pair(vcpu);
	}

	kvm_tsc_recount(vcpu);
	kvm_tsc_load_offset(vcpu);
}

/* The TSC steps, or is moved, as it is: its vCPU is of the generation that it was of. */
void kvm_tsc_step(struct kvm_vcpu *vcpu, u64 cycles)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	kvm_tsc_set_offset(vcpu, v->l1_offset + cycles, v->generation, 0);
}

static void kvm_tsc_write_ratio(struct kvm_vcpu *vcpu, u64 ratio)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	lockdep_assert_held(&vcpu->kvm->arch.clock.lock);

	v->l1_ratio = ratio;
	kvm_tsc_recount(vcpu);

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
	kvmclock_mul_shift(khz * 1000ULL, NSEC_PER_SEC, &v->cycles_mul, &v->cycles_shift);
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

/* The vCPU is of the generation, by this offset. */
static void kvm_tsc_join_by_offset(struct kvm_vcpu *vcpu, u64 offset, u64 pair_error)
{
	struct kvm_tsc_generation *gen = &vcpu->kvm->arch.clock.gen;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	v->follows = 0;
	v->ref_guest_tsc = gen->tsc;
	v->ref_base_ns = gen->base_ns;
	kvm_tsc_set_offset(vcpu, offset, gen->id, pair_error);
}

/* The vCPU takes the generation's TSC for its own. */
static void kvm_tsc_join(struct kvm_vcpu *vcpu, const struct kvmclock_snapshot *now)
{
	kvm_tsc_join_by_offset(vcpu, kvm_tsc_of_generation(vcpu, now) -
				     kvm_scale_tsc(now->host_tsc, kvm_l1_tsc_ratio(vcpu)), 0);
}

/* The vCPU has this TSC at this instant. */
static void kvm_tsc_place(struct kvm_vcpu *vcpu, u64 tsc, u64 generation, u64 pair_error,
			  const struct kvmclock_snapshot *now)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	v->follows = 0;
	v->ref_guest_tsc = tsc;
	v->ref_base_ns = now->base_ns;
	kvm_tsc_set_offset(vcpu, tsc - kvm_scale_tsc(now->host_tsc, v->l1_ratio), generation,
			   pair_error);
}

/* ... whatever the others have. */
static void kvm_tsc_assign(struct kvm_vcpu *vcpu, u64 tsc, const struct kvmclock_snapshot *now)
{
	kvm_tsc_place(vcpu, tsc, 0, 0, now);
}

/* ... and vCPUs to come, or to be written, may join. */
static void kvm_tsc_new_generation(struct kvm_vcpu *vcpu, u64 tsc, u64 parent, u64 pair_error,
				   const struct kvmclock_snapshot *now)
{
	struct kvm_tsc_generation *gen = &vcpu->kvm->arch.clock.gen;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	gen->id++;
	gen->parent = parent;
	gen->khz = v->khz;
	gen->ratio = v->l1_ratio;
	gen->offset = tsc - kvm_scale_tsc(now->host_tsc, v->l1_ratio);
	gen->tsc = tsc;
	gen->base_ns = now->base_ns;
	gen->ahead = 0;
	kvm_tsc_place(vcpu, tsc, gen->id, pair_error, now);
}

/*
 * A vCPU that is not online yet gets the VM's rate and TSC.
 *
 * A rate that the others have, and that can't be told from the VM's, is the VM's:
 * userspace restored it on a host that measured its own a little differently, and
 * plugs in a vCPU now.  Nor does it matter that the host has refined its rate
 * meanwhile.  What can't be had any more - the tolerance was lowered - is kept in
 * name, as it is for the vCPUs that there are.
 */
void kvm_tsc_start(struct kvm_vcpu *vcpu, const struct kvmclock_snapshot *now)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_tsc_generation *gen = &clock->gen;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	u32 khz = clock->default_khz;
	struct kvm_tsc_plan plan;

	if (clock->census.nr && kvm_tsc_tolerates(gen->khz, khz))
		khz = gen->khz;
	kvm_tsc_make_plan(khz, &plan);
	if (khz == gen->khz)
		plan.ratio = gen->ratio;
	if (kvm_tsc_is_protected(vcpu))
		kvmclock_heed_vendor(&plan, &khz, v->vendor_ratio,
				     kvm_scale_tsc(2ULL * tsc_khz, v->vendor_ratio));
	kvm_tsc_apply_plan(vcpu, khz, &plan);
	v->restart_cycles = clock->restart_cycles;
	if (khz == gen->khz)
		kvm_tsc_join(vcpu, now);
}

/*
 * The vCPU counts from now on.  It has the VM's TSC already, unless the generation
 * changed meanwhile.  One that is of another rate has its TSC go on from where the
 * others' is, and is one of them when it gets their rate.
 */
void kvm_tsc_come_online(struct kvm_vcpu *vcpu, const struct kvmclock_snapshot *now)
{
	struct kvm_tsc_generation *gen = &vcpu->kvm->arch.clock.gen;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	v->counted = true;
	list_add_tail(&v->in_row, &vcpu->kvm->arch.clock.row);
	v->state = (struct kvmclock_tsc_state) {
		.ratio = v->l1_ratio,
		.offset = v->l1_offset,
		.catchup = v->catchup,
	};
	kvm_tsc_count(vcpu, 1);
	kvm_tsc_note_pair(vcpu);

	if (kvm_tsc_is_protected(vcpu) || v->generation == gen->id)
		return;

	if (v->khz == gen->khz && v->l1_ratio == gen->ratio) {
		kvm_tsc_join(vcpu, now);
	} else {
		kvm_tsc_assign(vcpu, gen->offset + kvm_scale_tsc(now->host_tsc, gen->ratio), now);
		v->follows = gen->id;
	}
}

/*
 * vCPUs go, one by one, and all of them: none counts any more, though it may be
 * loaded once more, and its TSC moved, after others are gone.
 */
void kvm_tsc_all_go(struct kvm *kvm)
{
	struct kvm_vcpu *vcpu;
	unsigned long i;

	lockdep_assert_held(&kvm->arch.clock.lock);

	kvm_for_each_vcpu(i, vcpu, kvm)
		vcpu->arch.clock.counted = false;
	kvm->arch.clock.census = (struct kvmclock_census) { };
	INIT_LIST_HEAD(&kvm->arch.clock.row);
	kvm->arch.clock.pairs = RB_ROOT_CACHED;
}

/*
 * Who sets a rate, a TSC, an offset
 */

/* The rate of vCPUs to come; the TSC's, which goes on, as long as there is none. */
void kvm_tsc_change_vm_khz(struct kvm *kvm, u32 khz, const struct kvm_tsc_plan *plan,
			   const struct kvmclock_snapshot *now)
{
	struct kvm_tsc_generation *gen = &kvm->arch.clock.gen;

	WRITE_ONCE(kvm->arch.clock.default_khz, khz);
	if (atomic_read(&kvm->online_vcpus))
		return;

	gen->tsc = gen->offset + kvm_scale_tsc(now->host_tsc, gen->ratio);
	gen->base_ns = now->base_ns;
	gen->offset = gen->tsc - kvm_scale_tsc(now->host_tsc, plan->ratio);
	gen->khz = khz;
	gen->ratio = plan->ratio;
	gen->id++;
}

/*
 * Is this another rate than the vCPU has?  The rate is made anew of what the host's
 * is now, but is the same for all that have it.
 */
bool kvm_tsc_khz_changes(struct kvm_vcpu *vcpu, u32 khz, struct kvm_tsc_plan *plan)
{
	struct kvm_tsc_generation *gen = &vcpu->kvm->arch.clock.gen;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	if (khz == gen->khz && v->generation != gen->id)
		plan->ratio = gen->ratio;

	return khz != v->khz || plan->ratio != v->l1_ratio ||
	       plan->always_catchup != v->always_catchup;
}

/*
 * The vCPU's TSC goes on at the new rate from the value that it has.  vCPUs of one
 * generation that change to one rate, each at its own moment, end with one offset
 * again: the first one's.  So do those that were created meanwhile.
 */
void kvm_tsc_change_khz(struct kvm_vcpu *vcpu, u32 khz, const struct kvm_tsc_plan *plan,
			const struct kvmclock_snapshot *now)
{
	struct kvm_tsc_generation *gen = &vcpu->kvm->arch.clock.gen;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	u64 guest_tsc = kvm_read_l1_tsc(vcpu, now->host_tsc);

	kvm_tsc_apply_plan(vcpu, khz, plan);

	if (gen->khz == khz && gen->ratio == plan->ratio &&
	    (v->follows == gen->id || (gen->parent && gen->parent == v->generation)))
		kvm_tsc_join(vcpu, now);
	else if (v->generation == gen->id)
		kvm_tsc_new_generation(vcpu, guest_tsc, gen->id, 0, now);
	else
		kvm_tsc_assign(vcpu, guest_tsc, now);
}

/*
 * MSR_IA32_TSC written by userspace, as old userspace knows it.  It restores
 * vCPUs one by one, with values that it read one by one, and KVM has to guess
 * what was meant:
 *
 * - 0 means "as the others";
 * - a value within a second of where the last such value would be by now means
 *   that too, once userspace has written any value in this VM: one value may
 *   go to many vCPUs, slowly;
 * - any other value starts a new generation.
 *
 * All of it is judged at one TSC read.  KVM_VCPU_TSC_VALUE does not guess.
 */
void kvm_tsc_restore(struct kvm_vcpu *vcpu, u64 tsc, const struct kvmclock_snapshot *now)
{
	struct kvm_tsc_generation *gen = &vcpu->kvm->arch.clock.gen;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	bool join = false;

	if (v->khz && v->khz == gen->khz && v->l1_ratio == gen->ratio) {
		s64 ahead = tsc - kvm_tsc_of_generation(vcpu, now);
		s64 apart = ahead - gen->ahead;
		s64 second = v->khz * 1000LL;

		if (!tsc) {
			join = true;
		} else if (gen->user_set && apart > -second && apart < second) {
			join = true;
			gen->ahead = ahead;
		}
	}
	gen->user_set = true;

	if (join)
		kvm_tsc_join(vcpu, now);
	else
		kvm_tsc_new_generation(vcpu, tsc, 0, 0, now);
}

/* Moves L1's TSC by what the guest asked for; the clock must not notice. */
void kvm_tsc_move_by_guest(struct kvm_vcpu *vcpu, u64 offset,
			   const struct kvmclock_snapshot *now)
{
	kvm_tsc_assign(vcpu, kvm_scale_tsc(now->host_tsc, kvm_l1_tsc_ratio(vcpu)) + offset, now);
}

/* Exactly this offset; equal offsets are one generation, unless software moves one. */
static void kvm_tsc_take_pair(struct kvm_vcpu *vcpu, u64 offset, u64 pair_error,
			      const struct kvmclock_snapshot *now)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvm_tsc_generation *gen = &vcpu->kvm->arch.clock.gen;

	gen->user_set = true;
	if (v->khz && v->khz == gen->khz && v->l1_ratio == gen->ratio &&
	    offset == gen->offset && !v->catchup)
		kvm_tsc_join_by_offset(vcpu, offset, pair_error);
	else
		kvm_tsc_new_generation(vcpu, kvm_scale_tsc(now->host_tsc, v->l1_ratio) + offset,
				       0, pair_error, now);
}

void kvm_tsc_take_offset(struct kvm_vcpu *vcpu, u64 offset,
			 const struct kvmclock_snapshot *now)
{
	kvm_tsc_take_pair(vcpu, offset, 0, now);
}

/*
 * KVM_VCPU_TSC_VALUE: the TSC is @tsc when the scaled TSC is @scaled_tsc, which
 * is @elapsed_ns ago; known to within @slack_cycles: then it is another vCPU's if
 * that one's pair can't be told from this.  The pairs are compared, not what became
 * of them: two pairs that are this close may lie either side of one that was taken
 * for a third offset.  Of several the one written last counts, as the others may be
 * yet to be restored.
 *
 * A TSC that is moved in software goes faster than the scaled one, and is where the
 * nanoseconds say.
 */
void kvm_tsc_set_value(struct kvm_vcpu *vcpu, u64 tsc, u64 scaled_tsc, u64 slack_cycles,
		       s64 elapsed_ns, const struct kvmclock_snapshot *now)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	const struct kvm_vcpu_clock *near = NULL;
	u64 pair = tsc - scaled_tsc;
	u64 offset;

	lockdep_assert_held(&vcpu->kvm->arch.clock.lock);

	if (v->always_catchup)
		pair = tsc + kvm_tsc_cycles(vcpu, elapsed_ns) -
		       kvm_scale_tsc(now->host_tsc, v->l1_ratio);
	else if (slack_cycles)
		near = kvm_tsc_near_pair(vcpu, pair, slack_cycles);

	offset = near ? near->l1_offset : pair;
	kvm_tsc_take_pair(vcpu, offset, pair - offset, now);
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
		kvm_tsc_step(vcpu, behind);
}
