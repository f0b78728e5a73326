# SPDX-License-Identifier: GPL-2.0-only
"""Histories of system calls and faults, made up rather than recorded."""
