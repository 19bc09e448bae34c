"""Files of a public model from a hub into this machine's cache: of one revision, every byte checked, and written down.

The cache is `huggingface_hub`'s own, in its layout, so that other programs find what is fetched here, and the other way
round. Beside a model's files lies `trackgpt/pulled.json`, which says what was fetched (`Pulled`).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trackgpt.ending import UNWRITABLE
from trackgpt.errors import ModelError, OutputError, UsageError
from trackgpt.files import write_whole
from trackgpt.settings import from_dict, read_json, to_dict

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoFile

COMMIT = re.compile(r"[0-9a-f]{40}")
SHA256 = re.compile(r"[0-9a-f]{64}")
HUB_FILES = ("*.json", "*.safetensors", "*.model", "*.txt", "*.jinja", "README.md")
"""What is fetched: configurations, tokenizers, templates, weights, the card. Pickles only without safetensors."""
PICKLES = "*.bin"
NOTES, RECORD = "trackgpt", "pulled.json"
"""Folder beside a model's files, and the name in it of what was fetched; what has come of a file lies there, too."""


@dataclass(frozen=True)
class Pulled:
    """What was fetched of a model, as it is written down beside it.

    Attributes:
        revision: the commit, 40 hexadecimal digits.
        files: sha256 of every file, by its name.
    """

    revision: str = ""
    files: dict[str, str] = field(default_factory=dict)


def go_offline() -> None:
    """Have nothing in this process, or in one that it starts, ask a hub for anything."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    from huggingface_hub import constants

    constants.HF_HUB_OFFLINE = True  # it may have been imported, and have read the environment, before


def is_offline() -> bool:
    """Whether hubs are not to be asked: after `go_offline`, or where HF_HUB_OFFLINE is set."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def recorded(repo: str) -> Pulled | None:
    """What `fetch` has written down about a model of the cache.

    Raises:
        ModelError: MD02, the file is damaged.
    """
    path = _store(repo) / NOTES / RECORD
    if not path.is_file():
        return None
    try:
        return from_dict(Pulled, read_json(path), str(path))
    except UsageError as error:
        raise ModelError(f"{error.message}; delete the file, and fetch the model again", "MD02") from error


def kept(repo: str, revision: str = "") -> Path | None:
    """The folder of a model that is in the cache, as far as can be seen whole; None where it is not. Nobody is asked.

    Args:
        repo: its id.
        revision: the commit to look for, after the one that was fetched last, and before the main branch as another
            program may have fetched it.
    """
    store, pulled = _store(repo), recorded(repo)
    if pulled is not None:
        folder = store / "snapshots" / pulled.revision
        if all((folder / name).is_file() for name in pulled.files):
            return folder
    main = store / "refs" / "main"
    for commit in (revision, main.read_text(encoding="utf-8").strip() if main.is_file() else ""):
        if commit and _has_weights(store / "snapshots" / commit):
            return store / "snapshots" / commit
    return None


def fetch(repo: str, revision: str = "", known: Mapping[str, str] | None = None) -> Path:
    """Fetch a model's files into the cache, check them, and write down what came. Gives their folder.

    What is there and right stays. A large file that was interrupted goes on where it stopped; a second call for the
    same model waits for the first.

    Args:
        repo: its id.
        revision: a commit, branch or tag; by default the commit that was fetched before, else the main branch.
        known: sha256 by name of files as they must be.

    Raises:
        ModelError: MD01 it cannot be fetched, or this process is offline; MD02 what came, or what the hub announces, is
            not what it should be. No such file stays in the cache.
        OutputError: OUT02, the disk is full or cannot be written.
    """
    if is_offline():
        raise ModelError(f"{repo}: not fetched, because hubs are not to be asked (offline)", "MD01")
    with _explained(repo):
        from huggingface_hub import snapshot_download
        from huggingface_hub.utils import WeakFileLock  # type: ignore[attr-defined]
        from huggingface_hub.utils.logging import set_verbosity_error

        set_verbosity_error()  # it tries again by itself, and a line for each try says nothing to a person
        pulled = recorded(repo) or Pulled()
        commit, files = _listed(repo, revision or pulled.revision)
        _refuse_others(repo, files, {**(pulled.files if pulled.revision == commit else {}), **(known or {})})
        store = _store(repo)
        (store / NOTES).mkdir(parents=True, exist_ok=True)
        with WeakFileLock(store / NOTES / "lock"):
            for file in files:
                if file.lfs is not None:
                    _fetch_large(repo, store, commit, file)
            names = [file.path for file in files]
            folder = Path(snapshot_download(repo, revision=commit, allow_patterns=names))
            sums = {file.path: _checked(repo, folder / file.path, file, store) for file in files}
            write_whole(store / NOTES / RECORD, [json.dumps(to_dict(Pulled(commit, sums)), indent=2) + "\n"])
    return folder


