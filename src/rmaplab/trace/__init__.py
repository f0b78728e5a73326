# SPDX-License-Identifier: GPL-2.0-only
"""Recordings: made with perf, imported into rows in commit order, kept as Parquet."""

from rmaplab.trace.errors import RecordError, TraceError
from rmaplab.trace.schema import Meta, Trace
from rmaplab.trace.source import open_trace
from rmaplab.trace.store import read_trace, write_trace

__all__ = ["Meta", "RecordError", "Trace", "TraceError", "open_trace", "read_trace", "write_trace"]
