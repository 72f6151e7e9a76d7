"""Bad days: what stands in the maildrop's place, what cannot be read, and daemons that do not run."""
import os
import signal
import socket

import pytest

import harness
from harness import PASSWORD, mbox, wire

MESSAGES = [b"Subject: one\n\nfirst\n", b"Subject: two\n\nsecond\n"]
PASS = b"PASS " + PASSWORD.encode()


def refused(p, user, code):
    with p.connect() as c:
        c.ok(b"USER " + user.encode())
        row = c.err(PASS)
        assert row.startswith(b"-ERR [" + code), row
        c.ok(b"CAPA")           # the session is still there
        c.rows()
        assert c.quit().startswith(b"+OK")


def test_missing_maildrop_is_empty(postern, store):
    path = postern.mail / "none"
    postern.add("u", "%s:%s" % (store, path))
    postern.start()
    with postern.connect("u") as c:
        assert c.stat() == (0, 0) and c.list() == {}
        c.err(b"RETR 1")
        assert c.quit().startswith(b"+OK")
    assert not path.exists()
    # and mail that arrives later is seen
    postern.mbox("none", MESSAGES) if store == "mbox" else postern.maildir("none", MESSAGES)
    with postern.connect("u") as c:
        assert c.stat()[0] == 2
        assert c.quit().startswith(b"+OK")


def test_missing_directory_is_empty(postern, store):
    postern.add("u", "%s:%s" % (store, postern.mail / "no" / "such" / "place"))
    postern.start()
    with postern.connect("u") as c:
        assert c.stat() == (0, 0)
        assert c.quit().startswith(b"+OK")


def test_auto_with_nothing_there(postern):
    postern.add("u", "auto:%s" % (postern.mail / "none"))
    postern.start()
    with postern.connect("u") as c:
        assert c.stat() == (0, 0)
        assert c.quit().startswith(b"+OK")


def test_empty_mbox_and_maildir(postern, store):
    postern.user("u", store, [])
    postern.start()
    with postern.connect("u") as c:
        assert c.stat() == (0, 0)
        assert c.quit().startswith(b"+OK")


def test_maildir_without_its_parts(postern):
    """Some agents make new/ only when they need it."""
    path = postern.mail / "u"
    (path / "new").mkdir(parents=True)
    (path / "new" / "1000000000.1.host").write_bytes(MESSAGES[0])
    postern.own(path)
    postern.add("u", "maildir:%s" % path)
    postern.start()
    with postern.connect("u") as c:
        assert c.retr(1) == wire(MESSAGES[0])
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    assert not os.listdir(path / "new")


def test_unreadable(postern, store):
    path = postern.user("u", store, MESSAGES)
    path.chmod(0)
    postern.start()
    refused(postern, "u", b"SYS/")
    path.chmod(0o700)
    with postern.connect("u") as c:
        assert c.stat()[0] == 2
        assert c.quit().startswith(b"+OK")


def test_unreadable_message_in_a_maildir(postern):
    """It is listed or not, but nothing of it is invented, the rest is served, and nothing is lost."""
    path = postern.user("u", "maildir", MESSAGES)
    first = sorted((path / "cur").iterdir())[0]
    first.chmod(0)
    postern.start()
    with postern.connect() as c:
        c.ok(b"USER u")
        row = c.cmd(PASS)
        if row.startswith(b"+OK"):
            good = []
            for n in c.list():
                if c.cmd(b"RETR %d" % n).startswith(b"+OK"):
                    good.append(c.unstuffed())
            assert good == [wire(MESSAGES[1])]
            c.quit()
        else:
            assert row.startswith(b"-ERR [SYS/")
    assert first.exists()
    first.chmod(0o600)      # which is no change of the directory
    for _ in range(2):
        with postern.connect("u") as c:
            assert [c.retr(n) for n in c.list()] == [wire(m) for m in MESSAGES]
            assert c.quit().startswith(b"+OK")


WRONG = ["directory", "fifo", "socket", "link to a directory", "broken link", "device"]


@pytest.mark.parametrize("what", WRONG)
def test_not_an_mbox(postern, what):
    path = postern.mail / "box"
    keep = None
    if what == "directory":
        path.mkdir()
    elif what == "fifo":
        os.mkfifo(path)
    elif what == "socket":
        keep = socket.socket(socket.AF_UNIX)
        keep.bind(str(path))
    elif what == "link to a directory":
        path.symlink_to(postern.dir)
    elif what == "broken link":
        path.symlink_to(postern.mail / "nowhere")
    elif what == "device":
        path.symlink_to("/dev/zero")
    postern.own(postern.mail)
    postern.add("u", "mbox:%s" % path)
    postern.start()
    if what == "broken link":
        with postern.connect() as c:
            c.ok(b"USER u")
            row = c.cmd(PASS)
            assert row.startswith((b"+OK", b"-ERR [SYS/PERM]"))
            c.cmd(b"QUIT")
        assert not (postern.mail / "nowhere").exists()
    else:
        refused(postern, "u", b"SYS/PERM")
    if keep:
        keep.close()
    assert os.path.lexists(path)


