# SPDX-License-Identifier: GPL-2.0-only
"""The designs: one file each, behind the hooks of :mod:`rmaplab.mm.hooks`."""
