# SPDX-License-Identifier: GPL-2.0-only
"""The columns of a counterexample, the table, and the Chrome trace, from stories that are made up."""

import json
import re
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from rmaplab.check.checking import COUNTEREXAMPLE, NO_BUG, PROVED, CheckResult, Plan
from rmaplab.check.story import Cpu, Story, StoryStep
from rmaplab.report.check import check_text, picture, ranges, story_text
from rmaplab.report.perfetto import perfetto_json
from rmaplab.report.text import WIDTH

words = st.sampled_from(
    ["lock folio1", "read vma12.anon_vma", "page_vma_mapped_walk_of_a_long_name", "unlock mmap_lock A"]
)
locks = st.lists(st.sampled_from(["mmap_lock of A", "folio lock of folio1", "rmap lock of anon_vma1"]), unique=True)


def step(cpu: int, number: int, text: str, shared: bool, held: tuple[str, ...], outcome: int) -> StoryStep:
    place = ("folio1.counts", "write")
    return StoryStep(
        cpu,
        f"A: write p{number % 2}",
        ("do_anonymous_page", "handle_mm_fault") if number % 3 else (),
        f"{text} #{number}",
        outcome,
        2,
        (f"free vma{number}",) if number % 5 == 0 else (),
        (place,),
        (place[0],) if shared else (),
        held,
    )


@st.composite
def stories(draw: st.DrawFn) -> Story:
    count = draw(st.integers(1, 3))
    moves = draw(
        st.lists(st.tuples(st.integers(0, count - 1), words, st.booleans(), locks, st.integers(0, 1)), max_size=25)
    )
    steps = tuple(
        step(cpu, number, text, shared, tuple(held), outcome)
        for number, (cpu, text, shared, held, outcome) in enumerate(moves)
    )
    cpus = tuple(Cpu(f"CPU{i}", ("A: write p0",), (), "", "", "") for i in range(count))
    return Story(
        "gki", "w", ("A: mmap p0 1",), cpus, steps, ("process A",), "leak", "vma5 is left", "rmaplab1:" + "x" * 200
    )


@given(stories())
def test_pictures(story: Story) -> None:
    """A line that a mail breaks; a step that conflicts, fails or is the last of its CPU, and is not shown; steps in
    another order, or in another CPU's column."""
    lines = picture(story)
    assert [line for line in story_text(story).splitlines() if len(line) > WIDTH or line != line.rstrip()] == []
    columns = [[line.ljust(WIDTH)[i:j] for line in lines] for i, j in _columns(len(story.cpus))]
    flat = [" ".join(" ".join(column).split()) for column in columns]
    packed = [text.replace(" ", "") for text in flat]  # a word may be too long for its column
    last = {step.cpu: number for number, step in enumerate(story.steps)}
    place = [0] * len(story.cpus)
    for number, one in enumerate(story.steps):
        if one.shared or one.outcome or last[one.cpu] == number:
            at = packed[one.cpu].find(one.text.replace(" ", ""), place[one.cpu])
            assert at >= 0, (one, lines)
            place[one.cpu] = at
        for other in range(len(story.cpus)):
            assert other == one.cpu or not re.search(rf"#{number}(?![0-9])", flat[other])
    hidden = sum(int(n) for column in flat for n in re.findall(r"\((\d+) steps? of its own\)", column))
    shown = sum(1 for column in flat for _ in re.findall(r"#\d+", column))
    assert hidden + shown == len(story.steps)


def _columns(count: int) -> list[tuple[int, int]]:
    width = (WIDTH - 3 * (count - 1)) // count
    return [(i * (width + 3), i * (width + 3) + width) for i in range(count)]


@given(stories())
def test_replay_lines_are_what_a_shell_puts_together(story: Story) -> None:
    text = story_text(story)
    command = text[text.rindex("rmaplab check --replay") :].replace("\\\n", "")
    assert command == f"rmaplab check --replay {story.replay}"


