// SPDX-License-Identifier: GPL-2.0
/*
 * Prints the host's TSC, how many cycles later it may have been, and its
 * CLOCK_REALTIME then, in ns: for linux-migration.sh.
 */
#include <stdio.h>
#include <stdlib.h>

#include "../sample.h"

int main(void)
{
	struct sample now;

	if (take_sample(CLOCK_REALTIME, &now)) {
		perror("now: CLOCK_REALTIME");
		return EXIT_FAILURE;
	}
	printf("%llu %llu %lld\n", (unsigned long long)now.tsc,
	       (unsigned long long)now.cycles, (long long)now.ns);
	return EXIT_SUCCESS;
}
