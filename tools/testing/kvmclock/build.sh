#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# build.sh tree|kernel|modules|tests|host: builds up to and including that step;
# the last one is all that the emulated machine boots. A step that is up to date
# costs no more than a look.
set -eu
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

trap 'exit 130' INT
trap 'exit 143' HUP TERM

# logged NAME COMMAND...: runs it with its output in a log, and every ten
# seconds a sign of life; on failure shows the errors.
logged()
{
	what=$1
	log=$O/log/$what
	shift
	mkdir -p "$O/log"
	if [ "$V" = 1 ]; then
		"$@" || die $EXIT_BUILD "$what did not build, see above"
		return
	fi
	# Ends with the step or with this script; a signal could be lost to a shell
	# that has only just been forked.
	: >"$log.running"
	(
		exec 9>&-
		begin=$(date +%s)
		next=10
		while sleep 1 && [ -e "$log.running" ] && kill -0 $$ 2>/dev/null; do
			spent=$(($(date +%s) - begin))
			[ $spent -ge $next ] || continue
			next=$((next + 10))
			say "$what: $spent s, step $(wc -l <"$log"):$(tail -n 1 "$log" | tr -s ' ' | cut -c 1-60)"
		done
	) &
	status=0
	"$@" >"$log" 2>&1 || status=$?
	rm -f "$log.running"
	[ $status -eq 0 ] && return
	grep -E '(error: |Error |ERROR|undefined reference|\*\*\*)' "$log" | head -n 20 >&2
	die $EXIT_BUILD "$what did not build; the whole log is $log"
}

kmake()
{
	make -C "$tree" -j"$JOBS" V="$V" "$@"
}

selected()
{
	awk -v tests="$TESTS" -v machine="$MACHINE" -v built="$HOST-$BASE" -v config="$CONFIG" '
		BEGIN { n = split(tests, t); for (i = 1; i <= n; i++) want[t[i]] }
		/^#/ || NF == 0 { next }
		{ kinds = split($2, kind, "/"); $2 = kind[machine == "intel" ? kinds : 1] }
		n { if ($1 in want) print; next }
		$2 == "built" { if (built == "built-patched") print; next }
		$2 ~ /^(required|optional)$/ || $2 == config' "$lab/plan"
}

# The selftests that the selected tests start, as paths below kvm/.
selftests()
{
	selected | sed -n 's,^[^ ]* *[^ ]* *[^ ]* *kvm/\([^ ]*\).*,\1,p' | sort -u
}

# Our selftests on an unpatched kernel: the tree is the base, plus these files.
stock_tree()
{
	identity=$(ls -dlL --time-style=+%s "$KERNEL_SRC")
	if [ "$(cat "$tree/.kvmclock-base" 2>/dev/null)" != "$identity" ]; then
		need_space 2000 "a kernel tree"
		say "tree: unpacking $KERNEL_SRC"
		rm -rf "$tree" "$tree.part"
		mkdir "$tree.part"
		if [ -d "$KERNEL_SRC" ]; then
			cp -a "$KERNEL_SRC/." "$tree.part/"
		else
			tar -C "$tree.part" --strip-components=1 -xf "$KERNEL_SRC"
		fi || die $EXIT_BUILD "$KERNEL_SRC could not be unpacked"
		version=$(sed -n 's/^\(VERSION\|PATCHLEVEL\) = //p' "$tree.part/Makefile" | paste -sd.)
		[ "$version" = 6.12 ] ||
			die $EXIT_BASE "$KERNEL_SRC is Linux $version; the tests are for 6.12"
		echo "$identity" >"$tree.part/.kvmclock-base"
		mv "$tree.part" "$tree"
	fi
	rsync -a "$top/tools/testing/selftests/kvm/" \
		"$tree/tools/testing/selftests/kvm/"
	rsync -a "$top/samples/kvm/" "$tree/samples/kvm/"
}

integrated=
build_tree()
{
	[ -z "$integrated$KVMCLOCK_TREE" ] || return 0
	integrated=yes
	[ -e "$KERNEL_SRC" ] ||
		die $EXIT_USAGE "KERNEL_SRC=$KERNEL_SRC: no such file or folder"
	if [ "$BASE" = stock ]; then
		stock_tree
		return
	fi
	[ -d "$tree" ] || need_space 2000 "a kernel tree"
	status=0
	"$top/integration/apply.sh" "$KERNEL_SRC" "$tree" || status=$?
	case $status in
	0) ;;
	[234]) exit $status ;; # its codes are ours
	*) die $EXIT_BUILD "the integration into $KERNEL_SRC failed, see above" ;;
	esac
}

