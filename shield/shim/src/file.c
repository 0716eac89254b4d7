/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The file shield: system calls on files of the volume. Each open file has a
 * descriptor of the host, an empty file named after the inode in a private folder,
 * so that numbers, dup, close-on-exec, poll and locks are the kernel's; what it means
 * is in the table of the process (fdtab) and in OFDS, which all processes share.
 */
#include "path.h"

static void index_calls(void);

struct stat {
	u64 dev, ino, nlink;
	u32 mode, uid, gid, pad;
	u64 rdev, size, blksize, blocks;
	u64 atime[2], mtime[2], ctime[2], unused[3];
};
struct iovec { u8 *base; u64 len; };
enum { DEV = 0x5ea1 };

static const struct { u16 nr; u8 class; } classes[] = {
	{ NR_readv, C_FD }, { NR_writev, C_FD }, { NR_preadv, C_FD }, { NR_pwritev, C_FD }, { NR_preadv2, C_FD },
	{ NR_pwritev2, C_FD }, { NR_lseek, C_FD }, { NR_fstat, C_FD }, { NR_fsync, C_FD }, { NR_fdatasync, C_FD },
	{ NR_ftruncate, C_FD }, { NR_fchmod, C_FD }, { NR_fchown, C_FD }, { NR_fstatfs, C_FD }, { NR_fcntl, C_SLOW },
	{ NR_ioctl, C_FD }, { NR_dup, C_SLOW }, { NR_fadvise64, C_FD }, { NR_readahead, C_FD }, { NR_fallocate, C_FD },
	{ NR_sync_file_range, C_FD }, { NR_syncfs, C_FD }, { NR_sync, C_SLOW }, { NR_sendfile, C_SLOW }, { NR_splice, C_SLOW },
	{ NR_tee, C_FD }, { NR_copy_file_range, C_SLOW }, { NR_fchdir, C_SLOW }, { NR_chdir, C_SLOW }, { NR_getcwd, C_SLOW },
	{ NR_fgetxattr, C_FD }, { NR_fsetxattr, C_FD }, { NR_flistxattr, C_FD }, { NR_fremovexattr, C_FD }, { NR_msync, C_SLOW },
	{ NR_open, C_SLOW }, { NR_creat, C_SLOW }, { NR_stat, C_SLOW }, { NR_lstat, C_SLOW }, { NR_newfstatat, C_SLOW },
	{ NR_statx, C_SLOW }, { NR_access, C_SLOW }, { NR_faccessat, C_SLOW }, { NR_faccessat2, C_SLOW }, { NR_mkdir, C_SLOW },
	{ NR_mkdirat, C_SLOW }, { NR_rmdir, C_SLOW }, { NR_unlink, C_SLOW }, { NR_unlinkat, C_SLOW }, { NR_rename, C_SLOW },
	{ NR_renameat, C_SLOW }, { NR_renameat2, C_SLOW }, { NR_link, C_SLOW }, { NR_linkat, C_SLOW }, { NR_symlink, C_SLOW },
	{ NR_symlinkat, C_SLOW }, { NR_chmod, C_SLOW }, { NR_fchmodat, C_SLOW }, { NR_fchmodat2, C_SLOW }, { NR_chown, C_SLOW },
	{ NR_lchown, C_SLOW }, { NR_fchownat, C_SLOW }, { NR_truncate, C_SLOW }, { NR_utime, C_SLOW }, { NR_utimes, C_SLOW },
	{ NR_futimesat, C_SLOW }, { NR_utimensat, C_SLOW }, { NR_statfs, C_SLOW }, { NR_mknod, C_SLOW }, { NR_mknodat, C_SLOW },
	{ NR_getxattr, C_SLOW }, { NR_lgetxattr, C_SLOW }, { NR_setxattr, C_SLOW }, { NR_lsetxattr, C_SLOW },
	{ NR_listxattr, C_SLOW }, { NR_llistxattr, C_SLOW }, { NR_removexattr, C_SLOW }, { NR_lremovexattr, C_SLOW },
	{ NR_name_to_handle_at, C_SLOW }, { NR_inotify_add_watch, C_SLOW }, { NR_umask, C_SLOW }, { NR_sendmsg, C_SLOW },
	{ NR_chroot, C_SLOW },
	/* setuid, setreuid, setresuid, setfsuid: who we are has to be asked again */
	{ 105, C_SLOW }, { 113, C_SLOW }, { 117, C_SLOW }, { 122, C_SLOW },
};

struct ofd *ofd_of(struct thread *t, u64 fd)
{
	u32 n = (u32)fd < 65536 ? t->fdtab[(u32)fd] : 0;
	return n ? &OFDS[n] : 0;
}

static struct inode *inode_of(struct ofd *o, long *err)
{
	if (V->broken || o->ino == NONE) return *err = V->broken ? -EIO : -ENODEV, (struct inode *)0;
	return inode_get(o->ino, err);
}

/* ---- descriptors */

static void ofd_drop(u32 n)
{
	struct ofd *o = &OFDS[n];
	long err;
	if (!n || --o->refs || o->ino == NONE) return;
	struct inode *ip = inode_get(o->ino, &err);
	if (ip) {
		ip->opens--;
		inode_put(ip);
	}
}

static u32 ofd_new(struct inode *ip, u32 flags)
{
	static u32 hint;
	for (u32 i = 0; i < NOFD - 1; i++) {
		u32 n = 1 + (hint + i) % (NOFD - 1);
		struct ofd *o = &OFDS[n];
		if (o->refs) continue;
		hint = n;
		memset(o, 0, sizeof *o);
		o->refs = 1;
		o->ino = ip->ino;
		o->flags = flags & ~(O_CREAT | O_EXCL | O_NOCTTY | O_TRUNC | O_CLOEXEC);
		ip->opens++;
		return n;
	}
	return 0;
}

static void fd_set(struct thread *t, u64 fd, u32 n)
{
	u32 old = t->fdtab[fd];
	t->fdtab[fd] = n;
	ofd_drop(old);
}

/* The host's descriptor that stands for an open file of the volume. */
static long fd_new(struct thread *t, struct inode *ip, u32 flags)
{
	char name[24];
	put_num(name, ip->ino);
	long fd = check_fd(t, H(NR_openat, fd_base + FD_LOCKS, name, O_RDWR | (flags & O_CLOEXEC)));
	if (fd == -ENOENT) { /* for whatever user the program becomes */
		fd = check_fd(t, H(NR_openat, fd_base + FD_LOCKS, name, O_RDWR | O_CREAT | (flags & O_CLOEXEC), 0666));
		if (fd >= 0) H(NR_fchmod, fd, 0666);
	}
	if (fd < 0) return fd == -EMFILE || fd == -ENFILE ? fd : -EIO;
	u32 n = fd < 65536 ? ofd_new(ip, flags) : 0;
	if (!n) {
		H(NR_close, fd);
		return -EMFILE;
	}
	t->fdtab[fd] = n;
	return fd;
}

static long each_fd(struct thread *t, int add)
{
	u64 *w = (u64 *)t->fdtab;
	for (u64 i = 0; i < FDTAB_SIZE / 8; i++)
		for (int k = 0; w[i] && k < 4; k++)
			if (t->fdtab[4 * i + k]) {
				if (add > 0)
					OFDS[t->fdtab[4 * i + k]].refs++;
				else
					ofd_drop(t->fdtab[4 * i + k]);
			}
	return 0;
}

/* ---- shared mappings: pages of the cache, which stay while they are mapped */

struct map { u64 addr, len, page; u32 ino, write; };
static struct map maps[128];

static void map_pages(struct map *m, u64 from, u64 to, int add)
{
	long err;
	for (u64 p = from; p < to; p++) {
		struct inode *ip = inode_get(m->ino, &err);
		struct entry *e = ip ? block_cached(ip, 0, m->page + p) : 0;
		if (e) {
			e->maps += add;
			if (m->write) {
				e->wmaps += add;
				V->nwmaps += add;
			}
		}
		if (ip) {
			ip->opens += add;
			inode_put(ip);
		}
	}
}

