# SPDX-License-Identifier: GPL-2.0-only
"""Applies the rows of a trace to a modelled kernel, one method per kind of operation."""

from collections import Counter
from collections.abc import Callable

from rmaplab.mm import flags as fl
from rmaplab.mm.exec import ElfMapper, bprm_mm_init
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.fault import handle_mm_fault
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.madvise import madvise
from rmaplab.mm.mlock import mlock, mlockall, munlock, munlockall
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import brk, do_mmap, do_munmap, expand_downwards, mmap_region
from rmaplab.mm.mremap import mremap
from rmaplab.mm.protect import mprotect
from rmaplab.mm.vma import File
from rmaplab.replay.series import Series
from rmaplab.trace.schema import Trace

__all__ = ["Replayer", "Task"]

_EXEC_STACK, _EXEC_SPECIAL, _EXEC_ANON = 1, 2, 3
_EXEC_SHARED = 256
_FAULT_WRITE = 2
_USER_END = 1 << 56  # above every user address, whatever the recording machine's page tables


class Task:
    """One thread: its address space, and the one that its execve is building."""

    __slots__ = ("bprm_mm", "elf", "late_fault", "mm")

    def __init__(self, mm: Mm | None) -> None:
        self.mm = mm
        self.bprm_mm: Mm | None = None
        self.elf: ElfMapper | None = None
        self.late_fault: int | None = None  # address of a write fault that found no VMA: a stack may grow to it


