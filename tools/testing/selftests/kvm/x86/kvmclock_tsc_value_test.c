// SPDX-License-Identifier: GPL-2.0-only
/*
 * KVM_VCPU_TSC_VALUE, and restoring a VM by it: a guest TSC and the clock are
 * saved and restored as what they are to each other.
 *
 * What a pair stands for is computed anew in 128 bits, and compared for
 * equality: to the cycle and to the nanosecond, however slow the machine is.
 * With "--report" the test says in words what each way to restore leaves behind.
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

#define HOUR_NS		(3600 * NSEC_PER_SEC)

#define NR_PAIRS	1000
#define NR_MANY		64	/* vCPUs of one VM */
#define NR_ORDERS	100
#define NR_GENERATIONS	1000
#define NR_ENDING	16
#define NR_RACES	2000
#define NR_RUNNERS	2

/* Half a year, and some: slopes that differ by 0.2 ppb are 3 ms apart then. */
#define LONG_AWAY_NS	(12345678 * NSEC_PER_SEC)

/* Each case has a process of its own, and begins with the same numbers. */
static uint64_t random_state = 20261121;

static uint64_t random_u64(void)
{
	return kvmclock_random(&random_state);
}

static void shuffle(unsigned int *order, unsigned int nr)
{
	unsigned int i, j, last;

	for (i = 0; i < nr; i++)
		order[i] = i;
	for (i = nr - 1; i > 0; i--) {
		j = random_u64() % (i + 1);
		last = order[i];
		order[i] = order[j];
		order[j] = last;
	}
}

/* Cycles per reading of the clock that drops none: 2^-shift. */
static uint64_t granule(const struct pvclock_vcpu_time_info *line)
{
	return line->tsc_shift < 0 ? 1ULL << -line->tsc_shift : 1;
}

/*
 * The TSC at which a line is at @ns and @frac 2^-32 ns, to the nearest cycle,
 * ties up.  Elapsed time is signed: it takes 96 bits, and with a shift as near
 * to 0 as that of any real TSC twice as much of it has a place in 128.
 */
static uint64_t tsc_at(const struct pvclock_vcpu_time_info *line, uint64_t ns, uint32_t frac)
{
	__int128 elapsed = (__int128)(int64_t)(ns - line->system_time) * (1LL << 32) + frac;
	__int128 divisor = line->tsc_to_system_mul, cycles;

	TEST_ASSERT(abs(line->tsc_shift) < 16, "shift %d", line->tsc_shift);
	if (line->tsc_shift < 0)
		elapsed *= 1LL << -line->tsc_shift;
	else
		divisor <<= line->tsc_shift;

	elapsed = 2 * elapsed + divisor;
	cycles = elapsed / (2 * divisor);
	if (cycles * 2 * divisor > elapsed)
		cycles--;
	return line->tsc_timestamp + (uint64_t)cycles;
}

/* The line as it were over a TSC with offset 0. */
static struct pvclock_vcpu_time_info scaled_line(struct kvmclock_vcpu *kv)
{
	struct pvclock_vcpu_time_info line = kvmclock_get_line(kv);

	line.tsc_timestamp -= kvmclock_tsc_offset(kv);
	return line;
}

static bool is_stable(const struct pvclock_vcpu_time_info *line)
{
	return line->flags & PVCLOCK_TSC_STABLE_BIT;
}

static void assert_offset(struct kvmclock_vcpu *kv, uint64_t expected, const char *by)
{
	uint64_t offset = kvmclock_tsc_offset(kv);

	TEST_ASSERT(offset == expected, "vCPU %u: %+ld cycles from what was asked for by %s",
		    kv->vcpu->id, (int64_t)(offset - expected), by);
}

FIXTURE(kvmclock_tsc_value) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[2];
	struct pvclock_vcpu_time_info first;	/* over the scaled TSC */
};

FIXTURE_SETUP(kvmclock_tsc_value)
{
	unsigned int i;

	self->vm = vm_create(ARRAY_SIZE(self->vcpu));
	for (i = 0; i < ARRAY_SIZE(self->vcpu); i++)
		kvmclock_vcpu_add(self->vm, &self->vcpu[i], i);
	self->first = scaled_line(&self->vcpu[0]);
}

FIXTURE_TEARDOWN(kvmclock_tsc_value)
{
	kvm_vm_free(self->vm);
}

/* All of the vCPU's clock: the line, whose slope is @old's, is where it was. */
static void assert_line_unmoved(struct kvmclock_vcpu *kv, const struct pvclock_vcpu_time_info *old,
				const char *by)
{
	struct pvclock_vcpu_time_info now = scaled_line(kv);

	TEST_ASSERT(oracle_same_line(&now, old),
		    "vCPU %u: another line by %s: at %lu %lu, was at %lu %lu",
		    kv->vcpu->id, by, (uint64_t)now.tsc_timestamp, (uint64_t)now.system_time,
		    (uint64_t)old->tsc_timestamp, (uint64_t)old->system_time);
}

/* A pair is on the line, has all of it, and is of no other time than the call. */
static void assert_one_instant(struct kvmclock_vcpu *kv)
{
	struct pvclock_vcpu_time_info line = kvmclock_get_line(kv);
	uint64_t since, until, tsc, cycles, ns;
	struct kvm_vcpu_tsc_value value;
	unsigned int i, j;
	uint32_t frac;

	for (i = 0; i < NR_PAIRS; i++) {
		since = rdtsc();
		value = kvmclock_get_value(kv);
		until = rdtsc();

		tsc = value.tsc_val;
		since = kvmclock_guest_tsc(kv, since);
		until = kvmclock_guest_tsc(kv, until);
		TEST_ASSERT(until - tsc < until - since + granule(&line) && tsc <= until,
			    "TSC %lu, not from %lu to %lu", tsc, since, until);

		cycles = tsc - line.tsc_timestamp;
		TEST_ASSERT(cycles % granule(&line) == 0, "%lu cycles: the clock drops some",
			    cycles);
		ns = oracle_at(&line, tsc);
		TEST_ASSERT(value.kvm_ns == ns, "%llu ns, the line has %lu", value.kvm_ns, ns);

		cycles = line.tsc_shift < 0 ? cycles >> -line.tsc_shift :
					      cycles << line.tsc_shift;
		frac = (uint32_t)cycles * line.tsc_to_system_mul;
		TEST_ASSERT(value.kvm_frac == frac, "fraction %u, the line has %u", value.kvm_frac,
			    frac);

		TEST_ASSERT(value.flags == KVM_TSC_VALUE_FRAC, "flags 0x%x", value.flags);
		for (j = 0; j < ARRAY_SIZE(value.reserved); j++)
			TEST_ASSERT(!value.reserved[j], "reserved %u: 0x%llx", j,
				    value.reserved[j]);
	}
}

