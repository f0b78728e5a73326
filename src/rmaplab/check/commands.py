# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab hooks`: parse, call, print."""

import json
import sys
from collections.abc import Callable
from functools import partial
from itertools import combinations
from typing import Any

import click

from rmaplab.check.ablation import (
    ALL_HOOKS,
    RESTRICTIONS,
    Verdict,
    ablate,
    check_restrictions,
    implemented_hooks,
    smallest_set,
)
from rmaplab.check.claims import CLAIMS, judge
from rmaplab.check.concurrent import ConcurrentVerdict, repaired, repairs_of, trial_concurrent, without
from rmaplab.check.explore.result import Budget
from rmaplab.check.faults import FAULTS, Fault, Found, find_fault
from rmaplab.check.history import Failure
from rmaplab.cli_support import busy, failures
from rmaplab.designs.registry import design_names, make_design
from rmaplab.errors import UserError
from rmaplab.replay.run import in_processes, no_gc
from rmaplab.report.concurrent import (
    concurrent_claims_text,
    concurrent_json,
    concurrent_summary_text,
    concurrent_text,
)
from rmaplab.report.hooks import (
    claims_text,
    evidence_json,
    faults_text,
    hooks_text,
    matrix_text,
    sets_text,
    summary_text,
    verdict_json,
)

__all__ = ["hooks_command"]

_SETS = ("", "never-fork", "sync-upgrade", "base-0", "no-remap", "no-ksm", "no-memory-failure")


def _split(names: tuple[str, ...]) -> list[str]:
    return [name for part in names for name in part.split(",") if name]


def _numbers(design: str, asked: tuple[int, ...]) -> list[int]:
    for number in asked:
        if number not in ALL_HOOKS:
            raise UserError(f"no hook {number}; known are {', '.join(map(str, ALL_HOOKS))}")
    own = implemented_hooks(make_design(design))
    missing = [number for number in asked if number not in own]
    if missing:
        raise UserError(f"design {design!r} does as mainline at hook {missing[0]}; its own are {own}")
    return list(asked) or own


