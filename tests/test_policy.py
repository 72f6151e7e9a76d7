"""A server-copy policy of a user's own, recent:USER, and the expiry of old mail."""
import base64
import hashlib
import os
import subprocess
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


# Expiry

def capa(c, name):
    return [r for r in c.multi(b"CAPA") if r.split(b" ")[0] == name]


def expiring(make_postern, store, ages=AGES, days=30, **more):
    p = make_postern({"spoold": {"expire": days, **more}})
    p.path = delivered(p, "u", store, ages)
    p.add("u", "%s:%s" % (store, p.path))
    return p.start()


def test_old_mail_expires(make_postern, store):
    p = expiring(make_postern, store)
    with p.connect("u") as c:
        ids = c.uidl()
        c.retr(1)       # it is all there until the session ends
        assert c.stat()[0] == 6
    p.daemon("pop3d").wait_line("event=session", "user=u")
    assert left(p.path) == [1, 2, 3, 4, 5, 6]           # and without QUIT it stays
    with p.connect("u") as c:
        c.ok(b"DELE 5")
        assert c.quit() == b"+OK goodbye, 2 messages left"
    assert left(p.path) == [4, 6]
    for n in (1, 2, 3):
        p.daemon("spoold").wait_line("event=expired", "user=u", "uid=%s " % ids[n].decode(), "result=removed")
    assert "uid=%s " % ids[5].decode() not in p.daemon("spoold").log()
    p.daemon("spoold").wait_line("event=update", "deleted=1 ", "expired=3 ", "remain=2 ")
    with p.connect("u") as c:
        assert list(c.uidl().values()) == [ids[4], ids[6]]
        c.quit()


def test_a_session_that_did_nothing_expires_too(make_postern, store):
    p = expiring(make_postern, store)
    for _ in range(2):
        with p.connect("u") as c:
            assert c.quit() == b"+OK goodbye, 3 messages left"
        assert left(p.path) == [4, 5, 6]


@pytest.mark.parametrize("policy", ["keep", "mark-read", "archive", "delete"])
def test_expiry_under_a_policy(make_postern, store, policy):
    p = expiring(make_postern, store, **{"server-copy": policy})
    with p.connect("u") as c:
        c.retr(4)
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    leaves = policy in ("archive", "delete")
    assert left(p.path) == ([5, 6] if leaves else [4, 5, 6])
    archive = p.path.parent / ".u.archive" if store == "mbox" else p.path / ".Archive"
    assert (left(archive) if archive.exists() else []) == ([1, 2, 3, 4] if policy == "archive" else [])
    if store == "maildir" and policy == "mark-read":
        assert sorted(f.name.rpartition(",")[2] for f in (p.path / "cur").iterdir()) == ["S"]


def test_young_mail_never_expires(make_postern, store):
    """Not by what its header says, not by a name, a copy's time or a From_ line that could be meant otherwise."""
    p = make_postern({"spoold": {"expire": 30}})
    now = time.time()
    old = time.strftime("%a, %d %b %Y %H:%M:%S +0000", time.gmtime(now - 400 * DAY)).encode()
    body = b"Date: " + old + b"\nReceived: from a by b; " + old + b"\n\nmessage %d\n"
    if store == "mbox":
        edge = time.strftime("%a %b %e %H:%M:%S %Y", time.gmtime(now - 30 * DAY - 11 * 3600)).encode()
        froms = [b"From a " + time.strftime("%a %b %e %H:%M:%S %Y", time.gmtime(now)).encode(), b"From a " + edge,
                 b"From a Sat Jan  3 1998 (no time of day)", b"From -", b"From a Sat Jan  3 01:05:34 2098"]
        rows = [f + b"\n" + body % i + b"\n" for i, f in enumerate(froms, 1)]
        path = p.mbox("u", b"".join(rows))
    else:
        path = p.maildir("u")
        for i, (name, at) in enumerate([(now - 400 * DAY, now), (now, now - 400 * DAY), (now - 29 * DAY, now - 29 * DAY)], 1):
            f = path / "cur" / ("%d.M%dP1.host:2,S" % (name, i))
            f.write_bytes(body % i)
            os.utime(f, (at, at))
        p.own(path)
    before = left(path)
    assert len(before) >= 3
    p.add("u", "%s:%s" % (store, path))
    p.start()
    with p.connect("u") as c:
        assert c.stat()[0] >= 3
        assert c.quit().startswith(b"+OK")
    assert left(path) == before
    assert "event=expired" not in p.log()


def test_reading_only_expires_nothing(make_postern, store):
    p = expiring(make_postern, store)
    word = p.authctl("app", "add", "u", "phone", "--no-delete").stdout.decode().split()[-1]
    p.passwords.add(word)
    with p.connect("u", word) as c:
        c.retr(1)
        assert c.quit().startswith(b"+OK")
    assert left(p.path) == [1, 2, 3, 4, 5, 6]