/* Called before [addr, addr+len) goes away: what was written there is found first. */
void maps_gone(u64 addr, u64 len)
{
	u64 end = addr + ALIGN_UP(len, PAGE);
	if (!(CFG->flags & CFG_FILES)) return;
	for (struct map *m = maps; m < maps + 128; m++) {
		if (!m->len || m->addr >= end || m->addr + m->len <= addr) continue;
		u64 lo = MAX(addr, m->addr), hi = MIN(end, m->addr + m->len);
		vol_enter();
		if (m->write) vol_found_mapped();
		map_pages(m, (lo - m->addr) / PAGE, (hi - m->addr) / PAGE, -1);
		struct map left = *m, right = *m;
		left.len = lo - m->addr;
		right.addr = hi;
		right.len = m->addr + m->len - hi;
		right.page += (hi - m->addr) / PAGE;
		*m = left.len ? left : right;
		for (struct map *f = maps; left.len && right.len && f < maps + 128; f++)
			if (!f->len) {
				*f = right;
				break;
			}
		vol_leave();
	}
}

static long map_shared(struct ofd *o, u64 addr, u64 len, u64 prot, u64 off)
{
	struct map *m = maps;
	long r = 0;
	while (m < maps + 128 && m->len) m++;
	struct inode *ip = m < maps + 128 ? inode_of(o, &r) : 0;
	if (!ip) return r ? r : -ENOMEM;
	u64 npages = ALIGN_UP(len, PAGE) / PAGE, have = (ip->r.size + PAGE - 1) / PAGE;
	have = have > off / PAGE ? MIN(have - off / PAGE, npages) : 0;
	struct map n = { addr, have * PAGE, off / PAGE, o->ino, !!(o->flags & O_RDWR) };
	u64 p = 0;
	for (; p < have && !r; p++) {
		struct entry *e = block_get(ip, 0, n.page + p, 0, &r);
		if (!e) break;
		long a = H(NR_mmap, addr + p * PAGE, PAGE, prot, MAP_SHARED | MAP_FIXED, fd_base + FD_SHARED,
			DATA_OFF + (e - ENTRIES) * PAGE);
		if (a != (long)(addr + p * PAGE)) {
			r = -ENOMEM;
			break;
		}
		if (!e->wmaps) e->hash = page_hash(PAGE_OF(e));
		map_pages(&n, p, p + 1, 1);
	}
	if (r)
		map_pages(&n, 0, p, -1);
	else if (have)
		*m = n;
	inode_put(ip);
	return r;
}

long file_mmap(struct thread *t, u64 addr, u64 len, u64 prot, u64 flags, int fd, u64 off)
{
	u64 size = ALIGN_UP(len, PAGE), type = flags & MAP_TYPE;
	if (!len || off % PAGE || (type != MAP_PRIVATE && type != MAP_SHARED && type != MAP_SHARED_VALIDATE)) return -EINVAL;
	vol_enter();
	struct ofd *o = ofd_of(t, fd);
	long r = 0;
	struct inode *ip = o ? inode_of(o, &r) : 0;
	if (!ip || ip->r.type != T_REG || (o->flags & O_ACCMODE) == O_WRONLY || o->flags & O_PATH ||
		(type != MAP_PRIVATE && prot & PROT_WRITE && (o->flags & O_ACCMODE) != O_RDWR)) {
		if (ip) inode_put(ip), r = ip->r.type != T_REG ? -ENODEV : -EACCES;
		vol_leave();
		return r ? r : -EBADF;
	}
	int shared = type != MAP_PRIVATE && (prot & PROT_WRITE || (o->flags & O_ACCMODE) == O_RDWR || size / PAGE < V->nentries / 8);
	if (shared && size / PAGE > V->nentries / 4) {
		inode_put(ip);
		vol_leave();
		return -ENOMEM;
	}
	r = H(NR_mmap, addr, size, shared ? 0 : PROT_READ | PROT_WRITE, (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE)) | MAP_PRIVATE | MAP_ANONYMOUS,
		-1, 0);
	if (IS_ERR(r) && r != -EEXIST && r != -EINVAL) r = -ENOMEM;
	if (!IS_ERR(r) && (r % PAGE || trusted_range(r, size)))
		die("the host mapped memory over the shim", 0);
	if (!IS_ERR(r)) {
		long k = shared ? map_shared(o, r, size, prot, off) : file_read(ip, off, (void *)r, size);
		if (k >= 0 && !shared && (u64)k < size && off + k < ip->r.size) k = -EIO; /* no zeros for what could not be read */
		if (k >= 0 && !shared && prot != (PROT_READ | PROT_WRITE))
			k = H(NR_mprotect, r, size, prot);
		if (k < 0) {
			H(NR_munmap, r, size);
			r = k;
		}
	}
	inode_put(ip);
	vol_leave();
	return r;
}

/* ---- start, fork, exec, end */

/* Ephemeral regions are folders of a file system in memory that is private to the run. */
static void make_ephemeral(void)
{
	char p[2200];
	u64 at = 16;
	for (u32 i = 0; i < V->nregions; i++) {
		struct region *g = (struct region *)(V->regions + at);
		char *base = put_str(p, CFG->ephemeral), *name = (char *)V->regions + at + 4;
		for (u64 k = 0; g->cls == R_EPHEMERAL && k < g->len; k++) {
			base[k] = name[k];
			base[k + 1] = 0;
			if (k && (k + 1 == g->len || name[k + 1] == '/') && !H(NR_mkdir, p, 01777)) H(NR_chmod, p, 01777);
		}
		at += 4 + g->len;
	}
}

void files_start(struct thread *t, const char *handed)
{
	index_calls();
	t->proc->umask = H(NR_umask, 0);
	H(NR_umask, t->proc->umask);
	vol_enter();
	if (!CFG->ready) {
		long r = vol_open(CFG->key, CFG->min_generation, CFG->flags & CFG_READONLY);
		if (r && V->complained) H(NR_exit_group, 125); /* it is said already what it is */
		if (r) die("the volume cannot be opened", r == -ENOMEM ? "the cache is too small" : r == -ENOSPC ? "no space left" : 0);
		memset(CFG->key, 0, sizeof CFG->key);
		if (CFG->flags & CFG_CONSOLE) console_start(t);
		make_ephemeral();
		CFG->ready = 1;
	}
	/* what an earlier image left us: fd=file,… and the working directory */
	if (*handed == '@') {
		handed++;
		t->proc->cwd = get_num(&handed);
		handed++;
		char *p = t->proc->cwd_path;
		while (*handed && *handed != '|')
			*p++ = *handed++;
		*p = 0;
		handed += *handed == '|';
	}
	while (*handed >= '0' && *handed <= '9') {
		u64 fd = get_num(&handed);
		handed++;
		u32 n = get_num(&handed);
		if (H(NR_fcntl, fd, 1, 0) >= 0)
			t->fdtab[fd] = n;
		else /* close-on-exec */
			ofd_drop(n);
		handed += *handed == ',';
	}
	vol_leave();
}

/* The last act of a run, in a process of its own: what was written and not yet
   committed when the others ended, however they ended. */
void files_finish(void)
{
	vol_enter();
	long r = V->broken ? 0 : vol_commit();
	vol_leave();
	if (CFG->flags & CFG_CONSOLE) console_end(self());
	if (r)
		die("the last changes could not be written to the volume, which keeps its last committed state",
			r == -ENOSPC ? "no space left" : 0);
	H(NR_exit_group, 0);
	for (;;)
		;
}

