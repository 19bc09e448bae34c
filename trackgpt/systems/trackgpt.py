"""TrackGPT (Zhu et al., 2023): how its parts are put together, saved and loaded.

A folder holds `config.json` (see `trackgpt.config`), `model.safetensors` (every weight) and the tokenizer's files; that
of nano also says what its world looks like (see `trackgpt.perception.known_world`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from trackgpt.arbiter import PurportArbiter, PurportRecord, words_to_read
from trackgpt.calibration import public_score
from trackgpt.config import RethinkConfig, ScoreConfig, TrackGPTConfig
from trackgpt.errors import ModelError, UsageError
from trackgpt.geometry.letterbox import fit
from trackgpt.geometry.masks import box_and_area
from trackgpt.memory import QueryMemory
from trackgpt.online import Frame, Tracker, image_of
from trackgpt.perception.encoders import ConvEncoder, ConvUnit, SamViT
from trackgpt.perception.known_world import KNOWN_WORLD_FILE, KnownWorld
from trackgpt.perception.packed_masks import ComingMasks
from trackgpt.perception.segmenter import Segmenter
from trackgpt.reasoners.brain import Answer, Brain, name_of
from trackgpt.reasoners.brain_weights import check_statistics, load_tokenizer
from trackgpt.reasoners.conv_tower import ConvTower
from trackgpt.settings import from_dict, read, read_json, to_dict, write_json
from trackgpt.track import TrackState
from trackgpt.types import Cue, EncodedFrame, Prediction, Prompt
from trackgpt.weights import (
    Lazy,
    describing,
    give,
    must_fit,
    read_lazily,
    refuse_oversized,
    refuse_pointer,
    refuse_two_values,
    unfilled,
)

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json")
MOST_PIXELS = 8192
"""The longest side of the square that a brain or a perception sees."""
ABLATIONS = {
    "full": "propagation and rethinking (the system)",
    "no-rethinking": "the brain reads the first frame only",
    "no-propagation": "every frame is decoded without an online query",
    "first-frame": "neither: the first frame's queries on every frame",
}
"""Table 3 of the paper, each a swap of one part."""
MOST_TOKENS = 2**20
NEVER = 10**9
"""Frames between two looks for something that is not looked for again."""


class TrackGPT(nn.Module):
    """Brain and perception of one configuration. Holds weights only; a track's state lives in `trackgpt.online`.

    Attributes:
        known_world: what frames look like that the weights were trained on, where their folder says so. It is not
            saved: weights that were trained further know another world.
    """

    def __init__(self, config: TrackGPTConfig, brain: Brain, segmenter: Segmenter | None = None) -> None:
        super().__init__()
        self.config = config
        self.brain = brain
        self.segmenter = Segmenter(config.perception) if segmenter is None else segmenter
        self.known_world: KnownWorld | None = None

    @classmethod
    def from_config(cls, config: TrackGPTConfig, tokenizer: Any) -> TrackGPT:
        """A model with random weights; `config.brain.llava` is the configuration of its language side."""
        return cls(config, Brain.from_config(config.brain, tokenizer, config.perception.decoder.hidden_size))

    def save_pretrained(self, folder: str | Path, dtype: torch.dtype | None = None) -> None:
        """Write config, weights and tokenizer to one folder; `dtype` stores floating weights smaller (nano: bf16).

        Raises:
            ModelError: the model is folded or carries unmerged LoRA weights, so the folder could not be read back.
        """
        names = " ".join(self.state_dict())
        if "lora_" in names:
            raise ModelError(f"{folder}: the model carries LoRA weights; call merge_lora(model.brain) before saving")
        if any(isinstance(module, ConvUnit) and module.norm is None for module in self.modules()):
            raise ModelError(f"{folder}: the model is folded for inference; save it before fold()")
        if not isinstance(self.segmenter, Segmenter):
            raise ModelError(f"{folder}: the model runs in {type(self.segmenter).__name__}; save it in torch")
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        write_json(self.config, folder / CONFIG_FILE)
        self.brain.template.tokenizer.save_pretrained(folder)
        save_file(self._stored(dtype), folder / WEIGHTS_FILE, metadata={"format": "pt"})
        (folder / KNOWN_WORLD_FILE).unlink(missing_ok=True)  # it was of the weights that lay here before

    @classmethod
    def from_pretrained(cls, folder: str | Path, dtype: torch.dtype = torch.float32) -> TrackGPT:
        """Read a folder written by `save_pretrained`; the model is in evaluation mode.

        Args:
            folder: see there.
            dtype: of the weights in memory, whatever they are stored as.

        Raises:
            ModelError: MD01 a file is missing; MD02 a file is damaged, or the weights do not fit the configuration.
        """
        folder = Path(folder)
        for file in (folder / name for name in (CONFIG_FILE, WEIGHTS_FILE, *TOKENIZER_FILES)):
            if file.is_file():
                refuse_pointer(file)  # the first thing to say, whatever else is missing
        for name in (CONFIG_FILE, WEIGHTS_FILE, *TOKENIZER_FILES):
            if not (folder / name).is_file():
                raise ModelError(f"{folder}: {name} is missing; wanted a folder written by save_pretrained", "MD01")
        file = folder / CONFIG_FILE
        config = read_config(file)
        tokenizer, weights = load_tokenizer(folder, own=True), read_lazily(folder / WEIGHTS_FILE)
        with describing(file):
            refuse_oversized(to_dict(config), weights, lambda: cls.from_config(config, tokenizer), file)
            with unfilled():
                model = cls.from_config(config, tokenizer)
        model._load(weights, dtype, folder / WEIGHTS_FILE)
        if (folder / KNOWN_WORLD_FILE).is_file():
            model.known_world = KnownWorld.read(folder / KNOWN_WORLD_FILE, model.segmenter.image_encoder.fine_channels)
        return model.eval()

    def fold(self) -> TrackGPT:
        """Fold for inference (see `ConvUnit.fold` and `Segmenter.fold`); the same is computed, and no longer trains."""
        self.eval()
        for module in self.modules():
            if isinstance(module, (ConvEncoder, ConvTower, SamViT, Segmenter)):
                module.fold()
        return self

    def pack(self) -> TrackGPT:
        """Pack the convolutions of a folded model on a CPU, in its final dtype (see `ConvUnit.pack`)."""
        for module in self.modules():
            if isinstance(module, (ConvTower, Segmenter)):
                module.pack()
        return self

    def check(self, text: str) -> str:
        """An instruction as the brain will read it: without markup and control characters.

        Raises:
            UsageError: NL01 it is empty; NL02 it is too long.
        """
        return self.brain.check(text)

    def tracker(self, ablation: str = "full", settings: Sequence[str] = ()) -> Tracker:
        """An online tracker over these weights; several may share one model.

        Args:
            ablation: one of `ABLATIONS`.
            settings: "key=value" of `RethinkConfig` that win over the model's own, e.g. "cooldown=3".

        Raises:
            UsageError: there is no such ablation or setting.
        """
        if ablation not in ABLATIONS:
            raise UsageError(f"ablation {ablation}: not one of {', '.join(ABLATIONS)}")
        own = [f"{key}={value}" for key, value in to_dict(self.config.rethink).items()]
        rethink = read(RethinkConfig, None, [*own, *settings])
        if ablation in ("no-rethinking", "first-frame"):
            rethink = dataclasses.replace(rethink, enabled=False, search_every=NEVER)
        perception = QueryPerception(
            self.segmenter, self.config.mask_threshold, self.config.min_area, self.config.score
        )
        perception.propagate = ablation not in ("no-propagation", "first-frame")
        parts = (
            BrainReasoner(self.brain, rethink.ask),
            perception,
            PurportArbiter(rethink, self.config.name, self.config.score),
            QueryMemory(),
        )
        return Tracker(*parts, kinds=(QueryMemory, PurportRecord))

    def unlikeness(self, frame: np.ndarray) -> float | None:
        """How unlike its world a frame is (see `KnownWorld.unlikeness`); None where nothing is known of that world.

        Args:
            frame: uint8 RGB (height, width, 3).
        """
        if self.known_world is None:
            return None
        (encoded,) = QueryPerception(self.segmenter, self.config.mask_threshold, self.config.min_area).encode([frame])
        return self.known_world.unlikeness(encoded.features, (frame.shape[0], frame.shape[1]))

    def _stored(self, dtype: torch.dtype | None) -> dict[str, Tensor]:
        tied = tied_names(self)
        stored = {}
        for name, value in self.state_dict().items():
            if name not in tied:
                value = value.to(dtype) if dtype is not None and value.is_floating_point() else value
                stored[name] = value.contiguous()
        return stored

    def _load(self, weights: dict[str, Lazy], dtype: torch.dtype, file: Path) -> None:
        self.brain.llava.tie_weights()  # making parameters on `meta` parted what is one
        wanted, tied = self.state_dict(), tied_names(self)
        must_fit(wanted, weights, file, tied)
        for name in tied.keys() & weights.keys():
            both = f"{name}, which {CONFIG_FILE} ties to {tied[name]}"
            refuse_two_values(file, both, weights[name].make(), weights[tied[name]].make())
        give(self, ((name, lazy.make()) for name, lazy in weights.items()), dtype, file)
        self.brain.llava.tie_weights()


class BrainReasoner:
    """The brain as the loop's slow model: original frames in, queries in numpy out."""

    def __init__(self, brain: Brain, ask: str = "instruction") -> None:
        self.brain = brain
        self.ask = ask

    def reason(self, frame: np.ndarray, state: TrackState, prompt: Prompt | None) -> Cue:
        """Read a frame, uint8 RGB (height, width, 3), padded whole into the brain's square (Eq. 1).

        Words in force are read again with the answer in force as the draft (see `Brain.reason`), which changes nothing
        but the time; with `RethinkConfig.ask` "name" the target is asked for by what that answer calls it. With
        `fit: centre-crop` the brain sees only the central square, as LISA's weights are used to.
        """
        if prompt is None:
            text = (self.ask == "name" and name_of(state.cue.text)) or state.text
            return as_cue(self.brain.reason(self.square(frame), text, draft=state.cue.answer))
        return as_cue(self.brain.reason(self.square(frame), words_to_read(state, prompt)))

    def reason_many(self, frame: np.ndarray, prompts: Sequence[Prompt]) -> list[Cue]:
        """Read a frame once for several prompts, each answered as if alone: queries within 1e-5 of `reason` in float32.

        A first image costs the brain ten times what the words about it do, so a dozen sentences cost little more than
        one (see `Brain.reason_many`).
        """
        return [as_cue(answer) for answer in self.brain.reason_many(self.square(frame), [p.text for p in prompts])]

    def square(self, frame: np.ndarray) -> Tensor:
        """The frame in the brain's square, uint8 (3, s, s), on its device."""
        if self.brain.config.fit == "centre-crop":
            frame = central_square(frame)
        square = fit(frame.shape[:2], self.brain.config.image_side).apply(frame)
        return torch.from_numpy(square).permute(2, 0, 1).to(next(self.brain.parameters()).device)


