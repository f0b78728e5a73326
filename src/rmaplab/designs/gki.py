# SPDX-License-Identifier: GPL-2.0-only
"""The seed mail's smaller form for Android's vendor hooks.

A shared lock object (one, or a set) stands in ``vma->anon_vma`` and marks the VMA lazy, so that the many places that
ask for, lock or compare ``vma->anon_vma`` stay as they are. Reserved fields of the VMA hold the root VMA and a
reference count. Only VMAs that a process maps itself are lazy: a forked child's inherited VMAs are what mainline makes
of them, after hook 5 has upgraded the parent's.
"""

from typing import Any

from rmaplab.designs.anon_vma import AnonVma, AnonVmaDesign
from rmaplab.designs.lazy_root import LazyRootDesign
from rmaplab.designs.lazy_walk import Pinned
from rmaplab.errors import UserError
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mm import Mm
from rmaplab.mm.vma import Vma

__all__ = ["GkiDesign", "LazyLock", "LazyMark"]


class LazyLock(AnonVma):
    """A shared anon_vma_lock. For the kernel's unchanged code it is an anon_vma whose tree is always empty."""

    __slots__ = ()


class LazyMark:
    """Marks VMAs with one of a set of shared locks; for designs that derive from AnonVmaDesign.

    locks: how many; a VMA takes that of its mm's number, so that VMAs of one mm agree
    opt_in: "start": every process is in from its start; "fork": only a process that was forked without exec, as the
        applications of a zygote are
    """

    kernel: Kernel

    def init_mark(self, locks: int, opt_in: str) -> None:
        """Called by the design's __init__. Raises UserError for impossible arguments."""
        if locks < 1:
            raise UserError(f"the number of anon_vma_locks must be 1 or more, not {locks}")
        if opt_in not in ("start", "fork"):
            raise UserError(f"opt_in must be 'start' or 'fork', not {opt_in!r}")
        self.locks = tuple(LazyLock() for _ in range(locks))
        self.opt_in = opt_in
        self.forked: set[Mm] = set()

    def opted_in(self, mm: Mm) -> bool:
        """Has the process of `mm` asked for lazy VMAs?"""
        return self.opt_in == "start" or mm in self.forked

    def lock_of(self, mm: Mm) -> LazyLock:
        """The lock that marks the lazy VMAs of `mm`."""
        return self.locks[mm.ident % len(self.locks)]


class GkiDesign(LazyMark, LazyRootDesign):
    """The hook form.

    ksm, memory_failure: also hooks 11 and 12, which the mail leaves out. Without them that code does with the shared
        lock what it does with an anon_vma, and finds nothing.
    bits32: on 32-bit there are no reserved fields: nothing is lazy
    """

    name = "gki"
    as_mainline = (15,)  # for `rmaplab hooks`: what mm_gone forgets would be a flag of the mm

    def __init__(
        self,
        *,
        locks: int = 1,
        opt_in: str = "start",
        ksm: bool = True,
        memory_failure: bool = True,
        bits32: bool = False,
    ) -> None:
        self.init_mark(locks, opt_in)
        self.ksm = ksm
        self.memory_failure = memory_failure
        self.bits32 = bits32

    walk_locks_vma = False
    pin_locks_vmas = False
    root_pins_mm = False

    def walk_lock(self, root: Vma) -> AnonVma | None:
        """The lock that the unchanged code takes for writing around changes of a lazy VMA's range (vma_prepare)."""
        return self.lock_of(root.vm_mm)

    def anon_vma_lock(self, vma: Vma) -> Any:
        """What stands in ``vma->anon_vma``, regular or shared: unchanged code."""
        return AnonVmaDesign.anon_vma_lock(self, vma)

    def split_lock(self, pinned: Any) -> Any:
        """Hook 16: unchanged code finds the shared lock, too."""
        return (
            self.kernel.locks.anon_vma_write(self.lock_of(pinned.named.vm_mm))
            if isinstance(pinned, Pinned)
            else super().split_lock(pinned)
        )

    def lazy_root(self, vma: Vma) -> Vma | None:
        """A shared lock in ``anon_vma`` says lazy; the root is in the reserved field."""
        return vma.reserved1 if isinstance(vma.anon_vma, LazyLock) else None

    def mark(self, vma: Vma, root: Vma) -> None:
        """The shared lock of the mm."""
        vma.anon_vma = self.lock_of(vma.vm_mm)

    def wants_lazy(self, vma: Vma) -> bool:
        """Only in processes that opted in."""
        return not self.bits32 and self.opted_in(vma.vm_mm)

    # --- hook 5

    def anon_vma_fork(self, vma: Vma, pvma: Vma) -> None:
        """A lazy VMA of the parent is upgraded; the rest is mainline's."""
        self.forked.add(vma.vm_mm)
        self.upgrade(pvma)
        super().anon_vma_fork(vma, pvma)

    # --- extra hooks

    def ksm_pin(self, vma: Vma) -> Any:
        return super().ksm_pin(vma) if self.ksm else AnonVmaDesign.ksm_pin(self, vma)

    def collect_procs_anon(self, folio: Any) -> Any:
        if self.memory_failure:
            return super().collect_procs_anon(folio)
        return AnonVmaDesign.rmap_walk_anon(self, folio)

    def mm_gone(self, mm: Mm) -> None:
        """Also forgets what it noted about `mm`."""
        self.forked.discard(mm)
        super().mm_gone(mm)

    # --- figures

    def vma_fields(self) -> dict[str, int]:
        return {"reserved: root VMA": 8, "reserved: reference count": 8, "reserved: base": 8}
