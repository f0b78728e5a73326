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
from rmaplab.mm.vmf import folio_lock_or_retry

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = ["Swap", "copy_nonpresent_pte", "do_swap_page", "free_folio_and_swap_cache", "zap_nonpresent"]


class Swap:
    """The swap device and its cache.

    counts: slot -> page-table entries that name it (swap_count); a slot that is in use has a key
    cache: slot -> folio of the swap cache
    slot_of: folio of the swap cache -> slot of its first page (folio->swap)
    from_ksm: slots that entries name which mapped a KSM folio
    reading: slots that a fault reads without the swap cache (SWAP_HAS_CACHE without a folio): they are not released

    invariant: `cache[slot_of[f] + k] is f` for each page k of `f`; `f.refs` counts the cache once
    """

    __slots__ = ("_end", "_free", "cache", "counts", "disk", "from_ksm", "kernel", "reading", "slot_of")

    def __init__(self, kernel: "Kernel") -> None:
        self.kernel = kernel
        self.counts: dict[int, int] = {}
        self.cache: dict[int, Folio] = {}
        self.slot_of: dict[Folio, int] = {}
        self.from_ksm: set[int] = set()
        self.reading: set[int] = set()
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
        if not self.counts[slot] and slot not in self.cache and slot not in self.reading:
            self._release(slot)

    def free_swap_and_cache(self, slot: int) -> None:
        """The same from a zap, which also drops the folio of the swap cache that it leaves behind
        (free_swap_and_cache_nr, __try_to_reclaim_swap: it gives up where the folio is locked)."""
        self.free(slot)
        folio = self.get_folio(slot)
        if folio is not None:
            free_folio_and_swap_cache(self.kernel, folio)

    def prepare(self, slot: int) -> bool:
        """A fault is about to read `slot` past the swap cache; False if somebody else does so, or it is in the cache
        (swapcache_prepare)."""
        if slot in self.reading or slot in self.cache or not self.counts.get(slot):
            return False
        self.reading.add(slot)
        return True

    def clear(self, slot: int) -> None:
        """End :meth:`prepare` (swapcache_clear)."""
        self.reading.discard(slot)
        if not self.counts[slot] and slot not in self.cache:
            self._release(slot)

    # --- the swap cache

    def add_to_swap(self, folio: Folio) -> None:
        """Give each page of `folio` a slot, and put it in the swap cache. Folio lock held."""
        first = self._alloc(folio.nr_pages)
        for slot in range(first, first + folio.nr_pages):
            self.counts[slot] = 0
        self.add_to_swap_cache(folio, first)

    def get_folio(self, slot: int) -> Folio | None:
        """The folio of the swap cache that holds `slot`, with a reference: it may go away at any time without
        (filemap_get_entry)."""
        while True:
            folio = self.cache.get(slot)
            if folio is None:
                return None
            if folio.try_get():
                if self.cache.get(slot) is folio:
                    return folio
                folio_put(self.kernel.mem, folio)

    def add_to_swap_cache(self, folio: Folio, first: int) -> None:
        """`folio` holds the contents of the slots from `first` on."""
        folio.get()
        self._put_in(folio, first)

    def _put_in(self, folio: Folio, first: int) -> None:
        self.slot_of[folio] = first
        for slot in range(first, first + folio.nr_pages):
            self.cache[slot] = folio

    def _take_out(self, folio: Folio) -> None:
        first = self.slot_of.pop(folio)
        for slot in range(first, first + folio.nr_pages):
            del self.cache[slot]
            if not self.counts[slot]:
                self._release(slot)

    def delete_from_swap_cache(self, folio: Folio) -> None:
        """Take `folio` out of the swap cache. Folio lock held; the caller holds another reference, or mappings do."""
        self._take_out(folio)
        folio.put()

    def remove_mapping(self, folio: Folio) -> bool:
        """Take `folio` out of the swap cache for good, if only its caller holds it besides; it is free then, and still
        frozen (__remove_mapping). Folio lock held."""
        if not folio.freeze(2):
            return False
        self._take_out(folio)
        return True

    def replace(self, folio: Folio, new: Folio) -> bool:
        """`new` takes the place of `folio`, if only its caller holds that besides (__folio_migrate_mapping)."""
        if not folio.freeze(2):
            return False
        new.get()
        self._put_in(new, self.slot_of.pop(folio))
        folio.unfreeze(1)
        return True

    def split(self, folios: list[Folio]) -> None:
        """The frozen folio that was split into `folios`, the first of which is its own object, was in the swap cache.
        The references are the caller's to give."""
        first = self.slot_of.pop(folios[0])
        for k, folio in enumerate(folios):
            self._put_in(folio, first + k)

    def folio_free_swap(self, folio: Folio) -> bool:
        """Take `folio` out of the swap cache unless it is not there, or an entry still names one of its slots."""
        first = self.slot_of.get(folio)
        if first is None or any(self.counts[slot] for slot in range(first, first + folio.nr_pages)):
            return False
        self.delete_from_swap_cache(folio)
        return True

    def free_swap_cache(self, folio: Folio) -> None:
        """An entry for `folio` is gone: if that was the last, it need not stay in the swap cache. The caller holds a
        reference (free_swap_cache: it gives up where the folio is locked)."""
        if folio.mapcount or folio not in self.slot_of:
            return
        guard = self.kernel.locks.folio_trylock(folio)
        if guard is not None:
            with guard:
                self.folio_free_swap(folio)

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


