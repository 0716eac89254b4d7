/* SPDX-License-Identifier: Apache-2.0 */
/* Directories (section 7 of docs/sealfs.md): sorted pages of entries. */
#include "vol.h"

struct page { u16 n, used; u32 zero; };
struct dent { u32 ino; u8 type, len; char name[]; } __attribute__((packed));

static int cmp(const char *a, u32 an, const char *b, u32 bn)
{
	int d = memcmp(a, b, MIN(an, bn));
	return d ? d : (int)an - (int)bn;
}

/* A page is looked at once after it was opened. */
static int page_ok(const u8 *p)
{
	const struct page *h = (void *)p;
	u32 at = 8;
	struct dent *prev = 0;
	if (h->n < 1 || h->used > 4096 || h->zero) return 0;
	for (u32 i = 0; i < h->n; i++) {
		struct dent *d = (void *)(p + at);
		if (at + 6 > h->used || at + 6 + d->len > h->used || !d->len || !d->ino) return 0;
		for (u32 k = 0; k < d->len; k++)
			if (d->name[k] == '/' || !d->name[k]) return 0;
		if (d->name[0] == '.' && (d->len == 1 || (d->len == 2 && d->name[1] == '.'))) return 0;
		if (prev && cmp(prev->name, prev->len, d->name, d->len) >= 0) return 0;
		prev = d;
		at += 6 + d->len;
	}
	if (at != h->used) return 0;
	for (; at < 4096; at++)
		if (p[at]) return 0;
	return 1;
}

static u8 *page_get(struct inode *dir, u64 n, struct entry **out, long *err)
{
	struct entry *e = block_get(dir, 0, n, 0, err);
	if (!e) return 0;
	if (!e->checked) {
		if (!page_ok(PAGE_OF(e))) {
			vol_complain("directory of inode", dir->ino);
			*err = -EIO;
			return 0;
		}
		e->checked = 1;
	}
	*out = e;
	return PAGE_OF(e);
}

static u64 pages(struct inode *dir) { return dir->r.size / 4096; }

/* The last page whose first name is not behind the name. */
static u8 *find_page(struct inode *dir, const char *name, u32 len, u64 *n, struct entry **e, long *err)
{
	u64 lo = 0, hi = pages(dir);
	u8 *p;
	while (hi - lo > 1) {
		u64 mid = (lo + hi) / 2;
		if (!(p = page_get(dir, mid, e, err))) return 0;
		struct dent *d = (void *)(p + 8);
		if (cmp(d->name, d->len, name, len) <= 0)
			lo = mid;
		else
			hi = mid;
	}
	*n = lo;
	return page_get(dir, lo, e, err);
}

/* The first entry of the page that is not before the name, and whether it is the name. */
static struct dent *scan(u8 *p, const char *name, u32 len, int *hit, u32 *nth)
{
	struct page *h = (void *)p;
	u32 at = 8, i;
	*hit = 0;
	for (i = 0; i < h->n; i++) {
		struct dent *d = (void *)(p + at);
		int c = cmp(d->name, d->len, name, len);
		if (c >= 0) {
			*hit = c == 0;
			break;
		}
		at += 6 + d->len;
	}
	*nth = i;
	return (void *)(p + at);
}

/* The inode of a name, 0 when there is none, or an error. */
long dir_find(struct inode *dir, const char *name, u32 len, u8 *type)
{
	struct entry *e;
	long r = 0;
	u64 n;
	int hit;
	u32 nth;
	if (!dir->r.size) return 0;
	u8 *p = find_page(dir, name, len, &n, &e, &r);
	if (!p) return r;
	struct dent *d = scan(p, name, len, &hit, &nth);
	if (!hit) return 0;
	if (type)
		*type = d->type;
	return d->ino;
}

/* Moves the pages from `first` on by one, up or down. */
static long shift(struct inode *dir, u64 first, int up)
{
	struct entry *a, *b;
	long r = 0;
	u64 n = pages(dir);
	if (up && (r = file_truncate(dir, (n + 1) * 4096))) return r;
	for (u64 i = up ? n : first; up ? i > first : i < n - 1; up ? i-- : i++) {
		if (!page_get(dir, up ? i - 1 : i + 1, &a, &r)) return r;
		a->pins++;
		b = block_get(dir, 0, i, 1, &r);
		a->pins--;
		if (!b) return r;
		memcpy(PAGE_OF(b), PAGE_OF(a), 4096);
		b->checked = 1;
		block_dirty(dir, b);
	}
	return up ? 0 : file_truncate(dir, (n - 1) * 4096);
}

