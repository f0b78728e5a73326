# SPDX-License-Identifier: GPL-2.0-only
"""execve: the new address space before and after the program's segments are mapped (fs/exec.c, fs/binfmt_elf.c)."""

from typing import TYPE_CHECKING

from rmaplab.mm.fault import anon_write_fault, prepare
from rmaplab.mm.flags import (
    PAGE_SIZE,
    TASK_SIZE,
    VM_ACCOUNT,
    VM_GROWSDOWN,
    VM_MAYEXEC,
    VM_MAYREAD,
    VM_MAYSHARE,
    VM_MAYWRITE,
    VM_SHARED,
    VM_SPECIAL,
    VM_WRITE,
    prot_to_vm_flags,
)
from rmaplab.mm.mmap import VM_DATA_DEFAULT_FLAGS, do_brk_flags, do_munmap, insert_new_vma, mmap_region
from rmaplab.mm.mremap import move_page_tables
from rmaplab.mm.vma import vma_expand, vma_shrink

if TYPE_CHECKING:
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import File, Vma

__all__ = ["ElfMapper", "bprm_mm_init"]


def bprm_mm_init(kernel: "Kernel", copy_strings: bool = True) -> "Mm":
    """A new mm with a stack VMA at the top. The argument pages written to it give it its anon_vma."""
    mm = kernel.mm_alloc()
    stack = insert_new_vma(mm, TASK_SIZE - PAGE_SIZE, TASK_SIZE, VM_DATA_DEFAULT_FLAGS | VM_GROWSDOWN | VM_ACCOUNT)
    if copy_strings:
        prepare(stack)
        anon_write_fault(mm, stack, TASK_SIZE - PAGE_SIZE)
    return mm


def _vm_flags(prot: int, shared: bool) -> int:
    flags = prot_to_vm_flags(prot) | VM_MAYREAD | VM_MAYEXEC
    if shared:
        return flags | VM_MAYSHARE | (VM_SHARED | VM_MAYWRITE if flags & VM_WRITE else 0)
    return flags | VM_MAYWRITE | (VM_ACCOUNT if flags & VM_WRITE else 0)


class ElfMapper:
    """Maps what MMAP2 records show of one execve: the final range of each step, not the step.

    The first segment of a file is mapped over the whole length of the image, and what lies above its end
    is unmapped at once (elf_load, total mapping); later segments then lie in the hole.
    """

    def __init__(self, mm: "Mm") -> None:
        self.mm = mm
        self.stack: Vma = mm.vmas[0]
        self._seen: set[File] = set()
        self._total: tuple[File, int, int] | None = None  # file, and range of its total mapping, not yet cut

    def stack_moved(self, start: int, end: int, pgoff: int) -> None:
        """setup_arg_pages moved the stack to its final place, pages and all (relocate_vma_down). `vm_pgoff` stays, so
        the indices of the pages do."""
        mm, stack = self.mm, self.stack
        old_top = stack.vm_end
        if not mm.kernel.special:
            mm.resize(stack, start, end, pgoff)
            move_page_tables(mm, stack, old_top - PAGE_SIZE, stack, end - PAGE_SIZE, PAGE_SIZE)
            return
        with mm.kernel.locks.mmap_write(mm):
            if end <= old_top:
                vma_expand(mm, stack, start, old_top, pgoff)
            move_page_tables(mm, stack, old_top - PAGE_SIZE, stack, end - PAGE_SIZE, PAGE_SIZE)
            vma_shrink(mm, stack, start, end, pgoff)

    def special(self, start: int, end: int, prot: int, pgoff: int) -> None:
        """[vdso] and its kin."""
        self._total = None
        flags = (_vm_flags(prot, False) & ~VM_ACCOUNT) | VM_SPECIAL
        insert_new_vma(self.mm, start, end, flags, None, pgoff)

    def anonymous(self, start: int, end: int, prot: int) -> None:
        """bss pages beyond the file (vm_brk_flags)."""
        self._total = None
        do_brk_flags(self.mm, start, end, _vm_flags(prot, False))

    def segment(self, start: int, end: int, prot: int, pgoff: int, file: "File", shared: bool) -> None:
        """A PT_LOAD segment."""
        flags = _vm_flags(prot, shared)
        mm = self.mm
        if file not in self._seen:
            self._seen.add(file)
            self._total = (file, start, end)
            mmap_region(mm, start, end, flags, file, pgoff)
            return
        total, self._total = self._total, None
        if total is not None and total[0] is file and total[1] < start < total[2]:
            do_munmap(mm, start, total[2])
        vma = mm.vma_lookup(start)
        if vma is not None and vma.vm_file is file and vma.vm_end < end:
            # the record shows the range after a merge with the segment before
            mmap_region(mm, vma.vm_end, end, flags, file, vma.pgoff_at(vma.vm_end))
        else:
            mmap_region(mm, start, end, flags, file, pgoff)
