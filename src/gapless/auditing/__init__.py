"""The audit of data before training: leakage, copies, captions, licences."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "AuditReport",
    "share_in_train",
]

if TYPE_CHECKING:
    from gapless.auditing.leakage import share_in_train
    from gapless.auditing.report import AuditReport

__getattr__ = lazy_names(
    __name__,
    {
        "AuditReport": "gapless.auditing.report",
        "share_in_train": "gapless.auditing.leakage",
    },
)
