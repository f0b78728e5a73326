# SPDX-License-Identifier: GPL-2.0-only
"""mprotect_fixup and do_mprotect_pkey."""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.mm import Mm
from rmaplab.mm.protect import mprotect
from rmaplab.mm.vma import File
from tests.support.builders import MAY, RO, RW, layout, link, make_kernel, mmap, write

PROT_RW = fl.PROT_READ | fl.PROT_WRITE


@pytest.fixture
def mm() -> Mm:
    return make_kernel(thp="always").mm_alloc()


def test_equal_protection_changes_nothing(mm: Mm) -> None:
    """A split for a change that is none."""
    link(mm, 0, 4)
    mprotect(mm, 1 << 12, 1 << 12, PROT_RW)
    assert layout(mm) == [(0, 4, 0)]


def test_write_permission_accounts_private_memory_for_good(mm: Mm) -> None:
    """VM_ACCOUNT set on the way to writable stays once a page is there, and so keeps neighbours apart."""
    vma = link(mm, 0, 2, RO)
    mprotect(mm, 0, 2 << 12, PROT_RW)
    assert vma.vm_flags == RW
    write(mm, 0)
    mprotect(mm, 0, 2 << 12, fl.PROT_READ)
    assert vma.vm_flags == RO | fl.VM_ACCOUNT


def test_unfaulted_anonymous_memory_is_unaccounted_again(mm: Mm) -> None:
    """`anon_vma` NULL means never faulted: mprotect relies on it."""
    vma = link(mm, 0, 2)
    mprotect(mm, 0, 2 << 12, fl.PROT_READ)
    assert vma.vm_flags == RO


def test_unfaulted_file_memory_stays_accounted(mm: Mm) -> None:
    vma = link(mm, 0, 2, file=File("lib"))
    mprotect(mm, 0, 2 << 12, fl.PROT_READ)
    assert vma.vm_flags == RO | fl.VM_ACCOUNT


@pytest.mark.parametrize("exempt", [fl.VM_NORESERVE, fl.VM_SHARED, fl.VM_HUGETLB])
def test_exempt_memory_is_never_accounted(mm: Mm, exempt: int) -> None:
    vma = link(mm, 0, 2, RO | exempt)
    mprotect(mm, 0, 2 << 12, PROT_RW)
    assert vma.vm_flags == RO | exempt | fl.VM_WRITE


def test_failed_call_keeps_what_it_changed_before_a_hole(mm: Mm) -> None:
    link(mm, 0, 2)
    link(mm, 4, 6)
    mprotect(mm, 0, 6 << 12, fl.PROT_READ)
    assert [vma.vm_flags & fl.VM_WRITE for vma in mm.vmas] == [0, fl.VM_WRITE]


def test_failed_call_stops_at_what_must_not_be_written(mm: Mm) -> None:
    """A file that is not open for writing has no VM_MAYWRITE."""
    link(mm, 0, 2, RO)
    link(mm, 2, 4, fl.VM_READ | fl.VM_SHARED | MAY & ~fl.VM_MAYWRITE, file=File("ro"))
    link(mm, 4, 6, RO)
    mprotect(mm, 0, 6 << 12, PROT_RW)
    assert [bool(vma.vm_flags & fl.VM_WRITE) for vma in mm.vmas] == [True, False, False]


def test_one_call_over_several_vmas_merges_them(mm: Mm) -> None:
    """Each VMA is changed in turn and may become part of the one before."""
    mmap(mm, 0, 6)
    write(mm, 0)
    mprotect(mm, 2 << 12, 2 << 12, fl.PROT_READ)
    mprotect(mm, 0, 6 << 12, fl.PROT_READ)
    assert layout(mm) == [(0, 6, 0)]


def test_writable_locked_memory_is_populated(mm: Mm) -> None:
    """mprotect_fixup: a locked VMA that becomes writable gets its own pages at once."""
    link(mm, 0, 2, RO | fl.VM_LOCKED)
    mprotect(mm, 0, 2 << 12, PROT_RW)
    assert sorted(vpn for vpn, _ in mm.anon_entries()) == [0, 1]


@pytest.mark.parametrize(("first", "last", "split"), [(512, 1024, False), (512, 600, True)])
def test_huge_page_is_split_unless_changed_as_a_whole(mm: Mm, first: int, last: int, split: bool) -> None:
    """change_huge_pmd, or a split first."""
    link(mm, 512, 1024, fault=True)
    mprotect(mm, first << 12, (last - first) << 12, fl.PROT_READ)
    assert isinstance(mm.pgd[1], dict) is split
    mm.check()
