"""Runs test files against copies of the source, one fork per copy: `python mutation.py < jobs > results`, JSON lines.

Everything but gapless itself is imported before the fork, so that a copy costs its tests and nothing else.
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Any

ALREADY = ("torch", "numpy", "sklearn.cluster", "sklearn.metrics", "sklearn.linear_model", "hypothesis", "jaxtyping")
ALSO = (
    "transformers.trainer",
    "PIL.Image",
    "pyarrow.parquet",
    "torch.nn.parallel",
    "torch.utils.checkpoint",
    "beartype",
)
OPTIONS = ("-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-W", "ignore::pytest.PytestAssertRewriteWarning")
NOT_RUN = 99


def run_tests(source: str, tests: list[str], log: str) -> None:
    """In a child: the tests with the source at `source`; ends with pytest's exit code, or with NOT_RUN."""
    import pytest

    sys.path.insert(0, source)
    os.environ["PYTHONPATH"] = source
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    code = NOT_RUN
    try:
        found = int(pytest.main([*OPTIONS, *tests]))
        import gapless

        assert Path(gapless.__file__).is_relative_to(source)
        code = found
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def main() -> None:
    for name in ALREADY + ALSO:
        importlib.import_module(name)
    assert "gapless" not in sys.modules
    for line in sys.stdin:
        job: dict[str, Any] = json.loads(line)
        process = os.fork()
        if not process:
            run_tests(job["source"], job["tests"], job["log"])
        code = os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])
        print(json.dumps({"code": code}), flush=True)


if __name__ == "__main__":
    main()
