"""A worker that lingers for its user's next session: it is used again, sees what has changed, and is nobody else's; whatever
becomes of it, the user notices nothing."""
import os
import pathlib
import re
import shutil
import signal
import subprocess

import pytest

import harness
from harness import wire

MESSAGES = [b"Subject: one\n\nfirst\n", b"Subject: two\n\nsecond\n"]


@pytest.fixture(params=["mbox", "maildir"])
def p(postern, request):
    postern.store = request.param
    postern.box = postern.user("u", request.param, MESSAGES)
    return postern


def workers(p):
    return [pid for pid, name in harness.children(p.daemon("spoold").pid) if name == "worker"]


def poll(p, user="u", **more):
    """A session that only looks; how many messages it saw."""
    with p.connect(user, **more) as c:
        count = c.stat()[0]
        assert c.quit().startswith(b"+OK")
        return count


def all_of(p, user="u"):
    with p.connect(user) as c:
        rows = [c.retr(n) for n in c.list()]
        assert c.quit().startswith(b"+OK")
        return rows


def idle_worker(p, user="u"):
    """Polls, and returns the one worker that lingers after that."""
    poll(p, user)
    (pid,) = workers(p)
    return pid


def deliver(p, number):
    message = b"Subject: new %d\n\nbody\n" % number
    if p.store == "mbox":
        with open(p.box, "ab") as f:
            f.write(harness.mbox([message]))
    else:
        path = p.box / "tmp" / ("20000%05d.M1P1.host" % number)
        path.write_bytes(message)
        p.own(path)
        path.rename(p.box / "new" / path.name)
    return wire(message)


def test_one_worker_for_all_polls(p):
    p.start()
    pid, opened = idle_worker(p), set()
    for _ in range(5):
        logged = p.daemon("spoold").mark()
        with p.connect("u") as c:
            assert workers(p) == [pid]
            assert c.stat()[0] == 2
            assert c.quit().startswith(b"+OK")
        opened.add(re.search(r"s=(\w+)", p.daemon("spoold").wait_line("event=open", start=logged))[1])
    assert workers(p) == [pid]
    assert len(opened) == 5


def test_it_sees_every_change(p):
    """However soon after the last look: nothing that is remembered is ever shown for what is there."""
    p.start()
    pid = idle_worker(p)
    for n in range(20):
        deliver(p, n)
        assert poll(p) == 3 + n
    assert workers(p) == [pid]
    assert all_of(p)[-1] == wire(b"Subject: new 19\n\nbody\n")
    if p.store == "mbox":       # the same length, at once
        poll(p)
        for text in (b"SECOND", b"second", b"sEcOnD"):
            whole = p.box.read_bytes()
            with open(p.box, "r+b") as f:
                f.seek(whole.lower().index(b"second"))
                f.write(text)
            poll(p)
            assert all_of(p)[1] == wire(b"Subject: two\n\n" + text + b"\n")


def test_it_deletes(p):
    """A session of one that lingered is a whole session; that one ends with its worker."""
    p.start()
    pid = idle_worker(p)
    with p.connect("u") as c:
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    assert harness.wait_pid(pid)
    assert all_of(p) == [wire(MESSAGES[1])]


def test_nobody_elses(p):
    p.user("v", p.store, MESSAGES[:1])
    p.start()
    pid = idle_worker(p)
    assert poll(p, "v") == 1
    assert len(workers(p)) == 2
    with p.connect("v") as c:
        assert len(workers(p)) == 2, "the one of v again"
        assert c.stat()[0] == 1
        assert c.quit().startswith(b"+OK")
    assert pid in workers(p)


def test_killed_while_it_waits(p):
    p.start()
    pid = idle_worker(p)
    os.kill(pid, signal.SIGKILL)
    assert poll(p) == 2
    assert harness.wait_pid(pid)
    assert workers(p) != [pid]


def test_killed_with_a_session_on_its_way(p):
    """It was handed the session and dies before it takes it: another one serves that."""
    p.start()
    pid = idle_worker(p)
    os.kill(pid, signal.SIGSTOP)
    mark = p.daemon("authd").mark()
    with p.connect() as c:
        c.send(b"USER u\r\nPASS %s\r\n" % harness.PASSWORD.encode())
        p.daemon("authd").wait_line("event=login", "result=ok", start=mark)
        os.kill(pid, signal.SIGKILL)
        assert c.reply().startswith(b"+OK") and c.reply().startswith(b"+OK")
        assert c.stat()[0] == 2
        assert workers(p) and pid not in workers(p)
        assert c.quit().startswith(b"+OK")


def test_another_maildrop_at_its_path(p):
    """What is opened is what lies there now, not what the worker had."""
    p.start()
    idle_worker(p)
    old = p.box.rename(p.mail / "old")
    getattr(p, p.store)("u", MESSAGES[:1])
    assert all_of(p) == [wire(MESSAGES[0])]
    poll(p)
    shutil.rmtree(p.box) if p.store == "maildir" else p.box.unlink()
    assert poll(p) == 0, "nothing is there"
    old.rename(p.box)
    assert poll(p) == 2


def test_another_maildrop_in_the_store(p):
    p.start()
    pid = idle_worker(p)
    box = p.maildir("elsewhere", MESSAGES[:1])
    p.authctl("del", "u")
    p.add("u", "maildir:%s" % box)
    assert poll(p) == 1
    assert harness.wait_pid(pid)


