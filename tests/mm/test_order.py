# SPDX-License-Identifier: GPL-2.0-only
"""The order of locks, hooks and changes of the tree in each operation (docs/model.md, "Order of steps")."""

from collections.abc import Callable
from typing import Any

import pytest

from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm import flags as fl
from rmaplab.mm.access import mm_write
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.locks import CountingLocks
from rmaplab.mm.migrate import migrate_folio
from rmaplab.mm.mm import Mm
from rmaplab.mm.mmap import do_munmap
from rmaplab.mm.protect import mprotect
from rmaplab.mm.vma import split_vma
from rmaplab.mm.vmscan import shrink_folio
from tests.support.builders import folio_at, link, move
from tests.support.walks import made

LOCKS = {
    "mmap_read": "mmap-read",
    "mmap_write": "mmap-write",
    "mmap_read_trylock": "mmap-try",
    "vma_start_read": "vma-try",
    "vma_start_write": "vma-write",
    "anon_vma_read": "rmap-read",
    "anon_vma_trylock_read": "rmap-read",
    "anon_vma_write": "rmap-write",
    "page_table": "PTL",
    "page_table_lock": "page_table_lock",
    "folio": "folio",
    "folio_trylock": "folio-try",
    "free_pgtables": "free-tables",
}
HOOKS = {
    "anon_vma_prepare": "prepare",
    "folio_set_anon": "set-anon",
    "folio_get_anon_vma": "get-anon-vma",
    "put_anon_vma": "put-anon-vma",
    "anon_vma_fork": "anon-fork",
    "try_dup_anon_rmap": "dup-rmap",
    "anon_vma_clone": "clone",
    "anon_vma_lock": "rmap-lock",
    "unlink_anon_vmas": "unlink",
    "vm_area_alloc": "vma-alloc",
    "vm_area_dup": "vma-dup",
    "vm_area_free": "vma-free",
}
TREE = {"insert": "tree+", "insert_below": "tree+", "remove": "tree-", "resize": "tree="}


class Log:
    """Names in the order of calls; what a hook does inside is its design's own business."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.inside = False

    def wrap(self, method: Callable[..., Any], name: str, hook: bool = False) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if self.inside:
                return method(*args)
            self.names.append(name)
            self.inside = hook
            try:
                return method(*args)
            finally:
                self.inside = False

        return call


def order(patch: pytest.MonkeyPatch, operation: Callable[[Mm], object]) -> str:
    """What `operation` does to an address space with one VMA of four pages that are written."""
    log = Log()
    locks: Any = type("LogLocks", (CountingLocks,), {})()
    design: Any = AnonVmaDesign()
    kernel = Kernel(design, locks=locks, contents=True)
    mm = made(kernel)
    for method, name in LOCKS.items():
        patch.setattr(locks, method, log.wrap(getattr(locks, method), name))
    for method, name in HOOKS.items():
        patch.setattr(design, method, log.wrap(getattr(design, method), name, hook=True))
    for method, name in TREE.items():
        patch.setattr(Mm, method, log.wrap(getattr(Mm, method), name))
    memory = kernel.mem.__class__
    patch.setattr(memory, "free", log.wrap(memory.free, "page-free"))
    operation(mm)
    return " ".join(log.names)


def fork_and_write(mm: Mm) -> None:
    assert mm_write(dup_mm(mm), 0x10 << 12, 1)


def first_write(mm: Mm) -> None:
    link(mm, 0x400, 0x402)
    assert mm_write(mm, 0x400 << 12, 1)


def fault_in_from_swap(mm: Mm) -> None:
    assert shrink_folio(mm.kernel, folio_at(mm, 0x10))
    assert mm_write(mm, 0x10 << 12, 1)


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (  # do_anonymous_page: pte_alloc, __vmf_anon_prepare
            first_write,
            "vma-alloc vma-write tree+ vma-try PTL mmap-try prepare PTL set-anon",
        ),
        (  # dup_mmap; then do_wp_page, and wp_page_copy after a second look
            fork_and_write,
            "mmap-write mmap-write vma-write vma-dup anon-fork tree+ PTL PTL dup-rmap dup-rmap dup-rmap "
            "dup-rmap vma-try PTL PTL set-anon",
        ),
        (  # unmap_vmas, free_pgtables, tlb_finish_mmu, remove_vma
            exit_mmap,
            "mmap-read PTL mmap-write vma-write unlink free-tables page-free page-free page-free page-free vma-free",
        ),
        (  # the same, out of the tree first
            lambda mm: do_munmap(mm, 0x10 << 12, 0x14 << 12),
            "vma-write tree- PTL vma-write unlink free-tables page-free page-free page-free page-free vma-free",
        ),
        (  # __split_vma
            lambda mm: split_vma(mm, mm.vmas[0], 0x12 << 12, new_below=True),
            "vma-dup clone vma-write vma-write rmap-lock tree+",
        ),
        (  # mprotect_fixup
            lambda mm: mprotect(mm, 0x10 << 12, 2 << 12, fl.PROT_READ),
            "mmap-write vma-dup clone vma-write vma-write rmap-lock tree+ vma-write PTL",
        ),
        (  # move_vma: copy_vma, vma_link, move_ptes, do_vmi_munmap
            lambda mm: move(mm, 0x10, 0x14, 0x40),
            "mmap-write vma-write vma-dup clone vma-write tree+ PTL vma-write tree- PTL vma-write unlink "
            "free-tables vma-free",
        ),
        (  # shrink_folio_list; do_swap_page
            fault_in_from_swap,
            "folio-try rmap-read PTL rmap-read PTL page-free vma-try folio-try PTL set-anon",
        ),
        (  # migrate_folio_unmap, migrate_folio_move
            lambda mm: migrate_folio(mm.kernel, folio_at(mm, 0x10)),
            "folio get-anon-vma folio-try rmap-read PTL rmap-read PTL put-anon-vma page-free",
        ),
    ],
)
def test_order(operation: Callable[[Mm], object], expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert order(monkeypatch, operation) == expected
