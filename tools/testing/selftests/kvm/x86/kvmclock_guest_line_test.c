// SPDX-License-Identifier: GPL-2.0-only
/*
 * KVM_GET_CLOCK_GUEST and KVM_SET_CLOCK_GUEST: the clock as a line over a vCPU's
 * TSC.  What is imported is what everyone reads from then on, at every value of
 * that TSC; what can't be is refused, and nothing has happened.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "kvmclock_host.h"
#include "processor.h"
#include "test_util.h"

#define NR_VCPUS	3
#define NR_LINES	300
#define NR_RUNNERS	2
#define NR_RACES	1000
#define RACE_STEP_NS	1000

static uint64_t random_state = 20261121;

static uint64_t random_u64(void)
{
	return kvmclock_random(&random_state);
}

FIXTURE(kvmclock_guest_line) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_VCPUS];
	struct pvclock_vcpu_time_info first;	/* over the TSC of vCPU 0 */
	uint64_t hz;
};

FIXTURE_SETUP(kvmclock_guest_line)
{
	unsigned int i;
	int khz;

	self->vm = vm_create(NR_VCPUS);
	for (i = 0; i < NR_VCPUS; i++)
		kvmclock_vcpu_add(self->vm, &self->vcpu[i], i);
	kvmclock_enable_all(self->vcpu, NR_VCPUS);

	self->first = kvmclock_get_line(&self->vcpu[0]);
	khz = __vcpu_ioctl(self->vcpu[0].vcpu, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT(khz > 0, "no TSC rate: %d, errno %d", khz, errno);
	self->hz = khz * 1000ULL;
}

FIXTURE_TEARDOWN(kvmclock_guest_line)
{
	kvm_vm_free(self->vm);
}

/* The page of each vCPU, the exported line and KVM_GET_CLOCK are this line. */
static void assert_everyone_has(FIXTURE_DATA(kvmclock_guest_line) * self,
				const struct pvclock_vcpu_time_info *line, uint64_t offset,
				const char *by)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct pvclock_vcpu_time_info want, page, got;
	struct kvm_clock_data data;
	int64_t moved;
	unsigned int i;
	uint64_t tsc;

	for (i = 0; i < NR_VCPUS; i++) {
		want = *line;
		want.tsc_timestamp += kvmclock_tsc_offset(&kv[i]) - offset;

		got = kvmclock_get_line(&kv[i]);
		page = kvmclock_read_page(kv[i].page);
		TEST_ASSERT(oracle_same_line(&got, &want),
			    "vCPU %u: another line exported after %s", i, by);
		TEST_ASSERT(oracle_same_line(&page, &want),
			    "vCPU %u: another line in its page after %s", i, by);
		TEST_ASSERT(page.flags == got.flags, "vCPU %u: flags 0x%x, exported 0x%x", i,
			    page.flags, got.flags);

		data = kvmclock_get(self->vm);
		tsc = kvmclock_guest_tsc(&kv[i], data.host_tsc);
		TEST_ASSERT(oracle_at(&want, tsc) == data.clock,
			    "vCPU %u: KVM_GET_CLOCK is %+ld ns from the line after %s", i,
			    (int64_t)(data.clock - oracle_at(&want, tsc)), by);
		TEST_ASSERT(kvmclock_call(&kv[i], KVMCLOCK_READ_AT, 0, tsc) == data.clock,
			    "vCPU %u: the guest has another time after %s", i, by);

		/* Where its arithmetic overflows before long there is no later. */
		if (tsc - want.tsc_timestamp < 1ULL << 60) {
			moved = kvmclock_movement(&want, &page, tsc);
			TEST_ASSERT(!moved, "vCPU %u: %+ld ns off after %s", i, moved, by);
		}
	}
}

static void assert_stable(FIXTURE_DATA(kvmclock_guest_line) * self, bool stable)
{
	unsigned int i;

	for (i = 0; i < NR_VCPUS; i++)
		TEST_ASSERT(!!(self->vcpu[i].page->flags & PVCLOCK_TSC_STABLE_BIT) == stable,
			    "vCPU %u: flags 0x%x, %sstable expected", i, self->vcpu[i].page->flags,
			    stable ? "" : "un");
}

static uint64_t tsc_now(struct kvmclock_vcpu *kv)
{
	return kvmclock_guest_tsc(kv, rdtsc());
}

