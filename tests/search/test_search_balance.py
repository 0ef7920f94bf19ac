"""Balanced mixed search: what is learnt, what it does to a ranking, and what it leaves as it is."""

import json
import math
import statistics

import numpy as np
import pyarrow as pa
import pytest
from search_samples import brute_force, collection_of, embedding_set, keyed, unit_rows, write

from gapless.core.errors import DataRefused, UsageError
from gapless.search.balance import (
    Balance,
    Bank,
    checked_correction,
    found_shares,
    level_and_spread,
    matching_offsets,
    nearest_mean,
)
from gapless.search.balance_store import BALANCE_KEY, BALANCE_TABLE, BalanceSettings, learn
from gapless.search.build import delete_rows
from gapless.search.collection import Collection, connect
from gapless.search.indices import update_indices
from gapless.search.rebalance import texts_of, update_balance

N, DIM, K = 120, 16, 24


def with_gap(num_rows: int = N, shift: float = 0.8, seed: int = 0) -> dict[str, np.ndarray]:
    """Noisy pairs; images stand apart from texts along the first axis."""
    random = np.random.default_rng(seed)
    image = random.standard_normal((num_rows, DIM))
    text = image + 0.7 * random.standard_normal((num_rows, DIM))
    rows = {"image": image, "text": text}
    for sign, matrix in zip((1, -1), rows.values(), strict=True):
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
        matrix[:, 0] += sign * shift
        matrix /= np.linalg.norm(matrix, axis=1, keepdims=True)
    return {name: matrix.astype(np.float32) for name, matrix in rows.items()}


@pytest.fixture(scope="module")
def embeddings():
    return embedding_set(with_gap())


@pytest.fixture(scope="module")
def collection(tmp_path_factory, embeddings):
    collection = collection_of(tmp_path_factory.mktemp("balance") / "c", embeddings)
    update_balance(collection, BalanceSettings())
    return collection


@pytest.fixture(scope="module")
def hubs(tmp_path_factory, embeddings):
    collection = collection_of(tmp_path_factory.mktemp("hubs") / "c", embeddings)
    update_balance(collection, BalanceSettings(hub_correction=0.75))
    return collection


def share_and_hits(collection: Collection, embeddings, asked: str, other: str, balanced: bool) -> tuple[float, float]:
    """Share of the other modality in the first K of queries that are not in the bank's way, and mixed R@K."""
    shares, found = [], []
    for sample, vector in zip(embeddings.ids, embeddings.embeddings[asked], strict=True):
        how = {asked: 1.0} if balanced else None
        hits = [hit for hit in collection.search(vector, k=K + 1, balanced=how) if hit.row != f"{sample}/{asked}"][:K]
        shares.append(sum(hit.modality == other for hit in hits) / K)
        found.append(any(hit.row == f"{sample}/{other}" for hit in hits))
    return statistics.fmean(shares), statistics.fmean(found)


def reference(collection: Collection, rows: dict[str, np.ndarray], query: np.ndarray, asked: str) -> dict[str, float]:
    """Key -> balanced score, in plain Python from the stored banks."""
    balance = collection.balance()
    levels = {}
    for name, bank in balance.held.items():
        scores = [math.fsum(map(float, vector * query)) for vector in bank.vectors]
        if balance.hub_correction:
            scores = [s - hub_of(balance, asked, v) for s, v in zip(scores, bank.vectors, strict=True)]
        copies = [bool(vector @ query > 1 - 1e-5) for vector in bank.vectors]
        scores = sorted((s for s, copy in zip(scores, copies, strict=True) if not copy), reverse=True)
        levels[name] = statistics.fmean(scores[: max(1, round(0.1 * len(scores)))]), statistics.pstdev(scores)
    result = {}
    for key, vector in rows.items():
        name = key.rpartition("/")[2]
        score = math.fsum(float(a) * float(b) for a, b in zip(vector, query, strict=True))
        if balance.hub_correction:
            score -= hub_of(balance, asked, vector)
        level, spread = levels[name]
        result[key] = (score - level) / spread + balance.offsets[asked][name]
    return result


