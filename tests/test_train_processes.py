"""Two processes under ZeRO give what one gives: the same losses, whole checkpoints, and models for one process."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny_models import ANSWER, frame, square
from tiny_runs import CPU, TIMES, run_join

from trackgpt.hub import load_reported
from train.report import read_log

pytest.importorskip("deepspeed", reason="DeepSpeed is not installed: pip install 'trackgpt[train]'")

ROOT = Path(__file__).parents[1]
# Tables of up to 1000 numbers stay whole, as those of up to 100,000 do at full size: the rest is really cut in two.
CUT = {"deepspeed": {"zero_optimization": {"stage3_param_persistence_threshold": 1000}}}
# Sums are made in another order, and Adam makes more of it where a gradient is small. The bias of attention's keys has
# none at all, only rounding, of which Adam makes whole steps: it is left out.
LOSSES, WEIGHTS, NO_GRADIENT = 1e-4, 5e-4, "k_proj.bias"


def two_processes(folder: Path, *runs: dict) -> subprocess.CompletedProcess[str]:
    """Several runs, one after the other, in one pair of processes."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    program = [str(ROOT / "tests/tiny_runs.py"), str(folder), *map(json.dumps, runs)]
    return subprocess.run([*launch, *program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def figures(folder: Path) -> list[dict[str, float]]:
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_log(folder)]


def assert_equal_runs(folder: Path, name: str, other: str) -> None:
    """Losses, figures and exported weights of two runs agree."""
    one, two = figures(folder / name), figures(folder / other)
    assert [line["step"] for line in two] == [1, 2, 3, 4]
    assert [line["step"] for line in two if "val_referring" in line] in ([], [2, 4])
    for a, b in zip(one, two, strict=True):
        assert b == pytest.approx(a, rel=LOSSES, abs=1e-5)
    (file,) = (folder / name / "model").glob("*.safetensors")
    first, second = load_file(file), load_file(folder / other / "model" / file.name)
    assert first.keys() == second.keys()
    for key, value in first.items():
        assert value.numel() == second[key].numel() > 0, key  # ZeRO-3 leaves empty tensors where nothing gathers
        if not key.endswith(NO_GRADIENT):
            assert (value.float() - second[key].float()).abs().max() <= WEIGHTS, key


@torch.no_grad()
def outputs(folder: Path) -> list[torch.Tensor]:
    """What an exported model makes of a frame, in one process: queries, mask logits, purport score and Q_1."""
    model, _ = load_reported(folder / "model")
    answer = model.brain.reason(square(model.brain), "the red car", forced=ANSWER)
    features = model.segmenter.encode(torch.from_numpy(frame(1, 64, 64)).permute(2, 0, 1)[None])
    decoded = model.segmenter.decode(features, answer.referring, None, answer.purport)
    return [answer.referring, answer.purport, decoded.logits, decoded.score, decoded.online]


def assert_equal_outputs(folder: Path, name: str, other: str) -> None:
    """Two exported models compute the same."""
    for one, two in zip(outputs(folder / name), outputs(folder / other), strict=True):
        assert (one - two).abs().max() <= 0.01 * one.abs().max()


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The join stage in one process and in two, under ZeRO-2 and ZeRO-3, this one stopped after its first step, and
    ZeRO-2 stopped after its first step, too.
    """
    folder = tmp_path_factory.mktemp("runs")
    run_join(folder / "one", CPU, batch=2, accumulate=2, validate_every=2)
    shared = {"batch": 2, "validate_every": 2, **CUT}
    done = two_processes(
        folder,
        {"name": "zero2", "zero": 2, **shared},
        {"name": "resumed2", "zero": 2, "minutes": 1e-9, **shared},
        {"name": "resumed2", "zero": 2, **shared},
        {"name": "zero3", "zero": 3, "minutes": 1e-9, **shared},
        {"name": "zero3", "zero": 3, **shared},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_two_processes_equal_one_that_accumulates(runs, name):
    assert_equal_runs(runs, "one", name)


@pytest.mark.parametrize("name", ["zero2", "zero3"])
def test_models_of_two_processes_compute_alike_in_one(runs, name):
    assert_equal_outputs(runs, "one", name)


def test_each_process_keeps_half_of_the_optimiser(runs):
    whole = sum(v.numel() for v in load_file(runs / "zero3/checkpoints/000004/trained.safetensors").values())
    for name in ("zero2", "zero3"):
        place = runs / name / "checkpoints/000004"
        shards = [place / f"optimizer_{rank}.pt" for rank in (0, 1)]
        # Two moments and the float32 copy of the weights, 12 bytes a parameter, over two processes.
        assert all(shard.stat().st_size == pytest.approx(12 * whole / 2, rel=0.1) for shard in shards)


def test_a_resumed_run_of_two_processes_is_the_undisturbed_one_bit_for_bit(runs):
    one, other = (runs / name / "checkpoints/000004/trained.safetensors" for name in ("zero2", "resumed2"))
    assert one.read_bytes() == other.read_bytes()
    assert figures(runs / "zero2") == figures(runs / "resumed2")


def test_a_shard_that_names_code_is_refused_on_every_process_and_the_code_does_not_run(runs, tmp_path):
    shutil.copytree(runs / "zero2", tmp_path / "zero2")
    place = tmp_path / "zero2/checkpoints/000004"
    file = place / "optimizer_1.pt"
    torch.save({"hyper": Path(tmp_path / "ran")}, file)  # any class that is not one of DeepSpeed's three will do
    state = json.loads((place / "state.json").read_text())
    state["files"][file.name] = file.stat().st_size
    (place / "state.json").write_text(json.dumps(state))
    done = two_processes(tmp_path, {"name": "zero2", "zero": 2, "batch": 2, **CUT})
    assert done.returncode != 0
    refusals = [line for line in done.stderr.splitlines() if "optimizer_1.pt: refused: it asks for pathlib" in line]
    assert len(refusals) == 2


@pytest.mark.slow
def test_adapters_recomputing_bfloat16_and_every_other_stage_of_zero(tmp_path):
    two = {"batch": 2, **CUT}
    run_join(tmp_path / "one", CPU, batch=2, accumulate=2)
    run_join(tmp_path / "adapters", CPU, stage="lora", batch=2, accumulate=2)
    run_join(tmp_path / "rounded", CPU, batch=2, accumulate=2, bf16=True)
    done = two_processes(
        tmp_path,
        {"name": "zero0", "zero": 0, "minutes": 1e-9, **two},
        {"name": "zero0", "zero": 0, **two},
        {"name": "zero1", "zero": 1, "minutes": 1e-9, **two},
        {"name": "zero1", "zero": 1, **two},
        {"name": "zero2", "zero": 2, "minutes": 1e-9, **two},
        {"name": "zero2", "zero": 2, **two},
        {"name": "offloaded", "zero": 2, "offload": "optimizer", **two},
        {"name": "far", "zero": 3, "offload": "parameters", **two},
        {"name": "recomputed", "zero": 3, "checkpointing": True, **two},
        {"name": "adapters3", "stage": "lora", "zero": 3, **two},
        {"name": "adapters2", "stage": "lora", "zero": 2, "checkpointing": True, **two},
        {"name": "rounded2", "zero": 2, "bf16": True, **two},
    )
    assert done.returncode == 0, done.stderr[-4000:]
    for name in ("zero0", "zero1", "zero2", "offloaded", "far", "recomputed"):
        assert_equal_runs(tmp_path, "one", name)
    for name in ("adapters3", "adapters2"):
        assert_equal_runs(tmp_path, "adapters", name)
        assert_equal_outputs(tmp_path, "adapters", name)
    first, second = figures(tmp_path / "rounded")[0], figures(tmp_path / "rounded2")[0]
    assert second["mask"] == pytest.approx(first["mask"], rel=0.02)
