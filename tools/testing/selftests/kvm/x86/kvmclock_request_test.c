// SPDX-License-Identifier: GPL-2.0-only
/*
 * What an event costs: the pages that are written and the changes of the line,
 * counted by the kernel's tracepoints and not by time.  One event is one update
 * where it belongs, and without an event there is none.
 *
 * A number of seconds as the last argument is how long to watch the steady
 * state for.
 */
#include <fcntl.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "processor.h"
#include "test_util.h"

#define TRACE		"/sys/kernel/tracing/instances/kvmclock_request/"
#define PAGE_EVENT	"kvm_pvclock_update"
#define HOUR_NS		(3600 * NSEC_PER_SEC)

#define MAX_VCPUS	64
#define NR_VCPUS	4
#define NR_TSC_WRITES	10

/* The stock kernel repeats updates a tenth of a second later. */
#define REPEATED_US	250000
#define STEADY_S	3

/*
 * The event of a change of the line.  A kernel that has none draws the line
 * anew whenever it decides about it.
 */
static const char *change_event = "kvmclock_change";

static unsigned int steady_s = STEADY_S;

static void write_trace(const char *file, const char *word)
{
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), TRACE "%s", file);
	f = fopen(path, "w");
	TEST_ASSERT(f, "%s: %s", path, strerror(errno));
	TEST_ASSERT(fputs(word, f) >= 0 && !fclose(f), "'%s' to %s: %s", word, path,
		    strerror(errno));
}

static void open_trace(void)
{
	TEST_ASSERT(!mkdir(TRACE, 0700) || errno == EEXIST,
		    TRACE ": %s (is tracefs mounted?)", strerror(errno));
	write_trace("tracing_on", "0");
	write_trace("buffer_size_kb", "4096");
	write_trace("events/kvm/" PAGE_EVENT "/enable", "1");
	if (access(TRACE "events/kvmclock/kvmclock_change", F_OK)) {
		change_event = "kvm_update_master_clock";
		write_trace("events/kvm/kvm_update_master_clock/enable", "1");
	} else {
		write_trace("events/kvmclock/kvmclock_change/enable", "1");
	}
}

struct counts {
	unsigned int changes;
	unsigned int pages;
	unsigned int page[MAX_VCPUS];	/* by vCPU ID */
};

static void count_from_here(void)
{
	write_trace("tracing_on", "0");
	write_trace("trace", "");
	write_trace("tracing_on", "1");
}

static struct counts count_to_here(void)
{
	struct counts counts = {};
	char line[512];
	FILE *f;

	write_trace("tracing_on", "0");
	f = fopen(TRACE "trace", "r");
	TEST_ASSERT(f, TRACE "trace: %s", strerror(errno));
	while (fgets(line, sizeof(line), f)) {
		const char *event = strstr(line, PAGE_EVENT ": ");
		unsigned int id;

		TEST_ASSERT(!strstr(line, "LOST"), "the buffer is too small: %s", line);
		if (line[0] == '#')
			continue;
		if (event) {
			TEST_ASSERT(sscanf(event, PAGE_EVENT ": vcpu_id %u", &id) == 1 &&
				    id < MAX_VCPUS, "what is this: %s", line);
			counts.pages++;
			counts.page[id]++;
		} else if (strstr(line, change_event)) {
			counts.changes++;
		}
	}
	fclose(f);
	return counts;
}

static void assert_counts(const struct counts *got, unsigned int changes, unsigned int pages,
			  const char *event)
{
	TEST_ASSERT(got->changes == changes && got->pages == pages,
		    "%s: %u changes of the line, %u expected; %u pages written, %u expected", event,
		    got->changes, changes, got->pages, pages);
}

/* All pages of the first @nr vCPUs were written, each once. */
static void assert_each_page_once(const struct counts *got, unsigned int nr, const char *event)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		TEST_ASSERT(got->page[i] == 1, "%s: page of vCPU %u written %u times", event, i,
			    got->page[i]);
}

FIXTURE(kvmclock_request) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_VCPUS];
};

