// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guests of other hypervisors read the same clock through other structures:
 * Hyper-V's TSC page and reference counter, Xen's time in vcpu_info and beside
 * it.  Each is held against the kvmclock page, at one TSC value.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "hyperv.h"
#include "processor.h"
#include "test_util.h"

#define HOUR_NS			(3600 * NSEC_PER_SEC)
#define NR_VCPUS		2

/* Hyper-V's ABI: 100 ns = (tsc * scale >> 64) + offset, unless sequence is 0 */
#define HV_ENABLE		BIT(0)
#define HV_UNIT_NS		100

struct hv_tsc_page {
	uint32_t sequence;
	uint32_t reserved;
	uint64_t scale;
	int64_t offset;
};

/* Xen's ABI, the same for guests of 32 and of 64 bits */
#define XEN_VCPU_INFO_TIME	32
#define XEN_HYPERCALL_MSR	0x40000000
#define XEN_EVTCHN_PENDING	0x800	/* in shared_info of 64 bits */
#define XEN_PRIO_2LEVEL		((uint32_t)-1)

#define TIMER_PORT		5
#define TIMER_NS		(20 * 1000000ULL)
#define NR_TIMERS		10
#define NR_STEPS		50

/* For a failure with a reason instead of the harness's; nothing needs long. */
#define PATIENCE_S		15

static uint64_t guest_tsc_now(struct kvmclock_vcpu *kv)
{
	return kvmclock_guest_tsc(kv, rdtsc());
}

FIXTURE(kvmclock_hyperv) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_VCPUS];
	struct hv_tsc_page *page;
	gpa_t page_gpa;
	uint64_t last;		/* highest reference counter */
	unsigned int nr;
};

FIXTURE_VARIANT(kvmclock_hyperv) {
	unsigned int nr;
	bool scaled;		/* by hardware, to another rate */
};

FIXTURE_VARIANT_ADD(kvmclock_hyperv, one_vcpu) {
	.nr = 1,
};

FIXTURE_VARIANT_ADD(kvmclock_hyperv, two_vcpus) {
	.nr = 2,
};

FIXTURE_VARIANT_ADD(kvmclock_hyperv, two_vcpus_scaled) {
	.nr = 2,
	.scaled = true,
};

FIXTURE_SETUP(kvmclock_hyperv)
{
	gva_t gva;
	unsigned long khz;
	unsigned int i;

	TEST_REQUIRE(kvm_has_cap(KVM_CAP_HYPERV_TIME));
	if (variant->scaled && !kvm_has_cap(KVM_CAP_TSC_CONTROL))
		SKIP(return, "no TSC scaling");

	self->last = 0;
	self->nr = variant->nr;
	self->vm = vm_create(self->nr);
	if (variant->scaled) {
		khz = __vm_ioctl(self->vm, KVM_GET_TSC_KHZ, NULL);
		vm_ioctl(self->vm, KVM_SET_TSC_KHZ, (void *)(khz / 7 * 5 + 1));
	}
	for (i = 0; i < self->nr; i++) {
		kvmclock_vcpu_add(self->vm, &self->vcpu[i], i);
		vcpu_set_hv_cpuid(self->vcpu[i].vcpu);
	}
	gva = vm_alloc_page(self->vm);
	self->page = addr_gva2hva(self->vm, gva);
	self->page_gpa = addr_gva2gpa(self->vm, gva);
	memset(self->page, 0, PAGE_SIZE);

	for (i = 0; i < self->nr; i++)
		kvmclock_enable(&self->vcpu[i], MSR_KVM_SYSTEM_TIME_NEW);
	kvmclock_wrmsr(&self->vcpu[0], HV_X64_MSR_GUEST_OS_ID, 1ULL << 48);
	kvmclock_wrmsr(&self->vcpu[0], HV_X64_MSR_REFERENCE_TSC, self->page_gpa | HV_ENABLE);
	kvmclock_enter_all(self->vcpu, self->nr);
}

FIXTURE_TEARDOWN(kvmclock_hyperv)
{
	kvm_vm_free(self->vm);
}

