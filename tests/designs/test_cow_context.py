# SPDX-License-Identifier: GPL-2.0-only
"""CoW context: which context a folio names, where walks go, which records there are, and who frees what."""

from itertools import permutations

import pytest

from rmaplab.designs.cow_context import CowContext, CowContextDesign
from rmaplab.designs.cow_context_check import check_contexts
from rmaplab.mm import flags as fl
from rmaplab.mm.exec import ElfMapper, bprm_mm_init
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.folio import Folio
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.migrate import migrate_folio
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import do_munmap, expand_downwards
from rmaplab.mm.protect import mprotect
from rmaplab.mm.vma import File, Vma
from tests.support.builders import RW, folio_at, layout, link, live, make_kernel, mmap, move, resize, write
from tests.support.walks import contents_kernel, load, store, swap_out

DONTUNMAP = fl.MREMAP_MAYMOVE | fl.MREMAP_DONTUNMAP | fl.MREMAP_FIXED


@pytest.fixture
def kernel() -> Kernel:
    return make_kernel(design=CowContextDesign())


@pytest.fixture
def mm(kernel: Kernel) -> Mm:
    return kernel.mm_alloc()


def context(mm: Mm) -> CowContext:
    design = mm.kernel.hooks
    assert isinstance(design, CowContextDesign)
    return design.contexts[mm]


def walk(mm: Mm, page: int) -> list[tuple[int, int]]:
    """(mm, page) of each visit, in order, of a walk for the folio that `mm` maps at `page`."""
    folio = folio_at(mm, page)
    return [(vma.vm_mm.ident, address >> 12) for vma, address in mm.kernel.hooks.rmap_walk_anon(folio)]


def bases(mm: Mm) -> dict[int, int]:
    """Base in pages -> faulted VMAs there."""
    return {base >> 12: remap.vmas for base, remap in context(mm).remaps.items()}


def objects(kernel: Kernel) -> tuple[int, int]:
    """Live contexts and records."""
    assert kernel.anon_vma.live == kernel.anon_vma_chain.live == 0
    return kernel.slabs[3].live, kernel.slabs[4].live


def check(kernel: Kernel, *mms: Mm) -> None:
    check_contexts(kernel.hooks, mms)  # type: ignore[arg-type]


# --- the context of an mm


def test_the_first_fault_makes_the_context_and_later_ones_nothing(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 2)
    assert objects(kernel) == (0, 0)
    write(mm, 0)
    link(mm, 4, 6, fault=True)
    link(mm, 8, 9, RW | fl.VM_DONTDUMP, fault=True)
    assert objects(kernel) == (1, 0)
    assert bases(mm) == {0: 3}


def test_unmapping_everything_keeps_the_context_and_exit_frees_it(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 2, fault=True)
    do_munmap(mm, 0, 0x2000)
    assert objects(kernel) == (1, 0)
    exit_mmap(mm)
    assert not any(live(kernel))


def test_a_child_of_an_unfaulted_parent_is_no_relative(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 2)
    child = dup_mm(mm)
    assert objects(kernel) == (0, 0)
    write(child, 0)
    assert context(child).parent is None
    exit_mmap(mm)
    check(kernel, child)


# --- the tree, and what folios name


def test_walks_descend_from_the_named_context(mm: Mm, kernel: Kernel) -> None:
    """1 forks 2, 2 forks 3, 1 forks 4. What 2 copied is found in 2 and 3, what it shares in all."""
    link(mm, 0, 3, fault=True)
    write(mm, 1, 2)
    second = dup_mm(mm)
    write(second, 1)
    third = dup_mm(second)
    fourth = dup_mm(mm)
    assert walk(mm, 0) == [(1, 0), (2, 0), (3, 0), (4, 0)]
    assert walk(second, 1) == [(2, 1), (3, 1)]
    assert walk(mm, 1) == [(1, 1), (2, 1), (3, 1), (4, 1)]  # of which 2 and 3 are fruitless
    write(third, 1)
    assert walk(third, 1) == [(3, 1)]
    assert folio_at(third, 1).mapping is context(third)
    check(kernel, mm, second, third, fourth)


