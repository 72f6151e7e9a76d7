"""TLS, and where its key is: versions, keys, STLS, what is checked at start, reload, the keeper's closed list, and the memory of every process.

`make check` asks the slow judges for the main things, and floods for a moment; with TLS_ALL=1 in the environment (`make check-tls`) they are asked
for all they know, over STLS too, and 1,000 handshakes are made beside 1,000 half-open ones.
"""
import base64
import contextlib
import ctypes
import datetime
import os
import pathlib
import random
import re
import resource
import secrets
import select
import shutil
import signal
import socket
import ssl
import string
import struct
import subprocess
import tempfile
import threading
import time

import pytest

import harness
from harness import NOBODY, PASSWORD, IS_ROOT, REPO, TIMEOUT

ALL = "TLS_ALL" in os.environ
MESSAGE = b"Subject: over TLS\n\nhello\n"
NAME = "mail.example.org"


# Certificates

def openssl(*args, **how):
    done = subprocess.run(["openssl", *[str(a) for a in args]], capture_output=True, timeout=60, **how)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


KINDS = {"rsa": ["RSA", "rsa_keygen_bits:2048"], "p256": ["EC", "ec_paramgen_curve:P-256"], "p384": ["EC", "ec_paramgen_curve:P-384"],
         "p521": ["EC", "ec_paramgen_curve:P-521"], "ed25519": ["ED25519"], "rsa1024": ["RSA", "rsa_keygen_bits:1024"]}


class Authority:
    """A CA of the tests: a root, an issuer under it, and what it gives out."""

    def __init__(self, directory):
        self.dir = pathlib.Path(directory)
        self.count = 0
        self.root_key = self.key("p256")
        self.root = self.dir / "root.crt"
        openssl("req", "-x509", "-new", "-key", self.root_key, "-subj", "/CN=Test root", "-days", "3650", "-out", self.root,
                "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=keyCertSign,cRLSign")
        self.issuer_key = self.key("p256")
        self.issuer = self.certificate(self.issuer_key, subject="/CN=Test issuer", by=(self.root, self.root_key),
            extensions="basicConstraints=critical,CA:TRUE\nkeyUsage=keyCertSign,cRLSign")

    def path(self, suffix):
        self.count += 1
        return self.dir / ("%d.%s" % (self.count, suffix))

    def key(self, kind):
        out = self.path("key")
        algorithm, *options = KINDS[kind]
        openssl("genpkey", "-algorithm", algorithm, *[x for o in options for x in ("-pkeyopt", o)], "-out", out)
        out.chmod(0o600)
        return out

    def certificate(self, key, names=(NAME,), subject="/CN=test", by=None, days=365, extensions="", before=None):
        request, out, extra = self.path("csr"), self.path("crt"), self.path("ext")
        issuer, issuer_key = by or (self.issuer, self.issuer_key)
        if names and "CA:TRUE" not in extensions:
            extensions += "\nsubjectAltName=" + ",".join(("IP:" if n[0].isdigit() else "DNS:") + n for n in names)
        extra.write_text(extensions.strip() + "\n")
        openssl("req", "-new", "-key", key, "-subj", subject, "-out", request)
        if before is None:
            openssl("x509", "-req", "-in", request, "-CA", issuer, "-CAkey", issuer_key, "-days", days, "-extfile", extra, "-out", out,
                    "-set_serial", 1000 + self.count)
        else:
            conf, index = self.path("cnf"), self.path("index")
            index.write_text("")
            conf.write_text("[ca]\ndefault_ca=d\n[d]\ndatabase=%s\nnew_certs_dir=%s\ndefault_md=sha256\npolicy=p\nunique_subject=no\n"
                            "rand_serial=yes\n[p]\ncommonName=supplied\n" % (index, self.dir))
            stamp = [t.strftime("%Y%m%d%H%M%SZ") for t in before]
            openssl("ca", "-batch", "-notext", "-config", conf, "-in", request, "-cert", issuer, "-keyfile", issuer_key, "-startdate", stamp[0],
                    "-enddate", stamp[1], "-extfile", extra, "-out", out)
        return out

    def pair(self, kind="p256", **how):
        """(chain, key): the server's own, then its issuer."""
        key = self.key(kind)
        chain = self.path("pem")
        chain.write_bytes(self.certificate(key, **how).read_bytes() + self.issuer.read_bytes())
        return chain, key


@pytest.fixture(scope="module")
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def pairs(authority):
    return {kind: authority.pair(kind) for kind in ("rsa", "p256", "p384", "p521", "ed25519")}


# A server with certificates

def install(p, name, pair):
    """Copies a pair to where the daemons may read it; as certbot does, never written in place."""
    paths = []
    for path, suffix in zip(pair, ("crt", "key")):
        to = p.dir / ("%s.%s" % (name, suffix))
        new = to.with_suffix(".new")
        new.write_bytes(path.read_bytes())
        new.chmod(0o600)
        if IS_ROOT:
            os.chown(new, p.uid, p.uid)
        new.rename(to)
        paths.append(to)
    return paths


def configure(p, *installed, **more):
    keys = {"certificate": "\n  ".join(str(c) for c, _ in installed), "key": "\n  ".join(str(k) for _, k in installed)}
    keys.update(more)
    p.write_conf(tls=keys)


def port_of(daemon, tls, start=0):
    return int(re.search(r"port=(\d+)", daemon.wait_line("event=listening", "tls=" + ("yes" if tls else "no"), start=start))[1])


def serve(make, *pairs, conf=None, tls=None, programs=("spoold", "authd")):
    p = make(conf or {})
    installed = [install(p, "pair%d" % i, pair) for i, pair in enumerate(pairs)]
    configure(p, *installed, **(tls or {}))
    p.start(*programs)
    start_pop3d(p)
    return p


def start_pop3d(p):
    d = p.start_daemon("pop3d", "-l", "127.0.0.1:0", "-s", "127.0.0.1:0")
    p.port, p.tls_port = port_of(d, False), port_of(d, True)
    d.wait_line("event=certificates|keeper cannot be reached")
    return d


def context(authority, version=None, alpn=("pop3",), certificate=None):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    c.load_verify_locations(authority.root)
    if version:
        c.minimum_version = c.maximum_version = version
    if alpn:
        c.set_alpn_protocols(list(alpn))
    if certificate:
        c.load_cert_chain(*certificate)
    return c


TLS12, TLS13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def over_tls(client, ctx, name=NAME):
    client.socket = ctx.wrap_socket(client.socket, server_hostname=name)
    return client


def connect_tls(p, ctx, name=NAME):
    c = over_tls(harness.Client("127.0.0.1", p.tls_port), ctx, name)
    c.banner = c.line()
    return c


@pytest.fixture(scope="module")
def shared(authority, pairs):
    """One server for the tests that change nothing: RSA and P-256 for one name, and Ed25519 for another."""
    made = []

    def make(conf):
        made.append(harness.Postern(conf))
        return made[-1]

    p = serve(make, pairs["p256"], pairs["rsa"], authority.pair("ed25519", names=("ed.example.org",)), authority.pair(names=("*.wild.example.org",)),
              conf={"pop3d": {"max-per-address": 2000}})
    p.user("ann", "mbox", [MESSAGE, b"Subject: long\n\n" + b"0123456789abcdef\n" * 60000])
    yield p
    p.close()


# Sessions

@pytest.mark.parametrize("version", [TLS12, TLS13])
@pytest.mark.parametrize("kind", ["rsa", "p256", "p384", "p521", "ed25519"])
def test_key_and_version(make_postern, authority, pairs, kind, version):
    p = serve(make_postern, pairs[kind])
    p.user("ann", "maildir", [MESSAGE])
    c = connect_tls(p, context(authority, version))
    assert c.socket.version() == {TLS12: "TLSv1.2", TLS13: "TLSv1.3"}[version]
    assert c.socket.selected_alpn_protocol() == "pop3"
    assert not c.socket.session_reused
    c.login("ann")
    assert c.retr(1) == harness.wire(MESSAGE)
    assert c.quit().startswith(b"+OK")
    p.daemon("pop3d").wait_line("event=session end=quit user=ann .*tls=TLS1.%d" % (2 if version == TLS12 else 3))


def test_quit_ends_with_close_notify(shared, authority):
    c = connect_tls(shared, context(authority))
    c.socket.suppress_ragged_eofs = False
    assert c.quit().startswith(b"+OK")     # a missing close-notify would be SSLEOFError


def test_alpn_of_another_protocol_is_refused(shared, authority):
    with harness.Client("127.0.0.1", shared.tls_port) as c, pytest.raises(ssl.SSLError, match="(?i)no.application.protocol"):
        over_tls(c, context(authority, alpn=("http/1.1",)))
    with connect_tls(shared, context(authority, alpn=())) as c:
        assert c.banner.startswith(b"+OK")


