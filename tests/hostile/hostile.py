"""A pop3d that was taken over: says to authd's verifier, to its keeper and to a worker what pop3d never says.

usage: hostile.py WHAT RUN-DIR ROSTER COUNT SEED [USER PASSWORD [OTHER]]

Prints what came of it as JSON. Whatever the receivers do, this program goes on until it has sent COUNT packets.
"""
import array
import fcntl
import json
import os
import random
import socket
import struct
import sys

MAGIC = 0x504f5301
MECHANISM_USER = 6


class Roster(dict):
    def __init__(self, path):
        for row in open(path):
            name, number, size = row.split()
            self[name] = (int(number), int(size))

    def packet(self, name, body=b""):
        number, size = self[name]
        return (struct.pack("=II", MAGIC, number) + body).ljust(size, b"\0")[:size]


class Liar:
    def __init__(self, run, roster, count, seed):
        self.run, self.roster, self.left, self.random = run, roster, count, random.Random(seed)
        self.done = {"packets": 0, "connections": 0, "cut": 0, "answers": {}}
        self.names = {number: name for name, (number, size) in roster.items()}
        self.spare = [os.open("/dev/null", os.O_RDONLY), *socket.socketpair()]
        self.fds = [f if isinstance(f, int) else f.fileno() for f in self.spare]

    def connect(self, name):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.connect(os.path.join(self.run, name))     # waits while its queue is full
        s.settimeout(20)
        self.done["connections"] += 1
        return s

    def send(self, s, data, fds=()):
        """False once the other side has hung up."""
        self.left -= 1
        self.done["packets"] += 1
        control = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        try:
            s.sendmsg([data], control)
            return True
        except (BrokenPipeError, ConnectionResetError):
            self.done["cut"] += 1
            return False
        except (BlockingIOError, socket.timeout):
            return True
        except OSError as e:
            if e.errno == 90:   # EMSGSIZE: the kernel has its own limit
                return True
            raise

    def answer(self, s, wait=20):
        """(name, body, descriptors); None at the end of the conversation, False if there is no answer."""
        s.settimeout(wait)
        try:
            data, control, _, _ = s.recvmsg(65536, 256)
        except (BlockingIOError, socket.timeout):
            return False
        except ConnectionResetError:
            return None
        fds = array.array("i")
        for level, kind, payload in control:
            if kind == socket.SCM_RIGHTS:
                fds.frombytes(payload[:len(payload) - len(payload) % 4])
        if not data:
            return None
        name = self.names.get(struct.unpack_from("=I", data, 4)[0], "?")
        self.done["answers"][name] = self.done["answers"].get(name, 0) + 1
        return name, data[8:], list(fds)

    # what is said

    def some_body(self, name):
        size = self.roster[name][1] - 8
        kind = self.random.randrange(4)
        if kind == 0:
            return b"\0" * size
        if kind == 1:
            return b"\xff" * size
        if kind == 2:
            return self.random.randbytes(size)
        return b"".join(struct.pack("=I", self.random.randrange(12)) for _ in range(size // 4 + 1))[:size]

    def hello(self, session=None):
        session = session or "%016x" % self.random.getrandbits(64)
        return self.roster.packet("HELLO", session.encode().ljust(17, b"\0") + b"127.0.0.1".ljust(48, b"\0") + b"127.0.0.1".ljust(48, b"\0"))

    def auth(self, user, password, authzid=""):
        data = ("%s\0%s\0%s" % (authzid, user, password)).encode()
        return self.roster.packet("AUTH", struct.pack("=III", MECHANISM_USER, 1, len(data)) + data)

    def anything(self):
        """A packet and its descriptors: of the roster or not, of its size or not."""
        kind = self.random.randrange(10)
        fds = [self.random.choice(self.fds) for _ in range(self.random.choice((0, 0, 0, 1, 2, 3, 60)))]
        name = self.random.choice(list(self.roster))
        whole = self.roster.packet(name, self.some_body(name))
        if kind < 5:
            return whole, fds if self.random.randrange(3) == 0 else []
        if kind == 5:
            return whole[:self.random.randrange(len(whole))], fds
        if kind == 6:
            return whole + self.random.randbytes(self.random.randrange(1, 70000)), fds
        if kind == 7:
            return self.random.randbytes(self.random.randrange(0, 200)), fds
        if kind == 8:
            return struct.pack("=II", MAGIC, self.random.getrandbits(32)) + b"\0" * 64, fds
        return self.hello(), []

    # whole attacks

    def verifier(self):
        """Anything at all, alone and after a good beginning."""
        while self.left > 0:
            s = self.connect("authd.sock")
            if self.random.randrange(2):
                self.send(s, self.hello())
            if self.random.randrange(4) == 0:
                self.send(s, self.auth("nobody-here", "x"))
                if self.random.randrange(2):
                    self.answer(s)
            for _ in range(self.random.randrange(1, 12)):
                if not self.send(s, *self.anything()):
                    break
            s.close()

    def too_often(self):
        """Every message that may come, until it may not any more; answers unread."""
        while self.left > 0:
            s = self.connect("authd.sock")
            s.setblocking(False)
            self.send(s, self.roster.packet("GREET", b"0" * 16))
            self.send(s, self.hello())
            for _ in range(200):
                if not self.send(s, self.auth("nobody-here", "y")):
                    break
            s.close()

    def crowd(self):
        """More connections than may be, silent and then gone."""
        while self.left > 0:
            held = []
            for _ in range(400):
                held.append(self.connect("authd.sock"))
                self.left -= 1
            for s in held:
                s.close()

    def keeper(self):
        while self.left > 0:
            s = self.connect("keeper.sock")
            got = self.answer(s)
            for fd in got[2] if got else []:
                os.close(fd)
            for _ in range(self.random.randrange(1, 8)):
                if self.random.randrange(3) == 0:
                    body = self.random.randbytes(32) + struct.pack("=II", self.random.randrange(12), self.random.randrange(260))
                    more = self.send(s, self.roster.packet("SIGN", body + self.random.randbytes(204)))
                else:
                    more = self.send(s, *self.anything())
                if not more:
                    break
            s.close()

    def login(self, user, password):
        """A worker's socket, as pop3d gets it."""
        s = self.connect("authd.sock")
        self.send(s, self.hello())
        self.send(s, self.auth(user, password))
        got = self.answer(s)
        if not got or got[0] != "GRANTED":
            raise SystemExit("no login: %r" % (got and got[0],))
        worker = socket.socket(fileno=got[2][0])
        return s, worker

    def memfd(self, octets, sealed):
        fd = os.memfd_create("marks", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
        os.write(fd, octets)
        if sealed:
            fcntl.fcntl(fd, 1033, 0xf)
        return fd

    def worker(self, user, password):
        """After login: anything to the worker. No UPDATE of these is good, so the mailbox must stay as it is."""
        while self.left > 0:
            s, w = self.login(user, password)
            got = self.answer(w)
            if not got or got[0] != "READY":
                raise SystemExit("no READY: %r" % (got and got[0],))
            count = struct.unpack_from("=QI", got[1])[1]
            for fd in got[2]:
                os.close(fd)
            for _ in range(self.random.randrange(1, 30)):
                kind = self.random.randrange(8)
                if kind < 4:    # numbers that are there and that are not
                    number = self.random.choice((0, 1, count, count + 1, 0x7fffffff, 0xffffffff))
                    more = self.send(w, self.roster.packet("FETCH", struct.pack("=I", number)))
                    if more and self.random.randrange(2):
                        reply = self.answer(w)
                        for fd in reply[2] if reply else []:
                            os.close(fd)
                        more = bool(reply)
                elif kind == 4:
                    bad = self.random.randrange(3)
                    marks = self.memfd(b"\x01" * (count if bad < 2 else count + 5), sealed=bad == 1)
                    more = self.send(w, self.roster.packet("UPDATE", struct.pack("=I", count + (bad == 1))), [marks])
                    os.close(marks)
                elif kind == 5:
                    more = self.send(w, self.roster.packet("UPDATE", struct.pack("=I", count)), [self.fds[0]])
                else:
                    data, fds = self.anything()
                    if data[4:8] in [struct.pack("=I", self.roster[name][0]) for name in ("RELEASE", "LEAVE")]:
                        continue
                    more = self.send(w, data, fds)
                if not more:
                    break
            w.close()
            s.close()

    def others(self, user, password, other):
        """Another user's anything: his name with one's own password, his session's id, spoold itself."""
        outcome = {}
        s = self.connect("authd.sock")
        self.send(s, self.hello())
        for authzid, name in (("", other), (other, user), ("", user + "\0" + other)):
            self.send(s, self.auth(name, password, authzid))
            got = self.answer(s)
            outcome["auth as %r/%r" % (authzid, name)] = got[0] if got else "end"
        s.close()
        mine = "%016x" % self.random.getrandbits(64)
        s = self.connect("authd.sock")
        self.send(s, self.hello(mine))
        self.send(s, self.auth("nobody-here", "x"))
        self.answer(s)
        t = self.connect("authd.sock")
        self.send(t, self.hello(mine))
        outcome["a session id that is in use"] = "end" if self.answer(t, 5) is None else "kept"
        for name in ("spoold.sock", "spoold.ctl", "authd.ctl"):
            try:
                d = self.connect(name)
                open_message = self.roster.packet("OPEN", b"%016x\0" % 7 + other.encode().ljust(256, b"\0"))
                self.send(d, open_message)
                got = self.answer(d)
                outcome[name] = got[0] if got else "end"
            except OSError as e:
                outcome[name] = e.strerror
        s.close()
        t.close()
        self.done["outcome"] = outcome


def main():
    what, run, roster, count, seed, *more = sys.argv[1:]
    liar = Liar(run, Roster(roster), int(count), int(seed))
    getattr(liar, what)(*more)
    print(json.dumps(liar.done))


if __name__ == "__main__":
    main()
