// SPDX-License-Identifier: Apache-2.0
// The evil host: the shim's file shield linked with an executor that lies.
//
//   evil dump VOLUME KEY                    what the C code reads: path, type, size, SHA-256
//   evil hostile VOLUME KEY SEED N          random calls while N results of the host are forged
//   evil corrupt VOLUME KEY SEED N          N volumes, each damaged in another way
//   evil crash VOLUME KEY SEED [DIR]        stop at every write of a scripted workload; images to DIR
//   evil time VOLUME KEY                    clock and descriptor forgeries
//
// The program under the shield must see true data or an error, never anything else.
#include "evilhost.h"

// ---- the host

static struct { u64 block; u8 data[4096]; } old[OLD]; // what blocks held before
static u32 nold;
static int lying, storm;
static u64 lies, calls, rnd = 88172645463325252ul;
static i64 clock_now = 1700000000000000000;
static void (*on_write)(u64 off, const u8 *p, u64 n);

static u64 rand64(void)
{
	rnd ^= rnd << 13, rnd ^= rnd >> 7, rnd ^= rnd << 17;
	return rnd * 2685821657736338717ul;
}
static int chance(int n) { return rand64() % n == 0; }

static long lie_number(long honest)
{
	static const long forged[] = { -5, -28, -12, -4, -9, 0, 1, 4095, 4097, 8192, -4096, 0x7fffffff, 0x100000001, -0x7fffffffffffffff };
	lies++;
	return chance(4) ? honest + 1 : chance(4) ? honest - 1 : forged[rand64() % (sizeof forged / sizeof *forged)];
}

static long host_read(u8 *buf, u64 n, u64 off)
{
	long r = off >= disk_len ? 0 : (long)MIN(n, disk_len - off);
	memcpy(buf, disk + off, r);
	if (!lying || !chance(lying) || r <= 0)
		return r;
	switch (rand64() % 7) {
	case 0: buf[rand64() % r] ^= 1 << rand64() % 8; break;
	case 1: memcpy(buf, disk + rand64() % (disk_len / 4096) * 4096, MIN(r, 4096)); break; // another block
	case 2:
		for (u32 i = 0; i < 64 && nold; i++) { // this block as it was before
			u32 k = rand64() % MIN(nold, OLD);
			if (old[k].block == off / 4096) {
				memcpy(buf, old[k].data, MIN(r, 4096));
				break;
			}
		}
		break;
	case 3: memset(buf, 0, r); break;
	case 4: storm = 1 + rand64() % 50; lies++; return -EINTR;
	case 5: r = rand64() % r; lies++; return r; // short: the shim asks for the rest
	default: return lie_number(r);
	}
	lies++;
	return r;
}

static long host_write(const u8 *p, u64 n, u64 off)
{
	long r = n;
	if (lying && chance(lying)) {
		if (chance(3)) {
			storm = 1 + rand64() % 50;
			lies++;
			return -EINTR;
		}
		if (chance(2)) {
			r = rand64() % n; // short, honestly
			lies++;
		} else {
			r = lie_number(n);
			if (r < 0 || r > (long)n || chance(2))
				return r; // and wrote nothing
		}
	}
	if (off + r > DISK_MAX)
		return -ENOSPC;
	for (u64 b = off; b + 4096 <= off + r; b += 4096) {
		u32 k = nold++ % OLD;
		old[k].block = b / 4096;
		memcpy(old[k].data, disk + b, 4096);
	}
	if (on_write)
		on_write(off, p, r);
	memcpy(disk + off, p, r);
	disk_len = MAX(disk_len, off + r);
	return r;
}

