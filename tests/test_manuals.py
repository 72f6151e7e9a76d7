"""The manual pages and the code say the same: options, commands, log lines, exit statuses, metrics, messages; and every page can be read.

Keys of postern.conf are compared in test_text.py (names and defaults) and test_conf.py (what needs a restart).
"""
import re
import shutil
import subprocess

import pytest

import harness
from harness import REPO

DAEMONS, TOOLS = ["pop3d", "authd", "spoold"], ["authctl", "spoolctl"]
FOLDER = {"pop3d": "pop3d", "authd": "authd", "spoold": "spoold", "authctl": "authd", "spoolctl": "spoold"}
PAGES = sorted(p for d in ("lib", "pop3d", "authd", "spoold") for p in (REPO / d).glob("*.[1-8]"))


def page(program):
    return (REPO / FOLDER[program] / (program + ".8")).read_text()


def sources(program):
    """The C of a program's folder, without what is the tools' alone, with the lib that it shares."""
    tool = re.compile(r"spoolctl|ctl_|doctor|authctl|command_|password_read")
    files = [p for p in sorted((REPO / FOLDER[program]).glob("*.c")) if bool(tool.match(p.name)) == (program in TOOLS)]
    return "\n".join(p.read_text() for p in files)


def literals(text):
    """All string literals, with adjacent ones joined."""
    joined = re.sub(r'"\s*\n\s*"', "", text)
    return [m.replace('\\"', '"') for m in re.findall(r'"((?:[^"\\\n]|\\.)*)"', joined)]


# Reading

@pytest.mark.parametrize("path", PAGES, ids=lambda p: p.name)
def test_pages_can_be_rendered_and_read(path):
    if shutil.which("mandoc") is None:
        pytest.skip("mandoc is not installed")
    for form in ("utf8", "html", "man"):
        done = subprocess.run(["mandoc", "-T", form, path], capture_output=True, text=True)
        assert done.returncode == 0 and done.stderr == ""
    done = subprocess.run(["mandoc", "-T", "lint", "-W", "warning", path], capture_output=True, text=True)
    assert [r for r in done.stdout.splitlines() if "referenced manual not found" not in r] == []
    if shutil.which("man"):
        done = subprocess.run(["man", "--warnings", "-l", path], capture_output=True, text=True, env={"PATH": "/usr/bin:/bin", "MANWIDTH": "100", "LC_ALL": "C.UTF-8"})
        assert done.returncode == 0 and path.stem in done.stdout and len(done.stdout) > 1000
        assert done.stderr == ""


# Options, commands

def usage(program):
    return subprocess.run([harness.BUILD / program, "-h"], capture_output=True, text=True, check=True).stdout


def synopsis(program):
    return re.search(r"(?s)\.Sh SYNOPSIS\n(.*?)\n\.Sh ", page(program))[1]


def options_of_page(program):
    """Letters and long options that the page explains or names, all of it."""
    text = re.sub(r"\.Xr .*", "", page(program))
    flags = set()
    for row in re.findall(r"\bFl ((?:Fl )?[A-Za-z-]+)", text):
        flags |= {"--" + row[3:]} if row.startswith("Fl ") else {"-" + x for x in row} if not row.startswith("-") else {"-" + row}
    return flags | set(re.findall(r"(?<![\w-])--[a-z-]+", text))


@pytest.mark.parametrize("program", DAEMONS + TOOLS)
def test_options(program):
    known = {"-" + x for group in re.findall(r"\[-(\w+)", usage(program).split("\n")[0]) for x in group}
    if program in TOOLS:
        known |= {"--" + x for x in re.findall(r'\{ "([a-z-]+)", (?:no|required)_argument', sources(program))}
        known |= {"-w"} if program == "spoolctl" else set()
    named = options_of_page(program)
    assert known <= named, "not in the page: %s" % (known - named)
    # a page may name an option of another program, as in "pop3d -l"
    others = {o for p in DAEMONS + TOOLS if p != program for o in re.findall(r"-\w\b", usage(p))} | {"-X", "-u", "-s"}
    assert named - known <= others, "not in the program: %s" % (named - known - others)


