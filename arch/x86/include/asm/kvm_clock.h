/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The state of KVM's clock: one struct per VM, one per vCPU.
 *
 * Only arch/x86/kvm/kvmclock_*.c look inside; the rest
 * of KVM uses arch/x86/kvm/kvmclock.h.  The structs live here because
 * struct kvm_arch and struct kvm_vcpu_arch embed them.
 */
#ifndef _ASM_X86_KVM_CLOCK_H
#define _ASM_X86_KVM_CLOCK_H

#include <linux/types.h>

/**
 * struct kvmclock_line - a clock as a line over a counter
 * @ref_tsc:	counter value of the reference, in scaled TSC cycles
 * @ref_ns:	clock at the reference, in nanoseconds
 * @mul:	nanoseconds per cycle, a 32-bit binary fraction ...
 * @shift:	... of the delta shifted left by this (right if negative)
 *
 * Scaled TSC is the host TSC at the guest's rate, before any vCPU's offset;
 * a vCPU with offset o finds this very line in its pvclock page as
 * { tsc_timestamp = ref_tsc + o, system_time = ref_ns, mul, shift }.
 * The arithmetic is in arch/x86/kvm/kvmclock_line.h.
 */
struct kvmclock_line {
	u64 ref_tsc;
	u64 ref_ns;
	u32 mul;
	s8  shift;
};

#ifdef __KERNEL__

#include <linux/kvm_types.h>
#include <linux/mutex.h>
#include <linux/seqlock.h>
#include <linux/spinlock.h>

/**
 * struct kvm_tsc_generation - the guest TSC that new vCPUs join
 * @id:		number of the generation, from 1
 * @parent:	the generation that a change of rate made this one from, or 0
 * @khz:	rate of the guest TSC
 * @offset:	guest TSC minus scaled TSC
 * @tsc:	guest TSC at @base_ns: lets it be followed on a host whose TSC
 *		is unstable, or slower than @khz
 * @base_ns:	host's base time (see kvmclock_core.c) at which it had @tsc
 * @user_set:	userspace has written a TSC or an offset in this VM
 */
struct kvm_tsc_generation {
	u64  id;
	u64  parent;
	u32  khz;
	u64  offset;
	u64  tsc;
	s64  base_ns;
	bool user_set;
};

/**
 * struct kvm_clock - a VM's clock
 * @gate_lock:	serialises changes of the line; may be taken under kvm_lock, and
 *		is never held over an access to guest memory
 * @pages_lock:	serialises writes to guest memory
 * @lock:	protects everything below, and each vCPU's L1 offset and ratio;
 *		interrupts off, taken inside either of the others
 * @seq:	lets readers have @master, @line and @base_offset_ns without
 *		@lock; writers hold @lock
 * @master:	the VM has a master clock: @line is the kvmclock of all vCPUs.
 *		Otherwise the kvmclock is base time + @base_offset_ns, and each
 *		vCPU has a line of its own.
 * @stable:	all guest TSCs are equal: pages carry PVCLOCK_TSC_STABLE_BIT
 * @line:	the kvmclock, while @master
 * @base_offset_ns: kvmclock minus base time, while not @master
 * @ratio:	TSC scaling ratio of @line
 * @host_khz:	rate of the host TSC that @line was derived from
 * @version:	counts changes of @line and @stable
 * @published:	the version that guest memory has; written under @pages_lock
 * @resumes:	host resumes that the clock has lived through
 * @restart_cycles: host TSC cycles lost in them, already compensated
 * @default_khz: guest TSC rate of vCPUs to come
 * @gen:	the current TSC generation
 * @wall_clock_msr: what the guest wrote last; own protection: none, as any
 *		vCPU may write it at any time
 */
struct kvm_clock {
	struct mutex gate_lock;		/* changes of the line */
	struct mutex pages_lock;	/* writes to guest memory */
	raw_spinlock_t lock;
	seqcount_raw_spinlock_t seq;

	bool master;
	bool stable;
	struct kvmclock_line line;
	s64 base_offset_ns;
	u64 ratio;
	u32 host_khz;

	u64 version;
	u64 published;

	unsigned int resumes;
	u64 restart_cycles;

	u32 default_khz;
	struct kvm_tsc_generation gen;

	u64 wall_clock_msr;
};

/**
 * struct kvm_vcpu_clock - a vCPU's guest TSC and pvclock page
 *
 * Written by the vCPU's own thread, under kvm_clock.lock so that others may
 * read them under it:
 * @l1_offset:	guest TSC minus scaled TSC
 * @l1_ratio:	TSC scaling ratio
 * @catchup:	the offset is moved forward in software to follow base time
 * @generation:	the generation that the offset is of, 0 if of none
 * @pair_error:	offset that a KVM_VCPU_TSC_VALUE without fraction stood for,
 *		minus @l1_offset, which was another vCPU's
 *
 * Under kvm_clock.lock:
 * @line:	the line in the vCPU's page, in scaled TSC; all 0 if none yet
 * @last_host_tsc: host TSC when the vCPU last left guest mode or its CPU; its
 *		own thread writes it without the lock, others only read it,
 *		while the vCPU can't enter
 *
 * Of the vCPU's own thread alone:
 * @offset:	offset in force: L2's on top of @l1_offset while in L2
 * @ratio:	ratio in force, likewise
 * @khz:	rate that the guest is told, 0 if the host's is unknown
 * @cycles_mul:	cycles per nanosecond at @khz ...
 * @cycles_shift: ... in the form of struct kvmclock_line
 * @always_catchup: @khz is above the host's rate, without hardware scaling
 * @adjust_msr:	MSR_IA32_TSC_ADJUST
 * @ref_guest_tsc: guest TSC that the vCPU was given ...
 * @ref_base_ns: ... at this base time: what @catchup follows
 * @restart_cycles: host TSC cycles lost in resumes, already compensated
 * @system_time_msr: MSR_KVM_SYSTEM_TIME as last written
 * @rate_khz:	rate of @line in kHz, for Xen's CPUID leaf
 *
 * @page:	the pvclock page in guest memory; has its own lock
 * @guest_stopped: PVCLOCK_GUEST_STOPPED is owed to the page; atomic
 * @owed:	the line could not be written to all of the guest's structures; under
 *		kvm_clock.pages_lock, and read without it
 */
struct kvm_vcpu_clock {
	u64 l1_offset;
	u64 l1_ratio;
	bool catchup;
	u64 generation;
	u64 pair_error;

	struct kvmclock_line line;
	u64 last_host_tsc;

	u64 offset;
	u64 ratio;
	u32 khz;
	u32 cycles_mul;
	s8 cycles_shift;
	bool always_catchup;
	s64 adjust_msr;
	u64 ref_guest_tsc;
	s64 ref_base_ns;
	u64 restart_cycles;
	u64 system_time_msr;
	u32 rate_khz;

	struct gfn_to_pfn_cache page;
	unsigned long guest_stopped;
	bool owed;
};

#endif /* __KERNEL__ */
#endif /* _ASM_X86_KVM_CLOCK_H */
