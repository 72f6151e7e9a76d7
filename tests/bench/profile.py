#!/usr/bin/python3
"""Where Postern's time goes: one scenario of the bench's client, and the CPU time of each of the three programs by itself.

    profile.py [--build DIR] [--tls] [--rounds N] [--perf PROGRAM | --strace PROGRAM | --faults PROGRAM] [SCENARIO]

SCENARIO is poll (default; one client after another), idle (memory), or what tests/bench/client.c knows, on one mailbox (--messages, --octets, --kind). See PROFILE.md.
Needs root, as bench.py does. What perf or strace found goes to BUILD/bench/profile.
"""
import argparse
import json
import os
import pathlib
import shutil
import signal
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import bench as b  # noqa: E402
import servers as sv  # noqa: E402
import stage  # noqa: E402
import tls  # noqa: E402

PROGRAMS = ("pop3d", "authd", "spoold")


def split(kind):
    """The server class with a control group a program."""
    class Split(kind):
        name = "postern"

        def run(self, argv, as_user=None):
            program = pathlib.Path(argv[0]).name
            self.meters = getattr(self, "meters", {})
            if program not in self.meters:
                self.meters[program] = sv.Meter(self.name + "-" + program)
            whole, self.meter = self.meter, self.meters[program]
            try:
                process = super().run(argv, as_user)
            finally:
                self.meter = whole
            self.processes = dict(getattr(self, "processes", {}), **{program: process})
            return process

        def stop(self):
            for meter in getattr(self, "meters", {}).values():
                meter.remove()
            self.meters = {}
            super().stop()
    return Split


def settle(server, before):
    for name, meter in server.meters.items():
        meter.settle(before[name])