@click.command("hooks")
@click.option("--design", "designs", multiple=True, metavar="NAME", help="Design (repeat; default: all).")
@click.option("--hook", "asked", multiple=True, type=int, metavar="N", help="Only this hook (repeat).")
@click.option("--assume", multiple=True, metavar="A,B...", help=f"Restrictions: {', '.join(RESTRICTIONS)}.")
@click.option("--histories", default=300, show_default=True, help="Random histories for each verdict.")
@click.option("--seed", default=1, show_default=True, help="Seed of the first history.")
@click.option("--combinations", "combine", is_flag=True, help="A row for each restriction and each pair of them.")
@click.option("--sets", is_flag=True, help="The smallest set of hooks under each restriction.")
@click.option("--faults", is_flag=True, help="Seed a fault in each hook, and see that it is found.")
@click.option(
    "--concurrent", is_flag=True, help="Worlds instead of histories: what breaks when operations run at once."
)
@click.option(
    "--budget",
    type=float,
    metavar="SECONDS",
    help="With --concurrent: seconds for each world.  [default: 2, or --executions]",
)
@click.option("--executions", type=int, metavar="N", help="With --concurrent: at most so many for each world.")
@click.option("--claims/--no-claims", default=True, show_default=True, help="Claims A to D of the mail.")
@click.option("--json", "as_json", is_flag=True, help="JSON (docs/json.md).")
def hooks_command(
    designs: tuple[str, ...],
    asked: tuple[int, ...],
    assume: tuple[str, ...],
    histories: int,
    seed: int,
    combine: bool,
    sets: bool,
    faults: bool,
    concurrent: bool,
    budget: float | None,
    executions: int | None,
    claims: bool,
    as_json: bool,
) -> None:
    """Take each hook out of each design, and print what breaks: a short history of system calls, or nothing."""
    with failures():
        if histories < 1:
            raise UserError(f"--histories must be 1 or more, not {histories}")
        limit = _limit(concurrent, budget, executions)
        if concurrent and (combine or sets or faults):
            raise UserError("--concurrent has no --combinations, --sets or --faults: those are about histories")
        restrictions = check_restrictions(_split(assume))
        names = list(designs) or list(dict.fromkeys(map(repaired if concurrent else str, design_names())))
        hooks = {name: _numbers(name, asked) for name in names}
    run = partial(ablate, histories=histories, seed=seed)
    tables: list[tuple[str, list[Verdict]]] = []
    parts: list[Callable[[], Part]] = [partial(_table, name, hooks[name], restrictions, run, tables) for name in names]
    if concurrent:
        at_once: list[tuple[str, list[ConcurrentVerdict]]] = []
        parts = [
            partial(_concurrent, name, hooks[name], [] if asked else repairs_of(name), restrictions, limit, at_once)
            for name in names
        ]
        if len(names) > 1:
            parts.append(partial(_concurrent_summary, restrictions, at_once))
    elif len(names) > 1:
        parts.append(partial(_summary, restrictions, tables))
    if combine:
        parts += [partial(_matrix, name, hooks[name], run) for name in names]
    if sets:
        parts += [partial(_sets, name, histories, seed) for name in names]
    if faults:
        parts.append(partial(_faults, names, histories, seed))
    if claims:
        parts.append(partial(_concurrent_claims, limit) if concurrent else partial(_claims, histories, seed))
    result: dict[str, Any] = {"histories": histories, "seed": seed, "assume": sorted(restrictions)}
    try:
        for i, part in enumerate(parts):
            with busy("running histories"), no_gc():
                kind, name, value, text = part()
            if name:
                result.setdefault(kind, {})[name] = value
            elif kind:
                result[kind] = value
            if not as_json:
                click.echo(("\n" if i else "") + text)
    except KeyboardInterrupt:
        result["interrupted"] = True  # what is complete was printed
    if as_json:
        click.echo(json.dumps(result, indent=2))
    if "interrupted" in result:
        click.echo("rmaplab: interrupted; the tables above are complete, others are missing", err=True)
        sys.exit(130)


Part = tuple[str, str, Any, str]
"""One table: key in the JSON or "", design or "", value in the JSON, text."""


def _table(
    name: str,
    numbers: list[int],
    restrictions: frozenset[str],
    run: "partial[Verdict]",
    tables: list[tuple[str, list[Verdict]]],
) -> Part:
    """tables: where the verdicts go for the summary"""
    jobs = [partial(run, name, (), restrictions)]
    jobs += [partial(run, name, (number,), restrictions) for number in numbers]
    baseline, *verdicts = in_processes(jobs)
    tables.append((name, verdicts))
    value = {"all_hooks": verdict_json(baseline), "dropped": [verdict_json(v) for v in verdicts]}
    return "designs", name, value, hooks_text(name, sorted(restrictions), baseline, verdicts)


def _limit(concurrent: bool, seconds: float | None, executions: int | None) -> Budget:
    """For each world. Raises UserError."""
    if not concurrent and (seconds is not None or executions is not None):
        raise UserError("--budget and --executions are for --concurrent; without it there are --histories")
    if seconds is not None and not seconds > 0:
        raise UserError(f"--budget must be more than 0 seconds, not {seconds:g}")
    if executions is not None and executions < 1:
        raise UserError(f"--executions must be 1 or more, not {executions}")
    return Budget(executions, 2.0 if seconds is None and executions is None else seconds)


