# SPDX-License-Identifier: GPL-2.0-only
"""The designs under test: every one that is registered."""

from rmaplab.designs.registry import design_names

__all__ = ["DESIGNS"]

DESIGNS = design_names()
