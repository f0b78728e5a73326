# SPDX-License-Identifier: GPL-2.0-only
"""Random histories with the users of the walk in them: what the kernel does to pages behind the processes' backs.

The operations are of the same form as those of :mod:`random_ops`, among which they are strewn; any part of a history
is a history. Writes leave tokens, so that the oracle can tell what every process must see.

============  ===================================================
store         first, pages, token (writes; equal tokens make equal pages)
load          first, pages (reads, which bring back what was swapped out)
reclaim       first, pages, 1 if the folio stays in the swap cache
migrate       first, pages
ksmd          first, pages (merges equal pages of all processes there)
poison        page (memory failure)
split_folio   page
collapse      page (of the 2 MiB around it)
execve        pages by which the stack moves down (in no random history: the seeds stay what they were)
============  ===================================================
"""

from collections.abc import Callable
from random import Random

from rmaplab.check.oracle import Oracle
from rmaplab.mm import flags as fl
from rmaplab.mm.access import entry_at, mm_read, mm_write
from rmaplab.mm.exec import ElfMapper, bprm_mm_init
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.folio import Folio
from rmaplab.mm.hooks import ForkRefused
from rmaplab.mm.huge_memory import split_folio
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.khugepaged import collapse_huge_page
from rmaplab.mm.memory_failure import memory_failure
from rmaplab.mm.migrate import migrate_folio
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import brk
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT, entries
from rmaplab.mm.slab import UseAfterFree
from rmaplab.mm.stable_node import folio_test_ksm
from rmaplab.mm.vma import Vma
from rmaplab.mm.vmscan import shrink_folio
from rmaplab.workload import random_ops
from rmaplab.workload.random_ops import ANONYMOUS, HEAP, HUGE, HUGE_PAGES, PROT_RW, SMALL, SMALL_PAGES, Op, World

__all__ = ["WALK_OPS", "WalkWorld", "describe", "generate"]

PAGE = fl.PAGE_SHIFT
_COMMON = 3  # tokens 1 to _COMMON are stored by many, so that KSM finds equal pages
_OFTEN = 16  # pages at the start of each region
_STACK_GROWS = 32  # pages that setup_arg_pages adds below the argument page (stack_expand, 128 KiB)

_WEIGHTS = {
    "mmap": 4,
    "store": 26,
    "load": 12,
    "reclaim": 16,
    "migrate": 8,
    "ksmd": 8,
    "madvise": 6,
    "poison": 1,
    "split_folio": 4,
    "collapse": 4,
}
WALK_OPS = ("store", "load", "reclaim", "migrate", "ksmd", "poison", "split_folio", "collapse")


def generate(seed: int, length: int, *, processes: int = 4, huge: bool = False, share: float = 0.5) -> list[Op]:
    """A history of `length` operations, of which about `share` are users of the walk, or what they need.

    processes, huge: as for :func:`random_ops.generate`
    """
    random = Random(seed)
    history: list[Op] = []
    live = [1]
    base = iter(random_ops.generate(seed, length, processes=processes, huge=huge))
    names, weights = tuple(_WEIGHTS), tuple(_WEIGHTS.values())
    while len(history) < length:
        if not history or random.random() >= share:
            op = next(base)
            if op.name == "fork":
                live.append(op.args[0])
            elif op.name == "exit":
                live.remove(op.process)
        else:
            op = _walk_op(random, random.choice(live), random.choices(names, weights)[0], huge, len(history))
        history.append(op)
    return history


