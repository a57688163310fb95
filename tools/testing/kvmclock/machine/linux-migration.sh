#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# linux-migration [WAY [TIMES [CLOCKSOURCE]]]: runs in the host under test. The Linux
# guest of linux-guest.sh, reading its time on all vCPUs, is taken TIMES times from one
# QEMU to another, or back into the same one, and asked before and after for its
# clocks. WAY is one of
#
#	file		migrated by a file
#	postcopy	migrated by a socket, its memory last
#	savevm		a snapshot, which another QEMU loads
#	loadvm		a snapshot, which the same QEMU loads later
#	cpr		to a new QEMU on the same host, by cpr-transfer (QEMU 10.0)
#	paused		paused, then migrated by a file
#	stop		paused and continued
#	mixed		migrated by a file from stock QEMU to ours and back, ours as if
#			it were stock
#
# Each time it says how long the guest was away, how much of that its CLOCK_MONOTONIC
# noticed, how far its clock moved by its TSC, and how far ahead its CLOCK_REALTIME is
# of the host's. The last two are judged if QEMU is the patched one, and with cpr that
# the TSC's offset is the same.
way=${1-file}
times=${2-1}
clocksource=${3-kvm-clock}
seconds_before=1	# in a QEMU, to have a past
seconds_between=1	# in none, or paused
patience=90

# How far CLOCK_REALTIME may move against the host's: what is left is how well the two
# can be read at one instant.
limit_ns=100000

# Where there are both, kind=stock takes the other one.
: "${kind=$(cat /boot/qemu)}"
case $kind$way in
patchedmixed | stock*) kind=stock options= ;;
*) : "${options=-global kvmclock.exact-time=on}" ;;
esac
guest_options=
[ "$clocksource" = kvm-clock ] || guest_options="keep_by=$clocksource tsc=reliable"
memory=
[ "$way" != cpr ] ||
	memory="-object memory-backend-memfd,id=ram0,size=256M,share=on -machine memory-backend=ram0,aux-ram-share=on"

give_up()
{
	echo "$1"
	for file in /tmp/*-console /tmp/*-qmp /tmp/*-errors; do
		[ -s "$file" ] || continue
		echo "the last lines of $file:"
		tail -n 8 "$file" | tr -d '\r'
	done
	exit 1
}

# await FILE PATTERN [COMMAND...]: until the file has it; COMMAND asks for it.
await()
{
	file=$1
	pattern=$2
	shift 2
	tries=$((patience * 10))
	until grep -q "$pattern" "$file" 2>/dev/null; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || give_up "$file: no $pattern within $patience s"
		! grep -q '^guest: FAIL' "$file" || give_up "$(grep '^guest: FAIL' "$file")"
		"$@"
		sleep 0.1
	done
}

# qmp NAME COMMAND [ARGUMENTS]
qmp()
{
	echo "{\"execute\": \"$2\"${3:+, \"arguments\": {$3\}}}" >/tmp/"$1"-monitor
}

query()
{
	qmp "$1" query-migrate
}

query_state()
{
	qmp "$1" query-status
}

# start NAME ARGUMENT...: a QEMU with its monitor and its guest's console in
# pipes; their output ends in NAME-qmp and NAME-console.
start()
{
	name=$1
	shift
	rm -f /tmp/"$name"[.-]*
	mkfifo /tmp/"$name".in /tmp/"$name".out /tmp/"$name"-monitor
	cat /tmp/"$name".out >/tmp/"$name"-console &
	program=qemu-system-x86_64
	case $(cat /boot/qemu)-$kind-$way-$name in
	patched-*-mixed-one | patched-stock-[!m]*) program=qemu-stock ;;
	esac
	# shellcheck disable=SC2086 # lists of options
	$program -L /usr/share/qemu -L /usr/share/seabios $options \
		-M pc $memory -accel kvm -cpu host -smp 2 -m 256 -nodefaults -no-reboot \
		-display none -vga none -serial pipe:/tmp/"$name" -qmp stdio \
		-kernel /boot/bzImage -initrd /boot/guest.cpio \
		-append "console=ttyS0 panic=-1 loglevel=5 noxsave migration=1 $guest_options" "$@" \
		</tmp/"$name"-monitor >/tmp/"$name"-qmp 2>/tmp/"$name"-errors &
	pid=$!
	# Lines come and go; the end of the last one is not to be the monitor's.
	sleep 100000 >/tmp/"$name"-monitor &
	qmp "$name" qmp_capabilities
}

end()
{
	qmp "$1" quit
	await /tmp/"$1"-qmp '"SHUTDOWN"'
}

# When QEMU NAME had an event last, in us
event()
{
	sed -n "s/.*\"seconds\": \([0-9]*\), \"microseconds\": \([0-9]*\)}.*\"$2\".*/\1 \2/p" \
		/tmp/"$1"-qmp | awk 'END { printf "%d%06d\n", $1, $2 }'
}

