/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * KVM's clock as Documentation/virt/kvm/x86/kvmclock.rst has it: what each call makes of
 * a VM's line, of its TSCs and of guest memory, as long as the host keeps time by its TSC
 * and the VM's TSCs have one ratio.  Written after that text, in plain 128-bit arithmetic,
 * to be held against what KVM does.
 *
 * A call that reads the TSC does so at an instant that KVM alone knows.  One number that
 * it leaves behind gives that away, mostly the offset, @found here: either an instant of
 * the call's span explains it, or KVM is wrong.  All else follows exactly.
 */
#ifndef SELFTEST_KVM_KVMCLOCK_MODEL_H
#define SELFTEST_KVM_KVMCLOCK_MODEL_H

#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <asm/pvclock.h>
#include <asm/pvclock-abi.h>

#include "kvm_util.h"

#define MODEL_VCPUS	4
#define MODEL_PAGES	6
#define MODEL_SLOTS	2
#define MODEL_SIZE	(MODEL_PAGES * PAGE_SIZE)
#define MODEL_SLOT_SIZE	(MODEL_SIZE / MODEL_SLOTS)
#define MODEL_GPA	BIT_ULL(32)
#define MODEL_NOWHERE	(MODEL_GPA + BIT_ULL(28))	/* there is no memory */

/* A vCPU's structures, in the order in which they are written */
enum { MODEL_XEN_INFO, MODEL_XEN_TIME, MODEL_OWN, MODEL_STRUCTS };

#define MODEL_ALL	(BIT(MODEL_STRUCTS) - 1)

/* The host's times before and after a call; in ns: CLOCK_MONOTONIC_RAW */
struct model_span {
	uint64_t tsc, tsc_after;
	int64_t raw_ns, raw_ns_after;
};

struct model_line {
	uint64_t ref_tsc, ref_ns;
	uint32_t mul;
	int shift;
};

/* At one instant of a span a TSC had this offset, and what moves it began there. */
struct model_point {
	struct model_span at;
	uint64_t offset;
};

struct model_generation {
	uint64_t id, parent;
	uint32_t khz;
	struct model_point point;
	bool user_set;
	int64_t ahead, ahead_most;	/* what was written last, less the TSC then */
};

struct model_vcpu {
	uint32_t khz;
	bool software;			/* software moves the TSC, by base time */
	uint64_t offset;
	uint64_t pair;			/* the offset that userspace asked for */
	uint64_t generation, follows;	/* 0: none */
	struct model_point point;
	uint64_t adjust;
	uint64_t system_time;
	uint64_t gpa[MODEL_STRUCTS];	/* 0: none */
	uint8_t stale;			/* structures without the line ... */
	uint8_t away;			/* ... which had no memory when it was due */
	bool shown;			/* the stable bit may be seen there */
	bool retried;			/* they may have been written once more in this step */
	bool told;			/* PVCLOCK_GUEST_STOPPED is owed */
};

struct model {
	uint32_t host_khz, tolerance_ppm, default_khz;
	unsigned int frac_bits;		/* of the ratio; 0: the hardware does not scale */
	uint64_t ratio;
	struct model_line line;
	bool stable;
	struct model_generation gen;
	struct model_vcpu vcpu[MODEL_VCPUS];
	unsigned int nr;
	uint64_t wall_clock;
	bool xen_unstable;
	uint64_t hv_msr, hv_gpa;	/* Hyper-V's page; 0: none */
	bool hv_stale, hv_due;		/* without the line; written in this step */

	uint8_t memory[MODEL_SIZE];
	bool gone[MODEL_SLOTS];
	unsigned long dirty;		/* pages, in this step */
	unsigned long touched;		/* ... which may be dirty besides */
	uint64_t often[64];		/* what may have been written more often in it */
	unsigned int nr_often;
};

/*
 * Numbers
 */

static inline uint64_t model_scaled(const struct model *m, uint64_t host_tsc)
{
	return (__uint128_t)host_tsc * m->ratio >> m->frac_bits;
}

/* Since the reference, in 2^-32 ns */
static inline __uint128_t model_elapsed(const struct model_line *line, uint64_t tsc)
{
	__uint128_t cycles = tsc - line->ref_tsc;

	return (line->shift < 0 ? cycles >> -line->shift : cycles << line->shift) * line->mul;
}

