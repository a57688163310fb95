/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Who has a master clock, and who the stable bit.  Pure, like the arithmetic in
 * kvmclock_line.h: what there is to know comes in, the decision comes out.
 */
#ifndef _KVM_X86_KVMCLOCK_DECIDE_H
#define _KVM_X86_KVMCLOCK_DECIDE_H

#include "kvmclock_line.h"

/**
 * struct kvmclock_survey - a VM's vCPUs, as far as their TSCs have a say
 * @ratio:	TSC scaling ratio of the first one; of vCPUs to come if none
 * @offset:	TSC offset of the first one
 * @same_rate:	all have this ratio
 * @same_tsc:	all have this offset, and keep it
 * @nr:		vCPUs looked at
 * @matched:	vCPUs with the first one's offset, less it
 */
struct kvmclock_survey {
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

static inline void kvmclock_survey_begin(struct kvmclock_survey *s, u64 default_ratio)
{
	*s = (struct kvmclock_survey) {
		.ratio = default_ratio,
		.same_rate = true,
		.same_tsc = true,
	};
}

/* One more vCPU; a TSC that is moved by software equals no other. */
static inline void kvmclock_survey_vcpu(struct kvmclock_survey *s, u64 ratio, u64 offset,
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
 * The slope of a line over a counter of @rate, in units of 2^-@frac_bits Hz;
 * false if the rate has none.
 */
static inline bool kvmclock_slope_of(u64 rate, unsigned int frac_bits,
				     struct kvmclock_line *slope)
{
	return kvmclock_ratio(KVMCLOCK_NSEC_PER_SEC << frac_bits, rate, &slope->mul,
			      &slope->shift);
}

/*
 * The one predicate.  A VM has a master clock if the host keeps time by a TSC
 * that it trusts, and all vCPUs' TSCs have the same rate.  If they are equal,
 * one page serves all vCPUs and the stable bit says so.
 *
 * @rate is that of the TSC at @s->ratio, in units of 2^-@frac_bits Hz.  All of
 * @want is decided here but its host_khz, which is the caller's.
 */
static inline void kvmclock_predicate(const struct kvmclock_survey *s, bool host_trusts_tsc,
				      u64 rate, unsigned int frac_bits,
				      struct kvmclock_decision *want)
{
	want->ratio = s->ratio;
	want->master = host_trusts_tsc && s->same_rate &&
		       kvmclock_slope_of(rate, frac_bits, &want->slope);
	want->stable = want->master && s->same_tsc;
}

#endif /* _KVM_X86_KVMCLOCK_DECIDE_H */
