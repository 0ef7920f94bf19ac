"""What runs say together: comparisons, tables, the report, pictures, the map."""

from typing import TYPE_CHECKING

from gapless.core.lazy import lazy_names

__all__ = [
    "Comparison",
    "Demo",
    "Measurement",
    "Report",
    "measure_embeddings",
    "write_map",
    "write_report",
]

if TYPE_CHECKING:
    from gapless.study.compare import Comparison
    from gapless.study.demo import Demo
    from gapless.study.map import write_map
    from gapless.study.measured import Measurement, measure_embeddings
    from gapless.study.report import Report, write_report

__getattr__ = lazy_names(
    __name__,
    {
        "Comparison": "gapless.study.compare",
        "Demo": "gapless.study.demo",
        "Measurement": "gapless.study.measured",
        "Report": "gapless.study.report",
        "measure_embeddings": "gapless.study.measured",
        "write_map": "gapless.study.map",
        "write_report": "gapless.study.report",
    },
)
