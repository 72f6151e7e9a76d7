"""Logins that are bound to the TLS connection under them, client certificates, and real clients of every mechanism."""
import base64
import contextlib
import hashlib
import os
import poplib
import re
import shutil
import signal
import ssl
import subprocess

import pytest

import harness
from harness import PASSWORD
from test_login import MESSAGES, Scram, attempts, b64, sasl
from test_tls import (TLS12, TLS13, Authority, authority, configure, connect_tls, context, install, pairs,  # noqa: F401
                      start_pop3d)

PLUS = b"SCRAM-SHA-256-PLUS"


def needs(program):
    return pytest.mark.skipif(shutil.which(program) is None, reason="%s is not installed" % program)


class Client:
    """Who logs in with a certificate: the files, and the fingerprints that name it."""

    def __init__(self, authority, directory, name, kind="p256"):
        key = authority.key(kind)
        certificate = authority.certificate(key, names=(), subject="/CN=%s" % name, extensions="extendedKeyUsage=clientAuth")
        self.chain, self.key = directory / (name + ".pem"), directory / (name + ".key")
        self.chain.write_bytes(certificate.read_bytes() + authority.issuer.read_bytes())
        self.key.write_bytes(key.read_bytes())
        self.der = ssl.PEM_cert_to_DER_cert(certificate.read_text())
        self.fingerprint = hashlib.sha256(self.der).hexdigest()
        spki = subprocess.run(["openssl", "pkey", "-in", key, "-pubout", "-outform", "DER"], capture_output=True, check=True).stdout
        self.key_fingerprint = hashlib.sha256(spki).hexdigest()

    @property
    def pair(self):
        return self.chain, self.key


@pytest.fixture
def secure(make_postern, authority, pairs):  # noqa: F811
    """A Postern with TLS, client-ca and every mechanism; the user u; started."""
    p = make_postern({"authd": {"mechanisms": "SCRAM-SHA-256-PLUS SCRAM-SHA-256 EXTERNAL CRAM-MD5 PLAIN LOGIN USER APOP", "cache-ttl": 0}})
    ca = p.dir / "ca.pem"
    ca.write_bytes(authority.root.read_bytes())
    configure(p, install(p, "pair", pairs["p256"]), **{"client-ca": ca})
    p.own(p.dir)
    p.user("u", "maildir", MESSAGES)
    p.start("spoold", "authd")
    start_pop3d(p)
    p.server_der = ssl.PEM_cert_to_DER_cert(pairs["p256"][0].read_text().split("-----END")[0] + "-----END CERTIFICATE-----\n")
    return p


# Channel binding

def bound(c, kind, data, header=None, **more):
    """An exchange of -PLUS that says it is bound so. The last line, and the client."""
    client = Scram("u", more.pop("password", PASSWORD), gs2="p=%s,," % kind, binding=data, **more)
    return sasl(c, PLUS, client.answer, client.first), client


def logged(p, *words):
    """Waits for the line of a login with these words, after the one that was last waited for."""
    daemon = p.daemon("authd")
    line = daemon.wait_line("event=login ", *[re.escape(w) for w in words], start=getattr(p, "seen", 0))
    p.seen = daemon.lines.index(line.encode()) + 1
    return line


def offers(c):
    return next((row.split()[1:] for row in c.multi(b"CAPA") if row.startswith(b"SASL")), [])


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_end_point(secure, authority, version):  # noqa: F811
    good = hashlib.sha256(secure.server_der).digest()
    with connect_tls(secure, context(authority, version)) as c:
        assert PLUS in offers(c)
        row, client = bound(c, "tls-server-end-point", good)
        assert row.startswith(b"+OK") and client.verified
    for how in ({"password": "wrong"}, {"tamper": True}, {"nonce": "replayed"}, {"data": bytes(32)}, {"data": b""}):
        with connect_tls(secure, context(authority, version)) as c:
            data = how.pop("data", good)
            row, _ = bound(c, "tls-server-end-point", data, **how)
            assert row.startswith(b"-ERR [AUTH]"), (how, row)
    with connect_tls(secure, context(authority, version)) as c:
        client = Scram("nobody-here", PASSWORD, gs2="p=tls-server-end-point,,", binding=good)
        assert b"[AUTH]" in sasl(c, PLUS, client.answer, client.first)


