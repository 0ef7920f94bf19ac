"""Reads an uploaded image in memory and decodes it. No file is written, no file name is used, nothing is logged."""

from typing import ClassVar

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from gapless.images.pixels import ImageRefused, Pixels, load_image

MAX_UPLOAD = 20_000_000
MAX_ASPECT = 20  # resizing the short side of a longer image for a centre crop would take gigabytes
MAX_QUERY = 100_000


class MemoryParser(MultiPartParser):
    """Starlette's parser, with files in memory only; the guard limits their size."""

    spool_max_size: ClassVar[int] = 1 << 62  # type: ignore[misc]

    def close(self) -> None:
        """Close the files, also one whose part is incomplete, which the form does not contain."""
        for file in self._files_to_close_on_error:
            file.close()


async def read_upload(request: Request) -> tuple[bytes, str]:
    """The parts `image` (a file) and `query` (JSON, may be missing) of a multipart request.

    Raises:
        HTTPException: 415 another content type, 400 other parts, 413 from the guard.
    """
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "multipart/form-data":
        raise HTTPException(415, "send multipart/form-data with the parts 'image' and 'query'")
    parser = MemoryParser(request.headers, request.stream(), max_files=1, max_fields=1, max_part_size=MAX_QUERY)
    try:
        parts = dict((await parser.parse()).multi_items())
        image, query = parts.pop("image", None), parts.pop("query", "{}")
        if parts or image is None or isinstance(image, str) or not isinstance(query, str):
            raise HTTPException(400, "send a file 'image' and, if wanted, a JSON object 'query', and nothing else")
        return await image.read(), query
    except MultiPartException as error:
        raise HTTPException(400, f"the form cannot be read: {error.message}") from None
    finally:
        parser.close()


def decode_upload(content: bytes) -> Pixels:
    """The pixels of an uploaded image, with the checks of every other image: format, size before decoding, truncation.

    Raises:
        ImageRefused: it cannot be used.
    """
    if not content:
        raise ImageRefused("unreadable image", "the file is empty")
    pixels = load_image(content)
    height, width = pixels.shape[:2]
    if max(height, width) > MAX_ASPECT * min(height, width):
        raise ImageRefused("unusable image", f"{width} x {height}: one side is more than {MAX_ASPECT} times the other")
    return pixels
