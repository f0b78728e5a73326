# SPDX-License-Identifier: GPL-2.0-only
import pytest

from rmaplab.mm.profile import PROFILES, profile_for


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("6.1.0-47-amd64", "6.12"),
        ("6.12.117", "6.12"),
        ("6.15.0", "6.12"),
        ("6.16.3-android", "6.16"),
        ("6.17-rc1", "6.18"),
        ("6.18.44-fc-v595", "6.18"),
        ("7.1.0", "6.18"),
        ("", "6.18"),
        ("mainline", "6.18"),
    ],
)
def test_profile_of_a_release(release: str, name: str) -> None:
    """A release must get the rules of the newest profile that is not newer than it."""
    assert profile_for(release).name == name


def test_names_are_keys() -> None:
    assert all(profile.name == name for name, profile in PROFILES.items())
