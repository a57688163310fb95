// SPDX-License-Identifier: GPL-2.0-only
/*
 * The rules by which vCPUs share a TSC, at the pace of real restores: writes of
 * MSR_IA32_TSC that take seconds in total, rates that are set again, and a rate
 * that is no longer within the host's tolerance when a vCPU comes.
 *
 * Has to be root, and changes a parameter of KVM: it is given back whatever ends
 * the test.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "kvmclock_host.h"
#include "processor.h"
#include "test_util.h"

#define NR_VCPUS	12	/* slow ones: 3.3 s from the first to the last */
#define NR_FEW		4	/* 2.1 s */

#define PAUSE_US	700000
#define SHORT_PAUSE_US	300000

/* Far from the TSC that a new VM has, as a guest's is after an hour. */
#define HOUR_S		3600

FIXTURE(kvmclock_tsc_rules) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_VCPUS];
	uint64_t second_cycles;
	int khz;
};

FIXTURE_SETUP(kvmclock_tsc_rules)
{
	unsigned int i;

	self->vm = vm_create(NR_VCPUS);
	for (i = 0; i < NR_VCPUS; i++)
		kvmclock_vcpu_add(self->vm, &self->vcpu[i], i);
	kvmclock_enable_all(self->vcpu, NR_VCPUS);

	self->khz = __vcpu_ioctl(self->vcpu[0].vcpu, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT(self->khz > 0, "no TSC rate: %d, errno %d", self->khz, errno);
	self->second_cycles = self->khz * 1000ULL;
}

FIXTURE_TEARDOWN(kvmclock_tsc_rules)
{
	kvm_vm_free(self->vm);
}

static void assert_stable(struct kvmclock_vcpu *kv, bool stable, const char *after)
{
	struct pvclock_vcpu_time_info page = kvmclock_read_page(kv->page);

	TEST_ASSERT(!!(page.flags & PVCLOCK_TSC_STABLE_BIT) == stable,
		    "vCPU %u after %s: flags 0x%x, %sstable expected", kv->vcpu->id, after,
		    page.flags, stable ? "" : "un");
}

static void assert_same_tsc(struct kvmclock_vcpu *kv, struct kvmclock_vcpu *other, const char *by)
{
	int64_t ahead = kvmclock_tsc_offset(kv) - kvmclock_tsc_offset(other);

	TEST_ASSERT(!ahead, "%s: TSC of vCPU %u is %+ld cycles from that of vCPU %u", by,
		    kv->vcpu->id, ahead, other->vcpu->id);
}

/* A write of MSR_IA32_TSC by userspace was at some host TSC from @before to @after. */
struct tsc_write {
	uint64_t value;
	uint64_t before, after;
};

static struct tsc_write write_tsc(struct kvmclock_vcpu *kv, uint64_t value)
{
	struct tsc_write w = { .value = value, .before = rdtsc() };

	vcpu_set_msr(kv->vcpu, MSR_IA32_TSC, value);
	w.after = rdtsc();
	return w;
}

/* The machine has let the test do both writes within @limit_cycles. */
static void assert_close(const struct tsc_write *last, const struct tsc_write *w,
			 uint64_t limit_cycles)
{
	TEST_ASSERT(w->after - last->before < limit_cycles,
		    "machine too slow: %lu cycles between two writes, of %lu",
		    w->after - last->before, limit_cycles);
}

static void assert_taken(struct kvmclock_vcpu *kv, const struct tsc_write *w, const char *what)
{
	uint64_t at = w->value - kvmclock_tsc_offset(kv);

	TEST_ASSERT(at - w->before <= w->after - w->before,
		    "%s: 0x%lx is the TSC of vCPU %u at host TSC %lu, not from %lu to %lu", what,
		    w->value, kv->vcpu->id, at, w->before, w->after);
}

static void assert_all_equal(FIXTURE_DATA(kvmclock_tsc_rules) * self, unsigned int nr,
			     const char *what)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct kvm_clock_data data;
	uint64_t guest;
	unsigned int i;

	for (i = 1; i < nr; i++)
		assert_same_tsc(&kv[i], &kv[0], what);

	kvmclock_enter_all(kv, NR_VCPUS);
	for (i = 0; i < nr; i++) {
		assert_stable(&kv[i], nr == NR_VCPUS, what);
		data = kvmclock_get(self->vm);
		TEST_ASSERT(data.flags == KVMCLOCK_GET_FLAGS, "%s: flags 0x%x", what, data.flags);
		guest = oracle_at(kv[i].page, data.host_tsc + kvmclock_tsc_offset(&kv[i]));
		TEST_ASSERT(data.clock == guest, "%s: KVM_GET_CLOCK is %+ld ns from vCPU %u", what,
			    (int64_t)(data.clock - guest), i);
	}
}

