"""[spoold] server-copy: what becomes at QUIT of messages that were retrieved."""
import contextlib
import os
import resource
import signal
import subprocess

import pytest

import harness
from harness import mbox, wire

MESSAGES = [b"Subject: %d\n\nmessage %d\n" % (i, i) for i in range(1, 6)]


@pytest.fixture
def serve(make_postern, store):
    """A started Postern with that policy, and the path of its user's maildrop."""
    def make(policy):
        p = make_postern({"spoold": {"server-copy": policy}})
        p.path = p.user("u", store, MESSAGES)
        return p.start()
    return make


def archive_of(store, path):
    return path.parent / (".%s.archive" % path.name) if store == "mbox" else path / ".Archive"


def messages_in(store, path):
    """The messages of a maildrop or archive, in order."""
    if not path.exists():
        return []
    if store == "mbox" and path.stat().st_size == 0:
        return []
    if store == "mbox":
        parts = (b"\n" + path.read_bytes()).split(b"\nFrom sender@example.org Sat Jan  3 01:05:34 1998\n")
        assert parts.pop(0) == b""
        # "\n" ends each but the last, whose blank line is whole
        return [m if i < len(parts) - 1 else m[:-1] for i, m in enumerate(parts)]
    found = [(f.name, f.read_bytes()) for sub in ("new", "cur") for f in (path / sub).iterdir()]
    return [m for _, m in sorted(found)]


def kept(p, store):
    return messages_in(store, p.path)


def archived(p, store):
    return messages_in(store, archive_of(store, p.path))


def names(path):
    return sorted("%s/%s" % (sub, f.name) for sub in ("new", "cur") for f in (path / sub).iterdir())


def use(p, retr=(), dele=(), top=(), quit=b"+OK"):
    with p.connect("u") as c:
        for n in retr:
            assert c.retr(n) == wire(MESSAGES[n - 1])
        for n in top:
            c.top(n, 100000)
        for n in dele:
            c.ok(b"DELE %d" % n)
        if quit:
            row = c.quit()
            assert row.startswith(quit), row


POLICIES = ["as-client-says", "keep", "mark-read", "archive", "delete"]


@pytest.mark.parametrize("policy", POLICIES)
def test_top_does_not_count(serve, store, policy):
    p = serve(policy)
    before = names(p.path) if store == "maildir" else p.path.read_bytes()
    use(p, top=[1, 2, 3])
    assert (names(p.path) if store == "maildir" else p.path.read_bytes()) == before
    assert not archive_of(store, p.path).exists()


@pytest.mark.parametrize("policy", POLICIES)
def test_without_quit_nothing_changes(serve, store, policy):
    p = serve(policy)
    before = names(p.path) if store == "maildir" else p.path.read_bytes()
    mark = p.daemon("pop3d").mark()
    use(p, retr=[1, 2], dele=[2, 3], quit=None)
    p.daemon("pop3d").wait_line("event=session", start=mark)
    with p.connect("u") as c:
        assert c.stat()[0] == 5
        assert c.quit().startswith(b"+OK")
    assert (names(p.path) if store == "maildir" else p.path.read_bytes()) == before
    assert not archive_of(store, p.path).exists()


def test_keep(serve, store):
    p = serve("keep")
    use(p, retr=[1, 2], dele=[2, 3])
    assert kept(p, store) == MESSAGES
    with p.connect("u") as c:
        c.ok(b"DELE 1")
        assert c.stat()[0] == 4     # in this session it is gone
        c.err(b"RETR 1")
        assert c.quit() == b"+OK goodbye, 5 messages left"
    assert kept(p, store) == MESSAGES


def test_delete(serve, store):
    p = serve("delete")
    use(p, retr=[1, 3], dele=[3, 4], top=[2])
    assert kept(p, store) == [MESSAGES[1], MESSAGES[4]]


def test_delete_one_and_all(serve, store):
    p = serve("delete")
    use(p, retr=[2])
    assert kept(p, store) == [MESSAGES[0]] + MESSAGES[2:]
    with p.connect("u") as c:
        for n in range(1, 5):
            c.ok(b"RETR %d" % n)
            c.unstuffed()
        c.ok(b"RSET")               # takes back DELE, and not that they were retrieved
        assert c.quit() == b"+OK goodbye, 0 messages left"
    assert kept(p, store) == []


