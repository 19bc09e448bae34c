"""``python -m data_tools VERB``: makes, checks and shows data."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from data_tools import build_instrack, check, nanotrack, rephrase, synthtrack, view
from trackgpt import ending
from trackgpt.files import refuse_existing_file

app = typer.Typer(
    help="Make, check and show data. Example: python -m data_tools view -o sheet.png",
    no_args_is_help=True,
    add_completion=False,
    context_settings=ending.HELP,
    pretty_exceptions_enable=False,
)
app.command("make")(synthtrack.command)
app.command("check")(check.command)
app.command("view")(view.command)
app.command("build-instrack")(build_instrack.command)
app.command("rephrase")(rephrase.command)
app.command("nanotrack")(nanotrack.command)


@app.command("atlas")
def atlas(
    font: Annotated[Path, typer.Argument(help="NotoColorEmoji.ttf")],
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder for atlas.png and atlas.json")],
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace these two files")] = False,
) -> None:
    """Build the sprite atlas of SynthTrack from a colour emoji font."""
    from data_tools.atlas import build_atlas

    for name in ("atlas.png", "atlas.json"):
        refuse_existing_file(out / name, overwrite, [font])
    print(f"atlas={build_atlas(font, out)}")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a verb (see `trackgpt.ending`)."""
    ending.run("data_tools", lambda: app(args=arguments, prog_name="python -m data_tools", standalone_mode=False))


if __name__ == "__main__":
    main()
