"""Exact search gives what brute force gives: ids, scores and order, ties included."""

from pathlib import Path

import numpy as np
import pytest
from search_samples import brute_force, collection_of, embedding_set, keyed, rows_with_ties, unit_rows

from gapless.core.errors import DataRefused, UsageError
from gapless.search.collection import Collection
from gapless.search.indices import KINDS
from gapless.search.row_readers import check_unit_norm

ANSWERS = ("yes", "no", "perhaps")


@pytest.fixture(scope="module")
def embeddings():
    count = 300
    return embedding_set(
        {"image": rows_with_ties(count, 12), "text": rows_with_ties(count, 12, seed=0)[::-1].copy()},
        labels={"answer": [ANSWERS[number % 3] for number in range(count)]},
        captions=[f"finding {number % 5} of the {'left' if number % 2 else 'right'} side" for number in range(count)],
    )


@pytest.fixture(scope="module")
def path(embeddings, tmp_path_factory):
    place = tmp_path_factory.mktemp("exact") / "c"
    collection_of(place, embeddings)
    return place


def found(hits):
    return [(hit.row, hit.score) for hit in hits]


@pytest.mark.parametrize("memory_bytes", [1 << 30, 0], ids=["held in memory", "read at each search"])
@pytest.mark.parametrize("k", [1, 7, 40, 600, 1000])
def test_ids_scores_and_order_are_those_of_brute_force(path, embeddings, memory_bytes, k):
    collection = Collection.open(path, memory_bytes)
    rows = keyed(embeddings)
    for query in (*unit_rows(3, seed=9), embeddings.embeddings["image"][4]):
        assert found(collection.search(query, k=k)) == brute_force(rows, query, k)


def test_ties_at_the_boundary_are_where_the_engines_own_search_differs(path, embeddings):
    """The control: without our ordering the same question has another answer."""
    query = embeddings.embeddings["image"][4]
    collection = Collection.open(path)
    engine = collection.table.search(query, vector_column_name="vector").distance_type("dot").limit(20).to_arrow()
    expected = [key for key, _ in brute_force(keyed(embeddings), query, 20)]
    assert engine["row"].to_pylist() != expected
    assert [hit.row for hit in collection.search(query, k=20)] == expected


def test_a_collapsed_model_still_has_one_order(tmp_path):
    same = embedding_set({"image": rows_with_ties(50, 1)})
    collection = collection_of(tmp_path / "c", same)
    hits = collection.search(same.embeddings["image"][0], k=5)
    assert [hit.row for hit in hits] == sorted(keyed(same))[:5]
    assert {hit.score for hit in hits} == {1.0}


def test_near_ties_in_fp32_are_told_apart_by_the_exact_sum(tmp_path):
    """Rows that differ in the last bits: an fp32 product may order them either way."""
    base = unit_rows(1, 512)[0]
    noise = np.random.default_rng(3).standard_normal((400, 512)).astype(np.float32)
    rows = base + 3e-7 * noise
    near = embedding_set({"image": np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)})
    collection = collection_of(tmp_path / "c", near)
    assert found(collection.search(base, k=60)) == brute_force(keyed(near), base, 60)
    naive = np.argsort(-(near.embeddings["image"] @ base), kind="stable")[:60]
    assert [f"{near.ids[row]}/image" for row in naive] != [hit.row for hit in collection.search(base, k=60)]


def test_filters_and_modalities_narrow_before_the_best_are_taken(path, embeddings):
    collection = Collection.open(path)
    rows, query = keyed(embeddings), unit_rows(1, seed=5)[0]
    answer = dict(zip(embeddings.ids, embeddings.labels["answer"], strict=True))
    kept = [key for key in rows if answer[key.split("/")[0]] == "no" and key.endswith("/text")]
    hits = collection.search(query, k=30, modality="text", where="answer = 'no'")
    assert found(hits) == brute_force(rows, query, 30, kept)
    assert {hit.labels["answer"] for hit in hits} == {"no"}
    assert collection.count("answer = 'no' and modality = 'text'") == len(kept)
    assert collection.search(query, where="answer = 'never'") == []


def test_hybrid_search_is_reciprocal_rank_fusion(path, embeddings):
    collection = Collection.open(path)
    query = unit_rows(1, seed=6)[0]
    wanted = "finding 3 left"
    hits = collection.search(query, k=10, modality="text", words=wanted)
    by_vector = [hit.row for hit in collection.search(query, k=100, modality="text")]
    by_words = collection.table.search(wanted, query_type="fts").where("modality = 'text'").limit(100).to_arrow()
    ordered = sorted(
        zip(by_words["row"].to_pylist(), by_words["_score"].to_pylist(), strict=True), key=lambda r: (-r[1], r[0])
    )
    fused: dict[str, float] = {}
    for ranking in (by_vector, [row for row, _ in ordered]):
        for rank, row in enumerate(ranking, 1):
            fused[row] = fused.get(row, 0.0) + 1 / (60 + rank)
    expected = sorted(fused.items(), key=lambda pair: (-np.float32(pair[1]), pair[0]))[:10]
    assert [hit.row for hit in hits] == [row for row, _ in expected]
    assert [hit.score for hit in hits] == pytest.approx([score for _, score in expected], abs=1e-6)
    assert "finding 3" in hits[0].caption


