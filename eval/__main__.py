"""`python -m eval KIT ...`: run or score a benchmark, compare runs, check parity, or measure speed."""

from __future__ import annotations

from collections.abc import Sequence

import typer

from eval.commands import compare, corrections, describing, interaction, known_world, parity, rethinking
from eval.commands.kits import register
from eval.speed import bench as speed
from eval.speed import gpu_rows
from trackgpt import ending

app = typer.Typer(
    help="Evaluate trackers. Examples: python -m eval synthtrack --model nano --videos 20; "
    "python -m eval refer-davis17 --results their_masks --data ref-davis",
    no_args_is_help=True,
    add_completion=False,
    context_settings=ending.HELP,
    pretty_exceptions_enable=False,
)
register(app)
app.command("compare")(compare.command)
app.command("corrections")(corrections.command)
app.command("describing")(describing.command)
app.command("interaction")(interaction.command)
app.command("parity")(parity.command)
app.command("known-world")(known_world.command)
app.command("rethinking")(rethinking.command)
app.command("speed")(speed.command)
app.command("gpu-rows")(gpu_rows.command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command (see `trackgpt.ending`)."""
    ending.run("eval", lambda: app(args=arguments, prog_name="python -m eval", standalone_mode=False))


if __name__ == "__main__":
    main()
