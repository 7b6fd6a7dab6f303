"""VMDK: VMware Virtual Disk Format 5.0, and what ESX has: descriptors, VMFSSPARSE extents. (SESparse: ../corpus.py.)"""
import struct, zlib
from case import Case, pattern

FLAT, GRAIN, ENTRIES = pattern(8192, 3), 65536, 512

def descriptor(lines, kind='monolithicFlat', parent='ffffffff', extra='', end='\n', cid='12345678'):
    text = '# Disk DescriptorFile\nversion=1\nCID=%s\nparentCID=%s\ncreateType="%s"\n%s\n# Extent description\n%s\n\n# The Disk Data Base\n#DDB\n\nddb.adapterType = "ide"\n' % (cid, parent, kind, extra, '\n'.join(lines))
    return text.replace('\n', end).encode()

def head(sectors, version=1, flags=3, grain=128, at=1, at_sectors=20, entries=ENTRIES, second=21, directory=21, overhead=128, compression=0, magic=0x564d444b):
    return struct.pack('<IIIQQQQIQQQB4sH', magic, version, flags, sectors, grain, at, at_sectors, entries, second, directory, overhead, 0, b'\n \r\n', compression).ljust(512, b'\0')

def embedded(sectors, name, **more):
    return descriptor(['RW %d SPARSE "%s"' % (sectors, name)], kind='monolithicSparse', **more).ljust(20 * 512, b'\0')

