# SPDX-License-Identifier: GPL-2.0-only
"""The modelled kernel: address spaces, page tables, folios, slab caches, locks.

One module per concept, named as the kernel names it. The package knows no design, no trace and no
checker; what a design decides is reached through :mod:`rmaplab.mm.hooks` only.
"""
