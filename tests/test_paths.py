"""A worker has its own maildrop and nothing else, however its path is spelt: links, others' files, FIFOs and devices are refused with a reason."""
import os
import shutil

import pytest

import harness
from harness import mbox, wire

pytestmark = pytest.mark.root
MINE, OTHERS = b"Subject: mine\n\nof alice\n", b"Subject: other\n\nsecret of bob\n"


@pytest.fixture
def p(make_postern, stage):
    postern = make_postern(stage=stage)
    yield postern
    for user in stage.passwords:
        home = stage.path("/home/" + user)
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir(mode=0o700)
        os.chown(home, stage.USERS[user], stage.USERS[user])
    for entry in stage.path("/var/mail").iterdir():
        entry.unlink() if entry.is_symlink() or not entry.is_dir() else shutil.rmtree(entry)
    shutil.rmtree(stage.path("/home/pool"), ignore_errors=True)


def own(stage, path, user):
    os.lchown(path, stage.USERS[user] if user != "root" else 0, stage.USERS[user] if user != "root" else 0)
    return path


def box(stage, path, user, content):
    path = stage.path(path)
    path.write_bytes(content)
    path.chmod(0o600)
    return own(stage, path, user)


def maildir(stage, path, user, messages=(MINE,)):
    path = stage.path(path)
    for sub in ("", "tmp", "new", "cur"):
        (path / sub).mkdir(mode=0o700)
        own(stage, path / sub, user)
    for i, m in enumerate(messages):
        (path / "cur" / ("%d.M1P1.host:2,S" % (1000000000 + i))).write_bytes(m)
        own(stage, path / "cur" / ("%d.M1P1.host:2,S" % (1000000000 + i)), user)
    return path


def link(stage, target, path, user):
    os.symlink(target, stage.path(path))
    return own(stage, stage.path(path), user)


def refused(p, reason, user="alice"):
    with p.connect() as c:
        c.ok(b"USER " + user.encode())
        assert c.err(b"PASS " + p.stage.passwords[user].encode()).startswith(b"-ERR [SYS/PERM]")
    p.daemon("spoold").wait_line("event=(failed|refused)", reason)


def has(p, *messages, user="alice"):
    with p.connect(user, p.stage.passwords[user]) as c:
        assert [c.retr(n + 1) for n in range(c.stat()[0])] == [wire(m) for m in messages]
        assert c.quit().startswith(b"+OK")


def test_mbox_is_a_link(p, stage):
    box(stage, "/var/mail/bob", "bob", mbox([OTHERS]))
    link(stage, "bob", "/var/mail/alice", "alice")
    p.start()
    refused(p, "symbolic link")


def test_mbox_is_a_link_to_ones_own(p, stage):
    box(stage, "/home/alice/mail", "alice", mbox([MINE]))
    link(stage, "/home/alice/mail", "/var/mail/alice", "alice")
    p.start()
    refused(p, "symbolic link")


@pytest.mark.parametrize("what", ["fifo", "device", "directory"])
def test_mbox_is_something_else(p, stage, what):
    path = stage.path("/var/mail/alice")
    if what == "fifo":
        os.mkfifo(path, 0o600)
    elif what == "device":
        os.mknod(path, 0o20600, os.makedev(1, 5))   # /dev/zero
    else:
        path.mkdir(mode=0o700)
    own(stage, path, "alice")
    p.start()
    refused(p, "directory" if what == "directory" else "not a regular file")


def test_mbox_is_a_hard_link_to_anothers(p, stage):
    """One that she may even read and write, as group and mode of that file say."""
    theirs = box(stage, "/var/mail/shared", "bob", mbox([OTHERS]))
    theirs.chmod(0o666)
    os.link(theirs, stage.path("/var/mail/alice"))
    p.start()
    refused(p, "hard link")
    assert theirs.read_bytes() == mbox([OTHERS])


def test_mbox_is_a_hard_link_to_ones_own(p, stage):
    os.link(box(stage, "/var/mail/backup", "alice", mbox([MINE])), stage.path("/var/mail/alice"))
    p.start()
    has(p, MINE)


def test_maildir_is_a_link(p, stage):
    maildir(stage, "/home/bob/Maildir", "bob", [OTHERS])
    stage.path("/home/bob").chmod(0o755)
    stage.path("/home/bob/Maildir").chmod(0o755)
    link(stage, "/home/bob/Maildir", "/home/alice/Maildir", "alice")
    p.start()
    refused(p, "symbolic link")


