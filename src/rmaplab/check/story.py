# SPDX-License-Identifier: GPL-2.0-only
"""One execution told for people: each step with the kernel function that it is in, what each CPU holds at the end, and
the state of memory there. Objects get the kernel's names, numbered as they are made; an mm is named for its process."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rmaplab.check.engine import Run, Step
from rmaplab.check.explore.result import Choice
from rmaplab.check.footprint import (
    ACQUIRE_READ,
    ACQUIRE_WRITE,
    CONFLICTS,
    LOCK_MODES,
    RELEASE_READ,
    RELEASE_WRITE,
    TRY_READ,
    TRY_WRITE,
    WRITE,
    Location,
)
from rmaplab.check.ops import Operation, page_name
from rmaplab.check.reexecute import reexecute
from rmaplab.check.violation import Violation
from rmaplab.mm import flags as fl
from rmaplab.mm.folio import Folio
from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import ENTRY_SHIFT, GUARD, HWPOISON, KIND_MASK, MIGRATION, PRESENT, SWAP
from rmaplab.mm.pagetable import WRITE as WRITABLE

__all__ = ["Cpu", "Story", "StoryStep", "tell"]


@dataclass(frozen=True, slots=True)
class StoryStep:
    """One step.

    functions: kernel functions that it is in, innermost first; empty for the CPU's own access
    footprint: (place, "read", "write", "lock", "unlock" or "trylock")
    shared: what of it another CPU touches too, in conflict
    held: locks held after it
    """

    cpu: int
    operation: str
    functions: tuple[str, ...]
    text: str
    outcome: int
    outcomes: int
    notes: tuple[str, ...]
    footprint: tuple[tuple[str, str], ...]
    shared: tuple[str, ...]
    held: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Cpu:
    """One CPU at the end.

    operations: all that it was to do; current: the one that it is in, "" if it has ended
    function: where it stands; next: what it would do next
    """

    name: str
    operations: tuple[str, ...]
    held: tuple[str, ...]
    current: str
    function: str
    next: str


@dataclass(frozen=True, slots=True)
class Story:
    """An execution. state: lines on the processes, their VMAs and entries, the folios."""

    design: str
    world: str
    setup: tuple[str, ...]
    cpus: tuple[Cpu, ...]
    steps: tuple[StoryStep, ...]
    state: tuple[str, ...]
    invariant: str
    text: str
    replay: str


def tell(
    laboratory: Any, design: str, choices: Sequence[Choice], order: Sequence[tuple[str, str]], replay: str
) -> Story:
    """Execute `choices` once more and tell them. Raises ImpossibleChoice."""
    world = laboratory.world
    end: list[tuple[_Names, tuple[Cpu, ...], tuple[str, ...]]] = []

    def before_end(execution: Any) -> None:
        names = _Names(execution)
        run: Run = execution.run
        cpus = tuple(_cpu(names, run, i, world.cpus[i]) for i in range(len(run.tasks)))
        end.append((names, cpus, tuple(_state(names, execution))))

    known = {pair: "learned in another execution" for pair in order}
    try:
        run = reexecute(laboratory, choices, order=known, report=True, before_end=before_end)
    except Violation as violation:  # in the setup
        idle = tuple(Cpu(f"CPU{i}", tuple(map(str, ops)), (), "", "", "") for i, ops in enumerate(world.cpus))
        return Story(design, world.name, _texts(world.setup), idle, (), (), violation.name, violation.text, replay)
    names, cpus, state = end[0]
    invariant = run.violation.name if run.violation is not None else ""
    text = names.tell(run.violation.text) if run.violation is not None else ""
    return Story(
        design, world.name, _texts(world.setup), cpus, tuple(_steps(names, run)), state, invariant, text, replay
    )


def _texts(operations: Sequence[Operation]) -> tuple[str, ...]:
    return tuple(operation.text for operation in operations)


# --- names


_SHORT = {"anon_vma_chain": "AVC"}
_KINDS = {
    "mmap_lock": "mmap_lock of",
    "vma": "VMA lock of",
    "anon_vma": "rmap lock of",
    "folio": "folio lock of",
    "ptl": "page-table lock of",
    "page_table_lock": "page_table_lock of",
}


class _Names:
    """From the checker's names to those of the story."""

    def __init__(self, execution: Any) -> None:
        run: Run = execution.run
        self.by_id: dict[int, str] = {}
        self.new: dict[str, str] = {}
        counts: dict[str, int] = {}
        processes = _processes(execution)
        for obj, name in list(run.named):
            kind = re.sub("(?<=[a-z])(?=[A-Z])", "_", type(obj).__name__).lower()
            kind = _SHORT.get(kind, kind)
            counts[kind] = counts.get(kind, 0) + 1
            told = processes.get(id(obj), f"mm{counts[kind]}") if isinstance(obj, Mm) else f"{kind}{counts[kind]}"
            self.new[name] = told
            self.by_id[id(obj)] = told

    def tell(self, text: str) -> str:
        """`text` with the story's names."""
        text = re.sub(r"\b[A-Z]\w*[0-9]\b", lambda match: self.new.get(match[0], match[0]), text)
        text = re.sub(r"\bptl (\w+) ([0-9]+)", lambda m: f"page table of {m[1]} ({page_name(int(m[2]) << 9)})", text)
        text = re.sub(r"\bpte (0x[0-9a-f]+)", lambda m: f"pte {page_name(int(m[1], 16))}", text)
        # the kind of a lock, and the object that it is in: often one word too many
        return re.sub(r"\b(vma|anon_vma|folio) ([a-z_]+[0-9]+)\b", _lock_name, text)

    def lock(self, text: str) -> str:
        """A lock that somebody holds."""
        kind, _, rest = text.partition(" ")
        what = self.tell(text).removeprefix(f"{kind} ")
        for words in ("page table of ", "the rmap lock of "):
            what = what.removeprefix(words)
        return f"{_KINDS[kind]} {what}" if kind in _KINDS and rest else self.tell(text)

    def place(self, location: Location) -> str:
        """A location of a footprint."""
        one, other = str(location[0]), str(location[1])
        if one == "lock":
            return self.lock(other)
        if one == "page":
            return f"contents of {self.tell(other)}"
        owner = self.new.get(one)
        if owner is None:
            return f"{one} {other}"
        if other.startswith("pte "):
            return f"{self.tell(other)} of {owner}"
        return {"tree": f"VMA tree of {owner}", "tables": f"page tables of {owner}"}.get(other, f"{owner}.{other}")

    def value(self, value: Any) -> str:
        """What a field holds."""
        if value is None:
            return "NULL"
        if isinstance(value, Mm):
            return f"mm of {self.by_id.get(id(value), '?')}"
        if id(value) in self.by_id:
            return self.by_id[id(value)]
        if isinstance(value, int | str):
            return str(value)
        kind = re.sub("(?<=[a-z])(?=[A-Z])", "_", type(value).__name__).lower().strip("_")
        slots = [slot for cls in type(value).__mro__ for slot in vars(cls).get("__slots__", ())]
        named = (self.by_id.get(id(getattr(value, slot, None))) for slot in slots)
        parts = [f"{slot} {name}" for slot, name in zip(slots, named, strict=True) if name]
        return f"{kind} ({', '.join(parts)})" if parts else kind


