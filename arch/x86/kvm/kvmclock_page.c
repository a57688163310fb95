// SPDX-License-Identifier: GPL-2.0-only
/*
 * The clock in guest memory: the pvclock page of each vCPU, the like of Xen's
 * guests, Hyper-V's TSC page, and the wall clock.
 *
 * Who writes what.  A vCPU writes its own memory on its way into the guest.  It
 * writes another's only if that may show the stable bit with a line that is no
 * longer the VM's: any vCPU may read such a page, and its owner may never run.
 * As long as there is one, no vCPU enters the guest; all that try to help, each
 * with a bounded number of pages before it looks at its signals, its dirty ring
 * and the scheduler again.  Whatever is not the stable bit's is nobody else's
 * business.
 *
 * What may sleep.  Nothing waits for memory that is not there.  The guest can't
 * read it without a fault, and kvmclock_memory_comes() writes it between the
 * moment it is there for the host and the moment it is there for the guest.
 * Memory that is there for the guest but write-protected (a live snapshot by
 * userfaultfd, say) is another matter: the vCPU waits until it may be written, or
 * a signal comes.  No lock is held meanwhile.
 *
 * What can't be written - memory away, ring full, signal - stays stale and is
 * tried again: by the fault, at the next entry, or by the next vCPU.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/kvm_host.h>
#include <linux/mm.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>

#include <asm/pvclock-abi.h>
#include <asm/tsc.h>

#include <trace/events/kvmclock.h>

#include "x86.h"
#include "hyperv.h"
#include "kvmclock.h"
#include "kvmclock_internal.h"
#include "trace.h"
#include "xen.h"

static_assert(sizeof(struct pvclock_vcpu_time_info) == 32);
static_assert(offsetof(struct pvclock_vcpu_time_info, tsc_timestamp) == 8);
static_assert(offsetof(struct pvclock_vcpu_time_info, flags) == 29);
static_assert(sizeof(struct pvclock_wall_clock) == 12);

/* Other vCPUs' pages that one may write before it has to look around. */
#define KVMCLOCK_HELP	64

/* Times to write the same memory, if something changes each time, before that. */
#define KVMCLOCK_TRIES	4

/* How far a huge mapping reaches around a faulting address, in pages: 1 GiB. */
#define KVMCLOCK_NEAR_SHIFT	(30 - PAGE_SHIFT)

/* What came of writing; of several structures the worst counts. */
enum kvmclock_put {
	KVMCLOCK_NONE,		/* there is no such structure */
	KVMCLOCK_WRITTEN,
	KVMCLOCK_ABSENT,	/* not there for the guest either */
	KVMCLOCK_PROTECTED,	/* there, maybe for the guest too, but not for writing */
	KVMCLOCK_OVERTAKEN,	/* something has changed meanwhile */
};

/*
 * Where the structures are
 */

/*
 * The vCPU has structures at new places, @moved.  What is there may be another VM's,
 * stable bit included, if it is userspace that says so: it restores a guest.  That the
 * memory of others is absent stays noted: it may come before they are written.
 */
void kvmclock_page_moved(struct kvm_vcpu *vcpu, u8 moved, bool host_initiated)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	unsigned long flags;

	flags = kvmclock_lock(vcpu->kvm);
	v->moved_jiffies = jiffies;
	v->claims++;
	kvmclock_owe(vcpu, v->shared || host_initiated, KVMCLOCK_ALL, v->absent & ~moved);
	kvmclock_unlock(vcpu->kvm, flags);

	kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
}

/* Xen's guests are to have the stable bit, or not to have it any more. */
void kvmclock_rewrite_pages(struct kvm *kvm)
{
	unsigned long flags;

	flags = kvmclock_lock(kvm);
	kvmclock_pages_stale(kvm);
	kvmclock_unlock(kvm, flags);

	kvm_make_all_cpus_request(kvm, KVM_REQ_CLOCK_UPDATE);
}

#ifdef CONFIG_KVM_HYPERV
/*
 * Hyper-V's page is at a new place, or where it was; under hv_lock.  A note that it is
 * absent stays: whoever brings memory looks for where it is by then.
 */
void kvmclock_hv_page_moved(struct kvm_vcpu *vcpu)
{
	unsigned long flags;

	flags = kvmclock_lock(vcpu->kvm);
	vcpu->kvm->arch.clock.hv_claims++;
	kvmclock_owe_hv(&vcpu->kvm->arch.clock, true, vcpu->kvm->arch.clock.hv_absent);
	kvmclock_unlock(vcpu->kvm, flags);

	kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
}
#endif

/*
 * Memory, without sleeping
 */

/*
 * Pages are written on behalf of a vCPU, whose ring has them.  What it pushes
 * between two looks at the ring has room beyond the soft limit, if it is little.
 */
static bool kvmclock_ring_full(struct kvm_vcpu *vcpu)
{
	struct kvm_dirty_ring *ring = &vcpu->dirty_ring;

	return vcpu->kvm->dirty_ring_size &&
	       ring->dirty_index - READ_ONCE(ring->reset_index) >= ring->soft_limit;
}

/*
 * Guest memory as userspace has it: by its address in the guest or, Xen's, here; and
 * the bit of a vCPU's structure that is there.
 */
struct kvmclock_place {
	gpa_t gpa;
	unsigned long hva;
	u8 bit;
};

static_assert((KVMCLOCK_OWN | KVMCLOCK_XEN_INFO | KVMCLOCK_XEN_TIME) == KVMCLOCK_ALL);

