"""Compares samples with the rows of a collection, and decides which rows `gapless index` writes, before it embeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc

from gapless.core.errors import DataRefused, listed
from gapless.core.values import name_of
from gapless.search.collection import Collection, key_of
from gapless.search.deleted_rows import deleted_rows, key_digest
from gapless.search.engine import reading
from gapless.search.filter_terms import literal
from gapless.search.kinds import is_number
from gapless.search.lookup import keys_among, values_at
from gapless.search.samples import Samples


@dataclass(frozen=True)
class Changes:
    """What a run does to a collection, by the numbers of samples.

    Args:
        added: new ones.
        extended: ones whose rows are there as they are, and that bring a modality or a caption which they lacked.
        captioned: those of them whose rows enter the table again, to show the caption.
        updated: ones that replace what the collection holds under their id.
        restored: ones with rows that were deleted and come back, because the user says so.
        unchanged: how many are there as they are.
        deleted: ones with rows that were deleted from the collection and stay out.
        changed_since: how many of `deleted` have another content than what was deleted.
        rows: sample -> the modalities whose rows enter the table.
        withdrawn: keys of rows that leave the table, because their samples lack the modality now.
    """

    added: list[int] = field(default_factory=list)
    extended: list[int] = field(default_factory=list)
    captioned: list[int] = field(default_factory=list)
    updated: list[int] = field(default_factory=list)
    restored: list[int] = field(default_factory=list)
    unchanged: int = 0
    deleted: list[int] = field(default_factory=list)
    changed_since: int = 0
    rows: dict[int, frozenset[str]] = field(default_factory=dict)
    withdrawn: list[str] = field(default_factory=list)

    @property
    def written(self) -> list[int]:
        """Samples with rows that enter the table."""
        return sorted(self.rows)

    @property
    def replaces(self) -> bool:
        """Whether rows that enter the table stand in it already."""
        return bool(self.updated or self.restored or self.captioned)

    def replaced(self, ids: Sequence[str]) -> frozenset[str]:
        """Keys of the rows that are other ones now, or went."""
        written = {key_of(ids[number], name) for number in self.updated for name in self.rows.get(number, ())}
        return frozenset({*written, *self.withdrawn})


def contents_of(collection: Collection, samples: Samples) -> dict[str, str]:
    """Key -> digest of the content, of every row of a collection that one of the samples could have."""
    keys = [key_of(sample, name) for sample in samples.ids for name in samples.contents]
    with reading(collection.uri):
        return values_at(collection.table, "row", keys, "content")


@dataclass(frozen=True)
class Comparison:
    """The modalities of one sample against a collection.

    Args:
        new: not in the collection, and never deleted from it.
        same, other: in the collection, with the same content or another.
        captioned: those of `same` that show no caption yet, although the sample has one now.
        gone: deleted from the collection.
        withdrawn: in the collection, but the sample lacks them now.
        changed_since: whether one that was deleted has another content now.
    """

    new: frozenset[str]
    same: frozenset[str]
    captioned: frozenset[str]
    other: frozenset[str]
    gone: frozenset[str]
    withdrawn: frozenset[str]
    changed_since: bool


def comparison_of(
    sample: str,
    contents: Mapping[str, str | None],
    earlier: str | None,
    held: Mapping[str, str],
    deleted: Mapping[str, str],
    before_caption: Mapping[str, str | None],
) -> Comparison:
    """Compare a sample with a collection, row by row.

    Args:
        contents: modality -> digest, None where the sample lacks it. Modalities that the data do not have at all are
            not named, and say nothing of rows that the collection holds.
        earlier: the digest that an earlier version of gapless gave the sample's rows.
        held: key -> digest, of the collection.
        deleted: digest of the key -> digest, of deleted rows.
        before_caption: modality -> the digest while the sample had no caption; None where it has none.
    """
    names = ("new", "same", "captioned", "other", "gone", "withdrawn")
    states: dict[str, set[str]] = {name: set() for name in names}
    changed_since = False
    for name, content in contents.items():
        key = key_of(sample, name)
        if content is None:
            if key in held:
                states["withdrawn"].add(name)
        elif key in held:
            is_captioned = held[key] == before_caption.get(name)
            states["same" if is_captioned or held[key] in (content, earlier) else "other"].add(name)
            if is_captioned:
                states["captioned"].add(name)
        elif (known := deleted.get(key_digest(key))) is not None:
            states["gone"].add(name)
            changed_since |= known not in (content, earlier, before_caption.get(name))
        else:
            states["new"].add(name)
    return Comparison(**{name: frozenset(found) for name, found in states.items()}, changed_since=changed_since)


def changes_of(samples: Samples, collection: Collection | None, *, update: bool, restore: bool) -> Changes:
    """Which samples are new, bring a new modality, differ from what the collection holds, or were deleted from it.

    A modality that arrives is an addition: the other rows of its sample stay as they are. So is the caption of a sample
    that had none: its rows are written again, because they show it. A sample that lacks a
    modality which the collection holds of it differs, and its row goes with `update`. The rows of a sample that was
    deleted as a whole stay out, also those that it brings for the first time.

    Args:
        update: samples that differ are replaced.
        restore: rows that were deleted come back.

    Raises:
        DataRefused: some differ, and `update` does not say that they are to be replaced.
    """
    held = {} if collection is None else contents_of(collection, samples)
    deleted = {} if collection is None else deleted_rows(collection, samples)
    changes = Changes()
    unchanged = changed_since = 0
    earlier: Sequence[str | None] = samples.earlier or [None] * len(samples.ids)
    for number, (sample, former) in enumerate(zip(samples.ids, earlier, strict=True)):
        contents = {name: digests[number] for name, digests in samples.contents.items()}
        before = {name: digests[number] for name, digests in samples.before_caption.items()}
        rows = comparison_of(sample, contents, former, held, deleted, before)
        stays_out = bool(rows.gone) and not restore
        if stays_out:
            changes.deleted.append(number)
            changed_since += rows.changed_since
        written = rows.new | rows.other | rows.captioned | (frozenset() if stays_out else rows.gone)
        if rows.other or rows.withdrawn:
            changes.updated.append(number)
            changes.withdrawn.extend(key_of(sample, name) for name in sorted(rows.withdrawn))
        elif rows.gone and restore:
            changes.restored.append(number)
        elif (rows.new and rows.same) or rows.captioned:
            changes.extended.append(number)
        elif rows.new and not rows.gone:
            changes.added.append(number)
        elif rows.same:
            unchanged += 1
            continue
        else:  # deleted as a whole, or without any of the modalities
            continue
        if rows.captioned:
            changes.captioned.append(number)
        if written:
            changes.rows[number] = written
    if changes.updated and not update:
        raise DataRefused(_differing(samples.ids, changes))
    return replace(changes, unchanged=unchanged, changed_since=changed_since)


def _differing(ids: Sequence[str], changes: Changes) -> str:
    """The sentence on samples that differ."""
    named = listed([ids[number] for number in changes.updated])
    lacking = ""
    if changes.withdrawn:
        lacking = f", and lack {len(changes.withdrawn)} rows that it holds of them ({listed(changes.withdrawn)})"
    replaces = "replaces them, and removes rows that they lack" if changes.withdrawn else "replaces them"
    return (
        f"{len(changes.updated)} samples differ from those that the collection holds under the same id "
        f"({named}){lacking}; --update {replaces}"
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
    """Samples of the collection that came from the same source (and split) and are not in it any more.

    Rows are counted first: where the collection holds no more of the source than the samples' own rows, none is
    missing, and its keys are not read.
    """
    where = f"source = {literal(origin)}" + ("" if split is None else f" AND split = {literal(split)}")
    keys = [key_of(sample, name) for sample in ids for name in collection.info["modalities"]]
    known = pa.array(ids, pa.string())
    gone: set[str] = set()
    with reading(collection.uri):
        count = int(collection.table.count_rows(where))
        if count <= len(keys) and count == len(keys_among(collection.table, keys, where)):
            return []
        for batch in collection.table.search().where(where).select(["id"]).to_batches():
            samples = pc.unique(batch.column("id"))
            gone.update(samples.filter(pc.invert(pc.is_in(samples, value_set=known))).to_pylist())
    return sorted(gone)
