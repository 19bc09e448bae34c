"""Encoder and decoder as two ONNX files, and a segmenter that runs them with ONNX Runtime.

The decoder, a hundred small operations, takes a third of PyTorch's time as one call, and leaves Python to the thread
that encodes frames to come. On a CPU with fast bfloat16 the encoder stays in PyTorch, since ONNX Runtime has none.
Results are PyTorch's within `TOLERANCE`.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

from trackgpt.config import PerceptionConfig
from trackgpt.errors import OutputError, UsageError
from trackgpt.perception.encoders import Features
from trackgpt.perception.mask_decoder import Decoded
from trackgpt.perception.onnx_session import onnx_session
from trackgpt.perception.segmenter import Segmenter
from trackgpt.settings import to_dict
from trackgpt.version import require

TOLERANCE = 1e-5
"""Largest difference from PyTorch in float32, as a share of the largest value of the same output."""

ENCODER, DECODER, SHAPES = "encoder.onnx", "decoder.onnx", "onnx.json"
OPSET = 20
FORMAT = 1
"""Count up when encoder or decoder compute something else, so that what was exported before is not used again."""

MAPS = ("embedding", "fine4", "fine8")
QUERIES = ("referring", "online", "purport")
DECODED = ("logits", "score", "next_online")
PACKAGES = ("onnx", "onnxscript", "onnxruntime")


class OnnxSegmenter(nn.Module):
    """A `Segmenter` for tracking on a CPU, whose arithmetic ONNX Runtime does, in float32.

    A call uses as many threads as PyTorch would at that moment, so that it shares the cores with frames
    that are encoded ahead (see `trackgpt.session.ahead`).

    Args:
        folder: written by `export_onnx`.
        config: of the segmenter that was exported.
        encoder: encodes in PyTorch instead, in a dtype of its own.

    Raises:
        UsageError: ONNX Runtime is not installed.
    """

    def __init__(self, folder: Path, config: PerceptionConfig, encoder: Segmenter | None = None) -> None:
        super().__init__()
        require("onnx", "onnxruntime")
        self.config = config
        self.own_encoder = encoder
        self._folder = folder
        self._sessions: dict[tuple[str, int], Any] = {}
        self._making = Lock()
        first = json.loads((folder / SHAPES).read_text())["first_online"]
        self.register_buffer("first_online", torch.tensor([first]))
        self._session(DECODER)

    @property
    def like(self) -> Tensor:
        """See `Segmenter.like`."""
        return self.first_online

    def encode(self, frames: Tensor) -> Features:
        """Encode padded square frames: uint8 RGB (b, 3, s, s)."""
        if self.own_encoder is not None:
            return self.own_encoder.encode(frames)
        embedding, *fine = map(torch.from_numpy, self._session(ENCODER).run(None, {"frames": frames.numpy()}))
        return Features(embedding, (fine[0], fine[1]) if fine else None)

    def decode(
        self,
        features: Features,
        referring: Tensor,
        online: Tensor | None,
        purport: Tensor | None,
        propagate: bool = True,
    ) -> Decoded:
        """Decode one target per row, see `Segmenter.decode`.

        Raises:
            UsageError: without propagation; the graph has an online query.
        """
        if not propagate:
            raise UsageError("the ONNX decoder always has an online query; ablate propagation with --backend torch")
        online = self.first_online.expand(len(referring), -1) if online is None else online
        purport = torch.ones_like(referring) if purport is None else purport  # times which SAM's IoU token is itself
        named = dict(zip(QUERIES, (referring, online, purport))) | dict(zip(MAPS, _maps(features)))
        wanted = {name: value.numpy() for name, value in named.items()}
        return Decoded(*map(torch.from_numpy, self._session(DECODER).run(None, wanted)))

    def _session(self, name: str) -> Any:
        """A file of the folder, ready to run with as many threads as PyTorch has now."""
        key = name, torch.get_num_threads()
        with self._making:
            if key not in self._sessions:
                self._sessions[key] = onnx_session(self._folder / name, key[1])
            return self._sessions[key]


def onnx_segmenter(segmenter: Segmenter) -> OnnxSegmenter:
    """A folded segmenter run by ONNX Runtime; exported once, to the folder of caches, and read from there afterwards.

    An encoder that is not float32 stays in PyTorch.

    Raises:
        UsageError: a package is missing.
        OutputError: the folder of caches cannot be written.
    """
    require("onnx", *PACKAGES)
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "trackgpt"
    folder = caches / f"onnx-{_fingerprint(segmenter)}"
    if not folder.exists():
        try:
            caches.mkdir(parents=True, exist_ok=True)
            made = Path(tempfile.mkdtemp(dir=caches))
            export_onnx(segmenter, made)
            _place(made, folder)
        except OSError as error:
            raise OutputError(f"{folder}: {error}; point XDG_CACHE_HOME to a place that can be written") from error
    return OnnxSegmenter(folder, segmenter.config, None if _whole(segmenter) else segmenter)


def _whole(segmenter: Segmenter) -> bool:
    """Whether the encoder can be exported: ONNX Runtime computes in float32 on a CPU, the decoder always does."""
    return next(segmenter.image_encoder.parameters()).dtype == torch.float32


def export_onnx(segmenter: Segmenter, folder: Path) -> dict[str, Any]:
    """Write encoder.onnx, decoder.onnx and onnx.json, which names every input and output with its shape and dtype.

    An encoder that is not float32 is left out.

    The encoder takes uint8 RGB frames (frames, 3, s, s). The decoder takes one target per row: the encoder's maps,
    repeated for several targets of a frame, and Q_R, Q_t, Q_p (targets, c); it gives mask logits, S_p and Q_{t+1}.
    `first_online` in onnx.json is the Q_t of a track's first frame. Everything but the frames is float32.

    Args:
        segmenter: on the CPU, in evaluation mode, folded, not packed.
        folder: made if it is missing; files of these names in it are replaced.

    Returns:
        What onnx.json holds.

    Raises:
        UsageError: a package is missing.
        OSError: the folder cannot be written.
    """
    require("onnx", "onnx", "onnxscript")
    folder.mkdir(parents=True, exist_ok=True)
    side = segmenter.config.image_side
    frames = torch.zeros(2, 3, side, side, dtype=torch.uint8)
    with torch.no_grad():
        maps = dict(zip(MAPS, _encode(segmenter, frames)))
        first = segmenter.mask_decoder.first_query(2).clone()
    if _whole(segmenter):
        _write(_Graph(segmenter, _encode), {"frames": frames}, tuple(maps), folder / ENCODER, "frames")
    given = {name: first.clone() for name in QUERIES} | maps
    with _unfolded(segmenter):
        _write(_Graph(segmenter, _decode), given, DECODED, folder / DECODER, "targets")
    files = {"encoder": folder / ENCODER, "decoder": folder / DECODER}
    shapes = {name: _shapes(file) for name, file in files.items() if file.exists()}
    described = {"image_side": side, "opset": OPSET, "first_online": first[0].tolist(), **shapes}
    (folder / SHAPES).write_text(json.dumps(described, indent=2) + "\n")
    return described


@contextmanager
def _unfolded(segmenter: Segmenter) -> Iterator[None]:
    """The decoder with its projections apart: ONNX Runtime merges them better (1.6 ms of a thread against 1.9)."""
    decoder = segmenter.mask_decoder
    folded, decoder.folded = decoder.folded, None
    try:
        yield
    finally:
        decoder.folded = folded


class _Graph(nn.Module):
    """A step of a segmenter with tensors in and out."""

    def __init__(self, segmenter: Segmenter, step: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.segmenter = segmenter
        self.step = step

    def forward(self, *given: Tensor) -> tuple[Tensor, ...]:
        return self.step(self.segmenter, *given)


def _encode(segmenter: Segmenter, frames: Tensor) -> tuple[Tensor, ...]:
    return _maps(segmenter.encode(frames))


def _maps(features: Features) -> tuple[Tensor, ...]:
    """In the order of `MAPS`; without fine maps the embedding alone."""
    return (features.embedding, *(features.fine or ()))


def _decode(
    segmenter: Segmenter, referring: Tensor, online: Tensor, purport: Tensor, embedding: Tensor, *fine: Tensor
) -> tuple[Tensor, ...]:
    features = Features(embedding, (fine[0], fine[1]) if fine else None)
    decoded = segmenter.decode(features, referring, online, purport)
    return decoded.logits, decoded.score, decoded.online


def _write(graph: _Graph, given: dict[str, Tensor], outputs: tuple[str, ...], path: Path, rows: str) -> None:
    """Export a step whose inputs all have the same number of rows, which the file leaves open."""
    with _silent():
        program = torch.onnx.export(
            graph.eval(),
            tuple(given.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=list(given),
            output_names=list(outputs),
            dynamic_shapes=(tuple({0: rows} for _ in given),),
            verbose=False,
        )
        assert program is not None
        program.save(path)


@contextmanager
def _silent() -> Iterator[None]:
    """The exporter warns of its own use of torch, and that torchvision is not there."""
    log = logging.getLogger("torch.onnx")
    kept = log.level
    log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(kept)


def _shapes(path: Path) -> dict[str, Any]:
    import onnx

    graph = onnx.load(str(path), load_external_data=False).graph
    return {"inputs": [_shape(value) for value in graph.input], "outputs": [_shape(value) for value in graph.output]}


def _shape(value: Any) -> dict[str, Any]:
    import onnx

    kind = value.type.tensor_type
    shape = [axis.dim_param or axis.dim_value for axis in kind.shape.dim]
    return {"name": value.name, "dtype": str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)), "shape": shape}


def _fingerprint(segmenter: Segmenter) -> str:
    """Of all that an export depends on: weights, configuration and versions."""
    digest = hashlib.sha256(json.dumps([to_dict(segmenter.config), FORMAT, OPSET, torch.__version__]).encode())
    for name, value in segmenter.state_dict().items():
        digest.update(name.encode())
        digest.update(str(value.dtype).encode() + value.contiguous().float().numpy().tobytes())
    return digest.hexdigest()[:16]


def _place(made: Path, folder: Path) -> None:
    """Put a whole folder where it belongs, unless another process was faster."""
    try:
        made.rename(folder)
    except OSError:
        if not folder.exists():
            raise
        shutil.rmtree(made)
