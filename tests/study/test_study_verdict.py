"""The verdict in what `measure` prints, writes and gives back, and what closing would bring by held-out groups."""

import json

import numpy as np
import pytest

import gapless
from gapless.cli.main import main
from gapless.embeddings.embedding_set import EmbeddingSet
from gapless.study.prediction import predict


def rows(shift, n=240, dim=24, turned=False, seed=0):
    random = np.random.default_rng(seed)
    z = random.standard_normal((n, dim))
    w = z + 0.6 * random.standard_normal((n, dim))
    if turned:
        w = w @ np.linalg.qr(random.standard_normal((dim, dim)))[0]
    return {"image": (z + shift).astype(np.float32), "text": (w - shift).astype(np.float32)}


@pytest.fixture
def files(tmp_path):
    place = tmp_path / "my files"
    place.mkdir()
    for name, matrix in rows(0.8).items():
        np.save(place / f"{name}.npy", matrix)
    (place / "cases.txt").write_text("\n".join(f"case {row // 2}" for row in range(240)))
    return place


def test_measure_ends_with_three_sentences_that_name_the_files(files, capsys):
    words = [
        "measure",
        "--image",
        f"{files}/image.npy",
        "--text",
        f"{files}/text.npy",
        "--groups",
        f"{files}/cases.txt",
    ]
    assert main([*words, "--num_bootstrap", "20"]) == 0
    last = capsys.readouterr().out.strip().splitlines()[-3:]
    assert last[0].startswith("The gap is mainly a shift of the means")
    assert last[1].startswith("Closing it should help")
    given = f"--image '{files}/image.npy' --text '{files}/text.npy' --groups '{files}/cases.txt'"
    assert last[2].startswith(f"To close it: gapless close {given} --out CLOSED --method ")


def test_the_json_has_the_verdict_with_its_figures_and_the_prediction(files, capsys):
    words = ["measure", "--image", f"{files}/image.npy", "--text", f"{files}/text.npy", "--num_bootstrap", "20"]
    assert main([*words, "--json", "--predict"]) == 0
    verdict = json.loads(capsys.readouterr().out)["verdict"]
    assert verdict["kind"] == "shift"
    assert verdict["sentences"]["kind"]["figures"]["gap/true_pair_cosine"] < 0.5
    centred = verdict["prediction"]["center"]["gap/centroid_distance_unbiased"]
    assert centred["after"] < 0.2 < centred["before"]


def test_without_being_asked_nothing_is_predicted(files):
    from gapless.study.measured import measure_embeddings

    found = measure_embeddings({"image": files / "image.npy", "text": files / "text.npy"}, num_bootstrap=0)
    assert "prediction" not in found.verdict
    assert found.verdict["sentences"]["help"]["text"]


def test_a_map_is_foretold_to_undo_a_rotation_and_centring_is_not():
    turned = rows(0.0, n=600, turned=True)
    groups = [str(row // 2) for row in range(600)]
    foretold = predict(EmbeddingSet([str(row) for row in range(600)], turned, groups))
    recall = "retrieval/mean/R@10"
    assert foretold["cca"][recall]["after"] > foretold["cca"][recall]["before"] + 0.5
    assert abs(foretold["center"][recall]["after"] - foretold["center"][recall]["before"]) < 0.05
    assert foretold["cca"][recall]["low"] <= foretold["cca"][recall]["after"] <= foretold["cca"][recall]["high"]


def test_a_method_that_cannot_be_fitted_gives_its_reason_and_few_groups_predict_nothing():
    three = {**rows(0.5), "ecg": rows(0.1, seed=3)["image"]}
    foretold = predict(EmbeddingSet([str(row) for row in range(240)], three))
    assert "two modalities" in foretold["cca"]["reason"]
    assert foretold["center"]["gap/margin"]["after"] > 0
    assert predict(EmbeddingSet([str(row) for row in range(240)], rows(0.5), ["one"] * 240)) == {}


def test_the_report_of_a_measured_directory_shows_the_verdict(files, tmp_path):
    from gapless.study.measured import measure_embeddings

    arrays = {"image": files / "image.npy", "text": files / "text.npy"}
    measure_embeddings(arrays, num_bootstrap=20, out=tmp_path / "measured")
    gapless.report(tmp_path / "measured", out=tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "<h2>Verdict</h2>" in page
    assert "The gap is mainly a shift of the means" in page
