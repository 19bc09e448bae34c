"""Pictures of what the model in training answers and tracks."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from PIL import Image

from trackgpt.export.overlay import draw
from trackgpt.files import writing
from trackgpt.geometry.masks import box_of
from trackgpt.online import follow
from trackgpt.perception.box_tracker import BoxTracker
from trackgpt.perception.box_transformer import BoxTransformer
from trackgpt.perception.mask_propagation import MaskPropagation
from trackgpt.perception.memory_segmenter import Asked, MemoryNetwork
from trackgpt.perception.nano_memory import NanoMemory
from trackgpt.reasoners.describer import TemplateDescriber
from trackgpt.synthtrack.clips import Case, make_case
from trackgpt.synthtrack.randomised import randomised_clip
from trackgpt.synthtrack.scene import SceneInstruction
from trackgpt.systems.reasoningtrack import ReasoningTrack
from trackgpt.systems.trackgpt import TrackGPT
from trackgpt.types import Prompt, VisualPrompt
from train.engine import evaluating

SEEDS = (900_000_001, 900_000_002, 900_000_003, 900_000_004)
SHOWN = (0, 2, 5, 9)
CELL = 240


def draw_previews(model: TrackGPT, path: Path) -> None:
    """Track one instruction in each of four scenes of the training split that no run trains on; one row per scene."""
    rows = []
    with evaluating(model):
        for k, seed in enumerate(SEEDS):
            case = make_case(seed, split="train", frames=SHOWN[-1] + 1, longest=CELL)
            rows.append(_row(model, case, case.expressions[k % len(case.expressions)]))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(path)


def draw_propagation(model: MaskPropagation, path: Path) -> None:
    """Follow the first target of four clips that no run trains on, from its first mask; one row per clip."""
    with evaluating(model):
        _draw_followed(NanoMemory(model), model.config.side, path)


def draw_boxes(model: BoxTransformer, path: Path) -> None:
    """Follow the first target of four clips that no run trains on, from its box, without words; one row per clip."""
    rows = []
    with evaluating(model):
        tracker = ReasoningTrack(BoxTracker(model), TemplateDescriber(), None, "preview").tracker("no-describing")
        for seed in SEEDS:
            clip = randomised_clip(seed, SHOWN[-1] + 1, CELL)
            x1, y1, x2, y2 = (float(value) for value in box_of(clip.ids[0] == 1))
            seen = follow(tracker, clip.frames, [Prompt(visual=(VisualPrompt((x1, y1, x2, y2)),))])
            drawn = [draw(frame, one) for frame, one in zip(clip.frames, seen, strict=True)]
            rows.append(np.concatenate([drawn[t][:CELL, :CELL] for t in SHOWN], axis=1))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(path)


def draw_sam2(folder: Path, device: torch.device, path: Path) -> None:
    """The same by an exported SAM 2, which scales clips of any size to its own square."""
    from trackgpt.perception.sam2_memory import Sam2Memory

    _draw_followed(Sam2Memory.from_pretrained(folder).to(device), CELL, path)


def _draw_followed(network: MemoryNetwork, side: int, path: Path) -> None:
    rows = []
    for seed in SEEDS:
        clip = randomised_clip(seed, SHOWN[-1] + 1, side)
        rows.append(_followed(network, clip.frames, clip.ids == 1))
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.concatenate(rows)).save(path)


def _followed(network: MemoryNetwork, frames: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Frames with the mask in red and the outline of the true one in green."""
    cells, memory = [], None
    for t, frame in enumerate(frames):
        shown = VisualPrompt(mask=truth[0]) if t == 0 else None
        (found,) = network.segment(frame, [Asked(memory, shown)])
        memory = found.memory
        if t in SHOWN:
            cell = frame.copy()
            cell[found.mask] = cell[found.mask] // 2 + np.array([127, 0, 0], np.uint8)
            edge = cv2.morphologyEx(truth[t].astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
            cell[edge > 0] = (0, 255, 0)
            cells.append(cell)
    return np.concatenate(cells, axis=1)


def _row(model: TrackGPT, case: Case, expression: SceneInstruction) -> np.ndarray:
    cells = []
    answer = ""
    predictions = follow(model.tracker(), case.clip.frames, [Prompt(expression.text)])
    for t, (frame, prediction) in enumerate(zip(case.clip.frames, predictions, strict=True)):
        answer = prediction.cue.text if prediction.cue else answer
        if t in SHOWN:
            cell = np.full((CELL, CELL, 3), 255, np.uint8)
            drawn = draw(frame, prediction, expression.text, answer[:90], prediction.reason if t else "")
            cell[: drawn.shape[0], : drawn.shape[1]] = drawn[:CELL, :CELL]
            cells.append(cell)
    return np.concatenate(cells, axis=1)
