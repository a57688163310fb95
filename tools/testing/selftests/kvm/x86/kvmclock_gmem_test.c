// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages of the clock in memory that is guest_memfd's alone.  The guest has it from there,
 * so it reads what userspace's mapping does not have at the time, and is to find the
 * line that all others have.
 */
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "hyperv.h"
#include "processor.h"
#include "test_util.h"

#define HOUR_NS		(3600 * NSEC_PER_SEC)
#define NR_VCPUS	2
#define NR_PAGES	(NR_VCPUS + 1)	/* and Hyper-V's */
#define HV_PAGE		NR_VCPUS
#define CLOCK_SLOT	10
#define CLOCK_GPA	BIT_ULL(32)

/* What a guest has seen of a page that is another's. */
struct order {
	struct kvmclock_mail mail;
	uint64_t target_gva;
	uint32_t seen[8];
};

FIXTURE(kvmclock_gmem) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_VCPUS];
	void *memory;
	int fd;
};

/* How userspace loses its mapping of what guest_memfd keeps */
FIXTURE_VARIANT(kvmclock_gmem) {
	bool maps_again;
};

FIXTURE_VARIANT_ADD(kvmclock_gmem, dropped) {
};

FIXTURE_VARIANT_ADD(kvmclock_gmem, mapped_again) {
	.maps_again = true,
};

static void guest_look(struct kvmclock_mail *mail)
{
	struct order *order = (void *)mail;

	for (;;) {
		if (order->target_gva)
			memcpy(order->seen, (void *)order->target_gva, sizeof(order->seen));
		GUEST_SYNC(0);
	}
}

static struct order *order_of(struct kvmclock_vcpu *kv)
{
	return (void *)kv->mail;
}

static void map_memory(FIXTURE_DATA(kvmclock_gmem) * self)
{
	void *at = mmap(self->memory, NR_PAGES * PAGE_SIZE, PROT_READ | PROT_WRITE,
			MAP_SHARED | (self->memory ? MAP_FIXED : 0), self->fd, 0);

	TEST_ASSERT(at != MAP_FAILED, "mmap() of guest_memfd: %m");
	self->memory = at;
}

/* The content stays, and so does what the guest has of it. */
static void lose_mapping(FIXTURE_DATA(kvmclock_gmem) * self, bool maps_again)
{
	unsigned char there[NR_PAGES];
	unsigned int i;

	if (maps_again)
		map_memory(self);
	else
		TEST_ASSERT(!madvise(self->memory, NR_PAGES * PAGE_SIZE, MADV_DONTNEED),
			    "MADV_DONTNEED: %m");
	/* Of a file: whether it is there, not whether it is mapped. */
	TEST_ASSERT(!mincore(self->memory, NR_PAGES * PAGE_SIZE, there), "mincore(): %m");
	for (i = 0; i < NR_PAGES; i++)
		TEST_ASSERT(there[i] & 1, "page %u is lost", i);
}

FIXTURE_SETUP(kvmclock_gmem)
{
	unsigned int i;

	memset(self, 0, sizeof(*self));
	self->vm = vm_create(NR_VCPUS);
	self->fd = vm_create_guest_memfd(self->vm, NR_PAGES * PAGE_SIZE,
					 GUEST_MEMFD_FLAG_MMAP | GUEST_MEMFD_FLAG_INIT_SHARED);
	map_memory(self);
	memset(self->memory, 0, NR_PAGES * PAGE_SIZE);
	vm_set_user_memory_region2(self->vm, CLOCK_SLOT, KVM_MEM_GUEST_MEMFD, CLOCK_GPA,
				   NR_PAGES * PAGE_SIZE, self->memory, self->fd, 0);
	virt_map(self->vm, CLOCK_GPA, CLOCK_GPA, NR_PAGES);

	for (i = 0; i < NR_VCPUS; i++) {
		struct kvmclock_vcpu *kv = &self->vcpu[i];

		kvmclock_vcpu_add_running(self->vm, kv, i, guest_look);
		vcpu_set_hv_cpuid(kv->vcpu);
		kv->page = self->memory + i * PAGE_SIZE;
		kv->page_gpa = CLOCK_GPA + i * PAGE_SIZE;
		vcpu_set_msr(kv->vcpu, MSR_KVM_SYSTEM_TIME_NEW, kv->page_gpa | KVM_MSR_ENABLED);
	}
	for (i = 0; i < 2; i++)
		kvmclock_enter_all(self->vcpu, NR_VCPUS);
	for (i = 0; i < NR_VCPUS; i++)
		TEST_ASSERT(self->vcpu[i].page->flags & PVCLOCK_TSC_STABLE_BIT,
			    "vCPU %u: not stable", i);
}