TEST_F(kvmclock_tsc_value, one_instant)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct kvm_vcpu_tsc_value value;
	uint64_t guest;
	unsigned int i;

	/* Before the first run there is no page, but there is a line. */
	assert_one_instant(&kv[0]);
	kvmclock_set_tsc_offset(&kv[1], kvmclock_tsc_offset(&kv[0]) + 12345);
	assert_one_instant(&kv[1]);

	kvmclock_enable_all(kv, 2);
	for (i = 0; i < 2; i++) {
		assert_one_instant(&kv[i]);
		value = kvmclock_get_value(&kv[i]);
		guest = kvmclock_call(&kv[i], KVMCLOCK_READ_AT, 0, value.tsc_val);
		TEST_ASSERT(guest == value.kvm_ns, "%llu ns, the guest has %lu", value.kvm_ns,
			    guest);
	}

	/* With the reference right at the call, too. */
	for (i = 0; i < NR_PAIRS; i++) {
		struct pvclock_vcpu_time_info line;

		kvmclock_set(self->vm, i);
		value = kvmclock_get_value(&kv[0]);
		line = kvmclock_get_line(&kv[0]);
		TEST_ASSERT(value.tsc_val - line.tsc_timestamp < 1ULL << 62,
			    "TSC %llu is before the reference %llu", value.tsc_val,
			    (unsigned long long)line.tsc_timestamp);
	}
}

/*
 * The vCPU's TSC is @tsc_val when the clock is at @ns: what that makes of it
 * follows from the line alone.
 */
static void assert_set_exactly(struct kvmclock_vcpu *kv, uint64_t tsc_val, uint64_t ns,
			       uint32_t frac)
{
	struct pvclock_vcpu_time_info line = scaled_line(kv);
	struct kvm_vcpu_tsc_value value = {
		.tsc_val = tsc_val,
		.kvm_ns = ns,
		.kvm_frac = frac,
		.flags = KVM_TSC_VALUE_FRAC,
	};
	char by[128];

	snprintf(by, sizeof(by), "TSC 0x%lx at %lu ns and %u, with the reference at %lu ns",
		 tsc_val, ns, frac, (uint64_t)line.system_time);
	kvmclock_set_value(kv, &value);
	assert_offset(kv, tsc_val - tsc_at(&line, ns, frac), by);
	assert_line_unmoved(kv, &line, by);
}

TEST_F(kvmclock_tsc_value, set_exactly)
{
	static const uint64_t clocks[] = {
		0, 1, HOUR_NS, 1ULL << 62, (1ULL << 63) - 1, 1ULL << 63,
	};
	static const uint32_t fracs[] = { 0, 1, 0x7fffffff, 0x80000000, 0xffffffff };
	struct kvmclock_vcpu *kv = self->vcpu;
	struct kvm_vcpu_tsc_value now;
	unsigned int c, t, n, f;

	for (c = 0; c < ARRAY_SIZE(clocks); c++) {
		kvmclock_set(self->vm, clocks[c]);
		now = kvmclock_get_value(&kv[1]);

		/* Past, present and to come, as far as the elapsed time has a sign. */
		const uint64_t ns[] = {
			now.kvm_ns, now.kvm_ns - 1, now.kvm_ns + 1, now.kvm_ns - HOUR_NS,
			now.kvm_ns + HOUR_NS, now.kvm_ns - (1ULL << 61),
			now.kvm_ns + (1ULL << 61), 0, 1,
			kvmclock_get_line(&kv[1]).system_time + (1ULL << 63) - 1,
			kvmclock_get_line(&kv[1]).system_time + (1ULL << 63),
		};
		const uint64_t tscs[] = {
			now.tsc_val, 0, 1, -1ULL, 1ULL << 63, (1ULL << 63) - 1,
			(1ULL << 63) + 1, -(1ULL << 32), 1ULL << 62,
		};

		for (t = 0; t < ARRAY_SIZE(tscs); t++)
			for (n = 0; n < ARRAY_SIZE(ns); n++)
				for (f = 0; f < ARRAY_SIZE(fracs); f++)
					assert_set_exactly(&kv[1], tscs[t], ns[n], fracs[f]);
	}

	for (c = 0; c < NR_PAIRS; c++)
		assert_set_exactly(&kv[1], random_u64(), random_u64(), random_u64());
}

/* What a vCPU's own pair says is true already, whenever it was read. */
TEST_F(kvmclock_tsc_value, own_pair_changes_nothing)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct kvm_vcpu_tsc_value value[NR_PAIRS];
	uint64_t offset = kvmclock_tsc_offset(&kv[1]);
	struct pvclock_vcpu_time_info line;
	unsigned int i;

	kvmclock_enable_all(kv, 2);
	for (i = 0; i < NR_PAIRS; i++) {
		value[i] = kvmclock_get_value(&kv[i % 2]);
		usleep(random_u64() % 200);
	}
	for (i = 0; i < NR_PAIRS; i++) {
		kvmclock_set_value(&kv[1], &value[i]);
		assert_offset(&kv[1], offset, "a pair of its own");
	}
	kvmclock_enter(&kv[0]);
	kvmclock_enter(&kv[1]);
	assert_line_unmoved(&kv[1], &self->first, "a pair of its own");
	line = kvmclock_read_page(kv[1].page);
	TEST_ASSERT(is_stable(&line), "no stable bit any more");
}

/*
 * MSR_IA32_TSC takes a value within a second of the others' for theirs, and 0
 * too.  A pair means what it says.
 */
TEST_F(kvmclock_tsc_value, no_guess)
{
	static const int64_t steps[] = { 1, -1, 2, 1000, -1000, 1000000, 500000000, -500000000, 0 };
	struct kvmclock_vcpu *kv = self->vcpu;
	struct kvm_vcpu_tsc_value value;
	struct pvclock_vcpu_time_info line;
	uint64_t offset;
	unsigned int i;

	kvmclock_enable_all(kv, 2);

	/* From now on the rule of one second is in force. */
	vcpu_set_msr(kv[0].vcpu, MSR_IA32_TSC, 1ULL << 40);
	offset = kvmclock_tsc_offset(&kv[0]);

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		value = kvmclock_get_value(&kv[0]);
		value.tsc_val += steps[i];
		kvmclock_set_value(&kv[1], &value);
		assert_offset(&kv[1], offset + steps[i], "a TSC near the other one");

		kvmclock_enter(&kv[0]);
		kvmclock_enter(&kv[1]);
		line = kvmclock_read_page(kv[1].page);
		TEST_ASSERT(is_stable(&line) == !steps[i], "%+ld cycles apart: flags 0x%x",
			    steps[i], line.flags);
		assert_offset(&kv[0], offset, "another vCPU's pair");
	}

	value = kvmclock_get_value(&kv[0]);
	line = scaled_line(&kv[0]);
	value.tsc_val = 0;
	kvmclock_set_value(&kv[1], &value);
	assert_offset(&kv[1], -tsc_at(&line, value.kvm_ns, value.kvm_frac), "a TSC of 0");
}

/* One nanosecond in cycles, and what the clock's shift drops. */
static int64_t slack_cycles(struct kvmclock_vcpu *kv)
{
	struct pvclock_vcpu_time_info line = kvmclock_get_line(kv);

	return tsc_at(&line, line.system_time + 1, 0) - line.tsc_timestamp + granule(&line);
}

/* A pair without a fraction, which stands for this offset. */
static struct kvm_vcpu_tsc_value rough_pair(struct kvmclock_vcpu *kv, uint64_t offset)
{
	struct pvclock_vcpu_time_info line = scaled_line(kv);
	struct kvm_vcpu_tsc_value value = { .kvm_ns = line.system_time + random_u64() % HOUR_NS };

