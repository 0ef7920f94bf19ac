"""What cannot be read any more when a model reads it: the row, the modality and the reason, from any process."""

import numpy as np
import pyarrow as pa
import pytest
from modality_run_samples import samples_manifest, untrained_model

from gapless.core.errors import DataRefused, UsageError
from gapless.inference.embed import check_kinds, embed_dataset, evaluation_dataset, preprocessors_of
from gapless.inference.pairs import PairDataset
from gapless.manifest.manifest import Manifest
from gapless.modalities.vector import VectorInput, VectorModality
from gapless.training.from_manifest import fitted_recipe
from gapless.training.recipes import Recipe


@pytest.fixture
def manifest(tmp_path):
    return samples_manifest(tmp_path)


def with_cell(manifest, name, row, cell):
    cells = manifest.table[name].to_pylist()
    cells[row] = cell
    place, kind = manifest.table.column_names.index(name), manifest.table[name].type
    return Manifest(manifest.path, manifest.info, manifest.table.set_column(place, name, pa.array(cells, kind)))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_lost_file_is_one_sentence_also_from_a_process_of_the_loader(manifest, workers):
    model = untrained_model(manifest)
    manifest.views("ecg", 3)[0].unlink()
    with pytest.raises(DataRefused) as refused:
        embed_dataset(model, evaluation_dataset(model, manifest), num_workers=workers, batch_size=8)
    row_id = manifest.table["id"][3].as_py()
    assert str(refused.value).startswith(f"{row_id}: ecg: missing file")
    assert str(refused.value).endswith("; build the manifest again")
    assert "\n" not in str(refused.value)


def test_nan_in_a_table_names_its_row_when_fitted_and_when_embedded(manifest):
    model = untrained_model(manifest)
    bad = with_cell(manifest, "labs", 6, {"age": float("nan"), "sex": "m", "hb": 11.0})
    row_id = bad.table["id"][6].as_py()
    message = f"^{row_id}: labs: the field 'age' holds nan, which is no number"
    with pytest.raises(DataRefused, match=message):
        PairDataset(bad, preprocessors_of(model))[6]
    labs = Recipe({"labs": {"input": {"kind": "table"}}, "ecg": {"input": {"kind": "waveform", "rate": 100.0}}})
    with pytest.raises(DataRefused, match=message):
        fitted_recipe(labs, bad)


def test_a_waveform_of_another_rate_names_its_row(manifest, tmp_path):
    from signal_samples import wfdb_record

    wfdb_record(manifest.image_root, np.zeros((2, 200)), rate=360, name="rec")
    bad = with_cell(manifest, "ecg", 6, ["rec.hea"])
    with pytest.raises(DataRefused, match=rf"^{bad.table['id'][6].as_py()}: ecg: .*360.*100"):
        PairDataset(bad, preprocessors_of(untrained_model(manifest)))[6]


def test_a_vector_of_another_length_or_with_nan_is_said_in_words():
    vectors = VectorModality(VectorInput(3))
    for value, message in (
        ([1.0, 2.0], r"must be 3 finite numbers, got 2$"),
        ([1.0, np.nan, 2.0], r"must be 3 finite numbers, and number 2 is nan$"),
        (np.zeros((2, 3)), r"one list of 3 finite numbers, got 2 axes$"),
    ):
        with pytest.raises(DataRefused, match=message):
            vectors.prepare(value)


def test_a_model_of_another_kind_is_refused_before_a_row_is_read(manifest):
    with pytest.raises(UsageError, match=r"the model takes report as image, but .* holds it as text"):
        check_kinds({"report": "image"}, manifest)
    check_kinds({"report": "text", "ecg": "audio"}, manifest)
