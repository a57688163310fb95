// SPDX-License-Identifier: GPL-2.0-only
/*
 * What happens to the host must not happen to the clock: another clocksource
 * and back, a CPU offline and online, suspends, a CPU whose TSC is another.
 * vCPUs read their clocks all the while, others are not loaded, or have never run.
 *
 * Has to be root, and changes the machine: the CPU and the clocksource are
 * given back whatever ends the test.  But the last cases write the TSC of a CPU,
 * where that can be done, and the host does not trust it from then on.
 *
 * With "silicon_tsc" in its environment this is a machine whose TSC restarts in a
 * suspend, and whose host compares the TSC of a CPU that comes with the others'.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/stringify.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "kvmclock_host.h"
#include "processor.h"
#include "test_util.h"

#define WAKEUP_COUNT	"/sys/power/wakeup_count"
#define POWER_STATE	"/sys/power/state"
#define CPU1_MSRS	"/dev/cpu/1/msr"

#define NR_SWITCHES	5
#define NR_HOTPLUGS	5

/* For once, the vCPUs' lines and the other clocksource may get apart. */
#define DRIFT_US	2000000

/* A clock that was set to a second before a value is beyond it. */
#define BEYOND_US	1500000

#define NR_SUSPENDS	2

/* What the TSC loses in one more, under KVM_PROVE_CLOCK. */
#define LOST_CYCLES	123456789012

/* What each watching vCPU reads before a state counts as seen by all. */
#define NR_READINGS	200

/* How far the TSC of a CPU is moved. */
#define APART_NS	NSEC_PER_SEC

/*
 * As near to KVM_GET_CLOCK as a vCPU without a master clock has to get: a fraction of
 * what any mistake about a TSC makes.  How near it gets is a matter of
 * kvmclock_drift_test; of a host that is interrupted as it draws a line, not very.
 */
#define NEAR_NS		(APART_NS / 4)
#define NR_NEAR		5

/* What a guest counts between two readings: see kvmclock_drift_test. */
#define NR_IDLE		20000

/* For a failure with a reason instead of the harness's; nothing needs long. */
#define PATIENCE_S	60
#define CASE_S		200

enum {
	WATCHER_0,		/* read their clocks all the time */
	WATCHER_1,
	UNLOADED,		/* has run, and waits outside of the guest */
	UNBORN,			/* has a page, and has never run */
	NR_VCPUS,
	LATE = NR_VCPUS,	/* not even created at first */
	MAX_VCPUS
};

#define NR_WATCHERS	UNLOADED

/* In the guest's memory, for all vCPUs. */
static struct watch {
	bool stop;
	bool come_out;			/* leave the guest after each reading */
	bool apart;			/* TSCs differ, and nobody can know */
	unsigned int idle;		/* what to count between two readings */
	uint64_t last;			/* highest clock read by any vCPU */
	uint64_t now[NR_WATCHERS];	/* the last reading of each */
	uint64_t tsc[NR_WATCHERS];
	uint64_t readings[NR_WATCHERS];
	uint32_t stops[NR_WATCHERS];	/* times that PVCLOCK_GUEST_STOPPED was found */
	uint32_t stable[NR_WATCHERS];	/* the stable bit of the last reading */
} watch;

/*
 * Neither the TSC nor the clock goes back on this vCPU; with the stable bit the
 * clock is not behind what any vCPU had read before, stable or not.
 */
static void guest_watch(struct kvmclock_mail *mail)
{
	struct pvclock_vcpu_time_info *page = mail->page_gva;
	uint64_t tsc, now, last, own_tsc = 0, own = 0;
	uint32_t id = mail->value;
	unsigned int i;
	uint8_t flags;
	bool apart;

	while (!READ_ONCE(watch.stop)) {
		for (i = 0; i < READ_ONCE(watch.idle); i++)
			barrier();

		apart = READ_ONCE(watch.apart);
		last = READ_ONCE(watch.last);
		/* What is read next is read after what it is compared with. */
		mb();
		now = kvmclock_guest_read(page, &tsc, &flags);

		__GUEST_ASSERT(tsc >= own_tsc, "vCPU %u: TSC %lu after %lu", id, tsc, own_tsc);
		__GUEST_ASSERT(now >= own, "vCPU %u: %lu after %lu", id, now, own);
		if (flags & PVCLOCK_TSC_STABLE_BIT && !apart)
			__GUEST_ASSERT(now >= last, "vCPU %u: %lu after another's %lu", id, now,
				       last);
		own_tsc = tsc;
		own = now;
		if (!apart)
			kvmclock_raise(&watch.last, now);
		WRITE_ONCE(watch.now[id], now);
		WRITE_ONCE(watch.tsc[id], tsc);

		if (flags & PVCLOCK_GUEST_STOPPED) {
			page->flags &= ~PVCLOCK_GUEST_STOPPED;
			watch.stops[id]++;
		}
		WRITE_ONCE(watch.stable[id], flags & PVCLOCK_TSC_STABLE_BIT);
		WRITE_ONCE(watch.readings[id], watch.readings[id] + 1);
		if (READ_ONCE(watch.come_out))
			GUEST_SYNC(0);
	}
	GUEST_DONE();
}

struct event {
	cpu_set_t cpus;		/* that the test may use */
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[MAX_VCPUS];
	struct pvclock_vcpu_time_info first[MAX_VCPUS];
	pthread_t thread[NR_WATCHERS];
	struct watch *watch;
	uint64_t last;		/* highest KVM_GET_CLOCK */
};

FIXTURE(kvmclock_event) {
	struct event event;
};

static void set_affinity(pthread_t thread, const cpu_set_t *cpus)
{
	TEST_ASSERT(!pthread_setaffinity_np(thread, sizeof(*cpus), cpus), "affinity");
}

/* To CPU 1, which is the one that goes, or to another that the test may use. */
static void move_thread(struct event *ev, unsigned int i, bool to_cpu1)
{
	cpu_set_t cpus;

	if (to_cpu1) {
		CPU_ZERO(&cpus);
		CPU_SET(1, &cpus);
	} else {
		cpus = ev->cpus;
		CPU_CLR(1, &cpus);
	}
	set_affinity(ev->thread[i], &cpus);
}

