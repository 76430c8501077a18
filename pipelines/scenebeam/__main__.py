"""`python -m scenebeam`: the same as the `scenebeam` command."""

from scenebeam.cli.process import run_command

if __name__ == "__main__":
    run_command()
