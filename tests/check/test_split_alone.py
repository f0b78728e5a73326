# SPDX-License-Identifier: GPL-2.0-only
"""A folio split that nobody disturbs: the walks inside of it run under its lock and must not take it again."""

import pytest

from rmaplab.check.checking import Plan, check_pair
from rmaplab.check.world import load_worlds
from rmaplab.designs.registry import design_names

SPLIT = """
[split]
about = "a large folio, of which one page is mapped, is split, while a page of another VMA is read"
setup = ["A: mmap h0 512", "A: write h0", "A: munmap h1 511", "A: mmap p0 1"]
cpu0 = ["split A h0"]
cpu1 = ["A: read p0"]
thp = "always"
"""


@pytest.mark.parametrize("design", design_names())
def test_split_takes_no_lock_twice(design: str) -> None:
    """Hook 3 takes the lock of hook 16 again (TTU_RMAP_LOCKED, RMP_LOCKED)."""
    (world,) = load_worlds(SPLIT, "split").values()
    result = check_pair(design, world, Plan(executions=1))
    assert result.counterexample is None and not result.error, result.sentence()
