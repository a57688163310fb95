/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * The paravirtual clock as guests find it in their memory, on KVM and on Xen.
 * Layouts and bits are an ABI; Documentation/virt/kvm/x86/msr.rst says how a
 * guest reads them.
 */
#ifndef _ASM_X86_PVCLOCK_ABI_H
#define _ASM_X86_PVCLOCK_ABI_H

#ifndef __ASSEMBLY__

#include <linux/const.h>
#include <linux/types.h>

/**
 * struct pvclock_vcpu_time_info - a line over a guest TSC, in its vCPU's page
 * @version:	odd while the rest is being written
 * @pad0:	0
 * @tsc_timestamp: guest TSC at the reference
 * @system_time: nanoseconds at the reference
 * @tsc_to_system_mul: nanoseconds per cycle, a 32-bit binary fraction ...
 * @tsc_shift:	... of the delta shifted left by this (right if negative)
 * @flags:	PVCLOCK_*
 * @pad:	0
 */
struct pvclock_vcpu_time_info {
	__u32 version;
	__u32 pad0;
	__u64 tsc_timestamp;
	__u64 system_time;
	__u32 tsc_to_system_mul;
	__s8  tsc_shift;
	__u8  flags;
	__u8  pad[2];
} __attribute__((__packed__));

/**
 * struct pvclock_wall_clock - CLOCK_REALTIME at which the clock was 0
 * @version:	odd while the rest is being written
 * @sec:	seconds since 1970
 * @nsec:	and nanoseconds
 */
struct pvclock_wall_clock {
	__u32 version;
	__u32 sec;
	__u32 nsec;
} __attribute__((__packed__));

/* Pages of vCPUs with this agree: at no instant does one lag behind another. */
#define PVCLOCK_TSC_STABLE_BIT		_BITUL(0)
/* The guest was stopped by its host, and clears this when it has noticed. */
#define PVCLOCK_GUEST_STOPPED		_BITUL(1)
/* Not in use: guests would misread it. */
#define PVCLOCK_COUNTS_FROM_ZERO	_BITUL(2)

#endif /* __ASSEMBLY__ */
#endif /* _ASM_X86_PVCLOCK_ABI_H */
