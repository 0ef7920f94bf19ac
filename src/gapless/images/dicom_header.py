"""Reads the few DICOM header values that may be written to a manifest.

Only listed elements are read, and of each only the standard's terms: a name typed into "body part examined" is
dropped.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gapless.core.errors import DataRefused
from gapless.core.values import name_of
from gapless.images.dicom_file import import_pydicom, parse_dicom, silenced
from gapless.images.dicom_terms import BODY_PARTS, LATERALITIES, MODALITY_CODES, VIEWS
from gapless.images.limits import ImageRefused

# The only header elements that reach an output: column of the manifest, element, and its permitted values.
ALLOWED_HEADER = {
    "modality_type": ("Modality", MODALITY_CODES),
    "body_part": ("BodyPartExamined", BODY_PARTS),
    "view": ("ViewPosition", VIEWS),
    "laterality": ("ImageLaterality", LATERALITIES),
}
# Scanners that print into the picture, and pictures that are photographs of a screen.
_PRINTING_MODALITIES = ("US", "SC", "OT", "XA", "RF", "ES", "XC")
JOIN_ELEMENTS = ("SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID", "AccessionNumber", "PatientID")


@dataclass(frozen=True)
class Header:
    """The permitted header values of a DICOM file.

    Args:
        labels: the allow-listed values, each one of the standard's terms or None.
        burned_in_text: "declared", "suspected" or "unknown"; no header makes an image clean.
        keys: identifiers to join reports and to group by; for the reader alone, never written.
    """

    labels: Mapping[str, str | None]
    burned_in_text: str
    keys: Mapping[str, str]


def read_header(content: bytes) -> Header:
    """The permitted part of a header.

    Raises:
        ImageRefused: not a readable DICOM file; the message holds no header value.
    """
    pydicom = import_pydicom()
    tags = tuple(element for element, _ in ALLOWED_HEADER.values())
    others = ("Laterality", "BurnedInAnnotation", "ConversionType", "ImageType", *JOIN_ELEMENTS)
    try:
        with silenced():
            dataset = parse_dicom(pydicom, content, (*tags, *others))
            labels = {}
            for column, (element, permitted) in ALLOWED_HEADER.items():
                value = str(dataset.get(element) or "").strip().upper()
                labels[column] = value if value in permitted else None
            if labels["laterality"] is None and str(dataset.get("Laterality") or "").strip() in LATERALITIES:
                labels["laterality"] = str(dataset.Laterality).strip()
            keys = {element: str(dataset.get(element) or "").strip() for element in JOIN_ELEMENTS}
            return Header(labels, _burned_in_text(dataset), keys)
    except (DataRefused, MemoryError):
        raise
    except Exception as error:
        detail = f"DICOM: its header is damaged, or breaks the standard in an unknown way: {type(error).__name__}"
        raise ImageRefused("unreadable image", detail) from None


def _burned_in_text(dataset: Any) -> str:
    if str(dataset.get("BurnedInAnnotation") or "").strip().upper() == "YES":
        return "declared"
    image_type = dataset.get("ImageType") or []
    kinds = [image_type] if isinstance(image_type, str) else [str(kind) for kind in image_type]
    prints = str(dataset.get("Modality") or "").strip() in _PRINTING_MODALITIES
    is_copy = "SECONDARY" in kinds or bool(dataset.get("ConversionType"))
    return "suspected" if prints or is_copy else "unknown"


def identifier(value: object) -> str:
    """One spelling of an identifier: padding, outer and double spaces, case and 1000.0 for 1000 make no difference."""
    text = unicodedata.normalize("NFKC", name_of(value).replace("\0", " "))
    return name_of(" ".join(text.split())).casefold()
