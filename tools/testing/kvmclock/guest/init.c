// SPDX-License-Identifier: GPL-2.0
/*
 * PID 1 of the Linux guest that lives on the clock under test.
 *
 * It reads the time on all CPUs in turn while it makes KVM update its clock
 * again and again, in the way that has the stock kernel derive its master
 * clock anew, and it looks at the clock page itself: two versions of
 * it are compared at one TSC value, where a clock that has not moved gives the
 * same number twice.  With migration=1 on its command line it only reads, and answers
 * what its console asks: see answer().  With keep_by=tsc it does so with that
 * clocksource.  Its last line is "guest: PASS" or "guest: FAIL" with a
 * reason; nothing else counts as success.
 */
#define _GNU_SOURCE
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/timex.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "../sample.h"

#define NSEC_PER_SEC		1000000000ULL

#define MSR_SYSTEM_TIME_OLD	0x12
#define MSR_SYSTEM_TIME_NEW	0x4b564d01
#define SYSTEM_TIME_ENABLED	1

/* Time for two clocks that should be one to part: 50 ppb are 350 ns in 7 s. */
#define RUN_NS			(7 * NSEC_PER_SEC)

/* An even number, so that the guest ends with the MSR that it began with. */
#define UPDATES_PER_ROUND	4
#define ROUND_US		1000

/* How many there are is a matter of the machine; fewer would prove little. */
#define NR_UPDATES_MIN		200
#define NR_TURNS_MIN		200

#define MAX_CPUS		64

/* What vCPU and KVM agree on: the guest's clock as a function of its TSC. */
struct clock_page {
	uint32_t version;
	uint32_t pad0;
	uint64_t tsc_timestamp;
	uint64_t system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags;
	uint8_t pad[2];
};

#define CLOCK_STABLE		1

static_assert(sizeof(struct clock_page) == 32, "layout of the clock page");