def hub_of(balance: Balance, asked: str, vector: np.ndarray) -> float:
    near = sorted((s for s in map(float, balance.asked[asked].vectors @ vector) if s <= 1 - 1e-5), reverse=True)[:16]
    return balance.hub_correction * statistics.fmean(near)


@pytest.mark.parametrize(("asked", "other"), [("text", "image"), ("image", "text")])
def test_balanced_search_shows_what_the_gallery_holds_and_finds_more_pairs(collection, embeddings, asked, other):
    raw, raw_found = share_and_hits(collection, embeddings, asked, other, balanced=False)
    share, found = share_and_hits(collection, embeddings, asked, other, balanced=True)
    assert raw < 0.1  # the control: without it hardly a row of the other modality is seen
    assert abs(share - 0.5) < 0.05
    assert found > 2 * raw_found


@pytest.mark.parametrize("which", ["collection", "hubs"])
@pytest.mark.parametrize("where", [None, "id > 's05'", "modality = 'text'"])
def test_hits_are_those_of_the_formula(request, embeddings, which, where):
    opened = request.getfixturevalue(which)
    rows = keyed(embeddings)
    if where is not None:
        rows = {
            key: row
            for key, row in rows.items()
            if (key.endswith("/text") if "modality" in where else key.rpartition("/")[0] > "s05")
        }
    query = unit_rows(1, DIM, seed=5)[0]
    expected = reference(opened, rows, query, "image")
    best = sorted(expected, key=lambda key: -expected[key])[:K]
    hits = opened.search(query, k=K, where=where, balanced={"image": 1.0})
    assert [hit.row for hit in hits] == best
    for hit in hits:
        assert hit.balanced == pytest.approx(expected[hit.row], abs=1e-4)
        assert hit.similarity == hit.score == pytest.approx(float(rows[hit.row] @ query), abs=1e-6)


def test_inside_one_modality_and_raw_nothing_changes(collection, hubs, embeddings):
    query = unit_rows(1, DIM, seed=6)[0]
    rows = keyed(embeddings)
    for opened in (collection, hubs):
        raw = opened.search(query, k=9)
        assert [(hit.row, hit.score) for hit in raw] == brute_force(rows, query, 9)
        assert {hit.balanced for hit in raw} == {None}
        texts = {key: row for key, row in rows.items() if key.endswith("/text")}
        one = opened.search(query, k=9, modality="text", balanced={"text": 1.0})
        assert [(hit.row, hit.score) for hit in one] == brute_force(texts, query, 9)
        assert {hit.balanced for hit in one} == {None}
    mixed = collection.search(query, k=2 * N, balanced={"text": 1.0})
    for name in ("image", "text"):
        cosines = [hit.similarity for hit in mixed if hit.modality == name]
        assert cosines == sorted(cosines, reverse=True)  # the order inside a modality is that of the cosine


def test_a_copy_of_the_query_comes_first(collection, hubs, embeddings):
    for opened in (collection, hubs):
        for name in ("image", "text"):
            vector = embeddings.embeddings[name][3]
            assert opened.search(vector, k=1, balanced={name: 1.0})[0].row == f"{embeddings.ids[3]}/{name}"


def test_an_approximate_index_gives_the_same_ranking_where_it_finds_the_rows(tmp_path, embeddings):
    collection = collection_of(tmp_path / "c", embedding_set(with_gap(600)))
    update_balance(collection, BalanceSettings())
    update_indices(collection, "hnsw")
    shares = []
    for query in unit_rows(20, DIM, seed=8):
        exact = collection.search(query, k=10, exact=True, balanced={"text": 1.0})
        found = collection.search(query, k=10, exact=False, balanced={"text": 1.0})
        shares.append(len({hit.row for hit in exact} & {hit.row for hit in found}) / 10)
        both = {hit.row: hit.balanced for hit in exact}
        assert all(both.get(hit.row, hit.balanced) == hit.balanced for hit in found)
    assert statistics.fmean(shares) > 0.9


