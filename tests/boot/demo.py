#!/usr/bin/env python3
"""umbra demo --small on a host without any image: it gets a kernel through apt, as whoever it is, and there is a shell of the guest on the terminal; the
second time nothing is got; where apt has nothing, or Debian cannot be built, it says so. Debian itself: debian.py.   usage: demo.py UMBRA"""
import os, pty, select, subprocess, sys, tempfile, time

umbra = os.path.abspath(sys.argv[1])
failed = 0
work = tempfile.TemporaryDirectory()
os.chmod(work.name, 0o777)
env = dict(os.environ, XDG_CACHE_HOME=os.path.join(work.name, "cache"), XDG_RUNTIME_DIR=work.name)


def check(what, good, *more):
    global failed
    if not good:
        print("demo:", what, *more)
        failed = 1


def session(*words, seconds=200):
    """(exit code, what was on the terminal, what was said beside it)"""
    master, slave = pty.openpty()
    process = subprocess.Popen([umbra, "demo", "--small", "--time-limit", "250", *words], env=env, stdin=slave, stdout=slave, stderr=subprocess.PIPE, start_new_session=True)
    os.close(slave)
    text, end, wrote = b"", time.time() + seconds, 0
    script = [(b"umbra guest # ", b"echo $((6*7)) $(nproc) $(uname -r)\n"), (b"\n42 ", b"poweroff -f\n")]
    while time.time() < end:
        if select.select([master], [], [], 0.1)[0]:
            try:
                text += os.read(master, 4096)
            except OSError:
                break  # it has ended
        if wrote < len(script) and script[wrote][0] in text:
            os.write(master, script[wrote][1])
            wrote += 1
        if process.poll() is not None and not select.select([master], [], [], 0)[0]:
            break
    process.kill() if process.poll() is None and time.time() >= end else process.wait(30)
    os.close(master)
    return process.wait(), text.replace(b"\r", b"").decode(errors="replace"), process.stderr.read().decode(errors="replace")


code, text, said = session("--cpus", "2")
check("a shell", code == 0 and "\n42 2 6." in text and "Hyper-V" in text, code, text[-1500:], said)
check("it was got", "getting Debian's kernel" in said, said)
files = os.listdir(os.path.join(work.name, "cache/umbra/demo"))
check("what is left", {"vmlinuz", "busybox", "initrd"} <= set(files) <= {"vmlinuz", "busybox", "initrd", "lock", "log"}, files)
code, text, said = session()
check("again, and nothing is got", code == 0 and "\n42 1 6." in text and "getting" not in said, code, text[-1500:], said)
help_text = subprocess.run([umbra, "demo", "--help"], env=env, capture_output=True, text=True)
check("help", help_text.returncode == 0 and "usage: umbra demo" in help_text.stdout, help_text)
# no lists, no network: one line, and nothing that would be taken for a kernel
os.mkdir(os.path.join(work.name, "empty"))
with open(os.path.join(work.name, "apt.conf"), "w") as f:
    f.write('Dir::State::lists "%s/empty";\nDir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\nDir::Etc::sourcelist "/dev/null";\nDir::Etc::sourceparts "%s/empty";\n' % (work.name, work.name))
without = subprocess.run([umbra, "demo", "--small"], env=dict(env, APT_CONFIG=os.path.join(work.name, "apt.conf"), XDG_CACHE_HOME=os.path.join(work.name, "other")),
                         stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
check("no lists", without.returncode == 65 and without.stderr.count("\n") == 1 and "apt-get update" in without.stderr, without)
# a tree that is none: one line says so, and no disk is left
without = subprocess.run([umbra, "demo"], env=dict(env, DEMO_TREE="/dev/null"), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=100)
check("no Debian", without.returncode == 65 and without.stderr.count("\n") == 2 and "a folder or a tar" in without.stderr, without)
check("no disk is left", not [n for n in os.listdir(os.path.join(work.name, "cache/umbra/demo")) if "vhdx" in n])
sys.exit(failed)
