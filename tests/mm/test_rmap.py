# SPDX-License-Identifier: GPL-2.0-only
"""rmap_walk's callers and page_vma_mapped_walk."""

from collections.abc import Iterator
from typing import Any

import pytest

from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm import flags as fl
from rmaplab.mm.folio import Folio
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import MIGRATION
from rmaplab.mm.rmap import folio_referenced, page_vma_mapped_walk, rmap_walk, try_to_migrate, try_to_unmap, visits
from rmaplab.mm.vma import Vma
from rmaplab.mm.zap import zap_range
from tests.support.builders import RW, folio_at, link, move
from tests.support.walks import contents_kernel, fill, kind, made, store


@pytest.fixture
def kernel() -> Kernel:
    return contents_kernel(thp="always")


def places(mm: Mm, folio: Folio, kind_: int | None = None, pinned: Any = None) -> list[tuple[int, bool]]:
    """(page, is it a PMD entry) that the walk finds in the VMAs that the design names, of `mm`."""
    found = []
    for vma, address in visits(mm.kernel, folio, pinned):
        walk = page_vma_mapped_walk(folio, vma, address, *(() if kind_ is None else (kind_,)))
        found += [(vpn, huge) for vpn, _, huge in walk if vma.vm_mm is mm]
    return found


def huge_mm(kernel: Kernel) -> Mm:
    mm = kernel.mm_alloc()
    link(mm, 512, 1024)
    fill(mm, 512, 514)
    return mm


def test_pmd_entry_is_found_as_one(kernel: Kernel) -> None:
    """check_pmd: not looked through as 512 pages"""
    mm = huge_mm(kernel)
    assert places(mm, folio_at(mm, 512)) == [(512, True)]


def test_several_entries_of_a_large_folio(kernel: Kernel) -> None:
    """After a partial unmap, from the first page of the folio that the VMA still covers on."""
    mm = huge_mm(kernel)
    folio = folio_at(mm, 512)
    zap_range(mm, 514 << 12, 1022 << 12)
    assert places(mm, folio) == [(512, False), (513, False), (1022, False), (1023, False)]


def test_vma_split_through_a_large_folio(kernel: Kernel) -> None:
    """vma_adjust_trans_huge splits the PMD; each half is visited, and vma_address_end bounds the search in it."""
    mm = huge_mm(kernel)
    folio = folio_at(mm, 512)
    move(mm, 512, 768, 2048)
    assert sorted(vma.vm_start >> 12 for vma, _ in visits(kernel, folio)) == [768, 2048]
    found = sorted(vpn for vpn, _ in places(mm, folio))
    assert found == [*range(768, 1024), *range(2048, 2304)]


def test_other_pages_at_the_place_do_not_count(kernel: Kernel) -> None:
    """check_pte: after copy-on-write, the child's page at the same address is not the parent's."""
    mm = made(kernel)
    child = dup_mm(mm)
    store(child, 0x10, 5)
    assert places(child, folio_at(mm, 0x10)) == []
    assert places(mm, folio_at(mm, 0x10)) == [(0x10, False)]


def test_migration_entries_only_when_asked_for(kernel: Kernel) -> None:
    """PVMW_MIGRATION"""
    mm = made(kernel)
    folio = folio_at(mm, 0x10)
    pinned = kernel.hooks.folio_get_anon_vma(folio)
    assert try_to_migrate(kernel, folio, pinned)
    assert places(mm, folio, pinned=pinned) == []
    assert places(mm, folio, MIGRATION, pinned) == [(0x10, False)]


def test_unmap_leaves_swap_entries(kernel: Kernel) -> None:
    """try_to_unmap_one: the PMD is split first; pages that were exclusive are marked so (pte_swp_mkexclusive)."""
    mm = huge_mm(kernel)
    child = dup_mm(mm)
    store(child, 512, 5)
    folio = folio_at(mm, 512)
    kernel.swap.add_to_swap(folio)
    assert try_to_unmap(kernel, folio)
    assert (folio.mapcount, folio.exclusive) == (0, 0)
    assert {kind(mm, page) for page in range(512, 1024)} == {"swap"}
    assert kind(child, 512) == "present w"
    assert {kernel.swap.counts[slot] for slot in range(2, 513)} == {2}
    assert kernel.swap.counts[1] == 1  # the child has its own first page


def test_mlocked_vma_ends_the_walk(kernel: Kernel) -> None:
    """try_to_unmap_one: walk_abort at VM_LOCKED, whatever other VMAs there are; not with TTU_IGNORE_MLOCK."""
    mm = made(kernel, flags=RW | fl.VM_LOCKED)
    child = dup_mm(mm)  # its VMA is not locked, and visited later
    folio = folio_at(mm, 0x10)
    kernel.swap.add_to_swap(folio)
    assert not try_to_unmap(kernel, folio)
    assert kind(mm, 0x10) == kind(child, 0x10) == "present"
    assert try_to_unmap(kernel, folio, ignore_mlock=True)


def test_walk_ends_when_nothing_maps_the_folio(kernel: Kernel) -> None:
    """rwc.done = folio_not_mapped"""
    visited = []

    class Spy(AnonVmaDesign):
        def rmap_walk_anon(self, folio: Folio, pinned: Any = None, locked: bool = False) -> Iterator[tuple[Vma, int]]:
            for vma, address in super().rmap_walk_anon(folio, pinned, locked):
                visited.append(vma.vm_mm)
                yield vma, address

    kernel = contents_kernel(Spy())
    mm = made(kernel)
    child = dup_mm(mm)
    store(child, 0x10, 5)
    folio = folio_at(mm, 0x10)
    assert try_to_migrate(kernel, folio)
    assert visited == [mm]


def test_walk_can_be_ended_by_its_user(kernel: Kernel) -> None:
    """rmap_one returns false; the lock of the walk is released at once."""
    mm = made(kernel)
    dup_mm(mm)
    seen: list[Mm] = []

    def rmap_one(vma: Vma, address: int) -> bool:
        seen.append(vma.vm_mm)
        return False

    rmap_walk(kernel, folio_at(mm, 0x10), rmap_one)
    assert seen == [mm]


def test_referenced_counts_mappings(kernel: Kernel) -> None:
    """folio_referenced_one runs for every mapping; an unmapped folio is not walked for."""
    mm = made(kernel)
    dup_mm(dup_mm(mm))
    folio = folio_at(mm, 0x10)
    assert folio_referenced(kernel, folio) == 3
    folio.mapcount = 0
    assert folio_referenced(kernel, folio) == 0
