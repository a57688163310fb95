/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the kvmclock tests share: a vCPU whose guest does one thing at a time on
 * behalf of the test, and the arithmetic of a pvclock page, done in 128 bits so
 * that it owes nothing to the code under test.
 */
#ifndef SELFTEST_KVM_KVMCLOCK_H
#define SELFTEST_KVM_KVMCLOCK_H

#include <pthread.h>
#include <sched.h>
#include <time.h>
#include <unistd.h>

#include <asm/kvm_para.h>
#include <asm/pvclock.h>
#include <asm/pvclock-abi.h>
#include <linux/kernel.h>

#include "apic.h"
#include "kvm_util.h"
#include "processor.h"

/* The calls that save and restore a VM's time, in their order, exist once. */
#include "../../../../../../samples/kvm/kvm-time.h"

#ifndef X86_FEATURE_KVM_CLOCKSOURCE_STABLE
#define X86_FEATURE_KVM_CLOCKSOURCE_STABLE	KVM_X86_CPU_FEATURE(0x40000001, 0, EAX, 24)
#endif

#define KVMCLOCK_GET_FLAGS \
	(KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC)

enum kvmclock_guest_op {
	KVMCLOCK_NOP,
	KVMCLOCK_CPUID,		/* value = EAX of the KVM features leaf */
	KVMCLOCK_RDMSR,
	KVMCLOCK_WRMSR,
	KVMCLOCK_ADD_TSC,	/* add value to MSR_IA32_TSC */
	KVMCLOCK_READ,		/* value = the clock now */
	KVMCLOCK_READ_AT,	/* value = the clock at guest TSC value */
	KVMCLOCK_CLEAR_STOPPED,
	KVMCLOCK_PAIRING,	/* value = KVM_HC_CLOCK_PAIRING of type msr to address value */
};

/* The mailbox of one vCPU; @page_gva says where its guest finds its clock. */
struct kvmclock_mail {
	uint32_t op;
	uint32_t msr;
	uint64_t value;
	uint64_t vector;
	struct pvclock_vcpu_time_info *page_gva;
};

struct kvmclock_vcpu {
	struct kvm_vcpu *vcpu;
	struct kvmclock_mail *mail;
	struct pvclock_vcpu_time_info *page;
	gpa_t page_gpa;
	uint32_t msr;		/* written last by kvmclock_enable() */
};

/* What a guest kernel does: a TSC, the clock at it, and the flags, of one page. */
static inline uint64_t kvmclock_guest_read(const struct pvclock_vcpu_time_info *page,
					   uint64_t *tsc, uint8_t *flags)
{
	uint32_t version;
	uint64_t now;

	do {
		version = pvclock_read_begin(page);
		*tsc = rdtsc();
		now = __pvclock_read_cycles(page, *tsc);
		*flags = READ_ONCE(page->flags);
	} while (pvclock_read_retry(page, version));
	return now;
}

static inline void kvmclock_guest(struct kvmclock_mail *mail)
{
	uint32_t eax, ebx, ecx, edx;
	uint64_t tsc;
	uint8_t flags;

	for (;;) {
		mail->vector = 0;
		switch (mail->op) {
		case KVMCLOCK_NOP:
			break;
		case KVMCLOCK_CPUID:
			cpuid(KVM_CPUID_FEATURES, &eax, &ebx, &ecx, &edx);
			mail->value = eax;
			break;
		case KVMCLOCK_RDMSR:
			mail->vector = rdmsr_safe(mail->msr, &mail->value);
			break;
		case KVMCLOCK_WRMSR:
			mail->vector = wrmsr_safe(mail->msr, mail->value);
			break;
		case KVMCLOCK_ADD_TSC:
			wrmsr(MSR_IA32_TSC, rdtsc() + mail->value);
			break;
		case KVMCLOCK_READ:
			mail->value = kvmclock_guest_read(mail->page_gva, &tsc, &flags);
			break;
		case KVMCLOCK_READ_AT:
			mail->value = __pvclock_read_cycles(mail->page_gva, mail->value);
			break;
		case KVMCLOCK_CLEAR_STOPPED:
			mail->page_gva->flags &= ~PVCLOCK_GUEST_STOPPED;
			break;
		case KVMCLOCK_PAIRING:
			mail->value = kvm_hypercall(KVM_HC_CLOCK_PAIRING, mail->value, mail->msr,
						    0, 0);
			break;
		default:
			GUEST_FAIL("unknown request %u", mail->op);
		}
		GUEST_SYNC(mail->op);
	}
}