def test_ends_at_reload_and_stop(p):
    p.start()
    pid = idle_worker(p)
    p.daemon("spoold").process.send_signal(signal.SIGHUP)
    assert harness.wait_pid(pid)
    pid = idle_worker(p)
    assert p.stop_daemon("spoold") == 0
    assert harness.wait_pid(pid)


def test_ends_with_a_killed_parent(p):
    p.start()
    pid = idle_worker(p)
    p.daemon("spoold").process.kill()
    assert harness.wait_pid(pid)


@pytest.mark.parametrize("keys", [{"linger": 0}, {"linger-workers": 0}], ids=str)
def test_off(make_postern, keys):
    p = make_postern(conf={"spoold": keys})
    p.user("u", "mbox", MESSAGES)
    p.start()
    assert poll(p) == 2
    for pid in workers(p):
        assert harness.wait_pid(pid)


def test_not_too_many(make_postern):
    """The one that has waited longest goes."""
    p = make_postern(conf={"spoold": {"linger-workers": 2}})
    users = ["a", "b", "c"]
    for user in users:
        p.user(user, "mbox", MESSAGES)
    p.start()
    first = idle_worker(p, "a")
    poll(p, "b")
    poll(p, "c")
    assert harness.wait_pid(first)
    assert len(workers(p)) == 2


@pytest.mark.parametrize("takeover", ["no", "yes"])
def test_exclusive(make_postern, takeover):
    """A session of one that lingered keeps others out, is listed, and can be ended, as every session."""
    p = make_postern(conf={"spoold": {"takeover": takeover}})
    p.user("u", "mbox", MESSAGES)
    p.start()
    pid = idle_worker(p)
    who = subprocess.run([str(x) for x in p.argv("spoolctl", "who")], capture_output=True, text=True, **p.popen_as()).stdout
    assert str(pid) not in who, "nobody is there"
    with p.connect("u") as c, p.connect() as second:
        who = subprocess.run([str(x) for x in p.argv("spoolctl", "who")], capture_output=True, text=True, **p.popen_as()).stdout
        assert str(pid) in who
        second.ok(b"USER u")
        answer = second.cmd(b"PASS " + harness.PASSWORD.encode())
        if takeover == "no":
            assert answer.startswith(b"-ERR [IN-USE]")
            assert c.retr(1) == wire(MESSAGES[0])
        else:
            assert answer.startswith(b"+OK")
            assert harness.wait_pid(pid)
            assert second.stat()[0] == 2


def test_read_only_password(postern):
    """What one session may not, the next may, and the other way round."""
    postern.user("u", "mbox", MESSAGES)
    app = postern.authctl("app", "add", "u", "phone", "--no-delete").stdout.decode().split()[-1]
    postern.passwords.add(app)
    postern.start()
    idle_worker(postern)
    with postern.connect("u", password=app) as c:
        c.err(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    with postern.connect("u") as c:
        c.ok(b"DELE 1")
        c.ok(b"RSET")
        assert c.quit().startswith(b"+OK")
    with postern.connect("u", password=app) as c:
        c.err(b"DELE 1")
        assert c.quit().startswith(b"+OK")


@pytest.mark.skipif(not harness.IS_ROOT, reason="looks into a process of another user")
@pytest.mark.confined
@pytest.mark.parametrize("store", ["mbox", "maildir"])
def test_confined_and_empty(make_postern, stage, store):
    """It has its user's uid and its filter all the while, and nothing open but logs, the socket to its parent and that to its locker, which has that alone."""
    p = make_postern(stage=stage)
    uid = stage.USERS["alice"]
    path = getattr(p, store)("alice", MESSAGES, uid=uid)
    p.mail.chmod(0o755)
    os.chown(p.mail, uid, uid)
    p.add("alice", "%s:%s" % (store, path), uid=uid)
    p.start()
    pid = idle_worker(p, "alice")
    status = harness.status_of(pid)
    assert harness.identity(pid)[0] == [uid] * 4
    assert status["Seccomp"] == "2" and status["NoNewPrivs"] == "1"
    lockers = harness.children(pid)
    assert [name for _, name in lockers] == (["locker"] if store == "mbox" else [])
    for _ in range(1000):       # the answer to QUIT comes before it closes what the answer went through
        open_now = [os.readlink(x) for x in pathlib.Path("/proc/%d/fd" % pid).iterdir() if int(x.name) > 2]
        if sum(x.startswith("socket:") for x in open_now) == 1 + len(lockers):
            break
        assert not harness.wait_pid(pid, 0.01), "it does not linger"
    left = [x for x in open_now if not x.startswith("socket:") and "catalogue" not in x]
    assert not left, left
    assert sum(x.startswith("socket:") for x in open_now) == 1 + len(lockers), open_now
    for locker, _ in lockers:
        assert harness.identity(locker)[0] == [uid] * 4
        assert harness.status_of(locker)["Seccomp"] == "2"
        left = [os.readlink(x) for x in pathlib.Path("/proc/%d/fd" % locker).iterdir() if int(x.name) > 2]
        assert len(left) == 1 and left[0].startswith("socket:"), left
    with p.connect("alice") as c:
        assert workers(p) == [pid]
        assert c.retr(2) == wire(MESSAGES[1])
        assert c.quit().startswith(b"+OK")
