# SPDX-License-Identifier: GPL-2.0-only
"""The lazy designs repaired: what the checker asked for, on top of each as it was published.

- A walk holds the lock of each VMA that it looks at (vma_start_read, then: is it still in its tree? as
  lock_vma_under_rcu asks), from before it reads the VMA's range until it has looked at its entries. That excludes
  split, merge, mremap, munmap, exit with its page tables, and fork.
- Hook 4 holds the locks of all VMAs that may map the folio until it puts them: nothing may be forked, moved or
  unmapped while its entries are migration entries.
- Whoever cannot get a VMA lock gives up (the folio lock comes after the mmap lock): reclaim and migration try again
  another time; memory failure waits for the mmap lock without the folio lock, and starts anew.
- What a walk reaches stays: a root VMA holds its mm_struct; where the folio names the mm, its memory waits for a grace
  period (hook 15).

Same objects, same bytes as the published forms. Why each point is needed: docs/answers.md, with counterexamples.
gki_sync_shared.py repairs one of them without VMA locks.
"""

from rmaplab.designs.anon_vma_lazy import AnonVmaLazyDesign
from rmaplab.designs.gki import GkiDesign
from rmaplab.designs.gki_mm import GkiMmDesign
from rmaplab.designs.gki_nofork import GkiNoforkDesign
from rmaplab.designs.gki_sync import GkiSyncDesign

__all__ = [
    "REPAIRS",
    "AnonVmaLazyLockedDesign",
    "GkiLockedDesign",
    "GkiMmLockedDesign",
    "GkiNoforkLockedDesign",
    "GkiSyncLockedDesign",
]


REPAIRS = {
    "walk_locks_vma": "hook 3 holds the lock of each VMA that it looks at (vma_start_read)",
    "pin_locks_vmas": "hook 4 holds the locks of all VMAs that may map the folio",
    "root_pins_mm": "a root VMA holds its mm_struct, and who walks is a user of it (mmgrab, mmget_not_zero)",
    "mm_by_rcu": "hook 15: an mm_struct is freed after a grace period, and who walks is a user of it",
}
"""What a repaired form may have set and the published one not. A form may be taken without one of them, as without a
hook, to see that it is needed."""


class AnonVmaLazyLockedDesign(AnonVmaLazyDesign):
    """`anon_vma_lazy`, repaired."""

    name = "anon_vma_lazy_locked"
    repairs = "anon_vma_lazy"
    walk_locks_vma = True
    root_pins_mm = True


class GkiLockedDesign(GkiDesign):
    """`gki`, repaired."""

    name = "gki_locked"
    repairs = "gki"
    walk_locks_vma = True
    pin_locks_vmas = True
    root_pins_mm = True


class GkiSyncLockedDesign(GkiSyncDesign):
    """`gki_sync`, repaired."""

    name = "gki_sync_locked"
    repairs = "gki_sync"
    walk_locks_vma = True
    pin_locks_vmas = True
    root_pins_mm = True


class GkiNoforkLockedDesign(GkiNoforkDesign):
    """`gki_nofork`, repaired."""

    name = "gki_nofork_locked"
    repairs = "gki_nofork"
    walk_locks_vma = True
    pin_locks_vmas = True
    root_pins_mm = True


class GkiMmLockedDesign(GkiMmDesign):
    """`gki_mm`, repaired."""

    name = "gki_mm_locked"
    repairs = "gki_mm"
    walk_locks_vma = True
    pin_locks_vmas = True
    mm_by_rcu = True
