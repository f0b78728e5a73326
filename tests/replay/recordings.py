# SPDX-License-Identifier: GPL-2.0-only
"""The recordings that the tests replay, each read once per worker."""

from functools import cache
from pathlib import Path

import pytest

from rmaplab.designs.registry import make_design
from rmaplab.mm.profile import profile_for
from rmaplab.replay.run import no_gc
from rmaplab.replay.truth import TruthReport, check_truth
from rmaplab.trace.bundled import bundled_path
from rmaplab.trace.schema import Trace
from rmaplab.trace.source import open_trace

__all__ = ["SHARED", "SHARED_DIRECTORY", "bundled", "shared", "truth_of"]

SHARED_DIRECTORY = Path(__file__).resolve().parents[3] / "shared" / "spike" / "recordings"
"""Recordings of the feasibility study, text of `perf script`; not part of the repository."""

SHARED = ("ls", "shpipe", "gcc", "gcc.pertask", "fork200", "py", "redis", "rand1", "rand7", "mt")


@cache
def bundled(name: str) -> Trace:
    """The bundled recording `name`."""
    return open_trace(bundled_path(name))


@cache
def shared(name: str) -> Trace:
    """The recording `name` of the study; skips the test where there is none."""
    path = SHARED_DIRECTORY / f"{name}.txt.gz"
    if not path.exists():
        pytest.skip(f"no {path}")
    return open_trace(path)


def truth_of(trace: Trace, design: str = "anon_vma") -> TruthReport:
    """`trace` held against the kernel's own slab events."""
    with no_gc():
        report, _ = check_truth(trace, make_design(design), profile_for(trace.meta.kernel))
    return report
