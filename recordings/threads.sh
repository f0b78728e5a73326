#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Threads that race on one mm; see threads.c.  A program in $RMAPLAB_PROGRAMS is used instead of compiling it,
# so that no compiler is in the recording.
# Usage: threads.sh [ROUNDS [THREADS]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
program=${RMAPLAB_PROGRAMS:-$dir}/threads
[ -x "$program" ] || cc -O2 -pthread -o "$program" "$here/threads.c"
"$program" "$@"