TEST_F(kvmclock_guest_line, export)
{
	struct pvclock_vcpu_time_info page, line;
	unsigned int i;

	assert_everyone_has(self, &self->first, kvmclock_tsc_offset(&self->vcpu[0]), "nothing");
	for (i = 0; i < NR_VCPUS; i++) {
		line = kvmclock_get_line(&self->vcpu[i]);
		page = kvmclock_read_page(self->vcpu[i].page);
		page.version = 0;
		TEST_ASSERT(!memcmp(&page, &line, sizeof(page)), "vCPU %u: not its page", i);
	}

	/* What is exported is accepted, and changes nothing. */
	for (i = 0; i < NR_VCPUS; i++) {
		kvmclock_set_line(&self->vcpu[i], &self->first);
		kvmclock_enter_all(self->vcpu, NR_VCPUS);
		assert_everyone_has(self, &self->first, kvmclock_tsc_offset(&self->vcpu[0]),
				    "a line of its own");
		assert_stable(self, true);
	}
}

TEST_F(kvmclock_guest_line, import)
{
	static const uint64_t times[] = { 0, 1, 1ULL << 32, 1ULL << 62, 1ULL << 63, -1ULL };
	struct pvclock_vcpu_time_info line = self->first;
	unsigned int shift = max_t(int, line.tsc_shift, 0);
	struct kvmclock_vcpu *kv = self->vcpu;
	unsigned int i;
	int r;

	for (i = 0; i < NR_LINES; i++) {
		/* References of now, of long ago, and before TSC 0. */
		line.tsc_timestamp = tsc_now(&kv[i % NR_VCPUS]) -
				     (random_u64() >> (3 + shift + i % (60 - shift)));
		line.system_time = i < ARRAY_SIZE(times) ? times[i] : random_u64();
		line.tsc_to_system_mul = self->first.tsc_to_system_mul + random_u64() % 1001 - 500;

		/* Accepted, and none of the import's business. */
		line.version = random_u64();
		line.flags = i % 4;

		kvmclock_set_line(&kv[i % NR_VCPUS], &line);
		kvmclock_enter_all(kv, NR_VCPUS);
		assert_everyone_has(self, &line, kvmclock_tsc_offset(&kv[0]), "an import");
		assert_stable(self, true);
		TEST_ASSERT(!(kv[0].page->flags & PVCLOCK_GUEST_STOPPED), "flags imported");
	}

	/* Halfway to where the clock would go back. */
	line.tsc_timestamp = tsc_now(&kv[0]) - (1ULL << (62 - shift));
	r = __kvmclock_set_line(&kv[0], &line);
	TEST_ASSERT(r == -EINVAL, "a reference out of reach: %d", r);
}

/* One import, one update: of all pages, by the first vCPU that runs. */
TEST_F(kvmclock_guest_line, all_pages_once)
{
	struct pvclock_vcpu_time_info line = self->first;
	struct kvmclock_vcpu *kv = self->vcpu;
	uint32_t version[NR_VCPUS];
	unsigned int i, round;

	for (round = 0; round < 10; round++) {
		for (i = 0; i < NR_VCPUS; i++)
			version[i] = kv[i].page->version;
		line.system_time += 1000;
		kvmclock_set_line(&kv[0], &line);
		kvmclock_enter(&kv[round % NR_VCPUS]);
		for (i = 0; i < NR_VCPUS; i++) {
			TEST_ASSERT(kv[i].page->version == version[i] + 2,
				    "vCPU %u: version %u after %u", i, kv[i].page->version,
				    version[i]);
			TEST_ASSERT(oracle_same_line(kv[i].page, &line),
				    "vCPU %u: another line", i);
		}
	}
}

TEST_F(kvmclock_guest_line, other_offsets)
{
	static const int64_t steps[] = { 1, -1, 1000000007, -(1LL << 40), 1LL << 62 };
	struct kvmclock_vcpu *kv = self->vcpu;
	struct pvclock_vcpu_time_info line;
	uint64_t offset = kvmclock_tsc_offset(&kv[0]);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		kvmclock_set_tsc_offset(&kv[1], offset + steps[i]);

		line = self->first;
		line.system_time += 1 + random_u64() % NSEC_PER_SEC;
		line.tsc_timestamp = tsc_now(&kv[1]) - random_u64() % self->hz;
		kvmclock_set_line(&kv[1], &line);
		kvmclock_enter_all(kv, NR_VCPUS);
		assert_everyone_has(self, &line, offset + steps[i], "an import over another TSC");
		assert_stable(self, false);
	}

	kvmclock_set_tsc_offset(&kv[1], offset);
	kvmclock_enter_all(kv, NR_VCPUS);
	assert_everyone_has(self, &line, offset + steps[i - 1], "TSCs that are equal again");
	assert_stable(self, true);
}

