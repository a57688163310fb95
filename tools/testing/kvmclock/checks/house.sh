#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The house in CONTRIBUTING.md: each of the clock's files calls only what stands below
# it there, as the symbols of its objects say.  And the promises in kvmclock.rst: each
# mutant breaks one of them, and each is broken by one.
set -u
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

HOST=distro
export HOST
check_settings
open_output
scratch
"$lab/build.sh" modules >"$work/built" || exit

folder=$O/kvm-$(sed -n 's/^kernel: *//p' "$work/built")/arch/x86/kvm
floors=$(awk '/^    kvmclock_[a-z]*\.c /  { sub(/\.c$/, "", $1); print $1 }' "$top/CONTRIBUTING.md")
[ -n "$floors" ] || die $EXIT_FAILED "CONTRIBUTING.md has no house: lines of \"    kvmclock_NAME.c  ...\""

# symbols FILE: what it defines for others (+) and what it takes from them (-)
symbols()
{
	nm "$folder/$1.o" | awk '
		$1 == "U" { print "-", $2; next }
		$2 ~ /^[A-Z]$/ { print "+", $3 }'
}

ktap_plan $(($(echo "$floors" | wc -w) + 2))
for file in "$top"/arch/x86/kvm/kvmclock_*.c; do
	basename "$file" .c
done | sort >"$work/there"
echo "$floors" | sort | comm -3 - "$work/there" >"$work/homeless"
ktap_empty every_file_has_its_floor "$work/homeless"

# From the top: what has been passed on the way down must not be called any more.
: >"$work/above"
for file in $floors; do
	symbols "$file" >"$work/symbols"
	awk -v file="$file" '
		NR == FNR { above[$1] = $2; next }
		$1 == "-" && $2 in above { print file ".c calls " $2 "() of " above[$2] ".c, above it" }
	' "$work/above" "$work/symbols" >"$work/up"
	ktap_empty "$file" "$work/up"
	awk -v file="$file" '$1 == "+" && $2 !~ /^__(tracepoint|SCK|SCT|traceiter)/ {
		print $2, file }' "$work/symbols" >>"$work/above"
done

sed -n 's/^- \*\*\(I[0-9]*\) .*/\1/p' "$top/Documentation/virt/kvm/x86/kvmclock.rst" |
	sort >"$work/promised"
for patch in "$lab"/checks/mutants/*.patch; do
	number=$(sed -n '2s/^broken:    \(I[0-9]*\): .*/\1/p' "$patch")
	echo "$number" >>"$work/numbers"
	grep -qxF -e "$number" "$work/promised" ||
		echo "${patch##*/} breaks ${number:-nothing}, which is no promise of kvmclock.rst"
done >"$work/wrong"
sort -u "$work/numbers" | comm -23 "$work/promised" - |
	sed 's/$/ of kvmclock.rst is broken by no mutant/' >>"$work/wrong"
ktap_empty promises_and_mutants "$work/wrong"
ktap_end check-house