/* Runs @vcpu until its guest has something to say: true if not yet done. */
static inline bool kvmclock_vcpu_run(struct kvm_vcpu *vcpu)
{
	struct ucall uc;
	uint64_t said;

	vcpu_run(vcpu);
	said = get_ucall(vcpu, &uc);
	if (said == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT(said == UCALL_SYNC || said == UCALL_DONE, "exit reason %u (%s)",
		    vcpu->run->exit_reason, exit_reason_str(vcpu->run->exit_reason));
	return said == UCALL_SYNC;
}

static inline uint64_t kvmclock_call(struct kvmclock_vcpu *kv, enum kvmclock_guest_op op,
				     uint32_t msr, uint64_t value)
{
	kv->mail->op = op;
	kv->mail->msr = msr;
	kv->mail->value = value;
	TEST_ASSERT(kvmclock_vcpu_run(kv->vcpu), "guest ended early");
	return kv->mail->value;
}

/* Gives pending requests of the vCPU an entry to be served at. */
static inline void kvmclock_enter(struct kvmclock_vcpu *kv)
{
	kvmclock_call(kv, KVMCLOCK_NOP, 0, 0);
}

static inline uint64_t kvmclock_rdmsr(struct kvmclock_vcpu *kv, uint32_t msr)
{
	uint64_t value = kvmclock_call(kv, KVMCLOCK_RDMSR, msr, 0);

	TEST_ASSERT(!kv->mail->vector, "RDMSR 0x%x: exception %lu", msr, kv->mail->vector);
	return value;
}

static inline void kvmclock_enter_all(struct kvmclock_vcpu *kv, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		kvmclock_enter(&kv[i]);
}

static inline void kvmclock_wrmsr(struct kvmclock_vcpu *kv, uint32_t msr, uint64_t value)
{
	kvmclock_call(kv, KVMCLOCK_WRMSR, msr, value);
	TEST_ASSERT(!kv->mail->vector, "WRMSR 0x%x of 0x%lx: exception %lu", msr, value,
		    kv->mail->vector);
}

#define KVMCLOCK_RFLAGS_IF	BIT(9)	/* interrupts are on */

/* Adds a vCPU that runs @guest; its first argument is its mailbox. */
static inline void kvmclock_vcpu_add_running(struct kvm_vm *vm, struct kvmclock_vcpu *kv,
					     uint32_t id, void *guest)
{
	gva_t mail_gva = vm_alloc_page(vm);
	gva_t page_gva = vm_alloc_page(vm);
	struct kvm_regs regs;

	kv->mail = addr_gva2hva(vm, mail_gva);
	kv->page = addr_gva2hva(vm, page_gva);
	kv->page_gpa = addr_gva2gpa(vm, page_gva);
	kv->msr = 0;
	memset(kv->mail, 0, sizeof(*kv->mail));
	memset(kv->page, 0, sizeof(*kv->page));
	kv->mail->page_gva = (void *)page_gva;

	kv->vcpu = vm_vcpu_add(vm, id, guest);
	vcpu_args_set(kv->vcpu, 1, mail_gva);

	/*
	 * Nobody interrupts the guest.  But as long as it can't be, Bochs holds back
	 * the host's interrupts, too, and a guest that never exits stays forever.
	 */
	vcpu_regs_get(kv->vcpu, &regs);
	regs.rflags |= KVMCLOCK_RFLAGS_IF;
	vcpu_regs_set(kv->vcpu, &regs);
}

static inline void kvmclock_vcpu_add(struct kvm_vm *vm, struct kvmclock_vcpu *kv, uint32_t id)
{
	kvmclock_vcpu_add_running(vm, kv, id, kvmclock_guest);
}

static inline void kvmclock_enable(struct kvmclock_vcpu *kv, uint32_t msr)
{
	kvmclock_wrmsr(kv, msr, kv->page_gpa | KVM_MSR_ENABLED);
	kv->msr = msr;
}

/* In the stock kernel the first write of vCPU 0 is an update too: not with this MSR. */
static inline void kvmclock_enable_all(struct kvmclock_vcpu *kv, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		kvmclock_enable(&kv[i], MSR_KVM_SYSTEM_TIME_NEW);
	kvmclock_enter_all(kv, nr);
}

/*
 * With a changed MSR number on vCPU 0 the stock kernel re-derives its master clock.
 * It is the one such path that has no reason of its own to move the clock.
 */
static inline void kvmclock_force_update(struct kvmclock_vcpu *kv)
{
	kvmclock_enable(kv, kv->msr == MSR_KVM_SYSTEM_TIME ? MSR_KVM_SYSTEM_TIME_NEW :
							     MSR_KVM_SYSTEM_TIME);
}

/* One consistent copy of a page that may be written at the same time. */
static inline struct pvclock_vcpu_time_info
kvmclock_read_page(const struct pvclock_vcpu_time_info *page)
{
	struct pvclock_vcpu_time_info copy;
	uint32_t version;

	do {
		version = pvclock_read_begin(page);
		memcpy(&copy, page, sizeof(copy));
		/* The compiler may not reuse what was read before. */
		barrier();
	} while (pvclock_read_retry(page, version));

	copy.version = version;
	return copy;
}

/* Keeps the highest clock that any of several guests has read. */
static inline void kvmclock_raise(uint64_t *highest, uint64_t now)
{
	uint64_t found, last = READ_ONCE(*highest);

	while (now > last) {
		found = __sync_val_compare_and_swap(highest, last, now);
		if (found == last)
			break;
		last = found;
	}
}

/*
 * Pins a thread to one of the CPUs that the process has, counted round and
 * round: those of its first thread, which is not to be pinned itself.
 */
static inline void kvmclock_pin(pthread_t thread, unsigned int nth)
{
	cpu_set_t set, allowed;
	unsigned int cpu;

	TEST_ASSERT(!sched_getaffinity(getpid(), sizeof(allowed), &allowed),
		    "sched_getaffinity() failed");
	nth %= CPU_COUNT(&allowed);
	for (cpu = 0; !CPU_ISSET(cpu, &allowed) || nth--; cpu++)
		;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	TEST_ASSERT(!pthread_setaffinity_np(thread, sizeof(set), &set), "to CPU %u", cpu);
}

/* A thread's work: a guest that says when it is done. */
static inline void *kvmclock_run_until_done(void *kv)
{
	while (kvmclock_vcpu_run(((struct kvmclock_vcpu *)kv)->vcpu))
		;
	return NULL;
}

/* Guests that run, each in a thread, while the test calls on their vCPUs. */
struct kvmclock_runner {
	struct kvmclock_vcpu kv;
	pthread_t thread;
	bool stop;
};

static inline void *kvmclock_run_until_stopped(void *arg)
{
	struct kvmclock_runner *runner = arg;

	while (!READ_ONCE(runner->stop)) {
		kvmclock_vcpu_run(runner->kv.vcpu);
		/* A mutex is not fair: who holds it most of the time gets it. */
		sched_yield();
	}
	return NULL;
}

/* vCPUs from 0 on, with their clocks enabled, that run @guest when started. */
static inline void kvmclock_runners_add(struct kvm_vm *vm, struct kvmclock_runner *runner,
					unsigned int nr, void *guest)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		kvmclock_vcpu_add_running(vm, &runner[i].kv, i, guest);
		vcpu_set_msr(runner[i].kv.vcpu, MSR_KVM_SYSTEM_TIME_NEW,
			     runner[i].kv.page_gpa | KVM_MSR_ENABLED);
	}
}

