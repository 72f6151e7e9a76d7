"""A disk that is full, read-only or failing, and others at work: -ERR and the mailbox as it was, or what is right and nothing else."""
import contextlib
import ctypes
import fcntl
import os
import pathlib
import re
import resource
import select
import shutil
import signal
import struct
import subprocess
import time

import pytest

import harness
from harness import PASSWORD, as_disk, mbox, on_disk, wire

MESSAGES = [b"Subject: %d\n\nmessage %d\n" % (i, i) + b"%d 456789\n" % i * 2000 for i in range(1, 7)]
PASS = b"PASS " + PASSWORD.encode()
MS_RDONLY, MS_REMOUNT = 1, 32
KEPT = [m for i, m in enumerate(MESSAGES, 1) if i not in (1, 3)]


@pytest.fixture
def mounted(tmp_path_factory):
    """Mounts small filesystems on a directory; all are gone at the end."""
    libc, at = ctypes.CDLL(None, use_errno=True), []

    def call(f, *args):
        if f(*args) != 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))

    def mount(path, size, flags=0):
        options = b"size=%d,mode=0755" % size
        call(libc.mount, b"postern-test", os.fsencode(path), b"tmpfs", flags, options)
        if not flags & MS_REMOUNT:
            at.append(path)

    yield mount
    for path in at:
        call(libc.umount2, os.fsencode(path), 2)


def fill(path):
    """Not an octet more fits. Returns the file that takes up the room."""
    hog = path / "hog"
    with open(hog, "wb", buffering=0) as f:
        for size in (1 << 16, 4096, 1):
            with contextlib.suppress(OSError):
                while f.write(b"x" * size) == size:
                    pass
    return hog


def marked(p, user="u", which=(1, 3)):
    c = p.connect(user)
    for n in which:
        c.ok(b"DELE %d" % n)
    return c


def quit_refused(c):
    row = c.quit()
    assert row.startswith(b"-ERR"), "QUIT could not delete, and says %r" % row
    return row


def next_session(p, messages, user="u"):
    """The maildrop can be opened at once, has these, and an UPDATE works."""
    with p.connect(user) as c:
        assert [c.retr(n) for n in range(1, c.stat()[0] + 1)] == [wire(m) for m in messages]
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    with p.connect(user) as c:
        assert c.stat()[0] == len(messages) - 1
        assert c.quit().startswith(b"+OK")


def no_locks(p):
    """Who tidies up after a dead worker has locks for a moment; none stays."""
    until = time.monotonic() + harness.TIMEOUT
    while left := [n for n in os.listdir(p.mail) if "lock" in n]:
        assert time.monotonic() < until, "left behind: %s" % left
        for pid, _ in harness.children(p.daemon("spoold").pid):
            harness.wait_pid(pid, 0.1)


@pytest.mark.root
def test_full_state_directory(make_postern, mounted, store):
    """No journal and no cache can be written: an mbox UPDATE is refused; with room it works."""
    p = make_postern()
    (p.dir / "state").mkdir()
    mounted(p.dir / "state", 256 << 10)
    p.own(p.dir / "state")
    path = p.user("u", store, MESSAGES)
    p.start()
    hog = fill(p.dir / "state")
    with marked(p) as c:
        assert c.retr(2) == wire(MESSAGES[1])
        quit_refused(c)
    assert on_disk(store, path) == as_disk(store, MESSAGES)
    no_locks(p)
    hog.unlink()
    next_session(p, MESSAGES)


@pytest.mark.root
def test_full_state_directory_and_nothing_to_move(make_postern, mounted):
    """The tail of an mbox, and all of it, need no journal."""
    p = make_postern()
    (p.dir / "state").mkdir()
    mounted(p.dir / "state", 64 << 10)
    p.own(p.dir / "state")
    path = p.user("u", "mbox", MESSAGES)
    p.start()
    fill(p.dir / "state")
    with marked(p, which=(5, 6)) as c:
        assert c.quit().startswith(b"+OK")
    assert path.read_bytes() == mbox(MESSAGES[:4])
    with marked(p, which=(1, 2, 3, 4)) as c:
        assert c.quit().startswith(b"+OK")
    assert path.read_bytes() == b""


