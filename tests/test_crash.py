"""A worker killed before and after its system calls, from the receipt of UPDATE to its end: afterwards the maildrop is as it was or as
it was to be, plus what was delivered meanwhile, and it is never worse than what the client was told.

`make check` tries some of the calls; with CRASH_ALL=1 in the environment (`make crash`) all of them, with every deletion, with and without mail that
arrives between the crash and the next opening, and with spoold's parent killed in the same moment.
"""
import contextlib
import fcntl
import itertools
import os
import re
import select
import signal
import subprocess
import threading
import time

import pytest

import harness

ALL = "CRASH_ALL" in os.environ
HERE = harness.REPO / "tests" / "crash"
DELETIONS = {
    "first": [1],
    "middle": [4],
    "last": [8],
    "alternate": [1, 3, 5, 7],
    "all": [1, 2, 3, 4, 5, 6, 7, 8],
}
MESSAGES = [b"Subject: %d\n\n" % i + b"%d, a line of text\n" % i * (3 * i * i + 1) for i in (1, 1, 2, 3, 4, 9, 11, 5)]
NEW = b"Subject: new\n\nthis came between the crash and the next session\n"


@pytest.fixture(scope="module")
def tools(tmp_path_factory):
    """The programs of tests/crash, built."""
    into = tmp_path_factory.mktemp("crash")
    into.chmod(0o755)
    for name, more in (("killer", ["-lseccomp"]), ("journal_crash", [harness.REPO / "spoold" / "journal.c", "-lsodium", "-lxxhash"])):
        subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-o", into / name, HERE / (name + ".c"), *more],
            check=True, timeout=120)
    return into


@pytest.fixture
def postern(make_postern):
    """No worker waits for a next session: each that is there is at work."""
    return make_postern({"spoold": {"linger-workers": 0}})


