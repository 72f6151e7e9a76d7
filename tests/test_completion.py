"""The completions for bash and zsh offer what the programs take, as their usage says: no more, no less."""
import re
import shlex
import shutil
import subprocess

import pytest

import harness
from harness import REPO

BASH, ZSH = REPO / "etc/completion/postern.bash", REPO / "etc/completion/_postern"


def usage(program):
    return subprocess.run([harness.BUILD / program, "-h"], capture_output=True, text=True, check=True).stdout


def commands(tool):
    """{command: its options}, from what the tool itself says. Two words are one command ("app add")."""
    found = {}
    for row in re.findall(r"(?m)^  (\w.*)$", usage(tool)):
        words = re.match(r"[a-z-]+( (add|list|del)(?= ))?", row)[0]
        said = subprocess.run([harness.BUILD / tool, "-c", REPO / "etc/postern.conf", *words.split(), "--no-such-option"], capture_output=True, text=True)
        assert said.returncode == 2
        text = row + said.stderr.split("usage: ", 1)[1]
        found[words] = set(re.findall(r"(?<![\w-])(--[a-z-]+|-[a-z])(?![\w-])", text))
    return found


def letters(program):
    """The options of a daemon, from "[-StVh] [-c FILE] [-l ADDRESS:PORT]..."."""
    text = usage(program).split("\n")[0]
    return {"-" + x for group in re.findall(r"\[-(\w+)", text) for x in group}


def bash(*words):
    """What bash offers in place of the last word."""
    script = "source %s; COMP_WORDS=(%s); COMP_CWORD=%d; spoolctl() { echo 'session=0123456789abcdef user=x client=y'; }; %s %s; printf '%%s\\n' \"${COMPREPLY[@]}\"" % (
        shlex.quote(str(BASH)), " ".join(shlex.quote(w) for w in words), len(words) - 1,
        "_postern_daemon" if words[0] in ("pop3d", "authd", "spoold") else "_" + words[0], words[0])
    done = subprocess.run(["bash", "--norc", "-c", script], capture_output=True, text=True)
    assert done.stderr == "", done.stderr
    return set(done.stdout.split())


def zsh(*words):
    """What the functions of zsh would be told, one argument a line."""
    script = """
    _describe() { print -l -- ${(P)2} }
    _arguments() { print -l -- "$@" }
    compadd() { : }
    service=%s words=(%s) CURRENT=%d
    source %s
    """ % (words[0], " ".join(shlex.quote(w) for w in words), len(words), shlex.quote(str(ZSH)))
    done = subprocess.run(["zsh", "-f", "-c", script], capture_output=True, text=True)
    assert done.stderr == "", done.stderr
    return done.stdout.splitlines()


needs_zsh = pytest.mark.skipif(shutil.which("zsh") is None, reason="zsh is not installed")


def zsh_options(rows):
    """'(-w --watch)'{-w,--watch}'[...]' has become two arguments, each with its list of what excludes it."""
    return {m[1] for r in rows if (m := re.match(r"(?:\([^)]*\))?\*?(--?[A-Za-z][a-z-]*)\[", r))}


@pytest.mark.parametrize("tool", ["spoolctl", "authctl"])
def test_bash_offers_commands_and_their_options(tool):
    known = commands(tool)
    assert len(known) > 5
    assert bash(tool, "") == {c.split()[0] for c in known}
    assert bash(tool, "-c", "/etc/x", "") == {c.split()[0] for c in known}
    assert bash(tool, "-") == {"-c", "-t", "-V", "-h"}
    for command, options in known.items():
        first, *second = command.split()
        if second:
            assert bash(tool, first, "") == {c.split()[1] for c in known if c.split()[0] == first}
        more = {"--watch"} if command == "who" else set()
        assert bash(tool, *command.split(), "-") == options | more, command
    assert bash(tool, "-c", "/etc/x", "l" if tool == "authctl" else "w") >= ({"list", "lock"} if tool == "authctl" else {"who"})


@needs_zsh
@pytest.mark.parametrize("tool", ["spoolctl", "authctl"])
def test_zsh_offers_commands_and_their_options(tool):
    known = commands(tool)
    assert {r.split(":")[0] for r in zsh(tool, "")} == {c.split()[0] for c in known}
    assert {r.split(":")[0] for r in zsh(tool, "-c", "/etc/x", "")} == {c.split()[0] for c in known}
    assert zsh_options(zsh(tool, "-")) == {"-c", "-t", "-V", "-h"}
    for command, options in known.items():
        first, *second = command.split()
        if second:
            assert {r.split(":")[0] for r in zsh(tool, first, "")} == {c.split()[1] for c in known if c.split()[0] == first}
        more = {"--watch"} if command == "who" else set()
        assert zsh_options(zsh(tool, *command.split(), "-")) == options | more, command


@pytest.mark.parametrize("program", ["pop3d", "authd", "spoold"])
def test_daemons(program):
    assert bash(program, "-") == letters(program)
    if shutil.which("zsh"):
        assert zsh_options(zsh(program, "-")) == letters(program)


def test_bash_offers_what_runs_and_who_there_is(tmp_path):
    assert bash("spoolctl", "end", "") == {"0123456789abcdef"}
    assert bash("authctl", "import", "") == {"shadow", "dovecot", "courier"}
    (tmp_path / "ids.txt").write_text("")
    assert bash("spoolctl", "uidl-diff", "alice", str(tmp_path / "i")) == {str(tmp_path / "ids.txt")}
    assert bash("spoolctl", "-c", str(tmp_path / "i")) == {str(tmp_path / "ids.txt")}