static void finish(const char *verdict, const char *reason)
{
	static atomic_flag finished = ATOMIC_FLAG_INIT;

	/* Whoever comes second has nothing to add, and must not exit. */
	while (atomic_flag_test_and_set(&finished))
		pause();

	fflush(stdout);
	printf("guest: %s%s%s\n", verdict, *reason ? " " : "", reason);
	fflush(stdout);
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

#define FAIL(fmt, ...)							\
do {									\
	char reason[256];						\
									\
	snprintf(reason, sizeof(reason), fmt, ##__VA_ARGS__);		\
	finish("FAIL", reason);						\
} while (0)

#define FAIL_ERRNO(fmt, ...)						\
	FAIL(fmt ": %s", ##__VA_ARGS__, strerror(errno))

static void mount_at(const char *type, const char *path)
{
	if (mkdir(path, 0755) && errno != EEXIST)
		FAIL_ERRNO("mkdir %s", path);

	/* The kernel may have mounted /dev by itself. */
	if (mount(type, path, type, 0, NULL) && errno != EBUSY)
		FAIL_ERRNO("mount %s", path);
}

static void mount_filesystems(void)
{
	mount_at("devtmpfs", "/dev");
	mount_at("proc", "/proc");
	mount_at("sysfs", "/sys");
}

static void open_console(void)
{
	int fd = open("/dev/console", O_RDWR);

	if (fd < 0 || dup2(fd, STDIN_FILENO) < 0 || dup2(fd, STDOUT_FILENO) < 0 ||
	    dup2(fd, STDERR_FILENO) < 0)
		FAIL_ERRNO("/dev/console");
}

static void read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY);
	ssize_t length;

	if (fd < 0)
		FAIL_ERRNO("open %s", path);
	length = read(fd, text, size - 1);
	if (length < 0)
		FAIL_ERRNO("read %s", path);
	close(fd);
	text[length] = '\0';
	text[strcspn(text, "\n")] = '\0';
}

#define CLOCKSOURCE "/sys/devices/system/clocksource/clocksource0/current_clocksource"

static void require_kvm_clock(void)
{
	char name[64], cmdline[1024];

	read_file(CLOCKSOURCE, name, sizeof(name));
	if (strcmp(name, "kvm-clock"))
		FAIL("the clocksource is %s, not kvm-clock", name);
	read_file("/proc/cmdline", cmdline, sizeof(cmdline));
	printf("report: the guest's clocksource is kvm-clock, %s\n",
	       strstr(cmdline, "clocksource=") ? "as its command line asks" :
						 "by the kernel's own choice");
}

/*
 * The vDSO reads vCPU 0's page for all CPUs, so the kernel maps it to every
 * process: the second page of [vvar], in 7.3 the first of [vvar_vclock].  Only with
 * kvm-clock, else this is SIGBUS.
 */
static const struct clock_page *page;

static void find_clock_page(void)
{
	unsigned long start = 0;
	char line[256];
	FILE *maps = fopen("/proc/self/maps", "r");

	if (!maps)
		FAIL_ERRNO("/proc/self/maps");
	while (fgets(line, sizeof(line), maps)) {
		if (strstr(line, "[vvar]"))
			start = strtoul(line, NULL, 16) + sysconf(_SC_PAGESIZE);
		if (strstr(line, "[vvar_vclock]")) {
			start = strtoul(line, NULL, 16);
			break;
		}
	}
	fclose(maps);
	if (!start)
		FAIL("no [vvar] in /proc/self/maps");
	page = (const struct clock_page *)start;
}

/* One consistent copy: odd means that KVM is writing. */
static struct clock_page read_page(void)
{
	struct clock_page copy;
	uint32_t version;

	do {
		version = __atomic_load_n(&page->version, __ATOMIC_ACQUIRE);
		memcpy(&copy, page, sizeof(copy));
		/* The version is read again after everything else. */
		__atomic_thread_fence(__ATOMIC_ACQUIRE);
		_mm_lfence();
	} while ((version & 1) || version != __atomic_load_n(&page->version, __ATOMIC_RELAXED));
	return copy;
}

/* system_time + floor(floor(cycles * 2^shift) * mul / 2^32) */
static uint64_t clock_at(const struct clock_page *clock, uint64_t tsc)
{
	unsigned __int128 cycles = tsc - clock->tsc_timestamp;

	cycles = clock->tsc_shift < 0 ? cycles >> -clock->tsc_shift : cycles << clock->tsc_shift;
	return clock->system_time + (uint64_t)((cycles * clock->tsc_to_system_mul) >> 32);
}

static bool is_stable(const struct clock_page *clock)
{
	return clock->flags & CLOCK_STABLE;
}

static uint64_t ordered_rdtsc(void)
{
	uint64_t tsc;

	_mm_lfence();
	tsc = __rdtsc();
	_mm_lfence();
	return tsc;
}

/* The page stays mapped, once it is: after that the kernel may keep time otherwise. */
static void keep_time_by(const char *clocksource)
{
	int fd = open(CLOCKSOURCE, O_WRONLY);
	char name[64];

	read_page();
	if (fd < 0 || write(fd, clocksource, strlen(clocksource)) < 0)
		FAIL_ERRNO("%s", CLOCKSOURCE);
	close(fd);
	read_file(CLOCKSOURCE, name, sizeof(name));
	if (strcmp(name, clocksource))
		FAIL("the clocksource is %s, not %s", name, clocksource);
}

static void pin_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	if (sched_setaffinity(0, sizeof(set), &set))
		FAIL_ERRNO("CPU %d", cpu);
}

/* What is read in each turn: none may be less than in the turn before. */
enum { MONOTONIC, MONOTONIC_RAW, REALTIME, TSC, CLOCK_PAGE, NR_READINGS };

static const char * const reading_names[NR_READINGS] = {
	"CLOCK_MONOTONIC", "CLOCK_MONOTONIC_RAW", "CLOCK_REALTIME", "TSC", "kvmclock",
};

static uint64_t read_time(clockid_t id)
{
	struct timespec ts;

	if (clock_gettime(id, &ts))
		FAIL_ERRNO("clock_gettime(%d)", id);
	return ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
}

