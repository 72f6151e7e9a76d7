"""Mail of every shape, in both stores: what is listed is what is sent, and what is sent is what is on disk in the wire form."""
import os
import random

import pytest

import harness
from harness import mbox, top, wire

SHAPES = {
    "lf": b"Subject: x\n\nbody\n",
    "crlf": b"Subject: x\r\n\r\nbody\r\n",
    "mixed": b"Subject: x\r\n\nbody\r\nmore\nend\r\n",
    "bare cr": b"Subject: x\n\na\rb\r\r\nc\n\rd\n",
    "cr at the end": b"Subject: x\n\nlast\r",
    "only cr": b"\r\r\r",
    "nul": b"Subject: x\n\n\0before\0\0after\0\n\0",
    "8 bit": b"Subject: \xe4\xff\n\n" + bytes(range(128, 256)) + b"\n",
    "every octet": b"Subject: x\n\n" + bytes(range(256)) * 3,
    "no newline at the end": b"Subject: x\n\nbody",
    "no newline in the header": b"Subject: x",
    "headers only": b"Subject: x\nTo: y\n",
    "headers and blank line": b"Subject: x\n\n",
    "blank lines at the end": b"Subject: x\n\nbody\n\n\n\n",
    "crlf blank lines at the end": b"Subject: x\r\n\r\nbody\r\n\r\n\r\n",
    "starts with a blank line": b"\nbody without a header\n",
    "one blank line": b"\n",
    "one crlf": b"\r\n",
    "one dot": b".",
    "dots": b".\n..\n...\n.\r\n.a\n\n.\n",
    "a dot after a bare cr": b"Subject: x\n\na\r.b\n",
    "dot without newline": b"Subject: x\n\nbody\n.",
    "from in the body": b"Subject: x\n\ntext\nFrom here on it is body\n\nFrom me to you\n\n>From a quoted one\n>>From twice\n",
    "from without a date after a blank line": b"Subject: x\n\n\nFrom now on, all is well.\n\nFrom: nobody\n",
    "a good from line without a blank line before it": b"Subject: x\n\ntext\nFrom a@b Sat Jan  3 01:05:34 1998\ntext\n",
    "a long line": b"Subject: x\n\n" + b"y" * (1 << 20) + b"\nend\n",
    "a long line of dots": b"Subject: x\n\n" + b"." * 70000 + b"\n",
    "a long header": b"Subject: " + b"z" * 100000 + b"\n\nbody\n",
    "lines about the block": b"Subject: x\n\n" + b"".join(b"%s\n" % (b"." * n) for n in range(0, 400)),
    "only newlines": b"\n" * 70000,
    "cr lf over the edges": b"".join(b"a" * n + b"\r\n" for n in range(65500, 65540, 13)) + b"\r\n" * 40000,
    "content-length that lies": b"Subject: x\nContent-Length: 3\n\nlonger than three\n",
    "empty": b"",
}


@pytest.fixture(scope="module", params=["mbox", "maildir"])
def running(request):
    """One user with all the shapes in one maildrop."""
    with harness.Postern() as p:
        p.store = request.param
        p.user("all", p.store, list(SHAPES.values()))
        p.start()
        yield p


def in_store(store, message):
    """What a message is once it is in the store: mbox cannot say that the last line has no end."""
    return message + b"\n" if store == "mbox" and message and not message.endswith(b"\n") else message


def test_all_shapes_in_one(running):
    want = [wire(in_store(running.store, m)) for m in SHAPES.values()]
    with running.connect("all") as c:
        assert c.stat() == (len(want), sum(map(len, want)))
        assert c.list() == {n: len(w) for n, w in enumerate(want, 1)}
        for n, (name, w) in enumerate(zip(SHAPES, want), 1):
            assert c.retr(n) == w, name
            assert c.top(n, 1) == top(in_store(running.store, SHAPES[name]), 1), name
        assert c.quit().startswith(b"+OK")


def test_each_shape_alone(make_postern):
    """... as the only message, so that it is both first and last; from both stores."""
    p = make_postern()
    files = {}
    for n, (name, m) in enumerate(SHAPES.items()):
        for store in ("mbox", "maildir"):
            user = "%s%d" % (store, n)
            files[user] = (store, name, p.user(user, store, [m]), m)
    p.start()
    for user, (store, name, path, m) in files.items():
        w = wire(in_store(store, m))
        before = path.read_bytes() if store == "mbox" else None
        with p.connect(user) as c:
            assert c.list() == {1: len(w)}, (store, name)
            assert c.retr(1) == w, (store, name)
            assert c.quit().startswith(b"+OK")
        assert before is None or path.read_bytes() == before, "reading changed the mailbox"


