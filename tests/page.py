"""What a page shows, block by block: code, files, commands, and what they print."""

import re
import shlex
import subprocess
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Block(NamedTuple):
    """`kind` is the language of a fenced block, or "commands" of lines that are indented by four spaces and start with a word."""

    kind: str
    text: str


def blocks(page):
    """The blocks of a page of docs/, in order. A command that ends with a backslash goes on in the next line."""
    found = []
    for kind, fenced, indented in re.findall(
        r"^```(\w+)\n(.*?)^```$|^((?: {4}\S[^\n]*\n(?: {5,}\S[^\n]*\n)*)+)",
        (ROOT / "docs" / page).read_text(encoding="utf-8"),
        flags=re.MULTILINE | re.DOTALL,
    ):
        found.append(Block(kind, fenced) if kind else Block("commands", re.sub(r"\\\n *", "", indented).replace("    ", "")))
    return found


def as_pattern(shown):
    """What a page shows as a regular expression for whole lines, whose spaces at the end count for nothing.

    `...` stands for any text in its line; alone in a line, for any lines.
    """
    lines = [".*" if line == "..." else r"[^\n]*".join(map(re.escape, line.split("..."))) for line in shown.strip("\n").split("\n")]
    return "^" + r" *\n".join(lines) + " *$"


class Reader:
    """Does in the working directory what a page says. `command` runs a command of dcrnn-fast: the fixture; `capsys` is pytest's."""

    def __init__(self, command, capsys):
        self._command, self._capsys = command, capsys
        self.printed = ""
        """By the last code, or by the last commands together; a file that a command wrote counts as printed."""

    def follow(self, block):
        """Run code, write a file that its first line names, run commands, or find in what was printed before what the page shows."""
        if block.kind == "python":
            exec(block.text, {})
            self.printed = self._capsys.readouterr().out
        elif block.kind == "yaml":
            Path(re.match(r"# (\S+\.yaml)\n", block.text)[1]).write_text(block.text, encoding="utf-8")
        elif block.kind == "commands":
            self.printed = "".join(map(self._run, block.text.splitlines()))
        else:
            assert block.kind == "text", block
            found = re.search(as_pattern(block.text), self.printed, flags=re.DOTALL | re.MULTILINE)
            assert found, f"the page shows\n{block.text}\nand not\n{self.printed}"

    def _run(self, line):
        words, _, target = line.partition(" > ")
        name, *arguments = shlex.split(words)
        if name == "dcrnn-fast":
            code, out, err = self._command(*arguments)
            assert code == 0, f"{line}\n{err}"
        else:
            out, err = subprocess.run(words, shell=True, check=True, capture_output=True, text=True).stdout, ""
        if target:
            Path(target).write_text(out, encoding="utf-8")
        return err + out
