# SPDX-License-Identifier: GPL-2.0-only
"""Many random histories under every design, the oracle asked after each operation; prints a table.

python tools/oracle_run.py [--histories N] [--length N] [--seed N] [DESIGN...]
"""

import argparse
import gc
import time
from functools import partial

from rmaplab.check.history import Failure, run_history, shrink
from rmaplab.designs.registry import design_names, make_design
from rmaplab.replay.run import in_processes
from rmaplab.workload.walk_ops import describe, generate


def run(design: str, first: int, histories: int, length: int) -> tuple[int, float, Failure | None]:
    """Histories of seeds from `first` on: how many ran, seconds, and the first that fails, shrunk."""
    gc.disable()
    factory = partial(make_design, design)
    start = time.monotonic()
    for seed in range(first, first + histories):
        failure = run_history(factory, generate(seed, length, huge=seed % 8 == 0))
        if failure is not None:
            return seed - first + 1, time.monotonic() - start, shrink(factory, failure)
        if not seed % 512:
            gc.collect()
    return histories, time.monotonic() - start, None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--histories", type=int, default=100_000)
    parser.add_argument("--length", type=int, default=16)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("designs", nargs="*")
    asked = parser.parse_args()
    designs = asked.designs or design_names()
    print(f"{asked.histories} histories of {asked.length} operations, seeds from {asked.seed}")
    print(f"{'design':<16}{'histories':>10}{'seconds':>9}  result", flush=True)
    half = asked.histories // 2
    for design in designs:
        parts = in_processes(
            [
                partial(run, design, asked.seed, half, asked.length),
                partial(run, design, asked.seed + half, asked.histories - half, asked.length),
            ]
        )
        count = sum(part[0] for part in parts)
        failure = next((part[2] for part in parts if part[2]), None)
        result = failure.name if failure else "no violation"
        print(f"{design:<16}{count:>10}{max(part[1] for part in parts):>9.0f}  {result}", flush=True)
        for op in failure.history if failure else ():
            print(f"    {describe(op)}")
        if failure:
            print(f"    => {failure.text}")


if __name__ == "__main__":
    main()
