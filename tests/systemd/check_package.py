"""The Debian package where it is meant to be: see check.mk."""
import contextlib
import os
import pathlib
import poplib
import re
import shutil
import socket
import sys
import threading

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from machine import Failed, Machine, await_true, certificate, copy, main, package, run  # noqa: E402

PASSWORD = "correct horse battery staple"
MOST = {"postern-pop3d.service": 2.0, "postern-authd.service": 4.0, "postern-spoold.service": 4.0, "pop3-each@0.service": 2.0, "pop3s-each@0.service": 2.0}
SERVICES = ("postern-pop3d", "postern-authd", "postern-spoold")
MESSAGE = "From sender@example.org Thu Jan  1 00:00:00 2026\nFrom: sender@example.org\nSubject: %s\n\nText of %s.\n\n"
# What installing and purging leaves of itself on any Debian: what was logged, apt's and dpkg's own, the accounts, whose numbers stay taken.
OTHERS = re.compile(r"^/(proc|sys|run/(?!postern)|dev|tmp|var/(log|cache|tmp|lib/(dpkg|apt|systemd|private|dbus|pam|ucf|misc))|root|etc/(passwd|group|shadow|gshadow|"
                    r"subuid|subgid|mtab|ld\.so\.cache|\.updated|.*\.dpkg-.*|.*-$|machine-id|resolv\.conf|ssl)|home|srv|boot|var/mail|var/spool)(/|$|-)")


def mailbox(root, user, uid, *subjects):
    path = root / "var/mail" / user
    path.write_text("".join(MESSAGE % (s, s) for s in subjects))
    os.chown(path, uid, 8)
    path.chmod(0o660)
    return path


def subjects(c):
    return [next(line for line in c.retr(n + 1)[1] if line.startswith(b"Subject: ")).decode()[9:] for n in range(c.stat()[0])]


def files(root):
    """All that is on the disk of the container, but what belongs to others."""
    found = set()
    for folder, names, plain in os.walk(root):
        for name in names + plain:
            path = os.path.join(folder, name)[len(str(root)):]
            if not OTHERS.match(path):
                found.add(path)
    return found


def exposures(m, names):
    rows = {}
    for name in names:
        text = m.run("systemd-analyze", "security", "--no-pager", name)
        rows[name] = float(re.search(r"Overall exposure level for \S+: ([0-9.]+)", text)[1])
        assert rows[name] <= MOST[name], "%s: %s, and at most %s was promised\n%s" % (name, rows[name], MOST[name], text)
    return rows


@contextlib.contextmanager
def visitors(m, context):
    """Somebody connects again and again meanwhile: the ports are never closed, and the greeting comes."""
    stop, seen = threading.Event(), []

    def visit():
        while not stop.is_set():
            try:
                c = m.pop3(995, context) if len(seen) % 2 else m.pop3(110)
                c.quit()
                seen.append(None)
            except (OSError, poplib.error_proto) as e:
                seen.append(e)
                if isinstance(e, ConnectionRefusedError):
                    return
    t = threading.Thread(target=visit)
    t.start()
    try:
        yield seen
    finally:
        stop.set()
        t.join()
    refused = [e for e in seen if isinstance(e, ConnectionRefusedError)]
    assert not refused, "a connection was refused: the socket was closed for a moment"
    assert seen and seen[-1] is None, "in the end nobody is served: %r" % seen[-1]


def session_survives(m, context, mail, what):
    """A session that has begun before and ends after: its UPDATE is carried out."""
    before = mail.read_text().count("\nSubject: ")
    c = m.login("alice", PASSWORD, port=995, context=context)
    assert c.stat()[0] == before
    c.dele(1)
    with visitors(m, context):
        what()
        again = m.login("bob", PASSWORD, port=995, context=context)
        assert again.stat()[0] == 1
        again.quit()
    last = c.retr(before)[1]
    assert any(line.startswith(b"Text of ") for line in last)
    c.quit()
    assert mail.read_text().count("\nSubject: ") == before - 1


def many_at_once(m, context, count=20):
    """More than processes wait for: each of the others has one that is forked for it."""
    with contextlib.ExitStack() as left:
        for n in range(count):
            c = m.pop3(995, context) if n % 2 else m.pop3(110)
            left.callback(c.close)
            assert "TOP" in c.capa()


