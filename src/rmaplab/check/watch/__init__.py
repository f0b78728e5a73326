# SPDX-License-Identifier: GPL-2.0-only
"""Makes the model's memory accesses visible to the checker, as KCSAN does with the kernel's loads and stores.

While :func:`rmaplab.check.watch.model.watching` is in effect, the fields of the model's classes are replaced by
descriptors that report each access to the running :class:`~rmaplab.check.engine.Run`, and containers that are stored in
them by watched ones. The model itself knows nothing of it, so replay pays nothing, and no access can be forgotten.

atomic   READ_ONCE, WRITE_ONCE, atomic_t: a scheduling point before each access
plain    a lock must order it with the accesses of other tasks (else `lock-rule`): no scheduling point
const    set once; only that the object is not freed is looked at

An object gets its name when its first field is set: by the task that makes it, or the setup, in every execution.
"""
