"""What is installed: packages are followed through what they need, and a licence is named however it is stated."""

from email.message import Message
from types import SimpleNamespace

import pytest

from gapless.core.installation import installation, licence_of, packages_of


def distribution(**fields: str):
    about = Message()
    for name, value in fields.items():
        about[name.replace("_", "-")] = value
    return SimpleNamespace(metadata=about)


@pytest.mark.parametrize(
    ("fields", "licence"),
    [
        ({"License_Expression": "MIT", "License": "other"}, "MIT"),
        ({"License": "BSD-3-Clause"}, "BSD-3-Clause"),
        ({"License": "UNKNOWN", "Classifier": "License :: OSI Approved :: MIT License"}, "MIT License"),
        ({"License": "Copyright (c) somebody\n\nPermission is"}, "Copyright (c) somebody"),
        ({"License": "UNKNOWN"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_a_licence_is_named(fields, licence):
    assert licence_of(distribution(**fields)) == licence


def test_packages_are_followed_through_what_they_need():
    needed = packages_of("gapless")
    assert {"torch", "numpy", "huggingface-hub"} <= set(needed)  # the last is needed by transformers alone
    assert "pytest" not in needed
    assert packages_of("no-such-package") == {}


def test_an_installation_names_extras_and_licences():
    found = installation()
    assert {"search", "dicom", "web"} <= set(found.extras)
    assert not {"dev", "all", "release", "docs"} & set(found.extras)
    assert found.licences["numpy"]["licence"]
