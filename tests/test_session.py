"""What happens around a session: mail that arrives, other sessions, clients that vanish, and what UPDATE leaves."""
import os
import threading

import pytest

import harness
from harness import as_disk, mbox, on_disk, wire

MESSAGES = [b"Subject: %d\n\nmessage %d\n" % (i, i) for i in range(1, 6)]


@pytest.fixture
def p(postern):
    return postern


def deliver(p, store, path, message, number):
    """As a delivery agent does: appended under its lock, or made in tmp and renamed into new."""
    if store == "mbox":
        import fcntl
        with open(path, "ab") as f:
            fcntl.lockf(f, fcntl.LOCK_EX)
            f.write(mbox([message]))
    else:
        name = "%010d.M1P9.host" % (1100000000 + number)
        (path / "tmp" / name).write_bytes(message)
        p.own(path / "tmp" / name)
        os.rename(path / "tmp" / name, path / "new" / name)


def test_fetch_leaves(p, store):
    path = p.user("u", store, MESSAGES)
    p.start()
    for _ in range(3):
        with p.connect("u") as c:
            for n, m in enumerate(MESSAGES, 1):
                assert c.retr(n) == wire(m)
            assert c.quit().startswith(b"+OK")
    assert on_disk(store, path) == as_disk(store, MESSAGES)


@pytest.mark.parametrize("which", [[1], [5], [3], [1, 3, 5], [2, 4], [1, 2, 3, 4], [4, 5], [1, 2, 3, 4, 5]])
def test_delete(p, store, which):
    path = p.user("u", store, MESSAGES)
    p.start()
    with p.connect("u") as c:
        uids = c.uidl()
        for n in which:
            c.ok(b"DELE %d" % n)
        assert c.quit().startswith(b"+OK")
    left = [m for n, m in enumerate(MESSAGES, 1) if n not in which]
    assert on_disk(store, path) == as_disk(store, left)
    with p.connect("u") as c:
        assert list(c.uidl().values()) == [u for n, u in uids.items() if n not in which]
        assert [c.retr(n) for n in range(1, len(left) + 1)] == [wire(m) for m in left]
        assert c.quit().startswith(b"+OK")


@pytest.mark.parametrize("how", ["close", "half-close", "reset", "in the middle of a line", "in the middle of RETR", "RSET"])
def test_without_quit_nothing_is_deleted(p, store, how):
    big = b"Subject: big\n\n" + b"0123456789\n" * 800000
    path = p.user("u", store, MESSAGES + [big])
    p.start()
    mark = p.daemon("pop3d").mark()
    c = p.connect("u")
    c.ok(b"DELE 1")
    c.ok(b"DELE 3")
    if how == "half-close":
        c.socket.shutdown(1)
        while c.line():
            pass
    elif how == "reset":
        c.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")     # SO_LINGER, 0 seconds
    elif how == "in the middle of a line":
        c.send(b"QUIT")
    elif how == "in the middle of RETR":
        c.send(b"RETR 6\r\nQUIT\r\n"[:8])
        c.line()
        c.socket.recv(100)
    elif how == "RSET":
        c.ok(b"RSET")
        c.ok(b"QUIT")
    c.close()
    p.daemon("pop3d").wait_line("event=session", start=mark)
    assert on_disk(store, path) == as_disk(store, MESSAGES + [big])
    with p.connect() as c:              # the maildrop is free again, at once or almost
        assert login_when_free(c, "u")
        assert c.stat()[0] == 6
        assert c.quit().startswith(b"+OK")


def login_when_free(c, user):
    """A worker that has not yet seen that its client is gone may have the lock for a moment more."""
    for _ in range(200):
        c.ok(b"USER " + user.encode())
        row = c.cmd(b"PASS " + harness.PASSWORD.encode())
        if not row.startswith(b"-ERR [IN-USE]"):
            return row.startswith(b"+OK")
    return False


def test_quit_then_gone_still_updates(p, store):
    """Once QUIT has been read the UPDATE happens, whether the client waits for the answer or not."""
    path = p.user("u", store, MESSAGES)
    p.start()
    mark = p.daemon("pop3d").mark()
    c = p.connect("u")
    c.send(b"DELE 1\r\nDELE 2\r\nQUIT\r\n")
    c.socket.shutdown(1)
    c.close()
    p.daemon("pop3d").wait_line("event=session", start=mark)
    assert on_disk(store, path) == as_disk(store, MESSAGES[2:])


def test_large_mbox_again_at_once(p):
    """What is remembered of a large mailbox is written after QUIT's answer: who comes at once waits for that, and it is true."""
    messages = [b"Subject: %d\n\n" % n + (b"%063d\n" % n) * 16384 for n in range(6)]
    path = p.user("u", "mbox", messages)
    p.start()
    for left in range(6, 2, -1):
        with p.connect("u") as c:
            assert c.stat()[0] == left
            assert c.cmd(b"LIST 1") == b"+OK 1 %d" % len(wire(messages[-left]))
            c.ok(b"DELE 1")
            assert c.quit().startswith(b"+OK")
            assert path.read_bytes() == mbox(messages[-left + 1:])


