"""What happens at each limit: a reply or a clean close, and nobody else notices."""
import contextlib
import select
import socket
import time

import pytest

import harness
from harness import TIMEOUT, wire

MESSAGE = b"Subject: small\n\nhello\n"
TOO_MANY = b"-ERR [SYS/TEMP] too many connections"


def connect(p, source=None):
    """From another address of this host."""
    c = harness.Client.__new__(harness.Client)
    c.socket = socket.create_connection(("127.0.0.1", p.port), TIMEOUT, source_address=(source, 0) if source else None)
    c.buffer = b""
    c.banner = c.line()
    return c


def turned_away(p, source=None):
    with connect(p, source) as c:
        assert c.banner.startswith(TOO_MANY), c.banner
        assert c.eof()


def until_served(p, source=None):
    """The listener learns by a signal that a process has ended: a moment may pass."""
    for _ in range(200):
        c = connect(p, source)
        if c.banner.startswith(b"+OK"):
            return c
        c.close()
        harness.wait_pid(p.daemon("pop3d").pid, 0.02)
    pytest.fail("never served again")


def test_max_connections(make_postern):
    p = make_postern(conf={"pop3d": {"max-connections": 3, "max-per-address": 100}})
    p.user("u", "mbox", [MESSAGE])
    p.start()
    held = [connect(p, "127.0.0.%d" % (i + 1)) for i in range(3)]
    assert all(c.banner.startswith(b"+OK") for c in held)
    for source in ("127.0.0.1", "127.0.0.9"):
        turned_away(p, source)
    p.daemon("pop3d").wait_line("event=refused", "reason=max-connections", r"remote=127\.0\.0\.9")
    held[0].login("u")      # those who are in do not notice
    assert held[0].retr(1) == wire(MESSAGE)
    assert held.pop().quit().startswith(b"+OK")
    with until_served(p, "127.0.0.9") as c:
        c.ok(b"CAPA")
        c.rows()
    for c in held:
        c.close()


def test_max_per_address(make_postern):
    p = make_postern(conf={"pop3d": {"max-per-address": 2}})
    p.start()
    held = [connect(p, "127.0.0.1"), connect(p, "127.0.0.1")]
    turned_away(p, "127.0.0.1")
    p.daemon("pop3d").wait_line("event=refused", "reason=max-per-address", r"remote=127\.0\.0\.1")
    with connect(p, "127.0.0.2") as c:
        assert c.banner.startswith(b"+OK")
    held.pop().close()
    until_served(p, "127.0.0.1").close()
    held.pop().close()


def test_login_timeout_of_one_who_is_silent(make_postern):
    p = make_postern(conf={"pop3d": {"login-timeout": 1}})
    p.start()
    with p.connect() as c:
        assert c.eof()
    p.daemon("pop3d").wait_line("event=session", "end=timeout")


def drip(c, data, every=0.1, most=100):
    """An octet at a time, until the server hangs up. How many octets it took."""
    for i in range(most):
        try:
            if select.select([c.socket], [], [], every)[0] and not c.socket.recv(65536):
                return i
            c.send(data[i % len(data):][:1])
        except OSError:     # or it had hung up with an octet unread
            return i
    pytest.fail("still open after %d octets" % most)


def test_login_timeout_of_one_who_drips(make_postern):
    """The time is for all of it, not for each octet."""
    p = make_postern(conf={"pop3d": {"login-timeout": 1}})
    p.start()
    with p.connect() as c:
        drip(c, b"USER aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa")
    p.daemon("pop3d").wait_line("event=session", "end=timeout")


def test_login_timeout_of_one_who_talks(make_postern):
    """Nor for each command."""
    p = make_postern(conf={"pop3d": {"login-timeout": 1}})
    p.start()
    with p.connect() as c:
        drip(c, b"CAPA\r\n", every=0.02, most=1000)
    p.daemon("pop3d").wait_line("event=session", "end=timeout")


def test_idle_timeout_of_one_who_drips(make_postern):
    p = make_postern(conf={"pop3d": {"idle-timeout": 1}})
    p.user("u", "mbox", [MESSAGE])
    p.start()
    with p.connect("u") as c:
        c.ok(b"DELE 1")
        drip(c, b"NOOP" + b" " * 200)
    p.daemon("pop3d").wait_line("event=session", "end=timeout")
    with p.connect("u") as c:   # no UPDATE, and the maildrop is free
        assert c.stat()[0] == 1


def test_idle_timeout_begins_anew_with_each_command(make_postern):
    p = make_postern(conf={"pop3d": {"idle-timeout": 1}})
    p.user("u", "mbox", [MESSAGE])
    p.start()
    with p.connect("u") as c:
        for _ in range(5):
            assert not select.select([c.socket], [], [], 0.4)[0]
            c.ok(b"NOOP")
        assert c.quit().startswith(b"+OK")


def memory_of(pid, what="VmRSS"):
    """In octets, by a name of /proc/PID/status."""
    return int(harness.status_of(pid)[what].split()[0]) * 1024


