// SPDX-License-Identifier: GPL-2.0-only
/*
 * What the clock's operations cost each vCPU, as the VM grows: nanoseconds by
 * CLOCK_MONOTONIC from userspace and back, the least of some passes over all vCPUs.
 * With --irqs-off, instead, the longest time without interrupts in a pass, of which
 * again the least, as the kernel's irqsoff tracer sees it.
 * One operation is compared with itself, in one run; the numbers are those of the
 * machine that they come from.
 *
 * Not a test: it prints "scale: VCPUS NANOSECONDS WHAT", or with VCPUS 0 bytes, and
 * asserts nothing about it.  What a kernel does not have is not printed.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "kvm_util.h"
#include "kvmclock.h"
#include "processor.h"
#include "test_util.h"

#define MAX_VCPUS	1024
#define NR_PASSES	7

/* So many vCPUs are looked at, whatever their number, for what is done once. */
#define NR_LAST		16

#define NR_READINGS	1000

#define DATA_SLOT	1
#define DATA_GPA	BIT_ULL(32)

#define HOUR_NS		(3600 * NSEC_PER_SEC)

static const unsigned int sizes[] = { 16, 64, 128, 256, 512, MAX_VCPUS };

static struct kvmclock_vcpu kv[MAX_VCPUS];
static struct kvm_vm *vm;
static unsigned int nr, pass;

/* What the VM had when it was saved. */
static struct {
	struct kvm_clock_data clock;
	uint64_t tsc, offset;
	struct kvm_vcpu_tsc_value value;
} saved;

#define TRACING "/sys/kernel/debug/tracing/"

static bool irqs_off;

static void trace(const char *file, const char *value)
{
	FILE *f = fopen(file, "w");

	TEST_ASSERT(f && fputs(value, f) >= 0 && !fclose(f), "%s: %m", file);
}

static uint64_t begin_pass(void)
{
	if (irqs_off)
		trace(TRACING "tracing_max_latency", "0");
	return clock_ns(CLOCK_MONOTONIC);
}

/* Of @nr_calls, one of them. */
static uint64_t end_pass(uint64_t begin, unsigned int nr_calls)
{
	uint64_t ns = (clock_ns(CLOCK_MONOTONIC) - begin) / nr_calls, us;
	FILE *file;

	if (!irqs_off)
		return ns;
	file = fopen(TRACING "tracing_max_latency", "r");
	TEST_ASSERT(file && fscanf(file, "%lu", &us) == 1, "tracing_max_latency");
	fclose(file);
	return us * 1000;
}

static void report(uint64_t ns, const char *what)
{
	printf("scale: %u %lu %s\n", nr, ns, what);
	fflush(stdout);
}

/* Exits by a port: of what GUEST_SYNC() takes there is not enough for all. */
static void guest(struct kvmclock_mail *mail)
{
	for (;;) {
		if (mail->op == KVMCLOCK_WRMSR)
			wrmsr(mail->msr, mail->value);
		asm volatile("outb %%al, $0xf0" : : "a" (0) : "memory");
	}
}

static void run(unsigned int i, enum kvmclock_guest_op op, uint32_t msr, uint64_t value)
{
	kv[i].mail->op = op;
	kv[i].mail->msr = msr;
	kv[i].mail->value = value;
	vcpu_run(kv[i].vcpu);
	TEST_ASSERT(kv[i].vcpu->run->exit_reason == KVM_EXIT_IO, "vCPU %u: exit reason %u (%s)",
		    i, kv[i].vcpu->run->exit_reason,
		    exit_reason_str(kv[i].vcpu->run->exit_reason));
}

static void enter(unsigned int i)
{
	run(i, KVMCLOCK_NOP, 0, 0);
}

static void enter_all(void)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		enter(i);
}

static void host_writes_tsc(unsigned int i)
{
	vcpu_set_msr(kv[i].vcpu, MSR_IA32_TSC, saved.tsc);
}

static void guest_writes_tsc(unsigned int i)
{
	run(i, KVMCLOCK_WRMSR, MSR_IA32_TSC, saved.tsc);
}

static void guest_writes_adjust(unsigned int i)
{
	run(i, KVMCLOCK_WRMSR, MSR_IA32_TSC_ADJUST, pass << 20);
}

static void set_attr(unsigned int i, uint64_t attr, void *value)
{
	vcpu_device_attr_set(kv[i].vcpu, KVM_VCPU_TSC_CTRL, attr, value);
}

static void set_offset(unsigned int i)
{
	uint64_t offset = saved.offset + pass;

	set_attr(i, KVM_VCPU_TSC_OFFSET, &offset);
}