@pytest.mark.root
@pytest.mark.parametrize("room", [0, 1, 4096, 40000, 120000, 300000])
def test_state_directory_fills_up(make_postern, mounted, room):
    """So much room is left for the journal: it is written, or the mailbox is as it was."""
    p = make_postern()
    (p.dir / "state").mkdir()
    mounted(p.dir / "state", 1 << 20)
    p.own(p.dir / "state")
    path = p.user("u", "mbox", MESSAGES)
    p.start()
    hog = fill(p.dir / "state")
    os.truncate(hog, hog.stat().st_size - room)
    with marked(p) as c:
        row = c.quit()
    expected = KEPT if row.startswith(b"+OK") else MESSAGES
    assert path.read_bytes() == mbox(expected), row
    assert room < 300000 or row.startswith(b"+OK")
    assert room >= 4096 or row.startswith(b"-ERR")
    hog.unlink()
    next_session(p, expected)


@pytest.mark.root
def test_full_mailbox_filesystem(make_postern, mounted, store):
    """Deleting needs no room where the mail is, and mail that does not fit is no harm to it."""
    p = make_postern()
    mounted(p.mail, 1 << 20)
    p.own(p.mail)
    path = p.user("u", store, MESSAGES)
    p.start()
    fill(p.mail)
    with marked(p) as c:
        assert c.quit().startswith(b"+OK")
    assert on_disk(store, path) == as_disk(store, KEPT)
    no_locks(p)
    next_session(p, KEPT)


def let_go(p, mounted):
    """At the end of a test. What was on its way from one process to another when they were killed the kernel closes in its own time."""
    p.kill()
    subprocess.run(["umount", "--lazy", mounted], check=True)


EXT4_IOC_SHUTDOWN, NOLOGFLUSH = 0x8004587d, 2


