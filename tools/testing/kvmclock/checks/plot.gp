# SPDX-License-Identifier: GPL-2.0
#
# What all plots have in common: see scale.sh, migrate.sh, pictures.sh.
set grid ytics linecolor "#dddddd"
set border 3
set tics nomirror
stock = "#c0392b"
ours = "#1f6fb2"
