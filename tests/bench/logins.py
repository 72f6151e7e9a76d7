"""Scenario logins: what a login costs when nothing else does: empty maildrops, a password that is remembered, and an app password.

Three figures. "sessions": connect, login, STAT, QUIT. "login": the CPU time of that less that of connect and QUIT alone, so that what is left is the
login with the opening of an empty maildrop. "verdict": the CPU time of the processes that know the passwords (authd; Dovecot's auth), by the
kernel's account of them. Dovecot has its auth cache on, which its package has not.
"""
import pathlib
import subprocess

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