/*
 * The address to write to, and the slot to mark; 0 if there is no memory.  That of a
 * slot which is about to go is there still: the guest reads it until it has gone.
 */
static unsigned long kvmclock_hva(struct kvm *kvm, const struct kvmclock_place *place,
				  struct kvm_memory_slot **slot)
{
	gfn_t gfn = gpa_to_gfn(place->gpa);

	*slot = NULL;
	if (kvm_is_error_gpa(place->gpa))
		return place->hva;

	*slot = gfn_to_memslot(kvm, gfn);
	if (!*slot || (*slot)->flags & KVM_MEM_READONLY)
		return 0;

	return __gfn_to_hva_memslot(*slot, gfn) + offset_in_page(place->gpa);
}

/*
 * After a failed write: the guest may read what can be read.  What is guest_memfd's
 * alone it has from there, whether or not userspace's mapping is populated.
 */
static enum kvmclock_put kvmclock_why(const struct kvm_memory_slot *slot, unsigned long hva)
{
	u32 word;

	if (slot && kvm_memslot_is_gmem_only(slot))
		return KVMCLOCK_PROTECTED;
	if (copy_from_user_nofault(&word, (void __user *)hva, sizeof(word)))
		return KVMCLOCK_ABSENT;
	return KVMCLOCK_PROTECTED;
}

/*
 * One structure of the pvclock ABI.  Its version is odd while it is being
 * written, and any vCPU may be reading it: the barriers pair with those of the
 * guest around its reads of the version.
 *
 * @page is what to write but for the version, which it gets.  A guest that has
 * PVCLOCK_GUEST_STOPPED keeps it: it clears it in its own time.
 */
static bool kvmclock_store_page(unsigned long hva, struct pvclock_vcpu_time_info *page)
{
	struct pvclock_vcpu_time_info __user *to = (void __user *)hva;
	u32 version;
	u8 flags;

	/* Readers spin while the version is odd, in guest mode: no preemption then. */
	preempt_disable();
	pagefault_disable();
	if (!user_access_begin(to, sizeof(*to)))
		goto out_enable;

	unsafe_get_user(version, &to->version, out_end);
	version = kvmclock_next_version(version);
	unsafe_put_user(version, &to->version, out_end);
	smp_wmb();	/* odd version before any content */

	unsafe_get_user(flags, &to->flags, out_end);
	flags = page->flags | (flags & PVCLOCK_GUEST_STOPPED);
	unsafe_put_user(0, &to->pad0, out_end);
	unsafe_put_user(page->tsc_timestamp, &to->tsc_timestamp, out_end);
	unsafe_put_user(page->system_time, &to->system_time, out_end);
	unsafe_put_user(page->tsc_to_system_mul, &to->tsc_to_system_mul, out_end);
	unsafe_put_user(page->tsc_shift, &to->tsc_shift, out_end);
	unsafe_put_user(flags, &to->flags, out_end);

	smp_wmb();	/* all content before the even version */
	page->version = ++version;
	unsafe_put_user(version, &to->version, out_end);
	user_access_end();
	pagefault_enable();
	preempt_enable();
	return true;

out_end:
	user_access_end();
out_enable:
	pagefault_enable();
	preempt_enable();
	return false;
}

static enum kvmclock_put kvmclock_put_page(struct kvm_vcpu *vcpu,
					   const struct kvmclock_place *place,
					   struct pvclock_vcpu_time_info *page)
{
	struct kvm_memory_slot *slot;
	unsigned long hva = kvmclock_hva(vcpu->kvm, place, &slot);

	if (!hva)
		return KVMCLOCK_ABSENT;

	if (!kvmclock_store_page(hva, page))
		return kvmclock_why(slot, hva);

	if (slot)
		mark_page_dirty_in_slot(vcpu->kvm, slot, gpa_to_gfn(place->gpa));
	vcpu->stat.clock_page_writes++;	/* page_lock: by whatever thread */
	trace_kvm_pvclock_update(vcpu->vcpu_id, page);
	return KVMCLOCK_WRITTEN;
}

/*
 * A vCPU's structures
 */

#ifdef CONFIG_KVM_XEN
/* Xen's caches are used for their addresses only, which their locks guard. */
static struct kvmclock_place kvmclock_xen_place(struct gfn_to_pfn_cache *gpc, unsigned int offset)
{
	lockdep_assert_held(&gpc->lock);

	if (kvm_is_error_gpa(gpc->gpa))
		return (struct kvmclock_place) { .gpa = INVALID_GPA, .hva = gpc->uhva + offset };
	return (struct kvmclock_place) { .gpa = gpc->gpa + offset };
}

/* One of a Xen guest's structures, which stays where it is meanwhile. */
static enum kvmclock_put kvmclock_put_xen(struct kvm_vcpu *vcpu,
					  struct gfn_to_pfn_cache *gpc, unsigned int offset,
					  const struct pvclock_vcpu_time_info *line)
{
	struct pvclock_vcpu_time_info page;
	enum kvmclock_put r = KVMCLOCK_NONE;
	struct kvmclock_place place;
	unsigned long flags;

	read_lock_irqsave(&gpc->lock, flags);
	if (gpc->active) {
		page = *line;
		/* Old guests trip over the stable bit unless they asked for it. */
		if (READ_ONCE(vcpu->kvm->arch.xen.hvm_config.flags) &
		    KVM_XEN_HVM_CONFIG_PVCLOCK_TSC_UNSTABLE)
			page.flags &= ~PVCLOCK_TSC_STABLE_BIT;

		place = kvmclock_xen_place(gpc, offset);
		/* Active again, but not refreshed yet: the address is the one before. */
		r = is_error_noslot_pfn(gpc->pfn) ? KVMCLOCK_ABSENT :
						    kvmclock_put_page(vcpu, &place, &page);
	}
	read_unlock_irqrestore(&gpc->lock, flags);

	return r;
}
#endif

