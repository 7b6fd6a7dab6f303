#!/usr/bin/env python3
"""Completions of every shell name every verb and its options; bash and fish can read and run
theirs, zsh can read its. Every verb stands in umbra(1) or has a page, and
every one answers --help. usage: completion.py UMBRA"""
import os, re, subprocess, sys, tempfile

umbra, failed = sys.argv[1], 0


def check(what, good, *more):
    global failed
    if not good:
        print("completion:", what, *more)
        failed = 1


def output(*words):
    return subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)


verbs = [line.split("\t")[0] for line in output(umbra, "--verbs").stdout.splitlines()]
check("verbs", len(verbs) > 15 and "run" in verbs, verbs)
manual = open("man/umbra.1").read().replace("\\-", "-")
said = {shell: output("tools/completion", umbra, shell).stdout for shell in ("bash", "zsh", "fish")}
for verb in verbs:
    check(verb + " --help", output(umbra, verb, "--help").returncode == 0)
    if verb != "demo": # a program of its own
        words = {"disk": ["disk", "create"], "image": ["image", "get"]}.get(verb, [verb])
        wrong = subprocess.run([umbra, *words, "--json=x", "--no-such-option"], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        check(verb + " with a wrong option", wrong.returncode == 64 and re.fullmatch("umbra: --(json|no-such-option): [^;]+; see umbra [a-z]+ --help\n", wrong.stderr), wrong)
    check(verb + " has no manual", "umbra " + verb in manual or os.path.exists("man/umbra-%s.1" % verb))
    for shell, text in said.items():
        check("%s does not know %s" % (shell, verb), verb in text.split() or "'%s:" % verb in text or "\t%s)" % verb in text)
for shell, text in said.items():
    check(shell + " knows options", "time-limit" in text and "suspend-parent" in text)
run = subprocess.run(["bash", "-c", said["bash"] + """
COMP_WORDS=(umbra disk re); COMP_CWORD=2; _umbra; echo ${COMPREPLY[@]}
COMP_WORDS=(umbra ru); COMP_CWORD=1; _umbra; echo ${COMPREPLY[@]}
COMP_WORDS=(umbra save --re); COMP_CWORD=2; _umbra; echo ${COMPREPLY[@]}
"""], capture_output=True, text=True)
lines = run.stdout.splitlines()
check("bash", len(lines) == 3 and "resize" in lines[0] and lines[1] == "run" and "--replace" in lines[2], run)
with tempfile.NamedTemporaryFile("w") as file:
    file.write(said["fish"])
    file.flush()
    run = subprocess.run(["fish", "--no-config", "-c", "source %s; for w in 'disk re' ru 'save --re'; string join -- ' ' (complete -C \"umbra $w\"); end" % file.name],
                         env=dict(os.environ, PATH=os.path.dirname(os.path.abspath(umbra)) + ":" + os.environ["PATH"]), capture_output=True, text=True)
    lines = run.stdout.splitlines()
    check("fish", len(lines) == 3 and "resize" in lines[0] and lines[1].startswith("run\t") and "--replace" in lines[2], run)
run = subprocess.run(["zsh", "-f", "-n"], input=said["zsh"], capture_output=True, text=True)
check("zsh", run.returncode == 0 and not run.stderr, run)
sys.exit(failed)