@pytest.mark.parametrize("program", TOOLS)
def test_commands(program):
    rows = re.findall(r"(?m)^  (\w[\w-]*(?: (?:add|list|del)(?= ))?)", usage(program))
    text = synopsis(program)
    for words in rows:
        assert re.search(r"\.Cm %s\b" % re.escape(words), text), "%s is not in the synopsis" % words
    in_page = set(re.findall(r"(?m)^\.Cm ([a-z-]+)", text))
    assert in_page == {r.split()[0] for r in rows}


@pytest.mark.parametrize("program", DAEMONS + TOOLS)
def test_exit_statuses(program, tmp_path):
    text = re.search(r"(?s)\.Sh EXIT STATUS\n(.*?)\n\.Sh ", page(program))[1]
    bad = tmp_path / "postern.conf"
    bad.write_text("nonsense\n")
    seen = [subprocess.run([harness.BUILD / program, *args], capture_output=True).returncode for args in (["-V"], ["-t", "-c", bad], ["--nonsense"])]
    assert seen == [0, 1, 2]
    for status in "012":
        assert re.search(r"\b%s\b" % status, text), "status %s is not in %s(8)" % (status, program)
    assert set(re.findall(r"\b\d\b", text)) <= set("012")


# Log lines

def events_of_code(program):
    """{event: its keys}: what stands between log_begin and log_end."""
    found = {}
    for m in re.finditer(r'log_begin\((?:[^;"]*)"([a-z-]+)"\);(.*?)log_end\(\);', sources(program), re.S):
        found.setdefault(m[1], set()).update(re.findall(r'log_(?:string|number|bytes)\("([a-z-]+)"', m[2]))
    return found


def diagnostics(program):
    return re.search(r"(?s)\.Sh DIAGNOSTICS\n(.*?)\n\.Sh SEE ALSO", page(program))[1]


def events_of_page(program):
    """The same of the page: the lines of its list, and the example of the line that has a list of its own."""
    text = diagnostics(program)
    found = {}
    for row in re.findall(r"(?m)^\.It Li (.*event=.*)$", text):
        event = re.search(r"event=([a-z|-]+)", row)[1]
        if event.split("|")[0] in ("note", "warning", "error"):
            continue
        found.setdefault(event, set()).update(set(re.findall(r"([a-z-]+)=", row)) - {"s", "event"})
    if example := re.search(r"(?s)\.Bd -literal.*?event=([a-z-]+)(.*?)\.Ed\n(.*?\.El\n\.Pp|.*)", text):
        keys = set(re.findall(r"([a-z-]+)=", example[2]))
        for row in re.findall(r"(?m)^\.It Cm ([a-z ,-]+)$", example[3]):
            keys |= set(row.replace(" ", "").split(",")) - values_in(example[3])
        found[example[1]] = keys - {"s"}
    return found


def values_in(text):
    """Items of a list in a list are values of a key."""
    depth, found = 0, set()
    for row in text.splitlines():
        depth += row.startswith(".Bl ") - row.startswith(".El")
        if depth > 1 and (m := re.match(r"\.It Cm ([a-z-]+)$", row)):
            found.add(m[1])
    return found


@pytest.mark.parametrize("program", DAEMONS)
def test_every_event_and_its_keys(program):
    code, text = events_of_code(program), events_of_page(program)
    assert len(code) >= 5
    assert set(code) - set(text) == set(), "not in the page"
    assert set(text) - set(code) == set(), "not in the code"
    for event in code:
        if program == "spoold" and event == "failed":
            continue        # its keys are added by a function of its own
        missing, surplus = code[event] - text[event], text[event] - code[event]
        assert not missing and not surplus, "event=%s: not in the page: %s, not in the code: %s" % (event, missing, surplus)


