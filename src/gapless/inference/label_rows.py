"""The labels of rows as vectors, for losses that compare them."""

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gapless.core.errors import UsageError, unknown_name
from gapless.core.values import name_of
from gapless.losses.base import label_column, method_of
from gapless.manifest.manifest import Manifest


def label_matrix(cells: Iterable[Any]) -> NDArray[np.float32]:
    """[row, label] 1 where a row has a label; labels are in the order of their names.

    Args:
        cells: of each row a label, or a list of them; a missing one is no label.

    >>> label_matrix(["cyst", ["mass", "cyst"], None]).tolist()
    [[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]]
    """
    names = [
        {name for item in (cell if isinstance(cell, list | tuple) else [cell]) if (name := name_of(item))}
        for cell in cells
    ]
    columns = {name: column for column, name in enumerate(sorted(set().union(*names)))}
    matrix = np.zeros((len(names), len(columns)), dtype=np.float32)
    for row, own in enumerate(names):
        matrix[row, [columns[name] for name in own]] = 1.0
    return matrix


def labels_for(loss: Any, rows: Manifest) -> NDArray[np.float32] | None:
    """The labels that the settings of a loss ask for, [row, label]; None where they ask for none.

    Raises:
        UsageError: they name no column, or one that the manifest has not, or one without a label in these rows.
    """
    column = label_column(loss)
    if column is None:
        return None
    method = method_of(loss).name
    if not column:
        raise UsageError(
            f"the method {method} compares labels: say in which column they are with --loss.label_column; "
            + (f"{rows.path} has {', '.join(rows.labels)}" if rows.labels else f"{rows.path} has no label columns")
        )
    if column not in rows.labels:
        if not rows.labels:
            raise UsageError(f"the method {method} compares labels, and {rows.path} has no label columns")
        raise unknown_name("label column", column, rows.labels)
    matrix = label_matrix(rows.table[column].to_pylist())
    if matrix.shape[1] < 2:
        raise UsageError(
            f"the method {method} compares labels, and the training rows of {rows.path} have "
            f"{'one label' if matrix.shape[1] else 'no label'} in the column {column!r}: nothing would be told apart"
        )
    return matrix
