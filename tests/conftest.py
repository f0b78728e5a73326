# SPDX-License-Identifier: GPL-2.0-only
"""Options of the test run."""

import os

import pytest
from hypothesis import settings

# CI tries the same examples each time; at home hypothesis looks for new ones.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    """--accept-golden: store the CLI's output as what the golden tests expect."""
    parser.addoption("--accept-golden", action="store_true", help="store the CLI's output of now (make golden)")
