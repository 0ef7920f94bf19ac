"""Small DICOM files, made with pydicom."""

import io
from typing import Any

import numpy as np
import pydicom
from PIL import Image
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid


def dicom_bytes(values: np.ndarray, syntax: str = ExplicitVRLittleEndian, frames: int | None = None, **elements: Any):
    """The bytes of a DICOM file with these stored values; `elements` are set by keyword, `compress` names a codec."""
    compress = elements.pop("compress", None)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = syntax
    dataset = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    dataset.SOPClassUID, dataset.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    colour = values.ndim == (4 if frames else 3)
    shape = values.shape[1:] if frames else values.shape
    dataset.Rows, dataset.Columns = shape[:2]
    dataset.SamplesPerPixel = 3 if colour else 1
    dataset.PhotometricInterpretation = "RGB" if colour else "MONOCHROME2"
    if colour:
        dataset.PlanarConfiguration = 0
    bits = values.dtype.itemsize * 8
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = bits, bits, bits - 1
    dataset.PixelRepresentation = int(values.dtype.kind == "i")
    if frames:
        dataset.NumberOfFrames = frames
    for name, value in elements.items():
        setattr(dataset, name, value)
    content = values.tobytes()
    dataset.PixelData = content + b"\0" * (len(content) % 2)
    if compress == JPEG2000Lossless:
        # By Pillow: pydicom's own encoder needs one more package.
        codestream = io.BytesIO()
        Image.fromarray(values).save(codestream, "JPEG2000", no_jp2=True)
        dataset.PixelData = encapsulate([codestream.getvalue()])
        meta.TransferSyntaxUID = compress
    elif compress:
        dataset.compress(compress)
    stream = io.BytesIO()
    pydicom.dcmwrite(stream, dataset, enforce_file_format=True)
    return stream.getvalue()


def slice_bytes(pixels: np.ndarray, place: float, **elements: Any) -> bytes:
    """An axial slice of a series, `place` steps of 3 mm towards the head."""
    given = {
        "SeriesInstanceUID": "1.2.3",
        "ImagePositionPatient": [0.0, 0.0, 3.0 * place],
        "ImageOrientationPatient": [1.0, 0.0, 0.0, 0.0, 1.0, 0.0],
        "PixelSpacing": [2.0, 1.5],
    }
    return dicom_bytes(pixels.astype(np.uint16), **{**given, **elements})
