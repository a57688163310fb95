// SPDX-License-Identifier: GPL-2.0
/*
 * Tests arch/x86/kvm/kvmclock_line.h and kvmclock_decide.h, as they are, in
 * userspace.
 *
 * Every result is compared with the same formula in 128-bit integers, where
 * nothing overflows and nothing is split in halves.  Random inputs come from a
 * fixed seed; another one may be given as the only argument.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

typedef signed char s8;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef long long s64;

#include "kvmclock_decide.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define SHIFT_MIN	(-31)
#define SHIFT_MAX	31

/* A case that fails everywhere shall not bury the first reasons. */
#define FAILURES_SHOWN	5

static u64 checks;
static u64 failures;

#define CHECK(cond, fmt, ...)						\
do {									\
	checks++;							\
	if (!(cond) && failures++ < FAILURES_SHOWN)			\
		printf("# %s:%d: %s: " fmt "\n", __func__, __LINE__,	\
		       #cond, ##__VA_ARGS__);				\
} while (0)

static u64 random_state;

/* Weyl sequence through a 128-bit multiplication: good enough, and short. */
static u64 random_u64(void)
{
	unsigned __int128 product;

	random_state += 0x9e3779b97f4a7c15ULL;
	product = (unsigned __int128)random_state * (random_state ^ 0xd1342543de82ef95ULL);
	return (u64)(product >> 64) ^ (u64)product;
}

/* All magnitudes equally likely, where plain random numbers are all huge. */
static u64 random_magnitude(void)
{
	return random_u64() >> (random_u64() % 64);
}

static u64 random_between(u64 low, u64 high)
{
	return low + random_u64() % (high - low + 1);
}

static s8 random_shift(void)
{
	return (s8)((s64)random_between(0, SHIFT_MAX - SHIFT_MIN) + SHIFT_MIN);
}

/* Odd ones on purpose: round rates have short fractions, which hide errors. */
static const u64 fixed_rates_hz[] = {
	1000, 1001, 4999, 32768, 97531, 1000000, 1193182, 3579545, 14318180,
	61234000, 97531000, 99999999, 100000000, 133333333, 499999999,
	999999937, 999999999, 1000000000, 1000000001, 1073741823, 1073741824,
	1073741825, 1995311000, 1996800000, 1999999999, 2000000000, 2000000001,
	2096064000, 2100000000, 2147483647, 2147483648ULL, 2345678000ULL,
	2400000000ULL, 2499999999ULL, 2500000000ULL, 2596130000ULL,
	2694948000ULL, 2700000000ULL, 3000000000ULL, 3400000000ULL,
	3700000000ULL, 3999999999ULL, 4000000000ULL, 4000000001ULL,
	4294967295ULL, 4294967296ULL, 4294967297ULL, 5000000000ULL,
	7999999999ULL, 8000000000ULL, 9999999967ULL, 10000000000ULL,
};

#define NR_RATES	400

/* A rate in units of 2^-16 Hz: the fixed ones, then random ones in between. */
static u64 rate_q16(size_t i)
{
	u64 hz;

	if (i < ARRAY_SIZE(fixed_rates_hz))
		return fixed_rates_hz[i] << KVMCLOCK_HZ_FRAC_BITS;
	hz = i & 1 ? random_between(1000000000ULL, 5000000000ULL) :
		     random_between(1000, 10000000000ULL);
	return (hz << KVMCLOCK_HZ_FRAC_BITS) + random_u64() % 65536;
}

static const u64 nsec_rate_q16 = KVMCLOCK_NSEC_PER_SEC << KVMCLOCK_HZ_FRAC_BITS;

static unsigned __int128 shift_exactly(u64 delta, int shift)
{
	if (shift < 0)
		return delta >> -shift;
	return (unsigned __int128)delta << shift;
}

/*
 * floor(floor(delta * 2^shift) * mul / 2^32) without any limit: 64 + 31 bits
 * times 32 bits is less than 2^127.
 */
static unsigned __int128 oracle_scale(u64 delta, u32 mul, int shift)
{
	unsigned __int128 shifted = shift_exactly(delta, shift);

	return (shifted * mul) >> 32;
}

/* What a 64-bit guest computes: the bits that its shift drops are gone. */
static u64 oracle_guest_scale(u64 delta, u32 mul, int shift)
{
	unsigned __int128 shifted = shift_exactly(delta, shift);

	return (u64)(((shifted & UINT64_MAX) * mul) >> 32);
}

/* The largest delta that no left shift pushes out of 64 bits. */
static u64 scale_limit(int shift)
{
	return shift > 0 ? UINT64_MAX >> shift : UINT64_MAX;
}

static const u32 edge_muls[] = {
	0, 1, 2, 3, 0x7fffffff, 0x80000000, 0x80000001, 0xaaaaaaab, 2152530255U,
	0xfffffffe, 0xffffffff,
};

#define NR_EDGE_DELTAS	(3 * 64 + 2)

/* 2^bit and its neighbours, for all bits, then 0 and the largest number. */
static u64 edge_delta(size_t i)
{
	if (i < 3 * 64)
		return (1ULL << (i / 3)) + i % 3 - 1;
	return i == 3 * 64 ? 0 : UINT64_MAX;
}

static void check_scale(u64 delta, u32 mul, s8 shift)
{
	u64 got = kvmclock_scale(delta, mul, shift);
	u64 guest = oracle_guest_scale(delta, mul, shift);

	CHECK(got == guest, "delta %llu mul %u shift %d: %llu, a guest computes %llu",
	      delta, mul, shift, got, guest);
	if (delta <= scale_limit(shift)) {
		unsigned __int128 exact = oracle_scale(delta, mul, shift);

		CHECK(got == exact, "delta %llu mul %u shift %d: %llu, exact is %llu",
		      delta, mul, shift, got, (u64)exact);
	}
}

static void test_scale(void)
{
	int shift;
	size_t i, m;

	for (shift = SHIFT_MIN; shift <= SHIFT_MAX; shift++) {
		u64 limit = scale_limit(shift);

		for (m = 0; m < ARRAY_SIZE(edge_muls); m++) {
			for (i = 0; i < NR_EDGE_DELTAS; i++)
				check_scale(edge_delta(i), edge_muls[m], shift);
			check_scale(limit - 1, edge_muls[m], shift);
			check_scale(limit, edge_muls[m], shift);
			check_scale(limit + 1, edge_muls[m], shift);
		}
	}
	for (i = 0; i < 2000000; i++)
		check_scale(random_magnitude(), random_u64(), random_shift());
}

static void check_scale_signed(s64 delta, u32 mul, s8 shift)
{
	u64 size = delta < 0 ? -(u64)delta : (u64)delta;
	__int128 exact = oracle_scale(size, mul, shift);
	s64 got;

	/* A result of 64 bits and a sign has no place in an s64. */
	if (size > scale_limit(shift) || exact > INT64_MAX)
		return;
	if (delta < 0)
		exact = -exact;

	got = kvmclock_scale_signed(delta, mul, shift);
	CHECK(got == exact, "delta %lld mul %u shift %d: %lld, exact is %lld",
	      delta, mul, shift, got, (s64)exact);
}

static void test_scale_signed(void)
{
	int shift;
	size_t i, m;

	for (shift = SHIFT_MIN; shift <= SHIFT_MAX; shift++) {
		for (m = 0; m < ARRAY_SIZE(edge_muls); m++) {
			for (i = 0; i < NR_EDGE_DELTAS; i++) {
				s64 delta = edge_delta(i);

				check_scale_signed(delta, edge_muls[m], shift);
				check_scale_signed(-(u64)delta, edge_muls[m], shift);
			}
			check_scale_signed(INT64_MIN, edge_muls[m], shift);
			check_scale_signed(INT64_MAX, edge_muls[m], shift);
		}
	}
	for (i = 0; i < 2000000; i++) {
		s64 delta = random_magnitude();

		check_scale_signed(delta, random_u64(), random_shift());
		check_scale_signed(-(u64)delta, random_u64(), random_shift());
	}
}

/*
 * A line's value at its reference plus @delta; before the reference its
 * distance is rounded towards the reference.  Modulo 2^64 like the clock.
 */
static u64 oracle_line(const struct kvmclock_line *line, s64 delta)
{
	u64 size = delta < 0 ? -(u64)delta : (u64)delta;
	u64 distance = oracle_guest_scale(size, line->mul, line->shift);

	return delta < 0 ? line->ref_ns - distance : line->ref_ns + distance;
}

static void check_line(const struct kvmclock_line *line, s64 delta)
{
	u64 offset = random_u64();
	u64 tsc = line->ref_tsc + (u64)delta;
	u64 expected = oracle_line(line, delta);
	u64 got = kvmclock_line_ns(line, tsc);
	struct kvmclock_line page = *line;

	CHECK(got == expected,
	      "ref_tsc %llu ref_ns %llu mul %u shift %d at %+lld: %llu, expected %llu",
	      line->ref_tsc, line->ref_ns, line->mul, line->shift, delta, got, expected);

	/* A vCPU's page is the line moved by an offset, and wraps like it. */
	page.ref_tsc += offset;
	got = kvmclock_line_ns(&page, tsc + offset);
	CHECK(got == expected,
	      "ref_tsc %llu offset %llu mul %u shift %d at %+lld: %llu, expected %llu",
	      line->ref_tsc, offset, line->mul, line->shift, delta, got, expected);
}

static void test_line(void)
{
	struct kvmclock_line line;
	size_t r, i;

	for (r = 0; r < NR_RATES; r++) {
		s64 limit;

		if (!kvmclock_mul_shift(nsec_rate_q16, rate_q16(r), &line.mul, &line.shift))
			continue;

		line.ref_tsc = random_magnitude();
		line.ref_ns = random_magnitude();
		limit = scale_limit(line.shift) >> 1;
		for (i = 0; i < NR_EDGE_DELTAS; i++) {
			s64 delta = edge_delta(i);

			if (delta >= 0 && delta <= limit) {
				check_line(&line, delta);
				check_line(&line, -delta);
			}
		}
		check_line(&line, limit - 1);
		check_line(&line, limit);
		check_line(&line, -limit);
		for (i = 0; i < 1000; i++) {
			s64 delta = random_magnitude() % ((u64)limit + 1);

			check_line(&line, delta);
			check_line(&line, -delta);
		}
	}
}

/* Time that passes must not run backwards inside a line, either side of 0. */
static void test_line_monotonic(void)
{
	struct kvmclock_line line = { .ref_tsc = 1ULL << 40, .ref_ns = 1ULL << 40 };
	size_t r;
	s64 i;

	for (r = 0; r < NR_RATES; r++) {
		u64 last = 0;

		if (!kvmclock_mul_shift(nsec_rate_q16, rate_q16(r), &line.mul, &line.shift))
			continue;
		for (i = -1000; i <= 1000; i++) {
			u64 now = kvmclock_line_ns(&line, line.ref_tsc + (u64)i);

			CHECK(now >= last, "mul %u shift %d at %+lld: %llu after %llu",
			      line.mul, line.shift, i, now, last);
			last = now;
		}
	}
}

/*
 * With v = to / from, m = mul and u = 2^(shift - 32) the claim
 *	m * u <= v < (m + 1) * u
 * times from / u is one about integers:
 *	0 <= to * 2^(32 - shift) - m * from < from
 * With to below 2^62 and 32 - shift at most 64 the left product is below 2^126.
 */
static bool is_floor(u64 to, u64 from, u32 mul, s8 shift)
{
	__int128 rest = ((__int128)to << (32 - shift)) - (__int128)mul * from;

	return rest >= 0 && rest < from;
}

static double ratio_error_ppb(u64 to, u64 from, u32 mul, s8 shift)
{
	__int128 exact = (__int128)to << (32 - shift);
	double error = (double)((__int128)mul * from - exact) / (double)exact * 1e9;

	return error < 0 ? -error : error;
}

static double check_ratio(u64 to, u64 from)
{
	u32 mul = 0;
	s8 shift = 0;

	if (!kvmclock_mul_shift(to, from, &mul, &shift)) {
		CHECK(false, "%llu / %llu refused", to, from);
		return 0;
	}
	CHECK(mul >> 31, "%llu / %llu: mul %u shift %d wastes bits",
	      to, from, mul, shift);
	CHECK(shift >= SHIFT_MIN && shift <= SHIFT_MAX, "%llu / %llu: mul %u shift %d",
	      to, from, mul, shift);
	CHECK(is_floor(to, from, mul, shift), "%llu / %llu: mul %u shift %d",
	      to, from, mul, shift);
	return ratio_error_ppb(to, from, mul, shift);
}

static void test_ratio_floor(void)
{
	double error, worst = 0;
	size_t i;

	for (i = 0; i < 200000; i++) {
		u64 rate = rate_q16(i);

		error = check_ratio(nsec_rate_q16, rate);
		if (error > worst)
			worst = error;
		error = check_ratio(rate, nsec_rate_q16);
		if (error > worst)
			worst = error;
	}
	printf("# largest rate error: %.4f ppb\n", worst);

	/* A unit in 2^31. */
	CHECK(worst < 1e9 / 2147483648.0, "%.6f ppb", worst);
}

/*
 * What a guest takes the rate of its TSC for, in the units of which there are
 * @per_ns in a second's nanoseconds: Linux does it in kHz, FreeBSD in Hz.
 */
static u64 guest_rate(u64 per_ns, u32 mul, s8 shift)
{
	u64 rate = (per_ns << 32) / mul;

	return shift < 0 ? rate << -shift : rate >> shift;
}

static void check_guest_rate(u64 hz)
{
	u64 step, khz = hz / 1000;
	u32 mul = 0;
	s8 shift = 0;

	CHECK(kvmclock_mul_shift(nsec_rate_q16, hz << KVMCLOCK_HZ_FRAC_BITS, &mul, &shift),
	      "%llu Hz refused", hz);

	/* What its shift back can't give it a guest does not find, but what is below. */
	step = 1ULL << (shift < 0 ? -shift : 0);
	if (hz % step == 0)
		CHECK(guest_rate(KVMCLOCK_NSEC_PER_SEC, mul, shift) == hz,
		      "%llu Hz: a guest finds %llu", hz,
		      guest_rate(KVMCLOCK_NSEC_PER_SEC, mul, shift));
	if (hz % 1000 == 0)
		CHECK(guest_rate(1000000, mul, shift) == khz / step * step,
		      "%llu kHz: a guest finds %llu", khz, guest_rate(1000000, mul, shift));
}

/* Guests take the rate of their TSC from the page, and are not to find another. */
static void test_ratio_inverts(void)
{
	u64 khz;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fixed_rates_hz); i++)
		check_guest_rate(fixed_rates_hz[i]);
	for (khz = 1; khz < 10000; khz++)
		check_guest_rate(khz * 1000);
	/* The rates that processors are sold with, and what is measured of them. */
	for (khz = 500000; khz < 10000000; khz += 12500)
		check_guest_rate(khz * 1000);
	for (i = 0; i < 200000; i++) {
		check_guest_rate(random_between(1, 10000000) * 1000);
		check_guest_rate(random_between(1000, 1ULL << 45));
	}
}

