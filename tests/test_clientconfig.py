"""authctl client-config."""
import os
import plistlib
import subprocess
import xml.etree.ElementTree as ElementTree

import pytest

import harness


@pytest.fixture(scope="module")
def made():
    with harness.Postern() as p:
        subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "3", "-subj", "/CN=x",
            "-addext", "subjectAltName=DNS:*.example.org,DNS:mail.example.org", "-keyout", p.dir / "k", "-out", p.dir / "c"], check=True,
            capture_output=True)
        p.write_conf(tls={"certificate": p.dir / "c", "key": p.dir / "k"})
        p.own(p.dir)
        for user in ("anna", "o&b@example.net"):
            p.user(user, "mbox", [])
        yield p


def run(p, *args, locale="C", check=True):
    env = {k: v for k, v in os.environ.items() if not k.startswith("LC_") and k not in ("LANG", "LANGUAGE")}
    done = subprocess.run([str(x) for x in p.argv("authctl", "client-config", *args)], capture_output=True, timeout=harness.TIMEOUT,
        env={**env, "LANG": locale}, **p.popen_as())
    assert not check or done.returncode == 0, done.stderr
    return done.stdout.decode() if check else done


def rows(text):
    return dict([x.strip() for x in r.split(":", 1)] for r in text.splitlines() if r.startswith("  "))


def test_settings(made):
    assert rows(run(made, "anna")) == {"Type of account": "POP3", "Server": "mail.example.org", "Port": "995", "Connection security": "SSL/TLS",
        "Authentication": "normal password", "User name": "anna", "Password": "that of the account, or an app password made for this program"}
    assert "recent:anna" in run(made, "anna")
    other = rows(run(made, "anna", "--server", "pop.example.com", "--port", "1995"))
    assert (other["Server"], other["Port"]) == ("pop.example.com", "1995")
    other = rows(run(made, "anna", "--starttls"))
    assert (other["Port"], other["Connection security"]) == ("110", "STARTTLS")


@pytest.mark.parametrize("locale, french", [("fr_FR.UTF-8", True), ("fr", True), ("fr_CA@x", True), ("de_DE.UTF-8", False), ("C", False)])
def test_language_of_the_locale(made, locale, french):
    text = run(made, "anna", locale=locale)
    assert ("Réglages d’un logiciel de messagerie pour anna" in text) == french
    assert ("Settings of a mail program for anna" in text) != french


def test_autoconfig(made):
    root = ElementTree.fromstring(run(made, "anna", "--autoconfig"))
    provider = root.find("emailProvider")
    assert root.tag == "clientConfig" and root.get("version") == "1.1" and provider.get("id") == "example.org"
    assert provider.findtext("domain") == "example.org"
    server = provider.find("incomingServer")
    assert server.get("type") == "pop3"
    assert {e.tag: e.text for e in server} == {"hostname": "mail.example.org", "port": "995", "socketType": "SSL", "username": "%EMAILLOCALPART%",
        "authentication": "password-cleartext"}
    assert provider.find("outgoingServer").findtext("hostname") == "mail.example.org"
    root = ElementTree.fromstring(run(made, "o&b@example.net", "--autoconfig", "--smtp-server", "smtp.example.net", "--starttls"))
    assert root.find("emailProvider/domain").text == "example.net"
    assert root.find("emailProvider/incomingServer/username").text == "%EMAILADDRESS%"
    assert root.find("emailProvider/incomingServer/socketType").text == "STARTTLS"
    assert root.find("emailProvider/outgoingServer/hostname").text == "smtp.example.net"


def test_mobileconfig(made):
    text = run(made, "o&b@example.net", "--mobileconfig")
    plist = plistlib.loads(text.encode())
    assert plist["PayloadType"] == "Configuration" and plist["PayloadVersion"] == 1
    mail, = plist["PayloadContent"]
    assert mail["PayloadType"] == "com.apple.mail.managed" and mail["EmailAccountType"] == "EmailTypePOP"
    assert mail["EmailAddress"] == mail["IncomingMailServerUsername"] == "o&b@example.net"
    assert (mail["IncomingMailServerHostName"], mail["IncomingMailServerPortNumber"], mail["IncomingMailServerUseSSL"]) == ("mail.example.org", 995, True)
    assert mail["PayloadUUID"] != plist["PayloadUUID"] and mail["PayloadIdentifier"] != plist["PayloadIdentifier"]
    assert run(made, "o&b@example.net", "--mobileconfig") == text       # installed again it takes the place of the old one
    assert plistlib.loads(run(made, "anna", "--mobileconfig").encode())["PayloadUUID"] != plist["PayloadUUID"]
    french = plistlib.loads(run(made, "anna", "--mobileconfig", locale="fr_FR").encode())
    assert french["PayloadDisplayName"] == "Réglages de courrier pour anna@example.org"


def test_dns(made):
    assert run(made, "anna", "--dns").splitlines() == ["_pop3s._tcp.example.org. IN SRV 0 1 995 mail.example.org.",
        "_pop3._tcp.example.org. IN SRV 0 0 0 .", "_submission._tcp.example.org. IN SRV 0 1 587 mail.example.org."]
    assert "_pop3._tcp.example.com. IN SRV 0 1 110 mail.example.org." in run(made, "anna", "--dns", "--domain", "example.com", "--starttls")


def test_wrong(made):
    for args, status in ((["nobody-here"], 1), (["anna", "--server", "a b"], 1), (["anna", "--domain", "<x>"], 1), (["anna", "--port", "0"], 2),
                         (["anna", "--dns", "--autoconfig"], 2), ([], 2)):
        assert run(made, *args, check=False).returncode == status, args


def test_without_tls(make_postern):
    p = make_postern()
    p.user("u", "mbox", [])
    got = rows(run(p, "u", "--server", "mail.example.org"))
    assert got["Port"] == "110" and got["Connection security"].startswith("none")
    assert run(p, "u", "--starttls", check=False).returncode == 1
    for setting, said in (("loopback", b"from any other host"), ("never", b"cleartext-login = never"), ("always", None)):
        p.write_conf(pop3d={"cleartext-login": setting})
        told = run(p, "u", "--server", "mail.example.org", check=False)
        assert told.returncode == 0 and (said in told.stderr if said else told.stderr == b""), setting
