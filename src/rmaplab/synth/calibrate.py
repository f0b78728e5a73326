# SPDX-License-Identifier: GPL-2.0-only
"""Finds the parameters that make mainline's replay give the published *before* columns. Never looks at *after*.

Three figures at each point (VMAs V, anon_vmas A, AVCs C) determine three amounts each. What one more process, or
one more VMA of a kind, adds to them under mainline follows from its rules (z, o: written VMAs of zygote, of the
process; s: the share of own written VMAs with the anon_vma of a neighbour):

    a child of zygote        C: 2z + o   A: z + o(1 - s)      so C - A: z + so   2A - C: o(1 - 2s)
    a child of such a child  C: 3z + 2o  A: z + o             so C - A: 2z + o   2A - C: -z
    an own written VMA       C: 1        A: 1 - s             so 2A - C: 1 - 2s

After boot, C - A gives the number of processes, 2A - C that of native services, V the files that a
process maps. What 24 applications add gives the processes and watchers of applications, the heaps of a process (a small
correction, since processes are whole) and its files in the same way. The step is repeated with the figures of a real
replay.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

from rmaplab.designs.registry import make_design
from rmaplab.errors import UserError
from rmaplab.mm.kernel import Kernel
from rmaplab.mm.profile import V6_18
from rmaplab.replay.compare import BASE
from rmaplab.replay.replayer import Replayer
from rmaplab.replay.run import no_gc
from rmaplab.replay.series import Counts, Series
from rmaplab.synth.android import AFTER_BOOT, Generated, after_applications, generate
from rmaplab.synth.parameters import AndroidParameters, Shape
from rmaplab.synth.published import PUBLISHED, objects

__all__ = ["APPLICATIONS", "TOLERANCE", "calibrate", "measure", "targets", "worst_error"]

APPLICATIONS = 24
TOLERANCE = 0.01
"""How far a before figure may be off, relative."""

_ROUNDS = 5


def targets() -> dict[str, Counts]:
    """The objects of the published before columns: point -> (vm_area_struct, anon_vma, anon_vma_chain)."""
    return {
        point: (
            objects(caches["vm_area_struct"].before, "vm_area_struct"),
            objects(caches["anon_vma"].before, "anon_vma"),
            objects(caches["anon_vma_chain"].before, "anon_vma_chain"),
        )
        for point, caches in PUBLISHED.items()
    }


def measure(generated: Generated, design: str = BASE) -> dict[str, Counts]:
    """The objects that a replay under `design` has at each point."""
    kernel = Kernel(make_design(design), V6_18, thp=generated.trace.meta.thp)
    series = Series(len(kernel.slabs))
    with no_gc():
        Replayer(kernel, generated.trace).run(series)
    return {name: series.at(row)[:3] for name, row in generated.points.items()}


@dataclass(frozen=True, slots=True)
class _Residual:
    """Published minus replayed, at full size."""

    vmas: float
    inherited: float  # of C - A
    own: float  # of 2A - C

    @classmethod
    def of(cls, target: Counts, now: Counts, scale: float) -> "_Residual":
        v, a, c = (t - n / scale for t, n in zip(target, now, strict=True))
        return cls(v, c - a, 2 * a - c)


def calibrate(
    parameters: AndroidParameters, told: Callable[[str], None] | None = None, rounds: int = _ROUNDS
) -> AndroidParameters:
    """`parameters` with the seven calibrated ones replaced: boot_processes, services, boot.files, processes,
    watchers, application.heaps and application.files.

    :raises UserError: with these parameters no system has the published figures
    """
    if parameters.sharing > 0.45:
        raise UserError(f"sharing {parameters.sharing:g}: above 0.45 the published figures do not tell the own VMAs")
    wanted = targets()
    last = wanted[after_applications(APPLICATIONS)]
    first = wanted[AFTER_BOOT]
    added: Counts = (last[0] - first[0], last[1] - first[1], last[2] - first[2])
    p = replace(parameters, applications=APPLICATIONS, teardown=False)
    for i in range(rounds):
        now = measure(generate(p))
        boot, end = now[AFTER_BOOT], now[after_applications(APPLICATIONS)]
        more: Counts = (end[0] - boot[0], end[1] - boot[1], end[2] - boot[2])
        if told is not None:
            told(f"round {i + 1}: largest error {worst_error(p, now) * 100:.2f} %")
        whole = i < rounds - 2  # then whole numbers of processes stay, and the rest is made to fit
        p = _step_boot(p, _Residual.of(first, boot, p.scale), whole)
        p = _step_applications(p, _Residual.of(added, more, p.scale), whole)
    return replace(p, applications=parameters.applications, teardown=parameters.teardown)


def worst_error(parameters: AndroidParameters, now: dict[str, Counts]) -> float:
    """The largest relative error of `now` against the before columns."""
    return max(
        abs(n / parameters.scale / t - 1)
        for point, target in targets().items()
        for t, n in zip(target, now[point], strict=True)
    )


def _step_boot(p: AndroidParameters, r: _Residual, whole: bool) -> AndroidParameters:
    z, o, s = p.zygote.touched, p.boot.touched, p.sharing
    more = round(r.inherited / (z + s * o)) if whole else 0
    own = r.own - more * o * (1 - 2 * s)
    services = round(own / (p.service.touched * (1 - 2 * s)))
    vmas = r.vmas - more * (p.zygote.vmas + p.boot.vmas) - services * p.service.vmas
    processes = p.boot_processes + more
    if processes < 1:
        raise UserError(f"zygote has {z:.0f} written VMAs: too many for the published figures")
    if p.services + services < 1:
        raise UserError("the published figures leave no native service: too much is written in other processes")
    return replace(
        p,
        boot_processes=processes,
        services=p.services + services,
        boot=_with(p.boot, "boot", files=p.boot.files + vmas / processes),
    )


def _step_applications(p: AndroidParameters, r: _Residual, whole: bool) -> AndroidParameters:
    z, o, s = p.zygote.touched, p.application.touched, p.sharing
    child, own = z + s * o, o * (1 - 2 * s)
    more = watchers = 0
    if whole:
        # r.inherited = more * child + watchers * (2z + o), r.own = more * own - watchers * z
        watchers = round((r.inherited * own - r.own * child) / ((2 * z + o) * own + z * child))
        old = round(p.watchers * APPLICATIONS)
        watchers = min(max(watchers, -old), APPLICATIONS - old)
        more = round((r.inherited - watchers * (2 * z + o)) / child)
    processes = round(p.processes * APPLICATIONS) + more
    if processes < APPLICATIONS:
        raise UserError("the published figures leave less than one process for each application")
    left = r.own - more * own + watchers * z
    heaps = left / (processes * (1 - 2 * s))
    vmas = r.vmas - more * (p.zygote.vmas + p.application.vmas) - heaps * processes
    vmas -= watchers * (p.zygote.vmas + p.application.vmas / 2)
    return replace(
        p,
        processes=processes / APPLICATIONS,
        watchers=(round(p.watchers * APPLICATIONS) + watchers) / APPLICATIONS,
        application=_with(
            p.application,
            "application",
            heaps=p.application.heaps + (0 if whole else heaps),
            files=p.application.files + vmas / processes,
        ),
    )


def _with(shape: Shape, name: str, **amounts: float) -> Shape:
    for kind, amount in amounts.items():
        if amount < 0:
            raise UserError(f"to give the published figures, {name}.{kind} would have to be {amount:.0f}")
    return replace(shape, **amounts)