/* Any two numbers, with quotients near 1 and near powers of two among them. */
static void test_ratio_any(void)
{
	size_t i;

	for (i = 0; i < 200000; i++) {
		u64 from = 1 + random_u64() % KVMCLOCK_RATE_MAX;
		u64 to = from >> random_between(0, 30);

		to += random_between(0, 4);
		to -= random_between(0, to < 4 ? 0 : 4);
		if (!to || to > KVMCLOCK_RATE_MAX)
			continue;
		check_ratio(to, from);
		check_ratio(from, to);
	}
	check_ratio(KVMCLOCK_RATE_MAX, KVMCLOCK_RATE_MAX);
	check_ratio(KVMCLOCK_RATE_MAX - 1, KVMCLOCK_RATE_MAX);
	check_ratio(KVMCLOCK_RATE_MAX, KVMCLOCK_RATE_MAX - 1);

	/* 33 significant bits ending in 1. */
	check_ratio((1ULL << 32) + 1, 1ULL << 33);
	check_ratio((1ULL << 33) - 1, 1ULL << 33);
	check_ratio((1ULL << 32) + 3, 1ULL << 40);
}

static void check_refused(u64 to, u64 from)
{
	u32 mul = 0x12345678;
	s8 shift = 77;

	CHECK(!kvmclock_mul_shift(to, from, &mul, &shift), "%llu / %llu: mul %u shift %d",
	      to, from, mul, shift);
	CHECK(mul == 0x12345678 && shift == 77,
	      "%llu / %llu refused, but mul %u shift %d left behind",
	      to, from, mul, shift);
}

