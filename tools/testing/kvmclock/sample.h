/* SPDX-License-Identifier: GPL-2.0 */
/*
 * A clock and the TSC at one instant, as near as a program can tell: for those who
 * compare a guest's clock with its host's.
 */
#ifndef _KVMCLOCK_SAMPLE_H
#define _KVMCLOCK_SAMPLE_H

#include <stdint.h>
#include <time.h>
#include <x86intrin.h>

#define SAMPLE_TRIES	300

/* The clock was @ns at a TSC from @tsc to @tsc + @cycles. */
struct sample {
	uint64_t tsc;
	uint64_t cycles;
	int64_t ns;
};

/* Of many tries the one that took the least: the others were interrupted. */
static inline int take_sample(clockid_t id, struct sample *best)
{
	struct timespec ts;
	uint64_t from, cycles;
	int i;

	*best = (struct sample){ .cycles = UINT64_MAX };
	for (i = 0; i < SAMPLE_TRIES; i++) {
		_mm_lfence();
		from = __rdtsc();
		_mm_lfence();
		if (clock_gettime(id, &ts))
			return -1;
		_mm_lfence();
		cycles = __rdtsc() - from;
		if (cycles >= best->cycles)
			continue;
		best->tsc = from;
		best->cycles = cycles;
		best->ns = ts.tv_sec * 1000000000LL + ts.tv_nsec;
	}
	return 0;
}

#endif /* _KVMCLOCK_SAMPLE_H */
