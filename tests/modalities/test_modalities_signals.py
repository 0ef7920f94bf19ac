"""The kinds waveform, audio and volume: statistics, masks, queries, default encoders with their gradients, ONNX."""

import io
import json
import os
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from PIL import Image
from signal_samples import npy_bytes

from gapless.core.errors import DataRefused, UsageError
from gapless.modalities.audio import AudioInput, AudioModality
from gapless.modalities.base import MODALITIES, build_modality
from gapless.modalities.volume import VolumeInput, VolumeModality
from gapless.modalities.waveform import WaveformInput, WaveformModality
from gapless.models.aligner import GaplessConfig, GaplessModel
from gapless.models.encoders import build_encoder
from gapless.models.export import export_onnx
from gapless.models.spec import encoder_spec, input_spec, with_encoder, with_fitted_input

SETTINGS = {
    "table": {"columns": ["age", "hb"]},
    "waveform": {"rate": 100, "seconds": 4, "channels": ["1", "2", "3"]},
    "audio": {"rate": 4000, "seconds": 1},
    "volume": {"depth": 4, "size": 32},
}


def fitted(name):
    """The mapping of a modality of a kind, fitted to made-up rows, with its default encoder."""
    mapping = {"input": {"kind": name, **SETTINGS[name]}}
    rows = build_modality(input_spec(mapping["input"])).sample(6, np.random.default_rng(1))
    return with_encoder(name, with_fitted_input(name, mapping, rows))