static int64_t hv_page_time(const struct hv_tsc_page *page, uint64_t tsc)
{
	unsigned __int128 product = tsc;

	product *= page->scale;
	return (int64_t)(product >> 64) + page->offset;
}

/*
 * How far Hyper-V's time may be from the kvmclock, in ns.  With k the true time
 * of the line at a TSC value:
 *
 * The page has floor(tsc * s) + floor(ref_ns / 100) - floor(ref_tsc * s), where
 * s is the line's slope in units per cycle, rounded down to 2^-64.  The first
 * and the last floor together are less than a unit off, to either side; the one
 * in the middle is up to a unit too low.  So it is in (k - 200, k + 100); s
 * alone is wrong by less than 1 ns for half a year of cycles.  The kvmclock is
 * in (k - 2, k], for its two floors of 1 ns, in the shift and in the product.
 */
#define HV_LEAST_NS		(-2 * HV_UNIT_NS - 1)
#define HV_MOST_NS		(HV_UNIT_NS + 2)

static void assert_hv_time(int64_t units, uint64_t earliest, uint64_t latest, const char *what,
			   const char *after)
{
	TEST_ASSERT(units * HV_UNIT_NS >= (int64_t)earliest + HV_LEAST_NS &&
		    units * HV_UNIT_NS <= (int64_t)latest + HV_MOST_NS,
		    "%s after %s: %ld00 ns, kvmclock is %lu to %lu: off by %+ld to %+ld ns", what,
		    after, units, earliest, latest, (int64_t)(units * HV_UNIT_NS - latest),
		    (int64_t)(units * HV_UNIT_NS - earliest));
}

/* The counter is read by the guest, between two readings of the kvmclock. */
static void assert_hv_counter(FIXTURE_DATA(kvmclock_hyperv) * self, struct kvmclock_vcpu *kv,
			      const char *after)
{
	uint64_t earliest, latest, units;

	earliest = oracle_at(kv->page, guest_tsc_now(kv));
	units = kvmclock_rdmsr(kv, HV_X64_MSR_TIME_REF_COUNT);
	latest = oracle_at(kv->page, guest_tsc_now(kv));
	assert_hv_time(units, earliest, latest, "counter", after);
	TEST_ASSERT(units >= self->last, "counter after %s: %lu after %lu", after, units,
		    self->last);
	self->last = units;
}

/* The page says what the kvmclock page does, now and for a while. */
static void assert_hv_page(FIXTURE_DATA(kvmclock_hyperv) * self, struct kvmclock_vcpu *kv,
			   const char *after)
{
	uint64_t tsc, clock, now = guest_tsc_now(kv);
	unsigned int i;

	TEST_ASSERT(self->page->sequence && self->page->sequence != UINT32_MAX,
		    "after %s: no TSC page, sequence %u", after, self->page->sequence);
	for (i = 0; i < 42; i++) {
		tsc = now + (1ULL << i) - 1;
		clock = oracle_at(kv->page, tsc);
		assert_hv_time(hv_page_time(self->page, tsc), clock, clock, "TSC page", after);
	}
	assert_hv_counter(self, kv, after);
}

TEST_F(kvmclock_hyperv, page)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct hv_tsc_page before = *self->page;
	unsigned int i;

	for (i = 0; i < self->nr; i++)
		assert_hv_page(self, &kv[i], "set-up");

	/* The line did not move, and Hyper-V's page need not be written. */
	for (i = 0; i < 10; i++) {
		kvmclock_force_update(&kv[0]);
		kvmclock_enter_all(kv, self->nr);
		assert_hv_page(self, &kv[0], "a forced update");
	}
	TEST_ASSERT(before.scale == self->page->scale && before.offset == self->page->offset,
		    "offset %ld became %ld by updates of the kvmclock", before.offset,
		    self->page->offset);

	/* What it needs not be written for, it is not lost by either. */
	kvmclock_wrmsr(&kv[0], HV_X64_MSR_REFERENCE_TSC, 0);
	assert_hv_counter(self, &kv[0], "the page was disabled");
	kvmclock_wrmsr(&kv[0], HV_X64_MSR_REFERENCE_TSC, self->page_gpa | HV_ENABLE);
	assert_hv_page(self, &kv[0], "the page was enabled again");
}

