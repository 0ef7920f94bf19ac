"""The model card: what a model is for, what it was made from, and how large its gap was before and is now."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gapless.metrics.catalogue import COMPLETE, label_of, required_entry
from gapless.models.aligner import GaplessModel
from gapless.models.choice import markdown_choice

UNKNOWN = "not recorded"
SHOWN = (
    "gap/centroid_distance_unbiased",
    "gap/centroid_distance",
    "gap/true_pair_cosine",
    "gap/margin",
    "gap/margin_centred",
    "gap/d_prime_centred",
    "gap/mixing@10",
    "retrieval/mean/R@1",
    "retrieval/mean/R@10",
    "grouping/v_measure",
)
MAX_SETTING = 120  # characters of a setting on the card
# The columns of the table of pairs, for three modalities or more.
OF_PAIRS = ("gap/centroid_distance_unbiased", "gap/true_pair_cosine", "gap/margin")


@dataclass(frozen=True)
class CardFacts:
    """The facts on a card that the model does not hold itself.

    Args:
        name: the title.
        results: what `results.json` holds.
        before: figures to compare with.
        before_label: the model that these figures are of, for the heading.
        licences: of the data, with row counts where rows have their own.
    """

    name: str
    results: Mapping[str, Any]
    before: Mapping[str, Any] = field(default_factory=dict)
    before_label: str = "before"
    licences: Mapping[str, int | None] = field(default_factory=dict)


def _value_of(figure: Any) -> float | None:
    if isinstance(figure, Mapping):
        figure = figure.get("value", figure.get("mean"))
    return None if figure is None else float(figure)


def text_of(figure: Any) -> str:
    """A figure with three decimals and its interval; a dash for None."""
    value = _value_of(figure)
    if value is None:
        return "–"
    interval = isinstance(figure, Mapping) and figure.get("low") is not None
    return f"{value:.3f}" + (f" [{figure['low']:.3f}, {figure['high']:.3f}]" if interval else "")


def model_card(model: GaplessModel, facts: CardFacts) -> str:
    """The card in Markdown, with the header that model hubs read."""
    results = facts.results
    data = results.get("data") or {}
    names = ", ".join(model.modalities)
    return f"""---
library_name: gapless
license: other
license_name: see-data-licences
tags: [multimodal, medical, radiology, contrastive, modality-gap]
---

# {facts.name}

Embeds {names} into one space of {model.config.embedding_dim} dimensions in which the modality gap is closed, after
"Closing the gap in multimodal medical representation alignment" (arXiv 2602.20046).

## Intended use

Research on medical multimodal retrieval, clustering and representation. **This is not a medical device.** It is not
cleared or validated for diagnosis, triage, treatment or any other decision about a patient, and must not be used for
one.

## How to use it

```python
from gapless import GaplessModel

model = GaplessModel.from_pretrained("{facts.name}")
rows = model.encode("{model.modalities[-1]}", [...])      # unit-norm [row, {model.config.embedding_dim}]
```

## The gap, before and after

{_figures_table(facts)}

{_measured_line(results)}

## How it was made

{_made_lines(model, results)}

## What goes in

{preprocessing_lines(model)}
{_choice_lines(results)}
## Data and licences

- source: {_source_of(data.get("source"))}
- rows: {counted(data.get("rows") or results.get("rows"))}
- groups in the measured split: {data.get("groups") or UNKNOWN}
- fingerprint of the data (sha256): `{data.get("fingerprint") or UNKNOWN}`
- fingerprint of the split (sha256): `{results.get("split_fingerprint") or data.get("fingerprint") or UNKNOWN}`
- {_leakage_line(data)}

{_licence_lines(facts.licences)}

## Limits

- Figures hold for the split named above; recall depends on the size of the gallery.
- Images and captions from other scanners, sites, languages or populations may embed worse; measure on your own data
  with `gapless measure`.
- Training captions are reports and teaching material: they name what somebody saw, not what was there.
"""


def _figures_table(facts: CardFacts) -> str:
    after = facts.results.get("figures", {})
    rows = [key for key in SHOWN if _value_of(after.get(key)) is not None]
    lines = [f"| figure | {facts.before_label} | this model |", "| --- | ---: | ---: |"]
    lines += [f"| {_row_name(key)} | {text_of(facts.before.get(key))} | {text_of(after[key])} |" for key in rows]
    note = "" if facts.before else "\n\nThe gap before has not been measured."
    return "\n".join(lines) + note


def _row_name(key: str) -> str:
    """The figure's name with which way is better, and its value when the gap is closed."""
    hint = required_entry(key).hint
    return f"{label_of(key)} ({hint})" if hint else label_of(key)


def _source_of(source: Any) -> str:
    """The source of the data without folders, which would tell about the machine."""
    if isinstance(source, Mapping):
        return ", ".join(f"{name} {_source_of(path)}" for name, path in source.items())
    return Path(source).name if source and Path(source).is_absolute() else str(source or UNKNOWN)


