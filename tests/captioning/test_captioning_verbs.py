"""caption train, generate and evaluate as a user types them: files, resume, what is refused and with which code."""

import json
import os
import re
import signal
import time
from pathlib import Path

import pytest
import torch
from command_server import shared_server
from fakes import CAPTIONS, tiny_modalities, tiny_model, write_images

from gapless.captioning import metrics as captioning
from gapless.captioning.captioner import assemble_captioner
from gapless.captioning.generation import NOTICE
from gapless.cli.main import main
from gapless.core.locks import only_writer
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.models.aligner import GaplessConfig, GaplessModel

DECODER = {"model_type": "bert", "hidden_size": 24, "num_attention_heads": 2, "num_hidden_layers": 1}
TRAIN = [f"--decoder.{key}={value}" for key, value in DECODER.items() if key != "model_type"]
TRAIN += ["--training.num_train_epochs=1", "--training.per_device_train_batch_size=16", "--max_tokens=16"]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A manifest, an aligner, and a caption run of `caption train`."""
    home = tmp_path_factory.mktemp("captions")
    write_phantom(home / "m", num_pairs=80, num_validation=12, num_test=21, image_size=16)
    tiny_model(modalities=tiny_modalities()).save_pretrained(home / "aligner")
    words = ["caption", "train", home / "aligner", "--data", home / "m", "--out", home / "run", *TRAIN]
    assert main([str(word) for word in words]) == 0
    return home


@pytest.fixture
def without_java(monkeypatch):
    """METEOR alone would take seconds; tests/metrics has the scores themselves."""
    monkeypatch.setattr(captioning, "java", lambda: None)


def run(capsys, *words, code=0):
    capsys.readouterr()
    found = main([str(word) for word in words])
    captured = capsys.readouterr()
    assert found == code, captured.err
    return captured.out if code == 0 else captured.err.strip().splitlines()[-1]


def generate(capsys, place, out, *more, code=0):
    words = ["caption", "generate", place / "run", "--data", place / "m", "--batch_size", 8, "--out", out]
    return run(capsys, *words, *more, code=code)


def test_from_a_run_to_scores_beside_baselines(place, tmp_path, capsys, without_java):
    out = tmp_path / "c.jsonl"
    assert NOTICE in generate(capsys, place, out)
    lines = [json.loads(line) for line in out.read_text().splitlines()]
    assert [line["id"] for line in lines] == Manifest.read(place / "m").select("test").table["id"].to_pylist()
    assert all(line["notice"] == NOTICE and line["method"] == "beam" and line["score"] < 0 for line in lines)
    beside = json.loads((tmp_path / "c.jsonl.json").read_text())
    assert beside["notice"] == NOTICE
    assert beside["settings"]["num_beams"] == 4
    assert {path.name for path in tmp_path.iterdir()} == {"c.jsonl", "c.jsonl.json"}

    words = ["caption", "evaluate", out, "--data", place / "m", "--num_bootstrap", 20]
    alone = json.loads(run(capsys, *words, "--json"))
    assert alone["missing"]["caption/METEOR"] == captioning.NO_JAVA
    assert "caption/retrieval" in alone["missing"]
    assert alone["baselines"].keys() == {"constant caption", "random train caption"}
    assert alone["tokenizer"] == "words"
    told = run(capsys, *words, "--judge", place / "run", "--out", tmp_path / "scores")
    assert "not the PTB tokenizer" in told
    assert NOTICE in told
    whole = json.loads((tmp_path / "scores" / "results.json").read_text())
    assert whole["baselines"].keys() == {"constant caption", "random train caption", "nearest train caption"}
    assert {"value", "low", "high"} == whole["figures"]["caption/retrieval/R@5"].keys()
    assert whole["figures"]["caption/BLEU-1"] == alone["figures"]["caption/BLEU-1"]
    assert whole["n"] == whole["gallery_size"] == 21
    samples = json.loads((tmp_path / "scores" / "samples.json").read_text())["samples"]
    assert len(samples) == 12
    assert all(sample["image"] and sample["references"] for sample in samples)
    assert "split" in run(capsys, *words[:3], "--data", place / "m", "--split", "train", code=3)


def test_a_run_keeps_its_own_captions_and_scores(place, capsys, without_java):
    run(capsys, "caption", "generate", place / "run", "--data", place / "m", "--method", "greedy")
    run(capsys, "caption", "evaluate", place / "run", "--data", place / "m", "--num_bootstrap", 0)
    results = json.loads((place / "run" / "results.json").read_text())
    assert (results["seed"], results["mode"], results["kind"]) == (0, "frozen", "captions")
    assert results["budget"]["epochs"] == 1.0
    page = place / "report.html"
    run(capsys, "report", place / "run", "--out", page)
    text = page.read_text()
    random, _, worst = text.partition("The worst captions")
    assert random.count("data:image/jpeg;base64,") == 12
    assert 0 < worst.count("data:image/jpeg;base64,") <= 12
    assert "missed: " in worst
    assert "nearest train caption" in text
    assert "not for diagnosis" in text
    refused = [
        "caption",
        "evaluate",
        place / "run",
        "--data",
        place / "m",
        "--split",
        "validation",
        "--num_bootstrap",
        0,
    ]
    assert "captions-validation.jsonl does not exist" in run(capsys, *refused, code=2)


@pytest.mark.parametrize(("max_tokens", "is_cut"), [(6, True), (4000, False)])
def test_cut_captions_are_told_of(place, tmp_path, capsys, caplog, max_tokens, is_cut):
    words = ["caption", "train", place / "aligner", "--data", place / "m", "--out", tmp_path / "run", *TRAIN]
    out = run(capsys, *words, "--max_tokens", max_tokens, "--training.max_steps=1", "--json")
    assert json.loads(out)["run"] == str(tmp_path / "run"), "stdout holds one JSON object alone"
    told = [record.getMessage() for record in caplog.records if "are cut" in record.getMessage()]
    total = sum(map(len, Manifest.read(place / "m").select("train").table["captions"].to_pylist()))
    assert len(told) == is_cut
    assert all(
        re.fullmatch(rf"\d+ of {total} captions are longer than max_tokens 6 and are cut", line) for line in told
    )


@pytest.mark.parametrize("method", ["greedy", "sample"])
@pytest.mark.parametrize("kept", [0, 5, 8, 20])
def test_a_continued_file_has_the_bytes_of_an_uninterrupted_one(place, tmp_path, capsys, method, kept):
    """Interrupted anywhere, inside a line too."""
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    generate(capsys, place, whole, "--method", method)
    lines = whole.read_bytes().splitlines(keepends=True)
    (tmp_path / "out.jsonl.partial").write_bytes(b"".join(lines[:kept]) + lines[kept][:17])
    (tmp_path / "out.jsonl.json").write_bytes((tmp_path / "whole.jsonl.json").read_bytes())
    generate(capsys, place, out, "--method", method)
    assert out.read_bytes() == whole.read_bytes()
    assert not (tmp_path / "out.jsonl.partial").exists()
    before = out.stat().st_mtime_ns
    generate(capsys, place, out, "--method", method)
    assert out.stat().st_mtime_ns == before, "a finished file is left alone"


def test_images_are_read_in_as_many_processes_as_suit_the_device(place, tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr("gapless.inference.embed.usual_readers", lambda device: asked.append(device.type) or 1)
    generate(capsys, place, tmp_path / "usual", "--method", "greedy")
    assert asked == ["cpu"]
    generate(capsys, place, tmp_path / "none", "--method", "greedy", "--workers", 0)
    assert asked == ["cpu"], "the user has said how many"
    assert (tmp_path / "usual").read_bytes() == (tmp_path / "none").read_bytes()


def test_other_captions_are_not_continued(place, tmp_path, capsys):
    out = tmp_path / "c.jsonl"
    generate(capsys, place, out, "--method", "greedy")
    assert "settings.method" in generate(capsys, place, out, code=2)
    assert "data.split" in generate(capsys, place, out, "--method", "greedy", "--split", "validation", code=2)
    (tmp_path / "mine.jsonl").write_text("{}")
    assert "in use" in generate(capsys, place, tmp_path / "mine.jsonl", code=2)
    assert "does not exist" in generate(capsys, place, tmp_path / "no" / "c.jsonl", code=2)


def test_an_attempt_that_wrote_no_line_does_not_block_the_next(place, tmp_path, capsys):
    """The first row's image is gone; the control is an attempt with a line, whose files are named."""
    import shutil

    out = tmp_path / "c"
    shutil.copytree(place / "m", tmp_path / "m")
    Manifest.read(tmp_path / "m").select("test").image_path(0).unlink()
    generate(capsys, place, out, "--data", tmp_path / "m", code=3)
    assert {path.name for path in tmp_path.iterdir()} == {"m", "c.json", "c.partial"}
    (tmp_path / "c.partial").write_text('{"id": ')
    generate(capsys, place, out, "--method", "greedy")
    assert {json.loads(line)["method"] for line in out.read_text().splitlines()} == {"greedy"}
    out.rename(tmp_path / "c.partial")
    told = generate(capsys, place, out, code=2)
    assert f"remove {tmp_path / 'c.json'} and {tmp_path / 'c.partial'}" in told
    generate(capsys, place, out, "--method", "greedy")


