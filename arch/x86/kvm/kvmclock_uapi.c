// SPDX-License-Identifier: GPL-2.0-only
/*
 * What guest and userspace ask of the clock and the TSC: MSRs, a hypercall, ioctls
 * and attributes.  Each checks what it was given, takes the lock or closes the
 * gate, and calls down: bad input gets its error and changes nothing.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>

#include <asm/pvclock-abi.h>
#include <asm/tsc.h>

#include "x86.h"
#include "kvmclock.h"
#include "kvmclock_internal.h"

static_assert(sizeof(struct kvm_vcpu_tsc_scale) == 16);
static_assert(sizeof(struct kvm_vcpu_tsc_value) == 64);
static_assert(offsetof(struct kvm_vcpu_tsc_value, reserved) == 24);

/*
 * The guest's interface
 */

/*
 * MSR_KVM_SYSTEM_TIME and its newer number, which mean the same: bit 0 enables
 * the page at the 4-byte aligned address in the others.  An address that is
 * not, or whose page would cross into the next, gets none; one without memory
 * behind it gets its page once there is some.  The guest is not told.
 */
void kvmclock_set_system_time(struct kvm_vcpu *vcpu, u64 data, bool host_initiated)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	gpa_t gpa = data & ~1ULL;
	bool moved;

	v->system_time_msr = data;

	if (!(data & 1) || !IS_ALIGNED(gpa, sizeof(u32)) ||
	    offset_in_page(gpa) > PAGE_SIZE - sizeof(struct pvclock_vcpu_time_info))
		gpa = INVALID_GPA;

	spin_lock(&v->page_lock);
	moved = gpa != v->page_gpa;
	WRITE_ONCE(v->page_gpa, gpa);
	spin_unlock(&v->page_lock);

	if (kvm_is_error_gpa(gpa))
		clear_bit(0, &v->guest_stopped);
	kvmclock_page_moved(vcpu, moved ? KVMCLOCK_OWN : 0, host_initiated);
}

/*
 * A TSC that software moves is behind since the vCPU last entered the guest: it is
 * moved now, as on the next entry, before it is told or another is made of it.
 */
static void kvm_tsc_be_up_to_date(struct kvm_vcpu *vcpu, const struct kvmclock_snapshot *now)
{
	if (vcpu->arch.clock.catchup)
		kvm_tsc_catch_up(vcpu, now);
}

/*
 * Userspace reads L1's TSC whatever the vCPU is doing, so that what it saves
 * does not depend on the moment; the guest reads the one that runs.
 */
u64 kvm_tsc_read_msr(struct kvm_vcpu *vcpu, bool host_initiated)
{
	struct kvmclock_snapshot now;
	unsigned long flags;
	u64 tsc;

	if (!host_initiated)
		return kvm_scale_tsc(rdtsc(), kvm_tsc_ratio(vcpu)) + kvm_tsc_offset(vcpu);

	if (!vcpu->arch.clock.catchup)
		return kvm_read_l1_tsc(vcpu, rdtsc());

	flags = kvmclock_lock_now(vcpu->kvm, &now);
	kvm_tsc_be_up_to_date(vcpu, &now);
	tsc = kvm_read_l1_tsc(vcpu, now.host_tsc);
	kvmclock_unlock(vcpu->kvm, flags);

	return tsc;
}

/*
 * MSR_IA32_TSC; by userspace, kvm_tsc_restore() guesses what is meant.  If the vendor
 * makes the TSC a write has no effect, as userspace may restore all MSRs of all VMs.
 */
void kvm_tsc_write_msr(struct kvm_vcpu *vcpu, u64 tsc, bool host_initiated)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvmclock_snapshot now;
	unsigned long flags;
	u64 offset;

	if (kvm_tsc_is_protected(vcpu))
		return;

	flags = kvmclock_lock_now(vcpu->kvm, &now);
	if (host_initiated) {
		kvm_tsc_restore(vcpu, tsc, &now);
	} else {
		offset = tsc - kvm_scale_tsc(now.host_tsc, v->l1_ratio);
		v->adjust_msr += offset - v->l1_offset;
		kvm_tsc_move_by_guest(vcpu, offset, &now);
	}
	kvmclock_unlock(vcpu->kvm, flags);

	kvmclock_tsc_changed(vcpu, host_initiated);
}

