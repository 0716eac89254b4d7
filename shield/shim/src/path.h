/* SPDX-License-Identifier: Apache-2.0 */
/* Where a path leads. */
#ifndef PATH_H
#define PATH_H

#include "vol.h"

enum { HOST = 1, VOLUME = 2 };
enum { FOLLOW = 1, PARENT = 2 };

struct loc {
	u32 dir;                /* directory that holds the last name; 0 for the volume's root */
	u32 ino;                /* what the name leads to, 0 if nothing */
	u32 len;
	u8 type, slash, changed;/* changed: the host's path is not what the program gave */
	char name[256];
	char path[4096];        /* VOLUME: from the volume's root; HOST: the path to use */
};

long locate(struct thread *t, int dirfd, const char *path, int how, struct loc *l);
int region_of(const char *path, u64 len);
u32 euid(void);
extern i64 known_euid;   /* -1: ask */
int may(struct inode *ip, int mask);
long get_path(const char *upath, char *out);
void vol_enter(void);
extern u32 forked_pid;   /* set in a new process */
void vol_leave(void);
struct ofd *ofd_of(struct thread *t, u64 fd);

#endif