	value.tsc_val = tsc_at(&line, value.kvm_ns, 0) + offset;
	return value;
}

TEST_F(kvmclock_tsc_value, slack_of_a_nanosecond)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	int64_t slack = slack_cycles(kv), ahead;
	uint64_t offset = kvmclock_tsc_offset(kv);
	struct kvm_vcpu_tsc_value value;
	unsigned int i;

	for (i = 0; i < 2; i++) {
		for (ahead = -4 * slack; ahead <= 4 * slack; ahead++) {
			value = rough_pair(kv, offset + ahead);
			kvmclock_set_value(&kv[1], &value);
			assert_offset(&kv[1], llabs(ahead) <= slack ? offset : offset + ahead,
				      "a pair that is known to the nanosecond");

			value.flags = KVM_TSC_VALUE_FRAC;
			kvmclock_set_value(&kv[1], &value);
			assert_offset(&kv[1], offset + ahead, "the same one, known exactly");
		}
		/* Modulo 2^64 like everything about a TSC. */
		offset = 0;
		kvmclock_set_tsc_offset(kv, offset);
	}
}

/* A call that is refused leaves nothing behind, in no vCPU and on no page. */
static void assert_refused(FIXTURE_DATA(kvmclock_tsc_value) * self,
			   const struct kvm_vcpu_tsc_value *value, int error)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct pvclock_vcpu_time_info before[2];
	uint64_t offset[2];
	unsigned int i;
	int r;

	for (i = 0; i < 2; i++) {
		before[i] = kvmclock_read_page(kv[i].page);
		offset[i] = kvmclock_tsc_offset(&kv[i]);
	}

	r = __kvmclock_set_value(&kv[1], value);
	TEST_ASSERT(r == -error, "flags 0x%x: %d, %d expected", value->flags, r, -error);

	for (i = 0; i < 2; i++) {
		kvmclock_enter(&kv[i]);
		assert_offset(&kv[i], offset[i], "a refused call");
		TEST_ASSERT(!memcmp(&before[i], kv[i].page, sizeof(before[i])),
			    "vCPU %u: page written by a refused call", i);
	}
}

static void assert_attr(struct kvmclock_vcpu *kv, unsigned long request, uint64_t attr,
			void *addr, int error)
{
	struct kvm_device_attr args = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = attr,
		.addr = (uintptr_t)addr,
	};
	int r = ioctl(kv->vcpu->fd, request, &args) ? errno : 0;

	TEST_ASSERT(r == error, "ioctl 0x%lx of attribute %lu: %s, %s expected", request, attr,
		    strerror(r), strerror(error));
}

TEST_F(kvmclock_tsc_value, errors)
{
	bool scaling = kvm_has_cap(KVM_CAP_TSC_CONTROL);
	struct kvmclock_vcpu *kv = self->vcpu;
	struct kvm_vcpu_tsc_value good, value;
	struct kvm_vcpu_tsc_scale scale;
	void *nowhere = (void *)0x1000;
	unsigned int i;

	kvmclock_enable_all(kv, 2);
	TEST_ASSERT(kvm_check_cap(KVM_CAP_CLOCK_GUEST), "no capability");

	good = kvmclock_get_value(&kv[1]);
	good.tsc_val += 1000;
	for (i = 1; i < 32; i++) {
		value = good;
		value.flags |= 1U << i;
		assert_refused(self, &value, EINVAL);
		value.flags = 1U << i;
		value.kvm_frac = 0;
		assert_refused(self, &value, EINVAL);
	}
	for (i = 0; i < 64 * ARRAY_SIZE(value.reserved); i++) {
		value = good;
		value.reserved[i / 64] = 1ULL << (i % 64);
		assert_refused(self, &value, EINVAL);
	}
	value = good;
	value.flags = 0;
	value.kvm_frac = 1;
	assert_refused(self, &value, EINVAL);

	assert_attr(&kv[1], KVM_HAS_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, NULL, 0);
	assert_attr(&kv[1], KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, nowhere, EFAULT);
	assert_attr(&kv[1], KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, nowhere, EFAULT);

	assert_attr(&kv[1], KVM_HAS_DEVICE_ATTR, KVM_VCPU_TSC_SCALE, NULL, scaling ? 0 : ENXIO);
	assert_attr(&kv[1], KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_SCALE, &scale, scaling ? 0 : ENXIO);
	assert_attr(&kv[1], KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_SCALE, &scale,
		    scaling ? EINVAL : ENXIO);
	if (scaling)
		assert_attr(&kv[1], KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_SCALE, nowhere, EFAULT);

	for (i = KVM_VCPU_TSC_VALUE + 1; i < 100; i++) {
		assert_attr(&kv[1], KVM_HAS_DEVICE_ATTR, i, NULL, ENXIO);
		assert_attr(&kv[1], KVM_GET_DEVICE_ATTR, i, &value, ENXIO);
		assert_attr(&kv[1], KVM_SET_DEVICE_ATTR, i, &value, ENXIO);
	}

	assert_line_unmoved(&kv[1], &self->first, "all of this");
	kvmclock_set_value(&kv[1], &good);
	assert_offset(&kv[1], kvmclock_tsc_offset(&kv[0]) + 1000, "the good one at last");
}

/* A host that doesn't keep time by its TSC has no line: nothing to be had. */
TEST_F(kvmclock_tsc_value, no_master_clock)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct kvm_vcpu_tsc_value value = kvmclock_get_value(&kv[1]);
	uint64_t offset = kvmclock_tsc_offset(&kv[1]);
	struct kvm_clock_data data;

	kvmclock_enable_all(kv, 2);
	write_file_ok(CLOCKSOURCE, other_clocksource());
	do {
		usleep(1000);
		data = kvmclock_get(self->vm);
	} while (data.flags & KVM_CLOCK_TSC_STABLE);

	assert_attr(&kv[1], KVM_HAS_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, NULL, 0);
	assert_attr(&kv[1], KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, &value, ENODATA);
	value.tsc_val += 1000;
	assert_attr(&kv[1], KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, &value, ENODATA);
	value.flags = -1;
	assert_attr(&kv[1], KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, &value, EINVAL);
	assert_offset(&kv[1], offset, "a call without a master clock");

	write_file_ok(CLOCKSOURCE, clocksource);
	do {
		usleep(1000);
		kvmclock_enter(&kv[0]);
		data = kvmclock_get(self->vm);
	} while (!(data.flags & KVM_CLOCK_TSC_STABLE));
	value = kvmclock_get_value(&kv[1]);
	kvmclock_set_value(&kv[1], &value);
	assert_offset(&kv[1], offset, "its own pair");
}

/*
 * VMs of nothing but file descriptors: a thousand of them shall cost seconds.
 */
struct bare_vm {
	int kvm_fd;
	int fd;
	unsigned int nr_vcpus;
	int vcpu_fds[NR_MANY];
};

