# SPDX-License-Identifier: GPL-2.0-only
"""`rmaplab synth`: parse, call, print."""

import json
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import click

from rmaplab.cli_support import failures, progress
from rmaplab.errors import UserError
from rmaplab.report.synth import calibration_json, calibration_text, generated_text, table_json, table_text
from rmaplab.synth.android import generate
from rmaplab.synth.calibrate import calibrate, measure
from rmaplab.synth.parameters import AndroidParameters, set_parameter
from rmaplab.synth.table import VARIATIONS, predict, sensitivity
from rmaplab.trace.store import check_target, write_trace

__all__ = ["synth"]

_DEFAULT = AndroidParameters()


@click.group("synth")
def synth() -> None:
    """Generate a workload instead of recording one. What comes of it is SYNTHETIC."""


def _parameters(settings: tuple[str, ...]) -> AndroidParameters:
    parameters = _DEFAULT
    for setting in settings:
        name, equals, value = setting.partition("=")
        if not equals:
            raise UserError(f"--set {setting!r} is not of the form NAME=VALUE")
        parameters = set_parameter(parameters, name, value)
    return parameters


@synth.command("android")
@click.option("-o", "--output", metavar="FILE", help="Write the trace to FILE (Parquet).")
@click.option("--applications", type=int, metavar="N", help=f"Opened after boot; {_DEFAULT.applications} by default.")
@click.option("--seed", type=int, metavar="S", help=f"Of the generator; {_DEFAULT.seed} by default.")
@click.option("--scale", type=float, metavar="F", help="Size of the system, above 0 up to 1; 1 by default.")
@click.option("--set", "settings", multiple=True, metavar="NAME=VALUE", help="Another parameter (repeat).")
@click.option("--exit", "teardown", is_flag=True, help="At the end every process exits.")
@click.option("--parameters", "list_parameters", is_flag=True, help="Print the parameters and stop.")
@click.option("--table", is_flag=True, help="Predict the table of the series' cover letter.")
@click.option("--no-sensitivity", is_flag=True, help="With --table: without how it moves with the parameters.")
@click.option("--json", "as_json", is_flag=True, help="JSON (docs/json.md).")
def android_command(
    output: str | None,
    applications: int | None,
    seed: int | None,
    scale: float | None,
    settings: tuple[str, ...],
    teardown: bool,
    list_parameters: bool,
    table: bool,
    no_sensitivity: bool,
    as_json: bool,
) -> None:
    """An Android-like system: init, native services, zygote, system server, and applications forked from zygote.

    Its size is calibrated on the memory that the ANON_VMA_LAZY series reports for the unpatched kernel. It is
    generated, not recorded: docs/synth-android.md says what that means.
    """
    with failures():
        parameters = _parameters(settings)
        given: dict[str, Any] = {
            "applications": applications,
            "seed": seed,
            "scale": scale,
            "teardown": teardown or None,
        }
        parameters = replace(parameters, **{k: v for k, v in given.items() if v is not None})
        if list_parameters:
            _print_parameters(parameters, as_json)
            return
        if table:
            if output is not None or applications is not None or teardown:
                raise UserError("--table replays a system of its own: it takes no -o, --applications or --exit")
            with progress("replaying"):
                prediction = predict(parameters)
            variants = []
            if not no_sensitivity:
                with progress(f"replaying {len(VARIATIONS)} variants"):
                    variants = sensitivity(parameters)
            if as_json:
                click.echo(json.dumps(table_json(prediction, variants), indent=2))
            else:
                click.echo(table_text(prediction, variants))
            return
        if output is None:
            raise UserError("name a file to write with -o, or ask for --table")
        check_target(Path(output))
        with progress("generating"):
            generated = generate(parameters)
            write_trace(generated.trace, output)
    if as_json:
        click.echo(json.dumps({"synthetic": True, "rows": len(generated.trace), "points": generated.points}, indent=2))
    else:
        click.echo(generated_text(generated, output))


def _print_parameters(parameters: AndroidParameters, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(calibration_json(parameters, None), indent=2))
        return
    for item in fields(parameters):
        value = getattr(parameters, item.name)
        if hasattr(value, "touched"):
            for part in fields(value):
                click.echo(f"{item.name}.{part.name}={getattr(value, part.name):g}")
        else:
            click.echo(f"{item.name}={value:g}" if item.name != "teardown" else f"teardown={str(value).lower()}")


@synth.command("calibrate")
@click.option("--scale", type=float, metavar="F", default=1.0, show_default=True, help="Size of the systems tried.")
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A parameter that is not calibrated (repeat)."
)
@click.option("--json", "as_json", is_flag=True, help="JSON (docs/json.md).")
def calibrate_command(scale: float, settings: tuple[str, ...], as_json: bool) -> None:
    """Find the parameters that give the published figures of the unpatched kernel.

    The figures with the series are not looked at.
    """
    with failures():
        parameters = replace(_parameters(settings), scale=scale)
        with progress("replaying"):
            found = calibrate(parameters, lambda line: click.echo(line, err=True))
            reached = measure(generate(replace(found, applications=24)))
    if as_json:
        click.echo(json.dumps(calibration_json(found, reached), indent=2))
    else:
        click.echo(calibration_text(found, reached))