def test_end_point_malformed(secure, authority):  # noqa: F811
    for first in (b"p=tls-server-end-point,", b"p=tls-server-end-point,,", b"p=tls-server-end-point,,r=x", b"p=tls-server-end-point,,n=u",
                  b"p=tls-server-end-point,,n=u,", b"p=tls-server-end-point,,n=u,r=", b"p=tls-server-end-point,,m=x,n=u,r=abc",
                  b"p=tls-server-end-point,,n=u=2,r=abc", b"p=tls-server-end-point,u,n=u,r=abc", b"p=tls-server-end-point,,n=u,r=" + b"a" * 400,
                  b"p=tls-server-end-point,,n=" + b"u" * 600 + b",r=abc", b"p=tls-server-end-point,a=" + b"u" * 600 + b",n=u,r=abc",
                  b"p=tls-server-end-point,,n=u,r=a\0c", b"p=tls-server-end-point,,n=u,r=" + b"a" * 9000):
        with connect_tls(secure, context(authority)) as c:
            assert c.cmd(b"AUTH " + PLUS + b" " + b64(first)).startswith(b"-ERR"), first
    for final in (b"", b"p=", b"c=,p=", b"c=biws,r=x,p=", b"c=biws,r=x,p=%s" % b64(bytes(32)), b"c=biws,p=%s" % b64(bytes(31)),
                  b"r=x,c=biws,p=%s" % b64(bytes(32)), b",p=" * 300, b"c=" + b"A" * 1900 + b",r=x,p=" + b64(bytes(32))):
        with connect_tls(secure, context(authority)) as c:
            assert c.cmd(b"AUTH " + PLUS + b" " + b64(b"p=tls-server-end-point,,n=u,r=abc")).startswith(b"+ ")
            assert c.cmd(b64(final)).startswith(b"-ERR"), final
    assert "ok" not in {a["result"] for a in attempts(secure)}
    assert not any(b"child-died" in x for x in secure.daemon("authd").lines)


def test_end_point_for_another(secure, authority):  # noqa: F811
    """Names with a comma or an equals sign are escaped; a name beside one's own is refused."""
    good = hashlib.sha256(secure.server_der).digest()
    with connect_tls(secure, context(authority)) as c:
        client = Scram("u", PASSWORD, gs2="p=tls-server-end-point,a=root,", binding=good)
        assert b"[AUTH]" in sasl(c, PLUS, client.answer, client.first)
    with connect_tls(secure, context(authority)) as c:
        client = Scram("u", PASSWORD, gs2="p=tls-server-end-point,a=u,", binding=good)
        assert sasl(c, PLUS, client.answer, client.first).startswith(b"+OK")
    secure.add("a=b,c")
    with connect_tls(secure, context(authority)) as c:
        client = Scram("a=3Db=2Cc", PASSWORD, gs2="p=tls-server-end-point,,", binding=good)
        sasl(c, PLUS, client.answer, client.first)
        assert client.verified


def test_tls_unique(secure, authority):  # noqa: F811
    with connect_tls(secure, context(authority, TLS12)) as c:
        row, client = bound(c, "tls-unique", c.socket.get_channel_binding("tls-unique"))
        assert row.startswith(b"+OK") and client.verified
    with connect_tls(secure, context(authority, TLS12)) as other, connect_tls(secure, context(authority, TLS12)) as c:
        row, _ = bound(c, "tls-unique", other.socket.get_channel_binding("tls-unique"))
        assert b"[AUTH]" in row, "bound to another connection"
    with connect_tls(secure, context(authority, TLS13)) as c:
        assert bound(c, "tls-unique", c.socket.get_channel_binding("tls-unique") or b"x")[0].startswith(b"-ERR"), "TLS 1.3 has no tls-unique"


