"""Loss curves of a run, from its log."""

from __future__ import annotations

from pathlib import Path

from trackgpt.errors import InputError
from trackgpt.files import writing
from trackgpt.settings import parse_json


def read_log(folder: Path) -> list[dict[str, float]]:
    """The logged lines of a run; a resumed run's repeated steps keep their last values.

    A line that a kill cut off is left out.
    """
    lines: dict[int, dict[str, float]] = {}
    for text in (folder / "train.jsonl").read_text().splitlines():
        try:
            line = parse_json(text, folder)
        except InputError:
            continue
        lines[int(line["step"])] = line
    return [lines[step] for step in sorted(lines)]


def draw_curves(folder: Path) -> Path | None:
    """One small plot per logged figure, in `folder/curves.png`; nothing before the first line."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    log = read_log(folder) if (folder / "train.jsonl").exists() else []
    names = list(dict.fromkeys(name for line in log for name in line if name not in ("step", "minutes")))
    if not names:
        return None
    columns = 4
    rows = -(-len(names) // columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4 * columns, 2.6 * rows), squeeze=False)
    for axis, name in zip(axes.flat, names, strict=False):
        points = [(line["step"], line[name]) for line in log if name in line]
        axis.plot(*zip(*points, strict=True), linewidth=1.2)
        axis.set_title(name, fontsize=10)
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(names) :]:
        axis.axis("off")
    figure.tight_layout()
    path = folder / "curves.png"
    with writing(path):
        figure.savefig(path, dpi=80)
    plt.close(figure)
    return path
