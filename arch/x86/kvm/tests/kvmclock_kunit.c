// SPDX-License-Identifier: GPL-2.0
/*
 * tools/testing/kunit/kunit.py run --arch=x86_64 --kunitconfig=arch/x86/kvm/tests
 *
 * The arithmetic of a clock line and the decision about a master clock, as the
 * kernel has compiled them.  Each result is held against 128-bit integers; what
 * a failure prints is all that went in.
 */
#include <kunit/test.h>
#include <linux/math64.h>

#include "../kvmclock_decide.h"

#define HZ_UNITS(hz)	((u64)(hz) << KVMCLOCK_HZ_FRAC_BITS)
#define NS_UNITS	HZ_UNITS(KVMCLOCK_NSEC_PER_SEC)

/* From a few MHz to 10 GHz; round ones hide drift, and are here for being round. */
static const u64 rates_hz[] = {
	3579545, 24000000, 97531001, 999999937, 1000000000, 1995311000, 2100000000,
	2596131777, 2694948003, 3000000000, 3700000001, 4294967295, 4294967296, 9999999967,
};

static const u64 deltas[] = {
	0, 1, 2, 3, 1000, 65535, 65536, 0x7fffffff, 0x80000000, 0xffffffff, 0x100000000,
	123456789012345, (1ULL << 52) - 1, 1ULL << 52, (1ULL << 53) + 12345,
};

/* floor(floor(delta * 2^shift) * mul / 2^32) */
static u64 naive_scale(u64 delta, u32 mul, s8 shift)
{
	unsigned __int128 product = delta;

	if (shift < 0)
		product >>= -shift;
	else
		product <<= shift;
	return product * mul >> 32;
}

static void line_of(struct kunit *test, u64 hz, struct kvmclock_line *line)
{
	*line = (struct kvmclock_line) { .ref_tsc = hz / 3, .ref_ns = 12345678901 };
	KUNIT_ASSERT_TRUE_MSG(test, kvmclock_slope_of(HZ_UNITS(hz), KVMCLOCK_HZ_FRAC_BITS, line),
			      "%llu Hz", hz);
}

static void scale_is_exact(struct kunit *test)
{
	struct kvmclock_line line;
	int i, j;

	for (i = 0; i < ARRAY_SIZE(rates_hz); i++) {
		line_of(test, rates_hz[i], &line);
		for (j = 0; j < ARRAY_SIZE(deltas); j++) {
			u64 delta = deltas[j];
			u64 expected = naive_scale(delta, line.mul, line.shift);

			KUNIT_EXPECT_EQ_MSG(test, kvmclock_scale(delta, line.mul, line.shift),
					    expected, "%llu Hz, delta %llu", rates_hz[i], delta);
			KUNIT_EXPECT_EQ_MSG(test,
					    kvmclock_scale_signed(-delta, line.mul, line.shift),
					    -(s64)expected, "%llu Hz, delta -%llu", rates_hz[i],
					    delta);
		}
	}
}

/*
 * mul * 2^(shift - 32) is to / from, rounded down: multiplied out, less than a unit
 * of mul is missing.
 */
static void ratio_is_floor(struct kunit *test)
{
	int i, back;

	for (i = 0; i < ARRAY_SIZE(rates_hz); i++) {
		for (back = 0; back < 2; back++) {
			u64 to = back ? HZ_UNITS(rates_hz[i]) : NS_UNITS;
			u64 from = back ? NS_UNITS : HZ_UNITS(rates_hz[i]);
			__int128 is, target, unit;
			u32 mul = 0;
			s8 shift = 0;

			KUNIT_ASSERT_TRUE_MSG(test, kvmclock_mul_shift(to, from, &mul, &shift),
					      "%llu / %llu", to, from);
			KUNIT_EXPECT_GE_MSG(test, mul, 1U << 31, "%llu / %llu", to, from);

			/* All times 2^(32 - shift): shift is small for these rates. */
			is = (__int128)from * mul;
			target = (__int128)to << (32 - shift);
			unit = from;
			KUNIT_EXPECT_TRUE_MSG(test, is <= target && target - is < unit,
					      "%llu / %llu: %u, shift %d", to, from, mul, shift);
		}
	}
}

