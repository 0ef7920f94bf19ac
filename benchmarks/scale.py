"""How each step grows with the pairs, and what a larger set needs: measured at four sizes, fitted, computed.

    python benchmarks/scale.py --measure all --json scale.json       some hours; families: data arrays close heads ...
    python benchmarks/scale.py --measure data --sizes 10000,30000 --json scale.json     adds to what the file holds
    python benchmarks/scale.py --measure all --divide 30 --json few.json                some minutes, at small sizes
    python benchmarks/scale.py --points scale.json --embedded_per_s 500 --plot growth.png

The last form prints the tables of docs/scale.md. A step's law is `seconds = a * pairs^power`, the range of a time its
80 % prediction interval. What a call costs whatever the size bends a law to a power below 1. Of a step that touches
every pair, therefore, no time is below the line through its two largest sizes, and no range ends below the proportion
to the largest one. Memory goes on along that line. A pair is an image and a text, each 512 numbers. The pairs a second
that a GPU embeds are yours to put in.
"""

import argparse
import json
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

from growth import Law, fit
from scale_steps import DIM, FAMILIES, Point, measured

PAIRS = (200_000, 2_000_000, 10_000_000)
WORKERS = (1, 8, 64)
MINUTE, HOUR, DAY, YEAR = 60, 3600, 86_400, 365 * 86_400
GB = 1e9
PEER = "bare Pillow loop"  # is measured beside `data table`, and nobody needs it
NOT_PER_PAIR = ("open a collection", "query by ivf-rq, from the disk")  # they do not touch every pair


@dataclass(frozen=True)
class Need:
    """What a set of so many pairs takes.

    Args:
        what: the step, and of what.
        how: the arithmetic.
        value: seconds, or gigabytes.
        low, high: its range; None where it is a product of known numbers.
        unit: "s" or "GB".
    """

    what: str
    how: str
    value: float
    low: float | None = None
    high: float | None = None
    unit: str = "s"

    @property
    def shown(self) -> str:
        as_text = duration if self.unit == "s" else size_text
        if self.low is None or self.high is None or self.high == float("inf"):
            return as_text(self.value)
        return f"{as_text(self.value)} ({as_text(self.low)} to {as_text(self.high)})"


@dataclass(frozen=True)
class Growth:
    """A step at its sizes, in the order of the sizes, and the law of its seconds."""

    points: tuple[Point, ...]
    law: Law

    @property
    def step(self) -> str:
        return self.points[0].step

    @property
    def largest(self) -> Point:
        return self.points[-1]

    @property
    def grows_in_memory(self) -> bool:
        """Whether the largest size took more memory than the one before it."""
        return self.largest.gigabytes > self.points[-2].gigabytes

    def seconds(self, pairs: int) -> Need:
        """The time at a size, by the law."""
        value, (low, high) = self.law.at(pairs), self.law.interval(pairs)
        how = f"pairs to the power of {self.law.power:.2f}"
        if self.step not in NOT_PER_PAIR and pairs > self.largest.size:
            line = self._on_line([point.seconds for point in self.points], pairs)
            how = how if value >= line else "the line of the two largest sizes"
            value, low = max(value, line), max(low, line)
            high = max(high, value, self.largest.seconds * pairs / self.largest.size)
        return Need(self.step, how, value, low, high)

    def memory(self, pairs: int) -> Need:
        """Gigabytes at a size, on the line through the two largest sizes."""
        values = [point.gigabytes for point in self.points]
        how = f"{self._slope(values) * GB:,.0f} B a pair"
        return Need(f"{self.step}, memory", how, self._on_line(values, pairs), unit="GB")

    def _on_line(self, values: Sequence[float], pairs: int) -> float:
        """The value at a size on the line through the two largest sizes, which does not fall."""
        return values[-1] + self._slope(values) * (pairs - self.largest.size)

    def _slope(self, values: Sequence[float]) -> float:
        """What a pair adds between the two largest sizes, at least 0."""
        return max(0.0, (values[-1] - values[-2]) / (self.largest.size - self.points[-2].size))

    def disk(self, pairs: int) -> Need:
        """Gigabytes on the disk at a size, in proportion to the pairs."""
        each = self.largest.disk_bytes / self.largest.size
        return Need(f"{self.step}, on disk", f"{each:,.0f} B a pair", each * pairs / GB, unit="GB")


