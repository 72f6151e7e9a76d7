"""authctl at its edges: what it prints that cannot be printed, odd passwords and names, somebody else's store, signals."""
import json
import os
import subprocess

import pytest

import harness
from harness import CHEAP, PASSWORD

MESSAGES = [b"Subject: one\n\n1\n"]
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full")


@pytest.fixture
def p(make_postern):
    """A Postern with the user u, nothing of it started."""
    p = make_postern({"authd": {"mechanisms": "SCRAM-SHA-256 PLAIN LOGIN USER"}})
    p.user("u", "maildir", MESSAGES)
    return p


def shell(p, redirections, program, *args):
    """A tool under a shell that opens and closes its descriptors."""
    argv = [str(x) for x in p.argv(program, *args)]
    return subprocess.run(["/bin/sh", "-c", 'exec "$@" ' + redirections, "sh", *argv], capture_output=True, timeout=harness.TIMEOUT,
                          **p.popen_as())


def files(p):
    """What there is of the store."""
    return {f.name: f.read_bytes() for f in p.dir.glob("*.db*")}


# standard descriptors

def test_no_file_takes_the_place_of_a_closed_descriptor(p):
    """An error text would be written into the store, which is the first file that is opened."""
    p.authctl("secret", "u")    # the key is there
    before = files(p)
    done = shell(p, ">&- 2>&- <&-", "authctl", "app", "add", "u", "phone")
    assert done.returncode == 1 and files(p) == before
    assert shell(p, ">&- 2>&- <&-", "authctl", "app", "del", "u", "none").returncode == 1 and files(p) == before
    assert shell(p, ">&- 2>&- <&-", "authctl", "lock", "u").returncode == 0
    assert json.loads(p.authctl("list", "--json").stdout)[0]["locked"]
    done = shell(p, ">&-", "authctl", "list")
    assert done.returncode == 1 and b"cannot write" in done.stderr


@pytest.mark.root
def test_the_store_is_no_standard_error(make_postern, stage):
    """Without an account for authd authctl has something to say while the store is open."""
    p = make_postern({"authd": {"user": "no-such-account"}}, stage=stage)
    p.add("x")
    argv = [str(x) for x in p.argv("authctl", "app", "add", "x", "phone")]
    done = subprocess.run(stage.argv(["/bin/sh", "-c", '"$@" >&- 2>&-', "sh", *argv]), timeout=harness.TIMEOUT)
    assert b"account" not in (p.dir / "users.db").read_bytes() and done.returncode == 1
    assert json.loads(p.authctl("list", "--json").stdout)[0]["apps"] == 0


@FULL
@pytest.mark.parametrize("argv", [("list",), ("list", "--json"), ("app", "list", "u"), ("cert", "list", "u"), ("client-config", "u"), ("-V",), ("-h",),
                                  ("-t",)], ids=" ".join)
def test_what_cannot_be_written_is_no_success(p, argv):
    p.authctl("app", "add", "u", "phone")
    p.authctl("cert", "add", "u", "ab" * 32)
    done = shell(p, ">/dev/full", "authctl", *argv)
    assert done.returncode == 1 and done.stderr.count(b"cannot write") == 1 and b"No space left" in done.stderr


@FULL
def test_spoolctl_that_cannot_write_says_so(p):
    p.start("spoold", "authd")
    for argv in (("who", "--json"), ("show", "u", "--json"), ("metrics",), ("doctor",), ("recover",)):
        done = shell(p, ">/dev/full", "spoolctl", *argv)
        assert done.returncode == 1 and done.stderr.count(b"cannot write") == 1, argv
    assert shell(p, ">&- 2>&-", "spoolctl", "recover").returncode == 1


@FULL
def test_a_password_that_nobody_saw_is_not_in_force(p):
    """And takes no older one's place."""
    old = p.authctl("secret", "u").stdout
    before = files(p)
    for argv in (("secret", "u"), ("app", "add", "u", "phone")):
        done = shell(p, ">/dev/full", "authctl", *argv)
        assert done.returncode == 1 and b"nothing was changed" in done.stderr, argv
        assert files(p) == before
    assert p.authctl("secret", "u").stdout != old and files(p) != before
    assert len(p.authctl("app", "add", "u", "phone").stdout) == 35
