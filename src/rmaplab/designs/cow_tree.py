# SPDX-License-Identifier: GPL-2.0-only
"""The objects of :mod:`rmaplab.designs.cow_context`: the tree of contexts, and the remap records of each."""

from collections.abc import Iterator
from typing import ClassVar

from rmaplab.mm.folio import Folio
from rmaplab.mm.mm import Mm

__all__ = ["CONTEXT_SIZE", "REMAP_SIZE", "CowContext", "Remap"]

CONTEXT_SIZE = 112
"""Bytes of a context on a 64-bit kernel: mm, parent and root (24), hlist head of the children and node of the siblings
(24), reference count and flag (8), rwsem (40, the root's is used), interval tree of the records (16)."""

REMAP_SIZE = 64
"""Bytes of a record: node of the interval tree with its range (24 + 24), base (8), number of VMAs (8)."""


class Remap:
    """A remap record: some faulted VMAs of the context's mm lie at `base`, the address of page index 0 in bytes.

    vmas: how many. The record for base 0, where address = index, is no object: a word that names it is the context.
    first, last: they map no index outside of [first, last)
    """

    __slots__ = ("base", "context", "first", "last", "vmas")
    CONST: ClassVar = ("base", "context")

    def __init__(self, context: "CowContext", base: int) -> None:
        self.context = context
        self.base = base
        self.vmas = 0
        self.first, self.last = (1 << 64, 0) if base else (0, 1 << 64)

    def cover(self, first: int, last: int) -> None:
        """Widen the range to [first, last)."""
        if first < self.first:
            self.first = first
        if last > self.last:
            self.last = last


class CowContext:
    """The context of one mm. The rwsem of the root protects all contexts of the tree and their records.

    mm: None once the process is gone
    root: the context at the top; it stays as long as there is any other below it
    refcount: the mm's, one for each child, and pins. A context holds one on its parent until it is freed, also while
        it is no longer in the tree
    children: those in the tree
    remaps: base -> record
    unnamed: a dead context that no folio will name once the process below it is gone; it is cut out then
    """

    __slots__ = ("children", "mm", "parent", "refcount", "remaps", "root", "unnamed")
    ATOMIC: ClassVar = ("refcount", "unnamed")
    CONST: ClassVar = ("root",)

    def __init__(self, mm: Mm, parent: "CowContext | None") -> None:
        self.mm: Mm | None = mm
        self.parent = parent
        self.root: CowContext = self if parent is None else parent.root
        self.children: list[CowContext] = []
        self.refcount = 1
        self.remaps: dict[int, Remap] = {}
        self.unnamed = False

    def try_get(self) -> bool:
        """Inc-not-zero"""
        if not self.refcount:
            return False
        self.refcount += 1
        return True

    def is_link(self) -> bool:
        """Dead, with one child: the child's subtree holds the same address spaces."""
        return self.mm is None and len(self.children) == 1

    def subtree(self) -> "Iterator[CowContext]":
        """This context and all below, each before its children: a fork that copies an entry which the walk has passed
        has put its context where the walk will come to."""
        stack = [self]
        while stack:
            context = stack.pop()
            yield context
            stack.extend(reversed(context.children))

    def in_range(self, folio: Folio) -> list[Remap]:
        """The records whose range of indices `folio` meets."""
        index, end = folio.index, folio.index + folio.nr_pages
        return [remap for remap in self.remaps.values() if remap.first < end and index < remap.last]

    def adopt(self, child: "CowContext") -> None:
        """`child` is new below this context, which is that of a process that forks."""
        self.children.append(child)
        self.refcount += 1
        self._find_unnamed()

    def _find_unnamed(self) -> None:
        """Dead ancestors of a process that forks for the first time have only its folios left to name them, and hook 6
        renames all that it shares with the child. What it does not share goes with it. The root keeps its name."""
        if len(self.children) > 1:
            return
        above = self.parent
        while above is not None and above.parent is not None and above.is_link() and above.refcount == 1:
            above.unnamed = True
            above = above.parent

    def cut_out_unnamed(self) -> "list[CowContext]":
        """Take the unnamed contexts above this one, which is dead now, out of the tree: its process, the only one below
        them, is gone. They are returned, each to lose the reference of its child."""
        gone = []
        while self.parent is not None and self.parent.unnamed:
            dead = self.parent
            above = dead.parent
            assert above is not None  # the root is never unnamed
            self.parent = above
            above.children[above.children.index(dead)] = self
            above.refcount += 1
            gone.append(dead)
        return gone