def growths(points: Sequence[Point], by_cpu: bool = False) -> list[Growth]:
    """A growth for each step of at least two sizes, in the order in which they were measured; of a size the last.

    Args:
        by_cpu: CPU seconds in the place of the clock's, where there are some: other work on the machine changes them
            little.
    """
    steps: dict[str, dict[int, Point]] = {}
    for point in points:
        timed = replace(point, seconds=point.cpu_seconds) if by_cpu and point.cpu_seconds else point
        steps.setdefault(point.step, {})[point.size] = timed
    measured_steps = []
    for by_size in steps.values():
        if len(by_size) > 1:
            ordered = tuple(by_size[size] for size in sorted(by_size))
            measured_steps.append(Growth(ordered, fit([p.size for p in ordered], [p.seconds for p in ordered])))
    return measured_steps


def needs(steps: Sequence[Growth], pairs: int, embedded_per_s: float | None = None) -> list[Need]:
    """Times, disk and memory of a set.

    Args:
        steps: the steps that were measured.
        pairs: of the set.
        embedded_per_s: pairs a second that one worker embeds, where it is known.
    """
    rows = []
    for workers in WORKERS if embedded_per_s else ():
        rate = embedded_per_s or 1.0
        how = f"pairs / {rate:,g} / {workers}"
        rows.append(Need(f"embed, {workers} workers of {rate:,g} pairs/s", how, pairs / rate / workers))
    steps = [one for one in steps if one.step != PEER]
    rows += [one.seconds(pairs) for one in steps]
    rows += [one.disk(pairs) for one in steps if one.largest.disk_bytes]
    rows += [one.memory(pairs) for one in steps if one.grows_in_memory]
    vectors = 2 * pairs * DIM * 4 / GB
    return [*rows, Need("vectors, fp32", f"2 x pairs x {DIM} x 4 B", vectors, unit="GB")]


def duration(seconds: float) -> str:
    """Two figures, in the unit in which they are read."""
    if seconds > 100 * YEAR:
        return "over 100 years"
    for unit, name in ((YEAR, "years"), (2 * DAY, "d"), (2 * HOUR, "h"), (2 * MINUTE, "min"), (1.0, "s")):
        if seconds >= unit:
            divisor = {"d": DAY, "h": HOUR, "min": MINUTE}.get(name, unit)
            return f"{two_figures(seconds / divisor)} {name}"
    return f"{two_figures(1000 * seconds)} ms"


def size_text(gigabytes: float) -> str:
    if gigabytes >= 1000:
        return f"{two_figures(gigabytes / 1000)} TB"
    return f"{two_figures(gigabytes)} GB" if gigabytes >= 1 else f"{two_figures(1000 * gigabytes)} MB"


def two_figures(value: float) -> str:
    return f"{float(f'{value:.2g}'):,g}"


def measured_table(steps: Sequence[Growth], by_cpu: bool = False) -> list[str]:
    """A row for each step: sizes, times, memory of the largest, the law."""
    seconds = "CPU seconds" if by_cpu else "seconds"
    lines = [f"| step | pairs | {seconds} | peak | grows as | off by |", "|---|---|---|---:|---:|---:|"]
    for one in steps:
        sizes = ", ".join(f"{point.size:,}" for point in one.points)
        seconds = ", ".join(f"{point.seconds:.3g}" for point in one.points)
        last, law = one.largest, one.law
        peak = size_text(last.gigabytes) if last.gigabytes else ""
        off = f"x{law.residual:.2f}" if law.num_sizes > 2 else ""  # a line goes through any two
        lines.append(f"| {one.step} | {sizes} | {seconds} | {peak} | n^{law.power:.2f} | {off} |")
    return lines


def needs_table(steps: Sequence[Growth], sizes: Sequence[int], embedded_per_s: float | None) -> list[str]:
    columns = [needs(steps, pairs, embedded_per_s) for pairs in sizes]
    lines = [f"| | by | {' | '.join(f'{pairs:,} pairs' for pairs in sizes)} |", f"|---|---|{'---|' * len(sizes)}"]
    for row in zip(*columns, strict=True):
        lines.append(f"| {row[0].what} | {row[-1].how} | {' | '.join(need.shown for need in row)} |")
    return lines


