"""Small trees that `data_tools make` writes; a test module says `davis = tree_fixture(Layout.refer_davis17)`."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from data_tools.__main__ import main
from data_tools.check import Benchmark, check_tree
from data_tools.synthtrack import Layout, Order, Split, cases, make
from trackgpt.synthtrack.clips import Case

VIDEOS, FRAMES, LONGEST, SEED = 2, 6, 96, 3
BENCHMARKS = {
    "youtube": Benchmark.refer_youtube_vos,
    "davis": Benchmark.refer_davis17,
    "mevis": Benchmark.mevis,
    "revos": Benchmark.revos,
    "lvvis": Benchmark.lv_vis,
    "reason": Benchmark.reason_vos,
    "instrack": Benchmark.instrack,
}


def order(layout: Layout, **changes: object) -> Order:
    values = {"videos": VIDEOS, "seed": SEED, "frames": FRAMES, "longest": LONGEST, **changes}
    return Order(layout, **values)


def made(layout: Layout, out: Path, **changes: object) -> Path:
    make(order(layout, **changes), out)
    return out


def tree_fixture(layout: Layout) -> Callable:
    """A fixture that gives a tree of a layout, made once a module."""

    @pytest.fixture(scope="module")
    def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
        return made(layout, tmp_path_factory.mktemp("made") / layout)

    return tree


@pytest.fixture
def copies(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[str], Path]:
    """Copies a tree by the name of its fixture, to be damaged; a test module says `broken = copies`."""

    def copy(name: str) -> Path:
        return Path(shutil.copytree(request.getfixturevalue(name), tmp_path / name))

    return copy


def some_cases(layout: Layout, split: Split, count: int = VIDEOS) -> list[Case]:
    return [case for _, case in zip(range(count), cases(order(layout), split), strict=False)]


def problems(name: str, root: Path) -> list[str]:
    """What `check` says of a tree; `name` is one of `BENCHMARKS`, or a data set's own."""
    return [str(problem) for problem in check_tree(BENCHMARKS.get(name, name), root).problems]


def change_json(path: Path, change: Callable) -> None:
    document = json.loads(path.read_text())
    change(document["videos"])
    path.write_text(json.dumps(document))


def run(*arguments: object) -> int:
    """Run `python -m data_tools ARGS...` in this process; gives its exit code."""
    with pytest.raises(SystemExit) as stop:
        main([str(one) for one in arguments])
    return stop.value.code
