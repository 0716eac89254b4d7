/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sealed volume: opening, blocks and trees, allocation, inodes, commit.
 * Written from docs/sealfs.md; the section numbers are those of that document.
 * What the host gives is opened into our own memory and used only from there.
 */
#include "vol.h"

struct header {
	u8 magic[8];
	u32 version;
	u8 suite, chunk_log, zero[2];
	u8 volume_id[16], salt[32], commitment[32];
	u8 pad[384];
	u8 mac[32];
};
struct slot {
	u8 magic[8];
	u64 gen;
	u8 salt[12];
	u32 zero;
	u8 tag[16], box[208];
};
struct root {
	u64 gen;
	u32 blocks, inodes;
	struct cell cell;
	u8 depth, zero[7];
	i64 time;
	u8 prev[32], pad[112];
};
_Static_assert(sizeof(struct header) == 512 && sizeof(struct slot) == 256 && sizeof(struct root) == 208, "layout");

static const u8 ones[16] = { 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255, 255 };

/* One line for the first thing that is found wrong; every caller gets its -EIO. */
void vol_complain(const char *what, u64 n)
{
	char b[200];
	if (V->complained++) return;
	put_num(put_str(put_str(b, what), " "), n);
	say("error", "the volume is damaged or was changed by the host", b);
}

static long corrupt(const char *what, u64 n)
{
	vol_complain(what, n);
	return -EIO;
}

static int zero(const void *p, u64 n)
{
	const u8 *b = p;
	u8 d = 0;
	for (u64 i = 0; i < n; i++) d |= b[i];
	return d == 0;
}

i64 now(void)
{
	i64 ts[2] = { 0, 0 };
	H(NR_clock_gettime, 0, ts);
	return ts[0] * 1000000000 + ts[1];
}

/* ---- the host's file: its errors say nothing of the program's files, so only these two reach it */

static long host_error(long r) { return r == -ENOSPC || r == -EFBIG || r == -122 /* EDQUOT */ ? -ENOSPC : -EIO; }

static long host_pread(u64 block, void *buf)
{
	u64 got = 0;
	while (got < 4096) {
		long r = H(NR_pread64, fd_base + FD_VOLUME, (u8 *)buf + got, 4096 - got, block * 4096 + got);
		if (r == -EINTR) continue;
		if (r <= 0 || (u64)r > 4096 - got) return -EIO;
		got += r;
	}
	return 0;
}

static long host_pwrite(u64 block, const void *buf, u64 n)
{
	u64 put = 0;
	while (put < n) {
		long r = H(NR_pwrite64, fd_base + FD_VOLUME, (u8 *)buf + put, n - put, block * 4096 + put);
		if (r == -EINTR) continue;
		if (r <= 0 || (u64)r > n - put) return host_error(r);
		put += r;
	}
	return 0;
}

static long host_sync(void)
{
	long r;
	while ((r = H(NR_fdatasync, fd_base + FD_VOLUME)) == -EINTR)
		;
	return r ? host_error(r) : 0;
}

/* Blocks are mostly allocated side by side: they go out together. */
static long flush_writes(void)
{
	long r = V->wcount ? host_pwrite(V->wstart, V->wbuf, V->wcount * 4096ul) : 0;
	if (!r) V->wcount = 0;
	return r;
}

static long write_block(u32 block, const u8 *p)
{
	if (V->wcount && (block != V->wstart + V->wcount || V->wcount == 64)) {
		long r = flush_writes();
		if (r) return r;
	}
	if (!V->wcount) V->wstart = block;
	memcpy(V->wbuf + V->wcount++ * 4096ul, p, 4096);
	return 0;
}

/* From a pool in shared memory, so that a forked process cannot draw the same bytes again. */
static void random_bytes(u8 *out, u32 n)
{
	while (V->random_left < n) {
		long r = H(NR_getrandom, V->random, sizeof V->random, 0);
		if (r == sizeof V->random)
			V->random_left = r;
		else if (r != -EINTR)
			die("no random bytes from the host", 0);
	}
	V->random_left -= n;
	memcpy(out, V->random + V->random_left, n);
	memset(V->random + V->random_left, 0, n);
}

/* ---- keys (2.1) */

static void expand_key(const char *label, const u8 *extra, u32 n, u8 out[32])
{
	u8 m[96], *p = m + strlen(label);
	memcpy(m, label, p - m);
	memcpy(p, V->volume_id, 16);
	memcpy(p += 16, extra, n);
	p += n;
	*p++ = 1;
	hmac_sha256(V->prk, 32, m, p - m, out);
	memset(m, 0, sizeof m);
}