def check(repo: str, folder: Path, known: Mapping[str, str] | None = None) -> int:
    """Compare the files of a model with what was written down when they came. Nobody is asked.

    Args:
        repo: its id.
        folder: where it is, see `kept`.
        known: sha256 by name of files as they must be, for a model that another program has fetched.

    Returns:
        the number of files that were compared.

    Raises:
        ModelError: MD02, a file is damaged.
    """
    pulled = recorded(repo)
    sums = pulled.files if pulled is not None and pulled.revision == folder.name else dict(known or {})
    for name, wanted in sums.items():
        if _sha256(folder / name) != wanted:
            raise ModelError(f"{folder / name}: not as it was fetched (sha256 differs); {_again(repo)}", "MD02")
    return len(sums)


def _store(repo: str) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).expanduser() / f"models--{repo.replace('/', '--')}"


def _again(repo: str) -> str:
    return f"with a network, run: trackgpt models pull {repo}"


def _has_weights(folder: Path) -> bool:
    """Whether weights are there, and every shard that an index names."""
    shards = {
        str(name)
        for index in folder.glob("*.index.json")
        for name in dict(read_json(index).get("weight_map") or {}).values()
    }
    found = [*folder.glob("*.safetensors"), *folder.glob(PICKLES)]
    return bool(found) and all((folder / name).is_file() for name in shards)


def _listed(repo: str, revision: str) -> tuple[str, list[RepoFile]]:
    """The commit of a revision, and what is to be fetched of it."""
    from huggingface_hub import HfApi
    from huggingface_hub.hf_api import RepoFile

    hub = HfApi()
    commit = revision if COMMIT.fullmatch(revision) else str(hub.model_info(repo, revision=revision or None).sha)
    listed = [file for file in hub.list_repo_tree(repo, revision=commit) if isinstance(file, RepoFile)]
    odd = [file.path for file in listed if Path(file.path).name != file.path or "\\" in file.path]
    odd += [str(file.lfs.sha256) for file in listed if file.lfs and not SHA256.fullmatch(str(file.lfs.sha256))]
    if odd or not COMMIT.fullmatch(commit):
        what = odd[0] if odd else f"commit {commit}"
        raise ModelError(f"{repo}: the hub lists {what!r:.60}, which is no name; look at HF_ENDPOINT", "MD02")
    safe = any(fnmatch(file.path, "*.safetensors") for file in listed)
    wanted = HUB_FILES if safe else (*HUB_FILES, PICKLES)
    return commit, [file for file in listed if any(fnmatch(file.path, pattern) for pattern in wanted)]


def _refuse_others(repo: str, files: list[RepoFile], known: Mapping[str, str]) -> None:
    """Refuse a hub that announces another file under a name whose sha256 is known."""
    for file in files:
        announced = file.lfs.sha256 if file.lfs is not None else None
        wanted = known.get(file.path)
        if announced is not None and wanted is not None and announced != wanted:
            raise ModelError(
                f"{repo}: the hub announces {file.path} with sha256 {announced[:16]}..., known is {wanted[:16]}...: "
                "this is not the model that was meant, and nothing was fetched; look at the address in HF_ENDPOINT",
                "MD02",
            )


