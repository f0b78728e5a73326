# SPDX-License-Identifier: GPL-2.0-only
"""How lazy designs come from a folio that names no anon_vma to the VMAs that may map it: through the VMA tree of its
mm, at address = base + index.

What keeps a VMA as it is while the walk looks at it is the question (Q4, Q10, Q13 of the reviewers). Two answers:
:func:`locked_places` takes the lock of each VMA; :func:`unlocked_places` takes none, as the series' ordinary walk, or
relies on another one, as the hook form does on the lock that its lazy VMAs share.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from typing import Any

from rmaplab.designs.anon_vma import vma_address
from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.hooks import WalkContended
from rmaplab.mm.mm import Mm
from rmaplab.mm.vma import Vma

__all__ = ["EXITING", "Pinned", "Place", "locked_places", "pinned_places", "unlocked_places"]

EXITING = object()
"""In place of what a folio names: its process has no users left."""

Place = tuple[Vma, int, Any]
"""A VMA, the address of the folio's first page in it, and the VMA's lock, held: whoever gets it lets it go."""


class Pinned:
    """What hook 4 holds of a lazy folio: what its mapping names, and, where the design says so, the locks of the VMAs
    that may map it."""

    __slots__ = ("guards", "named", "places")

    def __init__(self, named: Any) -> None:
        self.named = named
        self.places: list[tuple[Vma, int]] = []
        self.guards: list[Any] = []

    def lock(self, places: Iterable[Place]) -> None:
        """Keep the locks of these places, one by one: they are held also if the next cannot be had."""
        for vma, address, guard in places:
            self.places.append((vma, address))
            self.guards.append(guard)

    def unlock(self) -> None:
        """Let the locks go."""
        for guard in self.guards:
            with guard:
                pass


def locked_places(mm: Mm, base: int, folio: Folio, belongs: Callable[[Vma], bool]) -> Iterator[Place]:
    """The VMAs of `mm` that cover pages of `folio` at `base` + index, one after another. Each is looked up anew, since
    VMAs may be split and merged in between (lock_vma_under_rcu, with its check after the lock).

    Raises WalkContended where a VMA is locked for writing: the caller holds the folio lock, under which nobody may wait
    for the mmap lock.
    """
    locks = mm.kernel.locks
    position = base + (folio.index << PAGE_SHIFT)
    end = position + (folio.nr_pages << PAGE_SHIFT)
    while position < end:
        with locks.rcu_read():
            found = mm.vmas_in(position, end)
            guard = locks.vma_start_read(found[0]) if found else None
        if not found:
            return
        vma = found[0]
        if guard is None:
            raise WalkContended(mm)
        changed = vma.vm_end <= position or vma.vm_start >= end
        if vma.vm_start > position and not changed:  # before it is nothing, or what was split off it meanwhile
            with locks.rcu_read():
                changed = mm.vmas_in(position, end)[:1] != [vma]
        if changed:
            with guard:
                continue
        position = vma.vm_end
        address = vma_address(vma, folio.index, folio.nr_pages) if belongs(vma) else None
        if address is not None:
            yield vma, address, guard
        else:
            with guard:
                pass


def unlocked_places(
    mm: Mm, base: int, folio: Folio, belongs: Callable[[Vma], bool], lockless: bool
) -> Iterator[tuple[Vma, int]]:
    """The same without VMA locks. The RCU section stands for the reference that keeps the memory of each VMA.

    lockless: nor is there another lock under which VMAs do not change
    """
    locks = mm.kernel.locks
    start = base + (folio.index << PAGE_SHIFT)
    with locks.rcu_read(), locks.lockless() if lockless else nullcontext():
        for vma in mm.vmas_in(start, start + (folio.nr_pages << PAGE_SHIFT)):
            address = vma_address(vma, folio.index, folio.nr_pages) if belongs(vma) else None
            if address is not None:
                yield vma, address


def pinned_places(places: Iterable[tuple[Vma, int]], folio: Folio) -> Iterator[tuple[Vma, int]]:
    """Where in the VMAs of `places`, pinned for a folio, this one of its pages is that it was split into meanwhile; or
    the same places."""
    for vma, _ in places:
        address = vma_address(vma, folio.index, folio.nr_pages)
        if address is not None:
            yield vma, address
