"""Reads uploaded files in memory. No file is written, no file name is used, nothing is logged."""

from typing import ClassVar

from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from gapless.server.schemas import MAX_PARTS
from gapless.signals.limits import MAX_FILES

MAX_UPLOAD = 20_000_000
MAX_QUERY = 100_000
QUERY = "query"  # the part of a form that holds the JSON


class MemoryParser(MultiPartParser):
    """Starlette's parser, with files in memory only; the guard limits their size."""

    spool_max_size: ClassVar[int] = 1 << 62  # type: ignore[misc]

    def close(self) -> None:
        """Close the files, also one whose part is incomplete, which the form does not contain."""
        for file in self._files_to_close_on_error:
            file.close()


Upload = bytes | list[bytes]


async def read_upload(request: Request) -> tuple[dict[str, Upload], str]:
    """The files of a multipart request, and its part `query` (JSON, "{}" where it is missing).

    Returns:
        Modality -> the content of its file, or of several files, as those of a series.

    Raises:
        HTTPException: 415 another content type, 400 other parts, 413 from the guard.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise HTTPException(415, "send multipart/form-data: a file for each modality, and 'query' with the JSON")
    parser = MemoryParser(request.headers, request.stream(), max_files=MAX_FILES, max_fields=1, max_part_size=MAX_QUERY)
    try:
        parts = (await parser.parse()).multi_items()
        files = [(name, part) for name, part in parts if isinstance(part, UploadFile)]
        words = [(name, part) for name, part in parts if isinstance(part, str)]
        if not files or any(name != QUERY for name, _ in words):
            raise HTTPException(
                400, "send at least one file, named as its modality, and if wanted a JSON object 'query', nothing else"
            )
        contents: dict[str, list[bytes]] = {}
        for name, file in files:
            contents.setdefault(name, []).append(await file.read())
        if len(contents) > MAX_PARTS:
            raise HTTPException(400, f"a query has files of at most {MAX_PARTS} modalities, not {len(contents)}")
        uploads: dict[str, Upload] = {name: of[0] if len(of) == 1 else of for name, of in contents.items()}
        return uploads, dict(words).get(QUERY, "{}")
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from None
    finally:
        parser.close()
