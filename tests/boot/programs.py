#!/usr/bin/env python3
"""Programs that a translator finds hard, in a Debian of four processors, each beside an oracle of its own: programs.py UMBRA PART...
   stress     stress-ng --verify: every stressor of the classes cpu, memory, vm and interrupt, four of each at once, $STRESS_SECONDS in all (600)
   jits       node, OpenJDK and LuaJIT write code while they run: what they print is what they print without (--jitless, -Xint, -joff)
   debugger   gdb steps, stops and watches beside a load: each change of the variable is seen once, with its value
   tracing    ftrace and kprobes are switched on and off, by which the kernel rewrites its own code, while it is used: what was counted is what was done
After each the kernel has complained of nothing."""
import os, re, sys

umbra, parts = os.path.abspath(sys.argv[1]), sys.argv[2:]
from programs_machine import Machines

STRESS_SECONDS = int(os.environ.get("STRESS_SECONDS", "600"))
machines = Machines("programs", umbra)
check = machines.check


def guest(text, *seconds):
    return machines.guest("programs", text, *seconds)


def put(file, text):
    machines.put("programs", file, text)


def kernel_is_well(what, but=None):
    machines.kernel_is_well("programs", what, but)


# ---- stress-ng ----

# What is made to fault on purpose says so in the kernel's log.
ON_PURPOSE = r"stress-ng"
CLASSES = ("cpu", "memory", "vm", "interrupt")


def stressors(kind):
    said, status = guest("stress-ng --class %s?" % kind)
    return re.sub(r".*?:", "", said.split("\n")[-1]).split()