static void set_value(unsigned int i)
{
	struct kvm_vcpu_tsc_value value = saved.value;

	value.tsc_val += pass << 20;
	set_attr(i, KVM_VCPU_TSC_VALUE, &value);
}

static void set_value_without_fraction(unsigned int i)
{
	struct kvm_vcpu_tsc_value value = saved.value;

	value.tsc_val += pass << 20;
	value.flags = 0;
	value.kvm_frac = 0;
	set_attr(i, KVM_VCPU_TSC_VALUE, &value);
}

/* Each vCPU's another one: the worst case of looking for one that is near. */
static void set_value_apart(unsigned int i)
{
	struct kvm_vcpu_tsc_value value = saved.value;

	value.tsc_val += (pass << 20) + (i << 10);
	value.flags = 0;
	value.kvm_frac = 0;
	set_attr(i, KVM_VCPU_TSC_VALUE, &value);
}

static void set_khz(unsigned int i)
{
	static uint64_t khz;

	if (!khz)
		khz = __vcpu_ioctl(kv[i].vcpu, KVM_GET_TSC_KHZ, NULL);
	/* Within the tolerance where there is no scaling. */
	vcpu_ioctl(kv[i].vcpu, KVM_SET_TSC_KHZ, (void *)(khz + pass % 2));
}

static void set_page(unsigned int i)
{
	vcpu_set_msr(kv[i].vcpu, MSR_KVM_SYSTEM_TIME_NEW, kv[i].page_gpa | KVM_MSR_ENABLED);
}

static void ctrl(unsigned int i)
{
	vcpu_ioctl(kv[i].vcpu, KVM_KVMCLOCK_CTRL, NULL);
}

/* As QEMU does it: the clock once, then TSC and page of each vCPU. */
static void restore(unsigned int i)
{
	if (!i)
		vm_ioctl(vm, KVM_SET_CLOCK, &saved.clock);
	host_writes_tsc(i);
	set_page(i);
}

static uint64_t pass_of(void (*what)(unsigned int i))
{
	uint64_t begin = begin_pass();
	unsigned int i;

	for (i = 0; i < nr; i++)
		what(i);
	return end_pass(begin, nr);
}

/* All vCPUs have nothing left to do before and, with @entries, after. */
static void measure(void (*what)(unsigned int i), bool entries, const char *name)
{
	uint64_t ns, least = UINT64_MAX;

	for (pass = 0; pass < NR_PASSES; pass++) {
		ns = pass_of(what);
		if (entries)
			ns += pass_of(enter);
		least = min(least, ns);
		enter_all();
	}
	report(least, name);
}

static void set_clock(void)
{
	uint64_t begin, least = UINT64_MAX;

	for (pass = 0; pass < NR_PASSES; pass++) {
		begin = begin_pass();
		kvmclock_set(vm, HOUR_NS);
		least = min(least, end_pass(begin, nr) + pass_of(enter));
	}
	report(least, "KVM_SET_CLOCK and all entries");
}

static bool setting;

static void *set_clock_all_the_time(void *unused)
{
	while (READ_ONCE(setting))
		kvmclock_set(vm, HOUR_NS);
	return NULL;
}

/* One thread reads the clock, the other one changes the line. */
static void get_clock_meanwhile(void)
{
	uint64_t begin, least = UINT64_MAX;
	pthread_t thread;
	unsigned int i;

	WRITE_ONCE(setting, true);
	TEST_ASSERT(!pthread_create(&thread, NULL, set_clock_all_the_time, NULL),
		    "pthread_create() failed");
	for (pass = 0; pass < NR_PASSES; pass++) {
		begin = begin_pass();
		for (i = 0; i < NR_READINGS; i++)
			kvmclock_get(vm);
		least = min(least, end_pass(begin, NR_READINGS));
	}
	WRITE_ONCE(setting, false);
	pthread_join(thread, NULL);
	report(least, "KVM_GET_CLOCK while the clock is set");
}

/* The first run of the last vCPUs of @to, which have a page already. */
static void grow(unsigned int to)
{
	uint64_t begin, least = UINT64_MAX;

	for (; nr < to; nr++) {
		kvmclock_vcpu_add_running(vm, &kv[nr], nr, guest);
		set_page(nr);
		begin = begin_pass();
		enter(nr);
		if (nr + NR_LAST >= to)
			least = min(least, end_pass(begin, 1));
	}
	report(least, "first run");
}

