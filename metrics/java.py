"""METEOR and SPICE by their authors' Java programs, where these are installed; never needed, never fatal.

Both come with the package pycocoevalcap (extra ``java``) and need Java 8 or newer. SPICE also needs the models of
Stanford CoreNLP 3.6.0 (400 MB), which are not in the package and are not downloaded here.
"""

import importlib.util
import json
import math
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from metrics.tokenize import tokenize_caption

Notify = Callable[[str], None]
Captions = Mapping[str, str]
Texts = Mapping[str, Sequence[str]]

_SPICE_MODELS = "stanford-corenlp-3.6.0-models.jar"
_SPICE_DOWNLOAD = "python -c 'from pycocoevalcap.spice import get_stanford_models as m; m.get_stanford_models()'"
_SECONDS = 3600
"""A scorer that hangs is given up after this; SPICE parses some 10 captions a second."""


class _Absent(Exception):  # noqa: N818 - not an error: a reason to do without
    """Why a metric cannot be computed here."""


def java_scores(predictions: Captions, references: Texts, notify: Notify) -> dict[str, float]:
    """METEOR and SPICE, as far as this machine can compute them.

    Args:
        predictions: Image id to its caption, raw text.
        references: Image id to its references, raw text; those of other images are ignored.
        notify: Called with one line for each metric that is absent, saying why.

    Returns:
        ``meteor`` and ``spice`` in [0, 1]; a key is absent where the metric is.
    """
    try:
        package = _package()
    except _Absent as reason:
        notify(f"METEOR and SPICE are skipped: {reason}")
        return {}
    candidates = {image_id: tokenize_caption(caption) for image_id, caption in predictions.items()}
    texts = {image_id: [tokenize_caption(caption) for caption in references[image_id]] for image_id in predictions}
    scores = {}
    for name, scorer in (("meteor", _meteor), ("spice", _spice)):
        try:
            scores[name] = scorer(package / name, candidates, texts)
        except (_Absent, OSError, ValueError, KeyError, subprocess.SubprocessError) as reason:
            notify(f"{name} is skipped: {_one_line(reason)}")
    return scores


def _package() -> Path:
    """Folder of pycocoevalcap; the package is found, not imported, because importing it pulls in pycocotools."""
    if shutil.which("java") is None:
        raise _Absent("there is no java on the PATH")
    spec = importlib.util.find_spec("pycocoevalcap")
    if spec is None or not spec.submodule_search_locations:
        raise _Absent("pycocoevalcap is not installed (pip install pycocoevalcap)")
    return Path(next(iter(spec.submodule_search_locations)))


def _meteor(folder: Path, candidates: Captions, references: Texts) -> float:
    """METEOR 1.5: its program turns each caption into a line of statistics, and then all lines into one score."""
    arguments = ["-jar", "-Xmx2G", "meteor-1.5.jar", "-", "-", "-stdio", "-l", "en", "-norm"]
    with (
        tempfile.TemporaryFile("w+", encoding="utf-8") as complaints,
        subprocess.Popen(
            ["java", *arguments],
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            encoding="utf-8",
        ) as process,
    ):
        guard = threading.Timer(_SECONDS, process.kill)
        guard.start()
        try:
            statistics = [
                _ask(
                    process, " ||| ".join(part.replace("|||", "") for part in ("SCORE", *references[image_id], caption))
                )
                for image_id, caption in candidates.items()
            ]
            answers = [_ask(process, " ||| ".join(("EVAL", *statistics)))]
            answers += [_answer(process) for _ in candidates]  # one score per caption, then that of all
        except (OSError, _Absent):
            complaints.seek(0)
            raise _Absent(f"METEOR stopped answering: {complaints.read().strip() or 'it gave no reason'}") from None
        finally:
            guard.cancel()
            process.kill()
    return float(answers[-1])


def _ask(process: "subprocess.Popen[str]", line: str) -> str:
    assert process.stdin is not None
    process.stdin.write(line + "\n")
    process.stdin.flush()
    return _answer(process)


def _answer(process: "subprocess.Popen[str]") -> str:
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        raise _Absent("no answer")
    return line.strip()


def _spice(folder: Path, candidates: Captions, references: Texts) -> float:
    """SPICE 1.0: mean F-measure over scene-graph tuples; images without any tuple do not count."""
    if not (folder / "lib" / _SPICE_MODELS).exists():
        raise _Absent(f"{_SPICE_MODELS} is not in {folder / 'lib'}; to download it (400 MB): {_SPICE_DOWNLOAD}")
    records = [{"image_id": i, "test": caption, "refs": list(references[i])} for i, caption in candidates.items()]
    with tempfile.TemporaryDirectory() as scratch:
        source, target = Path(scratch) / "in.json", Path(scratch) / "out.json"
        source.write_text(json.dumps(records), encoding="utf-8")
        arguments = ["-jar", "-Xmx8G", "spice-1.0.jar", str(source), "-out", str(target), "-silent"]
        done = subprocess.run(
            ["java", *arguments], cwd=folder, capture_output=True, encoding="utf-8", timeout=_SECONDS, check=False
        )
        if done.returncode != 0:
            raise _Absent(f"java failed with code {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
        results = json.loads(target.read_text(encoding="utf-8"))
    values = [float(record["scores"]["All"]["f"]) for record in results]
    known = [value for value in values if not math.isnan(value)]
    if not known:
        raise _Absent("SPICE scored no image")
    return sum(known) / len(known)


def _one_line(reason: Exception) -> str:
    text = " ".join(str(reason).split()) or type(reason).__name__
    return text if len(text) <= 300 else text[:297] + "..."
