// SPDX-License-Identifier: GPL-2.0
/*
 * kvm-clock-check: what the kvmclock of this host does to its guests.
 *
 * By how much a clock is another one at the same TSC is computed of two clock pages of
 * a tiny VM, and exact.  What is measured, against the host's clocks, comes with its
 * uncertainty.  Nothing on the host is changed.
 *
 * D1, D2 ... are the defects of tools/testing/kvmclock/DEFECTS.md.
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <fcntl.h>
#include <getopt.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <sys/utsname.h>
#include <time.h>

#include "tiny-vm.h"

#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))

#define NS_PER_S		1000000000LL
#define HOUR_NS			(3600 * NS_PER_S)
#define DRIFT_US		300000	/* for a drift to show */
#define REPEATED_US		250000	/* some kernels repeat an update after 0.1 s */

#define NR_UPDATES		1000
#define NR_PAIRS		100
#define NR_SAMPLES		2000
#define NR_RESTORES		5
#define NR_WRITES		20

static struct {
	unsigned int khz;	/* of the host's TSC, and by default of guests' */
	bool scaling;
	bool pairs;		/* KVM_GET_CLOCK has realtime and host TSC */
	bool offsets;		/* KVM_VCPU_TSC_OFFSET is there */
	bool movable;		/* ... and a guest's TSC follows it */
	bool scales;		/* KVM_VCPU_TSC_SCALE */
	bool values;		/* KVM_VCPU_TSC_VALUE */
	bool lines;		/* KVM_SET_CLOCK_GUEST */
	bool master;
	bool svm;
	char cpu[49];
	char clocksource[32];
	struct utsname uts;
} host;

/* WRONG: not a known defect, but not what the interface promises. */
enum verdict { MADE, MISSING, ODD, WRONG };

#define WORDS_SIZE		112

/* What a check has found.  A fact without a unit is no more than its words. */
struct fact {
	const char *key, *unit;
	double value;
	char words[WORDS_SIZE];
};

struct result {
	enum verdict verdict;
	uint32_t judged, there;		/* defects, a bit each */
	unsigned int nr;
	struct fact fact[24];
};

static struct result *result;		/* of the check that is being made */
static jmp_buf check_end;
static struct vm scratch[2];		/* VMs of one check */
static struct vm baseline;		/* one that is left alone */
static unsigned int watch_s = 8, nr_steps;

static char *new_fact(const char *key, const char *unit, double value)
{
	struct fact *f = &result->fact[result->nr++];

	*f = (struct fact) { .key = key, .unit = unit, .value = value };
	return f->words;
}

#define fact(key, unit, value, ...) \
	snprintf(new_fact(key, unit, value), WORDS_SIZE, __VA_ARGS__)
#define note(...) fact(NULL, NULL, 0, __VA_ARGS__)

static noreturn void end_check(enum verdict verdict)
{
	result->verdict = verdict;
	longjmp(check_end, 1);
}

static noreturn void odd(const char *what, const char *why)
{
	note("%s: %s", what, why);
	end_check(ODD);
}

static void need(bool there, const char *what)
{
	if (!there) {
		note("missing: %s", what);
		end_check(MISSING);
	}
}

static void need_pairs(void)
{
	need(host.pairs, "KVM_CLOCK_REALTIME, which came with Linux 5.16");
	need(host.offsets, "KVM_VCPU_TSC_OFFSET, which came with Linux 5.16");
}

static void need_movable(void)
{
	need(host.movable, "TSCs of guests that can be moved, by KVM_VCPU_TSC_OFFSET");
}

static void need_master(struct vm *vm)
{
	if (!has_master(vm))
		odd("there is no master clock", "the host does not keep time by its TSC");
}

static void judge(unsigned int defect, bool there)
{
	result->judged |= 1U << defect;
	result->there |= there ? 1U << defect : 0;
}

static struct vm *new_vm(unsigned int nr_vcpus)
{
	struct vm *vm = scratch[0].fd ? &scratch[1] : &scratch[0];

	vm_create(vm, nr_vcpus);
	return vm;
}

/* One whose vCPUs all have their clocks, and nothing pending */
static struct vm *running_vm(unsigned int nr_vcpus)
{
	struct vm *vm = new_vm(nr_vcpus);
	unsigned int i;

	for (i = 0; i < nr_vcpus; i++)
		enable_clock(&vm->vcpu[i], MSR_SYSTEM_TIME);
	enter_all(vm);
	need_master(vm);
	return vm;
}

/*
 * The checks
 */

static void check_first_run(void)
{
	struct vm *vm = new_vm(0);
	struct kvm_clock_data before, after;
	int64_t error = 0;

	need_pairs();
	before = get_clock(vm);
	add_vcpu(vm);
	enable_clock(vm->vcpu, MSR_SYSTEM_TIME);
	need_master(vm);
	after = get_clock(vm);
	fact("flags_before", "flags", before.flags, "flags, which tell what is valid: before");
	fact("flags_after", "flags", after.flags, "after the first run");
	if (before.flags & KVM_CLOCK_HOST_TSC) {
		error = before.clock - clock_of(vm->vcpu, before.host_tsc);
		fact("error_ns", "ns", error, "the clock before it is off the guest's by");
	}
	judge(5, before.flags != after.flags || error);
}

/* How a scaled TSC comes from the host's: fractions have 48 bits with VMX, 32 with SVM. */
static struct tsc_scale scale_of(struct vcpu *v, unsigned int khz)
{
	struct tsc_scale scale = { .ratio = 1 };

