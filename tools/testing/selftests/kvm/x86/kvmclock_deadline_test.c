// SPDX-License-Identifier: GPL-2.0-only
/*
 * A deadline that a guest has set by its TSC, and a TSC that is moved under it:
 * the timer fires when the TSC is there, by whichever way it came, and not when
 * the host's time for it comes.
 */
#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/time.h>

#include "apic.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "processor.h"
#include "test_util.h"

#define TIMER_VECTOR	0x60

/*
 * A timer that is due is there in a moment: this is to end the test if not.  A
 * deadline that is only reached by a move is later than that, but so near that
 * a VMX preemption timer can count to it.
 */
#define LIMIT_MS	5000
#define AHEAD_MS	30000

/* The moves.  With longer ones KVM's 64 bits of nanoseconds overflow. */
#define MOVE_MS		1800000

/* Far from 0, whatever is taken off. */
#define FIRST_TSC_MS	(1000LL * MOVE_MS)

/* The first deadline that a move back has to beat; doubled if it was too slow. */
#define SOON_MS		10

/* How often a guest that waits is looked at. */
#define LOOK_US		10000

/* Many times the host's rate, so that AHEAD_MS are over within LIMIT_MS. */
#define FASTER		100

enum way {
	STAY,
	HOST_MSR,
	HOST_OFFSET,
	HOST_VALUE,
	GUEST_MSR,
	GUEST_ADJUST,
};

enum op {
	ARM,	/* a deadline, in so many cycles */
	WAIT,	/* move by so many cycles, and wait for the timer */
};

static struct guest_mail {
	uint32_t op;
	uint32_t way;
	uint64_t cycles;
	bool halt;
	uint64_t deadline_tsc;
	uint64_t moved_tsc;
	uint64_t fired_tsc;
	uint32_t nr_fired;
} guest_mail;

static void guest_timer(struct ex_regs *regs)
{
	struct guest_mail *mail = &guest_mail;

	mail->fired_tsc = rdtsc();
	WRITE_ONCE(mail->nr_fired, mail->nr_fired + 1);
	x2apic_write_reg(APIC_EOI, 0);
}

static void guest_arm(struct guest_mail *mail)
{
	/* What is pending comes behind this write. */
	wrmsr(MSR_IA32_TSC_DEADLINE, 0);
	WRITE_ONCE(mail->nr_fired, 0);
	mail->deadline_tsc = rdtsc() + mail->cycles;
	wrmsr(MSR_IA32_TSC_DEADLINE, mail->deadline_tsc);
}

static void guest_move(struct guest_mail *mail)
{
	if (mail->way == GUEST_MSR)
		wrmsr(MSR_IA32_TSC, rdtsc() + mail->cycles);
	else if (mail->way == GUEST_ADJUST)
		wrmsr(MSR_IA32_TSC_ADJUST, rdmsr(MSR_IA32_TSC_ADJUST) + mail->cycles);
	mail->moved_tsc = rdtsc();
}

static void guest_wait(struct guest_mail *mail)
{
	if (!mail->halt) {
		while (!READ_ONCE(mail->nr_fired))
			cpu_relax();
		return;
	}

	/* The timer must not come between the look and the HLT. */
	asm volatile("cli" : : : "memory");
	while (!READ_ONCE(mail->nr_fired))
		asm volatile("sti; hlt; cli" : : : "memory");
	asm volatile("sti" : : : "memory");
}

static void guest_code(void *unused)
{
	struct guest_mail *mail = &guest_mail;

	x2apic_enable();
	x2apic_write_reg(APIC_LVTT, APIC_LVT_TIMER_TSCDEADLINE | TIMER_VECTOR);

	for (;;) {
		switch (READ_ONCE(mail->op)) {
		case ARM:
			guest_arm(mail);
			break;
		case WAIT:
			guest_move(mail);
			guest_wait(mail);
			break;
		default:
			GUEST_FAIL("unknown request %u", mail->op);
		}
		GUEST_SYNC(mail->op);
	}
}

struct timer_vm {
	struct kvm_vm *vm;
	struct kvmclock_vcpu kv;
	struct guest_mail *mail;
	unsigned long khz;
	enum way way;
};

static void look(int sig)
{
}

