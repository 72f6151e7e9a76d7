"""spoolctl doctor names what is broken, and says what to do. Each case breaks one thing that was whole."""
import datetime
import json
import os
import pty
import shutil
import signal
import socket
import subprocess
import termios

import pytest

import harness

MAIL = [b"Subject: one\n\nfirst\n"]


def doctor(p, *args, input=b"", stage_user=None):
    argv = p.argv("spoolctl", "doctor", "--json", *args)
    if p.stage:
        argv = p.stage.argv(argv)
    done = subprocess.run([str(x) for x in argv], capture_output=True, timeout=harness.TIMEOUT * 2, input=input, **p.popen_as())
    assert done.stderr == b"", done.stderr
    seen = json.loads(done.stdout)
    assert done.returncode == (2 if seen["failed"] else 1 if seen["warning"] else 0)
    for s in seen["steps"]:
        assert (s["remedy"] is None) == (s["result"] == "ok"), s
    assert [sum(s["result"] == r for s in seen["steps"]) for r in ("ok", "warning", "failed")] == [seen[r] for r in ("ok", "warning", "failed")]
    return seen["steps"]


def of(steps, name):
    return [(s["result"], s["text"], s["remedy"]) for s in steps if s["step"] == name]


def certificate(directory, name, *, days=90.5, host="pop.example.org"):
    """A certificate and its key, of nobody's authority."""
    crt, pem, template = (directory / (name + end) for end in (".crt", ".key", ".template"))
    now = datetime.datetime.now(datetime.timezone.utc)
    begins, ends = ((now + datetime.timedelta(days=x)).strftime("%Y-%m-%d %H:%M:%S UTC") for x in (min(days, 0) - 10, days))
    template.write_text('cn = "%s"\ndns_name = "%s"\nactivation_date = "%s"\nexpiration_date = "%s"\ntls_www_server\n' % (host, host, begins, ends))
    for argv in (["--generate-privkey", "--key-type", "ecdsa", "--outfile", pem],
                 ["--generate-self-signed", "--load-privkey", pem, "--template", template, "--outfile", crt]):
        subprocess.run(["certtool", *[str(x) for x in argv]], check=True, capture_output=True)
    pem.chmod(0o600)
    return crt, pem


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    d = tmp_path_factory.mktemp("pairs")
    made = {"good": certificate(d, "good"), "other": certificate(d, "other", host="other.example.org"), "soon": certificate(d, "soon", days=5.5),
            "old": certificate(d, "old", days=-2)}
    return made


@pytest.fixture
def pair(pairs, make_postern):
    """A Postern, not started, with a certificate that nothing is wrong with but who made it."""
    def make(which="good"):
        p = make_postern()
        for name, path in zip(("crt", "key"), pairs[which]):
            shutil.copy(path, p.dir / ("server." + name))
            (p.dir / ("server." + name)).chmod(0o600)
        p.own(p.dir)
        p.write_conf(tls={"certificate": p.dir / "server.crt", "key": p.dir / "server.key"})
        return p
    return make


# Without a daemon: what breaks, the step that must name it, its result, a word of the text and one of the remedy.

def break_configuration(p):
    p.file.write_text("[pop3d]\nprefork = many\n")


def break_wisdom(p):
    p.write_conf(pop3d={"cleartext-login": "always"})


def break_run_dir(p):
    (p.dir / "run").mkdir()
    p.own(p.dir / "run")
    (p.dir / "run").chmod(0o777)


def break_state_dir(p):
    (p.dir / "state").write_text("a file")


def break_users_mode(p):
    p.add("box", "mbox")
    (p.dir / "users.db").chmod(0o644)


def break_users_directory(p):
    p.write_conf(authd={"db": p.dir})


def break_maildrops(p):
    p.add("box", "mbox")
    (p.dir / "maildrops.db").unlink()


def break_pam(p):
    p.write_conf(authd={"stores": "db pam", "pam-service": "postern-no-such"})


def break_spool(p):
    p.write_conf(spoold={"mbox": "%s/%%u" % p.mail})
    p.mail.chmod(0o777)


def break_spool_missing(p):
    p.write_conf(spoold={"mbox": "%s/none/%%u" % p.mail})


def leave_journal(name):
    def do(p):
        (p.dir / "state" / "journal").mkdir(parents=True)
        (p.dir / "state" / "journal" / name).write_text("x")
        p.own(p.dir / "state")
    return do


