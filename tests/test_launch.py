"""Launched for real: by tcpserver, inetd and systemd's socket activation, nowait and wait; -l; and what it refuses."""
import os
import re
import shutil
import signal
import socket
import subprocess
import time

import pytest

import harness
from harness import wire

MESSAGES = [b"Subject: one\n\nfirst\n", b"Subject: two\n\nsecond\n"]


def free_port():
    """A port that was free a moment ago, for launchers that cannot be asked which they took."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture
def p(postern):
    postern.user("u", "mbox", MESSAGES)
    postern.start("spoold", "authd")
    return postern


def connect(port, process, pattern=None):
    """Connects as soon as the launcher listens: its log says so, or the kernel's table does."""
    if pattern:
        process.wait_line(pattern)
    for _ in range(2000):
        try:
            c = harness.Client("127.0.0.1", port)
            c.banner = c.line()
            return c
        except ConnectionRefusedError:
            if process.process.poll() is not None:
                raise harness.Failed("%s ended\n%s" % (process.name, process.log()))
            # nothing tells when it listens; its own start is what takes the time
            harness.wait_pid(process.pid, 0.01)
    raise harness.Failed("%s does not listen\n%s" % (process.name, process.log()))


def sessions(p, port, process, pattern=None):
    """Several one after the other and two at once, with a deletion at the end."""
    for _ in range(3):
        with connect(port, process, pattern) as c:
            assert c.banner.startswith(b"+OK")
            c.login("u")
            assert [c.retr(1), c.retr(2)] == [wire(m) for m in MESSAGES]
            assert c.quit().startswith(b"+OK")
    with connect(port, process) as a, connect(port, process) as b:
        a.login("u")
        b.ok(b"USER u")
        assert b.err(b"PASS " + harness.PASSWORD.encode()).startswith(b"-ERR [IN-USE]")
        a.ok(b"DELE 1")
        assert a.quit().startswith(b"+OK")
        b.login("u")
        assert b.stat()[0] == 1
        assert b.quit().startswith(b"+OK")


class launched:
    """A launcher for the time of a with statement. What it started must end as well."""

    def __init__(self, p, name, argv, stop=signal.SIGTERM, **how):
        self.w = harness.Watched(name, argv, **{**p.popen_as(), "cwd": "/", **how})      # which any user may enter
        self.stop = stop

    def __enter__(self):
        return self.w

    def __exit__(self, kind, value, trace):
        print(self.w.log())
        started = {pid for pid, _ in harness.children(self.w.pid)}     # inetd's have a session of their own
        for pid in started.union(self.w.session()):
            try:
                os.kill(pid, self.stop)
            except ProcessLookupError:
                pass
        left = self.w.wait_gone(25) or [pid for pid in started if not harness.wait_pid(pid, 25)]
        self.w.kill()
        self.w.close()
        assert not left or kind is not None, "still there after the launcher was stopped: %s" % left


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
@pytest.mark.parametrize("how", ["fetches", "takes long"])
def test_short_sessions_stay_on_a_processor(make_postern, how):
    """What is forked at need stays where it is; what moves mail, or takes long, runs wherever the listener may."""
    p = make_postern(conf={"pop3d": {"prefork": 0}})
    p.user("u", "mbox", MESSAGES)
    p.start()
    listener = p.daemon("pop3d").pid
    everywhere = os.sched_getaffinity(listener)
    with p.connect() as c:
        [(pid, _)] = harness.children(listener)
        assert len(os.sched_getaffinity(pid)) == 1
        if how == "fetches":
            c.login("u")
            assert c.retr(1) == wire(MESSAGES[0])
            assert os.sched_getaffinity(pid) == everywhere
        until = time.monotonic() + harness.TIMEOUT
        while os.sched_getaffinity(pid) != everywhere:
            assert time.monotonic() < until
            c.ok(b"CAPA")
            c.body()


def test_tcpserver(p):
    port = free_port()
    with launched(p, "tcpserver", ["tcpserver", "-HRv", "-l", "0", "127.0.0.1", port, *p.argv("pop3d")]) as w:
        sessions(p, port, w)