@pytest.mark.parametrize("program", DAEMONS)
def test_every_text_that_a_page_promises(program):
    """event=note, warning and error: the page's words are in a string of the code, where "..." stands for what varies."""
    code = literals(sources(program)) + literals("\n".join(p.read_text() for p in (REPO / "lib").glob("*.c")))
    for text in re.findall(r'(?m)^\.It Li .*event=(?:note|warning|error|\|)+ text="(.*)"$', diagnostics(program)):
        words = [w.strip(" :,") for w in re.split(r"\.\.\.|\d+|: ", text) if w.strip(" :,")]
        assert words, text
        assert all(any(w in c for c in code) for w in words), text


def test_every_way_in_which_a_session_ends():
    text = diagnostics("pop3d")
    told = values_in(text)
    code = sources("pop3d")
    said = set(re.findall(r'(?:->end|\bend|->failed) = "([a-z-]+)"', code)) | set(re.findall(r'->end != NULL \? s->end : "([a-z-]+)"', code))
    assert said <= told, "not in the page: %s" % (said - told)
    assert all('"%s"' % t in code for t in told), "not in the code: %s" % [t for t in told if '"%s"' % t not in code]


def test_every_reason_of_a_login():
    text = re.search(r"(?s)\.It Cm reason\n(.*?)\n\.It Cm user", diagnostics("authd"))[1]
    told = {w for row in re.findall(r"(?m)^\.Cm (.*)$", text) for w in re.findall(r"[a-z-]+", row)} - {"ok", "fail"}
    code = sources("authd")
    said = set()
    for m in re.finditer(r"(?:deny|deny_for|login_trouble|login_vouched|grant_answer|answer)\(([^;]*)\);|->reason = ([^;]*);", code):
        said |= {x for x in re.findall(r'"([a-z]+(?:-[a-z]+)*)"', m[0])}
    assert len(said) > 15
    assert said - told == set(), "not in the page: %s" % (said - told)
    assert all('"%s"' % t in code for t in told), "not in the code: %s" % [t for t in told if '"%s"' % t not in code]


# Messages of the tools, metrics, the doctor's steps

@pytest.mark.parametrize("program", TOOLS)
def test_every_message_that_a_page_promises(program):
    code = literals(sources(program)) + literals((REPO / "lib/print.c").read_text())
    for text in re.findall(r'(?m)^\.It "?(.*?)"?$', diagnostics(program)):
        words = [w.strip(" :;,") for w in re.split(r"\.\.\.|\(|\b[A-Z][A-Z-]+\b|\breason\b|%\w", text) if w.strip(" :;,/")]
        assert all(any(w in c for c in code) for w in words), text


def test_every_metric():
    code = sources("spoolctl")
    names = set(re.findall(r'(?:family|counter|gauge|counters|histogram)\(f, "([a-z_]+)"', code)) | set(re.findall(r"# TYPE postern_([a-z_]+) ", code))
    text = re.search(r"(?s)\.Ss METRICS\n(.*?)\.Ss", page("spoolctl"))[1]
    told = {w for row in re.findall(r"(?m)^\.It Li (.*)$", text) for w in re.findall(r"[a-z_]+", row)}
    assert told == names


def test_every_step_of_the_doctor():
    code = sources("spoolctl")
    steps = set(re.findall(r'found\(d, [^"]*?"([a-z0-9-]+)",', code)) | set(re.findall(r'check_directory\(d, "([a-z-]+)"', code)) | set(
        re.findall(r'check_socket\(d, "([a-z]+)"', code))
    text = re.search(r"(?s)The steps are\n(.*?)\n\.Pp", page("spoolctl"))[1]
    told = {w for row in re.findall(r"(?m)^\.Cm (.*)$", text) for w in re.findall(r"[a-z0-9-]+", row)}
    assert told == steps
