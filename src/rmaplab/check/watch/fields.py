# SPDX-License-Identifier: GPL-2.0-only
"""Fields: what is atomic, plain or set once, and the containers that a plain one holds."""

from collections.abc import Callable, Iterable
from typing import Any

from rmaplab.check.engine import Run
from rmaplab.check.footprint import WRITE

__all__ = ["Atomic", "Const", "Field", "Own", "Plain", "WatchedMap", "activate", "active", "now", "reader", "writer"]

_active: Run | None = None


def activate(run: Run | None) -> None:
    """Report accesses to `run` from now on."""
    global _active
    _active = run


def active() -> Run | None:
    """The run that accesses are reported to."""
    return _active


def now() -> Run | None:
    """The run, if a task of it is what runs."""
    run = _active
    return run if run is not None and run.task is not None else None


class Field:
    """A descriptor in place of a slot's."""

    def __init__(self, slot: Any, group: str) -> None:
        self.slot = slot
        self.group = group

    def __delete__(self, obj: Any) -> None:
        if _active is None:  # a checker's freed objects keep what they held: stale readers may still look
            self.slot.__delete__(obj)


class Atomic(Field):
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


class Plain(Field):
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


class Const(Field):
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


class Own(Field):
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


def reader(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.touched(False)
        return getattr(self.kind, name)(self, *args, **kwargs)

    return method


def writer(name: str) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.touched(True)
        return getattr(self.kind, name)(self, *args, **kwargs)

    return method


class WatchedList(list):  # type: ignore[type-arg]
    """A list in a plain field."""

    kind = list

    def __init__(self, value: Iterable[Any], owner: Any, field: Plain) -> None:
        super().__init__(value)
        self.owner = owner
        self.field = field

    def touched(self, write: bool) -> None:
        """Report an access to the contents."""
        run = now()
        if run is not None:
            self.field.access(run, self.owner, write)


class WatchedDict(dict):  # type: ignore[type-arg]
    """A dict in a plain field."""

    kind = dict

    def __init__(self, value: dict[Any, Any], owner: Any, field: Plain) -> None:
        super().__init__(value)
        self.owner = owner
        self.field = field

    touched = WatchedList.touched


_READS = ("__iter__", "__len__", "__contains__", "__getitem__", "__reversed__", "copy", "index")
_WRITES = ("append", "remove", "insert", "clear", "extend", "pop", "__setitem__", "__delitem__", "sort")
_DICT_READS = ("__iter__", "__len__", "__contains__", "__getitem__", "get", "items", "keys", "values", "copy")
_DICT_WRITES = ("__setitem__", "__delitem__", "pop", "clear", "setdefault", "update")
for _name in _READS:
    setattr(WatchedList, _name, reader(_name))
for _name in _WRITES:
    setattr(WatchedList, _name, writer(_name))
for _name in _DICT_READS:
    setattr(WatchedDict, _name, reader(_name))
for _name in _DICT_WRITES:
    setattr(WatchedDict, _name, writer(_name))


class WatchedMap(dict):  # type: ignore[type-arg]
    """A map from objects to a field of theirs that the model keeps apart (mm_struct's pointer to a context): each key's
    value is atomic."""

    kind = dict

    def __init__(self, value: dict[Any, Any], group: str) -> None:
        super().__init__(value)
        self.group = group

    def _at(self, key: Any, write: bool) -> None:
        run = now()
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
