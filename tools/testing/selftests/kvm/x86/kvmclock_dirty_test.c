// SPDX-License-Identifier: GPL-2.0-only
/*
 * What KVM writes into guest memory on its own is part of what a migration has
 * to send.  One vCPU writes the pages of all, also of those that don't run: each
 * page that is written is in the dirty bitmap, or in some vCPU's dirty ring, and
 * none that is not.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "hyperv.h"
#include "processor.h"
#include "test_util.h"

#define HOUR_NS		(3600 * NSEC_PER_SEC)
#define NR_VCPUS	3
#define WALL_CLOCK	NR_VCPUS	/* its page, after one page per vCPU */
#define NR_PAGES	(NR_VCPUS + 1)
#define ALL_VCPUS	(BIT(NR_VCPUS) - 1)

#define LOG_SLOT	10
#define LOG_GPA		BIT_ULL(32)
#define RING_ENTRIES	1024

FIXTURE(kvmclock_dirty) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_VCPUS];
	void *memory;
	uint32_t versions[NR_PAGES];
	struct kvm_dirty_gfn *ring[NR_VCPUS];	/* NULL: there is a bitmap instead */
	uint32_t next[NR_VCPUS];
};

FIXTURE_VARIANT(kvmclock_dirty) {
	bool ring;
};

FIXTURE_VARIANT_ADD(kvmclock_dirty, bitmap) {
	.ring = false,
};

FIXTURE_VARIANT_ADD(kvmclock_dirty, ring) {
	.ring = true,
};

FIXTURE_SETUP(kvmclock_dirty)
{
	unsigned int i;

	memset(self, 0, sizeof(*self));
	self->vm = vm_create(NR_VCPUS);
	if (variant->ring) {
		TEST_ASSERT(kvm_has_cap(KVM_CAP_DIRTY_LOG_RING_ACQ_REL) ||
			    kvm_has_cap(KVM_CAP_DIRTY_LOG_RING), "no dirty ring");
		vm_enable_dirty_ring(self->vm, RING_ENTRIES * sizeof(struct kvm_dirty_gfn));
	}
	vm_userspace_mem_region_add(self->vm, VM_MEM_SRC_ANONYMOUS, LOG_GPA, LOG_SLOT, NR_PAGES,
				    KVM_MEM_LOG_DIRTY_PAGES);
	self->memory = addr_gpa2hva(self->vm, LOG_GPA);

	/* So that no page is new to the host, and no guest touches any. */
	memset(self->memory, 0, NR_PAGES * PAGE_SIZE);
	for (i = 0; i < NR_VCPUS; i++) {
		kvmclock_vcpu_add(self->vm, &self->vcpu[i], i);
		self->vcpu[i].page = self->memory + i * PAGE_SIZE;
		self->vcpu[i].page_gpa = LOG_GPA + i * PAGE_SIZE;
		if (variant->ring)
			self->ring[i] = vcpu_map_dirty_ring(self->vcpu[i].vcpu);
	}
}

FIXTURE_TEARDOWN(kvmclock_dirty)
{
	kvm_vm_free(self->vm);
}

/* Takes all new entries of a ring. */
static unsigned long collect_ring(struct kvm_dirty_gfn *ring, uint32_t *next)
{
	struct kvm_dirty_gfn *entry = &ring[*next % RING_ENTRIES];
	unsigned long pages = 0;

	/* The kernel's release of an entry comes after what is in it. */
	while (__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) & KVM_DIRTY_GFN_F_DIRTY) {
		TEST_ASSERT(entry->slot == LOG_SLOT && entry->offset < NR_PAGES,
			    "slot %u, page %llu", entry->slot, entry->offset);
		pages |= BIT(entry->offset);
		__atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
		++*next;
		entry = &ring[*next % RING_ENTRIES];
	}
	return pages;
}

static unsigned long collect_dirty(FIXTURE_DATA(kvmclock_dirty) * self)
{
	unsigned long pages = 0;
	unsigned int i;

	if (!self->ring[0]) {
		kvm_vm_get_dirty_log(self->vm, LOG_SLOT, &pages);
		return pages;
	}
	for (i = 0; i < NR_VCPUS; i++)
		pages |= collect_ring(self->ring[i], &self->next[i]);
	kvm_vm_reset_dirty_ring(self->vm);
	return pages;
}