@pytest.mark.parametrize("retr, dele", [([1], []), ([5], []), ([1, 3], []), ([2, 3, 4], [3]), ([1, 2, 3, 4, 5], []), ([], [2, 4])])
def test_archive(serve, store, retr, dele):
    p = serve("archive")
    with p.connect("u") as c:
        uids = c.uidl()
        assert c.quit().startswith(b"+OK")
    use(p, retr=retr, dele=dele)
    gone = set(retr) | set(dele)
    assert kept(p, store) == [m for n, m in enumerate(MESSAGES, 1) if n not in gone]
    assert archived(p, store) == [m for n, m in enumerate(MESSAGES, 1) if n in gone]
    with p.connect("u") as c:
        assert list(c.uidl().values()) == [u for n, u in uids.items() if n not in gone]
        assert c.quit().startswith(b"+OK")


def test_archive_again_and_again(serve, store):
    p = serve("archive")
    for _ in range(3):
        with p.connect("u") as c:
            c.ok(b"RETR 1")
            c.unstuffed()
            assert c.quit().startswith(b"+OK")
    assert archived(p, store) == MESSAGES[:3]
    assert kept(p, store) == MESSAGES[3:]


def test_reading_only_takes_nothing_out(make_postern, store):
    """An app password without deletion removes nothing by retrieving, whatever the policy."""
    for policy in ("delete", "archive"):
        p = make_postern({"spoold": {"server-copy": policy}})
        path = p.user("u", store, MESSAGES)
        word = p.authctl("app", "add", "u", "phone", "--no-delete").stdout.decode()
        p.start()
        with p.connect() as c:
            c.ok(b"USER u")
            done = False
            for candidate in word.split():
                if c.cmd(b"USER u").startswith(b"+OK") and c.cmd(b"PASS " + candidate.encode()).startswith(b"+OK"):
                    done = True
                    break
            assert done, word
            c.retr(1)
            c.err(b"DELE 1")
            assert c.quit().startswith(b"+OK")
        assert messages_in(store, path) == MESSAGES
        assert not archive_of(store, path).exists()


# Maildir

@pytest.fixture
def maildir(make_postern):
    def make(policy, **more):
        p = make_postern({"spoold": {"server-copy": policy}})
        p.path = p.user("u", "maildir", MESSAGES, **more)
        return p
    return make


def rename(p, sub, number, to):
    old = sorted((p.path / sub).iterdir())[number]
    os.rename(old, p.path / to.replace("*", old.name.split(":")[0]))
    return old.name.split(":")[0]


def test_mark_read_maildir(maildir):
    p = maildir("mark-read", new=2)
    bases = [n.split("/")[1].split(":")[0] for n in names(p.path)]
    rename(p, "cur", 0, "cur/*:2,")
    rename(p, "cur", 1, "cur/*:2,FTa")
    bases = sorted(bases)
    p.start()
    use(p, retr=[1, 2, 4], dele=[4, 3])
    have = dict(n.split("/")[1].partition(":")[::2] for n in names(p.path))
    assert [have[b] for b in bases] == ["2,S", "2,FSTa", "2,S", "2,S", ""]
    assert [n.split("/")[0] for n in names(p.path)].count("new") == 1
    assert messages_in("maildir", p.path) == MESSAGES
    before = names(p.path)
    use(p, retr=[1, 2, 4])
    assert names(p.path) == before


def test_mark_read_finds_renamed(maildir):
    p = maildir("mark-read")
    rename(p, "cur", 0, "cur/*:2,")
    p.start()
    with p.connect("u") as c:
        c.retr(1)
        rename(p, "cur", 0, "cur/*:2,R")
        os.unlink(sorted((p.path / "cur").iterdir())[4])
        assert c.quit().startswith(b"+OK")
    assert names(p.path)[0].endswith(":2,RS")


def test_archive_is_a_folder(maildir):
    p = maildir("archive", new=3)
    p.start()
    use(p, retr=[1, 3])
    folder = p.path / ".Archive"
    assert sorted(os.listdir(folder)) == ["cur", "maildirfolder", "new", "tmp"]
    assert folder.stat().st_mode & 0o777 == 0o700
    # flags as they were; what was new is in cur/ without any
    assert [n.partition(":")[2] for n in names(folder)] == ["2,S", "2,"]
    assert all(n.startswith("cur/") for n in names(folder))
    use(p)      # which waits until the last one is over
    assert not os.listdir(p.path / "tmp")


def test_archive_takes_no_name_twice(maildir):
    p = maildir("archive")
    first = sorted((p.path / "cur").iterdir())[0].name
    (p.path / ".Archive" / "cur").mkdir(parents=True)
    (p.path / ".Archive" / "cur" / first).write_bytes(b"another\n")
    p.own(p.path)
    p.start()
    use(p, retr=[1, 2])
    assert (p.path / ".Archive" / "cur" / first).read_bytes() == b"another\n"
    assert sorted(messages_in("maildir", p.path / ".Archive")) == sorted([b"another\n"] + MESSAGES[:2])