static void bare_vm_create(struct bare_vm *vm, unsigned int nr_vcpus, const struct kvm_time *saved)
{
	unsigned int i;
	int r;

	vm->kvm_fd = open_kvm_dev_path_or_exit();
	vm->fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
	TEST_ASSERT(vm->fd >= 0, "KVM_CREATE_VM: errno %d", errno);
	if (saved) {
		r = kvm_time_restore_rate(vm->fd, saved);
		TEST_ASSERT(!r, "KVM_SET_TSC_KHZ: %s", strerror(-r));
	}
	vm->nr_vcpus = nr_vcpus;
	for (i = 0; i < nr_vcpus; i++) {
		vm->vcpu_fds[i] = ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)i);
		TEST_ASSERT(vm->vcpu_fds[i] >= 0, "KVM_CREATE_VCPU: errno %d", errno);
	}
}

static void bare_vm_free(struct bare_vm *vm)
{
	unsigned int i;

	for (i = 0; i < vm->nr_vcpus; i++)
		close(vm->vcpu_fds[i]);
	close(vm->fd);
	close(vm->kvm_fd);
}

static void set_attr(struct bare_vm *vm, unsigned int i, uint64_t attr, void *data)
{
	int r = kvm_time_attr(vm->vcpu_fds[i], KVM_SET_DEVICE_ATTR, attr, data);

	TEST_ASSERT(!r, "set of attribute %lu on vCPU %u: %s", attr, i, strerror(-r));
}

static void get_attr(struct bare_vm *vm, unsigned int i, uint64_t attr, void *data)
{
	int r = kvm_time_attr(vm->vcpu_fds[i], KVM_GET_DEVICE_ATTR, attr, data);

	TEST_ASSERT(!r, "get of attribute %lu of vCPU %u: %s", attr, i, strerror(-r));
}

static struct pvclock_vcpu_time_info bare_line(struct bare_vm *vm, unsigned int i)
{
	struct pvclock_vcpu_time_info line;
	int r = kvm_time_ioctl(vm->vcpu_fds[i], KVM_GET_CLOCK_GUEST, &line);

	TEST_ASSERT(!r, "KVM_GET_CLOCK_GUEST: %s", strerror(-r));
	return line;
}

static bool bare_stable(struct bare_vm *vm, unsigned int i)
{
	struct pvclock_vcpu_time_info line = bare_line(vm, i);

	return is_stable(&line);
}

static void bare_set_clock(struct bare_vm *vm, uint64_t ns)
{
	struct kvm_clock_data data = { .clock = ns };
	int r = kvm_time_ioctl(vm->fd, KVM_SET_CLOCK, &data);

	TEST_ASSERT(!r, "KVM_SET_CLOCK: %s", strerror(-r));
}

static void bare_set_line(struct bare_vm *vm, struct pvclock_vcpu_time_info *line)
{
	int r = kvm_time_ioctl(vm->vcpu_fds[0], KVM_SET_CLOCK_GUEST, line);

	TEST_ASSERT(!r, "KVM_SET_CLOCK_GUEST: %s", strerror(-r));
}

/* The vCPUs' pairs, read in an order of their own with pauses between. */
static void read_pairs(struct bare_vm *vm, struct kvm_vcpu_tsc_value *values, bool frac)
{
	unsigned int order[NR_MANY], i;

	shuffle(order, vm->nr_vcpus);
	for (i = 0; i < vm->nr_vcpus; i++) {
		get_attr(vm, order[i], KVM_VCPU_TSC_VALUE, &values[order[i]]);
		if (!frac) {
			values[order[i]].flags = 0;
			values[order[i]].kvm_frac = 0;
		}
		if (!(random_u64() % 16))
			usleep(random_u64() % 500);
	}
}

static void write_pairs(struct bare_vm *vm, struct kvm_vcpu_tsc_value *values)
{
	unsigned int order[NR_MANY], i;

	shuffle(order, vm->nr_vcpus);
	for (i = 0; i < vm->nr_vcpus; i++)
		set_attr(vm, order[i], KVM_VCPU_TSC_VALUE, &values[order[i]]);
}

static void assert_one_offset(struct bare_vm *vm, const char *by)
{
	uint64_t first, offset;
	unsigned int i;

	get_attr(vm, 0, KVM_VCPU_TSC_OFFSET, &first);
	for (i = 0; i < vm->nr_vcpus; i++) {
		get_attr(vm, i, KVM_VCPU_TSC_OFFSET, &offset);
		TEST_ASSERT(offset == first, "%s: the TSC of vCPU %u is %+ld cycles from vCPU 0's",
			    by, i, (int64_t)(offset - first));
		TEST_ASSERT(bare_stable(vm, i),
			    "%s: vCPU %u has no stable bit", by, i);
	}
}

static void restore_many(bool frac)
{
	struct kvm_vcpu_tsc_value values[NR_MANY];
	struct bare_vm from, to;
	unsigned int i, round;
	uint64_t offset;

	bare_vm_create(&from, NR_MANY, NULL);
	bare_vm_create(&to, NR_MANY, NULL);

	for (round = 0; round < NR_ORDERS; round++) {
		bare_set_clock(&from, random_u64() >> 2);
		read_pairs(&from, values, frac);

		/* Whatever the vCPUs had, and wherever the clock is. */
		for (i = 0; i < NR_MANY; i++) {
			offset = random_u64();
			set_attr(&to, i, KVM_VCPU_TSC_OFFSET, &offset);
		}
		bare_set_clock(&to, random_u64() >> 2);
		write_pairs(&to, values);
		assert_one_offset(&to, frac ? "exact pairs" : "pairs known to the nanosecond");
	}

	bare_vm_free(&to);
	bare_vm_free(&from);
}

FIXTURE(kvmclock_restore) {
	int unused;
};

FIXTURE_SETUP(kvmclock_restore)
{
}

FIXTURE_TEARDOWN(kvmclock_restore)
{
}

/* Sanitizers make these slow. */
TEST_F_TIMEOUT(kvmclock_restore, restore_many_exactly, 200)
{
	restore_many(true);
}

TEST_F_TIMEOUT(kvmclock_restore, restore_many_roughly, 200)
{
	restore_many(false);
}

/*
 * What vCPUs have: the pair that was written, the offset that it was taken for, and
 * when.  Pairs of a group are so few cycles apart that most can't be told from each
 * other without the fraction, groups are far apart.
 */
#define GROUP_CYCLES	1000000
#define NR_GROUPS	3
#define NR_NEAR		3000

struct near {
	struct bare_vm vm;
	uint64_t base_tsc, slack;
	uint64_t offset;	/* of all, at first */
	struct kvm_vcpu_tsc_value value;
	uint64_t generation, last_offset;
	struct {
		uint64_t pair, offset, generation;
	} vcpu[NR_MANY];
};

static void near_create(struct near *near, unsigned int nr_vcpus)
{
	struct pvclock_vcpu_time_info line;
	unsigned int i;

	memset(near, 0, sizeof(*near));
	bare_vm_create(&near->vm, nr_vcpus, NULL);
	get_attr(&near->vm, 0, KVM_VCPU_TSC_OFFSET, &near->offset);
	line = bare_line(&near->vm, 0);
	line.tsc_timestamp -= near->offset;
	near->value.kvm_ns = line.system_time + NSEC_PER_SEC;
	near->base_tsc = tsc_at(&line, near->value.kvm_ns, 0);
	near->slack = tsc_at(&line, line.system_time + 1, 0) - line.tsc_timestamp +
		      granule(&line);
	near->last_offset = near->offset;
	for (i = 0; i < nr_vcpus; i++) {
		near->vcpu[i].pair = near->offset;
		near->vcpu[i].offset = near->offset;
	}
}

