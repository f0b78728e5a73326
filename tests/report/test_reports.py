# SPDX-License-Identifier: GPL-2.0-only
"""What is printed: width, the numbers in it, and JSON as docs/json.md describes it."""

import json
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from rmaplab.cli import main
from rmaplab.designs.registry import design_names
from rmaplab.mm.profile import V6_18
from rmaplab.replay.compare import Comparison, compare
from rmaplab.replay.truth import Mismatch, TruthReport
from rmaplab.report.compare import comparison_json, comparison_text, cover_letter
from rmaplab.report.synth import calibration_json, table_json
from rmaplab.report.text import WIDTH, change, share, wrap
from rmaplab.report.truth import truth_json, truth_text
from rmaplab.synth.android import generate
from rmaplab.synth.calibrate import measure
from rmaplab.synth.parameters import AndroidParameters
from rmaplab.synth.table import Variant, predict
from rmaplab.trace.schema import Meta
from tests.replay.recordings import bundled
from tests.replay.test_compare import LAZY, fork_and_exit

DOCS = Path(__file__).resolve().parents[2] / "docs" / "json.md"


@cache
def everything(name: str) -> Comparison:
    return compare(bundled(name), design_names(), V6_18, by_process=True, buckets=24)


def too_long(text: str) -> list[str]:
    return [line for line in text.splitlines() if len(line) > WIDTH]


@pytest.mark.parametrize("name", ["redis"])
def test_text_fits_a_mail(name: str) -> None:
    """A line that a mail would break, in any table, of all designs at once."""
    result = everything(name)
    assert too_long(comparison_text(result, name)) == []
    assert too_long(cover_letter(result, f"rmaplab compare {name} --cover-letter")) == []


def test_no_line_ends_in_blanks() -> None:
    """Blanks that a mail client or a diff would show."""
    text = comparison_text(everything("redis"), "redis")
    assert [line for line in text.splitlines() if line != line.rstrip()] == []


def test_table_of_a_small_trace() -> None:
    """Figures in the wrong row, KiB of something else, or a change against another base."""
    text = comparison_text(compare(fork_and_exit(), [LAZY], V6_18), "small")
    rows = [line.split() for line in text.splitlines()]
    assert ["anon_vma", "anon_vma", "4", "0.4", "1"] in rows
    assert [LAZY, "2", "0.2", "1", "-50.0", "%"] in rows
    assert ["anon_vma_chain", "anon_vma", "6", "0.4", "1"] in rows
    # 4 * 192 + 4 * 104 + 6 * 64 = 1568 bytes, lazy 1232
    assert ["all", "three", "anon_vma", "14", "1.5", "3"] in rows
    assert [LAZY, "10", "1.2", "3", "-21.4", "%"] in rows
    assert "verdict: exact" in text


def test_cover_letter_of_a_small_trace() -> None:
    """The same in the form of the series' cover letter, with how to reproduce it."""
    text = cover_letter(compare(fork_and_exit(), [LAZY], V6_18), "rmaplab compare small")
    rows = [line.split() for line in text.splitlines()]
    assert ["anon_vma", "0.4", "->", "0.2", "(-50.0", "%)"] in rows
    assert ["all", "three", "1.5", "->", "1.2", "(-21.4", "%)"] in rows
    assert text.endswith("Reproduce with:\n  rmaplab compare small")


def test_cover_letter_says_the_slot_sizes_once() -> None:
    """The sizes' second line again, where the fields of the designs should be."""
    text = cover_letter(everything("redis"), "rmaplab compare redis")
    assert len(re.findall(r"\banon_vma_chain 64\b", text)) == 1
    assert "anon_vma_lazy adds 24 bytes" in text


def test_synthetic_is_said_first() -> None:
    """A figure of a generated workload that passes for a recorded one."""
    trace = fork_and_exit()
    trace.meta.synthetic = True
    result = compare(trace, [LAZY], V6_18)
    assert comparison_text(result, "x").startswith("SYNTHETIC")
    assert cover_letter(result, "x").startswith("SYNTHETIC")


def a_report(**changes: Any) -> TruthReport:
    report = TruthReport("anon_vma", "6.18", True, 0, 10, 9, 40, 36, 20, 1, 5, 4)
    report.mismatches["fault: only kernel +anon_vma, only model -anon_vma_chain 2+vm_area_struct and more of it"] = (
        Mismatch(3, ["row 17, 0.000017 s, tid 4194304: kernel " + "+v +c +a " * 8 + "..., model nothing"])
    )
    for name, value in changes.items():
        setattr(report, name, value)
    return report


def test_truth_text_fits_and_tells_all() -> None:
    """A class of mismatch without its count or examples; long lines."""
    text = truth_text(Meta(truth=True, lost=2, interrupted=True), a_report(lost=2, problems={"fault: unknown task": 4}))
    assert too_long(text) == []
    flat = " ".join(text.split())
    for said in ("9/10", "36/40", "19/20", "4/5", "2 lost records", "3 fault: only kernel", "row 17", "unknown task"):
        assert said in flat, said


