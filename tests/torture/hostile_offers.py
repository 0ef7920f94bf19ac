"""Hostile files as a user would meet them: offered as model, embeddings, manifest, table, configuration or collection.

An offer is a command of the real command line. `careless` says what the same file does in the hands of a reader that
trusts it; where it is None the file carries no code (it climbs out of its place, swells, or never ends).
"""

import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from torture import hostile_files as files

from gapless.files import sha256_of


@dataclass(frozen=True)
class Offer:
    """One hostile file and the command that is given it.

    Args:
        make: puts the file into an empty directory, with code that writes a canary; gives the command.
        careless: reads the same file and runs its code.
        file: what `careless` reads, below the directory.
    """

    name: str
    make: Callable[[Path, Path], list[Any]]
    careless: files.Careless | None = None
    file: str = ""


@dataclass(frozen=True)
class Home:
    """What is good and stands beside the hostile: `model`, `captioner`, `m`, `run`, `embeddings`, `collection`, good.npy."""

    path: Path

    def __truediv__(self, name: str) -> Path:
        return self.path / name


def offers(home: Home) -> list[Offer]:
    families = (arrays, embeddings, weights, descriptions, tokenizers, open_clips, manifests, tables, shards)
    return [offer for family in (*families, configurations, runs, collections, captions) for offer in family(home)]


# ---- arrays ---------------------------------------------------------------------------------------------------------


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


# ---- directories of embeddings --------------------------------------------------------------------------------------


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


# ---- models ---------------------------------------------------------------------------------------------------------


def model_offer(
    name: str,
    change: Callable[[Path, Path], None],
    home: Home,
    careless: files.Careless | None = None,
    file: str = "",
    base: str = "model",
    verb: str = "embed",
) -> Offer:
    """A copy of a good model with something changed."""

    def make(place: Path, canary: Path) -> list[Any]:
        model = place / "model"
        shutil.copytree(home / base, model)
        change(model, canary)
        commands: dict[str, list[Any]] = {
            "embed": ["embed", model, "--data", home / "m", "--out", place / "e"],
            "pair": ["embed", f"text={model}", "--data", home / "m", "--out", place / "e"],
            "search": ["search", home / "collection", "words", "--model", model],
            "index": ["index", model, "--data", home / "m", "--out", place / "c"],
            "export": ["export", model, "--to", "onnx", "--out", place / "o"],
            "caption": ["caption", "generate", model, "--data", home / "m", "--out", place / "c.jsonl"],
            "train": ["caption", "train", model, "--data", home / "m", "--out", place / "r"],
        }
        return commands[verb]

    return Offer(f"{verb}: {name}", make, careless, f"model/{file}")


def weights(home: Home) -> Iterator[Offer]:
    makers: dict[str, tuple[Callable[[Path], bytes], files.Careless]] = {
        "a pickle": (lambda c: files.pickled(c, 4), files.unpickle),
        "torch.save": (files.torch_file, files.torch_load),
        "old torch.save": (lambda c: files.torch_file(c, True), files.torch_load),
        "joblib": (files.joblib_file, files.joblib_load),
    }
    for name, (content, careless) in makers.items():
        for verb in ("embed", "search", "index", "export", "caption", "train"):
            base = "captioner" if verb == "caption" else "model"

            def disguised(model: Path, canary: Path, content: Any = content) -> None:
                (model / "model.safetensors").write_bytes(content(canary))

            yield model_offer(
                f"{name} as model.safetensors", disguised, home, careless, "model.safetensors", base, verb
            )
        for file in ("pytorch_model.bin", "model.bin", "model.pt", "adapter_model.bin"):

            def named(model: Path, canary: Path, content: Any = content, file: str = file) -> None:
                (model / "model.safetensors").unlink()
                (model / file).write_bytes(content(canary))

            yield model_offer(f"{name} as {file}", named, home, careless, file)

        def of_bert(model: Path, canary: Path, content: Any = content) -> None:
            (model / "model.safetensors").unlink()
            (model / "pytorch_model.bin").write_bytes(content(canary))

        yield model_offer(
            f"{name} as a text encoder's .bin", of_bert, home, careless, "pytorch_model.bin", "bert", "pair"
        )

    def climbing(model: Path, canary: Path) -> None:
        (model / "model.safetensors").unlink()
        (model.parent / "evil.bin").write_bytes(files.torch_file(canary))
        index = {"metadata": {"total_size": 8}, "weight_map": {"x": "../evil.bin"}}
        (model / "model.safetensors.index.json").write_text(json.dumps(index))

    yield model_offer("an index of weights that climbs", climbing, home, files.torch_load, "../evil.bin")