class Image:
    """An ext4 of our own, whose power can be cut: what was not synced is gone then, and all else is an I/O error."""

    def __init__(self, p, directory):
        self.file, self.at = directory / "image", p.dir / "disk"
        self.at.mkdir()
        with open(self.file, "wb") as f:
            f.truncate(24 << 20)
        self.run("mkfs.ext4", "-q", self.file)
        self.mount()
        (self.at / "mail").mkdir()
        (self.at / "state").mkdir()
        p.mail = self.at / "mail"
        p.write_conf(postern={"state-dir": self.at / "state"})
        p.own(self.at)

    @staticmethod
    def run(*command):
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip("NOT RUN: no ext4 of our own can be had: %s" % done.stderr.strip())

    def mount(self):
        self.run("mount", "-o", "loop", self.file, self.at)

    def cut(self):
        fd = os.open(self.at, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(fd, EXT4_IOC_SHUTDOWN, struct.pack("I", NOLOGFLUSH))
        finally:
            os.close(fd)

    def mount_again(self, p):
        """As after the boot. A dotlock whose removal was not on disk yet, nor its content, would be older than that; nobody booted here."""
        # a copy: a mount namespace made meanwhile may still have the one without power mounted
        self.file = shutil.copy(self.file, self.file.with_name("copy"))
        self.mount()
        for lock in p.mail.glob("*.lock"):
            os.utime(lock, (0, 0))

    def umount(self):
        subprocess.run(["umount", self.at], check=True)


@pytest.fixture
def image(make_postern, tmp_path):
    p = make_postern()
    i = Image(p, tmp_path)
    yield p, i
    let_go(p, i.at)


@pytest.mark.root
@pytest.mark.parametrize("which", [(1, 3), (1,), (6,), (1, 2, 3, 4, 5, 6)])
def test_power_cut_after_quit(image, store, which):
    """+OK means that it is on disk: no later syncing is needed."""
    p, disk = image
    path = p.user("u", store, MESSAGES)
    p.start()
    os.sync()
    with marked(p, which=which) as c:
        assert c.quit().startswith(b"+OK")
    disk.cut()
    assert p.stop() == []
    disk.umount()
    disk.mount_again(p)
    p.start()
    left = [m for i, m in enumerate(MESSAGES, 1) if i not in which]
    with p.connect("u") as c:
        assert [c.retr(n) for n in range(1, c.stat()[0] + 1)] == [wire(m) for m in left]
        assert c.quit().startswith(b"+OK")
    assert on_disk(store, path) == as_disk(store, left)


@pytest.mark.root
def test_io_errors_at_quit(image, store):
    """Every call on the disk fails from here on: -ERR, and once it is back all is as it was."""
    p, disk = image
    path = p.user("u", store, MESSAGES)
    p.start()
    os.sync()
    with marked(p) as c:
        disk.cut()
        quit_refused(c)
    assert p.stop() == []
    disk.umount()
    disk.mount_again(p)
    p.start()
    assert on_disk(store, path) == as_disk(store, MESSAGES)
    next_session(p, MESSAGES)


@pytest.mark.root
@pytest.mark.parametrize("what", ["mail", "mail and state"])
def test_read_only_between_login_and_quit(image, store, what):
    """The kernel has found an error on the disk and lets nobody write there any more, whoever has a file open for it."""
    p, disk = image
    if what == "mail":
        p.write_conf(postern={"state-dir": p.dir / "state"})
    path = p.user("u", store, MESSAGES)
    p.start()
    os.sync()
    with marked(p) as c:
        subprocess.run(["mount", "-o", "remount,abort", disk.at], capture_output=True)
        with pytest.raises(OSError):
            (disk.at / "mail/x").write_bytes(b"x")
        assert c.retr(2) == wire(MESSAGES[1])
        quit_refused(c)
    assert on_disk(store, path) == as_disk(store, MESSAGES)
    if what == "mail":
        with p.connect("u") as c:       # and a whole session with it
            assert c.retr(1) == wire(MESSAGES[0])
            assert c.quit().startswith(b"+OK")
    p.stop()
    disk.umount()
    subprocess.run(["fsck.ext4", "-p", "-f", disk.file], capture_output=True)
    disk.mount_again(p)
    p.start()
    assert on_disk(store, path) == as_disk(store, MESSAGES)
    next_session(p, MESSAGES)


@pytest.mark.parametrize("which", [(1, 3), (1,), (6,)])
def test_no_permission_in_a_maildir(postern, which):
    """Its directories may not be written: nothing goes, and the next session has all of it."""
    if harness.IS_ROOT and postern.uid == 0:
        pytest.skip("NOT RUN: root may do anything")
    path = postern.user("u", "maildir", MESSAGES)
    postern.start()
    with marked(postern, which=which) as c:
        (path / "cur").chmod(0o500)
        quit_refused(c)
    assert on_disk("maildir", path) == MESSAGES
    (path / "cur").chmod(0o700)
    next_session(postern, MESSAGES)


def test_no_permission_for_an_mbox(postern):
    path = postern.user("u", "mbox", MESSAGES)
    path.chmod(0o400)
    postern.start()
    with marked(postern) as c:
        assert c.retr(2) == wire(MESSAGES[1])
        quit_refused(c)
    assert path.read_bytes() == mbox(MESSAGES)
    path.chmod(0o600)
    next_session(postern, MESSAGES)


@pytest.mark.parametrize("limit", [16384, 40000])
def test_file_size_limit(make_postern, store, limit):
    """RLIMIT_FSIZE: the journal cannot be longer than that."""
    p = make_postern()
    path = p.user("u", store, MESSAGES)
    p.start("authd", "pop3d")
    p.start_daemon("spoold", preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit)))
    with p.connect() as c:
        c.ok(b"USER u")
        row = c.cmd(PASS)
        if row.startswith(b"+OK"):
            for n in (1, 3):
                c.ok(b"DELE %d" % n)
            row = c.quit()
    expected = KEPT if row.startswith(b"+OK") else MESSAGES
    assert on_disk(store, path) == as_disk(store, expected), row
    assert store == "maildir" or row.startswith(b"-ERR")
    p.stop_daemon("spoold")
    p.start("spoold")
    next_session(p, expected)