@pytest.mark.parametrize(("content", "code", "said"), [("{}", 2, "remove"), ("[]", 3, "no JSON object")])
def test_a_file_that_is_not_ours_beside_an_output_is_kept(place, tmp_path, capsys, content, code, said):
    (tmp_path / "c.json").write_text(content)
    assert said in generate(capsys, place, tmp_path / "c", code=code)
    assert (tmp_path / "c.json").read_text() == content


def test_a_path_may_be_spelt_another_way_when_one_goes_on(place, tmp_path, capsys, monkeypatch):
    """The fingerprint says which model it is; the control is another model."""
    import shutil

    out = tmp_path / "c"
    words = ["caption", "generate", place / "run", "--data", place / "m", "--method", "greedy", "--out", out]
    run(capsys, *words)
    monkeypatch.chdir(place)
    run(capsys, *words[:2], "run", "--data", "m", *words[5:])
    other = assemble_captioner(tiny_model(), DECODER, CAPTIONS, use_patches=True, max_tokens=16, vocab_size=400)
    other.save_pretrained(tmp_path / "other")
    assert "differing: model.fingerprint" in run(capsys, *words[:2], tmp_path / "other", *words[3:], code=2)

    shutil.copytree(place / "run", tmp_path / "run")
    tiny_model(seed=1, modalities=tiny_modalities()).save_pretrained(tmp_path / "aligner")
    words = ["--data", "m", "--out", tmp_path / "run", *TRAIN, "--resume", "latest"]
    run(capsys, "caption", "train", "aligner", *words)
    assert "differing: aligner.fingerprint" in run(capsys, "caption", "train", tmp_path / "aligner", *words, code=2)


