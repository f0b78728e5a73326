#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Random memory management calls; see random.c.  A program in $RMAPLAB_PROGRAMS is used instead of compiling it,
# so that no compiler is in the recording.
# Usage: random.sh [SEED [STEPS [THREADS]]]
set -eu
here=$(cd "$(dirname "$0")" && pwd)

dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
program=${RMAPLAB_PROGRAMS:-$dir}/random
[ -x "$program" ] || cc -O2 -pthread -o "$program" "$here/random.c"
cd "$dir"
"$program" "${1:-1}" "${2:-2000}" "${3:-0}"