@pytest.mark.parametrize("what", ["cache", "journal"])
def test_state_directory_is_unusable(postern, store, what):
    """Without its cache a session works; without a journal an UPDATE that needs one is refused."""
    path = postern.user("u", store, MESSAGES)
    postern.start()
    directory = postern.dir / "state" / what
    for f in directory.iterdir():
        f.unlink()
    directory.rmdir()
    with postern.connect() as c:
        c.ok(b"USER u")
        row = c.cmd(PASS)
        assert row.startswith(b"+OK") or what == "journal", row
        if row.startswith(b"+OK"):
            assert c.retr(6) == wire(MESSAGES[5])
            for n in (1, 3):
                c.ok(b"DELE %d" % n)
            row = c.quit()
    gone = row.startswith(b"+OK")
    assert gone or what == "journal"
    assert on_disk(store, path) == as_disk(store, KEPT if gone else MESSAGES)
    postern.stop_daemon("spoold")
    postern.start("spoold")
    next_session(postern, KEPT if gone else MESSAGES)


def test_state_directory_is_missing(make_postern):
    """Made at start, or the daemon says what is wrong and does not start."""
    p = make_postern({"postern": {"state-dir": "/proc/nothing/here"}})
    d = p.start_daemon("spoold", await_ready=False)
    assert d.process.wait(harness.TIMEOUT) == 1
    d.wait_line("/proc/nothing")
    p.daemons["spoold"].pop()
    d.close()


class Btrfs:
    """A btrfs of our own, mounted: it has quotas, without any of the kernel's, and shares blocks."""

    def __init__(self, p, directory):
        self.at = p.dir / "disk"
        self.at.mkdir()
        with open(directory / "image", "wb") as f:
            f.truncate(120 << 20)
        Image.run("mkfs.btrfs", "-q", "-m", "single", directory / "image")
        Image.run("mount", "-o", "loop", directory / "image", self.at)
        p.mail = self.at / "mail"
        p.mail.mkdir()
        (self.at / "state").mkdir()
        p.write_conf(postern={"state-dir": self.at / "state"})
        p.own(self.at)
        self.run("quota", "enable", self.at)

    @staticmethod
    def run(*command):
        return subprocess.run(["btrfs", *map(str, command)], check=True, capture_output=True, text=True).stdout

    def limit(self, octets):
        os.sync()
        self.run("qgroup", "limit", octets, self.at)


@pytest.fixture
def btrfs(make_postern, tmp_path):
    p = make_postern()
    b = Btrfs(p, tmp_path)
    yield p, b
    let_go(p, b.at)


@pytest.mark.root
@pytest.mark.parametrize("room", [16 << 10, 70000])
def test_quota(btrfs, store, room):
    """It is used up, but for so much, by the mail and what is under the state directory."""
    p, disk = btrfs
    path = p.user("u", store, MESSAGES)
    p.start()
    with p.connect("u") as c:       # so that there is a cache
        assert c.quit().startswith(b"+OK")
    os.sync()
    used = int(disk.run("qgroup", "show", "--raw", "-f", disk.at).splitlines()[-1].split()[1])
    disk.limit(used + room)
    with marked(p) as c:
        assert c.retr(2) == wire(MESSAGES[1])
        row = c.quit()
    assert store == "maildir" or row.startswith(b"-ERR"), row
    kept = KEPT if row.startswith(b"+OK") else MESSAGES
    assert on_disk(store, path) == as_disk(store, kept), row
    no_locks(p)
    disk.limit("none")
    next_session(p, kept)


class Range(ctypes.Structure):
    _fields_ = [("start", ctypes.c_int64), ("length", ctypes.c_int64)]


def written(library, directory, content, gone):
    """Takes the first octets out of a file of this content under a journal. How many octets were written."""
    with open(directory / "mbox", "w+b") as box, open(directory / "journal", "w+b") as journal:
        box.write(content)
        box.flush()
        os.sync()
        before = io_written()
        assert library.journal_apply(box.fileno(), journal.fileno(), ctypes.byref(Range(0, gone)), ctypes.c_size_t(1),
            ctypes.c_int64(len(content))) == 0
        octets = io_written() - before
    assert (directory / "mbox").read_bytes() == content[gone:]
    return octets


def io_written():
    return int(re.search(r"^wchar: (\d+)", pathlib.Path("/proc/self/io").read_text(), re.M)[1])


