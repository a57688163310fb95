#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the host under test: the Linux guest of linux-guest.sh, reading its
# time on all vCPUs, is migrated by a file from one QEMU to another. How long it
# was away is what QEMU's own events say, how much of that it noticed says it.
seconds_before=2	# in the first QEMU, to have a past
seconds_between=2	# in the file
seconds_after=3		# in the second QEMU
patience=90

# start NAME ARGUMENT...: a QEMU with its monitor and its guest's console in
# pipes; their output ends in NAME-qmp and NAME-console.
start()
{
	name=$1
	shift
	mkfifo /tmp/"$name".in /tmp/"$name".out /tmp/"$name"-monitor
	cat /tmp/"$name".out >/tmp/"$name"-console &
	qemu-system-x86_64 -L /usr/share/qemu -L /usr/share/seabios \
		-M pc -accel kvm -cpu host -smp 2 -m 256 -nodefaults -no-reboot \
		-display none -vga none -serial pipe:/tmp/"$name" -qmp stdio \
		-kernel /boot/bzImage -initrd /boot/guest.cpio \
		-append "console=ttyS0 panic=-1 loglevel=5 noxsave migration=1" "$@" \
		</tmp/"$name"-monitor >/tmp/"$name"-qmp 2>/tmp/"$name"-errors &
}

give_up()
{
	echo "$1"
	for file in /tmp/source-* /tmp/destination-*; do
		[ -f "$file" ] || continue
		echo "the last lines of $file:"
		tail -n 12 "$file" | tr -d '\r'
	done
	exit 1
}

# await FILE PATTERN [COMMAND...]: until the file has it; COMMAND asks for it.
await()
{
	file=$1
	pattern=$2
	shift 2
	tries=$((patience * 5))
	until grep -q "$pattern" "$file" 2>/dev/null; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || give_up "$file: no $pattern within $patience s"
		"$@"
		sleep 0.2
	done
}

# When QEMU had an event, in microseconds.
event()
{
	sed -n "s/.*\"seconds\": \([0-9]*\), \"microseconds\": \([0-9]*\)}.*\"$2\".*/\1 \2/p" \
		/tmp/"$1"-qmp | awk 'END { printf "%d%06d\n", $1, $2 }'
}

query()
{
	echo '{"execute": "query-migrate"}' >&3
}

start source
exec 3>/tmp/source-monitor
echo '{"execute": "qmp_capabilities"}' >&3
await /tmp/source-console '^guest: ready'
sleep $seconds_before
echo '{"execute": "migrate", "arguments": {"uri": "exec:cat >/tmp/state"}}' >&3
await /tmp/source-qmp '"status": "completed"' query
echo '{"execute": "quit"}' >&3
exec 3>&-
sleep $seconds_between

start destination -incoming defer
exec 3>/tmp/destination-monitor
echo '{"execute": "qmp_capabilities"}' >&3
echo '{"execute": "migrate-incoming", "arguments": {"uri": "exec:cat /tmp/state"}}' >&3
await /tmp/destination-qmp '"RESUME"'
sleep $seconds_after
echo moved >/tmp/destination.in
await /tmp/destination-console '^guest: [PF]A'

away=$(($(event destination RESUME) - $(event source STOP)))
echo "report: away from the guest's last instruction to its next: $((away / 1000)) ms"
cat /tmp/source-console /tmp/destination-console | tr -d '\r' |
	sed -e '/^guest: /d' -e '/^report: /!s/^/console: /'
verdict=$(cat /tmp/source-console /tmp/destination-console | tr -d '\r' |
	grep '^guest: [PF]A' | tail -n 1)
echo "$verdict"
[ "$verdict" = "guest: PASS" ] || give_up "the guest failed"