def test_one_process_writes_an_output(place, tmp_path, capsys):
    """Two would mix their lines; the control is the same command once the other is done."""
    out = tmp_path / "c.jsonl"
    with only_writer(tmp_path, ".c.jsonl.lock"):
        assert "another process" in generate(capsys, place, out, code=2)
        generate(capsys, place, tmp_path / "other.jsonl")
    generate(capsys, place, out)
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{name}.jsonl{end}" for name in ("c", "other") for end in ("", ".json")
    }
    words = ["caption", "train", place / "aligner", "--data", place / "m", "--out", place / "run", *TRAIN]
    with only_writer(place / "run"):
        assert "another process" in run(capsys, *words, "--resume", "latest", code=2)
    assert (place / "run" / "model").is_dir()


def test_single_images_and_those_that_cannot_be_read(place, tmp_path, capsys):
    good = write_images(tmp_path / "images", 2)
    bad = tmp_path / "broken.png"
    bad.write_bytes(good[0].read_bytes()[:60])
    words = ["caption", "generate", place / "run", "--image"]
    told = run(capsys, *words, good[0])
    assert told.startswith(f"{good[0]}: ")
    assert NOTICE in told
    main([str(word) for word in [*words, *good, bad, tmp_path / "nowhere.png", "--json"]])
    captured = capsys.readouterr()
    value = json.loads(captured.out)
    assert [line["id"] for line in value["lines"]] == [str(path) for path in good]
    assert value["notice"] == NOTICE
    assert value["unreadable"].keys() == {str(bad), str(tmp_path / "nowhere.png")}
    assert "2 of 4 images cannot be read" in captured.err
    assert "1 of 1 images" in run(capsys, *words, bad, code=3)
    out = tmp_path / "c.jsonl"
    assert "1 of 3 images" in run(capsys, *words, *good, bad, "--out", out, code=3)
    assert len(out.read_text().splitlines()) == 2