long dir_insert(struct inode *dir, const char *name, u32 len, u32 ino, int type)
{
	struct entry *e, *e2;
	long r = 0;
	u64 n = 0;
	int hit;
	u32 nth, need = 6 + len;
	u8 *p;
	if (!dir->r.size) {
		if ((r = file_truncate(dir, 4096)) || !(e = block_get(dir, 0, 0, 1, &r))) return r;
		p = PAGE_OF(e);
		*(struct page *)p = (struct page){ 0, 8, 0 };
	} else if (!(p = find_page(dir, name, len, &n, &e, &r))) {
		return r;
	}
	struct page *h = (void *)p;
	struct dent *d = scan(p, name, len, &hit, &nth);
	if (hit) return -EEXIST;
	if (h->used + need > 4096) { /* cut the page in two */
		u32 keep = h->n / 2, at = 8;
		if (n == pages(dir) - 1 && nth == h->n) keep = h->n;
		for (u32 i = 0; i < keep; i++) at += 6 + ((struct dent *)(p + at))->len;
		e->pins++;
		r = shift(dir, n + 1, 1);
		e2 = r ? 0 : block_get(dir, 0, n + 1, 1, &r);
		e->pins--;
		if (!e2) return r;
		u8 *q = PAGE_OF(e2);
		memset(q, 0, 4096);
		*(struct page *)q = (struct page){ h->n - keep, 8 + h->used - at, 0 };
		memcpy(q + 8, p + at, h->used - at);
		memset(p + at, 0, 4096 - at);
		h->n = keep;
		h->used = at;
		block_dirty(dir, e);
		block_dirty(dir, e2);
		e2->checked = 1;
		if (nth > keep || (nth == keep && ((struct page *)q)->n == 0)) {
			e = e2;
			p = q;
			h = (void *)p;
		}
		d = scan(p, name, len, &hit, &nth);
	}
	u8 *at = (u8 *)d, *end = p + h->used;
	memmove(at + need, at, end - at);
	d->ino = ino;
	d->type = type;
	d->len = len;
	memcpy(d->name, name, len);
	h->n++;
	h->used += need;
	e->checked = 1;
	return block_dirty(dir, e);
}

long dir_remove(struct inode *dir, const char *name, u32 len)
{
	struct entry *e;
	long r = 0;
	u64 n;
	int hit;
	u32 nth;
	if (!dir->r.size) return -ENOENT;
	u8 *p = find_page(dir, name, len, &n, &e, &r);
	if (!p) return r;
	struct page *h = (void *)p;
	struct dent *d = scan(p, name, len, &hit, &nth);
	if (!hit) return -ENOENT;
	if (h->n == 1) return shift(dir, n, 0);
	u32 size = 6 + d->len;
	u8 *at = (u8 *)d, *end = p + h->used;
	memcpy(at, at + size, end - at - size);
	memset(end - size, 0, size);
	h->n--;
	h->used -= size;
	return block_dirty(dir, e);
}

long dir_replace(struct inode *dir, const char *name, u32 len, u32 ino, int type)
{
	struct entry *e;
	long r = 0;
	u64 n;
	int hit;
	u32 nth;
	u8 *p = dir->r.size ? find_page(dir, name, len, &n, &e, &r) : 0;
	if (!p) return r ? r : -ENOENT;
	struct dent *d = scan(p, name, len, &hit, &nth);
	if (!hit) return -ENOENT;
	d->ino = ino;
	d->type = type;
	return block_dirty(dir, e);
}

/* The first entry behind a name (or at all): its inode, or 0 at the end. A listing
   goes on correctly when entries come and go in between. */
long dir_next(struct inode *dir, const u8 *after, u32 afterlen, u8 *name, u32 *len, u8 *type)
{
	struct entry *e;
	long r = 0;
	u64 n = 0;
	int hit = 0;
	u32 nth = 0;
	if (!dir->r.size) return 0;
	u8 *p = afterlen ? find_page(dir, (const char *)after, afterlen, &n, &e, &r) : page_get(dir, 0, &e, &r);
	if (!p) return r;
	struct dent *d = (void *)(p + 8);
	if (afterlen) {
		d = scan(p, (const char *)after, afterlen, &hit, &nth);
		if (hit) nth++, d = (void *)(d->name + d->len);
	}
	if (nth == ((struct page *)p)->n) {
		if (n + 1 == pages(dir)) return 0;
		if (!(p = page_get(dir, n + 1, &e, &r))) return r;
		d = (void *)(p + 8);
	}
	*len = d->len;
	*type = d->type;
	memcpy(name, d->name, d->len);
	return d->ino;
}