char *files_hand_over(struct thread *t, char *p, char *end)
{
	if (!(CFG->flags & CFG_FILES)) return p;
	if (t->proc->cwd) {
		if (p + 40 + strlen(t->proc->cwd_path) > end) return 0;
		for (char *c = t->proc->cwd_path; *c; c++)
			if (*c == ':' || *c == '|') /* not worth an encoding: start where the host is */
				goto files;
		*p++ = '@';
		p = put_str(put_num(p, t->proc->cwd), "=");
		p = put_str(put_str(p, t->proc->cwd_path), "|");
	}
files:
	for (u64 fd = 0; fd < 65536; fd++)
		if (t->fdtab[fd]) {
			if (p + 16 > end) return 0;
			p = put_str(put_num(put_str(put_num(p, fd), "="), t->fdtab[fd]), ",");
		}
	return p;
}

int files_fork(struct thread *t)
{
	if (!(CFG->flags & CFG_FILES)) return 0;
	vol_enter();
	each_fd(t, 1);
	for (struct map *m = maps; m < maps + 128; m++) map_pages(m, 0, m->len / PAGE, 1);
	vol_leave();
	return 1;
}

void files_unfork(struct thread *t)
{
	vol_enter();
	each_fd(t, -1);
	for (struct map *m = maps; m < maps + 128; m++) map_pages(m, 0, m->len / PAGE, -1);
	vol_leave();
}

void files_vfork(struct thread *child, struct thread *parent)
{
	u16 *tab = CFG->flags & CFG_FILES ? scratch(FDTAB_SIZE) : 0;
	if (!tab) return;
	for (u64 i = 0; i < FDTAB_SIZE / 8; i++)
		if (((u64 *)parent->fdtab)[i]) ((u64 *)tab)[i] = ((u64 *)parent->fdtab)[i];
	child->fdtab = tab;
	vol_enter();
	each_fd(child, 1);
	vol_leave();
}

void files_vfork_done(struct thread *child)
{
	H(NR_munmap, child->fdtab, FDTAB_SIZE);
}

void files_exit(struct thread *t)
{
	if (!(CFG->flags & CFG_FILES)) return;
	vol_enter();
	if (!V->broken) {
		each_fd(t, -1);
		if (!t->vforked)
			for (struct map *m = maps; m < maps + 128; m++) {
				if (m->write && m->len) vol_found_mapped();
				map_pages(m, 0, m->len / PAGE, -1);
			}
	}
	vol_leave();
}

/* ---- for the loader */

long sealed_fd(int fd) { return ofd_of(self(), fd) != 0; }

static long with_fd(int fd, int what, void *buf, u64 len, u64 off)
{
	long r = 0;
	vol_enter();
	struct ofd *o = ofd_of(self(), fd);
	struct inode *ip = o ? inode_of(o, &r) : 0, *aux;
	if (ip && what == 2) { /* the facts that were sealed with the file */
		aux = ip->r.aux ? inode_get(ip->r.aux, &r) : 0;
		r = aux && aux->r.type == T_INTERNAL ? file_read(aux, off, buf, len) : -ENODATA;
		inode_put(aux);
	} else if (ip) {
		r = what ? file_read(ip, off, buf, len) : (long)ip->r.size;
	}
	inode_put(ip);
	vol_leave();
	return r;
}

long sealed_size(int fd) { return with_fd(fd, 0, 0, 0, 0); }
long sealed_pread(int fd, void *buf, u64 len, u64 off) { return with_fd(fd, 1, buf, len, off); }
long sealed_facts(int fd, void *buf, u64 len, u64 off) { return with_fd(fd, 2, buf, len, off); }

/* 0: the path is not the volume's; it may have led through it to another, in `out`. */
int sealed_open_exec(struct thread *t, const char **path, char *out, long *r)
{
	struct loc l;
	vol_enter();
	*r = locate(t, AT_FDCWD, *path, FOLLOW, &l);
	int here = *r != HOST;
	if (*r == VOLUME) {
		struct inode *ip = l.ino ? inode_get(l.ino, r) : 0;
		if (!l.ino)
			*r = -ENOENT;
		if (ip) {
			*r = ip->r.type != T_REG || !may(ip, 1) ? -EACCES : fd_new(t, ip, O_CLOEXEC);
			inode_put(ip);
		}
	} else if (*r == HOST && !CFG->mount[0]) { /* all is the volume's: a passthrough region is not executable */
		*r = -EACCES;
		here = 1;
	} else if (*r == HOST && l.changed) {
		put_str(out, l.path);
		*path = out;
	}
	vol_leave();
	return here;
}

void sealed_move(struct thread *t, int fd, int to)
{
	if (!sealed_fd(fd)) return;
	vol_enter();
	OFDS[t->fdtab[fd]].refs++;
	fd_set(t, to, t->fdtab[fd]);
	vol_leave();
}

void sealed_close(struct thread *t, int fd)
{
	vol_enter();
	fd_set(t, fd, 0);
	vol_leave();
}

int sealed_path(struct thread *t, const char *path, char *out)
{
	struct loc l;
	if (!(CFG->flags & CFG_FILES)) return 0;
	vol_enter();
	long r = locate(t, AT_FDCWD, path, FOLLOW, &l);
	vol_leave();
	if (r == VOLUME && strlen(CFG->mount) + strlen(l.path) < 4096)
		put_str(put_str(out, CFG->mount), l.path);
	return r == VOLUME;
}

/* ---- attributes */

static void fill_stat(struct inode *ip, struct stat *s)
{
	static const u32 fmt[] = { 0, S_IFREG, S_IFDIR, S_IFLNK, S_IFIFO, S_IFSOCK, S_IFCHR, S_IFBLK, 0 };
	memset(s, 0, sizeof *s);
	s->dev = DEV;
	s->ino = ip->ino;
	s->nlink = ip->r.nlink;
	s->mode = fmt[ip->r.type] | (ip->r.type == T_LINK ? 0777 : ip->r.mode);
	s->uid = ip->r.uid;
	s->gid = ip->r.gid;
	s->rdev = (ip->r.rdev >> 20 & 0xfff) << 8 | (ip->r.rdev & 0xff) | (u64)(ip->r.rdev & 0xfff00) << 12;
	s->size = ip->r.size;
	s->blksize = 4096;
	s->blocks = (ip->r.size + 511) / 512;
	s->mtime[0] = s->atime[0] = ip->r.mtime / 1000000000;
	s->mtime[1] = s->atime[1] = ip->r.mtime % 1000000000;
	s->ctime[0] = ip->r.ctime / 1000000000;
	s->ctime[1] = ip->r.ctime % 1000000000;
}

static long put_stat(struct inode *ip, void *to)
{
	struct stat s;
	fill_stat(ip, &s);
	return ucopy(to, &s, sizeof s) ? -EFAULT : 0;
}

static long put_statx(struct inode *ip, void *to)
{
	struct stat s;
	struct {
		u32 mask, blksize;
		u64 attributes;
		u32 nlink, uid, gid;
		u16 mode, spare;
		u64 ino, size, blocks, attributes_mask;
		struct { i64 sec; u32 nsec, pad; } time[4];
		u32 rdev_major, rdev_minor, dev_major, dev_minor;
		u64 rest[14];
	} x = { 0 };
	fill_stat(ip, &s);
	x.mask = 0x7ff & ~0x800;
	x.blksize = 4096;
	x.nlink = s.nlink, x.uid = s.uid, x.gid = s.gid, x.mode = s.mode;
	x.ino = s.ino, x.size = s.size, x.blocks = s.blocks;
	x.time[0].sec = s.atime[0], x.time[0].nsec = s.atime[1];
	x.time[2].sec = s.ctime[0], x.time[2].nsec = s.ctime[1];
	x.time[3].sec = s.mtime[0], x.time[3].nsec = s.mtime[1];
	x.rdev_major = ip->r.rdev >> 20;
	x.rdev_minor = ip->r.rdev & 0xfffff;
	x.dev_major = DEV >> 8;
	x.dev_minor = DEV & 0xff;
	return ucopy(to, &x, sizeof x) ? -EFAULT : 0;
}

static long put_statfs(void *to)
{
	u64 free = MAX_BLOCKS - V->blocks;
	u64 s[15] = { 0x5ea1f5, 4096, V->blocks + free, free, free, MAX_BLOCKS, MAX_BLOCKS - V->itab.r.size / 128, DEV, 255, 4096 };
	return ucopy(to, s, sizeof s) ? -EFAULT : 0;
}