	if (khz == host.khz ||
	    (host.scales && !tsc_attr(v, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_SCALE, &scale)))
		return scale;
	scale.frac_bits = host.svm ? 32 : 48;
	scale.ratio = ((__uint128_t)khz << scale.frac_bits) / host.khz;
	return scale;
}

static uint64_t tsc_at(struct vcpu *v, const struct tsc_scale *scale, uint64_t host_tsc)
{
	return ((__uint128_t)host_tsc * scale->ratio >> scale->frac_bits) + tsc_offset(v);
}

/* mul = 10^6 * 2^(32 - shift + frac_bits) / (host_khz * ratio) */
static double slope_ppb(const struct page *p, const struct tsc_scale *scale)
{
	__uint128_t over = (__uint128_t)1000000 << (32 - p->tsc_shift + scale->frac_bits);
	__uint128_t under = (__uint128_t)host.khz * scale->ratio;

	return ((double)p->tsc_to_system_mul * under / over - 1) * 1e9;
}

/* What a Linux guest takes the rate of its TSC for, for good */
static unsigned int guest_khz(const struct page *p)
{
	uint64_t khz = (1000000ULL << 32) / p->tsc_to_system_mul;

	return p->tsc_shift < 0 ? khz << -p->tsc_shift : khz >> p->tsc_shift;
}

static void check_rate(unsigned int khz, const char *slope_key, const char *error_key)
{
	struct vm *vm = new_vm(1);
	struct vcpu *v = vm->vcpu;
	struct kvm_clock_data data;
	struct tsc_scale scale;
	uint64_t before, tsc;
	int64_t error = 0;
	unsigned int i, due, found;
	double ppb, most_ppb;

	if (khz != host.khz)
		checked(ioctl(v->fd, KVM_SET_TSC_KHZ, (unsigned long)khz), "KVM_SET_TSC_KHZ");
	enable_clock(v, MSR_SYSTEM_TIME);
	enter_all(vm);
	need_master(vm);
	scale = scale_of(v, khz);
	before = tsc_at(v, &scale, read_tsc());
	tsc = guest_rdtsc(v);
	if (tsc - before > tsc_at(v, &scale, read_tsc()) - before)
		odd(slope_key, "the guest's TSC is not what its ratio makes of the host's");

	ppb = slope_ppb(v->page, &scale);
	found = guest_khz(v->page);
	/* What the guest shifts back has no more bits. */
	due = v->page->tsc_shift < 0 ? khz & -(1U << -v->page->tsc_shift) : khz;
	for (i = 0; i < NR_PAIRS; i++) {
		if (i == NR_PAIRS / 2)
			usleep(DRIFT_US);
		data = get_clock(vm);
		if (!(data.flags & KVM_CLOCK_HOST_TSC))
			odd("KVM_GET_CLOCK", "no host TSC comes with the clock");
		error = larger(error, data.clock -
				      clock_at(v->page, tsc_at(v, &scale, data.host_tsc)));
	}
	fact(slope_key, "ppb", ppb, "at %u kHz, %u by its page: the clock against its TSC:", khz,
	     found);
	fact(error_key, "ns", error, "at %u kHz: KVM_GET_CLOCK is off the guest's clock by", khz);
	judge(2, found != due);
	/* A multiplier of 32 bits is good to 0.47 ppb, and the ratio to a unit. */
	most_ppb = 0.5 + 1e9 / scale.ratio;
	if (khz != host.khz)
		judge(3, ppb > most_ppb || ppb < -most_ppb);
	judge(4, error);
	vm_free(vm);
}

static void check_rates(void)
{
	need_pairs();
	check_rate(host.khz, "slope_ppb", "get_clock_ns");
	if (!host.scaling) {
		note("no TSC scaling: no other rates");
		return;
	}
	check_rate(host.khz / 7 * 5 + 1, "slope_5_7_ppb", "get_clock_5_7_ns");
	check_rate(host.khz / 2 * 3 + 1, "slope_3_2_ppb", "get_clock_3_2_ns");
}

/*
 * KVM_SET_CLOCK said: the clock was so much at that realtime, and KVM_GET_CLOCK says
 * so again.  Each of the four is rounded, by less than 1 ns, and in between realtime
 * may be steered, by 500 ppm and as much again by adjtime().  One that was set
 * meanwhile is no error of KVM's: so what most of the pairs do counts.
 */
static void check_pair(void)
{
	struct vm *vm = running_vm(1);
	struct page line = *vm->vcpu->page;
	int64_t error, least = INT64_MAX, worst = 0, realtime;
	struct kvm_clock_data data;
	uint64_t since, passed;
	unsigned int i, off = 0;

	need_pairs();
	for (i = 0; i < NR_PAIRS; i++) {
		realtime = get_clock(vm).realtime - NS_PER_S;
		since = read_tsc();
		set_clock(vm, HOUR_NS, realtime);
		data = get_clock(vm);
		passed = ns_in(&line, read_tsc() - since);
		if (!(data.flags & KVM_CLOCK_REALTIME))
			odd("KVM_GET_CLOCK", "no realtime comes with the clock");
		error = (data.clock - data.realtime) - (HOUR_NS - realtime);
		off += (uint64_t)llabs(error) > 2 + passed / 1000;
		least = larger(least, error) == least ? error : least;
		worst = larger(worst, error);
	}
	fact("least_ns", "ns", least, "clock and realtime, set as a pair, are apart by at least");
	fact("worst_ns", "ns", worst, "... and at worst by");
	fact("unexplained", "of 100", off, "more than rounding and a steered realtime explain:");
	judge(6, off > NR_PAIRS / 2);
}

