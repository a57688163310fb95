// SPDX-License-Identifier: GPL-2.0-only
/*
 * Random calls, of which each result is known beforehand.
 *
 *	kvmclock_oracle_test [SEED [STEPS]]
 *
 * After every step all that can be read of a VM's time - the clock, each vCPU's line, TSC
 * and MSRs, all bytes of the memory that its structures are in, and which pages of it are
 * dirty - is what kvmclock_model.h says.  A sequence of steps after which it is not is made
 * as short as it gets, and told.
 *
 * Has to be root, and changes a parameter of KVM: it is given back whatever ends the test.
 */
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "hyperv.h"
#include "kvm_test_harness.h"
#include "kvm_util.h"
#include "kvmclock.h"
#include "kvmclock_host.h"
#include "kvmclock_model.h"
#include "processor.h"
#include "test_util.h"

#define SEED		20261127
#define NR_STEPS	6000
#define NR_ROUND	150		/* steps in the life of a VM */
#define TIMEOUT_S	600
#define SHRINK_NS	(60LL * NSEC_PER_SEC)
#define SLOT		10
#define NR_SAVED	3
#define BAD_POINTER	((void *)PAGE_SIZE)
#define HV_UNIT_NS	100
#define XEN_MSR		0x40000200	/* beside Hyper-V's */
#define XEN_INFO_SIZE	64
#define XEN_INFO_TIME	32

struct hv_tsc_page {
	uint32_t sequence;
	uint32_t reserved;
	uint64_t scale;
	int64_t offset;
};

static const uint32_t msrs[] = {
	MSR_IA32_TSC, HV_X64_MSR_TIME_REF_COUNT, MSR_IA32_TSC_ADJUST, MSR_KVM_SYSTEM_TIME,
	MSR_KVM_SYSTEM_TIME_NEW, MSR_KVM_WALL_CLOCK, MSR_KVM_WALL_CLOCK_NEW,
	HV_X64_MSR_REFERENCE_TSC,
};

#define NR_MSRS		ARRAY_SIZE(msrs)

/*
 * The guest
 */

enum { GUEST_NOP, GUEST_WRMSR, GUEST_LOOK, GUEST_PAIR };

struct oracle_mail {
	struct kvmclock_mail mail;
	uint64_t msr[NR_MSRS];
	unsigned int nr_looks;
	struct {
		uint64_t gpa, tsc, ns;
		struct pvclock_vcpu_time_info page;
	} look[MODEL_VCPUS * MODEL_STRUCTS];
};

static void guest(struct oracle_mail *mail)
{
	struct pvclock_vcpu_time_info *page;
	unsigned int i;

	for (;;) {
		mail->mail.vector = 0;
		if (mail->mail.op == GUEST_WRMSR)
			mail->mail.vector = wrmsr_safe(mail->mail.msr, mail->mail.value);
		if (mail->mail.op == GUEST_PAIR)
			mail->mail.value = kvm_hypercall(KVM_HC_CLOCK_PAIRING, mail->mail.value,
							 mail->mail.msr, 0, 0);
		for (i = 0; mail->mail.op == GUEST_LOOK && i < mail->nr_looks; i++) {
			page = &mail->look[i].page;
			*page = *(struct pvclock_vcpu_time_info *)mail->look[i].gpa;
			mail->look[i].tsc = rdtsc();
			mail->look[i].ns = __pvclock_read_cycles(page, mail->look[i].tsc);
		}
		for (i = 0; mail->mail.op == GUEST_LOOK && i < NR_MSRS; i++)
			mail->mail.vector |= rdmsr_safe(msrs[i], &mail->msr[i]);
		GUEST_SYNC(0);
	}
}

/*
 * The life of a VM, in a process of its own
 */

struct step {
	unsigned int kind;
	uint64_t seed;
};

struct run {
	struct kvm_vm *vm;
	struct kvmclock_vcpu kv[MODEL_VCPUS];
	struct model m;
	uint8_t *memory;
	struct model_span span;			/* of the step's call */
	struct kvm_clock_data before, after;	/* around it */
	struct kvm_vcpu_tsc_value saved[NR_SAVED];
	unsigned int kind;
	uint64_t random;
	bool lies;		/* the model does, to be found out */
};

#define NR_KINDS	22
#define MAX_ERRNO	128

/* What it leaves for the process that started it */
static struct report {
	unsigned int nr_done;
	char said[400];			/* of the last step */
	char why[600];
	uint64_t met[NR_KINDS][MAX_ERRNO];
} *report;

static bool vm_khz_is_refused;

static __printf(1, 2) void say(const char *fmt, ...)
{
	size_t used = strlen(report->said);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(report->said + used, sizeof(report->said) - used, fmt, ap);
	va_end(ap);
}

static __printf(1, 2) __noreturn void differ(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(report->why, sizeof(report->why), fmt, ap);
	va_end(ap);
	_exit(1);
}

static void check(const char *what, uint64_t got, uint64_t want)
{
	if (got != want)
		differ("%s is 0x%lx, not 0x%lx: %+ld", what, got, want, (int64_t)(got - want));
}

static void check_within(const char *what, uint64_t got, uint64_t first, uint64_t last)
{
	if (!model_within(got, first, last))
		differ("%s is 0x%lx, not from 0x%lx, %+ld, to 0x%lx, %+ld", what, got, first,
		       (int64_t)(got - first), last, (int64_t)(got - last));
}

#define PAGE_FORMAT	"{ %u, 0x%x, 0x%lx, 0x%lx, %u, %d, 0x%x }"

static void check_page(const char *what, const struct pvclock_vcpu_time_info *got,
		       const struct pvclock_vcpu_time_info *want)
{
	if (memcmp(got, want, sizeof(*got)))
		differ("%s: " PAGE_FORMAT ", not " PAGE_FORMAT, what, got->version, got->pad0,
		       got->tsc_timestamp, got->system_time, got->tsc_to_system_mul,
		       got->tsc_shift, got->flags, want->version, want->pad0,
		       want->tsc_timestamp, want->system_time, want->tsc_to_system_mul,
		       want->tsc_shift, want->flags);
}

static uint64_t any(struct run *run)
{
	return kvmclock_random(&run->random);
}

static unsigned int below(struct run *run, unsigned int limit)
{
	return any(run) % limit;
}

static bool one_in(struct run *run, unsigned int n)
{
	return !below(run, n);
}

/* Edges, and all magnitudes of either sign */
static uint64_t wild(struct run *run)
{
	uint64_t number = any(run) >> below(run, 64);

	if (one_in(run, 4))
		return BIT_ULL(below(run, 64)) - below(run, 2);
	return one_in(run, 3) ? -number : number;
}

/* A few more or less, but often none */
static int64_t some(struct run *run, unsigned int limit)
{
	return one_in(run, 2) ? (int64_t)below(run, 2 * limit + 1) - limit : 0;
}

static void begin(struct run *run)
{
	run->span.raw_ns = clock_ns(CLOCK_MONOTONIC_RAW);
	run->span.tsc = rdtsc();
}

static void end(struct run *run)
{
	run->span.tsc_after = rdtsc();
	run->span.raw_ns_after = clock_ns(CLOCK_MONOTONIC_RAW);
}

static int try(int fd, unsigned long request, void *arg)
{
	return ioctl(fd, request, arg) < 0 ? -errno : 0;
}

