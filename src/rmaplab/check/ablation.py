# SPDX-License-Identifier: GPL-2.0-only
"""Takes hooks out of a design and looks for the shortest history that breaks it.

A dropped hook does what the unmodified kernel does at that place: its methods become those of a plain mainline design
that shares the slab caches. Mainline's code then meets the design's marks as the real one would: a shared lock looks
like an anon_vma with an empty tree, a folio whose mapping has another tag like one that is not anonymous; a lock that
it takes of what is no anon_vma is a bad dereference.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

from rmaplab.check.history import DesignFactory, Failure, run_history, shrink
from rmaplab.designs.anon_vma import AnonVma, AnonVmaDesign
from rmaplab.designs.lazy_root import mapping_base
from rmaplab.designs.registry import make_design
from rmaplab.errors import UserError
from rmaplab.mm.fault import handle_mm_fault
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.hooks import EXTRA_HOOKS, HOOKS, Hook, Hooks
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import do_mmap
from rmaplab.mm.vma import Vma
from rmaplab.workload.random_ops import Op
from rmaplab.workload.scenarios import SCENARIOS
from rmaplab.workload.walk_ops import generate

__all__ = [
    "ALL_HOOKS",
    "RESTRICTIONS",
    "Verdict",
    "ablate",
    "becomes_lazy",
    "check_restrictions",
    "drop_hooks",
    "failing_scenarios",
    "implemented_hooks",
    "smallest_set",
]

ALL_HOOKS: dict[int, Hook] = {hook.number: hook for hook in (*HOOKS, *EXTRA_HOOKS)}

RESTRICTIONS = {
    "never-fork": "no process forks",
    "sync-upgrade": "an upgrade rewrites the mapping of every mapped folio at once (gki becomes gki_sync)",
    "base-0": "only anonymous VMAs whose mapping base is 0 become lazy",
    "no-remap": "no mremap",
    "no-ksm": "KSM does not run",
    "no-memory-failure": "no memory failure",
    "new-vmas-only": "only VMAs of a process that was forked and maps them itself become lazy",
}

_REMOVALS = 14  # the hook that is only called for a design that wants it
LENGTH = 40  # operations of a random history
TRIES = 4  # failing scenarios, and random histories, that are shrunk, to keep the shortest


def check_restrictions(names: Iterable[str]) -> frozenset[str]:
    """The restrictions `names`. Raises UserError for an unknown one, or a contradiction."""
    found = frozenset(names)
    for name in sorted(found):
        if name not in RESTRICTIONS:
            raise UserError(f"no restriction {name!r}; known are {', '.join(RESTRICTIONS)}")
    if {"never-fork", "new-vmas-only"} <= found:
        raise UserError(
            "never-fork contradicts new-vmas-only: a process opts in after it was forked, so nothing would be lazy"
        )
    return found


# --- hooks taken out


class _Unmodified(AnonVmaDesign):
    """Mainline's code, which takes every word that it locks for an anon_vma."""

    @staticmethod
    def _check(word: object, function: str) -> None:
        if not isinstance(word, AnonVma):
            raise TypeError(f"{function} takes {'NULL' if word is None else type(word).__name__} for an anon_vma")

    def anon_vma_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        if vma.anon_vma is not None:
            self._check(vma.anon_vma, "vma_prepare")
        return super().anon_vma_lock(vma)

    def collapse_lock(self, vma: Vma) -> AbstractContextManager[Any]:
        self._check(vma.anon_vma, "collapse_huge_page")
        return super().collapse_lock(vma)

    def split_lock(self, pinned: Any) -> AbstractContextManager[Any]:
        self._check(pinned, "split_huge_page_to_list_to_order")
        return super().split_lock(pinned)


def drop_hooks(design: Hooks, numbers: Iterable[int]) -> Hooks:
    """`design` with the hooks `numbers` as in the unmodified kernel."""
    plain = _Unmodified()
    attach = design.attach

    def attach_both(kernel: Kernel) -> None:
        attach(kernel)
        plain.attach(kernel)

    changes: dict[str, Any] = {"attach": attach_both}
    for number in numbers:
        for method in ALL_HOOKS[number].methods:
            changes[method] = getattr(plain, method)
    changes["objects"] = tuple({*getattr(design, "objects", ()), *AnonVmaDesign.objects})
    for name, value in changes.items():
        setattr(design, name, value)
    return design


def implemented_hooks(design: Hooks) -> list[int]:
    """Numbers of the hooks in which `design` differs from mainline.

    One whose methods are not mainline's, though they do the same, is named in the design's attribute `as_mainline`.
    """
    same: tuple[int, ...] = getattr(design, "as_mainline", ())
    return [
        number
        for number, hook in ALL_HOOKS.items()
        if number not in same
        and (number != _REMOVALS or design.wants_removals)
        and any(getattr(type(design), m, None) is not getattr(AnonVmaDesign, m) for m in hook.methods)
    ]


# --- restrictions


