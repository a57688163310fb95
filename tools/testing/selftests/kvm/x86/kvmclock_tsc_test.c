// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guest TSCs that are written: by the guest, by userspace, and by KVM itself
 * where it makes up for a host that is too slow.  Whatever a TSC does, the
 * clock over it stays the same line, and nobody else notices.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "processor.h"
#include "test_util.h"

#define NR_VCPUS	3
#define WRITER		1	/* the vCPU whose TSC is written */
#define NR_ENTRIES	200
#define PAUSE_US	1000
#define NR_HOLD_UPS	20
#define MAX_STEPS	1000
#define RFLAGS_TF	BIT(8)	/* single steps */
#define PATIENCE_S	20
#define LOOSE_SLOT	10	/* of memory that goes, and comes back */
#define LOOSE_GPA	BIT_ULL(32)

FIXTURE(kvmclock_tsc) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_VCPUS];
	struct pvclock_vcpu_time_info first[NR_VCPUS];
	uint64_t offset;
	unsigned long khz;
};

FIXTURE_SETUP(kvmclock_tsc)
{
	unsigned int i;
	int r;

	self->vm = vm_create(NR_VCPUS);
	for (i = 0; i < NR_VCPUS; i++)
		kvmclock_vcpu_add(self->vm, &self->vcpu[i], i);
	for (i = 0; i < NR_VCPUS; i++)
		kvmclock_enable(&self->vcpu[i], MSR_KVM_SYSTEM_TIME_NEW);
	for (i = 0; i < NR_VCPUS; i++) {
		kvmclock_enter(&self->vcpu[i]);
		self->first[i] = kvmclock_read_page(self->vcpu[i].page);
	}
	self->offset = kvmclock_tsc_offset(&self->vcpu[0]);

	r = __vcpu_ioctl(self->vcpu[0].vcpu, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT(r > 0, "no TSC rate: %d, errno %d", r, errno);
	self->khz = r;
}

FIXTURE_TEARDOWN(kvmclock_tsc)
{
	kvm_vm_free(self->vm);
}

/*
 * The very line of @before, which was over a TSC with @before_offset: same slope
 * and, at each TSC value less the offset, the same clock.
 */
static void assert_same_line(struct kvmclock_vcpu *kv, const struct pvclock_vcpu_time_info *before,
			     uint64_t before_offset, const char *by)
{
	struct pvclock_vcpu_time_info page = kvmclock_read_page(kv->page);
	int64_t moved;

	TEST_ASSERT(page.tsc_to_system_mul == before->tsc_to_system_mul &&
		    page.tsc_shift == before->tsc_shift, "vCPU %u: another slope by %s",
		    kv->vcpu->id, by);

	page.tsc_timestamp += before_offset - kvmclock_tsc_offset(kv);
	moved = kvmclock_movement(before, &page, rdtsc() + before_offset);
	TEST_ASSERT(!moved, "vCPU %u: clock moved by %+ld ns by %s", kv->vcpu->id, moved, by);
}

static void assert_stable(struct kvmclock_vcpu *kv, bool stable, const char *after)
{
	struct pvclock_vcpu_time_info page = kvmclock_read_page(kv->page);

	TEST_ASSERT(!!(page.flags & PVCLOCK_TSC_STABLE_BIT) == stable,
		    "vCPU %u after %s: flags 0x%x, %sstable expected", kv->vcpu->id, after,
		    page.flags, stable ? "" : "un");
}

/* KVM_GET_CLOCK is what the guest computes at the TSC value it returns. */
static void assert_clock_is_guests(struct kvm_vm *vm, struct kvmclock_vcpu *kv, const char *after)
{
	struct kvm_clock_data data;
	uint64_t guest;

	/* The guest goes first: an entry may be what moves its TSC. */
	kvmclock_enter(kv);
	data = kvmclock_get(vm);
	TEST_ASSERT(data.flags == KVMCLOCK_GET_FLAGS, "after %s: flags 0x%x", after, data.flags);
	guest = oracle_at(kv->page, data.host_tsc + kvmclock_tsc_offset(kv));
	TEST_ASSERT(data.clock == guest, "after %s: KVM_GET_CLOCK %llu, vCPU %u has %lu: %+ld ns",
		    after, data.clock, kv->vcpu->id, guest, (int64_t)(data.clock - guest));
}

/* What must hold after any write to the TSC of vCPU WRITER. */
static void assert_nobody_noticed(FIXTURE_DATA(kvmclock_tsc) * self, const char *by)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	bool same = kvmclock_tsc_offset(&kv[WRITER]) == self->offset;
	unsigned int i;

	/* The writer's page was right before its next instruction. */
	assert_same_line(&kv[WRITER], &self->first[WRITER], self->offset, by);
	assert_stable(&kv[WRITER], same, by);

	kvmclock_enter_all(kv, NR_VCPUS);
	for (i = 0; i < NR_VCPUS; i++) {
		assert_same_line(&kv[i], &self->first[i], self->offset, by);
		assert_stable(&kv[i], same, by);
		assert_clock_is_guests(self->vm, &kv[i], by);
		if (i != WRITER)
			TEST_ASSERT(kvmclock_tsc_offset(&kv[i]) == self->offset,
				    "TSC of vCPU %u moved by %s on another", i, by);
	}
}