REMOTE = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel", "AutoTokenizer": ["evil.EvilTokenizer", None]}


def descriptions(home: Home) -> Iterator[Offer]:
    """config.json that asks for code, or for what no configuration may ask."""

    def remote(model: Path, canary: Path, **changes: Any) -> None:
        (model / "evil.py").write_text(files.python_that_writes(canary))
        config = json.loads((model / "config.json").read_text())
        config |= {"auto_map": REMOTE, "trust_remote_code": True, "model_type": "evil", **changes}
        (model / "config.json").write_text(json.dumps(config))

    for verb in ("embed", "search", "index", "export", "train"):
        yield model_offer(
            "a model type that the directory defines", remote, home, files.remote_config, "", "model", verb
        )
    yield model_offer(
        "a text encoder that the directory defines", remote, home, files.remote_config, "", "bert", "pair"
    )

    def rewritten(name: str, change: Callable[[dict[str, Any], Path], Any], verb: str = "embed") -> Offer:
        def write(model: Path, canary: Path) -> None:
            config = json.loads((model / "config.json").read_text())
            found = change(config, canary)
            (model / "config.json").write_text(found if isinstance(found, str) else json.dumps(found))

        return model_offer(name, write, home, verb=verb)

    def encoder(config: dict[str, Any], /, **changes: Any) -> dict[str, Any]:
        config["modalities"]["text"]["encoder"] |= changes
        return config

    changes: dict[str, Callable[[dict[str, Any], Path], Any]] = {
        "an architecture that is a module": lambda config, _: encoder(config, architecture="pipelines"),
        "an architecture that is a function": lambda config, _: encoder(config, architecture="pipeline"),
        "an architecture that is a dunder": lambda config, _: encoder(config, architecture="__loader__"),
        "an encoder kind that is a path": lambda config, _: encoder(config, kind="../../evil"),
        "attention from the hub": lambda config, _: encoder(
            config, config={**config["modalities"]["text"]["encoder"]["config"], "attn_implementation": "evil/kernel"}
        ),
        "layers without end": lambda config, _: encoder(
            config, config={**config["modalities"]["text"]["encoder"]["config"], "vocab_size": 1 << 40}
        ),
        "NaN for a size": lambda config, _: {**config, "embedding_dim": float("nan")},
        "a size without end": lambda config, _: {**config, "embedding_dim": 1 << 50},
        "modalities that are a list": lambda config, _: {**config, "modalities": ["image"]},
        "nested deeply": lambda config, _: files.deep_json(),
        "no JSON": lambda config, _: "{'modalities': __import__('os')}",
        "a list": lambda config, _: [],
    }
    for name, change in changes.items():
        yield rewritten(f"config.json: {name}", change)


def tokenizers(home: Home) -> Iterator[Offer]:
    def change_tokenizer(model: Path, **changes: Any) -> Path:
        folder = sorted(path.parent for path in model.rglob("tokenizer_config.json"))[0]
        config = json.loads((folder / "tokenizer_config.json").read_text())
        (folder / "tokenizer_config.json").write_text(json.dumps({**config, **changes}))
        return folder

    def remote(model: Path, canary: Path) -> None:
        folder = change_tokenizer(model, auto_map=REMOTE, tokenizer_class="EvilTokenizer")
        (folder / "tokenizer.json").unlink()
        for name in {folder, model}:
            (name / "evil.py").write_text(files.python_that_writes(canary) + "class EvilTokenizer: pass\n")

    for base, verb in (("model", "embed"), ("model", "search"), ("bert", "pair"), ("captioner", "caption")):
        file = {"bert": "", "model": "tokenizer/text", "captioner": "tokenizer/caption"}[base]
        yield model_offer(
            "a tokenizer that the directory defines", remote, home, files.remote_tokenizer, file, base, verb
        )

    def replaced(content: Callable[[Path], bytes]) -> Callable[[Path, Path], None]:
        def change(model: Path, canary: Path) -> None:
            next(model.rglob("tokenizer.json")).write_bytes(content(canary))

        return change

    file = "tokenizer/text/tokenizer.json"
    yield model_offer(
        "a pickle for tokenizer.json", replaced(lambda c: files.pickled(c, 4)), home, files.unpickle, file
    )
    yield model_offer("a deep tokenizer.json", replaced(lambda c: files.deep_json().encode()), home)


