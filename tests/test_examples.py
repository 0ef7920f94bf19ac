"""Every example runs as its first lines say, in a process of its own, and does what it claims."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_server import shared_server

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *options: str) -> str:
    """What an example prints on stdout."""
    done = shared_server().run(EXAMPLES / name, *options)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def figure(output: str, line: str, key: str) -> float:
    """A number of the line that starts with `line`."""
    found = re.search(rf"^{line} .*{re.escape(key)} (-?[\d.]+)", output, re.MULTILINE)
    assert found is not None, output
    return float(found.group(1))


def needs(*packages: str) -> None:
    for package in packages:
        pytest.importorskip(package, reason=f"{package} is not installed")


def test_a_plain_loop_closes_the_gap_that_clip_leaves() -> None:
    told = run("pytorch_loop.py", "--steps", "150")
    distance = "gap/centroid_distance_unbiased"
    assert figure(told, "gapless", distance) < figure(told, "clip", distance)
    assert figure(told, "gapless", "retrieval/mean/R@10") > 0.9


DISTANCE = "gap/centroid_distance_unbiased"
QUICK = ("--pairs", "400", "--epochs", "6")


def closes_the_gap_that_clip_leaves(told: str) -> None:
    """Under `gapless` the centroids are less than half as far apart as under `clip`, and true pairs are much closer."""
    assert figure(told, "gapless", DISTANCE) < 0.5 * figure(told, "clip", DISTANCE)
    assert figure(told, "gapless", "gap/true_pair_cosine") > figure(told, "clip", "gap/true_pair_cosine") + 0.2


@pytest.mark.ci
def test_the_trainer_of_sentence_transformers_closes_the_gap_that_clip_leaves() -> None:
    needs("sentence_transformers", "datasets")
    closes_the_gap_that_clip_leaves(run("sentence_transformers_loss.py", *QUICK))


@pytest.mark.ci
def test_the_trainer_of_open_clip_closes_the_gap_that_clip_leaves() -> None:
    needs("open_clip", "torchvision", "braceexpand", "webdataset", "pandas")
    told = run("open_clip_loss.py", *QUICK)
    closes_the_gap_that_clip_leaves(told)
    assert "Contrastive_loss" in told
    assert "Gap_loss" in told


@pytest.mark.ci
def test_lightning_closes_the_gap_that_clip_leaves() -> None:
    needs("lightning", "torchmetrics")
    closes_the_gap_that_clip_leaves(run("lightning_module.py", *QUICK))


@pytest.mark.slow
def test_the_caption_study_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """A second call with one more arm trains that arm alone; both tables hold methods, baselines and differences."""
    import json

    from gapless.manifest.readers.phantom import write_phantom

    write_phantom(tmp_path / "m", num_pairs=120, num_validation=20, num_test=30, image_size=16)
    quick = "--training.num_train_epochs 1 --training.per_device_train_batch_size 32"
    words = [tmp_path / "m", tmp_path / "out", "--recipe", "phantom-small", "--seeds", "1", "--num_bootstrap", "20"]
    words += ["--aligner_options", quick, "--caption_options", f"{quick} --max_tokens 12"]
    told = run("caption_study.py", *map(str, words), "--arms", "text")
    for part in (
        "| text | clip |",
        "| nearest text | gapless |",
        "| constant caption |",
        "text: gapless - clip",
        "loss, text",
    ):
        assert part in told
    assert "not for diagnosis" in told
    runs = tmp_path / "out" / "captioners"
    before = {path: path.stat().st_mtime_ns for path in runs.rglob("model.safetensors")}
    told = run("caption_study.py", *map(str, words), "--arms", "text,joint")
    assert "| joint | gapless |" in told
    assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    assert "not for diagnosis" in (tmp_path / "out" / "captions.html").read_text()
    study = json.loads((tmp_path / "out" / "study.json").read_text())
    assert "low" in study["differences"]["text: gapless - clip"]["loss/image"]


@pytest.mark.ci
def test_a_mixed_search_finds_texts_first_under_clip_and_less_so_under_gapless() -> None:
    needs("lancedb")
    small = ["--modalities.image.input.size=32", "--modalities.text.encoder.config.num_hidden_layers=1"]
    told = run("mixed_search.py", "--num_pairs", "500", "--epochs", "8", "--batch_size", "32", *small)
    assert figure(told, "clip", "texts in the first 10") > figure(told, "gapless", "texts in the first 10") > 0.5
    assert figure(told, "clip", "mixed/modality_bias") > figure(told, "gapless", "mixed/modality_bias")
    assert figure(told, "clip", "mixed/R@10") < figure(told, "gapless", "mixed/R@10")
    # The search and `measure` count the same neighbours: 102 images and 101 other texts, bias is over that share.
    for method in ("clip", "gapless"):
        bias = figure(told, method, "texts in the first 10") - 101 / 203
        assert figure(told, method, "mixed/modality_bias/text") == pytest.approx(bias, abs=0.0011)


def test_the_loss_of_open_clip_is_ours_at_open_clips_temperature(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter changes nothing: same terms, same gradient, the temperature's included."""
    import torch

    from gapless import GapClosingLoss

    monkeypatch.syspath_prepend(str(EXAMPLES))
    from open_clip_loss import OpenClipGapLoss

    random = torch.Generator().manual_seed(0)
    rows = [torch.nn.functional.normalize(torch.randn(12, 8, generator=random), dim=-1) for _ in range(2)]
    image, text = (one.clone().requires_grad_() for one in rows)
    log_scale = torch.tensor(2.0, requires_grad=True)
    total = OpenClipGapLoss()(image, text, log_scale.exp())
    total.backward()
    ours = GapClosingLoss(anchor="text")
    with torch.no_grad():
        ours.logit_scale.fill_(2.0)
    image2 = rows[0].clone().requires_grad_()
    expected = ours({"image": image2, "text": rows[1]}).total
    expected.backward()
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(image.grad, image2.grad)
    torch.testing.assert_close(log_scale.grad, ours.logit_scale.grad)
    parts = OpenClipGapLoss()(image, text, log_scale.exp(), output_dict=True)
    torch.testing.assert_close(sum(parts.values()), expected)