def test_share_never_rounds_up_to_all() -> None:
    """100 % of something that is not exact."""
    assert share(10**9 - 1, 10**9) != "100 %"
    assert share(10**9, 10**9) == "100 %"
    assert share(29753, 29757) == "99.98 %"


@given(st.integers(0, 10**7), st.integers(1, 10**7))
def test_share_is_below_the_truth(part: int, whole: int) -> None:
    """A rounding that flatters."""
    part = min(part, whole)
    assert float(share(part, whole).removesuffix(" %")) <= part * 100 / whole + 1e-9


def test_change() -> None:
    """A sign the wrong way round, or a division by zero."""
    assert [change(200, 101), change(100, 150), change(0, 5)] == ["-49.5 %", "+50.0 %", ""]


WORDS = st.lists(st.text("abc,:%", min_size=1, max_size=20), max_size=40)


@given(WORDS)
def test_wrap_keeps_every_word(words: list[str]) -> None:
    """A word lost at the end of a line, or a line too long."""
    lines = wrap("  " + " ".join(words), "    ")
    assert " ".join(lines).split() == words
    assert all(len(line) <= WIDTH for line in lines)
    assert all(line.startswith("    ") for line in lines[1:])


# --- JSON


def documented(section: str) -> set[str]:
    """The names in backticks of one section."""
    text = DOCS.read_text().split(f"## `{section}`")[1].split("\n## ")[0]
    return set(re.findall(r"`([a-z_]+)`", text))


def keys(value: Any, skip: frozenset[str]) -> Iterator[str]:
    """All keys in `value`; the keys of objects under `skip` are names of something, no keys of the format."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            if key in skip and isinstance(inner, dict):
                for named in inner.values():
                    yield from keys(named, skip)
            else:
                yield from keys(inner, skip)
    elif isinstance(value, list):
        for inner in value:
            yield from keys(inner, skip)


NAMES = frozenset({"designs", "slab_sizes", "predating", "problems", "mismatches", "vma_fields", "locks", "moments"})


def output(*arguments: str) -> Any:
    result = CliRunner().invoke(main, [*arguments, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.mark.parametrize("command", ["truth", "compare", "info"])
def test_every_key_is_documented(command: str) -> None:
    """A key that docs/json.md does not know: nobody could rely on it."""
    assert set(output(command, "redis")) <= documented(f"rmaplab {command} --json")


@pytest.mark.parametrize("command", ["truth", "compare", "info"])
def test_every_documented_key_is_there(command: str) -> None:
    """A key that is promised and missing. The first cell of each row of the table names them."""
    section = DOCS.read_text().split(f"## `rmaplab {command} --json`")[1].split("\n## ")[0]
    promised = {key for row in re.findall(r"^\| (`[^|]*) \|", section, re.M) for key in re.findall(r"`([a-z_]+)`", row)}
    promised = promised or documented(f"rmaplab {command} --json")
    printed = set(output(command, "redis", *(["--cost"] if command == "compare" else [])))
    assert len(promised) >= 15
    assert promised <= printed


# --- JSON of hooks and synth


def table_keys(section: str) -> set[str]:
    """The keys in the first cells of the table of one section."""
    text = DOCS.read_text().split(f"## `{section}`")[1].split("\n## ")[0]
    return {key for row in re.findall(r"^\| (`[^|]*) \|", text, re.M) for key in re.findall(r"`([a-z_]+)`", row)}


def listed(section: str, start: str, end: str = "\n\n") -> set[str]:
    """The keys of the paragraph that starts so, parentheses left out."""
    text = DOCS.read_text().split(f"## `{section}`")[1].split("\n## ")[0]
    paragraph = (text + "\n\n").split(start)[1].split(end)[0]
    return set(re.findall(r"`([a-z_]+)`", re.sub(r"\([^)]*\)", "", paragraph)))


HOOKS = "rmaplab hooks --json"


def test_keys_of_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A key of the document that is not printed, or one printed that the document does not know."""
    from rmaplab.check import commands

    for name, less in (("RESTRICTIONS", ["no-ksm"]), ("_SETS", ("",)), ("CLAIMS", commands.CLAIMS[:1])):
        monkeypatch.setattr(commands, name, less)
    value = output(
        "hooks", "--design", "gki_mm", "--hook", "9", "--histories", "1", "--sets", "--faults", "--combinations"
    )
    assert set(value) == table_keys(HOOKS) - {"interrupted"}
    verdict = value["designs"]["gki_mm"]["all_hooks"]
    assert set(verdict) == listed(HOOKS, "A verdict:")
    assert {tuple(sorted(v)) for v in value["designs"]["gki_mm"]["dropped"]} == {tuple(sorted(verdict))}
    assert set(value["designs"]["gki_mm"]) == {"all_hooks", "dropped"} <= documented(HOOKS)
    assert set(value["faults"][0]) == {"design", "hook", "fault", "histories", "calls"} <= documented(HOOKS)
    assert set(value["combinations"]["gki_mm"][0]) == {"assume", "verdicts"} <= documented(HOOKS)
    claim = value["claims"][0]
    assert set(claim) == {"claim", "text", "holds", "trials"} <= documented(HOOKS)
    assert set(claim["trials"][0]) == {*verdict, "text", "must_hold"}


