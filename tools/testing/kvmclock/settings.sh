# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=sh disable=SC2034,SC2154
#
# Read by every script here: the variables of the laboratory, their checks, and
# the few words all scripts say. The defaults below are also `make help`.

# What the caller set, for the command that repeats a run.
given=
for name in KERNEL KERNEL_SRC BASE MACHINE HOST FLAVOUR CONFIG MUTANT CASE O QEMU SMP DRIFT TIMEOUT; do
	eval "given=\"\$given\${$name:+ $name=\$$name}\""
done

: "${KERNEL:=}"         ## base kernel: 6.12 or 7.3, as Debian has it; empty: 6.12, or what KERNEL_SRC= is
: "${KERNEL_SRC:=}"     ## base kernel of your own: a tarball or an unpacked tree of one of the two
: "${BASE:=patched}"    ## patched: with our clock; stock: the same tests on the stock kernel
: "${MACHINE:=amd}"    ## emulated machine: amd (QEMU), intel (Bochs: VMX with TSC scaling), or all, one after the other
: "${HOST:=built}"      ## kernel of the emulated machine: built, or distro (the distribution's own, with our modules)
: "${FLAVOUR:=cloud}"   ## HOST=distro, make modules: which of the distribution's kernels: cloud, generic, or rt (PREEMPT_RT)
: "${CONFIG:=base}"     ## laboratory kernel: base, debug (sanitizers and lock checks), kcsan (data races of the clock), irqsoff (how long interrupts are off), coverage (which lines are executed), or fast (compiled as distributions do)
: "${KCONFIG:=}"        ## make kernel: your own configuration file instead of the laboratory's
: "${KHEADERS:=}"       ## make modules: build folder of the kernel to build for, instead of one of the distribution's
: "${MUTANT:=}"         ## make check HOST=distro, check-arith: on this breakage of tools/testing/kvmclock/checks/mutants; make mutants: only this one
: "${BY:=}"             ## make mutants: "TEST CASE" that is to catch them, instead of those that they name
: "${O:=build}"         ## folder for everything that is built
: "${TESTS:=}"          ## run only these tests of tools/testing/kvmclock/machine/plan
: "${CASE:=}"           ## run only this case of our tests, without what is before its dot
: "${QEMU:=stock}"        ## QEMU that starts the Linux guest in the emulated machine, and is the machine amd: stock (this machine's), or patched as contrib/qemu says
: "${SMP:=2}"           ## processors for guests of the emulated machine, 1 to 63 (intel: 8)
: "${DRIFT:=}"          ## amd: ppm by which the host believes its TSC faster than it is, 11000 to 100000 or negative
: "${TIMEOUT:=}"        ## seconds until a machine that has not finished is ended; empty: as many as it should need
: "${SUITE:=}"          ## make check-fresh, check-deb: of which release of Debian, bookworm or trixie
: "${ROWS:=}"           ## make check-all: only the commands that have these words
: "${SOB:=}"            ## make series: who posts it, as in SOB='Jo Doe <jo@example.org>'
: "${PREFIX:=PATCH}"    ## make series: what the subjects begin with, as in PREFIX="PATCH v2"
: "${JOBS:=$(nproc)}"   ## parallel jobs of a build
: "${V:=0}"             ## 1: show the build's own output and the commands

# The verdict's codes. A script exits with them; make itself exits with 2.
EXIT_FAILED=1           # a test failed
EXIT_USAGE=2            # a variable, a folder or the free space is not right
EXIT_BASE=3             # the base kernel is not one that we fit
EXIT_TOOL=4             # a tool is missing and could not be installed
EXIT_BUILD=5            # something did not build
EXIT_SPLAT=6            # the kernel under test panicked or complained
EXIT_TIMEOUT=7          # the machine did not finish in time
EXIT_SHORT=8            # the machine ended before the plan's end
EXIT_SKIPPED=9          # a required test was skipped

lab=$(cd "$(dirname "$0")" && pwd)
lab=${lab%/checks}
top=${lab%/tools/testing/kvmclock}

# die CODE MESSAGE...
die()
{
	code=$1
	shift
	printf 'error: %s\n' "$*" >&2
	exit "$code"
}