static void check_guest_write(void)
{
	struct vm *vm = running_vm(2);
	struct vcpu *v = vm->vcpu;
	unsigned int i, stable = 0;
	int64_t moved[2];
	uint64_t now, tsc;

	need_movable();
	usleep(DRIFT_US);
	for (i = 0; i < 2; i++) {
		tsc = guest_rdtsc(&v[1]);
		run_guest(&v[1], WRMSR, MSR_IA32_TSC, i ? 0 : tsc + host.khz * 1000ULL);
		now = read_tsc();
		moved[i] = clock_of(&v[1], now) - clock_of(&v[0], now);
		stable += v[1].page->flags & PAGE_STABLE;
	}
	fact("ahead_ns", "ns", moved[0], "1 s ahead: its vCPU's clock is off the other's by");
	fact("zero_ns", "ns", moved[1], "to 0: by");
	fact("stable", "yes", stable, "the stable bit stays, though the TSCs are not equal:");
	judge(9, moved[0] || moved[1] || stable);
}

static void check_host_write(void)
{
	struct vm *vm = running_vm(2);
	struct vcpu *v = vm->vcpu;
	struct page before = *v->page;
	uint64_t offset, now, since, until, tsc, at;
	int64_t moved = 0, apart = 0;
	unsigned int i, off = 0;

	need_movable();
	offset = tsc_offset(v);
	usleep(DRIFT_US);
	for (i = 0; i < NR_WRITES; i++) {
		tsc = guest_rdtsc(v) + host.khz * 1000000ULL;
		since = read_tsc();
		host_msr(&v[0], KVM_SET_MSRS, MSR_IA32_TSC, tsc);
		until = read_tsc();
		host_msr(&v[1], KVM_SET_MSRS, MSR_IA32_TSC, tsc);
		at = tsc - tsc_offset(&v[0]);
		off += at - since > until - since;
		apart = larger(apart, tsc_offset(&v[1]) - tsc_offset(&v[0]));
		enter_all(vm);
		enter_all(vm);
		now = read_tsc();
		moved = larger(moved, clock_of(v, now) - clock_at(&before, now + offset));
	}
	fact("off_writes", "writes", off, "values that the TSC does not take in the call, of %u:",
	     NR_WRITES);
	fact("apart_cycles", "cycles", apart, "the same value for both vCPUs: TSCs are apart by");
	fact("moved_ns", "ns", moved, "the clock, which has no part in it, moves by");
	judge(10, moved || off || apart);
}

static void check_unequal(void)
{
	struct vm *vm = running_vm(2);
	struct vcpu *v = vm->vcpu;
	struct page before = *v->page;
	bool kept, stable, back;
	int64_t moved[2], apart;
	uint64_t offset, now;

	need_movable();
	usleep(DRIFT_US);
	offset = tsc_offset(&v[1]);
	set_tsc_offset(&v[1], offset + 1000);
	enter_all(vm);
	enter_all(vm);
	kept = has_master(vm);
	stable = (v[0].page->flags | v[1].page->flags) & PAGE_STABLE;
	now = read_tsc();
	apart = clock_of(&v[1], now) - clock_of(&v[0], now);
	moved[0] = step_between(&before, v->page, guest_rdtsc(v));
	set_tsc_offset(&v[1], offset);
	enter_all(vm);
	enter_all(vm);
	back = has_master(vm) && v->page->flags & PAGE_STABLE;
	moved[1] = step_between(&before, v->page, guest_rdtsc(v));

	fact("master", "yes", kept, "1000 cycles apart: the master clock is kept:");
	fact("stable", "yes", stable, "the stable bit is still set:");
	fact("apart_ns", "ns", apart, "the two vCPUs' clocks are apart by");
	fact("moved_ns", "ns", moved[0], "vCPU 0's clock moves by");
	fact("back", "yes", back, "equal again: master clock and stable bit are there:");
	fact("moved_back_ns", "ns", moved[1], "vCPU 0's clock is where it was, but for");
	judge(11, !kept || stable || !back || apart || moved[0] || moved[1]);
}

/* Updates of the pages since the last look: the sum, without vCPU @but, and the most */
static unsigned int updates(struct vm *vm, uint32_t *version, int but, unsigned int *most)
{
	unsigned int i, nr, sum = 0;

	enter_all(vm);
	usleep(REPEATED_US);
	enter_all(vm);
	*most = 0;
	for (i = 0; i < vm->nr; i++) {
		nr = (vm->vcpu[i].page->version - version[i]) / 2;
		version[i] = vm->vcpu[i].page->version;
		sum += (int)i == but ? 0 : nr;
		*most = nr > *most ? nr : *most;
	}
	return sum;
}

static bool read_word(const char *path, char *word, size_t size)
{
	FILE *file = fopen(path, "r");
	bool found = file && fgets(word, size, file);

	if (file)
		fclose(file);
	if (found)
		word[strcspn(word, "\n")] = 0;
	return found;
}