/* The newest of the others that are near; of equally new ones the last. */
static uint64_t near_offset(struct near *near, unsigned int i, uint64_t pair)
{
	uint64_t newest = 0, offset = pair;
	unsigned int j;

	for (j = 0; j < near->vm.nr_vcpus; j++) {
		if (j == i || near->vcpu[j].generation < newest ||
		    near->vcpu[j].pair - pair + near->slack > 2 * near->slack)
			continue;
		newest = near->vcpu[j].generation;
		offset = near->vcpu[j].offset;
	}
	return offset;
}

static void near_write(struct near *near, unsigned int i, unsigned int group,
		       unsigned int cycles)
{
	uint64_t pair = near->offset + group * GROUP_CYCLES + cycles;
	uint64_t offset, expected = near_offset(near, i, pair);

	if (expected != near->last_offset) {
		near->generation++;
		near->last_offset = expected;
	}
	near->vcpu[i].pair = pair;
	near->vcpu[i].offset = expected;
	near->vcpu[i].generation = near->generation;

	near->value.tsc_val = near->base_tsc + pair;
	set_attr(&near->vm, i, KVM_VCPU_TSC_VALUE, &near->value);
	get_attr(&near->vm, i, KVM_VCPU_TSC_OFFSET, &offset);
	TEST_ASSERT(offset == expected, "vCPU %u, %u + %u: %+ld cycles from the newest near it", i,
		    group, cycles, (int64_t)(offset - expected));
}

/* Each vCPU takes the TSC of the newest one that is near, whatever was before. */
TEST(near_pairs)
{
	/* A tree of vCPUs that does not notice whom it has lost goes wrong by this ... */
	static const struct {
		unsigned int vcpu, group, cycles;
	} lost[] = {
		{ 13, 0, 0 }, { 15, 1, 2 }, { 0, 0, 2 }, { 18, 0, 0 }, { 12, 0, 0 }, { 10, 1, 0 },
		{ 3, 1, 1 }, { 16, 0, 0 }, { 2, 1, 2 }, { 7, 0, 1 }, { 17, 0, 1 }, { 19, 0, 1 },
		{ 8, 0, 0 }, { 10, 0, 2 }, { 4, 0, 0 }, { 0, 0, 0 }, { 7, 1, 2 }, { 16, 0, 1 },
	};
	struct near near;
	unsigned int i;

	near_create(&near, 20);
	for (i = 0; i < ARRAY_SIZE(lost); i++)
		near_write(&near, lost[i].vcpu, lost[i].group, lost[i].cycles);
	bare_vm_free(&near.vm);

	/* ... and by this. */
	near_create(&near, 27);
	for (i = 0; i < 27; i++)
		near_write(&near, i, 0, i & 1);
	near_write(&near, 10, 1, 0);
	near_write(&near, 0, 0, 0);
	bare_vm_free(&near.vm);

	near_create(&near, NR_MANY);
	for (i = 0; i < NR_NEAR; i++)
		near_write(&near, random_u64() % NR_MANY, random_u64() % NR_GROUPS,
			   random_u64() % 3);
	bare_vm_free(&near.vm);
}

/*
 * The same VM, whose clock was moved by less than pairs may differ by: their
 * own TSCs from before are near, too, and must not be taken by some only.
 */
TEST(restore_in_place)
{
	struct kvm_vcpu_tsc_value values[NR_MANY];
	struct pvclock_vcpu_time_info line;
	struct bare_vm vm;
	unsigned int round;

	bare_vm_create(&vm, 16, NULL);
	for (round = 0; round < 4 * NR_ORDERS; round++) {
		read_pairs(&vm, values, false);
		line = bare_line(&vm, 0);
		line.system_time += random_u64() % 7;
		line.system_time -= 3;
		bare_set_line(&vm, &line);
		write_pairs(&vm, values);
		assert_one_offset(&vm, "a clock that was moved a little");
	}
	bare_vm_free(&vm);
}

/* vCPUs whose TSCs differ do so by as much afterwards, to the cycle. */
TEST(distances)
{
	static const int64_t steps[] = {
		0, 1, -1, 2, 3, 1000, -1000, 1000000000, -1000000000, 1LL << 40, 1LL << 62,
		INT64_MIN, 0, 1,
	};
	struct kvm_vcpu_tsc_value values[NR_MANY];
	unsigned int nr = ARRAY_SIZE(steps), i, round;
	struct bare_vm from, to;
	uint64_t first, offset;

	bare_vm_create(&from, nr, NULL);
	bare_vm_create(&to, nr, NULL);
	for (round = 0; round < NR_ORDERS; round++) {
		first = random_u64();
		for (i = 0; i < nr; i++) {
			offset = first + steps[i];
			set_attr(&from, i, KVM_VCPU_TSC_OFFSET, &offset);
		}
		read_pairs(&from, values, true);
		bare_set_clock(&to, random_u64() >> 2);
		write_pairs(&to, values);

		get_attr(&to, 0, KVM_VCPU_TSC_OFFSET, &first);
		for (i = 0; i < nr; i++) {
			get_attr(&to, i, KVM_VCPU_TSC_OFFSET, &offset);
			TEST_ASSERT(offset - first == (uint64_t)steps[i],
				    "vCPU %u: %ld cycles from vCPU 0, %ld expected", i,
				    (int64_t)(offset - first), steps[i]);
		}
		TEST_ASSERT(!bare_stable(&to, 0),
			    "TSCs that differ, and the stable bit");
	}
	bare_vm_free(&to);
	bare_vm_free(&from);
}

static const struct way {
	const char *name;
	int (*restore)(int vm_fd, const int *vcpu_fds, const struct kvm_time *saved);
} ways[] = {
	{ "live", kvm_time_restore_live },
	{ "running", kvm_time_restore_running },
	{ "frozen", kvm_time_restore_frozen },
};

static void assert_same_time(const struct kvm_time *now, const struct kvm_time *first,
			     unsigned int generation)
{
	const struct kvm_vcpu_tsc_value *value;
	unsigned int i;

	TEST_ASSERT(oracle_same_line(&now->line, &first->line) &&
		    now->line.flags == first->line.flags,
		    "generation %u: the clock is another line over the TSC", generation);
	for (i = 0; i < now->nr_vcpus; i++) {
		value = &now->vcpu[i].value;
		TEST_ASSERT(now->vcpu[i].offset - now->vcpu[0].offset ==
			    first->vcpu[i].offset - first->vcpu[0].offset,
			    "generation %u: the TSC of vCPU %u moved by %+ld cycles", generation, i,
			    (int64_t)(now->vcpu[i].offset - now->vcpu[0].offset -
				      first->vcpu[i].offset + first->vcpu[0].offset));
		TEST_ASSERT(oracle_at(&first->line, value->tsc_val - now->vcpu[i].offset +
					now->vcpu[0].offset) == value->kvm_ns,
			    "generation %u: vCPU %u is off the line", generation, i);
	}
}

