# SPDX-License-Identifier: GPL-2.0-only
"""The import rules, one small recording each."""

from __future__ import annotations

from pathlib import Path

import pytest

from rmaplab.trace.schema import unpack_truth
from tests.trace.perf_lines import PerfText, ops, row, truth_of

MM = "0xffff888000001000"
OTHER = "0xffff888000009000"


@pytest.fixture
def perf() -> PerfText:
    text = PerfText()
    text.start()
    return text


# ---- which tasks belong to the recording --------------------------------------------------------


def test_wrapper_exec_outside_the_cgroup_is_not_taken(tmp_path: Path) -> None:
    """Would catch: the wrapper shell, whose system calls are unseen, replayed as the first program."""
    perf = PerfText()
    perf.comm_exec(10, "sh")
    perf.mmap2(10, 0x1000, 0x2000, name="/bin/sh", inode="fe:00 7 1", offset=0, prot="r-xp")
    perf.mmap2(10, 0x5000, 0x1000, name="[vdso]", offset=0)
    perf.mmap2(10, 0x9000, 0x1000, name="/lib/secret.so", inode="fe:00 8 1", offset=0)
    perf.start(10)
    trace = perf.trace(tmp_path)
    assert ops(trace) == ["exec_prepare", "exec"]
    assert row(trace, "exec")["flags"] == 1
    assert trace.meta.files == [], "a file of the wrapper was kept"
    assert [process["comm"] for process in trace.meta.processes] == ["prog"]


def test_first_exec_without_its_beginning_is_kept_when_it_returns(tmp_path: Path) -> None:
    """Would catch: a per-task recording, which starts inside execve, imported as empty."""
    perf = PerfText()
    perf.comm_exec(10)
    perf.mmap2(10, 0x7FFC00000000, 0x21000, name="[stack]")
    perf.fault(10, 0x7FFC00000000, 2, kernel=True)
    perf.exit(10, "execve")
    perf.fault(10, 0x1000)
    trace = perf.trace(tmp_path)
    assert ops(trace) == ["exec", "fault", "fault"], "no exec_prepare: its allocations were not seen"


@pytest.mark.parametrize("contradiction", ["enter", "mapping", "exit", "gone"])
def test_foreign_exec_is_dropped(tmp_path: Path, contradiction: str) -> None:
    """Would catch: programs started elsewhere on the machine kept in the trace."""
    perf = PerfText()
    perf.start(10)
    perf.comm_exec(77, "secret")
    perf.mmap2(77, 0x5000, 0x1000, name="[vdso]", offset=0)
    if contradiction == "enter":
        perf.enter(77, "brk", brk=0)
        perf.exit(77, "brk", 0x1000)
    elif contradiction == "mapping":
        perf.mmap2(77, 0x9000, 0x1000, name="/home/secret", inode="fe:00 8 1", offset=0)
        perf.exit(77, "execve")
    elif contradiction == "exit":
        perf.exit(77, "clone", 5)
        perf.exit(77, "execve")
    else:
        perf.gone(77)
    trace = perf.trace(tmp_path)
    assert set(trace.columns["tid"]) == {10}
    assert "secret" not in repr(trace.meta)


