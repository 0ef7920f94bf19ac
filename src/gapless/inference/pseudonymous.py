"""Rows whose embeddings may leave a site: without captions, labels and paths, and with pseudonyms for their names."""

from dataclasses import replace

from torch.utils.data import Subset

from gapless.core.values import is_missing
from gapless.embeddings.pseudonyms import Pseudonyms
from gapless.inference.embed import Source

NAMED = ("id", "group", "positives")  # columns of names; the names of splits stay as they are


def pseudonymous(source: Source, names: Pseudonyms) -> Source:
    """The rows under pseudonyms, in the order of these, so that the order says nothing either.

    Of the facts on the data the fingerprint stays, by which an interrupted run is continued. Absent values stay absent.
    """
    ids = [names.of("id", str(name)) for name in source.columns["id"]]
    order = sorted(range(len(ids)), key=ids.__getitem__)
    columns = {
        kind: [value if is_missing(value) else names.of(kind, str(value)) for value in source.columns[kind]]
        for kind in NAMED
        if kind in source.columns
    }
    if "split" in source.columns:
        columns["split"] = list(source.columns["split"])
    of_embeddings = source.data.get("data") or {}  # embeddings bring facts on the data that they were made of
    fingerprint = source.data.get("fingerprint") or of_embeddings.get("fingerprint")
    return replace(
        source,
        dataset=Subset(source.dataset, order),
        columns={name: [values[row] for row in order] for name, values in columns.items()},
        data={"fingerprint": fingerprint, "pseudonyms": names.fingerprint},
        notes=(),
        names_model=False,
        present=None if source.present is None else {name: mask[order] for name, mask in source.present.items()},
    )