/* The end of a VM waits for RCU, and the next one need not wait for that. */
static void *end_vm(void *vm)
{
	bare_vm_free(vm);
	return NULL;
}

/* A thousand VMs, each restored from the one before: nothing adds up. */
TEST_F_TIMEOUT(kvmclock_tsc_value, chain, 150)
{
	struct kvm_time first, saved, before;
	const struct way *way;
	struct bare_vm vm, ending[NR_ENDING];
	pthread_t thread[NR_ENDING];
	uint64_t offset;
	unsigned int i, n;
	int r;

	bare_vm_create(&vm, 3, NULL);
	bare_set_clock(&vm, 1234567890123456789ULL);
	get_attr(&vm, 2, KVM_VCPU_TSC_OFFSET, &offset);
	offset += 1000000007;
	set_attr(&vm, 2, KVM_VCPU_TSC_OFFSET, &offset);
	r = kvm_time_save(vm.fd, vm.vcpu_fds, vm.nr_vcpus, &first);
	TEST_ASSERT(!r, "save: %s", strerror(-r));
	saved = first;

	for (i = 1; i <= NR_GENERATIONS; i++) {
		n = i % NR_ENDING;
		if (i > NR_ENDING)
			pthread_join(thread[n], NULL);
		ending[n] = vm;
		TEST_ASSERT(!pthread_create(&thread[n], NULL, end_vm, &ending[n]),
			    "pthread_create() failed");

		way = &ways[random_u64() % ARRAY_SIZE(ways)];
		before = saved;

		bare_vm_create(&vm, saved.nr_vcpus, &saved);
		r = way->restore(vm.fd, vm.vcpu_fds, &saved);
		TEST_ASSERT(!r, "generation %u, %s: %s", i, way->name, strerror(-r));
		r = kvm_time_save(vm.fd, vm.vcpu_fds, vm.nr_vcpus, &saved);
		TEST_ASSERT(!r, "generation %u, save: %s", i, strerror(-r));

		assert_same_time(&saved, &first, i);
		if (way->restore == kvm_time_restore_live)
			TEST_ASSERT(saved.vcpu[0].offset == before.vcpu[0].offset,
				    "generation %u: the TSC moved by %+ld cycles", i,
				    (int64_t)(saved.vcpu[0].offset - before.vcpu[0].offset));
		TEST_ASSERT(saved.clock.clock >= before.clock.clock,
			    "generation %u, %s: the clock went back", i, way->name);
	}
	for (n = 0; n < NR_ENDING; n++)
		pthread_join(thread[n], NULL);
	bare_vm_free(&vm);
}

/*
 * A slope that is not this host's own, and a long time away.  The clock must be
 * what KVM_SET_CLOCK was asked for, although the line came after it.  The pair
 * of clock and realtime is known to a nanosecond, each rounded in the save, in
 * the restore and in the look at it; and between the last two an adjusted
 * realtime gains no more than 1000 ppm.
 */
TEST(other_slope_long_away)
{
	struct kvm_time saved, now;
	struct bare_vm vm;
	uint64_t since, passed;
	int64_t error;
	int r, step;

	for (step = -1; step <= 1; step += 2) {
		bare_vm_create(&vm, 2, NULL);
		r = kvm_time_save(vm.fd, vm.vcpu_fds, vm.nr_vcpus, &saved);
		TEST_ASSERT(!r, "save: %s", strerror(-r));
		saved.line.tsc_to_system_mul += step;
		bare_set_line(&vm, &saved.line);
		r = kvm_time_save(vm.fd, vm.vcpu_fds, vm.nr_vcpus, &saved);
		TEST_ASSERT(!r, "save: %s", strerror(-r));
		bare_vm_free(&vm);

		saved.clock.realtime -= LONG_AWAY_NS;
		bare_vm_create(&vm, 2, &saved);
		since = rdtsc();
		r = kvm_time_restore_running(vm.fd, vm.vcpu_fds, &saved);
		TEST_ASSERT(!r, "restore: %s", strerror(-r));
		r = kvm_time_save(vm.fd, vm.vcpu_fds, vm.nr_vcpus, &now);
		TEST_ASSERT(!r, "save: %s", strerror(-r));

		assert_same_time(&now, &saved, 1);
		error = (now.clock.clock - now.clock.realtime) -
			(saved.clock.clock - saved.clock.realtime);
		passed = oracle_scale(&now.line, rdtsc() - since);
		TEST_ASSERT(llabs(error) <= 4 + (int64_t)passed / 1000,
			    "the clock is %+ld ns from what it was set to, %lu ns ago", error,
			    passed);
		bare_vm_free(&vm);
	}
}

/* The guests: read the clock all the time, and come out for the test's calls. */
static void guest_watch(struct kvmclock_mail *mail)
{
	uint64_t now, tsc, own = 0;
	unsigned int i;
	uint8_t flags;

	for (;;) {
		for (i = 0; i < 10; i++) {
			now = kvmclock_guest_read(mail->page_gva, &tsc, &flags);
			__GUEST_ASSERT(now >= own, "%lu after %lu", now, own);
			own = now;
		}
		GUEST_SYNC(0);
	}
}

/*
 * The same pairs and the same line, written again and again under guests that
 * run: nothing is allowed to change.  Then TSCs that do: the clock stays.
 */
TEST_F_TIMEOUT(kvmclock_tsc_value, race_with_running_vcpus, 120)
{
	struct kvm_vm *vm = vm_create(NR_RUNNERS);
	struct pvclock_vcpu_time_info line, page;
	struct kvmclock_runner runner[NR_RUNNERS] = {};
	struct kvm_vcpu_tsc_value value, ahead;
	uint64_t offset;
	unsigned int i;

	kvmclock_runners_add(vm, runner, NR_RUNNERS, guest_watch);
	line = kvmclock_get_line(&runner[0].kv);
	offset = kvmclock_tsc_offset(&runner[0].kv);
	value = kvmclock_get_value(&runner[0].kv);

	kvmclock_runners_start(runner, NR_RUNNERS);

	for (i = 0; i < NR_RACES; i++) {
		switch (random_u64() % 3) {
		case 0:
			kvmclock_set_value(&runner[i % NR_RUNNERS].kv, &value);
			break;
		case 1:
			kvmclock_set_line(&runner[i % NR_RUNNERS].kv, &line);
			break;
		case 2:
			value = kvmclock_get_value(&runner[i % NR_RUNNERS].kv);
			break;
		}
		assert_offset(&runner[i % NR_RUNNERS].kv, offset, "a race over nothing");
	}
	page = kvmclock_get_line(&runner[1].kv);
	TEST_ASSERT(oracle_same_line(&page, &line) && is_stable(&page),
		    "another line by the race");

	for (i = 0; i < NR_RACES; i++) {
		ahead = value;
		ahead.tsc_val += i & 1 ? 0 : 1 + random_u64() % 1000000007;
		kvmclock_set_value(&runner[1].kv, &ahead);
		assert_offset(&runner[1].kv, offset + ahead.tsc_val - value.tsc_val, "a pair");
		page = kvmclock_get_line(&runner[0].kv);
		TEST_ASSERT(oracle_same_line(&page, &line), "another line by another's TSC");
		TEST_ASSERT(is_stable(&page) == (ahead.tsc_val == value.tsc_val),
			    "flags 0x%x, %llu cycles apart", page.flags,
			    ahead.tsc_val - value.tsc_val);
	}

	kvmclock_runners_stop(runner, NR_RUNNERS);
	kvm_vm_free(vm);
}