static void meet(struct run *run, int r)
{
	report->met[run->kind][-r % MAX_ERRNO]++;
}

/* The step's call, which is to return @expected, or EFAULT if its pointer is bad. */
static bool call(struct run *run, int fd, unsigned long request, void *arg, int expected)
{
	int r;

	if (_IOC_SIZE(request) && one_in(run, 32)) {
		say(", at a bad address");
		arg = BAD_POINTER;
		expected = -EFAULT;
	}
	begin(run);
	r = try(fd, request, arg);
	end(run);
	meet(run, r);
	if (r != expected)
		differ("it returned %d (%s), not %d (%s)", r, strerror(-r), expected,
		       strerror(-expected));
	return !r;
}

static struct kvmclock_vcpu *kv_of(struct run *run, const struct model_vcpu *v)
{
	return &run->kv[v - run->m.vcpu];
}

static bool set_attr(struct run *run, struct model_vcpu *v, uint64_t attr, void *data,
		     int expected)
{
	struct kvm_device_attr args = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = attr,
		.addr = (uintptr_t)data,
	};

	return call(run, kv_of(run, v)->vcpu->fd, KVM_SET_DEVICE_ATTR, &args, expected);
}

static struct model_vcpu *any_vcpu(struct run *run)
{
	struct model_vcpu *v = &run->m.vcpu[below(run, run->m.nr)];

	say("vCPU %ld: ", v - run->m.vcpu);
	return v;
}

static uint64_t clock_at(const struct run *run, uint64_t host_tsc)
{
	return model_clock(&run->m.line, model_scaled(&run->m, host_tsc));
}

/* The offset is as the model has it, or is one that software has moved forward since. */
static void observe(struct run *run, struct model_vcpu *v)
{
	uint64_t found = kvmclock_tsc_offset(kv_of(run, v));

	if (v->software && (int64_t)(found - v->offset) > 0)
		model_set_offset(&run->m, v, found);
	check("KVM_VCPU_TSC_OFFSET", found, v->offset);
}

static void call_guest(struct run *run, struct model_vcpu *v, unsigned int op, uint32_t msr,
		       uint64_t value)
{
	if (!v->software)
		model_enter(&run->m, v);
	begin(run);
	kvmclock_call(kv_of(run, v), op, msr, value);
	end(run);
	check("the guest's exception", kv_of(run, v)->mail->vector, 0);
	/* It was moved at each entry: what counts is the last. */
	if (v->software) {
		observe(run, v);
		model_enter(&run->m, v);
	}
}

/*
 * Units of 100 ns and a page without arithmetic modulo 2^64 are of no use to a clock or
 * a TSC that passes 2^64.
 */
static bool hv_may_wrap(const struct run *run, uint64_t tsc)
{
	return run->m.line.ref_ns >= BIT_ULL(63) ||
	       run->m.line.ref_tsc + run->m.vcpu[0].offset > tsc;
}

/* By userspace, or by the guest.  As long as software moves its TSC it is by userspace. */
static bool write_msr(struct run *run, struct model_vcpu *v, uint32_t msr, uint64_t data)
{
	bool by_host = one_in(run, 2) || v->software;

	say("%s writes 0x%lx to MSR 0x%x", by_host ? "userspace" : "the guest", data, msr);
	if (!by_host) {
		call_guest(run, v, GUEST_WRMSR, msr, data);
	} else {
		begin(run);
		check("KVM_SET_MSRS", _vcpu_set_msr(kv_of(run, v)->vcpu, msr, data), 1);
		end(run);
	}
	meet(run, 0);
	return by_host;
}

/*
 * By how much two differences of CLOCK_REALTIME and the clock can differ, where both go at
 * one rate. Each of the two is rounded down to a nanosecond: that is 1. The clock is
 * rounded once more where its cycles are, by a ratio or by a shift to the right: these are
 * one rounding, to 2^max(-shift, 0) cycles, which with mul < 2^32 are less than
 * 2^max(shift, 0) nanoseconds.
 */
static uint64_t epoch_rounded_ns(const struct model *m)
{
	bool scales = m->ratio != BIT_ULL(m->frac_bits);
	int shift = m->line.shift;

	return 1 + (scales || shift < 0 ? BIT_ULL(max(shift, 0)) : 0);
}

/* CLOCK_REALTIME less what the clock was before this call, at any time during it */
static void epoch_during(struct run *run, uint64_t *least, uint64_t *most)
{
	uint64_t before, after, rounded = epoch_rounded_ns(&run->m);

	run->after = kvmclock_get(run->vm);
	before = run->before.realtime - clock_at(run, run->before.host_tsc);
	after = run->after.realtime - clock_at(run, run->after.host_tsc);
	*least = ((int64_t)(after - before) < 0 ? after : before) - rounded;
	*most = ((int64_t)(after - before) < 0 ? before : after) + rounded;
}

/*
 * Steps: each draws what it does, says it, does it, and has the model do it.
 */

static void set_clock(struct run *run)
{
	static const uint32_t flags[] = { 0, KVM_CLOCK_REALTIME, KVMCLOCK_GET_FLAGS };
	struct kvm_clock_data data = {
		.clock = one_in(run, 2) ? wild(run) : run->before.clock + (int32_t)wild(run),
		.flags = flags[below(run, ARRAY_SIZE(flags))] |
			 (one_in(run, 8) ? BIT(below(run, 32)) : 0),
		.realtime = one_in(run, 2) ? wild(run) :
					     run->before.realtime + (int32_t)wild(run),
	};
	uint64_t least = data.clock, most = data.clock, real, real_most, before;
	struct pvclock_vcpu_time_info line;

	say("KVM_SET_CLOCK { 0x%llx, flags 0x%x, realtime 0x%llx }", data.clock, data.flags,
	    data.realtime);
	if (!call(run, run->vm->fd, KVM_SET_CLOCK, &data,
		  data.flags & ~KVMCLOCK_GET_FLAGS ? -EINVAL : 0))
		return;

	line = kvmclock_get_line(&run->kv[0]);
	line.tsc_timestamp -= run->m.vcpu[0].offset;
	check_within("where the line begins", line.tsc_timestamp,
		     model_scaled(&run->m, run->span.tsc),
		     model_scaled(&run->m, run->span.tsc_after));
	if (data.flags & KVM_CLOCK_REALTIME) {
		before = model_clock(&run->m.line, line.tsc_timestamp);
		epoch_during(run, &real, &real_most);
		least += before + real > data.realtime ? before + real - data.realtime : 0;
		most += before + real_most > data.realtime ? before + real_most - data.realtime : 0;
	}
	check_within("the clock", line.system_time, least, most);
	run->m.line.ref_tsc = line.tsc_timestamp;
	run->m.line.ref_ns = line.system_time;
	model_all_are_stale(&run->m);
}

/* What KVM_GET_CLOCK_GUEST returns, or a little else */
static struct pvclock_vcpu_time_info draw_line(struct run *run, const struct model_vcpu *v)
{
	struct pvclock_vcpu_time_info page = model_page(&run->m, v);
	uint64_t now = model_scaled(&run->m, rdtsc()) + v->offset;
	uint64_t limit = BIT_ULL(62) >> max_t(int, page.tsc_shift, 0);
	unsigned int i;

