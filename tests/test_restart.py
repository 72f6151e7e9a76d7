"""What a service manager does: each daemon started anew while a session runs, which finishes; and the watchdog is fed."""
import os
import select
import signal
import socket
import time

import pytest

import harness
from harness import TIMEOUT, wire

MESSAGES = [b"Subject: one\n\nfirst\n", b"Subject: two\n\nsecond\n"]


@pytest.fixture(params=["mbox", "maildir"])
def p(postern, request):
    postern.box = postern.user("u", request.param, MESSAGES)
    postern.user("v", "mbox", MESSAGES)
    return postern


def finish(c):
    """The session goes on as if nothing had been, and its UPDATE is carried out."""
    assert c.retr(2) == wire(MESSAGES[1])
    c.ok(b"DELE 1")
    assert c.quit().startswith(b"+OK")


def left(p, user):
    with p.connect(user) as c:
        rows = [c.retr(n) for n in c.list()]
        assert c.quit().startswith(b"+OK")
        return rows


def gone(daemon):
    """The process that was started has ended; what it left behind may go on."""
    return daemon.process.wait(TIMEOUT)


def test_spoold_makes_way(p):
    """With -r the process ends at once though a session runs; another spoold takes the place, and the old one's session has its UPDATE."""
    old = p.start_daemon("spoold", "-r")
    p.start("authd", "pop3d")
    with p.connect("u") as c:
        old.process.send_signal(signal.SIGUSR2)
        assert gone(old) == 0
        assert sorted(map(harness.process_name, old.session())) in (["spoold", "worker"], ["locker", "spoold", "worker"])
        p.start_daemon("spoold", "-r")
        with p.connect() as second:
            second.ok(b"USER u")
            assert second.err(b"PASS " + harness.PASSWORD.encode()).startswith(b"-ERR [IN-USE]")
        assert left(p, "v") == [wire(m) for m in MESSAGES]
        finish(c)
    assert left(p, "u") == [wire(MESSAGES[1])]
    assert not old.wait_gone(TIMEOUT), "it ends with its last session"


def test_spoold_makes_way_without_a_front(p):
    """Started by hand: it stays until its sessions are over, and its sockets are free meanwhile."""
    old = p.start_daemon("spoold")
    p.start("authd", "pop3d")
    with p.connect("u") as c:
        old.process.send_signal(signal.SIGUSR2)
        old.wait_line("making way")
        p.start_daemon("spoold")
        assert left(p, "v") == [wire(m) for m in MESSAGES]
        assert old.process.poll() is None
        finish(c)
    assert gone(old) == 0


def test_spoold_stops_with_a_front(p):
    """SIGTERM goes through the front, and all of it ends; so does SIGHUP."""
    spoold = p.start_daemon("spoold", "-r")
    p.start("authd", "pop3d")
    spoold.process.send_signal(signal.SIGHUP)
    spoold.wait_line("event=reload")
    assert left(p, "u") == [wire(m) for m in MESSAGES]
    assert spoold.stop() == 0
    p.start_daemon("spoold", "-r")
    assert left(p, "u") == [wire(m) for m in MESSAGES]


def test_spoold_whose_front_is_killed(p):
    """The parent makes way, so that a service manager can start another."""
    old = p.start_daemon("spoold", "-r")
    p.start("authd", "pop3d")
    with p.connect("u") as c:
        old.process.kill()
        old.wait_line("making way")
        p.start_daemon("spoold", "-r")
        assert left(p, "v") == [wire(m) for m in MESSAGES]
        finish(c)
    assert not old.wait_gone(TIMEOUT)


