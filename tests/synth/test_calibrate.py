# SPDX-License-Identifier: GPL-2.0-only
"""Calibration, and what the published digits say."""

import pytest

from rmaplab.errors import UserError
from rmaplab.synth.android import AFTER_BOOT, generate
from rmaplab.synth.calibrate import calibrate, measure, targets, worst_error
from rmaplab.synth.parameters import AndroidParameters, Shape
from rmaplab.synth.published import PUBLISHED, SLOTS, objects

SMALL = AndroidParameters(scale=0.02)


def whole(text: str, slot: int) -> bool:
    """Is there a number of objects of `slot` bytes whose KiB print as `text` with six digits?"""
    about = int(float(text) * 1024 / slot)
    return any(f"{n * slot / 1024:g}" == text for n in range(about - 99, about + 99))


def test_slot_sizes_follow_from_the_digits() -> None:
    """A slot size that the published figures exclude."""
    anon_vma = ["20426.4", "613.75", "33280", "2648.12"]
    avc = ["18865.8", "8112.06", "31477.1", "15576.8"]
    sizes = range(56, 200, 8)
    assert [s for s in sizes if all(whole(t, s) for t in avc)] == [64]
    assert [s for s in sizes if all(whole(t, s) for t in anon_vma)] == [64, 80, 128, 160]
    assert (SLOTS["anon_vma"], SLOTS["anon_vma_chain"]) == (128, 64)


def test_published_percentages_are_those_of_the_columns() -> None:
    """A typing error in the table."""
    for caches in PUBLISHED.values():
        for figures in caches.values():
            assert round((figures.after / figures.before - 1) * 100, 1) == figures.percent


def test_targets() -> None:
    assert targets()[AFTER_BOOT] == (468140, 163411, 301853)
    assert objects(8112.06, "anon_vma_chain") == 129793


@pytest.mark.parametrize(("scale", "tolerance"), [(0.02, 0.05), (0.05, 0.02)])
def test_defaults_are_calibrated(scale: float, tolerance: float) -> None:
    """Defaults that were edited and not calibrated again. A small scale costs accuracy: VMAs are whole."""
    parameters = AndroidParameters(scale=scale)
    assert worst_error(parameters, measure(generate(parameters))) < tolerance


def test_defaults_are_calibrated_at_full_size() -> None:
    parameters = AndroidParameters()
    assert worst_error(parameters, measure(generate(parameters))) < 0.005


def test_calibration_finds_its_way() -> None:
    """A step in the wrong direction: from far away the before columns are met again."""
    start = AndroidParameters(
        scale=0.05, boot_processes=30, services=100, processes=1, watchers=0.5, boot=Shape(12, 25, 70, 100)
    )
    found = calibrate(start)
    assert worst_error(found, measure(generate(found))) < 0.025
    assert 65 <= found.boot_processes <= 75
    assert found.applications == start.applications


def test_calibration_never_looks_at_the_after_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A prediction that was fitted: with other after columns the parameters must be the same."""
    found = calibrate(SMALL, rounds=2)
    for caches in PUBLISHED.values():
        for name, figures in list(caches.items()):
            monkeypatch.setitem(caches, name, figures._replace(after=1.0, percent=-50.0))
    assert calibrate(SMALL, rounds=2) == found


def test_impossible() -> None:
    with pytest.raises(UserError, match=r"sharing 0\.5"):
        calibrate(AndroidParameters(scale=0.02, sharing=0.5, service=Shape(0, 0, 90, 200)))
