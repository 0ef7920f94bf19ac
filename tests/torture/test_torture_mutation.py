"""Do the tests of the losses and the figures notice faults? Known ones are put in one at a time, and must be caught."""

import json
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from ledger import record
from mutants import MUTANTS, SOURCE, Mutant

ROOT = Path(__file__).parents[2]
FAILED, PASSED = 1, 0  # pytest's exit codes
SHORT_ONES = ("the temperature multiplies", "strictly greater scores alone count")


class Laboratory:
    """A copy of the source, and a process that runs tests against it."""

    def __init__(self, place: Path) -> None:
        self.copy = place / "src"
        self.log = place / "log"
        shutil.copytree(SOURCE, self.copy / "gapless", ignore=shutil.ignore_patterns("__pycache__"))
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
        environment.pop("PYTEST_XDIST_WORKER", None)
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("mutation.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=environment,
        )

    def tests_end_with(self, tests: str) -> int:
        job = {"source": str(self.copy), "tests": [tests], "log": str(self.log)}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())["code"]

    def first_failure(self) -> str:
        found = re.search(r"^(?:FAILED|ERROR) \S+::(\w+)", self.log.read_text(), re.MULTILINE)
        assert found is not None, self.log.read_text()[-3000:]
        return found.group(1)

    def outcome_of(self, mutant: Mutant) -> str:
        """The test that caught it, or nothing."""
        file = self.copy / "gapless" / mutant.file
        file.write_text(mutant.source())
        code = self.tests_end_with(mutant.tests)
        shutil.copyfile(SOURCE / mutant.file, file)
        assert code in (FAILED, PASSED), self.log.read_text()[-3000:]
        return self.first_failure() if code == FAILED else ""

    def close(self) -> None:
        self.process.stdin.close()
        self.process.stdout.close()
        self.process.wait()


@pytest.fixture
def laboratory(tmp_path):
    opened = Laboratory(tmp_path)
    yield opened
    opened.close()


def test_every_fault_has_its_place_in_the_source():
    assert len(MUTANTS) == len({mutant.fault for mutant in MUTANTS}), "two faults of one name"
    assert {mutant.fault for mutant in MUTANTS} >= set(SHORT_ONES)
    for mutant in MUTANTS:
        compile(mutant.source(), mutant.file, "exec")
        assert (ROOT / mutant.tests).is_file(), mutant.tests


def test_a_fault_whose_function_has_changed_is_named():
    """A mutant is looked for in its own function: the same text elsewhere in the file is no place for it."""
    mutant = next(mutant for mutant in MUTANTS if mutant.function == "blocks")
    with pytest.raises(AssertionError, match=r"core/geometry\.py has no no_such_function"):
        replace(mutant, function="no_such_function").source()
    with pytest.raises(AssertionError, match=r"unit_norm in core/geometry\.py holds .* 0 times, not once"):
        replace(mutant, function="unit_norm").source()


def check_mutants(laboratory: Laboratory, mutants: list[Mutant]) -> None:
    missed = []
    for mutant in mutants:
        started = time.perf_counter()
        caught_by = laboratory.outcome_of(mutant)
        print(f"  {time.perf_counter() - started:5.1f} s  {mutant.fault}: {caught_by or 'NOT CAUGHT'}", file=sys.stderr)
        if not caught_by:
            missed.append(mutant.fault)
    survivors = [tests for tests in sorted({mutant.tests for mutant in mutants}) if laboratory.tests_end_with(tests)]
    record("seeded faults", faults=len(mutants), caught=len(mutants) - len(missed))
    record("seeded faults, control", test_files_that_fail_without_a_fault=len(survivors))
    assert missed == []
    assert survivors == []


@pytest.mark.ci
def test_seeded_faults_are_caught_short(laboratory):
    check_mutants(laboratory, [mutant for mutant in MUTANTS if mutant.fault in SHORT_ONES])


@pytest.mark.torture
def test_seeded_faults_are_caught(laboratory):
    check_mutants(laboratory, list(MUTANTS))
