/* SPDX-License-Identifier: GPL-2.0 */
/*
 * KVM's clock and the guest TSC: what the rest of KVM may call, and nothing else.
 * (This is the host's side; the guest's driver is arch/x86/kernel/kvmclock.c.)
 * What the clock's own files tell each other is in kvmclock_internal.h; all state
 * of a VM is in two structs of asm/kvmclock_state.h.
 */
#ifndef _KVM_X86_KVMCLOCK_H
#define _KVM_X86_KVMCLOCK_H

#include <linux/kvm_host.h>

#include <asm/tsc.h>

#include "kvmclock_line.h"

/*
 * Life of the module, of a VM and of a vCPU.  kvmclock_vcpu_init() comes
 * before anything in vCPU creation that may fail, kvm_tsc_vcpu_init() when
 * the vendor's state is there, kvm_tsc_vcpu_join() once the vCPU is online.
 */
void kvmclock_vendor_init(void);
void kvmclock_vendor_exit(void);
void kvmclock_host_resumed(void);
void kvmclock_host_suspends(void);
void kvmclock_init_vm(struct kvm *kvm);
void kvmclock_destroy_vm(struct kvm *kvm);
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

/*
 * Both with interrupts off, while the vCPU is IN_GUEST_MODE: nothing that it reads by
 * changes in between, or the gate leaks.
 */
static inline void kvmclock_guest_enter(struct kvm_vcpu *vcpu)
{
	if (IS_ENABLED(CONFIG_KVM_PROVE_CLOCK))
		vcpu->arch.clock.changes_at_entry = READ_ONCE(vcpu->kvm->arch.clock.changes);
}

static inline void kvmclock_guest_exit(struct kvm_vcpu *vcpu)
{
	if (IS_ENABLED(CONFIG_KVM_PROVE_CLOCK))
		WARN_ON_ONCE(vcpu->arch.clock.changes_at_entry !=
			     READ_ONCE(vcpu->kvm->arch.clock.changes));

	WRITE_ONCE(vcpu->arch.clock.last_read_tsc, rdtsc());
	if (unlikely(vcpu->arch.clock.always_catchup))
		kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
}

/*
 * The three requests, from a vCPU about to enter the guest; may sleep, and may
 * make the request again for the vCPU to look at its signals and its ring first.
 * KVM_REQ_CLOCK_UPDATE: this vCPU's page is out of date.
 * KVM_REQ_GLOBAL_CLOCK_UPDATE: the line or the stable bit changed, and no page may
 *	show the stable bit with an old line when the vCPU enters.
 * KVM_REQ_MASTERCLOCK_UPDATE: what decides about the master clock and the
 *	stable bit changed; if the decision does too, so do they.
 */
void kvmclock_update_page(struct kvm_vcpu *vcpu);
void kvmclock_update_others(struct kvm_vcpu *vcpu);
void kvmclock_update_master(struct kvm *kvm);

/* The structures that a vCPU's guest reads its clock from, a bit for each: where they are. */
enum {
	KVMCLOCK_OWN = BIT(0),
	KVMCLOCK_XEN_INFO = BIT(1),
	KVMCLOCK_XEN_TIME = BIT(2),
};

void kvmclock_page_moved(struct kvm_vcpu *vcpu, u8 moved, bool host_initiated);
void kvmclock_rewrite_pages(struct kvm *kvm);
#ifdef CONFIG_KVM_HYPERV
void kvmclock_hv_page_moved(struct kvm_vcpu *vcpu);

/* hyperv.c: a line in the form of Hyper-V's page; false if it has none. */
bool compute_tsc_page_parameters(struct pvclock_vcpu_time_info *line,
				 struct ms_hyperv_tsc_page *page);

u64 kvmclock_read_hv(struct kvm *kvm);
#endif

bool __kvmclock_memory_comes(struct kvm_vcpu *vcpu, gfn_t gfn);

/*
 * Memory that has come is about to be mapped for the guest; may sleep.  The
 * barrier pairs with the one in kvmclock_write_vcpu().
 */
static inline bool kvmclock_memory_comes(struct kvm_vcpu *vcpu, gfn_t gfn)
{
	smp_mb();	/* the memory before the note */
	if (likely(!READ_ONCE(vcpu->kvm->arch.clock.nr_absent)))
		return true;

	return __kvmclock_memory_comes(vcpu, gfn);
}