static void create(struct timer_vm *t, enum way way, bool halt)
{
	struct sigaction action = { .sa_handler = look };
	int r;

	t->vm = vm_create(1);
	kvmclock_vcpu_add_running(t->vm, &t->kv, 0, guest_code);
	vcpu_set_cpuid_feature(t->kv.vcpu, X86_FEATURE_TSC_DEADLINE_TIMER);
	vm_install_exception_handler(t->vm, TIMER_VECTOR, guest_timer);
	t->mail = addr_gva2hva(t->vm, (gva_t)&guest_mail);
	t->mail->way = way;
	t->mail->halt = halt;
	t->way = way;

	r = __vcpu_ioctl(t->kv.vcpu, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT(r > 0, "no TSC rate: %d, errno %d", r, errno);
	t->khz = r;
	kvmclock_set_tsc_offset(&t->kv, kvmclock_cycles_in(FIRST_TSC_MS * 1000000, r) - rdtsc());

	TEST_ASSERT(!sigaction(SIGALRM, &action, NULL), "sigaction(): errno %d", errno);
}

static uint64_t cycles_in(struct timer_vm *t, int64_t ms)
{
	return kvmclock_cycles_in(ms * 1000000, t->khz);
}

static void arm(struct timer_vm *t, uint64_t cycles)
{
	t->mail->op = ARM;
	t->mail->cycles = cycles;
	TEST_ASSERT(kvmclock_vcpu_run(t->kv.vcpu), "guest ended early");
}

/*
 * The TSC moves by so many cycles, at once if the host does it, else when the
 * guest runs: it waits from then on.
 */
static void move(struct timer_vm *t, enum way way, uint64_t cycles)
{
	struct kvm_vcpu_tsc_value value;

	t->mail->op = WAIT;
	t->mail->way = way;
	t->mail->cycles = cycles;
	t->mail->moved_tsc = 0;

	switch (way) {
	case HOST_MSR:
		vcpu_set_msr(t->kv.vcpu, MSR_IA32_TSC,
			     rdtsc() + kvmclock_tsc_offset(&t->kv) + cycles);
		break;
	case HOST_OFFSET:
		kvmclock_set_tsc_offset(&t->kv, kvmclock_tsc_offset(&t->kv) + cycles);
		break;
	case HOST_VALUE:
		value = kvmclock_get_value(&t->kv);
		value.tsc_val += cycles;
		kvmclock_set_value(&t->kv, &value);
		break;
	default:
		return;
	}
	t->mail->moved_tsc = rdtsc() + kvmclock_tsc_offset(&t->kv);
}

/* Runs the guest, which waits, for a while: true if it has had its timer. */
static bool run_for_a_while(struct timer_vm *t)
{
	/* Again and again: the first one may come before the vCPU runs. */
	struct itimerval every = {
		.it_interval.tv_usec = LOOK_US,
		.it_value.tv_usec = LOOK_US,
	}, never = {};
	struct kvm_vcpu *vcpu = t->kv.vcpu;
	struct ucall uc;
	int r, err;

	setitimer(ITIMER_REAL, &every, NULL);
	r = __vcpu_run(vcpu);
	err = errno;
	setitimer(ITIMER_REAL, &never, NULL);
	if (r && err == EINTR)
		return false;

	TEST_ASSERT(!r, "KVM_RUN: errno %d", err);
	r = get_ucall(vcpu, &uc);
	if (r == UCALL_ABORT)
		REPORT_GUEST_ASSERT(uc);
	TEST_ASSERT(r == UCALL_SYNC, "exit reason %u (%s)", vcpu->run->exit_reason,
		    exit_reason_str(vcpu->run->exit_reason));
	return true;
}

/* Runs the guest until it has its timer, or the host's TSC is past @host_tsc. */
static bool fires_by(struct timer_vm *t, uint64_t host_tsc)
{
	do {
		if (run_for_a_while(t))
			return true;
	} while ((int64_t)(rdtsc() - host_tsc) < 0);

	return false;
}

static void assert_fires(struct timer_vm *t, const char *after)
{
	struct guest_mail *mail = t->mail;
	uint64_t left, tsc;
	bool fired;

	fired = fires_by(t, rdtsc() + cycles_in(t, LIMIT_MS));
	tsc = vcpu_get_msr(t->kv.vcpu, MSR_IA32_TSC);
	TEST_ASSERT(fired, "after %s: no timer within %u s, deadline %lu, TSC %lu", after,
		    LIMIT_MS / 1000, mail->deadline_tsc, tsc);
	TEST_ASSERT(mail->nr_fired == 1, "after %s: %u interrupts", after, mail->nr_fired);
	left = vcpu_get_msr(t->kv.vcpu, MSR_IA32_TSC_DEADLINE);
	TEST_ASSERT(!left, "after %s: deadline %lu is still armed", after, left);
}

static void assert_not_early(struct timer_vm *t, const char *after)
{
	struct guest_mail *mail = t->mail;

	TEST_ASSERT(mail->fired_tsc >= mail->deadline_tsc,
		    "after %s: timer at TSC %lu, %lu cycles before its deadline", after,
		    mail->fired_tsc, mail->deadline_tsc - mail->fired_tsc);
}

FIXTURE(kvmclock_deadline) {
	struct timer_vm t;
};

FIXTURE_VARIANT(kvmclock_deadline) {
	enum way way;
	bool halt;
};

FIXTURE_VARIANT_ADD(kvmclock_deadline, host_msr) { .way = HOST_MSR };
FIXTURE_VARIANT_ADD(kvmclock_deadline, host_msr_halted) { .way = HOST_MSR, .halt = true };
FIXTURE_VARIANT_ADD(kvmclock_deadline, host_offset) { .way = HOST_OFFSET };
FIXTURE_VARIANT_ADD(kvmclock_deadline, host_offset_halted) { .way = HOST_OFFSET, .halt = true };
FIXTURE_VARIANT_ADD(kvmclock_deadline, host_value) { .way = HOST_VALUE };
FIXTURE_VARIANT_ADD(kvmclock_deadline, host_value_halted) { .way = HOST_VALUE, .halt = true };
FIXTURE_VARIANT_ADD(kvmclock_deadline, guest_msr) { .way = GUEST_MSR };
FIXTURE_VARIANT_ADD(kvmclock_deadline, guest_msr_halted) { .way = GUEST_MSR, .halt = true };
FIXTURE_VARIANT_ADD(kvmclock_deadline, guest_adjust) { .way = GUEST_ADJUST };
FIXTURE_VARIANT_ADD(kvmclock_deadline, guest_adjust_halted) { .way = GUEST_ADJUST, .halt = true };

FIXTURE_SETUP(kvmclock_deadline)
{
	create(&self->t, variant->way, variant->halt);
}

FIXTURE_TEARDOWN(kvmclock_deadline)
{
	kvm_vm_free(self->t.vm);
}

TEST_F(kvmclock_deadline, forward)
{
	struct timer_vm *t = &self->t;

	arm(t, cycles_in(t, AHEAD_MS));
	move(t, t->way, cycles_in(t, MOVE_MS));
	assert_fires(t, "a move forward");
	assert_not_early(t, "a move forward");
}

/* The same, of a vCPU that is in HLT already, or in a loop, when its TSC moves. */
TEST_F(kvmclock_deadline, forward_waiting)
{
	struct timer_vm *t = &self->t;

	arm(t, cycles_in(t, AHEAD_MS));
	move(t, STAY, 0);
	TEST_ASSERT(!run_for_a_while(t), "the timer came %lu cycles early",
		    t->mail->deadline_tsc - t->mail->fired_tsc);

	/* Of what a guest does that waits there is no more than its waiting. */
	move(t, t->way < GUEST_MSR ? t->way : HOST_OFFSET, cycles_in(t, MOVE_MS));
	assert_fires(t, "a move forward of one that waits");
	assert_not_early(t, "a move forward of one that waits");
}

/*
 * The host's time for the deadline goes by, and nothing happens until the TSC
 * is there.  A move that comes too late to say so is tried again.
 */
TEST_F(kvmclock_deadline, back)
{
	uint64_t back, soon, deadline_tsc;
	struct timer_vm *t = &self->t;
	struct guest_mail *mail = t->mail;
	unsigned int ms;

	back = -cycles_in(t, MOVE_MS);
	for (ms = SOON_MS; ms <= LIMIT_MS; ms *= 2) {
		soon = cycles_in(t, ms);
		arm(t, soon);
		move(t, t->way, back);
		if (!fires_by(t, rdtsc() + 3 * soon))
			break;

		/* In time is by half: a timer may be pending a bit before it is due. */
		if (mail->moved_tsc - back < mail->deadline_tsc - soon / 2)
			assert_not_early(t, "a move back");
	}
	TEST_ASSERT(ms <= LIMIT_MS, "no move was in time for a deadline in %u ms", ms / 2);
	TEST_ASSERT(mail->moved_tsc, "the TSC was never moved");
	deadline_tsc = vcpu_get_msr(t->kv.vcpu, MSR_IA32_TSC_DEADLINE);
	TEST_ASSERT(deadline_tsc == mail->deadline_tsc, "deadline %lu became %lu",
		    mail->deadline_tsc, deadline_tsc);

	move(t, HOST_OFFSET, cycles_in(t, 2 * MOVE_MS));
	assert_fires(t, "a move back and forward");
	assert_not_early(t, "a move back and forward");
}

FIXTURE(kvmclock_deadline_kept) {
	struct timer_vm t;
};

FIXTURE_VARIANT(kvmclock_deadline_kept) {
	bool halt;
};

FIXTURE_VARIANT_ADD(kvmclock_deadline_kept, running) { .halt = false };
FIXTURE_VARIANT_ADD(kvmclock_deadline_kept, halted) { .halt = true };

FIXTURE_SETUP(kvmclock_deadline_kept)
{
	create(&self->t, STAY, variant->halt);
}

FIXTURE_TEARDOWN(kvmclock_deadline_kept)
{
	kvm_vm_free(self->t.vm);
}

/* Nothing moves, or it moves by nothing: the deadline is as it was. */
TEST_F(kvmclock_deadline_kept, unmoved)
{
	static const enum way ways[] = { STAY, HOST_OFFSET, HOST_VALUE };
	struct timer_vm *t = &self->t;
	uint64_t deadline_tsc;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		arm(t, cycles_in(t, SOON_MS));
		move(t, ways[i], 0);
		assert_fires(t, "no move, and a deadline soon");

		arm(t, cycles_in(t, AHEAD_MS));
		move(t, ways[i], 0);
		TEST_ASSERT(!run_for_a_while(t), "no move, and the timer %lu cycles early",
			    t->mail->deadline_tsc - t->mail->fired_tsc);
		deadline_tsc = vcpu_get_msr(t->kv.vcpu, MSR_IA32_TSC_DEADLINE);
		TEST_ASSERT(deadline_tsc == t->mail->deadline_tsc, "deadline %lu became %lu",
			    t->mail->deadline_tsc, deadline_tsc);

		move(t, HOST_OFFSET, cycles_in(t, MOVE_MS));
		assert_fires(t, "no move, then one forward");
		assert_not_early(t, "no move, then one forward");
	}
}

