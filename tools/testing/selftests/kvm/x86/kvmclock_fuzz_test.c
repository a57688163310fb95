// SPDX-License-Identifier: GPL-2.0-only
/*
 * No argument, however wild, and no order of calls does anything to the clock's
 * interfaces but succeed or return an error that is documented.
 *
 *	kvmclock_fuzz_test [SEED [OPERATIONS]]
 *
 * Threads call all clock ioctls, attributes and MSRs of a VM, with arguments
 * that are random or a bit away from what was just read, while its vCPUs run
 * and write those MSRs themselves.  That the kernel says nothing meanwhile is
 * up to who reads its log.  In the end the VM's clock works.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "hyperv.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "processor.h"
#include "test_util.h"

#define NR_VCPUS	3
#define NR_CALLERS	3
#define NR_OPERATIONS	200000
#define NR_SCRATCH	4	/* pages that the guest can do without */
#define RUN_PAUSE_US	200
#define MAX_ERRORS	5

/* Where there is no memory; its page 0 is not mapped in userspace either. */
#define NOWHERE_GPA	0x1000000000ULL
#define NOWHERE_HVA	0x1000

struct fuzz {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_VCPUS];
	gpa_t scratch_gpa;
	uint64_t nr_operations;		/* for each caller */
	uint64_t seed;
	atomic_bool stop;
	atomic_ulong runs;
};

struct caller {
	struct fuzz *fuzz;
	pthread_t thread;
	uint64_t state;
	unsigned int id;
};

static uint64_t random_u64(struct caller *c)
{
	return kvmclock_random(&c->state);
}

static bool one_in(struct caller *c, unsigned int n)
{
	return !(random_u64(c) % n);
}

/* Edges, all magnitudes, and plain random numbers. */
static uint64_t wild_u64(struct caller *c)
{
	static const uint64_t edges[] = {
		0, 1, -1ULL, 1ULL << 63, (1ULL << 63) - 1, 1ULL << 32, (1ULL << 32) - 1,
		1ULL << 31, (1ULL << 31) - 1,
	};

	switch (random_u64(c) % 4) {
	case 0:
		return edges[random_u64(c) % ARRAY_SIZE(edges)];
	case 1:
		return random_u64(c) >> (random_u64(c) % 64);
	case 2:
		return -(random_u64(c) >> (random_u64(c) % 64));
	default:
		return random_u64(c);
	}
}

/* Some bits of something valid become others. */
static void mutate(struct caller *c, void *data, size_t size)
{
	uint8_t *bytes = data;
	unsigned int i, nr = random_u64(c) % 4;

	for (i = 0; i < nr; i++)
		bytes[random_u64(c) % size] ^= 1U << (random_u64(c) % 8);
	if (one_in(c, 8)) {
		for (i = 0; i < size; i++)
			bytes[i] = random_u64(c);
	}
}

/* A guest physical address that the guest survives to be written to. */
static uint64_t wild_gpa(struct caller *c)
{
	uint64_t gpa = wild_u64(c);

	if (one_in(c, 2))
		gpa = c->fuzz->scratch_gpa + gpa % (NR_SCRATCH * PAGE_SIZE - 64);
	else if (gpa < NOWHERE_GPA)
		gpa += NOWHERE_GPA;
	return one_in(c, 2) ? gpa & ~3ULL : gpa;
}

static struct kvmclock_vcpu *any_vcpu(struct caller *c)
{
	return &c->fuzz->vcpu[random_u64(c) % NR_VCPUS];
}

static void *maybe_nowhere(struct caller *c, void *data)
{
	return one_in(c, 32) ? (void *)NOWHERE_HVA : data;
}

/* What was done: the result, or a negative errno. */
static int do_ioctl(int fd, unsigned long request, void *arg)
{
	int r = ioctl(fd, request, arg);

	return r < 0 ? -errno : r;
}

static int do_attr(struct caller *c, unsigned long request, uint64_t attr, void *data)
{
	struct kvm_device_attr args = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = attr,
		.addr = (uintptr_t)data,
	};

	return do_ioctl(any_vcpu(c)->vcpu->fd, request, &args);
}

static int get_clock(struct caller *c)
{
	struct kvm_clock_data data;

	return do_ioctl(c->fuzz->vm->fd, KVM_GET_CLOCK, maybe_nowhere(c, &data));
}

