# SPDX-License-Identifier: GPL-2.0-only
"""What tests of the command line share."""

from click.testing import Result

__all__ = ["one_line"]


def one_line(result: Result, *words: str) -> None:
    """Bad input: exit status 2, nothing on stdout, one line that has these words."""
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    lines = result.stderr.splitlines()
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("rmaplab: ")
    for word in words:
        assert word in lines[0], lines[0]
