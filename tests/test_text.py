"""What is written about the suite agrees with it: the example configuration, the manual pages, the usage, the scripts."""
import pathlib
import re
import shutil
import subprocess

import pytest

import harness
from harness import REPO


def keys():
    """The rows of the table in lib/conf.c: (section, key, default, accepted)."""
    out = subprocess.run([harness.BUILD / "unit" / "conf", "keys"], capture_output=True, check=True, text=True).stdout
    return [tuple(row.split("\t")) for row in out.splitlines()]


def test_example_has_every_key_with_its_default():
    text = (REPO / "etc/postern.conf").read_text()
    found, section = [], None
    for row in text.splitlines():
        if m := re.fullmatch(r"\[(\w+)\]", row):
            section = m[1]
        elif m := re.fullmatch(r"#([a-z-]+) =(?: (.*))?", row):
            found.append((section, m[1], m[2] or ""))
        else:
            assert row == "" or row.startswith("# "), "neither a comment, a section nor a key with its default: %r" % row
    assert found == [k[:3] for k in keys()]


def test_example_is_accepted_with_all_keys_in_force(tmp_path):
    text = re.sub(r"(?m)^#([a-z-]+ =)", r"\1", (REPO / "etc/postern.conf").read_text())
    path = tmp_path / "postern.conf"
    path.write_text(text)
    done = subprocess.run([harness.BUILD / "pop3d", "-t", "-c", path], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_manual_has_every_key_with_its_default():
    text = (REPO / "lib/postern.conf.5").read_text()
    section, depth, found = None, 0, {}
    for row in text.splitlines():
        depth += row.startswith(".Bl ") - (row == ".El")      # a list in a list has values, not keys
        if m := re.fullmatch(r"\.Ss \[(\w+)\]", row):
            section = m[1]
        elif depth == 1 and (m := re.fullmatch(r"\.It Cm ([a-z-]+)(?: =(?: (.*))?)?", row)):
            found[section, m[1]] = (m[2] or "").replace('"', "")
    assert found == {(s, k): d for s, k, d, *_ in keys()}


def manuals():
    return sorted(p for d in ("lib", "pop3d", "authd", "spoold") for p in (REPO / d).glob("*.[1-8]"))


@pytest.mark.parametrize("path", manuals(), ids=lambda p: p.name)
def test_manual_pages_are_sound(path):
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", path], capture_output=True, text=True)
    complaints = [r for r in done.stdout.splitlines() if "STYLE" not in r and "referenced manual not found" not in r]
    assert complaints == []
    text = path.read_text()
    assert "\n.Sh NAME\n" in text and "\n.Sh DESCRIPTION\n" in text
    if path.suffix == ".8":
        assert "\n.Sh DIAGNOSTICS\n" in text and "\n.Sh SECURITY" in text


def test_every_program_has_a_manual_page():
    assert {"pop3d", "authd", "spoold", "authctl", "spoolctl"} <= {p.stem for p in manuals()}


@pytest.mark.parametrize("path", manuals(), ids=lambda p: p.name)
def test_manual_pages_name_only_pages_that_are(path):
    ours = {(p.stem, p.suffix[1:]) for p in manuals()}
    for name, section in re.findall(r"^\.Xr (\S+) (\d)", path.read_text(), re.M):
        if name.startswith("postern") or name in ("pop3d", "authd", "spoold", "authctl", "spoolctl"):
            assert (name, section) in ours, "%s(%s)" % (name, section)


def test_bootstrap_explains_itself():
    done = subprocess.run([REPO / "bootstrap", "help"], capture_output=True, text=True)
    assert done.returncode == 0 and "demo" in done.stdout and "check" in done.stdout
    for argv in ([], ["nonsense"], ["demo", "--nonsense"]):
        done = subprocess.run([REPO / "bootstrap", *argv], capture_output=True, text=True)
        assert done.returncode == 2 and "usage" in done.stderr
    subprocess.run(["sh", "-n", REPO / "bootstrap"], check=True)


def test_no_file_of_a_program_includes_another_programs():
    """Dependencies go from the programs to lib, never between them, and never back."""
    folders = {"pop3d", "authd", "spoold"}
    headers = {d: {p.name for p in (REPO / d).glob("*.h")} for d in folders | {"lib"}}
    for folder in folders | {"lib"}:
        for source in (REPO / folder).glob("*.[ch]"):
            for name in re.findall(r'^#include "(.*)"', source.read_text(), re.M):
                assert name in headers[folder] | headers["lib"] or name.startswith("../tests/"), "%s includes %s" % (source, name)


def test_readme_names_the_two_commands():
    text = (REPO / "README.md").read_text()
    assert "./bootstrap demo" in text and "./bootstrap check" in text
    for name in re.findall(r"\]\((?!http)([^)#]+)\)", text):
        assert (REPO / name).exists(), "README.md links to %s, which is not there" % name


def test_license():
    text = (REPO / "LICENSE").read_text()
    assert "ISC" in text or "Permission to use, copy, modify, and/or distribute" in text
    assert isinstance(REPO, pathlib.Path)