static int set_clock(struct caller *c)
{
	struct kvm_clock_data data = {};

	if (one_in(c, 2))
		do_ioctl(c->fuzz->vm->fd, KVM_GET_CLOCK, &data);
	data.flags &= KVM_CLOCK_REALTIME;
	mutate(c, &data, sizeof(data));
	return do_ioctl(c->fuzz->vm->fd, KVM_SET_CLOCK, maybe_nowhere(c, &data));
}

/* Mostly the host's own rate or nearby, else each call would end in EINVAL. */
static void *wild_khz(struct caller *c)
{
	uint64_t khz = 0;

	if (one_in(c, 4))
		khz = wild_u64(c);
	else if (one_in(c, 2))
		khz = do_ioctl(c->fuzz->vm->fd, KVM_GET_TSC_KHZ, NULL) + random_u64(c) % 5 - 2;
	return (void *)khz;
}

static int set_vm_khz(struct caller *c)
{
	return do_ioctl(c->fuzz->vm->fd, KVM_SET_TSC_KHZ, wild_khz(c));
}

static int get_vm_khz(struct caller *c)
{
	return do_ioctl(c->fuzz->vm->fd, KVM_GET_TSC_KHZ, NULL);
}

static int set_khz(struct caller *c)
{
	return do_ioctl(any_vcpu(c)->vcpu->fd, KVM_SET_TSC_KHZ, wild_khz(c));
}

static int get_khz(struct caller *c)
{
	return do_ioctl(any_vcpu(c)->vcpu->fd, KVM_GET_TSC_KHZ, NULL);
}

static int get_line(struct caller *c)
{
	struct pvclock_vcpu_time_info line;

	return do_ioctl(any_vcpu(c)->vcpu->fd, KVM_GET_CLOCK_GUEST, maybe_nowhere(c, &line));
}

static int set_line(struct caller *c)
{
	struct pvclock_vcpu_time_info line = {};
	int fd = any_vcpu(c)->vcpu->fd;

	do_ioctl(fd, KVM_GET_CLOCK_GUEST, &line);
	mutate(c, &line, sizeof(line));
	return do_ioctl(fd, KVM_SET_CLOCK_GUEST, maybe_nowhere(c, &line));
}

static int has_attr(struct caller *c)
{
	return do_attr(c, KVM_HAS_DEVICE_ATTR, one_in(c, 2) ? random_u64(c) % 4 : wild_u64(c),
		       NULL);
}

static int get_offset(struct caller *c)
{
	uint64_t offset;

	return do_attr(c, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, maybe_nowhere(c, &offset));
}

static int set_offset(struct caller *c)
{
	uint64_t offset;

	do_attr(c, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, &offset);
	offset = one_in(c, 4) ? offset : wild_u64(c);
	return do_attr(c, KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, maybe_nowhere(c, &offset));
}

static int get_scale(struct caller *c)
{
	struct kvm_vcpu_tsc_scale scale;

	return do_attr(c, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_SCALE, maybe_nowhere(c, &scale));
}

static int set_scale(struct caller *c)
{
	struct kvm_vcpu_tsc_scale scale = { wild_u64(c), wild_u64(c) };

	return do_attr(c, KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_SCALE, maybe_nowhere(c, &scale));
}

static int get_value(struct caller *c)
{
	struct kvm_vcpu_tsc_value value;

	return do_attr(c, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, maybe_nowhere(c, &value));
}

static int set_value(struct caller *c)
{
	struct kvm_vcpu_tsc_value value = {};

	if (one_in(c, 2))
		do_attr(c, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, &value);
	switch (random_u64(c) % 4) {
	case 0:
		mutate(c, &value, sizeof(value));
		break;
	case 1:
		value.tsc_val = wild_u64(c);
		value.kvm_ns = wild_u64(c);
		break;
	case 2:
		value.flags = 0;
		value.kvm_frac = one_in(c, 8);
		break;
	}
	return do_attr(c, KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, maybe_nowhere(c, &value));
}

static int wild_attr(struct caller *c)
{
	uint64_t junk[8] = {};

	return do_attr(c, one_in(c, 2) ? KVM_GET_DEVICE_ATTR : KVM_SET_DEVICE_ATTR,
		       wild_u64(c) | 4, maybe_nowhere(c, junk));
}

static int kvmclock_ctrl(struct caller *c)
{
	return do_ioctl(any_vcpu(c)->vcpu->fd, KVM_KVMCLOCK_CTRL, NULL);
}

