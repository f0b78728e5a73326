# SPDX-License-Identifier: GPL-2.0-only
from rmaplab.mm.kernel import CACHE_NAMES
from tests.support.builders import link, make_kernel


def test_mms_are_numbered_in_order_of_creation() -> None:
    kernel = make_kernel()
    assert [kernel.mm_alloc().ident for _ in range(3)] == [1, 2, 3]


def test_one_log_for_all_caches() -> None:
    kernel = make_kernel()
    log = kernel.log_slabs()
    vma = link(kernel.mm_alloc(), 0, 1, fault=True)
    assert [(alloc, CACHE_NAMES[cache]) for alloc, cache, _ in log] == [
        (1, "vm_area_struct"),
        (1, "anon_vma_chain"),
        (1, "anon_vma"),
    ]
    assert log[0][2] is vma
