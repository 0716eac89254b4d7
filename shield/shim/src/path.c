/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Paths: which of them lead into the volume, by whole components, with symbolic
 * links, "..", working directories and directory descriptors on both sides.
 */
#include "path.h"

u32 forked_pid;

/* The lock of the volume. A holder that was killed leaves the volume refused, since
   what it was in the middle of is not known. */
void vol_enter(void)
{
	static u32 me; /* of this process: a child of fork finds out again */
	u32 c;
	if (!me || forked_pid) me = H(NR_getpid, 0), forked_pid = 0;
	struct lock *l = &V->lock;
	for (int spin = 0; (c = __sync_val_compare_and_swap(&l->v, 0, 1)) && spin < 200; spin++)
		__builtin_ia32_pause();
	while (c) {
		u64 second[2] = { 1, 0 };
		if (c == 2 || __sync_val_compare_and_swap(&l->v, 1, 2)) {
			long r = H(NR_futex, &l->v, 0, 2, second);
			u32 owner = V->owner;
			if (r == -110 && owner && H(NR_kill, owner, 0) == -3 && __sync_bool_compare_and_swap(&V->owner, owner, me)) {
				V->broken = 1;
				vol_complain("a process was killed while it worked on the volume:", owner);
				return;
			}
		}
		c = __sync_val_compare_and_swap(&l->v, 0, 2);
	}
	V->owner = me;
}

void vol_leave(void)
{
	V->owner = 0;
	unlock(&V->lock);
}

/* The class of a path within the volume: of the longest region that it lies in. */
int region_of(const char *path, u64 len)
{
	u64 at = 16, best = 0;
	int cls = R_DENIED;
	for (u32 i = 0; i < V->nregions; i++) {
		struct region *g = (struct region *)(V->regions + at);
		const char *p = (const char *)V->regions + at + 4;
		u64 n = g->len == 1 ? 0 : g->len; /* "/" is a prefix of all */
		if (n <= len && !memcmp(p, path, n) && (n == len || path[n] == '/') && (n >= best))
			best = n, cls = g->cls;
		at += 4 + g->len;
	}
	return cls;
}

i64 known_euid = -1;

u32 euid(void)
{
	if (known_euid >= 0 && !self()->vforked) return known_euid;
	u32 uid = H(NR_geteuid, 0);
	known_euid = self()->vforked ? -1 : (i64)uid;
	return uid;
}

/* What the owner and mode of an inode allow: mask of 4 read, 2 write, 1 execute. */
int may(struct inode *ip, int mask)
{
	u32 groups[64], uid = euid(), mode = ip->r.mode;
	if (!uid) return !(mask & 1) || ip->r.type == T_DIR || mode & 0111;
	if (ip->r.uid == uid) return (mode >> 6 & mask) == (u32)mask;
	int in = ip->r.gid == (u32)H(NR_getegid, 0);
	long n = in ? 0 : H(115, 64, groups); /* getgroups */
	for (long i = 0; i < n && !in; i++) in = groups[i] == ip->r.gid;
	return (mode >> (in ? 3 : 0) & mask) == (u32)mask;
}

long get_path(const char *upath, char *out)
{
	long n = ustr(out, upath, 4096);
	return n < 0 ? -EFAULT : n == 4096 ? -ENAMETOOLONG : n;
}

static const char *mount(void) { return CFG->mount; } /* "" for "/" */

/* One component on the host's side, without looking: path is absolute, "" is "/". */
static long host_step(char *path, u64 *len, const char *c, u64 n)
{
	if (n == 1 && c[0] == '.') return 0;
	if (n == 2 && c[0] == '.' && c[1] == '.') {
		while (*len && path[--*len] != '/')
			;
	} else {
		if (*len + n + 2 > 4096) return -ENAMETOOLONG;
		path[(*len)++] = '/';
		memcpy(path + *len, c, n);
		*len += n;
	}
	path[*len] = 0;
	return 0;
}

static u64 parent_path(char *p, u64 len)
{
	while (len && p[--len] != '/')
		;
	p[len] = 0;
	return len;
}

struct walk {
	int inside;
	u32 dir;
	u64 len;
	char todo[4096];
};

