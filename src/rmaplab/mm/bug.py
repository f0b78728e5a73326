# SPDX-License-Identifier: GPL-2.0-only
"""An assertion of the kernel's own."""

__all__ = ["KernelBug"]


class KernelBug(Exception):
    """A VM_BUG_ON of the kernel function that the text names would have fired."""