static void file_key(struct inode *ip)
{
	u8 extra[17];
	memcpy(extra, ip->r.id, 16);
	extra[16] = ip->r.cls;
	expand_key("sealfs/1 file", extra, 17, ip->key.raw);
	seal_key(&ip->key);
}

/* ---- bitmaps (9) */

static int bit(u64 *m, u64 i) { return m[i / 64] >> i % 64 & 1; }
static void set(u64 *m, u64 i) { m[i / 64] |= 1ul << i % 64; }
static void clear(u64 *m, u64 i) { m[i / 64] &= ~(1ul << i % 64); }

/* The lowest clear bit from `from` on, or `end`. */
static u64 find_clear(u64 *m, u64 from, u64 end)
{
	for (u64 i = from; i < end; i = (i / 64 + 1) * 64) {
		u64 w = ~m[i / 64] >> i % 64;
		if (w) return MIN(i + __builtin_ctzl(w), end);
	}
	return end;
}

static long block_alloc(u32 *out)
{
	u64 *used = BITMAP(B_USED);
	u64 b = find_clear(used, V->cursor, V->blocks);
	if (b == V->blocks && V->cursor > 3)
		b = find_clear(used, 3, V->cursor);
	else if (b == V->blocks)
		V->cursor = 3;
	if (b >= V->blocks || bit(used, b)) {
		if (V->blocks >= MAX_BLOCKS) return -ENOSPC;
		b = V->blocks++;
	}
	set(used, b);
	set(BITMAP(B_FRESH), b);
	V->cursor = b + 1;
	*out = b;
	return 0;
}

static void block_free(u32 b)
{
	if (!b) return;
	V->changed = 1;
	if (bit(BITMAP(B_FRESH), b)) {
		clear(BITMAP(B_FRESH), b);
		clear(BITMAP(B_USED), b);
		V->cursor = MIN(V->cursor, b);
	} else {
		set(BITMAP(B_DEAD), b);
	}
}

/* ---- cached blocks */

static u32 ehash(u32 ino, int level, u64 index)
{
	u64 h = (index * 8 + level) * 0x9e3779b97f4a7c15ul ^ ino * 0xc2b2ae3d27d4eb4ful;
	return (h >> 40) & (NEHASH - 1);
}

static struct entry *entry_find(u32 ino, int level, u64 index)
{
	for (u32 i = EHASH[ehash(ino, level, index)]; i; i = ENTRIES[i].next) {
		struct entry *e = &ENTRIES[i];
		if (e->ino == ino && e->index == index && e->level == level) return e;
	}
	return 0;
}

struct entry *block_cached(struct inode *ip, int level, u64 index)
{
	return entry_find(ip->ino, level, index);
}

static void entry_clean(struct inode *ip, struct entry *e)
{
	if (!e->dirty) return;
	if (e->prev_dirty)
		ENTRIES[e->prev_dirty].next_dirty = e->next_dirty;
	else
		ip->head[e->level] = e->next_dirty;
	if (e->next_dirty) ENTRIES[e->next_dirty].prev_dirty = e->prev_dirty;
	e->dirty = 0;
	ip->ndirty--;
	V->ndirty--;
}

static void entry_drop(struct entry *e)
{
	u32 *p = &EHASH[ehash(e->ino, e->level, e->index)];
	while (&ENTRIES[*p] != e) p = &ENTRIES[*p].next;
	*p = e->next;
	e->ino = NONE;
	e->warm = 0;
}

/* A clean page to use. vol_balance keeps enough of them. */
static struct entry *entry_new(u32 ino, int level, u64 index)
{
	for (u32 tries = 0; tries < 2 * V->nentries; tries++) {
		u32 i = V->hand++;
		if (V->hand >= V->nentries) V->hand = 1;
		struct entry *e = &ENTRIES[i];
		if (e->dirty || e->pins || e->maps) continue;
		if (e->ino != NONE && e->warm) {
			e->warm = 0;
			continue;
		}
		if (e->ino != NONE) entry_drop(e);
		u32 *head = &EHASH[ehash(ino, level, index)];
		e->ino = ino, e->level = level, e->index = index;
		e->checked = 0;
		e->warm = 1;
		e->next = *head;
		*head = i;
		return e;
	}
	return 0;
}

static struct box box_of(struct inode *ip, int level, u64 index)
{
	struct box b = { .key = &ip->key, .volume = V->volume_id, .file = ip->r.id, .cls = ip->r.cls, .level = level,
		.index = index, .n = 4096, .clear = ip->r.cls == R_AUTH && level == 0 && ip->r.type == T_REG };
	return b;
}

