"""A method's fit on some rows: made once however many methods build on it, with what every method's settings add."""

from pathlib import Path
from typing import Any

from gapless.closing.base import ClosingMethod, ClosingPairs, ClosingSettings, FittedMethod, check_fitted


def fitted_model(
    pairs: ClosingPairs, method: ClosingMethod[Any], settings: ClosingSettings, seed: int, folder: Path
) -> FittedMethod:
    """The method's fit on these rows; one that was made before, by whatever needed it first, is not made again.

    Args:
        pairs, settings, seed, folder: as in `ClosingMethod.fit`.

    Raises:
        UsageError, DataRefused: as in `ClosingMethod.fit`. ValueError: a model for other rows.
    """
    key = (method.name, repr(settings), seed)
    if key not in pairs.fits:
        fitted = method.fit(pairs, settings, seed, folder=folder)
        check_fitted(fitted, pairs, method.name)
        pairs.fits[key] = fitted
    return pairs.fits[key]
