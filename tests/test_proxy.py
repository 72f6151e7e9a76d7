"""The PROXY protocol, v1 and v2: by hand, by HAProxy and by nginx's mail proxy. The client's address then counts for limits, throttle and log."""
import base64
import contextlib
import http.server
import ipaddress
import os
import select
import shutil
import socket
import struct
import subprocess
import threading
import time

import pytest

import harness
from harness import PASSWORD, TIMEOUT, wire
from test_launch import free_port, launched
from test_limits import TOO_MANY, until_served

MESSAGE = b"Subject: through a proxy\n\nhello\n"
SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
PATH = "/usr/sbin:/sbin:" + os.environ["PATH"]


def v1(client, local="198.51.100.1", port=4711):
    family = "TCP6" if ":" in client else "TCP4"
    return ("PROXY %s %s %s %d 110\r\n" % (family, client, local if family == "TCP4" else "2001:db8::110", port)).encode()


def v2(client, port=4711, command=1, more=b""):
    a = ipaddress.ip_address(client)
    local = ipaddress.ip_address("198.51.100.1" if a.version == 4 else "2001:db8::110")
    body = a.packed + local.packed + struct.pack(">HH", port, 110) + more
    return SIGNATURE + struct.pack(">BBH", 0x20 | command, 0x11 if a.version == 4 else 0x21, len(body)) + body


@pytest.fixture
def make(make_postern):
    def make(networks="127.0.0.0/8", **more):
        p = make_postern(conf={"pop3d": {"proxy-protocol-from": networks, "cleartext-login": "always", **more}})
        p.user("u", "mbox", [MESSAGE])
        return p.start()
    return make


def through(p, header, data=b""):
    c = harness.Client("127.0.0.1", p.port)
    c.send(header + data)
    c.banner = c.line()
    return c


def session_line(p, *patterns):
    return p.daemon("pop3d").wait_line("event=session", *patterns)


@pytest.mark.parametrize("header, address", [
    (v1("192.0.2.7"), "192.0.2.7"), (v1("2001:db8::7"), "2001:db8::7"), (v2("192.0.2.7"), "192.0.2.7"), (v2("2001:db8::7"), "2001:db8::7"),
    (v2("192.0.2.7", more=b"\x04\x00\x02xx" + b"\x20\x00\x05\x01\0\0\0\0"), "192.0.2.7"), (v1("2001:DB8:0:0::7"), "2001:db8::7")])
def test_address_is_the_clients(make, header, address):
    p = make()
    with through(p, header) as c:
        assert c.banner.startswith(b"+OK")
        c.login("u")
        assert c.retr(1) == wire(MESSAGE)
        assert c.quit().startswith(b"+OK")
    session_line(p, "remote=%s " % address, "port=4711")
    p.daemon("authd").wait_line("event=login", "result=ok", "remote=%s " % address)


@pytest.mark.parametrize("header", [b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", v2("192.0.2.7", command=0),
                                    SIGNATURE + b"\x20\x00\x00\x00", SIGNATURE + b"\x21\x00\x00\x00"])
def test_a_connection_of_the_proxys_own(make, header):
    """A health check: it counts as the proxy's."""
    p = make()
    with through(p, header) as c:
        assert c.banner.startswith(b"+OK")
        assert c.quit().startswith(b"+OK")
    session_line(p, r"remote=127\.0\.0\.1")


def test_what_follows_the_header_is_not_lost(make):
    p = make()
    for header in (v1("192.0.2.7"), v2("192.0.2.7")):
        with through(p, header, b"USER u\r\nPASS %s\r\nQUIT\r\n" % PASSWORD.encode()) as c:
            assert c.banner.startswith(b"+OK")
            assert [c.reply()[:3] for _ in range(3)] == [b"+OK"] * 3
            assert c.eof()


def test_in_pieces(make):
    p = make()
    for header in (v1("2001:db8::7"), v2("2001:db8::7", more=b"\x04\x00\x02xx")):
        c = harness.Client("127.0.0.1", p.port)
        for i in range(len(header)):
            c.send(header[i:i + 1])
        assert c.line().startswith(b"+OK")
        c.close()
        session_line(p, "remote=2001:db8::7")


@pytest.mark.parametrize("header", [
    b"USER u\r\n", b"PROXY\r\n", b"PROXY TCP4\r\n", b"PROXY TCP4 192.0.2.7 198.51.100.1 4711\r\n", b"PROXY TCP4 192.0.2.7 198.51.100.1 4711 110 1\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 65536 110\r\n", b"PROXY TCP4 2001:db8::7 198.51.100.1 1 2\r\n", b"PROXY TCP4 192.0.2.7  198.51.100.1 1 2\r\n",
    b"PROXY TCP4 192.0.2.7 198.51.100.1 1 2\n", b"PROXY TCP4 192.0.2.256 198.51.100.1 1 2\r\n", b"PROXY TCP5 192.0.2.7 198.51.100.1 1 2\r\n",
    b"proxy TCP4 192.0.2.7 198.51.100.1 1 2\r\n", b"PROXY UNKNOWN " + b"x" * 200 + b"\r\n", b"PROXY TCP4 192.0.2.7\0 198.51.100.1 1 2\r\n",
    SIGNATURE + b"\x11\x11\x00\x0c" + b"\0" * 12, SIGNATURE + b"\x22\x11\x00\x0c" + b"\0" * 12, SIGNATURE + b"\x21\x11\x00\x0b" + b"\0" * 11,
    SIGNATURE + b"\x21\x12\x00\x0c" + b"\0" * 12, SIGNATURE + b"\x21\x31\x00\xd8" + b"\0" * 216, SIGNATURE + b"\x21\x11\xff\xff" + b"\0" * 2000,
    SIGNATURE[:11] + b"x\x21\x11\x00\x0c" + b"\0" * 12])
