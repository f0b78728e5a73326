# SPDX-License-Identifier: GPL-2.0-only
"""Merging VMAs: the cases of the kernel's tools/testing/vma/vma.c and tools/testing/selftests/mm/merge.c.

Each test names the kernel test whose case it is. Cases that a profile decides run under both. Not applicable:
test_vmi_prealloc_fail (the maple tree of the model does not allocate), handle_uprobe_upon_merged_vma (no uprobes),
sticky flags (after 6.18).
"""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import brk
from rmaplab.mm.mremap import copy_vma
from rmaplab.mm.protect import mprotect
from rmaplab.mm.vma import (
    File,
    Vma,
    vma_expand,
    vma_merge_existing_range,
    vma_merge_new_range,
    vma_modify,
)
from tests.support.builders import RO, RW, layout, link, live, make_kernel, mmap, move, resize, write

PROT_RW = fl.PROT_READ | fl.PROT_WRITE


@pytest.fixture(params=["6.12", "6.18"])
def kernel(request: pytest.FixtureRequest) -> Kernel:
    return make_kernel(request.param)


@pytest.fixture
def mm(kernel: Kernel) -> Mm:
    return kernel.mm_alloc()


@pytest.fixture
def new_mm() -> Mm:
    """Of 6.18, whatever the other fixtures say."""
    return make_kernel("6.18").mm_alloc()


def merge_new(mm: Mm, first: int, last: int, flags: int = RW, *, just_expand: bool = False) -> Vma | None:
    prev, next_ = mm.neighbours(first << 12, last << 12)
    return vma_merge_new_range(
        mm, first << 12, last << 12, first, flags, None, prev=prev, next_=next_, just_expand=just_expand
    )


def merge_existing(mm: Mm, vma: Vma, first: int, last: int, flags: int = RW) -> Vma | None:
    return vma_merge_existing_range(mm, vma, first << 12, last << 12, flags)


# --- ranges


def test_new_range_joins_both_neighbours(mm: Mm) -> None:
    """A gap filled between two equal VMAs leaves one VMA, the lower one (simple_merge)."""
    left = link(mm, 0, 1)
    link(mm, 2, 3)
    assert merge_new(mm, 1, 2) is left
    assert layout(mm) == [(0, 3, 0)]


def test_expand_covers_the_range_asked_for(mm: Mm) -> None:
    """Growing a VMA must change its end and nothing else (simple_expand)."""
    vma = link(mm, 0, 1)
    vma_expand(mm, vma, 0, 3 << 12, 0)
    assert layout(mm) == [(0, 3, 0)]


def test_new_ranges_merge_in_every_direction(mm: Mm, kernel: Kernel) -> None:
    """The wrong survivor, range or anon_vma after merges to the left, to the right and to both sides (merge_new)."""
    a = link(mm, 0, 2)
    link(mm, 3, 4, fault=True)
    c = link(mm, 11, 12)
    assert merge_new(mm, 7, 9) is None
    d = link(mm, 7, 9)

    assert merge_new(mm, 2, 3) is a  # both: a takes over the anon_vma of the VMA that goes
    owned = a.anon_vma
    assert owned is not None
    assert layout(mm) == [(0, 4, 0), (7, 9, 7), (11, 12, 11)]
    assert live(kernel) == (3, 1, 1)

    assert merge_new(mm, 4, 5) is a  # to the left
    assert merge_new(mm, 6, 7) is d  # to the right
    assert layout(mm) == [(0, 5, 0), (6, 9, 6), (11, 12, 11)]
    assert merge_new(mm, 5, 6) is a  # both
    assert merge_new(mm, 10, 11) is c
    assert merge_new(mm, 9, 10) is a
    assert layout(mm) == [(0, 12, 0)]
    assert a.anon_vma is owned
    assert live(kernel) == (1, 1, 1)


def test_other_flags_offset_or_file_do_not_merge(mm: Mm) -> None:
    """A merge that forgets to compare the flags, the linear offset or the file (is_mergeable_vma)."""
    link(mm, 0, 2)
    assert merge_new(mm, 2, 3, RO) is None
    prev, next_ = mm.neighbours(2 << 12, 3 << 12)
    assert vma_merge_new_range(mm, 2 << 12, 3 << 12, 7, RW, None, prev=prev, next_=next_) is None
    assert vma_merge_new_range(mm, 2 << 12, 3 << 12, 2, RW, File("a"), prev=prev, next_=next_) is None


