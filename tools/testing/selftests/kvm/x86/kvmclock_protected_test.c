// SPDX-License-Identifier: GPL-2.0-only
/*
 * vCPUs whose TSC is the vendor's to make, as TDX's and SNP's with Secure TSC: KVM
 * neither moves it nor says that it did, and the clock is a line over it from the
 * first moment, with any number of them.
 *
 * There is no such hardware here.  Under KVM_PROVE_CLOCK kvm.protect_tsc has KVM take
 * the TSCs of vCPUs to come for such; that of this processor, without an offset, is
 * then the host's.  What firmware does is not tested.
 */
#include <errno.h>
#include <stdint.h>
#include <unistd.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "kvmclock_host.h"
#include "processor.h"
#include "test_util.h"

#define PROTECT_TSC	"/sys/module/kvm/parameters/protect_tsc"
#define NR_VCPUS	3

FIXTURE(kvmclock_protected) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_VCPUS];
};

FIXTURE_SETUP(kvmclock_protected)
{
	unsigned int i;

	self->vm = vm_create(NR_VCPUS);
	write_file_ok(PROTECT_TSC, "1");
	for (i = 0; i < NR_VCPUS; i++)
		kvmclock_vcpu_add(self->vm, &self->vcpu[i], i);
	write_file_ok(PROTECT_TSC, "0");
}

FIXTURE_TEARDOWN(kvmclock_protected)
{
	kvm_vm_free(self->vm);
}

/* The vCPU's TSC is the host's: from before to after the call that reads it. */
static void assert_host_tsc(struct kvmclock_vcpu *kv, const char *when)
{
	uint64_t before = rdtsc(), guest = kvmclock_rdmsr(kv, MSR_IA32_TSC), after = rdtsc();

	TEST_ASSERT(before <= guest && guest <= after, "%s: TSC %lu, the host's %lu to %lu",
		    when, guest, before, after);
	TEST_ASSERT(!kvmclock_tsc_offset(kv), "%s: an offset", when);
}

/* None was written, and all are equal. */
TEST_F(kvmclock_protected, master_clock)
{
	struct kvm_clock_data data = kvmclock_get(self->vm);
	unsigned int i;

	TEST_ASSERT(data.flags & KVM_CLOCK_TSC_STABLE, "flags 0x%x before the first run",
		    data.flags);

	kvmclock_enable_all(self->vcpu, NR_VCPUS);
	for (i = 0; i < NR_VCPUS; i++) {
		TEST_ASSERT(self->vcpu[i].page->flags & PVCLOCK_TSC_STABLE_BIT,
			    "vCPU %u: flags 0x%x", i, self->vcpu[i].page->flags);
		TEST_ASSERT(oracle_same_line(self->vcpu[i].page, self->vcpu[0].page),
			    "vCPU %u has another line than vCPU 0", i);
		assert_host_tsc(&self->vcpu[i], "at first");
	}
}

/* Userspace is refused what can't be done; MSRs it may write, to no effect. */
TEST_F(kvmclock_protected, userspace)
{
	struct kvmclock_vcpu *kv = &self->vcpu[1];
	unsigned long khz = __vcpu_ioctl(kv->vcpu, KVM_GET_TSC_KHZ, NULL);
	struct kvm_vcpu_tsc_value value = kvmclock_get_value(kv);
	uint64_t offset = BIT_ULL(40);
	int r;

	kvmclock_enable_all(self->vcpu, NR_VCPUS);

	r = __vcpu_ioctl(kv->vcpu, KVM_SET_TSC_KHZ, (void *)(khz / 2));
	TEST_ASSERT(r < 0 && errno == EINVAL, "KVM_SET_TSC_KHZ: %d, errno %d", r, errno);
	r = __vcpu_device_attr_set(kv->vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_OFFSET, &offset);
	TEST_ASSERT(r < 0 && errno == EINVAL, "KVM_VCPU_TSC_OFFSET: %d, errno %d", r, errno);
	value.tsc_val += BIT_ULL(40);
	r = __kvmclock_set_value(kv, &value);
	TEST_ASSERT(r == -EINVAL, "KVM_VCPU_TSC_VALUE: %d", r);
	vcpu_set_msr(kv->vcpu, MSR_IA32_TSC, BIT_ULL(60));

	assert_host_tsc(kv, "after userspace's writes");
	TEST_ASSERT(kv->page->flags & PVCLOCK_TSC_STABLE_BIT, "the stable bit is lost");
}

TEST_F(kvmclock_protected, guest)
{
	struct kvmclock_vcpu *kv = &self->vcpu[1];

	kvmclock_enable_all(self->vcpu, NR_VCPUS);
	kvmclock_wrmsr(kv, MSR_IA32_TSC, BIT_ULL(60));
	assert_host_tsc(kv, "after a guest's write");
	kvmclock_wrmsr(kv, MSR_IA32_TSC_ADJUST, BIT_ULL(40));
	assert_host_tsc(kv, "after a guest's write of TSC_ADJUST");
	TEST_ASSERT(kv->page->flags & PVCLOCK_TSC_STABLE_BIT, "the stable bit is lost");
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	TEST_REQUIRE(!access(PROTECT_TSC, W_OK));
	return test_harness_run(argc, argv);
}
