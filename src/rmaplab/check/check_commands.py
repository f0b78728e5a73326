# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab check`: parse, call, print."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from rmaplab.check.checking import COUNTEREXAMPLE, EXPLORERS, RANDOM, CheckResult, Plan, check_pair, made, retell
from rmaplab.check.jobs import Died, Jobs, Stop
from rmaplab.check.mutant import EXPLORERS as MUTANT_EXPLORERS
from rmaplab.check.mutant import Finding, Mutant, find_mutant
from rmaplab.check.mutants import MUTANTS
from rmaplab.check.replay_string import decode
from rmaplab.check.shrink_world import StoppableBudget
from rmaplab.check.story import Story
from rmaplab.check.world import World, library, load_file
from rmaplab.cli_support import Failure, failures
from rmaplab.designs.registry import design_names
from rmaplab.errors import UserError
from rmaplab.report.check import check_json, check_text, story_json, story_text, worlds_text
from rmaplab.report.mutants import mutants_json, mutants_text
from rmaplab.report.perfetto import perfetto_json
from rmaplab.trace.store import check_target, write_atomically

__all__ = ["check_command"]

BUDGET = 60.0
"""Seconds for each world, if neither --budget nor --executions is given."""
_SHRINK = 30.0

_FILE = click.Path(path_type=Path)


@click.command("check")
@click.argument("designs", nargs=-1, metavar="[DESIGN]...")
@click.option("--world", "worlds", multiple=True, metavar="NAME|FILE", help="World of the library, or all of a file.")
@click.option("--all", "all_designs", is_flag=True, help="Every design that comes with rmaplab.")
@click.option("--explorer", type=click.Choice(list(EXPLORERS)), help="How to look for interleavings.  [default: dpor]")
@click.option("--jobs", type=int, metavar="N", help="Processes at once.  [default: one for each CPU]")
@click.option(
    "--budget", type=float, metavar="SECONDS", help=f"For each world.  [default: {BUDGET:g}, or --executions]"
)
@click.option("--executions", type=int, metavar="N", help="At most so many for each world.")
@click.option("--seed", type=int, metavar="N", help="Of pct and random.  [default: 1]")
@click.option("--mutants", is_flag=True, help="Look for each seeded mistake, with each explorer.")
@click.option("--replay", metavar="STRING", help="Execute a counterexample once more, and show it.")
@click.option("--list", "list_worlds", is_flag=True, help="The worlds of the library, or of --world.")
@click.option("--brief", is_flag=True, help="Verdicts and what was found, without the pictures.")
@click.option("--json", "as_json", is_flag=True, help="JSON (docs/json.md).")
@click.option("--perfetto", type=_FILE, metavar="FILE", help="Write the counterexample for ui.perfetto.dev.")
def check_command(
    designs: tuple[str, ...],
    worlds: tuple[str, ...],
    all_designs: bool,
    explorer: str | None,
    jobs: int | None,
    budget: float | None,
    executions: int | None,
    seed: int | None,
    mutants: bool,
    replay: str | None,
    list_worlds: bool,
    brief: bool,
    as_json: bool,
    perfetto: Path | None,
) -> None:
    """Explore every interleaving of small worlds of concurrent kernel operations (docs/check.md).

    A world is a few processes and pages, and two or three CPUs that each do a few things at once. DESIGN~MUTANT is a
    design with one of the mistakes of --mutants. Exits 1 if a counterexample was found, 130 after Ctrl-C.
    """
    given = {
        "DESIGN": bool(designs),
        "--world": bool(worlds),
        "--all": all_designs,
        "--explorer": explorer is not None,
        "--jobs": jobs is not None,
        "--budget": budget is not None,
        "--executions": executions is not None,
        "--seed": seed is not None,
        "--brief": brief,
        "--json": as_json,
        "--perfetto": perfetto is not None,
    }
    with failures():
        plan = _plan(explorer, budget, executions, seed)
        if jobs is not None and jobs < 1:
            raise UserError(f"--jobs must be 1 or more, not {jobs}")
        workers = jobs or len(os.sched_getaffinity(0))
        modes = [
            name
            for name, on in (("--mutants", mutants), ("--replay", replay is not None), ("--list", list_worlds))
            if on
        ]
        if len(modes) > 1:
            raise UserError(f"{modes[0]} and {modes[1]} exclude each other")
        if list_worlds:
            _only(modes[0], given, ("--world",))
            click.echo(worlds_text(list(_worlds(worlds).values())))
            return
        if replay is not None:
            _only(modes[0], given, ("--json", "--perfetto"))
            _check_target(perfetto)
            _replay(replay, as_json, perfetto)
            return
        if mutants:
            _only(modes[0], given, ("--explorer", "--jobs", "--budget", "--executions", "--seed", "--json"))
            _mutants(plan, explorer, workers, as_json)
            return
        if brief and as_json:
            raise UserError("--brief and --json exclude each other")
        names = _designs(designs, all_designs)
        chosen = _worlds(worlds)
        if perfetto is not None and (len(names) != 1 or len(chosen) != 1):
            raise UserError("--perfetto writes one counterexample: name one design and one --world, or use --replay")
        _check_target(perfetto)
    _check([(name, world) for world in chosen.values() for name in names], plan, workers, as_json, perfetto, brief)