/* Nothing is left over from the start when a case begins. */
FIXTURE_SETUP(kvmclock_request)
{
	unsigned int i;

	open_trace();
	self->vm = vm_create(NR_VCPUS);
	for (i = 0; i < NR_VCPUS; i++)
		kvmclock_vcpu_add(self->vm, &self->vcpu[i], i);
	for (i = 0; i < NR_VCPUS; i++)
		kvmclock_enable(&self->vcpu[i], MSR_KVM_SYSTEM_TIME_NEW);
	usleep(REPEATED_US);
	kvmclock_enter_all(self->vcpu, NR_VCPUS);
}

FIXTURE_TEARDOWN(kvmclock_request)
{
	kvm_vm_free(self->vm);
}

struct starter {
	struct kvmclock_vcpu kv;
	pthread_t thread;
	unsigned int *nr_started;
	bool stop;
};

static void *start_and_go_on(void *arg)
{
	struct starter *s = arg;

	kvmclock_enable(&s->kv, MSR_KVM_SYSTEM_TIME_NEW);
	__sync_fetch_and_add(s->nr_started, 1);
	while (!READ_ONCE(s->stop))
		kvmclock_enter(&s->kv);
	return NULL;
}

/*
 * Creating and starting N vCPUs costs N pages and no change of the line: that
 * is there from the VM's creation.  Their threads move as the scheduler likes.
 */
static void start_vcpus(unsigned int nr)
{
	struct kvm_vm *vm = vm_create(nr);
	struct starter starter[MAX_VCPUS] = {};
	unsigned int i, nr_started = 0;
	struct counts counts;

	count_from_here();
	for (i = 0; i < nr; i++) {
		kvmclock_vcpu_add(vm, &starter[i].kv, i);
		starter[i].nr_started = &nr_started;
	}
	for (i = 0; i < nr; i++)
		TEST_ASSERT(!pthread_create(&starter[i].thread, NULL, start_and_go_on,
					    &starter[i]), "pthread_create() failed");
	while (READ_ONCE(nr_started) < nr)
		usleep(1000);
	usleep(REPEATED_US);
	for (i = 0; i < nr; i++)
		WRITE_ONCE(starter[i].stop, true);
	for (i = 0; i < nr; i++)
		pthread_join(starter[i].thread, NULL);
	counts = count_to_here();

	ksft_print_msg("%u vCPUs started: %u pages written, %u changes of the line\n", nr,
		       counts.pages, counts.changes);
	for (i = 0; i < nr; i++)
		TEST_ASSERT(starter[i].kv.page->version == 2 * counts.page[i],
			    "vCPU %u: version %u after %u updates", i,
			    starter[i].kv.page->version, counts.page[i]);
	assert_each_page_once(&counts, nr, "start");
	assert_counts(&counts, 0, nr, "start");
	kvm_vm_free(vm);
}

FIXTURE(kvmclock_start) {
	int unused;
};

FIXTURE_VARIANT(kvmclock_start) {
	unsigned int nr;
};

FIXTURE_VARIANT_ADD(kvmclock_start, 1_vcpu) {
	.nr = 1,
};

FIXTURE_VARIANT_ADD(kvmclock_start, 2_vcpus) {
	.nr = 2,
};

FIXTURE_VARIANT_ADD(kvmclock_start, 8_vcpus) {
	.nr = 8,
};

FIXTURE_VARIANT_ADD(kvmclock_start, 32_vcpus) {
	.nr = 32,
};

FIXTURE_VARIANT_ADD(kvmclock_start, 64_vcpus) {
	.nr = MAX_VCPUS,
};

FIXTURE_SETUP(kvmclock_start)
{
	open_trace();
}

FIXTURE_TEARDOWN(kvmclock_start)
{
}

/* Sanitizers make this slow. */
TEST_F_TIMEOUT(kvmclock_start, updates, 200)
{
	start_vcpus(variant->nr);
}

