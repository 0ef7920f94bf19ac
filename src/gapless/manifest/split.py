"""Assigns rows to train, validation and test so that no group is in two splits.

split_manifest("manifest", "manifest-split", stratify="region")
"""

import hashlib
import logging
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gapless.core import files
from gapless.core.errors import UsageError, listed, unknown_name
from gapless.manifest.manifest import MODALITIES_VERSION, SPLITS, Manifest
from gapless.manifest.read_back import check_present
from gapless.manifest.writer import ManifestWriter
from gapless.modalities.base import NUMBERS

FRACTIONS = (0.8, 0.1, 0.1)
# A group with more than this share of the rows is reported, unless there are only a few rows.
CROWD_SHARE = 0.5
MIN_CROWD = 10
# Shorter vectors may be equal by chance, as an age and a weight are.
MIN_NUMBERS_OF_A_COPY = 16

logger = logging.getLogger(__name__)


def split_manifest(
    manifest: str | Path | Manifest,
    out: str | Path,
    fractions: Sequence[float] = FRACTIONS,
    stratify: str | None = None,
    seed: int = 0,
) -> Manifest:
    """Write the same rows with a new split; the images stay where they are.

    Groups that share an identical image, or another identical item (see `copied_contents`), count as one, since they
    would leak as much.

    Args:
        manifest: the rows.
        out: directory of the new manifest.
        fractions: shares of train, validation and test.
        stratify: a label column whose values each split should hold in equal shares.
        seed: another seed is another split.

    Returns:
        The new manifest; the same for any order of the rows.
    """
    source = manifest if isinstance(manifest, Manifest) else Manifest.read(manifest)
    if stratify is not None and stratify not in source.labels:
        raise unknown_name("label", stratify, source.labels)
    table = source.table
    groups = joined_groups(source)
    strata = table[stratify].to_pylist() if stratify else None
    assigned = assign_splits(groups, fractions, strata, seed)
    specs = source.specs if source.version == MODALITIES_VERSION else ()
    check_present(table, source.image_root, specs)
    info = source.info
    signals = [] if specs else [name for name in source.modalities if name not in ("image", "text")]
    image_root = source.image_root.resolve()
    with (
        files.new_directory(Path(out)) as partial,
        ManifestWriter(
            partial,
            labels=source.labels,
            signals=signals,
            with_licence="licence" in table.column_names,
            modalities=specs,
        ) as writer,
    ):
        for row, group in zip(_rows(source), groups, strict=True):
            writer.keep({**row, "split": assigned[group]})
        writer.finish(
            source=str(info["source"]),
            image_root=str(image_root),
            licence=info.get("licence"),
            split={"fractions": list(fractions), "stratify": stratify, "seed": seed, "of": source.fingerprint},
        )
    made = Manifest.read(out)
    _warn_of_empty_splits(made, fractions, groups)
    return made


def copied_contents(manifest: Manifest) -> dict[str, list[list[str] | None]]:
    """Modality -> for each row the checksums of its views, of the modalities of which an equal item is a copy.

    These are files and long vectors. Equal texts and tables are not: many patients share "no finding", or age and sex.
    """
    short = {
        spec.name
        for spec in manifest.specs
        if spec.form == NUMBERS and int(spec.params.get("size", 0)) < MIN_NUMBERS_OF_A_COPY
    }
    return {name: contents for name, contents in manifest.contents().items() if name not in short}


def joined_groups(manifest: Manifest) -> list[str]:
    """The group of each row, where groups that share a copy of an item have one name."""
    groups: list[str] = manifest.table["group"].to_pylist()
    owners = list(groups)
    keys = [f"\0{row}" for row in range(len(groups))]  # every row takes part, also one without any item
    for contents in copied_contents(manifest).values():
        for row, digests in enumerate(contents):
            for digest in digests or ():
                owners.append(groups[row])
                keys.append(digest)
    return join_groups(owners, keys)[: len(groups)]