/* The TSC has @value at some host TSC from @before to @after. */
static void assert_tsc_was_set(struct kvmclock_vcpu *kv, uint64_t value, uint64_t before,
			       uint64_t after, const char *by)
{
	uint64_t at = value - kvmclock_tsc_offset(kv);

	TEST_ASSERT(at - before <= after - before,
		    "%s: 0x%lx is the TSC of vCPU %u at host TSC %lu, not from %lu to %lu", by,
		    value, kv->vcpu->id, at, before, after);
}

/* A new VM's TSC and clock start together: at TSC 0 the clock is 0. */
TEST_F(kvmclock_tsc, new_vm)
{
	unsigned int i;

	for (i = 0; i < NR_VCPUS; i++) {
		TEST_ASSERT(!self->first[i].tsc_timestamp && !self->first[i].system_time,
			    "vCPU %u: the clock is %lu at TSC %lu", i,
			    (uint64_t)self->first[i].system_time,
			    (uint64_t)self->first[i].tsc_timestamp);
		TEST_ASSERT(kvmclock_tsc_offset(&self->vcpu[i]) == self->offset,
			    "TSC of vCPU %u differs from the start", i);
		assert_stable(&self->vcpu[i], true, "creation");
	}
}

TEST_F(kvmclock_tsc, guest_writes_tsc)
{
	static const uint64_t values[] = {
		1ULL << 62,
		1,
		0,
		-1ULL,
		-(1ULL << 33),
		1ULL << 63,
		(1ULL << 63) - 1,
		12345678901234,
		0,
	};
	struct kvmclock_vcpu *writer = &self->vcpu[WRITER];
	uint64_t before, after, adjust, old_offset;
	char by[64];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		snprintf(by, sizeof(by), "a guest's write of TSC 0x%lx", values[i]);
		old_offset = kvmclock_tsc_offset(writer);
		adjust = kvmclock_rdmsr(writer, MSR_IA32_TSC_ADJUST);

		before = rdtsc();
		kvmclock_wrmsr(writer, MSR_IA32_TSC, values[i]);
		after = rdtsc();

		assert_tsc_was_set(writer, values[i], before, after, by);
		assert_nobody_noticed(self, by);
		adjust += kvmclock_tsc_offset(writer) - old_offset;
		TEST_ASSERT(kvmclock_rdmsr(writer, MSR_IA32_TSC_ADJUST) == adjust,
			    "%s: TSC_ADJUST is not off by as much", by);
	}

	/* Equal again by the guest's own doing: the stable bit is back. */
	adjust = kvmclock_rdmsr(writer, MSR_IA32_TSC_ADJUST);
	adjust += self->offset - kvmclock_tsc_offset(writer);
	kvmclock_wrmsr(writer, MSR_IA32_TSC_ADJUST, adjust);
	TEST_ASSERT(kvmclock_tsc_offset(writer) == self->offset, "TSC_ADJUST is not exact");
	assert_nobody_noticed(self, "TSC_ADJUST, back to where the TSC was");
}

