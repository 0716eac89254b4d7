// SPDX-License-Identifier: Apache-2.0
// What the hosts that lie have in common: the parts of the shim that the file shield
// needs and that are not linked here, the disk, and the program's side.
#ifndef EVILHOST_H
#define EVILHOST_H
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "../src/path.h"

// sys/mman.h has the same names as shim.h
void *mmap(void *, size_t, int, int, int, long);
int munmap(void *, size_t);
#define MAP_FAILED ((void *)-1)

// ---- a C library's way to what entry.S and the other parts give

long ucopy(void *d, const void *s, u64 n) { memcpy(d, s, n); return 0; }
long ustr(char *d, const char *s, u64 max) { u64 n = strnlen(s, max); memcpy(d, s, MIN(n + 1, max)); return n; }
u64 vec_call(u64 (*f)(void *), void *a) { return f(a); }
u32 fd_base = 1008;
char exe_path[4096] = "/bin/true";
struct thread main_thread;
long (*vdso_gettime)(u64, u64 *);
char hook_entry[1], restorer[1];
static u64 shared_size;
int trusted_range(u64 a, u64 n) { return a < SHARED_BASE + shared_size && a + n > SHARED_BASE; }
void patch_mapping(int fd, u64 a, u64 n, u64 o) { (void)fd; (void)a; (void)n; (void)o; }
long sys_clone(struct thread *t, u64 nr) { (void)t; (void)nr; return -ENOSYS; }
long sys_execve(struct thread *t, int d, const char *p, char **a, char **e, u64 f) { (void)t; (void)d; (void)p; (void)a; (void)e; (void)f; return -ENOSYS; }
long sys_rt_sigaction(struct thread *t, u64 s, const struct ksigaction *n, struct ksigaction *o, u64 z) { (void)t; (void)s; (void)n; (void)o; (void)z; return 0; }
long pass_with_mask(struct thread *t, u64 *m, u64 n) { (void)t; (void)m; (void)n; return 0; }
void thread_exit(u32 *p, u64 c) { (void)p; (void)c; abort(); }
long shim_syscall(struct thread *t);

// ---- the disk and the end of a run

static u8 *disk, *clean;                 // the volume's file now; as it was given
static u64 disk_len, clean_len;
enum { DISK_MAX = 64 << 20, OLD = 4096 };
static jmp_buf died;

// ---- the program

static u8 key[32];

static void boot(u64 min_generation)
{
	// a fresh image and a fresh memory of it
	munmap((void *)SHARED_BASE, shared_size);
	if (mmap((void *)SHARED_BASE, shared_size, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
		abort();
	CFG->magic = CONFIG_MAGIC;
	CFG->flags = CFG_FILES;
	CFG->fd_base = fd_base;
	CFG->shared_size = shared_size;
	CFG->min_generation = min_generation;
	CFG->cache_chunks = 96;
	memcpy(CFG->key, key, 32);
	strcpy(CFG->mount, "/v");
	struct thread *t = &main_thread;
	memset(t->fdtab, 0, FDTAB_SIZE);
	t->self = t;
	t->proc = &t->own;
	t->proc->cwd = 0;
	files_start(t, "");
}

static long call(u64 nr, u64 a, u64 b, u64 c, u64 d)
{
	struct thread *t = &main_thread;
	t->f.rax = nr, t->f.rdi = a, t->f.rsi = b, t->f.rdx = c, t->f.r10 = d, t->f.r8 = t->f.r9 = 0;
	t->pend = 0;
	return shim_syscall(t);
}
#define CALL(nr, a, b, c, d) call(nr, (u64)(a), (u64)(b), (u64)(c), (u64)(d))


// Once, before the first boot.
static void prepare(void)
{
	disk = malloc(DISK_MAX);
	shared_size = DATA_OFF + 96 * 4096;
	if (mmap((void *)SHARED_BASE, shared_size, 3, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0) == MAP_FAILED)
		abort();
	main_thread.fdtab = calloc(1, FDTAB_SIZE);
	// self() finds the thread through %gs, as in the shim
	__asm__ volatile("syscall" : : "a"(158L), "D"(0x1001L), "S"(&main_thread) : "rcx", "r11", "memory");
}

#endif