/* Where the vCPU's memory is, to wait for it or to compare with; may be old. */
static unsigned int kvmclock_places(struct kvm_vcpu *vcpu, struct kvmclock_place *place)
{
	unsigned int nr = 0;
#ifdef CONFIG_KVM_XEN
	struct {
		struct gfn_to_pfn_cache *gpc;
		unsigned int offset;
		u8 bit;
	} xen[] = {
		{ &vcpu->arch.xen.vcpu_info_cache, offsetof(struct compat_vcpu_info, time),
		  KVMCLOCK_XEN_INFO },
		{ &vcpu->arch.xen.vcpu_time_info_cache, 0, KVMCLOCK_XEN_TIME },
	};
	unsigned long flags;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(xen); i++) {
		if (!READ_ONCE(xen[i].gpc->active))
			continue;
		read_lock_irqsave(&xen[i].gpc->lock, flags);
		place[nr] = kvmclock_xen_place(xen[i].gpc, xen[i].offset);
		place[nr++].bit = xen[i].bit;
		read_unlock_irqrestore(&xen[i].gpc->lock, flags);
	}
#endif
	place[nr].gpa = READ_ONCE(vcpu->arch.clock.page_gpa);
	place[nr].bit = KVMCLOCK_OWN;
	return nr + !kvm_is_error_gpa(place[nr].gpa);
}

/*
 * May a page show the stable bit?  Not between the change of a TSC and the change
 * of the bit that comes of it: another vCPU would read a line that is not over its
 * own TSC.
 */
static bool kvmclock_all_equal(const struct kvm_clock *clock)
{
	return clock->stable && kvmclock_census_same_tsc(&clock->census);
}

/* A line over a TSC with this offset, as a page has it. */
struct pvclock_vcpu_time_info kvmclock_page(const struct kvmclock_line *line, u64 offset,
					    bool stable)
{
	return (struct pvclock_vcpu_time_info) {
		.tsc_timestamp = line->ref_tsc + offset,
		.system_time = line->ref_ns,
		.tsc_to_system_mul = line->mul,
		.tsc_shift = line->shift,
		.flags = stable ? PVCLOCK_TSC_STABLE_BIT : 0,
	};
}

/* kvmclock's own structure, the only one with PVCLOCK_GUEST_STOPPED. */
static enum kvmclock_put kvmclock_put_own(struct kvm_vcpu *vcpu,
					  struct pvclock_vcpu_time_info *page)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvmclock_place place = { .gpa = v->page_gpa };
	enum kvmclock_put r;
	bool stopped;

	if (kvm_is_error_gpa(place.gpa))
		return KVMCLOCK_NONE;

	stopped = test_and_clear_bit(0, &v->guest_stopped);
	if (stopped)
		page->flags |= PVCLOCK_GUEST_STOPPED;

	r = kvmclock_put_page(vcpu, &place, page);
	if (r != KVMCLOCK_WRITTEN && stopped)
		set_bit(0, &v->guest_stopped);
	return r;
}

/* What came of all of a vCPU's structures: the worst, and a bit for each. */
struct kvmclock_outcome {
	enum kvmclock_put worst;
	bool wrote;
	u8 open;
	u8 absent;
};

static void kvmclock_add_outcome(struct kvmclock_outcome *all, u8 bit, enum kvmclock_put put)
{
	all->worst = max(all->worst, put);
	if (put == KVMCLOCK_WRITTEN)
		all->wrote = true;
	if (put == KVMCLOCK_PROTECTED)
		all->open |= bit;
	if (put == KVMCLOCK_ABSENT)
		all->absent |= bit;
}

static struct kvmclock_outcome kvmclock_put_all(struct kvm_vcpu *vcpu,
						struct pvclock_vcpu_time_info *page)
{
	struct kvmclock_outcome all = { .worst = KVMCLOCK_WRITTEN };
#ifdef CONFIG_KVM_XEN
	struct kvm_vcpu_xen *xen = &vcpu->arch.xen;

	if (READ_ONCE(xen->vcpu_info_cache.active))
		kvmclock_add_outcome(&all, KVMCLOCK_XEN_INFO,
				     kvmclock_put_xen(vcpu, &xen->vcpu_info_cache,
						      offsetof(struct compat_vcpu_info, time),
						      page));
	if (READ_ONCE(xen->vcpu_time_info_cache.active))
		kvmclock_add_outcome(&all, KVMCLOCK_XEN_TIME,
				     kvmclock_put_xen(vcpu, &xen->vcpu_time_info_cache, 0, page));
#endif
	/* Last, as the others do not have its flag. */
	kvmclock_add_outcome(&all, KVMCLOCK_OWN, kvmclock_put_own(vcpu, page));
	return all;
}

/*
 * One attempt at all of them.  What shows the stable bit is shared from before it
 * is there, so that a change of the line meanwhile finds it exposed, and again
 * only what it was if nothing could be written.
 *
 * What is noted as absent stays so until it is written: memory that has come, but
 * not for writing yet, is not there for the guest before somebody has seen to it.
 * It is open, too, until it is known that the note was @in_time: it is absent still.
 *
 * Between the change of a TSC and what is decided of it the bit is withheld, and what
 * was written then is open still, if not exposed: should the TSCs be equal again nobody
 * else comes by.
 */
