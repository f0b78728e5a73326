# SPDX-License-Identifier: GPL-2.0-only
import pytest

from rmaplab.mm.slab import SLAB_PROFILES, AllocationFailure, SlabCache, SlabSize, slab_pages


def test_live_and_total() -> None:
    """Frees must lower the live count and not the total."""
    cache = SlabCache("anon_vma", 1)
    first, second = object(), object()
    cache.alloc(first)
    cache.alloc(second)
    cache.free(first)
    assert (cache.live, cache.total) == (1, 2)


def test_log_names_event_cache_and_object() -> None:
    cache = SlabCache("anon_vma", 1)
    unlogged, obj = object(), object()
    cache.alloc(unlogged)
    cache.log = []
    cache.alloc(obj)
    cache.free(unlogged)
    assert cache.log == [(1, 1, obj), (0, 1, unlogged)]


def test_failure_hits_one_allocation_and_counts_nothing() -> None:
    """A failed allocation that is counted would never be freed."""
    cache = SlabCache("anon_vma", 1)
    cache.fail = True
    with pytest.raises(AllocationFailure):
        cache.alloc(object())
    assert (cache.live, cache.total) == (0, 0)
    cache.alloc(object())
    assert cache.live == 1


@pytest.mark.parametrize(
    ("objects", "slot", "order_pages", "expected"),
    [
        (0, 104, 1, 0),
        (1, 104, 1, 1),
        (39, 104, 1, 1),  # 4096 // 104 == 39: as /proc/slabinfo has it
        (40, 104, 1, 2),
        (21, 192, 1, 1),
        (22, 192, 1, 2),
        (1, 256, 2, 2),
        (33, 256, 2, 4),
    ],
)
def test_slab_pages_round_up_to_whole_slabs(objects: int, slot: int, order_pages: int, expected: int) -> None:
    assert slab_pages(objects, SlabSize(slot, slot, order_pages), 4096) == expected


@pytest.mark.parametrize("profile", SLAB_PROFILES)
def test_profiles_are_possible(profile: str) -> None:
    """Every cache has a size, and a slot holds its object and keeps it aligned to a word."""
    sizes = SLAB_PROFILES[profile]
    assert set(sizes) >= {"vm_area_struct", "anon_vma", "anon_vma_chain"}
    for size in sizes.values():
        assert 0 < size.object_size <= size.slot_size
        assert size.slot_size % 8 == 0
        assert size.pages_per_slab.bit_count() == 1
