#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Make the bundled recordings anew, all or those named.  Needs root, perf, and the packages named in README.md.
# Usage: make-all.sh [NAME...]
set -eu
cd "$(dirname "$0")/.."
rmaplab=$(command -v "${RMAPLAB:-rmaplab}")
[ $# -gt 0 ] || set -- chromium postgresql redis build multiprocessing random threads

# Compiled here, so that the recordings hold the programs and not their compiler.
RMAPLAB_PROGRAMS=$(mktemp -d)
export RMAPLAB_PROGRAMS
trap 'rm -rf "$RMAPLAB_PROGRAMS"' EXIT
for program in random threads; do
    cc -O2 -pthread -o "$RMAPLAB_PROGRAMS/$program" "recordings/$program.c"
done

# The distribution's programs, not what a user may have put in front of them, and no locale's files.
export LC_ALL=C
PATH=/usr/bin:/bin
mkdir -p src/rmaplab/recordings
for name; do
    "$rmaplab" record -o "src/rmaplab/recordings/$name.parquet" -- "recordings/$name.sh"
done
ls -l src/rmaplab/recordings
