"""One file, or some that belong together, and what must come out."""
from dataclasses import dataclass, field

@dataclass
class Case:
    name: str                 # of the file that is opened
    form: str                 # as umbra calls it
    files: dict               # name: bytes
    want: bytes = None        # None: it is refused
    says: str = ''            # of a refusal: its structure
    code: int = 65
    check: str = 'no fault'   # what check says
    qemu: object = True       # whether qemu-img reads the same; a number of bytes: as much of it; None: it is not asked
    libyal: object = True     # the same of libvhdi, libvmdk, libqcow
    parents: tuple = ()       # for libyal, which does not look for them
    offset: bool = True       # the refusal says where
    named: str = ''           # the file that it names, where that is another one

def pattern(count, seed=0):
    """Bytes that tell where they belong, cheaply."""
    out = bytearray(count)
    for at in range(0, count, 512):
        out[at:at + 512] = (b'%08d' % (at // 512 + seed * 100000)) * 64
    return bytes(out[:count])