def _walk_op(random: Random, process: int, name: str, huge: bool, step: int) -> Op:
    if huge and random.random() < 0.7:
        first, pages = HUGE, HUGE_PAGES // 2
    else:
        first, pages = SMALL, SMALL_PAGES
    some = random.randint(1, 12)
    often = pages if random.random() < 0.4 else _OFTEN  # the same few pages again and again: their states mix
    page = first + random.randrange(often - some)
    if name == "mmap":
        return Op(process, name, (first, pages, PROT_RW, fl.MAP_FIXED, ANONYMOUS))
    if name == "store":
        token = random.randint(1, _COMMON) if random.random() < 0.5 else _COMMON + 1 + step
        return Op(process, name, (page, some, token))
    if name == "load":
        return Op(process, name, (page, some))
    if name == "reclaim":
        return Op(process, name, (page, some, random.randrange(2)))
    if name == "madvise":
        if first == HUGE:
            return Op(process, name, (first, pages, fl.MADV_HUGEPAGE))
        return Op(process, name, (first, pages, fl.MADV_MERGEABLE if random.random() < 0.8 else fl.MADV_UNMERGEABLE))
    if name == "ksmd":
        return Op(process, name, (first, pages))
    if name == "migrate":
        return Op(process, name, (page, some))
    return Op(process, name, (page,))


class _FreedMm(Mm):
    """What an mm_struct becomes with its last reference: nobody may look for a VMA in it."""

    __slots__ = ()

    def vma_lookup(self, address: int) -> "Vma | None":
        raise UseAfterFree(f"mm {self.ident} was freed")

    def find_vma(self, address: int) -> "Vma | None":
        raise UseAfterFree(f"mm {self.ident} was freed")

    def vmas_in(self, start: int, end: int) -> list[Vma]:
        raise UseAfterFree(f"mm {self.ident} was freed")