lab_config()
{
	set -- "$lab/configs/base.config"
	[ ! -e "$tree/arch/x86/kvm/tests" ] || set -- "$@" "$lab/configs/patched.config"
	[ "$CONFIG" = base ] || set -- "$@" "$lab/configs/$CONFIG.config"
	[ ! -e "$lab/configs/$CONFIG-$BASE.config" ] ||
		set -- "$@" "$lab/configs/$CONFIG-$BASE.config"
	# A new .config would make the kernel look at everything anew.
	cat "$@" | cmp -s - "$kernel/.fragments" && return

	rm -f "$kernel/.fragments"
	kmake O="$kernel" tinyconfig || return
	(cd "$tree" && scripts/kconfig/merge_config.sh -m -O "$kernel" "$kernel/.config" "$@") || return
	kmake O="$kernel" olddefconfig || return
	lost=$(cat "$@" | awk -F= -v config="$kernel/.config" '
		BEGIN {
			while ((getline line < config) > 0)
				if (split(line, part, "=") == 2)
					has[part[1]] = part[2]
		}
		/^CONFIG_/ { want[$1] = $2 }
		END {
			for (name in want)
				if ((want[name] == "n" ? "" : want[name]) != has[name])
					printf "%s=%s ", name, want[name]
		}')
	[ -z "$lost" ] || {
		echo "error: the kernel's configuration did not take: $lost"
		return 1
	}
	cat "$@" >"$kernel/.fragments"
}

own_config()
{
	cmp -s "$KCONFIG" "$kernel/.fragments" && return
	cp "$KCONFIG" "$kernel/.config" || return
	kmake O="$kernel" olddefconfig || return
	cp "$KCONFIG" "$kernel/.fragments"
}

build_kernel()
{
	build_tree
	mkdir -p "$kernel"
	if [ -n "$KCONFIG" ]; then
		[ -e "$kernel/vmlinux" ] || need_space 8000 "a kernel of your own configuration"
		logged config own_config
		logged kernel kmake O="$kernel" bzImage modules
		return
	fi
	[ -e "$kernel/vmlinux" ] || need_space 800 "the laboratory's kernel"
	logged config lab_config
	[ -e "$kernel/vmlinux" ] || say "kernel: building all of it, some minutes"
	# shellcheck disable=SC2086 # variables of make, one a word
	logged kernel kmake O="$kernel" $instrument bzImage
}

show_kernel()
{
	say "kernel:  $kernel/arch/x86/boot/bzImage ($(cat "$kernel/include/config/kernel.release"))"
	say "config:  $kernel/.config"
	if [ -n "$KCONFIG" ]; then
		say "modules: $kernel, listed in modules.order; install with: make -C $kernel modules_install install"
	else
		say "modules: none, everything is built in"
	fi
}

tree_version()
{
	sed -n 's/^\(VERSION\|PATCHLEVEL\|SUBLEVEL\) = //p' "$tree/Makefile" | paste -sd.
}

# The kernel to build modules for: the running one if it is of the same version
# and they are not for the host under test, else the distribution's.
find_headers()
{
	version=$(tree_version)
	running=/lib/modules/$(uname -r)/build
	if [ -z "$KHEADERS" ] && [ -z "$for_host" ]; then
		case $(cat "$running/include/config/kernel.release" 2>/dev/null) in
		"$version" | "$version"[!0-9]*) KHEADERS=$running ;;
		esac
	fi
	if [ -z "$KHEADERS" ]; then
		"$lab/distro.sh" headers "$version" || exit
		KHEADERS=$O/distro/headers-$version/build
	fi
	release=$(cat "$KHEADERS/include/config/kernel.release" 2>/dev/null) ||
		die $EXIT_USAGE "KHEADERS=$KHEADERS: no kernel was built there, include/config/kernel.release is missing"
	case $release in
	"$version" | "$version"[!0-9]*) ;;
	*) die $EXIT_USAGE "KHEADERS=$KHEADERS is Linux $release, the source is $version: give KERNEL_SRC= of that version" ;;
	esac
	[ -e "$KHEADERS/Module.symvers" ] ||
		die $EXIT_USAGE "KHEADERS=$KHEADERS: Module.symvers is missing; its kernel must be built completely"
}

