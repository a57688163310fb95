// SPDX-License-Identifier: GPL-2.0-only
/*
 * Guests whose TSC the hardware scales.  At every rate that KVM takes the clock
 * is a line over the scaled TSC, and what holds at the host's rate holds there:
 * no update moves it, and whoever reads the time reads the guest's.  A change of
 * the rate changes the slope alone.
 *
 * Skips where there is no such hardware.
 */
#include <limits.h>
#include <pthread.h>
#include <sched.h>
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

/* Two clocks that differ by 50 ppb are 50 ns apart after the longer one. */
#define DRIFT_US		1000000
#define SHORT_DRIFT_US		250000

#define NR_VCPUS		2
#define NR_UPDATES		20
#define NR_READINGS		20

/* vCPUs that are given their rate one by one, this far apart. */
#define NR_TURNED		4
#define TURN_US			20000
#define NR_RACERS		24

/* A unit of a multiplier of 2^31: what rounding down may be off. */
#define RATE_ERROR		(1.0 / (1ULL << 31))
/* Of a double's 53 bits the last ones are in doubt. */
#define RATE_DOUBT		(1.0 / (1ULL << 50))

#define HV_UNIT_NS		100
#define XEN_HYPERCALL_MSR	0x40000000

static uint64_t host_khz, lowest_khz, highest_khz;

static int set_vm_khz(struct kvm_vm *vm, uint64_t khz)
{
	return __vm_ioctl(vm, KVM_SET_TSC_KHZ, (void *)khz);
}

static int set_vcpu_khz(struct kvmclock_vcpu *kv, uint64_t khz)
{
	return __vcpu_ioctl(kv->vcpu, KVM_SET_TSC_KHZ, (void *)khz);
}

/* KVM does not tell its limits, it refuses what is beyond. */
static void find_limits(void)
{
	struct kvm_vm *vm = vm_create(1);
	uint64_t refused, taken, khz;

	host_khz = __vm_ioctl(vm, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT((int)host_khz > 0, "no TSC rate");

	/* 0 is no rate, but the name of the host's. */
	for (refused = 0, taken = host_khz; taken - refused > 1; ) {
		khz = (refused + taken) / 2;
		*(set_vm_khz(vm, khz) ? &refused : &taken) = khz;
	}
	lowest_khz = taken;

	for (taken = host_khz, refused = 1ULL << 32; refused - taken > 1; ) {
		khz = (refused + taken) / 2;
		*(set_vm_khz(vm, khz) ? &refused : &taken) = khz;
	}
	highest_khz = taken;

	kvm_vm_free(vm);
}

FIXTURE(kvmclock_scaling) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_VCPUS];
	uint64_t khz;
};

FIXTURE_VARIANT(kvmclock_scaling) {
	uint64_t mul, div, add;		/* from the host's rate */
	uint64_t *limit;		/* or this one */
};

FIXTURE_VARIANT_ADD(kvmclock_scaling, hundredth) { .mul = 1, .div = 97 };
FIXTURE_VARIANT_ADD(kvmclock_scaling, khz_61234) { .div = 1, .add = 61234 };
FIXTURE_VARIANT_ADD(kvmclock_scaling, five_sevenths) { .mul = 5, .div = 7, .add = 1 };
FIXTURE_VARIANT_ADD(kvmclock_scaling, one_less) { .mul = 1, .div = 1, .add = -1 };
FIXTURE_VARIANT_ADD(kvmclock_scaling, one_more) { .mul = 1, .div = 1, .add = 1 };
FIXTURE_VARIANT_ADD(kvmclock_scaling, ten_thirds) { .mul = 10, .div = 3 };
FIXTURE_VARIANT_ADD(kvmclock_scaling, below_2_32_hz) { .div = 1, .add = 4294967 };
FIXTURE_VARIANT_ADD(kvmclock_scaling, above_2_32_hz) { .div = 1, .add = 4294968 };
FIXTURE_VARIANT_ADD(kvmclock_scaling, highest) { .limit = &highest_khz };
FIXTURE_VARIANT_ADD(kvmclock_scaling, lowest) { .limit = &lowest_khz };

