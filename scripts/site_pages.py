"""The pages that the site is built from: those of docs/, those at the root of the repository, and the generated ones.

Pages read well on their own too, so that their links are those of the repository: `../CONTRIBUTING.md` from docs/,
`docs/close.md` from the root. `staged_pages` gives them the addresses of the site.
"""

import contextlib
import io
import re
from collections.abc import Iterator, Mapping
from importlib import import_module
from pathlib import Path

import gapless
from gapless.cli.main import VERBS, main

ROOT = Path(__file__).resolve().parents[1]
# Page of the site -> file of the repository.
ROOT_PAGES = {
    "index.md": "README.md",
    "contributing.md": "CONTRIBUTING.md",
    "changelog.md": "CHANGELOG.md",
    "log.md": "LOG.md",
}
CODE = re.compile(r"(^```.*?^```|^(?: {4}|\t).*?$|`[^`\n]*`)", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(!?\[)([^\]\n]*)\]\(([^)#\s]+)((?:#[^)]*)?)\)")


def staged_pages() -> dict[str, str]:
    """Address below the site -> Markdown of every page, generated ones included."""
    pages = {path.name: path.read_text(encoding="utf-8") for path in sorted((ROOT / "docs").glob("*.md"))}
    pages = {name: moved_links(text, "docs") for name, text in pages.items()}
    for name, file in ROOT_PAGES.items():
        pages[name] = moved_links((ROOT / file).read_text(encoding="utf-8"), ".")
    return pages | {"reference/commands.md": commands_page(), "reference/python.md": python_page()}


def pictures() -> Iterator[Path]:
    """The pictures that the pages show."""
    return (ROOT / "docs").glob("*.png")


def moved_links(text: str, folder: str) -> str:
    """The text of a page of a folder of the repository with each link to a file made one to its page of the site.

    A link to a file that is no page, such as an example, becomes its words alone: the site has no such file.

    Raises:
        FileNotFoundError: a link to a file that the repository does not have either.
    """
    addresses = {(ROOT / file).resolve(): page for page, file in ROOT_PAGES.items()}

    def moved(match: re.Match[str]) -> str:
        bracket, words, target, heading = match.groups()
        if re.match(r"[a-z]+:", target):
            return match[0]
        file = (ROOT / folder / target).resolve()
        if not file.exists():
            raise FileNotFoundError(f"a page of {folder} links to {target}, which is not there")
        if file in addresses or file.parent == ROOT / "docs":
            return f"{bracket}{words}]({addresses.get(file, file.name)}{heading})"
        return words

    parts = CODE.split(text)  # prose, code, prose, ...
    return "".join(part if number % 2 else LINK.sub(moved, part) for number, part in enumerate(parts))


def commands_page() -> str:
    """Every verb with all its options, as `--help-all` prints them."""
    parts = [
        "# Commands\n\nWhat `gapless VERB --help-all` prints; `gapless VERB --help` shows the common options alone.\n"
    ]
    for name, verb in VERBS.items():
        words = [*name.split(), *(["table-small"] if name == "train" else []), "--help-all"]
        summary = f"{verb.summary[:1].upper()}{verb.summary[1:]}."
        parts.append(f"## gapless {name}\n\n{summary}\n\n```text\n{printed(words)}```\n")
    return "\n".join(parts)


def printed(words: list[str]) -> str:
    """What the command prints on stdout."""
    stream = io.StringIO()
    with contextlib.redirect_stdout(stream), contextlib.suppress(SystemExit):
        main(words)
    return stream.getvalue()


def python_page() -> str:
    """The public names: those of `gapless`, then those of each room that lists some, from their docstrings."""
    parts = ["# Python\n\nThe names that others may use. Every verb of the command line is one function.\n"]
    for package in ("gapless", *public_rooms()):
        module = import_module(package)
        summary = (module.__doc__ or "").strip().partition("\n\n")[0]
        parts.append(f"## {package}\n\n{summary}\n")
        shown = "gapless" if package == "gapless" else ""
        names = [name for name in module.__all__ if shown or name not in gapless.__all__]
        parts += [f"::: {home}\n" for home in homes(package, names)]
    return "\n".join(parts)


def public_rooms() -> list[str]:
    """The rooms whose `__init__` lists names."""
    folders = sorted(path.parent.name for path in (ROOT / "src" / "gapless").glob("*/__init__.py"))
    rooms = [f"gapless.{name}" for name in folders]
    return [room for room in rooms if getattr(import_module(room), "__all__", None)]


def homes(package: str, names: list[str]) -> list[str]:
    """The dotted paths where names of a package are defined, from the imports that its `__init__` states."""
    text = Path(str(import_module(package).__file__)).read_text(encoding="utf-8")
    imported: Mapping[str, str] = {
        name.strip(" ,()\n"): module
        for module, listed in re.findall(r"from (gapless[\w.]*) import (\([^)]*\)|[^\n]*)", text)
        for name in listed.strip("()").split(",")
    }
    return [f"{imported[name]}.{name}" for name in names if name in imported]
