// SPDX-License-Identifier: GPL-2.0-only
/*
 * Everything that touches the clock at once, while vCPUs read theirs in a loop:
 * no clock goes backwards, none is behind what another has read if the stable
 * bit says that they compare, whichever vCPU's page it is read by, and
 * KVM_GET_CLOCK is no exception.
 *
 * What is asked for never goes backwards either, so that each step back is one
 * that nobody asked for.  Where nobody sets the clock, and the host keeps its
 * clocksource, it is also to stay the line that it was, to the nanosecond.
 *
 * A number as the last argument is how many times as long to do it for.
 */
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "kvmclock_host.h"
#include "processor.h"
#include "test_util.h"

#define HOUR_NS			(3600 * NSEC_PER_SEC)

#define NR_WATCHERS		3
#define NR_LATE			16
#define MAX_VCPUS		(NR_WATCHERS + NR_LATE)

/* What each of the threads does before it is done. */
#define NR_SETS			1000
#define NR_GETS			5000
#define NR_MEDDLES		1000
#define NR_REMOVALS		40
#define NR_SWITCHES		8
#define NR_VMS			40

/* What a vCPU reads in one go. */
#define NR_READINGS		50

/* The page of one watcher is in memory that comes and goes. */
#define LOOSE			1
#define LOOSE_SLOT		10
#define LOOSE_GPA		BIT_ULL(32)
#define LOOSE_GVA		BIT_ULL(32)

/* For a failure with a reason instead of the harness's; nothing needs long. */
#define PATIENCE_S		60
#define CASE_S			1500

static unsigned int factor = 1;

/* What its guest tells about a vCPU. */
struct seen {
	uint64_t tsc;		/* the last reading ... */
	uint64_t now;		/* ... and the clock at it */
	uint64_t rounds;	/* of readings, the loose ones' breaks included */
	uint64_t stable;	/* readings with the stable bit ... */
	uint64_t unstable;	/* ... and without */
	uint64_t others;	/* readings of another's page, with it */
	uint32_t keeping_off;	/* the value of race.keep_off that it goes by */
};

/* In the guest's memory, for all vCPUs. */
static struct race {
	bool stop;
	bool stay;		/* in the guest, all the time */
	uint32_t keep_off;	/* odd: nobody reads the loose page */
	uint64_t last;		/* highest clock read by any vCPU */
	struct pvclock_vcpu_time_info *page[NR_WATCHERS];
	struct seen seen[MAX_VCPUS];
} race;

/* Whether the page has the stable bit: then it is not behind what any vCPU has read. */
static bool guest_read_page(struct pvclock_vcpu_time_info *page, uint32_t id, uint64_t *tsc,
			    uint64_t *now)
{
	uint64_t last = READ_ONCE(race.last);
	uint8_t flags;

	/* What is read next is read after what it is compared with. */
	mb();
	*now = kvmclock_guest_read(page, tsc, &flags);
	if (!(flags & PVCLOCK_TSC_STABLE_BIT))
		return false;

	__GUEST_ASSERT(*now >= last, "vCPU %u, by the page at %p: %lu after another's %lu, by %lu",
		       id, page, *now, last, last - *now);
	return true;
}

static void guest_read(struct kvmclock_mail *mail, uint32_t id, uint64_t *own)
{
	struct seen *seen = &race.seen[id];
	uint64_t tsc, now;

	if (guest_read_page(mail->page_gva, id, &tsc, &now))
		seen->stable++;
	else
		seen->unstable++;
	__GUEST_ASSERT(now >= *own, "vCPU %u: %lu after %lu, by %lu", id, now, *own, *own - now);
	*own = now;
	kvmclock_raise(&race.last, now);
	seen->tsc = tsc;
	seen->now = now;
}

/*
 * Any page will do on any vCPU, if the page says that all TSCs are equal.  The loose
 * one's is for its own vCPU, which knows when it is there.
 */
static void guest_read_other(uint32_t id)
{
	uint64_t tsc, now;

	if (!guest_read_page(race.page[id ? 0 : NR_WATCHERS - 1], id, &tsc, &now))
		return;
	race.seen[id].others++;
	kvmclock_raise(&race.last, now);
}

