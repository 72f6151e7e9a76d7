"""Scenario crowd: 2,000 connections that wait before their login, and then 500 sessions besides: what each takes, and that others still get in.

Sessions are each of a user of its own with ten messages. PSS counts what processes share once: their sum is what the server takes, with its page
tables and the kernel's buffers left out. Descriptors are the process's that has the most.
"""
import os
import pathlib
import subprocess

import servers as sv
from growth import MANY

WAITING, SESSIONS = 2000, 500


def scenario(bench, smaps):
    server = next(s for s in bench.servers if s.name == "postern")
    waiting, sessions = (100, 25) if bench.options.short else (WAITING, SESSIONS)
    numbers = range(MANY, MANY + sessions)
    sv.accounts_add(numbers)
    server.users_add(numbers)
    for kind in sv.KINDS:
        crowd(bench, server, kind, waiting, sessions, smaps)


def facts(pids, smaps):
    """{name: (processes, KiB, most descriptors)}"""
    found = {}
    for pid in pids:
        m = smaps(pid)
        try:
            descriptors = len(os.listdir("/proc/%d/fd" % pid))
        except FileNotFoundError:
            continue
        count, size, most = found.get(m["name"], (0, 0, 0))
        found[m["name"]] = count + 1, size + m.get("Pss", 0), max(most, descriptors)
    return found


def total(found):
    return sum(size for _, size, _ in found.values())


def crowd(bench, s, kind, waiting, sessions, smaps):
    for n in [*range(MANY, MANY + sessions), *range(8)]:
        s.fill(kind, n, 10, 500)
    s.stop()
    s.start()
    before, clients = len(s.meter.pids()), []
    empty = facts(s.meter.pids(), smaps)
    try:
        add, row = bench.figures.add, "crowd %s, %d before login" % (kind, waiting)
        clients.append(bench.hold(s, sv.user(kind, ""), "wait", "-c", waiting))
        first = facts(s.meter.pids(), smaps)
        add(row, "PSS a connection", "KiB", "less", s.name, (total(first) - total(empty)) / waiting)
        add(row, "PSS in total", "MiB", "less", s.name, total(first) / 1024)
        add(row, "descriptors at most", "", "less", s.name, max(most for _, _, most in first.values()))
        others(bench, s, kind, row)
        row = "crowd %s, and %d sessions" % (kind, sessions)
        held = facts(s.meter.pids(), smaps)
        clients.append(bench.hold(s, sv.user(kind, ""), "hold", "-b", MANY, "-c", sessions))
        both = facts(s.meter.pids(), smaps)
        add(row, "PSS a session", "KiB", "less", s.name, (total(both) - total(held)) / sessions)
        add(row, "of that its worker", "KiB", "less", s.name, (both["worker"][1] - held.get("worker", (0, 0))[1]) / sessions)
        add(row, "PSS in total", "MiB", "less", s.name, total(both) / 1024)
        add(row, "processes", "", "less", s.name, sum(count for count, _, _ in both.values()))
        add(row, "descriptors at most", "", "less", s.name, max(most for _, _, most in both.values()))
        others(bench, s, kind, row)
    finally:
        for c in clients:
            c.stdin.close()
            c.wait()
        s.meter.settle(before)
        s.stop()
        s.start()
    subprocess.run(["sh", "-c", 'rm -rf "$1"/%s1????' % sv.KINDS[kind], "rm", str(pathlib.Path(s.maildrop(kind, MANY)).parent)], check=False)


def others(bench, s, kind, row):
    got = bench.run(s, sv.user(kind, ""), "poll", "-c", 8, "-n", 100)
    bench.figures.add(row, "others log in", "1/s", "more", s.name, got["sessions"] / got["seconds"])
