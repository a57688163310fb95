// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whole restores, in the orders in which VMMs do them: a VM's time is saved, and
 * restored into another VM with the same guest memory.  From its first instruction
 * on no guest may find a trace of the old VM's time, in no vCPU's page: a guest
 * with the stable bit may take any of them for the time.
 *
 * The vCPUs are saved at once and restored at the pace that the variant says: a
 * VMM needs time for all else, for guest memory above all.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <unistd.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "processor.h"
#include "test_util.h"

#define HOUR_NS		3600000000000ULL

#define NR_SPARE_FILES	64

#define CASE_S		120

/* What the first vCPU to run finds: in guest memory. */
struct sight {
	uint32_t nr_pages;
	uint32_t pad;
	struct pvclock_vcpu_time_info **page_gva;
	struct pvclock_vcpu_time_info *found;
};

/* The guest's very first act: it looks at all pages, not only at its own. */
static void guest_look(struct kvmclock_mail *mail)
{
	struct sight *sight = (struct sight *)mail->value;
	uint32_t i;

	if (sight) {
		for (i = 0; i < sight->nr_pages; i++)
			sight->found[i] = *sight->page_gva[i];
	}
	GUEST_SYNC(0);
	kvmclock_guest(mail);
}

struct machine {
	struct kvm_vm *vm;
	struct kvmclock_vcpu *vcpu;
	gva_t sight_gva;
	struct sight *sight;
	struct pvclock_vcpu_time_info *found;
};

/* What a VMM has in its file, or on the wire. */
struct saved_vcpu {
	uint64_t tsc, adjust, deadline, system_time;
	int khz;
};

struct saved {
	struct kvm_clock_data clock;
	struct kvm_time time;
	struct saved_vcpu *vcpu;
};

FIXTURE(kvmclock_restore) {
	unsigned int nr_vcpus;
	unsigned int pause_us;
	struct machine from, to;
	uint64_t *last_read;		/* each guest's, before it was saved */
	struct saved saved;
};

FIXTURE_VARIANT(kvmclock_restore) {
	unsigned int nr_vcpus;
	unsigned int pause_us;		/* between two vCPUs */
};

FIXTURE_VARIANT_ADD(kvmclock_restore, quick) { .nr_vcpus = 4 };
/* 1.2 s from the first to the last. */
FIXTURE_VARIANT_ADD(kvmclock_restore, slow) { .nr_vcpus = 5, .pause_us = 300000 };
FIXTURE_VARIANT_ADD(kvmclock_restore, many) { .nr_vcpus = 300 };

static void *zalloc(size_t nr, size_t size)
{
	void *p = calloc(nr, size);

	TEST_ASSERT(p, "no memory");
	return p;
}

/* Both machines make the same calls, and so have the same layout. */
static void create_machine(struct machine *m, unsigned int nr_vcpus)
{
	gva_t list_gva, found_gva;

	/* The number is what memory is reckoned by: each has as much again of its own. */
	m->vm = vm_create(2 * nr_vcpus);
	m->vcpu = zalloc(nr_vcpus, sizeof(*m->vcpu));

	m->sight_gva = vm_alloc_page(m->vm);
	list_gva = vm_alloc(m->vm, nr_vcpus * sizeof(*m->sight->page_gva), 0x10000);
	found_gva = vm_alloc(m->vm, nr_vcpus * sizeof(*m->found), 0x10000);

	m->sight = addr_gva2hva(m->vm, m->sight_gva);
	m->sight->nr_pages = nr_vcpus;
	m->sight->page_gva = (void *)list_gva;
	m->sight->found = (void *)found_gva;
	m->found = addr_gva2hva(m->vm, found_gva);
}

static void free_machine(struct machine *m)
{
	kvm_vm_free(m->vm);
	free(m->vcpu);
}

/* The restored one has in its memory what the guest had left there. */
static void create_vcpu(FIXTURE_DATA(kvmclock_restore) * self, struct machine *m, unsigned int i)
{
	struct pvclock_vcpu_time_info **list = addr_gva2hva(m->vm, (gva_t)m->sight->page_gva);
	struct kvmclock_vcpu *kv = &m->vcpu[i], *from = &self->from.vcpu[i];

	kvmclock_vcpu_add_running(m->vm, kv, i, guest_look);
	list[i] = kv->mail->page_gva;

	if (m == &self->to) {
		TEST_ASSERT(kv->page_gpa == from->page_gpa, "another layout");
		memcpy(kv->page, from->page, sizeof(*kv->page));
	}
}