def sparse(name, size, grains, zero=(), text=True, entry={}, cut=0, about={}, **of_head):
    """The directory at sector 21, one table behind it for each 32 MiB, then grains from sector 128 on."""
    sectors = size // 512
    tables = -(-size // (GRAIN * ENTRIES))
    directory = b''.join(struct.pack('<I', 22 + 4 * n) for n in range(tables)).ljust(512, b'\0')
    table, body = [0] * ENTRIES * tables, b''
    for n in zero:
        table[n] = 1
    for n, data in grains.items():
        table[n] = 128 + len(body) // 512
        body += data.ljust(GRAIN, b'\0')
    for n, value in entry.items():
        table[n] = value
    out = head(sectors, **of_head) + (embedded(sectors, name, **about) if text else bytes(20 * 512)) + directory + struct.pack('<%dI' % len(table), *table)
    out = out.ljust(128 * 512, b'\0') + body
    return out[:len(out) - cut]

def mark(sector, count, kind=None):
    return struct.pack('<QI', sector, count) + (struct.pack('<I', kind).ljust(500, b'\0') if kind is not None else b'')

def stream(name, size, grains, footer=True, broken=None, level=9, lie=None):
    sectors = size // 512
    out = head(sectors, 3, 0x30001, directory=0xffffffffffffffff, compression=1) + embedded(sectors, name, extra='')
    out = out.ljust(128 * 512, b'\0')
    table = [0] * ENTRIES
    for n, data in grains.items():
        packed = bytearray(zlib.compress(data, level))
        if n == broken:
            packed[-1] ^= 1
        table[n] = len(out) // 512
        out += mark(n * 128, lie if lie and n == 0 else len(packed)) + packed
        out = out.ljust(-(-len(out) // 512) * 512, b'\0')
    out += mark(4, 0, 1)
    table_at = len(out) // 512
    out += struct.pack('<512I', *table) + mark(1, 0, 2)
    directory_at = len(out) // 512
    out += struct.pack('<I', table_at).ljust(512, b'\0')
    if footer:
        out += mark(1, 0, 3) + head(sectors, 3, 0x30001, directory=directory_at, compression=1)
    return out + mark(0, 0, 0)

def cowd(size, grains, sectors=1, cut=0, entry={}, magic=0x44574f43, version=1, flags=3, directory=4, entries=None, capacity=None, grain=None):
    """ESX Server Sparse Extents: the directory at sector 4, tables of 4096 grains as they are needed, grains of some sectors."""
    tables = -(-size // 512 // sectors // 4096)
    head = struct.pack('<8I', magic, version, flags, size // 512 if capacity is None else capacity, sectors if grain is None else grain,
                       directory, tables if entries is None else entries, 0)
    out = bytearray(head + bytes(1028) + struct.pack('<I', 1)).ljust(4 * 512 + -(-tables * 4 // 512) * 512, b'\0')
    places = {}
    for n, data in grains.items():
        if n // 4096 not in places:
            places[n // 4096] = len(out)
            struct.pack_into('<I', out, 2048 + n // 4096 * 4, len(out) // 512)
            out += bytes(4096 * 4)
        struct.pack_into('<I', out, places[n // 4096] + n % 4096 * 4, entry.get(n, len(out) // 512))
        out += data.ljust(sectors * 512, b'\0')
    return bytes(out[:len(out) - cut])

def cowd_cases():
    def disk(name, extent, size, want, **more):
        text = descriptor(['RW %d VMFSSPARSE "extent"' % (size // 512)], 'vmfsSparse', **more.pop('about', {}))
        return of(name, text, want, files={'extent': extent, **more.pop('files', {})}, **more)
    def wrong(name, says, **more):
        return disk(name, cowd(1 << 20, {0: FLAT[:512]}, **more), 1 << 20, None, says=says, qemu=None, libyal=None, offset='offset' in says)
    # a table and the one behind the next one; the last grain of the disk; grains that lie behind each other and those that do not
    size = 9 * 4096 * 512 // 2 + 512
    some = {n: pattern(512, n) for n in (7, 8, 9, 0, 4095, 8192, 8193, size // 512 - 1)}
    want = bytearray(size)
    for n, data in some.items():
        want[n * 512:(n + 1) * 512] = data
    yield disk('esx-delta-alone.vmdk', cowd(size, some), size, bytes(want), libyal=None)
    large = {n: pattern(4096, n) for n in (0, 1, 2, 5, 255)}
    want = bytearray(1 << 20)
    for n, data in large.items():
        want[n * 4096:(n + 1) * 4096] = data
    yield disk('esx-grains-of-8.vmdk', cowd(1 << 20, large, 8), 1 << 20, bytes(want), libyal=None)
    yield disk('esx-empty.vmdk', cowd(1 << 20, {}), 1 << 20, bytes(1 << 20), libyal=None)
    yield disk('esx-odd-end.vmdk', cowd((1 << 20) + 1536, {256: b'e' * 1536}, 8, cut=4096 - 1536), (1 << 20) + 1536, bytes(1 << 20) + b'e' * 1536, qemu=None, libyal=None)
    base = pattern(1 << 20, 77)
    below = {'base.vmdk': descriptor(['RW 2048 VMFS "base-flat.vmdk"'], 'vmfs', cid='aaaa0001'), 'base-flat.vmdk': base}
    want = bytearray(base)
    for n in (3, 4, 2047):
        want[n * 512:(n + 1) * 512] = FLAT[:512]
    yield disk('esx-delta.vmdk', cowd(1 << 20, {n: FLAT[:512] for n in (3, 4, 2047)}), 1 << 20, bytes(want), files=below, libyal=None,
               about=dict(parent='aaaa0001', cid='aaaa0002', extra='parentFileNameHint="base.vmdk"'))
    yield refused('esx-piece.vmdk', cowd(1 << 20, {0: FLAT[:512]}), 'piece', offset=False)
    yield wrong('esx-magic.vmdk', 'COWD', magic=0x44574f44)
    yield wrong('esx-version.vmdk', 'offset 4', version=2)
    yield wrong('esx-size.vmdk', 'offset 12', capacity=0)
    yield wrong('esx-shorter.vmdk', 'shorter', capacity=2047)
    yield wrong('esx-grain-0.vmdk', 'offset 16', grain=0)
    yield wrong('esx-grain-large.vmdk', 'offset 16', grain=1 << 30)
    yield wrong('esx-tables.vmdk', 'offset 24', entries=0)
    yield wrong('esx-directory.vmdk', 'offset 20', directory=1 << 30)
    yield wrong('esx-directory-in-head.vmdk', 'offset 20', directory=1)
    yield wrong('esx-larger-than-its-directory.vmdk', 'offset 20', capacity=(1 << 32) - 1, entries=1 << 20)
    for name, more in (('esx-cut.vmdk', dict(cut=1)), ('esx-table-cut.vmdk', dict(cut=600)), ('esx-grain-nowhere.vmdk', dict(entry={0: 1 << 30})),
                       ('esx-grain-in-head.vmdk', dict(entry={0: 1}))):
        yield wrong(name, 'offset 0', **more)

def of(name, data, want, **more):
    files = {name: data, 'flat.vmdk': FLAT, **more.pop('files', {})}
    return Case(name, 'vmdk', files, want, **more)

def refused(name, data, says, **more):
    return of(name, data, None, says=says, qemu=None, libyal=None, **more)

def cases():
    line = 'RW 16 FLAT "flat.vmdk" 0'
    some = {0: pattern(GRAIN, 4), 3: pattern(GRAIN, 5), 15: pattern(GRAIN, 6)}
    size = 1 << 20
    want = bytearray(size)
    for n, data in some.items():
        want[n * GRAIN:(n + 1) * GRAIN] = data
    want = bytes(want)
    yield of('short.vmdk', descriptor([line]), FLAT)
    yield of('vmfs.vmdk', descriptor(['RW 16 VMFS "flat.vmdk"'], 'vmfs'), FLAT, libyal=None)
    yield of('pieces-512.vmdk', descriptor([line] * 512, 'twoGbMaxExtentFlat'), FLAT * 512, libyal=None)
    yield of('dot.vmdk', descriptor(['RW 16 FLAT "./flat.vmdk" 0']), FLAT, libyal=None)
    yield of('line-ends.vmdk', descriptor([line], extra='# ' + 'x' * 500, end='\r\n'), FLAT)
    yield of('padded.vmdk', descriptor([line]) + bytes(10240), FLAT, libyal=None)
    yield of('lower.vmdk', descriptor(['rw 16 flat "flat.vmdk" 0'], 'vmfs'), FLAT, qemu=None, libyal=None)
    yield of('from-sector-8.vmdk', descriptor(['RW 8 FLAT "flat.vmdk" 8']), FLAT[4096:], libyal=None)
    yield of('zero-and-no-access.vmdk', descriptor([line, 'RW 32 ZERO', 'NOACCESS 16 ZERO', line], 'custom'), FLAT + bytes(24576) + FLAT, qemu=None, libyal=None)
    yield of('read-only.vmdk', descriptor(['RDONLY 16 FLAT "flat.vmdk" 0'], 'custom'), FLAT, qemu=None, libyal=None)
    yield of('sparse.vmdk', sparse('sparse.vmdk', size, some), want)
    yield of('sparse-zeros.vmdk', sparse('sparse-zeros.vmdk', size, some, zero=[1, 2, 9], version=2, flags=7), want, libyal=None)
    yield of('sparse-version-3.vmdk', sparse('sparse-version-3.vmdk', size, some, version=3), want, libyal=None)
    yield of('sparse-80m.vmdk', sparse('sparse-80m.vmdk', 80 << 20, {0: some[0], 1200: some[3]}), some[0] + bytes(1199 * GRAIN) + some[3] + bytes((80 << 20) - 1201 * GRAIN))
    yield of('stream.vmdk', stream('stream.vmdk', size, some), want, libyal=None)
    yield of('stream-not-smaller.vmdk', stream('stream-not-smaller.vmdk', size, some, level=0), want, libyal=None)
    odd = (1 << 20) + 512 * 3
    yield of('stream-odd.vmdk', stream('stream-odd.vmdk', odd, {**some, 16: b'e' * 1536}), want + b'e' * 1536, libyal=None)
    delta = sparse('delta.vmdk', size, {3: some[0]}, about=dict(parent='12345678', cid='aaaa0001', extra='parentFileNameHint="sparse.vmdk"'))
    below = {'sparse.vmdk': sparse('sparse.vmdk', size, some)}
    yield of('delta.vmdk', delta, want[:3 * GRAIN] + some[0] + want[4 * GRAIN:], files=below, libyal=None)
    other = sparse('delta-of-another.vmdk', size, {}, about=dict(parent='12345679', cid='aaaa0001', extra='parentFileNameHint="sparse.vmdk"'))
    yield refused('delta-of-another.vmdk', other, 'CID', files=below, offset=False)
    yield refused('outside.vmdk', descriptor(['RW 16 FLAT "/etc/passwd" 0']), 'beside it', code=78, offset=False)
    yield refused('above.vmdk', descriptor(['RW 16 FLAT "../flat.vmdk" 0']), 'beside it', code=78, offset=False)
    yield refused('no-access.vmdk', descriptor(['NOACCESS 16 FLAT "flat.vmdk" 0']), 'NOACCESS', offset=False)
    yield refused('kind-unknown.vmdk', descriptor(['RW 16 MAGIC "flat.vmdk" 0']), 'MAGIC', offset=False)
    yield refused('longer-than-its-file.vmdk', descriptor(['RW 17 FLAT "flat.vmdk" 0']), 'shorter')
    yield refused('no-extents.vmdk', descriptor([]), 'no extents', offset=False)
    yield refused('no-descriptor.vmdk', b'# Disc' + bytes(600), 'offset 0')
    yield refused('piece-s001.vmdk', sparse('piece', size, some, text=False, at=0, at_sectors=0), 'piece', offset=False)
    yield refused('version.vmdk', sparse('version.vmdk', size, some, version=9), 'version')
    yield refused('entries.vmdk', sparse('entries.vmdk', size, some, entries=99), 'entries')
    yield refused('capacity.vmdk', sparse('capacity.vmdk', 0, {}), 'size')
    yield refused('grain.vmdk', sparse('grain.vmdk', size, some, grain=100), 'grain')
    yield refused('directory.vmdk', sparse('directory.vmdk', size, some, directory=1 << 40), 'directory')
    yield refused('descriptor-nowhere.vmdk', sparse('descriptor-nowhere.vmdk', size, some, at=1 << 40), 'descriptor')
    yield refused('compression.vmdk', sparse('compression.vmdk', size, some, flags=0x30001, compression=7), 'compression')
    yield refused('no-footer.vmdk', stream('no-footer.vmdk', size, some, footer=False), 'footer')
    for name, data in (('cut.vmdk', sparse('cut.vmdk', size, some, cut=GRAIN // 2)), ('stream-cut-in-two.vmdk', stream('x', size, some)[:70000]),
                       ('grain-nowhere.vmdk', sparse('x', size, some, entry={5: 1 << 30})), ('stream-bit.vmdk', stream('x', size, some, broken=3)),
                       ('stream-length.vmdk', stream('x', size, some, lie=1 << 30)), ('stream-empty.vmdk', stream('x', size, some, lie=0x7fff0))):
        yield refused(name, data, '')
    yield from cowd_cases()
