"""measure and close as a user types them: strict JSON, notes on stderr, places and numbers refused before the work."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gapless.cli.main import main
from gapless.core.files import json_text, strict_json, write_json

QUICK = ("--num_bootstrap", "30")


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def matrices(rows: int = 24) -> dict[str, np.ndarray]:
    random = np.random.default_rng(3)
    image = random.normal(size=(rows, 6))
    return {"image": image.astype("f4"), "text": (image + random.normal(size=(rows, 6))).astype("f4")}


def call(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main([*words])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def strict(text: str) -> dict:
    def refuse(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_json_that_leaves_is_strict() -> None:
    value = {"a": float("nan"), "b": [float("inf"), 1.5, (float("-inf"),)], "c": {"d": np.float64("nan")}, "e": "NaN"}
    wanted = {"a": None, "b": [None, 1.5, [None]], "c": {"d": None}, "e": "NaN"}
    assert strict(strict_json(value)) == strict(json_text(value)) == wanted
    assert strict_json({"a": 0.1}) == json.dumps({"a": 0.1})  # the control: finite numbers stay as they are


@pytest.mark.parametrize(("rows", "groups"), [(2, None), (24, ["a"] * 23 + ["b"]), (24, ["a"] * 24)])
def test_few_rows_and_lopsided_groups_give_strict_json(home, capsys, rows, groups) -> None:
    np.savez("e.npz", **matrices(rows), **({"group": groups} if groups else {}))
    code, out, _ = call(capsys, "measure", "e.npz", "--json", "--out", "measured", *QUICK)
    assert code == 0
    found = strict(out)["figures"]
    assert found == strict(Path("measured/results.json").read_text())["figures"]
    assert found["gap/margin"]["low"] is None
    assert found["gap/margin"]["high"] is None
    assert isinstance(found["gap/margin"]["value"], float)


def test_the_label_that_was_taken_is_said(home, capsys) -> None:
    columns = {name: list(matrix) for name, matrix in matrices().items()}
    table = pa.table({**columns, "path": [f"{row}.png" for row in range(24)], "kind": ["CT", "MR"] * 12})
    pq.write_table(table, "e.parquet")
    code, out, err = call(capsys, "measure", "e.parquet", "--json", "--num_bootstrap", "0")
    assert code == 0
    assert json.loads(out)["data"]["label"] == "kind"
    assert "the label 'kind' (2 classes, 24 of 24 rows)" in err
    code, _, err = call(capsys, "measure", "e.parquet", "--label", "path", "--num_bootstrap", "0")
    assert (code, "label 'path': each of the 24 labels occurs once" in err) == (3, True)
    code, _, err = call(capsys, "measure", "e.parquet", "--label", "kind", "--json", "--num_bootstrap", "0")
    assert (code, err) == (0, "")  # the control: nothing is said of a label that was named


def test_missing_groups_are_refused_by_every_verb_that_takes_them(home, capsys) -> None:
    groups = pa.array([None if row % 4 == 0 else f"p{row // 2}" for row in range(24)])
    columns = {name: list(matrix) for name, matrix in matrices().items()}
    pq.write_table(pa.table({**columns, "group": groups}), "e.parquet")
    for words in (["measure", "e.parquet"], ["close", "e.parquet", "--out", "closed", "--method", "center"]):
        code, _, err = call(capsys, *words)
        assert code == 3
        assert "6 of 24 rows have no group" in err
    pq.write_table(pa.table({**columns, "group": groups.fill_null("p")}), "e.parquet")
    assert call(capsys, "close", "e.parquet", "--out", "closed", "--method", "center")[0] == 0


def test_positives_from_a_file_and_from_a_column(home, capsys) -> None:
    item = np.repeat(np.arange(8), 3)
    image = np.eye(8)[item]
    np.savez("e.npz", image=image, text=image + 0.01 * matrices()["text"][:, :1], picture=item)
    Path("pictures.txt").write_text("".join(f"image {n}\n" for n in item))
    key = "retrieval/mean/lenient_R@1"
    for given in ("picture", "pictures.txt"):
        code, out, _ = call(capsys, "measure", "e.npz", "--positives", given, "--json", "--num_bootstrap", "0")
        assert code == 0
        results = json.loads(out)
        assert (results["figures"][key], results["data"]["positives"]) == (1.0, 8)
    assert key not in json.loads(call(capsys, "measure", "e.npz", "--json", "--num_bootstrap", "0")[1])["figures"]


@pytest.mark.parametrize(
    ("words", "option"),
    [
        (["measure", "e.npz", "--num_bootstrap", "-5"], "--num_bootstrap"),
        (["measure", "e.npz", "--seed", "-1"], "--seed"),
        (["measure", "e.npz", "--seed", "99999999999"], "--seed"),
        (["close", "e.npz", "--out", "c", "--seed", "-1"], "--seed"),
        (["close", "e.npz", "--out", "c", "--adapter.batch_size", "0"], "--adapter.batch_size"),
        (["close", "e.npz", "--out", "c", "--adapter.validation_share", "1.5"], "--adapter.validation_share"),
        (["embed", "m", "--data", "d", "--out", "e", "--batch_size", "0"], "--batch_size"),
        (["embed", "m", "--data", "d", "--out", "e", "--workers", "-1"], "--workers"),
        (["evaluate", "r", "--data", "d", "--num_bootstrap", "-1"], "--num_bootstrap"),
        (["compare", "--data", "d", "--out", "c", "--seeds", "0"], "--seeds"),
        (["index", "m", "--data", "d", "--out", "c", "--workers", "-2"], "--workers"),
        (["data", "phantom", "--out", "p", "--num_pairs", "0"], "--num_pairs"),
    ],
)
def test_a_number_that_an_option_cannot_be_is_wrong_usage(home, capsys, words, option) -> None:
    np.savez("e.npz", **matrices())
    code, _, err = call(capsys, *words)
    assert (code, option in err) == (2, True)


def test_a_place_in_use_is_refused_before_anything_is_read(home, capsys) -> None:
    Path("used").mkdir()
    Path("used/mine.txt").write_text("mine")
    for words in (
        ["measure", "nothing.npz", "--out", "used"],
        ["measure", "nothing.npz", "--html", "used"],
        ["measure", "nothing.npz", "--html", "used/mine.txt/map.html"],
        ["close", "nothing.npz", "--out", "used"],
        ["embed", "nothing", "--data", "nothing", "--out", "used"],
        ["export", "nothing", "--to", "onnx", "--out", "used"],
        ["report", "nothing", "--out", "r.html", "--figures", "used"],
        ["report", "nothing", "--out", "used"],
    ):
        code, _, err = call(capsys, *words)
        assert code == 2, (words, err)
        assert "used" in err
    assert [path.name for path in Path("used").iterdir()] == ["mine.txt"]


def test_the_report_refuses_a_file_without_figures(home, capsys) -> None:
    cases = {
        "no figures": {"n": 5},
        "empty": {"n": 5, "figures": {}},
        "a list": {"figures": [1]},
        "words": {"figures": {"gap/margin": "high"}},
        "in words": {"figures": {"gap/margin": {"value": "high"}}},
    }
    for name, content in cases.items():
        write_json(Path(name, "results.json"), content)
        code, _, err = call(capsys, "report", name, "--out", "r.html")
        assert code == 3, (name, err)
        assert f"{name}/results.json" in err
    write_json(Path("good/results.json"), {"figures": {"gap/margin": {"value": 0.2, "low": None, "high": None}}})
    assert call(capsys, "report", "good", "--out", "r.html")[0] == 0
