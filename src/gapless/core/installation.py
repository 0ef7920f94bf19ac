"""What is installed: the version, which extras are complete, and the licence of every package that gapless needs."""

import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import metadata
from importlib.metadata import Distribution, PackageNotFoundError

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gapless.core.results import Result

PACKAGE = "gapless"
ALL = "all"
OF_DEVELOPERS = ("dev", "docs", "release")  # extras that no user needs
UNKNOWN = "unknown"
LONGEST = 60  # characters of a licence's name; the field `License` of some packages holds its whole text
_CLASSIFIER = "License :: "


@dataclass(frozen=True)
class Installation(Result):
    """An installation of gapless.

    Args:
        version: of gapless.
        python: version of the interpreter.
        extras: extra -> the packages that it needs and that are not installed; none where it is complete.
        licences: package -> its version and licence: gapless, what it needs, what that needs, and so on.
    """

    version: str
    python: str
    extras: Mapping[str, list[str]]
    licences: Mapping[str, Mapping[str, str]]


def installation(extras: Iterable[str] = (ALL,)) -> Installation:
    """What is installed here.

    Args:
        extras: whose packages are listed with their licences, as far as they are installed; those of developers are
            `dev`, `docs` and `release`.

    Raises:
        importlib.metadata.PackageNotFoundError: gapless is run from its source without being installed.
    """
    own = metadata.distribution(PACKAGE)
    named = [extra for extra in own.metadata.get_all("Provides-Extra") or [] if extra not in (ALL, *OF_DEVELOPERS)]
    needed = packages_of(PACKAGE, extras)
    return Installation(
        own.version,
        platform.python_version(),
        {extra: _missing(own, extra) for extra in sorted(named)},
        {name: {"version": one.version, "licence": licence_of(one)} for name, one in sorted(needed.items())},
    )


def packages_of(name: str, extras: Iterable[str] = ()) -> dict[str, Distribution]:
    """A package and all that it needs here, directly or not, as far as it is installed."""
    found: dict[str, Distribution] = {}
    asked = [(name, frozenset(extras))]
    seen: set[tuple[str, frozenset[str]]] = set()
    while asked:
        one = asked.pop()
        distribution = None if one in seen else _installed(one[0])
        seen.add(one)
        if distribution is not None:
            found[canonicalize_name(one[0])] = distribution
            asked += [
                (canonicalize_name(requirement.name), frozenset(requirement.extras))
                for requirement in _requirements(distribution, one[1])
            ]
    return found


def licence_of(distribution: Distribution) -> str:
    """The name of a package's licence: its expression, else its field or its classifiers; "unknown" without any."""
    about = distribution.metadata
    stated = [*(about.get_all("License-Expression") or []), *(about.get_all("License") or [])]
    for text in stated:
        if (
            text
            and text.strip().lower() not in ("", UNKNOWN)
            and "\n" not in text.strip()
            and len(text.strip()) <= LONGEST
        ):
            return str(text.strip())
    named = [line.rpartition(" :: ")[2] for line in about.get_all("Classifier") or [] if line.startswith(_CLASSIFIER)]
    if named:
        return ", ".join(named)
    first = next(
        (
            line.strip()
            for text in stated
            if text and text.strip().lower() != UNKNOWN
            for line in text.splitlines()
            if line.strip()
        ),
        UNKNOWN,
    )
    return first[:LONGEST]


def _missing(own: Distribution, extra: str) -> list[str]:
    """The packages of an extra that are not installed."""
    names = {requirement.name for requirement in _requirements(own, frozenset([extra]))}
    base = {requirement.name for requirement in _requirements(own, frozenset())}
    return sorted(name for name in names - base if _installed(name) is None)


def _requirements(distribution: Distribution, extras: frozenset[str]) -> list[Requirement]:
    """What a package needs on this platform, with some of its extras."""
    requirements = [Requirement(line) for line in distribution.requires or []]
    return [
        one
        for one in requirements
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    ]


def _installed(name: str) -> Distribution | None:
    try:
        return metadata.distribution(name)
    except PackageNotFoundError:
        return None
