# SPDX-License-Identifier: Apache-2.0
"""A reader of sealfs volumes that was written from docs/sealfs.md alone.

It exists to keep that document exact: whatever it takes to read a volume has to
be there. Usage: reader.py KEYHEX FILE…; prints one JSON object a volume, with
the tree or with the reason for refusing it. FILE may be FILE@OFFSET:XOR, which
changes one byte first.
"""
import hashlib
import hmac
import json
import struct
import sys

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

BLOCK = 4096
TYPES = {1: "regular", 2: "directory", 3: "symlink", 4: "fifo", 5: "socket", 6: "char", 7: "block", 8: "internal"}
CLASSES = {0: "denied", 1: "passthrough", 2: "authenticated", 3: "encrypted", 4: "ephemeral"}
FRESHNESS = {0: "in-run", 1: "at-exit", 2: "at-fsync", 3: "interval"}


class Refused(Exception):
    pass


def need(ok, what):
    if not ok:
        raise Refused(what)


def zero(b, what):
    need(not any(b), what + " is not zero")


def expand(prk, info):  # HKDF-Expand for one block of output, section 2.1
    return hmac.new(prk, info + b"\x01", hashlib.sha256).digest()


def ecb(key, block):
    e = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return e.update(block) + e.finalize()


def xor(a, b):
    return bytes(x ^ y for x, y in zip(a, b))


class Key:
    """A file key or the root key, section 2.2."""

    def __init__(self, key):
        self.key = key
        number = int.from_bytes(ecb(key, bytes(16)), "big")
        k1 = bytearray(((number << 1) & ((1 << 128) - 1)).to_bytes(16, "big"))
        if number >> 127:
            k1[15] ^= 0x87
        self.k1 = bytes(k1)

    def open(self, salt, pos, aad, ciphertext, tag):
        kx = b"".join(ecb(self.key, xor(self.k1, bytes([0, i, 0x58, 0]) + salt)) for i in (1, 2))
        return AESGCM(kx).decrypt(pos, ciphertext + tag, aad)


class Volume:
    def __init__(self, data, key):
        self.data = data
        self.header(key)
        self.root()
        self.keys = {}
        self.used = {0, 1, 2}
        self.table = File(self, bytes(16), 3, self.inodes * 128, self.table_depth, self.table_cell)

    def block(self, n):
        return self.data[n * BLOCK : (n + 1) * BLOCK]

    def header(self, key):  # section 3
        h = self.block(0)
        need(len(h) == BLOCK, "no header")
        need(h[0:8] == b"PALSEAL1", "magic")
        need(struct.unpack_from("<I", h, 8)[0] == 1, "version")
        need(h[12] == 1, "suite")
        need(h[13] == 12, "chunk size")
        zero(h[14:16], "header")
        zero(h[96:480], "header")
        self.id, salt, commitment = h[16:32], h[32:64], h[64:96]
        self.prk = hmac.new(salt, key, hashlib.sha256).digest()
        need(hmac.compare_digest(commitment, expand(self.prk, b"sealfs/1 commitment" + self.id)), "wrong key")
        mac = hmac.new(expand(self.prk, b"sealfs/1 header" + self.id), h[:480], hashlib.sha256).digest()
        need(hmac.compare_digest(mac, h[480:512]), "header corrupted")

    def aad(self, cls, level, index, file_id):
        return b"SFS1" + bytes([1, cls, level, 12]) + struct.pack("<Q", index) + self.id + file_id

    @staticmethod
    def pos(level, index):
        return bytes([level, 0, 0, 0]) + struct.pack("<Q", index)

    def root(self):  # section 4
        key = Key(expand(self.prk, b"sealfs/1 root" + self.id))
        best = None
        for slot in (1, 2):
            s = self.block(slot)
            if len(s) < 256 or s[0:8] != b"SFSROOT1":
                continue
            generation = struct.unpack_from("<Q", s, 8)[0]
            if generation < 1 or 1 + generation % 2 != slot or any(s[28:32]):
                continue
            try:
                r = key.open(s[16:28], self.pos(0xFF, generation), self.aad(3, 0xFF, generation, b"\xff" * 16), s[48:256], s[32:48])
            except InvalidTag:
                continue
            if struct.unpack_from("<Q", r, 0)[0] == generation and (best is None or generation > best[0]):
                best = (generation, r, hashlib.sha256(s[:256]).hexdigest())
        need(best, "no valid root")
        self.generation, r, self.digest = best
        self.blocks, self.inodes = struct.unpack_from("<II", r, 8)
        self.table_cell, self.table_depth = r[16:48], r[48]
        zero(r[49:56], "root record")
        zero(r[96:208], "root record")
        need(self.inodes >= 3, "inodes")
        need(self.blocks >= 3 and len(self.data) >= self.blocks * BLOCK, "the file is shorter than its blocks")

    def key(self, file_id, cls):
        k = (file_id, cls)
        if k not in self.keys:
            self.keys[k] = Key(expand(self.prk, b"sealfs/1 file" + self.id + file_id + bytes([cls])))
        return self.keys[k]

    def inode(self, n):  # section 6
        need(1 <= n < self.inodes, "inode number")
        r = self.table.read(n * 128, 128)
        i = {"inode": n, "type": r[0], "class": r[1], "depth": r[2]}
        need(r[0] in TYPES, "type of inode")
        need(r[1] in (2, 3) and (r[1] == 3 or r[0] in (1, 4, 5, 6, 7)), "class of inode")
        zero(r[3:4], "inode")
        zero(r[112:128], "inode")
        for at, field in ((4, "mode"), (8, "uid"), (12, "gid"), (16, "nlink"), (20, "parent"), (56, "rdev"), (60, "aux")):
            i[field] = struct.unpack_from("<I", r, at)[0]
        i["size"], i["mtime"], i["ctime"], i["generation"] = struct.unpack_from("<QqqQ", r, 24)
        i["file"] = File(self, r[64:80], r[1], i["size"], r[2], r[80:112])
        return i


