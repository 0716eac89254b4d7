/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the last step needs of the kernel: system calls, numbers and structures.
 * There is no C library below, and the headers of a build machine may be older
 * than the kernel that the program runs on.
 *
 * Source: include/uapi/linux, arch/{x86,arm64}/include (Linux 6.18).
 */
#ifndef SYS_H
#define SYS_H

#include <stddef.h>
#include <stdint.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

enum { EPERM = 1, ENOENT = 2, EINTR = 4, EIO = 5, EBADF = 9, EACCES = 13, ENODEV = 19, ENOTDIR = 20, ELOOP = 40, EINVAL = 22,
	ENAMETOOLONG = 36, ENOSYS = 38, ETIMEDOUT = 110, ESTALE = 116 };

#if defined(__x86_64__)

enum { NR_read = 0, NR_write = 1, NR_close = 3, NR_lseek = 8, NR_mmap = 9, NR_getpid = 39, NR_sendto = 44,
	NR_execve = 59, NR_exit = 60, NR_fcntl = 72, NR_getcwd = 79, NR_capget = 125, NR_capset = 126,
	NR_fstatfs = 138, NR_prctl = 157, NR_getdents64 = 217, NR_exit_group = 231, NR_openat = 257, NR_dup3 = 292,
	NR_seccomp = 317, NR_statx = 332 };

static inline long syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

/* The kernel starts a program with everything that it was given on its stack. */
#define ENTRY(function)                                                                                               \
	__asm__(".pushsection .text\n.globl _start\n_start:\n"                                                        \
		"xor %ebp, %ebp\nmov %rsp, %rdi\nand $-16, %rsp\ncall " #function "\nud2\n.popsection")

#elif defined(__aarch64__)

enum { NR_getcwd = 17, NR_dup3 = 24, NR_fcntl = 25, NR_fstatfs = 44, NR_openat = 56, NR_close = 57,
	NR_getdents64 = 61, NR_lseek = 62, NR_read = 63, NR_write = 64, NR_capget = 90, NR_capset = 91, NR_exit = 93,
	NR_exit_group = 94, NR_prctl = 167, NR_getpid = 172, NR_sendto = 206, NR_execve = 221, NR_mmap = 222,
	NR_seccomp = 277, NR_statx = 291 };

static inline long syscall6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long x8 __asm__("x8") = nr;
	register long x0 __asm__("x0") = a;
	register long x1 __asm__("x1") = b;
	register long x2 __asm__("x2") = c;
	register long x3 __asm__("x3") = d;
	register long x4 __asm__("x4") = e;
	register long x5 __asm__("x5") = f;
	__asm__ volatile("svc #0"
			 : "+r"(x0)
			 : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
			 : "memory");
	return x0;
}

#define ENTRY(function)                                                                                               \
	__asm__(".pushsection .text\n.globl _start\n_start:\n"                                                        \
		"mov x29, #0\nmov x30, #0\nmov x0, sp\nbl " #function "\nbrk #1\n.popsection")

#else
#error "no last step for this machine"
#endif

/* These numbers are the same on both machines. */
enum { NR_close_range = 436, NR_openat2 = 437, NR_landlock_create_ruleset = 444, NR_landlock_add_rule = 445,
	NR_landlock_restrict_self = 446, NR_statmount = 457 };

/* call makes a system call with up to six arguments; those left out are 0. */
#define CALL7(nr, a, b, c, d, e, f, ...) \
	syscall6(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
#define call(...) CALL7(__VA_ARGS__, 0, 0, 0, 0, 0, 0, 0)

enum { AT_FDCWD = -100, AT_EMPTY_PATH = 0x1000, AT_NULL = 0, AT_EXECFN = 31 };
enum { O_RDONLY = 0, O_WRONLY = 1, O_CLOEXEC = 02000000, O_PATH = 010000000 };
#if defined(__aarch64__)
enum { O_DIRECTORY = 040000 };
#else
enum { O_DIRECTORY = 0200000 };
#endif
enum { F_SETFD = 2, FD_CLOEXEC = 1, F_GET_SEALS = 1034, SEAL_SHRINK = 2, SEAL_GROW = 4, SEAL_WRITE = 8 };
enum { SEEK_END = 2, PROT_READ = 1, MAP_PRIVATE = 2, MSG_NOSIGNAL = 0x4000 };
enum { PR_SET_DUMPABLE = 4, PR_SET_NO_NEW_PRIVS = 38, PR_CAP_AMBIENT = 47, AMBIENT_LOWER = 3, AMBIENT_CLEAR_ALL = 4 };
enum { SECCOMP_SET_MODE_FILTER = 1, LANDLOCK_RULE_PATH = 1, LANDLOCK_RULE_PORT = 2 };
enum { PROC_SUPER_MAGIC = 0x9fa0, PROC_ROOT_INO = 1, RESOLVE_NO_XDEV = 1, RESOLVE_NO_MAGICLINKS = 2, RESOLVE_NO_SYMLINKS = 4 };
enum { STATX_TYPE = 1, STATX_INO = 0x100, STATX_MNT_ID = 0x1000, STATX_MNT_ID_UNIQUE = 0x4000, S_IFMT = 0170000,
	S_IFDIR = 0040000 };

struct statx {
	u32 mask, blksize;
	u64 attributes;
	u32 nlink, uid, gid;
	u16 mode, pad;
	u64 ino, size, blocks, attributes_mask;
	u64 times[8];
	u32 rdev[2], dev[2];
	u64 mnt_id;
	u64 spare[13];
};
_Static_assert(sizeof(struct statx) == 256, "struct statx");

static inline size_t length(const char *s)
{
	size_t n = 0;
	while (s[n])
		n++;
	return n;
}

/* after is what follows prefix in s, or NULL when s does not begin with it. */
static inline const char *after(const char *s, const char *prefix)
{
	while (*prefix)
		if (*s++ != *prefix++)
			return NULL;
	return s;
}

#endif