/* From 2^31 * 2^-63 to less than 2^32 * 2^-1 there is a form. */
static void test_ratio_range(void)
{
	check_refused(0, 0);
	check_refused(0, 1);
	check_refused(1, 0);
	check_refused(0, KVMCLOCK_RATE_MAX);
	check_refused(KVMCLOCK_RATE_MAX, 0);
	check_refused(1, KVMCLOCK_RATE_MAX + 1);
	check_refused(KVMCLOCK_RATE_MAX + 1, 1);
	check_refused(KVMCLOCK_RATE_MAX + 1, KVMCLOCK_RATE_MAX + 1);
	check_refused(UINT64_MAX, UINT64_MAX);
	check_refused(KVMCLOCK_RATE_MAX, 1);
	check_refused(1, KVMCLOCK_RATE_MAX);

	check_refused(1ULL << 31, 1);
	check_ratio((1ULL << 31) - 1, 1);
	check_ratio((1ULL << 33) - 1, 1ULL << 2);

	check_ratio(1, 1ULL << 32);
	check_refused(1, (1ULL << 32) + 1);
}

static void check_cut(u32 host_khz, u64 ratio, unsigned int bits, u64 asked_khz)
{
	unsigned __int128 rate = (unsigned __int128)host_khz * ratio;
	bool cuts = kvmclock_ratio_cuts_khz(host_khz, ratio, bits);
	u64 khz = (u64)(rate >> bits) + cuts;

	/* The ratio of a whole number of kHz is the one that is rounded down to. */
	CHECK(!cuts || ((unsigned __int128)khz << bits) / host_khz == ratio,
	      "%u kHz * %llu / 2^%u: made of %llu kHz", host_khz, ratio, bits, khz);
	CHECK(!asked_khz || khz == asked_khz, "%u kHz * %llu / 2^%u: %llu kHz, not %llu",
	      host_khz, ratio, bits, khz, asked_khz);
}

/* A ratio says of what rate it was made, if it was of one in kHz. */
static void test_ratio_of_khz(void)
{
	static const unsigned int bits[] = { 32, 48 };
	u64 khz, ratio;
	u32 host_khz;
	size_t i, b;

	for (i = 0; i < 200000; i++) {
		b = i % ARRAY_SIZE(bits);
		host_khz = random_between(1, i % 3 ? 10000000 : UINT32_MAX);
		khz = random_between(1, i % 5 ? 10000000 : INT32_MAX);
		ratio = ((unsigned __int128)khz << bits[b]) / host_khz;
		if (ratio && !(((unsigned __int128)khz << bits[b]) / host_khz >> 64))
			check_cut(host_khz, ratio, bits[b], khz);
		check_cut(host_khz, 1ULL << bits[b], bits[b], host_khz);
		check_cut(host_khz, random_magnitude(), bits[b], 0);
		/* No scaling is a ratio of 1 without a fraction. */
		check_cut(host_khz, 1, 0, host_khz);
	}
	check_cut(UINT32_MAX, UINT64_MAX, 48, 0);
	check_cut(1, UINT64_MAX, 48, 0);
}

