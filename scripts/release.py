"""Prepares a release and stops before anything is published: `python scripts/release.py 0.2.0 [--tag]`.

It checks that the version is the same everywhere, that the changelog has a dated section for it and that everything is
committed; builds the site, the sdist, the wheel and the SBOM; installs and uses the wheel; and, with --tag, makes the
tag. It then prints the commands that publish, which a person runs.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
STEPS = ("build_site.py", "build_wheel.py", "check_install.py")


def versions(root: Path) -> dict[str, str]:
    """File -> the version that it states."""
    code = (root / "src" / "gapless" / "__init__.py").read_text(encoding="utf-8")
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    stated = {
        "src/gapless/__init__.py": re.search(r'^__version__ = "(.+)"$', code, re.MULTILINE),
        "CITATION.cff": re.search(r"^version: (.+)$", citation, re.MULTILINE),
    }
    return {"pyproject.toml": project["version"], **{file: one[1] if one else "none" for file, one in stated.items()}}


def faults(root: Path, version: str) -> list[str]:
    """A sentence for each thing that stands against a release of this version; empty where nothing does."""
    found = [f"{file} says {stated}" for file, stated in versions(root).items() if stated != version]
    changelog = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    section = re.search(rf"^## {re.escape(version)}\b(.*)$", changelog, re.MULTILINE)
    if section is None:
        found.append(f"CHANGELOG.md has no section {version}")
    elif not re.fullmatch(r" \(\d{4}-\d{2}-\d{2}\)", section[1]):
        found.append(f"the section {version} of CHANGELOG.md needs a date: ## {version} (2026-12-31)")
    if git(root, "status", "--porcelain"):
        found.append("there are changes that are not committed")
    if git(root, "tag", "--list", f"v{version}"):
        found.append(f"there is a tag v{version} already")
    return found


def git(root: Path, *words: str) -> str:
    """What a git command prints."""
    done = subprocess.run(["git", *words], cwd=root, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def main(argv: Sequence[str] | None = None, root: Path = ROOT, steps: Sequence[str] = STEPS) -> int:
    """Prepare a release; 0 where it is ready, 2 with a sentence for each fault."""
    parser = argparse.ArgumentParser(description="Prepare a release and stop before it is published.")
    parser.add_argument("version")
    parser.add_argument("--tag", action="store_true", help="make the tag when all else is done")
    args = parser.parse_args(argv)
    against = faults(root, args.version)
    if against:
        print(*against, sep="\n", file=sys.stderr)
        return 2
    for step in steps:
        subprocess.run([sys.executable, str(root / "scripts" / step)], cwd=root, check=True)
    if args.tag:
        git(root, "tag", "--annotate", f"v{args.version}", "--message", f"gapless {args.version}")
    print(
        f"gapless {args.version} is ready in dist/; nothing was published. What publishes it:\n"
        + ("" if args.tag else f"  git tag --annotate v{args.version} --message 'gapless {args.version}'\n")
        + f"  git push origin v{args.version}\n  python -m twine upload dist/*.whl dist/*.tar.gz"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