def open_clips(home: Home) -> Iterator[Offer]:
    """An open_clip directory: its weights are pickles by custom, its configuration reaches into transformers and timm."""

    def offer(name: str, change: Callable[[dict[str, Any], Path, Path], None], careless: Any, file: str) -> Offer:
        def make(place: Path, canary: Path) -> list[Any]:
            directory = place / "clip"
            shutil.copytree(home / "open_clip", directory)
            described = json.loads((directory / "open_clip_config.json").read_text())
            change(described, directory, canary)
            (directory / "open_clip_config.json").write_text(json.dumps(described))
            return ["embed", f"local-dir:{directory}", "--data", home / "m", "--out", place / "e"]

        return Offer(f"open_clip: {name}", make, careless, f"clip/{file}")

    def weighted(content: Callable[[Path], bytes], file: str) -> Callable[[dict[str, Any], Path, Path], None]:
        def change(config: dict[str, Any], directory: Path, canary: Path) -> None:
            for old in directory.glob("open_clip_*.safetensors"):
                old.unlink()
            (directory / file).write_bytes(content(canary))

        return change

    bin_file, safe_file = "open_clip_pytorch_model.bin", "open_clip_model.safetensors"
    yield offer("torch.save", weighted(files.torch_file, bin_file), files.torch_load, bin_file)
    yield offer("a pickle", weighted(lambda c: files.pickled(c, 4), bin_file), files.unpickle, bin_file)
    yield offer(
        "a pickle as safetensors", weighted(lambda c: files.pickled(c, 4), safe_file), files.unpickle, safe_file
    )

    def remote(config: dict[str, Any], directory: Path, canary: Path) -> None:
        folder = directory / "remote"
        folder.mkdir()
        (folder / "evil.py").write_text(files.python_that_writes(canary) + "class EvilTokenizer: pass\n")
        (folder / "config.json").write_text(json.dumps({"model_type": "bert"}))
        described = {"auto_map": REMOTE, "tokenizer_class": "EvilTokenizer"}
        (folder / "tokenizer_config.json").write_text(json.dumps(described))
        text = config["model_cfg"]["text_cfg"]
        text |= {"hf_tokenizer_name": str(folder), "tokenizer_kwargs": {"trust_remote_code": True}}

    yield offer("a tokenizer with trust", remote, files.remote_tokenizer, "remote")

    def of_timm(config: dict[str, Any], directory: Path, canary: Path) -> None:
        folder = directory / "tower"
        folder.mkdir()
        (folder / "pytorch_model.bin").write_bytes(files.torch_file(canary))
        (folder / "config.json").write_text(json.dumps({"architecture": "resnet10t", "num_features": 512}))
        vision = config["model_cfg"]["vision_cfg"]
        vision |= {"timm_model_name": f"local-dir:{folder}", "timm_model_pretrained": True}

    yield offer("a timm tower with weights of its own", of_timm, files.torch_load, "tower/pytorch_model.bin")

    def of_transformers(config: dict[str, Any], directory: Path, canary: Path) -> None:
        folder = directory / "text"
        folder.mkdir()
        (folder / "evil.py").write_text(files.python_that_writes(canary))
        described = {"model_type": "evil", "auto_map": REMOTE, "trust_remote_code": True}
        (folder / "config.json").write_text(json.dumps(described))
        config["model_cfg"]["text_cfg"] |= {"hf_model_name": str(folder), "hf_model_pretrained": True}

    yield offer("a text tower that the directory defines", of_transformers, files.remote_config, "text")

    def checkpoint(name: str, content: Callable[[Path], bytes], file: str, careless: files.Careless) -> Offer:
        def make(place: Path, canary: Path) -> list[Any]:
            (place / file).write_bytes(content(canary))
            return ["embed", f"{name}@{place / file}", "--data", home / "m", "--out", place / "e"]

        return Offer(f"open_clip: checkpoint {file}", make, careless, file)

    yield checkpoint("ViT-B-32", files.torch_file, "x.pt", files.torch_load)
    yield checkpoint("ViT-B-32", lambda c: files.pickled(c, 2), "x.pth", files.unpickle)
    beside = f"local-dir:{home / 'open_clip'}"
    yield checkpoint(beside, lambda c: files.pickled(c, 4), "x.safetensors", files.unpickle)


