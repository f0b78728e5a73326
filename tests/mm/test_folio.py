# SPDX-License-Identifier: GPL-2.0-only
from rmaplab.mm.folio import MemMap


def test_every_page_of_a_large_folio_finds_it() -> None:
    mem = MemMap()
    small, large = mem.alloc(), mem.alloc_large(4)
    assert mem.pages[small.pfn] is small
    assert [mem.pages[large.pfn + i] for i in range(4)] == [large] * 4
    assert mem.live == 5
    assert mem.folios() == [small, large]


def test_freed_frames_are_used_again_for_the_same_size() -> None:
    """A frame handed out twice, or one of another size."""
    mem = MemMap()
    large = mem.alloc_large(4)
    other = mem.alloc()
    mem.free(large)
    assert mem.live == 1
    assert mem.pages[large.pfn] is None
    small = mem.alloc()
    assert not large.pfn <= small.pfn < large.pfn + 4
    again = mem.alloc_large(4)
    assert again.pfn == large.pfn
    assert again is not large
    assert mem.folios() == [again, other, small]