/* What its thread wants of the guest, which is itself one of the troublemakers. */
static void guest_meddle(struct kvmclock_mail *mail)
{
	switch (mail->op) {
	case KVMCLOCK_WRMSR:
		wrmsr(mail->msr, mail->value);
		break;
	case KVMCLOCK_ADD_TSC:
		wrmsr(MSR_IA32_TSC, rdtsc() + mail->value);
		break;
	}
	mail->op = KVMCLOCK_NOP;
}

static void guest_race(struct kvmclock_mail *mail)
{
	uint32_t id = mail->vector, keep_off;
	uint64_t own = 0;
	unsigned int i;

	for (;;) {
		keep_off = READ_ONCE(race.keep_off);
		WRITE_ONCE(race.seen[id].keeping_off, keep_off);
		guest_meddle(mail);
		if (id != LOOSE || !(keep_off & 1)) {
			for (i = 0; i < NR_READINGS; i++) {
				guest_read(mail, id, &own);
				guest_read_other(id);
			}
		}
		WRITE_ONCE(race.seen[id].rounds, race.seen[id].rounds + 1);
		if (READ_ONCE(race.stop))
			GUEST_DONE();
		else if (!READ_ONCE(race.stay))
			GUEST_SYNC(0);
	}
}

/* The same disorder in each run, as far as it is the test's. */
static uint64_t chance(uint64_t *state, uint64_t of)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return (*state >> 33) % of;
}

FIXTURE(kvmclock_race) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[MAX_VCPUS];
	struct race *race;
	struct pvclock_vcpu_time_info first;
	uint64_t offset;	/* of all TSCs, when nobody meddles with them */
	uint64_t second;	/* in cycles */
	bool line_stays;
	bool stop;
	void *loose;
};

FIXTURE_VARIANT(kvmclock_race) {
	bool line_stays;
};

FIXTURE_VARIANT_ADD(kvmclock_race, all) {
	.line_stays = false,
};

FIXTURE_VARIANT_ADD(kvmclock_race, line_stays) {
	.line_stays = true,
};

#define SELF FIXTURE_DATA(kvmclock_race)

static void set_loose_memory(SELF *self, uint64_t size)
{
	int r = __vm_set_user_memory_region(self->vm, LOOSE_SLOT, 0, LOOSE_GPA, size, self->loose);

	TEST_ASSERT(!r, "memory of size %lu: errno %d", size, errno);
}

static void add_racing_vcpu(SELF *self, unsigned int i)
{
	struct kvmclock_vcpu *kv = &self->vcpu[i];

	kvmclock_vcpu_add_running(self->vm, kv, i, guest_race);
	kv->mail->vector = i;
	if (i == LOOSE) {
		kv->page = self->loose;
		kv->page_gpa = LOOSE_GPA;
		kv->mail->page_gva = (void *)LOOSE_GVA;
	}
	vcpu_set_msr(kv->vcpu, MSR_KVM_SYSTEM_TIME_NEW, kv->page_gpa | KVM_MSR_ENABLED);
}

FIXTURE_SETUP(kvmclock_race)
{
	unsigned int i;

	give_back();
	kvmclock_require_host();

	memset(self, 0, sizeof(*self));
	self->line_stays = variant->line_stays;
	self->vm = vm_create(MAX_VCPUS);
	vm_userspace_mem_region_add(self->vm, VM_MEM_SRC_ANONYMOUS, LOOSE_GPA, LOOSE_SLOT, 1, 0);
	virt_map(self->vm, LOOSE_GVA, LOOSE_GPA, 1);
	self->loose = addr_gpa2hva(self->vm, LOOSE_GPA);

	for (i = 0; i < NR_WATCHERS; i++)
		add_racing_vcpu(self, i);
	sync_global_to_guest(self->vm, race);
	self->race = addr_gva2hva(self->vm, (gva_t)&race);
	for (i = 0; i < NR_WATCHERS; i++)
		self->race->page[i] = self->vcpu[i].mail->page_gva;

	for (i = 0; i < NR_WATCHERS; i++)
		TEST_ASSERT(kvmclock_vcpu_run(self->vcpu[i].vcpu), "guest ended early");
	self->first = kvmclock_read_page(self->vcpu[0].page);
	self->offset = kvmclock_tsc_offset(&self->vcpu[0]);
	self->second = __vcpu_ioctl(self->vcpu[0].vcpu, KVM_GET_TSC_KHZ, NULL) * 1000ULL;
}

