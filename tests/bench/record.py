"""What is kept of a run in docs/: the figures, a page with a table of them, and plots of growth. Rows that a run has not measured stay as they were."""
import json
import re
import statistics

import plot
from figures import short_number, spread

GROWTH = re.compile(r"growth(?: (\w+))?, (\d+) (messages|sessions)")
PLOTS = [    # file, row's kind, of what, figure, title, y
    ("first-mbox", "mbox", "messages", "first open", "An mbox that was never seen before: connect to STAT", "seconds"),
    ("repeat-mbox", "mbox", "messages", "repeat open", "An mbox that has not changed: connect to STAT", "seconds"),
    ("list-mbox", "mbox", "messages", "STAT+LIST+UIDL", "An mbox that has not changed: connect, STAT, LIST, UIDL", "seconds"),
    ("first-maildir", "maildir", "messages", "first open", "A Maildir that was never seen before: connect to STAT", "seconds"),
    ("repeat-maildir", "maildir", "messages", "repeat open", "A Maildir that has not changed: connect to STAT", "seconds"),
    ("list-maildir", "maildir", "messages", "STAT+LIST+UIDL", "A Maildir that has not changed: connect, STAT, LIST, UIDL", "seconds"),
    ("memory", None, "sessions", "PSS in total", "Memory of sessions that wait (PSS)", "MiB"),
    ("logins", None, "sessions", "others log in", "Other sessions a second, while so many are held", "sessions a second"),
]
FIGURES = ["first open", "repeat open", "STAT+LIST+UIDL", "CPU", "PSS in total", "CPU a login", "others log in"]
SERVERS = ["postern", "dovecot", "dovecot-hp", "courier", "cyrus", "mailutils", "popa3d", "copy", "floor"]
HEAD = """# Figures

Made by `make bench BENCH_FLAGS=--record` (and `make bench BENCH="growth memory" BENCH_FLAGS=--record` for the last ones), on one machine: all
servers in one run, in turn, on loopback, mail in the page cache. Medians, and in brackets the least and the most. CPU time is the server's alone, all its processes together. What
each server is, and how it is set up, is in [tests/bench](../tests/bench): Debian's packages, passwords cheap for all alike. *floor* is no mail server:
one process that sends the same octets from memory, without login or disk. *copy* is the file system alone: the file copied and shifted with fsync.
Seconds are wall-clock time as the client sees it; on a busy machine the CPU time is the steadier figure. On a virtual machine, what was measured
while more than 2 % of the processors' time went to others is measured again, four times at most.

"""

GROWTH_HEAD = """Done in pieces (`--only mbox --sizes 1000000`, say), the largest of them while much other work ran on the same two cores:
compare within a row, and not down a column. A server whose open took longer than half a minute was not asked
for more messages. An empty field was not measured.
"""
MEMORY_HEAD = """What the worker and pop3d take of one large mailbox, from a process's birth to its most (VmHWM; *lingering*: what the worker keeps when
its session is over, RSS), and what of that grows with the messages *beside the catalogue*, which both share; that may be 64. *update* deletes every second message,
*update, all* every one.
"""


def merge(path, figures, facts):
    """The figures that were recorded, with those of this run in their place."""
    kept = json.loads(path.read_text()) if path.exists() else {"rows": []}
    rows = {(r["row"], r["figure"]): r for r in kept["rows"]}
    for key, by in figures.rows.items():
        words = figures.words.get(key, {})
        if key[0].startswith("growth") and key in rows:     # it is done in pieces, and not every one has every server
            before = rows[key]
            by = {**{s: v for s, v in before["values"].items() if s not in words}, **by}
            words = {**{s: w for s, w in before.get("words", {}).items() if s not in by}, **words}
        ratio, best = figures.ratio(key, by)
        rows[key] = {"row": key[0], "figure": key[1], "unit": figures.kinds[key][0], "better": figures.kinds[key][1], "date": facts["date"][:10],
            "verdict": figures.verdict(key, ratio), "ratio": ratio, "to": best,
            "values": {s: [float("%.4g" % x) for x in v] for s, v in by.items()}}
        if words:
            rows[key]["words"] = words
    return {"facts": {**facts, "servers": {**kept.get("facts", {}).get("servers", {}), **facts["servers"]}}, "rows": list(rows.values())}


def table(rows):
    names = [n for n in SERVERS if any(n in r["values"] or n in r.get("words", {}) for r in rows)]
    text = "| | |" + "".join(" %s |" % n for n in names) + " to the best other |\n| --- | --- |" + " ---: |" * len(names) + " --- |\n"
    for r in rows:
        cells = [spread(r["values"].get(n)) or r.get("words", {}).get(n, "") for n in names]
        ratio = "" if r["ratio"] is None else "%s of %s" % (short_number(r["ratio"]), r["to"])
        text += "| %s | %s, %s | %s | %s |\n" % (r["row"], r["figure"], r["unit"], " | ".join(cells), ratio)
    return text


def sections(rows):
    """Rows by their scenario, in the order in which these were first recorded."""
    order = {}
    for r in rows:
        order.setdefault(re.split(r"[ ,]", r["row"])[0], []).append(r)
    return order


def growth_order(row):
    """mbox, Maildir, sessions; each by size, and its figures as they came."""
    m = GROWTH.fullmatch(row["row"])
    return (["mbox", "maildir", None].index(m[1]), int(m[2]), FIGURES.index(row["figure"]))


def series(rows, kind, what, figure):
    found = {}
    for r in rows:
        m = GROWTH.fullmatch(r["row"])
        if m and m[1] == kind and m[3] == what and r["figure"] == figure:
            for server, values in r["values"].items():
                found.setdefault(server, []).append((int(m[2]), statistics.median(values)))
    return found


def write(docs, figures, facts):
    docs.mkdir(exist_ok=True)
    kept = merge(docs / "bench.json", figures, facts)
    (docs / "bench.json").write_text(json.dumps(kept, indent=0) + "\n")
    text = HEAD + "%(cpu)s, %(cores)d cores, Linux %(kernel)s; " % kept["facts"]
    text += ", ".join("%s %s" % (n, v) if v else n for n, v in kept["facts"]["servers"].items() if n != "floor") + ".\n"
    for name, rows in sections(kept["rows"]).items():
        if name != "growth":
            text += "\n## %s (%s)\n\n%s%s" % (name.capitalize(), max(r["date"] for r in rows), MEMORY_HEAD + "\n" if name == "memory" else "", table(rows))
    grown = sorted((r for r in kept["rows"] if r["row"].startswith("growth")), key=growth_order)
    if grown:
        text += "\n## Growth (%s)\n\n" % max(r["date"] for r in grown) + GROWTH_HEAD
        for name, kind, what, figure, title, y in PLOTS:
            lines = series(grown, kind, what, figure)
            if any(len(points) > 1 for points in lines.values()):
                (docs / ("bench-%s.svg" % name)).write_text(plot.svg(title, what, y, lines))
                text += "\n![%s](bench-%s.svg)\n" % (title, name)
        text += "\n" + table(grown)
    (docs / "bench.md").write_text(text)


def last(docs, facts):
    """Postern's figures that were recorded on a machine like this one; and when."""
    path = docs / "bench.json"
    kept = json.loads(path.read_text()) if path.exists() else None
    if kept is None or any(kept["facts"][k] != facts[k] for k in ("cpu", "cores")):
        return {}
    return {"%s/%s" % (r["row"], r["figure"]): statistics.median(r["values"]["postern"]) for r in kept["rows"] if "postern" in r["values"]}