FIXTURE_SETUP(kvmclock_scaling)
{
	uint64_t khz = variant->limit ? *variant->limit :
					host_khz * variant->mul / variant->div + variant->add;
	unsigned int i;
	int r;

	self->khz = khz;
	self->vm = vm_create(NR_VCPUS);
	r = set_vm_khz(self->vm, khz);
	TEST_ASSERT(!r, "%lu kHz on a VM: errno %d", khz, errno);
	r = __vm_ioctl(self->vm, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT(r == (int)khz, "the VM was set to %lu kHz and has %d", khz, r);

	for (i = 0; i < NR_VCPUS; i++) {
		kvmclock_vcpu_add(self->vm, &self->vcpu[i], i);
		r = __vcpu_ioctl(self->vcpu[i].vcpu, KVM_GET_TSC_KHZ, NULL);
		TEST_ASSERT(r == (int)khz, "vCPU %u of a VM at %lu kHz has %d", i, khz, r);
	}
	/* Before it runs: then its CPUID is settled. */
	vcpu_set_hv_cpuid(self->vcpu[0].vcpu);
	for (i = 0; i < NR_VCPUS; i++)
		kvmclock_enable(&self->vcpu[i], MSR_KVM_SYSTEM_TIME_NEW);
	kvmclock_enter_all(self->vcpu, NR_VCPUS);
}

FIXTURE_TEARDOWN(kvmclock_scaling)
{
	kvm_vm_free(self->vm);
}

/* The clock that the guest reads at a host TSC. */
static uint64_t clock_at(struct kvmclock_vcpu *kv, uint64_t host_tsc)
{
	struct pvclock_vcpu_time_info page = kvmclock_read_page(kv->page);

	return oracle_at(&page, kvmclock_guest_tsc(kv, host_tsc));
}

static void assert_stable(struct kvmclock_vcpu *kv, bool stable, const char *when)
{
	TEST_ASSERT(!!(kv->page->flags & PVCLOCK_TSC_STABLE_BIT) == stable,
		    "vCPU %u %s: flags 0x%x, %sstable expected", kv->vcpu->id, when,
		    kv->page->flags, stable ? "" : "un");
}

static void assert_unmoved(struct kvmclock_vcpu *kv, const struct pvclock_vcpu_time_info *before,
			   const char *by)
{
	struct pvclock_vcpu_time_info after = kvmclock_read_page(kv->page);
	int64_t moved = kvmclock_movement(before, &after, kvmclock_guest_tsc(kv, rdtsc()));

	TEST_ASSERT(!moved, "vCPU %u: clock moved by %+ld ns by %s", kv->vcpu->id, moved, by);
}

/* Two vCPUs, and the host, at one host TSC each time. */
static void assert_one_clock(struct kvm_vm *vm, struct kvmclock_vcpu *kv, const char *when)
{
	struct kvm_clock_data data;
	uint64_t clock;
	unsigned int i;

	for (i = 0; i < NR_READINGS; i++) {
		data = kvmclock_get(vm);
		TEST_ASSERT(data.flags == KVMCLOCK_GET_FLAGS, "%s: flags 0x%x", when, data.flags);

		clock = kvmclock_call(&kv[0], KVMCLOCK_READ_AT, 0,
				      kvmclock_guest_tsc(&kv[0], data.host_tsc));
		TEST_ASSERT(data.clock == clock, "%s: KVM_GET_CLOCK is %+ld ns from the guest's",
			    when, (int64_t)(data.clock - clock));
		TEST_ASSERT(clock == clock_at(&kv[0], data.host_tsc), "guest computes %lu", clock);
		TEST_ASSERT(clock == clock_at(&kv[1], data.host_tsc),
			    "%s: vCPU 1 is %+ld ns from vCPU 0", when,
			    (int64_t)(clock_at(&kv[1], data.host_tsc) - clock));
	}
}

/*
 * The guest's TSC has the rate that was asked for, to the ratio's last bit, and the
 * line has that rate, to the multiplier's; and the guest finds it there.
 */
static void assert_rate(struct kvmclock_vcpu *kv, uint64_t khz)
{
	unsigned __int128 asked, rate;
	struct pvclock_vcpu_time_info page = kvmclock_read_page(kv->page);
	struct kvmclock_tsc tsc = kvmclock_get_tsc(kv);
	double line_hz = 1e9 * (1ULL << 32) / page.tsc_to_system_mul;
	double tsc_hz, off;

	asked = (unsigned __int128)khz << tsc.frac_bits;
	rate = (unsigned __int128)host_khz * tsc.ratio;
	tsc_hz = (double)rate / (1ULL << tsc.frac_bits) * 1000;
	line_hz = page.tsc_shift < 0 ? line_hz * (1ULL << -page.tsc_shift) :
				       line_hz / (1ULL << page.tsc_shift);

	TEST_ASSERT(rate <= asked && rate + host_khz > asked,
		    "%lu kHz: the TSC has %.9f Hz", khz, tsc_hz);
	off = line_hz / (khz * 1000.0) - 1;
	TEST_ASSERT(off > -RATE_DOUBT && off < RATE_ERROR,
		    "%lu kHz: the line's rate is off by %+.4f ppb", khz, off * 1e9);
	assert_khz(&page, khz);
}

TEST_F(kvmclock_scaling, rate)
{
	unsigned int i;

	for (i = 0; i < NR_VCPUS; i++)
		assert_rate(&self->vcpu[i], self->khz);
}

TEST_F(kvmclock_scaling, forced_updates)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	struct pvclock_vcpu_time_info first = *kv[0].page;
	unsigned int i;

	usleep(DRIFT_US);
	for (i = 0; i < NR_UPDATES; i++) {
		struct pvclock_vcpu_time_info before = *kv[0].page;

		kvmclock_force_update(&kv[0]);
		TEST_ASSERT(kv[0].page->version != before.version, "no update at all");
		assert_unmoved(&kv[0], &before, "one forced update");
		assert_unmoved(&kv[0], &first, "forced updates");
		assert_stable(&kv[0], true, "after an update");
	}
}

