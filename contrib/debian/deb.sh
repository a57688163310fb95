#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# make deb: kvmclock-dkms_VERSION_all.deb in O=/deb. It holds what make modules takes of
# this repository, and what Debian's dkms needs to call it. The version is the last
# commit's time and hash; the same commit gives the same package, to the byte.
set -eu
# shellcheck source=../../tools/testing/kvmclock/settings.sh
. "$(dirname "$0")/../../tools/testing/kvmclock/settings.sh"
top=$(cd "$(dirname "$0")/../.." && pwd)
here=$top/contrib/debian
# shellcheck disable=SC2034 # the settings go by it
lab=$top/tools/testing/kvmclock

# In the time of the commit, so that a later one is a later version.
find_version()
{
	if ! git -C "$top" rev-parse -q --verify HEAD >/dev/null 2>&1; then
		epoch=$(find "$top/arch" "$top/include" "$top/integration" "$here" -type f -printf '%T@\n' |
			sort -n | tail -n 1 | cut -d. -f1)
		version=0~$(date -u -d "@$epoch" +%Y%m%d.%H%M%S).local
		who="Nobody yet <nobody@localhost>"
		return
	fi
	epoch=$(git -C "$top" log -1 --format=%ct)
	version=0~git$(date -u -d "@$epoch" +%Y%m%d.%H%M%S).$(git -C "$top" rev-parse --short=7 HEAD)
	who=$(git -C "$top" log -1 --format='%cn <%ce>')
	if [ -n "$(git -C "$top" status --porcelain)" ]; then
		version=$version.changed
		say "deb: with changes that are not committed"
	fi
}

# fill FILE: with the version and who made it in their places
fill()
{
	sed -e "s/#VERSION#/$version/g" -e "s/#WHO#/$who/g" "$here/$1"
}

# program FILE PLACE: one that is started, below the package's root
program()
{
	mkdir -p "$root/${2%/*}"
	fill "$1" >"$root/$2"
	chmod 755 "$root/$2"
}

# What is below /usr/src, from where dkms takes it
stage_source()
{
	mkdir -p "$source/tools/testing/kvmclock"
	(cd "$top" && tar --exclude='*~' --exclude='.*' -cf - arch include integration Kconfig) |
		tar -C "$source" -xf -
	for file in archive.sh build.sh deps.sh load.sh modules.kbuild qemu.sh settings.sh; do
		cp "$lab/$file" "$source/tools/testing/kvmclock/"
	done
	fill dkms.conf >"$source/dkms.conf"
	program build "${source#"$root/"}/build"
}

stage()
{
	rm -rf "$O/deb"
	mkdir -p "$work/debian/source"
	stage_source
	program modules usr/libexec/kvmclock-dkms/modules
	program kvmclock-load usr/sbin/kvmclock-load
	program kernel-hook etc/kernel/postinst.d/kvmclock-dkms
	program kernel-hook etc/kernel/header_postinst.d/kvmclock-dkms

	# Of modules without a version dkms 3.0 believes that the kernel has them already.
	mkdir -p "$root/usr/share/dkms/modules_to_force_install"
	echo kvmclock_version-override >"$root/usr/share/dkms/modules_to_force_install/kvmclock-dkms"

	for file in control copyright postinst prerm postrm triggers; do
		fill "$file" >"$work/debian/$file"
	done
	cp "$here/rules" "$work/debian/"
	cp "$here/kvmclock-load.8" "$work/"
	echo kvmclock-load.8 >"$work/debian/manpages"
	echo "root/* /" >"$work/debian/install"
	echo "3.0 (native)" >"$work/debian/source/format"
	cat >"$work/debian/changelog" <<-END
		kvmclock ($version) unstable; urgency=medium

		  * As the repository is at this commit.

		 -- $who  $(date -u -R -d "@$epoch")
	END
}

build()
{
	cd "$work" &&
		SOURCE_DATE_EPOCH=$epoch dpkg-buildpackage -b -us -uc --no-sign -tc
}

check_settings
open_output
"$lab/deps.sh" deb || exit
find_version
work=$O/deb/kvmclock
root=$work/root
source=$root/usr/src/kvmclock-$version
log=$O/log/deb
mkdir -p "$O/log"
stage
build >"$log" 2>&1 ||
	die $EXIT_BUILD "the package did not build: $(grep -i -m 1 error "$log"); the whole log is $log"
rm -rf "$work"
say "deb:     $O/deb/kvmclock-dkms_${version}_all.deb; install with: apt-get install $O/deb/kvmclock-dkms_${version}_all.deb"