say()
{
	printf '%s\n' "$*"
}

# number NAME LOW HIGH: the variable NAME is a whole number in these bounds
number()
{
	eval "value=\$$1"
	case $value in
	'' | *[!0-9]* | ???????*) ;;
	*) [ "$value" -lt "$2" ] || [ "$value" -gt "$3" ] || return 0 ;;
	esac
	die $EXIT_USAGE "$1=$value: give a number from $2 to $3"
}

# one_of NAME WORD...: the variable NAME is one of these words
one_of()
{
	name=$1
	eval "value=\$$1"
	shift
	for word; do
		[ "$value" != "$word" ] || return 0
	done
	die $EXIT_USAGE "$name=$value: give one of: $*"
}

# What is less than 1 % off the kernel measures again, and corrects.
check_drift()
{
	[ -n "$DRIFT" ] || return 0
	size=${DRIFT#-}
	case $size in
	*[!0-9]* | '' | 0* | ???????*) size=0 ;;
	esac
	if [ "$size" -lt 11000 ] || [ "$size" -gt 100000 ]; then
		die $EXIT_USAGE "DRIFT=$DRIFT: give ppm, from 11000 to 100000 or from -100000 to -11000: what is less than 1 % the kernel corrects"
	fi
	[ "$MACHINE" = amd ] ||
		die $EXIT_USAGE "DRIFT=$DRIFT: MACHINE=$MACHINE counts all its time in cycles of the TSC; only amd has a clock beside it"
}

check_settings()
{
	[ -z "$KERNEL" ] || one_of KERNEL 6.12 7.3
	one_of BASE patched stock
	one_of MACHINE amd intel all
	one_of HOST built distro
	one_of FLAVOUR cloud generic rt
	one_of CONFIG base debug kcsan irqsoff coverage fast
	one_of QEMU stock patched
	one_of V 0 1
	number SMP 1 63
	check_drift
	[ -z "$TIMEOUT" ] || number TIMEOUT 1 86400
	number JOBS 1 1024
	[ "$MACHINE" = amd ] || [ "$HOST" = built ] ||
		die $EXIT_USAGE "HOST=$HOST: MACHINE=$MACHINE boots the built kernel only; leave one of the two out"
	[ "$MACHINE" = amd ] || number SMP 1 8
	[ "$HOST" = built ] || [ "$CONFIG" = base ] ||
		die $EXIT_USAGE "CONFIG=$CONFIG: HOST=$HOST has a configuration of its own; give one of the two"
	[ "$HOST" = built ] || [ -z "$KHEADERS" ] ||
		die $EXIT_USAGE "KHEADERS=$KHEADERS: HOST=$HOST has headers of its own; KHEADERS= is for make modules"
	[ -z "$MUTANT" ] || [ -r "$lab/checks/mutants/$MUTANT.patch" ] ||
		die $EXIT_USAGE "MUTANT=$MUTANT: no such patch; see tools/testing/kvmclock/checks/mutants"
	case $CASE in
	*[!a-z0-9_]*) die $EXIT_USAGE "CASE=$CASE: give the name of a case, as in kvmclock_line.set_clock what follows the dot" ;;
	esac
	[ -z "$KCONFIG" ] || [ -r "$KCONFIG" ] ||
		die $EXIT_USAGE "KCONFIG=$KCONFIG: no such file that can be read"
	for test in $TESTS; do
		awk -v t="$test" '$1 == t { found = 1 } END { exit !found }' \
			"$lab/machine/plan" ||
			die $EXIT_USAGE "TESTS: no test is named $test; see tools/testing/kvmclock/machine/plan"
	done
}

