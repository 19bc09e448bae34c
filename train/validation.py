"""J&F, calibration and rethink rate of the current model on a small validation set, during a run.

The same kits, files and scorer as `python -m eval`: a figure of the log means what it means there. Validation sets are
never test sets: SynthTrack's is of its train split, with seeds that no training sample has.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from eval.following import Following
from eval.kit import Kit, Row
from eval.runner import behaviour, with_diagnostics
from trackgpt.errors import UsageError
from trackgpt.systems.trackgpt import TrackGPT
from train.config import ValidationConfig

SYNTHTRACK_SEED = 777_777
"""Scenes 7,777,770,000 and on; training of seed s draws below (s + 1) * 100,000,000, so seeds to 76 never meet them."""
KEPT = ("spearman", "ece", "rethink_rate", "refusal_rate")


class Validation:
    """The hook of `train.loop.fit`: every process takes its share of the tasks."""

    def __init__(self, config: ValidationConfig, model: TrackGPT, rank: int = 0, processes: int = 1) -> None:
        self.kit, self.model = open_validation(config), model
        self.tasks = list(self.kit.tasks())[: config.tasks][rank::processes]

    def __call__(self, step: int) -> dict[str, float]:
        """Figures of the model, in percent but for calibration; J&F first."""
        rows: list[Row] = []
        tracker = self.model.tracker()
        for task in self.tasks:
            with TemporaryDirectory() as folder:
                following = Following(tracker)
                self.kit.run(task, following, Path(folder))
                records = {unit: record.as_json() for unit, record in following.records.items()}
                rows += with_diagnostics(self.kit.score(task, Path(folder)), records)
        if not rows:
            return {}
        behaved = behaviour(rows)
        return {**self.kit.summarise(rows), **{name: behaved[name] for name in KEPT if name in behaved}}


def open_validation(config: ValidationConfig) -> Kit:
    """The kit of a configuration.

    Raises:
        UsageError: there is no such kit, or the split is a test set.
    """
    from eval.commands.kits import KITS, open_kit
    from eval.kits.synthtrack import SynthTrack

    if config.split.startswith("test"):
        raise UsageError(f"validate.split: {config.split} is for the last measurement alone; choose train or valid")
    if config.kit == "synthtrack":
        return SynthTrack(SYNTHTRACK_SEED, config.tasks, config.split)
    kits = {name: kit for name, kit in KITS.items() if list(kit.own) == ["data", "split"]}
    if config.kit not in kits:
        raise UsageError(f"validate.kit: {config.kit!r} is none of synthtrack, {', '.join(kits)}")
    return open_kit(kits[config.kit].place, Path(config.data), config.split)
