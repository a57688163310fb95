// SPDX-License-Identifier: GPL-2.0-only
/*
 * What KVM writes into guest memory on its own is part of what a migration has
 * to send.  One vCPU writes the pages of all, also of those that don't run: each
 * page that is written is in the dirty bitmap, or in some vCPU's dirty ring, and
 * none that is not.
 */
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
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

/* One vCPU comes back, and writes for all. */
TEST_F(kvmclock_dirty, others_pages)
{
	uint64_t offset;
	unsigned int i;

	kvmclock_enable_all(self->vcpu, NR_VCPUS);
	assert_written(self, ALL_VCPUS, "start");
	offset = kvmclock_tsc_offset(&self->vcpu[0]);

	for (i = 0; i < NR_VCPUS; i++) {
		kvmclock_set(self->vm, (i + 1) * HOUR_NS);
		assert_written(self, 0, "KVM_SET_CLOCK alone");
		kvmclock_enter(&self->vcpu[i]);
		assert_written(self, ALL_VCPUS, "the first vCPU after KVM_SET_CLOCK");
		kvmclock_enter(&self->vcpu[(i + 1) % NR_VCPUS]);
		assert_written(self, 0, "the second vCPU after KVM_SET_CLOCK");

		kvmclock_set_tsc_offset(&self->vcpu[i], offset + 1);
		kvmclock_enter(&self->vcpu[(i + 1) % NR_VCPUS]);
		assert_written(self, ALL_VCPUS, "another vCPU after the stable bit went");
		kvmclock_set_tsc_offset(&self->vcpu[i], offset);
		kvmclock_enter(&self->vcpu[(i + 1) % NR_VCPUS]);
		assert_written(self, ALL_VCPUS, "another vCPU after the stable bit came");
		kvmclock_enter(&self->vcpu[i]);
		collect_written(self);
		collect_dirty(self);
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

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	return test_harness_run(argc, argv);
}
