"""What ``make release-check`` finds in a version, a tag and a source distribution."""

import pytest

from scripts.checks.release import content_faults, version_faults

DATED = "# Changelog\n\n## 0.2.0, 2026-12-01\n\n## 0.1.0, 2026-01-01\n"
UNDATED = "# Changelog\n\n## 0.2.0, unreleased\n"
TRACKED = ["README.md", "csrc/ops.cpp", ".github/workflows/ci.yml"]


@pytest.mark.parametrize(("changelog", "tags"), [(DATED, ["v0.2.0"]), (DATED, []), (UNDATED, []), (UNDATED, ["a-note"])])
def test_a_version_that_agrees_with_changelog_and_tag_has_no_fault(changelog, tags):
    assert list(version_faults("0.2.0", changelog, tags)) == []


@pytest.mark.parametrize(
    ("version", "changelog", "tags", "said"),
    [
        ("0.3.0", DATED, [], "pyproject.toml has version 0.3.0, and the changelog begins with 0.2.0"),
        ("0.2.0", "# Changelog\n", [], "pyproject.toml has version 0.2.0, and the changelog begins with none"),
        ("0.2.0", DATED, ["v0.2.1"], "the commit has the tag v0.2.1, expected v0.2.0"),
        ("0.2.0", UNDATED, ["v0.2.0"], "the commit has the tag v0.2.0, and the changelog says 'unreleased' in place of a date"),
    ],
)
def test_a_version_that_differs_is_a_fault(version, changelog, tags, said):
    assert list(version_faults(version, changelog, tags)) == [said]


def test_a_source_distribution_of_all_tracked_files_has_no_fault():
    assert list(content_faults(["README.md", "csrc/ops.cpp", "PKG-INFO", "dcrnn_fast.egg-info/SOURCES.txt"], TRACKED)) == []


def test_a_missing_and_a_foreign_file_are_faults():
    assert list(content_faults(["README.md", "secret.txt"], TRACKED)) == [
        "the source distribution lacks csrc/ops.cpp",
        "the source distribution holds secret.txt, which the repository lacks",
    ]
