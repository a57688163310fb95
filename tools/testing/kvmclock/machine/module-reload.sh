#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the host under test, HOST=distro: KVM goes and comes again, and the host's
# clocksource changes with it and without it: nothing of it may have stayed. Each time
# the command that is given runs on it.
clocksource=/sys/devices/system/clocksource/clocksource0/current_clocksource
set -e

switch()
{
	echo hpet >$clocksource
	echo tsc >$clocksource
}

online()
{
	for cpu in /sys/devices/system/cpu/cpu[1-9]*/online; do
		echo "$1" >"$cpu"
	done
}

# Its jump labels change while there is one CPU: machine/load.c says why.
take_kvm_away()
{
	online 0
	for process in /proc/[0-9]*; do
		# shellcheck disable=SC2010 # what the links point to is in no glob
		if ls -l "$process/fd" 2>/dev/null | grep -q /dev/kvm; then
			kill -KILL "${process##*/}"
		fi
	done
	sleep 1
	rmmod kvm_amd
	rmmod kvm
}

bring_kvm_back()
{
	insmod /lib/kvm.ko
	insmod /lib/kvm-amd.ko
	/init hold
	online 1
}

# The kernel gives all CPUs to who has lost each of its own.
cpus=$(taskset -p $$ | sed 's/.* //')
trap 'online 1' EXIT
for round in 1 2 3; do
	take_kvm_away
	switch
	bring_kvm_back
	switch
	taskset -p "$cpus" $$ >/dev/null
	echo "round $round: $*"
	"$@"
done