SYNTH, TABLE, CALIBRATE = (
    "rmaplab synth android --json",
    "rmaplab synth android --table --json",
    "rmaplab synth calibrate --json",
)


def test_keys_of_a_generated_trace(tmp_path: Path) -> None:
    """The same for what `synth android -o` says."""
    value = output("synth", "android", "--scale", "0.01", "--applications", "2", "-o", str(tmp_path / "a.parquet"))
    assert set(value) == table_keys(SYNTH)
    assert value["synthetic"] is True
    assert list(value["points"]) == ["after boot", "after 2 applications"]


@pytest.mark.parametrize("variant", ["", "0.9"])
def test_keys_of_the_table(variant: str) -> None:
    """The same for the table, with a variant that has figures and one that is impossible."""
    small = AndroidParameters(scale=0.01)
    prediction = predict(small, parallel=False)
    shown = Variant("sharing", variant, None, "too much") if variant else Variant("", "", prediction)
    value = json.loads(json.dumps(table_json(prediction, [shown])))
    assert set(value) == table_keys(TABLE)
    assert set(value["parameters"]["zygote"]) == {"libraries", "threads", "heaps", "files"} <= documented(TABLE)
    for caches in value["points"].values():
        for columns in caches.values():
            assert set(columns) == {"published", "predicted"} <= documented(TABLE)
            for column in columns.values():
                assert set(column) == {"before_kib", "after_kib", "percent"} <= documented(TABLE)
    (sensitivity,) = value["sensitivity"]
    assert set(sensitivity) == listed(TABLE, "A variant:")
    null = {key for key, found in sensitivity.items() if found is None}
    assert null == ({"percent", "before_error", "calibrated"} if variant else {"parameter", "value", "impossible"})


def test_keys_of_a_calibration() -> None:
    """The same for `synth calibrate`; `--parameters` has no figures."""
    small = AndroidParameters(scale=0.01)
    value = json.loads(json.dumps(calibration_json(small, measure(generate(small)))))
    assert set(value) == table_keys(CALIBRATE)
    assert set(value["objects"]) == {"after boot", "after 24 applications"}
    assert set(calibration_json(small, None)) == {"synthetic", "parameters", "calibrated"}
    assert set(output("synth", "android", "--parameters")) == {"synthetic", "parameters", "calibrated"}


def test_keys_that_the_issue_demands() -> None:
    """Those by which others judge a replay."""
    demanded = {
        "operations",
        "operations_exact",
        "events",
        "events_exact",
        "frees",
        "frees_wrong",
        "quiescent_points",
        "quiescent_equal",
        "lost",
        "mismatches",
    }
    assert demanded <= set(truth_json(a_report()))


def test_truth_json_is_the_report() -> None:
    """A figure under another's key."""
    report = a_report()
    value = json.loads(json.dumps(truth_json(report)))
    for name in ("operations", "operations_exact", "events", "events_exact", "frees", "frees_wrong"):
        assert value[name] == getattr(report, name)
    assert (value["quiescent_points"], value["quiescent_equal"]) == (5, 4)
    ((name, mismatch),) = report.mismatches.items()
    assert value["mismatches"] == {name: {"count": 3, "examples": mismatch.examples}}


def test_comparison_json_is_the_comparison() -> None:
    """The same for compare: what is printed can be computed from the JSON, which survives a round trip."""
    result = everything("redis")
    value = comparison_json(result)
    assert json.loads(json.dumps(value)) == value
    for moment in result.moments:
        for design, caches in moment.designs.items():
            for cache_name, figures in caches.items():
                assert value["moments"][moment.name]["designs"][design][cache_name] == {
                    "objects": figures.objects,
                    "bytes": figures.bytes,
                    "pages": figures.pages,
                }
    assert [p["pid"] for p in value["by_process"]] == [p.pid for p in result.processes]
    assert len(value["over_time"]) == len(result.over_time)
    assert "bytes" in documented("rmaplab compare --json")
    assert set(keys(value["moments"]["peak"]["designs"]["anon_vma"]["anon_vma"], NAMES)) == {
        "objects",
        "bytes",
        "pages",
    }
