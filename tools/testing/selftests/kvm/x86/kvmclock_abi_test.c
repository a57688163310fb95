// SPDX-License-Identifier: GPL-2.0-only
/*
 * The contract between KVM, a guest and userspace about kvmclock: what is
 * offered, where pages may lie, how they are written, what is refused.  That
 * the time in them is right is the business of kvmclock_line_test.
 */
#include <pthread.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <time.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "processor.h"
#include "test_util.h"

#define HOUR_NS			(3600 * NSEC_PER_SEC)

/* Memory of the test's own, at an address that ends where nothing follows. */
#define EDGE_SLOT		10
#define EDGE_GPA		BIT_ULL(32)
#define EDGE_SIZE		(2 * PAGE_SIZE)
#define EDGE_END		(EDGE_GPA + EDGE_SIZE)
#define EDGE_PATTERN		0xa5

#define PVCLOCK_SIZE		sizeof(struct pvclock_vcpu_time_info)

static_assert(sizeof(struct pvclock_vcpu_time_info) == 32, "pvclock page");
static_assert(offsetof(struct pvclock_vcpu_time_info, version) == 0, "version");
static_assert(offsetof(struct pvclock_vcpu_time_info, tsc_timestamp) == 8, "tsc_timestamp");
static_assert(offsetof(struct pvclock_vcpu_time_info, system_time) == 16, "system_time");
static_assert(offsetof(struct pvclock_vcpu_time_info, tsc_to_system_mul) == 24, "mul");
static_assert(offsetof(struct pvclock_vcpu_time_info, tsc_shift) == 28, "tsc_shift");
static_assert(offsetof(struct pvclock_vcpu_time_info, flags) == 29, "flags");
static_assert(sizeof(struct pvclock_wall_clock) == 12, "wall clock");
static_assert(offsetof(struct pvclock_wall_clock, version) == 0, "wall clock version");
static_assert(offsetof(struct pvclock_wall_clock, sec) == 4, "wall clock sec");
static_assert(offsetof(struct pvclock_wall_clock, nsec) == 8, "wall clock nsec");
static_assert(sizeof(struct kvm_clock_data) == 48, "kvm_clock_data");
static_assert(offsetof(struct kvm_clock_data, clock) == 0, "clock");
static_assert(offsetof(struct kvm_clock_data, flags) == 8, "clock flags");
static_assert(offsetof(struct kvm_clock_data, realtime) == 16, "clock realtime");
static_assert(offsetof(struct kvm_clock_data, host_tsc) == 24, "clock host_tsc");

static const uint32_t system_time_msrs[] = { MSR_KVM_SYSTEM_TIME, MSR_KVM_SYSTEM_TIME_NEW };
static const uint32_t wall_clock_msrs[] = { MSR_KVM_WALL_CLOCK, MSR_KVM_WALL_CLOCK_NEW };

FIXTURE(kvmclock_abi) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[2];
};

FIXTURE_SETUP(kvmclock_abi)
{
	unsigned int i;

	self->vm = vm_create(ARRAY_SIZE(self->vcpu));
	for (i = 0; i < ARRAY_SIZE(self->vcpu); i++)
		kvmclock_vcpu_add(self->vm, &self->vcpu[i], i);
}

FIXTURE_TEARDOWN(kvmclock_abi)
{
	kvm_vm_free(self->vm);
}

/* A page that KVM has written, and is not writing now. */
static void assert_page_written(const struct pvclock_vcpu_time_info *page)
{
	TEST_ASSERT(page->version && !(page->version & 1), "version %u", page->version);
	TEST_ASSERT(page->tsc_to_system_mul, "no multiplier");
	TEST_ASSERT(!(page->flags & ~(PVCLOCK_TSC_STABLE_BIT | PVCLOCK_GUEST_STOPPED)),
		    "unknown flags 0x%x", page->flags);
}

/* Whatever makes KVM write pages, whether or not it finds a reason in it. */
static void provoke_updates(struct kvm_vm *vm, struct kvmclock_vcpu *kv)
{
	struct kvm_clock_data now = kvmclock_get(vm);

	kvmclock_set(vm, now.clock + HOUR_NS);
	kvmclock_set_tsc_offset(kv, kvmclock_tsc_offset(kv) + 1000);
	kvmclock_enter(kv);
	kvmclock_enter(kv);
}