def test_old_versions_and_weak_ciphers(shared):
    for options in (["-tls1"], ["-tls1_1"], ["-tls1_2", "-cipher", "AES128-SHA256:AES256-GCM-SHA384:@SECLEVEL=0"],
                    ["-tls1_2", "-cipher", "ECDHE-RSA-AES128-SHA:@SECLEVEL=0"], ["-tls1_2", "-cipher", "DHE-RSA-AES128-GCM-SHA256:@SECLEVEL=0"]):
        done = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % shared.tls_port, *options], input=b"", capture_output=True,
                              timeout=TIMEOUT)
        assert done.returncode != 0 and b"Cipher is (NONE)" in done.stdout, options


def test_minimum(make_postern, authority, pairs):
    p = serve(make_postern, pairs["p256"], tls={"minimum": "1.3"})
    with harness.Client("127.0.0.1", p.tls_port) as c, pytest.raises(ssl.SSLError, match="(?i)protocol.version|handshake.failure"):
        over_tls(c, context(authority, TLS12))
    connect_tls(p, context(authority, TLS13)).quit()


def test_sni(shared, authority):
    def shown(name, *options):
        out = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % shared.tls_port, "-servername", name, *options],
                             input=b"QUIT\r\n", capture_output=True, timeout=TIMEOUT).stdout
        names = openssl("x509", "-noout", "-ext", "subjectAltName", input=out).decode()
        return re.findall(r"DNS:([^,\s]+)", names)[0], re.search(rb"Peer signature type: (\S+)", out)[1].decode()

    assert shown(NAME) == (NAME, "ECDSA")
    assert shown(NAME, "-sigalgs", "RSA-PSS+SHA256") == (NAME, "RSA-PSS")
    assert shown(NAME, "-tls1_2", "-cipher", "ECDHE-RSA-AES128-GCM-SHA256", "-sigalgs", "RSA+SHA512")[0] == NAME
    assert shown("ed.example.org") == ("ed.example.org", "ed25519")
    assert shown("a.wild.example.org")[0] == "*.wild.example.org"
    assert shown("MAIL.Example.ORG")[0] == NAME
    assert shown("unknown.example.net")[0] == NAME      # the first pair
    connect_tls(shared, context(authority), "b.wild.example.org").quit()


def test_nothing_is_resumed(shared, authority):
    for version in (TLS12, TLS13):
        ctx = context(authority, version)
        first = connect_tls(shared, ctx)
        first.ok(b"CAPA")
        assert not first.socket.session.has_ticket
        session = first.socket.session
        first.body()
        first.quit()
        s = ctx.wrap_socket(socket.create_connection(("127.0.0.1", shared.tls_port)), server_hostname=NAME, session=session)
        assert not s.session_reused
        s.close()


