"""The base of the results that public functions return: frozen dataclasses with the object that `--json` prints."""

from dataclasses import fields
from pathlib import Path
from typing import Any


class Result:
    """The base of every result; a subclass is a frozen dataclass whose fields are the keys of the JSON object.

    A field named `notes` holds sentences for the user. They are not in the object; the command line prints them on
    stderr.
    """

    def as_json(self) -> dict[str, Any]:
        """The object that the command prints with `--json`: every field but the notes, paths as text."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "notes"}  # type: ignore[arg-type]
        return {name: str(value) if isinstance(value, Path) else value for name, value in values.items()}