static void assert_refused(FIXTURE_DATA(kvmclock_guest_line) * self,
			   const struct pvclock_vcpu_time_info *line, int error, const char *what)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct pvclock_vcpu_time_info before[NR_VCPUS];
	uint64_t offset = kvmclock_tsc_offset(&kv[0]);
	unsigned int i;
	int r;

	for (i = 0; i < NR_VCPUS; i++)
		before[i] = kvmclock_read_page(kv[i].page);

	r = __kvmclock_set_line(&kv[0], line);
	TEST_ASSERT(r == -error, "%s: %s, %s expected", what, strerror(-r), strerror(error));

	kvmclock_enter_all(kv, NR_VCPUS);
	TEST_ASSERT(kvmclock_tsc_offset(&kv[0]) == offset, "%s: the TSC moved", what);
	for (i = 0; i < NR_VCPUS; i++)
		TEST_ASSERT(!memcmp(&before[i], kv[i].page, sizeof(before[i])),
			    "%s: the page of vCPU %u was written", what, i);
}

/* The mul of a counter that is so many Hz faster. */
static uint32_t mul_of(const struct pvclock_vcpu_time_info *line, uint64_t hz)
{
	unsigned __int128 mul = (unsigned __int128)NSEC_PER_SEC << 32;

	mul = line->tsc_shift < 0 ? mul << -line->tsc_shift : mul >> line->tsc_shift;
	return mul / hz;
}

TEST_F(kvmclock_guest_line, refusals)
{
	static const uint32_t short_muls[] = { 1, 2, 0xffff, 1U << 30, (1U << 31) - 1 };
	static const int8_t shifts[] = { -128, -33, -32, 32, 33, 127 };
	unsigned int shift = max_t(int, self->first.tsc_shift, 0);
	struct kvmclock_vcpu *kv = self->vcpu;
	struct pvclock_vcpu_time_info line;
	unsigned int i;
	int r;

	for (i = 0; i < 32; i++) {
		line = self->first;
		line.pad0 = 1U << i;
		assert_refused(self, &line, EINVAL, "padding");
	}
	for (i = 0; i < 16; i++) {
		line = self->first;
		line.pad[i / 8] = 1U << (i % 8);
		assert_refused(self, &line, EINVAL, "padding");
	}
	for (i = 2; i < 8; i++) {
		line = self->first;
		line.flags |= 1U << i;
		assert_refused(self, &line, EINVAL, "an unknown flag");
	}
	for (i = 0; i < ARRAY_SIZE(shifts); i++) {
		line = self->first;
		line.tsc_shift = shifts[i];
		assert_refused(self, &line, EINVAL, "a shift out of range");
	}
	for (i = 0; i < ARRAY_SIZE(short_muls); i++) {
		line = self->first;
		line.tsc_to_system_mul = short_muls[i];
		assert_refused(self, &line, EINVAL, "a mul with a leading zero");
	}

	line = self->first;
	line.tsc_to_system_mul = 0;
	assert_refused(self, &line, ERANGE, "a mul of 0");
	for (i = 0; i < 63; i++) {
		line = self->first;
		line.tsc_shift = (int)i - 31;
		if (line.tsc_shift != self->first.tsc_shift)
			assert_refused(self, &line, ERANGE, "another power of two");
	}
	line = self->first;
	line.tsc_to_system_mul = mul_of(&line, self->hz + 1010);
	assert_refused(self, &line, ERANGE, "1010 Hz too fast");
	line.tsc_to_system_mul = mul_of(&line, self->hz - 1010);
	assert_refused(self, &line, ERANGE, "1010 Hz too slow");

	/* An hour, a century, and the last value that is not before the TSC. */
	const uint64_t ahead[] = { 3600 * self->hz, 1ULL << 62, (1ULL << 63) - 1 };

	for (i = 0; i < ARRAY_SIZE(ahead); i++) {
		line = self->first;
		line.tsc_timestamp = tsc_now(&kv[0]) + ahead[i];
		assert_refused(self, &line, EINVAL, "a reference to come");
	}

	/*
	 * Cycles since the reference, times two to the shift, are to fit in 62 bits:
	 * half of the 63 after which the clock goes back, be it in an hour.
	 */
	line = self->first;
	line.tsc_timestamp = tsc_now(&kv[0]) - (1ULL << (62 - shift));
	assert_refused(self, &line, EINVAL, "a reference too long ago");
	line.tsc_timestamp = tsc_now(&kv[0]) - (1ULL << (63 - shift)) + 3600 * self->hz;
	assert_refused(self, &line, EINVAL, "a reference that is good for an hour");

	r = ioctl(kv[0].vcpu->fd, KVM_SET_CLOCK_GUEST, 0x1000) ? errno : 0;
	TEST_ASSERT(r == EFAULT, "set from nowhere: %s", strerror(r));
	r = ioctl(kv[0].vcpu->fd, KVM_GET_CLOCK_GUEST, 0x1000) ? errno : 0;
	TEST_ASSERT(r == EFAULT, "get to nowhere: %s", strerror(r));
	assert_everyone_has(self, &self->first, kvmclock_tsc_offset(&kv[0]), "all refusals");

	/* The other side of each limit. */
	line.tsc_to_system_mul = mul_of(&line, self->hz + 990);
	line.tsc_timestamp = tsc_now(&kv[0]);
	kvmclock_set_line(&kv[0], &line);
	line.tsc_to_system_mul = mul_of(&line, self->hz - 990);
	kvmclock_set_line(&kv[0], &line);
	line.tsc_timestamp = tsc_now(&kv[0]) - (1ULL << (62 - shift)) + 3600 * self->hz;
	kvmclock_set_line(&kv[0], &line);
	kvmclock_enter_all(kv, NR_VCPUS);
	assert_everyone_has(self, &line, kvmclock_tsc_offset(&kv[0]), "what is just allowed");
}

