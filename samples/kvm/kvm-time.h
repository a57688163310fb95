/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How to save and restore a VM's time: which calls, in which order, and why.
 *
 * A guest knows how its TSCs and its clock relate.  So relations are saved, each
 * of one instant, and restoring makes them true again.  Afterwards the clock is
 * the same number at every value of the guest's TSC, and the TSCs have the
 * distances that they had: 0 ns and 0 cycles are lost.  What is to be chosen is
 * what becomes of the time away:
 *
 *  live:	same host, whose TSC counts on, as through kexec or the update of
 *		a VMM.  The guest can't tell that anything happened.
 *  running:	the time away counts, as far as CLOCK_REALTIME knows it.
 *  frozen:	it doesn't; the guest goes on from where it was.
 *
 * To save, no vCPU may run.  To restore, make the VM, kvm_time_restore_rate(),
 * create the vCPUs, then kvm_time_restore_*(), before the first KVM_RUN.  Other
 * MSRs come after it: first IA32_TSC_ADJUST, then IA32_TSC_DEADLINE, but not
 * IA32_TSC, as KVM guesses what is meant by it.
 *
 * All return 0 or an error as the calls do, -ENODATA above all: without a master
 * clock there is no relation to save, or to restore.
 */
#ifndef _SAMPLES_KVM_TIME_H
#define _SAMPLES_KVM_TIME_H

#include <errno.h>
#include <string.h>
#include <sys/ioctl.h>

#include <linux/kvm.h>
#include <linux/types.h>

#if __has_include("asm/pvclock-abi.h")
#include <asm/pvclock-abi.h>
#else
struct pvclock_vcpu_time_info {
	__u32 version;
	__u32 pad0;
	__u64 tsc_timestamp;
	__u64 system_time;
	__u32 tsc_to_system_mul;
	__s8  tsc_shift;
	__u8  flags;
	__u8  pad[2];
};
#endif

/* Headers that are older than the kernel. */
#ifndef KVM_CAP_CLOCK_GUEST
#define KVM_CAP_CLOCK_GUEST	1000
#define KVM_SET_CLOCK_GUEST	_IOW(KVMIO,  0xd6, struct pvclock_vcpu_time_info)
#define KVM_GET_CLOCK_GUEST	_IOR(KVMIO,  0xd7, struct pvclock_vcpu_time_info)

#define KVM_VCPU_TSC_SCALE	1
#define KVM_VCPU_TSC_VALUE	2

struct kvm_vcpu_tsc_scale {
	__u64 tsc_ratio;
	__u64 tsc_frac_bits;
};

struct kvm_vcpu_tsc_value {
	__u64 tsc_val;
	__u64 kvm_ns;
	__u32 kvm_frac;
	__u32 flags;
	__u64 reserved[5];
};

#define KVM_TSC_VALUE_FRAC	1
#endif

#define KVM_TIME_MAX_VCPUS	64

/**
 * struct kvm_time - a VM's time; the same in memory, in a file or on a wire
 * @tsc_khz:	rate of the guest TSC
 * @scale:	what the hardware makes it of the host's by, 0 if it does not scale
 * @nr_vcpus:	how many of @vcpu there are
 * @clock:	the clock and CLOCK_REALTIME, for the time away
 * @line:	the clock over vCPU 0's TSC
 * @vcpu:	the vCPUs' TSCs
 * @vcpu.value:	a vCPU's TSC and the clock
 * @vcpu.offset: a vCPU's TSC and the host's TSC, for a live update
 */
struct kvm_time {
	__u32 tsc_khz;
	__u32 nr_vcpus;
	struct kvm_vcpu_tsc_scale scale;
	struct kvm_clock_data clock;
	struct pvclock_vcpu_time_info line;
	struct {
		struct kvm_vcpu_tsc_value value;
		__u64 offset;
	} vcpu[KVM_TIME_MAX_VCPUS];
};

static inline int kvm_time_ioctl(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

static inline int kvm_time_attr(int vcpu_fd, unsigned long request, __u64 which, void *data)
{
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = which,
		.addr = (unsigned long)data,
	};

	return kvm_time_ioctl(vcpu_fd, request, &attr);
}

/* Hardware that does not scale has no such attribute. */
static inline int kvm_time_get_scale(int vcpu_fd, struct kvm_vcpu_tsc_scale *scale)
{
	int r = kvm_time_attr(vcpu_fd, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_SCALE, scale);

	return r == -ENXIO ? 0 : r;
}

/* In any order: each pair is of its own instant, and all are on one line. */
static inline int kvm_time_save(int vm_fd, const int *vcpu_fds, unsigned int nr_vcpus,
				struct kvm_time *saved)
{
	unsigned int i;
	int r;

	memset(saved, 0, sizeof(*saved));
	if (!nr_vcpus || nr_vcpus > KVM_TIME_MAX_VCPUS)
		return -EINVAL;