TEST_F(kvmclock_tsc, guest_writes_adjust)
{
	static const int64_t steps[] = {
		1000, -1, 1LL << 40, -(1LL << 40), INT64_MAX, INT64_MIN, 12345, 0,
	};
	struct kvmclock_vcpu *writer = &self->vcpu[WRITER];
	uint64_t value, offset;
	char by[64];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		snprintf(by, sizeof(by), "TSC_ADJUST 0x%lx", (uint64_t)steps[i]);
		kvmclock_wrmsr(writer, MSR_IA32_TSC_ADJUST, steps[i]);
		offset = kvmclock_tsc_offset(writer);
		TEST_ASSERT(offset == self->offset + steps[i],
			    "%s: the TSC moved by 0x%lx", by, offset - self->offset);
		value = kvmclock_rdmsr(writer, MSR_IA32_TSC_ADJUST);
		TEST_ASSERT(value == (uint64_t)steps[i], "%s: 0x%lx read back", by, value);
		assert_nobody_noticed(self, by);

		/* Userspace restores the number; the TSC it restores itself. */
		vcpu_set_msr(writer->vcpu, MSR_IA32_TSC_ADJUST, steps[i] + 99);
		TEST_ASSERT(kvmclock_tsc_offset(writer) == offset, "the host moved the TSC by it");
		vcpu_set_msr(writer->vcpu, MSR_IA32_TSC_ADJUST, steps[i]);
		assert_nobody_noticed(self, "TSC_ADJUST by the host");
	}
}

TEST_F(kvmclock_tsc, host_sets_offset)
{
	uint64_t offsets[] = {
		self->offset + 1, self->offset - 1, 0, -1ULL, 1ULL << 63, 1ULL << 62,
		self->offset + self->khz * 500, self->offset,
	};
	struct kvmclock_vcpu *writer = &self->vcpu[WRITER];
	uint64_t got;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		kvmclock_set_tsc_offset(writer, offsets[i]);
		got = kvmclock_tsc_offset(writer);
		TEST_ASSERT(got == offsets[i], "TSC offset 0x%lx became 0x%lx", offsets[i], got);
		kvmclock_enter(writer);
		assert_nobody_noticed(self, "KVM_VCPU_TSC_OFFSET");
		got = kvmclock_tsc_offset(writer);
		TEST_ASSERT(got == offsets[i], "TSC offset 0x%lx became 0x%lx", offsets[i], got);
	}
}

/* Writes the TSC as a restoring VMM does, and says between which host TSCs. */
static void host_writes_tsc(struct kvmclock_vcpu *kv, uint64_t value, uint64_t *before,
			    uint64_t *after)
{
	*before = rdtsc();
	vcpu_set_msr(kv->vcpu, MSR_IA32_TSC, value);
	*after = rdtsc();
	kvmclock_enter(kv);
}

static void assert_joined(struct kvmclock_vcpu *kv, struct kvmclock_vcpu *other, const char *by)
{
	int64_t ahead = kvmclock_tsc_offset(kv) - kvmclock_tsc_offset(other);

	TEST_ASSERT(!ahead, "%s: TSC of vCPU %u is %+ld cycles from that of vCPU %u", by,
		    kv->vcpu->id, ahead, other->vcpu->id);
}

/* vCPU @other's TSC, at the host TSC of a write that comes now or a bit later. */
static uint64_t tsc_of(struct kvmclock_vcpu *other)
{
	return rdtsc() + kvmclock_tsc_offset(other);
}

/*
 * The legacy rules for MSR_IA32_TSC from userspace.  Within a second means: of
 * what the others have at the write, which is later than the value was computed.
 */
