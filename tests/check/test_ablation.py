# SPDX-License-Identifier: GPL-2.0-only
"""Hooks taken out of designs: what the seed mail says is needed, is; what a restriction makes needless, is not."""

from collections.abc import Iterator
from typing import Any

import pytest
from click.testing import CliRunner

from rmaplab.check.ablation import ALL_HOOKS, RESTRICTIONS, ablate, check_restrictions, implemented_hooks
from rmaplab.check.history import Failure, run_history, shrink
from rmaplab.cli import main
from rmaplab.designs.registry import make_design
from rmaplab.errors import UserError
from rmaplab.mm.folio import Folio
from rmaplab.mm.hooks import Hooks
from rmaplab.mm.vma import Vma
from rmaplab.workload.random_ops import Op
from rmaplab.workload.scenarios import SCENARIOS
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


def test_without_hook_1_an_inherited_neighbour_is_taken_for_an_anon_vma() -> None:
    """The series marks VMAs at fork, too (TREE_PARENT), so it is not just mainline without hook 1."""
    failure = ablate("anon_vma_lazy", [1], histories=0).failure
    assert failure is not None
    assert failure.name == "bad-dereference" and "TreeParent" in failure.text


def test_without_hook_1_nothing_is_lazy() -> None:
    """Hook 1 is what makes VMAs lazy: without it nothing breaks and nothing is saved, which must be said."""
    verdict = ablate("gki", [1], histories=20)
    assert verdict.failure is None
    assert not verdict.lazy
    assert ablate("gki", histories=1).lazy


NOT_NEEDED = {
    # nothing is lazy without it
    *((design, 1) for design in ("gki", "gki_mm", "gki_nofork", "gki_sync")),
    # mainline locks the shared lock instead: that is what it is for
    *((design, 13) for design in ("gki", "gki_mm", "gki_nofork", "gki_sync")),
    # mainline finds an empty tree and takes the shared lock: more contention and fewer merges, nothing wrong
    ("gki_mm", 7),
    # who has read folio->mapping but not pinned the mm yet: a race
    ("gki_mm", 15),
    # entries that move while a walk looks at two records: a race
    ("cow_context", 9),
    # a fork while a page is under migration
    ("vma_set", 17),
}
"""docs/claims.md gives the reasons."""


@pytest.mark.parametrize("design", [name for name in DESIGNS if name != "anon_vma"])
def test_scenarios_show_every_hook_that_is_needed(design: str) -> None:
    """A hook whose case no scenario holds is called needless or not as the random histories happen to be."""
    for hook in implemented_hooks(make_design(design)):
        verdict = ablate(design, [hook], histories=0)
        needless = (design.removesuffix("_locked"), hook) in NOT_NEEDED
        assert (verdict.failure is None) == needless, (hook, verdict.failure)
        if verdict.failure is not None:
            assert len(verdict.failure.history) <= 10
            assert verdict.scenarios


@pytest.mark.parametrize(
    ("hook", "last", "name"),
    [(6, "exit", "use-after-free"), (10, "load", "use-after-free")],
)
def test_cases_of_cow_context_that_random_histories_lack(hook: int, last: str, name: str) -> None:
    """A page of a grandparent when all above but the root have gone, also from the swap cache."""
    failure = ablate("cow_context", [hook], histories=0).failure
    assert failure is not None
    assert (failure.history[-1].name, failure.name) == (last, name)


def test_what_is_mainlines_is_no_hook() -> None:
    """A hook that a design has to write down but not to change (PlainVmas), and one that it never gets called for."""
    assert 8 not in implemented_hooks(make_design("cow_context"))
    assert 14 not in implemented_hooks(make_design("cow_context"))
    assert 14 in implemented_hooks(make_design("vma_set"))
    assert 15 not in implemented_hooks(make_design("gki"))
    assert implemented_hooks(make_design("anon_vma")) == []


def test_restrictions_hold_for_scenarios_too() -> None:
    """Without fork nothing needs hook 5, and a scenario must not smuggle one in."""
    assert ablate("gki", [5], ["never-fork"], histories=0).failure is None
    assert ablate("gki", [5], histories=0).failure is not None


def test_a_walk_without_end_is_a_violation() -> None:
    """A design that tries again until the folio has another name, which without the hook it never gets: a run that
    hangs instead of a verdict."""

    def spins() -> Hooks:
        design: Any = make_design("anon_vma")

        def walk(folio: Folio, *_: object) -> Iterator[tuple[Vma, int]]:
            while folio.mapping is not None:
                with design.kernel.locks.rcu_read():
                    pass
            yield from ()

        design.rmap_walk_anon = walk
        return design  # type: ignore[no-any-return]

    failure = run_history(spins, SCENARIOS["write"])
    assert failure is not None
    assert failure.name == "step-bound"


def test_no_mremap_is_not_enough_to_drop_hook_9() -> None:
    """relocate_vma_down moves pages where no process asked for it."""
    failure = ablate("gki_mm", [9], ["no-remap"], histories=0).failure
    assert failure is not None
    assert [op.name for op in failure.history] == ["execve"]


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


def test_summary_of_several_designs() -> None:
    """A table whose columns are not the hooks', or that calls a needed hook needless."""
    arguments = ["hooks", "--design", "gki_mm", "--design", "cow_context", "--histories", "1", "--no-claims"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 0, result.output
    lines = result.output.partition("hooks: calls of the shortest history")[2].splitlines()
    assert lines[2].split() == ["design", *map(str, ALL_HOOKS)]
    gki_mm, cow_context = (dict(zip(ALL_HOOKS, line.split()[1:], strict=True)) for line in lines[3:5])
    assert [gki_mm[n] for n in (1, 7, 8, 13, 15)] == ["l", "-", ".", "-", "-"]
    assert [cow_context[n] for n in (8, 14)] == [".", "."]
    assert cow_context[9] == "-"
    assert all(cell.isdigit() for n, cell in cow_context.items() if n not in (8, 9, 14, 17))


def test_no_summary_of_one_design() -> None:
    """The same twice."""
    result = CliRunner().invoke(main, ["hooks", "--design", "gki", "--hook", "1", "--histories", "1", "--no-claims"])
    assert "shortest history that breaks" not in result.output
