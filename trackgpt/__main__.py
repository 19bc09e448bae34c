"""`python -m trackgpt` is the command `trackgpt`."""

from trackgpt.app.cli import main

if __name__ == "__main__":
    main()