def inetds():
    found = [name for name in ("inetd", "xinetd") if shutil.which(name, path="/usr/sbin:/sbin:" + os.environ["PATH"])]
    return found or ["inetd"]


def inetd_conf(p, name, port, wait, user):
    path = p.dir / "inetd.conf"
    program = " ".join(str(a) for a in p.argv("pop3d")[1:])
    if name == "inetd":
        path.write_text("127.0.0.1:%d stream tcp %s %s %s pop3d %s\n" % (port, "wait" if wait else "nowait", user, p.bin / "pop3d", program))
    else:
        path.write_text("""service pop3
{
    type = UNLISTED
    bind = 127.0.0.1
    port = %d
    socket_type = stream
    protocol = tcp
    wait = %s
    user = %s
    server = %s
    server_args = %s
    log_type = FILE /dev/stderr
}
""" % (port, "yes" if wait else "no", user, p.bin / "pop3d", program))
    return path


@pytest.mark.root
@pytest.mark.parametrize("wait", [False, True], ids=["nowait", "wait"])
@pytest.mark.parametrize("name", inetds())
def test_inetd(make_postern, stage, name, wait):
    p = make_postern(stage=stage)
    p.add("u", "mbox:%s" % p.mbox("u", MESSAGES, uid=stage.USERS["alice"]), uid=stage.USERS["alice"])
    p.start("spoold", "authd")
    port = free_port()
    conf = inetd_conf(p, name, port, wait, "_postern")
    argv = ["inetd", "-d", conf] if name == "inetd" else ["xinetd", "-dontfork", "-f", conf, "-pidfile", p.dir / "xinetd.pid"]
    with launched(p, name, stage.argv([shutil.which(argv[0], path="/usr/sbin:/sbin:" + os.environ["PATH"]), *argv[1:]])) as w:
        sessions(p, port, w)
        uids = {harness.identity(pid)[0][0] for pid in w.session() if harness.process_name(pid).startswith("pop3d")}
        assert uids <= {stage.USERS["_postern"]}


@pytest.mark.parametrize("accept", [True, False], ids=["accept=yes", "accept=no"])
def test_systemd_socket_activate(p, accept):
    port = free_port()
    argv = ["systemd-socket-activate", "-l", "127.0.0.1:%d" % port, *(["-a"] if accept else []), *p.argv("pop3d")]
    with launched(p, "systemd-socket-activate", argv) as w:
        sessions(p, port, w)


def test_systemd_socket_activate_inetd(p):
    """Accept=yes with StandardInput=socket: descriptors 0 and 1."""
    port = free_port()
    argv = ["systemd-socket-activate", "-l", "127.0.0.1:%d" % port, "-a", "--inetd", *p.argv("pop3d")]
    with launched(p, "systemd-socket-activate", argv) as w:
        sessions(p, port, w)


def test_inetd_nowait_log_never_reaches_the_client(p):
    """inetd gives the connection as standard error too."""
    here, there = socket.socketpair()
    here.settimeout(harness.TIMEOUT)
    process = subprocess.Popen([str(a) for a in p.argv("pop3d")], stdin=there, stdout=there, stderr=there, **p.popen_as())
    there.close()
    here.sendall(b"USER u\r\nPASS wrong\r\nFOO\r\nQUIT\r\n")
    data = b""
    while True:
        more = here.recv(65536)
        if not more:
            break
        data += more
    process.wait(harness.TIMEOUT)
    here.close()
    rows = data.split(b"\r\n")
    assert rows.pop() == b"" and len(rows) == 5
    assert all(r.startswith((b"+OK", b"-ERR")) for r in rows), data


def test_nowait_with_pipes(p):
    """Descriptors 0 and 1 need not be a socket."""
    done = subprocess.run([str(a) for a in p.argv("pop3d")], input=b"USER u\r\nPASS " + harness.PASSWORD.encode() + b"\r\nRETR 1\r\nQUIT\r\n",
                          capture_output=True, timeout=30, **p.popen_as())
    assert harness.stuffed(wire(MESSAGES[0])) in done.stdout and done.stdout.count(b"+OK") == 5


