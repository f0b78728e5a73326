# SPDX-License-Identifier: GPL-2.0-only
"""Random histories: lists of system calls and faults of a few related processes.

A history is plain data and makes sense with any of its operations left out: what is asked of a process that does
not exist, or what the kernel would refuse, does nothing. So a failing history can be shrunk by dropping operations.

>>> history = generate(seed=1, length=3)
>>> world = World(Kernel(AnonVmaDesign()))  # doctest: +SKIP
>>> for op in history:  # doctest: +SKIP
...     world.apply(op)
>>> print(describe(history[0]))
1: mmap(0x10000000, 24 pages, rw-, MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED)
"""

from collections.abc import Callable
from dataclasses import dataclass
from random import Random

from rmaplab.mm import flags as fl
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.fault import handle_mm_fault
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.madvise import madvise
from rmaplab.mm.mlock import mlock, mlockall, munlock, munlockall
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import brk, do_mmap, do_munmap, expand_downwards
from rmaplab.mm.mremap import mremap
from rmaplab.mm.protect import mprotect
from rmaplab.mm.vma import File

__all__ = ["Op", "World", "describe", "generate"]


@dataclass(frozen=True, slots=True)
class Op:
    """One operation of one process. Addresses and lengths in `args` are in pages.

    ============  =======================================
    mmap          first, pages, PROT_*, MAP_*, kind of memory (index into KINDS)
    munmap        first, pages
    mprotect      first, pages, PROT_*
    mremap        first, old pages, new pages, MREMAP_*, target
    madvise       first, pages, MADV_*
    mlock         first, pages, MLOCK_*
    munlock       first, pages
    mlockall      MCL_*
    munlockall
    brk           pages of heap
    read, write   page
    fork          number of the child
    exit
    ============  =======================================
    """

    process: int
    name: str
    args: tuple[int, ...] = ()


PAGE = fl.PAGE_SHIFT
KINDS = ("anonymous", "file", "shared", "/dev/zero", "System V", "stack")
(ANONYMOUS, FILE, SHARED, ZERO, SYSV, STACK) = range(6)

# Regions, in pages. Ranges of operations lie in one region.
SMALL, SMALL_PAGES = 0x10000, 48
STACK_TOP, STACK_PAGES = 0x20000, 24
HEAP, HEAP_PAGES = 0x30000, 16
HUGE, HUGE_PAGES, HUGE_STEP = 0x40000, 2048, 128  # in steps, so that 2 MiB are often mapped whole
FREE = 0x80000  # where mremap puts what it moves to a place of its own choice

STACK_GUARD_GAP = 256  # pages (stack_guard_gap)
STACK_LIMIT = 64  # pages (RLIMIT_STACK)

PROT_RW = fl.PROT_READ | fl.PROT_WRITE
_PROTS = (PROT_RW, PROT_RW, fl.PROT_READ, 0)
_ADVICE = (
    fl.MADV_NORMAL,
    fl.MADV_RANDOM,
    fl.MADV_DONTNEED,
    fl.MADV_DONTNEED,
    fl.MADV_DONTNEED_LOCKED,
    fl.MADV_DONTFORK,
    fl.MADV_DOFORK,
    fl.MADV_MERGEABLE,
    fl.MADV_UNMERGEABLE,
    fl.MADV_HUGEPAGE,
    fl.MADV_NOHUGEPAGE,
    fl.MADV_DONTDUMP,
    fl.MADV_DODUMP,
    fl.MADV_WIPEONFORK,
    fl.MADV_KEEPONFORK,
    fl.MADV_POPULATE_READ,
    fl.MADV_POPULATE_WRITE,
    fl.MADV_GUARD_INSTALL,
)
_KIND_WEIGHTS = (60, 12, 8, 8, 5, 7)
_EXTRA_MAP_FLAGS = (0, 0, 0, 0, 0, fl.MAP_POPULATE, fl.MAP_LOCKED, fl.MAP_NORESERVE, fl.MAP_STACK)
_FIXED = fl.MREMAP_MAYMOVE | fl.MREMAP_FIXED
_MREMAPS = (
    fl.MREMAP_MAYMOVE,
    _FIXED,
    _FIXED,
    _FIXED,
    fl.MREMAP_MAYMOVE | fl.MREMAP_DONTUNMAP,
    _FIXED | fl.MREMAP_DONTUNMAP,
    0,
)
_WEIGHTS = {
    "write": 30,
    "read": 2,
    "mmap": 13,
    "munmap": 6,
    "mprotect": 11,
    "mremap": 12,
    "madvise": 9,
    "mlock": 2,
    "munlock": 2,
    "mlockall": 0.3,
    "munlockall": 0.7,
    "brk": 3,
    "fork": 5,
    "exit": 4,
}


