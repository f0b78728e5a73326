# SPDX-License-Identifier: GPL-2.0-only
"""Speed, as ratios measured in one run; prints Markdown (`make bench`; results: docs/benchmarks.md).

python tools/bench.py [--repeats N] [--quick]
"""

import argparse
import gc
import gzip
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from functools import cache, partial
from pathlib import Path

from rmaplab.check.execution import Laboratory
from rmaplab.check.explore import dfs, dpor
from rmaplab.check.explore.result import Budget
from rmaplab.check.mutant import find_mutant
from rmaplab.check.mutants import MUTANTS
from rmaplab.check.world import library
from rmaplab.designs.registry import design_names, make_design
from rmaplab.mm.fault import handle_mm_fault
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.mmap import do_mmap
from rmaplab.replay.replayer import Replayer
from rmaplab.replay.run import in_processes
from rmaplab.replay.series import Series
from rmaplab.trace.bundled import bundled_names, bundled_path
from rmaplab.trace.schema import Trace
from rmaplab.trace.source import open_trace
from rmaplab.trace.store import read_trace

SHARED = Path(__file__).resolve().parents[2] / "shared" / "spike" / "recordings"


def raw_events(trace: Trace) -> int:
    """Raw events of the recording less the kernel's slab events, which no replay uses."""
    return sum(count for kind, count in trace.meta.events.items() if "kmem" not in kind)


def replay_once(trace: Trace, design: str) -> float:
    """CPU seconds of one replay, with folios."""
    kernel = Kernel(make_design(design))
    replayer = Replayer(kernel, trace)
    series = Series(len(kernel.slabs))
    start = time.process_time()
    replayer.run(series)
    return time.process_time() - start


def replay_table(repeats: int) -> None:
    designs = design_names()
    print("## Replay\n")
    print("Thousand raw events a second on one core (without kmem events), best of", repeats, "replays; in")
    print("parentheses operations. *all*: wall time of all designs together in processes over the recorded run's.\n")
    print("| recording | " + " | ".join(designs) + " | all |")
    print("|---" * (len(designs) + 2) + "|")
    for name in bundled_names():
        trace = read_trace(bundled_path(name))
        events = raw_events(trace)
        cells = []
        for design in designs:
            best = min(replay_once(trace, design) for _ in range(repeats))
            cells.append(f"{events / best / 1000:.0f} ({len(trace) / best / 1000:.0f})")
        start = time.monotonic()
        in_processes([partial(replay_once, trace, design) for design in designs])
        wall = time.monotonic() - start
        cells.append(f"{wall:.2f} s / {trace.meta.duration_ns / 1e9:.2f} s")
        print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


@cache
def cannot_record() -> str:
    """Why `rmaplab record` does not work here, as it says itself; "" if it does."""
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "rmaplab", "record", "-o", f"{directory}/t.parquet", "--", "true"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


def import_table() -> None:
    print("\n## Import\n")
    perf = shutil.which("perf")
    if perf is None or cannot_record():
        print(f"`perf script` was not timed: {cannot_record()}\n")
    for name in ("py", "rand7", "mt"):
        path = SHARED / f"{name}.txt.gz"
        if not path.exists():
            continue
        with gzip.open(path, "rt", errors="replace") as file:
            lines = sum(1 for _ in file)
        start = time.monotonic()
        open_trace(path)
        print(f"- {name}: {lines / (time.monotonic() - start) / 1e6:.2f} M lines/s from gzipped text ({lines} lines)")
    if perf is None or cannot_record():
        return
    with tempfile.TemporaryDirectory() as directory:
        trace = Path(directory) / "bench.parquet"
        command = [sys.executable, "-c", "import json, subprocess\nfor _ in range(60): subprocess.run(['true'])"]
        subprocess.run(
            [sys.executable, "-m", "rmaplab", "record", "--keep-perf-data", "-o", str(trace), "--", *command],
            check=True,
            capture_output=True,
        )
        data = next(p for p in Path(directory).iterdir() if "perf" in p.name and p.suffix != ".parquet")
        arguments = ["--ns", "--show-mmap-events", "--show-task-events", "-F", "comm,pid,tid,cpu,time,event,trace"]
        start = time.monotonic()
        text = subprocess.run([perf, "script", *arguments, "-i", str(data)], capture_output=True, check=True).stdout
        script = time.monotonic() - start
        plain = Path(directory) / "bench.txt"
        plain.write_bytes(text)
        lines = text.count(b"\n")
        start = time.monotonic()
        open_trace(plain)
        ours = time.monotonic() - start
        print(f"- perf script prints {lines / script / 1e6:.2f} M lines/s, the same text is imported at")
        print(f"  {lines / ours / 1e6:.2f} M lines/s: {script / ours:.2f} times perf script's speed")


