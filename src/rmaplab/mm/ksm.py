# SPDX-License-Identifier: GPL-2.0-only
"""Kernel same-page merging (mm/ksm.c): equal pages of VM_MERGEABLE VMAs become one write-protected KSM folio.

What ksmd finds by scanning is given here: the caller names two pages. The unstable tree is left out, and so are
chains of stable nodes, the zero page and NUMA.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from rmaplab.mm.flags import PAGE_SHIFT, VM_MERGEABLE, VM_WRITE
from rmaplab.mm.folio import Folio, folio_put
from rmaplab.mm.huge_memory import split_folio
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT, WRITE, PageTable, entries
from rmaplab.mm.rmap import folio_remove_rmap, rmap_walk
from rmaplab.mm.stable_node import RmapItem, StableNode, folio_test_ksm

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = ["Ksm"]


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
        one_page, other_page = self._mergeable(one, one_address), self._mergeable(other, other_address)
        if one_page is None or other_page is None or (one is other and one_address == other_address):
            return False
        if folio_test_ksm(other_page[1]):
            if folio_test_ksm(one_page[1]):
                return one_page[1] is other_page[1]
            one, one_address, other, other_address = other, other_address, one, one_address
        if not self._equal(one, one_address, other, other_address):
            return False
        node = self._merge_first(one, one_address)
        if node is None:
            return False
        if not self._merge_into(other, other_address, node):
            if len(node.items) == 1:
                self.unmerge(one, one_address, one_address + (1 << PAGE_SHIFT))  # break_cow
            return False
        return True

    def adopt(self, mm: "Mm", address: int) -> None:
        """ksmd meets a page that is a KSM folio since a fork, and remembers that too ("ksm page forked",
        try_to_merge_one_page)."""
        found = self._mergeable(mm, address)
        if found is not None and folio_test_ksm(found[1]):
            item = self.items.get((mm, address))
            if item is None or item.node is not found[1].mapping:
                self._append(mm, address, found[0], found[1].mapping)

    def _mergeable(self, mm: "Mm", address: int) -> "tuple[Vma, Folio] | None":
        """find_mergeable_vma and get_mergeable_page"""
        vma = mm.vma_lookup(address)
        if vma is None or not vma.vm_flags & VM_MERGEABLE or vma.anon_vma is None:
            return None
        table = mm.pgd.get(address >> 21)
        entry = table if isinstance(table, int) else table.get(address >> PAGE_SHIFT) if table is not None else None
        if entry is None or entry & KIND_MASK != PRESENT:
            return None
        folio = self.kernel.mem.pages[entry >> ENTRY_SHIFT]
        assert folio is not None
        return vma, folio

    def _equal(self, one: "Mm", one_address: int, other: "Mm", other_address: int) -> bool:
        """pages_identical"""
        contents = self.kernel.mem.contents
        if contents is None:
            return True
        values = []
        for mm, address in ((one, one_address), (other, other_address)):
            table = mm.pgd[address >> 21]
            vpn = address >> PAGE_SHIFT
            entry = table + ((vpn & 511) << ENTRY_SHIFT) if isinstance(table, int) else table[vpn]
            values.append(contents.get(entry >> ENTRY_SHIFT, 0))
        return values[0] == values[1]

    def _merge_first(self, mm: "Mm", address: int) -> StableNode | None:
        """Make the page at `address` a KSM folio, if it is none yet (try_to_merge_one_page without a kpage)."""
        with self.kernel.locks.mmap_read(mm):
            found = self._mergeable(mm, address)
            if found is None:
                return None
            vma, folio = found
            if folio_test_ksm(folio):
                return folio.mapping  # type: ignore[no-any-return]
            small = self._lock_small(mm, address, folio)
            if small is None:
                return None
            self.kernel.special = True
            self._forget_mapping(small)
            node = StableNode(small)
            small.mapping = node  # folio_set_stable_node
            self.nodes.add(node)
            self._append(mm, address, vma, node)
            return node

    def _merge_into(self, mm: "Mm", address: int, node: StableNode) -> bool:
        """Map the folio of `node` in place of the page at `address` (try_to_merge_with_ksm_page)."""
        kernel = self.kernel
        with kernel.locks.mmap_read(mm):
            found = self._mergeable(mm, address)
            if found is None:
                return False
            vma, folio = found
            if folio is not node.folio:  # else it was forked from it
                small = self._lock_small(mm, address, folio)
                if small is None:
                    return False
                self._replace_page(mm, address, small, node.folio)
            self._append(mm, address, vma, node)
        return True

    def _lock_small(self, mm: "Mm", address: int, folio: Folio) -> Folio | None:
        """Split a large folio, and write-protect the page (try_to_merge_one_page, write_protect_page).

        Fails where somebody holds more references than the mappings and the swap cache.
        """
        kernel = self.kernel
        if folio.nr_pages > 1 and not split_folio(kernel, folio):
            return None
        vpn = address >> PAGE_SHIFT
        table = mm.pgd[vpn >> 9]
        assert isinstance(table, dict)
        small = kernel.mem.pages[table[vpn] >> ENTRY_SHIFT]
        assert small is not None
        guard = kernel.locks.folio_trylock(small)
        if guard is None:
            return None
        with guard, kernel.locks.page_table(mm, address):
            if folio_test_ksm(small) or small.refs != (small in kernel.swap.slot_of):
                return None
            small.exclusive = 0
            table[vpn] &= ~WRITE
        return small

    def _forget_mapping(self, folio: Folio) -> None:
        """The design's mapping is overwritten: for hook 14 all its entries go."""
        if self.kernel.folio_removed is None:
            return
        places: list[tuple[Mm, int]] = []

        def rmap_one(vma: "Vma", address: int) -> bool:
            table = vma.vm_mm.pgd.get(address >> 21)
            entry = table.get(address >> PAGE_SHIFT) if isinstance(table, dict) else None
            if entry is not None and entry & KIND_MASK == PRESENT and entry >> ENTRY_SHIFT == folio.pfn:
                places.append((vma.vm_mm, address))
            return True

        rmap_walk(self.kernel, folio, rmap_one)
        for mm, address in places:
            self.kernel.folio_removed(folio, mm, address)

    def _replace_page(self, mm: "Mm", address: int, folio: Folio, kfolio: Folio) -> None:
        """replace_page: one entry changes over; what else maps `folio` keeps it."""
        kernel = self.kernel
        vpn = address >> PAGE_SHIFT
        table = mm.pgd[vpn >> 9]
        assert isinstance(table, dict)
        with kernel.locks.page_table(mm, address):
            kfolio.mapcount += 1
            table[vpn] = kfolio.pfn << ENTRY_SHIFT | PRESENT
            folio_remove_rmap(kernel, folio, mm, vpn)
        folio.refs += 1
        if not folio.mapcount:
            kernel.swap.folio_free_swap(folio)
        folio_put(kernel.mem, folio)

    # --- rmap items

    def _append(self, mm: "Mm", address: int, vma: "Vma", node: StableNode) -> None:
        """Remember where a page was merged, and pin what is needed to find its copies (stable_tree_append)."""
        old = self.items.get((mm, address))
        if old is not None:
            self._remove(old)
        item = RmapItem(mm, address, self.kernel.hooks.ksm_pin(vma), node)
        node.items.append(item)
        self.nodes.add(node)
        self.items[mm, address] = item

    def _remove(self, item: RmapItem) -> None:
        """remove_rmap_item_from_tree"""
        del self.items[item.mm, item.address]
        node = item.node
        node.items.remove(item)
        node.strays = True  # a child may have been found through this item only
        self.kernel.hooks.ksm_unpin(item.pinned)
        if not node.items and not self._alive(node):
            self.nodes.discard(node)

    def _alive(self, node: StableNode) -> bool:
        """Does the node's folio still exist? (ksm_get_folio)"""
        folio = node.folio
        return self.kernel.mem.pages[folio.pfn] is folio and folio.mapping is node

    def scan(self) -> None:
        """What a pass of ksmd forgets: items whose page is no longer the one that was merged, nodes without a folio."""
        for item in list(self.items.values()):
            found = self._mergeable(item.mm, item.address)
            if found is None or found[1].mapping is not item.node:
                self._remove(item)
        self.nodes = {node for node in self.nodes if self._alive(node)}

    def exit(self, mm: "Mm") -> None:
        """`mm` goes away (ksm_exit)."""
        for item in [item for (owner, _), item in self.items.items() if owner is mm]:
            self._remove(item)

    # --- unmerging

    def unmerge(self, mm: "Mm", start: int, end: int) -> None:
        """Give every KSM page in [start, end) a copy of its own, as a write fault would (unmerge_ksm_pages, break_ksm).

        The rmap items stay until the next scan.
        """
        mem = self.kernel.mem
        for vpn, entry in list(entries(mm.pgd, start >> PAGE_SHIFT, end >> PAGE_SHIFT)):
            if entry & KIND_MASK != PRESENT:
                continue
            folio = mem.pages[entry >> ENTRY_SHIFT]
            vma = mm.vma_lookup(vpn << PAGE_SHIFT)
            if folio is None or vma is None or not folio_test_ksm(folio) or not vma.vm_flags & VM_MERGEABLE:
                continue
            table = mm.pgd[vpn >> 9]
            assert isinstance(table, dict)
            self._unshare(mm, vma, vpn, table, folio)

    def _unshare(self, mm: "Mm", vma: "Vma", vpn: int, table: PageTable, folio: Folio) -> None:
        """wp_page_copy for FAULT_FLAG_UNSHARE: the copy is writable only where the VMA is"""
        kernel = self.kernel
        copy = kernel.mem.alloc()
        kernel.hooks.folio_set_anon(copy, vma, vpn << PAGE_SHIFT, True)
        kernel.mem.copy(copy.pfn, folio.pfn)
        copy.exclusive = 1
        copy.mapcount = 1
        with kernel.locks.page_table(mm, vpn << PAGE_SHIFT):
            table[vpn] = copy.pfn << ENTRY_SHIFT | PRESENT | (WRITE if vma.vm_flags & VM_WRITE else 0)
            folio.mapcount -= 1
        if folio.mapcount:
            return
        if folio.refs:
            kernel.swap.free_swap_cache(folio)
        else:
            kernel.mem.free(folio)

    # --- fork

    def dup_hook(self) -> "Callable[[Folio, Vma, Vma], bool | None]":
        """Hook 6 for folios that may be KSM's, which the design must not see."""
        try_dup_anon_rmap = self.kernel.hooks.try_dup_anon_rmap

        def dup(folio: Folio, vma: "Vma", pvma: "Vma") -> bool | None:
            return True if folio_test_ksm(folio) else try_dup_anon_rmap(folio, vma, pvma)

        return dup
