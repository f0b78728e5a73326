# SPDX-License-Identifier: GPL-2.0-only
"""The table and the commands."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from rmaplab.cli import main
from rmaplab.report.synth import table_json, table_text
from rmaplab.synth.parameters import AndroidParameters
from rmaplab.synth.table import Prediction, predict, sensitivity
from rmaplab.trace.store import read_trace

GOLDEN = Path(__file__).parent / "table.txt"
SMALL = AndroidParameters(scale=0.02)


@pytest.fixture(scope="module")
def prediction() -> Prediction:
    return predict(SMALL, parallel=False)


def run(*args: str) -> tuple[int, str, str]:
    result = CliRunner().invoke(main, ["synth", *args])
    return result.exit_code, result.stdout, result.stderr


def test_table(prediction: Prediction) -> None:
    """Figures that move without anybody having looked. Accept with:

    .venv/bin/rmaplab synth android --table --no-sensitivity --scale 0.02 > tests/synth/table.txt
    """
    text = table_text(prediction, [])
    assert text + "\n" == GOLDEN.read_text(), test_table.__doc__
    assert text.startswith("SYNTHETIC")
    assert all(len(line) <= 75 for line in text.splitlines())


def test_prediction_is_near_the_full_one(prediction: Prediction) -> None:
    """A small system that is another kind of system (docs/synth-android.md has the full one)."""
    assert abs(prediction.change("after boot", 1) - -99.1) < 1.5
    assert abs(prediction.change("after boot", 2) - -56.3) < 1.5
    assert abs(prediction.change("after 24 applications", 1) - -98.3) < 1.5
    assert abs(prediction.change("after 24 applications", 2) - -54.2) < 1.5


def test_sensitivity(prediction: Prediction) -> None:
    """A variant that is not the one it is called, or is lost."""
    variations = [("passing_forks", "0.5"), ("sharing", "0.9")]
    default, forks, impossible = sensitivity(SMALL, variations, scale=0.02)
    assert default.prediction is not None and forks.prediction is not None
    point = "after 24 applications"
    assert forks.prediction.change(point, 1) > default.prediction.change(point, 1) + 3
    assert impossible.prediction is None and "neighbours" in impossible.impossible
    text = table_text(prediction, [default, forks, impossible])
    assert "passing_forks" in text and "none: sharing 0.9" in text
    assert all(len(line) <= 75 for line in text.splitlines())
    values = table_json(prediction, [default, forks, impossible])
    assert values["synthetic"] is True
    assert json.loads(json.dumps(values))["sensitivity"][2]["percent"] is None


def test_writes_a_trace(tmp_path: Path) -> None:
    path = tmp_path / "android.parquet"
    code, out, _ = run("android", "-o", str(path), "--scale", "0.02", "--applications", "3", "--seed", "7", "--exit")
    assert code == 0
    assert out.startswith("SYNTHETIC")
    assert "after 3 applications: row" in out
    trace = read_trace(path)
    assert trace.meta.synthetic
    assert trace.columns["op"][-1] == "exit_mmap"
    result = CliRunner().invoke(main, ["compare", str(path)])
    assert result.stdout.startswith("SYNTHETIC")


def test_json(tmp_path: Path) -> None:
    code, out, _ = run("android", "--table", "--no-sensitivity", "--scale", "0.02", "--json")
    assert code == 0
    assert json.loads(out)["points"]["after boot"]["anon_vma"]["published"]["percent"] == -97.0
    code, out, _ = run("android", "-o", str(tmp_path / "x"), "--scale", "0.02", "--json")
    assert code == 0
    assert json.loads(out)["synthetic"] is True
    assert json.loads(run("android", "--parameters", "--json")[1])["parameters"]["applications"] == 24


def test_parameters_can_be_fed_back() -> None:
    """Names that --set does not know."""
    for line in run("android", "--parameters")[1].splitlines():
        if line.split("=")[0] != "teardown":
            assert run("android", "--parameters", "--set", line)[0] == 0, line


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ((), "name a file to write with -o"),
        (("--applications", "-1", "-o", "x"), "applications -1 is negative"),
        (("--set", "sharing", "-o", "x"), "not of the form NAME=VALUE"),
        (("--set", "colour=1", "-o", "x"), "no parameter 'colour'"),
        (("--table", "-o", "x"), "--table replays a system of its own"),
        (("-o", "/nowhere/x"), "there is no directory /nowhere"),
    ],
)
def test_bad_input(args: tuple[str, ...], says: str) -> None:
    code, out, err = run("android", *args)
    assert code == 2
    assert says in err
    assert err.count("\n") == 1
    assert not out


def test_calibrate_command() -> None:
    code, out, err = run("calibrate", "--scale", "0.02")
    assert code == 0
    assert out.startswith("SYNTHETIC")
    assert "boot_processes=" in out
    assert "round 1" in err
    assert run("calibrate", "--scale", "0.02", "--set", "sharing=0.46", "--set", "service.heaps=200")[0] == 2