def measure(server, client, args):
    before = {n: len(m.pids()) for n, m in server.meters.items()}
    start = {n: m.milliseconds() for n, m in server.meters.items()}
    done = subprocess.run([client, "-p", str(server.tls_port if "tls" in client else server.port), "-w", sv.PASSWORD, *map(str, args)],
        capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(done.stderr + (server.dir / "log").read_text(errors="replace")[-3000:])
    settle(server, before)
    figures = json.loads(done.stdout.splitlines()[-1])
    return figures, {n: m.milliseconds() - start[n] for n, m in server.meters.items()}


def watch(o, server):
    """perf or strace beside one of the programs, or None."""
    into = o.build / "bench/profile"
    into.mkdir(parents=True, exist_ok=True)
    program = o.perf or o.strace or o.faults
    if program is None:
        return None
    pid = server.processes[program].pid
    if o.strace:    # those that were forked ahead, too
        pids = [x for p in server.meters[program].pids() for x in ("-p", p)]
        argv = ["strace", "-f", "-q", "-o", into / "strace", *(["-c", "-w"] if o.count else ["-r"]), *pids]
    elif o.faults:
        argv = ["perf", "stat", "-e", "page-faults,context-switches,instructions:u,instructions:k", "-o", into / "stat", "-p", pid]
    else:
        group = str(server.meters[program].dir).split("/sys/fs/cgroup/")[1].split("/")[-1]
        argv = ["perf", "record", "-q", "-F", "20000", "-g", "-a", "-e", "cpu-clock", "-G", group, "-o", into / "perf.data"]
    process = subprocess.Popen([str(x) for x in argv])
    time.sleep(1)
    return process


def options_parse():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("scenario", nargs="?", default="poll")
    p.add_argument("--build", type=pathlib.Path, default=pathlib.Path("build"))
    p.add_argument("--work", type=pathlib.Path)
    p.add_argument("--tls", action="store_true")
    p.add_argument("--kind", default="mbox", choices=sv.KINDS)
    p.add_argument("--messages", type=int, default=1000)
    p.add_argument("--octets", type=int, default=4096)
    p.add_argument("--sessions", type=int, default=400)
    p.add_argument("--clients", type=int, default=1)
    p.add_argument("--depth", type=int, default=1)
    p.add_argument("--rounds", type=int, default=5)
    p.add_argument("--perf", choices=PROGRAMS)
    p.add_argument("--strace", choices=PROGRAMS)
    p.add_argument("--count", action="store_true", help="strace -c")
    p.add_argument("--faults", choices=PROGRAMS)
    p.add_argument("--shell", action="store_true")
    o = p.parse_args()
    o.build = o.build.resolve()
    o.work = (o.work or o.build / "bench/work").resolve()
    if o.tls:
        o.kind = "maildir"
    return o


def memory(server, client, scenario, user, connections):
    """Kibibytes of PSS a connection, by program: before login (greet) or in an idle session (idle)."""
    def pss():
        return {n: sum(b.smaps(pid).get("Pss", 0) for pid in m.pids()) for n, m in server.meters.items()}
    before, pids = pss(), {n: len(m.pids()) for n, m in server.meters.items()}
    held = subprocess.Popen([client, "-p", str(server.port), "-u", user, "-w", sv.PASSWORD, "-c", str(connections), scenario],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    held.stdout.readline()
    print({n: round((v - before[n]) / connections, 1) for n, v in pss().items()})
    held.stdin.close()
    held.wait()
    settle(server, pids)


def main():
    o = options_parse()
    server = split(tls.Postern if o.tls else sv.Postern)(o.build)
    stage.enter(o.work, [], sv.etc_write, server.folders)
    client = shutil.copy(o.build / ("bench/tls_client" if o.tls else "bench/client"), "/srv/")
    try:
        for kind in sv.KINDS:
            for n in range(sv.USERS):
                home = sv.SRV / "home" / sv.user(kind, n)
                home.mkdir(parents=True, exist_ok=True)
                os.chown(home, sv.uid(kind, n), sv.uid(kind, n))
        server.prepare()
        if o.tls:
            server.use("P-256")
        else:
            server.start()
        for n in range(32):
            server.fill(o.kind, n, 20, 2200)
        args = ["-u", sv.user(o.kind, ""), "-c", o.clients, "-n", o.sessions, o.scenario]
        if o.scenario in ("poll", "greet", "idle"):
            measure(server, client, ["-u", sv.user(o.kind, ""), "-c", 32, "-n", 64, "poll"])
        else:
            server.fill(o.kind, sv.BIG, o.messages, o.octets)
            user = sv.user(o.kind, sv.BIG)
            measure(server, client, ["-u", user, "open" if not o.tls else "retr"])
            args = ["-u", user, "-d", o.depth, o.scenario]
        if o.scenario == "idle":
            return memory(server, client, "hold", sv.user(o.kind, ""), 32)
        if o.shell:
            return subprocess.run([os.environ.get("SHELL", "/bin/sh")])
        beside, rounds = watch(o, server), []
        for _ in range(o.rounds):
            figures, cpu = measure(server, client, args)
            rounds.append((figures, cpu))
            count = figures.get("sessions", 1)
            print(json.dumps({**{n: round(v / count, 3) for n, v in cpu.items()}, "all": round(sum(cpu.values()) / count, 3),
                "seconds": round(figures["seconds"], 3), **{k: figures[k] for k in ("bytes", "messages", "sessions") if k in figures}}), flush=True)
        if beside is not None:
            beside.send_signal(signal.SIGINT)
            beside.wait()
        print("median", {n: round(statistics.median(c[n] / f.get("sessions", 1) for f, c in rounds), 3) for n in PROGRAMS},
            round(statistics.median(sum(c.values()) / f.get("sessions", 1) for f, c in rounds), 3), "ms CPU; least",
            {n: round(min(c[n] / f.get("sessions", 1) for f, c in rounds), 3) for n in PROGRAMS})
    finally:
        server.stop()
        for path in sv.SRV.iterdir():
            shutil.rmtree(path) if path.is_dir() else path.unlink()


if __name__ == "__main__":
    main()
