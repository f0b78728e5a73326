# SPDX-License-Identifier: GPL-2.0-only
"""Options of the test run."""

import pytest


def pytest_addoption(parser: pytest.Parser) -> None:
    """--accept-golden: store the CLI's output as what the golden tests expect."""
    parser.addoption("--accept-golden", action="store_true", help="store the CLI's output of now (make golden)")
