"""Captions from any modalities to any text: which rows count, how sources are joined, what is refused."""

import json

import numpy as np
import pytest
import torch
from data_samples import noise_image
from fakes import tiny_modalities

from gapless.captioning import metrics as captioning
from gapless.captioning.captioner import Captioner
from gapless.captioning.data import feature_batches, sources_of
from gapless.captioning.route import Route, joined, route_of, usable_rows
from gapless.cli.main import main
from gapless.core.errors import UsageError
from gapless.manifest.manifest import Manifest
from gapless.models.aligner import GaplessModel
from gapless.training.recipes import Recipe
from gapless.training.run import new_model

NUM_ROWS = 40
DECODER = ["--decoder.hidden_size=24", "--decoder.num_attention_heads=2", "--decoder.num_hidden_layers=1"]
TRAIN = [*DECODER, "--training.num_train_epochs=1", "--training.per_device_train_batch_size=4", "--max_tokens=12"]
TRAIN += ["--training.logging_steps=1"]


def lacks(row):
    """What a row of the table lacks."""
    absent = {"image": row % 4 == 1, "history": row % 3 == 0, "findings": row % 10 == 4, "labs": row % 2 == 1}
    return {name for name, is_absent in absent.items() if is_absent}


def table_rows(home):
    for row in range(NUM_ROWS):
        cells = {"history": f"cough since {row} days", "findings": f"opacity {row} left", "impression": f"sign {row}"}
        noise_image(row).save(home / f"{row}.png")
        cells["image"] = f"{row}.png"
        cells["labs"] = [float(row), 1.0, 2.0, 3.0]
        split = "test" if row % 5 == 4 else "validation" if row % 5 == 3 else "train"
        yield {k: v for k, v in cells.items() if k not in lacks(row)} | {"group": f"g{row}", "split": split}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A manifest of version 2, a model of image, history and impression, and a captioner of image and history."""
    home = tmp_path_factory.mktemp("route")
    (home / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table_rows(home)))
    kinds = ["image=image:image", "history=text:history", "findings=text:findings", "impression=text:impression"]
    words = [word for kind in [*kinds, "labs=vector:labs"] for word in ("--modality", kind)]
    done = run("data", "table", home / "t.jsonl", "--out", home / "m", *words, "--group-key=group", "--split-key=split")
    assert done == 0
    usual = tiny_modalities()
    modalities = {"image": usual["image"], "history": usual["text"], "impression": usual["text"]}
    recipe = Recipe(modalities=modalities, embedding_dim=24, vocab_size=200, anchor="history")
    torch.manual_seed(0)
    new_model(recipe, ["cough since days opacity left sign 0 1 2 3 4 5 6 7 8 9"]).save_pretrained(home / "aligner")
    words = [
        "caption",
        "train",
        home / "aligner",
        "--data",
        home / "m",
        "--from",
        "image=2,history",
        "--to",
        "findings",
    ]
    assert run(*words, "--out", home / "run", *TRAIN) == 0
    return home


@pytest.fixture(autouse=True)
def without_java(monkeypatch):
    monkeypatch.setattr(captioning, "java", lambda: None)


def run(*words):
    return main([str(word) for word in words])


def said(capsys, *words, code):
    capsys.readouterr()
    found = run(*words)
    captured = capsys.readouterr()
    assert found == code, captured.err
    return captured.err.strip().splitlines()[-1] if code else captured


def test_sources_are_joined_by_the_weighted_mean_of_what_a_row_has(place):
    """The reference encodes each cell by itself."""
    model = Captioner.from_pretrained(place / "run" / "model").train(False)
    assert model.route == Route({"image": 2.0, "history": 1.0}, "findings")
    rows = usable_rows(Manifest.read(place / "m").select("test"), model.route, needs_target=False)[0]
    expected, used = [], []
    cells = {name: rows.cells(name) for name in ("image", "history")}
    for row in range(len(rows)):
        total, names = torch.zeros(24), []
        for name, weight in (("image", 2.0), ("history", 1.0)):
            if cells[name][row] is not None:
                total += weight * model.aligner.encode(name, [cells[name][row][0]])[0]
                names.append(name)
        expected.append(total / total.norm())
        used.append(names)
    found = list(feature_batches(model, sources_of(model, rows), batch_size=3))
    torch.testing.assert_close(torch.cat([one[1][0] for one in found]), torch.stack(expected), atol=1e-5, rtol=0)
    assert [sorted(names) for one in found for names in one[2]] == [sorted(names) for names in used]
    assert {len(names) for names in used} == {1, 2}


def test_rows_are_counted_by_what_they_lack(place):
    rows = Manifest.read(place / "m")
    _, counts = usable_rows(rows, Route({"image": 1.0, "history": 1.0}, "findings"))
    no_target = [row for row in range(NUM_ROWS) if "findings" in lacks(row)]
    no_source = [row for row in range(NUM_ROWS) if {"image", "history"} <= lacks(row) and row not in no_target]
    assert counts == {"target": len(no_target), "sources": len(no_source)}
    assert usable_rows(rows, Route({"labs": 1.0}, "impression"))[1]["sources"] == NUM_ROWS // 2


def test_generate_and_evaluate_stand_on_the_rows_that_have_something(place, tmp_path, capsys):
    out = tmp_path / "c.jsonl"
    words = ["caption", "generate", place / "run", "--data", place / "m", "--method", "greedy", "--out", out]
    captured = said(capsys, *words, "--json", code=0)
    test = [row for row in range(NUM_ROWS) if row % 5 == 4]
    able = [row for row in test if not {"image", "history"} <= lacks(row)]
    assert len(able) < len(test)
    assert json.loads(captured.out)["left_out"] == len(test) - len(able)
    assert f"{len(test) - len(able)} of {len(test)} test rows are left out" in captured.err
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert len(lines) == len(able)
    own = [{"image", "history"} - lacks(row) for row in able]
    assert [set(line["from"]) for line in lines] == own
    assert {line["to"] for line in lines} == {"findings"}
    beside = json.loads((tmp_path / "c.jsonl.json").read_text())
    assert (beside["from"], beside["to"]) == ({"image": 2.0, "history": 1.0}, "findings")
    judge = ["--judge", place / "aligner", "--num_bootstrap", "0", "--json"]
    scores = json.loads(said(capsys, "caption", "evaluate", out, "--data", place / "m", *judge, code=0).out)
    scored = [row for row in able if "findings" not in lacks(row)]
    assert scores["n"] == scores["gallery_size"] == len(scored)
    assert (scores["to"], scores["left_out"]) == ("findings", len(test) - len(scored))
    assert scores["baselines"].keys() == {"constant caption", "random train caption", "nearest train caption"}
    assert scores["missing"]["caption/retrieval"] == "needs a judge that embeds findings (--judge)"
    assert len(said(capsys, *words, "--from", "history", "--out", tmp_path / "h", code=0).out) > 0
    kept = [json.loads(line) for line in (tmp_path / "h").read_text().splitlines()]
    assert all(line["from"] == ["history"] for line in kept)
    assert len(kept) == sum("history" not in lacks(row) for row in test)


@pytest.mark.parametrize("mode", ["joint", "text"])
def test_the_other_modes_learn_a_text_that_the_model_embeds(place, tmp_path, mode):
    """From image and impression to the history; `text` reads no source, so that fewer rows are left out."""
    words = [
        "caption",
        "train",
        place / "aligner",
        "--data",
        place / "m",
        "--from",
        "image,impression",
        "--to",
        "history",
    ]
    assert run(*words, "--mode", mode, "--out", tmp_path / "run", *TRAIN) == 0
    logged = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert any(("loss/contrastive" in line) == (mode == "joint") for line in logged if "loss/caption" in line)
    before, after = (
        GaplessModel.from_pretrained(place / "aligner"),
        Captioner.from_pretrained(tmp_path / "run" / "model"),
    )
    same = all(torch.equal(one, after.aligner.state_dict()[name]) for name, one in before.state_dict().items())
    assert same == (mode == "text")


@pytest.mark.parametrize(
    ("options", "code", "sentence"),
    [
        (["--from", "histroy", "--to", "findings"], 2, "did you mean 'history'?"),
        (["--from", "image", "--to", "findngs"], 2, "did you mean 'findings'?"),
        (["--from", "image", "--to", "labs"], 2, "is of the kind vector, and captions are texts"),
        (["--from", "image,history", "--to", "history"], 2, "--to history is also in --from"),
        (["--from", "image=0", "--to", "findings"], 2, "a number above 0"),
        (["--from", "image,image", "--to", "findings"], 2, "names image more than once"),
        (["--from", "image"], 2, "name another one with --to"),
    ],
)
def test_wrong_routes_are_refused_before_the_model_is_loaded(
    place, tmp_path, capsys, monkeypatch, options, code, sentence
):
    def load(*_):
        raise AssertionError("the model must not be loaded")

    monkeypatch.setattr("gapless.captioning.runs.load_model", load)
    words = ["caption", "train", place / "aligner", "--data", place / "m", "--out", tmp_path / "r", *options]
    assert sentence in said(capsys, *words, code=code)
    assert not (tmp_path / "r").exists()


def test_what_a_model_cannot_do_is_refused_by_name(place, tmp_path, capsys):
    words = ["caption", "train", place / "aligner", "--data", place / "m", "--out", tmp_path / "r"]
    assert "the model does not embed" in said(capsys, *words, "--from", "labs", "--to", "findings", code=2)
    joint = [*words, "--mode", "joint", "--from", "image", "--to", "findings"]
    assert "use mode frozen" in said(capsys, *joint, code=2)
    generate = ["caption", "generate", place / "run", "--data", place / "m", "--out", tmp_path / "c"]
    assert "writes findings" in said(capsys, *generate, "--to", "impression", code=2)
    assert not list(tmp_path.iterdir())


def test_one_source_is_not_normalised_again():
    rows = torch.nn.functional.normalize(torch.randn(5, 7, generator=torch.Generator().manual_seed(0)), dim=1)
    assert joined({"image": rows}, {"image": 3.0}) is rows
    assert np.isclose(float(joined({"a": rows, "b": -rows.flip(0)}, {"a": 1.0, "b": 2.0}).norm(dim=1).mean()), 1.0)
    with pytest.raises(UsageError, match="one name of a modality or several"):
        route_of("image,,history", None, Route())