@pytest.mark.parametrize("what", ["file", "fifo"])
def test_not_a_maildir(postern, what):
    path = postern.mail / "box"
    path.write_bytes(b"not a directory\n") if what == "file" else os.mkfifo(path)
    postern.own(path)
    postern.add("u", "maildir:%s" % path)
    postern.start()
    refused(postern, "u", b"SYS/PERM")


def test_not_mail_at_all(postern):
    """A file that does not begin as an mbox does is not served as one, and not changed."""
    path = postern.mbox("u", b"some text\nthat is not mail\n")
    postern.add("u", "mbox:%s" % path)
    postern.start()
    with postern.connect() as c:
        c.ok(b"USER u")
        row = c.cmd(PASS)
        if row.startswith(b"+OK"):
            assert c.stat()[0] == 0
            c.ok(b"QUIT")
        else:
            assert row.startswith(b"-ERR [SYS/")
    assert path.read_bytes() == b"some text\nthat is not mail\n"


def test_strange_things_in_a_maildir(postern):
    """Symbolic links, FIFOs, sockets, devices and directories among the messages: never followed, never waited for, never removed."""
    path = postern.maildir("u", MESSAGES)
    secret = postern.dir / "secret"
    secret.write_bytes(b"Subject: secret\n\nnot for mail\n")
    (path / "cur" / "0000000001.link.host:2,S").symlink_to(secret)
    (path / "cur" / "0000000002.broken.host:2,S").symlink_to("/nonexistent")
    (path / "new" / "0000000003.dirlink.host").symlink_to("/etc")
    os.mkfifo(path / "new" / "0000000004.fifo.host")
    os.mkfifo(path / "cur" / "0000000005.fifo.host:2,S")
    (path / "cur" / "0000000006.dir.host:2,S").mkdir()
    s = socket.socket(socket.AF_UNIX)
    s.bind(str(path / "new" / "0000000007.sock.host"))
    (path / "new" / "0000000008.zero.host").symlink_to("/dev/zero")
    postern.own(path)
    postern.add("u", "maildir:%s" % path)
    postern.start()
    before = sorted(os.listdir(path / "cur") + os.listdir(path / "new"))
    with postern.connect("u") as c:
        assert [c.retr(n) for n in range(1, c.stat()[0] + 1)] == [wire(m) for m in MESSAGES]
        c.ok(b"DELE 1")
        c.ok(b"DELE 2")
        assert c.quit().startswith(b"+OK")
    s.close()
    after = sorted(os.listdir(path / "cur") + os.listdir(path / "new"))
    assert [n for n in before if n not in after] == [n for n in before if "M0" in n]
    assert secret.read_bytes() == b"Subject: secret\n\nnot for mail\n"


def test_cur_is_a_link(postern):
    """A Maildir whose cur/ leads elsewhere is somebody's trick, or somebody's way to save space; nothing outside is deleted."""
    path, other = postern.maildir("u"), postern.maildir("other", MESSAGES)
    (path / "cur").rmdir()
    (path / "cur").symlink_to(other / "cur")
    postern.own(path)
    postern.add("u", "maildir:%s" % path)
    postern.start()
    with postern.connect() as c:
        c.ok(b"USER u")
        if c.cmd(PASS).startswith(b"+OK"):
            c.quit()
    assert len(os.listdir(other / "cur")) == 2


def test_message_vanishes_in_the_session(postern):
    path = postern.user("u", "maildir", MESSAGES)
    postern.start()
    with postern.connect("u") as c:
        for f in (path / "cur").iterdir():
            if f.read_bytes() == MESSAGES[0]:
                f.unlink()
        c.err(b"RETR 1")
        assert c.retr(2) == wire(MESSAGES[1])
        c.ok(b"DELE 1")
        c.ok(b"DELE 2")
        assert c.quit().startswith(b"+OK")
    assert not os.listdir(path / "cur")


def test_message_renamed_in_the_session(postern):
    """Another program sets a flag: the message is found again."""
    path = postern.user("u", "maildir", MESSAGES)
    postern.start()
    with postern.connect("u") as c:
        for f in list((path / "cur").iterdir()):
            f.rename(str(f).replace(":2,S", ":2,FS"))
        assert c.retr(1) == wire(MESSAGES[0])
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    assert len(os.listdir(path / "cur")) == 1


