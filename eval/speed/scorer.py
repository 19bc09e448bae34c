"""Part "scorer" of `python -m eval speed`: from PNG files to J and F, plain and fast, in one process and in two.

The official tool (davis2017-evaluation) cannot be installed here, so the contestant is `eval.metrics.plain_jf`, which
takes the steps that tool is described to take. What the tool itself took is known from another machine (`OFFICIAL`): it
is printed next to the plain time and enters only the ratio `official`, which is rough: it compares two machines.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from eval import label_maps, scorer
from eval.metrics import plain_jf
from eval.speed.bench import Measurement, PartResult, Workload, interleaved, median
from trackgpt.errors import InputError
from trackgpt.geometry.jf import Scores

ByteArray = NDArray[np.uint8]
REAL = Path(__file__).parents[3] / "shared" / "data" / "davis" / "osvos_results" / "semi-supervised" / "osvos"
# ms per object-frame of davis2017-evaluation ac7c43f, measured once on another, idle machine
OFFICIAL = {"synthetic": 13.05, "real-shaped": 14.53}
OFFICIAL_READING = 9.7  # of the synthetic ones
_PALETTE = [(37 * n) % 256 for n in range(768)]  # 256 colours, as DAVIS has: with 16, Pillow writes 4 bits per pixel
Work = TypeVar("Work")


class ScoredSequence(NamedTuple):
    """Files of truth and of predictions, and the ids in them."""

    truths: list[Path]
    predictions: list[Path]
    objects: list[int]

    @property
    def object_frames(self) -> int:
        """How many pairs of masks are scored."""
        return len(self.truths) * len(self.objects)


def measure(workload: Workload) -> PartResult:
    """Plain and fast scoring of synthetic label maps, and of real shapes where ../shared/data/davis lies; 1 thread."""
    lines: list[Measurement] = []
    last: dict[str, float] = {}
    with TemporaryDirectory() as folder, one_thread():
        sets = {"synthetic": synthetic(Path(folder), workload)}
        if REAL.is_dir():
            sets["real-shaped"] = real_shaped(Path(folder), max(1, workload.frames // 8))
        for name, sequences in sets.items():
            found, ratios = _compare(name, sequences, workload.pairs)
            lines += found
            last |= {key if name == "synthetic" else f"{key}_real": value for key, value in ratios.items()}
        work = list(itertools.islice(itertools.cycle(sets["synthetic"]), 16))
        gains = {
            "scoring": _two_processes(_fast, work, workload.pairs),
            "counting": _two_processes(_count, [10**6] * 16, 3),
        }
    lines += [Measurement(f"{name}, 1 process / 2", gain, "", "wall time; 2 is wanted") for name, gain in gains.items()]
    lines[-1] = lines[-1]._replace(how="what this machine gives to a loop that only counts")
    last |= {"processes": median(gains["scoring"]), "processes_counting": median(gains["counting"])}
    return PartResult(lines, last)


@contextmanager
def one_thread() -> Iterator[None]:
    """OpenCV on one thread, and on as many as before afterwards."""
    kept = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(kept)


def _compare(name: str, sequences: list[ScoredSequence], rounds: int) -> tuple[list[Measurement], dict[str, float]]:
    """Times and ratios of a set, computing time of this process, after the scores were found to be equal."""
    for sequence in sequences:
        if not np.array_equal(np.swapaxes(_fast(sequence), 0, 1), _plain(sequence)):
            raise InputError(f"{sequence.truths[0].parent}: plain and fast scores differ; this is an error of ours")
    contestants: dict[str, Callable[[ScoredSequence], object]] = {
        "plain": _plain,
        "plain, reading": _plain_reading,
        "fast": _fast,
        "fast, reading": _fast_reading,
    }
    runs = {key: partial(_all, run, sequences) for key, run in contestants.items()}
    seconds = {key: each.computed for key, each in interleaved(runs, rounds).items()}
    number = sum(sequence.object_frames for sequence in sequences)
    size = f"{len(sequences)} sequences, {number} object-frames"
    inflate = "zlib" if label_maps.uses_stdlib() else "zlib-ng"
    how = {"plain": f"official elsewhere: {OFFICIAL[name]}", "fast": f"inflating with {inflate}"}
    how["plain, reading"] = f"official elsewhere: {OFFICIAL_READING}"
    ms = {key: 1e3 * values / number for key, values in seconds.items()}
    lines = [Measurement(f"{name}, {key}", ms[key], "ms/object-frame", how.get(key, "")) for key in contestants]
    ratio = seconds["plain"] / seconds["fast"]
    scoring = (seconds["plain"] - seconds["plain, reading"]) / (seconds["fast"] - seconds["fast, reading"])
    lines.append(Measurement(f"{name}, plain / fast", ratio, "", f"{size}, PNG files to J and F"))
    lines.append(Measurement(f"{name}, plain / fast", scoring, "", "without reading"))
    fast = median(ms["fast"])
    return lines, {
        "ratio": median(ratio),
        "official": OFFICIAL[name] / fast,
        "ms": fast,
        "plain_ms": median(ms["plain"]),
    }


def _all(run: Callable[[Work], object], work: list[Work]) -> None:
    for each in work:
        run(each)


def _plain(sequence: ScoredSequence) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return plain_jf.plain_label_maps(*sequence)


def _plain_reading(sequence: ScoredSequence) -> None:
    for files in (sequence.truths, sequence.predictions):
        plain_jf.separated(plain_jf.stacked(files), sequence.objects)


def _fast(sequence: ScoredSequence) -> list[Scores]:
    return scorer.score_label_maps(*sequence)


def _fast_reading(sequence: ScoredSequence) -> None:
    for file in (*sequence.truths, *sequence.predictions):
        label_maps.read_label_map(file)


def _count(number: int) -> int:
    return sum(range(number))


def _two_processes(run: Callable[[Work], object], work: list[Work], rounds: int) -> NDArray[np.float64]:
    """Wall time of one process over that of two that share the work."""
    with ProcessPoolExecutor(2, get_context("spawn"), cv2.setNumThreads, (1,)) as pool:
        runs: dict[str, Callable[[], object]] = {
            "one": partial(_all, run, work),
            "two": lambda: list(pool.map(run, work)),
        }
        seconds = interleaved(runs, rounds)
    return seconds["one"].wall / seconds["two"].wall


# What is scored.


def synthetic(folder: Path, workload: Workload) -> list[ScoredSequence]:
    """Two sequences of two blobs that wobble and drift, and predictions a few pixels beside them."""
    sequences = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        size = min(workload.height, workload.width)
        blobs = [_Blob.draw(rng, workload.height, workload.width, size) for _ in range(2)]
        truths = [_paint(blobs, t, workload.height, workload.width) for t in range(workload.frames)]
        sequences.append(_write(folder / f"synthetic{seed}", truths, rng, [1, 2]))
    return sequences


def real_shaped(folder: Path, frames: int) -> list[ScoredSequence]:
    """The masks that OSVOS found in DAVIS-2017's validation videos as truth; perturbed, they are the predictions."""
    sequences = []
    for number, source in enumerate(sorted(path for path in REAL.iterdir() if path.is_dir())):
        truths = [np.array(label_maps.read_label_map(path)) for path in sorted(source.glob("*.png"))[:frames]]
        objects = [int(label) for label in np.unique(truths[0]) if label not in (0, 255)]
        if objects:
            sequences.append(_write(folder / source.name, truths, np.random.default_rng(number), objects))
    return sequences


