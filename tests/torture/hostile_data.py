"""Hostile manifests, tables, shards and caption files."""

import json
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torture import hostile_files as files
from torture.hostile_offer import Home, Offer

from gapless.core.files import sha256_of

FILE, OUT = object(), object()  # in a command: the offered file, and where it may write


def file_offer(name: str, file: str, content: Any, words: Sequence[Any], careless: Any) -> Offer:
    """One file of this content (bytes, or made with the canary) as a command takes it."""

    def make(place: Path, canary: Path) -> list[Any]:
        (place / file).write_bytes(content(canary) if callable(content) else content)
        stands_for = {FILE: place / file, OUT: place / "out"}
        return [stands_for.get(word, word) for word in words]

    return Offer(name, make, careless, file)


def manifests(home: Home) -> Iterator[Offer]:
    commands: list[Callable[[Path, Path], list[Any]]] = [
        lambda m, out: ["embed", home / "model", "--data", m, "--out", out],
        lambda m, out: ["train", "phantom-small", "--data", m, "--out", out],
        lambda m, out: ["data", "audit", m],
        lambda m, out: ["index", home / "model", "--data", m, "--out", out],
    ]

    def offer(
        name: str, change: Callable[[Path, Path], Any], careless: Any = None, file: str = "", at: int = 0
    ) -> Offer:
        def make(place: Path, canary: Path) -> list[Any]:
            directory = place / "m"
            shutil.copytree(home / "m", directory)
            change(directory, canary)
            return commands[at](directory, place / "out")

        return Offer(f"manifest: {name}", make, careless, f"m/{file}")

    def sealed(directory: Path, **changes: Any) -> None:
        info = json.loads((directory / "manifest.json").read_text())
        info |= {"table_sha256": sha256_of(directory / "manifest.parquet"), **changes}
        (directory / "manifest.json").write_text(json.dumps(info))

    def tabled(content: Callable[[Path], bytes]) -> Callable[[Path, Path], None]:
        def change(directory: Path, canary: Path) -> None:
            (directory / "manifest.parquet").write_bytes(content(canary))
            sealed(directory)

        return change

    for at in range(len(commands)):
        yield offer(f"a pickle for the table, {at}", tabled(lambda c: files.pickled(c, 4)), files.unpickle, TABLE, at)
        yield offer(f"a Python type, {at}", tabled(files.parquet_of_python_type), files.unpickle_column, TABLE, at)
        yield offer(f"deep JSON, {at}", lambda m, _: (m / "manifest.json").write_text(files.deep_json()), None, "", at)
    yield offer(
        "a pickle for its description",
        lambda m, c: (m / "manifest.json").write_bytes(files.pickled(c, 0)),
        files.unpickle,
        "manifest.json",
    )
    yield offer("NaN for its version", lambda m, _: sealed(m, version=float("nan")))
    yield offer("a list for its columns", lambda m, _: sealed(m, labels=[["x"]]))
    yield offer("a column that is not there", lambda m, _: sealed(m, labels=["nowhere"]))

    def pictured(name: str, root: str | None = None, prepare: Callable[[Path], None] | None = None) -> Any:
        def change(directory: Path, canary: Path) -> None:
            if prepare is not None:
                prepare(directory)
            table = pq.read_table(directory / "manifest.parquet")
            column = table.column_names.index("image")
            names = pa.array([name] * len(table), pa.string())
            pq.write_table(table.set_column(column, "image", names), directory / "manifest.parquet")
            sealed(directory, **({} if root is None else {"image_root": root}))

        return change

    for at in (0, 1, 3):
        yield offer(f"pictures above their root, {at}", pictured("../../secret.png"), None, "", at)
    yield offer("pictures at an absolute path", pictured("/etc/hostname"))
    yield offer("pictures that are a device", pictured("zero", "/dev"))
    yield offer("pictures that are a pipe", pictured("pipe", None, lambda m: os.mkfifo(m / "pipe")))
    yield offer("pictures that are a folder", pictured("images"))
    yield offer("pictures with a zero byte in their name", pictured("a\0b"))
    bomb = files.png(60_000, 60_000, b"x\x9c" + b"\0" * 64)
    yield offer("pictures that are bombs", pictured("b.png", None, lambda m: bool((m / "b.png").write_bytes(bomb))))
    yield offer(
        "pictures that are pickles",
        lambda m, c: ((m / "p.png").write_bytes(files.pickled(c, 4)), pictured("p.png")(m, c)),
        files.unpickle,
        "p.png",
    )


