// SPDX-License-Identifier: GPL-2.0-only
/*
 * KVM's binary statistics of the clock say what happened: pages that were written,
 * changes of the line by what caused them, and for how long there was no master
 * clock.
 *
 * Has to be root, for another clocksource, which is given back whatever happens.
 */
#include <stdint.h>
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

#define NR_WRITES	100
#define NR_VCPUS	2
#define PATIENCE_S	30

/* One number of a VM or a vCPU, by KVM_GET_STATS_FD. */
static uint64_t read_stat(int fd, const char *name)
{
	struct kvm_stats_header header;
	struct kvm_stats_desc *desc;
	uint64_t value = 0;
	unsigned int i;
	size_t size;

	TEST_ASSERT(pread(fd, &header, sizeof(header), 0) == sizeof(header), "no header");
	size = sizeof(*desc) + header.name_size;
	desc = malloc(size);
	TEST_ASSERT(desc, "out of memory");
	for (i = 0; i < header.num_desc; i++) {
		TEST_ASSERT(pread(fd, desc, size, header.desc_offset + i * size) == (ssize_t)size,
			    "no descriptor %u", i);
		if (!strcmp(desc->name, name))
			break;
	}
	TEST_ASSERT(i < header.num_desc, "there is no statistic %s", name);
	TEST_ASSERT(pread(fd, &value, sizeof(value), header.data_offset + desc->offset) ==
		    sizeof(value), "no value of %s", name);
	free(desc);
	return value;
}

FIXTURE(kvmclock_stats) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_VCPUS];
	int vm_stats;
	int vcpu_stats[NR_VCPUS];
};

FIXTURE_SETUP(kvmclock_stats)
{
	unsigned int i;

	kvmclock_require_host();
	self->vm = vm_create(NR_VCPUS);
	self->vm_stats = __vm_ioctl(self->vm, KVM_GET_STATS_FD, NULL);
	TEST_ASSERT(self->vm_stats >= 0, "no statistics of the VM");
	for (i = 0; i < NR_VCPUS; i++) {
		kvmclock_vcpu_add(self->vm, &self->vcpu[i], i);
		self->vcpu_stats[i] = __vcpu_ioctl(self->vcpu[i].vcpu, KVM_GET_STATS_FD, NULL);
		TEST_ASSERT(self->vcpu_stats[i] >= 0, "no statistics of vCPU %u", i);
	}
	kvmclock_enable_all(self->vcpu, NR_VCPUS);
}

FIXTURE_TEARDOWN(kvmclock_stats)
{
	unsigned int i;

	close(self->vm_stats);
	for (i = 0; i < NR_VCPUS; i++)
		close(self->vcpu_stats[i]);
	kvm_vm_free(self->vm);
}

#define SELF FIXTURE_DATA(kvmclock_stats)

struct changes {
	uint64_t user, rule, host;
};

static struct changes read_changes(SELF *self)
{
	return (struct changes) {
		.user = read_stat(self->vm_stats, "clock_changes_user"),
		.rule = read_stat(self->vm_stats, "clock_changes_rule"),
		.host = read_stat(self->vm_stats, "clock_changes_host"),
	};
}

static void assert_changes(SELF *self, const struct changes *from,
			   uint64_t user, uint64_t rule, const char *what)
{
	struct changes to = read_changes(self);

	TEST_ASSERT(to.user - from->user == user && to.rule - from->rule == rule &&
		    to.host == from->host, "%s: %lu, %lu, %lu changes, not %lu, %lu, 0", what,
		    to.user - from->user, to.rule - from->rule, to.host - from->host, user, rule);
}

/* A page counts each time that it is written, by whatever vCPU, and else does not. */
TEST_F(kvmclock_stats, page_writes)
{
	unsigned int i;

	for (i = 0; i < NR_WRITES; i++)
		kvmclock_wrmsr(&self->vcpu[0], MSR_KVM_SYSTEM_TIME_NEW,
			       self->vcpu[0].page_gpa | KVM_MSR_ENABLED);
	kvmclock_set(self->vm, kvmclock_get(self->vm).clock);
	kvmclock_enter_all(self->vcpu, NR_VCPUS);

	for (i = 0; i < NR_VCPUS; i++)
		TEST_ASSERT_EQ(read_stat(self->vcpu_stats[i], "clock_page_writes"),
			       self->vcpu[i].page->version / 2);
	TEST_ASSERT(self->vcpu[0].page->version / 2 > NR_WRITES, "pages were not written");
}

