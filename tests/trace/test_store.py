# SPDX-License-Identifier: GPL-2.0-only
"""The trace on disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rmaplab.trace import Meta, Trace, TraceError, open_trace, read_trace, write_trace
from rmaplab.trace.schema import COLUMNS, OPS, pack_truth, unpack_truth
from rmaplab.trace.store import write_atomically

INT32 = st.integers(-(2**31), 2**31 - 1)
INT64 = st.integers(-(2**63), 2**63 - 1)
KINDS: dict[str, st.SearchStrategy[Any]] = {
    "op": st.sampled_from(OPS),
    "quiescent": st.booleans(),
    "truth": st.none() | st.lists(INT64, max_size=4),
    **{name: INT32 for name in ("tid", "pid", "call", "prot", "file", "peer")},
}
ROWS = st.lists(st.fixed_dictionaries({name: KINDS.get(name, INT64) for name in COLUMNS}), max_size=20)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
METAS = st.builds(
    Meta,
    command=st.lists(TEXT, max_size=3),
    kernel=TEXT,
    truth=st.booleans(),
    lost=st.integers(0, 2**63 - 1),
    ignored=st.dictionaries(TEXT, st.integers(0, 2**40), max_size=3),
    files=st.lists(TEXT, max_size=3),
    processes=st.lists(st.fixed_dictionaries({"pid": INT32, "comm": TEXT, "parent": INT32}), max_size=3),
)


def build(rows: list[dict[str, Any]], meta: Meta) -> Trace:
    return Trace({name: [row[name] for row in rows] for name in COLUMNS}, meta)


def small() -> Trace:
    trace = Trace.empty(Meta(command=["true"]))
    trace.append("exec", tid=1, pid=1, flags=1)
    trace.append("fault", tid=1, pid=1, addr=0x1000, flags=6, truth=[9])
    return trace


@settings(deadline=None, max_examples=60)
@given(rows=ROWS, meta=METAS)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]], meta: Meta) -> None:
    """Would catch: any value of any column or metadata field that the file changes."""
    path = tmp_path_factory.mktemp("trace") / "t.parquet"
    trace = build(rows, meta)
    write_trace(trace, path)
    again = read_trace(path)
    assert again.columns == trace.columns
    assert again.meta == meta


@given(obj=st.integers(0, 2**60 - 1), cache=st.integers(0, 2), alloc=st.booleans())
def test_truth_words(obj: int, cache: int, alloc: bool) -> None:
    """Would catch: cache or direction leaking into the object number."""
    assert unpack_truth(pack_truth(obj, cache, alloc)) == (obj, cache, alloc)


def test_operations_are_interned(tmp_path: Path) -> None:
    """Would catch: a replay that compares operations by identity finding none."""
    write_trace(small(), tmp_path / "t.parquet")
    ops = read_trace(tmp_path / "t.parquet").columns["op"]
    assert ops[0] is OPS[OPS.index("exec")]


def test_any_parquet_tool_reads_it(tmp_path: Path) -> None:
    """Would catch: a schema that differs from docs/trace-format.md."""
    write_trace(small(), tmp_path / "t.parquet")
    table = pq.read_table(tmp_path / "t.parquet")
    assert tuple(table.column_names) == COLUMNS
    assert pa.types.is_dictionary(table.schema.field("op").type)
    assert table.schema.field("truth").type.value_type == pa.int64()
    assert table.schema.metadata[b"rmaplab.version"] == b"1"
    assert json.loads(table.schema.metadata[b"rmaplab"])["command"] == ["true"]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_file(tmp_path: Path, error: BaseException) -> None:
    """Would catch: half a trace, or none, where a whole one was before the disk ran full or Ctrl-C."""
    path = tmp_path / "t.parquet"
    path.write_bytes(b"old")

    def fail(out: BinaryIO) -> None:
        out.write(b"half")
        raise error

    with pytest.raises((TraceError, KeyboardInterrupt)):
        write_atomically(path, fail)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["t.parquet"]


def test_targets_that_are_never_replaced(tmp_path: Path) -> None:
    """Would catch: /dev/null turned into a file by root, or a directory into a trace."""
    os.mkfifo(tmp_path / "fifo")
    for target in (tmp_path / "fifo", tmp_path, tmp_path / "none" / "t.parquet", Path("/dev/null")):
        with pytest.raises(TraceError, match="cannot write"):
            write_trace(small(), target)
    assert (tmp_path / "fifo").is_fifo()
    assert Path("/dev/null").is_char_device()


def test_a_link_is_followed(tmp_path: Path) -> None:
    """Would catch: a symbolic link replaced by the file that it should lead to."""
    (tmp_path / "link").symlink_to(tmp_path / "real")
    write_trace(small(), tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert len(read_trace(tmp_path / "real")) == 2


def test_values_that_do_not_fit(tmp_path: Path) -> None:
    """Would catch: a traceback of pyarrow for a generator's mistake."""
    trace = small()
    trace.columns["tid"][0] = 1 << 40
    with pytest.raises(TraceError, match="does not fit"):
        write_trace(trace, tmp_path / "t.parquet")
    assert not list(tmp_path.iterdir())


def rewrite(path: Path, change: Any) -> None:
    table = pq.read_table(path)
    pq.write_table(change(table), path)


def head(table: pa.Table, **values: object) -> pa.Table:
    metadata = dict(table.schema.metadata)
    for name, value in values.items():
        metadata[name.replace("_", ".").encode() if name != "rmaplab" else b"rmaplab"] = str(value).encode()
    return table.replace_schema_metadata(metadata)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.replace_schema_metadata(None), "no rmaplab trace"),
        (lambda t: head(t, rmaplab_version=2), "newer rmaplab"),
        (lambda t: head(t, rmaplab_version="x"), "damaged"),
        (lambda t: head(t, rmaplab="[1]"), "damaged"),
        (lambda t: head(t, rmaplab='{"lost": "many"}'), "lost"),
        (lambda t: t.drop_columns(["addr"]), "'addr' is missing"),
        (lambda t: t.set_column(5, "addr", pa.array(["x", "y"])), "wrong type"),
        (lambda t: t.set_column(5, "addr", pa.array([1, None])), "empty cells"),
        (lambda t: t.set_column(4, "op", pa.array(["exec", "dance"])), "dance"),
    ],
)
def test_foreign_and_damaged_files(tmp_path: Path, change: Any, message: str) -> None:
    """Would catch: a traceback, or a wrong figure, for a Parquet file that is no trace of ours."""
    path = tmp_path / "t.parquet"
    write_trace(small(), path)
    rewrite(path, change)
    with pytest.raises(TraceError, match=message) as error:
        open_trace(path)
    assert "\n" not in str(error.value)


def test_unknown_metadata_is_passed_over(tmp_path: Path) -> None:
    """Would catch: a later version that adds a field locking out this reader within one format."""
    path = tmp_path / "t.parquet"
    write_trace(small(), path)
    rewrite(path, lambda t: head(t, rmaplab='{"command": ["a"], "mood": 7}'))
    assert read_trace(path).meta.command == ["a"]


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_corrupted_parquet_never_gives_a_traceback(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    """Would catch: any exception but TraceError for a damaged or truncated file."""
    path = tmp_path_factory.mktemp("trace") / "t.parquet"
    write_trace(small(), path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans(), "truncate"):
        content = content[: data.draw(st.integers(0, len(content) - 1), "length")]
    else:
        for _ in range(data.draw(st.integers(1, 4), "changes")):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        open_trace(path)
    except TraceError as error:
        assert "\n" not in str(error)