/* The creation of the last vCPUs of each size, in a VM that has nothing else. */
static void create(void)
{
	struct kvm_vm *bare = vm_create_barebones();
	uint64_t begin, least = UINT64_MAX;
	int fd[MAX_VCPUS];
	unsigned int i = 0;

	for (nr = 0; nr < MAX_VCPUS; ) {
		begin = begin_pass();
		fd[nr] = __vm_ioctl(bare, KVM_CREATE_VCPU, (void *)(unsigned long)nr);
		TEST_ASSERT(fd[nr] >= 0, "KVM_CREATE_VCPU: %d", errno);
		nr++;
		if (nr + NR_LAST > sizes[i])
			least = min(least, end_pass(begin, 1));
		if (nr == sizes[i]) {
			report(least, "KVM_CREATE_VCPU");
			least = UINT64_MAX;
			i++;
		}
	}
	while (nr)
		close(fd[--nr]);
	kvm_vm_free(bare);
}

/* What the kernel allocates for a vCPU. */
static void report_bytes(void)
{
	FILE *file = fopen("/sys/kernel/slab/kvm_vcpu/object_size", "r");
	uint64_t bytes;

	if (file && fscanf(file, "%lu", &bytes) == 1)
		report(bytes, "bytes of a vCPU");
	if (file)
		fclose(file);
}

/* What KVM has in whole pages of its own. */
static uint64_t vmalloc_bytes(void)
{
	FILE *file = fopen("/proc/vmallocinfo", "r");
	uint64_t bytes, all = 0;
	char line[512];

	TEST_ASSERT(file, "/proc/vmallocinfo: %m");
	while (fgets(line, sizeof(line), file)) {
		if (strstr(line, " kvm_") && sscanf(line, "%*s %lu", &bytes) == 1)
			all += bytes - getpagesize();	/* less the guard page */
	}
	fclose(file);
	return all;
}

static void report_vm_bytes(void)
{
	uint64_t before = vmalloc_bytes();
	struct kvm_vm *bare = vm_create_barebones();

	report(vmalloc_bytes() - before, "bytes of a VM, in whole pages");
	kvm_vm_free(bare);
}

static void save(void)
{
	enter_all();
	saved.clock = kvmclock_get(vm);
	saved.clock.flags &= KVM_CLOCK_REALTIME;
	saved.tsc = vcpu_get_msr(kv[0].vcpu, MSR_IA32_TSC);
	vcpu_device_attr_get(kv[0].vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, &saved.offset);
}

int main(int argc, char *argv[])
{
	struct rlimit files = { 2 * MAX_VCPUS, 2 * MAX_VCPUS };
	unsigned int i;

	kvmclock_require_host();
	if (argc > 1 && !strcmp(argv[1], "--irqs-off")) {
		irqs_off = true;
		trace(TRACING "current_tracer", "irqsoff");
	}
	TEST_ASSERT(!setrlimit(RLIMIT_NOFILE, &files), "setrlimit()");
	report_bytes();
	report_vm_bytes();
	create();
	vm = __vm_create(VM_SHAPE_DEFAULT, MAX_VCPUS, 2 * MAX_VCPUS);
	/* Mailboxes and pages, which are more than what a vCPU has anyway. */
	vm_userspace_mem_region_add(vm, VM_MEM_SRC_ANONYMOUS, DATA_GPA, DATA_SLOT,
				    2 * MAX_VCPUS, 0);
	vm->memslots[MEM_REGION_TEST_DATA] = DATA_SLOT;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		grow(sizes[i]);
		save();
		measure(host_writes_tsc, false, "userspace writes MSR_IA32_TSC");
		measure(guest_writes_tsc, true, "guest writes MSR_IA32_TSC");
		measure(guest_writes_adjust, true, "guest writes MSR_IA32_TSC_ADJUST");
		measure(set_offset, false, "KVM_VCPU_TSC_OFFSET");
		measure(set_khz, false, "KVM_SET_TSC_KHZ");
		measure(set_page, false, "userspace writes MSR_KVM_SYSTEM_TIME");
		measure(ctrl, true, "KVM_KVMCLOCK_CTRL and an entry");
		measure(restore, true, "restore, and an entry");
		set_clock();
		get_clock_meanwhile();
		if (__vcpu_has_device_attr(kv[0].vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_VALUE))
			continue;
		vcpu_device_attr_get(kv[0].vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_VALUE,
				     &saved.value);
		measure(set_value, false, "KVM_VCPU_TSC_VALUE");
		measure(set_value_without_fraction, false, "... without the fraction");
		measure(set_value_apart, false, "... without it, each vCPU another");
	}
	kvm_vm_free(vm);
	return 0;
}
