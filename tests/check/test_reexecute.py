# SPDX-License-Identifier: GPL-2.0-only
"""Re-execution: the same choices, the same execution; what differs is noticed."""

from typing import Any

import pytest

from rmaplab.check.counterexample import simplest, switches
from rmaplab.check.explore import dpor
from rmaplab.check.explore.result import Budget
from rmaplab.check.reexecute import ImpossibleChoice, NondeterminismError, Observed, Seen, choices_of, reexecute
from tests.support.toy import Toy

RACE = [[("w", "x", 1), ("w", "y", 1), ("w", "x", 2)], [("r", "z"), ("assert", "x", 1), ("r", "z")]]


def violating(programs: Any, name: str = "toy") -> tuple[Any, list[Seen]]:
    laboratory: Any = Toy(programs)
    found: list[Seen] = []
    observed: Any = Observed(laboratory, found.append, every=1)
    dpor.explore(observed, Budget(executions=5000), all_violations=True)
    observed.settle()
    return laboratory, [seen for seen in found if seen.run.violation is not None and seen.run.violation.name == name]


def test_the_same_choices_give_the_same_execution() -> None:
    """Each execution of `dpor`, blocked ones too, once more (every=1), and the violation again."""
    laboratory, found = violating(RACE)
    assert found
    for seen in found:
        run = reexecute(laboratory, choices_of(seen.run))
        assert str(run.violation) == str(seen.run.violation)


@pytest.mark.parametrize(
    ("choices", "word"),
    [
        ([(5, 0)], "names CPU5"),
        ([(0, 0)] * 4, "CPU0 has ended"),
        ([(0, 3)], "outcome 3"),
        ([(0, 0)], "goes on"),
        ([(1, 0), (0, 0), (1, 0), (1, 0)], "ends before choice 4"),
    ],
)
def test_impossible_choices(choices: Any, word: str) -> None:
    """A choice that is taken for another one, or ignored."""
    with pytest.raises(ImpossibleChoice, match=word):
        reexecute(Toy(RACE), choices)


def test_a_lock_that_is_not_free() -> None:
    with pytest.raises(ImpossibleChoice, match="waits for a lock"):
        reexecute(Toy([[("Wt", "A", [("w", "x", 1)])], [("Wt", "A", [])]]), [(0, 0), (1, 0)])


class Moody(Toy):
    """Another program at every second execution."""

    def execute(self, report: bool = False) -> Any:
        self.times = getattr(self, "times", 0) + 1
        if self.times % 2 == 0:
            self.programs = [[*self.programs[0][:-1], ("w", self.cell, 1)], *self.programs[1:]]
        return super().execute(report)

    cell = "z"


@pytest.mark.parametrize("cell", ["y", "z"])
def test_nondeterminism_is_noticed(cell: str) -> None:
    """A model that looks at something which the choices do not control."""
    laboratory: Any = Moody([[("w", "x", 1), ("w", "x", 2)], [("r", "z")]])
    laboratory.cell = cell
    observed: Any = Observed(laboratory, every=1)
    with pytest.raises(NondeterminismError):
        dpor.explore(observed, Budget(executions=10))
        observed.settle()


def test_fewest_switches() -> None:
    """The violation needs one write before the assertion and the other behind it: one switch there. Steps that it does
    without are gone."""
    laboratory, found = violating(RACE)
    schedule = simplest(laboratory, found, "toy", 1e12)
    assert schedule is not None
    assert switches(schedule.choices) == 1
    assert schedule.choices == ((0, 0), (1, 0), (1, 0)) or schedule.choices == ((1, 0), (0, 0), (1, 0))
    assert len(schedule.choices) == 3


def test_deadlock_with_one_switch() -> None:
    crossed = [
        [("r", "x"), ("Wt", "A", [("r", "y"), ("Wt", "B", [])])],
        [("r", "y"), ("Wt", "B", [("r", "x"), ("Wt", "A", [])])],
    ]
    laboratory, found = violating(crossed, "deadlock")
    schedule = simplest(laboratory, found, "deadlock", 1e12)
    assert schedule is not None and switches(schedule.choices) == 1