TEST_F(kvmclock_request, system_time_msr)
{
	static const uint32_t msrs[] = { MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_SYSTEM_TIME };
	struct kvmclock_vcpu *kv = self->vcpu;
	struct counts counts;
	unsigned int i, m;

	for (i = 0; i < NR_VCPUS; i++) {
		/* The number changes with the second of each pair of writes. */
		for (m = 0; m < 2 * ARRAY_SIZE(msrs); m++) {
			count_from_here();
			kvmclock_enable(&kv[i], msrs[m / 2]);
			kvmclock_enter_all(kv, NR_VCPUS);
			usleep(REPEATED_US / 2);
			kvmclock_enter_all(kv, NR_VCPUS);
			counts = count_to_here();
			assert_counts(&counts, 0, 1, "system time MSR");
			TEST_ASSERT(counts.page[i] == 1, "the page of another vCPU");
		}
	}

	count_from_here();
	vcpu_set_msr(kv[1].vcpu, MSR_KVM_SYSTEM_TIME_NEW, kv[1].page_gpa | KVM_MSR_ENABLED);
	kvmclock_enter_all(kv, NR_VCPUS);
	usleep(REPEATED_US);
	kvmclock_enter_all(kv, NR_VCPUS);
	counts = count_to_here();
	assert_counts(&counts, 0, 1, "system time MSR by the host");
	TEST_ASSERT(counts.page[1] == 1, "the page of another vCPU");

	count_from_here();
	kvmclock_rdmsr(&kv[1], MSR_KVM_SYSTEM_TIME_NEW);
	kvmclock_wrmsr(&kv[1], MSR_KVM_SYSTEM_TIME_NEW, kv[1].page_gpa);
	kvmclock_wrmsr(&kv[2], MSR_KVM_SYSTEM_TIME_NEW, (kv[2].page_gpa + 2) | KVM_MSR_ENABLED);
	kvmclock_enter_all(kv, NR_VCPUS);
	usleep(REPEATED_US);
	kvmclock_enter_all(kv, NR_VCPUS);
	counts = count_to_here();
	assert_counts(&counts, 0, 0, "a read, a disable and a bad address");
}

TEST_F(kvmclock_request, set_clock)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct kvm_clock_data data;
	struct counts counts;
	unsigned int i;

	for (i = 0; i < 4; i++) {
		data = kvmclock_get(self->vm);
		data.clock += HOUR_NS;
		data.flags = i & 1 ? KVM_CLOCK_REALTIME : 0;

		count_from_here();
		vm_ioctl(self->vm, KVM_SET_CLOCK, &data);
		counts = count_to_here();
		assert_counts(&counts, 1, 0, "KVM_SET_CLOCK, nobody in the guest");

		count_from_here();
		kvmclock_enter_all(kv, NR_VCPUS);
		kvmclock_enter_all(kv, NR_VCPUS);
		usleep(REPEATED_US / 2);
		kvmclock_enter_all(kv, NR_VCPUS);
		counts = count_to_here();
		assert_each_page_once(&counts, NR_VCPUS, "KVM_SET_CLOCK");
		assert_counts(&counts, 0, NR_VCPUS, "vCPUs after KVM_SET_CLOCK");
	}

	/* Two before anyone looks are two changes, and still one page each. */
	count_from_here();
	kvmclock_set(self->vm, HOUR_NS);
	kvmclock_set(self->vm, 2 * HOUR_NS);
	kvmclock_enter_all(kv, NR_VCPUS);
	kvmclock_enter_all(kv, NR_VCPUS);
	counts = count_to_here();
	assert_counts(&counts, 2, NR_VCPUS, "KVM_SET_CLOCK twice");
	assert_each_page_once(&counts, NR_VCPUS, "KVM_SET_CLOCK twice");

	data = kvmclock_get(self->vm);
	data.flags |= BIT(31);
	count_from_here();
	TEST_ASSERT(__vm_ioctl(self->vm, KVM_SET_CLOCK, &data) == -1, "bad flag taken");
	for (i = 0; i < 100; i++)
		kvmclock_get(self->vm);
	kvmclock_enter_all(kv, NR_VCPUS);
	usleep(REPEATED_US);
	kvmclock_enter_all(kv, NR_VCPUS);
	counts = count_to_here();
	assert_counts(&counts, 0, 0, "a refused KVM_SET_CLOCK, and KVM_GET_CLOCK");
}

/*
 * The stable bit is in all pages: if it changes, all are written.  The vCPU
 * whose TSC it was may have written its own before that.
 */
