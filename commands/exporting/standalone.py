"""Captions pictures with an exported captioner: ``python caption.py picture.jpg``.

This file is copied into the export. It needs numpy and Pillow, and onnxruntime (graphs in .onnx) or torch (in .pt2);
nothing else, and no other file of the project that wrote it. From Python::

    from caption import Captioner
    Captioner("FOLDER").caption("picture.jpg")

Letters: W captions being written, V vocabulary, L tokens so far.
"""

import argparse
import contextlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

Array = NDArray[Any]
FORMAT = 1
"""Version of the layout that this file reads."""
FORMATS = ("AVIF", "BMP", "DIB", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
"""Formats of pictures; Pillow starts other programs for some of the others."""
FILTERS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


def read_picture(path: str | Path, min_side: int = 0) -> Image.Image:
    """Reads a picture as RGB, upright, transparency on white, 16-bit grey scaled to 8 bits.

    Args:
        path: path of the file.
        min_side: a much larger JPEG file is decoded at a half, a quarter or an eighth, with at least this many pixels.
    """
    with Image.open(path, formats=[name for name in FORMATS if name in _known()]) as image:
        if min_side and image.format == "JPEG":
            image.draft(None, (min_side, min_side))
        image.load()
        turned = image.copy()
        with contextlib.suppress(Exception):  # of unreadable EXIF data there are as many kinds as broken files
            turned = ImageOps.exif_transpose(image)
        if turned.mode == "F":
            raise ValueError(f"{path}: float values; expected a picture of 8 or 16 bits")
        if turned.mode in ("La", "RGBa"):
            turned = turned.convert(turned.mode.upper())
        if turned.mode.startswith("I"):
            turned = Image.fromarray(np.rint(np.asarray(turned).astype(np.float64) / 257).astype(np.uint8))
        if turned.has_transparency_data:
            turned = turned.convert("RGBA")
            canvas = Image.new("RGBA", turned.size, "white")
            canvas.alpha_composite(turned)
            turned = canvas
        return turned.convert("RGB")


def _known() -> dict[str, Any]:
    Image.init()
    return Image.OPEN


def prepare(image: Image.Image, transform: dict[str, Any]) -> Array:
    """Resizes and normalises a picture: RGB of any size to `(1, 3, size, size)`, float32."""
    width, height = image.size
    side = min(width, height)
    left, top, right, bottom = 0.0, 0.0, float(width), float(height)
    if transform["resize"] == "crop":
        left, top = (width - side) / 2, (height - side) / 2
        right, bottom = left + side, top + side
    size = (transform["size"], transform["size"])
    image = image.resize(size, FILTERS[transform["interpolation"]], box=(left, top, right, bottom))
    pixels = np.asarray(image).transpose(2, 0, 1).astype(np.float32)
    mean, std = (np.array(transform[name], np.float32).reshape(3, 1, 1) for name in ("mean", "std"))
    # in this order each number is rounded as in training
    scaled: Array = pixels * (np.float32(1) / (np.float32(255) * std)) - mean / std
    return np.ascontiguousarray(scaled[None])


class OnnxGraphs:
    """The two graphs in onnxruntime.

    Args:
        folder: folder of the export.
        names: names of the graphs' files, the encoder's first.
        threads: threads that compute; None: as many as there are cores.
    """

    def __init__(self, folder: Path, names: Sequence[str], *, threads: int | None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = options.inter_op_num_threads = threads
        self._sessions = [
            onnxruntime.InferenceSession(str(folder / name), options, providers=["CPUExecutionProvider"])
            for name in names
        ]
        self._inputs = [[node.name for node in session.get_inputs()] for session in self._sessions]

    def __call__(self, graph: int, values: Sequence[Array]) -> list[Array]:
        """Runs a graph, 0 the encoder and 1 the step."""
        found: list[Array] = self._sessions[graph].run(None, dict(zip(self._inputs[graph], values, strict=True)))
        return found


class TorchGraphs:
    """The two graphs as torch.export wrote them; arguments as for `OnnxGraphs`."""

    def __init__(self, folder: Path, names: Sequence[str], *, threads: int | None) -> None:
        import torch

        if threads:
            torch.set_num_threads(threads)
        self._torch = torch
        self._graphs = [torch.export.load(str(folder / name)).module() for name in names]

    def __call__(self, graph: int, values: Sequence[Array]) -> list[Array]:
        """Runs a graph, 0 the encoder and 1 the step."""
        with self._torch.no_grad():
            found = self._graphs[graph](*(self._torch.from_numpy(np.ascontiguousarray(value)) for value in values))
        return [tensor.numpy() for tensor in found]


class Stream:
    """Captions of one picture being written, token by token.

    Attributes:
        logits: scores of the next token, `(W, V)`.

    Args:
        graphs: the encoder and the step.
        inputs: inputs of the encoder, one row each.
        memory: number of arrays of the encoder that the step reads again.
    """

    def __init__(self, graphs: OnnxGraphs | TorchGraphs, inputs: Sequence[Array], *, memory: int) -> None:
        self._graphs = graphs
        self.logits, *rest = graphs(0, inputs)
        self._memory, self._state = rest[:memory], rest[memory:]
        self._rows = self._memory

    def step(self, tokens: Sequence[int], parents: Sequence[int]) -> None:
        """Continues captions.

        Args:
            tokens: the last token of each, W of them.
            parents: the caption of the step before that each continues.
        """
        if any(len(rows) != len(tokens) for rows in self._rows):
            self._rows = [np.repeat(one, len(tokens), axis=0) for one in self._memory]
        state = [one[np.array(parents)] for one in self._state]
        self.logits, *self._state = self._graphs(1, [np.array(tokens, np.int64), *self._rows, *state])


class GuidedStream:
    """Captions under a label whose influence is scaled: scores without it plus `strength` times the difference.

    Args:
        labelled: with the label.
        plain: without it.
        strength: 1 is the label as it is.
    """

    def __init__(self, labelled: Stream, plain: Stream, *, strength: float) -> None:
        self._both, self._strength = (labelled, plain), np.float32(strength)

    @property
    def logits(self) -> Array:
        """See `Stream`."""
        labelled, plain = (stream.logits for stream in self._both)
        mixed: Array = plain + self._strength * (labelled - plain)
        return mixed

    def step(self, tokens: Sequence[int], parents: Sequence[int]) -> None:
        """See `Stream.step`."""
        for stream in self._both:
            stream.step(tokens, parents)


class Captioner:
    """An exported captioner.

    Args:
        folder: folder of the export.
        threads: threads that compute; None: as many as there are cores.
    """

    def __init__(self, folder: str | Path, *, threads: int | None = None) -> None:
        folder = Path(folder)
        read = {
            name: json.loads((folder / f"{name}.json").read_text("utf-8"))
            for name in ("captioner", "transform", "vocabulary")
        }
        self.settings, self.transform, self.vocabulary = read["captioner"], read["transform"], read["vocabulary"]
        if self.settings["format"] != FORMAT:
            raise ValueError(f"{folder}: format {self.settings['format']}, this file reads {FORMAT}")
        graphs = OnnxGraphs if self.settings["engine"] == "onnx" else TorchGraphs
        self._graphs = graphs(folder, (self.settings["encoder"], self.settings["step"]), threads=threads)

    def caption(
        self, picture: str | Path | Image.Image, *, beams: int | None = None, label: str | None = None
    ) -> tuple[str, float]:
        """The best caption of a picture and its log-probability (natural log, end included).

        Args:
            picture: a path, or an image of Pillow in RGB.
            beams: width of the beam search, 1 for greedy decoding; None: as the captioner was exported.
            label: what the caption should say, one of ``settings["labels"]``.
        """
        if not isinstance(picture, Image.Image):
            picture = read_picture(picture, self.transform["min_side"])
        stream = self._begun(prepare(picture, self.transform), label)
        tokens, log_prob = self.search(stream, self.settings["beams"] if beams is None else beams)
        return self.text(tokens), log_prob

    def _begun(self, pixels: Array, label: str | None) -> Stream | GuidedStream:
        memory, labels, strength = len(self.settings["memory"]), self.settings["labels"], self.settings["guidance"]
        if label is not None and label not in labels:
            raise ValueError(f"label {label!r}: expected one of {', '.join(labels) or 'none, as it knows no labels'}")
        if not labels:
            return Stream(self._graphs, [pixels], memory=memory)
        none = -1
        chosen = none if label is None or strength == 0 else labels.index(label)
        streams = [
            Stream(self._graphs, [pixels, np.array([number], np.int64)], memory=memory)
            for number in ((chosen,) if chosen == none or strength == 1 else (chosen, none))
        ]
        return GuidedStream(streams[0], streams[1], strength=strength) if len(streams) == 2 else streams[0]

    def search(self, stream: Stream | GuidedStream, beams: int) -> tuple[list[int], float]:
        """Tokens of the best caption, end included, and its log-probability."""
        if beams < 1:
            raise ValueError(f"beams is {beams}: expected 1 or more")
        return self._greedy(stream) if beams == 1 else self._beams(stream, beams)

    def _greedy(self, stream: Stream | GuidedStream) -> tuple[list[int], float]:
        tokens: list[int] = []
        log_prob = 0.0
        while True:
            scores = self._scores(stream.logits, [tokens])[0]
            tokens.append(int(scores.argmax()))
            log_prob += float(scores[tokens[-1]])
            if tokens[-1] == self.settings["eos"] or len(tokens) == self.settings["max_tokens"]:
                return tokens, log_prob
            stream.step(tokens[-1:], [0])

    def _beams(self, stream: Stream | GuidedStream, beams: int) -> tuple[list[int], float]:
        """Beam search as Hugging Face's ``generate`` does it, see the documentation of the project."""
        running: list[tuple[float, list[int]]] = [(0.0, [])]
        done: list[tuple[float, float, list[int]]] = []  # rank, log-probability, tokens; best first
        for length in range(1, self.settings["max_tokens"] + 1):
            scores = self._scores(stream.logits, [tokens for _, tokens in running])
            scores += np.array([[log_prob] for log_prob, _ in running], np.float32)
            best = list(_largest(scores, 2 * beams))
            last = length == self.settings["max_tokens"]
            penalty = length ** self.settings["length_penalty"]
            for log_prob, row, token in best[:beams]:  # of those behind none may end
                if last or token == self.settings["eos"]:
                    done.append((log_prob / penalty, log_prob, [*running[row][1], token]))
            done = sorted(done, key=lambda one: -one[0])[:beams]
            going = [one for one in best if one[2] != self.settings["eos"]][:beams]
            full = len(done) == beams
            hopeless = not going or (full and going[0][0] / penalty <= done[-1][0])
            if last or hopeless or (full and self.settings["early_stopping"]):
                break
            running = [(log_prob, [*running[row][1], token]) for log_prob, row, token in going]
            stream.step([token for _, _, token in going], [row for _, row, _ in going])
        return (done[0][2], done[0][1]) if done else ([], -np.inf)

    def _scores(self, logits: Array, history: Sequence[Sequence[int]]) -> Array:
        """Log-probabilities of the next token, `(W, V)`; minus infinity for those that may not follow."""
        scores: Array = logits.astype(np.float32) - logits.max(axis=1, keepdims=True)
        scores -= np.log(np.exp(scores).sum(axis=1, keepdims=True))
        scores[:, [token for name in ("bos", "pad", "unk") if (token := self.settings[name]) is not None]] = -np.inf
        size = self.settings["no_repeat_ngram_size"]
        for row, tokens in enumerate(history):
            for start in range(len(tokens) - size + 1 if size else 0):
                if list(tokens[start : start + size - 1]) == list(tokens[len(tokens) - size + 1 :]):
                    scores[row, tokens[start + size - 1]] = -np.inf
        return scores

    def text(self, tokens: Sequence[int]) -> str:
        """The text of tokens up to the first end."""
        end = self.settings["eos"]
        return text_of(self.vocabulary, tokens[: tokens.index(end)] if end in tokens else tokens)


def text_of(vocabulary: dict[str, Any], tokens: Sequence[int]) -> str:
    """The text of tokens by the table of an export."""
    if vocabulary["kind"] == "bytes":  # a character may be several tokens; a letter of the table is a byte
        text = "".join(vocabulary["tokens"][token] for token in tokens)
        return text.encode("latin-1").decode("utf-8", "replace").strip()
    written = ""
    for token in tokens:
        written += vocabulary["later" if written else "first"][token]
    return written.strip()


def _largest(scores: Array, count: int) -> Iterator[tuple[float, int, int]]:
    """The largest finite scores of `(W, V)`, best first: score, row, column."""
    flat = scores.ravel()
    found = np.argpartition(flat, -count)[-count:] if count < flat.size else np.arange(flat.size)
    for place in found[np.argsort(-flat[found], kind="stable")]:
        if np.isfinite(flat[place]):
            yield float(flat[place]), int(place) // scores.shape[1], int(place) % scores.shape[1]


def main(args: Sequence[str] | None = None) -> int:
    """Prints the caption of every picture."""
    parser = argparse.ArgumentParser(description="Captions pictures.")
    parser.add_argument("pictures", nargs="+", metavar="PICTURE")
    parser.add_argument("--beams", type=int, help="beam width; 1: greedy; default: as exported")
    parser.add_argument("--label", help="what the caption should say, such as an emotion, where the captioner knows it")
    parser.add_argument("--threads", type=int, help="threads that compute; default: as many as there are cores")
    parser.add_argument("--json", action="store_true", help="print one JSON object per picture and line")
    options = parser.parse_args(args)
    try:
        captioner = Captioner(Path(__file__).resolve().parent, threads=options.threads)
        for picture in options.pictures:
            text, log_prob = captioner.caption(picture, beams=options.beams, label=options.label)
            row = {"image": picture, "caption": text, "log_prob": round(log_prob, 4)}
            print(json.dumps(row, ensure_ascii=False) if options.json else f"{picture}: {text}", flush=True)
    except (OSError, ValueError, ImportError) as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