def test_the_last_sharer_takes_the_folio_over(mm: Mm) -> None:
    """folio_move_anon_rmap: the parent's page belongs to the child once nobody else maps it."""
    link(mm, 0, 1, fault=True)
    child = dup_mm(mm)
    write(mm, 0)
    shared = folio_at(child, 0)
    assert shared.mapping is context(mm)
    write(child, 0)
    assert folio_at(child, 0) is shared
    assert shared.mapping is context(child)
    assert walk(child, 0) == [(2, 0)]


@pytest.mark.parametrize("order", list(permutations(range(4))))
def test_exit_in_all_orders(kernel: Kernel, mm: Mm, order: tuple[int, ...]) -> None:
    """A context outlives its process while it has children; the rest still finds the pages of the dead."""
    link(mm, 0, 2, fault=True)
    second = dup_mm(mm)
    mms = [mm, second, dup_mm(second), dup_mm(mm)]
    alive = set(mms)
    for gone in order:
        exit_mmap(mms[gone])
        alive.discard(mms[gone])
        check(kernel, *alive)
        for left in alive:
            assert walk(left, 0) == [(other.ident, 0) for other in mms if other in alive]
    assert not any(live(kernel))
    assert kernel.mem.live == 0


def test_a_dead_parent_stays_while_a_child_needs_it(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 1, fault=True)
    children = [dup_mm(mm), dup_mm(mm)]
    exit_mmap(mm)
    assert objects(kernel) == (3, 0)
    assert folio_at(children[0], 0).mapping.mm is None
    exit_mmap(children[0])
    assert objects(kernel) == (2, 0)
    exit_mmap(children[1])
    assert objects(kernel) == (0, 0)


def test_forking_and_exiting_forever_does_not_pile_up_contexts(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 4, fault=True)
    write(mm, 1, 2, 3)
    for generation in range(20):
        child = dup_mm(mm)
        write(child, generation % 3)
        exit_mmap(mm)
        mm = child
        assert objects(kernel)[0] <= 4
        check(kernel, mm)
    # a page that has come down from the first generation
    assert walk(mm, 3) == [(mm.ident, 3)]
    exit_mmap(mm)
    assert not any(live(kernel))


def test_what_a_fork_left_out_keeps_its_name_until_the_process_goes(mm: Mm, kernel: Kernel) -> None:
    """The page of the VM_DONTCOPY VMA names the dead second process, which must not go before the third does."""
    link(mm, 0, 1, fault=True)
    link(mm, 4, 5, fault=True)
    second = dup_mm(mm)
    write(second, 0, 4)
    third = dup_mm(second)
    exit_mmap(second)
    third.vmas[1].vm_flags |= fl.VM_DONTCOPY
    fourth = dup_mm(third)
    old = folio_at(third, 4).mapping
    assert old.unnamed and old.mm is None
    assert folio_at(fourth, 0).mapping is context(third)  # hook 6 renamed what they share
    check(kernel, mm, third, fourth)
    exit_mmap(third)
    assert objects(kernel) == (3, 0)
    check(kernel, mm, fourth)
    exit_mmap(fourth)
    exit_mmap(mm)
    assert not any(live(kernel))


def test_a_pin_keeps_the_name(mm: Mm, kernel: Kernel) -> None:
    """What a page under migration becomes names the context that was pinned: hook 6 does not see it meanwhile."""
    link(mm, 0, 2, fault=True)
    second = dup_mm(mm)
    write(second, 0)
    third = dup_mm(second)
    exit_mmap(second)
    pinned = kernel.hooks.folio_get_anon_vma(folio_at(third, 0))
    fourth = dup_mm(third)
    assert context(third).parent is pinned and not pinned.unnamed
    kernel.hooks.put_anon_vma(pinned)
    fifth = dup_mm(fourth)
    exit_mmap(third)
    assert pinned in context(mm).subtree()
    check(kernel, mm, fourth, fifth)


