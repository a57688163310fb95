// SPDX-License-Identifier: GPL-2.0-only
/*
 * The wall clock's epoch, CLOCK_REALTIME at which the kvmclock was 0, comes from
 * one TSC read: as long as nobody sets either, each write of it says the same,
 * but for what the two clocks' rates differ by.
 *
 * Epochs are compared with each other and with those of KVM_GET_CLOCK, whose
 * realtime and clock are a pair, and of KVM_HC_CLOCK_PAIRING, whose realtime and TSC
 * are one.
 *
 * Has to be root, for another clocksource, which is given back whatever happens.
 */
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/timex.h>

#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "kvmclock_host.h"
#include "processor.h"
#include "test_util.h"

#define HOUR_NS			(3600 * NSEC_PER_SEC)
#define NR_WRITES		10000
#define NR_XEN_WRITES		2000
#define NR_PAIRS		2000
#define NR_VCPUS		2
#define PATTERN			0xa5

#ifndef ADJ_OFFSET_SS_READ
#define ADJ_OFFSET_SS_READ	0xa001
#endif

/* Xen's ABI: where a guest of 32 or of 64 bits finds the wall clock */
struct xen_layout {
	uint16_t wall;
	uint16_t sec_hi;
};

static const struct xen_layout xen_layouts[] = { { 0x900, 0x924 }, { 0xc00, 0xc0c } };

static const uint32_t wall_clock_msrs[] = { MSR_KVM_WALL_CLOCK, MSR_KVM_WALL_CLOCK_NEW };

/* Lowest and highest epoch that was read. */
struct spread {
	int64_t low;
	int64_t high;
};

static const struct spread no_spread = { .low = INT64_MAX, .high = INT64_MIN };

static void spread_add(struct spread *s, int64_t epoch)
{
	if (epoch < s->low)
		s->low = epoch;
	if (epoch > s->high)
		s->high = epoch;
}

static int64_t epoch_of(uint32_t sec_hi, const struct pvclock_wall_clock *wall)
{
	return (((uint64_t)sec_hi << 32) | wall->sec) * NSEC_PER_SEC + wall->nsec;
}

/* How much CLOCK_REALTIME is being corrected by now, in 2^-16 ppm. */
static uint64_t slew(void)
{
	struct timex tx = { .modes = ADJ_OFFSET_SS_READ };
	const uint64_t most = 500 << 16;
	uint64_t sum = 0;

	TEST_ASSERT(adjtimex(&tx) >= 0, "adjtimex()");
	if (tx.offset)
		sum += most;	/* what is left of an adjtime() */

	tx = (struct timex) {};
	TEST_ASSERT(adjtimex(&tx) >= 0, "adjtimex()");
	if (tx.offset)
		sum += most;
	return sum + llabs(tx.freq) + (llabs(tx.tick - 10000) * 100 << 16);
}

/* What happens from here on has one epoch. */
struct period {
	struct kvm_vm *vm;
	struct kvm_clock_data begin;
	uint64_t slew;
	struct spread spread;
};

/* Where KVM_GET_CLOCK has no pair there is nothing to hold against. */
static void spread_add_pair(struct spread *s, const struct kvm_clock_data *data)
{
	if (data->flags & KVM_CLOCK_REALTIME)
		spread_add(s, data->realtime - data->clock);
}

static struct period begin_period(struct kvm_vm *vm)
{
	struct period p = {
		.vm = vm,
		.begin = kvmclock_get(vm),
		.slew = slew(),
		.spread = no_spread,
	};

	spread_add_pair(&p.spread, &p.begin);
	return p;
}