def test_maildir_of_another(p, stage):
    """A directory of bob's that alice may read and write, moved to where hers is."""
    path = maildir(stage, "/home/alice/Maildir", "bob", [OTHERS])
    for sub in ("", "tmp", "new", "cur"):
        (path / sub).chmod(0o777)
    p.start()
    refused(p, "belongs to another user")


def test_home_of_another(p, stage):
    maildir(stage, "/home/alice/Maildir", "alice")
    own(stage, stage.path("/home/alice"), "bob").chmod(0o755)
    p.start()
    refused(p, "belongs to another user")


@pytest.mark.parametrize("part", ["new", "cur"])
def test_part_of_a_maildir_is_a_link(p, stage, part):
    other = maildir(stage, "/home/bob/Maildir", "bob", [OTHERS])
    for path in (other, other.parent, other / "new", other / "cur"):
        path.chmod(0o755)
    mine = maildir(stage, "/home/alice/Maildir", "alice")
    shutil.rmtree(mine / part)
    link(stage, "/home/bob/Maildir/cur", "/home/alice/Maildir/" + part, "alice")
    p.start()
    refused(p, "Not a directory|symbolic link|symbolic links")


def test_what_is_no_message_in_a_maildir(p, stage):
    """Left out, and told: links, FIFOs, devices, directories and hard links to another's file. No open of them hangs."""
    mine = maildir(stage, "/home/alice/Maildir", "alice", [MINE])
    theirs = box(stage, "/home/theirs", "bob", OTHERS)
    theirs.chmod(0o644)
    cur = mine / "cur"
    os.link(theirs, cur / "1000000005.M1P1.host:2,")
    os.symlink("/home/theirs", cur / "1000000006.M1P1.host:2,")
    os.mkfifo(cur / "1000000007.M1P1.host:2,")
    os.mknod(cur / "1000000008.M1P1.host:2,", 0o20666, os.makedev(1, 5))
    (cur / "1000000009.M1P1.host:2,").mkdir()
    for entry in list(cur.iterdir()):
        if not entry.name.startswith("1000000005"):
            own(stage, entry, "alice")
    p.start()
    has(p, MINE)
    p.daemon("spoold").wait_line("left out", "hard link")
    p.daemon("spoold").wait_line("4 entries", "are not files")
    theirs.unlink()
    has(p, MINE, OTHERS)    # the only name of it now, of which the directory says nothing


def test_what_changes_behind_the_worker(p, stage):
    """A message that becomes a link between LIST and RETR is gone, not followed."""
    mine = maildir(stage, "/home/alice/Maildir", "alice", [MINE])
    theirs = box(stage, "/home/theirs", "bob", OTHERS + b"x" * (len(MINE) - len(OTHERS)) if len(MINE) > len(OTHERS) else OTHERS[:len(MINE)])
    theirs.chmod(0o644)
    p.start()
    with p.connect("alice", stage.passwords["alice"]) as c:
        assert c.stat()[0] == 1
        entry = next((mine / "cur").iterdir())
        entry.unlink()
        os.link(theirs, entry)
        assert b"secret" not in c.err(b"RETR 1")
        entry.unlink()
        os.symlink("/home/theirs", entry)
        c.err(b"RETR 1")
    theirs.unlink()


def test_links_that_root_made(p, stage):
    """/home and /var/mail are often links to where the disks are."""
    stage.path("/home/pool").mkdir()
    os.rename(stage.path("/home/alice"), stage.path("/home/pool/alice"))
    os.symlink("pool/alice", stage.path("/home/alice"))
    maildir(stage, "/home/pool/alice/Maildir", "alice")
    p.start()
    has(p, MINE)
    stage.path("/home/alice").unlink()


def test_links_that_a_user_made_on_the_way(p, stage):
    stage.path("/home/pool").mkdir()
    os.rename(stage.path("/home/alice"), stage.path("/home/pool/alice"))
    link(stage, "pool/alice", "/home/alice", "alice")
    maildir(stage, "/home/pool/alice/Maildir", "alice")
    p.start()
    refused(p, "symbolic link")
    stage.path("/home/alice").unlink()


def test_dots_lead_nowhere(p, stage):
    """A path of the user database with .. in it is walked by the same rules."""
    maildir(stage, "/home/alice/Maildir", "alice")
    maildir(stage, "/home/bob/Maildir", "bob", [OTHERS])
    p.add("virtual", "maildir:/home/bob/../alice/Maildir", uid=stage.USERS["alice"])
    p.start()
    with p.connect() as c:
        c.ok(b"USER virtual")
        assert c.err(b"PASS " + harness.PASSWORD.encode()).startswith(b"-ERR [SYS/PERM]")
