#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Python multiprocessing with the fork start method; see multiprocessing_cow.py.
# Usage: multiprocessing.sh [ITEMS]
exec /usr/bin/python3 "$(dirname "$0")/multiprocessing_cow.py" "${1:-40000}"