static long set_times(struct inode *ip, const u64 *ts) /* sec, nsec of access, then of modification; NULL: now */
{
	i64 n = now();
	if (euid() != ip->r.uid && euid() && (ts || !may(ip, 2))) return ts ? -EPERM : -EACCES;
	if (!ts || ts[3] == 0x3fffffff)
		ip->r.mtime = n;
	else if (ts[3] != 0x3ffffffe)
		ip->r.mtime = ts[2] * 1000000000 + ts[3];
	ip->r.ctime = n;
	inode_dirty(ip);
	return 0;
}

static long set_mode(struct inode *ip, u32 mode)
{
	u32 uid = euid();
	if (uid && uid != ip->r.uid) return -EPERM;
	ip->r.mode = mode & 07777;
	ip->r.ctime = now();
	inode_dirty(ip);
	return 0;
}

static long set_owner(struct inode *ip, u32 uid, u32 gid)
{
	if (euid()) return -EPERM;
	if (uid != ~0u) ip->r.uid = uid;
	if (gid != ~0u) ip->r.gid = gid;
	ip->r.ctime = now();
	inode_dirty(ip);
	return 0;
}

static long truncate_to(struct inode *ip, i64 size)
{
	if (size < 0) return -EINVAL;
	if (ip->r.type != T_REG) return ip->r.type == T_DIR ? -EISDIR : -EINVAL;
	long r = drop_facts(ip);
	if (!r) r = file_truncate(ip, size);
	if (!r) ip->r.mtime = ip->r.ctime = now();
	return r;
}

static void touched(struct inode *ip)
{
	ip->r.mtime = ip->r.ctime = now();
	inode_dirty(ip);
}

/* ---- calls on an open file */

static long do_read(struct thread *t, struct ofd *o, struct inode *ip, u8 *buf, u64 n, i64 off, int at)
{
	(void)t;
	if ((o->flags & O_ACCMODE) == O_WRONLY || o->flags & O_PATH) return -EBADF;
	if (ip->r.type != T_REG) return -EISDIR;
	if (at && off < 0) return -EINVAL;
	long r = file_read(ip, at ? (u64)off : o->off, buf, MIN(n, 0x7ffff000));
	if (r > 0 && !at) o->off += r;
	return r;
}

static long do_write(struct ofd *o, struct inode *ip, const u8 *buf, u64 n, i64 off, int at)
{
	if ((o->flags & O_ACCMODE) == 0 || o->flags & O_PATH) return -EBADF;
	if (at && off < 0) return -EINVAL;
	if (V->readonly) return -EROFS;
	u64 pos = o->flags & O_APPEND ? ip->r.size : at ? (u64)off : o->off;
	long r = drop_facts(ip);
	if (!r && n) r = file_write(ip, pos, buf, MIN(n, 0x7ffff000));
	if (r > 0) {
		touched(ip);
		if (!at) o->off = pos + r;
		long c = o->flags & (O_DSYNC | O_SYNC) ? vol_commit() : 0;
		if (c) r = c;
	}
	return r;
}

static long do_vector(struct thread *t, struct ofd *o, struct inode *ip, const struct iovec *uv, u64 n, i64 off, int at, int write)
{
	long done = 0;
	if (n > 1024) return -EINVAL;
	for (u64 i = 0; i < n; i++) {
		struct iovec v;
		if (ucopy(&v, uv + i, sizeof v)) return done ? done : -EFAULT;
		if (!v.len) continue;
		long r = write ? do_write(o, ip, v.base, v.len, off + done, at) : do_read(t, o, ip, v.base, v.len, off + done, at);
		if (r < 0) return done ? done : r;
		done += r;
		if ((u64)r < v.len) break;
	}
	return done;
}

static long do_seek(struct ofd *o, struct inode *ip, i64 off, u64 whence)
{
	i64 n;
	switch (whence) {
	case 0: n = off; break;
	case 1: n = o->off + off; break;
	case 2: n = ip->r.size + off; break;
	case 3: /* SEEK_DATA: holes are not told */
	case 4:
		if (off < 0 || (u64)off >= ip->r.size) return -6;
		n = whence == 3 ? off : (i64)ip->r.size;
		break;
	default: return -EINVAL;
	}
	if (n < 0 || (u64)n > MAX_SIZE) return -EINVAL;
	if (ip->r.type == T_DIR) {
		if (n != 0) return whence == 1 ? (i64)o->off : -EINVAL;
		o->cookie = 0;
	}
	return o->off = n;
}

static long do_getdents(struct ofd *o, struct inode *ip, u8 *to, u64 size)
{
	static const u8 dt[] = { 0, 8, 4, 10, 1, 12, 2, 6, 0 };
	struct { u64 ino, off; u16 len; u8 type; char name[261]; } __attribute__((packed)) d;
	u64 done = 0;
	if (ip->r.type != T_DIR) return -ENOTDIR;
	for (;;) {
		u32 len;
		u8 type = T_DIR, name[256];
		long n;
		if (o->cookie < 2) {
			n = o->cookie ? ip->r.parent : ip->ino;
			len = put_str((char *)name, o->cookie ? ".." : ".") - (char *)name;
		} else {
			n = dir_next(ip, o->last + 1, o->cookie == 2 ? 0 : o->last[0], name, &len, &type);
			if (n <= 0) return done ? (long)done : n;
			if (type > T_BLK) return -EIO;
		}
		u64 rec = ALIGN_UP(19 + len + 1, 8);
		if (done + rec > size) return done ? (long)done : -EINVAL;
		memset(&d, 0, rec);
		d.ino = n, d.off = o->cookie + 1, d.len = rec, d.type = dt[type];
		memcpy(d.name, name, len);
		if (ucopy(to + done, &d, rec)) return done ? (long)done : -EFAULT;
		if (o->cookie >= 2) {
			o->last[0] = len;
			memcpy(o->last + 1, name, MIN(len, 255));
		}
		o->cookie++;
		o->off = o->cookie;
		done += rec;
	}
}

static long sys_sendfile(struct thread *t, u64 out, u64 in, u64 *uoff, u64 count)
{
	long r = 0, done = 0;
	u64 off = 0;
	u8 *buf = t->copy ? t->copy : (t->copy = scratch(COPY_SIZE));
	if (!buf) return -ENOMEM;
	if (uoff && ucopy(&off, uoff, 8)) r = -EFAULT;
	while (r >= 0 && (u64)done < count) {
		vol_enter();
		struct ofd *o = ofd_of(t, in);
		struct inode *ip = o ? inode_of(o, &r) : 0;
		u64 pos = uoff ? off : o ? o->off : 0;
		if (ip) {
			r = (o->flags & O_ACCMODE) == O_WRONLY || ip->r.type != T_REG ? -EINVAL : file_read(ip, pos, buf, MIN(count - done, COPY_SIZE));
			inode_put(ip);
		}
		vol_leave();
		if (r <= 0) break;
		u64 have = r;
		r = host_wait(NR_write, out, (u64)buf, have, 0ul, 0ul, 0ul);
		if (r <= 0 || (u64)r > have) break;
		done += r;
		off = pos + r;
		if (!uoff) {
			vol_enter();
			if ((o = ofd_of(t, in))) o->off = off;
			vol_leave();
		}
		if ((u64)r < have) break;
	}
	if (uoff && done && ucopy(uoff, &off, 8)) r = -EFAULT;
	if (!done && r == -EINTR && t->pend == 1 && t->proc->acts[t->info.signo].flags & SA_RESTART)
		t->act = ACT_AGAIN;
	return done ? done : r;
}

