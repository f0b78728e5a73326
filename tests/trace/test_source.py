# SPDX-License-Identifier: GPL-2.0-only
"""Opening recordings of every form, good and bad."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaplab.report.info import format_info
from rmaplab.trace import TraceError, open_trace, write_trace
from rmaplab.trace.info import info
from rmaplab.trace.perf_text import RawEvent
from rmaplab.trace.time_order import TimeOrder
from tests.trace.perf_lines import PerfText


def run() -> PerfText:
    """A little of everything."""
    perf = PerfText()
    perf.start()
    perf.fault(10, 0x7FFC00001000)
    perf.slab(10, "+c1")
    perf.enter(10, "mmap", addr=0, len=0x2000, prot=3, flags=2, fd=3, off=0)
    perf.lock(10)
    perf.mmap2(10, 0x5000, 0x2000, name="/lib/x.so", inode="fe:00 5 1", offset=0)
    perf.exit(10, "mmap", 0x5000)
    perf.enter(10, "clone", clone_flags=0x11)
    perf.lock(10)
    perf.slab(10, "+v2")
    perf.new_task(10, 11)
    perf.exit(10, "clone", 11)
    perf.enter(11, "execve", filename=1, argv=2, envp=3)
    perf.comm_exec(11, "child")
    perf.exit(11, "execve")
    for tid in (11, 10):
        perf.gone(tid)
        perf.slab(tid, f"-v{tid}", site="exit_mmap")
        perf.exit_mmap(tid)
    return perf


def test_plain_gzip_and_parquet_agree(tmp_path: Path) -> None:
    """Would catch: a form that loses rows."""
    plain = run().trace(tmp_path)
    packed = run().trace(tmp_path, compress=True)
    write_trace(plain, tmp_path / "t.parquet")
    assert plain.columns == packed.columns == open_trace(tmp_path / "t.parquet").columns


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"hello\nworld\n", "not the text of perf script"),
        (b"\x00\x01\x02" * 100, "not the text of perf script"),
        (b"x" * 10_000_000, "not the text of perf script"),
        (b"PAR1", "damaged"),
        (b"PAR1" + b"\0" * 100 + b"PAR1", "damaged"),
        (b"\x1f\x8bnonsense", "gzip"),
        (gzip.compress(run().text().encode())[:-40], "cut short"),
        (b"   prog 10/10 [000] 1.000000001: syscalls:sys_exit_brk: 0x0\n", "no program starts"),
        (b"   prog 10/10 [000] 1.000001: syscalls:sys_exit_brk: 0x0\n", "not the text of perf script"),
    ],
)
def test_bad_files(tmp_path: Path, content: bytes, message: str) -> None:
    """Would catch: a traceback instead of one line that says what is wrong."""
    path = tmp_path / "input"
    path.write_bytes(content)
    with pytest.raises(TraceError, match=message) as error:
        open_trace(path)
    assert "\n" not in str(error.value)


def test_missing_file_and_directory(tmp_path: Path) -> None:
    """Would catch: FileNotFoundError or IsADirectoryError shown as a traceback."""
    with pytest.raises(TraceError, match="No such file"):
        open_trace(tmp_path / "none")
    with pytest.raises(TraceError, match="directory"):
        open_trace(tmp_path)


def test_perf_data_without_perf(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: an analysis machine without perf told nothing useful."""
    path = tmp_path / "perf.data"
    path.write_bytes(b"PERFILE2" + b"\0" * 200)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TraceError, match="perf is not installed"):
        open_trace(path)


def test_garbage_between_lines_is_counted(tmp_path: Path) -> None:
    """Would catch: perf's own warnings in the text ending the import."""
    perf = run()
    perf.lines[3:3] = ["Warning:", "", "# comment", "Processed 7 events"]
    trace = perf.trace(tmp_path)
    assert trace.meta.ignored["unreadable line"] == 2
    assert trace.columns == run().trace(tmp_path).columns


def test_full_paths(tmp_path: Path) -> None:
    """Would catch: directories kept without being asked for, or lost when they were."""
    path = tmp_path / "recording.txt"
    path.write_text(run().text())
    assert open_trace(path).meta.files == ["x.so"]
    assert open_trace(path, full_paths=True).meta.files == ["/lib/x.so"]


LINES = run().lines


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_damaged_text_never_gives_a_traceback(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """Would catch: any exception but TraceError for text with holes, cuts, repeats or broken bytes."""
    lines = list(LINES)
    for _ in range(data.draw(st.integers(1, 8), "changes")):
        index = data.draw(st.integers(0, len(lines) - 1), "line")
        what = data.draw(st.sampled_from(["drop", "repeat", "cut", "byte", "swap"]), "what")
        line = lines[index]
        if what == "drop" and len(lines) > 1:
            del lines[index]
        elif what == "repeat":
            lines.insert(index, line)
        elif what == "cut":
            lines[index] = line[: data.draw(st.integers(0, len(line)), "length")]
        elif what == "byte" and line:
            place = data.draw(st.integers(0, len(line) - 1), "place")
            lines[index] = line[:place] + chr(data.draw(st.integers(0, 255), "value")) + line[place + 1 :]
        else:
            other = data.draw(st.integers(0, len(lines) - 1), "other")
            lines[index], lines[other] = lines[other], lines[index]
    path = tmp_path_factory.mktemp("trace") / "recording.txt"
    path.write_bytes("\n".join(lines).encode("latin-1"))
    try:
        trace = open_trace(path)
    except TraceError as error:
        assert "\n" not in str(error)
        return
    # what was understood can be stored, and every call has its truth once
    write_trace(trace, path.with_suffix(".parquet"))
    assert open_trace(path.with_suffix(".parquet")).columns == trace.columns
    if trace.meta.truth:
        calls = [c for c, t in zip(trace.columns["call"], trace.columns["truth"], strict=True) if t is not None]
        assert sorted(calls) == sorted(set(trace.columns["call"]))


@given(times=st.lists(st.integers(0, 30), max_size=60), window=st.integers(1, 40), cut=st.integers(1, 20))
def test_time_order(times: list[int], window: int, cut: int) -> None:
    """Would catch: events lost, or put out of order though they came within the window."""
    events: list[RawEvent] = [(time, number, 6, 0, 0) for number, time in enumerate(times)]
    order = TimeOrder(window)
    out: list[RawEvent] = []
    for start in range(0, len(events), cut):
        out += order.push(events[start : start + cut])
    out += order.flush()
    assert sorted(event[1] for event in out) == list(range(len(events)))
    if not order.late:
        assert out == sorted(events, key=lambda event: event[0])


def test_info(tmp_path: Path) -> None:
    """Would catch: a line too wide for a mail, or a loss that is not said."""
    perf = run()
    perf.event(0, "PERF_RECORD_LOST", "lost 17")
    trace = perf.trace(tmp_path)
    trace.meta.command = ["sh", "-c", "some very long command line " * 8]
    report = info(trace)
    assert (report.rows, report.threads, report.ops["fork"]) == (len(trace), 2, 1)
    text = format_info(report)
    assert max(map(len, text.splitlines())) <= 75
    assert "17 records: no exact verdict possible" in text