/*
 * How far two epochs of a period may be apart.
 *
 * The kvmclock goes at the TSC's rate to within 2^-31.  CLOCK_REALTIME, left
 * alone, goes by an integer multiplier of 23 significant bits or more, such that
 * ten minutes of cycles times it stay below 2^64: half a unit of it is lost to
 * rounding, and timekeeping may add one to make up for that.  Together that is
 * less than two in 2^22.  With it goes what NTP is known to correct.
 *
 * An epoch is a realtime rounded down, by less than 1 ns, minus a clock that is
 * rounded down twice: two of them are less than 3 ns apart for that.
 */
static void end_period(struct period *p, const char *what)
{
	unsigned __int128 slewed;
	struct kvm_clock_data end = kvmclock_get(p->vm);
	uint64_t passed = end.clock - p->begin.clock, most;

	spread_add_pair(&p->spread, &end);
	slewed = passed;
	slewed *= max(p->slew, slew());
	most = (passed >> 21) + (uint64_t)(slewed / 1000000 / 65536) + 3;
	TEST_ASSERT(p->spread.high - p->spread.low <= (int64_t)most,
		    "%s: epochs are %ld ns apart, after %lu ns it may be %lu", what,
		    p->spread.high - p->spread.low, passed, most);
}

FIXTURE(kvmclock_wallclock) {
	struct kvm_vm *vm;
	struct kvmclock_vcpu vcpu[NR_VCPUS];
	struct pvclock_wall_clock *wall;
	gva_t wall_gva;
	gpa_t wall_gpa;
};

/* In the guest's memory. */
static struct guest_side {
	struct pvclock_wall_clock *wall;
	uint64_t wall_gpa;
	uint32_t nr;
	bool alone;		/* nobody else writes to the same address */
	struct spread spread;
} guest_side;

/* The write and the reading of it are one guest's; so is the check of each. */
static void guest_writes(struct kvmclock_mail *mail)
{
	struct guest_side *g = &guest_side;
	uint32_t i, before;

	for (i = 0; i < g->nr; i++) {
		before = g->wall->version;
		wrmsr(i & 1 ? MSR_KVM_WALL_CLOCK : MSR_KVM_WALL_CLOCK_NEW, g->wall_gpa);
		if (!g->alone)
			continue;
		__GUEST_ASSERT(g->wall->version == before + 2, "version %u became %u", before,
			       g->wall->version);
		__GUEST_ASSERT(g->wall->nsec < NSEC_PER_SEC, "%u ns", g->wall->nsec);
		spread_add(&g->spread, epoch_of(0, g->wall));
	}
	GUEST_DONE();
}

FIXTURE_SETUP(kvmclock_wallclock)
{
	unsigned int i;

	self->vm = vm_create(NR_VCPUS);
	for (i = 0; i < NR_VCPUS; i++)
		kvmclock_vcpu_add_running(self->vm, &self->vcpu[i], i, guest_writes);
	self->wall_gva = vm_alloc_page(self->vm);
	self->wall_gpa = addr_gva2gpa(self->vm, self->wall_gva);
	self->wall = addr_gva2hva(self->vm, self->wall_gva);
	memset(self->wall, 0, PAGE_SIZE);
}

FIXTURE_TEARDOWN(kvmclock_wallclock)
{
	kvm_vm_free(self->vm);
}

static struct guest_side *tell_guest(FIXTURE_DATA(kvmclock_wallclock) * self, uint32_t nr,
				     bool alone)
{
	guest_side = (struct guest_side) {
		.wall = (void *)self->wall_gva,
		.wall_gpa = self->wall_gpa,
		.nr = nr,
		.alone = alone,
		.spread = no_spread,
	};
	sync_global_to_guest(self->vm, guest_side);
	return addr_gva2hva(self->vm, (gva_t)&guest_side);
}

TEST_F(kvmclock_wallclock, guest_writes)
{
	struct guest_side *guest = tell_guest(self, NR_WRITES, true);
	struct period p = begin_period(self->vm);

	kvmclock_run_until_done(&self->vcpu[0]);
	TEST_ASSERT(self->wall->version == 2 * NR_WRITES, "version %u", self->wall->version);
	spread_add(&p.spread, guest->spread.low);
	spread_add(&p.spread, guest->spread.high);
	end_period(&p, "written by the guest");
}

