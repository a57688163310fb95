# SPDX-License-Identifier: GPL-2.0
#
# The front door. Each target is one line of work for a script beside the
# laboratory; variables of the command line reach it through the environment.
# What the variables mean, and their defaults: tools/testing/kvmclock/settings.sh

lab := tools/testing/kvmclock

help: ## this text
	@$(lab)/help.sh

deps: ## install the tools that are missing (apt-get)
	@$(lab)/deps.sh
tree: ## unpack the base kernel and integrate our clock
	@$(lab)/build.sh tree
kernel: ## build the complete patched host kernel
	@$(lab)/build.sh kernel
modules: ## build only the KVM modules, for a kernel of the distribution
	@$(lab)/build.sh modules
qemu: ## build the distribution's QEMU with the patches of contrib/qemu/
	@$(lab)/build.sh qemu
load: ## build the modules for this machine's running kernel, and have it use them
	@$(lab)/load.sh load
unload: ## have it use the distribution's again
	@$(lab)/load.sh unload
deb: ## make kvmclock-dkms_VERSION_all.deb, with which Debian's dkms builds the modules for each kernel
	@contrib/debian/deb.sh
clock-check: ## build kvm-clock-check, which says what any host's clock does
	@$(lab)/build.sh clock-check

run: ## demonstration: a Linux guest in QEMU with KVM keeps time on our clock
	@$(lab)/run.sh demo
check: ## all tests in the emulated machine, ending with a verdict
	@$(lab)/run.sh check
compare: ## our tests on the stock kernel and on ours, as a table
	@$(lab)/checks/compare.sh
count: ## how many instructions the clock takes, in the stock kernel and in ours
	@$(lab)/checks/count.sh
coverage: ## which lines of the clock the tests execute, on both machines, and which not
	@$(lab)/checks/coverage.sh
migrate: ## a Linux guest's time over 20 migrations, with stock QEMU and with ours, and a plot
	@$(lab)/checks/migrate.sh
scale: ## what the clock costs each vCPU of VMs of 16 to 1,024, in either, and a plot
	@$(lab)/checks/scale.sh
pictures: ## README's pictures, made anew of what is measured now
	@$(lab)/checks/pictures.sh
shell: ## a console in the host under test
	@$(lab)/run.sh shell

check-all: ## all that takes hours, and its table in tools/testing/kvmclock/RESULTS.md anew
	@$(lab)/checks/all.sh
check-arith: ## the arithmetic against a 128-bit oracle, no kernel
	@$(lab)/checks/arith.sh
check-build: ## KVM with and without each of its options, as modules, for 32 bits
	@$(lab)/checks/build.sh
check-docs: ## the documentation builds in Sphinx without a new warning
	@$(lab)/checks/docs.sh
check-lab: ## that the laboratory tells each kind of failure
	@$(lab)/checks/lab.sh
check-model: ## each interleaving of a change of the line, by Spin, in minutes
	@$(lab)/checks/model.sh
check-house: ## that the clock's files call only what is below them
	@$(lab)/checks/house.sh
check-fresh: ## make run and make check in a fresh Debian of SUITE=, and its tools' tree
	@$(lab)/checks/fresh.sh
check-deb: ## that package in a fresh Debian of SUITE=: installed, updated, booted, removed
	@$(lab)/checks/deb.sh
check-load: ## that make load refuses, and recovers, when it should
	@$(lab)/checks/load.sh
mutants: ## that each of our deliberate breakages is caught by the test it names
	@$(lab)/checks/mutants.sh

series: ## the patches of series/ as mails in O=/mails
	@$(lab)/series.sh
series-check: ## that each of them applies, builds, boots and passes the tests there are by then
	@$(lab)/checks/series.sh
qemu-mails: ## the patches of contrib/qemu/ as mails in O=/qemu-mails
	@contrib/qemu/mails.sh
upstream: ## the small series of upstream/ for Linux 7.3 as mails in O=/upstream/mails
	@upstream/mails.sh
upstream-check: ## that each of their patches applies, builds, boots, and that its test fails before it
	@$(lab)/checks/upstream.sh

clean: ## remove what was built, keep the unpacked trees and the results
	@$(lab)/clean.sh
distclean: ## remove the whole folder O=
	@$(lab)/clean.sh all

.PHONY: help deps tree kernel modules qemu load unload deb clock-check run check compare count coverage migrate scale pictures shell check-all check-arith check-build check-docs check-lab check-model check-house check-fresh check-deb check-load mutants series series-check qemu-mails upstream upstream-check clean distclean