FIXTURE_TEARDOWN(kvmclock_race)
{
	kvm_vm_free(self->vm);
}

/* At this guest TSC, with this offset, the clock of vCPU @id is where it always was. */
static void assert_on_line(SELF *self, uint64_t tsc, uint64_t offset, uint64_t clock, int id)
{
	uint64_t expected = oracle_at(&self->first, tsc - offset + self->offset);

	if (id < 0)
		TEST_ASSERT(clock == expected, "KVM_GET_CLOCK: %lu, %+ld ns from the line", clock,
			    (int64_t)(clock - expected));
	else
		TEST_ASSERT(clock == expected, "vCPU %d: %lu, %+ld ns from the line", id, clock,
			    (int64_t)(clock - expected));
}

static void set_page_msr(struct kvmclock_vcpu *kv, uint32_t msr)
{
	vcpu_set_msr(kv->vcpu, msr, kv->page_gpa | KVM_MSR_ENABLED);
}

/* One thing that a VMM or a guest may do to a vCPU's clock or TSC. */
static void meddle(SELF *self, struct kvmclock_vcpu *kv, uint64_t what, uint64_t how_far)
{
	struct kvmclock_mail *mail = kv->mail;

	switch (what) {
	case 0:
		kvmclock_set_tsc_offset(kv, self->offset + how_far);
		break;
	case 1:
		vcpu_set_msr(kv->vcpu, MSR_IA32_TSC, rdtsc() + self->offset + how_far);
		break;
	case 2:
		vcpu_set_msr(kv->vcpu, MSR_IA32_TSC, 0);
		break;
	case 3:
		set_page_msr(kv, MSR_KVM_SYSTEM_TIME);
		break;
	case 4:
		set_page_msr(kv, MSR_KVM_SYSTEM_TIME_NEW);
		break;
	case 5:
		vcpu_ioctl(kv->vcpu, KVM_KVMCLOCK_CTRL, NULL);
		break;
	case 6:
		mail->value = how_far;
		mail->op = KVMCLOCK_ADD_TSC;
		break;
	case 7:
		mail->msr = MSR_IA32_TSC_ADJUST;
		mail->value = how_far;
		mail->op = KVMCLOCK_WRMSR;
		break;
	case 8:
	case 9:
		mail->msr = what == 8 ? MSR_KVM_SYSTEM_TIME : MSR_KVM_SYSTEM_TIME_NEW;
		mail->value = kv->page_gpa | KVM_MSR_ENABLED;
		mail->op = KVMCLOCK_WRMSR;
		break;
	default:
		/* Equal again: the stable bit is not to stay away for ever. */
		kvmclock_set_tsc_offset(kv, self->offset);
		break;
	}
}

#define NR_MEDDLINGS	24

/* From a cycle to half a minute, to either side. */
static uint64_t some_distance(SELF *self, uint64_t *seed)
{
	uint64_t far = chance(seed, 2) ? chance(seed, 30 * self->second) : chance(seed, 1000) + 1;

	return chance(seed, 2) ? far : -far;
}

struct thread {
	SELF *self;
	pthread_t id;
	uint64_t seed;
	struct kvmclock_vcpu *kv;
	const char *name;
	unsigned int steps;	/* so far; a thread that takes none is stuck */
	bool done;
	void (*work)(struct thread *thread);
};

/* Drives a vCPU, and meddles with it in between: nobody else can tell its TSC. */
static void drive(struct thread *t)
{
	SELF *self = t->self;
	struct seen *seen = &self->race->seen[t->kv->vcpu->id];
	uint64_t readings, old_readings = 0;

	while (kvmclock_vcpu_run(t->kv->vcpu)) {
		WRITE_ONCE(t->steps, t->steps + 1);
		readings = seen->stable + seen->unstable;
		if (self->line_stays && readings != old_readings)
			assert_on_line(self, seen->tsc, kvmclock_tsc_offset(t->kv), seen->now,
				       t->kv->vcpu->id);
		old_readings = readings;
		if (!READ_ONCE(self->stop))
			meddle(self, t->kv, chance(&t->seed, NR_MEDDLINGS),
			       some_distance(self, &t->seed));
	}
}

/*
 * KVM_GET_CLOCK, which by the master clock is no other than the clock of guests
 * that have the stable bit: not behind them, nor they behind it.
 */