#define NR_ADVANCES	1000

/*
 * A reference that has moved many times, by small and large steps, gives the
 * number of the line that never moved.
 */
static void test_advance(void)
{
	u64 readings = 0;
	size_t r, i;

	for (r = 0; r < NR_RATES; r++) {
		struct kvmclock_line fixed, moved;

		if (!kvmclock_mul_shift(nsec_rate_q16, rate_q16(r), &fixed.mul, &fixed.shift)) {
			CHECK(false, "rate %zu has no line", r);
			continue;
		}
		fixed.ref_tsc = random_magnitude();
		fixed.ref_ns = random_magnitude();
		moved = fixed;

		for (i = 0; i < NR_ADVANCES; i++) {
			/* 1000 times 2^18 steps of 2^32 shifted cycles: 2^60. */
			u64 steps = random_between(0, 1ULL << random_between(0, 18));
			u64 left, delta, tsc, expected, got;

			kvmclock_line_advance(&moved, steps);

			left = scale_limit(fixed.shift) - (moved.ref_tsc - fixed.ref_tsc);
			delta = i % 8 ? random_magnitude() % left : left;
			tsc = moved.ref_tsc + (i % 9 ? delta : 0);
			expected = fixed.ref_ns + oracle_scale(tsc - fixed.ref_tsc, fixed.mul,
							       fixed.shift);
			got = moved.ref_ns + kvmclock_scale(tsc - moved.ref_tsc, moved.mul,
							    moved.shift);
			CHECK(got == expected,
			      "mul %u shift %d, ref_tsc %llu moved to %llu at %llu: %llu, expected %llu",
			      fixed.mul, fixed.shift, fixed.ref_tsc, moved.ref_tsc, tsc, got,
			      expected);
			readings++;
		}
		CHECK(moved.mul == fixed.mul && moved.shift == fixed.shift,
		      "mul %u shift %d became %u %d", fixed.mul, fixed.shift, moved.mul,
		      moved.shift);
	}
	printf("# %d rates, %llu readings\n", NR_RATES, readings);
}

/* A line of rate @r with its reference anywhere. */
static bool random_line(size_t r, struct kvmclock_line *line)
{
	line->ref_tsc = random_magnitude();
	line->ref_ns = random_magnitude();
	if (kvmclock_mul_shift(nsec_rate_q16, rate_q16(r), &line->mul, &line->shift))
		return true;
	CHECK(false, "rate %zu has no line", r);
	return false;
}

#define NR_INSTANTS	500

/* An instant is all of the true value, and leads back to its own TSC. */
static void test_instant(void)
{
	size_t r, i;

	for (r = 0; r < NR_RATES; r++) {
		struct kvmclock_line line;
		u64 granule;

		if (!random_line(r, &line))
			continue;
		granule = line.shift < 0 ? 1ULL << -line.shift : 1;

		for (i = 0; i < NR_INSTANTS; i++) {
			u64 limit = scale_limit(line.shift) >> 1;
			u64 delta = i ? random_magnitude() % limit : limit;
			u64 asked = line.ref_tsc + delta;
			unsigned __int128 exact, got;
			u64 tsc = asked, ns, back;
			u32 frac;

			ns = kvmclock_line_instant(&line, &tsc, &frac);
			CHECK(asked - tsc < granule && (tsc - line.ref_tsc) % granule == 0,
			      "shift %d: %llu cycles became %llu", line.shift, delta,
			      tsc - line.ref_tsc);
			CHECK(ns == kvmclock_line_ns(&line, tsc), "%llu ns, readers have %llu",
			      ns, kvmclock_line_ns(&line, tsc));

			exact = shift_exactly(tsc - line.ref_tsc, line.shift) * line.mul;
			got = ((unsigned __int128)(ns - line.ref_ns) << 32) + frac;
			CHECK(got == exact, "mul %u shift %d, %llu cycles: not exact", line.mul,
			      line.shift, tsc - line.ref_tsc);

			back = kvmclock_line_tsc(&line, ns, frac);
			CHECK(back == tsc, "mul %u shift %d: from %llu back to %llu", line.mul,
			      line.shift, tsc - line.ref_tsc, back - line.ref_tsc);
		}
	}
}

/* Nearest, ties up: v - 1/2 < cycles <= v + 1/2 with v = elapsed / slope. */
static void check_nearest(const struct kvmclock_line *line, s64 elapsed_ns, u32 frac)
{
	s64 cycles = kvmclock_line_tsc(line, line->ref_ns + elapsed_ns, frac) - line->ref_tsc;
	__int128 divisor = (__int128)line->mul << (line->shift > 0 ? line->shift : 0);
	__int128 elapsed = (__int128)elapsed_ns * (1LL << 32) + frac;
	__int128 rest;

	elapsed *= line->shift < 0 ? 1LL << -line->shift : 1;
	/* Only 64 bits of the cycles are kept; this is about those that have no more. */
	if (elapsed / divisor > INT64_MAX - 1 || elapsed / divisor < INT64_MIN + 1) {
		__int128 all = elapsed / divisor;

		CHECK((u64)(cycles - (s64)(u64)all) + 1 <= 2,
		      "mul %u shift %d, %lld ns: %lld cycles modulo 2^64", line->mul,
		      line->shift, elapsed_ns, cycles);
		return;
	}
	rest = elapsed - cycles * divisor;
	CHECK(2 * rest >= -divisor && 2 * rest < divisor,
	      "mul %u shift %d, %lld ns and %u: %lld cycles is not nearest", line->mul,
	      line->shift, elapsed_ns, frac, cycles);
}

static void test_line_tsc(void)
{
	static const u32 fracs[] = { 0, 1, 0x7fffffff, 0x80000000, 0xffffffff };
	static const s64 edges_ns[] = { 0, 1, -1, 2, -2, INT64_MAX, INT64_MIN, INT64_MIN + 1 };
	size_t r, i, f;

	for (r = 0; r < NR_RATES; r++) {
		struct kvmclock_line line;

		if (!random_line(r, &line))
			continue;
		for (i = 0; i < ARRAY_SIZE(edges_ns); i++) {
			for (f = 0; f < ARRAY_SIZE(fracs); f++)
				check_nearest(&line, edges_ns[i], fracs[f]);
		}
		for (i = 0; i < NR_INSTANTS; i++) {
			s64 elapsed_ns = random_magnitude() >> 1;

			check_nearest(&line, i & 1 ? -elapsed_ns : elapsed_ns, random_u64());
		}
	}

	/* Ties: an odd number of half cycles, at 2 ns each. */
	for (i = 0; i < NR_INSTANTS; i++) {
		struct kvmclock_line slow = { .mul = 1U << 31, .shift = 2 };
		s64 odd = 2 * (s64)i - NR_INSTANTS + 1;
		s64 cycles = kvmclock_line_tsc(&slow, odd, 0);

		CHECK(2 * cycles == odd + 1, "%lld ns: %lld cycles, not rounded up", odd, cycles);
	}
}

