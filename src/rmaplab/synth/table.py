# SPDX-License-Identifier: GPL-2.0-only
"""The published table predicted: the generated system under mainline and under ANON_VMA_LAZY, and how the
result moves with what the before columns do not tell."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from rmaplab.errors import UserError
from rmaplab.replay.compare import BASE
from rmaplab.replay.run import in_processes
from rmaplab.replay.series import Counts
from rmaplab.synth.android import generate
from rmaplab.synth.calibrate import APPLICATIONS, calibrate, measure, targets
from rmaplab.synth.parameters import AndroidParameters, set_parameter

__all__ = ["LAZY", "SENSITIVITY_SCALE", "VARIATIONS", "Prediction", "Variant", "predict", "sensitivity"]

LAZY: Final = "anon_vma_lazy"

SENSITIVITY_SCALE: Final = 0.1
"""Scale of the systems that `sensitivity` replays."""

VARIATIONS: Final[tuple[tuple[str, str], ...]] = (
    ("sharing", "0.1"),
    ("sharing", "0.3"),
    ("zygote.heaps", "400"),
    ("zygote.heaps", "1600"),
    ("service.libraries", "10"),
    ("service.libraries", "40"),
    ("boot.libraries", "0"),
    ("boot.libraries", "40"),
    ("application.libraries", "0"),
    ("application.libraries", "80"),
    ("renderers", "0"),
    ("renderers", "0.25"),
    ("passing_forks", "0.125"),
    ("passing_forks", "0.333"),
    ("boot_forks", "0.03"),
    ("split", "50"),
    ("unmapped", "50"),
    ("written", "0.75"),
)
"""One parameter away from the default at a time."""


@dataclass(slots=True)
class Prediction:
    """What replays of one generated system give.

    objects: design -> point -> (vm_area_struct, anon_vma, anon_vma_chain), at full size: divided by the scale
    rows: rows of the trace up to the last point
    """

    parameters: AndroidParameters
    objects: dict[str, dict[str, tuple[float, float, float]]]
    rows: int

    def change(self, point: str, cache: int) -> float:
        """The predicted change in percent of one cache at one point."""
        before, after = self.objects[BASE][point][cache], self.objects[LAZY][point][cache]
        return (after / before - 1) * 100

    @property
    def before_error(self) -> float:
        """The largest relative error of the before columns."""
        return max(
            abs(n / t - 1)
            for point, target in targets().items()
            for t, n in zip(target, self.objects[BASE][point], strict=True)
        )


@dataclass(slots=True)
class Variant:
    """The prediction with one parameter changed and the calibrated ones calibrated anew.

    impossible: why no system has the published before figures; then there is no prediction
    """

    name: str
    value: str
    prediction: Prediction | None
    impossible: str = ""


def _unscaled(points: dict[str, Counts], scale: float) -> dict[str, tuple[float, float, float]]:
    return {name: (v / scale, a / scale, c / scale) for name, (v, a, c) in points.items()}


def predict(parameters: AndroidParameters, *, parallel: bool = True) -> Prediction:
    """Replay the system of `parameters`, with the applications of the published table, under both designs."""
    generated = generate(replace(parameters, applications=APPLICATIONS, teardown=False))
    jobs = [partial(measure, generated, design) for design in (BASE, LAZY)]
    results = in_processes(jobs) if parallel else [job() for job in jobs]
    objects = {
        design: _unscaled(points, parameters.scale) for design, points in zip((BASE, LAZY), results, strict=True)
    }
    return Prediction(parameters, objects, len(generated.trace))


def _variant(parameters: AndroidParameters, name: str, value: str) -> Variant:
    try:
        changed = set_parameter(parameters, name, value) if name else parameters
        return Variant(name, value, predict(calibrate(changed), parallel=False))
    except UserError as error:
        return Variant(name, value, None, str(error))


def sensitivity(
    parameters: AndroidParameters,
    variations: Sequence[tuple[str, str]] = VARIATIONS,
    scale: float = SENSITIVITY_SCALE,
) -> list[Variant]:
    """The system of `parameters` at `scale` first, then one variant for each of `variations`."""
    base = replace(parameters, scale=scale)
    jobs = [partial(_variant, base, name, value) for name, value in (("", ""), *variations)]
    return list(in_processes(jobs))
