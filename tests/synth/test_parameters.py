# SPDX-License-Identifier: GPL-2.0-only
"""Impossible parameters: one clear line each."""

import pytest

from rmaplab.errors import UserError
from rmaplab.synth.parameters import AndroidParameters, set_parameter


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("applications", "-1", "applications -1 is negative"),
        ("applications", "1001", "more than the 1000"),
        ("applications", "many", "not a whole number"),
        ("scale", "0", "scale 0 is not above 0"),
        ("scale", "2", "scale 2 is not above 0"),
        ("scale", "nan", "not a number"),
        ("written", "1.5", "a share: at most 1"),
        ("sharing", "0.9", "heaps in runs of neighbours"),
        ("split", "900", "inherited heaps"),
        ("first_written", "9000", "more written than mapped"),
        ("processes", "0.5", "at least one process"),
        ("pages", "0", "less than 1"),
        ("pages", "513", "at most the 512 pages"),
        ("pages", "512", "million rows"),
        ("services", "0", "less than 1"),
        ("zygote.heaps", "-3", "zygote.heaps -3 is negative"),
        ("zygote", "3", "no parameter 'zygote'"),
        ("zygote.colour", "3", "no parameter 'zygote.colour'"),
        ("colour", "3", "no parameter 'colour'; known are applications, seed"),
        ("teardown", "1", "an option of its own"),
    ],
)
def test_impossible(name: str, text: str, says: str) -> None:
    with pytest.raises(UserError, match=says) as caught:
        set_parameter(AndroidParameters(), name, text)
    assert "\n" not in str(caught.value)


def test_watchers_and_passing_forks_together() -> None:
    """Shares that are each possible, and together are not."""
    with pytest.raises(UserError, match="more than all applications"):
        AndroidParameters(watchers=0.6, passing_forks=0.6)


def test_set() -> None:
    """A setting that lands elsewhere."""
    parameters = set_parameter(AndroidParameters(), "zygote.heaps", "900.5")
    assert parameters.zygote.heaps == 900.5
    assert parameters.zygote.libraries == AndroidParameters().zygote.libraries
    assert set_parameter(parameters, "seed", "-5").seed == -5
