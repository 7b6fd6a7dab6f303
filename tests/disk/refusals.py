#!/usr/bin/python3
"""Makes every kind of refusal happen that is in src/disk/refusals.h, each by small files, and sees that what is said is complete: one line
that has the file, the offset where one has a meaning (and then it is the one at which the lie was put, or lies within the file), the
structure, what was found, what was expected and the remedy; and where a verb says it as JSON, the same members. The table here and the one
of the sources have to have the same kinds; what needs a program of C is in refusal_test.c or search_test.c. usage: refusals.py UMBRA"""
import io, json, os, re, resource, shutil, struct, subprocess, sys, tarfile, tempfile, uuid
here = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [here, os.path.join(here, 'corpus')]
import qcow2, vhd, vmdk
from vhdx_maker import *

umbra = os.path.abspath(sys.argv[1])
only = sys.argv[2:]
source = os.path.dirname(os.path.dirname(here))
work = tempfile.mkdtemp()
home = os.path.join(work, 'home')
failures = cases = 0
ANYWHERE, NOWHERE = -1, None
files = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (min(files, 8192), files))

def fault(text):
    global failures
    failures += 1
    print('refusals:', text)

# ---- the table of the sources ----

def literals(text):
    return ''.join(json.loads(part) for part in re.findall(r'"(?:[^"\\]|\\.)*"', text))

def read_rows():
    """kind: (code, whether with an offset, structure, expected, remedy or None)"""
    text = re.sub(r'/\*.*?\*/', '', open(source + '/src/disk/refusals.h').read(), flags=re.S)
    string = r'((?:"(?:[^"\\]|\\.)*"\s*)+)'
    row = re.compile(r'REFUSAL\((\w+), (-?\w+), (AT|NOWHERE),\s*' + string + r',\s*' + string + r',\s*(NULL|(?:"(?:[^"\\]|\\.)*"\s*)+)\)')
    rows = {m[1]: (m[2], m[3] == 'AT', literals(m[4]), literals(m[5]), None if m[6] == 'NULL' else literals(m[6])) for m in row.finditer(text)}
    if len(rows) != len(re.findall(r'^REFUSAL\(', text, re.M)):
        fault('the table of kinds cannot be read')
    return rows

def read_remedies():
    return {literals(text) for text in re.findall(r'return ((?:\s*"[^\n]*")+);', open(source + '/src/disk/refusal.c').read())}

rows, remedies = read_rows(), read_remedies()

# ---- what is done with a file ----

def run(*arguments, limit=None, data=None):
    command = [umbra, *arguments] if limit is None else ['bash', '-c', 'ulimit -v %d; exec "$@"' % limit, 'x', umbra, *arguments]
    env = {**os.environ, 'HOME': home, 'XDG_CONFIG_HOME': home, 'XDG_DATA_HOME': home}
    return subprocess.run(command, capture_output=True, timeout=200, env=env, input=data)

def must(*arguments):
    p = run('disk', *arguments)
    if p.returncode:
        fault('%s: %s' % (' '.join(arguments), p.stderr.decode()))

def put(name, data):
    with open(name, 'wb') as f:
        f.write(data)

def check_line(kind, line, offset, named):
    _, at, structure, expected, remedy = rows[kind]
    place = r' at offset (?P<offset>\d+)' if at else ''
    form = r'(?P<file>.+?): %s%s: (?P<found>.+); expected: %s; (?P<remedy>.+)' % (re.escape(structure), place, re.escape(expected))
    m = re.fullmatch(form, line)
    if not m:
        return fault('%s: is not said so: %s' % (kind, line))
    if m['remedy'] != remedy if remedy else m['remedy'] not in remedies:
        fault('%s: has another remedy: %s' % (kind, line))
    if named and os.path.basename(m['file']) != os.path.basename(named):
        fault('%s: names the file %s, not %s' % (kind, m['file'], named))
    if at and offset != ANYWHERE and int(m['offset']) != offset:
        fault('%s: is said to be at %s, not %d: %s' % (kind, m['offset'], offset, line))
    if at and int(m['offset']) > os.path.getsize(m['file']):
        fault('%s: the offset is behind the file: %s' % (kind, line))
    if not at and offset is not NOWHERE:
        fault('%s: is expected to say where' % kind)
    return m

def check_json(kind, text, m):
    """Each refusal of the answer; one of them is that of the line."""
    try:
        answer = json.loads(text)
        found = [answer['refusal']] if 'refusal' in answer else [f['refusal'] for f in answer['findings'] if 'refusal' in f]
    except (ValueError, KeyError):
        return fault('%s: no refusal as JSON: %s' % (kind, text))
    for refusal in found:
        if set(refusal) != {'kind', 'file', 'offset', 'structure', 'found', 'expected', 'remedy'}:
            fault('%s: JSON has other members: %s' % (kind, refusal))
        elif not all(refusal[key] for key in refusal if key != 'offset'):
            fault('%s: JSON has an empty member: %s' % (kind, refusal))
    if kind not in [refusal['kind'] for refusal in found]:
        return fault('%s: JSON says %s' % (kind, [refusal['kind'] for refusal in found]))
    refusal = [r for r in found if r['kind'] == kind][0]
    offset = int(m['offset']) if rows[kind][1] else None
    if (refusal['offset'], refusal['structure'], refusal['expected']) != (offset, rows[kind][2], rows[kind][3]) or refusal['file'] != m['file']:
        fault('%s: JSON says something else than the line: %s' % (kind, refusal))

made = {}

def refused(kind, offset, command, named, limit=None, as_json=True, data=None):
    """The one line of a command; and of those that only open and look, also as JSON."""
    global cases
    made.setdefault(kind, 0)
    made[kind] += 1
    if only and kind not in only:
        return
    cases += 1
    p = run(*command, limit=limit, data=data)
    lines = p.stderr.decode(errors='replace').splitlines()
    if not p.returncode or len(lines) != 1 or not lines[0].startswith('umbra: '):
        return fault('%s: ended with %d: %s' % (kind, p.returncode, lines or p.stdout[:200]))
    m = check_line(kind, lines[0][7:], offset, named)
    if m and as_json:
        p = run('disk', 'check', '--json', *[a for a in command[2:] if a != '--json'], limit=limit)
        check_json(kind, p.stdout, m)