	r = ioctl(vcpu_fds[0], KVM_GET_TSC_KHZ, 0);
	if (r < 0)
		return -errno;
	saved->tsc_khz = r;
	saved->nr_vcpus = nr_vcpus;

	r = kvm_time_get_scale(vcpu_fds[0], &saved->scale);
	if (!r)
		r = kvm_time_ioctl(vm_fd, KVM_GET_CLOCK, &saved->clock);
	if (!r)
		r = kvm_time_ioctl(vcpu_fds[0], KVM_GET_CLOCK_GUEST, &saved->line);
	for (i = 0; i < nr_vcpus && !r; i++) {
		r = kvm_time_attr(vcpu_fds[i], KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_VALUE,
				  &saved->vcpu[i].value);
		if (!r)
			r = kvm_time_attr(vcpu_fds[i], KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET,
					  &saved->vcpu[i].offset);
	}
	return r;
}

/* Before the first vCPU is created: a TSC that changes its rate is another one. */
static inline int kvm_time_restore_rate(int vm_fd, const struct kvm_time *saved)
{
	return ioctl(vm_fd, KVM_SET_TSC_KHZ, (unsigned long)saved->tsc_khz) < 0 ? -errno : 0;
}

/*
 * -ERANGE, and nothing is changed, if the TSC is made of the host's by another ratio,
 * as when a new kernel has measured the host's rate anew: an offset would be some
 * other TSC.  Restore it running, then.
 */
static inline int kvm_time_restore_live(int vm_fd, const int *vcpu_fds,
					const struct kvm_time *saved)
{
	struct pvclock_vcpu_time_info line = saved->line;
	struct kvm_vcpu_tsc_scale scale = { 0 };
	__u64 offset;
	unsigned int i;
	int r;

	(void)vm_fd;
	r = kvm_time_get_scale(vcpu_fds[0], &scale);
	if (!r && memcmp(&scale, &saved->scale, sizeof(scale)))
		r = -ERANGE;
	for (i = 0; i < saved->nr_vcpus && !r; i++) {
		offset = saved->vcpu[i].offset;
		r = kvm_time_attr(vcpu_fds[i], KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, &offset);
	}

	/* A line over vCPU 0's TSC is to find that TSC in place. */
	if (!r)
		r = kvm_time_ioctl(vcpu_fds[0], KVM_SET_CLOCK_GUEST, &line);
	return r;
}

/* The clock says what it should at this instant; vCPU 0's TSC follows it. */
static inline int kvm_time_place(int vm_fd, int vcpu_fd, const struct kvm_time *saved, __u32 flags)
{
	struct kvm_clock_data clock = {
		.clock = saved->clock.clock,
		.realtime = saved->clock.realtime,
		.flags = flags,
	};
	struct kvm_vcpu_tsc_value value = saved->vcpu[0].value;
	struct pvclock_vcpu_time_info line = saved->line;
	int r;

	r = kvm_time_ioctl(vm_fd, KVM_SET_CLOCK, &clock);
	if (!r)
		r = kvm_time_attr(vcpu_fd, KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, &value);

	/*
	 * Now the clock is the line that the guest knows, and as far as this
	 * host agrees about its slope, it still says the same.
	 */
	if (!r)
		r = kvm_time_ioctl(vcpu_fd, KVM_SET_CLOCK_GUEST, &line);
	return r;
}

static inline int kvm_time_restore_away(int vm_fd, const int *vcpu_fds,
					const struct kvm_time *saved, __u32 flags)
{
	struct kvm_vcpu_tsc_value value;
	unsigned int i;
	int r;

	/*
	 * Twice: the first time brings the slope that the guest knows, and the
	 * second one reckons the time away by it.  Slopes that differ by half a
	 * part in 10^9 are 40 us apart after a day.
	 */
	r = kvm_time_place(vm_fd, vcpu_fds[0], saved, flags);
	if (!r)
		r = kvm_time_place(vm_fd, vcpu_fds[0], saved, flags);

	/* By that slope other pairs lead to the cycle that they came from. */
	for (i = 1; i < saved->nr_vcpus && !r; i++) {
		value = saved->vcpu[i].value;
		r = kvm_time_attr(vcpu_fds[i], KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, &value);
	}
	return r;
}

static inline int kvm_time_restore_running(int vm_fd, const int *vcpu_fds,
					   const struct kvm_time *saved)
{
	if (!(saved->clock.flags & KVM_CLOCK_REALTIME))
		return -ENODATA;
	return kvm_time_restore_away(vm_fd, vcpu_fds, saved, KVM_CLOCK_REALTIME);
}

static inline int kvm_time_restore_frozen(int vm_fd, const int *vcpu_fds,
					  const struct kvm_time *saved)
{
	return kvm_time_restore_away(vm_fd, vcpu_fds, saved, 0);
}

#endif /* _SAMPLES_KVM_TIME_H */