# ---- manifests, tables, shards --------------------------------------------------------------------------------------


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
        def make(place: Path, canary: Path) -> list[Any]:
            (place / file).write_bytes(content(canary) if callable(content) else content)
            return ["data", "table", place / file, "--out", place / "out", "--image-key", key, "--workers", 1]

        return Offer(f"table: {name}", make, careless, file)

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
        def make(place: Path, canary: Path) -> list[Any]:
            (place / "x.tar").write_bytes(content(canary))
            return ["data", "shards", place / "x.tar", "--out", place / "out", "--workers", 1]

        return Offer(f"shards: {name}", make, careless, "x.tar")

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


# ---- configurations and runs ----------------------------------------------------------------------------------------


def configurations(home: Home) -> Iterator[Offer]:
    def offer(
        name: str, text: Callable[[Path], str], words: Callable[[Path], list[Any]], careless: Any = None
    ) -> Offer:
        def make(place: Path, canary: Path) -> list[Any]:
            (place / "x.yaml").write_text(text(canary))
            return [*words(place), "--config", place / "x.yaml"]

        return Offer(f"--config: {name}", make, careless, "x.yaml")

    def train(place: Path) -> list[Any]:
        return ["train", "phantom-small", "--data", home / "m", "--out", place / "run"]

    def measure(place: Path) -> list[Any]:
        return ["measure", home / "embeddings"]

    for name in files.yaml_tags(Path("x")):
        for key, words in (("training", train), ("seed", measure)):
            yield offer(
                f"{key}: {name}",
                lambda c, name=name, key=key: f"{key}: {files.yaml_tags(c)[name]}\n",  # type: ignore[misc]
                words,
                files.unsafe_yaml,
            )
    yield offer("a class to make", lambda c: 'loss: {class_path: os.system, init_args: {command: "touch x"}}\n', train)
    yield offer("aliases without end", lambda c: files.laughs(), train)
    yield offer("deep brackets", lambda c: "training: " + files.deep_json(20_000), train)
    yield offer("no YAML", lambda c: "training: [1, 2", train)


def runs(home: Home) -> Iterator[Offer]:
    """A run's config.yaml, which `evaluate`, `caption evaluate` and `--resume` read."""
    commands: dict[str, Callable[[Path, Path], list[Any]]] = {
        "evaluate": lambda run, place: ["evaluate", run, "--data", home / "m", "--num_bootstrap", 0],
        "resume": lambda run, place: [
            *("train", "phantom-small", "--data", home / "m", "--out", run, "--resume", "latest"),
        ],
        "caption evaluate": lambda run, place: ["caption", "evaluate", run, "--data", home / "m"],
    }

    def offer(name: str, text: Callable[[Path], str], verb: str, careless: Any = None) -> Offer:
        def make(place: Path, canary: Path) -> list[Any]:
            run = place / "run"
            shutil.copytree(home / "run", run)
            (run / "config.yaml").write_text(text(canary))
            return commands[verb](run, place)

        return Offer(f"run, {verb}: {name}", make, careless, "run/config.yaml")

    for name in files.yaml_tags(Path("x")):
        for verb in commands:
            yield offer(
                name,
                lambda c, name=name: f"settings: {files.yaml_tags(c)[name]}\n",  # type: ignore[misc]
                verb,
                files.unsafe_yaml,
            )
    for verb in commands:
        yield offer("no YAML", lambda c: "settings: [1, 2", verb)
        yield offer("a list", lambda c: "[1, 2]", verb)
        yield offer("deep brackets", lambda c: "settings: " + files.deep_json(20_000), verb)


# ---- collections and captions ---------------------------------------------------------------------------------------


