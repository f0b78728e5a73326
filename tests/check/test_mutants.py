# SPDX-License-Identifier: GPL-2.0-only
"""The checker's power: each mutant is found by `dpor`, soon, with a counterexample that does not get longer."""

from typing import Any

import pytest

from rmaplab.check.execution import Laboratory
from rmaplab.check.explore import dpor
from rmaplab.check.explore.result import Budget
from rmaplab.check.model_locks import CheckedLocks
from rmaplab.check.mutant import Mutant, find_mutant, mutated
from rmaplab.check.mutants import MUTANTS, mutants
from rmaplab.check.violation import INVARIANTS
from rmaplab.check.world import library
from rmaplab.designs.registry import make_design
from rmaplab.mm import mremap

WORLDS = library()
SHORT = 15  # steps of a CPU, the demand of the issue
HISTORIC = {"2555283eb40d", "3a206a8649f8", "d9d332e0874f", "2010: the root last", "108d6642ad81", "b6ac0b3f6013"}


def places() -> list[Any]:
    return [pytest.param(mutant, world, id=f"{mutant.name}-{world}") for mutant in MUTANTS for world in mutant.worlds]


@pytest.mark.parametrize(("mutant", "world"), places())
def test_mutant_is_found(mutant: Mutant, world: str) -> None:
    """A lock, a recheck or an order whose absence the checker no longer sees."""
    found = find_mutant(mutant, WORLDS[world], "dpor", Budget(executions=2000))
    assert found.invariant in INVARIANTS, f"not found in {found.executions} executions, complete: {found.complete}"
    if mutant.historic:
        assert found.seconds < 10
    if world == mutant.worlds[0]:
        for steps, bound in zip(found.steps, mutant.steps, strict=True):
            assert steps <= max(SHORT, bound), f"{found.steps} steps, bound {mutant.steps}"


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.name)
def test_without_the_mistake_nothing_is_found(mutant: Mutant) -> None:
    """What is found must be the mistake, not the world."""
    world = WORLDS[mutant.worlds[0]]
    kind: Any = type(make_design(mutant.design))
    with Laboratory(world, kind) as laboratory:
        result = dpor.explore(laboratory, Budget(executions=5 if world.thp == "always" else 60))
    assert not result.found, result.found[0].violation


def test_historic_bugs_are_there() -> None:
    assert {mutant.historic for mutant in MUTANTS if mutant.historic} == HISTORIC


def test_names_are_unique_and_told() -> None:
    assert len(mutants()) == len(MUTANTS) >= 20
    for mutant in MUTANTS:
        assert mutant.text and mutant.story and mutant.worlds
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
    found = find_mutant(mutants()["walk-unlocked"], WORLDS["reclaim-fork"], explorer, Budget(executions=200))
    assert found.invariant == "lock-rule"


def test_not_found_is_said() -> None:
    """In a world that the mistake does not matter in."""
    found = find_mutant(mutants()["no-rmap-locks"], WORLDS["tiny-read"], "dpor", Budget())
    assert (found.invariant, found.complete, found.steps) == ("", True, (0, 0, 0))
