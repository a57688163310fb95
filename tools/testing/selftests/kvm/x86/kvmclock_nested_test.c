// SPDX-License-Identifier: GPL-2.0-only
/*
 * L1's TSC after L2, also where no exit from L2 brings it back: userspace ends L2,
 * or the entry to L2 writes the TSC and then fails.  Whoever reads L1's TSC, L1 by
 * RDTSC or RDMSR, or userspace, reads the same one, and the clock goes by it.
 *
 * What only SVM has, or only VMX, skips on the other vendor's processor.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "processor.h"
#include "svm_util.h"
#include "test_util.h"
#include "vmx.h"

/* How far L2's TSC is from L1's, and what an entry to L2 writes: both are far. */
#define FAR		BIT_ULL(40)

/* Where there is a ratio L2's TSC runs at 2^this of L1's, which inverts exactly. */
#define L2_SHIFT	1

struct msr_entry {
	uint32_t index, reserved;
	uint64_t value;
};

/* What the guest is to do, and what it has read: its copy is in its own memory. */
static struct {
	void *area;			/* of the library's SVM or VMX */
	struct msr_entry *msrs;
	uint64_t msrs_gpa;
	uint64_t l2_offset;
	uint64_t l2_shift;
	bool writes;			/* the entry to L2 writes the TSC ... */
	bool fails;			/* ... and fails then */
	bool exit_writes;		/* an exit from L2 writes it */
	bool stays;			/* L2 reads again, and again */

	struct pvclock_vcpu_time_info *page;
	uint64_t level;			/* who has read what follows */
	uint64_t rdtsc, rdmsr, rdtsc_again;
	uint64_t clock;
} nested __aligned(256);

static void guest_read(uint64_t level)
{
	uint64_t tsc;
	uint8_t flags;

	nested.rdtsc = rdtsc();
	nested.rdmsr = rdmsr(MSR_IA32_TSC);
	nested.rdtsc_again = rdtsc();
	/* The page is over L1's TSC. */
	if (level == 1)
		nested.clock = kvmclock_guest_read(nested.page, &tsc, &flags);
	nested.level = level;
	GUEST_SYNC(level);
}

static void guest_l2(void)
{
	do
		guest_read(2);
	while (READ_ONCE(nested.stays));
}

static void guest_l2_svm(void)
{
	guest_l2();
	vmmcall();
}

static void guest_l2_vmx(void)
{
	guest_l2();
	vmcall();
}

static void guest_svm(void)
{
	struct svm_test_data *svm = nested.area;

	generic_svm_setup(svm, guest_l2_svm);
	svm->vmcb->control.tsc_offset = nested.l2_offset;
	if (nested.l2_shift)
		wrmsr(MSR_AMD64_TSC_RATIO, 1ULL << (32 + nested.l2_shift));
	guest_read(1);

	run_guest(svm->vmcb, svm->vmcb_gpa);
	GUEST_ASSERT_EQ(svm->vmcb->control.exit_code, SVM_EXIT_VMMCALL);
}

static void guest_vmx(void)
{
	struct vmx_pages *vmx = nested.area;
	uint64_t ratio = 1ULL << (48 + nested.l2_shift);
	uint32_t control;

	GUEST_ASSERT(prepare_for_vmx_operation(vmx));
	GUEST_ASSERT(load_vmcs(vmx));
	prepare_vmcs(vmx, guest_l2_vmx);

	/* Without the bitmaps each RDMSR of L2 is an exit to L1. */
	control = vmreadz(CPU_BASED_VM_EXEC_CONTROL) | CPU_BASED_USE_MSR_BITMAPS;
	if (nested.l2_offset)
		control |= CPU_BASED_USE_TSC_OFFSETTING;
	vmwrite(CPU_BASED_VM_EXEC_CONTROL, control);
	vmwrite(TSC_OFFSET, nested.l2_offset);
	if (nested.l2_shift) {
		control = vmreadz(SECONDARY_VM_EXEC_CONTROL) | SECONDARY_EXEC_TSC_SCALING;
		vmwrite(SECONDARY_VM_EXEC_CONTROL, control);
		vmwrite(TSC_MULTIPLIER, ratio);
	}
	if (nested.writes) {
		nested.msrs[0].index = MSR_IA32_TSC;
		nested.msrs[0].value = FAR;
		/* One that no such list may have. */
		nested.msrs[1].index = MSR_FS_BASE;
		vmwrite(VM_ENTRY_MSR_LOAD_ADDR, nested.msrs_gpa);
		vmwrite(VM_ENTRY_MSR_LOAD_COUNT, nested.fails ? 2 : 1);
	}
	if (nested.exit_writes) {
		nested.msrs[0].index = MSR_IA32_TSC;
		nested.msrs[0].value = FAR;
		vmwrite(VM_EXIT_MSR_LOAD_ADDR, nested.msrs_gpa);
		vmwrite(VM_EXIT_MSR_LOAD_COUNT, 1);
	}
	guest_read(1);

	GUEST_ASSERT(!vmlaunch());
	if (nested.fails) {
		GUEST_ASSERT_EQ(vmreadz(VM_EXIT_REASON),
				VMX_EXIT_REASONS_FAILED_VMENTRY | EXIT_REASON_MSR_LOAD_FAIL);
		GUEST_ASSERT_EQ(vmreadz(EXIT_QUALIFICATION), 2);
	} else {
		GUEST_ASSERT_EQ(vmreadz(VM_EXIT_REASON), EXIT_REASON_VMCALL);
	}
}

