# SPDX-License-Identifier: GPL-2.0-only
"""Finds designs by name: the entry points of the group ``rmaplab.designs``, ours and other people's."""

from collections.abc import Callable
from contextlib import suppress
from functools import cache
from importlib.metadata import entry_points
from typing import Any

from rmaplab.errors import UserError
from rmaplab.mm.hooks import HOOKS, Hooks

__all__ = ["GROUP", "design_names", "make_design"]

GROUP = "rmaplab.designs"


def design_names(*, repaired: bool = False) -> list[str]:
    """Names of the designs that are installed, mainline first.

    repaired: also those that repair another one, beside it; they differ from it in locks only, not in objects
    """
    names = {}
    for point in entry_points(group=GROUP):
        repairs = None
        with suppress(Exception):  # make_design says what is wrong
            repairs = getattr(point.load(), "repairs", None)
        if repaired or repairs is None:
            names[point.name] = repairs or point.name
    return sorted(names, key=lambda name: (name != "anon_vma", names[name], name))


def make_design(name: str) -> Hooks:
    """A fresh object of the design `name`.

    Raises UserError if there is none, or if it does not implement every hook.
    """
    return _maker(name)()


@cache
def _maker(name: str) -> Callable[[], Hooks]:
    """What makes the design, known to be complete. Looked up once: to search the installed packages takes longer than
    many a run, and the checker makes a design for each execution."""
    point = next((point for point in entry_points(group=GROUP) if point.name == name), None)
    if point is None:
        raise UserError(f"no design {name!r}; known are {', '.join(design_names(repaired=True))}")
    try:
        make: Any = point.load()
        design: Any = make()
    except Exception as error:
        raise UserError(f"design {name!r} ({point.value}) cannot be loaded: {error}") from error
    for hook in HOOKS:
        for method in hook.methods:
            if not callable(getattr(design, method, None)):
                raise UserError(f"design {name!r} does not implement hook {hook.number} ({hook.functions}): {method}")
    if not callable(getattr(design, "attach", None)):
        raise UserError(f"design {name!r} has no attach()")
    return make  # type: ignore[no-any-return]
