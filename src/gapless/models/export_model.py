"""`gapless export` as one call: a model as ONNX graphs, or as a directory for a model hub with its card."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gapless.core.errors import UsageError
from gapless.core.files import check_new_directory, read_json
from gapless.core.results import Result
from gapless.manifest.manifest import Manifest
from gapless.models.card import CardFacts, model_card
from gapless.models.export import export_hub, export_onnx, push
from gapless.models.load import load_model


@dataclass(frozen=True)
class Exported(Result):
    """An exported model.

    Args:
        export: the directory.
        to: onnx or hub.
        largest_difference: of ONNX graphs: modality -> largest absolute difference of an embedding's entry from the
            model's, at most 1e-4.
        address: where it was sent, or None.
    """

    export: Path
    to: Literal["onnx", "hub"]
    largest_difference: Mapping[str, float] | None = None
    address: str | None = None

    def as_json(self) -> dict[str, Any]:
        """The directory, and what belongs to its kind."""
        own = {"largest_difference": self.largest_difference} if self.to == "onnx" else {"address": self.address}
        return {"export": str(self.export), **own}


def export(
    model: str | Path,
    *,
    to: Literal["onnx", "hub"],
    out: str | Path,
    data: str | Path | Manifest | None = None,
    name: str | None = None,
    push_to: str | None = None,
) -> Exported:
    """Write a model for elsewhere; nothing is sent anywhere without `push_to`.

    Examples:
        >>> import gapless
        >>> exported = gapless.export("run", to="hub", out="hub", data="data")
        >>> sorted(path.name for path in exported.export.iterdir())[:2]
        ['README.md', 'config.json']

    Args:
        model: a run or model directory; for a hub one with `results.json`, since the card shows its figures.
        to: one graph per modality, or a directory as a hub takes it.
        out: directory to write.
        data: manifest, for the licences that the card names.
        name: title of the card; by default the name on the hub, or the directory's.
        push_to: also send it to the hub under this name, which needs the network.

    Raises:
        UsageError: `push_to` without the hub, `out` in use, a model without figures, a package that is missing.
        NeedsNetwork: the hub cannot be reached. GaplessError: a graph that differs from the model.
    """
    if push_to and to != "hub":
        raise UsageError("--push goes with --to hub")
    out = Path(out)
    check_new_directory(out)
    facts = _card_facts(Path(model), name or push_to or out.name, data) if to == "hub" else None
    loaded = load_model([model])
    if facts is None:
        return Exported(out, to, largest_difference=export_onnx(loaded, out))
    export_hub(loaded, model_card(loaded, facts), out)
    return Exported(out, to, address=push(out, push_to) if push_to else None)


def _card_facts(run: Path, name: str, data: str | Path | Manifest | None) -> CardFacts:
    """The facts of a run for its card.

    Raises:
        UsageError: a run without figures: its card could not show the gap.
    """
    if not (run / "results.json").exists():
        raise UsageError(f"{run} has no results.json, and the card shows its figures; run 'gapless evaluate' first")
    results = read_json(run / "results.json")
    label, before = _before_figures(run, results)
    return CardFacts(name, results, before, label, {} if data is None else _licences(Manifest.of(data)))


def _licences(manifest: Manifest) -> dict[str, int | None]:
    """Licence -> rows under it; None for the licence of the whole data set."""
    licences: dict[str, int | None] = {}
    if "licence" in manifest.table.column_names:
        licences |= Counter(value or "unknown" for value in manifest.table["licence"].to_pylist())
    if manifest.info.get("licence"):
        licences.setdefault(manifest.info["licence"], None)
    return licences


def _before_figures(run: Path, results: Mapping[str, Any]) -> tuple[str, Mapping[str, Any]]:
    """(name, figures) to compare with: the frozen model before closing, or the baseline of the run's comparison."""
    if results.get("before"):
        return "frozen model", results["before"]
    comparison = run.resolve().parent.parent / "compare.json"
    if comparison.exists():
        compared = read_json(comparison)
        baseline = compared["baseline"]
        return f"baseline {baseline}", compared["table"].get(baseline, {})
    return "before", {}
