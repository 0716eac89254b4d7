/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The console shield: what programs write to the standard output and error that the
 * run began with leaves in sealed blocks, each with its place in the stream; the last
 * one says that it is the last. Format: docs/shim.md.
 */
#include "path.h"

struct block {
	u8 magic[4];            /* "PCB1" */
	u8 stream, end;         /* 1 output, 2 error; 1 on the last block */
	u8 zero[2];
	u32 len;
	u8 salt[12];
	u64 seq;
	u8 run[16];             /* the same in all blocks of a run */
	u8 tag[16];
};
_Static_assert(sizeof(struct block) == 64, "console block");

/* Sets the streams up (in the first process of a run). */
void console_start(struct thread *t)
{
	memcpy(V->console.key.raw, CFG->console_key, 32);
	memset(CFG->console_key, 0, 32);
	seal_key(&V->console.key);
	if (H(NR_getrandom, V->console.run, 16, 0) != 16) die("no random bytes from the host", 0);
	for (int fd = 1; fd <= 2; fd++) {
		OFDS[fd] = (struct ofd){ .refs = 2, .ino = NONE, .flags = fd }; /* one reference for good */
		t->fdtab[fd] = fd;
	}
}

static long put_all(u64 fd, const u8 *p, u64 n)
{
	for (u64 done = 0; done < n;) {
		long r = H(NR_write, fd, p + done, n - done);
		if (r == -EAGAIN) {
			struct { int fd; u16 events, got; } poll = { fd, 4, 0 };
			H(NR_poll, &poll, 1, -1);
		} else if (r != -EINTR) {
			if (r <= 0 || (u64)r > n - done) return r < 0 ? r : -EIO;
			done += r;
		}
	}
	return 0;
}

/* One block of at most COPY_SIZE - 64 bytes. The lock keeps blocks in one piece and in order. */
static long put_block(struct thread *t, u64 fd, int stream, const u8 *from, u64 n, int end)
{
	static const u8 file[16];
	u8 *buf = t->copy ? t->copy : (t->copy = scratch(COPY_SIZE));
	struct block *b = (struct block *)buf;
	if (!buf) return -ENOMEM;
	lock(&V->console.lock);
	*b = (struct block){ { 'P', 'C', 'B', '1' }, stream, end, { 0 }, n, { 0 }, V->console.seq[stream - 1], { 0 }, { 0 } };
	memcpy(b->run, V->console.run, 16);
	long r = ucopy(buf + 64, from, n) ? -EFAULT : 0;
	if (!r && H(NR_getrandom, b->salt, 12, 0) != 12) die("no random bytes from the host", 0);
	struct box x = { .key = &V->console.key, .volume = b->run, .file = file, .cls = stream, .level = end, .index = b->seq,
		.n = n, .in = buf + 64, .out = buf + 64 };
	memcpy(x.salt, b->salt, 12);
	if (!r) {
		seal_box(&x);
		memcpy(b->tag, x.tag, 16);
		r = put_all(fd, buf, 64 + n);
		V->console.seq[stream - 1]++;
	}
	unlock(&V->console.lock);
	return r ? r : (long)n;
}

long console_write(struct thread *t, u64 fd, int stream, const u8 *p, u64 n)
{
	u64 done = 0;
	while (done < n) {
		long r = put_block(t, fd, stream, p + done, MIN(n - done, COPY_SIZE - 64), 0);
		if (r < 0) return done ? (long)done : r;
		done += r;
	}
	return done;
}

/* The end marks, from the last process of a run. */
void console_end(struct thread *t)
{
	for (int fd = 1; fd <= 2; fd++) put_block(t, fd, fd, 0, 0, 1);
}