class OpenSSL(harness.Client):
    """A client through openssl(1), which tells the exported keying material of RFC 9266."""

    def __init__(self, p):
        self.said = subprocess.Popen([str(x) for x in ["openssl", "s_client", "-connect", "127.0.0.1:%d" % p.tls_port, "-servername",
            "mail.example.org", "-CAfile", p.dir / "ca.pem", "-tls1_3", "-nocommands", "-ign_eof", "-keymatexport", "EXPORTER-Channel-Binding",
            "-keymatexportlen", "32"]], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        self.exported = None
        for row in self.said.stdout:
            if b"Keying material: " in row:
                self.exported = bytes.fromhex(row.split()[-1].decode())
            if row.startswith(b"+OK"):
                break

    def send(self, data):
        self.said.stdin.write(data)
        self.said.stdin.flush()

    def line(self):
        row = self.said.stdout.readline()
        while not row.startswith((b"+", b"-ERR")) and row:
            row = self.said.stdout.readline()       # what openssl says of tickets
        return row

    def close(self):
        self.said.kill()
        self.said.stdin.close()
        self.said.stdout.close()
        self.said.wait(10)


def test_tls_exporter(secure):
    with OpenSSL(secure) as c:
        row, client = bound(c, "tls-exporter", c.exported)
        assert row.startswith(b"+OK") and client.verified
    with OpenSSL(secure) as c, OpenSSL(secure) as other:
        assert b"[AUTH]" in bound(c, "tls-exporter", other.exported)[0], "bound to another connection"
    with OpenSSL(secure) as c:
        assert b"[AUTH]" in bound(c, "tls-exporter", c.exported, tamper=True)[0]


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_downgrade(secure, authority, version):  # noqa: F811
    """A client that was shown no -PLUS, and says so, has been lied to; one that cannot bind is served."""
    for flag, good in (("y,,", False), ("n,,", True)):
        with connect_tls(secure, context(authority, version)) as c:
            client = Scram("u", PASSWORD, gs2=flag)
            assert sasl(c, b"SCRAM-SHA-256", client.answer, client.first).startswith(b"+OK") == good, flag
    assert logged(secure, "reason=downgraded") and logged(secure, "reason=proof")
    with secure.connect() as c:
        client = Scram("u", PASSWORD, gs2="y,,")
        assert PLUS not in offers(c)
        assert sasl(c, b"SCRAM-SHA-256", client.answer, client.first).startswith(b"+OK"), "without TLS there is no -PLUS to hide"
    for kind in ("tls-exporter", "tls-unique", "tls-server-end-point", "of-my-own"):
        with connect_tls(secure, context(authority, version)) as c:
            assert bound(c, kind, bytes(32))[0].startswith(b"-ERR"), kind
    with connect_tls(secure, context(authority, version)) as c:
        client = Scram("u", PASSWORD, gs2="n,,")
        assert sasl(c, PLUS, client.answer, client.first).startswith(b"-ERR"), "-PLUS without a binding"


# Without TLS

def test_what_is_not_offered_says_why(make_postern):
    """A password that would be seen is one thing, a mechanism that cannot be without TLS another, and one that never is a third."""
    p = make_postern({"pop3d": {"cleartext-login": "never"}, "authd": {"stores": "db"}})
    p.start()
    clear, tls, never = b"-ERR [AUTH] the password would be sent in the clear: use TLS", b"-ERR this mechanism needs TLS", b"-ERR this mechanism is not offered here"
    with p.connect() as c:
        said = {m: c.cmd(b"AUTH " + m) for m in (b"PLAIN", b"LOGIN", PLUS, b"EXTERNAL", b"CRAM-MD5")}
        assert said == {b"PLAIN": clear, b"LOGIN": clear, PLUS: tls, b"EXTERNAL": tls, b"CRAM-MD5": never}
        c.ok(b"LANG fr")
        assert c.cmd(b"AUTH EXTERNAL") == "-ERR ce mécanisme exige TLS".encode()
        c.quit()
    p.write_conf(authd={"stores": "pam"})
    for name in ("authd", "pop3d"):
        daemon = p.daemon(name)
        start = daemon.mark()
        os.kill(daemon.pid, signal.SIGHUP)
        daemon.wait_line("event=reload", start=start)
    with p.connect() as c:      # SCRAM and certificates need the store db
        assert [c.cmd(b"AUTH " + m) for m in (b"SCRAM-SHA-256", PLUS, b"EXTERNAL")] == [never] * 3
        c.quit()


# EXTERNAL

def external(c, initial):
    return c.cmd(b"AUTH EXTERNAL" + (b" " + initial if initial is not None else b""))


@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_external(secure, authority, tmp_path, version):  # noqa: F811
    ann = Client(authority, tmp_path, "ann")
    ctx = context(authority, version, certificate=ann.pair)

    def tries(initial, context_=ctx):
        with connect_tls(secure, context_) as c:
            return external(c, initial)

    assert b"[AUTH]" in tries(b"="), "a certificate that is nobody's"
    assert logged(secure, "reason=unknown-certificate", "certificate=" + ann.fingerprint)
    path = secure.dir / "ann.pem"
    path.write_bytes(ann.chain.read_bytes())
    secure.own(path)
    assert secure.authctl("cert", "add", "u", path).stdout.decode().strip() == ann.fingerprint
    assert tries(b"=").startswith(b"+OK")
    assert tries(b64(b"u")).startswith(b"+OK")
    assert b"[AUTH]" in tries(b64(b"root")) and logged(secure, "reason=authzid")
    with connect_tls(secure, ctx) as c:
        assert external(c, None) == b"+ "
        assert c.cmd(b"").startswith(b"+OK")
    with connect_tls(secure, ctx) as c:
        assert external(c, None) == b"+ "
        assert c.cmd(b"*").startswith(b"-ERR")
        assert external(c, b64(b"u\0u")).startswith(b"-ERR")
        assert external(c, b"=").startswith(b"+OK"), "after what was refused"
    assert logged(secure, "reason=certificate")
    with connect_tls(secure, context(authority, version)) as c:
        assert b"EXTERNAL" not in offers(c) and external(c, b"=").startswith(b"-ERR"), "no certificate was shown"
    with secure.connect() as c:
        assert external(c, b"=").startswith(b"-ERR")
    secure.authctl("lock", "u")
    assert b"[AUTH]" in tries(b"=")
    secure.authctl("unlock", "u")
    assert tries(b"=").startswith(b"+OK")
    secure.authctl("cert", "del", "u", ann.fingerprint)
    assert b"[AUTH]" in tries(b"=")


def test_external_outlives_a_renewal(secure, authority, tmp_path):  # noqa: F811
    """By the fingerprint of the public key a certificate with the same key is known."""
    ann = Client(authority, tmp_path, "ann")
    secure.authctl("cert", "add", "u", ":".join(re.findall("..", ann.key_fingerprint.upper())))
    with connect_tls(secure, context(authority, certificate=ann.pair)) as c:
        assert external(c, b"=").startswith(b"+OK")


def test_certificates_of_users(secure, authority, tmp_path):  # noqa: F811
    ann, bob = Client(authority, tmp_path, "ann"), Client(authority, tmp_path, "bob")
    secure.add("v")
    ctl = lambda *a: secure.authctl("cert", *a, check=False)  # noqa: E731
    der = secure.dir / "bob.der"
    der.write_bytes(bob.der)
    key = secure.dir / "bob.key"
    key.write_bytes(bob.key.read_bytes())
    secure.own(secure.dir)
    assert ctl("add", "u", ann.fingerprint).returncode == 0 and ctl("add", "u", der).returncode == 0
    assert ctl("list", "u").stdout.decode().split() == [ann.fingerprint, bob.fingerprint]
    for bad, status in ((("add", "u", ann.fingerprint), 1), (("add", "v", ann.fingerprint), 1), (("add", "nobody", ann.fingerprint), 1),
                        (("add", "u", key), 1), (("add", "u", "/nonexistent"), 1), (("add", "u", ann.fingerprint[:-2]), 1),
                        (("del", "v", ann.fingerprint), 1), (("del", "u", "x"), 2), (("list", "nobody"), 1), (("add", "u"), 2)):
        done = ctl(*bad)
        assert done.returncode == status and done.stderr and not done.stdout, bad
    assert b"certs=2" in secure.authctl("list").stdout
    secure.authctl("del", "u")
    assert ctl("add", "v", ann.fingerprint).returncode == 0, "who is gone has no certificates"
    with connect_tls(secure, context(authority, certificate=ann.pair)) as c:
        external(c, b"=")
    logged(secure, "user=v ", "result=ok")


# Real clients

def mpop(p, auth, user="u", password=PASSWORD, tls=None, **more):
    """Fetches the mail with mpop; what it says."""
    home = p.dir / "home"
    home.mkdir(exist_ok=True)
    rows = ["account a", "host 127.0.0.1", "port %d" % (p.tls_port if tls else p.port), "user %s" % user, "password %s" % password,
            "auth %s" % auth, "keep on", "delivery mbox %s" % (home / "got"), "uidls_file %s" % (home / "uidls")]
    rows += ["tls on", "tls_starttls off", "tls_certcheck on", "tls_trust_file %s" % (p.dir / "ca.pem"), "tls_host_override mail.example.org",
             "tls_priorities NORMAL:-VERS-ALL:+VERS-TLS%s" % tls] if tls else ["tls off"]
    rows += ["%s %s" % kv for kv in more.items()]
    (home / "rc").write_text("\n".join(rows) + "\n")
    (home / "rc").chmod(0o600)
    p.own(home)
    done = subprocess.run(["mpop", "-C", str(home / "rc"), "a"], capture_output=True, timeout=60, **p.popen_as())
    return done, (home / "got").read_bytes().count(b"Subject: ") if (home / "got").exists() else 0


@needs("mpop")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
@pytest.mark.parametrize("auth", ["scram-sha-256", "scram-sha-256-plus"])
def test_mpop_scram(secure, auth, version):
    if auth.endswith("plus") and auth not in subprocess.run(["mpop", "--version"], capture_output=True, text=True).stdout:
        pytest.skip("this mpop cannot bind")
    done, got = mpop(secure, auth, tls=version)
    assert done.returncode == 0 and got == 2, done.stderr
    assert logged(secure, "mechanism=" + auth.upper())
    done, _ = mpop(secure, auth, password="wrong", tls=version)
    assert done.returncode != 0


@needs("mpop")
@pytest.mark.parametrize("version", [None, "1.2", "1.3"])
def test_mpop_by_itself(secure, version):
    """Left to choose, it takes a mechanism that works."""
    done, got = mpop(secure, "on", tls=version)
    assert done.returncode == 0 and got == 2, done.stderr


@needs("mpop")
@pytest.mark.parametrize("version", ["1.2", "1.3"])
def test_mpop_external(secure, authority, version):  # noqa: F811
    ann = Client(authority, secure.dir, "ann")
    secure.own(secure.dir)
    ann.key.chmod(0o600)
    secure.authctl("cert", "add", "u", ann.fingerprint)
    done, got = mpop(secure, "external", tls=version, tls_cert_file=ann.chain, tls_key_file=ann.key)
    assert done.returncode == 0 and got == 2, done.stderr
    assert logged(secure, "reason=certificate")


def curl(p, *args, user="u", password=PASSWORD, tls=False):
    url = "pop3s://mail.example.org:%d/1" % p.tls_port if tls else "pop3://127.0.0.1:%d/1" % p.port
    more = ["--cacert", p.dir / "ca.pem", "--resolve", "mail.example.org:%d:127.0.0.1" % p.tls_port] if tls else []
    return subprocess.run([str(x) for x in ["curl", "-sS", "--user", user + ":" + password, *more, *args, url]], capture_output=True, timeout=60)


def secret_of(p):
    secret = p.authctl("secret", "u").stdout.decode().strip()
    p.passwords.add(secret)
    return secret


@needs("curl")
@pytest.mark.parametrize("mechanism", ["PLAIN", "LOGIN", "CRAM-MD5", "+APOP"])
@pytest.mark.parametrize("tls", [False, True])
def test_curl(secure, mechanism, tls):
    password = secret_of(secure) if mechanism in ("CRAM-MD5", "+APOP") else PASSWORD
    done = curl(secure, "--login-options", "AUTH=" + mechanism, password=password, tls=tls)
    assert done.stdout == b"Subject: one\r\n\r\n1\r\n", done.stderr
    assert logged(secure, "mechanism=" + mechanism.lstrip("+"))
    assert curl(secure, "--login-options", "AUTH=" + mechanism, password="wrong", tls=tls).returncode == 67


@needs("curl")
def test_curl_scram(secure):
    if "gsasl" not in subprocess.run(["curl", "--version"], capture_output=True, text=True).stdout.lower():
        pytest.skip("this curl cannot do SCRAM")
    assert curl(secure, "--login-options", "AUTH=SCRAM-SHA-256").stdout == b"Subject: one\r\n\r\n1\r\n"


@needs("curl")
@pytest.mark.parametrize("ir", [[], ["--sasl-ir"]])
def test_curl_external(secure, authority, ir):  # noqa: F811
    ann = Client(authority, secure.dir, "ann")
    secure.authctl("cert", "add", "u", ann.fingerprint)
    done = curl(secure, "--login-options", "AUTH=EXTERNAL", "--cert", ann.chain, "--key", ann.key, *ir, password="", tls=True)
    assert done.stdout == b"Subject: one\r\n\r\n1\r\n", done.stderr
    assert logged(secure, "mechanism=EXTERNAL")


@needs("fetchmail")
@pytest.mark.parametrize("protocol,options,mechanism", [("apop", "", "APOP"), ("pop3", "auth cram-md5", "CRAM-MD5"), ("pop3", "auth password", "USER")])
def test_fetchmail(secure, protocol, options, mechanism):
    password = PASSWORD if mechanism == "USER" else secret_of(secure)
    home = secure.dir / "home"
    home.mkdir(mode=0o700)
    (home / "rc").write_text('set invisible\npoll 127.0.0.1 service %d protocol %s %s\n username "u" password "%s" is nobody here keep '
                             'fetchall no rewrite mda "/bin/cat >>%s/got" sslproto \'\'\n' % (secure.port, protocol, options, password, home))
    (home / "rc").chmod(0o600)
    secure.own(home)
    env = {"PATH": os.environ["PATH"], "HOME": str(home), "LC_ALL": "C", "USER": "nobody", "LOGNAME": "nobody"}
    done = subprocess.run(["fetchmail", "-v", "-f", str(home / "rc"), "--nosyslog", "--nodetach", "--pidfile", str(home / "pid")], env=env,
                          capture_output=True, timeout=60, cwd=home, **secure.popen_as())
    assert done.returncode == 0 and (home / "got").read_bytes().count(b"Subject: ") == 2, done.stdout + done.stderr
    assert logged(secure, "mechanism=" + mechanism)


def gsasl(c, mechanism, password, typed=b""):
    """
    gsasl(1) speaks no POP3: it says its part of the exchange, and this carries it. `typed`: its questions for channel bindings are answered
    so. The last line.
    """
    said = subprocess.Popen(["timeout", "20", "stdbuf", "-oL", "gsasl", "--client", "--mechanism", mechanism, "--authentication-id", "u",
                             "--password", password, "--quiet"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    def says(line):
        said.stdin.write(line)
        said.stdin.flush()
        return said.stdout.readline().strip().rsplit(b": ", 1)[-1]

    try:
        assert said.stdout.readline().strip() == mechanism.encode()
        initial = says(typed)
        row = c.cmd(b"AUTH " + mechanism.encode() + (b" " + initial if initial else b""))
        while row.startswith(b"+ "):
            # the server's proof is its last word: there is nothing more to say
            last = base64.b64decode(row[2:]).startswith(b"v=")
            row = c.cmd(b"" if last else says(row[2:] + b"\n"))
        return row
    finally:
        said.kill()
        said.wait(10)
        said.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            said.stdin.close()


@needs("gsasl")
@pytest.mark.parametrize("mechanism", ["SCRAM-SHA-256", "CRAM-MD5", "PLAIN", "LOGIN"])
def test_gsasl(secure, mechanism):
    with secure.connect() as c:
        row = gsasl(c, mechanism, secret_of(secure) if mechanism == "CRAM-MD5" else PASSWORD, b"\n\n" if mechanism.startswith("SCRAM") else b"")
        assert row.startswith(b"+OK"), row


def test_poplib_apop(secure):
    """Python's client, by APOP, with the secret and with what is none."""
    secret = secret_of(secure)
    for password, good in ((secret, True), (PASSWORD, False)):
        c = poplib.POP3("127.0.0.1", secure.port, timeout=30)
        try:
            assert c.apop("u", password).startswith(b"+OK") and good
            assert c.stat()[0] == 2
        except poplib.error_proto as e:
            assert b"[AUTH]" in e.args[0] and not good
        finally:
            c.close()


@needs("gsasl")
@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_gsasl_bound(secure, authority, version):  # noqa: F811
    """Another implementation of -PLUS, over both versions."""
    def typed(c):
        return b"\n" + b64(c.socket.get_channel_binding("tls-unique")) + b"\n" if version == TLS12 else b64(c.exported) + b"\n"

    def connect():
        return connect_tls(secure, context(authority, TLS12)) if version == TLS12 else OpenSSL(secure)

    with connect() as c:
        assert gsasl(c, "SCRAM-SHA-256-PLUS", PASSWORD, typed(c)).startswith(b"+OK")
    with connect() as c:
        assert b"[AUTH]" in gsasl(c, "SCRAM-SHA-256-PLUS", "wrong", typed(c))
    with connect() as c, connect() as other:
        assert b"[AUTH]" in gsasl(c, "SCRAM-SHA-256-PLUS", PASSWORD, typed(other))