TEST_F(kvmclock_hyperv, set_clock)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	uint32_t sequence;
	unsigned int i;

	for (i = 1; i < 10; i++) {
		sequence = self->page->sequence;
		kvmclock_set(self->vm, i * HOUR_NS);
		kvmclock_enter_all(kv, self->nr);
		assert_hv_page(self, &kv[0], "KVM_SET_CLOCK");
		TEST_ASSERT(self->page->sequence != sequence, "sequence stays %u", sequence);
	}
}

/*
 * A guest that was migrated, and has asked for it, keeps its page until it says that it
 * has taken up the new rate: KVM's counter goes by that page, too.
 */
TEST_F(kvmclock_hyperv, kept_page)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct hv_tsc_page kept = *self->page;
	int64_t earliest, units;

	kept.scale += kept.scale / 1000;
	kept.offset += HOUR_NS / HV_UNIT_NS;
	*self->page = kept;
	vcpu_set_msr(kv[0].vcpu, HV_X64_MSR_TSC_EMULATION_CONTROL, 1);
	vcpu_set_msr(kv[0].vcpu, HV_X64_MSR_REFERENCE_TSC, self->page_gpa | HV_ENABLE);
	kvmclock_set(self->vm, 2 * HOUR_NS);
	kvmclock_enter_all(kv, self->nr);
	TEST_ASSERT(!memcmp(self->page, &kept, sizeof(kept)),
		    "sequence %u -> %u, offset %ld -> %ld", kept.sequence, self->page->sequence,
		    kept.offset, self->page->offset);

	earliest = hv_page_time(&kept, guest_tsc_now(kv));
	units = kvmclock_rdmsr(kv, HV_X64_MSR_TIME_REF_COUNT);
	TEST_ASSERT(units >= earliest && units <= hv_page_time(&kept, guest_tsc_now(kv)),
		    "the counter is %ld, by the page %ld", units, earliest);

	vcpu_set_msr(kv[0].vcpu, HV_X64_MSR_TSC_EMULATION_CONTROL, 0);
	kvmclock_set(self->vm, 3 * HOUR_NS);
	kvmclock_enter_all(kv, self->nr);
	self->last = 0;
	assert_hv_page(self, &kv[0], "the page need not be kept any more");
}

/*
 * A guest that writes the TSC has another page before its next instruction, if
 * the page can be had: not while the vCPUs' TSCs differ.  It has no arithmetic
 * modulo 2^64, so no TSC that is about to wrap.
 */
TEST_F(kvmclock_hyperv, guest_writes_tsc)
{
	static const uint64_t values[] = {
		1ULL << 40, 0, 1, 1ULL << 62, 1ULL << 63, 12345678901, 0,
	};
	struct kvmclock_vcpu *kv = self->vcpu;
	char after[64];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(values); i++) {
		snprintf(after, sizeof(after), "a guest's write of TSC 0x%lx", values[i]);
		kvmclock_wrmsr(&kv[0], MSR_IA32_TSC, values[i]);
		if (self->nr == 1) {
			assert_hv_page(self, &kv[0], after);
		} else {
			TEST_ASSERT(!self->page->sequence, "%s: TSC page stays", after);
			assert_hv_counter(self, &kv[0], after);
			assert_hv_counter(self, &kv[1], after);
		}
	}
}

/*
 * The page goes with the stable bit and comes with it.  A reader that finds the
 * same sequence before and after has read one page, not parts of two: the
 * sequence of one that comes back is another.
 */
