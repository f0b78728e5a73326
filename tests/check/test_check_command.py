# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab check` as its users see it: verdicts, pictures, replay, exit status; bad input is one line, status 2."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from rmaplab.check import checking, engine, ops
from rmaplab.check.checking import Plan, check_pair
from rmaplab.check.mutant import Finding, Mutant
from rmaplab.check.mutants import MUTANTS
from rmaplab.check.reexecute import NondeterminismError
from rmaplab.check.violation import LOCK_RULE, Violation
from rmaplab.check.world import World, library, load_worlds
from rmaplab.cli import main
from rmaplab.report.check import check_text
from rmaplab.report.mutants import mutants_text
from tests.support.cli import one_line

GOLDEN = Path(__file__).parents[1] / "golden"
DOCS = Path(__file__).parents[2] / "docs" / "json.md"

WORLDS = """
[two-faults]
about = "two first faults in one VMA: who makes the anon_vma?"
tied = ["hook 1"]
setup = ["A: mmap p0 2"]
cpu0 = ["A: write p0"]
cpu1 = ["A: write p1"]

[larger]
about = "the same with much that does not matter"
setup = ["A: mmap p0 4", "A: mmap p8 1", "A: write p8"]
cpu0 = ["A: write p0", "A: read p2"]
cpu1 = ["A: write p1"]
cpu2 = ["referenced A p8"]
fail = 1
"""
MUTANT = "anon_vma~prepare-unlocked"


@pytest.fixture
def worlds(tmp_path: Path) -> str:
    path = tmp_path / "worlds.toml"
    path.write_text(WORLDS)
    return str(path)


@pytest.fixture
def two(tmp_path: Path) -> str:
    """A file with the first world only"""
    path = tmp_path / "two.toml"
    path.write_text(WORLDS.split("[larger]")[0])
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["check", *arguments], prog_name="rmaplab")


def flat(text: str) -> str:
    """In one line"""
    return " ".join(text.split())


def replay_of(text: str) -> str:
    """The string of a picture, whose lines a shell would put together"""
    return text.rpartition("--replay ")[2].replace("\\\n", "").split()[0]


# --- golden


def as_stored(name: str, text: str, request: pytest.FixtureRequest) -> None:
    """Speed is left out: it is another at each run"""
    text = re.sub(r"(?m)(\d{1,3}(?:,\d{3})* +\d{1,3}(?:,\d{3})*) +[\d.,]+$", r"\1   rate", text)
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("--accept-golden"):
        path.write_text(text)
    assert path.exists() and path.read_text() == text, "differs; `pytest tests/check --accept-golden` accepts it"
    assert [line for line in text.splitlines() if len(line) > 75 or line != line.rstrip()] == []


def test_proved(two: str, request: pytest.FixtureRequest) -> None:
    result = run("anon_vma", "--world", two)
    assert result.exit_code == 0
    as_stored("check-proved", result.stdout, request)
    assert re.search(r"PROVED \(all [0-9,]+ traces of world two-faults\)", result.stdout)
    assert "equential consistency only" in result.stdout


def test_counterexample_and_replay(two: str, request: pytest.FixtureRequest) -> None:
    result = run(MUTANT, "--world", two)
    assert result.exit_code == 1
    as_stored("check-counterexample", result.stdout, request)
    again = run("--replay", replay_of(result.stdout))
    assert again.exit_code == 1
    as_stored("check-replay", again.stdout, request)
    told = result.stdout.partition("setup:")[2]
    assert told.strip() == again.stdout.partition("setup:")[2].strip(), "the replay tells another story"


# --- shrinking and replay


