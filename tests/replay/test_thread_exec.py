# SPDX-License-Identifier: GPL-2.0-only
"""execve called by a thread that is not the leader of its process."""

from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm.kernel import Kernel
from rmaplab.replay.replayer import Replayer
from rmaplab.trace.schema import EXEC_FIRST, Trace


def test_the_mm_of_the_call_moves_to_the_leader() -> None:
    """A replay that builds the new mm for the thread and leaves the old one, or a second stack, alive at the leader's
    tid (de_thread: the caller takes over the leader's tid; the recording says so in `peer`)."""
    trace = Trace.empty()
    trace.append("exec_prepare", tid=10, pid=10)
    trace.append("exec", tid=10, pid=10, flags=EXEC_FIRST)
    trace.append("clone_vm", tid=10, pid=10, peer=11, flags=0x100)
    trace.append("exit", tid=10, pid=10)
    trace.append("exec_prepare", tid=11, pid=10)
    trace.append("exit_mmap", tid=11, pid=10)
    trace.append("exec", tid=10, pid=10, peer=11)
    trace.append("mmap", tid=10, pid=10, addr=1 << 30, ret=1 << 30, len=4096, prot=3, flags=0x22)
    kernel = Kernel(AnonVmaDesign())
    replayer = Replayer(kernel, trace)
    replayer.run()
    assert 11 not in replayer.tasks
    (mm,) = replayer.live_mms()
    assert replayer.tasks[10].mm is mm
    assert len(mm.vmas) == 2  # the stack and the mapping
    assert kernel.vm_area_struct.live == 2
    assert not replayer.problems