class _Blob(NamedTuple):
    """A closed curve around a point that moves: radius, its waves and their phases, pixels and radians."""

    start: NDArray[np.float64]
    speed: NDArray[np.float64]
    radius: float
    waves: NDArray[np.float64]
    phases: NDArray[np.float64]

    @classmethod
    def draw(cls, rng: np.random.Generator, height: int, width: int, size: int) -> _Blob:
        start = rng.uniform(0.25, 0.75, 2) * (height, width)
        radius = size * rng.uniform(0.1, 0.22)
        return cls(start, rng.normal(0, size / 400, 2), radius, rng.uniform(0, 0.15, 4), rng.uniform(0, 7, 4))

    def mask(self, t: int, height: int, width: int) -> NDArray[np.bool_]:
        y, x = np.ogrid[:height, :width]
        y, x = y - self.start[0] - t * self.speed[0], x - self.start[1] - t * self.speed[1]
        angle = np.arctan2(y, x)
        waves = sum(self.waves[n] * np.sin((n + 2) * angle + self.phases[n] + t / 10) for n in range(4))
        return np.hypot(y, x) < self.radius * (1 + waves)


def _paint(blobs: list[_Blob], t: int, height: int, width: int) -> ByteArray:
    labels = np.zeros((height, width), np.uint8)
    for label, blob in enumerate(blobs, start=1):
        labels[blob.mask(t, height, width)] = label
    return labels


def perturbed(labels: ByteArray, rng: np.random.Generator) -> ByteArray:
    """Every object moved by up to 5 pixels and grown or shrunk by up to 4."""
    found = np.zeros_like(labels)
    for label in np.unique(labels)[1:]:
        mask = np.roll((labels == label).astype(np.uint8), rng.integers(-5, 6, 2), (0, 1))
        change = cv2.dilate if rng.random() < 0.5 else cv2.erode
        side = 2 * int(rng.integers(0, 5)) + 1
        found[change(mask, np.ones((side, side), np.uint8)) > 0] = label
    return found


def _write(folder: Path, truths: list[ByteArray], rng: np.random.Generator, objects: list[int]) -> ScoredSequence:
    from PIL import Image

    files = []
    for name, maps in (("truth", truths), ("prediction", [perturbed(labels, rng) for labels in truths])):
        (folder / name).mkdir(parents=True)
        files.append([folder / name / f"{t:05d}.png" for t in range(len(maps))])
        for path, labels in zip(files[-1], maps, strict=True):
            image = Image.fromarray(labels)
            image.putpalette(_PALETTE)
            image.save(path)
    return ScoredSequence(files[0], files[1], objects)
