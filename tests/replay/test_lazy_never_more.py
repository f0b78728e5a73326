# SPDX-License-Identifier: GPL-2.0-only
"""Over whole recordings: the series never has more anon_vma or AVC objects than mainline, and no design leaves anything
behind."""

import pytest

from rmaplab.designs.registry import make_design
from rmaplab.mm.kernel import Kernel
from rmaplab.replay.replayer import Replayer
from rmaplab.replay.run import no_gc
from rmaplab.replay.series import Series
from rmaplab.trace.bundled import bundled_names
from rmaplab.trace.schema import Trace
from tests.replay.recordings import SHARED, bundled, shared
from tests.support.designs import DESIGNS


def replay(trace: Trace, design: str) -> tuple[Series, Replayer]:
    with no_gc():
        kernel = Kernel(make_design(design))
        series = Series(len(kernel.slabs))
        replayer = Replayer(kernel, trace)
        replayer.run(series)
    return series, replayer


def check_never_more(trace: Trace) -> None:
    mainline, _ = replay(trace, "anon_vma")
    lazy, _ = replay(trace, "anon_vma_lazy")
    for row in sorted({*mainline.rows, *lazy.rows}):
        (_, anon_vmas, avcs), (_, lazy_anon_vmas, lazy_avcs) = mainline.at(row), lazy.at(row)
        assert lazy_anon_vmas <= anon_vmas, f"row {row}"
        assert lazy_avcs <= avcs, f"row {row}"


@pytest.mark.parametrize("name", bundled_names())
def test_bundled(name: str) -> None:
    """A merge, a reuse or an upgrade that costs the series an object which mainline does not have."""
    check_never_more(bundled(name))


@pytest.mark.parametrize("name", SHARED)
def test_shared(name: str) -> None:
    """The same over the study's recordings, whose random programs reach more rules."""
    check_never_more(shared(name))


@pytest.mark.parametrize("design", DESIGNS)
@pytest.mark.parametrize("name", ["random", "redis", "threads"])
def test_nothing_is_left(name: str, design: str) -> None:
    """A leak, or a broken tree: every recording ends when its last process has exited."""
    _, replayer = replay(bundled(name), design)
    for mm in replayer.live_mms():
        mm.check()
    for mm in list(replayer.live_mms()):
        replayer._teardown(mm)
    kernel = replayer.kernel
    assert [slab.live for slab in kernel.slabs] == [0] * len(kernel.slabs)
    assert kernel.mem.live == 0
    assert not replayer.problems
