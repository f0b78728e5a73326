# SPDX-License-Identifier: GPL-2.0-only
"""Which kernel functions does the model execute? Its Python functions are named as the kernel's. For helpers of its own
(a leading underscore) and methods the docstring tells if the kernel has the same one: first word, or in parentheses.
What a design adds has no name in the kernel, and keeps its own."""

import re
from types import CodeType, FrameType

__all__ = ["kernel_functions", "kernel_name"]

_MODEL = ("rmaplab.mm.", "rmaplab.designs.")
_NOT = (
    "rmaplab.mm.access",
    "rmaplab.mm.kernel",
    "rmaplab.mm.pagetable",
    "rmaplab.mm.slab",
    "rmaplab.designs.vma_list",
)
_OURS = {
    "base_of": "",
    "belongs_to": "",
    "dup_hook": "",
    "folio_remove_rmap": "folio_remove_rmap_ptes",
    "free_folio_and_swap_cache": "free_page_and_swap_cache",
    "handle_write_fault": "handle_pte_fault",
    "huge_possible": "",
    "insert_below": "",
    "insert_new_vma": "insert_vm_struct",
    "let_go": "",
    "locked_places": "",
    "map_new_page": "",
    "mm_of": "",
    "pinned_places": "",
    "populate_range": "populate_vma_page_range",
    "prev_next": "",
    "read_fault": "do_anonymous_page",
    "shrink_folio": "shrink_folio_list",
    "try_grab": "",
    "try_hold": "",
    "unlocked_places": "",
    "vmas_in": "",
    "walker_is_user": "",
    "zap_all": "unmap_vmas",
    "zap_nonpresent": "zap_pte_range",
    "zap_range": "unmap_page_range",
}
"""What of the public names of the model and of lazy_walk.py the kernel calls otherwise, or has no function for."""
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
            outside = not module.startswith(_MODEL) or module in _NOT
            name = _known[code] = "" if outside else kernel_name(code)
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
    if name in _OURS:
        return _OURS[name]
    if name.startswith("<"):
        return ""
    method = "." in code.co_qualname.rpartition("<locals>.")[2]
    if not method and not name.startswith("_"):
        return name
    text = code.co_consts[0] if code.co_consts and isinstance(code.co_consts[0], str) else ""
    match = _FIRST.match(text) or _IN_PARENTHESES.search(text)
    if match is not None:
        return match[1]
    return "" if name.startswith("_") or "_" not in name else name  # a short name is a structure's: Mm.insert