def test_captions_of_other_images_are_not_given_back(place, tmp_path, capsys):
    """Another file, another order, another content under the same name; the control is the same command again."""
    a, b = write_images(tmp_path / "images", 2)
    out = tmp_path / "c.jsonl"
    words = ["caption", "generate", place / "run", "--out", out, "--image"]
    told = run(capsys, *words, a, b)
    assert run(capsys, *words, a, b) == told
    for others in ([a], [b], [b, a]):
        assert "data.images" in run(capsys, *words, *others, code=2)
    b.write_bytes(a.read_bytes())
    assert "data.images" in run(capsys, *words, a, b, code=2)
    words[4] = tmp_path / "twice.jsonl"
    assert f"more than once ({a})" in run(capsys, *words, a, b, a, a, code=2)
    assert not list(tmp_path.glob("twice*"))


def test_an_image_that_has_gone_from_a_manifest_is_named(place, tmp_path, capsys):
    import shutil

    shutil.copytree(place / "m", tmp_path / "m")
    rows = Manifest.read(tmp_path / "m").select("test")
    rows.image_path(20).unlink()
    words = ["caption", "generate", place / "run", "--data", tmp_path / "m", "--batch_size", 8, "--out", tmp_path / "c"]
    told = run(capsys, *words, code=3)
    assert rows.table["id"][20].as_py() in told
    assert len((tmp_path / "c.partial").read_text().splitlines()) == 16
    shutil.copy(place / "m" / rows.image_path(20).relative_to(tmp_path / "m"), rows.image_path(20))
    run(capsys, *words)
    assert len((tmp_path / "c").read_text().splitlines()) == 21


OTHER_RESULTS = {
    "of an aligner": {"kind": None},
    "of other data": {"data": {"fingerprint": "other"}},
    "without data": {"data": None},
    "with data of another form": {"data": "x"},
}


@pytest.mark.parametrize("fault", OTHER_RESULTS)
def test_scores_are_not_written_over_other_results(place, tmp_path, capsys, without_java, fault):
    """The control: over scores of the same rows they are."""
    generate(capsys, place, tmp_path / "c")
    out = tmp_path / "scores"
    words = ["caption", "evaluate", tmp_path / "c", "--data", place / "m", "--num_bootstrap", 0, "--out", out]
    run(capsys, *words)
    run(capsys, *words)
    before = json.dumps(json.loads((out / "results.json").read_text()) | OTHER_RESULTS[fault])
    (out / "results.json").write_text(before)
    assert "choose another --out" in run(capsys, *words, code=2)
    assert (out / "results.json").read_text() == before


