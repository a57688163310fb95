#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the host under test, HOST=distro, as the last test: KVM goes and comes again,
# and the host's clocksource changes with it and without it: nothing of it may have
# stayed. Each time the command that is given runs on it.
clocksource=/sys/devices/system/clocksource/clocksource0/current_clocksource
set -e

switch()
{
	echo hpet >$clocksource
	echo tsc >$clocksource
}

# With few CPUs, and without who holds KVM since the boot: machine/load.c says why.
for cpu in /sys/devices/system/cpu/cpu[2-9]; do
	[ ! -e "$cpu" ] || echo 0 >"$cpu/online"
done
for process in /proc/[0-9]*; do
	# shellcheck disable=SC2010 # what the links point to is in no glob
	if ls -l "$process/fd" 2>/dev/null | grep -q /dev/kvm; then
		kill -KILL "${process##*/}"
	fi
done
sleep 1

for round in 1 2 3; do
	rmmod kvm_amd
	rmmod kvm
	switch
	insmod /lib/kvm.ko
	insmod /lib/kvm-amd.ko
	switch
	echo "round $round: $*"
	"$@"
done