def part_stress():
    rows = sorted({s for kind in CLASSES for s in stressors(kind)})
    check("it has stressors", len(rows) > 50, rows)
    each = max(1, STRESS_SECONDS // max(1, len(rows)))
    tried = 0
    for name in rows:
        said, status = guest("cd /tmp && stress-ng --%s 4 --timeout %ds --verify --oomable --metrics-brief 2>&1" % (name, each), 300 + 20 * each)
        # 0: passed, 3: cannot be started here, 4: not implemented on this kernel or processor; some it begins only where told that they may hang any kernel
        left_out = "disabled '%s'" % name in said
        check("stress-ng --%s" % name, left_out or status in (0, 3, 4) and "fail:" not in said, status, said[-1500:])
        tried += status == 0
    print("stress-ng: %d of %d stressors ran, %d s each" % (tried, len(rows), each), flush=True)
    check("most of them can run", tried > len(rows) * 2 // 3, tried)
    kernel_is_well("stress", ON_PURPOSE)


# ---- who writes code ----

NODE = """
function mix(h, x) { return Math.imul(h ^ x, 16777619) >>> 0; }
function sieve(n) { const a = new Uint8Array(n); let c = 0; for (let i = 2; i < n; i++) { if (a[i]) continue; c++; for (let j = i * i; j < n; j += i) a[j] = 1; } return c; }
class Shape { area() { return 0; } } class Square extends Shape { constructor(s) { super(); this.s = s; } area() { return this.s * this.s; } }
class Disc extends Shape { constructor(r) { super(); this.r = r; } area() { return Math.floor(3 * this.r * this.r); } }
let h = 2166136261;
h = mix(h, sieve(200000));
const shapes = []; for (let n = 0; n < 20000; n++) shapes.push(n % 3 ? new Square(n % 97) : new Disc(n % 89));
for (let round = 0; round < 10; round++) for (const s of shapes) h = mix(h, s.area());
// types that change under code that was made for others
function add(a, b) { return a + b; }
for (let n = 0; n < 30000; n++) h = mix(h, add(n, n * 2));
for (let n = 0; n < 3000; n++) h = mix(h, add("x" + n, "y").length);
for (let n = 0; n < 3000; n++) h = mix(h, Math.floor(add(n + 0.5, 0.25) * 4));
for (let n = 0; n < 300; n++) { const f = new Function("a", "return a * " + n + " + (a >> " + (n % 31) + ") | 0"); for (let k = 0; k < 50; k++) h = mix(h, f(k)); }
const text = JSON.stringify(Array.from({length: 2000}, (_, n) => ({n, s: "v" + n}))); h = mix(h, JSON.parse(text).length); h = mix(h, (text.match(/v[0-9]*7"/g) || []).length);
let b = 1n; for (let n = 1n; n < 200n; n++) b *= n; h = mix(h, Number(b % 1000000007n));
console.log(h);
"""
LUA = """
local bit = require "bit"
local h = 5381
local function mix(x) h = bit.bxor(bit.tobit(h * 33), bit.tobit(x)) end
for n = 1, 300000 do mix(n % 977 + bit.band(n, 255)) end
local t = {} for n = 1, 20000 do t[n] = (n * 7919) % 20011 end table.sort(t) for n = 1, #t do mix(t[n]) end
local function fib(n) if n < 2 then return n end return fib(n - 1) + fib(n - 2) end mix(fib(24))
for n = 1, 200 do local f = loadstring("local a = ... return (a * " .. n .. ") % 8191") for k = 1, 100 do mix(f(k)) end end
for n = 1, 2000 do mix(#string.rep("ab", n % 50) + (string.find("xxxxab" .. n, "ab%d+") or 0)) end
print(h)
"""
JAVA = """
import java.util.*; import java.util.concurrent.*; import java.util.stream.*;
public class Work {
  interface Op { long of(long a); }
  static long mix(long h, long x) { return (h ^ x) * 1099511628211L; }
  static long piece(int seed) {
    long h = seed; Op[] ops = { a -> a + 1, a -> a * 3, a -> a ^ (a >>> 7), a -> Long.rotateLeft(a, 5) };
    for (int n = 0; n < 60000; n++) h = mix(h, ops[n & 3].of(n));
    Map<Integer, Integer> map = new HashMap<>(); for (int n = 0; n < 20000; n++) map.merge(n * 31 % 4001, n, Integer::sum);
    for (int k : new TreeSet<>(map.keySet())) h = mix(h, map.get(k));
    int[] a = new Random(seed).ints(20000, 0, 1 << 20).toArray(); Arrays.sort(a); for (int x : a) h = mix(h, x);
    double d = 0; for (int n = 1; n < 40000; n++) d += 1.0 / n / n; h = mix(h, Double.doubleToLongBits(d));
    StringBuilder s = new StringBuilder(); for (int n = 0; n < 3000; n++) s.append(n % 10); h = mix(h, s.toString().hashCode());
    try { int[] none = new int[1]; for (int n = 0; n < 2000; n++) try { none[n & 1] = n; } catch (ArrayIndexOutOfBoundsException e) { h = mix(h, n); } } finally { h = mix(h, 7); }
    return h;
  }
  public static void main(String[] args) throws Exception {
    ExecutorService pool = Executors.newFixedThreadPool(4); List<Future<Long>> all = new ArrayList<>();
    for (int n = 0; n < 12; n++) { int seed = n; all.add(pool.submit(() -> piece(seed))); }
    long h = 17; for (Future<Long> f : all) h = mix(h, f.get()); pool.shutdown();
    h = mix(h, IntStream.range(0, 200000).parallel().mapToLong(n -> (long) n * n % 7).sum());
    System.out.println(h);
  }
}
"""
JITS = {
    "node": ("node /tmp/work.js", "node --jitless /tmp/work.js"),
    "LuaJIT": ("luajit -jon -O3 /tmp/work.lua", "luajit -joff /tmp/work.lua"),
    "OpenJDK": ("java -cp /tmp -XX:+UseParallelGC Work", "java -cp /tmp -Xint Work"),
    "OpenJDK, first tier": ("java -cp /tmp -XX:TieredStopAtLevel=1 -XX:+UseG1GC Work", "java -cp /tmp -Xint Work"),
    "OpenJDK, code thrown away": ("java -cp /tmp -XX:ReservedCodeCacheSize=3m -XX:-TieredCompilation Work", "java -cp /tmp -Xint Work"),
}


def part_jits():
    for name, text in ("/tmp/work.js", NODE), ("/tmp/work.lua", LUA), ("/tmp/Work.java", JAVA):
        put(name, text)
    said, status = guest("cd /tmp && javac Work.java")
    check("javac", status == 0, said)
    known = {}
    for name, (compiled, interpreted) in JITS.items():
        if interpreted not in known:
            known[interpreted] = guest(interpreted + " 2>/tmp/complaints")
        said, status = known[interpreted]
        check(name + " without its compiler", status == 0 and re.fullmatch(r"-?\d+", said), status, said[-800:])
        for turn in range(5):
            got = guest(compiled)
            check("%s, %d" % (name, turn), got == (said, 0), got, "not", said)
    kernel_is_well("jits")


# ---- a debugger ----

WATCHED = """
#include <stdint.h>
#include <stdio.h>
volatile uint64_t watched, others[64];
__attribute__((noinline)) static void change(uint64_t to) { watched = to; }
__attribute__((noinline)) static void leave(uint64_t n) { others[n % 64] += n; }
int main(void)
{
	for (uint64_t n = 1; n <= 50; n++) {
		for (uint64_t k = 0; k < 1000; k++)
			leave(k + n);
		change(n * n);
	}
	printf("%llu\\n", (unsigned long long)watched);
	return 0;
}
"""
WATCH = """
set pagination off
set confirm off
break main
run
watch watched
set $n = 0
commands
silent
printf "CHANGED %lu\\n", watched
continue
end
continue
"""
STEP = """
set pagination off
set confirm off
break change
run
python
import gdb
count, last = 0, None
gdb.execute("tbreak leave", to_string=True)
gdb.execute("continue", to_string=True)
while count < 3000:
    where = int(gdb.parse_and_eval("(unsigned long)$pc"))
    if where == last:
        print("STUCK", hex(where))
    last = where
    gdb.execute("stepi", to_string=True)
    count += 1
print("STEPPED", count, int(gdb.parse_and_eval("watched")))
end
delete
continue
"""


def part_debugger():
    for name, text in ("/tmp/watched.c", WATCHED), ("/tmp/watch.gdb", WATCH), ("/tmp/step.gdb", STEP):
        put(name, text)
    said, status = guest("cd /tmp && gcc -g -O1 -o watched watched.c")
    check("gcc", status == 0, said)
    guest("stress-ng --cpu 3 --fork 1 --switch 1 --timeout 120s >/dev/null 2>&1 &")
    for turn in range(3):
        said, status = guest("gdb -nx -q -batch -x /tmp/watch.gdb /tmp/watched 2>&1")
        seen = [int(n) for n in re.findall(r"CHANGED (\d+)", said)]
        check("gdb sees each change once, %d" % turn, [n for n in seen if n] and seen[:50] == [n * n for n in range(1, 51)], status, said[-1500:])
        said, status = guest("gdb -nx -q -batch -x /tmp/step.gdb /tmp/watched 2>&1")
        check("gdb steps, %d" % turn, "STEPPED 3000 1" in said and "STUCK" not in said and re.search(r"^2500$", said, re.M), status, said[-1500:])
    guest("pkill stress-ng")
    kernel_is_well("debugger")


# ---- a kernel that rewrites itself ----

TRACING = """
t=/sys/kernel/tracing
mountpoint -q $t || mount -t tracefs tracefs $t
cd $t
echo 0 >tracing_on; echo nop >current_tracer; echo >kprobe_events
echo 'p:opened do_sys_openat2' >kprobe_events
echo 'r:left do_sys_openat2' >>kprobe_events
echo 1 >tracing_on
for n in $(seq 12); do
	for tracer in function nop function_graph nop; do grep -qw $tracer available_tracers && { echo $tracer >current_tracer || echo "REFUSED $tracer"; }; sleep .05; done
	echo 1 >events/kprobes/enable; sleep .1; echo 0 >events/kprobes/enable
	echo 1 >events/syscalls/enable; sleep .05; echo 0 >events/syscalls/enable
done
echo >trace
echo 1 >events/kprobes/opened/enable; echo 1 >events/kprobes/left/enable
echo "common_pid == $$" >events/kprobes/opened/filter 2>/dev/null; echo "common_pid == $$" >events/kprobes/left/filter 2>/dev/null
for n in $(seq 500); do : </etc/hostname; done
echo 0 >events/kprobes/enable
echo "OPENED $(grep -c ' opened:' trace) $(grep -c ' left:' trace)"
echo >kprobe_events; echo 0 >tracing_on
"""


def part_tracing():
    guest("stress-ng --open 1 --fork 1 --pipe 1 --fault 1 --timeout 300s >/dev/null 2>&1 &")
    for turn in range(2):
        said, status = guest(TRACING)
        check("each of 500 was seen come and go, %d" % turn, status == 0 and (m := re.search(r"OPENED (\d+) (\d+)", said)) and 500 <= int(m[1]) <= 510 and int(m[1]) - int(m[2]) in (0, 1),
              status, said[-1500:])
        check("no tracer was refused", "REFUSED" not in said, said[-300:])
    guest("pkill stress-ng")
    kernel_is_well("tracing")


machines.begin("programs", "--cpus", "4", "--memory", "3G", "--net", "user")
for part in parts:
    {"stress": part_stress, "jits": part_jits, "debugger": part_debugger, "tracing": part_tracing}[part]()
check("it runs still", machines.runs("programs"))
machines.run("kill", "programs")
sys.exit(machines.failed)
