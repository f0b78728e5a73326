# SPDX-License-Identifier: GPL-2.0-only
"""The oracle: after an operation, do walks, counts, references and contents agree with a scan of all page tables?

It knows no design: it walks as the users of the walk do, and believes only page tables. An object of the design that
was freed betrays itself by its missing attributes (what it named is deleted), or by the log of the slab caches.
"""

from collections import defaultdict
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from rmaplab.check.violation import (
    COW_ISOLATION,
    LEAK,
    MAPCOUNT,
    REFCOUNT,
    USE_AFTER_FREE,
    WALK_MISSES_PTE,
    WALK_WRONG_VMA,
    Violation,
)
from rmaplab.mm.access import mm_peek
from rmaplab.mm.folio import Folio
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.memory_failure import collect_procs
from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, MIGRATION, PRESENT, SWAP, WRITE
from rmaplab.mm.rmap import page_vma_mapped_walk, visits
from rmaplab.mm.stable_node import folio_test_ksm
from rmaplab.mm.vma import Vma

__all__ = ["Oracle", "Words", "check_gone", "check_walks"]

Place = tuple[Mm, int]
"""An address space and a virtual page number; of a PMD entry the first."""


class Words:
    """How a report calls things."""

    def place(self, mm: Mm, vpn: int) -> str:
        """Of a process and a virtual page number."""
        return f"mm {mm.ident} at {vpn << 12:#x}"

    def of(self, obj: Any) -> str:
        """Of a folio or a VMA."""
        return str(obj)


_WORDS = Words()


_T = TypeVar("_T")


def _live_objects_only(what: str, folio: Folio, words: Words, walk: Callable[[], _T]) -> _T:
    """What `walk` of `folio` gives. A freed object has lost the attributes that the design deletes."""
    try:
        return walk()
    except AttributeError as error:
        raise Violation(USE_AFTER_FREE, f"{what} of {words.of(folio)} reached a freed object: {error}") from error


class _Scan:
    """What all page tables say.

    mapped: folio -> place -> entry
    swapped: slot -> entries that name it
    """

    def __init__(self, kernel: Kernel, mms: Iterable[Mm], words: Words) -> None:
        self.mapped: dict[Folio, dict[Place, int]] = defaultdict(dict)
        self.swapped: dict[int, int] = defaultdict(int)
        for mm in mms:
            for vpn, entry in mm.anon_entries():
                kind = entry & KIND_MASK
                if kind == SWAP:
                    self.swapped[entry >> ENTRY_SHIFT] += 1
                elif kind == MIGRATION:
                    raise Violation(WALK_MISSES_PTE, f"a migration entry stayed behind in {words.place(mm, vpn)}")
                elif kind == PRESENT:
                    folio = kernel.mem.pages[entry >> ENTRY_SHIFT]
                    if folio is None:
                        raise Violation(USE_AFTER_FREE, f"{words.place(mm, vpn)} maps a page that was freed")
                    self.mapped[folio][mm, vpn] = entry


def check_walks(kernel: Kernel, mms: Iterable[Mm], words: Words = _WORDS) -> None:
    """Raise :class:`Violation` unless all that holds between operations holds for every live folio.

    mms: all live address spaces. No operation is in progress: no folio is isolated or under migration.
    """
    live = list(mms)
    scan = _Scan(kernel, live, words)
    for folio in kernel.mem.folios():
        places = scan.mapped.get(folio, {})
        _check_counts(kernel, folio, places, words)
        if places:
            _check_exclusive(folio, places, words)
            _check_folio_walks(kernel, live, folio, places, words)
    _check_swap(kernel, scan, words)


def _check_counts(kernel: Kernel, folio: Folio, places: dict[Place, int], words: Words) -> None:
    if folio.mapcount != len(places):
        raise Violation(MAPCOUNT, f"{words.of(folio)} is mapped by {len(places)} entries")
    poisoned = folio.pfn in kernel.mem.poisoned
    refs = (folio in kernel.swap.slot_of) + poisoned
    if folio.refs != refs:
        raise Violation(
            REFCOUNT, f"{words.of(folio)} has {folio.refs} references besides its mappings, held are {refs}"
        )
    if not places and not refs:
        raise Violation(LEAK, f"nothing maps or holds {words.of(folio)}")
    for mm, vpn in places if poisoned else ():
        if not _is_stray(folio, mm, vpn):
            raise Violation(WALK_MISSES_PTE, f"{words.place(mm, vpn)} still maps the broken page {folio.pfn:#x}")


