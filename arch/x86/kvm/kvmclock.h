/* SPDX-License-Identifier: GPL-2.0 */
/*
 * KVM's clock (kvmclock_core.c), its guest TSC (kvmclock_tsc.c) and its host's
 * time (kvmclock_host.c), as the rest of KVM sees them.  All state of a VM is
 * in two structs of asm/kvm_clock.h.
 */
#ifndef _KVM_X86_KVMCLOCK_H
#define _KVM_X86_KVMCLOCK_H

#include <linux/kvm_host.h>

#include "kvmclock_line.h"

/*
 * Life of the module, of a VM and of a vCPU.  kvmclock_vcpu_init() comes
 * before anything in vCPU creation that may fail, kvm_tsc_vcpu_init() when
 * the vendor's state is there, kvm_tsc_vcpu_join() once the vCPU is online.
 */
void kvmclock_vendor_init(void);
void kvmclock_vendor_exit(void);
void kvmclock_cpu_enabled(void);
void kvmclock_cpu_disabled(void);
void kvmclock_init_vm(struct kvm *kvm);
void kvmclock_vcpu_init(struct kvm_vcpu *vcpu);
void kvmclock_vcpu_reset(struct kvm_vcpu *vcpu);
void kvm_tsc_vcpu_init(struct kvm_vcpu *vcpu);
void kvm_tsc_vcpu_join(struct kvm_vcpu *vcpu);

/* The vCPU's way on and off a CPU, and out of the guest. */
void kvmclock_vcpu_load(struct kvm_vcpu *vcpu, int cpu);

static inline void kvmclock_vcpu_put(struct kvm_vcpu *vcpu)
{
	WRITE_ONCE(vcpu->arch.clock.last_host_tsc, rdtsc());
}

/* With interrupts off, before the vCPU leaves IN_GUEST_MODE. */
static inline void kvmclock_guest_exit(struct kvm_vcpu *vcpu)
{
	WRITE_ONCE(vcpu->arch.clock.last_host_tsc, rdtsc());
	if (unlikely(vcpu->arch.clock.always_catchup || READ_ONCE(vcpu->arch.clock.owed)))
		kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
}

/*
 * The three requests, from a vCPU about to enter the guest; may sleep.
 * KVM_REQ_CLOCK_UPDATE: this vCPU's page is out of date.
 * KVM_REQ_GLOBAL_CLOCK_UPDATE: the line or the stable bit changed; the first
 *	vCPU to come writes all pages.
 * KVM_REQ_MASTERCLOCK_UPDATE: what decides about the master clock and the
 *	stable bit changed; if the decision does too, so do they.
 */
void kvmclock_update_page(struct kvm_vcpu *vcpu);
void kvmclock_update_all_pages(struct kvm *kvm);
void kvmclock_update_master(struct kvm *kvm);

/* The clock, at one host TSC read each. */
u64 kvmclock_read_ns(struct kvm *kvm);
u64 kvmclock_epoch_ns(struct kvm *kvm);
u64 kvmclock_read_vcpu(struct kvm_vcpu *vcpu, s64 *monotonic_ns);
int kvmclock_pairing(struct kvm_vcpu *vcpu, gpa_t gpa, unsigned long type);

/* Guest interface: MSRs */
void kvmclock_set_system_time(struct kvm_vcpu *vcpu, u64 data);
void kvmclock_set_wall_clock(struct kvm *kvm, u64 data);

static inline u64 kvmclock_system_time_msr(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.clock.system_time_msr;
}

static inline u64 kvmclock_wall_clock_msr(struct kvm *kvm)
{
	return READ_ONCE(kvm->arch.clock.wall_clock_msr);
}

/* Userspace interface */
int kvmclock_ioctl_get(struct kvm *kvm, void __user *argp);
int kvmclock_ioctl_set(struct kvm *kvm, void __user *argp);
int kvmclock_ioctl_get_guest(struct kvm_vcpu *vcpu, void __user *argp);
int kvmclock_ioctl_set_guest(struct kvm_vcpu *vcpu, void __user *argp);
int kvmclock_set_guest_stopped(struct kvm_vcpu *vcpu);
int kvmclock_has_attr(struct kvm_vcpu *vcpu, struct kvm_device_attr *attr);
int kvmclock_get_attr(struct kvm_vcpu *vcpu, struct kvm_device_attr *attr);
int kvmclock_set_attr(struct kvm_vcpu *vcpu, struct kvm_device_attr *attr);

/* The host's time: kvmclock_host.c */

/**
 * struct kvmclock_snapshot - the host's times at one instant
 * @host_tsc:	host TSC
 * @base_ns:	base time: CLOCK_MONOTONIC_RAW plus the time slept since boot
 * @real_ns:	CLOCK_REALTIME
 * @paired:	all three come from one TSC read.  Otherwise the host keeps
 *		time by something else, and the TSC was read just after.
 */
