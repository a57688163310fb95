// SPDX-License-Identifier: GPL-2.0
/*
 * The first PID 1 of a kernel that has its drivers in modules: loads those that
 * /modules lists, a path a line, in that order, and becomes /init.next.  "/init hold"
 * is for who has taken KVM away and brought it back: see hold_jump_labels().
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define APIC_BASE_ENABLE	(1 << 11)
#define XEN_HYPERCALL_MSR	0x40000000

/* The runner looks for these first words on the console. */
static __attribute__((__noreturn__)) void give_up(const char *what)
{
	printf("Bail out! %s: %s\n", what, strerror(errno));
	fflush(stdout);
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}

static void mount_one(const char *type, const char *where)
{
	mkdir(where, 0755);
	if (mount(type, where, type, 0, NULL) && errno != EBUSY)
		give_up(where);
}

static void load_modules(void)
{
	FILE *list = fopen("/modules", "r");
	char path[256];
	int fd;

	if (!list)
		give_up("/modules");
	while (fgets(path, sizeof(path), list)) {
		path[strcspn(path, "\n")] = '\0';
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0 || syscall(SYS_finit_module, fd, "", 0))
			give_up(path);
		close(fd);
	}
	fclose(list);
}

/* All CPUs but the first, which has no such file. */
static void set_cpus_online(bool online)
{
	glob_t cpus;
	size_t i;
	int fd;

	if (glob("/sys/devices/system/cpu/cpu[0-9]*/online", 0, NULL, &cpus))
		return;
	for (i = 0; i < cpus.gl_pathc; i++) {
		fd = open(cpus.gl_pathv[i], O_WRONLY);
		if (fd < 0 || write(fd, online ? "1" : "0", 1) != 1)
			give_up(cpus.gl_pathv[i]);
		close(fd);
	}
	globfree(&cpus);
}

static int kvm_ioctl(int fd, unsigned long request, const char *name, unsigned long arg)
{
	int r = ioctl(fd, request, arg);

	if (r < 0)
		give_up(name);
	return r;
}

#define KVM_IOCTL(fd, request, arg)	kvm_ioctl(fd, request, #request, (unsigned long)(arg))

/*
 * A kernel with jump labels rewrites its own code when the first VM of a kind
 * comes and when the last one goes: in the scheduler for any VM, in KVM for a
 * vCPU without an APIC or with a disabled one, and for Xen.  QEMU 7.2 may be
 * translating that code for one CPU while another one rewrites it, and keep the
 * breakpoint that stands there for an instant; the kernel dies of "Oops: int3".
 * So VMs of each kind are made here, while there is one CPU, and stay until the
 * machine ends, or somebody kills who has /dev/kvm open, while there is one CPU.
 */
static void hold_jump_labels(void)
{
	struct kvm_xen_hvm_config xen = { .msr = XEN_HYPERCALL_MSR };
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct kvm_sregs sregs;
	int vm, vcpu;

	if (kvm < 0)
		give_up("/dev/kvm");

	vm = KVM_IOCTL(kvm, KVM_CREATE_VM, 0);
	KVM_IOCTL(vm, KVM_CREATE_VCPU, 0);

	vm = KVM_IOCTL(kvm, KVM_CREATE_VM, 0);
	KVM_IOCTL(vm, KVM_XEN_HVM_CONFIG, &xen);
	KVM_IOCTL(vm, KVM_CREATE_IRQCHIP, 0);
	vcpu = KVM_IOCTL(vm, KVM_CREATE_VCPU, 0);
	KVM_IOCTL(vcpu, KVM_GET_SREGS, &sregs);
	sregs.apic_base &= ~APIC_BASE_ENABLE;
	KVM_IOCTL(vcpu, KVM_SET_SREGS, &sregs);

	/* These file descriptors are closed on exec, so that a child has them. */
	switch (fork()) {
	case -1:
		give_up("fork");
	case 0:
		/* Who ends the session in which it was made does not end it. */
		setsid();
		for (;;)
			pause();
	}
}

int main(int argc, char *argv[])
{
	if (argc > 1 && !strcmp(argv[1], "hold")) {
		hold_jump_labels();
		return 0;
	}
	mount_one("devtmpfs", "/dev");
	mount_one("sysfs", "/sys");
	load_modules();
	if (!access("/sys/module/kvm", F_OK)) {
		set_cpus_online(false);
		hold_jump_labels();
		set_cpus_online(true);
	}

	/* The environment holds what the command line says to init. */
	execv("/init.next", argv);
	give_up("/init.next");
}
