# SPDX-License-Identifier: GPL-2.0-only
"""``struct mm_struct``: one address space, its VMAs in address order and its page tables."""

from bisect import bisect_left, bisect_right
from collections.abc import Iterator
from typing import TYPE_CHECKING

from rmaplab.mm.pagetable import PageTable, Pgd

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.vma import Vma

__all__ = ["Mm"]


class Mm:
    """An address space.

    invariant: `starts[i] == vmas[i].vm_start`, ascending, no two VMAs overlap (:meth:`check`)
    """

    __slots__ = ("brk", "count", "def_flags", "ident", "kernel", "pgd", "starts", "users", "vmas")

    def __init__(self, kernel: "Kernel", ident: int) -> None:
        self.kernel = kernel
        self.ident = ident  # number of the mm in order of creation, for reports
        self.users = 1  # tasks that run on it (mm_users)
        self.count = 1  # references on the mm_struct itself (mm_count): one for its users, and pins
        self.starts: list[int] = []
        self.vmas: list[Vma] = []
        self.pgd: Pgd = {}
        self.brk: int | None = None  # current program break, None until first seen
        self.def_flags = 0  # added to each new VMA (mlockall(MCL_FUTURE))

    def vma_lookup(self, address: int) -> "Vma | None":
        """The VMA that contains `address`."""
        i = bisect_right(self.starts, address) - 1
        if i >= 0:
            vma = self.vmas[i]
            if vma.vm_end > address:
                return vma
        return None

    def find_vma(self, address: int) -> "Vma | None":
        """The VMA that contains `address`, else the next one above."""
        i = bisect_right(self.starts, address)
        if i > 0 and self.vmas[i - 1].vm_end > address:
            return self.vmas[i - 1]
        return self.vmas[i] if i < len(self.vmas) else None

    def vmas_in(self, start: int, end: int) -> list["Vma"]:
        """The VMAs that overlap [start, end)."""
        first = bisect_right(self.starts, start) - 1
        if first < 0 or self.vmas[first].vm_end <= start:
            first += 1
        return self.vmas[first : bisect_left(self.starts, end, first)]

    def neighbours(self, start: int, end: int) -> tuple["Vma | None", "Vma | None"]:
        """The VMAs before `start` and from `end` on, for a range [start, end) that holds none."""
        i = bisect_left(self.starts, start)
        prev = self.vmas[i - 1] if i > 0 else None
        return prev, self.find_vma(end)

    def prev_next(self, vma: "Vma") -> tuple["Vma | None", "Vma | None"]:
        """The VMAs before and after `vma`."""
        i = bisect_left(self.starts, vma.vm_start)
        prev = self.vmas[i - 1] if i > 0 else None
        return prev, self.vmas[i + 1] if i + 1 < len(self.vmas) else None

    def insert(self, vma: "Vma") -> None:
        """Put `vma` in the tree."""
        i = bisect_left(self.starts, vma.vm_start)
        self.starts.insert(i, vma.vm_start)
        self.vmas.insert(i, vma)

    def remove(self, vma: "Vma") -> None:
        """Take `vma` out of the tree."""
        i = bisect_left(self.starts, vma.vm_start)
        del self.starts[i], self.vmas[i]

    def resize(self, vma: "Vma", start: int, end: int, pgoff: int, *gone: "Vma") -> None:
        """Give `vma`, which is in the tree, the range [start, end) at `pgoff`, in place of the VMAs `gone`, if any: one
        store into the maple tree. It keeps its place among the others."""
        for other in gone:
            self.remove(other)
        self.starts[bisect_left(self.starts, vma.vm_start)] = start
        vma.vm_start = start
        vma.vm_end = end
        vma.vm_pgoff = pgoff

    def clear(self) -> None:
        """All VMAs leave the tree (__mt_destroy)."""
        self.starts.clear()
        self.vmas.clear()

    def insert_below(self, new: "Vma", vma: "Vma", address: int, pgoff: int) -> None:
        """Put `new` in the tree where `vma` began, which begins at `address` and `pgoff` now: one store."""
        i = bisect_left(self.starts, vma.vm_start)
        self.starts[i] = vma.vm_start = address
        vma.vm_pgoff = pgoff
        self.starts.insert(i, new.vm_start)
        self.vmas.insert(i, new)

    def pte_alloc(self, i: int) -> PageTable:
        """The table at index `i`, where no PMD entry is; a new empty one if there was none (pte_alloc).

        Its page-table lock is held: it stands for the PMD's, under which pte_alloc looks again.
        """
        if i not in self.pgd:
            self.pgd[i] = {}
        table = self.pgd[i]
        assert isinstance(table, dict)
        return table

    def try_grab(self) -> bool:
        """mmgrab, unless the mm_struct is being freed (inc-not-zero of mm_count)"""
        if not self.count:
            return False
        self.count += 1
        return True

    def mmget_not_zero(self) -> bool:
        """Become a user, unless the last one is gone and the address space is being torn down. exit_mmap frees VMAs at
        once, without RCU, and before the tree forgets them: to look into the tree, mm_count is not enough."""
        if not self.users:
            return False
        self.users += 1
        return True

    def anon_entries(self) -> Iterator[tuple[int, int]]:
        """(vpn, entry) of all page-table entries, in no order."""
        for i, table in self.pgd.items():
            if isinstance(table, int):
                yield i << 9, table
            else:
                yield from table.items()

    def check(self) -> None:
        """Raise AssertionError if the tree or the page tables are inconsistent."""
        assert self.starts == [vma.vm_start for vma in self.vmas]
        end = 0
        for vma in self.vmas:
            assert end <= vma.vm_start < vma.vm_end, f"{vma} overlaps or is empty"
            assert vma.vm_mm is self
            end = vma.vm_end
        for i, table in self.pgd.items():
            if isinstance(table, int):
                vma_ = self.vma_lookup(i << 21)
                assert vma_ is not None and vma_.vm_end >= (i + 1) << 21, f"PMD entry {i:#x} outside a VMA"
                continue
            for vpn in table:
                assert vpn >> 9 == i
                assert self.vma_lookup(vpn << 12) is not None, f"entry {vpn:#x} outside a VMA"