TEST_F(kvmclock_hyperv, stable_bit)
{
	struct kvmclock_vcpu *kv = self->vcpu, *last = &kv[self->nr - 1];
	uint64_t offset = kvmclock_tsc_offset(last);
	uint32_t sequence;
	unsigned int i;

	if (self->nr == 1)
		return;

	for (i = 0; i < 5; i++) {
		sequence = self->page->sequence;

		kvmclock_set_tsc_offset(last, offset - (1000000ULL << i));
		kvmclock_enter_all(kv, self->nr);
		TEST_ASSERT(!self->page->sequence, "a TSC page for TSCs that differ");
		assert_hv_counter(self, &kv[0], "the TSCs differ");
		assert_hv_counter(self, last, "the TSCs differ");

		kvmclock_set_tsc_offset(last, offset);
		kvmclock_enter_all(kv, self->nr);
		assert_hv_page(self, &kv[0], "the TSCs are equal again");
		assert_hv_page(self, last, "the TSCs are equal again");
		TEST_ASSERT(self->page->sequence != sequence,
			    "the page is back with sequence %u as if it had stayed", sequence);
	}
}

FIXTURE(kvmclock_xen) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_VCPUS];
	struct pvclock_vcpu_time_info *info[NR_VCPUS];	/* time in vcpu_info */
	struct pvclock_vcpu_time_info *time[NR_VCPUS];	/* vcpu_time_info */
};

static void xen_config(struct kvm_vm *vm, uint32_t flags)
{
	struct kvm_xen_hvm_config config = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL | flags,
		.msr = XEN_HYPERCALL_MSR,
	};

	vm_ioctl(vm, KVM_XEN_HVM_CONFIG, &config);
}

static void *xen_page(struct kvmclock_vcpu *kv, uint16_t type)
{
	struct kvm_vm *vm = kv->vcpu->vm;
	gva_t gva = vm_alloc_page(vm);
	struct kvm_xen_vcpu_attr attr = {
		.type = type,
		.u.gpa = addr_gva2gpa(vm, gva),
	};

	memset(addr_gva2hva(vm, gva), 0, PAGE_SIZE);
	vcpu_ioctl(kv->vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
	return addr_gva2hva(vm, gva);
}

FIXTURE_SETUP(kvmclock_xen)
{
	unsigned int i;

	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_SHARED_INFO);

	self->vm = vm_create(NR_VCPUS);
	xen_config(self->vm, 0);
	for (i = 0; i < NR_VCPUS; i++) {
		struct kvmclock_vcpu *kv = &self->vcpu[i];

		kvmclock_vcpu_add(self->vm, kv, i);
		self->info[i] = xen_page(kv, KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO) +
				XEN_VCPU_INFO_TIME;
		self->time[i] = xen_page(kv, KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO);
	}
	for (i = 0; i < NR_VCPUS; i++)
		kvmclock_enable(&self->vcpu[i], MSR_KVM_SYSTEM_TIME_NEW);
	kvmclock_enter_all(self->vcpu, NR_VCPUS);
}

FIXTURE_TEARDOWN(kvmclock_xen)
{
	kvm_vm_free(self->vm);
}

static void assert_follows(const struct pvclock_vcpu_time_info *xen,
			   const struct pvclock_vcpu_time_info *page, uint8_t flags,
			   const char *which, const char *after)
{
	TEST_ASSERT(xen->version && !(xen->version & 1), "%s after %s: version %u", which, after,
		    xen->version);
	TEST_ASSERT(xen->tsc_timestamp == page->tsc_timestamp &&
		    xen->system_time == page->system_time &&
		    xen->tsc_to_system_mul == page->tsc_to_system_mul &&
		    xen->tsc_shift == page->tsc_shift,
		    "%s after %s: { %lu, %lu, %u, %d }, kvmclock: { %lu, %lu, %u, %d }", which,
		    after, xen->tsc_timestamp, xen->system_time, xen->tsc_to_system_mul,
		    xen->tsc_shift, page->tsc_timestamp, page->system_time,
		    page->tsc_to_system_mul, page->tsc_shift);
	TEST_ASSERT(xen->flags == flags, "%s after %s: flags 0x%x, not 0x%x", which, after,
		    xen->flags, flags);
}

static void assert_xen_follows(FIXTURE_DATA(kvmclock_xen) * self, uint8_t flags, const char *after)
{
	unsigned int i;

	for (i = 0; i < NR_VCPUS; i++) {
		assert_follows(self->info[i], self->vcpu[i].page, flags, "vcpu_info", after);
		assert_follows(self->time[i], self->vcpu[i].page, flags, "vcpu_time_info", after);
	}
}