def test_a_query_of_several_modalities_lies_between_and_an_unknown_one_is_their_mean(collection):
    query = unit_rows(1, DIM, seed=9)[0]
    balance = collection.balance()
    alone = {name: balance.slopes(query, {name: 1.0})[1] for name in ("image", "text")}
    assert balance.slopes(query, {"image": 0.25, "text": 0.75})[1] == pytest.approx(
        0.25 * alone["image"] + 0.75 * alone["text"]
    )
    assert balance.slopes(query, {})[1] == pytest.approx(0.5 * alone["image"] + 0.5 * alone["text"])
    assert balance.slopes(query, {"image": 0.0, "text": 1.0})[1] == pytest.approx(alone["text"])


def test_level_and_spread_by_hand():
    scores = np.array([[*np.arange(20) / 10, 5.0], [0.5] * 21])
    out = np.zeros_like(scores, dtype=bool)
    out[0, 20] = True  # a copy of the query
    level, spread = level_and_spread(scores, out)
    assert level == pytest.approx([1.85, 0.5])  # the mean of 1.9 and 1.8: a tenth of 20
    assert spread == pytest.approx([statistics.pstdev(scores[0, :20]), 1.0])  # equal scores are left as they are
    level, spread = level_and_spread(scores, np.ones_like(out))
    assert (level.tolist(), spread.tolist()) == ([0, 0], [1, 1])


def test_offsets_of_two_modalities_by_hand():
    """One query: own rows score 5, 4, 3, 2, the others 1, 0.8, 0.6, 0.4; two of the first four are to be others."""
    best = np.array([[[5.0, 4, 3, 2], [1.0, 0.8, 0.6, 0.4]]])
    offsets = matching_offsets(best, np.array([0.5, 0.5]), 4)
    assert offsets[0] == 0
    assert offsets[1] == pytest.approx(2.2)  # 0.8 passes 3 there, and 0.6 does not
    assert found_shares(best, offsets + np.array([0, 1e-9]), 4).tolist() == [0.5, 0.5]
    assert found_shares(best, np.zeros(2), 4).tolist() == [1.0, 0.0]


def test_three_modalities_are_brought_to_their_shares():
    random = np.random.default_rng(0)
    best = -np.sort(-random.standard_normal((300, 3, 24)) - np.array([0, 4, -2.0])[None, :, None], axis=2)
    shares = np.array([0.6, 0.3, 0.1])
    assert found_shares(best, matching_offsets(best, shares, 24), 24) == pytest.approx(shares, abs=0.01)


def test_hub_correction_by_hand():
    scores = np.array([[0.9, 0.5, 0.1], [1.0, 0.4, 0.2]])
    assert nearest_mean(scores, 2) == pytest.approx([0.7, 0.3])  # the copy of the second row is left out
    assert nearest_mean(np.ones((1, 3)), 2) == pytest.approx([0.0])


def test_equal_hubs_change_no_ranking():
    rows = np.eye(4, dtype=np.float32)
    bank = Bank(np.full((1, 4), 0.5, dtype=np.float32), (None,))
    balance = Balance({"text": bank}, {"text": bank}, {"text": {"text": 0.0}}, {"text": 4}, 0.75)
    assert balance.hubs_of(rows, "text") == pytest.approx([0.375] * 4)
    nothing = Balance({"text": bank}, {"text": bank}, {"text": {"text": 0.0}}, {"text": 4}, 0.0)
    assert nothing.hubs_of(rows, "text") == pytest.approx([0.0] * 4)