static enum kvmclock_put kvmclock_try_vcpu(struct kvm_vcpu *vcpu, bool in_time)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct pvclock_vcpu_time_info page;
	struct kvmclock_outcome all;
	unsigned long flags;
	unsigned int claims;
	bool stable, shared, withheld;

	lockdep_assert_held(&v->page_lock);

	flags = kvmclock_lock(vcpu->kvm);
	if (!v->counted) {
		/* No change of the line would find it: not before it has joined. */
		kvmclock_unlock(vcpu->kvm, flags);
		return KVMCLOCK_NONE;
	}
	stable = kvmclock_take_line(vcpu) && kvmclock_all_equal(clock);
	withheld = clock->stable && !stable;
	claims = v->claims;
	page = kvmclock_page(&v->line, v->l1_offset, stable);
	shared = v->shared;
	if (stable && !shared)
		kvmclock_owe(vcpu, true, v->open, v->absent);
	kvmclock_unlock(vcpu->kvm, flags);

	all = kvmclock_put_all(vcpu, &page);

	flags = kvmclock_lock(vcpu->kvm);
	if (claims == v->claims) {
		all.absent |= all.open & v->absent;
		if (in_time)
			all.open &= ~all.absent | v->open;
		/* A structure that moved has taken the note with it, or there was none yet. */
		all.open |= all.absent & ~v->absent;
		shared = (shared && (all.open || all.absent)) || (stable && all.wrote);
		/* What is open or absent is stale anyway, and all is written with it. */
		if (withheld && !all.open && !all.absent)
			all.open = KVMCLOCK_ALL;
		kvmclock_owe(vcpu, shared, all.open, all.absent);
	} else {
		all.worst = KVMCLOCK_OVERTAKEN;
	}
	kvmclock_unlock(vcpu->kvm, flags);

	return all.worst;
}

/*
 * Between the note that memory is absent and another look at it: whoever brings it
 * either has it there by then, or finds the note (the barriers pair with the one in
 * kvmclock_memory_comes()).  So does who maps memory in advance, which looks for a
 * note first, and for memory then, but both of it under mmu_lock.
 */
static void kvmclock_let_note_be_seen(struct kvm *kvm)
{
	write_lock(&kvm->mmu_lock);
	write_unlock(&kvm->mmu_lock);
	smp_mb();	/* the note before the memory */
}

/*
 * A vCPU's memory, by whatever thread: always with what is so at that moment.  If
 * that is another each time it is KVMCLOCK_OVERTAKEN, for the caller to look around.
 * What is not stale is left alone, but for @anyway.
 *
 * Memory that is not there is noted first and then tried again.
 */
static enum kvmclock_put kvmclock_write_vcpu(struct kvm_vcpu *vcpu, bool anyway)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	enum kvmclock_put r = KVMCLOCK_WRITTEN;
	unsigned int tries = KVMCLOCK_TRIES;

	spin_lock(&v->page_lock);
	/* Another may have been here before. */
	if (anyway || kvmclock_stale(v)) {
		do {
			r = kvmclock_try_vcpu(vcpu, false);
			if (r == KVMCLOCK_ABSENT) {
				kvmclock_let_note_be_seen(vcpu->kvm);
				r = kvmclock_try_vcpu(vcpu, true);
			}
		} while (r == KVMCLOCK_OVERTAKEN && --tries);
	}
	spin_unlock(&v->page_lock);

	if (r == KVMCLOCK_ABSENT)
		trace_kvmclock_page_missing(vcpu->vcpu_id, READ_ONCE(v->page_gpa));
	return r;
}

/*
 * Hyper-V's TSC page
 */

#ifdef CONFIG_KVM_HYPERV
/*
 * The page has no modulo arithmetic: its reference must not be before the
 * guest's TSC 0.  One that is - a TSC was written back - is moved forward along
 * the line until it isn't.
 */
static struct pvclock_vcpu_time_info kvmclock_hv_line(struct kvm_vcpu *vcpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvmclock_line line = clock->line;

	lockdep_assert_held(&clock->lock);

	line.ref_tsc += v->l1_offset;
	kvmclock_line_past_zero(&line, kvm_scale_tsc(rdtsc(), v->l1_ratio) + v->l1_offset);
	return kvmclock_page(&line, 0, kvmclock_all_equal(clock));
}

/* The sequence is what the page begins with. */
#define KVMCLOCK_HV_SEQUENCE	offsetofend(struct ms_hyperv_tsc_page, tsc_sequence)

static bool kvmclock_store(unsigned long hva, const void *from, size_t size)
{
	return !copy_to_user_nofault((void __user *)hva, from, size);
}

/*
 * One attempt, under hv_lock.  Sequence 0 has the guest use the counter, which
 * is a reading of the clock; so it does while the TSCs differ, until they don't.
 * A page that comes back has another sequence than the one that went.
 */
static enum kvmclock_put kvmclock_try_hv_page(struct kvm_vcpu *vcpu, struct kvm_hv *hv,
					      struct pvclock_vcpu_time_info *line)
{
	struct kvmclock_place place = {
		.gpa = gfn_to_gpa(hv->hv_tsc_page >> HV_X64_MSR_TSC_REFERENCE_ADDRESS_SHIFT),
	};
	struct ms_hyperv_tsc_page *page = &hv->tsc_ref;
	struct kvm_memory_slot *slot;
	unsigned long hva;
	u32 sequence;
	bool frozen;

