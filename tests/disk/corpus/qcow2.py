"""qcow2: QEMU's docs/interop/qcow2.txt, versions 2 and 3."""
import struct, zlib
from case import Case, pattern

COPIED, PACKED, PADDING = 1 << 63, 1 << 62, -1

def qcow2(size, content, version=3, bits=16, backing=None, form=b'raw', incompatible=0, compression=0, head_bytes=112, wide=False, zero=(), packed=False,
          magic=0x514649fb, l1_at=None, l1_entries=None, crypt=0, extensions=(), entry={}, cut=0, l2=None, snapshots=0):
    """content: {cluster: bytes or the 32-bit masks of subclusters and bytes}. Head, names, refcounts, one table of tables, its tables, clusters."""
    cluster = 1 << bits
    words = 2 if wide else 1
    per = cluster // 8 // words
    tables = -(-size // (per * cluster)) or 1
    l1_clusters = -(-tables * 8 // cluster)
    used = sorted({n // per for n in [*content, *zero, *entry]})
    refcounts_at, l1_place = cluster, 3 * cluster
    tables_at = l1_place + l1_clusters * cluster
    at = tables_at + len(used) * cluster
    l1, entries, body = [0] * tables, {t: [0] * (cluster // 8) for t in used}, b''
    for index, t in enumerate(used):
        l1[t] = COPIED | (tables_at + index * cluster)
    for n in zero:
        entries[n // per][n % per * words] = 1 if not wide else 0
        if wide:
            entries[n // per][n % per * 2 + 1] = 0xffffffff << 32
    for n, data in content.items():
        mask = 0xffffffff
        if isinstance(data, tuple):
            mask, data = data
        data = data.ljust(cluster, b'\0')
        if packed:
            raw = zlib.compressobj(9, zlib.DEFLATED, -12)
            data = raw.compress(data) + raw.flush()
            shift = 62 - (bits - 8)
            place = at + len(body)
            entries[n // per][n % per * words] = PACKED | ((place + len(data) - 1) // 512 - place // 512) << shift | place
        else:
            entries[n // per][n % per * words] = COPIED | (at + len(body))
        if wide and not packed:
            entries[n // per][n % per * 2 + 1] = mask
        body += data
    for n, value in entry.items():
        entries[n // per][n % per * words] = value
    if l2 is not None:
        l1[0] = l2
    if packed and cut == PADDING:
        cut = 0
    elif packed:
        body = body.ljust(-(-len(body) // 512) * 512, b'\0')
    texts = b''.join(struct.pack('>II', kind, len(text)) + text.ljust(-(-len(text) // 8) * 8, b'\0') for kind, text in extensions)
    if backing and form:
        texts = struct.pack('>II', 0xe2792aca, len(form)) + form.ljust(-(-len(form) // 8) * 8, b'\0') + texts
    texts += bytes(8)
    base = 72 if version == 2 else head_bytes
    name_at = base + len(texts) if backing else 0
    head = struct.pack('>IIQIIQIIQQIIQ', magic, version, name_at, len(backing or b''), bits, size, crypt, tables if l1_entries is None else l1_entries,
                       l1_place if l1_at is None else l1_at, refcounts_at, 1, snapshots, 0)
    if version > 2:
        head += struct.pack('>QQQII', incompatible | (16 if wide else 0), 0, 0, 4, head_bytes) + (bytes([compression]) + bytes(7))
        head = head[:head_bytes]
    out = (head + texts + (backing or b'')).ljust(cluster, b'\0')
    out += struct.pack('>Q', 2 * cluster).ljust(cluster, b'\0')
    clusters = -(-(at + len(body)) // cluster)
    out += struct.pack('>%dH' % clusters, *[1] * clusters).ljust(cluster, b'\0')
    out += struct.pack('>%dQ' % tables, *l1).ljust(l1_clusters * cluster, b'\0')
    for t in used:
        out += struct.pack('>%dQ' % (cluster // 8), *entries[t])
    out += body
    return out[:len(out) - cut]

def cases():
    size, cluster = 1 << 20, 65536
    some = {0: pattern(cluster, 1), 5: pattern(cluster, 2), 15: pattern(cluster, 3)}
    want = bytearray(size)
    for n, data in some.items():
        want[n * cluster:(n + 1) * cluster] = data
    want = bytes(want)

    def of(name, data, wanted=want, **more):
        return Case(name, 'qcow2', {name: data, **more.pop('files', {})}, wanted, **more)

    def refused(name, data, says, **more):
        return of(name, data, None, says=says, qemu=None, libyal=None, **more)

    yield of('version-2.qcow2', qcow2(size, some, version=2))
    yield of('version-3.qcow2', qcow2(size, some))
    yield of('head-of-104.qcow2', qcow2(size, some, head_bytes=104))
    yield of('extensions.qcow2', qcow2(size, some, extensions=[(0x6803f857, b'x' * 48), (0x12345678, b'unknown')]), libyal=None)
    yield of('zero-clusters.qcow2', qcow2(size, some, zero=[1, 2, 9]), libyal=None)
    yield of('packed.qcow2', qcow2(size, some, packed=True), libyal=None)
    yield of('packed-last-sector-cut.qcow2', qcow2(size, some, packed=True, cut=PADDING), libyal=None, qemu=None)
    yield of('subclusters.qcow2', qcow2(size, {**some, 7: (0x0000ffff, pattern(cluster, 7))}, wide=True),
             want[:7 * cluster] + pattern(cluster, 7)[:cluster // 2] + bytes(cluster // 2) + want[8 * cluster:], libyal=None)
    for bits in (9, 12, 21):
        few = {0: pattern(1 << bits, 1), 2: pattern(1 << bits, 2)}
        total = 8 << bits
        yield of('clusters-of-2-to-%d.qcow2' % bits, qcow2(total, few, bits=bits), few[0] + bytes(1 << bits) + few[2] + bytes(5 << bits))
    base = pattern(size // 2, 9)
    over = base + bytes(size // 2)
    over = some[0] + over[cluster:5 * cluster] + some[5] + over[6 * cluster:15 * cluster] + some[15]
    child = dict(files={'base.raw': base}, libyal=None)
    yield of('child.qcow2', qcow2(size, some, backing=b'base.raw'), over, **child)
    yield of('child-version-2.qcow2', qcow2(size, some, version=2, backing=b'base.raw'), over, **child)
    zeros = over[:cluster] + bytes(cluster) + over[2 * cluster:]
    yield of('child-zero-cluster.qcow2', qcow2(size, some, backing=b'base.raw', zero=[1]), zeros, **child)
    yield refused('child-says-no-format.qcow2', qcow2(size, some, backing=b'base.raw', form=None), 'format', files={'base.raw': base})
    yield refused('child-json.qcow2', qcow2(size, some, backing=b'json:{"file":1}'), 'plain path')
    yield refused('child-orphan.qcow2', qcow2(size, some, backing=b'gone.raw'), 'gone.raw', offset=False, named='gone.raw')
    yield refused('child-outside.qcow2', qcow2(size, some, backing=b'/etc/passwd'), 'not allowed', code=78, offset=False, named='/etc/passwd')
    yield refused('magic.qcow2', qcow2(size, some, magic=0x514649fc), 'offset 0')
    yield refused('version-1.qcow2', qcow2(size, some, version=1), 'version')
    yield refused('cluster-bits.qcow2', qcow2(size, some)[:20] + struct.pack('>I', 30) + qcow2(size, some)[24:], 'cluster')
    yield refused('size-nothing.qcow2', qcow2(0, {}), 'size')
    yield refused('corrupt.qcow2', qcow2(size, some, incompatible=2), 'corrupt')
    yield refused('external.qcow2', qcow2(size, some, incompatible=4), 'external')
    yield refused('feature-unknown.qcow2', qcow2(size, some, incompatible=1 << 40), 'feature')
    yield refused('encrypted.qcow2', qcow2(size, some, crypt=1), 'encrypted')
    yield refused('compression-9.qcow2', qcow2(size, some, incompatible=8, compression=9), 'compression')
    yield refused('first-table-short.qcow2', qcow2(1 << 40, {}, l1_entries=2), 'first table')
    yield refused('first-table-nowhere.qcow2', qcow2(size, some, l1_at=1 << 40), 'first table')
    yield refused('first-table-unaligned.qcow2', qcow2(size, some, l1_at=12345), 'first table')
    yield refused('second-table-nowhere.qcow2', qcow2(size, some, l2=COPIED | 1 << 40), 'cut off')
    yield refused('second-table-unaligned.qcow2', qcow2(size, some, l2=COPIED | 0x60200), 'not sound')
    yield refused('cluster-nowhere.qcow2', qcow2(size, some, entry={6: COPIED | 1 << 40}), 'cut off')
    yield refused('cluster-unaligned.qcow2', qcow2(size, some, entry={6: COPIED | 0x60200}), 'not sound')
    yield refused('cut.qcow2', qcow2(size, some, cut=cluster // 2), 'cut off')
    yield refused('packed-nowhere.qcow2', qcow2(size, some, entry={6: PACKED | 1 << 50}), 'cut off')