def test_shrinking_takes_away_what_does_not_matter(worlds: str) -> None:
    """Three CPUs and ten operations: the mistake needs two CPUs, one mapping and two stores."""
    world = load_worlds(WORLDS, "test")["larger"]
    result = check_pair(MUTANT, world, Plan(seconds=30, shrink_seconds=40))
    found = result.counterexample
    assert found is not None and result.story is not None, result
    assert found.invariant == "lock-rule"
    assert found.world.operations() == 3
    assert len(found.world.cpus) == 2
    assert found.world.fail == 0
    assert str(found.world.setup[0]) in ("A: mmap p0 2", "A: mmap p0 3")
    switches = sum(1 for a, b in zip(found.choices, found.choices[1:], strict=False) if a[0] != b[0])
    assert switches <= 2
    again = run("--replay", found.replay)
    assert again.exit_code == 1 and f"lock-rule: {result.story.text}"[:60] in again.stdout


@pytest.mark.parametrize("explorer", ["pct", "random"])
def test_chance_proves_nothing(two: str, explorer: str) -> None:
    result = run("anon_vma", "--world", two, "--explorer", explorer, "--executions", "20", "--seed", "3")
    assert result.exit_code == 0
    assert "PROVED" not in result.stdout
    assert "NO BUG FOUND (budget): 20 executions; its budget was 20 executions" in flat(result.stdout)


@pytest.mark.parametrize(
    ("options", "word"), [(["--executions", "5"], "5 executions"), (["--budget", "0.001"], "budget was 0.001 s")]
)
def test_a_bound_proves_nothing(two: str, options: list[str], word: str) -> None:
    result = run("anon_vma", "--world", two, *options)
    assert result.exit_code == 0
    assert (
        "PROVED" not in result.stdout and "NO BUG FOUND (budget)" in flat(result.stdout) and word in flat(result.stdout)
    )


def test_many_worlds_have_a_legend(worlds: str) -> None:
    result = run("anon_vma", MUTANT, "--world", worlds, "--executions", "3", "--jobs", "1")
    assert "NO BUG FOUND (budget): not all interleavings" in result.stdout
    assert "3 executions each" in flat(result.stdout)


def test_interrupted_jobs_say_so() -> None:
    """After Ctrl-C the verdicts so far, none of them a proof."""
    world = load_worlds(WORLDS, "test")["two-faults"]
    result = check_pair("anon_vma", world, Plan(), lambda: True)
    assert result.verdict == "NO BUG FOUND" and result.ended == "interrupted"
    assert "interrupted after 0 executions" in check_text([result])


# --- errors of the model