ENDS = {
    "no blank line at the end": (mbox([b"A: 1\n\none\n"])[:-1], [b"A: 1\n\none\n"]),
    "no newline at the end": (mbox([b"A: 1\n\none\n"])[:-2], [b"A: 1\n\none"]),
    "two blank lines": (mbox([b"A: 1\n\none\n"]) + b"\n", [b"A: 1\n\none\n\n"]),
    "from line alone": (b"From a@b Sat Jan  3 01:05:34 1998\n", [b""]),
    "from line without newline": (b"From a@b Sat Jan  3 01:05:34 1998", [b""]),
    "crlf": (mbox([b"A: 1\n\none\n", b"B: 2\n\n"]).replace(b"\n", b"\r\n"), [b"A: 1\r\n\r\none\r\n", b"B: 2\r\n\r\n"]),
    "quoted sender": (mbox([b"A: 1\n\none\n"], b'"a b"@c'), [b"A: 1\n\none\n"]),
    "time zone": (b"From a@b Sat Jan  3 01:05:34 1998 +0100\nA: 1\n\none\n\n", [b"A: 1\n\none\n"]),
    "zone name": (b"From a@b Sat Jan  3 01:05:34 MET 1998\nA: 1\n\none\n\n", [b"A: 1\n\none\n"]),
    "no seconds": (b"From a@b Sat Jan  3 01:05 1998\nA: 1\n\none\n\n", [b"A: 1\n\none\n"]),
    "remote from": (b"From a@b Sat Jan  3 01:05:34 1998 remote from host\nA: 1\n\none\n\n", [b"A: 1\n\none\n"]),
    "empty file": (b"", []),
}


@pytest.fixture(scope="module")
def ends():
    with harness.Postern() as p:
        for n, (content, _) in enumerate(ENDS.values()):
            p.user("u%d" % n, "mbox", content)
        p.start()
        yield p


@pytest.mark.parametrize("name", ENDS)
def test_mbox_ends_and_from_lines(ends, name):
    with ends.connect("u%d" % list(ENDS).index(name)) as c:
        want = [wire(m) for m in ENDS[name][1]]
        assert c.list() == {n: len(w) for n, w in enumerate(want, 1)}
        assert [c.retr(n) for n in range(1, len(want) + 1)] == want
        assert c.quit().startswith(b"+OK")


def test_last_message_deleted_alone(postern):
    """What is left of an mbox is what was there, less the From_ line, the message and its blank line."""
    messages = [b"N: %d\n\nbody %d\n" % (i, i) for i in range(5)]
    path = postern.user("u", "mbox", messages)
    postern.start()
    for kill, left in ((5, [0, 1, 2, 3]), (1, [1, 2, 3]), (2, [1, 3]), (1, [3]), (1, [])):
        with postern.connect("u") as c:
            c.ok(b"DELE %d" % kill)
            assert c.quit().startswith(b"+OK")
        assert path.read_bytes() == mbox([messages[i] for i in left])


PSEUDO = b"""From MAILER-DAEMON Fri Jul  1 12:00:00 2022
Date: 01 Jul 2022 12:00:00 +0000
From: Mail System Internal Data <MAILER-DAEMON@host>
Subject: DON'T DELETE THIS MESSAGE -- FOLDER INTERNAL DATA
Message-ID: <1656676800@host>
X-IMAP: 1656676800 0000000003
Status: RO

This text is part of the internal format of your mail folder, and is not
a real message.  It is created automatically by the mail system software.
If deleted, important folder data will be lost, and it will be re-created
with the data reset to initial values.

"""


def test_pseudo_message_is_hidden_and_kept(postern):
    messages = [b"Subject: 1\n\none\n", b"Subject: 2\n\ntwo\n"]
    path = postern.user("u", "mbox", PSEUDO + mbox(messages))
    postern.start()
    with postern.connect("u") as c:
        assert c.list() == {1: len(wire(messages[0])), 2: len(wire(messages[1]))}
        assert c.retr(1) == wire(messages[0])
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    assert path.read_bytes() == PSEUDO + mbox(messages[1:])
    with postern.connect("u") as c:
        assert c.retr(1) == wire(messages[1])
        c.ok(b"DELE 1")
        assert c.quit().startswith(b"+OK")
    assert path.read_bytes() == PSEUDO
    with postern.connect("u") as c:
        assert c.stat() == (0, 0)