	page.version = wild(run);
	switch (below(run, 9)) {
	case 0:
		page.system_time = wild(run);
		break;
	case 1:
		page.tsc_timestamp -= BIT_ULL(32 - page.tsc_shift);
		page.system_time -= page.tsc_to_system_mul;
		break;
	case 2:
		page.tsc_to_system_mul += some(run, 200);
		break;
	case 3:	/* 1 kHz faster or slower */
		page.tsc_to_system_mul += (one_in(run, 2) ? 1 : -1) *
			(page.tsc_to_system_mul / v->khz + some(run, 2));
		break;
	case 4:	/* in a while, or a while ago */
		page.tsc_timestamp = now + (one_in(run, 2) ? BIT_ULL(34) : -BIT_ULL(14));
		break;
	case 5:	/* nearly too long ago, or as much as that */
		page.tsc_timestamp = now - limit + (one_in(run, 2) ? BIT_ULL(34) : -BIT_ULL(14));
		break;
	case 6:
		for (i = below(run, 4) + 1; i--; )
			((uint8_t *)&page)[below(run, sizeof(page))] ^= BIT(below(run, 8));
		break;
	case 7:
		page.tsc_to_system_mul = one_in(run, 2) ? 0 : wild(run);
		break;
	}
	return page;
}

static void set_line(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run);
	struct pvclock_vcpu_time_info page = draw_line(run, v);
	uint64_t may;
	int r;

	say("KVM_SET_CLOCK_GUEST { 0x%lx, 0x%lx, %u, %d, flags 0x%x, padding %x %x %x }",
	    page.tsc_timestamp, page.system_time, page.tsc_to_system_mul, page.tsc_shift,
	    page.flags, page.pad0, page.pad[0], page.pad[1]);
	begin(run);
	r = __kvmclock_set_line(kv_of(run, v), &page);
	end(run);
	meet(run, r);
	may = model_may_set_line(&run->m, v, &page, &run->span);
	if (!(may >> -r & 1))
		differ("it returned %d (%s), of which bits are none: 0x%lx", r, strerror(-r), may);
	if (r)
		return;
	run->m.line = (struct model_line) {
		.ref_tsc = page.tsc_timestamp - v->offset,
		.ref_ns = page.system_time,
		.mul = page.tsc_to_system_mul,
		.shift = page.tsc_shift,
	};
	model_all_are_stale(&run->m);
}

static void set_offset(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run), *other = &run->m.vcpu[below(run, run->m.nr)];
	uint64_t offset = one_in(run, 2) ? run->m.gen.point.offset : other->offset;

	offset = one_in(run, 4) ? wild(run) : offset + some(run, 3);
	say("KVM_VCPU_TSC_OFFSET 0x%lx", offset);
	if (set_attr(run, v, KVM_VCPU_TSC_OFFSET, &offset, 0))
		model_take_offset(&run->m, v, offset, offset, &run->span);
}

/* Some vCPU's pair, of now or of an earlier step, or a little else */
static struct kvm_vcpu_tsc_value draw_value(struct run *run, const struct model_vcpu *v)
{
	struct model_vcpu *of = &run->m.vcpu[below(run, run->m.nr)];
	struct kvm_vcpu_tsc_value *saved = &run->saved[below(run, NR_SAVED)], value;

	if (!saved->flags || one_in(run, 2)) {
		*saved = kvmclock_get_value(kv_of(run, of));
		observe(run, of);
	}
	value = *saved;
	if (one_in(run, 2)) {
		value.flags = 0;
		value.kvm_frac = 0;
	}
	value.tsc_val += some(run, 6);
	value.kvm_ns += some(run, 2);
	if (one_in(run, 8) && !v->software) {
		value.tsc_val = wild(run);
		value.kvm_ns = wild(run);
	}
	if (one_in(run, 8))
		value.kvm_frac = wild(run);
	if (one_in(run, 16))
		value.reserved[below(run, ARRAY_SIZE(value.reserved))] = wild(run);
	if (one_in(run, 16))
		value.flags |= BIT(below(run, 32));
	return value;
}

static void set_value(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run);
	struct kvm_vcpu_tsc_value value = draw_value(run, v);
	uint64_t bad = value.flags & ~KVM_TSC_VALUE_FRAC, found;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(value.reserved); i++)
		bad |= value.reserved[i];
	if (value.kvm_frac && !(value.flags & KVM_TSC_VALUE_FRAC))
		bad = 1;
	say("KVM_VCPU_TSC_VALUE { 0x%llx, 0x%llx, 0x%x, flags 0x%x, %sreserved }",
	    value.tsc_val, value.kvm_ns, value.kvm_frac, value.flags, bad ? "maybe " : "0 ");
	/* What has passed is multiplied by the rate, in 64 bits. */
	if (v->software && llabs((int64_t)(value.kvm_ns - clock_at(run, rdtsc()))) >> 50)
		return;
	if (!set_attr(run, v, KVM_VCPU_TSC_VALUE, &value, bad ? -EINVAL : 0))
		return;
	found = kvmclock_tsc_offset(kv_of(run, v));
	if (!model_set_value(&run->m, v, &value, found, &run->span))
		differ("the offset is 0x%lx", found);
}

/* What somebody might write to a TSC: a second is what is near. */
static uint64_t draw_tsc(struct run *run, const struct model_vcpu *v)
{
	int64_t second = v->khz * 1000LL * (one_in(run, 2) ? 1 : -1);
	uint64_t now = model_scaled(&run->m, rdtsc());

	switch (below(run, 6)) {
	case 0:
		return 0;
	case 1:
		return wild(run);
	case 2:
		return now + run->m.gen.point.offset + run->m.gen.ahead + second * 49 / 50;
	case 3:
		return now + run->m.gen.point.offset + run->m.gen.ahead + second * 51 / 50;
	case 4:
		return now + v->offset + some(run, 1000000);
	default:
		return now + run->m.gen.point.offset + some(run, 1000000000);
	}
}

static void write_tsc(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run);
	uint64_t tsc = draw_tsc(run, v), found;
	bool by_host = write_msr(run, v, MSR_IA32_TSC, tsc), explained;

	found = kvmclock_tsc_offset(kv_of(run, v));
	if (by_host) {
		explained = model_restore_tsc(&run->m, v, tsc, found, &run->span);
	} else {
		explained = model_guest_writes_tsc(&run->m, v, tsc, found, &run->span);
		model_enter(&run->m, v);
	}
	if (!explained)
		differ("the offset is 0x%lx", found);
}

static void write_adjust(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run);
	uint64_t adjust = one_in(run, 2) ? wild(run) : v->adjust + some(run, 3);

	if (write_msr(run, v, MSR_IA32_TSC_ADJUST, adjust)) {
		v->adjust = adjust;
	} else {
		model_guest_writes_adjust(&run->m, v, adjust, &run->span);
		model_enter(&run->m, v);
	}
	v->adjust += run->lies && v != run->m.vcpu;
}

/* Where the hardware scales, only what keeps the ratio: the model knows of one. */
static uint32_t draw_khz(struct run *run, uint32_t khz)
{
	const struct model *m = &run->m;
	uint32_t tolerated = (uint64_t)m->host_khz * m->tolerance_ppm / 1000000;

	if (m->frac_bits)
		return one_in(run, 2) ? khz : INT_MAX + 1U + below(run, INT_MAX);

	switch (below(run, 8)) {
	case 0:
		return wild(run);
	case 1:
		return INT_MAX + below(run, 2);
	case 2:
		return m->host_khz + tolerated + below(run, 2);
	case 3:
		return m->host_khz - tolerated - below(run, 2);
	case 4:
		return m->host_khz + some(run, 3);
	case 5:
		return m->gen.khz;
	case 6:
		return 2 * m->host_khz;
	default:
		return 0;
	}
}

