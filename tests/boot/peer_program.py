"""A program of tests/boot, in C, that a guest runs: made anew when its source is younger. Tests that run at once may make it at once."""
import os, subprocess


def make(source):
    """From the top of the tree. Its path."""
    program = "build/guest/" + os.path.basename(source)[:-len(".c")]
    if not os.path.exists(program) or os.path.getmtime(program) < os.path.getmtime(source):
        mine = "%s.%d" % (program, os.getpid())
        subprocess.run(["cc", "-O2", "-static", "-o", mine, source], check=True)
        os.rename(mine, program)
    return program
