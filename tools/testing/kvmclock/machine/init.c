// SPDX-License-Identifier: GPL-2.0
/*
 * PID 1 of the host under test.
 *
 * Runs the tests of /plan one after the other and reports them as KTAP on a port
 * of its own, where no kernel message can get in between: the second serial one.
 * Success is the word at the end; whatever goes wrong on the way ends the machine
 * without it.
 *
 * The kernel hands unknown name=value arguments of its command line to init as
 * environment: patience=N multiplies the tests' time limits, no_guest_on=N keeps
 * every test, and so every guest, off CPU N, shell=1 asks for a console
 * instead of tests. drift=N and silicon_tsc=1 are for tests to find in their
 * environment.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/io.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define CLOCKSOURCE \
	"/sys/devices/system/clocksource/clocksource0/current_clocksource"
#define CLOCKSOURCE_SECONDS	30
#define HEARTBEAT_SECONDS	10
#define RUNNER_SECONDS		10
#define PORT			"/dev/ttyS1"
#define MAX_TESTS		128
#define EXIT_SKIP		4	/* kselftest's code */
#define TAINT_OUT_OF_SPEC	4	/* who writes a TSC by /dev/cpu does that */
#define DEBUG_EXIT_PORT		0xf4	/* where machine.sh puts QEMU's device */
#define SHUTDOWN_PORT		0x8900	/* of Bochs, for this word */
#define SHUTDOWN_WORD		"Shutdown"

#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define __noreturn		__attribute__((__noreturn__))
#define __printf(fmt, args)	__attribute__((__format__(printf, fmt, args)))

struct test {
	char name[64];
	char kind[16];
	unsigned int seconds;
	char command[256];
};

struct outcome {
	int status;
	bool timed_out;
	double seconds;
};

/* A test's output on its way to the port, line by line. */
struct reader {
	const char *name;
	int fd;
	bool nested;
	size_t used;
	char line[1024];
};

static struct test tests[MAX_TESTS];
static unsigned int nr_tests, nr_pass, nr_fail, nr_skip;
static FILE *port;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

/*
 * The runner ends the machine when the last word has arrived: a write to the
 * port returns before that. Without a runner, the emulator's port for this
 * purpose ends it; ACPI power-off was seen to hang after a resume.
 */
