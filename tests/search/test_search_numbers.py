"""Labels of numbers are compared as numbers, codes and words as text, and a comparison that mixes them is a sentence.

Plain Python over the same values says what each filter must let through.
"""

import unicodedata

import numpy as np
import pyarrow as pa
import pytest
from search_samples import collection_of, embedding_set, unit_rows, write

from gapless.core.errors import DataRefused, UsageError
from gapless.search.build import delete_rows
from gapless.search.indices import update_indices
from gapless.search.kinds import is_number, kind_of

AGES = ["7", "8", "9", "60", "61", "100", None, "0", "60.5", "-3", "2e1", "77"]
CODES = [f"{number * 7:03d}" for number in range(12)]  # 000, 007, 014, ...
DOSES = ["1", "20", "unknown", "3", None, "400", "5", "6", "7", "8", "9", "10"]
SERIALS = [str(12345678901234567 + number) for number in range(12)]  # a float holds no two neighbours of these
DATES = [f"2024-{1 + number % 12:02d}-03" for number in range(12)]
SITES = ["Gr\u00f6\u00dfe", unicodedata.normalize("NFD", "Gr\u00f6\u00dfe"), *["Fu\u00df"] * 10]
LABELS = {"age": AGES, "code": CODES, "dose": DOSES, "serial": SERIALS, "taken on": DATES, "site": SITES}
LABELS |= {"nothing": [None] * 12}


@pytest.fixture(scope="module")
def collection(tmp_path_factory):
    made = embedding_set({"text": unit_rows(12)}, labels=LABELS, captions=[f"finding {n}" for n in range(12)])
    return collection_of(tmp_path_factory.mktemp("numbers") / "c", made)


def rows_of(collection, where=None, **options):
    hits = collection.search(unit_rows(1)[0], k=99, where=where, **options)
    assert len(hits) == collection.count(where) or options
    return {int(hit.caption.split()[1]) for hit in hits}


def by_age(passes):
    return {row for row, age in enumerate(AGES) if age is not None and passes(float(age))}


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("age > 60", by_age(lambda age: age > 60)),
        ("age > '60'", by_age(lambda age: age > 60)),
        ("60 < age", by_age(lambda age: age > 60)),
        ("AGE >= 60.0", by_age(lambda age: age >= 60)),
        ("age = 60", by_age(lambda age: age == 60)),
        ("age = '60.0'", by_age(lambda age: age == 60)),
        ("age <> 7", by_age(lambda age: age != 7)),
        ("age IN (7, '8', 100)", by_age(lambda age: age in (7, 8, 100))),
        ("age NOT IN (7, 8)", by_age(lambda age: age not in (7, 8))),
        ("age BETWEEN 8 AND '20'", by_age(lambda age: 8 <= age <= 20)),
        ("age NOT BETWEEN 8 AND 20", by_age(lambda age: not 8 <= age <= 20)),
        ("NOT age > 60", by_age(lambda age: age <= 60)),
        ("age < 0 OR age = 100", by_age(lambda age: age < 0 or age == 100)),
        ("age = -3", by_age(lambda age: age == -3)),
        ("(age) > (60)", by_age(lambda age: age > 60)),
        ("age * 2 + 1 > 121", by_age(lambda age: age * 2 + 1 > 121)),
        ("age / 10 = 6", by_age(lambda age: age / 10 == 6)),
        ("age % 2 = 0", by_age(lambda age: age % 2 == 0)),
        ("age > 1e2 OR age > .5e2", by_age(lambda age: age > 50)),
        ("age IS NULL", {6}),
        ("age IS NOT NULL AND age < 8", by_age(lambda age: age < 8)),
        ("age LIKE '6%'", {3, 4, 8}),
        ("length(age) = 2", {3, 4, 9, 11}),
        ("cast(age as double) > 60", by_age(lambda age: age > 60)),
        ("code = '007'", {1}),
        ("code > '050'", {row for row, code in enumerate(CODES) if code > "050"}),
        ("cast(code as int) = 7", {1}),
        ("dose > '5'", {row for row, dose in enumerate(DOSES) if dose is not None and dose > "5"}),
        ("serial = '12345678901234569'", {2}),
        ("\"taken on\" >= '2024-11-01'", {10, 11}),
        ("site = 'Gr\u00f6\u00dfe'", {0, 1}),
        ("site = 'Gro\u0308\u00dfe'", {0, 1}),
        ("site IN ('Gr\u00f6\u00dfe', 'x')", {0, 1}),
        ("site <> 'Gr\u00f6\u00dfe'", set(range(2, 12))),
        ("nothing > 5 OR nothing = 'x'", set()),
        ("nothing IS NULL", set(range(12))),
    ],
)
def test_a_comparison_of_numbers_is_one(collection, where, expected):
    assert rows_of(collection, where) == expected


