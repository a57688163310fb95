/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The arithmetic of a clock line.  Pure: no kernel state, no side effects; the
 * same source is tested in userspace (tools/testing/kvmclock/checks/arith.c).
 */
#ifndef _KVM_X86_KVMCLOCK_LINE_H
#define _KVM_X86_KVMCLOCK_LINE_H

#include <asm/kvmclock_state.h>

#define KVMCLOCK_NSEC_PER_SEC	1000000000ULL

/*
 * Rates are in units of 2^-16 Hz, so that a scaled rate keeps its fraction, and
 * in units of 2^-27 Hz for TSCs that are scaled down, to kHz maybe.
 */
#define KVMCLOCK_HZ_FRAC_BITS	16
#define KVMCLOCK_HZ_FRAC_BITS_SLOW 27

/* The largest rate that kvmclock_mul_shift() takes: 2^45 Hz, 35 THz. */
#define KVMCLOCK_RATE_MAX	(1ULL << (45 + KVMCLOCK_HZ_FRAC_BITS))

/*
 * Scale a delta, of whatever units, as every reader of a pvclock page does:
 * shift it left by @shift, or right if negative, then multiply it by @mul, a
 * 32-bit binary fraction.
 *
 * floor(delta * 2^shift) * mul / 2^32, rounded down, modulo 2^64.  A guest's
 * 64-bit shift drops the top bits, so with shift > 0 the result is the true
 * one only for delta < 2^(64 - shift).
 */
static inline u64 kvmclock_scale(u64 delta, u32 mul, s8 shift)
{
	u64 lo, hi;

	delta = shift < 0 ? delta >> -shift : delta << shift;

	/* delta * mul >> 32 in halves: neither product exceeds 64 bits. */
	lo = (u64)(u32)delta * mul;
	hi = (delta >> 32) * mul;
	return hi + (lo >> 32);
}

/*
 * kvmclock_scale() for a delta that may be negative, though not below
 * -2^(63 - shift) for shift > 0.  Rounds towards zero, so that
 * scale(-d) == -scale(d).
 */
static inline s64 kvmclock_scale_signed(s64 delta, u32 mul, s8 shift)
{
	if (delta < 0)
		return -(s64)kvmclock_scale(-(u64)delta, mul, shift);
	return (s64)kvmclock_scale(delta, mul, shift);
}

/*
 * The clock, in nanoseconds, at a scaled TSC value that is less than 2^63
 * cycles from the reference.
 *
 * From the reference on this is bit for bit what a guest computes from its
 * page.  Before it, where guests never look but a host may, the delta is
 * negative instead of wrapped.
 */
static inline u64 kvmclock_line_ns(const struct kvmclock_line *line, u64 tsc)
{
	return line->ref_ns +
	       kvmclock_scale_signed(tsc - line->ref_tsc, line->mul, line->shift);
}

/*
 * The clock just before a TSC value, exactly: the nanoseconds are returned, and
 * @frac is 2^-32 ns to add to them.  @tsc is a scaled TSC, from the reference
 * on and less than 2^63 cycles after it; it becomes the instant that the result
 * is of.
 *
 * A right shift drops up to 2^-shift - 1 cycles, and a sum of what readers
 * were given and what they were not could exceed a nanosecond.  So the instant
 * is the last one at which nothing is dropped; there a reader's result is the
 * whole part of the true value, of which 32 more bits are all there are.
 */
static inline u64 kvmclock_line_instant(const struct kvmclock_line *line, u64 *tsc, u32 *frac)
{
	u64 shifted = *tsc - line->ref_tsc;

	if (line->shift < 0) {
		shifted >>= -line->shift;
		*tsc = line->ref_tsc + (shifted << -line->shift);
	} else {
		shifted <<= line->shift;
	}

	*frac = (u32)shifted * line->mul;
	return kvmclock_line_ns(line, *tsc);
}

/*
 * Where a line, with a multiplier that isn't 0, has a value: @ns, less than
 * 2^63 from the reference, and @frac units of 2^-32 ns.
 *
 * The scaled TSC value nearest to it, ties up, modulo 2^64: the inverse of
 * kvmclock_line_instant(), before the reference as well as after it.
 *
 * Take two lines of one slope, and several instants on the one: all are the
 * same number of cycles from where the other has their values, as the exact
 * distance is the same and adding whole cycles to it commutes with rounding.
 */
