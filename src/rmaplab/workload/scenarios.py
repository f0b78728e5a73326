# SPDX-License-Identifier: GPL-2.0-only
"""Short histories, each of which is the case that some hook is there for.

Random histories rarely have three generations of which two are gone, and have no execve. These are run before them
(`rmaplab hooks`), and are histories like any other: a restriction leaves operations out, shrinking does too.
"""

from collections.abc import Mapping
from types import MappingProxyType

from rmaplab.mm import flags as fl
from rmaplab.workload.random_ops import ANONYMOUS, HUGE, HUGE_PAGES, PROT_RW, SMALL, Op

__all__ = ["SCENARIOS"]

_FIXED = fl.MREMAP_MAYMOVE | fl.MREMAP_FIXED
_THERE = SMALL + 32  # where mremap moves to


def _mmap(pages: int = 4, first: int = SMALL, process: int = 1) -> Op:
    return Op(process, "mmap", (first, pages, PROT_RW, fl.MAP_FIXED, ANONYMOUS))


def _store(process: int = 1, *, first: int = SMALL, pages: int = 4, token: int = 1) -> Op:
    return Op(process, "store", (first, pages, token))


def _fork(child: int, parent: int = 1) -> Op:
    return Op(parent, "fork", (child,))


def _exit(process: int = 1) -> Op:
    return Op(process, "exit")


def _mremap(first: int, pages: int, target: int, flags: int = _FIXED) -> Op:
    return Op(1, "mremap", (first, pages, pages, flags, target))


def _swap_out(process: int = 1, pages: int = 4) -> Op:
    """Unmapped everywhere; the folio stays in the swap cache."""
    return Op(process, "reclaim", (SMALL, pages, 1))


_MERGEABLE = Op(1, "madvise", (SMALL, 8, fl.MADV_MERGEABLE))
_KSMD = Op(1, "ksmd", (SMALL, 8))

