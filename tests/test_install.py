"""make install and uninstall; what of it can be judged without a machine of its own (for that: make check-systemd)."""
import os
import re
import shutil
import subprocess

import pytest

import harness
from harness import REPO

UNITS = ("pop3.socket", "pop3s.socket", "postern-pop3d.service", "postern-authd.service", "postern-spoold.service")
MOST = {"postern-pop3d.service": 2.0, "postern-authd.service": 4.0, "postern-spoold.service": 4.0,
        "pop3-each@.service": 2.0, "pop3s-each@.service": 2.0, "postern-metrics.service": 4.0, "postern-metrics@.service": 4.0}
PATH = "/usr/sbin:/sbin:" + os.environ["PATH"]


def make(target, into, **variables):
    done = subprocess.run(["make", "-s", target, "B=%s" % harness.BUILD, "DESTDIR=%s" % into, *("%s=%s" % kv for kv in variables.items())], cwd=REPO,
                          capture_output=True, text=True, timeout=300, env={**os.environ, "MAKEFLAGS": ""})
    assert done.returncode == 0, done.stderr


def files(root):
    return {str(f.relative_to(root)) for f in root.rglob("*") if not f.is_dir()}


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    root = tmp_path_factory.mktemp("root")
    make("install", root, PREFIX="/opt/mail", SYSCONFDIR="/opt/etc")
    return root


def test_make_alone_makes_everything():
    done = subprocess.run(["make", "-n", "-B"], cwd=REPO, capture_output=True, text=True)
    for name in ("pop3d", "authd", "spoold", "authctl", "spoolctl"):
        assert " -o build/%s " % name in done.stdout


def test_where_it_is_put(installed):
    there = files(installed)
    for name in harness.PROGRAMS:
        place = "sbin" if name.endswith("ctl") else "libexec/postern"
        assert "opt/mail/%s/%s" % (place, name) in there
    for name in ("postern/postern.conf", "pam.d/postern", "fail2ban/filter.d/postern.conf", "fail2ban/jail.d/postern.conf", "apparmor.d/postern"):
        assert "opt/etc/" + name in there
    for page in REPO.glob("*/*.[578]"):
        assert "opt/mail/share/man/man%s/%s" % (page.suffix[1], page.name) in there
    assert not [f for f in there if not f.startswith(("opt/etc/", "opt/mail/"))]


def test_paths_are_put_in(installed):
    """Nothing speaks of a place where nothing is."""
    for name in UNITS:
        assert (installed / "opt/mail/lib/systemd/system" / name).exists()
    for f in [*installed.rglob("*.service"), *(installed / "opt/mail/share/postern").rglob("*"), *(installed / "opt/etc").rglob("*")]:
        if f.is_file():
            text = f.read_text()
            assert not re.search(r"@[A-Z]+@|/usr/local/(libexec|sbin)", text), f
            for path in re.findall(r"(?<![\w.])/opt/mail/(?:libexec|sbin)/[\w/]*\w", text):
                assert (installed / path[1:]).exists(), (f, path)


def test_configuration_is_kept(tmp_path):
    make("install", tmp_path)
    conf = tmp_path / "etc/postern/postern.conf"
    conf.write_text("[pop3d]\nprefork = 1\n")
    make("install", tmp_path)
    assert conf.read_text() == "[pop3d]\nprefork = 1\n"
    make("uninstall", tmp_path)
    left = files(tmp_path)
    assert left == {"etc/" + f for f in ("postern/postern.conf", "pam.d/postern", "fail2ban/filter.d/postern.conf", "fail2ban/jail.d/postern.conf",
                                         "apparmor.d/postern")}


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")
@pytest.mark.parametrize("name", sorted(MOST))
def test_exposure(installed, tmp_path, name):
    """What systemd-analyze(1) says of a unit's hardening, and that it understands every line of it."""
    source = next(installed.rglob(name))
    shutil.copy(source, tmp_path)
    done = subprocess.run(["systemd-analyze", "security", "--offline=yes", "--no-pager", tmp_path / name], capture_output=True, text=True, timeout=60)
    figure = re.search(r"Overall exposure level for \S+: ([0-9.]+)", done.stdout)
    assert figure, done.stdout + done.stderr
    assert float(figure[1]) <= MOST[name], done.stdout
    assert not re.search(r"(?i)unknown|ignoring", done.stderr), done.stderr


def test_exceptions_are_explained():
    """Every hardening that pop3d's unit has and another's has not is named in that one's comments."""
    def settings(name):
        text = (REPO / "etc/systemd" / name).read_text()
        rows = dict(re.findall(r"(?m)^([A-Z]\w+)=(.*)$", text))
        return rows, "\n".join(row for row in text.splitlines() if row.startswith("#"))
    strict = {k: v for k, v in settings("postern-pop3d.service")[0].items() if k.startswith(("Private", "Protect", "Restrict", "IPAddress", "Lock", "NoNew",
                                                                                      "Memory", "ProcSubset", "User"))}
    for name in ("postern-authd.service", "postern-spoold.service"):
        rows, comments = settings(name)
        for key, value in strict.items():
            if rows.get(key) != value and key != "RestartKillSignal":
                words = rows.get(key, "").replace(value, "").split() if key == "RestrictAddressFamilies" else [key]
                assert all(w in comments for w in words), "%s: %s is %s, and no comment says why" % (name, key, rows.get(key))


@pytest.mark.skipif(shutil.which("apparmor_parser", path=PATH) is None, reason="no apparmor_parser here")
def test_apparmor(installed):
    profile = installed / "opt/etc/apparmor.d/postern"
    done = subprocess.run([shutil.which("apparmor_parser", path=PATH), "-Q", "-K", "-T", profile], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert all("/opt/mail/libexec/postern/" + name in profile.read_text() for name in ("pop3d", "authd", "spoold"))


def test_package_version():
    """The package has the version of the programs."""
    version = re.search(r"(?m)^VERSION = (\S+)$", (REPO / "Makefile").read_text())[1]
    assert re.match(r"postern \(%s\) " % re.escape(version), (REPO / "debian/changelog").read_text())