/* Where the TSC is moved in software there is no line over it. */
TEST_F(kvmclock_guest_line, software_tsc)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	unsigned long khz = self->hz / 1000 / 7 * 10 + 1;
	struct pvclock_vcpu_time_info line;
	int r;

	if (kvm_has_cap(KVM_CAP_TSC_CONTROL))
		SKIP(return, "the TSC is scaled by hardware");

	r = __vcpu_ioctl(kv[0].vcpu, KVM_SET_TSC_KHZ, (void *)khz);
	TEST_ASSERT(!r, "%lu kHz: errno %d", khz, errno);
	r = __vcpu_ioctl(kv[0].vcpu, KVM_GET_CLOCK_GUEST, &line) ? errno : 0;
	TEST_ASSERT(r == ENODATA, "get: %s", strerror(r));
	r = __kvmclock_set_line(&kv[0], &self->first);
	TEST_ASSERT(r == -ENODATA, "set: %s", strerror(-r));

	/* The others' is still there. */
	line = kvmclock_get_line(&kv[1]);
	TEST_ASSERT(oracle_same_line(&line, &self->first), "another line");
	kvmclock_set_line(&kv[1], &line);
}

/* A KVM that rounds otherwise, or whose host has another rate: guests come with its mul. */
TEST_F(kvmclock_guest_line, slope_is_kept)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	uint64_t offset = kvmclock_tsc_offset(&kv[0]);
	struct pvclock_vcpu_time_info line;
	uint64_t since, until, passed;
	int64_t error;
	unsigned int i;

	line = self->first;
	line.tsc_to_system_mul--;
	kvmclock_set_line(&kv[0], &line);
	kvmclock_enter_all(kv, NR_VCPUS);
	assert_everyone_has(self, &line, offset, "another mul");

	for (i = 0; i < 10; i++) {
		kvmclock_force_update(&kv[0]);
		kvmclock_set_tsc_offset(&kv[1], offset + 1 + i);
		kvmclock_enter_all(kv, NR_VCPUS);
		kvmclock_set_tsc_offset(&kv[1], offset);
		kvmclock_enter_all(kv, NR_VCPUS);
		assert_everyone_has(self, &line, offset, "updates");
		assert_stable(self, true);
	}

	for (i = 0; i < 10; i++) {
		since = rdtsc();
		kvmclock_set(self->vm, i * NSEC_PER_SEC);
		until = rdtsc();
		line = kvmclock_get_line(&kv[0]);
		kvmclock_enter_all(kv, NR_VCPUS);
		assert_everyone_has(self, &line, offset, "KVM_SET_CLOCK");
		TEST_ASSERT(line.tsc_to_system_mul == self->first.tsc_to_system_mul - 1 &&
			    line.tsc_shift == self->first.tsc_shift,
			    "mul %u, shift %d after KVM_SET_CLOCK", line.tsc_to_system_mul,
			    line.tsc_shift);

		/* At the call it had the value: rounded down twice. */
		since = kvmclock_guest_tsc(&kv[0], since);
		until = kvmclock_guest_tsc(&kv[0], until);
		passed = oracle_scale(&line, until - since);
		error = oracle_at(&line, until) - i * NSEC_PER_SEC;
		TEST_ASSERT(error >= 0 && error <= (int64_t)passed + 2,
			    "%+ld ns after a set that took %lu ns", error, passed);
	}
}

