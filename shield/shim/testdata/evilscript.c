// SPDX-License-Identifier: Apache-2.0
// The evil host on a string: reads scripts from standard input, in which calls of the
// program and behaviours of the host follow each other, and answers with the results
// of the calls. The caller knows what is true. See evil_fuzz_test.go.
//
//   in:   u8 'V', u32 n, key (32 bytes) and volume     the volume from now on
//         u8 'S', u32 n, instructions                  run them on the volume as it was given
//         u8 'C', u32 n, instructions                  run them on the volume as it is now
//         u8 'G', u32 0                                what the volume is now
//   out:  u32 n, n bytes; after S and C for each call: i64, i64, u32 k, k bytes
#include "evilhost.h"
#include <unistd.h>

struct ins {
	u8 op, x, y, z;
	u32 a, b;
};

static const char *const names[] = { "a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "s", "d/s", "t", "d/e/t" };
enum { NAMES = sizeof names / sizeof *names, DEAD = -100000, HELD = 4 };

// ---- the host

enum { READ, WRITE, SYNC, OPEN, MAP, RANDOM, CLOCK, STAT, CLASSES };
enum { FORGE, SHORT, LOST, MISPLACED, OTHER, TORN };
static struct arm { int on, class, skip, kind; struct ins i; } arms[32];
static struct { u64 block; u8 data[4096]; } old[256];
static u32 nold, storm;
static u8 *snapshot;
static u64 snapshot_len;
static i64 clock_now = 1700000000000000000;
static char said[4096];
static u64 seed = 88172645463325252ul;

static struct arm *due(int class)
{
	for (struct arm *a = arms; a < arms + 32; a++)
		if (a->on && a->class == class && !a->skip--) {
			a->on = 0;
			return a;
		}
	return 0;
}

static long forged(const struct ins *i, long honest)
{
	static const i64 value[] = { -1, -2, -4, -5, -9, -12, -13, -17, -20, -22, -28, -110, -4095, -4096, 0, 1, 4095, 4097, 8192,
		0x7fffffff, 0x100000001, -0x7fffffffffffffff, SHARED_BASE, SHARED_BASE + 0x10000, 1008, 1012 };
	return i->z == 255 ? honest + 1 : i->z == 254 ? honest - 1 : value[i->z % (sizeof value / sizeof *value)];
}

static long host_read(u8 *buf, u64 n, u64 off)
{
	struct arm *a = due(READ);
	long r = off >= disk_len ? 0 : (long)MIN(n, disk_len - off);
	if (a && a->kind == OTHER && disk_len >= 4096)
		memcpy(buf, disk + a->i.a % (disk_len / 4096) * 4096, MIN((u64)r, 4096));
	else
		memcpy(buf, disk + off, r);
	return a && a->kind == FORGE ? forged(&a->i, r) : a && a->kind == SHORT && r ? a->i.a % r : r;
}

static long host_write(const u8 *p, u64 n, u64 off)
{
	struct arm *a = due(WRITE);
	u64 r = n;
	if (a && (a->kind == FORGE || a->kind == LOST)) return a->kind == FORGE ? forged(&a->i, r) : (long)r;
	if (a && (a->kind == SHORT || a->kind == TORN)) r = a->i.a % n;
	if (a && a->kind == MISPLACED) off = a->i.a % (disk_len / 4096 + 1) * 4096;
	if (off + r > DISK_MAX) return -ENOSPC;
	for (u64 b = off; b + 4096 <= off + r; b += 4096) {
		u32 k = nold++ % 256;
		old[k].block = b / 4096;
		memcpy(old[k].data, disk + b, 4096);
	}
	if (off > disk_len) memset(disk + disk_len, 0, off - disk_len);
	memcpy(disk + off, p, r);
	disk_len = MAX(disk_len, off + r);
	return a && a->kind == TORN ? -EIO : (long)r;
}

long host(long nr, ...)
{
	u64 a[6];
	va_list ap;
	va_start(ap, nr);
	for (int i = 0; i < 6; i++) a[i] = va_arg(ap, u64);
	va_end(ap);
	struct arm *arm;
	long r;
	if (storm && (nr == NR_pread64 || nr == NR_pwrite64 || nr == NR_fdatasync || nr == NR_getrandom)) {
		storm--;
		return -EINTR;
	}
	switch (nr) {
	case NR_pread64: return host_read((u8 *)a[1], a[2], a[3]);
	case NR_pwrite64: return host_write((u8 *)a[1], a[2], a[3]);
	case NR_fdatasync: return (arm = due(SYNC)) ? forged(&arm->i, 0) : 0;
	case NR_fstat:
		memset((void *)a[1], 0, 144);
		((u64 *)a[1])[6] = disk_len;
		if ((arm = due(STAT))) {
			if (arm->i.z & 1) return forged(&arm->i, 0);
			((u64 *)a[1])[6] = arm->i.a;
		}
		return 0;
	case NR_openat:
		for (r = 3; main_thread.fdtab[r]; r++)
			;
		return (arm = due(OPEN)) ? arm->i.z & 1 ? 3 + arm->i.a % 8 : forged(&arm->i, r) : r;
	case NR_getrandom:
		for (u64 i = 0; i < a[1]; i++) {
			seed ^= seed << 13, seed ^= seed >> 7, seed ^= seed << 17;
			((u8 *)a[0])[i] = seed * 2685821657736338717ul >> 56;
		}
		return (arm = due(RANDOM)) ? forged(&arm->i, a[1]) : (long)a[1];
	case NR_clock_gettime:
		clock_now += (arm = due(CLOCK)) ? (int)arm->i.a * 1000l : 1000;
		((i64 *)a[1])[0] = clock_now / 1000000000;
		((i64 *)a[1])[1] = clock_now % 1000000000;
		return 0;
	case NR_mmap: {
		if ((arm = due(MAP))) return forged(&arm->i, SHARED_BASE);
		void *p = mmap((void *)a[0], a[1], a[2], a[3], (int)a[4], a[5]);
		return p == MAP_FAILED ? -ENOMEM : (long)p;
	}
	case NR_munmap: return munmap((void *)a[0], a[1]);
	case NR_exit_group: longjmp(died, 1);
	case NR_getcwd: return put_str((char *)a[0], "/") - (char *)a[0] + 1;
	case NR_write:
		if (a[0] == 2) strncat(said, (char *)a[1], MIN(a[2], sizeof said - 1 - strlen(said)));
		return a[2];
	}
	return 0; // uid 0, futexes, closes
}
long host_wait(long nr, ...) { (void)nr; return -EINTR; }

static void behave(const struct ins *i)
{
	u64 blocks = disk_len / 4096;
	u8 *p = disk + (blocks ? i->a % blocks : 0) * 4096, *q = disk + (blocks ? i->b % blocks : 0) * 4096, t[4096];
	switch (i->op) {
	case 64: if (disk_len) disk[i->a % disk_len] ^= 1 << (i->x & 7); return;
	case 65: disk_len = i->a % (disk_len + 1); return;
	case 66: memcpy(t, p, 4096); memcpy(p, q, 4096); memcpy(q, t, 4096); return;
	case 67: memcpy(q, p, 4096); return;
	case 68:
		for (u32 k = 0; k < MIN(nold, 256) && blocks; k++)
			if (old[(i->b + k) % MIN(nold, 256)].block == (u64)(p - disk) / 4096) {
				memcpy(p, old[(i->b + k) % MIN(nold, 256)].data, 4096);
				return;
			}
		return;
	case 69: memcpy(snapshot, disk, disk_len); snapshot_len = disk_len; return;
	case 70: if (snapshot_len) memcpy(disk, snapshot, snapshot_len), disk_len = snapshot_len; return;
	case 71: storm = i->a % 60; return;
	}
	for (struct arm *a = arms; a < arms + 32; a++)
		if (!a->on) {
			*a = (struct arm){ 1, i->y % CLASSES, i->x % 64, FORGE, *i };
			if (i->op == 73) a->kind = SHORT, a->class = i->y & 1;
			if (i->op == 74) a->kind = LOST, a->class = WRITE;
			if (i->op == 75) a->kind = MISPLACED, a->class = WRITE;
			if (i->op == 76) a->kind = OTHER, a->class = READ;
			if (i->op == 77) a->kind = TORN, a->class = WRITE;
			return;
		}
}

// ---- the program

static u8 out[32 << 20], data[1 << 17];
static u64 nout;
static int alive;
static int held[HELD];

static void put(i64 r1, i64 r2, const void *p, u32 n)
{
	i64 r[2] = { r1, r2 };
	if (nout + 20 + n > sizeof out) abort();
	memcpy(out + nout, r, 16);
	memcpy(out + nout + 16, &n, 4);
	memcpy(out + nout + 20, p, n);
	nout += 20 + n;
}

static void pattern(u8 z, u64 off, u64 n)
{
	for (u64 k = 0; k < n; k++) data[k] = z * 131 + (off + k) * 7 + ((off + k) >> 8) * 13;
}

// A descriptor that the shim gave: not one that is in use or kept.
static long opened(long fd)
{
	for (int i = 0; i < HELD; i++)
		if (fd >= 0 && fd == held[i]) return -1000;
	return kept_fd(fd) || fd > 65535 ? -1000 : fd;
}

static void act(const struct ins *i)
{
	char p[300], q[300];
	long fd, r;
	u64 off = i->a % (i->z & 1 ? 600000 : 30000), n = i->b % 20000;
	snprintf(p, sizeof p, "/v/%s", names[i->x % NAMES]);
	snprintf(q, sizeof q, "/v/%s", names[i->y % NAMES]);
	if (i->op == 12 && i->x % 16 == 15) strcpy(p, "/v");
	switch (i->op) {
	case 1: case 2: case 14: // write, read, append
		fd = opened(CALL(NR_open, p, i->op == 1 ? O_RDWR : i->op == 2 ? 0 : O_WRONLY | O_APPEND, 0, 0));
		r = 0;
		if (i->op != 2) pattern(i->z, off, n);
		if (fd >= 0) {
			r = i->op == 1 ? CALL(NR_pwrite64, fd, data, n, off) : i->op == 2 ? CALL(NR_pread64, fd, data, n, off) : CALL(NR_write, fd, data, n, 0);
			CALL(NR_close, fd, 0, 0, 0);
		}
		return put(fd < 0 ? fd : 0, r, data, i->op == 2 && r > 0 ? MIN(r, (long)n) : 0);
	case 3: {
		struct { u64 dev, ino, nlink; u32 mode, uid, gid, pad; u64 rdev, size, rest[11]; } st;
		r = CALL(NR_lstat, p, &st, 0, 0);
		u64 v[2] = { st.mode, st.size };
		return put(r, 0, v, r ? 0 : 16);
	}
	case 4: return put(CALL(NR_truncate, p, off, 0, 0), 0, 0, 0);
	case 5: return put(CALL(NR_rename, p, q, 0, 0), 0, 0, 0);
	case 6: return put(CALL(NR_link, p, q, 0, 0), 0, 0, 0);
	case 7: return put(CALL(NR_unlink, p, 0, 0, 0), 0, 0, 0);
	case 8: return put(CALL(NR_mkdir, p, 0755, 0, 0), 0, 0, 0);
	case 9: return put(CALL(NR_rmdir, p, 0, 0, 0), 0, 0, 0);
	case 10: return put(CALL(NR_symlink, q, p, 0, 0), 0, 0, 0);
	case 11: r = CALL(NR_readlink, p, data, 4096, 0); return put(r, 0, data, r > 0 ? MIN(r, 4096) : 0);
	case 12: { // a directory: names with their types
		u8 buf[2048];
		u32 len = 0;
		fd = opened(CALL(NR_open, p, O_DIRECTORY, 0, 0));
		for (r = 0; fd >= 0 && (r = CALL(NR_getdents64, fd, buf, sizeof buf, 0)) > 0;)
			for (long at = 0; at < r && len < 60000; at += *(u16 *)(buf + at + 16)) {
				data[len++] = buf[at + 18];
				len += strlen(strcpy((char *)data + len, (char *)buf + at + 19)) + 1;
			}
		if (fd >= 0) CALL(NR_close, fd, 0, 0, 0);
		return put(fd < 0 ? fd : 0, r, data, r ? 0 : len);
	}
	case 13:
		fd = opened(CALL(NR_open, "/v", O_DIRECTORY, 0, 0));
		r = fd < 0 ? 0 : CALL(NR_fsync, fd, 0, 0, 0);
		if (fd >= 0) CALL(NR_close, fd, 0, 0, 0);
		return put(fd < 0 ? fd : 0, r, 0, 0);
	case 15: case 18: // create, and cut to nothing
		fd = opened(CALL(NR_open, p, i->op == 15 ? O_RDWR | O_CREAT | O_EXCL : O_RDWR | O_TRUNC, 0644, 0));
		if (fd >= 0) CALL(NR_close, fd, 0, 0, 0);
		return put(fd < 0 ? fd : 0, 0, 0, 0);
	case 16: {
		i64 ts[2] = { 0, 0 };
		r = CALL(NR_clock_gettime, 1, ts, 0, 0);
		return put(r, ts[0] * 1000000000 + ts[1], 0, 0);
	}
	case 17: { // a private mapping
		u64 len = ALIGN_UP(n + 1, PAGE);
		fd = opened(CALL(NR_open, p, 0, 0, 0));
		struct thread *t = &main_thread;
		r = fd < 0 ? 0 : shim_mmap(t, 0, len, PROT_READ, MAP_PRIVATE, fd, off & -PAGE);
		if (r > 0 && trusted_range(r, len)) r = -1000;
		if (fd >= 0) CALL(NR_close, fd, 0, 0, 0);
		put(fd < 0 ? fd : 0, r > 0 ? 0 : r, (void *)r, r > 0 ? len : 0);
		if (r > 0) munmap((void *)r, len);
		return;
	}
	case 20: // open and keep
		if (held[i->y % HELD] >= 0) CALL(NR_close, held[i->y % HELD], 0, 0, 0);
		held[i->y % HELD] = -1;
		fd = opened(CALL(NR_open, p, O_RDWR, 0, 0));
		if (fd >= 0) held[i->y % HELD] = fd;
		return put(fd < 0 ? fd : 0, 0, 0, 0);
	case 21:
		r = held[i->y % HELD] < 0 ? -EBADF : CALL(NR_pread64, held[i->y % HELD], data, n, off);
		return put(0, r, data, r > 0 ? MIN(r, (long)n) : 0);
	}
	put(0, 0, 0, 0);
}

static void start(u64 generation)
{
	for (int i = 0; i < HELD; i++) held[i] = -1;
	said[0] = 0;
	boot(generation);
	alive = 1;
}

// The launcher knows the generation of the last commit, and opens nothing older.
static void run(const struct ins *script, u32 count)
{
	static const struct ins *code; // what longjmp must not forget
	static u32 n;
	static u64 known;
	static int begun;
	code = script, n = count;
	known = begun = 0;
	nout = 0;
	storm = nold = 0;
	snapshot_len = 0;
	memset(arms, 0, sizeof arms);
	alive = 0;
	if (setjmp(died)) {
		alive = 0;
		put(DEAD, 0, said, strlen(said));
		if (begun) code++, n--;
	} else {
		start(0);
		put(0, CFG->generation, 0, 0);
	}
	for (begun = 1; n; code++, n--) {
		if (code->op >= 64) {
			behave(code);
		} else if (code->op == 19) { // the run ends: by its last act, or without
			if (alive) known = MAX(known, CFG->generation);
			long r = alive && code->x & 1 && !V->broken ? vol_commit() : -1;
			if (alive) known = MAX(known, CFG->generation);
			start(known);
			put(0, r, 0, 0);
		} else if (!alive) {
			put(DEAD, 1, 0, 0);
		} else {
			act(code);
			known = MAX(known, CFG->generation);
		}
	}
}

static int take(void *p, u64 n)
{
	for (u64 got = 0; got < n;) {
		long r = read(0, (u8 *)p + got, n - got);
		if (r <= 0) return 0;
		got += r;
	}
	return 1;
}

static void give(const void *p, u32 n)
{
	u32 len = n;
	for (u64 done = 0; done < 4;) done += write(1, (u8 *)&len + done, 4 - done);
	for (u64 done = 0; done < n;) {
		long r = write(1, (u8 *)p + done, n - done);
		if (r <= 0) exit(1);
		done += r;
	}
}

int main(void)
{
	static u8 in[DISK_MAX];
	u8 cmd;
	u32 n;
	prepare();
	clean = malloc(DISK_MAX);
	snapshot = malloc(DISK_MAX);
	while (take(&cmd, 1) && take(&n, 4) && n <= sizeof in && take(in, n)) {
		switch (cmd) {
		case 'V':
			memcpy(key, in, 32);
			clean_len = disk_len = n - 32;
			memcpy(clean, in + 32, clean_len);
			memcpy(disk, clean, clean_len);
			give(0, 0);
			break;
		case 'S':
			memcpy(disk, clean, clean_len);
			disk_len = clean_len;
			/* fall through */
		case 'C':
			run((struct ins *)in, n / sizeof(struct ins));
			give(out, nout);
			break;
		case 'G':
			give(disk, disk_len);
			break;
		}
	}
	return 0;
}
