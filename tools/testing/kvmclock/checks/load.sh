#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# What make load and make unload decide, on machines that are made up: a folder
# with their /proc and /sys, and stand-ins for the programs that change modules.
# Prints KTAP.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

check_settings
scratch
machine=$work/machine
sys=$machine/sys

# stand_in TOOL: a program of this name, which knows $machine; its text is stdin
mkdir "$work/bin"
stand_in()
{
	{
		echo "#!/bin/sh"
		echo "machine=$machine"
		cat
	} >"$work/bin/$1"
	chmod +x "$work/bin/$1"
}

echo 'echo 6.12.117-made-up' | stand_in uname
echo 'echo 0' | stand_in id
stand_in insmod <<'END'
[ -e "$1" ] || { echo "insmod: $1: no such file" >&2; exit 1; }
name=$(basename "${1%.ko*}" | tr - _)
taint=OE
case $1 in */kernel/arch/x86/kvm/* | */original_module/*) taint= ;; esac
shift
[ "$taint$name" != "OE$(cat "$machine/insmod-fails" 2>/dev/null)" ] || { echo "insmod: staged" >&2; exit 1; }
mkdir -p "$machine/sys/module/$name/holders"
cd "$machine/sys/module/$name" && echo live >initstate && echo $taint >taint && echo 0 >refcnt
echo "$*" >options
END
stand_in modprobe <<'END'
[ "$1" != -c ] || { echo "options kvm_amd nested=0 avic=1"; echo "options kvm_amdgpu x=y"; exit; }
case $1 in kvm*) ;; *) exit 0 ;; esac
[ ! -e "$machine/modprobe-fails" ] || { echo "modprobe: staged" >&2; exit 1; }
for name in kvm "$1"; do
	[ ! -d "$machine/sys/module/$name" ] || continue
	mkdir -p "$machine/sys/module/$name/holders"
	cd "$machine/sys/module/$name" && echo live >initstate && echo >taint && echo 0 >refcnt
done
END
stand_in rmmod <<'END'
[ "$1" != "$(cat "$machine/rmmod-fails" 2>/dev/null)" ] || { echo "rmmod: staged" >&2; exit 1; }
rm -r "$machine/sys/module/$1"
# Somebody else who loads it at once has modprobe's: ours, where the package is.
[ "$1" = kvm ] && [ -e "$machine/somebody-loads" ] || exit 0
for name in kvm kvm_amd; do
	mkdir -p "$machine/sys/module/$name/holders"
	cd "$machine/sys/module/$name" && echo live >initstate && echo OE >taint && echo 0 >refcnt
done
END
stand_in modinfo <<'END'
case $2 in
depends) echo irqbypass; echo kvm; exit ;;
signer) cat "$machine/signer" 2>/dev/null; exit ;;
esac
cat "$3"
END
# A machine as the distribution leaves it.
new_machine()
{
	rm -rf "$machine"
	mkdir -p "$machine/proc/sys/kernel" "$machine/lib/modules/6.12.117-made-up/build/include" \
		"$sys/module/module/parameters" "$sys/kernel/security" \
		"$machine/o/modules/6.12.117-made-up"
	: >"$machine/o/.lock"	# as the laboratory leaves it
	echo 0 >"$machine/proc/sys/kernel/modules_disabled"
	echo N >"$sys/module/module/parameters/sig_enforce"
	echo "[none] integrity confidentiality" >"$sys/kernel/security/lockdown"
	echo "flags		: fpu svm nx" >"$machine/proc/cpuinfo"
	for name in kvm kvm-amd kvm-intel; do
		echo "6.12.117-made-up SMP mod_unload" >"$machine/o/modules/6.12.117-made-up/$name.ko"
	done
	"$work/bin/modprobe" kvm_amd
}

# Whose KVM the machine has.
whose()
{
	for name in kvm kvm_amd; do
		case $(cat "$sys/module/$name/taint" 2>/dev/null || echo none) in
		*O*) echo ours ;;
		none) echo none ;;
		*) echo theirs ;;
		esac
	done | sort -u | paste -sd' '
}

# expect CODE WHOSE MODE NAME WORDS...: how load.sh MODE ends on this machine,
# whose KVM it has then, and words of what is said
expect()
{
	want="$1 $2"
	mode=$3
	name=$4
	shift 4
	KVMCLOCK_MACHINE=$machine KVMCLOCK_MODULES=${package:-} PATH=$work/bin:$PATH O=$machine/o KHEADERS='' \
		KVMCLOCK_HOLDS='' "$lab/load.sh" "$mode" >"$work/log" 2>&1
	got="$? $(whose)"
	sed 's/^/# /' "$work/log"
	if [ "$got" = "$want" ] && grep -qF -e "$*" "$work/log"; then
		ktap_result 0 "$name"
	else
		ktap_result 1 "$name # '$got' instead of '$want', or not: $*"
	fi
}

ktap_plan 35
new_machine
expect 0 ours load fresh "has our kvm and kvm_amd"
echo "nested=0 avic=1" | cmp -s - "$sys/module/kvm_amd/options"
ktap_result $? options_of_modprobe_d
expect 0 ours load again "has our kvm and kvm_amd"
expect 0 theirs unload back "distribution's kvm_amd again"
expect 0 theirs unload nothing_to_unload "nothing to do"

new_machine
expect 0 ours load before_somebody "has our kvm and kvm_amd"
: >"$machine/somebody-loads"
expect 1 ours unload somebody_is_quicker "not the one that was asked for"

new_machine
rm -r "$sys/module/kvm" "$sys/module/kvm_amd"
expect 0 ours load without_kvm_before "has our kvm"

new_machine
echo 3 >"$sys/module/kvm_amd/refcnt"
mkdir -p "$machine/proc/4711/fd"
echo qemu >"$machine/proc/4711/comm"
ln -s anon_inode:kvm-vm "$machine/proc/4711/fd/9"
expect 2 theirs load vm_runs "in use by qemu (process 4711)"
rm -r "$machine/proc/4711"
expect 2 theirs load vm_of_another "only root can see"

new_machine
mkdir "$sys/module/kvm/holders/kvmgt"
expect 2 theirs load held_by_a_module "the module kvmgt uses kvm"

new_machine
rm "$sys/module/kvm/initstate"
expect 2 theirs load built_in "built into this kernel"

new_machine
echo 1 >"$machine/proc/sys/kernel/modules_disabled"
expect 2 theirs load modules_disabled "no module can be loaded"

new_machine
echo Y >"$sys/module/module/parameters/sig_enforce"
expect 2 theirs load signatures "only signed modules"

new_machine
echo "none [integrity] confidentiality" >"$sys/kernel/security/lockdown"
expect 2 theirs load lockdown "locked down"

new_machine
rm -r "$sys/module/kvm" "$sys/module/kvm_amd"
echo "flags		: fpu nx" >"$machine/proc/cpuinfo"
expect 2 none load no_virtualization "no virtualization"

new_machine
echo "6.12.118 SMP" >"$machine/o/modules/6.12.117-made-up/kvm-amd.ko"
expect 2 theirs load other_kernel "is for 6.12.118, this is 6.12.117-made-up"

new_machine
rm -r "$machine/lib/modules"
expect 2 theirs load no_headers "apt-get install linux-headers-6.12.117-made-up"

for module in kvm kvm_amd; do
	new_machine
	echo "$module" >"$machine/insmod-fails"
	expect 1 theirs load "${module}_refused" "KVM is as it was"
	new_machine
	echo "$module" >"$machine/rmmod-fails"
	expect 1 theirs load "${module}_stays" "KVM is as it was"
done

new_machine
expect 0 ours load before_unload "has our kvm"
: >"$machine/modprobe-fails"
expect 1 ours unload theirs_refused "KVM is as it was"
echo 1 >"$sys/module/kvm_amd/refcnt"
expect 2 ours unload vm_runs_on_ours "KVM is in use"

# As the package leaves it: modprobe takes ours, and nothing is to be built.
new_package()
{
	new_machine
	modules=$machine/lib/modules/6.12.117-made-up
	package=$modules/updates/dkms
	mkdir -p "$package" "$modules/kernel/arch/x86/kvm"
	for name in kvm kvm-amd; do
		cp "$machine/o/modules/6.12.117-made-up/$name.ko" "$package/$name.ko.xz"
		cp "$package/$name.ko.xz" "$modules/kernel/arch/x86/kvm/"
	done
	rm -r "$machine/o" "$modules/build"
	: >"$machine/modprobe-fails"	# which would not have the distribution's
}

new_package
expect 0 ours load package "has our kvm and kvm_amd until kvmclock-load unload"
expect 0 ours load package_again "until kvmclock-load unload"
expect 0 theirs unload package_back "distribution's kvm_amd again"
echo kvm_amd >"$machine/insmod-fails"
expect 1 theirs load package_refused "KVM is as it was"

new_package
rm "$package"/kvm-amd.ko.xz
expect 2 theirs load package_incomplete "has no kvm_amd"

new_package
echo Y >"$sys/module/module/parameters/sig_enforce"
expect 2 theirs load package_unsigned "only signed modules"
echo "none [integrity] confidentiality" >"$sys/kernel/security/lockdown"
echo "the machine's owner" >"$machine/signer"
expect 0 ours load package_signed "has our kvm"

# Debian 13's dkms puts the modules aside that ours stand for.
new_package
aside=$machine/var/lib/dkms/kvmclock/original_module/6.12.117-made-up
mkdir -p "$aside"
mv "$modules/kernel/arch/x86/kvm" "$aside/x86_64"
for name in kvm kvm-amd; do
	echo "$modules/kernel/arch/x86/kvm/$name.ko.xz" >"$aside/x86_64/$name.ko.xz.origin"
done
expect 0 ours load package_with_theirs_aside "has our kvm"
expect 0 theirs unload package_gives_them_back "distribution's kvm_amd again"
package=
new_machine
echo Y >"$sys/module/module/parameters/sig_enforce"
echo "the machine's owner" >"$machine/signer"
expect 2 theirs load signer_of_no_package "only signed modules"

ktap_end check-load