/*
 * vCPUs are restored one after the other, @pause_us apart.  Each one's value is
 * the first one's, plus @num / @den of the time that has passed since: what a VMM
 * saves and what it makes of it.  From each write to the next they are less than
 * a second apart, so all of it is one TSC, the first one's.
 */
static void restore_tscs(FIXTURE_DATA(kvmclock_tsc_rules) * self, unsigned int nr,
			 unsigned int pause_us, uint64_t num, uint64_t den, const char *what)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct tsc_write first, last, w;
	unsigned int i;

	first = write_tsc(&kv[0], HOUR_S * self->second_cycles);
	assert_taken(&kv[0], &first, what);

	for (last = first, i = 1; i < nr; i++, last = w) {
		usleep(pause_us);
		w = write_tsc(&kv[i], first.value + (rdtsc() - first.before) * num / den);
		assert_close(&last, &w, self->second_cycles);
	}
	assert_taken(&kv[0], &first, what);
	assert_all_equal(self, nr, what);
}

TEST_F(kvmclock_tsc_rules, one_value)
{
	restore_tscs(self, NR_FEW, PAUSE_US, 0, 1, "one value");
}

TEST_F(kvmclock_tsc_rules, values_that_went_on)
{
	restore_tscs(self, NR_FEW, PAUSE_US, 1, 1, "values that went on");
}

TEST_F(kvmclock_tsc_rules, values_half_as_fast)
{
	restore_tscs(self, NR_FEW, PAUSE_US, 1, 2, "values half as fast");
}

TEST_F(kvmclock_tsc_rules, values_too_fast)
{
	restore_tscs(self, NR_FEW, PAUSE_US, 7, 4, "values too fast");
}

TEST_F(kvmclock_tsc_rules, many_slow_vcpus)
{
	restore_tscs(self, NR_VCPUS, SHORT_PAUSE_US, 0, 1, "many slow vCPUs");
}

/*
 * More than a second from where the last write says it should be is another TSC,
 * near to the others' as it may be; the next ones are compared with that write.
 */
TEST_F(kvmclock_tsc_rules, window_is_of_the_last_write)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	uint64_t second = self->second_cycles;
	struct tsc_write last, w;

	last = write_tsc(&kv[0], HOUR_S * second);
	usleep(PAUSE_US);
	w = write_tsc(&kv[1], last.value);
	assert_close(&last, &w, second);
	assert_same_tsc(&kv[1], &kv[0], "0.7 s later");
	last = w;

	/* 1.3 s from that write, and 0.6 s from the TSC that the two have. */
	w = write_tsc(&kv[2], last.value + second / 10 * 13);
	assert_close(&last, &w, second / 10 * 3);
	assert_taken(&kv[2], &w, "1.3 s from the last write");
	last = w;

	usleep(PAUSE_US);
	w = write_tsc(&kv[3], last.value);
	assert_close(&last, &w, second);
	assert_same_tsc(&kv[3], &kv[2], "0.7 s after the new one");
	last = w;

	/* 0.5 s from that write, and 1.2 s from the TSC that the two have. */
	w = write_tsc(&kv[4], last.value - second / 2);
	assert_close(&last, &w, second / 2);
	assert_same_tsc(&kv[4], &kv[2], "0.5 s from the last write");
	last = w;

	/* As far to the other side. */
	w = write_tsc(&kv[5], last.value - second);
	assert_taken(&kv[5], &w, "a second behind the last write");
	last = w;

	usleep(PAUSE_US);
	w = write_tsc(&kv[6], last.value);
	assert_close(&last, &w, second);
	assert_same_tsc(&kv[6], &kv[5], "0.7 s after the second new one");

	assert_same_tsc(&kv[1], &kv[0], "others' writes");
	assert_same_tsc(&kv[4], &kv[2], "others' writes");
}