static const uint32_t msrs[] = {
	MSR_IA32_TSC, MSR_IA32_TSC_ADJUST, MSR_IA32_TSC_DEADLINE,
	MSR_KVM_WALL_CLOCK, MSR_KVM_WALL_CLOCK_NEW,
	MSR_KVM_SYSTEM_TIME, MSR_KVM_SYSTEM_TIME_NEW,
	HV_X64_MSR_GUEST_OS_ID, HV_X64_MSR_REFERENCE_TSC, HV_X64_MSR_TIME_REF_COUNT,
	HV_X64_MSR_TSC_FREQUENCY,
};

static void wild_msr(struct caller *c, uint32_t *msr, uint64_t *value)
{
	*msr = msrs[random_u64(c) % ARRAY_SIZE(msrs)];
	switch (*msr) {
	case MSR_KVM_WALL_CLOCK:
	case MSR_KVM_WALL_CLOCK_NEW:
	case MSR_KVM_SYSTEM_TIME:
	case MSR_KVM_SYSTEM_TIME_NEW:
	case HV_X64_MSR_REFERENCE_TSC:
		*value = wild_gpa(c) | !one_in(c, 8);
		break;
	default:
		*value = one_in(c, 4) ? 0 : wild_u64(c);
	}
}

struct one_msr {
	struct kvm_msrs header;
	struct kvm_msr_entry entry;
};

static int get_msr(struct caller *c)
{
	struct one_msr buffer = { .header.nmsrs = 1 };

	buffer.entry.index = msrs[random_u64(c) % ARRAY_SIZE(msrs)];
	return do_ioctl(any_vcpu(c)->vcpu->fd, KVM_GET_MSRS, maybe_nowhere(c, &buffer));
}

static int set_msr(struct caller *c)
{
	struct one_msr buffer = { .header.nmsrs = 1 };
	uint64_t value;

	wild_msr(c, &buffer.entry.index, &value);
	buffer.entry.data = value;
	return do_ioctl(any_vcpu(c)->vcpu->fd, KVM_SET_MSRS, maybe_nowhere(c, &buffer));
}

/*
 * What each may return besides 0 and more.  The others' errors are all met in
 * a run of some length, those after the comma only on some hardware.
 */
static const struct operation {
	const char *name;
	int (*call)(struct caller *c);
	int errors[MAX_ERRORS];
	bool never_succeeds;
} operations[] = {
	{ "KVM_GET_CLOCK",		get_clock,	{ EFAULT } },
	{ "KVM_SET_CLOCK",		set_clock,	{ EFAULT, EINVAL } },
	{ "KVM_GET_TSC_KHZ of a VM",	get_vm_khz },
	{ "KVM_SET_TSC_KHZ of a VM",	set_vm_khz,	{ EINVAL }, true },
	{ "KVM_GET_TSC_KHZ",		get_khz },
	{ "KVM_SET_TSC_KHZ",		set_khz,	{ EINVAL } },
	{ "KVM_GET_CLOCK_GUEST",	get_line,	{ EFAULT, ENODATA } },
	{ "KVM_SET_CLOCK_GUEST",	set_line,	{ EFAULT, ENODATA, EINVAL, ERANGE } },
	{ "KVM_HAS_DEVICE_ATTR",	has_attr,	{ ENXIO } },
	{ "get of KVM_VCPU_TSC_OFFSET",	get_offset,	{ EFAULT } },
	{ "set of KVM_VCPU_TSC_OFFSET",	set_offset,	{ EFAULT } },
	{ "get of KVM_VCPU_TSC_VALUE",	get_value,	{ EFAULT } },
	{ "set of KVM_VCPU_TSC_VALUE",	set_value,	{ EFAULT, EINVAL } },
	{ "another attribute",		wild_attr,	{ ENXIO }, true },
	{ "KVM_KVMCLOCK_CTRL",		kvmclock_ctrl,	{ EINVAL } },
	{ "KVM_GET_MSRS",		get_msr,	{ EFAULT } },
	{ "KVM_SET_MSRS",		set_msr,	{ EFAULT } },
}, with_scaling[] = {
	{ "get of KVM_VCPU_TSC_SCALE",	get_scale,	{ EFAULT } },
	{ "set of KVM_VCPU_TSC_SCALE",	set_scale,	{ EINVAL }, true },
}, without_scaling[] = {
	{ "get of KVM_VCPU_TSC_SCALE",	get_scale,	{ ENXIO }, true },
	{ "set of KVM_VCPU_TSC_SCALE",	set_scale,	{ ENXIO }, true },
};

