# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab record`, `rmaplab import` and `rmaplab info`. The command line adds them; nothing here computes."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
from rich.console import Console

from rmaplab.errors import UserError
from rmaplab.report.info import format_info
from rmaplab.trace.info import info
from rmaplab.trace.record import MODES, record
from rmaplab.trace.source import Progress, open_trace
from rmaplab.trace.store import check_target, write_trace

__all__ = ["import_command", "info_command", "record_command"]

_DEFAULT_OUTPUT: Final = "rmaplab.parquet"
_READABLE: Final = click.Path(path_type=Path)


class _Failure(click.ClickException):
    """One line on stderr, exit status 2."""

    exit_code = 2

    def show(self, file: object = None) -> None:
        """Print the line, as plain as every other message."""
        click.echo(f"rmaplab: {self.format_message()}", err=True)


@contextlib.contextmanager
def _failures() -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise _Failure(str(error)) from error


@contextlib.contextmanager
def _progress(what: str) -> Iterator[Progress | None]:
    """A line that moves while `what` goes on, on a terminal only."""
    if not sys.stderr.isatty():
        yield None
        return
    console = Console(stderr=True)
    with contextlib.ExitStack() as stack:
        status = console.status(what)
        started = False

        def show(lines: int) -> None:
            # not before the first call: while the command runs the terminal is its own
            nonlocal started
            if not started:
                started = True
                stack.enter_context(status)
            status.update(f"{what}: {lines:,} lines")

        yield show


@click.command("record", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.option("-o", "--output", type=_READABLE, default=_DEFAULT_OUTPUT, show_default=True, help="Trace to write.")
@click.option("--truth/--no-truth", default=True, show_default=True, help="Record the kernel's own slab events too.")
@click.option("--full-paths", is_flag=True, help="Keep the directories in the names of mapped files.")
@click.option(
    "--mode",
    type=click.Choice(MODES),
    default="auto",
    show_default=True,
    help="Attach perf to a cgroup of its own, or to the task and its children.",
)
@click.option("--keep-perf-data", is_flag=True, help="Keep perf.data next to the trace.")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
@click.pass_context
def record_command(
    context: click.Context,
    output: Path,
    truth: bool,
    full_paths: bool,
    mode: str,
    keep_perf_data: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND under perf and write its trace.

    The exit status is that of COMMAND, or 2 if it could not be recorded.
    """
    with _failures(), _progress("importing") as progress:
        made = record(
            command,
            output,
            truth=truth,
            full_paths=full_paths,
            mode=mode,
            keep_perf_data=keep_perf_data,
            note=lambda line: click.echo(f"rmaplab: {line}", err=True),
            progress=progress,
        )
    kept = f", {made.perf_data}" if made.perf_data else ""
    click.echo(f"rmaplab: {len(made.trace)} rows in {made.output}{kept}", err=True)
    context.exit(made.status)


@click.command("import")
@click.argument("source", type=_READABLE)
@click.option("-o", "--output", type=_READABLE, help="Trace to write.  [default: SOURCE with .parquet]")
@click.option("--full-paths", is_flag=True, help="Keep the directories in the names of mapped files.")
@click.option("--page-size", type=click.Choice(["4096", "16384", "65536"]), help="Bytes, where SOURCE does not say.")
def import_command(source: Path, output: Path | None, full_paths: bool, page_size: str | None) -> None:
    """Turn perf.data, or the text of perf script, into a trace.

    \b
    The text is that of (gzip it if you like):
      perf script --ns --show-mmap-events --show-task-events \\
          --show-lost-events -F comm,pid,tid,cpu,time,event,trace
    """
    if output is None:
        output = _default_name(source)
    with _failures():
        check_target(output)
        with _progress("importing") as progress:
            trace = open_trace(source, full_paths=full_paths, page_size=int(page_size or 0), progress=progress)
        write_trace(trace, output)
    if trace.meta.lost:
        click.echo(f"rmaplab: perf lost {trace.meta.lost} records: no exact verdict is possible", err=True)
    click.echo(f"rmaplab: {len(trace)} rows in {output}", err=True)


@click.command("info")
@click.argument("trace", type=_READABLE)
def info_command(trace: Path) -> None:
    """Say what TRACE (or perf.data, or the text of perf script) holds."""
    with _failures(), _progress("reading") as progress:
        opened = open_trace(trace, progress=progress)
    click.echo(format_info(info(opened)))


def _default_name(source: Path) -> Path:
    """run.perf.data, run.data, run.txt.gz -> run.parquet in the current directory."""
    name = source.name
    for suffix in (".gz", ".txt", ".data", ".perf"):
        name = name.removesuffix(suffix)
    name = name or "rmaplab"
    return Path(os.curdir) / f"{name}.parquet"