/* The cell of a block: in the inode, or in the node above (which then is *parent). */
static struct cell *cell_of(struct inode *ip, int level, u64 index, struct entry **parent, long *err)
{
	*parent = 0;
	if (level == ip->r.depth) return &ip->r.cell;
	struct entry *p = block_get(ip, level + 1, index >> 7, 0, err);
	if (!p) return 0;
	*parent = p;
	return (struct cell *)PAGE_OF(p) + (index & 127);
}

/*
 * block_get gives a block of a file, opened. With fresh the content does not matter,
 * since all of it is about to be written. NULL: *err.
 */
struct entry *block_get(struct inode *ip, int level, u64 index, int fresh, long *err)
{
	struct entry *e = entry_find(ip->ino, level, index), *parent;
	if (e) {
		e->warm = 1;
		return e;
	}
	if (level > ip->r.depth || index >> 7 * (ip->r.depth - level)) {
		*err = corrupt("tree of inode", ip->ino);
		return 0;
	}
	struct cell *cp = cell_of(ip, level, index, &parent, err);
	if (!cp) return 0;
	struct cell c = *cp;
	if (c.block ? c.block < 3 || c.block >= V->blocks : !zero(&c, sizeof c)) {
		*err = corrupt("cell in inode", ip->ino);
		return 0;
	}
	e = entry_new(ip->ino, level, index);
	if (!e) {
		*err = -ENOMEM;
		return 0;
	}
	if (!c.block || fresh) {
		memset(PAGE_OF(e), 0, 4096);
		return e;
	}
	long r = 0;
	if (c.block - V->wstart < V->wcount) /* not written yet */
		memcpy(V->rbuf, V->wbuf + (c.block - V->wstart) * 4096ul, 4096);
	else
		r = host_pread(c.block, V->rbuf);
	if (!r) {
		struct box b = box_of(ip, level, index);
		memcpy(b.salt, c.salt, 12);
		memcpy(b.tag, c.tag, 16);
		b.in = V->rbuf;
		b.out = PAGE_OF(e);
		if (open_box(&b)) r = corrupt("block", c.block);
	} else {
		vol_complain("the host does not give block", c.block);
	}
	if (r) {
		memset(PAGE_OF(e), 0, 4096);
		entry_drop(e);
		*err = r;
		return 0;
	}
	return e;
}

long block_dirty(struct inode *ip, struct entry *e)
{
	e->warm = 1;
	V->changed = 1;
	if (e->dirty) return 0;
	e->dirty = 1;
	e->prev_dirty = 0;
	e->next_dirty = ip->head[e->level];
	u32 i = e - ENTRIES;
	if (e->next_dirty) ENTRIES[e->next_dirty].prev_dirty = i;
	ip->head[e->level] = i;
	ip->ndirty++;
	V->ndirty++;
	if (ip != &V->itab) inode_dirty(ip);
	return 0;
}

/* Seals a dirty block into the volume (9) and puts its new cell into its parent. */
static long block_flush(struct inode *ip, struct entry *e)
{
	static const struct cell none;
	struct entry *parent;
	long r = 0;
	struct cell *c = cell_of(ip, e->level, e->index, &parent, &r), n = none;
	if (!c) return r;
	u32 old = c->block;
	if (old && bit(BITMAP(B_FRESH), old))
		n.block = old;
	else if ((r = block_alloc(&n.block))) return r;
	struct box b = box_of(ip, e->level, e->index);
	random_bytes(b.salt, 12);
	b.in = PAGE_OF(e);
	b.out = V->rbuf;
	seal_box(&b);
	if (n.block - V->wstart < V->wcount && (r = flush_writes())) goto fail; /* an older form of it may still wait */
	r = write_block(n.block, V->rbuf);
	if (r) goto fail;
	memcpy(n.salt, b.salt, 12);
	memcpy(n.tag, b.tag, 16);
	if (old && old != n.block) block_free(old);
	*c = n;
	entry_clean(ip, e);
	CFG->stat_sealed_out++;
	return parent ? block_dirty(ip, parent) : (inode_dirty(ip), 0);
fail:
	if (n.block != old) block_free(n.block);
	return r;
}

static long flush_tree(struct inode *ip)
{
	for (int l = 0; l < LEVELS; l++)
		while (ip->head[l]) {
			long r = block_flush(ip, &ENTRIES[ip->head[l]]);
			if (r) return r;
		}
	return 0;
}

