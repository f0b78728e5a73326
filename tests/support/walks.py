# SPDX-License-Identifier: GPL-2.0-only
"""A kernel that keeps contents, and what tests ask of its page tables."""

from rmaplab.check.oracle import check_gone, check_walks
from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm.access import entry_at, mm_read, mm_write
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.folio import Folio
from rmaplab.mm.hooks import Hooks
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import ENTRY_SHIFT, EXCLUSIVE, HWPOISON, KIND_MASK, MIGRATION, PRESENT, SWAP, WRITE
from rmaplab.mm.vmscan import shrink_folio
from tests.support.builders import RW, folio_at, link

__all__ = ["contents_kernel", "fill", "finish", "kind", "load", "made", "store", "swap_out"]

KINDS = {PRESENT: "present", SWAP: "swap", MIGRATION: "migration", HWPOISON: "hwpoison"}


def contents_kernel(design: Hooks | None = None, *, thp: str = "madvise") -> Kernel:
    """Runs mainline unless told otherwise."""
    return Kernel(design or AnonVmaDesign(), thp=thp, contents=True)


def made(kernel: Kernel, first: int = 0x10, last: int = 0x14, flags: int = RW) -> Mm:
    """An address space with one VMA over pages [first, last), each of which holds its own number."""
    mm = kernel.mm_alloc()
    link(mm, first, last, flags)
    fill(mm, first, last)
    return mm


def fill(mm: Mm, first: int, last: int) -> None:
    """Store its number in each page."""
    for page in range(first, last):
        store(mm, page, page)


def store(mm: Mm, page: int, token: int) -> None:
    assert mm_write(mm, page << 12, token)


def load(mm: Mm, page: int) -> int | None:
    return mm_read(mm, page << 12)


def kind(mm: Mm, page: int) -> str:
    """What the entry of `page` is: "none", or its kind, with "w" if writable or "x" if exclusive."""
    entry = entry_at(mm, page << 12)
    if entry is None:
        return "none"
    name = KINDS[entry & KIND_MASK]
    if name == "present":
        return name + (" w" if entry & WRITE else "")
    return name + (" x" if entry & EXCLUSIVE else "")


def swap_out(mm: Mm, *pages: int, writeback: bool = False) -> list[Folio]:
    """Reclaim the folios of `pages`."""
    folios = [folio_at(mm, page) for page in pages]
    for folio in folios:
        assert shrink_folio(mm.kernel, folio, writeback=writeback) is not writeback
    return folios


def slot(mm: Mm, page: int) -> int:
    """The swap slot that the entry of `page` names."""
    entry = entry_at(mm, page << 12)
    assert entry is not None and entry & KIND_MASK == SWAP
    return entry >> ENTRY_SHIFT


def finish(kernel: Kernel, *mms: Mm) -> None:
    """All is consistent; after all have exited, nothing is left."""
    check_walks(kernel, mms)
    for mm in mms:
        exit_mmap(mm)
    check_gone(kernel)
