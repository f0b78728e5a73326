# SPDX-License-Identifier: GPL-2.0-only
"""execve: the stack that bprm_mm_init makes and setup_arg_pages moves, and the segments that elf_load maps."""

import pytest

from rmaplab.mm import flags as fl
from rmaplab.mm.exec import ElfMapper, bprm_mm_init
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.vma import File
from tests.support.builders import folio_at, live, make_kernel

R, RX, RWP = fl.PROT_READ, fl.PROT_READ | fl.PROT_EXEC, fl.PROT_READ | fl.PROT_WRITE
TOP = fl.TASK_SIZE >> 12


@pytest.fixture
def kernel() -> Kernel:
    return make_kernel()


@pytest.fixture
def mm(kernel: Kernel) -> Mm:
    return bprm_mm_init(kernel)


def ranges(mm: Mm) -> list[tuple[int, int, int]]:
    """Without the stack."""
    return [(v.vm_start >> 12, v.vm_end >> 12, v.vm_pgoff) for v in mm.vmas if not v.vm_flags & fl.VM_GROWSDOWN]


def segment(elf: ElfMapper, first: int, last: int, prot: int, pgoff: int, file: File) -> None:
    elf.segment(first << 12, last << 12, prot, pgoff, file, False)


@pytest.mark.parametrize(("copied", "objects"), [(True, (1, 1, 1)), (False, (1, 0, 0))])
def test_argument_pages_give_the_stack_its_anon_vma(kernel: Kernel, copied: bool, objects: tuple[int, ...]) -> None:
    bprm_mm_init(kernel, copy_strings=copied)
    assert live(kernel) == objects


def test_stack_moves_with_its_pages(kernel: Kernel, mm: Mm) -> None:
    """relocate_vma_down moves the page, whose index stays; then the stack is grown below it (setup_arg_pages)."""
    page = folio_at(mm, TOP - 1)
    top = TOP - 100
    ElfMapper(mm).stack_moved((top - 33) << 12, top << 12, page.index - 32)
    assert folio_at(mm, top - 1) is page
    assert mm.vmas[0].pgoff_at((top - 1) << 12) == page.index
    assert [vpn for vpn, _ in mm.anon_entries()] == [top - 1]
    mm.check()


def test_stack_that_stays_keeps_its_pages(mm: Mm) -> None:
    page = folio_at(mm, TOP - 1)
    ElfMapper(mm).stack_moved((TOP - 33) << 12, TOP << 12, page.index - 32)
    assert folio_at(mm, TOP - 1) is page


def test_first_segment_spans_the_image_until_the_second_comes(mm: Mm, kernel: Kernel) -> None:
    """The total mapping is cut at the second segment: one more split than the final picture shows (elf_load)."""
    elf = ElfMapper(mm)
    lib = File("lib")
    segment(elf, 100, 110, R, 0, lib)
    assert ranges(mm) == [(100, 110, 0)]
    log = kernel.log_slabs()
    segment(elf, 102, 106, RX, 2, lib)
    assert ranges(mm) == [(100, 102, 0), (102, 106, 2)]
    # dup for the cut, free the tail, allocate the segment
    assert [(alloc, cache) for alloc, cache, _ in log] == [(1, 0), (0, 0), (1, 0)]
    segment(elf, 106, 110, R, 6, lib)
    assert ranges(mm) == [(100, 102, 0), (102, 106, 2), (106, 110, 6)]


def test_program_and_interpreter_have_a_total_mapping_each(mm: Mm) -> None:
    elf = ElfMapper(mm)
    program, loader = File("program"), File("ld.so")
    segment(elf, 100, 104, R, 0, program)
    segment(elf, 102, 104, RX, 2, program)
    segment(elf, 200, 208, R, 0, loader)
    segment(elf, 204, 208, RX, 4, loader)
    assert ranges(mm) == [(100, 102, 0), (102, 104, 2), (200, 204, 0), (204, 208, 4)]


def test_record_of_a_merged_segment_shows_the_whole(mm: Mm) -> None:
    """Two segments of equal protection become one VMA, and MMAP2 shows that one."""
    elf = ElfMapper(mm)
    lib = File("lib")
    segment(elf, 100, 110, R, 0, lib)
    segment(elf, 102, 104, RWP, 2, lib)
    segment(elf, 102, 108, RWP, 2, lib)
    assert ranges(mm) == [(100, 102, 0), (102, 108, 2)]


def test_bss_is_anonymous_and_replaces_what_the_file_mapped(mm: Mm) -> None:
    elf = ElfMapper(mm)
    lib = File("lib")
    segment(elf, 100, 110, RWP, 0, lib)
    elf.anonymous(104 << 12, 106 << 12, RWP)
    bss = mm.vma_lookup(104 << 12)
    assert bss is not None
    assert (bss.vm_file, bss.vm_start >> 12, bss.vm_end >> 12, bss.vm_pgoff) == (None, 104, 106, 104)
    assert bss.vm_flags & fl.VM_ACCOUNT


def test_vdso_is_special(mm: Mm) -> None:
    """Never merged, never accounted."""
    elf = ElfMapper(mm)
    elf.special(300 << 12, 302 << 12, RX, 0)
    elf.special(302 << 12, 304 << 12, RX, 0)
    assert ranges(mm) == [(300, 302, 0), (302, 304, 0)]
    assert all(v.vm_flags & fl.VM_SPECIAL and not v.vm_flags & fl.VM_ACCOUNT for v in mm.vmas[:2])


def test_exec_that_fails_leaves_nothing(kernel: Kernel, mm: Mm) -> None:
    exit_mmap(mm)
    assert live(kernel) == (0, 0, 0)
    assert kernel.mem.live == 0