def opened(kind, offset, name, form, *more, named='', **how):
    """named: None: any file."""
    refused(kind, offset, ['disk', 'info', name, '--format', form, *more], name if named == '' else named, **how)

def read(kind, offset, name, form, named='', checked=True):
    """Found when it is read; check finds it, too."""
    refused(kind, offset, ['disk', 'read', name, '--format', form], named or name, as_json=False)
    if checked and (not only or kind in only):
        p = run('disk', 'check', name, '--format', form, '--json')
        found = [f['refusal']['kind'] for f in json.loads(p.stdout)['findings'] if 'refusal' in f]
        if kind not in found:
            fault('%s: check finds %s' % (kind, found))

def patched(data, at, value, form='<Q'):
    data = bytearray(data)
    data[at:at + struct.calcsize(form)] = struct.pack(form, value)
    return bytes(data)

# ---- raw, the host, the chain ----

def of_the_host():
    put('two.raw', vmdk.pattern(8192))
    refused('OPEN', NOWHERE, ['disk', 'info', 'none.vhdx'], 'none.vhdx')
    refused('HOST', NOWHERE, ['disk', 'create', 'two.raw', '--size', '1M'], 'two.raw', as_json=False)
    Vhdx(size=64 << 40).write('large.vhdx') # its table of 512 MiB is a hole, and there
    opened('MEMORY', NOWHERE, 'large.vhdx', 'vhdx', limit=350000)
    os.mkdir('none')
    opened('NO_DISK', NOWHERE, '/dev/null', 'raw')
    opened('FORMAT', NOWHERE, 'large.vhdx', 'qcow2')
    put('empty.raw', b'')
    opened('RAW_EMPTY', NOWHERE, 'empty.raw', 'raw')
    put('disk.qcow2', qcow2.qcow2(MIB, {}))
    refused('READ_ONLY_FORMAT', NOWHERE, ['disk', 'write', 'disk.qcow2', '--format', 'qcow2', '--from', '/dev/null'], 'disk.qcow2', as_json=False)
    put('side.raw', bytes(8192))
    put('side.raw.umbra', b'nothing of this kind')
    refused('FREEZE_UNREADABLE', NOWHERE, ['disk', 'write', 'side.raw', '--format', 'raw', '--from', '/dev/null'], 'side.raw', as_json=False)
    must('create', 'base.vhdx', '--size', '4M', '--block-size', '1M')
    must('create', 'child.vhdx', '--parent', 'base.vhdx')
    must('freeze', 'base.vhdx')
    refused('FROZEN', NOWHERE, ['disk', 'write', 'base.vhdx', '--from', '/dev/null'], 'base.vhdx', as_json=False)
    refused('HAS_CHILD', NOWHERE, ['disk', 'freeze', 'base.vhdx', '--undo'], 'base.vhdx', as_json=False)
    must('create', 'base.vhd', '--size', '4M', '--format', 'vhd')
    must('create', 'child.vhd', '--format', 'vhd', '--parent', 'base.vhd')
    put('child.vhd.umbra', b'nothing of this kind')
    opened('KNOWN_PARENT', NOWHERE, 'child.vhd', 'vhd')
    put('parent.raw', bytes(MIB))
    must('create', 'onraw.vhdx', '--parent', 'parent.raw', '--parent-format', 'raw')
    put('parent.raw', vmdk.pattern(MIB))
    refused('CONTENT', NOWHERE, ['disk', 'read', 'onraw.vhdx'], 'onraw.vhdx', as_json=False)
    partitions = b''.join(struct.pack('<B3sB3sII', 0, b'', 0x83, b'', at, 1000) for at in (64, 500)) # over each other
    put('noise.raw', (bytes(446) + partitions).ljust(510, b'\0') + b'\x55\xaa' + bytes(MIB - 512))
    refused('FILE_SYSTEMS', NOWHERE, ['disk', 'shrink', 'noise.raw', '--format', 'raw'], 'noise.raw', as_json=False)

def of_policies():
    must('create', 'kept.vhdx', '--size', '4M')
    os.makedirs(home + '/umbra')
    put(home + '/umbra/policy.json', b'{"no-export": true}')
    refused('POLICY_FIRM', NOWHERE, ['disk', 'read', 'kept.vhdx', '--length', '512'], 'kept.vhdx', as_json=False)
    put(home + '/umbra/policy.json', b'{"no-export": true, "overridable": ["no-export"]}')
    refused('POLICY', NOWHERE, ['disk', 'read', 'kept.vhdx', '--length', '512'], 'kept.vhdx', as_json=False)
    put('over.raw', bytes(8192))
    os.mkdir('over.raw.umbra.new')
    refused('OVERRIDE', NOWHERE, ['disk', 'read', 'over.raw', '--format', 'raw', '--override', 'why not'], 'over.raw', as_json=False)
    os.remove(home + '/umbra/policy.json')

def of_the_chain():
    base = Vhdx()
    base.write('parent.vhdx')
    Vhdx(parent=[('parent_linkage', '{%s}' % base.data_id[0])]).write('nameless.vhdx')
    os.rename('parent.vhdx', 'none/parent.vhdx')
    opened('PARENT_NOWHERE', NOWHERE, 'nameless.vhdx', 'vhdx')
    Vhdx(parent=link(base, 'none\\parent.vhdx')).write('deep.vhdx')
    os.mkdir('elsewhere')
    opened('PARENT_PLACE', NOWHERE, 'deep.vhdx', 'vhdx', '--parents', 'elsewhere', named='parent.vhdx')
    own = Vhdx(parent=[('parent_linkage', '{%s}' % uuid.uuid4()), ('relative_path', '.\\own.vhdx')])
    own.write('own.vhdx')
    opened('CHAIN_LOOP', NOWHERE, 'own.vhdx', 'vhdx')
    os.mkdir('links')
    put('links/0.qcow2', qcow2.qcow2(4096, {}, bits=9))
    for n in range(1, 1100):
        put('links/%d.qcow2' % n, qcow2.qcow2(4096, {}, bits=9, backing=b'%d.qcow2' % (n - 1), form=b'qcow2'))
    opened('CHAIN_LONG', NOWHERE, 'links/1099.qcow2', 'qcow2', named='74.qcow2')
    shutil.rmtree('links')
    for n in range(5000): # each says that it is the parent, and is none
        os.makedirs('shelf%d' % (n % 2), exist_ok=True)
        with open('shelf%d/%d.vhdx' % (n % 2, n), 'wb') as f:
            f.write(b'vhdxfile')
            f.seek(65536)
            f.write(b'head' + bytes(28) + base.data_id[0].bytes_le)
            f.truncate(MIB)
    opened('CHAIN_OPENS', NOWHERE, 'nameless.vhdx', 'vhdx', '--parents', 'shelf0', '--parents', 'shelf1', named=None, as_json=False)
    shutil.rmtree('shelf0')
    shutil.rmtree('shelf1')