static inline u64 kvmclock_line_tsc(const struct kvmclock_line *line, u64 ns, u32 frac)
{
	int bits = 64 + 32;
	u64 divisor = line->mul;
	u64 elapsed_ns = ns - line->ref_ns;
	bool negative = (s64)elapsed_ns < 0;
	u64 remainder = 0;
	u64 quotient = 0;

	/* -(ns + frac) = (-ns - 1) + (1 - frac) */
	if (negative) {
		elapsed_ns = -elapsed_ns - !!frac;
		frac = -frac;
	}

	if (line->shift < 0)
		bits -= line->shift;
	else
		divisor <<= line->shift;

	/* Long division of 2^-shift * 2^32 * elapsed by mul; divisor < 2^63. */
	while (bits--) {
		remainder = remainder << 1 | elapsed_ns >> 63;
		elapsed_ns = elapsed_ns << 1 | frac >> 31;
		frac <<= 1;
		quotient <<= 1;
		if (remainder >= divisor) {
			remainder -= divisor;
			quotient++;
		}
	}

	if (negative)
		return line->ref_tsc - quotient - (remainder > divisor - remainder);
	return line->ref_tsc + quotient + (remainder >= divisor - remainder);
}

/*
 * Move the reference, by so many steps of 2^(32 - shift) cycles, without moving
 * the line.
 *
 * delta = k * 2^(32 - shift) + d shifts to k * 2^32 + (d shifted), exactly: a
 * left shift is linear, and a right shift drops no bit of the first term.  So
 * it scales to k * mul + scale(d), and every reading from the new reference on
 * is the same number as before.  A step is 2^32 shifted cycles, seconds long.
 */
static inline void kvmclock_line_advance(struct kvmclock_line *line, u64 steps)
{
	line->ref_tsc += steps << (32 - line->shift);
	line->ref_ns += steps * line->mul;
}

/*
 * The multiplier, at least 2^31, and the shift, from -31 to 31, that convert one
 * rate into another: units of which there are @from in a second into units of
 * which there are @to, both in the same fixed point.
 *
 * @mul * 2^(@shift - 32) is @to / @from rounded down: by less than a unit in
 * 2^31, 0.466 parts in 10^9.  A rate of 0 or above KVMCLOCK_RATE_MAX has no such
 * form, nor has a quotient that is below 2^-32 or not below 2^31: returns false
 * and leaves the result alone.
 *
 * Down, not to nearest, as guests turn it round: they take the rate of their TSC
 * from their page, for good, as floor(10^9 * 2^32 / @mul) Hz, or in kHz, shifted
 * back.  Of a rate of R * 2^-@shift Hz, R whole, @mul is less than 1 below
 * 10^9 * 2^32 / R, so the quotient is R or less than R / @mul above it; that is
 * below 1, as @mul is at least 2^31 and R at most 2 * 10^9.  So they find R; with
 * a @mul that was rounded up they would find R - 1.
 */
static inline bool kvmclock_mul_shift(u64 to, u64 from, u32 *mul, s8 *shift)
{
	u32 quotient = 0;
	int exponent = 0;
	int bit;

	if (!to || !from || to > KVMCLOCK_RATE_MAX || from > KVMCLOCK_RATE_MAX)
		return false;

	/* Bring to / from into [1/2, 1); both stay below 2^63. */
	while (to >= from) {
		from <<= 1;
		exponent++;
	}
	while (to < from - to) {
		to <<= 1;
		exponent--;
	}

	if (exponent < -31 || exponent > 31)
		return false;

	/* Long division: the 32 bits of the quotient after the point. */
	for (bit = 0; bit < 32; bit++) {
		to <<= 1;
		quotient <<= 1;
		if (to >= from) {
			to -= from;
			quotient++;
		}
	}

	*mul = quotient;
	*shift = (s8)exponent;
	return true;
}

/*
 * floor((@high * 2^64 + @low) / @divisor), of a @high below the divisor and a
 * divisor of at most 2^63: a 32-bit kernel has no such instruction.
 */
