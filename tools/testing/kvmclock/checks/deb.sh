#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make check-deb SUITE=: the package of make deb in a fresh Debian of that suite:
# installed, on one kernel that it fits and one that it does not, booted in the emulated
# machine, taken through a kernel update, and removed. The root folder is made below O=
# and gone at the end; the machine boots images of it. Prints KTAP.
#
# JOBS= is for the modules' build, too.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

again="make check-deb SUITE=$SUITE"
# shellcheck source=root.sh
. "$lab/checks/root.sh"

# step NAME COMMAND...: a result; its output is the log NAME
step()
{
	name=$1
	shift
	begin=$(date +%s)
	# in_root() has a status of its own.
	if "$@" >"$results/$name.log" 2>&1; then
		result=0
	else
		result=$?
	fi
	grep -e '^kvmclock: ' -e '^kvm: ' -e '^error: ' "$results/$name.log" | grep -v ': [0-9]* s: ' | sed 's/^/# /'
	root_result $result "$name" "$SUITE"
	return $result
}

apt()
{
	in_root DEBIAN_FRONTEND=noninteractive "JOBS=$JOBS" apt-get -q -y -o Dpkg::Use-Pty=0 \
		--no-install-recommends "$@"
}

make_deb()
{
	"$top/contrib/debian/deb.sh" || return
	deb=$(echo "$O"/deb/*.deb)
	[ -e "$deb" ]
}

look_at_it()
{
	lintian --fail-on error --tag-display-limit 0 "$deb"
}

make_root()
{
	debootstrap --variant=minbase \
		--include=systemd-sysv,udev,kmod,ca-certificates,initramfs-tools --keyring="$keys" \
		"$SUITE" "$root" "$debian" || return
	[ -z "$security" ] ||
		echo "deb $security $SUITE-security main" >>"$root/etc/apt/sources.list"
	[ "$SUITE" = bookworm ] ||
		echo "deb $debian $SUITE-backports main" >>"$root/etc/apt/sources.list"
	echo force-unsafe-io >"$root/etc/dpkg/dpkg.cfg.d/unsafe-io" || return
	"$lab/build.sh" clock-check && cp "$O/kvm-clock-check" "$root/usr/local/bin/" || return
	cp "$lab/machine/deb-check.sh" "$root/usr/local/sbin/deb-check" &&
		cp "$lab/machine/deb-check.service" "$root/etc/systemd/system/" || return
	mkdir -p "$root/etc/systemd/system/multi-user.target.wants" &&
		ln -s ../deb-check.service "$root/etc/systemd/system/multi-user.target.wants/" || return
	echo /dev/vda / ext4 defaults 0 1 >"$root/etc/fstab"
	apt update && find_kernels
}

# sources: versions of the package of the source, the newest first
sources()
{
	in_root apt-cache madison linux-source-6.12 | awk '{ print $3 }' | sort -rVu
}

# The two newest cloud kernels 6.12.y whose source is to be had, in new and old, with
# new_source and old_source
find_kernels()
{
	new=
	old=
	for source in $(sources); do
		kernel=$(in_root apt-cache search --names-only "^linux-headers-${source%%-*}[^0-9].*-cloud-amd64\$" |
			sed 's/^linux-headers-\([^ ]*\) .*/\1/' | sort -V | tail -n 1)
		in_root apt-cache show "linux-image-$kernel" >/dev/null || continue
		if [ -z "$new" ]; then
			new=$kernel
			new_source=$source
		elif [ "$kernel" != "$new" ]; then
			old=$kernel
			old_source=$source
			break
		fi
	done
	echo "$new of $new_source, $old of $old_source"
	[ -n "$old" ]
}

# What dkms and the package need is there before, so that what changes is theirs.
install_kernels()
{
	other=$other_package
	apt install "linux-image-$old" "linux-headers-$old" "linux-source-6.12=$old_source" \
		"linux-image-$other" "linux-headers-$other" \
		dkms coccinelle pahole patch rsync xz-utils openssl || return
	other=$(basename "$(ls -d "$root"/lib/modules/"$other_series"*)")
	state "$old" >"$results/old-before" && state "$other" >"$results/other-before"
}

# All that a kernel has of modules
state()
{
	(cd "$root/lib/modules/$1" && find . ! -type d ! -name build ! -name source -exec sha256sum {} + | sort -k 2)
}

# whose KERNEL: that modprobe would take, for all three modules
whose()
{
	for module in kvm kvm_amd kvm_intel; do
		case $(in_root modinfo -k "$1" -n $module) in
		*/updates/dkms/*) echo ours ;;
		*/kernel/arch/x86/kvm/*) echo theirs ;;
		*) echo none ;;
		esac
	done | sort -u | paste -sd' '
}

is()
{
	[ "$2" = "$3" ] || {
		echo "error: $1 is $2, not $3"
		return 1
	}
}

said()
{
	is "lines about $2" "$(grep -c "^kvmclock: $2 keeps the distribution's KVM: " "$results/$1.log")" 1
}

install_it()
{
	cp "$deb" "$root/root/kvmclock-dkms.deb" && apt install /root/kvmclock-dkms.deb || return
	is "$old" "$(whose "$old")" ours && is "$other" "$(whose "$other")" theirs
}

left_alone()
{
	said install "$other" && state "$other" | diff "$results/other-before" -
}

signed()
{
	signer=$(in_root modinfo -k "$old" -F signer kvm)
	echo "signed by: $signer"
	[ -n "$signer" ]
}

# The kernel's update brings its source along, as apt's usual ones do.
update()
{
	apt install "linux-image-$new" "linux-headers-$new" "linux-source-6.12=$new_source" || return
	is "$new" "$(whose "$new")" ours && is "$old" "$(whose "$old")" ours
}

# The source comes after the kernel that it is for.
source_later()
{
	if [ "$SUITE" != bookworm ]; then
		apt install "linux-source-7.3/$SUITE-backports" && is "$other" "$(whose "$other")" ours
		return
	fi
	in_root dkms remove kvmclock/"${version:?}" -k "$new" || return
	is "$new" "$(whose "$new")" theirs || return
	apt install --reinstall "linux-source-6.12=$new_source" || return
	is "$new" "$(whose "$new")" ours
}

remove()
{
	apt purge kvmclock-dkms || return
	for kernel in "$old" "$new" "$other"; do
		is "$kernel" "$(whose "$kernel")" theirs || return
	done
	state "$old" | diff "$results/old-before" - || return
	state "$other" | diff "$results/other-before" - || return
	left=$(find "$root/etc" "$root/usr" "$root/var/lib/dkms" "$root/lib/modules" \
		\( -name 'kvmclock-*' -o -name kvmclock \) ! -path '*/doc/*' | paste -sd' ')
	is "what is left" "$left" ""
}

# boot KERNEL WHOSE: that system on that kernel, one processor, as it would find KVM
# there. One, because of what QEMU 7.2 does to guests on more: see CONTRIBUTING.md.
boot()
{
	image=$O/deb-$SUITE.img
	rm -f "$image" "$root"/var/cache/apt/archives/*.deb
	truncate -s 8G "$image" && mkfs.ext4 -q -d "$root" "$image" || return
	rm -f "$results/said"
	timeout "${TIMEOUT:-1800}" qemu-system-x86_64 -nodefaults -no-reboot -display none -M q35 \
		-accel tcg -smp 1 -m 2G -cpu max,+svm,+npt,+invtsc,-cx16,-la57,x-force-features=on \
		-kernel "$root/boot/vmlinuz-$1" -initrd "$root/boot/initrd.img-$1" \
		-append "root=/dev/vda rw console=ttyS0 tsc=reliable panic=-1 expect=$2" \
		-drive "file=$image,if=virtio,format=raw,cache=unsafe" \
		-serial "file:$results/console-$1-$2" -serial "file:$results/said" 9>&-
	code=$?
	rm -f "$image"
	[ $code -eq 0 ] || return
	tr -d '\r' <"$results/said"
	grep -q '^deb-check: done' "$results/said" && ! grep -q '^not ok' "$results/said"
}

check_settings
one_of SUITE bookworm trixie
"$lab/deps.sh" check-deb || exit
need_root
open_output
need_space 12000 "a fresh system, and an image of it"
hold_root
case $SUITE in
bookworm) other_package=cloud-amd64 other_series=6.1. ;;
trixie) other_package=cloud-amd64/trixie-backports other_series=7.3. ;;
esac

ktap_plan 13
if ! step package make_deb || ! step lintian look_at_it || ! step root make_root ||
   ! step kernels install_kernels || ! step install install_it; then
	ktap_end "check-deb SUITE=$SUITE"
fi
version=${deb##*dkms_}
version=${version%_all.deb}
step left_alone left_alone
step signed signed
step boot boot "$old" ours
step update update
step boot_updated boot "$new" ours
step source_later source_later
step remove remove
step boot_removed boot "$new" theirs
say "# logs: $results"
ktap_end "check-deb SUITE=$SUITE"
