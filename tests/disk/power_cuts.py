#!/usr/bin/python3
"""Power cuts during every verb that makes or changes a file. What the program does to files is written down, act by act (acts.c); then, for many
moments, what a cut would have left is made: names as they were after the last change of a directory that is sure, or any later one; of each file
all up to its own last sync, and of what came after it any part, writes torn at 512 bytes. A file that has its final name is then all of what it
is when the verb has ended; what was there before is as it was, or, changed in place, opens and has in each sector what it had before or has after.
Faults that a missing sync would make are looked for, too: without the syncs of the record there have to be some.
usage: power_cuts.py UMBRA ACTS.so [STATES [SEED]]: how many different states in all"""
import os, random, shutil, struct, subprocess, sys, tempfile

umbra, shim = os.path.abspath(sys.argv[1]), os.path.abspath(sys.argv[2])
wanted, seed = int(sys.argv[3]) if len(sys.argv) > 3 else 4000, int(sys.argv[4]) if len(sys.argv) > 4 else 1
CREATE, WRITE, TRUNCATE, PUNCH, SYNC, RENAME, UNLINK, LINK = range(8)
HEAD, KIB, MIB = struct.Struct('<4I3Q'), 1 << 10, 1 << 20
work = tempfile.mkdtemp(dir='/dev/shm' if os.path.isdir('/dev/shm') else None)
faults = states = looked = 0
environment = dict(os.environ, HOME=work + '/home', XDG_DATA_HOME=work + '/home', XDG_CONFIG_HOME=work + '/home')

def fault(text):
    global faults
    faults += 1
    if faults <= 20:
        print('power_cuts:', text)

def content(path):
    with open(path, 'rb') as f:
        return f.read()

def run(*arguments, cwd, **more):
    return subprocess.run([umbra, *arguments], cwd=cwd, capture_output=True, timeout=100, env=dict(environment, **more))

def qemu(*arguments, cwd):
    subprocess.run(['qemu-img', *arguments], cwd=cwd, check=True, capture_output=True)

# ---- what is there before ----

random.seed(18)
noise = random.randbytes(192 * KIB)
base = work + '/base'
os.mkdir(base)
with open(base + '/s.raw', 'wb') as f:
    f.write(noise + bytes(512 * KIB) + noise[:64 * KIB])
    f.truncate(MIB)
qemu('convert', '-f', 'raw', '-O', 'qcow2', 's.raw', 's.qcow2', cwd=base)
for arguments in (['create', 'p.vhdx', '--size', '3M', '--block-size', '1M'], ['create', 'p.vhd', '--size', '3M', '--format', 'vhd'],
                  ['write', 'p.vhdx', '--from', 's.raw'], ['write', 'p.vhd', '--from', 's.raw', '--format', 'vhd'],
                  ['create', 'c.vhdx', '--parent', 'p.vhdx'], ['write', 'c.vhdx', '--offset', '1M', '--from', 's.raw'],
                  ['export', 's.raw', 'x.ova', '--format', 'raw']):
    p = run('disk', *arguments, cwd=base)
    if p.returncode:
        sys.exit('power_cuts: %s: %s' % (arguments, p.stderr.decode()))
qemu('create', '-q', '-f', 'qcow2', '-b', 's.raw', '-F', 'raw', 'c.qcow2', cwd=base)
with open(base + '/cut.raw', 'wb') as f:
    f.write(noise)
# a file system, and what somebody has left in its free space
os.mkdir(work + '/root')
with open(base + '/g.raw', 'wb') as f, open(work + '/root/kept', 'wb') as kept:
    kept.write(noise[:96 * KIB])
    f.truncate(2 * MIB)
    f.seek(MIB)
    f.write(noise[:64 * KIB] * 12)
subprocess.run(['/sbin/mke2fs', '-q', '-F', '-t', 'ext2', '-b', '1024', '-E', 'nodiscard', '-d', work + '/root', 'g.raw'], cwd=base, check=True, capture_output=True)
for form in ('vhdx', 'vhd', 'qcow2'):
    run('disk', 'convert', 'g.raw', 'g.' + form, '--from', 'raw', '--to', form, *(('--block-size', '1M') if form == 'vhdx' else ()), cwd=base)
qemu('convert', '-f', 'raw', '-O', 'qcow2', '-c', 'g.raw', 'gp.qcow2', cwd=base)
qemu('convert', '-f', 'raw', '-O', 'vmdk', '-o', 'subformat=streamOptimized', 's.raw', 's.vmdk', cwd=base)
for name in os.listdir(base): # of what qemu-img and a convert have left
    if name.startswith('g') and name.endswith('.umbra'):
        os.remove(base + '/' + name)