/* vCPU 0's is never one that software moves: the line is read by it. */
static void set_khz(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run);
	uint32_t khz = draw_khz(run, v->khz);
	uint64_t found;
	bool software;
	int expected;

	say("KVM_SET_TSC_KHZ %u", khz);
	khz = khz ? khz : run->m.host_khz;
	expected = model_refuses_khz(&run->m, khz, &software);
	if (!expected && software && v == run->m.vcpu)
		return;
	if (!call(run, kv_of(run, v)->vcpu->fd, KVM_SET_TSC_KHZ, NULL + khz, expected))
		return;
	found = kvmclock_tsc_offset(kv_of(run, v));
	if (!model_set_khz(&run->m, v, khz, software, found, &run->span))
		differ("the offset is 0x%lx", found);
}

static void set_vm_khz(struct run *run)
{
	uint32_t khz = draw_khz(run, run->m.default_khz);
	bool software;
	int expected;

	say("KVM_SET_TSC_KHZ %u of the VM", khz);
	khz = khz ? khz : run->m.host_khz;
	expected = vm_khz_is_refused ? -EINVAL : model_refuses_khz(&run->m, khz, &software);
	if (call(run, run->vm->fd, KVM_SET_TSC_KHZ, NULL + khz, expected))
		run->m.default_khz = khz;
}

/* Few places, so that some are those of two structures. */
static uint64_t draw_place(struct run *run)
{
	static const uint32_t offset[] = { 64, 96, 128, 256, PAGE_SIZE - 32 };

	return MODEL_GPA + below(run, MODEL_PAGES) * PAGE_SIZE +
	       offset[below(run, ARRAY_SIZE(offset))];
}

static void set_system_time(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run);
	uint32_t msr = one_in(run, 2) ? MSR_KVM_SYSTEM_TIME : MSR_KVM_SYSTEM_TIME_NEW;
	uint64_t data = draw_place(run) | KVM_MSR_ENABLED;
	bool by_host;

	switch (below(run, 12)) {
	case 0:
		data &= ~KVM_MSR_ENABLED;
		break;
	case 1:
		data += 2;
		break;
	case 2:	/* across a page's end */
		data = (data & PAGE_MASK) + PAGE_SIZE - 28 + KVM_MSR_ENABLED;
		break;
	case 3:
		data = MODEL_NOWHERE | KVM_MSR_ENABLED;
		break;
	}
	by_host = write_msr(run, v, msr, data);
	model_set_system_time(&run->m, v, data, by_host);
	if (!by_host)
		model_enter(&run->m, v);
}

static void set_wall_clock(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run);
	uint32_t msr = one_in(run, 2) ? MSR_KVM_WALL_CLOCK : MSR_KVM_WALL_CLOCK_NEW;
	const __int128_t around_ns = BIT_ULL(32) * (__int128_t)NSEC_PER_SEC;
	struct pvclock_wall_clock wall = { };
	uint64_t gpa = draw_place(run), least, most;

	if (one_in(run, 8))
		gpa = one_in(run, 2) ? 0 : MODEL_NOWHERE;
	else if (one_in(run, 8))	/* of which the version alone is in the slot */
		gpa = MODEL_GPA + (below(run, MODEL_SLOTS) + 1) * MODEL_SLOT_SIZE - 4;
	else if (one_in(run, 4))
		gpa -= 1;
	write_msr(run, v, msr, gpa);

	if (model_has_wall_clock(&run->m, gpa) && model_byte(&run->m, gpa + sizeof(wall) - 1)) {
		memcpy(&wall, &run->memory[gpa - MODEL_GPA], sizeof(wall));
		epoch_during(run, &least, &most);
		/* 32 bits of seconds, and an epoch that may be before 1970 */
		if ((wall.sec * (__int128_t)NSEC_PER_SEC + wall.nsec - (int64_t)least +
		     4 * around_ns) % around_ns > most - least)
			differ("the epoch is %u.%09u s, not from %ld to %ld ns", wall.sec,
			       wall.nsec, (int64_t)least, (int64_t)most);
	}
	model_set_wall_clock(&run->m, gpa, wall.sec, wall.nsec);
}

/* KVM_HC_CLOCK_PAIRING: CLOCK_REALTIME, and the guest's TSC at which it was so. */
static void pair(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run);
	uint32_t type = one_in(run, 8) ? wild(run) : KVM_CLOCK_PAIRING_WALLCLOCK;
	uint64_t gpa = one_in(run, 8) ? MODEL_NOWHERE : draw_place(run), least, most;
	struct kvm_clock_pairing pairing = { };
	struct model *m = &run->m;
	int r, expected;

	/* All of it in one page */
	if (gpa % PAGE_SIZE > PAGE_SIZE - sizeof(pairing))
		gpa -= sizeof(pairing) / 2;
	say("KVM_HC_CLOCK_PAIRING of type %u to 0x%lx", type, gpa);
	call_guest(run, v, GUEST_PAIR, type, gpa);
	r = kv_of(run, v)->mail->value;
	meet(run, r);
	expected = model_byte(m, gpa) ? 0 : -KVM_EFAULT;
	if (type != KVM_CLOCK_PAIRING_WALLCLOCK || v->software)
		expected = -KVM_EOPNOTSUPP;
	if (r != expected)
		differ("it returned %d, not %d", r, expected);
	if (r)
		return;

	memcpy(&pairing, run->memory + (gpa - MODEL_GPA), sizeof(pairing));
	epoch_during(run, &least, &most);
	check_within("the guest's TSC", pairing.tsc, model_scaled(m, run->span.tsc) + v->offset,
		     model_scaled(m, run->span.tsc_after) + v->offset);
	check_within("realtime less the clock", pairing.sec * NSEC_PER_SEC + pairing.nsec -
		     model_clock(&m->line, pairing.tsc - v->offset), least, most);
	/* The rest is 0. */
	model_store(m, gpa, &(struct kvm_clock_pairing) {
		.sec = pairing.sec, .nsec = pairing.nsec, .tsc = pairing.tsc,
	}, sizeof(pairing));
}

static void guest_stopped(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run);

	say("KVM_KVMCLOCK_CTRL");
	if (call(run, kv_of(run, v)->vcpu->fd, KVM_KVMCLOCK_CTRL, NULL,
		 v->gpa[MODEL_OWN] ? 0 : -EINVAL)) {
		v->told = true;
		model_write_vcpu(&run->m, v);
	}
}

static void create_vcpu(struct run *run)
{
	struct kvmclock_vcpu *kv = &run->kv[run->m.nr];
	uint64_t found;

	if (run->m.nr == MODEL_VCPUS)
		return;
	say("vCPU %u is created", run->m.nr);
	begin(run);
	kvmclock_vcpu_add_running(run->vm, kv, run->m.nr, guest);
	end(run);
	vcpu_set_hv_cpuid(kv->vcpu);
	found = kvmclock_tsc_offset(kv);
	if (!model_create(&run->m, found, &run->span))
		differ("its offset is 0x%lx", found);
	meet(run, 0);
}

