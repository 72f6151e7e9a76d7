"""Many wrong logins at once: what waits for the hashers is bounded, and whoever has not failed goes before those who have.

`make flood` is the long run: 10,000 wrong logins from 200 addresses, 50 right ones among them, at the default cost of a hash.
"""
import collections
import os
import resource
import selectors
import signal
import socket
import time

import pytest

import harness
from harness import CHEAP, PASSWORD
from test_login import MESSAGES, From, b64, cram, plain, scram

FLOOD = int(os.environ.get("FLOOD", "0"))       # how many wrong logins; 0: the short run of `make check`
QUEUE_MOST = 256        # authd/workers.h


def wrong(user):
    return b"AUTH PLAIN " + b64(b"\0%s\0wrong" % user) + b"\r\n"


def reply_of_any(clients):
    """Waits until one of them has got its answer; that one, and the answer."""
    with selectors.DefaultSelector() as s:
        for c in clients:
            s.register(c.socket, selectors.EVENT_READ, c)
        ready = s.select(harness.TIMEOUT)
        assert ready, "nobody was answered"
        return ready[0][0].data, ready[0][0].data.reply()


def logged(p, what, count):
    """The lines of authd's log that have it; there are to be so many."""
    authd = p.daemon("authd")
    with authd.changed:
        assert authd.changed.wait_for(lambda: sum(what in x for x in authd.lines) >= count, harness.TIMEOUT)
        found = [x for x in authd.lines if what in x]
    assert len(found) == count
    return found


def hasher_of(p):
    """The one hasher. Until somebody has logged in with a password it may still be on its way."""
    [hasher] = [pid for pid, name in harness.children(p.daemon("authd").pid) if name == "authd: hasher"]
    return hasher


def test_queue_of_the_hashers(make_postern):
    """
    The hasher stands still, and guesses fill its queue. More of them are refused; a right login from elsewhere gets a place all the same,
    at the cost of the last guess, and goes before all but those that were not known for guesses.
    """
    p = make_postern({"postern": {"log-level": "debug"}, "authd": {"throttle": "on", "cache-ttl": 0}})
    p.maildir("u", MESSAGES)
    # his hash is told from that of unknown users by its cost, which is that of who was added last
    p.authctl("add", "u", "--maildrop", "maildir:%s" % (p.mail / "u"), "--opslimit", "2", *CHEAP[2:], password=PASSWORD)
    p.add("last")
    p.start()
    assert b"[AUTH]" in plain(p, "last", "wrong")
    hasher = hasher_of(p)
    os.kill(hasher, signal.SIGSTOP)
    try:
        addresses, more = 10, 3
        waiting = []
        for i in range(1 + QUEUE_MOST + more):
            c = From(p.port, "127.0.5.%d" % (i % addresses + 1))
            c.send(wrong(b"guess%d" % i))
            waiting.append(c)
        for _ in range(more):
            c, row = reply_of_any(waiting)
            assert b"[SYS/TEMP]" in row, row
            waiting.remove(c)
            c.close()
        right = From(p.port, "127.0.6.1")
        right.send(b"AUTH PLAIN " + b64(b"\0u\0" + PASSWORD.encode()) + b"\r\n")
        c, row = reply_of_any(waiting)
        assert b"[SYS/TEMP]" in row, "a guess makes room: %r" % row
        waiting.remove(c)
        c.close()
    finally:
        os.kill(hasher, signal.SIGCONT)
    assert right.reply().startswith(b"+OK")
    assert {c.reply()[:11] for c in waiting} == {b"-ERR [AUTH]"}
    for c in [*waiting, right]:
        c.close()
    asked = [b"t=2" in x for x in logged(p, b"event=work of=hasher", 1 + len(waiting) + 1)]
    assert asked.index(True) <= 1 + addresses + 1, "%d guesses of %d went before" % (asked.index(True), len(waiting))