/*
 * Instants of one line are equally far, in cycles, from where another line of
 * that slope has their values; wherever the references are.
 */
static void test_two_lines(void)
{
	size_t r, i;

	for (r = 0; r < NR_RATES; r++) {
		struct kvmclock_line a, b;
		u64 apart = 0;

		if (!random_line(r, &a) || !random_line(r, &b))
			continue;
		b.mul = a.mul;
		b.shift = a.shift;
		/* Values less than 2^63 ns apart. */
		a.ref_ns >>= 2;
		b.ref_ns >>= 2;
		for (i = 0; i < NR_INSTANTS; i++) {
			u64 tsc = a.ref_tsc + random_magnitude() % (scale_limit(a.shift) >> 3);
			u64 ns, there;
			u32 frac;

			ns = kvmclock_line_instant(&a, &tsc, &frac);
			there = kvmclock_line_tsc(&b, ns, frac);
			if (!i)
				apart = there - tsc;
			CHECK(there - tsc == apart, "mul %u shift %d: %llu cycles apart, then %llu",
			      a.mul, a.shift, apart, there - tsc);
		}
	}
}

/* The line that converges is V * (p - ahead) / p, rounded down; at least V / 2. */
static void check_converge(u32 mul, s8 shift, u64 ahead_ns, u64 period_ns)
{
	struct kvmclock_line line = { .ref_tsc = 3, .ref_ns = 5, .mul = mul, .shift = shift };
	unsigned __int128 exact, got;

	kvmclock_line_converge(&line, ahead_ns, period_ns);
	CHECK(line.ref_tsc == 3 && line.ref_ns == 5, "the reference moved");
	CHECK(line.mul >> 31 && line.shift >= SHIFT_MIN &&
	      (line.shift == shift || line.shift == shift - 1),
	      "mul %u shift %d became %u %d", mul, shift, line.mul, line.shift);

	/* Both times 2 * period, at the old shift; got is then of one unit in 2^32. */
	exact = (unsigned __int128)mul * 2 * (period_ns - ahead_ns);
	if (ahead_ns > period_ns / 2)
		exact = (unsigned __int128)mul * period_ns;
	got = (unsigned __int128)line.mul * period_ns << (line.shift == shift);
	CHECK(got <= (unsigned __int128)mul * 2 * period_ns, "mul %u shift %d, then %u %d: steeper",
	      mul, shift, line.mul, line.shift);
	if (shift == SHIFT_MIN && exact < (unsigned __int128)period_ns << 32) {
		CHECK(line.mul == 1U << 31 && line.shift == SHIFT_MIN,
		      "mul %u ahead %llu of %llu: %u %d is not the gentlest", mul, ahead_ns,
		      period_ns, line.mul, line.shift);
		return;
	}
	CHECK(got <= exact && exact - got < (unsigned __int128)period_ns << (line.shift == shift),
	      "mul %u shift %d ahead %llu of %llu: %u %d", mul, shift, ahead_ns, period_ns,
	      line.mul, line.shift);
}

static void test_converge(void)
{
	static const u32 muls[] = { 0x80000000, 0x80000001, 0xaaaaaaab, 0xfffffffe, 0xffffffff };
	static const u64 periods_ns[] = { 1, 2, 3, 999999999, 1000000000, 1000000001, 0x7fffffff };
	static const s8 shifts[] = { SHIFT_MIN, SHIFT_MIN + 1, -1, 0, 1, SHIFT_MAX };
	size_t m, p, s;
	int i;

	for (m = 0; m < ARRAY_SIZE(muls); m++) {
		for (p = 0; p < ARRAY_SIZE(periods_ns); p++) {
			u64 period_ns = periods_ns[p];

			for (s = 0; s < ARRAY_SIZE(shifts); s++) {
				for (i = -1; i <= 1; i++) {
					check_converge(muls[m], shifts[s], i + 1, period_ns);
					check_converge(muls[m], shifts[s], period_ns / 2 + i,
						       period_ns);
					check_converge(muls[m], shifts[s], period_ns + i,
						       period_ns);
				}
				check_converge(muls[m], shifts[s], UINT64_MAX, period_ns);
			}
		}
	}
	for (i = 0; i < 500000; i++) {
		u64 period_ns = random_between(1, 0x7fffffff);

		check_converge(random_u64() | 1U << 31, random_shift(),
			       random_u64() % (period_ns + 2), period_ns);
		check_converge(random_u64() | 1U << 31, random_shift(), random_magnitude(),
			       period_ns);
	}
}

/* A vCPU without a master clock, in simulated time; rates are in 2^-16 Hz. */
struct drifter {
	struct kvmclock_line slope;	/* as the believed rate has it */
	struct kvmclock_line line;
	u64 true_rate;
	u64 now_ns;			/* base time, and the truth */
	u64 last_ns;			/* last reading of the clock */
};

#define PERIOD_NS	1000000000ULL

static u64 drifter_tsc(const struct drifter *d)
{
	unsigned __int128 cycles = (unsigned __int128)d->now_ns * d->true_rate;

	return (u64)(cycles / nsec_rate_q16);
}

/* How far the clock is ahead at @ns; it has not gone back until then. */
static s64 drifter_read(struct drifter *d, u64 ns)
{
	u64 clock_ns;

	d->now_ns = ns;
	clock_ns = kvmclock_line_ns(&d->line, drifter_tsc(d));
	CHECK(clock_ns >= d->last_ns, "%llu after %llu", clock_ns, d->last_ns);
	d->last_ns = clock_ns;
	return clock_ns - ns;
}

static void drifter_redraw(struct drifter *d)
{
	u64 clock_ns = kvmclock_later_ns(d->now_ns, d->last_ns);

	d->line = d->slope;
	d->line.ref_tsc = drifter_tsc(d);
	d->line.ref_ns = clock_ns;
	kvmclock_line_converge(&d->line, clock_ns - d->now_ns, PERIOD_NS);
	drifter_read(d, d->now_ns);
}

