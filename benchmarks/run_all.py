"""All benchmarks with one command: a table of every ratio beside its target, and the figures as JSON.

    make bench                                        about 11 minutes on 2 quiet cores; writes runs/bench.json
    python benchmarks/run_all.py --only search data   some of them
    python benchmarks/run_all.py --small              does every one still run? Its figures say nothing

Every benchmark is a process of its own, and its peers are timed in the same process in turn. Seconds and memory without
a peer are those of this machine. Not among them: what needs an accelerator (loss_device.py, embed_device.py), and an
index by autofaiss, which needs an environment of its own (peers.py). The growth of each step (scale.py) is taken at a
hundredth of the sizes of docs/scale.md, and the large collection (search_large.py) at a fiftieth.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scale import growths
from scale_steps import Point

HERE = Path(__file__).parent
MINUTES = 12  # that a run on two quiet cores may take


@dataclass(frozen=True)
class Found:
    """One figure of a benchmark.

    Args:
        what: what was measured.
        value: the figure.
        target: what it should be at most or at least; None where nothing was promised.
        at_most: whether less is better.
        unit: x for a ratio.
    """

    what: str
    value: float
    target: float | None = None
    at_most: bool = True
    unit: str = "x"

    @property
    def verdict(self) -> str:
        if self.target is None:
            return ""
        return "met" if (self.value <= self.target if self.at_most else self.value >= self.target) else "MISSED"


@dataclass(frozen=True)
class Benchmark:
    """One file of this folder with its words.

    Args:
        name: what the table calls it.
        words: the file and its options; `{out}` is a file for JSON, without which it is the last line of stdout.
        small: the options of a run that only shows that it runs.
        read: figures from that JSON.
    """

    name: str
    words: str
    small: str
    read: Callable[[Any], list[Found]]


def loss(found: Any) -> list[Found]:
    seconds, peaks = found["seconds"], found["peak_bytes_beyond_inputs"]
    others = [name for name in seconds if name != "gapless"]
    times = [Found(f"time of gapless / {name}", seconds["gapless"] / seconds[name]) for name in others]
    return times + [Found(f"memory of gapless / {name}", peaks["gapless"] / peaks[name]) for name in others]


def train(found: Any) -> list[Found]:
    return [Found("samples a second / a bare loop", found["ratio"], 0.95, at_most=False)]


def closing_control(found: Any) -> list[Found]:
    return [
        Found("processor seconds, held-out pairs / the clock", found["ratios"]["cpu_s"], 1.05),
        Found("peak memory, held-out pairs / the clock", found["ratios"]["peak_mib"], 1.02),
    ]


def metrics(found: Any) -> list[Found]:
    cases = {name: case["wall_ratio"] for name, case in found["cases"].items() if name != "similarity product"}
    targets = {"measure, all": 2.5}
    return [Found(f"{name} / one product", ratio, targets.get(name)) for name, ratio in cases.items()]


def caption(found: Any) -> list[Found]:
    bare, loop = found["gapless/bare"], found["gapless/loop"]
    return [
        Found("captions a second / bare generate", bare, 0.9, at_most=False),
        Found("captions a second / a loop that reads and encodes", loop),
    ]


def close(found: Any) -> list[Found]:
    targets = {"adapter": 120.0, "cca": 60.0}
    rows = [Found(f"{name}, seconds", one["seconds"], targets.get(name), unit="s") for name, one in found.items()]
    memory = [Found("cca, peak memory", found["cca"]["gigabytes"], 4.0, unit="GB")] if "cca" in found else []
    return rows + memory


def close_growth(found: Any) -> list[Found]:
    largest = found["sizes"][-1]
    rows = []
    for method, law in found["laws"].items():
        peak = found["methods"][method][-1]["gigabytes"]
        rows.append(Found(f"{method}, peak memory at {largest:,} pairs", peak, 4.0, unit="GB"))
        rows.append(Found(f"{method}: CPU grows with the pairs to the power of", law["cpu_seconds"]["power"], unit=""))
    return rows


def data(found: Any) -> list[Found]:
    rates = found["images_per_second"]
    targets = {"manifest": 0.9}
    return [
        Found(f"{name}, images a second / bare Pillow", rates[name] / rates["bare"], targets.get(name), at_most=False)
        for name in rates
        if name != "bare"
    ]


def search(found: Any) -> list[Found]:
    rows = []
    for size in found:
        flat = size["engines"]["faiss flat"]["p50_ms"]
        for name, engine in size["engines"].items():
            if name.startswith("gapless"):
                target = 1.1 if name == "gapless, exact" else None
                rows.append(Found(f"{size['size']:,}: {name}, p50 / faiss flat", engine["p50_ms"] / flat, target))
    return rows


def search_large(found: Any) -> list[Found]:
    size, asked = found["size"], found["asked"]
    return [
        Found(f"{size:,}: recall@10 of the usual index", asked["recall@10"], 0.95, at_most=False, unit=""),
        Found(f"{size:,}: p50 of a query", asked["p50_ms"], unit="ms"),
        Found(f"{size:,}: peak memory", found["peak_bytes"] / 1e9, unit="GB"),
    ]


def peers(found: Any) -> list[Found]:
    rows = [
        Found(f"{pairs} pairs: retrieval figures, gapless / {name}", of["gapless"]["seconds"] / one["seconds"])
        for pairs, of in found["evaluations"].items()
        for name, one in of.items()
        if name != "gapless"
    ]
    own, *others = found["indexes"].values()
    rows += [Found("seconds to index, gapless / clip-retrieval", own["build_s"] / one["build_s"]) for one in others]
    return rows


def search_http(found: Any) -> list[Found]:
    ways = found["ways"]
    bare = ways["bare index"]["p50_ms"]
    targets = {"HTTP, words": 2.0}
    return [
        Found(f"{name}, p50 / the bare index", way["p50_ms"] / bare, targets.get(name))
        for name, way in ways.items()
        if name != "bare index"
    ]


def serve_load(found: Any) -> list[Found]:
    return [
        Found("p99 / p50 of 64 clients at once", found["spread"], 5.0),
        Found("memory, last quarter / second quarter", found["memory_growth"], 1.05),
        Found("errors", found["errors"], 0.0, unit=""),
    ]


def page(found: Any) -> list[Found]:
    return [
        Found(f"{name} in Chromium, median", way["median_s"], way["target_s"], unit="s")
        for name, way in found["ways"].items()
    ]


def audit(found: Any) -> list[Found]:
    return [
        Found(f"{kind}: CPU grows with the rows to the power of", power, 2.0, unit="") for kind, power in found.items()
    ]


def collection_growth(found: Any) -> list[Found]:
    powers = found["powers"]
    targets = {"open": 0.1, "add 1,000 rows": 0.2}
    return [Found(f"{name}: grows to the power of", powers[name], target, unit="") for name, target in targets.items()]


def scale(found: Any) -> list[Found]:
    """How the time of each step grows."""
    return [
        Found(f"{one.step}: grows with the pairs to the power of", one.law.power, unit="")
        for one in growths([Point(**point) for point in found["points"]])
    ]


def sampling(found: Any) -> list[Found]:
    lowest = min(found["coverage"].values())
    return [Found("share of draws whose interval holds the exact value, lowest", lowest, 0.93, at_most=False, unit="")]


ALL = (
    Benchmark("loss", "loss.py --repeats 5 --json {out}", "--pairs 256 --memory-pairs 256 --repeats 2", loss),
    Benchmark("train", "train.py --rounds 2", "--steps 2 --rounds 1", train),
    Benchmark(
        "closing_control", "closing_control.py --rounds 1", "--pairs 1000 --epochs 2 --rounds 1", closing_control
    ),
    Benchmark("metrics", "metrics.py --threads 2", "--pairs 200 --repeats 1 --bootstrap 10", metrics),
    Benchmark(
        "metrics, many pairs",
        "metrics.py --threads 2 --pairs 40000 --repeats 1 --only similarity all",
        "--pairs 300",
        metrics,
    ),
    Benchmark("caption, beam", "caption.py --rounds 3", "--images 8 --rounds 1 --max_tokens 6", caption),
    Benchmark(
        "caption, greedy", "caption.py --rounds 3 --method greedy", "--images 8 --rounds 1 --max_tokens 6", caption
    ),
    Benchmark("close", "close.py --methods adapter --out {out}", "--pairs 600 --dim 16", close),
    Benchmark("close, 768-d", "close.py --dim 768 --methods cca --out {out}", "--pairs 600 --dim 16", close),
    Benchmark(
        "close_growth",
        "close_growth.py --sizes 140000,180000,240000,300000 --methods center procrustes --json {out}",
        "--sizes 300,600 --dim 16",
        close_growth,
    ),
    Benchmark("data", "data.py --num_images 4000 --num_rows 8000 --json {out}", "--num_images 40 --num_rows 40", data),
    Benchmark("search", "search.py --sizes 10000,100000 --out {out}", "--sizes 2000 --queries 5", search),
    Benchmark(
        "collection_growth",
        "collection_growth.py --sizes 100000,300000 --json {out}",
        "--sizes 2000,4000",
        collection_growth,
    ),
    Benchmark("scale", "scale.py --measure data arrays demo --divide 100 --json {out}", "--sizes 400,800", scale),
    Benchmark(
        "sampling",
        "sampling.py --pairs 4000 --dim 32 --queries 400 --num_bootstrap 200 --draws 40 --json {out}",
        "--pairs 300 --queries 50 --num_bootstrap 10 --draws 2",
        sampling,
    ),
    Benchmark(
        "search_large",
        "search_large.py --size 200000 --folder {out}.collection --rounds 2 --json {out}",
        "--size 4000 --queries 5",
        search_large,
    ),
    Benchmark("peers", "peers.py --out {out}", "--pairs 300 --size 4000 --queries 5", peers),
    Benchmark("search_http", "search_http.py --out {out}", "--size 2000 --queries 5 --clients 2", search_http),
    Benchmark(
        "serve_load",
        "serve_load.py --minutes 0.2 --out {out}",
        "--minutes 0.02 --clients 4 --size 2000",
        serve_load,
    ),
    Benchmark("page", "page.py --out {out}", "--size 400 --rounds 1", page),
    Benchmark("audit", "audit.py --sizes 10000,31623,100000 --json {out}", "--sizes 1000,2000 --kinds random", audit),
)


def run(benchmark: Benchmark, small: bool) -> tuple[list[Found], float]:
    """The figures of a benchmark, and the seconds that it took; raises RuntimeError with its last words."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out.json"
        file, *words = [word.format(out=out) for word in benchmark.words.split()]
        words += benchmark.small.split() if small else []  # of an option that is given twice the last one counts
        start = time.perf_counter()
        done = subprocess.run([sys.executable, str(HERE / file), *words], capture_output=True, text=True, check=False)
        seconds = time.perf_counter() - start
        if done.returncode:
            raise RuntimeError(done.stderr.strip()[-1000:])
        text = out.read_text() if out.exists() else done.stdout.strip().splitlines()[-1]
    return benchmark.read(json.loads(text)), seconds