def test_only_hashes_wait_for_hashers(make_postern):
    """While the hasher stands still: who needs no slow hash logs in. Then it is killed, and who waited is told to come again."""
    p = make_postern({"authd": {"mechanisms": "SCRAM-SHA-256 CRAM-MD5 PLAIN", "cache-ttl": 300, "throttle": "on"}})
    p.user("u", "maildir", MESSAGES)
    p.add("v")
    app, secret = (p.authctl(*args, "u", *more).stdout.decode().strip() for args, more in ((("app", "add"), ["x"]), (("secret",), [])))
    p.passwords |= {app, secret}
    p.start()
    assert plain(p, "u", PASSWORD).startswith(b"+OK")
    hasher = hasher_of(p)
    os.kill(hasher, signal.SIGSTOP)
    with p.connect() as waiting:
        waiting.send(b"AUTH PLAIN " + b64(b"\0v\0" + PASSWORD.encode()) + b"\r\n")
        assert plain(p, "u", PASSWORD).startswith(b"+OK"), "remembered"
        assert plain(p, "u", app).startswith(b"+OK")
        assert scram(p, "u", PASSWORD)[0].startswith(b"+OK")
        assert cram(p, "u", secret).startswith(b"+OK")
        os.kill(hasher, signal.SIGKILL)
        assert b"[SYS/TEMP]" in waiting.reply()
    deadline = time.monotonic() + harness.TIMEOUT
    while b"[SYS/TEMP]" in (row := plain(p, "u", "wrong")):     # until there is another hasher
        assert time.monotonic() < deadline
    assert b"[AUTH]" in row


@pytest.mark.skipif(not FLOOD, reason="takes a minute: make flood")
def test_deadline_of_the_hashers(make_postern):
    """Who has waited for a hasher for 45 seconds is told to come again."""
    p = make_postern({"authd": {"cache-ttl": 0}})
    p.user("u", "maildir", MESSAGES)
    p.start()
    assert plain(p, "u", PASSWORD).startswith(b"+OK")
    hasher = hasher_of(p)
    os.kill(hasher, signal.SIGSTOP)
    with p.connect() as c:
        c.socket.settimeout(90)
        row = c.cmd(b"AUTH PLAIN " + b64(b"\0u\0" + PASSWORD.encode()))
        assert b"[SYS/TEMP]" in row
    os.kill(hasher, signal.SIGCONT)
    p.daemon("authd").wait_line("event=login result=fail reason=timeout")
    assert plain(p, "u", PASSWORD).startswith(b"+OK")


class Guesser:
    """One connection at a time from one address: banner, a wrong login, its answer, the next."""

    def __init__(self, flood, address):
        self.flood, self.address, self.socket = flood, address, None
        self.next()

    def next(self):
        if self.socket is not None:
            self.flood.selector.unregister(self.socket)
            self.socket.close()
            self.socket = None
        if self.flood.left == 0:
            return
        self.flood.left -= 1
        self.buffer, self.asked = b"", False
        self.socket = socket.create_connection(("127.0.0.1", self.flood.port), harness.TIMEOUT, source_address=(self.address, 0))
        self.flood.selector.register(self.socket, selectors.EVENT_READ, self)

    def on_ready(self):
        data = self.socket.recv(4096)
        self.buffer += data
        if data and not self.buffer.endswith(b"\n"):
            return
        if not self.asked and self.buffer.startswith(b"+OK"):
            self.asked, self.buffer = True, b""
            self.socket.sendall(wrong(self.flood.user()))
            return
        self.flood.answer(self.buffer)
        self.next()