/* Where a relative path begins. */
static long begin(struct thread *t, int dirfd, struct walk *w, struct loc *l, int relative)
{
	long n;
	l->path[0] = w->len = 0;
	w->inside = 0;
	if (!relative) return 0;
	if (dirfd == AT_FDCWD) {
		if (t->proc->cwd) {
			w->inside = 1;
			w->dir = t->proc->cwd;
			w->len = put_str(l->path, t->proc->cwd_path) - l->path;
			return 0;
		}
		n = H(NR_getcwd, l->path, 4096);
		n = n > 0 && n <= 4096 && l->path[0] == '/' ? n - 1 : n < 0 ? n : -ENOENT;
	} else {
		struct ofd *o = ofd_of(t, dirfd);
		long err = 0;
		if (o) { /* the path of an open directory: up by its parents */
			char name[256];
			u32 ino = o->ino, at = 4095;
			struct inode *ip = inode_get(ino, &err);
			if (!ip) return err;
			int dir = ip->r.type == T_DIR;
			inode_put(ip);
			if (!dir) return -ENOTDIR;
			w->inside = 1;
			w->dir = ino;
			static char p[4096]; /* under the volume's lock */
			p[at] = 0;
			while (ino != INO_ROOT) {
				u32 parent, len = 0, after = 0;
				u8 type;
				if (!(ip = inode_get(ino, &err))) return err;
				parent = ip->r.parent;
				inode_put(ip);
				if (!(ip = inode_get(parent, &err))) return err;
				while ((n = dir_next(ip, (u8 *)name, after, (u8 *)name, &len, &type)) > 0 && n != ino)
					after = len;
				inode_put(ip);
				if (n <= 0 || len + 1 > at) return n < 0 ? n : -ENOENT;
				memcpy(p + (at -= len), name, len);
				p[--at] = '/';
				ino = parent;
			}
			w->len = put_str(l->path, p + at) - l->path;
			return 0;
		}
		char link[40];
		put_num(put_str(link, "/proc/self/fd/"), (u32)dirfd);
		n = H(NR_readlink, link, l->path, 4095);
		if (n >= 0 && (n > 4095 || l->path[0] != '/')) n = -ENOTDIR;
	}
	if (n < 0) return n;
	l->path[n] = 0;
	w->len = n == 1 ? 0 : n;
	l->path[w->len] = 0;
	return 0;
}