def test_mail_that_arrives_meanwhile(p, store):
    """It is not seen in this session, survives its UPDATE, and is there in the next."""
    path = p.user("u", store, MESSAGES)
    p.start()
    late = [b"Subject: late %d\n\nlate\n" % i for i in range(3)]
    with p.connect("u") as c:
        assert c.stat()[0] == 5
        deliver(p, store, path, late[0], 0)
        assert c.stat()[0] == 5
        for n, m in enumerate(MESSAGES, 1):
            assert c.retr(n) == wire(m)
        c.err(b"RETR 6")
        deliver(p, store, path, late[1], 1)
        for n in (1, 2, 4):
            c.ok(b"DELE %d" % n)
        deliver(p, store, path, late[2], 2)
        assert c.quit().startswith(b"+OK")
    want = [MESSAGES[2], MESSAGES[4]] + late
    assert on_disk(store, path) == as_disk(store, want)
    with p.connect("u") as c:
        assert [c.retr(n) for n in range(1, 6)] == [wire(m) for m in want]
        for n in range(1, 6):
            c.ok(b"DELE %d" % n)
        assert c.quit().startswith(b"+OK")
    assert on_disk(store, path) == as_disk(store, [])


def test_deliveries_and_sessions_at_once(p, store):
    """Numbered messages arrive while sessions fetch and delete: each is fetched once, none is left, none is mangled."""
    path = p.user("u", store, [])
    p.start()
    count, got = 300, []
    done = threading.Event()

    def arrive():
        for i in range(count):
            deliver(p, store, path, b"Subject: number %d\n\n%s\n" % (i, b"x" * (i * 7)), i)
        done.set()
    agent = threading.Thread(target=arrive)
    agent.start()
    while True:
        last = done.is_set()
        with p.connect("u") as c:
            n = c.stat()[0]
            for i in range(1, n + 1):
                got.append(c.retr(i))
                c.ok(b"DELE %d" % i)
            assert c.quit().startswith(b"+OK")
        if last:
            break
    agent.join()
    assert sorted(got) == sorted(wire(b"Subject: number %d\n\n%s\n" % (i, b"x" * (i * 7))) for i in range(count))
    assert on_disk(store, path) == as_disk(store, [])


def test_in_use(p, store):
    p.user("u", store, MESSAGES)
    p.start()
    with p.connect("u") as first:
        with p.connect() as second:
            second.ok(b"USER u")
            row = second.err(b"PASS " + harness.PASSWORD.encode())
            assert row.startswith(b"-ERR [IN-USE]")
            assert b"since" in row
            second.ok(b"CAPA")
            second.rows()
            assert first.stat()[0] == 5
            assert first.quit().startswith(b"+OK")
            second.login("u")          # the same connection may try again
            assert second.stat()[0] == 5
            assert second.quit().startswith(b"+OK")


def test_in_use_is_per_maildrop(p, store):
    """Two names for one maildrop exclude each other, also through a symbolic link."""
    path = p.user("u", store, MESSAGES)
    p.add("alias", "%s:%s" % (store, path))
    p.start()
    with p.connect("u") as c:
        with p.connect() as second:
            second.ok(b"USER alias")
            assert second.err(b"PASS " + harness.PASSWORD.encode()).startswith(b"-ERR [IN-USE]")
        assert c.quit().startswith(b"+OK")


def test_in_use_between_two_spoolds(make_postern, store):
    a, b = make_postern(), make_postern()
    path = a.user("u", store, MESSAGES)
    b.add("u", "%s:%s" % (store, path))
    a.start()
    b.start()
    with a.connect("u") as c:
        with b.connect() as second:
            second.ok(b"USER u")
            assert second.err(b"PASS " + harness.PASSWORD.encode()).startswith(b"-ERR [IN-USE]")
            assert c.retr(1) == wire(MESSAGES[0])
            c.ok(b"DELE 1")
            assert c.quit().startswith(b"+OK")
            second.login("u")
            assert second.stat()[0] == 4
            assert second.quit().startswith(b"+OK")


def test_lock_dies_with_its_holder(p, store):
    p.user("u", store, MESSAGES)
    p.start()
    mark = p.daemon("spoold").mark()
    with p.connect("u") as c:
        c.ok(b"DELE 1")
        workers = [pid for pid, _ in harness.children(p.daemon("spoold").pid)]
        # whatever else spoold keeps, the one that holds the session is gone after this
        for pid in workers:
            os.kill(pid, 9)
            assert harness.wait_pid(pid)
        c.send(b"NOOP\r\nQUIT\r\n")
        rows = []
        while (row := c.line()):
            rows.append(row)
        assert not any(r.startswith(b"+OK goodbye") for r in rows), "an UPDATE that nobody did"
    with p.connect("u") as c:
        assert c.stat()[0] == 5
        assert c.quit().startswith(b"+OK")
    assert mark is not None