class WalkWorld(World):
    """A :class:`World` with these operations, that keeps contents and has the oracle told of everything.

    The kernel must keep contents (``Kernel(design, contents=True)``).
    """

    def __init__(self, kernel: Kernel) -> None:
        self.oracle = Oracle(kernel)
        self.step = 1 << 32  # tokens of writes that come without one
        self._users: dict[str, Callable[..., None]] = {name: getattr(self, f"_{name}") for name in WALK_OPS}
        super().__init__(kernel)

    def apply(self, op: Op) -> None:
        """Carry `op` out; an operation that makes no sense now does nothing."""
        mm = self.mms.get(op.process)
        if mm is None:
            return
        user = self._users.get(op.name)
        if user is not None:
            user(mm, *op.args)
            return
        if op.name == "execve":
            self.mms[op.process] = self._execve(mm, *op.args)
            return
        try:
            super().apply(op)
        except ForkRefused:
            return
        if op.name == "fork":
            child = self.mms.get(op.args[0])
            if child is not None and child is not mm:
                self.oracle.forked(mm, child)
        elif op.name == "exit":
            self._gone(mm)
        elif op.name not in ("write", "read"):
            self.oracle.changed(mm)

    def check(self) -> None:
        """Ask the oracle."""
        self.oracle.check(self.mms.values())

    def exit_all(self) -> None:
        """All processes exit; nothing may be left."""
        super().exit_all()
        self.oracle.check_gone()

    def _gone(self, mm: Mm) -> None:
        self.oracle.exited(mm)
        mm.__class__ = _FreedMm

    # --- operations

    def _execve(self, mm: Mm, moved: int) -> Mm:
        """Arguments are copied to the stack of a new mm, the old one goes (exec_mmap), and the stack moves down to
        where it is to lie (setup_arg_pages)."""
        new = bprm_mm_init(self.kernel)
        (stack,) = new.vmas
        top = stack.vm_end >> PAGE
        self.step += 1
        self._store(new, top - 1, 1, self.step)
        exit_mmap(mm)
        self._gone(mm)
        start, end = top - 1 - _STACK_GROWS - moved, top - moved
        ElfMapper(new).stack_moved(start << PAGE, end << PAGE, stack.vm_pgoff - _STACK_GROWS)
        self.oracle.changed(new)
        brk(new, HEAP << PAGE)
        return new

    def _write(self, mm: Mm, page: int) -> None:
        super()._write(mm, page)
        self.step += 1
        self._store(mm, page, 1, self.step)

    def _store(self, mm: Mm, first: int, pages: int, token: int) -> None:
        for page in range(first, first + pages):
            if mm_write(mm, page << PAGE, token):
                self.oracle.wrote(mm, page << PAGE, token)

    def _load(self, mm: Mm, first: int, pages: int) -> None:
        for page in range(first, first + pages):
            mm_read(mm, page << PAGE)

    def _folios(self, mm: Mm, first: int, pages: int) -> list[Folio]:
        """The folios that `mm` maps there, each once"""
        found: dict[Folio, None] = {}
        for _, entry in entries(mm.pgd, first, first + pages):
            if entry & KIND_MASK == PRESENT:
                folio = self.kernel.mem.pages[entry >> ENTRY_SHIFT]
                assert folio is not None
                found[folio] = None
        return list(found)

    def _folio_at(self, mm: Mm, page: int) -> Folio | None:
        entry = entry_at(mm, page << PAGE)
        if entry is None or entry & KIND_MASK != PRESENT:
            return None
        return self.kernel.mem.pages[entry >> ENTRY_SHIFT]

    def _reclaim(self, mm: Mm, first: int, pages: int, writeback: int) -> None:
        for folio in self._folios(mm, first, pages):
            shrink_folio(self.kernel, folio, writeback=bool(writeback))

    def _migrate(self, mm: Mm, first: int, pages: int) -> None:
        for folio in self._folios(mm, first, pages):
            migrate_folio(self.kernel, folio)

    def _ksmd(self, mm: Mm, first: int, pages: int) -> None:
        """One pass over the range in all processes: each page is compared with the first one of the same contents"""
        ksm, contents = self.kernel.ksm, self.kernel.mem.contents
        assert contents is not None
        ksm.scan()
        seen: dict[int, tuple[Mm, int]] = {}
        for other in list(self.mms.values()):
            for vma in other.vmas_in(first << PAGE, (first + pages) << PAGE):
                if not vma.vm_flags & fl.VM_MERGEABLE:
                    continue
                for vpn, entry in list(entries(other.pgd, vma.vm_start >> PAGE, vma.vm_end >> PAGE)):
                    token = contents.get(entry >> ENTRY_SHIFT, 0) if entry & KIND_MASK == PRESENT else 0
                    if not token:
                        continue
                    if token in seen:
                        ksm.merge(*seen[token], other, vpn << PAGE)
                    ksm.adopt(other, vpn << PAGE)
                    folio = self._folio_at(other, vpn)
                    if token not in seen or (folio is not None and folio_test_ksm(folio)):
                        seen[token] = other, vpn << PAGE

    def _poison(self, mm: Mm, page: int) -> None:
        entry = entry_at(mm, page << PAGE)
        if entry is not None and entry & KIND_MASK == PRESENT:
            memory_failure(self.kernel, entry >> ENTRY_SHIFT)

    def _split_folio(self, mm: Mm, page: int) -> None:
        folio = self._folio_at(mm, page)
        if folio is not None:
            split_folio(self.kernel, folio)

    def _collapse(self, mm: Mm, page: int) -> None:
        collapse_huge_page(mm, (page << PAGE) & -fl.PMD_SIZE)


def describe(op: Op) -> str:
    """`op` as one line, as :func:`random_ops.describe`.

    >>> describe(Op(1, "reclaim", (0x10000, 2, 1)))
    '1: reclaim(0x10000000, 2 pages, stays in the swap cache)'
    """
    if op.name == "execve":
        return f"{op.process}: execve(stack moves down {op.args[0]} pages)"
    if op.name not in WALK_OPS:
        return random_ops.describe(op)
    texts = [f"{op.args[0] << PAGE:#x}"]
    if len(op.args) > 1:
        texts.append(f"{op.args[1]} page{'s' if op.args[1] != 1 else ''}")
    if op.name == "store":
        texts.append(f"token {op.args[2]}")
    if op.name == "reclaim" and op.args[2]:
        texts.append("stays in the swap cache")
    return f"{op.process}: {op.name}({', '.join(texts)})"
