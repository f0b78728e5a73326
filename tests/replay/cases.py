# SPDX-License-Identifier: GPL-2.0-only
"""Hand-made recordings for rules that no bundled recording reaches: what the kernel does, by its source."""

from collections.abc import Callable

from rmaplab.mm import flags as fl

from .handmade import PRIVATE, RW, Run

__all__ = ["CASES"]

CASES: dict[str, Callable[[], Run]] = {}
FIXED = fl.MREMAP_MAYMOVE | fl.MREMAP_FIXED
LOCKED = fl.MAP_LOCKED
SPECIAL, FILE = 2, 0  # exec_map
ENOMEM, EFAULT, EAGAIN = -12, -14, -11


def case(make: Callable[[], Run]) -> Callable[[], Run]:
    CASES[make.__name__] = make
    return make


@case
def vdso_changes() -> Run:
    """Half of [vdso] (two pages) is made read-only, and executable again: it stays split (VM_SPECIAL)."""
    run = Run()
    run.op("exec_map", addr=0x70000, len=0x2000, prot=5, flags=SPECIAL, kernel="+v1")
    run.mprotect(0x70, 1, 1, kernel="+v2")
    run.mprotect(0x70, 1, 5)
    return run


@case
def vdso_locked() -> Run:
    """mlock of a page of [vdso] succeeds and changes nothing (mlock_fixup)."""
    run = Run()
    run.op("exec_map", addr=0x70000, len=0x2000, prot=5, flags=SPECIAL, kernel="+v1")
    run.mlock(0x70, 1)
    return run


@case
def hugetlb() -> Run:
    """Two mappings of huge pages side by side are VM_DONTEXPAND, so never one VMA."""
    run = Run()
    run.mmap(0x200, 512, flags=PRIVATE | fl.MAP_HUGETLB, kernel="+v1")
    run.mmap(0x400, 512, flags=PRIVATE | fl.MAP_HUGETLB, kernel="+v2")
    return run


@case
def heap_below_a_mapping() -> Run:
    """brk grows up to a mapping with the same flags: it only expands the heap (VMG_FLAG_JUST_EXPAND)."""
    run = Run()
    run.op("brk", ret=0x10000, kernel="")
    run.op("brk", ret=0x11000, kernel="+v1")
    run.mmap(0x12, 1, kernel="+v2")
    run.op("brk", ret=0x12000, kernel="")
    run.munmap(0x12, 1, kernel="-v2")  # a VMA of its own
    return run


@case
def mapping_above_the_heap() -> Run:
    """A private writable mapping right above the heap merges with it: both are VM_ACCOUNT."""
    run = Run()
    run.op("brk", ret=0x10000, kernel="")
    run.op("brk", ret=0x11000, kernel="+v1")
    run.mmap(0x11, 1)
    return run


@case
def moved_next_to_unfaulted() -> Run:
    """A faulted VMA comes back below an unfaulted one, which grows over it and takes its anon_vma (61f67c230a5e)."""
    run = Run()
    run.mmap(0x10, 4, kernel="+v1")
    run.write(0x12, kernel="+c2 +a3")
    # the upper half moves away: a copy with a link of its own, then the rest is split off and unmapped
    run.mremap(0x12, 2, 2, FIXED, 0x20, kernel="+v4 +c5 +v6 +c7 -c2 -v1")
    run.munmap(0x10, 2, kernel="-c7 -v6")
    run.mmap(0x10, 2, kernel="+v8")
    run.mremap(0x20, 2, 2, FIXED, 0x12, kernel="+c9 -c5 -v4")
    return run


@case
def moved_from_a_parent() -> Run:
    """The same in a forked child, whose VMA has its parent's anon_vma too: it must not merge (uncowed parents)."""
    run = Run()
    run.mmap(0x20, 2, kernel="+v1")
    run.write(0x20, kernel="+c2 +a3")
    run.mremap(0x20, 2, 2, FIXED, 0x12, kernel="+v4 +c5 -c2 -v1")
    run.fork(2, kernel="+v11 +c12 +a13 +c14 +v15 +c16 +a17 +c18")
    run.mmap(0x1E, 2, tid=2, kernel="+v21")
    # back to where its page offset goes on from the unfaulted one's
    run.mremap(0x12, 2, 2, FIXED, 0x20, tid=2, kernel="+v22 +c23 +c24 -c14 -c12 -v11")
    return run


@case
def target_of_a_move() -> Run:
    """MREMAP_FIXED unmaps what was at the target first."""
    run = Run()
    run.mmap(0x10, 1, kernel="+v1")
    run.mmap(0x20, 1, flags=PRIVATE | fl.MAP_NORESERVE, kernel="+v2")
    run.mremap(0x10, 1, 1, FIXED, 0x20, kernel="-v2 +v3 -v1")
    return run


@case
def stack_read() -> Run:
    """A read below a MAP_GROWSDOWN mapping: it gets its anon_vma before it grows."""
    run = Run()
    run.mmap(0x1000, 2, flags=PRIVATE | fl.MAP_GROWSDOWN, kernel="+v1")
    run.op("grow", addr=0xFFF000, len=0x3000, kernel="+c2 +a3")
    return run


