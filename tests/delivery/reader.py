"""Mutt on a terminal of its own, again and again until standard input ends: moves what is for the reader to ~/saved, marks the rest
as old, and so rewrites the mbox each time. Prints a line for each round.

Mutt now and then waits without end for a dotlock that it has made itself: one that does so for a minute is killed, and that lock removed
as mutt would.

usage: reader.py MBOX HOME
"""
import os
import pty
import select
import signal
import subprocess
import sys
import time

PATIENCE = 60       # seconds

RC = """set quit=yes delete=yes move=no mark_old=yes mbox_type=mbox confirmappend=no confirmcreate=no copy=no wait_key=no
set folder="~" header_cache="" mail_check=0 timeout=1 sleep_time=0 beep=no
push "<tag-pattern>~s reader<enter><tag-prefix-cond><save-message>=saved<enter><end-cond><sync-mailbox><quit>"
"""


def once(mbox, home):
    pid, terminal = pty.fork()
    if pid == 0:
        os.environ.update(HOME=home, TERM="vt100", LC_ALL="C")
        os.execv("/usr/bin/mutt", ["mutt", "-n", "-F", home + "/muttrc", "-f", mbox])
    screen, begun, killed = b"", time.monotonic(), False
    try:
        while True:
            if not killed and time.monotonic() > begun + PATIENCE and is_own_lock(mbox):
                os.kill(pid, signal.SIGKILL)
                killed = True
            if not select.select([terminal], [], [], 1)[0]:
                # it forgets what it was told to do when it finds the mailbox changed: abort, if it asks something, and quit
                os.write(terminal, b"\x07q")
                continue
            data = os.read(terminal, 65536)
            if not data:
                break
            screen = (screen + data)[-4000:]
    except OSError:
        pass        # a terminal without a process is an error
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if killed:
        subprocess.run(["/usr/bin/mutt_dotlock", "-p", "-u", mbox], check=False)
        status = 0
    return status, screen


def is_own_lock(mbox):
    """Is there a dotlock of mutt's helper, which has ended long ago?"""
    try:
        with open(mbox + ".lock") as f:
            pid = f.read().strip()
        return os.stat(mbox + ".lock").st_uid == os.getuid() and pid.isdigit() and int(pid) > 0 and not os.path.exists("/proc/" + pid)
    except OSError:
        return False


def main():
    mbox, home = sys.argv[1:]
    with open(home + "/muttrc", "w") as f:
        f.write(RC)
    rounds = 0
    while not select.select([0], [], [], 0)[0]:
        if not os.path.exists(mbox) or os.path.getsize(mbox) == 0:
            if select.select([0], [], [], 0.01)[0]:
                break
            continue
        status, screen = once(mbox, home)
        if status != 0:
            sys.exit("mutt: %d: %r" % (status, screen))
        rounds += 1
        print(rounds, flush=True)


if __name__ == "__main__":
    main()