/* The page says what KVM_GET_CLOCK says, at the same TSC value. */
static void assert_clock_is_page(struct kvm_vm *vm, struct kvmclock_vcpu *kv)
{
	struct pvclock_vcpu_time_info page = kvmclock_read_page(kv->page);
	struct kvm_clock_data data = kvmclock_get(vm);
	uint64_t expected = oracle_at(&page, data.host_tsc + kvmclock_tsc_offset(kv));

	TEST_ASSERT(data.flags & KVM_CLOCK_HOST_TSC, "flags 0x%x", data.flags);
	TEST_ASSERT(data.clock == expected, "KVM_GET_CLOCK %llu, the page says %lu, %+ld ns",
		    data.clock, expected, (int64_t)(data.clock - expected));
}

TEST_F(kvmclock_abi, cpuid)
{
	uint32_t eax = kvmclock_call(&self->vcpu[0], KVMCLOCK_CPUID, 0, 0);

	TEST_ASSERT(kvm_cpu_has(X86_FEATURE_KVM_CLOCKSOURCE), "old MSRs not supported");
	TEST_ASSERT(kvm_cpu_has(X86_FEATURE_KVM_CLOCKSOURCE2), "new MSRs not supported");
	TEST_ASSERT(kvm_cpu_has(X86_FEATURE_KVM_CLOCKSOURCE_STABLE), "no stable bit");
	TEST_ASSERT(eax & BIT(KVM_FEATURE_CLOCKSOURCE), "guest sees 0x%x", eax);
	TEST_ASSERT(eax & BIT(KVM_FEATURE_CLOCKSOURCE2), "guest sees 0x%x", eax);
	TEST_ASSERT(eax & BIT(KVM_FEATURE_CLOCKSOURCE_STABLE_BIT), "guest sees 0x%x", eax);
}

/* Both numbers are names of one register, for guest and host alike. */
TEST_F(kvmclock_abi, system_time_msrs)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	uint64_t value, got;
	uint32_t version;
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(system_time_msrs); i++) {
		version = kv->page->version;
		kvmclock_enable(kv, system_time_msrs[i]);
		assert_page_written(kv->page);
		TEST_ASSERT(kv->page->version > version, "MSR 0x%x: version stays %u",
			    system_time_msrs[i], version);
		TEST_ASSERT(kv->page->flags & PVCLOCK_TSC_STABLE_BIT, "MSR 0x%x: flags 0x%x",
			    system_time_msrs[i], kv->page->flags);

		value = kv->page_gpa | KVM_MSR_ENABLED;
		for (j = 0; j < ARRAY_SIZE(system_time_msrs); j++) {
			got = kvmclock_rdmsr(kv, system_time_msrs[j]);
			TEST_ASSERT(got == value, "MSR 0x%x: 0x%lx, not 0x%lx",
				    system_time_msrs[j], got, value);
			got = vcpu_get_msr(kv->vcpu, system_time_msrs[j]);
			TEST_ASSERT(got == value, "MSR 0x%x in the host: 0x%lx, not 0x%lx",
				    system_time_msrs[j], got, value);
		}
		assert_clock_is_page(self->vm, kv);
	}

	/* A VMM that restores a guest writes the MSR itself. */
	memset(kv->page, 0, PVCLOCK_SIZE);
	vcpu_set_msr(kv->vcpu, MSR_KVM_SYSTEM_TIME_NEW, kv->page_gpa | KVM_MSR_ENABLED);
	kvmclock_enter(kv);
	assert_page_written(kv->page);
	assert_clock_is_page(self->vm, kv);

	/* All this was about one vCPU; the other's page is not KVM's yet. */
	TEST_ASSERT(!self->vcpu[1].page->version, "page of vCPU 1 was written");
}

TEST_F(kvmclock_abi, disable)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	struct pvclock_vcpu_time_info before;
	uint64_t value;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(system_time_msrs); i++) {
		kvmclock_enable(kv, system_time_msrs[i]);
		before = *kv->page;

		kvmclock_wrmsr(kv, system_time_msrs[i], kv->page_gpa);
		provoke_updates(self->vm, kv);
		TEST_ASSERT(!memcmp(&before, kv->page, PVCLOCK_SIZE),
			    "MSR 0x%x: page written while disabled, version %u -> %u",
			    system_time_msrs[i], before.version, kv->page->version);
		value = kvmclock_rdmsr(kv, system_time_msrs[i]);
		TEST_ASSERT(value == kv->page_gpa, "MSR 0x%x: 0x%lx", system_time_msrs[i], value);

		kvmclock_enable(kv, system_time_msrs[i]);
		TEST_ASSERT(kv->page->version > before.version, "not enabled again");
		assert_page_written(kv->page);
		assert_clock_is_page(self->vm, kv);
	}
}

/*
 * An INIT takes the vCPU's page away, as it takes the guest's use of that memory.  No
 * other vCPU waits for it.
 */