def test_special_vmas_never_merge(mm: Mm) -> None:
    """VM_SPECIAL must keep a new and a changed range apart from an equal neighbour (vma_merge_special_flags)."""
    special = RW | fl.VM_SPECIAL
    link(mm, 0, 3, special)
    assert merge_new(mm, 3, 4, special) is None
    vma = link(mm, 3, 4, special)
    assert merge_existing(mm, vma, 3, 4, special) is None


def test_existing_vma_with_close_is_not_removed(mm: Mm) -> None:
    """A merge that removes a VMA whose vm_ops->close has yet to run (vma_merge_with_close). In the model all VMAs of
    a file have close or none has, so the kernel's case of a sole `next` with it cannot arise."""
    file = File("SYSV", close=True)
    vmas = [link(mm, *r, file=file) for r in ((0, 3), (3, 5), (5, 9))]
    assert merge_existing(mm, vmas[1], 3, 5) is None
    assert layout(mm) == [(0, 3, 0), (3, 5, 3), (5, 9, 5)]
    file.close = False
    assert merge_existing(mm, vmas[1], 3, 5) is vmas[0]
    assert layout(mm) == [(0, 9, 0)]


def test_boundary_of_vmas_with_close_may_shift(mm: Mm) -> None:
    """Refusing a merge that removes nothing (merge_existing: "should have no impact")."""
    file = File("SYSV", close=True)
    prev, vma = link(mm, 0, 3, file=file), link(mm, 3, 7, file=file)
    assert merge_existing(mm, vma, 3, 6) is prev
    assert layout(mm) == [(0, 6, 0), (6, 7, 6)]


def test_new_range_between_vmas_with_close(mm: Mm) -> None:
    """The merge with both sides must shrink to one with the lower side alone (vma_merge_new_with_close)."""
    file = File("SYSV", close=True)
    prev, next_ = link(mm, 0, 2, file=file), link(mm, 5, 7, file=file)
    merged = vma_merge_new_range(mm, 2 << 12, 5 << 12, 2, RW, file, prev=prev, next_=next_)
    assert merged is prev
    assert layout(mm) == [(0, 5, 0), (5, 7, 5)]


@pytest.mark.parametrize(
    ("vmas", "middle", "part", "survivor", "expected"),
    [
        pytest.param([(2, 6), (6, 9)], 0, (3, 6), 1, [(2, 3, 2), (3, 9, 3)], id="right, part"),
        pytest.param([(2, 6), (6, 9)], 0, (2, 6), 1, [(2, 9, 2)], id="right, whole"),
        pytest.param([(0, 3), (3, 7)], 1, (3, 6), 0, [(0, 6, 0), (6, 7, 6)], id="left, part"),
        pytest.param([(0, 3), (3, 7)], 1, (3, 7), 0, [(0, 7, 0)], id="left, whole"),
        pytest.param([(0, 3), (3, 7), (7, 9)], 1, (3, 7), 0, [(0, 9, 0)], id="both"),
    ],
)
def test_part_of_a_vma_joins_its_neighbour(
    mm: Mm,
    vmas: list[tuple[int, int]],
    middle: int,
    part: tuple[int, int],
    survivor: int,
    expected: list[tuple[int, int, int]],
) -> None:
    """The wrong survivor or boundary when a changed range joins a neighbour (merge_existing)."""
    made = [link(mm, *r) for r in vmas]
    assert merge_existing(mm, made[middle], *part) is made[survivor]
    assert layout(mm) == expected
    mm.check()


@pytest.mark.parametrize("part", [(4, 5), (5, 6), (6, 7), (4, 7), (4, 6)])
def test_inner_part_of_a_vma_never_merges(mm: Mm, part: tuple[int, int]) -> None:
    """A merge of a range that touches neither neighbour (merge_existing, non-merge ranges)."""
    link(mm, 0, 3)
    vma = link(mm, 3, 8)
    link(mm, 8, 10)
    assert merge_existing(mm, vma, *part) is None


def test_brk_expands_downward_neighbour_only(mm: Mm) -> None:
    """A heap that swallows the VMA above, or one that goes below its lower neighbour (expand_only_mode)."""
    link(mm, 0, 2)
    prev = link(mm, 3, 5)
    link(mm, 9, 10)
    assert merge_new(mm, 5, 9, just_expand=True) is prev
    assert layout(mm) == [(0, 2, 0), (3, 9, 3), (9, 10, 9)]