/* After it the vCPU is started again, with its program where it was. */
static void init_vcpu(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run);
	struct kvm_vcpu *vcpu = kv_of(run, v)->vcpu;
	struct kvm_mp_state running = { .mp_state = KVM_MP_STATE_RUNNABLE };
	struct kvm_sregs sregs;
	struct kvm_regs regs;

	say("INIT");
	vcpu_sregs_get(vcpu, &sregs);
	vcpu_regs_get(vcpu, &regs);
	kvmclock_send_init(vcpu);
	vcpu_sregs_set(vcpu, &sregs);
	vcpu_regs_set(vcpu, &regs);
	vcpu_ioctl(vcpu, KVM_SET_MP_STATE, &running);
	model_init(v);
	meet(run, 0);
}

static void enter(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run);

	say("KVM_RUN");
	call_guest(run, v, GUEST_NOP, 0, 0);
	meet(run, 0);
}

static void check_msrs(struct run *run, const struct model_vcpu *v, const uint64_t *value)
{
	uint64_t clock = clock_at(run, run->span.tsc), after = clock_at(run, run->span.tsc_after);

	if (!v->software)
		check_within("MSR_IA32_TSC", value[0],
			     model_scaled(&run->m, run->span.tsc) + v->offset,
			     model_scaled(&run->m, run->span.tsc_after) + v->offset);
	/* Three roundings */
	if (!hv_may_wrap(run, model_scaled(&run->m, run->span.tsc_after) + run->m.vcpu[0].offset))
		check_within("HV_X64_MSR_TIME_REF_COUNT", value[1], clock / HV_UNIT_NS - 2,
			     after / HV_UNIT_NS + 1);
	check("MSR_IA32_TSC_ADJUST", value[2], v->adjust);
	check("MSR_KVM_SYSTEM_TIME", value[3], v->system_time);
	check("MSR_KVM_SYSTEM_TIME_NEW", value[4], v->system_time);
	check("MSR_KVM_WALL_CLOCK", value[5], run->m.wall_clock);
	check("MSR_KVM_WALL_CLOCK_NEW", value[6], run->m.wall_clock);
	check("HV_X64_MSR_REFERENCE_TSC", value[7], run->m.hv_msr);
}

/* The guest reads all structures that it can, and computes the clock; and its MSRs. */
static void look(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run), *other;
	struct oracle_mail *mail = (void *)kv_of(run, v)->mail;
	struct pvclock_vcpu_time_info page;
	bool retried = false;
	unsigned int i;

	mail->nr_looks = 0;
	for (other = run->m.vcpu; other < &run->m.vcpu[run->m.nr]; other++) {
		for (i = 0; i < MODEL_STRUCTS; i++) {
			if (other->gpa[i] && model_byte(&run->m, other->gpa[i]))
				mail->look[mail->nr_looks++].gpa = other->gpa[i];
		}
	}
	say("the guest reads all clocks");
	call_guest(run, v, GUEST_LOOK, 0, 0);
	model_look(&run->m);
	for (other = run->m.vcpu; other < &run->m.vcpu[run->m.nr]; other++)
		retried |= other->retried;
	meet(run, 0);
	if (v->software)
		return;
	for (i = 0; i < mail->nr_looks; i++) {
		memcpy(&page, model_byte(&run->m, mail->look[i].gpa), sizeof(page));
		page.version = mail->look[i].page.version;
		if (!retried)
			check_page("what the guest reads", &mail->look[i].page, &page);
		check("what it makes of it", mail->look[i].ns,
		      oracle_at(&mail->look[i].page, mail->look[i].tsc));
		check_within("its TSC", mail->look[i].tsc,
			     model_scaled(&run->m, run->span.tsc) + v->offset,
			     model_scaled(&run->m, run->span.tsc_after) + v->offset);
	}
	check_msrs(run, v, mail->msr);
}

static void give_slot(struct run *run, unsigned int slot)
{
	vm_set_user_memory_region(run->vm, SLOT + slot, KVM_MEM_LOG_DIRTY_PAGES,
				  MODEL_GPA + slot * MODEL_SLOT_SIZE,
				  run->m.gone[slot] ? 0 : MODEL_SLOT_SIZE,
				  run->memory + slot * MODEL_SLOT_SIZE);
}

static void move_slot(struct run *run)
{
	unsigned int slot = below(run, MODEL_SLOTS);

	run->m.gone[slot] = !run->m.gone[slot];
	say("slot %u %s", slot, run->m.gone[slot] ? "is removed" : "comes back");
	give_slot(run, slot);
	meet(run, 0);
}

/* Userspace puts what it likes where a structure may be, such as one that is half done. */
static void scribble(struct run *run)
{
	uint64_t at = draw_place(run) - MODEL_GPA;
	struct pvclock_vcpu_time_info page;

	memcpy(&page, run->memory + at, sizeof(page));
	page.flags = below(run, 4);
	if (one_in(run, 2)) {
		page.version = wild(run);
		page.tsc_timestamp = wild(run);
		page.pad0 = wild(run);
		page.pad[1] = wild(run);
	}
	say("userspace writes 0x%lx: version %u, flags 0x%x", at, page.version, page.flags);
	memcpy(run->memory + at, &page, sizeof(page));
	memcpy(run->m.memory + at, &page, sizeof(page));
	meet(run, 0);
}

static void set_xen(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run);
	bool info = one_in(run, 2);
	unsigned int which = info ? MODEL_XEN_INFO : MODEL_XEN_TIME;
	size_t size = info ? XEN_INFO_SIZE : sizeof(struct pvclock_vcpu_time_info);
	struct kvm_xen_vcpu_attr attr = {
		.type = info ? KVM_XEN_VCPU_ATTR_TYPE_VCPU_INFO :
			       KVM_XEN_VCPU_ATTR_TYPE_VCPU_TIME_INFO,
	};
	uint64_t gpa = draw_place(run) | (one_in(run, 8) ? PAGE_SIZE - 4 : 0);
	int expected = gpa % PAGE_SIZE + size > PAGE_SIZE ? -EINVAL : 0;

	/* Without memory it is an error that leaves the place behind. */
	if (one_in(run, 4) || !model_byte(&run->m, gpa)) {
		gpa = KVM_XEN_INVALID_GPA;
		expected = 0;
	}
	attr.u.gpa = gpa;
	say("Xen's vcpu_%sinfo at 0x%lx", info ? "" : "time_", gpa);
	if (!call(run, kv_of(run, v)->vcpu->fd, KVM_XEN_VCPU_SET_ATTR, &attr, expected))
		return;
	if (gpa == KVM_XEN_INVALID_GPA)
		v->gpa[which] = 0;
	else
		model_place(&run->m, v, which, gpa + (info ? XEN_INFO_TIME : 0), true);
}

static void configure_xen(struct run *run)
{
	bool unstable = one_in(run, 2);
	struct kvm_xen_hvm_config config = {
		.flags = unstable ? KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE : 0,
		.msr = XEN_MSR,
	};

	say("KVM_XEN_HVM_CONFIG, flags 0x%x", config.flags);
	if (!call(run, run->vm->fd, KVM_XEN_HVM_CONFIG, &config, 0))
		return;
	if (run->m.xen_unstable != unstable)
		model_all_are_stale(&run->m);
	run->m.xen_unstable = unstable;
}

