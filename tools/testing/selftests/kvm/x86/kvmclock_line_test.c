// SPDX-License-Identifier: GPL-2.0-only
/*
 * A kvmclock is one line over the guest TSC, and it stays where it is.
 *
 * Readings are compared at one and the same TSC value, so that the expected
 * difference is 0 ns however slow or busy the machine is.  With "--report" as
 * its argument the test says in words how far off the two most visible ones are.
 */
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "processor.h"
#include "test_util.h"

#define HOUR_NS			(3600 * NSEC_PER_SEC)

/* Two clocks that differ by 50 ppb are 50 ns apart after this. */
#define DRIFT_US		1000000

#define NR_UPDATES		1000
#define NR_READINGS		1000
#define NR_HOTPLUGGED		3
#define NR_STARTING		8

/* A loaded machine may take milliseconds for a turn: then fewer have to do. */
#define NR_TURNS		20000
#define NR_TURNS_MIN		50
#define TURNS_NS		(5 * NSEC_PER_SEC)

#define MAX_VCPUS		NR_STARTING

FIXTURE(kvmclock_line) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[2];
};

FIXTURE_SETUP(kvmclock_line)
{
	unsigned int i;

	self->vm = vm_create(MAX_VCPUS);
	for (i = 0; i < ARRAY_SIZE(self->vcpu); i++)
		kvmclock_vcpu_add(self->vm, &self->vcpu[i], i);
}

FIXTURE_TEARDOWN(kvmclock_line)
{
	kvm_vm_free(self->vm);
}

/* Pages of vCPUs whose TSCs differ agree if they do so at one host TSC. */
static int64_t difference(struct kvmclock_vcpu *a, struct kvmclock_vcpu *b, uint64_t host_tsc)
{
	struct pvclock_vcpu_time_info page_a = kvmclock_read_page(a->page);
	struct pvclock_vcpu_time_info page_b = kvmclock_read_page(b->page);

	return oracle_at(&page_b, kvmclock_guest_tsc(b, host_tsc)) -
	       oracle_at(&page_a, kvmclock_guest_tsc(a, host_tsc));
}

static void assert_unmoved(struct kvmclock_vcpu *kv, const struct pvclock_vcpu_time_info *before,
			   const char *by)
{
	struct pvclock_vcpu_time_info after = kvmclock_read_page(kv->page);
	int64_t moved = kvmclock_movement(before, &after, kvmclock_guest_tsc(kv, rdtsc()));

	TEST_ASSERT(!moved, "vCPU %u: clock moved by %+ld ns by %s", kv->vcpu->id, moved, by);
}

static void assert_stable(struct kvmclock_vcpu *kv, bool stable)
{
	TEST_ASSERT(!!(kv->page->flags & PVCLOCK_TSC_STABLE_BIT) == stable,
		    "vCPU %u: flags 0x%x, %sstable expected", kv->vcpu->id, kv->page->flags,
		    stable ? "" : "un");
}

static void assert_agree(struct kvmclock_vcpu *a, struct kvmclock_vcpu *b)
{
	uint64_t now = rdtsc();
	unsigned int i;

	for (i = 0; i < 40; i++) {
		int64_t diff = difference(a, b, now + (1ULL << i) - 1);

		TEST_ASSERT(!diff, "vCPU %u is %+ld ns from vCPU %u, 2^%d cycles from now",
			    b->vcpu->id, diff, a->vcpu->id, i);
	}
}

/*
 * How far KVM_GET_CLOCK is from the guest's line at the TSC value it returns.
 * The guest does its own arithmetic; it and the test's must agree.
 */