# job NAME COMMAND ARGUMENTS: one of QEMU's jobs, from start to end
jobs=0
job()
{
	jobs=$((jobs + 1))
	qmp "$1" "$2" "\"job-id\": \"job$jobs\", $3"
	await /tmp/"$1"-qmp "\"concluded\", \"id\": \"job$jobs\"}"
	qmp "$1" query-jobs
	await /tmp/"$1"-qmp "\"return\": \[.*\"id\": \"job$jobs\""
	! grep -q "\"return\": \[.*\"id\": \"job$jobs\".*\"error\"" /tmp/"$1"-qmp ||
		give_up "$2 failed"
	qmp "$1" job-dismiss "\"id\": \"job$jobs\""
}

# A disk for snapshots, which the guest has not: made, or as another QEMU has left it
add_disk()
{
	: >>/tmp/disk
	qmp "$1" blockdev-add '"driver": "file", "filename": "/tmp/disk", "node-name": "file"'
	[ -s /tmp/disk ] ||
		job "$1" blockdev-create '"options": {"driver": "qcow2", "file": "file", "size": 1048576}'
	qmp "$1" blockdev-add '"driver": "qcow2", "node-name": "disk", "file": "file"'
}

# snapshot NAME VERB: saves, loads, or deletes one
snapshot()
{
	vmstate='"vmstate": "disk", '
	[ "$2" != delete ] || vmstate=
	job "$1" "snapshot-$2" "$vmstate\"devices\": [\"disk\"], \"tag\": \"time$number\""
}

# The host's CLOCK_REALTIME, and its TSC in the middle of where it can have been
host_now()
{
	# shellcheck disable=SC2046 # three numbers
	set -- $(/bin/now)
	host_tsc=$(($1 + $2 / 2))
	host_ns=$3
}

# What the guest in QEMU NAME says of its clocks, see answer() in guest/init.c, and how
# far its CLOCK_REALTIME is ahead of the host's at that TSC
looks=0
look()
{
	looks=$((looks + 1))
	echo "look $looks" >/tmp/"$1".in
	await /tmp/"$1"-console "^answer $looks: .* done"
	offset=$(cat /sys/kernel/debug/kvm/"$pid"-*/vcpu0/tsc-offset)
	host_now
	# shellcheck disable=SC2046 # a list of numbers
	set -- $(tr -d '\r' </tmp/"$1"-console | sed -n "s/^answer $looks: //p")
	ahead_ns=$(($3 - (host_ns + ($1 + $2 / 2 - offset - host_tsc) * 1000000 / khz)))
	moved_ns=$4
	noticed_us=$5
	unstable=${10}
}

# away_NAME: by that way, from QEMU $from to $to, or back to $from; when it was stopped
# goes to $stopped
leave()
{
	qmp $from migrate '"uri": "exec:cat >/tmp/state"'
	await /tmp/$from-qmp '"status": "completed"' query $from
	stopped=$(event $from STOP)
	end $from
	sleep $seconds_between
}

away_file()
{
	leave
	start $to -incoming defer
	qmp $to migrate-incoming '"uri": "exec:cat /tmp/state"'
}

away_mixed()
{
	away_file
}

away_paused()
{
	qmp $from stop
	await /tmp/$from-qmp '"STOP"'
	sleep $seconds_between
	leave
	start $to -incoming defer
	qmp $to migrate-incoming '"uri": "exec:cat /tmp/state"'
	# Not by query-migrate, whose "completed" would be there when this one leaves.
	await /tmp/$to-qmp '"status": "paused"' query_state $to
	qmp $to cont
}

away_postcopy()
{
	postcopy='"capabilities": [{"capability": "postcopy-ram", "state": true}]'
	rm -f /tmp/socket
	start $to -incoming defer
	qmp $to migrate-set-capabilities "$postcopy"
	qmp $to migrate-incoming '"uri": "unix:/tmp/socket"'
	await /tmp/$to-qmp '"status": "setup"' query $to
	qmp $from migrate-set-capabilities "$postcopy"
	# Slow, or it is over before it can be told to begin
	qmp $from migrate-set-parameters '"max-bandwidth": 2097152'
	qmp $from migrate '"uri": "unix:/tmp/socket"'
	await /tmp/$from-qmp '"status": "active"' query $from
	qmp $from migrate-start-postcopy
	await /tmp/$from-qmp '"status": "postcopy-active"' query $from
	await /tmp/$from-qmp '"status": "completed"' query $from
	stopped=$(event $from STOP)
	end $from
}

channel()
{
	echo "{\"channel-type\": \"$1\", \"addr\": {\"transport\": \"socket\", \"type\": \"unix\", \"path\": \"/tmp/$1.socket\"}}"
}