@pytest.mark.root
def test_blocks_are_shared(btrfs, mounted, tmp_path):
    """Where the filesystem can, what the journal of an mbox UPDATE saves is not copied: it takes one writing instead of two."""
    subprocess.run([os.environ.get("CC", "cc"), "-std=gnu17", "-D_GNU_SOURCE", "-O1", "-shared", "-fPIC", "-o", tmp_path / "journal.so",
        harness.REPO / "spoold/journal.c", "-lsodium", "-lxxhash"], check=True, timeout=120)
    library = ctypes.CDLL(str(tmp_path / "journal.so"))
    content = mbox([b"Subject: %d\n\n" % i + b"%06d some text of this message\n" % i * 30000 for i in range(8)])
    plain = tmp_path / "plain"
    plain.mkdir()
    mounted(plain, 64 << 20)
    assert written(library, plain, content, 4096) > 1.9 * len(content)
    assert written(library, btrfs[1].at, content, 4096) < 1.1 * len(content)


# Whoever dies

def workers(p):
    return [pid for pid, _ in harness.children(p.daemon("spoold").pid)]


def test_quit_and_vanish(postern, store):
    """QUIT is the last that the client says, and a reset: it is carried out."""
    path = postern.user("u", store, MESSAGES)
    postern.start()
    mark = postern.daemon("spoold").mark()
    c = marked(postern)
    c.socket.setsockopt(1, 13, b"\1\0\0\0\0\0\0\0")
    c.send(b"QUIT\r\n")
    postern.daemon("spoold").wait_line("event=update", start=mark)
    c.close()
    postern.daemon("pop3d").wait_line("event=session")
    assert on_disk(store, path) == as_disk(store, KEPT)
    next_session(postern, KEPT)


@pytest.mark.parametrize("wait", [0.0, 0.0002, 0.0005, 0.001, 0.002, 0.005])
def test_worker_killed_at_quit(postern, store, wait):
    """All or nothing, at once; and the next session works."""
    path = postern.user("u", store, MESSAGES)
    postern.start()
    c = marked(postern)
    pids = workers(postern)
    assert pids
    c.send(b"QUIT\r\n")
    select.select([c.socket], [], [], wait)
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    row = c.line()
    c.close()
    left = open_when_free(postern, MESSAGES)
    assert left in (KEPT, MESSAGES)
    assert left == KEPT or not row.startswith(b"+OK")
    assert on_disk(store, path) == as_disk(store, left)
    no_locks(postern)
    next_session(postern, left)


def open_when_free(p, known):
    """What a session finds, as messages of `known`; the lock may be with who finishes the UPDATE of a dead worker."""
    for _ in range(50):
        with p.connect() as c:
            c.ok(b"USER u")
            row = c.cmd(PASS)
            if row.startswith(b"-ERR [IN-USE]"):
                continue
            assert row.startswith(b"+OK"), row
            wires = [wire(m) for m in known]
            left = [known[wires.index(c.retr(n))] for n in range(1, c.stat()[0] + 1)]
            assert c.quit().startswith(b"+OK")
            return left
    raise AssertionError("the maildrop stays in use")


@pytest.mark.parametrize("when", ["open", "quit"])
def test_spoold_killed_with_sessions_open(postern, store, when):
    """kill -9 of the parent, and of everything it has: no lock stays, and what was begun is finished at the next start."""
    path = postern.user("u", store, MESSAGES)
    other = postern.user("v", store, MESSAGES)
    postern.start()
    c, d = marked(postern), marked(postern, "v")
    pids = workers(postern)
    if when == "quit":
        c.send(b"QUIT\r\n")
        d.send(b"QUIT\r\n")
    os.kill(postern.daemon("spoold").pid, signal.SIGKILL)
    for pid in pids:
        assert harness.wait_pid(pid), "a worker outlives its parent"
    answers = [x.line() if when == "quit" else x.cmd(b"QUIT") for x in (c, d)]
    c.close()
    d.close()
    postern.daemon("spoold").wait_gone(5)
    postern.start("spoold")
    for user, where, row in (("u", path, answers[0]), ("v", other, answers[1])):
        with postern.connect(user) as e:
            left = KEPT if e.stat()[0] == len(KEPT) else MESSAGES
            assert e.quit().startswith(b"+OK")
        assert on_disk(store, where) == as_disk(store, left)
        assert left == KEPT if row.startswith(b"+OK") else True
        if when == "open":
            assert left == MESSAGES, "nobody said QUIT to a worker that lived"
    no_locks(postern)
    # (the note of whose a journal is, made before it, goes by itself in time)
    assert not [x for x in (postern.dir / "state/journal").iterdir() if x.suffix not in (".owner", ".inode")], "a journal was left"
    next_session(postern, left, "v")


