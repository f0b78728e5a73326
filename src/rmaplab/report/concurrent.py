# SPDX-License-Identifier: GPL-2.0-only
"""The report of `rmaplab hooks --concurrent`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rmaplab.check.ablation import ALL_HOOKS
from rmaplab.check.claims import Claim, Trial
from rmaplab.check.concurrent import ConcurrentVerdict
from rmaplab.report.text import wrap

__all__ = ["concurrent_claims_text", "concurrent_json", "concurrent_text"]


def _outcome(verdict: ConcurrentVerdict) -> str:
    if verdict.world:
        also = "also one CPU after another" if verdict.serial else "only at once"
        return f"{verdict.invariant} in world {verdict.world} ({also})"
    looked = f"{verdict.worlds} worlds, {verdict.executions:,} executions"
    if verdict.proved == verdict.worlds:
        return f"nothing breaks ({looked}: all traces)"
    return f"nothing found ({looked}; {verdict.worlds - verdict.proved} worlds not to the end)"


def concurrent_text(
    design: str, assume: Sequence[str], baseline: ConcurrentVerdict, verdicts: Sequence[ConcurrentVerdict]
) -> str:
    """Per hook of `design`: what breaks without it in which world."""
    under = f", assuming {', '.join(assume)}" if assume else ""
    lines = [*wrap(f"{design}{under}: all hooks in place: {_outcome(baseline)}", "  ")]
    for verdict in verdicts:
        (number,) = verdict.dropped
        lines += ["", *wrap(f"hook {number:>2} {ALL_HOOKS[number].functions}", "        ")]
        needed = "needed: " if verdict.world else "not needed: "
        lines += wrap("        " + needed + _outcome(verdict), "          ")
        if verdict.world:
            lines += wrap(f"        rmaplab check {design}~without-{number} --world {verdict.world}", "          ")
    return "\n".join(lines)


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
