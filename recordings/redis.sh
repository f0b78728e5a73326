#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# Redis serving redis-benchmark while children write two snapshots and one AOF rewrite.
# Usage: redis.sh [REQUESTS]
set -eu
requests=${1:-20000}

dir=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || :
    rm -rf "$dir"
}
trap cleanup EXIT
cd "$dir"

redis-server --port 0 --unixsocket "$dir/socket" --dir "$dir" --save "" --daemonize no >log 2>&1 &
server=$!
cli() { redis-cli -s "$dir/socket" "$@"; }
load() { redis-benchmark -s "$dir/socket" -q -n "$requests" -r 20000 -d 100 -t "$1" >/dev/null; }
# The child may still be waiting to be reaped: the server refuses a second one until then.
no_child() { until [ "$(cli info persistence | grep -cE '^(rdb_bgsave|aof_rewrite)_in_progress:1')" = 0 ]; do sleep 0.1; done; }

until cli ping >/dev/null 2>&1; do sleep 0.1; done
load set,lpush,hset
for _ in 1 2; do
    cli bgsave >/dev/null
    load set            # writes to pages that the child still shares
    no_child
done
cli bgrewriteaof >/dev/null
load set
no_child
cli flushall >/dev/null
cli shutdown nosave >/dev/null
wait "$server"
server=