def _measured_line(results: Mapping[str, Any]) -> str:
    num_rows, gallery, split = (results.get(key, UNKNOWN) for key in ("n", "gallery_size", "split"))
    resampled = any(isinstance(figure, Mapping) and "low" in figure for figure in results.get("figures", {}).values())
    intervals = "; intervals are 95 %, groups resampled" if resampled else ""
    pairs = results.get("pairs")
    if not isinstance(pairs, Mapping) or not pairs:
        return f"Measured on {num_rows} pairs of the split `{split}`, gallery {gallery}{intervals}."
    said = f"Measured on {num_rows} rows of the split `{split}`, each pair of modalities on the rows that have both"
    return f"{said}{intervals}. A figure above is the mean over the pairs.\n\n{_pairs_table(results, pairs)}"


def _pairs_table(results: Mapping[str, Any], pairs: Mapping[str, Any]) -> str:
    """Each pair of modalities with its rows, its gallery and its main figures; then the complete rows."""
    keys = [key for key in OF_PAIRS if any(f"{key}/{name}" in results.get("figures", {}) for name in pairs)]
    columns = ["pair", "n", "gallery", *map(label_of, keys)]
    lines = [f"| {' | '.join(columns)} |", f"| --- |{' ---: |' * (len(columns) - 1)}"]
    figures = results.get("figures", {})
    for name, pair in pairs.items():
        counts = [str(pair.get(key, UNKNOWN)) for key in ("n", "gallery_size")]
        values = [text_of(figures.get(f"{key}/{name}")) for key in keys]
        lines.append(f"| {name} | {' | '.join([*counts, *values])} |")
    complete = results.get("complete")
    if isinstance(complete, Mapping):
        counts = [str(complete.get(key, UNKNOWN)) for key in ("n", "gallery_size")]
        values = [text_of(figures.get(f"{key}{COMPLETE}")) for key in keys]
        lines.append(f"| rows with every modality | {' | '.join([*counts, *values])} |")
    return "\n".join(lines)


def _made_lines(model: GaplessModel, results: Mapping[str, Any]) -> str:
    facts = {
        "method": results.get("method"),
        "loss": results.get("loss"),
        "recipe": results.get("recipe"),
        "seed": results.get("seed"),
        "versions": ", ".join(f"{name} {number}" for name, number in (results.get("versions") or {}).items()),
    }
    lines = [f"- {name}: {value}" for name, value in facts.items() if value not in (None, "")]
    for name, spec in model.specs.items():
        kind = (getattr(spec.encoder, "config", None) or {}).get("model_type") or spec.encoder.kind
        lines.append(f"- {name}: {kind}{'' if spec.encoder.trainable else ', frozen'}")
    followed = model.config.loss.get("followed")
    if isinstance(followed, Mapping):
        lines.append(f"- closing: {followed.get('sentence')}")
    return "\n".join(lines)


def preprocessing_lines(model: GaplessModel) -> str:
    """For each modality the settings by which raw inputs become the tensors of its encoder."""
    lines = []
    for name in model.modalities:
        settings = {k: v for k, v in model.config.modalities[name]["input"].items() if v is not None}
        described = ", ".join(f"{key} {_setting(value)}" for key, value in settings.items() if key != "kind")
        lines.append(f"- {name}: {settings.get('kind')}{': ' if described else ''}{described}")
    return "\n".join(lines)


def _setting(value: Any) -> str:
    """A setting as JSON; of long ones, such as the fitted percentiles of a table, the number of entries."""
    text = json.dumps(value)
    is_long = len(text) > MAX_SETTING and isinstance(value, list | tuple | Mapping)
    return f"of {len(value)} entries (config.json)" if is_long else text


def _choice_lines(results: Mapping[str, Any]) -> str:
    """The candidates that a method was chosen from, where there was a choice."""
    choice = results.get("choice")
    if not isinstance(choice, Mapping):
        return ""
    return f"\n## How the method was chosen\n\n{markdown_choice(choice)}\n"


def counted(rows: Any) -> str:
    """Name and count of each split as text."""
    return ", ".join(f"{name} {count}" for name, count in rows.items()) if isinstance(rows, Mapping) else UNKNOWN


def _leakage_line(data: Mapping[str, Any]) -> str:
    shares = data.get("leakage") or {}
    described_shares = ", ".join(f"{key.replace('_', ' ')} {value:.1%}" for key, value in shares.items())
    return f"leakage: {described_shares or UNKNOWN}"


def _licence_lines(licences: Mapping[str, int | None]) -> str:
    if not licences:
        return "The licence of the data was not recorded: find it out before you share this model."
    lines = [f"- {name}" + ("" if count is None else f": {count} rows") for name, count in licences.items()]
    return "The model was trained on data under these licences, whose terms may extend to it:\n\n" + "\n".join(lines)