def _fetch_large(repo: str, store: Path, commit: str, file: RepoFile) -> None:
    """Bring one large file into the cache, from where an earlier attempt stopped.

    `snapshot_download` keeps nothing of a file that was interrupted, and a shard may have 5 GB.
    """
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

    assert file.lfs is not None
    blob, named = store / "blobs" / file.lfs.sha256, store / "snapshots" / commit / file.path
    here = next((path for path in (blob, named) if path.is_file()), None)
    if here is not None and _sha256(here) == file.lfs.sha256:
        return
    part = store / NOTES / f"{file.lfs.sha256}.part"
    have = part.stat().st_size if part.is_file() else 0
    _refuse_full_disk(store, file.size - have)
    with part.open("ab") as out:
        if have > file.size:
            out.truncate(0)
        http_get(
            hf_hub_url(repo, file.path, revision=commit),
            out,
            resume_size=out.seek(0, os.SEEK_END),
            headers=build_hf_headers(),
            expected_size=file.size,
            displayed_filename=f"{repo}: {file.path}",
        )
    if _sha256(part) != file.lfs.sha256:
        part.unlink()
        raise _wrong(repo, file)
    blob.parent.mkdir(exist_ok=True)
    named.unlink(missing_ok=True)  # a damaged one, or a link to one
    os.replace(part, blob)


def _checked(repo: str, path: Path, file: RepoFile, store: Path) -> str:
    """The sha256 of a file that is what the hub says it is."""
    from huggingface_hub.utils.sha import git_hash

    if file.lfs is not None:
        blob = store / "blobs" / file.lfs.sha256  # which `_fetch_large` has checked; without links, `path` is a copy
        found = file.lfs.sha256 if blob.is_file() and path.samefile(blob) else _sha256(path)
        right = found == file.lfs.sha256
    else:
        found, right = _sha256(path), git_hash(path.read_bytes()) == file.blob_id
    if not right:
        path.resolve().unlink()
        path.unlink(missing_ok=True)
        raise _wrong(repo, file)
    return found


def _wrong(repo: str, file: RepoFile) -> ModelError:
    return ModelError(
        f"{repo}: {file.path} is not the file that the hub announces (its hash differs); it was thrown away; "
        f"{_again(repo)}",
        "MD02",
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _refuse_full_disk(place: Path, needed: int) -> None:
    free = shutil.disk_usage(place).free
    if needed > free:
        raise OutputError(
            f"{place}: {needed / 2**30:.1f} GiB are needed and {free / 2**30:.1f} GiB are free; free some space, or "
            "set HF_HOME to a folder on another disk",
            "OUT02",
        )


@contextmanager
def _explained(repo: str) -> Iterator[None]:
    """Turn what a hub, a network and a disk refuse into one line that says what to do."""
    from huggingface_hub import errors

    # Of the HTTP library, whose name changes with versions of the hub's: its root, as of connections that fail.
    http: Any = next(each for each in reversed(errors.HfHubHTTPError.__mro__) if each.__name__ == "HTTPError")
    try:
        yield
    except (OSError, ValueError, http) as error:
        if getattr(error, "errno", None) in UNWRITABLE:
            raise OutputError(f"{_store(repo)}: cannot be written ({error}); set another HF_HOME", "OUT02") from error
        raise _unreachable(repo, error) from error


def _unreachable(repo: str, error: Exception) -> ModelError:
    from huggingface_hub import errors

    if isinstance(error, errors.GatedRepoError):
        advice = "it is gated: accept its licence on its page at the hub, run `hf auth login`, and try again"
    elif isinstance(error, errors.RepositoryNotFoundError):
        advice = "the hub has no such model, or it is private; look at the name"
    elif isinstance(error, errors.RevisionNotFoundError):
        advice = "it has no such revision"
    else:
        reason = next(iter(str(error).splitlines()), type(error).__name__)
        advice = f"{reason}; what has come is kept: {_again(repo)}; or copy its folder here and pass that"
    return ModelError(f"{repo}: cannot be fetched: {advice}", "MD01")