/* Userspace restores the MSR alone; the guest moves its TSC with it. */
void kvm_tsc_write_adjust_msr(struct kvm_vcpu *vcpu, u64 adjust, bool host_initiated)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvmclock_snapshot now;
	unsigned long flags;

	if (host_initiated || adjust == v->adjust_msr) {
		v->adjust_msr = adjust;
		return;
	}

	if (kvm_tsc_is_protected(vcpu))
		return;

	flags = kvmclock_lock_now(vcpu->kvm, &now);
	kvm_tsc_be_up_to_date(vcpu, &now);
	kvm_tsc_move_by_guest(vcpu, v->l1_offset + (adjust - v->adjust_msr), &now);
	v->adjust_msr = adjust;
	kvmclock_unlock(vcpu->kvm, flags);

	kvmclock_tsc_changed(vcpu, false);
}

/*
 * KVM_HC_CLOCK_PAIRING: the host's realtime and the guest's TSC of one TSC
 * read.  Refused to a guest whose TSC is moved in software: it could not use
 * the pair.
 */
int kvmclock_pairing(struct kvm_vcpu *vcpu, gpa_t gpa, unsigned long type)
{
	struct kvm_clock_pairing pairing = {};
	struct kvmclock_snapshot now;
	struct timespec64 real;

	if (type != KVM_CLOCK_PAIRING_WALLCLOCK || vcpu->arch.clock.always_catchup)
		return -KVM_EOPNOTSUPP;

	kvmclock_take_snapshot(&now);
	if (!now.paired)
		return -KVM_EOPNOTSUPP;

	real = ns_to_timespec64(now.real_ns);
	pairing.sec = real.tv_sec;
	pairing.nsec = real.tv_nsec;
	pairing.tsc = kvm_read_l1_tsc(vcpu, now.host_tsc);

	if (kvm_write_guest(vcpu->kvm, gpa, &pairing, sizeof(pairing)))
		return -KVM_EFAULT;

	return 0;
}

/*
 * Ioctls: the clock
 */

/*
 * KVM_GET_CLOCK: a flag is set exactly when its field is of the same instant
 * as the clock.  By the master clock that is always so for the TSC; by base
 * time it is for realtime.  The other one needs the host to pair them.
 */
int kvmclock_ioctl_get(struct kvm *kvm, void __user *argp)
{
	struct kvm_clock_data data = {};
	struct kvmclock_snapshot now;
	bool master;

	/* The host has found its TSC to be broken, and the work for it comes yet. */
	if (unlikely(kvmclock_host_tsc_unstable() && READ_ONCE(kvm->arch.clock.master)))
		kvmclock_update_master(kvm);

	master = kvmclock_read(kvm, &now, &data.clock);

	if (master)
		data.flags |= KVM_CLOCK_TSC_STABLE;
	if (master || now.paired) {
		data.flags |= KVM_CLOCK_HOST_TSC;
		data.host_tsc = now.host_tsc;
	}
	if (!master || now.paired) {
		data.flags |= KVM_CLOCK_REALTIME;
		data.realtime = now.real_ns;
	}

	return copy_to_user(argp, &data, sizeof(data)) ? -EFAULT : 0;
}

/*
 * KVM_SET_CLOCK, with KVM_CLOCK_REALTIME by what CLOCK_REALTIME says has
 * passed since @realtime; not if it says that nothing has: the clock that is
 * being restored has been read, and must not go back behind it.
 */
int kvmclock_ioctl_set(struct kvm *kvm, void __user *argp)
{
	struct kvmclock_snapshot now;
	struct kvm_clock_data data;

	if (copy_from_user(&data, argp, sizeof(data)))
		return -EFAULT;

	if (data.flags & ~KVM_CLOCK_VALID_FLAGS)
		return -EINVAL;

	kvmclock_begin_change(kvm, &now);
	if ((data.flags & KVM_CLOCK_REALTIME) && now.real_ns > data.realtime)
		data.clock += now.real_ns - data.realtime;
	kvmclock_set_ns(kvm, &now, data.clock);
	kvmclock_end_change(kvm, true);

	return 0;
}