@pytest.mark.parametrize(
    "words", ["", "  ", '"', "AND (", "caption:x", "*", "a" * 10_000, "\u0000", "肺", "' OR 1=1 --"]
)
def test_any_words_are_words(path, words):
    collection = Collection.open(path)
    assert len(collection.search(unit_rows(1)[0], words=words, k=3)) == 3


@pytest.mark.parametrize("kind", KINDS)
def test_an_approximate_index_reports_its_recall_and_exact_stays_exact(tmp_path, kind):
    from gapless.search.indices import update_indices

    drawn = embedding_set({"image": unit_rows(2000, 32)})
    collection = collection_of(tmp_path / "c", drawn)
    recall = update_indices(collection, kind)
    assert recall is not None
    query = unit_rows(1, 32, seed=8)[0]
    expected = brute_force(keyed(drawn), query, 10)
    assert found(collection.search(query, exact=True)) == expected
    through_index = found(collection.search(query))
    assert dict(through_index).items() <= dict(brute_force(keyed(drawn), query, 2000)).items()
    rows, keys = drawn.embeddings["image"], list(keyed(drawn))
    shares = []
    for row in np.random.default_rng(1).permutation(2000)[:100]:
        nearest = {keys[other] for other in np.argsort(-(rows @ rows[row]))[:11] if other != row}
        shares.append(len(nearest & {hit.row for hit in collection.search(rows[row], k=11)}) / 10)
    assert recall["recall@10"] == pytest.approx(np.mean(shares), abs=0.1), "the recall of what a user gets"


@pytest.mark.parametrize(("dim", "kind"), [(8, "ivf-rq"), (12, "ivf-flat")])
def test_the_size_decides_about_an_index(tmp_path, dim, kind):
    from gapless.search.indices import update_indices

    collection = collection_of(tmp_path / "c", embedding_set({"image": unit_rows(600, dim)}))
    assert not collection.table_version().has_index
    assert update_indices(collection, None, above=1000) is None
    made = update_indices(collection, None, above=500)
    assert (made["kind"], made["recall@10"]) == (kind, pytest.approx(1.0, abs=0.05))
    assert collection.table_version().has_index


def test_vectors_that_no_model_gave_are_refused():
    rows = unit_rows(3)
    check_unit_norm(rows)
    rows[1, 0] = np.nan
    rows[2] *= 2
    with pytest.raises(DataRefused, match="2 vectors"):
        check_unit_norm(rows)


@pytest.mark.parametrize("query", [np.zeros(16), np.ones(16), np.full(16, np.nan), unit_rows(1, 8)[0], np.eye(16)])
def test_a_query_is_one_unit_norm_vector(path, query):
    with pytest.raises(UsageError, match="unit-norm vector of 16"):
        Collection.open(path).search(query)


def test_other_questions_to_a_collection(path, embeddings):
    collection = Collection.open(path)
    key = f"{embeddings.ids[7]}/image"
    np.testing.assert_array_equal(collection.vector_of(key), embeddings.embeddings["image"][7])
    assert collection.get(key).caption == embeddings.captions[7]
    assert collection.get("nobody/image") is collection.vector_of("nobody") is collection.thumbnail_of("") is None
    assert collection.thumbnail_of(key) is None
    assert collection.label_values() == {"answer": [("no", 200), ("perhaps", 200), ("yes", 200)]}
    pairs = collection.pairs(40)
    assert pairs.ids == Collection.open(path).pairs(40).ids
    assert len(set(pairs.ids)) == 40
    row_of = {sample: row for row, sample in enumerate(embeddings.ids)}
    rows = [row_of[sample] for sample in pairs.ids]
    for name, matrix in embeddings.embeddings.items():
        np.testing.assert_array_equal(pairs.vectors[name], matrix[rows])
    assert pairs.captions == [embeddings.captions[row] for row in rows]
    assert pairs.labels["answer"] == [embeddings.labels["answer"][row] for row in rows]
    with pytest.raises(UsageError, match="known: image, text"):
        collection.search(unit_rows(1)[0], modality="sound")
    with pytest.raises(UsageError, match="at least 1"):
        collection.search(unit_rows(1)[0], k=0)


def test_a_path_or_its_text_opens_the_same(path):
    assert Collection.open(Path(path)).count() == Collection.open(str(path)).count() == 600
