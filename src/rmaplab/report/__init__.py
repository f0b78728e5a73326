# SPDX-License-Identifier: GPL-2.0-only
"""Results as text (75 columns, to paste into a mail) and as JSON. Nothing is computed here but percentages."""