	hva = kvmclock_hva(vcpu->kvm, &place, &slot);
	if (!hva)
		return KVMCLOCK_ABSENT;
	if (copy_from_user_nofault(&sequence, (void __user *)hva, sizeof(sequence)))
		return kvmclock_why(slot, hva);

	/* The guest asked for emulation after a migration: the page is to stay. */
	frozen = hv->hv_tsc_emulation_control &&
		 hv->hv_tsc_page_status != HV_TSC_PAGE_GUEST_CHANGED;
	if (sequence && frozen) {
		if (copy_from_user_nofault(page, (void __user *)hva, sizeof(*page)))
			return kvmclock_why(slot, hva);
		hv->hv_tsc_page_status = HV_TSC_PAGE_SET;
		return KVMCLOCK_WRITTEN;
	}

	/* The sequence survives a time without one. */
	if (sequence) {
		page->tsc_sequence = 0;
		if (!kvmclock_store(hva, page, KVMCLOCK_HV_SEQUENCE))
			return kvmclock_why(slot, hva);
		mark_page_dirty_in_slot(vcpu->kvm, slot, gpa_to_gfn(place.gpa));
	} else {
		sequence = page->tsc_sequence;
	}

	if (!compute_tsc_page_parameters(line, page)) {
		page->tsc_sequence = sequence;
		return KVMCLOCK_WRITTEN;
	}

	page->tsc_sequence = 0;
	smp_wmb();	/* sequence 0 before any content */
	if (!kvmclock_store(hva, page, sizeof(*page))) {
		page->tsc_sequence = sequence;
		return kvmclock_why(slot, hva);
	}

	if (++sequence == U32_MAX || !sequence)
		sequence = 1;
	page->tsc_sequence = sequence;
	smp_wmb();	/* all content before the sequence */
	if (!kvmclock_store(hva, page, KVMCLOCK_HV_SEQUENCE))
		return kvmclock_why(slot, hva);

	mark_page_dirty_in_slot(vcpu->kvm, slot, gpa_to_gfn(place.gpa));
	hv->hv_tsc_page_status = HV_TSC_PAGE_SET;
	return KVMCLOCK_WRITTEN;
}

static enum kvmclock_put kvmclock_put_hv_page(struct kvm_vcpu *vcpu, struct kvm_hv *hv)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	enum kvmclock_put r = KVMCLOCK_WRITTEN;
	struct pvclock_vcpu_time_info line;
	unsigned int claims;
	unsigned long flags;

	flags = kvmclock_lock(vcpu->kvm);
	claims = clock->hv_claims;
	line = kvmclock_hv_line(vcpu);
	kvmclock_unlock(vcpu->kvm, flags);

	if (hv->hv_tsc_page_status == HV_TSC_PAGE_SET && !hv->hv_tsc_emulation_control)
		hv->hv_tsc_page_status = HV_TSC_PAGE_HOST_CHANGED;
	if (hv->hv_tsc_page_status != HV_TSC_PAGE_UNSET &&
	    hv->hv_tsc_page_status != HV_TSC_PAGE_SET)
		r = kvmclock_try_hv_page(vcpu, hv, &line);

	/* It stays stale until it is written, and if something changed meanwhile. */
	flags = kvmclock_lock(vcpu->kvm);
	if (r != KVMCLOCK_WRITTEN)
		kvmclock_owe_hv(clock, true, r == KVMCLOCK_ABSENT || clock->hv_absent);
	else
		kvmclock_owe_hv(clock, claims != clock->hv_claims, false);
	kvmclock_unlock(vcpu->kvm, flags);

	return r;
}

/* Does the page say what the counter has to?  It may not any more, without the lock. */
static bool kvmclock_counts_by_hv_page(struct kvm *kvm)
{
	const struct kvm_hv *hv = to_kvm_hv(kvm);

	return READ_ONCE(hv->hv_tsc_page_status) == HV_TSC_PAGE_SET &&
	       (!READ_ONCE(kvm->arch.clock.hv_stale) || hv->hv_tsc_emulation_control);
}

/*
 * Hyper-V's reference counter, in units of 100 ns: what the page makes of vCPU 0's TSC,
 * or the clock as long as there is no page, or it tells another time.  A TSC moves, and
 * the page is stale, under the lock; it is written, and not stale any more, after that.
 * Guests that have no page to read come here all the time, and take no lock.
 */
u64 kvmclock_read_hv(struct kvm *kvm)
{
	const struct kvm_hv *hv = to_kvm_hv(kvm);
	struct kvm_vcpu *vcpu;
	unsigned long flags;
	bool by_page = false;
	u64 units;

	if (kvmclock_counts_by_hv_page(kvm)) {
		flags = kvmclock_lock(kvm);
		/* One that is not online yet may have written the page already. */
		vcpu = kvm_get_vcpu(kvm, 0);
		by_page = vcpu && kvmclock_counts_by_hv_page(kvm);
		if (by_page)
			units = hv->tsc_ref.tsc_offset +
				mul_u64_u64_shr(kvm_read_l1_tsc(vcpu, rdtsc()),
						hv->tsc_ref.tsc_scale, 64);
		kvmclock_unlock(kvm, flags);
	}

	return by_page ? units : div_u64(kvmclock_read_ns(kvm), 100);
}

