# SPDX-License-Identifier: GPL-2.0-only
"""What a page fault holds: the lock of its VMA, or the mmap lock where that is not to be had (mm/memory.c).

Under the VMA lock a fault must not wait for much else: it gives up, and is taken again under the mmap lock.
"""

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rmaplab.mm.folio import Folio
    from rmaplab.mm.kernel import Kernel
    from rmaplab.mm.mm import Mm
    from rmaplab.mm.vma import Vma

__all__ = ["FaultRetry", "folio_lock_or_retry", "lock_vma_under_rcu", "vmf_anon_prepare"]


class FaultRetry(Exception):
    """VM_FAULT_RETRY: a fault under the VMA lock gave up. It has changed nothing."""


def lock_vma_under_rcu(mm: "Mm", address: int) -> "tuple[Vma, AbstractContextManager[Any]] | None":
    """The VMA at `address`, and its lock, which is held; None if a writer is at it, or it is not there any more."""
    locks = mm.kernel.locks
    with locks.rcu_read():
        vma = mm.vma_lookup(address)
        if vma is None:
            return None
        guard = locks.vma_start_read(vma)
        if guard is None:
            return None
        if vma.vm_start <= address < vma.vm_end:  # it may have changed before it was locked
            return vma, guard
        with guard:
            return None


def vmf_anon_prepare(vma: "Vma", vma_locked: bool) -> None:
    """Give `vma` what it needs for its first anonymous page (vmf_anon_prepare). Its neighbours are looked at, so the
    VMA lock is not enough."""
    if vma.anon_vma is not None:
        return
    kernel = vma.vm_mm.kernel
    if not vma_locked:
        kernel.hooks.anon_vma_prepare(vma)
        return
    guard = kernel.locks.mmap_read_trylock(vma.vm_mm)
    if guard is None:
        raise FaultRetry
    with guard:
        kernel.hooks.anon_vma_prepare(vma)


def folio_lock_or_retry(kernel: "Kernel", folio: "Folio", vma_locked: bool) -> AbstractContextManager[Any]:
    """The lock of `folio`, which only a fault under the mmap lock waits for (folio_lock_or_retry)."""
    if not vma_locked:
        return kernel.locks.folio(folio)  # type: ignore[no-any-return]
    guard = kernel.locks.folio_trylock(folio)
    if guard is None:
        raise FaultRetry
    return guard  # type: ignore[no-any-return]