FIXTURE_TEARDOWN(kvmclock_gmem)
{
	kvm_vm_free(self->vm);
	close(self->fd);
}

/* vCPU 1 reads @page in its guest, before anybody else comes near it. */
static const void *look_at(FIXTURE_DATA(kvmclock_gmem) * self, unsigned int page)
{
	struct order *order = order_of(&self->vcpu[1]);

	order->target_gva = CLOCK_GPA + page * PAGE_SIZE;
	kvmclock_enter(&self->vcpu[1]);
	return order->seen;
}

/* vCPU 0 stays out of its guest: vCPU 1 writes its page, and where it had been mapped. */
TEST_F(kvmclock_gmem, page_of_another)
{
	const struct pvclock_vcpu_time_info *seen;
	struct pvclock_vcpu_time_info own;
	unsigned int round;

	for (round = 0; round < 5; round++) {
		look_at(self, 0);
		lose_mapping(self, variant->maps_again);
		kvmclock_set(self->vm, (round + 1) * HOUR_NS);

		seen = look_at(self, 0);
		own = kvmclock_read_page(self->vcpu[1].page);
		TEST_ASSERT(own.system_time >= (round + 1) * HOUR_NS, "its own page is old");
		TEST_ASSERT(!(seen->version & 1), "vCPU 0's page is half written");
		TEST_ASSERT(oracle_same_line(seen, &own),
			    "vCPU 1 reads %lu at 0x%lx in vCPU 0's page, %lu at 0x%lx in its own",
			    (uint64_t)seen->system_time, (uint64_t)seen->tsc_timestamp,
			    (uint64_t)own.system_time, (uint64_t)own.tsc_timestamp);
	}
}

/* A sequence that a guest has seen is never that of another line. */
TEST_F(kvmclock_gmem, hyperv_page)
{
	const uint32_t *page = self->memory + HV_PAGE * PAGE_SIZE, *seen;
	uint32_t before;
	unsigned int round;

	vcpu_set_msr(self->vcpu[0].vcpu, HV_X64_MSR_GUEST_OS_ID, 1ULL << 48);
	vcpu_set_msr(self->vcpu[0].vcpu, HV_X64_MSR_REFERENCE_TSC,
		     (CLOCK_GPA + HV_PAGE * PAGE_SIZE) | BIT(0));
	kvmclock_enter_all(self->vcpu, NR_VCPUS);
	TEST_ASSERT(*page, "no TSC page");

	for (round = 0; round < 5; round++) {
		before = *(const uint32_t *)look_at(self, HV_PAGE);
		lose_mapping(self, variant->maps_again);
		kvmclock_set(self->vm, (round + 1) * HOUR_NS);

		seen = look_at(self, HV_PAGE);
		TEST_ASSERT(*seen != before, "sequence %u is still that of the line before",
			    before);
	}
}

/* What userspace has unmapped for good keeps nobody out of a guest, nor in KVM_RUN. */
TEST_F(kvmclock_gmem, unmapped)
{
	TEST_ASSERT(!munmap(self->memory, PAGE_SIZE), "munmap(): %m");
	kvmclock_set(self->vm, HOUR_NS);
	kvmclock_enter(&self->vcpu[1]);
	TEST_ASSERT(self->vcpu[1].page->system_time >= HOUR_NS, "its own page is old");
	kvmclock_enter(&self->vcpu[0]);

	map_memory(self);
	kvmclock_enter(&self->vcpu[0]);
	TEST_ASSERT(oracle_same_line(self->vcpu[0].page, self->vcpu[1].page),
		    "a page that is back has another line");
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_GUEST_MEMFD));
	return test_harness_run(argc, argv);
}
