"""A copy of a DICOM file that holds what its picture, waveform or slice needs, and nothing that names anybody.

The DICOMweb reader keeps such copies on the disk until the manifest is written; a file as the server sends it is only
ever in memory. Pixels, waveforms, geometry, and the labels that `read_header` permits are those of the original.
"""

import io
from collections.abc import Iterator
from typing import Any

from gapless.images.dicom import PIXEL_TAGS
from gapless.images.dicom_elements import items, text
from gapless.images.dicom_file import import_pydicom, parse_dicom, silenced
from gapless.images.dicom_header import ALLOWED_HEADER, Header
from gapless.manifest.readers.dicom_studies import plain_waveform
from gapless.signals.files import parsing

_GEOMETRY = ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing")
_NESTED = (*PIXEL_TAGS, "PixelValueTransformationSequence", "FrameVOILUTSequence", "LUTDescriptor", "LUTData")
_RESCALE_TYPES = ("HU", "HU_MOD", "OD", "US", "MGML", "Z_EFF", "ED", "EDW", "PCT")  # the standard's; else a free text
_SERIES = "2.25.1"  # of every copy: a volume is made of slices that say one series
_NAMELESS_UID = "2.25.0"


def plain_copy(content: bytes, header: Header) -> bytes:
    """The copy of a file.

    Args:
        content: the file.
        header: of the file; only its labels and its note on burned-in text are written.

    Raises:
        FileRefused, ImageRefused: a file that cannot be parsed; the message holds no header value.
    """
    pydicom = import_pydicom()
    with parsing("DICOM"), silenced():
        if items(parse_dicom(pydicom, content, ("WaveformSequence",)), "WaveformSequence"):
            plain = parse_dicom(pydicom, plain_waveform(content), ("WaveformSequence",))
        else:
            plain = _pixels_alone(pydicom, parse_dicom(pydicom, content, (*PIXEL_TAGS, *_GEOMETRY)))
        _write_header(plain, header)
        meta = pydicom.dataset.FileMetaDataset()
        meta.TransferSyntaxUID = plain.file_meta.TransferSyntaxUID
        plain.file_meta, plain.preamble = meta, b"\0" * 128
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, plain)
    return stream.getvalue()


def _pixels_alone(pydicom: Any, dataset: Any) -> Any:
    """The data set with its sequences cut to the elements of the grey scale; malformed elements stay as they are."""
    tags = {pydicom.tag.Tag(name) for name in (*PIXEL_TAGS, *_GEOMETRY)}
    for tag in [tag for tag in dataset.keys() if tag not in tags]:  # noqa: SIM118  (iterating converts the elements)
        del dataset[tag]
    _cut_sequences(pydicom, dataset)
    if text(dataset, "RescaleType") not in _RESCALE_TYPES and "RescaleType" in dataset:
        del dataset.RescaleType
    return dataset


def _cut_sequences(pydicom: Any, dataset: Any) -> None:
    nested = {pydicom.tag.Tag(name) for name in _NESTED}
    for name in _NESTED:
        if not name.endswith("Sequence") or name not in dataset:
            continue
        for item in items(dataset, name):
            for tag in [tag for tag in item.keys() if tag not in nested]:  # noqa: SIM118
                del item[tag]
            if "RescaleType" in item and text(item, "RescaleType") not in _RESCALE_TYPES:
                del item.RescaleType
            _cut_sequences(pydicom, item)


def _write_header(plain: Any, header: Header) -> None:
    for column, (element, _) in ALLOWED_HEADER.items():
        if header.labels[column] is not None:
            setattr(plain, element, header.labels[column])
    if header.burned_in_text == "declared":
        plain.BurnedInAnnotation = "YES"
    elif header.burned_in_text == "suspected":
        plain.ConversionType = "WSD"
    plain.SeriesInstanceUID, plain.SOPInstanceUID = _SERIES, _NAMELESS_UID


def report_text(content: bytes) -> str:
    """The texts of a structured report, in their order; names, dates, codes and references of it are left out.

    Raises:
        FileRefused: a file that cannot be parsed; the message holds no value.
    """
    pydicom = import_pydicom()
    with parsing("DICOM"), silenced():
        return "\n".join(_texts(parse_dicom(pydicom, content, ("ContentSequence",))))


def _texts(item: Any) -> Iterator[str]:
    if text(item, "ValueType") == "TEXT" and (value := str(item.get("TextValue") or "").strip()):
        yield value
    for child in items(item, "ContentSequence"):
        yield from _texts(child)
