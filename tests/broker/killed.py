#!/usr/bin/env python3
"""A broker is killed by force at any moment of its life: all that was started for its machine ends with it, nobody keeps its standard output, and
the next `umbra ps` leaves nothing of its name.   usage: killed.py UMBRA GUEST TIMES [SEED]"""
import ctypes, os, random, select, signal, subprocess, sys, tempfile, time

import observed
from observed import all_of, expect, is_there, role_of, wait_for

umbra, guest, times = sys.argv[1], sys.argv[2], int(sys.argv[3])
seed = int(sys.argv[4]) if len(sys.argv) > 4 else random.randrange(1 << 30)
random.seed(seed)
print("# seed", seed)
ctypes.CDLL(None).prctl(36, 1, 0, 0, 0) # who has lost its parent is this process's child: so all of them are found
MOST_S = 1.5
LIVE_ON = {"switch", "hub", "balancer"} # they serve other machines, too


def reap():
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def here():
    reap()
    found = {pid: role_of(pid) for pid in all_of(os.getpid())[1:] if is_there(pid)}
    return {pid: role for pid, role in found.items() if role not in LIVE_ON and role != "gone"}


def has_ended(fd): # nobody is left who could write
    while select.select([fd], [], [], 0)[0]:
        if not os.read(fd, 4096):
            return True
    return False


def hold(pipe): # who has the pipe open
    name = os.readlink("/proc/self/fd/%d" % pipe)
    return {pid: role_of(int(pid)) for pid in os.listdir("/proc") if pid.isdigit() and int(pid) != os.getpid() and
            name in observed.descriptors(int(pid)).values()}


with tempfile.TemporaryDirectory() as where:
    os.environ["XDG_RUNTIME_DIR"] = where
    os.environ["XDG_CONFIG_HOME"] = os.path.join(where, "config")
    disk = os.path.join(where, "disk.raw")
    with open(disk, "wb") as f:
        f.truncate(1 << 20)
    wrong = []
    for turn in range(times):
        options = [["--net", "user"], ["--net", "switch=killed"], ["--serve", "shelf"], ["--disk", disk + ",format=raw"]]
        chosen = sum([o for o in options if random.random() < 0.5], [])
        reader, writer = os.pipe()
        broker = os.posix_spawn(umbra, [umbra, "run", "--name", "killed", "--kernel", guest, "--memory", "64M", "--console", "none"] + chosen, os.environ,
                                file_actions=[(os.POSIX_SPAWN_DUP2, writer, 1), (os.POSIX_SPAWN_DUP2, writer, 2),
                                              (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0)])
        os.close(writer)
        after = random.random() ** 2 * MOST_S
        time.sleep(after)
        os.kill(broker, signal.SIGKILL)
        ended = wait_for(lambda: has_ended(reader))
        gone = wait_for(lambda: not here())
        if not ended or not gone:
            wrong.append((turn, after, chosen, hold(reader), here()))
            print("#", wrong[-1], flush=True)
            for pid in here():
                os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not here())
        os.close(reader)
    expect("all that was started ends with each of %d" % times, not wrong, wrong)
    expect("umbra ps names none", subprocess.run([umbra, "ps", "--json"], capture_output=True, timeout=60).stdout.strip() == b"[]")
    held = os.path.join(where, "umbra", ".sockets-held") # of a machine whose name is gone; who held the place has left it since
    os.mkdir(held)
    subprocess.run([umbra, "ps"], capture_output=True, timeout=60)
    expect("nor of one whose name went first", not os.path.exists(held))
    left = [name for name in os.listdir(os.path.join(where, "umbra")) if "killed" in name and not name.startswith(".switch")]
    expect("and leaves nothing of them", not left, left)
    for pid in all_of(os.getpid())[1:]:
        os.kill(pid, signal.SIGKILL)
    reap()
sys.exit(observed.failed != 0)
