"""`python -m eval KIT ...`: run a kit, or a benchmark of speed."""

from __future__ import annotations

import typer

from eval.commands import synthtrack

app = typer.Typer(
    help="Evaluate trackers. Example: python -m eval synthtrack --model nano --videos 20", no_args_is_help=True
)
app.command("synthtrack")(synthtrack.command)


@app.callback()
def _root() -> None:
    """Evaluation kits."""


if __name__ == "__main__":
    app()
