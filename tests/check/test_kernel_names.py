# SPDX-License-Identifier: GPL-2.0-only
"""The kernel function that a step is in."""

import sys

from rmaplab.check.kernel_names import kernel_functions, kernel_name
from rmaplab.mm import fork, mremap, rmap
from rmaplab.mm.folio import Folio
from rmaplab.mm.mm import Mm


def test_names() -> None:
    """A helper of the model's own that is shown as if the kernel had it, or a kernel function that is not shown."""
    assert kernel_name(fork.dup_mm.__code__) == "dup_mm"
    assert kernel_name(mremap.mremap.__code__) == "mremap"
    assert kernel_name(rmap.folio_referenced.__code__) == "folio_referenced"
    assert kernel_name(Folio.put.__code__) == "folio_put_testzero"
    assert kernel_name(Mm.insert.__code__) == ""
    assert kernel_name(Mm.find_vma.__code__) == "find_vma"
    assert kernel_name((lambda: 0).__code__) == ""


def test_docstrings_tell() -> None:
    def _first() -> None:
        """move_ptes, of one table"""

    def _in_parentheses() -> None:
        """A helper, as in (do_wp_page)."""

    def _neither() -> None:
        """Nothing of the kernel's (really)"""

    def _none() -> str:
        return "copy_pte_range"

    found = [kernel_name(f.__code__) for f in (_first, _in_parentheses, _neither, _none)]
    assert found == ["move_ptes", "do_wp_page", "", ""]


def test_frames_outside_the_model_have_no_name() -> None:
    assert kernel_functions(sys._getframe()) == ()