/* Nothing but what the guest asks for is mapped for it as long as this is so. */
static inline bool kvmclock_awaits_memory(struct kvm *kvm)
{
	return READ_ONCE(kvm->arch.clock.nr_absent);
}

/* kvmclock_memory_comes() may be false until userspace has emptied the dirty ring. */
bool kvmclock_awaits_ring(struct kvm_vcpu *vcpu);

/* On a Hyper-V host the TSC page is the clocksource, and it is a line, too. */
bool kvmclock_host_on_tsc_page(void);

/* The host has found its TSC to be broken. */
static inline bool kvmclock_host_tsc_unstable(void)
{
	/* Hyper-V has the TSC marked unstable where its own page is fine. */
	return unlikely(check_tsc_unstable()) && !kvmclock_host_on_tsc_page();
}

/* The clock, at one host TSC read each. */
u64 kvmclock_read_ns(struct kvm *kvm);
u64 kvmclock_epoch_ns(struct kvm *kvm);
u64 kvmclock_read_vcpu(struct kvm_vcpu *vcpu, s64 *monotonic_ns);
int kvmclock_pairing(struct kvm_vcpu *vcpu, gpa_t gpa, unsigned long type);

/* Guest interface: MSRs */
void kvmclock_set_system_time(struct kvm_vcpu *vcpu, u64 data, bool host_initiated);
bool kvmclock_set_wall_clock(struct kvm_vcpu *vcpu, u64 data, bool host_initiated);

static inline u64 kvmclock_system_time_msr(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.clock.system_time_msr;
}

static inline u64 kvmclock_wall_clock_msr(struct kvm *kvm)
{
	return READ_ONCE(kvm->arch.clock.wall_clock_msr);
}

/* Userspace interface */
#define KVM_CLOCK_VALID_FLAGS						\
	(KVM_CLOCK_TSC_STABLE | KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC)

int kvmclock_ioctl_get(struct kvm *kvm, void __user *argp);
int kvmclock_ioctl_set(struct kvm *kvm, void __user *argp);
int kvmclock_ioctl_get_guest(struct kvm_vcpu *vcpu, void __user *argp);
int kvmclock_ioctl_set_guest(struct kvm_vcpu *vcpu, void __user *argp);
int kvmclock_set_guest_stopped(struct kvm_vcpu *vcpu);
int kvmclock_has_attr(struct kvm_vcpu *vcpu, struct kvm_device_attr *attr);
int kvmclock_get_attr(struct kvm_vcpu *vcpu, struct kvm_device_attr *attr);
int kvmclock_set_attr(struct kvm_vcpu *vcpu, struct kvm_device_attr *attr);

/* The guest TSC */
int kvm_tsc_set_vm_khz(struct kvm *kvm, u32 khz);
int kvm_tsc_set_vcpu_khz(struct kvm_vcpu *vcpu, u32 khz);

/*
 * For the vendor, as it creates a vCPU: its TSC is made by hardware or firmware, out of
 * the guest's reach and of KVM's.  It has this offset; and this ratio or, if 0, the one
 * that KVM makes of the VM's rate.
 */
static inline void kvm_tsc_protect(struct kvm_vcpu *vcpu, u64 offset, u64 ratio)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	v->protected = true;
	v->vendor_ratio = ratio;
	v->l1_offset = offset;
	v->offset = offset;
}

static inline bool kvm_tsc_is_protected(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.clock.protected;
}

/* Rate of vCPUs to come. */
static inline u32 kvm_tsc_vm_khz(struct kvm *kvm)
{
	return READ_ONCE(kvm->arch.clock.default_khz);
}

u64 kvm_tsc_read_msr(struct kvm_vcpu *vcpu, bool host_initiated);
void kvm_tsc_write_msr(struct kvm_vcpu *vcpu, u64 tsc, bool host_initiated);
void kvm_tsc_write_adjust_msr(struct kvm_vcpu *vcpu, u64 adjust, bool host_initiated);

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

/* The TSC is faster than the host's, and moved by software at each exit. */
static inline bool kvm_tsc_always_catchup(struct kvm_vcpu *vcpu)
{
	return vcpu->arch.clock.always_catchup;
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