static void host_writes(FIXTURE_DATA(kvmclock_wallclock) * self, const char *when)
{
	struct period p = begin_period(self->vm);
	uint32_t i, msr, version = self->wall->version;
	uint64_t got;

	for (i = 0; i < NR_WRITES; i++) {
		msr = wall_clock_msrs[i & 1];
		vcpu_set_msr(self->vcpu[i & 1].vcpu, msr, self->wall_gpa);
		version += 2;
		TEST_ASSERT(self->wall->version == version, "version %u, not %u",
			    self->wall->version, version);
		TEST_ASSERT(self->wall->nsec < NSEC_PER_SEC, "%u ns", self->wall->nsec);
		spread_add(&p.spread, epoch_of(0, self->wall));
	}
	got = vcpu_get_msr(self->vcpu[0].vcpu, wall_clock_msrs[0]);
	TEST_ASSERT(got == self->wall_gpa, "0x%lx read back", got);
	end_period(&p, when);
}

TEST_F_TIMEOUT(kvmclock_wallclock, host_writes, 200)
{
	host_writes(self, "written by the host before the first run");

	tell_guest(self, 1, true);
	kvmclock_run_until_done(&self->vcpu[0]);
	kvmclock_run_until_done(&self->vcpu[1]);
	host_writes(self, "written by the host");
}

/* The epoch is where a KVM_SET_CLOCK puts it, at once and before any run. */
TEST_F(kvmclock_wallclock, set_clock)
{
	struct kvm_clock_data data;
	struct period p;
	unsigned int i;

	for (i = 0; i < 20; i++) {
		p = begin_period(self->vm);
		data = kvmclock_get(self->vm);
		TEST_ASSERT(data.flags == KVMCLOCK_GET_FLAGS, "flags 0x%x", data.flags);
		data.flags = KVM_CLOCK_REALTIME;
		data.clock = (i + 1) * HOUR_NS;
		vm_ioctl(self->vm, KVM_SET_CLOCK, &data);

		/* An hour was not what passed. */
		p.begin.clock = data.clock;
		p.spread = no_spread;
		spread_add_pair(&p.spread, &data);
		vcpu_set_msr(self->vcpu[0].vcpu, wall_clock_msrs[i & 1], self->wall_gpa);
		spread_add(&p.spread, epoch_of(0, self->wall));
		end_period(&p, "after KVM_SET_CLOCK");
	}
}

struct reader {
	struct pvclock_wall_clock *wall;
	bool stop;
	uint64_t nr;
	struct spread spread;
};

/* As the ABI says: what was read with one even version is of one write. */
static void *read_wall_clock(void *arg)
{
	struct reader *r = arg;
	struct pvclock_wall_clock copy;
	uint32_t version;

	while (!READ_ONCE(r->stop)) {
		version = READ_ONCE(r->wall->version);
		rmb();	/* version before content */
		memcpy(&copy, r->wall, sizeof(copy));
		rmb();	/* content before version */
		if (!version || version & 1 || READ_ONCE(r->wall->version) != version)
			continue;
		spread_add(&r->spread, epoch_of(0, &copy));
		r->nr++;
	}
	return NULL;
}

/*
 * All vCPUs, and the host on behalf of one, write to one address at a time.  An
 * epoch that is half of one and half of another is a second off at least where
 * they differ in seconds: the clock is set so that they are close to that.
 */
