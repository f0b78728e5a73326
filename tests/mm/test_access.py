# SPDX-License-Identifier: GPL-2.0-only
"""Loads and stores."""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.access import mm_write
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.vma import File
from rmaplab.mm.zap import zap_range
from tests.support.builders import RO, RW, SHARED, link
from tests.support.walks import contents_kernel, finish, load, made, store


@pytest.fixture
def kernel() -> Kernel:
    return contents_kernel()


def test_page_that_nobody_wrote_is_zero(kernel: Kernel) -> None:
    mm = kernel.mm_alloc()
    link(mm, 0x10, 0x12)
    assert load(mm, 0x10) == 0
    assert kernel.mem.live == 0


def test_writes_are_private(kernel: Kernel) -> None:
    """The page shared by fork is copied, contents and all, for the one that writes."""
    mm = made(kernel)
    child = dup_mm(mm)
    store(mm, 0x10, 5)
    assert (load(child, 0x10), load(mm, 0x10), load(child, 0x11)) == (0x10, 5, 0x11)
    finish(kernel, mm, child)


def test_freed_frame_comes_back_zeroed(kernel: Kernel) -> None:
    mm = made(kernel)
    zap_range(mm, 0x10000, 0x14000)
    link(mm, 0x20, 0x24)
    store(mm, 0x20, 1)
    assert kernel.mem.contents == {pfn: 1 for pfn in kernel.mem.contents or {}}
    assert len(kernel.mem.contents or {}) == 1
    finish(kernel, mm)


@pytest.mark.parametrize("flags", [RO, SHARED, RW & ~(fl.VM_READ | fl.VM_WRITE)])
def test_where_no_private_write_is_allowed(kernel: Kernel, flags: int) -> None:
    mm = kernel.mm_alloc()
    link(mm, 0x10, 0x12, flags, file=File("shm") if flags == SHARED else None)
    assert not mm_write(mm, 0x10000, 1)
    assert not mm_write(mm, 0x20000, 1)
    assert load(mm, 0x10) == (0 if flags & fl.VM_READ else None)


def test_huge_page(kernel: Kernel) -> None:
    """Each page of it has contents of its own, and keeps them when the child splits its PMD entry."""
    kernel = contents_kernel(thp="always")
    mm = kernel.mm_alloc()
    link(mm, 512, 1024)
    store(mm, 512, 1)
    store(mm, 1023, 2)
    child = dup_mm(mm)
    store(child, 1023, 3)
    assert [load(m, page) for m in (mm, child) for page in (512, 800, 1023)] == [1, 0, 2, 1, 0, 3]
    finish(kernel, mm, child)