def test_the_same_rows_and_seed_give_the_same_balance_in_any_order(tmp_path, collection):
    rows, ids = with_gap(), embedding_set(with_gap()).ids
    order = np.random.default_rng(3).permutation(N)
    turned = embedding_set({name: matrix[order] for name, matrix in rows.items()}, ids=[ids[at] for at in order])
    other = collection_of(tmp_path / "c", turned)
    first, second = (learn(one.table_version(), BalanceSettings()) for one in (collection, other))
    assert [bank.rows for bank in first.held.values()] == [bank.rows for bank in second.held.values()]
    for asked, offsets in first.offsets.items():
        assert second.offsets[asked] == pytest.approx(offsets, abs=1e-5)


def version_of(collection: Collection) -> int:
    return Collection.open(collection.uri).stored_balance().version


def test_few_new_rows_keep_the_balance_many_learn_it_again(tmp_path):
    collection = collection_of(tmp_path / "c", embedding_set(with_gap()))
    update_balance(collection, BalanceSettings())
    first = version_of(collection)
    few, _ = write(tmp_path / "c", embedding_set(with_gap(5, seed=1), start=N))
    update_balance(few, BalanceSettings())
    assert version_of(few) == first
    query = unit_rows(1, DIM, seed=2)[0]
    rows = few.search(query, k=2 * (N + 5), balanced={"text": 1.0})
    assert len(rows) == 2 * (N + 5)  # new rows are scored with what is there
    assert all(math.isfinite(hit.balanced) for hit in rows)
    many, _ = write(tmp_path / "c", embedding_set(with_gap(40, seed=2), start=2 * N))
    update_balance(many, BalanceSettings())
    second = version_of(many)
    assert second > first
    update_balance(many, BalanceSettings(hub_correction=0.5))
    assert version_of(many) > second
    assert many.balance().hub_correction == 0.5


def test_replaced_bank_rows_learn_it_again(tmp_path):
    collection = collection_of(tmp_path / "c", embedding_set(with_gap()))
    update_balance(collection, BalanceSettings())
    first = version_of(collection)
    update_balance(collection, BalanceSettings(), frozenset(["nobody/text"]))
    assert version_of(collection) == first
    update_balance(collection, BalanceSettings(), frozenset([collection.balance().held["text"].rows[0]]))
    assert version_of(collection) > first


def test_deleted_rows_leave_the_bank_with_the_collection(tmp_path):
    collection = collection_of(tmp_path / "c", embedding_set(with_gap()))
    update_balance(collection, BalanceSettings())
    gone = [collection.balance().held["text"].rows[0], collection.balance().held["image"].rows[1]]
    for key in gone:
        sample, _, name = key.rpartition("/")
        assert delete_rows(collection, f"id = '{sample}' AND modality = '{name}'") == 1
    stored = connect(collection.uri).open_table(BALANCE_TABLE).to_arrow()["row"].to_pylist()
    assert not set(gone) & set(stored)
    again = Collection.open(collection.uri)
    assert len(again.search(unit_rows(1, DIM, seed=2)[0], k=3, balanced={"text": 1.0})) == 3
    first = version_of(again)
    delete_rows(again, "id > 's05'")
    update_balance(again, BalanceSettings())
    assert version_of(again) > first
    delete_rows(again, "modality = 'image'")  # nothing of one modality is left: hits go by cosine
    bare = Collection.open(collection.uri)
    assert bare.balance() is None
    assert bare.search(unit_rows(1, DIM, seed=2)[0], k=1, balanced={"text": 1.0})[0].balanced is None


def test_a_collection_that_was_indexed_before_says_so_and_orders_by_cosine(tmp_path, embeddings):
    collection = collection_of(tmp_path / "c", embeddings)
    query = unit_rows(1, DIM, seed=7)[0]
    hits = collection.search(query, k=5, balanced={"text": 1.0})
    assert [(hit.row, hit.score) for hit in hits] == brute_force(keyed(embeddings), query, 5)
    assert {hit.balanced for hit in hits} == {None}
    assert "'gapless index' with the same data learns it" in collection.why_unbalanced()
    update_balance(collection, BalanceSettings())
    assert collection.why_unbalanced() is None
    assert collection.search(query, k=5, balanced={"text": 1.0})[0].balanced is not None


