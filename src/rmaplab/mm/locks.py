# SPDX-License-Identifier: GPL-2.0-only
"""The locks of the model. Model code reads like the kernel: ``with locks.mmap_write(mm): ...``.

Under replay a lock only counts. A checker passes another object with the same methods, whose context
managers are scheduling points; the model code is the same.
"""

from contextlib import AbstractContextManager
from threading import RLock
from typing import Any

__all__ = ["LOCK_KINDS", "CountingLocks"]

Guard = AbstractContextManager[Any]

LOCK_KINDS = (
    "mmap_read",
    "mmap_write",
    "vma_read",
    "vma_write",
    "anon_vma_read",
    "anon_vma_write",
    "page_table",
    "folio",
)


class CountingLocks:
    """Counts acquisitions by kind; an attribute of each kind's name holds the count.

    Every method returns the same re-entrant lock: of the standard library's context managers an
    uncontended RLock is the cheapest to enter, and nobody else ever takes this one.
    """

    __slots__ = (*(f"n_{kind}" for kind in LOCK_KINDS), "_guard")

    n_mmap_read: int
    n_mmap_write: int
    n_vma_read: int
    n_vma_write: int
    n_anon_vma_read: int
    n_anon_vma_write: int
    n_page_table: int
    n_folio: int

    def __init__(self) -> None:
        self._guard: Guard = RLock()
        for kind in LOCK_KINDS:
            setattr(self, f"n_{kind}", 0)

    def counts(self) -> dict[str, int]:
        """Acquisitions so far, by kind."""
        return {kind: getattr(self, f"n_{kind}") for kind in LOCK_KINDS}

    def mmap_read(self, mm: Any) -> Guard:
        """``mmap_read_lock(mm)``: stabilises the VMAs of `mm`."""
        self.n_mmap_read += 1
        return self._guard

    def mmap_write(self, mm: Any) -> Guard:
        """``mmap_write_lock(mm)``: needed to change the VMAs of `mm`."""
        self.n_mmap_write += 1
        return self._guard

    def mmap_write_downgrade(self, mm: Any) -> None:
        """``mmap_write_downgrade(mm)``: held for reading from now on; VMAs locked for writing under it are let go."""

    def mmap_read_trylock(self, mm: Any) -> Guard | None:
        """``mmap_read_trylock(mm)``: None if a writer holds it, or waits for it."""
        self.n_mmap_read += 1
        return self._guard

    def vma_start_read(self, vma: Any) -> Guard | None:
        """``vma_start_read(vma)``: stabilises one VMA; None if it is locked for writing, or has left its tree."""
        self.n_vma_read += 1
        return self._guard

    def vma_start_write(self, vma: Any) -> None:
        """``vma_start_write(vma)``: held until the mmap lock is released, so there is no guard."""
        self.n_vma_write += 1

    def anon_vma_read(self, anon_vma: Any) -> Guard:
        """``anon_vma_lock_read``: the root's rwsem, for a walk."""
        self.n_anon_vma_read += 1
        return self._guard

    def anon_vma_trylock_read(self, anon_vma: Any) -> Guard | None:
        """``anon_vma_trylock_read``: None if a writer holds it."""
        self.n_anon_vma_read += 1
        return self._guard

    def anon_vma_write(self, anon_vma: Any) -> Guard:
        """``anon_vma_lock_write``: the root's rwsem, to change an interval tree."""
        self.n_anon_vma_write += 1
        return self._guard

    def anon_vma_drain(self, anon_vma: Any) -> None:
        """Wait until nobody holds the lock of `anon_vma`, which is about to be freed (anon_vma_free)."""

    def page_table(self, mm: Any, address: int) -> Guard:
        """``pte_offset_map_lock``: the split page-table lock over `address`."""
        self.n_page_table += 1
        return self._guard

    def page_table_lock(self, mm: Any) -> Guard:
        """``mm->page_table_lock``, under which ``vma->anon_vma`` is set."""
        return self._guard

    def rcu_read(self) -> Guard:
        """``rcu_read_lock()``: what is freed by RCU stays until the section ends. Nothing in it may sleep."""
        return self._guard

    def lockless(self) -> Guard:
        """What is read inside is read without the lock that protects it (READ_ONCE, data_race): never twice the same,
        perhaps."""
        return self._guard

    def retry_later(self, mm: Any) -> None:
        """Wait, holding nothing, until nobody works on the VMAs of `mm` any more."""

    def free_pgtables(self, mm: Any, start: int, end: int) -> None:
        """The page tables of [start, end) (bytes) are freed: nobody may be walking in them."""

    def folio_list(self, members: Any) -> Guard:
        """A bit spinlock of a folio, for a list that a design has it head (pte_chain_lock of the 2.5 kernels). Nests
        inside page-table locks; not counted."""
        return self._guard

    def folio(self, folio: Any) -> Guard:
        """``folio_lock(folio)``."""
        self.n_folio += 1
        return self._guard

    def folio_trylock(self, folio: Any) -> Guard | None:
        """``folio_trylock(folio)``: None if somebody holds it."""
        self.n_folio += 1
        return self._guard
