"""The map: self-contained by policy, the same every time, and true to the rows it draws."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from fake_comparison import embeddings
from PIL import Image

from gapless.core.errors import DataRefused, UsageError
from gapless.manifest.manifest import Manifest
from gapless.study.map import sampled_rows, write_map

NUM_PAIRS = 60
EVIL = "</script><script>alert(1)</script> & <b>"


def manifest_of(path: Path, num_rows: int = NUM_PAIRS) -> Manifest:
    """A manifest in memory over small real images; the last one is damaged."""
    for row in range(num_rows):
        Image.new("L", (40, 20), row).save(path / f"{row}.png")
    (path / f"{num_rows - 1}.png").write_bytes(b"no image")
    table = pa.table(
        {
            "id": [f"id-{row}" for row in range(num_rows)],
            "image": [f"{row}.png" for row in range(num_rows)],
            "captions": [[f"caption {row} {EVIL}", "second"] for row in range(num_rows)],
            "finding": [f"finding {row % 3}" if row else None for row in range(num_rows)],
        }
    )
    return Manifest(path, {"image_root": ".", "labels": ["finding"], "modalities": ["image", "text"]}, table)


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("map")
    results = {"figures": {"gap/centroid_distance": {"value": 1.5, "low": 1.4, "high": 1.6}}, "n": NUM_PAIRS}
    write_map(
        path / "map.html",
        embeddings(1.0, 0.5, num_pairs=NUM_PAIRS),
        results,
        ids=[f"id-{row}" for row in reversed(range(NUM_PAIRS))],
        manifest=manifest_of(path),
        title=EVIL,
        max_pairs=50,
    )
    return (path / "map.html").read_text(encoding="utf-8")


def data_of(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)
    assert found is not None
    data: dict[str, Any] = json.loads(found[1])
    return data


def test_the_policy_names_exactly_the_scripts_of_the_page(page: str) -> None:
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', page)
    assert policy is not None
    assert len(scripts) == 2
    for script in scripts:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        assert f"'sha256-{digest}'" in policy[1]
    assert "default-src 'none'" in policy[1]
    assert "connect-src" not in policy[1]
    assert "unsafe-inline" not in re.sub("style-src 'unsafe-inline'", "", policy[1])


def test_no_string_of_any_script_is_an_address_that_could_be_fetched(page: str) -> None:
    from plotly.offline import get_plotlyjs

    address = re.compile(r"""["'`]https?://(?!www\.w3\.org/)""")
    assert address.search(get_plotlyjs()), "the control: plotly's own script names its servers"
    assert not address.search(page)
    assert not re.search(
        r"""(src|href)\s*=\s*["']?(https?:)?//""", re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    )
    assert "showSendToCloud: false" in page


def test_user_strings_stay_strings(page: str) -> None:
    outside = re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL)
    assert "alert(1)</script>" not in outside
    assert EVIL in data_of(page)["pairs"][0]["caption"]


def test_every_drawn_pair_is_its_own_row_of_the_manifest(page: str) -> None:
    data = data_of(page)
    assert len(data["pairs"]) == 50
    assert [len(modality["x"]) for modality in data["modalities"]] == [50, 50]
    rows = embeddings(1.0, 0.5, num_pairs=NUM_PAIRS)
    for pair in data["pairs"]:
        name = int(pair["id"].removeprefix("id-"))
        row = NUM_PAIRS - 1 - name
        assert pair["caption"].startswith(f"caption {name} ")
        assert pair["labels"] == {"finding": f"finding {name % 3}" if name else ""}
        cosine = sum(float(a) * float(b) for a, b in zip(rows["image"][row], rows["text"][row], strict=True))
        assert pair["cosine"] == pytest.approx(cosine, abs=1e-4)
    assert "50 of 60 pairs drawn" in page


def test_thumbnails_are_small_pictures_and_a_damaged_image_has_none(page: str, tmp_path: Path) -> None:
    pairs = {pair["id"]: pair for pair in data_of(page)["pairs"]}
    assert "thumbnail" not in pairs.get(f"id-{NUM_PAIRS - 1}", {})
    drawn = [pair for pair in pairs.values() if "thumbnail" in pair]
    assert len(drawn) >= 49
    content = base64.b64decode(drawn[0]["thumbnail"].removeprefix("data:image/jpeg;base64,"))
    (tmp_path / "x.jpg").write_bytes(content)
    with Image.open(tmp_path / "x.jpg") as image:
        assert image.size == (40, 20)


def test_sampling_is_fixed_ordered_and_without_repeats() -> None:
    rows = sampled_rows(10_000, 1000)
    assert rows.tolist() == sampled_rows(10_000, 1000).tolist()
    assert len(set(rows.tolist())) == 1000
    assert (np.diff(rows) > 0).all()
    assert sampled_rows(3, 10).tolist() == [0, 1, 2]


