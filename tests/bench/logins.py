"""Scenario logins: what a login costs when nothing else does: empty maildrops, a password that is remembered, and an app password.

Three figures. "sessions": connect, login, STAT, QUIT. "login": the CPU time of that less that of connect and QUIT alone, so that what is left is the
login with the opening of an empty maildrop. "verdict": the CPU time of the processes that know the passwords (authd; Dovecot's auth), by the
kernel's account of them. Dovecot has its auth cache on, which its package has not.

Scenario million: the same store with a million users more: how long they take to import, what a change of one user takes then, what a verdict
costs for users that are spread over all of them, and what memory authd has (its hashers, which come and go with a hash, not counted).
"""
import pathlib
import random
import shutil
import socket
import subprocess
import time

import mailbox_make as make
import servers as sv

KIND = "maildir"
CACHE = "auth_cache_size = 10 M\nauth_cache_ttl = 1 hour\nauth_cache_negative_ttl = 1 hour\n"
PROGRAMS = {"postern": "authd", "dovecot": "auth"}


def verdict_ms(server):
    """Milliseconds that the server's processes that know the passwords have run so far."""
    total = 0
    for pid in server.meter.pids():
        try:
            name = pathlib.Path("/proc/%d/comm" % pid).read_text().strip()
            if name.split(":")[0] == PROGRAMS[server.name]:
                total += int(pathlib.Path("/proc/%d/schedstat" % pid).read_text().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / 1e6


def app_password(server):
    return subprocess.run([server.dir / "bin/authctl", "-c", server.file, "app", "add", sv.user(KIND, 0), "bench"], capture_output=True, text=True,
        check=True).stdout.strip()


def measure(bench, server, row, clients, sessions, password, goal):
    options = ("-c", clients, "-n", sessions)
    bare = bench.run(server, sv.user(KIND, ""), "greet", *options)
    before = verdict_ms(server)
    got = bench.run(server, sv.user(KIND, ""), "poll", *options, "-w", password)
    verdict = (verdict_ms(server) - before) / sessions
    add = bench.figures.add
    add(row, "sessions", "1/s", "more", server.name, got["sessions"] / got["seconds"], goal)
    add(row, "CPU a login", "ms", "less", server.name, (got["cpu"] - bare["cpu"]) / sessions, goal and 1 / goal)
    add(row, "CPU a verdict", "ms", "less", server.name, verdict, goal and 1 / goal)


def scenario(bench):
    servers = [s for s in bench.with_kind(KIND) if s.name in PROGRAMS]
    passwords = {}
    for s in servers:
        if s.name == "dovecot":
            s.stop()
            (s.dir / "conf").write_text(CACHE + s.conf)
            s.start()
        else:
            passwords[s.name] = app_password(s)
        for n in range(32):
            make.maildrop(KIND, s.maildrop(KIND, n), 0, 0, sv.uid(KIND, n), cur=True)
        bench.run(s, sv.user(KIND, ""), "poll", "-c", 32, "-n", 64)
    sessions = 400 if bench.options.short else 1000
    for _, s in bench.rounds(servers):
        measure(bench, s, "logins, remembered, 8 clients", 8, sessions, sv.PASSWORD, 3)
    for _, s in bench.rounds(servers):
        # the peer has no app passwords: its figure is that of a remembered one
        measure(bench, s, "logins, app password, 1 client", 1, sessions // 2, passwords.get(s.name, sv.PASSWORD), 3)


# A million users

MANY = 1000000


def sessions(server, users):
    """One after the other, each with login and QUIT."""
    for user in users:
        with socket.create_connection(("127.0.0.1", server.port), 30) as s, s.makefile("rb") as answers:
            for command in (None, "USER " + user, "PASS " + sv.PASSWORD, "QUIT"):
                if command is not None:
                    s.sendall(command.encode() + b"\r\n")
                answer = answers.readline()
                if not answer.startswith(b"+OK"):
                    raise SystemExit("bench: %s, %s: %s" % (user, command, answer.decode(errors="replace")))


def authd_memory(server):
    """Mebibytes, shared pages by halves and thirds, of all processes but the hashers; each as large as it has been."""
    total = 0
    for pid in server.meter.pids():
        try:
            name = pathlib.Path("/proc/%d/comm" % pid).read_text().strip()
            if name.startswith("authd") and name != "authd: hasher":
                rows = pathlib.Path("/proc/%d/smaps_rollup" % pid).read_text().splitlines()
                total += sum(int(r.split()[1]) for r in rows if r.startswith("Pss:"))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return total / 1024


def seconds(argv):
    start = time.monotonic()
    subprocess.run(argv, check=True, capture_output=True, input=sv.PASSWORD.encode() + b"\n")
    return time.monotonic() - start


def measure_store(bench, server, row, users):
    sessions(server, users)     # each has logged in once
    for _ in range(bench.options.rounds):
        random.shuffle(users)
        before = verdict_ms(server)
        sessions(server, users)
        bench.figures.add(row, "CPU a verdict", "ms", "less", server.name, (verdict_ms(server) - before) / len(users))
    bench.figures.add(row, "memory of authd", "MiB", "less", server.name, authd_memory(server))


def million(bench):
    server = next(s for s in bench.servers if s.name == "postern")
    authctl, add = [server.dir / "bin/authctl", "-c", server.file], bench.figures.add
    # a first login makes a hash of our own, which is not what is measured here
    cheap = ["--opslimit", "1", "--memlimit", "64", "--iterations", "4096"]
    store = [server.dir / "users.db", server.dir / "maildrops.db"]
    for path in store:
        shutil.copy(path, str(path) + ".kept")
    uid, names = sv.uid(KIND, 0), ["x%07d" % n for n in range(MANY)]
    random.seed(1)
    some = random.sample(names, 500 if bench.options.short else 3000)
    try:
        for what, users in (("ten users", names[:10]), ("a million users", names)):
            file = server.dir / "import"
            with file.open("w") as f:
                f.writelines("%s:{CRYPT}%s:%d:%d::/::userdb_mail=mbox:/srv/postern/mbox/%s\n" % (u, sv.DES, uid, uid, u) for u in users)
            took = seconds([*authctl, "import", "dovecot", file, "--replace", *cheap])
            add(what, "import", "s", "less", server.name, took)
            file.unlink()
            for _ in range(3):
                add(what, "passwd of one", "s", "less", server.name, seconds([*authctl, "passwd", "x0000000", *cheap]))
            measure_store(bench, server, what, some if len(users) > 10 else [users[i % 10] for i in range(len(some))])
    finally:
        for path in store:
            shutil.move(str(path) + ".kept", path)