# Others at work

@pytest.fixture
def box(postern):
    path = postern.user("u", "mbox", MESSAGES)
    postern.start()
    return path


def rewrite(path, content):
    """As a mail reader does: in place, under the lock."""
    with open(path, "r+b") as f:
        fcntl.lockf(f, fcntl.LOCK_EX)
        f.write(content)
        f.truncate()


LATE = b"Subject: late\n\nit came meanwhile\n"


def test_mbox_grows(postern, box):
    with marked(postern) as c:
        rewrite(box, mbox(MESSAGES + [LATE]))
        assert c.retr(2) == wire(MESSAGES[1])
        assert c.quit().startswith(b"+OK")
    assert box.read_bytes() == mbox(KEPT + [LATE])
    next_session(postern, KEPT + [LATE])


@pytest.mark.parametrize("how", ["truncated", "unlinked"])
def test_mbox_is_emptied(postern, box, how):
    with marked(postern) as c:
        if how == "truncated":
            rewrite(box, b"")
        else:
            box.unlink()
        row = c.cmd(b"RETR 2")
        if row.startswith(b"+OK"):      # who has it open may read what has no name any more
            assert how == "unlinked" and c.unstuffed() == wire(MESSAGES[1])
        assert c.quit().startswith(b"+OK"), "the marked ones are gone: there is nothing to complain of"
    assert not box.exists() or box.read_bytes() == b""
    with postern.connect("u") as c:
        assert c.stat() == (0, 0)
        assert c.quit().startswith(b"+OK")


def test_mbox_is_emptied_and_filled(postern, box):
    """What came in its place is other mail, and stays."""
    fresh = [b"Subject: fresh %d\n\n%d\n" % (i, i) for i in range(6)]
    with marked(postern) as c:
        rewrite(box, mbox(fresh))
        for n in range(1, 7):
            c.err(b"RETR %d" % n)
        row = c.quit()
    assert box.read_bytes() == mbox(fresh), row
    next_session(postern, fresh)


@pytest.mark.parametrize("gone", [(2,), (1,), (3,), (2, 4, 5), (1, 3), (1, 2, 3, 4, 5, 6)])
@pytest.mark.parametrize("how", ["in place", "rename"])
def test_mbox_loses_messages(postern, box, gone, how):
    """Another program has removed some: of the rest the marked ones go, and no other. RETR gives the right one or none."""
    rest = [i for i in range(1, 7) if i not in gone]
    content = mbox([MESSAGES[i - 1] for i in rest])
    with marked(postern) as c:
        if how == "in place":
            rewrite(box, content)
        else:
            other = postern.mbox("u.new", content)
            other.rename(box)
        for n in (2, 5, 6):
            row = c.cmd(b"RETR %d" % n)
            assert row.startswith(b"+OK") or n not in rest, (n, row)
            assert row.startswith(b"-ERR") or n in rest or how == "rename", (n, row)
            if row.startswith(b"+OK"):
                assert c.unstuffed() == wire(MESSAGES[n - 1])
        assert c.quit().startswith(b"+OK")
    left = [MESSAGES[i - 1] for i in rest if i not in (1, 3)]
    assert box.read_bytes() == mbox(left)
    no_locks(postern)
    if left:
        next_session(postern, left)


def test_mbox_marked_message_is_changed(postern, box):
    """A marked one has another body now: it may be somebody's work, so it stays, and QUIT says so."""
    changed = [b"Subject: 1\n\nedited\n"] + MESSAGES[1:]
    with marked(postern) as c:
        rewrite(box, mbox(changed))
        row = quit_refused(c)
    assert b"1" in row and b"left" in row.lower() or b"not" in row, "it says what was left: %r" % row
    assert box.read_bytes() == mbox([changed[0]] + KEPT)
    next_session(postern, [changed[0]] + KEPT)


