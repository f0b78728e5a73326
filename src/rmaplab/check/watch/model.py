# SPDX-License-Identifier: GPL-2.0-only
"""What of the model is watched, and the watch itself."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rmaplab.check.engine import Run
from rmaplab.check.footprint import READ, WRITE
from rmaplab.check.watch.fields import Atomic, Const, Field, Own, Plain, activate, active
from rmaplab.check.watch.tree import TREE_METHODS, TreeField, muted, under_rcu
from rmaplab.check.watch.vma import VmaAnonVma, VmaField
from rmaplab.mm.folio import Folio
from rmaplab.mm.ksm import Ksm
from rmaplab.mm.mm import Mm
from rmaplab.mm.stable_node import StableNode
from rmaplab.mm.swap import Swap
from rmaplab.mm.vma import Vma

__all__ = ["groups_of", "watching"]


def _swap_access(run: Run, swap: Any, *args: Any) -> None:
    """Under the cluster's or the swap cache's own lock: each call is atomic, all of one device. The swap cache holds a
    reference of each of its folios"""
    run.point("swap slots and swap cache")
    run.touch(("swap", "slots"), WRITE)
    for arg in args:
        for folio in arg if isinstance(arg, list) else (arg,):
            if isinstance(folio, Folio):
                run.touch((run.name(folio), "counts"), WRITE)


def _counts(run: Run, folio: Any, *args: Any) -> None:
    name = run.name(folio)
    run.point(f"change {name}'s counts")
    run.alive(folio)
    run.touch((name, "counts"), WRITE)


def _count_read(run: Run, folio: Any, *args: Any) -> None:
    name = run.name(folio)
    run.point(f"read {name}.counts")
    run.alive(folio)
    run.touch((name, "counts"), READ)


def _try_get(run: Run, folio: Any, *args: Any) -> None:
    """The count of a folio that is free is 0, and can be asked for: struct page is always there"""
    name = run.name(folio)
    run.point(f"change {name}'s counts")
    run.touch((name, "counts"), WRITE)


# --- what is watched

_MODEL: dict[type, dict[str, tuple[type[Field], str]]] = {
    Folio: {
        "mapping": (Atomic, "mapping"),
        "mapcount": (Atomic, "counts"),
        "refs": (Atomic, "counts"),
        "index": (Plain, "index"),
        "exclusive": (Atomic, "exclusive"),
        "nr_pages": (Plain, "nr_pages"),
        "pfn": (Const, "pfn"),
    },
    Vma: {
        "vm_start": (VmaField, "range"),
        "vm_end": (VmaField, "range"),
        "vm_pgoff": (VmaField, "range"),
        "vm_flags": (VmaField, "vm_flags"),
        "anon_vma": (VmaAnonVma, "anon_vma"),
        "anon_vma_chain": (Plain, "anon_vma_chain"),
        "reserved1": (Atomic, "reserved1"),
        "reserved2": (Atomic, "reserved2"),
        "vm_mm": (Const, "vm_mm"),
    },
    Mm: {
        "vmas": (TreeField, "tree"),
        "starts": (TreeField, "tree"),
        "pgd": (Const, "pgd"),
        "count": (Atomic, "count"),
        "users": (Atomic, "users"),
    },
    Ksm: {"items": (Own, "items"), "nodes": (Own, "items")},
    Swap: dict.fromkeys(("cache", "counts", "from_ksm", "reading", "slot_of"), (Own, "slots")),
    StableNode: {"folio": (Atomic, "folio"), "items": (Plain, "items")},
}

_METHODS: dict[type, dict[str, Callable[..., None]]] = {
    Mm: TREE_METHODS,
    Swap: dict.fromkeys(
        (
            "duplicate",
            "free",
            "add_to_swap",
            "add_to_swap_cache",
            "delete_from_swap_cache",
            "remove_mapping",
            "replace",
            "split",
            "folio_free_swap",
        ),
        _swap_access,
    ),
    Folio: {
        **dict.fromkeys(("add_rmap", "remove_rmap", "get", "put", "freeze", "unfreeze"), _counts),
        "try_get": _try_get,
        "ref_count": _count_read,
    },
}


_LOOKUPS = ("vma_lookup", "find_vma", "vmas_in", "neighbours", "prev_next")


_groups: dict[type, tuple[str, ...]] = {}  # while watching


def groups_of(cls: type) -> tuple[str, ...]:
    """The location names of the watched fields of `cls`."""
    known = _groups.get(cls)
    if known is not None:
        return known
    found: dict[str, None] = {}
    for base in cls.__mro__:
        for value in vars(base).values():
            if isinstance(value, Field) and not isinstance(value, Const):
                found[value.group] = None
    if active() is not None:
        _groups[cls] = tuple(found)
    return tuple(found)


def _spec(cls: type) -> dict[str, tuple[type[Field], str]]:
    """A design's class: what it lists in ATOMIC is atomic, in CONST set once, the rest plain."""
    atomic: tuple[str, ...] = getattr(cls, "ATOMIC", ())
    const: tuple[str, ...] = getattr(cls, "CONST", ())
    slots: tuple[str, ...] = vars(cls).get("__slots__", ())
    return {
        name: (Atomic if name in atomic else Const if name in const else Plain, name)
        for name in slots
        if not name.startswith("_")
    }


@contextmanager
def watching(classes: Iterable[type]) -> Iterator[None]:
    """Watch the model, and these classes of a design."""
    saved: list[tuple[type, str, Any]] = []
    specs = {**_MODEL, **{cls: _spec(cls) for cls in classes}}
    try:
        for cls, fields in specs.items():
            for name, (kind, group) in fields.items():
                slot = vars(cls)[name]
                saved.append((cls, name, slot))
                setattr(cls, name, kind(slot, group))
        for cls, methods in _METHODS.items():
            for name, before in methods.items():
                original = vars(cls).get(name)
                if original is not None:
                    saved.append((cls, name, original))
                    setattr(cls, name, muted(original, before))
        for name in _LOOKUPS:
            original = vars(Mm)[name]
            saved.append((Mm, name, original))
            setattr(Mm, name, under_rcu(original, name))
        _install_raw(specs)
        yield
    finally:
        activate(None)
        _groups.clear()
        for cls, name, original in reversed(saved):
            setattr(cls, name, original)
        for cls, name in ((Vma, "raw_mm"), (Mm, "raw_vmas"), (Mm, "raw_pgd")):
            if name in vars(cls):
                delattr(cls, name)


def _install_raw(specs: dict[type, Any]) -> None:
    """Ways past the watch, for the rules themselves"""
    vm_mm, vmas, pgd = vars(Vma)["vm_mm"].slot, vars(Mm)["vmas"].slot, vars(Mm)["pgd"].slot
    Vma.raw_mm = lambda self: vm_mm.__get__(self)  # type: ignore[attr-defined]
    Mm.raw_vmas = lambda self: vmas.__get__(self)  # type: ignore[attr-defined]
    Mm.raw_pgd = lambda self: pgd.__get__(self)  # type: ignore[attr-defined]