def _only_base_0(design: Any) -> Any:
    """Make `design`, one with root VMAs, lazy at base 0 only"""
    wants_lazy: Callable[[Vma], bool] = design.wants_lazy

    def at_base_0(vma: Vma) -> bool:
        return wants_lazy(vma) and vma.is_anonymous() and not mapping_base(vma)

    design.wants_lazy = at_base_0
    return design


def factory_for(name: str, dropped: frozenset[int], assume: frozenset[str]) -> DesignFactory:
    """Makes the design `name` without `dropped` hooks, as the restrictions have it."""
    if "sync-upgrade" in assume and name == "gki":
        name = "gki_sync"

    def make() -> Hooks:
        design: Any = make_design(name)
        if "new-vmas-only" in assume and hasattr(design, "opt_in"):
            design.opt_in = "fork"
        if "base-0" in assume and hasattr(design, "wants_lazy"):
            design = _only_base_0(design)
        return drop_hooks(design, dropped) if dropped else design

    return make


_LEFT_OUT = {
    "never-fork": ("fork",),
    "no-remap": ("mremap",),
    "no-ksm": ("ksmd",),
    "no-memory-failure": ("poison",),
}


def _allowed(history: Iterable[Op], assume: frozenset[str]) -> list[Op]:
    """`history` without what the restrictions exclude."""
    left_out = {name for restriction in assume for name in _LEFT_OUT.get(restriction, ())}
    return [op for op in history if op.name not in left_out]


def history_for(seed: int, length: int, assume: frozenset[str]) -> list[Op]:
    """A random history in which nothing happens that the restrictions exclude."""
    return _allowed(generate(seed, length, huge=seed % 3 == 0), assume)


def failing_scenarios(factory: DesignFactory, assume: frozenset[str] = frozenset()) -> dict[str, Failure]:
    """Name of each scenario that breaks the design -> its operations up to there."""
    runs = {name: run_history(factory, _allowed(history, assume)) for name, history in SCENARIOS.items()}
    return {name: failure for name, failure in runs.items() if failure is not None}


def _length(failure: Failure) -> int:
    return len(failure.history)


# --- verdicts


@dataclass(slots=True)
class Verdict:
    """What happens without the hooks `dropped`.

    failure: the shortest history found that breaks the design, None if none did
    histories: how many random ones were run, after the scenarios
    scenarios: names of those that broke it
    lazy: did anything become lazy at all? Without that nothing can break, and nothing is saved
    """

    design: str
    dropped: frozenset[int]
    assume: frozenset[str]
    histories: int
    failure: Failure | None = None
    lazy: bool = True
    seeds: list[int] = field(default_factory=list)
    scenarios: list[str] = field(default_factory=list)

    def add(self, failure: Failure) -> None:
        """Keep the shortest."""
        if self.failure is None or _length(failure) < _length(self.failure):
            self.failure = failure


def ablate(
    design: str,
    dropped: Iterable[int] = (),
    assume: Iterable[str] = (),
    *,
    histories: int = 300,
    seed: int = 1,
) -> Verdict:
    """Run the scenarios and `histories` random ones (seeds from `seed` on) without the hooks `dropped`; shrink what
    fails."""
    dropped, assume = frozenset(dropped), frozenset(assume)
    factory = factory_for(design, dropped, assume)
    verdict = Verdict(design, dropped, assume, 0)
    broken = failing_scenarios(factory, assume)
    verdict.scenarios += broken
    for shortest in sorted(broken.values(), key=_length)[:TRIES]:
        verdict.add(shrink(factory, shortest))
    for number in range(seed, seed + histories):
        verdict.histories += 1
        failure = run_history(factory, history_for(number, LENGTH, assume))
        if failure is not None:
            verdict.seeds.append(number)
            verdict.add(shrink(factory, failure))
            if len(verdict.seeds) == TRIES:
                break
    verdict.lazy = becomes_lazy(factory)
    return verdict


def becomes_lazy(factory: DesignFactory) -> bool:
    """Does a first fault allocate less than mainline's?"""
    kernel = Kernel(factory())
    mm: Mm = dup_mm(kernel.mm_alloc())
    forked = getattr(kernel.hooks, "forked", None)
    if forked is not None:
        forked.add(mm)
    do_mmap(mm, 1 << 28, 4096, 3, 0x32)
    try:
        handle_mm_fault(mm, 1 << 28, True)
    except Exception:
        return True
    return kernel.anon_vma.live == 0


def smallest_set(
    design: str, assume: Iterable[str] = (), *, histories: int = 300, seed: int = 1
) -> tuple[list[int], list[int]]:
    """Hooks that remain when one after another is dropped for good as long as nothing breaks, last number first, and
    those that were dropped. Hooks without which nothing is lazy remain."""
    assume = frozenset(assume)
    name = "gki_sync" if "sync-upgrade" in assume and design == "gki" else design
    numbers = implemented_hooks(make_design(name))
    dropped: list[int] = []
    for number in reversed(numbers):
        verdict = ablate(design, [*dropped, number], assume, histories=histories, seed=seed)
        if verdict.failure is None and verdict.lazy:
            dropped.append(number)
    return [n for n in numbers if n not in dropped], sorted(dropped)
