"""Lookup tables of DICOM (PS3.3 C.11.1.1, C.11.2.1.1, C.7.6.3.1.5 and C.7.9.2), well-formed or not.

A descriptor says how many entries there are, which value the first one stands for, and how many bits they have. Each
of the three is wrong in real files: the length of the data, the range of the values and the entries decide then.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.images.dicom_elements import items, numbers
from gapless.images.grey import Pixels, bits_held, to_8_bits
from gapless.images.limits import ImageRefused

_CHANNELS = ("Red", "Green", "Blue")
_WORD = 1 << 16


@dataclass(frozen=True)
class Table:
    """A lookup table: `entries` are its output, the first one for the value `first` and every smaller one."""

    entries: NDArray[np.uint16]
    first: int
    bits: int | None

    def __call__(self, values: NDArray[Any]) -> NDArray[np.uint16]:
        """Look up values of any type; those beyond the table get its first or last entry."""
        finite = values if values.dtype.kind in "iu" else np.nan_to_num(values)
        places = np.floor(finite.astype(np.float64)) - self._first_for(finite)
        return np.asarray(self.entries[places.clip(0, len(self.entries) - 1).astype(np.int64)])

    def _first_for(self, values: NDArray[Any]) -> int:
        """The first mapped value with the sign for which the table covers the values.

        The standard lets it be US or SS by the sign of the pixels; files have the other one.
        """
        low, high = values.min(), values.max()
        for first in (self.first, self.first - _WORD if self.first >= _WORD // 2 else self.first + _WORD):
            if first <= high and low < first + len(self.entries):
                return first
        return self.first


def first_table(place: Any, sequence: str, dataset: Any) -> Table | None:
    """The first usable table of a sequence of `place`, an item of `dataset` or itself; None when there is none."""
    for item in items(place, sequence):
        table = _table(item, "LUTDescriptor", "LUTData", _is_little_endian(dataset))
        if table is not None:
            return table
    return None


def palette_to_uint8(values: NDArray[Any], dataset: Any) -> Pixels:
    """Stored values as colours by the palette of a file, [rows, columns, 3]."""
    tables = _segmented(dataset) or _palette(dataset)
    bits = bits_held(np.concatenate([table.entries for table in tables]), tables[0].bits)
    return np.stack([to_8_bits(table(values), bits) for table in tables], axis=-1)


def _palette(dataset: Any) -> list[Table]:
    tables = [
        _table(
            dataset,
            f"{channel}PaletteColorLookupTableDescriptor",
            f"{channel}PaletteColorLookupTableData",
            _is_little_endian(dataset),
        )
        for channel in _CHANNELS
    ]
    usable = [table for table in tables if table is not None]
    if len(usable) < len(_CHANNELS):
        raise ImageRefused("unreadable image", "DICOM: a palette image without a usable palette")
    return usable


def _segmented(dataset: Any) -> list[Table] | None:
    """Tables that are stored as segments, expanded by pydicom; None when there are none."""
    from pydicom.dataset import Dataset
    from pydicom.pixels.processing import apply_color_lut

    names = [f"Segmented{channel}PaletteColorLookupTableData" for channel in _CHANNELS]
    if f"{_CHANNELS[0]}PaletteColorLookupTableData" in dataset or not all(dataset.get(name) for name in names):
        return None
    descriptors = [_descriptor(dataset, f"{channel}PaletteColorLookupTableDescriptor") for channel in _CHANNELS]
    if None in descriptors:
        return None
    count, first, bits = descriptors[0] or (0, 0, 0)
    palette = Dataset()
    palette.file_meta = dataset.file_meta
    for channel, name in zip(_CHANNELS, names, strict=True):
        palette.add_new(_tag(f"{channel}PaletteColorLookupTableDescriptor"), "US", [count % _WORD, 0, bits or 16])
        palette.add_new(_tag(name), "OW", dataset[name].value)
    colours = apply_color_lut(np.arange(count, dtype=np.uint16), palette)
    return [Table(colours[:, channel].astype(np.uint16), first, bits) for channel in range(3)]


def _table(item: Any, descriptor_name: str, data_name: str, is_little: bool) -> Table | None:
    descriptor = _descriptor(item, descriptor_name)
    if descriptor is None or data_name not in item:
        return None
    count, first, bits = descriptor
    entries = _entries(item[data_name].value, count, bits, is_little)
    return Table(entries, first, bits) if entries.size else None


def _descriptor(item: Any, name: str) -> tuple[int, int, int | None] | None:
    """(number of entries, first value mapped, bits or None); None when it cannot be used at all."""
    values = numbers(item, name)
    if len(values) < 2 or values[0] is None or values[1] is None:
        return None
    bits = values[2] if len(values) > 2 else None
    # 65,536 entries do not fit into 16 bits and are written as 0; as SS, many entries look negative.
    count = int(values[0]) % _WORD or _WORD
    return count, int(values[1]), int(bits) if bits is not None and 1 <= bits <= 16 else None


def _entries(value: Any, count: int, bits: int | None, is_little: bool) -> NDArray[np.uint16]:
    """At most `count` entries: words, or bytes where the data are too short for words."""
    if isinstance(value, (bytes, bytearray)):
        words = np.frombuffer(value[: len(value) // 2 * 2], "<u2" if is_little else ">u2")
        is_packed = count <= len(value) < 2 * count and (bits is None or bits <= 8 or len(value) <= count + 1)
        odd = value[len(words) * 2 :]
    else:
        listed_values = [value] if not isinstance(value, Iterable) or isinstance(value, str) else value
        words = np.array([int(entry) % _WORD for entry in listed_values if isinstance(entry, int)], np.uint16)
        is_packed = len(words) == (count + 1) // 2 and count > 1 and (bits is None or bits <= 8)
        odd = b""
    if is_packed:
        # Two entries a word, the first one in its low byte.
        packed = np.concatenate([words.astype("<u2").view(np.uint8), np.frombuffer(odd, np.uint8)])
        return packed[:count].astype(np.uint16)
    return words[:count].astype(np.uint16)


def _is_little_endian(dataset: Any) -> bool:
    return bool(dataset.file_meta.TransferSyntaxUID.is_little_endian)


def _tag(keyword: str) -> int:
    from pydicom.datadict import tag_for_keyword

    return int(tag_for_keyword(keyword) or 0)