def test_renegotiation_ends_the_connection(shared):
    s = subprocess.Popen(["openssl", "s_client", "-connect", "127.0.0.1:%d" % shared.tls_port, "-tls1_2", "-quiet", "-legacy_renegotiation"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert s.stdout.readline().startswith(b"+OK")
    start = shared.daemon("pop3d").mark()
    s.kill()
    s.wait()
    s.stdin.close()
    s.stdout.close()
    s = subprocess.Popen(["openssl", "s_client", "-connect", "127.0.0.1:%d" % shared.tls_port, "-tls1_2"], stdin=subprocess.PIPE,
                         stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out = b""
    while b"+OK" not in out:
        out += os.read(s.stdout.fileno(), 65536)
    s.stdin.write(b"R\n")
    s.stdin.flush()
    assert s.wait(TIMEOUT) is not None
    s.stdin.close()
    s.stdout.close()
    shared.daemon("pop3d").wait_line("event=session", "end=tls-error", start=start)


def test_key_update(shared, authority):
    """A TLS 1.3 client may change its keys, and ask for new ones, at any time: also in the narrower cell after login."""
    s = subprocess.Popen(["openssl", "s_client", "-connect", "127.0.0.1:%d" % shared.tls_port, "-tls1_3", "-crlf"],
                         stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    out = b""

    def until(text):
        nonlocal out
        while text not in out:
            data = os.read(s.stdout.fileno(), 65536)
            assert data, out
            out += data
        out = out.split(text, 1)[1]

    def say(line):
        s.stdin.write(line + b"\n")
        s.stdin.flush()

    until(b"+OK Postern ready\r\n")
    for command in (b"USER ann", b"k", b"PASS " + PASSWORD.encode(), b"K", b"K", b"k", b"NOOP"):
        say(command)
        until(b"KEYUPDATE\n" if command in (b"k", b"K") else b"\r\n")
    s.stdin.close()
    s.stdout.close()
    s.kill()
    s.wait()


def test_mutated_handshakes(shared, authority):
    """Octets of a good ClientHello changed, cut, doubled: never a process that dies of it, and others are served."""
    rng = random.Random(5)
    start = shared.daemon("pop3d").mark()
    for i in range(300):
        outgoing = ssl.MemoryBIO()
        o = context(authority, rng.choice((TLS12, TLS13))).wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=NAME)
        with contextlib.suppress(ssl.SSLWantReadError):
            o.do_handshake()
        hello = bytearray(outgoing.read())
        for _ in range(rng.randrange(1, 6)):
            at = rng.randrange(len(hello))
            what = rng.randrange(4)
            if what == 0:
                hello[at] = rng.randrange(256)
            elif what == 1:
                del hello[at:at + rng.randrange(1, 20)]
            elif what == 2:
                hello[at:at] = hello[at:at + rng.randrange(1, 50)]
            else:
                hello[at:at] = rng.randbytes(rng.randrange(1, 30))
        c = harness.Client("127.0.0.1", shared.tls_port)
        with contextlib.suppress(OSError):
            c.send(bytes(hello))
            c.socket.shutdown(socket.SHUT_WR)
            while c.socket.recv(4096):
                pass
        c.close()
    connect_tls(shared, context(authority)).quit()
    assert not any(b"killed by signal" in row for row in shared.daemon("pop3d").lines[start:])


def test_long_message_in_full_records(shared, authority):
    """Replies leave in records of 16 KiB, not in one a line."""
    with contextlib.closing(socket.create_connection(("127.0.0.1", shared.tls_port))) as raw:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        o = context(authority, TLS13).wrap_bio(incoming, outgoing, server_hostname=NAME)
        records, plain, pending = 0, b"", b""

        def pump(action):
            nonlocal pending, records
            while True:
                try:
                    result = action()
                    raw.sendall(outgoing.read())
                    return result
                except ssl.SSLWantReadError:
                    raw.sendall(outgoing.read())
                    data = raw.recv(1 << 16)
                    assert data
                    incoming.write(data)
                    pending += data
                    while len(pending) >= 5 and len(pending) >= 5 + int.from_bytes(pending[3:5], "big"):
                        pending = pending[5 + int.from_bytes(pending[3:5], "big"):]
                        records += 1

        pump(o.do_handshake)
        pump(lambda: o.read(1000))
        o.write(b"USER ann\r\nPASS " + PASSWORD.encode() + b"\r\nRETR 2\r\nQUIT\r\n")
        raw.sendall(outgoing.read())
        before = records
        while b"\r\n.\r\n+OK" not in plain:
            plain += pump(lambda: o.read(1 << 16))
        assert plain.count(b"0123456789abcdef\r\n") == 60000
        assert records - before <= len(plain) / 16384 * 1.5 + 12, "%d records for %d octets" % (records - before, len(plain))


def test_pipelined_over_tls(shared, authority):
    c = connect_tls(shared, context(authority))
    c.send(b"CAPA\r\nUSER ann\r\nPASS " + PASSWORD.encode() + b"\r\nSTAT\r\nRETR 1\r\nNOOP\r\nQUIT\r\n")
    c.reply()
    c.body()
    for _ in range(4):
        assert c.reply().startswith(b"+OK")
    assert c.unstuffed() == harness.wire(MESSAGE)
    assert c.reply().startswith(b"+OK") and c.reply().startswith(b"+OK")
    c.close()


def test_dripped_handshake_and_commands(shared, authority):
    """An octet a packet, through the handshake and after it."""
    raw = socket.create_connection(("127.0.0.1", shared.tls_port), TIMEOUT)
    raw.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    o = context(authority).wrap_bio(incoming, outgoing, server_hostname=NAME)

    def drip():
        data = outgoing.read()
        for i in range(len(data)):
            raw.send(data[i:i + 1])

    def pump(action):
        while True:
            try:
                result = action()
                drip()
                return result
            except ssl.SSLWantReadError:
                drip()
                incoming.write(raw.recv(1 << 16))

    pump(o.do_handshake)
    assert pump(lambda: o.read(1000)).startswith(b"+OK")
    pump(lambda: o.write(b"QUIT\r\n"))
    assert pump(lambda: o.read(1000)).startswith(b"+OK")
    raw.close()


def test_handshake_has_the_logins_deadline(make_postern, authority, pairs):
    p = serve(make_postern, pairs["p256"], conf={"pop3d": {"login-timeout": 10 if harness.WRAP else 1}})
    with harness.Client("127.0.0.1", p.tls_port) as c:
        assert c.socket.recv(100) == b""
    with harness.Client("127.0.0.1", p.tls_port) as c:
        c.send(b"\x16\x03\x01\x02\x00\x01")     # the start of a ClientHello that never ends
        assert c.socket.recv(100) == b""
    d = p.daemon("pop3d")
    d.wait_line("event=session end=timeout")
    connect_tls(p, context(authority)).quit()


def test_garbage_instead_of_a_handshake(shared, authority):
    start = shared.daemon("pop3d").mark()
    for data in (b"USER ann\r\n", b"GET / HTTP/1.0\r\n\r\n", bytes(range(256)) * 10, b"\x16\x03\x01\x40\x01" + b"\0" * 0x4001, b"\x80\x2e\x01\x00\x02" + b"\0" * 60):
        with harness.Client("127.0.0.1", shared.tls_port) as c:
            c.send(data)
            with contextlib.suppress(ConnectionResetError):
                while c.socket.recv(1000):
                    pass
        shared.daemon("pop3d").wait_line("event=tls result=failed", start=start)
        start = shared.daemon("pop3d").mark()
    connect_tls(shared, context(authority)).quit()


# STLS

def test_stls(shared, authority):
    c = shared.connect()
    assert b"STLS" in c.multi(b"CAPA")
    c.ok(b"USER bob")
    c.ok(b"STLS")
    over_tls(c, context(authority))
    assert b"STLS" not in c.multi(b"CAPA")
    assert b"USER comes first" in c.err(b"PASS " + PASSWORD.encode())     # it was forgotten
    c.err(b"STLS")
    c.login("ann")
    assert b"STLS" not in c.multi(b"CAPA")
    c.err(b"STLS")
    c.quit()
    with connect_tls(shared, context(authority)) as c:
        assert b"STLS" not in c.multi(b"CAPA")
        c.err(b"STLS")


def test_stls_after_a_refused_login(shared, authority):
    """The verifier was told about the connection already, and is told again."""
    c = shared.connect()
    c.ok(b"USER ann")
    c.err(b"PASS wrong")
    c.ok(b"STLS")
    over_tls(c, context(authority))
    c.login("ann")
    c.quit()
    shared.daemon("authd").wait_line("event=login", "result=ok", "user=ann", "tls=TLS1.3")


def test_stls_is_not_offered_without_a_certificate(make_postern):
    p = make_postern()
    p.start()
    c = p.connect()
    assert b"STLS" not in c.multi(b"CAPA")
    c.err(b"STLS")
    c.quit()
    d = p.start_daemon("pop3d", "-s", "127.0.0.1:0", await_ready=False)
    d.wait_line("certificate.*none is set")
    assert d.process.wait(TIMEOUT) == 1
    p.daemons["pop3d"].remove(d)
    d.process.stderr.close()


def test_cleartext_never(make_postern, authority, pairs):
    p = serve(make_postern, pairs["p256"], conf={"pop3d": {"cleartext-login": "never"}})
    p.user("ann", "mbox", [MESSAGE])
    c = p.connect()
    capa = c.multi(b"CAPA")
    assert b"USER" not in capa and b"STLS" in capa and not {b"PLAIN", b"LOGIN"} & set(b" ".join(capa).split())
    assert b"TLS" in c.err(b"USER ann")
    c.err(b"AUTH PLAIN")
    c.ok(b"STLS")
    over_tls(c, context(authority))
    capa = c.multi(b"CAPA")
    assert b"USER" in capa and {b"PLAIN", b"LOGIN"} <= set(b" ".join(capa).split())
    c.login("ann")
    c.quit()


INJECTED = b"STLS\r\nUSER ann\r\nPASS " + PASSWORD.encode() + b"\r\nSTAT\r\n"


def assert_nothing_injected(p, authority, c, start):
    """Either the connection ends with an error, or TLS begins and what was sent in the clear was never a command."""
    answers = b""
    with contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while True:
            data = c.socket.recv(4096)
            if not data:
                break
            answers += data
    c.close()
    # Not one answer to what was behind STLS.
    plain = answers.split(b"+OK begin TLS now\r\n")[0]
    assert plain.count(b"\r\n") <= 1, answers
    assert b"messages" not in answers and b"password" not in answers, answers
    p.daemon("pop3d").wait_line("event=session end=(stls-injection|tls-failed|client-gone)", start=start)
    assert not any(b"event=login" in row for row in p.daemon("authd").lines[:])


@pytest.fixture(scope="module")
def alone(authority, pairs):
    """A server whose authd's log no other login gets into."""
    made = []

    def make(conf):
        made.append(harness.Postern(conf))
        return made[-1]

    p = serve(make, pairs["p256"])
    p.user("ann", "mbox", [MESSAGE])
    yield p
    p.close()


def test_injection_in_one_packet(alone, authority):
    start = alone.daemon("pop3d").mark()
    c = alone.connect()
    c.send(INJECTED)
    assert c.line().startswith(b"-ERR")
    alone.daemon("pop3d").wait_line("event=session end=stls-injection", start=start)
    assert_nothing_injected(alone, authority, c, start)


def test_injection_before_the_answer(alone, authority):
    start = alone.daemon("pop3d").mark()
    c = alone.connect()
    c.send(b"STLS\r\n")
    c.send(INJECTED[6:])
    assert_nothing_injected(alone, authority, c, start)


def test_injection_split_at_every_octet(alone, authority):
    for at in range(1, len(INJECTED)):
        start = alone.daemon("pop3d").mark()
        c = alone.connect()
        c.send(INJECTED[:at])
        c.send(INJECTED[at:])
        assert_nothing_injected(alone, authority, c, start)


def test_client_hello_behind_stls_is_refused(alone, authority):
    """A client that does not wait for +OK is let go, whatever it sent."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    o = context(authority).wrap_bio(incoming, outgoing, server_hostname=NAME)
    with contextlib.suppress(ssl.SSLWantReadError):
        o.do_handshake()
    c = alone.connect()
    c.send(b"STLS\r\n" + outgoing.read())
    assert c.line().startswith(b"-ERR")
    c.close()


def test_clear_octets_after_the_answer_are_no_command(alone, authority):
    start = alone.daemon("pop3d").mark()
    c = alone.connect()
    c.ok(b"STLS")
    c.send(INJECTED[6:])
    alone.daemon("pop3d").wait_line("event=tls result=failed", start=start)
    assert_nothing_injected(alone, authority, c, start)


def test_a_broken_handshake_ends_the_session(alone, authority):
    start = alone.daemon("pop3d").mark()
    with alone.connect() as c:
        c.ok(b"STLS")
        with pytest.raises(ssl.SSLError):
            over_tls(c, context(authority, alpn=("imap",)))
    alone.daemon("pop3d").wait_line("event=session end=tls-failed", start=start)


# What is checked at start

def check(p, *args):
    argv = p.argv("authd", "-t", *args)
    done = subprocess.run([str(a) for a in argv], capture_output=True, timeout=TIMEOUT, **p.popen_as())
    return done.returncode, done.stderr.decode()


def mistakes(make, pair, expected, level="error"):
    """authd -t tells it; authd itself does not start with a mistake."""
    p = make()
    configure(p, install(p, "pair", pair) if isinstance(pair, tuple) else pair(p))
    status, text = check(p)
    assert re.search(expected, text), text
    assert status == (1 if level == "error" else 0), text
    assert (level + ":") in text
    if level == "error":
        with pytest.raises(harness.Failed):
            p.start("authd")
        d = p.daemons["authd"].pop()
        d.wait_line(expected)
        assert d.process.wait(TIMEOUT) == 1
        d.process.stderr.close()
    return p


@pytest.mark.confined       # off would be advised against
def test_good_certificate_checks(make_postern, pairs):
    p = make_postern({"authd": {"throttle": "on"}})     # off would be advised against
    configure(p, install(p, "pair", pairs["rsa"]))
    assert check(p) == (0, "")


def test_key_of_another_certificate(make_postern, pairs):
    mistakes(make_postern, (pairs["rsa"][0], pairs["p256"][1]), "the key in .* is not this certificate's: name the key")


def test_encrypted_key(make_postern, authority, pairs):
    for options in (["pkcs8", "-topk8"], ["rsa", "-aes128", "-traditional"]):
        out = authority.path("key")
        openssl(*options, "-in", pairs["rsa"][1], "-passout", "pass:x", "-out", out)
        mistakes(make_postern, (pairs["rsa"][0], out), "the key is encrypted, .*openssl pkey -in")


def test_chain_out_of_order(make_postern, authority, pairs):
    own, issuer = re.findall(b"-----BEGIN.*?-----END CERTIFICATE-----\n", pairs["p256"][0].read_bytes(), re.S)
    wrong = authority.path("pem")
    wrong.write_bytes(issuer + own)
    mistakes(make_postern, (wrong, pairs["p256"][1]), "out of order: the server's own certificate is number 2")
    wrong.write_bytes(own + authority.root.read_bytes() + issuer)
    mistakes(make_postern, (wrong, pairs["p256"][1]), "out of order: certificate 2 in the file is not the issuer of certificate 1")


def test_permissions_of_the_key(make_postern, pairs):
    def with_mode(mode):
        def make_files(p):
            crt, key = install(p, "pair", pairs["p256"])
            key.chmod(mode)
            return crt, key
        return make_files

    mistakes(make_postern, with_mode(0o644), "every user of this host may read the key .mode 0644.: chmod 600")
    mistakes(make_postern, with_mode(0o620), "group \\d+ may change the key")
    mistakes(make_postern, with_mode(0o640), "group \\d+ may read the key", level="warning")


def test_dates(make_postern, authority):
    day = datetime.timedelta(days=1)
    now = datetime.datetime.now(datetime.timezone.utc)
    past = authority.pair(before=(now - 90 * day, now - day), extensions="")
    p = make_postern()
    configure(p, install(p, "pair", past))
    status, text = check(p)
    assert status == 1 and "expired on" in text
    p.start("authd")        # mail goes on; it is said loudly
    p.daemon("authd").wait_line("event=error", "expired on .* renew it")
    future = authority.pair(before=(now + day, now + 90 * day))
    p = make_postern()
    configure(p, install(p, "pair", future))
    status, text = check(p)
    assert status == 1 and "is not valid before" in text
    for days, level in ((20, "warning"), (5, "error")):
        p = make_postern()
        configure(p, install(p, "pair", authority.pair(days=days)))
        p.start("authd")
        p.daemon("authd").wait_line("event=" + level, "expires in (%d|%d) days" % (days, days - 1))


def test_names_and_usage(make_postern, authority):
    mistakes(make_postern, authority.pair(names=()), "is for no name", level="warning")
    mistakes(make_postern, authority.pair(extensions="extendedKeyUsage=clientAuth"), "has no serverAuth", level="warning")
    mistakes(make_postern, authority.pair(extensions="keyUsage=keyAgreement"), "has no digitalSignature")


def test_files_that_are_no_keys(make_postern, authority, pairs, tmp_path):
    empty, text = tmp_path / "empty", tmp_path / "text"
    empty.write_bytes(b"")
    text.write_bytes(b"hello\n")
    crt, key = pairs["p256"]
    mistakes(make_postern, (empty, key), "has 0 octets; accepted: a file in PEM form")
    mistakes(make_postern, (text, key), "there is no sound certificate in it")
    mistakes(make_postern, (crt, text), "there is no private key in it")
    mistakes(make_postern, (crt, crt), "there is no private key in it")
    mistakes(make_postern, lambda p: (p.dir / "none.crt", p.dir / "none.key"), "none.key: cannot be read: No such file")
    mistakes(make_postern, lambda p: (p.dir, p.dir), "is not a file")
    damaged = tmp_path / "damaged"
    rows = pairs["rsa"][1].read_bytes().splitlines(True)
    damaged.write_bytes(b"".join(rows[:5] + rows[6:]))
    mistakes(make_postern, (pairs["rsa"][0], damaged), "the key is damaged")
    small = authority.key("rsa1024")
    mistakes(make_postern, (authority.certificate(small), small), "the key is RSA of 1024 bits; accepted: RSA of 2048 to 8192")


def test_all_mistakes_are_told_at_once(make_postern, pairs):
    p = make_postern()
    a, b = install(p, "a", (pairs["rsa"][0], pairs["p256"][1])), install(p, "b", pairs["p384"])
    b[1].chmod(0o666)
    configure(p, a, b)
    status, text = check(p)
    assert status == 1 and "is not this certificate's" in text and "every user of this host may change" in text


def server_hello(p, *args):
    """The random of the ServerHello and what follows it, the ephemeral key included."""
    done = subprocess.run(["openssl", "s_client", "-msg", *args, "-connect", "127.0.0.1:%d" % p.tls_port], input=b"QUIT\r\n",
        capture_output=True, timeout=TIMEOUT).stdout.decode("latin-1")
    octets = re.search(r"<<< .*ServerHello\n((?:    (?:[0-9a-f]{2} ?)+\n)+)", done)[1].split()
    return "".join(octets[6:38]), "".join(octets[38:])


@pytest.mark.parametrize("ahead", [4, 0])
def test_no_two_connections_draw_the_same_random_numbers(make_postern, pairs, ahead):
    """All processes are forked from one listener, which has used GnuTLS before."""
    p = serve(make_postern, pairs["p256"], conf={"pop3d": {"prefork": ahead}})
    seen = [server_hello(p, version) for version in ("-tls1_3", "-tls1_2") for _ in range(4)]
    assert len({random for random, _ in seen}) == 8
    assert len({rest for _, rest in seen[:4]}) == 4


# Reload

def serial(p, name=NAME):
    ctx = ssl._create_unverified_context()
    with contextlib.closing(ctx.wrap_socket(socket.create_connection(("127.0.0.1", p.tls_port)), server_hostname=name)) as s:
        return s.getpeercert(True)


def test_reload_on_sighup_and_by_itself(make_postern, authority, pairs):
    p = serve(make_postern, pairs["p256"])
    p.user("ann", "mbox", [MESSAGE])
    authd, pop3d = p.daemon("authd"), p.daemon("pop3d")
    running = connect_tls(p, context(authority)).login("ann")
    waiting = p.connect()       # in the clear, and will say STLS after the reload
    first = serial(p)
    for kind, by_signal in (("rsa", True), ("p384", False), ("p256", False)):
        mark, heard = authd.mark(), pop3d.mark()
        install(p, "pair0", authority.pair(kind))
        if by_signal:
            authd.process.send_signal(signal.SIGHUP)
        authd.wait_line("event=certificate ", "names=" + NAME, start=mark)
        pop3d.wait_line("event=certificates", start=heard)
        second = serial(p)
        assert second != first
        first = second
        connect_tls(p, context(authority)).quit()
    assert running.retr(1) == harness.wire(MESSAGE)
    running.quit()
    waiting.ok(b"STLS")
    over_tls(waiting, context(authority))
    waiting.quit()


def test_broken_reload_keeps_the_old_one(make_postern, authority, pairs):
    p = serve(make_postern, pairs["p256"])
    authd = p.daemon("authd")
    first = serial(p)
    crt, key = p.dir / "pair0.crt", p.dir / "pair0.key"

    def put(path, data):
        path.with_suffix(".new").write_bytes(data)
        p.own(p.dir)
        os.chmod(path.with_suffix(".new"), 0o600)
        path.with_suffix(".new").rename(path)

    for path, data in ((crt, b"nonsense\n"), (key, b""), (crt, authority.pair("p256")[0].read_bytes())):
        good = path.read_bytes()
        mark = authd.mark()
        put(path, data)
        authd.wait_line("event=error", "NOT used", start=mark)
        assert serial(p) == first
        mark = authd.mark()
        put(path, good)
        authd.wait_line("event=certificate ", start=mark)
    mark = authd.mark()
    crt.unlink()
    authd.process.send_signal(signal.SIGHUP)
    authd.wait_line("event=error", "NOT used", start=mark)
    assert serial(p) == first


def test_tls_appears_changes_and_goes_with_the_configuration(make_postern, authority, pairs):
    """SIGHUP to both: certificates that were not configured at start, another minimum, and none again."""
    p = make_postern()
    p.start()
    authd, pop3d = p.daemon("authd"), p.daemon("pop3d")

    def reload(*daemons):
        for d in daemons:
            mark = d.mark()
            d.process.send_signal(signal.SIGHUP)
            d.wait_line("reload", start=mark)

    pair = install(p, "pair0", pairs["p256"])
    configure(p, pair)
    heard = pop3d.mark()
    reload(authd)
    authd.wait_line("event=certificate ")
    reload(pop3d)
    pop3d.wait_line("event=certificates", start=heard)
    c = p.connect()
    c.ok(b"STLS")
    over_tls(c, context(authority, TLS12)).quit()
    configure(p, pair, minimum="1.3")
    reload(pop3d)
    c = p.connect()
    c.ok(b"STLS")
    with pytest.raises(ssl.SSLError):
        over_tls(c, context(authority, TLS12))
    c.close()
    p.conf["tls"] = {}
    p.write_conf()
    (keeper,) = keeper_of(p)
    reload(authd, pop3d)
    assert harness.wait_pid(keeper)
    with p.connect() as c:
        c.err(b"STLS")


def test_link_that_is_turned(make_postern, authority, pairs):
    """As certbot leaves it: live/NAME/*.pem are links into archive/."""
    p = make_postern()
    live, archive = p.dir / "live", p.dir / "archive"
    live.mkdir()
    archive.mkdir()

    def turn(number, pair):
        for path, name in zip(pair, ("fullchain", "privkey")):
            to = archive / ("%s%d.pem" % (name, number))
            to.write_bytes(path.read_bytes())
            to.chmod(0o600)
            with contextlib.suppress(FileNotFoundError):
                (live / (name + ".pem")).unlink()
            (live / (name + ".pem")).symlink_to(os.path.relpath(to, live))
        p.own(p.dir)

    turn(1, pairs["p256"])
    configure(p, (live / "fullchain.pem", live / "privkey.pem"))
    p.start("spoold", "authd")
    pop3d = start_pop3d(p)
    first, heard = serial(p), pop3d.mark()
    turn(2, authority.pair("rsa"))
    pop3d.wait_line("event=certificates", start=heard)
    assert serial(p) != first


def test_connections_never_fail_while_certificates_change(make_postern, authority, pairs):
    p = serve(make_postern, pairs["p256"], conf={"pop3d": {"max-per-address": 1000}})
    stop, failures, done = threading.Event(), [], [0]

    def client():
        while not stop.is_set():
            try:
                connect_tls(p, context(authority)).quit()
                done[0] += 1
            except Exception as e:
                failures.append(repr(e))

    threads = [threading.Thread(target=client) for _ in range(2)]
    for t in threads:
        t.start()
    try:
        for kind in ("rsa", "p384", "p256", "rsa"):
            mark = p.daemon("pop3d").mark()
            install(p, "pair0", authority.pair(kind))
            p.daemon("authd").process.send_signal(signal.SIGHUP)
            p.daemon("pop3d").wait_line("event=certificates", start=mark)
    finally:
        stop.set()
        for t in threads:
            t.join()
    assert not failures and done[0] > (2 if harness.WRAP else 10)


@pytest.mark.unwrapped("what waits for a daemon that is started anew does not wait as long as valgrind takes to start one")
def test_who_comes_while_authd_is_restarted(make_postern, authority, pairs):
    """He waits until it is there again; with another certificate, he sees that one."""
    p = serve(make_postern, pairs["p256"])
    p.stop_daemon("authd")
    p.daemon("pop3d").wait_line("keeper cannot be reached")
    with harness.Client("127.0.0.1", p.tls_port) as c:
        p.start("authd")
        over_tls(c, context(authority))
        assert c.line().startswith(b"+OK")


def test_without_a_keeper(make_postern, authority, pairs):
    """pop3d starts before authd: plain sessions are served, TLS as soon as it can be."""
    p = serve(make_postern, pairs["p256"], programs=("spoold",))
    pop3d = p.daemon("pop3d")
    pop3d.wait_line("keeper cannot be reached")
    with p.connect() as c:
        assert b"STLS" not in c.multi(b"CAPA")
        c.err(b"STLS")
    with harness.Client("127.0.0.1", p.tls_port) as c, pytest.raises((ssl.SSLError, ConnectionError)):
        over_tls(c, context(authority))
    pop3d.wait_line("event=session end=tls-unavailable")
    mark = pop3d.mark()
    p.start("authd")
    pop3d.wait_line("event=certificates", start=mark)
    connect_tls(p, context(authority)).quit()


def keeper_of(p):
    return [pid for pid, name in harness.children(p.daemon("authd").pid) if name.startswith("authd: keeper")]


def test_keeper_that_dies_comes_again(make_postern, authority, pairs):
    p = serve(make_postern, pairs["p256"])
    p.user("ann", "mbox", [MESSAGE])
    running = connect_tls(p, context(authority)).login("ann")
    mark, heard = p.daemon("authd").mark(), p.daemon("pop3d").mark()
    (old,) = keeper_of(p)
    os.kill(old, signal.SIGKILL)
    p.daemon("authd").wait_line("event=child-died process=keeper", "signal=9", start=mark)
    p.daemon("authd").wait_line("event=certificate ", start=mark)
    c = connect_tls(p, context(authority))
    assert c.banner.startswith(b"+OK")
    c.quit()
    running.ok(b"STAT")
    running.quit()


def test_nowait(make_postern, authority, pairs):
    """inetd's way: the connection is descriptors 0 and 1; -S says that TLS comes at once."""
    p = serve(make_postern, pairs["rsa"])
    p.user("ann", "mbox", [MESSAGE])
    for options, stls in ((["-S"], False), ([], True)):
        with contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server:
            c = harness.Client(*server.getsockname())
            peer = server.accept()[0]
        d = p.start_daemon("pop3d", *options, stdin=peer, stdout=peer)
        peer.close()
        if stls:
            c.line()
            assert b"STLS" in c.multi(b"CAPA")
            c.ok(b"STLS")
        over_tls(c, context(authority))
        if not stls:
            c.line()
        c.login("ann")
        assert c.retr(1) == harness.wire(MESSAGE)
        c.quit()
        assert d.process.wait(TIMEOUT) == 0


# Client certificates

def test_client_certificate(make_postern, authority, pairs):
    other = Authority(authority.dir / "other") if (authority.dir / "other").mkdir() is None else None
    key = authority.key("p256")
    mine = (authority.certificate(key, names=(), subject="/CN=ann", extensions="extendedKeyUsage=clientAuth"), key)
    key = other.key("rsa")
    foreign = (other.certificate(key, names=(), subject="/CN=ann"), key)
    wrong = authority.pair("p256", extensions="extendedKeyUsage=serverAuth")
    chain = authority.path("pem")
    chain.write_bytes(mine[0].read_bytes() + authority.issuer.read_bytes())
    p = make_postern({"authd": {"mechanisms": "PLAIN USER EXTERNAL"}})
    ca = p.dir / "ca.pem"
    ca.write_bytes(authority.root.read_bytes())
    configure(p, install(p, "pair", pairs["p256"]), **{"client-ca": ca})
    p.own(p.dir)
    p.start("spoold", "authd")
    pop3d = start_pop3d(p)

    def offered(ctx):
        with connect_tls(p, ctx) as c:
            return any(row.startswith(b"SASL") and b"EXTERNAL" in row.split() for row in c.multi(b"CAPA"))

    for version in (TLS12, TLS13):
        assert offered(context(authority, version, certificate=(chain, mine[1])))
        assert not offered(context(authority, version))
        assert not offered(context(authority, version, certificate=foreign))
        pop3d.wait_line("event=client-certificate result=refused")
        assert not offered(context(authority, version, certificate=wrong))
    with p.connect() as c:
        assert not any(b"EXTERNAL" in row for row in c.multi(b"CAPA"))


# The keeper's closed list

def roster():
    """Message numbers by name, from the header."""
    text = (REPO / "lib/messages.h").read_text()
    names = re.findall(r"\bM\((\w+),", text[text.index("#define MESSAGE_ROSTER"):])
    schemes = re.search(r"enum sign_scheme \{(.*?)\};", text, re.S)[1]
    schemes = re.findall(r"\b(SIGN_\w+)", re.sub(r"/\*.*?\*/", "", schemes))
    return {n: i for i, n in enumerate(names)}, {n: i for i, n in enumerate(schemes)}


TYPES, SCHEMES = roster()
MAGIC = 0x504f5301
TLS13_TEXT = b" " * 64 + b"TLS 1.3, server CertificateVerify\0"


def sign_packet(key, scheme, data, length=None):
    return struct.pack("=II32sII204s", MAGIC, TYPES["SIGN"], key, SCHEMES[scheme], len(data) if length is None else length, data)


class Asker:
    """pop3d's side of a conversation with the keeper, written anew."""

    def __init__(self, p):
        self.s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.s.settimeout(TIMEOUT)
        if IS_ROOT:
            os.seteuid(p.uid)       # SO_PEERCRED
        try:
            self.s.connect(str(p.conf["postern"]["run-dir"] / "keeper.sock"))
        finally:
            if IS_ROOT:
                os.seteuid(0)

    def chains(self):
        data, control, *_ = self.s.recvmsg(100, 100)
        assert struct.unpack("=II", data[:8]) == (MAGIC, TYPES["CHAINS"])
        fd = struct.unpack("i", control[0][2][:4])[0]
        try:
            return os.pread(fd, 1 << 20, 0)
        finally:
            os.close(fd)

    def ask(self, packet):
        """The signature, or None if the conversation was ended."""
        try:
            self.s.send(packet)
            data = self.s.recv(4096)
        except (ConnectionResetError, BrokenPipeError):
            return None
        if not data:
            return None
        magic, kind, length = struct.unpack("=III", data[:12])
        assert (magic, kind) == (MAGIC, TYPES["SIGNATURE"])
        return data[12:12 + length]

    def close(self):
        self.s.close()


def asked(p, packet):
    with contextlib.closing(Asker(p)) as a:
        a.chains()
        return a.ask(packet)


def key_id(certificate):
    public = openssl("x509", "-in", certificate, "-noout", "-pubkey")
    return openssl("dgst", "-sha256", "-binary", input=openssl("pkey", "-pubin", "-outform", "DER", input=public))


def test_what_the_keeper_signs(shared, pairs):
    rsa, p256 = key_id(pairs["rsa"][0]), key_id(pairs["p256"][0])
    with contextlib.closing(Asker(shared)) as a:
        assert a.chains().count(rsa) == 1
    for scheme, length in (("SIGN_RSA_PSS_SHA256", 32), ("SIGN_RSA_PSS_SHA384", 48), ("SIGN_RSA_PSS_SHA512", 64), ("SIGN_RSA_SHA256", 32),
                           ("SIGN_RSA_SHA384", 48), ("SIGN_RSA_SHA512", 64)):
        assert len(asked(shared, sign_packet(rsa, scheme, b"d" * length))) == 256
        for wrong in (0, 1, 20, length - 1, length + 1, 204):
            assert asked(shared, sign_packet(rsa, scheme, b"d" * wrong)) is None, (scheme, wrong)
    assert asked(shared, sign_packet(p256, "SIGN_ECDSA_P256", b"d" * 32))[:1] == b"\x30"
    for scheme, length in (("SIGN_ECDSA_P384", 48), ("SIGN_ECDSA_P521", 64), ("SIGN_RSA_SHA256", 32), ("SIGN_ED25519", 32)):
        assert asked(shared, sign_packet(p256, scheme, b"d" * length)) is None


def test_ed25519_signs_what_a_tls_server_says_and_nothing_else(make_postern, pairs):
    p = serve(make_postern, pairs["ed25519"])
    key = key_id(pairs["ed25519"][0])

    def good(data):
        return asked(p, sign_packet(key, "SIGN_ED25519", data)) is not None

    x25519 = os.urandom(64) + b"\x03\x00\x1d\x20" + os.urandom(32)
    assert good(TLS13_TEXT + b"h" * 32) and good(TLS13_TEXT + b"h" * 48) and good(x25519)
    assert good(os.urandom(64) + b"\x03\x00\x17\x41" + b"\x04" + os.urandom(64))
    for data in (b"", b"d" * 32, b"d" * 130, TLS13_TEXT + b"h" * 31, TLS13_TEXT + b"h" * 64, TLS13_TEXT.replace(b"server", b"client") + b"h" * 32,
                 x25519[:-1], x25519 + b"x", x25519[:64] + b"\x03\x00\x1d\x1f" + x25519[68:-1], x25519[:64] + b"\x01" + x25519[65:]):
        assert not good(data), data


def test_hostile_questions_cut_off_the_asker_alone(make_postern, authority, pairs):
    p = serve(make_postern, pairs["rsa"])
    rsa = key_id(pairs["rsa"][0])
    good = sign_packet(rsa, "SIGN_RSA_PSS_SHA256", b"d" * 32)
    honest = Asker(p)
    honest.chains()
    hostile = [b"", b"x", good[:-1], good + b"x", good[:8], struct.pack("=II", MAGIC, 9999), struct.pack("=II", 1, TYPES["SIGN"]) + good[8:],
               struct.pack("=II", MAGIC, TYPES["SIGNATURE"]) + b"\0" * 1028, struct.pack("=II", MAGIC, TYPES["CHAINS"]) + b"\0" * 8,
               sign_packet(b"k" * 32, "SIGN_RSA_SHA256", b"d" * 32), sign_packet(rsa, "SIGN_RSA_SHA256", b"d" * 32, 33),
               sign_packet(rsa, "SIGN_RSA_SHA256", b"d" * 32, 0xffffffff), good[:40] + struct.pack("=I", 77) + good[44:]]
    for packet in hostile:
        assert asked(p, packet) is None, packet
    # too often: the second is not answered
    with contextlib.closing(Asker(p)) as a:
        a.chains()
        assert a.ask(good) and a.ask(good) is None
    # out of turn: one who follows signs nothing, and follows once
    follow = struct.pack("=III", MAGIC, TYPES["FOLLOW"], 0)
    for packets in ((follow, good), (follow, follow)):
        with contextlib.closing(Asker(p)) as a:
            a.chains()
            a.s.send(packets[0])
            assert a.ask(packets[1]) is None
    # a descriptor where none belongs
    with contextlib.closing(Asker(p)) as a:
        a.chains()
        socket.send_fds(a.s, [good], [0])
        assert a.s.recv(100) == b""
    rng = random.Random(7)
    for _ in range(300):
        packet = bytearray(good)
        for _ in range(rng.randrange(1, 4)):
            packet[rng.randrange(48)] = rng.randrange(256)
        asked(p, bytes(packet[:rng.choice((len(packet), len(packet), rng.randrange(len(packet))))]))
    # one who asks and asks without reading
    with contextlib.closing(Asker(p)) as a:
        a.s.setblocking(False)
        with contextlib.suppress(OSError):
            for _ in range(10000):
                a.s.send(good)
    log = p.daemon("authd")
    for reason in ("no message", "a signature too many", "out of turn", "a key that is not here", "what no TLS server signs"):
        log.wait_line("event=peer-cut-off by=keeper", reason)
    # the same keeper still serves all others
    assert honest.ask(good)
    honest.close()
    assert not any(b"child-died" in row for row in log.lines)
    connect_tls(p, context(authority)).quit()


@pytest.mark.skipif(not IS_ROOT, reason="needs two users")
def test_keeper_serves_pop3d_alone(shared, pairs):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(TIMEOUT)
    s.connect(str(shared.conf["postern"]["run-dir"] / "keeper.sock"))
    try:
        assert s.recv(100) == b""
    except ConnectionResetError:
        pass
    s.close()
    shared.daemon("authd").wait_line("uid 0 .* is not pop3d's")


# Memory

def secrets_of(key):
    """The numbers that nobody may have: their octets, in either order, and long parts of them."""
    text = openssl("pkey", "-in", key, "-noout", "-text").decode()
    numbers = []
    for field in ("privateExponent", "prime1", "prime2", "exponent1", "exponent2", "coefficient", "priv"):
        found = re.search(r"^%s:\s*\n((?:\s+[0-9a-f:]+\n)+)" % field, text, re.M)
        if found:
            numbers.append(bytes.fromhex(re.sub(r"[\s:]", "", found[1])).lstrip(b"\0"))
    assert numbers
    needles = set()
    for n in numbers:
        for octets in (n, n[::-1]):
            needles.add(octets)
            # a part in the middle: what is left of one that was overwritten at either end
            if len(octets) >= 64:
                needles.add(octets[len(octets) // 2 - 16:len(octets) // 2 + 16])
    needles.add(b"".join(key.read_bytes().splitlines()[1:3])[:100])
    return needles


def found_in(pid, needles, rights_too="r"):
    """Which of the needles the process has in its memory, all of it that can be read (and, with "w", written)."""
    found = set()
    with open("/proc/%d/maps" % pid) as maps, open("/proc/%d/mem" % pid, "rb", 0) as memory:
        for row in maps:
            span, rights = row.split()[:2]
            if "r" not in rights or rights_too not in rights or "[v" in row:
                continue
            start, end = (int(x, 16) for x in span.split("-"))
            with contextlib.suppress(OSError, OverflowError):
                memory.seek(start)
                data = memory.read(end - start)
                found |= {n for n in needles if n in data}
    return found


@pytest.mark.skipif(not IS_ROOT, reason="NOT RUN: reading another process's memory needs root")
@pytest.mark.native("it looks at all of a process's memory, and that of these has shadows without end")
@pytest.mark.parametrize("kind", ["rsa", "p256", "ed25519"])
def test_no_key_in_the_memory_of_pop3d(make_postern, authority, pairs, kind):
    p = serve(make_postern, pairs[kind])
    p.user("ann", "mbox", [MESSAGE])
    needles = secrets_of(pairs[kind][1])
    busy = connect_tls(p, context(authority)).login("ann")
    busy.retr(1)
    begun = p.connect()
    begun.ok(b"STLS")
    later = p.connect()

    def search():
        pop3d, authd = p.daemon("pop3d").session(), p.daemon("authd").session()
        names = [harness.process_name(pid) for pid in pop3d]
        (keeper,) = keeper_of(p)
        print(names)
        assert len(pop3d) >= 4 and len(authd) >= 4       # the listener, idle ones, three with a connection; parent, verifier, hasher, keeper
        assert found_in(keeper, needles), "the search does not find the key where it is"
        for pid in set(pop3d) | set(authd) | set(p.daemon("spoold").session()) - {keeper}:
            if pid != keeper:
                assert not found_in(pid, needles), "%d (%s) has the key" % (pid, harness.process_name(pid))

    search()
    mark, heard = p.daemon("authd").mark(), p.daemon("pop3d").mark()
    fresh = authority.pair(kind)
    install(p, "pair0", fresh)
    p.daemon("authd").process.send_signal(signal.SIGHUP)
    p.daemon("pop3d").wait_line("event=certificates", start=heard)
    for client in (begun, later, busy):
        client.close()
    busy = connect_tls(p, context(authority)).login("ann")
    until = time.monotonic() + TIMEOUT
    while len(keeper_of(p)) > 1:        # the old one ends with the last of its conversations
        old = min(keeper_of(p))
        assert harness.wait_pid(old, max(0, until - time.monotonic()))
    needles = secrets_of(fresh[1])
    search()
    busy.quit()


@pytest.mark.root
@pytest.mark.confined
@pytest.mark.parametrize("stores", ["db", "db pam"])
def test_as_root(stage, make_postern, authority, pairs, stores):
    """As in production: the key is root's alone, the keeper is not root, and a reload finds a new key."""
    p = make_postern({"authd": {"stores": stores}, "pop3d": {"user": "_postern"}}, stage=stage)
    installed = install(p, "pair0", pairs["p256"])
    installed[1].chmod(0o400)
    configure(p, installed)
    p.start("spoold", "authd")
    start_pop3d(p)
    path = p.mbox("carol", [MESSAGE], uid=stage.USERS["carol"])
    p.add("carol", "mbox:%s" % path, uid=stage.USERS["carol"])
    for kind in ("p256", "rsa"):
        authd = next(pid for pid, name in find_processes("authd") if pid in p.daemon("authd").session())
        (keeper,) = [pid for pid, name in harness.children(authd) if name.startswith("authd: keeper")]
        uid = stage.USERS["_postern-auth"]
        assert harness.identity(keeper) == ([uid] * 4, [uid] * 4, [uid])
        assert harness.status_of(keeper)["CapEff"] == "0" * 16 and harness.status_of(keeper)["Seccomp"] == "2"
        c = connect_tls(p, context(authority)).login("carol")
        assert c.retr(1) == harness.wire(MESSAGE)
        c.quit()
        if kind == "p256":
            mark, heard = p.daemon("authd").mark(), p.daemon("pop3d").mark()
            install(p, "pair0", pairs["rsa"])[1].chmod(0o400)
            os.kill(authd, signal.SIGHUP)
            p.daemon("authd").wait_line("event=certificate ", "key=rsa-2048", start=mark)
            p.daemon("pop3d").wait_line("event=certificates", start=heard)
            assert harness.wait_pid(keeper)


def find_processes(name):
    for entry in os.listdir("/proc"):
        if entry.isdigit() and harness.process_name(int(entry)) == name:
            yield int(entry), name


@pytest.mark.skipif(not IS_ROOT, reason="NOT RUN: reading another process's memory needs root")
@pytest.mark.native("it looks at all of a process's memory, and that of these has shadows without end")
@pytest.mark.parametrize("version", [TLS12, TLS13])
def test_no_password_in_the_memory_of_pop3d_after_login(make_postern, authority, pairs, version):
    """Nor eleven octets of it in a row, nor of its base64: neither of what came, nor of what GnuTLS made of it."""
    p = serve(make_postern, pairs["p256"])
    path = p.mbox("ann", [MESSAGE])
    pieces = lambda text: {text[i:i + 8] for i in range(0, len(text) - 7, 4)}
    for how in ("USER", "PLAIN", "PLAIN at once", "LOGIN"):
        for length in (34, 96):
            user = b"ann-%d" % length
            password = "".join(secrets.choice(string.ascii_letters + string.digits) for _ in range(length))
            if how == "USER":
                p.add(user.decode(), "mbox:%s" % path, password=password)
            else:
                p.authctl("passwd", user.decode(), *harness.CHEAP, password=password)
            plain = base64.b64encode(b"\0" + user + b"\0" + password.encode())
            word = base64.b64encode(password.encode())
            with connect_tls(p, context(authority, version)) as c:
                for line in {"USER": [b"USER " + user, b"PASS " + password.encode()], "PLAIN": [b"AUTH PLAIN", plain],
                             "PLAIN at once": [b"AUTH PLAIN " + plain], "LOGIN": [b"AUTH LOGIN", base64.b64encode(user), word]}[how]:
                    answer = c.cmd(line)
                assert answer.startswith(b"+OK")
                needles = pieces(password.encode()) | pieces(plain[12:]) | pieces(word)
                for pid in p.daemon("pop3d").session():
                    assert not found_in(pid, needles, "w"), (how, length, harness.process_name(pid))
                c.quit()


# Real clients and judges

def test_openssl_s_client(shared, authority):
    for options, port in ((["-starttls", "pop3"], shared.port), ([], shared.tls_port)):
        done = subprocess.run(["openssl", "s_client", "-connect", "127.0.0.1:%d" % port, "-servername", NAME, "-verify_return_error", "-CAfile",
                               authority.root, "-verify_hostname", NAME, "-quiet", "-no_ign_eof", *options],
                              input=b"QUIT\r\n", capture_output=True, timeout=TIMEOUT)
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(not shutil.which("gnutls-cli"), reason="no gnutls-cli")
def test_gnutls_cli(shared, authority):
    for options, port in ((["--starttls-proto=pop3"], shared.port), (["--alpn=pop3"], shared.tls_port)):
        done = subprocess.run(["gnutls-cli", "--x509cafile", authority.root, "--verify-hostname", NAME, "--sni-hostname", NAME, "--crlf", *options,
                               "-p", str(port), "127.0.0.1"], input=b"QUIT\n", capture_output=True, timeout=TIMEOUT)
        assert done.returncode == 0, done.stdout + done.stderr
        assert b"- Status: The certificate is trusted" in done.stdout


@pytest.mark.skipif(not shutil.which("curl"), reason="no curl")
def test_curl(shared, authority):
    for url, options in (("pop3s://%s:%d/1" % (NAME, shared.tls_port), []), ("pop3://%s:%d/1" % (NAME, shared.port), ["--ssl-reqd"])):
        port = url.rsplit(":", 1)[1].split("/")[0]
        done = subprocess.run(["curl", "-sS", "--cacert", authority.root, "--resolve", "%s:%s:127.0.0.1" % (NAME, port), "-u", "ann:" + PASSWORD,
                               *options, url], capture_output=True, timeout=TIMEOUT)
        assert done.returncode == 0, done.stderr
        assert done.stdout == harness.wire(MESSAGE)


@pytest.mark.skipif(not shutil.which("fetchmail"), reason="no fetchmail")
def test_fetchmail(shared, authority, tmp_path):
    for port, how in ((shared.tls_port, "ssl sslproto 'auto'"), (shared.port, "sslproto 'TLS1.2+'")):
        rc, out = tmp_path / "rc", tmp_path / "out"
        out.write_bytes(b"")
        rc.write_text("poll localhost via 127.0.0.1 protocol pop3 port %d auth password\n user ann password \"%s\" %s sslcertck sslcertfile %s "
                      "sslcommonname %s keep fetchall fetchlimit 1 mda \"cat >>%s\"\n" % (port, PASSWORD, how, authority.root, NAME, out))
        rc.chmod(0o600)
        done = subprocess.run(["fetchmail", "--fetchmailrc", rc, "--pidfile", tmp_path / "pid", "--idfile", tmp_path / "ids", "-v"],
                              capture_output=True, timeout=TIMEOUT, env=dict(os.environ, HOME=str(tmp_path)))
        assert done.returncode in (0, 13), done.stdout + done.stderr
        assert b"over TLS" in out.read_bytes()


@pytest.mark.skipif(not shutil.which("mpop"), reason="no mpop")
def test_mpop(make_postern, authority):
    """It verifies the name it connects to, so the certificate has the address."""
    p = serve(make_postern, authority.pair(names=("127.0.0.1", "localhost")))
    p.user("ann", "mbox", [MESSAGE])
    for port, starttls in ((p.tls_port, "off"), (p.port, "on")):
        with contextlib.ExitStack() as stack:
            home = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory()))
            rc = home / "rc"
            rc.write_text("account default\nhost localhost\nport %d\ntls on\ntls_starttls %s\ntls_trust_file %s\nuser ann\npassword %s\n"
                          "keep on\ndelivery mbox %s/out\nuidls_file %s/uidls\n" % (port, starttls, authority.root, PASSWORD, home, home))
            rc.chmod(0o600)
            done = subprocess.run(["mpop", "-C", rc], capture_output=True, timeout=TIMEOUT)
            assert done.returncode == 0, done.stdout + done.stderr
            assert b"over TLS" in (home / "out").read_bytes()


@pytest.mark.skipif(not shutil.which("getmail"), reason="no getmail")
def test_getmail(shared, authority):
    tmp_path = pathlib.Path(tempfile.mkdtemp(dir=shared.dir))
    for name in ("tmp", "new", "cur"):
        (tmp_path / "in" / name).mkdir(parents=True)
    rc = tmp_path / "getmailrc"
    rc.write_text("[retriever]\ntype = SimplePOP3SSLRetriever\nserver = 127.0.0.1\nport = %d\nusername = ann\npassword = %s\nca_certs = %s\n"
                  "ssl_cert_hostname = %s\ntimeout = 10\n[destination]\ntype = Maildir\npath = %s/in/\n[options]\nverbose = 2\nread_all = true\n"
                  % (shared.tls_port, PASSWORD, tmp_path / "ca.pem", NAME, tmp_path))
    (tmp_path / "ca.pem").write_bytes(authority.root.read_bytes())
    shared.own(tmp_path)
    for _ in range(5):  # it waits for a child whose end it missed, now and then, and gives up
        done = subprocess.run(["getmail", "--getmaildir", tmp_path, "--rcfile", rc], capture_output=True, timeout=TIMEOUT,
                              env=dict(os.environ, HOME=str(tmp_path)), **shared.popen_as())
        if b"waiting child pid" not in done.stdout + done.stderr:
            break
        for path in (tmp_path / "in/new").iterdir():
            path.unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "in/new").iterdir())) == 2


