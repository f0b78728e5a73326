# SPDX-License-Identifier: GPL-2.0-only
"""The comparison with the kernel, on traces written by hand: what must be called exact, and what must not."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm import flags as fl
from rmaplab.mm.profile import V6_18
from rmaplab.replay.truth import EXAMPLES, TruthReport, check_truth
from rmaplab.trace.schema import OPS, Trace

from .handmade import RW, Run, words

STACK_GONE = "-a9003 -c9002 -v9001"


def truth(run: Run | Trace) -> TruthReport:
    trace = run.trace if isinstance(run, Run) else run
    return check_truth(trace, AnonVmaDesign(), V6_18)[0]


def mismatches(report: TruthReport) -> dict[str, int]:
    return {name: mismatch.count for name, mismatch in report.mismatches.items()}


def one_mapping() -> Run:
    run = Run()
    run.mmap(0x10, 4, kernel="+v1")
    run.write(0x11, kernel="+c2 +a3")
    return run


def test_short_form() -> None:
    """A slip in the helper would make every test below say something else than it shows."""
    assert words("+v1 -a3 +c2") == [1 << 3 | 0 << 1 | 1, 3 << 3 | 1 << 1, 2 << 3 | 2 << 1 | 1]


def test_what_the_kernel_did_is_exact() -> None:
    """A comparer that always finds something; and one that counts operations in which nothing happened."""
    run = one_mapping()
    run.write(0x12)
    run.munmap(0x10, 4, kernel="-a3 -c2 -v1")
    run.exit(kernel=STACK_GONE)
    report = truth(run)
    assert report.exact and report.verdict == "exact"
    assert (report.operations, report.operations_exact) == (5, 5)  # execve, mmap, one fault, munmap, exit
    assert (report.events, report.events_exact) == (12, 12)
    assert (report.frees, report.frees_wrong) == (6, 0)
    assert (report.quiescent_points, report.quiescent_equal) == (7, 7)  # not between exit and exit_mmap
    assert sum(report.predating.values()) == report.inferred == 0


def test_free_of_another_object() -> None:
    """The right kind of object freed, but not the one that the model frees."""
    run = Run()
    run.mmap(0x10, 1, kernel="+v1")
    run.mmap(0x20, 1, kernel="+v2")
    run.munmap(0x10, 1, kernel="-v2")
    run.munmap(0x20, 1, kernel="-v1")
    report = truth(run)
    assert (report.frees, report.frees_wrong) == (2, 2)
    assert mismatches(report) == {"munmap: another object freed": 2}
    assert report.quiescent_equal == report.quiescent_points
    assert not report.exact and report.verdict == "differs"


def test_free_of_an_object_never_seen() -> None:
    """A kernel free whose allocation is not in the recording must not pass for the one that the model frees."""
    run = Run()
    run.mmap(0x10, 1, kernel="+v1")
    run.munmap(0x10, 1, kernel="-v7")
    assert truth(run).frees_wrong == 1


def test_order_inside_an_operation() -> None:
    """The same events in another order: a model that allocates the anon_vma before its AVC."""
    run = Run()
    run.mmap(0x10, 4, kernel="+v1")
    run.write(0x11, kernel="+a3 +c2")
    report = truth(run)
    assert mismatches(report) == {"fault: order": 1}
    assert (report.operations_exact, report.events_exact) == (2, 4)
    (example,) = report.mismatches["fault: order"].examples
    assert example == "row 3, 0.003000 s, tid 1: kernel +a +c, model +c +a"


def test_more_or_fewer_events_than_the_kernel() -> None:
    """Classes of mismatch tell who did what alone, with counts; objects that agree are still bound."""
    run = Run()
    run.mmap(0x10, 4, kernel="+v1 +v5 +v6")  # the kernel split something
    run.write(0x11, kernel="+c2")  # and found an anon_vma to share
    run.munmap(0x10, 4, kernel="-c2 -v1")
    report = truth(run)
    assert mismatches(report) == {
        "mmap: only kernel 2+vm_area_struct": 1,
        "fault: only model +anon_vma": 1,
        "munmap: only model -anon_vma": 1,
    }
    assert report.frees_wrong == 0
    assert report.quiescent_points - report.quiescent_equal == 3


def test_both_sides_differ() -> None:
    """One class names both surpluses."""
    run = Run()
    run.mmap(0x10, 4, kernel="+a1")
    assert mismatches(truth(run)) == {"mmap: only kernel +anon_vma, only model +vm_area_struct": 1}


def test_examples_are_bounded() -> None:
    """Millions of mismatches must not fill the report."""
    run = Run()
    for i in range(EXAMPLES + 3):
        run.mmap(0x10 + 2 * i, 1, kernel="")
    (mismatch,) = truth(run).mismatches.values()
    assert (mismatch.count, len(mismatch.examples)) == (EXAMPLES + 3, EXAMPLES)


def test_inferred_teardown() -> None:
    """A teardown that perf could not see: live counts go on to agree, and its frees are not the kernel's."""
    run = one_mapping()
    run.fork(2, kernel="+v21 +c22 +a23 +c24 +v25 +c26 +a27 +c28")
    run.exit(tid=2, inferred=True)
    run.munmap(0x10, 4, kernel="-a3 -c2 -v1")
    report = truth(run)
    assert report.exact
    assert (report.inferred, report.frees) == (8, 3)
    assert report.quiescent_equal == report.quiescent_points