/* The version, the first word of both ABIs, changes with each writing. */
static unsigned long collect_written(FIXTURE_DATA(kvmclock_dirty) * self)
{
	unsigned long pages = 0;
	unsigned int i;

	for (i = 0; i < NR_PAGES; i++) {
		uint32_t version = *(uint32_t *)(self->memory + i * PAGE_SIZE);

		if (version != self->versions[i])
			pages |= BIT(i);
		self->versions[i] = version;
	}
	return pages;
}

/* Exactly what was written is dirty, and it is @expected. */
static void assert_written(FIXTURE_DATA(kvmclock_dirty) * self, unsigned long expected,
			   const char *by)
{
	unsigned long written = collect_written(self), dirty = collect_dirty(self);

	TEST_ASSERT(written == dirty, "%s: pages 0x%lx written, 0x%lx dirty", by, written, dirty);
	TEST_ASSERT(written == expected, "%s: pages 0x%lx written, not 0x%lx", by, written,
		    expected);
}

TEST_F(kvmclock_dirty, own_pages)
{
	unsigned int i;

	assert_written(self, 0, "nothing");
	for (i = 0; i < NR_VCPUS; i++) {
		kvmclock_enable(&self->vcpu[i], MSR_KVM_SYSTEM_TIME_NEW);
		assert_written(self, BIT(i), "a vCPU's start");
	}
	for (i = 0; i < NR_VCPUS; i++)
		kvmclock_enter(&self->vcpu[i]);
	assert_written(self, 0, "vCPUs that go on");

	kvmclock_wrmsr(&self->vcpu[1], MSR_KVM_WALL_CLOCK_NEW, LOG_GPA + WALL_CLOCK * PAGE_SIZE);
	assert_written(self, BIT(WALL_CLOCK), "the wall clock");
	vcpu_set_msr(self->vcpu[2].vcpu, MSR_KVM_WALL_CLOCK,
		     LOG_GPA + WALL_CLOCK * PAGE_SIZE);
	assert_written(self, BIT(WALL_CLOCK), "the wall clock, by the host");

	/* No guest runs between this and a migration's last look. */
	vcpu_ioctl(self->vcpu[2].vcpu, KVM_KVMCLOCK_CTRL, NULL);
	assert_written(self, BIT(2), "KVM_KVMCLOCK_CTRL");
}

/*
 * One vCPU comes back, and writes what another could read: each page that has
 * the stable bit.  When the bit comes, no page has it, and each writes its own.
 */
TEST_F(kvmclock_dirty, others_pages)
{
	unsigned int i, next, last;
	uint64_t offset;

	kvmclock_enable_all(self->vcpu, NR_VCPUS);
	assert_written(self, ALL_VCPUS, "start");
	offset = kvmclock_tsc_offset(&self->vcpu[0]);

	for (i = 0; i < NR_VCPUS; i++) {
		next = (i + 1) % NR_VCPUS;
		last = (i + 2) % NR_VCPUS;

		kvmclock_set(self->vm, (i + 1) * HOUR_NS);
		assert_written(self, 0, "KVM_SET_CLOCK alone");
		kvmclock_enter(&self->vcpu[i]);
		assert_written(self, ALL_VCPUS, "the first vCPU after KVM_SET_CLOCK");
		kvmclock_enter(&self->vcpu[next]);
		assert_written(self, 0, "the second vCPU after KVM_SET_CLOCK");

		kvmclock_set_tsc_offset(&self->vcpu[i], offset + 1);
		kvmclock_enter(&self->vcpu[next]);
		assert_written(self, ALL_VCPUS, "another vCPU after the stable bit went");
		kvmclock_enter_all(self->vcpu, NR_VCPUS);
		collect_written(self);
		collect_dirty(self);

		kvmclock_set_tsc_offset(&self->vcpu[i], offset);
		kvmclock_enter(&self->vcpu[next]);
		assert_written(self, BIT(next), "another vCPU after the stable bit came");
		kvmclock_enter(&self->vcpu[i]);
		assert_written(self, BIT(i), "the vCPU whose TSC was another");
		kvmclock_enter(&self->vcpu[last]);
		assert_written(self, BIT(last), "the last vCPU after the stable bit came");
		kvmclock_enter_all(self->vcpu, NR_VCPUS);
		assert_written(self, 0, "vCPUs that go on");
	}
}