@case
def stack_offset() -> Run:
    """A grown stack's page offset went down with it, so a mapping right below, of the same kind, merges."""
    run = stack_read()
    run.mmap(0xFFE, 1, flags=PRIVATE | fl.MAP_GROWSDOWN)
    return run


def _locked_unfaulted(page: int, pages: int, number: int) -> Run:
    """mlock up to a hole fails: the mapping is VM_LOCKED, and nothing was faulted in."""
    run = Run()
    run.mmap(page, pages, kernel=f"+v{number}")
    run.mlock(page, pages + 1, ret=ENOMEM)
    return run


@case
def locked_grows_in_place() -> Run:
    """mremap of a VM_LOCKED mapping faults in what it gained (mm_populate)."""
    run = _locked_unfaulted(0x10, 2, 1)
    run.mremap(0x10, 2, 3, 0, 0x10, kernel="+c2 +a3")
    return run


@case
def locked_moves_and_grows() -> Run:
    """The same where it had to move."""
    run = _locked_unfaulted(0x10, 2, 1)
    run.mremap(0x10, 2, 3, fl.MREMAP_MAYMOVE, 0x20, kernel="+v2 -v1 +c3 +a4")
    return run


@case
def merged_with_its_source() -> Run:
    """An unfaulted locked part moves, with MREMAP_DONTUNMAP, between another VMA and its own source: all become one,
    and that one is VM_LOCKED no more."""
    run = _locked_unfaulted(0x8, 2, 1)
    run.mmap(0xC, 4, kernel="+v2")
    run.mlock(0xC, 5, ret=ENOMEM)
    run.mremap(0xE, 2, 2, FIXED | fl.MREMAP_DONTUNMAP, 0xA, kernel="-v2")
    run.mmap(0x10, 1)  # not locked, and merges
    return run


@case
def failed_fork() -> Run:
    """A fork that fails after the copy takes the copy down again."""
    run = Run()
    run.mmap(0x10, 1, kernel="+v1")
    run.fork(0, ret=EAGAIN, kernel="+v2 +v3 +c4 +a5 +c6 -c4 -a5 -c6 -v2 -v3")
    return run


def _there_and_back(there: int, back: int) -> Run:
    run = Run()
    run.mmap(0x10, 3, kernel="+v1")
    run.madvise(0x11, 1, there, kernel="+v2 +v3")
    run.madvise(0x11, 1, back, kernel="-v1 -v3")
    return run


@case
def dofork() -> Run:
    """MADV_DOFORK takes MADV_DONTFORK back: three VMAs are one again, the lowest of them."""
    return _there_and_back(fl.MADV_DONTFORK, fl.MADV_DOFORK)


@case
def keeponfork() -> Run:
    """MADV_KEEPONFORK takes MADV_WIPEONFORK back."""
    return _there_and_back(fl.MADV_WIPEONFORK, fl.MADV_KEEPONFORK)


@case
def unmergeable() -> Run:
    """MADV_UNMERGEABLE takes MADV_MERGEABLE back."""
    return _there_and_back(fl.MADV_MERGEABLE, fl.MADV_UNMERGEABLE)


@case
def huge_zero_page() -> Run:
    """A read where a huge page fits prepares (do_huge_pmd_anonymous_page, before it takes the huge zero page)."""
    run = Run()
    run.mmap(0x200, 512, kernel="+v1")
    run.madvise(0x200, 512, fl.MADV_HUGEPAGE)
    run.op("fault", addr=0x234000, flags=0, kernel="+c2 +a3")
    return run


@case
def small_zero_page() -> Run:
    """A read where none fits gets the zero page, and needs no anon_vma."""
    run = Run()
    run.mmap(0x201, 512, kernel="+v1")
    run.madvise(0x201, 512, fl.MADV_HUGEPAGE)
    run.op("fault", addr=0x234000, flags=0, kernel="")
    return run


@case
def populate_beyond_a_file() -> Run:
    """MADV_POPULATE_WRITE over a mapping longer than its file, and one above: it ends in the first with -EFAULT."""
    run = Run(files=("short",))
    run.mmap(0x10, 2, flags=0x12, file=0, kernel="+v1")
    run.mmap(0x12, 2, kernel="+v2")
    run.madvise(0x10, 4, fl.MADV_POPULATE_WRITE, ret=EFAULT, kernel="+c3 +a4")
    return run


@case
def guard_in_unfaulted_file() -> Run:
    """A guard marker in a private file mapping, which is not prepared for it; a write there is SIGSEGV, without an
    anon_vma."""
    run = Run(files=("f",))
    run.mmap(0x10, 2, flags=0x12, file=0, kernel="+v1")
    run.madvise(0x10, 1, fl.MADV_GUARD_INSTALL)
    run.write(0x10)
    run.write(0x11, kernel="+c2 +a3")
    return run


