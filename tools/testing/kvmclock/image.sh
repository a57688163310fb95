# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2154
#
# Read by build.sh: what the emulated machine boots, put together of what is built
# there and of programs of this machine.

# The kernel in $image, its $release, and where its modules come from.
build_host_kernel()
{
	if [ "$HOST" = built ]; then
		build_kernel
		image=$kernel/arch/x86/boot/bzImage
		release=$(cat "$kernel/include/config/kernel.release")
		return
	fi
	build_tree
	version=$(tree_version)
	"$lab/distro.sh" image "$version" || exit
	distro=$O/distro/image-$version-$FLAVOUR
	image=$(echo "$distro"/boot/vmlinuz-*)
	release=${image##*/vmlinuz-}
	[ "$BASE" = stock ] || build_modules
	logged depmod stage_modules
	logged modules-machine pick_modules machine kvm_amd msr
	logged modules-guest pick_modules guest msr
}

# The distribution's modules, ours before them, and the index over both.
stage_modules()
{
	stage=$O/distro/stage$suffix
	folder=$stage/lib/modules/$release
	rm -rf "$stage"
	mkdir -p "$folder/updates"
	ln -s "$distro/lib/modules/$release"/modules.* "$folder/"
	# Where what the machine needs can be: depmod would read thousands of others.
	for part in arch/x86 crypto lib virt drivers/acpi drivers/char drivers/crypto drivers/dma \
		    drivers/firmware drivers/pci drivers/virt; do
		[ -d "$distro/lib/modules/$release/kernel/$part" ] || continue
		mkdir -p "$folder/kernel/${part%/*}"
		ln -s "$distro/lib/modules/$release/kernel/$part" "$folder/kernel/$part"
	done
	[ "$BASE" = stock ] || cp "$modules"/*.ko "$folder/updates/"
	PATH=$PATH:/usr/sbin:/sbin depmod -b "$stage" "$release"
}

# pick_modules ROOM MODULE...: into $stage/ROOM, those and what they need, and a
# list of them in the order to load.
pick_modules()
{
	to=$stage/$1
	shift
	mkdir "$to"
	for module; do
		PATH=$PATH:/usr/sbin:/sbin modprobe -C /dev/null -d "$stage" -S "$release" \
			--show-depends "$module" || return
	done >"$to/needed"
	awk '$1 == "insmod" && !seen[$2]++ { print $2 }' "$to/needed" >"$to/paths"
	while read -r path; do
		name=${path##*/}
		case $name in
		*.xz) xz -dc "$path" >"$to/${name%.xz}" || return ;;
		*) cp "$path" "$to/" || return ;;
		esac
		echo "/lib/${name%.xz}"
	done <"$to/paths" >"$to/modules"
}

# init_files ROOM: the first program of an archive, and the modules without which
# it could not do its work.
init_files()
{
	if [ "$HOST" = built ]; then
		echo "/init $tests/$1-init 0755"
		return
	fi
	echo "/init $tests/machine-load 0755"
	echo "/init.next $tests/$1-init 0755"
	echo "/modules $stage/$1/modules 0644"
	while read -r path; do
		echo "$path $stage/$1/${path##*/} 0644"
	done <"$stage/$1/modules"
}

# archive FILE: an initramfs from lines "path", a folder; "path target", a link;
# "path source mode", a file. No root needed.
archive()
{
	awk '
		NF == 1 { dir[$1]; next }
		NF == 2 { slink[$1] = $2; next }
		{
			file[$1] = $2; mode[$1] = $3
			path = $1
			while (sub("/[^/]+$", "", path) && path)
				dir[path]
		}
		END {
			n = 0
			for (path in dir) {
				depth = gsub("/", "/", path)
				level[depth] = level[depth] "dir " path " 0755 0 0\n"
				n = depth > n ? depth : n
			}
			print "dir /dev 0755 0 0\nnod /dev/console 0600 0 0 c 5 1"
			for (i = 1; i <= n; i++)
				printf "%s", level[i]
			for (path in file)
				print "file", path, file[path], mode[path], "0 0"
			for (path in slink)
				print "slink", path, slink[path], "0777 0 0"
		}' >"$1.list"
	# The same files give the same archive: to read another date takes another time.
	"$tests/gen_init_cpio" -t 0 "$1.list" >"$1.part"
	mv "$1.part" "$1"
}

# A program of this machine, or another one by its name, with the libraries that it may
# need.
local_program()
{
	program=${2:-$(command -v "$1")}
	echo "/bin/$1 $program 0755"
	ldd "$program" 2>/dev/null | sed -n 's,^[^/]*\(/[^ ]*\) (.*,\1 \1 0755,p'
}

host_files()
{
	init_files machine
	echo "/plan $O/plan 0644"
	echo /tests
	local_program busybox
	busybox --list | grep -v '^busybox$' | sed 's,.*,/bin/& busybox,'
	for name in $(selftests); do
		echo "/tests/kvm/$name $tests/kvm/$name 0755"
	done
	if selected | grep -q /bin/kvm-time; then
		echo "/bin/kvm-time $tests/kvm-time 0755"
	fi
	[ "$HOST" = built ] || echo "/bin/module-reload $lab/machine/module-reload.sh 0755"
	if selected | grep -q /bin/kvm-clock-check; then
		echo "/bin/kvm-clock-check $O/kvm-clock-check 0755"
	fi
	selected | grep -q /bin/linux- || return 0
	echo "/bin/linux-guest $lab/machine/linux-guest.sh 0755"
	echo "/bin/linux-migration $lab/machine/linux-migration.sh 0755"
	echo "/boot/bzImage $image 0644"
	echo "/boot/guest.cpio $O/guest.cpio 0644"
	echo "/boot/qemu $O/qemu-kind 0644"
	echo "/bin/now $tests/machine-now 0755"
	if [ "$QEMU" = patched ]; then
		local_program qemu-system-x86_64 "$qemu/qemu-system-x86_64"
		local_program qemu-stock "$(command -v qemu-system-x86_64)"
	else
		local_program qemu-system-x86_64
	fi
	for file in seabios/bios-256k.bin qemu/linuxboot_dma.bin qemu/kvmvapic.bin; do
		echo "/usr/share/$file /usr/share/$file 0644"
	done
}

build_host()
{
	build_host_kernel
	build_tests
	selected | sed "${CASE:+/kvmclock_/s/\$/ -t $CASE/}" >"$O/plan"
	touch -d @0 "$O/plan"
	[ "$QEMU" = stock ] || build_qemu
	if selected | grep -q /bin/linux-; then
		echo "$QEMU" >"$O/qemu-kind"
		touch -d @0 "$O/qemu-kind"
		init_files guest | archive "$O/guest.cpio"
	fi
	host_files | archive "$O/initramfs.cpio"
	cat >"$O/host" <<-END
		image=$image
		release=$release
		base='$KERNEL_SRC'
		hash=$(cat "$tree/.kvmclock/hash" 2>/dev/null)
	END
}