class Flood:
    """So many wrong logins, a few at a time from each address."""

    def __init__(self, p, count, addresses, each, users):
        self.selector, self.port, self.left, self.users = selectors.DefaultSelector(), p.port, count, users
        self.answers, self.turn = collections.Counter(), 0
        self.guessers = [Guesser(self, "127.0.%d.%d" % (8 + i // 250, 1 + i % 250)) for i in range(addresses) for _ in range(each)]

    def user(self):
        """Every second one is somebody's."""
        self.turn += 1
        return self.users[self.turn // 2 % len(self.users)].encode() if self.turn % 2 else b"nobody%d" % self.turn

    def answer(self, row):
        kind = row.split(b"]")[0] if b"[" in row else row.strip()
        assert not row.startswith(b"+OK"), row
        self.answers[kind.decode()] += 1

    @property
    def answered(self):
        return sum(self.answers.values())

    def run(self, until):
        """Until so many have been answered."""
        while self.answered < until and self.selector.get_map():
            ready = self.selector.select(60)
            assert ready, "nobody is answered any more"
            for key, _ in ready:
                key.data.on_ready()


def memory(p):
    """The most that each process of authd has had so far, in KiB, by name: all hashers under one."""
    found = collections.Counter()
    for pid in p.daemon("authd").session():
        status = harness.status_of(pid)
        found[harness.process_name(pid)] += int(status["VmHWM"].split()[0])
    return found


def log_in(p, address, user):
    """A right login; how long it took."""
    with From(p.port, address) as c:
        c.socket.settimeout(90)
        start = time.monotonic()
        c.send(b"AUTH PLAIN " + b64(b"\0%s\0%s" % (user.encode(), PASSWORD.encode())) + b"\r\n")
        row = c.reply()
        assert row.startswith(b"+OK"), "%s from %s: %r" % (user, address, row)
        took = time.monotonic() - start
        c.ok(b"QUIT")
        return took


def test_flood(make_postern):
    """Wrong logins from many addresses, half of them at real accounts; their owners log in meanwhile from elsewhere, at the first attempt."""
    count, addresses, each, owners, cost = (FLOOD, 200, 8, 50, []) if FLOOD else (150, 50, 2, 5, CHEAP)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    p = make_postern({"authd": {"throttle": "on", "cache-ttl": 0, "hashers": 2},
                      "pop3d": {"max-connections": 3000, "max-per-address": 100, "login-timeout": 120}})
    users = ["u%d" % i for i in range(owners)]
    for at in range(0, owners, 5):      # at the default cost they take a while
        path = p.dir / "users"
        path.write_text("".join("%s:{PLAIN}%s:%d:%d::/::userdb_mail=maildir:%s\n" % (u, PASSWORD, p.uid, p.uid, p.maildir(u, MESSAGES))
                                for u in users[at:at + 5]))
        p.own(path)
        p.authctl("import", "dovecot", path, *cost)
    p.start()
    log_in(p, "127.0.7.200", users[0])
    before = memory(p)
    start, took = time.monotonic(), []
    flood = Flood(p, count, addresses, each, users)
    for i, user in enumerate(users):
        flood.run(count * (i + 1) // (owners + 1))
        took.append(log_in(p, "127.0.7.%d" % (i + 1), user))
    flood.run(count)
    seconds = time.monotonic() - start
    after = memory(p)
    assert flood.answered == count and set(flood.answers) <= {"-ERR [AUTH", "-ERR [SYS/TEMP"}, flood.answers
    assert not any(b"child-died" in x for x in p.daemon("authd").lines)
    grown = after["authd: verifier"] - before["authd: verifier"]
    assert grown < 16 * 1024, "the verifier has grown by %d KiB" % grown
    lines = logged(p, b"event=login", count + owners + 1)
    assert sum(b"result=ok" in x for x in lines) == owners + 1
    if FLOOD:
        took.sort()
        print("\n%d wrong logins from %d addresses in %.0f s: %s" % (count, addresses, seconds, dict(flood.answers)))
        print("%d right ones: all succeeded; median %.2f s, longest %.2f s" % (owners, took[len(took) // 2], took[-1]))
        print("KiB at most: %s; before: %s" % (dict(after), dict(before)))
        print("reasons: %s" % collections.Counter(x.split(b"reason=")[1].split()[0].decode() for x in lines))
