// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pages of the clock in memory that is not there yet, as after a migration by
 * post-copy: nobody waits for it who does not need it, and when it comes with
 * what it had long ago, no guest gets to see that.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "hyperv.h"
#include "processor.h"
#include "test_util.h"

#define HOUR_NS		(3600 * NSEC_PER_SEC)
#define PATIENCE_S	10	/* for a failure with a reason instead of a hang */
#define MAX_VCPUS	71
#define NR_ROUNDS	60

#define FIRST_SLOT	10	/* vCPU 0's page, which may be taken away */
#define OTHER_SLOT	11
#define DATA_SLOT	12
#define CLOCK_GPA	BIT_ULL(32)
#define DATA_GPA	BIT_ULL(33)

/* Xen's ABI */
#define XEN_HYPERCALL_MSR	0x40000200	/* beside those of Hyper-V */
#define XEN_VCPU_INFO_TIME	32

#define HV_UNIT_NS	100
#define HV_OFF_NS	301	/* kvmclock_hyperv_xen_test says why */

enum op { REST, LOOK, LOOK_LATER, HAMMER };

/* What a guest is to do, and what it has seen. */
struct order {
	struct kvmclock_mail mail;
	uint64_t target_gva;	/* a page that is another's */
	uint8_t seen[32];
	uint64_t seen_tsc;
	uint64_t nr_looks;	/* comparisons of that page with the own one */
	uint64_t nr_stale;
	bool stop;
};

struct hv_tsc_page {
	uint32_t sequence;
	uint32_t reserved;
	uint64_t scale;
	int64_t offset;
};

/*
 * A thread that enters the guest once, or makes calls.  It may be stuck: it is
 * not freed then, and the process ends with a message.
 */
struct worker {
	struct kvmclock_vcpu *kv;
	void (*work)(struct worker *worker);
	pthread_t thread;
	const char *step;	/* which call it is in */
	int error;		/* of KVM_RUN */
};

FIXTURE(kvmclock_uffd) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[MAX_VCPUS];
	struct worker worker[MAX_VCPUS];
	void *memory;
	void *stale;		/* a page's content, to be served */
	unsigned int nr;	/* of vCPUs; Hyper-V's page comes after theirs */
	int uffd;
};

FIXTURE_VARIANT(kvmclock_uffd) {
	unsigned int nr;
};

FIXTURE_VARIANT_ADD(kvmclock_uffd, three) {
	.nr = 3,
};

FIXTURE_VARIANT_ADD(kvmclock_uffd, many) {
	.nr = MAX_VCPUS,
};

/* A page of the other's that is read while the own stays is of the same line. */
static void guest_compare(struct order *order)
{
	struct pvclock_vcpu_time_info *own = order->mail.page_gva;
	struct pvclock_vcpu_time_info *other = (void *)order->target_gva;
	struct pvclock_vcpu_time_info before, copy, after;

	before = kvmclock_read_page(own);
	copy = kvmclock_read_page(other);
	after = kvmclock_read_page(own);
	if (before.version != after.version)
		return;
	if (!oracle_same_line(&before, &copy)) {
		memcpy(order->seen, &copy, sizeof(copy));
		WRITE_ONCE(order->nr_stale, order->nr_stale + 1);
	}
	WRITE_ONCE(order->nr_looks, order->nr_looks + 1);
}

static void guest_look(struct kvmclock_mail *mail)
{
	struct order *order = (void *)mail;

	for (;;) {
		switch (mail->op) {
		case LOOK_LATER:
			WRITE_ONCE(order->nr_looks, order->nr_looks + 1);
			while (!READ_ONCE(order->stop))
				;
			fallthrough;
		case LOOK:
			memcpy(order->seen, (void *)order->target_gva, sizeof(order->seen));
			order->seen_tsc = rdtsc();
			break;
		case HAMMER:
			while (!READ_ONCE(order->stop))
				guest_compare(order);
			break;
		}
		GUEST_SYNC(mail->op);
	}
}

static void ignore_signal(int sig)
{
}

static struct order *order_of(struct kvmclock_vcpu *kv)
{
	return (void *)kv->mail;
}

static void *page_of(FIXTURE_DATA(kvmclock_uffd) * self, unsigned int page)
{
	return self->memory + page * PAGE_SIZE;
}