TEST_F(kvmclock_scaling, get_clock)
{
	struct kvm_clock_data data;

	assert_one_clock(self->vm, self->vcpu, "early");
	usleep(SHORT_DRIFT_US);
	assert_one_clock(self->vm, self->vcpu, "late");

	kvmclock_set(self->vm, 1ULL << 60);
	data = kvmclock_get(self->vm);
	kvmclock_enter_all(self->vcpu, NR_VCPUS);
	assert_one_clock(self->vm, self->vcpu, "after KVM_SET_CLOCK");
	TEST_ASSERT(data.clock == clock_at(&self->vcpu[0], data.host_tsc),
		    "KVM_GET_CLOCK after KVM_SET_CLOCK: %+ld ns before the guest ran",
		    (int64_t)(data.clock - clock_at(&self->vcpu[0], data.host_tsc)));
}

/*
 * Realtime less the guest's clock.  The clock steps once a cycle, so this goes
 * up and down by as much as one.
 */
static int64_t guest_epoch_ns(struct kvm_vm *vm, struct kvmclock_vcpu *kv)
{
	struct kvm_clock_data data = kvmclock_get(vm);

	return data.realtime - clock_at(kv, data.host_tsc);
}

TEST_F(kvmclock_scaling, wall_clock)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	gva_t gva = vm_alloc_page(self->vm);
	struct pvclock_wall_clock *wall = addr_gva2hva(self->vm, gva);
	int64_t cycle_ns = 1000000 / self->khz + 1;
	int64_t before, after, epoch;

	usleep(SHORT_DRIFT_US);
	before = guest_epoch_ns(self->vm, kv);
	kvmclock_wrmsr(kv, MSR_KVM_WALL_CLOCK_NEW, addr_gva2gpa(self->vm, gva));
	after = guest_epoch_ns(self->vm, kv);
	epoch = wall->sec * NSEC_PER_SEC + wall->nsec;
	TEST_ASSERT(epoch >= min(before, after) - cycle_ns &&
		    epoch <= max(before, after) + cycle_ns,
		    "the epoch is off by %+ld to %+ld ns, with cycles of %ld ns", epoch - before,
		    epoch - after, cycle_ns);
}