TEST_F(kvmclock_abi, init)
{
	struct kvmclock_vcpu *kv = &self->vcpu[1];
	struct kvm_mp_state running = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct pvclock_vcpu_time_info before;
	struct kvm_sregs sregs;
	struct kvm_regs regs;
	uint64_t value;
	unsigned int i;

	kvmclock_enable_all(self->vcpu, ARRAY_SIZE(self->vcpu));
	vcpu_sregs_get(kv->vcpu, &sregs);
	vcpu_regs_get(kv->vcpu, &regs);

	kvmclock_send_init(kv->vcpu);
	before = *kv->page;
	for (i = 0; i < ARRAY_SIZE(system_time_msrs); i++) {
		value = vcpu_get_msr(kv->vcpu, system_time_msrs[i]);
		TEST_ASSERT(!value, "MSR 0x%x after INIT: 0x%lx", system_time_msrs[i], value);
	}
	provoke_updates(self->vm, &self->vcpu[0]);
	assert_clock_is_page(self->vm, &self->vcpu[0]);

	/* As if it had been started again, with its program where it was. */
	vcpu_sregs_set(kv->vcpu, &sregs);
	vcpu_regs_set(kv->vcpu, &regs);
	vcpu_ioctl(kv->vcpu, KVM_SET_MP_STATE, &running);
	kvmclock_enter(kv);
	provoke_updates(self->vm, &self->vcpu[0]);
	kvmclock_enter(kv);
	TEST_ASSERT(!memcmp(&before, kv->page, PVCLOCK_SIZE),
		    "page written after INIT, version %u -> %u", before.version,
		    kv->page->version);

	kvmclock_enable(kv, MSR_KVM_SYSTEM_TIME_NEW);
	assert_page_written(kv->page);
	assert_clock_is_page(self->vm, kv);
}

TEST_F(kvmclock_abi, rate_of_page)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];

	kvmclock_enable(kv, MSR_KVM_SYSTEM_TIME_NEW);
	assert_page_written(kv->page);
	assert_khz(kv->page, __vcpu_ioctl(kv->vcpu, KVM_GET_TSC_KHZ, NULL));
}

TEST_F(kvmclock_abi, page_moves)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	struct kvmclock_vcpu elsewhere = *kv;
	struct pvclock_vcpu_time_info before;
	gva_t gva = vm_alloc_page(self->vm);

	elsewhere.page = addr_gva2hva(self->vm, gva);
	elsewhere.page_gpa = addr_gva2gpa(self->vm, gva);
	memset(elsewhere.page, 0, PVCLOCK_SIZE);

	kvmclock_enable(kv, MSR_KVM_SYSTEM_TIME_NEW);
	before = *kv->page;
	kvmclock_enable(&elsewhere, MSR_KVM_SYSTEM_TIME_NEW);
	assert_page_written(elsewhere.page);
	TEST_ASSERT(!kvmclock_movement(&before, elsewhere.page,
				       rdtsc() + kvmclock_tsc_offset(kv)),
		    "the clock differs on its new page");

	provoke_updates(self->vm, kv);
	TEST_ASSERT(!memcmp(&before, kv->page, PVCLOCK_SIZE), "the old page is still written");
	assert_clock_is_page(self->vm, &elsewhere);
}

static char *add_edge_memory(struct kvm_vm *vm)
{
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, EDGE_GPA, EDGE_SLOT,
				    EDGE_SIZE / PAGE_SIZE, 0);
	return addr_gpa2hva(vm, EDGE_GPA);
}

static void assert_edge_untouched(const char *edge, uint64_t from, uint64_t to)
{
	uint64_t i;

	for (i = from; i < to; i++)
		TEST_ASSERT((uint8_t)edge[i] == EDGE_PATTERN, "byte 0x%lx written", i);
}

/* A page may start at each multiple of 4 that leaves room for it. */
TEST_F(kvmclock_abi, good_addresses)
{
	static const uint64_t offsets[] = {
		0, 4, 8, 32, 36, PAGE_SIZE - PVCLOCK_SIZE, PAGE_SIZE, EDGE_SIZE - PVCLOCK_SIZE - 4,
		EDGE_SIZE - PVCLOCK_SIZE,
	};
	struct kvmclock_vcpu kv = self->vcpu[0];
	char *edge = add_edge_memory(self->vm);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		memset(edge, EDGE_PATTERN, EDGE_SIZE);
		kv.page = (void *)(edge + offsets[i]);
		kv.page_gpa = EDGE_GPA + offsets[i];

		/* Junk, and odd: as if an update had been under way. */
		memset(kv.page, 0xff, PVCLOCK_SIZE);
		kvmclock_enable(&kv, MSR_KVM_SYSTEM_TIME_NEW);
		assert_edge_untouched(edge, 0, offsets[i]);
		assert_edge_untouched(edge, offsets[i] + PVCLOCK_SIZE, EDGE_SIZE);
		TEST_ASSERT(!(kv.page->version & 1), "offset 0x%lx: version %u", offsets[i],
			    kv.page->version);
		TEST_ASSERT(!(kv.page->flags & ~(PVCLOCK_TSC_STABLE_BIT | PVCLOCK_GUEST_STOPPED)),
			    "offset 0x%lx: flags 0x%x", offsets[i], kv.page->flags);
		assert_clock_is_page(self->vm, &kv);
	}
}

