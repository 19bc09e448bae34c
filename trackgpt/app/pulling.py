"""`trackgpt models` and `trackgpt models pull NAME`: which models there are, and fetching public ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from trackgpt import presets
from trackgpt.app.live import say
from trackgpt.errors import ModelError, UsageError
from trackgpt.fetching import check, is_offline
from trackgpt.hub import HUB_ID, SYSTEMS, model_of, parts_of, shipped


def listing() -> Iterator[str]:
    """Lines for people: what ships, and what can be fetched."""
    for entry in shipped():
        weights = entry.folder / "model.safetensors"
        size = _size(weights.stat().st_size) if weights.exists() else "missing"
        yield f"{entry.name:12s}{size:>9s}  {entry.about}"
    for name, parts in SYSTEMS.items():
        yield f"{name}  a name for {parts}"
    yield ""
    yield "Fetched once by `trackgpt models pull NAME`, together or any hub's id alone:"
    for preset in reversed(presets.PRESETS):
        state = "on this machine" if all(presets.here(part.repo) for part in preset.parts) else "not here"
        yield f"{preset.name:12s}{_size(preset.size):>9s}  {state}, {preset.licence}: {preset.knows}"
        for part in preset.parts:
            yield f"{'':12s}{_size(part.size):>9s}  {part.repo}"


def run(name: str, revision: str = "") -> int:
    """Fetch, saying each step on stderr, and print what is here now; offline, compare it with what was written down.

    Args:
        name: a preset, a hub's id, or two of those with a + between them.
        revision: a commit, branch or tag of a single id, in place of the known one.

    Raises:
        UsageError: there is no such name, or it ships, or a revision is given for two models.
        ModelError, OutputError: see `trackgpt.fetching.fetch`.
    """
    repos = _repos(name)
    if revision and len(repos) > 1:
        raise UsageError(f"--revision {revision}: {name} is {len(repos)} models; give the id of one")
    folders = [_compare(repo, revision, name) if is_offline() else _fetch(repo, revision) for repo in repos]
    files = [file for folder in folders for file in folder.iterdir()]
    size = sum(file.stat().st_size for file in files)
    print(f"models={len(repos)} files={len(files)} bytes={size} model={'+'.join(repos)}")
    return 0


def _repos(name: str) -> list[str]:
    if name in {*(model.name for model in shipped()), *SYSTEMS}:
        raise UsageError(f"{name} ships inside the package; there is nothing to fetch")
    repos = parts_of(model_of(name))
    if not all(HUB_ID.fullmatch(repo) for repo in repos):
        known = ", ".join(preset.name for preset in presets.PRESETS)
        raise UsageError(f"{name}: nothing to fetch by that name; choose {known}, or a hub's id such as OWNER/MODEL")
    return repos


def _fetch(repo: str, revision: str) -> Path:
    known = presets.published(repo)
    say(f"{repo}: {_size(known.size)}, {known.licence}" if known else f"{repo}: read its licence at the hub")
    try:
        return presets.pull(repo, revision)
    except BaseException as stop:
        if not isinstance(stop, Exception):  # Ctrl-C, SIGTERM
            say("what has come is kept; the same command goes on from there")
        raise


def _compare(repo: str, revision: str, name: str) -> Path:
    folder, known = presets.here(repo), presets.published(repo)
    if folder is None or (revision and folder.name != revision):
        raise ModelError(f"{repo}: not on this machine; with a network, run: trackgpt models pull {name}", "MD01")
    say(f"{repo}: {check(repo, folder, known.sums if known else {})} files are as they were fetched")
    return folder


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
