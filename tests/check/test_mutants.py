# SPDX-License-Identifier: GPL-2.0-only
"""The checker's power: each mutant is found by `dpor`, soon, with a counterexample no longer than a person's."""

from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Any

import pytest

from rmaplab.check.engine import Run
from rmaplab.check.execution import Laboratory
from rmaplab.check.explore import dpor
from rmaplab.check.explore.result import Budget
from rmaplab.check.model_locks import CheckedLocks
from rmaplab.check.mutant import Finding, Mutant, find_mutant, mutated
from rmaplab.check.mutant_schedule import ScheduleError, Turn, follow
from rmaplab.check.mutants import MUTANTS, mutants
from rmaplab.check.violation import INVARIANTS
from rmaplab.check.world import library
from rmaplab.designs.registry import make_design
from rmaplab.mm import mremap

WORLDS = library()
SHORT = 15  # steps of a CPU, the demand of the issue
HISTORIC = {"2555283eb40d", "3a206a8649f8", "d9d332e0874f", "2010: the root last", "108d6642ad81", "b6ac0b3f6013"}
by_name = pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)


def kind_of(mutant: Mutant) -> Any:
    return type(make_design(mutant.design))


def steps_of(run: Run) -> tuple[int, ...]:
    return tuple(sum(1 for step in run.trace if step.task == task.index) for task in run.tasks)


@cache
def by_hand(mutant: Mutant) -> Run:
    """The story, executed."""
    with mutated(mutant) as make, Laboratory(WORLDS[mutant.worlds[0]], make) as laboratory:
        return follow(laboratory, mutant.schedule)


@cache
def found(mutant: Mutant) -> Finding:
    """What `dpor` finds in the story's world, made shorter; time is no limit, the executions are."""
    return find_mutant(mutant, WORLDS[mutant.worlds[0]], "dpor", Budget(executions=2000), simplify=60)


@by_name
def test_the_story_happens(mutant: Mutant) -> None:
    """A counterexample of that length exists. It violates what the shortest one that was found violates."""
    violation = by_hand(mutant).violation
    assert violation is not None
    assert violation.name == found(mutant).invariant


@by_name
def test_what_is_found_is_not_longer(mutant: Mutant) -> None:
    """On no CPU longer than the story, unless it is short; all CPUs together not longer either."""
    finding, hand = found(mutant), steps_of(by_hand(mutant))
    print(f"{mutant.name:24}{mutant.worlds[0]:24}{finding.invariant:18}by hand {hand}, found {finding.steps}")
    assert all(steps <= max(SHORT, bound) for steps, bound in zip(finding.steps, hand, strict=True))
    assert sum(finding.steps) <= sum(hand)


@by_name
def test_the_story_is_the_mistake(mutant: Mutant) -> None:
    """Without it the same schedule, as far as it can be followed, violates nothing."""
    with Laboratory(WORLDS[mutant.worlds[0]], kind_of(mutant)) as laboratory:
        assert follow(laboratory, mutant.schedule, anyway=True).violation is None


@by_name
def test_historic_bugs_are_found_soon(mutant: Mutant) -> None:
    assert not mutant.historic or found(mutant).seconds < 10


def other_places() -> list[Any]:
    return [pytest.param(one, world, id=f"{one.name}-{world}") for one in MUTANTS for world in one.worlds[1:]]


@pytest.mark.parametrize(("mutant", "world"), other_places())
def test_mutant_is_found_elsewhere(mutant: Mutant, world: str) -> None:
    """A lock, a recheck or an order whose absence the checker no longer sees."""
    finding = find_mutant(mutant, WORLDS[world], "dpor", Budget(executions=2000), simplify=0)
    assert finding.invariant in INVARIANTS, f"not found in {finding.executions} executions: {finding.complete}"


@by_name
def test_without_the_mistake_nothing_is_found(mutant: Mutant) -> None:
    """What is found must be the mistake, not the world."""
    world = WORLDS[mutant.worlds[0]]
    with Laboratory(world, kind_of(mutant)) as laboratory:
        result = dpor.explore(laboratory, Budget(executions=5 if world.thp == "always" else 60))
    assert not result.found, result.found[0].violation


def test_historic_bugs_are_there() -> None:
    assert {mutant.historic for mutant in MUTANTS if mutant.historic} == HISTORIC


def test_names_are_unique_and_told() -> None:
    assert len(mutants()) == len(MUTANTS) >= 20
    for mutant in MUTANTS:
        assert mutant.text and mutant.story and mutant.schedule and mutant.worlds
        assert mutant.change is not None or mutant.patches


def test_everything_is_put_back() -> None:
    """Also where the work with a mutant fails."""
    before = dict(vars(CheckedLocks)), mremap.copy_vma
    with pytest.raises(ZeroDivisionError), mutated(mutants()["no-rmap-locks"]):
        assert mremap.copy_vma is not before[1]
        raise ZeroDivisionError
    assert (dict(vars(CheckedLocks)), mremap.copy_vma) == before


@pytest.mark.parametrize("explorer", ["pct", "random"])
def test_chance_finds_an_easy_one(explorer: str) -> None:
    finding = find_mutant(mutants()["walk-unlocked"], WORLDS["reclaim-fork"], explorer, Budget(executions=200))
    assert finding.invariant == "lock-rule"


def test_not_found_is_said() -> None:
    """In a world that the mistake does not matter in."""
    finding = find_mutant(mutants()["no-rmap-locks"], WORLDS["tiny-read"], "dpor", Budget())
    assert (finding.invariant, finding.complete, finding.steps) == ("", True, (0, 0, 0))


# --- the notation of schedules


def traced(schedule: Sequence[Turn], world: str = "tiny-munmap", *, anyway: bool = False) -> list[tuple[int, str]]:
    with Laboratory(WORLDS[world], type(make_design("anon_vma"))) as laboratory:
        return [(step.task, step.text) for step in follow(laboratory, schedule, anyway=anyway).trace]


def test_a_turn_ends_before_its_point() -> None:
    assert [text.split()[0] for _, text in traced([(0, "change")])] == ["lock", "lock"]
    assert len(traced([(0, "lock"), (0, "lock")])) == len(traced([(0, "lock #2")])) == 7  # and: tree, downgrade, tables
    assert traced([(0, "read in put_anon_vma")])[-1][1].startswith("unlock anon_vma")


def test_a_turn_ends_where_its_cpu_waits() -> None:
    trace = traced([(1, "lock ptl"), (0, ""), (1, ""), (0, "")], "fault-fork")
    turns = [list(turn) for _, turn in groupby(trace, key=lambda step: step[0])]
    assert len(turns) == 4
    assert turns[3][0][1].startswith("lock mmap_lock")


def test_an_allocation_fails() -> None:
    with Laboratory(WORLDS["tiny-fail"], type(make_design("anon_vma"))) as laboratory:
        run = follow(laboratory, [(0, "allocate anon_vma_chain fails")])
    assert (run.trace[-1].text, run.trace[-1].outcome) == ("allocate anon_vma_chain", 1)


@pytest.mark.parametrize("schedule", [[(0, "no such step")], [(0, "lock ptl #3")], [(0, ""), (0, "")]])
def test_a_schedule_that_cannot_be_followed(schedule: list[Turn]) -> None:
    with pytest.raises(ScheduleError):
        traced(schedule)
    assert {cpu for cpu, _ in traced(schedule, anyway=True)} == {0, 1}