static void check_updates(void)
{
	struct vm *vm = new_vm(MAX_VCPUS);
	unsigned int i, most, start, start_most, msr, set;
	uint32_t version[MAX_VCPUS] = { 0 };
	char periodic[8] = "N";

	for (i = 0; i < vm->nr; i++) {
		enable_clock(&vm->vcpu[i], MSR_SYSTEM_TIME);
		enter_all(vm);
	}
	need_master(vm);
	start = updates(vm, version, -1, &start_most);
	enable_clock(&vm->vcpu[1], MSR_SYSTEM_TIME);
	msr = updates(vm, version, 1, &most);
	set_clock(vm, HOUR_NS, 0);
	set = updates(vm, version, -1, &most);
	fact("start_updates", "updates", start, "%u vCPUs start, which takes %u:", vm->nr, vm->nr);
	fact("start_most_updates", "updates", start_most, "of one vCPU's page, at most:");
	fact("msr_others_updates", "updates", msr,
	     "a vCPU writes its system-time MSR, which takes 0 of others':");
	fact("set_clock_updates", "updates", set, "KVM_SET_CLOCK, which takes %u:", vm->nr);
	judge(13, start_most > 1 || msr || set > vm->nr);

	/* Each 300 s, which is too long to wait for; but the kernel says so. */
	need(!access("/sys/module/kvm", F_OK), "/sys/module/kvm; is sysfs mounted?");
	read_word("/sys/module/kvm/parameters/kvmclock_periodic_sync", periodic, sizeof(periodic));
	fact("periodic", "yes", *periodic == 'Y', "each 300 s, by kvm.kvmclock_periodic_sync:");
	judge(14, *periodic == 'Y');
}

static void check_told(void)
{
	unsigned int khz = host.scaling ? host.khz + host.khz / 10000 : host.khz / 2;
	const struct tsc_scale unscaled = { .ratio = 1 };
	struct vm *vm = running_vm(1);
	struct vcpu *v = vm->vcpu;
	int r, told, real = host.khz;
	bool at_once, later;

	checked(ioctl(v->fd, KVM_KVMCLOCK_CTRL, 0), "KVM_KVMCLOCK_CTRL");
	at_once = v->page->flags & PAGE_STOPPED;
	enter_all(vm);
	fact("stopped_at_once", "yes", at_once, "KVM_KVMCLOCK_CTRL: its page says so at once:");
	later = v->page->flags & PAGE_STOPPED;
	fact("stopped_later", "yes", later, "... after the next entry:");
	judge(17, !at_once);

	r = ioctl(v->fd, KVM_SET_TSC_KHZ, (unsigned long)khz);
	told = checked(ioctl(v->fd, KVM_GET_TSC_KHZ, 0), "KVM_GET_TSC_KHZ");
	enter_all(vm);
	/* What the slope of its clock says */
	if (!r)
		real = host.khz / (1 + slope_ppb(v->page, &unscaled) / 1e9) + 0.5;
	fact("told_khz", "kHz", told, "KVM_SET_TSC_KHZ %s %u kHz, and KVM_GET_TSC_KHZ says",
	     r ? "refuses" : "takes", khz);
	fact("real_khz", "kHz", real, "the guest has");
	judge(20, abs(told - real) > 1);
}

/*
 * Restores: what was saved is taken for an hour old, by its realtime, so that rates
 * that differ have an hour to show.
 */
struct saved {
	struct kvm_clock_data clock;
	struct page line;
	uint64_t msr[2], offset[2];
	struct tsc_value value[2];
};

enum clock_way { NOT_SET, FROZEN, RUNNING };
enum tsc_way { BY_MSR, BY_OFFSET, BY_SAME_OFFSET, BY_VALUE };

static const struct way {
	const char *name, *key;
	enum clock_way clock;
	enum tsc_way tsc;
	bool line;
} ways[] = {
	{ "KVM_SET_CLOCK, MSR_IA32_TSC", "frozen_msr_ns", FROZEN, BY_MSR, false },
	{ "KVM_SET_CLOCK with realtime, MSR_IA32_TSC", "msr_ns", RUNNING, BY_MSR, false },
	{ "KVM_SET_CLOCK with realtime, KVM_VCPU_TSC_OFFSET",
	  "offset_ns", RUNNING, BY_OFFSET, false },
	{ "KVM_SET_CLOCK with realtime, KVM_VCPU_TSC_VALUE",
	  "value_ns", RUNNING, BY_VALUE, false },
	{ "... and KVM_SET_CLOCK_GUEST", "value_line_ns", RUNNING, BY_VALUE, true },
	{ "same host: KVM_VCPU_TSC_OFFSET, KVM_SET_CLOCK_GUEST", "live_ns", NOT_SET, BY_SAME_OFFSET,
	  true },
};

static void save(struct vm *vm, struct saved *saved)
{
	unsigned int i;

	saved->clock = get_clock(vm);
	saved->clock.realtime -= HOUR_NS;
	saved->line = *vm->vcpu->page;
	for (i = 0; i < 2; i++) {
		struct vcpu *v = &vm->vcpu[i];

		saved->msr[i] = host_msr(v, KVM_GET_MSRS, MSR_IA32_TSC, 0);
		saved->offset[i] = tsc_offset(v);
		if (host.values)
			checked(tsc_attr(v, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_VALUE,
					 &saved->value[i]), "KVM_VCPU_TSC_VALUE");
	}
}

static void restore(struct vm *vm, const struct way *way, const struct saved *saved)
{
	struct page line = saved->line;
	uint64_t away = 0, host_tsc = 0;
	struct kvm_clock_data now;
	struct tsc_value value;
	unsigned int i;

	if (way->clock == FROZEN)
		set_clock(vm, saved->clock.clock, 0);
	if (way->clock == RUNNING) {
		set_clock(vm, saved->clock.clock, saved->clock.realtime);
		now = get_clock(vm);
		away = (__uint128_t)(now.clock - saved->clock.clock) * host.khz / 1000000;
		host_tsc = now.flags & KVM_CLOCK_HOST_TSC ? now.host_tsc : read_tsc();
	}
	for (i = 0; i < 2; i++) {
		struct vcpu *v = &vm->vcpu[i];

		switch (way->tsc) {
		case BY_MSR:
			host_msr(v, KVM_SET_MSRS, MSR_IA32_TSC, saved->msr[i] + away);
			break;
		case BY_OFFSET:
			set_tsc_offset(v, saved->offset[i] + away + saved->clock.host_tsc -
					  host_tsc);
			break;
		case BY_SAME_OFFSET:
			set_tsc_offset(v, saved->offset[i]);
			break;
		case BY_VALUE:
			value = saved->value[i];
			checked(tsc_attr(v, KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, &value),
				"KVM_VCPU_TSC_VALUE");
		}
	}
	if (way->line)
		checked(ioctl(vm->vcpu->fd, KVM_SET_CLOCK_GUEST, &line), "KVM_SET_CLOCK_GUEST");
}

