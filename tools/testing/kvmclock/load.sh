#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# load.sh load|unload: has this machine's running kernel use our KVM modules, or
# the distribution's again. Refuses while it could do harm; a kernel that had KVM
# before has it afterwards, whatever fails. Nothing is installed: the next boot
# has the distribution's modules.
set -eu
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

machine=$KVMCLOCK_MACHINE
sys=$machine/sys
PATH=$PATH:/usr/sbin:/sbin
kernel=$(uname -r)

refuse()
{
	die $EXIT_USAGE "not $mode: $*"
}

read_file()
{
	cat "$1" 2>/dev/null || :
}

is_loaded()
{
	[ -d "$sys/module/$1" ]
}

# Modules of the kernel's own build have no such letter.
is_ours()
{
	case $(read_file "$sys/module/kvm/taint") in
	*O*) return 0 ;;
	esac
	return 1
}

find_vendor()
{
	for vendor in kvm_amd kvm_intel; do
		! is_loaded $vendor || return 0
	done
	case " $(sed -n 's/^flags[^:]*://p' "$machine/proc/cpuinfo" | head -n 1) " in
	*" svm "*) vendor=kvm_amd ;;
	*" vmx "*) vendor=kvm_intel ;;
	*) refuse "this processor has no virtualization, or the firmware turned it off" ;;
	esac
}

check_kernel()
{
	if is_loaded kvm && [ ! -e "$sys/module/kvm/initstate" ]; then
		refuse "KVM is built into this kernel; use make kernel KCONFIG=/boot/config-$kernel"
	fi
	[ "$(read_file "$machine/proc/sys/kernel/modules_disabled")" != 1 ] ||
		refuse "kernel.modules_disabled is set: no module can be loaded until the next boot"
	[ "$(read_file "$sys/module/module/parameters/sig_enforce")" != Y ] ||
		refuse "this kernel takes only signed modules; boot it without module.sig_enforce"
	case $(read_file "$sys/kernel/security/lockdown") in
	*'[integrity]'* | *'[confidentiality]'*)
		refuse "this kernel is locked down and takes only signed modules; turn Secure Boot off, or lockdown= on its command line" ;;
	esac
}

# Who has /dev/kvm or a VM open, as far as we may see.
users()
{
	for fd in "$machine"/proc/[0-9]*/fd/*; do
		case $(readlink "$fd" 2>/dev/null) in
		/dev/kvm | anon_inode:kvm*) ;;
		*) continue ;;
		esac
		pid=${fd#"$machine/proc/"}
		pid=${pid%%/*}
		echo "$(read_file "$machine/proc/$pid/comm") (process $pid)"
	done | sort -u | paste -sd, | sed 's/,/, /g'
}

check_unused()
{
	for module in kvm $vendor; do
		for holder in "$sys/module/$module/holders"/*; do
			holder=${holder##*/}
			case $holder in
			'*' | "$vendor") ;;
			*) refuse "the module $holder uses $module; unload it first" ;;
			esac
		done
	done
	# An open /dev/kvm, and each VM, count as references of the vendor's module.
	case $(read_file "$sys/module/$vendor/refcnt") in
	'' | 0) return ;;
	esac
	who=$(users)
	refuse "KVM is in use by ${who:-a process that only root can see}; end its virtual machines first"
}

check_modules()
{
	for name in kvm "$vendor"; do
		file=$modules/$(echo "$name" | tr _ -).ko
		magic=$(modinfo -F vermagic "$file") || refuse "$file cannot be read"
		[ "${magic%% *}" = "$kernel" ] ||
			refuse "$file is for ${magic%% *}, this is $kernel; give KHEADERS=/lib/modules/$kernel/build"
	done
}

# The distribution's and the administrator's parameters of a module.
options()
{
	modprobe -c | sed -n "s/^options $1 //p" | paste -sd' '
}

insert()
{
	! is_loaded "$1" || return 0
	# shellcheck disable=SC2046 # a list of parameters
	$root insmod "$modules/$(echo "$1" | tr _ -).ko" $(options "$1")
}

insert_ours()
{
	for name in $(modinfo -F depends "$modules/kvm.ko" "$modules/$(echo "$vendor" | tr _ -).ko" |
		      tr ',' ' '); do
		[ "$name" = kvm ] || is_loaded "$name" || $root modprobe "$name" || return
	done
	insert kvm && insert "$vendor"
}

insert_theirs()
{
	$root modprobe "$vendor"
}

remove()
{
	for name in "$vendor" kvm; do
		! is_loaded "$name" || $root rmmod "$name" || return
	done
}

# change TO BACK: removes what is loaded and inserts by TO; by BACK if that fails.
change()
{
	if remove && "$1"; then
		return
	fi
	remove || :
	"$2" || die $EXIT_FAILED "not $mode, and KVM did not come back: try modprobe $vendor, or boot again"
	die $EXIT_FAILED "not $mode: the kernel refused, see above and dmesg; KVM is as it was"
}

mode=${1-}ed
case ${1-} in
load | unload) ;;
*) die $EXIT_USAGE "usage: load.sh load|unload" ;;
esac
root=
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null || refuse "modules are for root to load; become root, or install sudo"
	root=sudo
fi
: "${KHEADERS:=$machine/lib/modules/$kernel/build}"
export KHEADERS
check_settings
find_vendor
check_kernel
check_unused
open_output
modules=$O/modules/$kernel

if [ "${1-}" = unload ]; then
	if ! is_ours; then
		say "kvm: the distribution's modules are loaded, nothing to do"
		exit 0
	fi
	change insert_theirs insert_ours
	say "kvm: $kernel has the distribution's $vendor again"
	exit 0
fi
[ -d "$KHEADERS/include" ] ||
	refuse "$KHEADERS is missing; apt-get install linux-headers-$kernel"
[ -n "$machine" ] || "$lab/build.sh" modules || exit
check_modules
check_unused
change insert_ours insert_theirs
say "kvm: $kernel has our kvm and $vendor until make unload, or the next boot"
