#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the host under test: the distribution's QEMU with KVM boots this same
# kernel as a guest, whose PID 1 is guest/init.c. Its report and its last word come
# over its serial console.
console=/tmp/guest-console
errors=/tmp/guest-qemu

qemu-system-x86_64 -L /usr/share/qemu -L /usr/share/seabios \
	-M pc -accel kvm -cpu host -smp 2 -m 256 -nodefaults -no-reboot \
	-display none -vga none -serial file:$console \
	-kernel /boot/bzImage -initrd /boot/guest.cpio \
	-append "console=ttyS0 panic=-1 loglevel=4 $*" 2>$errors </dev/null
status=$?

tr -d '\r' <$console | grep '^report: '
verdict=$(tr -d '\r' <$console | grep '^guest: ' | tail -n 1)
echo "${verdict:-guest: no last word, QEMU ended with $status}"
[ "$verdict" = "guest: PASS" ] && exit 0

echo "the guest's last lines, then QEMU's:"
grep -v '^report: \|^guest: ' $console | tail -n 20
cat $errors
exit 1
