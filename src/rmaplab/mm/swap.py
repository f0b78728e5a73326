# SPDX-License-Identifier: GPL-2.0-only
"""Swap: slots, the swap cache, and the fault that brings a page back (mm/swapfile.c, mm/swap_state.c, do_swap_page).

One device without seek time, as zram: a slot that one entry names is read without passing through the swap cache
(SWP_SYNCHRONOUS_IO). A folio of the swap cache keeps its mapping and index although nothing may map it.
"""

from typing import TYPE_CHECKING

from rmaplab.mm.flags import PAGE_SHIFT, VM_LOCKED, VM_WRITE
from rmaplab.mm.folio import Folio, folio_put
from rmaplab.mm.pagetable import ENTRY_SHIFT, EXCLUSIVE, KIND_MASK, MIGRATION, PRESENT, SWAP, WRITE, PageTable
from rmaplab.mm.stable_node import folio_test_ksm

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = ["Swap", "copy_nonpresent_pte", "do_swap_page", "zap_nonpresent"]


class Swap:
    """The swap device and its cache.

    counts: slot -> page-table entries that name it (swap_count); a slot that is in use has a key
    cache: slot -> folio of the swap cache
    slot_of: folio of the swap cache -> slot of its first page (folio->swap)
    from_ksm: slots that entries name which mapped a KSM folio

    invariant: `cache[slot_of[f] + k] is f` for each page k of `f`; `f.refs` counts the cache once
    """

    __slots__ = ("_end", "_free", "cache", "counts", "disk", "from_ksm", "kernel", "slot_of")

    def __init__(self, kernel: "Kernel") -> None:
        self.kernel = kernel
        self.counts: dict[int, int] = {}
        self.cache: dict[int, Folio] = {}
        self.slot_of: dict[Folio, int] = {}
        self.from_ksm: set[int] = set()
        self.disk: dict[int, int] = {}  # slot -> contents, where contents are kept
        self._free: list[int] = []
        self._end = 1

    # --- slots

    def _alloc(self, nr_pages: int) -> int:
        """The first of `nr_pages` consecutive free slots (folio_alloc_swap)."""
        if nr_pages == 1 and self._free:
            return self._free.pop()
        first = self._end
        self._end += nr_pages
        return first

    def _release(self, slot: int) -> None:
        """Nobody needs `slot` any more."""
        del self.counts[slot]
        self.disk.pop(slot, None)
        self.from_ksm.discard(slot)
        self._free.append(slot)

    def duplicate(self, slot: int) -> None:
        """One more entry names `slot` (swap_duplicate)."""
        self.counts[slot] += 1

    def free(self, slot: int) -> None:
        """One entry less names `slot` (swap_free)."""
        self.counts[slot] -= 1
        if not self.counts[slot] and slot not in self.cache:
            self._release(slot)

    def free_swap_and_cache(self, slot: int) -> None:
        """The same from a zap, which also drops the folio of the swap cache that it leaves behind."""
        folio = self.cache.get(slot)
        self.free(slot)
        if folio is not None:
            self.free_swap_cache(folio)

    # --- the swap cache

    def add_to_swap(self, folio: Folio) -> None:
        """Give each page of `folio` a slot, and put it in the swap cache. Folio lock held."""
        first = self._alloc(folio.nr_pages)
        for slot in range(first, first + folio.nr_pages):
            self.counts[slot] = 0
        self.add_to_swap_cache(folio, first)

    def add_to_swap_cache(self, folio: Folio, first: int) -> None:
        """`folio` holds the contents of the slots from `first` on."""
        self.slot_of[folio] = first
        for slot in range(first, first + folio.nr_pages):
            self.cache[slot] = folio
        folio.refs += 1

    def delete_from_swap_cache(self, folio: Folio) -> None:
        """Take `folio` out of the swap cache. Folio lock held; the caller holds another reference, or mappings do."""
        first = self.slot_of.pop(folio)
        for slot in range(first, first + folio.nr_pages):
            del self.cache[slot]
            if not self.counts[slot]:
                self._release(slot)
        folio.refs -= 1

    def replace(self, folio: Folio, new: Folio) -> None:
        """`new` takes the place of `folio` (__folio_migrate_mapping)."""
        first = self.slot_of.pop(folio)
        folio.refs -= 1
        self.add_to_swap_cache(new, first)

    def split(self, folios: list[Folio]) -> None:
        """The folio that was split into `folios`, the first of which is its own object, was in the swap cache."""
        first = self.slot_of.pop(folios[0])
        folios[0].refs -= 1
        for k, folio in enumerate(folios):
            self.add_to_swap_cache(folio, first + k)

    def folio_free_swap(self, folio: Folio) -> bool:
        """Take `folio` out of the swap cache unless it is not there, or an entry still names one of its slots."""
        first = self.slot_of.get(folio)
        if first is None or any(self.counts[slot] for slot in range(first, first + folio.nr_pages)):
            return False
        self.delete_from_swap_cache(folio)
        return True

    def free_swap_cache(self, folio: Folio) -> None:
        """An entry for `folio` is gone: if that was the last, it need not stay in the swap cache (free_swap_cache,
        __try_to_reclaim_swap: both give up where the folio is locked)."""
        if folio.mapcount or folio not in self.slot_of:
            return
        guard = self.kernel.locks.folio_trylock(folio)
        if guard is None:
            return
        with guard:
            if not folio.mapcount and self.folio_free_swap(folio) and not folio.refs:
                self.kernel.mem.free(folio)

    # --- input and output

    def writeout(self, folio: Folio) -> None:
        """Write `folio` to its slots (swap_writepage)."""
        contents = self.kernel.mem.contents
        if contents is not None:
            first = self.slot_of[folio]
            for k in range(folio.nr_pages):
                self.disk[first + k] = contents.get(folio.pfn + k, 0)

    def read(self, folio: Folio, slot: int) -> None:
        """Read `slot` into the small `folio` (swap_read_folio)."""
        contents = self.kernel.mem.contents
        if contents is not None:
            contents[folio.pfn] = self.disk.get(slot, 0)