/* Where L1 goes on when userspace has ended L2. */
static void guest_without_l2(void)
{
	for (;;)
		guest_read(1);
}

static void guest_l1(struct kvmclock_mail *mail)
{
	nested.page = mail->page_gva;
	if (this_cpu_has(X86_FEATURE_SVM))
		guest_svm();
	else
		guest_vmx();
	guest_without_l2();
}

FIXTURE(kvmclock_nested) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu first;	/* which does nothing */
	struct kvmclock_vcpu kv;
	typeof(nested) *guest;
	struct kvm_regs first_regs;
};

FIXTURE_VARIANT(kvmclock_nested) {
	uint64_t offset;
};

FIXTURE_VARIANT_ADD(kvmclock_nested, ahead) { .offset = FAR };
FIXTURE_VARIANT_ADD(kvmclock_nested, behind) { .offset = -FAR };
FIXTURE_VARIANT_ADD(kvmclock_nested, same) { .offset = 0 };

/* Of L2. SVM has it by a bit of its own, VMX if it scales the TSC at all. */
static bool has_ratio(void)
{
	if (kvm_cpu_has(X86_FEATURE_SVM))
		return kvm_cpu_has(X86_FEATURE_TSCRATEMSR);
	return kvm_has_cap(KVM_CAP_TSC_CONTROL);
}

FIXTURE_SETUP(kvmclock_nested)
{
	struct kvm_vm *vm = vm_create(2);
	gva_t area, msrs = vm_alloc_page(vm);

	self->vm = vm;
	kvmclock_vcpu_add_running(vm, &self->first, 0, guest_l1);
	kvmclock_vcpu_add_running(vm, &self->kv, 1, guest_l1);
	vcpu_set_msr(self->kv.vcpu, MSR_KVM_SYSTEM_TIME_NEW,
		     self->kv.page_gpa | KVM_MSR_ENABLED);
	vcpu_regs_get(self->kv.vcpu, &self->first_regs);

	if (kvm_cpu_has(X86_FEATURE_SVM))
		vcpu_alloc_svm(vm, &area);
	else
		vcpu_alloc_vmx(vm, &area);
	self->guest = addr_gva2hva(vm, (gva_t)&nested);
	self->guest->area = (void *)area;
	self->guest->msrs = (void *)msrs;
	self->guest->msrs_gpa = addr_gva2gpa(vm, msrs);
	self->guest->l2_offset = variant->offset;
	self->guest->l2_shift = variant->offset && has_ratio() ? L2_SHIFT : 0;
}

FIXTURE_TEARDOWN(kvmclock_nested)
{
	if (self->vm)
		kvm_vm_free(self->vm);
}

/* Runs the guest up to its next readings, which are to be those of @level. */
static void run_to(FIXTURE_DATA(kvmclock_nested) * self, uint64_t level, const char *when)
{
	TEST_ASSERT(kvmclock_vcpu_run(self->kv.vcpu), "%s: guest ended early", when);
	TEST_ASSERT(self->guest->level == level, "%s: L%lu runs, not L%lu", when,
		    self->guest->level, level);
}

