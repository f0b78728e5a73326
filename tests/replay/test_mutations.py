# SPDX-License-Identifier: GPL-2.0-only
"""Removing any one rule of the model makes a recording inexact: `MUTATIONS` says which, docs/mutations.md how much."""

from pathlib import Path

import pytest

from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm.exit import exit_mmap
from rmaplab.mm.fault import handle_mm_fault
from rmaplab.mm.fork import dup_mm
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.profile import V6_18
from rmaplab.replay.replayer import Replayer
from rmaplab.trace.schema import Trace
from tests.support.builders import link, write

from .cases import CASES
from .handmade import Run
from .mutations import MUTATIONS, Mutation, replay_mutated
from .recordings import bundled, truth_of

HAND = "hand: "


def recording(name: str) -> Trace:
    return CASES[name.removeprefix(HAND)]().trace if name.startswith(HAND) else bundled(name)


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.rule)
def test_no_rule_can_be_removed(mutation: Mutation) -> None:
    """A rule that nothing depends on; or a comparison that has gone blind to it."""
    assert replay_mutated(mutation, recording(mutation.killed_by)).killed


@pytest.mark.parametrize("name", CASES)
def test_hand_made_recording_is_exact(name: str) -> None:
    """The other half: with all rules in place, the model does what the case says the kernel does."""
    report = truth_of(CASES[name]().trace)
    assert {kind: mismatch.examples for kind, mismatch in report.mismatches.items()} == {}
    assert report.exact


def test_every_case_is_needed() -> None:
    """A hand-made recording that shows no rule, or a rule listed twice."""
    used = {m.killed_by.removeprefix(HAND) for m in MUTATIONS if m.killed_by.startswith(HAND)}
    # these rules a real recording shows too
    assert used == set(CASES) - {"guard_in_unfaulted_file", "enoexec", "sysv_between"}
    assert len({m.rule for m in MUTATIONS}) == len(MUTATIONS)


def test_docs_list_every_rule() -> None:
    """docs/mutations.md, made by tools/mutations.py, is older than the list."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "mutations.md").read_text()
    rows = [line.split(" | ")[:2] for line in text.splitlines() if line.startswith("| ")][1:]
    assert rows == [[f"| {m.rule}", m.killed_by] for m in MUTATIONS]


def test_removal_is_undone() -> None:
    """A mutant that stays would fail whatever test comes next in this process."""
    for mutation in MUTATIONS:
        replay_mutated(mutation, CASES["stack_read"]().trace)
    assert truth_of(bundled("redis")).exact


# --- what no slab event can show


def test_pinned_anon_vma_goes_before_its_root() -> None:
    """put_anon_vma of the last of a tree frees it, then the root that it kept: no recording pins one."""
    kernel = Kernel(AnonVmaDesign(), V6_18)
    mm = kernel.mm_alloc()
    link(mm, 0x10, 0x12, fault=True)
    child = dup_mm(mm)
    write(child, 0x10)
    (folio,) = (f for f in kernel.mem.folios() if f.mapping is child.vmas[0].anon_vma)
    pinned = kernel.hooks.folio_get_anon_vma(folio)
    root = pinned.root
    assert root is not pinned
    exit_mmap(mm)
    exit_mmap(child)
    assert kernel.anon_vma.live == 2
    log = kernel.log_slabs()
    kernel.hooks.put_anon_vma(pinned)
    assert [(alloc, obj) for alloc, _, obj in log] == [(0, pinned), (0, root)]
    assert kernel.anon_vma.live == 0


def test_write_below_a_stack_maps_its_page_after_the_growth() -> None:
    """The fault comes before the record of the growth; its page must be there, for fork and for folio counts."""
    run = Run()
    run.mmap(0x1000, 2, flags=0x122, kernel="+v1")
    run.write(0xFFF)
    run.op("grow", addr=0xFFF000, len=0x3000, kernel="+c2 +a3")
    kernel = Kernel(AnonVmaDesign(), V6_18)
    replayer = Replayer(kernel, run.trace)
    replayer.run()
    assert truth_of(run.trace).exact
    (mm,) = replayer.live_mms()
    assert kernel.mem.live == 2  # with the page of arguments
    handle_mm_fault(mm, 0xFFF000, True)
    assert kernel.mem.live == 2