def test_several_addresses(p):
    w = p.start_daemon("pop3d", "-l", "127.0.0.1:0", "-l", "127.0.0.2:0", "-l", "[::1]:0")
    for address in ("127.0.0.1", "127.0.0.2", "::1"):
        port = int(re.search(r"port=(\d+)", w.wait_line("event=listening", re.escape(address)))[1])
        with harness.Client(address, port) as c:
            assert c.line().startswith(b"+OK")
            c.login("u")
            assert c.quit().startswith(b"+OK")


def test_ready_is_told(p):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(str(p.dir / "notify"))
    (p.dir / "notify").chmod(0o777)
    s.settimeout(harness.TIMEOUT)
    p.start_daemon("pop3d", "-l", "127.0.0.1:0", env={"NOTIFY_SOCKET": str(p.dir / "notify")})
    assert b"READY=1" in s.recv(4096)
    p.stop_daemon("pop3d")
    s.close()


def run(p, *argv, **how):
    return subprocess.run([str(a) for a in argv], capture_output=True, timeout=30, stdin=subprocess.DEVNULL, **{**p.popen_as(), **how})


@pytest.mark.root
def test_refuses_root(postern):
    done = run(postern, *postern.argv("pop3d", "-l", "127.0.0.1:0"), user=0, group=0)
    assert done.returncode == 1 and b"root" in done.stderr


def test_port_taken(p):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        s.listen()
        port = s.getsockname()[1]
        done = run(p, *p.argv("pop3d", "-l", "127.0.0.1:%d" % port))
    assert done.returncode == 1 and b"in use" in done.stderr and b"%d" % port in done.stderr


@pytest.mark.parametrize("where", ["", "127.0.0.1", "127.0.0.1:", ":x", "localhost:110", "127.0.0.1:65536", "127.0.0.1:-1", "::1:110",
                                   "1.2.3.4.5:1", "[::1]", "127.0.0.1:0x10"])
def test_bad_addresses(postern, where):
    done = run(postern, *postern.argv("pop3d", "-l", where))
    assert done.returncode in (1, 2) and (b"accepted" in done.stderr or b"PORT" in done.stderr)


@pytest.mark.parametrize("name", harness.PROGRAMS)
def test_options(postern, name):
    program = postern.bin / name
    assert re.fullmatch(rb"postern \d+\.\d+\.\d+\n", run(postern, program, "-V").stdout)
    done = run(postern, program, "-h")
    assert done.returncode == 0 and done.stdout.startswith(b"usage: " + name.encode())
    done = run(postern, program, "-Z")
    assert done.returncode == 2 and b"usage: " + name.encode() in done.stderr
    done = run(postern, program, "-t", "-c", postern.file)
    assert done.returncode == 0 and b"ok" in done.stdout
    bad = postern.dir / "bad.conf"
    bad.write_text("[pop3d]\nprefork = lots\n")
    done = run(postern, program, "-t", "-c", bad)
    assert done.returncode == 1
    for word in (str(bad).encode() + b":2:", b"[pop3d] prefork", b"a number from 0 to 1000"):
        assert word in done.stderr
    done = run(postern, program, "-t", "-c", "/nonexistent.conf")
    assert done.returncode == 1 and b"/nonexistent.conf" in done.stderr


@pytest.mark.parametrize("name", harness.PROGRAMS)
def test_words_that_nobody_takes(postern, name):
    """A file without its -c would leave the default to be checked, and called ok."""
    program, other = postern.bin / name, postern.dir / "other.conf"
    other.write_text("[pop3d]\nprefork = lots\n")
    for argv in (["-t", other], [other, "-t"], ["-t", "-c", postern.file, other]) + ((["-c", postern.file, other],) if name[-1] == "d" else ()):
        done = run(postern, program, *argv)
        assert (done.returncode, done.stdout) == (2, b""), argv
        assert done.stderr.startswith(str(other).encode() + b": ") and b"named with -c" in done.stderr and b"usage: " + name.encode() in done.stderr


def test_descriptors_closed_at_start(p):
    """Started with 0, 1 and 2 closed, no descriptor of its own may land there."""
    done = run(p, "/bin/sh", "-c", 'exec "$0" -c "$1" <&- >&- 2>&-', p.bin / "pop3d", p.file)
    assert done.returncode >= 0, "killed by a signal"
