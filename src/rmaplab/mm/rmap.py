# SPDX-License-Identifier: GPL-2.0-only
"""The users of the reverse mapping, down to the page-table entries (mm/rmap.c, mm/page_vma_mapped.c).

Hook 3 says which VMAs may map a folio, and where; this file looks at the entries there. Unless noted the caller
holds the folio lock and a reference; folio_referenced has callers that do not.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, nullcontext
from typing import TYPE_CHECKING, Any

from rmaplab.mm.flags import PAGE_SHIFT, PMD_SHIFT, VM_LOCKED
from rmaplab.mm.folio import Folio
from rmaplab.mm.hooks import WalkContended
from rmaplab.mm.huge_pmd import split_huge_pmd_locked
from rmaplab.mm.pagetable import (
    ENTRY_SHIFT,
    EXCLUSIVE,
    HWPOISON,
    KIND_MASK,
    MIGRATION,
    PRESENT,
    SWAP,
    PageTable,
    tables_in,
)
from rmaplab.mm.stable_node import StableNode, folio_test_ksm

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = [
    "folio_referenced",
    "folio_remove_rmap",
    "page_vma_mapped_walk",
    "pte_table",
    "rmap_walk",
    "rmap_walk_ksm",
    "try_to_migrate",
    "try_to_unmap",
    "visits",
    "vma_address_end",
]


def vma_address_end(folio: Folio, vma: "Vma", address: int) -> int:
    """Where the search for pages of `folio`, the first of which in `vma` would be at `address`, ends: an address in
    bytes (vma_address_end)."""
    if folio.nr_pages == 1:  # also a KSM folio, whose index means nothing
        return address + (1 << PAGE_SHIFT)
    end_index = folio.index + folio.nr_pages
    return min(vma.vm_end, vma.vm_start + ((end_index - vma.vm_pgoff) << PAGE_SHIFT))


def page_vma_mapped_walk(
    folio: Folio, vma: "Vma", address: int, kind: int = PRESENT
) -> Iterator[tuple[int, int, bool]]:
    """(vpn, entry, is it a PMD entry) of each entry in `vma` from `address` on that maps a page of `folio`, or names
    one of them with a MIGRATION entry if `kind` says so (PVMW_MIGRATION). The page-table lock is held at each.

    The caller may change the entry, also split the PMD entry: the walk goes on in its table.
    """
    mm = vma.vm_mm
    first, last = address >> PAGE_SHIFT, vma_address_end(folio, vma, address) >> PAGE_SHIFT
    pfn, end_pfn = folio.pfn, folio.pfn + folio.nr_pages
    if first >= last:
        return
    for i in tables_in(mm.pgd, first, last):
        with mm.kernel.locks.page_table(mm, i << PMD_SHIFT):
            table = mm.pgd.get(i)
            if isinstance(table, int):
                if kind == PRESENT and pfn <= table >> ENTRY_SHIFT < end_pfn:
                    yield i << 9, table, True
                table = mm.pgd.get(i)
            if not isinstance(table, dict):
                continue
            for vpn in range(max(first, i << 9), min(last, (i + 1) << 9)):
                entry = table.get(vpn)
                if entry is not None and entry & KIND_MASK == kind and pfn <= entry >> ENTRY_SHIFT < end_pfn:
                    yield vpn, entry, False


def pte_table(mm: "Mm", vpn: int) -> PageTable:
    """The table that holds the entry of `vpn`, which a walk has just seen there."""
    table = mm.pgd[vpn >> 9]
    assert isinstance(table, dict)
    return table


def rmap_walk_ksm(kernel: "Kernel", node: StableNode) -> Iterator[tuple["Vma", int]]:
    """rmap_walk_ksm: the VMAs that cover the addresses which the rmap items remember; first those of the mm in which
    the page was merged, then, if there is still work, those of others, which may have been forked from it since."""
    for search_new_forks in (False, True):
        for item in list(node.items):
            with closing(kernel.hooks.ksm_walk(item.pinned, item.address)) as found:  # type: ignore[type-var]
                for vma, address in found:
                    if (item.mm is vma.vm_mm) != search_new_forks:
                        yield vma, address


def visits(kernel: "Kernel", folio: Folio, pinned: Any = None, locked: bool = False) -> Iterator[tuple["Vma", int]]:
    """(vma, address of the first page) of every place where `folio` may be mapped (rmap_walk's choice of a walk).

    pinned, locked: as for :meth:`Hooks.rmap_walk_anon`
    """
    if folio_test_ksm(folio):
        return rmap_walk_ksm(kernel, folio.mapping)
    return kernel.hooks.rmap_walk_anon(folio, pinned, locked)


def rmap_walk(
    kernel: "Kernel",
    folio: Folio,
    rmap_one: Callable[["Vma", int], bool],
    pinned: Any = None,
    locked: bool = False,
    must: bool = False,
) -> bool:
    """Call `rmap_one` for every place where `folio` may be mapped, until it returns False (rmap_walk). False if a lock
    could not be had, so that places may be missing; WalkContended if they `must` not."""
    try:
        with closing(visits(kernel, folio, pinned, locked)) as found:  # type: ignore[type-var]
            for vma, address in found:
                if not rmap_one(vma, address):
                    break
    except WalkContended:
        if must:
            raise
        return False
    return True


def folio_remove_rmap(kernel: "Kernel", folio: Folio, mm: "Mm", vpn: int) -> None:
    """One entry less maps `folio`, and its reference is the caller's (folio_remove_rmap_ptes, with hook 14). KSM folios
    are none of the design's. Page-table lock held."""
    folio.remove_rmap()
    if kernel.folio_removed is not None and not folio_test_ksm(folio):
        kernel.folio_removed(folio, mm, vpn << PAGE_SHIFT)


def _clear_exclusive(folio: Folio, entry: int) -> bool:
    """Was the page exclusive? It no longer is (folio_try_share_anon_rmap_pte)."""
    bit = 1 << ((entry >> ENTRY_SHIFT) - folio.pfn)
    was = bool(folio.exclusive & bit)
    folio.exclusive &= ~bit
    return was


def try_to_unmap(kernel: "Kernel", folio: Folio, *, hwpoison: bool = False, ignore_mlock: bool = False) -> bool:
    """Replace every entry that maps `folio`, which is in the swap cache, by a swap entry; True if none is left.

    hwpoison: by an entry that says that the page is broken (TTU_HWPOISON)
    ignore_mlock: also in VM_LOCKED VMAs, which otherwise end the walk (TTU_IGNORE_MLOCK)

    Citing: try_to_unmap, try_to_unmap_one. Under the folio lock; the caller holds a reference besides.
    """
    kernel.special = True
    slot = None if hwpoison else kernel.swap.slot_of[folio]
    if slot is not None and folio_test_ksm(folio):
        kernel.swap.from_ksm.add(slot)

    def rmap_one(vma: "Vma", address: int) -> bool:
        mm = vma.vm_mm
        for vpn, entry, huge in page_vma_mapped_walk(folio, vma, address):
            if vma.vm_flags & VM_LOCKED and not ignore_mlock:
                return False
            if huge:
                split_huge_pmd_locked(mm, vpn >> 9)  # TTU_SPLIT_HUGE_PMD
                continue
            exclusive = _clear_exclusive(folio, entry)
            if slot is None:
                new = entry >> ENTRY_SHIFT << ENTRY_SHIFT | HWPOISON
            else:
                page_slot = slot + (entry >> ENTRY_SHIFT) - folio.pfn
                kernel.swap.duplicate(page_slot)
                new = page_slot << ENTRY_SHIFT | SWAP | (EXCLUSIVE if exclusive else 0)
            pte_table(mm, vpn)[vpn] = new
            folio_remove_rmap(kernel, folio, mm, vpn)
            folio.put()
        return folio.mapcount > 0  # rwc.done = folio_not_mapped

    return rmap_walk(kernel, folio, rmap_one, must=hwpoison) and not folio.mapcount


def try_to_migrate(kernel: "Kernel", folio: Folio, pinned: Any = None, locked: bool = False) -> bool:
    """Replace every entry that maps `folio` by a migration entry; True if none is left (try_to_migrate_one).

    pinned, locked: as for :meth:`Hooks.rmap_walk_anon`

    A migration entry still counts as a mapping for the design: hook 14 is not called. PMD entries are split first, as
    where the architecture has no PMD migration entries, and as folio split does anywhere (TTU_SPLIT_HUGE_PMD).
    """
    kernel.special = True

    def rmap_one(vma: "Vma", address: int) -> bool:
        for vpn, entry, huge in page_vma_mapped_walk(folio, vma, address):
            if huge:
                split_huge_pmd_locked(vma.vm_mm, vpn >> 9)
                continue
            exclusive = _clear_exclusive(folio, entry)
            new = entry >> ENTRY_SHIFT << ENTRY_SHIFT | MIGRATION | (EXCLUSIVE if exclusive else 0)
            pte_table(vma.vm_mm, vpn)[vpn] = new
            folio.remove_rmap()
            folio.put()
        return folio.mapcount > 0

    return rmap_walk(kernel, folio, rmap_one, pinned, locked) and not folio.mapcount


def folio_referenced(kernel: "Kernel", folio: Folio, is_locked: bool = True) -> int:
    """How many entries the walk finds that map `folio`. The kernel asks each for its accessed bit and clears it; so do
    page idle tracking and DAMON (folio_referenced_one, page_idle_clear_pte_refs_one, damon_folio_young_one). -1 where
    the walk was contended: nobody waits for it.

    is_locked: the caller holds the folio lock (shrink_folio_list does, shrink_active_list does not). Who does not needs
        it for a KSM folio: if somebody else has it, the folio counts as referenced
    """
    guard: AbstractContextManager[Any] | None = nullcontext()
    if not is_locked and folio_test_ksm(folio):
        guard = kernel.locks.folio_trylock(folio)
    if guard is None:
        return 1
    with guard:
        return _folio_referenced(kernel, folio)


def _folio_referenced(kernel: "Kernel", folio: Folio) -> int:
    found = 0

    def rmap_one(vma: "Vma", address: int) -> bool:
        nonlocal found
        for _ in page_vma_mapped_walk(folio, vma, address):
            found += 1
        return True

    if folio.mapcount and not rmap_walk(kernel, folio, rmap_one):
        return -1
    return found