@pytest.mark.parametrize("content", ["[1]", '"x"'])
def test_results_that_are_no_object_are_refused(place, tmp_path, capsys, without_java, content):
    generate(capsys, place, tmp_path / "c")
    (tmp_path / "results.json").write_text(content)
    words = ["caption", "evaluate", tmp_path / "c", "--data", place / "m", "--num_bootstrap", 0, "--out", tmp_path]
    assert "results.json holds no JSON object" in run(capsys, *words, code=3)


def test_captions_are_not_scored_against_other_data(place, tmp_path, capsys, without_java):
    """Two data sets may have the same ids; the control is the same JSONL with nothing beside it."""
    other = write_phantom(tmp_path / "m", num_pairs=80, num_validation=12, num_test=21, image_size=16, seed=5)
    ids = other.select("test").table["id"].to_pylist()
    out = tmp_path / "c"
    generate(capsys, place, out)
    words = ["caption", "evaluate", out, "--num_bootstrap", 0, "--data"]
    run(capsys, *words, place / "m")
    out.write_text("".join(json.dumps({"id": id, "caption": "chest"}) + "\n" for id in ids))
    told = run(capsys, *words, tmp_path / "m", code=3)
    assert Manifest.read(place / "m").fingerprint in told
    assert "same --data" in told
    (tmp_path / "c.json").unlink()
    run(capsys, *words, tmp_path / "m")


def test_train_rows_have_no_baselines_of_train_captions(place, tmp_path, capsys, without_java):
    """The nearest train image of a train row is its own. The control, test rows, is above."""
    generate(capsys, place, tmp_path / "c", "--split", "train", "--method", "greedy")
    words = ["caption", "evaluate", tmp_path / "c", "--data", place / "m", "--split", "train", "--num_bootstrap", 0]
    found = json.loads(run(capsys, *words, "--judge", place / "run", "--json"))
    assert found["baselines"] == {}
    names = ("constant caption", "random train caption", "nearest train caption")
    assert {name: found["missing"].get(f"baseline {name}") for name in names} == dict.fromkeys(
        names, "needs train captions that are not the references"
    )


def test_results_say_how_the_captions_were_generated_and_scored(place, tmp_path, capsys, without_java):
    """Beam and greedy can be told apart; of a JSONL alone nothing is known."""
    out = tmp_path / "c"
    words = ["caption", "evaluate", out, "--data", place / "m", "--num_bootstrap", 3, "--seed", 7, "--json"]
    generate(capsys, place, out, "--method", "greedy")
    beside = json.loads((tmp_path / "c.json").read_text())
    found = json.loads(run(capsys, *words))
    assert found["generation"] == {"settings": beside["settings"], "model": beside["model"]["fingerprint"]}
    assert found["generation"]["settings"]["method"] == "greedy"
    assert found["scoring"] == {"num_bootstrap": 3, "seed": 7}
    (tmp_path / "c.json").unlink()
    assert "generation" not in json.loads(run(capsys, *words))