def install(m, deb, root):
    shutil.copy(deb, root / "root" / deb.name)
    out = m.run("apt-get", "-q", "-y", "install", "/root/" + deb.name)
    assert "error" not in out.lower(), out


def set_conf(root, section, text):
    path = root / "etc/postern/postern.conf"
    conf = path.read_text()
    assert "[%s]\n" % section in conf
    path.write_text(conf.replace("[%s]\n" % section, "[%s]\n%s" % (section, text), 1))


def accept_yes(m, root, context):
    """The pair of examples with Accept=yes instead."""
    for f in (root / "usr/share/doc/postern/examples/accept-yes").iterdir():
        shutil.copy(f, root / "etc/systemd/system" / f.name)
    m.run("systemctl", "daemon-reload")
    m.run("systemctl", "stop", "pop3.socket", "pop3s.socket", "postern-pop3d.service")
    m.run("systemctl", "start", "pop3-each.socket", "pop3s-each.socket")
    a, b = m.login("bob", PASSWORD, port=995, context=context), m.pop3(110)
    assert a.stat()[0] == 1
    units = m.run("systemctl", "list-units", "--plain", "--no-legend", "pop3*-each@*")
    assert len(units.splitlines()) == 2, units
    figures = exposures(m, ["pop3-each@0.service", "pop3s-each@0.service"])
    a.quit()
    b.quit()
    m.run("systemctl", "stop", "pop3-each.socket", "pop3s-each.socket")
    for f in (root / "etc/systemd/system").glob("pop3*-each*"):
        f.unlink()
    m.run("systemctl", "daemon-reload")
    m.run("systemctl", "start", "pop3.socket", "pop3s.socket")
    return figures


