"""Hands numbered messages to a delivery agent, one process of it after the other, with some of them at a time.

usage: deliver.py PLAN      (JSON: argv, first, last, env, identity, at_once)

`identity` is [uid, gid, groups] to run the agent as. Its exit status 75 (EX_TEMPFAIL) means: not now, and it is asked again, as
a mail server would. Prints the number of each message that the agent says it has delivered.
"""
import json
import os
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import numbered  # noqa: E402

TRIES = 20


def deliver(plan, number):
    how = {"env": {**os.environ, **plan.get("env", {})}}
    if plan.get("identity"):
        uid, gid, groups = plan["identity"]
        how.update(user=uid, group=gid, extra_groups=groups, umask=0o077)
    for _ in range(TRIES):
        done = subprocess.run(plan["argv"], input=numbered.message(number), capture_output=True, timeout=300, **how)
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

    def work():
        try:
            while not failed:
                with lock:
                    number = next(numbers, None)
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