static inline uint64_t model_clock(const struct model_line *line, uint64_t tsc)
{
	return line->ref_ns + (uint64_t)(model_elapsed(line, tsc) >> 32);
}

/* The TSC nearest to where the line has a value; ties up. */
static inline uint64_t model_tsc_at(const struct model_line *line, uint64_t ns, uint32_t frac)
{
	__int128_t cycles = (__int128_t)(int64_t)(ns - line->ref_ns) * BIT_ULL(32) + frac;
	__int128_t mul = line->mul, rest;

	if (line->shift < 0)
		cycles *= BIT_ULL(-line->shift);
	else
		mul <<= line->shift;
	rest = (cycles % mul + mul) % mul;
	return line->ref_tsc + (uint64_t)((cycles - rest) / mul) + (rest >= mul - rest);
}

/*
 * The rate that clocks go by, in 2^-frac Hz: as asked for, in kHz, if the ratio is the
 * one that is made of that.
 */
static inline __uint128_t model_rate(const struct model *m, unsigned int frac)
{
	__uint128_t product = (__uint128_t)m->host_khz * m->ratio;
	__uint128_t khz = (product >> m->frac_bits) + 1;

	if (product % BIT_ULL(m->frac_bits) &&
	    (khz << m->frac_bits) / m->host_khz == m->ratio)
		return khz * 1000 << frac;
	return (product * 1000 << frac) >> m->frac_bits;
}

/* Nanoseconds per cycle, cut, of the rate in units of 2^-16 Hz, 2^-27 Hz if scaled down */
static inline void model_slope(const struct model *m, struct model_line *line)
{
	unsigned int frac = m->ratio >> m->frac_bits ? 16 : 27;
	__uint128_t ns = (__uint128_t)NSEC_PER_SEC << frac, hz = model_rate(m, frac), mul;

	line->shift = -32;
	do {
		line->shift++;
		mul = (ns << (32 - line->shift)) / hz;
	} while (mul >> 32);
	line->mul = mul;
}

static inline int64_t model_cycles(int64_t ns, uint32_t khz)
{
	return (__int128_t)ns * khz / 1000000;
}

/* Modulo 2^64 */
static inline bool model_within(uint64_t value, uint64_t first, uint64_t last)
{
	return value - first <= last - first;
}

/* Was the scaled TSC @tsc at some instant? */
static inline bool model_was(const struct model *m, uint64_t tsc, const struct model_span *span)
{
	return model_within(tsc, model_scaled(m, span->tsc), model_scaled(m, span->tsc_after));
}

/* The offset that a rate has made of a point's by now, but for some roundings: in between */
static inline void model_moved(const struct model_point *point, uint32_t khz,
			       const struct model_span *span, uint64_t *least, uint64_t *most)
{
	int64_t cycles = model_cycles(span->raw_ns - point->at.raw_ns_after, khz);
	int64_t cycles_most = model_cycles(span->raw_ns_after - point->at.raw_ns, khz);
	int64_t slack = 4 + 4 * (khz / 1000000) + (llabs(cycles_most) >> 30);

	*least = point->offset + point->at.tsc + cycles - span->tsc_after - slack;
	*most = point->offset + point->at.tsc_after + cycles_most - span->tsc + slack;
}

static inline bool model_follows(const struct model_point *point, uint32_t khz, uint64_t offset,
				 const struct model_span *span)
{
	uint64_t least, most;

	model_moved(point, khz, span, &least, &most);
	return model_within(offset, least, most);
}

/*
 * Rates
 */

static inline bool model_tolerates(const struct model *m, uint32_t khz, uint32_t other_khz)
{
	uint64_t apart = khz > other_khz ? khz - other_khz : other_khz - khz;

	return apart * 1000000 <= (uint64_t)other_khz * m->tolerance_ppm;
}

/* 0 or an error; with scaling hardware it is one that there is, or none. */
static inline int model_refuses_khz(const struct model *m, uint32_t khz, bool *software)
{
	bool tolerated = model_tolerates(m, khz, m->host_khz);

	*software = khz > m->host_khz && !tolerated && !m->frac_bits;
	if (khz > INT_MAX || (!m->frac_bits && khz < m->host_khz && !tolerated))
		return -EINVAL;
	return 0;
}