TEST_F(kvmclock_abi, bad_addresses)
{
	static const uint64_t addresses[] = {
		EDGE_GPA + 2,				/* not aligned */
		EDGE_GPA + 0x7fe,
		EDGE_END - PVCLOCK_SIZE - 2,
		EDGE_GPA + PAGE_SIZE - 4,		/* across two pages */
		EDGE_GPA + PAGE_SIZE - PVCLOCK_SIZE + 4,
		EDGE_END - 4,				/* over the end */
		EDGE_END - PVCLOCK_SIZE + 4,
		EDGE_END,				/* not backed */
		EDGE_GPA - PAGE_SIZE,
		1ULL << 51,
		1ULL << 52,				/* no such address */
		1ULL << 62,
		~0ULL << 12,
		~3ULL,
	};
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	struct pvclock_vcpu_time_info before, other;
	char *edge = add_edge_memory(self->vm);
	uint64_t value, got;
	uint32_t msr;
	unsigned int i;

	kvmclock_enable(&self->vcpu[1], MSR_KVM_SYSTEM_TIME_NEW);

	for (i = 0; i < 2 * ARRAY_SIZE(addresses); i++) {
		msr = system_time_msrs[i & 1];
		value = addresses[i / 2] | KVM_MSR_ENABLED;

		kvmclock_enable(kv, msr);
		before = *kv->page;
		other = kvmclock_read_page(self->vcpu[1].page);
		memset(edge, EDGE_PATTERN, EDGE_SIZE);

		kvmclock_wrmsr(kv, msr, value);
		got = kvmclock_rdmsr(kv, msr);
		TEST_ASSERT(got == value, "MSR 0x%x: 0x%lx, not 0x%lx", msr, got, value);
		kvmclock_enter(&self->vcpu[1]);
		TEST_ASSERT(!kvmclock_movement(&other, self->vcpu[1].page, rdtsc() +
					       kvmclock_tsc_offset(&self->vcpu[1])),
			    "0x%lx to MSR 0x%x moves the clock", value, msr);
		provoke_updates(self->vm, kv);
		kvmclock_set_tsc_offset(kv, kvmclock_tsc_offset(&self->vcpu[1]));

		for (got = 0; got < EDGE_SIZE; got++)
			TEST_ASSERT((uint8_t)edge[got] == EDGE_PATTERN,
				    "0x%lx to MSR 0x%x: byte 0x%llx written", value, msr,
				    EDGE_GPA + got);
		TEST_ASSERT(!memcmp(&before, kv->page, PVCLOCK_SIZE),
			    "0x%lx to MSR 0x%x: the old page is still written", value, msr);
		TEST_ASSERT(kvmclock_get(self->vm).clock >= HOUR_NS, "the VM lost its clock");
	}

	kvmclock_enable(kv, MSR_KVM_SYSTEM_TIME_NEW);
	TEST_ASSERT(kv->page->version > before.version, "a good address is not taken any more");
	assert_page_written(kv->page);
	assert_clock_is_page(self->vm, kv);
	kvmclock_enter(&self->vcpu[1]);
	assert_clock_is_page(self->vm, &self->vcpu[1]);
}

static void set_edge_memory(struct kvm_vm *vm, uint64_t size, void *edge)
{
	int r = __vm_set_user_memory_region(vm, EDGE_SLOT, 0, EDGE_GPA, size, edge);

	TEST_ASSERT(!r, "memory of size %lu: errno %d", size, errno);
}

/*
 * Memory that goes, and comes back with what was in it: a VMM splits and joins
 * what it gives a guest.  What a vCPU's page missed is in it when the guest
 * looks at it next.
 */
