"""Hostile models, offered to whatever takes one: pickles for weights; descriptions and tokenizers that ask for code."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torture import hostile_files as files
from torture.hostile_offer import Home, Offer


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
    """open_clip directories: weights are pickles by custom, and descriptions reach into transformers and timm."""

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
