# SPDX-License-Identifier: GPL-2.0-only
"""The designs under test."""

from importlib.metadata import entry_points
from importlib.util import find_spec

from rmaplab.designs.registry import GROUP

__all__ = ["DESIGNS"]

# Right only for programs that keep to a restriction; their own tests run histories that do.
RESTRICTED = {"gki_nofork"}

# Repaired forms that differ from another one in locks only: one operation at a time, they are tested with it.
SAME = {"gki_locked", "gki_sync_locked", "gki_sync_shared", "gki_nofork_locked"}

# Every registered design that must be right for any history; one that is registered but not written yet is left out.
DESIGNS = sorted(
    point.name for point in entry_points(group=GROUP) if point.name not in RESTRICTED | SAME and find_spec(point.module)
)
