// SPDX-License-Identifier: GPL-2.0
/*
 * Prints the rate of this machine's TSC in kHz by CLOCK_MONOTONIC: what an
 * emulated machine has for its TSC, by what it has for its other clocks.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <x86intrin.h>

#define NR_TRIES	1000
#define NSEC_PER_SEC	1000000000LL

static int64_t now_ns(void)
{
	struct timespec ts;

	if (clock_gettime(CLOCK_MONOTONIC, &ts)) {
		perror("clock_gettime");
		exit(EXIT_FAILURE);
	}
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

/* A TSC value, and the time at it, as close together as they were in many tries. */
static uint64_t read_pair(int64_t *ns)
{
	int64_t before, after, shortest = INT64_MAX;
	uint64_t tsc, best = 0;
	int i;

	for (i = 0; i < NR_TRIES; i++) {
		before = now_ns();
		tsc = __rdtsc();
		after = now_ns();
		if (after - before >= shortest)
			continue;
		shortest = after - before;
		*ns = before + shortest / 2;
		best = tsc;
	}
	return best;
}

int main(void)
{
	struct timespec pause = { .tv_nsec = 300000000 };
	uint64_t from_tsc, until_tsc;
	int64_t from_ns, until_ns;

	from_tsc = read_pair(&from_ns);
	nanosleep(&pause, NULL);
	until_tsc = read_pair(&until_ns);
	printf("%lld\n", (long long)((until_tsc - from_tsc) * 1000000 / (until_ns - from_ns)));
	return 0;
}
