"""Filters: a small part of SQL that is read word by word; everything else is a sentence, and changes nothing."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from search_samples import collection_of, embedding_set, unit_rows

from gapless.core.errors import UsageError
from gapless.search.filters import KEYWORDS, prepare_filter

TYPES = ["CT", "MR", "x-ray", None, "it's"]
AGES = ["4", "40", "400"]
FIELDS = {"id": "id", "modality": "modality", "group": "group", "Finding site": "label_Finding_site", "age": "age"}


@pytest.fixture(scope="module")
def rows():
    return [
        {"type": TYPES[number % 5], "age": AGES[number % 3], "order": f"o{number}", "select": "x", "two words": "y"}
        for number in range(60)
    ]


@pytest.fixture(scope="module")
def collection(rows, tmp_path_factory):
    drawn = embedding_set(
        {"text": unit_rows(60)},
        labels={name: [row[name] for row in rows] for name in rows[0]},
        captions=[f"finding {number}" for number in range(60)],
        groups=[f"case {number // 2}" for number in range(60)],
        splits=["train" if number < 40 else "test" for number in range(60)],
    )
    return collection_of(tmp_path_factory.mktemp("filters") / "c", drawn)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ("type = 'CT'", lambda n, r: r["type"] == "CT"),
        ("TYPE = 'CT'", lambda n, r: r["type"] == "CT"),
        ("type = 'it''s'", lambda n, r: r["type"] == "it's"),
        ("type is null", lambda n, r: r["type"] is None),
        ("type in ('CT', 'MR') and not age = '4'", lambda n, r: r["type"] in ("CT", "MR") and r["age"] != "4"),
        ("type <> 'CT'", lambda n, r: r["type"] not in ("CT", None)),
        ("cast(age as int) > 4", lambda n, r: int(r["age"]) > 4),
        ("cast(age as double) between 5.5 and 50", lambda n, r: r["age"] == "40"),
        (
            "split = 'test' or (caption like '%7' and age='40')",
            lambda n, r: n >= 40 or (n % 10 == 7 and r["age"] == "40"),
        ),
        ("group = 'case 3'", lambda n, r: n // 2 == 3),
        ("`order` = 'o7'", lambda n, r: n == 7),
        ("order = 'o7'", lambda n, r: n == 7),
        ("select = 'x' and \"two words\" = 'y'", lambda n, r: True),
        ("lower(type) = 'ct' or starts_with(caption, 'finding 5')", lambda n, r: r["type"] == "CT" or str(n)[0] == "5"),
        ("regexp_like(caption, '[02468]$')", lambda n, r: n % 2 == 0),
        ("length(age) >= 2", lambda n, r: r["age"] != "4"),
        ("caption ilike 'FINDING 1_'", lambda n, r: 10 <= n < 20),
        ("true", lambda n, r: True),
        ("source = 'drawn' and has_thumbnail = false", lambda n, r: True),
    ],
)
def test_a_filter_means_what_it_says(collection, rows, where, expected):
    kept = {f"finding {number}" for number, row in enumerate(rows) if expected(number, row)}
    assert 0 < len(kept) <= 60
    hits = collection.search(unit_rows(1)[0], k=60, where=where)
    assert {hit.caption for hit in hits} == kept
    assert collection.count(where) == len(kept)


HOSTILE = [
    "",
    "   ",
    "type",
    "1",
    "type = 'CT'; DROP TABLE rows",
    "type = 'CT' -- and more",
    "type = 'CT' /* more */",
    "type = 'CT",
    "type = CT",
    "type == = 'CT'",
    "row in (select row from rows)",
    "exists (select 1)",
    "read_csv('/etc/passwd') = 'x'",
    "repeat(caption, 1000000000) = 'x'",
    "uuid() = 'x'",
    "version() = 'x'",
    "vector is not null",
    "thumbnail is not null",
    "content = 'x'",
    "_rowid = 3",
    "rows.type = 'CT'",
    "type ~ 'CT'",
    "type::int > 3",
    "age > 'five'",
    "cast(type as int) > 5",
    "cast(age as blob) = 'x'",
    "$1 = 'x'",
    "type = ?",
    "type = 'a' || 'b'",
    "type = \x00'CT'",
    "('CT'",
    "(" * 50 + "true" + ")" * 50,
    ")(",
    "not " * 2000 + "true",
    "type = '" + "x" * 20_000 + "'",
    "`nothing` = 'x'",
    '"" = 1',
    "type LIKE",
    "regexp_like(caption, '(((')",
    "lower = 'x'",
    "lower(1, 2, 3) = 'x'",
    "かな = 'x'",
]


@pytest.mark.parametrize("where", HOSTILE, ids=range(len(HOSTILE)))
def test_everything_else_is_one_sentence_and_leaves_the_collection_as_it_was(collection, where):
    version = collection.table.version
    with pytest.raises(UsageError) as error:
        collection.search(unit_rows(1)[0], where=where)
    with pytest.raises(UsageError):
        collection.count(where)
    assert len(str(error.value)) < 500
    assert "\n" not in str(error.value)
    assert ".rs" not in str(error.value)
    assert collection.table.version == version
    assert collection.count() == 60


def test_the_engine_alone_would_take_what_follows_a_semicolon(collection):
    """The control: the same text, not read by us."""
    assert collection.table.count_rows("type = 'CT'; DROP TABLE rows") == 12


def test_an_unknown_field_lists_the_known_ones():
    with pytest.raises(
        UsageError, match=r"unknown field 'modalty' in a filter; did you mean 'modality'\? fields: id, modality"
    ):
        prepare_filter("modalty = 'x'", FIELDS)


def test_names_become_quoted_columns():
    assert prepare_filter("AGE='4' AND `Finding site`<>'x'", FIELDS) == "`age` = '4' AND `label_Finding_site` <> 'x'"


@settings(max_examples=400, deadline=None)
@given(st.text(alphabet="aeg'\"`();-=<>/* \n\\0%inotr", max_size=40))
def test_nothing_gets_through_but_fields_literals_and_operators(where):
    try:
        prepared = prepare_filter(where, FIELDS)
    except UsageError:
        return
    outside = "".join(part for number, part in enumerate(prepared.replace("''", "").split("'")) if number % 2 == 0)
    assert outside.count("`") % 2 == 0
    named = [part for number, part in enumerate(outside.split("`")) if number % 2 == 1]
    assert set(named) <= set(FIELDS.values())
    bare = "".join(part for number, part in enumerate(outside.split("`")) if number % 2 == 0)
    assert ";" not in bare
    assert "--" not in bare
    assert "/*" not in bare
    words = {word for word in bare.replace("(", " ").replace(")", " ").split() if word[0].isalpha()}
    assert all(KEYWORDS.fullmatch(word) for word in words)