def _warn_of_empty_splits(made: Manifest, fractions: Sequence[float], groups: Sequence[str]) -> None:
    sentence = one_group_sentence(len(groups), max(Counter(groups).values(), default=0))
    empty = [split for split, share in zip(SPLITS, fractions, strict=True) if share > 0]
    empty = [split for split in empty if split not in made.rows_per_split()]
    if not sentence and empty:
        num_groups = len(set(groups))
        sentence = f"{len(groups)} rows in {num_groups} groups are too few for every split"
    if sentence:
        logger.warning(f"{made.path}: {sentence}{f'; no rows in {listed(empty)}' if empty else ''}")


def one_group_sentence(total: int, largest: int) -> str | None:
    """A warning when one group holds all or most rows: such data cannot be split. It does not quote the group.

    Args:
        total: rows in groups.
        largest: rows of the largest group.
    """
    if total > 1 and largest == total:
        return f"all {total} rows share one group, so that none can be held out from the others; is the group right?"
    if largest >= MIN_CROWD and largest > CROWD_SHARE * total:
        return f"one group holds {largest} of {total} rows, and a split cannot part them; is the group right?"
    return None


def _rows(manifest: Manifest) -> Iterable[dict[str, Any]]:
    for batch in manifest.table.to_batches(max_chunksize=2048):
        yield from batch.to_pylist()


def assign_splits(
    groups: Sequence[str],
    fractions: Sequence[float] = FRACTIONS,
    strata: Sequence[str | None] | None = None,
    seed: int = 0,
) -> dict[str, str]:
    """A split for every group, drawn by hash.

    Groups are taken in the order of the hash of (seed, group), stratum by stratum, and each goes to the split that is
    furthest behind its share, in the stratum and overall.

    Args:
        groups: one per row.
        fractions: shares of train, validation and test; must add up to 1.
        strata: one value per row; a group counts to its most frequent one.
        seed: another seed is another split.

    Returns:
        group -> "train", "validation" or "test". Depends on the rows, not on their order.
    """
    if len(fractions) != len(SPLITS) or min(fractions) < 0 or abs(sum(fractions) - 1) > 1e-6:
        raise UsageError(f"fractions must be three numbers >= 0 that add up to 1, got {list(fractions)}")
    sizes = Counter(groups)
    stratum_of = _stratum_of_groups(groups, strata)
    members: dict[str, list[str]] = defaultdict(list)
    for group in sizes:
        members[stratum_of[group]].append(group)
    order = {group: hashlib.sha256(f"{seed}/{group}".encode()).digest() for group in sizes}
    behind_overall = [0.0, 0.0, 0.0]
    assigned = {}
    for stratum in sorted(members, key=lambda name: (-sum(sizes[group] for group in members[name]), name)):
        behind = [0.0, 0.0, 0.0]
        for group in sorted(members[stratum], key=order.__getitem__):
            for index, fraction in enumerate(fractions):
                behind[index] += fraction * sizes[group]
                behind_overall[index] += fraction * sizes[group]
            usable = [index for index, fraction in enumerate(fractions) if fraction > 0]
            best = max(usable, key=lambda index: (behind[index] + behind_overall[index], -index))
            behind[best] -= sizes[group]
            behind_overall[best] -= sizes[group]
            assigned[group] = SPLITS[best]
    return assigned


def _stratum_of_groups(groups: Sequence[str], strata: Sequence[str | None] | None) -> dict[str, str]:
    if strata is None:
        return dict.fromkeys(groups, "")
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for group, stratum in zip(groups, strata, strict=True):
        counts[group][stratum or ""] += 1
    return {group: min(count, key=lambda name: (-count[name], name)) for group, count in counts.items()}


def join_groups(groups: Sequence[str], keys: Sequence[str]) -> list[str]:
    """The groups, where groups that share a key (an image's checksum) get one name: the smallest of theirs."""
    parent = {group: group for group in groups}

    def root(group: str) -> str:
        while parent[group] != group:
            parent[group] = parent[parent[group]]
            group = parent[group]
        return group

    first_with: dict[str, str] = {}
    for group, key in zip(groups, keys, strict=True):
        a, b = root(group), root(first_with.setdefault(key, group))
        parent[max(a, b)] = min(a, b)
    return [root(group) for group in groups]
