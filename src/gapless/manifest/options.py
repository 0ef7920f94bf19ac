"""Options of a build: those of the manifest, which a reader sets, and those of its images, which workers receive."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.manifest.modality_spec import ModalitySpec

MAX_BAD = 0.01


@dataclass(frozen=True)
class ImageOptions:
    """How the images of a build are read; an interrupted build continues only with the same ones.

    It is small and picklable, because worker processes receive it; the journal compares it.

    Args:
        root: where image names start; None copies the images into the manifest (DICOM as PNG).
        frame: which frame of a multi-frame DICOM file, as in `load_image`.
        find_text: look for burned-in text in DICOM images; their results then say `text`.
        modalities: those of a manifest of version 2; none makes a manifest of version 1.
    """

    root: Path | None = None
    frame: int = 0
    find_text: bool = False
    modalities: tuple[ModalitySpec, ...] = ()


@dataclass(frozen=True)
class BuildOptions:
    """What a manifest holds and how strictly it is built.

    Args:
        source: what is read, for people.
        labels: names of the label columns that the rows carry.
        signals: names of the columns of further modalities, each a list of numbers.
        images: how the images are read, and where they stay.
        licence: of the whole data set, when known.
        with_licence: whether the rows carry a licence each.
        max_bad: the largest share of bad rows.
        workers: processes that verify; None uses all cores when there is enough to do.
        ray: the address of a Ray cluster whose machines verify; None verifies on this machine.
        leaves_out_text: rows whose image has burned-in text are skipped, and are not bad; otherwise the label
            `burned_in_text` says so.
        details: further entries of `manifest.json`; they may be filled while the rows are read.
        min_present: rows with fewer modalities are skipped, and are not bad.
        drops_incomplete: rows that lack a modality are skipped, and are not bad.
        hints: reason of a bad row -> what to do about it, for the message when too many rows are bad.
    """

    source: str
    labels: Sequence[str] = ()
    signals: Sequence[str] = ()
    images: ImageOptions = ImageOptions()
    licence: str | None = None
    with_licence: bool = False
    max_bad: float = MAX_BAD
    workers: int | None = None
    ray: str | None = None
    leaves_out_text: bool = False
    min_present: int = 1
    drops_incomplete: bool = False
    details: Mapping[str, Any] | None = None
    hints: Mapping[str, str] | None = None