static long locate_at(struct thread *t, int dirfd, const char *path, int how, struct loc *l)
{
	struct walk w;
	long r = begin(t, dirfd, &w, l, path[0] != '/');
	u64 mlen = strlen(mount());
	int links = 0;
	if (r) return r;
	put_str(w.todo, path);
	char *p = w.todo;
	l->dir = l->ino = l->len = l->slash = 0;
	l->changed = 0;
	for (;;) {
		if (!w.inside && w.len == mlen && !memcmp(l->path, mount(), mlen)) {
			w.inside = 1;
			w.dir = INO_ROOT;
			w.len = 0;
			l->path[0] = 0;
			l->dir = 0;
			l->len = 0;
			l->ino = INO_ROOT;
		}
		while (*p == '/') p++, l->slash = 1;
		if (!*p) break;
		char *c = p;
		while (*p && *p != '/') p++;
		u64 n = p - c;
		l->slash = 0;
		if (!w.inside) {
			if ((r = host_step(l->path, &w.len, c, n))) return r;
			continue;
		}
		long err = 0;
		struct inode *dir = inode_get(w.dir, &err), *ip;
		if (!dir) return err;
		if (dir->r.type != T_DIR || !may(dir, 1)) {
			r = dir->r.type != T_DIR ? -ENOTDIR : -EACCES;
			inode_put(dir);
			return r;
		}
		if (n == 1 && c[0] == '.') {
			inode_put(dir);
			l->ino = w.dir;
			l->dir = 0;
			continue;
		}
		if (n == 2 && c[0] == '.' && c[1] == '.') {
			if (w.dir == INO_ROOT) {
				w.inside = mlen == 0;
				if (mlen) {
					w.len = put_str(l->path, mount()) - l->path;
					w.len = parent_path(l->path, w.len);
					l->changed = 1;
				}
			} else {
				w.dir = dir->r.parent;
				w.len = parent_path(l->path, w.len);
			}
			l->ino = w.dir;
			l->dir = 0;
			inode_put(dir);
			continue;
		}
		if (n > 255 || w.len + n + 2 > 4096) {
			inode_put(dir);
			return -ENAMETOOLONG;
		}
		r = dir_find(dir, c, n, &l->type);
		inode_put(dir);
		if (r < 0) return r;
		l->path[w.len] = '/';
		memcpy(l->path + w.len + 1, c, n);
		l->path[w.len + 1 + n] = 0;
		int cls = region_of(l->path, w.len + 1 + n);
		if (cls == R_DENIED) return -EACCES;
		if (cls == R_PASS || cls == R_EPHEMERAL) {
			char rest[4096];
			put_str(rest, l->path);
			if (mlen + sizeof CFG->ephemeral + strlen(rest) > 4096) return -ENAMETOOLONG;
			put_str(put_str(l->path, cls == R_PASS ? mount() : CFG->ephemeral), rest);
			w.len = strlen(l->path);
			w.inside = 0;
			l->changed |= path[0] != '/' || links || cls == R_EPHEMERAL;
			continue;
		}
		char *rest = p;
		while (*rest == '/') rest++;
		if (!r) {
			if (*rest) return -ENOENT;
			l->slash = *p == '/';
			l->dir = w.dir;
			l->ino = 0;
			l->len = n;
			memcpy(l->name, c, n);
			l->name[n] = 0;
			return VOLUME;
		}
		ip = inode_get(r, &err);
		if (!ip) return err;
		if (ip->r.type != l->type || !ip->r.nlink || (ip->r.type == T_DIR && ip->r.parent != w.dir)) {
			vol_complain("entry for inode", r);
			inode_put(ip);
			return -EIO;
		}
		if (ip->r.type == T_LINK && (*rest || how & FOLLOW || *p == '/')) {
			char target[4096];
			long k = file_read(ip, 0, target, 4095);
			inode_put(ip);
			if (k <= 0) return k ? k : -EIO;
			u64 more = strlen(p);
			if (++links > 40) return -ELOOP;
			if (k + more + 1 > 4096) return -ENAMETOOLONG;
			memcpy(target + k, p, more + 1);
			memcpy(w.todo, target, k + more + 1);
			p = w.todo;
			l->path[w.len] = 0;
			if (target[0] == '/') {
				w.inside = 0;
				w.len = 0;
				l->path[0] = 0;
				l->changed = 1;
			} else {
				l->ino = w.dir;
				l->dir = 0;
			}
			continue;
		}
		l->dir = w.dir;
		l->ino = r;
		l->len = n;
		memcpy(l->name, c, n);
		l->name[n] = 0;
		w.len += 1 + n;
		if (ip->r.type == T_DIR)
			w.dir = r;
		else if (*rest || *p == '/') {
			inode_put(ip);
			return -ENOTDIR;
		}
		inode_put(ip);
	}
	if (!w.inside) {
		if (!w.len)
			put_str(l->path, "/");
		else if (l->slash)
			put_str(l->path + w.len, "/");
		return HOST;
	}
	if (!l->ino) { /* "" or the start itself */
		l->ino = w.dir;
		l->dir = 0;
	}
	struct inode *ip = inode_get(l->ino, &r);
	if (!ip) return r;
	l->type = ip->r.type;
	inode_put(ip);
	return VOLUME;
}

/*
 * locate gives HOST or VOLUME, or an error. On the host's side the program's own
 * path is to be used unless l->changed. Call with the volume's lock held.
 */
long locate(struct thread *t, int dirfd, const char *path, int how, struct loc *l)
{
	long n = strlen(path);
	if (!n) return -ENOENT;
	if (V->broken) return -EIO;
	/* The common case at no cost: absolute, without "..", and not below the mount point. */
	u64 mlen = strlen(mount());
	if (path[0] == '/' && mlen && memcmp(path, mount(), mlen)) {
		int plain = 1;
		for (long i = 0; i + 1 < n && plain; i++)
			plain = !(path[i] == '/' && (path[i + 1] == '.' || path[i + 1] == '/'));
		if (plain) {
			l->changed = 0;
			return HOST;
		}
	}
	long r = locate_at(t, dirfd, path, how, l);
	if (r == HOST && path[0] != '/' && dirfd == AT_FDCWD && t->proc->cwd) l->changed = 1;
	if (r == HOST && path[0] != '/' && dirfd != AT_FDCWD && ofd_of(t, dirfd)) l->changed = 1;
	return r;
}