static void try_way(const struct way *way, struct vm *source)
{
	int64_t off = 0, apart = 0;
	unsigned int i;

	for (i = 0; i < NR_RESTORES; i++) {
		struct vm *vm = new_vm(2);
		struct vcpu *v = vm->vcpu;
		struct saved saved;
		uint64_t tsc;

		save(source, &saved);
		host_msr(&v[0], KVM_SET_MSRS, MSR_SYSTEM_TIME, v[0].page_gpa | 1);
		host_msr(&v[1], KVM_SET_MSRS, MSR_SYSTEM_TIME, v[1].page_gpa | 1);
		restore(vm, way, &saved);
		/* Again: now the time away is reckoned by the slope that was restored. */
		if (way->line)
			restore(vm, way, &saved);
		enter_all(vm);
		enter_all(vm);
		tsc = read_tsc() + tsc_offset(v);
		off = larger(off, clock_at(v->page, tsc) - clock_at(&saved.line, tsc));
		apart = larger(apart, tsc_offset(&v[1]) - tsc_offset(&v[0]));
		vm_free(vm);
	}
	fact(way->key, "ns", off, "%s (TSCs %ld cycles apart):", way->name, apart);
	if (way->line && (off || apart))
		result->verdict = WRONG;
}

static void check_restore(void)
{
	struct vm *source = running_vm(2);
	unsigned int i;

	need_pairs();
	need_movable();
	note("two vCPUs whose TSCs are equal, an hour later, the worst of %u times:", NR_RESTORES);
	note("the clock is off what it was at the same TSC by");
	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		if ((ways[i].tsc == BY_VALUE && !host.values) || (ways[i].line && !host.lines))
			note("%s: missing", ways[i].name);
		else
			try_way(&ways[i], source);
	}
}

/* A time of the host's, and the TSCs that it was read between */
struct sample {
	int64_t ns;
	uint64_t before, after;
};

static struct page first_page;
static struct sample first_raw, first_real;

static struct sample take_sample(clockid_t clock)
{
	struct sample s, best = { .after = UINT64_MAX };
	struct timespec ts;
	unsigned int i;

	for (i = 0; i < NR_SAMPLES; i++) {
		s.before = read_tsc();
		clock_gettime(clock, &ts);
		s.after = read_tsc();
		s.ns = ts.tv_sec * NS_PER_S + ts.tv_nsec;
		if (s.after - s.before < best.after - best.before)
			best = s;
	}
	return best;
}

static void start_baseline(void)
{
	vm_create(&baseline, 1);
	enable_clock(baseline.vcpu, MSR_SYSTEM_TIME);
	enter_all(&baseline);
	host.master = has_master(&baseline);
	first_page = *baseline.vcpu->page;
	first_raw = take_sample(CLOCK_MONOTONIC_RAW);
	first_real = take_sample(CLOCK_REALTIME);
}

/* What has passed for the guest lies between two limits, each rounded by 2 ns at most. */
static void tell_drift(const char *name, clockid_t clock, struct sample *first, const char *key,
		       const char *within_key)
{
	uint64_t offset = tsc_offset(baseline.vcpu);
	struct sample last = take_sample(clock);
	double least, most, passed = last.ns - first->ns;

	least = (double)(clock_at(&first_page, last.before + offset) -
			 clock_at(&first_page, first->after + offset)) - 2;
	most = (double)(clock_at(&first_page, last.after + offset) -
			clock_at(&first_page, first->before + offset)) + 2;
	fact(key, "ppb", ((least + most) / 2 / passed - 1) * 1e9,
	     "measured for %.1f s: a guest's clock against the host's %s:", passed / 1e9, name);
	fact(within_key, "ppb or less", (most - least) / 2 / passed * 1e9, "  give or take");
}

/*
 * Has a stock kernel derive its master clock anew, though nothing has happened: while
 * vCPU 0 uses the old number there is none.  Lines with one are compared, before and
 * after.
 */
static void force_update(struct vm *vm)
{
	enable_clock(vm->vcpu, MSR_SYSTEM_TIME_OLD);
	enable_clock(vm->vcpu, MSR_SYSTEM_TIME);
}

