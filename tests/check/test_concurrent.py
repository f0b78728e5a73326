# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab hooks --concurrent`: the verdicts that can be derived by hand."""

from dataclasses import fields
from pathlib import Path

from click.testing import CliRunner

from rmaplab.check.concurrent import ConcurrentVerdict, repaired, without_hooks, worlds_for
from rmaplab.cli import main

DOCS = Path(__file__).parents[2] / "docs" / "json.md"


def test_hook_5_of_the_hook_form_is_needed() -> None:
    """Without an upgrade at fork the child's entry is in no tree: a plain fork and a walk after it show that."""
    verdict = without_hooks("gki_locked", [5], (), seconds=5)
    assert verdict.world and verdict.serial
    assert verdict.invariant == "walk-misses-pte"


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
    for arguments in (["--budget", "0"], ["--sets"], ["--design", "nonesuch"]):
        result = CliRunner().invoke(main, ["hooks", "--concurrent", *arguments])
        assert result.exit_code == 2, arguments
        assert result.output.count("\n") == 1, result.output


def test_json_is_documented() -> None:
    text = DOCS.read_text()
    for field in fields(ConcurrentVerdict):
        assert f"`{field.name}`" in text, field.name
