# SPDX-License-Identifier: GPL-2.0-only
"""Slab caches: every kernel object of the model comes from one, so that objects can be counted.

A cache hands out no memory; the objects are Python objects. It counts them, and logs each
allocation and free when somebody (the ground-truth comparison, an oracle) asks for the log.
"""

from dataclasses import dataclass
from typing import Any, TypeVar

__all__ = ["SLAB_PROFILES", "AllocationFailure", "SlabCache", "SlabSize", "UseAfterFree", "slab_pages"]


_Object = TypeVar("_Object")


class AllocationFailure(Exception):
    """A slab allocation returned NULL (only where a checker or a test made it fail)."""


@dataclass(frozen=True, slots=True)
class SlabSize:
    """Sizes of one cache in bytes: the object (``bytes_req``) and its slot (``bytes_alloc``), and the
    slab's length in pages (``pagesperslab``)."""

    object_size: int
    slot_size: int
    pages_per_slab: int = 1


# Where each figure comes from: docs/model.md, "Slab sizes".
SLAB_PROFILES: dict[str, dict[str, SlabSize]] = {
    "x86-64 6.18": {
        "vm_area_struct": SlabSize(192, 192),
        "anon_vma": SlabSize(96, 104),
        "anon_vma_chain": SlabSize(64, 64),
    },
    "x86-64 6.12": {
        "vm_area_struct": SlabSize(176, 176),
        "anon_vma": SlabSize(96, 104),
        "anon_vma_chain": SlabSize(64, 64),
    },
    "arm64 GKI 6.12": {
        "vm_area_struct": SlabSize(256, 256, 2),
        "anon_vma": SlabSize(120, 128),
        "anon_vma_chain": SlabSize(64, 64),
    },
}


class UseAfterFree(Exception):
    """The model reached an object that has been freed."""


class SlabCache:
    """One kmem_cache.

    >>> cache = SlabCache("anon_vma", 1)
    >>> anon_vma = cache.alloc("an anon_vma"); cache.live
    1
    """

    __slots__ = ("fail", "live", "log", "name", "number", "rcu", "size", "total")

    def __init__(self, name: str, number: int, size: SlabSize | None = None) -> None:
        self.name = name
        self.number = number
        self.size = size  # of a cache that a design has of its own; None = as recorded, or of a slab profile
        self.live = 0  # objects allocated and not freed
        self.total = 0  # allocations since the start
        self.log: list[tuple[int, int, Any]] | None = None  # (1 alloc / 0 free, cache number, object)
        self.fail = False  # the next allocation returns NULL
        self.rcu = False  # freed memory stays until a grace period has ended (kfree_rcu)

    def alloc(self, obj: _Object) -> _Object:
        """Count `obj` as allocated, and return it (a checker: perhaps a freed one that has become what `obj` is).

        Raises :class:`AllocationFailure` if told to.
        """
        if self.fail:
            self.fail = False
            raise AllocationFailure(self.name)
        self.live += 1
        self.total += 1
        if self.log is not None:
            self.log.append((1, self.number, obj))
        return obj

    def free(self, obj: Any) -> None:
        """Count `obj` as freed."""
        self.live -= 1
        if self.log is not None:
            self.log.append((0, self.number, obj))


def slab_pages(objects: int, size: SlabSize, page_size: int) -> int:
    """Pages of the slabs that hold `objects` when densely packed (the least the cache can take)."""
    per_slab = size.pages_per_slab * page_size // size.slot_size
    return -(-objects // per_slab) * size.pages_per_slab
