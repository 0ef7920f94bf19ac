"""A release: what stands against one is said, a whole one is tagged, and nothing is published."""

import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "scripts"))
import release

sys.path.pop(0)


@pytest.fixture
def root(tmp_path):
    """A committed repository that is ready for version 0.2.0."""
    (tmp_path / "src" / "gapless").mkdir(parents=True)
    (tmp_path / "src" / "gapless" / "__init__.py").write_text('__version__ = "0.2.0"\n')
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "gapless"\nversion = "0.2.0"\n')
    (tmp_path / "CITATION.cff").write_text("version: 0.2.0\n")
    (tmp_path / "CHANGELOG.md").write_text("# Changelog\n\n## 0.2.0 (2026-12-31)\n- news\n")
    author = ("-c", "user.name=a", "-c", "user.email=a@b.org")
    for words in (("init", "-q"), ("add", "-A"), (*author, "commit", "-qm", "all")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    return tmp_path


def test_a_ready_release_is_tagged_and_not_published(root, capsys, monkeypatch):
    for name in ("GIT_AUTHOR_NAME", "GIT_COMMITTER_NAME"):
        monkeypatch.setenv(name, "a")
    for name in ("GIT_AUTHOR_EMAIL", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "a@b.org")
    assert release.main(["0.2.0", "--tag"], root=root, steps=()) == 0
    assert release.git(root, "tag", "--list") == "v0.2.0"
    assert "nothing was published" in capsys.readouterr().out


def test_all_that_stands_against_a_release_is_said(root):
    (root / "CITATION.cff").write_text("version: 0.1.0\n")
    (root / "CHANGELOG.md").write_text("## 0.2.0 (unreleased)\n")
    found = "; ".join(release.faults(root, "0.2.0"))
    for part in ("CITATION.cff says 0.1.0", "needs a date", "not committed"):
        assert part in found
    assert "no section 0.3.0" in "; ".join(release.faults(root, "0.3.0"))
    assert release.main(["0.2.0"], root=root, steps=("never.py",)) == 2


def test_this_repository_states_one_version():
    assert len(set(release.versions(release.ROOT).values())) == 1