static void check_drift(void)
{
	struct vcpu *v = baseline.vcpu;
	int64_t step, many, left;
	struct page last;
	unsigned int i;
	double passed;

	need_pairs();
	need_master(&baseline);
	left = first_raw.ns + watch_s * NS_PER_S - take_sample(CLOCK_MONOTONIC_RAW).ns;
	if (left > 0)
		usleep(left / 1000);
	tell_drift("CLOCK_MONOTONIC_RAW", CLOCK_MONOTONIC_RAW, &first_raw, "raw_ppb",
		   "raw_within_ppb");
	tell_drift("CLOCK_REALTIME", CLOCK_REALTIME, &first_real, "realtime_ppb",
		   "realtime_within_ppb");

	force_update(&baseline);
	if (v->page->version == first_page.version)
		odd("a guest asked for its clock page", "KVM did not write it");
	last = *v->page;
	step = step_between(&first_page, &last, guest_rdtsc(v));
	passed = ns_in(&last, guest_rdtsc(v) - first_page.tsc_timestamp);
	for (i = 0; i < NR_UPDATES; i++)
		force_update(&baseline);
	many = step_between(&last, v->page, guest_rdtsc(v));

	fact("step_ns", "ns", step, "an update after %.1f s moves the clock, at one TSC, by",
	     passed / 1e9);
	fact("many_ns", "ns", many, "%u more in a row, by", NR_UPDATES);
	judge(1, step || many);
	if (v->page->tsc_timestamp == first_page.tsc_timestamp) {
		note("the clock is not derived anew: it is the line that it was");
		return;
	}
	fact("step_ppb", "ppb", -step / passed * 1e9,
	     "computed from the first: a guest's clock against what an update sets it to:");
	fact("step_within_ppb", "ppb or less", 2e9 / passed, "  give or take");
	if (!step)
		note("the clock is derived anew, which does not show at this TSC rate");
}

/* A clock that is updated once a second, and how far it is from one that is not. */
static void show_steps(void)
{
	struct vm *vm = running_vm(1);
	struct vcpu *v = vm->vcpu;
	struct page first = *v->page;
	uint64_t first_tsc = guest_rdtsc(v), tsc;
	unsigned int i;

	puts("# s since the first reading, ns from where it would be without an update");
	puts("0.000 0");
	for (i = 0; i < nr_steps; i++) {
		usleep(1000000);
		force_update(vm);
		tsc = guest_rdtsc(v);
		printf("%.3f %lld\n", (double)ns_in(&first, tsc - first_tsc) / NS_PER_S,
		       (long long)step_between(&first, v->page, tsc));
	}
}

static const struct check {
	const char *name, *title;
	void (*run)(void);
} checks[] = {
	{ "first_run", "KVM_GET_CLOCK before the first run", check_first_run },
	{ "rates", "slope of the clock, and KVM_GET_CLOCK", check_rates },
	{ "pair", "KVM_SET_CLOCK with a realtime", check_pair },
	{ "guest_write", "a guest writes its TSC", check_guest_write },
	{ "host_write", "a VMM writes MSR_IA32_TSC, 1000 s ahead", check_host_write },
	{ "unequal", "vCPUs whose TSCs are not equal", check_unequal },
	{ "updates", "updates of clock pages", check_updates },
	{ "told", "a guest that was stopped, and a VMM that sets a rate", check_told },
	{ "restore", "what a restore leaves, by each way", check_restore },
	{ "drift", "drift, and the step at an update", check_drift },
};

#define NR_CHECKS	ARRAY_SIZE(checks)

/*
 * The host
 */

static void read_cpuid(void)
{
	unsigned int leaf, regs[12] = { 0 }, a, b, c, d;

	host.svm = __get_cpuid(0x80000001, &a, &b, &c, &d) && c >> 2 & 1;	/* SVM */
	for (leaf = 0; leaf < 3; leaf++)
		__get_cpuid(0x80000002 + leaf, &regs[4 * leaf], &regs[4 * leaf + 1],
			    &regs[4 * leaf + 2], &regs[4 * leaf + 3]);
	memcpy(host.cpu, regs, sizeof(regs));
}

/* Does the guest's TSC follow what is said of its offset? */
static bool is_movable(struct vcpu *v)
{
	const int64_t far = 1LL << 50;
	uint64_t offset = tsc_offset(v), moved = offset + far;

	return !tsc_attr(v, KVM_SET_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, &moved) &&
	       (int64_t)(guest_rdtsc(v) - (read_tsc() + offset)) > far / 2;
}

static void look_at_host(void)
{
	const int flags = KVM_CLOCK_REALTIME | KVM_CLOCK_HOST_TSC;
	int has = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_ADJUST_CLOCK);
	struct tsc_scale scale;
	struct page line;
	struct vcpu *v;
	struct vm *vm;

	if (has <= 0)
		odd("KVM_CAP_ADJUST_CLOCK", "is missing: there is no kvmclock");
	host.pairs = (has & flags) == flags;
	host.scaling = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_CONTROL) > 0;

	vm = new_vm(1);
	v = vm->vcpu;
	host.khz = checked(ioctl(v->fd, KVM_GET_TSC_KHZ, 0), "KVM_GET_TSC_KHZ");
	enable_clock(v, MSR_SYSTEM_TIME);
	if (!host.khz || !v->page->version)
		odd("KVM", host.khz ? "writes no clock page" : "does not know the TSC's rate");
	host.offsets = !tsc_attr(v, KVM_HAS_DEVICE_ATTR, KVM_VCPU_TSC_OFFSET, NULL);
	host.movable = host.offsets && is_movable(v);
	host.scales = !tsc_attr(v, KVM_GET_DEVICE_ATTR, KVM_VCPU_TSC_SCALE, &scale) &&
		      scale.ratio && scale.frac_bits < 64;
	host.lines = !ioctl(v->fd, KVM_GET_CLOCK_GUEST, &line) || errno == ENODATA;
	/* The attribute's number may come to mean something else on other kernels. */
	host.values = ioctl(vm->fd, KVM_CHECK_EXTENSION, KVM_CAP_CLOCK_GUEST) > 0 &&
		      !tsc_attr(v, KVM_HAS_DEVICE_ATTR, KVM_VCPU_TSC_VALUE, NULL);
	start_baseline();
}

