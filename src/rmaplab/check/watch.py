# SPDX-License-Identifier: GPL-2.0-only
"""Makes the model's memory accesses visible to the checker, as KCSAN does with the kernel's loads and stores.

While :func:`watching` is in effect, the fields of the model's classes are replaced by descriptors that report each
access to the running :class:`~rmaplab.check.engine.Run`, and containers that are stored in them by watched ones. The
model itself knows nothing of it, so replay pays nothing, and no access can be forgotten.

atomic   READ_ONCE, WRITE_ONCE, atomic_t: a scheduling point before each access
plain    a lock must order it with the accesses of other tasks (else `lock-rule`): no scheduling point
const    set once; only that the object is not freed is looked at

An object gets its name when its first field is set: by the task that makes it, or the setup, in every execution.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from rmaplab.check.engine import Run
from rmaplab.check.footprint import READ, WRITE
from rmaplab.check.violation import LOCK_RULE, Violation
from rmaplab.mm.folio import Folio
from rmaplab.mm.ksm import Ksm
from rmaplab.mm.mm import Mm
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT
from rmaplab.mm.stable_node import StableNode
from rmaplab.mm.swap import Swap
from rmaplab.mm.vma import Vma

__all__ = ["Tree", "WatchedMap", "WatchedPgd", "activate", "groups_of", "watching"]

_active: Run | None = None


def activate(run: Run | None) -> None:
    """Report accesses to `run` from now on."""
    global _active
    _active = run


def _now() -> Run | None:
    """The run, if a task of it is what runs."""
    run = _active
    return run if run is not None and run.task is not None else None


# --- fields


class _Field:
    """A descriptor in place of a slot's."""

    def __init__(self, slot: Any, group: str) -> None:
        self.slot = slot
        self.group = group

    def __delete__(self, obj: Any) -> None:
        if _active is None:  # a checker's freed objects keep what they held: stale readers may still look
            self.slot.__delete__(obj)


class _Atomic(_Field):
    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is None:
            return self
        run = _active
        if run is None or run.task is None:
            return self.slot.__get__(obj)
        value = self.slot.__get__(obj)
        run.read(obj, self.group, value.__class__ is int)
        return self.slot.__get__(obj)

    def __set__(self, obj: Any, value: Any) -> None:
        run = _active
        if run is not None:
            if run.task is not None and not self._fresh(obj):
                run.write(obj, self.group)
            else:
                run.name(obj)
        self.slot.__set__(obj, value)

    def _fresh(self, obj: Any) -> bool:
        """Is the field set for the first time, so that nobody else can know the object?"""
        try:
            self.slot.__get__(obj)
        except AttributeError:
            return True
        return False


class _Plain(_Field):
    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is None:
            return self
        run = _active
        if run is not None and run.task is not None:
            self.access(run, obj, False)
        return self.slot.__get__(obj)

    def __set__(self, obj: Any, value: Any) -> None:
        run = _active
        if run is not None:
            if run.task is not None:
                self.access(run, obj, True)
            else:
                run.name(obj)
            if value.__class__ is list:
                value = WatchedList(value, obj, self)
            elif value.__class__ is dict:
                value = WatchedDict(value, obj, self)
        self.slot.__set__(obj, value)

    def access(self, run: Run, obj: Any, write: bool) -> None:
        run.plain(obj, self.group, write)


class _Const(_Field):
    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is None:
            return self
        run = _active
        if run is not None and run.task is not None:
            run.alive(obj)
        return self.slot.__get__(obj)

    def __set__(self, obj: Any, value: Any) -> None:
        if _active is not None:
            _active.name(obj)
        self.slot.__set__(obj, value)


class _Own(_Field):
    """A table that has a lock of its own, which the model leaves out: each step that uses it is one atomic access."""

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is None:
            return self
        run = _active
        if run is not None and run.task is not None:
            location = (type(obj).__name__.lower(), self.group)
            if location not in run.footprint:
                run.point(f"{location[0]} {location[1]}")
            run.touch(location, WRITE)
        return self.slot.__get__(obj)

    def __set__(self, obj: Any, value: Any) -> None:
        self.slot.__set__(obj, value)


class _VmaField(_Plain):
    """vm_start, vm_end, vm_pgoff, vm_flags: the rules of process_addrs.rst besides the order of accesses."""

    def access(self, run: Run, obj: Any, write: bool) -> None:
        task = run.task
        assert task is not None
        if write or not task.lockless:
            _vma_rule(run, obj, self.group, write)
        run.plain(obj, self.group, write)