@pytest.mark.skipif(not shutil.which("testssl"), reason="no testssl")
@pytest.mark.parametrize("starttls", [False, pytest.param(True, marks=pytest.mark.skipif(not ALL, reason="make check-tls"))])
def test_testssl(shared, authority, tmp_path, starttls):
    out = tmp_path / "out.csv"
    port = shared.port if starttls else shared.tls_port
    # In short: protocols, kinds of ciphers, and what was done to those who decrypt, renegotiate, resume or compress.
    tests = ["-p", "-s", "-f", "-S", "-U", "-g"] if ALL else ["-p", "-s", "-H", "-I", "-R", "-C"]
    argv = ["testssl", "--quiet", "--color", "0", "--warnings", "batch", "--nodns", "none", "--ip", "127.0.0.1", "--add-ca", authority.root, "--csvfile", out,
            *tests] + (["-t", "pop3"] if starttls else []) + ["%s:%d" % (NAME, port)]
    done = subprocess.run([str(a) for a in argv], capture_output=True, timeout=570, stdin=subprocess.DEVNULL)
    rows = [row.strip('"').split('","') for row in out.read_text().splitlines()[1:]]
    assert len(rows) > (60 if ALL else 20), done.stdout[-2000:]
    finding = {row[0]: row[4] for row in rows}
    severity = {row[0]: row[3] for row in rows}
    for name in ("SSLv2", "SSLv3", "TLS1", "TLS1_1"):
        assert finding[name] == "not offered"
    for name in ("TLS1_2", "TLS1_3"):
        assert "offered" in finding[name] and "not" not in finding[name]
    # GREASE offers an unknown protocol by ALPN and none that is known: refusing that is what RFC 7301 section 3.2 asks for.
    if "application_layer_protocol_negotiation" in finding.get("GREASE", ""):
        del finding["GREASE"]
    # Of the certificate and its revocation only what a test's own authority can have.
    bad = {name: (severity[name], finding[name]) for name in finding if severity[name] in ("LOW", "MEDIUM", "HIGH", "CRITICAL")
           and not re.search("cert_revocation|OCSP|cert_chain_of_trust|cert_crlDistributionPoints|CAA|overall_grade|grade_cap|cert_commonName|"
                             "cert_trust|cert_validityPeriod|cert_caIssuers|cert_expiration|DNS_", name)}
    assert not bad, bad