static __noreturn void end_machine(void)
{
	const char *c;

	sync();
	if (port)
		sleep(RUNNER_SECONDS);
	if (!ioperm(DEBUG_EXIT_PORT, 4, 1))
		outl(0, DEBUG_EXIT_PORT);
	for (c = SHUTDOWN_WORD; *c && !ioperm(SHUTDOWN_PORT, 1, 1); c++)
		outb(*c, SHUTDOWN_PORT);
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static __noreturn __printf(1, 2)
void give_up(const char *fmt, ...)
{
	FILE *to = port ? port : stdout;
	va_list ap;

	fputs("Bail out! ", to);
	va_start(ap, fmt);
	vfprintf(to, fmt, ap);
	va_end(ap);
	fputc('\n', to);
	fflush(to);
	end_machine();
}

static void mount_one(const char *type, const char *where)
{
	if (mkdir(where, 0755) && errno != EEXIST)
		give_up("mkdir %s: %m", where);
	if (mount(type, where, type, 0, NULL) && errno != EBUSY)
		give_up("mount %s on %s: %m", type, where);
}

static void mount_all(void)
{
	mount_one("devtmpfs", "/dev");
	mount_one("proc", "/proc");
	mount_one("sysfs", "/sys");
	mount_one("tmpfs", "/tmp");
	mount_one("tmpfs", "/dev/shm");
	mount_one("debugfs", "/sys/kernel/debug");
	mount_one("tracefs", "/sys/kernel/tracing");
}

static void raise_limits(void)
{
	struct rlimit files = { 65536, 65536 };
	struct rlimit core = { 0, 0 };

	if (setrlimit(RLIMIT_NOFILE, &files) || setrlimit(RLIMIT_CORE, &core))
		give_up("setrlimit: %m");
}

static void read_line(const char *path, char *line, size_t size)
{
	FILE *f = fopen(path, "r");

	if (!f || !fgets(line, size, f))
		give_up("read %s: %m", path);
	fclose(f);
	line[strcspn(line, "\n")] = 0;
}

/* Serial, since it comes back from a suspend: the virtio console of Linux 7.3 doesn't. */
static void open_port(void)
{
	struct termios raw;

	port = fopen(PORT, "w");
	if (!port || tcgetattr(fileno(port), &raw))
		give_up("open " PORT ": %m");
	cfmakeraw(&raw);
	cfsetspeed(&raw, B115200);
	if (tcsetattr(fileno(port), TCSANOW, &raw))
		give_up("set up " PORT ": %m");
	setvbuf(port, NULL, _IOLBF, 0);
}

/*
 * Early in a boot the clocksource is tsc-early, on which KVM runs no master
 * clock and the stock tests skip.
 */
static void wait_for_tsc(void)
{
	double deadline = now() + CLOCKSOURCE_SECONDS;
	char name[32];

	for (;;) {
		read_line(CLOCKSOURCE, name, sizeof(name));
		if (!strcmp(name, "tsc"))
			return;
		if (now() > deadline)
			give_up("clocksource still %s after %d s, not tsc",
				name, CLOCKSOURCE_SECONDS);
		usleep(50000);
	}
}

static void read_plan(void)
{
	FILE *f = fopen("/plan", "r");
	char line[512];

	if (!f)
		give_up("open /plan: %m");
	while (fgets(line, sizeof(line), f)) {
		struct test *t = &tests[nr_tests];

		if (line[0] == '#' || line[0] == '\n')
			continue;
		if (nr_tests == MAX_TESTS)
			give_up("/plan has more than %d tests", MAX_TESTS);
		if (sscanf(line, "%63s %15s %u %255[^\n]", t->name, t->kind,
			   &t->seconds, t->command) != 4)
			give_up("/plan, not four columns: %s", line);
		nr_tests++;
	}
	fclose(f);
	if (!nr_tests)
		give_up("/plan is empty");
}

/* Anew for each: when all of its CPUs go offline, even PID 1 is given all there are. */
static void keep_off_one_cpu(void)
{
	const char *cpu = getenv("no_guest_on");
	cpu_set_t cpus;

	if (!cpu)
		return;
	if (sched_getaffinity(0, sizeof(cpus), &cpus))
		give_up("sched_getaffinity: %m");
	CPU_CLR(atoi(cpu), &cpus);
	if (!CPU_COUNT(&cpus))
		give_up("a test has left no CPU online but %s, where no guest may run", cpu);
	if (sched_setaffinity(0, sizeof(cpus), &cpus))
		give_up("no_guest_on=%s: %m", cpu);
}

static pid_t start(const struct test *t, int *output)
{
	int fds[2];
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC))
		give_up("pipe: %m");
	fflush(NULL);
	pid = fork();
	if (pid < 0)
		give_up("fork: %m");
	if (!pid) {
		/* A session of its own, so that all of it can be ended. */
		setsid();
		keep_off_one_cpu();
		dup2(fds[1], STDOUT_FILENO);
		dup2(fds[1], STDERR_FILENO);
		execl("/bin/sh", "sh", "-c", t->command, NULL);
		perror("/bin/sh");
		_exit(127);
	}
	close(fds[1]);
	*output = fds[0];
	return pid;
}

/*
 * A test that speaks TAP becomes a nested KTAP test from its version line on,
 * all else a diagnostic.
 */
static void report_line(struct reader *r)
{
	static const char * const tap[] = { "ok ", "not ok ", "1..", "#", " " };
	size_t i;

	r->line[r->used] = 0;
	r->used = 0;
	if (!r->nested) {
		r->nested = !strncmp(r->line, "TAP version", 11) ||
			    !strncmp(r->line, "KTAP version", 12);
		if (r->nested)
			fputs("  KTAP version 1\n", port);
		else
			fprintf(port, "# %s: %s\n", r->name, r->line);
		return;
	}
	for (i = 0; i < ARRAY_SIZE(tap); i++) {
		if (!strncmp(r->line, tap[i], strlen(tap[i])))
			break;
	}
	fprintf(port, "  %s%s\n", i < ARRAY_SIZE(tap) ? "" : "# ", r->line);
}

/* Reports the lines that have come; false when there is nothing to read. */
static bool read_output(struct reader *r)
{
	char buf[4096];
	ssize_t n = read(r->fd, buf, sizeof(buf));
	ssize_t i;

	for (i = 0; i < n; i++) {
		if (buf[i] == '\n' || r->used == sizeof(r->line) - 1)
			report_line(r);
		if (buf[i] != '\n' && buf[i] != '\r')
			r->line[r->used++] = buf[i];
	}
	return n > 0;
}