static inline void kvmclock_runners_start(struct kvmclock_runner *runner, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		TEST_ASSERT(!pthread_create(&runner[i].thread, NULL, kvmclock_run_until_stopped,
					    &runner[i]), "pthread_create() failed");
}

static inline void kvmclock_runners_stop(struct kvmclock_runner *runner, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		WRITE_ONCE(runner[i].stop, true);
	for (i = 0; i < nr; i++)
		pthread_join(runner[i].thread, NULL);
}

static inline bool oracle_same_line(const struct pvclock_vcpu_time_info *a,
				    const struct pvclock_vcpu_time_info *b)
{
	return a->tsc_timestamp == b->tsc_timestamp && a->system_time == b->system_time &&
	       a->tsc_to_system_mul == b->tsc_to_system_mul && a->tsc_shift == b->tsc_shift;
}

/* Cycles in a signed time, at a rate in kHz. */
static inline int64_t kvmclock_cycles_in(int64_t ns, unsigned long khz)
{
	return (__int128)ns * (int64_t)khz / 1000000;
}

static inline int64_t clock_ns(clockid_t id)
{
	struct timespec ts;

	TEST_ASSERT(!clock_gettime(id, &ts), "clock_gettime(%d)", id);
	return ts.tv_sec * (int64_t)NSEC_PER_SEC + ts.tv_nsec;
}

