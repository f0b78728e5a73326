# SPDX-License-Identifier: GPL-2.0-only
"""Kernel same-page merging (mm/ksm.c): equal pages of VM_MERGEABLE VMAs become one write-protected KSM folio.

What ksmd finds by scanning is given here: the caller names two pages. The unstable tree is left out, and so are
chains of stable nodes, the zero page and NUMA.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rmaplab.mm.fault_steps import wp_page_copy
from rmaplab.mm.flags import PAGE_SHIFT, PTRS_PER_PTE, VM_MERGEABLE
from rmaplab.mm.folio import Folio, folio_put
from rmaplab.mm.hooks import WalkContended
from rmaplab.mm.huge_memory import split_huge_page
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT, WRITE, entries
from rmaplab.mm.rmap import folio_remove_rmap, page_vma_mapped_walk, rmap_walk
from rmaplab.mm.stable_node import RmapItem, StableNode, folio_test_ksm

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = ["Ksm"]

_TRIES = 4  # a fault may have to be taken again


class Ksm:
    """ksmd's memory: stable nodes and rmap items.

    invariant: an item in `items` is in its node's list, and what it pinned is held until it leaves
    """

    __slots__ = ("items", "kernel", "nodes")

    def __init__(self, kernel: "Kernel") -> None:
        self.kernel = kernel
        self.nodes: set[StableNode] = set()
        self.items: dict[tuple[Mm, int], RmapItem] = {}  # (mm, address in bytes) -> item

    # --- merging

    def merge(self, one: "Mm", one_address: int, other: "Mm", other_address: int) -> bool:
        """Merge the pages at two addresses if they are equal; True if they are one folio then (cmp_and_merge_page).

        Where contents are not kept, the caller says that they are equal. A page that is a KSM folio already takes the
        other in (try_to_merge_with_ksm_page), else both become one (try_to_merge_two_pages).
        """
        if one is other and one_address == other_address:
            return False
        merged = self._cmp_and_merge(one, one_address, other, other_address)
        return self._cmp_and_merge(one, one_address, other, other_address) is True if merged is None else merged

    def _cmp_and_merge(self, one: "Mm", one_address: int, other: "Mm", other_address: int) -> bool | None:
        """None after a split of the large folio that both pages are of: they are merged when ksmd comes around again"""
        pages: list[Folio] = []
        try:
            for mm, address in ((one, one_address), (other, other_address)):
                page = self._get_mergeable_page(mm, address)
                if page is None:
                    return False
                pages.append(page)
            if pages[0] is pages[1] and pages[0].nr_pages > 1:
                folio_put(self.kernel.mem, pages.pop())
                return None if self._split(pages[0], 0) else False
            if folio_test_ksm(pages[1]):
                if folio_test_ksm(pages[0]):
                    return pages[0] is pages[1]
                pages.reverse()
                one, one_address, other, other_address = other, other_address, one, one_address
            if not self._equal(one, one_address, other, other_address):
                return False
            node = self._merge_first(one, one_address, pages)
            if node is None:
                return False
            if self._merge_into(other, other_address, pages, node):
                return True
            if len(node.items) == 1:
                self._break_cow(one, one_address)
            return False
        finally:
            for page in pages:
                folio_put(self.kernel.mem, page)

    def adopt(self, mm: "Mm", address: int) -> None:
        """ksmd meets a page that is a KSM folio since a fork, and remembers that too ("ksm page forked",
        try_to_merge_one_page)."""
        with self.kernel.locks.mmap_read(mm):
            found = self._mergeable(mm, address)
            if found is not None and folio_test_ksm(found[1]):
                item = self.items.get((mm, address))
                if item is None or item.node is not found[1].mapping:
                    self._append(mm, address, found[0], found[1].mapping)

    def _mergeable(self, mm: "Mm", address: int) -> "tuple[Vma, Folio] | None":
        """find_mergeable_vma, and the page there (folio_walk_start). Mmap lock held."""
        vma = mm.vma_lookup(address)
        if vma is None or not vma.vm_flags & VM_MERGEABLE or vma.anon_vma is None:
            return None
        with self.kernel.locks.page_table(mm, address):
            entry = self._entry(mm, address)
            if entry is None or entry & KIND_MASK != PRESENT:
                return None
            folio = self.kernel.mem.pages[entry >> ENTRY_SHIFT]
            assert folio is not None
            return vma, folio

    @staticmethod
    def _entry(mm: "Mm", address: int) -> int | None:
        """The entry of the page at `address`, as it would be after a split of the PMD entry"""
        pmd = mm.pgd.get(address >> 21)
        if isinstance(pmd, int):
            return pmd + ((address >> PAGE_SHIFT & (PTRS_PER_PTE - 1)) << ENTRY_SHIFT)
        return pmd.get(address >> PAGE_SHIFT) if pmd is not None else None

    def _get_mergeable_page(self, mm: "Mm", address: int) -> Folio | None:
        """The page at `address`, with a reference (get_mergeable_page)"""
        with self.kernel.locks.mmap_read(mm):
            found = self._mergeable(mm, address)
            return found[1] if found is not None and found[1].try_get() else None

    def _equal(self, one: "Mm", one_address: int, other: "Mm", other_address: int) -> bool:
        """pages_identical"""
        contents = self.kernel.mem.contents
        if contents is None:
            return True
        pfns = self._pfn(one, one_address), self._pfn(other, other_address)
        if pfns[0] is None or pfns[1] is None:
            return False
        return contents.get(pfns[0], 0) == contents.get(pfns[1], 0)

    def _pfn(self, mm: "Mm", address: int) -> int | None:
        """The frame at `address`; the kernel has remembered the page instead"""
        with self.kernel.locks.mmap_read(mm), self.kernel.locks.page_table(mm, address):
            entry = self._entry(mm, address)
        return None if entry is None else entry >> ENTRY_SHIFT

    def _merge_first(self, mm: "Mm", address: int, held: list[Folio]) -> StableNode | None:
        """Make the page at `address` a KSM folio, if it is none yet (try_to_merge_one_page without a kpage)."""
        kernel = self.kernel
        with kernel.locks.mmap_read(mm):
            found = self._mergeable(mm, address)
            if found is None:
                return None
            vma, folio = found
            if folio_test_ksm(folio):
                return folio.mapping  # type: ignore[no-any-return]
            with self._lock_small(mm, address, folio, held) as small:
                if small is None:
                    return None
                kernel.special = True
                node = StableNode(small)
                if not self._take_over(small, node):
                    return None
            self.nodes.add(node)
            self._append(mm, address, vma, node)
            return node

    def _merge_into(self, mm: "Mm", address: int, held: list[Folio], node: StableNode) -> bool:
        """Map the folio of `node` in place of the page at `address` (try_to_merge_with_ksm_page)."""
        kernel = self.kernel
        with kernel.locks.mmap_read(mm):
            found = self._mergeable(mm, address)
            if found is None:
                return False
            vma, folio = found
            if folio is not node.folio:  # else it was forked from it
                with self._lock_small(mm, address, folio, held) as small:
                    if small is None or not self._replace_page(mm, address, small, node.folio):
                        return False
            self._append(mm, address, vma, node)
        return True

    @contextmanager
    def _lock_small(self, mm: "Mm", address: int, folio: Folio, held: list[Folio]) -> Iterator[Folio | None]:
        """The page at `address` locked and write-protected, after a split of its large folio; None if that could not be
        had (try_to_merge_one_page, write_protect_page).

        held: folios of which ksmd has a reference, which it exchanges for those of their pages
        """
        kernel = self.kernel
        if folio not in held:
            yield None  # another page than the one that was compared
            return
        if folio.nr_pages > 1:
            keep = (address >> PAGE_SHIFT) & (PTRS_PER_PTE - 1)
            entry = self._entry(mm, address)
            if entry is not None:
                keep = (entry >> ENTRY_SHIFT) - folio.pfn
            if held.count(folio) > 1 or not self._split(folio, keep):
                yield None
                return
            small = kernel.mem.pages[folio.pfn + keep]
            assert small is not None
            if small is not folio:
                held[held.index(folio)] = small
                folio_put(kernel.mem, folio)
            folio = small
        guard = kernel.locks.folio_trylock(folio)
        if guard is None:
            yield None
            return
        with guard:
            yield folio if self._write_protect_page(mm, address, folio, held.count(folio)) else None

    def _split(self, folio: Folio, keep: int) -> bool:
        guard = self.kernel.locks.folio_trylock(folio)
        if guard is None:
            return False
        with guard:
            return split_huge_page(self.kernel, folio, keep)

    def _write_protect_page(self, mm: "Mm", address: int, folio: Folio, own: int) -> bool:
        """Fails where somebody holds more references than the mappings, the swap cache and ksmd (`own`)."""
        kernel = self.kernel
        vpn = address >> PAGE_SHIFT
        with kernel.locks.page_table(mm, address):
            table = mm.pgd.get(vpn >> 9)
            entry = table.get(vpn) if isinstance(table, dict) else None
            if entry is None or entry & KIND_MASK != PRESENT or entry >> ENTRY_SHIFT != folio.pfn:
                return False
            if folio_test_ksm(folio) or folio.refs != own + (folio in kernel.swap.slot_of):
                return False
            folio.exclusive = 0
            table[vpn] = entry & ~WRITE  # type: ignore[index]
        return True

    def _take_over(self, folio: Folio, node: StableNode) -> bool:
        """folio_set_stable_node. The design's mapping is overwritten: one that wants to hear of every entry that goes
        hears that all do (hook 14), and nothing changes meanwhile (hook 4). False if that cannot be had now."""
        kernel = self.kernel
        if kernel.folio_removed is None:
            folio.mapping = node
            return True
        try:
            pinned = kernel.hooks.folio_get_anon_vma(folio)
        except WalkContended:
            return False
        if pinned is None:
            return False  # it has been unmapped
        folio_removed = kernel.folio_removed

        def rmap_one(vma: "Vma", address: int) -> bool:
            for vpn, _, _ in page_vma_mapped_walk(folio, vma, address):
                folio_removed(folio, vma.vm_mm, vpn << PAGE_SHIFT)
            return True

        rmap_walk(kernel, folio, rmap_one, pinned)
        folio.mapping = node
        kernel.hooks.put_anon_vma(pinned)
        return True

    def _replace_page(self, mm: "Mm", address: int, folio: Folio, kfolio: Folio) -> bool:
        """replace_page: one entry changes over; what else maps `folio` keeps it. False if the entry has changed."""
        kernel = self.kernel
        vpn = address >> PAGE_SHIFT
        with kernel.locks.page_table(mm, address):
            table = mm.pgd.get(vpn >> 9)
            if not isinstance(table, dict) or table.get(vpn) != folio.pfn << ENTRY_SHIFT | PRESENT:
                return False
            kfolio.add_rmap()
            table[vpn] = kfolio.pfn << ENTRY_SHIFT | PRESENT
            folio_remove_rmap(kernel, folio, mm, vpn)
            if not folio.mapcount:
                kernel.swap.folio_free_swap(folio)
            folio_put(kernel.mem, folio)
        return True

    # --- rmap items

    def _append(self, mm: "Mm", address: int, vma: "Vma", node: StableNode) -> None:
        """Remember where a page was merged, and pin what is needed to find its copies (stable_tree_append)."""
        old = self.items.get((mm, address))
        if old is not None:
            self._remove(old)
        item = RmapItem(mm, address, self.kernel.hooks.ksm_pin(vma), node)  # before the mmap lock is let go
        with self._locked(node):
            node.items.append(item)
        self.nodes.add(node)
        self.items[mm, address] = item

    def _remove(self, item: RmapItem) -> None:
        """remove_rmap_item_from_tree"""
        del self.items[item.mm, item.address]
        node = item.node
        with self._locked(node):
            node.items.remove(item)
            node.strays = True  # a child may have been found through this item only
        self.kernel.hooks.ksm_unpin(item.pinned)
        if not node.items and not self._alive(node):
            self.nodes.discard(node)

    @contextmanager
    def _locked(self, node: StableNode) -> Iterator[None]:
        """The folio of `node` locked, where there still is one: its walks hold that lock, too (ksm_get_folio)."""
        folio = node.folio
        if not self._alive(node) or not folio.try_get():
            yield
            return
        with self.kernel.locks.folio(folio):
            yield
        folio_put(self.kernel.mem, folio)

    def _alive(self, node: StableNode) -> bool:
        """Does the node's folio still exist? (ksm_get_folio)"""
        folio = node.folio
        return self.kernel.mem.pages[folio.pfn] is folio and folio.mapping is node

    def scan(self) -> None:
        """What a pass of ksmd forgets: items whose page is no longer the one that was merged, nodes without a folio."""
        for item in list(self.items.values()):
            with self.kernel.locks.mmap_read(item.mm):
                found = self._mergeable(item.mm, item.address)
                if (found is None or found[1].mapping is not item.node) and item in item.node.items:
                    self._remove(item)
        self.nodes = {node for node in self.nodes if self._alive(node)}

    def exit(self, mm: "Mm") -> None:
        """`mm` goes away (ksm_exit, and what ksmd does when it meets a slot of an mm without users)."""
        for item in [item for (owner, _), item in self.items.items() if owner is mm]:
            self._remove(item)

    # --- unmerging

    def _break_cow(self, mm: "Mm", address: int) -> None:
        """break_cow: undo what :meth:`_merge_first` did"""
        with self.kernel.locks.mmap_read(mm):
            self.unmerge(mm, address, address + (1 << PAGE_SHIFT))

    def unmerge(self, mm: "Mm", start: int, end: int) -> None:
        """Give every KSM page in [start, end) a copy of its own, as a write fault would (unmerge_ksm_pages, break_ksm).
        Mmap lock held. The rmap items stay until the next scan.
        """
        mem = self.kernel.mem
        for vpn, _ in list(entries(mm.pgd, start >> PAGE_SHIFT, end >> PAGE_SHIFT)):
            vma = mm.vma_lookup(vpn << PAGE_SHIFT)
            if vma is None or not vma.vm_flags & VM_MERGEABLE:
                continue
            for _ in range(_TRIES):
                with self.kernel.locks.page_table(mm, vpn << PAGE_SHIFT):
                    entry = self._entry(mm, vpn << PAGE_SHIFT)
                    folio = mem.pages[entry >> ENTRY_SHIFT] if entry is not None and entry & PRESENT else None
                    if entry is None or folio is None or not folio_test_ksm(folio):
                        break
                    folio.get()
                wp_page_copy(mm, vma, vpn << PAGE_SHIFT, folio, entry, False)  # FAULT_FLAG_UNSHARE

    # --- fork

    def dup_hook(self) -> "Callable[[Folio, Vma, Vma], bool | None]":
        """Hook 6 for folios that may be KSM's, which the design must not see."""
        try_dup_anon_rmap = self.kernel.hooks.try_dup_anon_rmap

        def dup(folio: Folio, vma: "Vma", pvma: "Vma") -> bool | None:
            return True if folio_test_ksm(folio) else try_dup_anon_rmap(folio, vma, pvma)

        return dup