/* A migration begins with pages that KVM knows already. */
TEST_F(kvmclock_dirty, logging_starts_late)
{
	unsigned int i;

	vm_mem_region_set_flags(self->vm, LOG_SLOT, 0);
	kvmclock_enable_all(self->vcpu, NR_VCPUS);
	TEST_ASSERT(collect_written(self) == ALL_VCPUS, "not all pages written");
	vm_mem_region_set_flags(self->vm, LOG_SLOT, KVM_MEM_LOG_DIRTY_PAGES);

	for (i = 0; i < 2; i++) {
		collect_dirty(self);
		kvmclock_set(self->vm, (i + 1) * HOUR_NS);
		kvmclock_enter(&self->vcpu[1]);
		assert_written(self, ALL_VCPUS, "KVM_SET_CLOCK");
	}
}

/*
 * Many vCPUs, and the smallest ring that KVM takes.  A log slot has the
 * structures of all vCPUs, Hyper-V's TSC page, a wall clock, and what the guests
 * dirty themselves, in this order.
 */
#define MAX_VCPUS	512
#define MAX_ENTRIES	4096
#define NR_AREAS	3
#define MAX_STRUCTS	(NR_AREAS * MAX_VCPUS + 2)
#define MAX_LOGGED	(MAX_STRUCTS + MAX_ENTRIES)
#define STRUCT_SIZE	64
#define DATA_SLOT	11
#define DATA_GPA	BIT_ULL(33)
#define LATE_SLOT	12
#define LATE_GPA	(LOG_GPA + BIT_ULL(28))	/* what a huge page could map with it */
#define PATIENCE_S	10
#define NR_ROUNDS	6
#define NR_CALLS	1000

/* Sanitizers make 512 vCPUs slow. */
#define CASE_S		200

/* Xen's ABI */
#define XEN_HYPERCALL_MSR	0x40000200	/* beside those of Hyper-V */
#define XEN_VCPU_INFO_TIME	32

enum area { KVMCLOCK, XEN_VCPU_INFO, XEN_TIME_INFO };

FIXTURE(kvmclock_dirty_many) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[MAX_VCPUS];
	struct kvm_dirty_gfn *ring[MAX_VCPUS];
	uint32_t next[MAX_VCPUS];
	uint32_t entries;
	unsigned int nr, per_page, nr_areas, area_pages;
	unsigned int hv_page, wall_page, scratch_page, nr_pages;
	void *memory;
	uint32_t *version[MAX_STRUCTS];
	uint32_t last[MAX_STRUCTS];
	unsigned int nr_structs;
	unsigned int of_vcpu[NR_AREAS][MAX_VCPUS], of_hv, of_wall;	/* structures */
	bool dirty[MAX_LOGGED], written[MAX_LOGGED];
};

FIXTURE_VARIANT(kvmclock_dirty_many) {
	unsigned int nr;
	unsigned int per_page;
	bool ring;
	bool others;		/* the structures of Xen and Hyper-V, too */
};

FIXTURE_VARIANT_ADD(kvmclock_dirty_many, ring_1) {
	.nr = 1,
	.per_page = 1,
	.ring = true,
};

FIXTURE_VARIANT_ADD(kvmclock_dirty_many, ring_3_others) {
	.nr = 3,
	.per_page = 1,
	.ring = true,
	.others = true,
};

FIXTURE_VARIANT_ADD(kvmclock_dirty_many, ring_64) {
	.nr = 64,
	.per_page = 64,
	.ring = true,
};

FIXTURE_VARIANT_ADD(kvmclock_dirty_many, ring_65) {
	.nr = 65,
	.per_page = 1,
	.ring = true,
};

FIXTURE_VARIANT_ADD(kvmclock_dirty_many, ring_65_others) {
	.nr = 65,
	.per_page = 64,
	.ring = true,
	.others = true,
};

FIXTURE_VARIANT_ADD(kvmclock_dirty_many, ring_120) {
	.nr = 120,
	.per_page = 1,
	.ring = true,
};

FIXTURE_VARIANT_ADD(kvmclock_dirty_many, ring_120_shared) {
	.nr = 120,
	.per_page = 64,
	.ring = true,
};

FIXTURE_VARIANT_ADD(kvmclock_dirty_many, ring_512) {
	.nr = 512,
	.per_page = 1,
	.ring = true,
};

FIXTURE_VARIANT_ADD(kvmclock_dirty_many, bitmap_3_others) {
	.nr = 3,
	.per_page = 1,
	.others = true,
};

FIXTURE_VARIANT_ADD(kvmclock_dirty_many, bitmap_65) {
	.nr = 65,
	.per_page = 64,
};