class File:
    """A tree of chunks, section 5."""

    def __init__(self, volume, file_id, cls, size, depth, cell):
        self.volume, self.id, self.cls, self.size, self.depth, self.cell = volume, file_id, cls, size, depth, cell
        need(depth <= 5 and size <= 1 << 44, "depth or size")
        self.chunks = (size + BLOCK - 1) // BLOCK
        need(128**depth >= self.chunks, "depth is too small for size")
        self.cache = {}

    def load(self, cell, level, index):
        number, salt, tag = struct.unpack("<I12s16s", cell)
        if number == 0:
            zero(cell, "cell of a hole")
            return None
        need(2 < number < self.volume.blocks, "block number")
        self.volume.used.add(number)
        stored = self.volume.block(number)
        aad = self.volume.aad(self.cls, level, index, self.id)
        key, pos = self.volume.key(self.id, self.cls), self.volume.pos(level, index)
        try:
            if self.cls == 2 and level == 0:
                key.open(salt, pos, aad + stored, b"", tag)
                return stored
            return key.open(salt, pos, aad, stored, tag)
        except InvalidTag:
            raise Refused("level %d, index %d, block %d: authentication failed" % (level, index, number)) from None

    def node(self, level, index):
        if (level, index) not in self.cache:
            cell = self.cell
            if level < self.depth:
                above = self.node(level + 1, index >> 7)
                at = (index & 127) * 32
                cell = above[at : at + 32] if above else bytes(32)
            self.cache[(level, index)] = self.load(cell, level, index)
        return self.cache[(level, index)]

    def read(self, at, n):
        out = b""
        while n > 0:
            chunk = self.node(0, at // BLOCK) or bytes(BLOCK)
            part = chunk[at % BLOCK : at % BLOCK + n]
            out, at, n = out + part, at + len(part), n - len(part)
        return out

    def sha256(self):
        h = hashlib.sha256()
        for c in range(self.chunks):
            chunk = self.node(0, c) or bytes(BLOCK)
            left = self.size - c * BLOCK
            if left < BLOCK:
                zero(chunk[left:], "chunk behind the size")
            h.update(chunk[:left])
            self.cache.pop((0, c), None)
        return h.hexdigest()


def entries(directory):  # section 7
    f = directory["file"]
    need(f.size % BLOCK == 0, "size of a directory")
    last = b""
    for p in range(f.chunks):
        page = f.read(p * BLOCK, BLOCK)
        n, used = struct.unpack_from("<HH", page, 0)
        need(n >= 1 and 8 <= used <= BLOCK, "page header")
        zero(page[4:8], "page header")
        at = 8
        for _ in range(n):
            need(at + 6 <= used, "page")
            inode, kind, length = struct.unpack_from("<IBB", page, at)
            name = page[at + 6 : at + 6 + length]
            at += 6 + length
            need(at <= used and length >= 1 and b"/" not in name and b"\0" not in name and name not in (b".", b".."), "name")
            need(name > last, "order of names")
            last = name
            yield inode, kind, name
        need(at == used, "used bytes of a page")
        zero(page[used:], "page")


def regions(volume):  # section 8
    i = volume.inode(2)
    need(i["type"] == 8 and i["class"] == 3, "region table")
    b = i["file"].read(0, i["size"])
    need(len(b) >= 16 and b[0:4] == b"REG1", "region table")
    count = struct.unpack_from("<I", b, 4)[0]
    need(1 <= count <= 256 and b[8] in FRESHNESS, "region table")
    zero(b[9:12], "region table")
    need(b[8] == 3 or b[12:16] == bytes(4), "interval")
    out, at = [], 16
    for _ in range(count):
        need(at + 4 <= len(b), "region")
        cls, none, length = struct.unpack_from("<BBH", b, at)
        need(cls in CLASSES and none == 0 and 1 <= length <= 1024 and at + 4 + length <= len(b), "region")
        path = b[at + 4 : at + 4 + length]
        need((not out and path == b"/") or (out and path > out[-1][1]), "order of regions")
        out.append((cls, path))
        at += 4 + length
    need(at == len(b), "end of the region table")
    return [{"path": p.decode("utf-8", "surrogateescape"), "class": CLASSES[c]} for c, p in out]


def walk(volume, n, path, parent, out, seen):
    i = volume.inode(n)
    kind = TYPES[i["type"]]
    f = i["file"]
    e = {"path": path.decode("utf-8", "surrogateescape"), "inode": n, "type": kind, "class": CLASSES[i["class"]], "mode": "0%o" % i["mode"] if i["mode"] else "0", "uid": i["uid"], "gid": i["gid"],
         "links": i["nlink"], "size": i["size"], "mtime_ns": i["mtime"]}
    if kind == "regular":
        e["sha256"] = seen.setdefault(n, None) or f.sha256()
        seen[n] = e["sha256"]
        if i["aux"]:
            facts = volume.inode(i["aux"])
            need(TYPES[facts["type"]] == "internal", "facts")
            e["facts"] = facts["file"].read(0, facts["size"]).decode("latin-1")
    elif kind == "symlink":
        need(1 <= i["size"] <= 4095, "size of a symlink")
        e["target"] = f.read(0, i["size"]).decode("utf-8", "surrogateescape")
    out.append(e)
    if kind == "directory":
        need(i["parent"] == parent, "parent of a directory")
        for child, t, name in entries(i):
            need(volume.inode(child)["type"] == t, "type in a directory")
            walk(volume, child, path.rstrip(b"/") + b"/" + name, n, out, seen)


def main():
    key = bytes.fromhex(sys.argv[1])
    for arg in sys.argv[2:]:
        name, _, change = arg.partition("@")
        with open(name, "rb") as f:
            data = bytearray(f.read())
        if change:
            at, _, bits = change.partition(":")
            data[int(at)] ^= int(bits)
        try:
            v = Volume(bytes(data), key)
            tree = []
            r = {"generation": v.generation, "root_digest": v.digest, "regions": regions(v), "tree": tree}
            walk(v, 1, b"/", 1, tree, {})
        except Refused as e:
            r = {"refused": str(e)}
        print(json.dumps(r, sort_keys=True))


main()