/* vol_balance writes blocks out early when too much of the cache is dirty. */
long vol_balance(void)
{
	if (V->ndirty < V->nentries / 2) return 0;
	for (u32 i = V->dirty_inodes; i != NONE; i = INODES[i].next_dirty) {
		long r = flush_tree(&INODES[i]);
		if (r) return r;
	}
	return flush_writes();
}

/* ---- trees (5) */

static int depth_fits(int depth, u64 size)
{
	return depth < LEVELS && size <= MAX_SIZE && (depth == 5 || size <= 4096ul << 7 * depth);
}

static long deepen(struct inode *ip, u64 size)
{
	while (!depth_fits(ip->r.depth, size)) {
		if (ip->r.depth == 5) return -EFBIG;
		struct cell old = ip->r.cell;
		struct entry *e = entry_new(ip->ino, ip->r.depth + 1, 0);
		if (!e) return -ENOMEM;
		memset(PAGE_OF(e), 0, 4096);
		*(struct cell *)PAGE_OF(e) = old;
		memset(&ip->r.cell, 0, sizeof old);
		ip->r.depth++;
		block_dirty(ip, e);
	}
	return 0;
}

/* Takes away the chunks from `from` on below one cell. */
static long prune(struct inode *ip, int level, u64 index, struct cell *c, u64 from)
{
	u64 first = index << 7 * level, span = 1ul << 7 * level;
	if (first + span <= from) return 0;
	struct entry *e = entry_find(ip->ino, level, index);
	if (level > 0 && (e || c->block)) {
		long r = 0;
		if (!e && !(e = block_get(ip, level, index, 0, &r))) return r;
		e->pins++;
		for (u64 i = 0; i < NPER && !r; i++)
			r = prune(ip, level - 1, index * NPER + i, (struct cell *)PAGE_OF(e) + i, from);
		e->pins--;
		if (r) return r;
		if (first < from) return block_dirty(ip, e);
	}
	if (first < from) return 0;
	if (e && !e->maps) {
		entry_clean(ip, e);
		entry_drop(e);
	} else if (e) { /* mapped: zeros from now on */
		entry_clean(ip, e);
		memset(PAGE_OF(e), 0, 4096);
	}
	block_free(c->block);
	memset(c, 0, sizeof *c);
	return 0;
}

long file_truncate(struct inode *ip, u64 size)
{
	long r = 0;
	if (size > MAX_SIZE) return -EFBIG;
	if (size < ip->r.size) {
		struct entry *e;
		u64 keep = (size + 4095) / 4096;
		if (size % 4096) {
			if (!(e = block_get(ip, 0, size / 4096, 0, &r))) return r;
			memset(PAGE_OF(e) + size % 4096, 0, 4096 - size % 4096);
			block_dirty(ip, e);
		}
		if ((r = prune(ip, ip->r.depth, 0, &ip->r.cell, keep))) return r;
		/* what was dirty below a hole */
		for (int l = 0; l < LEVELS; l++)
			for (u32 i = ip->head[l], next; i; i = next) {
				next = ENTRIES[i].next_dirty;
				if (ENTRIES[i].index << 7 * l >= keep) {
					entry_clean(ip, &ENTRIES[i]);
					if (!ENTRIES[i].maps) entry_drop(&ENTRIES[i]);
				}
			}
		if (!size)
			ip->r.depth = 0;
	} else if ((r = deepen(ip, size))) {
		return r;
	}
	ip->r.size = size;
	if (ip != &V->itab) inode_dirty(ip);
	V->changed = 1;
	return 0;
}

/* Reads at most what the file has. buf may be the program's: -EFAULT. */
long file_read(struct inode *ip, u64 off, void *buf, u64 n)
{
	u64 done = 0;
	long r = 0;
	if (off >= ip->r.size) return 0;
	n = MIN(n, ip->r.size - off);
	while (done < n) {
		struct entry *e = block_get(ip, 0, (off + done) / 4096, 0, &r);
		if (!e) return done ? (long)done : r;
		u64 in = (off + done) % 4096, k = MIN(4096 - in, n - done);
		if (ucopy((u8 *)buf + done, PAGE_OF(e) + in, k)) return done ? (long)done : -EFAULT;
		done += k;
	}
	return done;
}

