"""How much memory a connection costs: so many held open before login, then so many sessions. Figures per process kind, in KiB of PSS.

usage: POSTERN_BUILD=build memory.py [CONNECTIONS [SESSIONS]]     (2000 and 500)
"""
import pathlib
import re
import resource
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402


def pss(p):
    """{kind: (processes, KiB)}"""
    found = {}
    for name in ("pop3d", "authd", "spoold"):
        for pid in p.daemon(name).session():
            try:
                text = pathlib.Path("/proc/%d/smaps_rollup" % pid).read_text()
            except OSError:
                continue
            kind = name + "/" + harness.process_name(pid)
            n, k = found.get(kind, (0, 0))
            found[kind] = (n + 1, k + int(re.search(r"^Pss:\s+(\d+)", text, re.M)[1]))
    return found


def show(title, figures, clients):
    total = sum(k for _, k in figures.values())
    print("%s: %d KiB in all, %.0f KiB a connection" % (title, total, total / max(1, clients)))
    for kind, (n, k) in sorted(figures.items()):
        print("    %-24s %5d processes %8d KiB %8.1f KiB each" % (kind, n, k, k / n))
    sys.stdout.flush()


def main():
    connections, sessions = [int(x) for x in sys.argv[1:3]] or (2000, 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    with harness.Postern(conf={"pop3d": {"max-connections": 5000, "max-per-address": 5000, "login-timeout": 3600, "prefork": 4},
                               "postern": {"log-level": "warning"}}) as p:
        message = b"Subject: x\n\n" + b"line of text\n" * 100
        for i in range(sessions):
            p.user("u%d" % i, "mbox" if i % 2 else "maildir", [message] * 20)
        p.write_conf(postern={"log-level": "info"})
        p.start()
        show("nothing", pss(p), 0)
        begun = time.monotonic()
        held = [p.connect() for _ in range(connections)]
        assert all(c.banner.startswith(b"+OK") for c in held)
        took = time.monotonic() - begun
        show("%d before login (%.1f s)" % (connections, took), pss(p), connections)
        for c in held:
            c.close()
        for pid, _ in harness.children(p.daemon("pop3d").pid):
            if harness.process_name(pid) == "pop3d":
                harness.wait_pid(pid, 5)
        begun = time.monotonic()
        held = []
        for i in range(sessions):
            c = p.connect("u%d" % i)
            assert c.stat()[0] == 20
            held.append(c)
        took = time.monotonic() - begun
        show("%d sessions (%.1f s)" % (sessions, took), pss(p), sessions)
        for c in held:
            assert c.quit().startswith(b"+OK")


if __name__ == "__main__":
    main()
