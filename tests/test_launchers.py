"""The launchers, with stubs in the place of Slurm, torchrun and Python: what they pass on, and how they end."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

LAUNCHERS = Path(__file__).parents[1] / "train/launchers"
SAY = 'echo "$(basename "$0") $* ${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-}" >> "$SAID"'
UNTIL_TOLD = "trap 'sleep 0.2; echo saved >> \"$SAID\"; exit 143' TERM; while true; do sleep 0.05; done"


@pytest.fixture
def stubs(tmp_path):
    """Writes commands that note how they were called, and starts a launcher among them."""
    (tmp_path / "bin").mkdir()

    def start(launcher, *args, commands, **variables):
        for name, body in commands.items():
            path = tmp_path / "bin" / name
            path.write_text(f"#!/usr/bin/env bash\n{SAY}\n{body}\n")
            path.chmod(0o755)
        found = {"PATH": f"{tmp_path / 'bin'}:{os.environ['PATH']}", "SAID": str(tmp_path / "said"), **variables}
        kept = {k: v for k, v in os.environ.items() if k != "TORCH_ELASTIC_SHUTDOWN_TIMEOUT"}
        return subprocess.Popen(["bash", LAUNCHERS / launcher, *args], env=kept | found)

    return start


def said(folder: Path) -> list[str]:
    path = folder / "said"
    return [" ".join(line.split()) for line in path.read_text().splitlines()] if path.exists() else []


def wait_for(folder: Path, word: str) -> None:
    end = time.monotonic() + 20
    while not any(line.startswith(word) for line in said(folder)):
        assert time.monotonic() < end, f"no {word} in {said(folder)}"
        time.sleep(0.02)


def test_one_gpu_is_one_process_and_four_are_given_four_minutes_to_save(stubs, tmp_path):
    assert stubs("node.sh", "c.yaml", "plan.seed=1", commands={"python": ""}, GPUS="1").wait() == 0
    assert stubs("node.sh", "c.yaml", "plan.seed=1", commands={"torchrun": ""}, GPUS="4").wait() == 0
    assert said(tmp_path) == [
        "python -m train c.yaml plan.seed=1 plan.zero=0",
        "torchrun --standalone --nproc_per_node 4 -m train c.yaml plan.seed=1 240",
    ]


def test_the_recipe_runs_its_three_stages_in_order_until_one_fails(stubs, tmp_path):
    fails = 'case "$*" in *2_rvos*) exit 3;; esac'
    assert stubs("recipe.sh", "nano", "DATA", "x=1", commands={"python": ""}, GPUS="1").wait() == 0
    run = [Path(line.split()[3]) for line in said(tmp_path)]
    assert [path.stem for path in run] == ["1_image", "2_rvos", "3_instrack"]
    assert all(path.is_file() and path.parent.name == "nano" for path in run)
    assert all(line.endswith("data.root=DATA x=1 plan.zero=0") for line in said(tmp_path))
    assert stubs("recipe.sh", "nano", "DATA", commands={"python": fails}, GPUS="1").wait() == 3
    assert len(said(tmp_path)) == 3 + 2


def test_a_recipe_told_to_end_lets_its_stage_save_and_begins_no_other(stubs, tmp_path):
    recipe = stubs("recipe.sh", "7b", "DATA", commands={"torchrun": UNTIL_TOLD}, GPUS="8")
    wait_for(tmp_path, "torchrun")
    time.sleep(0.2)  # until the stub listens
    recipe.send_signal(signal.SIGTERM)
    assert recipe.wait(20) == 143
    assert [line.split()[0] for line in said(tmp_path)] == ["torchrun", "saved"]


SLURM = {
    "SLURM_JOB_NODELIST": "n[1-2]",
    "SLURM_NNODES": "2",
    "SLURM_GPUS_ON_NODE": "8",
    "SLURM_JOB_ID": "7",
}


def test_a_job_whose_time_is_up_saves_and_goes_back_into_the_queue(stubs, tmp_path):
    """Slurm signals the script, the script has the step signalled, waits for it, and asks for another turn."""
    step = 'while ! grep -q ^scancel "$SAID"; do sleep 0.05; done; sleep 0.2; echo saved >> "$SAID"; exit 1'
    commands = {"srun": step, "scancel": "", "scontrol": "echo n1; echo n2"}
    job = stubs("slurm.sbatch", "c.yaml", commands=commands, **SLURM)
    wait_for(tmp_path, "srun")
    job.send_signal(signal.SIGTERM)
    assert job.wait(20) == 0
    assert said(tmp_path)[1] == (
        "srun --kill-on-bad-exit=1 torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_id 7 "
        "--rdzv_endpoint n1:29500 -m train c.yaml 240"
    )
    assert said(tmp_path)[2:] == ["scancel --signal=TERM 7.0 240", "saved", "scontrol requeue 7 240"]


def test_a_job_that_fails_by_itself_is_not_put_back(stubs, tmp_path):
    job = stubs("slurm.sbatch", "c.yaml", commands={"srun": "exit 1", "scontrol": "echo n1"}, **SLURM)
    assert job.wait(20) == 1
    assert not any("requeue" in line for line in said(tmp_path))


def test_torchrun_is_told_to_wait_less_long_than_slurm_does():
    lines = (LAUNCHERS / "slurm.sbatch").read_text().splitlines()
    notice = next(int(line.split("@")[1]) for line in lines if "B:TERM@" in line)
    assert next(int(line.split("=")[1]) for line in lines if "SHUTDOWN_TIMEOUT=" in line) == notice - 60