def zap_nonpresent(kernel: "Kernel", mm: "Mm", vpn: int, entry: int) -> None:
    """A zap takes away an entry that is not present (zap_pte_range). What is under migration was a mapping for the
    design until now, so hook 14 hears of it."""
    kind = entry & KIND_MASK
    if kind == SWAP:
        kernel.swap.free_swap_and_cache(entry >> ENTRY_SHIFT)
    elif kind == MIGRATION and kernel.folio_removed is not None:
        folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
        assert folio is not None
        if not folio_test_ksm(folio):
            kernel.folio_removed(folio, mm, vpn << PAGE_SHIFT)


def copy_nonpresent_pte(kernel: "Kernel", table: PageTable, vpn: int) -> int:
    """fork copies the entry of `vpn` in the parent's `table`, which is not present; neither copy is exclusive any more
    (copy_nonpresent_pte). There is no hook here: mainline does not look at the folio's mapping."""
    entry = table[vpn]
    if entry & KIND_MASK == SWAP:
        kernel.swap.duplicate(entry >> ENTRY_SHIFT)
    if entry & KIND_MASK in (SWAP, MIGRATION):
        entry &= ~EXCLUSIVE
        table[vpn] = entry
    return entry


def do_swap_page(mm: "Mm", vma: "Vma", address: int, entry: int, write: bool) -> bool:
    """A fault met `entry`, which is not present. False if the page cannot be had (SIGBUS); after True the fault is
    tried again, since the entry may still not allow a write, or may have changed meanwhile (do_swap_page).

    A large folio of the swap cache is mapped page by page, as the fault asks (there is no fault-around here).
    """
    kernel = mm.kernel
    if entry & KIND_MASK == MIGRATION:
        folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
        if folio is not None:
            with kernel.locks.folio(folio):  # migration_entry_wait
                pass
        return True
    if entry & KIND_MASK != SWAP:
        return False
    swap = kernel.swap
    slot = entry >> ENTRY_SHIFT
    folio = swap.cache.get(slot)
    if folio is None:
        folio = kernel.mem.alloc()
        swap.read(folio, slot)
        if swap.counts[slot] > 1:
            swap.add_to_swap_cache(folio, slot)  # swapin_readahead
    folio.refs += 1
    with kernel.locks.folio(folio):
        mapped = _map_swapped(mm, vma, address, entry, folio, write)
    swap.free_swap_cache(folio)  # where it was copied for the last time
    folio_put(kernel.mem, folio)
    return mapped


def _map_swapped(mm: "Mm", vma: "Vma", address: int, entry: int, folio: Folio, write: bool) -> bool:
    """do_swap_page from the folio lock on. The caller holds one reference."""
    kernel = mm.kernel
    swap = kernel.swap
    slot = entry >> ENTRY_SHIFT
    vpn = address >> PAGE_SHIFT
    cached = folio in swap.slot_of
    if swap.cache.get(slot) is not (folio if cached else None):
        return True
    pfn = folio.pfn + (slot - swap.slot_of[folio] if cached else 0)
    if pfn in kernel.mem.poisoned:
        return False
    target = folio
    if cached and _needs_copy(folio, vma, slot):
        target = kernel.mem.alloc()
        kernel.mem.copy(target.pfn, pfn)
        pfn = target.pfn
    with kernel.locks.page_table(mm, address):
        table = mm.pgd.get(vpn >> 9)
        if not isinstance(table, dict) or table.get(vpn) != entry:
            if target is not folio:
                kernel.mem.free(target)
            return True
        ksm = folio_test_ksm(target)
        exclusive = not ksm and (bool(entry & EXCLUSIVE) or target is not folio or not cached)
        swap.free(slot)
        if cached and _should_try_to_free_swap(vma, folio, write):
            swap.folio_free_swap(folio)
        if not ksm and target is folio and not folio.mapcount and folio.refs == 1:
            exclusive = True  # ours is the only reference
        if target.mapping is None:
            kernel.hooks.folio_set_anon(target, vma, address, exclusive)
        elif ksm:
            target.mapping.strays = True
        else:
            kernel.hooks.folio_swapped_in(target, vma, address, exclusive)
        if exclusive:
            target.exclusive |= 1 << (pfn - target.pfn)
        target.mapcount += 1
        writable = exclusive and vma.vm_flags & VM_WRITE
        table[vpn] = pfn << ENTRY_SHIFT | PRESENT | (WRITE if writable else 0)
    return True


def _needs_copy(folio: Folio, vma: "Vma", slot: int) -> bool:
    """ksm_might_need_to_copy: what KSM had merged before it was swapped out came from several VMAs, at several indices.
    The kernel compares roots and indices, to share the copy among relatives; here nobody shares it."""
    if folio.mapping is None or folio_test_ksm(folio):
        return False
    return slot in vma.vm_mm.kernel.swap.from_ksm or vma.vm_mm.kernel.hooks.swapin_needs_copy(folio, vma)


def _should_try_to_free_swap(vma: "Vma", folio: Folio, write: bool) -> bool:
    """should_try_to_free_swap, where swap is never full"""
    if vma.vm_flags & VM_LOCKED:
        return True
    return write and not folio_test_ksm(folio) and not folio.mapcount and folio.refs == 2