@pytest.mark.skipif(not shutil.which("sslscan"), reason="no sslscan")
@pytest.mark.parametrize("starttls", [False, True])
def test_sslscan(shared, starttls):
    port = shared.port if starttls else shared.tls_port
    argv = ["sslscan", "--no-colour"] + (["--starttls-pop3"] if starttls else []) + ["127.0.0.1:%d" % port]
    text = subprocess.run(argv, capture_output=True, timeout=120).stdout.decode()
    for name in ("SSLv2", "SSLv3", "TLSv1.0", "TLSv1.1"):
        assert re.search(r"%s\s+disabled" % re.escape(name), text), text
    assert re.search(r"TLSv1\.2\s+enabled", text) and re.search(r"TLSv1\.3\s+enabled", text)
    accepted = re.findall(r"^(?:Preferred|Accepted)\s+(\S+)\s+\d+ bits\s+(\S+)", text, re.M)
    assert accepted
    assert all(re.fullmatch(r"TLS_(AES_(128|256)_GCM_SHA\d+|CHACHA20_POLY1305_SHA256)|ECDHE-(ECDSA|RSA)-(AES(128|256)-GCM-SHA\d+|CHACHA20-POLY1305)", c)
               for _, c in accepted), accepted
    assert "vulnerable to heartbleed" not in re.sub("not vulnerable to heartbleed", "", text)
    assert "Compression disabled" in text or "OpenSSL version does not support compression" in text
    assert "Insecure session renegotiation supported" not in text


