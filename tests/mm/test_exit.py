# SPDX-License-Identifier: GPL-2.0-only
import pytest

from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.fork import dup_mm
from tests.support.builders import folio_at, link, live, make_kernel, write


def test_everything_goes() -> None:
    """Objects or pages left after the last process."""
    kernel = make_kernel(thp="always")
    mm = kernel.mm_alloc()
    link(mm, 0, 4)
    link(mm, 512, 1024)
    write(mm, 0, 3, 512)
    exit_mmap(mm)
    assert live(kernel) == (0, 0, 0)
    assert kernel.mem.live == 0
    assert not mm.vmas
    assert not mm.pgd
    mm.check()


def test_shared_page_stays_until_the_last_process() -> None:
    kernel = make_kernel()
    mm = kernel.mm_alloc()
    link(mm, 0, 1, fault=True)
    child = dup_mm(mm)
    folio = folio_at(mm, 0)
    exit_mmap(mm)
    assert (folio.mapcount, kernel.mem.live) == (1, 1)
    exit_mmap(child)
    assert (folio.mapcount, kernel.mem.live) == (0, 0)


def test_all_vmas_are_unlinked_before_the_first_is_freed() -> None:
    """free_pgtables runs over all VMAs, then remove_vma does."""
    kernel = make_kernel()
    mm = kernel.mm_alloc()
    link(mm, 0, 2, fault=True)
    link(mm, 4, 6, fault=True)
    log = kernel.log_slabs()
    exit_mmap(mm)
    assert [cache for _, cache, _ in log] == [1, 2, 1, 2, 0, 0]


@pytest.mark.parametrize("first_out", ["parent", "child"])
def test_order_of_exit_leaves_nothing(first_out: str) -> None:
    """The root anon_vma must outlive every descendant, whoever goes first."""
    kernel = make_kernel()
    parent = kernel.mm_alloc()
    link(parent, 0, 2, fault=True)
    child = dup_mm(parent)
    grandchild = dup_mm(child)
    order = [parent, child, grandchild] if first_out == "parent" else [grandchild, child, parent]
    for mm in order:
        exit_mmap(mm)
    assert live(kernel) == (0, 0, 0)
    assert kernel.mem.live == 0