def generate(seed: int, length: int, *, processes: int = 4, huge: bool = False) -> list[Op]:
    """A history of `length` operations.

    processes: most that live at a time
    huge: a part of the ranges is large enough for huge pages
    """
    return _Generator(seed, processes, huge).run(length)


class _Generator:
    def __init__(self, seed: int, processes: int, huge: bool) -> None:
        self.random = Random(seed)
        self.most = processes
        self.huge = huge
        self.live = [1]
        self.last = 1  # number given to a process last
        self.moved: dict[int, tuple[int, int, int]] = {}  # process -> its last mremap: first, pages, target

    def run(self, length: int) -> list[Op]:
        names = tuple(_WEIGHTS)
        weights = tuple(_WEIGHTS.values())
        history = [Op(1, "mmap", (SMALL, SMALL_PAGES // 2, PROT_RW, fl.MAP_FIXED, ANONYMOUS))]
        while len(history) < length:
            name = self.random.choices(names, weights)[0]
            process = self.random.choice(self.live)
            if name == "fork":
                if len(self.live) >= self.most:
                    continue
                self.last += 1
                self.live.append(self.last)
                history.append(Op(process, name, (self.last,)))
            elif name == "exit":
                if len(self.live) == 1:
                    continue
                self.live.remove(process)
                history.append(Op(process, name))
            else:
                history.append(
                    Op(process, name, self._mremap(process) if name == "mremap" else getattr(self, f"_{name}")())
                )
        return history[:length]

    def _range(self) -> tuple[int, int]:
        """A range, by first page and length, in one of the regions"""
        random = self.random
        region = random.random()
        if self.huge and region < 0.3:
            steps = HUGE_PAGES // HUGE_STEP
            first = random.choice((0, 0, 4, 8, random.randrange(steps)))
            pages = random.choice((4, 4, 8, steps, random.randint(1, steps)))
            return HUGE + first * HUGE_STEP, min(pages, steps - first) * HUGE_STEP
        if region < 0.8:
            first = random.randrange(SMALL_PAGES)
            return SMALL + first, random.randint(1, min(8, SMALL_PAGES - first))
        start, size = (STACK_TOP - STACK_PAGES, STACK_PAGES) if region < 0.9 else (HEAP, HEAP_PAGES)
        first = random.randrange(size)
        return start + first, random.randint(1, min(4, size - first))

    def _page(self) -> tuple[int, ...]:
        first, pages = self._range()
        return (first + self.random.randrange(pages),)

    _read = _write = _page

    def _munmap(self) -> tuple[int, ...]:
        return self._range()

    _munlock = _munmap

    def _mmap(self) -> tuple[int, ...]:
        random = self.random
        kind = random.choices(range(len(KINDS)), _KIND_WEIGHTS)[0]
        if kind == STACK:
            return STACK_TOP - 2, 2, PROT_RW, fl.MAP_FIXED | fl.MAP_GROWSDOWN, kind
        return *self._range(), random.choice(_PROTS), fl.MAP_FIXED | random.choice(_EXTRA_MAP_FLAGS), kind

    def _mprotect(self) -> tuple[int, ...]:
        return *self._range(), self.random.choice(_PROTS)

    def _madvise(self) -> tuple[int, ...]:
        return *self._range(), self.random.choice(_ADVICE)

    def _mlock(self) -> tuple[int, ...]:
        return *self._range(), self.random.choice((0, fl.MLOCK_ONFAULT))

    def _mlockall(self) -> tuple[int, ...]:
        now, future, onfault = fl.MCL_CURRENT, fl.MCL_FUTURE, fl.MCL_ONFAULT
        return (self.random.choice((now, future, now | future, now | onfault, future | onfault)),)

    def _munlockall(self) -> tuple[int, ...]:
        return ()

    def _brk(self) -> tuple[int, ...]:
        return (self.random.randint(0, HEAP_PAGES),)

    def _mremap(self, process: int) -> tuple[int, ...]:
        random = self.random
        back = self.moved.pop(process, None)
        if back is not None and random.random() < 0.5:  # to where the page offset fits
            first, pages, target = back
            return target, pages, pages, _FIXED, first
        first, old = self._range()
        flags = random.choice(_MREMAPS)
        new = old
        if not flags & fl.MREMAP_DONTUNMAP and random.random() < 0.3:
            new = max(1, old + random.randint(-4, 4))
        target = self._range()[0]
        if flags & fl.MREMAP_FIXED:
            self.moved[process] = first, new, target
        return first, old, new, flags, target


class World:
    """The processes of a history on one modelled kernel. Process 1 exists from the start."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.mms: dict[int, Mm] = {}
        self.files = {
            FILE: File("file"),
            SHARED: File("shared"),
            ZERO: File("/dev/zero", zero=True),
            SYSV: File("SYSV", close=True),
        }
        self._calls: dict[str, Callable[..., None]] = {
            name: getattr(self, f"_{name}") for name in (*_WEIGHTS, "exit", "fork") if name not in ("fork", "exit")
        }
        first = self.mms[1] = kernel.mm_alloc()
        brk(first, HEAP << PAGE)

    def apply(self, op: Op) -> None:
        """Carry `op` out, unless the kernel would refuse it or its process does not exist."""
        mm = self.mms.get(op.process)
        if mm is None:
            return
        if op.name == "fork":
            if op.args[0] not in self.mms:
                self.mms[op.args[0]] = dup_mm(mm)
        elif op.name == "exit":
            exit_mmap(self.mms.pop(op.process))
        else:
            self._calls[op.name](mm, *op.args)

    def exit_all(self) -> None:
        """All processes exit, the oldest first."""
        for process in sorted(self.mms):
            exit_mmap(self.mms.pop(process))

    # --- faults

    def _write(self, mm: Mm, page: int) -> None:
        self._fault(mm, page << PAGE, True)

    def _read(self, mm: Mm, page: int) -> None:
        self._fault(mm, page << PAGE, False)

    @staticmethod
    def _fault(mm: Mm, address: int, write: bool) -> None:
        """A fault below a stack makes it grow (lock_mm_and_find_vma)"""
        vma = mm.find_vma(address)
        if vma is None:
            return
        if vma.vm_start > address:
            prev, _ = mm.prev_next(vma)
            pages = (vma.vm_start - address) >> PAGE
            if not vma.vm_flags & fl.VM_GROWSDOWN or pages > vma.vm_pgoff:
                return
            if (vma.vm_end - address) >> PAGE > STACK_LIMIT:
                return
            if prev is not None and prev.vm_flags & fl.VM_ACCESS_FLAGS and not prev.vm_flags & fl.VM_GROWSDOWN:
                gap = (address - prev.vm_end) >> PAGE
                if gap < STACK_GUARD_GAP:
                    return
            with mm.kernel.locks.mmap_write(mm):
                expand_downwards(mm, vma, address)
        handle_mm_fault(mm, address, write)

    # --- system calls

    def _mmap(self, mm: Mm, first: int, pages: int, prot: int, flags: int, kind: int) -> None:
        kind_flags = fl.MAP_SHARED if kind in (SHARED, SYSV) else 0
        do_mmap(mm, first << PAGE, pages << PAGE, prot, flags | kind_flags, self.files.get(kind), first)

    @staticmethod
    def _munmap(mm: Mm, first: int, pages: int) -> None:
        with mm.kernel.locks.mmap_write(mm):
            do_munmap(mm, first << PAGE, (first + pages) << PAGE, unlock=True)

    @staticmethod
    def _mprotect(mm: Mm, first: int, pages: int, prot: int) -> None:
        mprotect(mm, first << PAGE, pages << PAGE, prot)

    @staticmethod
    def _madvise(mm: Mm, first: int, pages: int, advice: int) -> None:
        madvise(mm, first << PAGE, pages << PAGE, advice)

    @staticmethod
    def _mlock(mm: Mm, first: int, pages: int, flags: int) -> None:
        mlock(mm, first << PAGE, pages << PAGE, flags)

    @staticmethod
    def _munlock(mm: Mm, first: int, pages: int) -> None:
        munlock(mm, first << PAGE, pages << PAGE)

    @staticmethod
    def _mlockall(mm: Mm, flags: int) -> None:
        mlockall(mm, flags)

    @staticmethod
    def _munlockall(mm: Mm) -> None:
        munlockall(mm)

    @staticmethod
    def _brk(mm: Mm, pages: int) -> None:
        """A heap that would grow over another VMA stays as it is, and so does one that is not there to shrink"""
        assert mm.brk is not None
        new = (HEAP + pages) << PAGE
        others = mm.vmas_in(min(new, mm.brk), max(new, mm.brk))
        if bool(others) == (new < mm.brk):
            brk(mm, new)

    def _mremap(self, mm: Mm, first: int, old: int, new: int, flags: int, target: int) -> None:
        """Finds out what the kernel would return (check_mremap_params, check_prep_vma)"""
        vma = mm.vma_lookup(first << PAGE)
        fixed = flags & fl.MREMAP_FIXED
        if vma is None or (fixed and target < first + old and first < target + new):
            return
        several = fixed and old == new and self.kernel.profile.mremap_moves_many
        if not several and min(old, new) > (vma.vm_end >> PAGE) - first:
            return
        if new > old and old > (vma.vm_end >> PAGE) - first:
            return
        if fixed:
            place = target
        elif flags & fl.MREMAP_DONTUNMAP:
            place = self._unmapped(mm, new)
        elif new <= old or (vma.vm_end == (first + old) << PAGE and not mm.vmas_in(vma.vm_end, (first + new) << PAGE)):
            place = first
        elif flags & fl.MREMAP_MAYMOVE:
            place = self._unmapped(mm, new)
        else:
            return
        mremap(mm, first << PAGE, old << PAGE, new << PAGE, flags, target << PAGE, place << PAGE)

    @staticmethod
    def _unmapped(mm: Mm, pages: int) -> int:
        """The lowest hole of `pages` from FREE on, aligned if large (get_unmapped_area)"""
        align = 512 if pages >= 512 else 1
        place = FREE
        while vmas := mm.vmas_in(place << PAGE, (place + pages) << PAGE):
            place = -(-(vmas[-1].vm_end >> PAGE) // align) * align
        return place


# --- for people


def _names(value: int, prefix: str) -> str:
    """`A|B` for the flags of `value`"""
    found = [
        name
        for name, bit in vars(fl).items()
        if name.startswith(prefix) and isinstance(bit, int) and bit.bit_count() == 1 and value & bit
    ]
    return "|".join(found) or "0"


def _advice(value: int) -> str:
    return next(name for name, number in vars(fl).items() if name.startswith("MADV_") and number == value)


def _prot(value: int) -> str:
    return "".join(letter if value & bit else "-" for letter, bit in (("r", 1), ("w", 2), ("x", 4)))


def describe(op: Op) -> str:
    """`op` as one line: process, call, arguments.

    >>> describe(Op(2, "mprotect", (0x10000, 3, 1)))
    '2: mprotect(0x10000000, 3 pages, r--)'
    """
    args = op.args
    texts: list[str] = []
    if op.name in ("fork", "brk", "mlockall"):
        number = args[0]
        texts = [
            {"fork": f"child {number}", "brk": f"{number} pages of heap", "mlockall": _names(number, "MCL_")}[op.name]
        ]
    elif args:
        texts = [f"{args[0] << PAGE:#x}"]
        if len(args) > 1:
            texts.append(f"{args[1]} page{'s' if args[1] != 1 else ''}")
    if op.name == "mmap":
        kind = KINDS[args[4]]
        private = "MAP_SHARED" if args[4] in (SHARED, SYSV) else "MAP_PRIVATE"
        named = "MAP_ANONYMOUS|" if args[4] in (ANONYMOUS, STACK) else ""
        texts += [_prot(args[2]), f"{private}|{named}{_names(args[3], 'MAP_')}"]
        if not named:
            texts.append(kind)
    elif op.name == "mprotect":
        texts.append(_prot(args[2]))
    elif op.name == "madvise":
        texts.append(_advice(args[2]))
    elif op.name == "mlock" and args[2]:
        texts.append("MLOCK_ONFAULT")
    elif op.name == "mremap":
        texts += [f"{args[2]} page{'s' if args[2] != 1 else ''}", _names(args[3], "MREMAP_")]
        if args[3] & fl.MREMAP_FIXED:
            texts.append(f"{args[4] << PAGE:#x}")
    return f"{op.process}: {op.name}({', '.join(texts)})"
