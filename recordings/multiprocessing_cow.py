#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Children inherit one large table and copy on write what they change, or merely look at (reference counts)."""

import multiprocessing as mp
import os
import sys
import threading

ITEMS = int(sys.argv[1]) if len(sys.argv) > 1 else 40000
WORKERS = 4
table = {i: [i] * 8 for i in range(ITEMS)}


def read(part: int) -> int:
    return sum(len(table[i]) for i in range(part, ITEMS, WORKERS))


def write(part: int) -> int:
    for i in range(part * ITEMS // WORKERS, (part + 1) * ITEMS // WORKERS):
        table[i] = [part]
    return read(part)


def nest(depth: int) -> None:
    """A chain of forks; each generation changes some of what it inherited."""
    write(depth % WORKERS)
    if depth:
        child = mp.Process(target=nest, args=(depth - 1,))
        child.start()
        child.join()


def produce(queue: "mp.Queue[list[int]]", shared: "mp.Array[int]", n: int) -> None:
    for i in range(50):
        shared[n] += i
        queue.put(list(range(i * 10)))


def orphan() -> None:
    """The grandchild outlives its parent, which owns the pages that it inherited; a pipe tells when it ends."""
    done, end = os.pipe()
    if os.fork() == 0:
        os.close(done)
        private = bytearray(1 << 20)
        if os.fork() == 0:
            private[::4096] = b"x" * 256
            read(0)
        os._exit(0)
    os.close(end)
    os.wait()
    os.read(done, 1)


def main() -> None:
    mp.set_start_method("fork")
    with mp.Pool(WORKERS) as pool:
        pool.map(read, range(WORKERS))
        pool.map(write, range(WORKERS))
    # A pool that replaces its workers forks from a process with threads.
    with mp.Pool(2, maxtasksperchild=1) as pool:
        pool.map(read, range(WORKERS), chunksize=1)
    nest(3)

    queue, shared = mp.Queue(), mp.Array("q", WORKERS)
    producers = [mp.Process(target=produce, args=(queue, shared, n)) for n in range(WORKERS)]
    for process in producers:
        process.start()
    consumer = threading.Thread(target=lambda: [queue.get() for _ in range(50 * WORKERS)])
    consumer.start()
    for process in producers:
        process.join()
    consumer.join()
    orphan()


if __name__ == "__main__":
    main()
