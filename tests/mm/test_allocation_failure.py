# SPDX-License-Identifier: GPL-2.0-only
"""Every allocation of a history fails once, in a run of its own: what was begun is undone, and nothing is left in the
end (vm_area_alloc, vm_area_dup, anon_vma_clone, anon_vma_fork, __anon_vma_prepare returning -ENOMEM)."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from rmaplab.check.oracle import check_gone, check_walks
from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm import flags as fl
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mmap import brk, do_mmap
from rmaplab.mm.profile import PROFILES
from rmaplab.mm.slab import AllocationFailure, SlabCache
from rmaplab.workload.random_ops import Op
from rmaplab.workload.walk_ops import WalkWorld, generate
from tests.support.builders import folio_at, layout, live, move
from tests.support.walks import contents_kernel, finish, made


@contextmanager
def failing(patch: pytest.MonkeyPatch, number: int) -> Iterator[list[str]]:
    """The `number`-th allocation from now on fails; the list names the caches asked."""
    asked: list[str] = []
    real = SlabCache.alloc

    def alloc(self: SlabCache, obj: object) -> object:
        asked.append(self.name)
        if len(asked) == number:
            raise AllocationFailure(self.name)
        return real(self, obj)

    with patch.context() as context:
        context.setattr(SlabCache, "alloc", alloc)
        yield asked


def run(history: Sequence[Op], number: int, profile: str, patch: pytest.MonkeyPatch) -> bool:
    """Is there a `number`-th allocation in `history`?"""
    kernel = Kernel(AnonVmaDesign(), PROFILES[profile], contents=True)
    world = WalkWorld(kernel)
    failed = False
    with failing(patch, number):
        for op in history:
            try:
                world.apply(op)
            except AllocationFailure:
                failed = True
                for mm in world.mms.values():
                    mm.check()
                check_walks(kernel, world.mms.values())
    check_walks(kernel, world.mms.values())
    world.exit_all()
    return failed


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("seed", range(12))
def test_every_allocation_may_fail(seed: int, profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    history = generate(seed, 24, share=0.3)
    number = 1
    absorbed = 0  # mmap does without a merge, mremap keeps its source
    while absorbed < 8:
        absorbed = 0 if run(history, number, profile, monkeypatch) else absorbed + 1
        number += 1
    assert number > 12


@pytest.fixture
def kernel() -> Kernel:
    return contents_kernel()


def test_half_made_child_is_torn_down(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """dup_mmap's error path and exit_mmap: the VMAs that were copied go, with their entries."""
    mm = made(kernel)
    do_mmap(mm, 0x20 << 12, 4 << 12, 3, fl.MAP_FIXED)
    before = live(kernel)
    for number in range(1, 5):  # VMA, AVC, anon_vma, AVC of the first; then the second's
        with failing(monkeypatch, number), pytest.raises(AllocationFailure):
            dup_mm(mm)
        assert live(kernel) == before
        assert folio_at(mm, 0x10).mapcount == 1
        check_walks(kernel, [mm])
    finish(kernel, mm)


def test_mmap_leaves_a_gap(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """vms_abort_munmap_vmas: what was there is gone."""
    mm = made(kernel)
    with failing(monkeypatch, 1), pytest.raises(AllocationFailure):
        do_mmap(mm, 0x10 << 12, 4 << 12, 1, fl.MAP_FIXED)
    assert layout(mm) == []
    assert kernel.mem.live == 0
    finish(kernel, mm)


def test_break_stays_where_it_was(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    mm = kernel.mm_alloc()
    brk(mm, 0x100000)
    with failing(monkeypatch, 1), pytest.raises(AllocationFailure):
        brk(mm, 0x102000)
    assert (mm.brk, layout(mm)) == (0x100000, [])
    brk(mm, 0x102000)
    assert layout(mm) == [(0x100, 0x102, 0x100)]
    finish(kernel, mm)


def test_split_and_copy_are_undone(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """__split_vma, copy_vma: the new VMA is freed where anon_vma_clone fails."""
    mm = made(kernel)
    before = live(kernel)
    for number in (1, 2):
        with failing(monkeypatch, number) as asked, pytest.raises(AllocationFailure):
            move(mm, 0x10, 0x14, 0x40)
        assert asked[-1] == ("vm_area_struct", "anon_vma_chain")[number - 1]
        assert live(kernel) == before
        assert layout(mm) == [(0x10, 0x14, 0x10)]
    check_walks(kernel, [mm])
    finish(kernel, mm)
    check_gone(kernel)
