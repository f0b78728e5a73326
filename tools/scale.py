#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Replays the generated 24-application system under every design, each in a process of its own, and prints time, peak
memory and events per CPU second.

    tools/scale.py [--scale F] [--pages N] [--design NAME]... [--profile NAME] [--json]

Peak memory is VmHWM of the process that generates and replays (the trace included). With --profile one design runs
under cProfile and the 20 functions that take most time are printed.
"""

import argparse
import cProfile
import json
import platform
import pstats
import subprocess
import sys
import time
from dataclasses import replace

from rmaplab.designs.registry import design_names
from rmaplab.errors import UserError
from rmaplab.mm.profile import V6_18
from rmaplab.replay.run import replay_design
from rmaplab.synth.android import generate
from rmaplab.synth.parameters import AndroidParameters
from rmaplab.trace.schema import Trace


def vm_hwm_mib() -> float:
    """Peak resident memory of this process, MiB."""
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024


def make_trace(scale: float, pages: int) -> tuple[Trace, float]:
    """The trace, and the seconds it took."""
    start = time.perf_counter()
    trace = generate(replace(AndroidParameters(), scale=scale, pages=pages)).trace
    return trace, time.perf_counter() - start


def run_one(design: str, scale: float, pages: int) -> dict[str, object]:
    """One design in this process."""
    trace, generating = make_trace(scale, pages)
    trace_mib = vm_hwm_mib()
    start, cpu = time.perf_counter(), time.process_time()
    run = replay_design(trace, design, V6_18)
    took, cpu = time.perf_counter() - start, time.process_time() - cpu
    vmas, anon_vmas, avcs, *others = run.series.at(len(trace))
    return {
        "design": design,
        "rows": len(trace),
        "generating_s": generating,
        "trace_mib": trace_mib,
        "replay_s": took,
        "cpu_s": cpu,
        "peak_mib": vm_hwm_mib(),
        "events_per_cpu_s": len(trace) / cpu,
        "vmas": vmas,
        "anon_vmas": anon_vmas,
        "avcs": avcs,
        "other": sum(others),
        "problems": sum(run.problems.values()),
    }


def profile_one(design: str, scale: float, pages: int) -> None:
    """cProfile of one replay."""
    trace, _ = make_trace(scale, pages)
    profiler = cProfile.Profile()
    profiler.runcall(replay_design, trace, design, V6_18)
    pstats.Stats(profiler).sort_stats("tottime").print_stats(20)


def main() -> int:
    parser = argparse.ArgumentParser(description="Replay the generated 24-application system under every design.")
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--pages", type=int, default=AndroidParameters().pages, help="pages written in each own heap")
    parser.add_argument("--design", action="append", help="only this one (repeat)")
    parser.add_argument("--profile", metavar="NAME", help="cProfile of one design instead")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", metavar="NAME", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        if args.profile:
            profile_one(args.profile, args.scale, args.pages)
            return 0
        if args.one:
            print(json.dumps(run_one(args.one, args.scale, args.pages)))
            return 0
    except UserError as error:
        print(f"scale.py: {error}", file=sys.stderr)
        return 2
    results = []
    for design in args.design or design_names():
        command = [sys.executable, __file__, "--one", design, "--scale", str(args.scale), "--pages", str(args.pages)]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
        if done.returncode:
            return done.returncode
        results.append(json.loads(done.stdout))
        if not args.json:
            print_row(results)
    if args.json:
        print(json.dumps(results, indent=2))
    return 0


def print_row(results: list[dict[str, object]]) -> None:
    """The last of `results`, with the head of the table before the first."""
    r = results[-1]
    if len(results) == 1:
        print("SYNTHETIC workload: generated, not recorded")
        print(
            f"Python {platform.python_version()}, {platform.machine()}; {r['rows']} rows, {r['vmas']} VMAs, "
            f"generated in {r['generating_s']:.2f} s; {r['trace_mib']:.0f} MiB with the trace"
        )
        print(
            f"{'design':<18}{'time s':>7}{'CPU s':>7}{'events/s':>10}{'peak MiB':>9}"
            f"{'anon_vma':>9}{'AVC':>8}{'other':>9}"
        )
    print(
        f"{r['design']:<18}{r['replay_s']:>7.1f}{r['cpu_s']:>7.1f}{r['events_per_cpu_s']:>10.0f}{r['peak_mib']:>9.0f}"
        f"{r['anon_vmas']:>9}{r['avcs']:>8}{r['other']:>9}",
        flush=True,
    )
    if r["problems"]:
        print(f"  {r['problems']} rows not applied")


if __name__ == "__main__":
    sys.exit(main())
