# SPDX-License-Identifier: GPL-2.0-only
"""tools/oracle_run.py: which seeds, which verdict, which exit status."""

import gc
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from rmaplab.check.history import Failure
from rmaplab.workload.random_ops import Op

TOOL = Path(__file__).resolve().parents[2] / "tools" / "oracle_run.py"


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(TOOL))


@pytest.mark.parametrize(("first", "count", "parts"), [(1, 100_000, 32), (7, 5, 32), (3, 1, 1)])
def test_every_seed_once(tool: dict[str, Any], first: int, count: int, parts: int) -> None:
    """A seed left out, or run twice, where two jobs meet."""
    stretches = tool["split"](first, count, parts)
    assert [seed for stretch in stretches for seed in stretch] == list(range(first, first + count))
    assert len(stretches) == min(count, parts)


def test_a_failure_is_shown_with_its_seed(tool: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    """The smallest failing seed, its history and no success."""
    part, history = tool["Part"], (Op(1, "exit"),)
    parts = [
        part("gki", 10, 1.0),
        part("gki", 3, 0.4, 44, Failure("leak", "later", history)),
        part("gki", 2, 0.2, 22, Failure("mapcount", "what was found", history)),
    ]
    assert tool["print_design"]("gki", parts) is False
    assert capsys.readouterr().out.splitlines() == [
        "gki                           15        2  mapcount, seed 22",
        "    1: exit()",
        "    => what was found",
    ]
    assert tool["print_design"]("gki", parts[:1]) is True


def test_run(tool: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Options, heading, a row for each design."""
    monkeypatch.setattr(
        sys, "argv", ["oracle_run.py", "--histories", "6", "--length", "5", "--seed", "11", "gki", "gki"]
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(tool["main"].__globals__, "ProcessPoolExecutor", Inline)
        assert tool["main"]() == 0
    gc.enable()  # run() is for a process of its own
    heading, _, row = capsys.readouterr().out.splitlines()
    assert heading == "6 histories of 5 operations a design, seeds 11 to 16"
    assert row.split()[:2] == ["gki", "6"]
    assert row.endswith("no violation")


@pytest.mark.parametrize("arguments", [["--histories", "0"], ["--jobs", "0"], ["nope"]])
def test_bad_input(
    tool: dict[str, Any], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """A run of nothing that reports success."""
    monkeypatch.setattr(sys, "argv", ["oracle_run.py", *arguments])
    with pytest.raises(SystemExit) as stopped:
        tool["main"]()
    assert stopped.value.code == 2
    assert "1 or more" in (said := capsys.readouterr().err) or "anon_vma_lazy" in said


class Inline:
    """An executor in this process: what runpy loaded cannot be sent to another."""

    def __init__(self, jobs: int) -> None: ...

    def __enter__(self) -> "Inline":
        return self

    def __exit__(self, *error: object) -> None: ...

    def submit(self, function: Any, *arguments: Any) -> Any:
        from concurrent.futures import Future

        future: Future[Any] = Future()
        future.set_result(function(*arguments))
        return future