long file_write(struct inode *ip, u64 off, const void *buf, u64 n)
{
	u64 done = 0;
	long r = 0;
	if (off > MAX_SIZE || n > MAX_SIZE - off) return -EFBIG;
	while (done < n) {
		u64 at = off + done, in = at % 4096, k = MIN(4096 - in, n - done);
		if ((r = vol_balance()) || (r = deepen(ip, at + k))) break;
		struct entry *e = block_get(ip, 0, at / 4096, in == 0 && (k == 4096 || at + k >= ip->r.size), &r);
		if (!e) break;
		r = ucopy(PAGE_OF(e) + in, (const u8 *)buf + done, k) ? -EFAULT : 0;
		u64 base = at & -4096ul, valid = ip->r.size > base ? MIN(ip->r.size - base, 4096) : 0;
		if (r) /* what lies behind the end stays zero */
			memset(PAGE_OF(e) + valid, 0, 4096 - valid);
		block_dirty(ip, e);
		if (r) break;
		done += k;
		if (at + k > ip->r.size) ip->r.size = at + k;
	}
	if (done && ip != &V->itab) inode_dirty(ip);
	return done ? (long)done : r;
}

/* ---- inodes (6) */

static long check_rec(const struct rec *r, u32 ino)
{
	int stored = r->type == T_REG ? r->cls == R_AUTH || r->cls == R_CRYPT : r->cls == R_CRYPT;
	if (r->type > T_INTERNAL || (r->type && !stored) || r->zero || r->mode & ~07777u || !zero(r->pad, 16))
		return corrupt("record of inode", ino);
	if (r->type && !depth_fits(r->depth, r->size)) return corrupt("size of inode", ino);
	if ((r->type == T_DIR && r->size % 4096) || (r->type == T_LINK && (r->size < 1 || r->size > 4095)) ||
		(r->type >= T_FIFO && r->type <= T_BLK && (r->size || r->cell.block)))
		return corrupt("record of inode", ino);
	return 0;
}

static u32 inodes(void) { return V->itab.r.size / 128; }

static long record_read(u32 ino, struct rec *r)
{
	long n = file_read(&V->itab, ino * 128ul, r, 128);
	if (n != 128) return n < 0 ? n : corrupt("inode number", ino);
	return check_rec(r, ino);
}

static void inode_forget(struct inode *ip)
{
	u32 *p = &V->ihash[ip->ino % NIHASH];
	while (&INODES[*p] != ip) p = &INODES[*p].next;
	*p = ip->next;
	ip->used = 0;
}

static struct inode *inode_slot(u32 ino)
{
	for (u32 tries = 0; tries < 2 * NINODE; tries++) {
		u32 i = V->ihand++ % NINODE;
		struct inode *ip = &INODES[i];
		if (i == 0 || (ip->used && (ip->opens || ip->held || ip->dirty || ip->ndirty))) continue;
		if (ip->used) inode_forget(ip);
		memset(ip, 0, sizeof *ip);
		ip->used = 1;
		ip->ino = ino;
		ip->next = V->ihash[ino % NIHASH];
		V->ihash[ino % NIHASH] = i;
		return ip;
	}
	return 0;
}

/* inode_get gives an inode in use and holds it until inode_put. */
struct inode *inode_get(u32 ino, long *err)
{
	for (u32 i = V->ihash[ino % NIHASH]; i; i = INODES[i].next)
		if (INODES[i].ino == ino) {
			INODES[i].held++;
			return &INODES[i];
		}
	struct rec r;
	if (ino == 0 || ino >= inodes()) {
		*err = corrupt("inode number", ino);
		return 0;
	}
	if ((*err = record_read(ino, &r))) return 0;
	if (r.type == T_FREE) {
		*err = corrupt("use of free inode", ino);
		return 0;
	}
	struct inode *ip = inode_slot(ino);
	if (!ip) {
		*err = -ENFILE;
		return 0;
	}
	ip->r = r;
	file_key(ip);
	ip->held = 1;
	return ip;
}

/* inode_put lets go; an inode without names and users is released. */
void inode_put(struct inode *ip)
{
	if (!ip) return;
	ip->held--;
	if (!ip->held && !ip->opens && !ip->r.nlink && ip->r.type && !V->readonly)
		inode_free(ip); /* if this fails the next opening for writing does it */
}

void inode_dirty(struct inode *ip)
{
	V->changed = 1;
	if (ip->dirty || ip == &V->itab) return;
	u32 i = ip - INODES;
	ip->dirty = 1;
	ip->prev_dirty = NONE;
	ip->next_dirty = V->dirty_inodes;
	if (V->dirty_inodes != NONE) INODES[V->dirty_inodes].prev_dirty = i;
	V->dirty_inodes = i;
}

static long record_write(struct inode *ip)
{
	ip->r.gen = V->next_gen;
	if (!ip->r.type) memset(&ip->r, 0, sizeof ip->r);
	long n = file_write(&V->itab, ip->ino * 128ul, &ip->r, 128);
	return n == 128 ? 0 : n < 0 ? n : -EIO;
}