# ---- VHDX ----

def vhdx_of(change):
    v = Vhdx()
    v.put(1, bytes(MIB))
    v.put(6, bytes(MIB))
    change(v)
    return v.write('wrong.vhdx')

def wrong_vhdx(kind, offset, change, named='wrong.vhdx'):
    opened(kind, offset, vhdx_of(change), 'vhdx', named=named)

def item(n, value):
    return lambda v: v.items[n].__setitem__(2, value)

def logged(**lie):
    def change(v):
        v.log_id, end = uuid.uuid4(), v.next_mib * MIB
        v.log = log_entry(v.log_id, 5, lie.pop('tail', 0), [(3 * MIB, bytes(4096))], flushed=lie.pop('flushed', end), last=lie.pop('last', end))
    return change

def hole(v):
    """The tail lies within an entry, not at its start."""
    v.log_id, end = uuid.uuid4(), v.next_mib * MIB
    v.log = log_entry(v.log_id, 5, 0, [(3 * MIB, bytes(4096))], flushed=end, last=end)
    v.log += log_entry(v.log_id, 6, 4096, [(3 * MIB, bytes(4096))], flushed=end, last=end)

def many_zeros(v):
    v.log_id, v.log_bytes, v.log_offset, v.length = uuid.uuid4(), 2 * MIB, 16 * MIB, 320 * MIB
    v.log = log_entry(v.log_id, 5, 0, [], zeros=[(20 * MIB + n * 8192, 4096) for n in range(33000)], flushed=v.length, last=v.length)

LOCATOR_UMBRA = uuid.UUID('7d0f3a61-2c0b-4b7e-a40e-55d60c9f3188')
ITEM0, VALUES = 2 * MIB + 32, 2 * MIB + 65536 # entries of the metadata table, and what is behind it

def of_vhdx():
    wrong_vhdx('VHDX_TYPE', 0, lambda v: setattr(v, 'signature', b'vhdxfilf'))
    put('short.vhdx', b'vhdxfile' + bytes(100000))
    opened('VHDX_LENGTH', NOWHERE, 'short.vhdx', 'vhdx')
    wrong_vhdx('VHDX_HEADERS', 65536, lambda v: setattr(v, 'header_good', [False, False]))
    wrong_vhdx('VHDX_VERSION', 2 * 65536 + 64, lambda v: setattr(v, 'version', [2, 2]))
    wrong_vhdx('VHDX_VERSION', 2 * 65536 + 64, lambda v: setattr(v, 'log_version', 1))
    wrong_vhdx('VHDX_LOG_PLACE', 2 * 65536 + 68, lambda v: setattr(v, 'log_bytes', 40 * MIB))
    wrong_vhdx('VHDX_LOG_PLACE', 2 * 65536 + 68, lambda v: setattr(v, 'log_bytes', 0))
    wrong_vhdx('VHDX_LOG_LARGE', 2 * 65536 + 68, lambda v: setattr(v, 'log_bytes', 128 * MIB))
    wrong_vhdx('VHDX_REGIONS', 0x30000, lambda v: v.extra.extend([(0x30000, bytes(4)), (0x40000, bytes(4))]))
    third = 0x30000 + 16 + 2 * 32
    wrong_vhdx('VHDX_REGION', third, lambda v: v.regions.append([uuid.uuid4(), 3 * MIB, MIB, 0]))
    wrong_vhdx('VHDX_REGION', third - 32, lambda v: v.regions[1].__setitem__(2, 1 << 30))
    wrong_vhdx('VHDX_REGION_TWICE', third, lambda v: v.regions.append([FILE_BAT, v.take(1) * MIB, MIB, 1]))
    wrong_vhdx('VHDX_REGION_UNKNOWN', third, lambda v: v.regions.append([uuid.uuid4(), v.take(1) * MIB, MIB, 1]))
    wrong_vhdx('VHDX_REGION_MISSING', 0x30000, lambda v: v.regions.pop())
    def large(v):
        v.regions[0], v.length = [FILE_METADATA, 16 * MIB, 129 * MIB, 1], 160 * MIB
    wrong_vhdx('VHDX_REGION_LARGE', 0x30000 + 16 + 24, large)
    wrong_vhdx('VHDX_METADATA', 2 * MIB, lambda v: setattr(v, 'item_count', 65535))
    wrong_vhdx('VHDX_ITEM_PLACE', ITEM0 + 2 * 32 + 16, lambda v: v.item_places.__setitem__(2, (0xfffffff0, 16)))
    wrong_vhdx('VHDX_ITEM_UNKNOWN', ITEM0 + 5 * 32, lambda v: v.items.append([uuid.uuid4(), REQUIRED, b'x' * 8]))
    wrong_vhdx('VHDX_ITEM_TWICE', ITEM0 + 5 * 32, lambda v: v.items.append(list(v.items[1])))
    wrong_vhdx('VHDX_ITEM_LENGTH', ITEM0 + 32 + 20, item(1, struct.pack('<I', 8 * MIB)))
    wrong_vhdx('VHDX_ITEM_MISSING', 2 * MIB, lambda v: v.items.pop(3))
    wrong_vhdx('VHDX_PARAMETERS', VALUES, item(0, struct.pack('<II', MIB, 2)))
    wrong_vhdx('VHDX_BLOCK_SIZE', VALUES, item(0, struct.pack('<II', 3 * MIB, 0)))
    wrong_vhdx('VHDX_SECTOR_SIZE', VALUES + 32, item(3, struct.pack('<I', 1000)))
    wrong_vhdx('VHDX_SECTOR_SIZE', VALUES + 36, item(4, struct.pack('<I', 1000)))
    for size in (8 * MIB + 1, 0, 1 << 60):
        wrong_vhdx('VHDX_DISK_SIZE', VALUES + 8, item(1, struct.pack('<Q', size)))
    wrong_vhdx('VHDX_BAT_SHORT', 3 * MIB, item(1, struct.pack('<Q', 64 << 40)))
    for entry in ((PRESENT, 1 << 30), (PRESENT, 1), (PRESENT, 0), (5, 0), (PARTIAL, 4)):
        wrong_vhdx('VHDX_BAT_ENTRY', 3 * MIB, lambda v: v.entries.__setitem__(0, entry))
    wrong_vhdx('VHDX_LOG_CUT', MIB + 48, logged(flushed=1 << 40, last=1 << 40))
    wrong_vhdx('VHDX_LOG_ENDLESS', MIB + 56, logged(last=1 << 62))
    wrong_vhdx('VHDX_LOG_HOLE', MIB + 4096, hole)
    wrong_vhdx('VHDX_LOG_MEMORY', 16 * MIB, many_zeros)
    of_vhdx_parents()