static void assert_stable_bit_change(const struct counts *counts, unsigned int by,
				     const char *event)
{
	unsigned int i, most;

	TEST_ASSERT(counts->changes == 1, "%s: %u changes of the stable bit", event,
		    counts->changes);
	for (i = 0; i < NR_VCPUS; i++) {
		most = i == by ? 2 : 1;
		TEST_ASSERT(counts->page[i] >= 1 && counts->page[i] <= most,
			    "%s: page of vCPU %u written %u times", event, i, counts->page[i]);
	}
}

TEST_F(kvmclock_request, tsc_write)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	uint64_t offset = kvmclock_tsc_offset(&kv[1]);
	struct counts counts;
	unsigned int i;

	for (i = 0; i < 2; i++) {
		count_from_here();
		kvmclock_set_tsc_offset(&kv[1], offset + 12345);
		kvmclock_enter_all(kv, NR_VCPUS);
		kvmclock_enter_all(kv, NR_VCPUS);
		counts = count_to_here();
		assert_stable_bit_change(&counts, 1, "another TSC offset");

		/* Unequal as they are, the others need not know. */
		count_from_here();
		kvmclock_set_tsc_offset(&kv[1], offset + 1234567);
		kvmclock_enter_all(kv, NR_VCPUS);
		usleep(REPEATED_US);
		kvmclock_enter_all(kv, NR_VCPUS);
		counts = count_to_here();
		assert_counts(&counts, 0, 1, "yet another TSC offset");
		TEST_ASSERT(counts.page[1] == 1, "the page of another vCPU");

		count_from_here();
		kvmclock_call(&kv[1], KVMCLOCK_ADD_TSC, 0, -1000000ULL);
		kvmclock_enter_all(kv, NR_VCPUS);
		usleep(REPEATED_US);
		kvmclock_enter_all(kv, NR_VCPUS);
		counts = count_to_here();
		assert_counts(&counts, 0, 1, "the guest's write of MSR_IA32_TSC");
		TEST_ASSERT(counts.page[1] == 1, "the page of another vCPU");

		count_from_here();
		kvmclock_set_tsc_offset(&kv[1], offset);
		kvmclock_enter_all(kv, NR_VCPUS);
		usleep(REPEATED_US);
		kvmclock_enter_all(kv, NR_VCPUS);
		counts = count_to_here();
		assert_stable_bit_change(&counts, 1, "the old TSC offset");

		/* Equal as they are. */
		count_from_here();
		kvmclock_set_tsc_offset(&kv[1], offset);
		vcpu_set_msr(kv[1].vcpu, MSR_IA32_TSC, 0);
		kvmclock_enter_all(kv, NR_VCPUS);
		usleep(REPEATED_US);
		kvmclock_enter_all(kv, NR_VCPUS);
		counts = count_to_here();
		TEST_ASSERT(!counts.changes, "the same TSC offset: %u changes", counts.changes);
		TEST_ASSERT(counts.page[1] == counts.pages && counts.pages <= 1,
			    "the same TSC offset: %u pages, %u of them the vCPU's", counts.pages,
			    counts.page[1]);
	}
}

/*
 * The first vCPU may use the old MSR: that is decided with all else that decides
 * about the master clock, or what a TSC write asks for is not what it gets, and
 * the next one asks again.
 */
TEST_F(kvmclock_request, tsc_writes_after_the_old_msr)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	uint64_t offset = kvmclock_tsc_offset(&kv[1]);
	struct counts counts;
	unsigned int i;

	kvmclock_enable(&kv[0], MSR_KVM_SYSTEM_TIME);
	usleep(REPEATED_US);
	kvmclock_enter_all(kv, NR_VCPUS);

	count_from_here();
	for (i = 0; i < NR_TSC_WRITES; i++) {
		kvmclock_set_tsc_offset(&kv[1], offset);
		kvmclock_enter_all(kv, NR_VCPUS);
	}
	counts = count_to_here();
	TEST_ASSERT(!counts.changes, "the same TSC offset %u times: %u changes of the line",
		    NR_TSC_WRITES, counts.changes);
	TEST_ASSERT(counts.page[1] == counts.pages && counts.pages <= NR_TSC_WRITES,
		    "the same TSC offset %u times: %u pages, %u of them the vCPU's",
		    NR_TSC_WRITES, counts.pages, counts.page[1]);
}

