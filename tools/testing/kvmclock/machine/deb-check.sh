#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# In a Debian that checks/deb.sh boots: whose KVM it took by itself, what its guests'
# clock is like, and what kvmclock-load does. Says so, and turns the machine off.
set -u
expect=$(tr ' ' '\n' </proc/cmdline | sed -n 's/^expect=//p')

# result STATUS NAME
result()
{
	[ "$1" -eq 0 ] || printf 'not '
	echo "ok $2"
}

# whose WHOM NAME: by the letter that modules have which are not the kernel's
whose()
{
	case $(cat /sys/module/kvm/taint 2>/dev/null || echo none) in
	none) is=none ;;
	*O*) is=ours ;;
	*) is=theirs ;;
	esac
	[ $is = "$1" ]
	result $? "$2: KVM is $is"
}

# clock WHOSE NAME: the defects of the stock kernel's are there, or are not
clock()
{
	kvm-clock-check >/run/clock 2>&1
	code=$?
	grep -i -e defect -e wrong -e cannot /run/clock | tail -n 4 | sed 's/^/# /'
	case $1$code in
	ours0 | theirs1) result 0 "$2: guests have the clock of $1" ;;
	*)
		sed 's/^/# /' /run/clock
		result 1 "$2: guests have the clock of $1, but kvm-clock-check ends with $code" ;;
	esac
}

# load CODE MODE NAME: how kvmclock-load ends
load()
{
	kvmclock-load "$2" 9>&-
	code=$?
	[ $code -eq "$1" ]
	result $? "$3: kvmclock-load $2 ends with $code"
}

echo "$(uname -r), $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' /etc/os-release)"
whose "$expect" boot
clock "$expect" boot
if [ "$expect" = ours ]; then
	exec 9<>/dev/kvm
	load 2 unload in_use
	exec 9>&-
	load 0 unload unload
	whose theirs unload
	clock theirs unload
	exec 9<>/dev/kvm
	load 2 load in_use
	exec 9>&-
	load 0 load load
	whose ours load
	clock ours load
fi
echo "deb-check: done"
sync
echo o >/proc/sysrq-trigger
sleep 60
