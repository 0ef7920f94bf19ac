"""RadGraph (Jain et al., arXiv 2106.14463; RadGraph-XL, Delbrouck et al. 2024) by its own package `radgraph`.

The directory is what the package calls its model cache: it holds the unpacked `radgraph-xl/`, `modern-radgraph-xl/` or
`radgraph/`. An observation is a finding by its words; anatomy is none.
"""

import contextlib
import sys
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from gapless.captioning.findings import STATUSES, Mention, Status
from gapless.captioning.labellers.base import LABELLERS, Labeller
from gapless.core.errors import UsageError

MODELS = ("radgraph-xl", "modern-radgraph-xl", "radgraph")
LABELS: dict[str, Status] = {
    "Observation::definitely present": "present",
    "Observation::definitely absent": "denied",
    "Observation::uncertain": "uncertain",
    "OBS-DP": "present",
    "OBS-DA": "denied",
    "OBS-U": "uncertain",
}


def load(directory: Path) -> Labeller:
    """The labeller of a directory.

    Raises:
        UsageError: the package is not installed, or no model lies in the directory.
    """
    name = next((name for name in MODELS if (directory / name / "config.json").is_file()), None)
    if name is None:
        raise UsageError(
            f"--labeller radgraph={directory} holds none of {', '.join(MODELS)} with its config.json; unpack the "
            "model's archive there"
        )
    try:
        package: Any = import_module("radgraph")
    except ImportError:
        raise UsageError("--labeller radgraph needs the package 'radgraph': pip install radgraph") from None
    with contextlib.redirect_stdout(sys.stderr):  # it prints, and stdout is for results
        model = package.RadGraph(model_type=name, model_cache_dir=str(directory), cuda=-1)

    def label(texts: Sequence[str]) -> list[dict[str, Mention]]:
        with contextlib.redirect_stdout(sys.stderr):
            found = model(list(texts)) if texts else {}
        return [observations(found.get(str(row)) or {}) for row in range(len(texts))]

    return label


def observations(annotation: Mapping[str, Any]) -> dict[str, Mention]:
    """The observations of a text as the package annotates it; of equal words a present one counts first."""
    found: dict[str, Mention] = {}
    for entity in (annotation.get("entities") or {}).values():
        status, words = LABELS.get(entity["label"]), str(entity["tokens"]).lower()
        if status is not None and (words not in found or STATUSES.index(status) < STATUSES.index(found[words].status)):
            found[words] = Mention(status)
    return found


LABELLER = LABELLERS.add("radgraph", load)
