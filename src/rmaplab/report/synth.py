# SPDX-License-Identifier: GPL-2.0-only
"""The reports of `rmaplab synth`."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rmaplab.mm.kernel import CACHE_NAMES
from rmaplab.replay.compare import BASE
from rmaplab.replay.series import Counts
from rmaplab.report.text import wrap
from rmaplab.synth.android import Generated
from rmaplab.synth.calibrate import targets, worst_error
from rmaplab.synth.parameters import AndroidParameters
from rmaplab.synth.published import PUBLISHED, SLOTS
from rmaplab.synth.table import LAZY, SENSITIVITY_SCALE, Prediction, Variant

__all__ = ["calibration_json", "calibration_text", "generated_text", "table_json", "table_text"]

_HEAD = "SYNTHETIC workload: generated, not recorded"
_CALIBRATED = (
    "boot_processes",
    "services",
    "boot.files",
    "processes",
    "watchers",
    "application.heaps",
    "application.files",
)
_FAR = 5.0  # points from which a difference is explained
_MISSED = 0.02  # a larger relative error of a before column, in spite of calibration, is marked
_PREDICTED = (1, 2)  # caches whose change is predicted: anon_vma, anon_vma_chain


def _get(parameters: AndroidParameters, name: str) -> float:
    value: Any = parameters
    for part in name.split("."):
        value = getattr(value, part)
    return float(value)


def _kib(objects: float, cache: str) -> float:
    return objects * SLOTS[cache] / 1024


def generated_text(generated: Generated, output: str) -> str:
    """What `rmaplab synth android -o` says."""
    lines = [_HEAD]
    lines += wrap(f"{output}: {len(generated.trace)} rows, {len(generated.trace.meta.processes)} processes", "  ")
    lines += [f"  {name}: row {row}" for name, row in generated.points.items()]
    return "\n".join(lines)


# --- the table


def table_text(prediction: Prediction, variants: Sequence[Variant]) -> str:
    """The published table beside the predicted one, what differs and why, and the sensitivity."""
    p = prediction.parameters
    lines = [_HEAD]
    lines += wrap(
        "The before columns were used to calibrate the system; the after columns are predicted by replaying "
        f"{LAZY}, never fitted. Sizes in KiB of active objects.",
    )
    lines += wrap(
        f"{prediction.rows} operations, scale {p.scale:g}, seed {p.seed}; slot sizes in bytes, from the published "
        f"digits or assumed (docs/synth-android.md): {', '.join(f'{n} {s}' for n, s in SLOTS.items())}",
        "  ",
    )
    for point in PUBLISHED:
        lines += ["", *_point(prediction, point)]
    lines += ["", *_explanation(prediction)]
    lines += ["", *_calibrated(p)]
    if variants:
        lines += ["", *_sensitivity(variants)]
    return "\n".join(line.rstrip() for line in lines)


def _point(prediction: Prediction, point: str) -> list[str]:
    lines = [
        f"{point:<24}{'before':>10}{'after':>10}{'change':>9}{'difference':>13}",
    ]
    for i, cache in enumerate(CACHE_NAMES):
        published = PUBLISHED[point][cache]
        before = _kib(prediction.objects[BASE][point][i], cache)
        after = _kib(prediction.objects[LAZY][point][i], cache)
        change = prediction.change(point, i)
        lines.append(
            f"{cache:<14} published{published.before:>10.1f}{published.after:>10.1f}{published.percent:>+7.1f} %"
        )
        difference = change - published.percent
        lines.append(f"{'':<14} predicted{before:>10.1f}{after:>10.1f}{change:>+7.1f} %{difference:>+6.1f} points")
    return lines


def _explanation(prediction: Prediction) -> list[str]:
    far = [
        (point, cache, prediction.change(point, i) - PUBLISHED[point][cache].percent)
        for point in PUBLISHED
        for i, cache in enumerate(CACHE_NAMES)
        if i in _PREDICTED and abs(prediction.change(point, i) - PUBLISHED[point][cache].percent) > _FAR
    ]
    lines = [
        "vm_area_struct: the same with both here. The published +1.0 and +0.2 %",
        "may be what two boots vary by, or VMAs that references keep after they",
        "left their process: the model cannot tell.",
    ]
    if not far:
        lines.append(f"No other difference exceeds {_FAR:g} points.")
        return lines
    for point, cache, difference in far:
        more = "more" if difference < 0 else "less"
        lines += ["", f"{cache} {point}: {abs(difference):.1f} points {more} is saved than published."]
    lines += _missing_forks(prediction)
    return lines


def _missing_forks(prediction: Prediction) -> list[str]:
    """What it would take to come from the predicted to the published anon_vmas, by the model's rules."""
    p = prediction.parameters
    point = list(PUBLISHED)[-1]
    published = PUBLISHED[point]
    missing = published["anon_vma"].after * 1024 / SLOTS["anon_vma"] - prediction.objects[LAZY][point][1]
    if missing <= 0:
        return []
    zygote, own = p.zygote.touched, p.application.touched
    each = zygote + own * (1 - p.sharing)
    count = missing / each
    avcs = prediction.objects[LAZY][point][2] + count * (zygote + own)
    before = prediction.objects[BASE][point][2]
    return wrap(
        f"What it would take: {missing:.0f} more anon_vmas. A process that forks, even once and for a child that is "
        f"gone again, upgrades every VMA it wrote to: {each:.0f} anon_vmas here. So {count:.1f} more of the "
        f"{p.application_processes} processes of applications must have forked. The before columns cannot show that: "
        f"on mainline such a fork leaves nothing. anon_vma_chain would then change by {(avcs / before - 1) * 100:+.1f}"
        f" % (published {published['anon_vma_chain'].percent:+.1f} %)."
    )


