# SPDX-License-Identifier: GPL-2.0-only
"""`python -m rmaplab`."""

from rmaplab.cli import main

main()