struct inode *inode_new(int type, int cls, u32 mode, u32 uid, u32 gid, long *err)
{
	u32 ino = find_clear(BITMAP(B_INODES), V->ifree, inodes());
	if (ino >= MAX_BLOCKS) {
		*err = -ENOSPC;
		return 0;
	}
	struct inode *ip = inode_slot(ino);
	if (!ip) {
		*err = -ENFILE;
		return 0;
	}
	if (ino == inodes() && (*err = file_truncate(&V->itab, (ino + 1) * 128ul))) {
		inode_forget(ip);
		return 0;
	}
	set(BITMAP(B_INODES), ino);
	V->ifree = ino + 1;
	ip->r.type = type, ip->r.cls = cls, ip->r.mode = mode & 07777, ip->r.uid = uid, ip->r.gid = gid;
	ip->r.mtime = ip->r.ctime = now();
	random_bytes(ip->r.id, 16);
	file_key(ip);
	ip->held = 1;
	inode_dirty(ip);
	return ip;
}

long inode_free(struct inode *ip)
{
	long r = drop_facts(ip);
	if (r || (r = file_truncate(ip, 0))) return r;
	memset(&ip->r, 0, sizeof ip->r);
	memset(&ip->key, 0, sizeof ip->key);
	clear(BITMAP(B_INODES), ip->ino);
	V->ifree = MIN(V->ifree, ip->ino);
	inode_dirty(ip);
	/* the record is written now, so that the slot can be found by nobody */
	if (!(r = record_write(ip))) {
		if (ip->prev_dirty != NONE)
			INODES[ip->prev_dirty].next_dirty = ip->next_dirty;
		else
			V->dirty_inodes = ip->next_dirty;
		if (ip->next_dirty != NONE) INODES[ip->next_dirty].prev_dirty = ip->prev_dirty;
		ip->dirty = 0;
		inode_forget(ip);
	}
	return r;
}

/* What was said of the sealed content is not true of what is written now. */
long drop_facts(struct inode *ip)
{
	long r = 0;
	if (!ip->r.aux) return 0;
	struct inode *a = inode_get(ip->r.aux, &r);
	if (!a) return r;
	if (a->r.type != T_INTERNAL) r = corrupt("facts of inode", ip->ino);
	ip->r.aux = 0;
	inode_dirty(ip);
	a->held--;
	return r ? r : inode_free(a);
}

/* ---- commit (9) */

u64 page_hash(const u8 *p)
{
	u64 h = 1;
	for (int i = 0; i < 512; i++)
		h = (h ^ ((const u64 *)p)[i]) * 0x9e3779b97f4a7c15ul, h ^= h >> 29;
	return h;
}

/* Pages that programs have mapped for writing change without a call. */
void vol_found_mapped(void)
{
	for (u32 i = 1; i < V->nentries && V->nwmaps; i++) {
		struct entry *e = &ENTRIES[i];
		long err;
		if (!e->wmaps || e->ino == NONE) continue;
		u64 h = page_hash(PAGE_OF(e));
		struct inode *ip = h == e->hash ? 0 : inode_get(e->ino, &err);
		if (!ip) continue;
		u64 base = e->index * 4096, valid = ip->r.size > base ? MIN(ip->r.size - base, 4096) : 0;
		memset(PAGE_OF(e) + valid, 0, 4096 - valid);
		e->hash = page_hash(PAGE_OF(e));
		if (valid) block_dirty(ip, e);
		ip->held--;
	}
}

static void root_box(struct box *b, const struct slot *s, u64 gen)
{
	struct box r = { .key = &V->root_key, .volume = V->volume_id, .file = ones, .cls = R_CRYPT, .level = 0xff, .index = gen, .n = 208 };
	memcpy(r.salt, s->salt, 12);
	memcpy(r.tag, s->tag, 16);
	*b = r;
}

