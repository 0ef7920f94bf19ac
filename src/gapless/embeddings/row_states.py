"""What the rows of a matrix hold: NaN, nothing but NaN, zeros."""

from dataclasses import dataclass

import numpy as np

from gapless.core.memory_maps import release_pages

ROWS_AT_ONCE = 8192


@dataclass(frozen=True)
class RowStates:
    """What the rows of one matrix hold, each a [row] bool.

    Args:
        broken: a NaN or an infinite number somewhere.
        empty: nothing but NaN.
        zero: nothing but zeros.
    """

    broken: np.ndarray
    empty: np.ndarray
    zero: np.ndarray

    @classmethod
    def of(cls, matrix: np.ndarray) -> "RowStates":
        """Of a [row, dim] array or memory map, read in blocks.

        >>> RowStates.of(np.array([[1.0, np.nan], [np.nan, np.nan], [0.0, 0.0]])).empty
        array([False,  True, False])
        """
        broken, empty, zero = (np.zeros(len(matrix), dtype=bool) for _ in range(3))
        for start in range(0, len(matrix), ROWS_AT_ONCE):
            rows = np.asarray(matrix[start : start + ROWS_AT_ONCE])
            part = slice(start, start + len(rows))
            broken[part] = ~np.isfinite(rows).all(axis=1)
            if broken[part].any():
                empty[part] = np.isnan(rows).all(axis=1)
            zero[part] = ~rows.any(axis=1)
            release_pages(matrix)
        return cls(broken, empty, zero)
