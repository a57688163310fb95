#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
#
# machine.sh prepare|start|shell|about: the emulated machine MACHINE=, for run.sh:
# makes what it boots; becomes it; becomes it with a console on this terminal;
# says what it is. From the environment it has the kernel's image= and command
# line append=, and the folder results= for console.log, ktap.log and its own.
# shellcheck disable=SC2154 # those three
set -u
# shellcheck source=settings.sh
. "$(dirname "$0")/settings.sh"

become()
{
	if [ "$V" = 1 ]; then
		say "$*" >&3
	fi
	exec "$@" 3>&-
}

# An AMD processor with nested paging. TCG does not emulate invtsc but passes the
# TSC of the hardware through, which has it; KVM wants to see the bit. With
# QEMU=patched it has TSC scaling, too, a TSC that can be written and restarts in a
# suspend, and what is below about cx16 and processor 0 is not so.
#
# The kernel is told not to watch its TSC, of which a stalled emulator is no judge, nor to
# panic at boot if its timer does not tick in time. A reliable TSC it does not compare
# either as a CPU comes: one that is like silicon's it does.
#
# No CMPXCHG16B: QEMU 7.2 makes the flags after it of what an earlier instruction
# left behind. An interrupt just then saves part of an address as RFLAGS, which IRET
# loads: the host single-steps, or ends in a double fault.
#
# No fifth level of page tables: Linux forgets for a moment, as it identifies its
# first processor, that there is one, and KASAN takes what an interrupt touches then
# for wild.
#
# No guest runs on processor 0, which SMP= does not count. An XRSTOR or FXRSTOR on
# any processor of QEMU 7.2 also writes the word with processor 0's GIF and nested
# paging (cpu_clear_ignne()), without a lock: what a VMRUN or #VMEXIT there does to
# it at that moment can be lost. The guest then runs without nested paging, into a
# SHUTDOWN, or the host never takes another interrupt.
emulator="qemu-system-x86_64"
amd_features=+svm,+npt,+invtsc,-la57,x-force-features=on
if [ "$QEMU" = patched ]; then
	# shellcheck source=qemu.sh
	. "$lab/qemu.sh"
	find_qemu
	emulator=$qemu/qemu-system-x86_64
	amd_features=$amd_features,+tsc-scale
	amd_options="no_timer_check tsc=nowatchdog silicon_tsc=1"
else
	amd_features=$amd_features,-cx16
	amd_options="no_timer_check tsc=reliable no_guest_on=0"
fi

become_qemu()
{
	become "$emulator" -L /usr/share/qemu -L /usr/share/seabios \
		-nodefaults -no-reboot -display none -M q35 \
		-accel tcg,thread=multi -smp "$((SMP + 1))" -m 3G \
		-cpu "max,$amd_features" \
		-device isa-debug-exit,iobase=0xf4 \
		-kernel "$image" -initrd "$O/initramfs.cpio" "$@"
}

# By its other clocks the TSC of QEMU is that of the hardware, so its rate can be
# had here. The kernel is told a wrong one, and init, for the tests, by how much.
amd_rate()
{
	[ -z "$DRIFT" ] || echo "tsc_early_khz=$(cat "$O/tsc-khz") drift=$DRIFT"
}

amd_prepare()
{
	[ -n "$DRIFT" ] || return 0
	gcc -O2 -Wall -Wextra -Werror -o "$O/measure-tsc" "$lab/tsc-khz.c" ||
		die $EXIT_BUILD "tsc-khz.c did not build, see above"
	khz=$("$O/measure-tsc") ||
		die $EXIT_TOOL "DRIFT=$DRIFT: the rate of the TSC could not be measured"
	echo $((khz + khz * DRIFT / 1000000)) >"$O/tsc-khz"
}

amd_start()
{
	become_qemu -append "console=ttyS0 $append $amd_options $(amd_rate)" \
		-serial "file:$results/console.log" -serial "file:$results/ktap.log"
}

amd_shell()
{
	amd_prepare
	become_qemu -append "console=ttyS0 $append $amd_options $(amd_rate) shell=1 loglevel=5" -serial mon:stdio
}

