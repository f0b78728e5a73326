# SPDX-License-Identifier: GPL-2.0-only
"""The objects of :mod:`rmaplab.designs.cow_context`: the tree of contexts, and the remap records of each."""

from collections.abc import Iterator

from rmaplab.mm.mm import Mm

__all__ = ["CONTEXT_SIZE", "REMAP_SIZE", "CowContext", "Remap"]

CONTEXT_SIZE = 112
"""Bytes of a context on a 64-bit kernel: mm and parent (8 + 8), list heads of the children and of the siblings (32),
reference count and flags (8), rwsem (40), interval tree of the records (16)."""

REMAP_SIZE = 64
"""Bytes of a record: node of the interval tree with its range (24 + 24), base (8), number of VMAs (8)."""


class Remap:
    """A remap record: some faulted VMAs of the context's mm lie at `base`, the address of page index 0 in bytes.

    vmas: how many. The record for base 0, where address = index, is no object: a word that names it is the context.
    first, last: they map no index outside of [first, last)
    """

    __slots__ = ("base", "context", "first", "last", "vmas")

    def __init__(self, context: "CowContext", base: int) -> None:
        self.context = context
        self.base = base
        self.vmas = 0
        self.first, self.last = (1 << 64, 0) if base else (0, 1 << 64)


class CowContext:
    """The context of one mm.

    mm: None once the process is gone
    refcount: the mm's, one for each child, and pins
    remaps: base -> record
    unnamed: a dead context that no folio names any more; it goes when the process below it does
    """

    __slots__ = ("children", "mm", "parent", "refcount", "remaps", "unnamed")

    def __init__(self, mm: Mm, parent: "CowContext | None") -> None:
        self.mm: Mm | None = mm
        self.parent = parent
        self.children: list[CowContext] = []
        self.refcount = 1
        self.remaps: dict[int, Remap] = {}
        self.unnamed = False

    def is_link(self) -> bool:
        """Dead, with one child: the child's subtree holds the same address spaces."""
        return self.mm is None and len(self.children) == 1

    def lowest(self) -> "CowContext":
        """The lowest context whose subtree holds the same address spaces."""
        context = self
        while context.is_link():
            context = context.children[0]
        return context

    def tree(self) -> "CowContext":
        """The lowest context whose subtree holds all relatives."""
        context = self
        while context.parent is not None:
            context = context.parent
        return context.lowest()

    def subtree(self) -> "Iterator[CowContext]":
        """This context and all below, each before its children: a fork that copies an entry which the walk has passed
        has put its context where the walk will come to."""
        stack = [self]
        while stack:
            context = stack.pop()
            yield context
            stack.extend(reversed(context.children))