def as_cue(answer: Answer) -> Cue:
    """An answer as the loop takes it, queries in numpy."""
    referring, purport, sure = (q.float().cpu().numpy() for q in (answer.referring, answer.purport, answer.confidence))
    return Cue(text=answer.shown, referring=referring, purport=purport, answer=answer.text, confidence=sure)


class QueryPerception:
    """The segmenter as the loop's fast model (Eq. 2 and 3): masks and boxes in pixels of the original frame.

    Args:
        segmenter: the weights.
        mask_threshold: logits above it are on the target.
        min_area: the smallest mask that counts, as a share of the frame.
        score: how the public score is made of S_p and the confidence of the cue; by default it is S_p.

    Attributes:
        propagate: hand Q_t on; without, every frame is decoded without an online query.
    """

    def __init__(
        self, segmenter: Segmenter, mask_threshold: float, min_area: float, score: ScoreConfig | None = None
    ) -> None:
        self.segmenter = segmenter
        self.mask_threshold = mask_threshold
        self.min_area = min_area
        self.score = ScoreConfig() if score is None else score
        self.propagate = True

    @torch.inference_mode()
    def encode(self, images: Sequence[np.ndarray]) -> list[EncodedFrame]:
        """Encode frames of any sizes in one call; nothing waits for the device."""
        side = self.segmenter.config.image_side
        squares = np.empty((len(images), side, side, 3), np.uint8)
        for image, square in zip(images, squares, strict=True):
            fit(image.shape[:2], side).apply(image, square)
        pixels = torch.from_numpy(squares).permute(0, 3, 1, 2).to(self.segmenter.like.device)
        features = self.segmenter.encode(pixels)
        return [EncodedFrame(image, features.row(k)) for k, image in enumerate(images)]

    def perceive(self, frame: Frame, state: TrackState, cued: tuple[int, ...]) -> tuple[Prediction, QueryMemory]:
        """Decode every target of the cue from one image embedding; an empty cue decodes, and encodes, nothing."""
        if state.cue.referring is None or state.cue.purport is None or state.cue.targets == 0:
            height, width = image_of(frame).shape[:2]
            return no_targets(height, width), QueryMemory()
        coming, _ = self.decode(frame, state.cue, state.memory.online)
        return self.land(coming, state.cue)

    @torch.inference_mode()
    def decode(self, frame: Frame, cue: Cue, online: np.ndarray | Tensor | None) -> tuple[ComingMasks, Tensor]:
        """Have the device decode a cue's k targets, without waiting for it.

        Returns:
            Masks, with S_p (k,) and Q_{t+1} (k, c), float32, for `land`; and Q_{t+1} where the device keeps it.
        """
        encoded = frame if isinstance(frame, EncodedFrame) else self.encode([frame])[0]
        height, width = encoded.image.shape[:2]
        features = encoded.features.repeated(cue.targets)
        referring, query, purport = map(self._query, (cue.referring, online, cue.purport))
        decoded = self.segmenter.decode(features, referring, query, purport, propagate=self.propagate)
        box = fit((height, width), self.segmenter.config.image_side)
        scores, following = decoded.score.float().clamp(0, 1), decoded.online.float()
        if following.device.type == "cuda":
            following = following.clone()  # a compiled decoder's output is overwritten by its next frame
        return ComingMasks.of(decoded.logits, box, self.mask_threshold, scores, following), following

    def land(self, coming: ComingMasks, cue: Cue) -> tuple[Prediction, QueryMemory]:
        """Wait for what was decoded of a cue, and find boxes and scores."""
        masks, (purport, following) = coming.land()
        found = [box_and_area(mask) for mask in masks]
        boxes, areas = np.stack([box for box, _ in found]), np.array([area for _, area in found])
        present = areas > self.min_area * masks[0].size
        masks[~present], boxes[~present] = False, np.nan
        ids = np.arange(1, len(masks) + 1, dtype=np.int64)
        scores = public_score(purport, cue.confidence, self.score)
        own = {"purport": purport} if cue.confidence is None else {"purport": purport, "confidence": cue.confidence}
        return Prediction(boxes, masks, scores, present, ids, own), QueryMemory(following)

    def _query(self, query: np.ndarray | Tensor | None) -> Any:
        """As the decoder takes it; None stays None."""
        if query is None:
            return None
        return (torch.from_numpy(query) if isinstance(query, np.ndarray) else query).to(self.segmenter.like)


