# SPDX-License-Identifier: GPL-2.0-only
"""Bits of ``vm_area_struct.vm_flags`` and of the system calls' arguments, and page arithmetic.

The VM_* values are the model's own (only identity and set relations matter); the values of system call
flags are the user ABI (include/uapi/asm-generic/mman-common.h, linux/mman.h, linux/sched.h).
"""

from typing import Final

PAGE_SHIFT: Final = 12
PAGE_SIZE: Final = 1 << PAGE_SHIFT
PAGE_MASK: Final = -PAGE_SIZE
PMD_SHIFT: Final = 21
PMD_SIZE: Final = 1 << PMD_SHIFT
PTRS_PER_PTE: Final = 512
TASK_SIZE: Final = (1 << 47) - PAGE_SIZE

(
    VM_READ,
    VM_WRITE,
    VM_EXEC,
    VM_SHARED,
    VM_MAYREAD,
    VM_MAYWRITE,
    VM_MAYEXEC,
    VM_MAYSHARE,
    VM_GROWSDOWN,
    VM_ACCOUNT,
    VM_NORESERVE,
    VM_LOCKED,
    VM_LOCKONFAULT,
    VM_HUGEPAGE,
    VM_NOHUGEPAGE,
    VM_MERGEABLE,
    VM_DONTCOPY,
    VM_WIPEONFORK,
    VM_RAND_READ,
    VM_SEQ_READ,
    VM_DONTDUMP,
    VM_SPECIAL,  # the kernel's VM_IO | VM_DONTEXPAND | VM_PFNMAP | VM_MIXEDMAP: never merged
    VM_HUGETLB,
    VM_STACK_EARLY,
) = (1 << bit for bit in range(24))

VM_ACCESS_FLAGS: Final = VM_READ | VM_WRITE | VM_EXEC
VM_LOCKED_MASK: Final = VM_LOCKED | VM_LOCKONFAULT
MAY_SHIFT: Final = 4  # VM_MAYREAD == VM_READ << MAY_SHIFT, as in the kernel

PROT_READ: Final = 1
PROT_WRITE: Final = 2
PROT_EXEC: Final = 4
PROT_GROWSDOWN: Final = 0x01000000

MAP_SHARED: Final = 0x01
MAP_TYPE: Final = 0x0F
MAP_SHARED_VALIDATE: Final = 0x03
MAP_FIXED: Final = 0x10
MAP_ANONYMOUS: Final = 0x20
MAP_GROWSDOWN: Final = 0x100
MAP_LOCKED: Final = 0x2000
MAP_NORESERVE: Final = 0x4000
MAP_POPULATE: Final = 0x8000
MAP_NONBLOCK: Final = 0x10000
MAP_STACK: Final = 0x20000
MAP_HUGETLB: Final = 0x40000

MREMAP_MAYMOVE: Final = 1
MREMAP_FIXED: Final = 2
MREMAP_DONTUNMAP: Final = 4

CLONE_VM: Final = 0x100

MLOCK_ONFAULT: Final = 1
MCL_CURRENT: Final = 1
MCL_FUTURE: Final = 2
MCL_ONFAULT: Final = 4

(
    MADV_NORMAL,
    MADV_RANDOM,
    MADV_SEQUENTIAL,
    MADV_WILLNEED,
    MADV_DONTNEED,
) = range(5)
MADV_FREE: Final = 8
MADV_REMOVE: Final = 9
MADV_DONTFORK: Final = 10
MADV_DOFORK: Final = 11
MADV_MERGEABLE: Final = 12
MADV_UNMERGEABLE: Final = 13
MADV_HUGEPAGE: Final = 14
MADV_NOHUGEPAGE: Final = 15
MADV_DONTDUMP: Final = 16
MADV_DODUMP: Final = 17
MADV_WIPEONFORK: Final = 18
MADV_KEEPONFORK: Final = 19
MADV_POPULATE_READ: Final = 22
MADV_POPULATE_WRITE: Final = 23
MADV_DONTNEED_LOCKED: Final = 24
MADV_COLLAPSE: Final = 25
MADV_GUARD_INSTALL: Final = 102
MADV_GUARD_REMOVE: Final = 103

EPERM: Final = 1
ENOMEM: Final = 12
EACCES: Final = 13
EFAULT: Final = 14
EINVAL: Final = 22


def page_align(length: int) -> int:
    """Round `length` (bytes) up to whole pages."""
    return (length + PAGE_SIZE - 1) & PAGE_MASK


def prot_to_vm_flags(prot: int) -> int:
    """The VM_READ / VM_WRITE / VM_EXEC bits of PROT_* `prot` (calc_vm_prot_bits)."""
    return (
        (VM_READ if prot & PROT_READ else 0)
        | (VM_WRITE if prot & PROT_WRITE else 0)
        | (VM_EXEC if prot & PROT_EXEC else 0)
    )


def is_cow_mapping(vm_flags: int) -> bool:
    """Private and possibly writable: its pages may become anonymous (is_cow_mapping)."""
    return vm_flags & (VM_SHARED | VM_MAYWRITE) == VM_MAYWRITE
