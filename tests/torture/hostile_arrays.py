"""Hostile matrices and directories of embeddings, offered to `measure` and `close`."""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torture import hostile_files as files
from torture.hostile_offer import Home, Offer

from gapless.core.files import sha256_of


def arrays(home: Home) -> Iterator[Offer]:
    """Offered to `measure` and `close` as one modality's matrix."""

    def offer(
        name: str, file: str, content: Callable[[Path], bytes], careless: files.Careless | None, verb: str = "measure"
    ) -> Offer:
        def make(place: Path, canary: Path) -> list[Any]:
            (place / file).write_bytes(content(canary))
            more = ["--out", place / "closed"] if verb == "close" else []
            return [verb, "--image", place / file, "--text", home / "good.npy", *more]

        return Offer(f"{verb}: {name}", make, careless, file)

    for suffix in ("npy", "npz", "safetensors", "parquet"):
        for protocol in files.PROTOCOLS:
            yield offer(
                f"pickle protocol {protocol} as .{suffix}",
                f"x.{suffix}",
                lambda canary, protocol=protocol: files.pickled(canary, protocol),  # type: ignore[misc]
                files.unpickle,
                "close" if protocol % 2 else "measure",
            )
        yield offer(f"torch.save as .{suffix}", f"x.{suffix}", files.torch_file, files.torch_load)
        yield offer(
            f"old torch.save as .{suffix}", f"x.{suffix}", lambda c: files.torch_file(c, True), files.torch_load
        )
        yield offer(f"joblib as .{suffix}", f"x.{suffix}", files.joblib_file, files.joblib_load)
        yield offer(
            f"joblib, packed, as .{suffix}", f"x.{suffix}", lambda c: files.joblib_file(c, 3), files.joblib_load
        )
    for suffix in ("pt", "bin", "pkl", "pth", "joblib", "ckpt"):
        yield offer(f"a pickle called .{suffix}", f"x.{suffix}", lambda c: files.pickled(c, 4), files.unpickle)
    for version in ((1, 0), (2, 0), (3, 0)):
        for structured in (False, True):
            yield offer(
                f"objects{' in a structure' * structured}, npy {version[0]}",
                "x.npy",
                lambda c, version=version, structured=structured: files.object_array(c, version, structured),  # type: ignore[misc]
                files.numpy_load,
            )
    for compression, how in ((0, "stored"), (8, "deflated")):
        yield offer(
            f"npz of objects, {how}",
            "x.npz",
            lambda c, compression=compression: files.zipped({"image.npy": files.object_array(c)}, compression),  # type: ignore[misc]
            files.numpy_load,
        )
    yield offer(
        "npz with objects beside a matrix",
        "x.npz",
        lambda c: files.zipped({"image.npy": files.npy_of((4, 4), bytes(64)), "ids.npy": files.object_array(c)}),
        files.numpy_load,
    )
    yield offer("parquet of a Python type", "x.parquet", files.parquet_of_python_type, files.unpickle_column)
    yield offer("parquet of pickles", "x.parquet", files.parquet_of_pickles, files.unpickle_column)
    nothing = {
        "npy whose shape is a call": ("npy", files.npy_header("{'descr': '<f4', 'shape': __import__('os').getpid()}")),
        "npy of a huge shape": ("npy", files.npy_of((1 << 40, 1 << 20), bytes(64))),
        "npy of a negative shape": ("npy", files.npy_of((-4, 4), bytes(64))),
        "npz of a huge shape": ("npz", files.zipped({"image.npy": files.npy_of((1 << 40, 16), bytes(64))})),
        "npz that climbs": ("npz", files.zipped({"../../../x.npy": b"no array"})),
        "npz with an absolute name": ("npz", files.zipped({"/tmp/x.npy": b"no array"})),
        "npz in an npz": ("npz", files.zipped({"image.npy": files.zipped({"image.npy": b"x"})})),
        "safetensors with a header of 2 ** 62": ("safetensors", (1 << 62).to_bytes(8, "little") + b"{}"),
        "safetensors of overlapping tensors": ("safetensors", files.safetensors_file(OVERLAPPING)),
        "safetensors nested deeply": ("safetensors", files.safetensors_file(files.deep_json().encode())),
        "safetensors beyond its end": ("safetensors", files.safetensors_file(BEYOND)),
        "parquet with nothing behind its magic": ("parquet", b"PAR1" + b"\xff" * 64 + b"PAR1"),
    }
    for name, (suffix, content) in nothing.items():
        yield offer(name, f"x.{suffix}", lambda c, content=content: content, None)  # type: ignore[misc]
    yield offer("npz bomb", "x.npz", lambda c: files.bomb(), None)

    def endless(place: Path, canary: Path) -> list[Any]:
        os.mkfifo(place / "x.npy")
        return ["measure", "--image", place / "x.npy", "--text", home / "good.npy"]

    yield Offer("measure: a pipe that nobody writes", endless)
    yield Offer("measure: a device", lambda place, c: ["measure", "--image", "/dev/zero", "--text", home / "good.npy"])


OVERLAPPING = json.dumps(
    {name: {"dtype": "F32", "shape": [4, 4], "data_offsets": [0, 64]} for name in ("image", "text")}
).encode()
BEYOND = json.dumps({"image": {"dtype": "F32", "shape": [1 << 30, 4], "data_offsets": [0, 1 << 34]}}).encode()


def embeddings(home: Home) -> Iterator[Offer]:
    """A directory as `embed` writes it, with one file changed and its checksum made right."""

    def offer(name: str, file: str, content: Callable[[Path], bytes], careless: files.Careless | None = None) -> Offer:
        def make(place: Path, canary: Path) -> list[Any]:
            directory = place / "e"
            shutil.copytree(home / "embeddings", directory)
            (directory / file).unlink(missing_ok=True)
            (directory / file).write_bytes(content(canary))
            index = directory / "embeddings.json"
            if file.startswith("shard"):
                described = json.loads(index.read_text())
                described["shards"][0]["sha256"][Path(file).suffix[1:]] = sha256_of(directory / file)
                index.write_text(json.dumps(described))
            return ["measure", directory]

        return Offer(f"embeddings: {name}", make, careless, f"e/{file}")

    shard = "shard-00000"
    yield offer("a pickle for a shard", f"{shard}.safetensors", lambda c: files.pickled(c, 4), files.unpickle)
    yield offer("torch.save for a shard", f"{shard}.safetensors", files.torch_file, files.torch_load)
    yield offer("a pickle for the rows", f"{shard}.parquet", lambda c: files.pickled(c, 4), files.unpickle)
    yield offer("rows of a Python type", f"{shard}.parquet", files.parquet_of_python_type, files.unpickle_column)
    yield offer("a pickle for the index", "embeddings.json", lambda c: files.pickled(c, 0), files.unpickle)
    yield offer("a deep index", "embeddings.json", lambda c: files.deep_json().encode())
    for name, change in {
        "rows without end": {"num_rows": 1 << 50},
        "a shape without end": {"dims": {"image": 1 << 50}},
        "objects for numbers": {"dtype": "O"},
        "NaN for rows": {"num_rows": float("nan")},
        "a list for shards": {"shards": ["../../etc"]},
        "a list for a plan": [],
    }.items():

        def changed(canary: Path, change: Any = change) -> bytes:
            index = json.loads((home / "embeddings" / "embeddings.json").read_text())
            return json.dumps({**index, **change} if isinstance(change, dict) else change).encode()

        yield offer(name, "embeddings.json", changed)