/*
 * Memory
 */

/* A byte of the guest's, if it is there */
static inline uint8_t *model_byte(struct model *m, uint64_t gpa)
{
	uint64_t at = gpa - MODEL_GPA;

	return at < MODEL_SIZE && !m->gone[at / MODEL_SLOT_SIZE] ? &m->memory[at] : NULL;
}

/* What KVM writes, as far as there is memory */
static inline void model_store(struct model *m, uint64_t gpa, const void *data, size_t size)
{
	const uint8_t *from = data;

	for (; size-- && model_byte(m, gpa); gpa++) {
		*model_byte(m, gpa) = *from++;
		m->dirty |= BIT((gpa - MODEL_GPA) / PAGE_SIZE);
	}
}

/* An odd one is of somebody who did not come to the end. */
static inline uint32_t model_next_version(uint32_t version)
{
	return version + (version & 1) + 2;
}

static inline struct pvclock_vcpu_time_info
model_page(const struct model *m, const struct model_vcpu *v)
{
	return (struct pvclock_vcpu_time_info) {
		.tsc_timestamp = m->line.ref_tsc + v->offset,
		.system_time = m->line.ref_ns,
		.tsc_to_system_mul = m->line.mul,
		.tsc_shift = m->line.shift,
		.flags = m->stable ? PVCLOCK_TSC_STABLE_BIT : 0,
	};
}

/* How often is not said. */
static inline void model_note_often(struct model *m, const struct model_vcpu *v)
{
	unsigned int i;

	for (i = 0; i < MODEL_STRUCTS; i++)
		m->often[m->nr_often++ % ARRAY_SIZE(m->often)] = v->gpa[i];
}

/* All structures of a vCPU, each with what is so now */
static inline void model_write_vcpu(struct model *m, struct model_vcpu *v)
{
	struct pvclock_vcpu_time_info page, old;
	bool wrote = false;
	unsigned int i;

	v->away = 0;
	for (i = 0; i < MODEL_STRUCTS; i++) {
		if (!v->gpa[i])
			continue;
		if (!model_byte(m, v->gpa[i])) {
			v->away |= BIT(i);
			continue;
		}
		memcpy(&old, model_byte(m, v->gpa[i]), sizeof(old));
		page = model_page(m, v);
		page.version = model_next_version(old.version);
		if (i != MODEL_OWN && m->xen_unstable)
			page.flags &= ~PVCLOCK_TSC_STABLE_BIT;
		if (i == MODEL_OWN && v->told)
			page.flags |= PVCLOCK_GUEST_STOPPED;
		page.flags |= old.flags & PVCLOCK_GUEST_STOPPED;
		memcpy(page.pad, old.pad, sizeof(page.pad));
		model_store(m, v->gpa[i], &page, sizeof(page));
		v->told &= i != MODEL_OWN;
		wrote = true;
	}
	v->stale = 0;
	v->shown = (v->shown && v->away) || (m->stable && wrote);

	/* If one is away all are tried again; software moves a TSC at any entry. */
	if (v->away || v->software)
		model_note_often(m, v);
}

static inline void model_is_stale(struct model *m, struct model_vcpu *v)
{
	v->stale |= MODEL_ALL & ~v->away;
	m->hv_stale = true;
}

static inline void model_all_are_stale(struct model *m)
{
	struct model_vcpu *v;

	m->hv_stale = true;
	for (v = m->vcpu; v < &m->vcpu[m->nr]; v++)
		model_is_stale(m, v);
}

/* On its way into the guest: others', from the next one on, and then its own */
static inline void model_enter(struct model *m, struct model_vcpu *v)
{
	unsigned int self = v - m->vcpu, i;
	struct model_vcpu *other;

	for (i = 1; i < m->nr; i++) {
		other = &m->vcpu[(self + i) % m->nr];
		if (other->shown && other->stale)
			model_write_vcpu(m, other);
	}
	if (v->stale || v->away)
		model_write_vcpu(m, v);
	if (m->hv_stale && model_byte(m, m->hv_gpa)) {
		m->hv_stale = false;
		m->hv_due = true;
	}
}

