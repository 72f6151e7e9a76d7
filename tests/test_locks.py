"""Locks that delivery agents take, and the session lock where flock is one of them."""
import calendar
import fcntl
import os
import re
import select
import time

import pytest

import harness
from harness import mbox

MESSAGES = [b"Subject: %d\n\nmessage %d\n" % (i, i) for i in range(1, 6)]
LATER = b"Subject: later\n\ndelivered meanwhile\n"

# the lock is fcntl's then (F_OFD_SETLKW), and the alarm must end the wait for it
NO_ALARM = pytest.mark.unwrapped("valgrind lets no signal through to a process that waits for such a lock")


@pytest.fixture
def flocked(make_postern):
    p = make_postern({"spoold": {"mbox-locks": "flock"}})
    p.path = p.user("u", "mbox", MESSAGES)
    return p.start()


def is_silent(c, seconds=0.4):
    return not select.select([c.socket], [], [], seconds)[0]


def test_flock_holds_off_each_other(flocked):
    p = flocked
    agent = os.open(p.path, os.O_RDWR | os.O_APPEND)
    fcntl.flock(agent, fcntl.LOCK_EX)
    with p.connect() as c:
        c.ok(b"USER u")
        c.send(b"PASS " + harness.PASSWORD.encode() + b"\r\n")
        assert is_silent(c), "a mailbox was scanned while it was delivered to"
        fcntl.flock(agent, fcntl.LOCK_UN)
        assert c.reply().startswith(b"+OK")
        # in a session delivery goes on
        fcntl.flock(agent, fcntl.LOCK_EX | fcntl.LOCK_NB)
        c.ok(b"DELE 1")
        c.send(b"QUIT\r\n")
        assert is_silent(c), "a mailbox was updated while it was delivered to"
        assert p.path.read_bytes() == mbox(MESSAGES)
        os.write(agent, mbox([LATER]))
        fcntl.flock(agent, fcntl.LOCK_UN)
        assert c.reply().startswith(b"+OK")
    os.close(agent)
    assert p.path.read_bytes() == mbox(MESSAGES[1:] + [LATER])


def test_flock_is_held_while_the_mailbox_changes(flocked):
    """The agent's lock waits until the UPDATE is whole."""
    p = flocked
    with p.connect("u") as c:
        for n in (1, 3):
            c.ok(b"DELE %d" % n)
        c.send(b"QUIT\r\n")
        with open(p.path, "ab") as f:
            fcntl.flock(f, fcntl.LOCK_EX)
            now = p.path.read_bytes()
            assert now in (mbox(MESSAGES), mbox([MESSAGES[1], MESSAGES[3], MESSAGES[4]]))
            f.write(mbox([LATER]))
        assert c.reply().startswith(b"+OK")
    assert p.path.read_bytes() == mbox([MESSAGES[1], MESSAGES[3], MESSAGES[4], LATER])


@NO_ALARM
def test_session_lock_beside_flock(flocked):
    """Then the session lock is a file: it ends with the session, also with a worker that was killed."""
    p = flocked
    file = p.mail / ".u.postern-lock"
    with p.connect("u") as c:
        assert file.exists()
        with p.connect() as second:
            second.ok(b"USER u")
            assert second.err(b"PASS " + harness.PASSWORD.encode()).startswith(b"-ERR [IN-USE]")
        assert c.quit().startswith(b"+OK")
    assert not file.exists()
    with p.connect("u") as c:
        for pid, name in harness.children(p.daemon("spoold").pid):
            os.kill(pid, 9)
            assert harness.wait_pid(pid)
        with p.connect("u") as again:
            assert again.stat()[0] == 5
            assert again.quit().startswith(b"+OK")
    p.stop_daemon("spoold")    # a recovery looks after what the killed one may have left: it may be at it with a lock of its own
    assert not file.exists()


@pytest.mark.parametrize("locks", ["fcntl dotlock", pytest.param("flock", marks=NO_ALARM)])
def test_since_when_another_spoold_has_it(make_postern, locks):
    a, b = (make_postern({"spoold": {"mbox-locks": locks}}) for _ in range(2))
    path = a.user("u", "mbox", MESSAGES)
    b.add("u", "mbox:%s" % path)
    a.start()
    b.start()
    before = int(time.time())
    with a.connect("u") as c, b.connect() as second:
        second.ok(b"USER u")
        row = second.err(b"PASS " + harness.PASSWORD.encode())
        when = re.search(rb"\[IN-USE\].* since (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d) UTC", row)
        assert when, row
        since = calendar.timegm(time.strptime(when[1].decode(), "%Y-%m-%d %H:%M:%S"))
        assert before - 2 <= since <= time.time() + 2
        assert c.quit().startswith(b"+OK")


def test_missing_for_an_instant(make_postern):
    """GNU mailutils renames the mbox away before the new one into its place, with the dotlock: that is no empty maildrop."""
    p = make_postern()
    path = p.user("u", "mbox", MESSAGES)
    lock, away = path.with_name(path.name + ".lock"), path.with_name("away")
    p.start()
    p.own(lock.parent)
    lock.touch()
    path.rename(away)
    with p.connect() as c:
        c.ok(b"USER u")
        c.send(b"PASS " + harness.PASSWORD.encode() + b"\r\n")
        assert is_silent(c), "an mbox that is being replaced was taken for an empty one"
        away.rename(path)
        lock.unlink()
        assert c.reply().startswith(b"+OK")
        assert c.stat()[0] == len(MESSAGES)
        c.ok(b"QUIT")