static void raise_last(struct event *ev, const struct kvm_clock_data *data)
{
	TEST_ASSERT(data->clock >= ev->last, "KVM_GET_CLOCK: %llu after %lu", data->clock,
		    ev->last);
	ev->last = data->clock;
}

static struct kvm_clock_data get_clock(struct event *ev)
{
	struct kvm_clock_data data = kvmclock_get(ev->vm);

	raise_last(ev, &data);
	return data;
}

#define wait_until(ev, condition)						\
do {										\
	time_t begin = time(NULL);						\
										\
	while (!(condition)) {							\
		get_clock(ev);						\
		TEST_ASSERT(time(NULL) < begin + PATIENCE_S, "never: %s", #condition); \
		usleep(1000);							\
	}									\
} while (0)

/* Each watching vCPU has read its clock after this was called. */
static void wait_for_readings(struct event *ev)
{
	uint64_t from;
	unsigned int i;

	for (i = 0; i < NR_WATCHERS; i++) {
		from = READ_ONCE(ev->watch->readings[i]);
		wait_until(ev, READ_ONCE(ev->watch->readings[i]) >= from + NR_READINGS);
	}
}

static void set_up(struct event *ev, unsigned int idle)
{
	unsigned int i;

	watch.idle = idle;
	ev->last = 0;
	TEST_ASSERT(!sched_getaffinity(0, sizeof(ev->cpus), &ev->cpus), "sched_getaffinity()");
	ev->vm = vm_create(MAX_VCPUS);
	for (i = 0; i < NR_VCPUS; i++) {
		kvmclock_vcpu_add_running(ev->vm, &ev->vcpu[i], i,
					  i < NR_WATCHERS ? guest_watch : kvmclock_guest);
		ev->vcpu[i].mail->value = i;
		vcpu_set_msr(ev->vcpu[i].vcpu, MSR_KVM_SYSTEM_TIME_NEW,
			     ev->vcpu[i].page_gpa | KVM_MSR_ENABLED);
	}
	sync_global_to_guest(ev->vm, watch);
	ev->watch = addr_gva2hva(ev->vm, (gva_t)&watch);

	kvmclock_enter(&ev->vcpu[UNLOADED]);
	for (i = 0; i < NR_WATCHERS; i++) {
		TEST_ASSERT(!pthread_create(&ev->thread[i], NULL, kvmclock_run_until_done,
					    &ev->vcpu[i]), "pthread_create() failed");
		move_thread(ev, i, i == 1);
	}
	wait_for_readings(ev);
	for (i = 0; i < UNBORN; i++)
		ev->first[i] = kvmclock_read_page(ev->vcpu[i].page);
}

static void tear_down(struct event *ev)
{
	unsigned int i;

	WRITE_ONCE(ev->watch->stop, true);
	for (i = 0; i < NR_WATCHERS; i++)
		pthread_join(ev->thread[i], NULL);
	kvm_vm_free(ev->vm);
}

FIXTURE_SETUP(kvmclock_event)
{
	give_back();
	kvmclock_require_host();
	set_up(&self->event, 0);
}

FIXTURE_TEARDOWN(kvmclock_event)
{
	tear_down(&self->event);
}

/* An ioctl of a vCPU waits for its KVM_RUN, and the watchers' has no end. */
static uint64_t tsc_offset(struct event *ev, struct kvmclock_vcpu *kv)
{
	uint64_t offset;

	WRITE_ONCE(ev->watch->come_out, true);
	offset = kvmclock_tsc_offset(kv);
	WRITE_ONCE(ev->watch->come_out, false);
	return offset;
}

static void assert_stable(struct kvmclock_vcpu *kv, bool stable)
{
	struct pvclock_vcpu_time_info page = kvmclock_read_page(kv->page);

	TEST_ASSERT(!stable || page.tsc_to_system_mul, "vCPU %u: no page", kv->vcpu->id);
	TEST_ASSERT(!!(page.flags & PVCLOCK_TSC_STABLE_BIT) == stable,
		    "vCPU %u: flags 0x%x, %sstable expected", kv->vcpu->id, page.flags,
		    stable ? "" : "un");
}

static void assert_unmoved(struct event *ev, struct kvmclock_vcpu *kv,
			   const struct pvclock_vcpu_time_info *before, const char *by)
{
	struct pvclock_vcpu_time_info after = kvmclock_read_page(kv->page);
	int64_t moved = kvmclock_movement(before, &after, rdtsc() + tsc_offset(ev, kv));

	TEST_ASSERT(!moved, "vCPU %u: clock moved by %+ld ns by %s", kv->vcpu->id, moved, by);
}

/* Under a master clock: the page says what KVM_GET_CLOCK says, at one TSC. */
static void assert_clock_is_page(struct event *ev, struct kvmclock_vcpu *kv)
{
	struct pvclock_vcpu_time_info page = kvmclock_read_page(kv->page);
	struct kvm_clock_data data = get_clock(ev);
	uint64_t expected = oracle_at(&page, data.host_tsc + tsc_offset(ev, kv));

	TEST_ASSERT(data.flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", data.flags);
	TEST_ASSERT(data.clock == expected,
		    "KVM_GET_CLOCK %llu, the page of vCPU %u says %lu, %+ld ns", data.clock,
		    kv->vcpu->id, expected, (int64_t)(data.clock - expected));
}

static void assert_same_tsc(struct event *ev, unsigned int nr)
{
	uint64_t offset, first = tsc_offset(ev, &ev->vcpu[0]);
	unsigned int i;

	for (i = 1; i < nr; i++) {
		offset = tsc_offset(ev, &ev->vcpu[i]);
		TEST_ASSERT(offset == first, "TSC of vCPU %u is %+ld cycles from that of vCPU 0",
			    i, (int64_t)(offset - first));
	}
}

/*
 * What goes on where the TSC does not: CLOCK_MONOTONIC_RAW plus the time slept.
 * The latter is a difference of two readings: the order of both says to which
 * side it is wrong.
 */
static int64_t base_ns(bool high)
{
	int64_t boot, monotonic;

	if (high)
		monotonic = clock_ns(CLOCK_MONOTONIC);
	boot = clock_ns(CLOCK_BOOTTIME);
	if (!high)
		monotonic = clock_ns(CLOCK_MONOTONIC);
	return clock_ns(CLOCK_MONOTONIC_RAW) + boot - monotonic;
}

/* A KVM_GET_CLOCK, and the limits that its instant has by order of reading. */
struct instant {
	struct kvm_clock_data data;
	int64_t base_before, base_after;
	uint64_t tsc_before, tsc_after;
	int64_t slept;			/* to within some time, by the host */
};

static struct instant take_instant_of(struct kvm_vm *vm)
{
	struct instant t;

	t.slept = clock_ns(CLOCK_BOOTTIME) - clock_ns(CLOCK_MONOTONIC);
	t.base_before = base_ns(false);
	t.tsc_before = rdtsc();
	t.data = kvmclock_get(vm);
	t.tsc_after = rdtsc();
	t.base_after = base_ns(true);
	return t;
}

static struct instant take_instant(struct event *ev)
{
	struct instant t = take_instant_of(ev->vm);

	raise_last(ev, &t.data);
	return t;
}

/* From @a to @b the clock has gone by this, and what slopes are rounded by. */
static void assert_passed(const struct instant *a, const struct instant *b, int64_t least,
			  int64_t most)
{
	int64_t passed = b->data.clock - a->data.clock;

	least -= (least >> 22) + 4;
	most += (most >> 22) + 4;
	TEST_ASSERT(passed >= least && passed <= most,
		    "the clock went %ld ns in %ld to %ld ns", passed, least, most);
}

/* It has gone by base time, whatever the TSC did. */
static void assert_base_passed(const struct instant *a, const struct instant *b)
{
	assert_passed(a, b, b->base_before - a->base_after, b->base_after - a->base_before);
}

/*
 * From @a to @b the clock has gone by what either time base says has passed:
 * the line over the TSC or CLOCK_MONOTONIC_RAW, whose rates differ where RAW is
 * another clocksource's.  Where it is the TSC's they do by 2^-23, as a kernel's
 * multiplier for ten minutes has 23 significant bits or more, and the line's is
 * finer; 4 ns are two differences of two rounded readings.  The clock may be
 * @ahead of that by a switch from the one to the other.
 */
static void assert_continues(const struct instant *a, const struct instant *b,
			     const struct pvclock_vcpu_time_info *page, int64_t ahead)
{
	int64_t least = b->base_before - a->base_after, most = b->base_after - a->base_before;

	least = min_t(int64_t, least, oracle_scale(page, b->tsc_before - a->tsc_after));
	most = max_t(int64_t, most, oracle_scale(page, b->tsc_after - a->tsc_before));
	assert_passed(a, b, least, most + ahead);
}

static bool says_stable(struct kvm_vm *vm)
{
	return kvmclock_get(vm).flags & KVM_CLOCK_TSC_STABLE;
}

/*
 * Waits until the clock is no longer a line.  It left it by two readings, of
 * base time and then of the TSC, and is ahead by what passed between the two:
 * returned is what passed from the last reading of the line, @a or a later one,
 * to the first of what came after it, by whatever says more.
 */
static int64_t wait_off_line(struct event *ev, const struct instant *a,
			     const struct pvclock_vcpu_time_info *page)
{
	struct instant before = *a, now = *a;
	time_t begin = time(NULL);

	while (now.data.flags & KVM_CLOCK_TSC_STABLE) {
		TEST_ASSERT(time(NULL) < begin + PATIENCE_S, "still the TSC's line");
		before = now;
		now = take_instant(ev);
	}

	return max_t(int64_t, now.base_after - before.base_before,
		     oracle_scale(page, now.tsc_after - before.tsc_before));
}

static bool has_master_clock(struct event *ev)
{
	return get_clock(ev).flags & KVM_CLOCK_TSC_STABLE;
}

/* Away from the TSC and back, as often as an unhappy watchdog may do it. */
TEST_F_TIMEOUT(kvmclock_event, clocksource, CASE_S)
{
	struct event *ev = &self->event;
	const char *other = other_clocksource();
	struct instant a, b, c;
	unsigned int i, round;
	int64_t ahead;

	for (round = 0; round < NR_SWITCHES; round++) {
		struct pvclock_vcpu_time_info page = kvmclock_read_page(ev->vcpu[0].page);

		a = take_instant(ev);
		write_file_ok(CLOCKSOURCE, other);
		ahead = wait_off_line(ev, &a, &page);
		wait_for_readings(ev);
		for (i = 0; i < NR_VCPUS; i++)
			assert_stable(&ev->vcpu[i], false);
		TEST_ASSERT(!ev->watch->stable[0] && !ev->watch->stable[1],
			    "a guest sees the stable bit");
		b = take_instant(ev);
		TEST_ASSERT(!(b.data.flags & (KVM_CLOCK_TSC_STABLE | KVM_CLOCK_HOST_TSC)),
			    "round %u, on %s: flags 0x%x", round, other, b.data.flags);
		assert_continues(&a, &b, &page, ahead);

		/* Each vCPU has a line of its own, and a new one on another CPU. */
		kvmclock_enter(&ev->vcpu[UNLOADED]);
		move_thread(ev, round & 1, !(round & 1));
		wait_for_readings(ev);
		move_thread(ev, round & 1, round & 1);
		wait_for_readings(ev);
		if (!round)
			usleep(DRIFT_US);

		write_file_ok(CLOCKSOURCE, clocksource);
		wait_until(ev, has_master_clock(ev));
		wait_for_readings(ev);
		c = take_instant(ev);
		assert_continues(&a, &c, &page, ahead);
		/* A page without the stable bit misleads nobody: its vCPU writes it. */
		for (i = 0; i < NR_VCPUS; i++) {
			if (i >= NR_WATCHERS)
				assert_stable(&ev->vcpu[i], false);
			if (i == UNLOADED)
				kvmclock_enter(&ev->vcpu[i]);
			if (i == UNBORN)
				continue;
			assert_stable(&ev->vcpu[i], true);
			assert_clock_is_page(ev, &ev->vcpu[i]);
		}
		TEST_ASSERT(ev->watch->stable[0] && ev->watch->stable[1],
			    "a guest does not see the stable bit");
		assert_same_tsc(ev, NR_VCPUS);
		TEST_ASSERT(c.data.flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", c.data.flags);
	}

	/* From now on it is a line like any other. */
	ev->first[0] = kvmclock_read_page(ev->vcpu[0].page);
	kvmclock_enter(&ev->vcpu[UNBORN]);
	kvmclock_vcpu_add(ev->vm, &ev->vcpu[LATE], LATE);
	kvmclock_enable(&ev->vcpu[LATE], MSR_KVM_SYSTEM_TIME_NEW);
	assert_stable(&ev->vcpu[LATE], true);
	assert_same_tsc(ev, MAX_VCPUS);
	assert_clock_is_page(ev, &ev->vcpu[UNBORN]);
	assert_clock_is_page(ev, &ev->vcpu[LATE]);
	assert_unmoved(ev, &ev->vcpu[0], &ev->first[0], "vCPUs that came after the switch");
}

/* Nor does a VM depend on vCPUs that run, or on having any. */
TEST_F_TIMEOUT(kvmclock_event, clocksource_of_paused_vms, CASE_S)
{
	struct event *ev = &self->event;
	struct kvmclock_vcpu kv;
	struct kvm_vm *vm[2] = { vm_create_barebones(), vm_create(1) };
	struct kvm_clock_data data, last[2];
	unsigned int i, round;
	bool back;

	kvmclock_vcpu_add(vm[1], &kv, 0);
	kvmclock_enable(&kv, MSR_KVM_SYSTEM_TIME_NEW);

	for (round = 0; round < 2 * NR_SWITCHES; round++) {
		for (i = 0; i < ARRAY_SIZE(vm); i++)
			last[i] = kvmclock_get(vm[i]);
		back = round & 1;
		write_file_ok(CLOCKSOURCE, back ? clocksource : other_clocksource());
		for (i = 0; i < ARRAY_SIZE(vm); i++) {
			wait_until(ev, says_stable(vm[i]) == back);
			data = kvmclock_get(vm[i]);
			TEST_ASSERT(data.clock >= last[i].clock, "%llu after %llu", data.clock,
				    last[i].clock);
		}
	}

	kvmclock_enter(&kv);
	assert_stable(&kv, true);
	for (i = 0; i < ARRAY_SIZE(vm); i++)
		kvm_vm_free(vm[i]);
}

/*
 * A clock is a number modulo 2^64, as its guest has it.  So also near the values
 * where it changes its sign, or wraps, does it go on from a switch to the next,
 * and not from where a vCPU had read it last that has been idle since.
 */
TEST_F_TIMEOUT(kvmclock_event, clocksource_near_the_wrap, CASE_S)
{
	const uint64_t second = NSEC_PER_SEC, clocks[] = {
		(1ULL << 63) - second,
		(1ULL << 63) - 1,
		(1ULL << 63) + second,
		-second,
		-1ULL,
	};
	struct event *ev = &self->event;
	struct kvm_vm *vm = vm_create(1);
	struct kvm_clock_data data, last;
	struct kvmclock_vcpu idle;
	unsigned int i, round;
	bool back;

	kvmclock_vcpu_add(vm, &idle, 0);
	kvmclock_enable(&idle, MSR_KVM_SYSTEM_TIME_NEW);

	for (i = 0; i < ARRAY_SIZE(clocks); i++) {
		kvmclock_set(vm, clocks[i]);
		last = kvmclock_get(vm);
		TEST_ASSERT(last.clock - clocks[i] < 1ULL << 62, "%llu after it was set to %lu",
			    last.clock, clocks[i]);
		usleep(BEYOND_US);

		for (round = 0; round < 2; round++) {
			back = round & 1;
			data = kvmclock_get(vm);
			TEST_ASSERT((int64_t)(data.clock - last.clock) >= 0,
				    "set to %lu, round %u: %llu after %llu", clocks[i], round,
				    data.clock, last.clock);
			last = data;

			write_file_ok(CLOCKSOURCE, back ? clocksource : other_clocksource());
			wait_until(ev, says_stable(vm) == back);
			data = kvmclock_get(vm);
			TEST_ASSERT((int64_t)(data.clock - last.clock) >= 0,
				    "set to %lu, %s: %llu after %llu, %+ld ns", clocks[i],
				    back ? "on the TSC again" : "off the TSC", data.clock,
				    last.clock, (int64_t)(data.clock - last.clock));
			last = data;
		}
	}

	kvmclock_enter(&idle);
	assert_stable(&idle, true);
	kvm_vm_free(vm);
}

/* vCPUs are driven off a CPU that goes, and moved back to it when it is there. */
TEST_F_TIMEOUT(kvmclock_event, cpu_hotplug, CASE_S)
{
	struct event *ev = &self->event;
	unsigned int i, round;

	for (round = 0; round < NR_HOTPLUGS; round++) {
		for (i = 0; i < NR_WATCHERS; i++)
			set_affinity(ev->thread[i], &ev->cpus);
		write_file_ok(CPU1_ONLINE, "0");
		wait_for_readings(ev);
		for (i = 0; i < UNBORN; i++) {
			assert_unmoved(ev, &ev->vcpu[i], &ev->first[i], "a CPU that went");
			assert_stable(&ev->vcpu[i], true);
		}

		write_file_ok(CPU1_ONLINE, "1");
		move_thread(ev, round & 1, true);
		move_thread(ev, !(round & 1), false);
		wait_for_readings(ev);
		for (i = 0; i < UNBORN; i++) {
			assert_unmoved(ev, &ev->vcpu[i], &ev->first[i], "a CPU that came");
			assert_stable(&ev->vcpu[i], true);
			assert_clock_is_page(ev, &ev->vcpu[i]);
		}
		assert_same_tsc(ev, NR_VCPUS);
	}

	kvmclock_enter(&ev->vcpu[UNBORN]);
	assert_unmoved(ev, &ev->vcpu[UNBORN], &ev->first[0], "its first run");
}

/*
 * Sleeps until the alarm.  One that is over before the machine sleeps would
 * leave it asleep for ever: as the count of wakeups is that from before the
 * alarm was set, the kernel refuses to, and it needs another, later one.
 * Returns how many times the guests were told.
 */
static unsigned int suspend_host(void)
{
	unsigned int seconds, attempts = 0;
	char count[32], alarm[32];
	int r = -EBUSY;

	for (seconds = 3; r == -EBUSY && seconds <= 48; seconds *= 2) {
		read_word(WAKEUP_COUNT, count, sizeof(count));
		write_file_ok(WAKEALARM, "0");
		snprintf(alarm, sizeof(alarm), "+%u", seconds);
		write_file_ok(WAKEALARM, alarm);
		r = write_file(WAKEUP_COUNT, count);
		if (r == -EINVAL) {
			r = -EBUSY;
			continue;
		}
		TEST_ASSERT(!r, "'%s' to %s: %s", count, WAKEUP_COUNT, strerror(-r));
		r = write_file(POWER_STATE, "mem");
		attempts++;
	}
	TEST_ASSERT(!r, "'mem' to %s: %s", POWER_STATE, strerror(-r));
	return attempts;
}

/* A VM whose TSC is scaled by hardware, if that can be had. */
struct scaled {
	struct kvm_vm *vm;
	struct kvmclock_vcpu kv;
	struct instant at;
	unsigned long khz;
	uint64_t tsc;
};

/* A clock is read in the guest, between two readings by the host. */
static void enter_scaled(struct scaled *s)
{
	struct kvm_clock_data data = kvmclock_get(s->vm);
	uint64_t now = kvmclock_call(&s->kv, KVMCLOCK_READ, 0, 0);

	TEST_ASSERT(now >= data.clock, "guest: %lu after %llu", now, data.clock);
	data = kvmclock_get(s->vm);
	TEST_ASSERT(data.clock >= now, "KVM_GET_CLOCK: %llu after %lu", data.clock, now);
}

static void start_scaled(struct scaled *s)
{
	s->vm = NULL;
	if (!kvm_has_cap(KVM_CAP_TSC_CONTROL))
		return;

	s->vm = vm_create(1);
	kvmclock_vcpu_add(s->vm, &s->kv, 0);
	s->khz = __vcpu_ioctl(s->kv.vcpu, KVM_GET_TSC_KHZ, NULL) * 5UL / 7;
	vcpu_ioctl(s->kv.vcpu, KVM_SET_TSC_KHZ, (void *)s->khz);
	kvmclock_enable(&s->kv, MSR_KVM_SYSTEM_TIME_NEW);
	enter_scaled(s);
}

static void note_scaled(struct scaled *s)
{
	if (!s->vm)
		return;
	s->at = take_instant_of(s->vm);
	s->tsc = kvmclock_rdmsr(&s->kv, MSR_IA32_TSC);
}

/* After a suspend, in which its line was lost or not */
static void assert_scaled(struct scaled *s, bool lost)
{
	struct pvclock_vcpu_time_info page;
	struct instant b;
	uint64_t now, most;

	if (!s->vm)
		return;
	b = take_instant_of(s->vm);
	TEST_ASSERT(b.data.flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", b.data.flags);
	if (lost)
		assert_base_passed(&s->at, &b);
	enter_scaled(s);
	page = kvmclock_read_page(s->kv.page);
	now = oracle_at(&page, kvmclock_guest_tsc(&s->kv, b.data.host_tsc));
	TEST_ASSERT(b.data.clock == now, "KVM_GET_CLOCK %llu, the scaled page says %lu",
		    b.data.clock, now);
	now = kvmclock_rdmsr(&s->kv, MSR_IA32_TSC);
	most = kvmclock_cycles_in(base_ns(true) - s->at.base_before, s->khz);
	TEST_ASSERT(now >= s->tsc && (!lost || now - s->tsc <= most),
		    "scaled TSC: %lu after %lu, at most %lu more", now, s->tsc, most);
}

/* What a TSC that may have restarted says has passed from @a to @b, at the most. */
static int64_t tsc_ns(const struct instant *a, const struct instant *b,
		      const struct pvclock_vcpu_time_info *page)
{
	int64_t cycles = b->tsc_after - a->tsc_before;

	return cycles < 0 ? -oracle_scale(page, -cycles) : oracle_scale(page, cycles);
}

/*
 * The line goes on as if nothing had been, if the TSC did; else from the value
 * at the suspend by the time slept, which the host knows from its RTC.  So it
 * takes less than a second between both for the RTC's rounding.
 */
TEST_F_TIMEOUT(kvmclock_event, suspend, CASE_S)
{
	struct event *ev = &self->event;
	bool may_lose = !access(LOSE_TSC_CYCLES, W_OK), lose, lost;
	bool restarts = getenv("silicon_tsc");
	struct pvclock_vcpu_time_info before[MAX_VCPUS], after;
	unsigned int i, round, told = 0, stops, nr_restarts = 0;
	struct instant a, b;
	struct scaled scaled;
	int64_t missed, most;
	uint64_t offset;

	start_scaled(&scaled);

	for (round = 1; round <= NR_SUSPENDS + may_lose; round++) {
		lose = round > NR_SUSPENDS;
		if (lose)
			write_file_ok(LOSE_TSC_CYCLES, __stringify(LOST_CYCLES));
		offset = tsc_offset(ev, &ev->vcpu[UNLOADED]);
		for (i = 0; i < UNBORN; i++)
			before[i] = kvmclock_read_page(ev->vcpu[i].page);
		note_scaled(&scaled);
		a = take_instant(ev);

		told += suspend_host();
		/* Its CPUs were gone, so the kernel gave it any. */
		set_affinity(pthread_self(), &ev->cpus);
		if (lose)
			write_file_ok(LOSE_TSC_CYCLES, "0");

		b = take_instant(ev);
		TEST_ASSERT(b.data.flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", b.data.flags);
		wait_for_readings(ev);

		/* The UNLOADED one stays so for all suspends, as does the UNBORN. */
		for (i = 0; i < NR_WATCHERS; i++) {
			stops = READ_ONCE(ev->watch->stops[i]);
			TEST_ASSERT(stops >= round && stops <= told,
				    "vCPU %u found %u times that it was stopped, of %u to %u", i,
				    stops, round, told);
			assert_stable(&ev->vcpu[i], true);
			assert_clock_is_page(ev, &ev->vcpu[i]);
		}

		missed = b.base_after - a.base_before - tsc_ns(&a, &b, &before[0]);
		lost = lose || llabs(missed) >= NSEC_PER_SEC;
		ksft_print_msg("suspend %u, of %ld ms: the TSC %s (%+ld ms)\n", round,
			       (long)((b.slept - a.slept) / 1000000),
			       lose ? "pretends to have lost cycles" :
			       lost ? "restarts" : "counts through", (long)(missed / 1000000));
		nr_restarts += lost && !lose;

		if (!lost) {
			for (i = 0; i < NR_WATCHERS; i++)
				assert_unmoved(ev, &ev->vcpu[i], &before[i], "a suspend");
		} else {
			after = kvmclock_read_page(ev->vcpu[0].page);
			TEST_ASSERT(after.tsc_to_system_mul == before[0].tsc_to_system_mul &&
				    after.tsc_shift == before[0].tsc_shift, "another slope");
		}
		/* Of a vCPU that is not loaded, too: the bit above depends on it. */
		offset = tsc_offset(ev, &ev->vcpu[UNLOADED]) - offset;
		if (restarts && lost) {
			/* It goes on from there, or from where it is if that is later by then. */
			offset -= lose ? LOST_CYCLES : 0;
			most = b.base_after - a.base_before;
			missed = most - tsc_ns(&a, &b, &before[0]) -
				 (int64_t)oracle_scale(&before[0], offset);
			TEST_ASSERT((int64_t)offset >= 0 && missed >= 0 && missed <= most,
				    "a TSC that restarted has %lu cycles more, and stood %ld ns of %ld",
				    offset, missed, most);
		} else if (lose) {
			TEST_ASSERT(offset && offset % LOST_CYCLES == 0,
				    "a TSC that lost %ld cycles has %lu more", LOST_CYCLES, offset);
		}
		if (lost)
			assert_base_passed(&a, &b);
		else
			assert_continues(&a, &b, &before[0], 0);
		assert_scaled(&scaled, lost);
	}
	/* Not in one that was over before the machine slept. */
	TEST_ASSERT(nr_restarts || !restarts, "the TSC of this machine was to restart");
	if (scaled.vm)
		kvm_vm_free(scaled.vm);

	for (i = UNLOADED; i <= UNBORN; i++) {
		kvmclock_enter(&ev->vcpu[i]);
		TEST_ASSERT(ev->vcpu[i].page->flags & PVCLOCK_GUEST_STOPPED,
			    "vCPU %u was not told", i);
		kvmclock_call(&ev->vcpu[i], KVMCLOCK_CLEAR_STOPPED, 0, 0);
		kvmclock_enter(&ev->vcpu[i]);
		TEST_ASSERT(!(ev->vcpu[i].page->flags & PVCLOCK_GUEST_STOPPED),
			    "vCPU %u is told twice", i);
	}
	kvmclock_vcpu_add(ev->vm, &ev->vcpu[LATE], LATE);
	kvmclock_enable(&ev->vcpu[LATE], MSR_KVM_SYSTEM_TIME_NEW);
	TEST_ASSERT(!(ev->vcpu[LATE].page->flags & PVCLOCK_GUEST_STOPPED),
		    "told of a suspend before its time");

	assert_same_tsc(ev, MAX_VCPUS);
	for (i = 0; i < MAX_VCPUS; i++) {
		assert_stable(&ev->vcpu[i], true);
		assert_clock_is_page(ev, &ev->vcpu[i]);
	}
}

/*
 * A host that leaves its TSC may read it late, or lose base time in that, by as long as
 * its CPU is away between the two clocksources: KVM_PROVE_CLOCK has it be minutes.  Its
 * TSC is good all the same, and so is the line: the clock does not go back to base time.
 */
TEST(late_clocksource)
{
	bool may_be_late = !access(LATE_TSC_CYCLES, W_OK);
	struct pvclock_vcpu_time_info page;
	struct kvm_clock_data before, after;
	struct kvmclock_vcpu kv;
	uint64_t late = 0, least;
	char word[32];
	time_t begin;
	struct kvm_vm *vm;

	give_back();
	kvmclock_require_host();
	vm = vm_create(1);
	kvmclock_vcpu_add(vm, &kv, 0);
	kvmclock_enable(&kv, MSR_KVM_SYSTEM_TIME_NEW);
	kvmclock_enter(&kv);
	page = kvmclock_read_page(kv.page);

	if (may_be_late) {
		late = 100000ULL * __vcpu_ioctl(kv.vcpu, KVM_GET_TSC_KHZ, NULL);
		snprintf(word, sizeof(word), "%lu", late);
		write_file_ok(LATE_TSC_CYCLES, word);
	}
	before = kvmclock_get(vm);
	TEST_ASSERT(before.flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", before.flags);
	write_file_ok(CLOCKSOURCE, other_clocksource());
	begin = time(NULL);
	do {
		TEST_ASSERT(time(NULL) < begin + PATIENCE_S, "there is a master clock still");
		after = kvmclock_get(vm);
	} while (after.flags & KVM_CLOCK_TSC_STABLE);

	least = oracle_at(&page, before.host_tsc + kvmclock_tsc_offset(&kv) + late);
	TEST_ASSERT(after.clock >= least, "KVM_GET_CLOCK: %llu after %lu, by %lu", after.clock,
		    least, (uint64_t)(least - after.clock));
	give_back();
	kvm_vm_free(vm);
}

/*
 * CPUs whose TSCs are not the same: somebody writes that of CPU 1, as firmware does.
 * Until a vCPU has to do with it nobody can know.  From then on no VM has a master
 * clock, nor a stable bit; and no vCPU's TSC or clock goes back for it, however
 * often it comes and goes.
 *
 * The first of these cases that runs has a host that trusts its TSC, so each of them
 * says more if it is run alone.
 */
FIXTURE(kvmclock_host_tsc) {
	struct event event;
};

/* True if it is emulated: QEMU as it is reads 0, and ignores what is written. */
static bool access_tsc1(uint64_t *read_tsc, const uint64_t *write_tsc)
{
	int fd = open(CPU1_MSRS, O_RDWR);
	bool good;

	if (fd < 0)
		return false;
	good = write_tsc ? pwrite(fd, write_tsc, sizeof(*write_tsc), MSR_IA32_TSC) == 8 :
			   pread(fd, read_tsc, sizeof(*read_tsc), MSR_IA32_TSC) == 8 && *read_tsc;
	close(fd);
	return good;
}

static unsigned long host_khz(struct event *ev)
{
	return __vcpu_ioctl(ev->vcpu[UNBORN].vcpu, KVM_GET_TSC_KHZ, NULL);
}

static void write_tsc1(struct event *ev, uint64_t tsc)
{
	uint64_t now;

	TEST_ASSERT(access_tsc1(NULL, &tsc), "the TSC of CPU 1 cannot be written");
	TEST_ASSERT(access_tsc1(&now, NULL) || !tsc, "the TSC of CPU 1 cannot be read");
	TEST_ASSERT(now - tsc < host_khz(ev) * 1000 * PATIENCE_S,
		    "the TSC of CPU 1 was set to 0x%lx, and is 0x%lx", tsc, now);
}

/*
 * By a little less, since it takes time.  Not below 0, where a suspend may have left it
 * close to: a host that trusts its TSC takes that for centuries, and its scheduler has
 * the threads that ran there wait as long.
 */
static void move_tsc1(struct event *ev, int64_t ns)
{
	uint64_t tsc, apart = kvmclock_cycles_in(APART_NS, host_khz(ev));

	wait_until(ev, access_tsc1(&tsc, NULL) && tsc > apart);
	write_tsc1(ev, tsc + kvmclock_cycles_in(ns, host_khz(ev)));
}

static void move_self(struct event *ev, bool to_cpu1)
{
	cpu_set_t cpus = ev->cpus;

	if (to_cpu1) {
		CPU_ZERO(&cpus);
		CPU_SET(1, &cpus);
	} else {
		CPU_CLR(1, &cpus);
	}
	set_affinity(pthread_self(), &cpus);
}

FIXTURE_SETUP(kvmclock_host_tsc)
{
	struct event *ev = &self->event;
	uint64_t tsc;

	give_back();
	if (!access_tsc1(&tsc, NULL))
		SKIP(return, "the TSC cannot be written");

	set_up(ev, NR_IDLE);
	move_self(ev, false);
	move_thread(ev, 1, false);
	wait_for_readings(ev);
}

FIXTURE_TEARDOWN(kvmclock_host_tsc)
{
	tear_down(&self->event);
}

/* A reading of the vCPU's guest, and the KVM_GET_CLOCK before and after it. */
struct reading {
	uint64_t before, now, after;
	uint64_t tsc;			/* of a watcher */
};

static struct reading read_vcpu(struct event *ev, unsigned int i)
{
	struct reading r = { .before = get_clock(ev).clock };
	uint64_t from;

	if (i < NR_WATCHERS) {
		from = READ_ONCE(ev->watch->readings[i]);
		wait_until(ev, READ_ONCE(ev->watch->readings[i]) >= from + 2);
		r.tsc = READ_ONCE(ev->watch->tsc[i]);
		r.now = READ_ONCE(ev->watch->now[i]);
	} else {
		r.now = kvmclock_call(&ev->vcpu[i], KVMCLOCK_READ, 0, 0);
	}
	r.after = get_clock(ev).clock;
	return r;
}

static int64_t off_ns(const struct reading *r)
{
	if ((int64_t)(r->now - r->before) < 0)
		return r->now - r->before;
	return max_t(int64_t, r->now - r->after, 0);
}

/* A clock that is ahead loses its lead; then it is near, and stays so. */
static void assert_near(struct event *ev, unsigned int i)
{
	time_t begin = time(NULL);
	unsigned int nr = 0;
	struct reading r;
	int64_t off;

	while (nr < NR_NEAR) {
		r = read_vcpu(ev, i);
		off = off_ns(&r);
		nr = llabs(off) <= NEAR_NS ? nr + 1 : 0;
		TEST_ASSERT(time(NULL) < begin + PATIENCE_S,
			    "vCPU %u: %+ld ns from KVM_GET_CLOCK still", i, off);
	}
}

/* Both have begun at 0, and the TSC is moved to where base time says it should be. */
static bool tsc_keeps_up(struct event *ev, unsigned int i)
{
	struct reading r = read_vcpu(ev, i);

	return (int64_t)r.tsc >= kvmclock_cycles_in(r.before - NEAR_NS, host_khz(ev));
}

static bool host_is_on_tsc(void)
{
	char word[32];

	read_word(CLOCKSOURCE, word, sizeof(word));
	return !strcmp(word, "tsc");
}

/* The host knows that its TSC is no good, and so do guests. */
static void assert_untrusted(struct event *ev)
{
	struct kvm_vm *vm;
	unsigned int i;

	wait_until(ev, !has_master_clock(ev));
	wait_until(ev, !host_is_on_tsc());
	wait_for_readings(ev);
	for (i = 0; i < NR_VCPUS; i++)
		assert_stable(&ev->vcpu[i], false);
	TEST_ASSERT(!ev->watch->stable[0] && !ev->watch->stable[1],
		    "a guest sees the stable bit");

	vm = vm_create_barebones();
	TEST_ASSERT(!says_stable(vm), "a new VM has a master clock");
	kvm_vm_free(vm);
}

static void assert_unnoticed(struct event *ev)
{
	unsigned int i;

	wait_for_readings(ev);
	for (i = 0; i < UNBORN; i++) {
		assert_unmoved(ev, &ev->vcpu[i], &ev->first[i], "the TSC of another CPU");
		assert_stable(&ev->vcpu[i], true);
		assert_clock_is_page(ev, &ev->vcpu[i]);
	}
}

/*
 * Has the clock gone on since @a, for which the watchers' second vCPU is moved?  It may
 * go by base time now; since the VM was created that and the line have parted a little.
 */
static void assert_went_on(struct event *ev, bool trusted, const struct instant *a,
			   bool to_cpu1)
{
	struct pvclock_vcpu_time_info page = ev->first[0];
	int64_t ahead = 0;
	struct instant b;

	move_thread(ev, 1, to_cpu1);
	if (trusted)
		ahead = wait_off_line(ev, a, &page) + (a->data.clock >> 22);
	assert_untrusted(ev);
	b = take_instant(ev);
	if (trusted)
		assert_continues(a, &b, &page, ahead);
	else
		assert_base_passed(a, &b);
}

/* Those that are not loaded have been there, too. */
static void assert_all_near(struct event *ev)
{
	unsigned int i;

	for (i = 0; i < NR_VCPUS; i++)
		assert_near(ev, i);
	move_self(ev, true);
	for (i = UNLOADED; i < NR_VCPUS; i++)
		kvmclock_enter(&ev->vcpu[i]);
	move_self(ev, false);
	for (i = UNLOADED; i < NR_VCPUS; i++)
		assert_near(ev, i);
}

/* A vCPU comes to a CPU whose TSC is behind: KVM is the first to find that. */
TEST_F_TIMEOUT(kvmclock_host_tsc, cpu_behind, CASE_S)
{
	struct event *ev = &self->event;
	bool trusted = has_master_clock(ev);
	struct instant a = take_instant(ev);

	move_tsc1(ev, -APART_NS);
	if (trusted)
		assert_unnoticed(ev);
	assert_went_on(ev, trusted, &a, true);
	assert_all_near(ev);
	wait_until(ev, tsc_keeps_up(ev, 1));
	move_thread(ev, 1, false);
	assert_all_near(ev);
	wait_until(ev, tsc_keeps_up(ev, 1));
}

/*
 * The TSC moves forward under a guest, and so does its clock, as the line says; nobody
 * can tell.  The CPU that it goes on to is behind by as much.
 */
TEST_F_TIMEOUT(kvmclock_host_tsc, cpu_ahead, CASE_S)
{
	struct event *ev = &self->event;
	bool trusted = has_master_clock(ev);
	struct kvm_clock_data data;
	struct instant a;
	uint64_t now, last, offset;

	move_thread(ev, 1, true);
	WRITE_ONCE(ev->watch->apart, true);
	wait_for_readings(ev);
	a = take_instant(ev);
	move_tsc1(ev, APART_NS);
	wait_for_readings(ev);

	if (trusted) {
		assert_unnoticed(ev);
		offset = tsc_offset(ev, &ev->vcpu[1]);
		last = get_clock(ev).clock;
		move_self(ev, true);
		data = kvmclock_get(ev->vm);
		move_self(ev, false);
		now = oracle_at(&ev->first[1], data.host_tsc + offset);
		TEST_ASSERT(data.flags == KVMCLOCK_GET_FLAGS && data.clock == now,
			    "KVM_GET_CLOCK on CPU 1: %llu, flags 0x%x, its page says %lu",
			    data.clock, data.flags, now);
		TEST_ASSERT(now - last > APART_NS / 2, "CPU 1 is %ld ns ahead",
			    (int64_t)(now - last));
	}
	assert_went_on(ev, trusted, &a, false);
	assert_all_near(ev);
}

/* A CPU comes whose TSC is behind: Linux compares it, if it has not been told not to. */
TEST_F_TIMEOUT(kvmclock_host_tsc, cpu_online, CASE_S)
{
	struct event *ev = &self->event;
	bool trusted = has_master_clock(ev);
	struct instant a = take_instant(ev);

	move_tsc1(ev, -APART_NS);
	write_file_ok(CPU1_ONLINE, "0");
	write_file_ok(CPU1_ONLINE, "1");
	if (getenv("silicon_tsc"))
		wait_until(ev, !has_master_clock(ev));
	assert_went_on(ev, trusted, &a, true);
	assert_all_near(ev);
	wait_until(ev, tsc_keeps_up(ev, 1));
}

/* A TSC that nobody trusts may be anything, also where it wraps. */
TEST_F_TIMEOUT(kvmclock_host_tsc, any_tsc, CASE_S)
{
	struct event *ev = &self->event;
	const uint64_t second = host_khz(ev) * 1000ULL, tscs[] = {
		-second,
		0,
		(1ULL << 63) - second,
		1ULL << 62,
		second,
	};
	bool trusted = has_master_clock(ev);
	struct instant a = take_instant(ev);
	unsigned int i;

	move_tsc1(ev, -APART_NS);
	assert_went_on(ev, trusted, &a, true);

	for (i = 0; i < ARRAY_SIZE(tscs); i++) {
		move_thread(ev, 1, false);
		wait_for_readings(ev);
		write_tsc1(ev, tscs[i]);
		a = take_instant(ev);
		assert_went_on(ev, false, &a, true);
		/* Past where it wraps, or changes its sign. */
		usleep(BEYOND_US);
		assert_all_near(ev);
		wait_until(ev, tsc_keeps_up(ev, 1));
	}
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	TEST_ASSERT(!access(CPU1_ONLINE, W_OK), "CPU 1 cannot be taken offline");
	TEST_ASSERT(!access(WAKEALARM, W_OK) && !access(POWER_STATE, W_OK),
		    "this host cannot sleep and wake up by itself");

	return run_guarded(argc, argv);
}