/* Calls whose first argument is an open file of the volume. */
static long fd_call(struct thread *t, u64 nr, u64 fd, struct ofd *o)
{
	u64 b = t->f.rsi, c = t->f.rdx, d = t->f.r10;
	long r = 0;
	switch (nr) {
	case NR_close:
		fd_set(t, (u32)fd, 0);
		return H(nr, fd);
	case NR_flock: return 0;
	case NR_fadvise64: case NR_readahead: case NR_sync_file_range: return 0;
	case NR_tee: return -EINVAL;
	case NR_fgetxattr: case NR_fsetxattr: case NR_fremovexattr: return -EOPNOTSUPP;
	case NR_flistxattr: return 0;
	case NR_fstatfs: return put_statfs((void *)b);
	case NR_ioctl: return -ENOTTY;
	}
	struct inode *ip = inode_of(o, &r);
	if (!ip) return r;
	switch (nr) {
	case NR_read: r = do_read(t, o, ip, (u8 *)b, c, 0, 0); break;
	case NR_pread64: r = do_read(t, o, ip, (u8 *)b, c, d, 1); break;
	case NR_write: r = do_write(o, ip, (u8 *)b, c, 0, 0); break;
	case NR_pwrite64: r = do_write(o, ip, (u8 *)b, c, d, 1); break;
	case NR_readv: case NR_writev: r = do_vector(t, o, ip, (void *)b, c, 0, 0, nr == NR_writev); break;
	case NR_preadv: case NR_pwritev: r = do_vector(t, o, ip, (void *)b, c, d, 1, nr == NR_pwritev); break;
	case NR_preadv2: case NR_pwritev2: r = do_vector(t, o, ip, (void *)b, c, d, (i64)d != -1, nr == NR_pwritev2); break;
	case NR_lseek: r = do_seek(o, ip, b, c); break;
	case NR_fstat: r = put_stat(ip, (void *)b); break;
	case NR_fsync: case NR_fdatasync: case NR_syncfs: r = vol_commit(); break;
	case NR_ftruncate: r = (o->flags & O_ACCMODE) == 0 ? -EINVAL : V->readonly ? -EROFS : truncate_to(ip, b); break;
	case NR_fallocate:
		if (V->readonly || (o->flags & O_ACCMODE) == 0)
			r = -EBADF;
		else if (b & ~1ul)
			r = -EOPNOTSUPP;
		else if (!(b & 1) && c + d > ip->r.size)
			r = truncate_to(ip, c + d);
		break;
	case NR_fchmod: r = V->readonly ? -EROFS : set_mode(ip, b); break;
	case NR_fchown: r = V->readonly ? -EROFS : set_owner(ip, b, c); break;
	case NR_getdents64: r = do_getdents(o, ip, (u8 *)b, c); break;
	default: r = -ENOSYS;
	}
	inode_put(ip);
	return r;
}

/* ---- calls on paths */

static long new_inode(struct thread *t, struct loc *l, int type, u32 mode, struct inode **out)
{
	long r = 0;
	(void)t;
	if (V->readonly) return -EROFS;
	if (l->ino) return -EEXIST;
	struct inode *dir = inode_get(l->dir, &r), *ip;
	if (!dir) return r;
	if (!may(dir, 3) || !dir->r.nlink) r = dir->r.nlink ? -EACCES : -ENOENT;
	int cls = type == T_REG ? region_of(l->path, strlen(l->path)) : R_CRYPT;
	u32 gid = dir->r.mode & 02000 ? dir->r.gid : (u32)H(NR_getegid, 0);
	ip = r ? 0 : inode_new(type, cls, mode, euid(), gid, &r);
	if (ip) {
		ip->r.nlink = 1;
		if (type == T_DIR) ip->r.parent = l->dir, ip->r.mode |= dir->r.mode & 02000;
		if ((r = dir_insert(dir, l->name, l->len, ip->ino, type))) {
			ip->r.nlink = 0;
			inode_put(ip); /* and so releases it */
			ip = 0;
		} else {
			touched(dir);
		}
	}
	inode_put(dir);
	*out = ip;
	return ip ? 0 : r;
}

static long do_open(struct thread *t, struct loc *l, u64 flags, u32 mode)
{
	long r = 0;
	struct inode *ip;
	int made = 0, acc = flags & O_ACCMODE;
	if ((flags & O_TMPFILE) == O_TMPFILE) return -EOPNOTSUPP;
	if (!l->ino) {
		if (!(flags & O_CREAT)) return -ENOENT;
		if (l->slash) return -EISDIR;
		if ((r = new_inode(t, l, T_REG, mode & ~t->proc->umask, &ip))) return r;
		made = 1;
	} else {
		if (flags & O_CREAT && flags & O_EXCL) return -EEXIST;
		if (!(ip = inode_get(l->ino, &r))) return r;
	}
	if (ip->r.type == T_LINK && !(flags & O_PATH))
		r = -ELOOP;
	else if (flags & O_DIRECTORY && ip->r.type != T_DIR)
		r = -ENOTDIR;
	else if (ip->r.type == T_DIR && (acc || flags & O_CREAT))
		r = -EISDIR;
	else if (ip->r.type >= T_FIFO && !(flags & O_PATH))
		r = -6; /* ENXIO: nobody can be at the other end */
	else if (!made && !(flags & O_PATH) && !may(ip, acc == 0 ? 4 : acc == O_WRONLY ? 2 : 6))
		r = -EACCES;
	else if (V->readonly && (acc || flags & O_TRUNC))
		r = -EROFS;
	else if (flags & O_TRUNC && ip->r.type == T_REG && ip->r.size)
		r = truncate_to(ip, 0);
	if (!r) r = fd_new(t, ip, flags);
	inode_put(ip);
	return r;
}

static long do_unlink(struct loc *l, int dir)
{
	long r = 0;
	if (V->readonly) return -EROFS;
	if (!l->ino) return -ENOENT;
	if (!l->dir) return dir ? -EBUSY : -EISDIR;
	struct inode *d = inode_get(l->dir, &r), *ip = d ? inode_get(l->ino, &r) : 0;
	if (ip) {
		u32 uid = euid();
		if (!may(d, 3) || (d->r.mode & 01000 && uid && uid != ip->r.uid && uid != d->r.uid))
			r = -EACCES;
		else if (dir != (ip->r.type == T_DIR))
			r = dir ? -ENOTDIR : -EISDIR;
		else if (dir && ip->r.size)
			r = -ENOTEMPTY;
		else if (!(r = dir_remove(d, l->name, l->len))) {
			ip->r.nlink--;
			ip->r.ctime = now();
			inode_dirty(ip);
			touched(d);
		}
		inode_put(ip);
	}
	inode_put(d);
	return r;
}

static long do_link(struct loc *from, struct loc *to)
{
	long r = 0;
	if (V->readonly) return -EROFS;
	if (!from->ino || to->ino) return from->ino ? -EEXIST : -ENOENT;
	struct inode *ip = inode_get(from->ino, &r), *d = ip ? inode_get(to->dir, &r) : 0;
	if (d) {
		if (ip->r.type == T_DIR)
			r = -EPERM;
		else if (!may(d, 3))
			r = -EACCES;
		else if (ip->r.type == T_REG && ip->r.cls != region_of(to->path, strlen(to->path)))
			r = -EXDEV;
		else if (!(r = dir_insert(d, to->name, to->len, ip->ino, ip->r.type))) {
			ip->r.nlink++;
			ip->r.ctime = now();
			inode_dirty(ip);
			touched(d);
		}
	}
	inode_put(d);
	inode_put(ip);
	return r;
}

/* Whether a region begins at or below the path: such directories stay where they are. */
static int splits(const char *path)
{
	u64 at = 16, n = strlen(path);
	for (u32 i = 0; i < V->nregions; i++) {
		struct region *g = (struct region *)(V->regions + at);
		const char *p = (const char *)V->regions + at + 4;
		if (g->len >= n && !memcmp(p, path, n) && (g->len == n || p[n] == '/')) return 1;
		at += 4 + g->len;
	}
	return 0;
}