class Replayer:
    """Replays `trace` in `kernel`.

    >>> replayer = Replayer(Kernel(AnonVmaDesign()), trace)  # doctest: +SKIP
    >>> replayer.run()  # doctest: +SKIP
    """

    def __init__(self, kernel: Kernel, trace: Trace) -> None:
        self.kernel = kernel
        self.trace = trace
        self.tasks: dict[int, Task] = {}
        self.owners: dict[Mm, int] = {}  # live mm -> pid of the process that made it
        self.problems: Counter[str] = Counter()  # rows that could not be applied, by reason
        self.range_differs = 0  # mmap rows whose VMA is not the one that MMAP2 shows
        self.files = [
            File(name, zero=name == "/dev/zero", close=name.startswith(("SYSV", "/SYSV"))) for name in trace.meta.files
        ]
        c = trace.columns
        self.tid, self.pid, self.addr, self.len = c["tid"], c["pid"], c["addr"], c["len"]
        self.addr2, self.len2, self.prot, self.flags = c["addr2"], c["len2"], c["prot"], c["flags"]
        self.pgoff, self.file, self.peer, self.ret = c["pgoff"], c["file"], c["peer"], c["ret"]
        self.handlers: dict[str, Callable[[Task, int], None]] = {
            "exec_prepare": self._exec_prepare,
            "exec": self._exec,
            "exec_fail": self._exec_fail,
            "exec_map": self._exec_map,
            "fork": self._fork,
            "clone_vm": self._clone_vm,
            "exit": self._exit,
            "exit_mmap": self._exit_mmap,
            "mmap": self._mmap,
            "munmap": self._munmap,
            "mprotect": self._mprotect,
            "mremap": self._mremap,
            "brk": self._brk,
            "madvise": self._madvise,
            "mlock": self._mlock,
            "munlock": self._munlock,
            "mlockall": self._mlockall,
            "munlockall": self._munlockall,
            "shmat": self._shmat,
            "shmdt": self._shmdt,
            "fault": self._fault,
            "grow": self._grow,
            "unknown": self._unknown,
        }

    def apply(self, row: int, op: str) -> None:
        """Apply one row."""
        tid = self.tid[row]
        task = self.tasks.get(tid)
        if task is None:
            if op not in ("exec_prepare", "exec"):
                self.problems[f"{op}: unknown task"] += 1
                return
            task = self.tasks[tid] = Task(None)
        self.handlers[op](task, row)

    def run(self, series: Series | None = None) -> None:
        """Apply all rows; `series` receives the live objects."""
        tids = self.tid
        tasks = self.tasks
        handlers = self.handlers
        apply = self.apply
        vmas, anon_vmas, avcs, *own = self.kernel.slabs
        before: tuple[int, ...] | None = None
        for row, op in enumerate(self.trace.columns["op"]):
            task = tasks.get(tids[row])
            if task is None:
                apply(row, op)
            else:
                handlers[op](task, row)
            if series is not None:
                now: tuple[int, ...] = vmas.live, anon_vmas.live, avcs.live
                if own:
                    now += tuple([slab.live for slab in own])
                if now != before:
                    series.add(row, *now)
                    before = now

    def live_mms(self) -> list[Mm]:
        """The address spaces that have not been torn down."""
        return list(self.owners)

    # --- processes

    def _teardown(self, mm: Mm) -> None:
        if self.owners.pop(mm, None) is not None:
            exit_mmap(mm)

    def _leave(self, task: Task) -> None:
        if task.mm is not None:
            task.mm.users -= 1

    def _no_mm(self, row: int) -> None:
        """The task has no address space (yet): the recording does not show how it got one."""
        self.problems[f"{self.trace.columns['op'][row]}: task without an address space"] += 1

    def _possible(self, row: int, start: int, length: int) -> bool:
        """Could the kernel have mapped [start, start + length)? A row that says otherwise is damaged."""
        if length > 0 and 0 <= start <= _USER_END - length and not start & (fl.PAGE_SIZE - 1):
            return True
        self._impossible(row)
        return False

    def _impossible(self, row: int) -> None:
        self.problems[f"{self.trace.columns['op'][row]}: impossible range"] += 1

    def _look_up(self, mm: Mm, row: int) -> None:
        """A call that succeeded found a VMA at its address. Does the model?"""
        if self.ret[row] >= 0 and self.len[row] and mm.vma_lookup(self.addr[row]) is None:
            self.problems[f"{self.trace.columns['op'][row]}: nothing mapped at its address"] += 1

    def _exec_prepare(self, task: Task, row: int) -> None:
        task.bprm_mm = bprm_mm_init(self.kernel, copy_strings=not self.flags[row] & 1)
        self.owners[task.bprm_mm] = self.pid[row]

    def _exec(self, task: Task, row: int) -> None:
        thread = self.peer[row]
        if thread and thread in self.tasks:
            # a thread called execve and has taken over the tid of its leader, which is gone (de_thread)
            task = self.tasks[self.tid[row]] = self.tasks.pop(thread)
        old = task.mm
        mm = task.bprm_mm
        if mm is None:
            mm = bprm_mm_init(self.kernel)
            self.owners[mm] = self.pid[row]
        self._leave(task)
        if old is not None and old.users <= 0:
            self._teardown(old)  # exit_mmap was not seen
        task.mm, task.bprm_mm = mm, None
        task.elf = ElfMapper(mm)

    def _exec_fail(self, task: Task, row: int) -> None:
        if task.bprm_mm is not None:
            self._teardown(task.bprm_mm)
            task.bprm_mm = None

    def _exec_map(self, task: Task, row: int) -> None:
        elf = task.elf
        if elf is None:
            self.problems["exec_map: no exec"] += 1
            return
        start = self.addr[row]
        end = start + self.len[row]
        kind = self.flags[row]
        if not self._possible(row, start, self.len[row]) or end & (fl.PAGE_SIZE - 1):
            return
        # the stack is moved before anything else is mapped
        if (kind & 255 == _EXEC_STACK and elf.mm.vmas != [elf.stack]) or (
            kind & 255 == _EXEC_SPECIAL and elf.mm.vmas_in(start, end)
        ):
            self._impossible(row)
            return
        prot, pgoff = self.prot[row], self.pgoff[row]
        if kind & 255 == _EXEC_STACK:
            elf.stack_moved(start, end, pgoff)
        elif kind & 255 == _EXEC_SPECIAL:
            elf.special(start, end, prot, pgoff)
        elif kind & 255 == _EXEC_ANON:
            elf.anonymous(start, end, prot)
        else:
            elf.segment(start, end, prot, pgoff, self.files[self.file[row]], bool(kind & _EXEC_SHARED))

    def _fork(self, task: Task, row: int) -> None:
        if task.mm is None:
            self._no_mm(row)
            return
        child = dup_mm(task.mm)
        peer = self.peer[row]
        if not peer:  # failed after the copy
            exit_mmap(child)
            return
        self.owners[child] = peer
        self.tasks[peer] = Task(child)

    def _clone_vm(self, task: Task, row: int) -> None:
        if task.mm is None:
            self._no_mm(row)
            return
        task.mm.users += 1
        self.tasks[self.peer[row]] = Task(task.mm)

    def _exit(self, task: Task, row: int) -> None:
        self._leave(task)

    def _exit_mmap(self, task: Task, row: int) -> None:
        if task.mm is None:
            self._no_mm(row)
            return
        self._teardown(task.mm)
        task.mm = task.elf = None

    # --- system calls

    def _mmap(self, task: Task, row: int) -> None:
        mm = task.mm
        start, flags = self.ret[row], self.flags[row]
        if mm is None:
            self._no_mm(row)
            return
        if start < 0:
            if start == -fl.ENOMEM and flags & fl.MAP_HUGETLB:
                self._no_huge_pages(mm)
            return
        length = self.len[row]
        if not self._possible(row, start, length):
            return
        number = self.file[row]
        file = self.files[number] if number >= 0 else None
        shared = flags & fl.MAP_TYPE in (fl.MAP_SHARED, fl.MAP_SHARED_VALIDATE)
        if file is not None and shared and flags & fl.MAP_ANONYMOUS:
            file.pages = fl.page_align(length) >> fl.PAGE_SHIFT  # the shmem file made for it
        vma = do_mmap(mm, start, length, self.prot[row], flags, file, self.pgoff[row])
        if self.len2[row] and (vma.vm_start, vma.vm_end - vma.vm_start) != (self.addr2[row], self.len2[row]):
            self.range_differs += 1

    def _no_huge_pages(self, mm: Mm) -> None:
        """hugetlbfs_file_mmap finds no pages to reserve after the VMA was allocated"""
        hooks = self.kernel.hooks
        hooks.vm_area_free(hooks.vm_area_alloc(mm))

    def _munmap(self, task: Task, row: int) -> None:
        mm = task.mm
        if mm is None:
            self._no_mm(row)
        elif self.ret[row] == 0:
            start = self.addr[row]
            if self._possible(row, start, self.len[row]):
                with self.kernel.locks.mmap_write(mm):
                    do_munmap(mm, start, start + fl.page_align(self.len[row]), unlock=True)

    def _mprotect(self, task: Task, row: int) -> None:
        if task.mm is None:
            self._no_mm(row)
        elif self.ret[row] != -fl.EINVAL:  # which is found before anything is changed
            self._look_up(task.mm, row)
            mprotect(task.mm, self.addr[row], self.len[row], self.prot[row])

    def _mremap(self, task: Task, row: int) -> None:
        if task.mm is None:
            self._no_mm(row)
        elif self._may_remap(task.mm, row):
            mremap(
                task.mm,
                self.addr[row],
                self.len[row],
                self.len2[row],
                self.flags[row],
                self.addr2[row],
                self.ret[row],
            )

    def _may_remap(self, mm: Mm, row: int) -> bool:
        """Could a call that succeeded have done so in the model's address space?"""
        self._look_up(mm, row)
        start, new = self.addr[row], self.ret[row]
        if new < 0:
            return True
        old_length, length = fl.page_align(self.len[row]), fl.page_align(self.len2[row])
        if start & (fl.PAGE_SIZE - 1) or old_length < 0 or not self._possible(row, new, length):
            return False
        vma = mm.vma_lookup(start)
        several = self.flags[row] & fl.MREMAP_FIXED and old_length == length
        if vma is not None and start + min(old_length, length) > vma.vm_end and not several and new != start:
            self._impossible(row)
            return False
        if self.flags[row] & fl.MREMAP_FIXED:
            taken = start < new + length and new < start + old_length
        elif new == start and not self.flags[row] & fl.MREMAP_DONTUNMAP:
            taken = length > old_length and bool(mm.vmas_in(start + old_length, start + length))
        else:
            taken = bool(mm.vmas_in(new, new + length))
        if taken:
            self._impossible(row)
        return not taken

    def _brk(self, task: Task, row: int) -> None:
        if task.mm is None:
            self._no_mm(row)
        elif not 0 <= self.ret[row] <= _USER_END:
            self._impossible(row)
        else:
            brk(task.mm, self.ret[row])

    def _madvise(self, task: Task, row: int) -> None:
        if task.mm is None:
            self._no_mm(row)
        elif not self.addr[row] & (fl.PAGE_SIZE - 1):  # else EINVAL, before anything is changed
            madvise(task.mm, self.addr[row], self.len[row], self.flags[row], self.ret[row] < 0)

    def _mlock(self, task: Task, row: int) -> None:
        if task.mm is None:
            self._no_mm(row)
        elif self.ret[row] not in (-fl.EPERM, -fl.EINVAL):  # which are found before anything is changed
            self._look_up(task.mm, row)
            mlock(task.mm, self.addr[row], self.len[row], self.flags[row], self.ret[row] < 0)

    def _munlock(self, task: Task, row: int) -> None:
        if task.mm is None:
            self._no_mm(row)
        elif self.ret[row] != -fl.EINVAL:
            self._look_up(task.mm, row)
            munlock(task.mm, self.addr[row], self.len[row])

    def _mlockall(self, task: Task, row: int) -> None:
        if task.mm is None:
            self._no_mm(row)
        elif self.ret[row] == 0:
            mlockall(task.mm, self.flags[row])

    def _munlockall(self, task: Task, row: int) -> None:
        if task.mm is None:
            self._no_mm(row)
        elif self.ret[row] == 0:
            munlockall(task.mm)

    def _shmat(self, task: Task, row: int) -> None:
        mm = task.mm
        start = self.ret[row]
        if mm is None:
            self._no_mm(row)
            return
        if start < 0 or not self._possible(row, start, self.len[row]):
            return
        vm_flags = fl.prot_to_vm_flags(self.prot[row]) | fl.VM_MAYREAD | fl.VM_MAYEXEC | fl.VM_MAYSHARE | fl.VM_SHARED
        if vm_flags & fl.VM_WRITE:
            vm_flags |= fl.VM_MAYWRITE
        file = self.files[self.file[row]] if self.file[row] >= 0 else File("shm", close=True)
        with self.kernel.locks.mmap_write(mm):
            mmap_region(
                mm,
                start,
                start + fl.page_align(self.len[row]),
                vm_flags | mm.def_flags,
                file,
                self.pgoff[row],
            )

    def _shmdt(self, task: Task, row: int) -> None:
        """ksys_shmdt: the first VMA from the address on that lies where its segment would if attached there, then the
        later ones of the same segment"""
        mm = task.mm
        if mm is None:
            self._no_mm(row)
            return
        if self.ret[row] != 0:
            return
        address = self.addr[row]
        file: File | None = None
        with self.kernel.locks.mmap_write(mm):
            for vma in mm.vmas_in(address, _USER_END):
                here = vma.vm_start - (vma.vm_pgoff << fl.PAGE_SHIFT) == address
                segment = vma.vm_file
                if here and segment is not None and segment.close and file in (None, segment):
                    file = segment
                    do_munmap(mm, vma.vm_start, vma.vm_end)

    # --- faults

    def _fault(self, task: Task, row: int) -> None:
        mm = task.mm
        address = self.addr[row]
        if mm is None:
            self._no_mm(row)
            return
        if address < 0:  # a kernel address
            return
        if not handle_mm_fault(mm, address, bool(self.flags[row] & _FAULT_WRITE)):
            task.late_fault = address if self.flags[row] & _FAULT_WRITE else None

    def _grow(self, task: Task, row: int) -> None:
        mm = task.mm
        if mm is None:
            self._no_mm(row)
            return
        start = self.addr[row]
        if not self._possible(row, start, fl.PAGE_SIZE):
            return
        vma = mm.find_vma(start)
        if vma is None or not vma.vm_flags & fl.VM_GROWSDOWN or vma.vm_start <= start:
            self.problems["grow: no stack there"] += 1
            return
        with self.kernel.locks.mmap_write(mm):
            expand_downwards(mm, vma, start)
        if task.late_fault is not None:
            handle_mm_fault(mm, task.late_fault, True)
            task.late_fault = None

    def _unknown(self, task: Task, row: int) -> None:
        """Carries slab events only."""
