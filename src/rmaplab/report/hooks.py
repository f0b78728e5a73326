# SPDX-License-Identifier: GPL-2.0-only
"""The report of `rmaplab hooks`."""

from collections.abc import Mapping, Sequence
from typing import Any

from rmaplab.check.ablation import ALL_HOOKS, Verdict
from rmaplab.check.claims import Evidence
from rmaplab.check.faults import Found
from rmaplab.report.text import wrap
from rmaplab.workload.scenarios import SCENARIOS
from rmaplab.workload.walk_ops import describe

__all__ = [
    "claims_text",
    "evidence_json",
    "faults_text",
    "hook_columns",
    "hook_row",
    "hooks_text",
    "matrix_text",
    "sets_text",
    "summary_text",
    "verdict_json",
]

_CONCURRENT = {13, 15, 16, 17}
"""Hooks that choose a lock, end a lifetime or need a migration under way: one operation at a time may not show what
they are for."""


def _word(verdict: Verdict) -> str:
    if verdict.failure is not None:
        calls = len(verdict.failure.history)
        return f"needed ({verdict.failure.name}, {calls} call{'s' if calls != 1 else ''})"
    if not verdict.lazy:
        return f"not needed ({verdict.histories} histories): nothing is lazy then"
    return f"not needed ({verdict.histories} histories)"


def _faults_cell(found: Sequence[Found], number: int) -> str:
    of_hook = [item for item in found if item.fault.number == number]
    if not of_hook:
        return "."
    return "!" if any(item.failure is None for item in of_hook) else str(max(map(_calls, of_hook)))


def _calls(item: Found) -> int:
    return len(item.failure.history) if item.failure is not None else 0


def hooks_text(design: str, assume: Sequence[str], baseline: Verdict, verdicts: Sequence[Verdict]) -> str:
    """Per hook of `design`: needed, with the shortest history that shows it, or not."""
    under = f", assuming {', '.join(assume)}" if assume else ""
    lines = [*wrap(f"{design}{under}: all hooks in place: {_ok(baseline)}", "  ")]
    if baseline.failure is not None:
        lines += _history(baseline)
    for verdict in verdicts:
        (number,) = verdict.dropped
        lines += ["", *wrap(f"hook {number:>2} {ALL_HOOKS[number].functions}", "        "), f"        {_word(verdict)}"]
        if verdict.failure is not None:
            lines += _history(verdict)
        elif number in _CONCURRENT:
            lines.append("        (one operation at a time: a race may still need it)")
    return "\n".join(lines)


def hook_columns(width: int = 15) -> str:
    """Head of a table with a column for each hook; width: of the names of designs."""
    return hook_row("design", {number: str(number) for number in ALL_HOOKS}, width)


def hook_row(design: str, cells: Mapping[int, str], width: int = 15) -> str:
    """Its row of a design; "." where there is no cell."""
    return f"  {design:<{width}}" + "".join(f"{cells.get(number, '.'):>3}" for number in ALL_HOOKS)


def summary_text(assume: Sequence[str], tables: Sequence[tuple[str, Sequence[Verdict]]]) -> str:
    """One row for each design, one column for each hook: calls of the shortest history that breaks it."""
    under = f", assuming {', '.join(assume)}" if assume else ""
    lines = wrap(f"hooks{under}: calls of the shortest history that breaks the design without", "  ")
    lines += ["", hook_columns()]
    for design, verdicts in tables:
        lines.append(hook_row(design, {number: _cell(verdict) for verdict in verdicts for number in verdict.dropped}))
    lines += ["", *wrap("  . as mainline or not asked; - not needed; l nothing is lazy without it", "  ")]
    return "\n".join(lines)


def _cell(verdict: Verdict) -> str:
    if verdict.failure is not None:
        return str(len(verdict.failure.history))
    return "-" if verdict.lazy else "l"


def _ok(verdict: Verdict) -> str:
    if verdict.failure is None:
        return f"no violation in {len(SCENARIOS)} scenarios and {verdict.histories} random histories"
    return f"VIOLATION {verdict.failure.name}"


def _history(verdict: Verdict) -> list[str]:
    assert verdict.failure is not None
    lines = [line for op in verdict.failure.history for line in _call(describe(op))]
    lines += wrap(f"          => {verdict.failure.text}", " " * 13)
    return lines


