# SPDX-License-Identifier: GPL-2.0-only
"""The report of `rmaplab check`: the table, and each counterexample as columns CPU0, CPU1, one step a line."""

import re
from collections.abc import Iterator, Sequence
from itertools import groupby
from textwrap import wrap as wrap_columns
from typing import Any

from rmaplab.check.checking import COUNTEREXAMPLE, NO_BUG, PROVED, CheckResult
from rmaplab.check.story import Cpu, Story, StoryStep
from rmaplab.check.violation import INVARIANTS
from rmaplab.check.world import World
from rmaplab.report.text import WIDTH, wrap

__all__ = [
    "check_json",
    "check_text",
    "counterexample_text",
    "picture",
    "ranges",
    "story_json",
    "story_text",
    "worlds_text",
]

_FEW = 3
"""Verdicts that are told in full; of more there is only the table."""


def check_text(results: Sequence[CheckResult], *, brief: bool = False) -> str:
    """The table, and below it each counterexample; brief: what it found, without its picture."""
    lines = [*_table(results), ""]
    if brief:
        lines += _legend(results)
        for result in results:
            if result.story is not None:
                found = f"{result.story.invariant}: {result.story.text}"
                lines += wrap(f"{result.world}, {result.design}: {found}", "  ")
    elif len(results) <= _FEW:
        for result in results:
            lines += wrap(f"{result.world}, {result.design}: {result.sentence()}", "  ")
    else:
        lines += _legend(results)
    lines += wrap("Sequential consistency only: reordering by compilers and CPUs is not explored.")
    for result in results:
        if result.story is not None and not brief:
            lines += ["", "", *counterexample_text(result).splitlines()]
    return "\n".join(lines)


def _table(results: Sequence[CheckResult]) -> list[str]:
    """A row for each design in each world; where both names do not fit, the world stands above its rows"""
    names = WIDTH - len(_numbers("", "", "", ""))
    world = max(len(name) for name in ["world", *(r.world for r in results)]) + 1
    grouped = world + max(len(name) for name in ["design", *(r.design for r in results)]) > names
    head = "world, design" if grouped else f"{'world':<{world}}design"
    lines = [f"{head:<{names}}{_numbers('verdict', 'traces', 'blocked', '/s')}"]
    above = ""
    for r in results:
        if grouped and r.world != above:
            above = r.world
            lines.append(above)
        head = f"  {r.design}" if grouped else f"{r.world:<{world}}{r.design}"
        numbers = _numbers(r.verdict, f"{r.traces:,}", f"{r.blocked:,}", _rate(r))
        lines.append(f"{_cut(head, names):<{names}}{numbers}")
    return lines


def _numbers(verdict: str, traces: str, blocked: str, rate: str) -> str:
    return f" {verdict:<14}{traces:>9}{blocked:>8}{rate:>7}"


def _rate(result: CheckResult) -> str:
    rate = result.rate()
    return f"{rate:,.0f}" if rate >= 9.5 else f"{rate:.1f}" if rate else "-"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "+"


def _legend(results: Sequence[CheckResult]) -> list[str]:
    lines: list[str] = []
    found = {result.verdict for result in results}
    if PROVED in found:
        lines += wrap("PROVED (all N traces of world W): every interleaving, N in the column traces.", "  ")
    if NO_BUG in found:
        ended = {result.ended for result in results if result.verdict == NO_BUG}
        plan = results[0].plan
        why = [f"{plan.seconds:g} s each"] if "seconds" in ended else []
        why += [f"{plan.executions:,} executions each"] if "executions" in ended else []
        why += ["some interrupted"] if "interrupted" in ended else []
        lines += wrap(
            f"NO BUG FOUND (budget): not all interleavings; traces = executions made; budget: {', '.join(why)}.", "  "
        )
    if COUNTEREXAMPLE in found:
        lines += wrap("COUNTEREXAMPLE: below; traces = executions until it was found.", "  ")
    return lines


# --- a counterexample


def counterexample_text(result: CheckResult) -> str:
    """One of a check, with how it was found."""
    found, story = result.counterexample, result.story
    assert found is not None and story is not None
    shrunk = ""
    if found.world != found.original:
        now, then = found.world.operations(), found.original.operations()
        shrunk = f" (shrunk: {now} of {then} operations)" if now != then else " (shrunk)"
    head = wrap(f"{COUNTEREXAMPLE}: {found.invariant}: {found.design} in world {found.original.name}{shrunk}", "  ")
    return "\n".join([*head, "", story_text(story)])


