"""The words of `--modality`, and tables that lack what they name; refusals name the word and the nearest right one."""

import re
from pathlib import Path
from typing import Any

import pytest
from data_samples import write_jsonl
from modality_samples import kinds

from gapless.core.errors import UsageError
from gapless.manifest.modality_spec import ModalitySpec, parse_modality
from gapless.manifest.readers.table import read_table

__all__ = ["kinds"]
pytestmark = pytest.mark.usefixtures("kinds")


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("image=image:file", ModalitySpec("image", "image", ("file",))),
        ("image = image: front , side", ModalitySpec("image", "image", ("front", "side"))),
        ("ecg=signal:path,rate=500", ModalitySpec("ecg", "signal", ("path",), {"rate": 500})),
        ("ecg=signal:rate=2.5,path", ModalitySpec("ecg", "signal", ("path",), {"rate": 2.5})),
        ("labs=table:a,b,categories=a/b", ModalitySpec("labs", "table", ("a", "b"), {"categories": ["a", "b"]})),
        ("x=image:a:b", ModalitySpec("x", "image", ("a:b",))),
    ],
)
def test_words_become_a_modality(text, spec):
    assert parse_modality(text) == spec


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("image", "write NAME=KIND:COLUMN"),
        ("image=image", "write NAME=KIND:COLUMN"),
        ("=image:file", "must begin with a letter"),
        ("my ecg=signal:path", "'my ecg' must begin with a letter"),
        ("image+text=image:file", "letters, digits and underscores"),
        ("image=imgae:file", "unknown kind 'imgae'; did you mean 'image'?"),
        ("ecg=signal:path,rat=500", "unknown param of the kind 'signal': 'rat'; did you mean 'rate'?"),
        ("image=image:file,size=3,fram=1", "did you mean 'frame'?"),
        ("labs=table:age,sex,categories=sxe", "unknown field 'sxe'; did you mean 'sex'?"),
        ("labs=table:age,columns=sex", "unknown param of the kind 'table': 'columns'"),
        ("ecg=signal:", "empty word"),
        ("ecg=signal:path,", "empty word"),
        ("ecg=signal:path,rate=", "empty word"),
        ("ecg=signal:rate=500", "no column is named"),
        ("ecg=signal:path,path", "'path' is named twice"),
        ("ecg=signal:path,rate=1,rate=2", "'rate' is named twice"),
        *(
            (f"{name}=text:a", "a column of the manifest itself")
            for name in ("id", "group", "split", "content", "facts")
        ),
    ],
)
def test_a_wrong_word_is_named(text, said):
    with pytest.raises(UsageError, match=re.escape(said)):
        parse_modality(text)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"modality": ["a=text:t", "a=text:u"]}, "two modalities 'a'"),
        ({"modality": ["a=text:t", "text=text:u"], "caption_key": "t"}, "two modalities 'text'"),
        ({"modality": ["t=text:t"], "label_keys": "t"}, "'t' is a modality and a label"),
        ({"modality": ["a=text:t"], "label_keys": "facts"}, "'facts' is taken by the manifest itself"),
        ({"modality": ["a=text:tt"]}, "no column 'tt' for the modality 'a'; did you mean 't'?"),
        ({"modality": ["a=table:t,uu"]}, "no column 'uu' for the modality 'a'; did you mean 'u'?"),
        ({"modality": ["a=table:n,categories=zz"]}, "unknown field 'zz' among the categories"),
        ({"modality": ["a=text:t", "b=text:u"], "min_present": 3}, "between 1 and the 2 modalities"),
        ({"modality": ["a=text:t"], "min_present": 0}, "between 1 and the 1 modalities"),
        ({"modality": ["a=text:t"], "missing": "kep"}, "unknown --missing 'kep'; known: drop, keep"),
        ({"min_present": 2}, "--min-present needs --modality"),
        ({"missing": "keep", "caption_key": "t"}, "no column 'image' for the modality 'image'"),
    ],
)
def test_options_that_do_not_fit_are_refused(tmp_path, options, said):
    table = write_jsonl(tmp_path / "t.jsonl", [{"t": "a", "u": "b", "n": {"x": 1}, "facts": "z"}] * 2)
    with pytest.raises(UsageError, match=re.escape(said)):
        read_table(table, tmp_path / "m", **options)
    assert not (tmp_path / "m").exists()


def test_the_same_options_without_the_fault_are_taken(tmp_path):
    """The control of the test above."""
    table = write_jsonl(tmp_path / "t.jsonl", [{"t": "a", "u": "b", "n": {"x": 1}, "y": "z"}] * 2)
    options: dict[str, Any] = {"modality": ["a=text:t", "b=table:n"], "label_keys": "y", "min_present": 2}
    made = read_table(table, Path(tmp_path / "m"), caption_key="u", **options)
    assert made.modalities == ("text", "a", "b")