# An external module has its sources beside its objects. Only what differs is
# copied, with a fresh time, so that a build stays incremental.
copy_kvm()
{
	mkdir -p "$kvm/virt" "$kvm/arch/x86/include/uapi" "$kvm/include/uapi"
	for dir in arch/x86/kvm virt/kvm; do
		rsync -rc --delete --exclude='.*' --exclude='*.mod.c' \
			--exclude=kvm-asm-offsets.h --exclude=Kbuild \
			--include='*/' --include='*.[chS]' --include='Makefile*' \
			--exclude='*' "$tree/$dir/" "$kvm/$dir/" || return
	done
	rsync -c "$lab/modules.kbuild" "$kvm/arch/x86/kvm/Kbuild" || return
	# Of the tree's other headers, those that the integration changes.
	{
		cut -d' ' -f2 "$tree/.kvmclock/overlay"
		(cd "$tree/.kvmclock/pristine" && find . -type f)
	} | sed -n -e 's,^\./,,' -e '/^arch\/x86\/include\//p' -e '/^include\//p' |
		rsync -rc --ignore-missing-args --files-from=- "$tree/" "$kvm/"
}

build_modules()
{
	[ "$BASE" = patched ] || die $EXIT_USAGE "BASE=$BASE: modules are built of the patched base only"
	build_tree
	find_headers
	kvm=$O/kvm-$release
	modules=$O/modules/$release
	logged modules-source copy_kvm
	if [ -n "$MUTANT" ]; then
		modules=$O/modules/mutant
		mutate "$kvm"
	fi
	logged modules make -C "$KHEADERS" M="$kvm/arch/x86/kvm" -j"$JOBS" V="$V" \
		W=1 KCFLAGS="-Werror ${KCFLAGS-}" modules
	mkdir -p "$modules"
	for name in kvm kvm-amd kvm-intel; do
		# Without what is for debuggers only, as the distribution's are.
		strip -g -o "$modules/$name.ko" "$kvm/arch/x86/kvm/$name.ko"
	done
}

show_modules()
{
	[ -e "$KHEADERS/vmlinux" ] ||
		say "btf:     none in these modules, as $KHEADERS/vmlinux is missing"
	say "kernel:  $release"
	say "modules: $modules"
}

build_headers()
{
	if [ ! -e "$tests/.headers" ] || [ -n "$(find "$tree/include/uapi" \
	     "$tree/arch/x86/include/uapi" -newer "$tests/.headers" -print -quit)" ]; then
		logged headers kmake O="$tests/headers" headers
		touch "$tests/.headers"
	fi
}

build_selftests()
{
	sources=$tree/tools/testing/selftests/kvm
	for name in $(selftests); do
		[ -e "$sources/$name.c" ] ||
			die $EXIT_BUILD "the plan names kvm/$name, but $sources/$name.c is not there"
	done
	build_headers
	# The list on the command line replaces that of the Makefile: only what
	# the plan starts is built, and the base needs no change to build ours.
	logged selftests make -C "$sources" -j"$JOBS" OUTPUT="$tests/kvm" \
		INSTALL_HDR_PATH="$tests/headers/usr" \
		LDFLAGS="-static -pthread -no-pie -s" \
		TEST_GEN_PROGS_x86_64="$(selftests | paste -sd' ')" \
		TEST_GEN_PROGS_EXTENDED_x86_64= TEST_PROGS_x86_64=
}

# program NAME: a static program of the laboratory
program()
{
	if [ -z "$(find "$tests/$1" -newer "$lab/$1.c" 2>/dev/null)" ]; then
		logged "$1" gcc -O2 -Wall -Wextra -Werror -static -pthread \
			-o "$tests/$1" "$lab/$1.c"
	fi
}

# The sample, as make in a kernel's samples/ builds it, but static.
sample()
{
	if [ -z "$(find "$tests/kvm-time" -newer "$tree/samples/kvm/kvm-time.h" \
	     -newer "$tree/samples/kvm/kvm-time.c" 2>/dev/null)" ]; then
		logged kvm-time gcc -O2 -Wall -Wextra -Werror -static \
			-I "$tests/headers/usr/include" \
			-o "$tests/kvm-time" "$tree/samples/kvm/kvm-time.c"
	fi
}