def story_text(story: Story) -> str:
    """An execution: its setup, the columns, what each CPU holds at the end, the state, the violation, the replay."""
    lines = wrap(f"setup: {'; '.join(story.setup) or 'nothing'}", " " * 7)
    if story.steps:
        lines += ["", *picture(story), "", *_at_the_end(story.cpus)]
    if story.state:
        lines += ["", *(line for text in ranges(story.state) for line in wrap(text, "      "))]
    lines.append("")
    if story.invariant:
        where = "" if story.steps else " (in the setup, before any CPU starts)"
        lines += wrap(f"{story.invariant}: {story.text}{where}", "  ")
        lines += wrap(f"  must hold: {INVARIANTS.get(story.invariant, '')}", "    ")
    else:
        lines.append("no violation: this execution is right")
    return "\n".join([*lines, "", *_replay_line(story.replay)])


def ranges(lines: Sequence[str]) -> list[str]:
    """`lines`, with runs that differ only in the page of an entry, each time the next one, as one line.

    >>> ranges(["pte h0: folio1", "pte h1: folio1", "pte h2: folio2"])
    ['pte h0-h1: folio1', 'pte h2: folio2']
    """
    found: list[tuple[tuple[str, ...], int, int]] = []
    for line in lines:
        match = _ENTRY.fullmatch(line)
        if match is None:
            found.append(((line,), 0, 0))
            continue
        rest, page = (match["before"], match["region"], match["after"]), int(match["page"])
        if found and found[-1][0] == rest and found[-1][2] + 1 == page:
            found[-1] = (rest, found[-1][1], page)
        else:
            found.append((rest, page, page))
    return [
        rest[0] if len(rest) == 1 else f"{rest[0]}{_pages(rest[1], first, last)}{rest[2]}"
        for rest, first, last in found
    ]


_ENTRY = re.compile(r"(?P<before>[^\n]*\bpte )(?P<region>[ph])(?P<page>[0-9]+)(?P<after>\b[^\n]*)")


def _pages(region: str, first: int, last: int) -> str:
    return f"{region}{first}" + (f"-{region}{last}" if last > first else "")


def _replay_line(replay: str) -> list[str]:
    """The command; where it is too long, in pieces that a shell puts together"""
    line = f"rmaplab check --replay {replay}"
    if len(line) <= WIDTH:
        return [line]
    pieces = [replay[i : i + WIDTH - 1] for i in range(0, len(replay), WIDTH - 1)]
    return ["rmaplab check --replay \\", *(f"{piece}\\" for piece in pieces[:-1]), pieces[-1]]


def _at_the_end(cpus: Sequence[Cpu]) -> list[str]:
    lines: list[str] = []
    for cpu in cpus:
        where = f"in {cpu.function}(), " if cpu.function else ""
        at = f"{where}{cpu.current!r}" if cpu.current else "done"
        then = f", next: {cpu.next}" if cpu.next else ""
        lines += wrap(f"{cpu.name} {at}{then}", "     ")
        lines += wrap(f"     holds {', '.join(cpu.held) or 'no lock'}", "       ")
    return lines


# --- the columns


def picture(story: Story) -> list[str]:
    """The columns. Steps that nobody else can notice are only counted; none that conflicts with another CPU's is."""
    count = len(story.cpus)
    width = (WIDTH - 3 * (count - 1)) // count
    heads = [f"{cpu.name}" for cpu in story.cpus]
    lines = [_row(heads, width), "-+-".join("-" * width for _ in range(count))]
    shown = _shown(story)
    operation = [""] * count
    for cpu, group in groupby(enumerate(story.steps), key=lambda item: item[1].cpu):
        function = ""
        for matters, run in groupby(group, key=lambda item: (item[0] in shown, item[1].operation)):
            steps = [step for _, step in run]
            if steps[0].operation != operation[cpu]:
                operation[cpu] = steps[0].operation
                lines += _cells(operation[cpu], 0, cpu, count, width)
                function = ""
            if not matters[0]:
                many = f"({len(steps)} step{'s' if len(steps) > 1 else ''} of its own)"
                lines += _cells(many, 4, cpu, count, width)
                continue
            for name, inside in groupby(steps, key=_function):
                if name and name != function:
                    lines += _cells(f"{name}()", 2, cpu, count, width)
                function = name
                for text in _rows(list(inside)):
                    lines += _cells(text, 4, cpu, count, width)
    return lines


def _rows(steps: Sequence[StoryStep]) -> list[str]:
    """Equal steps in one row, and those that go from page to page"""
    rows: list[str] = []
    for told, equal in groupby(map(_told, steps)):
        times = len(list(equal))
        rows += [told[0] + (f" ({times} times)" if times > 1 else ""), *told[1:]]
    return ranges(rows)


def _function(step: StoryStep) -> str:
    return step.functions[0] if step.functions else ""


def _row(cells: Sequence[str], width: int) -> str:
    return " | ".join(f"{cell:<{width}}" for cell in cells).rstrip()


