"""Public weights: which are known, fetching them from a hub on this machine, and asking none when offline."""

import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import torch
from foreign_checkpoints import sam2_video
from safetensors.torch import load_file, save_file
from transformers import GroundingDinoConfig, GroundingDinoForObjectDetection, GroundingDinoImageProcessorPil

from trackgpt import fetching, hub, presets
from trackgpt.errors import ModelError, OutputError, UsageError
from trackgpt.planning.grounding import plan_grounded
from trackgpt.planning.tracing import LiveBytes

REPO = "owner/model"
WHOLE = "model.safetensors"
FIRST, SECOND = "1" * 40, "2" * 40
WEIGHTS = bytes(range(256)) * 400  # 100 kB
FILES = {
    "config.json": b"{}",
    "preprocessor_config.json": b"{}",
    "tokenizer.json": b"{}",
    "vocab.txt": b"a\n",
    "merges.txt": b"a b\n",
    "spiece.model": b"\0",
    "chat_template.jinja": b"{{ x }}",
    "model.safetensors": WEIGHTS,
    "pytorch_model.bin": b"the same again",
    "model.pt": b"the original",
    "README.md": b"words",
}
FETCHED = [name for name in FILES if name not in ("pytorch_model.bin", "model.pt")]


def git_hash(data):
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


@dataclass
class FakeHub:
    """What a hub serves: revisions of models, each the bytes of its files.

    Attributes:
        models: by id and commit.
        requests: what was asked, e.g. "GET owner/model/model.safetensors from 100".
        announced: sha256 by file, where it differs from that of the bytes.
        stops: a file is cut after so many bytes, and what is to be done then.
    """

    models: dict[tuple[str, str], dict[str, bytes]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)
    announced: dict[str, str] = field(default_factory=dict)
    stops: dict[str, tuple[int, object]] = field(default_factory=dict)

    def sums(self, name, data):
        return self.announced.get(name, hashlib.sha256(data).hexdigest())

    def tree(self, repo, commit):
        rows = []
        for name, data in self.models[repo, commit].items():
            row = {"type": "file", "path": name, "size": len(data), "oid": git_hash(data)}
            if is_large(name):
                row["lfs"] = {"oid": self.sums(name, data), "size": len(data), "pointerSize": 130}
            rows.append(row)
        return [*rows, {"type": "directory", "path": "onnx", "oid": "0" * 40}]


def is_large(name):
    return name.endswith((".safetensors", ".bin", ".pt"))