FIXTURE_VARIANT_ADD(kvmclock_dirty_many, bitmap_120_others) {
	.nr = 120,
	.per_page = 1,
	.others = true,
};

FIXTURE_VARIANT_ADD(kvmclock_dirty_many, bitmap_512) {
	.nr = 512,
	.per_page = 64,
};

/* Dirties as many pages as it is told to, one after the other. */
static void guest_dirty(struct kvmclock_mail *mail)
{
	uint64_t *word;
	uint64_t i;

	for (;;) {
		word = (void *)mail->page_gva;
		for (i = 0; i < mail->value; i++, word += PAGE_SIZE / sizeof(*word))
			WRITE_ONCE(*word, READ_ONCE(*word) + 1);
		GUEST_SYNC(i);
	}
}

static unsigned int struct_page(FIXTURE_DATA(kvmclock_dirty_many) * self, enum area area,
				unsigned int vcpu)
{
	return area * self->area_pages + vcpu / self->per_page;
}

static unsigned int struct_offset(FIXTURE_DATA(kvmclock_dirty_many) * self, enum area area,
				  unsigned int vcpu)
{
	return struct_page(self, area, vcpu) * PAGE_SIZE + vcpu % self->per_page * STRUCT_SIZE;
}

/* Remembers a structure by the page's version, its first word. */
static unsigned int watch(FIXTURE_DATA(kvmclock_dirty_many) * self, unsigned int offset)
{
	self->version[self->nr_structs] = self->memory + offset;
	return self->nr_structs++;
}

static void set_xen_attr(FIXTURE_DATA(kvmclock_dirty_many) * self, unsigned int vcpu,
			 enum area area)
{
	unsigned int offset = struct_offset(self, area, vcpu);
	struct kvm_xen_vcpu_attr attr = {
		.type = area == XEN_TIME_INFO ? KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO :
						KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO,
		.u.gpa = LOG_GPA + offset,
	};

