# SPDX-License-Identifier: GPL-2.0-only
"""Generated workloads: an Android-like system, written as an ordinary trace (docs/synth-android.md)."""
