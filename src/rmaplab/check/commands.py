# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab hooks`: parse, call, print."""

import json
from functools import partial
from itertools import combinations

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
from rmaplab.check.faults import FAULTS, Found, find_fault
from rmaplab.cli_support import busy, failures
from rmaplab.designs.registry import design_names, make_design
from rmaplab.errors import UserError
from rmaplab.replay.run import in_processes, no_gc
from rmaplab.report.hooks import (
    claims_text,
    evidence_json,
    faults_text,
    hooks_text,
    matrix_text,
    sets_text,
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
    claims: bool,
    as_json: bool,
) -> None:
    """Take each hook out of each design, and print what breaks: a short history of system calls, or nothing."""
    with failures():
        if histories < 1:
            raise UserError(f"--histories must be 1 or more, not {histories}")
        restrictions = check_restrictions(_split(assume))
        names = list(designs) or design_names()
        hooks = {name: _numbers(name, asked) for name in names}
    run = partial(ablate, histories=histories, seed=seed)
    result: dict[str, object] = {"histories": histories, "seed": seed, "assume": sorted(restrictions)}
    texts: list[str] = []
    with busy("running histories"), no_gc():
        tables = []
        for name in names:
            jobs = [partial(run, name, (), restrictions)]
            jobs += [partial(run, name, (number,), restrictions) for number in hooks[name]]
            baseline, *verdicts = in_processes(jobs)
            texts.append(hooks_text(name, sorted(restrictions), baseline, verdicts))
            tables.append({"all_hooks": verdict_json(baseline), "dropped": [verdict_json(v) for v in verdicts]})
        result["designs"] = dict(zip(names, tables, strict=True))
        if combine:
            for name in names:
                texts.append(_matrix(name, hooks[name], run))
        if sets:
            found = in_processes(
                [
                    partial(smallest_set, name, _split((rule,)), histories=histories, seed=seed)
                    for name in names
                    for rule in _SETS
                ]
            )
            for i, name in enumerate(names):
                rows = [(rule, *found[i * len(_SETS) + k], histories) for k, rule in enumerate(_SETS)]
                texts.append(sets_text(name, rows))
                result.setdefault("sets", {})[name] = {r[0] or "nothing": r[1] for r in rows}  # type: ignore[index]
        if faults:
            found_faults: list[Found] = in_processes(
                [partial(find_fault, name, fault, histories=histories, seed=seed) for name in names for fault in FAULTS]
            )
            texts.append(faults_text(found_faults))
            result["faults"] = [
                {
                    "design": item.design,
                    "hook": item.fault.number,
                    "fault": item.fault.text,
                    "histories": item.histories,
                    "calls": len(item.failure.history) if item.failure else None,
                }
                for item in found_faults
            ]
        if claims:
            evidence = in_processes([partial(judge, claim, histories=histories, seed=seed) for claim in CLAIMS])
            texts.append(claims_text(evidence))
            result["claims"] = [evidence_json(item) for item in evidence]
    click.echo(json.dumps(result, indent=2) if as_json else "\n\n".join(texts))


def _matrix(name: str, numbers: list[int], run: "partial[Verdict]") -> str:
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
    return matrix_text(name, numbers, table)