/*
 * The guest reads all structures that are there: they have what they were owed.  If it
 * had to fault for it, other structures of a vCPU of which one is away are tried again.
 */
static inline void model_look(struct model *m)
{
	struct model_vcpu *v;
	unsigned int i;

	for (v = m->vcpu; v < &m->vcpu[m->nr]; v++) {
		v->retried = v->away;
		if (v->retried)
			model_note_often(m, v);
		for (i = 0; i < MODEL_STRUCTS; i++) {
			if (!model_byte(m, v->gpa[i]))
				continue;
			m->touched |= BIT((v->gpa[i] - MODEL_GPA) / PAGE_SIZE);
			if (v->away & BIT(i))
				model_write_vcpu(m, v);
		}
	}
}

/* A structure is elsewhere.  What is there may show anything if userspace says so. */
static inline void model_place(struct model *m, struct model_vcpu *v, unsigned int which,
			       uint64_t gpa, bool by_host)
{
	v->gpa[which] = gpa;
	v->shown |= by_host;
	v->stale = MODEL_ALL;
	v->away = 0;
}

static inline void model_set_system_time(struct model *m, struct model_vcpu *v, uint64_t data,
					 bool by_host)
{
	uint64_t gpa = data & ~1ULL;

	v->system_time = data;
	if (!(data & 1) || gpa % 4 ||
	    gpa % PAGE_SIZE > PAGE_SIZE - sizeof(struct pvclock_vcpu_time_info))
		gpa = 0;
	v->told &= !!gpa;
	model_place(m, v, MODEL_OWN, gpa, by_host);
}

/* An INIT: the guest's use of that memory is over, and nothing else of its time is. */
static inline void model_init(struct model_vcpu *v)
{
	v->system_time = 0;
	v->gpa[MODEL_OWN] = 0;
	v->told = false;
}

/* Its version has to be there. */
static inline bool model_has_wall_clock(struct model *m, uint64_t gpa)
{
	return gpa && model_byte(m, gpa) && model_byte(m, gpa + sizeof(uint32_t) - 1);
}

static inline void model_set_wall_clock(struct model *m, uint64_t gpa, uint32_t sec, uint32_t nsec)
{
	struct pvclock_wall_clock wall = { .sec = sec, .nsec = nsec };
	unsigned int i;

	m->wall_clock = gpa;
	if (!model_has_wall_clock(m, gpa))
		return;
	for (i = 0; i < sizeof(wall.version); i++)
		((uint8_t *)&wall.version)[i] = *model_byte(m, gpa + i);
	wall.version = model_next_version(wall.version);
	model_store(m, gpa, &wall, sizeof(wall));
}

/*
 * The predicate, and the line
 */

static inline void model_decide(struct model *m)
{
	const struct model_vcpu *v;
	bool stable = true;

	for (v = m->vcpu; v < &m->vcpu[m->nr]; v++)
		stable &= !v->software && v->offset == m->vcpu[0].offset;
	if (stable != m->stable)
		model_all_are_stale(m);
	m->stable = stable;
}

/*
 * The errors that KVM_SET_CLOCK_GUEST may return, a bit for each, and 1 << 0 if it may
 * succeed: where it depends on the instant, or on a rounding, both.
 */
static inline uint64_t model_may_set_line(const struct model *m, const struct model_vcpu *v,
					  const struct pvclock_vcpu_time_info *page,
					  const struct model_span *span)
{
	uint64_t ref_tsc = page->tsc_timestamp - v->offset, errors = 0;
	uint64_t age = model_scaled(m, span->tsc) - ref_tsc;
	uint64_t age_after = model_scaled(m, span->tsc_after) - ref_tsc;
	uint64_t limit = BIT_ULL(62) >> max_t(int, page->tsc_shift, 0);
	unsigned int surely = 0;
	__int128_t hz, off;

	if (page->pad0 || page->pad[0] || page->pad[1] || abs(page->tsc_shift) > 31 ||
	    page->flags & ~(PVCLOCK_TSC_STABLE_BIT | PVCLOCK_GUEST_STOPPED))
		return BIT_ULL(EINVAL);
	if (v->software)
		return BIT_ULL(ENODATA);
	if (!(page->tsc_to_system_mul >> 31))
		return BIT_ULL(EINVAL) | BIT_ULL(ERANGE);

	/* In 2^-8 Hz; both are rounded down to whole ones before they are compared. */
	hz = model_rate(m, 8);
	off = ((__int128_t)NSEC_PER_SEC << (40 - page->tsc_shift)) / page->tsc_to_system_mul - hz;
	if (off > 1000 << 8 || -off > 1000 << 8)
		errors |= BIT_ULL(ERANGE);
	surely += off > 1001 << 8 || -off > 1001 << 8;
	if (age >= limit || age_after >= limit)
		errors |= BIT_ULL(EINVAL);
	surely += age >= limit && age_after >= limit;
	return errors | !surely;
}