static struct {
	atomic_uint turn;
	atomic_bool stop;
	unsigned int nr_cpus;

	/* Belongs to the CPU whose turn it is. */
	uint64_t last[NR_READINGS];
	uint64_t gap[NR_READINGS];	/* of the turn with the longest one */
	int last_cpu;
	uint64_t count;
	uint64_t unstable;	/* turns in which the page was vCPU 0's alone */

	atomic_bool asked;
	uint64_t answer[NR_READINGS];	/* the gap, for who asked */
} relay;

static void take_turn(int cpu)
{
	struct clock_page clock;
	uint64_t now[NR_READINGS];
	int i;

	now[MONOTONIC] = read_time(CLOCK_MONOTONIC);
	now[MONOTONIC_RAW] = read_time(CLOCK_MONOTONIC_RAW);
	now[REALTIME] = read_time(CLOCK_REALTIME);
	now[TSC] = ordered_rdtsc();
	clock = read_page();
	now[CLOCK_PAGE] = clock_at(&clock, ordered_rdtsc());
	if (!is_stable(&clock)) {
		now[CLOCK_PAGE] = relay.last[CLOCK_PAGE];
		relay.unstable++;
	}

	/* Of a guest that was away the largest gap is the one that this has torn. */
	if (relay.count && now[MONOTONIC] - relay.last[MONOTONIC] > relay.gap[MONOTONIC]) {
		for (i = 0; i < NR_READINGS; i++)
			relay.gap[i] = now[i] - relay.last[i];
	}
	if (atomic_load(&relay.asked)) {
		memcpy(relay.answer, relay.gap, sizeof(relay.gap));
		memset(relay.gap, 0, sizeof(relay.gap));
		atomic_store(&relay.asked, false);
	}

	for (i = 0; i < NR_READINGS; i++) {
		if (now[i] < relay.last[i])
			FAIL("%s went backwards: %llu on CPU %d, then %llu on CPU %d",
			     reading_names[i], (unsigned long long)relay.last[i],
			     relay.last_cpu, (unsigned long long)now[i], cpu);
		relay.last[i] = now[i];
		relay.count++;
	}
	relay.last_cpu = cpu;
}

static void *reader(void *arg)
{
	unsigned int cpu = (uintptr_t)arg, turn;

	pin_to(cpu);
	while (!atomic_load(&relay.stop)) {
		turn = atomic_load_explicit(&relay.turn, memory_order_acquire);
		if (turn % relay.nr_cpus != cpu) {
			_mm_pause();
			continue;
		}
		take_turn(cpu);
		atomic_store_explicit(&relay.turn, turn + 1, memory_order_release);
	}
	return NULL;
}

static pthread_t readers[MAX_CPUS];

static void start_readers(void)
{
	unsigned int cpu;

	relay.nr_cpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (relay.nr_cpus < 2 || relay.nr_cpus > MAX_CPUS)
		FAIL("%u CPUs: at least 2 are needed, at most %d", relay.nr_cpus, MAX_CPUS);
	for (cpu = 0; cpu < relay.nr_cpus; cpu++) {
		errno = pthread_create(&readers[cpu], NULL, reader, (void *)(uintptr_t)cpu);
		if (errno)
			FAIL_ERRNO("pthread_create");
	}
}

static void stop_readers(void)
{
	unsigned int cpu;

	atomic_store(&relay.stop, true);
	for (cpu = 0; cpu < relay.nr_cpus; cpu++)
		pthread_join(readers[cpu], NULL);
	if (atomic_load(&relay.turn) < NR_TURNS_MIN)
		FAIL("only %u turns of the readers", atomic_load(&relay.turn));
	printf("report: %llu readings of the time on %u CPUs in turn, none went backwards\n",
	       (unsigned long long)relay.count, relay.nr_cpus);
}