def test_archive_all_or_none(maildir):
    """The third of three has a name that cannot be had in the archive: the others are put back."""
    p = maildir("archive")
    long = "1000000100." + "x" * 244
    (p.path / "new" / long).write_bytes(b"Subject: long\n\nlong\n")
    (p.path / ".Archive" / "cur").mkdir(parents=True)
    (p.path / ".Archive" / "cur" / long).write_bytes(b"another\n")
    p.own(p.path)
    before = names(p.path)
    p.start()
    with p.connect("u") as c:
        for n in (1, 2, 6):
            c.ok(b"RETR %d" % n)
            c.unstuffed()
        row = c.quit()
    assert row.startswith(b"-ERR"), row
    assert names(p.path) == before
    assert os.listdir(p.path / ".Archive" / "cur") == [long]
    with p.connect("u") as c:
        assert c.stat()[0] == 6
        assert c.quit().startswith(b"+OK")


def test_archive_that_may_not_be_written(maildir):
    p = maildir("archive")
    (p.path / ".Archive" / "cur").mkdir(parents=True)
    p.own(p.path)
    (p.path / ".Archive").chmod(0o500)
    p.start()
    use(p, retr=[1, 2], quit=b"-ERR [SYS/PERM] the archive may not be written")
    assert messages_in("maildir", p.path) == MESSAGES
    (p.path / ".Archive").chmod(0o700)
    use(p, retr=[1, 2])
    assert messages_in("maildir", p.path) == MESSAGES[2:]


def test_archive_link_leads_nowhere(maildir):
    p = maildir("archive")
    other = p.mail / "other"
    (other / "cur").mkdir(parents=True)
    p.own(other)
    (p.path / ".Archive").symlink_to(other)
    p.start()
    use(p, retr=[1], quit=b"-ERR [SYS/PERM] the archive")
    assert messages_in("maildir", p.path) == MESSAGES and not os.listdir(other / "cur")


# mbox

def test_mark_read_is_refused_for_mbox(make_postern):
    p = make_postern({"spoold": {"server-copy": "mark-read", "store": "mbox"}})
    done = subprocess.run(p.argv("spoold", "-t"), capture_output=True, **p.popen_as())
    assert done.returncode == 1
    assert b"server-copy" in done.stderr and b"mbox" in done.stderr
    d = p.start_daemon("spoold", await_ready=False)
    d.wait_line("server-copy")
    assert d.process.wait(harness.TIMEOUT) == 1
    p.daemons.clear()


def test_mark_read_of_one_mbox_keeps(make_postern):
    p = make_postern({"spoold": {"server-copy": "mark-read"}})
    path = p.user("u", "mbox", MESSAGES)
    p.start()
    use(p, retr=[1], dele=[2])
    assert path.read_bytes() == mbox(MESSAGES)
    p.daemon("spoold").wait_line("mark-read")


def test_mbox_archive_is_appended_to(make_postern):
    p = make_postern({"spoold": {"server-copy": "archive"}})
    path = p.user("u", "mbox", MESSAGES)
    archive = p.mail / ".u.archive"
    archive.write_bytes(mbox([b"Subject: old\n\nold"])[:-2])      # its last line has no end
    archive.chmod(0o600)
    p.own(archive)
    p.start()
    use(p, retr=[2, 5])
    assert archive.read_bytes() == mbox([b"Subject: old\n\nold", MESSAGES[1], MESSAGES[4]])
    assert path.read_bytes() == mbox([MESSAGES[0], MESSAGES[2], MESSAGES[3]])


@pytest.mark.parametrize("what", ["link", "second name", "directory"])
def test_mbox_archive_is_nothing_else(make_postern, what):
    p = make_postern({"spoold": {"server-copy": "archive"}})
    path = p.user("u", "mbox", MESSAGES)
    other, archive = p.mbox("other", b""), p.mail / ".u.archive"
    if what == "link":
        archive.symlink_to(other)
    elif what == "second name":
        os.link(other, archive)
    else:
        archive.mkdir()
        p.own(archive)
    p.start()
    use(p, retr=[1], quit=b"-ERR [SYS/PERM] the archive")
    assert path.read_bytes() == mbox(MESSAGES) and other.read_bytes() == b""


def limited():
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))