TEST_F(kvmclock_xen, same_line)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	uint64_t offset = kvmclock_tsc_offset(&kv[1]);
	struct pvclock_vcpu_time_info first;
	int64_t moved;
	unsigned int i;

	assert_xen_follows(self, PVCLOCK_TSC_STABLE_BIT, "set-up");
	first = *self->time[0];

	for (i = 0; i < 10; i++) {
		kvmclock_force_update(&kv[0]);
		kvmclock_enter_all(kv, NR_VCPUS);
		assert_xen_follows(self, PVCLOCK_TSC_STABLE_BIT, "a forced update");

		kvmclock_set_tsc_offset(&kv[1], offset + 12345);
		kvmclock_enter_all(kv, NR_VCPUS);
		assert_xen_follows(self, 0, "another TSC offset");

		kvmclock_call(&kv[1], KVMCLOCK_ADD_TSC, 0, -123456789ULL);
		assert_xen_follows(self, 0, "a guest's write of its TSC");

		kvmclock_set_tsc_offset(&kv[1], offset);
		kvmclock_enter_all(kv, NR_VCPUS);
		assert_xen_follows(self, PVCLOCK_TSC_STABLE_BIT, "the old TSC offset");
	}
	moved = kvmclock_movement(&first, self->time[0], guest_tsc_now(&kv[0]));
	TEST_ASSERT(!moved, "vcpu_time_info moved by %+ld ns", moved);

	kvmclock_set(self->vm, HOUR_NS);
	kvmclock_enter_all(kv, NR_VCPUS);
	assert_xen_follows(self, PVCLOCK_TSC_STABLE_BIT, "KVM_SET_CLOCK");
	TEST_ASSERT(self->time[1]->system_time >= HOUR_NS, "KVM_SET_CLOCK did not reach Xen");
}

/* A guest that has no kvmclock page at all. */
TEST_F(kvmclock_xen, without_kvmclock)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct kvm_clock_data data;
	uint64_t expected;
	unsigned int i;

	for (i = 0; i < NR_VCPUS; i++)
		kvmclock_wrmsr(&kv[i], MSR_KVM_SYSTEM_TIME_NEW, 0);
	for (i = 1; i < 4; i++) {
		kvmclock_set(self->vm, i * HOUR_NS);
		kvmclock_enter_all(kv, NR_VCPUS);
		data = kvmclock_get(self->vm);
		expected = oracle_at(self->time[1], kvmclock_guest_tsc(&kv[1], data.host_tsc));
		TEST_ASSERT(data.clock == expected, "KVM_GET_CLOCK %llu, Xen's guest has %lu",
			    data.clock, expected);
		assert_follows(self->info[0], self->time[0], PVCLOCK_TSC_STABLE_BIT, "vcpu_info",
			       "KVM_SET_CLOCK");
		assert_follows(self->info[1], self->time[1], PVCLOCK_TSC_STABLE_BIT, "vcpu_info",
			       "KVM_SET_CLOCK");
	}
}

/* KVM_KVMCLOCK_CTRL speaks to kvmclock's reader alone: nobody clears it here. */
TEST_F(kvmclock_xen, guest_stopped)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	unsigned int i;

	for (i = 0; i < 3; i++) {
		vcpu_ioctl(kv[0].vcpu, KVM_KVMCLOCK_CTRL, NULL);
		assert_xen_follows(self, PVCLOCK_TSC_STABLE_BIT, "KVM_KVMCLOCK_CTRL, at once");
		kvmclock_enter_all(kv, NR_VCPUS);
		TEST_ASSERT(kv[0].page->flags & PVCLOCK_GUEST_STOPPED, "not told");
		assert_xen_follows(self, PVCLOCK_TSC_STABLE_BIT, "KVM_KVMCLOCK_CTRL");

		kvmclock_force_update(&kv[0]);
		assert_xen_follows(self, PVCLOCK_TSC_STABLE_BIT, "an update while stopped");
		kvmclock_call(&kv[0], KVMCLOCK_CLEAR_STOPPED, 0, 0);
		kvmclock_force_update(&kv[0]);
		assert_xen_follows(self, PVCLOCK_TSC_STABLE_BIT, "an update after that");
	}
}

