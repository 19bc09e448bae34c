"""Mutated inputs for every parser of the package: each is taken, or refused by an error of ours in one line, in time.

    python tests/fuzz.py --inputs 100000 --seed 0               # minutes; `make fuzz`
    python tests/fuzz.py --only tracks --seed 0 --first 17 --inputs 1    # one input again, as a fault prints it

Input i of a target and a seed is a function of (target, seed, i) alone. A fault is any other exception, a refusal of
several lines, or more than `LIMIT` seconds; its input is kept under runs/fuzz. The last line of stdout is key=value.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import os
import random
import signal
import sys
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

from trackgpt.errors import TrackGPTError  # noqa: E402

LIMIT = 10.0
"""Seconds that one input may take."""
NUMBERS = (b"-1", b"0", b"1e999", b"-1e999", b"NaN", b"Infinity", b"9" * 400, b"1e-320", b"0x10", b"2147483648", b"1.5")
PIECES = (
    b"null",
    b"true",
    b"{}",
    b"[]",
    b'""',
    b'"\\ud800"',
    b"\xff\xfe",
    b"\x00",
    b"\xf0\x9f",
    b"\r\n",
    b"\t",
    b"..",
    b"/",
)
DEEP = 3000


@dataclass(frozen=True)
class Target:
    """A parser, what it takes when nothing is wrong, and how often it is tried.

    Attributes:
        seeds: whole inputs.
        take: reads a file of this content.
        share: of all inputs.
        suffix: of the file's name.
    """

    seeds: Sequence[bytes]
    take: Callable[[Path], object]
    share: float = 1.0
    suffix: str = ""


@dataclass
class Tally:
    """What became of a target's inputs."""

    taken: int = 0
    refused: int = 0
    faults: list[str] = field(default_factory=list)


# --- mutations ---