TEST_F_TIMEOUT(kvmclock_wallclock, many_writers, 200)
{
	struct reader reader = { .wall = self->wall, .spread = no_spread };
	struct kvm_clock_data data = kvmclock_get(self->vm);
	pthread_t writers[NR_VCPUS], id;
	struct period p;
	unsigned int i;

	data.flags = KVM_CLOCK_REALTIME;
	data.clock = HOUR_NS + data.realtime % NSEC_PER_SEC;
	vm_ioctl(self->vm, KVM_SET_CLOCK, &data);

	tell_guest(self, NR_WRITES, false);
	p = begin_period(self->vm);
	TEST_ASSERT(!pthread_create(&id, NULL, read_wall_clock, &reader), "pthread_create()");
	for (i = 0; i < NR_VCPUS; i++)
		TEST_ASSERT(!pthread_create(&writers[i], NULL, kvmclock_run_until_done,
					    &self->vcpu[i]), "pthread_create()");
	for (i = 0; i < NR_VCPUS; i++)
		pthread_join(writers[i], NULL);
	WRITE_ONCE(reader.stop, true);
	pthread_join(id, NULL);

	TEST_ASSERT(reader.nr, "nothing was read");
	TEST_ASSERT(self->wall->version == 2 * NR_VCPUS * NR_WRITES,
		    "version %u after %u writes", self->wall->version, NR_VCPUS * NR_WRITES);
	spread_add(&p.spread, reader.spread.low);
	spread_add(&p.spread, reader.spread.high);
	end_period(&p, "written by all");
}

/* A host that restores a guest may find anything in the MSR. */
TEST_F(kvmclock_wallclock, host_writes_bad_addresses)
{
	static const uint64_t addresses[] = {
		BIT_ULL(32), BIT_ULL(51), BIT_ULL(52), BIT_ULL(62), ~0ULL << 12, ~0ULL - 3, ~0ULL,
	};
	struct kvm_vcpu *vcpu = self->vcpu[0].vcpu;
	struct period p = begin_period(self->vm);
	uint64_t got;
	unsigned int i;

	for (i = 0; i < 2 * ARRAY_SIZE(addresses); i++) {
		vcpu_set_msr(vcpu, wall_clock_msrs[i & 1], addresses[i / 2]);
		got = vcpu_get_msr(vcpu, wall_clock_msrs[i & 1]);
		TEST_ASSERT(got == addresses[i / 2], "0x%lx read as 0x%lx", addresses[i / 2], got);
		TEST_ASSERT(!self->wall->version, "written though not asked for");
	}

	/* 0 is no address: nothing is written, and nothing refused. */
	vcpu_set_msr(vcpu, MSR_KVM_WALL_CLOCK_NEW, 0);
	vcpu_set_msr(vcpu, MSR_KVM_WALL_CLOCK_NEW, self->wall_gpa);
	TEST_ASSERT(self->wall->version == 2, "a good address is not taken any more");
	spread_add(&p.spread, epoch_of(0, self->wall));
	end_period(&p, "after bad addresses");
}

/*
 * KVM_HC_CLOCK_PAIRING: the vCPU's own TSC, wherever that is, and CLOCK_REALTIME of one
 * instant.  With the vCPU's page they are an epoch, like any other.
 */
static struct kvm_clock_pairing *pairing_at(struct kvmclock_vcpu *kv)
{
	return (void *)((uint8_t *)kv->page + PAGE_SIZE / 2);
}

/* What the hypercall says to the guest, as a signed number. */
static int64_t ask_pairing(struct kvmclock_vcpu *kv, uint32_t type, uint64_t gpa)
{
	return kvmclock_call(kv, KVMCLOCK_PAIRING, type, gpa);
}