def test_other_children_keep_the_names_alive(mm: Mm, kernel: Kernel) -> None:
    """The second process has a child from the time before its parent died: that child's pages name the parent."""
    link(mm, 0, 1, fault=True)
    second = dup_mm(mm)
    early = dup_mm(second)
    exit_mmap(mm)
    write(second, 0)
    late = dup_mm(second)
    assert not context(second).parent.unnamed  # type: ignore[union-attr]
    exit_mmap(second)
    assert walk(early, 0) == [(early.ident, 0), (late.ident, 0)]  # the latter is fruitless
    check(kernel, early, late)


def test_a_page_of_the_swap_cache_is_renamed_when_it_comes_back() -> None:
    """Neither hook 6 nor a walk sees it while nothing maps it, and the context that it names goes."""
    kernel = contents_kernel(CowContextDesign())
    first = kernel.mm_alloc()
    link(first, 0x10, 0x11)
    store(first, 0x10, 6)
    second = dup_mm(first)
    store(second, 0x10, 7)
    (folio,) = swap_out(second, 0x10, writeback=True)
    gone = context(second)
    assert folio.mapping is gone
    third = dup_mm(second)
    exit_mmap(second)
    fourth = dup_mm(third)
    exit_mmap(third)
    assert gone not in context(first).subtree()
    assert load(fourth, 0x10) == 7
    assert folio_at(fourth, 0x10).mapping in (context(fourth), context(first))
    assert (4, 0x10) in walk(fourth, 0x10)
    exit_mmap(fourth)
    exit_mmap(first)
    assert not any(live(kernel))


def test_a_pin_outlives_the_mm(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 1, fault=True)
    pinned = kernel.hooks.folio_get_anon_vma(folio_at(mm, 0))
    exit_mmap(mm)
    assert objects(kernel) == (1, 0)
    kernel.hooks.put_anon_vma(pinned)
    assert objects(kernel) == (0, 0)


def test_migration_finds_the_pages_of_all_relatives() -> None:
    kernel = contents_kernel(CowContextDesign())
    mm = kernel.mm_alloc()
    link(mm, 0x10, 0x12)
    store(mm, 0x10, 9)
    child = dup_mm(mm)
    move(child, 0x10, 0x12, 0x40)
    moved = migrate_folio(kernel, folio_at(mm, 0x10))
    assert moved is not None and moved.mapcount == 2
    assert (load(mm, 0x10), load(child, 0x40)) == (9, 9)


# --- remap records


def test_what_mremap_moved_is_recorded(mm: Mm, kernel: Kernel) -> None:
    link(mm, 8, 12, fault=True)
    index = folio_at(mm, 8).index
    move(mm, 8, 12, 40)
    assert layout(mm) == [(40, 44, 8)]
    assert folio_at(mm, 40).index == index == 8
    assert bases(mm) == {32: 1}
    assert objects(kernel) == (1, 1)
    assert walk(mm, 40) == [(1, 40)]
    check(kernel, mm)


def test_the_record_goes_with_the_last_vma_at_its_base(mm: Mm, kernel: Kernel) -> None:
    link(mm, 8, 12, fault=True)
    move(mm, 8, 12, 40)
    do_munmap(mm, 41 << 12, 42 << 12)
    assert bases(mm) == {32: 2}
    do_munmap(mm, 40 << 12, 41 << 12)
    assert bases(mm) == {32: 1}
    do_munmap(mm, 42 << 12, 44 << 12)
    assert objects(kernel) == (1, 0)