/*
 * KVM_GET_CLOCK_GUEST: the line in the vCPU's page.  As far as a TSC that is
 * moved in software goes, there is no such line.
 */
int kvmclock_ioctl_get_guest(struct kvm_vcpu *vcpu, void __user *argp)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct pvclock_vcpu_time_info page;
	unsigned long flags;
	bool has_line;

	flags = kvmclock_lock(vcpu->kvm);
	has_line = kvmclock_has_line(vcpu) && !vcpu->arch.clock.catchup;
	page = kvmclock_page(&clock->line, kvm_l1_tsc_offset(vcpu), clock->stable);
	kvmclock_unlock(vcpu->kvm, flags);

	if (!has_line)
		return -ENODATA;

	return copy_to_user(argp, &page, sizeof(page)) ? -EFAULT : 0;
}

/*
 * The line of a page, over the scaled TSC.  Errors:
 * -EINVAL: not a page's content, or a reference after the vCPU's TSC or out of
 *	its reach;
 * -ENODATA: the VM has no line;
 * -ERANGE: the page's counter is at another rate.
 */
static int kvmclock_import(struct kvm_vcpu *vcpu, const struct pvclock_vcpu_time_info *page,
			   const struct kvmclock_snapshot *now, struct kvmclock_line *line)
{
	struct kvm *kvm = vcpu->kvm;
	u64 off_hz;

	lockdep_assert_held(&kvm->arch.clock.lock);

	*line = (struct kvmclock_line) {
		.ref_tsc = page->tsc_timestamp - kvm_l1_tsc_offset(vcpu),
		.ref_ns = page->system_time,
		.mul = page->tsc_to_system_mul,
		.shift = page->tsc_shift,
	};

	if (page->pad0 || page->pad[0] || page->pad[1] ||
	    page->flags & ~(PVCLOCK_TSC_STABLE_BIT | PVCLOCK_GUEST_STOPPED) ||
	    line->shift < -31 || line->shift > 31)
		return -EINVAL;

	if (!kvmclock_has_line(vcpu) || vcpu->arch.clock.catchup)
		return -ENODATA;

	/* Fewer bits of mul and a larger shift would overflow early. */
	if (line->mul && line->mul < 1U << 31)
		return -EINVAL;

	if (!line->mul)
		return -ERANGE;

	off_hz = abs_diff(kvmclock_line_hz(line), kvmclock_rate_hz(&kvm->arch.clock));
	if (off_hz > KVMCLOCK_IMPORT_HZ)
		return -ERANGE;

	if (kvmclock_line_used_up(line, kvm_scale_tsc(now->host_tsc, kvm->arch.clock.ratio) -
				  line->ref_tsc))
		return -EINVAL;

	return 0;
}

/*
 * KVM_SET_CLOCK_GUEST: the VM's clock is this line over the vCPU's TSC.  It is
 * assigned, so that it is the exported one bit for bit.
 */
int kvmclock_ioctl_set_guest(struct kvm_vcpu *vcpu, void __user *argp)
{
	struct pvclock_vcpu_time_info page;
	struct kvmclock_snapshot now;
	struct kvmclock_line line;
	int r;

	if (copy_from_user(&page, argp, sizeof(page)))
		return -EFAULT;

	kvmclock_begin_change(vcpu->kvm, &now);
	r = kvmclock_import(vcpu, &page, &now, &line);
	if (!r)
		kvmclock_assign_line(vcpu->kvm, &line, &now);
	kvmclock_end_change(vcpu->kvm, !r);

	return r;
}

/*
 * KVM_KVMCLOCK_CTRL: the flag is in the page when this returns, so that it is
 * part of a snapshot taken next.  If the page can't be written now - its memory
 * is away, or the ring full - it comes with the next update.  Does not wait.
 */
int kvmclock_set_guest_stopped(struct kvm_vcpu *vcpu)
{
	if (kvm_is_error_gpa(vcpu->arch.clock.page_gpa))
		return -EINVAL;

	kvmclock_tell_stopped(vcpu);
	return 0;
}

/*
 * Ioctls and attributes: the TSC
 */

