"""Every launcher that etc/ has lines for, Debian's own package of it, with exactly those lines: see check.mk."""
import contextlib
import os
import pathlib
import shutil
import signal
import ssl
import subprocess
import sys

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from machine import REPO, Failed, Machine, await_true, certificate, chroot, copy, main, run  # noqa: E402

PASSWORD = "correct horse battery staple"
PACKAGES = ("libdb5.3", "libgnutls30", "libgsasl18", "libinih1", "libnettle8", "libpam0g", "libseccomp2", "libsodium23", "libssl3", "libxxhash0",
            "ucspi-tcp", "s6", "runit", "openrc", "openbsd-inetd",
            "libselinux1", "libtirpc3", "libwrap0", "netbase")      # what xinetd needs, which has to take the place of openbsd-inetd
EXAMPLES = "/usr/local/share/postern"
MESSAGE = "From sender@example.org Thu Jan  1 00:00:00 2026\nFrom: sender@example.org\nSubject: %s\n\nText\n\n"


def install(root):
    """As INSTALL says, up to where the daemons are started."""
    run("make", "-s", "-C", REPO, "install", "DESTDIR=%s" % root)
    run("useradd", "-R", root, "-m", "-u", 1000, "alice")
    run("chpasswd", "-R", root, input="alice:%s\n" % PASSWORD)
    box = root / "var/mail/alice"
    box.write_text(MESSAGE % "one" + MESSAGE % "two")
    os.chown(box, 1000, 8)
    box.chmod(0o660)
    conf = root / "etc/postern/postern.conf"
    conf.write_text(conf.read_text().replace("[tls]\n", "[tls]\ncertificate = /etc/ssl/certs/mail.pem\nkey = /etc/ssl/private/mail.key\n", 1))


def logs_in(m, context, *, plain=True, tls=True):
    """As soon as it listens; by both ports, and the second while the first is there."""
    def once(**how):
        try:
            return m.login("alice", PASSWORD, **how)
        except (ConnectionError, ssl.SSLError):     # nor is there TLS before authd has the keys
            return None
    sessions = []
    for wanted, how in ((plain, {}), (tls, {"port": 995, "context": context})):
        if wanted:
            c = await_true("a login over %s" % (how or "110"), lambda: once(**how))
            assert c.stat()[0] == 2
            assert b"Subject: two" in c.retr(2)[1]
            c.quit()
            sessions.append(c)
    return sessions


def nobody_listens(m):
    await_true("the ports are free", lambda: not {110, 995} & set(m.listening()))


class background:
    """A program in the container, for the time of a with statement."""

    def __init__(self, m, *argv):
        self.m, self.p = m, subprocess.Popen([str(a) for a in m.argv(*argv)], stdin=subprocess.DEVNULL, start_new_session=True)

    def __enter__(self):
        return self.p

    def __exit__(self, *_):
        for sig in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.p.pid, sig)      # nsenter(1) passes nothing on
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.p.wait(30)
                return


def inetd(m, root, context, wait):
    lines = (root / EXAMPLES[1:] / "inetd/inetd.conf").read_text().splitlines()
    rows = [line.lstrip("#") for line in lines if line.startswith(("pop3\t", "#pop3"))]
    chosen = [r for r in rows if r.startswith("pop3\t") and ("\twait\t" in r) == wait] + [r for r in rows if r.startswith("pop3s\t") and ("\twait\t" in r) == wait]
    assert len(chosen) == 2, chosen
    (root / "etc/inetd.conf").write_text("\n".join(chosen) + "\n")
    m.run("systemctl", "restart", "inetd.service")
    logs_in(m, context)
    m.run("systemctl", "stop", "inetd.service")
    for pid, comm in m.processes().items():
        if comm.startswith("pop3d"):        # those that inetd started to wait are not its any more
            m.run("kill", pid, check=False)
    nobody_listens(m)


def xinetd(m, root, context):
    m.sh("dpkg -r openbsd-inetd && dpkg -i /srv/xinetd_*.deb")
    text = (root / EXAMPLES[1:] / "inetd/xinetd.conf").read_text().replace("disable\t\t= yes", "disable\t\t= no")
    (root / "etc/xinetd.d/postern").write_text(text)
    m.run("systemctl", "restart", "xinetd.service")
    logs_in(m, context)
    m.run("systemctl", "stop", "xinetd.service")
    nobody_listens(m)