/* The same order as in kvmclock_write_vcpu(), for the same reason. */
static enum kvmclock_put kvmclock_write_hv_page(struct kvm_vcpu *vcpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_hv *hv = to_kvm_hv(vcpu->kvm);
	enum kvmclock_put r = KVMCLOCK_WRITTEN;
	unsigned int tries = KVMCLOCK_TRIES;

	if (!READ_ONCE(clock->hv_stale))
		return r;

	if (mutex_lock_interruptible(&hv->hv_lock))
		return KVMCLOCK_PROTECTED;
	while (READ_ONCE(clock->hv_stale) && r == KVMCLOCK_WRITTEN && tries--) {
		r = kvmclock_put_hv_page(vcpu, hv);
		if (r == KVMCLOCK_ABSENT) {
			kvmclock_let_note_be_seen(vcpu->kvm);
			r = kvmclock_put_hv_page(vcpu, hv);
		}
	}
	if (r == KVMCLOCK_WRITTEN && READ_ONCE(clock->hv_stale))
		r = KVMCLOCK_OVERTAKEN;
	mutex_unlock(&hv->hv_lock);
	return r;
}

static bool kvmclock_hv_place(struct kvm *kvm, struct kvmclock_place *place)
{
	u64 msr = READ_ONCE(to_kvm_hv(kvm)->hv_tsc_page);

	place->gpa = gfn_to_gpa(msr >> HV_X64_MSR_TSC_REFERENCE_ADDRESS_SHIFT);
	return msr & HV_X64_MSR_TSC_REFERENCE_ENABLE;
}
#else
static bool kvmclock_hv_place(struct kvm *kvm, struct kvmclock_place *place)
{
	return false;
}
#endif

/*
 * Memory, with patience
 */

/*
 * Has the memory of @place be there for writing.  With FOLL_NOWAIT only if that
 * takes no waiting.  With FOLL_INTERRUPTIBLE until a signal comes, unless it is
 * absent after all.  0, -EINTR, or another error if it can't be written, ever.
 */
static int kvmclock_bring(struct kvm *kvm, const struct kvmclock_place *place, int how)
{
	struct kvm_memory_slot *slot;
	unsigned long hva = kvmclock_hva(kvm, place, &slot);
	long r;

	might_sleep();

	if (how == FOLL_INTERRUPTIBLE && (!hva || kvmclock_why(slot, hva) == KVMCLOCK_ABSENT))
		return 0;
	if (!hva)
		return -EFAULT;

	r = get_user_pages_unlocked(hva & PAGE_MASK, 1, NULL, FOLL_WRITE | how);
	if (r == 1)
		return 0;
	return !r || r == -EAGAIN || r == -ERESTARTSYS || r == -ENOMEM ? -EINTR : r;
}

/* All of them; those that can't be written, ever, are in @never. */
static int kvmclock_bring_vcpu(struct kvm_vcpu *vcpu, int how, u8 *never)
{
	struct kvmclock_place place[KVMCLOCK_PLACES];
	unsigned int nr = kvmclock_places(vcpu, place);
	int r = 0, one;

	*never = 0;
	while (nr--) {
		one = kvmclock_bring(vcpu->kvm, &place[nr], how);
		if (one && one != -EINTR)
			*never |= place[nr].bit;
		r = r ? : one;
	}
	return r;
}

/* ... if that takes no waiting. */
static bool kvmclock_bring_vcpu_now(struct kvm_vcpu *vcpu)
{
	u8 never;

	return !kvmclock_bring_vcpu(vcpu, FOLL_NOWAIT, &never);
}

/* Between two attempts: no signal, and room in the ring for all that one may push. */
static bool kvmclock_may_go_on(void)
{
	return !signal_pending(current) && !kvmclock_ring_full(kvm_get_running_vcpu());
}

/*
 * Until it is written or known to be absent.  False if it is neither: a signal
 * has come, or the ring is full.  What userspace has made unwritable for good is
 * taken for absent: the guest can't write it either.  Noted first, and then looked at
 * again, as what is absent.
 */
static bool kvmclock_settle_vcpu(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	enum kvmclock_put put;
	u8 never, noted, open;
	unsigned int claims;
	unsigned long flags;
	int r;

	for (;;) {
		/* Of several structures others may have been written: with what was new. */
		claims = data_race(READ_ONCE(v->claims));
		put = kvmclock_write_vcpu(vcpu, false);
		if (put < KVMCLOCK_PROTECTED)
			return true;
		/* What could be written of it is in the ring, at each attempt. */
		if (!kvmclock_may_go_on())
			return false;

		never = 0;
		r = 0;
		noted = READ_ONCE(v->absent);
		if (put == KVMCLOCK_PROTECTED)
			r = kvmclock_bring_vcpu(vcpu, FOLL_INTERRUPTIBLE, &never);
		if (never) {
			flags = kvmclock_lock(vcpu->kvm);
			if (claims == v->claims)
				kvmclock_owe(vcpu, v->shared, v->open & ~(never & noted),
					     v->absent | (v->open & never));
			open = v->open;
			kvmclock_unlock(vcpu->kvm, flags);
			if (!open)
				return true;
		}
		if (r == -EINTR)
			return false;
		cond_resched();
	}
}