def test_letters_would_be_compared_without_it(collection):
    """The control: the engine alone, on the text that is stored."""
    assert collection.table.count_rows("age > '60'") == len([age for age in AGES if age and age > "60"])
    assert rows_of(collection, "age > '60'") != {row for row, age in enumerate(AGES) if age and age > "60"}


@pytest.mark.parametrize(
    ("where", "sentence"),
    [
        ("age > 'sixty'", "age holds numbers, and 'sixty' is none"),
        ("age IN (5, 'six')", "'six' is none"),
        ("age BETWEEN 5 AND 'ten'", "'ten' is none"),
        ("modality > 5", "modality holds text, and 5 is a number; in quotes"),
        ("code = 7", r"code holds text \(such as '000'\), and 7 is a number; in quotes"),
        ("dose > 5", r"dose holds text \(such as 'unknown'\), and 5 is a number"),
        ("serial = 12345678901234567", "serial holds text"),
        ("age > site", "age holds numbers and site holds text"),
        ("has_thumbnail = 'yes'", "has_thumbnail holds true or false, and 'yes' is none"),
        ("has_thumbnail > false", "which has no order"),
        ("age = true", "age holds numbers and TRUE gives true or false"),
        ("age + 'x' > 1", "'x' gives text"),
        ("site + 1 = 2", "site holds text"),
        ("age = NULL", "write IS NULL"),
        ("age IN (1, NULL)", "write IS NULL"),
        ("age", "age is no comparison"),
        ("age > 60 AND site", "site is no comparison"),
        ("0 < age < 60", "'<' is not expected there"),
        ("age == 60", "write = once"),
        ("age > 1e999", "too large"),
        ("age > 60 60", "'60' is not expected there"),
        ("agee > 60", "unknown field 'agee' in a filter; did you mean 'age'"),
        ("site = Fuss", "unknown field 'Fuss' .* single quotes"),
        ('site = "Fuss"', "unknown field 'Fuss' .* single quotes"),
        ("site = \u2018Fuss\u2019", "straight quotes"),
        ("site = 'Fuss", "a quote is not closed"),
        ("site = '\ud83d'", "surrogate"),
        ("site LIKE 5", "5 gives numbers, and text is needed there"),
        ("lower(5) = 'x'", "text is needed there"),
        ("lower(site, site) = 'x'", "lower takes 1 value, got 2"),
        ("now() > 5", "there is no function 'now'"),
        ("age NOT 5", "follows NOT"),
        ("age IS 5", "follows IS"),
        ("age > ", "ends too early"),
        ("age > 60)", "parentheses do not match"),
        ("- - - - -age > 5" * 9, "not expected there"),
        ("NOT " * 40 + "age > 5", "too deep"),
        ("-" * 40 + "age > 5", "too deep"),
    ],
)
def test_what_cannot_be_compared_is_a_sentence(collection, where, sentence):
    with pytest.raises(UsageError, match=sentence) as error:
        collection.search(unit_rows(1)[0], where=where)
    assert len(str(error.value)) < 400
    assert "damaged" not in str(error.value)


@pytest.mark.parametrize("where", [5, None, b"age > 5", ["age > 5"]])
def test_a_filter_is_a_string(collection, where):
    if where is None:
        assert len(rows_of(collection, where)) == 12
        return
    with pytest.raises(UsageError, match="a filter is a string"):
        collection.search(unit_rows(1)[0], where=where)


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        ({"age": 60}, {3}),
        ({"age": "60"}, {3}),
        ({"age": 60.5}, {8}),
        ({"age": 20}, {10}),
        ({"code": "007"}, {1}),
        ({"code": 7}, set()),
        ({"age": 61, "code": "028"}, {4}),
        ({"serial": 12345678901234570}, {3}),
        ({"site": "Fu\u00df"}, set(range(2, 12))),
    ],
)
def test_values_of_labels_are_compared_likewise(collection, labels, expected):
    assert rows_of(collection, labels=labels) == expected


