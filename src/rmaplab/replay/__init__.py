# SPDX-License-Identifier: GPL-2.0-only
"""Replaying a trace under a design: figures, and the comparison with the kernel's own slab events."""
