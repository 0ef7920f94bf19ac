"""The routes of a selection: what its cases share, and the selection as a CSV.

The ids come in the body of a request, because an address is logged by proxies and an id may name a patient.
"""

from dataclasses import asdict

from fastapi import FastAPI, Response
from starlette.exceptions import HTTPException

from gapless.core.errors import UsageError
from gapless.search.collection import Pairs
from gapless.search.overview import Overview
from gapless.search.searcher import Searcher
from gapless.search.selection import (
    SELECTION_FIGURES,
    csv_of,
    gap_of,
    nearest_texts,
    num_pairs_of,
    shared_labels,
    within_cosines,
)
from gapless.server.refusals import REFUSALS
from gapless.server.schemas import Failure, FoundRow, Selection, Shared, SharedValue

ROUTE = "/api/selection"
SELECTION_REFUSALS = {**REFUSALS, 404: {"model": Failure}}


def add_selection(app: FastAPI, searcher: Searcher, overview: Overview) -> None:
    """Add the routes of a selection to the service."""

    @app.post(ROUTE, responses=SELECTION_REFUSALS)
    def selection(selected: Selection) -> Shared:
        return shared_of(searcher, overview, selected)

    @app.post(f"{ROUTE}/csv", responses={**SELECTION_REFUSALS, 200: {"content": {"text/csv": {}}}})
    def selection_csv(selected: Selection) -> Response:
        content = csv_of(pairs_of(searcher, selected))
        disposition = {"content-disposition": 'attachment; filename="selection.csv"'}
        return Response(content, media_type="text/csv; charset=utf-8", headers=disposition)


def pairs_of(searcher: Searcher, selected: Selection) -> Pairs:
    """The selected cases that the collection has.

    Raises:
        HTTPException: 404 it has none of them.
    """
    pairs = searcher.collection.pairs_of(list(dict.fromkeys(selected.ids)))
    if not pairs.ids:
        raise HTTPException(404, "the collection has none of these cases; it may have changed since they were selected")
    return pairs


def shared_of(searcher: Searcher, overview: Overview, selected: Selection) -> Shared:
    """What the selected cases have in common; the errors are those of `pairs_of`."""
    collection = searcher.collection
    pairs = pairs_of(searcher, selected)
    known = set(pairs.ids)
    labels = shared_labels(collection, pairs)
    return Shared(
        num_cases=len(pairs.ids),
        absent=[one for one in dict.fromkeys(selected.ids) if one not in known],
        modalities={name: int(mask.sum()) for name, mask in pairs.present.items()},
        labels={name: [SharedValue(**asdict(one)) for one in shared] for name, shared in labels.items()},
        texts=[FoundRow.of(hit) for hit in nearest_texts(collection, pairs, searcher.words_modality)],
        within_cosine=within_cosines(pairs),
        num_pairs=num_pairs_of(pairs),
        gap=gap_of(pairs),
        collection_gap=collection_gap(overview),
    )


def collection_gap(overview: Overview) -> dict[str, float]:
    """The figures of a selection for the cases of the map; empty for a collection without a map."""
    try:
        figures = overview.map()["figures"]
    except UsageError:
        return {}
    return {key: figures[key] for key in SELECTION_FIGURES if key in figures}