amd_about()
{
	say "$("$emulator" --version | head -n 1)$([ "$QEMU" = stock ] || echo ", patched"), TCG, $SMP processors and one more, $amd_options${DRIFT:+, TSC believed $DRIFT ppm faster}"
}

# An Intel processor with EPT and TSC scaling. One instruction is one cycle of
# the TSC, all time is counted in cycles, and it always starts on the same date:
# what this machine did it does again, to the instruction.
#
# CPUID claims 3.5 GHz, so the kernel is told the rate; it is an odd one, as round
# ones hide drift.
intel_khz=97531
intel_date=1767225600
# Linux would warn of CPUID's topology and of its size of compacted XSAVE areas.
# Random numbers and a keyboard that goes by real time would make each run another.
# And it is in doubt whether Bochs sees each write that should end a MWAIT.
intel_options="tsc=reliable clearcpuid=ht,xsaves,xsavec,rdrand,rdseed norandmaps i8042.nokbd i8042.noaux idle=halt"

intel_prepare()
{
	cd=$results/cd
	mkdir -p "$cd/boot" "$O/log"
	cp "$image" "$cd/boot/bzImage"
	cp "$O/initramfs.cpio" "$cd/boot/initramfs.cpio"
	cat >"$cd/grub.cfg" <<-END
		linux /boot/bzImage console=ttyS0,115200 $append tsc_early_khz=$intel_khz $intel_options
		initrd /boot/initramfs.cpio
		boot
	END
	# The same files give the same image, and so the same run.
	if ! {
		grub-mkimage -O i386-pc-eltorito -p /boot -c "$cd/grub.cfg" \
			-o "$cd/boot/grub.img" biosdisk iso9660 linux boot &&
		find "$cd" -exec touch -d "@$intel_date" {} + &&
		SOURCE_DATE_EPOCH=$intel_date xorriso -as mkisofs -R -b boot/grub.img \
			-no-emul-boot -boot-load-size 4 -boot-info-table -o "$cd.iso" "$cd"
	} >"$O/log/cd" 2>&1; then
		die $EXIT_BUILD "$cd.iso could not be made; why is in $O/log/cd"
	fi
	rm -rf "$cd"
	cat >"$results/bochsrc" <<-END
		config_interface: textconfig
		display_library: term
		plugin_ctrl: speaker=0, parallel=0, serial=1
		memory: guest=1024, host=1024
		romimage: file="/usr/share/bochs/BIOS-bochs-latest"
		vgaromimage: file="/usr/share/bochs/VGABIOS-lgpl-latest"
		boot: cdrom
		ata0: enabled=1, ioaddr1=0x1f0, ioaddr2=0x3f0, irq=14
		ata0-master: type=cdrom, path="$cd.iso", status=inserted
		com1: enabled=1, mode=file, dev="$results/console.log"
		com2: enabled=1, mode=file, dev="$results/ktap.log"
		pci: enabled=1, chipset=i440fx
		vga: extension=vbe, update_freq=1, realtime=0
		cpu: model=corei7_skylake_x, count=$SMP, ips=${intel_khz}000, reset_on_triple_fault=0
		clock: sync=none, time0=$intel_date
		log: "$results/bochs.log"
		panic: action=fatal
	END
	# It comes with a debugger, which waits for a command at first.
	echo c >"$results/bochs.rc"
}

# Its screen, in a terminal's language, goes where its messages go.
intel_start()
{
	TERM=xterm
	export TERM
	become bochs -q -f "$results/bochsrc" -rc "$results/bochs.rc"
}

intel_about()
{
	say "$(bochs --help 2>&1 | sed -n 's/^ *\(Bochs x86 Emulator .*\)/\1/p'), skylake_x at $intel_khz kHz, $SMP processors, $intel_options"
}

case ${1-} in
prepare | start | shell | about) "${MACHINE}_$1" ;;
*) die $EXIT_USAGE "usage: machine.sh prepare|start|shell|about" ;;
esac