def test_journal_killed(tools, tmp_path):
    """The journal alone, on files, killed at every call."""
    done = subprocess.run([tools / "journal_crash", tmp_path], capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    assert int(re.search(r"killed (\d+) times", done.stdout)[1]) > 500


FLAG = "user.postern-update"
EDGE = 32       # so many octets at both ends of what is to go are marked


def has_flag(path):
    return FLAG in os.listxattr(path)


class Drop:
    """A maildrop that can be put back as it was, and looked at."""

    def __init__(self, postern, store, archives=False):
        self.postern, self.store, self.archives = postern, store, archives
        self.path = postern.user("crash", store, MESSAGES)
        self.before = self.look()
        self.names = sorted(self.before) if store == "maildir" else None

    def look(self):
        if self.store == "mbox":
            return self.path.read_bytes()
        found = {}
        for sub in ("new", "cur"):
            for f in (self.path / sub).iterdir():
                assert f.name.split(":")[0] not in found, "%s is there twice" % f.name
                found[f.name.split(":")[0]] = f.read_bytes()
        return found

    def archived(self):
        """What is in the archive, sorted."""
        if self.store == "mbox":
            archive = self.path.with_name(".crash.archive")
            held = archive.read_bytes() if archive.exists() else b""
            found = re.findall(rb"(?ms)^From [^\n]*\n(.*?\n)\n(?=From |\Z)", held)
            assert held in (b"", harness.mbox(found)), "the archive holds something else beside: %r" % held
            return sorted(found)
        return sorted(f.read_bytes() for f in self.path.glob(".Archive/cur/*"))

    def reset(self):
        if self.store == "mbox":
            self.path.write_bytes(self.before)
            self.path.with_name(".crash.archive").unlink(missing_ok=True)
            return
        for f in self.path.glob(".Archive/cur/*"):
            f.unlink()
        for sub in ("new", "cur", "tmp"):       # in tmp: what a killed worker had taken out and had not yet removed
            for f in (self.path / sub).iterdir():
                f.unlink()
        for name, content in self.before.items():
            f = self.path / "cur" / (name + ":2,S")
            f.write_bytes(content)
            if harness.IS_ROOT:
                os.chown(f, self.postern.uid, self.postern.uid)

    def deliver(self):
        if self.store == "mbox":
            with self.path.open("ab") as f:
                fcntl.lockf(f, fcntl.LOCK_EX)       # recovery may be at work already
                f.write(harness.mbox([NEW]))
            return
        f = self.path / "tmp" / "2000000000.M1P1.host"
        f.write_bytes(NEW)
        if harness.IS_ROOT:
            os.chown(f, self.postern.uid, self.postern.uid)
        f.rename(self.path / "new" / f.name)

    def age_dotlock(self):
        """If a dotlock was left, makes it so old that whoever comes next may take it for left."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(str(self.path) + ".lock", (1, 1))

    def expected(self, deleted, delivered):
        kept = [m for i, m in enumerate(MESSAGES, 1) if i not in deleted]
        if self.store == "mbox":
            return harness.mbox(kept + ([NEW] if delivered else []))
        names = [n for i, n in enumerate(self.names, 1) if i not in deleted]
        return {**{n: self.before[n] for n in names}, **({"2000000000.M1P1.host": NEW} if delivered else {})}


def await_workers(postern):
    """Lets those that still are about something (recovery, which spoold's parent began by itself) come to their end."""
    for pid, _ in harness.children(postern.daemon("spoold").pid):
        assert harness.wait_pid(pid), "a worker does not end"


def seen(postern, quits=True):
    """All messages as a client gets them, sorted."""
    await_workers(postern)
    with postern.connect("crash") as c:
        count = c.stat()[0]
        messages = sorted(c.retr(i) for i in range(1, count + 1))
        assert not quits or c.quit().startswith(b"+OK")
    return messages


@contextlib.contextmanager
def killer(tools, stop, *victims, options=(), **how):
    """Stands by the first victim, and kills them all at its system call `stop`; whoever reads on is told how it ended."""
    with subprocess.Popen([tools / "killer", *options, str(stop), *map(str, victims)], stdout=subprocess.PIPE, text=True, **how) as k:
        if k.stdout.readline() != "ready\n":
            k.wait()
            pytest.skip("NOT RUN: this user may not trace the worker")
        yield k


def quit_under(tools, stop, c, *victims):
    """QUIT, with a kill at call `stop` of it: the answer, and how it ended."""
    with killer(tools, stop, *victims) as k:
        c.send(b"QUIT\r\n")
        answer = c.line()
        c.close()
        return answer, k.stdout.readline().split()


def session_killed(postern, tools, drop, deleted, stop, delivers, parent_too):
    """A whole session with a kill at its QUIT, and what happens until the next: the answer, and how it ended."""
    await_workers(postern)
    drop.reset()
    spoold = postern.daemon("spoold")
    c = postern.connect("crash")
    for number in deleted:
        c.ok(b"DELE %d" % number)
    (worker, _), = harness.children(spoold.pid)
    answer, ended = quit_under(tools, stop, c, worker, *([spoold.pid] if parent_too else []))
    assert harness.wait_pid(worker), "the worker lives on"
    if ended[0] == "killed" and parent_too:
        assert spoold.process.wait(harness.TIMEOUT) == -signal.SIGKILL
        spoold.wait_gone(10)
    drop.age_dotlock()
    if delivers:
        drop.deliver()
    if ended[0] == "killed" and parent_too:
        postern.start("spoold")
    return answer, ended


def one_kill(postern, tools, drop, deleted, stop, delivers, parent_too):
    """Returns how many calls there were, if the worker came to its end before `stop`."""
    logged = postern.daemon("pop3d").mark()
    answer, ended = session_killed(postern, tools, drop, deleted, stop, delivers, parent_too)
    what = "%s, deleting %s, %s, delivered %s, answer %r" % (drop.store, deleted, ended, delivers, answer)
    messages = seen(postern, not drop.archives)
    now = drop.look()
    after = now == drop.expected(deleted, delivers)
    assert after or now == drop.expected([], delivers), "%s: neither before nor after" % what
    assert after or not answer.startswith(b"+OK"), "%s: the client was told that it is done" % what
    kept = [m for i, m in enumerate(MESSAGES, 1) if not after or i not in deleted] + ([NEW] if delivers else [])
    assert messages == sorted(map(harness.wire, kept)), "%s: a client sees something else" % what
    if drop.archives:
        gone, archived = [MESSAGES[i - 1] for i in deleted] if after else [], drop.archived()
        assert archived == sorted(gone), "%s: the archive is wrong: %r" % (what, archived)
    if ended[0] == "ended":
        if any(b"Too many references" in row for row in postern.daemon("pop3d").lines[logged:]):
            return None         # other tests of the same uid have too many descriptors under way: nothing was asked of the worker
        assert after and answer.startswith(b"+OK"), what
        return int(ended[1])
    return None


@pytest.mark.parametrize("parent_too", [False, True], ids=["worker", "worker-and-parent"])
@pytest.mark.parametrize("deletion", DELETIONS if ALL else ["alternate"])
def test_worker_killed(tools, postern, store, deletion, parent_too):
    drop, kills = Drop(postern, store), 0
    postern.start()
    for delivers in (False, True):
        for stop in itertools.count(1, 1 if ALL else 29 if parent_too else 7):
            if one_kill(postern, tools, drop, DELETIONS[deletion], stop + (0 if ALL else delivers * 2), delivers, parent_too) is not None:
                break
            kills += 1
        assert stop > 20
    print("%s, %s: %d kills" % (store, deletion, kills))


class LargeDrop(Drop):
    """An mbox of which so much goes that it is promised in a journal, answered, and only then cut off (PROMISE_FROM in spoold/mbox_update.c)."""

    MESSAGES = MESSAGES[:3] + [b"Subject: large %d\n\n" % i + b"a line that is like all the others in here\n" * 140000 for i in range(3)]

    def __init__(self, postern, archives=False):
        self.postern, self.store, self.archives, self.names = postern, "mbox", archives, None
        self.path = postern.user("crash", "mbox", self.MESSAGES)
        self.before = self.look()

    def expected(self, deleted, delivered):
        return harness.mbox([m for i, m in enumerate(self.MESSAGES, 1) if i not in deleted] + ([NEW] if delivered else []))

    def archived(self):
        archive = self.path.with_name(".crash.archive")
        return archive.read_bytes() if archive.exists() else b""

    def taken(self, deleted):
        return harness.mbox([self.MESSAGES[i - 1] for i in deleted])


def one_large_kill(postern, tools, drop, deleted, stop, delivers, parent_too):
    """Whether the client was told that it is done; and if the worker came to its end before `stop`."""
    answer, ended = session_killed(postern, tools, drop, deleted, stop, delivers, parent_too)
    await_workers(postern)
    with postern.connect("crash") as d:
        count = d.stat()[0]
        assert d.quit().startswith(b"+OK")
    now, what = drop.look(), "deleting %s, %s, delivered %s, answer %r" % (deleted, ended, delivers, answer)
    after = now == drop.expected(deleted, delivers)
    assert after or now == drop.expected([], delivers), "%s: neither before nor after (%d octets)" % (what, len(now))
    assert after or not answer.startswith(b"+OK"), "%s: the client was told that it is done" % what
    assert count == len(drop.MESSAGES) + delivers - (len(deleted) if after else 0), what
    if drop.archives:
        assert drop.archived() == (drop.taken(deleted) if after else b""), "%s: the archive is wrong" % what
    assert ended[0] == "killed" or (after and answer.startswith(b"+OK")), what
    return answer.startswith(b"+OK"), ended[0] == "ended"


@pytest.mark.parametrize("parent_too", [False, True], ids=["worker", "worker-and-parent"])
@pytest.mark.parametrize("deleted", [[1, 2, 3, 4, 5, 6], [4, 5, 6], [1, 4, 5, 6]] if ALL else [[1, 2, 3, 4, 5, 6]], ids=lambda d: "".join(map(str, d)))
def test_killed_after_the_answer(tools, postern, deleted, parent_too):
    """What was answered before the mailbox was cut off is done, by whoever opens it next; and what arrives meanwhile stays."""
    drop, answered, kills = LargeDrop(postern), 0, 0
    postern.start()
    for delivers in (False, True):
        for stop in itertools.count(1 if ALL else 8, 1 if ALL else 37 if parent_too else 19):
            told, ended = one_large_kill(postern, tools, drop, deleted, stop, delivers, parent_too)
            answered += told and not ended
            if ended:
                break
            kills += 1
    assert answered > 0 or not ALL, "no kill was after the answer"
    print("%s: %d kills, %d of them after the answer" % (deleted, kills, answered))


@pytest.mark.parametrize("parent_too", [False, True], ids=["worker", "worker-and-parent"])
def test_archived_and_killed_after_the_answer(tools, make_postern, parent_too):
    """The same with server-copy = archive: what was answered is in the archive, once, and out of the mailbox."""
    postern, kills = make_postern({"spoold": {"linger-workers": 0, "server-copy": "archive"}}), 0
    drop = LargeDrop(postern, archives=True)
    postern.start()
    told, ended = one_large_kill(postern, tools, drop, [1, 4, 5, 6], "@ftruncate", True, parent_too)
    assert told and not ended, "the kill was not between the answer and the truncation"
    for stop in itertools.count(1) if ALL else ():
        if one_large_kill(postern, tools, drop, [1, 4, 5, 6], stop, False, parent_too)[1]:
            break
        kills += 1
    print("%d kills" % kills)


@pytest.mark.parametrize("how", ["signal", "tool"])
def test_stopped_after_the_answer(tools, postern, how):
    """spoold is told to stop, or spoolctl ends the session, between the answer and the truncation: that is finished, and loses nothing."""
    drop, deleted = LargeDrop(postern), [1, 4, 5, 6]
    postern.start()
    spoold = postern.daemon("spoold")
    c = postern.connect("crash")
    for number in deleted:
        c.ok(b"DELE %d" % number)
    (worker, _), = harness.children(spoold.pid)
    session = re.search(r"s=(\w+)", spoold.wait_line("event=open", "user=crash"))[1]
    with killer(tools, "@ftruncate", worker, options=["-n"], stdin=subprocess.PIPE) as k:
        c.send(b"QUIT\r\n")
        assert k.stdout.readline().startswith("killed")
        assert c.line().startswith(b"+OK")
        assert drop.path.stat().st_size == len(drop.before)     # there it stands
        if how == "signal":     # to all of its processes, as some supervisors do it
            os.kill(worker, signal.SIGTERM)
            spoold.process.send_signal(signal.SIGTERM)
            while (postern.dir / "run/spoold.sock").exists():
                assert not harness.wait_pid(spoold.pid, 0.02), "spoold has not waited for the session"
        else:
            argv = [str(x) for x in postern.argv("spoolctl", "end", session)]
            subprocess.run(postern.stage.argv(argv) if postern.stage else argv, check=True, timeout=harness.TIMEOUT, **postern.popen_as())
        assert drop.path.stat().st_size == len(drop.before)
    assert harness.wait_pid(worker), "the worker lives on"
    if how == "signal":
        assert spoold.stop() == 0
    assert drop.look() == drop.expected(deleted, False)
    assert not list((postern.dir / "state/journal").iterdir()), "there was something left to recover"
    assert not has_flag(drop.path)
    if how == "signal":
        postern.start("spoold")
    assert seen(postern) == sorted(harness.wire(m) for i, m in enumerate(drop.MESSAGES, 1) if i not in deleted)


def test_the_answer_waits_for_the_cut(tools, postern):
    """A journal has made it certain; but whoever is told +OK does not find the old mailbox."""
    drop = LargeDrop(postern)
    postern.start()
    with postern.connect("crash") as c:
        for number in DELETIONS["all"][:6]:
            c.ok(b"DELE %d" % number)
        (worker, _), = harness.children(postern.daemon("spoold").pid)
        with killer(tools, "@ftruncate", worker, options=["-n"], stdin=subprocess.PIPE) as k:
            c.send(b"QUIT\r\n")
            assert k.stdout.readline().startswith("killed")
            assert not select.select([c.socket], [], [], 0.1)[0], "told before it could be seen"
        assert c.line().startswith(b"+OK")
        assert drop.look() == drop.expected(DELETIONS["all"][:6], False)


def cut_off(tools, postern, user="crash", deleted="alternate"):
    """A session and all of spoold are killed when everything is moved and nothing is truncated."""
    spoold = postern.daemon("spoold")
    c = postern.connect(user)
    for number in DELETIONS[deleted]:
        c.ok(b"DELE %d" % number)
    (worker, _), = harness.children(spoold.pid)
    answer, ended = quit_under(tools, "@ftruncate", c, worker, spoold.pid)
    assert ended[0] == "killed" and not answer.startswith(b"+OK")
    assert spoold.process.wait(harness.TIMEOUT) == -signal.SIGKILL
    spoold.wait_gone(10)


@pytest.mark.parametrize("again", [False, True], ids=["", "and-there-is-another"])
def test_renamed_after_the_crash(tools, postern, again):
    """An mbox that has another path by now has its journal all the same; also if a new mbox has been made where it was."""
    drop = Drop(postern, "mbox")
    postern.start()
    cut_off(tools, postern)
    drop.age_dotlock()
    moved = drop.path.rename(drop.path.with_name("moved"))
    postern.add("moved", "mbox:%s" % moved)
    if again:
        postern.mbox("crash", [NEW])
    postern.start("spoold")
    if again:
        assert seen(postern) == [harness.wire(NEW)]
    with postern.connect("moved") as c:
        count = c.stat()[0]
        assert c.quit().startswith(b"+OK")
    assert (count, moved.read_bytes()) == (4, drop.expected(DELETIONS["alternate"], False))
    await_workers(postern)
    assert not list((postern.dir / "state/journal").iterdir())


def test_replaced_by_a_copy_after_the_crash(tools, postern):
    """The journal of another file is set aside, under a name that none has had; and a copy of the mailbox has no mark in it any more."""
    drop, journals = Drop(postern, "mbox"), postern.dir / "state/journal"
    postern.start()
    cut_off(tools, postern)
    drop.age_dotlock()
    copy, left = drop.path.with_name("copy"), len(drop.expected(DELETIONS["alternate"], False))
    copy.write_bytes(drop.look())
    postern.own(copy)
    assert drop.look()[-EDGE:] != drop.before[-EDGE:]
    copy.rename(drop.path)
    (journal,) = journals.glob("*.journal")
    held = journal.read_bytes()
    others = [journal.with_suffix(".aside-%d" % (time.time() + i)) for i in range(60)]
    for other in others:
        other.write_bytes(b"other")
    postern.start("spoold")
    await_workers(postern)
    postern.daemon("spoold").wait_line("event=recover", "result=foreign")
    now = drop.look()
    assert now[left:left + EDGE] == drop.before[left:left + EDGE] and now[-EDGE:] == drop.before[-EDGE:]
    assert all(other.read_bytes() == b"other" for other in others)
    (aside,) = set(journals.glob("*.aside-*")) - set(others)
    assert aside.read_bytes() == held


def test_of_another_owner_after_the_crash(tools, make_postern, stage):
    """It is not served half moved, and the log says what to do, which helps."""
    postern = make_postern({"spoold": {"linger-workers": 0, "mbox-locks": "fcntl"}}, stage=stage)
    postern.mail.chmod(0o777)
    alice, bob = stage.USERS["alice"], stage.USERS["bob"]
    path = postern.mbox("crash", MESSAGES, uid=alice)
    postern.add("crash", "mbox:%s" % path, uid=alice)
    postern.start()
    cut_off(tools, postern)
    os.chown(path, bob, bob)
    postern.authctl("del", "crash")
    postern.add("crash", "mbox:%s" % path, uid=bob)
    postern.start("spoold")
    spoold = postern.daemon("spoold")
    half = path.read_bytes()
    with pytest.raises(AssertionError, match=re.escape("SYS/TEMP")):
        postern.connect("crash")
    assert b"uid %d" % alice in spoold.wait_line("is not served", "spoolctl recover").encode()
    assert path.read_bytes() == half
    os.chown(path, alice, alice)
    argv = [str(x) for x in postern.argv("spoolctl", "recover")]
    subprocess.run(postern.stage.argv(argv), check=True, timeout=harness.TIMEOUT)
    os.chown(path, bob, bob)
    with postern.connect("crash") as c:
        assert c.stat()[0] == 4
        assert c.quit().startswith(b"+OK")
    assert path.read_bytes() == harness.mbox([m for i, m in enumerate(MESSAGES, 1) if i not in DELETIONS["alternate"]])


@pytest.fixture
def flags(tmp_path):
    (tmp_path / "x").touch()
    try:
        os.setxattr(tmp_path / "x", FLAG, b"1")
    except OSError:
        pytest.skip("NOT RUN: there are no extended attributes here")


@pytest.mark.parametrize("forced", [False, True], ids=["waits", "forced"])
def test_another_state_dir(tools, postern, make_postern, flags, forced):
    """A spoold with another state-dir does not serve what is half moved. If it is made to, the journal is not acted on afterwards."""
    drop, other = Drop(postern, "mbox"), make_postern()
    other.add("crash", "mbox:%s" % drop.path)
    postern.start()
    other.start()
    cut_off(tools, postern)
    drop.age_dotlock()
    half = drop.look()
    with pytest.raises(AssertionError, match=re.escape("SYS/TEMP")):
        other.connect("crash")
    other.daemon("spoold").wait_line("event=failed", "another state-dir")
    assert drop.look() == half
    if forced:
        os.removexattr(drop.path, FLAG)
        with other.connect("crash") as c:
            c.ok(b"DELE 1")
            assert c.quit().startswith(b"+OK")
        half = drop.look()
    postern.start("spoold")
    await_workers(postern)
    if forced:
        postern.daemon("spoold").wait_line("event=recover", "result=foreign")
        assert drop.look() == half
        assert any(".aside-" in f.name for f in (postern.dir / "state/journal").iterdir())
        return
    assert drop.look() == drop.expected(DELETIONS["alternate"], False)
    assert not has_flag(drop.path)
    with other.connect("crash") as c:
        assert c.stat()[0] == 4


def test_flag_that_was_left(postern, flags):
    """One of our own, without a journal, is no hindrance; nor is one that came along with a copy."""
    drop = Drop(postern, "mbox")
    postern.start()
    name = os.readlink(postern.dir / "state/journal.name")
    for flag in ("%s %d %s" % (name, drop.path.stat().st_ino, os.uname().nodename), "%032d %d elsewhere" % (1, drop.path.stat().st_ino + 1)):
        os.setxattr(drop.path, FLAG, flag.encode())
        assert len(seen(postern)) == len(MESSAGES)
    with postern.connect("crash") as c:
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    assert not has_flag(drop.path)


def test_parent_killed(tools, postern, store):
    """Only spoold's parent is killed, at any call of a worker at QUIT, which goes on: another spoold keeps off until it has ended, and then all
    is as it was or as it was to be."""
    drop, kills = Drop(postern, store), 0
    postern.start()
    for stop in itertools.count(1 if ALL else 7, 1 if ALL else 31):
        await_workers(postern)
        drop.reset()
        c = postern.connect("crash")
        for number in DELETIONS["alternate"]:
            c.ok(b"DELE %d" % number)
        spoold = postern.daemon("spoold")
        (worker, _), = harness.children(spoold.pid)
        with killer(tools, stop, worker, spoold.pid, options=["-n"], stdin=subprocess.PIPE) as k:
            c.send(b"QUIT\r\n")
            ended = k.stdout.readline().split()
            if ended[0] == "killed":
                assert spoold.process.wait(harness.TIMEOUT) == -signal.SIGKILL
                postern.start("spoold")
                with postern.connect() as d:
                    d.ok(b"USER crash")
                    row = d.cmd(b"PASS " + harness.PASSWORD.encode())
                    if row.startswith(b"+OK"):      # its lock was given back already
                        d.close()
                    else:
                        assert row.startswith(b"-ERR [IN-USE]"), row
        answer = c.line()
        c.close()
        assert harness.wait_pid(worker), "the worker lives on"
        if ended[0] == "killed":
            spoold.wait_gone(10)
        messages, now = seen(postern), drop.look()
        what = "%s, %s, answer %r" % (store, ended, answer)
        after = now == drop.expected(DELETIONS["alternate"], False)
        assert after or now == drop.expected([], False), "%s: neither before nor after" % what
        assert after or not answer.startswith(b"+OK"), "%s: the client was told that it is done" % what
        assert messages == sorted(harness.wire(m) for i, m in enumerate(MESSAGES, 1) if not after or i not in DELETIONS["alternate"]), what
        if ended[0] == "ended":
            break
        kills += 1
    assert kills > 2
    print("%s: %d kills of the parent" % (store, kills))


def test_worker_killed_archiving(tools, make_postern, store):
    """With server-copy = archive: what is gone from the maildrop is in the archive."""
    postern = make_postern({"spoold": {"server-copy": "archive"}})
    drop = Drop(postern, store, archives=True)
    postern.start()
    for deletion in DELETIONS if ALL else ["alternate"]:
        for stop in itertools.count(1, 1 if ALL else 11):
            if one_kill(postern, tools, drop, DELETIONS[deletion], stop, False, False) is not None:
                break
        assert stop > 20


def test_note_without_a_journal(postern):
    """Left by a kill between the two: the next start removes it once it is old, and not one that may be another spoold's just now."""
    journals = postern.dir / "state/journal"
    postern.start()
    for name in ("1-old", "1-young", "1-used"):
        os.symlink("1 0 /nowhere", journals / (name + ".owner"))
    (journals / "1-used.journal").touch()
    for name in ("1-old", "1-used"):
        os.utime(journals / (name + ".owner"), (1, 1), follow_symlinks=False)
    postern.stop_daemon("spoold")
    postern.start("spoold")
    left = set(os.listdir(journals))
    assert "1-old.owner" not in left
    assert {"1-young.owner", "1-used.owner", "1-used.journal"} <= left
    for name in left:
        (journals / name).unlink()


def test_what_the_making_of_a_dotlock_left(postern):
    """A worker that is killed there leaves a file that is no lock; the next session removes it, though it changes nothing."""
    path = postern.user("crash", "mbox", MESSAGES)
    postern.start()
    seen(postern)
    left = path.with_name(".crash.lock.postern")
    left.touch()
    postern.own(left)
    seen(postern)
    assert not left.exists()


class Watcher(threading.Thread):
    """A program that locks the mbox by fcntl(2) alone, again and again: what it sees under its lock."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.path, self.seen, self.over = path, [], threading.Event()
        self.start()

    def run(self):
        with self.path.open("r+b", buffering=0) as f:
            while not self.over.wait(0.0003):
                fcntl.lockf(f, fcntl.LOCK_EX)
                f.seek(0)
                now = f.read()
                fcntl.lockf(f, fcntl.LOCK_UN)
                if not self.seen or self.seen[-1] != now:
                    self.seen.append(now)

    def end(self):
        self.over.set()
        self.join(harness.TIMEOUT)
        assert not self.is_alive()
        return self.seen


def test_locks_of_a_killed_worker(tools, postern):
    """They outlive it, until its UPDATE is finished: who has the lock never sees a mailbox that is half moved, nor could rewrite one."""
    drop, met = Drop(postern, "mbox"), 0
    states = drop.expected([], False), drop.expected(DELETIONS["alternate"], False)
    postern.start()
    for stop in itertools.count(1 if ALL else 21, 1 if ALL else 10):
        await_workers(postern)
        drop.reset()
        c = postern.connect("crash")
        for number in DELETIONS["alternate"]:
            c.ok(b"DELE %d" % number)
        (worker, _), = harness.children(postern.daemon("spoold").pid)
        with killer(tools, stop, worker) as k:
            watcher = Watcher(drop.path)
            c.send(b"QUIT\r\n")
            c.line()
            c.close()
            ended = k.stdout.readline().split()
        assert harness.wait_pid(worker)
        await_workers(postern)
        for found in watcher.end():
            assert found in states, "killed at %s: under the lock there is %r" % (ended, found)
        met += drop.look() == states[1]
        if ended[0] == "ended":
            break
    assert met > 1


def test_dotlock_of_a_killed_worker(tools, postern):
    """DESIGN, 3: when a worker dies, the parent removes its dotlock; nobody is kept out by it."""
    drop = Drop(postern, "mbox")
    postern.start()
    lock = drop.path.with_name("crash.lock")
    for stop in itertools.count(1 if ALL else 9, 1 if ALL else 12):
        await_workers(postern)
        drop.reset()
        c = postern.connect("crash")
        c.ok(b"DELE 1")
        spoold, logged = postern.daemon("spoold"), postern.daemon("spoold").mark()
        (worker, _), = harness.children(spoold.pid)
        _, ended = quit_under(tools, stop, c, worker)
        if ended[0] == "ended":
            break
        spoold.wait_line("event=worker-died", start=logged)
        for _ in range(500):    # the line comes before the recovery that takes it away has begun
            await_workers(postern)
            if not lock.exists():
                break
            harness.wait_pid(spoold.pid, 0.02)
        assert not lock.exists(), "left by a worker that was killed at %s" % ended