SCENARIOS: Mapping[str, tuple[Op, ...]] = MappingProxyType(
    {
        # hooks 1, 2, 3: a page, found again (3); 12: and by memory failure
        "write": (_mmap(), _store(), Op(1, "poison", (SMALL,))),
        # hook 1 of a design that marks VMAs at fork, too: the first fault beside an inherited VMA looks at its mark
        "first fault beside an inherited VMA": (
            _mmap(),
            _store(),
            _fork(2),
            _mmap(2, SMALL + 4, 2),
            _store(2, first=SMALL + 4, pages=2, token=2),
        ),
        # hook 4: who migrates a page pins what it names, for both walks
        "migrate": (_mmap(), _store(), Op(1, "migrate", (SMALL, 4))),
        # hooks 5, 6: the child's entry is found from the parent's folio
        "fork": (_mmap(), _store(), _fork(2), _store(2, pages=1, token=2)),
        # hook 6 where the folio's object may die: a page of the grandparent, and both above have gone
        "grandchild": (_mmap(), _store(), _fork(2), _exit(), _fork(3, 2), _exit(2)),
        # the same below a root that stays
        "grandchild of a child": (
            _mmap(),
            _store(),
            _fork(2),
            _store(2, token=2),
            _fork(3, 2),
            _exit(2),
            _fork(4, 3),
            _exit(3),
        ),
        # hook 7: a part of the VMA keeps its pages, and the whole when the parts are one again
        "split": (
            _mmap(),
            _store(),
            Op(1, "mprotect", (SMALL + 1, 2, fl.PROT_READ)),
            Op(1, "munmap", (SMALL, 1)),
            Op(1, "mprotect", (SMALL + 1, 2, PROT_RW)),
        ),
        # hook 7: two VMAs that were faulted apart must not become one that has only the pages of one of them
        "merge": (
            _mmap(2),
            _store(pages=2),
            _mmap(2, SMALL + 4),
            _store(first=SMALL + 4, pages=2),
            _mmap(2, SMALL + 2),
        ),
        # hook 8: the VMA that folios were made in goes, the folios stay
        "head cut off": (
            _mmap(),
            _store(),
            Op(1, "mprotect", (SMALL + 1, 3, fl.PROT_READ)),
            Op(1, "munmap", (SMALL, 1)),
        ),
        # hook 9: pages lie elsewhere than their index says
        "move": (_mmap(), _store(), _mremap(SMALL, 4, _THERE)),
        # hook 9: and a part of them only, then a fork
        "move a part": (_mmap(), _store(), _mremap(SMALL + 1, 2, _THERE), _fork(2)),
        # hook 9: MREMAP_DONTUNMAP leaves a VMA that never was faulted, and is written to again
        "move, source stays": (
            _mmap(),
            _store(),
            _mremap(SMALL, 4, _THERE, _FIXED | fl.MREMAP_DONTUNMAP),
            _store(token=2),
            _fork(2),
        ),
        # hook 9 without copy_vma: relocate_vma_down moves the stack of an execve within its VMA
        "execve": (Op(1, "execve", (500,)), _fork(2)),
        # hook 10: neither hook 6 nor hook 9 sees what lies in the swap cache
        "swap-in in the child": (_mmap(), _store(), _swap_out(), _fork(2), Op(2, "load", (SMALL, 4))),
        # hook 5 of a design whose child starts a tree of its own: what comes back from disk names the root of that tree
        "swap-in from disk in the child": (
            _mmap(),
            _store(),
            Op(1, "reclaim", (SMALL, 4, 0)),
            _fork(2),
            Op(2, "load", (SMALL, 4)),
        ),
        # hook 10 after hook 9
        "swap-in after a move": (_mmap(), _store(), _swap_out(), _mremap(SMALL, 4, _THERE), Op(1, "load", (_THERE, 4))),
        # hook 10 where the folio's object may die: as "grandchild", but the page was in the swap cache
        "swap-in in the grandchild": (
            _mmap(),
            _store(),
            _swap_out(),
            _fork(2),
            _exit(),
            _fork(3, 2),
            _exit(2),
            Op(3, "load", (SMALL, 4)),
        ),
        # the same below a root that stays
        "swap-in in the grandchild of a child": (
            _mmap(),
            _store(),
            _fork(2),
            _store(2, token=2),
            _swap_out(2),
            _fork(3, 2),
            _exit(2),
            _fork(4, 3),
            _exit(3),
            Op(4, "load", (SMALL, 4)),
        ),
        # hook 11: equal pages of one process, and of its child
        "KSM": (_mmap(), _MERGEABLE, _store(), _KSMD, _fork(2), _KSMD),
        # hooks 11, 15: a relative of those that share the page has gone
        "KSM, a relative gone": (_mmap(), _MERGEABLE, _store(), _fork(2), _exit(2), _KSMD),
        # hook 13: khugepaged takes the page table of a VMA away
        "collapse": (
            _mmap(512, HUGE),
            _store(first=HUGE),
            Op(1, "madvise", (HUGE, 512, fl.MADV_HUGEPAGE)),
            Op(1, "collapse", (HUGE,)),
        ),
        # hook 14: entries that go, one by one
        "unmap": (_mmap(), _store(), _fork(2), Op(2, "munmap", (SMALL, 2)), _exit(2)),
        # hook 15: a process with a living relative goes
        "exit": (_mmap(), _store(), _fork(2), _exit(), _store(2, token=2)),
        # hook 16: a huge page becomes small ones
        "folio split": (
            _mmap(HUGE_PAGES // 2, HUGE),
            Op(1, "madvise", (HUGE, HUGE_PAGES // 2, fl.MADV_HUGEPAGE)),
            _store(first=HUGE),
            Op(1, "split_folio", (HUGE,)),
        ),
    }
)
"""Name -> history. Process 1 exists; the others are its descendants."""