static inline u64 kvmclock_long_div(u64 high, u64 low, u64 divisor)
{
	int bits = 64;

	while (bits--) {
		high = high << 1 | low >> 63;
		low <<= 1;
		if (high >= divisor) {
			high -= divisor;
			low++;
		}
	}
	return low;
}

/*
 * Make a line so much gentler that a clock which is @ahead_ns ahead has lost
 * its lead after @period_ns, from 1 to 2^31 - 1; by at most half, as a clock
 * shall neither stand nor crawl: one that is far ahead takes twice its lead.
 *
 * In a period p the new slope, 1 - ahead / p of the old, gains p - ahead where
 * the old one gains p: the lead is gone.  If the counter is faster by d than
 * the old slope has it, d * (p - ahead) is left of it, less than d * p whatever
 * the lead was.  So with a new line every period, and the old slope again once
 * the lead is gone, no clock gets further away than d * p, or n * d * p if it
 * takes n periods to come to it.
 *
 * Rounded down, in the form that it came in: mul at least 2^31, shift at least
 * -31.  A slope with no such form becomes the gentlest one that has.
 */
static inline void kvmclock_line_converge(struct kvmclock_line *line, u64 ahead_ns,
					  u64 period_ns)
{
	u64 twice = (u64)line->mul << 1;

	/* mul * 2 * (p - ahead) < 2^33 * 2^31; the quotient is from mul to 2 * mul. */
	if (ahead_ns > period_ns >> 1)
		twice >>= 1;
	else
		twice = kvmclock_long_div(0, twice * (period_ns - ahead_ns), period_ns);

	if (twice >> 32) {
		line->mul = (u32)(twice >> 1);
	} else if (line->shift > -31) {
		line->mul = (u32)twice;
		line->shift--;
	} else {
		line->mul = 1U << 31;
	}
}

/* The later of two clock values that are less than 2^63 apart, modulo 2^64. */
static inline u64 kvmclock_later_ns(u64 a, u64 b)
{
	return (s64)(a - b) < 0 ? b : a;
}

/*
 * Rate of the counter that a line is over, in Hz, rounded down.  mul has no
 * leading zero: the quotient of 10^9 * 2^32 * 2^-shift is below 2^62.
 */
static inline u64 kvmclock_line_hz(const struct kvmclock_line *line)
{
	u64 hz = KVMCLOCK_NSEC_PER_SEC << 32;
	u64 high = line->shift < 0 ? hz >> (64 + line->shift) : 0;

	if (line->shift < 0)
		return kvmclock_long_div(high, hz << -line->shift, line->mul);
	return kvmclock_long_div(0, hz, (u64)line->mul << line->shift);
}

/*
 * The cycles during which a clock may read the same: those of a nanosecond,
 * rounded to nearest, and those that the shift drops, with the one that is read.
 * Two instants of one value are closer than this.
 */
static inline u64 kvmclock_line_slack_cycles(const struct kvmclock_line *line)
{
	return kvmclock_line_tsc(line, line->ref_ns + 1, 0) - line->ref_tsc +
	       (1ULL << (line->shift < 0 ? -line->shift : 0));
}

/*
 * Is a reference @delta cycles ago half as old as it may become, or older?  The
 * limit is 2^63 shifted cycles: beyond it a left shift drops bits, and the sign
 * of a delta is lost.  A reference yet to come counts as older, too.
 */
static inline bool kvmclock_line_used_up(const struct kvmclock_line *line, u64 delta)
{
	return delta >> (62 - (line->shift < 0 ? 0 : line->shift));
}

/*
 * For a reader without modulo arithmetic: have the reference not before the
 * counter's 0.  It is if, as a number, it is above @now_tsc: the counter was
 * written back.  The least number of steps then takes it to or past 2^64, which
 * is 0: less than a step past it, maybe after now.
 */
static inline void kvmclock_line_past_zero(struct kvmclock_line *line, u64 now_tsc)
{
	if (line->ref_tsc > now_tsc)
		kvmclock_line_advance(line, ((-line->ref_tsc - 1) >> (32 - line->shift)) + 1);
}

/*
 * The version of a structure of the pvclock ABI while it is being written: the
 * next odd one, also after a writer that has left it odd.
 */
static inline u32 kvmclock_next_version(u32 version)
{
	return version + 1 + (version & 1);
}

#endif /* _KVM_X86_KVMCLOCK_LINE_H */
