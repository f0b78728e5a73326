# SPDX-License-Identifier: GPL-2.0-only
"""Recomputes the set of VMAs of every folio from all page tables, and compares."""

from collections import defaultdict
from collections.abc import Iterable

from rmaplab.designs.vma_set import VmaSetDesign
from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT
from rmaplab.mm.stable_node import folio_test_ksm
from rmaplab.mm.vma import Vma

__all__ = ["check_vma_sets"]


def check_vma_sets(design: VmaSetDesign, mms: Iterable[Mm]) -> None:
    """Raise AssertionError unless each folio's set is exactly the VMAs that map it, and the slab agrees.

    mms: all live ones; no folio is under migration.
    """
    expected: dict[Folio, set[Vma]] = defaultdict(set)
    for mm in mms:
        for vpn, entry in mm.anon_entries():
            if entry & KIND_MASK != PRESENT:
                continue
            folio = design.kernel.mem.pages[entry >> ENTRY_SHIFT]
            assert folio is not None
            if not folio_test_ksm(folio):
                pages = 512 if isinstance(mm.pgd[vpn >> 9], int) else 1
                expected[folio].update(mm.vmas_in(vpn << PAGE_SHIFT, (vpn + pages) << PAGE_SHIFT))
    links = 0
    for folio in design.kernel.mem.folios():
        if folio.mapping is not None and not folio_test_ksm(folio):
            vmas = folio.mapping.vmas
            assert set(vmas) == expected[folio], f"{folio}: {list(vmas)}, not {expected[folio]}"
            assert not folio.mapping.pinned, f"{folio}: still pinned"
            links += len(vmas)
    assert design.kernel.slabs[-1].live == links, "folio_vma_link: live objects"
    assert design.kernel.anon_vma.live == design.kernel.anon_vma_chain.live == 0
