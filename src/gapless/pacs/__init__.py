"""A hospital's archive of images over the network: DICOMweb queries and files, with limits and retries.

It needs the package `dicomweb-client`: `gapless[dicomweb]`.
"""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = ["Instance", "Server", "check_address"]

if TYPE_CHECKING:
    from gapless.pacs.server import Instance, Server
    from gapless.pacs.session import check_address

__getattr__ = lazy_names(
    __name__,
    {
        "Instance": "gapless.pacs.server",
        "Server": "gapless.pacs.server",
        "check_address": "gapless.pacs.session",
    },
)
