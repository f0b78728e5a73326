# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab record`, `rmaplab import` and `rmaplab info`. The command line adds them; nothing here computes."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Final

import click

from rmaplab.cli_support import failures, progress
from rmaplab.report.info import format_info
from rmaplab.trace.bundled import bundled_path
from rmaplab.trace.info import info
from rmaplab.trace.record import MODES, record
from rmaplab.trace.source import open_trace
from rmaplab.trace.store import check_target, write_trace

__all__ = ["import_command", "info_command", "record_command"]

_DEFAULT_OUTPUT: Final = "rmaplab.parquet"
_READABLE: Final = click.Path(path_type=Path)


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
@click.option(
    "--read-faults",
    is_flag=True,
    help="Record read faults too: they matter in MADV_HUGEPAGE ranges, and where a read grows a stack.",
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
    read_faults: bool,
    keep_perf_data: bool,
    command: tuple[str, ...],
) -> None:
    """Run COMMAND under perf and write its trace.

    The exit status is that of COMMAND, or 2 if it could not be recorded.
    """
    with failures(), progress("importing") as told:
        made = record(
            command,
            output,
            truth=truth,
            full_paths=full_paths,
            mode=mode,
            read_faults=read_faults,
            keep_perf_data=keep_perf_data,
            note=lambda line: click.echo(f"rmaplab: {line}", err=True),
            progress=told,
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
    with failures():
        check_target(output)
        with progress("importing") as told:
            trace = open_trace(source, full_paths=full_paths, page_size=int(page_size or 0), progress=told)
        write_trace(trace, output)
    if trace.meta.lost:
        click.echo(f"rmaplab: perf lost {trace.meta.lost} records: no exact verdict is possible", err=True)
    click.echo(f"rmaplab: {len(trace)} rows in {output}", err=True)


@click.command("info")
@click.argument("trace")
@click.option("--json", "as_json", is_flag=True, help="JSON (docs/json.md).")
def info_command(trace: str, as_json: bool) -> None:
    """Say what TRACE (or perf.data, the text of perf script, or the name of a bundled recording) holds."""
    with failures(), progress("reading") as told:
        report = info(open_trace(bundled_path(trace), progress=told))
    click.echo(json.dumps(dataclasses.asdict(report), indent=2) if as_json else format_info(report))


def _default_name(source: Path) -> Path:
    """run.perf.data, run.data, run.txt.gz -> run.parquet in the current directory."""
    name = source.name
    for suffix in (".gz", ".txt", ".data", ".perf"):
        name = name.removesuffix(suffix)
    name = name or "rmaplab"
    return Path(os.curdir) / f"{name}.parquet"
