# SPDX-License-Identifier: GPL-2.0-only
"""Which kernel functions does the model execute? Its Python functions are named as the kernel's; for helpers of its own
(a leading underscore) the docstring tells, if the kernel has the same one: first word, or in parentheses."""

import re
from types import CodeType, FrameType

__all__ = ["kernel_functions", "kernel_name"]

_MODEL = ("rmaplab.mm.", "rmaplab.designs.")
_WORD = r"[a-z_]+_[a-z0-9_]+"
_FIRST = re.compile(rf"({_WORD})(?=[:;,. (]|$)")
_IN_PARENTHESES = re.compile(rf"\(({_WORD})(?=[;,)])")

_known: dict[CodeType, str] = {}


def kernel_functions(frame: FrameType | None) -> tuple[str, ...]:
    """The kernel functions that `frame` is in, innermost first."""
    found: list[str] = []
    while frame is not None:
        code = frame.f_code
        name = _known.get(code)
        if name is None:
            module: str = frame.f_globals.get("__name__", "")
            name = _known[code] = kernel_name(code) if module.startswith(_MODEL) else ""
        if name and (not found or found[-1] != name):
            found.append(name)
        frame = frame.f_back
    return tuple(found)


def kernel_name(code: CodeType) -> str:
    """The kernel function that a function of the model stands for, or "".

    >>> def _pages(): "The entries of one table (copy_pte_range)."
    >>> kernel_name(_pages.__code__)
    'copy_pte_range'
    """
    name = code.co_name
    if name.startswith("<"):
        return ""
    if name.startswith("_"):
        text = code.co_consts[0] if code.co_consts and isinstance(code.co_consts[0], str) else ""
        match = _FIRST.match(text) or _IN_PARENTHESES.search(text)
        return match[1] if match is not None else ""
    # what has no underscore is a method of a structure: Folio.put
    method = "." in code.co_qualname.rpartition("<locals>.")[2]
    return "" if method and "_" not in name else name
