# SPDX-License-Identifier: GPL-2.0-only
"""What differs between kernel versions, as named features.

The model never compares versions: it asks for a feature. Each names the commit that changed it.
"""

from dataclasses import dataclass, replace

__all__ = ["PROFILES", "KernelProfile", "profile_for"]


@dataclass(frozen=True, slots=True)
class KernelProfile:
    """Features of one kernel."""

    name: str

    merge_asks_uncowed_parents: bool
    """is_mergeable_anon_vma: a merge that copies or keeps an anon_vma is refused when the side that has one still
    has parents of a fork (its chain is not singular). Before, the target's chain was tested in any case. Commit
    879bca0a2c4f "mm/vma: fix incorrectly disallowed anonymous VMA merges" (in v6.16)."""

    fork_copies_file_guards: bool
    """fork copies the guard markers of a mapping of a file, which gets no anon_vma for them. Commit ab04b530e7e8 "mm:
    introduce copy-on-fork VMAs and make VM_MAYBE_GUARD one" (in v6.19); measured in 6.18.44, whose smaps shows `gu`."""

    mremap_moves_many: bool
    """mremap(MREMAP_FIXED) with an unchanged size may move a range of several VMAs. Commit d23cb648e365 "mm/mremap:
    permit mremap() move of multiple VMAs" (in v6.17)."""

    merge_dups_copied_from: bool
    """vma_merge_new_range of copy_vma clones the anon_vma of the VMA it copies into an unfaulted target. Commit
    61f67c230a5e "mm/vma: fix anon_vma UAF on mremap() faulted, unfaulted merge" (in v6.19, and in v6.18.y)."""

    dontunmap_splits_locked: bool
    """MREMAP_DONTUNMAP of a VM_LOCKED VMA splits it at the range first, so that only the range loses VM_LOCKED; before,
    the whole VMA did. Commit 597e4b9ab48a "mm/mremap: fix locked_vm leak by splitting VMA for MREMAP_DONTUNMAP" (in
    v6.12.114, not in v6.18.44; which mainline version is not known to us)."""

    dontunmap_resets_pgoff: bool
    """The source of an MREMAP_DONTUNMAP that covered it whole is unfaulted afterwards and gets the page offset of an
    unfaulted VMA. Commit 35b0fb391b0d "mm/mremap: reset unfaulted VMA page offset for MREMAP_DONTUNMAP" (about
    v7.3-rc2; in v6.12.112, not in v6.18.44: measured, recordings/random, row of the first later merge)."""

    dontunmap_keeps_source: bool
    """copy_vma for MREMAP_DONTUNMAP of an unfaulted VMA does not merge with the source itself. Commit 838bb60dc215
    "mm/mremap: fix locked_vm leak from MREMAP_DONTUNMAP self-merge" (in v6.12.114, not in v6.18.44; mainline
    version as above)."""


V6_18 = KernelProfile(
    name="6.18",
    merge_asks_uncowed_parents=True,
    fork_copies_file_guards=True,
    mremap_moves_many=True,
    merge_dups_copied_from=True,
    dontunmap_splits_locked=False,
    dontunmap_keeps_source=False,
    dontunmap_resets_pgoff=False,
)
V6_16 = replace(
    V6_18, name="6.16", fork_copies_file_guards=False, mremap_moves_many=False, merge_dups_copied_from=False
)
V6_12 = replace(
    V6_16,
    name="6.12",
    merge_asks_uncowed_parents=False,
    dontunmap_splits_locked=True,
    dontunmap_keeps_source=True,
    dontunmap_resets_pgoff=True,
)

PROFILES = {profile.name: profile for profile in (V6_12, V6_16, V6_18)}


def profile_for(release: str) -> KernelProfile:
    """The profile nearest below the kernel `release` (``uname -r``); the newest one where it is unknown.

    >>> profile_for("6.12.117").name
    '6.12'
    >>> profile_for("").name
    '6.18'
    """
    numbers = release.split(".")
    try:
        version = int(numbers[0]), int("".join(c for c in numbers[1] if c.isdigit()))
    except (IndexError, ValueError):
        return V6_18
    if version >= (6, 17):
        return V6_18
    return V6_16 if version >= (6, 16) else V6_12