def _plan(explorer: str | None, budget: float | None, executions: int | None, seed: int | None) -> Plan:
    explorer = explorer or "dpor"
    if budget is not None and not 0 < budget < 1e9:
        raise UserError(f"--budget must be more than 0 seconds, not {budget:g}")
    if executions is not None and executions < 1:
        raise UserError(f"--executions must be 1 or more, not {executions}")
    if seed is not None and explorer not in RANDOM:
        raise UserError(f"--seed is for {' and '.join(RANDOM)}; {explorer} leaves nothing to chance")
    if budget is None and executions is None:
        budget = BUDGET
    return Plan(explorer, budget, executions, 1 if seed is None else seed, min(_SHRINK, budget or _SHRINK))


def _only(mode: str, given: dict[str, bool], allowed: tuple[str, ...]) -> None:
    for name, on in given.items():
        if on and name not in allowed:
            raise UserError(f"{mode} and {name} exclude each other")


def _designs(designs: tuple[str, ...], all_designs: bool) -> list[str]:
    if all_designs and designs:
        raise UserError("--all and DESIGN exclude each other")
    if all_designs:
        return design_names(repaired=True)
    if not designs:
        raise UserError(f"name a design, or --all; known are {', '.join(design_names(repaired=True))}")
    for name in designs:
        with made(name):
            pass
    return list(dict.fromkeys(designs))


def _worlds(names: tuple[str, ...]) -> dict[str, World]:
    """By name; a file gives all of its worlds"""
    known = library()
    if not names:
        return known
    found: dict[str, World] = {}
    for name in names:
        if name in known:
            more = {name: known[name]}
        elif "/" in name or name.endswith(".toml") or Path(name).exists():
            more = load_file(Path(name))
        else:
            raise UserError(f"no world {name!r}, and no file of that name; `rmaplab check --list` shows the worlds")
        for key, world in more.items():
            if found.get(key, world) != world:
                raise UserError(f"two worlds are called {key!r}")
            found[key] = world
    return found


def _check_target(path: Path | None) -> None:
    if path is not None:
        check_target(path)


def _write(path: Path, story: Story) -> None:
    text = perfetto_json(story).encode()

    def write(out: Any) -> None:
        out.write(text)

    with failures():
        write_atomically(path, write)
    click.echo(f"rmaplab: wrote {path}", err=True)


@contextmanager
def _progress(names: list[str]) -> Iterator[Callable[[list[int], int], None] | None]:
    """What runs, on a terminal only"""
    if not sys.stderr.isatty():
        yield None
        return
    with Console(stderr=True).status("checking") as status:

        def told(running: list[int], started: int) -> None:
            now = "; ".join(names[number] for number in running)
            status.update(f"{started - len(running)} of {len(names)} done; {now}")

        yield told


# --- check


