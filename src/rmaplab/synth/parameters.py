# SPDX-License-Identifier: GPL-2.0-only
"""What the generated Android-like system consists of. docs/synth-android.md says where each figure comes from."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from rmaplab.errors import UserError

__all__ = ["RUN", "AndroidParameters", "Shape", "set_parameter"]

_MOST_ROWS = 10_000_000

RUN = 4
"""VMAs in a run of neighbours that share one anon_vma."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What one process maps itself: mean numbers, real; each process gets whole numbers around them.

    libraries: shared libraries, of five VMAs each: two read-only segments, and RELRO, data and bss, which are written
    threads: stacks, of two VMAs each: a guard, and the stack, which is written
    heaps: written anonymous VMAs (allocators, ART's spaces)
    files: VMAs that are never written: packages, code of packages, fonts, property areas
    """

    libraries: float
    threads: float
    heaps: float
    files: float

    @property
    def touched(self) -> float:
        """VMAs that get an anonymous page."""
        return 3 * self.libraries + self.threads + self.heaps

    @property
    def vmas(self) -> float:
        """All VMAs."""
        return 5 * self.libraries + 2 * self.threads + self.heaps + self.files

    def times(self, factor: float) -> "Shape":
        """The same shape, smaller or larger."""
        return Shape(*(getattr(self, f.name) * factor for f in fields(self)))


@dataclass(frozen=True, slots=True)
class AndroidParameters:
    """The whole system. Numbers of processes and VMAs are those of the phone; `scale` shrinks them.

    The defaults of boot_processes, services, boot.files, processes, watchers, application.heaps and
    application.files are what `rmaplab synth calibrate` found with the other defaults.

    applications: opened after boot
    seed: of the generator
    scale: factor on the VMAs of processes that descend from zygote, and on the number of services
    services: native services, each forked from init and executed
    service, zygote, system_server, boot, application: shapes of the processes; zygote's is inherited by all
        processes forked from it
    boot_processes: processes that boot forks from zygote, besides system_server and webview_zygote
    processes: processes that an application consists of, all forked from zygote
    watchers: share of applications with a process that forks a child which stays (to notice low-memory kills)
    passing_forks: share of applications with a process that forked a child which is gone (Runtime.exec)
    boot_forks: share of the boot processes that forked a child which is gone
    renderers: share of applications that run a renderer, forked from webview_zygote
    sharing: share of a process' own written VMAs that share the anon_vma of a neighbour
    written: share of the inherited written VMAs that a child writes to (copy-on-write)
    first_written: inherited VMAs that nobody wrote to before this child, for each process
    split: inherited written VMAs of which a child protects a part, for each process
    unmapped: inherited written VMAs that a child unmaps, for each process
    passing: mappings that a process makes, writes to and unmaps again
    pages: pages written in each own heap
    zygote_pages: pages written in each heap of zygote
    teardown: at the end every process exits
    """

    applications: int = 24
    seed: int = 1
    scale: float = 1.0
    services: int = 253
    service: Shape = Shape(20, 6, 50, 200)
    zygote: Shape = Shape(340, 6, 774, 1500)
    system_server: Shape = Shape(80, 250, 450, 2000)
    boot: Shape = Shape(12, 25, 70, 989.6)
    application: Shape = Shape(40, 60, 217.9, 2108.9)
    boot_processes: int = 70
    processes: float = 1.875
    watchers: float = 1 / 24
    passing_forks: float = 0.0
    boot_forks: float = 0.0
    renderers: float = 0.125
    sharing: float = 0.2
    written: float = 0.25
    first_written: float = 10
    split: float = 4
    unmapped: float = 4
    passing: float = 20
    pages: int = 2
    zygote_pages: int = 1
    teardown: bool = False

    def __post_init__(self) -> None:
        for item in fields(self):
            _check_number(item.name, getattr(self, item.name))
        if not 0 < self.scale <= 1:
            raise UserError(f"scale {self.scale:g} is not above 0 and at most 1")
        if self.applications > 1000:
            raise UserError(f"applications {self.applications} is more than the 1000 that the generator makes")
        for name in ("sharing", "written", "watchers", "passing_forks", "boot_forks", "renderers"):
            if getattr(self, name) > 1:
                raise UserError(f"{name} {getattr(self, name):g} is a share: at most 1")
        if self.watchers + self.passing_forks > 1:
            raise UserError("watchers and passing_forks add up to more than all applications")
        if self.applications and self.processes < 1:
            raise UserError(f"processes {self.processes:g}: an application has at least one process")
        for name in ("pages", "zygote_pages", "services"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} {getattr(self, name)} is less than 1")
        if self.pages > 512 or self.zygote_pages > 512:
            raise UserError("pages and zygote_pages: at most the 512 pages that a heap has")
        self._check_amounts()
        if self.rows > _MOST_ROWS:
            raise UserError(
                f"that is a trace of about {self.rows / 1e6:.0f} million rows; at most {_MOST_ROWS // 10**6}"
            )

    def _check_amounts(self) -> None:
        for name in ("service", "zygote", "system_server", "boot", "application"):
            shape: Shape = getattr(self, name)
            need = self.sharing * shape.touched * RUN / (RUN - 1)
            if need > shape.heaps:
                raise UserError(
                    f"sharing {self.sharing:g} asks for {need:.0f} heaps in runs of neighbours, "
                    f"{name}.heaps is {shape.heaps:g}"
                )
        zygote = self.zygote
        if self.split + self.unmapped > zygote.heaps:
            raise UserError(
                f"split and unmapped take {self.split + self.unmapped:g} inherited heaps, "
                f"zygote.heaps is {zygote.heaps:g}"
            )
        if self.first_written > zygote.files:
            raise UserError(
                f"first_written {self.first_written:g}: more written than mapped, zygote.files is {zygote.files:g}"
            )

    @property
    def rows(self) -> float:
        """About how many rows the trace has: one or two for each VMA and page."""
        parts = (
            (self.scale * self.services, self.service, self.pages),
            (self.scale, self.zygote, self.zygote_pages),
            (self.scale, self.system_server, self.pages),
            (self.scale * self.boot_processes, self.boot, self.pages),
            (self.scale * self.application_processes, self.application, self.pages),
        )
        children = (1 + self.boot_processes + self.application_processes) * self.scale
        inherited = children * (self.written * self.zygote.touched + 3 * self.passing + self.first_written)
        return inherited + sum(n * (shape.vmas + 3 * shape.touched + shape.heaps * pages) for n, shape, pages in parts)

    @property
    def application_processes(self) -> int:
        """Processes of all applications, without watchers and renderers."""
        return round(self.applications * self.processes)


def _check_number(name: str, value: object) -> None:
    if isinstance(value, Shape):
        for item in fields(value):
            _check_number(f"{name}.{item.name}", getattr(value, item.name))
        return
    assert isinstance(value, int | float)
    if not math.isfinite(value):
        raise UserError(f"{name} {value} is not a number")
    if value < 0 and name != "seed":
        raise UserError(f"{name} {value:g} is negative")
    if value > 100_000 and name != "seed":
        raise UserError(f"{name} {value:g} is more than 100000")


def set_parameter(parameters: AndroidParameters, name: str, text: str) -> AndroidParameters:
    """`parameters` with one changed, given as text. `name` is a field, or one of a shape as `zygote.heaps`.

    :raises UserError: there is no such parameter, or the value is impossible
    """
    head, _, tail = name.partition(".")
    known = {f.name for f in fields(AndroidParameters)}
    old = getattr(parameters, head) if head in known else None
    if isinstance(old, Shape) and tail in {f.name for f in fields(Shape)}:
        shape: dict[str, Any] = {head: replace(old, **{tail: _number(name, text, float)})}
        return replace(parameters, **shape)
    if old is None or isinstance(old, Shape) or tail:
        raise UserError(f"no parameter {name!r}; known are {', '.join(_names())}")
    if isinstance(old, bool):
        raise UserError(f"{name} is set by an option of its own")
    change: dict[str, Any] = {head: _number(name, text, type(old))}
    return replace(parameters, **change)


def _names() -> list[str]:
    names: list[str] = []
    for item in fields(AndroidParameters):
        if item.name in ("service", "zygote", "system_server", "boot", "application"):
            names += [f"{item.name}.{f.name}" for f in fields(Shape)]
        elif item.name != "teardown":
            names.append(item.name)
    return names


def _number(name: str, text: str, kind: type[int] | type[float]) -> int | float:
    try:
        return kind(text)
    except ValueError:
        raise UserError(f"{name} {text!r} is not {'a whole number' if kind is int else 'a number'}") from None
