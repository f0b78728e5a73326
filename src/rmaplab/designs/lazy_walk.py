# SPDX-License-Identifier: GPL-2.0-only
"""How lazy designs come from a folio that names no anon_vma but a root VMA, or its mm, to the VMAs that may map it:
through the VMA tree of the mm, at address = base + index (hooks 3 and 4).

What keeps a VMA as it is while the walk looks at it is the question (Q4, Q10, Q13 of the reviewers). Two answers:
:func:`locked_places` takes the lock of each VMA; :func:`unlocked_places` takes none, as the series' ordinary walk, or
relies on another one, as the hook form does on the lock that its lazy VMAs share.
"""

from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, ClassVar

from rmaplab.designs.anon_vma import AnonVma, AnonVmaDesign, vma_address
from rmaplab.mm.flags import PAGE_SHIFT
from rmaplab.mm.folio import Folio
from rmaplab.mm.hooks import WalkContended
from rmaplab.mm.mm import Mm
from rmaplab.mm.slab import UseAfterFree
from rmaplab.mm.vma import Vma

__all__ = ["LazyWalk", "Pinned"]

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


class LazyWalk(AnonVmaDesign):
    """Hooks 3 and 4, 6, 10 and 13 of a design whose lazy folios name an object of class `named`.

    What a form takes to be enough against changes of VMAs, page tables and processes:

    walk_locks_vma: a walk holds the lock of each VMA that it looks at (vma_start_read), and gives up where it cannot
        get it; otherwise it holds :meth:`walk_lock`
    pin_locks_vmas: hook 4 holds the locks of all VMAs that may map the folio until it puts them
    """

    named: ClassVar[type]
    walk_locks_vma = True
    pin_locks_vmas = True

    # --- to be answered by the design: what a lazy folio names ...

    def mm_of(self, named: Any) -> Mm:
        """... lies in this mm."""
        raise NotImplementedError

    def base_of(self, named: Any) -> int:
        """... puts page index 0 at this address (bytes)."""
        raise NotImplementedError

    def belongs_to(self, named: Any) -> Callable[[Vma], bool]:
        """... leads to VMAs of which this is true."""
        raise NotImplementedError

    def walk_lock(self, named: Any) -> AnonVma | None:
        """... is walked under this lock, if no VMA is locked; None: under none."""
        return None

    def try_hold(self, named: Any) -> bool:
        """... stays until :meth:`let_go`; False if it is being freed."""
        raise NotImplementedError

    def let_go(self, named: Any) -> None:
        """... need not stay."""
        raise NotImplementedError

    def walker_is_user(self) -> bool:
        """... is looked into by users of its mm only (mmget_not_zero), since exit_mmap frees VMAs without RCU."""
        raise NotImplementedError

    # --- hook 3

    def rmap_walk_anon(self, folio: Folio, pinned: Any = None, locked: bool = False) -> Iterator[tuple[Vma, int]]:
        """A lazy folio: the VMAs of one mm at the address that base and index give."""
        if isinstance(pinned, Pinned) and self.pin_locks_vmas:
            yield from pinned_places(pinned.places, folio)
            return
        while isinstance(folio.mapping, self.named):
            with self._mapped(folio, pinned) as named:
                if named is EXITING:
                    return
                if named is not None and (yield from self._walk(folio, named, locked)):
                    return
            if not folio.mapcount:
                return
        yield from super().rmap_walk_anon(folio, pinned, locked)  # perhaps upgraded at this moment

    def _walk(self, folio: Folio, named: Any, locked: bool) -> Generator[tuple[Vma, int], None, bool]:
        """Returns whether that was it, or else `folio` must be looked at anew."""
        if not self.walk_locks_vma:
            mm, lock = self.mm_of(named), self.walk_lock(named)
            base, belongs = self.base_of(named), self.belongs_to(named)
            with nullcontext() if lock is None or locked else self.kernel.locks.anon_vma_read(lock):
                if lock is not None and folio.mapping is not named:
                    return False  # upgraded before the lock was had
                yield from unlocked_places(mm, base, folio, belongs, lockless=lock is None)
            return True
        for vma, address, guard in self._locked(folio, named):
            with guard:
                if folio.mapping is not named:
                    raise WalkContended(self.mm_of(named))  # upgraded before it was locked
                yield vma, address
        return True

    def _locked(self, folio: Folio, named: Any) -> Iterator[Place]:
        return locked_places(self.mm_of(named), self.base_of(named), folio, self.belongs_to(named))

    @contextmanager
    def _mapped(self, folio: Folio, pinned: Any = None) -> Iterator[Any]:
        """What a lazy folio names, held: by the caller, or else taken if the folio is mapped. RCU keeps its memory
        until it is held. EXITING: its process is being torn down, and takes the entries with it."""
        if pinned is not None:
            yield folio.mapping
            return
        with self.kernel.locks.rcu_read():
            named = folio.mapping
            held = isinstance(named, self.named) and folio.mapcount > 0 and self.try_hold(named)
            if isinstance(named, self.named) and not held and folio.mapcount and folio.mapping is named:
                raise UseAfterFree(f"a mapped folio names a {self.named.__name__} that nobody holds any more")
        user = held and self.walker_is_user() and self.mm_of(named).mmget_not_zero()
        try:
            if held and self.walker_is_user() and not user:
                yield EXITING
            else:
                yield named if held and folio.mapcount else None
        finally:
            if user:
                self.kernel.mmput_async(self.mm_of(named))
            if held:
                self.let_go(named)

    # --- hook 4

    def folio_get_anon_vma(self, folio: Folio) -> Any:
        """Pins what a lazy folio names; if the form has it so with the locks of the VMAs that may map the folio, so
        that nobody unmaps, moves or forks it while it is under migration or being split. Or pins the anon_vma."""
        while isinstance(folio.mapping, self.named):
            with self._mapped(folio) as named:
                if named is EXITING:
                    raise WalkContended
                if named is not None and (pinned := self._pin(folio, named)) is not None:
                    return pinned
            if not folio.mapcount:
                return None
        return super().folio_get_anon_vma(folio)

    def _pin(self, folio: Folio, named: Any) -> Pinned | None:
        """None if `folio` must be looked at anew."""
        pinned = Pinned(named)
        self.try_hold(named)  # both succeed: the caller holds it, and is a user
        if self.walker_is_user():
            self.mm_of(named).mmget_not_zero()
        if not self.pin_locks_vmas:
            return pinned
        try:
            pinned.lock(self._locked(folio, named))
            if folio.mapping is not named:
                raise WalkContended(self.mm_of(named))
        except WalkContended:
            self.put_anon_vma(pinned)
            raise
        return pinned

    def put_anon_vma(self, pinned: Any) -> None:
        if not isinstance(pinned, Pinned):
            super().put_anon_vma(pinned)
            return
        pinned.unlock()
        if self.walker_is_user():
            self.kernel.mmput_async(self.mm_of(pinned.named))
        self.let_go(pinned.named)

    # --- hooks 6, 10 and 13

    def try_dup_anon_rmap(self, folio: Folio, vma: Vma, pvma: Vma) -> bool | None:
        """A lazy folio is about to be shared: from now on it names the anon_vma that its VMA was upgraded to."""
        if isinstance(folio.mapping, self.named):
            folio.mapping = pvma.anon_vma
        return None

    def folio_swapped_in(self, folio: Folio, vma: Vma, address: int, exclusive: bool) -> None:
        """Hook 10: the folio lay in the swap cache while its VMA was upgraded, so no hook 6 or 9 met it. It may still
        name what it named, in which a child that shares its swap entry has no part."""
        owner = self.owner(vma)
        if isinstance(folio.mapping, self.named) and owner is not None:
            folio.mapping = owner if exclusive else owner.root

    def collapse_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        """Hook 13: what stands in ``vma->anon_vma``, if it is a lock. khugepaged has the VMA locked for writing, too,
        which keeps out walks that lock it."""
        return self.anon_vma_lock(vma)
