"""The demonstration: the phantom, `clip` against `gapless` at equal budget, the table and the report."""

from pathlib import Path
from typing import Any

from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.study.compare import compare
from gapless.study.report import write_report
from gapless.training.recipes import phantom_small


def run_demo(out: Path, seed: int = 0) -> tuple[dict[str, Any], Path]:
    """Build the phantom, train and compare the two methods, and write the report under `out`.

    Finished parts of an earlier run are reused.

    Returns:
        the comparison, and the path of the report.
    """
    data = out / f"phantom-seed{seed}"
    manifest = Manifest.read(data) if data.exists() else write_phantom(data, seed=seed)
    directory = out / f"compare-seed{seed}"
    comparison = compare("phantom-small", phantom_small(), manifest, ["clip", "gapless"], [seed], directory)
    report = out / "report.html"
    write_report([directory], report)
    return comparison, report
