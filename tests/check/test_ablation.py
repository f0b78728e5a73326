# SPDX-License-Identifier: GPL-2.0-only
"""Hooks taken out of designs: what the seed mail says is needed, is; what a restriction makes needless, is not."""

import pytest

from rmaplab.check.ablation import RESTRICTIONS, ablate, check_restrictions, implemented_hooks
from rmaplab.check.history import Failure, run_history, shrink
from rmaplab.designs.registry import make_design
from rmaplab.errors import UserError
from rmaplab.workload.random_ops import Op
from rmaplab.workload.walk_ops import generate
from tests.support.designs import DESIGNS

RUNS = 60


@pytest.mark.parametrize("design", DESIGNS)
def test_no_violation_with_all_hooks(design: str) -> None:
    """A design that is wrong one operation at a time (100,000 histories each: docs/claims.md)."""
    verdict = ablate(design, histories=RUNS, seed=777)
    assert verdict.failure is None, verdict.failure


@pytest.mark.parametrize("hook", [2, 3, 4, 5, 6, 7, 8, 9])
def test_hooks_of_the_mail_are_needed(hook: int) -> None:
    """An ablation that drops nothing, or an oracle that is blind: the mail's list is no longer than it must be."""
    verdict = ablate("gki", [hook], histories=RUNS)
    assert verdict.failure is not None
    assert len(verdict.failure.history) <= 6


def test_without_hook_1_nothing_is_lazy() -> None:
    """Hook 1 is what makes VMAs lazy: without it nothing breaks and nothing is saved, which must be said."""
    verdict = ablate("gki", [1], histories=20)
    assert verdict.failure is None
    assert not verdict.lazy
    assert ablate("gki", histories=1).lazy


def test_claim_a() -> None:
    """Hooks 5 and 6 are needless only as long as nobody forks."""
    assert ablate("gki", [5, 6], ["never-fork"], histories=RUNS).failure is None
    broken = ablate("gki", [5, 6], histories=RUNS).failure
    assert broken is not None
    assert broken.history[-1].name == "fork"


def test_claim_b_in_both_readings() -> None:
    """With synchronous upgrade hook 6 is mainline's; hook 4 is still needed."""
    assert 6 not in implemented_hooks(make_design("gki_sync"))
    failure = ablate("gki_sync", [4], histories=RUNS).failure
    assert failure is not None
    assert failure.name == "kernel-bug"


def test_claim_c_and_d() -> None:
    """gki_mm keeps no reference count in a VMA (hook 8 is mainline's), and needs the move hook all the same."""
    assert 8 not in implemented_hooks(make_design("gki_mm"))
    assert ablate("gki_mm", [9], histories=RUNS).failure is not None


def test_restrictions() -> None:
    """Unknown names must list the known ones; a contradiction must be refused."""
    assert check_restrictions(["never-fork", "no-ksm"]) == {"never-fork", "no-ksm"}
    with pytest.raises(UserError, match="known are " + ", ".join(RESTRICTIONS)):
        check_restrictions(["never-forks"])
    with pytest.raises(UserError, match="contradicts"):
        check_restrictions(["never-fork", "new-vmas-only"])


def test_shrinking_keeps_what_matters() -> None:
    """The shortest history of a broken fork: map, write, fork. Anything longer would be noise in a mail."""

    def broken() -> object:
        design = make_design("gki")
        design.try_dup_anon_rmap = lambda *args: None  # type: ignore[method-assign]
        return design

    failures = (run_history(broken, generate(seed, 40)) for seed in range(1, 50))  # type: ignore[arg-type]
    failure = next(f for f in failures if f is not None and f.name == "walk-misses-pte")
    assert isinstance(failure, Failure)
    small = shrink(broken, failure)  # type: ignore[arg-type]
    assert len(small.history) <= 4
    for i in range(len(small.history)):
        shorter: tuple[Op, ...] = small.history[:i] + small.history[i + 1 :]
        assert run_history(broken, shorter) is None, "an operation could be left out"  # type: ignore[arg-type]
