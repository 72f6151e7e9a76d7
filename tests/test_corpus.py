"""Real mail, from a folder named by CORPUS (`make check-corpus CORPUS=DIR`): every message from both stores, octet for octet.

DIR has messages/ with a message a file, mbox/ with mbox files, or both; or it is a folder of message files itself.
"""
import os
import pathlib
import re

import pytest

import harness
from harness import mbox, wire

CORPUS = os.environ.get("CORPUS", "")


def files(folder):
    folder = pathlib.Path(folder)
    return sorted(f for f in folder.rglob("*") if f.is_file() and not f.name.startswith((".", "README"))) if folder.is_dir() else []


def messages():
    if not CORPUS:
        return []
    flat = not any((pathlib.Path(CORPUS) / d).is_dir() for d in ("messages", "mbox"))
    return [(f, f.read_bytes()) for f in files(CORPUS if flat else os.path.join(CORPUS, "messages"))]


def mboxes():
    return files(os.path.join(CORPUS, "mbox")) if CORPUS else []


corpus = pytest.mark.skipif(not CORPUS, reason="no real mail: name a folder of it with CORPUS=DIR")


@corpus
def test_the_folder_is_there():
    assert messages() or mboxes(), "CORPUS=%s has no mail in it" % CORPUS


def fetch_all(postern, user):
    """All messages as a client has them, after LIST, UIDL and TOP have been held against them."""
    with postern.connect(user) as c:
        sizes, uids = c.list(), c.uidl()
        assert sorted(uids) == sorted(sizes)
        got = []
        for n in sorted(sizes):
            got.append(c.retr(n))
            assert len(got[-1]) == sizes[n], "LIST says %d of message %d, and %d came" % (sizes[n], n, len(got[-1]))
            assert c.top(n, 0) == harness.top(got[-1], 0)
        assert c.stat() == (len(got), sum(map(len, got)))
        assert c.quit().startswith(b"+OK")
    return got


@corpus
def test_messages_from_maildir(postern):
    mail = messages()
    if not mail:
        pytest.skip("the folder has no single messages")
    postern.user("u", "maildir", [m for _, m in mail])
    postern.start()
    for (name, m), got in zip(mail, fetch_all(postern, "u"), strict=True):
        assert got == wire(m), name


@corpus
def test_messages_from_mbox(postern):
    """As a delivery agent puts them there: "From " at the start of a line is quoted, and the last line has an end."""
    mail = messages()
    if not mail:
        pytest.skip("the folder has no single messages")
    quoted = []
    for name, m in mail:
        m = re.sub(rb"(?m)^From ", b">From ", m)
        quoted.append((name, m + b"\n" if m and not m.endswith(b"\n") else m))
    path = postern.user("u", "mbox", [m for _, m in quoted])
    postern.start()
    for (name, m), got in zip(quoted, fetch_all(postern, "u"), strict=True):
        assert got == wire(m), name
    assert path.read_bytes() == mbox([m for _, m in quoted])


@corpus
@pytest.mark.parametrize("path", mboxes(), ids=lambda p: p.name)
def test_mbox_files(postern, path):
    """An mbox as it was found: its messages and what lies between them are all of the file, and each starts after a From_ line."""
    content = path.read_bytes()
    copy = postern.user("u", "mbox", content)
    postern.start()
    got = fetch_all(postern, "u")
    rest = wire(content)
    for n, m in enumerate(got, 1):
        line, rest = rest.split(b"\r\n", 1)
        assert line.startswith(b"From "), "message %d does not follow a From_ line but %r" % (n, line[:80])
        assert rest.startswith(m), "message %d is not what is on disk" % n
        rest = rest[len(m):]
        if rest.startswith(b"\r\n"):        # one blank line belongs to the format; some programs left it out
            rest = rest[2:]
    assert rest == b"", "left over: %r" % rest[:200]
    assert copy.read_bytes() == content
    # deleting every second one leaves exactly the others
    with postern.connect("u") as c:
        for n in range(1, len(got) + 1, 2):
            c.ok(b"DELE %d" % n)
        assert c.quit().startswith(b"+OK")
    assert fetch_all(postern, "u") == got[1::2]