static void drifter_begin(struct drifter *d, u64 believed_rate, int drift_ppm, u64 ahead_ns)
{
	s64 off = (s64)(believed_rate / 1000000) * drift_ppm;

	*d = (struct drifter) { .true_rate = believed_rate + off, .now_ns = 123456789 };
	CHECK(kvmclock_mul_shift(nsec_rate_q16, believed_rate, &d->slope.mul, &d->slope.shift),
	      "no slope");
	d->last_ns = d->now_ns + ahead_ns;
	drifter_redraw(d);
}

/* Parts per million of a time, of either sign, away from 0. */
static s64 ppm_of(u64 ns, int ppm)
{
	u64 size = ppm < 0 ? -ppm : ppm;

	return ns * size / 1000000 + 1;
}

/*
 * What roundings add in a period: half a unit of the slope's mul, 2^-32 of a
 * second at most, and up to one of the gentler one, 2^-31; a cycle each, of
 * over 1 GHz, for the TSC at the reference and at the reading, one for the
 * shift; the reading's own nanosecond.  Less than 5 ns.
 */
#define ROUNDING_NS	5

#define YEAR_S		(365 * 86400)
#define MONTH_S		(30 * 86400)

static const int drifts_ppm[] = { 1000, -1000, 5, 250, 20000, -20000, 0 };

/* The first drift has a year, the others a month, of a redraw a second. */
static void test_converge_every_period(void)
{
	size_t i;
	int s;

	for (i = 0; i < ARRAY_SIZE(drifts_ppm); i++) {
		s64 most_ns = ppm_of(PERIOD_NS, drifts_ppm[i]) + ROUNDING_NS;
		struct drifter d;

		drifter_begin(&d, (2596131777ULL << 16) + 12345, drifts_ppm[i], 0);
		for (s = 0; s < (i ? MONTH_S : YEAR_S); s++) {
			s64 ahead_ns = drifter_read(&d, d.now_ns + PERIOD_NS);

			CHECK(ahead_ns <= most_ns && ahead_ns >= -most_ns,
			      "%d ppm: %lld ns ahead after %d s", drifts_ppm[i], ahead_ns, s);
			drifter_redraw(&d);
		}
	}
}

/*
 * Redraws at any moment, and readings in between.  No two are closer than an
 * eighth of a period: what one has added is down by as much with the next, so
 * that no more than eight times the rounding comes together.  Then ones that
 * come late, by as much as another period.
 */
static void test_converge_any_time(void)
{
	size_t i;
	int s, late;

	for (i = 0; i < 2 * ARRAY_SIZE(drifts_ppm); i++) {
		int drift_ppm = drifts_ppm[i / 2];
		struct drifter d;
		s64 most_ns;

		late = i & 1;
		most_ns = ppm_of((1 + late) * PERIOD_NS, drift_ppm) + 8 * ROUNDING_NS;
		drifter_begin(&d, rate_q16(53 + 2 * i), drift_ppm, 0);
		for (s = 0; s < 86400; s++) {
			u64 ns = random_between(PERIOD_NS / 8, (1 + late) * PERIOD_NS);
			u64 until_ns = d.now_ns + ns;
			s64 ahead_ns;

			drifter_read(&d, d.now_ns + random_between(0, ns / 2));
			drifter_read(&d, d.now_ns + random_between(0, ns / 2));
			ahead_ns = drifter_read(&d, until_ns);
			CHECK(ahead_ns <= most_ns && ahead_ns >= -most_ns,
			      "%d ppm: %lld ns ahead", drift_ppm, ahead_ns);
			drifter_redraw(&d);
		}
	}
}

/* Ten seconds ahead: half speed for twenty, and neither stands nor ends behind. */
static void test_converge_from_afar(void)
{
	size_t i;
	int s;

	for (i = 0; i < ARRAY_SIZE(drifts_ppm); i++) {
		s64 most_ns = ppm_of(PERIOD_NS, drifts_ppm[i]) + ROUNDING_NS;
		s64 ahead_ns, lost_ns, last_ns = 10 * (s64)PERIOD_NS;
		struct drifter d;

		drifter_begin(&d, (2694948003ULL << 16), drifts_ppm[i], last_ns);
		for (s = 1; s <= 30; s++) {
			ahead_ns = drifter_read(&d, d.now_ns + PERIOD_NS);
			lost_ns = last_ns - ahead_ns;
			CHECK(lost_ns <= (s64)PERIOD_NS / 2 + most_ns, "%d ppm: %lld ns in %d s",
			      drifts_ppm[i], lost_ns, s);
			if (s < 19)
				CHECK(lost_ns >= (s64)PERIOD_NS / 2 - most_ns,
				      "%d ppm: %lld ns in %d s", drifts_ppm[i], lost_ns, s);
			/* 2 % of half speed: a second more. */
			if (s >= 22)
				CHECK(ahead_ns <= most_ns && ahead_ns >= -most_ns,
				      "%d ppm: %lld ns in %d s", drifts_ppm[i], ahead_ns, s);
			last_ns = ahead_ns;
			drifter_redraw(&d);
		}
	}
}

static void check_later(u64 earlier, u64 ns)
{
	u64 later = earlier + ns;

	CHECK(kvmclock_later_ns(earlier, later) == later &&
	      kvmclock_later_ns(later, earlier) == later, "%llu and %llu", earlier, later);
}

static void test_later(void)
{
	size_t i;
	int at, by;

	/* Around 0, where unsigned numbers wrap, and 2^63, where signed ones do. */
	for (at = -3; at <= 3; at++) {
		for (by = 0; by <= 6; by++) {
			check_later(at, by);
			check_later((1ULL << 63) + at, by);
		}
		check_later(at, (1ULL << 63) - 1);
		check_later((1ULL << 63) + at, (1ULL << 63) - 1);
	}
	/* Set to a second before 2^63 - 1; halted for an hour. */
	check_later((1ULL << 63) - 1 - 1000000000, 3600 * 1000000000ULL);
	for (i = 0; i < 100000; i++)
		check_later(random_u64(), random_magnitude() >> 1);
}

static void check_drift_at(s64 line_ns, s64 base_ns, u32 khz, unsigned int log2_khz)
{
	__int128 apart = (__int128)line_ns - base_ns;
	__int128 passed = base_ns < 0 ? -(__int128)base_ns : base_ns;
	bool is = (apart < 0 ? -apart : apart) <= 1000000 + (passed >> 20) + (passed >> log2_khz);

	CHECK(kvmclock_is_drift(line_ns, base_ns, khz) == is, "line %lld base %lld %u kHz: not %d",
	      line_ns, base_ns, khz, is);
}

