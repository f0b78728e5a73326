# SPDX-License-Identifier: GPL-2.0-only
"""The oracle's power: a seeded fault in each hook of each design is found, with a short history."""

import pytest
from click.testing import CliRunner

from rmaplab.check.ablation import ALL_HOOKS, implemented_hooks
from rmaplab.check.faults import FAULTS, Fault, find_fault
from rmaplab.cli import main
from rmaplab.designs.registry import make_design
from tests.support.designs import DESIGNS

SHORT = 12  # operations, the demand of the issue


NO_FAULT = {(design, 13) for design in ("gki", "gki_mm", "gki_nofork", "gki_sync")} | {("gki_mm", 15), ("vma_set", 17)}
"""Only a race could show a fault in these (docs/claims.md)."""


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"hook{fault.number}")
@pytest.mark.parametrize("design", DESIGNS)
def test_seeded_fault_is_found(design: str, fault: Fault) -> None:
    """An oracle, or a workload, that no longer sees what a hook is for."""
    if not fault.fits(design):
        pytest.skip("nothing wrong one operation at a time")
    found = find_fault(design, fault)
    assert found.failure is not None, f"not found in {found.histories} histories"
    assert len(found.failure.history) <= SHORT


@pytest.mark.parametrize("design", DESIGNS)
def test_every_hook_has_a_fault(design: str) -> None:
    """A hook of a design for which nobody has tried what a mistake in it does."""
    faults = {fault.number for fault in FAULTS if fault.fits(design)}
    form = design.removesuffix("_locked")
    assert {(form, hook) for hook in implemented_hooks(make_design(design)) if hook not in faults} <= NO_FAULT


def test_faults_table() -> None:
    """Results come back from other processes; one cell for each hook."""
    result = CliRunner().invoke(
        main, ["hooks", "--design", "vma_set", "--hook", "14", "--histories", "5", "--no-claims", "--faults"]
    )
    assert result.exit_code == 0, result.output
    table = result.output.partition("seeded faults")[2].splitlines()
    assert table[2].split() == ["design", *map(str, ALL_HOOKS), "after"]
    name, *cells, after = table[3].split()
    assert (name, after) == ("vma_set", "0")
    assert cells.pop() == "."  # hook 17: no fork during a migration here
    assert all(0 <= int(cell) <= SHORT for cell in cells), cells  # 0: an mm that is not freed, without any call
