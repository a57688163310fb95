/* SPDX-License-Identifier: GPL-2.0 */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM kvmclock

#if !defined(_TRACE_KVMCLOCK_H) || defined(TRACE_HEADER_MULTI_READ)
#define _TRACE_KVMCLOCK_H

#include <linux/tracepoint.h>

/*
 * A VM's line or its stable bit changed.  In a steady state this never fires;
 * version counts the changes of one VM.  Without a master clock the line is
 * the last one there was, and base_offset_ns is the clock less base time.
 */
TRACE_EVENT(kvmclock_change,
	    TP_PROTO(const struct kvm_clock *clock),
	    TP_ARGS(clock),

	    TP_STRUCT__entry(__field(u64,	version)
			     __field(bool,	master)
			     __field(bool,	stable)
			     __field(u64,	ref_tsc)
			     __field(u64,	ref_ns)
			     __field(u32,	mul)
			     __field(s8,	shift)
			     __field(s64,	base_offset_ns)),

	    TP_fast_assign(__entry->version = clock->changes;
			   __entry->master = clock->master;
			   __entry->stable = clock->stable;
			   __entry->ref_tsc = clock->line.ref_tsc;
			   __entry->ref_ns = clock->line.ref_ns;
			   __entry->mul = clock->line.mul;
			   __entry->shift = clock->line.shift;
			   __entry->base_offset_ns = clock->base_offset_ns;),

	    TP_printk("version=%llu master=%d stable=%d ref_tsc=%llu ref_ns=%llu mul=%u shift=%d base_offset_ns=%lld",
		      __entry->version, __entry->master, __entry->stable,
		      __entry->ref_tsc, __entry->ref_ns, __entry->mul,
		      __entry->shift, __entry->base_offset_ns)
);

/*
 * A page, or a Xen guest's equivalent, was not written because its memory was
 * not there.  It is written when it comes, before the guest can see it.
 */
TRACE_EVENT(kvmclock_page_missing,
	    TP_PROTO(unsigned int vcpu_id, u64 gpa),
	    TP_ARGS(vcpu_id, gpa),

	    TP_STRUCT__entry(__field(unsigned int,	vcpu_id)
			     __field(u64,		gpa)),

	    TP_fast_assign(__entry->vcpu_id = vcpu_id;
			   __entry->gpa = gpa;),

	    TP_printk("vcpu_id=%u gpa=0x%llx", __entry->vcpu_id, __entry->gpa)
);

#endif /* _TRACE_KVMCLOCK_H */

#include <trace/define_trace.h>
