"""Thunderbird, Debian's package, sets itself up from what `authctl client-config --autoconfig` writes, and fetches a local account's mail.

Everything is in a network namespace of its own and on a Stage: the file of authctl is what http://autoconfig.DOMAIN/mail/config-v1.1.xml gives, as on
a provider's web server; alice gives her name, address and password to the account dialogue of the first start, and nothing else. The dialogue
is driven through Marionette, the remote control that is built into Thunderbird: it fills the fields and presses the buttons that
a user would. Thunderbird trusts the test's CA because a policy of the computer tells it to.

SCREENSHOT=FILE.png keeps a picture of the window at the end.
"""
import ctypes
import http.server
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import threading

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
import harness  # noqa: E402
from harness import Failed, Postern, Stage, Watched  # noqa: E402

DOMAIN, SERVER = "example.org", "mail.example.org"
PATIENCE = 180          # for what Thunderbird does: it is large, and the machine may be busy
MISSING = [name for name in ("thunderbird", "Xvfb", "unshare", "openssl") if shutil.which(name) is None]
MESSAGES = [b"From: Bob <bob@example.org>\nTo: alice@example.org\nSubject: the %s message\nDate: Sat, 3 Jan 1998 01:05:3%d +0000\n"
            b"Message-ID: <%d@example.org>\n\nBody of the %s message.\n.\n.. with dots\n" % (n, i, i, n)
            for i, n in enumerate((b"first", b"second", b"third", b"fourth"))]
LATER = MESSAGES.pop()

pytestmark = [pytest.mark.skipif(not harness.IS_ROOT, reason="namespaces and local accounts: root only"),
              pytest.mark.skipif(bool(MISSING), reason="not installed: %s (packages thunderbird, xvfb)" % ", ".join(MISSING))]


# A network that is this process's own, and every process's that it starts from here on

def own_network():
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(0x40000000) != 0:
        pytest.skip("no network namespace: %s" % os.strerror(ctypes.get_errno()))
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    # read through this thread: /proc/sys/net is the namespace's of who opens it
    pathlib.Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").write_text("0")


def certificates(directory):
    """A CA, and a certificate for SERVER by it: (ca, certificate, key)."""
    def openssl(*args):
        subprocess.run(["openssl", *[str(a) for a in args]], check=True, capture_output=True, cwd=directory)
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "3", "-subj", "/CN=Test CA", "-keyout", "ca.key",
            "-out", "ca.crt", "-addext", "keyUsage=critical,keyCertSign,cRLSign")
    openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj", "/CN=" + SERVER, "-keyout", "key", "-out", "csr")
    (directory / "ext").write_text("subjectAltName=DNS:%s\nextendedKeyUsage=serverAuth\n" % SERVER)
    openssl("x509", "-req", "-in", "csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-days", "3", "-extfile", "ext", "-out", "crt", "-set_serial", "7")
    return directory / "ca.crt", directory / "crt", directory / "key"


class Provider:
    """The web server of the domain: it has one file."""

    def __init__(self, document):
        self.asked = asked = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                path = self.path.split("?")[0]
                asked.append(self.headers["Host"] + path)
                found = path == "/mail/config-v1.1.xml" and self.headers["Host"] == "autoconfig." + DOMAIN
                self.send_response(200 if found else 404)
                self.send_header("Content-Type", "text/xml")
                self.send_header("Content-Length", str(len(document) if found else 0))
                self.end_headers()
                if found:
                    self.wfile.write(document)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 80), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()