TEST_F(kvmclock_abi, memory_comes_back)
{
	enum { SET_CLOCK, SET_OFFSET, GUEST_TSC, STOPPED, NR_EVENTS };
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	char *edge = add_edge_memory(self->vm);
	struct kvm_clock_data data;
	uint64_t guest;
	unsigned int i;

	virt_map(self->vm, EDGE_GPA, EDGE_GPA, 1);
	kv->mail->page_gva = (void *)EDGE_GPA;
	kv->page = (void *)edge;
	kv->page_gpa = EDGE_GPA;
	kvmclock_enable(kv, MSR_KVM_SYSTEM_TIME_NEW);
	kvmclock_enable(&self->vcpu[1], MSR_KVM_SYSTEM_TIME_NEW);
	assert_clock_is_page(self->vm, kv);

	for (i = 0; i < 5 * NR_EVENTS; i++) {
		set_edge_memory(self->vm, 0, edge);
		switch (i % NR_EVENTS) {
		case SET_CLOCK:
			kvmclock_set(self->vm, (i + 1) * HOUR_NS);
			break;
		case SET_OFFSET:
			kvmclock_set_tsc_offset(kv, kvmclock_tsc_offset(kv) - 1000000000ULL);
			break;
		case GUEST_TSC:
			kvmclock_call(kv, KVMCLOCK_ADD_TSC, 0, 1000000000ULL);
			break;
		case STOPPED:
			vcpu_ioctl(kv->vcpu, KVM_KVMCLOCK_CTRL, NULL);
			break;
		}

		/* Served in vain, on this vCPU and by another one. */
		kvmclock_enter(kv);
		kvmclock_enter(&self->vcpu[1]);
		set_edge_memory(self->vm, EDGE_SIZE, edge);

		data = kvmclock_get(self->vm);
		guest = kvmclock_call(kv, KVMCLOCK_READ_AT, 0,
				      data.host_tsc + kvmclock_tsc_offset(kv));
		TEST_ASSERT(guest == data.clock, "event %u: guest has %lu, KVM_GET_CLOCK %llu",
			    i % NR_EVENTS, guest, data.clock);
		TEST_ASSERT(!!(kv->page->flags & PVCLOCK_GUEST_STOPPED) ==
			    (i % NR_EVENTS == STOPPED), "event %u: flags 0x%x", i % NR_EVENTS,
			    kv->page->flags);
		kvmclock_call(kv, KVMCLOCK_CLEAR_STOPPED, 0, 0);
		assert_clock_is_page(self->vm, kv);
	}
}

#define NR_LINES		2000

struct watch {
	const struct pvclock_vcpu_time_info *page;
	struct pvclock_vcpu_time_info seen[2 * NR_LINES];
	uint32_t nr_seen;
	uint32_t version;
	bool stop;
	bool backwards;
};

/* Keeps each line that a reader that follows the protocol gets to see. */
static void *watch_page(void *arg)
{
	struct watch *watch = arg;
	struct pvclock_vcpu_time_info copy;

	while (!READ_ONCE(watch->stop)) {
		copy = kvmclock_read_page(watch->page);
		if ((int32_t)(copy.version - watch->version) < 0)
			watch->backwards = true;
		if ((!watch->nr_seen ||
		     !oracle_same_line(&copy, &watch->seen[watch->nr_seen - 1])) &&
		    watch->nr_seen < ARRAY_SIZE(watch->seen))
			watch->seen[watch->nr_seen++] = copy;
		WRITE_ONCE(watch->version, copy.version);
	}
	return NULL;
}

/*
 * KVM_SET_CLOCK makes one line after the other.  What the page holds between
 * two runs of its vCPU is a line that KVM meant; a concurrent reader may see
 * these and no others, above all none that is half of one and half of the next.
 */
TEST_F(kvmclock_abi, version_protocol)
{
	static struct pvclock_vcpu_time_info meant[NR_LINES];
	static struct watch watch;
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	pthread_t thread;
	uint32_t i, j;

	kvmclock_enable(kv, MSR_KVM_SYSTEM_TIME_NEW);
	meant[0] = *kv->page;
	watch.page = kv->page;
	watch.version = kv->page->version;
	TEST_ASSERT(!pthread_create(&thread, NULL, watch_page, &watch), "pthread_create() failed");

	for (i = 1; i < NR_LINES; i++) {
		kvmclock_set(self->vm, i * HOUR_NS);
		kvmclock_enter(kv);
		meant[i] = *kv->page;
		assert_page_written(&meant[i]);
		TEST_ASSERT(!oracle_same_line(&meant[i], &meant[i - 1]), "page not updated");

		/* On a busy host the reader may sleep through all of it. */
		while (i % 16 == 0 && READ_ONCE(watch.version) != meant[i].version)
			sched_yield();
	}
	WRITE_ONCE(watch.stop, true);
	pthread_join(thread, NULL);

	TEST_ASSERT(!watch.backwards, "the version went backwards");
	TEST_ASSERT(watch.nr_seen >= NR_LINES / 16, "reader saw %u lines", watch.nr_seen);
	for (i = 0, j = 0; i < watch.nr_seen; i++) {
		while (j < NR_LINES && !oracle_same_line(&watch.seen[i], &meant[j]))
			j++;
		TEST_ASSERT(j < NR_LINES,
			    "torn: version %u tsc_timestamp %lu system_time %lu mul %u shift %d",
			    watch.seen[i].version, watch.seen[i].tsc_timestamp,
			    watch.seen[i].system_time, watch.seen[i].tsc_to_system_mul,
			    watch.seen[i].tsc_shift);
	}
}

