"""Waveforms and volumes of a folder of DICOM files: a row is then a study, and each item is written without its header.

A waveform is written as DICOM that holds its samples, rate, gains and lead names alone, a series of slices as NIfTI.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.core.errors import UsageError
from gapless.images.dicom_elements import items, numbers, text
from gapless.images.dicom_file import import_pydicom, parse_dicom, silenced
from gapless.images.dicom_header import Header
from gapless.manifest.modality_cells import FileView
from gapless.manifest.modality_spec import ModalitySpec
from gapless.manifest.raw_rows import FileSource, contained_path
from gapless.manifest.readers.passed_over import PassedOver
from gapless.signals.files import parsing
from gapless.signals.limits import FileRefused
from gapless.volumes.dicom_series import SLICE_ELEMENTS, SliceHeader, check_slices, slice_header

FILE = "file"  # the column that stands for the DICOM files themselves
WAVEFORM, VOLUME = "waveform", "volume"
_GROUP: tuple[str, ...] = (
    "NumberOfWaveformChannels",
    "NumberOfWaveformSamples",
    "SamplingFrequency",
    "WaveformBitsAllocated",
)
_GROUP += ("WaveformSampleInterpretation", "WaveformPaddingValue", "WaveformData")
_CHANNEL = ("ChannelSensitivity", "ChannelSensitivityCorrectionFactor", "ChannelBaseline")
_NUMBERS = re.compile(r"\d+")
_LEAD = re.compile(r"(?:lead )?(?:i{1,3}|av[rlf]|v[1-9]r?|[xyz])(?: \([a-z ]{1,20}\))?", re.IGNORECASE)


@dataclass(frozen=True)
class PlainWaveform:
    """The waveform of a DICOM file, as a DICOM file that names nobody."""

    root: Path
    name: str

    def read(self) -> bytes:
        """Raises ImageRefused: it cannot be read. FileRefused: it holds no waveform."""
        return plain_waveform(FileSource(self.root, self.name).read())

    def key(self) -> str:
        """As `FileSource.key`."""
        return f"waveform|{FileSource(self.root, self.name).key()}"


@dataclass(frozen=True)
class PlainVolume:
    """The slices of a series as one NIfTI file, which names nobody."""

    root: Path
    names: tuple[str, ...]

    def read(self) -> bytes:
        """Raises FileRefused: slices that are no volume."""
        from gapless.volumes.dicom_series import read_series
        from gapless.volumes.nifti import nifti_bytes

        return nifti_bytes(read_series([contained_path(self.root, name) for name in self.names]))

    def key(self) -> str:
        """Those of all slices."""
        return "volume|" + "|".join(FileSource(self.root, name).key() for name in self.names)


def own_files(words: Sequence[str]) -> list[str]:
    """The words of `--modality`, in which `ecg=waveform` stands for `ecg=waveform:file`."""
    return [word if ":" in word else _with_column(word) for word in words]


def _with_column(word: str) -> str:
    named, comma, params = word.partition(",")
    return f"{named}:{FILE}{comma}{params}" if named.partition("=")[2].strip() in (WAVEFORM, VOLUME) else word


def of_files(specs: Sequence[ModalitySpec]) -> list[ModalitySpec]:
    """The modalities that are taken from the DICOM files: waveforms and volumes.

    Raises:
        UsageError: two of one kind.
    """
    found = [spec for spec in specs if spec.kind in (WAVEFORM, VOLUME) and spec.columns == (FILE,)]
    if len({spec.kind for spec in found}) < len(found):
        raise UsageError("a folder of DICOM files has one modality of waveforms and one of volumes; name each once")
    return found


def content_kind(content: bytes) -> tuple[str, SliceHeader | None]:
    """What a DICOM file is: "waveform", "volume" for a slice that says its place in the patient, or "image"; and that
    place.

    Raises:
        FileRefused: a damaged file.
    """
    pydicom = import_pydicom()
    with parsing("DICOM"), silenced():
        dataset = parse_dicom(pydicom, content, ("WaveformSequence", *SLICE_ELEMENTS))
        if items(dataset, "WaveformSequence"):
            return WAVEFORM, None
        is_one = str(dataset.get("NumberOfFrames") or "1").strip() == "1"
        is_slice = is_one and len(numbers(dataset, "ImagePositionPatient")) == 3
        return (VOLUME, slice_header(dataset)) if is_slice else ("image", None)


def plain_waveform(content: bytes) -> bytes:
    """A DICOM file with the waveforms of another and nothing else: no name, no date, no identifier.

    Raises:
        FileRefused: it holds no waveform, or is damaged.
    """
    pydicom = import_pydicom()
    with parsing("DICOM"), silenced():
        source = parse_dicom(pydicom, content, ("WaveformSequence",))
        groups = items(source, "WaveformSequence")
        if not groups:
            raise FileRefused("unreadable file", "DICOM: the file holds no waveform")
        plain = pydicom.Dataset()
        plain.SOPClassUID = pydicom.uid.GeneralECGWaveformStorage
        plain.SOPInstanceUID = pydicom.uid.UID("2.25.0")
        plain.WaveformSequence = [_plain_group(pydicom, group) for group in groups]
        meta = pydicom.dataset.FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = plain.SOPClassUID, plain.SOPInstanceUID
        is_little = source.original_encoding[1]
        meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian if is_little else pydicom.uid.ExplicitVRBigEndian
        plain.file_meta = meta
        stream = io.BytesIO()
        pydicom.dcmwrite(stream, plain, enforce_file_format=True)
    return stream.getvalue()


def _plain_group(pydicom: Any, group: Any) -> Any:
    plain = _copied(pydicom, group, _GROUP)
    channels = []
    for channel in items(group, "ChannelDefinitionSequence"):
        kept = _copied(pydicom, channel, _CHANNEL)
        unit = next((text(one, "CodeValue") for one in items(channel, "ChannelSensitivityUnitsSequence")), "")
        if re.fullmatch(r"[A-Za-z\[\]%_/]{1,8}", unit):
            kept.ChannelSensitivityUnitsSequence = [_code(pydicom, "CodeValue", unit)]
        name = next((text(one, "CodeMeaning") for one in items(channel, "ChannelSourceSequence")), "")
        name = name or text(channel, "ChannelLabel")
        if _LEAD.fullmatch(name.strip()):
            kept.ChannelSourceSequence = [_code(pydicom, "CodeMeaning", name.strip())]
        channels.append(kept)
    plain.ChannelDefinitionSequence = channels
    return plain


def _copied(pydicom: Any, item: Any, elements: Sequence[str]) -> Any:
    plain = pydicom.Dataset()
    for element in elements:
        if element in item:
            plain.add(item[pydicom.datadict.tag_for_keyword(element)])
    return plain


def _code(pydicom: Any, element: str, value: str) -> Any:
    item = pydicom.Dataset()
    setattr(item, element, value)
    return item


@dataclass(frozen=True)
class StudyFile:
    """A readable file of the folder.

    Args:
        number: its place in the folder, from 0.
        name: below the folder.
        header: what may be read of it.
        kind: as `content_kind` says.
        place: in the patient, of a slice.
    """

    number: int
    name: str
    header: Header
    kind: str
    place: SliceHeader | None = None


def studies_of(files: Sequence[StudyFile]) -> list[list[StudyFile]]:
    """The files of each study, in the order of its first file; a file that names no study is alone."""
    studies: dict[Any, list[StudyFile]] = {}
    for file in files:
        studies.setdefault(file.header.keys["StudyInstanceUID"] or file.number, []).append(file)
    return list(studies.values())


def study_views(
    root: Path, study: Sequence[StudyFile], specs: Sequence[ModalitySpec], image: str, id: str, left_out: PassedOver
) -> dict[str, tuple[FileView, ...]]:
    """The views of a study: its waveforms, the series of two slices or more, and the other files as images.

    A series whose slices are no volume (a localizer, a gap) is left out whole: its slices would be hundreds of images.

    Args:
        left_out: where such series are counted.
        specs: as `of_files` gives them; what none of them takes is an image.
        image: the modality of images.
        id: of the row, from which its files are named.
    """
    taken = {spec.kind: spec.name for spec in specs}
    views: dict[str, list[FileView]] = {}
    series: dict[str, list[StudyFile]] = {}
    for file in study:
        if file.kind == VOLUME and VOLUME in taken and file.header.keys["SeriesInstanceUID"]:
            series.setdefault(file.header.keys["SeriesInstanceUID"], []).append(file)
        elif file.kind == WAVEFORM and WAVEFORM in taken:
            source = PlainWaveform(root, file.name)
            views.setdefault(taken[WAVEFORM], []).append(FileView(source, f"{id}.dcm"))
        else:
            views.setdefault(image, []).append(FileView(FileSource(root, file.name), id))
    for slices in series.values():
        if len(slices) > 1 and VOLUME in taken:
            try:
                check_slices([file.place for file in slices if file.place is not None])
            except FileRefused as error:
                left_out.add(f"{error.reason} ({_NUMBERS.sub('N', error.detail)})", slices[0].name)
                continue
            volume = PlainVolume(root, tuple(file.name for file in slices))
            views.setdefault(taken[VOLUME], []).append(FileView(volume, f"{id}.nii"))
        else:
            views.setdefault(image, []).append(FileView(FileSource(root, slices[0].name), id))
    return {name: tuple(of) for name, of in views.items()}