def test_events_of_unknown_tasks_are_counted(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: a traceback, or foreign slab events as truth."""
    perf.slab(55, "+v5")
    perf.fault(55, 0x1000)
    perf.new_task(55, 56)
    perf.lock(55)
    perf.gone(55)
    perf.exit_mmap(55)
    trace = perf.trace(tmp_path)
    assert set(trace.columns["tid"]) == {10}
    assert trace.meta.ignored["event of a task outside the recording"] == 6


def test_failed_path_search_of_the_wrapper_leaves_nothing(tmp_path: Path) -> None:
    """Would catch: `exec` along PATH taken for several first programs."""
    perf = PerfText()
    for _ in range(3):
        perf.enter(10, "execve", filename=1, argv=2, envp=3)
        perf.exit(10, "execve", -2)
    perf.start(10)
    assert ops(perf.trace(tmp_path)) == ["exec_prepare", "exec"]


# ---- truth --------------------------------------------------------------------------------------


def test_old_mm_of_the_first_exec_is_not_truth(tmp_path: Path) -> None:
    """Would catch: frees of the wrapper's mm, which no replay can predict."""
    perf = PerfText()
    perf.enter(10, "execve", filename=1, argv=2, envp=3)
    perf.slab(10, "+v1")
    perf.lock(10)
    perf.slab(10, "+c2")
    perf.slab(10, "+a3")
    perf.lock(10, OTHER)
    perf.slab(10, "-c50", site="unlink_anon_vmas")
    perf.slab(10, "-v51", site="exit_mmap")
    perf.exit_mmap(10, int(OTHER, 16) + 64)
    perf.comm_exec(10)
    perf.slab(10, "+v4")
    perf.slab(10, "-v4")
    perf.exit(10, "execve")
    trace = perf.trace(tmp_path)
    assert ops(trace) == ["exec_prepare", "exec"]
    assert truth_of(trace, "exec") == ["+v", "+c", "+a", "+v", "-v"]


def test_merged_caches_are_told_apart_by_call_site(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: epoll entries and fs_structs counted as AVCs (98 of 100 events of a redis)."""
    perf.fault(10, 0x1000)
    kept = ("anon_vma_clone.part.0", "__anon_vma_prepare.isra.0", "unlink_anon_vmas.constprop.0.cold",
            "cleanup_partial_anon_vmas", "anon_vma_chain_free", "anon_vma_fork")  # fmt: skip
    for number, site in enumerate(kept):
        perf.slab(10, f"+c{number}", site=site)
    for number, site in enumerate(("copy_fs_struct", "ep_ptable_queue_proc", "do_exit")):
        perf.slab(10, f"+c{100 + number}", site=site)
    trace = perf.trace(tmp_path)
    assert truth_of(trace, "fault") == ["+c"] * len(kept)
    assert trace.meta.ignored["slab event of another user of anon_vma_chain"] == 3


def test_duplicate_record_is_dropped_and_counted(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: a record that perf wrote twice predicted as two allocations."""
    perf.fault(10, 0x1000)
    perf.slab(10, "+c1")
    perf.lines.append(perf.lines[-1])
    trace = perf.trace(tmp_path)
    assert truth_of(trace, "fault") == ["+c"]
    assert trace.meta.duplicates == 1


def test_rcu_frees_are_owned_by_no_call(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: kernels up to 6.14, whose VMAs are freed in whatever task the softirq interrupts."""
    perf.fault(10, 0x1000)
    perf.slab(10, "-v1", site="vm_area_free_rcu_cb")
    trace = perf.trace(tmp_path)
    assert truth_of(trace, "fault") == []
    assert trace.meta.deferred == ["vm_area_struct"]


def test_objects_are_numbered_anew_and_addresses_are_not_kept(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: a reused pointer taken for the same object, or kernel addresses in the trace."""
    perf.fault(10, 0x1000)
    for what in ("+c7", "-c7", "+c7"):
        perf.slab(10, what)
    trace = perf.trace(tmp_path)
    words = [unpack_truth(word) for word in row(trace, "fault")["truth"]]  # type: ignore[attr-defined]
    assert words[0][0] == words[1][0] != words[2][0]
    assert max(word[0] for word in words) < 10


def test_stray_slab_event_gets_a_row_of_its_own(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: allocations by a call that was not recorded, lost or charged to another."""
    perf.enter(10, "brk", brk=0)
    perf.exit(10, "brk", 0x1000)
    perf.slab(10, "+v3")
    perf.fault(10, 0x2000)
    perf.slab(10, "+c4")
    trace = perf.trace(tmp_path)
    assert ops(trace)[2:] == ["brk", "unknown", "fault"]
    assert truth_of(trace, "unknown") == ["+v"]
    assert truth_of(trace, "fault") == ["+c"]


def test_fault_window_ends_at_the_next_call(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: allocations of a system call charged to the fault before it."""
    perf.fault(10, 0x1000)
    perf.slab(10, "+c1")
    perf.enter(10, "munmap", addr=0x1000, len=0x1000)
    perf.slab(10, "-c1")
    perf.exit(10, "munmap")
    trace = perf.trace(tmp_path)
    assert truth_of(trace, "fault") == ["+c"]
    assert truth_of(trace, "munmap") == ["-c"]


def test_fault_inside_a_call_is_a_row_of_that_call(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: put_user() of clone splitting the call's truth in two."""
    perf.enter(10, "clone", clone_flags=0)
    perf.slab(10, "+v1")
    perf.new_task(10, 11)
    perf.fault(10, 0x4000, 7, kernel=True)
    perf.slab(10, "+c2")
    perf.exit(10, "clone", 11)
    trace = perf.trace(tmp_path)
    assert row(trace, "fork")["call"] == row(trace, "fault")["call"]
    assert row(trace, "fault")["flags"] == 7 + 256
    assert truth_of(trace, "fork") == ["+v", "+c"]


# ---- order --------------------------------------------------------------------------------------


def test_locks_order_racing_calls(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: calls of two threads in the order of entry or exit instead of that of the lock."""
    perf.enter(10, "clone", clone_flags=0)
    perf.new_task(10, 11, 0x3D0F00)
    perf.exit(10, "clone", 11)
    perf.enter(10, "munmap", addr=0x1000, len=0x1000)
    perf.enter(11, "mprotect", start=0x2000, len=0x1000, prot=1)
    perf.lock(11, MM)
    perf.lock(10, MM)
    perf.exit(10, "munmap")
    perf.exit(11, "mprotect")
    assert ops(perf.trace(tmp_path))[-2:] == ["mprotect", "munmap"]


def test_without_locks_calls_stand_at_their_exit(tmp_path: Path) -> None:
    """Would catch: a recording without mmap_lock events read in the order of entry."""
    perf = PerfText()
    perf.comm_exec(10)
    perf.exit(10, "execve")
    perf.enter(10, "clone", clone_flags=0)
    perf.new_task(10, 11, 0x3D0F00)
    perf.exit(10, "clone", 11)
    perf.enter(10, "munmap", addr=0x1000, len=0x1000)
    perf.enter(11, "mprotect", start=0x2000, len=0x1000, prot=1)
    perf.exit(11, "mprotect")
    perf.exit(10, "munmap")
    trace = perf.trace(tmp_path)
    assert ops(trace)[-2:] == ["mprotect", "munmap"]
    assert not trace.meta.locks


def test_mmap_stands_at_its_mmap2_record(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: another thread's fault on a fresh mapping placed before the mapping."""
    perf.new_task(10, 11, 0x3D0F00)
    perf.enter(10, "mmap", addr=0, len=0x2000, prot=3, flags=0x22, fd=0xFFFFFFFF, off=0)
    perf.lock(10)
    perf.mmap2(10, 0x5000, 0x4000)
    perf.fault(11, 0x5000)
    perf.exit(10, "mmap", 0x6000)
    trace = perf.trace(tmp_path)
    assert ops(trace)[-2:] == ["mmap", "fault"]
    made = row(trace, "mmap")
    assert (made["addr"], made["len"], made["addr2"], made["len2"]) == (0x6000, 0x2000, 0x5000, 0x4000)
    assert (made["file"], made["pgoff"]) == (-1, 6)


def test_fault_moves_to_the_read_lock_that_follows(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: the winner of two racing faults taken for the loser."""
    perf.new_task(10, 11, 0x3D0F00)
    perf.fault(10, 0x1000)
    perf.fault(11, 0x1000)
    perf.lock(11, MM, write=False)
    perf.lock(10, MM, write=False, success=False)
    perf.lock(10, MM, write=False)
    trace = perf.trace(tmp_path)
    assert [t for t, op in zip(trace.columns["tid"], trace.columns["op"], strict=True) if op == "fault"] == [11, 10]


def test_locks_of_other_mms_order_nothing(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: ptrace or /proc reads taken for the task's own lock."""
    perf.new_task(10, 11, 0x3D0F00)
    perf.fault(10, 0x1000)
    perf.fault(11, 0x2000)
    perf.lock(10, OTHER, write=False)
    trace = perf.trace(tmp_path)
    assert [t for t, op in zip(trace.columns["tid"], trace.columns["op"], strict=True) if op == "fault"] == [10, 11]


def test_events_are_sorted_by_time(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: records that perf wrote out of order read as they stand."""
    perf.fault(10, 0x1000)
    perf.fault(10, 0x2000)
    perf.lines[-2:] = reversed(perf.lines[-2:])
    trace = perf.trace(tmp_path)
    faults = [a for a, op in zip(trace.columns["addr"], trace.columns["op"], strict=True) if op == "fault"]
    assert faults == [0x1000, 0x2000]


def test_time_is_exact(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: nanoseconds lost in a float."""
    perf.now = 123456789_000000001
    perf.fault(10, 0x1000)
    perf.fault(10, 0x2000)
    times = perf.trace(tmp_path).columns["time"]
    assert times[-1] - times[-2] == 1000
    assert times[0] == 0


# ---- fork ---------------------------------------------------------------------------------------


def test_fork_stands_at_its_write_lock(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: a fork placed at task_newtask, up to a millisecond after it copied the mm."""
    perf.new_task(10, 12, 0x3D0F00)
    perf.enter(10, "clone", clone_flags=0x1200011)
    perf.lock(10, MM)
    perf.lock(10, OTHER)
    perf.slab(10, "+v1")
    perf.enter(12, "munmap", addr=0x1000, len=0x1000)
    perf.lock(12, MM)
    perf.exit(12, "munmap")
    perf.new_task(10, 11, 0x1200000)
    perf.exit(10, "clone", 11)
    perf.exit(11, "clone", 0)
    trace = perf.trace(tmp_path)
    assert ops(trace)[-2:] == ["fork", "munmap"]
    assert (row(trace, "fork")["peer"], row(trace, "fork")["ret"]) == (11, 11)


def test_fork_that_failed_after_the_copy(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: allocations and frees of an undone fork that no row explains."""
    perf.enter(10, "clone", clone_flags=0x11)
    perf.lock(10, MM)
    perf.slab(10, "+v1")
    perf.slab(10, "-v1")
    perf.exit(10, "clone", -11)
    perf.enter(10, "clone", clone_flags=0x11)
    perf.exit(10, "clone", -11)
    trace = perf.trace(tmp_path)
    assert ops(trace).count("fork") == 1, "a fork that failed at once needs no row"
    assert (row(trace, "fork")["peer"], row(trace, "fork")["ret"]) == (0, -11)


def test_vfork_shares_the_mm_and_exec_leaves_it(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: the parent's mm torn down by the child's exec, or its open call forgotten."""
    perf.enter(10, "vfork")
    perf.new_task(10, 11, 0x4100)
    perf.enter(11, "execve", filename=1, argv=2, envp=3)
    perf.lock(11, OTHER)
    perf.comm_exec(11, "child")
    perf.exit(11, "execve")
    perf.exit(10, "vfork", 11)
    perf.gone(11)
    perf.lock(11, OTHER)
    perf.exit_mmap(11, int(OTHER, 16) + 64)
    trace = perf.trace(tmp_path)
    assert ops(trace, 11) == ["exec_prepare", "exec", "exit", "exit_mmap"]
    assert row(trace, "clone_vm")["ret"] == 11
    assert trace.meta.processes[1] == {"pid": 11, "comm": "child", "parent": 10}


# ---- exec ---------------------------------------------------------------------------------------


def test_exec_of_a_known_task(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: the new mm made after the old one is torn down, or the teardown at the wrong lock."""
    perf.enter(10, "execve", filename=1, argv=2, envp=3)
    perf.slab(10, "+v1")
    perf.lock(10, OTHER)
    perf.lock(10, MM)
    perf.slab(10, "-v900", site="exit_mmap")
    perf.exit_mmap(10)
    perf.comm_exec(10, "next")
    perf.mmap2(10, 0x400000, 0x1000, name="/bin/next", inode="fe:00 9 1", offset=0x2000, prot="r-xp")
    perf.mmap2(10, 0x500000, 0x1000, name="[heap]")
    perf.mmap2(10, 0x600000, 0x1000, name="[vdso]", offset=0)
    perf.fault(10, 0x500000, 2, kernel=True)
    perf.exit(10, "execve")
    trace = perf.trace(tmp_path)
    assert ops(trace)[2:] == ["exec_prepare", "exit_mmap", "exec", "fault"]
    assert len({trace.columns["call"][i] for i in range(3, len(trace))}) == 1
    assert [row(trace, "exec_map", n)["flags"] for n in range(4)] == [1, 0, 3, 2]
    mapped = row(trace, "exec_map", 1)
    assert (mapped["prot"], mapped["pgoff"], trace.meta.files[int(str(mapped["file"]))]) == (5, 2, "next")
    assert row(trace, "exec", 1)["flags"] == 0
    assert truth_of(trace, "exec", 1) == ["+v", "-v"]


@pytest.mark.parametrize(("errno", "rows", "flags"), [(-2, 0, 0), (-13, 0, 0), (-8, 2, 0), (-7, 2, 1), (-14, 2, 1)])
def test_failed_exec(tmp_path: Path, perf: PerfText, errno: int, rows: int, flags: int) -> None:
    """Would catch: an early failure that allocates nothing replayed, or a late one dropped."""
    perf.enter(10, "execve", filename=1, argv=2, envp=3)
    perf.exit(10, "execve", errno)
    trace = perf.trace(tmp_path)
    assert ops(trace)[2:] == ["exec_prepare", "exec_fail"][:rows]
    if rows:
        assert (row(trace, "exec_prepare", 1)["flags"], row(trace, "exec_fail")["ret"]) == (flags, errno)


def test_failed_exec_with_slab_events_is_shown(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: a script whose interpreter is missing (ENOENT, but late) leaving unexplained events."""
    perf.enter(10, "execve", filename=1, argv=2, envp=3)
    perf.slab(10, "+v1")
    perf.slab(10, "-v1")
    perf.exit(10, "execve", -2)
    trace = perf.trace(tmp_path)
    assert ops(trace)[2:] == ["exec_prepare", "exec_fail"]
    assert truth_of(trace, "exec_fail") == ["+v", "-v"]


def test_exec_by_a_thread_moves_to_the_leaders_tid(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: the call of thread 11 left open, and the teardown charged to the dead leader."""
    perf.new_task(10, 11, 0x3D0F00)
    perf.enter(11, "execve", filename=1, argv=2, envp=3)
    perf.slab(11, "+v1")
    perf.lock(11, OTHER)
    perf.gone(10)
    perf.lock(10, MM, write=False)
    perf.lock(10, MM)
    perf.slab(10, "-v900", site="exit_mmap")
    perf.exit_mmap(10)
    perf.comm_exec(10, "next")
    perf.exit(10, "execve")
    perf.fault(10, 0x1000)
    trace = perf.trace(tmp_path)
    made = list(zip(trace.columns["op"], trace.columns["tid"], strict=True))
    expected = [("exec_prepare", 11), ("exit", 10), ("exit_mmap", 10), ("exec", 10), ("fault", 10)]
    assert made[-5:] == expected
    assert row(trace, "exec", 1)["peer"] == 11
    assert truth_of(trace, "exec", 1) == ["+v", "-v"]


# ---- exit ---------------------------------------------------------------------------------------


def test_teardown_stands_at_the_last_write_lock(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: exit_mmap placed at the exit, before another process' fork or exit that it races with."""
    perf.new_task(10, 11, 0x1200000)
    perf.gone(10)
    perf.gone(11)
    perf.lock(11, OTHER)
    perf.slab(11, "-v1", site="exit_mmap")
    perf.lock(10, MM, write=False)
    perf.lock(10, MM)
    perf.slab(10, "-v900", site="exit_mmap")
    perf.exit_mmap(10)
    perf.exit_mmap(11, int(OTHER, 16) + 64)
    trace = perf.trace(tmp_path)
    made = list(zip(trace.columns["op"], trace.columns["tid"], strict=True))
    assert made[-4:] == [("exit", 10), ("exit", 11), ("exit_mmap", 11), ("exit_mmap", 10)]
    assert truth_of(trace, "exit_mmap") == ["-v"]
    assert trace.meta.teardown == "seen"


@pytest.mark.parametrize(("before", "last"), [(1, "exit_mmap"), (8, "mprotect")])
def test_teardown_stands_a_part_of_the_way_behind_its_lock(
    tmp_path: Path, perf: PerfText, before: int, last: str
) -> None:
    """Would catch: a teardown that unlinks everything at the instant of its lock, or after all that happens meanwhile.
    A relative's call that comes at once after the lock is before it, one that comes later is behind it."""
    perf.new_task(10, 11, 0x1200000)
    perf.gone(10)
    perf.lock(10, MM)
    for _ in range(before):
        perf.slab(10, "-v900", site="exit_mmap")
    perf.enter(11, "mprotect", start=0x1000, len=0x1000, prot=1)
    perf.lock(11, OTHER)
    perf.exit(11, "mprotect")
    for _ in range(20 - before):
        perf.slab(10, "-v900", site="exit_mmap")
    perf.exit_mmap(10)
    made = [op for op in ops(perf.trace(tmp_path)) if op in ("mprotect", "exit_mmap")]
    assert made[-1] == last


def test_descriptor_that_is_no_number(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: a traceback for one damaged argument."""
    perf.event(10, "syscalls:sys_enter_mmap:", "addr: 0x0, len: 0x1000, prot: 0x1, flags: 0x2, fd: 0\x003, off: 0x0")
    perf.exit(10, "mmap", 0x5000)
    trace = perf.trace(tmp_path)
    assert "mmap" not in ops(trace)
    assert trace.meta.ignored["arguments of mmap that cannot be read"] == 1


def test_teardown_without_locks_stands_at_the_first_free(tmp_path: Path) -> None:
    """Would catch: the teardown placed after what it frees."""
    perf = PerfText()
    perf.comm_exec(10)
    perf.exit(10, "execve")
    perf.new_task(10, 11, 0x1200000)
    perf.gone(10)
    perf.slab(10, "-v900")
    perf.fault(11, 0x1000)
    perf.exit_mmap(10)
    assert ops(perf.trace(tmp_path))[-3:] == ["exit", "exit_mmap", "fault"]


def test_teardown_is_inferred_when_no_exiting_task_shows_it(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: a per-task recording whose mms live for ever, or whose one exec teardown misleads."""
    perf.enter(10, "execve", filename=1, argv=2, envp=3)
    perf.lock(10, OTHER)
    perf.lock(10, MM)
    perf.exit_mmap(10)
    perf.comm_exec(10)
    perf.exit(10, "execve")
    perf.new_task(10, 11, 0x3D0F00)
    perf.gone(10)
    perf.gone(11)
    trace = perf.trace(tmp_path)
    assert ops(trace)[-3:] == ["exit", "exit", "exit_mmap"], "only after the last user of the mm"
    assert row(trace, "exit_mmap", 1)["flags"] == 1
    assert trace.meta.teardown == "inferred"


def test_teardown_before_the_exit_event(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: kernels up to 6.14, where exit_mm() comes before sched_process_exit."""
    perf.enter(10, "exit_group", error_code=0)
    perf.lock(10, MM)
    perf.slab(10, "-v900", site="exit_mmap")
    perf.exit_mmap(10)
    perf.gone(10)
    trace = perf.trace(tmp_path)
    assert ops(trace)[2:] == ["exit", "exit_mmap"]
    assert truth_of(trace, "exit_mmap") == ["-v"]


def test_a_task_that_drops_anothers_mm_does_not_exit(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: a reader of /proc/PID/maps that frees a dead process' mm taken for exiting."""
    perf.exit_mmap(10, 0xFFFF8880000F0040)
    perf.fault(10, 0x1000)
    trace = perf.trace(tmp_path)
    assert ops(trace)[2:] == ["fault"]
    assert trace.meta.ignored["exit_mmap of an mm that the task does not use"] == 1


# ---- mappings -----------------------------------------------------------------------------------


def test_stack_growth(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: MMAP2 records outside of mapping calls dropped, or growth seen in mprotect."""
    perf.fault(10, 0x7FFBFFFFF000)
    perf.mmap2(10, 0x7FFBFFFFF000, 0x22000, name="[stack]")
    perf.slab(10, "+c1")
    perf.enter(10, "mprotect", start=0x1000, len=0x1000, prot=1)
    perf.mmap2(10, 0x1000, 0x1000)
    perf.exit(10, "mprotect")
    trace = perf.trace(tmp_path)
    assert ops(trace)[2:] == ["fault", "grow", "mprotect"]
    assert (row(trace, "grow")["addr"], row(trace, "grow")["len"]) == (0x7FFBFFFFF000, 0x22000)
    assert truth_of(trace, "grow") == ["+c"]


def test_files_are_told_apart_by_descriptor(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: two opens of one inode, which do not merge, taken for one struct file."""
    for fd, addr in ((3, 0x10000), (3, 0x20000), (4, 0x30000)):
        perf.enter(10, "mmap", addr=0, len=0x1000, prot=1, flags=2, fd=fd, off=0x3000)
        perf.mmap2(10, addr, 0x1000, name="/lib/x.so", inode="fe:00 5 1", offset=0x3000, prot="r--p")
        perf.exit(10, "mmap", addr)
    trace = perf.trace(tmp_path)
    files = [row(trace, "mmap", n)["file"] for n in range(3)]
    assert files[0] == files[1] != files[2]
    assert trace.meta.files == ["x.so", "x.so"], "directories are private unless asked for"
    assert row(trace, "mmap")["pgoff"] == 3


def test_shared_anonymous_and_dev_zero(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: shared anonymous memory merged across mmaps, and private /dev/zero without its name."""
    for inode, addr in ((7, 0x10000), (8, 0x20000)):
        perf.enter(10, "mmap", addr=0, len=0x1000, prot=3, flags=0x21, fd=0xFFFFFFFF, off=0)
        perf.mmap2(10, addr, 0x1000, name="/dev/zero (deleted)", inode=f"00:01 {inode} 1", offset=0, prot="rw-s")
        perf.exit(10, "mmap", addr)
    perf.enter(10, "mmap", addr=0, len=0x1000, prot=3, flags=2, fd=3, off=0)
    perf.mmap2(10, 0x30000, 0x1000, name="/dev/zero", inode="00:05 4 1", offset=0)
    perf.exit(10, "mmap", 0x30000)
    trace = perf.trace(tmp_path)
    assert [row(trace, "mmap", n)["file"] for n in range(3)] == [0, 1, 2]
    assert trace.meta.files == ["zero (deleted)", "zero (deleted)", "/dev/zero"]
    assert row(trace, "mmap")["pgoff"] == 0


def test_arguments_of_every_call(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: an argument in the wrong column, or one that does not fit it."""
    huge = (1 << 64) - 4096
    perf.enter(10, "mremap", addr=0x1000, old_len=0x2000, new_len=0x3000, flags=3, new_addr=0x9000)
    perf.exit(10, "mremap", 0x9000)
    perf.enter(10, "madvise", start=0x1000, len_in=huge, behavior=4)
    perf.exit(10, "madvise", -22)
    perf.enter(10, "mlock2", start=0x1000, len=0x2000, flags=1)
    perf.exit(10, "mlock2")
    perf.enter(10, "mlockall", flags=3)
    perf.exit(10, "mlockall")
    perf.enter(10, "pkey_mprotect", start=0x1000, len=0x1000, prot=0xFFFFFFFFFFFFFFFF, pkey=1)
    perf.exit(10, "pkey_mprotect", -22)
    perf.enter(10, "shmat", shmid=1, shmaddr=0, shmflg=0)
    perf.mmap2(10, 0x7000, 0x2000, name="/SYSV00000000 (deleted)", inode="00:01 3 1", offset=0, prot="rw-s")
    perf.exit(10, "shmat", 0x7000)
    perf.enter(10, "shmdt", shmaddr=0x7000)
    perf.exit(10, "shmdt")
    trace = perf.trace(tmp_path)

    def values(op: str, *names: str) -> list[object]:
        return [row(trace, op)[name] for name in names]

    assert values("mremap", "addr", "len", "len2", "flags", "addr2", "ret") == [
        0x1000, 0x2000, 0x3000, 3, 0x9000, 0x9000,
    ]  # fmt: skip
    assert values("madvise", "addr", "len", "flags", "ret") == [0x1000, -4096, 4, -22]
    assert values("mlock", "addr", "len", "flags") == [0x1000, 0x2000, 1]
    assert values("mlockall", "flags") == [3]
    assert values("mprotect", "prot", "ret") == [-1, -22]
    assert values("shmat", "addr", "len", "prot") == [0x7000, 0x2000, 3]
    assert values("shmdt", "addr") == [0x7000]


def test_failed_calls(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: a failed mprotect, which has effects, dropped; or a failed munmap, without any, kept."""
    perf.enter(10, "mprotect", start=0x1000, len=0x1000, prot=1)
    perf.exit(10, "mprotect", -12)
    perf.enter(10, "munmap", addr=0x1000, len=0x1000)
    perf.exit(10, "munmap", -22)
    perf.enter(10, "munmap", addr=0x1000, len=0x1000)
    perf.slab(10, "+v1")
    perf.slab(10, "-v1")
    perf.exit(10, "munmap", -12)
    assert ops(perf.trace(tmp_path))[2:] == ["mprotect", "munmap"]


# ---- the end ------------------------------------------------------------------------------------


def test_interrupted_calls(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: a fork that took effect lost with its call, or a call without effect kept."""
    perf.enter(10, "clone", clone_flags=0x11)
    perf.lock(10, MM)
    perf.new_task(10, 11, 0x1200000)
    perf.enter(11, "munmap", addr=0x1000, len=0x1000)
    trace = perf.trace(tmp_path)
    assert ops(trace)[2:] == ["fork"]
    assert trace.meta.interrupted


def test_complete_recording_is_not_interrupted(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: every recording called interrupted."""
    perf.gone(10)
    perf.exit_mmap(10)
    assert not perf.trace(tmp_path).meta.interrupted


def test_quiescent_instants(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: live counts compared while a call on another CPU is half done."""
    perf.new_task(10, 11, 0x1200000)
    perf.enter(10, "munmap", addr=0x1000, len=0x1000)
    perf.slab(10, "+v1")
    perf.fault(11, 0x1000)
    perf.slab(11, "+c2")
    perf.exit(10, "munmap")
    perf.fault(11, 0x2000)
    trace = perf.trace(tmp_path)
    made = list(zip(trace.columns["op"], trace.columns["quiescent"], strict=True))
    assert made[-3:] == [("fault", False), ("munmap", True), ("fault", True)]


def test_lost_records_and_unknown_events_are_counted(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: a recording with holes reported as complete."""
    perf.event(0, "PERF_RECORD_LOST", "lost 17")
    perf.event(0, "PERF_RECORD_LOST_SAMPLES", "lost 3")
    perf.event(10, "sched:sched_switch:", "prev_comm=x")
    trace = perf.trace(tmp_path)
    assert trace.meta.lost == 20
    assert trace.meta.ignored["event sched:sched_switch"] == 1
    assert trace.meta.events["kmem:kmem_cache_alloc"] == 3
    assert trace.meta.slabs["anon_vma"] == {"object_size": 96, "slot_size": 104}


def test_reused_tid_of_a_foreign_program(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: a program outside the recording that got the pid of a dead task of it."""
    perf.gone(10)
    perf.lock(10, MM)
    perf.exit_mmap(10)
    perf.comm_exec(10, "secret")
    perf.mmap2(10, 0x400000, 0x1000, name="/bin/secret", inode="fe:00 9 1", offset=0)
    trace = perf.trace(tmp_path)
    assert ops(trace) == ["exec_prepare", "exec", "exit", "exit_mmap"]
    assert "secret" not in repr(trace.meta)


@pytest.mark.parametrize("comm", ["a b", "1/2 [003] 4.5: x", "x" * 15, "\xff\xfe", "(sd-pam)", "k:8/u"])
def test_odd_task_names(tmp_path: Path, comm: str) -> None:
    """Would catch: a blank, a bracket or a broken encoding in a task's name shifting all fields."""
    perf = PerfText()
    perf.start()
    perf.event(10, "exceptions:page_fault_user:", "address=0x1000 ip=0x1 error_code=0x6", comm=comm)
    trace = perf.trace(tmp_path)
    assert row(trace, "fault")["addr"] == 0x1000


def test_name_in_utf8(tmp_path: Path, perf: PerfText) -> None:
    """Would catch: file names garbled by the latin-1 that the parser reads."""
    perf.enter(10, "mmap", addr=0, len=0x1000, prot=1, flags=2, fd=3, off=0)
    name = "/tmp/häuser ü.so".encode().decode("latin-1")
    perf.mmap2(10, 0x10000, 0x1000, name=name, inode="fe:00 5 1", offset=0)
    perf.exit(10, "mmap", 0x10000)
    assert perf.trace(tmp_path).meta.files == ["häuser ü.so"]
