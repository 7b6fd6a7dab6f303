"""The sections of a saved machine, for tests that change them under right checksums (docs/saved-state.md)."""
import os, struct, sys

sys.path.append(os.path.join(os.path.dirname(os.path.abspath(__file__)), ".."))
from crc32c import crc32c

HEAD, SECTION = 128, struct.Struct("<4sIQII")

def sections(data):
    """Up to the last one: what comes behind is the host's."""
    at, found = HEAD, []
    while not found or found[-1][1] != "END ":
        name, version, size, crc, head_crc = SECTION.unpack_from(data, at)
        found.append((at, name.decode(), size))
        at += SECTION.size + (size + 7 & ~7)
    return found

def seal(data, at):
    """Makes the checksums of the section at `at` right."""
    name, version, size, _, _ = SECTION.unpack_from(data, at)
    crc = crc32c(data[at + SECTION.size:at + SECTION.size + size])
    head = struct.pack("<4sIQI", name, version, size, crc)
    data[at:at + SECTION.size] = head + struct.pack("<I", crc32c(head))

def seal_head(data):
    data[HEAD - 4:HEAD] = struct.pack("<I", crc32c(data[:HEAD - 4]))

def changed_value(rng, data, at, size):
    """Some values of the section at `at`, whose payload has `size` bytes, are others."""
    for _ in range(rng.randrange(1, 4)):
        where_in = at + SECTION.size + rng.randrange(size)
        width = rng.choice([1, 1, 2, 4, 8])
        value = rng.choice([0, 1, 0xff, rng.getrandbits(64), 1 << rng.randrange(64), (1 << 64) - 1]) & ((1 << 8 * width) - 1)
        new = value.to_bytes(width, "little")[:at + SECTION.size + size - where_in]
        data[where_in:where_in + len(new)] = new