/*
 * KVM_SET_TSC_KHZ of a VM: the rate of vCPUs to come.  Before the first vCPU
 * it is also the rate of the clock and of the TSC, which go on from where
 * they are.
 */
int kvm_tsc_set_vm_khz(struct kvm *kvm, u32 khz)
{
	struct kvmclock_snapshot now;
	struct kvm_tsc_plan plan;
	unsigned long flags;
	int r;

	r = kvm_tsc_plan_user_khz(&khz, &plan);
	if (r)
		return r;

	flags = kvmclock_lock_now(kvm, &now);
	kvm_tsc_change_vm_khz(kvm, khz, &plan, &now);
	kvmclock_unlock(kvm, flags);

	kvmclock_update_master(kvm);
	return 0;
}

/* KVM_SET_TSC_KHZ of a vCPU: kvm_tsc_change_khz() says what becomes of its TSC. */
int kvm_tsc_set_vcpu_khz(struct kvm_vcpu *vcpu, u32 khz)
{
	struct kvmclock_snapshot now;
	struct kvm_tsc_plan plan;
	unsigned long flags;
	bool changes;
	int r;

	if (kvm_tsc_is_protected(vcpu))
		return -EINVAL;

	r = kvm_tsc_plan_user_khz(&khz, &plan);
	if (r)
		return r;

	flags = kvmclock_lock(vcpu->kvm);
	changes = kvm_tsc_khz_changes(vcpu, khz, &plan);
	if (changes) {
		kvmclock_take_snapshot(&now);
		kvm_tsc_be_up_to_date(vcpu, &now);
		kvmclock_carry_line(vcpu, now.host_tsc, plan.ratio);
		kvm_tsc_change_khz(vcpu, khz, &plan, &now);
	}
	kvmclock_unlock(vcpu->kvm, flags);

	if (changes)
		kvmclock_tsc_changed(vcpu, true);
	return 0;
}

/* KVM_VCPU_TSC_OFFSET */
static void kvm_tsc_set_l1_offset(struct kvm_vcpu *vcpu, u64 offset)
{
	struct kvmclock_snapshot now;
	unsigned long flags;

	flags = kvmclock_lock_now(vcpu->kvm, &now);
	kvm_tsc_take_offset(vcpu, offset, &now);
	kvmclock_unlock(vcpu->kvm, flags);

	kvmclock_tsc_changed(vcpu, true);
}

/*
 * KVM_VCPU_TSC_VALUE: the guest TSC and the clock at one instant, the last one
 * at which the clock drops no bit, or the reference if this CPU is some cycles
 * behind the one that set it.
 */
static int kvmclock_get_tsc_value(struct kvm_vcpu *vcpu, struct kvm_vcpu_tsc_value *value)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvmclock_snapshot now;
	unsigned long flags;
	int r = -ENODATA;
	u64 scaled_tsc;

	flags = kvmclock_lock_now(vcpu->kvm, &now);
	if (kvmclock_has_line(vcpu)) {
		kvm_tsc_be_up_to_date(vcpu, &now);
		scaled_tsc = kvm_scale_tsc(now.host_tsc, clock->ratio);
		if ((s64)(scaled_tsc - clock->line.ref_tsc) < 0)
			scaled_tsc = clock->line.ref_tsc;

		*value = (struct kvm_vcpu_tsc_value) { .flags = KVM_TSC_VALUE_FRAC };
		value->kvm_ns = kvmclock_line_instant(&clock->line, &scaled_tsc,
						      &value->kvm_frac);
		value->tsc_val = scaled_tsc + kvm_l1_tsc_offset(vcpu);
		r = 0;
	}
	kvmclock_unlock(vcpu->kvm, flags);

	return r;
}

/*
 * The other way round: the vCPU's TSC is, was or will be @tsc_val when the
 * clock is at @kvm_ns.
 *
 * Instants of one line differ from this VM's line by one number of cycles
 * (kvmclock_line_tsc()), so vCPUs that had one offset get one, and others keep
 * their distance.  Without the fraction @kvm_ns stands for all instants that
 * read so: a nanosecond of cycles, and as many again as the clock's shift
 * drops.  Offsets that are no further apart were one.
 */
