"""Builds sdist and wheel into dist/, checks what they hold, and writes an SBOM of the packages that they need.

The wheel is built from the sdist, so that a file which the sdist lacks is missed here. `make wheel` runs this.
"""

import json
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from packaging.utils import canonicalize_name

from gapless.core.installation import packages_of

ROOT = Path(__file__).resolve().parents[1]
DIST = ROOT / "dist"
NEEDED = (
    "gapless/py.typed",
    "gapless/pages/site/index.html",
    "gapless/pages/site/search.js",
    "gapless/pages/templates/base.css",
    "gapless/server/static/",
    "gapless/server/templates/",
    "gapless/study/templates/",
)


def python(*words: str) -> None:
    """Run a module of this interpreter's environment; its output is shown only when it fails."""
    done = subprocess.run([sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)} failed:\n{done.stdout[-4000:]}\n{done.stderr[-4000:]}")


def lacking(wheel: Path) -> list[str]:
    """What a wheel should hold and does not."""
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    wanted = [needed for needed in NEEDED if not any(name.startswith(needed) for name in names)]
    return wanted + ([] if any(name.endswith("licenses/LICENSE") for name in names) else ["LICENSE"])


def only_needed(sbom: Mapping[str, Any], needed: set[str]) -> dict[str, Any]:
    """An SBOM of an environment with the components that gapless needs, without the tools of its developers."""
    components = [one for one in sbom["components"] if canonicalize_name(one["name"]) in needed]
    refs = {one["bom-ref"] for one in components} | {sbom["metadata"]["component"]["bom-ref"]}
    dependencies = [
        {**one, "dependsOn": [ref for ref in one.get("dependsOn", []) if ref in refs]}
        for one in sbom["dependencies"]
        if one["ref"] in refs
    ]
    return {**sbom, "components": components, "dependencies": dependencies}


def write_sbom(path: Path) -> int:
    """Write the SBOM of this environment's gapless with all extras, and return its number of components."""
    python("cyclonedx_py", "environment", "--pyproject", "pyproject.toml", "--output-reproducible", "-o", str(path))
    needed = set(packages_of("gapless", ["all"])) - {"gapless"}
    sbom = only_needed(json.loads(path.read_text(encoding="utf-8")), needed)
    path.write_text(json.dumps(sbom, indent=2) + "\n", encoding="utf-8")
    return len(sbom["components"])


def build() -> None:
    """Build and check.

    Raises:
        SystemExit: a step failed, or the wheel lacks a file.
    """
    for old in (DIST, ROOT / "build" / "lib"):
        shutil.rmtree(old, ignore_errors=True)
    python("build", "--no-isolation", "--outdir", str(DIST))
    files = sorted(DIST.iterdir())
    python("twine", "check", "--strict", *map(str, files))
    (wheel,) = DIST.glob("*.whl")
    if missing := lacking(wheel):
        raise SystemExit(f"{wheel.name} lacks {', '.join(missing)}")
    sbom = DIST / f"{'-'.join(wheel.name.split('-')[:2])}.cdx.json"
    number = write_sbom(sbom)
    sizes = ", ".join(f"{file.name} ({file.stat().st_size / 2**20:.1f} MiB)" for file in files)
    print(f"{sizes}; {sbom.name} names {number} packages")


if __name__ == "__main__":
    build()