def central_square(frame: np.ndarray) -> np.ndarray:
    """The largest square in the middle of a frame (height, width, 3)."""
    height, width = frame.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    return np.ascontiguousarray(frame[top : top + side, left : left + side])


def no_targets(height: int, width: int) -> Prediction:
    """The prediction of a frame on which nothing is looked for."""
    return Prediction(
        np.zeros((0, 4), np.float32),
        np.zeros((0, height, width), bool),
        np.zeros(0, np.float32),
        np.zeros(0, bool),
        np.zeros(0, np.int64),
        {"purport": np.zeros(0, np.float32)},
    )


def read_config(file: Path) -> TrackGPTConfig:
    """The configuration in a model's folder.

    Raises:
        ModelError: MD01 it is not there; MD02 it is damaged, or of something else.
    """
    try:
        config = from_dict(TrackGPTConfig, read_json(file))
    except UsageError as error:
        raise ModelError(f"{file}: not a configuration of TrackGPT ({error})", "MD02") from error
    with describing(file):
        check_statistics(config.brain.pixel_mean, config.brain.pixel_std)
    for part, names, largest in (
        (config.brain, ("image_side",), MOST_PIXELS),
        (config.perception, ("image_side",), MOST_PIXELS),
        (config.brain, ("max_answer_tokens", "max_instruction_tokens"), MOST_TOKENS),
        (config.rethink, ("search_every",), NEVER),
    ):
        for name in names:
            value = getattr(part, name)
            if not 0 < value <= largest:
                raise ModelError(f"{file}: {name} is {value}; wanted 1 to {largest}", "MD02")
    return config


def tied_names(model: nn.Module) -> dict[str, str]:
    """Names in the state dict that share storage with an earlier name (the output layer tied to the embedding)."""
    first: dict[int, str] = {}
    tied = {}
    for name, value in model.state_dict(keep_vars=True).items():
        if first.setdefault(id(value), name) != name:
            tied[name] = first[id(value)]
    return tied