#define NR_FIXED	ARRAY_SIZE(operations)
#define NR_KINDS	(NR_FIXED + ARRAY_SIZE(with_scaling))

static struct {
	atomic_ulong succeeded;
	atomic_ulong failed[MAX_ERRORS];
} seen[NR_KINDS];

static const struct operation *operation(unsigned int kind)
{
	if (kind < NR_FIXED)
		return &operations[kind];
	return kvm_has_cap(KVM_CAP_TSC_CONTROL) ? &with_scaling[kind - NR_FIXED] :
						  &without_scaling[kind - NR_FIXED];
}

static bool scaling;

static void account(const struct fuzz *fuzz, unsigned int kind, const struct operation *op, int r)
{
	unsigned int i;

	if (r >= 0) {
		TEST_ASSERT(!op->never_succeeds, "seed %lu: %s succeeded", fuzz->seed, op->name);
		atomic_fetch_add(&seen[kind].succeeded, 1);
		return;
	}

	for (i = 0; i < MAX_ERRORS; i++) {
		if (r == -op->errors[i]) {
			atomic_fetch_add(&seen[kind].failed[i], 1);
			return;
		}
	}

	/* Without hardware scaling or a rate for all there may be no master clock. */
	TEST_ASSERT(r == -ENODATA && scaling &&
		    (op->call == get_value || op->call == set_value),
		    "seed %lu: %s: %s is not documented", fuzz->seed, op->name, strerror(-r));
}

static void *call_at_random(void *arg)
{
	const struct operation *op[NR_KINDS];
	struct caller *c = arg;
	unsigned int kind;
	uint64_t i;

	for (kind = 0; kind < NR_KINDS; kind++)
		op[kind] = operation(kind);

	for (i = 0; i < c->fuzz->nr_operations; i++) {
		kind = random_u64(c) % NR_KINDS;
		account(c->fuzz, kind, op[kind], op[kind]->call(c));
	}
	return NULL;
}

/* The guest's own writes and reads: done, or #GP. */
static void *run_at_random(void *arg)
{
	struct caller *c = arg;
	struct kvmclock_vcpu *kv = &c->fuzz->vcpu[c->id];
	uint64_t value;
	uint32_t msr;

	while (!atomic_load(&c->fuzz->stop)) {
		wild_msr(c, &msr, &value);
		kvmclock_call(kv, one_in(c, 4) ? KVMCLOCK_RDMSR : KVMCLOCK_WRMSR, msr, value);
		TEST_ASSERT(!kv->mail->vector || kv->mail->vector == GP_VECTOR,
			    "seed %lu: MSR 0x%x of 0x%lx: exception %lu", c->fuzz->seed, msr, value,
			    kv->mail->vector);
		atomic_fetch_add(&c->fuzz->runs, 1);
		/* The callers want the vCPU, too. */
		usleep(RUN_PAUSE_US);
	}
	return NULL;
}