def break_sandbox(p):
    p.write_conf(postern={"sandbox": "off"})


def break_log(p):
    p.write_conf(postern={"log": "syslog"})


def break_certificate(p):
    p.write_conf(tls={"certificate": "/no/such.pem", "key": "/no/such.key"})


BROKEN = {
    "configuration": (break_configuration, "configuration", "failed", "prefork", "mend that line"),
    "no-store": (break_users_directory, "configuration", "failed", "is a directory", "mend that line"),
    "users-directory": (break_users_directory, "users", "failed", "is a directory", "name a file"),
    "unwise": (break_wisdom, "configuration", "warning", "cleartext-login", "change it"),
    "run-dir-open": (break_run_dir, "run-dir", "failed", "may be written by others", "chmod go-w"),
    "state-dir-file": (break_state_dir, "state-dir", "failed", "is not a directory", "move it away"),
    "spoold-down": (lambda p: None, "spoold", "failed", "does not run", "systemctl start postern-spoold"),
    "authd-down": (lambda p: None, "authd", "failed", "does not run", "systemctl start postern-authd"),
    "users-readable": (break_users_mode, "users", "failed", "every user may read", "chmod 640"),
    "maildrops-gone": (break_maildrops, "users", "warning", "maildrops.db: No such file", "authctl add"),
    "pam-missing": (break_pam, "pam", "failed", "/etc/pam.d/postern-no-such: No such file", "pam-service"),
    "spool-open": (break_spool, "spool", "failed", "any user may remove another's mailbox", "chmod 2775"),
    "spool-missing": (break_spool_missing, "spool", "warning", "No such file", "[spoold] mbox"),
    "journal-left": (leave_journal("65534-ab.journal"), "journals", "warning", "1 updates are unfinished", "spoolctl recover"),
    "journal-aside": (leave_journal("65534-ab.aside-17"), "journals", "warning", "were not acted on", "backup"),
    "sandbox-off": (break_sandbox, "sandbox", "warning", "no process is confined", "sandbox = required"),
    "no-certificate": (lambda p: None, "certificate", "warning", "none is set", "set [tls] certificate"),
    "certificate-gone": (break_certificate, "certificate", "failed", "/no/such.pem", "a file that is there"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_is_broken_is_named(name, make_postern):
    do, step, result, text, remedy = BROKEN[name]
    p = make_postern()
    do(p)
    p.own(p.dir)
    rows = of(doctor(p), step)
    assert any(r == result and text in t and remedy in do for r, t, do in rows), rows


def test_a_log_that_nobody_reads(make_postern):
    p = make_postern({"postern": {"log": "syslog"}})
    rows = of(doctor(p), "log")
    assert rows[0][0] == ("ok" if os.path.exists("/dev/log") else "warning")




@pytest.mark.parametrize("which, result, text, remedy", [("good", "ok", "days left", None), ("soon", "warning", "expires in", "renew it"),
    ("old", "failed", "expired", "renew it")])
def test_dates(pair, which, result, text, remedy):
    rows = of(doctor(pair(which)), "certificate")
    assert len(rows) == 1 and rows[0][0] == result and text in rows[0][1] and (remedy is None or remedy in rows[0][2]), rows


def test_keys_chains_and_names(pair, pairs):
    p = pair()
    key, crt = p.dir / "server.key", p.dir / "server.crt"
    steps = doctor(p)
    assert of(steps, "key")[0][0] == "ok"
    assert of(steps, "chain") == [("warning", "%s: no authority that this host knows vouches for it" % crt, of(steps, "chain")[0][2])]
    assert "is for pop.example.org, and this host is called" in of(steps, "names")[0][1] and of(steps, "names")[0][0] == "warning"
    assert of(steps, "dns")[0][0] == "warning" and "A or AAAA" in of(steps, "dns")[0][2]
    assert of(steps, "served")[0][0] == "failed" and "start authd" in of(steps, "served")[0][2]
    key.chmod(0o640)
    assert of(doctor(p), "key")[0][0] == "warning"
    key.chmod(0o644)
    result, text, remedy = of(doctor(p), "key")[0]
    assert result == "failed" and "every user may read it" in text and "chmod 600" in remedy
    key.write_bytes(pairs["other"][1].read_bytes())
    key.chmod(0o600)
    assert "is not the key of its certificate" in of(doctor(p), "key")[0][1]
    key.write_text("rubbish")
    assert of(doctor(p), "key")[0][0] == "failed"
    key.write_bytes(pairs["good"][1].read_bytes())
    crt.write_bytes(pairs["good"][0].read_bytes() + pairs["other"][0].read_bytes())
    result, text, remedy = of(doctor(p), "chain")[0]
    assert result == "failed" and "is not issued by the one that follows" in text and "fullchain" in remedy
    crt.write_text("rubbish")
    assert of(doctor(p), "certificate")[0][0] == "failed"


# With the daemons running: what is of a user, and a login.

@pytest.fixture
def running(pair):
    p = pair()
    p.user("box", "mbox", MAIL)
    p.start()
    return p


def at(p):
    return ["--connect", "127.0.0.1:%d" % p.port]


def test_all_is_well(running):
    steps = doctor(running, "box", *at(running), input=harness.PASSWORD.encode() + b"\n")
    assert [s for s in steps if s["result"] == "failed"] == []
    for name in ("spoold", "authd", "users", "run-dir", "state-dir", "maildrop", "locks", "served", "wire", "login"):
        assert {r for r, _, _ in of(steps, name)} == {"ok"}, name
    assert "TLS1.3" in of(steps, "wire")[0][1]
    assert of(steps, "login") == [("ok", "box: STAT says 1 %d" % len(harness.wire(MAIL[0])), None)]
    text = subprocess.run([str(x) for x in running.argv("spoolctl", "doctor", *at(running))], capture_output=True, text=True, **running.popen_as())
    assert text.stdout.splitlines()[-1].endswith("0 failed") and "ok       wire " in text.stdout


def test_without_a_password_no_login_is_tried(running):
    assert of(doctor(running, "box", *at(running)), "login") == [("ok", "not tried: no password was given", None)]


def test_a_wrong_password(running):
    result, text, remedy = of(doctor(running, "box", *at(running), input=b"not-it\n"), "login")[0]
    assert result == "failed" and "[AUTH]" in text and "authctl test" in remedy


@pytest.mark.skipif(not harness.HAS_TERMINALS, reason="there is no /dev/pts")
def test_the_password_is_typed_without_an_echo(running):
    master, slave = pty.openpty()
    argv = [str(x) for x in running.argv("spoolctl", "doctor", "box", "--json", *at(running))]
    child = subprocess.Popen(argv, stdin=slave, stdout=subprocess.PIPE, stderr=slave, **running.popen_as())
    os.close(slave)
    prompt = b""
    while b"Password" not in prompt or b": " not in prompt:
        prompt += os.read(master, 1024)
    os.write(master, harness.PASSWORD.encode() + b"\n")
    steps = json.loads(child.communicate(timeout=harness.TIMEOUT)[0])["steps"]
    rest = os.read(master, 1024)
    os.close(master)
    assert of(steps, "login")[0][0] == "ok" and harness.PASSWORD.encode() not in prompt + rest


@pytest.mark.skipif(not harness.HAS_TERMINALS, reason="there is no /dev/pts")
def test_a_signal_leaves_the_echo_on(running):
    master, slave = pty.openpty()
    argv = [str(x) for x in running.argv("spoolctl", "doctor", "box", "--json", *at(running))]
    child = subprocess.Popen(argv, stdin=slave, stdout=subprocess.PIPE, stderr=slave, **running.popen_as())
    prompt = b""
    while b"tried): " not in prompt:
        prompt += os.read(master, 1024)
    assert not termios.tcgetattr(slave)[3] & termios.ECHO
    child.terminate()
    child.communicate(timeout=harness.TIMEOUT)
    assert child.returncode == -signal.SIGTERM and termios.tcgetattr(slave)[3] & termios.ECHO
    os.close(slave)
    os.close(master)


def test_a_maildrop_in_use(running):
    with running.connect("box") as c:
        steps = doctor(running, "box", *at(running), input=harness.PASSWORD.encode() + b"\n")
        assert "a session has it" in of(steps, "locks")[0][1]
        result, text, remedy = of(steps, "login")[0]
        assert result == "failed" and "[IN-USE]" in text and "spoolctl end" in remedy
        c.quit()


def test_a_dotlock_that_was_left(running):
    lock = running.mail / "box.lock"
    lock.write_text("999999999\n")
    running.own(lock)
    result, text, remedy = of(doctor(running, "box", *at(running)), "locks")[0]
    lock.unlink()
    assert result == "warning" and "nobody that lives" in text and "rm %s" % lock in remedy


def test_a_lock_of_another_program(running):
    import fcntl
    with open(running.mail / "box", "rb") as f:
        fcntl.flock(f, fcntl.LOCK_SH)
        result, text, remedy = of(doctor(running, "box", *at(running)), "locks")[0]
    assert result == "warning" and "process %d" % os.getpid() in text and "end it" in remedy


def test_maildrops_that_are_not_well(running):
    box = running.mail / "box"
    assert of(doctor(running, "nobody-such", *at(running)), "maildrop")[0][0] == "failed"
    running.add("none", "mbox:%s" % (running.mail / "none"))
    assert "is not there" in of(doctor(running, "none", *at(running)), "maildrop")[0][1]
    box.chmod(0o444)
    rows = of(doctor(running, "box", *at(running)), "maildrop")
    assert rows[-1][0] == "warning" and "may not write" in rows[-1][1]
    box.chmod(0o600)
    box.write_bytes(b"not an mbox\n")
    result, text, remedy = of(doctor(running, "box", *at(running)), "maildrop")[0]
    assert result == "failed" and "neither an mbox nor a Maildir" in text and "move away" in remedy


def test_a_certificate_that_is_not_served(running, pairs):
    for name, path in zip(("crt", "key"), pairs["other"]):
        shutil.copy(path, running.dir / ("later." + name))
        (running.dir / ("later." + name)).chmod(0o600)
    running.own(running.dir / "later.key")
    running.own(running.dir / "later.crt")
    running.write_conf(tls={"certificate": running.dir / "later.crt", "key": running.dir / "later.key"})
    result, text, remedy = of(doctor(running, *at(running)), "served")[0]
    assert result == "warning" and "another certificate" in text and "reload" in remedy


def test_nobody_listens(make_postern):
    p = make_postern()
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))        # and does not listen
        result, text, remedy = of(doctor(p, "--connect", "127.0.0.1:%d" % s.getsockname()[1]), "wire")[0]
    assert result == "failed" and "nobody listens" in text and "--connect" in remedy


