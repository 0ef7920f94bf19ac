"""The phantom: deterministic, of the promised make-up, and with evidence in its images for what its captions say."""

import hashlib
from collections import Counter, defaultdict
from itertools import pairwise

import numpy as np
import pytest

from gapless.core.errors import UsageError
from gapless.images.pixels import load_image
from gapless.manifest.readers.phantom import write_phantom
from gapless.phantom import vocabulary
from gapless.phantom.acquisition import draw_figure
from gapless.phantom.captions import write_caption
from gapless.phantom.cases import FINDINGS, MODALITY_TYPES, PROJECTIONS, REGIONS, articles
from gapless.phantom.waveform import draw_waveform


@pytest.fixture(scope="module")
def figures():
    drawn = []
    for article in articles(seed=0):
        drawn.extend(article)
        if len(drawn) >= 3000:
            return drawn


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return write_phantom(tmp_path_factory.mktemp("phantom") / "m", num_pairs=300, workers=1)


def directory_digest(path):
    digest = hashlib.sha256()
    for file in sorted(path.rglob("*")):
        if file.is_file():
            digest.update(f"{file.relative_to(path)}".encode() + file.read_bytes())
    return digest.hexdigest()


def test_the_same_seed_gives_the_same_bytes_whatever_the_workers(tmp_path):
    one = write_phantom(tmp_path / "a", num_pairs=60, workers=1)
    two = write_phantom(tmp_path / "b", num_pairs=60, workers=2)
    other = write_phantom(tmp_path / "c", num_pairs=60, seed=1, workers=1)
    assert directory_digest(one.path) == directory_digest(two.path)
    assert other.fingerprint != one.fingerprint


def test_the_splits_have_exact_sizes_and_share_no_article(tmp_path, manifest):
    assert manifest.rows_per_split() == {"train": 224, "validation": 15, "test": 61}
    exact = write_phantom(tmp_path / "m", num_pairs=50, num_validation=7, num_test=13, image_size=16, workers=1)
    assert exact.rows_per_split() == {"train": 30, "validation": 7, "test": 13}
    groups = defaultdict(set)
    for row in exact.table.select(["group", "split"]).to_pylist():
        groups[row["split"]].add(row["group"])
    assert not groups["train"] & groups["test"]
    assert not groups["train"] & groups["validation"]
    assert not groups["validation"] & groups["test"]


def test_the_default_holds_a_gallery_of_1024():
    from gapless.manifest.readers import phantom

    assert round(5000 * phantom.TEST_SHARE) == 1024


def test_it_has_three_modalities_and_seven_labels(manifest):
    assert manifest.modalities == ("image", "text", "waveform")
    assert manifest.labels == ("examination", "modality_type", "region", "finding", "side", "view", "size")
    kinds = zip(manifest.table["modality_type"].to_pylist(), manifest.table["region"].to_pylist(), strict=True)
    assert manifest.table["examination"].to_pylist() == [" ".join(parts) for parts in kinds]
    assert {len(signal) for signal in manifest.table["waveform"].to_pylist()} == {64}
    assert load_image(manifest.image_path(0)).shape == (64, 64)


def test_everything_that_was_asked_for_occurs(figures):
    assert {figure.modality_type for figure in figures} == set(MODALITY_TYPES)
    assert len(MODALITY_TYPES) >= 4
    assert {figure.region for figure in figures} == set(REGIONS)
    assert len(REGIONS) == 6
    assert {figure.finding for figure in figures} - {"normal"} == set(FINDINGS)
    assert len(FINDINGS) == 8
    sizes = Counter(Counter(figure.group for figure in figures).values())
    assert set(sizes) == {1, 2, 3, 4, 5}


def test_captions_have_the_lengths_of_roco(figures):
    captions = [write_caption(figure) for figure in figures]
    lengths = [len(caption) for caption in captions]
    assert 100 <= np.median(lengths) <= 130
    assert 300 <= np.percentile(lengths, 95) <= 360
    repeated = sum(count - 1 for count in Counter(captions).values())
    assert 0.01 < repeated / len(captions) < 0.10
    assert 0.15 < sum(" no " in f" {c.lower()}" or "negative for" in c.lower() for c in captions) / len(captions) < 0.6


