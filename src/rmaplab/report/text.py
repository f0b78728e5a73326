# SPDX-License-Identifier: GPL-2.0-only
"""Small pieces that every text report is made of."""

from rmaplab.trace.schema import Meta

__all__ = ["WIDTH", "change", "kib", "machine_line", "seconds", "share", "wrap"]

WIDTH = 75
"""Columns of a report: what a mail quotes without breaking."""


def change(base: int, value: int) -> str:
    """`value` against `base` in percent; empty where there is nothing to compare.

    >>> change(200, 101)
    '-49.5 %'
    """
    return f"{(value / base - 1) * 100:+.1f} %" if base else ""


def share(part: int, whole: int) -> str:
    """`part` of `whole` in percent, rounded down so that 100 % means all of it.

    >>> share(9999, 10000)
    '99.99 %'
    """
    if part == whole:
        return "100 %"
    hundredths = part * 10000 // whole
    if hundredths >= 9999:
        return f"{part * 1000000 // whole / 10000:.4f} %"
    return f"{hundredths / 100:.2f} %"


def kib(size: int) -> str:
    """`size` (bytes) in KiB."""
    return f"{size / 1024:.1f}"


def seconds(time_ns: int) -> str:
    """A time in nanoseconds as seconds."""
    return f"{time_ns / 1e9:.3f} s"


def machine_line(meta: Meta) -> str:
    """Machine, kernel and page size of a recording."""
    machine = meta.machine or "unknown machine"
    kernel = f"Linux {meta.kernel}" if meta.kernel else "unknown kernel"
    cpus = f", {meta.cpus} CPUs" if meta.cpus else ""
    return f"{machine}{cpus}, {kernel}, page size {meta.page_size // 1024} KiB"


def wrap(text: str, indent: str = "") -> list[str]:
    """`text` broken into lines of at most WIDTH columns, all but the first with `indent`."""
    start = len(text) - len(text.lstrip())
    lines = [text[:start]]
    for word in text.split():
        if lines[-1].strip() and len(lines[-1]) + 1 + len(word) > WIDTH:
            lines.append(indent)
        lines[-1] += f" {word}" if lines[-1].strip() else word
    return lines