def free_folio_and_swap_cache(kernel: "Kernel", folio: Folio) -> None:
    """Drop the reference that an entry had (free_page_and_swap_cache)."""
    kernel.swap.free_swap_cache(folio)
    folio_put(kernel.mem, folio)


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


def copy_nonpresent_pte(table: PageTable, vpn: int, vma: "Vma", pvma: "Vma") -> int:
    """fork copies the entry of `vpn` in the parent's `table`, which is not present; neither copy is exclusive any more
    (copy_nonpresent_pte). Both page-table locks held. Hook 17."""
    entry = table[vpn]
    kernel = vma.vm_mm.kernel
    kind = entry & KIND_MASK
    if kind == SWAP:
        kernel.swap.duplicate(entry >> ENTRY_SHIFT)
    elif kind == MIGRATION and kernel.hooks.wants_migration_entries:
        folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
        assert folio is not None
        if not folio_test_ksm(folio):
            kernel.hooks.copy_migration_entry(folio, vma, pvma)
    if kind in (SWAP, MIGRATION) and entry & EXCLUSIVE:
        entry &= ~EXCLUSIVE
        table[vpn] = entry
    return entry


def do_swap_page(mm: "Mm", vma: "Vma", address: int, entry: int, write: bool, vma_locked: bool = False) -> bool:
    """A fault met `entry`, which is not present. False if the page cannot be had (SIGBUS); after True the fault is
    tried again, since the entry may still not allow a write, or may have changed meanwhile (do_swap_page).

    A large folio of the swap cache is mapped page by page, as the fault asks (there is no fault-around here).
    """
    kernel = mm.kernel
    if entry & KIND_MASK == MIGRATION:
        _migration_entry_wait(mm, address, entry)
        return True
    if entry & KIND_MASK != SWAP:
        return False
    swap = kernel.swap
    slot = entry >> ENTRY_SHIFT
    folio = swap.get_folio(slot)
    direct = False
    if folio is None:
        count = swap.counts.get(slot, 0)
        direct = count == 1  # SWP_SYNCHRONOUS_IO
        if not count or (direct and not swap.prepare(slot)) or (not direct and slot in swap.reading):
            return True  # somebody else has been here
        folio = kernel.mem.alloc()
        folio.get()
        if not direct:
            if slot in swap.cache or not swap.counts.get(slot):
                folio_put(kernel.mem, folio)
                return True
            swap.add_to_swap_cache(folio, slot)  # swapin_readahead
        swap.read(folio, slot)
    try:
        with folio_lock_or_retry(kernel, folio, vma_locked):
            mapped = _map_swapped(mm, vma, address, entry, folio, write)
    finally:
        swap.free_swap_cache(folio)  # where it was copied for the last time
        folio_put(kernel.mem, folio)
        if direct:
            swap.clear(slot)
    return mapped


def _migration_entry_wait(mm: "Mm", address: int, entry: int) -> None:
    """Wait until the migration that left `entry` is over (migration_entry_wait): without a reference, which would make
    the migration fail."""
    kernel = mm.kernel
    vpn = address >> PAGE_SHIFT
    with kernel.locks.page_table(mm, address):
        table = mm.pgd.get(vpn >> 9)
        folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
        if folio is None or not isinstance(table, dict) or table.get(vpn) != entry:
            return
    with kernel.locks.folio(folio):
        pass


def _map_swapped(mm: "Mm", vma: "Vma", address: int, entry: int, folio: Folio, write: bool) -> bool:
    """do_swap_page from the folio lock on. The caller holds one reference, which it keeps."""
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
        if not ksm and target is folio and folio.ref_count() == 1:
            exclusive = True  # ours is the only reference
        if target.mapping is None:
            kernel.hooks.folio_set_anon(target, vma, address, exclusive)
        elif ksm:
            target.mapping.strays = True
        else:
            kernel.hooks.folio_swapped_in(target, vma, address, exclusive)
        if exclusive:
            target.exclusive |= 1 << (pfn - target.pfn)
        target.add_rmap()
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
    return write and not folio_test_ksm(folio) and folio.ref_count() == 2
