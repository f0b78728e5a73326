# SPDX-License-Identifier: GPL-2.0-only
"""The oracle's power: a seeded fault in each hook of each design is found, with a short history."""

import pytest

from rmaplab.check.faults import FAULTS, Fault, find_fault
from tests.support.designs import DESIGNS

SHORT = 12  # operations, the demand of the issue


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"hook{fault.number}")
@pytest.mark.parametrize("design", DESIGNS)
def test_seeded_fault_is_found(design: str, fault: Fault) -> None:
    """An oracle, or a workload, that no longer sees what a hook is for."""
    found = find_fault(design, fault)
    assert found.failure is not None, f"not found in {found.histories} histories"
    assert len(found.failure.history) <= SHORT
