"""A server-copy policy of a user's own, recent:USER, and the expiry of old mail."""
import base64
import hashlib
import os
import time

import pytest

import harness
from harness import wire

DAY = 86400
ALL = "as-client-says keep mark-read archive delete"


def message(i):
    return b"Subject: %d\n\nmessage %d\n" % (i, i)


def delivered(p, user, store, ages):
    """A maildrop with a message for each age in days, oldest first. Its path."""
    now = time.time()
    path = p.mail / user
    if store == "mbox":
        rows = []
        for i, days in enumerate(ages, 1):
            date = time.strftime("%a %b %e %H:%M:%S %Y", time.gmtime(now - days * DAY))
            rows.append(b"From sender@example.org " + date.encode() + b"\n" + message(i) + b"\n")
        p.mbox(user, b"".join(rows))
    else:
        p.maildir(user)
        for i, days in enumerate(ages, 1):
            at = int(now - days * DAY)
            f = path / "new" / ("%d.M%06dP1.host" % (at, i))
            f.write_bytes(message(i))
            os.utime(f, (at, at))
        p.own(path)
    return path


def bodies(c):
    return [c.retr(n) for n in c.list()]


def left(path):
    """The numbers of the messages that are there."""
    data = [path.read_bytes()] if path.is_file() else [f.read_bytes() for sub in ("new", "cur") for f in (path / sub).iterdir()]
    return sorted(int(row.split(b" ")[1]) for text in data for row in text.split(b"\n") if row.startswith(b"message "))


# A policy of a user's own

def test_own_policy(make_postern, store):
    p = make_postern({"spoold": {"server-copy-choice": ALL}})
    paths = {}
    for user in ("kept", "gone", "usual"):
        paths[user] = p.user(user, store, [message(i) for i in (1, 2, 3)])
    p.authctl("set", "kept", "--server-copy", "keep")
    p.authctl("set", "gone", "--server-copy", "delete")
    rows = dict(r.split("\t", 1) for r in p.authctl("list").stdout.decode().splitlines())
    assert "server-copy=keep" in rows["kept"] and "server-copy=delete" in rows["gone"] and "server-copy" not in rows["usual"]
    p.start()
    for user in paths:
        with p.connect(user) as c:
            c.retr(1)
            c.ok(b"DELE 2")
            assert c.quit().startswith(b"+OK")
    assert left(paths["kept"]) == [1, 2, 3]
    assert left(paths["gone"]) == [3]
    assert left(paths["usual"]) == [1, 3]
    # no restart is needed, and what else the record has stays
    p.authctl("set", "kept", "--server-copy", "default")
    p.authctl("passwd", "gone", *harness.CHEAP, password=harness.PASSWORD)
    with p.connect("kept") as c:
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    with p.connect("gone") as c:
        c.retr(1)
        assert c.quit().startswith(b"+OK")
    assert left(paths["kept"]) == [2, 3] and left(paths["gone"]) == []


def test_own_policy_with_add(make_postern):
    p = make_postern()
    path = p.mbox("u", [message(1)])
    p.authctl("add", "u", "--server-copy", "keep", "--maildrop", "mbox:%s" % path, *harness.CHEAP, password=harness.PASSWORD)
    p.start()
    with p.connect("u") as c:
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    assert left(path) == [1]


def test_only_what_may_be_chosen(make_postern):
    p = make_postern()
    path = p.user("u", "mbox", [message(1), message(2)])
    done = p.authctl("set", "u", "--server-copy", "delete", check=False)
    assert done.returncode == 1 and b"server-copy-choice" in done.stderr
    assert p.authctl("set", "u", "--server-copy", "nonsense", check=False).returncode == 2
    assert p.authctl("set", "u", check=False).returncode == 2
    assert p.authctl("set", "nobody-here", "--server-copy", "keep", check=False).returncode == 1
    # one that was given while it was in the list is not done any more
    p.write_conf(spoold={"server-copy-choice": ALL})
    p.authctl("set", "u", "--server-copy", "delete")
    p.write_conf(spoold={"server-copy-choice": "keep"})
    p.start()
    with p.connect("u") as c:
        c.retr(1)
        assert c.quit().startswith(b"+OK")
    assert left(path) == [1, 2]
    p.daemon("spoold").wait_line("server-copy-choice")


def test_set_moves_the_maildrop(make_postern):
    p = make_postern()
    p.user("u", "mbox", [message(1)])
    other = p.maildir("other", [message(2), message(3)])
    p.authctl("set", "u", "--maildrop", "maildir:%s" % other)
    p.start()
    with p.connect("u") as c:
        assert bodies(c) == [wire(message(2)), wire(message(3))]
        c.quit()


@pytest.mark.root
def test_an_account_has_its_own(make_postern, stage):
    p = make_postern(stage=stage)
    spool = stage.path("/var/mail/bob")
    try:
        spool.write_bytes(harness.mbox([message(1), message(2)]))
        spool.chmod(0o600)
        os.chown(spool, stage.USERS["bob"], 8)
        p.authctl("set", "bob", "--server-copy", "keep")
        assert "bob\taccount\t" in p.authctl("list").stdout.decode()
        p.start()
        with p.connect("bob", stage.passwords["bob"]) as c:
            c.ok(b"DELE 1")
            assert c.quit().startswith(b"+OK")
        assert left(spool) == [1, 2]
        # to the store db he is not there: PAM's password is the only one
        with p.connect() as c:
            c.ok(b"USER bob")
            c.err(b"PASS " + harness.PASSWORD.encode())
        p.authctl("set", "bob", "--server-copy", "default")
        assert "bob\t" not in p.authctl("list").stdout.decode()
        with p.connect("bob", stage.passwords["bob"]) as c:
            c.ok(b"DELE 1")
            assert c.quit().startswith(b"+OK")
        assert left(spool) == [2]
        p.stop()
    finally:
        spool.unlink(missing_ok=True)


