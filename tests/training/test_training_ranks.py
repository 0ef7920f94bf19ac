"""Two gloo processes train one model through the real command; the loss sees the batches of both."""

import json
from pathlib import Path

import pytest
from rank_processes import run_by_torchrun

from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessModel
from gapless.training.closing import FOLLOWED, LEAST_MEASUREMENTS

pytestmark = pytest.mark.slow


def by_torchrun(*words):
    done = run_by_torchrun(*words)
    assert done.returncode == 0, done.stderr[-3000:]


def trained_by_two(data, out, *words):
    """The lines of the metrics of a run of two processes, with batches of 2 x 8 rows."""
    options = ["--training.use_cpu=true", "--training.num_train_epochs=2", "--training.per_device_train_batch_size=8"]
    by_torchrun("-m", "gapless", "train", "phantom-small", "--data", data.path, "--out", out, *options, *words)
    GaplessModel.from_pretrained(out / "model")
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_torchrun_writes_one_whole_run(tmp_path):
    data = write_phantom(tmp_path / "data", num_pairs=80, num_validation=10, num_test=10, image_size=32)
    lines = trained_by_two(data, tmp_path / "run")
    assert lines[-1]["step"] == 2 * (60 // 16)
    assert not list((tmp_path / "run").rglob("*partial*"))


def test_closing_follows_held_out_pairs_on_two_processes(tmp_path):
    """The first process measures: both have its weight, and the run says once how far closing went."""
    data = write_phantom(tmp_path / "data", num_pairs=160, num_validation=40, num_test=20, image_size=32)
    lines = trained_by_two(data, tmp_path / "run", "--method", "gapless-held-out")
    measured = [line for line in lines if "closing/readiness" in line]
    assert len(measured) >= LEAST_MEASUREMENTS
    assert all(0 <= line["closing/alignment_weight"] <= 8 for line in measured)
    followed = GaplessModel.from_pretrained(tmp_path / "run" / "model").config.loss[FOLLOWED]
    assert followed["alignment_weight"] == pytest.approx(measured[-1]["closing/alignment_weight"])


def test_several_processes_train_the_paper_s_encoders_under_checkpointing(tmp_path):
    """The pooler of BERT gets no gradient, for which DistributedDataParallel would wait."""
    script = Path(__file__).parent / "lora_ranks.py"
    by_torchrun(script, tmp_path)
    for name in ("roco-eva-bert", "roco-eva-bert-lora"):
        GaplessModel.from_pretrained(tmp_path / name / "model")


@pytest.mark.parametrize(("rank", "place"), [(0, "model"), (0, "random numbers"), (1, "random numbers")])
def test_a_save_that_fails_in_one_process_ends_both_with_its_words(tmp_path, rank, place):
    """The other process would wait for the next step of the first one, or say that the network failed.

    These are steps of transformers; those of gapless that follow are tested in test_training_first_rank.py.
    """
    data = write_phantom(tmp_path / "data", num_pairs=80, num_validation=10, num_test=10, image_size=32)
    script = Path(__file__).parent / "save_ranks.py"
    done = run_by_torchrun(script, data.path, tmp_path / "run", rank, place)
    assert done.returncode != 0
    failed = "the first process" if rank == 0 else "process 1"
    assert f"gapless: {failed} failed: OSError: [Errno 28] No space left on device" in done.stderr
    assert not list(tmp_path.rglob("*partial*"))