# ---- verbs: the files that they change in place have a format ----

MAKING = [('create', 'n.' + f, '--size', '2M', '--format', f, *more) for f, *more in (('vhdx',), ('vhdx', '--fixed'), ('vhd',), ('vhd', '--fixed'), ('raw',))]
MAKING += [('create', 'n.vhdx', '--parent', 'p.vhdx'), ('create', 'n.vhd', '--parent', 'p.vhd', '--format', 'vhd'), ('snapshot', 'c.vhdx', 'n.vhdx'),
           ('create', 'n.vhdx', '--parent', 's.raw', '--parent-format', 'raw')]
MAKING += [('convert', 's.qcow2', 'n.' + f, '--from', 'qcow2', '--to', f, *more) for f, *more in (
    ('raw',), ('vhdx', '--block-size', '1M'), ('vhdx', '--fixed'), ('vhd',), ('vhd', '--fixed'), ('vmdk',), ('qcow2',), ('qcow2', '--compress', 'zlib'),
    ('qcow2', '--compress', 'zstd', '--block-size', '4K'))]
MAKING += [('convert', 's.raw', 'n.vhd', '--from', 'raw', '--azure'), ('convert', 'c.vhdx', 'n.raw', '--to', 'raw'),
           ('convert', 's.raw', 'n.qcow2', '--from', 'raw', '--to', 'qcow2', '--parent', 'cut.raw', '--parent-format', 'raw'),
           ('rescue', 's.raw', 'n.raw', '--from', 'raw', '--to', 'raw'), ('rescue', 's.qcow2', 'n.vhdx', '--from', 'qcow2'),
           ('export-changes', 'c.vhdx', 'n.vhdx', '--since', 'p.vhdx'), ('export', 's.raw', 'n.ova', '--format', 'raw', '--disk', 'cut.raw'),
           ('import', 'x.ova', '.'), ('import', 'x.ova', '.', '--to', 'raw'), ('convert', 's.vmdk', 'n.vhdx', '--from', 'vmdk'),
           ('convert', 'g.qcow2', 'n.vhd', '--from', 'qcow2', '--to', 'vhd'), ('convert', 'c.qcow2', 'n.qcow2', '--from', 'qcow2', '--to', 'qcow2'),
           ('convert', 'c.qcow2', 'n.vmdk', '--from', 'qcow2', '--to', 'vmdk'), ('export', 'p.vhdx', 'n.ova')]
CHANGING = [(('resize', 'p.vhdx', '--size', '5M'), 'p.vhdx', 'vhdx'), (('write', 'p.vhdx', '--offset', '512K', '--from', 's.raw'), 'p.vhdx', 'vhdx'),
            (('write', 'p.vhd', '--offset', '512K', '--from', 's.raw', '--format', 'vhd'), 'p.vhd', 'vhd'),
            (('freeze', 'p.vhdx', '--reason', 'x'), 'p.vhdx', 'vhdx'), (('freeze', 'p.vhd', '--format', 'vhd', '--reason', 'x'), 'p.vhd', 'vhd'),
            (('check', 'p.vhdx', '--digests'), 'p.vhdx', 'vhdx'), (('check', 's.qcow2', '--digests', '--format', 'qcow2'), 's.qcow2', 'qcow2'),
            (('repair-link', 'c.qcow2', '--format', 'qcow2', '--reason', 'x'), 'c.qcow2', 'qcow2'),
            (('repair-link', 'c.vhdx', '--reason', 'x'), 'c.vhdx', 'vhdx'), (('commit', 'c.vhdx'), 'c.vhdx', 'vhdx'),
            (('stream', 'c.vhdx'), 'c.vhdx', 'vhdx'), (('compact', 'c.vhdx'), 'c.vhdx', 'vhdx'), (('compact', 'g.vhdx'), 'g.vhdx', 'vhdx')]
CHANGING += [(('shrink', name, '--format', form), name, form) for name, form in
             (('g.raw', 'raw'), ('g.vhdx', 'vhdx'), ('g.vhd', 'vhd'), ('g.qcow2', 'qcow2'), ('gp.qcow2', 'qcow2'))]

# ---- the record ----