@pytest.mark.parametrize(
    ("vectors", "reason"),
    [
        ({"text": unit_rows(30)}, "rows of one modality only"),
        ({"image": unit_rows(3), "text": unit_rows(3, seed=1)}, "fewer than 8 different rows of image"),
        (dict.fromkeys(("image", "text"), np.tile(unit_rows(1), (30, 1))), "fewer than 8 different rows of image"),
    ],
    ids=["one modality", "3 rows", "all rows equal"],
)
def test_what_cannot_be_balanced_has_a_reason_and_a_search(tmp_path, vectors, reason):
    collection = collection_of(tmp_path / "c", embedding_set(vectors))
    balancing = update_balance(collection, BalanceSettings())
    assert (balancing.offsets, balancing.reason) == (None, reason)
    hits = collection.search(unit_rows(1, seed=4)[0], k=3, balanced={"text": 1.0})
    assert len(hits) == 3
    assert {hit.balanced for hit in hits} == {None}


def test_the_least_that_can_be_balanced(tmp_path):
    collection = collection_of(tmp_path / "c", embedding_set(with_gap(8)))
    assert update_balance(collection, BalanceSettings(hub_correction=1.0)).reason is None
    hits = collection.search(unit_rows(1, DIM, seed=4)[0], k=16, balanced={"text": 1.0})
    assert len({hit.row for hit in hits}) == 16
    assert all(math.isfinite(hit.balanced) for hit in hits)


@pytest.mark.parametrize("weight", [-0.1, 1.5, math.nan, "much", True])
def test_a_correction_out_of_range_is_wrong_usage(weight):
    with pytest.raises(UsageError, match="hub_correction is a number from 0"):
        checked_correction(weight)


def test_a_bank_of_texts_is_read_and_refused(tmp_path):
    bank = tmp_path / "bank.txt"
    bank.write_text("\n".join([f" liver  cyst {number}" for number in range(9)] + ["", "liver cyst 3"]))
    assert texts_of(bank) == [f"liver cyst {number}" for number in range(9)]
    assert texts_of(None) is None
    with pytest.raises(UsageError, match="is no file"):
        texts_of(tmp_path / "absent.txt")
    with pytest.raises(UsageError, match="holds 1 different texts; 8 are the least"):
        texts_of(["cyst"] * 20)
    bank.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataRefused, match="UTF-8"):
        texts_of(bank)


def test_a_given_bank_is_asked_and_stays(tmp_path):
    collection = collection_of(tmp_path / "c", embedding_set(with_gap()))
    texts = with_gap(20, seed=9)["text"]
    update_balance(collection, BalanceSettings(texts=texts))
    assert collection.balance().asked["text"].vectors == pytest.approx(texts)
    update_balance(collection, BalanceSettings(hub_correction=0.5))  # learnt again, with the texts that were given
    again = Collection.open(collection.uri).balance()
    assert again.hub_correction == 0.5
    assert again.asked["text"].vectors == pytest.approx(texts)
    assert again.asked["image"].rows == again.held["image"].rows


def test_a_foreign_balance_is_refused_and_a_later_one_is_not_used(tmp_path):
    collection = collection_of(tmp_path / "c", embedding_set(with_gap(20)))
    database = connect(collection.uri)
    database.create_table(BALANCE_TABLE, data=pa.table({"x": [1]}))
    with pytest.raises(DataRefused, match="holds a balance that 'gapless index' did not write"):
        collection.balance()
    later = pa.table({"x": [1]}).replace_schema_metadata({BALANCE_KEY: json.dumps({"version": 2})})
    database.create_table(BALANCE_TABLE, data=later, mode="overwrite")
    assert Collection.open(collection.uri).balance() is None