def test_nondeterminism_is_an_error_of_the_model(two: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that the choices do not control must not pass for a verdict."""
    times = [0]
    original = ops.Machine._write

    def moody(self: Any, mm: Any, vpn: int, *words: str) -> None:
        times[0] += 1
        original(self, mm, vpn, *words)
        if times[0] % 7 == 0:
            original(self, mm, vpn, *words)

    monkeypatch.setattr(ops.Machine, "_write", moody)
    world = load_worlds(WORLDS, "test")["two-faults"]
    result = check_pair("anon_vma", world, Plan(every=1))
    assert result.verdict == "MODEL ERROR" and result.error.startswith("nondeterminism: ")


def test_a_failing_model_is_told(two: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise NondeterminismError("step 3 is 'a', then 'b'")

    monkeypatch.setattr(checking, "_check", fail)
    result = run("anon_vma", "--world", two)
    assert result.exit_code == 2
    assert "MODEL ERROR" in result.stdout
    assert result.stderr.splitlines() == [
        "rmaplab: anon_vma in world two-faults: error of the model: nondeterminism: step 3 is 'a', then 'b'"
    ]


def test_a_job_that_dies_is_told(two: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checking, "_check", lambda *arguments: os._exit(9))
    one_line(run("anon_vma", "--world", two), "anon_vma in world two-faults", "status 9")


# --- bad input


def test_unknown_names_list_the_known(tmp_path: Path) -> None:
    one_line(run("lazy"), "'lazy'", "anon_vma_lazy", "cow_context")
    one_line(run("anon_vma~no-such"), "no-such", MUTANTS[0].name)
    one_line(run("gki", "--world", "no-such"), "'no-such'", "--list")
    one_line(run("gki", "--world", "no/such.toml"), "no/such.toml")
    one_line(run(), "name a design", "anon_vma_lazy")
    assert run("gki", "--explorer", "bfs").exit_code == 2


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[w]\nsetup = [1]", "needs cpu0 and cpu1"),
        ("[w]\ncpu0 = ['A: jump p0']\ncpu1 = []", "unknown operation 'jump'"),
        ("[w]\ncpu0 = ['A: write']\ncpu1 = []", "a page is missing"),
        ("[w]\ncpu0 = ['A: exit']\ncpu1 = []\nfial = 1", "unknown key 'fial'"),
        ("w = 1", "not a table"),
        ("[w", "no TOML"),
        ("", "no worlds"),
    ],
)
def test_bad_world_files(tmp_path: Path, text: str, word: str) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    one_line(run("gki", "--world", str(path)), word)


def test_bad_numbers(two: str) -> None:
    for budget in ("0", "-1", "nan", "inf"):
        one_line(run("gki", "--budget", budget), "--budget", "more than 0")
    one_line(run("gki", "--executions", "0"), "--executions", "1 or more")
    one_line(run("gki", "--jobs", "0"), "--jobs", "1 or more")
    one_line(run("gki", "--jobs", "-2"), "--jobs", "1 or more")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["gki", "--all"], ["--all", "DESIGN"]),
        (["gki", "--seed", "3"], ["--seed", "pct"]),
        (["gki", "--explorer", "dfs", "--seed", "3"], ["--seed", "pct"]),
        (["gki", "--mutants"], ["--mutants", "DESIGN"]),
        (["--mutants", "--world", "reclaim-fork"], ["--mutants", "--world"]),
        (["--mutants", "--explorer", "dfs"], ["--mutants", "dpor"]),
        (["--mutants", "--list"], ["--mutants", "--list"]),
        (["--replay", "rmaplab1:x", "--budget", "3"], ["--replay", "--budget"]),
        (["gki", "--replay", "rmaplab1:x"], ["--replay", "DESIGN"]),
        (["--list", "--json"], ["--list", "--json"]),
        (["gki", "--perfetto", "x.json"], ["--perfetto", "one --world"]),
    ],
)
def test_contradictory_options(options: list[str], words: list[str]) -> None:
    one_line(run(*options), *words)


def test_two_worlds_of_one_name(worlds: str, tmp_path: Path) -> None:
    other = tmp_path / "other.toml"
    other.write_text(WORLDS.replace("mmap p0 2", "mmap p0 3"))
    one_line(run("gki", "--world", worlds, "--world", str(other)), "'two-faults'")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("hello", "no replay string"),
        ("rmaplab9:gki:reclaim-fork:000000:0", "version 9"),
        ("rmaplab1:gki:no-such:000000:0", "no-such"),
        ("rmaplab1:gki:reclaim-fork:000000:0", "digest"),
        ("rmaplab1:lazy:w=A.mmap.p0.1/A.exit:{}:0", "no design 'lazy'"),
        ("rmaplab1:gki:w=A.mmap.p0.1/A.exit:{}:1", "names CPU1"),
        ("rmaplab1:gki:w=A.mmap.p0.1/A.exit:{}:0.7", "outcome 7"),
        ("rmaplab1:gki:w=A.mmap.p0.1/A.exit:{}:0", "goes on"),
        ("rmaplab1:gki:w=A.mmap.p0.1/A.exit:{}:0x900", "has ended"),
    ],
)
def test_bad_replay_strings(text: str, word: str) -> None:
    from rmaplab.check.replay_string import digest

    world = load_worlds("[w]\nsetup = ['A: mmap p0 1']\ncpu0 = ['A: exit']\ncpu1 = []", "test")["w"]
    alone = World("w", "", (), world.setup, world.cpus[:1])
    one_line(run("--replay", text.format(digest(alone))), word)


def test_a_world_whose_setup_fails(two: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Any, *arguments: Any) -> None:
        raise Violation(LOCK_RULE, "on purpose")

    monkeypatch.setattr(ops.Machine, "_mmap", fail)
    one_line(run("gki", "--world", two), "two-faults", "setup fails", "on purpose")


def test_a_world_that_deadlocks_by_itself(two: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A CPU that ends with a lock which the next one wants"""

    def keep(self: Any, mm: Any, *arguments: Any) -> None:
        self.kernel.locks.mmap_write(mm)

    monkeypatch.setattr(ops.Machine, "_write", keep)
    one_line(run("gki", "--world", two), "two-faults", "deadlocks by itself", "one after another")


def test_a_world_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "STEPS", 200)
    path = tmp_path / "long.toml"
    forks = ", ".join(["'A: fork B', 'B: exit'"] * 10)
    path.write_text(f"[long]\nsetup = ['A: mmap p0 1', 'A: write p0']\ncpu0 = [{forks}]\ncpu1 = []")
    one_line(run("gki", "--world", str(path)), "'long'", "does not end", "200 steps")