def test_a_recent_session_expires_what_it_does_not_show(make_postern, store):
    p = expiring(make_postern, store, days=100)
    with p.connect("recent:u") as c:
        assert c.stat()[0] == 3
        c.ok(b"DELE 1")
        assert c.quit() == b"+OK goodbye, 2 messages left"
    assert left(p.path) == [2, 3, 5, 6]


def test_an_mbox_that_changed_expires_nothing_young(make_postern):
    """Another program has rewritten it since it was scanned: what stands where an old message was is not taken for it."""
    p = expiring(make_postern, "mbox", ages=[400, 10, 9])
    data = p.path.read_bytes()
    first = data.index(b"From ", 1)
    other = data[:first].replace(b"message 1", b"message 7")    # as long, as old, in the place of the first, and unseen
    with p.connect("u") as c:
        p.path.write_bytes(other + data[first:])
        assert c.quit().startswith(b"+OK")
    assert left(p.path) == [2, 3, 7]


def test_expiry_that_cannot_be_is_not_the_client_s_trouble(make_postern, store):
    if not harness.IS_ROOT:
        pytest.skip("NOT RUN: only root can make a file another's")
    p = expiring(make_postern, store)
    where = p.path if store == "mbox" else p.path / "new"
    where.chmod(0o400 if store == "mbox" else 0o500)
    with p.connect("u") as c:
        c.top(1, 1)
        assert c.quit() == b"+OK goodbye, 6 messages left"
    assert left(p.path) == [1, 2, 3, 4, 5, 6]


def test_spoolctl_expire(make_postern, store):
    p = expiring(make_postern, store)
    run = lambda *a: subprocess.run(p.argv("spoolctl", *a), capture_output=True, text=True, timeout=harness.TIMEOUT, **p.popen_as())
    (p.dir / "ids").write_text("")
    assert run("uidl-diff", "u", p.dir / "ids").returncode == 1 and run("rebuild", "u").returncode == 0
    assert left(p.path) == [1, 2, 3, 4, 5, 6]       # who only looks removes nothing
    done = run("expire", "u")
    assert (done.returncode, done.stdout) == (0, "u: 3 expired, 3 left\n"), done.stderr
    assert left(p.path) == [4, 5, 6]
    assert run("expire", "nobody-here").returncode == 1


# CAPA

@pytest.mark.parametrize("conf, before, after", [
    ({}, b"NEVER", b"NEVER"),
    ({"expire": 30}, b"30", b"30"),
    ({"server-copy": "keep", "expire": 7}, b"7", b"7"),
    ({"server-copy": "delete", "server-copy-choice": ""}, b"0", b"0"),
    ({"server-copy": "archive"}, b"0 USER", b"0"),
    ({"server-copy-choice": "keep delete"}, b"0 USER", b"NEVER"),
    ({"server-copy-choice": "keep delete", "expire": 14}, b"0 USER", b"14"),
])
def test_expire_is_announced(make_postern, conf, before, after):
    p = make_postern({"spoold": conf})
    p.user("u", "maildir", [message(1)])
    p.start()
    with p.connect() as c:
        assert capa(c, b"EXPIRE") == [b"EXPIRE " + before]
        c.login("u")
        assert capa(c, b"EXPIRE") == [b"EXPIRE " + after]
        c.quit()


def test_expire_is_announced_for_each(make_postern):
    p = make_postern({"spoold": {"server-copy-choice": ALL, "expire": 30}})
    for user, policy in (("a", "keep"), ("b", "delete")):
        p.user(user, "maildir", [message(1)])
        p.authctl("set", user, "--server-copy", policy)
    word = p.authctl("app", "add", "b", "phone", "--no-delete").stdout.decode().split()[-1]
    p.passwords.add(word)
    p.start()
    for user, password, expire in (("a", harness.PASSWORD, b"30"), ("b", harness.PASSWORD, b"0"), ("b", word, b"30")):
        with p.connect(user, password) as c:
            assert capa(c, b"EXPIRE") == [b"EXPIRE " + expire]
            c.quit()


def test_login_delay_is_announced_and_enforced(make_postern):
    p = make_postern({"authd": {"login-delay": 600}})
    p.user("u", "maildir", [message(1)])
    p.start()
    with p.connect() as c:
        assert capa(c, b"LOGIN-DELAY") == [b"LOGIN-DELAY 600"]
        c.login("u")
        assert capa(c, b"LOGIN-DELAY") == [b"LOGIN-DELAY 600"]
        c.quit()
    with p.connect() as c:
        c.ok(b"USER u")
        assert c.err(b"PASS " + harness.PASSWORD.encode()).startswith(b"-ERR [LOGIN-DELAY]")