long host(long nr, ...)
{
	u64 a[6];
	va_list ap;
	va_start(ap, nr);
	for (int i = 0; i < 6; i++)
		a[i] = va_arg(ap, u64);
	va_end(ap);
	calls++;
	if (storm && (nr == NR_pread64 || nr == NR_pwrite64 || nr == NR_fdatasync)) {
		storm--;
		lies++;
		return -EINTR;
	}
	switch (nr) {
	case NR_pread64: return a[0] == fd_base + FD_VOLUME ? host_read((u8 *)a[1], a[2], a[3]) : -EBADF;
	case NR_pwrite64: return a[0] == fd_base + FD_VOLUME ? host_write((u8 *)a[1], a[2], a[3]) : -EBADF;
	case NR_fdatasync: return lying && chance(lying) ? lie_number(0) : 0;
	case NR_fstat:
		memset((void *)a[1], 0, 144);
		((u64 *)a[1])[6] = disk_len;
		return 0;
	case NR_openat: {
		int fd = 3;
		while (main_thread.fdtab[fd])
			fd++;
		if (lying && chance(8 * lying)) {
			lies++;
			switch (rand64() % 4) {
			case 0: return fd_base + rand64() % 16;
			case 1: return 3 + rand64() % 4; // perhaps one that is in use
			case 2: return 0x7fffffffffl;
			default: return -24;
			}
		}
		return fd;
	}
	case NR_getrandom:
		for (u64 i = 0; i < a[1]; i++)
			((u8 *)a[0])[i] = rand64() >> 32;
		return lying && chance(4) ? (lies++, -EINTR) : (long)a[1];
	case NR_clock_gettime:
		clock_now += lying && chance(lying) ? (lies++, (i64)(rand64() % 2000000) - 1000000) : 1000;
		((i64 *)a[1])[0] = clock_now / 1000000000;
		((i64 *)a[1])[1] = clock_now % 1000000000;
		return 0;
	case NR_mmap: {
		void *p = mmap((void *)a[0], a[1], a[2], a[3], (int)a[4], a[5]);
		return p == MAP_FAILED ? -ENOMEM : (long)p;
	}
	case NR_munmap: return munmap((void *)a[0], a[1]);
	case NR_exit_group: longjmp(died, 1);
	case NR_getcwd: return put_str((char *)a[0], "/") - (char *)a[0] + 1;
	case NR_write: return a[2];
	}
	return 0; // uid 0, futexes, closes
}
long host_wait(long nr, ...) { (void)nr; return -EINTR; }

static void fail(const char *what, const char *detail)
{
	printf("FAILED: %s %s (random state %lu, %lu lies)\n", what, detail, rnd, lies);
	exit(1);
}

// ---- a tree, as the program sees it

struct node { char path[600]; u32 mode; u64 size; u8 hash[32]; };
struct tree { u32 n; int errors; struct node v[2000]; };

static u8 content[16 << 20];

static void look(struct tree *tr, const char *path)
{
	struct { u64 dev, ino, nlink; u32 mode, uid, gid, pad; u64 rdev, size, rest[11]; } st;
	struct node *n = &tr->v[tr->n];
	if (CALL(NR_lstat, path, &st, 0, 0)) {
		tr->errors++;
		return;
	}
	if (tr->n++ == 1999)
		abort();
	memset(n, 0, sizeof *n);
	strcpy(n->path, path);
	n->mode = st.mode;
	n->size = st.size;
	if ((st.mode & S_IFMT) == S_IFLNK) {
		long k = CALL(NR_readlink, path, content, 4096, 0);
		if (k < 0) {
			tr->errors++;
			tr->n--;
			return;
		}
		sha256(content, k, n->hash);
	}
	if ((st.mode & S_IFMT) == S_IFREG && st.size <= sizeof content) {
		long fd = CALL(NR_open, path, 0, 0, 0), got = 0, k = fd < 0 ? fd : 1;
		while (k > 0 && (k = CALL(NR_pread64, fd, content + got, sizeof content - got, got)) > 0)
			got += k;
		if (fd >= 0)
			CALL(NR_close, fd, 0, 0, 0);
		if (k < 0 || (u64)got != st.size) {
			if (k >= 0)
				fail("short file", path);
			tr->errors++;
			tr->n--;
			return;
		}
		sha256(content, got, n->hash);
	}
	if ((st.mode & S_IFMT) == S_IFDIR) {
		u8 buf[8192];
		long fd = CALL(NR_open, path, O_DIRECTORY, 0, 0), k = fd;
		while (fd >= 0 && (k = CALL(NR_getdents64, fd, buf, sizeof buf, 0)) > 0) {
			u8 here[8192];
			memcpy(here, buf, k);
			for (long at = 0; at < k; at += *(u16 *)(here + at + 16)) {
				char *name = (char *)here + at + 19, sub[600];
				if (!strcmp(name, ".") || !strcmp(name, ".."))
					continue;
				snprintf(sub, sizeof sub, "%s/%s", path, name);
				look(tr, sub);
			}
		}
		if (k < 0)
			tr->errors++;
		if (fd >= 0)
			CALL(NR_close, fd, 0, 0, 0);
	}
}

static struct tree truth, seen;

