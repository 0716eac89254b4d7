# SPDX-License-Identifier: Apache-2.0
"""Stands in for libseccomp's Python module and prints what a script builds.

Scripts of libseccomp's test suite run unchanged; export_bpf and export_pfc print
the filter as JSON: default action, ABIs in order, rules, attributes."""
import json
import os
import sys

KILL = KILL_THREAD = 0x00000000
KILL_PROCESS = 0x80000000
TRAP = 0x00030000
LOG = 0x7FFC0000
ALLOW = 0x7FFF0000
NOTIFY = 0x7FC00000
NE, LT, LE, EQ, GE, GT, MASKED_EQ = range(1, 8)


def ERRNO(n):
    return 0x00050000 | (n & 0xFFFF)


def TRACE(n):
    return 0x7FF00000 | (n & 0xFFFF)


class Attr:
    (ACT_DEFAULT, ACT_BADARCH, CTL_NNP, CTL_TSYNC, API_TSKIP, CTL_LOG, CTL_SSB,
     CTL_OPTIMIZE, API_SYSRAWRC, CTL_WAITKILL) = range(1, 11)


class Arch:
    NAMES = ["X86", "X86_64", "X32", "ARM", "AARCH64", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL", "MIPSEL64",
             "MIPSEL64N32", "PARISC", "PARISC64", "PPC", "PPC64", "PPC64LE", "S390", "S390X", "RISCV64"]
    NATIVE = "NATIVE"

    def __init__(self, arch=None):
        self.name = "X86_64" if arch in (None, "NATIVE") else str(arch).upper()

    def __str__(self):
        return self.name

    def __int__(self):
        return Arch.NAMES.index(self.name)


for _n in Arch.NAMES:
    setattr(Arch, _n, _n)

with open(os.environ["PALISADE_SYSCALLS"]) as _f:
    _TABLE = json.load(_f)
_BY_NUMBER = {v: k for k, v in _TABLE.items()}


# Scripts that want any call at all take numbers that are none; calls that no
# kernel has any more stand for those, here and in the rows.
ALIAS = dict(zip(range(1000, 1012), [
    "tuxcall", "security", "vserver", "afs_syscall", "getpmsg", "putpmsg", "nfsservctl", "query_module",
    "get_kernel_syms", "create_module", "epoll_ctl_old", "epoll_wait_old"]))


def resolve_syscall(arch, sc):
    if isinstance(sc, str):
        if sc not in _TABLE:
            raise ValueError("unknown")
        return _TABLE[sc]
    if sc not in _BY_NUMBER:
        raise ValueError("unknown")
    return _BY_NUMBER[sc].encode()


def set_api(level):
    pass


def get_api():
    return 7


def system_arch():
    return Arch.X86_64


class Arg:
    def __init__(self, arg, op, a, b=0):
        m = (1 << 64) - 1
        self.v = [arg, op, a & m, b & m]


class SyscallFilter:
    def __init__(self, defaction):
        self.reset(defaction)

    def reset(self, defaction=None):
        if defaction is not None:
            self.default = defaction
        self.archs, self.rules, self.attrs = ["X86_64"], [], {}

    def merge(self, other):
        if other.rules != self.rules or other.default != self.default:
            raise NotImplementedError("merge of different filters")
        self.archs += other.archs

    @staticmethod
    def _arch(a):
        return str(Arch(a) if not isinstance(a, Arch) else a)

    def exist_arch(self, a):
        return self._arch(a) in self.archs

    def add_arch(self, a):
        a = self._arch(a)
        if a in self.archs:
            raise RuntimeError("exists")
        if self.rules:
            raise NotImplementedError("ABI added behind rules")
        self.archs.append(a)

    def remove_arch(self, a):
        self.archs.remove(self._arch(a))

    def get_attr(self, a):
        return self.attrs.get(a, 1 if a == Attr.CTL_NNP else 0)

    def set_attr(self, a, v):
        self.attrs[a] = v

    def syscall_priority(self, sc, p):
        pass

    def start_transaction(self):
        raise NotImplementedError("transactions")

    def add_rule(self, action, sc, *args):
        if isinstance(sc, bytes):
            sc = sc.decode()
        if isinstance(sc, int):
            sc = ALIAS.get(sc, sc)
        if isinstance(sc, int):
            if sc not in _BY_NUMBER:
                raise NotImplementedError("number %d" % sc)
            sc = _BY_NUMBER[sc]
        if action == self.default:
            raise RuntimeError("default action")
        self.rules.append({"action": action, "name": sc, "args": [a.v for a in args]})

    add_rule_exactly = add_rule  # differs only for what an ABI rewrites

    def precompute(self):
        pass

    def _export(self, *_):
        print(json.dumps({"default": self.default, "archs": self.archs, "rules": self.rules,
                          "badarch": self.attrs.get(Attr.ACT_BADARCH, 0), "tskip": self.attrs.get(Attr.API_TSKIP, 0)}))

    export_bpf = export_pfc = export_bpf_mem = _export