def shown(found: Found) -> str:
    sign = "" if found.target is None else f"{'<=' if found.at_most else '>='} {found.target:g} {found.unit}".strip()
    return f"  {found.what:<66}{found.value:9.2f} {found.unit:<3}{sign:<12}{found.verdict}"


def chosen(names: Sequence[str] | None) -> list[Benchmark]:
    """Those whose names begin with one of these; all without names."""
    found = [one for one in ALL if not names or one.name.startswith(tuple(names))]
    if not found:
        raise SystemExit(
            f"no benchmark begins with {', '.join(names or ())}; there are {', '.join(x.name for x in ALL)}"
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", help="names, or how they begin")
    parser.add_argument("--small", action="store_true", help="sizes that say nothing, to see that every one runs")
    parser.add_argument("--json", type=Path, default=None, help="also write the figures")
    options = parser.parse_args()
    results: dict[str, Any] = {}
    failed: list[str] = []
    start = time.perf_counter()
    for benchmark in chosen(options.only):
        try:
            found, seconds = run(benchmark, options.small)
        except RuntimeError as error:
            failed.append(benchmark.name)
            print(f"{benchmark.name}: FAILED\n{error}", flush=True)
            continue
        print(f"{benchmark.name} ({seconds:.0f} s)", *map(shown, found), sep="\n", flush=True)
        figures = [{**asdict(one), "verdict": one.verdict} for one in found]
        results[benchmark.name] = {"seconds": seconds, "words": benchmark.words, "figures": figures}
    minutes = (time.perf_counter() - start) / 60
    missed = [f["what"] for one in results.values() for f in one["figures"] if f["verdict"] == "MISSED"]
    print(f"{minutes:.1f} minutes (at most {MINUTES} on a quiet machine); {len(missed)} targets missed", flush=True)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(
            json.dumps({"small": options.small, "minutes": minutes, "benchmarks": results}, indent=2)
        )
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
