/* SPDX-License-Identifier: GPL-2.0 */
/*
 * VMs as small as they can be, whose guests execute one instruction at a time, and the
 * arithmetic of the clock pages that they have.  In real mode, as that takes nothing
 * to set up, and without an irqchip, so that a HLT ends KVM_RUN.
 *
 * What fails is told to odd(), which does not come back.
 */
#ifndef TINY_VM_H
#define TINY_VM_H

#include <errno.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>

static noreturn void odd(const char *what, const char *why);

static int kvm_fd = -1;

/* struct pvclock_vcpu_time_info, which a guest has in its memory */
struct page {
	uint32_t version;
	uint32_t pad0;
	uint64_t tsc_timestamp;
	uint64_t system_time;
	uint32_t tsc_to_system_mul;
	int8_t tsc_shift;
	uint8_t flags;
	uint8_t pad[2];
};

#define PAGE_STABLE		1
#define PAGE_STOPPED		2

#define MSR_IA32_TSC		0x10
#define MSR_SYSTEM_TIME_OLD	0x12
#define MSR_SYSTEM_TIME		0x4b564d01

/* What headers of other kernels lack. */
#ifndef KVM_CAP_CLOCK_GUEST
#define KVM_CAP_CLOCK_GUEST	1000
#define KVM_SET_CLOCK_GUEST	_IOW(KVMIO, 0xd6, struct page)
#define KVM_GET_CLOCK_GUEST	_IOR(KVMIO, 0xd7, struct page)
#define KVM_VCPU_TSC_SCALE	1
#define KVM_VCPU_TSC_VALUE	2
#endif

struct tsc_scale {
	uint64_t ratio;
	uint64_t frac_bits;
};

struct tsc_value {
	uint64_t tsc;
	uint64_t clock_ns;
	uint64_t rest[6];
};

/* Guest memory: vectors, which all lead to a HLT at 0; code; clock pages. */
#define CODE_AT			0x1000
#define PAGES_AT		0x2000
#define MEMORY_SIZE		0x3000
#define MAX_VCPUS		8

/* A guest has this long for its instruction. */
#define LOST_S			30

struct vcpu {
	int fd;
	struct kvm_run *run;
	struct page *page;
	uint64_t page_gpa;
};

struct vm {
	int fd;
	size_t run_size;
	uint8_t *memory;
	unsigned int nr;
	struct vcpu vcpu[MAX_VCPUS];
};

static inline int checked(int r, const char *what)
{
	if (r < 0)
		odd(what, strerror(errno));
	return r;
}

static inline uint64_t read_tsc(void)
{
	uint32_t low, high;

	asm volatile("lfence; rdtsc; lfence" : "=a" (low), "=d" (high) : : "memory");
	return (uint64_t)high << 32 | low;
}

/* As a 64-bit guest computes it: rounded down by the shift, and again. */
static inline uint64_t ns_in(const struct page *p, uint64_t cycles)
{
	cycles = p->tsc_shift < 0 ? cycles >> -p->tsc_shift : cycles << p->tsc_shift;
	return (__uint128_t)cycles * p->tsc_to_system_mul >> 32;
}

static inline uint64_t clock_at(const struct page *p, uint64_t guest_tsc)
{
	return p->system_time + ns_in(p, guest_tsc - p->tsc_timestamp);
}

static inline int64_t larger(int64_t a, int64_t b)
{
	return llabs(b) > llabs(a) ? b : a;
}

/*
 * By how much the clock of @new is another one than that of @old, at guest TSC @tsc.
 * Lines of one slope may differ by their rounding later on: those are looked at over
 * 2^38 cycles, and the largest difference counts.
 */
static inline int64_t step_between(const struct page *old, const struct page *new, uint64_t tsc)
{
	bool same = old->tsc_to_system_mul == new->tsc_to_system_mul &&
		    old->tsc_shift == new->tsc_shift;
	int64_t step = clock_at(new, tsc) - clock_at(old, tsc);
	uint64_t after;

	for (after = 1; same && after >> 38 == 0; after *= 2)
		step = larger(step, clock_at(new, tsc + after) - clock_at(old, tsc + after));
	return step;
}

static inline void vm_free(struct vm *vm)
{
	for (; vm->nr; vm->nr--) {
		munmap(vm->vcpu[vm->nr - 1].run, vm->run_size);
		close(vm->vcpu[vm->nr - 1].fd);
	}
	if (vm->memory)
		munmap(vm->memory, MEMORY_SIZE);
	if (vm->fd > 0)
		close(vm->fd);
	memset(vm, 0, sizeof(*vm));
}

static inline void *map(size_t size, int flags, int fd)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	checked(p == MAP_FAILED ? -1 : 0, "mmap");
	return p;
}

static inline void add_vcpu(struct vm *vm)
{
	struct vcpu *v = &vm->vcpu[vm->nr];
	struct kvm_sregs sregs;

	v->fd = checked(ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)vm->nr), "KVM_CREATE_VCPU");
	v->run = map(vm->run_size, MAP_SHARED, v->fd);
	v->page_gpa = PAGES_AT + 64 * vm->nr;
	v->page = (struct page *)(vm->memory + v->page_gpa);
	vm->nr++;

	checked(ioctl(v->fd, KVM_GET_SREGS, &sregs), "KVM_GET_SREGS");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	checked(ioctl(v->fd, KVM_SET_SREGS, &sregs), "KVM_SET_SREGS");
}

enum guest_op { NOP, WRMSR, RDTSC };