class Thunderbird:
    """One Thunderbird of alice's on a display of its own."""

    def __init__(self, stage, authority):
        self.stage = stage
        self.home = stage.path("/home/alice")
        self.profile = self.home / "profile"
        self.profile.mkdir()
        (self.profile / "user.js").write_text("".join('user_pref("%s", %s);\n' % kv for kv in (
            ("marionette.port", 2828), ("app.donation.eoy.version.viewed", 999), ("datareporting.policy.dataSubmissionPolicyBypassNotification", "true"),
            ("mailnews.start_page.enabled", "false"), ("mail.provider.suppress_dialog_on_startup", "false"), ("intl.locale.requested", '"en-US"'))))
        subprocess.run(["chown", "-R", "%d:%d" % ((stage.USERS["alice"],) * 2), str(self.profile)], check=True)
        policies = stage.etc / "thunderbird" / "policies"
        policies.mkdir(parents=True, exist_ok=True)
        shutil.copy(authority, policies / "test-ca.pem")
        (policies / "policies.json").write_text(json.dumps({"policies": {"Certificates": {"Install": ["/etc/thunderbird/policies/test-ca.pem"]}}}))
        read, write = os.pipe()
        self.xvfb = Watched("Xvfb", ["Xvfb", "-displayfd", str(write), "-screen", "0", "1280x960x24", "-nolisten", "tcp", "-nolisten", "unix", "-ac"],
            pass_fds=[write])
        os.close(write)
        with open(read) as f:
            self.display = ":" + f.readline().strip()
        env = {"HOME": "/home/alice", "DISPLAY": self.display, "PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "LIBGL_ALWAYS_SOFTWARE": "1",
               "MOZ_DISABLE_CONTENT_SANDBOX": "1", "XDG_RUNTIME_DIR": "/home/alice"}
        self.process = Watched("thunderbird", stage.argv(["sh", "-c", 'exec "$@" >&2', "-", "/usr/bin/thunderbird", "--marionette",
            "--remote-allow-system-access", "--profile", "/home/alice/profile"], "alice"), env=env)
        self.socket, self.buffer, self.count = self._connect(), b"", 0
        assert self._read()["marionetteProtocol"] == 3
        self.command("WebDriver:NewSession", {})
        self.command("Marionette:SetContext", {"value": "chrome"})

    def _connect(self):
        self.process.wait_line("Listening on port", timeout=PATIENCE)
        return socket.create_connection(("127.0.0.1", 2828), PATIENCE)

    def _read(self):
        while True:
            head, colon, rest = self.buffer.partition(b":")
            if colon and len(rest) >= int(head):
                self.buffer = rest[int(head):]
                return json.loads(rest[:int(head)])
            data = self.socket.recv(65536)
            if not data:
                raise Failed("Thunderbird ended\n" + self.process.log()[-3000:])
            self.buffer += data

    def command(self, name, parameters):
        self.count += 1
        data = json.dumps([0, self.count, name, parameters]).encode()
        self.socket.sendall(b"%d:%s" % (len(data), data))
        kind, number, error, result = self._read()
        assert (kind, number) == (1, self.count)
        if error is not None:
            raise Failed("%s: %s: %s" % (name, error["error"], error["message"]))
        return result.get("value") if isinstance(result, dict) else result

    def run(self, script, *args):
        return self.command("WebDriver:ExecuteScript", {"script": script, "args": list(args), "newSandbox": True})

    def wait(self, script, *args):
        """What the script returns as soon as that is something; Thunderbird looks again whenever its own loop has turned for a while."""
        looped = """const [args, resolve] = [Array.from(arguments).slice(0, -1), arguments[arguments.length - 1]];
            const look = () => { %s };
            (async () => { for (;;) { let found; try { found = look(); } catch (e) { Cu.reportError(e); }
                if (found) { resolve(found); return; } await new Promise(r => window.setTimeout(r, 100)); } })();""" % script
        self.command("WebDriver:SetTimeouts", {"script": PATIENCE * 1000})
        return self.command("WebDriver:ExecuteAsyncScript", {"script": looped, "args": list(args), "newSandbox": True})

    def picture(self, path):
        subprocess.run(["import", "-display", self.display, "-window", "root", path], check=True)

    def close(self):
        for process in (self.process, self.xvfb):
            process.kill()
            process.close()


# In the dialogue some parts have a shadow tree of their own: what is seen anywhere is looked for in all.
SEEN = """const seen = selector => { const found = []; const walk = node => { found.push(...node.querySelectorAll(selector));
    for (const e of node.querySelectorAll("*")) if (e.shadowRoot) walk(e.shadowRoot); }; walk(document); return found.find(e => e.checkVisibility()); };
    const type = (field, text) => { field.value = text; field.dispatchEvent(new Event("input", { bubbles: true })); };
    const press = button => { if (!button || button.disabled) return false; button.click(); return true; };
    const about = document.getElementById("tabmail")?.currentAbout3Pane;
    """


@pytest.fixture
def scene(tmp_path):
    """(Postern with TLS on port 995 and alice's mail, Thunderbird at its first start, the provider's web server)"""
    own_network()
    stage = Stage()
    p = t = provider = None
    try:
        # the host's own hosts file is no part of this: the two names, and nothing else, are known
        (stage.etc / "hosts").write_text("127.0.0.1 localhost autoconfig.%s %s\n" % (DOMAIN, SERVER))
        ca, certificate, key = certificates(tmp_path)
        p = Postern(stage=stage)
        for path in (certificate, key):
            shutil.copy(path, p.dir / path.name)
            (p.dir / path.name).chmod(0o600)
        p.write_conf(tls={"certificate": p.dir / "crt", "key": p.dir / "key"})
        maildrop = stage.path("/var/mail/alice")
        maildrop.write_bytes(harness.mbox(MESSAGES))
        maildrop.chmod(0o600)
        os.chown(maildrop, stage.USERS["alice"], 8)
        p.start("spoold", "authd")
        p.start_daemon("pop3d", "-s", "127.0.0.1:995").wait_line("event=listening")
        provider = Provider(p.authctl("client-config", "alice", "--autoconfig").stdout)
        t = Thunderbird(stage, ca)
        yield p, t, provider
    finally:
        if t is not None:
            t.close()
        if provider is not None:
            provider.server.shutdown()
            provider.server.server_close()
        if p is not None:
            p.close()
        stage.close()


