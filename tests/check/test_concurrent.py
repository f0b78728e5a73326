# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab hooks --concurrent`: the verdicts that can be derived by hand."""

import json
from dataclasses import fields
from pathlib import Path

from click.testing import CliRunner

from rmaplab.check.concurrent import ConcurrentVerdict, repaired, repairs_of, without, worlds_for
from rmaplab.check.explore.result import Budget
from rmaplab.cli import main

DOCS = Path(__file__).parents[2] / "docs" / "json.md"


def test_hook_5_of_the_hook_form_is_needed() -> None:
    """Without an upgrade at fork the child's entry is in no tree: a plain fork and a walk after it show that."""
    verdict = without("gki_locked", [5], (), Budget(executions=100))
    assert verdict.world and verdict.serial
    assert verdict.invariant == "walk-misses-pte"


def test_hook_1_makes_lazy() -> None:
    """Without it every VMA gets an anon_vma, as in mainline: nothing can break, and nothing is saved."""
    assert not without("gki_locked", [1], (), Budget(executions=1)).lazy


def test_what_was_repaired() -> None:
    """What the published forms lack, read from their classes: the series locks VMAs in hook 4 already."""
    assert repairs_of("anon_vma_lazy_locked") == ["walk_locks_vma", "root_pins_mm"]
    assert repairs_of("gki_locked") == ["walk_locks_vma", "pin_locks_vmas", "root_pins_mm"]
    assert repairs_of("gki_mm_locked") == ["walk_locks_vma", "pin_locks_vmas", "mm_by_rcu"]
    assert repairs_of("gki") == repairs_of("anon_vma") == []


def test_a_pin_without_locks_breaks_at_once_only() -> None:
    """Migration, and fork between its two walks: the child inherits a migration entry. One after the other, none is
    left when fork begins."""
    verdict = without("gki_locked", (), (), Budget(executions=100), "pin_locks_vmas")
    assert verdict.world and not verdict.serial
    assert verdict.invariant == "walk-misses-pte"


def test_it_can_be_checked_and_replayed_without_a_repair() -> None:
    arguments = ["check", "gki_locked~without-pin_locks_vmas", "--world", "migrate-fork", "--json"]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    replay = json.loads(result.stdout)["results"][0]["counterexample"]["replay"]
    again = CliRunner().invoke(main, ["check", "--replay", replay])
    assert "walk-misses-pte" in again.stdout
    wrong = CliRunner().invoke(main, ["check", "gki_locked~without-mm_by_rcu", "--world", "migrate-fork"])
    assert wrong.exit_code == 2
    assert wrong.output.count("\n") == 1


def test_restrictions_leave_worlds_out() -> None:
    assert {"fork" in [op.name for ops in w.cpus for op in ops] for w in worlds_for((), ("never-fork",))} == {False}
    assert any(op.name == "fork" for w in worlds_for((), ()) for ops in w.cpus for op in ops)


def test_worlds_tied_to_the_hook_come_first() -> None:
    first = worlds_for([9], ())[0]
    assert "hook 9" in first.tied


def test_the_repaired_form_stands_in() -> None:
    assert repaired("gki") == "gki_locked"
    assert repaired("anon_vma") == "anon_vma"


def test_bad_arguments() -> None:
    for arguments in (["--budget", "0"], ["--executions", "0"], ["--sets"], ["--design", "nonesuch"]):
        result = CliRunner().invoke(main, ["hooks", "--concurrent", *arguments])
        assert result.exit_code == 2, arguments
        assert result.output.count("\n") == 1, result.output


def test_a_budget_is_for_worlds() -> None:
    """Not silently ignored."""
    result = CliRunner().invoke(main, ["hooks", "--budget", "5"])
    assert (result.exit_code, result.output.count("\n")) == (2, 1)


def test_json_is_documented() -> None:
    text = DOCS.read_text()
    for field in fields(ConcurrentVerdict):
        assert f"`{field.name}`" in text, field.name
