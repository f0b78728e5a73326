# SPDX-License-Identifier: GPL-2.0-only
"""The trace on disk: one Parquet file, written whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, BinaryIO, Final, cast

import pyarrow as pa
import pyarrow.parquet as pq

from rmaplab.trace.errors import TraceError
from rmaplab.trace.schema import COLUMNS, OPS, VERSION, Meta, Trace

__all__ = ["ARROW_SCHEMA", "check_target", "read_trace", "write_atomically", "write_trace"]

_VERSION_KEY: Final = b"rmaplab.version"
_META_KEY: Final = b"rmaplab"

_AGAIN: Final = "record or import again"

_TYPES: Final[dict[str, pa.DataType]] = {
    "time": pa.int64(),
    "tid": pa.int32(),
    "pid": pa.int32(),
    "call": pa.int32(),
    "op": pa.dictionary(pa.int32(), pa.string()),
    "addr": pa.int64(),
    "len": pa.int64(),
    "addr2": pa.int64(),
    "len2": pa.int64(),
    "prot": pa.int32(),
    "flags": pa.int64(),
    "pgoff": pa.int64(),
    "file": pa.int32(),
    "peer": pa.int32(),
    "ret": pa.int64(),
    "quiescent": pa.bool_(),
    "truth": pa.list_(pa.int64()),
}
ARROW_SCHEMA: Final = pa.schema([(name, _TYPES[name]) for name in COLUMNS])
"""The Parquet columns of a trace."""


def check_target(path: Path) -> None:
    """Can a file appear at `path`? What is no regular file is never replaced.

    :raises TraceError: no; says why
    """
    try:
        if path.is_dir():
            raise TraceError(f"cannot write {path}: it is a directory; name a file")
        if path.exists() and not path.is_file():
            raise TraceError(f"cannot write {path}: it is no regular file; name another one")
        if not path.parent.is_dir():
            raise TraceError(f"cannot write {path}: there is no directory {path.parent}")
    except (OSError, ValueError) as error:
        raise TraceError(f"cannot write {path}: {getattr(error, 'strerror', None) or error}") from error
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise TraceError(f"cannot write {path}: no permission to write in {path.parent}")


def write_atomically(path: Path, write: Callable[[BinaryIO], None]) -> None:
    """Let `write` fill a file that appears at `path` only when it is complete.

    :raises TraceError: the disk is full, the directory is missing or not writable
    """
    # through a symbolic link the file it names is replaced, not the link
    path = Path(os.path.realpath(path))
    check_target(path)
    temporary = ""
    try:
        descriptor, temporary = tempfile.mkstemp(prefix=".rmaplab.", suffix=".tmp", dir=path.parent)
        with open(descriptor, "wb") as out:
            write(out)
            out.flush()
            os.fsync(out.fileno())
        # mkstemp makes 0600; a trace is as public as any file its owner writes
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
        temporary = ""
    except OSError as error:
        raise TraceError(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        # also on KeyboardInterrupt: nothing half-written may stay behind
        if temporary:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


def write_trace(trace: Trace, path: str | os.PathLike[str]) -> None:
    """Write `trace` to `path` as Parquet. An existing file is replaced, but only by a complete one.

    :raises TraceError: it cannot be written, or a value does not fit its column
    """
    try:
        arrays = [pa.array(trace.columns[name], type=_storage(name)) for name in COLUMNS]
        op = COLUMNS.index("op")
        arrays[op] = arrays[op].dictionary_encode()
        table = pa.Table.from_arrays(arrays, schema=ARROW_SCHEMA)
    except KeyError as error:
        raise TraceError(f"cannot write {path}: the trace has no column {error}") from error
    except (pa.ArrowException, OverflowError, ValueError, TypeError) as error:
        raise TraceError(f"cannot write {path}: a value does not fit the format ({_line(error)})") from error
    head = {_VERSION_KEY: str(VERSION).encode(), _META_KEY: json.dumps(_meta_to_json(trace.meta)).encode()}
    table = table.replace_schema_metadata(head)
    write_atomically(Path(path), lambda out: pq.write_table(table, out, compression="zstd"))


def read_trace(path: str | os.PathLike[str]) -> Trace:
    """Read the Parquet trace at `path`.

    :raises TraceError: it is missing, damaged, no trace, or of a newer version
    """
    try:
        # opened here: pyarrow would take a path with a colon for a URI
        with open(path, "rb") as source:
            head = pq.read_schema(source).metadata or {}
            meta = _check_head(path, head)
            source.seek(0)
            table = pq.ParquetFile(source).read()
        return Trace(_columns(path, table), meta)
    except OSError as error:
        if error.errno is None:
            # pyarrow's own word for a file that breaks off
            raise _damaged(path, error) from error
        raise TraceError(f"cannot read {path}: {error.strerror or _line(error)}") from error
    except (pa.ArrowException, ArithmeticError, LookupError, MemoryError, TypeError, ValueError) as error:
        # changed bytes reach pyarrow as lengths, codes and text, and it answers with any of these
        raise _damaged(path, error) from error


def _damaged(path: str | os.PathLike[str], error: BaseException) -> TraceError:
    return TraceError(f"cannot read {path}: damaged Parquet file ({_line(error)}); {_AGAIN}")


def _storage(name: str) -> pa.DataType:
    return pa.string() if name == "op" else _TYPES[name]


def _line(error: BaseException) -> str:
    """The first line of what an exception says."""
    text = str(error).strip().splitlines()
    return text[0][:200] if text else type(error).__name__


def _meta_to_json(meta: Meta) -> dict[str, Any]:
    values = asdict(meta)
    del values["version"]
    return values


def _check_head(path: str | os.PathLike[str], head: dict[bytes, bytes]) -> Meta:
    if _VERSION_KEY not in head or _META_KEY not in head:
        raise TraceError(f"{path} is a Parquet file but no rmaplab trace; make one with 'rmaplab record'")
    try:
        version = int(head[_VERSION_KEY])
        values = json.loads(head[_META_KEY])
    except (ValueError, RecursionError) as error:
        raise TraceError(f"cannot read {path}: damaged trace metadata; {_AGAIN}") from error
    if version > VERSION:
        raise TraceError(f"{path} has trace format {version}, this rmaplab reads up to {VERSION}; use a newer rmaplab")
    return _meta_from_json(path, version, values)


def _meta_from_json(path: str | os.PathLike[str], version: int, values: object) -> Meta:
    meta = Meta()
    if not isinstance(values, dict):
        raise TraceError(f"cannot read {path}: damaged trace metadata; {_AGAIN}")
    for item in fields(Meta):
        if item.name in values:
            value = values[item.name]
            # every default has the type that its field must have
            if type(value) is not type(getattr(meta, item.name)):
                raise TraceError(f"cannot read {path}: metadata '{item.name}' is damaged; {_AGAIN}")
            setattr(meta, item.name, value)
    meta.version = version
    return meta


def _columns(path: str | os.PathLike[str], table: pa.Table) -> dict[str, list[Any]]:
    columns: dict[str, list[Any]] = {}
    for name in COLUMNS:
        if name not in table.column_names:
            raise TraceError(f"cannot read {path}: the column '{name}' is missing; {_AGAIN}")
        try:
            column = table.column(name).cast(_storage(name))
        except pa.ArrowException as error:
            raise TraceError(f"cannot read {path}: the column '{name}' is of the wrong type") from error
        if name != "truth" and column.null_count:
            raise TraceError(f"cannot read {path}: the column '{name}' has empty cells; {_AGAIN}")
        columns[name] = cast(Any, column).to_pylist()
    names = {op: sys.intern(op) for op in OPS}
    try:
        columns["op"] = [names[op] for op in columns["op"]]
    except KeyError as error:
        raise TraceError(f"cannot read {path}: unknown operation {error}; {_AGAIN}") from error
    return columns
