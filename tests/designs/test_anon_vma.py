# SPDX-License-Identifier: GPL-2.0-only
"""Mainline's anon_vma: who is linked with what, who shares, who is reused, and in which order things are freed."""

import pytest

from rmaplab.designs.anon_vma import AnonVma, AnonVmaDesign, vma_address
from rmaplab.designs.anon_vma_check import check_anon_vmas
from rmaplab.mm import flags as fl
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import do_munmap
from tests.support.builders import RO, RW, folio_at, link, live, make_kernel, move, write


@pytest.fixture
def kernel() -> Kernel:
    return make_kernel()


@pytest.fixture
def mm(kernel: Kernel) -> Mm:
    return kernel.mm_alloc()


def walk(kernel: Kernel, mm: Mm, page: int) -> set[tuple[int, int]]:
    """(mm, page) of each visit of a walk for the folio that `mm` maps at `page`."""
    folio = folio_at(mm, page)
    return {(vma.vm_mm.ident, address >> 12) for vma, address in kernel.hooks.rmap_walk_anon(folio)}


# --- hook 1


@pytest.mark.parametrize("other", [(2, 4), (6, 8)])
def test_neighbours_that_may_merge_share(mm: Mm, kernel: Kernel, other: tuple[int, int]) -> None:
    """find_mergeable_anon_vma: but for their protection the two could be one VMA."""
    vma = link(mm, 4, 6)
    neighbour = link(mm, *other, RO | fl.VM_ACCOUNT)
    write(mm, 4)
    neighbour.vm_flags = RW
    write(mm, other[0])
    assert neighbour.anon_vma is vma.anon_vma
    assert (vma.anon_vma.num_active_vmas, len(vma.anon_vma.avcs)) == (2, 2)
    assert live(kernel) == (2, 1, 2)


@pytest.mark.parametrize("flags", [RW | fl.VM_DONTDUMP, RW & ~fl.VM_ACCOUNT])
def test_neighbours_that_never_merge_do_not_share(mm: Mm, flags: int) -> None:
    """anon_vma_compatible compares all flags but those of access."""
    a, b = link(mm, 0, 2, fault=True), link(mm, 2, 4, flags, fault=True)
    assert a.anon_vma is not b.anon_vma


def test_forked_neighbour_is_not_shared(mm: Mm) -> None:
    """reusable_anon_vma wants a chain of one: the ancestors' anon_vmas must not be inherited by a neighbour."""
    link(mm, 0, 2, fault=True)
    child = dup_mm(mm)
    fresh = link(child, 2, 4, fault=True)
    assert len(fresh.anon_vma_chain) == 1
    assert fresh.anon_vma is not child.vmas[0].anon_vma


def test_next_is_asked_before_prev(mm: Mm) -> None:
    """Both would do; the kernel takes the one above."""
    link(mm, 0, 2, fault=True)
    next_ = link(mm, 4, 6, fault=True)
    middle = link(mm, 2, 4, fault=True)
    assert middle.anon_vma is next_.anon_vma


# --- hook 2


def test_shared_page_names_the_root(mm: Mm, kernel: Kernel) -> None:
    """__folio_set_anon without exclusivity: whoever else maps the page is linked with the oldest anon_vma."""
    link(mm, 0, 1, fault=True)
    child = dup_mm(mm)
    vma = child.vmas[0]
    folio = kernel.mem.alloc()
    kernel.hooks.folio_set_anon(folio, vma, 0, False)
    assert folio.mapping is mm.vmas[0].anon_vma
    kernel.hooks.folio_set_anon(folio, vma, 0, True)
    assert folio.mapping is vma.anon_vma


# --- hook 3


@pytest.mark.parametrize(
    ("index", "pages", "expected"),
    [(10, 1, 100), (12, 1, 102), (9, 1, None), (13, 1, None), (8, 4, 100), (8, 2, None), (12, 512, 102)],
)
def test_vma_address(mm: Mm, index: int, pages: int, expected: int | None) -> None:
    """A folio that begins below the VMA is found at its start (vma_address)."""
    vma = link(mm, 100, 103)
    vma.vm_pgoff = 10
    address = vma_address(vma, index, pages)
    assert address == (None if expected is None else expected << 12)


def test_walk_reaches_descendants_and_not_siblings(mm: Mm, kernel: Kernel) -> None:
    """A page of the parent may be anywhere below it; a page of a child only in that child's line."""
    link(mm, 0, 2, fault=True)
    child, sibling = dup_mm(mm), dup_mm(mm)
    write(child, 1)
    grandchild = dup_mm(child)
    everyone = {(m.ident, 0) for m in (mm, child, sibling, grandchild)}
    assert walk(kernel, mm, 0) == everyone
    assert walk(kernel, child, 1) == {(child.ident, 1), (grandchild.ident, 1)}


def test_walk_follows_a_moved_vma(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 2, fault=True)
    child = dup_mm(mm)
    move(child, 0, 2, 10)
    assert walk(kernel, mm, 0) == {(mm.ident, 0), (child.ident, 10)}


# --- hook 4