def test_moving_back_needs_no_record(mm: Mm, kernel: Kernel) -> None:
    link(mm, 8, 12, fault=True)
    move(mm, 8, 12, 40)
    move(mm, 40, 44, 8)
    assert bases(mm) == {0: 1}
    assert objects(kernel) == (1, 0)
    assert walk(mm, 8) == [(1, 8)]


def test_an_unfaulted_vma_moves_without_a_record(mm: Mm, kernel: Kernel) -> None:
    link(mm, 0, 1, fault=True)
    link(mm, 8, 12)
    move(mm, 8, 12, 40)
    write(mm, 40)
    assert folio_at(mm, 40).index == 40
    assert objects(kernel) == (1, 0)


def test_children_inherit_records_and_move_on_their_own(mm: Mm, kernel: Kernel) -> None:
    """Page 8 of the parent lies at 40 in the parent and at 60 in the child, and is one folio."""
    link(mm, 8, 12, fault=True)
    move(mm, 8, 12, 40)
    child = dup_mm(mm)
    assert bases(child) == {32: 1}
    assert walk(mm, 40) == [(1, 40), (2, 40)]
    move(child, 40, 44, 60)
    assert bases(child) == {52: 1}
    assert bases(mm) == {32: 1}
    assert walk(mm, 40) == [(1, 40), (2, 60)]
    check(kernel, mm, child)
    exit_mmap(mm)
    assert walk(child, 60) == [(2, 60)]
    exit_mmap(child)
    assert not any(live(kernel))


def test_two_vmas_may_hold_the_same_index(mm: Mm) -> None:
    """The old place of a moved VMA is mapped anew: a walk visits both, and one visit is fruitless."""
    link(mm, 8, 12, fault=True)
    move(mm, 8, 12, 40)
    link(mm, 8, 12, fault=True)
    assert walk(mm, 8) == [(1, 8), (1, 40)] or walk(mm, 8) == [(1, 40), (1, 8)]
    assert sorted(walk(mm, 40)) == [(1, 8), (1, 40)]


def test_dontunmap_leaves_an_unfaulted_source(mm: Mm, kernel: Kernel) -> None:
    source = link(mm, 8, 12, fault=True)
    move(mm, 8, 12, 40, DONTUNMAP)
    assert source.anon_vma is None
    assert bases(mm) == {32: 1}
    write(mm, 9)
    assert sorted(walk(mm, 9)) == [(1, 9), (1, 41)]  # index 9 in both
    assert (8, 12, 8) in layout(mm)
    check(kernel, mm)


def test_a_range_that_grows_is_looked_at(mm: Mm) -> None:
    """The moved VMA grows at its new place: the record's range of indices must follow."""
    link(mm, 8, 10, fault=True)
    move(mm, 8, 10, 40)
    remap = mm.vmas[0].anon_vma
    assert (remap.first, remap.last) == (8, 10)
    resize(mm, 40, 42, 6)
    write(mm, 45)
    assert (remap.first, remap.last) == (8, 14)
    assert walk(mm, 45) == [(1, 45)]


def test_pages_moved_into_a_neighbour_that_never_was_faulted(mm: Mm, kernel: Kernel) -> None:
    """The target merges; it must read as faulted, or fork would not copy its pages."""
    link(mm, 8, 10, fault=True)
    neighbour = link(mm, 44, 46)
    neighbour.vm_pgoff = 10
    move(mm, 8, 10, 42)
    assert layout(mm) == [(42, 46, 8)]
    assert bases(mm) == {34: 1}
    child = dup_mm(mm)
    assert walk(child, 42) == [(1, 42), (2, 42)]
    check(kernel, mm, child)


