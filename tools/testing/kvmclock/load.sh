#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# load.sh load|unload: has this machine's running kernel use our KVM modules, or
# the distribution's again. Refuses while it could do harm; a kernel that had KVM
# before has it afterwards, whatever fails. Nothing is installed: the next boot
# has the distribution's modules. The package calls this as kvmclock-load, with what
# dkms has built and installed in KVMCLOCK_MODULES.
set -eu
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

machine=$KVMCLOCK_MACHINE
sys=$machine/sys
PATH=$PATH:/usr/sbin:/sbin
kernel=$(uname -r)
theirs=$machine/lib/modules/$kernel/kernel/arch/x86/kvm
# The dkms of Debian 13 has put them aside.
for file in "$machine/var/lib/dkms/kvmclock/original_module/$kernel"/*/kvm.ko*; do
	[ ! -e "$file" ] || theirs=${file%/*}
done
undo="make unload, or the next boot"
[ -z "$KVMCLOCK_MODULES" ] || undo="kvmclock-load unload"

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

# module_file FOLDER MODULE: where it is there, compressed or not
module_file()
{
	for ending in .ko .ko.gz .ko.xz .ko.zst; do
		file=$1/$(echo "$2" | tr _ -)$ending
		if [ -e "$file" ]; then
			echo "$file"
			return
		fi
	done
	return 1
}

# By dkms: whether the kernel takes this signature only it can tell.
is_signed()
{
	[ -n "$KVMCLOCK_MODULES" ] && [ -n "$(modinfo -F signer "$(module_file "$modules" kvm)")" ]
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
	! is_signed || return 0
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
		file=$(module_file "$modules" "$name") || refuse "$modules has no $name"
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

# insert FOLDER MODULE
insert()
{
	! is_loaded "$2" || return 0
	# shellcheck disable=SC2046 # a list of parameters
	$root insmod "$(module_file "$1" "$2")" $(options "$2")
}

insert_from()
{
	for name in $(modinfo -F depends "$(module_file "$1" kvm)" "$(module_file "$1" "$vendor")" |
		      tr ',' ' '); do
		[ "$name" = kvm ] || is_loaded "$name" || $root modprobe "$name" || return
	done
	insert "$1" kvm && insert "$1" "$vendor"
}

insert_ours()
{
	insert_from "$modules"
}

# Where the package is installed, modprobe has ours.
insert_theirs()
{
	if module_file "$theirs" kvm >/dev/null; then
		insert_from "$theirs"
	else
		$root modprobe "$vendor"
	fi
}

remove()
{
	for name in "$vendor" kvm; do
		! is_loaded "$name" || $root rmmod "$name" || return
	done
}

# What is loaded is what was asked for.
is_wanted()
{
	case $mode in
	loaded) is_ours ;;
	*) ! is_ours ;;
	esac
}

# change TO BACK: removes what is loaded and inserts by TO; by BACK if that fails.
change()
{
	if remove && "$1"; then
		! is_wanted || return 0
		die $EXIT_FAILED "not $mode: KVM is there, but not the one that was asked for: somebody else has loaded it meanwhile; try again"
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
modules=$KVMCLOCK_MODULES
find_vendor
check_kernel
check_unused
if [ -z "$modules" ]; then
	open_output
	modules=$O/modules/$kernel
fi

if [ "${1-}" = unload ]; then
	if ! is_ours; then
		say "kvm: the distribution's modules are loaded, nothing to do"
		exit 0
	fi
	change insert_theirs insert_ours
	say "kvm: $kernel has the distribution's $vendor again"
	exit 0
fi
if [ -z "$KVMCLOCK_MODULES" ]; then
	[ -d "$KHEADERS/include" ] ||
		refuse "$KHEADERS is missing; apt-get install linux-headers-$kernel"
	[ -n "$machine" ] || "$lab/build.sh" modules || exit
fi
check_modules
check_unused
change insert_ours insert_theirs
say "kvm: $kernel has our kvm and $vendor until $undo"
