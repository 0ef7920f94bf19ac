"""Resampling against tones, gaps, lengths, and the names of channels."""

import io

import numpy as np
import pytest
from PIL import Image

from gapless.signals.drawing import HEIGHT, WIDTH, draw_curves
from gapless.signals.limits import FileRefused
from gapless.signals.resampling import at_rate, of_length, piece, resampled
from gapless.signals.signal import Signal, check_values, is_clipped, is_flat


def tone(rate, seconds=4.0, hertz=5.0):
    return np.sin(2 * np.pi * hertz * np.arange(round(rate * seconds)) / rate)[None].astype(np.float32)


@pytest.mark.parametrize(
    ("old", "new"), [(360, 500), (500, 360), (1000, 250), (128, 500), (44100, 16000), (250, 249.5)]
)
def test_a_tone_stays_that_tone_without_delay(old, new):
    changed = resampled(tone(old), old, new)
    expected = tone(new)
    count = min(changed.shape[1], expected.shape[1])
    assert abs(changed.shape[1] - expected.shape[1]) <= 2
    edge = round(0.2 * new)  # the filter's ends
    np.testing.assert_allclose(changed[:, edge : count - edge], expected[:, edge : count - edge], atol=0.01)


def test_what_is_above_the_new_rate_vanishes_instead_of_turning_into_a_low_tone():
    fast = tone(1000, hertz=180.0)
    assert np.abs(resampled(fast, 1000, 200)[:, 40:-40]).max() < 0.02
    assert np.abs(fast[:, ::5][:, 40:-40]).max() > 0.9  # the control: every fifth sample alone


def test_gaps_stay_gaps_and_leave_the_rest_as_it_is():
    values = tone(360)
    values[0, 360:720] = np.nan
    changed = resampled(values, 360, 500)
    assert np.isnan(changed).mean() == pytest.approx(0.25, abs=0.005)
    assert np.isnan(changed[0, 505:995]).all()
    np.testing.assert_allclose(changed[0, 1100:1800], tone(500)[0, 1100:1800], atol=0.01)


def test_a_wrong_rate_is_refused_by_name_unless_resampling_is_asked_for():
    signal = Signal(tone(360), 360.0)
    with pytest.raises(FileRefused, match="the file says 360 and 500 is asked for"):
        at_rate(signal, 500.0, is_allowed=False)
    assert at_rate(signal, 500.0, is_allowed=True).values.shape == (1, 2000)
    assert at_rate(signal, 360.0, is_allowed=False).values is signal.values


def test_lengths():
    values = np.arange(10, dtype=np.float32)[None]
    assert of_length(values, 4, "start").tolist() == [[0, 1, 2, 3]]
    assert of_length(values, 4, "centre").tolist() == [[3, 4, 5, 6]]
    padded = of_length(values, 12, "centre")
    assert padded[0, :10].tolist() == values[0].tolist()
    assert np.isnan(padded[0, 10:]).all()
    with pytest.raises(FileRefused):
        of_length(values, 2**26, "start")


@pytest.mark.parametrize("crop", ["start", "centre"])
def test_a_piece_of_a_long_recording_gives_what_the_whole_gives(crop):
    values = np.random.default_rng(0).normal(size=(2, 100_000)).astype(np.float32)
    whole = of_length(resampled(values, 1000, 250), 500, crop)
    cut = at_rate(piece(Signal(values, 1000.0), 2.0, crop), 250.0, is_allowed=True).values
    inner = slice(20, -20)
    np.testing.assert_allclose(of_length(cut, 500, crop)[:, inner], whole[:, inner], atol=1e-2)


def test_flat_clipped_and_empty_channels():
    random = np.random.default_rng(0)
    noise, saw = random.normal(size=200), np.clip(3 * np.sin(np.arange(200) / 5), -2, 2)
    values = np.stack([np.zeros(200), noise, saw, np.full(200, np.nan)]).astype(np.float32)
    assert is_flat(values).tolist() == [True, False, False, True]
    assert is_clipped(values).tolist() == [False, False, True, False]
    with pytest.raises(FileRefused, match="no sample"):
        check_values(Signal(values[3:], 1.0))
    values[1, 5] = np.inf
    with pytest.raises(FileRefused, match="in channel 2 of 4"):
        check_values(Signal(values, 1.0))


@pytest.mark.parametrize(
    "values", [tone(360), np.zeros((3, 5)), np.full((2, 900), np.nan), np.ones((40, 1)), tone(9, 9)]
)
def test_curves_are_drawn_without_metadata(values):
    picture = Image.open(io.BytesIO(draw_curves(values.astype(np.float32))))
    assert picture.size == (WIDTH, HEIGHT)
    assert not picture.getexif()
    has_ink = np.asarray(picture.convert("L")).min() < 128
    assert has_ink == bool(np.isfinite(values).any())