static int kvmclock_set_tsc_value(struct kvm_vcpu *vcpu, const struct kvm_vcpu_tsc_value *value)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	const struct kvmclock_line *line = &clock->line;
	struct kvmclock_snapshot now;
	u64 scaled_tsc, slack = 0;
	unsigned long flags;
	int r = -ENODATA;
	s64 elapsed_ns;

	if (value->flags & ~KVM_TSC_VALUE_VALID_FLAGS ||
	    memchr_inv(value->reserved, 0, sizeof(value->reserved)) ||
	    (value->kvm_frac && !(value->flags & KVM_TSC_VALUE_FRAC)))
		return -EINVAL;

	flags = kvmclock_lock(vcpu->kvm);
	if (kvmclock_has_line(vcpu)) {
		kvmclock_take_snapshot(&now);
		scaled_tsc = kvmclock_line_tsc(line, value->kvm_ns, value->kvm_frac);
		elapsed_ns = kvmclock_at(clock, &now) - value->kvm_ns;
		if (!(value->flags & KVM_TSC_VALUE_FRAC))
			slack = kvmclock_line_slack_cycles(line);
		kvm_tsc_set_value(vcpu, value->tsc_val, scaled_tsc, slack, elapsed_ns, &now);
		r = 0;
	}
	kvmclock_unlock(vcpu->kvm, flags);

	if (!r)
		kvmclock_tsc_changed(vcpu, true);
	return r;
}

/* KVM_VCPU_TSC_CTRL */
int kvmclock_has_attr(struct kvm_vcpu *vcpu, struct kvm_device_attr *attr)
{
	switch (attr->attr) {
	case KVM_VCPU_TSC_VALUE:
	case KVM_VCPU_TSC_OFFSET:
		return 0;
	case KVM_VCPU_TSC_SCALE:
		return kvm_caps.has_tsc_control ? 0 : -ENXIO;
	default:
		return -ENXIO;
	}
}

int kvmclock_get_attr(struct kvm_vcpu *vcpu, struct kvm_device_attr *attr)
{
	void __user *uaddr = u64_to_user_ptr(attr->addr);
	struct kvm_vcpu_tsc_scale scale;
	struct kvm_vcpu_tsc_value value;
	u64 offset;
	int r;

	r = kvmclock_has_attr(vcpu, attr);
	if (r)
		return r;

	switch (attr->attr) {
	case KVM_VCPU_TSC_SCALE:
		scale.tsc_ratio = kvm_l1_tsc_ratio(vcpu);
		scale.tsc_frac_bits = kvm_caps.tsc_scaling_ratio_frac_bits;
		return copy_to_user(uaddr, &scale, sizeof(scale)) ? -EFAULT : 0;
	case KVM_VCPU_TSC_VALUE:
		r = kvmclock_get_tsc_value(vcpu, &value);
		if (r)
			return r;
		return copy_to_user(uaddr, &value, sizeof(value)) ? -EFAULT : 0;
	case KVM_VCPU_TSC_OFFSET:
		offset = kvm_l1_tsc_offset(vcpu);
		return copy_to_user(uaddr, &offset, sizeof(offset)) ? -EFAULT : 0;
	default:
		return -ENXIO;
	}
}

int kvmclock_set_attr(struct kvm_vcpu *vcpu, struct kvm_device_attr *attr)
{
	void __user *uaddr = u64_to_user_ptr(attr->addr);
	struct kvm_vcpu_tsc_value value;
	u64 offset;
	int r;

	r = kvmclock_has_attr(vcpu, attr);
	if (r)
		return r;

	if (kvm_tsc_is_protected(vcpu))
		return -EINVAL;

	switch (attr->attr) {
	case KVM_VCPU_TSC_SCALE:
		return -EINVAL;
	case KVM_VCPU_TSC_VALUE:
		if (copy_from_user(&value, uaddr, sizeof(value)))
			return -EFAULT;
		return kvmclock_set_tsc_value(vcpu, &value);
	case KVM_VCPU_TSC_OFFSET:
		if (copy_from_user(&offset, uaddr, sizeof(offset)))
			return -EFAULT;
		kvm_tsc_set_l1_offset(vcpu, offset);
		return 0;
	default:
		return -ENXIO;
	}
}