/*
 * TSCs: false is returned if no instant of the span explains the offset that was found.
 */

static inline void model_set_offset(struct model *m, struct model_vcpu *v, uint64_t offset)
{
	if (v->offset != offset)
		model_is_stale(m, v);
	v->offset = offset;
	v->pair = offset;
}

/* A TSC of its own ... */
static inline void model_assign(struct model *m, struct model_vcpu *v, uint64_t offset,
				const struct model_span *span)
{
	v->generation = 0;
	v->follows = 0;
	v->point = (struct model_point) { *span, offset };
	model_set_offset(m, v, offset);
}

/* ... or one that vCPUs to come have, too ... */
static inline void model_new_generation(struct model *m, struct model_vcpu *v, uint64_t offset,
					uint64_t parent, const struct model_span *span)
{
	model_assign(m, v, offset, span);
	m->gen = (struct model_generation) {
		.id = m->gen.id + 1,
		.parent = parent,
		.khz = v->khz,
		.point = v->point,
		.user_set = m->gen.user_set,
	};
	v->generation = m->gen.id;
}

/* ... or the one that they have already. */
static inline bool model_join(struct model *m, struct model_vcpu *v, uint64_t found,
			      const struct model_span *span)
{
	if (v->software ? !model_follows(&m->gen.point, v->khz, found, span) :
			  found != m->gen.point.offset)
		return false;
	v->generation = m->gen.id;
	v->follows = 0;
	v->point = m->gen.point;
	model_set_offset(m, v, found);
	return true;
}

static inline bool model_create(struct model *m, uint64_t found, const struct model_span *span)
{
	struct model_vcpu *v = &m->vcpu[m->nr];

	*v = (struct model_vcpu) { .khz = m->default_khz };
	if (m->nr && model_tolerates(m, m->gen.khz, v->khz))
		v->khz = m->gen.khz;
	/* One that can't be had any more it has in name. */
	model_refuses_khz(m, v->khz, &v->software);

	if (v->khz != m->gen.khz) {
		model_assign(m, v, m->gen.point.offset, span);
		v->follows = m->gen.id;
	} else if (!model_join(m, v, found, span)) {
		return false;
	}
	m->nr++;
	model_decide(m);
	return found == v->offset;
}

/* MSR_IA32_TSC by userspace, of which KVM guesses what is meant */
static inline bool model_restore_tsc(struct model *m, struct model_vcpu *v, uint64_t tsc,
				     uint64_t found, const struct model_span *span)
{
	uint64_t first = m->gen.point.offset, last = first;
	int64_t second = v->khz * 1000LL, ahead, ahead_most, least, most;
	bool near = false, far = true, joined;

	if (v->software)
		model_moved(&m->gen.point, v->khz, span, &first, &last);
	ahead = tsc - (model_scaled(m, span->tsc_after) + last);
	ahead_most = tsc - (model_scaled(m, span->tsc) + first);
	least = ahead - m->gen.ahead_most;
	most = ahead_most - m->gen.ahead;
	if (v->khz == m->gen.khz && (!tsc || (m->gen.user_set && least <= most))) {
		near = !tsc || (most > -second && least < second);
		far = tsc && (least <= -second || most >= second);
	}
	m->gen.user_set = true;

	joined = near && model_join(m, v, found, span);
	if (joined && tsc) {
		m->gen.ahead = ahead;
		m->gen.ahead_most = ahead_most;
	}
	if (!joined && far && model_was(m, tsc - found, span)) {
		model_new_generation(m, v, found, 0, span);
		joined = true;
	}
	model_decide(m);
	return joined;
}