static bool kvmclock_settle_hv_page(struct kvm_vcpu *vcpu)
{
#ifdef CONFIG_KVM_HYPERV
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvmclock_place place;
	enum kvmclock_put put;
	bool noted, settled;
	unsigned long flags;
	int r;

	while ((put = kvmclock_write_hv_page(vcpu)) >= KVMCLOCK_PROTECTED) {
		if (!kvmclock_may_go_on())
			return false;

		r = 0;
		noted = READ_ONCE(clock->hv_absent);
		if (put == KVMCLOCK_PROTECTED)
			r = kvmclock_hv_place(vcpu->kvm, &place) ?
			    kvmclock_bring(vcpu->kvm, &place, FOLL_INTERRUPTIBLE) : -EINTR;
		if (r == -EINTR)
			return false;
		if (r) {
			flags = kvmclock_lock(vcpu->kvm);
			kvmclock_owe_hv(clock, clock->hv_stale, clock->hv_stale);
			settled = noted || !clock->hv_stale;
			kvmclock_unlock(vcpu->kvm, flags);
			if (settled)
				return true;
		}
		cond_resched();
	}
#endif
	return true;
}

/*
 * On the way into the guest
 */

/*
 * Is there anything to do but write memory, with the VM's line?  A line of its own the
 * vCPU draws itself, and a TSC that software moves it moves.  Whoever changes one of
 * these meanwhile makes a request.
 */
static bool kvmclock_owes_line(struct kvm_vcpu *vcpu)
{
	const struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	return !v->counted || v->catchup || !READ_ONCE(vcpu->kvm->arch.clock.master);
}

/* This vCPU's own memory. */
void kvmclock_serve_page(struct kvm_vcpu *vcpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;
	struct kvmclock_place place;

	if (kvmclock_owes_line(vcpu))
		kvmclock_update_line(vcpu);

	if (kvmclock_stale(v)) {
		if (!kvmclock_settle_vcpu(vcpu))
			goto again;
		/* New memory, that nobody has touched yet, is had for the asking. */
		if (READ_ONCE(v->absent) && kvmclock_bring_vcpu_now(vcpu) &&
		    !kvmclock_settle_vcpu(vcpu))
			goto again;
	}

	if (READ_ONCE(clock->hv_stale)) {
		if (!kvmclock_settle_hv_page(vcpu))
			goto again;
		if (READ_ONCE(clock->hv_absent) && kvmclock_hv_place(vcpu->kvm, &place) &&
		    !kvmclock_bring(vcpu->kvm, &place, FOLL_NOWAIT) &&
		    !kvmclock_settle_hv_page(vcpu))
			goto again;
	}

	/*
	 * A TSC that moves exposes its vCPU's memory and asks nobody else.  Whoever gives
	 * out the stable bit for TSCs that are equal again sees to it.
	 */
	if (READ_ONCE(clock->nr_exposed))
		kvm_make_request(KVM_REQ_GLOBAL_CLOCK_UPDATE, vcpu);
	return;
again:
	kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
}

/*
 * The line changed.  Is there anything left to do that only this vCPU does?  Its
 * memory may have been written by another, with its line.
 */
static bool kvmclock_owes_itself(struct kvm_vcpu *vcpu)
{
	return kvmclock_stale(&vcpu->arch.clock) || READ_ONCE(vcpu->kvm->arch.clock.hv_stale) ||
	       kvmclock_owes_line(vcpu);
}

/*
 * Is memory of others exposed, beside this vCPU's own?  Without the lock, so its own
 * may have been counted and be settled by now, or not be counted yet.  No harm, as long
 * as this is read after kvmclock_owes_itself(): memory that was exposed then has a
 * request, which looks for others again, and who exposes it since makes one.
 */
static bool kvmclock_others_exposed(struct kvm_vcpu *vcpu)
{
	return READ_ONCE(vcpu->kvm->arch.clock.nr_exposed) >
	       kvmclock_exposed(&vcpu->arch.clock);
}

/*
 * KVM_REQ_GLOBAL_CLOCK_UPDATE: the vCPU's own memory is stale, or was, and it does
 * not enter the guest before nothing is exposed.  Others do the same at the same time,
 * so each begins with its neighbour.
 */
void kvmclock_update_others(struct kvm_vcpu *vcpu)
{
	unsigned int i, nr = atomic_read(&vcpu->kvm->online_vcpus);
	unsigned int helped = 0;
	struct kvm_vcpu *other;

	if (kvmclock_owes_itself(vcpu))
		kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);

	for (i = 1; i < nr && kvmclock_others_exposed(vcpu); i++) {
		other = kvm_get_vcpu(vcpu->kvm, (vcpu->vcpu_idx + i) % nr);
		/* Whoever missed one comes again, as long as there is one. */
		if (!other || !kvmclock_exposed(&other->arch.clock))
			continue;
		if (helped++ == KVMCLOCK_HELP || kvmclock_ring_full(vcpu) ||
		    !kvmclock_settle_vcpu(other))
			break;
	}

	if (kvmclock_others_exposed(vcpu))
		kvm_make_request(KVM_REQ_GLOBAL_CLOCK_UPDATE, vcpu);
}

/* The vCPU comes to a CPU: ask for what is left to do before it enters the guest. */
void kvmclock_load_page(struct kvm_vcpu *vcpu)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;

	if (unlikely(READ_ONCE(clock->nr_exposed)))
		kvm_make_request(KVM_REQ_GLOBAL_CLOCK_UPDATE, vcpu);
	if (unlikely(kvmclock_stale(&vcpu->arch.clock) || READ_ONCE(clock->hv_stale) ||
		     !vcpu->arch.clock.counted))
		kvm_make_request(KVM_REQ_CLOCK_UPDATE, vcpu);
}