long vol_commit(void)
{
	long r;
	if (V->readonly) return 0;
	vol_found_mapped();
	if (!V->changed) return 0;
	for (u32 i = V->dirty_inodes; i != NONE; i = INODES[i].next_dirty)
		if ((r = flush_tree(&INODES[i]))) return r;
	while (V->dirty_inodes != NONE) {
		struct inode *ip = &INODES[V->dirty_inodes];
		if ((r = record_write(ip))) return r;
		ip->dirty = 0;
		V->dirty_inodes = ip->next_dirty;
		if (ip->next_dirty != NONE) INODES[ip->next_dirty].prev_dirty = NONE;
	}
	if ((r = flush_tree(&V->itab)) || (r = flush_writes()) || (r = host_sync())) return r;
	struct root rt = { .gen = V->next_gen, .blocks = V->blocks, .inodes = inodes(), .cell = V->itab.r.cell,
		.depth = V->itab.r.depth, .time = now() };
	struct slot *s = (struct slot *)V->rbuf;
	struct box b;
	sha256(V->slot, 256, rt.prev);
	memset(V->rbuf, 0, 4096);
	memcpy(s->magic, "SFSROOT1", 8);
	s->gen = V->next_gen;
	random_bytes(s->salt, 12);
	root_box(&b, s, s->gen);
	b.in = (u8 *)&rt;
	b.out = s->box;
	seal_box(&b);
	memcpy(s->tag, b.tag, 16);
	u8 slot[256];
	memcpy(slot, s, 256);
	V->unsure = 1;
	if ((r = host_pwrite(1 + V->next_gen % 2, V->rbuf, 4096)) || (r = host_sync())) {
		V->next_gen += 2; /* nobody knows which root the disk has: never name two states alike, */
		memset(BITMAP(B_FRESH), 0, V->blocks / 8 + 8); /* and keep the blocks of both */
		return r;
	}
	memcpy(V->slot, slot, 256);
	V->gen = V->next_gen++;
	V->limit = V->blocks;
	V->changed = V->unsure = 0;
	u64 words = V->blocks / 64 + 1, *used = BITMAP(B_USED), *dead = BITMAP(B_DEAD), *fresh = BITMAP(B_FRESH);
	for (u64 i = 0; i < words; i++) {
		if (dead[i]) {
			used[i] &= ~dead[i];
			dead[i] = 0;
			V->cursor = MIN(V->cursor, MAX(i * 64, 3));
		}
		fresh[i] = 0;
	}
	CFG->generation = V->gen;
	return 0;
}

/* ---- opening (3, 4) */

static long claim(u32 b)
{
	if (b < 3 || b >= V->blocks || bit(BITMAP(B_USED), b)) return corrupt("doubly used block", b);
	set(BITMAP(B_USED), b);
	return 0;
}

static long claim_tree(struct inode *ip, int level, u64 index, const struct cell *c)
{
	long r;
	if (!c->block) return zero(c, sizeof *c) ? 0 : corrupt("cell in inode", ip->ino);
	if ((r = claim(c->block)) || !level) return r;
	struct entry *e = block_get(ip, level, index, 0, &r);
	if (!e) return r;
	e->pins++;
	for (int i = 0; i < NPER && !r; i++)
		r = claim_tree(ip, level - 1, index * NPER + i, (struct cell *)PAGE_OF(e) + i);
	e->pins--;
	return r;
}

static long claim_all(void)
{
	u64 *used = BITMAP(B_USED);
	used[0] |= 7;
	BITMAP(B_INODES)[0] |= 1;
	long r = claim_tree(&V->itab, V->itab.r.depth, 0, &V->itab.r.cell);
	for (u32 n = 1; n < inodes() && !r; n++) {
		struct rec rec;
		if ((r = record_read(n, &rec))) return r;
		if (rec.type == T_FREE) {
			if (!zero(&rec, sizeof rec)) return corrupt("free inode", n);
			continue;
		}
		set(BITMAP(B_INODES), n);
		if (!rec.depth && rec.nlink) { /* the common small file needs no key for this */
			if (rec.cell.block)
				r = claim(rec.cell.block);
			else if (!zero(&rec.cell, 32))
				r = corrupt("cell in inode", n);
			continue;
		}
		struct inode *ip = inode_get(n, &r);
		if (!ip) return r;
		r = claim_tree(ip, rec.depth, 0, &rec.cell);
		ip->held--;
	}
	return r;
}

/* Files that were unlinked while open when the last writer went away. */
static long release_orphans(void)
{
	long r = 0;
	for (u32 n = 3; n < inodes() && !r; n++) {
		struct rec rec;
		if ((r = record_read(n, &rec))) return r;
		if (!rec.type || rec.nlink) continue;
		struct inode *ip = inode_get(n, &r);
		if (ip) {
			ip->held--;
			r = inode_free(ip);
		}
	}
	return r;
}

