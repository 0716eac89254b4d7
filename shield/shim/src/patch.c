/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rewriting of known system call sites when code is mapped, before it runs:
 *
 *   site:  syscall            ->  jmp cave          (2 bytes)
 *   cave:  padding            ->  jmp stub          (5 bytes, never executed before)
 *   stub:                         lea site+2, %rcx; jmp *hook
 *
 * or, where the instruction before it loads the number, without padding:
 *
 *   site-5: mov $nr, %eax     ->  jmp stub
 *   stub:                         mov $nr, %eax; lea site+2, %rcx; jmp *hook
 *
 * The table of sites and caves comes from the launcher, which disassembles the file.
 * It is believed only where the bytes fit.
 */
#include "shim.h"

static struct lock patch_lock;

/* A file of the volume is shown to the launcher in memory. */
static int copy_out(int fd)
{
	long size = sealed_size(fd), mem = H(NR_memfd_create, "code", 1);
	u64 p = IS_ERR(mem) || H(NR_ftruncate, mem, size) ? -1ul :
		(u64)H(NR_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_SHARED, mem, 0);
	int ok = !IS_ERR(p) && sealed_pread(fd, (void *)p, size, 0) == size;
	if (!IS_ERR(p)) H(NR_munmap, p, size);
	if (ok) return mem;
	H(NR_close, mem);
	return -1;
}

/* The table that was sealed with the file, if any. */
static long sealed_table(int fd, u32 **table)
{
	struct { char magic[8]; u32 n; } h;
	if (sealed_facts(fd, &h, sizeof h, 0) != sizeof h || memcmp(h.magic, "PSITES1", 8) || h.n > 1 << 16) return -1;
	*table = scratch(h.n * 8ul + 1);
	return *table && sealed_facts(fd, *table, h.n * 8ul, 12) == (long)(h.n * 8ul) ? h.n : 0;
}

/* Asks the launcher for the table of the file: pairs of file offsets. */
static long ask(int fd, u32 **table)
{
	int sv[2];
	u32 n = 0;
	if (CFG->flags & CFG_NO_SITES || H(NR_fcntl, fd_base + FD_SITES, 1, 0) < 0 ||
		H(NR_socketpair, 1, 1 | O_CLOEXEC, 0, sv))
		return 0;
	struct { u64 len; u32 level, type; int fd[2]; } ctl = { 24, 1, 1, { fd, sv[1] } };
	struct { void *p; u64 n; } iov = { &n, 1 };
	struct { void *name; u64 namelen; void *iov; u64 niov; void *ctl; u64 nctl; u64 flags; } msg =
		{ 0, 0, &iov, 1, &ctl, sizeof ctl, 0 };
	long r = H(NR_sendmsg, fd_base + FD_SITES, &msg, 0x4000);
	H(NR_close, sv[1]);
	u64 got = 0, want = 4;
	u8 *p = (u8 *)&n;
	*table = 0;
	while (r > 0 && got < want) {
		r = H(NR_read, sv[0], p + got, want - got);
		if (r == -EINTR)
			r = 1;
		else if (r > 0 && (u64)r <= want - got)
			got += r;
		else
			r = 0;
		if (got == 4 && p == (u8 *)&n) {
			if (n == 0 || n > 1 << 16) break;
			got = 0;
			want = n * 8ul;
			long a = H(NR_mmap, 0, want, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
			if (IS_ERR(a)) break;
			p = (u8 *)a;
			*table = (u32 *)a;
		}
	}
	H(NR_close, sv[0]);
	if (*table && got == want) return n;
	if (*table) H(NR_munmap, *table, n * 8ul);
	return 0;
}

/* Memory for stubs within ±2 GiB of the code. */
static u8 *near(u64 addr, u64 len, u64 size)
{
	for (u64 d = 0; d < 0x70000000; d += 0x100000) {
		u64 below = (addr & -PAGE) - size - d, above = ALIGN_UP(addr + len, PAGE) + d;
		for (int up = 0; up < 2; up++) {
			u64 want = up ? above : below;
			if (want < 0x10000 || want > 1ul << 47) continue;
			long a = H(NR_mmap, want, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
			if (a == (long)want) return (u8 *)a;
			if (!IS_ERR(a)) H(NR_munmap, a, size);
		}
	}
	return 0;
}

static int padding(const u8 *c)
{
	/* the first bytes of nop, long nop, int3, or of their prefixes */
	return c[0] == 0x90 || c[0] == 0xcc || c[0] == 0x66 || c[0] == 0x0f || c[0] == 0x2e || c[0] == 0;
}

/* patch_mapping rewrites the sites of a file whose part at off was just mapped
   for execution. */
void patch_mapping(int fd, u64 addr, u64 len, u64 off)
{
	u32 *tab;
	int mem = -1, sealed = sealed_fd(fd);
	long n = sealed && !(CFG->flags & CFG_NO_SITES) ? sealed_table(fd, &tab) : -1;
	if (n < 0) {
		mem = sealed ? copy_out(fd) : -1;
		n = ask(mem >= 0 ? mem : fd, &tab);
	}
	if (mem >= 0) H(NR_close, mem);
	if (n <= 0) return;
	u64 size = ALIGN_UP(32 + n * 32ul, PAGE);
	lock(&patch_lock);
	u8 *stub = near(addr, len, size);
	u64 lo = addr & -PAGE, hi = ALIGN_UP(addr + len, PAGE);
	if (stub && !H(NR_mprotect, lo, hi - lo, PROT_READ | PROT_WRITE)) {
		u64 done = 0;
		*(u64 *)stub = (u64)hook_entry;
		for (long i = 0; i < n; i++) {
			u8 *q = stub + 32 * (i + 1);
			u64 so = tab[2 * i] - off, co = tab[2 * i + 1] - off;
			if (tab[2 * i] < off || tab[2 * i + 1] < off || so + 2 > len || co + 5 > len) continue;
			u8 *s = (u8 *)addr + so, *c = (u8 *)addr + co;
			i64 hop = c - (s + 2), jump = q - (c + 5);
			int load = so - co == 5 && c[0] == 0xb8 ? 5 : so - co == 7 && c[0] == 0x48 && c[1] == 0xc7 && c[2] == 0xc0 ? 7 : 0;
			if (s[0] != 0x0f || s[1] != 0x05 || jump != (int)jump) continue;
			if (!load && (!padding(c) || hop < -128 || hop > 127)) continue;
			memcpy(q, c, load);
			q += load;
			q[0] = 0x48, q[1] = 0x8d, q[2] = 0x0d; /* lea site+2(%rip), %rcx */
			*(int *)(q + 3) = (int)(s + 2 - (q + 7));
			q[7] = 0xff, q[8] = 0x25;              /* jmp *hook(%rip) */
			*(int *)(q + 9) = (int)(stub - (q + 13));
			c[0] = 0xe9;
			*(int *)(c + 1) = (int)jump;
			if (!load) s[0] = 0xeb, s[1] = (u8)hop;
			done++;
		}
		H(NR_mprotect, lo, hi - lo, PROT_READ | PROT_EXEC);
		H(NR_mprotect, stub, size, PROT_READ | PROT_EXEC);
		__sync_fetch_and_add(&CFG->stat_sites, done);
	}
	unlock(&patch_lock);
	H(NR_munmap, tab, ALIGN_UP(n * 8ul, PAGE));
}