/* No deadline is armed, none comes of a move. */
TEST_F(kvmclock_deadline_kept, disarmed)
{
	struct timer_vm *t = &self->t;

	arm(t, cycles_in(t, AHEAD_MS));
	vcpu_set_msr(t->kv.vcpu, MSR_IA32_TSC_DEADLINE, 0);
	move(t, HOST_OFFSET, cycles_in(t, MOVE_MS));
	TEST_ASSERT(!run_for_a_while(t), "a timer without a deadline");
	move(t, HOST_OFFSET, cycles_in(t, -MOVE_MS));
	TEST_ASSERT(!run_for_a_while(t), "a timer without a deadline");
}

/* A faster TSC is at its deadline earlier. */
TEST_F(kvmclock_deadline_kept, faster)
{
	struct timer_vm *t = &self->t;
	int r;

	arm(t, cycles_in(t, AHEAD_MS));
	move(t, STAY, 0);
	r = __vcpu_ioctl(t->kv.vcpu, KVM_SET_TSC_KHZ, (void *)(t->khz * FASTER));
	TEST_ASSERT(!r, "%lu kHz: errno %d", t->khz * FASTER, errno);
	assert_fires(t, "a faster rate");
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_TSC_DEADLINE_TIMER));
	return test_harness_run(argc, argv);
}
