"""Tables of any format as rows of cells: CSV, JSON, Parquet, Arrow, Excel's habits included."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "LineCount",
    "TextOptions",
    "check_columns",
    "columns_of",
    "open_text",
    "read_lines",
]

if TYPE_CHECKING:
    from gapless.tables.table_format import LineCount, TextOptions
    from gapless.tables.tables import check_columns, columns_of, read_lines
    from gapless.tables.text_files import open_text

__getattr__ = lazy_names(
    __name__,
    {
        "LineCount": "gapless.tables.table_format",
        "TextOptions": "gapless.tables.table_format",
        "check_columns": "gapless.tables.tables",
        "columns_of": "gapless.tables.tables",
        "open_text": "gapless.tables.text_files",
        "read_lines": "gapless.tables.tables",
    },
)