/* Everything that a sane VMM sets, and then the clock is one again. */
static void assert_works(struct fuzz *fuzz)
{
	struct pvclock_vcpu_time_info line, page;
	struct kvm_clock_data before, after;
	uint64_t tsc, now;
	unsigned int i;
	int r;

	for (i = 0; i < NR_VCPUS; i++) {
		r = do_ioctl(fuzz->vcpu[i].vcpu->fd, KVM_SET_TSC_KHZ, NULL);
		TEST_ASSERT(!r, "KVM_SET_TSC_KHZ: %s", strerror(-r));
		kvmclock_set_tsc_offset(&fuzz->vcpu[i], 0);
	}
	kvmclock_set(fuzz->vm, NSEC_PER_SEC);
	for (i = 0; i < NR_VCPUS; i++)
		kvmclock_enable(&fuzz->vcpu[i], MSR_KVM_SYSTEM_TIME_NEW);

	for (i = 0; i < NR_VCPUS; i++) {
		before = kvmclock_get(fuzz->vm);
		TEST_ASSERT(before.flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", before.flags);
		tsc = kvmclock_guest_tsc(&fuzz->vcpu[i], rdtsc());
		now = kvmclock_call(&fuzz->vcpu[i], KVMCLOCK_READ_AT, 0, tsc);
		after = kvmclock_get(fuzz->vm);
		TEST_ASSERT(before.clock <= now && now <= after.clock,
			    "vCPU %u: %lu, between %llu and %llu", i, now, before.clock,
			    after.clock);

		line = kvmclock_get_line(&fuzz->vcpu[i]);
		page = kvmclock_read_page(fuzz->vcpu[i].page);
		TEST_ASSERT(page.tsc_timestamp == line.tsc_timestamp &&
			    page.system_time == line.system_time &&
			    page.flags & PVCLOCK_TSC_STABLE_BIT,
			    "vCPU %u: flags 0x%x, or another line", i, page.flags);
	}
}

static void assert_met(uint64_t nr_operations)
{
	const struct operation *op;
	unsigned int kind, i;

	for (kind = 0; kind < NR_KINDS; kind++) {
		op = operation(kind);
		printf("%-28s %7lu done", op->name, atomic_load(&seen[kind].succeeded));
		for (i = 0; i < MAX_ERRORS && op->errors[i]; i++)
			printf(", %6lu %s", atomic_load(&seen[kind].failed[i]),
			       strerrorname_np(op->errors[i]));
		printf("\n");

		/* A few calls may miss one; what is never met was never tested. */
		if (nr_operations < NR_OPERATIONS)
			continue;
		TEST_ASSERT(op->never_succeeds || atomic_load(&seen[kind].succeeded),
			    "%s never succeeded", op->name);
		for (i = 0; i < MAX_ERRORS && op->errors[i]; i++)
			TEST_ASSERT(atomic_load(&seen[kind].failed[i]), "%s: never %s", op->name,
				    strerrorname_np(op->errors[i]));
	}
}

int main(int argc, char *argv[])
{
	uint64_t nr_operations = argc > 2 ? strtoull(argv[2], NULL, 0) : NR_OPERATIONS;
	struct caller callers[NR_CALLERS], runners[NR_VCPUS];
	struct fuzz fuzz = {
		.seed = argc > 1 ? strtoull(argv[1], NULL, 0) : 20261121,
		.nr_operations = DIV_ROUND_UP(nr_operations, NR_CALLERS),
	};
	gva_t scratch;
	unsigned int i;

	kvmclock_require_host();
	scaling = kvm_has_cap(KVM_CAP_TSC_CONTROL);
	TEST_ASSERT(kvm_check_cap(KVM_CAP_CLOCK_GUEST), "no KVM_CAP_CLOCK_GUEST");
	printf("seed %lu, %lu operations\n", fuzz.seed, nr_operations);

	fuzz.vm = vm_create(NR_VCPUS);
	scratch = vm_alloc(fuzz.vm, NR_SCRATCH * PAGE_SIZE, KVM_UTIL_MIN_VADDR);
	fuzz.scratch_gpa = addr_gva2gpa(fuzz.vm, scratch);
	for (i = 0; i < NR_VCPUS; i++) {
		kvmclock_vcpu_add(fuzz.vm, &fuzz.vcpu[i], i);
		vcpu_set_hv_cpuid(fuzz.vcpu[i].vcpu);
	}

	for (i = 0; i < NR_VCPUS; i++) {
		runners[i] = (struct caller) {
			.fuzz = &fuzz, .id = i, .state = fuzz.seed * 2654435761U + i + 100,
		};
		TEST_ASSERT(!pthread_create(&runners[i].thread, NULL, run_at_random, &runners[i]),
			    "pthread_create() failed");
	}
	for (i = 0; i < NR_CALLERS; i++) {
		callers[i] = (struct caller) {
			.fuzz = &fuzz, .id = i, .state = fuzz.seed * 2654435761U + i + 1,
		};
		TEST_ASSERT(!pthread_create(&callers[i].thread, NULL, call_at_random, &callers[i]),
			    "pthread_create() failed");
	}

	for (i = 0; i < NR_CALLERS; i++)
		pthread_join(callers[i].thread, NULL);
	atomic_store(&fuzz.stop, true);
	for (i = 0; i < NR_VCPUS; i++)
		pthread_join(runners[i].thread, NULL);

	printf("%lu entries of the guest\n", atomic_load(&fuzz.runs));
	TEST_ASSERT(atomic_load(&fuzz.runs), "no vCPU has run");
	assert_met(nr_operations);
	assert_works(&fuzz);
	kvm_vm_free(fuzz.vm);
	return 0;
}
