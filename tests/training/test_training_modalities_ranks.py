"""Two gloo processes train images, texts, fields and waveforms of files through the real command."""

import json

import pytest
import yaml
from modality_run_samples import SETTINGS, absent, samples_manifest
from rank_processes import run_by_torchrun

from gapless.models.aligner import GaplessModel

pytestmark = pytest.mark.slow


def trained_by_two(folder, out, timeout):
    words = ["any-small", "--config", folder / "settings.yaml", "--data", folder / "M", "--out", out]
    return run_by_torchrun("-m", "gapless", "train", *words, timeout=timeout)


def test_ranks_share_statistics_and_none_waits_for_a_modality_that_a_batch_lacks(tmp_path):
    """Batches of two rows: many hold no ECG, or no image, on one rank or on both."""
    manifest = samples_manifest(tmp_path)
    training = {**SETTINGS["training"], "per_device_train_batch_size": 2, "num_train_epochs": 1}
    (tmp_path / "settings.yaml").write_text(yaml.safe_dump({**SETTINGS, "training": training}))
    done = trained_by_two(tmp_path, tmp_path / "run", timeout=400)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == len(manifest) // 4
    assert sum("ecg" in absent(number) for number in range(len(manifest))) > 10
    assert any(line.get("loss/skipped_pairs", 0) > 0 for line in lines)
    ages = [cell[0]["age"] for cell in manifest.cells("labs") if cell]
    fields = GaplessModel.from_pretrained(tmp_path / "run" / "model").config.modalities["labs"]["input"]["fields"]
    assert (fields["age"]["quantiles"][0], fields["age"]["quantiles"][-1]) == (min(ages), max(ages))
    # A refusal of the rank that reads the training rows ends both.
    manifest.views("ecg", manifest.rows_with("ecg")[0].item())[0].unlink()
    refused = trained_by_two(tmp_path, tmp_path / "refused", timeout=200)
    assert refused.returncode != 0
    assert "ecg: missing file" in refused.stderr
    assert not (tmp_path / "refused").exists()