def test_many_sessions_at_once(p, store):
    users = ["u%d" % i for i in range(12)]
    for i, u in enumerate(users):
        p.user(u, store, [b"Subject: %d\n\nof %s\n" % (n, u.encode()) for n in range(3)])
    p.start()
    sessions = [p.connect(u) for u in users]
    for u, c in zip(users, sessions):
        assert c.retr(2) == b"Subject: 1\r\n\r\nof %s\r\n" % u.encode()
    for c in sessions:
        assert c.quit().startswith(b"+OK")


def test_sessions_survive_the_listener(p, store):
    """SIGTERM to pop3d's listener: nobody new, but who is there ends in peace."""
    p.user("u", store, MESSAGES)
    p.start()
    with p.connect("u") as c:
        mark = p.daemon("pop3d").mark()
        p.daemon("pop3d").process.send_signal(15)
        p.daemon("pop3d").wait_line("event=stopping", start=mark)
        assert c.retr(1) == wire(MESSAGES[0])
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    assert p.stop_daemon("pop3d") == 0


def test_limits_of_connections(make_postern):
    p = make_postern(conf={"pop3d": {"max-per-address": 3, "prefork": 1}})
    p.user("u", "mbox", MESSAGES)
    p.start()
    held = [p.connect() for _ in range(3)]
    with p.connect() as c:
        assert c.banner.startswith(b"-ERR") and c.eof()
    mark = p.daemon("pop3d").mark()
    assert held.pop().quit().startswith(b"+OK")
    p.daemon("pop3d").wait_line("event=session", start=mark)
    for _ in range(100):        # the listener learns of its end a moment later
        with p.connect() as c:
            if c.banner.startswith(b"+OK"):
                break
    else:
        pytest.fail("a place that was free is not given")
    for c in held:
        c.close()


def test_more_at_once_than_wait(make_postern):
    """Whoever comes when no process waits any more gets one that is forked for him, and has nothing of the others; when it is calm again, as many wait as before."""
    p = make_postern(conf={"pop3d": {"prefork": 1}})
    p.start()
    pop3d = p.daemon("pop3d")

    def until(wanted):
        for _ in range(3000):
            if wanted([name for _, name in harness.children(pop3d.pid)]):
                return
            harness.wait_pid(pop3d.pid, 0.01)
        pytest.fail("not as many wait as are to")

    until(lambda names: names == ["pop3d-idle"])
    held = [p.connect() for _ in range(12)]
    for c in held:
        c.err(b"STAT")
    served = [pid for pid, name in harness.children(pop3d.pid) if name == "pop3d"]
    assert len(served) == 12
    if os.geteuid() == 0:
        sockets = [{at for fd in os.listdir("/proc/%d/fd" % pid) if (at := os.readlink("/proc/%d/fd/%s" % (pid, fd))).startswith("socket:")} for pid in served]
        assert all(1 < len(own) <= 3 for own in sockets)    # its client, the verifier, and the listener of one that waited
        assert len(set.union(*sockets)) == sum(map(len, sockets))
    until(lambda names: sorted(names) == ["pop3d"] * 12 + ["pop3d-idle"])
    for c in held:
        assert c.quit().startswith(b"+OK")
    until(lambda names: names == ["pop3d-idle"])


def test_login_timeout(make_postern):
    """A minute before login means all of it: a client that drips is let go as well."""
    p = make_postern(conf={"pop3d": {"login-timeout": 1}})
    p.start()
    with p.connect() as c:
        assert c.eof() or c.buffer == b""
    with p.connect() as c:
        gone = False
        for _ in range(60):
            import select
            try:
                c.send(b"X")
            except ConnectionError:
                gone = True
                break
            if select.select([c.socket], [], [], 0.1)[0]:
                gone = True
                break
        assert gone


def test_idle_timeout(make_postern, store):
    p = make_postern(conf={"pop3d": {"idle-timeout": 1}})
    path = p.user("u", store, MESSAGES)
    p.start()
    with p.connect("u") as c:
        c.ok(b"DELE 1")
        rest = b""
        while (row := c.line()):
            rest += row
        assert b"+OK" not in rest
    assert on_disk(store, path) == as_disk(store, MESSAGES), "RFC 1939: no UPDATE after a timeout"


def test_reload(p, store):
    p.user("u", store, MESSAGES)
    p.start()
    with p.connect("u") as c:
        for name in ("spoold", "authd", "pop3d"):
            mark = p.daemon(name).mark()
            p.daemon(name).process.send_signal(1)
            p.daemon(name).wait_line("reload", start=mark)
        assert c.retr(1) == wire(MESSAGES[0])
        assert c.quit().startswith(b"+OK")
    with p.connect("u") as c:
        assert c.stat()[0] == 5
        assert c.quit().startswith(b"+OK")
    p.add("later", "%s:%s" % ("mbox", p.mbox("later", MESSAGES)))
    with p.connect("later") as c:       # a new user needs no reload
        assert c.stat()[0] == 5
        assert c.quit().startswith(b"+OK")