/* Is @place there, and can a mapping that has @gfn in it reach it? */
static bool kvmclock_comes(struct kvm *kvm, const struct kvmclock_place *place, gfn_t gfn)
{
	struct kvm_memory_slot *slot;
	unsigned long hva;

	if (!kvm_is_error_gpa(place->gpa) &&
	    gpa_to_gfn(place->gpa) >> KVMCLOCK_NEAR_SHIFT != gfn >> KVMCLOCK_NEAR_SHIFT)
		return false;

	hva = kvmclock_hva(kvm, place, &slot);
	return hva && kvmclock_why(slot, hva) != KVMCLOCK_ABSENT;
}

static bool kvmclock_vcpu_comes(struct kvm_vcpu *vcpu, gfn_t gfn)
{
	struct kvmclock_place place[KVMCLOCK_PLACES];
	unsigned int nr = kvmclock_places(vcpu, place);

	while (nr--) {
		if (kvmclock_comes(vcpu->kvm, &place[nr], gfn))
			return true;
	}
	return false;
}

/*
 * The memory of @gfn is there for the host, and is about to be mapped for the
 * guest, others' around it with it if the mapping is huge.  What of it the clock
 * owes is written first.  False if the guest has to fault again: the vCPU's ring
 * is full, or a signal came while waiting.
 *
 * May take as long as there are vCPUs whose memory is absent, each a look at it.
 */
bool __kvmclock_memory_comes(struct kvm_vcpu *vcpu, gfn_t gfn)
{
	struct kvm *kvm = vcpu->kvm;
	struct kvmclock_place place;
	struct kvm_vcpu *other;
	unsigned long i;

	kvm_for_each_vcpu(i, other, kvm) {
		if (!READ_ONCE(other->arch.clock.absent))
			continue;
		cond_resched();
		if (!kvmclock_vcpu_comes(other, gfn))
			continue;
		if (kvmclock_ring_full(vcpu) || !kvmclock_settle_vcpu(other))
			return false;
	}

	if (READ_ONCE(kvm->arch.clock.hv_absent) && kvmclock_hv_place(kvm, &place) &&
	    kvmclock_comes(kvm, &place, gfn)) {
		if (kvmclock_ring_full(vcpu) || !kvmclock_settle_hv_page(vcpu))
			return false;
	}
	return true;
}

bool kvmclock_awaits_ring(struct kvm_vcpu *vcpu)
{
	return kvmclock_awaits_memory(vcpu->kvm) && kvmclock_ring_full(vcpu);
}

/*
 * At once, without a vCPU on its way
 */

/*
 * MSR_KVM_WALL_CLOCK: the epoch is written once, now, to the given address.
 * The version ends even whatever happens, so that no guest waits for it.  False,
 * and nothing is written, if userspace has left no room in the dirty ring, or the
 * thread is being killed.
 */
bool kvmclock_set_wall_clock(struct kvm_vcpu *vcpu, u64 data, bool host_initiated)
{
	struct kvm *kvm = vcpu->kvm;
	struct kvm_clock *clock = &kvm->arch.clock;
	struct pvclock_wall_clock wall;
	struct timespec64 epoch;

	if (data && host_initiated && kvmclock_ring_full(vcpu))
		return false;

	WRITE_ONCE(clock->wall_clock_msr, data);
	if (!data)
		return true;

	if (mutex_lock_killable(&clock->wall_lock))
		return false;

	if (kvm_read_guest(kvm, data, &wall.version, sizeof(wall.version)))
		goto out_unlock;

	wall.version = kvmclock_next_version(wall.version);
	if (kvm_write_guest(kvm, data, &wall.version, sizeof(wall.version)))
		goto out_unlock;
	smp_wmb();	/* odd version before any content */

	epoch = ns_to_timespec64(kvmclock_epoch_ns(kvm));
	wall.sec = epoch.tv_sec;	/* the ABI ends in 2106 */
	wall.nsec = epoch.tv_nsec;
	kvm_write_guest(kvm, data, &wall, sizeof(wall));

	smp_wmb();	/* all content before the even version */
	wall.version++;
	kvm_write_guest(kvm, data, &wall.version, sizeof(wall.version));

out_unlock:
	mutex_unlock(&clock->wall_lock);
	return true;
}

void kvmclock_page_init(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	spin_lock_init(&v->page_lock);
	v->page_gpa = INVALID_GPA;
	v->moved_jiffies = jiffies;
}

/* The guest is to be told that it was stopped, when the vCPU enters it next. */
void kvmclock_owe_stopped(struct kvm_vcpu *vcpu)
{
	unsigned long flags;

	set_bit(0, &vcpu->arch.clock.guest_stopped);

	flags = kvmclock_lock(vcpu->kvm);
	kvmclock_claim(vcpu);
	kvmclock_unlock(vcpu->kvm, flags);
}

/*
 * ... or now, if that takes no waiting.  Memory that can't be written is stale from
 * then on, so that the flag comes with what else it lacks.
 */
void kvmclock_tell_stopped(struct kvm_vcpu *vcpu)
{
	int idx;

	if (kvmclock_ring_full(vcpu)) {
		kvmclock_owe_stopped(vcpu);
		return;
	}

	set_bit(0, &vcpu->arch.clock.guest_stopped);

	idx = srcu_read_lock(&vcpu->kvm->srcu);
	/* Not there, or write-protected: maybe it can be had without waiting. */
	if (kvmclock_write_vcpu(vcpu, true) != KVMCLOCK_WRITTEN &&
	    kvmclock_bring_vcpu_now(vcpu))
		kvmclock_write_vcpu(vcpu, false);
	srcu_read_unlock(&vcpu->kvm->srcu, idx);
}