# ---- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SETTINGS)
def test_the_default_encoder_runs_forward_and_backward(name):
    mapping = json.loads(json.dumps(fitted(name)))
    kind = build_modality(input_spec(mapping["input"]))
    torch.manual_seed(0)
    encoder = build_encoder(encoder_spec(mapping["encoder"]))
    raws = kind.sample(3, np.random.default_rng(0))
    features = encoder(**kind.collate([kind.prepare(raw) for raw in raws]))
    assert features.shape == (3, encoder.output_size)
    features.square().sum().backward()
    # A parameter without a gradient would stall training on several ranks.
    assert [key for key, value in encoder.named_parameters() if value.grad is None] == []
    assert (features[0] - features[1]).abs().max() > 1e-4
    assert isinstance(kind.preview(raws[0]), str if name == "table" else bytes)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_row_of_a_batch_is_what_it_is_alone(name):
    mapping = fitted(name)
    kind = build_modality(input_spec(mapping["input"]))
    torch.manual_seed(0)
    encoder = build_encoder(encoder_spec(mapping["encoder"])).eval()
    prepared = [kind.prepare(raw) for raw in kind.sample(3, np.random.default_rng(0))]
    with torch.no_grad():
        together = encoder(**kind.collate(prepared))
        alone = torch.cat([encoder(**kind.collate([one])) for one in prepared])
    torch.testing.assert_close(together, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.ci
@pytest.mark.parametrize("name", SETTINGS)
def test_a_graph_of_each_kind_agrees_with_the_model(name, tmp_path):
    if not all(map(find_spec, ("onnx", "onnxruntime", "onnxscript"))):
        pytest.skip("onnx is not installed")
    torch.manual_seed(0)
    model = GaplessModel(GaplessConfig(modalities={name: fitted(name)}, embedding_dim=8))
    assert export_onnx(model, tmp_path / "onnx")[name] <= 1e-4


@pytest.mark.parametrize("name", ["waveform", "audio", "volume"])
def test_queries_are_paths_bytes_or_numbers(name, tmp_path):
    kind = build_modality(input_spec({"kind": name, **SETTINGS[name]}))
    array = np.zeros((2, 3, 4), dtype=np.float32)
    assert kind.parse_query(str(tmp_path)) == kind.parse_query(tmp_path) == tmp_path
    assert kind.parse_query(bytearray(b"x")) == b"x"
    assert kind.parse_query(array) is array
    for bad in ("", "a\0b", None, 3, np.array(["x"]), np.zeros(0)):
        with pytest.raises(UsageError):
            kind.parse_query(bad)
    assert kind.files(b"x") == []


def test_checking_items_of_the_new_kinds_needs_no_torch():
    import subprocess
    import sys

    program = "import sys; from gapless.modalities import table, waveform, audio, volume; import numpy as np; "
    program += "waveform.WaveformModality.check(np.ones((1, 9)), {'rate': 3}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=os.environ)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize("name", SETTINGS)
def test_a_parameter_that_nothing_reads_is_refused(name):
    with pytest.raises(UsageError, match=f"unknown parameter of the kind {name} 'rte'"):
        MODALITIES[name].check({}, {"rte": 500})


# ---- waveforms ------------------------------------------------------------------------------------------------------


def waveform(**settings):
    return WaveformModality(WaveformInput(**settings))


def test_statistics_are_those_of_all_numbers_of_a_channel():
    random = np.random.default_rng(0)
    rows = [random.normal([[3.0], [-50.0]], [[2.0], [10.0]], (2, 100)) for _ in range(20)]
    rows[3][0, :40] = np.nan
    fitted = WaveformModality.fit(WaveformInput(rate=100.0, seconds=1.0), rows)
    together = np.concatenate(rows, axis=1)
    np.testing.assert_allclose(fitted.mean, np.nanmean(together, axis=1), rtol=1e-5)
    np.testing.assert_allclose(fitted.std, np.nanstd(together, axis=1), rtol=1e-5)
    prepared = np.concatenate([WaveformModality(fitted).prepare(row) for row in rows], axis=1)
    np.testing.assert_allclose(np.nanmean(prepared, axis=1), 0, atol=1e-5)
    np.testing.assert_allclose(np.nanstd(prepared, axis=1), 1, atol=1e-5)


def test_a_channel_that_is_flat_everywhere_stays_finite():
    rows = [np.stack([np.full(100, 7.0), np.arange(100.0)]) for _ in range(3)]
    kind = WaveformModality(WaveformModality.fit(WaveformInput(rate=100.0, seconds=1.0), rows))
    assert kind.settings.std[0] == 1.0
    assert kind.prepare(rows[0])[0].tolist() == [0.0] * 100
    assert WaveformModality.check(rows[0], {"rate": 100})["flat"] == 1


def test_the_rate_is_that_of_the_training_rows_and_another_one_is_refused():
    from gapless.signals.signal import Signal

    rows = [Signal(np.random.default_rng(0).normal(size=(1, 720)).astype(np.float32), 360.0)] * 2
    kind = WaveformModality(WaveformModality.fit(WaveformInput(seconds=2.0), rows))
    assert kind.settings.rate == 360.0
    other = Signal(rows[0].values, 500.0)
    with pytest.raises(DataRefused, match="the file says 500 and 360 is asked for"):
        kind.prepare(other)
    assert waveform(rate=360.0, resample=True, seconds=1.0).prepare(other).shape == (1, 360)
    with pytest.raises(UsageError, match="says no rate"):
        WaveformModality.fit(WaveformInput(), [np.ones((1, 9))])
    with pytest.raises(UsageError, match="rate of the waveform is unknown"):
        waveform().prepare(np.ones((1, 9)))


def test_rows_of_other_channels_are_refused():
    rows = [np.random.default_rng(0).normal(size=(count, 50)) for count in (2, 3)]
    with pytest.raises(DataRefused, match="of 2 and of 3 channels"):
        WaveformModality.fit(WaveformInput(rate=50.0), rows)
    kind = WaveformModality(WaveformModality.fit(WaveformInput(rate=50.0), rows[:1]))
    with pytest.raises(DataRefused, match="it has 3, and the training rows have 2"):
        kind.prepare(rows[1])


def test_padding_and_gaps_are_masked():
    values = np.ones((2, 30))
    values[1, :10] = np.nan
    kind = waveform(rate=10.0, seconds=5.0)
    tensors = kind.collate([kind.prepare(values)])
    assert tensors["past_values"].shape == (1, 50, 2)
    assert tensors["past_observed_mask"][0, :, 0].tolist() == [1.0] * 30 + [0.0] * 20
    assert tensors["past_observed_mask"][0, :, 1].tolist() == [0.0] * 10 + [1.0] * 20 + [0.0] * 20
    assert tensors["past_values"][0, :10, 1].tolist() == [0.0] * 10


def encoder_of(settings, **config):
    torch.manual_seed(0)
    spec = WaveformModality.default_encoder(settings)
    return build_encoder(encoder_spec({**spec, "config": {**spec["config"], **config}})).eval()


def test_what_was_not_recorded_does_not_count_in_the_pooled_features():
    settings = WaveformInput(rate=64.0, seconds=1.0, channels=("1", "2"))
    encoder = encoder_of(settings, channel_attention=False, num_hidden_layers=0)
    inputs = {"past_values": torch.randn(1, 64, 2), "past_observed_mask": torch.ones(1, 64, 2)}
    whole = encoder(**inputs)
    inputs["past_observed_mask"][0, 32:, 1] = 0.0
    changed = {**inputs, "past_values": inputs["past_values"].clone()}
    changed["past_values"][0, 32:, 1] += 5.0
    with torch.no_grad():
        torch.testing.assert_close(encoder(**inputs), encoder(**changed))
        assert (encoder(**inputs) - whole).abs().max() > 1e-4  # the control: they counted before


def test_the_order_of_the_channels_matters_to_the_default_encoder():
    settings = WaveformInput(rate=64.0, seconds=1.0, channels=("1", "2"))
    values = torch.randn(1, 64, 2)
    for config, is_blind in (({}, False), ({"share_embedding": True}, True)):
        encoder = encoder_of(settings, **config)
        with torch.no_grad():
            difference = (encoder(past_values=values) - encoder(past_values=values.flip(2))).abs().max()
        assert (difference < 1e-4) == is_blind


def test_numbers_of_a_manifest_and_their_layouts():
    assert WaveformModality.check([1.0, 2.0], {"rate": 2})["seconds"] == 1.0
    assert WaveformModality.check([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], {})["channels"] == 2
    assert WaveformModality.check(npy_bytes(np.ones((500, 12))), {"layout": "time_channel", "rate": "500"}) == {
        "channels": 12,
        "rate": 500.0,
        "seconds": 1.0,
        "flat": 12,
        "clipped": 0,
    }
    for bad in (
        [[1.0], [2.0, 3.0]],
        [],
        ["a"],
        [None, 1.0],
        [1.0, float("inf")],
        [float("nan")] * 3,
        np.ones((1, 2, 3)),
    ):
        with pytest.raises(DataRefused):
            WaveformModality.check(bad, {})
    for settings in ({"rate": 0.0}, {"seconds": 0.0}, {"channels": ("a", "a")}, {"missing": "mask"}):
        with pytest.raises(UsageError):
            WaveformInput(**settings)


# ---- sounds and volumes ---------------------------------------------------------------------------------------------


def test_a_sound_is_mixed_resampled_and_normalised():
    kind = AudioModality(AudioInput(rate=1000.0, seconds=1.0))
    from gapless.signals.signal import Signal

    tone = np.sin(2 * np.pi * 50 * np.arange(1000) / 2000).astype(np.float32)
    prepared = kind.prepare(Signal(np.stack([3 * tone, -tone]) + 2, 2000.0))
    assert prepared.shape == (1000,)
    assert np.isnan(prepared[500:]).all()
    assert np.nanmean(prepared) == pytest.approx(0.0, abs=1e-5)
    assert np.nanstd(prepared) == pytest.approx(1.0, abs=1e-4)
    np.testing.assert_allclose(prepared[50:450], np.sqrt(2) * tone[100:900:2], atol=0.03)
    tensors = kind.collate([prepared])
    assert tensors["attention_mask"].sum() == 500
    assert tensors["input_values"][0, 500:].abs().max() == 0
    with pytest.raises(DataRefused, match="the file says 2000"):
        AudioModality(AudioInput(rate=1000.0, resample=False)).prepare(Signal(tone[None], 2000.0))


def test_padding_of_a_sound_has_no_weight_in_its_features():
    kind = AudioModality(AudioInput(rate=4000.0, seconds=1.0))
    torch.manual_seed(0)
    encoder = build_encoder(encoder_spec(AudioModality.default_encoder(kind.settings))).eval()
    inputs = kind.collate([kind.prepare(kind.sample(1, np.random.default_rng(0))[0])])
    inputs["attention_mask"][0, 2000:] = 0
    inputs["input_values"][0, 2000:] = 0
    loud = {**inputs, "input_values": inputs["input_values"].clone()}
    loud["input_values"][0, 2400:] = 3.0  # beyond the reach of the convolutions over the edge
    with torch.no_grad():
        features, changed = encoder(**inputs), encoder(**loud)
        loud["attention_mask"] = torch.ones_like(loud["attention_mask"])
        unmasked = encoder(**loud)
    assert (features - changed).abs().max() < 0.05 * (features - unmasked).abs().max()


def test_a_preview_of_a_volume_is_its_middle_slice_in_proportion():
    voxels = np.zeros((5, 40, 40), dtype=np.float32)
    voxels[2, 10:30, 10:30] = 100.0
    picture = Image.open(io.BytesIO(VolumeModality(VolumeInput(voxel=(3.0, 2.0, 1.0))).preview(voxels)))
    assert picture.width * 2 == picture.height == 160
    pixels = np.asarray(picture.convert("L"))
    assert pixels[80, 40] > 200 > 50 > pixels[5, 5]


def test_settings_of_volumes_are_checked():
    for settings in ({"spacing": (1.0,)}, {"spacing": (1.0, 0.0, 1.0)}, {"window": (40.0, 0.0)}, {"depth": 0}):
        with pytest.raises(UsageError):
            VolumeInput(**settings)
    with pytest.raises(UsageError, match="depth must be a multiple of 2 and size of 16"):
        VolumeModality.default_encoder(VolumeInput(depth=3))
    assert VolumeModality.check(np.ones((2, 3, 4)), {"voxel": "3/1/1", "window": "-600/1500"})["depth_mm"] == 3.0
    with pytest.raises(UsageError, match="window of the kind volume cannot be 'wide'"):
        VolumeModality.check(np.ones((2, 3, 4)), {"window": "wide"})