@given(stories())
def test_chrome_traces(story: Story) -> None:
    """Slices that overlap without being nested, or stay open: a viewer would draw nonsense."""
    events = json.loads(perfetto_json(story))["traceEvents"]
    for cpu in range(len(story.cpus)):
        stack: list[str] = []
        time = 0
        for event in (event for event in events if event["tid"] == cpu):
            assert event["ts"] >= time
            time = event["ts"]
            if event["ph"] == "B":
                stack.append(event["name"])
            elif event["ph"] == "E":
                assert stack.pop() == event["name"]
        assert stack == []
    assert sum(1 for event in events if event["ph"] == "X") == len(story.steps)


def result(design: str, world: str, verdict: str, ended: str, traces: int) -> CheckResult:
    return CheckResult(design, world, Plan(seconds=60), verdict, traces, traces // 3, 9, 7.0, ended, traces)


def test_brief_tells_what_was_found() -> None:
    """A counterexample of which one only sees that there is one; a picture all the same."""
    story = Story("gki", "w", (), (), (), (), "leak", "vma5 is left", "rmaplab1:x")
    results = [
        CheckResult("gki", "w", Plan(), COUNTEREXAMPLE, 1, story=story),
        *(CheckResult("gki", f"w{i}", Plan(), PROVED, 1, proved=1) for i in range(4)),
    ]
    for few in (results, results[:1]):
        text = check_text(few, brief=True)
        assert "w, gki: leak: vma5 is left\n" in text
        assert "rmaplab1:x" not in text


def test_tables() -> None:
    """Names that do not fit, or are cut; figures that run into each other."""
    short = [result("gki", "reclaim-fork", PROVED, "complete", 1234567)]
    text = check_text(short)
    assert "1,234,567" in text and "PROVED (all 1,234,567 traces of world reclaim-fork)" in text
    long = [
        result(design, world, verdict, ended, 12)
        for world in ("reclaim-group-unmapped", "faults-same-vma")
        for design in ("anon_vma_lazy_locked", "gki")
        for verdict, ended in ((PROVED, "complete"), (NO_BUG, "seconds"), (COUNTEREXAMPLE, "violation"))
    ]
    text = check_text(long)
    assert [line for line in text.splitlines() if len(line) > WIDTH] == []
    assert text.count("anon_vma_lazy_locked ") == 6 and text.count("\nreclaim-group-unmapped\n") == 1
    assert "budget: 60 s each" in text


def _entries(values: list[int], before: str, after: str) -> list[str]:
    return [f"{before}pte h{number}{after}{value}" for number, value in enumerate(values)]


@given(st.lists(st.integers(0, 2), max_size=30), st.sampled_from([("  ", ": folio"), ("read A ", " of A, folio")]))
def test_ranges_say_what_the_lines_said(values: list[int], words: tuple[str, str]) -> None:
    """An entry that is lost, doubled or changed; a range that could be longer."""
    lines = _entries(values, *words)
    told = ranges(["process A", *lines, "folio1: mapcount 1, index h0"])
    assert (told[0], told[-1]) == ("process A", "folio1: mapcount 1, index h0")
    back = []
    for line in told[1:-1]:
        found = re.search(r"pte h([0-9]+)(?:-h([0-9]+))?", line)
        assert found is not None
        back += [line.replace(found[0], f"pte h{page}") for page in range(int(found[1]), int(found[2] or found[1]) + 1)]
    assert back == lines
    assert len(told) - 2 == sum(1 for number, value in enumerate(values) if values[number - 1 : number] != [value])


def test_a_step_on_each_page_of_a_large_folio_is_one_row() -> None:
    """512 rows of a picture, and 512 entries of the state, for one large folio."""
    steps = tuple(step(number // 600, 1, "", True, (), 0) for number in range(700))
    numbered = tuple(
        replace(one, functions=("f",), text=f"read A pte h{number % 600}", outcome=0, operation="reclaim A h0")
        for number, one in enumerate(steps)
    )
    cpus = tuple(Cpu(f"CPU{i}", (), (), "", "", "") for i in range(2))
    state = ("process A", *(f"  pte h{number}: folio1, writable" for number in range(512)))
    text = story_text(Story("gki", "w", (), cpus, numbered, state, "leak", "vma5 is left", "rmaplab1:x"))
    assert "\n  pte h0-h511: folio1, writable\n" in text
    assert next(line for line in text.splitlines() if "pte h" in line).split("|")[0].strip() == "read A pte h0-h599"
    assert text.count("pte h") == 3