def _check_exclusive(folio: Folio, places: dict[Place, int], words: Words) -> None:
    """A page that is exclusive has one mapping; one that is writable is exclusive (PageAnonExclusive)."""
    users: dict[int, int] = defaultdict(int)
    for (mm, vpn), entry in places.items():
        first = (entry >> ENTRY_SHIFT) - folio.pfn
        whole = isinstance(mm.pgd[vpn >> 9], int)
        for page in range(folio.nr_pages) if whole else (first,):
            users[page] += 1
            if entry & WRITE and not folio.exclusive >> page & 1:
                raise Violation(
                    COW_ISOLATION,
                    f"{words.place(mm, vpn)} may write to page {page} of {words.of(folio)}, not exclusive",
                )
    for page, count in users.items():
        if count > 1 and folio.exclusive >> page & 1:
            raise Violation(COW_ISOLATION, f"page {page} of {words.of(folio)} is exclusive, mapped {count} times")


def _check_folio_walks(kernel: Kernel, live: list[Mm], folio: Folio, places: dict[Place, int], words: Words) -> None:
    """As reclaim, migration, folio_referenced and folio split do (rmap_walk); as memory failure does."""
    walks: list[tuple[str, Callable[[], list[tuple[Vma, int]]]]] = [
        ("rmap_walk_ksm" if folio_test_ksm(folio) else "rmap_walk_anon", lambda: list(visits(kernel, folio))),
    ]
    if not folio_test_ksm(folio):
        walks.append(("collect_procs_anon", lambda: list(kernel.hooks.collect_procs_anon(folio))))
    for name, walk in walks:
        found = _live_objects_only(name, folio, words, walk)
        reached: set[Place] = set()
        for vma, address in found:
            mm = vma.vm_mm
            if mm not in live or mm.vma_lookup(vma.vm_start) is not vma:
                raise Violation(
                    WALK_WRONG_VMA, f"{name} of {words.of(folio)} visits {words.of(vma)}, which is in no tree"
                )
            if not vma.vm_start <= address < vma.vm_end:
                raise Violation(
                    WALK_WRONG_VMA, f"{name} of {words.of(folio)} visits {words.of(vma)} at {address:#x}, outside"
                )
            reached.update((mm, vpn) for vpn, _, _ in page_vma_mapped_walk(folio, vma, address))
        for mm, vpn in places.keys() - reached:
            if _is_stray(folio, mm, vpn):
                continue
            raise Violation(WALK_MISSES_PTE, f"{name} of {words.of(folio)} does not reach {words.place(mm, vpn)}")
    if folio.nr_pages == 1:
        kill = _live_objects_only("collect_procs", folio, words, lambda: collect_procs(kernel, folio))
        for mm, vpn in places:
            if mm not in kill and not _is_stray(folio, mm, vpn):
                raise Violation(
                    WALK_MISSES_PTE,
                    f"memory failure would not kill {words.place(mm, vpn)}, which maps {words.of(folio)}",
                )


def _is_stray(folio: Folio, mm: Mm, vpn: int) -> bool:
    """Does mainline miss this mapping too? (StableNode.strays)"""
    if not folio_test_ksm(folio) or not folio.mapping.strays:
        return False
    return not any(item.mm is mm and item.address == vpn << 12 for item in folio.mapping.items)


def _check_swap(kernel: Kernel, scan: _Scan, words: Words) -> None:
    swap = kernel.swap
    for slot, count in swap.counts.items():
        if count != scan.swapped.get(slot, 0):
            raise Violation(REFCOUNT, f"swap slot {slot} counts {count}, named by {scan.swapped.get(slot, 0)} entries")
        if not count and slot not in swap.cache:
            raise Violation(LEAK, f"swap slot {slot} is in use for nobody")
    for slot in scan.swapped.keys() - swap.counts.keys():
        raise Violation(USE_AFTER_FREE, f"an entry names the free swap slot {slot}")
    for folio, slot in swap.slot_of.items():
        if any(swap.cache.get(slot + k) is not folio for k in range(folio.nr_pages)):
            raise Violation(REFCOUNT, f"the swap cache does not find {words.of(folio)} at slot {slot}")


def check_gone(kernel: Kernel) -> None:
    """Raise :class:`Violation` unless everything is gone, now that every process has exited."""
    for slab in kernel.slabs:
        if slab.live:
            raise Violation(LEAK, f"{slab.live} objects of {slab.name}")
    if kernel.mms_freed != kernel.mms_created:
        raise Violation(LEAK, f"{kernel.mms_created - kernel.mms_freed} objects of mm_struct")
    if kernel.mem.live != len(kernel.mem.poisoned):
        raise Violation(LEAK, f"{kernel.mem.live} pages, {len(kernel.mem.poisoned)} of them broken")
    if kernel.swap.counts or kernel.swap.slot_of:
        raise Violation(LEAK, f"{len(kernel.swap.counts)} swap slots")
    kernel.ksm.scan()
    if kernel.ksm.items or any(node.folio.pfn not in kernel.mem.poisoned for node in kernel.ksm.nodes):
        raise Violation(LEAK, f"{len(kernel.ksm.items)} rmap items, {len(kernel.ksm.nodes)} stable nodes")