/* The same numbers in each run: @state, which is not to be 0, is their seed. */
static inline uint64_t kvmclock_random(uint64_t *state)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state;
}

/* ns = floor(floor(cycles * 2^shift) * mul / 2^32), as a 64-bit guest has it */
static inline uint64_t oracle_scale(const struct pvclock_vcpu_time_info *page, uint64_t cycles)
{
	unsigned __int128 product;

	if (page->tsc_shift < 0)
		cycles >>= -page->tsc_shift;
	else
		cycles <<= page->tsc_shift;
	product = cycles;
	product *= page->tsc_to_system_mul;
	return product >> 32;
}

/* What Linux takes the rate of its TSC for, in kHz, for good. */
static inline uint64_t oracle_khz(const struct pvclock_vcpu_time_info *page)
{
	uint64_t khz = (1000000ULL << 32) / page->tsc_to_system_mul;

	return page->tsc_shift < 0 ? khz << -page->tsc_shift : khz >> page->tsc_shift;
}

/* ... and what that is to be: of a rate that is shifted back the last bits are gone. */
static inline void assert_khz(const struct pvclock_vcpu_time_info *page, uint64_t khz)
{
	uint64_t lost = page->tsc_shift < 0 ? BIT_ULL(-page->tsc_shift) - 1 : 0;

	TEST_ASSERT(oracle_khz(page) == (khz & ~lost),
		    "a guest of %lu kHz takes its TSC for one of %lu, mul %u shift %d", khz,
		    oracle_khz(page), page->tsc_to_system_mul, page->tsc_shift);
}

static inline uint64_t oracle_at(const struct pvclock_vcpu_time_info *page, uint64_t guest_tsc)
{
	return page->system_time + oracle_scale(page, guest_tsc - page->tsc_timestamp);
}

/*
 * How far @new is from @old: the difference of largest size over guest TSC
 * values from @from to where a guest's own arithmetic overflows.  @from is not
 * to be before either reference.
 */