def test_message_grows_where_it_lies(postern):
    """Long after it came, and no directory says so: a client that gives up over it finds it right the next time."""
    path = postern.user("u", "maildir", MESSAGES)
    first = sorted((path / "cur").iterdir())[0]
    os.utime(first, (1700000000, 1700000000))
    postern.start()
    with postern.connect("u") as c:
        c.list()
        assert c.quit().startswith(b"+OK")
    with open(first, "ab") as f:
        f.write(b"appended\n")
    with postern.connect("u") as c:
        assert c.cmd(b"RETR 1").startswith(b"-ERR") and b"changed" in c.cmd(b"TOP 1 0")
    postern.daemon("pop3d").wait_line("event=session", "user=u", "end=client-gone")
    with postern.connect("u") as c:
        assert c.list()[1] == len(c.retr(1)) == len(wire(MESSAGES[0] + b"appended\n"))
        assert c.quit().startswith(b"+OK")


@pytest.mark.parametrize("user", ["u", "recent:u"])
def test_name_says_wrong_octets(postern, user):
    """A size that a file's name gives is believed until the message is fetched, and no longer than that."""
    path = postern.user("u", "maildir", MESSAGES[:1])
    name = path / "cur" / ("2000000000.M1P1.host,S=%d,W=%d:2,S" % (len(MESSAGES[1]), len(MESSAGES[1]) + 1))
    name.write_bytes(MESSAGES[1])
    postern.own(name)
    postern.start()
    for told in [len(MESSAGES[1]) + 1] + [len(wire(MESSAGES[1]))] * 2:
        with postern.connect(user) as c:
            assert c.list() == {1: len(wire(MESSAGES[0])), 2: told}
            assert c.retr(2) == wire(MESSAGES[1])
            assert c.quit().startswith(b"+OK")


def test_message_becomes_shorter_while_it_is_fetched(postern, store):
    """The connection ends without the closing dot, and the process by itself: what it was looking at is no longer there."""
    big = b"Subject: big\n\n" + b"0123456789abcde\n" * 1024 * 1024 * 2
    path = postern.user("u", store, [big, MESSAGES[0]])
    postern.start()
    with postern.connect("u") as c:
        c.ok(b"DELE 2")
        c.ok(b"RETR 1")
        os.truncate(path if store == "mbox" else next(x for x in (path / "cur").iterdir() if x.stat().st_size > 4096), 1 << 20)
        with pytest.raises(AssertionError, match="ended in a multi-line answer"):
            c.body()
        line = postern.daemon("pop3d").wait_line("event=session", "user=u")
        assert "end=read-error" in line and "dele=0" in line
    with postern.connect("u") as c:     # and nothing was deleted
        assert c.stat()[0] == (2 if store == "maildir" else 1)
        assert c.quit().startswith(b"+OK")


def test_authd_not_running(postern):
    postern.user("u", "mbox", MESSAGES)
    postern.start("spoold", "pop3d")
    refused(postern, "u", b"SYS/TEMP")
    postern.start("authd")
    with postern.connect("u") as c:
        assert c.retr(1) == wire(MESSAGES[0])
        assert c.quit().startswith(b"+OK")


def test_spoold_not_running(postern):
    postern.user("u", "mbox", MESSAGES)
    postern.start("authd", "pop3d")
    refused(postern, "u", b"SYS/TEMP")
    with postern.connect() as c:
        c.ok(b"USER u")
        assert c.err(b"PASS wrong").startswith(b"-ERR [AUTH]")      # that much is known without the mail
    postern.start("spoold")
    with postern.connect("u") as c:
        assert c.retr(1) == wire(MESSAGES[0])
        assert c.quit().startswith(b"+OK")


@pytest.mark.parametrize("name", ["authd", "spoold"])
@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGKILL])
def test_daemon_restarted(postern, name, sig):
    """One goes and comes back while connections wait; nothing else is restarted, and the next session works."""
    postern.user("u", "mbox", MESSAGES)
    postern.user("v", "mbox", MESSAGES)
    postern.start()
    waiting = postern.connect()
    postern.daemon(name).stop(sig)
    refused(postern, "v", b"SYS/TEMP")
    postern.start(name)
    with postern.connect("u") as c:
        assert c.retr(2) == wire(MESSAGES[1])
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    if name == "spoold":
        waiting.login("v")
        assert waiting.stat()[0] == 2
    else:       # a pop3d reaches authd before it confines itself, and not again
        waiting.ok(b"USER v")
        assert waiting.err(PASS).startswith(b"-ERR [SYS/TEMP]")
    assert waiting.quit().startswith(b"+OK")
    assert (postern.mail / "u").read_bytes() == mbox(MESSAGES[1:])