/* KVM_VCPU_TSC_OFFSET, and KVM_VCPU_TSC_VALUE, which had asked for @pair */
static inline void model_take_offset(struct model *m, struct model_vcpu *v, uint64_t offset,
				     uint64_t pair, const struct model_span *span)
{
	m->gen.user_set = true;
	if (v->software || v->khz != m->gen.khz || !model_join(m, v, offset, span))
		model_new_generation(m, v, offset, 0, span);
	v->pair = pair;
	model_decide(m);
}

/* Of the vCPUs whose pairs can't be told from this it is the one that got its TSC last. */
static inline const struct model_vcpu *model_near(const struct model *m,
						  const struct model_vcpu *v, uint64_t pair)
{
	uint64_t slack = model_tsc_at(&m->line, m->line.ref_ns + 1, 0) - m->line.ref_tsc +
			 (m->line.shift < 0 ? BIT_ULL(-m->line.shift) : 1);
	const struct model_vcpu *other, *near = NULL;

	for (other = m->vcpu; other < &m->vcpu[m->nr]; other++) {
		if (other != v && model_within(other->pair, pair - slack, pair + slack) &&
		    (!near || other->generation >= near->generation))
			near = other;
	}
	return near;
}

static inline bool model_set_value(struct model *m, struct model_vcpu *v,
				   const struct kvm_vcpu_tsc_value *value, uint64_t found,
				   const struct model_span *span)
{
	uint64_t pair = value->tsc_val - model_tsc_at(&m->line, value->kvm_ns, value->kvm_frac);
	const struct model_vcpu *near = NULL;
	struct model_point point = { };

	if (v->software) {
		/* As if base time had been what the clock was: they part by nothing in a call. */
		point.at.raw_ns = span->raw_ns + value->kvm_ns -
				  model_clock(&m->line, span->tsc_after);
		point.at.raw_ns_after = span->raw_ns_after + value->kvm_ns -
					model_clock(&m->line, span->tsc);
		point.offset = value->tsc_val;
		if (!model_follows(&point, v->khz, found, span))
			return false;
		pair = found;
	} else if (!(value->flags & KVM_TSC_VALUE_FRAC)) {
		near = model_near(m, v, pair);
	}
	if (found != (near ? near->offset : pair))
		return false;
	model_take_offset(m, v, found, pair, span);
	return true;
}

static inline bool model_guest_writes_tsc(struct model *m, struct model_vcpu *v, uint64_t tsc,
					  uint64_t found, const struct model_span *span)
{
	if (!model_was(m, tsc - found, span))
		return false;
	v->adjust += found - v->offset;
	model_assign(m, v, found, span);
	model_decide(m);
	return true;
}

/* Needs no instant. */
static inline void model_guest_writes_adjust(struct model *m, struct model_vcpu *v,
					     uint64_t adjust, const struct model_span *span)
{
	if (adjust == v->adjust)
		return;
	model_assign(m, v, v->offset + (adjust - v->adjust), span);
	v->adjust = adjust;
	model_decide(m);
}

/* KVM_SET_TSC_KHZ of a vCPU: its TSC goes on from where it is. */
static inline bool model_set_khz(struct model *m, struct model_vcpu *v, uint32_t khz, bool software,
				 uint64_t found, const struct model_span *span)
{
	struct model_vcpu old = *v;

	if (khz == v->khz && software == v->software)
		return found == v->offset;

	v->khz = khz;
	v->software = software;
	if (khz == m->gen.khz &&
	    (v->follows == m->gen.id || (m->gen.parent && m->gen.parent == v->generation))) {
		if (!model_join(m, v, found, span))
			return false;
	} else {
		if (old.software ? !model_follows(&old.point, old.khz, found, span) :
				   found != old.offset)
			return false;
		if (v->generation == m->gen.id)
			model_new_generation(m, v, found, m->gen.id, span);
		else
			model_assign(m, v, found, span);
	}
	model_is_stale(m, v);
	model_decide(m);
	return true;
}

#endif /* SELFTEST_KVM_KVMCLOCK_MODEL_H */
