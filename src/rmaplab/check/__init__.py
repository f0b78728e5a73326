# SPDX-License-Identifier: GPL-2.0-only
"""Checking designs: invariants, and what explores histories to break them."""