def test_sets_itself_up_and_fetches(scene):
    p, t, provider = scene
    stage, pop3d = p.stage, p.daemon("pop3d")

    # the first window: name and address, Continue
    t.wait(SEEN + """if (!seen("#realName") || !seen("#email")) return false;
        type(seen("#realName"), "Alice"); type(seen("#email"), args[0]); return press(seen("#forward"));""", "alice@" + DOMAIN)

    # the second: what it found, before any password was given
    found = t.wait(SEEN + """return seen("#configFound")?.innerText;""").lower()
    assert provider.asked == ["autoconfig.%s/mail/config-v1.1.xml" % DOMAIN]
    incoming, outgoing = (found[a:b].split() for a, b in ((found.index("incoming"), found.index("outgoing")), (found.index("outgoing"), None)))
    assert incoming == ["incoming", "pop3", "server:", SERVER, "port:", "995", "security:", "ssl/tls", "username:", "alice",
                        "authentication:", "normal", "password"]
    assert outgoing[:8] == ["outgoing", "smtp", "server:", SERVER, "port:", "587", "security:", "starttls"]
    mark = pop3d.mark()
    t.wait(SEEN + """return press(seen("#forward"));""")

    # the third: the password; Thunderbird tries it, and fetches as soon as the account is there
    t.wait(SEEN + """if (!seen("#password")) return false; type(seen("#password"), args[0]); seen("#rememberPassword").checked = true;
        return press(seen("#forward"));""", stage.passwords["alice"])
    assert "tls=TLS1.3" in pop3d.wait_line("end=quit", "user=alice", "retr=0", start=mark, timeout=PATIENCE)
    assert "tls=TLS1.3" in pop3d.wait_line("end=quit", "user=alice", "retr=3 ", "dele=0", start=mark, timeout=PATIENCE)
    t.wait(SEEN + """return press(seen("#forward"));""")         # Finish

    # one more comes; Get Messages fetches that one, and none twice
    with open(stage.path("/var/mail/alice"), "ab") as f:
        f.write(harness.mbox([LATER]))
    mark = pop3d.mark()
    t.wait(SEEN + """return press(about?.document.getElementById("folderPaneGetMessages"));""")
    pop3d.wait_line("end=quit", "user=alice", "retr=1 ", "dele=0", start=mark, timeout=PATIENCE)

    # what the user sees: four in the inbox, and the first in the list as it was sent
    t.wait(SEEN + """const inbox = MailServices.accounts.allServers.find(s => s.type == "pop3").rootFolder.getFolderWithFlags(Ci.nsMsgFolderFlags.Inbox);
        if (inbox.getTotalMessages(false) != args[0]) return false;
        if (about.gFolder != inbox) about.displayFolder(inbox);
        return about.gFolder == inbox && about.gDBView?.rowCount == args[0];""", len(MESSAGES) + 1)
    subject, body = t.wait(SEEN + """about.threadTree.selectedIndex = 0;
        const m = about.messageBrowser.contentWindow, text = m?.getMessagePaneBrowser()?.contentDocument?.querySelector(".moz-text-plain");
        return text && [m.document.getElementById("expandedsubjectBox").textContent, text.textContent.trim()];""")
    shown = re.sub("^Subject:", "", subject).strip()
    assert any(("Subject: " + shown + "\n").encode() in m and m.endswith(b"\n\n" + body.encode() + b"\n") for m in MESSAGES + [LATER]), (subject, body)
    if "SCREENSHOT" in os.environ:
        t.command("WebDriver:ExecuteAsyncScript", {"args": [], "script": SEEN + """const resolve = arguments[0];    // when it is painted
            const w = about.messageBrowser.contentWindow.getMessagePaneBrowser().contentWindow;
            let left = 30; const next = () => left-- > 0 ? w.requestAnimationFrame(next) : resolve(); next();"""})
        t.picture(os.environ["SCREENSHOT"])

    # what it keeps: every message octet for octet
    kept = (t.profile / "Mail" / SERVER / "Inbox").read_bytes().replace(b"\r\n", b"\n")
    stored = [row.split(b"\n", 6)[-1].removesuffix(b"\n") for row in re.split(rb"(?m)^From - ", kept)[1:]]
    assert stored == MESSAGES + [LATER]
