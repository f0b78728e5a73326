# SPDX-License-Identifier: GPL-2.0-only
"""The dependency relation, which every explorer rests on: two steps whose footprints do not conflict commute."""

import random
from itertools import pairwise
from typing import Any

import pytest

from rmaplab.check.execution import Execution, Laboratory
from rmaplab.check.explore.result import Choice, signature
from rmaplab.check.footprint import independent
from rmaplab.check.world import library
from rmaplab.designs.registry import make_design

WORLDS = library()
NAMES = (
    "reclaim-fork",
    "migrate-fork",
    "reclaim-munmap-reuse",
    "reclaim-mremap-up",
    "reclaim-split-vma",
    "migrate-exit",
    "swapin-munmap",
    "ksm-fork",
    "poison-fork",
    "faults-neighbours",
    "referenced-reuse",
)
DESIGNS = ("anon_vma", "gki_locked", "gki_mm_locked", "cow_context", "vma_set")
PAIRS = 12
"""Swapped in each execution."""


def outcome(execution: Execution) -> tuple[Any, ...]:
    """All that an explorer may tell: who did what after what, the state, the verdict."""
    run = execution.run
    trace = signature(run.trace, len(run.tasks))
    state = execution.state() if run.done() and run.violation is None else None
    violation = execution.finish()
    return trace, state, None if violation is None else violation.name


def by_chance(laboratory: Laboratory, chance: random.Random) -> tuple[Execution, list[list[int]]]:
    """An execution to its end, and who could go on before each step."""
    execution = laboratory.execute()
    run = execution.run
    could: list[list[int]] = []
    while run.violation is None and (enabled := run.enabled()):
        could.append(enabled)
        execution.step(chance.choice(enabled))
    return execution, could


def again(laboratory: Laboratory, choices: list[Choice]) -> Execution:
    execution = laboratory.execute()
    for task, result in choices:
        assert task in execution.run.enabled(), "a step waits for one that it does not depend on"
        execution.step(task, result)
    return execution


def swap_neighbours(laboratory: Laboratory, chance: random.Random) -> int:
    """Neighbours of an execution that were swapped, with the same outcome."""
    execution, could = by_chance(laboratory, chance)
    trace = list(execution.run.trace)
    expected = outcome(execution)
    neighbours = [
        i
        for i, (one, other) in enumerate(pairwise(trace))
        if one.task != other.task and other.task in could[i] and independent(one.footprint, other.footprint)
    ]
    chosen = chance.sample(neighbours, min(PAIRS, len(neighbours)))
    for i in chosen:
        choices = [(step.task, step.outcome) for step in trace]
        choices[i], choices[i + 1] = choices[i + 1], choices[i]
        assert outcome(again(laboratory, choices)) == expected, f"steps {i} and {i + 1}"
    return len(chosen)


@pytest.mark.parametrize("design", DESIGNS)
def test_independent_neighbours_commute(design: str) -> None:
    """An access that the footprints leave out would make two orders one trace, and hide what only one of them does. Who
    waits for a lock that the step before lets go cannot come first: such pairs are no choice, and are left out."""
    chance = random.Random(design)
    swapped = 0
    for name in NAMES:
        with Laboratory(WORLDS[name], lambda: make_design(design)) as laboratory:
            swapped += sum(swap_neighbours(laboratory, chance) for _ in range(3))
    assert swapped >= 100, f"only {swapped} neighbours are independent: little was tried"
