# SPDX-License-Identifier: GPL-2.0-only
import mmap

import pytest

from rmaplab.mm import flags as fl


@pytest.mark.parametrize(
    "name",
    [
        "MAP_SHARED",
        "MAP_ANONYMOUS",
        "MAP_POPULATE",
        "MAP_STACK",
        "MAP_NORESERVE",
        "PROT_READ",
        "PROT_WRITE",
        "PROT_EXEC",
        "MADV_NORMAL",
        "MADV_RANDOM",
        "MADV_SEQUENTIAL",
        "MADV_WILLNEED",
        "MADV_DONTNEED",
        "MADV_FREE",
        "MADV_REMOVE",
        "MADV_DONTFORK",
        "MADV_DOFORK",
        "MADV_MERGEABLE",
        "MADV_UNMERGEABLE",
        "MADV_HUGEPAGE",
        "MADV_NOHUGEPAGE",
        "MADV_DONTDUMP",
        "MADV_DODUMP",
    ],
)
def test_system_call_flags_are_the_abi_of_this_machine(name: str) -> None:
    """A mistyped number of include/uapi: the C library's headers, as Python shows them, have the same."""
    if not hasattr(mmap, name):
        pytest.skip("not known to this Python")
    assert getattr(fl, name) == getattr(mmap, name)


def test_may_bits_lie_four_above_the_access_bits() -> None:
    """mprotect compares them by a shift."""
    assert fl.VM_READ << fl.MAY_SHIFT == fl.VM_MAYREAD
    assert fl.VM_WRITE << fl.MAY_SHIFT == fl.VM_MAYWRITE
    assert fl.VM_EXEC << fl.MAY_SHIFT == fl.VM_MAYEXEC
    assert fl.VM_SHARED << fl.MAY_SHIFT == fl.VM_MAYSHARE


def test_vm_bits_are_distinct() -> None:
    """Two names of one bit."""
    bits = [
        value
        for name, value in vars(fl).items()
        if name.startswith("VM_") and name not in ("VM_ACCESS_FLAGS", "VM_LOCKED_MASK")
    ]
    assert len(set(bits)) == len(bits)
    assert all(bit.bit_count() == 1 for bit in bits)


@pytest.mark.parametrize(("length", "aligned"), [(0, 0), (1, 4096), (4096, 4096), (4097, 8192)])
def test_page_align_rounds_up(length: int, aligned: int) -> None:
    assert fl.page_align(length) == aligned


@pytest.mark.parametrize(
    ("vm_flags", "expected"),
    [
        (fl.VM_MAYWRITE, True),
        (fl.VM_MAYWRITE | fl.VM_SHARED, False),
        (fl.VM_READ | fl.VM_MAYREAD, False),
    ],
)
def test_cow_mapping_is_private_and_may_be_written(vm_flags: int, expected: bool) -> None:
    """is_cow_mapping looks at VM_MAYWRITE: a read-only private mapping may become writable."""
    assert fl.is_cow_mapping(vm_flags) is expected
