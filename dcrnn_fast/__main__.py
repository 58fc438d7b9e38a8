"""``python -m dcrnn_fast``: the command ``info`` without any extra, and all commands of ``dcrnn-fast``."""

import sys


def main() -> None:
    """Print the info page, or hand over to the command line."""
    if sys.argv[1:] == ["info"]:
        from .info import render

        sys.stdout.write(render() + "\n")
    else:
        from .cli import main as command_line

        command_line()


if __name__ == "__main__":
    main()
