"""The figures of the torture tests: printed, and kept where GAPLESS_LEDGER names a file.

    GAPLESS_LEDGER=torture.jsonl make torture

docs/reliability.md is filled from such a file.
"""

import json
import os
import sys
from typing import Any


def record(name: str, **figures: Any) -> None:
    """Print one line per figure of the test `name`; append them to the ledger as one line of JSON."""
    for figure, value in figures.items():
        # not to stdout, which a process of pytest-xdist uses to talk to the first one
        print(f"torture {name}: {figure} = {value}", file=sys.stderr, flush=True)
    ledger = os.environ.get("GAPLESS_LEDGER")
    if ledger:
        line = json.dumps({"test": name, **figures}, sort_keys=True) + "\n"
        with open(ledger, "a", encoding="utf-8") as stream:  # one write: tests run side by side
            stream.write(line)