def _lock_name(match: re.Match[str]) -> str:
    kind, name = match[1], match[2]
    return f"the rmap lock of {name}" if kind == "anon_vma" and name.startswith("folio") else name


def _processes(execution: Any) -> dict[int, str]:
    """The process of each mm. Those that have gone, or are being made, go by the forks in their order."""
    machine = execution.machine
    found = {id(mm): name for name, mm in machine.mms.items()}
    world = execution.world
    run: Run = execution.run
    for maker in ("", *"abcdefgh"[: len(world.cpus)]):
        operations = world.setup if not maker else world.cpus["abcdefgh".index(maker)]
        children = (["A"] if not maker else []) + [op.args[0] for op in operations if op.name == "fork"]
        taken = {name for mm, name in found.items()}
        made = [obj for obj, name in list(run.named) if isinstance(obj, Mm) and re.fullmatch(rf"Mm{maker}[0-9]+", name)]
        if len(made) <= len(children):
            for mm, child in zip(made, children, strict=False):
                if id(mm) not in found and child not in taken:
                    found[id(mm)] = child
    return found


# --- steps


_MODES = (
    (TRY_READ | TRY_WRITE, "trylock"),
    (ACQUIRE_READ | ACQUIRE_WRITE, "lock"),
    (RELEASE_READ | RELEASE_WRITE, "unlock"),
    (WRITE, "write"),
)


def _mode(mode: int) -> str:
    return next((word for bits, word in _MODES if mode & bits), "read")


def _steps(names: _Names, run: Run) -> list[StoryStep]:
    held: list[tuple[str, ...]] = [()] * len(run.tasks)
    touched: list[dict[Location, int]] = [{} for _ in run.tasks]
    used: list[dict[Location, int]] = [{} for _ in run.tasks]  # the same without what `free` and `new` touch
    for step in run.trace:
        whole = _made(step)
        for location, mode in step.footprint.items():
            for places in (touched, used) if str(location[0]) not in whole else (touched,):
                mine = places[step.task]
                mine[location] = mine.get(location, 0) | mode
    story = []
    for step in run.trace:
        shared = _conflicts(step, touched)
        story.append(
            StoryStep(
                step.task,
                step.operation,
                step.where,
                names.tell(step.text),
                step.outcome,
                step.outcomes,
                tuple(_notes(names, step, held[step.task], _conflicts(step, used))),
                tuple((names.place(place), _mode(mode)) for place, mode in step.footprint.items()),
                tuple(map(names.place, shared)),
                tuple(map(names.lock, step.held)),
            )
        )
        held[step.task] = step.held
    return story