/*
 * A TSC that is moved in software is where the nanoseconds since the pair say,
 * at some host TSC within the call: that much is promised, and no more.
 */
TEST_F(kvmclock_tsc_value, faster_than_the_host)
{
	struct kvmclock_vcpu *kv = &self->vcpu[1];
	unsigned long host_khz = __vcpu_ioctl(kv->vcpu, KVM_GET_TSC_KHZ, NULL);
	unsigned long khz = host_khz / 7 * 10 + 1;
	struct kvm_vcpu_tsc_value value;
	uint64_t since, until, from, to, offset;
	unsigned int i;
	int r;

	if (kvm_has_cap(KVM_CAP_TSC_CONTROL))
		SKIP(return, "the TSC is scaled by hardware");

	r = __vcpu_ioctl(kv->vcpu, KVM_SET_TSC_KHZ, (void *)khz);
	TEST_ASSERT(!r, "%lu kHz: errno %d", khz, errno);
	kvmclock_enable_all(self->vcpu, 2);

	for (i = 0; i < NR_PAIRS; i++) {
		value = kvmclock_get_value(&self->vcpu[0]);
		value.tsc_val = random_u64();
		value.kvm_ns += (int64_t)(random_u64() % 2000000) - 1000000;
		since = rdtsc();
		kvmclock_set_value(kv, &value);
		until = rdtsc();
		offset = kvmclock_tsc_offset(kv);

		/* Rounded down twice, and the rate of cycles to 2^-31. */
		from = value.tsc_val - since - 4 +
		       kvmclock_cycles_in(oracle_at(&self->first, since) - value.kvm_ns, khz);
		to = value.tsc_val - until + 4 +
		     kvmclock_cycles_in(oracle_at(&self->first, until) - value.kvm_ns, khz);
		TEST_ASSERT(offset - from <= to - from, "offset %lu, not from %lu to %lu", offset,
			    from, to);
		r = __kvmclock_set_line(kv, &self->first);
		TEST_ASSERT(r == -ENODATA, "KVM_SET_CLOCK_GUEST over a TSC moved in software: %d",
			    r);
	}
	assert_line_unmoved(&self->vcpu[0], &self->first, "another's TSC");
}

/*
 * A TSC that software moves is moved on the way into the guest.  Userspace does not
 * see that: of two vCPUs the one that has been out for long has the same TSC, by each
 * way to read it, and a rate that is made of it does not take the other one back.
 */
TEST_F(kvmclock_tsc_value, out_for_long)
{
	struct kvmclock_vcpu *out = &self->vcpu[0], *in = &self->vcpu[1];
	unsigned long host_khz = __vcpu_ioctl(out->vcpu, KVM_GET_TSC_KHZ, NULL);
	unsigned long khz = host_khz / 7 * 10 + 1;
	struct kvm_vcpu_tsc_value value[2];
	uint64_t tsc[3];
	int64_t apart;
	unsigned int i;

	if (kvm_has_cap(KVM_CAP_TSC_CONTROL))
		SKIP(return, "the TSC is scaled by hardware");

	for (i = 0; i < 2; i++)
		vcpu_ioctl(self->vcpu[i].vcpu, KVM_SET_TSC_KHZ, (void *)khz);
	kvmclock_enable_all(self->vcpu, 2);
	usleep(300000);
	kvmclock_enter(in);

	value[0] = kvmclock_get_value(out);
	value[1] = kvmclock_get_value(in);
	/* Each was moved to where base time has it, which is a ns or two from the line. */
	apart = value[1].tsc_val - value[0].tsc_val -
		kvmclock_cycles_in(value[1].kvm_ns - value[0].kvm_ns, khz);
	TEST_ASSERT(labs(apart) < khz / 1000, "KVM_VCPU_TSC_VALUE: %ld cycles apart", apart);

	usleep(300000);
	tsc[0] = vcpu_get_msr(out->vcpu, MSR_IA32_TSC);
	tsc[1] = vcpu_get_msr(in->vcpu, MSR_IA32_TSC);
	tsc[2] = vcpu_get_msr(out->vcpu, MSR_IA32_TSC);
	TEST_ASSERT(tsc[1] + khz / 1000 >= tsc[0] && tsc[2] + khz / 1000 >= tsc[1],
		    "KVM_GET_MSRS: %lu, %lu, %lu", tsc[0], tsc[1], tsc[2]);

	usleep(300000);
	tsc[1] = kvmclock_rdmsr(in, MSR_IA32_TSC);
	for (i = 0; i < 2; i++)
		vcpu_ioctl(self->vcpu[i].vcpu, KVM_SET_TSC_KHZ, (void *)(khz + 1000));
	tsc[2] = kvmclock_rdmsr(in, MSR_IA32_TSC);
	TEST_ASSERT(tsc[2] > tsc[1], "after KVM_SET_TSC_KHZ: back from %lu to %lu", tsc[1],
		    tsc[2]);
}

/* Another host, another rate of its own: hardware makes the guest's of it. */
TEST_F(kvmclock_tsc_value, scaled_in_hardware)
{
	struct kvm_time saved, now;
	struct bare_vm vm;
	unsigned int i;
	int r;

	if (!kvm_has_cap(KVM_CAP_TSC_CONTROL))
		SKIP(return, "the hardware has no TSC scaling");

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		bare_vm_create(&vm, 3, NULL);
		r = kvm_time_save(vm.fd, vm.vcpu_fds, vm.nr_vcpus, &saved);
		TEST_ASSERT(!r, "save: %s", strerror(-r));
		bare_vm_free(&vm);

		saved.tsc_khz = saved.tsc_khz / 7 * (i & 1 ? 5 : 10) + 1;
		bare_vm_create(&vm, 3, &saved);
		r = kvm_time_save(vm.fd, vm.vcpu_fds, vm.nr_vcpus, &saved);
		TEST_ASSERT(!r, "save: %s", strerror(-r));
		bare_vm_free(&vm);

		bare_vm_create(&vm, 3, &saved);
		r = ways[i].restore(vm.fd, vm.vcpu_fds, &saved);
		TEST_ASSERT(!r, "%s: %s", ways[i].name, strerror(-r));
		r = kvm_time_save(vm.fd, vm.vcpu_fds, vm.nr_vcpus, &now);
		TEST_ASSERT(!r, "save: %s", strerror(-r));
		assert_same_time(&now, &saved, 1);
		assert_one_offset(&vm, ways[i].name);
		bare_vm_free(&vm);
	}

	/* The host's rate was measured anew: to the VM that is as if its own was. */
	saved.tsc_khz--;
	bare_vm_create(&vm, 3, &saved);
	r = kvm_time_restore_live(vm.fd, vm.vcpu_fds, &saved);
	TEST_ASSERT(r == -ERANGE, "an offset over another ratio: %s", strerror(-r));
	bare_vm_free(&vm);
}