static inline int64_t kvmclock_movement(const struct pvclock_vcpu_time_info *old,
					const struct pvclock_vcpu_time_info *new,
					uint64_t from)
{
	int shift = max(0, max(old->tsc_shift, new->tsc_shift));
	uint64_t elapsed = max(from - old->tsc_timestamp, from - new->tsc_timestamp);
	uint64_t left = (UINT64_MAX >> shift) - elapsed;
	int64_t diff, largest = 0;
	uint64_t step = 0;

	TEST_ASSERT(elapsed < UINT64_MAX >> (shift + 1),
		    "TSC 0x%lx is before a reference: 0x%lx, 0x%lx", from,
		    (uint64_t)old->tsc_timestamp, (uint64_t)new->tsc_timestamp);

	do {
		diff = oracle_at(new, from + step) - oracle_at(old, from + step);
		if (llabs(diff) > llabs(largest))
			largest = diff;
		step = 2 * step + 1;
	} while (step < left);

	diff = oracle_at(new, from + left) - oracle_at(old, from + left);
	return llabs(diff) > llabs(largest) ? diff : largest;
}

static inline uint64_t kvmclock_tsc_offset(struct kvmclock_vcpu *kv)
{
	uint64_t offset;

	vcpu_device_attr_get(kv->vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, &offset);
	return offset;
}

static inline void kvmclock_set_tsc_offset(struct kvmclock_vcpu *kv, uint64_t offset)
{
	vcpu_device_attr_set(kv->vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, &offset);
}

/* What KVM_GET_CLOCK_GUEST says: the line over the vCPU's TSC. */
static inline struct pvclock_vcpu_time_info kvmclock_get_line(struct kvmclock_vcpu *kv)
{
	struct pvclock_vcpu_time_info line;

	vcpu_ioctl(kv->vcpu, KVM_GET_CLOCK_GUEST, &line);
	return line;
}

/* 0, or a negative errno. */
static inline int __kvmclock_set_line(struct kvmclock_vcpu *kv,
				      const struct pvclock_vcpu_time_info *line)
{
	struct pvclock_vcpu_time_info copy = *line;

	return __vcpu_ioctl(kv->vcpu, KVM_SET_CLOCK_GUEST, &copy) ? -errno : 0;
}

static inline void kvmclock_set_line(struct kvmclock_vcpu *kv,
				     const struct pvclock_vcpu_time_info *line)
{
	int r = __kvmclock_set_line(kv, line);

	TEST_ASSERT(!r, "KVM_SET_CLOCK_GUEST: %s", strerror(-r));
}

static inline struct kvm_vcpu_tsc_value kvmclock_get_value(struct kvmclock_vcpu *kv)
{
	struct kvm_vcpu_tsc_value value;

	vcpu_device_attr_get(kv->vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_VALUE, &value);
	return value;
}

/* 0, or a negative errno. */
static inline int __kvmclock_set_value(struct kvmclock_vcpu *kv,
				       const struct kvm_vcpu_tsc_value *value)
{
	struct kvm_vcpu_tsc_value copy = *value;

	return __vcpu_device_attr_set(kv->vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_VALUE, &copy) ?
	       -errno : 0;
}

static inline void kvmclock_set_value(struct kvmclock_vcpu *kv,
				      const struct kvm_vcpu_tsc_value *value)
{
	int r = __kvmclock_set_value(kv, value);

	TEST_ASSERT(!r, "KVM_VCPU_TSC_VALUE: %s", strerror(-r));
}

/*
 * How a vCPU's TSC comes from the host's:
 *
 *	guest_tsc = ((host_tsc * ratio) >> frac_bits) + offset
 *
 * The ratio of hardware scaling is in debugfs, in the stock kernel as in ours, and only
 * where there is any.
 */
struct kvmclock_tsc {
	uint64_t ratio;
	uint64_t frac_bits;
	uint64_t offset;
};