static void ratio_refuses(struct kunit *test)
{
	static const u64 bad[][2] = {
		{ 0, 1 }, { 1, 0 }, { 0, 0 }, { 1, KVMCLOCK_RATE_MAX + 1 },
		{ KVMCLOCK_RATE_MAX + 1, 1 }, { U64_MAX, U64_MAX }, { 1, 1ULL << 33 },
		{ 1ULL << 31, 1 },
	};
	u32 mul = 12345;
	s8 shift = 67;
	int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		KUNIT_EXPECT_FALSE_MSG(test, kvmclock_mul_shift(bad[i][0], bad[i][1], &mul, &shift),
				       "%llu / %llu", bad[i][0], bad[i][1]);
		KUNIT_EXPECT_EQ(test, mul, 12345);
		KUNIT_EXPECT_EQ(test, shift, 67);
	}
}

/* Wherever the reference is, each reading from it on is the same number. */
static void advance_moves_nothing(struct kunit *test)
{
	struct kvmclock_line line, moved;
	int i, j, k;

	for (i = 0; i < ARRAY_SIZE(rates_hz); i++) {
		line_of(test, rates_hz[i], &line);
		moved = line;
		for (k = 1; k <= 1000; k++) {
			kvmclock_line_advance(&moved, k % 7);
			for (j = 0; j < ARRAY_SIZE(deltas); j++) {
				u64 tsc = moved.ref_tsc + (deltas[j] & 0xffffffffffff);

				if (kvmclock_line_ns(&moved, tsc) != kvmclock_line_ns(&line, tsc))
					KUNIT_FAIL(test, "%llu Hz, advance %d, TSC %llu",
						   rates_hz[i], k, tsc);
			}
		}
	}
}

/* Before the reference time is less, not a hundred years more. */
static void before_the_reference(struct kunit *test)
{
	struct kvmclock_line line;
	int i;

	for (i = 0; i < ARRAY_SIZE(rates_hz); i++) {
		line_of(test, rates_hz[i], &line);
		KUNIT_EXPECT_EQ(test, kvmclock_line_ns(&line, line.ref_tsc), line.ref_ns);
		KUNIT_EXPECT_EQ(test, kvmclock_line_ns(&line, line.ref_tsc - 1000000),
				line.ref_ns - naive_scale(1000000, line.mul, line.shift));
	}
}

struct vcpu_tsc {
	u64 ratio;
	u64 offset;
	bool catchup;
};

#define RATIO		BIT_ULL(32)
#define OTHER_RATIO	(RATIO + 1)
#define RATE		HZ_UNITS(2596131777ULL)

static struct kvmclock_decision decide(const struct vcpu_tsc *vcpus, int nr, bool host, u64 rate)
{
	struct kvmclock_decision want = {};
	struct kvmclock_tscs s;
	int i;

	kvmclock_tscs_begin(&s, RATIO);
	for (i = 0; i < nr; i++)
		kvmclock_tscs_add(&s, vcpus[i].ratio, vcpus[i].offset, vcpus[i].catchup);
	kvmclock_predicate(&s, host, rate, KVMCLOCK_HZ_FRAC_BITS, &want);
	return want;
}

static void expect_decision(struct kunit *test, const char *what, const struct vcpu_tsc *vcpus,
			    int nr, bool master, bool stable)
{
	struct kvmclock_decision got = decide(vcpus, nr, true, RATE);

	KUNIT_EXPECT_EQ_MSG(test, got.master, master, "%s", what);
	KUNIT_EXPECT_EQ_MSG(test, got.stable, stable, "%s", what);

	/* Whatever the vCPUs are, without the host's TSC there is neither. */
	got = decide(vcpus, nr, false, RATE);
	KUNIT_EXPECT_FALSE_MSG(test, got.master || got.stable, "%s, TSC not trusted", what);
	got = decide(vcpus, nr, true, 0);
	KUNIT_EXPECT_FALSE_MSG(test, got.master || got.stable, "%s, rate unknown", what);
}

#define EXPECT_DECISION(test, what, master, stable, ...)			\
do {										\
	const struct vcpu_tsc vcpus[] = { __VA_ARGS__ };			\
										\
	expect_decision(test, what, vcpus, ARRAY_SIZE(vcpus), master, stable);	\
} while (0)