TEST_F(kvmclock_scaling, hyperv_counter)
{
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	uint64_t since, until, units;

	kvmclock_wrmsr(kv, HV_X64_MSR_GUEST_OS_ID, 1ULL << 48);
	usleep(SHORT_DRIFT_US);
	since = clock_at(kv, rdtsc());
	units = kvmclock_rdmsr(kv, HV_X64_MSR_TIME_REF_COUNT);
	until = clock_at(kv, rdtsc());
	TEST_ASSERT(units >= since / HV_UNIT_NS && units <= until / HV_UNIT_NS,
		    "Hyper-V's counter %lu is not in %lu to %lu", units, since / HV_UNIT_NS,
		    until / HV_UNIT_NS);
}

TEST_F(kvmclock_scaling, xen)
{
	struct kvm_xen_hvm_config config = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
		.msr = XEN_HYPERCALL_MSR,
	};
	gva_t gva = vm_alloc_page(self->vm);
	struct kvm_xen_vcpu_attr attr = {
		.type = KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
		.u.gpa = addr_gva2gpa(self->vm, gva),
	};
	struct pvclock_vcpu_time_info *time = addr_gva2hva(self->vm, gva), page;
	struct kvmclock_vcpu *kv = &self->vcpu[0];
	uint64_t since, until, entered;

	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_RUNSTATE);

	vm_ioctl(self->vm, KVM_XEN_HVM_CONFIG, &config);
	vcpu_ioctl(kv->vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);
	attr.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_ADDR;
	attr.u.gpa += sizeof(*time);
	vcpu_ioctl(kv->vcpu, KVM_XEN_VCPU_SET_ATTR, &attr);

	usleep(SHORT_DRIFT_US);
	since = clock_at(kv, rdtsc());
	kvmclock_enter(kv);
	attr.type = KVM_XEN_VCPU_ATTR_TYPE_RUNSTATE_DATA;
	vcpu_ioctl(kv->vcpu, KVM_XEN_VCPU_GET_ATTR, &attr);
	until = clock_at(kv, rdtsc());

	page = *kv->page;
	TEST_ASSERT(time->tsc_timestamp == page.tsc_timestamp &&
		    time->system_time == page.system_time &&
		    time->tsc_to_system_mul == page.tsc_to_system_mul &&
		    time->tsc_shift == page.tsc_shift, "Xen's page is not the kvmclock's");
	entered = attr.u.runstate.state_entry_time;
	TEST_ASSERT(entered >= since && entered <= until,
		    "Xen's vCPU was entered %+ld to %+ld ns from when it was",
		    (int64_t)(entered - since), (int64_t)(entered - until));
}

/* How a vCPU's clock and TSC follow from the host's TSC. */
struct view {
	struct pvclock_vcpu_time_info page;
	struct kvmclock_tsc tsc;
};

static struct view view(struct kvmclock_vcpu *kv)
{
	return (struct view) {
		.page = kvmclock_read_page(kv->page),
		.tsc = kvmclock_get_tsc(kv),
	};
}

static uint64_t view_tsc(const struct view *v, uint64_t host_tsc)
{
	return kvmclock_tsc_at(&v->tsc, host_tsc);
}

static uint64_t view_clock(const struct view *v, uint64_t host_tsc)
{
	return oracle_at(&v->page, view_tsc(v, host_tsc));
}

/* The first host TSC at which the counter before any offset is @scaled. */
static uint64_t host_tsc_of(const struct view *v, uint64_t scaled)
{
	unsigned __int128 product = scaled;

	product <<= v->tsc.frac_bits;
	product += v->tsc.ratio - 1;
	return product / v->tsc.ratio;
}

/*
 * One rate took over from the other at some host TSC in [@since, @until]: there
 * the TSC went on from the value it had.
 */