def test_objects_older_than_the_recording() -> None:
    """A recording that begins inside an execve: the stack's objects were there, and are freed without an allocation."""
    run = Run(kernel="none")
    run.op("exec", flags=1, kernel="")
    run.mmap(0x10, 1, kernel="+v1")
    run.exit(kernel="-a71 -c72 -v1 -v73")
    report = truth(run)
    assert report.predating == {"vm_area_struct": 1, "anon_vma": 1, "anon_vma_chain": 1}
    assert report.exact
    assert report.frees == 4


def test_older_objects_are_bound_by_their_free() -> None:
    """An old object freed as another one: v1 is known, so its free in the old stack's place is wrong."""
    run = Run(kernel="none")
    run.op("exec", flags=1, kernel="")
    run.mmap(0x10, 1, kernel="+v1")
    run.exit(kernel="-a71 -c72 -v73 -v1")
    assert truth(run).frees_wrong == 2


def test_deferred_cache_is_compared_without_its_frees() -> None:
    """Where an RCU callback frees VMAs no operation owns these frees: they count neither for nor against."""
    run = Run(deferred=["vm_area_struct"])
    run.mmap(0x10, 4, kernel="+v1")
    run.write(0x11, kernel="+c2 +a3")
    run.munmap(0x10, 4, kernel="-a3 -c2")
    report = truth(run)
    assert report.exact
    assert report.frees == 2
    run.mmap(0x10, 4, kernel="")
    assert mismatches(truth(run)) == {"mmap: only model +vm_area_struct": 1}


def test_free_is_compared_before_the_allocation() -> None:
    """Two calls overlap: the one that frees an object ends before the one that allocated it, and ties it first."""

    def overlapping(freed: int) -> TruthReport:
        run = Run()
        run.op("clone_vm", peer=2, kernel="")
        slow = run.op("mmap", tid=1, addr=0x10000, ret=0x10000, len=0x1000, prot=RW, flags=0x32, quiescent=False)
        run.munmap(0x10, 1, tid=2, pid=1, kernel=f"-v{freed}", quiescent=False)
        run.op("mmap", call=slow, tid=1, addr=0x20000, ret=0x20000, len=0x1000, prot=RW, flags=0x32, kernel="+v1 +v2")
        return truth(run)

    assert overlapping(1).exact
    report = overlapping(2)
    assert report.frees_wrong == 1
    assert mismatches(report) == {"mmap: another object freed": 1}  # found when the allocation came


def test_an_object_number_used_again() -> None:
    """After a free the same slot may be allocated anew; the importer gives it a new number, a binding must be gone."""
    run = Run()
    for number in (1, 2, 3):
        run.mmap(0x10, 1, kernel=f"+v{number}")
        run.munmap(0x10, 1, kernel=f"-v{number}")
    assert truth(run).exact