def of_vhdx_parents():
    base = Vhdx()
    base.write('base2.vhdx')
    named = link(base, 'base2.vhdx')
    def child(kind, offset, change=lambda v: None, pairs=named):
        v = Vhdx(parent=pairs)
        change(v)
        opened(kind, offset, v.write('heir.vhdx'), 'vhdx')
    place = VALUES + 40
    def own(at, form, value):
        return lambda v: v.items[5].__setitem__(2, patched(v.items[5][2], at, value, form))
    v = Vhdx(parent=named)
    v.put(0, bytes(MIB), PARTIAL)
    v.write('heir.vhdx')
    refused_check('VHDX_BAT_BITMAP', 3 * MIB + v.chunk * 8, 'heir.vhdx', 'vhdx')
    child('VHDX_LOCATOR_TYPE', place, own(0, '<Q', 77))
    child('VHDX_LOCATOR', place + 18, own(18, '<H', 65))
    child('VHDX_LOCATOR', place + 20, own(20, '<I', 1 << 31))
    child('VHDX_LOCATOR_LINK', place, pairs=[('relative_path', '.\\base2.vhdx')])
    child('VHDX_PARENT_DATA', place, pairs=[('parent_linkage', '{%s}' % uuid.uuid4()), ('relative_path', '.\\base2.vhdx')])
    put('base2.raw', bytes(8 * MIB))
    v = Vhdx(parent=[('relative_path', '.\\base2.raw'), ('umbra_format', 'raw')])
    v.items[5][2] = LOCATOR_UMBRA.bytes_le + v.items[5][2][16:]
    opened('VHDX_PARENT_CONTENT', VALUES + 40, v.write('heir.vhdx'), 'vhdx')
    large = Vhdx(size=16 * MIB)
    large.write('large2.vhdx')
    child('VHDX_PARENT_SHAPE', NOWHERE, pairs=link(large, 'large2.vhdx'))

def refused_check(kind, offset, name, form):
    """What only check finds: its line, and its JSON."""
    global cases
    made[kind] = made.get(kind, 0) + 1
    if only and kind not in only:
        return
    cases += 1
    p = run('disk', 'check', name, '--format', form)
    m = check_line(kind, p.stdout.decode().splitlines()[0], offset, name)
    if m:
        check_json(kind, run('disk', 'check', name, '--format', form, '--json').stdout, m)

# ---- VHD ----

def of_vhd():
    two, first = 2 * vhd.BLOCK, {0: vhd.DATA}
    fixed = vmdk.pattern(MIB, 2)
    end = 512 + 1024 + 512 + 512 + vhd.BLOCK # the footer of one that has one block
    def wrong(kind, offset, data, act=opened):
        put('wrong.vhd', data)
        act(kind, offset, 'wrong.vhd', 'vhd')
    wrong('VHD_SHORT', NOWHERE, b'conectix')
    wrong('VHD_FOOTER', end, vhd.dynamic(two, first, bad=1))
    wrong('VHD_FOOTER', end, vhd.dynamic(two, first, version=0x20000))
    wrong('VHD_TYPE', 60, vhd.dynamic(two, first, kind=7))
    wrong('VHD_SIZE', 48, vhd.dynamic(two - 100, first))
    wrong('VHD_SIZE', 48, vhd.dynamic(1 << 42, {}, entries=4))
    wrong('VHD_FIXED_CUT', MIB - 4096 + 48, fixed[4096:] + vhd.footer(MIB, 2, offset=vhd.NOWHERE))
    wrong('VHD_HEADER_PLACE', 16, vhd.dynamic(two, first, offset=1 << 60))
    wrong('VHD_HEADER', 512, vhd.dynamic(two, first, header_bad=1))
    wrong('VHD_BLOCK_SIZE', 544, vhd.dynamic(two, {}, block=vhd.BLOCK * 3, entries=2))
    for table, entries in ((1 << 50, None), (1537, None)):
        wrong('VHD_TABLE', 528, vhd.dynamic(two, {}, table=table))
    wrong('VHD_TABLE', 528, vhd.dynamic(1 << 30, {}, entries=2))
    wrong('VHD_ENTRY_TABLES', 1536, vhd.dynamic(two, first, entry={0: 1}))
    wrong('VHD_ENTRY_CUT', 1536, vhd.dynamic(two, first, entry={0: 1 << 30}))
    wrong('VHD_ENTRY_FOOTER', 1536, vhd.dynamic(two, first, entry={0: 5}))
    wrong('VHD_OVERLAP', 1536, vhd.dynamic(two, {0: vhd.DATA, 1: vhd.DATA}, entry={1: 5}))
    put('parent.vhd', vhd.dynamic(two, first))
    wrong('VHD_PARENT_ID', 512 + 40, vhd.dynamic(two, {}, parent=(b'\x33', 'parent.vhd'), own=b'\x22'))
    put('parent.vhd', vhd.dynamic(2 * two, {}))
    wrong('VHD_PARENT_SIZE', NOWHERE, vhd.dynamic(two, {}, parent=(b'\x11', 'parent.vhd'), own=b'\x22'))
    wrong('VHD_END', NOWHERE, vhd.dynamic(two, first, end=False), refused_check)
    data = vhd.dynamic(two, first)
    wrong('VHD_FOOTERS', end, data[:-512] + vhd.footer(two, 3, own=b'\x55'), refused_check)