static void assert_tsc_goes_on(const struct view *old, const struct view *new, uint64_t since,
			       uint64_t until)
{
	uint64_t least = min(view_tsc(old, until), view_tsc(old, since) +
			     (view_tsc(new, until) - view_tsc(new, since)));
	uint64_t most = max(view_tsc(old, until), view_tsc(old, since) +
			    (view_tsc(new, until) - view_tsc(new, since)));
	uint64_t now = view_tsc(new, until);

	/* Each of two counts of whole cycles is rounded by less than one. */
	TEST_ASSERT(now + 2 >= least && now <= most + 2,
		    "TSC: %lu cycles since the rate changed, %lu to %lu passed",
		    now - view_tsc(old, since), least - view_tsc(old, since),
		    most - view_tsc(old, since));
}

/*
 * The new line's reference is where it took over, in whole cycles of the new
 * rate.  The old line, somewhere in that cycle, has the same number.
 */
static void assert_clock_goes_on(const struct view *old, const struct view *new, uint64_t since,
				 uint64_t until)
{
	uint64_t ref = new->page.tsc_timestamp - new->tsc.offset;
	uint64_t first = max(since, host_tsc_of(new, ref));
	uint64_t last = min(until, host_tsc_of(new, ref + 1) - 1);

	TEST_ASSERT(first <= last, "the line starts at %lu, %lu to %lu is when the rate changed",
		    host_tsc_of(new, ref), since, until);
	TEST_ASSERT(new->page.system_time >= view_clock(old, first) &&
		    new->page.system_time <= view_clock(old, last),
		    "the line starts at %lu, the old one had %lu to %lu",
		    (uint64_t)new->page.system_time, view_clock(old, first),
		    view_clock(old, last));
}

/*
 * Linux 6.12 takes a rate that its ratio rounds to less than 1 kHz for 0.  A page that
 * begins with it has no slope; a change to it would have the kernel look for one for ever,
 * and no signal ends that: not to be tried.
 */
static void assert_has_slope(struct kvmclock_vcpu *kv)
{
	TEST_ASSERT(kv->page->tsc_to_system_mul, "no slope: to set the rate would hang a CPU");
}

/* One vCPU is all of the VM: from one master clock to the other. */
TEST_F(kvmclock_scaling, changed_while_running)
{
	const uint64_t rates[] = { host_khz, self->khz, host_khz / 3 + 1, self->khz, host_khz };
	struct kvm_vm *vm = vm_create(1);
	struct kvmclock_vcpu kv;
	struct view old, new;
	uint64_t since, until;
	unsigned int i;
	int r;

	assert_has_slope(&self->vcpu[0]);
	kvmclock_vcpu_add(vm, &kv, 0);
	kvmclock_enable(&kv, MSR_KVM_SYSTEM_TIME_NEW);
	kvmclock_enter(&kv);

	for (i = 1; i < ARRAY_SIZE(rates); i++) {
		usleep(SHORT_DRIFT_US / 2);
		old = view(&kv);
		since = rdtsc();
		r = set_vcpu_khz(&kv, rates[i]);
		until = rdtsc();
		TEST_ASSERT(!r, "%lu kHz: errno %d", rates[i], errno);
		kvmclock_enter(&kv);
		new = view(&kv);

		assert_rate(&kv, rates[i]);
		assert_stable(&kv, true, "at another rate");
		assert_tsc_goes_on(&old, &new, since, until);
		assert_clock_goes_on(&old, &new, since, until);
	}
	kvm_vm_free(vm);
}

/*
 * vCPUs change one after the other.  Between that their rates differ and there
 * is no master clock: the clock goes on as base time, whose rate is known to a
 * part in 10^6 at least.  No vCPU's clock steps back, from where its guest has read
 * it: at 1 kHz a line that is drawn within a cycle is ahead for the rest of it.
 */