static bool is_ours(void)
{
	return host.lines && host.values;
}

static const char *is_there(bool there)
{
	return there ? "there" : "missing";
}

static void show_host(const char *prefix)
{
	printf("%sLinux %s, %s, TSC %u kHz, clocksource %s\n", prefix, host.uts.release,
	       host.cpu + strspn(host.cpu, " "), host.khz, host.clocksource);
	printf("%sit has %s clock: KVM_SET_CLOCK_GUEST is %s, KVM_VCPU_TSC_VALUE is %s\n", prefix,
	       is_ours() ? "this project's" : "the stock", is_there(host.lines),
	       is_there(host.values));
	printf("%smaster clock: %s; TSC scaling: %s; KVM_CLOCK_REALTIME: %s; ", prefix,
	       is_there(host.master), is_there(host.scaling), is_there(host.pairs));
	printf("KVM_VCPU_TSC_OFFSET: %s\n", !host.offsets ? "missing" : host.movable ? "there" :
	       "there, but the guest's TSC does not follow it");
}

/*
 * What is printed
 */

enum format { TEXT, JSON, KTAP };

static void show_value(const struct fact *f)
{
	double size = f->value < 0 ? -f->value : f->value;

	if (!strcmp(f->unit, "yes"))
		printf("%s\n", f->value ? "yes" : "no");
	else if (!strcmp(f->unit, "flags"))
		printf("0x%x\n", (unsigned int)f->value);
	else if (!strcmp(f->unit, "ppb"))
		printf("%+.3f ms a day (%+.3f ppb)\n", f->value * 86400 / 1e6, f->value);
	else if (!strcmp(f->unit, "ppb or less"))
		printf("%.3f ms a day (%.3f ppb)\n", f->value * 86400 / 1e6, f->value);
	else if (strcmp(f->unit, "ns") || size < 1e5)
		printf("%.0f %s\n", f->value, f->unit);
	else if (size < 1e8)
		printf("%.3f ms\n", f->value / 1e6);
	else if (size < 1e13)
		printf("%.3f s\n", f->value / 1e9);
	else
		printf("%.1f years\n", f->value / 1e9 / 86400 / 365.25);
}

static void show_facts(const char *prefix, const struct result *r)
{
	const struct fact *f;

	for (f = r->fact; f < r->fact + r->nr; f++) {
		printf("%s%s%s", prefix, f->words, f->unit ? " " : "\n");
		if (f->unit)
			show_value(f);
	}
}

static void show_defects(const char *fmt, uint32_t defects)
{
	unsigned int i, nr = 0;

	for (i = 0; i < 32; i++)
		if (defects >> i & 1)
			printf(fmt, nr++ ? "," : "", i);
}

static void show_text(const struct check *c, const struct result *r)
{
	printf("\n%s", c->title);
	if (r->there) {
		printf(":");
		show_defects("%s D%u", r->there);
		printf(r->there & (r->there - 1) ? " are there" : " is there");
	}
	printf("%s\n", r->verdict == ODD ? ": NOT CHECKED" : r->verdict == WRONG ? ": WRONG" :
	       r->judged && !r->there ? ": fine" : "");
	show_facts("    ", r);
}

static void json_string(const char *key, const char *text)
{
	printf("\"%s\": \"", key);
	for (; *text; text++)
		if (*text >= ' ')
			printf("%s%c", *text == '"' || *text == '\\' ? "\\" : "", *text);
	printf("\"");
}

static void show_json(const struct result *r, int code)
{
	static const char * const verdicts[] = { "made", "missing", "odd", "wrong" };
	unsigned int i, j;

	printf("{ \"program\": \"kvm-clock-check\", \"format\": 1, \"exit\": %d, ", code);
	json_string("kernel", host.uts.release);
	printf(", ");
	json_string("cpu", host.cpu + strspn(host.cpu, " "));
	printf(", ");
	json_string("clocksource", host.clocksource);
	printf(",\n  \"tsc_khz\": %u, \"our_clock\": %d, \"master_clock\": %d, ", host.khz,
	       is_ours(), host.master);
	printf("\"tsc_scaling\": %d, \"tsc_movable\": %d,\n  \"checks\": {", host.scaling,
	       host.movable);
	for (i = 0; i < NR_CHECKS; i++, r++) {
		printf("%s\n    \"%s\": { \"verdict\": \"%s\", \"judged\": [", i ? "," : "",
		       checks[i].name, verdicts[r->verdict]);
		show_defects("%s\"D%u\"", r->judged);
		printf("], \"there\": [");
		show_defects("%s\"D%u\"", r->there);
		printf("]");
		for (j = 0; j < r->nr; j++)
			if (r->fact[j].key)
				printf(",\n      \"%s\": %.17g", r->fact[j].key, r->fact[j].value);
		if (r->verdict != MADE) {
			printf(",\n      ");
			json_string("why", r->fact[r->nr - 1].words);
		}
		printf(" }");
	}
	printf("\n  }\n}\n");
}

/* The defects that checks may judge: a case each */
static const uint8_t known[] = { 1, 2, 3, 4, 5, 6, 9, 10, 11, 13, 14, 17, 20 };

static void show_ktap(uint32_t judged, uint32_t there)
{
	unsigned int i;

	for (i = 0; i < sizeof(known); i++)
		printf("%sok %u D%u%s\n", there >> known[i] & 1 ? "not " : "", i + 1, known[i],
		       judged >> known[i] & 1 ? "" : " # SKIP not looked at");
}