static int64_t get_clock_error(struct kvm_vm *vm, struct kvmclock_vcpu *kv)
{
	struct pvclock_vcpu_time_info page;
	struct kvm_clock_data data = kvmclock_get(vm);
	uint64_t tsc, expected, guest;

	TEST_ASSERT(data.flags & KVM_CLOCK_HOST_TSC, "no TSC value, flags 0x%x", data.flags);
	tsc = kvmclock_guest_tsc(kv, data.host_tsc);
	guest = kvmclock_call(kv, KVMCLOCK_READ_AT, 0, tsc);
	page = kvmclock_read_page(kv->page);
	expected = oracle_at(&page, tsc);
	TEST_ASSERT(guest == expected, "guest computes %lu, expected %lu", guest, expected);
	return data.clock - guest;
}

static int64_t get_clock_errors(struct kvm_vm *vm, struct kvmclock_vcpu *kv, int readings)
{
	int64_t error, largest = 0;

	while (readings--) {
		error = get_clock_error(vm, kv);
		if (llabs(error) > llabs(largest))
			largest = error;
	}
	return largest;
}

static void assert_get_clock(struct kvm_vm *vm, struct kvmclock_vcpu *kv)
{
	int64_t error = get_clock_errors(vm, kv, NR_READINGS);

	TEST_ASSERT(!error, "KVM_GET_CLOCK is %+ld ns from the guest's clock", error);
}

TEST_F(kvmclock_line, one_forced_update)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	struct pvclock_vcpu_time_info before;
	unsigned int i;

	kvmclock_enable_all(kv, 1);
	assert_stable(kv, true);

	/* There and back: neither number of the MSR is a worse one. */
	for (i = 0; i < 2; i++) {
		before = *kv->page;
		usleep(DRIFT_US);
		kvmclock_force_update(kv);
		TEST_ASSERT(kv->page->version != before.version, "no update at all");
		assert_unmoved(kv, &before, "one forced update");
		assert_stable(kv, true);
	}
}

TEST_F(kvmclock_line, many_forced_updates)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	struct pvclock_vcpu_time_info first, before;
	unsigned int i;

	kvmclock_enable_all(self->vcpu, 2);
	first = *kv->page;

	for (i = 0; i < NR_UPDATES; i++) {
		before = *kv->page;
		kvmclock_force_update(kv);
		TEST_ASSERT(kv->page->version != before.version, "no update at all");
		assert_unmoved(kv, &before, "one of many forced updates");
		assert_unmoved(kv, &first, "many forced updates");
		kvmclock_enter(&self->vcpu[1]);
		TEST_ASSERT(!difference(kv, &self->vcpu[1], rdtsc()), "vCPUs differ");
	}
}

/* Another TSC on another vCPU takes the stable bit, and nothing else. */
TEST_F(kvmclock_line, offset_there_and_back)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct pvclock_vcpu_time_info first[2];
	uint64_t offset;
	unsigned int i;

	kvmclock_enable_all(kv, 2);
	first[0] = *kv[0].page;
	first[1] = *kv[1].page;
	offset = kvmclock_tsc_offset(&kv[1]);
	TEST_ASSERT(offset == kvmclock_tsc_offset(&kv[0]), "TSCs differ from the start");
	usleep(DRIFT_US);

	for (i = 0; i < 20; i++) {
		kvmclock_set_tsc_offset(&kv[1], offset + (i & 1 ? 1 : -1000000000ULL) * (i + 1));
		kvmclock_enter(&kv[0]);
		kvmclock_enter(&kv[1]);
		assert_stable(&kv[0], false);
		assert_stable(&kv[1], false);
		assert_unmoved(&kv[0], &first[0], "another TSC offset on vCPU 1");
		assert_agree(&kv[0], &kv[1]);
		TEST_ASSERT(!get_clock_error(self->vm, &kv[0]), "KVM_GET_CLOCK is off");
		TEST_ASSERT(!get_clock_error(self->vm, &kv[1]), "KVM_GET_CLOCK is off");

		kvmclock_set_tsc_offset(&kv[1], offset);
		kvmclock_enter(&kv[0]);
		kvmclock_enter(&kv[1]);
		assert_stable(&kv[0], true);
		assert_stable(&kv[1], true);
		assert_unmoved(&kv[0], &first[0], "the old TSC offset on vCPU 1");
		assert_unmoved(&kv[1], &first[1], "its old TSC offset");
	}
}