def _concurrent(
    name: str,
    numbers: list[int],
    repairs: list[str],
    restrictions: frozenset[str],
    limit: Budget,
    tables: list[tuple[str, list[ConcurrentVerdict]]],
) -> Part:
    """Worlds instead of histories. tables: as for _table"""
    jobs = [partial(without, name, (), restrictions, limit)]
    jobs += [partial(without, name, (number,), restrictions, limit) for number in numbers]
    jobs += [partial(without, name, (), restrictions, limit, repair) for repair in repairs]
    baseline, *verdicts = in_processes(jobs)
    tables.append((name, verdicts))
    value = {"all_hooks": concurrent_json(baseline), "dropped": [concurrent_json(v) for v in verdicts]}
    return "designs", name, value, concurrent_text(name, sorted(restrictions), baseline, verdicts)


def _concurrent_summary(restrictions: frozenset[str], tables: list[tuple[str, list[ConcurrentVerdict]]]) -> Part:
    return "", "", None, concurrent_summary_text(sorted(restrictions), tables)


def _concurrent_claims(limit: Budget) -> Part:
    verdicts = iter(
        in_processes([partial(trial_concurrent, trial, limit) for claim in CLAIMS for trial in claim.trials])
    )
    evidence = [(claim, [(trial, next(verdicts)) for trial in claim.trials]) for claim in CLAIMS]
    value = [
        {
            "claim": claim.name,
            "trials": [{"trial": t.text, "must_hold": t.must_hold, **concurrent_json(v)} for t, v in judged],
        }
        for claim, judged in evidence
    ]
    return "claims", "", value, concurrent_claims_text(evidence)


def _summary(restrictions: frozenset[str], tables: list[tuple[str, list[Verdict]]]) -> Part:
    """In the text only: it says nothing that the tables do not"""
    return "", "", None, summary_text(sorted(restrictions), tables)


def _sets(name: str, histories: int, seed: int) -> Part:
    found = in_processes(
        [partial(smallest_set, name, _split((rule,)), histories=histories, seed=seed) for rule in _SETS]
    )
    rows = [(rule, needed, dropped, histories) for rule, (needed, dropped) in zip(_SETS, found, strict=True)]
    return "sets", name, {rule or "nothing": needed for rule, needed, _, _ in rows}, sets_text(name, rows)


def _find(name: str, fault: Fault, histories: int, seed: int) -> tuple[int, Failure | None]:
    """What of find_fault's answer can be sent between processes"""
    found = find_fault(name, fault, histories=histories, seed=seed)
    return found.histories, found.failure


def _faults(names: list[str], histories: int, seed: int) -> Part:
    seeded = [(name, fault) for name in names for fault in FAULTS if fault.fits(name)]
    results = in_processes([partial(_find, name, fault, histories, seed) for name, fault in seeded])
    found = [Found(name, fault, *result) for (name, fault), result in zip(seeded, results, strict=True)]
    value = [
        {
            "design": item.design,
            "hook": item.fault.number,
            "fault": item.fault.text,
            "histories": item.histories,
            "calls": len(item.failure.history) if item.failure else None,
        }
        for item in found
    ]
    return "faults", "", value, faults_text(found)


def _claims(histories: int, seed: int) -> Part:
    evidence = in_processes([partial(judge, claim, histories=histories, seed=seed) for claim in CLAIMS])
    return "claims", "", [evidence_json(item) for item in evidence], claims_text(evidence)


def _matrix(name: str, numbers: list[int], run: "partial[Verdict]") -> Part:
    """Each restriction and each pair of them that is no contradiction"""
    rows: list[frozenset[str]] = [frozenset()]
    for count in (1, 2):
        for some in combinations(RESTRICTIONS, count):
            try:
                rows.append(check_restrictions(some))
            except UserError:
                continue
    jobs = [partial(run, name, (number,), row) for row in rows for number in numbers]
    verdicts: list[Verdict] = in_processes(jobs)
    width = len(numbers)
    table = [(", ".join(sorted(row)), verdicts[i * width : (i + 1) * width]) for i, row in enumerate(rows)]
    value = [{"assume": row, "verdicts": [verdict_json(v) for v in found]} for row, found in table]
    return "combinations", name, value, matrix_text(name, numbers, table)
