"""What a run of `gapless index` does to a collection that is there, decided before anything is embedded."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from gapless.core.errors import DataRefused, listed
from gapless.core.values import name_of
from gapless.search.collection import Collection, key_of
from gapless.search.engine import reading
from gapless.search.kinds import is_number
from gapless.search.tombstones import deleted_rows, key_digest


@dataclass(frozen=True)
class Changes:
    """What a run does to a collection, by the numbers of samples.

    Args:
        added: new ones.
        updated: ones that replace what the collection holds under their id.
        restored: ones with rows that were deleted and come back, because the user says so.
        unchanged: how many are there as they are.
        deleted: ones with rows that were deleted from the collection and stay out.
        changed_since: how many of `deleted` have another content than what was deleted.
        left_out: keys of the rows that stay out.
    """

    added: list[int] = field(default_factory=list)
    updated: list[int] = field(default_factory=list)
    restored: list[int] = field(default_factory=list)
    unchanged: int = 0
    deleted: list[int] = field(default_factory=list)
    changed_since: int = 0
    left_out: frozenset[str] = frozenset()

    @property
    def written(self) -> list[int]:
        """Samples whose rows enter the table."""
        return sorted([*self.added, *self.updated, *self.restored])


def contents_of(collection: Collection) -> dict[str, str]:
    """Key -> digest of the content, of every row of a collection."""
    with reading(collection.uri):
        table = collection.table.search().select(["row", "content"]).to_arrow()
    return dict(zip(table["row"].to_pylist(), table["content"].to_pylist(), strict=True))


def changes_of(
    ids: Sequence[str],
    contents: Sequence[str],
    modalities: Sequence[str],
    collection: Collection | None,
    *,
    update: bool,
    restore: bool,
) -> Changes:
    """Which samples are new, differ from what the collection holds under their id, or were deleted from it.

    Args:
        contents: [sample] digests.
        update: samples that differ are replaced.
        restore: rows that were deleted come back.

    Raises:
        DataRefused: some differ, and `update` does not say that they are to be replaced.
    """
    held = {} if collection is None else contents_of(collection)
    deleted = {} if collection is None else deleted_rows(collection)
    changes = Changes()
    left_out: set[str] = set()
    unchanged = changed_since = 0
    for number, (sample, content) in enumerate(zip(ids, contents, strict=True)):
        keys = [key_of(sample, name) for name in modalities]
        there = [held[key] for key in keys if key in held]
        absent = {key: deleted.get(key_digest(key)) for key in keys if key not in held}
        gone = {key for key, known in absent.items() if known is not None}
        differs = any(one != content for one in there) or (bool(there) and len(absent) > len(gone))
        if gone and restore and not differs:
            changes.restored.append(number)
            continue
        if gone and not restore:
            left_out |= gone
            changes.deleted.append(number)
            changed_since += any(absent[key] != content for key in gone)
        if differs:
            changes.updated.append(number)
        elif len(gone) < len(absent):
            changes.added.append(number)
        elif there:
            unchanged += 1
    if changes.updated and not update:
        raise DataRefused(
            f"{len(changes.updated)} samples differ from those that the collection holds under the same id "
            f"({listed([ids[number] for number in changes.updated])}); --update replaces them"
        )
    return Changes(
        changes.added,
        changes.updated,
        changes.restored,
        unchanged,
        changes.deleted,
        changed_since,
        frozenset(left_out),
    )


def check_label_kinds(
    collection: Collection, ids: Sequence[str], labels: Mapping[str, Sequence[object]], allowed: Sequence[str]
) -> None:
    """Refuse words for a label that holds numbers alone: `age > 60` would stop working for all rows.

    Args:
        ids: [sample] of the samples that will be written.
        labels: label -> [sample] values.
        allowed: labels that may take words from now on; they compare as text then.

    Raises:
        DataRefused: a word; the message names the label and the first samples.
    """
    for label, values in labels.items():
        if label in allowed or label not in collection.info["labels"] or collection.label_kind(label) != "number":
            continue
        words = {
            sample: text
            for sample, value in zip(ids, values, strict=True)
            if (text := name_of(value)) and not is_number(text)
        }
        if words:
            named = listed([f"{sample}: {text[:40]!r}" for sample, text in words.items()])
            raise DataRefused(
                f"the label {label!r} of {collection.uri} holds numbers alone, and {len(words)} samples bring words "
                f"({named}); leave them empty in the data, or let the label become text, which filters compare letter "
                f"by letter, with --text_labels {label}"
            )


def missing_from(collection: Collection, ids: Sequence[str], origin: str, split: str | None) -> list[str]:
    """Samples of the collection that came from the same source (and split) and are not in it any more."""
    with reading(collection.uri):
        table = collection.table.search().select(["id", "source", "split"]).to_arrow()
    wanted = pc.equal(table["source"], origin)
    if split is not None:
        wanted = pc.and_(wanted, pc.fill_null(pc.equal(table["split"], split), False))
    samples = pc.unique(table["id"].filter(wanted))
    gone = samples.filter(pc.invert(pc.is_in(samples, value_set=pa.array(ids, pa.string()))))
    return sorted(gone.to_pylist())