# --- files, JSON, the list


def test_perfetto(two: str, tmp_path: Path) -> None:
    """What a viewer needs: times that go up on each track, slices that are closed, the violation."""
    path = tmp_path / "story.json"
    result = run(MUTANT, "--world", two, "--perfetto", str(path))
    assert result.exit_code == 1
    events = json.loads(path.read_text())["traceEvents"]
    assert {event["ph"] for event in events} == {"M", "B", "E", "X", "i"}
    for cpu in (0, 1):
        depth, before = 0, 0
        for event in (event for event in events if event["tid"] == cpu and event["ph"] != "M"):
            assert event["ts"] >= before
            before = event["ts"]
            depth += {"B": 1, "E": -1}.get(event["ph"], 0)
            assert depth >= 0
        assert depth == 0
    (violation,) = [event for event in events if event["ph"] == "i"]
    assert violation["name"] == "lock-rule"
    assert any("footprint" in event.get("args", {}) for event in events)


def test_perfetto_files(two: str, tmp_path: Path) -> None:
    """A file that cannot be written is told before anything runs; without a counterexample there is none."""
    one_line(run("gki", "--world", two, "--perfetto", str(tmp_path)), "directory")
    one_line(run("gki", "--world", two, "--perfetto", str(tmp_path / "no" / "x.json")), "no directory")
    path = tmp_path / "x.json"
    result = run("anon_vma", "--world", two, "--perfetto", str(path), "--executions", "2")
    assert result.exit_code == 0 and "not written" in result.stderr and not path.exists()


def documented(section: str, start: str = "") -> set[str]:
    """The keys in the first cells of a section's table, or of the paragraph that starts so"""
    text = DOCS.read_text().split(f"## `{section}`")[1].split("\n## ")[0]
    if start:
        paragraph = (text + "\n\n").split(start)[1].split("\n\n")[0]
        return set(re.findall(r"`([a-z_]+)`", re.sub(r"\([^)]*\)", "", paragraph)))
    return {key for row in re.findall(r"^\| (`[^|]*) \|", text, re.M) for key in re.findall(r"`([a-z_]+)`", row)}


def test_json(two: str) -> None:
    """A key that docs/json.md does not know, or one that it promises and that is missing."""
    result = run(MUTANT, "--world", two, "--json")
    assert result.exit_code == 1
    value = json.loads(result.stdout)
    section = "rmaplab check --json"
    assert set(value) == documented(section)
    (one,) = value["results"]
    assert set(one) == documented(section, "A result:")
    story = one["counterexample"]
    assert set(story) == documented(section, "A counterexample:")
    assert set(story["cpus"][0]) == documented(section, "One of `cpus`:")
    assert set(story["steps"][0]) == documented(section, "One of `steps`:")
    replayed = run("--replay", story["replay"], "--json")
    assert json.loads(replayed.stdout) == {key: value for key, value in story.items() if key != "found_in"}


