# SPDX-License-Identifier: GPL-2.0-only
"""Bad input: one clear line on stderr, exit status 2, no traceback, no half-written file."""

from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner, Result

from rmaplab.cli import main
from rmaplab.trace.bundled import bundled_path
from rmaplab.trace.schema import Meta, Trace
from rmaplab.trace.store import read_trace, write_trace
from tests.support.cli import one_line


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, list(arguments), prog_name="rmaplab")


@pytest.mark.parametrize("command", ["compare", "truth", "info"])
def test_missing_file(command: str) -> None:
    """A traceback of open(), or a message that does not name the file."""
    one_line(run(command, "no-such-recording"), "no-such-recording")


@pytest.mark.parametrize("command", ["compare", "truth", "info", "import"])
def test_directory(command: str, tmp_path: Path) -> None:
    """A directory taken for a file."""
    one_line(run(command, str(tmp_path)), tmp_path.name)


@pytest.mark.parametrize("command", ["compare", "truth", "info", "import"])
def test_empty_file(command: str, tmp_path: Path) -> None:
    """An empty file taken for an empty recording."""
    path = tmp_path / "empty"
    path.write_bytes(b"")
    one_line(run(command, str(path)), "empty")


@pytest.mark.parametrize("command", ["compare", "truth", "info"])
def test_truncated_parquet(command: str, tmp_path: Path) -> None:
    """A recording that was cut short by a full disk or a broken copy."""
    path = tmp_path / "cut.parquet"
    path.write_bytes(bundled_path("redis").read_bytes()[:10_000])
    one_line(run(command, str(path)), "cut.parquet")


@pytest.mark.parametrize("command", ["compare", "truth", "info"])
def test_foreign_parquet(command: str, tmp_path: Path) -> None:
    """Parquet of another kind."""
    path = tmp_path / "foreign.parquet"
    pq.write_table(pa.table({"a": [1, 2]}), path)
    one_line(run(command, str(path)), "foreign.parquet")


def test_newer_version(tmp_path: Path) -> None:
    """A schema that this program does not know must not be guessed at."""
    path = tmp_path / "newer.parquet"
    table = pq.read_table(bundled_path("redis"))
    metadata = {**(table.schema.metadata or {}), b"rmaplab.version": b"99"}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    one_line(run("compare", str(path)), "99")


def test_unknown_design_lists_the_known() -> None:
    """A user who mistypes a design must see the names."""
    one_line(run("compare", "redis", "--design", "lazy"), "'lazy'", "anon_vma_lazy", "cow_context")
    one_line(run("truth", "redis", "--design", "lazy"), "anon_vma_lazy")
    one_line(run("hooks", "--design", "lazy"), "anon_vma_lazy")


def test_unknown_names_list_the_known() -> None:
    """The same for slab profiles, kernel rules, hooks and restrictions."""
    one_line(run("compare", "redis", "--slabs", "arm"), "x86-64 6.18")
    one_line(run("truth", "redis", "--rules", "5.4"), "6.12, 6.16, 6.18")
    one_line(run("hooks", "--design", "gki", "--hook", "99"), "known are 1, 2")
    one_line(run("hooks", "--assume", "no-forks"), "never-fork")
    one_line(run("hooks", "--histories", "0"), "1 or more")


def test_nothing_to_compare(tmp_path: Path) -> None:
    """A table of zeroes and a change in percent of nothing, for a recording that missed its program."""
    empty, missed = tmp_path / "empty.parquet", tmp_path / "missed.parquet"
    trace = Trace.empty(Meta(kernel="6.18.0"))
    write_trace(trace, empty)
    trace.append("exit", time=5, tid=7, pid=7, call=1, quiescent=True)
    write_trace(trace, missed)
    for options in ([], ["--json"], ["--cost"], ["--over-time", "--by-process"], ["--cover-letter"]):
        one_line(run("compare", str(empty), *options), "empty.parquet", "no operations")
        one_line(run("compare", str(missed), *options), "missed.parquet", "none of its 1 operations")


def test_cover_letter_needs_another_design() -> None:
    """A mail with a heading and no table."""
    one_line(run("compare", "redis", "--cover-letter", "--design", "anon_vma"), "--design")


def test_all_designs_and_one_of_them() -> None:
    """`all` that is unknown as soon as a name stands beside it."""
    both, all_ = (
        run("compare", "redis", "--design", "all", "--design", "gki"),
        run("compare", "redis", "--design", "all"),
    )
    assert both.exit_code == 0 and both.stdout == all_.stdout


def test_recording_without_truth(tmp_path: Path) -> None:
    """No verdict may be printed where the kernel's events were not recorded; compare says so and goes on."""
    trace = read_trace(bundled_path("redis"))
    trace.meta = replace(trace.meta, truth=False)
    trace.columns["truth"] = [None] * len(trace)
    path = tmp_path / "plain.parquet"
    write_trace(trace, path)
    one_line(run("truth", str(path)), "plain.parquet", "--truth")
    compared = run("compare", str(path))
    assert compared.exit_code == 0
    assert "nothing was" in compared.stdout


def test_lost_records_give_no_exact_verdict(tmp_path: Path) -> None:
    """A recording with holes that happens to fit must not be called exact."""
    trace = read_trace(bundled_path("redis"))
    trace.meta = replace(trace.meta, lost=3)
    path = tmp_path / "lost.parquet"
    write_trace(trace, path)
    result = run("truth", str(path))
    assert result.exit_code == 1
    assert "no verdict: 3 lost records" in result.stdout


def test_a_third_partys_design_that_misses_a_hook(monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry point whose class lacks a method: named, with the hook's number."""
    from rmaplab.designs import anon_vma, registry

    registry._maker.cache_clear()  # as in a new process
    monkeypatch.delattr(anon_vma.AnonVmaDesign, "rmap_walk_anon")
    one_line(run("compare", "redis"), "hook 3", "rmap_walk_anon")


def test_failed_import_leaves_no_file(tmp_path: Path) -> None:
    """A half-written trace beside the message."""
    source = tmp_path / "garbage.txt"
    source.write_text("this is no perf script\n" * 10)
    target = tmp_path / "out.parquet"
    result = run("import", str(source), "-o", str(target))
    assert result.exit_code == 2
    assert list(tmp_path.iterdir()) == [source]