def test_quiescent_points_see_what_no_operation_shows() -> None:
    """Events of no operation (`unknown`) change the kernel's counts only, until their free."""
    run = one_mapping()
    run.op("unknown", kernel="+v50")
    run.write(0x12)
    run.op("unknown", kernel="-v50")
    run.write(0x13)
    report = truth(run)
    assert report.quiescent_points - report.quiescent_equal == 2
    assert mismatches(report) == {
        "unknown: only kernel +vm_area_struct": 1,
        "unknown: only kernel -vm_area_struct": 1,
    }


def test_range_after_merging() -> None:
    """MMAP2 shows the merged VMA; a model that merged otherwise is found even where no object tells."""
    run = Run()
    run.mmap(0x10, 1, kernel="+v1", addr2=0x10000, len2=0x1000)
    run.mmap(0x11, 1, kernel="", addr2=0x10000, len2=0x2000)
    assert truth(run).ranges_wrong == 0
    run.mmap(0x12, 1, kernel="", addr2=0x12000, len2=0x1000)
    report = truth(run)
    assert report.ranges_wrong == 1
    assert not report.exact


def test_lost_records_and_missing_truth_give_no_verdict() -> None:
    """Where the recording has gaps, agreement is no proof."""
    run = one_mapping()
    run.trace.meta.lost = 3
    report = truth(run)
    assert report.operations_exact == report.operations
    assert (report.exact, report.verdict) == (False, "no verdict: 3 lost records")
    run.trace.meta.lost, run.trace.meta.truth = 0, False
    assert truth(run).verdict == "no verdict: recorded without truth"


def test_nothing_compared_is_not_exact() -> None:
    """An empty recording agrees in everything."""
    report = truth(Trace.empty(Run().trace.meta))
    assert report.operations == 0
    assert not report.exact
    assert report.verdict == "no verdict: nothing to compare"


UNKNOWN_TASK = [op for op in OPS if op not in ("exec_prepare", "exec", "unknown")]


@pytest.mark.parametrize("op", UNKNOWN_TASK)
def test_unknown_task_is_counted_and_named(op: str) -> None:
    """An event of a process that the recording does not show: no traceback, and not passed over in silence."""
    run = one_mapping()
    run.op(op, tid=77, addr=0x10000, ret=0x10000, len=0x1000, peer=78, kernel="")
    report = truth(run)
    assert report.problems == {f"{op}: unknown task": 1}
    assert report.mismatches == {}


@pytest.mark.parametrize("op", ["fork", "mmap", "munmap", "brk", "fault", "grow", "madvise", "mlockall", "exit_mmap"])
def test_task_without_address_space_is_counted_and_named(op: str) -> None:
    """A task between exec_prepare and exec has none of its own yet."""
    run = Run()
    run.op("exec_prepare", tid=5, kernel="+v91 +c92 +a93")
    run.op(op, tid=5, addr=0x10000, ret=0, len=0x1000, peer=78, kernel="")
    assert truth(run).problems == {f"{op}: task without an address space": 1}


@pytest.mark.parametrize("op", ["mremap", "mprotect", "mlock", "munlock"])
def test_unknown_address_of_a_call_that_succeeded(op: str) -> None:
    """The kernel had a VMA there. The model has none, so something before went unseen."""
    run = one_mapping()
    run.op(op, addr=0x5000000, len=0x1000, len2=0x1000, flags=0, ret=0x6000000 if op == "mremap" else 0, kernel="")
    assert truth(run).problems == {f"{op}: nothing mapped at its address": 1}


def test_unknown_address_of_a_call_that_failed_is_no_problem() -> None:
    """The kernel found nothing there either."""
    run = one_mapping()
    run.op("mprotect", addr=0x5000000, len=0x1000, prot=1, ret=-fl.ENOMEM, kernel="")
    run.op("mremap", addr=0x5000000, len=0x1000, len2=0x1000, ret=-fl.EFAULT, kernel="")
    report = truth(run)
    assert report.problems == {} and report.exact


