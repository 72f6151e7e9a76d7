"""The worked examples in etc/examples, as they stand there but for paths, addresses and ports: checked with -t, and logged in to."""
import configparser
import contextlib
import os
import poplib
import shutil
import ssl
import subprocess

import pytest

import harness
from harness import PASSWORD, REPO, TIMEOUT, wire
from test_launch import free_port, launched
from test_proxy import PATH

EXAMPLES = REPO / "etc/examples"
MESSAGE = b"Subject: an example\n\nhello\n"


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    folder.chmod(0o755)
    certificate, key = folder / "fullchain.pem", folder / "privkey.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "90", "-subj", "/CN=localhost",
                    "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate], check=True, capture_output=True, timeout=60)
    return certificate, key


def example(name, pair, folder):
    """Its sections, with a certificate that there is."""
    text = (EXAMPLES / name / "postern.conf").read_text()
    c = configparser.ConfigParser(interpolation=None, inline_comment_prefixes=(" ;",))
    c.read_string(text)
    conf = {section: dict(c[section]) for section in c.sections()}
    keys = folder / "tls"
    keys.mkdir()
    conf["tls"] = {"certificate": shutil.copy(pair[0], keys), "key": shutil.copy(pair[1], keys)}
    return conf


@pytest.mark.parametrize("name", sorted(f.parent.name for f in EXAMPLES.glob("*/postern.conf")))
@pytest.mark.parametrize("program", ["pop3d", "authd", "spoold", "authctl", "spoolctl"])
def test_checked(name, program, pair, tmp_path):
    text = (EXAMPLES / name / "postern.conf").read_text()
    for path, real in (("fullchain.pem", pair[0]), ("privkey.pem", pair[1])):
        text = text.replace("/etc/letsencrypt/live/mail.example.org/" + path, str(real))
    (tmp_path / "postern.conf").write_text(text)
    done = subprocess.run([harness.BUILD / program, "-t", "-c", tmp_path / "postern.conf"], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0, done.stderr


def pop3s(port, pair, user, password):
    c = poplib.POP3_SSL("127.0.0.1", port, context=ssl.create_default_context(cafile=str(pair[0])), timeout=TIMEOUT)
    c.user(user)
    c.pass_(password)
    return c


def serve(p, *more):
    """All three, with a port for TLS besides. Returns that."""
    p.start("spoold", "authd")
    daemon = p.start_daemon("pop3d", "-l", "127.0.0.1:0", "-s", "127.0.0.1:0", *more)
    ports = {}
    for tls in ("no", "yes"):
        line = daemon.wait_line("event=listening", "tls=" + tls)
        ports[tls] = int(line.split("port=")[1].split()[0])
    daemon.wait_line("event=certificates")
    p.port = ports["no"]
    return ports["yes"]


@pytest.mark.root
def test_local_accounts(make_postern, stage, pair):
    """mbox in /var/mail through PAM."""
    p = make_postern(stage=stage)
    p.write_conf(**{**example("local-mbox-pam", pair, p.dir)})
    box = stage.path("/var/mail/alice")
    box.write_bytes(harness.mbox([MESSAGE]))
    os.chown(box, stage.USERS["alice"], 8)
    try:
        c = pop3s(serve(p), pair, "alice", stage.passwords["alice"])
        assert b"\r\n".join(c.retr(1)[1]) + b"\r\n" == wire(MESSAGE)
        c.quit()
        with p.connect() as plain:
            plain.err(b"USER alice")
    finally:
        box.unlink()


@pytest.mark.root
def test_virtual_users(make_postern, stage, pair):
    """Maildir, all of one account's, passwords in the store."""
    p = make_postern(stage=stage)
    conf = example("virtual-maildir-db", pair, p.dir)
    assert conf["spoold"]["virtual-user"] == "vmail" and conf["spoold"]["maildir"] == "/srv/mail/%u"
    conf["spoold"].update({"virtual-user": "carol", "maildir": "%s/%%u" % p.mail})
    p.write_conf(**conf)
    os.chown(p.mail, stage.USERS["carol"], stage.USERS["carol"])
    p.maildir("anna@example.org", [MESSAGE], new=1, uid=stage.USERS["carol"])
    p.add("anna@example.org")
    c = pop3s(serve(p), pair, "anna@example.org", PASSWORD)
    assert b"\r\n".join(c.retr(1)[1]) + b"\r\n" == wire(MESSAGE)
    c.dele(1)
    c.quit()
    c = pop3s(int(p.daemon("pop3d").wait_line("event=listening", "tls=yes").split("port=")[1].split()[0]), pair, "anna@example.org", PASSWORD)
    assert c.stat() == (0, 0)
    c.quit()


# Front ends

@pytest.fixture
def hosts(make_postern, pair):
    """Two hosts with one user each of the same name, and the ports they have."""
    made = []
    for name in ("one", "two"):
        p = make_postern(conf={"pop3d": {"proxy-protocol-from": "127.0.0.0/8", "cleartext-login": "always"}})
        keys = p.dir / "tls"
        keys.mkdir()
        p.write_conf(tls={"certificate": shutil.copy(pair[0], keys), "key": shutil.copy(pair[1], keys)})
        p.own(keys)
        for user in ("anna", "zoe"):
            p.user(user, "mbox", [b"Subject: on host %s\n\nhello\n" % name.encode()])
        made.append((p, serve(p)))
    return made


def where(c):
    return next(line for line in c.retr(1)[1] if line.startswith(b"Subject: on host")).split()[-1].decode()


def listens(w, port):
    """The program's own start is what takes the time."""
    for _ in range(3000):
        with contextlib.suppress(ConnectionRefusedError):
            return poplib.POP3("127.0.0.1", port, timeout=TIMEOUT)
        if w.process.poll() is not None:
            raise harness.Failed("%s ended\n%s" % (w.name, w.log()))
        harness.wait_pid(w.process.pid, 0.01)
    raise harness.Failed("%s does not listen\n%s" % (w.name, w.log()))


def test_haproxy(hosts, pair):
    """TLS passes through it; the client's address is known behind it; a host that is gone is left out."""
    program = shutil.which("haproxy", path=PATH)
    if program is None:
        pytest.skip("no haproxy here")
    (one, one_tls), (two, two_tls) = hosts
    plain, tls = free_port(), free_port()
    text = (EXAMPLES / "front-ends/haproxy.cfg").read_text()
    for old, new in (("bind :110", "bind 127.0.0.1:%d" % plain), ("bind :995", "bind 127.0.0.1:%d" % tls),
                     ("192.0.2.11:110", "127.0.0.1:%d" % one.port), ("192.0.2.12:110", "127.0.0.1:%d" % two.port),
                     ("192.0.2.11:995", "127.0.0.1:%d check port %d" % (one_tls, one.port)),
                     ("192.0.2.12:995", "127.0.0.1:%d check port %d" % (two_tls, two.port)),
                     ("check port 110", "check"), ("inter 10s", "inter 100ms")):
        assert old in text, old
        text = text.replace(old, new)
    conf = one.dir / "haproxy.cfg"
    conf.write_text(text)
    done = subprocess.run([program, "-c", "-f", conf], capture_output=True, text=True, timeout=TIMEOUT)
    assert done.returncode == 0 and "WARN" not in done.stderr.upper(), done.stderr
    with launched(one, "haproxy", [program, "-db", "-f", conf]) as w:
        listens(w, plain).quit()
        c = pop3s(tls, pair, "anna", PASSWORD)
        first = where(c)
        c.quit()
        used, left = ((one, two) if first == "one" else (two, one))
        used.daemon("authd").wait_line("event=login", "result=ok", r"remote=127\.0\.0\.1", "user=anna")
        used.stop_daemon("pop3d")
        for _ in range(200):
            with contextlib.suppress(OSError, poplib.error_proto):
                c = pop3s(tls, pair, "anna", PASSWORD)
                break
        assert where(c) != first
        c.quit()


def test_nginx(hosts, pair):
    """It sends each user to his host."""
    program = shutil.which("nginx", path=PATH)
    module = "/usr/lib/nginx/modules/ngx_mail_module.so"
    if program is None or not os.path.exists(module):
        pytest.skip("no nginx with its mail proxy here")
    (one, _), (two, _) = hosts
    plain, tls, ask = free_port(), free_port(), free_port()
    text = (EXAMPLES / "front-ends/nginx.conf").read_text()
    for old, new in (("load_module modules/", "daemon off;\nmaster_process off;\npid %s/nginx.pid;\nload_module /usr/lib/nginx/modules/" % one.dir),
                     ("listen 110;", "listen 127.0.0.1:%d;" % plain), ("listen 995 ssl;", "listen 127.0.0.1:%d ssl;" % tls),
                     ("127.0.0.1:8110", "127.0.0.1:%d" % ask), ("192.0.2.11", "127.0.0.1"), ("192.0.2.12", "127.0.0.1"),
                     ("default\t\t110;", "default %d;\n~^[n-z] %d;" % (one.port, two.port)),
                     ("/etc/letsencrypt/live/mail.example.org/fullchain.pem", str(one.dir / "tls/fullchain.pem")),
                     ("/etc/letsencrypt/live/mail.example.org/privkey.pem", str(one.dir / "tls/privkey.pem"))):
        assert old in text, old
        text = text.replace(old, new)
    conf = one.dir / "nginx.conf"
    conf.write_text(text.replace("http {", "http {\n" + "".join("%s_temp_path %s/tmp-%s;\n" % (k, one.dir, k) for k in
                                                                 ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))))
    with launched(one, "nginx", [program, "-p", one.dir, "-e", "stderr", "-c", conf]) as w:
        listens(w, plain).quit()
        for user, host, p in (("anna", "one", one), ("zoe", "two", two)):
            c = pop3s(tls, pair, user, PASSWORD)
            assert where(c) == host
            c.quit()
            p.daemon("authd").wait_line("event=login", "result=ok", "user=" + user)
        c = poplib.POP3("127.0.0.1", plain, timeout=TIMEOUT)
        with pytest.raises(poplib.error_proto):
            c.user("anna")
        c.stls(ssl.create_default_context(cafile=str(pair[0])))
        c.user("anna")
        c.pass_(PASSWORD)
        assert where(c) == "one"
        c.quit()
