#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# PostgreSQL: initdb, a server, 32 clients with a backend each, then a new backend per transaction.
# Usage: postgresql.sh [CLIENTS [TRANSACTIONS]]
set -eu
clients=${1:-32}
transactions=${2:-20}

# The server refuses to run as root, and its user need not be able to read this file.
if [ "$(id -u)" = 0 ]; then
    exec setpriv --reuid=postgres --regid=postgres --init-groups sh -c "$(cat "$0")" "$0" "$@"
fi

PATH=$(ls -d /usr/lib/postgresql/*/bin | sort -V | tail -n 1):$PATH
dir=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill -QUIT "$server" 2>/dev/null || :
    rm -rf "$dir"
}
trap cleanup EXIT
cd "$dir"
export PGHOST="$dir" PGDATABASE=postgres LC_ALL=C

initdb -D data --no-sync --auth=trust >/dev/null
postgres -D data -k "$dir" -c listen_addresses= -c fsync=off -c shared_buffers=16MB >log 2>&1 &
server=$!
until pg_isready -q; do sleep 0.1; done
pgbench -q -i -s 2 2>/dev/null
pgbench -c "$clients" -j 2 -t "$transactions" >/dev/null 2>&1
pgbench -S -C -c 4 -t 10 >/dev/null 2>&1
# Workers of a parallel query are forked by the postmaster too, and map its dynamic shared memory.
psql -qAt >/dev/null <<-SQL
	SET min_parallel_table_scan_size = 0; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0;
	SELECT count(*), sum(abalance) FROM pgbench_accounts;
SQL
kill -INT "$server"     # a fast shutdown
wait "$server"
server=
