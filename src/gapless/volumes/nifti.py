"""Reads NIfTI files (.nii, .nii.gz), which are inflated only as far as their header declares."""

import gzip
import io
import zlib
from typing import Any

import numpy as np

from gapless.core.errors import missing_extra
from gapless.signals.files import parsing
from gapless.signals.limits import MAX_HEADER_BYTES, FileRefused
from gapless.volumes.volume import Volume, check_voxels

GZIP_MAGIC = b"\x1f\x8b"
_HEADER_BYTES = {348: 1, 540: 2}  # size of the header -> version of NIfTI


def is_nifti(content: bytes) -> bool:
    """Whether these are the bytes of a NIfTI file, or of one that gzip packed."""
    try:
        head = _inflated(content, 544) if content.startswith(GZIP_MAGIC) else content[:544]
    except FileRefused:
        return False
    return _version(head) in (1, 2)


def read_nifti(content: bytes, frame: int | None = None) -> Volume:
    """The volume of a file.

    Args:
        content: the file.
        frame: which of several volumes (of a 4-D file), counted from 0; None refuses a file of several.

    Raises:
        FileRefused: damaged, truncated, more inside than its header declares, or above the limits.
        UsageError: nibabel is not installed.
    """
    with parsing("NIfTI"):
        try:
            import nibabel
        except ImportError:
            raise missing_extra("nibabel", "volume") from None
        is_packed = content.startswith(GZIP_MAGIC)
        head = _inflated(content, 544) if is_packed else content[:544]
        kind: Any = {1: nibabel.Nifti1Image, 2: nibabel.Nifti2Image}.get(_version(head) or 0)
        if kind is None:
            raise FileRefused("unreadable file", "NIfTI: it does not begin as a NIfTI file of one part does")
        header = kind.header_class.from_fileobj(io.BytesIO(head[: kind.header_class.sizeof_hdr]), check=False)
        shape, needed = _declared(header)
        if is_packed:
            content = _inflated(content, needed + MAX_HEADER_BYTES + 1)
            if len(content) > needed + MAX_HEADER_BYTES:
                raise FileRefused("file too large", "NIfTI: it inflates to more than its header declares")
        if len(content) < needed:
            raise FileRefused("truncated file", f"NIfTI: its header needs {needed} bytes, it has {len(content)}")
        return _oriented(nibabel, kind.from_bytes(content), shape, frame)


def _version(head: bytes) -> int | None:
    """1 or 2 for a NIfTI file of one part; None for anything else, also for a header that names another file."""
    if len(head) < 348:
        return None
    version = _HEADER_BYTES.get(int.from_bytes(head[:4], "little")) or _HEADER_BYTES.get(
        int.from_bytes(head[:4], "big")
    )
    magic = head[344:348] if version == 1 else head[4:8]
    return version if magic in (b"n+1\0", b"n+2\0") else None


def _declared(header: Any) -> tuple[tuple[int, ...], int]:
    """The shape by a header, and the bytes that its file needs."""
    shape = tuple(int(size) for size in header.get_data_shape())
    dtype = header.get_data_dtype()
    offset = int(header["vox_offset"])
    if dtype.kind not in "fiu":
        raise FileRefused("unreadable file", "NIfTI: its voxels are colours or complex numbers, which are not read")
    if len(shape) < 3 or any(size != 1 for size in shape[4:]) or min(shape) < 1:
        raise FileRefused("unreadable file", f"NIfTI: a volume has 3 or 4 axes, and this one has {len(shape)}")
    check_voxels((shape[0], shape[1], int(np.prod([int(size) for size in shape[2:]], dtype=object))))
    if not 0 <= offset <= MAX_HEADER_BYTES:
        raise FileRefused("unreadable file", "NIfTI: the place of its voxels is not plausible")
    return shape, offset + int(np.prod(shape)) * dtype.itemsize


def _oriented(nibabel: Any, image: Any, shape: tuple[int, ...], frame: int | None) -> Volume:
    """The voxels of one frame, with the axes in the order and direction of `Volume`."""
    frames = shape[3] if len(shape) > 3 else 1
    if frames > 1 and frame is None:
        raise FileRefused("several volumes", f"NIfTI: the file holds {frames}; choose one with frame")
    if not 0 <= (frame or 0) < frames:
        raise FileRefused("several volumes", f"NIfTI: frame {frame} of {frames}")
    place = (slice(None), slice(None), slice(None), *([frame or 0] if len(shape) > 3 else []), *[0] * (len(shape) - 4))
    voxels = np.asarray(image.dataobj[place], dtype=np.float32)
    affine = np.asarray(image.affine, dtype=np.float64)
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-12:
        raise FileRefused("unreadable file", "NIfTI: its orientation is not plausible")
    now = nibabel.orientations.io_orientation(affine)
    wanted = nibabel.orientations.axcodes2ornt(("L", "P", "S"))
    turned = nibabel.orientations.apply_orientation(voxels, nibabel.orientations.ornt_transform(now, wanted))
    sizes = np.sqrt((affine[:3, :3] ** 2).sum(axis=0))  # millimetres along each axis of the file
    along = np.empty(3)
    along[now[:, 0].astype(int)] = sizes
    return Volume(np.ascontiguousarray(turned.transpose(2, 1, 0)), (float(along[2]), float(along[1]), float(along[0])))


def _inflated(content: bytes, limit: int) -> bytes:
    """At most `limit` bytes of what gzip packed, and fewer where there are fewer.

    Raises:
        FileRefused: damaged or truncated.
    """
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(content)) as stream:
            return stream.read(limit)
    except (OSError, EOFError, zlib.error):
        raise FileRefused("truncated file", "gzip: the file is damaged, or ends too early") from None


def nifti_bytes(volume: Volume) -> bytes:
    """A NIfTI file of a volume, which holds its voxels, their sizes and their orientation alone.

    Raises:
        UsageError: nibabel is not installed.
    """
    try:
        import nibabel
    except ImportError:
        raise missing_extra("nibabel", "volume") from None
    slices, rows, columns = volume.spacing
    affine = np.diag([-columns, -rows, slices, 1.0])  # from (left, back, head) to NIfTI's (right, front, head)
    image: Any = nibabel.Nifti1Image  # nibabel has no types
    content: bytes = image(volume.voxels.transpose(2, 1, 0), affine).to_bytes()
    return content