def test_brk_grows_one_heap_vma(mm: Mm) -> None:
    """A heap in several VMAs, or one merged upward (do_brk_flags)."""
    brk(mm, 4 << 12)
    brk(mm, 6 << 12)
    heap = mm.vmas[0]
    link(mm, 8, 9, heap.vm_flags)
    brk(mm, 8 << 12)
    assert layout(mm) == [(4, 8, 4), (8, 9, 8)]
    assert mm.vmas[0] is heap


# --- anon_vmas


def test_neighbours_with_different_anon_vmas_stay_apart(mm: Mm) -> None:
    """Merging two VMAs that own different anon_vmas because each agrees with the unfaulted range between them
    (anon_vma_non_mergeable)."""
    prev, vma, next_ = link(mm, 0, 3, fault=True), link(mm, 3, 7), link(mm, 7, 9, fault=True)
    assert prev.anon_vma is not next_.anon_vma
    assert merge_existing(mm, vma, 3, 7) is prev
    assert layout(mm) == [(0, 7, 0), (7, 9, 7)]


def test_new_range_between_different_anon_vmas(mm: Mm) -> None:
    """The same for a new range (anon_vma_non_mergeable, second half)."""
    prev, next_ = link(mm, 0, 3, fault=True), link(mm, 7, 9, fault=True)
    assert prev.anon_vma is not next_.anon_vma
    assert merge_new(mm, 3, 7) is prev
    assert layout(mm) == [(0, 7, 0), (7, 9, 7)]


def test_anon_vma_of_next_goes_to_prev(mm: Mm, kernel: Kernel) -> None:
    """Pages of `next` that no walk reaches once `prev` took its place (dup_anon_vma, "next has anon_vma")."""
    prev, vma, next_ = link(mm, 0, 3), link(mm, 3, 5), link(mm, 5, 8, fault=True)
    owned = next_.anon_vma
    assert merge_existing(mm, vma, 3, 5) is prev
    assert layout(mm) == [(0, 8, 0)]
    assert prev.anon_vma is owned
    assert [avc.vma for avc in owned.avcs] == [prev]
    assert live(kernel) == (1, 1, 1)


@pytest.mark.parametrize(
    ("ranges", "middle", "part", "survivor"),
    [
        pytest.param([(0, 3), (3, 5), (5, 8)], 1, (3, 5), 0, id="both"),
        pytest.param([(0, 3), (3, 8)], 1, (3, 5), 0, id="left, part"),
        pytest.param([(0, 3), (3, 8)], 1, (3, 8), 0, id="left, whole"),
        pytest.param([(0, 5), (5, 8)], 0, (3, 5), 1, id="right, part"),
        pytest.param([(0, 5), (5, 8)], 0, (0, 5), 1, id="right, whole"),
    ],
)
def test_faulted_range_joins_an_unfaulted_neighbour(
    kernel: Kernel,
    mm: Mm,
    ranges: list[tuple[int, int]],
    middle: int,
    part: tuple[int, int],
    survivor: int,
) -> None:
    """From 6.16 the neighbour takes over the anon_vma; before, such ranges stayed apart, although nothing stood against
    it, since the neighbour's empty chain was not singular (dup_anon_vma "vma has anon_vma"; selftests
    merge.mprotect_unfaulted_left, _right and _both)."""
    vmas = [link(mm, *r) for r in ranges]
    source, target = vmas[middle], vmas[survivor]
    write(mm, part[0])
    owned = source.anon_vma
    merged = merge_existing(mm, source, *part)
    if kernel.profile.name == "6.12":
        assert merged is None
        assert len(mm.vmas) == len(ranges)
        return
    assert merged is target
    assert target.anon_vma is owned
    assert target in [avc.vma for avc in owned.avcs]
    assert live(kernel) == (len(mm.vmas), 1, len(mm.vmas))


def test_mprotect_joins_faulted_left_and_right_through_unfaulted(mm: Mm) -> None:
    """Ranges unlocked by mprotect between two faulted VMAs of one anon_vma must all become one (selftests
    merge.mprotect_faulted_left_unfaulted_right and its mirror): the outer VMAs were one once."""
    vma = mmap(mm, 0, 6)
    write(mm, 0)
    mprotect(mm, 2 << 12, 2 << 12, fl.PROT_READ)
    assert layout(mm) == [(0, 2, 0), (2, 4, 2), (4, 6, 4)]
    mprotect(mm, 2 << 12, 2 << 12, PROT_RW)
    assert layout(mm) == [(0, 6, 0)]
    assert mm.vmas[0].anon_vma is not None
    assert vma.vm_mm is mm