static void create_vcpus(FIXTURE_DATA(kvmclock_restore) * self, struct machine *m)
{
	unsigned int i;

	for (i = 0; i < self->nr_vcpus; i++)
		create_vcpu(self, m, i);
}

/* Two VMs have a file for each of their vCPUs. */
static void raise_file_limit(unsigned int nr_vcpus)
{
	struct rlimit limit;

	TEST_ASSERT(!getrlimit(RLIMIT_NOFILE, &limit), "getrlimit()");
	limit.rlim_cur = max_t(rlim_t, limit.rlim_cur, 2 * nr_vcpus + NR_SPARE_FILES);
	limit.rlim_max = max_t(rlim_t, limit.rlim_max, limit.rlim_cur);
	TEST_ASSERT(!setrlimit(RLIMIT_NOFILE, &limit), "%lu files can't be had: errno %d",
		    (unsigned long)limit.rlim_cur, errno);
}

/* A VM that has been running for an hour, on all of its vCPUs. */
FIXTURE_SETUP(kvmclock_restore)
{
	struct machine *from = &self->from;
	uint64_t offset, tsc;
	unsigned int i;
	int khz;

	self->nr_vcpus = variant->nr_vcpus;
	self->pause_us = variant->pause_us;
	self->last_read = zalloc(self->nr_vcpus, sizeof(*self->last_read));
	self->saved.vcpu = zalloc(self->nr_vcpus, sizeof(*self->saved.vcpu));
	raise_file_limit(self->nr_vcpus);
	TEST_ASSERT(kvm_check_cap(KVM_CAP_MAX_VCPUS) >= (int)self->nr_vcpus, "too few vCPUs");

	create_machine(from, self->nr_vcpus);
	create_vcpus(self, from);

	khz = __vcpu_ioctl(from->vcpu[0].vcpu, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT(khz > 0, "no TSC rate: %d, errno %d", khz, errno);
	kvmclock_set(from->vm, HOUR_NS);
	offset = kvmclock_tsc_offset(&from->vcpu[0]) + kvmclock_cycles_in(HOUR_NS, khz);
	for (i = 0; i < self->nr_vcpus; i++)
		kvmclock_set_tsc_offset(&from->vcpu[i], offset);

	for (i = 0; i < self->nr_vcpus; i++) {
		TEST_ASSERT(kvmclock_vcpu_run(from->vcpu[i].vcpu), "guest ended early");
		kvmclock_enable(&from->vcpu[i], MSR_KVM_SYSTEM_TIME_NEW);
	}
	kvmclock_enter_all(from->vcpu, self->nr_vcpus);

	for (i = 0; i < self->nr_vcpus; i++) {
		TEST_ASSERT(from->vcpu[i].page->flags == PVCLOCK_TSC_STABLE_BIT,
			    "vCPU %u: flags 0x%x", i, from->vcpu[i].page->flags);
		tsc = kvmclock_guest_tsc(&from->vcpu[i], rdtsc());
		self->last_read[i] = oracle_at(from->vcpu[i].page, tsc);
	}
}

FIXTURE_TEARDOWN(kvmclock_restore)
{
	free_machine(&self->from);
	free_machine(&self->to);
	free(self->saved.vcpu);
	free(self->last_read);
}

/*
 * Saving
 */

static void save_msrs(FIXTURE_DATA(kvmclock_restore) * self, unsigned int i)
{
	struct kvmclock_vcpu *kv = &self->from.vcpu[i];
	struct saved_vcpu *saved = &self->saved.vcpu[i];

	saved->tsc = vcpu_get_msr(kv->vcpu, MSR_IA32_TSC);
	saved->adjust = vcpu_get_msr(kv->vcpu, MSR_IA32_TSC_ADJUST);
	saved->deadline = vcpu_get_msr(kv->vcpu, MSR_IA32_TSC_DEADLINE);
	saved->system_time = vcpu_get_msr(kv->vcpu, MSR_KVM_SYSTEM_TIME_NEW);
	saved->khz = __vcpu_ioctl(kv->vcpu, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT(saved->system_time == (kv->page_gpa | KVM_MSR_ENABLED), "0x%lx was saved",
		    saved->system_time);
	TEST_ASSERT(saved->khz > 0, "vCPU %u: no rate", i);
}

static void save_all_msrs(FIXTURE_DATA(kvmclock_restore) * self)
{
	unsigned int i;

	for (i = 0; i < self->nr_vcpus; i++)
		save_msrs(self, i);
}

static void tell_guests(FIXTURE_DATA(kvmclock_restore) * self, struct machine *m)
{
	unsigned int i;

	for (i = 0; i < self->nr_vcpus; i++)
		vcpu_ioctl(m->vcpu[i].vcpu, KVM_KVMCLOCK_CTRL, NULL);
}

/*
 * Restoring
 */

struct msrs {
	struct kvm_msrs header;
	struct kvm_msr_entry entry[8];
};

static void add_msr(struct msrs *msrs, uint32_t index, uint64_t value)
{
	TEST_ASSERT(msrs->header.nmsrs < ARRAY_SIZE(msrs->entry), "too many");
	msrs->entry[msrs->header.nmsrs++] = (struct kvm_msr_entry) {
		.index = index,
		.data = value,
	};
}

static void set_msrs(struct kvmclock_vcpu *kv, struct msrs *msrs)
{
	int r = __vcpu_ioctl(kv->vcpu, KVM_SET_MSRS, &msrs->header);

	TEST_ASSERT(r == (int)msrs->header.nmsrs, "vCPU %u: %d MSRs of %u, errno %d",
		    kv->vcpu->id, r, msrs->header.nmsrs, errno);
}

/* As KVM lists them, but for the one that needs the TSC in place. */
static void set_listed_msrs(struct kvmclock_vcpu *kv, const struct saved_vcpu *saved)
{
	struct msrs msrs = {}, deferred = {};

	add_msr(&msrs, MSR_IA32_TSC, saved->tsc);
	add_msr(&msrs, MSR_KVM_SYSTEM_TIME, saved->system_time);
	add_msr(&msrs, MSR_KVM_SYSTEM_TIME_NEW, saved->system_time);
	add_msr(&msrs, MSR_IA32_TSC_ADJUST, saved->adjust);
	set_msrs(kv, &msrs);
	add_msr(&deferred, MSR_IA32_TSC_DEADLINE, saved->deadline);
	set_msrs(kv, &deferred);
}

static void set_khz(struct kvmclock_vcpu *kv, int khz)
{
	vcpu_ioctl(kv->vcpu, KVM_SET_TSC_KHZ, (void *)(unsigned long)khz);
}

static void set_clock(struct kvm_vm *vm, const struct kvm_clock_data *saved, uint32_t flags)
{
	struct kvm_clock_data data = *saved;

	data.flags = flags;
	vm_ioctl(vm, KVM_SET_CLOCK, &data);
}

/*
 * QEMU: reads the TSCs when it stops, and the clock then and once more when it
 * saves.  The new vCPUs are reset, to TSC 0 and without a page; later each gets its
 * rate and its MSRs, with the deadline last; the clock is set when the VM starts,
 * and each guest is told that it was away.
 */
static void as_qemu(FIXTURE_DATA(kvmclock_restore) * self)
{
	struct machine *to = &self->to;
	struct saved_vcpu *saved = self->saved.vcpu;
	unsigned int i;

	save_all_msrs(self);
	self->saved.clock = kvmclock_get(self->from.vm);
	self->saved.clock = kvmclock_get(self->from.vm);

	create_machine(to, self->nr_vcpus);
	create_vcpus(self, to);
	for (i = 0; i < self->nr_vcpus; i++) {
		struct msrs reset = {};

		add_msr(&reset, MSR_IA32_TSC_ADJUST, 0);
		add_msr(&reset, MSR_IA32_TSC, 0);
		add_msr(&reset, MSR_KVM_SYSTEM_TIME, 0);
		set_msrs(&to->vcpu[i], &reset);
	}

	for (i = 0; i < self->nr_vcpus; i++) {
		struct msrs msrs = {}, deadline = {};

		if (i)
			usleep(self->pause_us);
		set_khz(&to->vcpu[i], saved[i].khz);
		add_msr(&msrs, MSR_IA32_TSC_ADJUST, saved[i].adjust);
		add_msr(&msrs, MSR_IA32_TSC, saved[i].tsc);
		add_msr(&msrs, MSR_KVM_SYSTEM_TIME, saved[i].system_time);
		set_msrs(&to->vcpu[i], &msrs);
		add_msr(&deadline, MSR_IA32_TSC_DEADLINE, saved[i].deadline);
		set_msrs(&to->vcpu[i], &deadline);
	}

	set_clock(to->vm, &self->saved.clock, 0);
	tell_guests(self, to);
}

/*
 * Firecracker: tells the guests when it pauses them, saves each vCPU, and then the
 * clock.  All vCPUs are created before the first is restored; a rate that the
 * tolerance covers is not set; the clock comes last, with the flags that KVM gave
 * but the one that KVM_SET_CLOCK did not take once, and so with the time away.
 */
static void as_firecracker(FIXTURE_DATA(kvmclock_restore) * self)
{
	struct machine *to = &self->to;
	unsigned int i;

	tell_guests(self, &self->from);
	save_all_msrs(self);
	self->saved.clock = kvmclock_get(self->from.vm);

	create_machine(to, self->nr_vcpus);
	create_vcpus(self, to);
	for (i = 0; i < self->nr_vcpus; i++) {
		if (i)
			usleep(self->pause_us);
		set_listed_msrs(&to->vcpu[i], &self->saved.vcpu[i]);
	}
	set_clock(to->vm, &self->saved.clock, self->saved.clock.flags & ~KVM_CLOCK_TSC_STABLE);
}

/*
 * Cloud Hypervisor: the clock is saved first, then the guests are told, then the
 * vCPUs are saved.  Each one is restored as soon as it is created, with its rate;
 * since 2026 all take the first one's offset then.  The clock is set before the VM
 * goes on.
 */
static void as_cloud_hypervisor(FIXTURE_DATA(kvmclock_restore) * self, bool sync_offsets)
{
	struct machine *to = &self->to;
	uint64_t offset;
	unsigned int i;

	self->saved.clock = kvmclock_get(self->from.vm);
	tell_guests(self, &self->from);
	save_all_msrs(self);

	create_machine(to, self->nr_vcpus);
	for (i = 0; i < self->nr_vcpus; i++) {
		if (i)
			usleep(self->pause_us);
		create_vcpu(self, to, i);
		set_khz(&to->vcpu[i], self->saved.vcpu[i].khz);
		set_listed_msrs(&to->vcpu[i], &self->saved.vcpu[i]);
	}
	if (sync_offsets) {
		offset = kvmclock_tsc_offset(&to->vcpu[0]);
		for (i = 1; i < self->nr_vcpus; i++)
			kvmclock_set_tsc_offset(&to->vcpu[i], offset);
	}
	set_clock(to->vm, &self->saved.clock, 0);
}

static void get_fds(struct machine *m, unsigned int nr, int *fds)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		fds[i] = m->vcpu[i].vcpu->fd;
}

/* What KVM's documentation says: time comes before the MSRs, pages are among them. */
static void as_documented(FIXTURE_DATA(kvmclock_restore) * self)
{
	unsigned int nr = min_t(unsigned int, self->nr_vcpus, KVM_TIME_MAX_VCPUS), i;
	struct kvm_time *time = &self->saved.time;
	struct machine *to = &self->to;
	int fds[KVM_TIME_MAX_VCPUS], r;
	struct kvm_vcpu_tsc_value value;

	get_fds(&self->from, nr, fds);
	r = kvm_time_save(self->from.vm->fd, fds, nr, time);
	TEST_ASSERT(!r, "kvm_time_save(): %s", strerror(-r));
	save_all_msrs(self);
	self->saved.clock = time->clock;

	create_machine(to, self->nr_vcpus);
	r = kvm_time_restore_rate(to->vm->fd, time);
	TEST_ASSERT(!r, "kvm_time_restore_rate(): %s", strerror(-r));
	create_vcpus(self, to);
	get_fds(to, nr, fds);
	r = kvm_time_restore_running(to->vm->fd, fds, time);
	TEST_ASSERT(!r, "kvm_time_restore_running(): %s", strerror(-r));

	/* The sample's file has room for so many; theirs are like vCPU 0's. */
	for (i = nr; i < self->nr_vcpus; i++) {
		value = time->vcpu[0].value;
		kvmclock_set_value(&to->vcpu[i], &value);
	}

	for (i = 0; i < self->nr_vcpus; i++) {
		struct msrs msrs = {};

		if (i)
			usleep(self->pause_us);
		add_msr(&msrs, MSR_KVM_SYSTEM_TIME_NEW, self->saved.vcpu[i].system_time);
		add_msr(&msrs, MSR_IA32_TSC_ADJUST, self->saved.vcpu[i].adjust);
		add_msr(&msrs, MSR_IA32_TSC_DEADLINE, self->saved.vcpu[i].deadline);
		set_msrs(&to->vcpu[i], &msrs);
	}
}

/*
 * What must hold
 */

static void assert_tscs_equal(FIXTURE_DATA(kvmclock_restore) * self)
{
	uint64_t offset, first = kvmclock_tsc_offset(&self->to.vcpu[0]);
	unsigned int i;

	for (i = 1; i < self->nr_vcpus; i++) {
		offset = kvmclock_tsc_offset(&self->to.vcpu[i]);
		TEST_ASSERT(offset == first, "TSC of vCPU %u is %+ld cycles from that of vCPU 0",
			    i, (int64_t)(offset - first));
	}
}

/*
 * One page of the VM says what KVM_GET_CLOCK says: at one TSC value, and with the
 * stable bit.
 */
static void assert_page(FIXTURE_DATA(kvmclock_restore) * self, unsigned int i,
			const struct pvclock_vcpu_time_info *page, bool told, const char *where)
{
	struct kvmclock_vcpu *kv = &self->to.vcpu[i];
	struct kvm_clock_data data = kvmclock_get(self->to.vm);
	uint64_t clock = oracle_at(page, kvmclock_guest_tsc(kv, data.host_tsc));

	TEST_ASSERT(data.flags == KVMCLOCK_GET_FLAGS, "%s: flags 0x%x", where, data.flags);
	TEST_ASSERT(page->flags & PVCLOCK_TSC_STABLE_BIT, "%s: vCPU %u has flags 0x%x", where, i,
		    page->flags);
	TEST_ASSERT(!(page->version & 1), "%s: vCPU %u has version %u", where, i, page->version);
	TEST_ASSERT(clock == data.clock, "%s: the page of vCPU %u is %+ld ns from KVM_GET_CLOCK",
		    where, i, (int64_t)(clock - data.clock));
	TEST_ASSERT(!(page->flags & PVCLOCK_GUEST_STOPPED) == !told,
		    "%s: vCPU %u was %stold that it was away: flags 0x%x", where, i,
		    told ? "not " : "", page->flags);
	TEST_ASSERT(clock >= self->last_read[i] && clock >= self->saved.clock.clock,
		    "%s: vCPU %u has %lu, had read %lu, %llu was saved", where, i, clock,
		    self->last_read[i], self->saved.clock.clock);
}

/*
 * Only one vCPU runs, the last one, which the order of things favours least.  The
 * guest on it has looked at all pages before anything else.
 */
static void assert_restored(FIXTURE_DATA(kvmclock_restore) * self, bool told)
{
	struct machine *to = &self->to;
	unsigned int i, first = self->nr_vcpus - 1;

	assert_tscs_equal(self);

	to->vcpu[first].mail->value = to->sight_gva;
	TEST_ASSERT(kvmclock_vcpu_run(to->vcpu[first].vcpu), "guest ended early");
	for (i = 0; i < self->nr_vcpus; i++) {
		assert_page(self, i, &to->found[i], told, "at the first instruction");
		TEST_ASSERT(oracle_same_line(&to->found[i], &to->found[first]),
			    "vCPU %u has another line", i);
	}

	for (i = 0; i < first; i++)
		TEST_ASSERT(kvmclock_vcpu_run(to->vcpu[i].vcpu), "guest ended early");
	for (i = 0; i < self->nr_vcpus; i++)
		assert_page(self, i, to->vcpu[i].page, told, "when all have run");
	assert_tscs_equal(self);
}

TEST_F_TIMEOUT(kvmclock_restore, qemu, CASE_S)
{
	as_qemu(self);
	assert_restored(self, true);
}

TEST_F_TIMEOUT(kvmclock_restore, firecracker, CASE_S)
{
	as_firecracker(self);
	assert_restored(self, true);
}

TEST_F_TIMEOUT(kvmclock_restore, cloud_hypervisor, CASE_S)
{
	as_cloud_hypervisor(self, false);
	assert_restored(self, true);
}

TEST_F_TIMEOUT(kvmclock_restore, cloud_hypervisor_syncs, CASE_S)
{
	as_cloud_hypervisor(self, true);
	assert_restored(self, true);
}

TEST_F_TIMEOUT(kvmclock_restore, documented, CASE_S)
{
	as_documented(self);
	assert_restored(self, false);
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	return test_harness_run(argc, argv);
}
