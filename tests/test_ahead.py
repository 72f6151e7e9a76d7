"""What pop3d makes and asks for before the client asks: whatever order a client keeps, and whatever happens meanwhile, it gets what it asked for."""
import os
import random

import pytest

from harness import mbox, wire

# about the pieces in which a message is read and sent, with dots and line ends where they matter
FETCH_AHEAD = 16
SIZES = [1, 300, 4096, 65536, 65600, 140000, 400000, 2, 900, 131072, 5, 700000, 40, 64, 128, 1150000, 1600000, 8000, 9000, 70, 77, 78, 79]


def message(number, size):
    pick = random.Random(number * 1000003 + size)
    text = b"Subject: %d\n\n" % number
    while len(text) < size:
        if len(text) > 400000:
            text = (text * (size // len(text) + 1))[:size]
            break
        text += bytes(pick.choice(b".ab \r") for _ in range(pick.choice((0, 1, 3, 63, 64, 76, 200)))) + pick.choice((b"\n", b"\n", b"\r\n", b"\n."))
    if number % 2 == 0:     # a NUL in what is large is a reason to read it once more
        text = text[:size * 2 // 3] + b"\0" + text[size * 2 // 3:]
    return text.rstrip(b"\r\n") + b"\n"


MESSAGES = [message(n, size) for n, size in enumerate(SIZES, 1)]
ALL = range(1, len(MESSAGES) + 1)


@pytest.fixture
def ready(postern, store):
    path = postern.user("u", store, MESSAGES)
    postern.start()
    with postern.connect("u") as c:
        assert c.cmd(b"STAT") == b"+OK %d %d" % (len(MESSAGES), sum(len(wire(m)) for m in MESSAGES))
    return postern, path


def test_orders(ready):
    postern, _ = ready
    pick = random.Random(7)
    for order in (ALL, reversed(ALL), [n for n in ALL for _ in "ab"], [1, 2, 3, 4, 9, 10, 3, 4, 5, 21, 20, 21, 1], pick.choices(ALL, k=60)):
        with postern.connect("u") as c:
            for n in order:
                assert c.retr(n) == wire(MESSAGES[n - 1])


@pytest.mark.parametrize("between", [b"NOOP", b"STAT", b"DELE %d", b"TOP %d 0", b"LIST 1", b"LANG fr", b"NONSENSE", b"RETR 99"])
def test_something_between(ready, between):
    postern, _ = ready
    with postern.connect("u") as c:
        for n in ALL:
            assert c.retr(n) == wire(MESSAGES[n - 1])
            answer = c.cmd(between.replace(b"%d", b"%d" % n))
            assert answer.startswith(b"-ERR" if between[:3] in (b"NON", b"RET") else b"+OK")
            if between.startswith(b"TOP"):
                c.body()


def test_jumps(ready):
    """What was asked for ahead and comes when the client is silent is no reason to take the worker for gone."""
    postern, _ = ready
    with postern.connect() as other:
        for order in ((1, 2, 9, 10, 11, 12), (1, 2, 5, 6, 9, 10, 13, 14), (3, 7, 8, 12, 13, 14), (1, 2, 3, 5, 6, 8, 9)) * 5:
            with postern.connect("u") as c:
                c.ok(b"DELE 20")
                for n in order:
                    assert c.retr(n) == wire(MESSAGES[n - 1])
                    other.ok(b"CAPA")       # another process's turn: the worker answers meanwhile
                    other.body()
                c.ok(b"RSET")


def test_pipelined_bursts(ready):
    postern, _ = ready
    with postern.connect("u") as c:
        for first, count in ((1, 1), (2, 3), (5, 1), (6, 9), (15, 7)):
            c.send(b"".join(b"NOOP\r\nRETR %d\r\nSTAT\r\n" % n for n in range(first, first + count)))
            for n in range(first, first + count):
                assert c.reply().startswith(b"+OK")
                assert c.reply().startswith(b"+OK %d" % len(wire(MESSAGES[n - 1])))
                c.body()
                assert c.reply().startswith(b"+OK %d " % len(MESSAGES))


def test_half_a_command_later(ready):
    """What is made while the rest of the next command is awaited is neither sent too early nor twice."""
    postern, _ = ready
    with postern.connect("u") as c:
        for n in ALL:
            for piece in (b"RE", b"TR ", b"%d" % n, b"\r\n"):
                c.send(piece)
            assert c.reply().startswith(b"+OK")
            c.body()


def test_shrinks_meanwhile(ready, store):
    """Another program empties an mbox, or takes a Maildir's files away: an error or the message, and nothing between."""
    postern, path = ready
    with postern.connect("u") as c:
        for n in (1, 2, 3):
            assert c.retr(n) == wire(MESSAGES[n - 1])
        if store == "mbox":
            path.write_bytes(b"")
        else:
            for name in os.listdir(path / "cur"):
                os.unlink(path / "cur" / name)
        for n in ALL[3:]:
            c.send(b"RETR %d\r\n" % n)
            answer = c.reply()
            if store == "maildir" and answer.startswith(b"+OK"):    # it was open already
                assert n <= 3 + FETCH_AHEAD and c.unstuffed() == wire(MESSAGES[n - 1])
            else:
                assert answer.startswith(b"-ERR message %d is no longer there" % n)


@pytest.mark.parametrize("gone", [{60}, {17, 18}, {5, 12, 20, 28, 36}, set(range(2, 60, 9)), set(range(20, 61))])
def test_some_are_gone(postern, gone):
    """What is asked for together comes together if all of it is there, and else each for itself."""
    messages = [b"Subject: %d\n\n%s\n" % (n, b"x" * (n * 37)) for n in range(1, 61)]
    path = postern.user("u", "maildir", messages)
    postern.start()
    with postern.connect("u") as c:
        for n, name in enumerate(sorted(os.listdir(path / "cur")), 1):
            if n in gone:
                os.unlink(path / "cur" / name)
        for n in (*range(1, 61), *range(30, 50)):
            c.send(b"RETR %d\r\n" % n)
            answer = c.reply()
            if n in gone:
                assert answer.startswith(b"-ERR message %d is no longer there" % n)
            else:
                assert answer.startswith(b"+OK") and c.unstuffed() == wire(messages[n - 1])


def test_changes_meanwhile(ready, store):
    if store != "mbox":
        pytest.skip("a Maildir's message is a file of its own")
    postern, path = ready
    with postern.connect("u") as c:
        for n in (1, 2, 3):
            assert c.retr(n) == wire(MESSAGES[n - 1])
        path.write_bytes(mbox([b"Subject: another\n\nin front\n", *MESSAGES]))
        for n in ALL[3:]:
            assert c.retr(n) == wire(MESSAGES[n - 1])


def test_marks(ready, store):
    """What was only made is neither retrieved nor deleted."""
    postern, path = ready
    with postern.connect("u") as c:
        for n in (1, 2, 3):
            c.retr(n)
            c.ok(b"DELE %d" % n)
        assert c.cmd(b"QUIT").startswith(b"+OK")
    with postern.connect("u") as c:
        assert c.retr(1) == wire(MESSAGES[3])