static void predicate(struct kunit *test)
{
	expect_decision(test, "no vCPU yet", NULL, 0, true, true);
	EXPECT_DECISION(test, "one", true, true, { RATIO, 5 });
	EXPECT_DECISION(test, "one at another ratio", true, true, { OTHER_RATIO, 5 });
	EXPECT_DECISION(test, "equal", true, true, { RATIO, 5 }, { RATIO, 5 }, { RATIO, 5 });
	EXPECT_DECISION(test, "first differs", true, false, { RATIO, 6 }, { RATIO, 5 },
			{ RATIO, 5 });
	EXPECT_DECISION(test, "last differs", true, false, { RATIO, 5 }, { RATIO, 5 },
			{ RATIO, 6 });
	EXPECT_DECISION(test, "offsets 0 and 1", true, false, { RATIO, 0 }, { RATIO, 1 });
	EXPECT_DECISION(test, "first rate differs", false, false, { OTHER_RATIO, 5 },
			{ RATIO, 5 }, { RATIO, 5 });
	EXPECT_DECISION(test, "last rate differs", false, false, { RATIO, 5 }, { RATIO, 5 },
			{ OTHER_RATIO, 5 });
	EXPECT_DECISION(test, "one that catches up", true, false, { RATIO, 5, true });
	EXPECT_DECISION(test, "first catches up", true, false, { RATIO, 5, true }, { RATIO, 5 });
	EXPECT_DECISION(test, "last catches up", true, false, { RATIO, 5 }, { RATIO, 5, true });
}

/* What TDX and SNP leave of a plan, and what their vCPUs are to the predicate. */
static void vendor_is_heeded(struct kunit *test)
{
	struct kvm_tsc_plan plan = { .ratio = RATIO, .always_catchup = true };
	u32 khz = 2610000;

	kvmclock_heed_vendor(&plan, &khz, 0, 0);
	KUNIT_EXPECT_EQ(test, plan.ratio, RATIO);
	KUNIT_EXPECT_FALSE(test, plan.always_catchup);
	KUNIT_EXPECT_EQ(test, khz, 2610000);

	/* Rounded down by the ratio's last bit, and up again. */
	plan.always_catchup = true;
	kvmclock_heed_vendor(&plan, &khz, OTHER_RATIO, 2 * 2600000 - 1);
	KUNIT_EXPECT_EQ(test, plan.ratio, OTHER_RATIO);
	KUNIT_EXPECT_FALSE(test, plan.always_catchup);
	KUNIT_EXPECT_EQ(test, khz, 2600000);

	kvmclock_heed_vendor(&plan, &khz, OTHER_RATIO, U32_MAX);
	KUNIT_EXPECT_EQ(test, khz, 1U << 31);

	EXPECT_DECISION(test, "SNP", true, true, { RATIO, 0 }, { RATIO, 0 });
	EXPECT_DECISION(test, "TDX", true, true, { OTHER_RATIO, 7 }, { OTHER_RATIO, 7 });
	EXPECT_DECISION(test, "a protected TSC beside KVM's", true, false, { RATIO, 0 },
			{ RATIO, 5 });
}

static void predicate_slope(struct kunit *test)
{
	const struct vcpu_tsc vcpu = { OTHER_RATIO, 7 };
	struct kvmclock_decision got = decide(&vcpu, 1, true, RATE);
	struct kvmclock_line line;

	KUNIT_ASSERT_TRUE(test, kvmclock_slope_of(RATE, KVMCLOCK_HZ_FRAC_BITS, &line));
	KUNIT_EXPECT_EQ(test, got.ratio, OTHER_RATIO);
	KUNIT_EXPECT_EQ(test, got.slope.mul, line.mul);
	KUNIT_EXPECT_EQ(test, got.slope.shift, line.shift);
}

/* For the tracepoint: how many are as the first one is. */
static void tscs_one_by_one(struct kunit *test)
{
	struct kvmclock_tscs s;

	kvmclock_tscs_begin(&s, RATIO);
	KUNIT_EXPECT_EQ(test, s.matched, 0);
	kvmclock_tscs_add(&s, RATIO, 5, false);
	KUNIT_EXPECT_EQ(test, s.matched, 0);
	kvmclock_tscs_add(&s, RATIO, 6, false);
	kvmclock_tscs_add(&s, RATIO, 5, false);
	KUNIT_EXPECT_EQ(test, s.matched, 1);
	KUNIT_EXPECT_EQ(test, s.nr, 3);
}