static void walk(struct tree *t)
{
	t->n = t->errors = 0;
	look(t, "/v");
}

// Everything seen must be true; what is missing must have been an error.
static int lied_to(const char *how)
{
	u32 k = 0;
	for (u32 i = 0; i < seen.n; i++) {
		while (k < truth.n && strcmp(truth.v[k].path, seen.v[i].path))
			k++;
		if (k == truth.n || memcmp(&truth.v[k], &seen.v[i], sizeof seen.v[i]))
			fail(how, seen.v[i].path);
	}
	if (seen.n != truth.n && !seen.errors)
		fail(how, "something is missing and no error was given");
	return seen.errors > 0;
}

static void restore(void)
{
	memcpy(disk, clean, clean_len);
	disk_len = clean_len;
	nold = 0;
	storm = 0;
}

static void load(const char *volume, const char *keyfile)
{
	FILE *f = fopen(keyfile, "rb");
	if (!f || fread(key, 1, 32, f) != 32)
		abort();
	fclose(f);
	f = fopen(volume, "rb");
	clean = malloc(DISK_MAX);
	if (!f || !(clean_len = fread(clean, 1, DISK_MAX, f)))
		abort();
	fclose(f);
	prepare();
	restore();
}

static void dump(void)
{
	boot(0);
	walk(&truth);
	for (u32 i = 0; i < truth.n; i++) {
		printf("%s\t%o\t%lu\t", truth.v[i].path + 2, truth.v[i].mode, (truth.v[i].mode & S_IFMT) == S_IFDIR ? 0 : truth.v[i].size);
		for (int k = 0; k < 32; k++)
			printf("%02x", truth.v[i].hash[k]);
		printf("\n");
	}
	if (truth.errors)
		fail("errors on a clean volume", "");
}

static void corrupt(u64 n)
{
	u64 refused = 0, errors = 0, same = 0;
	boot(0);
	u64 gen = CFG->generation;
	walk(&truth);
	for (u64 i = 0; i < n; i++) {
		restore();
		u64 blocks = disk_len / 4096, b = rand64() % blocks, c = rand64() % blocks;
		u8 t[4096];
		int times = chance(4) ? 1 + rand64() % 8 : 1;
		while (times--)
			switch (rand64() % 8) {
			case 0: case 1: disk[rand64() % disk_len] ^= 1 << rand64() % 8; break;
			case 2: disk[b * 4096 + rand64() % 512] ^= 1 << rand64() % 8; break;
			case 3: memcpy(t, disk + b * 4096, 4096); memcpy(disk + b * 4096, disk + c * 4096, 4096); memcpy(disk + c * 4096, t, 4096); break;
			case 4: memcpy(disk + b * 4096, disk + c * 4096, 4096); break;
			case 5: memset(disk + b * 4096, rand64(), 4096); break;
			case 6: disk_len = 4096 + rand64() % (disk_len - 4096); blocks = disk_len / 4096; b %= blocks; c %= blocks; break;
			case 7: memset(disk + rand64() % disk_len, 0, 1); break;
			}
		if (setjmp(died)) {
			refused++;
			continue;
		}
		boot(gen);
		walk(&seen);
		if (lied_to("damaged volume"))
			errors++;
		else
			same++;
	}
	printf("%lu damaged volumes: %lu refused at opening, %lu with errors later, %lu read in full and true\n", n, refused, errors, same);
}

// Random calls against a model in memory.
enum { FILES = 12, FSIZE = 40000 };
static struct { int known, there; u64 size; u8 data[FSIZE + 8192]; } model[FILES];

