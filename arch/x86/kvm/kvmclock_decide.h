/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who has a master clock, and who the stable bit.  Pure, like the arithmetic in
 * kvmclock_line.h: what there is to know comes in, the decision comes out.
 */
#ifndef _KVM_X86_KVMCLOCK_DECIDE_H
#define _KVM_X86_KVMCLOCK_DECIDE_H

#include "kvmclock_line.h"

/**
 * struct kvmclock_tscs - a VM's vCPUs, as far as their TSCs have a say
 * @ratio:	TSC scaling ratio of the first one; of vCPUs to come if none
 * @offset:	TSC offset of the first one
 * @same_rate:	all have this ratio
 * @same_tsc:	all have this offset, and keep it
 * @nr:		vCPUs looked at
 * @matched:	vCPUs with the first one's offset, less it
 */
struct kvmclock_tscs {
	u64 ratio;
	u64 offset;
	bool same_rate;
	bool same_tsc;
	unsigned int nr;
	unsigned int matched;
};

/**
 * struct kvmclock_decision - what a VM's clock shall be
 * @master:	it has a master clock
 * @stable:	all guest TSCs are equal, too
 * @ratio:	TSC scaling ratio of the line
 * @host_khz:	rate of the host TSC that the line is derived from
 * @slope:	the line's slope, if @master
 */
struct kvmclock_decision {
	bool master;
	bool stable;
	u64 ratio;
	unsigned int host_khz;
	struct kvmclock_line slope;
};

/**
 * struct kvm_tsc_plan - how a guest TSC is made out of the host's
 * @ratio:	TSC scaling ratio
 * @always_catchup: the hardware can't do it, and software moves the TSC
 */
struct kvm_tsc_plan {
	u64  ratio;
	bool always_catchup;
};

/*
 * What is left of a plan for a TSC that the vendor makes: software does not move it,
 * and SNP's firmware was told the plan's rate.  TDX has a ratio of its own, @ratio,
 * at which the host's rate is @half_khz halves of a kHz.
 */
static inline void kvmclock_heed_vendor(struct kvm_tsc_plan *plan, u32 *khz, u64 ratio,
					u32 half_khz)
{
	plan->always_catchup = false;
	if (ratio) {
		plan->ratio = ratio;
		*khz = half_khz / 2 + half_khz % 2;
	}
}

static inline void kvmclock_tscs_begin(struct kvmclock_tscs *s, u64 default_ratio)
{
	*s = (struct kvmclock_tscs) {
		.ratio = default_ratio,
		.same_rate = true,
		.same_tsc = true,
	};
}

/* One more vCPU; a TSC that is moved by software equals no other. */
static inline void kvmclock_tscs_add(struct kvmclock_tscs *s, u64 ratio, u64 offset,
				     bool catchup)
{
	if (!s->nr++) {
		s->ratio = ratio;
		s->offset = offset;
	} else if (offset == s->offset) {
		s->matched++;
	} else {
		s->same_tsc = false;
	}

	if (ratio != s->ratio)
		s->same_rate = false;
	if (catchup)
		s->same_tsc = false;
}

/*
 * A ratio with @bits of fraction is made of a rate in kHz, and rounded down.  Was it
 * made of the next whole kHz above @host_khz * @ratio?  That is then less than
 * @host_khz units of the ratio away; only one is, as a host has less than 2^32 kHz.
 */
static inline bool kvmclock_ratio_cuts_khz(u32 host_khz, u64 ratio, unsigned int bits)
{
	/* Modulo 2^64 the product has all of its fraction. */
	u64 unit = 1ULL << bits, rest = host_khz * ratio & (unit - 1);

	return rest && unit - rest < host_khz;
}

/*
 * The slope of a line over a counter of @rate, in units of 2^-@frac_bits Hz;
 * false if the rate has none.
 */
static inline bool kvmclock_slope_of(u64 rate, unsigned int frac_bits,
				     struct kvmclock_line *slope)
{
	return kvmclock_mul_shift(KVMCLOCK_NSEC_PER_SEC << frac_bits, rate, &slope->mul,
				  &slope->shift);
}