def test_a_run_without_a_finished_model_is_named_everywhere(place, tmp_path, capsys, without_java):
    """As what generates, as what is evaluated and as a judge."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_bytes((place / "run" / "config.yaml").read_bytes())
    generate(capsys, place, tmp_path / "run" / "captions-test.jsonl")
    data = ["--data", place / "m", "--num_bootstrap", 0]
    said = "has no finished model; continue it with --resume latest"
    assert said in run(capsys, "caption", "generate", tmp_path / "run", "--data", place / "m", code=2)
    assert said in run(capsys, "caption", "evaluate", tmp_path / "run", *data, code=2)
    captions = tmp_path / "run" / "captions-test.jsonl"
    assert said in run(capsys, "caption", "evaluate", captions, *data, "--judge", tmp_path / "run", code=2)
    run(capsys, "caption", "evaluate", captions, *data, "--judge", place / "run")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--out", "file"], "cannot be made: file is a file"),
        (["--out", "file/sub/sub"], "cannot be made: file is a file"),
        (["--seed", "-1", "--num_bootstrap", 20], "--seed lies between 0 and"),
        (["--judge", "vectors"], "this model takes image as vector, text as vector; give another one with --judge"),
        (["--judge", "images"], "this model takes image; give another one with --judge"),
    ],
)
def test_wrong_options_of_evaluate_are_told_before_anything_is_scored(
    place, tmp_path, capsys, monkeypatch, words, said
):
    vectors = {"kind": "vector", "size": 4}
    model = GaplessModel(GaplessConfig({name: {"input": vectors, "encoder": vectors} for name in ("image", "text")}, 4))
    model.save_pretrained(tmp_path / "vectors")
    tiny_model(modalities={"image": tiny_modalities()["image"]}).save_pretrained(tmp_path / "images")
    generate(capsys, place, tmp_path / "c")
    (tmp_path / "file").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(captioning.CaptionScorer, "__init__", lambda *_: pytest.fail("it scores"))
    assert said in run(capsys, "caption", "evaluate", "c", "--data", place / "m", *words, code=2)


BAD_LINES = {
    "no json": (lambda lines: ["nonsense", *lines], 3, "1 lines are not"),
    "no caption": (lambda lines: [json.dumps({"id": "x"}), *lines], 3, "line 1"),
    "a number": (lambda lines: [json.dumps({"id": "x", "caption": 3}), *lines], 3, "line 1"),
    "score NaN": (lambda lines: ['{"id": "x", "caption": "a", "score": NaN}', *lines], 3, "line 1"),
    "score 1e999": (
        lambda lines: ['{"id": "x", "caption": "a", "score": 1e999}', *lines],
        3,
        "a finite score (line 1)",
    ),
    "half a surrogate pair": (lambda lines: [json.dumps({"id": "x", "caption": "\ud800"}), *lines], 3, "line 1"),
    "stray": (lambda lines: [json.dumps({"id": "who", "caption": "a"}), *lines], 3, "1 captions have no reference in"),
    "twice": (lambda lines: [lines[0], *lines], 3, "1 ids come more than once"),
    "three times": (lambda lines: [lines[0], lines[0], *lines], 3, "1 ids come more than once"),
    "short": (lambda lines: lines[2:], 3, "2 of 21 rows have no caption"),
    "empty": (lambda lines: [], 3, "holds no captions"),
}


@pytest.mark.parametrize("fault", BAD_LINES)
def test_bad_caption_files_are_one_sentence_with_a_count(place, tmp_path, capsys, without_java, fault):
    change, code, said = BAD_LINES[fault]
    rows = Manifest.read(place / "m").select("test")
    ids = rows.table["id"].to_pylist()
    lines = [json.dumps({"id": id, "caption": "chest"}) for id in ids]
    path = tmp_path / "c.jsonl"
    words = ["caption", "evaluate", path, "--data", place / "m", "--num_bootstrap", 0, "--out", tmp_path / "scores"]
    path.write_text("\n".join(change(lines)))
    told = run(capsys, *words, code=code)
    assert said in told
    assert not (tmp_path / "scores").exists()
    path.write_text("\n".join(lines), encoding="utf-8-sig")  # as other programs write it
    run(capsys, *words)


def test_a_reference_without_a_word_is_named(place, tmp_path, capsys, without_java):
    """A manifest keeps a caption of full stops: it is text; no score can be taken against it."""
    images = write_images(tmp_path / "images", 3)
    captions = ["left lung", "...", "chest"]
    rows = [{"image": image.name, "caption": text} for image, text in zip(images, captions, strict=True)]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    source = [f"test={tmp_path / 'rows.jsonl'}", "--image-root", tmp_path / "images"]
    run(capsys, "data", "table", *source, "--out", tmp_path / "m")
    name = Manifest.read(tmp_path / "m").table["id"][1].as_py()
    words = ["--data", tmp_path / "m", "--num_bootstrap", 0]
    generate(capsys, place, tmp_path / "c", "--data", tmp_path / "m")
    told = run(capsys, "caption", "evaluate", tmp_path / "c", *words, code=3)
    assert f"1 of 3 rows have no reference, or one without a word (row {name})" in told


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["generate", "nowhere", "--data", "m"], 2, "nowhere does not exist"),
        (["generate", "aligner", "--data", "m", "--out", "c"], 2, "without a captioner"),
        (["generate", "run"], 2, "either --data"),
        (["generate", "run", "--data", "m", "--image", "a.png"], 2, "either --data"),
        (["generate", "run/model", "--data", "m"], 2, "--out"),
        (["generate", "run", "--data", "m", "--method", "magic"], 2, "greedy"),
        (["generate", "run", "--data", "m", "--split", "nowhere"], 2, "nowhere"),
        (["generate", "run", "--data", "m", "--out", "."], 2, "--out is a JSONL file"),
        (["generate", "run", "--data", "m", "--out", "/"], 2, "--out is a JSONL file"),
        (["generate", "run", "--data", "m", "--out", ""], 2, "--out is a JSONL file"),
        (["generate", "run", "--data", "m", "--workers", "-1"], 2, "--workers is at least 0"),
        (["evaluate", "nowhere.jsonl", "--data", "m"], 2, "nowhere.jsonl does not exist"),
        (["evaluate", "aligner", "--data", "m"], 2, "captions-test.jsonl does not exist"),
        (["train", "aligner", "--data", "m", "--out", "x", "--mode", "magic"], 2, "frozen"),
        (["train", "aligner", "--data", "m", "--out", "x", "--decoder.model_type=t9", TRAIN[-2]], 2, "bert, gpt2"),
        (["train", "run", "--data", "m", "--out", "x"], 3, "another kind of model"),
        (
            ["train", "aligner", "--data", "m", "--out", "x", "--decoder.max_position_embeddings=5", *TRAIN],
            2,
            "positions",
        ),
        (
            ["train", "aligner", "--data", "m", "--out", "x", *TRAIN, "--decoder.hidden_size=-4"],
            2,
            "negative dimension",
        ),
        (["generate", "run", "--data", "m", "--method", "sample", "--temperature", "1e-40"], 2, "temperature"),
        (["dance"], 2, "caption train"),
    ],
)
def test_bad_usage_is_one_sentence_and_exit_code(place, capsys, monkeypatch, words, code, said):
    monkeypatch.chdir(place)
    before = sorted(path.name for path in place.iterdir())
    assert said in run(capsys, "caption", *words, code=code)
    assert sorted(path.name for path in place.iterdir()) == before


def test_an_interrupted_process_continues(place, tmp_path, capsys):
    """The real command, interrupted while it writes; the file is the one of a command that was let go through."""
    torch.manual_seed(0)
    model = assemble_captioner(
        tiny_model(), DECODER, CAPTIONS, use_patches=True, max_tokens=30, vocab_size=400
    )  # it has learnt nothing, so that captions are long
    model.save_pretrained(tmp_path / "model")
    out = tmp_path / "c.jsonl"
    words = ["caption", "generate", tmp_path / "model", "--data", place / "m", "--batch_size", 1, "--out", out]
    words += ["--method", "sample"]
    process = shared_server().start(*words)
    partial = Path(f"{out}.partial")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if partial.exists() and partial.read_bytes().count(b"\n") >= 2:
            os.kill(process.pid, signal.SIGINT)
            break
        time.sleep(0.01)
    done = process.communicate()
    assert done.returncode == 130, done.stderr[-2000:]
    assert "Traceback" not in done.stderr
    assert not out.exists()
    run(capsys, *words)
    run(capsys, *[word if word != out else tmp_path / "whole.jsonl" for word in words])
    assert out.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
