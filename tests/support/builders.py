# SPDX-License-Identifier: GPL-2.0-only
"""Small address spaces for tests. Ranges are in pages: ``link(mm, 3, 5)`` is [0x3000, 0x5000)."""

from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm import flags as fl
from rmaplab.mm.fault import handle_mm_fault
from rmaplab.mm.folio import Folio
from rmaplab.mm.hooks import Hooks
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import insert_new_vma, mmap_region
from rmaplab.mm.mremap import mremap
from rmaplab.mm.pagetable import ENTRY_SHIFT
from rmaplab.mm.profile import PROFILES
from rmaplab.mm.vma import File, Vma

__all__ = [
    "MAY",
    "RO",
    "RW",
    "SHARED",
    "folio_at",
    "layout",
    "link",
    "live",
    "make_kernel",
    "mmap",
    "move",
    "resize",
    "write",
]

MAY = fl.VM_MAYREAD | fl.VM_MAYWRITE | fl.VM_MAYEXEC
RW = fl.VM_READ | fl.VM_WRITE | MAY | fl.VM_ACCOUNT
RO = fl.VM_READ | MAY
SHARED = RW & ~fl.VM_ACCOUNT | fl.VM_SHARED | fl.VM_MAYSHARE


def make_kernel(profile: str = "6.18", design: Hooks | None = None, *, thp: str = "madvise") -> Kernel:
    """A kernel that runs mainline's anon_vma unless told otherwise."""
    return Kernel(design or AnonVmaDesign(), PROFILES[profile], thp=thp)


def link(mm: Mm, first: int, last: int, flags: int = RW, *, file: File | None = None, fault: bool = False) -> Vma:
    """A VMA over pages [first, last), never merged with a neighbour; `fault` writes to its first page."""
    vma = insert_new_vma(mm, first << 12, last << 12, flags, file)
    if fault:
        write(mm, first)
    return vma


def mmap(mm: Mm, first: int, last: int, flags: int = RW, *, file: File | None = None, pgoff: int = 0) -> Vma:
    """What MAP_FIXED does over pages [first, last)."""
    return mmap_region(mm, first << 12, last << 12, flags, file, pgoff if file is not None else first)


def move(mm: Mm, first: int, last: int, to: int, flags: int = fl.MREMAP_MAYMOVE | fl.MREMAP_FIXED) -> None:
    """A successful mremap of pages [first, last) to `to`, without a change of size."""
    length = (last - first) << 12
    mremap(mm, first << 12, length, length, flags, to << 12, to << 12)


def resize(mm: Mm, first: int, last: int, pages: int, *, to: int | None = None) -> None:
    """A successful mremap of pages [first, last) to a length of `pages`, in place or at `to`."""
    place = first if to is None else to
    mremap(mm, first << 12, (last - first) << 12, pages << 12, fl.MREMAP_MAYMOVE, 0, place << 12)


def write(mm: Mm, *pages: int) -> None:
    """A write fault in each of `pages`; there must be a VMA."""
    for page in pages:
        assert handle_mm_fault(mm, page << 12, True)


def layout(mm: Mm) -> list[tuple[int, int, int]]:
    """(first page, end page, pgoff) of each VMA."""
    return [(vma.vm_start >> 12, vma.vm_end >> 12, vma.vm_pgoff) for vma in mm.vmas]


def folio_at(mm: Mm, page: int) -> Folio:
    """The folio that `mm` maps at `page`."""
    table = mm.pgd[page >> 9]
    entry = table if isinstance(table, int) else table[page]
    folio = mm.kernel.mem.pages[entry >> ENTRY_SHIFT]
    assert folio is not None
    return folio


def live(kernel: Kernel) -> tuple[int, ...]:
    """Live objects: VMAs, anon_vmas, AVCs."""
    return tuple(slab.live for slab in kernel.slabs)