TEST_F_TIMEOUT(kvmclock_wallclock, pairing, 200)
{
	struct pvclock_vcpu_time_info page;
	struct kvm_clock_pairing pairing;
	static const struct kvm_clock_pairing pattern = { .sec = -1, .flags = -1, .pad = { -1 } };
	struct kvmclock_vcpu kv;
	struct period p;
	unsigned int i;
	int64_t r;

	kvmclock_vcpu_add(self->vm, &kv, NR_VCPUS);
	kvmclock_set_tsc_offset(&kv, kvmclock_tsc_offset(&kv) + BIT_ULL(40));
	kvmclock_enable_all(&kv, 1);
	page = kvmclock_read_page(kv.page);

	p = begin_period(self->vm);
	for (i = 0; i < NR_PAIRS; i++) {
		*pairing_at(&kv) = pattern;
		r = ask_pairing(&kv, KVM_CLOCK_PAIRING_WALLCLOCK, kv.page_gpa + PAGE_SIZE / 2);
		TEST_ASSERT(!r, "KVM_HC_CLOCK_PAIRING: %ld", r);
		pairing = *pairing_at(&kv);
		TEST_ASSERT(pairing.nsec >= 0 && pairing.nsec < (int64_t)NSEC_PER_SEC, "%lld ns",
			    pairing.nsec);
		TEST_ASSERT(!pairing.flags && !pairing.pad[0], "flags 0x%x, pad 0x%x",
			    pairing.flags, pairing.pad[0]);
		spread_add(&p.spread, pairing.sec * NSEC_PER_SEC + pairing.nsec -
				      oracle_at(&page, pairing.tsc));
	}
	TEST_ASSERT(kv.page->version == page.version, "the page was written meanwhile");
	end_period(&p, "pairs");
}

/* The MSR takes any address; where the guest may not write there is no wall clock. */
TEST_F(kvmclock_wallclock, read_only)
{
	const uint64_t gpa = BIT_ULL(33);
	uint8_t before[PAGE_SIZE], *memory;
	struct kvm_vcpu *vcpu = self->vcpu[0].vcpu;
	unsigned int i;

	TEST_REQUIRE(kvm_has_cap(KVM_CAP_READONLY_MEM));
	vm_userspace_mem_region_add(self->vm, VM_MEM_SRC_ANONYMOUS, gpa, 10, 1,
				    KVM_MEM_READONLY);
	memory = addr_gpa2hva(self->vm, gpa);
	memset(memory, PATTERN, PAGE_SIZE);
	memcpy(before, memory, PAGE_SIZE);

	for (i = 0; i < 64; i++) {
		vcpu_set_msr(vcpu, MSR_KVM_WALL_CLOCK_NEW, gpa + i);
		TEST_ASSERT(vcpu_get_msr(vcpu, MSR_KVM_WALL_CLOCK) == gpa + i, "another address");
	}
	TEST_ASSERT(!memcmp(before, memory, PAGE_SIZE), "written though read-only");
}

/* What is refused writes nothing. */
TEST_F(kvmclock_wallclock, pairing_refused)
{
	static const uint64_t addresses[] = {
		BIT_ULL(32), BIT_ULL(51), BIT_ULL(62), ~0ULL << 12, ~0ULL - 3,
	};
	uint8_t before[PAGE_SIZE];
	struct kvmclock_vcpu kv;
	uint64_t gpa, khz;
	unsigned int i;
	int64_t r;

	kvmclock_vcpu_add(self->vm, &kv, NR_VCPUS);
	gpa = kv.page_gpa + PAGE_SIZE / 2;
	memset(kv.page, PATTERN, PAGE_SIZE);
	memcpy(before, kv.page, PAGE_SIZE);

	for (i = 1; i; i <<= 1) {
		r = ask_pairing(&kv, i, gpa);
		TEST_ASSERT(r == -KVM_EOPNOTSUPP, "type 0x%x: %ld", i, r);
	}
	for (i = 0; i < ARRAY_SIZE(addresses); i++) {
		r = ask_pairing(&kv, KVM_CLOCK_PAIRING_WALLCLOCK, addresses[i]);
		TEST_ASSERT(r == -KVM_EFAULT, "address 0x%lx: %ld", addresses[i], r);
	}

	write_file_ok(CLOCKSOURCE, other_clocksource());
	r = ask_pairing(&kv, KVM_CLOCK_PAIRING_WALLCLOCK, gpa);
	write_file_ok(CLOCKSOURCE, clocksource);
	TEST_ASSERT(r == -KVM_EOPNOTSUPP, "without a clocksource that is the TSC: %ld", r);

	/* Where the hardware can't, software has the TSC be faster than the host's. */
	khz = __vcpu_ioctl(kv.vcpu, KVM_GET_TSC_KHZ, NULL);
	if (!kvm_has_cap(KVM_CAP_TSC_CONTROL)) {
		vcpu_ioctl(kv.vcpu, KVM_SET_TSC_KHZ, (void *)(2 * khz));
		r = ask_pairing(&kv, KVM_CLOCK_PAIRING_WALLCLOCK, gpa);
		TEST_ASSERT(r == -KVM_EOPNOTSUPP, "a TSC moved by software: %ld", r);
		vcpu_ioctl(kv.vcpu, KVM_SET_TSC_KHZ, (void *)khz);
	}
	TEST_ASSERT(!memcmp(before, kv.page, PAGE_SIZE), "written though refused");

	r = ask_pairing(&kv, KVM_CLOCK_PAIRING_WALLCLOCK, gpa);
	TEST_ASSERT(!r, "refused for good: %ld", r);
}