static const uint8_t guest_code[][4] = {
	[NOP]	= { 0x90, 0x90, 0xf4 },
	[WRMSR]	= { 0x0f, 0x30, 0xf4 },
	[RDTSC]	= { 0x0f, 0x31, 0xf4 },
};

static inline void vm_create(struct vm *vm, unsigned int nr_vcpus)
{
	struct kvm_userspace_memory_region region = { .memory_size = MEMORY_SIZE };

	vm->fd = checked(ioctl(kvm_fd, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	vm->run_size = checked(ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0), "KVM_GET_VCPU_MMAP_SIZE");
	vm->memory = map(MEMORY_SIZE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	vm->memory[0] = 0xf4;
	memcpy(vm->memory + CODE_AT, guest_code, sizeof(guest_code));
	region.userspace_addr = (uintptr_t)vm->memory;
	checked(ioctl(vm->fd, KVM_SET_USER_MEMORY_REGION, &region), "KVM_SET_USER_MEMORY_REGION");
	/* For Intel processors that need help with real mode */
	checked(ioctl(vm->fd, KVM_SET_TSS_ADDR, 0xfffbd000UL), "KVM_SET_TSS_ADDR");
	while (vm->nr < nr_vcpus)
		add_vcpu(vm);
}

/* Has the guest execute @op, with an MSR's number and value; returns what it gives. */
static inline uint64_t run_guest(struct vcpu *v, enum guest_op op, uint32_t msr, uint64_t value)
{
	struct kvm_regs regs = {
		.rip = CODE_AT + op * sizeof(guest_code[0]),
		.rsp = CODE_AT,
		.rflags = 2,
		.rcx = msr,
		.rax = (uint32_t)value,
		.rdx = value >> 32,
	};
	const char *name = op == WRMSR ? "a guest's WRMSR" : op == RDTSC ? "a guest's RDTSC" :
								       "a guest's NOP";
	uint64_t end = regs.rip + 3;
	char why[40];
	int r;

	checked(ioctl(v->fd, KVM_SET_REGS, &regs), "KVM_SET_REGS");
	alarm(LOST_S);
	r = ioctl(v->fd, KVM_RUN, 0);
	alarm(0);
	if (r < 0 && errno == EINTR)
		odd(name, "is not done with it after seconds");
	checked(r, "KVM_RUN");
	if (v->run->exit_reason != KVM_EXIT_HLT) {
		snprintf(why, sizeof(why), "leaves by exit reason %u", v->run->exit_reason);
		odd(name, why);
	}
	checked(ioctl(v->fd, KVM_GET_REGS, &regs), "KVM_GET_REGS");
	if (regs.rip != end)
		odd(name, "raises an exception");
	return regs.rdx << 32 | (uint32_t)regs.rax;
}

static inline uint64_t guest_rdtsc(struct vcpu *v)
{
	return run_guest(v, RDTSC, 0, 0);
}

/* Gives each vCPU an entry, at which it serves what is pending. */
static inline void enter_all(struct vm *vm)
{
	unsigned int i;

	for (i = 0; i < vm->nr; i++)
		run_guest(&vm->vcpu[i], NOP, 0, 0);
}

static inline void enable_clock(struct vcpu *v, uint32_t msr)
{
	run_guest(v, WRMSR, msr, v->page_gpa | 1);
}

/* KVM_GET_MSRS or KVM_SET_MSRS, of one */
static inline uint64_t host_msr(struct vcpu *v, unsigned long request, uint32_t msr, uint64_t value)
{
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entry;
	} msrs = { { .nmsrs = 1 }, { .index = msr, .data = value } };

	if (ioctl(v->fd, request, &msrs) != 1)
		odd("KVM_GET_MSRS or KVM_SET_MSRS", msr == MSR_IA32_TSC ? "no MSR_IA32_TSC" :
								    "no system-time MSR");
	return msrs.entry.data;
}

static inline struct kvm_clock_data get_clock(struct vm *vm)
{
	struct kvm_clock_data data = { 0 };

	checked(ioctl(vm->fd, KVM_GET_CLOCK, &data), "KVM_GET_CLOCK");
	return data;
}

/* With a realtime that is not 0: the clock was @clock_ns then. */
static inline void set_clock(struct vm *vm, uint64_t clock_ns, uint64_t realtime_ns)
{
	struct kvm_clock_data data = {
		.clock = clock_ns,
		.realtime = realtime_ns,
		.flags = realtime_ns ? KVM_CLOCK_REALTIME : 0,
	};

	checked(ioctl(vm->fd, KVM_SET_CLOCK, &data), "KVM_SET_CLOCK");
}

/* An attribute of the group KVM_VCPU_TSC_CTRL */
static inline int tsc_attr(struct vcpu *v, unsigned long request, uint64_t which, void *data)
{
	struct kvm_device_attr attr = { .attr = which, .addr = (uintptr_t)data };

	return ioctl(v->fd, request, &attr);
}

static inline uint64_t tsc_offset(struct vcpu *v)
{
	uint64_t offset;

	checked(tsc_attr(v, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, &offset), "TSC offset");
	return offset;
}

static inline void set_tsc_offset(struct vcpu *v, uint64_t offset)
{
	checked(tsc_attr(v, KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, &offset), "TSC offset");
}

/* The vCPU's clock at a host TSC, by its page, if its TSC is not scaled */
static inline uint64_t clock_of(struct vcpu *v, uint64_t host_tsc)
{
	return clock_at(v->page, host_tsc + tsc_offset(v));
}

static inline bool has_master(struct vm *vm)
{
	return get_clock(vm).flags & KVM_CLOCK_TSC_STABLE;
}

#endif /* TINY_VM_H */