def collections(home: Home) -> Iterator[Offer]:
    commands: dict[str, Callable[[Path], list[Any]]] = {
        "search": lambda c: ["search", c, "words"],
        "hybrid": lambda c: ["search", c, "words", "--hybrid"],
        "serve": lambda c: ["serve", c, "--port", 0],
        "index": lambda c: ["index", home / "model", "--data", home / "m", "--out", c],
        "delete": lambda c: ["index", "delete", c, "--where", "id = 'x'"],
    }

    def offer(
        name: str, make_collection: Callable[[Path, Path], Any], verb: str, careless: Any = None, file: str = ""
    ) -> Offer:
        def make(place: Path, canary: Path) -> list[Any]:
            make_collection(place / "c", canary)
            return commands[verb](place / "c")

        return Offer(f"collection, {verb}: {name}", make, careless, f"c/{file}")

    def foreign(path: Path, canary: Path) -> None:
        path.mkdir()
        (path / "rows.pkl").write_bytes(files.pickled(canary, 4))

    def pickled_version(path: Path, canary: Path) -> None:
        shutil.copytree(home / "collection", path)
        for version in (path / "rows.lance" / "_versions").iterdir():
            version.write_bytes(files.pickled(canary, 4))
        (path / "x.pkl").write_bytes(files.pickled(canary, 4))

    def table_of(columns: Callable[[Path], pa.Table]) -> Callable[[Path, Path], None]:
        def make(path: Path, canary: Path) -> None:
            import lancedb

            lancedb.connect(str(path)).create_table("rows", columns(canary))

        return make

    def with_metadata(value: Callable[[Path], dict[str, str]]) -> Callable[[Path], pa.Table]:
        from gapless.search.collection import Collection

        def make(canary: Path) -> pa.Table:
            table = Collection.open(home / "collection").table.to_arrow()
            changed = {name.encode(): text for name, text in value(canary).items()}
            return table.replace_schema_metadata({**(table.schema.metadata or {}), **changed})

        return make

    def embedded(canary: Path) -> dict[str, str]:
        """The engine makes what stands here, and sentence-transformers runs the modules of its directory."""
        folder = canary.parent / "sentences"
        folder.mkdir(exist_ok=True)
        (folder / "evil.py").write_text(files.python_that_writes(canary) + "class Evil: pass\n")
        (folder / "modules.json").write_text(json.dumps([{"idx": 0, "name": "0", "path": "", "type": "evil.Evil"}]))
        config = {"auto_map": REMOTE, "model_type": "evil"}
        (folder / "config.json").write_text(json.dumps(config))
        function = {
            "name": "sentence-transformers",
            "model": {"name": str(folder), "trust_remote_code": True},
            "source_column": "caption",
            "vector_column": "vector",
        }
        return {"embedding_functions": json.dumps([function])}

    for verb in commands:
        yield offer("a pickle beside nothing", foreign, verb, files.unpickle, "rows.pkl")
        yield offer("pickles for its versions", pickled_version, verb, files.unpickle, "x.pkl")
        yield offer(
            "functions for the engine to make",
            table_of(with_metadata(embedded)),
            verb,
            files.remote_config,
            "../sentences",
        )
        yield offer("a table of somebody else", table_of(lambda c: pa.table({"row": ["a"], "vector": [[1.0]]})), verb)
        yield offer("deep metadata", table_of(with_metadata(lambda c: {"gapless": files.deep_json(50_000)})), verb)


def captions(home: Home) -> Iterator[Offer]:
    def offer(name: str, content: Callable[[Path], bytes], careless: Any = None) -> Offer:
        def make(place: Path, canary: Path) -> list[Any]:
            (place / "x.jsonl").write_bytes(content(canary))
            return ["caption", "evaluate", place / "x.jsonl", "--data", home / "m", "--num_bootstrap", 0]

        return Offer(f"captions: {name}", make, careless, "x.jsonl")

    yield offer("a pickle", lambda c: files.pickled(c, 4), files.unpickle)
    yield offer("an old pickle", lambda c: files.pickled(c, 0), files.unpickle)
    yield offer("torch.save", files.torch_file, files.torch_load)
    yield offer("a deep line", lambda c: files.deep_json().encode())
    yield offer("NaN for a caption", lambda c: b'{"id": "x", "caption": NaN}\n')
