"""`gapless data phantom`: the embedded default data, drawn and written as a manifest.

write_phantom("phantom")      # 5,000 pairs of 64 x 64; test has 1,024
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gapless.core.errors import UsageError
from gapless.manifest.build import BuildOptions, build_manifest
from gapless.manifest.manifest import Manifest
from gapless.manifest.rows import RawRow
from gapless.manifest.verify import encode_png
from gapless.phantom.acquisition import draw_figure
from gapless.phantom.captions import write_caption
from gapless.phantom.cases import LABELS, Figure, articles
from gapless.phantom.waveform import draw_waveform

# 1,024 of 5,000 pairs are a gallery of the size that the demo reports.
TEST_SHARE = 0.2048
VALIDATION_SHARE = 0.0512
MIN_SIZE, MAX_SIZE = 16, 4096


@dataclass(frozen=True)
class DrawnSource:
    """An image that does not exist before it is read; the drawing is done by whichever process reads it."""

    figure: Figure
    size: int

    def read(self) -> bytes:
        return encode_png(draw_figure(self.figure, self.size))

    def key(self) -> str:
        return f"{self.figure.seed}|{self.figure.number}|{self.size}"


def write_phantom(
    out: str | Path,
    num_pairs: int = 5000,
    seed: int = 0,
    image_size: int = 64,
    num_validation: int | None = None,
    num_test: int | None = None,
    workers: int | None = None,
) -> Manifest:
    """Draw a procedural radiology set and write it as a manifest; the same bytes for the same arguments.

    Args:
        out: the manifest's directory; must be new.
        num_pairs: images in all; the splits share no article.
        seed: of everything random, 0 or more.
        image_size: side in pixels, 16 to 4,096.
        num_validation, num_test: exact sizes of these splits; by default 256 and 1,024 of 5,000, in proportion.
        workers: processes that draw and verify; None uses all cores.
    """
    if num_pairs < 1:
        raise UsageError(f"--num-pairs must be at least 1, got {num_pairs}")
    num_test = round(num_pairs * TEST_SHARE) if num_test is None else num_test
    num_validation = round(num_pairs * VALIDATION_SHARE) if num_validation is None else num_validation
    counts = {"train": num_pairs - num_validation - num_test, "validation": num_validation, "test": num_test}
    if min(counts.values()) < 0:
        raise UsageError(
            f"{num_pairs} pairs cannot be split into {num_validation} validation and {num_test} test pairs"
        )
    if not MIN_SIZE <= image_size <= MAX_SIZE:
        raise UsageError(f"the phantom draws images of {MIN_SIZE} to {MAX_SIZE} pixels, got {image_size}")
    if seed < 0:
        raise UsageError(f"--seed must be 0 or more, got {seed}")
    options = BuildOptions(
        source=f"phantom (seed {seed})",
        labels=LABELS,
        signals=("waveform",),
        licence="CC0-1.0",
        max_bad=0.0,
        workers=workers,
        details={"seed": seed, "image_size": image_size},
    )
    return build_manifest(_rows(counts, seed, image_size), out, options)


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
