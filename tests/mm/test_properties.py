# SPDX-License-Identifier: GPL-2.0-only
"""Random histories over every registered design: structures hold after every step, walks reach every mapping, nothing
is left at the end."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from rmaplab.designs.registry import make_design
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.profile import PROFILES
from rmaplab.workload.oracle import check_folios, missed_by_walks
from rmaplab.workload.random_ops import Op, World, describe, generate
from tests.support.builders import live
from tests.support.design_check import check_design
from tests.support.designs import DESIGNS

# 6.16 has a bug that histories find sooner or later: tests/mm/test_power.py.
RIGHT = [name for name, profile in PROFILES.items() if name != "6.16"]


def check(world: World) -> None:
    kernel = world.kernel
    mms = list(world.mms.values())
    for mm in mms:
        mm.check()
    check_folios(kernel, mms)
    check_design(kernel, mms)
    missed = missed_by_walks(kernel, mms)
    assert not missed, f"walk-misses-pte: {missed[0]}"


def run(design: str, profile: str, history: list[Op], *, every: int = 1, thp: str = "madvise") -> None:
    """Apply `history`, checking after each `every` operations; a failure tells the history up to there."""
    world = World(Kernel(make_design(design), PROFILES[profile], thp=thp))
    step = 0
    try:
        for step, op in enumerate(history, 1):
            world.apply(op)
            if not step % every:
                check(world)
        check(world)
        world.exit_all()
        assert not any(live(world.kernel)), "leak"
        assert world.kernel.mem.live == 0, "pages leak"
    except Exception as error:
        error.add_note(f"design {design}, profile {profile}, history:\n" + "\n".join(map(describe, history[:step])))
        raise


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("profile", RIGHT)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(seed=st.integers(0, 1 << 32), length=st.integers(1, 80))
def test_short_histories(design: str, profile: str, seed: int, length: int) -> None:
    """Checked after every step; hypothesis shrinks the length."""
    run(design, profile, generate(seed, length))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("profile", RIGHT)
@pytest.mark.parametrize("seed", range(6))
def test_long_histories(design: str, profile: str, seed: int) -> None:
    """States that short ones do not reach: deep trees, many VMAs."""
    run(design, profile, generate(seed, 1500, processes=8), every=10)


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("thp", ["always", "madvise"])
@pytest.mark.parametrize("seed", range(4))
def test_huge_histories(design: str, thp: str, seed: int) -> None:
    """Huge pages that are shared, split, moved and cut."""
    run(design, "6.18", generate(seed, 300, huge=True), every=5, thp=thp)


@pytest.mark.parametrize("design", DESIGNS)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data(), seed=st.integers(0, 1 << 32))
def test_any_part_of_a_history_is_a_history(design: str, data: st.DataObject, seed: int) -> None:
    """Shrinking drops operations; what is left must run."""
    history = generate(seed, 60)
    keep = data.draw(st.lists(st.booleans(), min_size=len(history), max_size=len(history)))
    run(design, "6.18", [op for op, kept in zip(history, keep, strict=True) if kept], every=20)