def mutated(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    """The input with one to six changes."""
    for _ in range(chance.choice((1, 1, 1, 2, 3, 6))):
        data = chance.choice(MUTATIONS)(data, others, chance)
    return data


def _place(data: bytes, chance: random.Random) -> tuple[int, int]:
    start = chance.randrange(len(data) + 1)
    return start, min(len(data), start + chance.choice((1, 1, 2, 4, 16, 64, 1024)))


def _flip(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    if not data:
        return data
    changed = bytearray(data)
    for _ in range(chance.choice((1, 1, 4, 32))):
        changed[chance.randrange(len(changed))] ^= 1 << chance.randrange(8)
    return bytes(changed)


def _cut(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _delete(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    start, end = _place(data, chance)
    return data[:start] + data[end:]


def _repeat(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    start, end = _place(data, chance)
    return data[:end] + data[start:end] * chance.choice((1, 2, 50)) + data[end:]


def _splice(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    other = chance.choice(others)
    return data[: chance.randrange(len(data) + 1)] + other[chance.randrange(len(other) + 1) :]


def _insert(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    start, _ = _place(data, chance)
    return data[:start] + chance.choice(PIECES) + data[start:]


def _noise(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    start, end = _place(data, chance)
    return data[:start] + chance.randbytes(end - start) + data[end:]


def _number(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    places = [i for i, byte in enumerate(data[:65536]) if 48 <= byte <= 57]
    if not places:
        return data
    start = end = chance.choice(places)
    while end < len(data) and data[end] in b"0123456789.eE+-":
        end += 1
    return data[:start] + chance.choice(NUMBERS) + data[end:]


def _nest(data: bytes, others: Sequence[bytes], chance: random.Random) -> bytes:
    start, _ = _place(data, chance)
    return data[:start] + chance.choice((b"[", b'{"a":', b"(", b"- ")) * DEEP + data[start:]


MUTATIONS: tuple[Callable[[bytes, Sequence[bytes], random.Random], bytes], ...] = (
    _flip,
    _flip,
    _cut,
    _delete,
    _repeat,
    _splice,
    _insert,
    _noise,
    _number,
    _number,
    _nest,
)


# --- one input ---


class TooLongError(Exception):
    """An input took longer than `LIMIT`."""


@contextmanager
def timed(seconds: float) -> Iterator[None]:
    """Raise TooLongError after so many seconds."""

    def over(number: int, frame: object) -> None:
        raise TooLongError(f"more than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def outcome(take: Callable[[Path], object], path: Path) -> str:
    """ "taken", "refused", or what is wrong."""
    try:
        with timed(LIMIT):
            take(path)
    except TrackGPTError as error:
        text = str(error)
        return (
            "refused" if text.strip() and "\n" not in text else f"a refusal of {len(text.splitlines())} lines: {text!r}"
        )
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt | SystemExit):
            raise
        return f"{type(error).__name__}: {str(error)[:200]}"
    return "taken"


def input_of(name: str, target: Target, seed: int, number: int) -> bytes:
    """Input `number` of a target."""
    chance = random.Random(f"{name} {seed} {number}")
    return mutated(chance.choice(target.seeds), target.seeds, chance)


def campaign(
    targets: dict[str, Target], inputs: int, seed: int, first: int = 0, keep: Path | None = None
) -> dict[str, Tally]:
    """Try inputs on all targets, by their shares.

    Args:
        targets: by name.
        inputs: how many in all.
        seed: chooses them.
        first: number of the first input of each target.
        keep: a folder for the inputs of faults.
    """
    whole = sum(target.share for target in targets.values())
    tallies = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm" if Path("/dev/shm").is_dir() else None) as folder:
        for name, target in targets.items():
            tally = tallies[name] = Tally()
            path = Path(folder) / f"input{target.suffix}"
            for number in range(first, first + max(1, math.ceil(inputs * target.share / whole))):
                data = input_of(name, target, seed, number)
                path.write_bytes(data)
                found = outcome(target.take, path)
                if found in ("taken", "refused"):
                    setattr(tally, found, getattr(tally, found) + 1)
                    continue
                tally.faults.append(f"--only {name} --seed {seed} --first {number} --inputs 1: {found}")
                if keep is not None:
                    keep.mkdir(parents=True, exist_ok=True)
                    (keep / f"{name.replace('/', '_')}-{seed}-{number}{target.suffix}").write_bytes(data)
    return tallies


# --- the parsers ---


def all_targets(work: Path) -> dict[str, Target]:
    """Every parser that reads what others wrote; `work` holds what some of them need beside the input."""
    return {
        **log_targets(work),
        **settings_targets(),
        **text_targets(),
        **result_targets(work),
        **tree_targets(work),
        **weight_targets(work),
        **picture_targets(work),
    }


def log_targets(work: Path) -> dict[str, Target]:
    """The log of a run and a saved track."""
    import numpy as np

    from trackgpt.arbiter import PurportRecord
    from trackgpt.export.prompts import prompt_of, written_prompt
    from trackgpt.export.records import EventRecord, read_events, read_tracks
    from trackgpt.geometry.masks import check_rle, encode_rle
    from trackgpt.memory import QueryMemory
    from trackgpt.track import TrackState
    from trackgpt.types import Cue, Prompt, VisualPrompt
    from trackgpt.types import Target as Followed

    mask = np.zeros((12, 16), bool)
    mask[3:8, 2:9] = True
    rle = encode_rle(mask)
    shown = Prompt("", 0, "add", (2,), (VisualPrompt((1.0, 2.0, 3.0, 4.0), ((5.0, 6.0, 1),), mask),))
    lines = [
        json.dumps({"v": 3, "take": 1, "i": i, "t": i / 12, "size": [12, 16], "objs": [
            {"id": 1, "box": [2.0, 3.0, 9.0, 8.0], "rle": rle, "score": 0.8, "state": "tracked", "purport": 0.8}]})
        for i in range(3)
    ]  # fmt: skip
    old = '{"v":1,"i":0,"t":0.0,"size":[12,16],"objs":[{"id":1,"box":null,"rle":null,"purport":0.5,"state":"absent"}]}'
    events = [
        '{"v":3,"seq":0,"take":1,"i":0,"t":0.0,"type":"start","source":"a.mp4"}',
        '{"v":2,"seq":1,"take":1,"i":0,"t":0.0,"type":"rethink","reason":"purport","old":[0.1],"new":[0.5]}',
        EventRecord.of(2, "instruction", 0, 0.0, **written_prompt(shown)).to_json(),
    ]

    def said_in(path: Path) -> object:
        return [prompt_of(event) for event in read_events(path) if event.type == "instruction"]

    queries = np.ones((1, 4), np.float32)
    state = TrackState(
        QueryMemory(queries),
        PurportRecord(3, np.array([1]), np.ones(1, np.float32)),
        3,
        (Followed(1, Prompt("the dog"), (1.0, 2.0, 3.0, 4.0), 2, True, 0.5),),
        Cue("the dog", queries, queries),
        (Prompt("the dog"), shown),
        2,
    )
    state.save(work / "state")
    kinds = (QueryMemory, PurportRecord)
    return {
        "tracks": Target(["\n".join(lines).encode() + b"\n", old.encode() + b"\n"], lambda p: list(read_tracks(p)), 4),
        "events": Target(["\n".join(events).encode() + b"\n"], said_in, 2),
        "state": Target([(work / "state").read_bytes()], lambda p: TrackState.load(p, kinds), 2),
        "rle": Target([rle.encode()], lambda p: check_rle(p.read_text("latin-1"), 12, 16), 4),
    }


def settings_targets() -> dict[str, Target]:
    """Configurations of models and of training."""
    from trackgpt.config import TrackGPTConfig
    from trackgpt.settings import from_dict, read, read_json, to_dict
    from train.config import TrainConfig

    model = json.dumps(to_dict(TrackGPTConfig(name="tiny"))).encode()
    recipes = sorted((ROOT / "configs").rglob("*.yaml"))[:6]
    return {
        "config.json": Target([model], lambda p: from_dict(TrackGPTConfig, read_json(p)), 2, ".json"),
        "train.yaml": Target([path.read_bytes() for path in recipes], lambda p: read(TrainConfig, p), 1, ".yaml"),
    }


def text_targets() -> dict[str, Target]:
    """What a person or a model says."""
    import numpy as np

    from eval.metrics.query_mot_answers import paired_by_position, parse_predicted_output
    from trackgpt.app.pointing import Pointing, read_pointing
    from trackgpt.app.tracking import parse_instruction
    from trackgpt.reasoners.coordinates import CONVENTIONS, Sizes
    from trackgpt.reasoners.policy import parse, parse_tracks, sections
    from trackgpt.reasoners.templates import clean_instruction, visible_answer
    from train.rewards import REWARDS, Expected, earned, read_answer

    def said(path: Path) -> object:
        spoken = parse_instruction(path.read_text("utf-8", "replace"))
        return clean_instruction(spoken.text)

    def pointed(path: Path) -> object:
        box, point, drop, *_ = (*path.read_text("utf-8", "replace").split("|"), "", "")
        return read_pointing(Pointing((box,), point=(point,), drop=(drop,)), 0)

    def followed(path: Path) -> object:
        text = path.read_text("utf-8", "surrogateescape")
        view = Sizes((640, 360), (56, 28))
        return sections(text), parse_tracks(text, view.size), [parse(text, (1, 2), view, c) for c in written]

    def rewarded(path: Path) -> object:
        text = path.read_text("utf-8", "surrogateescape")
        answers = [(read_answer(text, expected), expected) for expected in questions]
        paid = [value for terms in REWARDS.values() for each in answers for value in earned(terms, *each).values()]
        if not all(0 <= value <= 1 for value in paid):
            raise AssertionError(f"a reward outside of 0 to 1: {paid}")
        return paid

    truth = np.array([[[1.0, 2, 30, 40], [3, 2, 32, 40]], [[np.nan] * 4, [5, 6, 7, 8]]])
    view = Sizes((640, 360), (640, 360))
    questions = [Expected((1, 2), truth, truth[:, 0] - 1, view, CONVENTIONS["pixels"], ids) for ids in ((), (1, 2))]
    questions.append(Expected((1, 2), truth[:0], truth[:0, 0], view, CONVENTIONS["thousandths"]))
    written = [CONVENTIONS[name] for name in ("seen_pixels", "thousandths")]
    tracked = [
        b'<think>It goes left.</think><answer>[{"frame": 1, "object_id": 1, "bbox_2d": [1, 2, 30, 40]}, '
        b'{"frame": 2, "object_id": 1, "bbox_2d": null}, {"frame": 2, "object_id": 2, "bbox_2d": [5, 6, 7, 8]}]'
        b"</answer>",
        b'[{"bbox_2d": [10, 20, 30, 40]}, {"bbox_2d": [11, 20, 31, 40]}]',
        b'{"object_1": {"track_id": 7, "trajectory": [{"frame": 1, "bbox": [1, 2, 30, 40]}]}}',
        b'<tracks coords="0.0 1 635 522;0.5 1 606 490 2 511 124">the dog</tracks>',
    ]
    answer = (
        b'[{"frame": 1, "bbox": [1, 2, 3, 4]}, {"frame": 2, "bbox_2d": [5, 6, 7, 8]}] {"frame": 3, "bbox": [1,2,3,4]}'
    )
    return {
        "instruction": Target([b"240: the red <TK> car", b"@8.5: who will win?", b"\\12: x"], said, 3),
        "pointing": Target([b"2:1,2,30,40|@12:2:5.5,6,-|@300:2", b"1,2,3,4|9,9|@4:1"], pointed, 3),
        "answer": Target(
            [answer, b"Sure, I track the dog. <TK>, <PO>"],
            lambda p: (
                paired_by_position(parse_predicted_output(p.read_text("utf-8", "replace")), 4),
                visible_answer(p.read_text("utf-8", "replace")),
            ),
            3,
        ),
        "trajectories": Target(tracked, followed, 3),
        "rewards": Target(tracked[:3], rewarded, 3),
    }


def result_targets(work: Path) -> dict[str, Target]:
    """Result files of any tracker: masks, boxes, what it heard, zips, rows of a run; and rows of point tracks."""
    import numpy as np
    from PIL import Image

    from eval.kits.interacttrack import read_heard
    from eval.label_maps import read_label_map, read_mask
    from eval.run_folder import read_rows
    from eval.submission import unpack
    from trackgpt.data.box_files import read_boxes, read_descriptions, read_flags, read_interacttrack_boxes
    from trackgpt.data.mot_files import read_results, read_seqinfo
    from trackgpt.data.point_tracks import read_point_tracks

    def png(mode: str) -> bytes:
        held = io.BytesIO()
        picture = Image.fromarray((np.arange(12 * 16).reshape(12, 16) % 3 * 100).astype(np.uint8))
        picture.convert(mode).save(held, "PNG")
        return held.getvalue()

    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("Annotations/a/0/00000.png", "Annotations/a/0/00001.png"):
            archive.writestr(name, png("L"))

    def unpacked(path: Path) -> None:
        with tempfile.TemporaryDirectory(dir=path.parent) as folder:
            unpack(path, Path(folder) / "out")

    boxes = b"10,20,30,40\n11,21,30,40\n0,0,0,0\n"
    mot = b"1,1,10,20,30,40,0.9,-1,-1,-1\n2,1,11,21,30,40,0.8,-1,-1,-1\n"
    info = b"[Sequence]\nname=a\nimDir=img1\nframeRate=30\nseqLength=2\nimWidth=16\nimHeight=12\nimExt=.jpg\n"
    row = json.dumps(
        {"task": "a", "unit": "a/0", "figures": {"J": 0.5}, "tags": {}, "series": {"iou": [0.5]}, "said": {}}
    )
    points = [{"frame": 0, "time": 0, "points": [{"id": 0, "point": [4, 2.5], "occluded": False}]}]
    size = {"fps": 12, "sampling_fps": 2, "height": 12, "width": 16, "n_frames": 2}
    tracks = json.dumps({"id": "a", "video": "b", "expression": "dog", **size, "frame_trajectories": points})
    return {
        "points.jsonl": Target([tracks.encode() + b"\n"], read_point_tracks, 2, ".jsonl"),
        "heard.txt": Target([b"start\n\ndrop\tnot there\n"], lambda p: read_heard(p, 3), 1, ".txt"),
        "mask.png": Target([png("L"), png("P"), png("1")], read_mask, 2, ".png"),
        "labels.png": Target([png("L"), png("P")], read_label_map, 2, ".png"),
        "results.zip": Target([held.getvalue()], unpacked, 1, ".zip"),
        "boxes.txt": Target([boxes, boxes.replace(b",", b"\t")], read_boxes, 2, ".txt"),
        "interact.txt": Target([boxes, b"\n" + boxes], lambda p: read_interacttrack_boxes(p, ragged=True), 1, ".txt"),
        "flags.txt": Target([b"0,1,1\n", b"0\n1\n"], read_flags, 1, ".txt"),
        "descriptions.txt": Target([b"the dog\n\nno, the cat\n"], read_descriptions, 1, ".txt"),
        "mot.txt": Target([mot], lambda p: read_results(p, 2), 2, ".txt"),
        "seqinfo.ini": Target([info], read_seqinfo, 1, ".ini"),
        "rows.jsonl": Target([(row + "\n").encode() * 2], read_rows, 2, ".jsonl"),
    }


def tree_targets(work: Path) -> dict[str, Target]:
    """The annotation files of the benchmarks, in their trees; all is read that a run would read of the first video."""
    from data_tools.synthtrack import Layout, Order, Split, make
    from trackgpt.data.referring_video import READERS

    targets = {}
    for name, layout in (
        ("refer-youtube-vos", Layout.refer_youtube_vos),
        ("refer-davis17", Layout.refer_davis17),
        ("mevis", Layout.mevis),
        ("revos", Layout.revos),
        ("lv-vis", Layout.lv_vis),
        ("instrack", Layout.instrack),
    ):
        root = work / name
        make(Order(layout, 1, frames=3, longest=32, split=Split.train), root)
        read = (path for path in root.rglob("*.json") if path.name not in ("synthtrack.json", "meta.json"))
        for file in sorted(read):
            key = f"{name}/{file.name}"
            share = 0.5 if file.stat().st_size < 100_000 else 0.1
            targets[key] = Target([file.read_bytes()], _in_its_place(file, root, READERS[name]), share, file.suffix)
    return targets


def _in_its_place(file: Path, root: Path, reader: Callable[[Path, str], Any]) -> Callable[[Path], object]:
    whole = file.read_bytes()

    def take(path: Path) -> None:
        file.write_bytes(path.read_bytes())
        try:
            for video in reader(root, "train")[:1]:
                video.frame(0)
                for expression in video.expressions[:1]:
                    video.masks.mask(expression.objects, 0)
        finally:
            file.write_bytes(whole)

    return take


def weight_targets(work: Path) -> dict[str, Target]:
    """Weight files, and the folder of a model with one of its small files changed."""
    import torch
    from safetensors.torch import save_file
    from tiny_models import tiny_trackgpt

    from trackgpt.systems.trackgpt import TrackGPT
    from trackgpt.weights import checked, read_lazily, read_pickled

    save_file({"a": torch.ones(2, 3), "b": torch.zeros(4, dtype=torch.bfloat16)}, work / "w.safetensors")
    torch.save({"a": torch.ones(2, 3)}, work / "w.pth")
    folder = work / "model"
    tiny_trackgpt("conv", "conv", tied=True, answer="forced").save_pretrained(folder)

    def loaded(name: str) -> Callable[[Path], object]:
        whole = (folder / name).read_bytes()

        def take(path: Path) -> None:
            (folder / name).write_bytes(path.read_bytes())
            try:
                TrackGPT.from_pretrained(folder)
            finally:
                (folder / name).write_bytes(whole)

        return take

    found = {
        "weights.safetensors": Target(
            [(work / "w.safetensors").read_bytes()],
            lambda p: [checked(p, name, lazy.make()) for name, lazy in read_lazily(p).items()],
            2,
            ".safetensors",
        ),
        "weights.pth": Target([(work / "w.pth").read_bytes()], read_pickled, 1, ".pth"),
    }
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json"):
        found[f"model/{name}"] = Target([(folder / name).read_bytes()], loaded(name), 0.05, ".json")
    return found


def picture_targets(work: Path) -> dict[str, Target]:
    """Containers and pictures, by byte flips and the rest."""
    import numpy as np
    from PIL import Image
    from scripted_model import film, pictures

    from trackgpt.app.pointing import masks_in
    from trackgpt.export.davis import PALETTE
    from trackgpt.video.source import open_source

    def frames(path: Path) -> int:
        with open_source(path, max_pixels=1_000_000) as source:
            return sum(1 for _ in zip(source, range(50), strict=False))

    labels = Image.fromarray(np.arange(96, dtype=np.uint8).reshape(8, 12) // 24)
    labels.putpalette(PALETTE)
    mask = io.BytesIO()
    labels.save(mask, "PNG")

    film(work / "clip.mp4", 6)
    shown = [Image.fromarray(frame) for frame in pictures(3)]
    kinds = {".mp4": (work / "clip.mp4").read_bytes()}
    for suffix in (".png", ".jpg", ".webp", ".gif", ".tif", ".bmp"):
        held = io.BytesIO()
        more = {"save_all": True, "append_images": shown[1:]} if suffix in (".webp", ".gif", ".tif") else {}
        shown[0].save(held, {".jpg": "JPEG", ".tif": "TIFF"}.get(suffix, suffix[1:].upper()), **more)
        kinds[suffix] = held.getvalue()
    assert np.asarray(shown[0]).shape[2] == 3
    read = {f"video{suffix}": Target([data], frames, 0.4, suffix) for suffix, data in kinds.items()}
    return read | {"mask": Target([mask.getvalue()], masks_in, 1, ".png")}


# --- the program ---


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the campaign; 1 when there was a fault."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--only", default="")
    options = parser.parse_args(arguments)
    warnings.simplefilter("ignore")
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        targets = all_targets(Path(folder))
        chosen = {name: target for name, target in targets.items() if options.only in ("", name)}
        tallies = campaign(chosen, options.inputs, options.seed, options.first, Path("runs/fuzz"))
    print(f"{'target':36s} {'taken':>8s} {'refused':>8s} {'faults':>7s}")
    for name, tally in tallies.items():
        print(f"{name:36s} {tally.taken:8d} {tally.refused:8d} {len(tally.faults):7d}")
        for fault in tally.faults[:3]:
            print(f"    python tests/fuzz.py {fault}")
    tried = sum(tally.taken + tally.refused + len(tally.faults) for tally in tallies.values())
    faults = sum(len(tally.faults) for tally in tallies.values())
    print(f"inputs={tried} faults={faults} seed={options.seed} seconds={time.monotonic() - began:.0f}")
    return int(faults > 0)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        sys.exit(main())
