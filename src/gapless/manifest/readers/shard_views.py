"""The modalities of a sample of a shard: members by their suffix, and keys of its JSON member.

A file is a member (`ecg.npy`); a text is a member or a key; numbers and the fields of a table are keys.
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from gapless.core.errors import UsageError
from gapless.manifest.modality_cells import FileView, views_of
from gapless.manifest.modality_spec import ModalitySpec, nearest
from gapless.manifest.readers.passed_over import PassedOver
from gapless.manifest.readers.shard_files import Shard
from gapless.manifest.readers.shard_members import (
    BadSample,
    MemberSource,
    cells_of_sample,
    text_member,
    text_of_member,
)
from gapless.manifest.readers.tar_samples import NUMPY_SUFFIX, PICKLE_SUFFIXES, Member, Sample, read_samples
from gapless.modalities.base import FILES, TEXTS


def _suffix(column: str) -> str:
    return column.removeprefix(".").lower()


def members_named(specs: Sequence[ModalitySpec]) -> frozenset[str]:
    """The suffixes of the members that are read as files."""
    return frozenset(_suffix(column) for spec in specs if spec.form == FILES for column in spec.columns)


def check_members(specs: Sequence[ModalitySpec], shards: Sequence[Shard], head: int) -> None:
    """Refuse a member or key that no sample has, before anything is built; `head` samples of each shard are looked at.

    Raises:
        UsageError: naming it, and the nearest that is there; or a member that may hold code.
    """
    for suffix in members_named(specs):
        kind = suffix.rpartition(".")[2]
        if kind in PICKLE_SUFFIXES and kind != NUMPY_SUFFIX:
            raise UsageError(f"a member .{suffix} may hold code and is not read; save the array as .{NUMPY_SUFFIX}")
    missing = {(spec.name, column) for spec in specs for column in spec.columns}
    there: dict[str, None] = {}
    for shard in shards:
        with shard.path.open("rb") as stream:
            samples = read_samples(shard.path, PassedOver("members"), members_named(specs))
            for sample in islice(samples, head):
                if not missing:
                    return
                try:
                    cells = cells_of_sample(sample, stream)
                except BadSample:
                    continue
                there.update(dict.fromkeys([*sample.members, *cells]))
                missing -= {(s.name, c) for s in specs for c in s.columns if _has(s, c, sample, cells)}
    for spec in specs:
        for column in spec.columns:
            if (spec.name, column) in missing:
                what = "member" if spec.form == FILES else "member or key" if spec.form == TEXTS else "key in its JSON"
                raise UsageError(
                    f"no sample has the {what} {column!r} for the modality {spec.name!r}{nearest(column, list(there))}"
                )


def _has(spec: ModalitySpec, column: str, sample: Sample, cells: Mapping[str, Any]) -> bool:
    if spec.form == FILES:
        return _suffix(column) in sample.members
    return column in cells or (spec.form == TEXTS and text_member(sample, column) is not None)


def views_of_sample(
    specs: Sequence[ModalitySpec], sample: Sample, cells: Mapping[str, Any], shard: Shard, stream: Any, id: str
) -> tuple[dict[str, tuple[Any, ...]], set[str]]:
    """(the views of the modalities that a sample has, the suffixes of the members that they are read from).

    Raises:
        CellRefused: a key that holds nothing of its kind. BadSample: a text member that is not UTF-8.
    """
    used: set[str] = set()

    def find_file(member: Any) -> FileView | None:
        if not isinstance(member, Member):
            return None
        source = MemberSource(shard.path, member.name, member.offset, member.size)
        return FileView(source, member.name.rpartition("/")[2])

    views: dict[str, tuple[Any, ...]] = {}
    for spec in specs:
        found: dict[str, Any] = {}
        for column in spec.columns:
            suffix = _suffix(column) if spec.form == FILES else None
            if spec.form == TEXTS and column not in cells:
                suffix = text_member(sample, column)
            if suffix is None or suffix not in sample.members:
                found[column] = None if spec.form == FILES else cells.get(column)
                continue
            used.add(suffix)
            member = sample.members[suffix]
            found[column] = member if spec.form == FILES else text_of_member(member, stream)
        if those := views_of(spec, found, find_file):
            views[spec.name] = those
    return views, used


def json_rows(shards: Sequence[Shard], specs: Sequence[ModalitySpec]) -> Iterator[Mapping[str, Any]]:
    """The JSON of every sample."""
    for shard in shards:
        with shard.path.open("rb") as stream:
            for sample in read_samples(shard.path, PassedOver("members"), members_named(specs)):
                try:
                    yield cells_of_sample(sample, stream)
                except BadSample:
                    continue