/* The lead is gone after the period, to what roundings leave; at most half speed. */
static void converge_loses_the_lead(struct kunit *test)
{
	static const u64 leads_ns[] = { 0, 1, 999, 15000000, 499999999, 500000000 };
	struct kvmclock_line line, gentle;
	int i, j;

	for (i = 0; i < ARRAY_SIZE(rates_hz); i++) {
		u64 second = rates_hz[i];

		line_of(test, rates_hz[i], &line);
		for (j = 0; j < ARRAY_SIZE(leads_ns); j++) {
			u64 ns;

			gentle = line;
			kvmclock_line_converge(&gentle, leads_ns[j], KVMCLOCK_NSEC_PER_SEC);
			ns = kvmclock_line_ns(&gentle, gentle.ref_tsc + second) - line.ref_ns;
			KUNIT_EXPECT_GE_MSG(test, gentle.mul, 1U << 31, "%llu Hz", rates_hz[i]);
			KUNIT_EXPECT_LE_MSG(test, abs_diff(ns + leads_ns[j], KVMCLOCK_NSEC_PER_SEC),
					    5 + 2 * KVMCLOCK_NSEC_PER_SEC / rates_hz[i],
					    "%llu Hz, %llu ns ahead", rates_hz[i], leads_ns[j]);
		}

		gentle = line;
		kvmclock_line_converge(&gentle, U64_MAX, KVMCLOCK_NSEC_PER_SEC);
		KUNIT_EXPECT_EQ(test, gentle.mul, line.mul);
		KUNIT_EXPECT_EQ(test, gentle.shift, line.shift - 1);
	}
}

static void later_is_modular(struct kunit *test)
{
	static const u64 at[] = { 0, 1, S64_MAX - 1, S64_MAX, 1ULL << 63, U64_MAX };
	int i;

	for (i = 0; i < ARRAY_SIZE(at); i++) {
		KUNIT_EXPECT_EQ(test, kvmclock_later_ns(at[i], at[i] + 1), at[i] + 1);
		KUNIT_EXPECT_EQ(test, kvmclock_later_ns(at[i] + 1, at[i]), at[i] + 1);
		KUNIT_EXPECT_EQ(test, kvmclock_later_ns(at[i], at[i] + S64_MAX), at[i] + S64_MAX);
	}
}

/* A TSC that was written back: the same line, from a reference after its 0 on. */
static void past_zero_moves_nothing(struct kunit *test)
{
	struct kvmclock_line line, moved;
	int i;

	for (i = 0; i < ARRAY_SIZE(rates_hz); i++) {
		u64 step;

		line_of(test, rates_hz[i], &line);
		step = 1ULL << (32 - line.shift);
		line.ref_tsc = -line.ref_tsc;
		moved = line;
		kvmclock_line_past_zero(&moved, 1000);
		KUNIT_EXPECT_LT_MSG(test, moved.ref_tsc, step, "%llu Hz", rates_hz[i]);
		KUNIT_EXPECT_EQ_MSG(test, kvmclock_line_ns(&moved, moved.ref_tsc + 12345),
				    kvmclock_line_ns(&line, moved.ref_tsc + 12345), "%llu Hz",
				    rates_hz[i]);

		line = moved;
		kvmclock_line_past_zero(&moved, line.ref_tsc);
		KUNIT_EXPECT_EQ(test, moved.ref_tsc, line.ref_tsc);
	}
}

static void next_version_is_odd(struct kunit *test)
{
	KUNIT_EXPECT_EQ(test, kvmclock_next_version(0), 1);
	KUNIT_EXPECT_EQ(test, kvmclock_next_version(1), 3);
	KUNIT_EXPECT_EQ(test, kvmclock_next_version(2), 3);
	KUNIT_EXPECT_EQ(test, kvmclock_next_version(U32_MAX - 1), U32_MAX);
	KUNIT_EXPECT_EQ(test, kvmclock_next_version(U32_MAX), 1);
}