@pytest.mark.parametrize(
    ("op", "values"),
    [
        ("mmap", {"ret": 0x10800, "len": 0x1000}),
        ("mmap", {"ret": 0x10000, "len": 0}),
        ("mmap", {"ret": (1 << 63) - 4096, "len": 0x1000}),
        ("shmat", {"ret": 0x10001, "len": 0x1000}),
        ("brk", {"ret": -1}),
        ("grow", {"addr": 0x10801, "len": 0x1000}),
        # across the end of its VMA; over its own source; to a place that is taken; into the neighbour
        ("mremap", {"addr": 0x10000, "len": 0x2000, "len2": 0x2000, "flags": 3, "addr2": 0x11000, "ret": 0x11000}),
        ("mremap", {"addr": 0x10000, "len": 0x5000, "len2": 0x6000, "flags": 1, "ret": 0x30000}),
        ("mremap", {"addr": 0x10000, "len": 0x1000, "len2": 0x2000, "flags": 1, "ret": 0x20000}),
        ("mremap", {"addr": 0x10000, "len": 0x4000, "len2": 0x11000, "flags": 0, "ret": 0x10000}),
    ],
)
def test_what_the_kernel_cannot_have_done(op: str, values: dict[str, int]) -> None:
    """A damaged row would break the tree of VMAs, and every later figure with it: it is counted, named, passed over."""
    run = one_mapping()
    run.mmap(0x20, 4, flags=0x4032, kernel="+v8")
    run.op(op, kernel="", **values)
    run.munmap(0x20, 4, kernel="-v8")
    run.munmap(0x10, 4, kernel="-a3 -c2 -v1")
    report = truth(run)
    assert report.problems == {f"{op}: impossible range": 1}
    assert report.mismatches == {}


def test_addresses_of_other_machines() -> None:
    """arm64 and 5-level page tables have user addresses above x86-64's 47 bits."""
    run = Run()
    run.mmap(0xFFFF_FFFF_0, 4, kernel="+v1")
    run.write(0xFFFF_FFFF_1, kernel="+c2 +a3")
    report = truth(run)
    assert report.exact and report.problems == {}


def test_growth_without_a_stack() -> None:
    """A stack that grows where the model has none."""
    run = one_mapping()
    run.op("grow", addr=0x9000, len=0x1000, kernel="")
    assert truth(run).problems == {"grow: no stack there": 1}


def test_mapping_of_an_execve_that_was_not_seen() -> None:
    """exec_map of a task that forked and never executed."""
    run = one_mapping()
    run.fork(2, kernel="+v21 +c22 +a23 +c24 +v25 +c26 +a27 +c28")
    run.op("exec_map", tid=2, addr=0x400000, len=0x1000, kernel="")
    assert truth(run).problems == {"exec_map: no exec": 1}


PAGES = st.integers(0, 24).map(lambda page: page << 12)
ANYWHERE = st.one_of(PAGES, st.sampled_from([-1, -4096, 1, 0xFFF, fl.TASK_SIZE, fl.TASK_SIZE - 4096, (1 << 63) - 1]))
FLAGS = st.one_of(
    st.sampled_from([0, 1, 2, 3, 0x22, 0x32, 0x132, 0x21, 0x40022, 0x8022]), st.integers(0, 0x7FFF), st.integers(0, 26)
)
ROW = st.fixed_dictionaries(
    {
        "op": st.sampled_from(OPS),
        "tid": st.integers(1, 4),
        "addr": ANYWHERE,
        "len": st.one_of(PAGES, st.sampled_from([1, 0x1001])),
        "addr2": PAGES,
        "len2": PAGES,
        "prot": st.integers(0, 7),
        "flags": FLAGS,
        "pgoff": st.integers(0, 5),
        "file": st.integers(-1, 2),
        "peer": st.integers(0, 4),
        "ret": st.one_of(st.just(0), ANYWHERE, st.integers(-40, -1)),
        "truth": st.one_of(st.none(), st.lists(st.integers(0, 90).filter(lambda word: word >> 1 & 3 < 3), max_size=4)),
    }
)


@settings(max_examples=300, deadline=None)
@given(rows=st.lists(ROW, max_size=40))
def test_no_trace_makes_a_traceback(rows: list[dict[str, int]]) -> None:
    """Rows in any order with any values of a recording that lost half of what happened: counted, never raised."""
    run = Run(files=("a", "/dev/zero", "SYSV1"))
    for row in rows:
        call = run.calls = run.calls + 1
        run.trace.append(row.pop("op"), pid=row["tid"], call=call, quiescent=True, **row)
    report = truth(run)
    assert report.operations_exact <= report.operations
    assert report.frees_wrong <= report.frees
    assert report.quiescent_equal <= report.quiescent_points == len(run.trace)
