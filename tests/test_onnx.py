"""Encoder and decoder as ONNX files: the numbers of PyTorch for any number of targets, and the same tracks."""

import json

import foreign_checkpoints
import numpy as np
import pytest
import torch
from tiny_models import frame, tiny_trackgpt

from trackgpt import version
from trackgpt.errors import ModelError, OutputError, UsageError
from trackgpt.hub import load_model
from trackgpt.online import follow
from trackgpt.perception import onnx_segmenter as module
from trackgpt.perception.checkpoints import load_segmenter
from trackgpt.perception.onnx_segmenter import TOLERANCE, OnnxSegmenter, export_onnx
from trackgpt.types import Prompt

for package in module.PACKAGES:
    pytest.importorskip(package, reason=f"{package} is not installed: pip install 'trackgpt[onnx]'")


@pytest.fixture(scope="module")
def caches(tmp_path_factory):
    """A home for exported models, so that this file exports the tiny one once."""
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(scope="module")
def pair(tiny, caches):
    """A tiny model in PyTorch and in ONNX Runtime."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(caches))
        return load_model(tiny, "cpu"), load_model(tiny, "cpu", backend="onnxruntime")


def largest(found, wanted):
    """The largest difference as a share of the largest value."""
    assert found.shape == wanted.shape
    assert found.dtype == wanted.dtype
    return float((found - wanted).abs().max() / wanted.abs().max())


@torch.no_grad()
def differences(ours, theirs, rows, width):
    """Of every map and every output, for so many rows, with a Q_t and without."""
    generator = torch.Generator().manual_seed(rows)
    side = ours.config.image_side
    frames = torch.randint(0, 256, (rows, 3, side, side), dtype=torch.uint8, generator=generator)
    referring, online, purport = torch.randn(3, rows, width, generator=generator)
    features, found = ours.encode(frames), theirs.encode(frames)
    assert (found.fine is None) == (features.fine is None)
    pairs = [(found.embedding, features.embedding), *zip(found.fine or (), features.fine or ())]
    for before in (None, online):
        here = ours.decode(features, referring, before, purport)
        there = theirs.decode(found, referring, before, purport)
        pairs += [(there.logits, here.logits), (there.score, here.score), (there.online, here.online)]
    return [largest(*each) for each in pairs]


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_onnx_runtime_computes_what_pytorch_does(pair, rows):
    found = differences(pair[0].segmenter, pair[1].segmenter, rows, 32)
    assert len(found) == 9
    assert max(found) <= TOLERANCE


@pytest.mark.parametrize("rows", [1, 3])
def test_an_encoder_in_bfloat16_stays_in_pytorch_and_its_decoder_is_exported_alone(tiny, tmp_path, monkeypatch, rows):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    half, ours = (load_model(tiny, "cpu", dtype="bfloat16", backend=each) for each in ("torch", "onnxruntime"))
    assert max(differences(half.segmenter, ours.segmenter, rows, 32)) <= TOLERANCE
    (folder,) = (tmp_path / "trackgpt").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["decoder.onnx", "onnx.json"]
    assert ours.segmenter.own_encoder.mask_decoder.folded is not None  # exporting has put it back


def test_a_call_uses_the_threads_that_pytorch_uses_at_that_moment(pair, monkeypatch):
    asked, make = [], module.onnx_session
    monkeypatch.setattr(
        module, "onnx_session", lambda path, threads: asked.append((path.name, threads)) or make(path, threads)
    )
    ours, threads = pair[1].segmenter, torch.get_num_threads()
    frames = torch.zeros(1, 3, 64, 64, dtype=torch.uint8)
    found = []
    try:
        for count in (3, 1, 3):
            torch.set_num_threads(count)
            found.append(ours.encode(frames).embedding)
    finally:
        torch.set_num_threads(threads)
    assert asked[:1] == [("encoder.onnx", 3)]
    assert len(asked) == len(set(asked)) <= 2
    assert torch.equal(found[0], found[2])
    assert float((found[1] - found[0]).abs().max()) <= TOLERANCE * float(found[0].abs().max())


@torch.no_grad()
def test_without_a_purport_query_sams_own_token_decides(pair):
    features = pair[0].segmenter.encode(torch.zeros(1, 3, 64, 64, dtype=torch.uint8))
    referring = torch.randn(1, 32, generator=torch.Generator().manual_seed(0))
    decoded = [model.segmenter.decode(features, referring, None, None) for model in pair]
    assert abs(decoded[0].score - decoded[1].score) <= TOLERANCE


def test_a_track_is_the_same(pair):
    predictions = []
    for model in pair:
        predictions.append(list(follow(model.tracker(), map(frame, range(5)), [Prompt("track the dog")])))
    for ours, theirs in zip(*predictions):
        assert np.abs(ours.scores - theirs.scores).max() <= 1e-5
        assert (ours.masks == theirs.masks).mean() >= 0.999


def test_tracking_without_propagation_is_refused(pair):
    tracker = pair[1].tracker("no-propagation")
    with pytest.raises(UsageError, match="always has an online query; ablate propagation with --backend torch"):
        list(follow(tracker, [frame(0)], [Prompt("track the dog")]))


def test_shapes_are_written_beside_the_files(caches):
    (folder,) = (caches / "trackgpt").iterdir()
    assert sorted(path.name for path in folder.iterdir()) == ["decoder.onnx", "encoder.onnx", "onnx.json"]
    described = json.loads((folder / "onnx.json").read_text())
    shapes = {
        part: {each["name"]: each["shape"] for side in described[part].values() for each in side}
        for part in ("encoder", "decoder")
    }
    maps = {"embedding": [32, 4, 4], "fine4": [8, 16, 16], "fine8": [8, 8, 8]}
    queries = {name: ["targets", 32] for name in ("referring", "online", "purport", "next_online")}
    assert shapes["encoder"] == {"frames": ["frames", 3, 64, 64]} | {k: ["frames", *v] for k, v in maps.items()}
    decoded = {"logits": ["targets", 16, 16], "score": ["targets"]}
    assert shapes["decoder"] == queries | decoded | {k: ["targets", *v] for k, v in maps.items()}
    assert described["encoder"]["inputs"][0]["dtype"] == "uint8"
    assert len(described["first_online"]) == 32


def test_a_model_is_exported_once_and_another_one_again(pair, tiny, caches, monkeypatch):
    exported = []
    monkeypatch.setenv("XDG_CACHE_HOME", str(caches))
    monkeypatch.setattr(module, "export_onnx", lambda segmenter, folder: exported.append(folder))
    load_model(tiny, "cpu", backend="onnxruntime")
    assert exported == []
    other = tiny_trackgpt("conv", "conv", tied=True, seed=1).fold()
    with pytest.raises(OSError, match="onnx.json"):  # nothing was written by the stand-in
        module.onnx_segmenter(other.segmenter)
    assert len(exported) == 1


def test_caches_that_cannot_be_written_are_named(tiny, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    with pytest.raises(OutputError, match="point XDG_CACHE_HOME"):
        load_model(tiny, "cpu", backend="onnxruntime")


@pytest.mark.parametrize("other", [{"dtype": "int4"}, {"compile": True}])
def test_options_of_pytorch_are_refused_beside_it(tiny, other):
    with pytest.raises(UsageError, match="backend onnxruntime: runs on a CPU, not quantised, not compiled"):
        load_model(tiny, "cpu", backend="onnxruntime", **other)


def test_another_device_is_refused(tiny):
    with pytest.raises(UsageError, match="runs on a CPU"):
        load_model(tiny, "cuda", backend="onnxruntime")


def test_without_the_packages_the_extra_is_named(tiny, monkeypatch):
    monkeypatch.setattr(version, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match=r"onnxscript, onnxruntime: not installed; pip install 'trackgpt\[onnx\]'"):
        load_model(tiny, "cpu", backend="onnxruntime")


def test_what_runs_in_onnx_runtime_is_not_saved(pair, tmp_path):
    with pytest.raises(ModelError, match="save it"):
        pair[1].save_pretrained(tmp_path / "out")


def test_the_command_line_writes_the_files(command, tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_write", lambda graph, given, outputs, path, rows: path.touch())
    monkeypatch.setattr(module, "_shapes", lambda path: {})
    done = command("convert", "onnx", tiny, "out")
    assert (done.code, done.out) == (0, "image_side=64 opset=20 out=out\n")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["decoder.onnx", "encoder.onnx", "onnx.json"]


def sam2(tmp_path):
    foreign_checkpoints.sam2(tmp_path / "sam2")
    return load_segmenter(tmp_path / "sam2")[0].eval()


@pytest.mark.slow
@pytest.mark.parametrize(
    "make",
    [
        lambda _: load_model("nano", "cpu", packed=False).segmenter,
        lambda _: tiny_trackgpt(encoder="sam_vit").segmenter,
        sam2,
    ],
    ids=["nano", "sam_vit", "sam2"],
)
def test_other_encoders_have_parity_too(make, tmp_path):
    segmenter = make(tmp_path)
    export_onnx(segmenter, tmp_path)
    ours = OnnxSegmenter(tmp_path, segmenter.config)
    width = segmenter.config.decoder.hidden_size
    for rows in (1, 3):
        assert max(differences(segmenter, ours, rows, width)) <= TOLERANCE
