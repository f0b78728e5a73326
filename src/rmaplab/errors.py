# SPDX-License-Identifier: GPL-2.0-only
"""The one exception that stands for a mistake or a limit the user can act on."""


class UserError(Exception):
    """One clear line for the user; exit status 2."""