static long do_rename(struct loc *from, struct loc *to, u64 flags)
{
	long r = 0;
	struct inode *ip = 0, *fd = 0, *td = 0, *old = 0;
	if (V->readonly) return -EROFS;
	if (flags & ~1ul) return -EINVAL;
	if (!from->ino) return -ENOENT;
	if (!from->dir || (to->ino && !to->dir)) return -EBUSY;
	if (to->ino && flags & 1) return -EEXIST;
	if (from->ino == to->ino) return 0;
	if (!(ip = inode_get(from->ino, &r)) || !(fd = inode_get(from->dir, &r)) || !(td = inode_get(to->dir, &r)) ||
		(to->ino && !(old = inode_get(to->ino, &r))))
		goto out;
	u32 uid = euid();
	int cls = region_of(to->path, strlen(to->path));
	if (!may(fd, 3) || !may(td, 3) || (fd->r.mode & 01000 && uid && uid != ip->r.uid && uid != fd->r.uid))
		r = -EACCES;
	else if (to->slash && !to->ino && ip->r.type != T_DIR)
		r = -ENOTDIR;
	else if ((ip->r.type == T_REG && ip->r.cls != cls) ||
		(ip->r.type == T_DIR && (splits(from->path) || splits(to->path) || region_of(from->path, strlen(from->path)) != cls)))
		r = -EXDEV;
	else if (old && (ip->r.type == T_DIR) != (old->r.type == T_DIR))
		r = ip->r.type == T_DIR ? -ENOTDIR : -EISDIR;
	else if (old && old->r.type == T_DIR && old->r.size)
		r = -ENOTEMPTY;
	for (u32 up = to->dir; !r && ip->r.type == T_DIR;) { /* not into itself */
		struct inode *p;
		if (up == ip->ino) r = -EINVAL;
		if (up == INO_ROOT || r || !(p = inode_get(up, &r))) break;
		up = p->r.parent;
		inode_put(p);
	}
	if (r) goto out;
	r = old ? dir_replace(td, to->name, to->len, ip->ino, ip->r.type) : dir_insert(td, to->name, to->len, ip->ino, ip->r.type);
	if (r || (r = dir_remove(fd, from->name, from->len))) goto out;
	if (old) {
		old->r.nlink--;
		old->r.ctime = now();
		inode_dirty(old);
	}
	if (ip->r.type == T_DIR) ip->r.parent = to->dir;
	ip->r.ctime = now();
	inode_dirty(ip);
	touched(fd);
	touched(td);
out:
	inode_put(old);
	inode_put(td);
	inode_put(fd);
	inode_put(ip);
	return r;
}

static long do_symlink(struct thread *t, const char *utarget, struct loc *l)
{
	char target[4096];
	struct inode *ip;
	long n = get_path(utarget, target), r;
	if (n <= 0) return n ? n : -ENOENT;
	if ((r = new_inode(t, l, T_LINK, 0777, &ip))) return r;
	long w = file_write(ip, 0, target, n);
	inode_put(ip);
	if (w != n) {
		do_unlink(l, 0);
		return w < 0 ? w : -ENOSPC;
	}
	return 0;
}

/* How the calls that take a path give it: positions of arguments, 0 = none. */
struct call { u16 nr; u8 dir, path, follow; };
static const struct call calls[] = {
	{ NR_open, 0, 1, FOLLOW }, { NR_creat, 0, 1, FOLLOW }, { NR_openat, 1, 2, FOLLOW }, { NR_openat2, 1, 2, FOLLOW },
	{ NR_stat, 0, 1, FOLLOW }, { NR_lstat, 0, 1, 0 }, { NR_newfstatat, 1, 2, FOLLOW }, { NR_statx, 1, 2, FOLLOW },
	{ NR_access, 0, 1, FOLLOW }, { NR_faccessat, 1, 2, FOLLOW }, { NR_faccessat2, 1, 2, FOLLOW }, { NR_mkdir, 0, 1, 0 },
	{ NR_mkdirat, 1, 2, 0 }, { NR_rmdir, 0, 1, 0 }, { NR_unlink, 0, 1, 0 }, { NR_unlinkat, 1, 2, 0 }, { NR_readlink, 0, 1, 0 },
	{ NR_readlinkat, 1, 2, 0 }, { NR_symlink, 0, 2, 0 }, { NR_symlinkat, 2, 3, 0 }, { NR_chmod, 0, 1, FOLLOW },
	{ NR_fchmodat, 1, 2, FOLLOW }, { NR_fchmodat2, 1, 2, FOLLOW }, { NR_chown, 0, 1, FOLLOW }, { NR_lchown, 0, 1, 0 },
	{ NR_fchownat, 1, 2, FOLLOW }, { NR_truncate, 0, 1, FOLLOW }, { NR_utime, 0, 1, FOLLOW }, { NR_utimes, 0, 1, FOLLOW },
	{ NR_futimesat, 1, 2, FOLLOW }, { NR_utimensat, 1, 2, FOLLOW }, { NR_statfs, 0, 1, FOLLOW }, { NR_mknod, 0, 1, 0 },
	{ NR_mknodat, 1, 2, 0 }, { NR_chdir, 0, 1, FOLLOW }, { NR_getxattr, 0, 1, FOLLOW }, { NR_lgetxattr, 0, 1, 0 },
	{ NR_setxattr, 0, 1, FOLLOW }, { NR_lsetxattr, 0, 1, 0 }, { NR_listxattr, 0, 1, FOLLOW }, { NR_llistxattr, 0, 1, 0 },
	{ NR_removexattr, 0, 1, FOLLOW }, { NR_lremovexattr, 0, 1, 0 }, { NR_name_to_handle_at, 1, 2, 0 },
	{ NR_inotify_add_watch, 0, 2, FOLLOW }, { NR_chroot, 0, 1, FOLLOW },
};

static const struct call *call_of[NR_MAX];

static void index_calls(void)
{
	for (u64 i = 0; i < sizeof classes / sizeof *classes; i++)
		sys_class[classes[i].nr] = classes[i].class;
	for (u64 i = 0; i < sizeof calls / sizeof *calls; i++) call_of[calls[i].nr] = &calls[i];
}

static u64 *arg(struct thread *t, int n)
{
	u64 *a[] = { 0, &t->f.rdi, &t->f.rsi, &t->f.rdx, &t->f.r10, &t->f.r8, &t->f.r9 };
	return a[n];
}

