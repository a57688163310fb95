// SPDX-License-Identifier: GPL-2.0
/*
 * Tests arch/x86/kvm/kvmclock_line.h, as it is, in userspace.
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

#include "kvmclock_line.h"

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

		if (!kvmclock_ratio(nsec_rate_q16, rate_q16(r), &line.mul, &line.shift))
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

		if (!kvmclock_ratio(nsec_rate_q16, rate_q16(r), &line.mul, &line.shift))
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
 *	|m * u - v| <= u / 2
 * times 2 * from / u is one about integers:
 *	|2 * m * from - 2 * to * 2^(32 - shift)| <= from
 * With to below 2^62 and 32 - shift at most 64 the right product is below
 * 2^127.  At m = 2^31 the next smaller number is only u / 2 away, so below it
 * half of that is the limit.  A tie must have gone up.
 */
static bool is_nearest(u64 to, u64 from, u32 mul, s8 shift)
{
	__int128 error = 2 * ((__int128)mul * from) - ((__int128)to << (33 - shift));

	if (mul == 1U << 31 && error > 0)
		return 2 * error <= from;
	return error <= from && error > -(__int128)from;
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

	if (!kvmclock_ratio(to, from, &mul, &shift)) {
		CHECK(false, "%llu / %llu refused", to, from);
		return 0;
	}
	CHECK(mul >> 31, "%llu / %llu: mul %u shift %d wastes bits",
	      to, from, mul, shift);
	CHECK(shift >= SHIFT_MIN && shift <= SHIFT_MAX, "%llu / %llu: mul %u shift %d",
	      to, from, mul, shift);
	CHECK(is_nearest(to, from, mul, shift), "%llu / %llu: mul %u shift %d",
	      to, from, mul, shift);
	return ratio_error_ppb(to, from, mul, shift);
}

static void test_ratio_nearest(void)
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

	/* Half a unit in 2^31. */
	CHECK(worst <= 1e9 / 4294967296.0, "%.6f ppb", worst);
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

	/* 33 significant bits ending in 1: a tie. */
	check_ratio((1ULL << 32) + 1, 1ULL << 33);
	check_ratio((1ULL << 33) - 1, 1ULL << 33);
	check_ratio((1ULL << 32) + 3, 1ULL << 40);
}

static void check_refused(u64 to, u64 from)
{
	u32 mul = 0x12345678;
	s8 shift = 77;

	CHECK(!kvmclock_ratio(to, from, &mul, &shift), "%llu / %llu: mul %u shift %d",
	      to, from, mul, shift);
	CHECK(mul == 0x12345678 && shift == 77,
	      "%llu / %llu refused, but mul %u shift %d left behind",
	      to, from, mul, shift);
}

/*
 * From 2^31 * 2^-63 to (2^32 - 1) * 2^-1 there is a form, rounding included:
 * 2^32 - 1/2 units and more would round to 2^32.
 */
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
	check_refused((1ULL << 33) - 1, 1ULL << 2);
	check_ratio((1ULL << 31) - 1, 1);
	check_ratio((1ULL << 33) - 3, 1ULL << 2);

	check_ratio(1, 1ULL << 32);
	check_refused(1, (1ULL << 32) + 4);
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

		if (!kvmclock_ratio(nsec_rate_q16, rate_q16(r), &fixed.mul, &fixed.shift)) {
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
	if (kvmclock_ratio(nsec_rate_q16, rate_q16(r), &line->mul, &line->shift))
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

static const struct {
	const char *name;
	void (*run)(void);
} cases[] = {
	{ "scale",		test_scale },
	{ "scale_signed",	test_scale_signed },
	{ "line",		test_line },
	{ "line_monotonic",	test_line_monotonic },
	{ "ratio_nearest",	test_ratio_nearest },
	{ "ratio_any",		test_ratio_any },
	{ "ratio_range",	test_ratio_range },
	{ "advance",		test_advance },
	{ "instant",		test_instant },
	{ "line_tsc",		test_line_tsc },
	{ "two_lines",		test_two_lines },
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