TABLE = "manifest.parquet"


def tables(home: Home) -> Iterator[Offer]:
    def offer(name: str, file: str, content: Any, careless: Any = None, key: str = "image") -> Offer:
        words = ["data", "table", FILE, "--out", OUT, "--image-key", key, "--workers", 1]
        return file_offer(f"table: {name}", file, content, words, careless)

    for suffix in ("csv", "jsonl", "parquet", "pkl"):
        yield offer(f"a pickle as .{suffix}", f"x.{suffix}", lambda c: files.pickled(c, 4), files.unpickle)
    yield offer("a Python type", "x.parquet", files.parquet_of_python_type, files.unpickle_column)
    yield offer("pickles for images", "x.parquet", pickled_images, files.unpickle_column)
    yield offer("a path above", "x.csv", b"image,caption\n../../secret.png,knee\n")
    yield offer("an absolute path", "x.csv", b"image,caption\n/etc/hostname,knee\n")
    yield offer("a device", "x.csv", b"image,caption\n/dev/zero,knee\n")
    yield offer("an address", "x.csv", b"image,caption\nhttp://127.0.0.1:1/x.png,knee\n")
    yield offer("a deep line", "x.jsonl", files.deep_json().encode() + b"\n")
    yield offer("a cell without end", "x.csv", b"image,caption\n" + b"a" * (17 << 20) + b",knee\n")


def pickled_images(canary: Path) -> bytes:
    pickles = [files.pickled(canary, 4)] * 4
    return files.parquet_file(pa.table({"image": pa.array(pickles, pa.binary()), "caption": list("abcd")}))


def shards(home: Home) -> Iterator[Offer]:
    def offer(name: str, content: Callable[[Path], bytes], careless: Any = None) -> Offer:
        words = ["data", "shards", FILE, "--out", OUT, "--workers", 1]
        return file_offer(f"shards: {name}", "x.tar", content, words, careless)

    good = files.png()
    for suffix in ("pkl", "pickle", "pyd", "pth"):
        yield offer(
            f"a member .{suffix}",
            lambda c, suffix=suffix: files.tar_of({"a.png": good, f"a.{suffix}": files.pickled(c, 4)}),  # type: ignore[misc]
            files.unpickle_members,
        )
    yield offer("a member that climbs", lambda c: files.tar_of({"../../a.png": good, "../../a.txt": b"knee"}))
    yield offer("an absolute member", lambda c: files.tar_of({"/tmp/a.png": good, "/tmp/a.txt": b"knee"}))
    yield offer("a link", lambda c: files.tar_of({"a.txt": b"knee"}, {"a.png": "/etc/hostname"}))
    yield offer("a pickle called .tar", lambda c: files.pickled(c, 4), files.unpickle)
    yield offer("a zip called .tar", lambda c: files.zipped({"a.png": good}))
    yield offer("deep JSON", lambda c: files.tar_of({"a.png": good, "a.json": files.deep_json(100_000).encode()}))


def captions(home: Home) -> Iterator[Offer]:
    def offer(name: str, content: Callable[[Path], bytes], careless: Any = None) -> Offer:
        words = ["caption", "evaluate", FILE, "--data", home / "m", "--num_bootstrap", 0]
        return file_offer(f"captions: {name}", "x.jsonl", content, words, careless)

    yield offer("a pickle", lambda c: files.pickled(c, 4), files.unpickle)
    yield offer("an old pickle", lambda c: files.pickled(c, 0), files.unpickle)
    yield offer("torch.save", files.torch_file, files.torch_load)
    yield offer("a deep line", lambda c: files.deep_json().encode())
    yield offer("NaN for a caption", lambda c: b'{"id": "x", "caption": NaN}\n')