/* It is at the start of a slot's last page, where nothing else is. */
static void set_hv(struct run *run)
{
	struct model_vcpu *v = any_vcpu(run);
	uint64_t gpa = MODEL_GPA + (below(run, MODEL_SLOTS) + 1) * MODEL_SLOT_SIZE - PAGE_SIZE;
	bool on = !one_in(run, 4), by_host;

	gpa = one_in(run, 8) ? MODEL_NOWHERE : gpa;
	by_host = write_msr(run, v, HV_X64_MSR_REFERENCE_TSC, gpa | on);
	run->m.hv_msr = gpa | on;
	run->m.hv_gpa = on ? gpa : 0;
	run->m.hv_stale = true;
	if (!by_host)
		model_enter(&run->m, v);
}

static void set_tolerance(struct run *run)
{
	static const char * const ppm[] = { "0", "250", "1000" };
	const char *word = ppm[below(run, ARRAY_SIZE(ppm))];

	say("kvm.tsc_tolerance_ppm is %s", word);
	write_file_ok(TSC_TOLERANCE, word);
	run->m.tolerance_ppm = atoi(word);
	meet(run, 0);
}

/* How often each comes, and the errors, besides EFAULT, that are to be met in a long run */
static const struct kind {
	const char *name;
	void (*step)(struct run *run);
	unsigned int weight;
	int errors[3];
} kinds[] = {
	{ "KVM_SET_CLOCK",		set_clock,	6,	{ EINVAL } },
	{ "KVM_SET_CLOCK_GUEST",	set_line,	6,	{ EINVAL, ERANGE } },
	{ "KVM_VCPU_TSC_OFFSET",	set_offset,	5 },
	{ "KVM_VCPU_TSC_VALUE",		set_value,	8,	{ EINVAL } },
	{ "MSR_IA32_TSC",		write_tsc,	10 },
	{ "MSR_IA32_TSC_ADJUST",	write_adjust,	4 },
	{ "KVM_SET_TSC_KHZ",		set_khz,	6,	{ EINVAL } },
	{ "KVM_SET_TSC_KHZ of the VM",	set_vm_khz,	2,	{ EINVAL } },
	{ "MSR_KVM_SYSTEM_TIME",	set_system_time, 10 },
	{ "MSR_KVM_WALL_CLOCK",		set_wall_clock,	3 },
	{ "KVM_HC_CLOCK_PAIRING",	pair,		3,	{ EFAULT, EOPNOTSUPP } },
	{ "KVM_KVMCLOCK_CTRL",		guest_stopped,	3,	{ EINVAL } },
	{ "a vCPU is created",		create_vcpu,	3 },
	{ "KVM_RUN",			enter,		10 },
	{ "a guest reads",		look,		8 },
	{ "a slot comes or goes",	move_slot,	4 },
	{ "userspace writes memory",	scribble,	3 },
	{ "Xen's structures",		set_xen,	5,	{ EINVAL } },
	{ "KVM_XEN_HVM_CONFIG",		configure_xen,	2 },
	{ "Hyper-V's page",		set_hv,		3 },
	{ "kvm.tsc_tolerance_ppm",	set_tolerance,	1 },
	{ "INIT",			init_vcpu,	4 },
};

static_assert(ARRAY_SIZE(kinds) == NR_KINDS, "kinds");

/*
 * Checks after each step
 */

/* Not to the bit: if it was written it is of the line, within its roundings, else as it was. */
static void check_hv_page(struct run *run)
{
	uint64_t at = run->m.hv_gpa - MODEL_GPA, gpa, tsc, clock = run->after.clock, units;
	struct hv_tsc_page page;
	unsigned int i;

	/* The guest has had it written where it was, too, before it moved it. */
	for (i = 1; run->m.hv_due && i <= MODEL_SLOTS; i++) {
		gpa = MODEL_GPA + i * MODEL_SLOT_SIZE - PAGE_SIZE;
		memcpy(&page, run->memory + (gpa - MODEL_GPA), sizeof(page));
		if (!model_byte(&run->m, gpa))
			continue;
		model_store(&run->m, gpa, &page, sizeof(page));
		run->m.touched |= BIT((gpa - MODEL_GPA) / PAGE_SIZE);
	}
	if (!model_byte(&run->m, run->m.hv_gpa))
		return;
	memcpy(&page, run->memory + at, sizeof(page));
	if (run->m.hv_due && run->m.stable == !page.sequence)
		differ("Hyper-V's page has sequence %u", page.sequence);
	tsc = model_scaled(&run->m, run->after.host_tsc) + run->m.vcpu[0].offset;
	if (run->m.hv_stale || !page.sequence || hv_may_wrap(run, tsc))
		return;
	units = ((__uint128_t)tsc * page.scale >> 64) + page.offset;
	check_within("the time by Hyper-V's page", units, clock / HV_UNIT_NS - 2,
		     clock / HV_UNIT_NS + 1);
}

static void check_memory(struct run *run)
{
	struct model *m = &run->m;
	unsigned int i, pages = MODEL_PAGES / MODEL_SLOTS;
	unsigned long dirty, untouched;
	uint32_t version, least;
	struct model_vcpu *v;
	char what[32];
	uint64_t at;

	for (v = m->vcpu; v < &m->vcpu[m->nr]; v++) {
		for (i = 0; i < MODEL_STRUCTS && v->retried; i++) {
			at = v->gpa[i] - MODEL_GPA + sizeof(version);
			if (!model_byte(m, v->gpa[i]) ||
			    !memcmp(run->memory + at, m->memory + at, 28))
				continue;
			model_write_vcpu(m, v);
			v->retried = false;
		}
		v->retried = false;
	}
	for (i = 0; i < m->nr_often && i < ARRAY_SIZE(m->often); i++) {
		at = m->often[i] - MODEL_GPA;
		if (at >= MODEL_SIZE)
			continue;
		memcpy(&version, run->memory + at, sizeof(version));
		memcpy(&least, m->memory + at, sizeof(least));
		/* By two each time */
		if (version - least < 1000 && !((version - least) & 1))
			memcpy(m->memory + at, &version, sizeof(version));
	}
	for (at = 0; memcmp(run->memory + at, m->memory + at, MODEL_SIZE - at); at += 32) {
		snprintf(what, sizeof(what), "memory at 0x%lx", at);
		if (memcmp(run->memory + at, m->memory + at, 32))
			check_page(what, (void *)run->memory + at, (void *)m->memory + at);
	}
	for (i = 0; i < MODEL_SLOTS; i++) {
		if (m->gone[i])
			continue;
		dirty = 0;
		kvm_vm_get_dirty_log(run->vm, SLOT + i, &dirty);
		untouched = ~(m->touched >> i * pages);
		check("the dirty bitmap", dirty & untouched,
		      m->dirty >> i * pages & (BIT(pages) - 1) & untouched);
	}
}

