// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the clock's operations cost in cycles of the host's TSC, from userspace
 * and back.  Meant for an emulated machine with one CPU on which a cycle is one
 * instruction: there the least of some repetitions, in which no interrupt came,
 * is an exact number.  Elsewhere it is only a number.
 *
 * Not a test: it prints "count: NUMBER WHAT" and asserts nothing about it.
 */
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "kvm_util.h"
#include "kvmclock.h"
#include "processor.h"
#include "test_util.h"

#define MAX_VCPUS	32
#define NR_REPEATS	30
#define NR_VMS		3
#define NR_EXITS	10

static const unsigned int sizes[] = { 1, 2, 8, 32 };

static struct kvmclock_vcpu kv[MAX_VCPUS];
static struct kvm_vm *vm;
static unsigned int nr;

/* As kvmclock_guest(); @value is what a WRMSR of it took, or how often to exit. */
static void guest(struct kvmclock_mail *mail)
{
	uint32_t eax, ebx, ecx, edx;
	uint64_t begin;

	for (;;) {
		if (mail->op == KVMCLOCK_WRMSR) {
			begin = rdtsc();
			wrmsr(mail->msr, mail->value);
			mail->value = rdtsc() - begin;
		}
		for (; mail->op == KVMCLOCK_CPUID && mail->value; mail->value--)
			cpuid(0, &eax, &ebx, &ecx, &edx);
		GUEST_SYNC(mail->op);
	}
}

static void add_vcpu(unsigned int id)
{
	kvmclock_vcpu_add_running(vm, &kv[id], id, guest);
}

static void enable(struct kvmclock_vcpu *v, uint32_t msr)
{
	v->msr = msr;
	kvmclock_call(v, KVMCLOCK_WRMSR, msr, v->page_gpa | KVM_MSR_ENABLED);
}

static void make_vm(unsigned int nr_vcpus)
{
	vm = vm_create(MAX_VCPUS);
	for (nr = 0; nr < nr_vcpus; nr++) {
		add_vcpu(nr);
		enable(&kv[nr], MSR_KVM_SYSTEM_TIME_NEW);
	}
}

static void enter_first(void)
{
	kvmclock_enter(&kv[0]);
}

static void enter_all(void)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		kvmclock_enter(&kv[i]);
}

static uint64_t least_of(void (*what)(void))
{
	uint64_t begin, cycles, least = UINT64_MAX;
	unsigned int i;

	for (i = 0; i < NR_REPEATS; i++) {
		begin = rdtsc();
		what();
		cycles = rdtsc() - begin;
		least = min(least, cycles);
	}
	return least;
}

static void nothing(void)
{
	barrier();
}

static void get_clock(void)
{
	kvmclock_get(vm);
}

static void update(void)
{
	vcpu_ioctl(kv[0].vcpu, KVM_KVMCLOCK_CTRL, NULL);
	kvmclock_enter(&kv[0]);
}

static void set_clock(void)
{
	kvmclock_set(vm, 1);
	enter_all();
}

static void other_msr(void)
{
	enable(&kv[0], kv[0].msr == MSR_KVM_SYSTEM_TIME ? MSR_KVM_SYSTEM_TIME_NEW :
							  MSR_KVM_SYSTEM_TIME);
	enter_all();
}

static uint64_t guest_writes(uint32_t msr, uint64_t value)
{
	uint64_t least = UINT64_MAX;
	unsigned int i;

	for (i = 0; i < NR_REPEATS; i++) {
		kvmclock_call(&kv[0], KVMCLOCK_WRMSR, msr, value);
		least = min(least, kv[0].mail->value);
	}
	return least;
}

static void exit_often(void)
{
	kvmclock_call(&kv[0], KVMCLOCK_CPUID, 0, NR_EXITS);
}

/* An exit that KVM serves by itself, and has nothing to do with the clock. */
static uint64_t exit_and_entry(void)
{
	return (least_of(exit_often) - least_of(enter_first)) / NR_EXITS;
}