TEST_F(kvmclock_tsc, host_writes_tsc)
{
	struct kvmclock_vcpu *kv = self->vcpu, *writer = &kv[WRITER];
	uint64_t second = self->khz * 1000, before, after, value;

	/* 0 is "as the others", from the start. */
	host_writes_tsc(writer, 0, &before, &after);
	assert_joined(writer, &kv[0], "0 in a new VM");
	assert_nobody_noticed(self, "0 in a new VM");

	/* From userspace's first write on, near is "as the others", too. */
	value = tsc_of(&kv[0]) + second / 2;
	host_writes_tsc(writer, value, &before, &after);
	assert_joined(writer, &kv[0], "half a second ahead");
	assert_nobody_noticed(self, "half a second ahead");

	/* What is far is taken as it is ... */
	value = tsc_of(&kv[0]) + 100 * second;
	host_writes_tsc(writer, value, &before, &after);
	assert_tsc_was_set(writer, value, before, after, "100 s ahead");
	assert_nobody_noticed(self, "100 s ahead");

	/* ... and the others may follow: within a second of the last one, either side. */
	value = tsc_of(writer) + second / 2;
	host_writes_tsc(&kv[0], value, &before, &after);
	assert_joined(&kv[0], writer, "half a second ahead of the new");
	assert_stable(&kv[0], false, "two of three");
	value = tsc_of(writer) - second / 4;
	host_writes_tsc(&kv[2], value, &before, &after);
	assert_joined(&kv[2], writer, "0.75 s behind the last");
	kvmclock_enter_all(kv, NR_VCPUS);
	assert_stable(&kv[0], true, "all three");
	assert_stable(&kv[2], true, "all three");
	self->offset = kvmclock_tsc_offset(writer);

	/* Back, and below: the same rules. */
	host_writes_tsc(writer, second, &before, &after);
	assert_tsc_was_set(writer, second, before, after, "back to one second");
	assert_stable(writer, false, "back to one second");
	host_writes_tsc(&kv[0], 0, &before, &after);
	assert_joined(&kv[0], writer, "0 joins the new");
	host_writes_tsc(&kv[2], 0, &before, &after);
	assert_joined(&kv[2], writer, "0 joins the new");
	kvmclock_enter_all(kv, NR_VCPUS);
	assert_stable(&kv[0], true, "0 on all");
	assert_clock_is_guests(self->vm, &kv[0], "0 on all");
	assert_clock_is_guests(self->vm, writer, "0 on all");
}

/* The first value that userspace writes means what it says, near or not. */
TEST_F(kvmclock_tsc, first_host_write)
{
	struct kvmclock_vcpu *kv = self->vcpu, *writer = &kv[WRITER];
	uint64_t before, after, value = tsc_of(&kv[0]) + self->khz * 300;

	host_writes_tsc(writer, value, &before, &after);
	assert_tsc_was_set(writer, value, before, after, "the first write");
	assert_nobody_noticed(self, "the first write");

	/* KVM_VCPU_TSC_OFFSET never guesses, however near. */
	kvmclock_set_tsc_offset(&kv[0], kvmclock_tsc_offset(writer) + 1);
	TEST_ASSERT(kvmclock_tsc_offset(&kv[0]) == kvmclock_tsc_offset(writer) + 1,
		    "KVM_VCPU_TSC_OFFSET was taken for a sync");
}