/*
 * For people: what the ways to restore a VM that was away for an hour leave, the
 * older ones done as their documents say.
 */
#define NR_REPORTED	3
#define NR_RESTORES	100
#define DISTANCE	1000

struct old_time {
	struct kvm_time time;
	uint64_t msr[NR_REPORTED];
};

static void access_tsc_msr(struct bare_vm *vm, unsigned int i, unsigned long request,
			   uint64_t *tsc)
{
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entry;
	} buffer = { { .nmsrs = 1 }, { .index = MSR_IA32_TSC, .data = *tsc } };

	TEST_ASSERT(ioctl(vm->vcpu_fds[i], request, &buffer) == 1, "MSR_IA32_TSC of vCPU %u", i);
	*tsc = buffer.entry.data;
}

/* Returns how far the clock is from where it was saved. */
static int64_t restore_clock(struct bare_vm *vm, const struct old_time *old,
			     struct kvm_clock_data *now)
{
	struct kvm_clock_data data = old->time.clock;
	int r;

	data.flags = KVM_CLOCK_REALTIME;
	r = kvm_time_ioctl(vm->fd, KVM_SET_CLOCK, &data);
	TEST_ASSERT(!r, "KVM_SET_CLOCK: %s", strerror(-r));
	r = kvm_time_ioctl(vm->fd, KVM_GET_CLOCK, now);
	TEST_ASSERT(!r, "KVM_GET_CLOCK: %s", strerror(-r));
	return now->clock - old->time.clock.clock;
}

static void restore_by_msr(struct bare_vm *vm, const struct old_time *old)
{
	struct kvm_clock_data now;
	uint64_t away, tsc;
	unsigned int i;

	away = kvmclock_cycles_in(restore_clock(vm, old, &now), old->time.tsc_khz);
	for (i = 0; i < NR_REPORTED; i++) {
		tsc = old->msr[i] + away;
		access_tsc_msr(vm, i, KVM_SET_MSRS, &tsc);
	}
}

static void restore_by_offset(struct bare_vm *vm, const struct old_time *old)
{
	struct kvm_clock_data now;
	uint64_t away, offset;
	unsigned int i;

	away = kvmclock_cycles_in(restore_clock(vm, old, &now), old->time.tsc_khz);
	for (i = 0; i < NR_REPORTED; i++) {
		offset = old->time.clock.host_tsc + old->time.vcpu[i].offset + away - now.host_tsc;
		set_attr(vm, i, KVM_VCPU_TSC_OFFSET, &offset);
	}
}

static void restore_by_value(struct bare_vm *vm, const struct old_time *old)
{
	struct kvm_vcpu_tsc_value value;
	struct kvm_clock_data now;
	unsigned int i;

	restore_clock(vm, old, &now);
	for (i = 0; i < NR_REPORTED; i++) {
		value = old->time.vcpu[i].value;
		set_attr(vm, i, KVM_VCPU_TSC_VALUE, &value);
	}
}

static void restore_by_value_and_line(struct bare_vm *vm, const struct old_time *old)
{
	int r = kvm_time_restore_running(vm->fd, vm->vcpu_fds, &old->time);

	TEST_ASSERT(!r, "restore: %s", strerror(-r));
}

static uint64_t larger(uint64_t a, int64_t b)
{
	return max_t(uint64_t, a, llabs(b));
}

static void report_way(const char *name, void (*restore)(struct bare_vm *, const struct old_time *),
		       int slope)
{
	uint64_t phase = 0, clock = 0, equal = 0, distance = 0, offset;
	const struct kvm_vcpu_tsc_value *value;
	unsigned int i, j, stable = 0;
	struct old_time old;
	struct bare_vm vm;
	struct kvm_time now;
	int r;

	for (i = 0; i < NR_RESTORES; i++) {
		/* Two vCPUs whose TSCs are equal, and one that is apart. */
		bare_vm_create(&vm, NR_REPORTED, NULL);
		r = kvm_time_save(vm.fd, vm.vcpu_fds, vm.nr_vcpus, &old.time);
		TEST_ASSERT(!r, "save: %s", strerror(-r));
		old.time.line.tsc_to_system_mul += slope;
		bare_set_line(&vm, &old.time.line);
		offset = old.time.vcpu[2].offset + (i & 1 ? DISTANCE : 0);
		set_attr(&vm, 2, KVM_VCPU_TSC_OFFSET, &offset);
		usleep(random_u64() % 1000);

		r = kvm_time_save(vm.fd, vm.vcpu_fds, vm.nr_vcpus, &old.time);
		TEST_ASSERT(!r, "save: %s", strerror(-r));
		for (j = 0; j < NR_REPORTED; j++)
			access_tsc_msr(&vm, j, KVM_GET_MSRS, &old.msr[j]);
		bare_vm_free(&vm);
		old.time.clock.realtime -= HOUR_NS;

		bare_vm_create(&vm, NR_REPORTED, &old.time);
		restore(&vm, &old);
		r = kvm_time_save(vm.fd, vm.vcpu_fds, vm.nr_vcpus, &now);
		TEST_ASSERT(!r, "save: %s", strerror(-r));

		value = &now.vcpu[0].value;
		phase = larger(phase, value->kvm_ns - oracle_at(&old.time.line, value->tsc_val));
		clock = larger(clock, (now.clock.clock - now.clock.realtime) -
				      (old.time.clock.clock - old.time.clock.realtime));
		equal = larger(equal, now.vcpu[1].offset - now.vcpu[0].offset);
		distance = larger(distance, (now.vcpu[2].offset - now.vcpu[0].offset) -
					    (old.time.vcpu[2].offset - old.time.vcpu[0].offset));
		stable += !(i & 1) && (now.line.flags & PVCLOCK_TSC_STABLE_BIT);
		bare_vm_free(&vm);
	}

	printf("report: %-38s %13lu ns %8lu ns %5lu %6lu cycles %3u of %u\n", name, phase, clock,
	       equal, distance, stable, NR_RESTORES / 2);
}

static int print_report(void)
{
	static const int slopes[] = { 0, -1 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(slopes); i++) {
		printf("report: %u restores after an hour, %s: largest error of\n",
		       NR_RESTORES, slopes[i] ? "a slope that was rounded down" : "same slope");
		printf("report: the clock over the TSC, the clock, equal TSCs, others; "
		       "stable bit kept\n");
		report_way("KVM_SET_CLOCK, MSR_IA32_TSC", restore_by_msr, slopes[i]);
		report_way("KVM_SET_CLOCK, KVM_VCPU_TSC_OFFSET", restore_by_offset, slopes[i]);
		report_way("KVM_SET_CLOCK, KVM_VCPU_TSC_VALUE", restore_by_value, slopes[i]);
		report_way("the same and KVM_SET_CLOCK_GUEST", restore_by_value_and_line,
			   slopes[i]);
	}
	return KSFT_PASS;
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	if (argc == 2 && !strcmp(argv[1], "--report"))
		return print_report();
	return run_guarded(argc, argv);
}
