# SPDX-License-Identifier: GPL-2.0-only
import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.mlock import mlock, mlockall, munlock, munlockall
from rmaplab.mm.mm import Mm
from tests.support.builders import RO, RW, layout, link, make_kernel


@pytest.fixture
def mm() -> Mm:
    return make_kernel().mm_alloc()


def mapped(mm: Mm) -> list[int]:
    return sorted(vpn for vpn, _ in mm.anon_entries())


def locked(mm: Mm) -> list[int]:
    return [vma.vm_flags & fl.VM_LOCKED_MASK for vma in mm.vmas]


def test_mlock_rounds_to_pages_splits_and_populates(mm: Mm) -> None:
    """Both ends of the byte range are extended to whole pages (do_mlock)."""
    link(mm, 0, 6)
    mlock(mm, 0x2800, 0x1000)
    assert layout(mm) == [(0, 2, 0), (2, 4, 2), (4, 6, 4)]
    assert locked(mm) == [0, fl.VM_LOCKED, 0]
    assert mapped(mm) == [2, 3]


def test_mlock2_onfault_populates_nothing(mm: Mm) -> None:
    link(mm, 0, 2)
    mlock(mm, 0, 2 << 12, fl.MLOCK_ONFAULT)
    assert locked(mm) == [fl.VM_LOCKED_MASK]
    assert mapped(mm) == []


def test_mlock_over_a_hole_locks_what_is_before_and_populates_nothing(mm: Mm) -> None:
    """apply_vma_lock_flags fails at the hole; do_mlock returns before it populates."""
    link(mm, 0, 2)
    link(mm, 4, 6)
    mlock(mm, 0, 6 << 12)
    assert locked(mm) == [fl.VM_LOCKED, 0]
    assert mapped(mm) == []


def test_special_memory_is_left_alone(mm: Mm) -> None:
    """vma_supports_mlock; the call goes on."""
    link(mm, 0, 2, RW | fl.VM_SPECIAL)
    link(mm, 2, 4)
    mlock(mm, 0, 4 << 12)
    assert locked(mm) == [0, fl.VM_LOCKED]
    assert mapped(mm) == [2, 3]


def test_munlock_joins_the_parts_again(mm: Mm) -> None:
    link(mm, 0, 6)
    mlock(mm, 2 << 12, 2 << 12)
    munlock(mm, 0, 6 << 12)
    assert layout(mm) == [(0, 6, 0)]
    assert locked(mm) == [0]


@pytest.mark.parametrize(
    ("flags", "now", "future", "pages"),
    [
        (fl.MCL_CURRENT, fl.VM_LOCKED, 0, [0, 1]),
        (fl.MCL_FUTURE, 0, fl.VM_LOCKED, []),
        (fl.MCL_CURRENT | fl.MCL_FUTURE, fl.VM_LOCKED, fl.VM_LOCKED, [0, 1]),
        (fl.MCL_CURRENT | fl.MCL_ONFAULT, fl.VM_LOCKED_MASK, 0, []),
        (fl.MCL_FUTURE | fl.MCL_ONFAULT, 0, fl.VM_LOCKED_MASK, []),
    ],
)
def test_mlockall(mm: Mm, flags: int, now: int, future: int, pages: list[int]) -> None:
    """apply_mlockall_flags."""
    link(mm, 0, 2)
    link(mm, 4, 6, RO)
    mlockall(mm, flags)
    assert locked(mm) == [now, now]
    assert mm.def_flags == future
    assert mapped(mm) == pages


def test_second_mlockall_replaces_the_future_of_the_first(mm: Mm) -> None:
    link(mm, 0, 2)
    mlockall(mm, fl.MCL_FUTURE)
    mlockall(mm, fl.MCL_CURRENT)
    assert mm.def_flags == 0
    assert locked(mm) == [fl.VM_LOCKED]


def test_munlockall_unlocks_now_and_in_future(mm: Mm) -> None:
    link(mm, 0, 2, RW | fl.VM_LOCKED_MASK)
    mm.def_flags = fl.VM_LOCKED
    munlockall(mm)
    assert locked(mm) == [0]
    assert mm.def_flags == 0
