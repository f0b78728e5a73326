# SPDX-License-Identifier: GPL-2.0-only
"""The library of worlds: it covers what it should, `dpor` finds in it what `dfs` and chance find, and independent steps
commute."""

import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaplab.check.execution import Execution, Laboratory
from rmaplab.check.explore import dfs, dpor
from rmaplab.check.explore.result import Budget, Choice, Result, signature
from rmaplab.check.footprint import independent
from rmaplab.check.ops import _OF_KERNEL, _OF_PROCESS
from rmaplab.check.world import World, library
from rmaplab.designs.registry import make_design
from rmaplab.mm.hooks import EXTRA_HOOKS, HOOKS

WORLDS = library()
TINY = [name for name in WORLDS if name.startswith("tiny-")]
DESIGNS = ("anon_vma", "gki_locked", "anon_vma_lazy_locked")
DOC = Path(__file__).parents[2] / "docs" / "worlds.md"
COUNTS = DOC.with_name("check-counts.md")


def laboratory(world: World, design: str) -> Laboratory:
    kind: Any = type(make_design(design))
    return Laboratory(world, kind)


# --- what is in the library


def test_docs_list_the_library() -> None:
    """A world that was added, dropped or changed without its row."""
    rows = re.findall(r"^\| `([a-z-]+)` \| (.*?) \| (.*?) \|$", DOC.read_text(), re.M)
    assert rows == [(name, world.about, ", ".join(world.tied)) for name, world in WORLDS.items()]


def test_library_covers_questions_claims_and_hooks() -> None:
    tied = {tie for world in WORLDS.values() for tie in world.tied}
    questions = {f"Q{n}" for n in (1, 2, 3, 4, 8, 9, 10, 13, 14, 15, 16)}
    claims = {f"claim {letter}" for letter in "ABCD"}
    hooks = {f"hook {hook.number}" for hook in (*HOOKS, *EXTRA_HOOKS)}
    commits = {"2555283eb40d", "3a206a8649f8", "d9d332e0874f", "108d6642ad81", "b6ac0b3f6013"}
    assert not (questions | claims | hooks | commits) - tied


def test_every_operation_is_used() -> None:
    used = {op.name for world in WORLDS.values() for ops in (world.setup, *world.cpus) for op in ops}
    assert not {*_OF_PROCESS, *_OF_KERNEL} - used


def test_library_size() -> None:
    assert len(WORLDS) - len(TINY) >= 32
    assert len(TINY) >= 6
    for world in WORLDS.values():
        assert world.about and world.tied, world.name


# --- dpor against dfs


def both(world: World, design: str) -> tuple[Result, Result]:
    options = {"all_violations": True, "keep_states": True, "keep_signatures": True}
    with laboratory(world, design) as lab:
        reduced = dpor.explore(lab, Budget(), **options)
    with laboratory(world, design) as lab:
        return reduced, dfs.explore(lab, Budget(), **options)


@pytest.mark.parametrize("name", TINY)
def test_dpor_runs_each_trace_once(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """As many executions as there are Mazurkiewicz traces; the same traces, final states and violations as dfs."""
    for design in DESIGNS:
        reduced, all_of_them = both(WORLDS[name], design)
        assert reduced.complete and all_of_them.complete
        assert reduced.executions == len(all_of_them.signatures)
        assert reduced.signatures == all_of_them.signatures
        assert reduced.states == all_of_them.states
        assert {str(f.violation) for f in reduced.found} == {str(f.violation) for f in all_of_them.found}
        row = f"| {name} | {design} | {reduced.executions} | {reduced.blocked} | {all_of_them.executions} |"
        with capsys.disabled():
            print(f"\n{row}", end="")
        assert row in COUNTS.read_text().splitlines(), "accept: python tools/check_docs.py --counts"


SUBSET = (
    "reclaim-fork",
    "reclaim-mremap-up",
    "reclaim-merge-vma",
    "migrate-exit",
    "migrate-fork",
    "faults-same-vma",
    "faults-neighbours",
    "referenced-exit",
    "fail-fork",
    "poison-fork",
)


def wander(lab: Laboratory, random: Random, stay: float = 0.8) -> Execution:
    """An execution in which a CPU mostly goes on, to its end."""
    execution = lab.execute()
    run = execution.run
    last = -1
    while run.violation is None and (enabled := run.enabled()):
        if last not in enabled or random.random() > stay:
            last = random.choice(enabled)
        pending = run.tasks[last].pending
        assert pending is not None
        execution.step(last, random.randrange(pending.outcomes))
    return execution


@pytest.mark.parametrize("name", SUBSET)
def test_chance_finds_no_other_trace(name: str) -> None:
    """Where dpor says that it has seen all traces, a random execution is one of them. (Something that steps touch, but
    do not tell, shows here.)"""
    random = Random(name)
    with laboratory(WORLDS[name], "anon_vma") as lab:
        result = dpor.explore(lab, Budget(seconds=120), keep_signatures=True)
        assert result.complete and not result.found
        assert len(result.signatures) == result.executions
        for _ in range(60):
            execution = wander(lab, random)
            execution.finish()
            assert signature(execution.run.trace, len(execution.run.tasks)) in result.signatures


# --- the dependency relation


def _replay(lab: Laboratory, choices: list[Choice]) -> tuple[Any, str] | None:
    """Final state and violation; None where somebody would have to go on who waits for a lock"""
    execution = lab.execute()
    for task, outcome in choices:
        if execution.run.violation is None:
            if task not in execution.run.enabled():
                execution.abandon()
                return None
            execution.step(task, outcome)
    done = execution.run.violation is None and execution.run.done()
    state = execution.state() if done else None
    return state, str(execution.finish())


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([name for name in WORLDS if not name.startswith("huge")]), st.sampled_from(DESIGNS), st.integers(0)
)
def test_adjacent_independent_steps_commute(name: str, design: str, seed: int) -> None:
    """Two steps of different CPUs, one right after the other, whose footprints do not conflict: swapped, if that is
    possible, they lead to the same end."""
    random = Random(seed)
    with laboratory(WORLDS[name], design) as lab:
        execution = wander(lab, random, stay=random.choice((0.3, 0.8)))
        trace = execution.run.trace
        choices = [(step.task, step.outcome) for step in trace]
        done = execution.run.violation is None and execution.run.done()
        state = execution.state() if done else None
        violation = str(execution.finish())
        places = [
            i
            for i in range(len(trace) - 2)  # the last may be the one that violates something
            if trace[i].task != trace[i + 1].task and independent(trace[i].footprint, trace[i + 1].footprint)
        ]
        for i in random.sample(places, min(3, len(places))):
            swapped = choices.copy()
            swapped[i], swapped[i + 1] = swapped[i + 1], swapped[i]
            end = _replay(lab, swapped)
            assert end in (None, (state, violation)), f"{trace[i].text} / {trace[i + 1].text}"
