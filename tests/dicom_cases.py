"""Grey files of every depth and sign with every way to display them, as elements and as the oracle takes them."""

import numpy as np
from dicom_oracle import Display, Lookup
from raw_dicom import Typed

ROWS, COLUMNS = 6, 10
DEPTHS = [(bits, signed) for bits in (1, 6, 8, 10, 12, 16) for signed in (0, 1) if bits > 1 or not signed]


def values_of(bits, signed):
    """Stored values with both ends of their range, in the type of their container."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    values = np.random.default_rng(bits * 2 + signed).integers(low, high + 1, (ROWS, COLUMNS))
    values[0, 0], values[0, 1] = low, high
    return values.astype(f"{'i' if signed else 'u'}{1 if bits <= 8 else 2}")


def grey_elements(values, bits, photometric="MONOCHROME2"):
    allocated = values.dtype.itemsize * 8
    return {
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": photometric,
        "Rows": values.shape[0],
        "Columns": values.shape[1],
        "BitsAllocated": allocated,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": int(values.dtype.kind == "i"),
        "PixelData": values if allocated > 8 else Typed("OB", values),
    }


def table_item(lookup, vr="US"):
    """The item of a LUT sequence: entries in words, the first value with the sign that `vr` has."""
    count = len(lookup.entries) % 65536
    descriptor = np.array([count, lookup.first, lookup.bits]).astype(np.int16 if vr == "SS" else np.uint16)
    return {"LUTDescriptor": Typed(vr, descriptor), "LUTData": np.array(lookup.entries, np.uint16)}


def displays(values):
    """{name: (elements, what the oracle does)} of well-formed ways to display these values."""
    low, high = int(values.min()), int(values.max())
    span, sign = max(high - low, 1), "SS" if values.dtype.kind == "i" else "US"
    centre, width = round(low + span * 0.4, 1), float(max(round(span * 0.6), 2))
    linear = {"WindowCenter": f"{centre}", "WindowWidth": f"{width}"}
    count = min(span + 1, 300)
    first = low + span // 3 if span > 2 else low
    voi12 = Lookup(tuple(int(4095 * (n / (count - 1)) ** 2) for n in range(count)), first, 12)
    voi16 = Lookup(tuple(65535 - 65535 * n // (count - 1) for n in range(count)), first, 16)
    voi8 = Lookup(tuple(255 * n // (count - 1) for n in range(count)), first, 8)
    modality = Lookup(tuple(1000 + 3 * n for n in range(count)), first, 16)
    rescale = {"RescaleSlope": "2.5", "RescaleIntercept": "-100"}
    return {
        "nothing": ({}, Display()),
        "window": (linear, Display(window=(centre, width, "LINEAR"))),
        "first of two windows": (
            {"WindowCenter": f"{centre}\\7", "WindowWidth": f"{width}\\9"},
            Display(window=(centre, width, "LINEAR")),
        ),
        "window of width 1": (
            {"WindowCenter": f"{centre}", "WindowWidth": "1"},
            Display(window=(centre, 1.0, "LINEAR")),
        ),
        "exact window": (
            {**linear, "VOILUTFunction": "LINEAR_EXACT"},
            Display(window=(centre, width, "LINEAR_EXACT")),
        ),
        "sigmoid": ({**linear, "VOILUTFunction": "SIGMOID"}, Display(window=(centre, width, "SIGMOID"))),
        "rescale": (rescale, Display(slope=2.5, intercept=-100.0)),
        "negative slope": (
            {"RescaleSlope": "-2", "RescaleIntercept": "7"},
            Display(slope=-2.0, intercept=7.0),
        ),
        "negative slope and window": (
            {"RescaleSlope": "-1", "RescaleIntercept": "0", "WindowCenter": f"{-centre}", "WindowWidth": f"{width}"},
            Display(slope=-1.0, intercept=0.0, window=(-centre, width, "LINEAR")),
        ),
        "rescale and window": (
            {**rescale, "WindowCenter": f"{2.5 * centre - 100}", "WindowWidth": f"{2.5 * width}"},
            Display(slope=2.5, intercept=-100.0, window=(2.5 * centre - 100, 2.5 * width, "LINEAR")),
        ),
        "VOI table of 12 bits": ({"VOILUTSequence": [table_item(voi12, sign)]}, Display(voi=voi12)),
        "VOI table of 16 bits, reversed": ({"VOILUTSequence": [table_item(voi16, sign)]}, Display(voi=voi16)),
        "VOI table of 8 bits": ({"VOILUTSequence": [table_item(voi8, sign)]}, Display(voi=voi8)),
        "modality table": ({"ModalityLUTSequence": [table_item(modality, sign)]}, Display(modality=modality)),
        "modality table and window": (
            {"ModalityLUTSequence": [table_item(modality, sign)], "WindowCenter": "1100", "WindowWidth": "300"},
            Display(modality=modality, window=(1100.0, 300.0, "LINEAR")),
        ),
    }