# --- forked


def forked_child(kernel: Kernel) -> Mm:
    """A child whose one VMA, pages [4, 6), is linked with its parent's anon_vma and its own."""
    parent = kernel.mm_alloc()
    link(parent, 4, 6, fault=True)
    child = dup_mm(parent)
    assert len(child.vmas[0].anon_vma_chain) == 2
    return child


def test_forked_target_does_not_grow_over_unfaulted_range(kernel: Kernel) -> None:
    """A VMA that is linked with its parents' anon_vmas must not grow: every new page would be walked for all relatives
    (is_mergeable_anon_vma; selftest merge.forked_target_vma)."""
    child = forked_child(kernel)
    assert merge_new(child, 6, 8) is None
    assert merge_new(child, 2, 4) is None


def test_forked_source_does_not_join_unfaulted_target() -> None:
    """6.16 must look at the chain of the side that has an anon_vma (selftest merge.forked_source_vma)."""
    child = forked_child(make_kernel("6.18"))
    vma = child.vmas[0]
    link(child, 2, 4)
    link(child, 6, 8)
    assert merge_existing(child, vma, 4, 6) is None


def test_equal_anon_vmas_merge_even_if_forked(kernel: Kernel) -> None:
    """Halves of a forked VMA are linked alike, so nothing speaks against putting them together again."""
    child = forked_child(kernel)
    mprotect(child, 4 << 12, 1 << 12, fl.PROT_READ)
    assert layout(child) == [(4, 5, 4), (5, 6, 5)]
    mprotect(child, 4 << 12, 1 << 12, PROT_RW)
    assert layout(child) == [(4, 6, 4)]


# --- mremap


def test_growing_in_place_joins_what_comes_next(mm: Mm) -> None:
    """A VMA that grows up to an equal VMA becomes one with it (merge_extend)."""
    vma = link(mm, 0, 1)
    link(mm, 3, 4)
    resize(mm, 0, 1, 3)
    assert layout(mm) == [(0, 4, 0)]
    assert mm.vmas == [vma]


def test_copy_of_unfaulted_vma_takes_the_new_offset(mm: Mm) -> None:
    """An unfaulted copy keeps its old page offset and so can never merge (copy_vma, "move backwards")."""
    vma = link(mm, 3, 5)
    new, _ = copy_vma(mm, vma, 3 << 12, 2 << 12, 0, False)
    assert new is not vma
    assert layout(mm) == [(0, 2, 0), (3, 5, 3)]


def test_copy_merges_with_its_new_neighbour(mm: Mm) -> None:
    """A copy next to an equal VMA needs no VMA of its own (copy_vma, "move a VMA into position next to another")."""
    vma = link(mm, 0, 2)
    next_ = link(mm, 6, 8)
    assert copy_vma(mm, vma, 0, 2 << 12, 4 << 12, False)[0] is next_
    assert layout(mm) == [(0, 2, 0), (4, 8, 4)]


def test_copy_of_faulted_vma_keeps_the_old_offset(mm: Mm) -> None:
    """The pages' indices are fixed, so a faulted VMA that moved elsewhere fits none of its neighbours."""
    vma = link(mm, 0, 2, fault=True)
    link(mm, 6, 8)
    new, _ = copy_vma(mm, vma, 0, 2 << 12, 4 << 12, False)
    assert layout(mm) == [(0, 2, 0), (4, 6, 0), (6, 8, 6)]
    assert new.anon_vma is vma.anon_vma


@pytest.mark.parametrize(
    ("targets", "expected"),
    [
        pytest.param([(9, 10, False)], [(9, 12, 9)], id="unfaulted prev"),
        pytest.param([(12, 13, False)], [(10, 13, 10)], id="unfaulted next"),
        pytest.param([(9, 10, False), (12, 13, False)], [(9, 13, 9)], id="unfaulted prev, unfaulted next"),
    ],
)
def test_faulted_vma_moves_next_to_unfaulted(
    new_mm: Mm, targets: list[tuple[int, int, bool]], expected: list[tuple[int, int, int]]
) -> None:
    """A target that grew over moved pages without their anon_vma: the use after free of v6.16 to v6.18
    (selftests merge.mremap_faulted_to_unfaulted_prev, _next, _prev_unfaulted_next). The VMA comes back to the place
    where its offset fits."""
    mm = new_mm
    vma = link(mm, 10, 12, fault=True)
    owned = vma.anon_vma
    move(mm, 10, 12, 30)
    for first, last, fault in targets:
        link(mm, first, last, fault=fault)
    move(mm, 30, 32, 10)
    assert layout(mm) == expected
    assert mm.vmas[0].anon_vma is owned
    assert [avc.vma for avc in owned.avcs] == mm.vmas