class Record:
    """acts: (kind, inode or names, offset, bytes, data), in order."""
    def __init__(self, verb, place):
        self.verb, self.place, self.log = verb, place, place + '.log'
        shutil.copytree(base, place)
        self.before = {name: os.stat(place + '/' + name).st_ino for name in os.listdir(place)}
        self.folder = os.stat(place).st_ino
        p = run('disk', *verb, cwd=place, LD_PRELOAD=shim, ACTS_LOG=self.log)
        if p.returncode:
            fault('%s: %s' % (' '.join(verb), p.stderr.decode().strip()))
        self.after = {name: os.stat(place + '/' + name).st_ino for name in os.listdir(place)}
        self.final = {inode: content(place + '/' + name) for name, inode in self.after.items()}
        self.start = {inode: content(base + '/' + name) for name, inode in self.before.items()}
        self.acts = list(self.read())
        if os.path.exists(self.log):
            os.remove(self.log)

    def read(self):
        data, at = content(self.log) if os.path.exists(self.log) else b'', 0
        while at < len(data):
            kind, names, others, count, inode, offset, size = HEAD.unpack_from(data, at)
            at += HEAD.size
            name, other = (os.path.basename(data[a:b].decode()) for a, b in ((at, at + names), (at + names, at + names + others)))
            at += names + others
            yield kind, inode, name, other, offset, count if kind == WRITE else size, data[at:at + count]
            at += count

def apply(image, act, begin=0, end=None):
    kind, _, _, _, offset, size, data = act
    if kind == WRITE:
        end = len(data) if end is None else end
        if len(image) < offset + begin:
            image.extend(bytes(offset + begin - len(image)))
        image[offset + begin:offset + end] = data[begin:end]
    elif kind == TRUNCATE:
        if size < len(image):
            del image[size:]
        else:
            image.extend(bytes(size - len(image)))
    elif kind == PUNCH:
        stop = min(offset + size, len(image))
        if offset < stop:
            image[offset:stop] = bytes(stop - offset)

def choose(record, cut, rnd, without_syncs):
    """Which names there are, and of each file which acts have come through: (names, {inode: [(act, begin, end)]}), and a key of it."""
    names, changes, sure = dict(record.before), [], 0
    applied, unsure = {}, {}
    for index in range(cut):
        act = record.acts[index]
        kind, inode = act[0], act[1]
        if kind in (CREATE, RENAME, UNLINK):
            changes.append(act)
        elif kind == SYNC and not without_syncs:
            if inode == record.folder:
                sure = len(changes)
            else:
                applied.setdefault(inode, []).extend((n, 0, None) for n in unsure.pop(inode, []))
        elif kind != SYNC:
            unsure.setdefault(inode, []).append(index)
    made = rnd.randint(sure, len(changes))
    for kind, inode, name, other, *_ in changes[:made]:
        if kind == CREATE:
            names[name] = inode
        elif kind == UNLINK:
            names.pop(name, None)
        else:
            names[other] = names.pop(name, None)
    for inode, indices in unsure.items():
        how = rnd.random()
        some = applied.setdefault(inode, [])
        for n in indices:
            choice = rnd.random()
            pieces = len(record.acts[n][6]) // 512
            if choice < how:
                if pieces > 1 and choice < how / 4:
                    at = rnd.randrange(1, pieces) * 512
                    some.append((n, 0, at) if rnd.random() < .5 else (n, at, None))
                else:
                    some.append((n, 0, None))
    return names, applied, (made, tuple(sorted((inode, tuple(some)) for inode, some in applied.items())))

def image_of(record, inode, applied):
    image = bytearray(record.start.get(inode, b''))
    for n, begin, end in applied.get(inode, []):
        apply(image, record.acts[n], begin, end)
    return bytes(image)

def whole(record, inode, applied, counts):
    """Whether a file is all of what it becomes; without making it, where all of its acts are there."""
    some = applied.get(inode, [])
    if len(some) == counts.get(inode, 0) and all(end is None and not begin for _, begin, end in some):
        return True
    return image_of(record, inode, applied) == record.final.get(inode)

def reads_the_same(record, names, applied, name):
    """One that is not in each byte what it becomes may be the same disk: its length, what was freed."""
    global looked
    form, place = name.rsplit('.', 1)[-1], work + '/state'
    if form not in ('vhdx', 'vhd', 'qcow2', 'vmdk', 'raw'):
        return False
    looked += 1
    shutil.copytree(base, place)
    for other, inode in names.items():
        if inode not in record.start:
            with open(place + '/' + other, 'wb') as f:
                f.write(image_of(record, inode, applied))
    same = read(place, name, form)
    same = same is not None and same == read(record.place, name, form) and not run('disk', 'check', name, '--format', form, cwd=place).returncode
    shutil.rmtree(place)
    return same

