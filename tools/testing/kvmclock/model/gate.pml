/* SPDX-License-Identifier: GPL-2.0 */
/*
 * How a change of a VM's line reaches its vCPUs' pages, as a model for Spin: the gate,
 * a page's version, the requests, what memory owes, memory that comes late, and a
 * vCPU that is created meanwhile.  One byte stands for a line: the number of changes
 * that it has seen.
 *
 * What is proven: whatever interleaving, no guest reads a line, from its own page or
 * from another vCPU's, that is older than one which a guest has read, or userspace
 * been told, before (I2, I4); in the end each page that a guest can read has the last
 * line (no update is lost); and nobody waits for ever.
 *
 * What is not: memory is sequentially consistent here, so that barriers are not; the
 * stable bit is always set; dirty rings and signals do not end the help early.
 *
 * checks/model.sh also checks that with each of these broken some run is wrong:
 * NO_GATE NO_AWAIT NO_LOOK NO_HELP CLAIMS_IGNORED NOTE_TOO_LATE SHARED_TOO_LATE
 * CLEARED_TOO_LATE FAULT_FORGETS TOO_EARLY CLAIM_CLOSES OWN_TOO_EARLY
 */

#define NR		2	/* vCPUs; the last one is created late */
#define LATE		(NR - 1)
#define NR_CHANGES	2

byte line;			/* the VM's */
byte known;			/* the newest that anybody has read */
bool ready;			/* all changes are made */

/* What a vCPU's request bits and its mode say */
bool in_progress[NR], global[NR], update[NR], in_guest[NR];
bool online[NR], counted[NR];

/* Guest memory: is there for the host, and for the guest */
bool there[NR], mapped[NR];
bool odd[NR], stable[NR];	/* the version, the stable bit */
byte page[NR];			/* the line in it */

/* What it owes, under the lock, which is atomic { } here */
bool shared[NR], open[NR], absent[NR];
byte claims[NR];

bool change_lock, page_lock[NR];

#define exposed(i)	(shared[i] && open[i])
#define stale(i)	(open[i] || absent[i])
#define nr_absent	(absent[0] || absent[1])
#define nr_exposed	(exposed(0) + exposed(1))

#define lock(l)		atomic { !l -> l = true }
#define unlock(l)	l = false

mtype = { WRITTEN, ABSENT, OVERTAKEN };

/* kvmclock_try_vcpu() */
inline try_page(i, in_time)
{
	d_step {
		new = line;
		seen_claims = claims[i];
		was_shared = shared[i];
#ifndef SHARED_TOO_LATE
		shared[i] = true;
#endif
	}

	if
	:: there[i] ->
		odd[i] = true;
		page[i] = new;
		d_step { stable[i] = true; odd[i] = false; }
		put = WRITTEN
	:: else ->
		put = ABSENT
	fi;

	d_step {
		if
#ifndef CLAIMS_IGNORED
		:: seen_claims != claims[i] ->
			put = OVERTAKEN
#endif
		:: else ->
			open[i] = put == ABSENT && !in_time && (open[i] || !absent[i]);
			absent[i] = put == ABSENT;
			shared[i] = put == WRITTEN || (was_shared && (open[i] || absent[i]))
		fi
	}
}

/* kvmclock_write_vcpu() */
inline write_page(i)
{
	lock(page_lock[i]);
	put = WRITTEN;
	if
#ifndef TOO_EARLY
	:: stale(i) && counted[i] ->
#else
	:: stale(i) ->
#endif
		do
		:: try_page(i, false);
			if
			:: put == ABSENT ->
#ifndef NOTE_TOO_LATE
				try_page(i, true)
#else
				open[i] = false
#endif
			:: else
			fi;
			if
			:: put != OVERTAKEN -> break
			:: else
			fi
		od
	:: else
	fi;
	unlock(page_lock[i])
}

/* kvmclock_memory_comes(): the memory is there, and about to be mapped */
inline map_page(i)
{
#ifndef FAULT_FORGETS
	if
	:: nr_absent ->
		if
		:: absent[i] -> write_page(i)
		:: else
		fi
	:: else
	fi;
#endif
	mapped[i] = true
}

/* kvmclock_others_exposed(): how many are, and whether it is one, one after the other */
inline look_for_others(i)
{
	nr = nr_exposed;
#ifndef OWN_TOO_EARLY
	own = exposed(i);
#endif
}