def test_faulted_vma_moves_between_unfaulted_and_its_own_rest(new_mm: Mm) -> None:
    """prev is unfaulted, next has the anon_vma of the copy: prev takes it over once, not twice
    (selftest merge.mremap_faulted_to_unfaulted_prev_faulted_next)."""
    mm = new_mm
    vma = link(mm, 10, 14, fault=True)
    write(mm, 13)
    owned = vma.anon_vma
    move(mm, 10, 12, 30)
    link(mm, 8, 10)
    move(mm, 30, 32, 10)
    assert layout(mm) == [(8, 14, 8)]
    assert [avc.vma for avc in owned.avcs] == mm.vmas


def test_forked_vma_moved_next_to_unfaulted_stays_apart(new_mm: Mm) -> None:
    """The chain of the VMA that is copied counts as well (61f67c230a5e's series)."""
    child = forked_child(new_mm.kernel)
    move(child, 4, 6, 30)
    link(child, 2, 4)
    move(child, 30, 32, 4)
    assert layout(child) == [(2, 4, 2), (4, 6, 4)]


def test_unfaulted_vma_moves_between_faulted(mm: Mm) -> None:
    """Both neighbours were one VMA, so all three become one again (selftest
    merge.mremap_unfaulted_between_correctly_placed_faulted)."""
    vma = mmap(mm, 10, 16)
    write(mm, 10, 15)
    mmap(mm, 12, 14, RO)  # punches the hole
    link(mm, 30, 32)
    move(mm, 30, 32, 12)
    assert layout(mm) == [(10, 16, 10)]
    assert mm.vmas[0].anon_vma is not None
    assert vma.vm_mm is mm


def test_faulted_vma_moved_to_a_wrong_offset_stays_apart(mm: Mm) -> None:
    """Merging by address alone (selftest merge.mremap_correct_placed_faulted is the opposite case)."""
    link(mm, 0, 2, fault=True)
    link(mm, 10, 12, fault=True)
    move(mm, 0, 2, 12)
    assert layout(mm) == [(10, 12, 10), (12, 14, 0)]


def test_correctly_placed_faulted_vmas_merge_again(mm: Mm) -> None:
    """Three parts of one VMA, moved apart and back in order, must become one (selftest
    merge.mremap_correct_placed_faulted)."""
    mmap(mm, 0, 15)
    write(mm, 0, 5, 10)
    for first, target in ((0, 100), (5, 120), (10, 140)):
        move(mm, first, first + 5, target)
    assert layout(mm) == [(100, 105, 0), (120, 125, 5), (140, 145, 10)]
    move(mm, 120, 125, 105)
    move(mm, 140, 145, 110)
    assert layout(mm) == [(100, 115, 0)]


# --- flags


def test_merge_gives_everything_back(kernel: Kernel) -> None:
    """An object lost by a merge shows when the process is gone."""
    mm = kernel.mm_alloc()
    mmap(mm, 0, 8)
    write(mm, *range(8))
    for page in (2, 5):
        mprotect(mm, page << 12, 1 << 12, fl.PROT_READ)
    mprotect(mm, 0, 8 << 12, PROT_RW)
    assert layout(mm) == [(0, 8, 0)]
    exit_mmap(mm)
    assert live(kernel) == (0, 0, 0)
    assert kernel.mem.live == 0


def test_ksm_flag_keeps_new_vma_apart(mm: Mm) -> None:
    """VM_MERGEABLE takes part in the comparison of flags (selftest merge.ksm_merge, whose prctl is not modelled)."""
    vma = link(mm, 0, 2)
    vma_modify(mm, vma, 0, 2 << 12, RW | fl.VM_MERGEABLE)
    assert merge_new(mm, 2, 4) is None
    assert merge_new(mm, 2, 4, RW | fl.VM_MERGEABLE) is vma