TEST_F(kvmclock_stats, changes_by_cause)
{
	uint64_t offset = kvmclock_tsc_offset(&self->vcpu[0]);
	struct pvclock_vcpu_time_info line;
	struct changes from;
	uint64_t gate_ns;

	TEST_ASSERT_EQ(read_stat(self->vm_stats, "clock_changes_user"), 0);

	from = read_changes(self);
	gate_ns = read_stat(self->vm_stats, "clock_gate_ns");
	kvmclock_enter_all(self->vcpu, NR_VCPUS);
	kvmclock_set_tsc_offset(&self->vcpu[1], offset);
	kvmclock_get(self->vm);
	assert_changes(self, &from, 0, 0, "nothing");
	TEST_ASSERT(read_stat(self->vm_stats, "clock_gate_ns") == gate_ns,
		    "the gate was closed for nothing");

	kvmclock_set(self->vm, NSEC_PER_SEC);
	assert_changes(self, &from, 1, 0, "KVM_SET_CLOCK");
	TEST_ASSERT(read_stat(self->vm_stats, "clock_gate_ns") > gate_ns,
		    "the gate was closed for no time");
	line = kvmclock_get_line(&self->vcpu[0]);
	kvmclock_set_line(&self->vcpu[0], &line);
	assert_changes(self, &from, 2, 0, "KVM_SET_CLOCK_GUEST");
	/* Refused, so that nothing changes */
	line.tsc_to_system_mul = 0;
	TEST_ASSERT(__kvmclock_set_line(&self->vcpu[0], &line), "a line without a slope is taken");
	assert_changes(self, &from, 2, 0, "a KVM_SET_CLOCK_GUEST that is refused");

	/* The stable bit goes, and comes back. */
	kvmclock_set_tsc_offset(&self->vcpu[1], offset + 1);
	assert_changes(self, &from, 2, 1, "TSCs that differ");
	kvmclock_set_tsc_offset(&self->vcpu[1], offset + 2);
	assert_changes(self, &from, 2, 1, "TSCs that differ still");
	kvmclock_set_tsc_offset(&self->vcpu[1], offset);
	assert_changes(self, &from, 2, 2, "TSCs that are equal");
}

static void await_master(SELF *self, bool master)
{
	time_t begin = time(NULL);

	while (read_stat(self->vm_stats, "clock_master") != master) {
		TEST_ASSERT(time(NULL) < begin + PATIENCE_S, "clock_master stays %d", !master);
		usleep(100);
	}
}

/* A span without a master clock is told when it is over, as long as it was. */
TEST_F(kvmclock_stats, no_master)
{
	uint64_t around, lost, back, within, ns;

	TEST_ASSERT_EQ(read_stat(self->vm_stats, "clock_master"), 1);
	TEST_ASSERT_EQ(read_stat(self->vm_stats, "clock_no_master_ns"), 0);

	around = clock_ns(CLOCK_MONOTONIC);
	write_file_ok(CLOCKSOURCE, other_clocksource());
	await_master(self, false);
	lost = clock_ns(CLOCK_MONOTONIC);
	usleep(10000);
	TEST_ASSERT_EQ(read_stat(self->vm_stats, "clock_no_master_ns"), 0);

	back = clock_ns(CLOCK_MONOTONIC);
	write_file_ok(CLOCKSOURCE, clocksource);
	await_master(self, true);
	around = clock_ns(CLOCK_MONOTONIC) - around;
	within = back - lost;

	ns = read_stat(self->vm_stats, "clock_no_master_ns");
	TEST_ASSERT(ns >= within && ns <= around, "%lu ns, not between %lu and %lu", ns, within,
		    around);
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	return run_guarded(argc, argv);
}