static struct outcome watch(const struct test *t, pid_t pid, int output,
			    unsigned int limit)
{
	double begin = now(), beat = begin + HEARTBEAT_SECONDS;
	struct reader r = { .name = t->name, .fd = output };
	struct pollfd pfd = { .fd = output, .events = POLLIN };
	struct outcome out = { 0 };

	if (fcntl(output, F_SETFL, O_NONBLOCK))
		give_up("fcntl: %m");
	while (waitpid(pid, &out.status, WNOHANG) != pid) {
		if (now() - begin > limit) {
			out.timed_out = true;
			kill(-pid, SIGKILL);
			waitpid(pid, &out.status, 0);
			break;
		}
		if (now() > beat) {
			fprintf(port, "# %s: running for %.0f s\n", t->name,
				now() - begin);
			beat += HEARTBEAT_SECONDS;
		}
		poll(&pfd, 1, 50);
		read_output(&r);
	}
	out.seconds = now() - begin;

	/* Nothing that a test leaves behind may disturb the next one. */
	kill(-pid, SIGKILL);
	while (read_output(&r))
		;
	if (r.used)
		report_line(&r);
	close(output);
	while (waitpid(-1, NULL, WNOHANG) > 0)
		;
	return out;
}

static void report(unsigned int nr, const struct test *t,
		   const struct outcome *out)
{
	if (!out->timed_out && WIFEXITED(out->status)) {
		switch (WEXITSTATUS(out->status)) {
		case 0:
			nr_pass++;
			fprintf(port, "ok %u %s # %.1f s\n", nr, t->name,
				out->seconds);
			return;
		case EXIT_SKIP:
			nr_skip++;
			fprintf(port, "ok %u %s # SKIP %s\n", nr, t->name,
				strcmp(t->kind, "optional") ? "required" :
							      "optional");
			return;
		}
	}

	nr_fail++;
	if (out->timed_out)
		fprintf(port, "# %s: ended at its limit of %.0f s\n", t->name,
			out->seconds);
	else if (WIFSIGNALED(out->status))
		fprintf(port, "# %s: killed by signal %d\n", t->name,
			WTERMSIG(out->status));
	else
		fprintf(port, "# %s: exit code %d\n", t->name,
			WEXITSTATUS(out->status));
	fprintf(port, "not ok %u %s # %.1f s\n", nr, t->name, out->seconds);
}

/* Tells which test it was that the kernel complained about. */
static void report_taint(const struct test *t)
{
	static unsigned long last;
	unsigned long taint;
	char line[32];

	/* Before the first test: modules that are not the kernel's own are one. */
	read_line("/proc/sys/kernel/tainted", line, sizeof(line));
	taint = strtoul(line, NULL, 10) & ~TAINT_OUT_OF_SPEC;
	if (t && taint != last)
		fprintf(port, "# %s: kernel taint went from %lu to %lu\n",
			t->name, last, taint);
	last = taint;
}

static void run_tests(void)
{
	const char *patience = getenv("patience");
	unsigned int factor = patience ? strtoul(patience, NULL, 10) : 1;
	struct outcome out;
	unsigned int i;
	int output;
	pid_t pid;

	fprintf(port, "KTAP version 1\n1..%u\n", nr_tests);
	report_taint(NULL);
	for (i = 0; i < nr_tests; i++) {
		pid = start(&tests[i], &output);
		out = watch(&tests[i], pid, output, tests[i].seconds * factor);
		report_taint(&tests[i]);
		report(i + 1, &tests[i], &out);
	}
	fprintf(port, "# Totals: pass:%u fail:%u skip:%u\n",
		nr_pass, nr_fail, nr_skip);
}

static void run_shell(void)
{
	pid_t pid = fork();

	if (pid < 0)
		give_up("fork: %m");
	if (!pid) {
		setsid();
		keep_off_one_cpu();
		setenv("HOME", "/tests", 1);
		execl("/bin/cttyhack", "cttyhack", "sh", NULL);
		perror("/bin/cttyhack");
		_exit(127);
	}
	while (waitpid(-1, NULL, 0) != pid)
		;
}

int main(void)
{
	mount_all();
	raise_limits();
	if (chdir("/tests"))
		give_up("chdir /tests: %m");
	setenv("PATH", "/bin", 1);
	if (getenv("shell")) {
		wait_for_tsc();
		run_shell();
		end_machine();
	}
	open_port();
	wait_for_tsc();
	read_plan();
	run_tests();
	fputs("# complete\n", port);
	end_machine();
}
