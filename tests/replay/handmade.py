# SPDX-License-Identifier: GPL-2.0-only
"""Traces written by hand: operations of one or more tasks, each with the slab events that the kernel is to have shown.

>>> run = Run()
>>> run.mmap(0x10, 4, kernel="+v1")
>>> run.write(0x10, kernel="+c2 +a3")

Addresses and lengths are in pages. In `kernel`, `+` is an allocation and `-` a free of v (vm_area_struct), a (anon_vma)
or c (anon_vma_chain), with the number of the object.
"""

from typing import Any

from rmaplab.mm import flags as fl
from rmaplab.trace.schema import Meta, Trace, pack_truth

__all__ = ["PRIVATE", "RW", "Run", "words"]

RW = fl.PROT_READ | fl.PROT_WRITE
PRIVATE = 0x02 | fl.MAP_ANONYMOUS | fl.MAP_FIXED  # MAP_PRIVATE

_SIZES = {
    "vm_area_struct": {"object_size": 192, "slot_size": 192},
    "anon_vma": {"object_size": 96, "slot_size": 104},
    "anon_vma_chain": {"object_size": 64, "slot_size": 64},
}


def words(text: str) -> list[int]:
    """The `truth` column of slab events in the short form.

    >>> words("+v1 -a3") == [pack_truth(1, 0, True), pack_truth(3, 1, False)]
    True
    """
    return [pack_truth(int(event[2:]), "vac".index(event[1]), event[0] == "+") for event in text.split()]


class Run:
    """A trace that grows; task 1 runs a program whose stack is objects v9001, c9002 and a9003."""

    def __init__(self, *, kernel: str = "6.18.0", files: tuple[str, ...] = (), **meta: Any) -> None:
        self.trace = Trace.empty(Meta(truth=True, locks=True, kernel=kernel, slabs=_SIZES, files=list(files), **meta))
        self.calls = 0
        if kernel != "none":
            self.op("exec_prepare", tid=1, kernel="+v9001 +c9002 +a9003")
            self.op("exec", tid=1, kernel="")

    def op(
        self,
        name: str,
        *,
        kernel: str | None = None,
        tid: int = 1,
        pid: int | None = None,
        call: int | None = None,
        quiescent: bool = True,
        **values: int,
    ) -> int:
        """Append one row, of a call of its own unless `call` is given; the number of the call."""
        if call is None:
            call = self.calls = self.calls + 1
        self.trace.append(
            name,
            time=len(self.trace) * 1_000_000,
            tid=tid,
            pid=tid if pid is None else pid,
            call=call,
            quiescent=quiescent,
            truth=None if kernel is None else words(kernel),
            **values,
        )
        return call

    def mmap(
        self, page: int, pages: int, *, prot: int = RW, flags: int = PRIVATE, kernel: str = "", **more: Any
    ) -> None:
        """mmap that returned `page`."""
        self.op("mmap", addr=page << 12, ret=page << 12, len=pages << 12, prot=prot, flags=flags, kernel=kernel, **more)

    def munmap(self, page: int, pages: int, *, kernel: str = "", **more: Any) -> None:
        """A successful munmap."""
        self.op("munmap", addr=page << 12, len=pages << 12, kernel=kernel, **more)

    def mprotect(self, page: int, pages: int, prot: int, *, kernel: str = "", **more: Any) -> None:
        """A successful mprotect."""
        self.op("mprotect", addr=page << 12, len=pages << 12, prot=prot, kernel=kernel, **more)

    def madvise(self, page: int, pages: int, advice: int, *, kernel: str = "", **more: Any) -> None:
        """A successful madvise."""
        self.op("madvise", addr=page << 12, len=pages << 12, flags=advice, kernel=kernel, **more)

    def mlock(self, page: int, pages: int, *, kernel: str = "", **more: Any) -> None:
        """A successful mlock."""
        self.op("mlock", addr=page << 12, len=pages << 12, kernel=kernel, **more)

    def mremap(
        self, page: int, pages: int, new_pages: int, flags: int, to: int, *, kernel: str = "", **more: Any
    ) -> None:
        """mremap that returned `to`."""
        self.op(
            "mremap",
            addr=page << 12,
            len=pages << 12,
            len2=new_pages << 12,
            flags=flags,
            addr2=to << 12 if flags & fl.MREMAP_FIXED else 0,
            ret=to << 12,
            kernel=kernel,
            **more,
        )

    def write(self, page: int, *, kernel: str = "", **more: Any) -> None:
        """A write fault."""
        self.op("fault", addr=page << 12, flags=2, kernel=kernel, **more)

    def fork(self, child: int, *, kernel: str = "", **more: Any) -> None:
        """A fork of process `child`."""
        self.op("fork", peer=child, kernel=kernel, **more)

    def exit(self, *, kernel: str = "", tid: int = 1, inferred: bool = False) -> None:
        """The task leaves, and its mm is torn down."""
        call = self.op("exit", tid=tid, quiescent=False)
        self.op("exit_mmap", tid=tid, call=call, flags=int(inferred), kernel=kernel)
