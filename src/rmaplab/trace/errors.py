# SPDX-License-Identifier: GPL-2.0-only
"""What may go wrong with a recording, each as one line for the user."""

from rmaplab.errors import UserError

__all__ = ["RecordError", "TraceError"]


class TraceError(UserError):
    """A trace or recording cannot be read or written: what is wrong, what to do."""


class RecordError(UserError):
    """A run cannot be recorded: what is wrong, what to do."""