class Oracle:
    """The oracle for a whole history: besides what :func:`check_walks` sees, freed objects and contents.

    To be created before the first process. It is told who wrote, forked, exited or made system calls.
    """

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self._log = kernel.log_slabs()
        self._live: dict[int, Any] = {}
        self._freed: dict[int, Any] = {}  # holds them, so that no id is used again
        self._expected: dict[Mm, dict[int, int]] = {}  # mm -> vpn -> what it must see, zeroes left out

    # --- what happened

    def wrote(self, mm: Mm, address: int, token: int) -> None:
        """`mm` stored `token` at `address` (bytes)."""
        self._expected.setdefault(mm, {})[address >> 12] = token

    def forked(self, mm: Mm, child: Mm) -> None:
        """What the child sees is its parent's, less the VMAs that it does not inherit."""
        inherited = self._expected.get(mm, {})
        seen = self._seen(child)
        self._expected[child] = {vpn: token for vpn, token in inherited.items() if vpn in seen}
        for vma in child.vmas:
            parent = mm.vma_lookup(vma.vm_start)
            if parent is None or vma.anon_vma is None:
                continue
            for vpn in range(vma.vm_start >> 12, vma.vm_end >> 12) if inherited else ():
                if vpn in inherited and vpn not in seen:
                    raise Violation(COW_ISOLATION, f"{_WORDS.place(child, vpn)} did not inherit {inherited[vpn]}")

    def exited(self, mm: Mm) -> None:
        """`mm` is gone."""
        self._expected.pop(mm, None)

    def changed(self, mm: Mm) -> None:
        """A system call of `mm` unmapped or moved pages of its own: it sees what it saw, elsewhere or no longer."""
        before = self._expected.get(mm, {})
        tokens = set(before.values())
        seen = {vpn: token for vpn, token in self._seen(mm).items() if token is not None}
        for vpn, token in seen.items():
            if token not in tokens:
                raise Violation(COW_ISOLATION, f"{_WORDS.place(mm, vpn)} has {token}, which it never had")
        self._expected[mm] = seen

    # --- checks

    def _seen(self, mm: Mm) -> dict[int, int | None]:
        """vpn -> contents of every page that is not all zeroes; None where it is broken"""
        seen: dict[int, int | None] = {}
        for vpn, entry in mm.anon_entries():
            count = 512 if isinstance(mm.pgd[vpn >> 9], int) else 1
            for k in range(count):
                token = mm_peek(mm, vpn + k, entry + (k << ENTRY_SHIFT))
                if token != 0:
                    seen[vpn + k] = token
        return seen

    def check(self, mms: Iterable[Mm]) -> None:
        """Raise :class:`Violation` unless everything holds now, between two operations."""
        live = list(mms)
        self._read_log()
        check_walks(self.kernel, live)
        for folio in self.kernel.mem.folios():
            if folio.mapcount and id(folio.mapping) in self._freed:
                raise Violation(USE_AFTER_FREE, f"{folio} is mapped and names {folio.mapping}, which was freed")
        for mm in live:
            for vma in mm.vmas:
                if id(vma) in self._freed:
                    raise Violation(USE_AFTER_FREE, f"{vma} was freed and is in the tree of mm {mm.ident}")
            if self.kernel.mem.contents is not None:
                self._check_contents(mm)

    def _check_contents(self, mm: Mm) -> None:
        expected = self._expected.setdefault(mm, {})
        seen = self._seen(mm)
        for vpn in expected.keys() | seen.keys():
            token = seen.get(vpn, 0)
            if token is None:
                expected.pop(vpn, None)  # broken: the task is killed when it looks
            elif token != expected.get(vpn, 0):
                raise Violation(
                    COW_ISOLATION, f"{_WORDS.place(mm, vpn)} sees {token} instead of {expected.get(vpn, 0)}"
                )

    def check_gone(self) -> None:
        """The same after every process has exited."""
        self._read_log()
        check_gone(self.kernel)

    def _read_log(self) -> None:
        for alloc, _, obj in self._log:
            if alloc:
                self._live[id(obj)] = obj
                self._freed.pop(id(obj), None)
            elif self._live.pop(id(obj), None) is None:
                raise Violation(USE_AFTER_FREE, f"{obj} is freed twice")
            else:
                self._freed[id(obj)] = obj
        self._log.clear()
