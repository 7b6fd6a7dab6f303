#!/usr/bin/python3
"""Small files made from the specifications, each with what must come out: of Umbra, and of those other readers that read such a one (qemu-img,
libvhdi, libvmdk, libqcow). Each is read, converted and checked, and unchanged by it; a refusal is one line that names the file, where in it and what
is wrong, and the remedy. usage: run.py UMBRA [NAME]"""
import os, re, shutil, subprocess, sys, tempfile
sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import pyqcow, pyvhdi, pyvmdk
import qcow2, vhd, vmdk

umbra = os.path.abspath(sys.argv[1])
only = sys.argv[2] if len(sys.argv) > 2 else ''
work = tempfile.mkdtemp()
os.chdir(work)
failures = cases = foreign = 0

def fault(case, text):
    global failures
    failures += 1
    print('corpus: %s: %s' % (case.name, text))

def run(*arguments):
    return subprocess.run(arguments, capture_output=True, timeout=100)

def disk(verb, case, *more):
    return run(umbra, 'disk', verb, case.name, *more, '--from' if verb == 'convert' else '--format', case.form)

def by_qemu(case):
    p = run('qemu-img', 'convert', '-f', {'vhd': 'vpc'}.get(case.form, case.form), '-O', 'raw', case.name, 'theirs')
    data = open('theirs', 'rb').read() if os.path.exists('theirs') else b''
    want = case.want if case.qemu is True else case.want[:case.qemu]
    # it knows sizes by cylinders
    if p.returncode or data[:len(want)] != want[:len(data)] or len(data) < min(len(want), 4096):
        fault(case, 'is something else for qemu-img: ' + p.stderr.decode().strip()[-200:])
    if os.path.exists('theirs'):
        os.remove('theirs')

def by_libyal(case):
    def one(name):
        file = {'vhd': pyvhdi.file, 'vmdk': pyvmdk.handle, 'qcow2': pyqcow.file}[case.form]()
        file.open(name)
        if case.form == 'vmdk':
            file.open_extent_data_files()
        return file
    try:
        file, parents = one(case.name), [one(name) for name in case.parents]
        for parent in parents[:1]:
            file.set_parent(parent)
        data = file.read(file.get_media_size())
    except OSError as error:
        fault(case, 'is refused by libyal: %s' % str(error)[:200])
        return
    if data != case.want:
        fault(case, 'is something else for libyal')

def reads(case):
    global foreign
    p = disk('read', case)
    if p.returncode or p.stdout != case.want:
        fault(case, 'reads something else: ' + p.stderr.decode().strip())
    p = disk('check', case)
    if case.check not in (p.stdout + p.stderr).decode():
        fault(case, 'check says %s' % (p.stdout + p.stderr).decode().strip())
    p = disk('convert', case, 'ours', '--to', 'raw', '--no-sync')
    if p.returncode or open('ours', 'rb').read() != case.want:
        fault(case, 'converts to something else: ' + p.stderr.decode().strip())
    for name in ('ours', 'ours.umbra'):
        if os.path.exists(name):
            os.remove(name)
    for asked, reader in ((case.qemu, by_qemu), (case.libyal, by_libyal)):
        if asked:
            reader(case)
            foreign += 1

def refused(case):
    for verb, more in (('read', ()), ('convert', ('ours', '--to', 'raw'))):
        p = disk(verb, case, *more)
        text = p.stderr.decode()
        if p.returncode != case.code:
            fault(case, '%s ended with %d, not %d: %s' % (verb, p.returncode, case.code, text.strip()))
        named = [case.named] if case.named else case.files
        if text.count('\n') != 1 or not any(name in text for name in named) or '; expected: ' not in text:
            fault(case, '%s: not one line with the file and the remedy: %s' % (verb, text.strip()))
        if case.says not in text:
            fault(case, '%s does not say "%s": %s' % (verb, case.says, text.strip()))
        if case.offset and not re.search(r'offset \d+', text):
            fault(case, '%s does not say where: %s' % (verb, text.strip()))
        if os.path.exists('ours'):
            fault(case, 'was converted')
            os.remove('ours')

for case in [*vhd.cases(), *vmdk.cases(), *qcow2.cases()]:
    if only not in case.name:
        continue
    cases += 1
    for name, data in case.files.items():
        with open(name, 'wb') as f:
            f.write(data)
    (refused if case.want is None else reads)(case)
    for name, data in case.files.items():
        if open(name, 'rb').read() != data:
            fault(case, 'was changed: ' + name)
        os.remove(name)
    left = os.listdir('.')
    if left:
        fault(case, 'has left %s' % left)
        for name in left:
            os.remove(name)

os.chdir('/')
shutil.rmtree(work)
print('corpus: %d files, %d of them by other readers, too, %d faults' % (cases, foreign, failures))
sys.exit(failures != 0)
