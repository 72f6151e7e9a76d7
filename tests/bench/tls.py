"""Scenario tls: whole sessions with a full handshake, and RETR over TLS. The servers are instances of their own, started anew for each kind of key.

Both servers' TLS is as it ships: Dovecot's with a login process a connection. "dovecot-hp" is Dovecot with login processes that serve any number
of connections each, all of them, and the key, in one process's memory: its manual's high-performance mode.
"""
import json
import pathlib
import shutil
import socket
import subprocess
import time

import servers as sv

KEYS = {"P-256": ["EC", "-pkeyopt", "ec_paramgen_curve:P-256"], "RSA 2048": ["RSA", "-pkeyopt", "rsa_keygen_bits:2048"]}
KIND = "maildir"


class Beside:
    """An instance beside the one of the other scenarios: its folders, its sockets, its ports."""

    folder = None       # where its name is not that of its folders

    def move(self, port):
        old, new = self.folder or self.name, self.name + "-tls"
        self.dir = sv.SRV / new
        self.port, self.tls_port = port, port + 1
        self.crt, self.key = self.dir / "server.crt", self.dir / "server.key"
        for path in ("/srv/", "/run/"):
            self.conf = self.conf.replace(path + old, path + new)
        pathlib.Path("/run", new).mkdir(mode=0o755, exist_ok=True)

    def use(self, kind):
        """Serves with a fresh key of that kind and a certificate that it signs itself."""
        self.stop()
        algorithm, *options = KEYS[kind]
        subprocess.run(["openssl", "genpkey", "-algorithm", algorithm, *options, "-out", self.key], check=True, capture_output=True)
        subprocess.run(["openssl", "req", "-x509", "-key", self.key, "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
            "-days", "30", "-out", self.crt], check=True, capture_output=True)
        self.key.chmod(0o600)
        self.start()
        until = time.monotonic() + sv.WAIT
        while True:     # TLS may begin a moment after the rest
            done = subprocess.run(["openssl", "s_client", "-quiet", "-connect", "127.0.0.1:%d" % self.tls_port], input=b"QUIT\r\n",
                capture_output=True)
            if b"+OK" in done.stdout:
                return
            if time.monotonic() > until:
                raise SystemExit("bench: %s has no TLS: %s" % (self.name, (self.dir / "log").read_text(errors="replace")[-3000:]))


class Postern(Beside, sv.Postern):
    def __init__(self, build):
        super().__init__(build)
        self.move(11210)
        self.conf += "[tls]\ncertificate = %s\nkey = %s\n" % (self.crt, self.key)

    def launch(self):
        for name, sock in (("spoold", "spoold.sock"), ("authd", "authd.sock")):
            self.daemon(name, sock)
        self.run([self.dir / "bin/pop3d", "-c", self.file, "-l", "127.0.0.1:%d" % self.port, "-s", "127.0.0.1:%d" % self.tls_port],
            as_user="_postern")


class Dovecot(Beside, sv.Dovecot):
    more = ""

    def __init__(self):
        super().__init__()
        self.move(11220 if self.folder is None else 11230)
        self.conf = self.conf.replace("ssl = no", "ssl = yes\nssl_cert = <%s\nssl_key = <%s" % (self.crt, self.key))
        self.conf = self.conf.replace("port = 11120", "port = %d" % self.port).replace("port = 0", "port = %d\n    ssl = yes" % self.tls_port)
        self.conf = self.conf.replace("service pop3-login {", "service pop3-login {" + self.more)

    def prepare(self):
        super().prepare()
        users = self.dir / "users"
        users.write_text("".join(r + "\n" for r in users.read_text().splitlines() if "maildir:" in r))


class DovecotHp(Dovecot):
    name, folder, more = "dovecot-hp", "dovecot", "\n  service_count = 0\n  process_min_avail = 2\n  client_limit = 1000"


def run(bench, server, user, scenario, *args):
    """As Bench.run, with the client for TLS."""
    before, start = len(server.meter.pids()), server.meter.milliseconds()
    done = subprocess.run([bench.tls_client, "-p", str(server.tls_port), "-u", user, "-w", sv.PASSWORD, *map(str, args), scenario],
        capture_output=True, text=True)
    if done.returncode != 0:
        server.log.flush()
        raise SystemExit("bench: %s, tls %s: %s\n%s" % (server.name, scenario, done.stderr,
            (server.dir / "log").read_text(errors="replace")[-2000:]))
    server.meter.settle(before)
    figures = json.loads(done.stdout.splitlines()[-1])
    figures["cpu"] = server.meter.milliseconds() - start
    return figures


def sessions(bench, servers, kind):
    for s in servers:
        run(bench, s, sv.user(KIND, ""), "poll", "-c", 32, "-n", 64)        # logged in once, warm
    count = 200 if bench.options.short else 600
    for scenario, what in (("poll", "tls %s, login STAT QUIT"), ("greet", "tls %s, handshake QUIT")):
        for clients in (1, 16):
            for _, s in bench.undisturbed(bench.rounds(servers)):
                got = run(bench, s, sv.user(KIND, ""), scenario, "-c", clients, "-n", count)
                row = "%s, %d client%s" % (what % kind, clients, "s"[:clients > 1])
                goal = 4 if scenario == "poll" and kind == "P-256" else 2 if scenario == "poll" else None
                bench.figures.add(row, "sessions", "1/s", "more", s.name, got["sessions"] / got["seconds"], goal, "dovecot")
                bench.figures.add(row, "CPU a session", "ms", "less", s.name, got["cpu"] / got["sessions"], None, "dovecot")


def messages(bench, servers):
    """As the scenarios retr and fetch."""
    for row, count, octets, depths in (("tls retr, %d x 1 MiB", 50 if bench.options.short else 300, 1 << 20, (1,)),
                                       ("tls fetch, %d x 4 KiB", 1000 if bench.options.short else 10000, 4096, (1, 64))):
        for s in servers:
            if s.name == "floor":
                bench.restart(s, count, octets)
            else:
                bench.copy_in(s, KIND, count, octets)
                run(bench, s, sv.user(KIND, sv.BIG), "retr", "-n", 1)
        for depth in depths:
            for _, s in bench.undisturbed(bench.rounds(servers)):
                got = bench.retrieve(s, KIND, depth, count, lambda *a: run(bench, *a))
                bench.fetched(row % count + (", pipelined" if depth > 1 else ", one at a time" if len(depths) > 1 else ""), s.name, got,
                    octets, depth)
        for s in servers:
            bench.clear(s, KIND)


class Floor(Beside, sv.Floor):
    conf = ""

    def __init__(self, build):
        super().__init__(build)
        self.move(11240)
        self.port = self.tls_port

    def launch(self):
        self.run([self.dir / "floor", self.tls_port, self.messages, self.octets, self.crt, self.key])

    def greeted(self):
        """It has no port in the clear; use() waits for more than this."""
        try:
            socket.create_connection(("127.0.0.1", self.tls_port), 5).close()
            return True
        except OSError:
            return False


def scenario(bench):
    bench.tls_client = shutil.copy(bench.options.build / "bench/tls_client", "/srv/tls_client")
    servers = [Postern(bench.options.build), Dovecot(), DovecotHp(), Floor(bench.options.build)]
    servers = [s for s in servers if (s.folder or s.name) in bench.names]
    try:
        for s in servers:
            s.prepare()
            for n in range(32 if s.name != "floor" else 0):
                s.fill(KIND, n, 20, 2200)
        for kind in KEYS:
            for s in servers:
                s.use(kind)
            sessions(bench, servers, kind)
        messages(bench, servers)
    finally:
        for s in servers:
            s.stop()