def plot(steps: Sequence[Growth], out: Path, by_cpu: bool = False) -> None:
    """Seconds against pairs, both in logarithms: what was measured, and the laws between."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(14, 6), sharey=True)
    for axis, is_closing, title in zip(axes, (False, True), ("every step", "close, by method"), strict=True):
        shown = [one for one in steps if one.step.startswith("close, ") == is_closing]
        for number, one in enumerate(shown):
            colour, marker = f"C{number % 10}", "osD^v<>"[number // 10 % 7]
            sizes = [point.size for point in one.points]
            label = f"{one.step.removeprefix('close, ')}: n^{one.law.power:.2f}"
            axis.plot(sizes, [point.seconds for point in one.points], marker, color=colour, label=label)
            axis.plot(sizes, [one.law.at(size) for size in sizes], "-", color=colour, linewidth=1)
        axis.set(xscale="log", yscale="log", xlabel="pairs", title=title)
        axis.grid(alpha=0.3)
        if shown:
            axis.legend(fontsize=7, loc="center left", bbox_to_anchor=(1.0, 0.5))
    axes[0].set_ylabel("CPU seconds" if by_cpu else "seconds")
    figure.tight_layout()
    figure.savefig(out, dpi=100)


def machine() -> dict[str, str]:
    """What the times depend on."""
    import torch

    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    return {"cpu": name, "cores": str(os.cpu_count()), "gpu": gpu, "torch": torch.__version__}


def add_measurements(families: Sequence[str], sizes: Sequence[int] | None, divide: int, out: Path) -> None:
    """Measure, and add to the file after each size, so that an interrupted run loses one size.

    Raises:
        SystemExit: the file was measured on another machine.
    """
    here = machine()
    contents: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {"machine": here, "points": []}
    if contents["machine"] != here:
        raise SystemExit(f"{out} holds times of another machine ({contents['machine']}): take another file")
    for name in families:
        for size in sizes or [max(8, size // divide) for size in FAMILIES[name].sizes]:
            for point in measured(name, size):
                contents["points"].append(asdict(point))
                print(f"{point.size:>9,} {point.step:<45}{point.seconds:10.3f} s{point.cpu_seconds:10.3f} s of CPU")
            out.write_text(json.dumps(contents, indent=1))


def read_points(files: Sequence[Path]) -> tuple[list[Point], list[Mapping[str, str]]]:
    """The points of several files, and the machines that they name."""
    contents = [json.loads(file.read_text()) for file in files]
    points = [Point(**point) for one in contents for point in one["points"]]
    return points, [name for name, _ in groupby(one["machine"] for one in contents)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", nargs="+", choices=["all", *FAMILIES], help="families of steps to measure")
    parser.add_argument("--sizes", help="pairs, by default those of each family")
    parser.add_argument("--divide", type=int, default=1, help="the families' sizes by this number")
    parser.add_argument("--json", type=Path, help="where measurements go")
    parser.add_argument("--points", nargs="+", type=Path, help="files of --json: print the tables")
    parser.add_argument("--pairs", default=",".join(map(str, PAIRS)), help="sets to compute the needs of")
    parser.add_argument("--embedded_per_s", type=float, help="pairs a second that one of your workers embeds")
    parser.add_argument("--by_cpu", action="store_true", help="laws of CPU seconds, where the machine had other work")
    parser.add_argument("--plot", type=Path, help="a PNG or SVG of the growth")
    options = parser.parse_args()
    if (options.measure is None) == (options.points is None) or (options.measure and not options.json):
        parser.error("one of --measure with --json, and --points is needed")
    if options.measure:
        families = list(FAMILIES) if "all" in options.measure else options.measure
        sizes = [int(size) for size in options.sizes.split(",")] if options.sizes else None
        add_measurements(families, sizes, options.divide, options.json)
    points, machines = read_points(options.points or [options.json])
    steps = growths(points, options.by_cpu)
    print(*(", ".join(f"{key} {value}" for key, value in one.items()) for one in machines), sep="\n")
    print(*measured_table(steps, options.by_cpu), sep="\n")
    sets = [int(size) for size in options.pairs.split(",")]
    print("", *needs_table(steps, sets, options.embedded_per_s), sep="\n")
    if options.plot:
        plot(steps, options.plot, options.by_cpu)


if __name__ == "__main__":
    main()