@case
def e2big() -> Run:
    """execve with too many arguments: the new mm has a stack VMA, but no argument page was copied."""
    run = Run()
    run.op("exec_prepare", flags=1, kernel="+v1")
    run.op("exec_fail", ret=-7, kernel="-v1")
    return run


@case
def enoexec() -> Run:
    """execve of something that is no program: the new mm goes, and its argument pages with it."""
    run = Run()
    run.op("exec_prepare", kernel="+v1 +c2 +a3")
    run.op("exec_fail", ret=-8, kernel="-a3 -c2 -v1")
    return run


@case
def sysv_between() -> Run:
    """Three System V mappings of one segment side by side: vm_ops->close keeps mprotect from merging one away."""
    run = Run(files=("SYSV00000001",))
    run.op("shmat", addr=0x10000, ret=0x10000, len=0x3000, prot=RW, file=0, kernel="+v1")
    run.mprotect(0x11, 1, 1, kernel="+v2 +v3")
    run.mprotect(0x11, 1, RW)
    return run


@case
def unaligned_mprotect() -> Run:
    """mprotect of an address inside a page: EINVAL, unlike ENOMEM found before anything is changed."""
    run = Run()
    run.mmap(0x10, 4, kernel="+v1")
    run.op("mprotect", addr=0x10800, len=0x1000, prot=1, ret=-22, kernel="")
    return run


@case
def unaligned_madvise() -> Run:
    """madvise of an address inside a page."""
    run = Run()
    run.mmap(0x10, 4, kernel="+v1")
    run.op("madvise", addr=0x10800, len=0x1000, flags=fl.MADV_DONTFORK, ret=-22, kernel="")
    return run


@case
def mlock_forbidden() -> Run:
    """mlock, without CAP_IPC_LOCK and with a limit of 0, up to a hole that it never comes to."""
    run = Run()
    run.mmap(0x10, 4, kernel="+v1")
    run.mlock(0x12, 4, ret=-1)
    return run


@case
def mlock_beyond_its_limit() -> Run:
    """mlock beyond RLIMIT_MEMLOCK: ENOMEM as for a hole, but nothing was locked."""
    run = Run()
    run.mmap(0x10, 4, kernel="+v1")
    run.mlock(0x11, 1, ret=ENOMEM)
    return run


@case
def executable_stack() -> Run:
    """PROT_GROWSDOWN, as glibc makes stacks executable: the change begins where the stack does, so nothing is split."""
    run = Run()
    run.mmap(0x1000, 4, flags=PRIVATE | fl.MAP_GROWSDOWN, kernel="+v1")
    run.mprotect(0x1003, 1, 7 | fl.PROT_GROWSDOWN)
    return run


@case
def populate_a_file_seen_to_be_long_enough() -> Run:
    """A mapping that could be locked is long enough: what ends a later call is the one above it, of the same file."""
    run = Run(files=("f",))
    run.mmap(0x10, 2, flags=0x12, file=0, pgoff=4, kernel="+v1")
    run.mlock(0x10, 2, kernel="+c2 +a3")
    run.op("munlock", addr=0x10000, len=0x2000, kernel="")
    run.munmap(0x10, 2, kernel="-a3 -c2 -v1")
    run.mmap(0x10, 2, flags=0x12, file=0, pgoff=4, kernel="+v4")
    run.mmap(0x12, 2, flags=0x12, file=0, pgoff=9, kernel="+v5")
    run.madvise(0x10, 4, fl.MADV_POPULATE_WRITE, ret=EFAULT, kernel="+c6 +a7 +c8 +a9")
    return run


@case
def guard_in_a_file_is_inherited() -> Run:
    """fork copies the guard marker in a private file mapping, though that has no anon_vma (VM_MAYBE_GUARD)."""
    run = Run(files=("f",))
    run.mmap(0x10, 2, flags=0x12, file=0, kernel="+v1")
    run.madvise(0x10, 1, fl.MADV_GUARD_INSTALL)
    run.fork(2, kernel="+v11 +v15 +c16 +a17 +c18")
    run.write(0x10, tid=2)
    return run


@case
def guard_in_shared_memory_ends_a_call() -> Run:
    """mlock ends at a guard marker, in shared memory too: what lies above is locked, but not faulted in."""
    run = Run(files=("f",))
    run.mmap(0x10, 2, flags=0x11, file=0, kernel="+v1")
    run.mmap(0x12, 2, kernel="+v2")
    run.madvise(0x10, 1, fl.MADV_GUARD_INSTALL)
    run.mlock(0x10, 4, ret=ENOMEM)
    return run


@case
def mapped_over_its_own_source() -> Run:
    """mremap of shared memory with an old length of 0 onto its own start: the target is unmapped, and it with it."""
    run = Run(files=("f",))
    run.mmap(0x10, 2, flags=0x11, file=0, kernel="+v1")
    run.mmap(0x12, 2, kernel="+v2")
    run.op("mremap", addr=0x10000, len=0, len2=0x4000, flags=FIXED, addr2=0x10000, ret=EFAULT, kernel="-v1 -v2")
    return run