	vcpu_ioctl(self->vcpu[vcpu].vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
	self->of_vcpu[area][vcpu] = watch(self, area == XEN_TIME_INFO ? offset :
					offset + XEN_VCPU_INFO_TIME);
}

static void reset_rings(FIXTURE_DATA(kvmclock_dirty_many) * self, unsigned int collected)
{
	unsigned int reset = kvm_vm_reset_dirty_ring(self->vm);

	TEST_ASSERT(reset == collected, "%u entries collected, %u reset", collected, reset);
}

/* Takes all that the log has; returns the number of ring entries. */
static unsigned int reap(FIXTURE_DATA(kvmclock_dirty_many) * self)
{
	unsigned long bits[MAX_LOGGED / BITS_PER_LONG + 1] = { };
	struct kvm_dirty_gfn *entry;
	unsigned int i, nr = 0, of_ring;

	if (!self->entries) {
		kvm_vm_get_dirty_log(self->vm, LOG_SLOT, bits);
		for (i = 0; i < self->nr_pages; i++)
			self->dirty[i] |= bits[i / BITS_PER_LONG] >> (i % BITS_PER_LONG) & 1;
		return 0;
	}

	for (i = 0; i < self->nr; i++) {
		for (of_ring = 0; of_ring <= self->entries; of_ring++) {
			entry = &self->ring[i][self->next[i] % self->entries];
			if (!(__atomic_load_n(&entry->flags, __ATOMIC_ACQUIRE) &
			      KVM_DIRTY_GFN_F_DIRTY))
				break;
			TEST_ASSERT(entry->slot == LOG_SLOT && entry->offset < self->nr_pages,
				    "slot %u, page %llu", entry->slot, entry->offset);
			self->dirty[entry->offset] = true;
			__atomic_store_n(&entry->flags, KVM_DIRTY_GFN_F_RESET, __ATOMIC_RELEASE);
			self->next[i]++;
		}
		nr += of_ring;
	}
	reset_rings(self, nr);
	return nr;
}

static void forget(FIXTURE_DATA(kvmclock_dirty_many) * self)
{
	unsigned int i;

	reap(self);
	for (i = 0; i < self->nr_structs; i++)
		self->last[i] = READ_ONCE(*self->version[i]);
	memset(self->dirty, 0, sizeof(self->dirty));
	memset(self->written, 0, sizeof(self->written));
}

/*
 * Runs a vCPU as a VMM does: what is in the rings is taken whenever one is full.
 * Each time there is something to take, and not for ever.
 */
static unsigned int run_reaping(FIXTURE_DATA(kvmclock_dirty_many) * self, unsigned int vcpu,
				unsigned int nr_dirty)
{
	struct kvmclock_vcpu *kv = &self->vcpu[vcpu];
	unsigned int nr_full = 0, nr, total = 0;
	struct ucall uc;

	kv->mail->value = nr_dirty;
	for (;;) {
		vcpu_run(kv->vcpu);
		if (kv->vcpu->run->exit_reason != KVM_EXIT_DIRTY_RING_FULL)
			break;
		nr = reap(self);
		TEST_ASSERT(nr, "vCPU %u: its ring is full, and nothing is in it", vcpu);
		TEST_ASSERT(nr_full++ < MAX_LOGGED, "vCPU %u: its ring is full forever", vcpu);
		total += nr;
	}
	TEST_ASSERT(get_ucall(kv->vcpu, &uc) == UCALL_SYNC, "vCPU %u: exit reason %u (%s)", vcpu,
		    kv->vcpu->run->exit_reason, exit_reason_str(kv->vcpu->run->exit_reason));
	return total;
}

static void expect_vcpu(FIXTURE_DATA(kvmclock_dirty_many) * self, bool *expected,
			unsigned int vcpu)
{
	unsigned int area;

	for (area = 0; area < self->nr_areas; area++)
		expected[self->of_vcpu[area][vcpu]] = true;
}

/* All structures that were written have their pages in the log, and no others. */
static void assert_log(FIXTURE_DATA(kvmclock_dirty_many) * self, const bool *expected,
		       unsigned int nr_scratch, const char *by)
{
	unsigned int lost = 0, idle = 0, missed = 0, surplus = 0, i, page;

	reap(self);
	for (i = 0; i < self->nr_structs; i++) {
		page = ((void *)self->version[i] - self->memory) / PAGE_SIZE;
		if (READ_ONCE(*self->version[i]) != self->last[i]) {
			self->written[page] = true;
			surplus += !expected[i];
		} else {
			missed += expected[i];
		}
	}
	for (i = 0; i < nr_scratch; i++)
		self->written[self->scratch_page + i] = true;
	for (i = 0; i < self->nr_pages; i++) {
		lost += self->written[i] && !self->dirty[i];
		idle += !self->written[i] && self->dirty[i];
	}
	TEST_ASSERT(!lost, "%s: %u pages were written and are in no log", by, lost);
	TEST_ASSERT(!idle, "%s: %u pages are dirty and were not written", by, idle);
	TEST_ASSERT(!missed, "%s: %u structures were not written", by, missed);
	TEST_ASSERT(!surplus, "%s: %u structures were written for nothing", by, surplus);
	forget(self);
}

/* The entries that a vCPU's ring takes before it has to be reaped. */
static unsigned int soft_limit(FIXTURE_DATA(kvmclock_dirty_many) * self, unsigned int vcpu)
{
	unsigned int limit;

	self->vcpu[vcpu].mail->value = self->entries;
	vcpu_run(self->vcpu[vcpu].vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(self->vcpu[vcpu].vcpu, KVM_EXIT_DIRTY_RING_FULL);
	limit = reap(self);
	TEST_ASSERT(limit && limit < self->entries, "full with %u of %u entries", limit,
		    self->entries);
	run_reaping(self, vcpu, self->entries);
	forget(self);
	return limit;
}

FIXTURE_SETUP(kvmclock_dirty_many)
{
	struct kvm_xen_hvm_config xen = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
		.msr = XEN_HYPERCALL_MSR,
	};
	unsigned int i;

	memset(self, 0, sizeof(*self));
	self->nr = variant->nr;
	self->per_page = variant->per_page;
	self->nr_areas = variant->others ? NR_AREAS : 1;
	self->area_pages = DIV_ROUND_UP(self->nr, self->per_page);
	self->vm = vm_create(self->nr);

	/* The library has room for the vCPUs, not for a mail and a page of each. */
	vm_userspace_mem_region_add(self->vm, VM_MEM_SRC_ANONYMOUS, DATA_GPA, DATA_SLOT,
				    2 * self->nr, 0);
	self->vm->memslots[MEM_REGION_TEST_DATA] = DATA_SLOT;

	if (variant->ring) {
		for (self->entries = 256; self->entries <= MAX_ENTRIES; self->entries *= 2) {
			self->vm->dirty_ring_size = self->entries * sizeof(struct kvm_dirty_gfn);
			if (!__vm_enable_cap(self->vm, KVM_CAP_DIRTY_LOG_RING_ACQ_REL,
					     self->vm->dirty_ring_size))
				break;
		}
		TEST_ASSERT(self->entries <= MAX_ENTRIES, "no dirty ring");
	}

	self->hv_page = self->nr_areas * self->area_pages;
	self->wall_page = self->hv_page + 1;
	self->scratch_page = self->wall_page + 1;
	self->nr_pages = self->scratch_page + max(self->entries, 256u);
	vm_userspace_mem_region_add(self->vm, VM_MEM_SRC_ANONYMOUS, LOG_GPA, LOG_SLOT,
				    self->nr_pages, KVM_MEM_LOG_DIRTY_PAGES);
	virt_map(self->vm, LOG_GPA, LOG_GPA, self->nr_pages);
	self->memory = addr_gpa2hva(self->vm, LOG_GPA);
	memset(self->memory, 0, self->nr_pages * PAGE_SIZE);

	if (variant->others)
		vm_ioctl(self->vm, KVM_XEN_HVM_CONFIG, &xen);
	for (i = 0; i < self->nr; i++) {
		struct kvmclock_vcpu *kv = &self->vcpu[i];

		kvmclock_vcpu_add_running(self->vm, kv, i, guest_dirty);
		kv->mail->page_gva = (void *)(LOG_GPA + self->scratch_page * PAGE_SIZE);
		if (variant->ring)
			self->ring[i] = vcpu_map_dirty_ring(kv->vcpu);
		kv->page = self->memory + struct_offset(self, KVMCLOCK, i);
		kv->page_gpa = LOG_GPA + struct_offset(self, KVMCLOCK, i);
		self->of_vcpu[KVMCLOCK][i] = watch(self, struct_offset(self, KVMCLOCK, i));
		vcpu_set_msr(kv->vcpu, MSR_KVM_SYSTEM_TIME_NEW, kv->page_gpa | KVM_MSR_ENABLED);
		if (variant->others) {
			set_xen_attr(self, i, XEN_VCPU_INFO);
			set_xen_attr(self, i, XEN_TIME_INFO);
		}
	}
	if (variant->others) {
		vcpu_set_hv_cpuid(self->vcpu[0].vcpu);
		vcpu_set_msr(self->vcpu[0].vcpu, HV_X64_MSR_GUEST_OS_ID, 1ULL << 48);
		vcpu_set_msr(self->vcpu[0].vcpu, HV_X64_MSR_REFERENCE_TSC,
			     (LOG_GPA + self->hv_page * PAGE_SIZE) | BIT(0));
		self->of_hv = watch(self, self->hv_page * PAGE_SIZE);
	}
	self->of_wall = watch(self, self->wall_page * PAGE_SIZE);

	for (i = 0; i < self->nr; i++)
		run_reaping(self, i, 0);
	for (i = 0; i < self->nr; i++) {
		TEST_ASSERT(self->vcpu[i].page->flags & PVCLOCK_TSC_STABLE_BIT,
			    "vCPU %u: not stable", i);
		run_reaping(self, i, 0);
	}
	forget(self);
}

FIXTURE_TEARDOWN(kvmclock_dirty_many)
{
	kvm_vm_free(self->vm);
}

/*
 * A ring that is as full as it may be when the line changes: who enters writes
 * the pages of all vCPUs, or leaves its ring to be reaped, as often as it takes.
 */
TEST_F_TIMEOUT(kvmclock_dirty_many, set_clock, CASE_S)
{
	bool expected[MAX_STRUCTS] = { };
	unsigned int round, i, entering, fill = 100;

	for (i = 0; i < self->nr; i++)
		expect_vcpu(self, expected, i);
	if (variant->others)
		expected[self->of_hv] = true;

	for (round = 0; round < NR_ROUNDS; round++) {
		entering = round % 2 ? self->nr - 1 : 0;
		if (variant->ring)
			fill = soft_limit(self, entering) - 1;
		i = run_reaping(self, entering, fill);
		TEST_ASSERT(!i, "a ring is full with less than %u entries", fill + 1);

		kvmclock_set(self->vm, (round + 1) * HOUR_NS);
		run_reaping(self, entering, 0);
		assert_log(self, expected, fill, "KVM_SET_CLOCK");
		for (i = 0; i < self->nr; i++)
			run_reaping(self, i, 0);
		memset(self->written, 0, sizeof(self->written));
		forget(self);
	}
}

/*
 * While no page has the stable bit, nobody reads another's: each vCPU writes its
 * own.  The others' are written when the bit goes, and need not be when it comes.
 */
TEST_F_TIMEOUT(kvmclock_dirty_many, not_stable, CASE_S)
{
	uint64_t offset = kvmclock_tsc_offset(&self->vcpu[0]);
	bool expected[MAX_STRUCTS] = { }, own[MAX_STRUCTS];
	unsigned int i, round;

	if (self->nr == 1)
		return;
	for (i = 0; i < self->nr; i++)
		expect_vcpu(self, expected, i);
	if (variant->others)
		expected[self->of_hv] = true;

	kvmclock_set_tsc_offset(&self->vcpu[0], offset + 1);
	run_reaping(self, 1, 0);
	assert_log(self, expected, 0, "another vCPU after the stable bit went");
	for (i = 0; i < self->nr; i++) {
		TEST_ASSERT(!(self->vcpu[i].page->flags & PVCLOCK_TSC_STABLE_BIT),
			    "vCPU %u: stable", i);
		run_reaping(self, i, 0);
	}
	forget(self);

	for (round = 0; round < 2; round++) {
		kvmclock_set(self->vm, (round + 1) * HOUR_NS);
		for (i = 0; i < self->nr; i++) {
			memset(own, 0, sizeof(own));
			expect_vcpu(self, own, i);
			run_reaping(self, i, 0);
			assert_log(self, own, 0, "a vCPU after KVM_SET_CLOCK, not stable");
		}
	}

	/* Hyper-V's page is the VM's, and whoever comes first brings it back. */
	kvmclock_set_tsc_offset(&self->vcpu[0], offset);
	for (i = 0; i < self->nr; i++) {
		memset(own, 0, sizeof(own));
		expect_vcpu(self, own, i);
		if (variant->others)
			own[self->of_hv] = !i;
		run_reaping(self, i, 0);
		assert_log(self, own, 0, "a vCPU after the stable bit came");
	}
	for (i = 0; i < self->nr; i++)
		run_reaping(self, i, 0);
	memset(own, 0, sizeof(own));
	assert_log(self, own, 0, "vCPUs that go on");
}

/* Hyper-V's page says once that it is none. */
TEST_F_TIMEOUT(kvmclock_dirty_many, no_hyperv_page, CASE_S)
{
	uint64_t offset = kvmclock_tsc_offset(&self->vcpu[0]);
	bool expected[MAX_STRUCTS] = { };
	unsigned int i;

	if (!variant->others)
		return;
	kvmclock_set_tsc_offset(&self->vcpu[0], offset + 1);
	for (i = 0; i < 2 * self->nr; i++)
		run_reaping(self, i % self->nr, 0);
	TEST_ASSERT(!*(uint32_t *)(self->memory + self->hv_page * PAGE_SIZE),
		    "Hyper-V's page stays");
	forget(self);

	expect_vcpu(self, expected, 1);
	for (i = 0; i < 3; i++) {
		vcpu_set_msr(self->vcpu[1].vcpu, MSR_KVM_SYSTEM_TIME_NEW,
			     self->vcpu[1].page_gpa | KVM_MSR_ENABLED);
		run_reaping(self, 1, 0);
		assert_log(self, expected, 0, "MSR_KVM_SYSTEM_TIME_NEW, not stable");
	}
}

/* No vCPU runs, and nobody reaps: what has no room in the ring is refused. */
TEST_F_TIMEOUT(kvmclock_dirty_many, wall_clock_unreaped, CASE_S)
{
	uint32_t *version = self->memory + self->wall_page * PAGE_SIZE, before;
	uint64_t data = LOG_GPA + self->wall_page * PAGE_SIZE;
	unsigned int i, accepted = 0, round, refused;
	struct kvm_vcpu *vcpu = self->vcpu[0].vcpu;
	bool expected[MAX_STRUCTS] = { };

	expected[self->of_wall] = true;
	for (round = 0; round < 3; round++) {
		refused = 0;
		for (i = 0; i < NR_CALLS; i++) {
			before = *version;
			accepted = _vcpu_set_msr(vcpu, MSR_KVM_WALL_CLOCK_NEW, data);
			TEST_ASSERT(accepted <= 1, "KVM_SET_MSRS: %u", accepted);
			TEST_ASSERT(accepted == (before != *version),
				    "call %u was %s, the version was %u and is %u", i,
				    accepted ? "accepted" : "refused", before, *version);
			refused += !accepted;
		}
		TEST_ASSERT(!!refused == variant->ring, "%u of %u calls were refused", refused,
			    NR_CALLS);
		assert_log(self, expected, 0, "MSR_KVM_WALL_CLOCK_NEW");
	}
	TEST_ASSERT(_vcpu_set_msr(vcpu, MSR_KVM_WALL_CLOCK_NEW, data) == 1, "refused for ever");
	assert_log(self, expected, 0, "MSR_KVM_WALL_CLOCK_NEW after all");
}

static void no_signal(int sig)
{
}

/*
 * KVM_PRE_FAULT_MEMORY brings memory that the clock owes something to, but the ring
 * has no room for it: only userspace can empty it.
 */
TEST_F_TIMEOUT(kvmclock_dirty_many, prefault_unreaped, CASE_S)
{
	struct kvm_pre_fault_memory range = { .gpa = LATE_GPA, .size = PAGE_SIZE };
	struct sigaction action = { .sa_handler = no_signal };
	const struct pvclock_vcpu_time_info *page;
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	int r;

	if (!variant->ring || self->nr != 3)
		return;
	TEST_ASSERT(kvm_has_cap(KVM_CAP_PRE_FAULT_MEMORY), "no KVM_PRE_FAULT_MEMORY");
	TEST_ASSERT(!sigaction(SIGALRM, &action, NULL), "sigaction() failed");
	page = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	TEST_ASSERT(page != MAP_FAILED, "mmap() failed");

	/* vCPU 1's page has no memory, until vCPU 0's ring is full. */
	vcpu_set_msr(self->vcpu[1].vcpu, MSR_KVM_SYSTEM_TIME_NEW, LATE_GPA | KVM_MSR_ENABLED);
	run_reaping(self, 1, 0);
	kv->mail->value = self->entries;
	vcpu_run(kv->vcpu);
	TEST_ASSERT_KVM_EXIT_REASON(kv->vcpu, KVM_EXIT_DIRTY_RING_FULL);
	vm_set_user_memory_region(self->vm, LATE_SLOT, 0, LATE_GPA, PAGE_SIZE, (void *)page);

	alarm(PATIENCE_S);
	r = __vcpu_ioctl(kv->vcpu, KVM_PRE_FAULT_MEMORY, &range);
	TEST_ASSERT(r == -1 && errno == EAGAIN, "KVM_PRE_FAULT_MEMORY: %d, errno %d", r, errno);
	reap(self);
	r = __vcpu_ioctl(kv->vcpu, KVM_PRE_FAULT_MEMORY, &range);
	TEST_ASSERT(!r, "KVM_PRE_FAULT_MEMORY: %d, errno %d", r, errno);
	alarm(0);
	TEST_ASSERT(oracle_same_line(page, self->vcpu[2].page),
		    "memory came without the line that it was owed");
	run_reaping(self, 0, self->entries);
}

/* The flag is in the page, or comes with the vCPU. */
TEST_F_TIMEOUT(kvmclock_dirty_many, ctrl_unreaped, CASE_S)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	bool expected[MAX_STRUCTS] = { };
	unsigned int i, round;

	if (variant->others)
		return;
	expect_vcpu(self, expected, 0);
	for (round = 0; round < 3; round++) {
		for (i = 0; i < NR_CALLS; i++) {
			kv->page->flags &= ~PVCLOCK_GUEST_STOPPED;
			vcpu_ioctl(kv->vcpu, KVM_KVMCLOCK_CTRL, NULL);
			TEST_ASSERT(i || kv->page->flags & PVCLOCK_GUEST_STOPPED,
				    "the ring has room, and the guest is not told");
		}
		run_reaping(self, 0, 0);
		TEST_ASSERT(kv->page->flags & PVCLOCK_GUEST_STOPPED, "the guest is not told");
		assert_log(self, expected, 0, "KVM_KVMCLOCK_CTRL");
	}
	kv->page->flags &= ~PVCLOCK_GUEST_STOPPED;
	run_reaping(self, 0, 0);
	memset(expected, 0, sizeof(expected));
	assert_log(self, expected, 0, "nothing");
	TEST_ASSERT(!(kv->page->flags & PVCLOCK_GUEST_STOPPED), "told once more");
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	return test_harness_run(argc, argv);
}
