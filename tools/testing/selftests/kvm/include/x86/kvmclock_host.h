/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kvmclock tests do to the host itself, as root: other clocksources,
 * CPUs that go, a parameter of KVM.  All of it is given back whatever ends the test.
 */
#ifndef SELFTEST_KVM_KVMCLOCK_HOST_H
#define SELFTEST_KVM_KVMCLOCK_HOST_H

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "kvm_test_harness.h"
#include "test_util.h"

#define CLOCKSOURCES	"/sys/devices/system/clocksource/clocksource0/"
#define CLOCKSOURCE	CLOCKSOURCES "current_clocksource"
#define CPU1_ONLINE	"/sys/devices/system/cpu/cpu1/online"
#define WAKEALARM	"/sys/class/rtc/rtc0/wakealarm"
#define TSC_TOLERANCE	"/sys/module/kvm/parameters/tsc_tolerance_ppm"
#define LOSE_TSC_CYCLES	"/sys/module/kvm/parameters/lose_tsc_cycles"
#define LATE_TSC_CYCLES	"/sys/module/kvm/parameters/late_tsc_cycles"

static inline int write_file(const char *path, const char *word)
{
	int fd = open(path, O_WRONLY);
	ssize_t len = strlen(word);
	int r;

	if (fd < 0)
		return -errno;
	r = write(fd, word, len) == len ? 0 : -errno;
	close(fd);
	return r;
}

static inline void write_file_ok(const char *path, const char *word)
{
	int r = write_file(path, word);

	TEST_ASSERT(!r, "'%s' to %s: %s", word, path, strerror(-r));
}

static inline void read_word(const char *path, char *word, size_t size)
{
	FILE *file = fopen(path, "r");

	TEST_ASSERT(file && fgets(word, size, file), "%s cannot be read", path);
	fclose(file);
	word[strcspn(word, "\n")] = 0;
}

static inline const char *other_clocksource(void)
{
	char available[128];

	read_word(CLOCKSOURCES "available_clocksource", available, sizeof(available));
	if (strstr(available, "hpet"))
		return "hpet";
	TEST_ASSERT(strstr(available, "acpi_pm"), "no clocksource beside the TSC in '%s'",
		    available);
	return "acpi_pm";
}

/* Of the machine as it was found. */
static char clocksource[32];
static char tsc_tolerance_ppm[16];

static inline void give_back(void)
{
	write_file(WAKEALARM, "0");
	write_file(CPU1_ONLINE, "1");
	write_file(CLOCKSOURCE, clocksource);
	write_file(TSC_TOLERANCE, tsc_tolerance_ppm);
	write_file(LOSE_TSC_CYCLES, "0");
	write_file(LATE_TSC_CYCLES, "0");
}

struct guard {
	pid_t pid;
	int hold;
};

/*
 * A process that outlives all others of the test, which keep the other end of
 * its pipe open: even a SIGKILL to their whole group leaves the host in order.
 */
static inline struct guard start_guard(void)
{
	struct guard guard;
	int fds[2], fd;
	char end;

	TEST_ASSERT(!geteuid(), "only root can do this to a host");
	read_word(CLOCKSOURCE, clocksource, sizeof(clocksource));
	read_word(TSC_TOLERANCE, tsc_tolerance_ppm, sizeof(tsc_tolerance_ppm));

	TEST_ASSERT(!pipe(fds), "pipe() failed");
	fflush(NULL);
	guard.pid = fork();
	TEST_ASSERT(guard.pid >= 0, "fork() failed");
	if (guard.pid) {
		close(fds[0]);
		guard.hold = fds[1];
		return guard;
	}

	setsid();
	close(fds[1]);
	for (fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		close(fd);
	while (read(fds[0], &end, 1) < 0 && errno == EINTR)
		;
	give_back();
	_exit(0);
}

/* All cases of a test, with a guard beside them. */
static inline int run_guarded(int argc, char *argv[])
{
	struct guard guard = start_guard();
	int r = test_harness_run(argc, argv);

	close(guard.hold);
	waitpid(guard.pid, NULL, 0);
	return r;
}

#endif /* SELFTEST_KVM_KVMCLOCK_HOST_H */