/* The time that was on the wall when the clock was 0: a constant of the VM. */
static int64_t epoch_ns(struct kvm_vm *vm)
{
	struct kvm_clock_data data = kvmclock_get(vm);

	TEST_ASSERT(data.flags & KVM_CLOCK_REALTIME, "flags 0x%x", data.flags);
	return data.realtime - data.clock;
}

TEST_F(kvmclock_abi, wall_clock)
{
	static const uint32_t junk[] = { 0, 1, 5, 8, 0xfffffffe, 0xffffffff };
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	gva_t gva = vm_alloc_page(self->vm);
	gpa_t gpa = addr_gva2gpa(self->vm, gva);
	struct pvclock_wall_clock *wall = addr_gva2hva(self->vm, gva), copy;
	int64_t before, after, epoch;
	uint32_t msr, version;
	uint64_t got;
	unsigned int i;

	for (i = 0; i < 2 * ARRAY_SIZE(junk); i++) {
		msr = wall_clock_msrs[i & 1];
		memset(wall, EDGE_PATTERN, PAGE_SIZE);
		wall->version = junk[i / 2];

		before = epoch_ns(self->vm);
		kvmclock_wrmsr(kv, msr, gpa);
		after = epoch_ns(self->vm);
		copy = *wall;

		/* Odd means under way: that, too, ends at an even number. */
		version = (junk[i / 2] + (junk[i / 2] & 1)) + 2;
		TEST_ASSERT(copy.version == version, "MSR 0x%x: version %u became %u", msr,
			    junk[i / 2], copy.version);
		TEST_ASSERT(copy.nsec < NSEC_PER_SEC, "MSR 0x%x: %u ns", msr, copy.nsec);

		/*
		 * An epoch is a difference of two times that are rounded down,
		 * each less than 1 ns off: so is each of the three.
		 */
		epoch = copy.sec * NSEC_PER_SEC + copy.nsec;
		TEST_ASSERT(epoch >= min(before, after) - 1 && epoch <= max(before, after) + 1,
			    "MSR 0x%x: epoch %ld, KVM_GET_CLOCK says %ld before, %ld after", msr,
			    epoch, before, after);

		for (got = sizeof(*wall); got < PAGE_SIZE; got++)
			TEST_ASSERT(((uint8_t *)wall)[got] == EDGE_PATTERN, "byte 0x%lx written",
				    got);
		got = kvmclock_rdmsr(kv, msr);
		TEST_ASSERT(got == gpa, "MSR 0x%x: 0x%lx, not 0x%lx", msr, got, gpa);

		/* Written on demand and never else. */
		kvmclock_enable(kv, MSR_KVM_SYSTEM_TIME_NEW);
		provoke_updates(self->vm, kv);
		TEST_ASSERT(!memcmp(&copy, wall, sizeof(copy)), "MSR 0x%x: written twice", msr);
	}
}

TEST_F(kvmclock_abi, wall_clock_bad_addresses)
{
	static const uint64_t addresses[] = {
		EDGE_END, EDGE_END - 4, EDGE_GPA - 8, 1ULL << 51, 1ULL << 62, ~0ULL << 12, ~0ULL,
	};
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	char *edge = add_edge_memory(self->vm);
	struct pvclock_wall_clock *wall = (void *)edge;
	uint64_t got;
	unsigned int i;

	for (i = 0; i < 2 * ARRAY_SIZE(addresses); i++) {
		memset(edge, EDGE_PATTERN, EDGE_SIZE);
		kvmclock_wrmsr(kv, wall_clock_msrs[i & 1], addresses[i / 2]);
		got = kvmclock_rdmsr(kv, wall_clock_msrs[i & 1]);
		TEST_ASSERT(got == addresses[i / 2], "0x%lx read as 0x%lx", addresses[i / 2], got);

		/* Where memory ends in the middle the first word is there. */
		assert_edge_untouched(edge, 0, EDGE_SIZE - 4);
	}

	wall->version = 0;
	kvmclock_wrmsr(kv, MSR_KVM_WALL_CLOCK_NEW, EDGE_GPA);
	TEST_ASSERT(wall->version == 2, "a good address is not taken any more");
}