def _rss() -> int:
    """Resident memory of this process, KiB (ru_maxrss would start from the parent's)."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def memory_of(vmas: int, pages: int) -> tuple[int, int]:
    """Bytes for `vmas` faulted VMAs, and for `pages` mapped folios in all beside them (RSS of a fresh process)."""
    gc.disable()
    kernel = Kernel(make_design("anon_vma"))
    before = _rss()
    per_mm = 5000
    mms = []
    for first in range(0, vmas, per_mm):
        mm = kernel.mm_alloc()
        mms.append(mm)
        for i in range(min(per_mm, vmas - first)):
            do_mmap(mm, (1 << 30) + i * 8 * 4096, 4 * 4096, 3, 0x32)
            handle_mm_fault(mm, (1 << 30) + i * 8 * 4096, True)
    middle = _rss()
    left = pages - vmas
    for mm in mms:
        for vma in mm.vmas:
            if left > 0:
                handle_mm_fault(mm, vma.vm_start + 4096, True)
                left -= 1
    after = _rss()
    return (middle - before) * 1024, (after - middle) * 1024


def memory_table(vmas: int, pages: int) -> None:
    print("\n## Memory\n")
    code = f"import sys; sys.path.insert(0, 'tools'); from bench import memory_of; print(*memory_of({vmas}, {pages}))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    with_first, rest = int(out[0]), int(out[1])
    folio = rest / max(1, pages - vmas)
    print(f"- {vmas} VMAs, each with an anon_vma, an AVC and one mapped page, and {pages} folios in all:")
    print(f"  {(with_first + rest) / 2**20:.0f} MiB (aim: 2048 MiB)")
    print(
        f"- {folio:.0f} bytes for a mapped folio, {with_first / vmas - folio:.0f} for a VMA with its anon_vma and AVC"
    )


def slowdown_table(repeats: int) -> None:
    print("\n## Slowdown of recording\n")
    if cannot_record():
        print(f"Not measured: {cannot_record()}")
        return
    print(f"Median of {repeats} runs; the command times itself, so perf's start and stop are not in it.\n")
    print("| command | plain | recorded, truth | recorded, --no-truth |")
    print("|---|---|---|---|")
    commands = {
        "python, 100 x fork": "import os\nfor _ in range(100):\n p=os.fork()\n if not p: os._exit(0)\n os.waitpid(p,0)",
        "python, 200 MB of lists": "x=[[i] for i in range(2000000)]",
    }
    for name, body in commands.items():
        code = f"import time\nt=time.monotonic()\n{body}\nprint(time.monotonic()-t)"
        medians = []
        for prefix in ([], ["record"], ["record", "--no-truth"]):
            times = []
            for _ in range(repeats):
                with tempfile.TemporaryDirectory() as directory:
                    before = (
                        [sys.executable, "-m", "rmaplab", *prefix, "-o", f"{directory}/t.parquet", "--"]
                        if prefix
                        else []
                    )
                    run = subprocess.run(
                        [*before, sys.executable, "-c", code], capture_output=True, text=True, check=True
                    )
                    times.append(float(run.stdout.split()[0]))
            medians.append(statistics.median(times))
        plain = medians[0]
        print(f"| {name} | {plain:.3f} s | {medians[1] / plain:.2f} x | {medians[2] / plain:.2f} x |", flush=True)


def check_table(seconds: float) -> None:
    """The checker: executions a second, and how much source-DPOR saves."""
    print("\n## Checker\n")
    print(
        "Executions a second of CPU time on one core, `anon_vma`, `dpor`. Reduction: interleavings that `dfs` executes,"
    )
    print("without any reduction, over traces that `dpor` does; at least, where `dfs` was cut off.\n")
    print("| world | executions/s | steps each | traces | interleavings | reduction |")
    print("|---|---|---|---|---|---|")
    worlds = library()
    tiny = [name for name in worlds if name.startswith("tiny-")]
    for name in [*tiny, "faults-same-vma", "reclaim-fork", "migrate-exit"]:
        with Laboratory(worlds[name], partial(make_design, "anon_vma")) as laboratory:
            executions = steps = 0
            start = time.process_time()
            while time.process_time() - start < seconds:
                result = dpor.explore(laboratory, Budget(executions=1000))
                executions += result.executions + result.blocked
                steps += result.steps
            rate = executions / (time.process_time() - start)
            full = dfs.explore(laboratory, Budget(executions=30_000, seconds=10 * seconds))
        more = "" if full.complete else "more than "
        factor = full.executions / max(1, result.executions)
        print(
            f"| {name} | {rate:.0f} | {steps / executions:.0f} | {result.executions} | {more}{full.executions} | "
            f"{more}{factor:.0f} |",
            flush=True,
        )


def mutants_table() -> None:
    """Executions until each mutant is found, by explorer."""
    print("\n## Mutants\n")
    print("Executions until found, in the first of its worlds in which `dpor` finds it; budget 2,000 executions.\n")
    print("| mutant | world | dpor | pct | random |")
    print("|---|---|---|---|---|")
    worlds = library()
    budget = Budget(executions=2000, seconds=20)
    for mutant in MUTANTS:
        for name in mutant.worlds:
            found = {kind: find_mutant(mutant, worlds[name], kind, budget, simplify=0) for kind in ("dpor",)}
            if found["dpor"].invariant:
                break
        for kind in ("pct", "random"):
            found[kind] = find_mutant(mutant, worlds[name], kind, budget, simplify=0)
        cells = [str(f.executions) if f.invariant else f"not in {f.executions}" for f in found.values()]
        print(f"| {mutant.name} | {name} | {' | '.join(cells)} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="a tenth of the memory run")
    asked = parser.parse_args()
    gc.disable()
    release = platform.release().split("-")[0]
    cpus = len(os.sched_getaffinity(0))
    print(f"{platform.machine()}, {cpus} CPUs, Linux {release}, CPython {platform.python_version()}; `make bench`\n")
    replay_table(asked.repeats)
    import_table()
    memory_table(*((50_000, 100_000) if asked.quick else (500_000, 1_000_000)))
    slowdown_table(asked.repeats + 2)
    check_table(0.5 if asked.quick else 3.0)
    mutants_table()


if __name__ == "__main__":
    main()
