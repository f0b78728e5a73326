# SPDX-License-Identifier: GPL-2.0-only
"""What the commands share: errors as one line, progress on a terminal, the choice of a kernel profile."""

import contextlib
import sys
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import click
from rich.console import Console

from rmaplab.errors import UserError
from rmaplab.mm.profile import PROFILES, KernelProfile, profile_for

__all__ = ["busy", "failures", "profile_option", "progress", "resolve_profile"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


class Failure(click.ClickException):
    """One line on stderr, exit status 2."""

    exit_code = 2

    def show(self, file: object = None) -> None:
        """Print the line, as plain as every other message."""
        click.echo(f"rmaplab: {self.format_message()}", err=True)


@contextlib.contextmanager
def failures() -> Iterator[None]:
    """Turns a UserError into its one line and exit status 2."""
    try:
        yield
    except UserError as error:
        raise Failure(str(error)) from error


@contextlib.contextmanager
def progress(what: str) -> Iterator[Callable[[int], None] | None]:
    """A line that moves while `what` goes on, on a terminal only. What is yielded takes a number of lines read."""
    if not sys.stderr.isatty():
        yield None
        return
    with contextlib.ExitStack() as stack:
        status = Console(stderr=True).status(what)
        started = False

        def show(lines: int) -> None:
            # not before the first call: while a recorded command runs, the terminal is its own
            nonlocal started
            if not started:
                started = True
                stack.enter_context(status)
            status.update(f"{what}: {lines:,} lines")

        yield show


@contextlib.contextmanager
def busy(what: str) -> Iterator[None]:
    """The same without a number."""
    if not sys.stderr.isatty():
        yield
        return
    with Console(stderr=True).status(what):
        yield


def profile_option(command: _Command) -> _Command:
    """Adds --rules to a command."""
    return click.option(
        "--rules",
        metavar="VERSION",
        help=f"Kernel whose rules the model follows ({', '.join(PROFILES)}); as recorded by default.",
    )(command)


def resolve_profile(rules: str | None, recorded_kernel: str) -> KernelProfile:
    """The profile named by --rules, else that of the recorded kernel."""
    if rules is None:
        return profile_for(recorded_kernel)
    if rules not in PROFILES:
        raise UserError(f"no kernel rules {rules!r}; known are {', '.join(PROFILES)}")
    return PROFILES[rules]