TEST_F(kvmclock_line, guest_writes_tsc)
{
	static const int64_t steps[] = {
		1000000000, -1000000000, 100000000000, -500000000000, 12345, -1,
	};
	struct kvmclock_vcpu *kv = self->vcpu;
	struct pvclock_vcpu_time_info first;
	unsigned int i;

	kvmclock_enable_all(kv, 2);
	first = *kv[0].page;
	usleep(DRIFT_US);

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		kvmclock_call(&kv[1], KVMCLOCK_ADD_TSC, 0, steps[i]);

		/* Its own clock was right again before the next instruction. */
		assert_agree(&kv[0], &kv[1]);

		kvmclock_enter(&kv[0]);
		assert_stable(&kv[0], false);
		assert_stable(&kv[1], false);
		assert_unmoved(&kv[0], &first, "MSR_IA32_TSC on vCPU 1");
		TEST_ASSERT(!get_clock_error(self->vm, &kv[1]), "KVM_GET_CLOCK is off");
	}
}

struct runner {
	struct kvmclock_vcpu *kv;
	uint32_t cpu;
	uint32_t enable_msr;	/* written first, if not 0 */
	bool stop;
};

static void *enter_until_stopped(void *arg)
{
	struct runner *runner = arg;

	kvmclock_pin(pthread_self(), runner->cpu);
	if (runner->enable_msr)
		kvmclock_enable(runner->kv, runner->enable_msr);
	while (!READ_ONCE(runner->stop))
		kvmclock_enter(runner->kv);
	return NULL;
}

TEST_F(kvmclock_line, hotplug)
{
	struct runner runner = { .kv = &self->vcpu[0] };
	struct kvmclock_vcpu late[NR_HOTPLUGGED];
	struct pvclock_vcpu_time_info first;
	pthread_t thread;
	unsigned int i;

	kvmclock_enable_all(self->vcpu, 2);
	first = *self->vcpu[0].page;
	TEST_ASSERT(!pthread_create(&thread, NULL, enter_until_stopped, &runner),
		    "pthread_create() failed");
	usleep(DRIFT_US);

	for (i = 0; i < NR_HOTPLUGGED; i++) {
		kvmclock_vcpu_add(self->vm, &late[i], ARRAY_SIZE(self->vcpu) + i);
		assert_unmoved(&self->vcpu[0], &first, "a vCPU that was created");
		kvmclock_enable(&late[i], MSR_KVM_SYSTEM_TIME_NEW);
		assert_unmoved(&self->vcpu[0], &first, "a vCPU that started");
		assert_stable(&late[i], true);
		assert_agree(&self->vcpu[1], &late[i]);
	}

	WRITE_ONCE(runner.stop, true);
	pthread_join(thread, NULL);
	assert_unmoved(&self->vcpu[0], &first, "hot-plugged vCPUs");
	assert_stable(&self->vcpu[0], true);
}

/* What KVM_GET_CLOCK said before there was a guest is on the guest's line. */
TEST_F(kvmclock_line, get_clock_before_first_run)
{
	struct kvm_clock_data early[10];
	struct pvclock_vcpu_time_info page;
	uint64_t expected;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(early); i++) {
		early[i] = kvmclock_get(self->vm);
		TEST_ASSERT(early[i].flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", early[i].flags);
	}
	usleep(DRIFT_US);
	kvmclock_enable_all(self->vcpu, 2);
	page = *self->vcpu[0].page;
	for (i = 0; i < ARRAY_SIZE(early); i++) {
		expected = oracle_at(&page, kvmclock_guest_tsc(&self->vcpu[0], early[i].host_tsc));
		TEST_ASSERT(early[i].clock == expected, "%llu, the guest's line has %lu: %+ld ns",
			    early[i].clock, expected, (int64_t)(early[i].clock - expected));
	}
}

