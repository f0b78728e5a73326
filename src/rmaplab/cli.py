# SPDX-License-Identifier: GPL-2.0-only
"""The command line: only parses and calls."""

import click

from rmaplab.check.check_commands import check_command
from rmaplab.check.commands import hooks_command
from rmaplab.replay.commands import compare_command, truth_command
from rmaplab.synth.commands import synth
from rmaplab.trace.commands import import_command, info_command, record_command

__all__ = ["main"]


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="rmaplab", message="%(prog)s %(version)s")
def main() -> None:
    """A laboratory for the reverse mapping of anonymous memory in Linux."""


for _command in (
    record_command,
    import_command,
    info_command,
    compare_command,
    truth_command,
    hooks_command,
    check_command,
    synth,
):
    main.add_command(_command)
