# SPDX-License-Identifier: GPL-2.0-only
"""Replay strings: what is encoded comes back; what does not fit is one clear line."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rmaplab.check.ops import Operation, parse_operation
from rmaplab.check.replay_string import Replay, decode, digest, encode
from rmaplab.check.world import World, library
from rmaplab.errors import UserError

LINES = [
    "A: mmap p0 1",
    "A: mmap p0 2 r file",
    "A:write  p0 =5",
    "B: mremap p0 1 p8 keep",
    "A: fork B",
    "A: exit",
    "reclaim A p0",
    "reclaim-writeback A h3",
    "ksm A p0 B p0",
    "A: madvise h0 512 hugepage",
]
operations = st.lists(st.sampled_from(LINES).map(parse_operation), max_size=3).map(tuple)
worlds = st.builds(
    World,
    st.text(min_size=1, max_size=12),
    st.just(""),
    st.just(()),
    operations,
    st.lists(operations, min_size=1, max_size=3).map(tuple),
    st.integers(0, 9),
    st.integers(0, 9),
    st.booleans(),
    st.sampled_from(["never", "madvise", "always"]),
)
choices = st.lists(st.tuples(st.integers(0, 2), st.integers(0, 3)), max_size=40).map(tuple)
orders = st.lists(st.tuples(st.sampled_from(["folio", "ptl"]), st.sampled_from(["mmap_lock"])), max_size=2).map(tuple)


def plain(world: World) -> list[list[tuple[str, ...]]]:
    def words(operation: Operation) -> tuple[str, ...]:
        return (operation.process, operation.name, *map(str, operation.args))

    return [[words(operation) for operation in part] for part in (world.setup, *world.cpus)]


@given(st.sampled_from(["gki", "anon_vma", "gki~hook 3"]), worlds, choices, orders)
def test_there_and_back(design: str, world: World, some: tuple[tuple[int, int], ...], order: object) -> None:
    """A name, an option, an outcome or a repetition that gets lost; a character that a shell would take."""
    text = encode(Replay(design, world, some, order), library())  # type: ignore[arg-type]
    assert re.fullmatch(r"[A-Za-z0-9_:=.,/+%~-]+", text)
    back = decode(text, library())
    assert (back.design, back.choices, back.order) == (design, some, order)
    assert plain(back.world) == plain(world)
    assert digest(back.world) == digest(world)
    assert replace(back.world, setup=(), cpus=()) == replace(world, setup=(), cpus=())


@given(st.sampled_from(sorted(library())), choices)
def test_worlds_of_the_library_go_by_name(name: str, some: tuple[tuple[int, int], ...]) -> None:
    world = library()[name]
    text = encode(Replay("gki", world, some), library())
    assert text.startswith(f"rmaplab1:gki:{name}:")
    assert decode(text, library()) == Replay("gki", world, some)


def test_example() -> None:
    world = library()["reclaim-fork"]
    text = encode(Replay("gki", world, ((0, 0),) * 12 + ((1, 0),) * 4 + ((0, 1),)), library())
    assert text == f"rmaplab1:gki:reclaim-fork:{digest(world)}:0x12,1x4,0.1"


GOOD = encode(Replay("gki", library()["reclaim-fork"], ((0, 0),)), library())


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("", "no replay string"),
        ("hello", "'hello'"),
        (GOOD.replace("rmaplab1", "rmaplab2"), "version 2; this rmaplab knows version 1"),
        (GOOD.replace("rmaplab1", "rmaplab"), "no replay string"),
        (GOOD.replace("reclaim-fork", "no-such"), "no world 'no-such'"),
        (re.sub(":[0-9a-f]{6}:", ":000000:", GOOD), "digest"),
        (GOOD.rpartition(":")[0], "was it cut?"),
        (GOOD + "y", "'0y' is no choice"),
        (GOOD + "x99999", "more than"),
        (GOOD + ":folio", "lock order"),
        (GOOD.replace("reclaim-fork", "w=A.jump/A.exit"), "unknown operation 'jump'"),
        (GOOD.replace("reclaim-fork", "w=A.exit"), "0 CPUs"),
        (GOOD.replace("reclaim-fork", "w=A.exit/A.exit+fast"), "'fast'"),
    ],
)
def test_what_does_not_fit(text: str, word: str) -> None:
    with pytest.raises(UserError, match=re.escape(word)) as error:
        decode(text, library())
    assert "\n" not in str(error.value)


@given(st.text(alphabet="rmaplab1:gki=.,/+%x0A-", max_size=60))
def test_garbage_is_refused_or_read(text: str) -> None:
    """Anything but UserError for a string that was damaged on its way."""
    for damaged in (text, f"rmaplab1:gki:w={text}", GOOD[: len(text)] + text):
        try:
            decode(damaged, library())
        except UserError:
            continue