@pytest.mark.parametrize("moved", [False, True])
def test_split_and_merge_keep_the_count(mm: Mm, kernel: Kernel, moved: bool) -> None:
    link(mm, 8, 12, fault=True)
    write(mm, 9, 10, 11)
    at = 8
    if moved:
        move(mm, 8, 12, 40)
        at = 40
    mprotect(mm, (at + 1) << 12, 0x2000, fl.PROT_READ)
    assert bases(mm) == {at - 8: 3}
    assert [walk(mm, at + k) for k in range(4)] == [[(1, at + k)] for k in range(4)]
    check(kernel, mm)
    mprotect(mm, (at + 1) << 12, 0x2000, fl.PROT_READ | fl.PROT_WRITE)
    assert bases(mm) == {at - 8: 1}
    assert layout(mm) == [(at, at + 4, 8)]


# --- merging


def test_neighbours_merge_where_mainline_keeps_them_apart(kernel: Kernel) -> None:
    """Both faulted apart from each other: mainline's two anon_vmas can never become one."""
    counts = {}
    for name, k in (("cow_context", kernel), ("anon_vma", make_kernel())):
        mm = k.mm_alloc()
        mmap(mm, 0, 2)
        mmap(mm, 4, 6)
        write(mm, 1, 4)
        mmap(mm, 2, 4)
        counts[name] = layout(mm)
    assert counts == {"cow_context": [(0, 6, 0)], "anon_vma": [(0, 4, 0), (4, 6, 4)]}


def test_a_forked_vma_still_merges(mm: Mm, kernel: Kernel) -> None:
    """Mainline refuses: the child's VMA is linked with its parent's anon_vma, the new neighbour would not be."""
    link(mm, 0, 2, fault=True)
    child = dup_mm(mm)
    mmap(child, 2, 4)
    assert layout(child) == [(0, 4, 0)]
    write(child, 3)
    assert walk(child, 0) == [(1, 0), (2, 0)]
    check(kernel, mm, child)


def test_before_the_fix_of_6_19_a_move_next_to_an_unfaulted_vma_does_not_merge() -> None:
    kernel = make_kernel("6.16", CowContextDesign())
    mm = kernel.mm_alloc()
    moved = link(mm, 8, 10, fault=True)
    assert moved.anon_vma is not None
    neighbour = link(mm, 40, 44)
    neighbour.vm_pgoff = 4
    move(mm, 8, 10, 44)
    assert layout(mm) == [(40, 44, 4), (44, 46, 8)]


# --- private file mappings


def test_a_private_file_page_is_found_through_a_record(mm: Mm, kernel: Kernel) -> None:
    """Its index is the file offset (3), its address 23: base 20."""
    link(mm, 0, 1, fault=True)
    lib = File("lib")
    mmap(mm, 20, 26, RW, file=lib)
    assert objects(kernel) == (1, 0)
    write(mm, 23)
    assert folio_at(mm, 23).index == 3
    assert bases(mm) == {0: 1, 20: 1}
    assert walk(mm, 23) == [(1, 23)]
    child = dup_mm(mm)
    assert walk(mm, 23) == [(1, 23), (2, 23)]
    check(kernel, mm, child)


def test_files_collide_at_equal_offsets(mm: Mm) -> None:
    """Page 3 of one library and page 3 of another have the same index: a visit of the other is fruitless."""
    for first, name in ((20, "a"), (40, "b")):
        mmap(mm, first, first + 6, RW, file=File(name))
        write(mm, first + 3)
    assert walk(mm, 23) == [(1, 23), (1, 43)]


def test_a_file_out_of_range_is_not_looked_at(mm: Mm, kernel: Kernel) -> None:
    for first, pgoff in ((20, 0), (40, 100)):
        mmap(mm, first, first + 6, RW, file=File("x"), pgoff=pgoff)
        write(mm, first)
    design = kernel.hooks
    assert isinstance(design, CowContextDesign)
    assert walk(mm, 20) == [(1, 20)]
    assert design.walk_lookups(folio_at(mm, 20)) == 1


# --- execve and stacks