# ---- qcow2 ----

def of_qcow2():
    size, cluster, some = MIB, 65536, {0: vmdk.pattern(65536, 1), 5: vmdk.pattern(65536, 2)}
    l1, l2 = 3 * cluster, 4 * cluster
    base = qcow2.qcow2(size, some)
    def wrong(kind, offset, data, act=opened, **how):
        put('wrong.qcow2', data)
        act(kind, offset, 'wrong.qcow2', 'qcow2', **how)
    def shrunk(kind, offset, name, form):
        refused(kind, offset, ['disk', 'shrink', name, '--format', form], name, as_json=False)
    wrong('QCOW2_MAGIC', 0, patched(base, 0, 0x514649fc, '>I'))
    wrong('QCOW2_SHORT', NOWHERE, base[:40])
    wrong('QCOW2_VERSION', 4, patched(base, 4, 1, '>I'))
    wrong('QCOW2_CLUSTER', 20, patched(base, 20, 30, '>I'))
    wrong('QCOW2_CLUSTER', 20, qcow2.qcow2(size, {}, bits=12, wide=True))
    for wrong_size in (0, 100, 1 << 60):
        wrong('QCOW2_SIZE', 24, patched(base, 24, wrong_size, '>Q'))
    wrong('QCOW2_CORRUPT', 72, patched(base, 72, 2, '>Q'))
    wrong('QCOW2_CRYPT', 32, patched(base, 32, 1, '>I'))
    wrong('QCOW2_EXTERNAL', 72, patched(base, 72, 4, '>Q'))
    wrong('QCOW2_FEATURE', 72, patched(base, 72, 1 << 40, '>Q'))
    wrong('QCOW2_COMPRESSION', 104, patched(patched(base, 72, 8, '>Q'), 104, 9, '>B'))
    wrong('QCOW2_L1', 36, qcow2.qcow2(1 << 40, {}, l1_entries=2))
    for at in (1 << 40, 12345):
        wrong('QCOW2_L1', 36, patched(base, 40, at, '>Q'))
    wrong('QCOW2_BACKING_NAME', 8, patched(patched(base, 8, 1 << 50, '>Q'), 16, 9, '>I'))
    wrong('QCOW2_BACKING_NAME', 8, patched(patched(base, 8, 200, '>Q'), 16, 5000, '>I'))
    child = qcow2.qcow2(size, some, backing=b'base.raw', form=None)
    wrong('QCOW2_BACKING_FORMAT', 112, child)
    wrong('QCOW2_BACKING_FORMAT', 112, qcow2.qcow2(size, some, backing=b'base.raw', form=b'bochs'))
    wrong('QCOW2_BACKING_PATH', 112 + 16 + 8, qcow2.qcow2(size, some, backing=b'json:{"file":1}'))
    Vhdx(sector=4096).write('base4k.vhdx')
    wrong('QCOW2_BACKING_SECTORS', NOWHERE, qcow2.qcow2(8 * MIB, {}, backing=b'base4k.vhdx', form=b'vhdx'))
    wrong('QCOW2_L1_ENTRY', l1, qcow2.qcow2(size, some, l2=qcow2.COPIED | 0x60200), read)
    wrong('QCOW2_L1_ENTRY_CUT', l1, qcow2.qcow2(size, some, l2=qcow2.COPIED | 1 << 40), read)
    wrong('QCOW2_L2_ENTRY', l2 + 6 * 8, qcow2.qcow2(size, some, entry={6: qcow2.COPIED | 0x60200}), read)
    wrong('QCOW2_L2_ENTRY_CUT', l2 + 6 * 8, qcow2.qcow2(size, some, entry={6: qcow2.COPIED | 1 << 40}), read)
    wrong('QCOW2_L2_ENTRY_CUT', l2 + 5 * 8, base[:-cluster // 2], read)
    wrong('QCOW2_L2_ENTRY_CUT', l2 + 6 * 8, qcow2.qcow2(size, some, entry={6: qcow2.PACKED | 1 << 50}), read)
    packed = qcow2.qcow2(size, some, packed=True)
    wrong('QCOW2_PACKED', 5 * cluster, packed[:5 * cluster] + b'\xff' * 64 + packed[5 * cluster + 64:], read, checked=False)
    wrong('QCOW2_SNAPSHOTS', 60, patched(base, 60, 1, '>I'), shrunk)
    wrong('QCOW2_DIRTY', 72, patched(base, 72, 1, '>Q'), shrunk)
    wrong('QCOW2_AUTOCLEAR', 88, patched(base, 88, 1, '>Q'), shrunk)
    wrong('QCOW2_COUNT_ORDER', 96, patched(base, 96, 7, '>I'), shrunk)
    put('base.raw', bytes(size))
    wrong('QCOW2_NO_ZERO', 4, qcow2.qcow2(size, some, version=2, backing=b'base.raw'), shrunk)
    wrong('QCOW2_SHRINK_L1', 36, patched(base, 36, 1 << 30, '>I'), shrunk)
    wrong('QCOW2_SHRINK_COUNTS', 48, patched(base, 56, 1 << 30, '>I'), shrunk)
    wrong('QCOW2_SHRINK_TABLES', l2 + 6 * 8, patched(base, l2 + 6 * 8, qcow2.COPIED | 1 << 40, '>Q'), shrunk)
    wrong('QCOW2_SHRINK_TABLES', ANYWHERE, patched(base, l2 + 6 * 8, 5 * cluster, '>Q'), shrunk)
    put('wide.qcow2', qcow2.qcow2(4096, {}, bits=9))
    os.truncate('wide.qcow2', (1 << 36) + 512)
    shrunk('QCOW2_SHRINK_LARGE', NOWHERE, 'wide.qcow2', 'qcow2')
    os.remove('wide.qcow2')

# ---- VMDK ----

def sesparse(cut=0, **wrong):
    """16 MiB: head, volatile head, directory at sector 16, a table at 17, grains at 88 (SESparse is not published; corpus.py has more)."""
    head = dict(magic=0xcafebabe, version=0x200000001, capacity=32768, grain=8, table=64, flags=0, volatile=1, directory=16, directory_sectors=1,
                tables=17, grains=88, volatile_magic=0xcafecafe, replay=0, entry=3 << 60, of_table=1 << 60)
    head.update(wrong)
    out = bytearray(88 * 512 + 4096)
    struct.pack_into('<26Q', out, 0, head['magic'], head['version'], head['capacity'], head['grain'], head['table'], head['flags'], 0, 0, 0, 0,
                     head['volatile'], 1, 2, 1, 3, 1, head['directory'], head['directory_sectors'], head['tables'], 64, 0, 0, 0, 0, head['grains'], 8)
    struct.pack_into('<4Q', out, 512, head['volatile_magic'], 0, 1, head['replay'])
    struct.pack_into('<Q', out, 16 * 512, head['of_table'])
    struct.pack_into('<Q', out, 17 * 512, head['entry'])
    return bytes(out[:len(out) - cut])

def of_vmdk():
    size, sectors = 1 << 20, 2048
    some = {0: vmdk.pattern(vmdk.GRAIN, 1), 5: vmdk.pattern(vmdk.GRAIN, 2)}
    base = vmdk.sparse('wrong.vmdk', size, some)
    stream = vmdk.stream('wrong.vmdk', size, some)
    table, directory = 22 * 512, 21 * 512
    def wrong(kind, offset, data, act=opened, **how):
        put('wrong.vmdk', data)
        act(kind, offset, 'wrong.vmdk', 'vmdk', **how)
    put('flat.vmdk', vmdk.FLAT)
    put('sparse', base)
    def said(kind, line, *more, named='', at=None, **how):
        data = vmdk.descriptor(['RW 16 FLAT "flat.vmdk" 0', *more, line], **how)
        wrong(kind, at if named else data.index(line.encode()), data, named=named)
    wrong('VMDK_BEGINS', 0, b'# Disc' + bytes(600))
    wrong('VMDK_VERSION', 4, patched(base, 4, 9, '<I'))
    wrong('VMDK_TABLES', 44, patched(base, 44, 99, '<I'))
    wrong('VMDK_COMPRESSION', 77, patched(patched(base, 8, 0x30001, '<I'), 77, 7, '<H'))
    wrong('VMDK_CAPACITY', 12, patched(base, 12, 0))
    wrong('VMDK_CAPACITY', 12, patched(base, 12, 1 << 60))
    wrong('VMDK_GRAIN_SIZE', 20, patched(base, 20, 100))
    wrong('VMDK_GRAINS', 12, patched(patched(base, 12, 1 << 30), 20, 8))
    wrong('VMDK_DIRECTORY', 56, patched(base, 56, 1 << 40))
    wrong('VMDK_TABLE', directory, patched(base, directory, 1 << 30, '<I'))
    # a small file cannot make its tables large by naming one of them a thousand times
    many = patched(patched(base, 12, 1 << 27), 56, 700)[:700 * 512].ljust(700 * 512, b'\0') + struct.pack('<I', 22) * 2048
    wrong('VMDK_TABLE', ANYWHERE, many)
    wrong('VMDK_FOOTER', ANYWHERE, vmdk.stream('wrong.vmdk', size, some, footer=False))
    wrong('VMDK_DESCRIPTOR_PLACE', 28, patched(base, 28, 1 << 40))
    wrong('VMDK_DESCRIPTOR_PLACE', 28, patched(base, 36, 1 << 40))
    wrong('VMDK_DESCRIPTOR_LARGE', 0, b'# Disk DescriptorFile\n' + b'#' * (1 << 20))
    wrong('VMDK_PIECE', 0, patched(base, 28, 0))
    wrong('VMDK_GRAIN_CUT', table + 5 * 4, base[:-512], read)
    wrong('VMDK_GRAIN_CUT', table + 5 * 4, patched(base, table + 5 * 4, 1 << 30, '<I'), read)
    first = 128 * 512
    wrong('VMDK_MARKER', first + 8, patched(stream, first + 8, 1 << 30, '<I'), read, checked=False)
    short = vmdk.stream('wrong.vmdk', size, {0: some[0]})
    wrong('VMDK_MARKER_CUT', first + 8, patched(short, first + 8, 100000, '<I'), read, checked=False)
    wrong('VMDK_PACKED', first + 12, patched(stream, first + 40, 0xff, '<B'), read, checked=False)
    said('VMDK_LINE', 'RW nothing')
    said('VMDK_ACCESS', 'NOACCESS 16 FLAT "flat.vmdk" 0')
    said('VMDK_EXTENTS', 'RW 0 FLAT "flat.vmdk" 0')
    said('VMDK_EXTENTS', 'RW 99999999999999 FLAT "flat.vmdk" 0')
    said('VMDK_KIND', 'RW 16 MAGIC "flat.vmdk" 0')
    said('VMDK_NAME', 'RW 16 FLAT "../flat.vmdk" 0')
    said('VMDK_EXTENT_OPEN', 'RW 16 FLAT "gone.vmdk" 0')
    said('VMDK_EXTENT_SHORT', 'RW 17 FLAT "flat.vmdk" 0')
    said('VMDK_EXTENT_SHORT', 'RW 16 FLAT "flat.vmdk" 99999999999')
    said('VMDK_EXTENT_SHORT', 'RW %d SPARSE "sparse"' % (sectors + 1))
    said('VMDK_MAGIC', 'RW 16 SPARSE "flat.vmdk"', named='flat.vmdk', at=0)
    wrong('VMDK_NO_EXTENTS', 0, vmdk.descriptor([]))
    child = vmdk.descriptor(['RW 16 FLAT "flat.vmdk" 0'], parent='12345679')
    wrong('VMDK_NO_PARENT_NAME', child.index(b'parentCID'), child)
    def child_of(name, cid='12345679', count=16):
        return vmdk.descriptor(['RW %d FLAT "flat.vmdk" 0' % count], parent=cid, extra='parentFileNameHint="%s"' % name)
    put('below.vmdk', vmdk.descriptor(['RW 16 FLAT "flat.vmdk" 0']))
    wrong('VMDK_PARENT_CID', child.index(b'parentCID'), child_of('below.vmdk'))
    wrong('VMDK_PARENT_SIZE', NOWHERE, child_of('below.vmdk', '12345678', 8))
    of_esx(said)

def of_esx(said):
    data = {0: vmdk.FLAT[:512]}
    def cowd(kind, offset, extent, act=opened):
        put('extent', extent)
        put('wrong.vmdk', vmdk.descriptor(['RW 2048 VMFSSPARSE "extent"'], 'vmfsSparse'))
        act(kind, offset, 'wrong.vmdk', 'vmdk', named='extent')
    good = vmdk.cowd(1 << 20, data)
    for kind, at, value in (('MAGIC', 0, 1), ('VERSION', 4, 2), ('SIZE', 12, 0), ('GRAIN', 16, 0), ('GRAIN', 16, 1 << 30), ('ENTRIES', 24, 0),
                            ('DIRECTORY', 20, 1 << 30), ('DIRECTORY', 20, 1)):
        cowd('COWD_' + kind, at, patched(good, at, value, '<I'))
    cowd('COWD_TABLE_CUT', 2048, patched(good, 2048, 1 << 30, '<I'), read)
    cowd('COWD_GRAIN_ENTRY', 2560, patched(good, 2560, 1, '<I'), read)
    cowd('COWD_GRAIN_CUT', 2560, patched(good, 2560, 1 << 30, '<I'), read)
    cowd('COWD_GRAIN_CUT', 2560, good[:-1], read)
    def extent(kind, offset, act=opened, **wrong):
        put('extent', sesparse(**wrong))
        put('wrong.vmdk', vmdk.descriptor(['RW 32768 SESPARSE "extent"'], 'seSparse'))
        act('SESPARSE_' + kind, offset, 'wrong.vmdk', 'vmdk', named='extent')
    extent('MAGIC', 0, magic=1)
    for lie in (dict(version=3), dict(grain=16), dict(table=32), dict(flags=1)):
        extent('VERSION', 8, **lie)
    extent('SIZE', 16, capacity=0)
    extent('SIZE', 16, capacity=1 << 60)
    extent('VOLATILE', 80, volatile=1 << 60)
    extent('VOLATILE', 80, volatile=1 << 30)
    extent('VOLATILE', 80, volatile_magic=1)
    extent('JOURNAL', 512 + 24, replay=1)
    extent('PLACES', 144, tables=1 << 60)
    extent('PLACES', 144, grains=1 << 60)
    extent('DIRECTORY', 128, directory=1 << 60)
    extent('DIRECTORY', 128, capacity=1 << 36)
    extent('TABLE', 16 * 512, read, of_table=2 << 60)
    extent('TABLE_CUT', 16 * 512, read, tables=1 << 30)
    extent('GRAIN', 17 * 512, read, entry=5 << 60)
    extent('GRAIN', 17 * 512, read, entry=3 << 60 | 0xffffffffffff)
    extent('GRAIN_CUT', 17 * 512, read, entry=3 << 60 | 1000)
    extent('GRAIN_CUT', 17 * 512, read, cut=1)

# ---- packages ----

def ovf(files='<File href="d.vmdk" id="f"/>', disks='<Disk capacity="%d" diskId="d" fileRef="f"/>', more='', size=MIB):
    disks = disks % size if '%d' in disks else disks
    return ('<?xml version="1.0"?>\n<Envelope>%s<References>%s</References><DiskSection>%s</DiskSection></Envelope>' % (more, files, disks)).encode()

def of_packages():
    disk = vmdk.stream('d.vmdk', MIB, {0: vmdk.pattern(vmdk.GRAIN, 1)})
    os.mkdir('into')
    def package(*members, form=tarfile.USTAR_FORMAT):
        with tarfile.open('p.ova', 'w', format=form) as tar:
            for name, data, *kind in members:
                head = tarfile.TarInfo(name)
                head.size = len(data)
                head.type = kind[0] if kind else tarfile.REGTYPE
                tar.addfile(head, io.BytesIO(data))
    def wrong(kind, offset, name='p.ova', named=None):
        refused(kind, offset, ['disk', 'import', name, 'into'], named or name, as_json=False)
    def said(kind, text, at, **how):
        """In a file of its own, and within an archive, also behind a pax header."""
        offset = text.index(at) if at else 0
        put('x.ovf', text)
        wrong(kind, offset, 'x.ovf')
        package(('x.ovf', text), ('d.vmdk', disk))
        wrong(kind, 512 + offset)
        package(('x.ovf', text), ('d.vmdk', disk), form=tarfile.GNU_FORMAT)
        wrong(kind, 512 + offset)
    said('OVF_XML', b'<?xml version="1.0"?><!DOCTYPE x><Envelope/>', b'><Envelope')
    said('OVF_FILE', ovf(files='<File href="../d.vmdk" id="f"/>'), b'<File')
    said('OVF_FILE', ovf(files='<File href="d.vmdk" id="f" compression="gzip"/>'), b'<File')
    said('OVF_DISK', ovf(disks='<Disk capacity="0" diskId="d" fileRef="f"/>'), b'<Disk ')
    said('OVF_DISK', ovf(disks='<Disk capacity="9" diskId="d" fileRef="f" parentRef="x"/>'), b'<Disk ')
    said('OVF_MACHINE', ovf(more='<VirtualSystem id="a"/><VirtualSystem id="b"/>'), b'<VirtualSystem id="b"')
    good = ovf()
    put('x.ovf', b'<!--' + b'x' * (4 << 20) + b'-->')
    wrong('OVF_XML', 4 << 20, 'x.ovf')
    package(('x.ovf', ovf(size=2 * MIB)), ('d.vmdk', disk))
    wrong('OVF_CAPACITY', 512)
    package(('x.ovf', ovf(disks='<Disk capacity="1048576" diskId="d" fileRef="f" format="http://x/iso"/>')), ('d.vmdk', disk))
    wrong('OVF_FORMAT', 512)
    package(('x.ovf', good))
    wrong('OVF_LENGTH', 512)
    package(('x.ovf', ovf(files='<File href="d.vmdk" id="f" size="1"/>')), ('d.vmdk', disk))
    wrong('OVF_LENGTH', 512)
    package(('x.ovf', good), ('x.mf', b'SHA1(a.b)= ' + b'0' * 40 + b'\nMD5(x.ovf)= 00\n'), ('d.vmdk', disk))
    wrong('OVF_MANIFEST_LINE', 512 + 512 + 512 + 52)
    package(('x.ovf', good), ('x.mf', b'SHA1(a.b)= ' + b'0' * 40 + b'\n'), ('d.vmdk', disk))
    wrong('OVF_DIGEST', 3 * 512)
    put('y.ovf', good)
    put('d.vmdk', disk)
    put('y.mf', b'SHA1(y.ovf)= ' + b'0' * 40 + b'\n')
    wrong('OVF_DIGEST', 0, 'y.ovf', named='y.mf')
    put('p.ova', b'x' * 4096)
    wrong('OVA_TAR', ANYWHERE)
    package(('x.ovf', good), ('../d.vmdk', disk))
    wrong('OVA_FILE', 1024)
    package(('x.ovf', good + b' ' * (4 << 20)), ('d.vmdk', disk))
    wrong('OVA_FILE', 0)
    package(('x.ovf', good), ('d.vmdk', b'', tarfile.SYMTYPE))
    wrong('OVA_FILE', 1024)
    package(('x.ovf', good), ('d.vmdk', disk), ('d.vmdk', disk))
    wrong('OVA_FILE', 1024 + 512 + -(-len(disk) // 512) * 512)
    package(('d.vmdk', disk), ('x.ovf', good))
    wrong('OVA_ORDER', 512)
    package(('x.ovf', good), ('x.mf', b''), ('y.mf', b''))
    wrong('OVA_ORDER', 4 * 512)
    other = bytes(-(-len(disk) // 512) * 1024)
    package(('x.ovf', good), ('other', other), ('d.vmdk', disk))
    with open('p.ova', 'r+b') as f:
        f.truncate(1024 + 512 + len(other) + 512 + len(disk) // 2)
    wrong('OVA_CONTENT', 1024 + 512 + len(other))

# ---- what was asked ----

def asked(kind, named, *command):
    refused(kind, NOWHERE, ['disk', *command], named, as_json=False)

def of_verbs():
    asked('CANNOT_MAKE', 'new.qcow2', 'create', 'new.qcow2', '--size', '1M', '--format', 'qcow2')
    asked('MAKE_BLOCK', 'new.vhdx', 'create', 'new.vhdx', '--size', '1M', '--block-size', '3M')
    asked('MAKE_BLOCK', 'new.vhd', 'create', 'new.vhd', '--size', '1M', '--block-size', '3M', '--format', 'vhd')
    asked('MAKE_SECTOR', 'new.vhd', 'create', 'new.vhd', '--size', '1M', '--sector-size', '4K', '--format', 'vhd')
    asked('MAKE_SIZE', 'new.vhdx', 'create', 'new.vhdx', '--size', '65T')
    asked('MAKE_SIZE', 'new.vhd', 'create', 'new.vhd', '--size', '3T', '--format', 'vhd')
    must('create', 'one.vhdx', '--size', '4M')
    must('create', 'two.vhdx', '--parent', 'one.vhdx')
    must('create', 'three.vhdx', '--parent', 'two.vhdx')
    asked('MAKE_CHILD', 'new.vhdx', 'create', 'new.vhdx', '--parent', 'one.vhdx', '--fixed')
    asked('MAKE_CHILD', 'new.vhd', 'create', 'new.vhd', '--parent', 'one.vhdx', '--parent-format', 'vhdx', '--format', 'vhd')
    must('create', 'huge.vhdx', '--size', '20T', '--block-size', '256M')
    asked('MAKE_CLUSTERS', 'new.qcow2', 'convert', 'huge.vhdx', 'new.qcow2', '--to', 'qcow2', '--block-size', '4K')
    asked('MAKE_SIZE', 'new.vmdk', 'convert', 'huge.vhdx', 'new.vmdk', '--to', 'vmdk')
    asked('PIPE_FORMAT', 'standard output', 'convert', 'one.vhdx', '-', '--to', 'vhdx')
    put('flat.raw', bytes(4 * MIB))
    must('create', 'onflat.vhdx', '--parent', 'flat.raw', '--parent-format', 'raw')
    asked('COMMIT_FORMAT', 'onflat.vhdx', 'commit', 'onflat.vhdx')
    
    must('create', 'larger.vhdx', '--size', '8M')
    asked('REBASE_SHAPE', 'larger.vhdx', 'rebase', 'two.vhdx', '--parent', 'larger.vhdx')
    asked('NO_ANCESTOR', 'larger.vhdx', 'export-changes', 'three.vhdx', 'new.vhdx', '--since', 'larger.vhdx')

os.chdir(work)
of_the_host()
of_the_chain()
of_vhdx()
of_vhd()
of_qcow2()
of_vmdk()
of_packages()
of_verbs()
of_policies()
in_c = set()
for name in ('refusal_test.c', 'search_test.c'):
    in_c |= set(re.findall(r'REFUSAL_(\w+)', open(os.path.join(here, name)).read())) - {'NONE'}
for kind in rows:
    if kind not in made and kind not in in_c:
        fault('%s: nothing makes it happen' % kind)
for kind in [*made, *in_c]:
    if kind not in rows:
        fault('%s: is no kind of the sources' % kind)
os.chdir('/')
shutil.rmtree(work)
print('refusals: %d kinds, %d of them in C, %d cases, %d faults' % (len(rows), len(in_c & set(rows)), cases, failures))
sys.exit(failures != 0)