def test_one_who_never_reads(make_postern, store):
    """Its session ends by itself; meanwhile others are served, and no memory is filled for it."""
    p = make_postern(conf={"pop3d": {"idle-timeout": 20 if harness.WRAP or harness.SANITIZED else 3}})     # the others need less
    big = b"Subject: big\n\n" + b"0123456789abcdef" * 64 * 1024 * 12
    p.user("slow", store, [big])
    p.user("u", store, [MESSAGE])
    p.start()
    with p.connect("slow") as slow:
        pid = [x for x, name in harness.children(p.daemon("pop3d").pid) if name == "pop3d"][0]
        least = memory_of(pid)
        slow.send(b"RETR 1\r\n" * 50)
        slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        with p.connect("u") as c:
            assert c.retr(1) == wire(MESSAGE)
            assert c.quit().startswith(b"+OK")
        assert memory_of(pid) < least + (16 << 20)
        p.daemon("pop3d").wait_line("event=session", "end=timeout", "user=slow")
        assert harness.wait_pid(pid)
    with p.connect("slow") as c:
        assert c.stat()[0] == 1


def test_one_who_is_silent(make_postern, store):
    """What a session takes to fetch large messages quickly it gives back once its client is silent."""
    p = make_postern()
    big = b"Subject: big\n\n" + b"0123456789abcde\n" * 64 * 1024
    p.user("u", store, [big] * 4)
    p.start()
    with p.connect("u") as c:
        pid = [x for x, name in harness.children(p.daemon("pop3d").pid) if name == "pop3d"][0]
        for n in (1, 2, 3):
            least = memory_of(pid, "RssAnon")
            assert c.retr(n) == wire(big)
            until = time.monotonic() + TIMEOUT
            while memory_of(pid, "RssAnon") > least + (160 << 10):
                assert time.monotonic() < until
                assert not select.select([c.socket], [], [], 0.02)[0]
        assert c.retr(4) == wire(big)


def test_one_who_takes_little(make_postern, store):
    """It takes some of its mail all the time, and too little: as if the connection had dropped, after what idle-timeout allows."""
    p = make_postern(conf={"pop3d": {"idle-timeout": 1, "minimum-rate": 1000000}})
    p.user("slow", store, [b"Subject: big\n\n" + b"0123456789abcde\n" * 1024 * 1024 * 2, MESSAGE])
    p.start("spoold", "authd")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        slow = harness.Client(*listener.getsockname())
        there, _ = listener.accept()
    # With buffers of megabytes nothing can be sent for seconds, and that is idle-timeout's.
    there.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
    slow.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
    session = harness.Watched("pop3d", p.argv("pop3d"), stdin=there, stdout=there, **p.popen_as())
    there.close()
    with slow:
        assert slow.line().startswith(b"+OK")
        slow.login("slow")
        slow.ok(b"DELE 2")
        slow.ok(b"RETR 1")
        for _ in range(1000):
            if harness.wait_pid(session.pid, 0.02):
                break
            assert slow.socket.recv(8192)
        else:
            pytest.fail("it may take a little for ever")
        session.wait_line("event=session", "end=timeout", "user=slow")
        with pytest.raises(AssertionError, match="ended in a multi-line answer"), contextlib.suppress(ConnectionResetError):
            slow.body()
            pytest.fail("half a message, and its end")
    assert session.stop() == 0
    session.close()
    p.start("pop3d")
    with p.connect("slow") as c:    # no UPDATE, and the maildrop is free
        assert c.stat()[0] == 2


def test_pipelined_input_is_bounded(make_postern):
    """Commands without end, and nothing read: what is not taken waits with the client."""
    p = make_postern(conf={"pop3d": {"login-timeout": 2}})
    p.start()
    with p.connect() as c:
        pid = [x for x, name in harness.children(p.daemon("pop3d").pid) if name == "pop3d"][0]
        least = memory_of(pid)
        c.socket.settimeout(0.3)
        sent = 0
        try:
            while sent < 64 << 20:
                sent += c.socket.send(b"CAPA\r\n" * 10000)
        except (TimeoutError, socket.timeout):
            assert memory_of(pid) < least + (16 << 20)
        except OSError:
            pass
        assert sent < 64 << 20
        p.daemon("pop3d").wait_line("event=session", "end=(timeout|client-gone)")


@pytest.mark.unwrapped("valgrind does not let a process have more descriptors than it was started with")
def test_descriptors_are_enough(make_postern):
    """With the soft limit of 1,024 that shells and systemd give, more connections than that are no trouble."""
    import resource
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 256:
        pytest.skip("the hard limit is %d" % hard)
    p = make_postern(conf={"pop3d": {"max-per-address": 1000}})
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
    try:
        p.start()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    held = [p.connect() for _ in range(100)]
    try:
        assert all(c.banner.startswith(b"+OK") for c in held)
        for c in held:
            c.ok(b"USER u")
            assert c.err(b"PASS x").startswith(b"-ERR [AUTH]")
    finally:
        for c in held:
            c.close()
