# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab compare` and `rmaplab truth`: parse, call, print."""

import json
import shlex
import sys
from pathlib import Path

import click

from rmaplab.cli_support import busy, failures, profile_option, progress, resolve_profile
from rmaplab.designs.registry import design_names, make_design
from rmaplab.errors import UserError
from rmaplab.mm.kernel import CACHE_NAMES
from rmaplab.mm.slab import SLAB_PROFILES
from rmaplab.replay.compare import BASE, compare
from rmaplab.replay.run import no_gc
from rmaplab.replay.truth import check_truth
from rmaplab.report.compare import comparison_json, comparison_text, cover_letter
from rmaplab.report.truth import truth_json, truth_text
from rmaplab.trace.bundled import DEFAULT, bundled_path
from rmaplab.trace.source import open_trace

__all__ = ["compare_command", "truth_command"]

_BUCKETS = 24


def _check_designs(designs: tuple[str, ...]) -> list[str]:
    names = list(designs) or [BASE, "anon_vma_lazy"]
    if "all" in names:
        names = design_names()
    for name in names:
        make_design(name)
    return names


@click.command("compare")
@click.argument("file", required=False)
@click.option("--design", "designs", multiple=True, metavar="NAME", help="Design to replay (repeat; or `all`).")
@click.option("--by-process", is_flag=True, help="Objects of each process at the peak.")
@click.option("--over-time", is_flag=True, help="The peak and its time, and a plot.")
@click.option("--cover-letter", "letter", is_flag=True, help="The table of the series' cover letter, for a mail.")
@click.option("--cost", is_flag=True, help="VMAs visited per walk, locks, objects per fork and first fault.")
@click.option("--slabs", metavar="PROFILE", help="Slab sizes of a named profile instead of the recorded ones.")
@click.option("--json", "as_json", is_flag=True, help="JSON (docs/json.md).")
@profile_option
def compare_command(
    file: str | None,
    designs: tuple[str, ...],
    by_process: bool,
    over_time: bool,
    letter: bool,
    cost: bool,
    slabs: str | None,
    as_json: bool,
    rules: str | None,
) -> None:
    """Replay a recording under several designs and print their kernel objects side by side.

    FILE is a trace, a perf.data, the text of perf script, or the name of a bundled recording (the default is
    `chromium`).
    """
    with failures():
        names = _check_designs(designs)
        if slabs is not None and slabs not in SLAB_PROFILES:
            raise UserError(f"no slab profile {slabs!r}; known are {', '.join(map(repr, SLAB_PROFILES))}")
        if letter and set(names) == {BASE}:
            raise UserError(f"--cover-letter shows another design against {BASE}: name one with --design")
        source = file or DEFAULT
        with progress("reading") as told:
            trace = open_trace(bundled_path(source), progress=told)
        if not len(trace):
            raise UserError(f"{Path(source).name} has no operations: nothing to compare")
        profile = resolve_profile(rules, trace.meta.kernel)
        with busy(f"replaying under {len(names)} designs"):
            result = compare(
                trace,
                names,
                profile,
                slab_profile=slabs,
                by_process=by_process,
                buckets=_BUCKETS if over_time else 0,
                cost=cost,
            )
        if not result.moments[0].designs[BASE][CACHE_NAMES[0]].objects:
            raise UserError(f"{Path(source).name}: none of its {len(trace)} operations maps memory: nothing to compare")
    if as_json:
        click.echo(json.dumps(comparison_json(result), indent=2))
    elif letter:
        click.echo(cover_letter(result, _command_line()))
    else:
        click.echo(comparison_text(result, Path(source).name))


def _command_line() -> str:
    return shlex.join(["rmaplab", *(Path(a).name if "/" in a else a for a in sys.argv[1:])])


@click.command("truth")
@click.argument("file")
@click.option("--design", default=BASE, metavar="NAME", show_default=True, help="Design to hold against the kernel.")
@click.option("--json", "as_json", is_flag=True, help="JSON (docs/json.md).")
@profile_option
def truth_command(file: str, design: str, as_json: bool, rules: str | None) -> None:
    """Compare a replay with the kernel's own allocations and frees, operation by operation.

    Exits 1 if anything differs or records were lost, 2 if the recording has no slab events.
    """
    with failures():
        hooks = make_design(design)
        with progress("reading") as told:
            trace = open_trace(bundled_path(file), progress=told)
        if not trace.meta.truth:
            raise UserError(f"{Path(file).name} was recorded without the kernel's slab events; record with --truth")
        profile = resolve_profile(rules, trace.meta.kernel)
        with busy("replaying"), no_gc():
            report, _ = check_truth(trace, hooks, profile)
    if as_json:
        click.echo(json.dumps(truth_json(report), indent=2))
    else:
        click.echo(truth_text(trace.meta, report))
    sys.exit(0 if report.exact else 1)
