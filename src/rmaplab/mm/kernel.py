# SPDX-License-Identifier: GPL-2.0-only
"""The whole modelled kernel: one design, its slab caches, its locks and the memory map."""

from collections.abc import Callable
from typing import Any

from rmaplab.mm.folio import ContentsMap, Folio, MemMap
from rmaplab.mm.hooks import Hooks
from rmaplab.mm.ksm import Ksm
from rmaplab.mm.locks import CountingLocks
from rmaplab.mm.mm import Mm
from rmaplab.mm.profile import V6_18, KernelProfile
from rmaplab.mm.slab import SlabCache, SlabSize
from rmaplab.mm.swap import Swap

__all__ = ["CACHE_NAMES", "Kernel"]

CACHE_NAMES = ("vm_area_struct", "anon_vma", "anon_vma_chain")
"""The caches of mainline. Those that a design creates besides come after them, in order of creation."""

_POINTER = 8  # slots are aligned to it


class Kernel:
    """A kernel that runs the design `hooks`.

    thp: transparent huge pages by default: "always", "madvise" or "never"
    contents: keep what each page holds (``mem.contents``)
    special: page tables may hold entries that are not present, folios may be in the swap cache or belong to KSM, or
        somebody wants to hear of every entry that goes; until one of these is so, the hot paths look at nothing else
    file_guards: a mapping of a file has had guard markers
    folio_removed: hook 14, or None if the design does not want it
    """

    def __init__(
        self,
        hooks: Hooks,
        profile: KernelProfile = V6_18,
        locks: Any = None,
        *,
        thp: str = "madvise",
        contents: bool = False,
    ) -> None:
        self.hooks = hooks
        self.profile = profile
        self.locks: Any = locks if locks is not None else CountingLocks()
        self.thp = thp
        self.slabs: tuple[SlabCache, ...] = tuple(
            self.slab_cache(name, number, None) for number, name in enumerate(CACHE_NAMES)
        )
        self.vm_area_struct, self.anon_vma, self.anon_vma_chain = self.slabs
        self.mem: MemMap = ContentsMap() if contents else MemMap()
        self.swap = Swap(self)
        self.ksm = Ksm(self)
        self.folio_removed: Callable[[Folio, Mm, int], None] | None = None
        if hooks.wants_removals:
            self.folio_removed = hooks.folio_removed
        self.special = contents or hooks.wants_removals
        self.file_guards = False
        self.mms_created = 0
        self.mms_freed = 0
        self.exits: list[Mm] = []  # address spaces without users that are still to be torn down
        hooks.attach(self)

    def slab_cache(self, name: str, number: int, size: SlabSize | None) -> SlabCache:
        """Makes a cache; the checker's kernel has caches of its own kind."""
        return SlabCache(name, number, size)

    def slab(self, name: str, object_size: int, *, rcu: bool = False) -> SlabCache:
        """A new cache of a design, for objects of `object_size` bytes (kmem_cache_create). For use in its attach().

        rcu: what is freed stays readable until a grace period has ended (kfree_rcu)
        """
        slot_size = -(-object_size // _POINTER) * _POINTER
        cache = self.slab_cache(name, len(self.slabs), SlabSize(object_size, slot_size))
        cache.rcu = rcu
        self.slabs = (*self.slabs, cache)
        return cache

    def mm_alloc(self) -> Mm:
        """A new, empty address space."""
        self.mms_created += 1
        return Mm(self, self.mms_created)

    def mmgrab(self, mm: Mm) -> None:
        """Keep the mm_struct, though perhaps not what is mapped in it."""
        mm.count += 1

    def mmdrop(self, mm: Mm) -> None:
        """Drop such a reference."""
        mm.count -= 1
        if not mm.count:
            self.mm_free(mm)

    def mmput_async(self, mm: Mm) -> None:
        """Drop what :meth:`Mm.mmget_not_zero` took. If it was the last, the address space is torn down by somebody else
        (:attr:`exits`), since who walks holds locks."""
        mm.users -= 1
        if not mm.users:
            self.exits.append(mm)

    def mm_free(self, mm: Mm) -> None:
        """The mm_struct is freed; it is in no slab cache of ours."""
        self.mms_freed += 1

    def log_slabs(self, caches: int | None = None) -> list[tuple[int, int, Any]]:
        """Start logging the events of all caches, or of the first `caches`; the list returned receives (1 alloc or
        0 free, cache number, object)."""
        log: list[tuple[int, int, Any]] = []
        for slab in self.slabs[:caches]:
            slab.log = log
        return log