static void check_drift(s64 line_ns, s64 base_ns)
{
	check_drift_at(line_ns, base_ns, 1 << 30, 30);
	check_drift_at(line_ns, base_ns, 61234, 15);
	check_drift_at(line_ns, base_ns, 65535, 15);
	check_drift_at(line_ns, base_ns, 65536, 16);
	check_drift_at(line_ns, base_ns, 1, 0);
}

static void test_drift(void)
{
	static const s64 edges_ns[] = {
		0, 1, -1, 1000000, -1000000, 1000000000, -1000000000, (1LL << 52) - 1, 1LL << 52,
		-(1LL << 52), INT64_MAX, INT64_MIN, INT64_MAX - 1, INT64_MIN + 1,
	};
	size_t i, j;
	int by;

	for (i = 0; i < ARRAY_SIZE(edges_ns); i++) {
		s64 base_ns = edges_ns[i];
		u64 size = base_ns < 0 ? -(u64)base_ns : (u64)base_ns;
		u64 most = 1000000 + (size >> 20) + (size >> 30);
		u64 slow = 1000000 + (size >> 20) + (size >> 15);

		for (j = 0; j < ARRAY_SIZE(edges_ns); j++)
			check_drift(edges_ns[j], base_ns);
		for (by = -1; by <= 1; by++) {
			check_drift((u64)base_ns + most + by, base_ns);
			check_drift((u64)base_ns - most + by, base_ns);
			check_drift((u64)base_ns + slow + by, base_ns);
			check_drift((u64)base_ns - slow + by, base_ns);
		}
	}
	for (i = 0; i < 200000; i++) {
		s64 base_ns = i & 1 ? -random_magnitude() : random_magnitude();

		check_drift((u64)base_ns + random_magnitude(), base_ns);
		check_drift((u64)base_ns - random_magnitude(), base_ns);
	}

	/* Not oracle but purpose: a day, and what may be made of it. */
	CHECK(kvmclock_is_drift(86400000020597LL, 86400000000000LL, 2600000), "a day of 2^-32");
	CHECK(!kvmclock_is_drift(82800000000000LL, 86400000000000LL, 61234), "an hour back");
}

static void test_line_hz(void)
{
	struct kvmclock_line line = {};
	size_t i;
	int shift, m;

	for (shift = SHIFT_MIN; shift <= SHIFT_MAX; shift++) {
		for (m = 0; m < 1000; m++) {
			unsigned __int128 hz = (unsigned __int128)KVMCLOCK_NSEC_PER_SEC << 32;
			unsigned __int128 divisor;

			line.mul = m < 4 ? 0u - m - 1 : m < 8 ? (1U << 31) + m - 4 :
							       random_u64() | 1U << 31;
			line.shift = shift;
			divisor = line.mul;
			if (shift < 0)
				hz <<= -shift;
			else
				divisor <<= shift;
			CHECK(kvmclock_line_hz(&line) == (u64)(hz / divisor),
			      "mul %u shift %d: %llu", line.mul, shift, kvmclock_line_hz(&line));
		}
	}

	/* There and back: half a unit of 2^31 is not a Hz below 4 GHz, and it rounds down. */
	for (i = 0; i < ARRAY_SIZE(fixed_rates_hz) && fixed_rates_hz[i] < 4000000000ULL; i++) {
		if (!kvmclock_mul_shift(nsec_rate_q16, rate_q16(i), &line.mul, &line.shift))
			continue;
		CHECK(kvmclock_line_hz(&line) - fixed_rates_hz[i] + 1 <= 2, "%llu became %llu Hz",
		      fixed_rates_hz[i], kvmclock_line_hz(&line));
	}
}

/*
 * No two readings of one value are as far apart as the slack, which is not more
 * than it takes: a nanosecond, and what the shift drops.
 */
static void test_slack(void)
{
	size_t r, i;

	for (r = 0; r < NR_RATES; r++) {
		struct kvmclock_line line;
		__int128 cycle, ns, error;
		u64 granule, slack;
		int left, right;

		if (!random_line(r, &line))
			continue;
		left = line.shift > 0 ? line.shift : 0;
		right = left - line.shift;
		granule = 1ULL << right;
		slack = kvmclock_line_slack_cycles(&line);

		/* All but the granule is a nanosecond, to the nearest cycle. */
		cycle = (__int128)line.mul << left;
		ns = (__int128)1 << (32 + right);
		error = ns - (slack - granule) * cycle;
		CHECK(slack >= granule && 2 * error >= -cycle && 2 * error < cycle,
		      "mul %u shift %d: %llu cycles", line.mul, line.shift, slack);

		for (i = 0; i < 50; i++) {
			u64 limit = scale_limit(line.shift) >> 2;
			u64 first = line.ref_tsc + random_magnitude() % limit;
			u64 value = kvmclock_line_ns(&line, first);
			u64 by = random_u64() % (2 * slack);

			if (kvmclock_line_ns(&line, first + by) == value)
				CHECK(by < slack, "mul %u shift %d: %llu cycles apart, slack %llu",
				      line.mul, line.shift, by, slack);
		}
	}
}

static void test_used_up(void)
{
	int shift, i;

	for (shift = SHIFT_MIN; shift <= SHIFT_MAX; shift++) {
		struct kvmclock_line line = { .mul = 1U << 31, .shift = shift };

		for (i = 0; i < NR_EDGE_DELTAS + 1000; i++) {
			u64 delta = i < NR_EDGE_DELTAS ? edge_delta(i) : random_magnitude();
			unsigned __int128 shifted = shift_exactly(delta, shift > 0 ? shift : 0);
			bool up = shifted >= (unsigned __int128)1 << 62;

			CHECK(kvmclock_line_used_up(&line, delta) == up, "shift %d, %llu cycles",
			      shift, delta);
			/* One that is not may get as old again, and is right until then. */
			if (!up)
				check_scale(2 * delta, line.mul, shift);
		}
	}
}

/* The same line with its reference past zero: by as few steps as it takes. */
static void check_past_zero(const struct kvmclock_line *line, u64 now_tsc)
{
	struct kvmclock_line moved = *line;
	unsigned __int128 step = (unsigned __int128)1 << (32 - line->shift);
	unsigned __int128 left = ((unsigned __int128)1 << 64) - line->ref_tsc;
	u64 steps = (left + step - 1) / step;
	u64 by;

	kvmclock_line_past_zero(&moved, now_tsc);
	by = moved.ref_tsc - line->ref_tsc;
	CHECK(moved.mul == line->mul && moved.shift == line->shift, "another slope");
	if (line->ref_tsc <= now_tsc) {
		CHECK(!by && moved.ref_ns == line->ref_ns, "moved by %llu", by);
		return;
	}
	CHECK(by == (u64)(steps * step) && moved.ref_ns - line->ref_ns == steps * line->mul,
	      "shift %d: %llu moved by %llu cycles, %llu ns", line->shift, line->ref_tsc, by,
	      moved.ref_ns - line->ref_ns);
}

