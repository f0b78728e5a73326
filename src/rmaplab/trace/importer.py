# SPDX-License-Identifier: GPL-2.0-only
"""Raw events become rows in commit order.

One pass over the events in the order of time. Every task has at most one open *call*, the window that
its slab events and rows belong to: its system call, else its last fault, else its exit. What a row
needs is often known later than its place, so rows carry the position of the event that commits them
(see rows.py), and what turns out to be nothing is cancelled.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, Final

from rmaplab.trace import perf_text as raw
from rmaplab.trace.arguments import EXECS, FORKS, MAPPERS, PARTIAL, ROW_OPS, fill
from rmaplab.trace.mappings import FileTable, Mapping, parse_mapping
from rmaplab.trace.perf_text import RawEvent
from rmaplab.trace.rows import Call, Row, RowTable, signed
from rmaplab.trace.schema import (
    ALLOC,
    EXEC_FIRST,
    EXEC_NO_ARGS,
    INFERRED,
    MAP_FILE,
    MAP_IS_SHARED,
    MAP_SPECIAL,
    Meta,
    Trace,
)
from rmaplab.trace.tasks import Mm, Syscall, Task

__all__ = ["Importer"]

_CLONE_VM: Final = 0x100
_CLONE_THREAD: Final = 0x10000
_MAP_ANONYMOUS: Final = 0x20
_MAP_HUGETLB: Final = 0x40000
_MAP_TYPE: Final = 0x0F
_MAP_PRIVATE: Final = 2
_E2BIG: Final = -7
_ENOEXEC: Final = -8
_EFAULT: Final = -14
_EINTR: Final = -4
_LATE_FAILURES: Final = frozenset({_E2BIG, _ENOEXEC, _EFAULT})
"""Errors of execve that are found only after the new mm was made."""
_EXEC_MAPPINGS: Final = 64
"""More than any execve makes: stack, segments of program and interpreter, bss, [vdso] and its like."""
_TEARDOWN_PART: Final = 0.15
"""Where a teardown stands between its lock and the record that ends it. It unlinks all VMAs first, then frees them, and
relatives may work on the same anon_vmas at once, under other mmap locks: no place is right for every VMA. Measured in
docs/trace-format.md."""
_MM_SIZE: Final = 0x400
"""mm_struct's maple tree lies this near to its start (bytes, generous)."""