def test_malformed(make, header):
    """No reply: whoever speaks there is no client."""
    p = make()
    with harness.Client("127.0.0.1", p.port) as c:
        c.send(header)
        assert c.eof()
    session_line(p, "end=malformed-proxy-header", r"remote=127\.0\.0\.1")
    with through(p, v1("192.0.2.7")) as c:
        assert c.banner.startswith(b"+OK")


def test_none_in_time(make):
    """A proxy that says nothing has as long as a login."""
    p = make(**{"login-timeout": 1})
    with harness.Client("127.0.0.1", p.port) as c:
        assert c.eof()
    session_line(p, "end=timeout")


def test_from_elsewhere_it_is_nonsense(make):
    """Only from listed networks; from others it is a command that nobody knows, and the address is the peer's."""
    p = make("192.0.2.0/24 2001:db8::/32")
    with p.connect() as c:
        c.send(v1("10.0.0.1"))
        assert c.reply().startswith(b"-ERR")
        c.login("u")
        assert c.quit().startswith(b"+OK")
    session_line(p, r"remote=127\.0\.0\.1")


def test_it_counts_for_max_per_address(make):
    """By the client's address, v6 by /64; the proxy's own does not count."""
    p = make(**{"max-per-address": 2})
    for one, same, another in (("192.0.2.7", "192.0.2.7", "192.0.2.8"), ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1")):
        held = [through(p, v2(one)), through(p, v1(same))]
        assert all(c.banner.startswith(b"+OK") for c in held)
        with through(p, v1(same)) as c:
            assert c.banner.startswith(TOO_MANY) and c.eof()
        with through(p, v2(another)) as c:
            assert c.banner.startswith(b"+OK")
        for c in held:
            c.close()
    p.daemon("pop3d").wait_line("event=refused", "reason=max-per-address", "remote=2001:db8::")


def test_it_counts_for_max_connections(make):
    p = make(**{"max-connections": 2})
    held = [through(p, v1("192.0.2.%d" % n)) for n in (7, 8)]
    assert all(c.banner.startswith(b"+OK") for c in held)
    with through(p, v1("192.0.2.9")) as c:
        assert c.banner.startswith(TOO_MANY) and c.eof()
    held.pop().close()
    until = time.monotonic() + TIMEOUT
    while not (c := through(p, v1("192.0.2.9"))).banner.startswith(b"+OK"):     # once that one's process has ended
        c.close()
        assert time.monotonic() < until
    held.append(c)
    for c in held:
        c.close()


def guess(p, header, user):
    """Begins a login with a wrong password; the answer comes when it comes."""
    c = through(p, header)
    c.ok(b"USER " + user)
    c.send(b"PASS x\r\n")
    return c


def guessed(p, header, user):
    """Until the answer is there: the seconds that it took."""
    start = time.monotonic()
    with guess(p, header, user) as c:
        assert c.line().startswith(b"-ERR")
    return time.monotonic() - start


@pytest.mark.parametrize("guesser, neighbour, other", [(v1("192.0.2.66"), v2("192.0.2.66"), v1("192.0.2.67")),
                                                       (v2("2001:db8::66"), v1("2001:db8::ffff:1"), v2("2001:db8:0:1::66"))])
def test_it_counts_for_the_throttle(make_postern, guesser, neighbour, other):
    """Who guesses is slowed down by his own address (v6: /64), not by the proxy's: others behind it are answered before he is."""
    p = make_postern(conf={"pop3d": {"proxy-protocol-from": "127.0.0.0/8", "cleartext-login": "always"}, "authd": {"throttle": "on"}})
    p.user("u", "mbox", [MESSAGE])
    p.start()
    for i in range(5):
        guessed(p, guesser, b"nobody-%d" % i)
    assert guessed(p, neighbour, b"nobody-5") >= 0.45
    for i in range(4):      # he waits twice as long each time: on a busy machine the other one may need more than a second
        with guess(p, guesser, b"nobody-6%d" % i) as waiting:
            with through(p, other) as c:
                c.login("u")
            first = not select.select([waiting.socket], [], [], 0)[0]
            assert waiting.line().startswith(b"-ERR")
        if first:
            break
    assert first, "who comes from elsewhere behind the same proxy waits too"


def test_it_counts_for_loopback(make_postern):
    """Passwords in the clear are for loopback clients: one behind a proxy on loopback is none."""
    p = make_postern(conf={"pop3d": {"proxy-protocol-from": "127.0.0.0/8"}})
    p.user("u", "mbox", [MESSAGE])
    p.start()
    with through(p, v1("192.0.2.7")) as c:
        c.err(b"USER u")
    with through(p, v1("127.0.0.9")) as c:
        c.login("u")


def test_nowait(make):
    p = make()
    here, there = socket.socketpair()
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname(), TIMEOUT)
    accepted, _ = server.accept()
    process = subprocess.Popen([str(a) for a in p.argv("pop3d")], stdin=accepted, stdout=accepted, stderr=subprocess.PIPE, **p.popen_as())
    accepted.close()
    client.sendall(v1("192.0.2.7") + b"QUIT\r\n")
    data = b""
    while more := client.recv(65536):
        data += more
    log = process.communicate(timeout=TIMEOUT)[1]
    for s in (here, there, server, client):
        s.close()
    assert data.count(b"+OK") == 2 and b"remote=192.0.2.7" in log