/*
 * A feature that CPUID hides is not there, but only for a VMM that asked for
 * that: others have always got all MSRs.
 */
TEST_F(kvmclock_abi, hidden_features)
{
	struct kvmclock_vcpu *kv;
	uint8_t vector_old, vector_new;
	unsigned int i, m;

	TEST_ASSERT(kvm_has_cap(KVM_CAP_ENFORCE_PV_FEATURE_CPUID), "nothing enforces CPUID");
	vcpu_clear_cpuid_feature(self->vcpu[0].vcpu, X86_FEATURE_KVM_CLOCKSOURCE);
	vcpu_clear_cpuid_feature(self->vcpu[1].vcpu, X86_FEATURE_KVM_CLOCKSOURCE2);

	for (i = 0; i < ARRAY_SIZE(self->vcpu); i++) {
		kv = &self->vcpu[i];
		for (m = 0; m < ARRAY_SIZE(system_time_msrs); m++) {
			kvmclock_rdmsr(kv, system_time_msrs[m]);
			kvmclock_wrmsr(kv, system_time_msrs[m], 0);
			kvmclock_rdmsr(kv, wall_clock_msrs[m]);
			kvmclock_wrmsr(kv, wall_clock_msrs[m], 0);
		}

		vcpu_enable_cap(kv->vcpu, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1);
		vector_old = i == 0 ? GP_VECTOR : 0;
		vector_new = i == 1 ? GP_VECTOR : 0;
		for (m = 0; m < 4; m++) {
			uint32_t msr = m < 2 ? system_time_msrs[m] : wall_clock_msrs[m - 2];
			uint8_t vector = m & 1 ? vector_new : vector_old;

			kvmclock_call(kv, KVMCLOCK_RDMSR, msr, 0);
			TEST_ASSERT(kv->mail->vector == vector, "vCPU %u, RDMSR 0x%x: vector %lu",
				    i, msr, kv->mail->vector);
			kvmclock_call(kv, KVMCLOCK_WRMSR, msr, 0);
			TEST_ASSERT(kv->mail->vector == vector, "vCPU %u, WRMSR 0x%x: vector %lu",
				    i, msr, kv->mail->vector);
		}
	}

	/* What is left still works. */
	kvmclock_enable(&self->vcpu[0], MSR_KVM_SYSTEM_TIME_NEW);
	assert_page_written(self->vcpu[0].page);
	kvmclock_enable(&self->vcpu[1], MSR_KVM_SYSTEM_TIME);
	assert_page_written(self->vcpu[1].page);
}

static void assert_not_stoppable(struct kvmclock_vcpu *kv, const char *when)
{
	int r = __vcpu_ioctl(kv->vcpu, KVM_KVMCLOCK_CTRL, NULL);

	TEST_ASSERT(r == -1 && errno == EINVAL, "KVM_KVMCLOCK_CTRL %s: %d, errno %d", when, r,
		    errno);
}

/* Memory that is there for the asking is written at once, too: userspace may save it. */
TEST_F(kvmclock_abi, guest_stopped_in_new_memory)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];

	kvmclock_enable(kv, MSR_KVM_SYSTEM_TIME_NEW);
	TEST_ASSERT(!madvise(kv->page, PAGE_SIZE, MADV_DONTNEED), "madvise(): %m");
	vcpu_ioctl(kv->vcpu, KVM_KVMCLOCK_CTRL, NULL);
	TEST_ASSERT(kv->page->flags & PVCLOCK_GUEST_STOPPED, "flags 0x%x", kv->page->flags);
	assert_page_written(kv->page);
	assert_clock_is_page(self->vm, kv);
}

