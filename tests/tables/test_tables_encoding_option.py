"""Messages name `--encoding` only where the command has that option."""

import pytest

from gapless.core.errors import UsageError
from gapless.tables.table_format import DETECT, TextOptions
from gapless.tables.tables import read_lines


@pytest.mark.parametrize(("options", "remedy"), [(TextOptions(), "--encoding cp1252"), (DETECT, "save it as UTF-8")])
@pytest.mark.parametrize("name", ["t.csv", "t.jsonl"])
def test_a_row_that_is_not_utf8(tmp_path, name, options, remedy):
    lines = {"t.csv": "caption\nR\xf6ntgen\n", "t.jsonl": '{"caption": "R\xf6ntgen"}\n'}
    (tmp_path / name).write_bytes(lines[name].encode("cp1252"))
    [(_, cells, fault)] = read_lines(tmp_path / name, options)
    assert cells is None
    assert remedy in fault
    assert ("--encoding" in fault) == options.can_be_chosen


def test_utf16_without_a_mark(tmp_path):
    (tmp_path / "t.csv").write_bytes("caption\nchest\n".encode("utf-16-le"))
    with pytest.raises(UsageError, match="--encoding utf-16-le reads it"):
        list(read_lines(tmp_path / "t.csv", TextOptions()))
    with pytest.raises(UsageError, match="without a byte-order mark; save it as UTF-8"):
        list(read_lines(tmp_path / "t.csv"))