def test_mbox_gets_status_headers(postern, box):
    """A mail reader has marked all as read: they are the same messages still."""
    read = [m.replace(b"\n\n", b"\nStatus: RO\nX-Status: \n\n", 1) for m in MESSAGES]
    with marked(postern) as c:
        rewrite(box, mbox(read))
        assert c.quit().startswith(b"+OK")
    assert box.read_bytes() == mbox([m for i, m in enumerate(read, 1) if i not in (1, 3)])


def test_mbox_twins(postern):
    """Of byte-identical messages one is marked, another program removes one: what is left of them stays."""
    twin = b"Subject: twin\n\nthe same\n"
    path = postern.user("u", "mbox", [twin, MESSAGES[0], twin, MESSAGES[1]])
    postern.start()
    with marked(postern, which=(1,)) as c:
        rewrite(path, mbox([MESSAGES[0], twin, MESSAGES[1]]))
        row = c.quit()
    assert path.read_bytes() == mbox([MESSAGES[0], twin, MESSAGES[1]]), row


def test_mbox_is_no_mbox_any_more(postern, box):
    """Nothing in it is certain."""
    with marked(postern) as c:
        rewrite(box, b"no mail at all\n")
        c.err(b"RETR 2")
        quit_refused(c)
    assert box.read_bytes() == b"no mail at all\n"


@pytest.fixture
def folder(postern):
    path = postern.user("u", "maildir", MESSAGES[:4])
    for f in sorted((path / "cur").iterdir())[2:]:
        f.rename(path / "new" / f.name.split(":")[0])
    postern.start()
    return path


def files(path):
    return {f.read_bytes(): f for sub in ("new", "cur") for f in (path / sub).iterdir()}


def test_maildir_others_rename(postern, folder):
    """Flags, and new/ to cur/: each is found again, at RETR and at QUIT."""
    with marked(postern) as c:
        for f in list((folder / "cur").iterdir()):
            f.rename(str(f).replace(":2,S", ":2,FRS"))
        for f in list((folder / "new").iterdir()):
            f.rename(folder / "cur" / (f.name + ":2,"))
        assert c.retr(2) == wire(MESSAGES[1])
        assert c.retr(4) == wire(MESSAGES[3])
        assert c.quit().startswith(b"+OK")
    assert set(files(folder)) == {MESSAGES[1], MESSAGES[3]}
    next_session(postern, [MESSAGES[1], MESSAGES[3]])


@pytest.mark.parametrize("gone", [(1,), (3,), (1, 3), (2,), (2, 4), (1, 2, 3, 4)])
def test_maildir_others_remove(postern, folder, gone):
    with marked(postern) as c:
        for n in gone:
            files(folder)[MESSAGES[n - 1]].unlink()
        for n in (2, 4):
            row = c.cmd(b"RETR %d" % n)
            assert row.startswith(b"-ERR" if n in gone else b"+OK"), row
            if n not in gone:
                assert c.unstuffed() == wire(MESSAGES[n - 1])
        assert c.quit().startswith(b"+OK")
    assert set(files(folder)) == {MESSAGES[n - 1] for n in (2, 4) if n not in gone}


def test_maildir_others_rename_and_deliver(postern, folder):
    with marked(postern, which=(1, 2, 3, 4)) as c:
        for f in list((folder / "cur").iterdir()):
            f.rename(str(f) + "T")
        late = folder / "new" / "1999999999.M1P1.host"
        late.write_bytes(LATE)
        postern.own(late)
        assert c.quit().startswith(b"+OK")
    assert list(files(folder)) == [LATE]
    next_session(postern, [LATE])   # which waits until the last one is over
    assert not list((folder / "tmp").iterdir()), "what was deleted is still in tmp/"


def test_maildir_part_is_removed(postern, folder):
    """Somebody takes cur/ away altogether: what is there no more is gone, the rest goes as marked."""
    with marked(postern) as c:
        shutil.move(folder / "cur", folder / "elsewhere")
        row = c.quit()
    assert len(list((folder / "elsewhere").iterdir())) >= 1
    assert row.startswith((b"+OK", b"-ERR"))
    assert MESSAGES[3] in files_in(folder / "new"), "a message that was not marked is gone"
    assert MESSAGES[1] in files_in(folder / "elsewhere")


def files_in(path):
    return {f.read_bytes() for f in pathlib.Path(path).iterdir()}
