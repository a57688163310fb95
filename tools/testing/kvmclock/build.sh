#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# build.sh tree|kernel|modules|tests|qemu|host: builds up to and including that step;
# the last one is all that the emulated machine boots. A step that is up to date
# costs no more than a look. build.sh clock-check: the check for any host.
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
	awk -v tests="$TESTS" -v machine="$MACHINE" -v built="$HOST-$BASE" -v config="$CONFIG" \
		-v kernel="$KERNEL" -v x86="$x86" -v qemu="$QEMU" -v upstream="$upstream" '
		BEGIN { n = split(tests, t); for (i = 1; i <= n; i++) want[t[i]] }
		/^#/ || NF == 0 { next }
		split($2, only, "@") == 2 && only[2] != kernel { next }
		{ $2 = only[1]; gsub(/kvm\/x86\//, "kvm/" x86 "/") }
		{ kinds = split($2, kind, "/"); $2 = kind[machine == "intel" ? kinds : 1] }
		$2 == "scaling" { $2 = qemu == "patched" ? "required" : "optional" }
		n { if ($1 in want) print; next }
		$2 == "built" { if (built == "built-patched") print; next }
		$2 == "distro" { if (built ~ /^distro-/) print; next }
		$2 == "upstream" { if (upstream) print; next }
		$2 ~ /^(required|optional)$/ || $2 == config' "$lab/machine/plan"
}

# The selftests that the selected tests start, as paths below kvm/.
selftests()
{
	selected | sed -n 's,^[^ ]* *[^ ]* *[^ ]* *kvm/\([^ ]*\).*,\1,p' | sort -u
}


# BASE=stock: the tree is the base, our selftests and our samples.
integrated=
build_tree()
{
	[ -z "$integrated$KVMCLOCK_TREE" ] || return 0
	integrated=yes
	fetch_base
	only=
	[ "$BASE" = patched ] || only=--tests
	status=0
	"$top/integration/apply.sh" $only "$KERNEL_SRC" "$tree" || status=$?
	case $status in
	0) ;;
	[234]) exit $status ;; # its codes are ours
	*) die $EXIT_BUILD "the integration into $KERNEL_SRC failed, see above" ;;
	esac
}

lab_config()
{
	set -- "$lab/configs/base.config" "$lab/configs/$KERNEL.config"
	[ ! -e "$tree/arch/x86/kvm/tests" ] || set -- "$@" "$lab/configs/patched.config"
	[ "$CONFIG" = base ] || set -- "$@" "$lab/configs/$CONFIG.config"
	[ ! -e "$lab/configs/$CONFIG-$BASE.config" ] ||
		set -- "$@" "$lab/configs/$CONFIG-$BASE.config"
	# A new .config would make the kernel look at everything anew.
	cat "$@" | cmp -s - "$kernel/.fragments" && return

	rm -f "$kernel/.fragments"
	configure "$tree" "$kernel" "$@" || return
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
		KHEADERS=$O/distro/headers-$version-$FLAVOUR/build
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
	# the plan starts is built, and the base needs no change to build ours. That of
	# 7.3 has them built for x86-64-v2, of which MACHINE=amd lacks CMPXCHG16B.
	logged selftests make -C "$sources" -j"$JOBS" OUTPUT="$tests/kvm" \
		INSTALL_HDR_PATH="$tests/headers/usr" \
		LDFLAGS="-static -pthread -no-pie -s" \
		EXTRA_CFLAGS=-mno-cx16 TEST_GEN_PROGS_$x86="$(selftests | paste -sd' ')" \
		TEST_GEN_PROGS_EXTENDED_$x86= TEST_PROGS_$x86=
}

# program ROOM/NAME: a static program of the laboratory, for that room
program()
{
	name=${1%/*}-${1#*/}
	if [ -z "$(find "$tests/$name" -newer "$lab/$1.c" -newer "$lab/sample.h" 2>/dev/null)" ]; then
		logged "$name" gcc -O2 -Wall -Wextra -Werror -static -pthread \
			-o "$tests/$name" "$lab/$1.c"
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

# Has no use for a kernel's tree.
build_clock_check()
{
	logged clock-check make -C "$top/tools/kvm/clock_check" OUTPUT="$O/" CFLAGS="-O2 -Werror"
}

build_tests()
{
	build_tree
	mkdir -p "$tests"
	[ -z "$(selftests)" ] || build_selftests
	program machine/init
	[ "$HOST" = built ] || program machine/load
	if selected | grep -q /bin/kvm-time; then
		build_headers
		sample
	fi
	if selected | grep -q /bin/linux-; then
		program guest/init
		program machine/now
	fi
	! selected | grep -q /bin/kvm-clock-check || build_clock_check
	if [ ! -e "$tests/gen_init_cpio" ]; then
		logged gen_init_cpio gcc -O2 -o "$tests/gen_init_cpio" "$tree/usr/gen_init_cpio.c"
	fi
}

# shellcheck source=archive.sh
. "$lab/archive.sh"
# shellcheck source=qemu.sh
. "$lab/qemu.sh"

case ${1-} in
qemu*) QEMU=patched ;;
esac
export QEMU
check_settings
[ -z "$MUTANT" ] || [ "$HOST$BASE" = distropatched ] ||
	die $EXIT_USAGE "MUTANT=$MUTANT: mutants are built as modules; give HOST=distro"
open_output
if [ "${1-}" = clock-check ]; then
	build_clock_check
	say "check:   $O/kvm-clock-check, for any x86-64 host with Linux 5.16 or later; kvm-clock-check --help"
	exit
fi
find_base
for test in $TESTS; do
	TESTS=$test selected | grep -q . ||
		die $EXIT_USAGE "TESTS: $test is not for KERNEL=$KERNEL; see tools/testing/kvmclock/machine/plan"
done
suffix=-$KERNEL
[ "$BASE" = patched ] || suffix=$suffix-$BASE
tree=${KVMCLOCK_TREE:-$O/linux$suffix}
tests=$O/tests$suffix
kernel=$O/kernel$suffix
[ "$CONFIG" = base ] || kernel=$kernel-$CONFIG
[ -z "$KCONFIG" ] || kernel=$O/kernel-own$suffix

# What is not ours is not for us to judge: only the clock's objects are watched.
watch=
case $CONFIG in
kcsan) watch=KCSAN_SANITIZE ;;
coverage) watch=GCOV_PROFILE ;;
esac
instrument=${watch:+$watch=n}
for file in "$top"/arch/x86/kvm/kvmclock_*.c; do
	[ -z "$watch" ] || instrument="$instrument ${watch}_$(basename "$file" .c).o=y"
done

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
qemu-source) prepare_qemu ;;
qemu)
	build_qemu
	say "qemu:    $qemu/qemu-system-x86_64" ;;
host)
	# shellcheck source=image.sh
	. "$lab/image.sh"
	build_host
	;;
*) die $EXIT_USAGE "usage: build.sh tree|kernel|modules|tests|qemu|host|clock-check" ;;
esac
