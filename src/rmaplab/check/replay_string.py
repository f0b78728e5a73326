# SPDX-License-Identifier: GPL-2.0-only
"""The line that reproduces a counterexample::

    rmaplab1:gki:reclaim-fork:3f2a9c:0x12,1x4,0.1
    rmaplab1:gki:reclaim-fork=A.mmap.p0.1,A.write.p0/reclaim.A.p0/A.fork.B:77aa01:0x12,1x4

Format version, design, world, a digest of what the world does, choices: ``0x12`` = twelve steps of CPU0, ``0.1`` = one
step of CPU0 with its outcome 1 (an allocation or a trylock fails). A world that is not in the library stands there
whole: setup and CPUs between slashes, then its options after plus signs. A sixth field tells a lock order learned in
other executions. All characters can be pasted into a shell unquoted.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from urllib.parse import quote, unquote

from rmaplab.check.explore.result import Choice
from rmaplab.check.ops import Operation, parse_operation
from rmaplab.check.world import World
from rmaplab.errors import UserError

__all__ = ["VERSION", "Replay", "decode", "digest", "encode"]

VERSION = 1
MOST = 50_000
"""Choices at most: no execution has more."""

_TAG = "rmaplab"
_THP = ("never", "madvise", "always")


@dataclass(frozen=True, slots=True)
class Replay:
    """What a replay string says.

    order: pairs (held, acquired) of lock kinds that other executions had shown before this one
    """

    design: str
    world: World
    choices: tuple[Choice, ...]
    order: tuple[tuple[str, str], ...] = ()


def _word(operation: Operation) -> str:
    words = operation.text.rpartition(":")[2].split()
    return ".".join([operation.process, *words] if operation.process else words)


def _body(world: World) -> str:
    """What the world does, in one word"""
    parts = "/".join(",".join(map(_word, operations)) for operations in (world.setup, *world.cpus))
    options = [f"fail={world.fail}"] if world.fail else []
    options += [f"tryfail={world.tryfail}"] if world.tryfail else []
    options += ["reuse"] if world.reuse else []
    options += [f"thp={world.thp}"] if world.thp != "never" else []
    return "+".join([parts, *options])


def digest(world: World) -> str:
    """Changes with anything that the world does; its name and description do not matter."""
    return hashlib.sha256(_body(world).encode()).hexdigest()[:6]


def encode(replay: Replay, library: dict[str, World]) -> str:
    """The string; the world stands in it whole unless `library` has it."""
    world = replay.world
    name = quote(world.name, safe="")
    known = library.get(world.name)
    if known is None or digest(known) != digest(world):
        name += f"={_body(world)}"
    runs = []
    for (task, outcome), group in groupby(replay.choices):
        count = len(list(group))
        runs.append(f"{task}" + (f".{outcome}" if outcome else "") + (f"x{count}" if count > 1 else ""))
    fields = [f"{_TAG}{VERSION}", quote(replay.design, safe="~+"), name, digest(world), ",".join(runs)]
    if replay.order:
        fields.append("+".join(f"{held}.{acquired}" for held, acquired in replay.order))
    return ":".join(fields)


def decode(text: str, library: dict[str, World]) -> Replay:
    """Raises UserError: another version, a world that is unknown or has changed, garbage."""
    fields = text.strip().split(":")
    match = re.fullmatch(rf"{_TAG}([0-9]+)", fields[0])
    if match is None:
        raise UserError(f"no replay string: it starts with {fields[0][:20]!r}, not with '{_TAG}{VERSION}:'")
    if int(match[1]) != VERSION:
        raise UserError(f"a replay string of version {int(match[1])}; this rmaplab knows version {VERSION}")
    if not 5 <= len(fields) <= 6:
        raise UserError(f"no replay string: {len(fields)} fields instead of 5 or 6; was it cut?")
    world = _world(fields[2], library)
    if digest(world) != fields[3]:
        raise UserError(
            f"world {world.name!r} is not the one of the replay string (digest {digest(world)}, not {fields[3]!r})"
        )
    return Replay(unquote(fields[1]), world, _choices(fields[4]), _order(fields[5:]))


def _choices(text: str) -> tuple[Choice, ...]:
    choices: list[Choice] = []
    for part in text.split(",") if text else []:
        match = re.fullmatch(r"([0-9]{1,2})(?:\.([0-9]{1,3}))?(?:x([0-9]{1,5}))?", part)
        if match is None:
            raise UserError(f"no replay string: {part!r} is no choice; they look like 0x12 or 0.1")
        choices += [(int(match[1]), int(match[2] or 0))] * int(match[3] or 1)
        if len(choices) > MOST:
            raise UserError(f"no replay string: more than {MOST} choices")
    return tuple(choices)


def _order(fields: Sequence[str]) -> tuple[tuple[str, str], ...]:
    pairs = []
    for pair in fields[0].split("+") if fields else []:
        held, dot, acquired = pair.partition(".")
        if not dot:
            raise UserError(f"no replay string: {pair!r} is no lock order; it looks like folio.anon_vma")
        pairs.append((held, acquired))
    return tuple(pairs)


def _world(field: str, library: dict[str, World]) -> World:
    name, inline, body = field.partition("=")
    name = unquote(name)
    if not inline:
        if name not in library:
            raise UserError(f"no world {name!r} in the library; a replay string of another version of rmaplab?")
        return library[name]
    parts, *options = body.split("+")
    setup, *cpus = [tuple(_operation(word) for word in part.split(",")) if part else () for part in parts.split("/")]
    if not 1 <= len(cpus) <= 3:
        raise UserError(f"no replay string: its world has {len(cpus)} CPUs")
    world = World(name, "", (), setup, tuple(cpus))
    for option in options:
        key, _, value = option.partition("=")
        if key == "fail" and re.fullmatch("[0-9]", value):
            world = replace(world, fail=int(value))
        elif key == "tryfail" and re.fullmatch("[0-9]", value):
            world = replace(world, tryfail=int(value))
        elif option == "reuse":
            world = replace(world, reuse=True)
        elif key == "thp" and value in _THP:
            world = replace(world, thp=value)
        else:
            raise UserError(f"no replay string: unknown option {option!r} of its world")
    return world


def _operation(word: str) -> Operation:
    words = word.split(".")
    if re.fullmatch("[A-Z]", words[0]):
        words[0] += ":"
    try:
        return parse_operation(" ".join(words))
    except UserError as error:
        raise UserError(f"no replay string: {error}") from error