def test_pin_keeps_the_anon_vma_after_the_process(mm: Mm, kernel: Kernel) -> None:
    """folio_get_anon_vma for a mapped folio; the last put frees."""
    link(mm, 0, 1, fault=True)
    folio = folio_at(mm, 0)
    pinned = kernel.hooks.folio_get_anon_vma(folio)
    exit_mmap(mm)
    assert live(kernel) == (0, 1, 0)
    assert kernel.hooks.folio_get_anon_vma(folio) is None
    kernel.hooks.put_anon_vma(pinned)
    assert live(kernel) == (0, 0, 0)


# --- hook 5


def test_fork_links_the_child_with_every_ancestor(mm: Mm, kernel: Kernel) -> None:
    """anon_vma_clone, then an anon_vma of the child's own: depth d costs d + 1 AVCs."""
    link(mm, 0, 1, fault=True)
    child = dup_mm(mm)
    grandchild = dup_mm(child)
    root: AnonVma = mm.vmas[0].anon_vma
    own: AnonVma = grandchild.vmas[0].anon_vma
    assert [avc.anon_vma for avc in grandchild.vmas[0].anon_vma_chain] == [
        root,
        child.vmas[0].anon_vma,
        own,
    ]
    assert (own.root, own.parent) == (root, child.vmas[0].anon_vma)
    assert (root.refcount, root.num_children) == (3, 2)
    assert live(kernel) == (3, 3, 6)


def test_grandchild_reuses_the_anon_vma_of_a_dead_parent(mm: Mm, kernel: Kernel) -> None:
    """A chain of processes that fork and exit must not grow for ever: an anon_vma without a VMA of its own and with
    one child at most is taken over (num_active_vmas, num_children)."""
    link(mm, 0, 1, fault=True)
    child = dup_mm(mm)
    orphan = child.vmas[0].anon_vma
    grandchild = dup_mm(child)
    exit_mmap(child)
    great = dup_mm(grandchild)
    assert great.vmas[0].anon_vma is orphan
    assert orphan.num_active_vmas == 1
    after = []
    for _ in range(50):
        parent, great = great, dup_mm(great)
        exit_mmap(parent)
        after.append(kernel.anon_vma.live)
    assert after[5] == after[-1]


def test_anon_vma_with_two_children_is_not_reused(mm: Mm) -> None:
    """2555283eb40d: it is still in use by others; num_children counts what `degree` did not."""
    link(mm, 0, 1, fault=True)
    child = dup_mm(mm)
    orphan = child.vmas[0].anon_vma
    first, _second = dup_mm(child), dup_mm(child)
    exit_mmap(child)
    assert orphan.num_children == 2
    assert dup_mm(first).vmas[0].anon_vma is not orphan


def test_anon_vma_in_use_is_not_reused(mm: Mm) -> None:
    """A VMA split in two has two active users."""
    link(mm, 0, 2, fault=True)
    child = dup_mm(mm)
    anon_vma = child.vmas[0].anon_vma
    do_munmap(child, 0, 1 << 12)
    assert anon_vma.num_active_vmas == 1
    assert dup_mm(child).vmas[0].anon_vma is not anon_vma


# --- hook 7


def test_unlink_frees_newest_first_and_the_root_last(mm: Mm, kernel: Kernel) -> None:
    """AVCs whose anon_vma lives on go in the first pass; the others after it, each behind its anon_vma."""
    link(mm, 0, 1, fault=True)
    child = dup_mm(mm)
    root, own = mm.vmas[0].anon_vma, child.vmas[0].anon_vma
    chain = list(child.vmas[0].anon_vma_chain)
    log = kernel.log_slabs()
    exit_mmap(child)
    assert [obj for _, _, obj in log[:3]] == [chain[0], own, chain[1]]
    log.clear()
    exit_mmap(mm)
    assert log[0][2] is root


def test_root_outlives_its_vmas(mm: Mm, kernel: Kernel) -> None:
    """Its lock guards the whole tree."""
    link(mm, 0, 1, fault=True)
    child = dup_mm(mm)
    root = mm.vmas[0].anon_vma
    exit_mmap(mm)
    assert child.vmas[0].anon_vma.root is root
    assert (root.refcount, root.num_active_vmas) == (2, 0)
    assert live(kernel) == (1, 2, 2)


def test_check_finds_what_is_wrong(mm: Mm) -> None:
    """check_anon_vmas must be able to fail: the random histories lean on it."""
    link(mm, 0, 1, fault=True)
    design = mm.kernel.hooks
    assert isinstance(design, AnonVmaDesign)
    check_anon_vmas(design, [mm])
    anon_vma = mm.vmas[0].anon_vma
    for counter in ("refcount", "num_children", "num_active_vmas"):
        setattr(anon_vma, counter, getattr(anon_vma, counter) + 1)
        with pytest.raises(AssertionError, match=counter):
            check_anon_vmas(design, [mm])
        setattr(anon_vma, counter, getattr(anon_vma, counter) - 1)
    for slab in mm.kernel.slabs:
        slab.live += 1
        with pytest.raises(AssertionError, match=f"{slab.name}: live"):
            check_anon_vmas(design, [mm])
        slab.live -= 1
    anon_vma.avcs.clear()
    with pytest.raises(AssertionError, match="interval tree"):
        check_anon_vmas(design, [mm])