static void test_past_zero(void)
{
	struct kvmclock_line line = {};
	int shift, i, d;

	for (shift = SHIFT_MIN; shift <= SHIFT_MAX; shift++) {
		u64 step = 1ULL << (32 - shift);

		for (i = 0; i < 100; i++) {
			line.mul = random_u64() | 1U << 31;
			line.shift = shift;
			line.ref_ns = random_magnitude();
			for (d = -1; d <= 1; d++) {
				u64 far = random_magnitude() / step * step;

				line.ref_tsc = -far - step + d;
				check_past_zero(&line, random_u64() & 0xffffff);
				check_past_zero(&line, line.ref_tsc + d);
				line.ref_tsc = d;
				check_past_zero(&line, 0);
			}
			line.ref_tsc = random_u64();
			check_past_zero(&line, random_magnitude());
		}
	}
}

static void test_next_version(void)
{
	u32 version;

	for (version = -1000; version != 1000; version++) {
		u32 next = kvmclock_next_version(version);

		CHECK(next & 1, "%u becomes %u", version, next);
		CHECK(next - version == (version & 1 ? 2 : 1), "%u becomes %u", version, next);
	}
}

#define MAX_ROW		8
#define NR_CHANGES	200000

/* Of few values, so that all being equal is not rare. */
static struct kvmclock_tsc_state random_state_of_tsc(void)
{
	return (struct kvmclock_tsc_state) {
		.ratio = random_u64() % 8 ? 1ULL << 32 : (1ULL << 32) + 1,
		.offset = random_u64() % 4 ? 5 : random_u64() % 2 ? 6 : 5 | 1ULL << 63,
		.catchup = random_u64() % 32 == 0,
	};
}

struct row {
	struct kvmclock_tsc_state tsc[MAX_ROW];
	bool counted[MAX_ROW];
	struct kvmclock_census census;
};

static void row_count(struct row *row, int i, int sign)
{
	const struct kvmclock_tsc_state *prev = NULL, *next = NULL;

	if (i && row->counted[i - 1])
		prev = &row->tsc[i - 1];
	if (i + 1 < MAX_ROW && row->counted[i + 1])
		next = &row->tsc[i + 1];
	kvmclock_census_count(&row->census, prev, &row->tsc[i], next, sign);
	row->counted[i] = sign > 0;
}

static void check_census(const struct row *row, int nr, u64 *equal)
{
	const struct kvmclock_census *c = &row->census;
	struct kvmclock_tscs s;
	int i;

	kvmclock_tscs_begin(&s, 1);
	for (i = 0; i < nr; i++)
		kvmclock_tscs_add(&s, row->tsc[i].ratio, row->tsc[i].offset,
				     row->tsc[i].catchup);
	CHECK(c->nr == s.nr, "%u counted, %u there", c->nr, s.nr);
	CHECK(!c->rate_steps == s.same_rate, "%u vCPUs, %u steps of rate", c->nr, c->rate_steps);
	CHECK((!c->tsc_steps && !c->nr_catchup) == s.same_tsc, "%u vCPUs, %u steps, %u catch up",
	      c->nr, c->tsc_steps, c->nr_catchup);
	*equal += s.same_rate && s.same_tsc;
}

/* Long rows of changes away and back, in rows of all lengths, counted in any order. */
static void test_census(void)
{
	u64 equal = 0;
	int nr, i, k;

	for (nr = 0; nr <= MAX_ROW; nr++) {
		struct row row = {};

		for (i = 0; i < nr; i++)
			row.tsc[i] = random_state_of_tsc();
		while ((int)row.census.nr < nr) {
			i = random_u64() % nr;
			if (!row.counted[i])
				row_count(&row, i, 1);
		}
		check_census(&row, nr, &equal);

		for (k = 0; nr && k < NR_CHANGES; k++) {
			i = random_u64() % nr;
			row_count(&row, i, -1);
			row.tsc[i] = random_state_of_tsc();
			row_count(&row, i, 1);
			check_census(&row, nr, &equal);
		}

		while (row.census.nr) {
			i = random_u64() % nr;
			if (row.counted[i])
				row_count(&row, i, -1);
		}
		CHECK(!row.census.rate_steps && !row.census.tsc_steps && !row.census.nr_catchup,
		      "%u and %u steps, %u catch up, of nobody", row.census.rate_steps,
		      row.census.tsc_steps, row.census.nr_catchup);
	}
	CHECK(equal > NR_CHANGES, "only %llu times equal", equal);
}

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "scale",		test_scale },
	{ "scale_signed",	test_scale_signed },
	{ "line",		test_line },
	{ "line_monotonic",	test_line_monotonic },
	{ "ratio_floor",	test_ratio_floor },
	{ "ratio_inverts",	test_ratio_inverts },
	{ "ratio_of_khz",	test_ratio_of_khz },
	{ "ratio_any",		test_ratio_any },
	{ "ratio_range",	test_ratio_range },
	{ "advance",		test_advance },
	{ "instant",		test_instant },
	{ "line_tsc",		test_line_tsc },
	{ "two_lines",		test_two_lines },
	{ "converge",		test_converge },
	{ "converge_every_period",	test_converge_every_period },
	{ "converge_any_time",	test_converge_any_time },
	{ "converge_from_afar",	test_converge_from_afar },
	{ "later",		test_later },
	{ "drift",		test_drift },
	{ "line_hz",		test_line_hz },
	{ "slack",		test_slack },
	{ "used_up",		test_used_up },
	{ "past_zero",		test_past_zero },
	{ "next_version",	test_next_version },
	{ "census",		test_census },
};

int main(int argc, char *argv[])
{
	u64 seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 20260903;
	bool failed = false;
	size_t i;

	printf("KTAP version 1\n1..%zu\n", ARRAY_SIZE(cases));
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		random_state = seed;
		checks = 0;
		failures = 0;
		cases[i].run();

		/* A loop that was never entered has proven nothing. */
		if (!checks || failures)
			failed = true;
		printf("# %llu checks, %llu failed\n", checks, failures);
		printf("%sok %zu %s\n", !checks || failures ? "not " : "", i + 1,
		       cases[i].name);
	}
	if (failed)
		printf("# repeat with: %s %llu\n", argv[0], seed);
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
