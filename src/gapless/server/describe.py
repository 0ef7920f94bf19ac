"""What a collection is, for its page and its API: modalities with their kinds, labels, and the fields of tables."""

from collections.abc import Mapping
from typing import Any

from gapless.modalities.base import FILES, MODALITIES
from gapless.modalities.table import TableModality
from gapless.pages.palette import modality_mark
from gapless.search.collection import Collection
from gapless.search.searcher import Searcher
from gapless.server.schemas import MAX_FIELDS, MAX_HITS, Description, Label, TableField

MAX_VALUES = 200  # of a label


def description_of(searcher: Searcher) -> Description:
    """The collection, what its model can be asked with, and what a filter may name."""
    collection, model = searcher.collection, searcher.model
    info = collection.info
    kinds = {name: collection.label_kind(name) for name in info["labels"]}
    index = collection.index_report()
    queries = {name: model.preprocessor(name) for name in searcher.query_modalities}
    return Description(
        rows=collection.count(),
        modalities=info["modalities"],
        index=None if index is None else index.as_json(),
        balanced=len(info["modalities"]) > 1 and collection.balance() is not None,
        labels={
            name: Label(values=values[:MAX_VALUES], num_values=len(values), kind=kinds[name])
            for name, values in collection.label_values().items()
        },
        queries=list(queries),
        words=searcher.words_modality,
        kinds={name: model.preprocessor(name).settings.kind for name in model.modalities},
        files=[name for name, kind in queries.items() if kind.manifest_form == FILES],
        table_fields={
            name: fields_of(kind.settings) for name, kind in queries.items() if isinstance(kind, TableModality)
        },
        fields=list(collection.fields),
        embedding_dim=info["embedding_dim"],
        fingerprint=info["model"]["fingerprint"],
    )


def script_facts(description: Description, max_upload: int) -> dict[str, Any]:
    """What the scripts of the page know of the collection."""
    return {
        "marks": {name: modality_mark(index) for index, name in enumerate(description.modalities)},
        "kinds": description.kinds,
        "words": description.words,
        "files": description.files,
        "several": [name for name in description.files if MODALITIES[description.kinds[name]].takes_folders],
        "tables": {name: [field.name for field in fields] for name, fields in description.table_fields.items()},
        "maxUpload": max_upload,
        "maxHits": MAX_HITS,
    }


def fields_of(settings: Any) -> list[TableField]:
    """The columns of a table in their order; categories are those that enough training rows share."""
    fitted: Mapping[str, Any] = settings.fields or {}
    return [
        TableField(
            name=name,
            numeric=fitted.get(name, {}).get("kind") == "number",
            values=list(fitted.get(name, {}).get("categories", [])),
        )
        for name in settings.columns[:MAX_FIELDS]
    ]


def fields_with_kinds(collection: Collection) -> list[str]:
    """The fields that a filter can use, as the page lists them."""
    kinds = {column: collection.label_kind(name) for name, column in collection.info["labels"].items()}
    fields = collection.fields.items()
    return [f"{name} (numbers)" if kinds.get(column) == "number" else name for name, column in fields]
