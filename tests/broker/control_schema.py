#!/usr/bin/env python3
"""docs/control.schema.json against the sources: its verbs, error names and codes are those of the three fronts and of the protocol, and
umbra-control(7) describes each verb."""
import json, os, re, sys

os.chdir(os.path.join(os.path.dirname(os.path.abspath(__file__)), "../.."))
schema = json.load(open("docs/control.schema.json"))["$defs"]
sources = open("src/control/machine_control.c").read() + open("src/serve/control.c").read() + open("src/process/balancer.c").read()
protocol = open("src/control/protocol.c").read()
manual = open("man/umbra-control.7").read()
verbs = set(re.findall(r"\{ \.name = \"(\w+)\"", sources))
rows = re.findall(r"\{ \.name = \"(\w+)\"(.*?)\},\n(?=\t\{)", sources, re.S)
members = {verb: set(re.findall(r'\{ "(\w+)", CONTROL_', row)) for verb, row in rows}
described = {verb: set() for verb in schema["bare"]["enum"]}
for row in schema["request"]["oneOf"][1:]:
    described[row["properties"]["do"]["const"]] = set(row["properties"]) - {"id", "do"}
failed = []
if set(described) != verbs:
    failed.append("verbs: %s in the schema, %s in the sources" % (sorted(described), sorted(verbs)))
failed += ["members of %s: %s, %s" % (v, described.get(v), members[v]) for v in members if described.get(v) != members[v]]
codes = dict((int(c), n) for c, n in re.findall(r'\{ (\d+), "([\w-]+)" \}', protocol))
failure = schema["failure"]["properties"]
if codes != dict(zip(failure["code"]["enum"], failure["error"]["enum"])):
    failed.append("codes: %s" % codes)
failed += ["%s is not in umbra-control(7)" % v for v in verbs if not re.search(r"^\.BR? .*\b%s\b" % v, manual, re.M)]
print("\n".join(failed), end="\n" if failed else "")
sys.exit(bool(failed))