static void set_slot(FIXTURE_DATA(kvmclock_uffd) * self, unsigned int page, unsigned int nr)
{
	vm_set_user_memory_region(self->vm, page ? OTHER_SLOT : FIRST_SLOT, 0,
				  CLOCK_GPA + page * PAGE_SIZE, nr * PAGE_SIZE,
				  page_of(self, page));
}

FIXTURE_SETUP(kvmclock_uffd)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	struct sigaction action = { .sa_handler = ignore_signal };
	struct uffdio_register reg = {
		.mode = UFFDIO_REGISTER_MODE_MISSING | UFFDIO_REGISTER_MODE_WP,
	};
	unsigned int i, nr_pages = variant->nr + 1;

	memset(self, 0, sizeof(*self));
	self->nr = variant->nr;
	TEST_ASSERT(!sigaction(SIGUSR1, &action, NULL), "sigaction() failed");

	/* Before the VM: a process that ends closes it first, and frees who waits. */
	self->uffd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	TEST_ASSERT(self->uffd >= 0, "no userfaultfd (CONFIG_USERFAULTFD?)");
	TEST_ASSERT(!ioctl(self->uffd, UFFDIO_API, &api), "UFFDIO_API failed");

	self->memory = mmap(NULL, nr_pages * PAGE_SIZE, PROT_READ | PROT_WRITE,
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	self->stale = mmap(NULL, PAGE_SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	TEST_ASSERT(self->memory != MAP_FAILED && self->stale != MAP_FAILED, "mmap() failed");
	memset(self->memory, 0, nr_pages * PAGE_SIZE);
	reg.range.start = (uintptr_t)self->memory;
	reg.range.len = nr_pages * PAGE_SIZE;
	TEST_ASSERT(!ioctl(self->uffd, UFFDIO_REGISTER, &reg), "UFFDIO_REGISTER failed");

	self->vm = vm_create(self->nr);

	/* The library has room for the vCPUs, not for a mail and a page of each. */
	vm_userspace_mem_region_add(self->vm, VM_MEM_SRC_ANONYMOUS, DATA_GPA, DATA_SLOT,
				    2 * self->nr, 0);
	self->vm->memslots[MEM_REGION_TEST_DATA] = DATA_SLOT;
	virt_map(self->vm, CLOCK_GPA, CLOCK_GPA, nr_pages);
	set_slot(self, 0, 1);
	set_slot(self, 1, nr_pages - 1);
	for (i = 0; i < self->nr; i++) {
		struct kvmclock_vcpu *kv = &self->vcpu[i];

		kvmclock_vcpu_add_running(self->vm, kv, i, guest_look);
		vcpu_set_hv_cpuid(kv->vcpu);
		self->worker[i].kv = kv;
		kv->page = page_of(self, i);
		kv->page_gpa = CLOCK_GPA + i * PAGE_SIZE;
		kv->mail->page_gva = (void *)(CLOCK_GPA + i * PAGE_SIZE);
		vcpu_set_msr(kv->vcpu, MSR_KVM_SYSTEM_TIME_NEW, kv->page_gpa | KVM_MSR_ENABLED);
	}
	for (i = 0; i < 2; i++)
		kvmclock_enter_all(self->vcpu, self->nr);
	for (i = 0; i < self->nr; i++)
		TEST_ASSERT(self->vcpu[i].page->flags & PVCLOCK_TSC_STABLE_BIT,
			    "vCPU %u: not stable", i);
}

FIXTURE_TEARDOWN(kvmclock_uffd)
{
	close(self->uffd);
	kvm_vm_free(self->vm);
}

static void *worker_thread(void *arg)
{
	struct worker *worker = arg;

	worker->work(worker);
	return NULL;
}

static void start(struct worker *worker, void (*work)(struct worker *worker))
{
	worker->work = work;
	worker->error = 0;
	worker->step = "KVM_RUN";
	TEST_ASSERT(!pthread_create(&worker->thread, NULL, worker_thread, worker),
		    "pthread_create() failed");
}

static void finish(struct worker *worker, const char *when)
{
	struct timespec until;
	int r;

	clock_gettime(CLOCK_REALTIME, &until);
	until.tv_sec += PATIENCE_S;
	r = pthread_timedjoin_np(worker->thread, NULL, &until);
	TEST_ASSERT(!r, "vCPU %u is still in %s after %d s: %s", worker->kv->vcpu->id,
		    READ_ONCE(worker->step), PATIENCE_S, when);
}

static void enter_guest(struct worker *worker)
{
	struct ucall uc;

	if (__vcpu_run(worker->kv->vcpu)) {
		worker->error = errno;
		return;
	}
	TEST_ASSERT(get_ucall(worker->kv->vcpu, &uc) == UCALL_SYNC, "exit reason %u (%s)",
		    worker->kv->vcpu->run->exit_reason,
		    exit_reason_str(worker->kv->vcpu->run->exit_reason));
}

static void start_op(struct worker *worker, enum op op)
{
	worker->kv->mail->op = op;
	start(worker, enter_guest);
}

static void enter(struct worker *worker, const char *when)
{
	start_op(worker, REST);
	finish(worker, when);
	TEST_ASSERT(!worker->error, "vCPU %u: KVM_RUN: errno %d: %s", worker->kv->vcpu->id,
		    worker->error, when);
}

/* A signal gets the vCPU out, unless it comes before the call: then the next. */
static void interrupt(struct worker *worker, const char *when)
{
	unsigned int waited_ms;
	int r = EBUSY;

	TEST_ASSERT(pthread_tryjoin_np(worker->thread, NULL) == EBUSY,
		    "vCPU %u does not wait: %s", worker->kv->vcpu->id, when);
	for (waited_ms = 0; r && waited_ms < PATIENCE_S * 1000; waited_ms += 10) {
		pthread_kill(worker->thread, SIGUSR1);
		usleep(10000);
		r = pthread_tryjoin_np(worker->thread, NULL);
	}
	TEST_ASSERT(!r, "vCPU %u: no signal gets it out of KVM_RUN: %s", worker->kv->vcpu->id,
		    when);
	TEST_ASSERT(worker->error == EINTR, "vCPU %u: errno %d, not EINTR: %s",
		    worker->kv->vcpu->id, worker->error, when);
}

/* Keeps what the page has, and takes the page. */
static void take_away(FIXTURE_DATA(kvmclock_uffd) * self, unsigned int page)
{
	memcpy(self->stale, page_of(self, page), PAGE_SIZE);
	TEST_ASSERT(!madvise(page_of(self, page), PAGE_SIZE, MADV_DONTNEED),
		    "MADV_DONTNEED failed");
}

static void serve_as(FIXTURE_DATA(kvmclock_uffd) * self, unsigned int page, bool protected)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)page_of(self, page),
		.src = (uintptr_t)self->stale,
		.len = PAGE_SIZE,
		.mode = protected ? UFFDIO_COPY_MODE_WP : 0,
	};

	TEST_ASSERT(!ioctl(self->uffd, UFFDIO_COPY, &copy), "UFFDIO_COPY failed");
}

