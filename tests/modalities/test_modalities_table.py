"""Tables: percentiles against ranks, present bits, categories, what is refused, and queries."""

import json

import numpy as np
import pytest
import torch

from gapless.core.errors import DataRefused, UsageError
from gapless.modalities.table import TableInput, TableModality
from gapless.modalities.table_fields import encode, fit_field, percentile, width
from gapless.models.encoders import build_encoder
from gapless.models.spec import encoder_spec, input_spec, with_encoder, with_fitted_input

COLUMNS = ("hb", "sex", "crp")


def fitted(rows, **settings):
    return TableModality(TableModality.fit(TableInput(columns=COLUMNS, **settings), rows))


def rows_of(count=40):
    random = np.random.default_rng(0)
    return [
        {"hb": float(random.normal(12, 2)), "sex": "FM"[row % 2], "crp": None if row % 3 else float(row)}
        for row in range(count)
    ]


# ---- percentiles ----------------------------------------------------------------------------------------------------


def test_a_percentile_is_the_middle_rank_of_the_training_values():
    values = np.random.default_rng(1).choice([3.0, 5.0, 5.5, 8.0, 13.0], size=2001)
    quantiles = np.asarray(fit_field("x", list(values), quantiles=1000)["quantiles"])
    for value in np.unique(values):
        middle = ((values < value).mean() + (values <= value).mean()) / 2
        assert percentile(value, quantiles) == pytest.approx(middle, abs=2e-3)


def test_percentiles_are_monotonic_and_even_on_training_values():
    values = np.random.default_rng(2).lognormal(size=5000)
    quantiles = np.asarray(fit_field("x", list(values))["quantiles"])
    ranks = np.array([percentile(value, quantiles) for value in np.sort(values)])
    assert (np.diff(ranks) >= 0).all()
    assert ranks == pytest.approx((np.arange(5000) + 0.5) / 5000, abs=0.01)


def test_a_percentile_ignores_the_unit_of_its_number():
    values = np.random.default_rng(3).normal(size=100)
    mmol, mg = (np.asarray(fit_field("x", list(factor * values))["quantiles"]) for factor in (1.0, 18.0))
    for value in values[:20]:
        assert percentile(value, mmol) == pytest.approx(percentile(18.0 * value, mg))


def test_a_constant_number_is_in_the_middle_and_others_are_at_the_ends():
    field = fit_field("x", [7.0] * 9)
    assert [encode("x", value, field).tolist() for value in (7.0, 6.0, 8.0, None)] == [
        [0.5, 1.0],
        [0.0, 1.0],
        [1.0, 1.0],
        [0.5, 0.0],
    ]


# ---- fields and rows ------------------------------------------------------------------------------------------------


def test_a_row_is_worked_by_hand():
    rows = [{"hb": hb, "sex": sex} for hb, sex in zip([8, 10, 12, 14, 16], "ffmmm", strict=True)]
    table = fitted(rows, min_rows=2)
    assert table.prepare({"hb": 12, "sex": "M", "crp": None}).tolist() == [0.5, 1, 0, 1, 0, 1, 0]
    assert table.prepare({"hb": 11, "sex": "x"}).tolist() == [0.375, 1, 0, 0, 1, 1, 0]
    assert table.prepare({"sex": " f "}).tolist() == [0.5, 0, 1, 0, 0, 1, 0]
    assert table.prepare({"crp": 3.0}).tolist() == [0.5, 0, 0, 0, 0, 0, 1]  # a field that no training row has


def test_rare_categories_are_grouped_and_never_stored():
    cells = ["icu"] * 9 + ["ward"] * 7 + ["anna mueller", "b", "b"]
    field = fit_field("place", cells, min_rows=3)
    assert field["categories"] == ["icu", "ward"]
    assert (
        encode("place", "anna mueller", field).tolist() == encode("place", "never seen", field).tolist() == [0, 0, 1, 1]
    )
    assert fit_field("place", cells, min_rows=1, max_categories=1)["categories"] == ["icu"]
    assert "anna mueller" in fit_field("place", cells, min_rows=1)["categories"]  # the control


def test_numbers_named_as_categories_are_names():
    rows = [{"ward": ward} for ward in [1, 1.0, "1", "1.0", 2, 2]]
    table = TableModality(TableModality.fit(TableInput(columns=("ward",), categories=("ward",), min_rows=1), rows))
    assert table.settings.fields["ward"]["categories"] == ["1", "2"]
    assert table.prepare({"ward": 1}).tolist() == table.prepare({"ward": "1.0"}).tolist() == [1, 0, 0, 1]