struct kvmclock_snapshot {
	u64  host_tsc;
	s64  base_ns;
	s64  real_ns;
	bool paired;
};

/**
 * struct kvmclock_sleep - what the host has slept, for kvmclock_resume()
 * @resumes:	suspends that the host has been through
 * @restart_cycles: TSC cycles that it lost in them by restarting its TSC
 * @before:	its time on the way into the last one
 *
 * Written while tasks are being frozen, or are.
 */
struct kvmclock_sleep {
	unsigned int resumes;
	u64 restart_cycles;
	struct kvmclock_snapshot before;
};

extern struct kvmclock_sleep kvmclock_sleep;

void kvmclock_snapshot(struct kvmclock_snapshot *now);
bool kvmclock_host_tsc_unstable(void);
int kvmclock_host_mode(void);
unsigned int kvmclock_cpu_khz(void);
unsigned int kvmclock_max_khz(void);

/* What the host's time and the guest TSC call when they change. */
void kvmclock_resume(struct kvm *kvm);
bool kvmclock_reconsider(struct kvm *kvm);
void kvmclock_suspend_line(struct kvm *kvm);
void kvmclock_resume_line(struct kvm *kvm);
void kvmclock_tsc_changed(struct kvm_vcpu *vcpu, bool host_initiated);
void kvmclock_carry_line(struct kvm_vcpu *vcpu, u64 host_tsc, u64 ratio);

/* The guest TSC: kvmclock_tsc.c */
int kvm_tsc_set_vm_khz(struct kvm *kvm, u32 khz);
int kvm_tsc_set_vcpu_khz(struct kvm_vcpu *vcpu, u32 khz);
u64 kvm_tsc_default_ratio(struct kvm *kvm);
void kvm_tsc_init_vm(struct kvm *kvm, const struct kvmclock_snapshot *now);
void kvm_tsc_host_restarted(struct kvm *kvm, u64 restart_cycles);
void kvm_tsc_vcpu_load(struct kvm_vcpu *vcpu, int cpu);
void kvm_tsc_catch_up(struct kvm_vcpu *vcpu, const struct kvmclock_snapshot *now);
void kvm_tsc_set_l1_offset(struct kvm_vcpu *vcpu, u64 offset);
void kvm_tsc_set_value(struct kvm_vcpu *vcpu, u64 tsc, u64 scaled_tsc, u64 slack_cycles,
		       s64 elapsed_ns, const struct kvmclock_snapshot *now);
void kvm_tsc_write_offset(struct kvm_vcpu *vcpu, u64 offset);

u64 kvm_tsc_read_msr(struct kvm_vcpu *vcpu, bool host_initiated);
void kvm_tsc_write_msr(struct kvm_vcpu *vcpu, u64 tsc, bool host_initiated);
void kvm_tsc_write_adjust_msr(struct kvm_vcpu *vcpu, u64 adjust, bool host_initiated);

u64 kvm_scale_tsc(u64 host_tsc, u64 ratio);
u64 kvm_read_l1_tsc(struct kvm_vcpu *vcpu, u64 host_tsc);
u64 kvm_calc_nested_tsc_offset(u64 l1_offset, u64 l2_offset, u64 l2_ratio);
u64 kvm_calc_nested_tsc_multiplier(u64 l1_ratio, u64 l2_ratio);

static inline u64 kvm_l1_tsc_offset(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.clock.l1_offset;
}

static inline u64 kvm_l1_tsc_ratio(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.clock.l1_ratio;
}

/* In force now: L2's on top of L1's while the vCPU is in L2. */
static inline u64 kvm_tsc_offset(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.clock.offset;
}

static inline u64 kvm_tsc_ratio(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.clock.ratio;
}

/* For nested entry and exit; the caller writes the hardware's field. */
static inline void kvm_set_tsc_offset(struct kvm_vcpu *vcpu, u64 offset)
{
	vcpu->arch.clock.offset = offset;
}

static inline void kvm_set_tsc_ratio(struct kvm_vcpu *vcpu, u64 ratio)
{
	vcpu->arch.clock.ratio = ratio;
}

/* Rate that the guest is told, 0 if unknown. */
static inline u32 kvm_tsc_khz(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.clock.khz;
}

static inline u64 kvm_tsc_adjust_msr(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.clock.adjust_msr;
}

/* Guest TSC cycles in a time span, rounded down. */
static inline u64 nsec_to_cycles(struct kvm_vcpu *vcpu, u64 nsec)
{
	return kvmclock_scale(nsec, vcpu->arch.clock.cycles_mul,
			      vcpu->arch.clock.cycles_shift);
}

#endif /* _KVM_X86_KVMCLOCK_H */