/* 0 is no value of a TSC: it says "as the others", and nothing of where they are. */
TEST_F(kvmclock_tsc_rules, zero_does_not_move_the_window)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	uint64_t second = self->second_cycles;
	struct tsc_write last, w;

	last = write_tsc(&kv[0], HOUR_S * second);
	usleep(PAUSE_US);
	w = write_tsc(&kv[1], last.value);
	assert_close(&last, &w, second);
	last = w;

	write_tsc(&kv[2], 0);
	assert_same_tsc(&kv[2], &kv[0], "0");
	usleep(PAUSE_US);
	write_tsc(&kv[3], 0);
	assert_same_tsc(&kv[3], &kv[0], "another 0");

	w = write_tsc(&kv[4], last.value);
	assert_close(&last, &w, second);
	assert_same_tsc(&kv[4], &kv[0], "0.7 s after a write, with 0 in between");

	write_tsc(&kv[5], 0);
	w = write_tsc(&kv[6], second / 2);
	assert_taken(&kv[6], &w, "half a second, after a 0");
	assert_same_tsc(&kv[5], &kv[0], "the last 0");

	/* And the TSC to join is that one now. */
	write_tsc(&kv[7], 0);
	assert_same_tsc(&kv[7], &kv[6], "0 after a new TSC");
}

/* The rate that there is: no reason to move a TSC or to write a page. */
TEST_F(kvmclock_tsc_rules, same_rate_again)
{
	struct pvclock_vcpu_time_info line, before[NR_FEW], after;
	unsigned long rates[] = { self->khz, 0 };
	struct kvmclock_vcpu *kv = self->vcpu;
	uint64_t offset[NR_FEW];
	unsigned int i, r;
	int khz;

	/* One of them has a TSC of its own. */
	kvmclock_wrmsr(&kv[1], MSR_IA32_TSC, 12345);
	kvmclock_enter_all(kv, NR_FEW);
	line = kvmclock_get_line(&kv[0]);
	for (i = 0; i < NR_FEW; i++) {
		before[i] = kvmclock_read_page(kv[i].page);
		offset[i] = kvmclock_tsc_offset(&kv[i]);
	}

	for (r = 0; r < ARRAY_SIZE(rates); r++) {
		for (i = 0; i < NR_FEW; i++)
			vcpu_ioctl(kv[i].vcpu, KVM_SET_TSC_KHZ, (void *)rates[r]);
		kvmclock_enter_all(kv, NR_FEW);

		after = kvmclock_get_line(&kv[0]);
		TEST_ASSERT(oracle_same_line(&line, &after), "%lu kHz: another line", rates[r]);
		for (i = 0; i < NR_FEW; i++) {
			after = kvmclock_read_page(kv[i].page);
			TEST_ASSERT(!memcmp(&after, &before[i], sizeof(after)),
				    "%lu kHz: page of vCPU %u was written", rates[r], i);
			TEST_ASSERT(kvmclock_tsc_offset(&kv[i]) == offset[i],
				    "%lu kHz: TSC of vCPU %u moved by %+ld", rates[r], i,
				    (int64_t)(kvmclock_tsc_offset(&kv[i]) - offset[i]));
			khz = __vcpu_ioctl(kv[i].vcpu, KVM_GET_TSC_KHZ, NULL);
			TEST_ASSERT(khz == self->khz, "%lu kHz: vCPU %u has %d", rates[r], i, khz);
		}
	}
}

/*
 * A VM keeps the rate that it was given while the host would take it, and so do
 * vCPUs that come when it no longer does.  With scaling hardware the tolerance
 * is none of their business.
 */
TEST_F(kvmclock_tsc_rules, tolerance_lowered)
{
	unsigned long khz = self->khz - self->khz / 5000;
	struct kvm_vm *vm = vm_create(NR_FEW);
	struct kvmclock_vcpu kv[NR_FEW];
	struct kvm_clock_data data;
	unsigned int i;
	int r;

	write_file_ok(TSC_TOLERANCE, "250");
	vm_ioctl(vm, KVM_SET_TSC_KHZ, (void *)khz);
	for (i = 0; i < NR_FEW; i++) {
		if (i == NR_FEW / 2)
			write_file_ok(TSC_TOLERANCE, "0");

		kvmclock_vcpu_add(vm, &kv[i], i);
		r = __vcpu_ioctl(kv[i].vcpu, KVM_GET_TSC_KHZ, NULL);
		TEST_ASSERT(r == (int)khz, "vCPU %u of a VM at %lu kHz has %d", i, khz, r);
		assert_same_tsc(&kv[i], &kv[0], "a vCPU that came");

		kvmclock_enable(&kv[i], MSR_KVM_SYSTEM_TIME_NEW);
		kvmclock_enter_all(kv, i + 1);
		assert_stable(&kv[0], true, "a vCPU that came");
		assert_stable(&kv[i], true, "its first run");
		data = kvmclock_get(vm);
		TEST_ASSERT(data.flags == KVMCLOCK_GET_FLAGS, "vCPU %u: flags 0x%x", i, data.flags);
	}
	kvm_vm_free(vm);
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	return run_guarded(argc, argv);
}