def _cells(text: str, indent: int, cpu: int, count: int, width: int) -> Iterator[str]:
    for piece in wrap_columns(
        text, width, initial_indent=" " * indent, subsequent_indent=" " * (indent + 2), break_on_hyphens=False
    ):
        cells = [""] * count
        cells[cpu] = piece
        yield _row(cells, width)


def _told(step: StoryStep) -> list[str]:
    """A step in a line, what happened inside of it in lines below"""
    failed = "fails" in step.notes or (step.outcome and step.text.startswith("allocate"))
    lines = [f"{step.text}{': fails' if failed else ''}"]
    if step.outcome and not failed:
        lines[0] += f" (outcome {step.outcome})"
    return lines + [f"  {note}" for note in step.notes if note != "fails" and not note.startswith("allocation of")]


def _shown(story: Story) -> set[int]:
    """Numbers of the steps that are shown: those that conflict with another CPU's, the last one of each CPU, those that
    fail, those that take a lock that is held at the end, and those that make or free what the violation names."""
    last = {step.cpu: number for number, step in enumerate(story.steps)}
    shown = set(last.values())
    taken: dict[tuple[int, str], int] = {}
    before: dict[int, tuple[str, ...]] = {}
    for number, step in enumerate(story.steps):
        if step.shared or step.outcome or "fails" in step.notes:
            shown.add(number)
        if any(note.split()[0] in ("new", "free") and note.split()[1].strip(",") in story.text for note in step.notes):
            shown.add(number)
        for lock in step.held:
            if lock not in before.get(step.cpu, ()):
                taken[step.cpu, lock] = number
        before[step.cpu] = step.held
    shown |= {number for (cpu, lock), number in taken.items() if lock in before[cpu]}
    return shown


# --- JSON


def check_json(results: Sequence[CheckResult], interrupted: bool) -> dict[str, Any]:
    """As docs/json.md says."""
    return {
        "memory_model": "sequential consistency",
        "interrupted": interrupted,
        "results": [_result_json(result) for result in results],
    }


def _result_json(result: CheckResult) -> dict[str, Any]:
    found = result.counterexample
    value: dict[str, Any] = {
        "design": result.design,
        "world": result.world,
        "explorer": result.plan.explorer,
        "seed": result.plan.seed,
        "budget_seconds": result.plan.seconds,
        "budget_executions": result.plan.executions,
        "verdict": result.verdict,
        "text": result.sentence(),
        "ended": result.ended,
        "traces": result.traces,
        "blocked": result.blocked,
        "steps": result.steps,
        "seconds": round(result.seconds, 3),
        "error": result.error or None,
        "counterexample": None,
    }
    if found is not None and result.story is not None:
        original = found.original
        value["counterexample"] = {**story_json(result.story), "found_in": _world_json(original)}
    return value


def _world_json(world: World) -> dict[str, Any]:
    return {
        "setup": [operation.text for operation in world.setup],
        "cpus": [[operation.text for operation in operations] for operations in world.cpus],
    }


def story_json(story: Story) -> dict[str, Any]:
    """An execution, as docs/json.md says."""
    return {
        "design": story.design,
        "world": story.world,
        "invariant": story.invariant or None,
        "found": story.text or None,
        "replay": story.replay,
        "setup": list(story.setup),
        "cpus": [
            {
                "name": cpu.name,
                "operations": list(cpu.operations),
                "held": list(cpu.held),
                "operation": cpu.current or None,
                "function": cpu.function or None,
                "next": cpu.next or None,
            }
            for cpu in story.cpus
        ],
        "steps": [
            {
                "cpu": step.cpu,
                "operation": step.operation,
                "functions": list(step.functions),
                "step": step.text,
                "outcome": step.outcome,
                "outcomes": step.outcomes,
                "notes": list(step.notes),
                "footprint": [[place, mode] for place, mode in step.footprint],
                "shared": list(step.shared),
                "held": list(step.held),
            }
            for step in story.steps
        ],
        "state": list(story.state),
    }


# --- the worlds


def worlds_text(worlds: Sequence[World]) -> str:
    """What `--list` prints."""
    lines: list[str] = []
    for world in worlds:
        tied = f" ({', '.join(world.tied)})" if world.tied else ""
        lines += [world.name, *wrap(f"    {world.about}{tied}", "    ")]
        lines += wrap(f"    setup: {'; '.join(map(str, world.setup)) or 'nothing'}", " " * 11)
        for number, operations in enumerate(world.cpus):
            lines += wrap(f"    CPU{number}:  {'; '.join(map(str, operations)) or 'nothing'}", " " * 11)
        options = [f"{key} {value}" for key, value in (("fail", world.fail), ("tryfail", world.tryfail)) if value]
        options += ["reuse"] if world.reuse else []
        options += [f"thp {world.thp}"] if world.thp != "never" else []
        if options:
            lines.append(f"    with:  {', '.join(options)}")
    return "\n".join(lines)
