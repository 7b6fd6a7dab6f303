"""What the tests that look at processes from outside share: expectations, and files of /proc."""
failed = 0


def expect(what, good, detail=""):
    global failed
    print("ok  " if good else "FAIL", what, "" if good else detail)
    failed += not good


def read(pid, name):
    with open("/proc/%d/%s" % (pid, name), "rb") as f:
        return f.read().decode(errors="replace")
