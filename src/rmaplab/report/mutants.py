# SPDX-License-Identifier: GPL-2.0-only
"""The report of `rmaplab check --mutants`."""

from collections.abc import Sequence
from typing import Any

from rmaplab.check.mutant import EXPLORERS, Finding, Mutant
from rmaplab.report.text import WIDTH, wrap

__all__ = ["mutants_json", "mutants_text"]


def mutants_text(findings: Sequence[Finding], mutants: Sequence[Mutant]) -> str:
    """A row for each mutant: executions until each explorer found it, the steps of the counterexample."""
    explorers = [name for name in EXPLORERS if any(finding.explorer == name for finding in findings)]
    columns = "".join(f"{name:>8}" for name in explorers)
    name_width = max((len(mutant.name) for mutant in mutants), default=6) + 1
    rest = WIDTH - name_width - len(columns) - 10
    lines = [f"{'mutant':<{name_width}}{'invariant':<{rest}}{columns}{'steps':>10}"]
    shown = []
    for mutant in mutants:
        of_mutant = {finding.explorer: finding for finding in findings if finding.mutant == mutant.name}
        if not of_mutant:
            continue
        shown.append(mutant)
        first = next((finding for finding in of_mutant.values() if finding.invariant), None)
        cells = "".join(f"{_executions(of_mutant.get(name)):>8}" for name in explorers)
        steps = "+".join(map(str, first.steps)) if first is not None else ""
        invariant = first.invariant if first is not None else "not found"
        lines.append(f"{mutant.name:<{name_width}}{invariant:<{rest}}{cells}{steps:>10}".rstrip())
    missed = sum(1 for finding in findings if not finding.invariant)
    lines.append("")
    lines += wrap(
        "executions until found, 0 = the setup shows it, - = not found in its budget; steps of each CPU in the "
        "shortest counterexample that was found, in the whole world",
        "",
    )
    if missed:
        lines.append(f"{missed} of {len(findings)} not found")
    lines.append("")
    for mutant in shown:
        historic = f" (Linux: {mutant.historic})" if mutant.historic else ""
        lines += wrap(f"{mutant.design}~{mutant.name}: {mutant.text}{historic}; world {mutant.worlds[0]}", "    ")
    return "\n".join(lines)


def _executions(finding: Finding | None) -> str:
    if finding is None:
        return ""
    return f"{finding.executions:,}" if finding.invariant else "-"


def mutants_json(findings: Sequence[Finding]) -> dict[str, Any]:
    """As docs/json.md says."""
    return {
        "findings": [
            {
                "mutant": finding.mutant,
                "design": finding.design,
                "historic": finding.historic or None,
                "world": finding.world,
                "explorer": finding.explorer,
                "executions": finding.executions,
                "seconds": round(finding.seconds, 3),
                "complete": finding.complete,
                "invariant": finding.invariant or None,
                "found": finding.text or None,
                "steps": list(finding.steps),
            }
            for finding in findings
        ]
    }
