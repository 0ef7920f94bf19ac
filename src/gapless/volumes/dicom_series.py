"""Reads a folder of DICOM slices as one volume, in the order of their positions and never of their names.

Only the pixels and the geometry are parsed, and which series a slice belongs to; that number is compared, never shown.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from gapless.images.dicom import PIXEL_TAGS, values_of
from gapless.images.dicom_elements import integer, numbers, text
from gapless.images.dicom_file import import_pydicom, is_dicom, parse_dicom, silenced
from gapless.images.limits import ImageRefused
from gapless.signals.files import content_of, parsing
from gapless.signals.limits import MAX_FILES, FileRefused
from gapless.volumes.volume import Volume, check_voxels

T = TypeVar("T")

SLICE_ELEMENTS = (
    "ImagePositionPatient",
    "ImageOrientationPatient",
    "PixelSpacing",
    "SeriesInstanceUID",
    "Rows",
    "Columns",
    "NumberOfFrames",
)
_SAME_ANGLE = 1e-3  # largest difference of direction cosines
_SAME_STEP = 0.1  # largest difference of the distances between slices, as a share of the usual one
_SKIPPED = ("DICOMDIR",)


class SliceHeader(NamedTuple):
    """What a file says of its place in the patient, not checked."""

    position: list[float | None]
    cosines: list[float | None]
    spacing: list[float | None]
    height: int | None
    width: int | None
    series: str
    frames: int


class _Slice(NamedTuple):
    """The geometry of one file; `rows` and `columns` are the directions in which these indices grow, in the patient."""

    file: Path | bytes
    position: NDArray[np.float64]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    spacing: tuple[float, float]
    shape: tuple[int, int]
    series: str

    @property
    def normal(self) -> NDArray[np.float64]:
        """The direction in which the slices follow each other."""
        return np.cross(self.columns, self.rows)


def series_files(folder: Path) -> list[Path]:
    """The files of a folder, in the order of their names; hidden ones and an index are left out.

    Raises:
        FileRefused: no file, or more than `MAX_FILES`.
    """
    try:
        files = sorted(file for file in folder.iterdir() if not file.name.startswith(".") and file.name not in _SKIPPED)
    except OSError as error:
        raise FileRefused("missing file", f"{folder.name}: {error.strerror}") from None
    if not 1 <= len(files) <= MAX_FILES:
        raise FileRefused("unreadable file", f"{folder.name}: a series has 1 to {MAX_FILES} files, it has {len(files)}")
    return files


def read_series(source: Path | Sequence[Path | bytes]) -> Volume:
    """The volume of slices.

    Args:
        source: their folder, or each file or its bytes, in any order.

    Raises:
        FileRefused: a file that is no DICOM slice, several series, slices of different geometry, a slice that is
            missing or there twice, or above the limits.
        UsageError: pydicom is not installed.
    """
    pydicom = import_pydicom()
    files: Sequence[Path | bytes] = series_files(source) if isinstance(source, Path) else _checked_count(source)
    headers = [_header_of_file(pydicom, file, number) for number, file in enumerate(files, 1)]
    slices, step = _ordered(headers, files)
    voxels = np.empty((len(slices), *slices[0].shape), dtype=np.float32)
    for place, one in enumerate(slices):
        voxels[place] = _pixels(pydicom, one)
    return _oriented(voxels, slices[0], (step, *slices[0].spacing))


def slice_header(dataset: Any) -> SliceHeader:
    """What a parsed file (`SLICE_ELEMENTS`) says of its place."""
    return SliceHeader(
        numbers(dataset, "ImagePositionPatient"),
        numbers(dataset, "ImageOrientationPatient"),
        numbers(dataset, "PixelSpacing"),
        integer(dataset, "Rows"),
        integer(dataset, "Columns"),
        text(dataset, "SeriesInstanceUID"),
        integer(dataset, "NumberOfFrames") or 1,
    )


def check_slices(headers: Sequence[SliceHeader]) -> None:
    """Refuse slices that are no volume, before a pixel of them is read.

    Raises:
        FileRefused: as `read_series`, but for what only the pixels show.
    """
    _ordered(_checked_count(headers), [b""] * len(headers))


def _ordered(headers: Sequence[SliceHeader], files: Sequence[Path | bytes]) -> tuple[list[_Slice], float]:
    """The slices in the order of their places, and the distance between neighbours."""
    pairs = enumerate(zip(headers, files, strict=True), 1)
    slices = [_slice_of(header, file, number) for number, (header, file) in pairs]
    _check_alike(slices)
    normal = slices[0].normal
    slices.sort(key=lambda one: float(one.position @ normal))
    step = _step([float(one.position @ normal) for one in slices])
    check_voxels((len(slices), *slices[0].shape))
    return slices, step


def _checked_count(contents: Sequence[T]) -> Sequence[T]:
    """The files themselves. Raises FileRefused: none, or more than `MAX_FILES`."""
    if not 1 <= len(contents) <= MAX_FILES:
        raise FileRefused("unreadable file", f"DICOM: a series has 1 to {MAX_FILES} files, it has {len(contents)}")
    return contents


def _header_of_file(pydicom: Any, file: Path | bytes, number: int) -> SliceHeader:
    content = content_of(file)
    if not is_dicom(content):
        raise FileRefused("unreadable file", f"DICOM: file {number} of the series is no DICOM file")
    with parsing("DICOM"), silenced():
        return slice_header(parse_dicom(pydicom, content, SLICE_ELEMENTS))


def _slice_of(header: SliceHeader, file: Path | bytes, number: int) -> _Slice:
    position, cosines, spacing, height, width, series, frames = header
    if frames > 1:
        raise FileRefused("unreadable file", "DICOM: a file of several frames is no slice; convert it to NIfTI")
    if [len(position), len(cosines), len(spacing)] != [3, 6, 2] or None in (
        *position,
        *cosines,
        *spacing,
        height,
        width,
    ):
        raise FileRefused("unreadable file", f"DICOM: file {number} of the series says no place in the patient")
    columns, rows = np.array(cosines[:3], dtype=np.float64), np.array(cosines[3:], dtype=np.float64)
    faults = (np.linalg.norm(columns) - 1, np.linalg.norm(rows) - 1, columns @ rows)
    if max(abs(float(fault)) for fault in faults) > 0.01:
        raise FileRefused("unreadable file", f"DICOM: the orientation of file {number} is not plausible")
    place = np.array(position, dtype=np.float64)
    size = (float(spacing[0] or 0), float(spacing[1] or 0))
    return _Slice(file, place, rows, columns, size, (int(height or 0), int(width or 0)), series)


def _check_alike(slices: list[_Slice]) -> None:
    """Raise FileRefused for several series, or slices that do not lie above each other."""
    first = slices[0]
    count = len({one.series for one in slices})
    if count > 1:
        raise FileRefused("several volumes", f"DICOM: there are {count} series; put each into a folder of its own")
    for number, one in enumerate(slices, 1):
        angles = np.abs([one.rows - first.rows, one.columns - first.columns]).max()
        if one.shape != first.shape or angles > _SAME_ANGLE or not np.allclose(one.spacing, first.spacing, rtol=1e-3):
            raise FileRefused("unreadable file", f"DICOM: slice {number} differs from the first in size or direction")


def _step(places: list[float]) -> float:
    """The distance between neighbouring slices, in millimetres.

    Raises:
        FileRefused: one slice alone, two at one place, or a gap.
    """
    if len(places) < 2:
        raise FileRefused("unreadable file", "DICOM: a series has at least two slices, and there is one")
    steps = np.diff(places)
    usual = float(np.median(steps))
    if steps.min() < 1e-3:
        raise FileRefused("several volumes", "DICOM: two slices lie at one place; there are several volumes")
    if np.abs(steps - usual).max() > _SAME_STEP * usual:
        where = int(np.abs(steps - usual).argmax()) + 1
        raise FileRefused(
            "missing slice", f"DICOM: the distance after slice {where} of {len(places)} is not the usual one"
        )
    return usual


def _pixels(pydicom: Any, one: _Slice) -> NDArray[np.float32]:
    try:
        with parsing("DICOM"), silenced():
            values = values_of(parse_dicom(pydicom, content_of(one.file), PIXEL_TAGS))
    except ImageRefused as error:
        raise FileRefused(error.reason, error.detail) from None
    if values.shape != one.shape:
        raise FileRefused("unreadable file", "DICOM: a slice has another size than its header says")
    return values


def _oriented(voxels: NDArray[np.float32], first: _Slice, spacing: tuple[float, float, float]) -> Volume:
    """The volume with its axes along feet-head, front-back and right-left, whichever each of them is nearest to."""
    directions = np.array([first.normal, first.rows, first.columns])  # in the patient: left, back, head
    # The axis of the file that lies nearest to each of head, back and left, each axis being used once.
    order: list[int] = []
    for target in (2, 1, 0):
        order.append(max(set(range(3)) - set(order), key=lambda axis: abs(directions[axis, target])))
    turned = voxels.transpose(order)
    for place, target in enumerate((2, 1, 0)):
        if directions[order[place], target] < 0:
            turned = np.flip(turned, axis=place)
    return Volume(np.ascontiguousarray(turned), (spacing[order[0]], spacing[order[1]], spacing[order[2]]))