def test_something_else_listens(make_postern):
    p = make_postern()
    with socket.create_server(("127.0.0.1", 0)) as s:
        argv = [str(x) for x in p.argv("spoolctl", "doctor", "--json", "--connect", "127.0.0.1:%d" % s.getsockname()[1])]
        child = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, **p.popen_as())
        with s.accept()[0] as c:
            c.sendall(b"220 smtp.example.org ESMTP\r\n")
            rows = of(json.loads(child.communicate(timeout=harness.TIMEOUT)[0])["steps"], "wire")
    assert rows[0][0] == "failed" and "220 smtp" in rows[0][1]


@pytest.mark.root
def test_as_root(make_postern, stage):
    p = make_postern(stage=stage)
    box = stage.path("/var/mail/carol")
    box.write_bytes(harness.mbox(MAIL))
    os.chown(box, stage.USERS["carol"], 8)
    box.chmod(0o660)
    p.start()
    steps = doctor(p, "carol", *at(p), input=stage.passwords["carol"].encode() + b"\n")
    for name in ("accounts", "spoold", "authd", "pam", "maildrop", "login"):
        assert {r for r, _, _ in of(steps, name)} == {"ok"}, (name, of(steps, name))
    os.chown(box, stage.USERS["bob"], 8)
    rows = of(doctor(p, "carol", *at(p)), "maildrop")
    assert ("failed", "/var/mail/carol belongs to uid %d, not to the user, %d" % (stage.USERS["bob"], stage.USERS["carol"]),
            "chown %d /var/mail/carol" % stage.USERS["carol"]) in rows
    os.chown(box, stage.USERS["carol"], 8)
    box.chmod(0o664)
    assert any(r == "warning" and "every user may read" in t for r, t, _ in of(doctor(p, "carol", *at(p)), "maildrop"))
    pam = stage.path("/etc/pam.d/postern")
    good = pam.read_text()
    pam.write_text("auth required pam_no_such_module.so\naccount required pam_permit.so\n")
    assert "pam_no_such_module.so is not there" in of(doctor(p), "pam")[0][1]
    pam.write_text("auth required pam_permit.so\n")
    assert "has no line for account" in of(doctor(p), "pam")[0][1]
    pam.write_text(good)
    p.write_conf(authd={"user": "no-such-account"})
    rows = of(doctor(p), "accounts")
    assert any(r == "failed" and "no account no-such-account" in t and "useradd" in do for r, t, do in rows if do)
    box.unlink()
