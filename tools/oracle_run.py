# SPDX-License-Identifier: GPL-2.0-only
"""Many random histories under every design, the oracle asked after each operation; prints a table.

python tools/oracle_run.py [--histories N] [--length N] [--seed N] [--jobs N] [DESIGN...]

Exits 1 if a design fails, with the seed and the shrunk history. Every eighth history has ranges for huge pages.
"""

import argparse
import gc
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

from rmaplab.check.history import Failure, run_history, shrink
from rmaplab.designs.registry import design_names, make_design
from rmaplab.workload.walk_ops import describe, generate

PARTS = 32  # of the seeds of a design; what a job does at a time


@dataclass(frozen=True)
class Part:
    """What became of a stretch of seeds: histories run, seconds of CPU time, and the first seed that failed, shrunk."""

    design: str
    count: int
    seconds: float
    seed: int = 0
    failure: Failure | None = None


def run(design: str, seeds: range, length: int) -> Part:
    """Run the histories of `seeds` up to the first that fails."""
    gc.disable()
    factory = partial(make_design, design)
    start = time.process_time()
    for count, seed in enumerate(seeds, 1):
        failure = run_history(factory, generate(seed, length, huge=seed % 8 == 0))
        if failure is not None:
            return Part(design, count, time.process_time() - start, seed, shrink(factory, failure))
        if not seed % 512:
            gc.collect()
    return Part(design, len(seeds), time.process_time() - start)


def split(first: int, count: int, parts: int) -> list[range]:
    """`count` seeds from `first` on, in up to `parts` stretches."""
    edges = [first + count * i // parts for i in range(parts + 1)]
    return [range(a, b) for a, b in pairwise(edges) if a < b]


def print_design(design: str, parts: Sequence[Part]) -> bool:
    """One row of the table; False if the design failed."""
    failed = min((part for part in parts if part.failure), key=lambda part: part.seed, default=None)
    result = f"{failed.failure.name}, seed {failed.seed}" if failed and failed.failure else "no violation"
    count, seconds = sum(part.count for part in parts), sum(part.seconds for part in parts)
    print(f"{design:<22}{count:>10}{seconds:>9.0f}  {result}", flush=True)
    if failed is None or failed.failure is None:
        return True
    for op in failed.failure.history:
        print(f"    {describe(op)}")
    print(f"    => {failed.failure.text}", flush=True)
    return False


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--histories", type=int, default=100_000)
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1, help="of the first history")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes; default: one a CPU")
    parser.add_argument("designs", nargs="*")
    asked = parser.parse_args()
    if min(asked.histories, asked.length, asked.jobs) < 1:
        parser.error("--histories, --length and --jobs must be 1 or more")
    known = design_names(repaired=True)
    unknown = [name for name in asked.designs if name not in known]
    if unknown:
        parser.error(f"no design {unknown[0]!r}; known are {', '.join(known)}")
    designs = list(dict.fromkeys(asked.designs)) or known
    last = asked.seed + asked.histories - 1
    print(f"{asked.histories} histories of {asked.length} operations a design, seeds {asked.seed} to {last}")
    print(f"{'design':<22}{'histories':>10}{'CPU s':>9}  result", flush=True)
    stretches = split(asked.seed, asked.histories, PARTS)
    done: dict[str, list[Part]] = {design: [] for design in designs}
    good = True
    with ProcessPoolExecutor(asked.jobs) as pool:
        futures = [pool.submit(run, design, seeds, asked.length) for design in designs for seeds in stretches]
        for future in as_completed(futures):
            part = future.result()
            done[part.design].append(part)
            if len(done[part.design]) == len(stretches):
                good &= print_design(part.design, done[part.design])
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