/*
 * The TSC is one: each reading is at or after the one before, the first of all
 * being of L1's TSC at @from or userspace's.
 */
static void assert_runs(FIXTURE_DATA(kvmclock_nested) * self, uint64_t level, uint64_t from,
			const char *when)
{
	const typeof(nested) *guest = self->guest;
	struct kvm_vcpu *vcpu = self->kv.vcpu;
	struct {
		const char *by;
		uint64_t tsc;
	} reading[] = {
		{ from ? "what was written" : "KVM_GET_MSRS before" },
		{ "RDTSC" },
		{ "RDMSR" },
		{ "RDTSC again" },
		{ "KVM_GET_MSRS" },
	};
	uint64_t clock[2];
	unsigned int i;

	clock[0] = kvmclock_get(self->vm).clock;
	reading[0].tsc = from ?: vcpu_get_msr(vcpu, MSR_IA32_TSC);
	run_to(self, level, when);
	reading[1].tsc = guest->rdtsc;
	reading[2].tsc = guest->rdmsr;
	reading[3].tsc = guest->rdtsc_again;
	reading[4].tsc = vcpu_get_msr(vcpu, MSR_IA32_TSC);
	clock[1] = kvmclock_get(self->vm).clock;

	for (i = 1; i < 4 && level == 2; i++)
		reading[i].tsc = (reading[i].tsc - guest->l2_offset) >> guest->l2_shift;
	for (i = 1; i < ARRAY_SIZE(reading); i++)
		TEST_ASSERT(reading[i].tsc - reading[i - 1].tsc < FAR / 2,
			    "L%lu %s: TSC %lu by %s, %lu by %s: %+ld cycles", level, when,
			    reading[i - 1].tsc, reading[i - 1].by, reading[i].tsc,
			    reading[i].by, (int64_t)(reading[i].tsc - reading[i - 1].tsc));
	if (level == 1)
		TEST_ASSERT(guest->clock >= clock[0] && guest->clock <= clock[1],
			    "L1 %s: clock %lu, not from %lu to %lu", when, guest->clock,
			    clock[0], clock[1]);
}

/* L1 has its TSC, and its page is over it, also when that is written anew. */
static void assert_l1_goes_on(FIXTURE_DATA(kvmclock_nested) * self, uint64_t from,
			      const char *when)
{
	assert_runs(self, 1, from, when);
	vcpu_ioctl(self->kv.vcpu, KVM_KVMCLOCK_CTRL, NULL);
	assert_runs(self, 1, 0, when);
}

/* L2 runs, with L1's registers in @sregs for when it is ended. */
static void start_l2(FIXTURE_DATA(kvmclock_nested) * self, struct kvm_sregs *sregs)
{
	assert_runs(self, 1, 0, "before L2");
	vcpu_run_complete_io(self->kv.vcpu);
	vcpu_sregs_get(self->kv.vcpu, sregs);

	assert_runs(self, 2, 0, "in L1's time");
	vcpu_run_complete_io(self->kv.vcpu);
}

static void continue_l1(FIXTURE_DATA(kvmclock_nested) * self, struct kvm_sregs *sregs)
{
	struct kvm_regs regs = self->first_regs;

	regs.rip = (uintptr_t)guest_without_l2;
	vcpu_sregs_set(self->kv.vcpu, sregs);
	vcpu_regs_set(self->kv.vcpu, &regs);
}

/* How L2 usually ends. */
TEST_F(kvmclock_nested, l2_exits)
{
	struct kvm_sregs sregs;
	uint64_t offset = kvmclock_tsc_offset(&self->kv);

	start_l2(self, &sregs);
	assert_l1_goes_on(self, 0, "after an exit");
	TEST_ASSERT(kvmclock_tsc_offset(&self->kv) == offset, "L1's TSC moved");
}