def test_64_mib(postern, store):
    m = b"Subject: large\n\n" + random.Random(1).randbytes((64 << 20) - 200).replace(b"\nFrom ", b"\nfrom ") + b"\n"
    postern.user("u", store, [b"A: 1\n\nsmall\n", m, b"B: 2\n\nsmall\n"])
    postern.start()
    w = wire(m)
    with postern.connect("u") as c:
        assert c.list()[2] == len(w)
        assert c.retr(2) == w
        assert c.retr(3) == b"B: 2\r\n\r\nsmall\r\n"
        assert c.top(2, 0) == b"Subject: large\r\n\r\n"
        assert c.quit().startswith(b"+OK")


def test_20000_messages(postern, store):
    count = 20000
    messages = [b"Subject: %d\n\nmessage number %d\n" % (i, i) for i in range(count)]
    path = postern.user("u", store, messages)
    postern.start()
    with postern.connect("u") as c:
        assert c.stat() == (count, sum(len(wire(m)) for m in messages))
        uids = c.uidl()
        assert len(set(uids.values())) == count
        picks = [1, 2, count // 2, count - 1, count]
        for n in picks:
            assert c.retr(n) == wire(messages[n - 1])
        c.send(b"".join(b"DELE %d\r\n" % n for n in range(1, count + 1, 2)))
        for _ in range(count // 2):
            assert c.reply().startswith(b"+OK")
        assert c.stat()[0] == count // 2
        assert c.quit().startswith(b"+OK")
    with postern.connect("u") as c:
        assert c.uidl() == {n // 2: u for n, u in uids.items() if n % 2 == 0}, "ids changed"
        assert c.retr(1) == wire(messages[1])
        assert c.quit().startswith(b"+OK")
    if store == "mbox":
        assert path.read_bytes() == mbox(messages[1::2])
    else:
        assert len(os.listdir(path / "cur")) + len(os.listdir(path / "new")) == count // 2


def test_maildir_names(postern):
    """Sizes in the name, flags, no flags, new and cur, and what is not a message."""
    path = postern.maildir("u")
    m = b"Subject: x\n\nbody\n"
    w = wire(m)
    names = ["cur/1000000001.1.host,S=%d,W=%d:2,S" % (len(m), len(w)), "cur/1000000002.2.host,S=%d:2,FS" % len(m), "new/1000000003.3.host",
             "cur/1000000004.4.host:2,", "cur/1000000005.5.host", "new/1000000006.6.host,W=%d" % len(w)]
    for name in names:
        (path / name).write_bytes(m)
    for name in ("cur/.hidden", "tmp/1000000000.0.host", "dovecot-uidlist", "new/.nfs0001"):
        (path / name).write_bytes(b"not a message\n")
    (path / ".Sent" / "cur").mkdir(parents=True)
    (path / ".Sent" / "cur" / "1.1.host").write_bytes(b"another folder\n")
    (path / "cur" / "1000000007.7.directory").mkdir()
    postern.own(path)
    postern.add("u", "maildir:%s" % path)
    postern.start()
    with postern.connect("u") as c:
        assert c.list() == {n: len(w) for n in range(1, 7)}
        uids = c.uidl()
        assert len(set(uids.values())) == 6
        for n in range(1, 7):
            assert c.retr(n) == w
            c.ok(b"DELE %d" % n)
        assert c.quit().startswith(b"+OK")
    assert not [f for f in os.listdir(path / "cur") + os.listdir(path / "new") if "host" in f]
    assert (path / ".Sent" / "cur" / "1.1.host").exists() and (path / "cur" / ".hidden").exists()


def test_auto_finds_either(postern):
    md, mb = postern.maildir("m", [b"A: 1\n\nmaildir\n"]), postern.mbox("b", [b"A: 1\n\nmbox\n"])
    postern.add("m", "auto:%s" % md)
    postern.add("b", "auto:%s" % mb)
    postern.start()
    for user, text in (("m", b"maildir"), ("b", b"mbox")):
        with postern.connect(user) as c:
            assert c.retr(1) == b"A: 1\r\n\r\n" + text + b"\r\n"
            assert c.quit().startswith(b"+OK")
