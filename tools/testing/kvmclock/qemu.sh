# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154
#
# Read by build.sh: the QEMU of QEMU=patched. It is the distribution's source of the
# QEMU that is installed, whose firmware it uses, with the patches of contrib/qemu/,
# and without what no test asks for.

find_qemu()
{
	qemu_series=$(qemu-system-x86_64 --version |
		sed -n 's/^QEMU emulator version \([0-9]*\.[0-9]*\).*/\1/p')
	qemu=$O/qemu-$qemu_series
	qemu_patches=$top/contrib/qemu/$qemu_series
	[ -d "$qemu_patches" ] ||
		die "$EXIT_TOOL" "QEMU=patched: this machine has QEMU $qemu_series, and there are patches for $(
			cd "$top/contrib/qemu" && find . -mindepth 1 -type d | sed 's,^\./,,' | sort -V | paste -sd' ')"
}

fetch_qemu()
{
	use_suite "qemu-$qemu_series" "qemu's source"
	# A suite may list another series as well. The epoch, and what Debian takes out, go
	# into a version: 1:7.2+dfsg-7.
	# shellcheck disable=SC2086 # options
	version=$(apt-cache $apt showsrc qemu 2>/dev/null | sed -n 's/^Version: //p' |
		grep -E "^([0-9]+:)?$qemu_series[^0-9]" | sort -V | tail -n 1)
	[ -n "$version" ] ||
		die "$EXIT_TOOL" "$suite of $archive has no source of QEMU $qemu_series: take QEMU=stock"
	say "qemu: fetching the source of QEMU $qemu_series"
	rm -rf "$qemu"
	mkdir -p "$qemu/package"
	# shellcheck disable=SC2086 # options
	(cd "$qemu/package" && apt-get -q $apt source --download-only "qemu=$version" >log 2>&1) || {
		cat "$qemu/package/log" >&2
		die "$EXIT_TOOL" "apt-get could not download the source of qemu, see above"
	}
	logged qemu-source dpkg-source --no-check --no-copy -x "$qemu/package"/*.dsc "$qemu/source.part"
	mv "$qemu/source.part" "$qemu/source"
}

patch_with()
{
	file=$1
	shift
	set -- -d "$qemu/source" -p1 -F0 -s --no-backup-if-mismatch -r - "$@"
	# Not in half
	patch --dry-run "$@" <"$file" && patch "$@" <"$file"
}

# A patch is its difference, whatever its text says.
difference()
{
	sed -n '/^diff --git /,$p' "$1"
}

differences()
{
	for new in "$qemu_patches"/*.patch; do
		difference "$new"
	done
}

# Takes back those that are in the source, from the first one on that should not be, and
# applies the others. Only what they touch gets a fresh time, so that a build stays
# incremental.
patch_qemu()
{
	mkdir -p "$qemu/applied" && ls "$qemu/applied" >"$qemu/old" || return
	kept=0
	for new in "$qemu_patches"/*.patch; do
		old=$(sed -n $((kept + 1))p "$qemu/old")
		[ "$old" = "${new##*/}" ] || break
		difference "$new" | cmp -s - "$qemu/applied/$old" || break
		kept=$((kept + 1))
	done
	tail -n +$((kept + 1)) "$qemu/old" | sort -r >"$qemu/back"
	while read -r old; do
		patch_with "$qemu/applied/$old" -R && rm "$qemu/applied/$old" || return
	done <"$qemu/back"
	for new in "$qemu_patches"/*.patch; do
		[ ! -e "$qemu/applied/${new##*/}" ] || continue
		echo "${new##*/}"
		patch_with "$new" && difference "$new" >"$qemu/applied/${new##*/}" || return
	done
}

configure_qemu()
{
	rm -rf "$qemu/build" &&
	mkdir "$qemu/build" &&
	(cd "$qemu/build" && ../source/configure --target-list=x86_64-softmmu \
		--without-default-features --enable-kvm --enable-tcg --enable-fdt=system \
		--disable-install-blobs)
}

prepare_qemu()
{
	find_qemu
	[ -d "$qemu/source" ] || {
		need_space 1500 "QEMU"
		fetch_qemu
	}
}

build_qemu()
{
	find_qemu
	identity=$(differences | cksum)
	[ "$(cat "$qemu/identity" 2>/dev/null)" != "$identity" ] || return 0
	prepare_qemu
	logged qemu-patches patch_qemu
	[ -e "$qemu/build/build.ninja" ] || logged qemu-configure configure_qemu
	[ -e "$qemu/qemu-system-x86_64" ] || say "qemu: building all of it, some minutes"
	logged qemu ninja -C "$qemu/build" -j"$JOBS" qemu-system-x86_64
	strip -o "$qemu/qemu-system-x86_64" "$qemu/build/qemu-system-x86_64"
	echo "$identity" >"$qemu/identity"
}
