"""A signal: channels of physical values at one rate, and the names by which channels are asked for."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gapless.core.errors import listed
from gapless.signals.limits import FileRefused, check_counts

# What an electrode's name may begin with: "Lead I (Einthoven)", "ECG II" and "EEG Fpz-Cz" are I, II and Fpz-Cz.
_PREFIXES = ("lead", "ecg", "ekg", "eeg")
# Factors to millivolts of the units of electric signals; values of other units stay as they are.
_TO_MILLIVOLT = {"nv": 1e-6, "uv": 1e-3, "µv": 1e-3, "μv": 1e-3, "mv": 1.0, "v": 1e3}
CLIPPED_RUN = 5  # equal samples at the largest or smallest value of a channel, one after the other


@dataclass(frozen=True)
class Signal:
    """Channels at one rate.

    Args:
        values: [channel, time] fp32; NaN where nothing was recorded. Volts are in millivolt.
        rate: samples a second; None where the source does not say.
        names: of the channels as the file spells them, which may be anything: they are compared, and never shown.
    """

    values: NDArray[np.float32]
    rate: float | None = None
    names: tuple[str, ...] = ()

    @property
    def seconds(self) -> float | None:
        """How long it is."""
        return None if self.rate is None else self.values.shape[1] / self.rate


def to_millivolt(unit: str) -> float:
    """The factor from a unit to millivolt; 1 for a unit that is no voltage.

    >>> to_millivolt("uV"), to_millivolt("mmHg")
    (0.001, 1.0)
    """
    return _TO_MILLIVOLT.get(unit.strip().casefold(), 1.0)


def channel_key(name: str) -> str:
    """The name of a channel without case, spaces, brackets and the words "lead", "ECG" and "EEG" before it.

    >>> [channel_key(name) for name in ("Lead I (Einthoven)", "aVR", "EEG Fpz-Cz", "ECG")]
    ['i', 'avr', 'fpz-cz', 'ecg']
    """
    words = re.sub(r"\(.*?\)", " ", name.casefold()).split()
    return "".join(words[1:] if len(words) > 1 and words[0] in _PREFIXES else words)


def places_of(
    asked: Sequence[str], names: Sequence[str], missing: Literal["refuse", "mask"] = "refuse"
) -> list[int | None]:
    """Where the asked channels stand among the names of a file, each [asked]; None where it is missing.

    Raises:
        FileRefused: a channel is missing under "refuse", all are, or a name is there twice. The message holds asked
            names alone, because those of the file may be anything.
    """
    if not names:
        raise FileRefused("channels without names", "the source names no channels, so that none can be asked for")
    keys = [channel_key(name) for name in names]
    lacking = [name for name in asked if channel_key(name) not in keys]
    if lacking and (missing == "refuse" or len(lacking) == len(asked)):
        raise FileRefused("missing channel", f"{listed(lacking)} is not among the {len(names)} channels of the file")
    twice = [name for name in asked if keys.count(channel_key(name)) > 1]
    if twice:
        raise FileRefused("channel named twice", listed(twice))
    return [keys.index(key) if (key := channel_key(name)) in keys else None for name in asked]


def chosen(signal: Signal, asked: Sequence[str], missing: Literal["refuse", "mask"] = "refuse") -> Signal:
    """The signal with the asked channels in their order; a missing one is NaN under "mask"."""
    places = places_of(asked, signal.names, missing)
    values = np.full((len(asked), signal.values.shape[1]), np.nan, dtype=np.float32)
    for row, place in enumerate(places):
        if place is not None:
            values[row] = signal.values[place]
    return replace(signal, values=values, names=tuple(asked))


def check_values(signal: Signal) -> Signal:
    """The signal itself. Raises FileRefused: no finite value in it, or an infinity."""
    check_counts(*signal.values.shape)
    infinite = np.asarray(np.isinf(signal.values).any(axis=1))
    if bool(infinite.any()):
        raise FileRefused("infinite values", f"in channel {int(infinite.argmax()) + 1} of {len(infinite)}")
    if np.isnan(signal.values).all():
        raise FileRefused("empty signal", "no sample of it is a number")
    return signal


def is_flat(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[channel]: whether all numbers of a channel are equal, or it has none."""
    filled = np.where(np.isnan(values), -np.inf, values).max(axis=1)
    lowest = np.where(np.isnan(values), np.inf, values).min(axis=1)
    return np.asarray(filled <= lowest)


def is_clipped(values: NDArray[np.float32]) -> NDArray[np.bool_]:
    """[channel]: whether a channel that is not flat stays at its largest or smallest value for `CLIPPED_RUN`."""
    clipped = np.zeros(len(values), dtype=bool)
    for row in np.flatnonzero(~is_flat(values)):
        channel = values[row]
        for end in (np.nanmax(channel), np.nanmin(channel)):
            clipped[row] |= _longest_run(channel == end) >= CLIPPED_RUN
    return clipped


def _longest_run(is_there: NDArray[np.bool_]) -> int:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_there.astype(np.int8), [0]])))
    return int((edges[1::2] - edges[::2]).max(initial=0))