class _VmaAnonVma(_Atomic):
    """vma->anon_vma: stable under the mmap lock held for writing; else it may go from NULL to set at any time."""

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is None:
            return self
        run = _active
        if run is None or run.task is None:
            return self.slot.__get__(obj)
        if _mmap(run, obj.raw_mm(), True):
            run.alive(obj)
            run.touch((run.name(obj), self.group), READ)
        else:
            run.read(obj, self.group)
        return self.slot.__get__(obj)


def _mmap(run: Run, mm: Any, write: bool) -> bool:
    task = run.task
    assert task is not None
    for held in task.held:
        if held.subject is mm and held.kind == "mmap_lock":
            return not write or held.writer is task
    return False


def _vma_rule(run: Run, vma: Any, group: str, write: bool) -> None:
    """Reading needs the mmap lock, the VMA lock or an rmap lock; writing the first two, both for writing. A VMA that
    is not in its tree is its maker's own."""
    task = run.task
    assert task is not None
    mm = vma.raw_mm()
    if not any(other is vma for other in mm.raw_vmas()):
        return
    mine = next((held for held in task.held if held.subject is vma and held.kind == "vma"), None)
    if write:
        if not _mmap(run, mm, True) or mine is None or mine.writer is not task:
            raise Violation(
                LOCK_RULE,
                f"{task.name} changes {run.name(vma)}.{group} without mmap lock and VMA lock, both for writing",
            )
        return
    if mine is not None or _mmap(run, mm, False):
        return
    if not any(held.kind in ("anon_vma", "page_table_lock") for held in task.held):
        raise Violation(LOCK_RULE, f"{task.name} reads {run.name(vma)}.{group} with neither mmap, VMA nor rmap lock")


# --- containers


