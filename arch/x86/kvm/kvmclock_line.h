/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The arithmetic of a clock line.  Pure: no kernel state, no side effects; the
 * same source is tested in userspace (tools/testing/kvmclock/arith).
 */
#ifndef _KVM_X86_KVMCLOCK_LINE_H
#define _KVM_X86_KVMCLOCK_LINE_H

#include <asm/kvm_clock.h>

#define KVMCLOCK_NSEC_PER_SEC	1000000000ULL

/* Rates are in units of 2^-16 Hz, so that a scaled rate keeps its fraction. */
#define KVMCLOCK_HZ_FRAC_BITS	16

/* The largest rate that kvmclock_ratio() takes: 2^45 Hz, 35 THz. */
#define KVMCLOCK_RATE_MAX	(1ULL << (45 + KVMCLOCK_HZ_FRAC_BITS))

/**
 * kvmclock_scale() - scale a delta as every reader of a pvclock page does
 * @delta:	elapsed units
 * @mul:	multiplier, a 32-bit binary fraction
 * @shift:	delta is shifted left by this first, or right if negative
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

/**
 * kvmclock_scale_signed() - kvmclock_scale() for a delta that may be negative
 * @delta:	elapsed units; not below -2^(63 - shift) for shift > 0
 * @mul:	multiplier, a 32-bit binary fraction
 * @shift:	power of two applied to delta first
 *
 * Rounds towards zero, so that scale(-d) == -scale(d).
 */
static inline s64 kvmclock_scale_signed(s64 delta, u32 mul, s8 shift)
{
	if (delta < 0)
		return -(s64)kvmclock_scale(-(u64)delta, mul, shift);
	return (s64)kvmclock_scale(delta, mul, shift);
}

/**
 * kvmclock_line_ns() - the clock at a scaled TSC value
 * @line:	the line
 * @tsc:	scaled TSC, less than 2^63 cycles from the reference
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

/**
 * kvmclock_line_advance() - move the reference without moving the line
 * @line:	the line
 * @steps:	by how many steps of 2^(32 - shift) cycles
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

/**
 * kvmclock_ratio() - the multiplier that converts one rate into another
 * @to:		units counted by the result, per second
 * @from:	units given, per second, in the same fixed point as @to
 * @mul:	multiplier, at least 2^31
 * @shift:	shift, from -31 to 31
 *
 * @mul * 2^(@shift - 32) is @to / @from rounded to nearest, ties up: half a
 * unit in 2^31 at worst, 0.233 parts in 10^9.  A rate of 0 or above
 * KVMCLOCK_RATE_MAX has no such form, nor has a quotient that when rounded is
 * below 2^-32 or not below 2^31: returns false and leaves the result alone.
 */
static inline bool kvmclock_ratio(u64 to, u64 from, u32 *mul, s8 *shift)
{
	u64 quotient = 0;
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

	/* Long division: 32 bits of the quotient, and one to round by. */
	for (bit = 0; bit < 33; bit++) {
		to <<= 1;
		quotient <<= 1;
		if (to >= from) {
			to -= from;
			quotient++;
		}
	}
	quotient = (quotient + 1) >> 1;

	if (quotient >> 32) {
		quotient >>= 1;
		exponent++;
	}
	if (exponent < -31 || exponent > 31)
		return false;

	*mul = (u32)quotient;
	*shift = (s8)exponent;
	return true;
}

#endif /* _KVM_X86_KVMCLOCK_LINE_H */
