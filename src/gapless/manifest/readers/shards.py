"""`gapless data shards`: tar shards in the WebDataset convention.

Members that share a name up to the first dot of its last part are one sample: `0001.jpg`, `0001.txt` (the caption),
`0001.json` (caption, group, labels, split). Only plain local tar files are opened: no `pipe:`, no address, no pickle,
no link, no name that climbs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

from gapless.core.errors import UsageError, listed
from gapless.core.values import name_of, text_of
from gapless.manifest.manifest import Manifest
from gapless.manifest.modality_cells import CellRefused
from gapless.manifest.modality_spec import ModalitySpec
from gapless.manifest.options import MAX_BAD, BuildOptions, ImageOptions
from gapless.manifest.raw_rows import RawRow, faulty_row
from gapless.manifest.readers.base import (
    CAPTION_HELP,
    LABEL_HELP,
    MANY,
    READERS,
    Names,
    Option,
    Reader,
    ReaderOptions,
    Reading,
)
from gapless.manifest.readers.modality_options import KEEP, MODALITY_HELP, given_modalities, presence_options
from gapless.manifest.readers.passed_over import PassedOver
from gapless.manifest.readers.shard_files import Shard, find_shards
from gapless.manifest.readers.shard_members import (
    CAPTION_SUFFIXES,
    BadSample,
    MemberSource,
    cells_of_sample,
    text_member,
    text_of_member,
)
from gapless.manifest.readers.shard_views import check_members, json_rows, members_named, views_of_sample
from gapless.manifest.readers.tar_samples import IMAGE_SUFFIXES, Sample, read_samples
from gapless.manifest.survey import surveyed
from gapless.tables.tables import texts_of

CAPTION_KEY = "caption"
IMAGE_HELP = "suffix of the member to read as the image, where a sample has several: png"
# How many samples of each shard are looked at for a key that the JSON members may not all have.
SHARD_HEAD = 1000


@dataclass(frozen=True, kw_only=True)
class ShardOptions(ReaderOptions):
    """Build a manifest from tar shards; the images are copied into it.

    Args:
        image_keys: suffix of the member to read as the image ("png", "seg.png"), or several of which a sample has
            one; by default the only picture of a sample.
        caption_key: key of the caption in a sample's JSON, or the suffix of a text member, or several of them; by
            default the `.txt` member, and `caption` of the JSON where a sample has no text.
        modality: the modalities of a sample, each NAME=KIND:MEMBER[,param=value...], any of them absent; MEMBER is the
            suffix of a member (ecg.npy, report.txt) or, of texts, numbers and tables, a key of the JSON. `image_keys`
            and `caption_key` then stand for image=image:SUFFIX and text=text:KEY.
        missing: "keep" samples that lack a modality (the default with `modality`), or "drop" them.
        min_present: samples with fewer modalities are skipped and counted; by default 2.
        group_key: key in a sample's JSON of what must not be split; by default each image is its own group.
        label_keys: keys to keep as labels.
        split_key: key with train / validation / test; by default the source's split, else train.
        licence_key: key with each image's licence.
        licence: of the whole data set.
        max_bad: the largest share of bad rows.
        workers: processes that verify; None uses all cores.
        ray: address of a Ray cluster whose machines verify, "auto", or "local" for this machine's cores.
    """

    image_keys: Annotated[
        Names, Option("image_key", "suffix of the member to read as the image, where a sample has several: png")
    ] = ()
    caption_key: Annotated[Names, Option("caption_key", CAPTION_HELP)] = ()
    modality: Annotated[Names, Option("modality", MODALITY_HELP, is_divided=False)] = ()
    missing: str | None = None
    min_present: int | None = None
    group_key: str | None = None
    label_keys: Annotated[Names, Option("label_key", LABEL_HELP)] = ()
    split_key: str | None = None
    licence_key: str | None = None
    licence: str | None = None
    max_bad: float = MAX_BAD
    workers: int | None = None
    ray: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "image_keys", tuple(map(_image_suffix, self.image_keys)))
        object.__setattr__(self, "caption_key", tuple(key.removeprefix(".") for key in self.caption_key))

    def specs(self) -> tuple[ModalitySpec, ...]:
        """The modalities, none for samples of an image and captions. Raises UsageError."""
        shorthands = []
        if self.image_keys:
            shorthands.append(ModalitySpec("image", "image", self.image_keys))
        if self.caption_key:
            shorthands.append(ModalitySpec("text", "text", self.caption_key))
        if self.missing == KEEP and not self.modality and len(shorthands) < 2:
            raise UsageError("--missing keep needs the members by name: --modality, or --image-key and --caption-key")
        return given_modalities(self.modality, shorthands, self.label_keys, self.missing == KEEP)

    def named(self) -> list[str]:
        """The keys that some JSON member must have."""
        return [key for key in (self.group_key, *self.label_keys, self.split_key, self.licence_key) if key is not None]


def read_shards(sources: str | Path | Sequence[str | Path], out: str | Path, **options: Any) -> Manifest:
    """Build a manifest from tar shards, with the options of `ShardOptions`.

    Args:
        sources: `FILE` or `SPLIT=FILE`, uncompressed tar files; FILE may be a pattern (`{000..127}`, `*`).
        out: the manifest's directory; must be new.
        options: the fields of `ShardOptions`.

    Raises:
        UsageError: a missing file, one named twice, a `pipe:` or an address, no tar, a key that no sample has, `out` in
            use.
        DataRefused: a damaged shard, or too many bad rows.
    """
    return READER.build(sources, out, **options)


def _read(sources: Sequence[str | Path], options: ShardOptions) -> Reading:
    shards = find_shards(sources)
    specs = options.specs()
    presence = presence_options(specs, options.missing, options.min_present)
    _check_keys(shards, options, has_modalities=bool(specs))
    check_members(specs, shards, SHARD_HEAD)
    specs = surveyed(specs, lambda: json_rows(shards, specs))
    passed_over = PassedOver("members")
    build = BuildOptions(
        source=", ".join(shard.path.name for shard in shards),
        labels=options.label_keys,
        images=ImageOptions(modalities=specs),
        **presence,
        licence=options.licence,
        with_licence=options.licence_key is not None,
        max_bad=options.max_bad,
        workers=options.workers,
        ray=options.ray,
        details={"passed_over": passed_over.counts},
    )
    return Reading(_rows(shards, options, passed_over, specs), build)


def _image_suffix(key: str) -> str:
    suffix = key.removeprefix(".").lower()
    if suffix.rpartition(".")[2] not in IMAGE_SUFFIXES:
        raise UsageError(f"--image-key is the suffix of an image ({', '.join(IMAGE_SUFFIXES)}), got {key!r}")
    return suffix


def _check_keys(shards: Sequence[Shard], keys: ShardOptions, has_modalities: bool) -> None:
    """Refuse a key that no sample has, before any image is read; most often the first sample has them all."""
    missing = {*keys.named(), *(() if has_modalities else keys.caption_key)}
    keys_there: dict[str, None] = {}
    for shard in shards:
        if not missing:
            return
        with shard.path.open("rb") as stream:
            for sample in islice(read_samples(shard.path, PassedOver("members")), SHARD_HEAD):
                try:
                    cells = cells_of_sample(sample, stream)
                except BadSample:
                    continue
                keys_there.update(dict.fromkeys(cells))
                texts = {key for key in keys.caption_key if text_member(sample, key) is not None}
                missing -= cells.keys() | texts
                if not missing:
                    return
    if missing and shards:
        has = (
            f"they have {listed([repr(key) for key in keys_there], 40)}"
            if keys_there
            else "there is no JSON member with keys"
        )
        raise UsageError(f"no sample has the key {sorted(missing)[0]!r} in its JSON member; {has}")


def _rows(
    shards: Sequence[Shard], keys: ShardOptions, passed_over: PassedOver, specs: Sequence[ModalitySpec]
) -> Iterator[RawRow]:
    last: Sample | None = None
    for shard in shards:
        samples = read_samples(shard.path, passed_over, members_named(specs))
        if not samples:
            passed_over.add("empty, a shard without a sample", shard.path.name)
        with shard.path.open("rb") as stream:
            for sample in samples:
                origin = f"{shard.name}{shard.path.suffix}:{sample.number} ({sample.prefix[:80]})"
                id = f"{shard.name}/{sample.prefix}"
                try:
                    yield _row(sample, shard, keys, stream, origin, id, passed_over, specs)
                except CellRefused as fault:
                    yield faulty_row(origin, fault.reason, fault.detail, id)
                except BadSample as fault:
                    reason, detail = fault.args
                    if sample is samples[0] and last is not None and last.prefix == sample.prefix:
                        detail += "; the shard before ends with the same name: a sample must lie in one shard"
                    yield faulty_row(origin, reason, detail, id)
        last = samples[-1] if samples else None
    passed_over.say()


def _row(
    sample: Sample,
    shard: Shard,
    keys: ShardOptions,
    stream: Any,
    origin: str,
    id: str,
    passed_over: PassedOver,
    specs: Sequence[ModalitySpec],
) -> RawRow:
    """The row of a sample. Raises BadSample or CellRefused for one that cannot be used."""
    if sample.fault is not None:
        raise BadSample(*sample.fault)
    cells = cells_of_sample(sample, stream)
    content: dict[str, Any]
    if specs:
        views, used = views_of_sample(specs, sample, cells, shard, stream, id)
        content = {"views": views}
    else:
        suffix = _image_of(sample, keys.image_keys)
        image = sample.members[suffix]
        captions, text_suffixes = _captions(sample, cells, keys.caption_key, stream)
        used = {suffix, *text_suffixes}
        source = MemberSource(shard.path, image.name, image.offset, image.size)
        content = {"image": source, "image_name": id, "captions": captions}
    for suffix in sample.members.keys() - {"json", *used}:
        passed_over.add(f"not used, .{suffix}", f"{shard.path.name}: {sample.members[suffix].name}")
    try:
        return RawRow(
            origin=origin,
            id=id,
            **content,
            split=text_of(cells.get(keys.split_key)) if keys.split_key else shard.split,
            group=name_of(cells.get(keys.group_key)) if keys.group_key else None,
            labels={key: name_of(cells.get(key)) or None for key in keys.label_keys},
            licence=(text_of(cells.get(keys.licence_key)) or None) if keys.licence_key else None,
        )
    except ValueError as error:
        raise BadSample("malformed row", str(error)[:200]) from None


def _image_of(sample: Sample, wanted: Sequence[str]) -> str:
    """The suffix of the one image member."""
    pictures = [suffix for suffix in sample.members if suffix in (wanted or IMAGE_SUFFIXES)]
    if len(pictures) == 1:
        return pictures[0]
    if not pictures:
        suffixes = f"no member {' or '.join(f'.{suffix}' for suffix in wanted)}" if wanted else "no image"
        raise BadSample("missing image", f"{suffixes} among {sample.listed()}")
    both = " and ".join(f".{suffix}" for suffix in pictures)
    raise BadSample("two images", f"{both}: name the one to read, as in --image-key {pictures[0]}")


def _captions(
    sample: Sample, cells: Mapping[str, Any], keys: Sequence[str], stream: Any
) -> tuple[list[str], list[str]]:
    """(the captions, the suffixes of the text members that they are from)."""
    texts: list[str] = []
    suffixes: list[str] = []
    try:
        if not keys:
            suffixes = [suffix for suffix in sample.members if suffix in CAPTION_SUFFIXES]
            texts = [text_of_member(sample.members[suffix], stream) for suffix in suffixes]
            return (texts if any(map(str.strip, texts)) else texts_of(cells.get(CAPTION_KEY))), suffixes
        for key in keys:
            suffix = text_member(sample, key)
            if key in cells:
                texts += texts_of(cells[key])
            elif suffix is not None:
                texts.append(text_of_member(sample.members[suffix], stream))
                suffixes.append(suffix)
    except ValueError as error:
        raise BadSample("malformed row", str(error)[:200]) from None
    return texts, suffixes


READER = READERS.add(
    "shards",
    Reader(
        "shards",
        "tar shards (WebDataset) -> manifest",
        ShardOptions,
        _read,
        MANY,
        takes_several=True,
        example="data shards 'shards/{000..099}.tar' --out manifest",
    ),
)
