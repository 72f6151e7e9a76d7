"""Hands numbered messages to a delivery agent, one process of it after the other, with some of them at a time.

usage: deliver.py PLAN      (JSON: argv, first, last, env, identity, at_once, pace, seconds)

`identity` is [uid, gid, groups] to run the agent as. Its exit status 75 (EX_TEMPFAIL) means: not now, and it is asked again, as
a mail server would. Prints the number of each message that the agent says it has delivered. `pace` seconds pass between
two that come in: agents that all came at once, and sleep equally long where it is locked, would meet each other again and again.
After `seconds` no more come in.
"""
import json
import os
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numbered  # noqa: E402

TRIES = 20


def deliver(plan, number):
    how = {"env": {**os.environ, **plan.get("env", {})}}
    if plan.get("identity"):
        uid, gid, groups = plan["identity"]
        how.update(user=uid, group=gid, extra_groups=groups, umask=0o077)
    for _ in range(TRIES):
        done = subprocess.run(plan["argv"], input=numbered.message(number), capture_output=True, timeout=3600, **how)
        if done.returncode != 75:
            break
    if done.returncode != 0:
        sys.exit("%s: message %d: status %d\n%s" % (plan["argv"], number, done.returncode,
                 (done.stdout + done.stderr).decode(errors="replace")))
    sys.stdout.write("%d\n" % number)
    sys.stdout.flush()


def main():
    plan = json.loads(sys.argv[1])
    numbers = iter(range(plan["first"], plan["last"]))
    lock, failed = threading.Lock(), []
    until = time.monotonic() + plan.get("seconds", 1e9)

    def work():
        try:
            while not failed:
                with lock:
                    number = next(numbers, None) if time.monotonic() < until else None
                    time.sleep(plan.get("pace", 0))
                if number is None:
                    return
                deliver(plan, number)
        except BaseException as e:
            failed.append(e)

    threads = [threading.Thread(target=work) for _ in range(plan.get("at_once", 2))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        sys.exit(str(failed[0]))


if __name__ == "__main__":
    main()
