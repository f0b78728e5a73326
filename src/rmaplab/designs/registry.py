# SPDX-License-Identifier: GPL-2.0-only
"""Finds designs by name: the entry points of the group ``rmaplab.designs``, ours and other people's."""

from importlib.metadata import entry_points
from typing import Any

from rmaplab.errors import UserError
from rmaplab.mm.hooks import HOOKS, Hooks

__all__ = ["GROUP", "design_names", "make_design"]

GROUP = "rmaplab.designs"


def design_names() -> list[str]:
    """Names of the designs that are installed, mainline first."""
    names = {point.name for point in entry_points(group=GROUP)}
    return sorted(names, key=lambda name: (name != "anon_vma", name))


def make_design(name: str) -> Hooks:
    """A fresh object of the design `name`.

    Raises UserError if there is none, or if it does not implement every hook.
    """
    for point in entry_points(group=GROUP):
        if point.name == name:
            break
    else:
        raise UserError(f"no design {name!r}; known are {', '.join(design_names())}")
    try:
        design: Any = point.load()()
    except Exception as error:
        raise UserError(f"design {name!r} ({point.value}) cannot be loaded: {error}") from error
    for hook in HOOKS:
        for method in hook.methods:
            if not callable(getattr(design, method, None)):
                raise UserError(f"design {name!r} does not implement hook {hook.number} ({hook.functions}): {method}")
    if not callable(getattr(design, "attach", None)):
        raise UserError(f"design {name!r} has no attach()")
    return design  # type: ignore[no-any-return]
