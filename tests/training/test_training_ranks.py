"""Two gloo processes train one model through the real command; the loss sees the batches of both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel

pytestmark = pytest.mark.slow


def test_torchrun_writes_one_whole_run(tmp_path):
    data = write_phantom(tmp_path / "data", num_pairs=80, num_validation=10, num_test=10, image_size=32)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", "-m", "gapless"]
    command += ["train", "phantom-small", "--data", str(data.path), "--out", str(tmp_path / "run")]
    command += ["--training.use_cpu=true", "--training.num_train_epochs=2", "--training.per_device_train_batch_size=8"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] == 2 * (60 // 16)
    assert not list((tmp_path / "run").rglob("*partial*"))
    GaplessModel.from_pretrained(tmp_path / "run" / "model")


def test_several_processes_train_the_paper_s_encoders_under_checkpointing(tmp_path):
    """The pooler of BERT gets no gradient, for which DistributedDataParallel would wait."""
    script = Path(__file__).parent / "lora_ranks.py"
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node=2", "--standalone", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, str(tmp_path)], capture_output=True, text=True, timeout=600, env=environment, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for name in ("roco-eva-bert", "roco-eva-bert-lora"):
        GaplessModel.from_pretrained(tmp_path / name / "model")