/* What is done with a place in the volume. */
static long at_place(struct thread *t, u64 nr, struct loc *l)
{
	u64 a = t->f.rdi, b = t->f.rsi, c = t->f.rdx, d = t->f.r10;
	u64 times[4];
	struct inode *ip;
	long r = 0, n;
	switch (nr) {
	case NR_open: return do_open(t, l, b, c);
	case NR_creat: return do_open(t, l, O_WRONLY | O_CREAT | O_TRUNC, b);
	case NR_openat: return do_open(t, l, c, d);
	case NR_openat2:
		if (ucopy(times, (void *)c, 24)) return -EFAULT;
		return do_open(t, l, times[0], times[1]);
	case NR_mkdir: case NR_mkdirat:
		r = new_inode(t, l, T_DIR, (nr == NR_mkdir ? b : c) & ~t->proc->umask & 01777, &ip);
		if (!r) inode_put(ip);
		return r;
	case NR_mknod: case NR_mknodat:
		n = nr == NR_mknod ? b : c;
		if ((n & S_IFMT) && (n & S_IFMT) != S_IFREG) return -EPERM;
		r = l->slash ? -ENOENT : new_inode(t, l, T_REG, n & ~t->proc->umask, &ip);
		if (!r) inode_put(ip);
		return r;
	case NR_rmdir: return do_unlink(l, 1);
	case NR_unlink: return l->slash ? -ENOTDIR : do_unlink(l, 0);
	case NR_unlinkat: return do_unlink(l, !!(c & AT_REMOVEDIR));
	case NR_symlink: return do_symlink(t, (char *)a, l);
	case NR_symlinkat: return do_symlink(t, (char *)a, l);
	case NR_inotify_add_watch: return -ENOSPC;
	case NR_name_to_handle_at: return -EOPNOTSUPP;
	case NR_chroot: return -EPERM;
	}
	if (!l->ino) return -ENOENT;
	if (!(ip = inode_get(l->ino, &r))) return r;
	int write = nr == NR_chmod || nr == NR_fchmodat || nr == NR_fchmodat2 || nr == NR_chown || nr == NR_lchown || nr == NR_fchownat ||
		nr == NR_truncate || nr == NR_utime || nr == NR_utimes || nr == NR_futimesat || nr == NR_utimensat;
	if (write && V->readonly) {
		inode_put(ip);
		return -EROFS;
	}
	switch (nr) {
	case NR_stat: case NR_lstat: r = put_stat(ip, (void *)b); break;
	case NR_newfstatat: r = put_stat(ip, (void *)c); break;
	case NR_statx: r = put_statx(ip, (void *)t->f.r8); break;
	case NR_access: r = (b & 7) && !may(ip, b & 7) ? -EACCES : b & 2 && V->readonly ? -EROFS : 0; break;
	case NR_faccessat: case NR_faccessat2: r = (c & 7) && !may(ip, c & 7) ? -EACCES : c & 2 && V->readonly ? -EROFS : 0; break;
	case NR_readlink: case NR_readlinkat: {
		char target[4096];
		u64 to = nr == NR_readlink ? b : c, size = nr == NR_readlink ? c : d;
		if (ip->r.type != T_LINK || !(int)size)
			r = -EINVAL;
		else if ((r = file_read(ip, 0, target, MIN(size, sizeof target))) > 0 && ucopy((void *)to, target, r))
			r = -EFAULT;
		break;
	}
	case NR_chmod: r = set_mode(ip, b); break;
	case NR_fchmodat: case NR_fchmodat2: r = set_mode(ip, c); break;
	case NR_chown: case NR_lchown: r = set_owner(ip, b, c); break;
	case NR_fchownat: r = set_owner(ip, c, d); break;
	case NR_truncate: r = may(ip, 2) ? truncate_to(ip, b) : -EACCES; break;
	case NR_utimensat:
		r = c && ucopy(times, (void *)c, 32) ? -EFAULT : set_times(ip, c ? times : 0);
		break;
	case NR_utimes: case NR_futimesat: {
		u64 p = nr == NR_utimes ? b : c;
		if (p && ucopy(times, (void *)p, 32)) {
			r = -EFAULT;
			break;
		}
		times[3] *= 1000;
		r = set_times(ip, p ? times : 0);
		break;
	}
	case NR_utime:
		if (b && ucopy(times, (void *)b, 16)) {
			r = -EFAULT;
			break;
		}
		times[2] = times[1];
		times[3] = 0;
		r = set_times(ip, b ? times : 0);
		break;
	case NR_statfs: r = put_statfs((void *)b); break;
	case NR_chdir:
		if (ip->r.type != T_DIR || !may(ip, 1)) {
			r = ip->r.type != T_DIR ? -ENOTDIR : -EACCES;
			break;
		}
		t->proc->cwd = ip->ino;
		put_str(t->proc->cwd_path, l->path);
		break;
	case NR_listxattr: case NR_llistxattr: r = 0; break;
	default: r = -EOPNOTSUPP;
	}
	inode_put(ip);
	return r;
}

/* A path like /proc/self/fd/5 or /dev/fd/5 of an open file of the volume. */
static long fd_link(struct thread *t, const char *p, u32 *n)
{
	const char *d = 0;
	if (!has_prefix(p, "/proc/") && !has_prefix(p, "/dev/")) return 0;
	static const char *const prefix[] = { "/proc/self/fd/", "/dev/fd/", "/proc/thread-self/fd/" };
	for (int i = 0; i < 3; i++)
		if (has_prefix(p, prefix[i])) d = p + strlen(prefix[i]);
	if (streq(p, "/dev/stdin")) d = "0";
	if (streq(p, "/dev/stdout")) d = "1";
	if (streq(p, "/dev/stderr")) d = "2";
	if (!d || *d < '0' || *d > '9') return 0;
	*n = get_num(&d);
	return !*d && ofd_of(t, *n);
}

static int path_call(struct thread *t, u64 nr, long *r)
{
	struct loc l;
	const struct call *k = nr < NR_MAX ? call_of[nr] : 0;
	if (!k) return 0;
	int dirfd = k->dir ? (int)*arg(t, k->dir) : AT_FDCWD;
	char given[4096], *path = given;
	const char *upath = (char *)*arg(t, k->path);
	int follow = k->follow;
	long n = get_path(upath, path);
	if (n < 0 && upath) return *r = n, 1;
	if (n < 0) *path = 0;
	u64 flags = nr == NR_openat || nr == NR_unlinkat ? t->f.rdx : nr == NR_open ? t->f.rsi : 0, at = 0;
	if (nr == NR_openat2 && ucopy(&flags, (void *)t->f.rdx, 8)) return *r = -EFAULT, 1;
	if (nr == NR_open || nr == NR_openat || nr == NR_openat2) {
		if (flags & O_NOFOLLOW || (flags & O_CREAT && flags & O_EXCL)) follow = 0;
		u32 fd;
		if (fd_link(t, path, &fd)) {
			long err = 0;
			vol_enter();
			struct ofd *o = ofd_of(t, fd);
			if (o && o->ino == NONE) { /* the console: another descriptor of the same */
				*r = check_fd(t, H(NR_fcntl, fd, flags & O_CLOEXEC ? 1030 : 0, 0));
				if (*r >= 0 && *r < 65536) t->fdtab[*r] = o - OFDS, o->refs++;
				vol_leave();
				return 1;
			}
			struct inode *ip = o ? inode_of(o, &err) : 0;
			int acc = flags & O_ACCMODE;
			*r = !ip ? err : !may(ip, acc == 0 ? 4 : acc == O_WRONLY ? 2 : 6) ? -EACCES : fd_new(t, ip, flags);
			inode_put(ip);
			vol_leave();
			return 1;
		}
	}
	switch (nr) {
	case NR_newfstatat: case NR_faccessat2: case NR_utimensat: case NR_fchmodat2: at = t->f.r10; break;
	case NR_statx: at = t->f.rdx; break;
	case NR_fchownat: at = t->f.r8; break;
	}
	if (at & AT_SYMLINK_NOFOLLOW) follow = 0;
	int exe = is_exe_link(path);
	if (exe && (nr == NR_readlink || nr == NR_readlinkat)) return 0;
	if (exe && follow) path = exe_path;
	if (!*path && k->dir && (at & AT_EMPTY_PATH || (!upath && (nr == NR_utimensat || nr == NR_futimesat || nr == NR_statx)) || nr == NR_readlinkat)) {
		vol_enter();
		struct ofd *o = dirfd == AT_FDCWD ? 0 : ofd_of(t, dirfd);
		if (o || (dirfd == AT_FDCWD && t->proc->cwd)) {
			l.ino = o ? o->ino : t->proc->cwd;
			l.dir = l.slash = 0;
			*r = at_place(t, nr, &l);
			vol_leave();
			return 1;
		}
		vol_leave();
		return 0;
	}
	vol_enter();
	*r = upath ? locate(t, dirfd, path, follow, &l) : -EFAULT;
	if (*r == VOLUME) {
		*r = at_place(t, nr, &l);
		vol_leave();
		return 1;
	}
	vol_leave();
	if (*r == HOST) {
		*r = 0;
		pass(t);
		if (l.changed) {
			put_str(t->path[0], l.path);
			t->k[k->path] = (u64)t->path[0];
		} else if (path == exe_path) {
			t->k[k->path] = (u64)exe_path;
		}
		if (nr == NR_chdir) { /* the place on the host counts again once we are there */
			t->act = ACT_RETURN;
			*r = H(nr, t->k[1]);
			if (!*r)
				t->proc->cwd = 0;
		} else if (nr == NR_open || nr == NR_creat || nr == NR_openat || nr == NR_openat2) {
			t->act = ACT_RETURN;
			*r = check_fd(t, host_wait(nr, t->k[1], t->k[2], t->k[3], t->k[4], 0ul, 0ul));
			if (*r == -EINTR && t->pend) t->act = ACT_AGAIN;
		}
	}
	return 1;
}

