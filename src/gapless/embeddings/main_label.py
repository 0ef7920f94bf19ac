"""The column of labels that figures are about where the user names none."""

from typing import Any

from gapless.core.values import cells_of, text_of
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.metrics.labels import telling_label


def main_label(rows: EmbeddingSet) -> str | None:
    """The first column whose values can be classes; None where there is none."""
    return telling_label(label_columns(rows), rows.groups)


def label_columns(rows: EmbeddingSet) -> dict[str, Any]:
    """The labels without the column that says which rows show one item, under whatever name."""

    def is_positives(values: Any) -> bool:
        try:
            return rows.positives is not None and [text_of(cell) for cell in cells_of(values)] == rows.positives
        except ValueError:
            return False

    return {name: values for name, values in rows.labels.items() if not is_positives(values)}
