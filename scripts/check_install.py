"""Installs the wheel of dist/ into empty environments, without extras and with each extra alone, and uses it there.

Nothing is downloaded, and torch's gigabytes are not copied: an environment holds the wheel, installed by pip, and
links to those packages of this interpreter's environment that the wheel's own metadata asks for, and no others. So a
package that is imported and not declared is missed here. `pip check` then holds the versions against the metadata.
"""

import json
import os
import subprocess
import sys
import sysconfig
import time
import venv
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import Distribution
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gapless.core.installation import installation, packages_of

DIST = Path(__file__).resolve().parents[1] / "dist"
# What a user of an extra imports first; each must import with the declared packages alone.
MODULES = {
    "audio": ["soundfile"],
    "audit": ["imagehash", "faiss"],
    "caption": ["pycocoevalcap.cider.cider"],
    "dicom": ["pydicom", "openjpeg", "jpeg_ls"],
    "dicomweb": ["gapless.pacs"],
    "interop": ["gapless.interop.sentence_evaluator", "gapless.interop.torch_metrics", "faiss", "datasets", "lancedb"],
    "lora": ["peft"],
    "map": ["plotly.graph_objects"],
    "onnx": ["onnx", "onnxruntime", "onnxscript"],
    "openclip": ["open_clip"],
    "ray": ["ray.data"],
    "search": ["lancedb"],
    "volume": ["nibabel"],
    "waveform": ["wfdb", "edfio"],
    "web": ["gapless.server.app"],
}


class Environment:
    """An environment with the wheel, some extras, and what these declare.

    Args:
        folder: where it is made.
        wheel: what is installed.
        extras: of the wheel.
    """

    def __init__(self, folder: Path, wheel: Path, extras: Sequence[str]) -> None:
        self.bin = folder / "bin"
        venv.create(folder, symlinks=True)
        version = f"python{sys.version_info.major}.{sys.version_info.minor}"
        self.packages = folder / "lib" / version / "site-packages"
        pip = [sys.executable, "-m", "pip", "--python", str(self.bin / "python")]
        clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        subprocess.run([*pip, "install", "-q", "--no-deps", "--no-index", str(wheel)], check=True, env=clean)
        needed = packages_of("gapless", extras)
        for name, one in needed.items():
            if name != "gapless":
                self._link(one)
        subprocess.run([*pip, "check"], check=True, stdout=subprocess.DEVNULL, env=clean)

    def _link(self, one: Distribution) -> None:
        """Link what a package has at the top of its site-packages."""
        tops = {file.parts[0] for file in one.files or [] if file.parts[0] not in ("..", "__pycache__")}
        for top in tops:
            source, target = Path(str(one.locate_file(top))), self.packages / top
            if source.exists() and not target.exists():
                target.symlink_to(source)

    def run(self, *words: str, cwd: Path | None = None, code: int = 0) -> str:
        """What a command of the environment prints; stdout, or stderr where it should fail."""
        done = subprocess.run(
            [str(self.bin / words[0]), *words[1:]],
            capture_output=True,
            text=True,
            check=False,
            cwd=cwd,
            env={"PATH": str(self.bin), "HOME": str(cwd or self.bin.parent), "OMP_NUM_THREADS": "1"},
        )
        if done.returncode != code:
            raise SystemExit(f"{' '.join(words)}: exit code {done.returncode}, not {code}\n{done.stderr[-3000:]}")
        return done.stderr if code else done.stdout


def check_without_extras(environment: Environment, place: Path) -> None:
    """The command, the installed pages, figures and closing of arrays, and the sentence on a missing extra."""
    if "measure" not in environment.run("gapless", "--help"):
        raise SystemExit("gapless --help does not list measure")
    address = environment.run("gapless", "docs", "--address_only").strip()
    if not Path(address.removeprefix("file://")).is_file():
        raise SystemExit(f"gapless docs names {address}, which is not there")
    random = np.random.default_rng(0)
    shared = random.normal(size=(60, 8))
    for name in ("image", "text"):
        np.save(place / f"{name}.npy", (shared + random.normal(size=(60, 8))).astype(np.float32))
    arrays = ("--image", "image.npy", "--text", "text.npy")
    figures = json.loads(environment.run("gapless", "measure", *arrays, "--num_bootstrap", "0", "--json", cwd=place))
    if not 0 < figures["figures"]["retrieval/mean/R@10"] <= 1:
        raise SystemExit(f"gapless measure gave {figures}")
    environment.run("gapless", "close", *arrays, "--method", "center", "--out", "closed", cwd=place)
    (place / "collection").mkdir()
    refusal = environment.run("gapless", "search", "collection", "words", cwd=place, code=2)
    if "gapless[search]" not in refusal:
        raise SystemExit(f"gapless search without its extra says: {refusal}")


def check_extra(environment: Environment, extra: str) -> None:
    """The packages of an extra import with what they declare, and `gapless about` calls it complete."""
    environment.run("python", "-c", "; ".join(f"import {module}" for module in MODULES[extra]))
    about = json.loads(environment.run("gapless", "about", "--json"))
    if about["extras"][extra]:
        raise SystemExit(f"the extra {extra} lacks {about['extras'][extra]}")


def check() -> None:
    """Check the wheel without extras, then with each alone.

    Raises:
        SystemExit: something does not work there; the sentence says what.
    """
    (wheel,) = DIST.glob("*.whl")
    extras = set(installation().extras)
    if extras != set(MODULES):
        raise SystemExit(f"name a module of each extra here: {', '.join(sorted(extras ^ set(MODULES)))}")
    with TemporaryDirectory() as folder, ThreadPoolExecutor(max_workers=os.cpu_count() or 1) as pool:
        for sentence in pool.map(lambda extra: checked(Path(folder), wheel, extra), ("", *sorted(MODULES))):
            print(sentence, flush=True)


def checked(folder: Path, wheel: Path, extra: str) -> str:
    """Check the wheel with one extra, or without any for ""; a line that says that it works."""
    begun = time.perf_counter()
    environment = Environment(folder / f"environment-{extra}", wheel, [extra] if extra else [])
    if extra:
        check_extra(environment, extra)
    else:
        check_without_extras(environment, folder)
    return f"{extra or 'no extra'}: works ({time.perf_counter() - begun:.0f} s)"


if __name__ == "__main__":
    if sysconfig.get_platform().startswith("win"):
        raise SystemExit("the environments are made of links, which Windows gives to administrators alone")
    check()
