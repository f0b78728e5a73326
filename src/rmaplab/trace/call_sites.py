# SPDX-License-Identifier: GPL-2.0-only
"""Which slab events are about reverse mapping.

SLUB merges caches of one object size, so `name=anon_vma_chain` also covers other 64-byte objects
(fs_struct, epoll entries: more than nine of ten events of a server). The call site tells them apart.

`vm_area_struct` and `anon_vma` are taken by name alone: on current kernels they are
SLAB_TYPESAFE_BY_RCU, which SLUB never merges. On a kernel that merged one of them under *another*
cache's name, its events would not be recorded at all; nothing here can mend that.
"""

from __future__ import annotations

import re
from typing import Final

from rmaplab.trace.schema import ANON_VMA_CHAIN, CACHES, VM_AREA_STRUCT

__all__ = ["DEFERRED", "IGNORED", "CallSites", "base_name"]

IGNORED: Final = -1
"""An event that is about something else."""
DEFERRED: Final = -2
"""A free by an RCU callback, in whatever task the softirq interrupted."""

_SUFFIX: Final = re.compile(r"\.(?:part|isra|constprop|cold|llvm|lto_priv)\b.*$")
_RCU_CALLBACKS: Final = frozenset({"vm_area_free_rcu_cb", "rcu_do_batch", "rcu_core", "rcu_cblist_dequeue"})


def base_name(site: str) -> str:
    """The function of a call site, without offset and compiler suffixes.

    >>> base_name("call_site=anon_vma_clone.part.0+0x66")
    'anon_vma_clone'
    """
    return _SUFFIX.sub("", site.removeprefix("call_site=").partition("+")[0])


class CallSites:
    """Decides once for each pair of call site and cache name, and remembers the sizes it saw."""

    def __init__(self) -> None:
        self.caches: dict[tuple[str, str], int] = {}
        """(`call_site=...`, `name=...`) as printed -> number of the cache, IGNORED or DEFERRED."""
        self.sizes: dict[str, dict[str, int]] = {}
        """Cache name -> {object_size, slot_size} in bytes."""
        self.deferred: set[str] = set()
        """Caches whose frees come from RCU callbacks."""
        self._ignored: dict[str, int] = {}
        self._nameless = False

    def learn(self, site: str, name: str, rest: str) -> int:
        """Classify a pair seen for the first time; `rest` is the whole event.

        :raises ValueError: the event does not look like one of the kmem events
        """
        if not (site.startswith("call_site=") and name.startswith("name=") and " ptr=0x" in rest):
            raise ValueError(rest)
        decision = self.caches[site, name] = self._decide(base_name(site), name[5:])
        cache = name[5:]
        if decision >= 0 and cache not in self.sizes:
            fields = dict(part.partition("=")[::2] for part in rest.split())
            if fields.get("bytes_req", "").isdigit() and fields.get("bytes_alloc", "").isdigit():
                self.sizes[cache] = {
                    "object_size": int(fields["bytes_req"]),
                    "slot_size": int(fields["bytes_alloc"]),
                }
        return decision

    def _decide(self, function: str, cache: str) -> int:
        if cache not in CACHES:
            return IGNORED
        number = CACHES.index(cache)
        if number == VM_AREA_STRUCT and function in _RCU_CALLBACKS:
            return DEFERRED
        if number == ANON_VMA_CHAIN:
            if function.startswith("0x"):
                # no symbols: better all than none, and said so
                self._nameless = True
            elif "anon_vma" not in function:
                # __anon_vma_prepare, anon_vma_clone, anon_vma_fork, unlink_anon_vmas,
                # anon_vma_chain_free, cleanup_partial_anon_vmas: every function that handles one says so
                return IGNORED
        return number

    def tally(self, name: str) -> None:
        """Count an ignored event of the cache printed as `name`."""
        cache = name[5:]
        reason = f"slab event of {'another user of ' if cache in CACHES else ''}{cache}"
        self._ignored[reason] = self._ignored.get(reason, 0) + 1

    def defer(self, name: str) -> None:
        """Count a free that no operation owns."""
        self.deferred.add(name[5:])
        reason = f"{name[5:]} freed by an RCU callback"
        self._ignored[reason] = self._ignored.get(reason, 0) + 1

    def ignored(self) -> dict[str, int]:
        """Reason -> count."""
        if self._nameless:
            return {**self._ignored, "call sites without names: other users of anon_vma_chain kept": 1}
        return dict(self._ignored)
