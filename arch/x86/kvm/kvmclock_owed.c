// SPDX-License-Identifier: GPL-2.0-only
/*
 * What guest memory owes the clock: which structures do not have the line, whether
 * that can mislead anybody, and which of them are not there.  It is noted wherever
 * the line or a TSC changes, and paid where memory is written: kvmclock_page.c.
 * All of it under kvm_clock.lock.
 */
#include <linux/kvm_host.h>

#include "hyperv.h"
#include "kvmclock_internal.h"

/* The one place that changes what a vCPU's memory owes, and counts it. */
void kvmclock_owe(struct kvm_vcpu *vcpu, bool shared, u8 open, u8 absent)
{
	struct kvm_clock *clock = &vcpu->kvm->arch.clock;
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	lockdep_assert_held(&clock->lock);

	WRITE_ONCE(clock->nr_exposed, clock->nr_exposed - kvmclock_exposed(v) +
				      (shared && open));
	WRITE_ONCE(clock->nr_absent, clock->nr_absent - !!v->absent + !!absent);
	WRITE_ONCE(v->shared, shared);
	WRITE_ONCE(v->open, open);
	WRITE_ONCE(v->absent, absent);
}

#ifdef CONFIG_KVM_HYPERV
void kvmclock_owe_hv(struct kvm_clock *clock, bool stale, bool absent)
{
	lockdep_assert_held(&clock->lock);

	WRITE_ONCE(clock->nr_absent, clock->nr_absent - clock->hv_absent + absent);
	WRITE_ONCE(clock->hv_stale, stale);
	WRITE_ONCE(clock->hv_absent, absent);
}
#endif

static void kvmclock_owe_hv_page(struct kvm *kvm)
{
#ifdef CONFIG_KVM_HYPERV
	/* Who enables it meanwhile calls kvmclock_hv_page_moved() afterwards. */
	if (READ_ONCE(to_kvm_hv(kvm)->hv_tsc_page_status) != HV_TSC_PAGE_UNSET) {
		kvm->arch.clock.hv_claims++;
		kvmclock_owe_hv(&kvm->arch.clock, true, kvm->arch.clock.hv_absent);
	}
#endif
}

/*
 * There is something new for the vCPU's memory, since whatever is being written.
 * What is noted as absent, but not known to be so in time, stays open.
 */
void kvmclock_claim(struct kvm_vcpu *vcpu)
{
	struct kvm_vcpu_clock *v = &vcpu->arch.clock;

	v->claims++;
	kvmclock_owe(vcpu, v->shared, v->open | (KVMCLOCK_ALL & ~v->absent), v->absent);
}

/*
 * Guest memory no longer has the line, or its stable bit: each vCPU sees to it before
 * it enters.  One that has not joined yet looks for it when it has.
 */
void kvmclock_pages_stale(struct kvm *kvm)
{
	struct kvm_vcpu_clock *v;
	struct kvm_vcpu *vcpu;

	kvmclock_owe_hv_page(kvm);
	list_for_each_entry(v, &kvm->arch.clock.row, in_row) {
		vcpu = container_of(v, struct kvm_vcpu, arch.clock);
		kvmclock_claim(vcpu);
		kvm_make_request(KVM_REQ_GLOBAL_CLOCK_UPDATE, vcpu);
	}
}

/* This vCPU's TSC, or its line, is another one. */
void kvmclock_page_stale(struct kvm_vcpu *vcpu)
{
	kvmclock_claim(vcpu);
	kvmclock_owe_hv_page(vcpu->kvm);
}