/* Userspace gives the vCPU the state of one that is not in L2. */
TEST_F(kvmclock_nested, l2_ended_by_nested_state)
{
	size_t size = kvm_check_cap(KVM_CAP_NESTED_STATE);
	uint64_t offset = kvmclock_tsc_offset(&self->kv);
	struct kvm_nested_state *state = calloc(1, size);
	struct kvm_sregs sregs;

	TEST_ASSERT(state, "no memory");
	start_l2(self, &sregs);

	state->size = size;
	vcpu_nested_state_get(self->kv.vcpu, state);
	TEST_ASSERT(state->flags & KVM_STATE_NESTED_GUEST_MODE, "not in L2: flags 0x%x",
		    state->flags);
	state->flags &= ~(KVM_STATE_NESTED_GUEST_MODE | KVM_STATE_NESTED_RUN_PENDING);
	vcpu_nested_state_set(self->kv.vcpu, state);
	free(state);
	continue_l1(self, &sregs);

	assert_l1_goes_on(self, 0, "after KVM_SET_NESTED_STATE");
	TEST_ASSERT(kvmclock_tsc_offset(&self->kv) == offset, "L1's TSC moved");
}

/* Userspace gives the vCPU registers that no L2 can have. */
TEST_F(kvmclock_nested, l2_ended_by_efer)
{
	uint64_t offset = kvmclock_tsc_offset(&self->kv);
	struct kvm_sregs sregs;

	if (!kvm_cpu_has(X86_FEATURE_SVM))
		SKIP(return, "EFER.SVME is AMD's");

	start_l2(self, &sregs);
	sregs.efer &= ~EFER_SVME;
	continue_l1(self, &sregs);

	assert_l1_goes_on(self, 0, "after KVM_SET_SREGS");
	TEST_ASSERT(kvmclock_tsc_offset(&self->kv) == offset, "L1's TSC moved");
}

/* The host scales L2's TSC by L1's rate and L2's ratio, also by a rate that is new. */
TEST_F(kvmclock_nested, rate_changes_in_l2)
{
	struct kvm_vcpu *vcpu = self->kv.vcpu;
	uint64_t khz = __vcpu_ioctl(vcpu, KVM_GET_TSC_KHZ, NULL);
	struct kvm_sregs sregs;

	if (!kvm_has_cap(KVM_CAP_TSC_CONTROL))
		SKIP(return, "no TSC scaling");

	self->guest->stays = true;
	start_l2(self, &sregs);
	vcpu_ioctl(vcpu, KVM_SET_TSC_KHZ, (void *)(khz * 5 / 7));
	assert_runs(self, 2, 0, "at a lower rate");
	vcpu_ioctl(vcpu, KVM_SET_TSC_KHZ, (void *)(khz * 9 / 7));
	assert_runs(self, 2, 0, "at a higher rate");
	self->guest->stays = false;
	assert_l1_goes_on(self, 0, "after an exit");
}

/* The TSC that an entry to L2 writes is that of L1. */
TEST_F(kvmclock_nested, entry_writes_tsc)
{
	if (!kvm_cpu_has(X86_FEATURE_VMX))
		SKIP(return, "MSRs that an entry loads are Intel's");

	self->guest->writes = true;
	assert_runs(self, 1, 0, "before L2");
	assert_runs(self, 2, FAR, "after a write at its entry");
	assert_l1_goes_on(self, 0, "after an exit");
}

/* And it was written, also if the next MSR of the list makes the entry fail. */
TEST_F(kvmclock_nested, failed_entry_writes_tsc)
{
	if (!kvm_cpu_has(X86_FEATURE_VMX))
		SKIP(return, "MSRs that an entry loads are Intel's");

	self->guest->writes = true;
	self->guest->fails = true;
	assert_runs(self, 1, 0, "before L2");
	assert_l1_goes_on(self, FAR, "after a failed entry");
}

/*
 * A VM that ends while L2 runs ends L2 first, with all that L1 asked for, a TSC for
 * example, and when the vCPUs before this one are gone already.
 */
TEST_F(kvmclock_nested, vm_ends_in_l2)
{
	if (!kvm_cpu_has(X86_FEATURE_VMX))
		SKIP(return, "MSRs that an exit loads are Intel's");

	self->guest->exit_writes = true;
	assert_runs(self, 1, 0, "before L2");
	assert_runs(self, 2, 0, "in L1's time");
	/* Its memory, and this thread's, are still there. */
	kvm_vm_release(self->vm);
	self->vm = NULL;
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	TEST_REQUIRE(kvm_cpu_has(X86_FEATURE_SVM) || kvm_cpu_has(X86_FEATURE_VMX));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_NESTED_STATE));
	return test_harness_run(argc, argv);
}
