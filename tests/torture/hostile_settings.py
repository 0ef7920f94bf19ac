"""Hostile configurations, runs and collections."""

import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
from torture import hostile_files as files
from torture.hostile_models import REMOTE
from torture.hostile_offer import Home, Offer


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