static void serve(FIXTURE_DATA(kvmclock_uffd) * self, unsigned int page)
{
	serve_as(self, page, false);
}

/* Until somebody needs the page; more than one may, and all are told of. */
static void await_fault_of(FIXTURE_DATA(kvmclock_uffd) * self, unsigned int page,
			   uint64_t flags, const char *whose)
{
	struct pollfd pollfd = { .fd = self->uffd, .events = POLLIN };
	uintptr_t at = (uintptr_t)page_of(self, page);
	struct uffd_msg msg;

	for (;;) {
		TEST_ASSERT(poll(&pollfd, 1, PATIENCE_S * 1000) == 1,
			    "nobody needs page %u after %d s: %s", page, PATIENCE_S, whose);
		if (read(self->uffd, &msg, sizeof(msg)) != sizeof(msg))
			continue;
		TEST_ASSERT(msg.event == UFFD_EVENT_PAGEFAULT, "event %u", msg.event);
		if (msg.arg.pagefault.address - at < PAGE_SIZE &&
		    (msg.arg.pagefault.flags & flags) == flags)
			break;
	}
}

static void await_fault(FIXTURE_DATA(kvmclock_uffd) * self, unsigned int page, const char *whose)
{
	await_fault_of(self, page, 0, whose);
}

/* Until somebody is to write to the page, and it is there but for that. */
static void await_write(FIXTURE_DATA(kvmclock_uffd) * self, unsigned int page, const char *whose)
{
	await_fault_of(self, page, UFFD_PAGEFAULT_FLAG_WP, whose);
}

