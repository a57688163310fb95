#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# The chapters on KVM build in Sphinx without a warning that the stock ones do not
# have, and the comments on our structures are valid kernel-doc. Prints KTAP.
set -eu
# shellcheck source=common.sh
. "$(dirname "$0")/common.sh"

# warnings TREE NAME: builds the chapters of TREE from nothing, and leaves what
# Sphinx says of them in NAME.warnings, without the numbers of lines.
warnings()
{
	out=$O/check-docs/$2
	rm -rf "$out"
	mkdir -p "$out"
	# No netlink specifications: they are none of ours, and are put into the tree.
	make -C "$1" O="$out" YNL_INDEX= SPHINXDIRS=virt/kvm htmldocs >"$logs/$2" 2>&1 </dev/null ||
		rm -rf "$out"
	[ -s "$out/Documentation/output/virt/kvm/api.html" ] ||
		die $EXIT_BUILD "Sphinx made no pages of $1; the log is $logs/$2"
	grep -E '(WARNING|ERROR|CRITICAL|SEVERE): ' "$logs/$2" |
		sed -E "s,^($1|$out)/,,; s/:[0-9]+: /: /" | sort >"$logs/$2.warnings"
}

check_settings
open_output
"$lab/deps.sh" check-docs || exit
BASE=stock "$lab/build.sh" tree
BASE=patched "$lab/build.sh" tree
find_base
logs=$O/log/check-docs
mkdir -p "$logs"

ktap_plan 2
warnings "$O/linux-$KERNEL-stock" stock
warnings "$O/linux-$KERNEL" patched
say "# warnings: $(wc -l <"$logs/stock.warnings") of the stock kernel, $(wc -l <"$logs/patched.warnings") with ours"
comm -13 "$logs/stock.warnings" "$logs/patched.warnings" >"$logs/new"
ktap_empty sphinx "$logs/new"

cd "$O/linux-$KERNEL"
set -- arch/x86/kvm/kvmclock*.[ch] arch/x86/include/asm/kvmclock_state.h samples/kvm/*.[ch] \
	arch/x86/include/uapi/asm/kvm.h arch/x86/include/uapi/asm/pvclock-abi.h
for file; do
	scripts/kernel-doc -none -Wall "$file" || :
done >"$logs/kernel-doc" 2>&1
# KVM has none on functions, says maintainer-kvm-x86.rst.
grep -n '^ \* [a-z0-9_]*() - ' "$@" >>"$logs/kernel-doc" || :
ktap_empty kernel-doc "$logs/kernel-doc"
ktap_end check-docs