static void hostile(u64 want, int keep_going)
{
	u64 ops = 0, errors = 0, deaths = 0, checked = 0;
	volatile int alive = 0;
	(void)keep_going;
	while (lies < want) {
		if (setjmp(died)) {
			deaths++;
			alive = 0;
		}
		if (!alive) {
			lying = 0;
			restore();
			boot(0);
			memset(model, 0, sizeof model);
			for (int i = 0; i < FILES; i++)
				model[i].known = 1;
			alive = 1;
		}
		lying = 3 + rand64() % 12;
		for (int step = 0; step < 400; step++, ops++) {
			int i = rand64() % FILES, j = rand64() % FILES;
			char p[32], q[32];
			static u8 buf[FSIZE];
			u64 off = rand64() % FSIZE, n = rand64() % 9000;
			sprintf(p, "/v/evil%d", i);
			sprintf(q, "/v/evil%d", j);
			long r, fd;
			switch (rand64() % 10) {
			case 0: case 1: case 2: // write
				fd = CALL(NR_open, p, O_RDWR | O_CREAT, 0644, 0);
				if (fd < 0) {
					errors++;
					if (!model[i].there)
						model[i].known = 0; // made or not
					break;
				}
				model[i].there = 1;
				n = MIN(n, FSIZE - off);
				for (u64 k = 0; k < n; k++)
					buf[k] = rand64();
				r = CALL(NR_pwrite64, fd, buf, n, off);
				if (r > (long)n)
					fail("pwrite answered too much", p);
				if (r > 0 && model[i].known) {
					memcpy(model[i].data + off, buf, r);
					model[i].size = MAX(model[i].size, off + r);
				}
				if (r < 0)
					errors++;
				if (chance(6))
					CALL(NR_fsync, fd, 0, 0, 0);
				CALL(NR_close, fd, 0, 0, 0);
				break;
			case 3: case 4: case 5: case 6: // read
				fd = CALL(NR_open, p, 0, 0, 0);
				if (fd < 0) {
					errors++;
					if (fd == -ENOENT && model[i].known && model[i].there)
						fail("file is gone", p);
					break;
				}
				r = CALL(NR_pread64, fd, buf, n, off);
				if (r < 0) {
					errors++;
				} else if (model[i].known) {
					u64 have = off < model[i].size ? MIN(n, model[i].size - off) : 0;
					if (!model[i].there || (u64)r > have || memcmp(buf, model[i].data + off, r))
						fail("read gave what was never written", p);
					checked++;
				}
				CALL(NR_close, fd, 0, 0, 0);
				break;
			case 7: // truncate
				fd = CALL(NR_truncate, p, off, 0, 0);
				if (!fd && model[i].known) {
					if (off < model[i].size)
						memset(model[i].data + off, 0, model[i].size - off);
					model[i].size = off;
				} else if (fd != -ENOENT) {
					errors++, model[i].known = 0;
				}
				break;
			case 8: // rename
				r = CALL(NR_rename, p, q, 0, 0);
				if (i == j || r == -ENOENT)
					break;
				if (r) {
					errors++;
					model[i].known = model[j].known = 0;
				} else {
					model[j] = model[i];
					memset(&model[i], 0, sizeof model[i]);
					model[i].known = model[j].known;
				}
				break;
			case 9: // unlink
				r = CALL(NR_unlink, p, 0, 0, 0);
				if (!r) {
					memset(&model[i], 0, sizeof model[i]);
					model[i].known = 1;
				} else if (r != -ENOENT) {
					errors++, model[i].known = 0;
				}
				break;
			}
			if (!model[i].known && chance(20)) { // settle what is unknown
				r = CALL(NR_unlink, p, 0, 0, 0);
				if (!r || r == -ENOENT) {
					memset(&model[i], 0, sizeof model[i]);
					model[i].known = 1;
				}
			}
		}
		if (chance(10)) { // honest again: what was committed before must open
			lying = 0;
			storm = 0;
			if (CALL(NR_sync, 0, 0, 0, 0) == 0 && !V->broken && chance(2))
				alive = 0;
		}
	}
	printf("%lu forged results in %lu host calls, %lu operations: %lu reads true, %lu errors, %lu times stopped\n", lies, calls, ops, checked, errors, deaths);
}

// ---- crash at every write

static struct { u64 off, n; u8 *p; } wlog[100000];
static u32 nwlog;
static struct { u32 writes; struct tree t; } *states;
static u32 nstates;

static void record(u64 off, const u8 *p, u64 n)
{
	wlog[nwlog].off = off, wlog[nwlog].n = n;
	memcpy(wlog[nwlog].p = malloc(n), p, n);
	nwlog++;
}

static void commit_point(void)
{
	long fd = CALL(NR_open, "/v", O_DIRECTORY, 0, 0);
	if (CALL(NR_fsync, fd, 0, 0, 0))
		fail("fsync", "");
	CALL(NR_close, fd, 0, 0, 0);
	states[nstates].writes = nwlog;
	walk(&states[nstates].t);
	nstates++;
}