def handler(served):
    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def answer(self, body, code=200, **headers):
            self.send_response(code)
            for name, value in {"Content-Length": len(body), **headers}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            return body

        def do_HEAD(self):
            self.reply()

        def do_GET(self):
            self.wfile.write(self.reply())

        def reply(self):
            path = self.path.split("?")[0]
            if found := re.fullmatch(r"/api/models/([\w-]+/[\w.-]+)(?:/(revision|tree)/(\w+))?", path):
                repo, what, revision = found.groups()
                commits = [commit for name, commit in served.models if name == repo]
                if not commits:
                    return self.answer(b"{}", 404, X_Error_Code="RepoNotFound")
                commit = {"main": commits[-1], None: commits[-1]}.get(revision, revision)
                if commit not in commits:
                    return self.answer(b"{}", 404, X_Error_Code="RevisionNotFound")
                about = served.tree(repo, commit) if what == "tree" else {"id": repo, "sha": commit}
                return self.answer(json.dumps(about).encode(), Content_Type="application/json")
            repo, commit, name = re.fullmatch(r"/([\w-]+/[\w.-]+)/resolve/(\w+)/(.*)", path).groups()
            return self.file(repo, commit, name)

        def file(self, repo, commit, name):
            data = served.models[repo, commit][name]
            start = int((self.headers.get("Range") or "bytes=0-").removeprefix("bytes=").split("-")[0])
            served.requests.append(f"{self.command} {repo}/{name}" + (f" from {start}" if start else ""))
            etag = served.sums(name, data) if is_large(name) else git_hash(data)
            more = {"Content_Range": f"bytes {start}-{len(data) - 1}/{len(data)}"} if start else {}
            body = self.answer(data[start:], 206 if start else 200, ETag=f'"{etag}"', X_Repo_Commit=commit, **more)
            if self.command == "GET" and name in served.stops:
                length, act = served.stops.pop(name)
                self.wfile.write(body[:length])
                self.wfile.flush()
                act()
                return b""
            return body

    return Handler


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def served(cache, monkeypatch):
    """A hub on this machine that is asked in place of the real one; it has one model, at one commit."""
    made = FakeHub({(REPO, FIRST): dict(FILES)})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(made))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr("huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    yield made
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def no_sockets(cache, monkeypatch):
    """Whatever opens a socket fails; what was asked is in the list."""
    opened = []

    class Refused(socket.socket):
        def __init__(self, *about, **more):
            opened.append(about)
            raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", Refused)
    return opened


def put(cache, repo, commit, files=FILES, main=False):
    """A model in the cache, as another program leaves it there."""
    store = cache / f"models--{repo.replace('/', '--')}"
    folder = store / "snapshots" / commit
    folder.mkdir(parents=True)
    for name, data in files.items():
        (folder / name).write_bytes(data)
    if main:
        (store / "refs").mkdir()
        (store / "refs/main").write_text(commit)
    return folder


# What is known


def test_every_public_model_has_a_commit_a_checksum_and_a_size():
    parts = [part for preset in presets.PRESETS for part in preset.parts]
    assert [part.repo for part in parts if not fetching.COMMIT.fullmatch(part.revision)] == []
    weights = {name: each for part in parts for name, each in part.weights.items()}
    assert [name for name, (_, digest) in weights.items() if not re.fullmatch("[0-9a-f]{64}", digest)] == []
    assert {preset.name: round(preset.size / 1e6) for preset in presets.PRESETS} == {"small": 845, "reason": 9060}
    assert {part.licence for part in parts} == {"Apache-2.0"}


def test_a_presets_name_stands_for_a_grounder_and_a_segmenter():
    assert hub.pair("small", None) == "imat:IDEA-Research/grounding-dino-tiny+facebook/sam2.1-hiera-tiny"
    assert hub.pair("reason", None) == "imat:Qwen/Qwen3-VL-4B-Instruct+facebook/sam2.1-hiera-small"
    assert hub.pair("nano", None) == "nano"
    assert hub.pair("small.onnx", "nano-memory") == "small.onnx+nano-memory"


def test_models_lists_what_ships_and_what_can_be_fetched(command, cache):
    small = next(preset for preset in presets.PRESETS if preset.name == "small")
    for part in small.parts:
        put(cache, part.repo, part.revision)
    rows = {line.split()[0]: line for line in command("models").out.splitlines() if line and line[0] != " "}
    ships = ["nano", "nano-memory", "policy-nano", "box-nano", "qtrack-nano", "reasoningtrack-nano"]
    assert list(rows) == [*ships, "Fetched", "small", "reason"]
    assert re.search(r"806.1 MiB +on this machine, Apache-2.0: real footage; things by their names", rows["small"])
    assert re.search(r"8.4 GiB +not here, Apache-2.0: .*thought", rows["reason"])


def test_the_best_preset_here_is_the_largest_of_which_all_parts_are_here(cache):
    reason, small = presets.PRESETS
    assert presets.best_here() is None
    put(cache, small.grounder.repo, small.grounder.revision)
    assert presets.best_here() is None
    put(cache, small.segmenter.repo, "3" * 40, main=True)  # as another program fetched it, at another commit
    assert presets.best_here() is small
    for part in reason.parts:
        put(cache, part.repo, part.revision)
    assert presets.best_here() is reason


def test_a_model_lacks_what_its_index_names(cache):
    index = {"weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}
    files = {"model.safetensors.index.json": json.dumps(index).encode(), "model-00001-of-00002.safetensors": b""}
    folder = put(cache, REPO, FIRST, files, main=True)
    assert presets.here(REPO) is None
    (folder / "model-00002-of-00002.safetensors").touch()
    assert presets.here(REPO) == folder


# Fetching


def test_a_pull_brings_the_files_of_one_commit_and_writes_down_what_came(command, served, cache):
    done = command("models", "pull", REPO)
    assert (done.code, done.values()) == (
        0,
        {"models": "1", "files": str(len(FETCHED)), "bytes": str(sum(len(FILES[n]) for n in FETCHED)), "model": REPO},
    )
    assert done.err.splitlines()[0] == f"trackgpt: {REPO}: read its licence at the hub"
    folder = hub.find(REPO)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FETCHED)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == {name: FILES[name] for name in FETCHED}
    pulled = fetching.recorded(REPO)
    assert (folder.name, pulled.revision) == (FIRST, FIRST)
    assert pulled.files == {name: hashlib.sha256(FILES[name]).hexdigest() for name in FETCHED}


def test_pickles_come_only_where_there_are_no_safetensors(served):
    served.models[REPO, FIRST].pop("model.safetensors")
    assert "pytorch_model.bin" in {path.name for path in presets.pull(REPO).iterdir()}


def test_what_is_not_known_stays_at_the_commit_that_was_pulled_until_another_is_asked_for(served, command):
    presets.pull(REPO)
    served.models[REPO, SECOND] = {**FILES, "config.json": b'{"new": 1}'}
    assert presets.pull(REPO).name == FIRST
    assert command("models", "pull", REPO, "--revision", "main").code == 0
    assert hub.find(REPO).name == SECOND
    assert presets.pull(REPO, FIRST).name == FIRST
    assert hub.find(REPO).name == FIRST


def test_a_model_that_is_not_here_is_fetched_when_it_is_asked_for_and_then_nobody_is_asked_again(served):
    folder = hub.find(REPO)
    asked = len(served.requests)
    assert hub.find(REPO) == folder
    assert len(served.requests) == asked > 0


def test_a_preset_is_fetched_at_its_commits_and_its_checksums_are_held(served, command, monkeypatch):
    sums = {"model.safetensors": (len(WEIGHTS), hashlib.sha256(WEIGHTS).hexdigest())}
    parts = [replace(part, weights=sums) for part in presets.PRESETS[1].parts]
    monkeypatch.setattr(presets, "PRESETS", (replace(presets.PRESETS[1], grounder=parts[0], segmenter=parts[1]),))
    for part in parts:
        served.models[part.repo, part.revision] = dict(FILES)
        served.models[part.repo, SECOND] = {**FILES, "model.safetensors": b"of another day"}
    done = command("models", "pull", "small")
    assert (done.code, done.values()["models"]) == (0, "2")
    assert [presets.here(part.repo).name for part in parts] == [part.revision for part in parts]
    assert command("models", "pull", "small", "--revision", "main").code == 2
    served.models[parts[0].repo, parts[0].revision]["model.safetensors"] = b"of somebody else"
    refused = command("models", "pull", "small")
    assert refused.code == 4
    assert "MD02: IDEA-Research/grounding-dino-tiny: the hub announces model.safetensors with sha256" in refused.err


def test_an_interrupted_pull_goes_on_where_it_stopped(served, command, cache):
    def interrupt():
        """Ctrl-C when most of what was sent has reached the disk."""
        until = time.monotonic() + 10
        while time.monotonic() < until and not any(part.stat().st_size > 40_000 for part in cache.rglob("*.part")):
            time.sleep(0.01)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

    served.stops["model.safetensors"] = 50_000, interrupt
    done = command("models", "pull", REPO)
    assert (done.code, done.out) == (130, "")
    assert "what has come is kept; the same command goes on from there" in done.err
    assert presets.here(REPO) is None
    (part,) = cache.rglob("*.part")
    kept = part.stat().st_size
    assert 40_000 < kept <= 50_000
    assert command("models", "pull", REPO).code == 0
    assert f"GET {REPO}/model.safetensors from {kept}" in served.requests
    assert (hub.find(REPO) / "model.safetensors").read_bytes() == WEIGHTS
    assert not part.exists()


def test_a_file_of_another_hash_is_refused_and_not_kept(served, command, cache):
    served.announced["model.safetensors"] = "0" * 64
    done = command("models", "pull", REPO)
    assert done.code == 4
    assert re.search(rf"MD02: {REPO}: model.safetensors is not the file that the hub announces", done.err)
    assert [path for path in cache.rglob("*") if path.is_file() and path.stat().st_size == len(WEIGHTS)] == []
    assert presets.here(REPO) is None
    served.announced.clear()
    assert command("models", "pull", REPO).code == 0


def test_a_small_file_of_another_hash_is_refused_and_not_kept(served, monkeypatch, cache):
    folder = presets.pull(REPO)
    (folder / "config.json").resolve().write_bytes(b"[]")
    with pytest.raises(ModelError, match="^MD02: owner/model: config.json is not the file"):
        presets.pull(REPO)
    assert (presets.pull(REPO) / "config.json").read_bytes() == b"{}"


def test_a_damaged_file_is_found_offline_and_fetched_again_with_a_network(served, command, monkeypatch):
    folder = presets.pull(REPO)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    done = command("models", "pull", REPO)
    assert (done.code, done.values()["files"]) == (0, str(len(FETCHED)))
    assert f"{len(FETCHED)} files are as they were fetched" in done.err
    (folder / "model.safetensors").resolve().write_bytes(WEIGHTS[:-1] + b"\0")
    done = command("models", "pull", REPO)
    assert done.code == 4
    assert f"not as it was fetched (sha256 differs); with a network, run: trackgpt models pull {REPO}" in done.err
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    assert presets.pull(REPO) == folder
    assert (folder / "model.safetensors").read_bytes() == WEIGHTS


def test_a_hub_that_changes_what_a_commit_holds_is_refused(served):
    presets.pull(REPO)
    served.models[REPO, FIRST]["model.safetensors"] = b"something else"
    with pytest.raises(ModelError, match="^MD02: owner/model: the hub announces model.safetensors with sha256"):
        presets.pull(REPO)
    assert (presets.here(REPO) / "model.safetensors").read_bytes() == WEIGHTS


def test_pulls_at_once_bring_the_weights_once(served):
    with ThreadPoolExecutor(4) as threads:
        folders = set(threads.map(lambda _: presets.pull(REPO), range(4)))
    assert len(folders) == 1
    assert served.requests.count(f"GET {REPO}/model.safetensors") == 1
    assert (folders.pop() / "model.safetensors").read_bytes() == WEIGHTS


def test_a_disk_that_is_too_small_is_said_before_anything_large_comes(served, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000})())
    with pytest.raises(OutputError, match=r"^OUT02: .*0\.0 GiB are needed and 0\.0 GiB are free"):
        presets.pull(REPO)
    assert not [asked for asked in served.requests if "safetensors" in asked]