static struct kvm_clock_data get_comparable(SELF *self)
{
	uint64_t last = READ_ONCE(self->race->last);
	struct kvm_clock_data data;

	/* What is read next is read after what it is compared with. */
	mb();
	data = kvmclock_get(self->vm);
	if (data.flags & KVM_CLOCK_TSC_STABLE) {
		TEST_ASSERT(data.clock >= last, "KVM_GET_CLOCK: %llu after a guest's %lu, by %llu",
			    data.clock, last, last - data.clock);
		kvmclock_raise(&self->race->last, data.clock);
	}
	return data;
}

/* Forward by more than any thread can be late. */
static void set_clock(struct thread *t)
{
	SELF *self = t->self;
	struct kvm_clock_data data;
	unsigned int i;

	for (i = 0; i < factor * NR_SETS; i++) {
		WRITE_ONCE(t->steps, i);
		data = kvmclock_get(self->vm);
		if (i & 1) {
			data.flags &= KVM_CLOCK_REALTIME;
			data.clock += HOUR_NS;
			vm_ioctl(self->vm, KVM_SET_CLOCK, &data);
		} else {
			kvmclock_set(self->vm, data.clock + HOUR_NS);
		}

		/* Nobody is in the guest with the clock from before. */
		get_comparable(self);
		if (chance(&t->seed, 4) == 0)
			usleep(chance(&t->seed, 5000));
	}
}