static void protect(FIXTURE_DATA(kvmclock_uffd) * self, unsigned int page, bool on)
{
	struct uffdio_writeprotect wp = {
		.range.start = (uintptr_t)page_of(self, page),
		.range.len = PAGE_SIZE,
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	TEST_ASSERT(!ioctl(self->uffd, UFFDIO_WRITEPROTECT, &wp),
		    "UFFDIO_WRITEPROTECT failed");
}

static void start_look(FIXTURE_DATA(kvmclock_uffd) * self, struct worker *worker,
		       unsigned int page)
{
	order_of(worker->kv)->target_gva = CLOCK_GPA + page * PAGE_SIZE;
	start_op(worker, LOOK);
}

/* What the guest saw of another's page is the line that its own page has. */
static void assert_new_line(struct worker *worker, unsigned int whose)
{
	const struct pvclock_vcpu_time_info *seen = (void *)order_of(worker->kv)->seen;
	const struct pvclock_vcpu_time_info *own = worker->kv->page;

	TEST_ASSERT(!worker->error, "vCPU %u: KVM_RUN: errno %d", worker->kv->vcpu->id,
		    worker->error);
	TEST_ASSERT(!(seen->version & 1), "vCPU %u's page is half written", whose);
	TEST_ASSERT(oracle_same_line(seen, own),
		    "vCPU %u reads %lu at 0x%lx in vCPU %u's page, %lu at 0x%lx in its own",
		    worker->kv->vcpu->id, (uint64_t)seen->system_time,
		    (uint64_t)seen->tsc_timestamp, whose, (uint64_t)own->system_time,
		    (uint64_t)own->tsc_timestamp);
}

/* vCPU 0's page never comes, and the others go on, and so does vCPU 0. */
TEST_F(kvmclock_uffd, never_served)
{
	unsigned int i, round;

	take_away(self, 0);
	for (round = 0; round < 3; round++) {
		kvmclock_set(self->vm, (round + 1) * HOUR_NS);
		for (i = 1; i < self->nr; i++)
			start_op(&self->worker[i], REST);
		for (i = 1; i < self->nr; i++)
			finish(&self->worker[i], "vCPU 0's page is missing");
		for (i = 1; i < self->nr; i++)
			TEST_ASSERT(oracle_same_line(self->vcpu[i].page, self->vcpu[1].page) &&
				    self->vcpu[i].page->system_time >= (round + 1) * HOUR_NS,
				    "vCPU %u: not on the new line", i);
		enter(&self->worker[0], "its page is missing, and not needed");
	}

	start_look(self, &self->worker[0], 0);
	await_fault(self, 0, "its guest reads it");
	interrupt(&self->worker[0], "its guest waits for its page");
	serve(self, 0);
	start_look(self, &self->worker[0], 0);
	finish(&self->worker[0], "its page is there");
	enter(&self->worker[1], "all pages are there");
	TEST_ASSERT(oracle_same_line(self->vcpu[0].page, self->vcpu[1].page),
		    "vCPU 0's page has another line");
}

/* None of these may wait for guest memory; a page's server may make them. */
static void make_calls(struct worker *worker)
{
	struct kvmclock_vcpu *kv = worker->kv;
	struct pvclock_vcpu_time_info line;
	uint64_t offset;

	WRITE_ONCE(worker->step, "KVM_GET_CLOCK");
	kvmclock_get(kv->vcpu->vm);
	WRITE_ONCE(worker->step, "KVM_SET_CLOCK");
	kvmclock_set(kv->vcpu->vm, HOUR_NS);
	WRITE_ONCE(worker->step, "KVM_GET_CLOCK_GUEST");
	line = kvmclock_get_line(kv);
	WRITE_ONCE(worker->step, "KVM_SET_CLOCK_GUEST");
	kvmclock_set_line(kv, &line);
	WRITE_ONCE(worker->step, "KVM_VCPU_TSC_OFFSET");
	offset = kvmclock_tsc_offset(kv);
	kvmclock_set_tsc_offset(kv, offset + 1);
	kvmclock_set_tsc_offset(kv, offset);
	WRITE_ONCE(worker->step, "KVM_KVMCLOCK_CTRL");
	vcpu_ioctl(kv->vcpu, KVM_KVMCLOCK_CTRL, NULL);
	WRITE_ONCE(worker->step, "KVM_SET_MSRS of MSR_KVM_SYSTEM_TIME_NEW");
	vcpu_set_msr(kv->vcpu, MSR_KVM_SYSTEM_TIME_NEW, kv->page_gpa | KVM_MSR_ENABLED);
	WRITE_ONCE(worker->step, "the second KVM_KVMCLOCK_CTRL");
	vcpu_ioctl(kv->vcpu, KVM_KVMCLOCK_CTRL, NULL);
	WRITE_ONCE(worker->step, "the second KVM_GET_CLOCK");
	kvmclock_get(kv->vcpu->vm);
}

TEST_F(kvmclock_uffd, calls_return)
{
	take_away(self, 0);
	start(&self->worker[0], make_calls);
	finish(&self->worker[0], "its page is missing");
	enter(&self->worker[1], "vCPU 0's page is missing");

	/* What KVM_KVMCLOCK_CTRL has promised comes with the memory. */
	start_look(self, &self->worker[0], 0);
	await_fault(self, 0, "its guest reads it");
	serve(self, 0);
	finish(&self->worker[0], "its page is there");
	assert_new_line(&self->worker[0], 0);
	TEST_ASSERT(((struct pvclock_vcpu_time_info *)order_of(&self->vcpu[0])->seen)->flags &
		    PVCLOCK_GUEST_STOPPED, "the guest is not told");
}

/* A page of each vCPU comes when another's guest reads it, in no order. */
TEST_F(kvmclock_uffd, served_late)
{
	struct worker *reader = &self->worker[self->nr - 1];
	unsigned int order[MAX_VCPUS], i, other, keep, nr = self->nr - 1;
	uint64_t seed = 20261125;

	for (i = 0; i < nr; i++) {
		take_away(self, i);
		order[i] = i;
	}
	for (i = nr - 1; i; i--) {
		other = kvmclock_random(&seed) % (i + 1);
		keep = order[i];
		order[i] = order[other];
		order[other] = keep;
	}
	kvmclock_set(self->vm, HOUR_NS);

	for (i = 0; i < nr; i++) {
		start_look(self, reader, order[i]);
		await_fault(self, order[i], "another's guest reads it");
		serve(self, order[i]);
		finish(reader, "the page is there");
		assert_new_line(reader, order[i]);
	}
	kvmclock_enter_all(self->vcpu, self->nr);
	for (i = 0; i < nr; i++)
		TEST_ASSERT(oracle_same_line(self->vcpu[i].page, reader->kv->page),
			    "vCPU %u's page has another line", i);
}

static uint64_t looks(FIXTURE_DATA(kvmclock_uffd) * self, unsigned int vcpu)
{
	struct order *order = order_of(&self->vcpu[vcpu]);
	const struct pvclock_vcpu_time_info *seen = (void *)order->seen;

	TEST_ASSERT(!READ_ONCE(order->nr_stale), "vCPU %u has read an old line, %lu at 0x%lx",
		    vcpu, (uint64_t)seen->system_time, (uint64_t)seen->tsc_timestamp);
	return READ_ONCE(order->nr_looks);
}

static void await_looks(FIXTURE_DATA(kvmclock_uffd) * self, const char *when)
{
	uint64_t before[3], waited_us;
	unsigned int i;

	for (i = 1; i < 3; i++)
		before[i] = looks(self, i);
	for (i = 1; i < 3; i++) {
		for (waited_us = 0; looks(self, i) - before[i] < 2; waited_us += 1000) {
			TEST_ASSERT(waited_us < PATIENCE_S * 1000000ULL,
				    "vCPU %u does not go on after %d s: %s", i, PATIENCE_S, when);
			usleep(1000);
		}
	}
}

/* The page comes back while guests do nothing but read it. */
TEST_F(kvmclock_uffd, served_under_readers)
{
	unsigned int i, round;

	if (variant->nr != 3)
		return;
	for (i = 1; i < 3; i++) {
		order_of(&self->vcpu[i])->target_gva = CLOCK_GPA;
		start_op(&self->worker[i], HAMMER);
	}
	await_looks(self, "no page is missing");

	for (round = 0; round < NR_ROUNDS; round++) {
		take_away(self, 0);
		kvmclock_set(self->vm, (round + 1) * HOUR_NS);
		await_fault(self, 0, "guests read it");
		if (round % 2)
			kvmclock_set(self->vm, (round + 1) * HOUR_NS + HOUR_NS / 2);
		serve(self, 0);
		await_looks(self, "vCPU 0's page is there");
	}

	for (i = 1; i < 3; i++)
		WRITE_ONCE(order_of(&self->vcpu[i])->stop, true);
	for (i = 1; i < 3; i++)
		finish(&self->worker[i], "it was told to stop");
	for (i = 1; i < 3; i++)
		looks(self, i);
}

static int64_t hv_time_ns(const struct hv_tsc_page *page, uint64_t tsc)
{
	unsigned __int128 product = tsc;

	product *= page->scale;
	return ((int64_t)(product >> 64) + page->offset) * HV_UNIT_NS;
}

/* After all vCPUs' pages */
static const struct hv_tsc_page *add_hv_page(FIXTURE_DATA(kvmclock_uffd) * self)
{
	const struct hv_tsc_page *page = page_of(self, self->nr);

	vcpu_set_msr(self->vcpu[0].vcpu, HV_X64_MSR_GUEST_OS_ID, 1ULL << 48);
	vcpu_set_msr(self->vcpu[0].vcpu, HV_X64_MSR_REFERENCE_TSC,
		     (CLOCK_GPA + self->nr * PAGE_SIZE) | BIT(0));
	kvmclock_enter_all(self->vcpu, self->nr);
	TEST_ASSERT(page->sequence, "no TSC page");
	return page;
}

static void assert_hv_page(const struct hv_tsc_page *page, struct kvmclock_vcpu *kv, uint64_t tsc)
{
	int64_t off_ns = hv_time_ns(page, tsc) - oracle_at(kv->page, tsc);

	TEST_ASSERT(page->sequence && llabs(off_ns) <= HV_OFF_NS,
		    "Hyper-V's page, sequence %u, is %+ld ns from kvmclock", page->sequence,
		    off_ns);
}

/* Any vCPU reads Hyper-V's page, and it comes late, too. */
TEST_F(kvmclock_uffd, hyperv_page)
{
	const struct hv_tsc_page *page = add_hv_page(self);
	struct worker *reader = &self->worker[1];
	struct hv_tsc_page seen;
	unsigned int round;

	for (round = 0; round < 5; round++) {
		take_away(self, self->nr);
		start(&self->worker[2], make_calls);
		finish(&self->worker[2], "Hyper-V's page is missing");
		kvmclock_set(self->vm, (round + 2) * HOUR_NS);
		enter(&self->worker[2], "Hyper-V's page is missing");

		start_look(self, reader, self->nr);
		await_fault(self, self->nr, "a guest reads Hyper-V's page");
		serve(self, self->nr);
		finish(reader, "Hyper-V's page is there");
		memcpy(&seen, order_of(reader->kv)->seen, sizeof(seen));

		/* 0 says that the page is not to be used: right as well, for now. */
		if (seen.sequence)
			assert_hv_page(&seen, reader->kv, order_of(reader->kv)->seen_tsc);
		kvmclock_enter_all(self->vcpu, self->nr);
		TEST_ASSERT(page->sequence, "the TSC page does not come back");
	}
}

/* It can be read, so the vCPUs wait until it can be written, but not for ever. */
TEST_F(kvmclock_uffd, hyperv_write_protected)
{
	const struct hv_tsc_page *page = add_hv_page(self);
	struct worker *worker = &self->worker[1];
	unsigned int round;

	for (round = 0; round < 5; round++) {
		protect(self, self->nr, true);
		kvmclock_set(self->vm, (round + 1) * HOUR_NS);
		start_op(worker, REST);
		await_write(self, self->nr, "Hyper-V's page has an old line");
		if (round % 2)
			interrupt(worker, "Hyper-V's page is write-protected");
		protect(self, self->nr, false);
		if (round % 2)
			enter(worker, "Hyper-V's page is not protected any more");
		else
			finish(worker, "Hyper-V's page is not protected any more");
		assert_hv_page(page, worker->kv, kvmclock_guest_tsc(worker->kv, rdtsc()));
	}
}

/* It can't be written, ever, and nobody waits for that; then it can. */
TEST_F(kvmclock_uffd, hyperv_read_only)
{
	const struct hv_tsc_page *page = add_hv_page(self);
	struct worker *worker = &self->worker[1];
	struct hv_tsc_page before;
	unsigned int round;

	for (round = 0; round < 3; round++) {
		before = *page;
		TEST_ASSERT(!mprotect(page_of(self, self->nr), PAGE_SIZE, PROT_READ),
			    "mprotect(): %m");
		kvmclock_set(self->vm, (round + 1) * HOUR_NS);
		enter(worker, "Hyper-V's page is read-only");
		TEST_ASSERT(!memcmp(page, &before, sizeof(before)), "it was written");

		TEST_ASSERT(!mprotect(page_of(self, self->nr), PAGE_SIZE, PROT_READ | PROT_WRITE),
			    "mprotect(): %m");
		enter(worker, "Hyper-V's page can be written again");
		assert_hv_page(page, worker->kv, kvmclock_guest_tsc(worker->kv, rdtsc()));
	}
}

/* A slot that was away during a change, and whose vCPU stays out of its guest. */
TEST_F(kvmclock_uffd, slot_returns)
{
	struct worker *reader = &self->worker[1];
	unsigned int round;

	for (round = 0; round < 5; round++) {
		set_slot(self, 0, 0);
		kvmclock_set(self->vm, (round + 1) * HOUR_NS);
		enter(reader, "vCPU 0's slot is away");
		set_slot(self, 0, 1);
		start_look(self, reader, 0);
		finish(reader, "vCPU 0's slot is back");
		assert_new_line(reader, 0);
	}
}

/* A page that is there can be read: the others wait, but not for ever. */
TEST_F(kvmclock_uffd, write_protected)
{
	unsigned int i;

	protect(self, 0, true);
	kvmclock_set(self->vm, HOUR_NS);
	start_op(&self->worker[1], REST);
	await_fault(self, 0, "its line is to be replaced");
	start_op(&self->worker[2], REST);
	start_op(&self->worker[0], REST);
	for (i = 0; i < 3; i++)
		interrupt(&self->worker[i], "vCPU 0's page is write-protected");

	protect(self, 0, false);
	enter(&self->worker[1], "vCPU 0's page is not protected any more");
	for (i = 0; i < self->nr; i++)
		TEST_ASSERT(oracle_same_line(self->vcpu[i].page, self->vcpu[1].page) &&
			    self->vcpu[i].page->system_time >= HOUR_NS,
			    "vCPU %u's page has another line", i);
}

/* In the guest, to look at a page when it is told to. */
static void start_look_later(struct worker *worker, unsigned int page)
{
	struct order *order = order_of(worker->kv);
	uint64_t nr = order->nr_looks;
	unsigned int waited_ms;

	order->target_gva = CLOCK_GPA + page * PAGE_SIZE;
	order->stop = false;
	start_op(worker, LOOK_LATER);
	for (waited_ms = 0; READ_ONCE(order->nr_looks) == nr; waited_ms++) {
		TEST_ASSERT(waited_ms < PATIENCE_S * 1000,
			    "vCPU %u waits for page %u, which it does not need",
			    worker->kv->vcpu->id, page);
		usleep(1000);
	}
}

/*
 * A page comes as it was long ago and can't be written yet, as in a snapshot of a
 * VM that is still receiving its memory.  It is there for the host, and for no
 * guest: not for one either that has been running all the while, nor when the one
 * that had brought it has left.
 */
TEST_F(kvmclock_uffd, served_protected)
{
	struct worker *first = &self->worker[1], *other = &self->worker[2];
	struct order *later = order_of(other->kv);
	unsigned int round;

	for (round = 0; round < 5; round++) {
		take_away(self, 0);
		kvmclock_set(self->vm, (round + 1) * HOUR_NS);
		start_look_later(other, 0);

		start_look(self, first, 0);
		await_fault(self, 0, "a guest reads it");
		serve_as(self, 0, true);
		await_write(self, 0, "it is to be written first");
		if (round % 2)
			interrupt(first, "vCPU 0's page can't be written");

		WRITE_ONCE(later->stop, true);
		await_write(self, 0, "a guest reads it that was in already");
		protect(self, 0, false);
		finish(other, "vCPU 0's page can be written");
		assert_new_line(other, 0);
		if (!(round % 2)) {
			finish(first, "vCPU 0's page can be written");
			assert_new_line(first, 0);
		}
	}
}

/* The same of Hyper-V's page, which is everybody's. */
TEST_F(kvmclock_uffd, hyperv_served_protected)
{
	struct worker *first = &self->worker[1], *other = &self->worker[2];
	struct order *later = order_of(other->kv);
	unsigned int page = self->nr, round;
	struct hv_tsc_page seen;

	add_hv_page(self);
	for (round = 0; round < 5; round++) {
		take_away(self, page);
		kvmclock_set(self->vm, (round + 1) * HOUR_NS);
		start_look_later(other, page);

		start_look(self, first, page);
		await_fault(self, page, "a guest reads it");
		serve_as(self, page, true);
		await_write(self, page, "it is to be written first");
		if (round % 2)
			interrupt(first, "Hyper-V's page can't be written");

		WRITE_ONCE(later->stop, true);
		await_write(self, page, "a guest reads it that was in already");
		protect(self, page, false);
		finish(other, "Hyper-V's page can be written");
		memcpy(&seen, later->seen, sizeof(seen));
		if (seen.sequence)
			assert_hv_page(&seen, other->kv, later->seen_tsc);
		if (!(round % 2))
			finish(first, "Hyper-V's page can be written");
		kvmclock_enter_all(self->vcpu, self->nr);
	}
}

/* vCPU 0 has a structure of Xen's, too, after all vCPUs' pages. */
static void set_xen_info(FIXTURE_DATA(kvmclock_uffd) * self)
{
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO,
		.u.gpa = CLOCK_GPA + self->nr * PAGE_SIZE,
	};

	vcpu_ioctl(self->vcpu[0].vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
}

static const struct pvclock_vcpu_time_info *add_xen_info(FIXTURE_DATA(kvmclock_uffd) * self)
{
	const struct pvclock_vcpu_time_info *info = page_of(self, self->nr) + XEN_VCPU_INFO_TIME;
	struct kvm_xen_hvm_config xen = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
		.msr = XEN_HYPERCALL_MSR,
	};

	vm_ioctl(self->vm, KVM_XEN_HVM_CONFIG, &xen);
	set_xen_info(self);
	kvmclock_enter_all(self->vcpu, self->nr);
	TEST_ASSERT(info->tsc_to_system_mul, "nothing in vcpu_info");
	return info;
}