def test_statistics_survive_json_and_fill_the_size_of_the_default_encoder():
    mapping = {"input": {"kind": "table", "columns": list(COLUMNS)}}
    assert with_encoder("labs", mapping)["encoder"]["size"] is None
    with pytest.raises(UsageError, match="fitted"):
        build_encoder(encoder_spec(with_encoder("labs", mapping)["encoder"]))
    rows = rows_of()
    saved = json.loads(json.dumps(with_encoder("labs", with_fitted_input("labs", mapping, rows))))
    table = TableModality(input_spec(saved["input"]))
    prepared = [table.prepare(row) for row in rows]
    assert saved["encoder"]["size"] == len(prepared[0]) == sum(map(width, table.settings.fields.values()))
    assert table.settings == TableModality.fit(input_spec(mapping["input"]), rows)
    assert [fitted(rows).prepare(row).tolist() for row in rows] == [row.tolist() for row in prepared]


def test_the_default_encoder_learns_to_tell_two_groups_of_rows():
    rows = rows_of(64)
    table = fitted(rows)
    torch.manual_seed(0)
    encoder = build_encoder(encoder_spec(TableModality.default_encoder(table.settings)))
    inputs = table.collate([table.prepare(row) for row in rows])
    target = torch.tensor([row["sex"] == "F" for row in rows]).float()
    optimiser = torch.optim.Adam(encoder.parameters(), 1e-2)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(encoder(**inputs)[:, 0], target)
        optimiser.zero_grad()
        loss.backward()
        assert all(parameter.grad is not None for parameter in encoder.parameters())
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.1 < losses[0]


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float32("nan"), "inf", "1e999"])
def test_a_number_that_is_none_is_refused_with_its_field(value):
    with pytest.raises(DataRefused, match="the field 'crp' holds"):
        TableModality.check({"hb": 1.0, "crp": value}, {})
    assert TableModality.check({"hb": 1.0, "crp": None, "sex": " n/a "}, {}) == {"fields": 1}


def test_a_row_without_a_field_and_other_shapes_are_refused():
    for row in ({"hb": None, "crp": ""}, [1, 2], "hb", None, {"hb": [1, 2]}, {"hb": {"a": 1}}):
        with pytest.raises(DataRefused):
            TableModality.check(row, {})
    with pytest.raises(DataRefused, match="no field hbb"):
        TableModality.check({"hbb": 1.0}, {"columns": "hb/crp"})


def test_numbers_and_texts_in_one_field_are_refused_without_the_texts():
    rows = [{"hb": 1.0}, {"hb": "patient Smith"}]
    with pytest.raises(DataRefused, match="'hb' holds 1 numbers and 1 texts") as refusal:
        TableModality.fit(TableInput(columns=("hb",)), rows)
    assert "smith" not in str(refusal.value).lower()
    with pytest.raises(DataRefused, match="'hb' is one of numbers") as refusal:
        fitted(rows_of()).prepare({"hb": "patient Smith"})
    assert "smith" not in str(refusal.value).lower()


def test_settings_that_contradict_are_refused():
    for settings in ({"columns": ("a", "a")}, {"columns": ("a",), "categories": ("b",)}, {"max_categories": 0}):
        with pytest.raises(UsageError):
            TableInput(**settings)
    with pytest.raises(UsageError, match="unknown parameter of the kind table 'colums'"):
        TableModality.check({"hb": 1}, {"colums": "hb"})
    with pytest.raises(UsageError, match="fit it first"):
        TableModality(TableInput(columns=("hb",))).prepare({"hb": 1})


# ---- previews and queries -------------------------------------------------------------------------------------------


def test_a_preview_names_each_field():
    assert TableModality(TableInput(columns=("hb", "crp"))).preview({"hb": 11.2}) == "hb: 11.2\ncrp: –"
    long = TableModality(TableInput(columns=tuple(f"field{number}" for number in range(999))))
    assert len(long.preview({"field0": 1})) == 2000


def test_queries_are_pairs_or_json():
    table = fitted(rows_of())
    row = {"hb": 11.2, "sex": "f", "crp": None}
    for query in ("hb=11.2, sex=F", '{"hb": 11.2, "sex": "F"}', {"hb": "11.2", "sex": "F"}, b"hb=11.2,sex=F"):
        assert table.parse_query(query) == row
    for query in ("hb", "hb=1,hb=2", "", "{hb", "[1]", "hbb=1", "hb=high", "hb=inf", 3, "hb=", "{" * 100_000):
        with pytest.raises(UsageError):
            table.parse_query(query)


def test_made_up_rows_can_be_prepared():
    table = fitted(rows_of())
    assert len(table.collate([table.prepare(raw) for raw in table.sample(5, np.random.default_rng(0))])["values"]) == 5