def _calibrated(p: AndroidParameters) -> list[str]:
    lines = ["calibrated on the before columns (the default parameters):"]
    lines += [f"  {name:<20}{_get(p, name):>10.4g}" for name in _CALIBRATED]
    lines += wrap(
        f"  assumed: zygote {p.zygote.touched:.0f} written VMAs of {p.zygote.vmas:.0f}, sharing {p.sharing:g}, "
        f"renderers {p.renderers:g}, passing_forks {p.passing_forks:g}; all of them: "
        "rmaplab synth android --parameters",
        "  ",
    )
    return lines


def _sensitivity(variants: Sequence[Variant]) -> list[str]:
    points = list(PUBLISHED)
    marked = False
    lines = [
        "one parameter at a time, the calibrated ones calibrated anew for it: change",
        f"in percent (scale {SENSITIVITY_SCALE:g}, where whole processes blur it by about 0.5)",
        f"{'':<30}{'after boot':>16}{points[-1].replace('applications', 'apps'):>18}{'watchers':>10}",
        f"{'parameter':<24}{'value':>6}{'anon_vma':>10}{'AVC':>6}{'anon_vma':>12}{'AVC':>6}",
    ]
    for variant in variants:
        name, prediction = variant.name or "(default)", variant.prediction
        head = f"{name:<24}{variant.value:>6}"
        if prediction is None:
            lines += wrap(f"{head}   none: {variant.impossible}", " " * 33)
            continue
        a, b, c, d = (prediction.change(point, i) for point in points for i in _PREDICTED)
        watchers = round(prediction.parameters.watchers * 24)
        missed = " *" if prediction.before_error > _MISSED else ""
        marked |= bool(missed)
        lines.append(f"{head}{a:>10.1f}{b:>7.1f}{c:>11.1f}{d:>7.1f}{watchers:>9}{missed}")
    published = [PUBLISHED[point][CACHE_NAMES[i]].percent for point in points for i in _PREDICTED]
    lines.append("{:<30}{:>10.1f}{:>7.1f}{:>11.1f}{:>7.1f}".format("(published)", *published))
    if marked:
        lines.append(
            f"* misses a before column by more than {_MISSED * 100:g} %: the published figures speak against it"
        )
    return lines


def table_json(prediction: Prediction, variants: Sequence[Variant]) -> dict[str, Any]:
    """The table as JSON (docs/json.md)."""
    return {
        "synthetic": True,
        "parameters": asdict(prediction.parameters),
        "calibrated": list(_CALIBRATED),
        "operations": prediction.rows,
        "slot_sizes": dict(SLOTS),
        "points": {
            point: {
                cache: {
                    "published": {"before_kib": p.before, "after_kib": p.after, "percent": p.percent},
                    "predicted": {
                        "before_kib": _kib(prediction.objects[BASE][point][i], cache),
                        "after_kib": _kib(prediction.objects[LAZY][point][i], cache),
                        "percent": prediction.change(point, i),
                    },
                }
                for i, cache in enumerate(CACHE_NAMES)
                for p in (PUBLISHED[point][cache],)
            }
            for point in PUBLISHED
        },
        "sensitivity": [
            {
                "parameter": v.name or None,
                "value": float(v.value) if v.value else None,
                "percent": v.prediction
                and {point: {CACHE_NAMES[i]: v.prediction.change(point, i) for i in _PREDICTED} for point in PUBLISHED},
                "before_error": v.prediction and v.prediction.before_error,
                "impossible": v.impossible or None,
                "calibrated": v.prediction and {name: _get(v.prediction.parameters, name) for name in _CALIBRATED},
            }
            for v in variants
        ],
    }


# --- calibration


def calibration_text(parameters: AndroidParameters, reached: dict[str, Counts]) -> str:
    """What `rmaplab synth calibrate` prints: the parameters as --set takes them, and how close they come."""
    lines = [_HEAD]
    lines += [f"{name}={_get(parameters, name):.6g}" for name in _CALIBRATED]
    lines.append(f"{'objects on mainline':<26}{'published':>12}{'replayed':>12}{'error':>9}")
    for point, target in targets().items():
        lines.append(point)
        for cache, t, n in zip(CACHE_NAMES, target, reached[point], strict=True):
            now = n / parameters.scale
            lines.append(f"  {cache:<24}{t:>12}{now:>12.0f}{(now / t - 1) * 100:>+7.2f} %")
    return "\n".join(lines)


def calibration_json(parameters: AndroidParameters, reached: dict[str, Counts] | None) -> dict[str, Any]:
    """The parameters as JSON (docs/json.md), and what they reach if known."""
    result: dict[str, Any] = {"synthetic": True, "parameters": asdict(parameters), "calibrated": list(_CALIBRATED)}
    if reached is not None:
        result["worst_error"] = worst_error(parameters, reached)
        result["objects"] = {p: dict(zip(CACHE_NAMES, counts, strict=True)) for p, counts in reached.items()}
    return result
