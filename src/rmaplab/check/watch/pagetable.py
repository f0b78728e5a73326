# SPDX-License-Identifier: GPL-2.0-only
"""Page tables."""

from collections.abc import Iterator
from typing import Any

from rmaplab.check.engine import Run
from rmaplab.check.footprint import READ, WRITE
from rmaplab.check.violation import LOCK_RULE, Violation
from rmaplab.check.watch.fields import now, reader, writer
from rmaplab.check.watch.vma import mmap_held
from rmaplab.mm.pagetable import ENTRY_SHIFT, KIND_MASK, PRESENT

__all__ = ["WatchedPgd", "WatchedTable"]


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
        run = now()
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
        run = now()
        if run is not None:
            self._may_write(run)
            run.touch((run.name(self.pgd.mm), f"pte {vpn:#x}"), WRITE)
            _places(run, self.pgd.mm, entry, dict.get(self, vpn, 0))
            run.pte_changed(self.pgd.mm, vpn)

    def get(self, vpn: int, default: Any = None) -> Any:
        run = now()
        if run is not None:
            self._read(run, vpn)
        return dict.get(self, vpn, default)

    def __getitem__(self, vpn: int) -> int:
        run = now()
        if run is not None:
            self._read(run, vpn)
        return dict.__getitem__(self, vpn)  # type: ignore[no-any-return]

    def __contains__(self, vpn: object) -> bool:
        run = now()
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
        run = now()
        if run is None:
            return
        name = run.name(self.mm)
        task = run.task
        assert task is not None
        locked = any(held.kind == "ptl" and held.subject is self.mm for held in task.held)
        if not locked and not mmap_held(run, self.mm, True):
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
        run = now()
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
    setattr(WatchedPgd, _name, reader(_name))
WatchedPgd.clear = writer("clear")  # type: ignore[method-assign]
