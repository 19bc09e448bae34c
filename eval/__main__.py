"""`python -m eval KIT ...`: run a kit, draw a run's pictures, or measure speed."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from eval.commands import davis_text, figures, speed, synthtrack
from trackgpt.errors import TrackGPTError

app = typer.Typer(
    help="Evaluate trackers. Example: python -m eval synthtrack --model nano --videos 20",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.command("synthtrack")(synthtrack.command)
app.command("davis-text")(davis_text.command)
app.command("figures")(figures.command)
app.command("speed")(speed.command)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command; an error of the package is one line on stderr and its exit code."""
    try:
        app(args=arguments, prog_name="python -m eval")
    except TrackGPTError as error:
        print(f"eval: {error}", file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