def _made(step: Step) -> set[str]:
    """The objects that the step makes or frees: it touches all of them"""
    notes = [note.split() for note in step.notes]
    return {words[1].strip(",") for words in notes if words[0] in ("new", "free")}


def _conflicts(step: Step, touched: Sequence[dict[Location, int]]) -> list[Location]:
    """What another CPU touches too, in conflict"""
    others = [places for task, places in enumerate(touched) if task != step.task]
    return [
        location
        for location, mode in step.footprint.items()
        if any(CONFLICTS[mode] & places.get(location, 0) for places in others)
    ]


_IN_TEXT = {"tree": "VMA tree", "tables": "page", "slots": "swap", "counts": "counts"}
"""What a location is called in the step's own text"""


def _notes(names: _Names, step: Step, held: Sequence[str], shared: Sequence[Location]) -> list[str]:
    """What happened inside of the step: accesses that another CPU's may meet, locks let go, objects made and freed"""
    notes = []
    whole = _made(step)
    for location in shared:
        mode = step.footprint[location]
        if str(location[0]) in whole:
            continue  # the note of that says it
        said = _IN_TEXT.get(str(location[1]), f"{location[0]}.{location[1]}")
        if location[0] != "rcu" and not mode & LOCK_MODES and said not in step.text:
            notes.append(f"{_mode(mode)} {names.place(location)}")
    notes += [names.tell(note) for note in step.notes if note not in notes]
    kind, _, lock = step.text.partition(" ")
    for other in held:
        if other not in step.held and not (kind == "unlock" and lock == other):
            notes.append(f"unlock {names.tell(other)}")
    if kind in ("lock", "trylock") and "fails" not in step.notes:
        lock = re.sub(" for (writing|reading)$", "", lock)
        if lock not in step.held:
            notes.append(f"unlock {names.tell(lock)}")
    return notes


def _cpu(names: _Names, run: Run, index: int, operations: Sequence[Operation]) -> Cpu:
    task = run.tasks[index]
    held = tuple(names.lock(lock.location[1]) + (" (writing)" if _exclusive(lock, task) else "") for lock in task.held)
    pending = task.pending
    failed = run.violation is not None and run.trace and run.trace[-1].task == index
    ended = pending is None and not failed
    current = "" if ended else task.operation
    where = pending.where if pending is not None else run.trace[-1].where if failed else ()
    text = names.tell(pending.text) if pending is not None else ""
    return Cpu(task.name, _texts(operations), held, current, where[0] if where else "", text)


def _exclusive(lock: Any, task: Any) -> bool:
    return lock.kind in ("mmap_lock", "anon_vma", "vma") and lock.writer is task


# --- the state at the end


def _state(names: _Names, execution: Any) -> list[str]:
    lines: list[str] = []
    freed = execution.run.freed
    mms = [mm for mm in execution.kernel.mms if id(mm) not in freed]
    for mm in mms:
        name = names.by_id[id(mm)]
        users = "" if mm.users else ", no user left"
        lines.append(f"process {name}{users}")
        for vma in mm.vmas:
            start, end = vma.vm_start >> fl.PAGE_SHIFT, (vma.vm_end - 1) >> fl.PAGE_SHIFT
            pages = page_name(start) + (f"-{page_name(end)}" if end > start else "")
            what = f"  {names.value(vma)}{_freed(freed, vma)} {pages}, anon_vma {names.value(vma.anon_vma)}"
            lines.append(what + _freed(freed, vma.anon_vma))
        for vpn, entry in sorted(mm.anon_entries()):
            lines.append(f"  pte {page_name(vpn)}: {_entry(names, execution, entry)}")
    shown: list[Folio] = [folio for folio in execution.kernel.mem.folios() if id(folio) not in freed]
    for folio in shown:
        counts = f"mapcount {folio.mapcount}, {folio.refs} more reference{'s' if folio.refs != 1 else ''}"
        mapping = names.value(folio.mapping) + _freed(freed, folio.mapping)
        lines.append(f"{names.value(folio)}: {counts}, mapping {mapping}, index {page_name(folio.index)}")
    return lines


def _freed(freed: dict[int, Any], obj: Any) -> str:
    return " (freed)" if id(obj) in freed else ""


def _entry(names: _Names, execution: Any, entry: int) -> str:
    kind, number = entry & KIND_MASK, entry >> ENTRY_SHIFT
    if entry == GUARD:
        return "guard marker"
    if kind == SWAP:
        return f"swap slot {number}"
    pages = execution.kernel.mem.pages
    folio = pages[number] if number < len(pages) else None
    name = names.value(folio) if folio is not None else "a free page"
    if kind == PRESENT:
        return f"{name}, {'writable' if entry & WRITABLE else 'read-only'}"
    return {MIGRATION: f"migration entry of {name}", HWPOISON: f"poisoned, was {name}"}.get(kind, f"entry {entry:#x}")