static void assert_refused(FIXTURE_DATA(kvmclock_tsc) * self, unsigned long khz)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct pvclock_vcpu_time_info page;
	unsigned int i;
	int r;

	r = __vcpu_ioctl(kv[WRITER].vcpu, KVM_SET_TSC_KHZ, (void *)khz);
	TEST_ASSERT(r == -1 && errno == EINVAL, "%lu kHz on a vCPU: %d, errno %d", khz, r, errno);
	r = __vm_ioctl(self->vm, KVM_SET_TSC_KHZ, (void *)khz);
	TEST_ASSERT(r == -1 && errno == EINVAL, "%lu kHz on a VM: %d, errno %d", khz, r, errno);

	kvmclock_enter_all(kv, NR_VCPUS);
	for (i = 0; i < NR_VCPUS; i++) {
		page = kvmclock_read_page(kv[i].page);
		TEST_ASSERT(!memcmp(&page, &self->first[i], sizeof(page)),
			    "%lu kHz: page of vCPU %u was written", khz, i);
		TEST_ASSERT(kvmclock_tsc_offset(&kv[i]) == self->offset, "%lu kHz: TSC moved", khz);
		r = __vcpu_ioctl(kv[i].vcpu, KVM_GET_TSC_KHZ, NULL);
		TEST_ASSERT(r == (int)self->khz, "%lu kHz: vCPU %u has %d kHz now", khz, i, r);
	}
	r = __vm_ioctl(self->vm, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT(r == (int)self->khz, "%lu kHz: the VM has %d kHz now", khz, r);
}

/* A rate that can't be had is refused, and that is all that happens. */
TEST_F(kvmclock_tsc, refused_rates)
{
	if (kvm_has_cap(KVM_CAP_TSC_CONTROL)) {
		assert_refused(self, INT_MAX);
	} else {
		assert_refused(self, self->khz / 2);
		assert_refused(self, self->khz - self->khz / 1000);
		assert_refused(self, 1);
	}

	/* KVM_GET_TSC_KHZ could not return these. */
	assert_refused(self, 1UL + INT_MAX);
	assert_refused(self, UINT_MAX);
}

/*
 * A guest that is faster than its host: where no hardware scales the TSC, KVM
 * moves it forward at each entry to where CLOCK_MONOTONIC_RAW says it should
 * be.  So a reading that a guest takes between two of RAW has at least what the
 * rate gives for the first, and no more than for the second.  The two rates
 * are rounded, RAW's to 2^-23 and KVM's cycles per nanosecond to 2^-31.
 */