static const char usage[] =
"usage: kvm-clock-check [--json | --ktap | --steps N] [--seconds N]\n"
"Says what the kvmclock of this host does to its guests, by tiny VMs of its own.\n"
"It changes nothing on the host, and needs no privilege but to open /dev/kvm.\n"
"\n"
"  --json        one object with all numbers, for collecting\n"
"  --ktap        one result for each defect, for test harnesses\n"
"  --steps N     two columns for a plot, no check: by how far N updates, one a second,\n"
"                have moved a clock\n"
"  --seconds N   how long to watch the drift, 1 to 3600, 8 if not given\n"
"  --help        this text\n"
"\n"
"What an update, a write or a restore does to a clock is computed from the guest's\n"
"pages, at one TSC: it is exact.  Drift is measured: watch longer for less uncertainty.\n"
"D1, D2 ... are explained in tools/testing/kvmclock/DEFECTS.md.  D7, D8, D12, D15, D16,\n"
"D18, D19 and D21 to D30 are not looked at.\n"
"\n"
"Exit status: 0 no defect, 1 defects found, 2 something could not be checked.\n";

static void on_alarm(int signal)
{
	(void)signal;
}

static void set_up(void)
{
	struct sigaction action = { .sa_handler = on_alarm };
	int cpu = sched_getcpu();
	cpu_set_t cpus;

	/* Without SA_RESTART: it ends KVM_RUN. */
	sigaction(SIGALRM, &action, NULL);
	setvbuf(stdout, NULL, _IOLBF, 0);
	uname(&host.uts);
	read_cpuid();
	if (!read_word("/sys/devices/system/clocksource/clocksource0/current_clocksource",
		       host.clocksource, sizeof(host.clocksource)))
		snprintf(host.clocksource, sizeof(host.clocksource), "something unknown");

	/* Whether the TSCs of CPUs agree is not the question here. */
	if (cpu >= 0 && cpu < CPU_SETSIZE) {
		CPU_ZERO(&cpus);
		CPU_SET(cpu, &cpus);
		sched_setaffinity(0, sizeof(cpus), &cpus);
	}
}

/* Makes a check, however it ends. */
static void make(void (*run)(void), struct result *r)
{
	result = r;
	if (!setjmp(check_end))
		run();
	alarm(0);
	vm_free(&scratch[0]);
	vm_free(&scratch[1]);
}

static int give_up(const char *what, const char *why)
{
	fprintf(stderr, "kvm-clock-check: %s: %s\n", what, why);
	return 2;
}

int main(int argc, char *argv[])
{
	static const struct option options[] = {
		{ "json", no_argument, NULL, 'j' },
		{ "ktap", no_argument, NULL, 'k' },
		{ "seconds", required_argument, NULL, 's' },
		{ "steps", required_argument, NULL, 'n' },
		{ "help", no_argument, NULL, 'h' },
		{ }
	};
	static struct result first, results[NR_CHECKS];
	uint32_t judged = 0, there = 0;
	unsigned int i, *number, unknown = 0, wrong = 0;
	enum format format = TEXT;
	int option, code;

	while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
		switch (option) {
		case 'j':
			format = JSON;
			break;
		case 'k':
			format = KTAP;
			break;
		case 's':
		case 'n':
			number = option == 's' ? &watch_s : &nr_steps;
			*number = strtoul(optarg, NULL, 10);
			if (*number < 1 || *number > 3600)
				return give_up(optarg, "--seconds and --steps are from 1 to 3600");
			break;
		default:
			fputs(usage, option == 'h' ? stdout : stderr);
			return option == 'h' ? 0 : 2;
		}
	}

	set_up();
	kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm_fd < 0)
		return give_up("/dev/kvm", errno == EACCES ?
			       "may not be opened: be root, or in the group that it belongs to" :
			       "can't be opened: is KVM loaded, and virtualization on in the firmware?");
	make(look_at_host, &first);
	if (first.verdict != MADE)
		return give_up("no check can be made", first.fact[0].words);
	if (nr_steps) {
		make(show_steps, &results[0]);
		return results[0].verdict == MADE ? 0 :
		       give_up("no steps can be shown", results[0].fact[0].words);
	}

	if (format == KTAP)
		printf("KTAP version 1\n1..%zu\n", sizeof(known));
	if (format != JSON)
		show_host(format == KTAP ? "# " : "");
	if (format != JSON && !host.master)
		return give_up("no check can be made: there is no master clock",
			       "the host does not keep time by its TSC, or not yet");
	for (i = 0; i < NR_CHECKS; i++) {
		if (isatty(STDERR_FILENO))
			fprintf(stderr, "%2u of %zu: %s ...\r", i + 1, NR_CHECKS, checks[i].title);
		make(checks[i].run, &results[i]);
		if (isatty(STDERR_FILENO))
			fprintf(stderr, "%78s\r", "");
		judged |= results[i].judged;
		there |= results[i].there;
		unknown += results[i].verdict == ODD;
		wrong += results[i].verdict == WRONG;
		if (format == TEXT)
			show_text(&checks[i], &results[i]);
		else if (format == KTAP)
			show_facts("# ", &results[i]);
	}

	code = there || wrong ? 1 : unknown ? 2 : 0;
	if (format == JSON)
		show_json(results, code);
	if (format == KTAP)
		show_ktap(judged, there);
	if (format == TEXT) {
		printf("\ndefects that are there:");
		show_defects("%s D%u", there);
		printf("%s\nof those looked for:", there ? "" : " none");
		show_defects("%s D%u", judged);
		printf("%s\n", unknown ? "; not all checks could be made" : "");
	}
	return code;
}