def tcpserver(m, root, context):
    with background(m, "sh", EXAMPLES + "/inetd/tcpserver.run"):
        logs_in(m, context, tls=False)
    nobody_listens(m)
    run_file = root / "srv/tcpserver-tls.run"
    run_file.write_text((root / EXAMPLES[1:] / "inetd/tcpserver.run").read_text().replace(" 0 110 ", " 0 995 ").rstrip("\n") + " -S\n")
    with background(m, "sh", "/srv/tcpserver-tls.run"):
        logs_in(m, context, plain=False)
    nobody_listens(m)


def session_survives(m, restart):
    """One that runs while pop3d and spoold are started anew."""
    old = m.login("alice", PASSWORD)
    restart()
    await_true("the next pop3d listens", lambda: 110 in m.listening())
    assert b"Subject: two" in old.retr(2)[1]
    old.quit()


def scanned(m, root, context, name, scan, again):
    """s6 and runit: a folder of service folders, copied as they are."""
    folder = root / "srv" / name
    shutil.copytree(root / EXAMPLES[1:] / name, folder)
    m.run("systemctl", "stop", "postern-authd", "postern-spoold")
    with background(m, *scan, "/srv/" + name):
        logs_in(m, context)
        before = set(m.processes())
        session_survives(m, lambda: [m.run(*again("/srv/%s/postern-%s" % (name, d))) for d in ("spoold", "pop3d")])
        logs_in(m, context)
        assert set(m.processes()) - before
        down = ["s6-svc", "-d"] if name == "s6" else ["sv", "force-shutdown"]
        for d in ("pop3d", "authd", "spoold"):
            m.run(*down, "/srv/%s/postern-%s" % (name, d))
        await_true("all of it has stopped", lambda: not m.processes())
    nobody_listens(m)


def openrc(m, root, context):
    for d in ("spoold", "authd", "pop3d"):
        shutil.copy(root / EXAMPLES[1:] / "openrc" / ("postern-" + d), root / "etc/init.d")
    (root / "etc/conf.d").mkdir(exist_ok=True)
    shutil.copy(root / EXAMPLES[1:] / "openrc/postern-pop3d.confd", root / "etc/conf.d/postern-pop3d")
    m.sh("cd /run && mkdir -p openrc && cd openrc && mkdir -p starting started stopping inactive wasinactive failed hotplugged daemons options exclusive "
         "scheduled tmp && touch softlevel")      # as after a boot by OpenRC itself
    out = m.run("rc-service", "-D", "postern-spoold", "start") + m.run("rc-service", "-D", "postern-authd", "start") + \
        m.run("rc-service", "-D", "postern-pop3d", "start")
    try:
        logs_in(m, context)
        m.run("rc-service", "-D", "postern-authd", "reload")
        m.run("rc-service", "-D", "postern-spoold", "reload")
        logs_in(m, context)
    except Failed:
        print(out)
        raise
    for d in ("pop3d", "authd", "spoold"):
        m.run("rc-service", "-D", "postern-" + d, "stop")
    await_true("all of it has stopped", lambda: not m.processes())
    nobody_listens(m)


def all_of_them(m, root, context, steps):
    m.run("systemd-sysusers")
    m.run("systemctl", "daemon-reload")
    m.run("systemctl", "start", "postern-spoold", "postern-authd")
    steps.ok("make install; the two daemons run")
    inetd(m, root, context, wait=False)
    steps.ok("inetd (openbsd-inetd), nowait")
    inetd(m, root, context, wait=True)
    steps.ok("inetd (openbsd-inetd), wait")
    xinetd(m, root, context)
    steps.ok("xinetd")
    tcpserver(m, root, context)
    steps.ok("tcpserver (ucspi-tcp)")
    scanned(m, root, context, "s6", ["s6-svscan"], lambda service: ["s6-svc", "-2", service])
    steps.ok("s6, and a restart under which a session goes on")
    scanned(m, root, context, "runit", ["runsvdir"], lambda service: ["sv", "2", service])
    steps.ok("runit, and a restart under which a session goes on")
    openrc(m, root, context)
    steps.ok("OpenRC")


def check(folder, steps):
    root = copy(folder, "supervisors", packages=PACKAGES)
    chroot(root, "sh", "-c", "cd /srv && apt-get -q download xinetd")
    context = certificate(root)
    install(root)
    with Machine(root) as m:
        try:
            all_of_them(m, root, context, steps)
        except BaseException:
            print(m.run("ps", "-ef"))
            print(m.run("journalctl", "-b", "--no-pager", "-n", "80", check=False))
            raise
    shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main(check))