def _check(
    pairs: list[tuple[str, World]], plan: Plan, workers: int, as_json: bool, perfetto: Path | None, brief: bool
) -> None:
    labels = [f"{name} in {world.name}" for name, world in pairs]
    with _progress(labels) as told:
        jobs: Jobs[CheckResult] = Jobs([partial(check_pair, name, world, plan) for name, world in pairs], workers, told)
        results = jobs.run()
    done: list[CheckResult] = []
    errors: list[str] = []
    for (name, world), result in zip(pairs, results, strict=True):
        if isinstance(result, Died):
            errors.append(f"{name} in world {world.name}: the process ended with status {result.status}")
        elif result is not None and result.bad_world:
            errors.append(result.error)
        elif result is not None:
            done.append(result)
            if result.error:
                errors.append(f"{name} in world {world.name}: error of the model: {result.error}")
    errors = list(dict.fromkeys(errors))
    if as_json and (done or not errors):
        click.echo(json.dumps(check_json(done, jobs.interrupted), indent=2))
    elif done:
        click.echo(check_text(done, brief=brief))
    for result in done:
        if perfetto is not None and result.story is not None:
            _write(perfetto, result.story)
        elif perfetto is not None:
            click.echo(f"rmaplab: no counterexample, so {perfetto} was not written", err=True)
    _leave(errors, jobs.interrupted, len(pairs) - len(done), any(r.verdict == COUNTEREXAMPLE for r in done))


def _leave(errors: list[str], interrupted: bool, missing: int, found: bool) -> None:
    """The exit status; what is wrong with the input or the model comes first"""
    for error in errors[:-1]:
        click.echo(f"rmaplab: {error}", err=True)
    if interrupted:
        more = f"; {missing} not begun" if missing else ""
        click.echo(f"rmaplab: interrupted; the verdicts are those so far{more}", err=True)
    if errors:
        raise Failure(errors[-1])
    sys.exit(130 if interrupted else 1 if found else 0)


# --- replay


def _replay(text: str, as_json: bool, perfetto: Path | None) -> None:
    replay = decode(text, library())
    story = retell(replay, text.strip())
    if as_json:
        click.echo(json.dumps(story_json(story), indent=2))
    else:
        click.echo(f"{replay.design} in world {replay.world.name}\n\n{story_text(story)}")
    if perfetto is not None:
        _write(perfetto, story)
    sys.exit(1 if story.invariant else 0)


# --- mutants


def _mutants(plan: Plan, explorer: str | None, workers: int, as_json: bool) -> None:
    if explorer is not None and explorer not in MUTANT_EXPLORERS:
        raise UserError(f"--mutants is for {', '.join(MUTANT_EXPLORERS)}, not for {explorer}")
    worlds = library()
    wanted = [(mutant, name) for mutant in MUTANTS for name in ([explorer] if explorer else MUTANT_EXPLORERS)]
    labels = [f"{mutant.name} with {name}" for mutant, name in wanted]
    with _progress(labels) as told:
        jobs: Jobs[Finding | str] = Jobs(
            [partial(_find, mutant, worlds[mutant.worlds[0]], name, plan) for mutant, name in wanted], workers, told
        )
        results = jobs.run()
    findings = [result for result in results if isinstance(result, Finding)]
    click.echo(json.dumps(mutants_json(findings), indent=2) if as_json else mutants_text(findings, list(MUTANTS)))
    errors = [
        f"{label}: {f'the process ended with status {result.status}' if isinstance(result, Died) else result}"
        for label, result in zip(labels, results, strict=True)
        if isinstance(result, Died | str)
    ]
    _leave(errors, jobs.interrupted, len(wanted) - len(findings), False)


def _find(mutant: Mutant, world: World, explorer: str, plan: Plan, stop: Stop) -> Finding | str:
    """What cannot be found because the model itself fails is told, and the others go on"""
    try:
        return find_mutant(mutant, world, explorer, StoppableBudget(plan.executions, plan.seconds, stop))
    except Exception as error:
        return f"error of the model: {type(error).__name__}: {error}"
