#!/usr/bin/env python3
"""umbra mcp as an agent has it: its handshake, each tool with a Linux guest that has umbra-agent, and what it refuses.   usage: mcp.py UMBRA AGENT"""
import base64, json, os, struct, subprocess, sys, tempfile, time

umbra, agent = (os.path.abspath(p) for p in sys.argv[1:3])
os.chdir(os.path.dirname(os.path.abspath(__file__)) + "/../..")
failed = serial = 0
work = tempfile.TemporaryDirectory()
env = dict(os.environ, XDG_RUNTIME_DIR=work.name)


def check(what, good, *more):
    global failed
    if not good:
        print("mcp:", what, *more)
        failed = 1


def send(line):
    server.stdin.write(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n")
    server.stdin.flush()


def hear():
    return json.loads(server.stdout.readline())


def ask(method, **parameters):
    global serial
    serial += 1
    send({"jsonrpc": "2.0", "id": serial, "method": method, "params": parameters})
    answer = hear()
    check(method, answer["jsonrpc"] == "2.0" and answer["id"] == serial, answer)
    return answer


def tool(of, **arguments):
    """(its texts, whether it failed)"""
    answer = ask("tools/call", name=of, arguments=arguments)
    if "result" not in answer:
        return [answer["error"]["message"]], answer["error"]["code"]
    result = answer["result"]
    check(of, all(c["type"] == "text" for c in result["content"]) and isinstance(result["isError"], bool), result)
    return [c["text"] for c in result["content"]], result["isError"]


def good(of, **arguments):
    texts, wrong = tool(of, **arguments)
    check(of, wrong is False, texts, wrong)
    return texts[0]


def picture_of(machine):
    """A PNG; False: it failed."""
    result = ask("tools/call", name="screenshot", arguments={"machine": machine})["result"]
    if result["isError"]:
        return False
    content, = result["content"]
    check("an image", (content["type"], content["mimeType"]) == ("image", "image/png"), str(content)[:200])
    return base64.b64decode(content["data"], validate=True)


def until(condition):
    end = time.time() + 120
    while time.time() < end:
        if condition():
            return
        time.sleep(0.05)
    print("mcp: waited in vain")
    sys.exit(1)


modules = ["build/guest/modules/%s.ko" % m for m in ("hv_vmbus", "hv_utils", "vsock", "hv_sock", "hyperv_fb")]
subprocess.run(["tools/fetch-guest", "tests/boot/exec.init", "build/guest/mcp.cpio.gz"] + modules + [agent], check=True)
server = subprocess.Popen([umbra, "mcp"], env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
try:
    # the handshake: a revision that it has, or its newest
    said = ask("initialize", protocolVersion="2025-03-26", capabilities={}, clientInfo={"name": "test", "version": "1"})["result"]
    check("revision", said["protocolVersion"] == "2025-03-26" and "tools" in said["capabilities"] and said["serverInfo"]["name"] == "umbra", said)
    check("another", ask("initialize", protocolVersion="1999-01-01", capabilities={})["result"]["protocolVersion"] == "2025-06-18")
    send({"jsonrpc": "2.0", "method": "notifications/initialized"})
    send({"jsonrpc": "2.0", "method": "no such notification"})
    check("ping", ask("ping")["result"] == {})
    tools = {row["name"]: row for row in ask("tools/list")["result"]["tools"]}
    check("tools", {"exec", "read_file", "write_file", "fork", "snapshot", "screenshot", "trace"} <= set(tools), tools)
    for row in tools.values():
        schema = row["inputSchema"]
        check("a schema", schema["type"] == "object" and schema["additionalProperties"] is False and set(schema["required"]) <= set(schema["properties"]), row)
    # what is no request
    for line, code in ((b"rubbish\n", -32700), (b"[]\n", -32600), (b'{"id":1,"method":"ping"}\n', -32600), (b'{"jsonrpc":"2.0","id":{},"method":"ping"}\n', -32600),
                       (b"{" + b" " * (5 << 20) + b"}\n", -32700), (b"\xff\n", -32700)):
        send(line)
        check("refused", hear()["error"]["code"] == code, line[:50])
    check("no method", ask("resources/list")["error"]["code"] == -32601)
    for of, arguments in (("nothing", {}), ("exec", {"machine": "one"}), ("exec", {"machine": "../x", "command": ["true"]}), ("exec", {"machine": "one", "command": "true"}),
                          ("exec", {"machine": "one", "command": []}), ("fork", {"machine": "one", "count": 0}), ("pause", {"machine": "one", "more": 1}),
                          ("snapshot", {"machine": "one", "file": "relative"}), ("exec", {"machine": "--help", "command": ["true"]}),
                          ("screenshot", {"machine": "one", "file": "/x"}), ("trace", {"machine": "one"}), ("trace", {"machine": "one", "seconds": 61})):
        check("wrong arguments", tool(of, **arguments)[1] == -32602, of, arguments)
    check("arguments that are none", ask("tools/call", name="ping", arguments=[])["error"]["code"] == -32602)
    # machines
    check("none runs", json.loads(good("list_machines")) == [])
    check("nobody", tool("exec", machine="one", command=["true"])[1] is True)
    said = subprocess.run([umbra, "run", "--detach", "--display", "--name", "one", "--time-limit", "600", "--kernel", "build/guest/vmlinuz", "--initrd", "build/guest/mcp.cpio.gz", "--memory", "256M",
                           "--append", "console=ttyS0 quiet"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    check("run", said.returncode == 0, said)
    check("one runs", [row["name"] for row in json.loads(good("list_machines"))] == ["one"])
    until(lambda: tool("exec", machine="one", command=["true"])[1] is False)
    check("info", json.loads(good("machine_info", machine="one"))["name"] == "one")
    check("exec", good("exec", machine="one", command=["echo", "-n", "a b", "--help"]) == "a b --help")
    check("input", good("exec", machine="one", command=["cat"], input="über\n") == "über\n")
    check("env", good("exec", machine="one", command=["sh", "-c", "echo $A"], env=["A=b"]) == "b\n")
    texts, wrong = tool("exec", machine="one", command=["sh", "-c", "echo out; echo err >&2; exit 3"])
    check("its code", wrong is True and texts == ["out\n", "err\n", "it ended with 3"], texts)
    texts, wrong = tool("exec", machine="one", command=["sleep", "1000"], timeout_seconds=1)
    check("its time", wrong is True and texts[-1] == "it was ended: its time is over", texts)
    texts, wrong = tool("exec", machine="one", command=["sh", "-c", "head -c 1500000 /dev/zero | tr '\\0' x"])
    check("more than fits", texts[-1] == "there was more" and len(texts[0]) == 1 << 20, len(texts[0]), texts[1:])
    # what it shows, once its guest has a driver for that
    texts, wrong = tool("screenshot", machine="one")
    check("nothing is shown yet", wrong is True and "hyperv_fb" in texts[1], texts)
    good("exec", machine="one", command=["insmod", "/bin/hyperv_fb.ko"])
    until(lambda: picture_of("one"))
    shown = picture_of("one")
    check("a whole picture", shown[:4] == b"\x89PNG" and struct.unpack_from(">II", shown, 16) == (1024, 768) and shown[-8:-4] == b"IEND", shown[:30])
    # what it does meanwhile
    rows = [json.loads(row) for row in good("trace", machine="one", seconds=1).splitlines()]
    check("a trace", any(row.get("kind") == "halt" for row in rows), rows[:3])
    rows = [json.loads(row) for row in good("trace", machine="one", seconds=1, kinds="interrupts").splitlines()]
    check("of one kind", rows and {row["kind"] for row in rows if "kind" in row} == {"interrupt"}, rows[:3])
    texts, wrong = tool("trace", machine="one", seconds=1, kinds="--chrome")
    check("no kinds", wrong is True and "--chrome" in texts[1], texts)
    text = "line\n" * 1000 + "ü"
    good("write_file", machine="one", path="/root/file", text=text)
    check("written", good("exec", machine="one", command=["wc", "-c", "/root/file"]).split()[0] == str(len(text.encode())))
    check("read", good("read_file", machine="one", path="/root/file") == text)
    check("no file", tool("read_file", machine="one", path="/nowhere")[1] is True)
    texts, wrong = tool("read_file", machine="one", path="/bin/busybox")
    check("no text", wrong is True and "no text" in texts[0], texts)
    # of one moment: what the child does its parent does not see
    check("fork", [row["name"] for row in json.loads(good("fork", machine="one", name="two"))] == ["two"])
    until(lambda: tool("exec", machine="two", command=["true"])[1] is False)
    good("write_file", machine="two", path="/root/file", text="two")
    check("apart", good("read_file", machine="one", path="/root/file") == text and good("read_file", machine="two", path="/root/file") == "two")
    good("pause", machine="two")
    good("resume", machine="two")
    good("stop", machine="two")
    saved = os.path.join(work.name, "saved")
    good("snapshot", machine="one", file=saved)
    check("once", tool("snapshot", machine="one", file=saved)[1] is True)
    good("exec", machine="one", command=["rm", "/root/file"])
    good("restore", name="back", file=saved)
    until(lambda: tool("exec", machine="back", command=["true"])[1] is False)
    check("as it was", good("read_file", machine="back", path="/root/file") == text)
    check("both", sorted(row["name"] for row in json.loads(good("list_machines"))) == ["back", "one"])
    # its end is that of its input, and machines run on
    server.stdin.close()
    check("its end", server.wait(60) == 0)
    check("they run on", subprocess.run([umbra, "info", "one"], env=env, capture_output=True).returncode == 0)
finally:
    server.kill()
    for name in ("one", "two", "back"):
        subprocess.run([umbra, "kill", name], env=env, capture_output=True)
sys.exit(failed)
