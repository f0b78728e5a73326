# SPDX-License-Identifier: GPL-2.0-only
"""Mistakes in the forms with synchronous upgrade, repaired: what they do otherwise than `gki_locked`."""

from collections.abc import Generator
from contextlib import nullcontext
from types import MethodType
from typing import Any

from rmaplab.check.mutant import Mutant, without_hook
from rmaplab.designs.gki_sync import GkiSyncDesign
from rmaplab.designs.lazy_walk import unlocked_places
from rmaplab.mm.folio import Folio
from rmaplab.mm.vma import Vma

__all__ = ["SYNC"]


def _unlink_without_lock(design: Any) -> None:
    design.unlink_anon_vmas = MethodType(GkiSyncDesign.unlink_anon_vmas, design)


def _upgrade_without_lock(design: Any) -> None:
    design.link_all = MethodType(GkiSyncDesign.link_all, design)


def _pin_without_lock(design: Any) -> None:
    design._pin = MethodType(GkiSyncDesign._pin, design)


def _no_second_look(design: Any) -> None:
    def walk(folio: Folio, named: Vma, locked: bool) -> Generator[tuple[Vma, int], None, bool]:
        mm = named.vm_mm
        with nullcontext() if locked else design.kernel.locks.anon_vma_read(design.lock_of(mm)):
            yield from unlocked_places(mm, design.base_of(named), folio, design.belongs_to(named), lockless=False)
        return True

    design._walk = walk


SYNC: tuple[Mutant, ...] = (
    Mutant(
        "sync-no-rewrite",
        "gki_sync_locked",
        "the upgrade does not rewrite the mappings (claim B)",
        "fork; a walk from the root does not come to the child",
        ((1, ""), (0, "")),
        ("reclaim-fork", "migrate-fork"),
        without_hook("_rewrite"),
    ),
    Mutant(
        "nofork-shares",
        "gki_nofork_locked",
        "fork shares the pages of a lazy VMA instead of copying them (hook 6)",
        "fork; a walk from the root does not come to the child",
        ((1, ""), (0, "")),
        ("reclaim-fork", "migrate-fork"),
        without_hook("try_dup_anon_rmap"),
    ),
    Mutant(
        "shared-unlink-unlocked",
        "gki_sync_shared",
        "unlink_anon_vmas of a lazy VMA does not take the shared lock (hook 7)",
        "the walk is in the page table that munmap frees",
        ((0, "lock ptl"), (1, "")),
        ("referenced-munmap", "reclaim-munmap-reuse"),
        _unlink_without_lock,
    ),
    Mutant(
        "shared-upgrade-unlocked",
        "gki_sync_shared",
        "an upgrade does not take the shared lock (hook 5)",
        "migration's walk has seen that folio->mapping names a VMA; fork upgrades, and rewrites it; the walk takes the "
        "anon_vma for a VMA",
        ((0, "read in rmap_walk #3"), (1, "write Vma #3"), (0, "")),
        ("migrate-fork",),
        _upgrade_without_lock,
    ),
    Mutant(
        "shared-pin-unlocked",
        "gki_sync_shared",
        "hook 4 does not hold the shared lock",
        "the walks of a migration read the range of a VMA that fork or munmap may change; seen without these",
        ((0, ""),),
        ("migrate-fork", "migrate-munmap"),
        _pin_without_lock,
    ),
    Mutant(
        "shared-no-second-look",
        "gki_sync_shared",
        "a walk does not ask under the shared lock if the folio still names the root (hook 3)",
        "memory failure has read folio->mapping; fork upgrades, and shares the page; the walk comes to the parent only",
        ((0, "lock anon_vma in try_to_unmap"), (1, ""), (0, "")),
        ("poison-fork",),
        _no_second_look,
    ),
)