build_tests()
{
	build_tree
	mkdir -p "$tests"
	[ -z "$(selftests)" ] || build_selftests
	program init
	[ "$HOST" = built ] || program load
	if selected | grep -q /bin/kvm-time; then
		build_headers
		sample
	fi
	selected | grep -q /bin/linux- && program guest
	if [ ! -e "$tests/gen_init_cpio" ]; then
		logged gen_init_cpio gcc -O2 -o "$tests/gen_init_cpio" "$tree/usr/gen_init_cpio.c"
	fi
}

# What the emulated machine boots: the kernel in $image, its $release, and where
# its modules come from.
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
	distro=$O/distro/image-$version
	image=$(echo "$distro"/boot/vmlinuz-*)
	release=${image##*/vmlinuz-}
	[ "$BASE" = stock ] || build_modules
	logged depmod stage_modules
	logged modules-host pick_modules host virtio_pci virtio_console kvm_amd
	logged modules-guest pick_modules guest msr
}

# The distribution's modules, ours before them, and the index over both.
stage_modules()
{
	stage=$O/distro/stage$suffix
	folder=$stage/lib/modules/$release
	rm -rf "$stage"
	mkdir -p "$folder/updates"
	ln -s "$distro/lib/modules/$release"/* "$folder/"
	[ "$BASE" = stock ] || cp "$modules"/*.ko "$folder/updates/"
	PATH=$PATH:/usr/sbin:/sbin depmod -b "$stage" "$release"
}

# pick_modules FOLDER MODULE...: into $stage/FOLDER, those and what they need,
# and a list of them in the order to load.
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

# init_files PROGRAM FOLDER: the first program of an archive, and the modules
# without which it could not do its work.
init_files()
{
	if [ "$HOST" = built ]; then
		echo "/init $tests/$1 0755"
		return
	fi
	echo "/init $tests/load 0755"
	echo "/init.next $tests/$1 0755"
	echo "/modules $stage/$2/modules 0644"
	while read -r path; do
		echo "$path $stage/$2/${path##*/} 0644"
	done <"$stage/$2/modules"
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

# A program of this machine, with the libraries that it may need.
local_program()
{
	program=$(command -v "$1")
	echo "/bin/$1 $program 0755"
	ldd "$program" 2>/dev/null | sed -n 's,^[^/]*\(/[^ ]*\) (.*,\1 \1 0755,p'
}

host_files()
{
	init_files init host
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
	selected | grep -q /bin/linux- || return 0
	echo "/bin/linux-guest $lab/linux-guest.sh 0755"
	echo "/bin/linux-migration $lab/linux-migration.sh 0755"
	echo "/boot/bzImage $image 0644"
	echo "/boot/guest.cpio $O/guest.cpio 0644"
	local_program qemu-system-x86_64
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
	if selected | grep -q /bin/linux-; then
		init_files guest guest | archive "$O/guest.cpio"
	fi
	host_files | archive "$O/initramfs.cpio"
	cat >"$O/host" <<-END
		image=$image
		release=$release
	END
}

check_settings
[ -z "$MUTANT" ] || [ "$HOST$BASE" = distropatched ] ||
	die $EXIT_USAGE "MUTANT=$MUTANT: mutants are built as modules; give HOST=distro"
open_output
KERNEL_SRC=$(readlink -m "$KERNEL_SRC")
suffix=
[ "$BASE" = patched ] || suffix=-$BASE
tree=${KVMCLOCK_TREE:-$O/linux$suffix}
tests=$O/tests$suffix
kernel=$O/kernel$suffix
[ "$CONFIG" = base ] || kernel=$kernel-$CONFIG
[ -z "$KCONFIG" ] || kernel=$O/kernel-own$suffix

# What is not ours is not for us to judge: only the clock's objects are watched.
instrument=
if [ "$CONFIG" = kcsan ]; then
	instrument=KCSAN_SANITIZE=n
	for name in core host tsc; do
		instrument="$instrument KCSAN_SANITIZE_kvmclock_$name.o=y"
	done
fi

for_host=
[ "${1-}" != host ] || for_host=yes
case ${1-}$HOST in
modules* | *distro) "$lab/deps.sh" modules || exit ;;
*) "$lab/deps.sh" || exit ;;
esac
trap 'rm -f "$O/log"/*.running' EXIT
case ${1-} in
tree) build_tree ;;
kernel) build_kernel; show_kernel ;;
modules) build_modules; show_modules ;;
tests) build_tests ;;
host) build_host ;;
*) die $EXIT_USAGE "usage: build.sh tree|kernel|modules|tests|host" ;;
esac
