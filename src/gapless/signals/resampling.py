"""Brings a signal to a rate and a length; what was not recorded stays NaN."""

from dataclasses import replace
from fractions import Fraction
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from gapless.signals.limits import MAX_PREPARED, FileRefused
from gapless.signals.signal import Signal

MAX_RATIO = 10_000  # the largest numerator and denominator of a change of rate
_MARGIN = 64  # samples at the lower rate that are read around a piece, so that the filter's ends are outside of it


def at_rate(signal: Signal, rate: float, is_allowed: bool) -> Signal:
    """The signal at this rate.

    Args:
        signal: one with a rate.
        rate: samples a second.
        is_allowed: whether another rate is resampled rather than refused.

    Raises:
        FileRefused: another rate, where that is not allowed; both are named.
    """
    assert signal.rate is not None
    if abs(signal.rate - rate) <= 1e-6 * rate:
        return replace(signal, rate=rate)
    if not is_allowed:
        raise FileRefused(
            "wrong rate", f"the file says {signal.rate:g} and {rate:g} is asked for; resample=true allows it"
        )
    return replace(signal, values=resampled(signal.values, signal.rate, rate), rate=rate)


def resampled(values: NDArray[np.float32], old: float, new: float) -> NDArray[np.float32]:
    """[channel, time] at another rate, by a polyphase filter (`scipy.signal.resample_poly`) without delay.

    Where the nearest old sample is NaN, the new one is; for the filter, gaps are filled by straight lines.
    """
    from scipy.signal import resample_poly

    ratio = Fraction(new / old).limit_denominator(MAX_RATIO)
    if not 0 < ratio.numerator <= MAX_RATIO:
        raise FileRefused("wrong rate", f"{old:g} cannot be resampled to {new:g}")
    gaps = np.isnan(values)
    filled = _without_gaps(values, gaps) if gaps.any() else values
    changed = resample_poly(filled, ratio.numerator, ratio.denominator, axis=1, padtype="line").astype(np.float32)
    if gaps.any():
        times = np.arange(changed.shape[1]) * ratio.denominator / ratio.numerator
        nearest = np.minimum(np.rint(times).astype(int), values.shape[1] - 1)
        changed[gaps[:, nearest]] = np.nan
    return np.asarray(changed)


def _without_gaps(values: NDArray[np.float32], gaps: NDArray[np.bool_]) -> NDArray[np.float32]:
    filled = np.zeros_like(values)
    places = np.arange(values.shape[1])
    for row, gap in enumerate(gaps):
        if not gap.all():
            filled[row] = np.interp(places, places[~gap], values[row][~gap])
    return filled


def piece(signal: Signal, seconds: float, crop: Literal["start", "centre"]) -> Signal:
    """The stretch that a length of `seconds` needs, with a margin for the filter; long recordings are cut to it."""
    assert signal.rate is not None
    length = signal.values.shape[1]
    needed = round(seconds * signal.rate) + 2 * _MARGIN
    if length <= needed:
        return signal
    first = 0 if crop == "start" else (length - needed) // 2
    return replace(signal, values=signal.values[:, first : first + needed])


def of_length(values: NDArray[np.float32], length: int, crop: Literal["start", "centre"]) -> NDArray[np.float32]:
    """[channel, length]: cropped, or padded with NaN at its end."""
    if len(values) * length > MAX_PREPARED:
        raise FileRefused(
            "signal too large", f"{len(values)} channels of {length} samples; shorten seconds or lower rate"
        )
    first = 0 if crop == "start" else max(0, (values.shape[1] - length) // 2)
    kept = values[:, first : first + length]
    return np.pad(kept, ((0, 0), (0, length - kept.shape[1])), constant_values=np.nan)