static void get_clock(struct thread *t)
{
	SELF *self = t->self;
	struct kvm_clock_data data;
	uint64_t own = 0;
	unsigned int i;

	for (i = 0; i < factor * NR_GETS; i++) {
		WRITE_ONCE(t->steps, i);
		data = get_comparable(self);
		TEST_ASSERT(data.clock >= own, "KVM_GET_CLOCK: %llu after %lu, by %llu",
			    data.clock, own, own - data.clock);
		own = data.clock;
		if (self->line_stays) {
			TEST_ASSERT(data.flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", data.flags);
			assert_on_line(self, data.host_tsc, 0, data.clock, -1);
		}
		if (chance(&t->seed, 16) == 0)
			usleep(chance(&t->seed, 2000));
	}
}

/* From outside: an ioctl of a vCPU gets in between two of its KVM_RUNs. */
static void meddle_from_outside(struct thread *t)
{
	SELF *self = t->self;
	struct kvmclock_vcpu *kv;
	unsigned int i;

	for (i = 0; i < factor * NR_MEDDLES; i++) {
		WRITE_ONCE(t->steps, i);
		kv = &self->vcpu[chance(&t->seed, NR_WATCHERS)];
		if (!self->line_stays && chance(&t->seed, 2))
			meddle(self, kv, chance(&t->seed, 3), some_distance(self, &t->seed));
		else
			meddle(self, kv, 3 + chance(&t->seed, 3), 0);
		if (!self->line_stays)
			kvmclock_set_tsc_offset(kv, self->offset);
	}
}

#define wait_until(condition)							\
do {										\
	time_t begin = time(NULL);						\
										\
	while (!(condition)) {							\
		TEST_ASSERT(time(NULL) < begin + PATIENCE_S, "never: %s", #condition); \
		usleep(100);							\
	}									\
} while (0)

static void wait_for_rounds(SELF *self, unsigned int nr)
{
	uint64_t from[NR_WATCHERS];
	unsigned int i;

	for (i = 0; i < NR_WATCHERS; i++)
		from[i] = READ_ONCE(self->race->seen[i].rounds);
	for (i = 0; i < NR_WATCHERS; i++)
		wait_until(READ_ONCE(self->race->seen[i].rounds) >= from[i] + nr);
}

/*
 * Memory under a page goes, while its vCPU runs on without a look at it, and
 * comes back.  Whatever happened meanwhile is in it before the vCPU sees it.
 */
static void remove_memory(struct thread *t)
{
	SELF *self = t->self;
	uint32_t keep_off = 0;
	unsigned int i;

	for (i = 0; i < factor * NR_REMOVALS; i++) {
		WRITE_ONCE(t->steps, i);
		WRITE_ONCE(self->race->keep_off, ++keep_off);
		wait_until(READ_ONCE(self->race->seen[LOOSE].keeping_off) == keep_off);
		set_loose_memory(self, 0);
		wait_for_rounds(self, chance(&t->seed, 10));
		set_loose_memory(self, PAGE_SIZE);
		WRITE_ONCE(self->race->keep_off, ++keep_off);
		wait_for_rounds(self, chance(&t->seed, 10));
	}
}

static void switch_clocksource(struct thread *t)
{
	SELF *self = t->self;
	unsigned int i;

	for (i = 0; i < factor * NR_SWITCHES; i++) {
		WRITE_ONCE(t->steps, i);
		write_file_ok(CLOCKSOURCE, other_clocksource());
		if (i & 1)
			wait_for_rounds(self, chance(&t->seed, 50));
		write_file_ok(CLOCKSOURCE, clocksource);
		wait_until(kvmclock_get(self->vm).flags & KVM_CLOCK_TSC_STABLE);
		wait_for_rounds(self, chance(&t->seed, 50));
	}
}

/* vCPUs that are not there at first; their first run is one of many. */
static void add_vcpus(struct thread *t)
{
	SELF *self = t->self;
	unsigned int i, run;

	for (i = NR_WATCHERS; i < MAX_VCPUS; i++) {
		WRITE_ONCE(t->steps, i);
		add_racing_vcpu(self, i);
		for (run = chance(&t->seed, 20); run; run--)
			TEST_ASSERT(kvmclock_vcpu_run(self->vcpu[i].vcpu), "guest ended early");
		kvmclock_set_tsc_offset(&self->vcpu[i], self->offset);
		wait_for_rounds(self, 5 + chance(&t->seed, 50));
	}
}

static void add_vms(struct thread *t)
{
	struct kvm_clock_data data, before;
	struct kvmclock_vcpu kv;
	struct kvm_vm *vm;
	unsigned int i, run;

	for (i = 0; i < factor * NR_VMS; i++) {
		WRITE_ONCE(t->steps, i);
		vm = vm_create(1);
		before = kvmclock_get(vm);
		kvmclock_vcpu_add(vm, &kv, 0);
		kvmclock_enable(&kv, MSR_KVM_SYSTEM_TIME_NEW);
		for (run = chance(&t->seed, 10); run; run--)
			kvmclock_enter(&kv);
		data = kvmclock_get(vm);
		TEST_ASSERT(data.clock >= before.clock, "another VM: %llu after %llu", data.clock,
			    before.clock);
		kvm_vm_free(vm);
	}
}

static void *work(void *arg)
{
	struct thread *t = arg;

	t->work(t);
	WRITE_ONCE(t->done, true);
	return NULL;
}

/* Joins a thread, or tells where all of them are if it takes no step any more. */
static void join(struct thread *t, struct thread *all, unsigned int nr)
{
	unsigned int i, steps = READ_ONCE(t->steps);
	time_t begin = time(NULL);

	while (!READ_ONCE(t->done)) {
		if (READ_ONCE(t->steps) != steps) {
			steps = READ_ONCE(t->steps);
			begin = time(NULL);
		}
		if (time(NULL) >= begin + PATIENCE_S) {
			for (i = 0; i < nr; i++)
				ksft_print_msg("%s: step %u%s\n", all[i].name, all[i].steps,
					       all[i].done ? ", done" : "");
			for (i = 0; i < MAX_VCPUS; i++)
				ksft_print_msg("vCPU %u: %lu rounds, page version %u\n", i,
					       t->self->race->seen[i].rounds,
					       t->self->vcpu[i].page ?
					       t->self->vcpu[i].page->version : 0);
			TEST_FAIL("%s is stuck", t->name);
		}
		usleep(1000);
	}
	pthread_join(t->id, NULL);
}

/* All vCPUs' TSCs are equal, and their pages one line, once the dust settles. */
static void assert_settled(SELF *self)
{
	struct pvclock_vcpu_time_info page;
	struct kvmclock_vcpu *kv;
	struct kvm_clock_data data;
	uint64_t expected;
	unsigned int i;

	for (i = 0; i < MAX_VCPUS; i++)
		kvmclock_set_tsc_offset(&self->vcpu[i], self->offset);
	for (i = 0; i < MAX_VCPUS; i++)
		kvmclock_vcpu_run(self->vcpu[i].vcpu);
	for (i = 0; i < MAX_VCPUS; i++) {
		kv = &self->vcpu[i];
		data = kvmclock_get(self->vm);
		page = kvmclock_read_page(kv->page);
		expected = oracle_at(&page, data.host_tsc + self->offset);
		TEST_ASSERT(data.flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", data.flags);
		TEST_ASSERT(data.clock == expected, "KVM_GET_CLOCK %llu, vCPU %u has %lu",
			    data.clock, i, expected);
		TEST_ASSERT(page.flags & PVCLOCK_TSC_STABLE_BIT, "vCPU %u: flags 0x%x", i,
			    page.flags);
		if (self->line_stays)
			assert_on_line(self, data.host_tsc, 0, expected, i);
	}
}

TEST_F_TIMEOUT(kvmclock_race, never_backwards, CASE_S)
{
	struct thread threads[] = {
		{ .name = "vCPU 0", .work = drive, .kv = &self->vcpu[0] },
		{ .name = "vCPU 1", .work = drive, .kv = &self->vcpu[1] },
		{ .name = "vCPU 2", .work = drive, .kv = &self->vcpu[2] },
		{ .name = "get_clock", .work = get_clock },
		{ .name = "meddle_from_outside", .work = meddle_from_outside },
		{ .name = "remove_memory", .work = remove_memory },
		{ .name = "add_vcpus", .work = add_vcpus },
		{ .name = "add_vms", .work = add_vms },
		{ .name = "set_clock", .work = set_clock },
		{ .name = "switch_clocksource", .work = switch_clocksource },
	};
	unsigned int nr = ARRAY_SIZE(threads) - (self->line_stays ? 2 : 0);
	uint64_t stable = 0, unstable = 0, others = 0;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		threads[i].self = self;
		threads[i].seed = i;
		TEST_ASSERT(!pthread_create(&threads[i].id, NULL, work, &threads[i]),
			    "pthread_create() failed");
	}
	for (i = NR_WATCHERS; i < nr; i++)
		join(&threads[i], threads, nr);
	for (i = 0; i < NR_WATCHERS; i++)
		TEST_ASSERT(!threads[i].done, "a vCPU ended early");
	WRITE_ONCE(self->stop, true);
	WRITE_ONCE(self->race->stop, true);
	for (i = 0; i < NR_WATCHERS; i++)
		join(&threads[i], threads, nr);

	for (i = 0; i < NR_WATCHERS; i++) {
		stable += self->race->seen[i].stable;
		unstable += self->race->seen[i].unstable;
		others += self->race->seen[i].others;
	}
	ksft_print_msg("%lu readings with the stable bit, %lu without; %lu of another's page\n",
		       stable, unstable, others);
	TEST_ASSERT(stable && unstable, "the stable bit was always the same");
	TEST_ASSERT(others, "nobody has read another's page with the stable bit");

	WRITE_ONCE(self->race->stop, false);
	assert_settled(self);
}

/*
 * A vCPU that has no reason to leave the guest is not behind KVM_GET_CLOCK
 * either, from the moment on that this tells of a KVM_SET_CLOCK.
 */
TEST_F_TIMEOUT(kvmclock_race, set_clock_while_in_guest, CASE_S)
{
	struct thread driver = {
		.self = self, .name = "vCPU 0", .work = drive, .kv = &self->vcpu[0],
	};
	struct seen *seen = &self->race->seen[0];
	struct kvm_clock_data data;
	uint64_t rounds;
	unsigned int i;

	if (self->line_stays)
		return;

	self->stop = true;
	WRITE_ONCE(self->race->stay, true);
	TEST_ASSERT(!pthread_create(&driver.id, NULL, work, &driver), "pthread_create() failed");
	for (i = 0; i < factor * NR_SETS; i++) {
		rounds = READ_ONCE(seen->rounds);
		wait_until(READ_ONCE(seen->rounds) >= rounds + 2);
		data = kvmclock_get(self->vm);
		kvmclock_set(self->vm, data.clock + HOUR_NS);
		get_comparable(self);
	}
	WRITE_ONCE(self->race->stop, true);
	join(&driver, &driver, 1);
	TEST_ASSERT(seen->stable && !seen->unstable, "%lu readings with the stable bit, %lu not",
		    seen->stable, seen->unstable);
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	if (argc > 1 && atoi(argv[argc - 1]) > 0)
		factor = atoi(argv[--argc]);
	return run_guarded(argc, argv);
}