/* Calls with two paths. */
static int pair_call(struct thread *t, u64 nr, long *r)
{
	struct loc l[2];
	char path[2][4096];
	int at = nr == NR_renameat || nr == NR_renameat2 || nr == NR_linkat;
	u64 flags = nr == NR_renameat2 || nr == NR_linkat ? t->f.r8 : 0;
	int link = nr == NR_link || nr == NR_linkat, p0 = at ? 2 : 1, p1 = at ? 4 : 2;
	int d0 = at ? (int)t->f.rdi : AT_FDCWD, d1 = at ? (int)t->f.rdx : AT_FDCWD;
	long a = get_path((char *)*arg(t, p0), path[0]), b = get_path((char *)*arg(t, p1), path[1]);
	vol_enter();
	if (a >= 0) a = locate(t, d0, path[0], link && flags & AT_SYMLINK_FOLLOW ? FOLLOW : 0, &l[0]);
	if (b >= 0) b = a < 0 ? a : locate(t, d1, path[1], 0, &l[1]);
	if (a < 0 || b < 0)
		*r = a < 0 ? a : b;
	else if (a != b)
		*r = -EXDEV;
	else if (a == VOLUME)
		*r = link ? do_link(&l[0], &l[1]) : do_rename(&l[0], &l[1], flags);
	vol_leave();
	if (a == HOST && b == HOST) {
		*r = 0;
		pass(t);
		for (int i = 0; i < 2; i++)
			if (l[i].changed) {
				put_str(t->path[i], l[i].path);
				t->k[i ? p1 : p0] = (u64)t->path[i];
			}
	}
	return 1;
}

static long sys_fcntl(struct thread *t, u64 fd, u64 cmd, u64 a)
{
	struct ofd *o = ofd_of(t, fd);
	long r;
	if (kept_fd(fd)) return -EBADF;
	if (cmd == 0 || cmd == 1030) { /* F_DUPFD, with or without close-on-exec */
		r = check_fd(t, H(NR_fcntl, fd, cmd, a));
		if (o && r >= 0) {
			if (r > 65535) {
				H(NR_close, r);
				return -EMFILE;
			}
			o->refs++;
			t->fdtab[r] = o - OFDS;
		}
		return r;
	}
	if (o && cmd == 3) return o->flags | 0100000; /* O_LARGEFILE, as the kernel shows it */
	if (o && cmd == 4) {
		u64 can = O_APPEND | O_NONBLOCK | O_DIRECT;
		o->flags = (o->flags & ~can) | (a & can);
		return 0;
	}
	return pass(t);
}

/* Descriptors may leave in messages; those of the volume mean nothing elsewhere. */
static int carries_file(struct thread *t, u64 umsg)
{
	u64 m[7], at = 0;
	if (ucopy(m, (void *)umsg, sizeof m) || !m[4] || m[5] < 20 || m[5] > 65536) return 0;
	while (at + 16 <= m[5]) {
		struct { u64 len; u32 level, type; } c;
		if (ucopy(&c, (void *)(m[4] + at), 16) || c.len < 16 || c.len > m[5] - at) return 0;
		for (u64 i = 16; c.level == 1 && c.type == 1 && i + 4 <= c.len; i += 4) {
			int fd;
			if (!ucopy(&fd, (void *)(m[4] + at + i), 4) && (ofd_of(t, fd) || kept_fd(fd))) return 1;
		}
		at += ALIGN_UP(c.len, 8);
	}
	return 0;
}

/* file_syscall answers 0 when the call is not about the volume. */
int file_syscall(struct thread *t, u64 nr, long *r)
{
	u64 a = t->f.rdi, b = t->f.rsi, c = t->f.rdx, d = t->f.r10;
	struct ofd *o;
	switch (nr) {
	case NR_rename: case NR_renameat: case NR_renameat2: case NR_link: case NR_linkat:
		return pair_call(t, nr, r);
	case NR_fcntl:
		vol_enter();
		*r = sys_fcntl(t, a, b, c);
		vol_leave();
		return 1;
	case NR_dup: case NR_dup2: case NR_dup3:
		if (kept_fd(a) || (nr != NR_dup && kept_fd(b))) return *r = -EBADF, 1;
		vol_enter();
		o = ofd_of(t, a);
		*r = H(nr, a, b, c);
		if (*r >= 0 && nr == NR_dup) check_fd(t, *r);
		if (*r >= 0 && *r < 65536 && (o || t->fdtab[*r]) && (u32)*r != (u32)a) {
			if (o) o->refs++;
			fd_set(t, *r, o ? o - OFDS : 0);
		} else if (*r >= 65536 && o) {
			H(NR_close, *r);
			*r = -EMFILE;
		}
		vol_leave();
		return 1;
	case NR_close_range:
		vol_enter();
		for (u64 fd = (u32)a; fd <= MIN((u32)b, 65535) && !(c & 4); fd++)
			if (t->fdtab[fd] && !kept_fd(fd)) fd_set(t, fd, 0);
		vol_leave();
		return 0;
	case NR_sendfile:
		if (!ofd_of(t, b) && !ofd_of(t, a)) return 0;
		*r = ofd_of(t, a) ? -EINVAL : sys_sendfile(t, a, b, (u64 *)c, d);
		return 1;
	case NR_splice: case NR_copy_file_range:
		if (!ofd_of(t, a) && !ofd_of(t, c)) return 0;
		return *r = -EINVAL, 1;
	case NR_sendmsg:
		if (!carries_file(t, b)) return 0;
		return *r = -EPERM, 1;
	case 105: case 113: case 117: case 122:
		known_euid = -1;
		return 0;
	case NR_umask:
		*r = t->proc->umask;
		t->proc->umask = a & 0777;
		H(nr, a);
		return 1;
	case NR_getcwd: {
		char p[5200];
		if (!t->proc->cwd) return 0;
		u64 n = put_str(put_str(p, CFG->mount), t->proc->cwd_path) - p;
		if (!n) n = put_str(p, "/") - p;
		*r = n + 1 > b ? -ERANGE : ucopy((void *)a, p, n + 1) ? -EFAULT : (long)n + 1;
		return 1;
	}
	case NR_fchdir:
		vol_enter();
		if ((o = ofd_of(t, a))) {
			struct loc l;
			*r = locate(t, a, ".", FOLLOW, &l);
			if (*r == VOLUME) {
				u64 rax = NR_chdir;
				*r = at_place(t, rax, &l);
			}
		} else {
			*r = H(nr, a);
			if (!*r) t->proc->cwd = 0;
		}
		vol_leave();
		return 1;
	case NR_sync: case NR_msync:
		vol_enter();
		*r = V->broken ? -EIO : nr == NR_sync || V->nwmaps ? vol_commit() : 0;
		vol_leave();
		return *r && nr == NR_msync;
	}
	o = ofd_of(t, a);
	if (o && o->ino == NONE && nr != NR_close) {
		long done = 0;
		if (nr == NR_write) return *r = console_write(t, a, o - OFDS, (u8 *)b, c), 1;
		if (nr != NR_writev) return 0;
		for (u64 i = 0; i < MIN(c, 1024); i++) {
			struct iovec v;
			*r = ucopy(&v, (struct iovec *)b + i, sizeof v) ? -EFAULT : console_write(t, a, o - OFDS, v.base, v.len);
			if (*r < 0) return *r = done ? done : *r, 1;
			done += *r;
		}
		return *r = done, 1;
	}
	if (o && nr < NR_MAX && (sys_class[nr] == C_FD || sys_class[nr] == C_FDLEN || nr == NR_close)) {
		vol_enter();
		*r = (o = ofd_of(t, a)) ? fd_call(t, nr, a, o) : -EBADF;
		vol_leave();
		return 1;
	}
	return path_call(t, nr, r);
}
