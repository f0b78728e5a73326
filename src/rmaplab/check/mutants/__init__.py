# SPDX-License-Identifier: GPL-2.0-only
"""The mutants: bugs that Linux had, and mistakes in each hook and each lock of the designs.

Each tells how it goes wrong, in words and as a schedule (mutant_schedule.py), both derived by hand: a CPU that the
story does not need makes no step, one that it needs stops as early as it can. tests/check/test_mutants.py executes
these, and holds the checker to finding all mutants with counterexamples that are not longer.
"""

from rmaplab.check.mutant import Mutant
from rmaplab.check.mutants.historic import HISTORIC
from rmaplab.check.mutants.lazy import LAZY
from rmaplab.check.mutants.mainline import MAINLINE
from rmaplab.check.mutants.others import OTHERS
from rmaplab.check.mutants.sync import SYNC

__all__ = ["MUTANTS", "mutants"]

MUTANTS: tuple[Mutant, ...] = (*HISTORIC, *MAINLINE, *LAZY, *SYNC, *OTHERS)


def mutants() -> dict[str, Mutant]:
    """By name."""
    return {mutant.name: mutant for mutant in MUTANTS}