def test_list() -> None:
    result = run("--list")
    assert result.exit_code == 0
    for world in library().values():
        assert f"\n{world.name}\n" in f"\n{result.stdout}"
    assert [line for line in result.stdout.splitlines() if len(line) > 75] == []


def test_json_of_mutants() -> None:
    """The table's figures; a mutant that no explorer was sent after."""
    result = run("--mutants", "--explorer", "dpor", "--executions", "1", "--budget", "2", "--json")
    assert result.exit_code == 0, result.stderr
    value = json.loads(result.stdout)
    assert set(value) == documented("rmaplab check --mutants --json")
    assert [finding["mutant"] for finding in value["findings"]] == [mutant.name for mutant in MUTANTS]
    assert set(value["findings"][0]) == documented("rmaplab check --mutants --json", "A finding:")


def test_table_of_mutants() -> None:
    """Lines that a mail would break; a mutant without its row, or without its explanation."""

    def finding(mutant: Mutant, explorer: str, executions: int) -> Finding:
        invariant = "walk-misses-pte" if executions else ""
        return Finding(
            mutant.name, mutant.design, "", "w", explorer, executions or 999, 1.0, False, invariant, "x", (12, 13)
        )

    found = [finding(m, e, n) for m in MUTANTS for e, n in (("dpor", 1234), ("pct", 0), ("random", 7))]
    text = mutants_text(found, MUTANTS)
    assert [line for line in text.splitlines() if len(line) > 75] == []
    for mutant in MUTANTS:
        (row,) = [line for line in text.splitlines() if line.startswith(f"{mutant.name} ")]
        assert row.split()[1:] == ["walk-misses-pte", "1,234", "-", "7", "12+13"]
    assert f"{len(MUTANTS)} of {len(found)} not found" in text


@pytest.mark.parametrize("whole_group", [False, True])
def test_ctrl_c_gives_the_verdicts_so_far(two: str, tmp_path: Path, whole_group: bool) -> None:
    """A terminal signals all processes, `kill` only one; a job that goes on, a traceback, a proof of half a world."""
    big = tmp_path / "big.toml"
    writes = ", ".join(f"'A: write p{i}', 'A: munmap p{i} 1'" for i in range(4))
    big.write_text(f"[big]\nsetup = ['A: mmap p0 8']\ncpu0 = [{writes}]\ncpu1 = [{writes}]\ncpu2 = [{writes}]")
    command = [sys.executable, "-m", "rmaplab", "check", "anon_vma", "--world", two, "--world", str(big), "--jobs", "1"]
    command += ["--explorer", "random", "--budget", "300"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as process:
        time.sleep(4)
        if whole_group:
            os.killpg(process.pid, signal.SIGINT)
        else:
            process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "interrupted after" in flat(out) and "PROVED" not in out
    assert err.splitlines() == ["rmaplab: interrupted; the verdicts are those so far; 1 not begun"]


def test_a_lock_order_that_no_single_execution_shows(two: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is first takes two locks, each CPU in its own order: the cycle needs what another execution has shown,
    and so does its replay."""

    def take(self: Any, mm: Any, vpn: int, *words: str) -> None:
        run, locks = self.kernel.run, self.kernel.locks
        if run.task is None:
            return
        run.write(mm, "flag")
        if getattr(self, "first", None) is not None:
            return
        self.first = run.task
        kinds = ("folio", "anon_vma") if vpn & 1 else ("anon_vma", "folio")
        one, other = (locks._lock(kind, "x") for kind in kinds)
        with locks._acquire(one, True), locks._acquire(other, True):
            pass

    monkeypatch.setattr(ops.Machine, "_write", take)
    result = run("gki", "--world", two)
    assert result.exit_code == 1, result.stdout
    replay = replay_of(result.stdout)
    assert replay.count(":") == 5 and replay.endswith((":anon_vma.folio", ":folio.anon_vma"))
    again = run("--replay", replay)
    assert again.exit_code == 1 and "lock-order: CPU" in again.stdout
    assert run("--replay", replay.rpartition(":")[0]).exit_code != 1
