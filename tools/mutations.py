# SPDX-License-Identifier: GPL-2.0-only
"""Remove each rule of the model in turn, and write down which recording notices: docs/mutations.md.

    python tools/mutations.py            # the whole table
    python tools/mutations.py --check    # only say which rules the list in tests/replay/mutations.py gets wrong

Recordings are tried in a fixed order: the bundled ones, then the hand-made ones.
"""

import signal
import sys
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rmaplab.trace.schema import Trace  # noqa: E402
from tests.replay.cases import CASES  # noqa: E402
from tests.replay.mutations import MUTATIONS, Mutation, Outcome, replay_mutated  # noqa: E402
from tests.replay.recordings import bundled  # noqa: E402

BUNDLED = ("random", "threads", "redis", "multiprocessing", "build", "postgresql", "chromium")
SECONDS = 60


class _NeverEnds(BaseException):
    pass


@contextmanager
def _limit():
    def ring(*_):
        raise _NeverEnds

    signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)


@cache
def _trace(name: str) -> Trace:
    kind, _, rest = name.rpartition(": ")
    if kind == "hand":
        return CASES[rest]().trace
    return bundled(rest)


def _names() -> list[str]:
    return [*BUNDLED, *(f"hand: {name}" for name in CASES)]


def _first(number: int) -> tuple[str, Outcome]:
    """The first recording that notices, and what it says."""
    mutation: Mutation = MUTATIONS[number]
    names = _names()
    while names:
        name = names.pop(0)
        trace = _trace(name)
        try:
            with _limit():
                outcome = replay_mutated(mutation, trace)
        except _NeverEnds:
            # an overlap in the tree may keep a loop from ending; a short recording says more
            names = [name for name in names if name.startswith("hand: ")]
            continue
        if outcome.killed:
            return name, outcome
    return "", Outcome()


def _said(outcome: Outcome) -> str:
    if outcome.error:
        return f"the replay breaks: {outcome.error}"
    parts = []
    if outcome.operations:
        parts.append(f"{outcome.operations} operations")
    if outcome.points:
        parts.append(f"{outcome.points} counts")
    if outcome.ranges:
        parts.append(f"{outcome.ranges} ranges")
    if outcome.problems:
        parts.append(f"{outcome.problems} rows not applied")
    return ", ".join(parts)


def main() -> int:
    with ProcessPoolExecutor(2) as pool:
        found = list(pool.map(_first, range(len(MUTATIONS))))
    wrong = [(m, name) for m, (name, _) in zip(MUTATIONS, found, strict=True) if m.killed_by != name]
    for mutation, name in wrong:
        print(f"{mutation.rule!r}: the list says {mutation.killed_by!r}, found {name!r}")
    if "--check" in sys.argv:
        return bool(wrong)
    by_hand = sum(name.startswith("hand: ") for name, _ in found)
    missed = sum(not name for name, _ in found)
    lines = [
        "# Which recording notices the loss of which rule",
        "",
        "Each rule of the model was removed alone, and the recordings were replayed in a fixed order until one was not",
        "exact any more: the bundled ones, then hand-made ones (tests/replay/cases.py), whose slab events follow from",
        "the kernel's source. Made with",
        "",
        "    python tools/mutations.py",
        "",
        "*operations*: that differ from the kernel's own allocations and frees; *counts*: instants with nothing in",
        "progress at which live objects differ; *ranges*: mmap calls whose merged VMA differs from the MMAP2 record.",
        "",
        f"{len(MUTATIONS)} rules, {len(MUTATIONS) - by_hand - missed} noticed by a recording of a real run, {by_hand} "
        f"by a hand-made one only, {missed} by none.",
        "",
        "| rule | first recording | what differs |",
        "|---|---|---|",
    ]
    for mutation, (name, outcome) in zip(MUTATIONS, found, strict=True):
        lines.append(f"| {mutation.rule} | {name or '**none**'} | {_said(outcome)} |")
    lines += [
        "",
        "Two rules have no slab event to show them, in any recording; tests/replay/test_mutations.py holds them:",
        "that an anon_vma that a walk pinned goes before the root that it keeps (put_anon_vma), and that a write below",
        "a stack maps its page once the stack has grown.",
    ]
    (ROOT / "docs" / "mutations.md").write_text("\n".join(lines) + "\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