def test_captions_claim_nothing_that_the_figure_does_not_have(figures):
    """Side words only when the side is visible; and never the opposite one."""
    for figure in figures:
        words = set(write_caption(figure).replace(".", " ").replace(",", " ").lower().split())
        if figure.side in ("left", "right"):
            opposite = {"left": {"right", "rt", "right-sided"}, "right": {"left", "lt", "left-sided"}}[figure.side]
            assert not words & opposite
        else:
            assert not words & {"left", "right", "lt", "rt", "left-sided", "right-sided"}
        if PROJECTIONS[figure.view] == "sagittal":
            assert figure.side in ("midline", "none")


def test_a_negation_never_denies_the_finding(figures):
    for figure in figures:
        caption = write_caption(figure).lower()
        for noun in vocabulary.NOUNS.get(figure.finding, ()):
            assert f"no {noun} " not in f"{caption} ".replace(".", " ")


def changed_share(figure, **changes):
    """How far apart two noise-free drawings are: mean absolute difference in grey levels."""
    quiet = type(figure.style)(**{**vars(figure.style), "noise": 0.01, "blur": 0.0, "margin": 0.0})
    a = type(figure)(**{**vars(figure), "style": quiet, "arrow": False})
    b = type(figure)(**{**vars(a), **changes})
    return np.abs(draw_figure(a, 64).astype(int) - draw_figure(b, 64).astype(int))


def test_the_image_shows_what_the_caption_says(figures):
    """Changing one attribute of a CT changes the drawing, and moving a finding moves it to the other half."""
    ct = [
        f for f in figures if f.modality_type == "CT" and f.side == "left" and f.finding == "mass" and f.size == "large"
    ]
    for figure in ct[:10]:
        assert changed_share(figure, region="chest" if figure.region != "chest" else "head").mean() > 5
        assert changed_share(figure, finding="calcification").max() > 40
        assert changed_share(figure, size="small").max() > 20
        both = changed_share(figure, side="right")
        # The patient's left is the image's right: both halves change, the mass leaves one and enters the other.
        assert both[:, :32].max() > 20
        assert both[:, 32:].max() > 20


def test_each_modality_has_its_own_noise():
    """Variance against signal: Poisson grows with it, Rician biases darkness upwards, speckle is multiplicative."""
    from gapless.phantom.acquisition import _mr, _ultrasound, _xray
    from gapless.phantom.cases import Style

    style = Style(0, 1, 1, 1.0, 0, False, "T1", 0, False, 1)
    rng = np.random.default_rng(0)
    dark, bright = np.full((64, 64), 0.1, np.float32), np.full((64, 64), 0.8, np.float32)
    ratio = _xray(bright, style, rng).var() / _xray(dark, style, rng).var()
    assert ratio == pytest.approx(0.77 / 0.14, rel=0.2)
    assert _mr(np.zeros((64, 64), np.float32), style, rng).mean() == pytest.approx(0.07 * np.sqrt(np.pi / 2), rel=0.05)
    echo = [np.expm1(_ultrasound(plane, style, rng)[30:34, 28:36] * np.log(7.0)) for plane in (dark, bright)]
    assert echo[1].std() / echo[0].std() == pytest.approx(8, rel=0.5)


def test_the_waveform_follows_the_finding(figures):
    """The dominant frequency rises with the finding's number, in spite of phase, drift and noise."""
    peaks = defaultdict(list)
    for figure in figures:
        spectrum = np.abs(np.fft.rfft(draw_waveform(figure)))[2:]
        peaks[figure.finding].append(2 + int(spectrum.argmax()))
    assert np.median(peaks["mass"]) < np.median(peaks["fracture"]) < np.median(peaks["device"])


def test_figures_of_an_article_share_a_style(figures):
    for figure, following in pairwise(figures):
        if figure.group == following.group:
            assert figure.style == following.style


@pytest.mark.parametrize("arguments", [{"num_pairs": 5, "num_test": 9}, {"num_pairs": 0}, {"image_size": 4}])
def test_impossible_sizes_are_refused(tmp_path, arguments):
    with pytest.raises(UsageError):
        write_phantom(tmp_path / "m", **arguments)
    assert not list(tmp_path.iterdir())