/* How far apart the rates of a line that userspace gives and of its TSC may be. */
#define KVMCLOCK_IMPORT_HZ	1000

/*
 * The one predicate.  A VM has a master clock if the host keeps time by a TSC
 * that it trusts, and all vCPUs' TSCs have the same rate.  If they are equal,
 * one page serves all vCPUs and the stable bit says so.
 *
 * @rate is that of the TSC at @s->ratio, in units of 2^-@frac_bits Hz.  All of
 * @want is decided here but its host_khz, which is the caller's.
 */
static inline void kvmclock_predicate(const struct kvmclock_tscs *s, bool host_trusts_tsc,
				      u64 rate, unsigned int frac_bits,
				      struct kvmclock_decision *want)
{
	want->ratio = s->ratio;
	want->master = host_trusts_tsc && s->same_rate &&
		       kvmclock_slope_of(rate, frac_bits, &want->slope);
	want->stable = want->master && s->same_tsc;
}

/*
 * Has a line strayed from base time as far as it may, and no further?  @line_ns
 * and @base_ns have passed by either; any s64 is right, negative ones too.  @khz is
 * the line's rate, not 0.
 *
 * On a TSC that counts both go by it: the multiplier of the host's clock has 23
 * significant bits or more, that of the line 32, so they part by 2^-23 + 2^-31
 * of what has passed, less than 2^-22; 2^-20 leaves room for a host's clock that
 * is refined meanwhile.  After the host's clock has left the TSC, they part by
 * what their rates differ until that is noticed.  The kernel takes a TSC's rate
 * for within 1 % of its other clocks, and a work item is not a tenth of a second
 * late: 1 ms.  A line that userspace gave may be off by KVMCLOCK_IMPORT_HZ, a kHz:
 * less than 2^-n of a rate of 2^n kHz or more.  A TSC that stepped is off by more,
 * or by nothing that a guest would mind.
 */
static inline bool kvmclock_is_drift(s64 line_ns, s64 base_ns, u32 khz)
{
	u64 apart_ns = line_ns < base_ns ? (u64)base_ns - line_ns : (u64)line_ns - base_ns;
	u64 passed_ns = base_ns < 0 ? -(u64)base_ns : (u64)base_ns;
	unsigned int n = 0;

	while (khz >>= 1)
		n++;

	return apart_ns <= 1000000 + (passed_ns >> 20) + (passed_ns >> n);
}

static inline void kvmclock_census_pair(struct kvmclock_census *c,
					const struct kvmclock_tsc_state *a,
					const struct kvmclock_tsc_state *b, int sign)
{
	if (!a || !b)
		return;

	if (a->ratio != b->ratio)
		c->rate_steps += sign;
	if (a->offset != b->offset)
		c->tsc_steps += sign;
}

/*
 * Count a vCPU in, with a @sign of 1, or out, with -1.  All of a row are equal
 * exactly if no two neighbours differ; so all have one rate if there are no
 * @rate_steps, and one TSC if there are neither @tsc_steps nor @nr_catchup, and
 * a change costs the same however many vCPUs there are.
 *
 * @prev and @next are the neighbours as they are counted, NULL if there is none
 * that is: who is counted first, of two, leaves their pair to the other.  A vCPU
 * that changes is counted out as it was, then in as it is.  Nothing holds of a
 * row with a gap.
 */
static inline void kvmclock_census_count(struct kvmclock_census *c,
					 const struct kvmclock_tsc_state *prev,
					 const struct kvmclock_tsc_state *self,
					 const struct kvmclock_tsc_state *next, int sign)
{
	c->nr += sign;
	if (self->catchup)
		c->nr_catchup += sign;
	kvmclock_census_pair(c, prev, self, sign);
	kvmclock_census_pair(c, self, next, sign);
}

/* Are the TSCs of those that are counted equal, and do they stay so? */
static inline bool kvmclock_census_same_tsc(const struct kvmclock_census *c)
{
	return !c->tsc_steps && !c->nr_catchup;
}

#endif /* _KVM_X86_KVMCLOCK_DECIDE_H */
