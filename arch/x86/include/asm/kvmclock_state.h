/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The state of KVM's clock: one struct per VM, one per vCPU.
 *
 * Only arch/x86/kvm/kvmclock_*.c look inside; the rest
 * of KVM uses arch/x86/kvm/kvmclock.h.  The structs live here because
 * struct kvm_arch and struct kvm_vcpu_arch embed them.
 */
#ifndef _ASM_X86_KVMCLOCK_STATE_H
#define _ASM_X86_KVMCLOCK_STATE_H

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

/**
 * struct kvmclock_tsc_state - what a vCPU's TSC has a say by
 * @ratio:	TSC scaling ratio
 * @offset:	guest TSC minus scaled TSC
 * @catchup:	it is moved in software, so it equals no other
 */
struct kvmclock_tsc_state {
	u64  ratio;
	u64  offset;
	bool catchup;
};

/**
 * struct kvmclock_census - whether a VM's TSCs are equal, kept as they change
 * @nr:		vCPUs that are counted
 * @rate_steps:	neighbours, in the order in which they came, whose ratios differ
 * @tsc_steps:	neighbours whose offsets differ
 * @nr_catchup:	vCPUs whose TSC is moved in software
 *
 * All are equal exactly if there is no step.
 */
struct kvmclock_census {
	unsigned int nr;
	unsigned int rate_steps;
	unsigned int tsc_steps;
	unsigned int nr_catchup;
};

#ifdef __KERNEL__

#include <linux/cache.h>
#include <linux/kvm_types.h>
#include <linux/mutex.h>
#include <linux/rbtree_types.h>
#include <linux/seqlock.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>

/**
 * struct kvm_tsc_generation - the guest TSC that new vCPUs join
 * @id:		number of the generation, from 1
 * @parent:	the generation that a change of rate made this one from, or 0
 * @khz:	rate of the guest TSC
 * @ratio:	TSC scaling ratio that @khz was made with: the host's rate may be
 *		refined later, and vCPUs of one generation have one ratio
 * @offset:	guest TSC minus scaled TSC
 * @tsc:	guest TSC at @base_ns: lets it be followed on a host whose TSC
 *		is unstable, or slower than @khz
 * @base_ns:	host's base time (see kvmclock_core.c) at which it had @tsc
 * @ahead:	what userspace last wrote to a vCPU that joined, minus the
 *		generation's TSC at that moment: the centre of the window in
 *		which a write joins
 * @user_set:	userspace has written a TSC or an offset in this VM
 */
struct kvm_tsc_generation {
	u64  id;
	u64  parent;
	u32  khz;
	u64  ratio;
	u64  offset;
	u64  tsc;
	s64  base_ns;
	s64  ahead;
	bool user_set;
};

/**
 * struct kvm_clock - a VM's clock
 * @change_lock:	a mutex: serialises changes of the line; may be taken under
 *		kvm_lock, and is never held over an access to guest memory
 * @wall_lock:	a mutex: serialises writes of the wall clock to guest memory
 * @lock:	protects everything below but @wall_clock_msr, and what
 *		struct kvm_vcpu_clock says; interrupts off, taken inside any other
 * @seq:	lets readers have @master, @line and @base_offset_ns without
 *		@lock; writers hold @lock
 * @master:	the VM has a master clock: @line is the kvmclock of all vCPUs.
 *		Otherwise the kvmclock is base time + @base_offset_ns, and each
 *		vCPU has a line of its own.
 * @stable:	all guest TSCs are equal: pages carry PVCLOCK_TSC_STABLE_BIT
 * @line:	the kvmclock, while @master; its slope is the one to come back to
 * @anchor_ns:	the clock when @line was entered or set ...
 * @anchor_base_ns: ... and base time then: what a TSC that is found to be broken
 *		is held against
 * @base_offset_ns: kvmclock minus base time, while not @master
 * @tsc_changes: the host's TSC is becoming another one, and no line may be drawn
 * @ratio:	TSC scaling ratio of @line
 * @host_khz:	rate of the host TSC that @line was derived from
 * @changes:	counts changes of @line and @stable
 * @lost_ns:	CLOCK_MONOTONIC at which the master clock was lost, while not @master
 * @closed_ns:	... at which the gate was closed; under @change_lock
 * @nr_exposed:	vCPUs whose memory shows, with the stable bit, what is no longer
 *		so: nobody enters the guest meanwhile.  Read without @lock.
 * @nr_absent:	vCPUs, and the Hyper-V page, whose memory is to be written when
 *		it comes.  Read without @lock.
 * @hv_stale:	the Hyper-V page does not have the line.  Read without @lock.
 * @hv_absent:	... and its memory is not there
 * @hv_claims:	counts what made it stale
 * @resumes:	host resumes that the clock has lived through
 * @restart_cycles: host TSC cycles lost in them, already compensated
 * @default_khz: guest TSC rate of vCPUs to come.  Read without @lock.
 * @gen:	the current TSC generation
 * @census:	of the vCPUs that are online
 * @row:	those vCPUs, in the order in which they came
 * @pairs:	... and by their pairs: see kvmclock_tsc.c
 * @redraw:	draws the vCPUs' lines anew, periodically, while not @master
 * @wall_clock_msr: what the guest wrote last; any vCPU may write it at any time
 */
struct kvm_clock {
	/* On one cache line: what each load of a vCPU looks at, and seldom changes. */
	u64 restart_cycles ____cacheline_aligned;
	unsigned int resumes;
	unsigned int nr_exposed;
	unsigned int nr_absent;
	bool hv_stale;
	bool master;

