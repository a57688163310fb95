#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# Runs in the host under test: the distribution's QEMU with KVM boots this same
# kernel as a guest, whose PID 1 is guest/init.c. Its report and its last word come
# over its serial console; what its kernel warns of there is for run.sh to judge. It
# would of the size of XSAVE areas: QEMU 7.2 has a guest's XSETBV not exit, so that KVM
# does not know which of them are on.
#
# A boot that ends in a breakpoint which the guest's kernel has removed again is the
# emulated host's, as load.c explains: it is told, and done again.
console=/tmp/guest-console
errors=/tmp/guest-qemu

boot()
{
	qemu-system-x86_64 -L /usr/share/qemu -L /usr/share/seabios \
		-M pc -accel kvm -cpu host -smp 2 -m 256 -nodefaults -no-reboot \
		-display none -vga none -serial file:$console \
		-kernel /boot/bzImage -initrd /boot/guest.cpio \
		-append "console=ttyS0 panic=-1 loglevel=5 noxsave $*" 2>$errors </dev/null
	status=$?
}

boot "$@"
for again in 1 2; do
	if grep -aq '^guest: ' $console || ! grep -aq 'Oops: int3' $console; then
		break
	fi
	echo "boot $again ended in an int3 of a breakpoint that was gone:"
	tr -d '\r' <$console | sed 's/^/boot '$again': /' | grep -a -A 3 'Oops: int3'
	boot "$@"
done

tr -d '\r' <$console | sed -e '/^guest: /d' -e '/^report: /!s/^/console: /'
verdict=$(tr -d '\r' <$console | grep '^guest: ' | tail -n 1)
echo "${verdict:-guest: no last word, QEMU ended with $status}"
[ "$verdict" = "guest: PASS" ] && exit 0

echo "QEMU's last lines:"
cat $errors
exit 1
