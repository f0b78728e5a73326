# SPDX-License-Identifier: GPL-2.0-only
"""The designs under test: every one that is registered and can be imported."""

from importlib.metadata import entry_points

from rmaplab.designs.anon_vma import AnonVmaDesign

__all__ = ["DESIGNS"]


def _load() -> dict[str, type]:
    designs: dict[str, type] = {AnonVmaDesign.name: AnonVmaDesign}
    for entry in entry_points(group="rmaplab.designs"):
        try:
            designs[entry.name] = entry.load()
        except ModuleNotFoundError:  # registered before it was written
            continue
    return designs


DESIGNS = _load()