def test_what_a_hub_has_not_is_md01_in_one_line(served, command):
    for arguments, said in (
        (["owner/nothing"], "owner/nothing: cannot be fetched: the hub has no such model, or it is private"),
        ([REPO, "--revision", SECOND], f"{REPO}: cannot be fetched: it has no such revision"),
    ):
        done = command("models", "pull", *arguments)
        assert (done.code, f"MD01: {said}" in done.err) == (4, True), done.err


@pytest.mark.parametrize("name", ["tiny", "small+nano", "owner/model/file", "nano"])
def test_a_name_that_cannot_be_fetched_lists_those_that_can(command, name):
    done = command("models", "pull", name)
    wanted = "ships inside the package" if name == "nano" else "choose reason, small, or a hub's id"
    assert (done.code, wanted in done.err) == (2, True), done.err


# Without a network


def test_offline_no_socket_is_opened_and_what_is_missing_says_what_to_type(command, no_sockets, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_HUB_OFFLINE", "")
    done = command("models", "pull", "small", "--offline")
    assert (done.code, "MD01" in done.err, "trackgpt models pull small" in done.err) == (4, True, True)
    assert os.environ["HF_HUB_OFFLINE"] == "1"
    done = command("models", "--offline")
    assert (done.code, "not here" in done.out) == (0, True)
    done = command("doctor", "-m", "small", "--offline")
    assert (done.code, "MD01" in done.out, "trackgpt models pull small" in done.out) == (4, True, True)
    assert re.search(r"memory +657\.4 MiB  grounder IDEA-Research/grounding-dino-tiny \(public\), from its", done.out)
    assert re.search(r"memory +148\.7 MiB  segmenter facebook/sam2.1-hiera-tiny \(public\), from its", done.out)
    assert re.search(
        r"memory +0\.79 GiB in float32 on \w+, activations of the grounder not counted, .*: it fits", done.out
    )
    with pytest.raises(ModelError, match="^MD01: IDEA-Research/grounding-dino-tiny: .*trackgpt models pull small"):
        hub.find("IDEA-Research/grounding-dino-tiny")
    with pytest.raises(ModelError, match="^MD01: .*offline"):
        presets.pull(REPO)
    assert presets.best_here() is None
    assert no_sockets == []


def test_the_environment_alone_keeps_a_process_offline(tmp_path):
    program = (
        "import socket; socket.socket = None\n"
        "from trackgpt import hub\n"
        "try: hub.find('owner/model')\n"
        "except Exception as error: print(error)\n"
    )
    asked = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path)}
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, env=asked, capture_output=True, text=True)
    assert done.stdout.startswith("MD01: owner/model: not a model on this machine"), done.stderr


