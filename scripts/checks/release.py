"""Checks what a release needs beside its tests, and leaves its files in dist/. ``make release-check``, which first makes site and wheels.

The version is that of the changelog and of the tag, if the commit has one. The source distribution holds the files of the repository but
those that serve the repository alone, and no other. twine accepts it and this Python's wheel; the release workflow makes those of the
other Pythons and systems.
"""

from __future__ import annotations

import re
import sys
import tarfile
from collections.abc import Collection, Iterator
from pathlib import Path

from . import abi

LEFT_OUT = (".github/", ".ci/", ".gitignore", ".gitattributes", ".clang-format")
"""Files of the repository that serve no one who has no repository."""
MADE = ("PKG-INFO", "setup.cfg", "dcrnn_fast.egg-info/")
"""Files that setuptools adds to a source distribution."""


def version_faults(version: str, changelog: str, tags: Collection[str]) -> Iterator[str]:
    """In words, where the project's version, the first one of the changelog and the tags of the commit differ."""
    found = re.search(r"^## (\S+), (.+)$", changelog, flags=re.MULTILINE)
    if found is None or found[1] != version:
        yield f"pyproject.toml has version {version}, and the changelog begins with {found[1] if found else 'none'}"
    for tag in releases(tags):
        if tag != f"v{version}":
            yield f"the commit has the tag {tag}, expected v{version}"
        if found and not re.fullmatch(r"\d{4}-\d\d-\d\d", found[2]):
            yield f"the commit has the tag {tag}, and the changelog says {found[2]!r} in place of a date"


def releases(tags: Collection[str]) -> list[str]:
    """The tags that make a release."""
    return [tag for tag in tags if re.match(r"v\d", tag)]


def content_faults(held: Collection[str], tracked: Collection[str]) -> Iterator[str]:
    """In words, what a source distribution lacks, and what it should not hold."""
    wanted = {name for name in tracked if not name.startswith(LEFT_OUT)}
    if lacking := sorted(wanted - set(held)):
        yield f"the source distribution lacks {', '.join(lacking[:5])}{' and others' * (len(lacking) > 5)}"
    if foreign := sorted(name for name in held if name not in tracked and not name.startswith(MADE)):
        yield f"the source distribution holds {', '.join(foreign[:5])}{' and others' * (len(foreign) > 5)}, which the repository lacks"


def source_distribution(into: Path) -> Path:
    """Make it, in place of an earlier one."""
    into.mkdir(exist_ok=True)
    for old in into.glob("dcrnn_fast-*.tar.gz"):
        old.unlink()
    abi.run(sys.executable, "setup.py", "-q", "sdist", "--dist-dir", into, where=abi.ROOT)
    (made,) = into.glob("dcrnn_fast-*.tar.gz")
    return made


def main() -> None:
    """Exit with 0 if nothing is wrong."""
    root = abi.ROOT
    tracked, tags = (abi.run("git", *words, where=root).splitlines() for words in (["ls-files"], ["tag", "--points-at", "HEAD"]))
    made = source_distribution(root / "dist")
    version = made.name.removeprefix("dcrnn_fast-").removesuffix(".tar.gz")
    with tarfile.open(made) as archive:
        held = [member.name.partition("/")[2] for member in archive if member.isfile()]
    faults = [*version_faults(version, (root / "CHANGELOG.md").read_text(encoding="utf-8"), tags), *content_faults(held, tracked)]
    wheels = sorted((root / "dist").glob(f"dcrnn_fast-{version}-*.whl"))
    if not wheels:
        faults.append(f"dist/ has no wheel of version {version}: run make release-check")
    if faults:
        raise SystemExit("\n".join(f"release: {fault}" for fault in faults))
    tools = {"PYTHONPATH": str(root / "build" / "twine")}
    print(abi.run(sys.executable, "-m", "twine", "check", "--strict", made, *wheels, where=root, **tools).strip())
    print(f"release: {version} is ready but for {'the upload' if releases(tags) else 'its tag'}")


if __name__ == "__main__":
    main()