	struct mutex change_lock;	/* outside lock */
	struct mutex wall_lock;		/* outside lock, and over guest memory */
	raw_spinlock_t lock;		/* inside all others */
	seqcount_raw_spinlock_t seq;

	bool stable;
	struct kvmclock_line line;
	u64 anchor_ns;
	s64 anchor_base_ns;
	s64 base_offset_ns;
	bool tsc_changes;
	u64 ratio;
	u32 host_khz;

	u64 changes;
	u64 lost_ns;
	u64 closed_ns;
	bool hv_absent;
	unsigned int hv_claims;

	u32 default_khz;
	struct kvm_tsc_generation gen;
	struct kvmclock_census census;
	struct list_head row;
	struct rb_root_cached pairs;

	struct delayed_work redraw;
	u64 wall_clock_msr;
};

/**
 * struct kvm_vcpu_clock - a vCPU's guest TSC and pvclock page
 *
 * Written by the holder of vcpu->mutex, under kvm_clock.lock so that others
 * may read them under it:
 * @l1_offset:	guest TSC minus scaled TSC
 * @l1_ratio:	TSC scaling ratio
 * @catchup:	the offset is moved forward in software to follow base time: set
 *		by a rate that the hardware can't make, and for good once the
 *		host's TSC is unstable
 * @generation:	the generation that the offset is of, 0 if of none
 * @follows:	the generation whose TSC it took up at another rate, to join it
 *		when it gets that rate; 0 if none
 * @pair_error:	offset that a KVM_VCPU_TSC_VALUE without fraction stood for,
 *		minus @l1_offset, which was another vCPU's
 * @protected:	the vendor makes the TSC: its offset is no business of KVM
 * @vendor_ratio: ... and with a ratio of the vendor's, unless this is 0
 * @restart_cycles: host TSC cycles lost in resumes, already compensated
 * @counted:	it is in kvm_clock.census, as @state, in its row and its pairs
 * @state:	what it is counted as
 *
 * Under kvm_clock.lock, by any thread:
 * @in_row:	in kvm_clock.row
 * @pair_node:	in kvm_clock.pairs ...
 * @newest:	... of those there and below, the one of the latest generation
 * @line:	the line in the vCPU's memory, in scaled TSC; all 0 if none yet
 * @shared:	the vCPU's memory may show the stable bit, so that any vCPU may read it
 * @open:	a bit for each structure that may be there without the line.  Read
 *		without the lock, too, as is the next.
 * @absent:	... that is not there for the guest, and is written when it comes
 * @claims:	counts what made it stale: who writes it knows if there is more to do
 * @moved_jiffies: when one of them was put to its place
 *
 * Of its own thread, at exits the one and at put the other, without the lock, and
 * under it of whoever carries the line over to another host TSC while no vCPU is in
 * the guest:
 * @last_read_tsc: host TSC after which the guest has not read its line: the vCPU has
 *		left the guest, or its line was drawn.  A later one only raises the
 *		bound that it is
 * @last_host_tsc: host TSC when the vCPU last left its CPU
 *
 * Of the holder of vcpu->mutex alone:
 * @offset:	offset in force: L2's on top of @l1_offset while in L2
 * @ratio:	ratio in force, likewise
 * @khz:	rate that the guest is told, 0 if the host's is unknown
 * @cycles_mul:	cycles per nanosecond at @khz ...
 * @cycles_shift: ... in the form of struct kvmclock_line
 * @always_catchup: @khz is above the host's rate, without hardware scaling: set
 *		and cleared with the rate
 * @adjust_msr:	MSR_IA32_TSC_ADJUST
 * @ref_guest_tsc: guest TSC that the vCPU was given ...
 * @ref_base_ns: ... at this base time: what @catchup follows
 * @sleeps:	sleeps of the host that the vCPU has lived through
 * @system_time_msr: MSR_KVM_SYSTEM_TIME as last written
 * @changes_at_entry: kvm_clock.changes as the vCPU entered the guest, for
 *		KVM_PROVE_CLOCK
 *
 * @page_lock:	serialises writes to the vCPU's memory, which never sleep; taken
 *		outside kvm_clock.lock
 * @page_gpa:	where the pvclock page - the 32 bytes, not the 4096 - is, or
 *		INVALID_GPA; written under @page_lock
 * @guest_stopped: PVCLOCK_GUEST_STOPPED is owed to the page; atomic
 */
struct kvm_vcpu_clock {
	/* On one cache line: what each exit, load and put look at. */
	u64 last_read_tsc ____cacheline_aligned;
	u64 last_host_tsc;
	u64 restart_cycles;
	unsigned int sleeps;
	bool always_catchup;
	u8 open;
	u8 absent;

	u64 l1_offset;
	u64 l1_ratio;
	bool catchup;
	u64 generation;
	u64 follows;
	u64 pair_error;
	bool protected;
	u64 vendor_ratio;
	bool counted;
	struct kvmclock_tsc_state state;

	struct list_head in_row;
	struct rb_node pair_node;
	const struct kvm_vcpu_clock *newest;
	struct kvmclock_line line;
	bool shared;
	unsigned int claims;
	unsigned long moved_jiffies;

	u64 offset;
	u64 ratio;
	u32 khz;
	u32 cycles_mul;
	s8 cycles_shift;
	s64 adjust_msr;
	u64 ref_guest_tsc;
	s64 ref_base_ns;
	u64 system_time_msr;
	u64 changes_at_entry;

	spinlock_t page_lock;	/* outside kvm_clock.lock */
	gpa_t page_gpa;
	unsigned long guest_stopped;
};

#endif /* __KERNEL__ */
#endif /* _ASM_X86_KVMCLOCK_STATE_H */