# Memory


@pytest.fixture
def detector(tmp_path):
    """A folder with a grounder of 100 floating weights and 10 whole numbers."""
    folder = tmp_path / "dino"
    folder.mkdir()
    (folder / "config.json").write_text('{"model_type": "florence2"}')
    weights = {"w": torch.zeros(10, 10, dtype=torch.float16), "i": torch.zeros(10, dtype=torch.int64)}
    save_file(weights, folder / "model.safetensors")
    return folder


def test_a_grounder_and_a_segmenter_are_counted_in_the_dtype_in_which_they_compute(detector, tmp_path):
    nano = sum(weight.numel() * weight.element_size() for weight in load_file(hub.find("nano-memory") / WHOLE).values())
    for dtype, size in (("float32", 480), ("bfloat16", 280)):
        grounder, segmenter = plan_grounded(hub.grounded(detector, "nano-memory"), dtype)
        assert (grounder.kind, grounder.weights) == ("florence2", size)
        assert (segmenter.kind, segmenter.weights) == ("mask_propagation", nano)
    (tmp_path / "yolo.onnx").write_bytes(bytes(1234))
    grounder, _ = plan_grounded(hub.grounded(tmp_path / "yolo.onnx", detector), "bfloat16")
    assert (grounder.kind, grounder.weights) == ("onnx", 1234)