TEST_F(kvmclock_line, get_clock)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	uint64_t offset;
	unsigned int i;

	kvmclock_enable_all(kv, 2);
	assert_get_clock(self->vm, &kv[0]);
	assert_get_clock(self->vm, &kv[1]);
	usleep(DRIFT_US);
	assert_get_clock(self->vm, &kv[0]);

	offset = kvmclock_tsc_offset(kv);
	for (i = 0; i < 4; i++) {
		/* The second makes guest and host TSC the same number. */
		const uint64_t offsets[] = { offset + 12345, 0, 1ULL << 62, -(1ULL << 33) };

		kvmclock_set_tsc_offset(&kv[0], offsets[i]);
		kvmclock_set_tsc_offset(&kv[1], offsets[i]);
		kvmclock_enter(&kv[0]);
		kvmclock_enter(&kv[1]);
		assert_get_clock(self->vm, &kv[0]);
		assert_get_clock(self->vm, &kv[1]);
	}
}

/*
 * The clock read @value at some TSC value in [@since, @until].  What has passed
 * is a difference of two readings, each rounded down by less than 1 ns twice:
 * once in the shift and once in the product.
 */
static void assert_was_set(struct kvmclock_vcpu *kv, uint64_t value, uint64_t since,
			   uint64_t until)
{
	struct pvclock_vcpu_time_info page = kvmclock_read_page(kv->page);
	uint64_t now = kvmclock_guest_tsc(kv, rdtsc());
	uint64_t longest = oracle_scale(&page, now - kvmclock_guest_tsc(kv, since));
	uint64_t shortest = oracle_scale(&page, now - kvmclock_guest_tsc(kv, until));
	int64_t passed = oracle_at(&page, now) - value;

	TEST_ASSERT(passed + 2 >= (int64_t)shortest && passed <= (int64_t)longest + 2,
		    "%+ld ns since a set to %lu, which was %lu to %lu ns ago", passed, value,
		    shortest, longest);
}

TEST_F(kvmclock_line, set_clock)
{
	static const uint64_t values[] = {
		HOUR_NS, 0, 1, 1000 * HOUR_NS, NSEC_PER_SEC, 1ULL << 62, 12345678,
	};
	struct kvmclock_vcpu *kv = self->vcpu;
	struct kvm_clock_data saved;
	uint64_t since, until, offset, expected;
	struct pvclock_vcpu_time_info page;
	unsigned int i;

	kvmclock_enable_all(kv, 2);
	offset = kvmclock_tsc_offset(&kv[1]);
	for (i = 0; i < 2 * ARRAY_SIZE(values); i++) {
		uint64_t value = values[i / 2];

		/* Let an update be pending that dates from before the set. */
		if (i & 1) {
			kvmclock_set_tsc_offset(&kv[1], offset + 1000);
			kvmclock_set_tsc_offset(&kv[1], offset);
		}
		since = rdtsc();
		kvmclock_set(self->vm, value);
		until = rdtsc();
		saved = kvmclock_get(self->vm);
		kvmclock_enter(&kv[0]);
		kvmclock_enter(&kv[1]);
		assert_was_set(&kv[0], value, since, until);
		assert_was_set(&kv[1], value, since, until);
		assert_agree(&kv[0], &kv[1]);
		assert_stable(&kv[0], true);

		/* Nothing moved it between the ioctl and the guest. */
		page = *kv[0].page;
		expected = oracle_at(&page, kvmclock_guest_tsc(&kv[0], saved.host_tsc));
		TEST_ASSERT(saved.clock == expected, "%llu before the guest ran, %lu since",
			    saved.clock, expected);
		TEST_ASSERT(!get_clock_errors(self->vm, &kv[0], 10), "KVM_GET_CLOCK is off");
	}
}

/*
 * KVM_SET_CLOCK with a realtime means: the clock was @clock when realtime was
 * @realtime.  So clock minus realtime is what was asked for, but for rounding
 * (each of the pair once in the set and once in the get, less than 1 ns each)
 * and for what an adjusted realtime may gain between set and get: at most
 * 500 ppm by frequency and as much again by adjtime().
 */
