/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The sealed volume (docs/sealfs.md) in memory. All of it lies in memory that the
 * processes of a run share, at the same address in each, and is used under one lock.
 */
#ifndef VOL_H
#define VOL_H

#include "seal.h"

struct cell {
	u32 block;
	u8 salt[12];
	u8 tag[16];
};

enum { T_FREE, T_REG, T_DIR, T_LINK, T_FIFO, T_SOCK, T_CHR, T_BLK, T_INTERNAL };
enum { R_DENIED, R_PASS, R_AUTH, R_CRYPT, R_EPHEMERAL };

/* An inode record, as it lies on disk. */
struct rec {
	u8 type, cls, depth, zero;
	u32 mode, uid, gid, nlink, parent;
	u64 size;
	i64 mtime, ctime;
	u64 gen;
	u32 rdev, aux;
	u8 id[16];
	struct cell cell;
	u8 pad[16];
};
_Static_assert(sizeof(struct rec) == 128, "inode record");

enum { LEVELS = 6, NPER = 128, INO_ROOT = 1, INO_REGIONS = 2, MAX_BLOCKS = 1 << 27 };
#define MAX_SIZE (1ull << 44)

struct inode {
	struct sealkey key;
	struct rec r;
	u32 ino;
	u32 next;               /* in its hash chain */
	u32 opens;              /* open files, mappings, working directories */
	u32 held;               /* in use by the operation that runs */
	u8 used, dirty;         /* dirty: the record has to be written */
	u32 prev_dirty, next_dirty;
	u32 ndirty;             /* blocks not written yet, below */
	u32 head[LEVELS];
	char pad[24];
};

/* One cached block, opened: a chunk (level 0) or a node. Its page is at PAGE_OF. */
struct entry {
	u64 index;
	u64 hash;               /* of a page that the program maps for writing, when it was last written */
	u32 ino;                /* 0xffffffff: unused; 0: the inode table */
	u8 level, dirty, warm, checked;
	u32 pins, maps, wmaps;
	u32 next;               /* in its hash chain */
	u32 prev_dirty, next_dirty;
};

struct region { u8 cls; u8 zero; u16 len; };

/* An open file, shared by all descriptors made from it. */
struct ofd {
	u32 refs, ino, flags, pad;
	u64 off;
	u64 cookie;             /* of a directory: what was read last */
	u8 last[256];
};

enum { NINODE = 1 << 16, NOFD = 1 << 15, NIHASH = 1 << 16, NEHASH = 1 << 18, NONE = 0xffffffff };

struct vol {
	struct lock lock;
	u32 owner;              /* process that holds it */
	u32 broken;             /* a holder died, or memory and disk are at odds: refuse everything */
	u32 readonly, complained;
	u8 volume_id[16];
	u8 prk[32];
	struct sealkey root_key;
	u64 gen, next_gen;
	u32 blocks;             /* of the state being built */
	u32 limit;              /* blocks that the newest state on disk has */
	u32 cursor, ifree;
	u8 slot[256];           /* the committed root slot */
	struct inode itab;      /* the inode table as a file */
	u32 dirty_inodes;       /* list, ends with NONE */
	u32 nentries, hand, ndirty, changed, unsure;
	u32 ihand, nwmaps;
	u32 nregions, regions_len;
	u8 freshness;
	u32 interval;
	u32 random_left;
	u8 random[4096];
	u8 regions[65536 * 4 + 16];
	struct {
		struct lock lock;
		struct sealkey key;
		u8 run[16];
		u64 seq[2];
	} console;
	u32 ihash[NIHASH];
	u32 wstart, wcount;     /* blocks waiting to be written, side by side */
	u8 wbuf[64 * 4096] __attribute__((aligned(4096)));
	u8 rbuf[4096] __attribute__((aligned(4096)));
};

#ifndef SHARED
#define SHARED SHARED_BASE
#endif
#define V ((struct vol *)(SHARED + 0x10000))
#define OFDS ((struct ofd *)(SHARED + 0x200000))
#define INODES ((struct inode *)(SHARED + 0x2000000))
#define EHASH ((u32 *)(SHARED + 0x5000000))
#define ENTRIES ((struct entry *)(SHARED + 0x6000000))
#define BITMAP(n) ((u64 *)(SHARED + 0xa000000 + (n) * 0x1000000ul))
#define DATA_OFF 0x10000000ul
#define PAGE_OF(e) ((u8 *)(SHARED + DATA_OFF) + ((e) - ENTRIES) * 4096ul)
enum { B_USED, B_FRESH, B_DEAD, B_INODES };

/* vol.c: results are 0 or more, or -errno */
long vol_open(const u8 *key, u64 min_generation, int readonly);
long vol_commit(void);
void vol_found_mapped(void);
void vol_complain(const char *what, u64 n);
struct inode *inode_get(u32 ino, long *err);
void inode_put(struct inode *ip);
void inode_dirty(struct inode *ip);
struct inode *inode_new(int type, int cls, u32 mode, u32 uid, u32 gid, long *err);
long inode_free(struct inode *ip);
struct entry *block_get(struct inode *ip, int level, u64 index, int fresh, long *err);
long block_dirty(struct inode *ip, struct entry *e);
struct entry *block_cached(struct inode *ip, int level, u64 index);
long vol_balance(void);
long file_truncate(struct inode *ip, u64 size);
long file_read(struct inode *ip, u64 off, void *buf, u64 n);
long file_write(struct inode *ip, u64 off, const void *buf, u64 n);
long drop_facts(struct inode *ip);
i64 now(void);
u64 page_hash(const u8 *p);

/* console.c */
void console_start(struct thread *t);
long console_write(struct thread *t, u64 fd, int stream, const u8 *p, u64 n);
void console_end(struct thread *t);

/* dir.c */
long dir_find(struct inode *dir, const char *name, u32 len, u8 *type);
long dir_insert(struct inode *dir, const char *name, u32 len, u32 ino, int type);
long dir_remove(struct inode *dir, const char *name, u32 len);
long dir_replace(struct inode *dir, const char *name, u32 len, u32 ino, int type);
long dir_next(struct inode *dir, const u8 *after, u32 afterlen, u8 *name, u32 *len, u8 *type);

#endif