def test_the_stack_of_an_execve_gets_a_new_base(kernel: Kernel) -> None:
    """setup_arg_pages moves the VMA with its pages; its page offset, and so the index of each page, stays."""
    mm = bprm_mm_init(kernel)
    top = mm.vmas[0].vm_end >> 12
    assert bases(mm) == {0: 1}
    pgoff = mm.vmas[0].vm_pgoff
    ElfMapper(mm).stack_moved((top - 533) << 12, (top - 500) << 12, pgoff - 32)
    assert bases(mm) == {-500: 1}
    assert walk(mm, top - 501) == [(1, top - 501)]
    check(kernel, mm)
    expand_downwards(mm, mm.vmas[0], (top - 540) << 12)
    write(mm, top - 540)
    assert walk(mm, top - 540) == [(1, top - 540)]
    exit_mmap(mm)
    assert not any(live(kernel))


def test_exec_leaves_the_tree(mm: Mm, kernel: Kernel) -> None:
    """The new mm is nobody's child."""
    link(mm, 0, 1, fault=True)
    child = dup_mm(mm)
    new = bprm_mm_init(kernel)
    exit_mmap(child)
    assert context(new).parent is None
    assert context(mm).children == []
    check(kernel, mm, new)


# --- hooks that random histories seldom need


class WithoutHook6(CowContextDesign):
    def try_dup_anon_rmap(self, folio: Folio, vma: Vma, pvma: Vma) -> None: ...


class WithoutHook9(CowContextDesign):
    def move_page_tables(self, folio: Folio, vma: Vma, new_vma: Vma) -> None: ...


class WithoutHook10(CowContextDesign):
    def folio_swapped_in(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None: ...


def three_generations(kernel: Kernel, *, swapped: bool) -> Mm:
    """The grandchild of a process, of which it has one page, when its parent has gone, too. The root lives."""
    root = kernel.mm_alloc()
    link(root, 0x10, 0x11)
    store(root, 0x10, 6)
    first = dup_mm(root)
    store(first, 0x10, 7)
    if swapped:
        swap_out(first, 0x10, writeback=True)
    second = dup_mm(first)
    exit_mmap(first)
    third = dup_mm(second)
    exit_mmap(second)
    assert load(third, 0x10) == 7
    return third


@pytest.mark.parametrize(("design", "swapped"), [(WithoutHook6, False), (WithoutHook10, True)])
def test_without_renaming_a_folio_names_a_freed_context(design: type[CowContextDesign], swapped: bool) -> None:
    right = three_generations(contents_kernel(CowContextDesign()), swapped=swapped)
    assert (4, 0x10) in walk(right, 0x10)
    wrong = three_generations(contents_kernel(design()), swapped=swapped)
    with pytest.raises(AttributeError):  # poison
        walk(wrong, 0x10)


def test_without_hook_9_a_walk_misses_the_stack() -> None:
    mm = bprm_mm_init(make_kernel(design=WithoutHook9()))
    top = mm.vmas[0].vm_end >> 12
    ElfMapper(mm).stack_moved((top - 533) << 12, (top - 500) << 12, mm.vmas[0].vm_pgoff - 32)
    assert walk(mm, top - 501) == []


# --- the check


def wrong_count(mm: Mm) -> None:
    mm.vmas[0].anon_vma.vmas += 1


def wrong_refcount(mm: Mm) -> None:
    context(mm).refcount += 1


def wrong_base(mm: Mm) -> None:
    mm.vmas[0].vm_pgoff += 1


def wrong_name(mm: Mm) -> None:
    folio_at(mm, 0).mapping = context(mm).children[0]


@pytest.mark.parametrize("damage", [wrong_count, wrong_refcount, wrong_base, wrong_name])
def test_the_check_can_fail(mm: Mm, kernel: Kernel, damage: object) -> None:
    link(mm, 0, 1, fault=True)
    child = dup_mm(mm)
    check(kernel, mm, child)
    damage(mm)  # type: ignore[operator]
    with pytest.raises(AssertionError):
        check(kernel, mm, child)