/* One page for both: what Xen's update writes has the flag of kvmclock's. */
TEST_F(kvmclock_xen, guest_stopped_shared)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
		.u.gpa = kv->page_gpa,
	};
	unsigned int i;

	vcpu_ioctl(kv->vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
	kvmclock_enter(kv);
	for (i = 1; i < 4; i++) {
		vcpu_ioctl(kv->vcpu, KVM_KVMCLOCK_CTRL, NULL);
		kvmclock_enter(kv);
		TEST_ASSERT(kv->page->flags & PVCLOCK_GUEST_STOPPED, "not told");
		kvmclock_set(self->vm, i * HOUR_NS);
		kvmclock_enter(kv);
		TEST_ASSERT(kv->page->flags & PVCLOCK_GUEST_STOPPED, "told, and taken back");
		kvmclock_call(kv, KVMCLOCK_CLEAR_STOPPED, 0, 0);
		kvmclock_set(self->vm, i * HOUR_NS);
		kvmclock_enter(kv);
		TEST_ASSERT(!(kv->page->flags & PVCLOCK_GUEST_STOPPED), "told once more");
	}
}

/* For guests that can't bear it, and only where they look. */
TEST_F(kvmclock_xen, tsc_unstable)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	unsigned int i;

	TEST_ASSERT(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE,
		    "the stable bit can't be hidden from Xen's guests");
	for (i = 0; i < 3; i++) {
		xen_config(self->vm, KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE);
		kvmclock_enter_all(kv, NR_VCPUS);
		assert_xen_follows(self, 0, "PVCLOCK_TSC_UNSTABLE");
		kvmclock_set(self->vm, HOUR_NS);
		kvmclock_enter_all(kv, NR_VCPUS);
		assert_xen_follows(self, 0, "PVCLOCK_TSC_UNSTABLE and KVM_SET_CLOCK");
		TEST_ASSERT(kv[0].page->flags & PVCLOCK_TSC_STABLE_BIT,
			    "kvmclock lost its stable bit");

		xen_config(self->vm, 0);
		kvmclock_enter_all(kv, NR_VCPUS);
		assert_xen_follows(self, PVCLOCK_TSC_STABLE_BIT, "no PVCLOCK_TSC_UNSTABLE");
	}
}

/*
 * A timer is set by the guest's clock and run by the host's.  It is to fire
 * when the guest's says so, and that changes by KVM_SET_CLOCK and with the TSC:
 * the vCPU need not have run since.
 *
 * Early is what is earlier than the two clocks' rates allow, 2^-21 of the time
 * (see kvmclock_wallclock_test), and the rounding of each reading.  Late is
 * whatever takes so much patience that no loaded machine explains it.
 */