/* The driver logs what it takes for accidents, into the middle of our lines. */
static void silence_msr_driver(void)
{
	int fd = open("/sys/module/msr/parameters/allow_writes", O_WRONLY);

	if (fd < 0 || write(fd, "on", 2) != 2)
		FAIL_ERRNO("allow_writes of the MSR driver");
	close(fd);
}

static int64_t step_between(const struct clock_page *before, const struct clock_page *after,
			    uint64_t tsc)
{
	return clock_at(after, tsc) - clock_at(before, tsc);
}

/* The clock by the TSC, from now on for weeks: how far the page moved it at most. */
static int64_t moved_between(const struct clock_page *before, const struct clock_page *after)
{
	uint64_t tsc = ordered_rdtsc();
	int64_t step, largest = 0;
	int bit;

	for (bit = 0; bit < 52; bit++) {
		step = step_between(before, after, tsc + (1ULL << bit));
		if (llabs(step) > llabs(largest))
			largest = step;
	}
	return largest;
}

/* What the readers saw since they were last asked; one of them hands it over. */
static void take_gap(uint64_t *gap)
{
	atomic_store(&relay.asked, true);
	while (atomic_load(&relay.asked))
		usleep(ROUND_US);
	memcpy(gap, relay.answer, sizeof(relay.answer));
}

/* The beginning of an answer: the TSC, within how many cycles, CLOCK_REALTIME in ns. */
static void answer_sample(const char *name)
{
	struct sample sample;

	if (take_sample(CLOCK_REALTIME, &sample))
		FAIL_ERRNO("clock_gettime(CLOCK_REALTIME)");
	printf("answer %s: %llu %llu %lld", name, (unsigned long long)sample.tsc,
	       (unsigned long long)sample.cycles, (long long)sample.ns);
}

static void read_console(char *line, size_t size)
{
	if (!fgets(line, size, stdin))
		FAIL_ERRNO("console");
	line[strcspn(line, "\n")] = '\0';
}

/*
 * A kernel that boots has its CLOCK_REALTIME from the RTC, to the second.  Until the
 * console says "set NS", by how much that is to be set forward, or back, it may ask
 * "look NAME".
 */
static void set_realtime(void)
{
	struct timex change = { .modes = ADJ_SETOFFSET | ADJ_NANO };
	long long ns;
	char line[64];

	printf("guest: ready\n");
	fflush(stdout);
	for (;;) {
		read_console(line, sizeof(line));
		if (sscanf(line, "set %lld", &ns) == 1)
			break;
		if (strncmp(line, "look ", 5))
			continue;
		answer_sample(line + 5);
		printf(" 0 0 0 0 0 0 0 done\n");
		fflush(stdout);
	}

	change.time.tv_sec = ns / (long long)NSEC_PER_SEC;
	change.time.tv_usec = ns % (long long)NSEC_PER_SEC;
	if (change.time.tv_usec < 0) {
		change.time.tv_sec--;
		change.time.tv_usec += NSEC_PER_SEC;
	}
	if (clock_adjtime(CLOCK_REALTIME, &change) < 0)
		FAIL_ERRNO("clock_adjtime");
}

/*
 * Answers "look NAME" on the console by one line, "answer NAME:" and, separated by
 * blanks: the TSC, within how many cycles, CLOCK_REALTIME in ns; by how many ns the
 * clock moved by the TSC since the last look; the longest gap since then, in us
 * of CLOCK_MONOTONIC, CLOCK_MONOTONIC_RAW, CLOCK_REALTIME, the TSC and kvmclock; how
 * many turns of the readers found no stable bit; "done".  "end" is the last question.
 */
static void answer(void)
{
	struct clock_page before = read_page(), now, cycles = { 0 };
	uint64_t gap[NR_READINGS];
	char line[64];
	int i;

	printf("guest: reading\n");
	fflush(stdout);
	for (;;) {
		read_console(line, sizeof(line));
		if (!strcmp(line, "end"))
			return;
		if (strncmp(line, "look ", 5))
			continue;

		answer_sample(line + 5);
		now = read_page();
		take_gap(gap);
		cycles.tsc_to_system_mul = now.tsc_to_system_mul;
		cycles.tsc_shift = now.tsc_shift;
		gap[TSC] = clock_at(&cycles, gap[TSC]);
		printf(" %lld", (long long)moved_between(&before, &now));
		for (i = 0; i < NR_READINGS; i++)
			printf(" %llu", (unsigned long long)gap[i] / 1000);
		printf(" %llu done\n", (unsigned long long)relay.unstable);
		fflush(stdout);
		before = now;
	}
}

