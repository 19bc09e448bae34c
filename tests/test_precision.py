"""Which arithmetic a model is loaded in: as asked, or as measured; never one that the device is bad at."""

import numpy as np
import pytest
import torch
from tiny_models import dtypes, frame

import trackgpt
from eval.speed import bench as speed
from eval.speed import precision as speed_precision
from trackgpt import precision
from trackgpt.errors import UsageError
from trackgpt.hub import compile_segmenter, load_model
from trackgpt.online import follow
from trackgpt.perception.encoders import ConvUnit
from trackgpt.types import Prompt

CPU = torch.device("cpu")
FAST = {torch.bfloat16: 0.4, torch.float32: 1.0}
SLOW = {torch.bfloat16: 10.0, torch.float32: 1.0}


def track(model, frames=4):
    return list(follow(model.tracker(), map(frame, range(frames)), [Prompt("track the dog")]))


def test_a_dtype_that_is_named_is_taken_unmeasured(monkeypatch):
    monkeypatch.setattr(precision, "probe", None)
    assert precision.inference_dtype("float32", CPU) == torch.float32
    assert precision.inference_dtype("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize(("seconds", "dtype"), [(FAST, torch.bfloat16), (SLOW, torch.float32)])
def test_auto_is_what_the_probe_found_faster(monkeypatch, tiny, seconds, dtype):
    monkeypatch.setattr(precision, "probe", seconds.get)
    assert precision.inference_dtype("auto", CPU) == dtype
    assert dtypes(load_model(tiny, "cpu", dtype="auto")) == {dtype}
    assert dtypes(load_model(tiny, "cpu")) == {torch.float32}


def test_a_device_that_is_neither_cpu_nor_gpu_stays_in_float32(monkeypatch):
    monkeypatch.setattr(precision, "probe", FAST.get)
    assert precision.inference_dtype("auto", torch.device("mps")) == torch.float32


def test_a_model_in_bfloat16_tracks_what_it_tracks_in_float32(tiny):
    whole, half = (track(load_model(tiny, "cpu", dtype=dtype)) for dtype in ("float32", "bfloat16"))
    assert [p.masks.shape for p in half] == [p.masks.shape for p in whole] == [(1, 36, 64)] * 4
    assert max(np.abs(a.scores - b.scores).max() for a, b in zip(whole, half)) < 0.05
    assert np.mean([(a.masks == b.masks).mean() for a, b in zip(whole, half)]) > 0.9


@pytest.mark.parametrize(
    ("execution", "said"),
    [
        ({"dtype": "float16"}, "execution.dtype: `float16` is none of auto, float32, bfloat16"),
        ({"dtyp": "auto"}, "no setting `dtyp`; did you mean `dtype`?"),
        ({"compile": "yes"}, "execution.compile: wanted bool, found str"),
        ({"backend": "tensorrt"}, "`tensorrt` is none of torch, onnxruntime"),
    ],
)
def test_an_execution_that_is_not_known_is_refused_before_anything_is_loaded(execution, said):
    with pytest.raises(UsageError) as error:
        trackgpt.load("no-such-model", "cpu", **execution)
    assert said in str(error.value)


def test_kernels_of_a_folded_model_lie_as_its_maps_do(tiny):
    encoder = load_model(tiny, "cpu", packed=False).segmenter.image_encoder
    kernels = [unit.conv.weight for unit in encoder.modules() if isinstance(unit, ConvUnit)]
    assert len(kernels) == 4
    assert all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
def test_a_compiled_model_tracks_the_same(tiny):
    plain, compiled = track(load_model(tiny, "cpu")), track(load_model(tiny, "cpu", compile=True))
    assert max(np.abs(a.scores - b.scores).max() for a, b in zip(plain, compiled)) < 1e-5
    assert all((a.masks == b.masks).mean() > 0.9999 for a, b in zip(plain, compiled))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself and about a graph for CUDA on a CPU
def test_a_decoder_compiled_as_for_a_gpu_decodes_one_and_two_targets_the_same(tiny):
    segmenter = load_model(tiny, "cpu").segmenter
    features = segmenter.encode(torch.randint(0, 256, (1, 3, 64, 64), dtype=torch.uint8))
    given = {n: torch.randn(3, n, 32) for n in (1, 2)}
    plain = {n: segmenter.decode(features.repeated(n), *given[n]) for n in given}
    compile_segmenter(segmenter, "cuda")
    for n, wanted in plain.items():
        found = segmenter.decode(features.repeated(n), *given[n])
        assert (found.logits - wanted.logits).abs().max() < 1e-5 * wanted.logits.abs().max()
        assert (found.online - wanted.online).abs().max() < 1e-5


def test_the_command_line_says_how_to_run_and_the_run_records_it(command, tiny, tmp_path):
    from PIL import Image

    (tmp_path / "frames").mkdir()
    for t in range(2):
        Image.fromarray(frame(t)).save(tmp_path / "frames" / f"{t}.png")
    asked = ("track", "frames", "-i", "the dog", "-m", tiny, "-o", "run", "--format", "jsonl", "--device", "cpu")
    assert command(*asked, "--dtype", "bfloat16").code in (0, 5)
    assert '"dtype": "bfloat16"' in (tmp_path / "run" / "run.json").read_text()
    assert command(*asked, "--dtype", "float16", "--overwrite").code == 2


# speed: that it runs, never how fast


def test_arithmetics_are_timed_side_by_side_and_what_cannot_run_is_not_measured(tiny, monkeypatch, capsys):
    contestants = {
        "kernels not packed": {"packed": False},
        "bfloat16": {"dtype": "bfloat16"},
        "compiled": {"dtype": "nothing"},
    }
    monkeypatch.setattr(speed_precision, "CONTESTANTS", contestants)
    part = speed.measure_part("precision", speed.Workload(str(tiny), pairs=1, frames=16, height=48, width=64))
    rows = {line.quantity: line for line in part.lines}
    assert "logits differ by 0.0e+00" in rows["float32"].how
    assert rows["float32 / compiled"].how.startswith("not measured: execution.dtype: `nothing`")
    assert list(part.last) == ["kernels_ratio", "bfloat16_ratio"]
    assert all(value > 0 for value in part.last.values())
    speed.show({"precision": part}, speed.conditions(speed.Workload(), 0))
    assert "not measured" in capsys.readouterr().out
    assert part.as_json()["lines"][-1]["median"] is None
