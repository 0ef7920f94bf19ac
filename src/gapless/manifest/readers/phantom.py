"""`gapless data phantom`: draws the phantom and writes it as a manifest.

write_phantom("phantom")      # 5,000 pairs of 64 x 64; test has 1,024
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gapless.core.errors import UsageError
from gapless.manifest.manifest import Manifest
from gapless.manifest.options import BuildOptions
from gapless.manifest.raw_rows import RawRow
from gapless.manifest.readers.base import READERS, Reader, ReaderOptions, Reading
from gapless.manifest.verify import encode_png
from gapless.phantom.acquisition import draw_figure
from gapless.phantom.captions import write_caption
from gapless.phantom.cases import LABELS, Figure, articles
from gapless.phantom.waveform import draw_waveform

# The test split of 5,000 pairs then has 1,024 pairs, the gallery size that the demo reports.
TEST_SHARE = 0.2048
VALIDATION_SHARE = 0.0512
MIN_SIZE, MAX_SIZE = 16, 4096


@dataclass(frozen=True)
class DrawnSource:
    """The source of an image that is drawn when it is read, in a worker process."""

    figure: Figure
    size: int

    def read(self) -> bytes:
        return encode_png(draw_figure(self.figure, self.size))

    def key(self) -> str:
        return f"{self.figure.seed}|{self.figure.number}|{self.size}"


@dataclass(frozen=True, kw_only=True)
class PhantomOptions(ReaderOptions):
    """Draw a procedural radiology set and write it as a manifest; the same bytes for the same arguments.

    Args:
        num_pairs: images in all; the splits share no article.
        seed: of everything random, 0 or more.
        image_size: side in pixels, 16 to 4,096.
        num_validation: exact size of this split; by default 256 of 5,000, in proportion.
        num_test: exact size of this split; by default 1,024 of 5,000, in proportion.
        workers: processes that draw and verify; None uses all cores.
    """

    num_pairs: int = 5000
    seed: int = 0
    image_size: int = 64
    num_validation: int | None = None
    num_test: int | None = None
    workers: int | None = None


def write_phantom(out: str | Path, num_pairs: int = 5000, **options: Any) -> Manifest:
    """Draw a procedural radiology set and write it as a manifest; the other options are those of `PhantomOptions`."""
    return READER.build([], out, num_pairs=num_pairs, **options)


def _draw(_: Sequence[str | Path], options: PhantomOptions) -> Reading:
    counts = _split_sizes(options)
    if not MIN_SIZE <= options.image_size <= MAX_SIZE:
        raise UsageError(f"the phantom draws images of {MIN_SIZE} to {MAX_SIZE} pixels, got {options.image_size}")
    if options.seed < 0:
        raise UsageError(f"--seed must be 0 or more, got {options.seed}")
    build = BuildOptions(
        source=f"phantom (seed {options.seed})",
        labels=LABELS,
        signals=("waveform",),
        licence="CC0-1.0",
        max_bad=0.0,
        workers=options.workers,
        details={"seed": options.seed, "image_size": options.image_size},
    )
    return Reading(_rows(counts, options.seed, options.image_size), build)


def _split_sizes(options: PhantomOptions) -> dict[str, int]:
    total, num_validation, num_test = options.num_pairs, options.num_validation, options.num_test
    if total < 1:
        raise UsageError(f"--num-pairs must be at least 1, got {total}")
    num_test = round(total * TEST_SHARE) if num_test is None else num_test
    num_validation = round(total * VALIDATION_SHARE) if num_validation is None else num_validation
    counts = {"train": total - num_validation - num_test, "validation": num_validation, "test": num_test}
    if min(counts.values()) < 0:
        raise UsageError(f"{total} pairs cannot be split into {num_validation} validation and {num_test} test pairs")
    return counts


def _rows(counts: Mapping[str, int], seed: int, image_size: int) -> Iterator[RawRow]:
    figures = articles(seed)
    for split, count in counts.items():
        missing = count
        while missing > 0:
            # An article at a boundary is cut short, never shared.
            article = next(figures)[:missing]
            missing -= len(article)
            for figure in article:
                yield _row(figure, split, image_size)


def _row(figure: Figure, split: str, image_size: int) -> RawRow:
    id = f"P{figure.number:06d}"
    return RawRow(
        origin=id,
        id=id,
        image=DrawnSource(figure, image_size),
        captions=[write_caption(figure)],
        split=split,
        group=f"article-{figure.group}",
        labels=figure.labels(),
        signals={"waveform": draw_waveform(figure).tolist()},
    )


READER = READERS.add(
    "phantom",
    Reader(
        "phantom",
        "the procedural radiology set -> manifest",
        PhantomOptions,
        _draw,
        source=None,
        example="data phantom --out phantom",
    ),
)