TEST_F(kvmclock_xen, timer)
{
	struct kvm_xen_hvm_attr attr = { .type = KVM_XEN_ATTR_TYPE_LONG_MODE };
	struct kvm_xen_vcpu_attr timer = { .type = KVM_XEN_VCPU_ATTR_TYPE_TIMER };
	struct kvmclock_vcpu *kv = &self->vcpu[1];
	gva_t gva = vm_alloc_page(self->vm);
	uint64_t *pending = addr_gva2hva(self->vm, gva) + XEN_EVTCHN_PENDING;
	const uint64_t early = (TIMER_NS >> 21) + 3;
	uint64_t expires, offset = kvmclock_tsc_offset(kv);
	struct kvm_clock_data data;
	unsigned int i;
	time_t begin;
	bool fired;

	TEST_ASSERT(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_EVTCHN_SEND,
		    "no timers for Xen's guests");
	attr.u.long_mode = 1;
	vm_ioctl(self->vm, KVM_XEN_HVM_SET_ATTR, &attr);
	attr = (struct kvm_xen_hvm_attr) {
		.type = KVM_XEN_ATTR_TYPE_SHARED_INFO,
		.u.shared_info.gfn = addr_gva2gpa(self->vm, gva) >> PAGE_SHIFT,
	};
	vm_ioctl(self->vm, KVM_XEN_HVM_SET_ATTR, &attr);

	for (i = 0; i < NR_TIMERS; i++) {
		/* Forward, back, and with the TSC elsewhere. */
		kvmclock_set(self->vm, (i & 1 ? 1 : 1 + i) * HOUR_NS);
		if (i % 3)
			kvmclock_set_tsc_offset(kv, offset + i * 1000000000ULL);
		if (i % 4 == 3)
			kvmclock_enter(kv);

		WRITE_ONCE(*pending, 0);
		expires = kvmclock_get(self->vm).clock + TIMER_NS;
		timer.u.timer.port = TIMER_PORT;
		timer.u.timer.priority = XEN_PRIO_2LEVEL;
		timer.u.timer.expires_ns = expires;
		vcpu_ioctl(kv->vcpu, KVM_XEN_VCPU_SET_ATTR, &timer);

		begin = time(NULL);
		do {
			fired = READ_ONCE(*pending) & BIT(TIMER_PORT);
			data = kvmclock_get(self->vm);
			TEST_ASSERT(!fired || data.clock + early >= expires,
				    "timer %u fired %lld ns early", i, expires - data.clock);
			TEST_ASSERT(time(NULL) < begin + PATIENCE_S,
				    "timer %u has not fired %lld ns after it was due", i,
				    data.clock - expires);
		} while (!fired);
	}
}

static struct kvm_xen_vcpu_attr get_runstate(struct kvmclock_vcpu *kv)
{
	struct kvm_xen_vcpu_attr attr = { .type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA };

	vcpu_ioctl(kv->vcpu, KVM_XEN_VCPU_GET_ATTR, &attr);
	return attr;
}

/*
 * What a vCPU has spent in each of its states only grows, by no more than has
 * passed, wherever the clock is set to: also back.  Together it is the time at which
 * the last one was entered, without which it could not be restored.
 */
TEST_F(kvmclock_xen, runstate)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	struct kvm_xen_vcpu_attr old, new;
	uint64_t *was, *is, spent, passed, sum, last_begin, begin = clock_ns(CLOCK_MONOTONIC_RAW);
	unsigned int i, state;

	TEST_ASSERT(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_RUNSTATE,
		    "no runstates for Xen's guests");
	kvmclock_set(self->vm, 2 * HOUR_NS);
	xen_page(kv, KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR);
	kvmclock_enter(kv);
	old = get_runstate(kv);

	for (i = 0; i < NR_STEPS; i++) {
		last_begin = begin;
		begin = clock_ns(CLOCK_MONOTONIC_RAW);
		kvmclock_set(self->vm, kvmclock_get(self->vm).clock - (1ULL << (i % 40)));
		kvmclock_enter(kv);
		new = get_runstate(kv);
		passed = clock_ns(CLOCK_MONOTONIC_RAW) - last_begin;

		was = (uint64_t *)&old.u.runstate.time_running;
		is = (uint64_t *)&new.u.runstate.time_running;
		for (spent = 0, sum = 0, state = 0; state < 4; state++) {
			TEST_ASSERT(is[state] >= was[state], "state %u: %lu ns after %lu", state,
				    is[state], was[state]);
			spent += is[state] - was[state];
			sum += is[state];
		}
		TEST_ASSERT(sum == new.u.runstate.state_entry_time,
			    "states last %lu ns, and the next one begins at %llu", sum,
			    (unsigned long long)new.u.runstate.state_entry_time);
		/* Two clocks, see kvmclock_wallclock_test, and four readings that round. */
		TEST_ASSERT(spent <= passed + (passed >> 21) + 8, "%lu ns were spent in %lu",
			    spent, passed);
		old = new;
	}

	kvmclock_set(self->vm, old.u.runstate.state_entry_time);
	vcpu_ioctl(kv->vcpu, KVM_XEN_VCPU_SET_ATTR, &old);
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	return test_harness_run(argc, argv);
}