/* The last instant at which the clock drops no bit, and all bits of it */
static void check_value(struct run *run, struct model_vcpu *v)
{
	uint64_t tsc, dropped = BIT_ULL(max(-run->m.line.shift, 0)) - 1;
	struct kvm_vcpu_tsc_value value;
	__uint128_t elapsed;

	begin(run);
	value = kvmclock_get_value(kv_of(run, v));
	end(run);
	observe(run, v);
	tsc = value.tsc_val - v->offset;
	elapsed = model_elapsed(&run->m.line, tsc);
	check_within("KVM_VCPU_TSC_VALUE's TSC", tsc,
		     model_scaled(&run->m, run->span.tsc) - dropped,
		     model_scaled(&run->m, run->span.tsc_after));
	check("what the clock drops there", (tsc - run->m.line.ref_tsc) & dropped, 0);
	check("its clock", value.kvm_ns, run->m.line.ref_ns + (uint64_t)(elapsed >> 32));
	check("its fraction", value.kvm_frac, (uint32_t)elapsed);
	check("its flags", value.flags, KVM_TSC_VALUE_FRAC);
}

static void check_vcpu(struct run *run, struct model_vcpu *v)
{
	struct {
		struct kvm_msrs header;
		struct kvm_msr_entry entry[NR_MSRS];
	} buffer = { .header.nmsrs = NR_MSRS };
	struct pvclock_vcpu_time_info line, want = model_page(&run->m, v);
	struct kvm_vcpu_tsc_scale scale = { };
	struct kvmclock_vcpu *kv = kv_of(run, v);
	uint64_t value[NR_MSRS];
	unsigned int i;
	int r;

	memset(&line, 0xff, sizeof(line));
	r = try(kv->vcpu->fd, KVM_GET_CLOCK_GUEST, &line);
	check("KVM_GET_CLOCK_GUEST's error", -r, v->software ? ENODATA : 0);
	if (!r)
		check_page("KVM_GET_CLOCK_GUEST", &line, &want);
	check("KVM_GET_TSC_KHZ", ioctl(kv->vcpu->fd, KVM_GET_TSC_KHZ, NULL), v->khz);
	if (run->m.frac_bits) {
		vcpu_device_attr_get(kv->vcpu, KVM_VCPU_TSC_CTRL, KVM_VCPU_TSC_SCALE, &scale);
		check("KVM_VCPU_TSC_SCALE", scale.tsc_ratio, run->m.ratio);
		check("its bits of fraction", scale.tsc_frac_bits, run->m.frac_bits);
	}

	for (i = 0; i < NR_MSRS; i++)
		buffer.entry[i].index = msrs[i];
	begin(run);
	vcpu_msrs_get(kv->vcpu, &buffer.header);
	end(run);
	for (i = 0; i < NR_MSRS; i++)
		value[i] = buffer.entry[i].data;
	check_msrs(run, v, value);
	observe(run, v);
	if (v->software && !model_follows(&v->point, v->khz, v->offset, &run->span))
		differ("a TSC that software moves is not where base time says: offset 0x%lx",
		       v->offset);
	check_value(run, v);
}

static void check_all(struct run *run)
{
	struct model *m = &run->m;
	struct kvm_clock_data data;
	struct model_vcpu *v;
	struct timespec ts;

	memset(&data, 0xff, sizeof(data));
	clock_gettime(CLOCK_REALTIME, &ts);
	begin(run);
	vm_ioctl(run->vm, KVM_GET_CLOCK, &data);
	end(run);
	check_within("KVM_GET_CLOCK's TSC", data.host_tsc, run->span.tsc, run->span.tsc_after);
	check("KVM_GET_CLOCK", data.clock, clock_at(run, data.host_tsc));
	check("its flags", data.flags, KVMCLOCK_GET_FLAGS);
	check_within("its realtime", data.realtime, ts.tv_sec * NSEC_PER_SEC + ts.tv_nsec,
		     INT64_MAX);
	check("its padding", data.pad0 | data.pad[0] | data.pad[1] | data.pad[2] | data.pad[3], 0);
	run->before = data;
	run->after = data;

	for (v = m->vcpu; v < &m->vcpu[m->nr]; v++)
		observe(run, v);
	check_hv_page(run);
	check_memory(run);
	check("KVM_GET_TSC_KHZ of the VM", ioctl(run->vm->fd, KVM_GET_TSC_KHZ, NULL),
	      m->default_khz);
	for (v = m->vcpu; v < &m->vcpu[m->nr]; v++)
		check_vcpu(run, v);
	m->dirty = 0;
	m->touched = 0;
	m->nr_often = 0;
	m->hv_due = false;
}

/*
 * Lives
 */

/* With scaling hardware the VM is told a rate before its first vCPU, and its TSC goes on. */
static void scale(struct run *run, const struct model_span *created)
{
	struct model *m = &run->m;
	uint32_t khz = m->host_khz / 3 + below(run, 2 * m->host_khz);
	struct model_line before = m->line;
	struct pvclock_vcpu_time_info page;
	uint64_t first, last, swapped;

	m->frac_bits = host_cpu_is_amd ? 32 : 48;
	m->ratio = ((__uint128_t)khz << m->frac_bits) / m->host_khz;
	begin(run);
	vm_ioctl(run->vm, KVM_SET_TSC_KHZ, (void *)(unsigned long)khz);
	end(run);
	m->default_khz = khz;
	m->gen.khz = khz;
	m->gen.id++;
	kvmclock_vcpu_add_running(run->vm, &run->kv[0], 0, guest);

	m->gen.point.offset = kvmclock_tsc_offset(&run->kv[0]);
	first = run->span.tsc - model_scaled(m, run->span.tsc);
	last = run->span.tsc_after - model_scaled(m, run->span.tsc_after);
	swapped = (int64_t)(last - first) < 0 ? first - last : 0;
	check_within("the offset at another rate", m->gen.point.offset,
		     first - swapped - created->tsc_after, last + swapped - created->tsc);
	page = kvmclock_get_line(&run->kv[0]);
	m->line.ref_tsc = page.tsc_timestamp - m->gen.point.offset;
	m->line.ref_ns = page.system_time;
	if (!model_was(m, m->line.ref_tsc, &run->span))
		differ("at another rate the line begins at 0x%lx", m->line.ref_tsc);
	before.ref_tsc = 0;
	check_within("the clock at another rate", page.system_time,
		     model_clock(&before, run->span.tsc - created->tsc_after),
		     model_clock(&before, run->span.tsc_after - created->tsc));
	model_slope(m, &m->line);
}