/* kvmclock_update_others() */
inline serve_global(i)
{
#ifdef OWN_TOO_EARLY
	own = exposed(i);
#endif
	if
	:: stale(i) -> update[i] = true
	:: else
	fi;
#ifndef NO_HELP
	look_for_others(i);
	if
	:: nr > own && exposed(NR - 1 - i) -> write_page(NR - 1 - i)
	:: else
	fi;
	look_for_others(i);
	if
	:: nr > own -> global[i] = true
	:: else
	fi;
	/* Forgotten, as it is not looked at again: fewer states. */
	nr = 0;
	own = false
#endif
}

/* kvmclock_update_page(), kvmclock_serve_page() */
inline serve_update(i)
{
	if
	:: !counted[i] && online[i] ->
#ifndef NO_AWAIT
		lock(change_lock);
		unlock(change_lock);
#endif
		counted[i] = true
	:: else
	fi;
	if
	:: !counted[i] -> update[i] = true
	:: counted[i] && stale(i) -> write_page(i)
	:: else
	fi;
#ifndef NO_LOOK
	if
	:: nr_exposed -> global[i] = true
	:: else
	fi
#endif
}

/* A guest may read any page with the stable bit; one of an odd version not yet. */
inline read_page(i)
{
	atomic {
		mapped[i] && stable[i] && !odd[i] ->
		assert(page[i] >= known);
		known = page[i]
	}
}

proctype vcpu(byte me)
{
	byte new, seen_claims, nr;
	bool was_shared, own;
	mtype put;

	do
	:: global[me] ->
#ifdef CLEARED_TOO_LATE
		serve_global(me); global[me] = false
#else
		global[me] = false; serve_global(me)
#endif
	:: update[me] ->
#ifdef CLEARED_TOO_LATE
		serve_update(me); update[me] = false
#else
		update[me] = false; serve_update(me)
#endif
	:: !global[me] && !update[me] && !in_progress[me] ->
		in_guest[me] = true;
		if
		:: global[me] || update[me] || in_progress[me] ->
			in_guest[me] = false
		:: else ->
			if
			:: read_page(0); in_guest[me] = false
			:: read_page(1); in_guest[me] = false
			:: !mapped[0] -> in_guest[me] = false;
				if
				:: there[0] -> map_page(0)
				:: else
				fi
			:: !mapped[1] -> in_guest[me] = false;
				if
				:: there[1] -> map_page(1)
				:: else
				fi
			:: true -> in_guest[me] = false
			fi
		fi
	:: ready && !global[me] && !update[me] && !in_progress[me] && there[0] && there[1] ->
		break
	od
}

/* A vCPU whose file is guessed may be run before it is online, and has to join then. */
proctype create()
{
	update[LATE] = true;
	run vcpu(LATE);
	online[LATE] = true
}

/* kvmclock_begin_change() and kvmclock_end_change() */
proctype change()
{
	byte i, n;

	for (n : 1 .. NR_CHANGES) {
		lock(change_lock);
#ifndef NO_GATE
		for (i : 0 .. NR - 1) {
			if
			:: online[i] -> in_progress[i] = true
			:: else
			fi
		}
		for (i : 0 .. NR - 1) {
			if
			:: in_progress[i] -> !in_guest[i]
			:: else
			fi
		}
#endif
		atomic {
			line++;
			known = line;	/* by KVM_GET_CLOCK */
			for (i : 0 .. NR - 1) {
				if
				:: online[i] ->
					claims[i]++;
#ifndef CLAIM_CLOSES
					open[i] = open[i] || !absent[i];
#else
					open[i] = !absent[i];
#endif
					global[i] = true
				:: else
				fi
			}
		}
		for (i : 0 .. NR - 1) {
			in_progress[i] = false
		}
		unlock(change_lock)
	}
	ready = true
}

/* Memory that a migration left behind comes when it comes. */
proctype memory()
{
	there[LATE] = true
}

init
{
	atomic {
		online[0] = true;
		counted[0] = true;
		there[0] = true;
		mapped[0] = true;
		stable[0] = true;
		shared[0] = true;
		if
		:: there[LATE] = true;		/* a new page, without the bit */
			mapped[LATE] = true;
			open[LATE] = true
		:: stable[LATE] = true;		/* one of before a migration, with it */
			shared[LATE] = true;
			open[LATE] = true
		fi;
		run vcpu(0);
		run create();
		run change();
		run memory()
	}
	(_nr_pr == 1);
	assert(!mapped[0] || page[0] == line);
	assert(!mapped[1] || !stable[1] || page[1] == line)
}