away_cpr()
{
	rm -f /tmp/main.socket /tmp/cpr.socket
	# It has no monitor until the old one has told it what it goes on with.
	start $to -incoming unix:/tmp/main.socket -incoming "$(channel cpr)"
	tries=$((patience * 10))
	until [ -S /tmp/cpr.socket ]; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || give_up "the new QEMU does not listen within $patience s"
		sleep 0.1
	done
	qmp $from migrate-set-parameters '"mode": "cpr-transfer"'
	qmp $from migrate "\"channels\": [$(channel main), $(channel cpr)]"
	await /tmp/$from-qmp '"status": "completed"' query $from
	stopped=$(event $from STOP)
	end $from
}

away_savevm()
{
	[ -s /tmp/disk ] || add_disk $from
	snapshot $from save
	stopped=$(event $from STOP)
	end $from
	sleep $seconds_between
	start $to -S
	add_disk $to
	snapshot $to load
	qmp $to cont
}

away_loadvm()
{
	to=$from
	[ -s /tmp/disk ] || add_disk $from
	snapshot $from save
	stopped=$(event $from STOP)
	sleep $seconds_between
	snapshot $from load
}

away_stop()
{
	to=$from
	qmp $from stop
	sleep $seconds_between
	qmp $from cont
	stopped=$(event $from STOP)
}

# In us, with a sign
us()
{
	awk "BEGIN { printf \"%+.3f\", $1 / 1000 }"
}

abs()
{
	echo "${1#-}"
}

case $way in
file | postcopy | savevm | loadvm | cpr | paused | stop | mixed) ;;
*) give_up "usage: linux-migration [file|postcopy|savevm|loadvm|cpr|paused|stop|mixed [TIMES [CLOCKSOURCE]]]" ;;
esac

rm -f /tmp/disk
from=one
to=two
start $from
host_now
began_tsc=$host_tsc
began_ns=$host_ns
await /tmp/$from-console '^guest: ready'
sleep $seconds_before
host_now
khz=$(((host_tsc - began_tsc) * 1000000 / (host_ns - began_ns)))
look $from
echo "set $((-ahead_ns))" >/tmp/$from.in
await /tmp/$from-console '^guest: reading'
look $from
first_ns=$ahead_ns

number=0
largest_ns=0
largest_real_ns=0
while [ "$number" -lt "$times" ]; do
	number=$((number + 1))
	sleep $seconds_before
	look $from
	before_ns=$ahead_ns
	before_offset=$offset
	"away_$way"
	await /tmp/$to-qmp '"RESUME"'
	look $to
	if [ "$kind$way" = patchedcpr ] && [ "$offset" != "$before_offset" ]; then
		give_up "the TSC's offset was $before_offset, and is $offset"
	fi
	away_ms=$((($(event $to RESUME) - stopped) / 1000))
	real_ns=$((ahead_ns - before_ns))
	echo "report: $number: away $away_ms ms, noticed $((noticed_us / 1000)) ms; clock over TSC $(us "$moved_ns") us, CLOCK_REALTIME $(us $ahead_ns) us"
	[ "$(abs "$moved_ns")" -le "$(abs "$largest_ns")" ] || largest_ns=$moved_ns
	[ "$(abs $real_ns)" -le "$(abs $largest_real_ns)" ] || largest_real_ns=$real_ns
	[ ! -s /tmp/disk ] || snapshot $to delete
	if [ "$to" != "$from" ]; then
		name=$from
		from=$to
		to=$name
	fi
done

echo end >/tmp/$from.in
await /tmp/$from-console '^guest: [PF]A'
tr -d '\r' </tmp/$from-console | grep '^report: '
# What its kernel warns of is for run.sh to judge.
cat /tmp/*-console | tr -d '\r' |
	sed -e '/^guest: /d' -e '/^answer /d' -e '/^report: /d' -e 's/^/console: /'
echo "report: $times times $way, $kind QEMU, by $clocksource: clock over TSC moved by $(us "$largest_ns") us at most"
echo "report: CLOCK_REALTIME moved by $(us $largest_real_ns) us at most at a time, in all from $(us "$first_ns") to $(us $ahead_ns) us"
[ "$kind" = patched ] ||
	echo "report: that is lost by stock QEMU, as expected, whatever the kernel is; see contrib/qemu"
[ "$unstable" = 0 ] || echo "report: $unstable turns of the readers were without the stable bit"
verdict=$(tr -d '\r' </tmp/$from-console | grep '^guest: [PF]A' | tail -n 1)
echo "$verdict"
[ "$verdict" = "guest: PASS" ] || give_up "the guest failed"
[ "$kind" = patched ] || exit 0

[ "$largest_ns" = 0 ] || give_up "the clock moved by $largest_ns ns at one TSC"
[ "$unstable" = 0 ] || give_up "the stable bit was lost"
case $way in
stop | paused) ;;
*)
	[ "$(abs $largest_real_ns)" -le $limit_ns ] ||
		give_up "CLOCK_REALTIME moved by $largest_real_ns ns against the host's" ;;
esac