TEST_F(kvmclock_scaling, vcpus_change_in_turn)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	uint64_t rates[] = { host_khz / 3 + 1, self->khz };
	uint64_t cycle_ns = 1000000 / min(self->khz, rates[0]) + 1;
	struct view first = view(&kv[0]);
	uint64_t begin = rdtsc();
	unsigned int i, round;
	int r;

	assert_has_slope(&kv[0]);
	for (round = 0; round < ARRAY_SIZE(rates); round++) {
		for (i = 0; i < NR_VCPUS; i++) {
			uint64_t last = kvmclock_call(&kv[i], KVMCLOCK_READ, 0, 0);
			uint64_t now, tsc;
			int64_t off, late;

			r = set_vcpu_khz(&kv[i], rates[round]);
			TEST_ASSERT(!r, "vCPU %u, %lu kHz: errno %d", i, rates[round], errno);
			kvmclock_enter_all(kv, NR_VCPUS);
			assert_stable(&kv[0], i == NR_VCPUS - 1, "while rates change");

			now = kvmclock_call(&kv[i], KVMCLOCK_READ, 0, 0);
			TEST_ASSERT(now >= last, "vCPU %u: %lu after %lu", i, now, last);
			tsc = rdtsc();
			off = clock_at(&kv[i], tsc) - view_clock(&first, tsc);
			late = cycle_ns + 2 + (tsc - begin) / host_khz;
			TEST_ASSERT(llabs(off) <= late,
				    "vCPU %u: %+ld ns from the line of before", i, off);
		}
		assert_rate(&kv[0], rates[round]);
		TEST_ASSERT(kvmclock_tsc_offset(&kv[0]) == kvmclock_tsc_offset(&kv[1]),
			    "%lu kHz: vCPU 1's TSC is %+ld cycles from vCPU 0's", rates[round],
			    (int64_t)(kvmclock_tsc_offset(&kv[1]) - kvmclock_tsc_offset(&kv[0])));
		assert_one_clock(self->vm, kv, "at another rate");
	}
}

/* What is refused leaves no trace, on a VM as on a vCPU. */
TEST_F(kvmclock_scaling, refused)
{
	const uint64_t refused[] = {
		highest_khz + 1, INT_MAX, INT_MAX + 1ULL, UINT_MAX - 1, UINT_MAX, lowest_khz - 1,
	};
	struct kvmclock_vcpu *kv = self->vcpu;
	struct pvclock_vcpu_time_info before = *kv[0].page;
	uint64_t offset = kvmclock_tsc_offset(&kv[0]);
	struct kvm_vm *vm = vm_create(1);
	unsigned int i;
	int r;

	for (i = 0; i < ARRAY_SIZE(refused) && refused[i]; i++) {
		r = set_vm_khz(vm, refused[i]);
		TEST_ASSERT(r == -1 && errno == EINVAL, "%lu kHz on a VM: %d, errno %d",
			    refused[i], r, errno);
		r = set_vcpu_khz(&kv[0], refused[i]);
		TEST_ASSERT(r == -1 && errno == EINVAL, "%lu kHz on a vCPU: %d, errno %d",
			    refused[i], r, errno);
		kvmclock_enter_all(kv, NR_VCPUS);
		assert_unmoved(&kv[0], &before, "a refused rate");
		assert_stable(&kv[0], true, "after a refused rate");
		TEST_ASSERT(kvmclock_tsc_offset(&kv[0]) == offset, "its TSC moved");
		assert_rate(&kv[0], self->khz);
	}
	r = __vm_ioctl(vm, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT(r == (int)host_khz, "the VM has %d kHz now", r);
	kvm_vm_free(vm);
}

/*
 * The rate set on each vCPU, not on the VM: at the host's rate they are created.
 */
FIXTURE(kvmclock_vcpu_rates) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_TURNED];
	uint64_t khz;
};

FIXTURE_SETUP(kvmclock_vcpu_rates)
{
	self->khz = host_khz / 7 * 5 + 1;
	self->vm = vm_create(NR_TURNED);
}

FIXTURE_TEARDOWN(kvmclock_vcpu_rates)
{
	kvm_vm_free(self->vm);
}

static void add_at(FIXTURE_DATA(kvmclock_vcpu_rates) * self, unsigned int i)
{
	int r;

	kvmclock_vcpu_add(self->vm, &self->vcpu[i], i);
	r = set_vcpu_khz(&self->vcpu[i], self->khz);
	TEST_ASSERT(!r, "vCPU %u, %lu kHz: errno %d", i, self->khz, errno);
}