TEST_F(kvmclock_line, set_clock_pair)
{
	struct kvm_clock_data data, asked;
	struct pvclock_vcpu_time_info page;
	uint64_t since, passed;
	int64_t error;
	unsigned int i;

	kvmclock_enable_all(self->vcpu, 1);
	page = *self->vcpu[0].page;
	for (i = 0; i < 200; i++) {
		data = kvmclock_get(self->vm);
		asked = (struct kvm_clock_data) {
			.clock = (i + 1) * HOUR_NS,
			.realtime = data.realtime - (i % 10) * NSEC_PER_SEC,
			.flags = KVM_CLOCK_REALTIME,
		};
		since = rdtsc();
		vm_ioctl(self->vm, KVM_SET_CLOCK, &asked);
		data = kvmclock_get(self->vm);
		TEST_ASSERT(data.flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", data.flags);

		passed = oracle_scale(&page, data.host_tsc - since);
		error = (data.clock - data.realtime) - (asked.clock - asked.realtime);
		TEST_ASSERT(llabs(error) <= 2 + passed / 1000,
			    "pair is off by %+ld ns, %lu ns after the set", error, passed);
	}
}

/*
 * A realtime that is yet to come is no reason to go back behind the clock that
 * is being restored: its reader may have gone on from there.
 */
TEST_F(kvmclock_line, set_clock_never_back)
{
	static const uint64_t ahead[] = {
		1000 * NSEC_PER_SEC, HOUR_NS, 1000 * HOUR_NS, 1ULL << 60,
	};
	struct kvmclock_vcpu *kv = self->vcpu;
	struct kvm_clock_data data;
	uint64_t since, until;
	unsigned int i;

	kvmclock_enable_all(kv, 2);
	for (i = 0; i < ARRAY_SIZE(ahead); i++) {
		data = kvmclock_get(self->vm);
		data.flags = KVM_CLOCK_REALTIME;
		data.realtime += ahead[i];
		data.clock = (i + 1) * HOUR_NS;
		since = rdtsc();
		vm_ioctl(self->vm, KVM_SET_CLOCK, &data);
		until = rdtsc();
		kvmclock_enter(&kv[0]);
		kvmclock_enter(&kv[1]);
		assert_was_set(&kv[0], data.clock, since, until);
		assert_agree(&kv[0], &kv[1]);
	}
}

/*
 * Requests from before a KVM_SET_CLOCK are served after it, when the vCPU runs:
 * none of them may have an opinion of its own about the clock.  What the clock
 * was set to is held against each vCPU's line at one TSC value, seconds later.
 */
TEST_F(kvmclock_line, set_clock_with_requests_pending)
{
	enum { OLD_MSR, NEW_MSR, TSC_THERE_AND_BACK, NEW_VCPU, NR_REASONS };
	struct kvmclock_vcpu late, *kv = self->vcpu;
	struct kvm_clock_data saved;
	unsigned int i, reason;
	uint64_t offset, expected;

	kvmclock_enable_all(kv, 2);
	offset = kvmclock_tsc_offset(&kv[1]);

	for (reason = 0; reason < NR_REASONS; reason++) {
		switch (reason) {
		case OLD_MSR:
		case NEW_MSR:
			vcpu_set_msr(kv[0].vcpu, reason == OLD_MSR ? MSR_KVM_SYSTEM_TIME :
								     MSR_KVM_SYSTEM_TIME_NEW,
				     kv[0].page_gpa | KVM_MSR_ENABLED);
			break;
		case TSC_THERE_AND_BACK:
			kvmclock_set_tsc_offset(&kv[1], offset + 1000);
			kvmclock_set_tsc_offset(&kv[1], offset);
			break;
		case NEW_VCPU:
			kvmclock_vcpu_add(self->vm, &late, 2);
			break;
		}
		kvmclock_set(self->vm, (reason + 1) * HOUR_NS);
		saved = kvmclock_get(self->vm);
		TEST_ASSERT(saved.flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", saved.flags);
		usleep(DRIFT_US / 2);

		if (reason == NEW_VCPU)
			kvmclock_enable(&late, MSR_KVM_SYSTEM_TIME_NEW);
		for (i = 0; i < 2; i++) {
			struct pvclock_vcpu_time_info page;

			kvmclock_enter(&kv[i]);
			page = kvmclock_read_page(kv[i].page);
			expected = oracle_at(&page, kvmclock_guest_tsc(&kv[i], saved.host_tsc));
			TEST_ASSERT(saved.clock == expected,
				    "request %u: %llu was set, vCPU %u has %lu there, %+ld ns",
				    reason, saved.clock, i, expected,
				    (int64_t)(expected - saved.clock));
			TEST_ASSERT(!get_clock_errors(self->vm, &kv[i], 10),
				    "KVM_GET_CLOCK is off");
			assert_stable(&kv[i], true);
		}
		if (reason == NEW_VCPU)
			assert_agree(&kv[0], &late);
	}
}

/* All of KVM_SET_CLOCK and KVM_GET_CLOCK, before there is a guest to see it. */
TEST_F(kvmclock_line, set_clock_before_first_run)
{
	struct kvm_clock_data asked[10], data[10];
	struct pvclock_vcpu_time_info page;
	uint64_t expected;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(data); i++) {
		asked[i] = kvmclock_get(self->vm);
		TEST_ASSERT(asked[i].flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", asked[i].flags);
		asked[i].clock += HOUR_NS;
		vm_ioctl(self->vm, KVM_SET_CLOCK, &asked[i]);
		data[i] = kvmclock_get(self->vm);
		TEST_ASSERT(data[i].flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", data[i].flags);
		TEST_ASSERT(data[i].clock >= asked[i].clock, "%llu, set to %llu or later",
			    data[i].clock, asked[i].clock);
	}

	/* What was said after the last one is what the guest has. */
	usleep(DRIFT_US);
	kvmclock_enable_all(self->vcpu, 2);
	page = *self->vcpu[1].page;
	i = ARRAY_SIZE(data) - 1;
	expected = oracle_at(&page, kvmclock_guest_tsc(&self->vcpu[1], data[i].host_tsc));
	TEST_ASSERT(data[i].clock == expected, "%llu, the guest's line has %lu: %+ld ns",
		    data[i].clock, expected, (int64_t)(data[i].clock - expected));
}

/*
 * A rate of the guest's own.  Where hardware scales the TSC, all that holds
 * without scaling holds with it.  Where it does not, a rate below the host's
 * is refused, and refusing it must leave no trace.
 */
TEST_F(kvmclock_line, other_rate)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	unsigned long host_khz = __vcpu_ioctl(kv[0].vcpu, KVM_GET_TSC_KHZ, NULL);
	unsigned long khz = host_khz / 7 * 5 + 1;
	struct pvclock_vcpu_time_info first;
	unsigned int i;
	int r;

	TEST_ASSERT((long)host_khz > 0, "no TSC rate");
	kvmclock_enable_all(kv, 2);
	first = *kv[0].page;

	for (i = 0; i < 2; i++) {
		r = __vcpu_ioctl(kv[i].vcpu, KVM_SET_TSC_KHZ, (void *)khz);
		if (kvm_has_cap(KVM_CAP_TSC_CONTROL))
			TEST_ASSERT(!r, "%lu kHz: errno %d", khz, errno);
		else
			TEST_ASSERT(r == -1 && errno == EINVAL, "%lu kHz: %d, errno %d", khz, r,
				    errno);
	}
	kvmclock_enter(&kv[0]);
	kvmclock_enter(&kv[1]);

	if (!kvm_has_cap(KVM_CAP_TSC_CONTROL)) {
		assert_unmoved(&kv[0], &first, "a refused rate");
		r = __vcpu_ioctl(kv[0].vcpu, KVM_GET_TSC_KHZ, NULL);
		TEST_ASSERT(r == (int)host_khz, "the rate is %d kHz now", r);
	} else {
		first = *kv[0].page;
		usleep(DRIFT_US / 10);
		kvmclock_force_update(&kv[0]);
		assert_unmoved(&kv[0], &first, "one forced update");
	}
	assert_get_clock(self->vm, &kv[0]);
	assert_agree(&kv[0], &kv[1]);
}

struct relay {
	uint32_t turn;
	uint32_t last_turn;
	uint32_t nr_vcpus;
	uint64_t last;
	uint32_t unstable;	/* readings that were not comparable */
};

static struct relay relay;

/*
 * The vCPUs read the clock in turn, each no earlier than the one before; while
 * it waits each looks whether its own goes backwards. vCPU 0 forces an update
 * in each of its turns.
 */
static void guest_relay(struct kvmclock_mail *mail)
{
	struct pvclock_vcpu_time_info *page = mail->page_gva;
	uint32_t id = mail->value, updates = 0, turn;
	uint64_t now, tsc, own = 0, gpa_enabled;
	uint8_t flags;

	gpa_enabled = rdmsr(MSR_KVM_SYSTEM_TIME_NEW);
	for (;;) {
		now = kvmclock_guest_read(page, &tsc, &flags);
		__GUEST_ASSERT(now >= own, "vCPU %u: %lu after %lu", id, now, own);
		own = now;

		turn = READ_ONCE(relay.turn);
		if (turn >= READ_ONCE(relay.last_turn))
			break;
		if (turn % relay.nr_vcpus != id) {
			cpu_relax();
			continue;
		}

		/* Pairs with wmb(): the turn comes after what it hands over. */
		rmb();
		now = kvmclock_guest_read(page, &tsc, &flags);
		__GUEST_ASSERT(now >= own, "vCPU %u: %lu after %lu", id, now, own);
		own = now;
		if (flags & PVCLOCK_TSC_STABLE_BIT)
			__GUEST_ASSERT(now >= relay.last, "vCPU %u: %lu after %lu of vCPU %u", id,
				       now, relay.last, (id + relay.nr_vcpus - 1) % relay.nr_vcpus);
		else
			relay.unstable++;
		relay.last = now;

		if (id == 0)
			wrmsr(updates++ & 1 ? MSR_KVM_SYSTEM_TIME_NEW : MSR_KVM_SYSTEM_TIME,
			      gpa_enabled);
		/* Pairs with rmb(). */
		wmb();
		WRITE_ONCE(relay.turn, turn + 1);
	}
	GUEST_DONE();
}

TEST(never_backwards)
{
	struct kvmclock_vcpu kv[MAX_VCPUS];
	pthread_t thread[MAX_VCPUS];
	struct kvm_vm *vm = vm_create(MAX_VCPUS);
	struct kvm_clock_data data;
	struct relay *shared;
	uint64_t last = 0, readings = 0, end = 0;
	unsigned int i, nr;
	cpu_set_t cpus;

	/* One vCPU more than CPUs would spend its time waiting for them. */
	TEST_ASSERT(!sched_getaffinity(0, sizeof(cpus), &cpus), "sched_getaffinity()");
	nr = min_t(unsigned int, CPU_COUNT(&cpus), MAX_VCPUS);
	nr = max(nr, 2U);

	relay.nr_vcpus = nr;
	relay.last_turn = NR_TURNS;
	for (i = 0; i < nr; i++) {
		kvmclock_vcpu_add_running(vm, &kv[i], i, guest_relay);
		kv[i].mail->value = i;
		vcpu_set_msr(kv[i].vcpu, MSR_KVM_SYSTEM_TIME_NEW, kv[i].page_gpa | KVM_MSR_ENABLED);
	}
	sync_global_to_guest(vm, relay);
	shared = addr_gva2hva(vm, (gva_t)&relay);

	for (i = 0; i < nr; i++) {
		TEST_ASSERT(!pthread_create(&thread[i], NULL, kvmclock_run_until_done, &kv[i]),
			    "pthread_create() failed");
		kvmclock_pin(thread[i], i);
	}
	while (READ_ONCE(shared->turn) < READ_ONCE(shared->last_turn)) {
		data = kvmclock_get(vm);
		TEST_ASSERT(data.clock >= last, "KVM_GET_CLOCK: %llu after %lu", data.clock, last);
		last = data.clock;
		readings++;
		if (readings == 1)
			end = data.clock + TURNS_NS;
		if (data.clock > end && shared->turn > NR_TURNS_MIN)
			WRITE_ONCE(shared->last_turn, 0);
		usleep(100);
	}
	for (i = 0; i < nr; i++)
		pthread_join(thread[i], NULL);

	TEST_ASSERT(shared->turn > NR_TURNS_MIN, "%u turns", shared->turn);
	TEST_ASSERT(!shared->unstable, "%u readings without the stable bit", shared->unstable);
	TEST_ASSERT(readings, "no reading of KVM_GET_CLOCK");
	kvm_vm_free(vm);
}

/*
 * What it costs to start: each vCPU's page is written once, when its guest
 * asks for it, and not because others start.  Their threads stay where they
 * are, so that no move to another CPU is a reason to write.
 */
TEST(updates_at_start)
{
	struct kvmclock_vcpu kv[NR_STARTING];
	struct runner runner[NR_STARTING];
	pthread_t thread[NR_STARTING];
	struct kvm_vm *vm = vm_create(NR_STARTING);
	unsigned int i, round;

	for (i = 0; i < NR_STARTING; i++)
		kvmclock_vcpu_add(vm, &kv[i], i);

	for (round = 1; round <= 2; round++) {
		for (i = 0; i < NR_STARTING; i++) {
			runner[i] = (struct runner) {
				.kv = &kv[i],
				.cpu = i,
				.enable_msr = MSR_KVM_SYSTEM_TIME_NEW,
			};
			TEST_ASSERT(!pthread_create(&thread[i], NULL, enter_until_stopped,
						    &runner[i]), "pthread_create() failed");
		}

		/* The stock kernel repeats updates a tenth of a second later. */
		usleep(500000);
		for (i = 0; i < NR_STARTING; i++)
			WRITE_ONCE(runner[i].stop, true);
		for (i = 0; i < NR_STARTING; i++)
			pthread_join(thread[i], NULL);

		for (i = 0; i < NR_STARTING; i++)
			TEST_ASSERT(kv[i].page->version == 2 * round,
				    "vCPU %u wrote its MSR %u times, its page was written %u times",
				    i, round, kv[i].page->version / 2);
	}
	kvm_vm_free(vm);
}

/* For people: the same two questions as above, answered instead of asserted. */
static int print_report(void)
{
	struct pvclock_vcpu_time_info first;
	struct kvmclock_vcpu kv;
	struct kvm_vm *vm = vm_create(1);
	int64_t off, moved;
	uint32_t updates;
	unsigned int i;

	kvmclock_vcpu_add(vm, &kv, 0);
	kvmclock_enable_all(&kv, 1);
	first = *kv.page;
	usleep(DRIFT_US);

	off = get_clock_errors(vm, &kv, NR_READINGS);
	printf("report: KVM_GET_CLOCK, %d times: at most %ld ns from the guest at the same TSC\n",
	       NR_READINGS, (long)llabs(off));

	for (i = 0; i < NR_UPDATES; i++)
		kvmclock_force_update(&kv);
	updates = (kv.page->version - first.version) / 2;
	moved = kvmclock_movement(&first, kv.page, kvmclock_guest_tsc(&kv, rdtsc()));
	printf("report: %u forced updates moved the clock of a test VM by %ld ns\n",
	       updates, (long)moved);

	kvm_vm_free(vm);
	return off || moved || updates < NR_UPDATES ? KSFT_FAIL : KSFT_PASS;
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	if (argc == 2 && !strcmp(argv[1], "--report"))
		return print_report();
	return test_harness_run(argc, argv);
}
