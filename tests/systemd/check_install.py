"""As a new administrator: a clean Debian, what INSTALL says and nothing else, and a stopwatch. And what README says, as an ordinary user with sudo."""
import os
import pathlib
import re
import shutil
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from machine import REPO, Failed, Machine, chroot, copy, main, run, sources  # noqa: E402

PASSWORD = "correct horse battery staple"
MESSAGE = "From sender@example.org Thu Jan  1 00:00:00 2026\nFrom: sender@example.org\nSubject: one\n\nText\n\n"


def commands():
    """The lines that root types, in order, each with the number of its section; and the lines for postern.conf."""
    section, found, conf = 0, [], []
    for line in (REPO / "INSTALL").read_text().splitlines():
        if m := re.match(r"(\d+)\. ", line):
            section = int(m[1])
        elif line.startswith("\t# "):
            found.append((section, line[3:]))
        elif section == 3 and line.startswith(("\t[tls]", "\tcertificate", "\tkey")):
            conf.append(line[1:])
    return found, conf


def edit(root, conf):
    """What an editor would do: the keys under their section."""
    path = root / "etc/postern/postern.conf"
    text = path.read_text()
    assert conf[0] == "[tls]" and "#certificate =" in text
    path.write_text(text.replace("[tls]\n", "\n".join(conf) + "\n", 1))


def administrator(folder, steps):
    root = copy(folder, "install")
    sources(root / "root/postern")
    run("useradd", "-R", root, "-m", "-u", 1000, "anna")
    run("chpasswd", "-R", root, input="anna:%s\n" % PASSWORD)
    box = root / "var/mail/anna"
    box.write_text(MESSAGE)
    os.chown(box, 1000, 8)
    typed, conf = commands()
    start = time.monotonic()
    for section, line in typed:
        if section <= 3:
            if "authd -t" in line:
                edit(root, conf)
            out = chroot(root, "sh", "-c", "cd /root/postern && " + line)
            if "authd -t" in line:
                assert out.rstrip().endswith("ok"), out
            steps.ok("# %s" % line)
    with Machine(root) as m:
        steps.ok("(booted)")
        for section, line in typed:
            if section > 3:
                out = m.sh("cd /root/postern && " + line.replace("-u anna ", "-sS -u 'anna:%s' " % PASSWORD))
                if "curl" in line:
                    assert re.match(r"1 \d+\s", out), out
                if "journalctl" in line:
                    assert "event=login result=ok" in out and "event=session end=quit" in out, out
                steps.ok("# %s" % line)
        steps.ok("a login over TLS, from a clean machine, after %d s" % (time.monotonic() - start))
        m.sh("systemctl disable --now pop3s.socket pop3.socket postern-pop3d postern-authd postern-spoold; cd /root/postern; make uninstall; "
             "systemctl daemon-reload")
        left = m.sh("find /usr/local -type f; find /etc -name '*postern*'").split()
        assert left and all(f.startswith("/etc/") for f in left), left
        steps.ok("make uninstall leaves the configuration: %s" % " ".join(left))
    shutil.rmtree(root, ignore_errors=True)


def ordinary_user(folder, steps):
    """README: ./bootstrap demo --check, by somebody who may use sudo."""
    root = copy(folder, "demo", packages=["sudo"])
    sources(root / "home/dev/postern")
    run("useradd", "-R", root, "-m", "-s", "/bin/bash", "-u", 1000, "dev")
    run("chown", "-R", "1000:1000", root / "home/dev")
    (root / "etc/sudoers.d/dev").write_text("dev ALL=(ALL) NOPASSWD: ALL\n")
    start = time.monotonic()
    try:
        out = chroot(root, "su", "dev", "-c", "cd ~/postern && ./bootstrap demo --check")
    except Failed as e:
        if "is taken" not in str(e):
            raise
        out = chroot(root, "su", "dev", "-c", "cd ~/postern && ./bootstrap demo --check")    # another demo on this host
    assert "Subject: Welcome to Postern" in out and "and the same over TLS" in out, out[-2000:]
    steps.ok("an ordinary user: ./bootstrap demo --check, after %d s" % (time.monotonic() - start))
    shutil.rmtree(root, ignore_errors=True)


def check(folder, steps):
    administrator(folder, steps)
    ordinary_user(folder, steps)


if __name__ == "__main__":
    sys.exit(main(check))
