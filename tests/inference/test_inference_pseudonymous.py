"""`gapless embed --pseudonyms`: embeddings that may leave a site hold no name, no text, no label and no path of it."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from fakes import tiny_bert, tiny_modalities, tiny_model

import gapless
from gapless.cli.main import main
from gapless.core.errors import UsageError
from gapless.embeddings.pseudonyms import Pseudonyms
from gapless.embeddings.store import read_embeddings
from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.study.measured import measure_embeddings


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("hospital-north")
    write_phantom(home / "m", num_pairs=30, num_validation=4, num_test=6, image_size=16)
    modalities = tiny_modalities()
    modalities["text"]["encoder"]["config"] = tiny_bert(400)
    tiny_model(modalities=modalities).save_pretrained(home / "model")
    gapless.embed(home / "model", data=home / "m", out=home / "named")
    gapless.embed(home / "model", data=home / "m", out=home / "leaves", pseudonyms=home / "site.key", shard_size=9)
    return home


def everything_in(folder: Path) -> str:
    """All text of the directory: its JSON files, and the cells and metadata of its tables."""
    found = [path.read_text() for path in sorted(folder.glob("*.json"))]
    for path in sorted(folder.glob("*.parquet")):
        table = pq.read_table(path)
        found += [json.dumps(table.to_pydict()), str(table.schema)]
    return "\n".join(found)


def test_nothing_of_the_site_but_vectors_and_splits_is_in_the_directory(home: Path) -> None:
    table = Manifest.read(home / "m").table
    captions = [caption for row in table["captions"].to_pylist() for caption in row]
    names = {*table["id"].to_pylist(), *table["group"].to_pylist()}
    said = everything_in(home / "leaves")
    assert said
    for secret in [*captions, *(f'"{name}"' for name in names), str(home), "hospital-north", "captions"]:
        assert secret not in said
    control = everything_in(home / "named")
    assert captions[0] in control
    assert "hospital-north" in control
    assert (home / "site.key").read_text().strip() not in said


def test_rows_are_those_of_the_names_in_the_order_of_the_pseudonyms(home: Path) -> None:
    names = Pseudonyms.of_file(home / "site.key")
    named, leaves = read_embeddings(home / "named"), read_embeddings(home / "leaves")
    assert leaves.ids == sorted(leaves.ids)
    assert leaves.labels == {}
    assert leaves.captions is None
    row_of = {names.of("id", name): row for row, name in enumerate(named.ids)}
    order = [row_of[name] for name in leaves.ids]
    assert order != sorted(order)
    expected = named.take(order)
    assert leaves.groups == [names.of("group", name) for name in expected.groups]
    assert leaves.splits == expected.splits
    for name, rows in expected.embeddings.items():
        np.testing.assert_allclose(leaves.embeddings[name], rows, atol=1e-6)


def test_figures_are_those_of_the_named_rows(home: Path) -> None:
    found = [measure_embeddings([home / name], num_bootstrap=0).figures for name in ("named", "leaves")]
    keys = ["gap/centroid_distance", "retrieval/mean/R@10"]
    assert [found[1][key] for key in keys] == pytest.approx([found[0][key] for key in keys], abs=1e-5)


def test_a_second_call_goes_on_and_another_key_is_refused(
    home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["embed", str(home / "model"), "--data", str(home / "m"), "--out", str(tmp_path / "e"), "--shard_size", "9"]
    key = ["--pseudonyms", str(home / "site.key")]
    assert main([*words, *key, "--shard", "1/2"]) == 0
    assert main([*words, *key]) == 0
    for path in (home / "leaves").iterdir():
        assert (tmp_path / "e" / path.name).read_bytes() == path.read_bytes()
    for other in (["--pseudonyms", str(tmp_path / "other.key")], []):
        assert main([*words, *other]) == 2
        assert "holds other embeddings" in capsys.readouterr().err


def test_a_key_beside_the_vectors_is_refused_before_anything_is_written(home: Path, tmp_path: Path) -> None:
    for key in (tmp_path / "e" / "site.key", tmp_path / "e", tmp_path / "e" / ".." / "e" / "keys" / "k"):
        with pytest.raises(UsageError, match="leave with it"):
            gapless.embed(home / "model", data=home / "m", out=tmp_path / "e", pseudonyms=key)
    assert list(tmp_path.iterdir()) == []


def test_embeddings_leave_again_through_a_closed_model(home: Path, tmp_path: Path) -> None:
    closed = gapless.close(home / "leaves", method="center", out=tmp_path / "closed")
    gapless.embed(closed.path, data=home / "named", out=tmp_path / "e", pseudonyms=home / "site.key")
    rows = read_embeddings(tmp_path / "e")
    assert rows.ids == read_embeddings(home / "leaves").ids
    assert rows.labels == {}
    assert "hospital-north" not in everything_in(tmp_path / "e")
