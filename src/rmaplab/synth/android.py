# SPDX-License-Identifier: GPL-2.0-only
"""Generates an Android-like system: init, native services, zygote, and what is forked from it."""

import random
from dataclasses import dataclass, replace

from rmaplab.synth.parameters import AndroidParameters, Shape
from rmaplab.synth.process import PAGE, Files, Process, Rounder, Writer
from rmaplab.synth.published import SLOTS
from rmaplab.synth.rows import Rows
from rmaplab.trace.schema import Meta, Trace

__all__ = ["AFTER_BOOT", "Generated", "after_applications", "generate"]

AFTER_BOOT = "after boot"

_SYSTEM_LIBRARY = "/system/lib64/lib%d.so"
_APP_LIBRARY = "/data/app/lib/arm64/lib%d.so"
_JITTER = 0.4  # a process is up to this share smaller or larger than its shape
_BEFORE_FORK = 0.5  # share of its own memory that an application has when it forks a watcher


def after_applications(count: int) -> str:
    """Name of the point after `count` applications were opened."""
    return f"after {count} applications"


@dataclass(slots=True)
class Generated:
    """A trace, and its two points: name -> row after which the system is in that state."""

    trace: Trace
    points: dict[str, int]


class _System:
    def __init__(self, parameters: AndroidParameters) -> None:
        self.p = parameters
        self.writer = Writer(Rows(), Files(), Rounder(), random.Random(parameters.seed))
        self.processes: list[Process] = []
        self.ended: list[Process] = []

    # --- means of a kind of process at this scale

    def _many(self, key: str, mean: float) -> int:
        return self.writer.rounder.take(key, mean * self.p.scale)

    def _factors(self, count: int) -> list[float]:
        """`count` sizes around 1, with the mean 1."""
        rng = self.writer.rng
        factors = [1.0] * (count % 2)
        for _ in range(count // 2):
            spread = rng.uniform(0, _JITTER)
            factors += (1 + spread, 1 - spread)
        rng.shuffle(factors)
        return factors

    # --- processes

    def _start(self, process: Process) -> Process:
        self.processes.append(process)
        return process

    def boot(self) -> None:
        p, writer = self.p, self.writer
        init = self._start(Process(writer, writer.pid(), "init", 0))
        init.execute("/system/bin/init", first=True)
        self._native(init, p.service.times(p.scale))
        services = max(1, round(p.services * p.scale))
        for i, factor in enumerate(self._factors(services)):
            service = self._start(init.fork(f"service{i}"))
            service.execute(f"/system/bin/service{i}")
            self._native(service, p.service.times(factor))
        self.zygote = zygote = self._start(init.fork("zygote64"))
        zygote.execute("/system/bin/app_process64")
        for _ in range(self._many("zygote.reserve", p.first_written)):
            zygote.reserve()
        shape = p.zygote.times(p.scale)
        shape = replace(shape, files=max(0.0, shape.files - len(zygote.unwritten)))
        self._own(zygote, "zygote", shape, p.zygote_pages, library=_SYSTEM_LIBRARY, executed=True)
        server = self._start(zygote.fork("system_server"))
        self._begin(server)
        self._own(server, "system_server", p.system_server.times(p.scale), p.pages)
        self.webview_zygote = self._start(zygote.fork("webview_zygote"))
        for i, factor in enumerate(self._factors(p.boot_processes)):
            process = self._start(zygote.fork(f"boot{i}"))
            self._begin(process)
            self._own(process, "boot", p.boot.times(factor * p.scale), p.pages)
            if self.writer.rounder.take("boot_forks", p.boot_forks):
                self._second_level(process, stays=False)

    def open_applications(self) -> None:
        p = self.p
        count = p.application_processes
        chosen = self._forking()
        renderers = round(p.applications * p.renderers)
        opened = -1
        for i, factor in enumerate(self._factors(count)):
            application = i * p.applications // count
            main = application != opened
            opened = application
            process = self._start(self.zygote.fork(f"app{application}" + ("" if main else f":{i}")))
            self._begin(process)
            shape = p.application.times(factor * p.scale)
            part = _BEFORE_FORK if main and application in chosen else 1.0
            self._own(process, "application", shape.times(part), p.pages)
            if part < 1:
                self._second_level(process, stays=chosen[application])
                self._own(process, "application", shape.times(1 - part), p.pages)
            if main and (application + 1) * renderers // p.applications > application * renderers // p.applications:
                renderer = self._start(self.webview_zygote.fork(f"renderer{application}"))
                self._begin(renderer)
                self._own(renderer, "renderer", p.boot.times(p.scale), p.pages)

    def _forking(self) -> dict[int, bool]:
        """Applications that fork: number -> does the child stay?"""
        p = self.p
        watchers, passing = round(p.applications * p.watchers), round(p.applications * p.passing_forks)
        forking = min(watchers + passing, p.applications)
        # spread over all; those whose child stays spread over these
        numbers = [i * p.applications // forking for i in range(forking)]
        return {n: (i + 1) * watchers // forking > i * watchers // forking for i, n in enumerate(numbers)}

    def _second_level(self, process: Process, stays: bool) -> None:
        child = process.fork(f"{process.comm}:watch")
        child.write(child.written[0])
        if stays:
            self._start(child)
        else:
            child.exit()
            self.ended.append(child)

    def _native(self, process: Process, shape: Shape) -> None:
        process.build(
            shape,
            key="service",
            library=_SYSTEM_LIBRARY,
            sharing=self.p.sharing,
            pages=self.p.pages,
            executed=True,
        )

    def _own(
        self,
        process: Process,
        key: str,
        shape: Shape,
        pages: int,
        *,
        library: str = _APP_LIBRARY,
        executed: bool = False,
    ) -> None:
        process.build(shape, key=key, library=library, sharing=self.p.sharing, pages=pages, executed=executed)

    def _begin(self, process: Process) -> None:
        """What a process does with what it inherited from zygote, and some mappings that do not stay."""
        p, rng = self.p, self.writer.rng
        inherited = process.written
        count = min(len(inherited), self.writer.rounder.take("written", p.written * len(inherited)))
        for address in rng.sample(inherited, count):
            process.write(address)
        for address in process.unwritten:
            process.write(address)
        process.written.extend(process.unwritten)
        process.unwritten = []
        split, unmapped = self._many("split", p.split), self._many("unmapped", p.unmapped)
        heaps = rng.sample(process.heaps, min(split + unmapped, len(process.heaps)))
        for start, length in heaps[:split]:
            process.protect(start + length - PAGE, PAGE, 1)
        for start, length in heaps[split:]:
            self.writer.rows.add("munmap", process.pid, process.pid, start, length)
        gone = {start for start, _ in heaps[split:]}
        process.written = [address for address in process.written if address not in gone]
        process.heaps = [heap for heap in process.heaps if heap[0] not in gone]
        for _ in range(self._many("passing", p.passing)):
            process.pass_by()

    def end(self) -> None:
        for process in reversed(self.processes):
            process.exit()


def generate(parameters: AndroidParameters) -> Generated:
    """The system that `parameters` describe. The same parameters give the same trace."""
    system = _System(parameters)
    rows = system.writer.rows
    system.boot()
    points = {AFTER_BOOT: len(rows) - 1}
    if parameters.applications:
        system.open_applications()
        points[after_applications(parameters.applications)] = len(rows) - 1
    if parameters.teardown:
        system.end()
    meta = Meta(
        command=["rmaplab", "synth", "android"],
        kernel="",
        machine="aarch64",
        thp="never",
        locks=True,
        files=system.writer.files.names,
        processes=[
            {"pid": process.pid, "comm": process.comm, "parent": process.parent}
            for process in sorted(system.processes + system.ended, key=lambda process: process.pid)
        ],
        slabs={name: {"object_size": size, "slot_size": size} for name, size in SLOTS.items()},
        synthetic=True,
        source="synth android (SYNTHETIC)",
    )
    return Generated(rows.trace(meta), points)