def test_a_policy_is_counted_alone_or_with_its_segmenter(detector):
    (policy,) = plan_grounded(f"qtrack:{detector}", "float32")
    assert (policy.kind, policy.weights) == ("florence2", 480)
    assert [part.kind for part in plan_grounded(f"qtrack:{detector}+nano-memory", "float32")][1:] == [
        "mask_propagation"
    ]
    with pytest.raises(UsageError, match="wanted imat:GROUNDER"):
        plan_grounded(f"qtrack:{detector}+nano-memory+nano", "float32")


def test_a_preset_is_counted_before_it_is_fetched(cache):
    for name, dtype, wanted in (
        ("small", "float32", 845e6),
        ("small", "bfloat16", 423e6),
        ("reason", "bfloat16", 8968e6),
    ):
        planned = plan_grounded(hub.model_of(name), dtype)
        assert sum(part.weights for part in planned) == pytest.approx(wanted, rel=0.001)
        assert {part.source for part in planned} == {"from its published size, for it is not on this machine"}
    with pytest.raises(ModelError, match="^MD01: owner/model: .*trackgpt models pull owner/model"):
        plan_grounded("imat:owner/model+nano-memory", "float32")
    with pytest.raises(UsageError, match="^nano: wanted imat:GROUNDER"):
        plan_grounded("nano", "float32")


def grounding_dino(folder):
    """A Grounding DINO that looks at frames of 64 x 107 at most, small and random, as its own class writes it."""
    swin = {"model_type": "swin", "embed_dim": 8, "depths": [1] * 4, "num_heads": [2] * 4, "window_size": 2}
    bert = {"model_type": "bert", "vocab_size": 1100, "hidden_size": 32, "intermediate_size": 32}
    layers = {"encoder_layers": 1, "decoder_layers": 2, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    config = GroundingDinoConfig(
        backbone_config=swin | {"out_indices": [2, 3, 4]},
        text_config=bert | {"num_hidden_layers": 1, "num_attention_heads": 2},
        d_model=64,
        num_queries=12,
        **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
        **layers,
    )
    model = GroundingDinoForObjectDetection(config).eval()
    model.save_pretrained(folder)
    GroundingDinoImageProcessorPil(size={"shortest_edge": 64, "longest_edge": 107}).save_pretrained(folder)
    return model


@torch.no_grad()
def test_activations_are_those_of_a_real_frame(tmp_path):
    detector, tracker = grounding_dino(tmp_path / "dino"), sam2_video(tmp_path / "sam")
    planned = plan_grounded(hub.grounded(tmp_path / "dino", tmp_path / "sam"), "float32")
    ids = torch.full((1, 16), 1)
    with LiveBytes() as looking:
        pixels = torch.zeros(1, 3, 60, 107)  # 720 x 1280, as wide as its processor allows
        detector(pixel_values=pixels, input_ids=ids, attention_mask=torch.ones_like(ids))
    with LiveBytes() as encoding:
        tracker.vision_encoder(torch.zeros(1, 3, 64, 64))
    assert [part.frame for part in planned] == pytest.approx([looking.peak, encoding.peak], rel=0.1)
    held = [sum(weight.numel() * 4 for weight in model.parameters()) for model in (detector, tracker)]
    assert [part.weights for part in planned] == pytest.approx(held, rel=0.1)
    halves = plan_grounded(hub.grounded(tmp_path / "dino", tmp_path / "sam"), "bfloat16")
    assert [half.frame / part.frame for half, part in zip(halves, planned, strict=True)] == pytest.approx(
        [0.5] * 2, abs=0.1
    )