static void workload(void)
{
	char p[64];
	static u8 buf[200000];
	for (int round = 0; round < 12; round++) {
		for (int i = 0; i < 12; i++) {
			sprintf(p, "/v/c%d", (int)(rand64() % 30));
			long fd = CALL(NR_open, p, O_RDWR | O_CREAT, 0644, 0);
			u64 n = rand64() % (chance(4) ? sizeof buf : 3000), off = rand64() % 100000;
			for (u64 k = 0; k < n; k++)
				buf[k] = rand64();
			if (fd < 0 || CALL(NR_pwrite64, fd, buf, n, off) != (long)n)
				fail("workload", p);
			CALL(NR_close, fd, 0, 0, 0);
			if (chance(5))
				CALL(NR_unlink, p, 0, 0, 0);
			if (chance(5))
				CALL(NR_truncate, p, rand64() % 5000, 0, 0);
			if (chance(4)) {
				char q[64];
				sprintf(q, "/v/d%d", (int)(rand64() % 5));
				CALL(NR_mkdir, q, 0755, 0, 0);
				strcat(q, "/moved");
				CALL(NR_rename, p, q, 0, 0);
			}
		}
		commit_point();
	}
}

static int same_tree(struct tree *a, struct tree *b)
{
	return a->n == b->n && !a->errors && !b->errors && !memcmp(a->v, b->v, a->n * sizeof a->v[0]);
}

static void crash(const char *dir)
{
	u64 tried = 0;
	states = calloc(40, sizeof *states);
	boot(0);
	walk(&states[0].t);
	nstates = 1;
	on_write = record;
	workload();
	on_write = 0;
	for (u32 k = 0; k <= nwlog; k++)
		for (int torn = 0; torn < 4; torn++) {
			restore();
			for (u32 i = 0; i < k; i++) {
				memcpy(disk + wlog[i].off, wlog[i].p, wlog[i].n);
				disk_len = MAX(disk_len, wlog[i].off + wlog[i].n);
			}
			if (torn && k < nwlog) { // part of the next write as well
				u64 n = wlog[k].n <= 4096 ? torn * 100 : rand64() % wlog[k].n;
				memcpy(disk + wlog[k].off, wlog[k].p, n);
				disk_len = MAX(disk_len, wlog[k].off + n);
			}
			u32 s = 0;
			while (s + 1 < nstates && states[s + 1].writes <= k)
				s++;
			if (setjmp(died))
				fail("volume refused after a crash", "");
			boot(0);
			walk(&seen);
			tried++;
			if (!same_tree(&seen, &states[s].t) && !(s + 1 < nstates && same_tree(&seen, &states[s + 1].t)))
				fail("a mix of states after a crash", "");
			if (dir && !torn && k % 8 == 0) {
				char p[300];
				snprintf(p, sizeof p, "%s/%u", dir, k);
				FILE *f = fopen(p, "wb");
				if (!f || fwrite(disk, 1, disk_len, f) != disk_len)
					abort();
				fclose(f);
			}
		}
	printf("%u writes, %u commits: %lu crashes, each gave the old or the new state\n", nwlog, nstates - 1, tried);
}

static void forge_time(void)
{
	u64 last = 0, back = 0;
	boot(0);
	lying = 2;
	for (int i = 0; i < 200000; i++) {
		i64 ts[2];
		u64 was = clock_now;
		if (CALL(NR_clock_gettime, 1, ts, 0, 0))
			fail("clock_gettime", "");
		if ((u64)clock_now < was)
			back++;
		u64 now = ts[0] * 1000000000ul + ts[1];
		if (now < last)
			fail("time went back", "");
		last = now;
	}
	printf("the host's clock went back %lu times, the program's never\n", back);
}

int main(int argc, char **argv)
{
	if (argc < 4)
		return 2;
	setvbuf(stdout, 0, _IOLBF, 0);
	load(argv[2], argv[3]);
	if (setjmp(died))
		fail("refused a clean volume", "");
	if (argc > 4)
		rnd ^= strtoul(argv[4], 0, 0) * 0x9e3779b97f4a7c15ul;
	u64 n = argc > 5 ? strtoul(argv[5], 0, 0) : 1000;
	if (!strcmp(argv[1], "dump"))
		dump();
	else if (!strcmp(argv[1], "corrupt"))
		corrupt(n);
	else if (!strcmp(argv[1], "hostile"))
		hostile(n, 0);
	else if (!strcmp(argv[1], "crash"))
		crash(argc > 5 ? argv[5] : 0);
	else if (!strcmp(argv[1], "time"))
		forge_time();
	else
		return 2;
	return 0;
}
