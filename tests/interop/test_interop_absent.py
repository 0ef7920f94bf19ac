"""Without an optional package the adapters say which one is missing, and the room imports without any of them."""

import subprocess
import sys

CODE = """
import sys
for name in ("torchmetrics", "sentence_transformers", "datasets", "faiss", "lancedb"):
    sys.modules[name] = None
import numpy as np
import gapless.interop as interop
from gapless.embeddings import EmbeddingSet
from gapless.errors import UsageError
rows = EmbeddingSet(["a", "b"], {"image": np.eye(2), "text": np.eye(2)})
calls = (
    lambda: interop.GapMetric,
    lambda: interop.GapEvaluator,
    lambda: interop.to_dataset(rows),
    lambda: interop.to_faiss(rows, "image"),
    lambda: interop.to_lance(rows, "db", "rows"),
)
for call in calls:
    try:
        call()
    except UsageError as error:
        print(error)
interop.write_projector(rows, sys.argv[1])
"""


def test_a_missing_package_is_named_with_the_extra(tmp_path):
    done = subprocess.run([sys.executable, "-c", CODE, str(tmp_path / "p")], capture_output=True, text=True, check=True)
    packages = ("torchmetrics", "sentence-transformers", "datasets", "faiss-cpu", "lancedb")
    expected = [f"this needs the package {name!r}: pip install 'gapless[interop]'" for name in packages]
    assert done.stdout.splitlines() == expected
    assert (tmp_path / "p" / "tensors.tsv").read_text() == "1.0\t0.0\n0.0\t1.0\n1.0\t0.0\n0.0\t1.0\n"