/* One page, at once; and maybe once more for good measure. */
TEST_F(kvmclock_request, guest_stopped)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct counts counts;

	count_from_here();
	vcpu_ioctl(kv[1].vcpu, KVM_KVMCLOCK_CTRL, NULL);
	counts = count_to_here();
	assert_counts(&counts, 0, 1, "KVM_KVMCLOCK_CTRL");
	TEST_ASSERT(counts.page[1] == 1, "the page of another vCPU");

	count_from_here();
	kvmclock_enter_all(kv, NR_VCPUS);
	usleep(REPEATED_US);
	kvmclock_enter_all(kv, NR_VCPUS);
	counts = count_to_here();
	TEST_ASSERT(!counts.changes && counts.pages <= 1 && counts.pages == counts.page[1],
		    "KVM_KVMCLOCK_CTRL, later: %u changes, %u pages", counts.changes,
		    counts.pages);
}

static bool guest_stop;

/*
 * An emulated processor may have an interrupt of the host wait for a guest that
 * never leaves by itself and has its own disabled.
 */
static void guest_busy(struct kvmclock_mail *mail)
{
	while (!READ_ONCE(guest_stop))
		mail->value = __pvclock_read_cycles(mail->page_gva, rdtsc());
	GUEST_DONE();
}

/*
 * Two vCPUs that never stop reading, driven from CPU to CPU, one that goes in
 * and out, and one that is not loaded.
 */
TEST_F_TIMEOUT(kvmclock_request, steady_state, 1000)
{
	struct kvmclock_vcpu *kv = self->vcpu, busy[2];
	struct kvm_vm *vm = vm_create(ARRAY_SIZE(busy));
	pthread_t thread[ARRAY_SIZE(busy)];
	bool *stop = addr_gva2hva(vm, (gva_t)&guest_stop);
	unsigned int i, moves = 0;
	struct counts counts;
	uint64_t begin;

	for (i = 0; i < ARRAY_SIZE(busy); i++) {
		kvmclock_vcpu_add_running(vm, &busy[i], i, guest_busy);
		vcpu_set_msr(busy[i].vcpu, MSR_KVM_SYSTEM_TIME_NEW,
			     busy[i].page_gpa | KVM_MSR_ENABLED);
	}
	for (i = 0; i < ARRAY_SIZE(busy); i++)
		TEST_ASSERT(!pthread_create(&thread[i], NULL, kvmclock_run_until_done, &busy[i]),
			    "pthread_create() failed");
	for (i = 0; i < ARRAY_SIZE(busy); i++) {
		while (!READ_ONCE(busy[i].mail->value))
			usleep(1000);
	}

	count_from_here();
	begin = kvmclock_get(vm).clock;
	while (kvmclock_get(vm).clock < begin + steady_s * NSEC_PER_SEC) {
		/* An odd number of moves per turn, so that each sees all CPUs. */
		kvmclock_pin(thread[0], moves);
		kvmclock_pin(thread[moves & 1], moves + 1);
		kvmclock_pin(thread[1], moves + 2);
		moves += 3;
		kvmclock_enter(&kv[0]);
		usleep(10000);
	}
	counts = count_to_here();

	WRITE_ONCE(*stop, true);
	for (i = 0; i < ARRAY_SIZE(busy); i++)
		pthread_join(thread[i], NULL);

	ksft_print_msg("%u s and %u moves: %u pages written, %u changes of the line\n", steady_s,
		       moves, counts.pages, counts.changes);
	assert_counts(&counts, 0, 0, "steady state");
	kvm_vm_free(vm);
}

int main(int argc, char *argv[])
{
	int r;

	kvmclock_require_host();
	if (argc > 1 && atoi(argv[argc - 1]) > 0)
		steady_s = atoi(argv[--argc]);
	r = test_harness_run(argc, argv);
	rmdir(TRACE);
	return r;
}