static long read_regions(void)
{
	long r = 0;
	struct inode *ip = inode_get(INO_REGIONS, &r);
	if (!ip) return r;
	u64 n = ip->r.size, at = 16;
	if (ip->r.type != T_INTERNAL || n < 16 || n > sizeof V->regions)
		r = corrupt("region table", 0);
	else if (file_read(ip, 0, V->regions, n) != (long)n)
		r = -EIO;
	ip->held--;
	if (r) return r;
	u32 count = *(u32 *)(V->regions + 4);
	if (memcmp(V->regions, "REG1", 4) || count < 1 || count > 256) return corrupt("region table", 1);
	for (u32 i = 0; i < count; i++) {
		struct region *g = (struct region *)(V->regions + at);
		if (at + 4 > n || at + 4 + g->len > n || g->cls > R_EPHEMERAL || g->len < 1 || g->len > 1024 || V->regions[at + 4] != '/')
			return corrupt("region", i);
		at += 4 + g->len;
	}
	if (at != n) return corrupt("region table", 2);
	V->nregions = count;
	return 0;
}

static long open_slot(int n, struct root *rt, u8 raw[256])
{
	struct slot *s = (struct slot *)raw;
	struct box b;
	if (host_pread(n, V->rbuf)) return 0;
	memcpy(raw, V->rbuf, 256);
	if (memcmp(s->magic, "SFSROOT1", 8) || !s->gen || 1 + s->gen % 2 != (u64)n || s->zero) return 0;
	root_box(&b, s, s->gen);
	b.in = s->box;
	b.out = (u8 *)rt;
	return !open_box(&b) && rt->gen == s->gen && rt->blocks >= 3 && rt->inodes >= 3 && depth_fits(rt->depth, rt->inodes * 128ul) &&
		zero(rt->zero, 7) && zero(rt->pad, 112);
}

long vol_open(const u8 *key, u64 min_generation, int readonly)
{
	struct header *h = (struct header *)V->rbuf;
	u8 mac[32], hk[32];
	struct root rt[2];
	u8 raw[2][256];
	u64 st[18];
	long r = host_pread(0, V->rbuf);
	if (r) die("the volume cannot be read", 0);
	if (memcmp(h->magic, "PALSEAL1", 8)) die("the file is not a sealed volume", 0);
	if (h->version != 1) die("the volume has an unknown version", 0);
	if (h->suite != 1) die("the volume uses a suite that the shim does not have", 0);
	if (h->chunk_log != 12 || h->zero[0] || h->zero[1])
		die("the volume uses a chunk size that the shim does not have", 0);
	memcpy(V->volume_id, h->volume_id, 16);
	hmac_sha256(h->salt, 32, key, 32, V->prk);
	expand_key("sealfs/1 commitment", 0, 0, mac);
	if (!same(mac, h->commitment, 32)) die("the key is not the volume's", 0);
	expand_key("sealfs/1 header", 0, 0, hk);
	hmac_sha256(hk, 32, V->rbuf, 480, mac);
	if (!same(mac, h->mac, 32) || !zero(h->pad, 384)) die("the volume's header is damaged", 0);
	expand_key("sealfs/1 root", 0, 0, V->root_key.raw);
	seal_key(&V->root_key);
	V->dirty_inodes = NONE;
	V->nentries = CFG->cache_chunks;
	V->hand = V->ihand = 1;
	V->readonly = readonly;
	for (u32 i = 0; i < V->nentries; i++) ENTRIES[i].ino = NONE;
	int ok[2] = { open_slot(1, &rt[0], raw[0]), open_slot(2, &rt[1], raw[1]) };
	if (!ok[0] && !ok[1]) die("the volume has no valid root", 0);
	int n = ok[1] && (!ok[0] || rt[1].gen > rt[0].gen);
	struct root *w = &rt[n];
	if (w->gen < min_generation)
		die("the volume is older than the generation that is known: somebody put back an old state", 0);
	r = H(NR_fstat, fd_base + FD_VOLUME, st);
	if (r || w->blocks > MAX_BLOCKS || st[6] < w->blocks * 4096ul)
		die("the volume's file is too short or too large", 0);
	memcpy(V->slot, raw[n], 256);
	V->gen = w->gen;
	V->next_gen = w->gen + 1;
	CFG->generation = V->gen;
	V->blocks = V->limit = w->blocks;
	V->cursor = V->ifree = 3;
	V->itab.r.type = T_INTERNAL, V->itab.r.cls = R_CRYPT, V->itab.r.depth = w->depth;
	V->itab.r.size = w->inodes * 128ul;
	V->itab.r.cell = w->cell;
	V->itab.used = 1;
	file_key(&V->itab);
	memset(&rt, 0, sizeof rt);
	if ((r = read_regions())) return r;
	if (!readonly && ((r = claim_all()) || (r = release_orphans()))) return r;
	struct inode *ip = inode_get(INO_ROOT, &r);
	if (!ip) return r;
	ip->held--;
	ip->opens++; /* for good */
	return ip->r.type == T_DIR ? 0 : corrupt("root directory", 1);
}