static void assert_same_tscs(struct kvmclock_vcpu *kv, unsigned int nr, const char *when)
{
	int64_t ahead;
	unsigned int i;

	for (i = 1; i < nr; i++) {
		ahead = kvmclock_tsc_offset(&kv[i]) - kvmclock_tsc_offset(&kv[0]);
		TEST_ASSERT(!ahead, "%s: vCPU %u's TSC is %+ld cycles from vCPU 0's", when, i,
			    ahead);
	}
}

static void assert_all_stable(struct kvm_vm *vm, struct kvmclock_vcpu *kv, unsigned int nr,
			      const char *when)
{
	struct kvm_clock_data data;
	unsigned int i;

	kvmclock_enable_all(kv, nr);
	for (i = 0; i < nr; i++)
		assert_stable(&kv[i], true, when);
	data = kvmclock_get(vm);
	TEST_ASSERT(data.flags == KVMCLOCK_GET_FLAGS, "%s: flags 0x%x", when, data.flags);
}

/* Create one, set its rate, create the next. */
TEST_F(kvmclock_vcpu_rates, set_as_they_come)
{
	unsigned int i;

	for (i = 0; i < NR_TURNED; i++) {
		usleep(TURN_US);
		add_at(self, i);
	}
	assert_same_tscs(self->vcpu, NR_TURNED, "set as they came");
	assert_all_stable(self->vm, self->vcpu, NR_TURNED, "set as they came");
	for (i = 0; i < NR_TURNED; i++)
		assert_rate(&self->vcpu[i], self->khz);
}

/* If a TSC was written meanwhile, the others follow that one. */
TEST_F(kvmclock_vcpu_rates, written_as_they_come)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	uint64_t value = 7 * 3600000 * self->khz, since, until;
	unsigned int i;

	for (i = 0; i < NR_TURNED; i++) {
		usleep(TURN_US);
		add_at(self, i);
		if (i)
			continue;

		since = rdtsc();
		vcpu_set_msr(kv[0].vcpu, MSR_IA32_TSC, value);
		until = rdtsc();
	}
	TEST_ASSERT(kvmclock_guest_tsc(&kv[0], since) <= value &&
		    kvmclock_guest_tsc(&kv[0], until) >= value,
		    "vCPU 0 was given TSC %lu, and had %lu to %lu then", value,
		    kvmclock_guest_tsc(&kv[0], since), kvmclock_guest_tsc(&kv[0], until));
	assert_same_tscs(kv, NR_TURNED, "written as they came");
	assert_all_stable(self->vm, kv, NR_TURNED, "written as they came");
}

/*
 * A guest from a host whose TSC was measured a bit differently; then a vCPU is
 * added, of which nobody says at which rate: at that of all the others.
 */
TEST_F(kvmclock_vcpu_rates, added_beside_others)
{
	struct kvmclock_vcpu *kv = self->vcpu;
	unsigned int i, nr = NR_TURNED - 1;
	int r;

	self->khz = host_khz + host_khz / 5000;
	for (i = 0; i < nr; i++)
		kvmclock_vcpu_add(self->vm, &kv[i], i);
	for (i = 0; i < nr; i++) {
		r = set_vcpu_khz(&kv[i], self->khz);
		TEST_ASSERT(!r, "vCPU %u, %lu kHz: errno %d", i, self->khz, errno);
	}
	assert_same_tscs(kv, nr, "before");
	assert_all_stable(self->vm, kv, nr, "before");

	kvmclock_vcpu_add(self->vm, &kv[nr], nr);
	r = __vcpu_ioctl(kv[nr].vcpu, KVM_GET_TSC_KHZ, NULL);
	TEST_ASSERT(r == (int)self->khz, "a vCPU beside those at %lu kHz has %d", self->khz, r);
	assert_same_tscs(kv, NR_TURNED, "with the new one");
	assert_all_stable(self->vm, kv, NR_TURNED, "with the new one");
	assert_rate(&kv[nr], self->khz);
}

/* The VM of a race: its vCPU 0 enters, others come, and the clock is set. */
struct rate_race {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_RACERS];
	uint64_t khz;
	bool stop;
	bool done;
};

