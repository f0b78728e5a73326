# SPDX-License-Identifier: GPL-2.0-only
"""The report of `rmaplab hooks --concurrent`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rmaplab.check.ablation import ALL_HOOKS
from rmaplab.check.claims import Claim, Trial
from rmaplab.check.concurrent import ConcurrentVerdict
from rmaplab.designs.locked import REPAIRS
from rmaplab.report.hooks import hook_columns, hook_row
from rmaplab.report.text import wrap

__all__ = ["concurrent_claims_text", "concurrent_json", "concurrent_summary_text", "concurrent_text"]


def _outcome(verdict: ConcurrentVerdict) -> str:
    if verdict.world:
        how = "one CPU after another is enough" if verdict.serial else "only at once"
        return f"{verdict.invariant} in world {verdict.world} ({how})"
    looked = f"{verdict.worlds} worlds, {verdict.executions:,} executions"
    if verdict.proved == verdict.worlds:
        return f"nothing breaks ({looked}: all traces)"
    return f"nothing found ({looked}; {verdict.worlds - verdict.proved} worlds not to the end)"


def _needed(verdict: ConcurrentVerdict) -> str:
    if verdict.world:
        return "needed: "
    return "not needed: " if verdict.lazy else "nothing is lazy without it: "


def concurrent_text(
    design: str, assume: Sequence[str], baseline: ConcurrentVerdict, verdicts: Sequence[ConcurrentVerdict]
) -> str:
    """Per hook of `design`: what breaks without it in which world."""
    under = f", assuming {', '.join(assume)}" if assume else ""
    lines = [*wrap(f"{design}{under}: all hooks in place: {_outcome(baseline)}", "  ")]
    for verdict in verdicts:
        if verdict.repair:
            lines += ["", *wrap(f"repair {verdict.repair}: {REPAIRS[verdict.repair]}", "        ")]
        else:
            (number,) = verdict.dropped
            lines += ["", *wrap(f"hook {number:>2} {ALL_HOOKS[number].functions}", "        ")]
        lines += wrap("        " + _needed(verdict) + _outcome(verdict), "          ")
        if verdict.world:
            less = verdict.repair or number
            lines += wrap(f"        rmaplab check {design}~without-{less} --world {verdict.world}", "          ")
    return "\n".join(lines)


def concurrent_summary_text(assume: Sequence[str], tables: Sequence[tuple[str, Sequence[ConcurrentVerdict]]]) -> str:
    """One row for each design, one column for each hook: what needs it."""
    under = f", assuming {', '.join(assume)}" if assume else ""
    lines = wrap(f"hooks{under}: what breaks in the worlds without", "  ")
    lines += ["", hook_columns(22)]
    for design, verdicts in tables:
        cells = {number: _cell(verdict) for verdict in verdicts for number in verdict.dropped}
        lines.append(hook_row(design, cells, 22))
    repairs = {design: [v for v in verdicts if v.repair] for design, verdicts in tables}
    if any(repairs.values()):
        lines += ["", *wrap("repairs: what breaks in the worlds without", "  "), ""]
    for design, verdicts in repairs.items():
        if verdicts:
            lines.append(f"  {design:<22} " + ", ".join(f"{v.repair} {_cell(v)}" for v in verdicts))
    lines += [""]
    legend = (
        "S breaks with one CPU after another; C only with CPUs at once; - nothing "
        "found; l nothing is lazy without it; . as mainline, as published, or not asked"
    )
    return "\n".join([*lines, *wrap("  " + legend, "  ")])


def _cell(verdict: ConcurrentVerdict) -> str:
    if verdict.world:
        return "S" if verdict.serial else "C"
    return "-" if verdict.lazy else "l"


def concurrent_claims_text(evidence: Sequence[tuple[Claim, Sequence[tuple[Trial, ConcurrentVerdict]]]]) -> str:
    """Each claim: does it hold when operations run at once, and what each trial showed."""
    lines: list[str] = []
    for claim, trials in evidence:
        holds = all(not verdict.world for trial, verdict in trials if trial.must_hold)
        word = "holds in the worlds" if holds else "does not hold"
        lines += [*([""] if lines else []), *wrap(f"claim {claim.name}: {claim.text}: {word}", "  ")]
        for trial, verdict in trials:
            lines += wrap(f"  {trial.text} ({verdict.design}): {_outcome(verdict)}", "    ")
    return "\n".join(lines)


def concurrent_json(verdict: ConcurrentVerdict) -> dict[str, Any]:
    """Keys: docs/json.md."""
    return asdict(verdict)
