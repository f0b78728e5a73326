# SPDX-License-Identifier: GPL-2.0-only
"""Recording for real where perf and root are, and failing well where they are not."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner

from rmaplab.trace import RecordError, TraceError, open_trace
from rmaplab.trace.commands import import_command, info_command, record_command
from rmaplab.trace.record import record

CAN_RECORD = os.geteuid() == 0 and shutil.which("perf") is not None and Path("/sys/kernel/tracing/events/kmem").is_dir()
real = pytest.mark.skipif(not CAN_RECORD, reason="needs perf, root and tracefs")


def fake_perf(directory: Path, script: str) -> None:
    perf = directory / "perf"
    perf.write_text(f"#!/bin/sh\n{script}\n")
    perf.chmod(0o755)


# ---- failures, on any machine -------------------------------------------------------------------


def test_perf_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: FileNotFoundError for a tool that the user can install."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RecordError, match="perf is not installed"):
        record([sys.executable, "-c", ""], tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


def test_perf_too_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: an option that this perf does not know, explained by perf's usage text."""
    fake_perf(tmp_path, "echo perf version 5.4.0")
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    with pytest.raises(RecordError, match=r"5\.4\.0 is too old.*5\.15"):
        record(["true"], tmp_path / "t.parquet")


def test_no_such_command(tmp_path: Path) -> None:
    """Would catch: perf started, and seconds lost, for a command with a typo."""
    with pytest.raises(RecordError, match="no-such-command: command not found"):
        record(["no-such-command"], tmp_path / "t.parquet")


def test_output_that_cannot_be_written(tmp_path: Path) -> None:
    """Would catch: an hour recorded before it turns out that there is no place for it."""
    with pytest.raises(TraceError, match="no directory"):
        record(["true"], tmp_path / "none" / "t.parquet")


@pytest.mark.skipif(os.geteuid() == 0 and not CAN_RECORD, reason="needs tracefs to get that far")
def test_perf_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Would catch: the command run, or a file left behind, although perf gave up."""
    if os.geteuid() != 0:
        pytest.skip("is refused before")
    fake_perf(tmp_path, 'case $1 in --version) echo perf version 6.1;; *) echo "Error: no PMU" >&2; exit 255;; esac')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    (tmp_path / "out").mkdir()
    with pytest.raises(RecordError, match="no PMU"):
        record(["touch", str(tmp_path / "ran")], tmp_path / "out" / "t.parquet", mode="task")
    assert not (tmp_path / "ran").exists()
    assert not list((tmp_path / "out").iterdir())


def test_commands_end_with_status_2_and_one_line(tmp_path: Path) -> None:
    """Would catch: a traceback, or a usage text, for a mistake in the input."""
    bad = tmp_path / "bad"
    bad.write_text("nothing\n")
    runner = CliRunner()
    for command, arguments in (
        (info_command, [str(bad)]),
        (import_command, [str(bad)]),
        (record_command, ["-o", str(tmp_path), "--", "true"]),
    ):
        result = runner.invoke(command, arguments)
        assert result.exit_code == 2, result.output
        assert result.output.startswith("rmaplab: cannot ")
        assert result.output.count("\n") == 1


# ---- recording ----------------------------------------------------------------------------------


@real
@pytest.mark.parametrize("mode", ["cgroup", "task"])
def test_recording(tmp_path: Path, mode: str) -> None:
    """Would catch: children not followed, the wrapper kept, the exit status lost, files left behind."""
    before = _cgroups()
    made = record(["sh", "-c", "ls / | wc >/dev/null; exit 3"], tmp_path / "t.parquet", mode=mode)
    assert made.status == 3
    trace = open_trace(tmp_path / "t.parquet")
    assert sorted(process["comm"] for process in trace.meta.processes) == ["ls", "sh", "wc"]
    assert trace.columns["op"][:2] == ["exec_prepare", "exec"]
    counts = {op: trace.columns["op"].count(op) for op in ("exec", "exit", "exit_mmap")}
    assert counts == {"exec": 3, "exit": 3, "exit_mmap": 5}
    assert trace.meta.teardown == ("seen" if mode == "cgroup" else "inferred")
    assert (trace.meta.mode, trace.meta.truth, trace.meta.locks) == (mode, True, True)
    assert trace.meta.kernel == os.uname().release
    assert os.listdir(tmp_path) == ["t.parquet"]
    assert _cgroups() == before


@real
def test_recording_without_truth_keeps_perf_data(tmp_path: Path) -> None:
    """Would catch: slab events recorded all the same, or a perf.data that does not import to the same rows."""
    made = record(["true"], tmp_path / "t.parquet", truth=False, keep_perf_data=True)
    assert set(made.trace.columns["truth"]) == {None}
    assert made.perf_data == tmp_path / "t.perf.data"
    again = open_trace(made.perf_data)
    assert again.columns == made.trace.columns
    assert again.meta.kernel == made.trace.meta.kernel


@real
def test_command_killed_by_a_signal(tmp_path: Path) -> None:
    """Would catch: the recording of a crash thrown away."""
    made = record(["sh", "-c", "kill -9 $$"], tmp_path / "t.parquet")
    assert made.status == 128 + signal.SIGKILL
    assert "exit" in made.trace.columns["op"]


@real
def test_ctrl_c_keeps_what_there_is(tmp_path: Path) -> None:
    """Would catch: a long run lost because the user ended it, or perf left running."""
    program = "import sys; from rmaplab.trace.commands import record_command; record_command(sys.argv[1:], 'record')"
    ready = tmp_path / "ready"
    arguments = ["-o", str(tmp_path / "t.parquet"), "--", "sh", "-c", f"touch {ready}; exec sleep 60"]
    process = subprocess.Popen([sys.executable, "-c", program, *arguments], start_new_session=True)
    deadline = time.monotonic() + 60
    while not ready.exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(60) == 128 + signal.SIGINT
    trace = open_trace(tmp_path / "t.parquet")
    assert trace.meta.interrupted
    assert {"sh", "sleep"} & {process["comm"] for process in trace.meta.processes}
    assert sorted(os.listdir(tmp_path)) == ["ready", "t.parquet"]


@real
def test_command_that_cannot_be_run(tmp_path: Path) -> None:
    """Would catch: an empty trace of a command that the kernel refused."""
    with pytest.raises(RecordError, match="Permission denied"):
        record(["/etc/passwd"], tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


@real
def test_descendants_left_behind_live_on(tmp_path: Path) -> None:
    """Would catch: a daemon of the command killed, or the cgroup kept because of it."""
    before = _cgroups()
    pid_file = tmp_path / "pid"
    made = record(["sh", "-c", f"sleep 60 & echo $! > {pid_file}"], tmp_path / "t.parquet")
    pid = int(pid_file.read_text())
    try:
        os.kill(pid, 0)
        assert any("still running" in note for note in made.notes)
        assert _cgroups() == before
    finally:
        os.kill(pid, signal.SIGTERM)


def _cgroups() -> list[str]:
    found: list[str] = []
    for root in ("/sys/fs/cgroup", "/sys/fs/cgroup/unified", "/sys/fs/cgroup/perf_event"):
        if Path(root).is_dir():
            found += [str(path) for path in Path(root).glob(f"rmaplab-{os.getpid()}*")]
    return found