TEST_F(kvmclock_guest_line, slope_survives_clocksource)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct pvclock_vcpu_time_info line = self->first;
	struct kvm_clock_data data, last = {};
	unsigned int i;
	int r;

	line.tsc_to_system_mul -= 100;
	kvmclock_set_line(&kv[0], &line);

	for (i = 0; i < 3; i++) {
		last = kvmclock_get(self->vm);
		write_file_ok(CLOCKSOURCE, other_clocksource());
		do {
			usleep(1000);
			data = kvmclock_get(self->vm);
			TEST_ASSERT(data.clock >= last.clock, "%llu after %llu", data.clock,
				    last.clock);
			last = data;
		} while (data.flags & KVM_CLOCK_TSC_STABLE);

		kvmclock_enter_all(kv, NR_VCPUS);
		r = __vcpu_ioctl(kv[0].vcpu, KVM_GET_CLOCK_GUEST, &line) ? errno : 0;
		TEST_ASSERT(r == ENODATA, "get: %s", strerror(r));
		r = __kvmclock_set_line(&kv[0], &self->first);
		TEST_ASSERT(r == -ENODATA, "set: %s", strerror(-r));

		write_file_ok(CLOCKSOURCE, clocksource);
		do {
			usleep(1000);
			kvmclock_enter_all(kv, NR_VCPUS);
			data = kvmclock_get(self->vm);
			TEST_ASSERT(data.clock >= last.clock, "%llu after %llu", data.clock,
				    last.clock);
			last = data;
		} while (!(data.flags & KVM_CLOCK_TSC_STABLE));

		kvmclock_enter_all(kv, NR_VCPUS);
		line = kvmclock_get_line(&kv[0]);
		TEST_ASSERT(line.tsc_to_system_mul == self->first.tsc_to_system_mul - 100 &&
			    line.tsc_shift == self->first.tsc_shift,
			    "mul %u, shift %d after the clocksource went and came back",
			    line.tsc_to_system_mul, line.tsc_shift);
		assert_everyone_has(self, &line, kvmclock_tsc_offset(&kv[0]), "its return");
		assert_stable(self, true);
	}
}

/* In the guest's memory: the highest clock that any vCPU has read. */
static uint64_t watch_last;

static void guest_watch(struct kvmclock_mail *mail)
{
	uint64_t now, last, tsc;
	unsigned int i;
	uint8_t flags;

	for (;;) {
		for (i = 0; i < 10; i++) {
			last = READ_ONCE(watch_last);
			/* What is read next is read after what it is compared with. */
			mb();
			now = kvmclock_guest_read(mail->page_gva, &tsc, &flags);
			__GUEST_ASSERT(now >= last, "%lu after %lu", now, last);
			kvmclock_raise(&watch_last, now);
		}
		GUEST_SYNC(0);
	}
}

/*
 * Guests that run while the line is moved forward: it changes for all of them
 * at once, or one would read more before than another one after.
 */
TEST_F_TIMEOUT(kvmclock_guest_line, import_under_running_vcpus, 120)
{
	struct kvmclock_runner runner[NR_RUNNERS] = {};
	struct kvm_vm *vm = vm_create(NR_RUNNERS);
	struct pvclock_vcpu_time_info line, got;
	unsigned int i;

	kvmclock_runners_add(vm, runner, NR_RUNNERS, guest_watch);
	line = kvmclock_get_line(&runner[0].kv);
	kvmclock_runners_start(runner, NR_RUNNERS);

	for (i = 0; i < NR_RACES; i++) {
		line.system_time += RACE_STEP_NS;
		kvmclock_set_line(&runner[i % NR_RUNNERS].kv, &line);
		got = kvmclock_get_line(&runner[random_u64() % NR_RUNNERS].kv);
		TEST_ASSERT(oracle_same_line(&got, &line), "another line than the imported");
	}

	kvmclock_runners_stop(runner, NR_RUNNERS);
	for (i = 0; i < NR_RUNNERS; i++) {
		got = kvmclock_read_page(runner[i].kv.page);
		TEST_ASSERT(oracle_same_line(&got, &line) || kvmclock_vcpu_run(runner[i].kv.vcpu),
			    "ended early");
		got = kvmclock_read_page(runner[i].kv.page);
		TEST_ASSERT(oracle_same_line(&got, &line),
			    "vCPU %u: another line in its page", i);
	}
	TEST_ASSERT(*(uint64_t *)addr_gva2hva(vm, (gva_t)&watch_last), "nobody watched");
	kvm_vm_free(vm);
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	return run_guarded(argc, argv);
}
