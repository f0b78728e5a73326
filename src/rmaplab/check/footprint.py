# SPDX-License-Identifier: GPL-2.0-only
"""What a step touched, and when two steps depend on each other.

A step is what one task does from a scheduling point to the next. Its *footprint* maps each location that it touched
to a mode. A location is a field of an object, an entry of a page table, or a lock. Two steps of different tasks commute
unless their footprints conflict: the dependency relation that every explorer rests on
(tests/check/test_worlds.py shows that independent steps do commute).
"""

from typing import Any, Final

__all__ = [
    "ACQUIRE_READ",
    "ACQUIRE_WRITE",
    "CONFLICTS",
    "LOCK_MODES",
    "READ",
    "RELEASE_READ",
    "RELEASE_WRITE",
    "TRY_READ",
    "TRY_WRITE",
    "WRITE",
    "Footprint",
    "Location",
    "independent",
]

Location = tuple[Any, ...]
Footprint = dict[Location, int]

READ: Final = 1
WRITE: Final = 2
ACQUIRE_READ: Final = 4
ACQUIRE_WRITE: Final = 8
RELEASE_READ: Final = 16
RELEASE_WRITE: Final = 32
TRY_READ: Final = 64  # an attempt that does not wait, whether it succeeded (then also ACQUIRE_READ) or not
TRY_WRITE: Final = 128
LOCK_MODES: Final = 252

# mode bit -> modes that it conflicts with. A release and a waiting acquisition never compete: whoever waits cannot run.
_CONFLICTS: Final = {
    READ: WRITE,
    WRITE: READ | WRITE,
    ACQUIRE_READ: ACQUIRE_WRITE | TRY_WRITE,
    ACQUIRE_WRITE: ACQUIRE_READ | ACQUIRE_WRITE | TRY_READ | TRY_WRITE,
    RELEASE_READ: TRY_WRITE,
    RELEASE_WRITE: TRY_READ | TRY_WRITE,
    TRY_READ: ACQUIRE_WRITE | RELEASE_WRITE,
    TRY_WRITE: ACQUIRE_READ | ACQUIRE_WRITE | RELEASE_READ | RELEASE_WRITE,
}


def _all_conflicts(mode: int) -> int:
    conflicts = 0
    for bit, others in _CONFLICTS.items():
        if mode & bit:
            conflicts |= others
    return conflicts


CONFLICTS: Final = tuple(_all_conflicts(mode) for mode in range(256))
"""By mode: all modes that conflict with one of its bits."""


def independent(one: Footprint, other: Footprint) -> bool:
    """Do two steps of different tasks commute?"""
    if len(other) < len(one):
        one, other = other, one
    for location, mode in one.items():
        other_mode = other.get(location)
        if other_mode is not None and CONFLICTS[mode] & other_mode:
            return False
    return True
