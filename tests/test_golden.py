# SPDX-License-Identifier: GPL-2.0-only
"""The CLI's output, as stored. `make golden` accepts the output of now; read the diff before you commit it."""

from pathlib import Path

import pytest
from click.testing import CliRunner

from rmaplab.cli import main

GOLDEN = Path(__file__).parent / "golden"

COMMANDS = {
    "help": ["--help"],
    "record-help": ["record", "--help"],
    "import-help": ["import", "--help"],
    "info-help": ["info", "--help"],
    "compare-help": ["compare", "--help"],
    "truth-help": ["truth", "--help"],
    "hooks-help": ["hooks", "--help"],
    "check-help": ["check", "--help"],
    "info": ["info", "redis"],
    "info-json": ["info", "redis", "--json"],
    "compare": ["compare", "redis"],
    "compare-default": ["compare"],
    "compare-all": ["compare", "redis", "--design", "all"],
    "compare-by-process": ["compare", "redis", "--by-process"],
    "compare-over-time": ["compare", "redis", "--over-time"],
    "compare-json": ["compare", "redis", "--json"],
    "truth": ["truth", "redis"],
    "truth-json": ["truth", "redis", "--json"],
    "truth-differs": ["truth", "redis", "--rules", "6.12", "--design", "anon_vma_lazy"],
    "hooks": ["hooks", "--design", "gki_sync", "--hook", "4", "--hook", "5", "--histories", "20", "--no-claims"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_output_is_as_stored(name: str, request: pytest.FixtureRequest) -> None:
    """Any change of what users see and paste: a figure, a column, a word."""
    result = CliRunner().invoke(main, COMMANDS[name], prog_name="rmaplab")
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("--accept-golden"):
        path.write_text(result.stdout)
    assert path.exists() and path.read_text() == result.stdout, "differs; `make golden` accepts it"


@pytest.mark.parametrize("name", [n for n in COMMANDS if "json" not in n and "help" not in n])
def test_lines_fit_a_mail(name: str) -> None:
    """A line of more than 75 columns, which a mail breaks."""
    for line in (GOLDEN / f"{name}.txt").read_text().splitlines():
        assert len(line) <= 75, line