# Real proxies

def awaited(port, process, source):
    """Connects from `source` as soon as the proxy listens."""
    for _ in range(1000):
        with contextlib.suppress(ConnectionRefusedError):
            c = harness.Client.__new__(harness.Client)
            c.socket = socket.create_connection(("127.0.0.1", port), TIMEOUT, source_address=(source, 0))
            c.buffer = b""
            c.banner = c.line()
            return c
        if process.process.poll() is not None:
            raise harness.Failed("%s ended\n%s" % (process.name, process.log()))
        harness.wait_pid(process.pid, 0.01)
    raise harness.Failed("%s does not listen\n%s" % (process.name, process.log()))


@pytest.mark.parametrize("version", ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl"])
def test_haproxy(make, version):
    program = shutil.which("haproxy", path=PATH)
    if program is None:
        pytest.skip("no haproxy here")
    p = make("127.0.0.1", **{"max-per-address": 2})
    port = free_port()
    conf = p.dir / "haproxy.cfg"
    conf.write_text("global\n  maxconn 100\ndefaults\n  mode tcp\n  timeout connect 5s\n  timeout client 30s\n  timeout server 30s\n"
                    "listen pop3\n  bind 127.0.0.1:%d\n  server one 127.0.0.1:%d %s\n" % (port, p.port, version))
    with launched(p, "haproxy", [program, "-db", "-f", conf]) as w:
        with awaited(port, w, "127.0.0.42") as a, awaited(port, w, "127.0.0.42") as b:
            a.login("u")
            assert a.retr(1) == wire(MESSAGE)
            with awaited(port, w, "127.0.0.42") as third:
                assert third.banner.startswith(TOO_MANY)
            with awaited(port, w, "127.0.0.43") as other:
                assert other.banner.startswith(b"+OK")
            assert a.quit().startswith(b"+OK")
            b.ok(b"CAPA")
            b.rows()
    session_line(p, r"remote=127\.0\.0\.42", "user=u")
    p.daemon("authd").wait_line("event=login", "result=ok", r"remote=127\.0\.0\.42")


class AuthHttp(http.server.BaseHTTPRequestHandler):
    """Tells nginx which server a user's mail is on."""

    def do_GET(self):
        self.send_response(200)
        self.send_header("Auth-Status", "OK")
        self.send_header("Auth-Server", "127.0.0.1")
        self.send_header("Auth-Port", str(self.server.pop3_port))
        self.end_headers()

    def log_message(self, *_):
        pass


def test_nginx_mail(make):
    program = shutil.which("nginx", path=PATH)
    module = "/usr/lib/nginx/modules/ngx_mail_module.so"
    if program is None or not os.path.exists(module):
        pytest.skip("no nginx with its mail proxy here")
    p = make("127.0.0.1")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), AuthHttp)
    server.pop3_port = p.port
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    port = free_port()
    conf = p.dir / "nginx.conf"
    conf.write_text("load_module %s;\ndaemon off;\nmaster_process off;\npid %s/nginx.pid;\nerror_log stderr;\nevents {}\n"
                    "mail {\n  auth_http 127.0.0.1:%d/;\n  proxy_protocol on;\n  pop3_auth plain;\n"
                    "  server { listen 127.0.0.1:%d; protocol pop3; }\n}\n" % (module, p.dir, server.server_address[1], port))
    try:
        with launched(p, "nginx", [program, "-p", p.dir, "-e", "stderr", "-c", conf]) as w:
            with awaited(port, w, "127.0.0.44") as c:
                assert c.banner.startswith(b"+OK")
                c.login("u")
                assert c.retr(1) == wire(MESSAGE)
                assert c.quit().startswith(b"+OK")
            with awaited(port, w, "127.0.0.45") as c:
                c.ok(b"AUTH PLAIN " + base64.b64encode(b"\0u\0" + PASSWORD.encode()))
                assert c.stat()[0] == 1
        session_line(p, r"remote=127\.0\.0\.44", "user=u")
        session_line(p, r"remote=127\.0\.0\.45", "user=u")
    finally:
        server.shutdown()
        server.server_close()
        thread.join(TIMEOUT)