static void drift_or_not(struct kunit *test)
{
	const s64 day_ns = 86400 * (s64)KVMCLOCK_NSEC_PER_SEC;
	const s64 most_ns = 1000000 + (day_ns >> 20) + (day_ns >> 30);

	KUNIT_EXPECT_TRUE(test, kvmclock_is_drift(0, 0, 1 << 30));
	KUNIT_EXPECT_TRUE(test, kvmclock_is_drift(1000000, 0, 1 << 30));
	KUNIT_EXPECT_FALSE(test, kvmclock_is_drift(1000001, 0, 1 << 30));
	KUNIT_EXPECT_FALSE(test, kvmclock_is_drift(-1000001, 0, 1 << 30));
	KUNIT_EXPECT_TRUE(test, kvmclock_is_drift(day_ns + most_ns, day_ns, 1 << 30));
	KUNIT_EXPECT_TRUE(test, kvmclock_is_drift(day_ns - most_ns, day_ns, 1 << 30));
	KUNIT_EXPECT_FALSE(test, kvmclock_is_drift(day_ns + most_ns + 1, day_ns, 1 << 30));
	KUNIT_EXPECT_FALSE(test, kvmclock_is_drift(day_ns - most_ns - 1, day_ns, 1 << 30));
	KUNIT_EXPECT_TRUE(test, kvmclock_is_drift(-day_ns - most_ns, -day_ns, 1 << 30));
	KUNIT_EXPECT_FALSE(test, kvmclock_is_drift(S64_MAX, S64_MIN, 1 << 30));
	KUNIT_EXPECT_FALSE(test, kvmclock_is_drift(S64_MIN, S64_MAX, 1 << 30));
	KUNIT_EXPECT_TRUE(test, kvmclock_is_drift(S64_MIN, S64_MIN, 1 << 30));

	/* A line of 61,234 kHz that was given 900 Hz too slow, after a day. */
	KUNIT_EXPECT_TRUE(test, kvmclock_is_drift(day_ns - day_ns / 68038, day_ns, 61234));
	KUNIT_EXPECT_FALSE(test, kvmclock_is_drift(day_ns - day_ns / 16384, day_ns, 61234));
}

/* A row in which one after the other changes, and they change back. */
static void census_is_what_they_are(struct kunit *test)
{
	struct kvmclock_tsc_state row[6], as_it_was = { RATIO, 5, false };
	struct kvmclock_census c = {};
	int i, k;

	for (i = 0; i < ARRAY_SIZE(row); i++) {
		row[i] = as_it_was;
		kvmclock_census_count(&c, i ? &row[i - 1] : NULL, &row[i], NULL, 1);
	}

	for (k = 0; k < 2000; k++) {
		const struct kvmclock_tsc_state *prev, *next;
		struct kvmclock_tscs s;

		/* 7 and 6 have no common divisor: all that there is comes by. */
		i = k % ARRAY_SIZE(row);
		prev = i ? &row[i - 1] : NULL;
		next = i + 1 < ARRAY_SIZE(row) ? &row[i + 1] : NULL;
		kvmclock_census_count(&c, prev, &row[i], next, -1);
		row[i] = as_it_was;
		row[i].ratio += k % 7 == 1 || k % 7 == 4;
		row[i].offset += k % 7 == 2 || k % 7 == 4;
		row[i].catchup = k % 7 == 3;
		if (k % 100 > 80)
			row[i] = as_it_was;
		kvmclock_census_count(&c, prev, &row[i], next, 1);

		kvmclock_tscs_begin(&s, RATIO);
		for (i = 0; i < ARRAY_SIZE(row); i++)
			kvmclock_tscs_add(&s, row[i].ratio, row[i].offset, row[i].catchup);
		KUNIT_EXPECT_EQ_MSG(test, c.nr, s.nr, "change %d", k);
		KUNIT_EXPECT_EQ_MSG(test, !c.rate_steps, s.same_rate, "change %d", k);
		KUNIT_EXPECT_EQ_MSG(test, !c.tsc_steps && !c.nr_catchup, s.same_tsc, "change %d",
				    k);
	}
}

static struct kunit_case kvmclock_cases[] = {
	KUNIT_CASE(scale_is_exact),
	KUNIT_CASE(ratio_is_floor),
	KUNIT_CASE(ratio_refuses),
	KUNIT_CASE(advance_moves_nothing),
	KUNIT_CASE(before_the_reference),
	KUNIT_CASE(converge_loses_the_lead),
	KUNIT_CASE(later_is_modular),
	KUNIT_CASE(past_zero_moves_nothing),
	KUNIT_CASE(next_version_is_odd),
	KUNIT_CASE(drift_or_not),
	KUNIT_CASE(predicate),
	KUNIT_CASE(vendor_is_heeded),
	KUNIT_CASE(predicate_slope),
	KUNIT_CASE(tscs_one_by_one),
	KUNIT_CASE(census_is_what_they_are),
	{}
};

static struct kunit_suite kvmclock_suite = {
	.name = "kvmclock",
	.test_cases = kvmclock_cases,
};

kunit_test_suite(kvmclock_suite);

MODULE_DESCRIPTION("KUnit tests of KVM's clock");
MODULE_LICENSE("GPL");