class Importer:
    """Feed it raw events in the order of time, then take the trace.

    `page_size` in bytes; `full_paths` keeps directories in the names of files.
    """

    def __init__(self, page_size: int = 4096, full_paths: bool = False) -> None:
        self._page_shift = page_size.bit_length() - 1
        self._files = FileTable(full_paths)
        self._table = RowTable()
        self._tasks: dict[int, Task] = {}
        self._processes: dict[int, dict[str, Any]] = {}
        self._ignored: dict[str, int] = {}
        self._objects: dict[str, int] = {}
        self._object_count = 0
        self._duplicates = 0
        self._execs = 0
        self._strangers = 0
        self._exit_teardowns = 0
        self._exec_teardowns = 0
        self._inferred_exits: list[Row] = []
        self._inferred_execs: list[Row] = []
        # pid -> thread inside an execve that will make it the leader
        self._thread_execs: dict[int, Task] = {}
        self._position = 0
        self._time = 0
        self._interrupted = False
        handlers: dict[int, Callable[[Task, Any, Any], None]] = {
            raw.ENTER: self._enter,
            raw.EXIT: self._exit,
            raw.FAULT: self._fault,
            raw.MAPPED: self._mapped,
            raw.COMM_EXEC: self._comm_exec,
            raw.NEW_TASK: self._new_task,
            raw.GONE: self._gone,
            raw.TEARDOWN: self._teardown,
        }
        self._handlers = [handlers.get(kind, self._nothing) for kind in range(raw.FREE + 1)]

    # ---- the stream -------------------------------------------------------------------------

    def feed(self, events: list[RawEvent]) -> None:
        """Take the next events, in the order of time."""
        tasks, handlers, objects = self._tasks, self._handlers, self._objects
        position = self._position
        for time, tid, kind, a, b in events:
            position += 1
            task = tasks.get(tid)
            if task is None:
                self._position, self._time = position, time
                self._stranger(tid, kind, a, b)
                continue
            if kind >= raw.ALLOC:
                if a == task.slab_pointer and time == task.slab_time and kind == task.slab_kind:
                    self._duplicates += 1
                    continue
                task.slab_pointer = a
                task.slab_time = time
                task.slab_kind = kind
                task.fault = None
                if task.dead and self._thread_execs:
                    task = self._take_over(task)
                call = task.call
                if call is None:
                    call = task.call = Call()
                    call.name = "unknown"
                if kind == raw.ALLOC:
                    self._object_count = number = self._object_count + 1
                    objects[a] = number
                    call.truth.append(number << 3 | b << 1 | ALLOC)
                else:
                    number = objects.pop(a, 0)
                    if not number:
                        self._object_count = number = self._object_count + 1
                    call.truth.append(number << 3 | b << 1)
                    if call.first_free < 0:
                        call.first_free = position
                        call.first_free_time = time
                if call.first < 0:
                    call.first = position
                call.last = position
                call.last_time = time
            elif kind >= raw.LOCK_READ and kind <= raw.LOCK_WRITE:
                self._locked(task, kind, a, b, position, time)
            else:
                task.fault = None
                self._position, self._time = position, time
                handlers[kind](task, a, b)
        if events:
            self._position = position
            self._time = events[-1][0]

    def _stranger(self, tid: int, kind: int, a: Any, b: Any) -> None:
        """An event of a task that is not (yet) known."""
        if kind == raw.ENTER and a in EXECS:
            # the wrapper that joined the cgroup: this exec may be the recording's first
            task = self._tasks[tid] = Task(tid, tid, None)
            call = task.call = Syscall(a, b, self._position, self._time)
            call.first_exec = True
        elif kind == raw.COMM_EXEC:
            # a per-task recording starts inside the execve, but any program started anywhere on
            # the machine looks the same so far
            task = self._tasks[tid] = Task(tid, b, None)
            task.tentative = True
            call = task.call = Syscall("execve", "", self._position, self._time)
            call.first_exec = True
            self._execute(task, call, a, b)
        elif kind not in (raw.MAPPED, raw.EXIT):
            # perf writes MMAP2 records of all tasks: they are not even worth a count
            self._strangers += 1

    def _nothing(self, task: Task, a: Any, b: Any) -> None:
        """A kind that feed() handles itself."""

    # ---- locks ------------------------------------------------------------------------------

    def _locked(self, task: Task, kind: int, pointer: str, acquired: int, position: int, time: int) -> None:
        mm = task.mm
        own = "" if mm is None else mm.pointer
        fault = task.fault
        if fault is not None:
            if kind == raw.LOCK_WRITE or (own and pointer != own):
                task.fault = None
            elif acquired:
                # a fault that prepares does so under this lock
                fault.position = position
                fault.time = time
                task.fault = None
                if mm is not None and not own:
                    mm.pointer = pointer
            return
        call = task.call
        if not acquired:
            return
        if task.dead:
            if kind == raw.LOCK_WRITE and (not own or pointer == own):
                task.write_position, task.write_time = position, time
            return
        if not isinstance(call, Syscall):
            if kind == raw.LOCK_WRITE and (not own or pointer == own):
                # up to 6.14 an exiting task tears its mm down before it says that it exits
                task.write_position, task.write_time = position, time
            return
        if call.name in EXECS:
            self._locked_in_exec(task, call, kind, pointer, position, time)
            return
        if own and pointer != own:
            if call.name in FORKS and kind == raw.LOCK_WRITE and call.write_position >= 0 and not call.new_mm:
                # dup_mmap() locks the parent's mm, then the child's
                call.new_mm = pointer
            return
        if kind == raw.LOCK_WRITE:
            task.write_position, task.write_time = position, time
            if call.write_position < 0:
                call.write_position, call.write_time = position, time
                if mm is not None and not own and (call.name in ROW_OPS or call.name in FORKS):
                    # these calls take no lock but their own before this one
                    mm.pointer = pointer
            elif call.name in FORKS and not own and not call.new_mm:
                call.new_mm = pointer
        elif call.read_position < 0:
            call.read_position, call.read_time = position, time

    def _locked_in_exec(self, task: Task, call: Syscall, kind: int, pointer: str, position: int, time: int) -> None:
        if kind != raw.LOCK_WRITE:
            return
        mm = task.mm
        if call.executed:
            if mm is not None and not mm.pointer:
                mm.pointer = pointer
        elif mm is not None and pointer == mm.pointer:
            call.last_write_position, call.last_write_time = position, time
        elif not call.new_mm:
            # bprm_mm_init() locks the mm it has just made
            call.new_mm = pointer
        elif pointer != call.new_mm and (mm is None or not mm.pointer):
            call.last_write_position, call.last_write_time = position, time

    # ---- windows ----------------------------------------------------------------------------

    def _row(self, task: Task, call: Call, op: str, position: int = -1, time: int = 0) -> Row:
        if position < 0:
            position, time = self._position, self._time
        row = self._table.add(Row(position, time, task.tid, task.pid, call, op))
        if task.tentative:
            task.doubtful.append(row)
        return row

    def _close(self, task: Task) -> None:
        """The task's window ends."""
        call = task.call
        task.call = None
        if call is None:
            return
        if call.is_syscall:
            assert isinstance(call, Syscall)
            self._unfinished(task, call)
        if call.truth and not call.rows:
            self._row(task, call, "unknown", call.last, call.last_time)

    def _unfinished(self, task: Task, call: Syscall) -> None:
        """A system call whose exit was not seen ends."""
        name = call.name
        if name in EXECS:
            self._thread_execs.pop(task.pid, None)
            if not call.executed:
                self._failed_exec(task, call, _EINTR)
        elif name == "mmap" and call.mapping is not None and not call.rows:
            row = Row(call.mapping_position, call.mapping_time, task.tid, task.pid, call, "mmap")
            mapping = call.mapping
            filled = self._fill_mmap(row, call, mapping.addr)
            if filled and _page_up(row.len, self._page_shift) == mapping.len:
                # not merged, so the record tells where it was mapped
                self._table.add(row)
        if name != "exit_group":
            self._count(f"{name} without its end")

    def _count(self, reason: str, number: int = 1) -> None:
        self._ignored[reason] = self._ignored.get(reason, 0) + number

    def _forget(self, task: Task) -> None:
        """A task that was taken for one of the recording was none."""
        for row in task.doubtful:
            self._table.cancel(row)
        if task.call is not None and task.call.truth:
            self._strangers += len(task.call.truth)
        del self._tasks[task.tid]

    # ---- system calls -----------------------------------------------------------------------

    def _enter(self, task: Task, name: str, text: str) -> None:
        if task.dead:
            return
        if task.mm is None or task.tentative:
            tid = task.tid
            self._forget(task)
            self._stranger(tid, raw.ENTER, name, text)
            return
        self._close(task)
        task.call = Syscall(name, text, self._position, self._time)
        if name in EXECS and task.tid != task.pid:
            self._thread_execs[task.pid] = task

    def _exit(self, task: Task, name: str, text: str) -> None:
        call = task.call
        if not isinstance(call, Syscall):
            # the child's side of a clone, or the call began before the recording
            return
        if call.name != name and not (name in EXECS and call.name in EXECS):
            if task.tentative:
                self._forget(task)
            return
        try:
            ret = signed(int(text.split()[0], 16))
        except (ValueError, IndexError):
            self._count("result of a call that cannot be read")
            return
        if call.name in EXECS:
            self._exec_returns(task, call, ret)
            return
        task.call = None
        if name in FORKS:
            self._fork_returns(task, call, ret)
        elif name in ROW_OPS:
            self._call_returns(task, call, name, ret)
        if call.truth and not call.rows:
            self._row(task, call, "unknown", call.last, call.last_time)

    def _call_returns(self, task: Task, call: Syscall, name: str, ret: int) -> None:
        op = ROW_OPS[name]
        if ret < 0 and op not in PARTIAL and not call.truth:
            return
        if call.mapping is not None and op in ("mmap", "shmat"):
            position, time = call.mapping_position, call.mapping_time
        elif call.write_position >= 0:
            position, time = call.write_position, call.write_time
        elif call.read_position >= 0:
            # some advice works under the read lock
            position, time = call.read_position, call.read_time
        else:
            position, time = self._position, self._time
        row = Row(position, time, task.tid, task.pid, call, op)
        if op == "mmap":
            ok = self._fill_mmap(row, call, ret)
        else:
            ok = self._fill(row, call, ret)
            if ok and op == "shmat":
                self._fill_shmat(row, call)
        if ok:
            self._table.add(row)

    def _fill(self, row: Row, call: Syscall, ret: int) -> bool:
        try:
            fill(row, call.name, call.text, ret, self._page_shift)
        except ValueError:
            self._count(f"arguments of {call.name} that cannot be read")
            return False
        return True

    def _fill_mmap(self, row: Row, call: Syscall, ret: int) -> bool:
        if not self._fill(row, call, ret):
            return False
        mapping = call.mapping
        if mapping is not None:
            row.addr2, row.len2 = mapping.addr, mapping.len
        if row.flags & _MAP_ANONYMOUS:
            if row.flags & _MAP_TYPE == _MAP_PRIVATE and not row.flags & _MAP_HUGETLB:
                row.pgoff = row.addr >> self._page_shift if ret >= 0 else 0
                return True
            # the kernel makes a shmem or hugetlb file for each
            row.pgoff = 0
            identity: Hashable = row.position if mapping is None else mapping.identity
            row.file_key = ("shared", identity)
            row.file_name = "shared memory" if mapping is None else mapping.name
            return True
        try:
            descriptor = int(call.text.rpartition("fd: ")[2].partition(",")[0], 16) & 0xFFFFFFFF
        except ValueError:
            self._count(f"arguments of {call.name} that cannot be read")
            return False
        if mapping is not None:
            row.file_key, row.file_name = ("open", mapping.identity, descriptor), mapping.name
        else:
            row.file_key, row.file_name = ("fd", row.pid, descriptor), f"fd {descriptor}"
        return True

    def _fill_shmat(self, row: Row, call: Syscall) -> None:
        mapping = call.mapping
        if mapping is None:
            return
        row.len = mapping.len
        row.prot = mapping.prot
        row.pgoff = mapping.offset >> self._page_shift
        row.addr2, row.len2 = mapping.addr, mapping.len
        # every attach has a struct file of its own
        row.file_key, row.file_name = ("shm", mapping.identity, row.position), mapping.name

    # ---- faults and mappings ----------------------------------------------------------------

    def _fault(self, task: Task, address: int, error_code: int) -> None:
        if address >= 1 << 63 or task.mm is None:
            return
        call = task.call
        if call is None or not (call.is_syscall or task.dead):
            self._close(task)
            call = task.call = Call()
        row = Row(self._position, self._time, task.tid, task.pid, call, "fault")
        row.addr = address
        row.flags = error_code
        self._table.add(row)
        task.fault = row

    def _mapped(self, task: Task, text: str, _: int) -> None:
        if task.mm is None:
            return
        mapping = parse_mapping(text)
        if mapping is None:
            self._count("malformed PERF_RECORD_MMAP2")
            return
        call = task.call
        if isinstance(call, Syscall) and call.name in MAPPERS:
            if call.name in EXECS:
                self._exec_maps(task, call, mapping)
            elif call.mapping is None:
                call.mapping = mapping
                call.mapping_position, call.mapping_time = self._position, self._time
            return
        if call is None:
            call = task.call = Call()
            call.name = "grow"
        row = self._row(task, call, "grow")
        row.addr, row.len = mapping.addr, mapping.len

    # ---- fork -------------------------------------------------------------------------------

    def _new_task(self, task: Task, child: int, detail: tuple[int, str]) -> None:
        if task.mm is None or task.tentative:
            self._forget(task)
            return
        flags, comm = detail
        call = task.call
        if call is None or not call.is_syscall:
            # made by the kernel on the task's behalf (io_uring), or the call is not recorded
            self._close(task)
            call = task.call = Call()
            call.name = "clone"
        share = bool(flags & _CLONE_VM)
        position, time = self._position, self._time
        if not share and isinstance(call, Syscall) and call.name in FORKS and call.write_position >= 0:
            position, time = call.write_position, call.write_time
        row = self._row(task, call, "clone_vm" if share else "fork", position, time)
        row.peer = child
        row.flags = flags
        row.ret = child
        if isinstance(call, Syscall):
            call.child_row = row
        mm = task.mm
        if share:
            mm.users += 1
        else:
            mm = Mm(call.new_mm if isinstance(call, Syscall) else "")
        pid = task.pid if flags & _CLONE_THREAD else child
        self._tasks[child] = Task(child, pid, mm)
        if pid == child:
            name = comm.encode("latin-1", "replace").decode("utf-8", "replace")
            self._processes[child] = {"pid": child, "comm": name, "parent": task.pid}

    def _fork_returns(self, task: Task, call: Syscall, ret: int) -> None:
        row = call.child_row
        if row is not None:
            row.ret = ret
        elif ret < 0 and call.truth:
            # it failed after the copy, and everything was freed again
            at = (call.write_position, call.write_time) if call.write_position >= 0 else (-1, 0)
            row = self._row(task, call, "fork", *at)
            row.ret = ret

    # ---- exec -------------------------------------------------------------------------------

    def _exec_prepare(self, task: Task, call: Syscall, flags: int) -> None:
        row = self._row(task, call, "exec_prepare", call.position, call.time)
        row.flags = flags
        if call.old_tid:
            row.tid = call.old_tid

    def _comm_exec(self, task: Task, comm: str, pid: int) -> None:
        if task.dead and self._thread_execs:
            task = self._take_over(task)
        call = task.call
        if task.dead:
            # the number was used again, by a task outside the recording
            self._close(task)
            del self._tasks[task.tid]
            self._stranger(task.tid, raw.COMM_EXEC, comm, pid)
            return
        if task.tentative:
            self._forget(task)
            self._stranger(task.tid, raw.COMM_EXEC, comm, pid)
            return
        if not (isinstance(call, Syscall) and call.name in EXECS) or call.executed:
            self._close(task)
            call = task.call = Syscall("execve", "", self._position, self._time)
            self._count("execve without its beginning")
        self._execute(task, call, comm, pid)

    def _execute(self, task: Task, call: Syscall, comm: str, pid: int) -> None:
        """The task has its new mm."""
        old = task.mm
        call.executed = True
        self._execs += 1
        call.number_of_exec = self._execs
        if call.first_exec:
            # what was freed so far was the old mm, which the recording does not know
            kept = [word for word in call.truth if word & ALLOC]
            self._strangers += len(call.truth) - len(kept)
            call.truth = kept
            if not task.tentative:
                self._exec_prepare(task, call, 0)
        else:
            self._exec_prepare(task, call, 0)
        if old is not None:
            old.users -= 1
            if not old.users and not call.teardown_seen:
                row = self._row(task, call, "exit_mmap")
                row.flags = INFERRED
                self._inferred_execs.append(row)
        row = self._row(task, call, "exec")
        row.flags = EXEC_FIRST if call.first_exec else 0
        row.peer = call.old_tid
        task.pid = pid
        task.mm = Mm(call.new_mm)
        self._thread_execs.pop(pid, None)
        call.program = comm.encode("latin-1", "replace").decode("utf-8", "replace")
        if not task.tentative:
            self._name_process(task, call)

    def _name_process(self, task: Task, call: Syscall) -> None:
        """The process runs another program now."""
        process = self._processes.setdefault(task.pid, {"pid": task.pid, "comm": "", "parent": 0})
        process["comm"] = call.program

    def _exec_maps(self, task: Task, call: Syscall, mapping: Mapping) -> None:
        if not call.executed:
            return
        kind = mapping.kind
        special = kind & ~MAP_IS_SHARED == MAP_SPECIAL
        if task.tentative and (call.rows > _EXEC_MAPPINGS or (call.past_special and not special)):
            # nothing follows [vdso] in an execve: this mmap was made by a call that was not recorded
            self._forget(task)
            return
        call.past_special |= special
        row = self._row(task, call, "exec_map")
        row.addr, row.len = mapping.addr, mapping.len
        row.prot = mapping.prot
        row.flags = kind
        row.pgoff = mapping.offset >> self._page_shift
        if kind & ~MAP_IS_SHARED == MAP_FILE:
            row.file_key = ("exec", call.number_of_exec, mapping.identity)
            row.file_name = mapping.name

    def _exec_returns(self, task: Task, call: Syscall, ret: int) -> None:
        if task.tentative:
            task.tentative = False
            task.doubtful = []
            self._name_process(task, call)
        task.call = None
        self._thread_execs.pop(task.pid, None)
        if call.executed:
            return
        if task.mm is None:
            # the wrapper looks along its PATH
            self._strangers += len(call.truth)
            del self._tasks[task.tid]
            return
        self._failed_exec(task, call, ret)

    def _failed_exec(self, task: Task, call: Syscall, ret: int) -> None:
        if task.mm is None or not (call.truth or ret in _LATE_FAILURES):
            return
        self._exec_prepare(task, call, EXEC_NO_ARGS if ret in (_E2BIG, _EFAULT) else 0)
        row = self._row(task, call, "exec_fail")
        row.ret = ret

    def _take_over(self, task: Task) -> Task:
        """The dead leader's tid shows life: the thread inside execve has taken it over, or nothing has."""
        thread = self._thread_execs.get(task.pid)
        mm = task.mm
        if thread is None or task.tid != task.pid or thread.mm is not mm:
            return task
        call = thread.call
        if not isinstance(call, Syscall):
            return task
        self._close(task)
        del self._thread_execs[task.pid]
        del self._tasks[thread.tid]
        call.old_tid = thread.tid
        thread.tid = task.tid
        self._tasks[task.tid] = thread
        if task.write_position >= 0:
            call.last_write_position, call.last_write_time = task.write_position, task.write_time
        return thread

    # ---- exit -------------------------------------------------------------------------------

    def _gone(self, task: Task, _a: int, _b: int) -> None:
        if task.mm is None or task.tentative:
            self._forget(task)
            return
        if not task.dead:
            self._leave(task, self._position, self._time)

    def _leave(self, task: Task, position: int, time: int) -> None:
        """The task exits: it does not use its mm any more."""
        self._close(task)
        task.dead = True
        task.write_position = -1
        call = task.call = Call()
        call.name = "exit"
        self._row(task, call, "exit", position, time)
        mm = task.mm
        assert mm is not None
        mm.users -= 1
        if not mm.users:
            row = self._row(task, call, "exit_mmap", position, time)
            row.flags = INFERRED
            self._inferred_exits.append(row)

    def _teardown(self, task: Task, tree: int, _: int) -> None:
        if task.dead and self._thread_execs:
            task = self._take_over(task)
        mm = task.mm
        call = task.call
        if isinstance(call, Syscall) and call.name in EXECS and not call.executed:
            # the old program's mm; of the recording's first exec it is not known
            if mm is None:
                self._exec_teardowns += 1
            elif mm.users == 1 and _is_tree_of(tree, mm.pointer):
                self._exec_teardowns += 1
                call.teardown_seen = True
                self._teardown_row(task, call, call.last_write_position, call.last_write_time)
            return
        if mm is None:
            return
        if not task.dead:
            if mm.users != 1 or not _is_tree_of(tree, mm.pointer):
                self._count("exit_mmap of an mm that the task does not use")
                return
            # up to 6.14: exit_mm() comes before sched_process_exit
            call = self._leave_late(task)
        elif mm.users or not _is_tree_of(tree, mm.pointer):
            self._count("exit_mmap of an mm that the task does not use")
            return
        assert call is not None
        self._exit_teardowns += 1
        self._teardown_row(task, call, task.write_position, task.write_time)

    def _leave_late(self, task: Task) -> Call:
        """The task has torn its mm down and will only then say that it exits."""
        before = task.call
        position, time = task.write_position, task.write_time
        frees: list[int] = []
        if before is not None:
            # a teardown is nothing but frees
            while before.truth and not before.truth[-1] & ALLOC:
                frees.append(before.truth.pop())
            if position < 0 and frees:
                position, time = before.first_free, before.first_free_time
        at = (position, time) if position >= 0 else (self._position, self._time)
        self._leave(task, *at)
        call = task.call
        assert call is not None
        call.truth.extend(reversed(frees))
        if frees:
            call.first, call.last, call.last_time = at[0], self._position, self._time
        task.write_position, task.write_time = position, time
        return call

    def _teardown_row(self, task: Task, call: Call, position: int, time: int) -> None:
        if position < 0 and call.first_free >= 0:
            position, time = call.first_free, call.first_free_time
        elif position >= 0:
            position += int((self._position - position) * _TEARDOWN_PART)
        self._row(task, call, "exit_mmap", position, time)

    # ---- the end ----------------------------------------------------------------------------

    def finish(self, meta: Meta) -> Trace:
        """End the recording; fills in what the importer knows of `meta`."""
        for task in list(self._tasks.values()):
            if task.mm is None or task.tentative:
                self._forget(task)
                continue
            call = task.call
            if isinstance(call, Syscall) and not task.dead and call.name in (*ROW_OPS, *FORKS, *EXECS):
                self._interrupted = True
            self._close(task)
        for rows, seen in (
            (self._inferred_exits, self._exit_teardowns),
            (self._inferred_execs, self._exec_teardowns + self._exit_teardowns),
        ):
            if seen:
                for row in rows:
                    self._table.cancel(row)
        if self._strangers:
            self._count("event of a task outside the recording", self._strangers)
        columns, start = self._table.columns(self._files, meta.truth)
        inferred = bool(self._inferred_exits) and not self._exit_teardowns
        meta.teardown = "inferred" if inferred else "seen"
        meta.duplicates = self._duplicates
        meta.files = self._files.names
        last = max((max(row.time, row.call.last_time) for row in self._table.rows if not row.cancelled), default=0)
        meta.duration_ns = last - start
        meta.interrupted = meta.interrupted or self._interrupted
        known = {row.pid for row in self._table.rows if not row.cancelled}
        meta.processes = [process for pid, process in self._processes.items() if pid in known]
        meta.ignored = dict(sorted({**meta.ignored, **self._ignored}.items()))
        return Trace(columns, meta)


def _page_up(length: int, shift: int) -> int:
    return (length + (1 << shift) - 1) >> shift << shift


def _is_tree_of(tree: int, pointer: str) -> bool:
    """Does the maple tree at `tree` lie in the mm printed as `pointer`? Unknown pointers may be any."""
    try:
        return not pointer or 0 <= tree - int(pointer, 16) < _MM_SIZE
    except ValueError:
        return True