@pytest.mark.unwrapped("what waits for a daemon that is started anew does not wait as long as valgrind takes to start one")
def test_a_login_while_spoold_is_restarted(p):
    """It waits, whether spoold is away when it comes or goes before it has answered."""
    p.start()
    old = p.daemons["spoold"].pop()
    with p.connect() as early, p.connect() as late:
        early.ok(b"USER u")
        late.ok(b"USER v")
        os.kill(old.pid, signal.SIGSTOP)
        early.send(b"PASS " + harness.PASSWORD.encode() + b"\r\n")
        old.kill()
        late.send(b"PASS " + harness.PASSWORD.encode() + b"\r\n")
        p.daemon("authd").wait_line("spoold cannot be reached")
        p.start("spoold")
        for c in (early, late):
            assert c.line().startswith(b"+OK")
            finish(c)
    old.close()
    assert p.daemon("authd").log().count("spoold cannot be reached") == 1


def test_spoold_that_hangs(p):
    """The watchdog's SIGABRT to the front ends a parent that does not turn its loop any more; the next start finds the place free."""
    old = p.start_daemon("spoold", "-r")
    children = [pid for pid in old.session() if pid != old.pid]
    assert len(children) == 1
    os.kill(children[0], signal.SIGSTOP)
    old.process.send_signal(signal.SIGABRT)
    assert gone(old) == 1
    assert not old.wait_gone(TIMEOUT)
    p.start_daemon("spoold", "-r")


def test_pop3d_goes_at_once(p):
    """SIGUSR2: the socket is the service manager's and stays open, sessions go on, the next pop3d serves who comes meanwhile."""
    p.start("spoold", "authd")
    with socket.create_server(("127.0.0.1", 0)) as s:
        p.port = s.getsockname()[1]
        old = p.start_daemon("pop3d", stdin=s)
        with p.connect("u") as c:
            old.process.send_signal(signal.SIGUSR2)
            assert gone(old) == 0
            waiting = harness.Client("127.0.0.1", p.port)
            p.start_daemon("pop3d", stdin=s)
            assert waiting.line().startswith(b"+OK")
            waiting.close()
            assert left(p, "v") == [wire(m) for m in MESSAGES]
            finish(c)
        assert left(p, "u") == [wire(MESSAGES[1])]
        assert not old.wait_gone(TIMEOUT), "the session's process, too"


def test_authd_is_restarted(p):
    """Sessions do not need it any more; who was connected and not logged in is told to try again, and can."""
    p.start()
    with p.connect("u") as c, p.connect() as early:
        p.stop_daemon("authd")
        p.start("authd")
        early.ok(b"USER v")
        assert early.err(b"PASS " + harness.PASSWORD.encode()).startswith(b"-ERR [SYS/TEMP]")
        assert left(p, "v") == [wire(m) for m in MESSAGES]
        finish(c)


def told(daemon, word):
    """Waits until the daemon has told its service manager that."""
    until = time.monotonic() + TIMEOUT
    while select.select([daemon.notify], [], [], max(0, until - time.monotonic()))[0]:
        if word in daemon.notify.recv(4096):
            return
    raise harness.Failed("%s never said %r\n%s" % (daemon.name, word, daemon.log()))


@pytest.mark.parametrize("name, more", [("spoold", []), ("spoold", ["-r"]), ("authd", []), ("pop3d", ["-l", "127.0.0.1:0"])])
def test_watchdog_is_fed(postern, name, more):
    """Again and again, in the cell, and not only at the start."""
    path = str(postern.dir / "manager")
    env = {"WATCHDOG_USEC": "300000"}
    if name == "pop3d":
        notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        notify.bind(path)
        os.chmod(path, 0o777)
        daemon = postern.start_daemon(name, *more, env={**env, "NOTIFY_SOCKET": path})
        daemon.notify = notify
    else:
        daemon = postern.start_daemon(name, *more, env=env)
    for _ in range(3):
        told(daemon, b"WATCHDOG=1")
    assert postern.stop_daemon(name) == 0


def test_watchdog_of_another_process_is_let_alone(postern):
    daemon = postern.start_daemon("spoold", env={"WATCHDOG_USEC": "20000", "WATCHDOG_PID": "1"})
    postern.stop_daemon("spoold")
    daemon.notify.setblocking(False)
    said = b""
    while select.select([daemon.notify], [], [], 0)[0]:
        said += daemon.notify.recv(4096)
    assert b"STOPPING=1" in said and b"WATCHDOG" not in said