static inline uint64_t kvmclock_debugfs(struct kvmclock_vcpu *kv, const char *name)
{
	unsigned long long value;
	char path[128];
	FILE *file;

	snprintf(path, sizeof(path), "/sys/kernel/debug/kvm/%d-%d/vcpu%u/%s", getpid(),
		 kv->vcpu->vm->fd, kv->vcpu->id, name);
	file = fopen(path, "r");
	TEST_ASSERT(file, "%s: errno %d (is debugfs mounted?)", path, errno);
	TEST_ASSERT(fscanf(file, "%llu", &value) == 1, "%s is not a number", path);
	fclose(file);
	return value;
}

static inline struct kvmclock_tsc kvmclock_get_tsc(struct kvmclock_vcpu *kv)
{
	struct kvmclock_tsc tsc = { .ratio = 1, .offset = kvmclock_tsc_offset(kv) };

	if (kvm_has_cap(KVM_CAP_TSC_CONTROL)) {
		tsc.ratio = kvmclock_debugfs(kv, "tsc-scaling-ratio");
		tsc.frac_bits = kvmclock_debugfs(kv, "tsc-scaling-ratio-frac-bits");
	}
	return tsc;
}

static inline uint64_t kvmclock_tsc_at(const struct kvmclock_tsc *tsc, uint64_t host_tsc)
{
	unsigned __int128 product = host_tsc;

	product *= tsc->ratio;
	return (uint64_t)(product >> tsc->frac_bits) + tsc->offset;
}

static inline uint64_t kvmclock_guest_tsc(struct kvmclock_vcpu *kv, uint64_t host_tsc)
{
	struct kvmclock_tsc tsc = kvmclock_get_tsc(kv);

	return kvmclock_tsc_at(&tsc, host_tsc);
}

static inline struct kvm_clock_data kvmclock_get(struct kvm_vm *vm)
{
	struct kvm_clock_data data;

	vm_ioctl(vm, KVM_GET_CLOCK, &data);
	return data;
}

static inline void kvmclock_set(struct kvm_vm *vm, uint64_t clock)
{
	struct kvm_clock_data data = { .clock = clock };

	vm_ioctl(vm, KVM_SET_CLOCK, &data);
}

/* An INIT, which the local APIC takes as soon as somebody asks for the vCPU's state. */
static inline void kvmclock_send_init(struct kvm_vcpu *vcpu)
{
	struct kvm_msi msi = {
		.address_lo = APIC_DEFAULT_GPA | vcpu->id << 12,
		.data = APIC_DM_INIT | APIC_INT_ASSERT,
	};
	struct kvm_lapic_state lapic;
	struct kvm_mp_state state;
	int r;

	/* The last vCPU is not found by its number before something happens to its APIC. */
	vcpu_ioctl(vcpu, KVM_GET_LAPIC, &lapic);
	vcpu_ioctl(vcpu, KVM_SET_LAPIC, &lapic);

	r = __vm_ioctl(vcpu->vm, KVM_SIGNAL_MSI, &msi);
	TEST_ASSERT(r == 1, "KVM_SIGNAL_MSI of an INIT: %d, errno %d", r, errno);
	vcpu_ioctl(vcpu, KVM_GET_MP_STATE, &state);
	/* The first one, which boots, does not wait for another to start it. */
	TEST_ASSERT(state.mp_state ==
		    (vcpu->id ? KVM_MP_STATE_INIT_RECEIVED : KVM_MP_STATE_RUNNABLE),
		    "state %u", state.mp_state);
}

/*
 * The tests need a TSC that counts time.  A machine without one is no place
 * for them; on one that has it, a host that runs on another clock is a failure
 * of the set-up and must not look like a pass.
 */
static inline void kvmclock_require_host(void)
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_ADJUST_CLOCK));
	TEST_REQUIRE(this_cpu_has(X86_FEATURE_INVTSC));
	TEST_ASSERT(sys_clocksource_is_based_on_tsc(),
		    "the host's clocksource is not based on its TSC");
}

#endif /* SELFTEST_KVM_KVMCLOCK_H */