TEST_F(kvmclock_abi, guest_stopped)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	struct pvclock_vcpu_time_info before, other;
	uint64_t tsc;
	unsigned int i;

	assert_not_stoppable(kv, "before there is a page");
	kvmclock_enable(kv, MSR_KVM_SYSTEM_TIME_NEW);
	kvmclock_enable(&self->vcpu[1], MSR_KVM_SYSTEM_TIME_NEW);

	for (i = 0; i < 3; i++) {
		before = *kv->page;
		other = *self->vcpu[1].page;
		TEST_ASSERT(!(before.flags & PVCLOCK_GUEST_STOPPED), "stopped for no reason");

		/* Userspace may save guest memory without running it again. */
		vcpu_ioctl(kv->vcpu, KVM_KVMCLOCK_CTRL, NULL);
		TEST_ASSERT(kv->page->flags == (before.flags | PVCLOCK_GUEST_STOPPED),
			    "flags 0x%x became 0x%x", before.flags, kv->page->flags);
		assert_page_written(kv->page);
		tsc = rdtsc() + kvmclock_tsc_offset(kv);
		TEST_ASSERT(!kvmclock_movement(&before, kv->page, tsc), "the clock moved");
		TEST_ASSERT(!memcmp(&other, self->vcpu[1].page, PVCLOCK_SIZE),
			    "the page of vCPU 1 was written");

		/* It is for the guest to clear, and then it is gone. */
		kvmclock_force_update(kv);
		TEST_ASSERT(kv->page->flags & PVCLOCK_GUEST_STOPPED, "lost by an update");
		kvmclock_call(kv, KVMCLOCK_CLEAR_STOPPED, 0, 0);
		kvmclock_force_update(kv);
		kvmclock_enter(kv);
		TEST_ASSERT(!(kv->page->flags & PVCLOCK_GUEST_STOPPED), "it came back");
		TEST_ASSERT(!(self->vcpu[1].page->flags & PVCLOCK_GUEST_STOPPED),
			    "vCPU 1 was told");
	}

	kvmclock_wrmsr(kv, kv->msr, kv->page_gpa);
	assert_not_stoppable(kv, "after the page is gone");
}

/* All of KVM_GET_CLOCK is valid from the start, and between two readings. */
TEST(clock_flags)
{
	struct kvm_vm *vm = vm_create_barebones();
	struct kvm_clock_data data;
	struct timespec ts;
	uint64_t tsc_before, tsc_after, real_before, real_after;
	unsigned int i, j;

	i = kvm_check_cap(KVM_CAP_ADJUST_CLOCK);
	TEST_ASSERT(i == KVMCLOCK_GET_FLAGS, "KVM_CAP_ADJUST_CLOCK: 0x%x", i);

	for (i = 0; i < 100; i++) {
		memset(&data, 0xff, sizeof(data));
		clock_gettime(CLOCK_REALTIME, &ts);
		real_before = ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;
		tsc_before = rdtsc();
		vm_ioctl(vm, KVM_GET_CLOCK, &data);
		tsc_after = rdtsc();
		clock_gettime(CLOCK_REALTIME, &ts);
		real_after = ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec;

		TEST_ASSERT(data.flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", data.flags);
		TEST_ASSERT(data.host_tsc >= tsc_before && data.host_tsc <= tsc_after,
			    "host_tsc %llu is not in [%lu, %lu]", data.host_tsc, tsc_before,
			    tsc_after);
		TEST_ASSERT(data.realtime >= real_before && data.realtime <= real_after,
			    "realtime %llu is not in [%lu, %lu]", data.realtime, real_before,
			    real_after);
		TEST_ASSERT(!data.pad0, "padding 0x%x", data.pad0);
		for (j = 0; j < ARRAY_SIZE(data.pad); j++)
			TEST_ASSERT(!data.pad[j], "padding 0x%x", data.pad[j]);
	}
	kvm_vm_free(vm);
}

TEST_F(kvmclock_abi, set_clock_flags)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	struct pvclock_vcpu_time_info before;
	struct kvm_clock_data saved, data;
	uint64_t tsc;
	int bit, r;

	kvmclock_enable(kv, MSR_KVM_SYSTEM_TIME_NEW);
	before = *kv->page;

	for (bit = 0; bit < 32; bit++) {
		if (KVMCLOCK_GET_FLAGS & BIT(bit))
			continue;
		data = (struct kvm_clock_data) {
			.clock = HOUR_NS,
			.flags = KVM_CLOCK_REALTIME | BIT(bit),
		};
		r = __vm_ioctl(self->vm, KVM_SET_CLOCK, &data);
		TEST_ASSERT(r == -1 && errno == EINVAL, "flag %d: %d, errno %d", bit, r, errno);
		kvmclock_enter(kv);
		tsc = rdtsc() + kvmclock_tsc_offset(kv);
		TEST_ASSERT(!kvmclock_movement(&before, kv->page, tsc), "flag %d: moved", bit);
		assert_clock_is_page(self->vm, kv);
	}

	/* What KVM_GET_CLOCK gives, KVM_SET_CLOCK takes. */
	saved = kvmclock_get(self->vm);
	data = saved;
	vm_ioctl(self->vm, KVM_SET_CLOCK, &data);
	data = kvmclock_get(self->vm);
	TEST_ASSERT(data.clock >= saved.clock, "%llu became %llu", saved.clock, data.clock);
	kvmclock_enter(kv);
	assert_clock_is_page(self->vm, kv);
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	return test_harness_run(argc, argv);
}