def test_mbox_archive_full(make_postern):
    """There is room in the archive for some of a message: the archive and the mailbox are as they were."""
    p = make_postern({"spoold": {"server-copy": "archive"}})
    path = p.user("u", "mbox", MESSAGES)
    archive = p.mail / ".u.archive"
    old = mbox([b"Subject: old\n\n" + b"x" * 64 + b"\n"] * 700)[:65536 - 100]
    old = old[:old.rindex(b"\nFrom ") + 1]
    archive.write_bytes(old)
    archive.chmod(0o600)
    p.own(archive)
    p.start_daemon("spoold", preexec_fn=limited)
    p.start("authd", "pop3d")
    use(p, retr=[1, 2, 3, 4], quit=b"-ERR [SYS/TEMP]")
    assert path.read_bytes() == mbox(MESSAGES) and archive.read_bytes() == old
    with p.connect("u") as c:
        assert c.stat()[0] == 5
        assert c.quit().startswith(b"+OK")


@pytest.fixture
def small(tmp_path):
    """Mounts a small filesystem; root only."""
    done = []

    def mount(path, options):
        if subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", path], stderr=subprocess.DEVNULL).returncode != 0:
            pytest.skip("NOT RUN: no filesystem can be mounted here")
        done.append(path)
    yield mount
    for path in done:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.root
def test_archive_on_a_full_disk(make_postern, small, store):
    p = make_postern({"spoold": {"server-copy": "archive"}})
    small(p.mail, "size=256k,nr_inodes=24,mode=0777")
    path = p.user("u", store, MESSAGES)
    # until there is room for no file, and for no octet
    fill = []
    try:
        while True:
            fill.append(p.mail / ("fill%d" % len(fill)))
            fill[-1].touch()
    except OSError:
        pass
    with open(fill[0], "wb", buffering=0) as f, pytest.raises(OSError):
        while True:
            f.write(b"x" * 4096)
    p.start()
    use(p, retr=[1, 2, 4], quit=b"-ERR [SYS/TEMP]")
    assert messages_in(store, path) == MESSAGES
    for f in fill:
        f.unlink(missing_ok=True)
    use(p, retr=[1, 2, 4])
    assert messages_in(store, path) == [MESSAGES[2], MESSAGES[4]]
    assert messages_in(store, archive_of(store, path)) == [MESSAGES[0], MESSAGES[1], MESSAGES[3]]
    p.stop()


@pytest.mark.root
def test_mbox_archive_in_the_home(make_postern, stage):
    """Where the user may make no file beside the mbox it is the account's ~/mbox."""
    p = make_postern({"spoold": {"server-copy": "archive"}}, stage=stage)
    spool, home = stage.path("/var/mail/alice"), stage.path("/home/alice/mbox")
    try:
        spool.write_bytes(mbox(MESSAGES))
        spool.chmod(0o600)
        os.chown(spool, stage.USERS["alice"], 8)
        p.start()
        with p.connect("alice", stage.passwords["alice"]) as c:
            assert c.retr(2) == wire(MESSAGES[1])
            assert c.quit().startswith(b"+OK")
        assert home.read_bytes() == mbox([MESSAGES[1]])
        assert home.stat().st_uid == stage.USERS["alice"] and home.stat().st_mode & 0o777 == 0o600
        assert spool.read_bytes() == mbox(MESSAGES[:1] + MESSAGES[2:])
        p.stop()
    finally:
        for path in (spool, home):
            path.unlink(missing_ok=True)


# Killed in the midst of it

def test_archive_killed(make_postern, store):
    """At any moment a worker may be killed: nothing is lost, and what is decided is carried out when the maildrop is opened next."""
    p = make_postern({"spoold": {"server-copy": "archive"}})
    many = [b"Subject: %d\n\nmessage %d\n%s\n" % (i, i, b"y" * 400) for i in range(400)]
    path = p.user("u", store, many)
    p.start()
    for turn in range(6):
        with p.connect("u") as c:
            count = c.stat()[0]
            if count == 0:
                break
            pid = [pid for pid, name in harness.children(p.daemon("spoold").pid) if "worker" in name]
            for n in range(1, min(count, 60) + 1):
                c.ok(b"DELE %d" % n)
            c.send(b"QUIT\r\n")
            for x in pid:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(x, signal.SIGKILL)
            c.socket.settimeout(harness.TIMEOUT)
            try:
                c.line()
            except OSError:
                pass
        with p.connect("u") as c:
            c.stat()
            c.quit()
        assert set(messages_in(store, path)) | set(messages_in(store, archive_of(store, path))) == set(many)
        if store == "maildir":
            assert len(messages_in(store, path)) + len(messages_in(store, archive_of(store, path))) == len(many)
