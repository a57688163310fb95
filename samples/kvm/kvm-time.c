// SPDX-License-Identifier: GPL-2.0
/*
 * Saves a VM's time to a file, restores it into another VM of another process,
 * and tells what that one lost.  The part to copy into a VMM is kvm-time.h.
 *
 *	kvm-time save FILE
 *	kvm-time restore FILE live|running|frozen
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "kvm-time.h"

#define NR_VCPUS	4

/* The last vCPU's TSC is this far ahead: there shall be something to lose. */
#define AHEAD_CYCLES	1000000007ULL

#define CLOCK_NS	123456789012345ULL

struct vm {
	int fd;
	int vcpu_fds[KVM_TIME_MAX_VCPUS];
};

static void check(int r, const char *what)
{
	if (r >= 0)
		return;
	fprintf(stderr, "kvm-time: %s: %s\n", what, strerror(-r));
	exit(EXIT_FAILURE);
}

static int checked(int fd, const char *what)
{
	check(fd < 0 ? -errno : 0, what);
	return fd;
}

static void create_vm(struct vm *vm)
{
	int kvm_fd = checked(open("/dev/kvm", O_RDWR), "/dev/kvm");

	vm->fd = checked(ioctl(kvm_fd, KVM_CREATE_VM, 0), "KVM_CREATE_VM");
	if (ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_CLOCK_GUEST) <= 0)
		check(-ENOTTY, "KVM_CAP_CLOCK_GUEST");
	close(kvm_fd);
}

static void create_vcpus(struct vm *vm, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++)
		vm->vcpu_fds[i] = checked(ioctl(vm->fd, KVM_CREATE_VCPU, (unsigned long)i),
					  "KVM_CREATE_VCPU");
}

static void save(const char *path)
{
	struct kvm_clock_data clock = { .clock = CLOCK_NS };
	struct kvm_time saved;
	struct vm vm;
	__u64 offset;
	FILE *file;
	int last;

	create_vm(&vm);
	create_vcpus(&vm, NR_VCPUS);
	check(kvm_time_ioctl(vm.fd, KVM_SET_CLOCK, &clock), "KVM_SET_CLOCK");

	last = vm.vcpu_fds[NR_VCPUS - 1];
	check(kvm_time_attr(last, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, &offset), "TSC offset");
	offset += AHEAD_CYCLES;
	check(kvm_time_attr(last, KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, &offset), "TSC offset");

	check(kvm_time_save(vm.fd, vm.vcpu_fds, NR_VCPUS, &saved), "save");

	file = fopen(path, "w");
	if (!file || fwrite(&saved, sizeof(saved), 1, file) != 1 || fclose(file))
		check(-errno, path);
	printf("saved %u vCPUs, the clock is %llu ns\n", saved.nr_vcpus, saved.clock.clock);
}

static __u64 clock_at(const struct pvclock_vcpu_time_info *line, __u64 tsc)
{
	__u64 cycles = tsc - line->tsc_timestamp;

	if (line->tsc_shift < 0)
		cycles >>= -line->tsc_shift;
	else
		cycles <<= line->tsc_shift;
	return line->system_time +
	       (__u64)(((__int128)cycles * line->tsc_to_system_mul) >> 32);
}

static __u64 abs_diff(__u64 a, __u64 b)
{
	return (__s64)(a - b) < 0 ? b - a : a - b;
}

static __u64 max_u64(__u64 a, __u64 b)
{
	return a > b ? a : b;
}

/* The clock by the TSC of vCPU 0, from where it is and for a century to come. */
static __u64 lost_ns(const struct kvm_time *saved, const struct kvm_time *now)
{
	__u64 tsc = now->vcpu[0].value.tsc_val, lost = 0;
	int bit;

	for (bit = 0; bit < 62; bit++)
		lost = max_u64(lost, abs_diff(clock_at(&saved->line, tsc + (1ULL << bit)),
					      clock_at(&now->line, tsc + (1ULL << bit))));
	return lost;
}

/* The TSCs by that of vCPU 0, or by the host's. */
static __u64 lost_cycles(const struct kvm_time *saved, const struct kvm_time *now, int by_host)
{
	__u64 before = by_host ? 0 : saved->vcpu[0].offset;
	__u64 after = by_host ? 0 : now->vcpu[0].offset;
	__u64 lost = 0;
	unsigned int i;

	for (i = 0; i < saved->nr_vcpus; i++)
		lost = max_u64(lost, abs_diff(saved->vcpu[i].offset - before,
					      now->vcpu[i].offset - after));
	return lost;
}

static const struct way {
	const char *name;
	int (*restore)(int vm_fd, const int *vcpu_fds, const struct kvm_time *saved);
} ways[] = {
	{ "live",	kvm_time_restore_live },
	{ "running",	kvm_time_restore_running },
	{ "frozen",	kvm_time_restore_frozen },
	{ }
};

static int restore(const char *path, const struct way *way)
{
	struct kvm_time saved, now;
	__u64 ns, cycles;
	struct vm vm;
	FILE *file;

	file = fopen(path, "r");
	if (!file || fread(&saved, sizeof(saved), 1, file) != 1)
		check(file ? -EIO : -errno, path);
	fclose(file);
	if (!saved.nr_vcpus || saved.nr_vcpus > KVM_TIME_MAX_VCPUS)
		check(-EINVAL, path);

	create_vm(&vm);
	check(kvm_time_restore_rate(vm.fd, &saved), "KVM_SET_TSC_KHZ");
	create_vcpus(&vm, saved.nr_vcpus);
	check(way->restore(vm.fd, vm.vcpu_fds, &saved), "restore");
	check(kvm_time_save(vm.fd, vm.vcpu_fds, saved.nr_vcpus, &now), "look");

	ns = lost_ns(&saved, &now);
	cycles = lost_cycles(&saved, &now, way->restore == kvm_time_restore_live);
	printf("%s: lost %llu ns of the clock by the TSC, %llu cycles of %u TSCs\n", way->name,
	       ns, cycles, saved.nr_vcpus);
	printf("%s: away for %llu ns by CLOCK_REALTIME, for %llu ns by the guest's clock\n",
	       way->name, now.clock.realtime - saved.clock.realtime,
	       now.clock.clock - saved.clock.clock);
	return ns || cycles ? EXIT_FAILURE : EXIT_SUCCESS;
}

int main(int argc, char *argv[])
{
	const struct way *way;

	if (argc == 3 && !strcmp(argv[1], "save")) {
		save(argv[2]);
		return EXIT_SUCCESS;
	}

	if (argc == 4 && !strcmp(argv[1], "restore")) {
		for (way = ways; way->name; way++) {
			if (!strcmp(argv[3], way->name))
				return restore(argv[2], way);
		}
	}

	fprintf(stderr, "usage: kvm-time save FILE\n"
			"       kvm-time restore FILE live|running|frozen\n");
	return EXIT_FAILURE;
}
