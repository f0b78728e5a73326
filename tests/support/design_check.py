# SPDX-License-Identifier: GPL-2.0-only
"""The check that knows a design: it recomputes what the design keeps from the address spaces, and compares."""

from collections.abc import Iterable

from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.designs.anon_vma_check import check_anon_vmas
from rmaplab.designs.cow_context import CowContextDesign
from rmaplab.designs.cow_context_check import check_contexts
from rmaplab.designs.vma_set import VmaSetDesign
from rmaplab.designs.vma_set_check import check_vma_sets
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm

__all__ = ["check_design"]


def check_design(kernel: Kernel, mms: Iterable[Mm]) -> None:
    """Raise AssertionError if what the design of `kernel` keeps is not what it must be for the live `mms`."""
    design = kernel.hooks
    if isinstance(design, AnonVmaDesign):
        check_anon_vmas(design, mms)
    elif isinstance(design, CowContextDesign):
        check_contexts(design, mms)
    elif isinstance(design, VmaSetDesign):
        check_vma_sets(design, mms)