def test_pop3d_restarted(postern):
    postern.user("u", "mbox", MESSAGES)
    for _ in range(3):
        postern.start() if not postern.daemons else postern.start("pop3d")
        with postern.connect("u") as c:
            assert c.stat()[0] == 2
            assert c.quit().startswith(b"+OK")
        assert postern.stop_daemon("pop3d") == 0


def test_second_daemon_is_refused(postern):
    """Two of one kind over one run-dir: the second says what is wrong and goes."""
    postern.start()
    for name in ("authd", "spoold"):
        d = postern.start_daemon(name, await_ready=False)
        assert d.process.wait(harness.TIMEOUT) == 1
        d.wait_line("event=error")
        postern.daemons[name].pop()
        d.close()


def test_user_removed_while_all_runs(postern):
    postern.user("u", "mbox", MESSAGES)
    postern.start()
    with postern.connect("u") as c:
        postern.authctl("del", "u")
        assert c.retr(1) == wire(MESSAGES[0])       # who is in stays in
        assert c.quit().startswith(b"+OK")
    with postern.connect() as c:
        c.ok(b"USER u")
        assert c.err(PASS).startswith(b"-ERR [AUTH]")


def test_password_changed_while_all_runs(postern):
    postern.user("u", "mbox", MESSAGES)
    postern.start()
    with postern.connect("u") as c:
        c.quit()
    postern.authctl("passwd", "u", password="another-one-9")
    with postern.connect() as c:
        c.ok(b"USER u")
        assert c.err(PASS).startswith(b"-ERR [AUTH]"), "the old password is remembered"
        c.login("u", "another-one-9")
        assert c.quit().startswith(b"+OK")


def test_authctl(postern):
    """add, list, test, passwd, del; and what is refused."""
    postern.add("u", "mbox:%s" % postern.mbox("u", MESSAGES))
    assert b"u" in postern.authctl("list").stdout.split()
    postern.authctl("test", "u", password=PASSWORD)
    assert postern.authctl("test", "u", password="wrong", check=False).returncode == 1
    assert postern.authctl("test", "nobody-here", password=PASSWORD, check=False).returncode == 1
    assert postern.authctl("add", "u", password=PASSWORD, check=False).returncode != 0
    assert postern.authctl("del", "v", check=False).returncode != 0
    assert postern.authctl("passwd", "v", password=PASSWORD, check=False).returncode != 0
    assert postern.authctl("add", "w", "--maildrop", "mh:/x", password=PASSWORD, check=False).returncode != 0
    assert postern.authctl("add", "", password=PASSWORD, check=False).returncode != 0
    assert postern.authctl("add", "e", password="", check=False).returncode != 0
    postern.authctl("del", "u")
    assert postern.authctl("list").stdout.split() == [] or b"u" not in postern.authctl("list").stdout.split()
    mode = os.stat(postern.dir / "users.db").st_mode & 0o777
    assert mode & 0o007 == 0, "the store is readable by everybody"


def keeps_times(directory):
    """Does the filesystem note when a file is read?"""
    probe = directory / "probe"
    probe.write_bytes(b"x")
    os.utime(probe, (1000, 2000))
    probe.read_bytes()
    seen = probe.stat().st_atime != 1000
    probe.unlink()
    return seen


def announced(path):
    """Do shells and biff say that there is new mail?"""
    st = path.stat()
    return st.st_size > 0 and st.st_mtime_ns > st.st_atime_ns


def test_times_of_an_mbox(postern):
    """Who only polls leaves new mail announced, who fetches it does not, and what an UPDATE leaves is no new mail."""
    path = postern.user("u", "mbox", MESSAGES * 3)
    os.utime(path, (1000, 2000))
    postern.start()
    for _ in range(2):      # the second time from the cache
        with postern.connect("u") as c:
            assert c.stat()[0] == 6
            c.uidl()
            c.quit()
        assert path.stat().st_atime == 1000
    with postern.connect("u") as c:
        c.ok(b"DELE 1")     # unseen: what is left is as new as before
        assert c.quit().startswith(b"+OK")
    assert announced(path)
    if keeps_times(postern.mail):
        with postern.connect("u") as c:
            c.retr(1)
            c.quit()
        assert not announced(path)
    os.utime(path, (2000, 1000))
    with postern.connect("u") as c:
        c.ok(b"DELE 2")
        assert c.quit().startswith(b"+OK")
    assert not announced(path)
    with postern.connect("u") as c:
        assert c.stat()[0] == 4
        with open(path, "ab") as f:
            f.write(mbox(MESSAGES[:1]))
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    assert announced(path)      # what came meanwhile
