#!/usr/bin/env python3
"""A stock Debian with its own cloud-init, and nothing of Umbra's in its image: the seed of --user-data and --ssh-key is all that it hears. cloud-init finds it, does
what it says, and installs the agent, by which everything else is asked. A second start with the same seed is the same instance, one with other data another one.
cloud_init.py UMBRA. Its Debian is made once (build/guest/cloud-tree.tar, or $DEBIAN_TREE), in minutes."""
import os, subprocess, sys, tempfile, time

umbra = os.path.abspath(sys.argv[1])
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
tree = os.environ.setdefault("DEBIAN_TREE", os.path.abspath("build/guest/cloud-tree.tar"))
subprocess.run(["tests/image/debian-tree", "cloud-init"], check=True, stdout=subprocess.DEVNULL)
work = tempfile.TemporaryDirectory(dir="build")
env = dict(os.environ, XDG_RUNTIME_DIR=os.path.abspath(work.name))
failed = 0
MOST_S = 900


def check(what, good, *more):
    global failed
    if not good:
        print("cloud-init:", what, *more)
        failed = 1
    return good


def path(name):
    return os.path.join(work.name, name)


def write(name, text):
    with open(path(name), "w") as f:
        f.write(text)


def run(*words):
    return subprocess.run([umbra, *words], env=env, stdin=subprocess.DEVNULL, capture_output=True, timeout=MOST_S)


def guest(text):
    r = run("exec", "-T", "cloud", "--", "sh", "-c", text)
    return (r.stdout + r.stderr).decode(errors="replace").strip()


def runs():
    return run("info", "cloud").returncode == 0


def until(what, good):
    end = time.time() + MOST_S
    while not good():
        if time.time() > end or not runs():
            with open(path("umbra/.console-cloud"), "rb") as f:
                sys.exit("cloud-init: waited in vain: %s: %s" % (what, f.read().decode(errors="replace")[-3000:]))
        time.sleep(0.2)


def start(data):
    r = run("run", "--detach", "--name", "cloud", "--memory", "1G", "--net", "user", "--user-data", path(data), "--ssh-key", path("key.pub"), path("d.vhdx"))
    if not check("it begins", r.returncode == 0, r):
        sys.exit(1)
    until("the agent answers", lambda: run("exec", "-T", "cloud", "--", "true").returncode == 0)
    said = guest("cloud-init status --wait --long; tail -n 30 /var/log/cloud-init-output.log")
    check("cloud-init has done it", "status: done" in said, said)


def stop():
    run("stop", "cloud")
    end = time.time() + MOST_S
    while runs() and time.time() < end:
        time.sleep(0.1)


def first():
    start("data")
    said = guest("cloud-id; hostname; cat /etc/said /root/times; stat -c %a /etc/said; cat /root/.ssh/authorized_keys /home/*/.ssh/authorized_keys")
    lines = said.split("\n")
    check("what the data say", lines[:5] == ["nocloud", "cloud", "it was said", "first", "640"], said)
    with open(path("key.pub")) as f:
        check("the key", f.read().split()[1] in said, said)
    instance = guest("cat /var/lib/cloud/data/instance-id")
    check("an instance", instance.startswith("umbra-"), instance)
    check("the agent is the seed's", guest("systemctl is-enabled umbra-agent && ls /usr/local/sbin/umbra-agent").split() == ["enabled", "/usr/local/sbin/umbra-agent"])
    stop()
    return instance


def again(instance):
    start("data")
    check("the same instance", guest("cat /var/lib/cloud/data/instance-id") == instance)
    check("nothing is done twice", guest("cat /root/times") == "first")
    stop()
    start("other")
    check("another instance", guest("cat /var/lib/cloud/data/instance-id") not in ("", instance))
    check("what the other data say", guest("cat /root/times").split() == ["first", "second"])
    stop()


subprocess.run([umbra, "image", "build", tree, path("d.vhdx"), "--size", "4G", "--agent", "none"], check=True)
subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path("key")], check=True)
write("data", "#cloud-config\nlocale: false\nwrite_files:\n- {path: /etc/said, content: \"it was said\\n\", permissions: '0640'}\nruncmd:\n- echo first >>/root/times\n")
write("other", "#cloud-config\nlocale: false\nruncmd:\n- echo second >>/root/times\n")
try:
    again(first())
finally:
    run("kill", "cloud")
sys.exit(failed)