def _reader(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.touched(False)
        return getattr(self.kind, name)(self, *args, **kwargs)

    return method


def _writer(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.touched(True)
        return getattr(self.kind, name)(self, *args, **kwargs)

    return method


class WatchedList(list):  # type: ignore[type-arg]
    """A list in a plain field."""

    kind = list

    def __init__(self, value: Iterable[Any], owner: Any, field: _Plain) -> None:
        super().__init__(value)
        self.owner = owner
        self.field = field

    def touched(self, write: bool) -> None:
        """Report an access to the contents."""
        run = _now()
        if run is not None:
            self.field.access(run, self.owner, write)


class WatchedDict(dict):  # type: ignore[type-arg]
    """A dict in a plain field."""

    kind = dict

    def __init__(self, value: dict[Any, Any], owner: Any, field: _Plain) -> None:
        super().__init__(value)
        self.owner = owner
        self.field = field

    touched = WatchedList.touched


_READS = ("__iter__", "__len__", "__contains__", "__getitem__", "__reversed__", "copy", "index")
_WRITES = ("append", "remove", "insert", "clear", "extend", "pop", "__setitem__", "__delitem__", "sort")
_DICT_READS = ("__iter__", "__len__", "__contains__", "__getitem__", "get", "items", "keys", "values", "copy")
_DICT_WRITES = ("__setitem__", "__delitem__", "pop", "clear", "setdefault", "update")
for _name in _READS:
    setattr(WatchedList, _name, _reader(_name))
for _name in _WRITES:
    setattr(WatchedList, _name, _writer(_name))
for _name in _DICT_READS:
    setattr(WatchedDict, _name, _reader(_name))
for _name in _DICT_WRITES:
    setattr(WatchedDict, _name, _writer(_name))


class WatchedMap(dict):  # type: ignore[type-arg]
    """A map from objects to a field of theirs that the model keeps apart (mm_struct's pointer to a context): each key's
    value is atomic."""

    kind = dict

    def __init__(self, value: dict[Any, Any], group: str) -> None:
        super().__init__(value)
        self.group = group

    def _at(self, key: Any, write: bool) -> None:
        run = _now()
        if run is not None:
            (run.write if write else run.read)(key, self.group)

    def get(self, key: Any, default: Any = None) -> Any:
        self._at(key, False)
        return dict.get(self, key, default)

    def __contains__(self, key: Any) -> bool:
        self._at(key, False)
        return dict.__contains__(self, key)

    def __getitem__(self, key: Any) -> Any:
        self._at(key, False)
        return dict.__getitem__(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._at(key, True)
        dict.__setitem__(self, key, value)

    def __delitem__(self, key: Any) -> None:
        self._at(key, True)
        dict.__delitem__(self, key)

    def pop(self, key: Any, *default: Any) -> Any:
        self._at(key, True)
        return dict.pop(self, key, *default)

    def setdefault(self, key: Any, default: Any = None) -> Any:
        self._at(key, True)
        return dict.setdefault(self, key, default)


# --- page tables


def _places(run: Run, mm: Any, *entries: int) -> None:
    """Where a folio is mapped changes: a walk that begins or ends now depends on it."""
    for entry in entries:
        if entry & KIND_MASK == PRESENT:
            run.touch((run.name(mm.kernel.mem.pages[entry >> ENTRY_SHIFT]), "places"), WRITE)


class WatchedTable(dict):  # type: ignore[type-arg]
    """A page table: written under its lock; read under it, or without as pte_get_lockless does."""

    kind = dict

    def __init__(self, value: dict[int, int], pgd: "WatchedPgd", i: int) -> None:
        super().__init__(value)
        self.pgd = pgd
        self.i = i

    def _locked(self, run: Run) -> bool:
        task = run.task
        assert task is not None
        mm, i = self.pgd.mm, self.i
        return any(held.subject is mm and held.index == i for held in task.held)

    def _read(self, run: Run, vpn: int | None) -> None:
        location = (run.name(self.pgd.mm), "pte" if vpn is None else f"pte {vpn:#x}")
        if not self._locked(run):
            run.point(f"read {location[0]} {location[1]}")
        run.touch(location, READ)

    def touched(self, write: bool) -> None:
        """An access to all entries, or to no particular one"""
        run = _now()
        if run is None:
            return
        if write:
            self._may_write(run)
        for vpn in list(dict.keys(self)):
            run.touch((run.name(self.pgd.mm), f"pte {vpn:#x}"), WRITE if write else READ)

    def _may_write(self, run: Run) -> None:
        if not self._locked(run) and any(table is self for table in dict.values(self.pgd)):
            assert run.task is not None
            raise Violation(
                LOCK_RULE, f"{run.task.name} writes an entry of {run.name(self.pgd.mm)} without its page-table lock"
            )

    def _write(self, vpn: int, entry: int = 0) -> None:
        run = _now()
        if run is not None:
            self._may_write(run)
            run.touch((run.name(self.pgd.mm), f"pte {vpn:#x}"), WRITE)
            _places(run, self.pgd.mm, entry, dict.get(self, vpn, 0))
            run.pte_changed(self.pgd.mm, vpn)

    def get(self, vpn: int, default: Any = None) -> Any:
        run = _now()
        if run is not None:
            self._read(run, vpn)
        return dict.get(self, vpn, default)

    def __getitem__(self, vpn: int) -> int:
        run = _now()
        if run is not None:
            self._read(run, vpn)
        return dict.__getitem__(self, vpn)  # type: ignore[no-any-return]

    def __contains__(self, vpn: object) -> bool:
        run = _now()
        if run is not None:
            self._read(run, vpn)  # type: ignore[arg-type]
        return dict.__contains__(self, vpn)

    def __setitem__(self, vpn: int, entry: int) -> None:
        self._write(vpn, entry)
        dict.__setitem__(self, vpn, entry)

    def __delitem__(self, vpn: int) -> None:
        self._write(vpn)
        dict.__delitem__(self, vpn)

    def pop(self, vpn: int, *default: Any) -> Any:
        self._write(vpn)
        return dict.pop(self, vpn, *default)

    def clear(self) -> None:
        for vpn in list(dict.keys(self)):
            self._write(vpn)
        dict.clear(self)

    def items(self) -> Any:
        self.touched(False)
        return dict.items(self)

    def values(self) -> Any:
        self.touched(False)
        return dict.values(self)

    def __iter__(self) -> Iterator[int]:
        self.touched(False)
        return dict.__iter__(self)


class WatchedPgd(dict):  # type: ignore[type-arg]
    """The upper levels of an mm's page tables."""

    kind = dict

    def __init__(self, mm: Any) -> None:
        super().__init__()
        self.mm = mm

    def touched(self, write: bool, i: int | None = None) -> None:
        """Report an access; from the entry at `i` the task goes on to that table."""
        run = _now()
        if run is None:
            return
        name = run.name(self.mm)
        task = run.task
        assert task is not None
        locked = any(held.kind == "ptl" and held.subject is self.mm for held in task.held)
        if not locked and not _mmap(run, self.mm, True):
            run.point(f"{'write' if write else 'read'} {name} page-table directory")
            run.visit(("tables", name, i))
        run.touch((name, "tables"), WRITE if write else READ)

    def get(self, i: int, default: Any = None) -> Any:
        self.touched(False, i)
        return dict.get(self, i, default)

    def __getitem__(self, i: int) -> Any:
        self.touched(False, i)
        return dict.__getitem__(self, i)

    def __contains__(self, i: object) -> bool:
        self.touched(False, i)  # type: ignore[arg-type]
        return dict.__contains__(self, i)

    def _changes(self, i: int, value: Any = None) -> None:
        self.touched(True)
        run = _now()
        if run is not None:
            _places(run, self.mm, *(e for e in (value, dict.get(self, i)) if isinstance(e, int)))

    def __delitem__(self, i: int) -> None:
        self._changes(i)
        dict.__delitem__(self, i)

    def pop(self, i: int, *default: Any) -> Any:
        self._changes(i)
        return dict.pop(self, i, *default)

    def __setitem__(self, i: int, value: Any) -> None:
        self._changes(i, value)
        if isinstance(value, dict) and not isinstance(value, WatchedTable):
            value = WatchedTable(value, self, i)
        elif isinstance(value, WatchedTable) and (value.pgd is not self or value.i != i):
            value = WatchedTable(dict(dict.items(value)), self, i)
        dict.__setitem__(self, i, value)


for _name in ("__iter__", "__len__", "items", "keys", "values"):
    setattr(WatchedPgd, _name, _reader(_name))
WatchedPgd.clear = _writer("clear")  # type: ignore[method-assign]


# --- the VMA tree


class _Tree(_Field):
    """mm.vmas, mm.starts: read under the mmap lock, or in an RCU section."""

    def __get__(self, obj: Any, owner: Any = None) -> Any:
        if obj is None:
            return self
        run = _active
        if run is not None and run.task is not None:
            _tree(run, obj, False)
        return self.slot.__get__(obj)

    def __set__(self, obj: Any, value: Any) -> None:
        self.slot.__set__(obj, value)


def _tree(run: Run, mm: Any, write: bool) -> None:
    task = run.task
    assert task is not None
    run.alive(mm)
    name = run.name(mm)
    if write:
        if not _mmap(run, mm, True) and dict.__len__(mm.raw_pgd()):
            raise Violation(LOCK_RULE, f"{task.name} changes the VMA tree of {name} without its mmap lock")
        run.point(f"change the VMA tree of {name}")
        run.touch((name, "tree"), WRITE)
        return
    if not _mmap(run, mm, False):
        if not task.rcu and not task.lockless:
            raise Violation(LOCK_RULE, f"{task.name} reads the VMA tree of {name} with neither mmap lock nor RCU")
        if (name, "tree") not in run.footprint:
            run.point(f"read the VMA tree of {name}")
            run.alive(mm)
    run.touch((name, "tree"), READ)


class Tree:
    """The maple tree of an mm as a reader under RCU sees it: ranges that were stored, whatever the VMAs say by now. A
    store over a range takes the place of what was there at once; a VMA that was cut short in preparation is still found
    where the next one will be."""

    def __init__(self, vmas: Iterable[Any]) -> None:
        self.ranges: list[tuple[int, int, Any]] = [(vma.vm_start, vma.vm_end, vma) for vma in vmas]

    def store(self, start: int, end: int, vma: Any) -> None:
        """[start, end) names `vma`, or nothing if it is None."""
        kept = []
        for low, high, other in self.ranges:
            if low < start:
                kept.append((low, min(high, start), other))
            if high > end:
                kept.append((max(low, end), high, other))
        if vma is not None:
            kept.append((start, end, vma))
        self.ranges = sorted(kept, key=lambda entry: entry[0])

    def forget(self, vma: Any) -> None:
        """Nothing names `vma` any more."""
        self.ranges = [entry for entry in self.ranges if entry[2] is not vma]

    def find(self, start: int, end: int) -> list[Any]:
        """The VMAs that are named in [start, end), ascending."""
        return [vma for low, high, vma in self.ranges if low < end and high > start]


def _under_rcu(original: Callable[..., Any], name: str) -> Callable[..., Any]:
    """A look-up: with the mmap lock as the model has it; without, in the tree as it was stored last"""

    def method(self: Any, *args: Any) -> Any:
        run = _active
        if run is None or run.task is None:
            return original(self, *args)
        _tree(run, self, False)
        locked = _mmap(run, self, False)
        task, run.task = run.task, None
        try:
            tree = run.trees.get(self)
            if locked or tree is None or name not in ("vma_lookup", "vmas_in"):
                return original(self, *args)
            if name == "vmas_in":
                return tree.find(*args)
            found = tree.find(args[0], args[0] + 1)
            return found[0] if found else None
        finally:
            run.task = task

    return method


def _muted(original: Callable[..., Any], before: Callable[..., None]) -> Callable[..., Any]:
    """`original` as one access, reported by `before`: what it does inside is not reported again."""

    def method(self: Any, *args: Any) -> Any:
        run = _active
        if run is None or run.task is None:
            return original(self, *args)
        before(run, self, *args)
        task, run.task = run.task, None
        try:
            return original(self, *args)
        finally:
            run.task = task

    return method


def _tree_insert(run: Run, mm: Any, vma: Any) -> None:
    _tree(run, mm, True)
    run.trees[mm].store(vma.vm_start, vma.vm_end, vma)


def _tree_insert_below(run: Run, mm: Any, new: Any, vma: Any, address: int, *args: Any) -> None:
    _tree(run, mm, True)
    _vma_rule(run, vma, "range", True)
    run.plain(vma, "range", True)
    run.trees[mm].store(new.vm_start, address, new)


def _tree_remove(run: Run, mm: Any, vma: Any) -> None:
    _tree(run, mm, True)
    run.trees[mm].forget(vma)


def _tree_resize(run: Run, mm: Any, vma: Any, start: int, end: int, *args: Any) -> None:
    _tree(run, mm, True)
    _vma_rule(run, vma, "range", True)
    run.plain(vma, "range", True)
    run.trees[mm].forget(vma)
    run.trees[mm].store(start, end, vma)


def _tree_clear(run: Run, mm: Any) -> None:
    _tree(run, mm, True)
    run.trees[mm].ranges = []


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

_MODEL: dict[type, dict[str, tuple[type[_Field], str]]] = {
    Folio: {
        "mapping": (_Atomic, "mapping"),
        "mapcount": (_Atomic, "counts"),
        "refs": (_Atomic, "counts"),
        "index": (_Plain, "index"),
        "exclusive": (_Atomic, "exclusive"),
        "nr_pages": (_Plain, "nr_pages"),
        "pfn": (_Const, "pfn"),
    },
    Vma: {
        "vm_start": (_VmaField, "range"),
        "vm_end": (_VmaField, "range"),
        "vm_pgoff": (_VmaField, "range"),
        "vm_flags": (_VmaField, "vm_flags"),
        "anon_vma": (_VmaAnonVma, "anon_vma"),
        "anon_vma_chain": (_Plain, "anon_vma_chain"),
        "reserved1": (_Atomic, "reserved1"),
        "reserved2": (_Atomic, "reserved2"),
        "vm_mm": (_Const, "vm_mm"),
    },
    Mm: {
        "vmas": (_Tree, "tree"),
        "starts": (_Tree, "tree"),
        "pgd": (_Const, "pgd"),
        "count": (_Atomic, "count"),
        "users": (_Atomic, "users"),
    },
    Ksm: {"items": (_Own, "items"), "nodes": (_Own, "items")},
    Swap: dict.fromkeys(("cache", "counts", "from_ksm", "reading", "slot_of"), (_Own, "slots")),
    StableNode: {"folio": (_Atomic, "folio"), "items": (_Plain, "items")},
}

_METHODS: dict[type, dict[str, Callable[..., None]]] = {
    Mm: {
        "insert": _tree_insert,
        "insert_below": _tree_insert_below,
        "remove": _tree_remove,
        "resize": _tree_resize,
        "clear": _tree_clear,
    },
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
            if isinstance(value, _Field) and not isinstance(value, _Const):
                found[value.group] = None
    if _active is not None:
        _groups[cls] = tuple(found)
    return tuple(found)


def _spec(cls: type) -> dict[str, tuple[type[_Field], str]]:
    """A design's class: what it lists in ATOMIC is atomic, in CONST set once, the rest plain."""
    atomic: tuple[str, ...] = getattr(cls, "ATOMIC", ())
    const: tuple[str, ...] = getattr(cls, "CONST", ())
    slots: tuple[str, ...] = vars(cls).get("__slots__", ())
    return {
        name: (_Atomic if name in atomic else _Const if name in const else _Plain, name)
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
                    setattr(cls, name, _muted(original, before))
        for name in _LOOKUPS:
            original = vars(Mm)[name]
            saved.append((Mm, name, original))
            setattr(Mm, name, _under_rcu(original, name))
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
