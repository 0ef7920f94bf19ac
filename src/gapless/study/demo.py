"""`gapless demo` as one call: compares `clip` and `gapless` on the phantom, and writes the table and the report."""

from dataclasses import dataclass
from pathlib import Path

from gapless.manifest.manifest import Manifest
from gapless.manifest.readers.phantom import write_phantom
from gapless.study.compare import Comparison, compare
from gapless.study.report import write_report


@dataclass(frozen=True, kw_only=True)
class Demo(Comparison):
    """The comparison of the demonstration, and its report.

    Args:
        report: the HTML file.
    """

    report: Path


def demo(out: str | Path = "runs/demo", seed: int = 0) -> Demo:
    """Draw the phantom, compare `clip` and `gapless` on it, and write the report; takes some minutes.

    Args:
        out: directory to write; finished parts of an earlier call in it are kept.
        seed: of the drawn data and of the trainings.
    """
    out = Path(out)
    data = out / f"phantom-seed{seed}"
    manifest = Manifest.read(data) if data.exists() else write_phantom(data, seed=seed)
    directory = out / f"compare-seed{seed}"
    comparison = compare("phantom-small", data=manifest, out=directory, methods=["clip", "gapless"], seeds=[seed])
    page = out / "report.html"
    write_report([directory], page)
    return Demo(**vars(comparison), report=page)