def medpix_lookalike(home: Path) -> Path:
    """The files that the study reads, drawn: 3 rows a case, features that share a part."""
    import json

    import numpy as np
    from fakes import write_images

    random = np.random.default_rng(0)
    for part, num_cases in (("train", 50), ("dev", 12)):
        (home / part).mkdir(parents=True)
        files = write_images(home / part, 3 * num_cases)
        shared = random.normal(size=(num_cases, 8)).repeat(3, axis=0)
        features = {
            name: np.concatenate([shared, random.normal(size=(len(shared), size))], axis=1).astype(np.float32)
            for name, size in (("image", 12), ("text", 6))
        }
        np.savez(home / f"features_{part}.npz", **features)
        rows = [
            {
                "image": str(file.relative_to(home)),
                "caption": f"finding {row} of case {row // 3}",
                "case": f"{part} {row // 3}",
                "location_category": "head" if row % 2 else "thorax",
            }
            for row, file in enumerate(files)
        ]
        (home / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return home


@pytest.mark.ci
def test_the_recipe_study_chooses_on_held_back_cases_and_reports_on_others(tmp_path: Path) -> None:
    medpix = medpix_lookalike(tmp_path)
    files = [str(medpix / name) for name in ("features_train.npz", "train.jsonl")]
    chosen = run("recipe_study.py", *files, "--seeds", "2", "--arms", "clip;ramp 16, 1")
    assert [line.split(" | ")[0].strip() for line in chosen.splitlines()] == ["arm", "clip", "ramp 16, 1"]
    test = ["--test", str(medpix / "features_dev.npz"), str(medpix / "dev.jsonl")]
    told = run("recipe_study.py", *files, *test, "--seeds", "2", "--arms", "clip;gapless")
    assert "gapless minus clip, 95 % interval over groups" in told
    assert re.search(r"gap/true_pair_cosine +\+[\d.]+ \[", told)


@pytest.mark.slow
def test_the_whole_study_runs_and_goes_on(tmp_path: Path) -> None:
    medpix = medpix_lookalike(tmp_path / "medpix")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "OMP_NUM_THREADS": "1", "SEEDS": "1", "PAIRS": "420", "EPOCHS": "1"}
    command = ["bash", str(EXAMPLES / "study.sh"), str(medpix), str(tmp_path / "out")]
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900, env=environment)
        assert done.returncode == 0, done.stderr[-3000:]
        assert done.stdout.count("gapless-published") >= 4
    assert "gapless-published" in (tmp_path / "out" / "report.html").read_text()


@pytest.mark.ci
def test_the_verdict_study_sets_what_is_foretold_beside_what_is_obtained(tmp_path: Path) -> None:
    import json

    out, plot = tmp_path / "verdict.json", tmp_path / "verdict.png"
    run("verdict_study.py", "--limit", "4", "--methods", "center", "--out", str(out), "--plot", str(plot))
    study = json.loads(out.read_text())
    assert [one["verdict"]["kind"] for one in study["sets"]] == ["closed", "shift", "shift", "shift"]
    gap = study["summary"]["rank correlation"]["gap/centroid_distance_unbiased"]
    assert gap["predict"]["value"] > 0.9
    assert plot.stat().st_size > 1000