static bool scale_tsc(void)
{
	uint64_t khz = __vcpu_ioctl(kv[0].vcpu, KVM_GET_TSC_KHZ, NULL);

	return kvm_has_cap(KVM_CAP_TSC_CONTROL) &&
	       !__vcpu_ioctl(kv[0].vcpu, KVM_SET_TSC_KHZ, (void *)(khz / 2));
}

/* As old userspace restores a VM's time, to where it is. */
static uint64_t restored_tsc;

static void write_tsc(unsigned int i)
{
	vcpu_set_msr(kv[i].vcpu, MSR_IA32_TSC, restored_tsc);
}

static void write_last_tsc(void)
{
	write_tsc(nr - 1);
}

static void restore(void)
{
	unsigned int i;

	kvmclock_set(vm, 1);
	for (i = 0; i < nr; i++) {
		write_tsc(i);
		vcpu_set_msr(kv[i].vcpu, MSR_KVM_SYSTEM_TIME_NEW,
			     kv[i].page_gpa | KVM_MSR_ENABLED);
	}
	enter_all();
}

/*
 * The last of @nr_vcpus starts: its first run, in which it enables its clock, and
 * what that is to the others when they run next.
 */
static uint64_t start(unsigned int nr_vcpus)
{
	uint64_t begin, cycles, least = UINT64_MAX;
	unsigned int i;

	for (i = 0; i < NR_VMS; i++) {
		make_vm(nr_vcpus - 1);
		enter_all();
		add_vcpu(nr);
		begin = rdtsc();
		enable(&kv[nr], MSR_KVM_SYSTEM_TIME_NEW);
		enter_all();
		cycles = rdtsc() - begin;
		nr++;
		least = min(least, cycles - least_of(enter_all));
		kvm_vm_free(vm);
	}
	return least;
}

static void report(uint64_t cycles, const char *what, unsigned int nr_vcpus)
{
	if (nr_vcpus)
		printf("count: %lu %s, %u vCPU%s\n", cycles, what, nr_vcpus,
		       nr_vcpus > 1 ? "s" : "");
	else
		printf("count: %lu %s\n", cycles, what);
	fflush(stdout);
}

int main(int argc, char *argv[])
{
	uint64_t none, entry, entries;
	unsigned int i;

	kvmclock_require_host();
	none = least_of(nothing);

	make_vm(1);
	entries = least_of(enter_all);
	report(least_of(get_clock) - none, "KVM_GET_CLOCK", 0);
	report(least_of(update) - entries, "KVM_KVMCLOCK_CTRL and the page update", 0);
	report(guest_writes(MSR_KVM_SYSTEM_TIME_NEW, kv[0].page_gpa | KVM_MSR_ENABLED) - none,
	       "guest's write of its system-time MSR", 0);
	report(guest_writes(MSR_KVM_WALL_CLOCK_NEW, kv[0].page_gpa + PAGE_SIZE / 2) - none,
	       "guest's write of the wall-clock MSR", 0);
	report(exit_and_entry(), "an exit and an entry", 0);
	if (scale_tsc())
		report(exit_and_entry(), "an exit and an entry, TSC scaled", 0);
	kvm_vm_free(vm);

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		make_vm(sizes[i]);
		entries = least_of(enter_all);
		entry = least_of(enter_first);
		report(least_of(set_clock) - entries, "KVM_SET_CLOCK and all updates", nr);
		report(least_of(other_msr) - entries - entry,
		       "system-time MSR by its other number", nr);
		kvm_vm_free(vm);
	}
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		make_vm(sizes[i]);
		enter_all();
		restored_tsc = vcpu_get_msr(kv[0].vcpu, MSR_IA32_TSC);
		write_last_tsc();
		enter_all();
		entries = least_of(enter_all);
		report(least_of(write_last_tsc) - none, "userspace's write of a TSC", nr);
		report(least_of(restore) - entries, "restore of clock, TSCs and pages", nr);
		kvm_vm_free(vm);
	}
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		report(start(sizes[i]), "start of the last vCPU", sizes[i]);
	return 0;
}
