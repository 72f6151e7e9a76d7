"""The demo, as a newcomer runs it."""
import os
import pathlib
import re
import signal
import socket
import subprocess

import pytest

import harness
from harness import REPO

PORT, TLS_PORT = 11110, 11995
pytestmark = pytest.mark.native("the demo writes a configuration of its own, with the sandbox in it")


def port_is_taken():
    for port in (PORT, TLS_PORT):
        with socket.socket() as s:
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                s.bind(("127.0.0.1", port))
            except OSError:
                return True
    return False


# The demo's ports are fixed, because manuals name them: where somebody's demo is running these tests step back.
free = pytest.mark.skipif(port_is_taken(), reason="something listens on 127.0.0.1:%d or %d" % (PORT, TLS_PORT))


def left():
    return sorted(pathlib.Path("/tmp").glob("postern-demo.*"))


def run(*argv, **how):
    return subprocess.run([REPO / "bootstrap", *argv], capture_output=True, text=True, timeout=120, stdin=subprocess.DEVNULL, **how)


@free
def test_check():
    before = left()
    done = run("demo", "--check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.replace("\r\n", "\n").count("\nSubject: Welcome to Postern\n") == 1
    assert re.findall(r"^bootstrap: curl .*\b(pop3s?):", done.stderr, re.M) == ["pop3", "pop3s"]
    assert left() == before and not port_is_taken()


@free
@pytest.mark.parametrize("sig", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_runs_until_it_is_stopped(sig):
    before = left()
    # a shell that runs the tests in the background has Ctrl-C ignored, and who inherits that can never heed it
    demo = harness.Watched("demo", [REPO / "bootstrap", "demo"], stdout=subprocess.PIPE, preexec_fn=lambda: signal.signal(sig, signal.SIG_DFL))
    shown = []
    for row in demo.process.stdout:
        shown.append(row.decode())
        if "event=certificates" in shown[-1]:
            break
    # authd warns of a certificate's end from 30 days on: it must not of the one that was made a moment ago
    assert int(re.search(r"event=certificate file=.* days=(\d+)", "".join(shown))[1]) > 30 and "renew it" not in "".join(shown)
    commands = [r.strip() for r in shown if r.strip().startswith("curl ")]
    assert ["pop3s:" in c for c in commands] == [False, True]
    for command in commands:
        got = subprocess.run(["sh", "-c", command + " -sS"], capture_output=True, timeout=60)
        assert got.returncode == 0 and b"Subject: Welcome" in got.stdout, got
    uids = {harness.process_name(p): harness.identity(p)[0][1] for p in demo.session()
            if harness.process_name(p).startswith(("pop3d", "authd", "spoold"))}
    assert len(uids) >= 3 and 0 not in uids.values(), uids
    # Ctrl-C is for the whole foreground group; the others are for the script
    if sig == signal.SIGINT:
        os.killpg(demo.pid, sig)
    else:
        os.kill(demo.pid, sig)
    demo.process.stdout.read()
    assert demo.process.wait(harness.TIMEOUT) == 128 + sig
    assert demo.wait_gone(10) == {}
    demo.process.stdout.close()
    demo.close()
    assert left() == before and not port_is_taken()


@free
@pytest.mark.parametrize("port", [PORT, TLS_PORT])
def test_port_taken(port):
    with socket.socket() as s:
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.bind(("127.0.0.1", port))
        s.listen()
        before = left()
        done = run("demo", "--check")
    assert done.returncode == 1 and re.search("port %d .* is taken" % port, done.stderr)
    assert left() == before