/* Of two structures one has no memory: the other is waited for as if it were alone. */
TEST_F(kvmclock_uffd, half_absent)
{
	const struct pvclock_vcpu_time_info *info = add_xen_info(self);
	unsigned int round;

	for (round = 0; round < 3; round++) {
		set_slot(self, 0, 0);
		protect(self, self->nr, true);
		kvmclock_set(self->vm, (round + 1) * HOUR_NS);

		/* It is written before the vCPU enters, not when it comes back next. */
		start_op(&self->worker[0], REST);
		await_write(self, self->nr, "vcpu_info has an old line");
		protect(self, self->nr, false);
		finish(&self->worker[0], "vcpu_info can be written");
		enter(&self->worker[1], "vcpu_info can be written");
		TEST_ASSERT(oracle_same_line(info, self->vcpu[1].page),
			    "vcpu_info has another line");
		set_slot(self, 0, 1);
	}
}

/*
 * A page comes as it was long ago, and before a guest that has been running all the
 * while reads it, it is registered again, or another structure of vCPU 0 is.
 */
TEST_F(kvmclock_uffd, registered_while_absent)
{
	struct worker *reader = &self->worker[1];
	unsigned int round;

	add_xen_info(self);
	for (round = 0; round < 20; round++) {
		take_away(self, 0);
		kvmclock_set(self->vm, (round + 1) * HOUR_NS);
		start_look_later(reader, 0);

		serve(self, 0);
		if (round % 2)
			set_xen_info(self);
		else
			vcpu_set_msr(self->vcpu[0].vcpu, MSR_KVM_SYSTEM_TIME_NEW,
				     self->vcpu[0].page_gpa | KVM_MSR_ENABLED);

		WRITE_ONCE(order_of(reader->kv)->stop, true);
		finish(reader, "vCPU 0's page is there");
		assert_new_line(reader, 0);
	}
}

/* One can't be written, ever: who helps writes the other, which comes to be writable. */
TEST_F(kvmclock_uffd, half_read_only)
{
	const struct pvclock_vcpu_time_info *info = add_xen_info(self);
	unsigned int round;

	for (round = 0; round < 3; round++) {
		TEST_ASSERT(!mprotect(page_of(self, 0), PAGE_SIZE, PROT_READ), "mprotect(): %m");
		protect(self, self->nr, true);
		kvmclock_set(self->vm, (round + 1) * HOUR_NS);

		start_op(&self->worker[1], REST);
		await_write(self, self->nr, "vcpu_info has an old line");
		protect(self, self->nr, false);
		finish(&self->worker[1], "vcpu_info can be written");
		TEST_ASSERT(oracle_same_line(info, self->vcpu[1].page),
			    "vcpu_info has another line");

		TEST_ASSERT(!mprotect(page_of(self, 0), PAGE_SIZE, PROT_READ | PROT_WRITE),
			    "mprotect(): %m");
		enter(&self->worker[0], "its own page can be written again");
		TEST_ASSERT(oracle_same_line(self->vcpu[0].page, info),
			    "its page has another line");
	}
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	return test_harness_run(argc, argv);
}