/* In Xen's shared page, written whenever that is mapped. */
TEST_F_TIMEOUT(kvmclock_wallclock, xen, 200)
{
	struct kvm_xen_hvm_attr mode = { .type = KVM_XEN_ATTR_TYPE_LONG_MODE };
	struct kvm_xen_hvm_attr info = {
		.type = KVM_XEN_ATTR_TYPE_SHARED_INFO,
		.u.shared_info.gfn = self->wall_gpa >> PAGE_SHIFT,
	};
	struct kvm_xen_hvm_config config = {
		.flags = KVM_XEN_HVM_CONFIG_INTERCEPT_HCALL,
		.msr = 0x40000000,
	};
	uint8_t *shared = (uint8_t *)self->wall;
	const struct xen_layout *at;
	struct pvclock_wall_clock wall;
	uint32_t i, j, version, sec_hi;
	struct period p;

	TEST_REQUIRE(kvm_check_cap(KVM_CAP_XEN_HVM) & KVM_XEN_HVM_CONFIG_SHARED_INFO);
	vm_ioctl(self->vm, KVM_XEN_HVM_CONFIG, &config);

	for (i = 0; i < ARRAY_SIZE(xen_layouts); i++) {
		at = &xen_layouts[i];
		mode.u.long_mode = i;
		vm_ioctl(self->vm, KVM_XEN_HVM_SET_ATTR, &mode);
		memset(shared, PATTERN, PAGE_SIZE);
		p = begin_period(self->vm);
		version = 0;

		for (j = 0; j < NR_XEN_WRITES; j++) {
			vm_ioctl(self->vm, KVM_XEN_HVM_SET_ATTR, &info);
			memcpy(&wall, shared + at->wall, sizeof(wall));
			memcpy(&sec_hi, shared + at->sec_hi, sizeof(sec_hi));
			TEST_ASSERT(!(wall.version & 1), "version %u", wall.version);
			TEST_ASSERT(!j || wall.version == version + 2, "version %u became %u",
				    version, wall.version);
			TEST_ASSERT(wall.nsec < NSEC_PER_SEC, "%u ns", wall.nsec);
			version = wall.version;
			spread_add(&p.spread, epoch_of(sec_hi, &wall));
		}
		end_period(&p, i ? "Xen's of 64 bits" : "Xen's of 32 bits");

		/* The rest of the page is the guest's. */
		memset(shared + at->wall, PATTERN, sizeof(wall));
		memset(shared + at->sec_hi, PATTERN, sizeof(sec_hi));
		for (j = 0; j < PAGE_SIZE; j++)
			TEST_ASSERT(shared[j] == PATTERN, "byte 0x%x written", j);
	}
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	return run_guarded(argc, argv);
}
