"""Loads every ELF file below the given paths: each is for this machine, each library that one needs is there, and each
shared object opens. One that needs symbols of its host program, such as a module of perl, is opened as far as that goes;
modules of Python have their host here. What is called is the test of another check."""

import ctypes
import os
import platform
import re
import struct
import subprocess
import sys

MACHINES = {"x86_64": 62, "aarch64": 183}
ELSEWHERE = {"/proc", "/sys", "/dev", "/run", "/tmp"}
LINKER = {"x86_64": "/lib64/ld-linux-x86-64.so.2", "aarch64": "/lib/ld-linux-aarch64.so.1"}[platform.machine()]
DEFAULT = ["/lib", "/usr/lib", f"/usr/lib/{platform.machine()}-linux-gnu", "/lib64", "/usr/lib64"]


# What no loader reads, for a walk that asks less of an emulator.
TEXTS = (".py", ".pyc", ".go", ".js", ".cjs", ".mjs", ".ts", ".json", ".md", ".h", ".hpp", ".txt", ".html", ".rst", ".mo", ".pm",
         ".lua", ".vim", ".gz")


def walk(folder):
    """Regular files that may be ELF: programs, and what is named as a library or a module."""
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink() or entry.name.endswith(TEXTS) or entry.path in ELSEWHERE:
                continue
            if entry.is_dir(follow_symlinks=False):
                yield from walk(entry.path)
            elif entry.is_file(follow_symlinks=False):
                about = entry.stat(follow_symlinks=False)
                if about.st_mode & 0o111 or ".so" in entry.name or entry.name.endswith(".node"):
                    yield entry.path, (about.st_dev, about.st_ino)


# Libraries of a desktop, which a container does not have: pi's module for the clipboard of X11 is not used without one.
DESKTOP = ("libxcb.so.1",)


def files(roots):
    seen = set()
    for root in roots:
        if os.path.isfile(root):
            yield root
            continue
        for path, inode in walk(root):
            if inode not in seen:
                seen.add(inode)
                yield path


class Elf:
    """What the program headers and the dynamic section say (System V ABI, "Program Header", "Dynamic Section")."""

    def __init__(self, file):
        head = file.read(64)
        self.kind, self.machine = struct.unpack_from("<HH", head, 16)
        offset, size, count = (*struct.unpack_from("<Q", head, 32), *struct.unpack_from("<HH", head, 54))
        file.seek(offset)
        table = file.read(size * count)
        segments = [struct.unpack_from("<IIQQQQQQ", table, at * size) for at in range(count)]
        self.interpreter, self.needed, self.paths = None, [], []
        for kind, _, start, _, _, length, _, _ in segments:
            file.seek(start)
            if kind == 3:
                self.interpreter = file.read(length).rstrip(b"\0").decode()
            if kind == 2:
                self.dynamic(file, file.read(length), [it for it in segments if it[0] == 1])

    def dynamic(self, file, section, loaded):
        entries = [struct.unpack_from("<qQ", section, at) for at in range(0, len(section) - 15, 16)]
        entries = entries[: next((at for at, entry in enumerate(entries) if entry[0] == 0), len(entries))]
        strings = [value for tag, value in entries if tag == 5]
        if not strings:
            return
        start = next(it[2] + strings[0] - it[3] for it in loaded if it[3] <= strings[0] < it[3] + it[5])

        def text(at):
            file.seek(start + at)
            return file.read(4096).split(b"\0", 1)[0].decode()

        self.needed = [text(value) for tag, value in entries if tag == 1]
        self.paths = [path for tag, value in entries if tag in (15, 29) for path in text(value).split(":")]


def cached():
    """The libraries that the dynamic linker finds by name."""
    listed = subprocess.run(["/sbin/ldconfig", "-p"], capture_output=True, text=True, check=True).stdout
    return set(re.findall(r"^\t(\S+) \(", listed, re.MULTILINE))


def opened(paths):
    """Opens shared objects one after the other in a process of its own. Yields each with the reason why it does not open,
    up to the first at which the process ends."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        for path in paths:
            try:
                ctypes.CDLL(path, mode=os.RTLD_LAZY)
                why = ""
            except OSError as error:
                why = " ".join(str(error).split())
            os.write(writer, (why + "\n").encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        yield from zip(paths, (line.decode().rstrip("\n") for line in answers))
    os.waitpid(child, 0)


def listed(path):
    """Why the dynamic linker cannot map a library that has to be there when a program starts, as those that watch memory."""
    asked = subprocess.run([LINKER, "--list", path], capture_output=True, text=True)
    return asked.stderr.strip() if asked.returncode else ""


def not_opened(paths):
    while paths:
        done = 0
        for path, why in opened(paths):
            done += 1
            if "static TLS" in why:
                why = listed(path)
            if why and ("undefined symbol" not in why or of_python(path)):
                yield f"{path}: {why}"
        if done < len(paths):
            why = listed(paths[done])
            if why:
                yield f"{paths[done]}: {why}"
        paths = paths[done + 1 :]


def of_python(path):
    return ".cpython-" in path or path.endswith(".abi3.so")


def problem(path, file, libraries):
    """Why a file is not of this machine or cannot find what it needs, and whether it is to be opened."""
    elf = Elf(file)
    # Neither a program nor a library.
    if elf.kind not in (2, 3):
        return "", False
    if elf.machine != MACHINES[platform.machine()]:
        return f"is for machine {elf.machine}", False
    if elf.interpreter and not os.path.exists(elf.interpreter):
        return f"needs {elf.interpreter}", False
    here = os.path.dirname(path)
    folders = [it.replace("$ORIGIN", here).replace("${ORIGIN}", here) for it in elf.paths] + DEFAULT
    if any(name in DESKTOP and name not in libraries for name in elf.needed):
        return "", False
    for name in elf.needed:
        if name not in libraries and not any(os.path.exists(os.path.join(it, name)) for it in folders):
            return f"needs {name}", False
    return "", elf.kind == 3 and not elf.interpreter and bool(elf.needed)


def main(roots):
    libraries, count, problems, shared = cached(), 0, [], []
    for path in files(roots):
        with open(path, "rb") as file:
            head = file.read(6)
            # What only a linker reads may be for any machine.
            if head[:4] != b"\x7fELF" or path.endswith((".o", ".syso")):
                continue
            file.seek(0)
            count += 1
            why, opens = ("is no 64-bit little-endian file", False) if head[4:] != b"\x02\x01" else problem(path, file, libraries)
        if why:
            problems.append(f"{path}: {why}")
        if opens:
            shared.append(path)
    read = sum(os.times()[:4])
    problems += not_opened(shared)
    print(f"{count} ELF files, {len(shared)} opened, read in {read:.1f} s, {sum(os.times()[:4]):.1f} s of processor")
    print("\n".join(problems))
    sys.exit(1 if problems or not count else 0)


main(sys.argv[1:])