@pytest.mark.skipif(not shutil.which("nmap"), reason="no nmap")
def test_nmap(shared):
    scripts = ["-sV", "--version-light", "--script", "ssl-enum-ciphers,pop3-capabilities,ssl-cert"] if ALL else ["--script", "+ssl-enum-ciphers"]
    text = subprocess.run(["nmap", "-Pn", "-n", "-sT", "-p", "%d,%d" % (shared.port, shared.tls_port), *scripts, "127.0.0.1"],
                          capture_output=True, timeout=300).stdout.decode()
    grades = re.findall(r"least strength: (\S)", text)
    assert grades and set(grades) == {"A"}, text
    assert "TLSv1.0" not in text and "TLSv1.1" not in text
    assert not ALL or re.search(r"pop3-capabilities:.*STLS", text), text


# Many at once

def descriptors_for(count):
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, count)), hard))


def memory_of(pids):
    """Kibibytes that these processes take, what they share counted once."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            total += int(re.search(r"^Pss: +(\d+) kB", pathlib.Path("/proc/%d/smaps_rollup" % pid).read_text(), re.M)[1])
    return total


@pytest.mark.unwrapped("what valgrind takes a process is more than the bounds that this is about")
@pytest.mark.parametrize("kind", ["p256", "rsa"])
def test_many_handshakes_beside_half_open_ones(make_postern, authority, pairs, kind):
    """Some clients say nothing, some half a ClientHello, some a whole one and then no more, and as soon as one is let go another comes; all others
    are served, and memory is bounded by max-connections."""
    flood, sessions, clients = (1000, 1000, 100) if ALL else (150, 200, 50)
    descriptors_for(2 * flood + 500)
    p = serve(make_postern, pairs[kind], conf={"pop3d": {"max-connections": flood + clients + 50, "max-per-address": flood + clients + 50,
                                                         "login-timeout": 60 if ALL else 20}})
    hello = ssl.MemoryBIO()
    o = context(authority).wrap_bio(ssl.MemoryBIO(), hello, server_hostname=NAME)
    with contextlib.suppress(ssl.SSLWantReadError):
        o.do_handshake()
    hello = hello.read()
    over, opened, good, bad, slow = threading.Event(), [], [], [], []

    def half_open(i):
        s = socket.create_connection(("127.0.0.1", p.tls_port))
        s.sendall((b"", hello[:50], hello)[i % 3])
        opened.append(i)
        return s

    def attacker():
        held = {}
        with contextlib.closing(select.epoll()) as poll:
            def one():
                s = half_open(len(opened))
                held[s.fileno()] = s
                poll.register(s.fileno(), select.EPOLLIN | select.EPOLLRDHUP)

            for _ in range(flood):
                one()
            begun.set()
            while not over.is_set():
                for fd, _ in poll.poll(0.1):
                    with contextlib.suppress(OSError):
                        if held[fd].recv(65536):
                            continue
                    poll.unregister(fd)
                    held.pop(fd).close()
                    one()
            for s in held.values():
                s.close()

    ctx, begun, turns = context(authority), threading.Event(), iter(range(sessions))

    def client():
        for _ in turns:
            at = time.monotonic()
            try:
                good.append(connect_tls(p, ctx).quit())
            except Exception as e:
                bad.append(repr(e))
            slow.append(time.monotonic() - at)

    def everybody():
        return [*p.daemon("pop3d").session(), *p.daemon("authd").session()]

    before = memory_of(everybody())
    enemy = threading.Thread(target=attacker)
    enemy.start()
    most = 0
    try:
        assert begun.wait(120)
        start = time.monotonic()
        threads = [threading.Thread(target=client) for _ in range(clients)]
        for t in threads:
            t.start()
        while alive := [t for t in threads if t.is_alive()]:
            most = max(most, memory_of(everybody()))
            alive[0].join(0.5)
        took = time.monotonic() - start
    finally:
        over.set()
        enemy.join()
    (keeper,) = keeper_of(p)
    rss = int(harness.status_of(keeper)["VmRSS"].split()[0])
    slow.sort()
    print("%d handshakes beside %d half-open ones (%d in all) in %.1f s, median %.2f s, slowest %.2f s; all of pop3d and authd: %d KiB before, "
          "%d at most, %d a connection; keeper %d KiB" % (len(good), flood, len(opened), took, slow[len(slow) // 2], slow[-1], before, most,
                                                          (most - before) // (flood + clients), rss))
    assert not bad and len(good) == sessions, bad[:3]
    assert rss < 32 * 1024, "the keeper has grown to %d KiB" % rss
    assert (most - before) / (flood + clients) < 2048, "a connection takes %d KiB" % ((most - before) / (flood + clients))
    assert not any(b"killed by signal" in row for row in p.daemon("pop3d").lines)
