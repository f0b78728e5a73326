# SPDX-License-Identifier: GPL-2.0-only
"""cow_context and vma_set under all interleavings: right with the locks that they take, and wrong without each."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from rmaplab.check.execution import Laboratory
from rmaplab.check.explore import dpor, pct
from rmaplab.check.explore.result import Budget, Result
from rmaplab.check.world import World, library, parse_world
from rmaplab.designs.anon_vma import vma_address
from rmaplab.designs.cow_context import CowContext, CowContextDesign
from rmaplab.designs.vma_set import VmaSetDesign
from rmaplab.mm.folio import Folio
from rmaplab.mm.hooks import Hooks
from rmaplab.mm.vma import Vma

WORLDS = library()
QUICK = [
    "reclaim-fork",
    "reclaim-split-vma",
    "reclaim-merge-vma",
    "migrate-exit",
    "migrate-munmap",
    "migrate-fork",
    "migrate-mremap-beside",
    "referenced-exit",
    "referenced-munmap",
    "faults-same-vma",
    "faults-neighbours",
    "ksm-fork",
    "ksm-exit",
    "poison-fork",
    "huge-migrate",
    "huge-collapse",
    "fail-fork",
    "fail-merge",
    "fail-fault",
    "degree",
]


def explore(world: World, design: Callable[[], Hooks]) -> Result:
    with Laboratory(world, design) as laboratory:
        return dpor.explore(laboratory, Budget(2000))


@pytest.mark.parametrize("name", QUICK)
@pytest.mark.parametrize("design", [CowContextDesign, VmaSetDesign])
def test_proved(design: type[Hooks], name: str) -> None:
    result = explore(WORLDS[name], design)
    assert not result.found, result.found[0].violation
    assert result.complete


class RcuAlone(CowContextDesign):
    """Look-ups and walks under RCU, as the public outline has it, and no lock."""

    @contextmanager
    def _lock_context_of(self, folio: Folio) -> Iterator[CowContext | None]:
        with self.kernel.locks.rcu_read(), self.kernel.locks.lockless():
            context = folio.mapping
            yield context if isinstance(context, CowContext) and folio.mapcount else None

    def rmap_walk_anon(self, folio: Folio, pinned: Any = None, locked: bool = False) -> Iterator[tuple[Vma, int]]:
        if pinned is None:
            yield from super().rmap_walk_anon(folio, pinned, locked)
            return
        with self.kernel.locks.rcu_read(), self.kernel.locks.lockless():
            yield from self._descend(folio, folio.mapping)


class EntriesMoveAlone(CowContextDesign):
    """mremap takes the lock of the tree where mainline's order of walks asks for it."""

    def copy_vma(self, vma: Vma, pgoff_kept: bool) -> Any: ...


class NothingPinned(VmaSetDesign):
    """Hook 4 leaves the VMAs alone."""

    def folio_get_anon_vma(self, folio: Folio) -> Any:
        return folio if folio.mapcount else None

    def put_anon_vma(self, pinned: Any) -> None: ...

    def rmap_walk_anon(self, folio: Folio, pinned: Any = None, locked: bool = False) -> Iterator[tuple[Vma, int]]:
        return super().rmap_walk_anon(folio)


class MembersOnce(VmaSetDesign):
    """A walk visits those who were members when it began."""

    def rmap_walk_anon(self, folio: Folio, pinned: Any = None, locked: bool = False) -> Iterator[tuple[Vma, int]]:
        vmas: dict[Vma, None] = {}
        with ExitStack() as held:
            self._lock_more(folio, vmas, held)
            for vma in vmas:
                address = vma_address(vma, folio.index, folio.nr_pages)
                if address is not None:
                    yield vma, address


class DeferredForEver(VmaSetDesign):
    """What goes while it is pinned is not looked at when the pin ends."""

    def _settle(self, folio: Folio, members: Any, pinned: Any) -> None:
        with self._list_lock(members):
            members.pinned.clear()


@pytest.mark.parametrize(
    ("design", "world", "name"),
    [
        (RcuAlone, "referenced-munmap", "use-after-free"),
        (RcuAlone, "referenced-exit", "use-after-free"),
        (RcuAlone, "reclaim-split-vma", "walk-misses-pte"),
        (RcuAlone, "migrate-mremap-up", "walk-misses-pte"),
        (EntriesMoveAlone, "migrate-mremap-beside", "walk-misses-pte"),
        (NothingPinned, "migrate-fork", "walk-misses-pte"),
        (NothingPinned, "migrate-mremap-up", "walk-misses-pte"),
        (MembersOnce, "poison-fork", "walk-misses-pte"),
        (DeferredForEver, "migrate-exit", "leak"),
    ],
)
def test_without_its_locks_it_is_wrong(design: type[Hooks], world: str, name: str) -> None:
    result = explore(WORLDS[world], design)
    assert result.found and result.found[0].violation.name == name, result.found


class NameNotKept(CowContextDesign):
    """A pin does not say that the context will be named again."""

    def folio_get_anon_vma(self, folio: Folio) -> Any:
        with self._lock_context_of(folio) as context:
            if context is not None:
                context.refcount += 1
            return context


GENERATIONS = parse_world(
    "generations",
    {
        "setup": ["A: mmap p0 1", "A: write p0", "A: fork B", "B: write p0", "B: fork C", "B: exit"],
        "cpu0": ["migrate C p0"],
        "cpu1": ["C: fork D", "C: exit"],
    },
)
"""A page of a dead process moves while the only process that has it forks for the first time, and goes."""


@pytest.mark.parametrize(("design", "wrong"), [(CowContextDesign, False), (NameNotKept, True)])
def test_a_migration_keeps_the_name(design: type[Hooks], wrong: bool) -> None:
    with Laboratory(GENERATIONS, design) as laboratory:
        result = pct.explore(laboratory, Budget(300), seed=2)
    assert [found.violation.name for found in result.found] == ["use-after-free"] * wrong