# recent:USER

AGES = [400, 45, 31, 29, 3, 0]


def test_recent_shows_thirty_days(make_postern, store):
    p = make_postern()
    path = delivered(p, "u", store, AGES)
    p.add("u", "%s:%s" % (store, path))
    p.start()
    with p.connect("u") as c:
        ids = c.uidl()
        assert len(ids) == 6
        c.quit()
    with p.connect("recent:u") as c:
        assert bodies(c) == [wire(message(i)) for i in (4, 5, 6)]
        assert list(c.uidl().values()) == [ids[4], ids[5], ids[6]]
        assert c.top(3, 1) == wire(b"Subject: 6\n\nmessage 6\n")
        c.ok(b"DELE 2")
        assert c.quit() == b"+OK goodbye, 2 messages left"
    assert left(path) == [1, 2, 3, 4, 6]
    with p.connect("u") as c:
        assert list(c.uidl().values()) == [ids[n] for n in (1, 2, 3, 4, 6)]
        c.quit()
    line = p.daemon("authd").wait_line("event=login", "view=recent")
    assert " user=u " in line and "recent:" not in line
    p.daemon("spoold").wait_line("event=open", "user=u ", "view=recent")


@pytest.mark.parametrize("policy", ["keep", "mark-read", "archive"])
def test_recent_shows_what_was_fetched(make_postern, store, policy):
    p = make_postern({"spoold": {"server-copy": policy}})
    path = delivered(p, "u", store, AGES)
    p.add("u", "%s:%s" % (store, path))
    p.start()
    with p.connect("u") as c:
        ids = c.uidl()
        for n in (2, 4, 5):
            c.retr(n)
        assert c.quit().startswith(b"+OK")
    for _ in range(2):
        with p.connect("recent:u") as c:
            got = bodies(c)
            assert sorted(got) == [wire(message(i)) for i in (4, 5, 6)]
            assert sorted(c.uidl().values()) == sorted(ids[n] for n in (4, 5, 6))
            c.ok(b"DELE 1")
            assert c.quit().startswith(b"+OK")
        archive = path.parent / ".u.archive" if store == "mbox" else path / ".Archive"
        there = left(path) + (left(archive) if archive.exists() else [])
        assert sorted(there) == [1, 2, 3, 4, 5, 6]


def test_recent_by_every_mechanism(make_postern):
    p = make_postern({"authd": {"mechanisms": "SCRAM-SHA-256 PLAIN LOGIN USER CRAM-MD5 APOP"}})
    path = delivered(p, "u", "maildir", AGES)
    p.add("u", "maildir:%s" % path)
    p.start()
    word = harness.PASSWORD.encode()
    b64 = base64.b64encode
    for plain in (b"\0recent:u\0" + word, b"recent:u\0u\0" + word, b"u\0recent:u\0" + word):
        with p.connect() as c:
            c.ok(b"AUTH PLAIN " + b64(plain))
            assert c.stat()[0] == 3
            c.quit()
    with p.connect() as c:
        assert c.cmd(b"AUTH LOGIN").startswith(b"+ ")
        assert c.cmd(b64(b"recent:u")).startswith(b"+ ")
        c.ok(b64(word))
        assert c.stat()[0] == 3
        c.quit()
    # not another's mail, and nobody is called like that
    p.user("v", "maildir", [message(9)])
    with p.connect() as c:
        c.err(b"AUTH PLAIN " + b64(b"recent:v\0u\0" + word))
        c.err(b"AUTH PLAIN " + b64(b"\0recent:recent:u\0" + word))
    from test_login import cram, scram
    row, client = scram(p, "recent:u", harness.PASSWORD)
    assert row.startswith(b"+OK 3 ") and client.verified
    secret = p.authctl("secret", "u").stdout.decode().split()[-1]
    p.passwords.add(secret)
    assert cram(p, "recent:u", secret).startswith(b"+OK 3 ")
    with p.connect() as c:
        stamp = c.banner[c.banner.index(b"<"):].strip()
        c.ok(b"APOP recent:u " + hashlib.md5(stamp + secret.encode()).hexdigest().encode())
        assert c.stat()[0] == 3
        c.quit()


def test_recent_has_the_lock_of_the_user(make_postern, store):
    p = make_postern()
    path = delivered(p, "u", store, AGES)
    p.add("u", "%s:%s" % (store, path))
    p.start()
    with p.connect("u"), p.connect() as c:
        c.ok(b"USER recent:u")
        assert c.err(b"PASS " + harness.PASSWORD.encode()).startswith(b"-ERR [IN-USE]")


def test_recent_reading_only(make_postern):
    p = make_postern()
    path = delivered(p, "u", "maildir", AGES)
    p.add("u", "maildir:%s" % path)
    word = p.authctl("app", "add", "u", "phone", "--no-delete").stdout.decode().split()[-1]
    p.passwords.add(word)
    p.start()
    with p.connect("recent:u", word) as c:
        assert c.stat()[0] == 3
        c.err(b"DELE 1")
        c.quit()
    assert left(path) == [1, 2, 3, 4, 5, 6]


def test_recent_of_nothing(make_postern):
    p = make_postern()
    p.add("u", "maildir:%s" % (p.mail / "missing"))
    p.start()
    with p.connect("recent:u") as c:
        assert c.stat() == (0, 0)
        assert c.quit().startswith(b"+OK")
