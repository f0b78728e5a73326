# SPDX-License-Identifier: GPL-2.0-only
"""``struct ksm_stable_node`` and ``struct ksm_rmap_item``: what ``folio->mapping`` of a KSM folio leads to (mm/ksm.c).

The mapping of a KSM folio is KSM's own, not the design's: a walk for it goes from the stable node through the rmap
items, each of which holds what hook 11 pinned.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmaplab.mm.folio import Folio
    from rmaplab.mm.mm import Mm

__all__ = ["RmapItem", "StableNode", "folio_test_ksm"]


class RmapItem:
    """One page that was merged: where it was mapped at that time.

    pinned: what :meth:`Hooks.ksm_pin` returned for the VMA (``rmap_item->anon_vma``)
    """

    __slots__ = ("address", "mm", "node", "pinned")

    def __init__(self, mm: "Mm", address: int, pinned: Any, node: "StableNode") -> None:
        self.mm = mm
        self.address = address
        self.pinned = pinned
        self.node = node


class StableNode:
    """The node of one KSM folio.

    folio: followed when it migrates (folio_migrate_ksm)
    strays: some entries may map the folio without an rmap item, so that the walk misses them. That is mainline's own
        gap, and harmless to it: they count, so that the folio cannot be freed. It opens where a page was shared when
        it was merged (its relatives' VMAs may be in no anon_vma of this one's), and between ksmd's forgetting an
        address and its meeting the copies of the entry that a fork made, or that come back from the swap cache.
    """

    __slots__ = ("folio", "items", "strays")

    def __init__(self, folio: "Folio") -> None:
        self.folio = folio
        self.strays = folio.mapcount > 1
        self.items: list[RmapItem] = []


def folio_test_ksm(folio: "Folio") -> bool:
    """Is `folio` a KSM folio? (FOLIO_MAPPING_KSM)"""
    return folio.mapping.__class__ is StableNode