/*
 * KVM re-derives its master clock when vCPU 0 writes the system-time MSR by
 * the other of its two numbers, or at least it always did.
 */
static void force_updates(void)
{
	static const off_t msrs[] = { MSR_SYSTEM_TIME_OLD, MSR_SYSTEM_TIME_NEW };
	struct clock_page first, before, after;
	int64_t step, largest = 0, total = 0;
	unsigned int updates = 0, unstable = 0;
	uint64_t value, began, elapsed, now;
	int fd;

	pin_to(0);
	fd = open("/dev/cpu/0/msr", O_RDWR);
	if (fd < 0)
		FAIL_ERRNO("/dev/cpu/0/msr");
	if (pread(fd, &value, sizeof(value), MSR_SYSTEM_TIME_NEW) != sizeof(value))
		FAIL_ERRNO("RDMSR 0x%x", MSR_SYSTEM_TIME_NEW);
	if (!(value & SYSTEM_TIME_ENABLED))
		FAIL("MSR 0x%x is 0x%llx: disabled", MSR_SYSTEM_TIME_NEW,
		     (unsigned long long)value);

	first = read_page();
	unstable += !is_stable(&first);
	began = read_time(CLOCK_MONOTONIC);

	do {
		if (updates % UPDATES_PER_ROUND == 0)
			usleep(ROUND_US);
		before = read_page();
		if (pwrite(fd, &value, sizeof(value), msrs[updates & 1]) != sizeof(value))
			FAIL_ERRNO("WRMSR 0x%lx", msrs[updates & 1]);
		after = read_page();
		if (after.version == before.version)
			FAIL("no new page after update %u, version %u", updates, after.version);
		unstable += !is_stable(&after);

		/* Not before any reference: a guest never looks there. */
		now = ordered_rdtsc();
		step = step_between(&before, &after, now);
		if (llabs(step) > llabs(largest))
			largest = step;
		step = step_between(&first, &after, now);
		if (llabs(step) > llabs(total))
			total = step;
		updates++;
		elapsed = read_time(CLOCK_MONOTONIC) - began;
	} while (elapsed < RUN_NS || updates % UPDATES_PER_ROUND);
	close(fd);

	printf("report: the stable bit is %s, the clock page was updated %u times since boot\n",
	       unstable ? "missing at times" : "always set", after.version / 2);
	printf("report: %u updates forced within %.1f s, each of the stock kernel's master clock\n", updates,
	       (double)elapsed / NSEC_PER_SEC);
	printf("report: largest step of the clock at one TSC value: %lld ns\n",
	       (long long)largest);
	printf("report: largest distance from where it was at first: %lld ns\n",
	       (long long)total);
	if (largest || total)
		FAIL("the clock moved by %lld ns at one TSC value",
		     (long long)(llabs(largest) > llabs(total) ? largest : total));
	if (unstable)
		FAIL("%u of %u updates left no stable bit", unstable, updates);
	if (updates < NR_UPDATES_MIN)
		FAIL("only %u updates", updates);
}

int main(void)
{
	mount_filesystems();
	open_console();
	require_kvm_clock();
	find_clock_page();
	if (getenv("keep_by"))
		keep_time_by(getenv("keep_by"));
	if (getenv("migration"))
		set_realtime();
	start_readers();
	if (getenv("migration")) {
		answer();
		stop_readers();
		finish("PASS", "");
	}

	silence_msr_driver();
	force_updates();
	stop_readers();
	if (relay.unstable)
		FAIL("%llu turns without the stable bit", (unsigned long long)relay.unstable);
	finish("PASS", "");
}