def _call(text: str) -> list[str]:
    text = text.replace("MAP_PRIVATE|MAP_ANONYMOUS|MAP_FIXED", "private anonymous, fixed").replace("MREMAP_", "")
    return wrap(" " * 10 + text, " " * 15)


def sets_text(design: str, sets: Sequence[tuple[str, list[int], list[int], int]]) -> str:
    """The smallest sets of hooks found: rows (restrictions, needed, dropped, histories)."""
    lines = wrap(
        f"smallest set of hooks found for {design}, dropping one after another, last first "
        f"({sets[0][3]} random histories each)",
        "  ",
    )
    lines.append(f"  {'assuming':<20}needed")
    lines += [f"  {assume or 'nothing':<20}{' '.join(map(str, needed))}" for assume, needed, _, _ in sets]
    return "\n".join(lines)


def matrix_text(design: str, numbers: Sequence[int], rows: Sequence[tuple[str, Sequence[Verdict]]]) -> str:
    """One row for each set of restrictions, one column for each hook: x needed, . not needed."""
    lines = [f"{design}: x = needed, . = not needed, l = nothing is lazy without it"]
    lines.append(f"  {'assuming':<31}" + "".join(f"{n:>3}" for n in numbers))
    for name, verdicts in rows:
        cells = "".join(f"{'x' if v.failure else ('.' if v.lazy else 'l'):>3}" for v in verdicts)
        lines.append(f"  {name or 'nothing':<31}{cells}")
    return "\n".join(lines)


def faults_text(found: Sequence[Found]) -> str:
    """Which seeded faults the oracle noticed: calls of the shrunk history by design and hook."""
    lines = ["seeded faults: calls of the shortest history that shows the one in hook", ""]
    lines.append(hook_columns() + "   after")
    for design in dict.fromkeys(item.design for item in found):
        of_design = [item for item in found if item.design == design]
        row = hook_row(design, {number: _faults_cell(of_design, number) for number in ALL_HOOKS})
        lines.append(f"{row}{max(item.histories for item in of_design):>8}")
    lines.append("")
    lines += wrap("  ! not found; . none that one operation at a time could show", "  ")
    lines += wrap("  after: random histories until the last was found, scenarios not counted", "  ")
    for number, text in sorted({(item.fault.number, item.fault.text) for item in found}):
        lines += wrap(f"  {number:>2}  {text}", "      ")
    return "\n".join(lines)


def claims_text(evidence: Sequence[Evidence]) -> str:
    """Claims A to D: holds or not, with its trials."""
    lines = ["claims of the mail (one operation at a time; concurrency is another question)"]
    for item in evidence:
        word = "holds" if item.holds else "does not hold"
        lines += ["", *wrap(f"{item.claim.name}: {item.claim.text}: {word}", "   ")]
        for trial, verdict in zip(item.claim.trials, item.verdicts, strict=True):
            result = f"no violation, {verdict.histories} random histories"
            if verdict.failure is not None:
                result = f"{verdict.failure.name}"
            lines += wrap(f"   {trial.text}: {result}", "     ")
            if verdict.failure is not None:
                lines += _history(verdict)
    return "\n".join(lines)


def verdict_json(verdict: Verdict) -> dict[str, Any]:
    """One ablation as JSON (docs/json.md)."""
    failure = verdict.failure
    return {
        "design": verdict.design,
        "dropped": sorted(verdict.dropped),
        "assume": sorted(verdict.assume),
        "histories": verdict.histories,
        "needed": failure is not None,
        "lazy": verdict.lazy,
        "seeds": verdict.seeds,
        "scenarios": verdict.scenarios,
        "invariant": failure.name if failure else None,
        "found": failure.text if failure else None,
        "history": [describe(op) for op in failure.history] if failure else None,
    }


def evidence_json(evidence: Evidence) -> dict[str, Any]:
    """One claim as JSON (docs/json.md)."""
    return {
        "claim": evidence.claim.name,
        "text": evidence.claim.text,
        "holds": evidence.holds,
        "trials": [
            {"text": trial.text, "must_hold": trial.must_hold, **verdict_json(verdict)}
            for trial, verdict in zip(evidence.claim.trials, evidence.verdicts, strict=True)
        ],
    }
