# SPDX-License-Identifier: GPL-2.0-only
"""The recordings that come with the package."""

from pathlib import Path
from typing import Final

__all__ = ["DEFAULT", "bundled_names", "bundled_path"]

DEFAULT: Final = "chromium"
"""The recording that is used when none is named."""

_DIRECTORY: Final = Path(__file__).resolve().parent.parent / "recordings"


def bundled_names() -> list[str]:
    """Names of the bundled recordings."""
    return sorted(path.stem for path in _DIRECTORY.glob("*.parquet"))


def bundled_path(name: str) -> Path:
    """The file of the bundled recording `name`; any other name is a path and stays one."""
    if not Path(name).exists() and name in bundled_names():
        return _DIRECTORY / f"{name}.parquet"
    return Path(name)