def monitoring(m, root):
    """The units for Prometheus, each in its own confinement, find all three daemons."""
    units = sorted((root / "usr/share/doc/postern/examples/monitoring").glob("postern-metrics*"))
    assert len(units) == 4, units
    for f in units:
        shutil.copy(f, root / "etc/systemd/system" / f.name)
    prom = root / "var/lib/prometheus/node-exporter/postern.prom"
    prom.parent.mkdir(parents=True)
    m.run("systemctl", "daemon-reload")
    m.run("systemctl", "start", "postern-metrics.service", "postern-metrics.socket")
    with m.network(), contextlib.closing(socket.create_connection(("127.0.0.1", 9817), 60)) as s:
        s.sendall(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        answer = s.makefile("rb").read().decode()
    assert answer.startswith("HTTP/1.1 200 ") or answer.startswith("HTTP/1.0 200 "), answer[:500]
    for text in (answer, prom.read_text()):
        assert text.rstrip().endswith("# EOF") and set(re.findall(r"(?m)^postern_up\{[^}]*\"(\w+)\"\} 1", text)) >= {"authd", "spoold"}, text[:3000]
    m.run("systemctl", "stop", "postern-metrics.socket")
    for f in units:
        (root / "etc/systemd/system" / f.name).unlink()
    shutil.rmtree(root / "var/lib/prometheus")
    m.run("systemctl", "daemon-reload")


def without_pam(m, root, context):
    """The drop-in for hosts whose users are all in the store."""
    folder = root / "etc/systemd/system/postern-authd.service.d"
    folder.mkdir(parents=True)
    shutil.copy(root / "usr/share/doc/postern/examples/authd-without-pam.conf", folder)
    set_conf(root, "authd", "stores = db\n")
    m.run("systemctl", "daemon-reload")
    m.run("systemctl", "restart", "postern-authd")
    c = m.login("anna", PASSWORD, port=995, context=context)
    c.quit()
    figure = exposures(m, ["postern-authd.service"])["postern-authd.service"]
    shutil.rmtree(folder)
    conf = root / "etc/postern/postern.conf"
    conf.write_text(conf.read_text().replace("stores = db\n", "", 1))
    m.run("systemctl", "daemon-reload")
    m.run("systemctl", "restart", "postern-authd")
    return figure


def watchdog(m, root):
    """A parent that hangs is noticed, and started anew."""
    for name in SERVICES:
        assert m.show(name, "WatchdogUSec") == "1min", name
        folder = root / "etc/systemd/system" / (name + ".service.d")
        folder.mkdir(parents=True)
        (folder / "soon.conf").write_text("[Service]\nWatchdogSec=2\nRestartSec=100ms\n")
    m.run("systemctl", "daemon-reload")
    for name in SERVICES:
        m.run("systemctl", "restart", name)
        main_pid = int(m.show(name, "MainPID"))
        pid = main_pid
        if name == "postern-spoold":    # it is not the front that turns the loop
            pid = int(m.run("ps", "-o", "pid=", "--ppid", main_pid).split()[0])
        m.run("kill", "-STOP", pid)
        await_true("%s, which hangs, is started anew" % name, lambda: int(m.show(name, "NRestarts")) > 0 and m.show(name, "ActiveState") == "active"
                   and int(m.show(name, "MainPID")) not in (0, main_pid))
        shutil.rmtree(root / "etc/systemd/system" / (name + ".service.d"))
    m.run("systemctl", "daemon-reload")
    for name in SERVICES:
        m.run("systemctl", "restart", name)


def newer(deb):
    """The same package under a higher version."""
    folder = deb.parent / "newer"
    shutil.rmtree(folder, ignore_errors=True)
    run("dpkg-deb", "-R", deb, folder)
    control = folder / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^(Version: .*)$", r"\1+1", control.read_text()))
    (folder / "usr/share/doc/postern/README.Debian").write_text("newer\n")
    return pathlib.Path(re.search(r"'([^']+\.deb)'", run("dpkg-deb", "--root-owner-group", "-b", folder, deb.parent))[1])


def lint(folder, deb):
    out = run("lintian", "--fail-on", "error", "--allow-root", next(folder.glob("postern_*.changes")), check=False)
    bad = [row for row in out.splitlines() if row.startswith(("E:", "W:"))]
    assert not [row for row in bad if row.startswith("E:")], "\n".join(bad)
    return len(bad)


def check(folder, steps):
    deb = package(folder)
    warnings = lint(folder, deb)
    steps.ok("make deb: %s; lintian: no errors, %d warnings" % (deb.name, warnings))
    depends = run("dpkg-deb", "-f", deb, "Depends").strip()
    root = copy(folder, "package", satisfy=depends)
    context = certificate(root)
    for uid, user in ((1000, "alice"), (1001, "bob")):
        run("useradd", "-R", root, "-m", "-u", uid, user)
        run("chpasswd", "-R", root, input="%s:%s\n" % (user, PASSWORD))
    alice = mailbox(root, "alice", 1000, "one", "two", "three", "four", "five")
    mailbox(root, "bob", 1001, "for bob")
    with Machine(root) as m:
        try:
            whole_life(m, root, deb, context, alice, steps)
        except BaseException:
            print(m.run("systemctl", "--no-pager", "--failed", check=False))
            print(m.journal("postern-*", "pop3*")[-6000:])
            raise
    shutil.rmtree(root, ignore_errors=True)


def whole_life(m, root, deb, context, alice, steps):
    steps.ok("a Debian has booted")
    before, ports = files(root), m.listening()
    install(m, deb, root)
    for name in SERVICES[1:]:
        assert m.show(name, "ActiveState") == "active", name
        assert m.run("systemctl", "is-enabled", name).strip() == "enabled"
    assert m.listening() == ports and m.show("postern-pop3d", "ActiveState") == "inactive"
    for account in ("_postern", "_postern-auth"):
        assert "nologin" in m.run("getent", "passwd", account)
    assert "[tls]" in (root / "etc/postern/postern.conf").read_text() and "\ncertificate" not in (root / "etc/postern/postern.conf").read_text()
    steps.ok("installed: authd and spoold run, nothing listens on the network, no certificate was invented")

    set_conf(root, "tls", "certificate = /etc/ssl/certs/mail.pem\nkey = /etc/ssl/private/mail.key\n")
    assert "ok" in m.run("/usr/libexec/postern/authd", "-t")
    m.run("systemctl", "reload", "postern-authd")
    m.run("systemctl", "enable", "--now", "pop3s.socket", "pop3.socket")
    assert sorted(set(m.listening()) - set(ports)) == [110, 995]
    c = m.login("alice", PASSWORD, port=995, context=context)
    assert subjects(c) == ["one", "two", "three", "four", "five"]
    c.quit()
    c = m.login("bob", PASSWORD, stls=context)
    assert subjects(c) == ["for bob"]
    c.quit()
    try:
        m.login("alice", "wrong", port=995, context=context)
        raise Failed("a wrong password is good enough")
    except poplib.error_proto as e:
        assert b"[AUTH]" in e.args[0]
    many_at_once(m, context)
    steps.ok("POP3S and STLS logins of local accounts through PAM, and many connections at once")

    m.run("useradd", "--system", "--create-home", "--home-dir", "/srv/mail", "vmail", "-u", "900")
    box = root / "srv/mail/anna"
    for sub in ("cur", "new", "tmp"):
        (box / sub).mkdir(parents=True)
    (box / "new/1.M1P1.host").write_text("Subject: hello\n\nhello anna\n")
    run("chown", "-R", "900:900", box)
    set_conf(root, "spoold", "min-uid = 900\n")
    m.run("systemctl", "reload", "postern-spoold")
    m.run("authctl", "add", "anna", "--maildrop", "maildir:/srv/mail/anna", "--uid", "900", input=PASSWORD + "\n")
    c = m.login("anna", PASSWORD, port=995, context=context)
    assert subjects(c) == ["hello"]
    c.quit()
    steps.ok("a virtual user in a Maildir")

    for name, figure in exposures(m, [s + ".service" for s in SERVICES]).items():
        steps.ok("exposure of %s: %.1f (at most %.1f)" % (name, figure, MOST[name]))
    figures = accept_yes(m, root, context)
    steps.ok("Accept=yes: a service a connection, exposure %.1f and %.1f" % tuple(figures.values()))
    steps.ok("authd without PAM: exposure %.1f" % without_pam(m, root, context))

    monitoring(m, root)
    steps.ok("the examples for monitoring: metrics by HTTP and in a file")
    session_survives(m, context, alice, lambda: m.run("systemctl", "reload", *SERVICES))
    steps.ok("reload: a session goes on")
    session_survives(m, context, alice, lambda: m.run("systemctl", "restart", *SERVICES))
    steps.ok("restart of all three: a session goes on, ports stay open, others log in meanwhile")
    watchdog(m, root)
    steps.ok("the watchdog starts each of them anew when it hangs")

    m.reboot()
    assert sorted(set(m.listening()) - set(ports)) == [110, 995]
    c = m.login("alice", PASSWORD, port=995, context=context)
    assert subjects(c) == ["three", "four", "five"]
    c.quit()
    steps.ok("rebooted: a login at once")

    again = newer(deb)
    pids = {s: m.show(s, "MainPID") for s in SERVICES}
    conf = (root / "etc/postern/postern.conf").read_text()
    session_survives(m, context, alice, lambda: install(m, again, root))
    assert all(m.show(s, "MainPID") not in (pids[s], "0") for s in SERVICES), "not all of them were started anew"
    assert (root / "etc/postern/postern.conf").read_text() == conf
    steps.ok("upgraded while a session runs: it ends with its UPDATE, all three run anew, the configuration is as it was")
    assert subjects(m.login("anna", PASSWORD, port=995, context=context)) == ["hello"]

    session = m.login("alice", PASSWORD, port=995, context=context)
    m.run("apt-get", "-q", "-y", "remove", "postern")
    session.close()
    assert m.listening() == ports and not m.processes(), m.processes()
    assert (root / "etc/postern/postern.conf").exists() and not (root / "usr/libexec/postern").exists()
    assert alice.read_text().count("\nSubject: ") == 2
    steps.ok("removed: no port, no process, no program; configuration and mail are there")
    m.run("apt-get", "-q", "-y", "purge", "postern")
    left = sorted(files(root) - before)
    assert not left, "left behind by the purge: %s" % left
    assert alice.read_text().count("\nSubject: ") == 2 and (box / "new").exists()
    failed = m.run("systemctl", "--failed", "--no-legend", "--plain", check=False)
    assert "pop3" not in failed and "postern" not in failed, failed
    steps.ok("purged: nothing is left but the mail, and the two accounts")


if __name__ == "__main__":
    sys.exit(main(check))
