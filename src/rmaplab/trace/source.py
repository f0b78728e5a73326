# SPDX-License-Identifier: GPL-2.0-only
"""Opens a recording, whatever form it has: Parquet trace, text of perf script, or perf.data."""

from __future__ import annotations

import datetime
import gc
import gzip
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, cast

from rmaplab.trace.errors import TraceError
from rmaplab.trace.importer import Importer
from rmaplab.trace.perf_data import PERF_MAGICS, read_header, script_output
from rmaplab.trace.perf_text import PerfTextParser
from rmaplab.trace.schema import Meta, Trace
from rmaplab.trace.store import read_trace
from rmaplab.trace.time_order import TimeOrder

__all__ = ["Progress", "import_text", "open_trace"]

Progress = Callable[[int], None]
"""Told the number of lines read so far, now and then."""

_PARQUET: Final = b"PAR1"
_GZIP: Final = b"\x1f\x8b"
_CHUNK: Final = 1 << 18
_PROBE: Final = 5000
"""Lines after which a text without a single event is given up as something else."""


def open_trace(
    path: str | os.PathLike[str],
    *,
    full_paths: bool = False,
    page_size: int = 0,
    progress: Progress | None = None,
) -> Trace:
    """The trace in the file at `path`: a Parquet trace, perf.data, or the text of `perf script`
    (plain or gzip), recognised by its content.

    `page_size` in bytes, 0 = what the recording says, else 4096. `full_paths` keeps directories in
    the names of files. Both concern imports only.

    :raises TraceError: it cannot be read, or is none of these
    """
    path = Path(path)
    try:
        if path.is_dir():
            raise TraceError(f"cannot read {path}: it is a directory; name a trace, a perf.data or a text")
        with open(path, "rb") as source:
            head = source.read(8)
            if not head:
                raise TraceError(f"cannot read {path}: the file is empty")
            if head.startswith(_PARQUET):
                return read_trace(path)
            meta = Meta(source=path.name)
            if head in PERF_MAGICS:
                read_header(path, meta)
                with script_output(path) as output:
                    return import_text(output, path, meta, full_paths, page_size, progress)
            source.seek(0)
            text = cast(BinaryIO, gzip.GzipFile(fileobj=source)) if head.startswith(_GZIP) else source
            return import_text(text, path, meta, full_paths, page_size, progress)
    except OSError as error:
        raise TraceError(f"cannot read {path}: {error.strerror or error}") from error
    except MemoryError as error:
        raise TraceError(f"cannot read {path}: not enough memory for a recording of this size") from error


def import_text(
    stream: BinaryIO,
    path: Path,
    meta: Meta,
    full_paths: bool = False,
    page_size: int = 0,
    progress: Progress | None = None,
) -> Trace:
    """Import the text of `perf script` from `stream`; `path` is for messages, `meta` is filled in.

    :raises TraceError: it is no such text, or breaks off inside a compressed block
    """
    meta.page_size = page_size or meta.page_size
    parser = PerfTextParser()
    order = TimeOrder()
    importer = Importer(meta.page_size, full_paths)
    # Nothing here makes reference cycles, but the collector would scan millions of tuples again and again.
    collecting = gc.isenabled()
    gc.disable()
    try:
        for lines in _blocks(stream, path):
            importer.feed(order.push(parser.parse(lines)))
            if not parser.events and parser.lines > _PROBE:
                break
            if progress is not None:
                progress(parser.lines)
        if not parser.events:
            raise TraceError(
                f"cannot read {path}: not a trace, not perf.data and not the text of perf script; "
                "record with 'rmaplab record'"
            )
        importer.feed(order.flush())
        counts = parser.counts()
        meta.events = counts
        # perf's own sum at the end counts the same losses in its way
        meta.lost = max(meta.lost, parser.lost)
        meta.ignored = parser.ignored()
        if order.late:
            meta.ignored["too late to be put in order"] = order.late
        meta.truth = any(name.startswith("kmem:kmem_cache_") for name in counts)
        meta.locks = parser.locks
        meta.slabs = parser.sites.sizes
        meta.deferred = sorted(parser.sites.deferred)
        meta.created = meta.created or datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
        trace = importer.finish(meta)
    finally:
        if collecting:
            gc.enable()
    if not len(trace):
        raise TraceError(
            f"cannot read {path}: no program starts in this recording; it needs the COMM records of perf "
            "(perf script --show-task-events) from the command's exec on"
        )
    return trace


def _blocks(stream: BinaryIO, path: Path) -> Iterator[list[str]]:
    """The lines of `stream` in blocks. latin-1: a name in any encoding passes, one character a byte."""
    rest = ""
    try:
        # gzip.read(n) gives what one compressed block holds, a pipe what is in it
        while block := stream.read(_CHUNK):
            lines = (rest + block.decode("latin-1")).split("\n")
            rest = lines.pop()
            yield lines
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise TraceError(f"cannot read {path}: the gzip file is cut short or damaged ({error})") from error
    if rest:
        yield [rest]
