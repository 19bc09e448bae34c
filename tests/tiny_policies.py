"""Small runs of a policy's training: a tree of RMOT26 with squares that move, and the configuration of a run.

torchrun --standalone --nproc_per_node 2 tests/tiny_policies.py FOLDER    # two processes, as a program
"""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tiny_vlms
from PIL import Image

SIDE, SQUARE = 56, 14
PLAN = {
    "steps": 5,
    "batch": 2,
    "lr": 1e-3,
    "warmup": 0,
    "decay": 0.0,
    "log_every": 1,
    "bf16": False,
    "save_minutes": 99,
}


def squares(root: Path, clips: int = 2, frames: int = 2) -> Path:
    """Write clips of a red square that moves to the right, by another number of pixels in each."""
    folder = root / "RMOT26"
    (folder / "train").mkdir(parents=True)
    (folder / "test").mkdir()
    items = []
    for clip in range(clips):
        boxes = [[2 + 3 * clip % 8 + (2 + clip % 5) * t, 4 * clip % 40, SQUARE, SQUARE] for t in range(frames + 1)]
        names = [f"{clip}_{t + 1:06d}.png" for t in range(frames + 1)]
        for name, (x, y, w, h) in zip(names, boxes, strict=True):
            picture = np.full((SIDE, SIDE, 3), 40, np.uint8)
            picture[y : y + h, x : x + w] = (250, 40, 40)
            Image.fromarray(picture).save(folder / "train" / name)
        asked = range(1, frames + 1) or range(1)  # without further frames the reference itself is asked of
        truth = [{"frame": t + 1, "bbox": boxes[t]} for t in asked]
        shown = [names[t] for t in asked]
        item = {"id": f"c{clip}", "ref_image": names[0], "input_images": shown, "question": "the red square"}
        items.append(item | {"track_id": 1, "initial_bbox": boxes[0], "expected_output": json.dumps(truth)})
    for part, listed in (("train", items), ("test", [])):
        (folder / part / "annotations.json").write_text(json.dumps(listed))
    return root


def brain(root: Path, family: str) -> Path:
    """Write a tiny random model of a family, in the layout of its hub."""
    folder = root / family
    folder.mkdir(parents=True)
    tiny_vlms.WRITERS[family](folder)
    return folder


def settings(stage: str, model: Path, data: Path, out: Path, **more: Any) -> Path:
    """Write the configuration of a run beside its folder; `plan` and `policy` win over what is here."""
    policy = {"data": str(data), "group": 2, "tokens": 8} | more.pop("policy", {})
    plan = PLAN | {"tensorboard": False} | more.pop("plan", {})
    config = {"stage": stage, "brain": str(model), "out": str(out), "device": "cpu", "previews": False}
    path = out.with_suffix(".yaml")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(config | more | {"policy": policy, "plan": plan}))  # JSON is YAML
    return path