@pytest.mark.parametrize("labels", [{"age": "sixty"}, {"age": True}, {"age": None}, {"agee": 5}, {"age": float("nan")}])
def test_a_value_that_no_row_can_have_is_a_sentence(collection, labels):
    with pytest.raises(UsageError):
        collection.search(unit_rows(1)[0], labels=labels)


@pytest.mark.parametrize("options", [{"words": "finding"}, {"exact": True}, {"exact": False}])
def test_every_way_of_searching_compares_numbers(tmp_path, options):
    made = embedding_set({"text": unit_rows(12)}, labels=LABELS, captions=[f"finding {n}" for n in range(12)])
    collection = collection_of(tmp_path / "c", made)
    update_indices(collection, "hnsw" if options.get("exact") is False else None)
    assert rows_of(collection, "age > 60", **options) == by_age(lambda age: age > 60)


def test_rows_are_deleted_by_numbers(tmp_path):
    collection = collection_of(tmp_path / "c", embedding_set({"text": unit_rows(12)}, labels={"age": AGES}))
    assert delete_rows(collection, "age > 60") == 4
    assert collection.count("age > 60") == 0
    assert collection.count("age IN (7, 8, 9)") == 3


@pytest.mark.parametrize(
    ("values", "kind"),
    [
        (["1", "2.5", "-3", "+4", ".5", "5.", "1e-7", "0", "0.0", None], "number"),
        (["1", "007"], "text"),
        (["00"], "text"),
        (["1", "n/k"], "text"),
        (["1,5"], "text"),
        (["1 000"], "text"),
        (["60 "], "text"),
        (["nan"], "text"),
        (["inf"], "text"),
        (["0x10"], "text"),
        (["1_000"], "text"),
        (["\uff16\uff10"], "text"),
        (["123456789012345"], "number"),
        (["1234567890123456"], "text"),
        (["1e999"], "text"),
        (["true"], "text"),
        (["2024-01-03"], "text"),
        ([""], "text"),
        ([None, None], "empty"),
        ([], "empty"),
    ],
)
def test_what_a_number_is(values, kind):
    assert kind_of(pa.array(values, pa.string())).name == kind
    if kind == "number":
        assert all(np.isfinite(float(value)) for value in values if value is not None)
    assert kind == "empty" or all(is_number(value) for value in values if value is not None) == (kind == "number")


def test_words_for_a_label_of_numbers_are_refused_until_they_are_allowed(tmp_path):
    def samples(start, ages):
        return embedding_set({"text": unit_rows(len(ages), seed=start)}, start=start, labels={"age": ages})

    collection = collection_of(tmp_path / "c", samples(0, ["7", "60", None]))
    assert collection.label_kind("age") == "number"
    version = collection.table.version
    with pytest.raises(
        DataRefused, match=r"'age' .*numbers alone, and 1 samples bring words \(s\d+: 'unknown'\).*--text_"
    ):
        write(tmp_path / "c", samples(10, ["8", "unknown", None]))
    assert collection.table.version == version
    write(tmp_path / "c", samples(10, ["8", "9.5", None]))
    assert collection.count("age < 10") == 3
    write(tmp_path / "c", samples(20, ["unknown"]), text_labels=["age"])
    assert collection.label_kind("age") == "text"
    with pytest.raises(UsageError, match=r"such as 'unknown'"):
        collection.count("age < 10")
    write(tmp_path / "c", samples(30, ["5", "x"]))  # text takes anything
    assert collection.count("age = '60'") == 1


def test_a_label_without_values_takes_its_kind_from_the_first(tmp_path):
    def samples(start, ages):
        return embedding_set({"text": unit_rows(len(ages), seed=start)}, start=start, labels={"age": ages})

    collection = collection_of(tmp_path / "c", samples(0, [None, "nan", "-"]))
    assert (collection.label_kind("age"), collection.count("age IS NULL")) == ("empty", 3)
    write(tmp_path / "c", samples(10, ["70", "8.0"]))
    assert (collection.label_kind("age"), collection.count("age > 60")) == ("number", 1)
    assert collection.count("age = 8") == 1