# Makes O= absolute, sees that it can be used, and holds it for this script and
# those that it calls.
open_output()
{
	case $O in
	*[[:space:]:]*)
		die $EXIT_USAGE "O=$O: the kernel does not build in a path with blanks or colons" ;;
	esac
	if ! mkdir -p "$O" 2>/dev/null || [ ! -w "$O" ]; then
		die $EXIT_USAGE "O=$O: this folder cannot be written; choose another"
	fi
	O=$(cd "$O" && pwd)
	[ "$KVMCLOCK_HOLDS" != "$O" ] || return 0
	# What is in it may be removed, by make clean at the latest.
	[ -e "$O/.lock" ] || [ -z "$(ls -A "$O")" ] ||
		die $EXIT_USAGE "O=$O: this folder holds files of others; choose a new one"
	exec 9>"$O/.lock"
	if ! flock -n 9; then
		say "O=$O: in use by another run, waiting for it"
		flock -w 1800 9 || die $EXIT_USAGE "O=$O: still in use after half an hour; choose another folder"
	fi
	export KVMCLOCK_HOLDS="$O"
}

# need_space MEGABYTES WHAT
need_space()
{
	free=$(($(df -Pk "$O" | awk 'NR == 2 { print $4 }') / 1024))
	[ "$free" -ge "$1" ] ||
		die $EXIT_USAGE "O=$O: $2 needs $1 MB, only $free MB are free; choose another folder"
}

# mutate FOLDER: breaks the code there as MUTANT= says
mutate()
{
	patch -d "$1" -p1 -F0 -s --no-backup-if-mismatch -r - <"$lab/checks/mutants/$MUTANT.patch" >&2 ||
		die $EXIT_BUILD "checks/mutants/$MUTANT.patch does not fit the code any more; write it anew"
}

# find_base: from what the caller set, the base kernel's series in KERNEL, in
# KERNEL_SRC where its source is, or will be once it is installed, in x86 the name
# that its selftests have for the architecture, and in upstream whether it has the series
# of upstream/.
find_base()
{
	upstream=
	if [ -n "$KERNEL_SRC" ]; then
		KERNEL_SRC=$(readlink -m "$KERNEL_SRC")
		folders=$("$top/integration/apply.sh" --folders "$KERNEL_SRC") || exit
		found=$(echo "$folders" | sed -n 2p)
		[ "${KERNEL:-$found}" = "$found" ] ||
			die $EXIT_USAGE "KERNEL=$KERNEL: KERNEL_SRC=$KERNEL_SRC is Linux $found; leave one of the two out"
		KERNEL=$found
		upstream=$(echo "$folders" | sed -n 3p)
	else
		: "${KERNEL:=6.12}"
		KERNEL_SRC=/usr/src/linux-source-$KERNEL.tar.xz
		# What source.sh has fetched
		if [ ! -e "$KERNEL_SRC" ] && [ -e "$O/source/${KERNEL_SRC##*/}" ]; then
			KERNEL_SRC=$(readlink -m "$O/source/${KERNEL_SRC##*/}")
		fi
	fi
	x86=x86
	[ "$KERNEL" != 6.12 ] || x86=x86_64
}

# The base's source, if no suite of this distribution has it.
fetch_base()
{
	[ ! -e "$KERNEL_SRC" ] || return 0
	"$lab/source.sh" "$KERNEL" || exit
	KERNEL_SRC=$O/source/${KERNEL_SRC##*/}
}

# configure TREE FOLDER FRAGMENT...: configures TREE in FOLDER by these fragments over
# tinyconfig, the later ones first; an option that did not take is an error.
configure()
{
	from=$1
	to=$2
	shift 2
	make -C "$from" O="$to" tinyconfig &&
		(cd "$from" && scripts/kconfig/merge_config.sh -m -O "$to" "$to/.config" "$@") &&
		make -C "$from" O="$to" olddefconfig || return
	lost=$(cat "$@" | awk -F= -v config="$to/.config" '
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
}

# What scripts tell those that they call.
: "${KVMCLOCK_HOLDS:=}"   # the folder O= that is held already
: "${KVMCLOCK_TREE:=}"    # checks/series.sh: a tree to be built as it is
: "${KVMCLOCK_MACHINE:=}" # checks/load.sh: a made-up machine's root folder
: "${KVMCLOCK_MODULES:=}" # kvmclock-load: the folder of modules that dkms has built
: "${KVMCLOCK_PACKAGE:=}" # the package's build: nothing may be installed, all is declared

# The kernel's make must not take our variables for its own.
unset MAKEFLAGS MFLAGS MAKELEVEL MAKEOVERRIDES
export LC_ALL=C