/* The clock and all TSCs start at 0, at one instant. */
static void start(struct run *run)
{
	struct model *m = &run->m;
	struct model_span span;
	uint64_t found;

	write_file_ok(TSC_TOLERANCE, "250");
	m->tolerance_ppm = 250;
	m->ratio = 1;
	m->stable = true;
	m->gen.id = 1;
	begin(run);
	run->vm = vm_create(MODEL_VCPUS);
	end(run);
	span = run->span;
	m->host_khz = ioctl(run->vm->fd, KVM_GET_TSC_KHZ, NULL);
	m->default_khz = m->host_khz;
	m->gen.khz = m->host_khz;
	m->gen.point.at = span;
	model_slope(m, &m->line);
	run->memory = mmap(NULL, MODEL_SIZE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
	TEST_ASSERT(run->memory != MAP_FAILED, "mmap() failed");
	give_slot(run, 0);
	give_slot(run, 1);
	virt_map(run->vm, MODEL_GPA, MODEL_GPA, MODEL_PAGES);

	if (kvm_has_cap(KVM_CAP_TSC_CONTROL)) {
		scale(run, &span);
	} else {
		kvmclock_vcpu_add_running(run->vm, &run->kv[0], 0, guest);
		found = kvmclock_tsc_offset(&run->kv[0]);
		check_within("when a new VM's TSC is 0", -found, span.tsc, span.tsc_after);
		m->gen.point.offset = found;
		m->line.ref_tsc = -found;
	}
	vcpu_set_hv_cpuid(run->kv[0].vcpu);
	if (!model_create(m, kvmclock_tsc_offset(&run->kv[0]), &run->span))
		differ("the first vCPU is not as its VM");
	check_all(run);
}

static __noreturn void live(const struct step *steps, unsigned int nr, bool lies, bool aloud)
{
	static struct run run;

	report->said[0] = 0;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	run.lies = lies;
	run.random = SEED;
	report->nr_done = 0;
	start(&run);
	for (report->nr_done = 0; report->nr_done < nr; report->nr_done++) {
		run.kind = steps[report->nr_done].kind;
		run.random = steps[report->nr_done].seed;
		report->said[0] = 0;
		kinds[run.kind].step(&run);
		if (aloud && report->nr_done < nr - 1) {
			ksft_print_msg("%3u. %s\n", report->nr_done + 1, report->said);
			fflush(stdout);
		}
		check_all(&run);
	}
	_exit(0);
}

/* Do KVM and the model agree all the way? */
static bool agree(const struct step *steps, unsigned int nr, bool lies, bool aloud)
{
	pid_t pid;
	int status;

	report->why[0] = 0;
	fflush(NULL);
	pid = fork();
	TEST_ASSERT(pid >= 0, "fork() failed");
	if (!pid)
		live(steps, nr, lies, aloud);
	TEST_ASSERT(waitpid(pid, &status, 0) == pid, "waitpid() failed");
	if (status && !report->why[0])
		snprintf(report->why, sizeof(report->why), "its process ended, status 0x%x",
			 status);
	return !status;
}

/*
 * Leaves out what is not needed to disagree: halves, quarters, ... single steps; for no
 * longer than somebody waits for it.
 */
static unsigned int shrink(struct step *steps, unsigned int nr, bool lies)
{
	int64_t begin = clock_ns(CLOCK_MONOTONIC);
	struct step rest[NR_ROUND];
	unsigned int chunk = nr, at = 0;

	while (chunk && (lies || clock_ns(CLOCK_MONOTONIC) - begin < SHRINK_NS)) {
		if (at + chunk > nr) {
			chunk /= 2;
			at = 0;
			continue;
		}
		memcpy(rest, steps, at * sizeof(*steps));
		memcpy(rest + at, steps + at + chunk, (nr - at - chunk) * sizeof(*steps));
		if (agree(rest, nr - chunk, lies, false)) {
			at += chunk;
			continue;
		}
		/* It may be earlier now, and what had to be there before need not. */
		nr = min(nr - chunk, report->nr_done + 1);
		memcpy(steps, rest, nr * sizeof(*steps));
		if (chunk == 1)
			at = 0;
	}
	return nr;
}

static void draw_steps(struct step *steps, unsigned int nr, uint64_t random)
{
	unsigned int i, at, total = 0;
	const struct kind *kind;

	for (kind = kinds; kind < kinds + NR_KINDS; kind++)
		total += kind->weight;
	for (i = 0; i < nr; i++) {
		at = kvmclock_random(&random) % total;
		for (kind = kinds; at >= kind->weight; kind++)
			at -= kind->weight;
		steps[i].kind = kind - kinds;
		steps[i].seed = kvmclock_random(&random);
	}
}

/* One life after the other.  Returns 0, or how many steps it takes to disagree. */
static unsigned int find(struct step *steps, uint64_t seed, uint64_t nr_steps, bool lies)
{
	uint64_t done, nr;

	for (done = 0; done < nr_steps; done += nr) {
		nr = min(nr_steps - done, (uint64_t)NR_ROUND);
		draw_steps(steps, nr, (seed + done) * 0x9e3779b97f4a7c15ULL | 1);
		if (!agree(steps, nr, lies, false)) {
			ksft_print_msg("step %lu: %s; shrinking it\n", done + report->nr_done + 1,
				       report->why);
			return shrink(steps, min(nr, (uint64_t)report->nr_done + 1), lies);
		}
	}
	return 0;
}

static uint64_t seed = SEED, nr_steps = NR_STEPS;

FIXTURE(kvmclock_oracle) {
	struct step steps[NR_ROUND];
};

FIXTURE_SETUP(kvmclock_oracle)
{
	struct kvm_vm *vm = vm_create_barebones();

	/* By Linux 7.3 it is, as the vCPUs have rates of their own. */
	__vm_vcpu_add(vm, 0);
	vm_khz_is_refused = ioctl(vm->fd, KVM_SET_TSC_KHZ, NULL);
	kvm_vm_free(vm);

	report = mmap(NULL, sizeof(*report), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS,
		      -1, 0);
	TEST_ASSERT(report != MAP_FAILED, "mmap() failed");
}

FIXTURE_TEARDOWN(kvmclock_oracle)
{
}

TEST_F_TIMEOUT(kvmclock_oracle, steps, TIMEOUT_S)
{
	const struct kind *kind;
	const uint64_t *met;
	unsigned int nr, i;

	ksft_print_msg("seed %lu, %lu steps\n", seed, nr_steps);
	nr = find(self->steps, seed, nr_steps, false);
	if (nr) {
		TEST_ASSERT(!agree(self->steps, nr, false, true), "it is not repeated");
		TEST_FAIL("seed %lu, %u. %s: %s", seed, nr, report->said, report->why);
	}

	for (kind = kinds; kind < kinds + NR_KINDS; kind++) {
		met = report->met[kind - kinds];
		ksft_print_msg("%-27s %6lu done, %lu EFAULT, %lu EINVAL, %lu ERANGE\n", kind->name,
			       met[0], met[EFAULT], met[EINVAL], met[ERANGE]);
		TEST_ASSERT(met[0] || nr_steps < NR_STEPS || vm_khz_is_refused, "never done");
		for (i = 0; i < ARRAY_SIZE(kind->errors) && nr_steps >= NR_STEPS; i++)
			TEST_ASSERT(met[kind->errors[i]] || !kind->errors[i], "never refused: %s",
				    strerror(kind->errors[i]));
	}
}

/* A model that lies about another vCPU's MSR is caught by just that vCPU and that write. */
TEST_F_TIMEOUT(kvmclock_oracle, finds_a_lie, TIMEOUT_S)
{
	unsigned int nr = find(self->steps, seed, NR_STEPS, true);

	TEST_ASSERT(!agree(self->steps, nr, true, true), "what is left is no disagreement");
	ksft_print_msg("%3u. %s: %s\n", nr, report->said, report->why);
	TEST_ASSERT(nr > 1 && kinds[self->steps[--nr].kind].step == write_adjust,
		    "it is not the write");
	while (nr--)
		TEST_ASSERT(kinds[self->steps[nr].kind].step == create_vcpu, "step %u is left", nr);
}

int main(int argc, char *argv[])
{
	kvmclock_require_host();
	TEST_ASSERT(kvm_check_cap(KVM_CAP_CLOCK_GUEST), "no KVM_CAP_CLOCK_GUEST");
	if (argc > 1 && argv[1][0] != '-') {
		seed = strtoull(argv[1], NULL, 0);
		nr_steps = argc > 2 ? strtoull(argv[2], NULL, 0) : nr_steps;
		argc = 1;
	}
	return run_guarded(argc, argv);
}