TEST_F(kvmclock_tsc, faster_than_the_host)
{
	struct kvmclock_vcpu *kv = &self->vcpu[WRITER];
	unsigned long khz = self->khz / 7 * 10 + 1;
	uint64_t tsc, last, first, least, most;
	int64_t raw_first[2], raw[2];
	unsigned int i;
	int r;

	r = __vcpu_ioctl(kv->vcpu, KVM_SET_TSC_KHZ, (void *)khz);
	TEST_ASSERT(!r, "%lu kHz on a host of %lu kHz: errno %d", khz, self->khz, errno);
	r = __vcpu_ioctl(kv->vcpu, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT(r == (int)khz, "%lu kHz became %d kHz", khz, r);

	raw_first[0] = clock_ns(CLOCK_MONOTONIC_RAW);
	first = kvmclock_rdmsr(kv, MSR_IA32_TSC);
	raw_first[1] = clock_ns(CLOCK_MONOTONIC_RAW);
	last = first;

	for (i = 0; i < NR_ENTRIES; i++) {
		usleep(PAUSE_US);
		raw[0] = clock_ns(CLOCK_MONOTONIC_RAW);
		tsc = kvmclock_rdmsr(kv, MSR_IA32_TSC);
		raw[1] = clock_ns(CLOCK_MONOTONIC_RAW);

		TEST_ASSERT(tsc >= last, "TSC %lu after %lu", tsc, last);
		least = kvmclock_cycles_in(raw[0] - raw_first[1], khz);
		most = kvmclock_cycles_in(raw[1] - raw_first[0], khz);
		least -= (least >> 22) + 4;
		most += (most >> 22) + 4;
		TEST_ASSERT(tsc - first >= least && tsc - first <= most,
			    "%lu cycles of a guest of %lu kHz, %lu to %lu expected", tsc - first,
			    khz, least, most);
		last = tsc;

		if (!kvm_has_cap(KVM_CAP_TSC_CONTROL)) {
			assert_same_line(kv, &self->first[WRITER], self->offset, "catching up");
			assert_clock_is_guests(self->vm, kv, "catching up");
		}
		assert_stable(kv, false, "a rate of its own");
	}

	/* Of the others' line and TSC there is no change. */
	if (!kvm_has_cap(KVM_CAP_TSC_CONTROL)) {
		kvmclock_enter(&self->vcpu[0]);
		assert_same_line(&self->vcpu[0], &self->first[0], self->offset, "catching up");
		assert_clock_is_guests(self->vm, &self->vcpu[0], "another's catching up");
	}
	TEST_ASSERT(kvmclock_tsc_offset(&self->vcpu[0]) == self->offset, "another's TSC moved");
}

/* For a guest that moves its TSC when it is told to, and looks at another's page. */
static struct follower {
	bool ready;
	bool go;
	uint64_t adjust;
	struct pvclock_vcpu_time_info *other;
	int64_t apart;		/* by how much the page differs from its own ... */
	uint8_t flags;		/* ... at one TSC value, and what it says of that */
} follower;

static void follow(struct kvmclock_mail *mail)
{
	uint64_t tsc, theirs;

	for (;;) {
		WRITE_ONCE(follower.ready, true);
		while (!READ_ONCE(follower.go))
			cpu_relax();
		wrmsr(MSR_IA32_TSC_ADJUST, follower.adjust);
		theirs = kvmclock_guest_read(follower.other, &tsc, &follower.flags);
		follower.apart = theirs - __pvclock_read_cycles(mail->page_gva, tsc);
		follower.ready = false;
		follower.go = false;
		GUEST_SYNC(0);
	}
}

/* VMX may keep a step's #DB pending that was made up for already: none is ours. */
static void ignore_step(struct ex_regs *regs)
{
	regs->rflags &= ~RFLAGS_TF;
}

static void *run_once(void *kv)
{
	kvmclock_vcpu_run(((struct kvmclock_vcpu *)kv)->vcpu);
	return NULL;
}

/* The guest writes its TSC_ADJUST, and is not even at the next instruction. */
static void step_over_write(struct kvmclock_vcpu *kv, uint64_t adjust)
{
	struct kvm_guest_debug debug = {
		.control = KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_SINGLESTEP,
	};
	unsigned int steps = 0;

	kv->mail->op = KVMCLOCK_WRMSR;
	kv->mail->msr = MSR_IA32_TSC_ADJUST;
	kv->mail->value = adjust;
	vcpu_guest_debug_set(kv->vcpu, &debug);
	while (vcpu_get_msr(kv->vcpu, MSR_IA32_TSC_ADJUST) != adjust) {
		vcpu_run(kv->vcpu);
		TEST_ASSERT_KVM_EXIT_REASON(kv->vcpu, KVM_EXIT_DEBUG);
		TEST_ASSERT(++steps < MAX_STEPS, "the write does not come");
	}
}

static void finish_write(struct kvmclock_vcpu *kv)
{
	struct kvm_guest_debug debug = {};

	vcpu_guest_debug_set(kv->vcpu, &debug);
	TEST_ASSERT(kvmclock_vcpu_run(kv->vcpu), "guest ended early");
}

/*
 * One vCPU moves its TSC and is held up before it enters the guest again; another, which
 * does not leave KVM_RUN, moves its own as far.  The TSCs are equal again, so it may
 * read the other's page: with its own TSC, which is not the one that page was over.
 * In every other round it comes only then, and takes the other page's stable bit, which
 * is back in the end.
 */
TEST(moved_while_held_up)
{
	struct kvmclock_vcpu kv[2];
	struct follower *told;
	pthread_t thread;
	unsigned int i;
	struct kvm_vm *vm = vm_create(ARRAY_SIZE(kv));

	kvmclock_vcpu_add(vm, &kv[0], 0);
	kvmclock_vcpu_add_running(vm, &kv[1], 1, follow);
	vm_install_exception_handler(vm, DB_VECTOR, ignore_step);
	kvmclock_enable(&kv[0], MSR_KVM_SYSTEM_TIME_NEW);
	vcpu_set_msr(kv[1].vcpu, MSR_KVM_SYSTEM_TIME_NEW, kv[1].page_gpa | KVM_MSR_ENABLED);
	follower.other = kv[0].mail->page_gva;
	sync_global_to_guest(vm, follower);
	told = addr_gva2hva(vm, (gva_t)&follower);

	for (i = 0; i < NR_HOLD_UPS; i++) {
		told->adjust = i & 1 ? 0 : BIT_ULL(40);
		if (i & 2)
			step_over_write(&kv[0], told->adjust);
		TEST_ASSERT(!pthread_create(&thread, NULL, run_once, &kv[1]),
			    "pthread_create() failed");
		kvmclock_pin(thread, 1);
		while (!READ_ONCE(told->ready))
			usleep(PAUSE_US);
		if (!(i & 2))
			step_over_write(&kv[0], told->adjust);
		WRITE_ONCE(told->go, true);
		pthread_join(thread, NULL);
		TEST_ASSERT(!(told->flags & PVCLOCK_TSC_STABLE_BIT) || !told->apart,
			    "round %u: the page of a vCPU that is held up is %+ld ns off", i,
			    told->apart);

		finish_write(&kv[0]);
		assert_stable(&kv[0], true, "both have moved");
		assert_stable(&kv[1], true, "both have moved");
	}
	kvm_vm_free(vm);
}

static void interrupt(int signal)
{
}

/*
 * The same, but nobody moves along, and the page of who is held up is not to be written:
 * its memory is gone, or read-only for good.  The other one enters the guest all the
 * same, and both have the stable bit again in the end.
 */
TEST(held_up_without_memory)
{
	struct sigaction action = { .sa_handler = interrupt };
	struct kvmclock_vcpu kv[2];
	unsigned int i, gone;
	struct kvm_vm *vm = vm_create(ARRAY_SIZE(kv));
	void *page;

	TEST_ASSERT(!sigaction(SIGALRM, &action, NULL), "sigaction() failed");
	kvmclock_vcpu_add(vm, &kv[0], 0);
	kvmclock_vcpu_add(vm, &kv[1], 1);
	vm_install_exception_handler(vm, DB_VECTOR, ignore_step);

	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, LOOSE_GPA, LOOSE_SLOT, 1, 0);
	page = addr_gpa2hva(vm, LOOSE_GPA);
	kv[0].page = page;
	kv[0].page_gpa = LOOSE_GPA;
	kvmclock_enable_all(kv, ARRAY_SIZE(kv));

	for (i = 0; i < NR_HOLD_UPS; i++) {
		gone = i & 1;
		assert_stable(&kv[0], true, "nothing");
		assert_stable(&kv[1], true, "nothing");

		step_over_write(&kv[0], BIT_ULL(40));
		if (gone)
			vm_set_user_memory_region(vm, LOOSE_SLOT, 0, LOOSE_GPA, 0, page);
		else
			TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ), "mprotect() failed");

		/* Does not come back if it waits for the one that is held up. */
		alarm(PATIENCE_S);
		kvmclock_enter(&kv[1]);
		alarm(0);

		if (gone)
			vm_set_user_memory_region(vm, LOOSE_SLOT, 0, LOOSE_GPA, PAGE_SIZE, page);
		else
			TEST_ASSERT(!mprotect(page, PAGE_SIZE, PROT_READ | PROT_WRITE),
				    "mprotect() failed");
		finish_write(&kv[0]);
		kvmclock_wrmsr(&kv[0], MSR_IA32_TSC_ADJUST, 0);
		kvmclock_enter_all(kv, ARRAY_SIZE(kv));
	}
	assert_stable(&kv[0], true, "all is as it was");
	assert_stable(&kv[1], true, "all is as it was");
	kvm_vm_free(vm);
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	return test_harness_run(argc, argv);
}
