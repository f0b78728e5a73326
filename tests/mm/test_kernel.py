# SPDX-License-Identifier: GPL-2.0-only
from rmaplab.designs.anon_vma import AnonVmaDesign
from rmaplab.mm.kernel import CACHE_NAMES, Kernel
from rmaplab.mm.slab import SlabSize
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


class WithCache(AnonVmaDesign):
    """Mainline with one more cache, of 20-byte objects."""

    def attach(self, kernel: Kernel) -> None:
        super().attach(kernel)
        self.own = kernel.slab("own", 20)


def test_a_design_has_caches_of_its_own_after_those_of_mainline() -> None:
    design = WithCache()
    kernel = make_kernel(design=design)
    assert [slab.name for slab in kernel.slabs] == [*CACHE_NAMES, "own"]
    assert design.own.size == SlabSize(20, 24)
    assert [slab.size for slab in kernel.slabs[:3]] == [None] * 3


def test_the_log_of_mainlines_caches_leaves_others_out() -> None:
    design = WithCache()
    kernel = make_kernel(design=design)
    log = kernel.log_slabs(len(CACHE_NAMES))
    design.own.alloc(object())
    assert log == []
    design.own.log = kernel.log_slabs()
    design.own.alloc(object())
    assert [cache for _, cache, _ in design.own.log] == [3]
