"""Runs the command line inside the test's process, as a person would: arguments in; exit code, stdout, stderr out."""

from dataclasses import dataclass

import pytest


@dataclass(frozen=True)
class Done:
    """What came of a command."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The last line of stdout."""
        return self.out.splitlines()[-1]

    def values(self) -> dict[str, str]:
        """The `key=value` pairs of the last line of stdout."""
        return dict(pair.split("=", 1) for pair in self.last.split(" "))


def command_of(capsys, monkeypatch, main=None):
    """A function that runs `trackgpt ARGS...`, or another `main`; any exception but the exit itself fails the test."""

    def command(*arguments: object) -> Done:
        from trackgpt.app import cli

        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["trackgpt", *map(str, arguments)])
        with pytest.raises(SystemExit) as exit_:
            (main or cli.main)()
        said = capsys.readouterr()
        return Done(int(exit_.value.code or 0), said.out, said.err)

    return command