static void *add_vcpus(void *arg)
{
	struct rate_race *race = arg;
	unsigned int i;
	int r;

	for (i = 1; i < NR_RACERS; i++) {
		kvmclock_vcpu_add(race->vm, &race->vcpu[i], i);
		sched_yield();
		r = set_vcpu_khz(&race->vcpu[i], race->khz);
		TEST_ASSERT(!r, "vCPU %u, %lu kHz: errno %d", i, race->khz, errno);
		vcpu_set_msr(race->vcpu[i].vcpu, MSR_KVM_SYSTEM_TIME_NEW,
			     race->vcpu[i].page_gpa | KVM_MSR_ENABLED);
	}
	WRITE_ONCE(race->done, true);
	return NULL;
}

static void *enter_until_stopped(void *arg)
{
	struct rate_race *race = arg;

	while (!READ_ONCE(race->stop)) {
		kvmclock_enter(&race->vcpu[0]);
		sched_yield();
	}
	return NULL;
}

/*
 * The clock that is read is the one that was set plus the time in between: more
 * than from after the one call to before the other, less than from before to
 * after.  The time bases' rates differ by 2^-20 at most, and each vCPU that comes
 * makes the clock leave its line and take another, which costs it a cycle or two.
 * What is looked for is the uptime of the host, as cycles of the wrong rate.
 */
static void assert_set_clock_goes_on(struct rate_race *race, uint64_t clock)
{
	int64_t least, most, passed, rounding_ns, raw[4];
	struct kvm_clock_data data;

	raw[0] = clock_ns(CLOCK_MONOTONIC_RAW);
	kvmclock_set(race->vm, clock);
	raw[1] = clock_ns(CLOCK_MONOTONIC_RAW);
	sched_yield();
	raw[2] = clock_ns(CLOCK_MONOTONIC_RAW);
	data = kvmclock_get(race->vm);
	raw[3] = clock_ns(CLOCK_MONOTONIC_RAW);

	rounding_ns = 2 * NR_RACERS * (1000000 / min(host_khz, race->khz) + 2);
	least = raw[2] - raw[1];
	least -= (least >> 20) + rounding_ns;
	most = raw[3] - raw[0];
	most += (most >> 20) + rounding_ns;
	passed = data.clock - clock;
	TEST_ASSERT(passed >= least && passed <= most,
		    "set to %lu, the clock went %+ld ns in %ld to %ld ns", clock, passed, least,
		    most);
}

TEST_F(kvmclock_vcpu_rates, clock_is_set_meanwhile)
{
	struct rate_race race = { .khz = self->khz };
	pthread_t adder, runner;
	uint64_t sets = 0;
	int r;

	race.vm = vm_create(NR_RACERS);
	kvmclock_vcpu_add(race.vm, &race.vcpu[0], 0);
	r = set_vcpu_khz(&race.vcpu[0], race.khz);
	TEST_ASSERT(!r, "%lu kHz: errno %d", race.khz, errno);
	kvmclock_enable(&race.vcpu[0], MSR_KVM_SYSTEM_TIME_NEW);

	TEST_ASSERT(!pthread_create(&runner, NULL, enter_until_stopped, &race) &&
		    !pthread_create(&adder, NULL, add_vcpus, &race), "pthread_create() failed");
	while (!READ_ONCE(race.done))
		assert_set_clock_goes_on(&race, ++sets * NSEC_PER_SEC);
	WRITE_ONCE(race.stop, true);
	pthread_join(adder, NULL);
	pthread_join(runner, NULL);
	TEST_ASSERT(sets >= NR_RACERS, "the clock was set %lu times only", sets);

	assert_same_tscs(race.vcpu, NR_RACERS, "after the race");
	assert_all_stable(race.vm, race.vcpu, NR_RACERS, "after the race");
	assert_set_clock_goes_on(&race, 1ULL << 40);
	kvm_vm_free(race.vm);
}

int main(int argc, char *argv[])
{
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_TSC_CONTROL));
	TEST_REQUIRE(kvm_has_cap(KVM_CAP_VM_TSC_CONTROL));
	kvmclock_require_host();
	find_limits();
	return test_harness_run(argc, argv);
}
