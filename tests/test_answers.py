# SPDX-License-Identifier: GPL-2.0-only
"""docs/answers.md: every question has a section, commands that parse, and outputs. `python tools/answers.py --check`
runs the commands."""

import importlib.util
import re
from pathlib import Path
from typing import Any

import click
import pytest

from rmaplab.check.checking import made
from rmaplab.check.replay_string import decode
from rmaplab.check.world import library
from rmaplab.cli import main
from rmaplab.report.text import WIDTH

TOOL = Path(__file__).parents[1] / "tools" / "answers.py"
QUESTIONS = [f"Q{number}" for number in range(1, 18)]


def _tool() -> Any:
    spec = importlib.util.spec_from_file_location("answers", TOOL)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


answers = _tool()
DOCUMENT: str = answers.ANSWERS.read_text()
SECTIONS: dict[str, str] = answers.sections(DOCUMENT)


def _parsed(words: list[str]) -> dict[str, Any]:
    """The options of a command, by name"""
    assert words[0] == "rmaplab"
    command = main.commands[words[1]]
    with (
        click.Context(main, **main.context_settings) as parent,
        command.make_context(words[1], words[2:], parent=parent) as context,
    ):
        return context.params


def test_sections_are_the_questions() -> None:
    assert [name for name in SECTIONS if name] == QUESTIONS
    assert "".join(SECTIONS.values()) == DOCUMENT


@pytest.mark.parametrize("name", QUESTIONS)
def test_every_question_has_commands_and_output(name: str) -> None:
    """A command that no longer parses, a design, mutant or world that has gone, a replay of a world that has changed,
    a block without output or with a line that a mail breaks."""
    found = answers.commands(SECTIONS[name])
    assert found
    for words, output in found:
        options = _parsed(words)
        assert output.strip()
        assert [line for line in output.splitlines() if len(line) > WIDTH and "rmaplab " not in line] == []
        if words[1] != "check":
            continue
        assert options["budget"] is None  # seconds would give another output each time
        assert set(options["worlds"]) <= set(library())
        for design in options["designs"]:
            with made(design):
                pass
        if options["replay"]:
            decode(options["replay"], library())
        else:
            assert options["executions"]


@pytest.mark.parametrize("name", QUESTIONS)
def test_outputs_belong_to_their_commands(name: str) -> None:
    """An output pasted below another command: each of its designs and worlds has a verdict."""
    for words, output in answers.commands(SECTIONS[name]):
        options = _parsed(words)
        for part in (*options.get("designs", ()), *options.get("worlds", ())):
            assert re.search(rf"\b{re.escape(part)}\b", output), part


def test_no_figures_of_speed() -> None:
    table = "world  design  verdict   traces blocked     /s\n"
    row = "w      gki     PROVED       100       0    317"
    padded = table.rstrip().rjust(75) + "\n" + row.rjust(75) + "\n\nbelow " + "x" * 69 + "\n"
    assert answers.steady(padded).splitlines() == [
        table.rstrip().rjust(75)[:68].rstrip(),
        row.rjust(75)[:68].rstrip(),
        "",
        "below " + "x" * 69,
    ]


def test_renewing_is_idempotent() -> None:
    """An output that is doubled, or what stands around it lost."""
    text = "before\n\n```\n$ rmaplab check gki \\\n    --all\n```\n\nafter\n\n```\nno command\n```\n"
    seen: list[list[str]] = []

    def output(words: list[str]) -> str:
        seen.append(words)
        return "PROVED\n"

    once = answers.renewed(text, output)
    assert once == text.replace("--all\n", "--all\nPROVED\n")
    assert answers.renewed(once, output) == once
    assert seen == [["rmaplab", "check", "gki", "--all"]] * 2
