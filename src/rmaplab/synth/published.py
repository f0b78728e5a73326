# SPDX-License-Identifier: GPL-2.0-only
"""The table in the cover letter of "[PATCH 0/15] mm: introduce ANON_VMA_LAZY" (wangtao, 2026-05-27), and the slot
sizes that its digits imply.

Active slab KiB on an Android phone with 8 GiB, after boot and after 24 applications were opened. The figures have
six significant digits, which leaves few whole numbers of objects for each slot size:

- anon_vma_chain: of all multiples of 8 up to 192 only 64 gives a whole number in all four figures, and 64 is
  what the structure's members add up to on 64 bit.
- anon_vma: 64, 80, 128 and 160 do; 96, 104 (x86-64), 112 and 120 do not. 128 is the one that the structure can
  have on arm64: the members, the words that GKI adds to struct rw_semaphore for vendors, and the free pointer behind
  the object that SLAB_TYPESAFE_BY_RCU asks for.
- vm_area_struct: its figures are too coarse to tell. 256 is assumed: 192 bytes of members, the words that GKI
  reserves, rounded up to cache lines (SLAB_HWCACHE_ALIGN). Only the number of VMAs that never got an
  anonymous page depends on it.
"""

from typing import Final, NamedTuple

__all__ = ["PUBLISHED", "SLOTS", "Published", "objects"]

SLOTS: Final[dict[str, int]] = {"vm_area_struct": 256, "anon_vma": 128, "anon_vma_chain": 64}
"""Bytes of one slot of each cache."""


class Published(NamedTuple):
    """One cache at one point.

    before: KiB on the unpatched kernel
    after: KiB with the series
    percent: the change as printed in the mail
    """

    before: float
    after: float
    percent: float


PUBLISHED: Final[dict[str, dict[str, Published]]] = {
    "after boot": {
        "vm_area_struct": Published(117035, 118176, 1.0),
        "anon_vma": Published(20426.4, 613.75, -97.0),
        "anon_vma_chain": Published(18865.8, 8112.06, -57.0),
    },
    "after 24 applications": {
        "vm_area_struct": Published(196873, 197345, 0.2),
        "anon_vma": Published(33280, 2648.12, -92.0),
        "anon_vma_chain": Published(31477.1, 15576.8, -50.5),
    },
}
"""Point -> cache -> figures."""


def objects(kib: float, cache: str) -> int:
    """Objects in `kib` KiB of the slots of `cache`, to the nearest.

    >>> objects(613.75, "anon_vma")
    4910
    """
    return round(kib * 1024 / SLOTS[cache])
