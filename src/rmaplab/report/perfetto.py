# SPDX-License-Identifier: GPL-2.0-only
"""A counterexample as a Chrome trace (the JSON array format of trace events), which ui.perfetto.dev opens: one track a
CPU, a step every microsecond; operations, locks and steps as nested slices, the violation as an instant event."""

import json
from typing import Any

from rmaplab.check.story import Story

__all__ = ["perfetto_json"]

_STEP = 1  # microseconds


def perfetto_json(story: Story) -> str:
    """The text of the file."""
    events: list[dict[str, Any]] = [_name("process_name", 0, f"{story.design}, world {story.world}")]
    for number, cpu in enumerate(story.cpus):
        events.append(_name("thread_name", number, cpu.name))
    open_slices: list[list[str]] = [[] for _ in story.cpus]  # of each CPU: its operation, then its locks
    for at, step in enumerate(story.steps):
        _change(events, open_slices[step.cpu], [step.operation], step.cpu, at, only_outermost=True)
        args = {
            "functions": list(step.functions),
            "footprint": {place: mode for place, mode in step.footprint},
            "shared": list(step.shared),
            "notes": list(step.notes),
            "outcome": step.outcome,
        }
        events.append({**_event("X", step.text, step.cpu, at), "dur": _STEP, "args": args})
        _change(events, open_slices[step.cpu], [step.operation, *step.held], step.cpu, at + _STEP)
    end = len(story.steps)
    last = story.steps[-1].cpu if story.steps else 0
    if story.invariant:
        args = {"violation": story.text, "replay": story.replay}
        events.append({**_event("i", story.invariant, last, end), "s": "g", "args": args})
    for number, slices in enumerate(open_slices):
        events += [_event("E", name, number, end + 1) for name in reversed(slices)]
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns"}, indent=1) + "\n"


def _event(phase: str, name: str, cpu: int, at: int) -> dict[str, Any]:
    return {"ph": phase, "name": name, "pid": 0, "tid": cpu, "ts": at}


def _name(of: str, cpu: int, name: str) -> dict[str, Any]:
    return {**_event("M", of, cpu, 0), "args": {"name": name}}


def _change(
    events: list[dict[str, Any]], now: list[str], then: list[str], cpu: int, at: int, only_outermost: bool = False
) -> None:
    """Close and open slices, so that they stay nested also where locks are let go in another order than taken"""
    if only_outermost and now[:1] == then:
        return
    same = 0
    while same < min(len(now), len(then)) and now[same] == then[same]:
        same += 1
    locks = now[1:] if only_outermost else []
    for name in reversed(now[same:]):
        events.append(_event("E", name, cpu, at))
    del now[same:]
    for name in [*then[same:], *locks]:
        events.append(_event("B", name, cpu, at))
        now.append(name)