def cuts_of_making(record, want, rnd, seen, without_syncs=False):
    """Until `seen` has so many; how many of them were faults."""
    global states
    counts, bad, before = {}, 0, len(seen)
    for act in record.acts:
        if act[0] in (WRITE, TRUNCATE, PUNCH):
            counts[act[1]] = counts.get(act[1], 0) + 1
    for inode in record.start:
        if inode in counts:
            fault('%s has changed a file that was there' % ' '.join(record.verb))
    for attempt in range((want - before) * 3):
        if len(seen) >= want:
            break
        cut = (before + attempt) % (len(record.acts) + 1)
        names, applied, key = choose(record, cut, rnd, without_syncs)
        if (cut, key) in seen:
            continue
        seen.add((cut, key))
        lost = [name for name in record.before if names.get(name) != record.before[name]]
        torn = [name for name, inode in names.items() if name not in record.before and 'unfinished' not in name and not whole(record, inode, applied, counts)
                and not (not without_syncs and reads_the_same(record, names, applied, name))]
        torn += [name for name in names if name + '.umbra' in record.after and name not in record.before and name + '.umbra' not in names]
        bad += bool(lost or torn)
        if (lost or torn) and not without_syncs:
            fault('%s cut at act %d of %d: lost %s, not whole %s' % (' '.join(record.verb), cut, len(record.acts), lost, torn))
        if without_syncs and bad:
            break
    states += 0 if without_syncs else len(seen) - before
    return bad

def read(place, name, form):
    p = run('disk', 'read', name, '--format', form, cwd=place)
    return p.stdout if not p.returncode else None

def cuts_of_changing(record, name, form, want, rnd):
    global states, looked
    old, new = read(base, name, form), read(record.place, name, form)
    seen = set()
    for attempt in range(want * 3):
        if len(seen) == want:
            break
        cut = rnd.randrange(len(record.acts) + 1)
        names, applied, key = choose(record, cut, rnd, False)
        if (cut, key) in seen:
            continue
        seen.add((cut, key))
        place = work + '/state'
        shutil.copytree(base, place)
        for file, inode in names.items():
            if applied.get(inode) or file not in record.before:
                with open(place + '/' + file, 'wb') as f:
                    f.write(image_of(record, inode, applied))
        is_now = read(place, name, form)
        size = len(is_now or b'')
        right = is_now is not None and size in (len(old), len(new)) and all(
            is_now[at:at + 512] in (old[at:at + 512], new[at:at + 512], bytes(512) if at >= len(old) else old[at:at + 512]) for at in range(0, size, 512))
        if not right:
            fault('%s cut at act %d of %d: %s' % (' '.join(record.verb), cut, len(record.acts),
                  run('disk', 'info', name, '--format', form, cwd=place).stderr.decode().strip() or 'reads something else'))
        looked += 1
        shutil.rmtree(place)
    states += len(seen)

rnd = random.Random(seed)
controls = 0
slow = max(2, wanted // 2000)
for n, (verb, name, form) in enumerate(CHANGING):
    record = Record(verb, '%s/c%d' % (work, n))
    cuts_of_changing(record, name, form, slow, rnd)
    shutil.rmtree(record.place)
made = [(Record(verb, '%s/%d' % (work, n)), set()) for n, verb in enumerate(MAKING)]
for n, (record, seen) in enumerate(made):
    cuts_of_making(record, max(1, (wanted - states) // (len(made) - n)), rnd, seen)
    controls += bool(cuts_of_making(record, 400, rnd, set(), True))
# some have few acts, and no more states: others take their part
while states < wanted:
    before = states
    for record, seen in sorted(made, key=lambda pair: -len(pair[0].acts))[:8]:
        cuts_of_making(record, len(seen) + -(-(wanted - states) // 8), rnd, seen)
    if states < before + (wanted - before) // 100:
        break
for record, _ in made:
    shutil.rmtree(record.place)
if controls < len(MAKING) // 2:
    fault('without syncs only %d of %d verbs have faults: something is not looked at' % (controls, len(MAKING)))
shutil.rmtree(work)
print('power_cuts: %d verbs, %d states, %d of them opened, %d faults' % (len(MAKING) + len(CHANGING), states, looked, faults))
sys.exit(faults != 0)