def test_rows_need_not_be_unit_norm_nor_have_names(tmp_path: Path) -> None:
    pairs = {name: 7 * rows for name, rows in embeddings(1.0, 0.5, num_pairs=12).items()}
    write_map(tmp_path / "map.html", pairs, {"figures": {}}, captions=["a"] * 12, labels={"k": [None, *range(11)]})
    data = data_of((tmp_path / "map.html").read_text(encoding="utf-8"))
    assert all(-1.0001 <= pair["cosine"] <= 1.0001 for pair in data["pairs"])
    assert data["pairs"][0] == {
        "id": "row 0",
        "caption": "a",
        "labels": {"k": ""},
        "cosine": data["pairs"][0]["cosine"],
    }


def test_half_precision_tensors_are_drawn_like_arrays(tmp_path: Path) -> None:
    pairs = embeddings(1.0, 0.5, num_pairs=12)
    halves = {name: torch.from_numpy(rows).to(torch.bfloat16) for name, rows in pairs.items()}
    write_map(tmp_path / "map.html", halves, {"figures": {}})
    data = data_of((tmp_path / "map.html").read_text(encoding="utf-8"))
    expected = [float(value) for value in (pairs["image"] * pairs["text"]).sum(axis=1)]
    assert [pair["cosine"] for pair in data["pairs"]] == pytest.approx(expected, abs=0.02)


def test_one_modality_or_uneven_rows_are_refused(tmp_path: Path) -> None:
    rows = np.eye(4, dtype=np.float32)
    for bad in ({"image": rows}, {"image": rows, "text": rows[:3]}):
        with pytest.raises(DataRefused, match=r"got image \(4, 4\)"):
            write_map(tmp_path / "map.html", bad, {"figures": {}})


def test_a_manifest_of_other_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataRefused, match=r"no id of the embeddings \('other', \.\.\.\) occurs in"):
        write_map(
            tmp_path / "map.html",
            embeddings(1.0, 0.5, num_pairs=10),
            {"figures": {}},
            ids=["other"] * 10,
            manifest=manifest_of(tmp_path, 10),
        )
    assert not (tmp_path / "map.html").exists()


def test_without_plotly_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "plotly.offline", None)
    with pytest.raises(UsageError, match=r"plotly.*gapless\[map\]"):
        write_map(tmp_path / "map.html", embeddings(1.0, 0.5, num_pairs=10), {"figures": {}})


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="needs chromium")
def test_a_browser_draws_the_map_under_its_policy(page: str, tmp_path: Path) -> None:
    (tmp_path / "map.html").write_text(page, encoding="utf-8")
    flags = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--virtual-time-budget=9000",
    ]
    flags += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command = [
        "chromium",
        *flags,
        f"--user-data-dir={tmp_path / 'profile'}",
        "--dump-dom",
        f"file://{tmp_path}/map.html",
    ]
    dom = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120).stdout
    assert len(re.findall(r'<path class="point"', dom)) == 100


def test_a_row_is_drawn_in_the_modalities_that_it_has(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    rows = {name: random.normal(size=(8, 4)) for name in ("image", "text", "ecg")}
    present = {"image": np.arange(8) != 2, "ecg": ~np.isin(np.arange(8), [2, 3])}
    rows["image"][2] = np.nan  # what an absent row holds is not looked at
    write_map(tmp_path / "map.html", rows, {"figures": {}, "n": 7}, present=present)
    page = (tmp_path / "map.html").read_text(encoding="utf-8")
    data = data_of(page)
    x = {one["name"]: one["x"] for one in data["modalities"]}
    assert [pair["id"] for pair in data["pairs"]] == [f"row {row}" for row in (0, 1, 3, 4, 5, 6, 7)]
    assert [row for row, value in enumerate(x["ecg"]) if value is None] == [2]
    assert None not in x["image"] + x["text"]
    unit = {name: matrix / np.linalg.norm(matrix, axis=1, keepdims=True) for name, matrix in rows.items()}
    assert data["pairs"][2]["cosine"] == pytest.approx(float(unit["image"][3] @ unit["text"][3]), abs=1e-4)
    several = [float(unit[a][0] @ unit[b][0]) for a, b in (("image", "text"), ("image", "ecg"), ("text", "ecg"))]
    assert data["pairs"][0]["cosine"] == pytest.approx(np.mean(several), abs=1e-4)
    assert "1 rows that have fewer than two modalities are not drawn" in page


def test_a_map_without_a_row_of_two_modalities_is_refused(tmp_path: Path) -> None:
    rows = {name: np.eye(4) for name in ("image", "text")}
    present = {"image": np.array([1, 1, 0, 0], bool), "text": np.array([0, 0, 1, 1], bool)}
    with pytest.raises(DataRefused, match="no row has two of them"):
        write_map(tmp_path / "map.html", rows, {"figures": {}}, present=present)
