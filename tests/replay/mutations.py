# SPDX-License-Identifier: GPL-2.0-only
"""The rules of the model, each with a way to remove it: a change of one place in the source of one function.

A rule that can be removed without any recording noticing is not tested by the kernel. `tools/mutations.py` runs the
whole list over all recordings and writes docs/mutations.md.
"""

import importlib
import inspect
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FunctionType

from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm.profile import KernelProfile, profile_for
from rmaplab.replay.run import no_gc
from rmaplab.replay.truth import check_truth
from rmaplab.trace.schema import Trace

__all__ = ["MUTATIONS", "Mutation", "Outcome", "removed", "replay_mutated"]

PROFILE = "profile"


@dataclass(frozen=True, slots=True)
class Mutation:
    """One rule.

    where: `module:function` below rmaplab, whose source has `old` once; or `profile`, with a feature as `old`
    new: what stands in place of `old` when the rule is removed
    killed_by: the first recording that shows it
    """

    rule: str
    where: str
    old: str
    new: str
    killed_by: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a recording says of a model without the rule: mismatching operations, points with wrong counts, mmap ranges
    that differ, rows that could not be applied, or the exception that ended the replay."""

    operations: int = 0
    points: int = 0
    ranges: int = 0
    problems: int = 0
    error: str = ""

    @property
    def killed(self) -> bool:
        return bool(self.operations or self.points or self.ranges or self.problems or self.error)


def _function(where: str) -> FunctionType:
    module, _, path = where.partition(":")
    found = importlib.import_module(f"rmaplab.{module}")
    for name in path.split("."):
        found = getattr(found, name)
    assert isinstance(found, FunctionType), where
    return found


@contextmanager
def removed(mutation: Mutation, profile: KernelProfile) -> Iterator[KernelProfile]:
    """The model without the rule, and the profile to replay with."""
    if mutation.where == PROFILE:
        yield replace(profile, **{mutation.old: mutation.new == "True"})
        return
    function = _function(mutation.where)
    source = textwrap.dedent(inspect.getsource(function))
    found = source.count(mutation.old)
    assert found == 1, (
        f"{mutation.where} has changed: {mutation.old!r} is in it {found} times; tell tests/replay/mutations.py how "
        f"to remove the rule '{mutation.rule}' now"
    )
    names: dict[str, FunctionType] = {}
    exec(source.replace(mutation.old, mutation.new), function.__globals__, names)
    code = function.__code__
    # in place, so that every module that imported the function has the mutant
    function.__code__ = names[function.__name__].__code__
    try:
        yield profile
    finally:
        function.__code__ = code


def replay_mutated(mutation: Mutation, trace: Trace) -> Outcome:
    """Hold `trace` against a model without the rule."""
    with removed(mutation, profile_for(trace.meta.kernel)) as profile, no_gc():
        try:
            report, _ = check_truth(trace, AnonVmaDesign(), profile)
        except Exception as error:  # a rule may be all that keeps a structure whole
            return Outcome(error=type(error).__name__)
    return Outcome(
        report.operations - report.operations_exact,
        report.quiescent_points - report.quiescent_equal,
        report.ranges_wrong,
        sum(report.problems.values()),
    )


_DESIGN = "designs.anon_vma:AnonVmaDesign."
# what random.c asks for so rarely that nothing depends on it
_ADVICE_BY_HAND = {
    "MADV_DOFORK": "hand: dofork",
    "MADV_KEEPONFORK": "hand: keeponfork",
    "MADV_UNMERGEABLE": "hand: unmergeable",
}

MUTATIONS: tuple[Mutation, ...] = (
    # --- mm/rmap.c
    Mutation(
        "anon_vma_clone: reuse of an old anon_vma",
        _DESIGN + "anon_vma_clone",
        "dst.anon_vma = anon_vma",
        "pass",
        "random",
    ),
    Mutation(
        "anon_vma_clone: reuse only with less than two children (num_children)",
        _DESIGN + "anon_vma_clone",
        "and anon_vma.num_children < 2",
        "",
        "random",
    ),
    Mutation(
        "anon_vma_clone: reuse only where no VMA is active (num_active_vmas)",
        _DESIGN + "anon_vma_clone",
        "and anon_vma.num_active_vmas == 0",
        "",
        "random",
    ),
    Mutation(
        "anon_vma_clone: oldest link first",
        _DESIGN + "anon_vma_clone",
        "for pavc in src.anon_vma_chain:",
        "for pavc in reversed(src.anon_vma_chain):",
        "random",
    ),
    Mutation(
        "anon_vma_clone: a split counts as an active VMA",
        _DESIGN + "anon_vma_clone",
        "owner.num_active_vmas += 1",
        "pass",
        "random",
    ),
    Mutation(
        "anon_vma_fork: an anon_vma of the child's own",
        _DESIGN + "anon_vma_fork",
        "    if vma.anon_vma is not None:\n        return",
        "    return",
        "random",
    ),
    Mutation(
        "anon_vma_fork: anon_vma before its AVC",
        _DESIGN + "anon_vma_fork",
        "        anon_vma = self._anon_vma_alloc()\n        anon_vma.num_active_vmas += 1\n"
        "        avc = self._avcs.alloc(AnonVmaChain(vma, anon_vma))",
        "        anon_vma = AnonVma()\n        anon_vma.num_active_vmas += 1\n"
        "        avc = self._avcs.alloc(AnonVmaChain(vma, anon_vma))\n        self._anon_vmas.alloc(anon_vma)",
        "random",
    ),
    Mutation(
        "anon_vma_fork: the child's counts among its parent's children",
        _DESIGN + "anon_vma_fork",
        "parent.num_children += 1",
        "pass",
        "random",
    ),
    Mutation(
        "anon_vma_fork: the child's refers to the root",
        _DESIGN + "anon_vma_fork",
        "anon_vma.root.refcount += 1",
        "pass",
        "random",
    ),
    Mutation(
        "anon_vma_fork: an unfaulted VMA gets nothing",
        _DESIGN + "anon_vma_fork",
        "if pvma.anon_vma is None:",
        "if False:",
        "random",
    ),
    Mutation(
        "__anon_vma_prepare: AVC before the anon_vma",
        _DESIGN + "anon_vma_prepare",
        "    avc: AnonVmaChain | None = self._avcs.alloc(AnonVmaChain(vma, None))  # type: ignore[arg-type]\n"
        "    anon_vma = self._find_mergeable(vma)\n    allocated: AnonVma | None = None\n"
        "    if anon_vma is None:\n        try:\n            anon_vma = allocated = self._new_root()\n",
        "    anon_vma = self._find_mergeable(vma)\n    allocated = self._new_root() if anon_vma is None else None\n"
        "    avc = self._avcs.alloc(AnonVmaChain(vma, None))\n"
        "    if anon_vma is None:\n        try:\n            anon_vma = allocated\n",
        "random",
    ),
    Mutation(
        "find_mergeable_anon_vma",
        _DESIGN + "_find_mergeable",
        "neighbour = self._find_mergeable_vma(vma)",
        "neighbour = None",
        "random",
    ),
    Mutation(
        "find_mergeable_anon_vma: only a neighbour that was never forked (list_is_singular), above",
        _DESIGN + "_find_mergeable_vma",
        "self._singular(next_)",
        "next_.anon_vma is not None",
        "random",
    ),
    Mutation(
        "find_mergeable_anon_vma: only a neighbour that was never forked (list_is_singular), below",
        _DESIGN + "_find_mergeable_vma",
        "self._singular(prev)",
        "prev.anon_vma is not None",
        "random",
    ),
    Mutation(
        "find_mergeable_anon_vma: the neighbour above comes first",
        _DESIGN + "_find_mergeable_vma",
        "if next_ is not None and",
        "if (prev is None or not self._singular(prev) or not anon_vma_compatible(prev, vma)) and next_ is not None and",
        "threads",
    ),
    Mutation(
        "anon_vma_compatible: the protection may differ",
        "mm.vma:anon_vma_compatible",
        "& ~VM_ACCESS_FLAGS",
        "",
        "random",
    ),
    Mutation(
        "anon_vma_compatible: all other flags must agree",
        "mm.vma:anon_vma_compatible",
        "and not (a.vm_flags ^ b.vm_flags) & ~VM_ACCESS_FLAGS",
        "",
        "random",
    ),
    Mutation(
        "anon_vma_compatible: the file must agree",
        "mm.vma:anon_vma_compatible",
        "and a.vm_file is b.vm_file",
        "",
        "random",
    ),
    Mutation(
        "anon_vma_compatible: page offsets must go on",
        "mm.vma:anon_vma_compatible",
        "and b.vm_pgoff == a.pgoff_at(b.vm_start)",
        "",
        "random",
    ),
    Mutation(
        "is_mergeable_anon_vma of 6.16: uncowed parents (merge_asks_uncowed_parents)",
        PROFILE,
        "merge_asks_uncowed_parents",
        "False",
        "random",
    ),
    Mutation(
        "is_mergeable_anon_vma of 6.16: parents of the source",
        _DESIGN + "is_mergeable_anon_vma",
        "not self._had_uncowed_parents(source) and",
        "",
        "random",
    ),
    Mutation(
        "is_mergeable_anon_vma of 6.16: parents of the VMA that mremap copies",
        _DESIGN + "is_mergeable_anon_vma",
        "and not self._had_uncowed_parents(copied_from)",
        "",
        "hand: moved_from_a_parent",
    ),
    Mutation(
        "is_mergeable_anon_vma of 6.16: parents of the target",
        _DESIGN + "is_mergeable_anon_vma",
        "return not self._had_uncowed_parents(target)",
        "return True",
        "random",
    ),
    Mutation(
        "is_mergeable_anon_vma: two anon_vmas never merge",
        _DESIGN + "is_mergeable_anon_vma",
        "    return not self._had_uncowed_parents(target)\n    return target_anon_vma is anon_vma",
        "    return not self._had_uncowed_parents(target)\n    return True",
        "random",
    ),
    Mutation(
        "dup_anon_vma: the target of a merge takes over the anon_vma",
        _DESIGN + "dup_anon_vma",
        "if src.anon_vma is not None and dst.anon_vma is None:",
        "if False:",
        "random",
    ),
    Mutation(
        "unlink_anon_vmas: newest link first",
        _DESIGN + "unlink_anon_vmas",
        "for avc in reversed(chain):",
        "for avc in chain:",
        "random",
    ),
    Mutation(
        "unlink_anon_vmas: empty anon_vmas in a second pass",
        _DESIGN + "unlink_anon_vmas",
        "empty.append(avc)",
        "self._put(anon_vma); self._avcs.free(avc)",
        "random",
    ),
    Mutation(
        "unlink_anon_vmas: an empty anon_vma before its AVC",
        _DESIGN + "unlink_anon_vmas",
        "    self._put(anon_vma)\n        self._avcs.free(avc)",
        "    self._avcs.free(avc)\n        self._put(anon_vma)",
        "random",
    ),
    Mutation(
        "unlink_anon_vmas: an empty anon_vma is its parent's child no more",
        _DESIGN + "unlink_anon_vmas",
        "anon_vma.parent.num_children -= 1",
        "pass",
        "random",
    ),
    Mutation(
        "unlink_anon_vmas: the VMA is active no more",
        _DESIGN + "unlink_anon_vmas",
        "owner.num_active_vmas -= 1",
        "pass",
        "random",
    ),
    Mutation(
        "put_anon_vma: the root waits for its tree",
        _DESIGN + "_put",
        "if root is not anon_vma:",
        "if False:",
        "random",
    ),
    # --- mm/vma.c
    Mutation(
        "vma_merge: VM_SPECIAL never merges, new range",
        "mm.vma:vma_merge_new_range",
        "if vm_flags & VM_SPECIAL:",
        "if False:",
        "hand: hugetlb",
    ),
    Mutation(
        "vma_merge: VM_SPECIAL never merges, existing VMA",
        "mm.vma:vma_merge_existing_range",
        "if vm_flags & VM_SPECIAL or not (left_side or right_side):",
        "if not (left_side or right_side):",
        "hand: vdso_changes",
    ),
    Mutation(
        "vma_merge_new_range: with the VMA below",
        "mm.vma:vma_merge_new_range",
        "left = _can_merge_left(mm, prev, start, pgoff, vm_flags, file, anon_vma, None, copied_from)",
        "left = False",
        "random",
    ),
    Mutation(
        "vma_merge_new_range: with the VMA above",
        "mm.vma:vma_merge_new_range",
        "right = not just_expand and _can_merge_right(",
        "right = False and _can_merge_right(",
        "random",
    ),
    Mutation(
        "vma_merge_new_range: with both neighbours",
        "mm.vma:vma_merge_new_range",
        "if left and right and not _can_merge_remove(next_):",
        "if left and right:",
        "random",
    ),
    Mutation(
        "vma_merge_new_range: brk only expands (just_expand)",
        "mm.vma:vma_merge_new_range",
        "right = not just_expand and",
        "right =",
        "hand: heap_below_a_mapping",
    ),
    Mutation(
        "vma_merge_existing_range: with the VMA below",
        "mm.vma:vma_merge_existing_range",
        "left = left_side and",
        "left = False and",
        "random",
    ),
    Mutation(
        "vma_merge_existing_range: with the VMA above",
        "mm.vma:vma_merge_existing_range",
        "right = right_side and",
        "right = False and",
        "random",
    ),
    Mutation(
        "vma_merge_existing_range: with both neighbours",
        "mm.vma:vma_merge_existing_range",
        "if left and right and not _can_merge_remove(next_):",
        "if left and right:",
        "random",
    ),
    Mutation(
        "vma_merge_existing_range: what goes is unlinked in the order of addresses",
        "mm.vma:vma_merge_existing_range",
        "    _drop_merged(mm, vma)\n        _drop_merged(mm, next_)",
        "    _drop_merged(mm, next_)\n        _drop_merged(mm, vma)",
        "random",
    ),
    Mutation(
        "can_vma_merge_right: neighbours that both agree with the range must agree with each other",
        "mm.vma:_can_merge_right",
        "return not can_merge_left or (prev is not None and hooks.same_anon_vma(prev, next_))",
        "return True",
        "threads",
    ),
    Mutation(
        "can_vma_merge: flags must agree", "mm.vma:_can_merge_left", "and prev.vm_flags == vm_flags", "", "random"
    ),
    Mutation("can_vma_merge: the file must agree", "mm.vma:_can_merge_left", "and prev.vm_file is file", "", "random"),
    Mutation(
        "can_vma_merge: page offsets must go on, below",
        "mm.vma:_can_merge_left",
        "and prev.pgoff_at(start) == pgoff",
        "",
        "random",
    ),
    Mutation(
        "can_vma_merge: page offsets must go on, above",
        "mm.vma:_can_merge_right",
        "or next_.vm_pgoff != pgoff_end",
        "",
        "random",
    ),
    Mutation(
        "can_merge_remove_vma: a VMA with vm_ops->close (System V) is never removed",
        "mm.vma:_can_merge_remove",
        "and (vma.vm_file is None or not vma.vm_file.close)",
        "",
        "random",
    ),
    Mutation(
        "copy_vma's merge clones the anon_vma of the VMA it copies (merge_dups_copied_from)",
        PROFILE,
        "merge_dups_copied_from",
        "False",
        "hand: moved_next_to_unfaulted",
    ),
    Mutation(
        "split_vma: links the new VMA",
        "mm.vma:split_vma",
        "hooks.anon_vma_clone(new, vma)",
        "new.anon_vma = None",
        "random",
    ),
    Mutation(
        "vma_modify: the part below is split off first, and is the new VMA (new_below)",
        "mm.vma:vma_modify",
        "split_vma(mm, vma, start, new_below=True)",
        "vma = split_vma(mm, vma, start, new_below=False)",
        "random",
    ),
    Mutation(
        "vma_modify: the part above is the new VMA",
        "mm.vma:vma_modify",
        "split_vma(mm, vma, end, new_below=False)",
        "vma = split_vma(mm, vma, end, new_below=True)",
        "random",
    ),
    Mutation(
        "vma_modify: merges before it splits",
        "mm.vma:vma_modify",
        "if merged is not None:",
        "if False:",
        "random",
    ),
    # --- mm/mmap.c
    Mutation(
        "munmap: temporary split, the new VMA is the one below (new_below)",
        "mm.mmap:_gather_munmap_vmas",
        "split_vma(mm, vmas[0], start, new_below=True)",
        "vmas[0] = split_vma(mm, vmas[0], start, new_below=False)",
        "random",
    ),
    Mutation(
        "munmap: all VMAs are unlinked before the first is freed",
        "mm.mmap:do_munmap",
        "        _clear_ptes(mm, vmas, not unlock)\n        for vma in vmas:",
        "        for vma in vmas:\n            mm.kernel.hooks.unlink_anon_vmas(vma)",
        "random",
    ),
    Mutation(
        "mmap over others: they are freed after the new VMA is made",
        "mm.mmap:mmap_region",
        "        _clear_ptes(mm, replaced)",
        "        _clear_ptes(mm, replaced)\n"
        "        for old in replaced:\n            hooks.vm_area_free(old)\n        replaced = []",
        "random",
    ),
    Mutation(
        "mmap: VM_ACCOUNT of private writable memory (accountable_mapping)",
        "mm.mmap:do_mmap",
        "vm_flags |= VM_ACCOUNT  # accountable_mapping",
        "pass",
        "random",
    ),
    Mutation(
        "mmap: no VM_ACCOUNT with MAP_NORESERVE",
        "mm.mmap:do_mmap",
        "(VM_NORESERVE | VM_SHARED | VM_WRITE)",
        "(VM_SHARED | VM_WRITE)",
        "random",
    ),
    Mutation(
        "mmap: MAP_NORESERVE sets VM_NORESERVE",
        "mm.mmap:do_mmap",
        "for map_flag, vm_flag in _VM_FLAG_OF_MAP:",
        "for map_flag, vm_flag in [p for p in _VM_FLAG_OF_MAP if p[0] != MAP_NORESERVE]:",
        "random",
    ),
    Mutation(
        "mmap: MAP_STACK means VM_NOHUGEPAGE",
        "mm.mmap:do_mmap",
        "for map_flag, vm_flag in _VM_FLAG_OF_MAP:",
        "for map_flag, vm_flag in [p for p in _VM_FLAG_OF_MAP if p[0] != MAP_STACK]:",
        "random",
    ),
    Mutation(
        "mmap: MAP_GROWSDOWN sets VM_GROWSDOWN",
        "mm.mmap:do_mmap",
        "for map_flag, vm_flag in _VM_FLAG_OF_MAP:",
        "for map_flag, vm_flag in [p for p in _VM_FLAG_OF_MAP if p[0] != MAP_GROWSDOWN]:",
        "random",
    ),
    Mutation(
        "mmap: MAP_LOCKED sets VM_LOCKED",
        "mm.mmap:do_mmap",
        "for map_flag, vm_flag in _VM_FLAG_OF_MAP:",
        "for map_flag, vm_flag in [p for p in _VM_FLAG_OF_MAP if p[0] != MAP_LOCKED]:",
        "random",
    ),
    Mutation(
        "mmap: MAP_HUGETLB",
        "mm.mmap:do_mmap",
        "for map_flag, vm_flag in _VM_FLAG_OF_MAP:",
        "for map_flag, vm_flag in [p for p in _VM_FLAG_OF_MAP if p[0] != MAP_HUGETLB]:",
        "hand: hugetlb",
    ),
    Mutation(
        "mmap: mlockall(MCL_FUTURE) adds to each new VMA (def_flags)",
        "mm.mmap:do_mmap",
        "vm_flags |= mm.def_flags",
        "pass",
        "random",
    ),
    Mutation(
        "mmap: MAP_POPULATE and VM_LOCKED fault in",
        "mm.mmap:do_mmap",
        "populate_range(mm, start, end)",
        "pass",
        "random",
    ),
    Mutation(
        "mmap: an unfaulted anonymous VMA has its address as page offset",
        "mm.mmap:do_mmap",
        "start >> PAGE_SHIFT if file is None else pgoff",
        "0 if file is None else pgoff",
        "random",
    ),
    Mutation(
        "brk: merges with the heap below",
        "mm.mmap:do_brk_flags",
        "if prev is not None and prev.vm_end == start:",
        "if False:",
        "random",
    ),
    Mutation(
        "brk: mlockall(MCL_FUTURE) counts for the heap",
        "mm.mmap:brk",
        "| VM_ACCOUNT | mm.def_flags",
        "| VM_ACCOUNT",
        "random",
    ),
    Mutation(
        "brk: the heap is VM_ACCOUNT",
        "mm.mmap:brk",
        "| VM_ACCOUNT | mm.def_flags",
        "| mm.def_flags",
        "hand: mapping_above_the_heap",
    ),
    Mutation("brk: shrinks", "mm.mmap:brk", "do_munmap(mm, new_end, old_end, unlock=True)", "pass", "random"),
    Mutation(
        "expand_downwards: a stack that grows is prepared first, even by a read",
        "mm.mmap:expand_downwards",
        "if vma.anon_vma is None:",
        "if False:",
        "hand: stack_read",
    ),
    Mutation(
        "expand_downwards: the page offset goes down with the start",
        "mm.mmap:expand_downwards",
        "vma.vm_pgoff - pages",
        "vma.vm_pgoff",
        "hand: stack_offset",
    ),
    # --- mm/mremap.c
    Mutation("mremap: moves several VMAs (mremap_moves_many)", PROFILE, "mremap_moves_many", "False", "random"),
    Mutation(
        "mremap: several only where no get_unmapped_area may disobey (vma_multi_allowed)",
        "mm.mremap:_multi_allowed",
        "return file is None or not (file.close or file.zero)",
        "return True",
        "random",
    ),
    Mutation(
        "mremap: a failed move of several has moved the first of them",
        "mm.mremap:mremap",
        "if result < 0 and not (several and result == -EFAULT):",
        "if result < 0:",
        "random",
    ),
    Mutation(
        "mremap: shared memory mapped over its own start is unmapped, and the call fails",
        "mm.mremap:mremap",
        "if result == -EFAULT and flags & MREMAP_FIXED and not old_length and new_address == address:",
        "if False:",
        "hand: mapped_over_its_own_source",
    ),
    Mutation(
        "mremap: MREMAP_FIXED unmaps its target first",
        "mm.mremap:_remap_one",
        "do_munmap(mm, result, result + new_length)",
        "pass",
        "hand: target_of_a_move",
    ),
    Mutation(
        "mremap: shrinks",
        "mm.mremap:_remap_one",
        "    if old_length > new_length:\n"
        "            do_munmap(mm, address + new_length, address + old_length, unlock=True)\n"
        "        return None",
        "    return None",
        "random",
    ),
    Mutation(
        "mremap: grows in place by a merge",
        "mm.mremap:_remap_one",
        "return _expand_in_place(mm, vma, address, old_length, new_length)",
        "return None",
        "random",
    ),
    Mutation(
        "mremap: what was grown in place is VM_LOCKED, so faulted in",
        "mm.mremap:_expand_in_place",
        "return (start, end) if merged is not None and merged.vm_flags & VM_LOCKED_MASK else None",
        "return None",
        "hand: locked_grows_in_place",
    ),
    Mutation(
        "mremap: what was moved and grown is VM_LOCKED, so faulted in",
        "mm.mremap:_move_vma",
        "if source_flags & VM_LOCKED and new_length > old_length:",
        "if False:",
        "hand: locked_moves_and_grows",
    ),
    Mutation(
        "copy_vma: an unfaulted VMA takes the offset of its new address",
        "mm.mremap:copy_vma",
        "pgoff = new_address >> PAGE_SHIFT  # nothing refers to the old offset yet",
        "pass",
        "random",
    ),
    Mutation(
        "copy_vma: merges at the target",
        "mm.mremap:copy_vma",
        "prev=prev,\n        next_=next_,",
        "prev=None,\n        next_=None,",
        "random",
    ),
    Mutation(
        "copy_vma: the copy may merge with its own source",
        "mm.mremap:_move_vma",
        "vma = new  # the copy merged with its own source",
        "pass",
        "hand: merged_with_its_source",
    ),
    Mutation(
        "MREMAP_DONTUNMAP: the source stays",
        "mm.mremap:_move_vma",
        "dontunmap = bool(flags & MREMAP_DONTUNMAP)",
        "dontunmap = False",
        "random",
    ),
    Mutation(
        "MREMAP_DONTUNMAP: a source that was moved whole is unlinked",
        "mm.mremap:_move_vma",
        "mm.kernel.hooks.unlink_anon_vmas(vma)",
        "pass",
        "random",
    ),
    Mutation(
        "MREMAP_DONTUNMAP: a source that was moved in part is not unlinked",
        "mm.mremap:_move_vma",
        "if new is not vma and vma.vm_start == address and vma.vm_end == address + old_length:",
        "if new is not vma:",
        "random",
    ),
    Mutation(
        "MREMAP_DONTUNMAP: the source is VM_LOCKED no more",
        "mm.mremap:_move_vma",
        "vma.vm_flags &= ~VM_LOCKED_MASK",
        "pass",
        "random",
    ),
    Mutation(
        "MREMAP_DONTUNMAP of 6.18: the source keeps its page offset (dontunmap_resets_pgoff)",
        PROFILE,
        "dontunmap_resets_pgoff",
        "True",
        "random",
    ),
    Mutation(
        "MREMAP_DONTUNMAP of 6.18: no split of a locked source (dontunmap_splits_locked)",
        PROFILE,
        "dontunmap_splits_locked",
        "True",
        "random",
    ),
    Mutation(
        "MREMAP_DONTUNMAP of 6.18: an unfaulted source may merge with its copy (dontunmap_keeps_source)",
        PROFILE,
        "dontunmap_keeps_source",
        "True",
        "random",
    ),
    # --- kernel/fork.c
    Mutation("fork: VM_DONTCOPY", "mm.fork:_dup_mmap", "if pvma.vm_flags & VM_DONTCOPY:", "if False:", "random"),
    Mutation(
        "fork: VM_WIPEONFORK starts unfaulted",
        "mm.fork:_dup_mmap",
        "if vma.vm_flags & VM_WIPEONFORK:",
        "if False:",
        "random",
    ),
    Mutation("fork: clears VM_LOCKED", "mm.fork:_dup_mmap", "vma.vm_flags &= ~VM_LOCKED_MASK", "pass", "random"),
    Mutation("fork: the child's break is the parent's", "mm.fork:dup_mm", "mm.brk = oldmm.brk", "pass", "random"),
    Mutation(
        "fork: guard markers of a file mapping are copied (fork_copies_file_guards)",
        PROFILE,
        "fork_copies_file_guards",
        "False",
        "hand: guard_in_a_file_is_inherited",
    ),
    Mutation(
        "fork: one that failed after the copy is undone",
        "replay.replayer:Replayer._fork",
        "exit_mmap(child)",
        "pass",
        "hand: failed_fork",
    ),
    Mutation(
        "clone(CLONE_VM), vfork: the mm is shared",
        "replay.replayer:Replayer._clone_vm",
        "Task(task.mm)",
        "Task(dup_mm(task.mm))",
        "random",
    ),
    # --- mm/mprotect.c
    Mutation(
        "mprotect: VM_ACCOUNT when memory becomes writable",
        "mm.protect:_mprotect_fixup",
        "flags |= VM_ACCOUNT",
        "pass",
        "random",
    ),
    Mutation(
        "mprotect: VM_ACCOUNT goes when an unfaulted VMA becomes read-only",
        "mm.protect:_mprotect_fixup",
        "flags &= ~VM_ACCOUNT  # never faulted: nothing there to account for",
        "pass",
        "random",
    ),
    Mutation(
        "mprotect: a faulted VMA keeps VM_ACCOUNT",
        "mm.protect:_mprotect_fixup",
        "and vma.is_anonymous() and vma.anon_vma is None",
        "and vma.is_anonymous()",
        "random",
    ),
    Mutation(
        "mprotect: no VM_ACCOUNT with VM_NORESERVE",
        "mm.protect:_mprotect_fixup",
        " | VM_NORESERVE",
        "",
        "random",
    ),
    Mutation(
        "mprotect: faults in what is VM_LOCKED and becomes writable",
        "mm.protect:_mprotect_fixup",
        "populate_range(mm, start, end)",
        "pass",
        "random",
    ),
    Mutation(
        "mprotect: a failed call has changed what comes before the hole",
        "replay.replayer:Replayer._mprotect",
        "        self._look_up(task.mm, row)",
        "        if self.ret[row] < 0:\n            return",
        "random",
    ),
    Mutation(
        "mprotect: EINVAL comes before any change",
        "replay.replayer:Replayer._mprotect",
        "elif self.ret[row] != -fl.EINVAL:",
        "else:",
        "hand: unaligned_mprotect",
    ),
    Mutation(
        "mprotect: PROT_GROWSDOWN begins where the stack does",
        "mm.protect:mprotect",
        "if prot & PROT_GROWSDOWN:",
        "if False:",
        "hand: executable_stack",
    ),
    Mutation(
        "mprotect: VM_MAYWRITE must allow it",
        "mm.protect:mprotect",
        "if flags & ~(flags >> MAY_SHIFT) & VM_ACCESS_FLAGS:",
        "if False:",
        "random",
    ),
    # --- mm/madvise.c
    *(
        Mutation(
            f"madvise: {name} splits and merges",
            "mm.madvise:madvise",
            "flag_advice = _FLAG_ADVICE.get(advice)",
            f"flag_advice = _FLAG_ADVICE.get(advice) if advice != fl.{name} else None",
            _ADVICE_BY_HAND.get(name, "random"),
        )
        for name in (
            "MADV_NORMAL",
            "MADV_RANDOM",
            "MADV_SEQUENTIAL",
            "MADV_DONTFORK",
            "MADV_DOFORK",
            "MADV_WIPEONFORK",
            "MADV_KEEPONFORK",
            "MADV_DONTDUMP",
            "MADV_DODUMP",
            "MADV_HUGEPAGE",
            "MADV_NOHUGEPAGE",
            "MADV_MERGEABLE",
            "MADV_UNMERGEABLE",
        )
    ),
    Mutation(
        "madvise: an address inside a page comes before any change",
        "replay.replayer:Replayer._madvise",
        "elif not self.addr[row] & (fl.PAGE_SIZE - 1):",
        "else:",
        "hand: unaligned_madvise",
    ),
    Mutation(
        "madvise: KSM takes no shared memory",
        "mm.madvise:_ksm_compatible",
        "fl.VM_SHARED | fl.VM_MAYSHARE | fl.VM_SPECIAL | fl.VM_HUGETLB",
        "fl.VM_SPECIAL | fl.VM_HUGETLB",
        "random",
    ),
    Mutation(
        "madvise: only private anonymous memory is wiped on fork",
        "mm.madvise:_wipeable",
        "return vma.vm_file is None and not vma.vm_flags & fl.VM_SHARED",
        "return True",
        "random",
    ),
    Mutation(
        "madvise: an unfit VMA ends the call",
        "mm.madvise:_change_flags",
        "if stop:",
        "if False:",
        "random",
    ),
    Mutation(
        "MADV_POPULATE_WRITE prepares",
        "mm.madvise:madvise",
        "populate_range(mm, start, end, write=True, stop=True, failed=failed)",
        "pass",
        "random",
    ),
    Mutation(
        "MADV_GUARD_INSTALL prepares",
        "mm.madvise:_install_guards",
        "prepare(vma)",
        "pass",
        "random",
    ),
    Mutation(
        "MADV_GUARD_INSTALL: the markers stop a fault before it prepares",
        "mm.fault:handle_mm_fault",
        "if guards(mm.pgd, vpn, vpn + 1):",
        "if False:",
        "random",
    ),
    # --- mm/mlock.c
    Mutation(
        "mlock: faults in",
        "mm.mlock:mlock",
        "populate_range(mm, start, end, stop=True, failed=failed)",
        "pass",
        "random",
    ),
    Mutation(
        "mlock: splits and merges", "mm.mlock:_mlock_fixup", "vma_modify(mm, vma, start, end, flags)", "pass", "random"
    ),
    Mutation(
        "mlock: passes over VM_SPECIAL and hugetlb",
        "mm.mlock:_mlock_fixup",
        "and not vma.vm_flags & (VM_SPECIAL | VM_HUGETLB)",
        "",
        "hand: vdso_locked",
    ),
    Mutation(
        "mlock: a failed call has locked what comes before the hole",
        "replay.replayer:Replayer._mlock",
        "        self._look_up(task.mm, row)",
        "        if self.ret[row] < 0:\n            return",
        "random",
    ),
    Mutation(
        "mlock: EPERM comes before any change",
        "replay.replayer:Replayer._mlock",
        "elif self.ret[row] not in (-fl.EPERM, -fl.EINVAL):",
        "else:",
        "hand: mlock_forbidden",
    ),
    Mutation(
        "mlock: RLIMIT_MEMLOCK comes before any change",
        "mm.mlock:mlock",
        "if failed and _nothing_to_blame(mm, start, end):",
        "if False:",
        "hand: mlock_beyond_its_limit",
    ),
    Mutation("mlockall: faults in", "mm.mlock:mlockall", "populate_range(mm, 0, mm.vmas[-1].vm_end)", "pass", "random"),
    Mutation("mlockall: MCL_FUTURE", "mm.mlock:mlockall", "mm.def_flags |= locked", "pass", "random"),
    Mutation(
        "MLOCK_ONFAULT, MCL_ONFAULT: not faulted in",
        "mm.fault:populate_range",
        "(special or flags & VM_LOCKONFAULT)",
        "special",
        "random",
    ),
    Mutation("munlockall", "mm.mlock:munlockall", "_all(mm, 0)", "pass", "random"),
    # --- mm/memory.c, mm/gup.c
    Mutation(
        "fault: those taken in kernel mode count",
        "replay.replayer:Replayer._fault",
        "if address < 0:",
        "if self.flags[row] & 256 or address < 0:",
        "random",
    ),
    Mutation(
        "fault: a write to shared memory prepares nothing",
        "mm.fault:handle_mm_fault",
        "if flags & (VM_WRITE | VM_SHARED) == VM_WRITE:",
        "if flags & VM_WRITE:",
        "random",
    ),
    Mutation(
        "fault: a read of small pages prepares nothing",
        "mm.fault_steps:read_fault",
        "if huge_possible(mm, vma, address) and",
        "if",
        "hand: small_zero_page",
    ),
    Mutation(
        "fault: a read where a huge page fits prepares",
        "mm.fault_steps:read_fault",
        "vmf_anon_prepare(vma, vma_locked)",
        "pass",
        "hand: huge_zero_page",
    ),
    Mutation(
        "/dev/zero, private: anonymous, though it has a file",
        "mm.vma:Vma.is_anonymous",
        "(file is None or file.zero)",
        "file is None",
        "random",
    ),
    Mutation(
        "populate: a file that is too short ends it",
        "mm.fault:_file_end",
        "pages = file.at_least if file.pages is None and suspect else file.pages",
        "pages = file.pages",
        "hand: populate_beyond_a_file",
    ),
    Mutation(
        "populate: a file that has been seen to be long enough does not",
        "mm.fault:_learn_lengths",
        "file.at_least = max(",
        "_ = max(",
        "hand: populate_a_file_seen_to_be_long_enough",
    ),
    Mutation(
        "populate: a guard marker ends it, in shared memory too",
        "mm.fault:populate_range",
        "if guarded:",
        "if guarded and not flags & VM_SHARED:",
        "hand: guard_in_shared_memory_ends_a_call",
    ),
    # --- fs/exec.c, fs/binfmt_elf.c
    Mutation(
        "execve: the argument pages give the stack its anon_vma",
        "mm.exec:bprm_mm_init",
        "if copy_strings:",
        "if False:",
        "random",
    ),
    Mutation(
        "execve: E2BIG comes before any argument page",
        "mm.exec:bprm_mm_init",
        "if copy_strings:",
        "if True:",
        "hand: e2big",
    ),
    Mutation(
        "execve: an exec that fails drops its new mm",
        "replay.replayer:Replayer._exec_fail",
        "self._teardown(task.bprm_mm)",
        "pass",
        "hand: e2big",
    ),
    Mutation(
        "execve: the first segment is mapped over the whole image, then cut",
        "mm.exec:ElfMapper.segment",
        "do_munmap(mm, start, total[2])",
        "pass",
        "random",
    ),
    Mutation(
        "execve: [vdso] and its like are VM_SPECIAL",
        "mm.exec:ElfMapper.special",
        "| VM_SPECIAL",
        "",
        "hand: vdso_changes",
    ),
    Mutation(
        "execve: bss by brk",
        "mm.exec:ElfMapper.anonymous",
        "do_brk_flags(self.mm, start, end, _vm_flags(prot, False))",
        "pass",
        "random",
    ),
    Mutation(
        "execve: the stack is VM_GROWSDOWN",
        "mm.exec:bprm_mm_init",
        "VM_DATA_DEFAULT_FLAGS | VM_GROWSDOWN | VM_ACCOUNT",
        "VM_DATA_DEFAULT_FLAGS | VM_ACCOUNT",
        "random",
    ),
    # --- exit_mmap
    Mutation(
        "exit_mmap: all VMAs are unlinked before the first is freed",
        "mm.exit:exit_mmap",
        "        free_pgtables(mm, mm.vmas)\n        tlb_finish_mmu(kernel, batch)\n        for vma in mm.vmas:\n",
        "        for vma in mm.vmas:\n            kernel.hooks.unlink_anon_vmas(vma)\n",
        "random",
    ),
    Mutation(
        "exit: a shared mm goes with its last task",
        "replay.replayer:Replayer._exit_mmap",
        "self._teardown(task.mm)",
        "pass",
        "random",
    ),
    # --- ipc/shm.c, hugetlb
    Mutation(
        "shmdt: takes the VMAs of its segment only",
        "replay.replayer:Replayer._shmdt",
        "if here and segment is not None and segment.close and file in (None, segment):",
        "if segment is not None and segment.close:",
        "random",
    ),
    Mutation(
        "mmap(MAP_HUGETLB) without huge pages: the VMA was allocated before it failed",
        "replay.replayer:Replayer._mmap",
        "self._no_huge_pages(mm)",
        "pass",
        "postgresql",
    ),
)
