/* SPDX-License-Identifier: Apache-2.0 */
/* Types and functions that the parts of the shim share. */
#ifndef SHIM_H
#define SHIM_H

#include <stddef.h>
#include <stdint.h>
#include "layout.h"

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t i64;

#define PAGE 4096ul
#define ALIGN_UP(x, a) (((x) + (a) - 1) & ~((u64)(a) - 1))
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define IS_ERR(r) ((u64)(r) > (u64)-4096)

enum { EPERM = 1, ENOENT = 2, EINTR = 4, EIO = 5, E2BIG = 7, ENOEXEC = 8, EBADF = 9, EAGAIN = 11, ENOMEM = 12,
	EACCES = 13, EFAULT = 14, EBUSY = 16, EEXIST = 17, EXDEV = 18, ENODEV = 19, ENOTDIR = 20, EISDIR = 21, EINVAL = 22,
	ENFILE = 23, EMFILE = 24, ENOTTY = 25, EFBIG = 27, ENOSPC = 28, ESPIPE = 29, EROFS = 30, EMLINK = 31, ERANGE = 34,
	ENAMETOOLONG = 36, ENOSYS = 38, ENOTEMPTY = 39, ELOOP = 40, ENODATA = 61, EOVERFLOW = 75, EOPNOTSUPP = 95,
	ESTALE = 116 };

enum { NR_read = 0, NR_write = 1, NR_open = 2, NR_close = 3, NR_stat = 4, NR_fstat = 5, NR_lstat = 6, NR_poll = 7,
	NR_lseek = 8, NR_mmap = 9, NR_mprotect = 10, NR_munmap = 11, NR_brk = 12, NR_rt_sigaction = 13,
	NR_rt_sigprocmask = 14, NR_rt_sigreturn = 15, NR_ioctl = 16, NR_pread64 = 17, NR_pwrite64 = 18, NR_readv = 19,
	NR_writev = 20, NR_access = 21, NR_sched_yield = 24, NR_mremap = 25, NR_msync = 26, NR_madvise = 28, NR_shmat = 30,
	NR_dup = 32, NR_dup2 = 33, NR_getpid = 39, NR_sendfile = 40, NR_sendto = 44, NR_recvfrom = 45, NR_sendmsg = 46,
	NR_recvmsg = 47, NR_socketpair = 53, NR_clone = 56, NR_fork = 57, NR_vfork = 58, NR_execve = 59, NR_exit = 60,
	NR_kill = 62, NR_fcntl = 72, NR_flock = 73, NR_fsync = 74, NR_fdatasync = 75, NR_truncate = 76, NR_ftruncate = 77,
	NR_getdents = 78, NR_getcwd = 79, NR_chdir = 80, NR_fchdir = 81, NR_rename = 82, NR_mkdir = 83, NR_rmdir = 84,
	NR_creat = 85, NR_link = 86, NR_unlink = 87, NR_symlink = 88, NR_readlink = 89, NR_chmod = 90, NR_fchmod = 91,
	NR_chown = 92, NR_fchown = 93, NR_lchown = 94, NR_umask = 95, NR_gettimeofday = 96, NR_ptrace = 101, NR_getuid = 102,
	NR_geteuid = 107, NR_getegid = 108, NR_rt_sigsuspend = 130, NR_utime = 132, NR_mknod = 133, NR_statfs = 137,
	NR_fstatfs = 138, NR_modify_ldt = 154, NR_prctl = 157, NR_arch_prctl = 158, NR_chroot = 161, NR_sync = 162,
	NR_gettid = 186, NR_readahead = 187, NR_setxattr = 188, NR_lsetxattr = 189, NR_fsetxattr = 190, NR_getxattr = 191,
	NR_lgetxattr = 192, NR_fgetxattr = 193, NR_listxattr = 194, NR_llistxattr = 195, NR_flistxattr = 196,
	NR_removexattr = 197, NR_lremovexattr = 198, NR_fremovexattr = 199, NR_time = 201, NR_futex = 202,
	NR_getdents64 = 217, NR_fadvise64 = 221, NR_clock_gettime = 228, NR_exit_group = 231, NR_tgkill = 234,
	NR_utimes = 235, NR_inotify_add_watch = 254, NR_openat = 257, NR_mkdirat = 258, NR_mknodat = 259, NR_fchownat = 260,
	NR_futimesat = 261, NR_newfstatat = 262, NR_unlinkat = 263, NR_renameat = 264, NR_linkat = 265, NR_symlinkat = 266,
	NR_readlinkat = 267, NR_fchmodat = 268, NR_faccessat = 269, NR_pselect6 = 270, NR_ppoll = 271, NR_splice = 275,
	NR_tee = 276, NR_sync_file_range = 277, NR_vmsplice = 278, NR_utimensat = 280, NR_epoll_pwait = 281,
	NR_fallocate = 285, NR_dup3 = 292, NR_preadv = 295, NR_pwritev = 296, NR_rt_tgsigqueueinfo = 297,
	NR_perf_event_open = 298, NR_name_to_handle_at = 303, NR_open_by_handle_at = 304, NR_syncfs = 306,
	NR_process_vm_readv = 310, NR_process_vm_writev = 311, NR_renameat2 = 316, NR_seccomp = 317, NR_getrandom = 318,
	NR_memfd_create = 319, NR_bpf = 321, NR_execveat = 322, NR_userfaultfd = 323, NR_copy_file_range = 326,
	NR_preadv2 = 327, NR_pwritev2 = 328, NR_statx = 332, NR_pidfd_send_signal = 424, NR_io_uring_setup = 425,
	NR_io_uring_enter = 426, NR_io_uring_register = 427, NR_clone3 = 435, NR_close_range = 436, NR_openat2 = 437,
	NR_pidfd_getfd = 438, NR_faccessat2 = 439, NR_process_madvise = 440, NR_epoll_pwait2 = 441, NR_fchmodat2 = 452 };

enum { PROT_READ = 1, PROT_WRITE = 2, PROT_EXEC = 4, MAP_SHARED = 1, MAP_PRIVATE = 2, MAP_SHARED_VALIDATE = 3,
	MAP_TYPE = 15, MAP_FIXED = 0x10, MAP_ANONYMOUS = 0x20, MAP_NORESERVE = 0x4000, MAP_FIXED_NOREPLACE = 0x100000 };

enum { O_WRONLY = 1, O_RDWR = 2, O_ACCMODE = 3, O_CREAT = 0100, O_EXCL = 0200, O_NOCTTY = 0400, O_TRUNC = 01000,
	O_APPEND = 02000, O_NONBLOCK = 04000, O_DSYNC = 010000, O_DIRECT = 040000, O_DIRECTORY = 0200000,
	O_NOFOLLOW = 0400000, O_CLOEXEC = 02000000, O_SYNC = 04010000, O_PATH = 010000000, O_TMPFILE = 020200000 };

#define AT_FDCWD (-100)
enum { AT_SYMLINK_NOFOLLOW = 0x100, AT_REMOVEDIR = 0x200, AT_SYMLINK_FOLLOW = 0x400, AT_EMPTY_PATH = 0x1000 };
enum { S_IFMT = 0170000, S_IFIFO = 0010000, S_IFCHR = 0020000, S_IFDIR = 0040000, S_IFBLK = 0060000, S_IFREG = 0100000,
	S_IFLNK = 0120000, S_IFSOCK = 0140000 };
enum { CLONE_VM = 0x100, CLONE_FILES = 0x400, CLONE_SIGHAND = 0x800, CLONE_VFORK = 0x4000, CLONE_THREAD = 0x10000 };

#define SIGBUS 7
#define SIGSEGV 11
#define SIGSYS 31
#define SIGBIT(s) (1ul << ((s) - 1))

/* What the launcher tells the shim, at the start of the shared memory. */
#define CONFIG_MAGIC 0x314d494853535041ul
enum { CFG_STATS = 1, CFG_SUD = 2, CFG_NO_SITES = 4, CFG_READONLY = 8, CFG_CONSOLE = 16, CFG_FILES = 32, CFG_FINISH = 64 };
struct config {
	u64 magic;
	u32 flags;
	u32 fd_base;
	u64 shared_size;
	u64 min_generation;
	u8 key[32];
	u8 console_key[32];
	u32 mount_len;
	u32 filtered;           /* the seccomp filter is in place (set by the first shim) */
	char mount[1024];
	char ephemeral[64];     /* folder in memory for ephemeral regions */
	u32 cache_chunks;
	u32 ready;              /* the file shield's state is set up */
	u64 generation;         /* of the volume's newest state on disk */
	u64 clock[16];          /* latest time seen, for each clock */
	u64 stat_sigsys, stat_slow, stat_sites, stat_left, stat_sealed_in, stat_sealed_out;
};
#define CFG ((struct config *)SHARED_BASE)

/* Descriptors kept for the shim, counted from CFG->fd_base. */
enum { FD_SHIM, FD_SHARED, FD_SITES, FD_PROG, FD_VOLUME, FD_LOCKS, FD_KEPT = 16 };

struct ksigaction {
	u64 handler, flags, restorer, mask;
};
enum { SA_NOCLDSTOP = 1, SA_NOCLDWAIT = 2, SA_SIGINFO = 4, SA_RESTORER = 0x04000000, SA_ONSTACK = 0x08000000,
	SA_RESTART = 0x10000000, SA_NODEFER = 0x40000000 };
#define SA_RESETHAND 0x80000000ul

struct siginfo {
	int signo, err, code, pad;
	u64 rest[14];
};
struct ucontext {
	u64 flags, link, stack[3];
	u64 r8, r9, r10, r11, r12, r13, r14, r15, rdi, rsi, rbp, rbx, rdx, rax, rcx, rsp, rip, efl, sel, err, trapno,
		oldmask, cr2;
	u64 fpstate, reserved[8];
	u64 sigmask;
};

/* What threads of one process share, but a vfork child has for itself. */
struct process {
	struct ksigaction acts[65];
	u32 cwd;                /* directory of the volume that is the working directory, or 0 */
	u32 umask;
	char cwd_path[4096];    /* its path, from the volume's root */
};
enum { COPY_SIZE = 1 << 17 };
#define FDTAB_SIZE (65536 * 2ul)

struct thread {
	struct thread *self;
	u64 stack;
	u64 ret;
	u16 *fdtab;
	u64 pend;
	u64 act;
	u64 result;
	u64 mask;
	struct { u64 rdi, rsi, rdx, r10, r8, r9, rax, rsp, rbx, rbp, r12, r13, r14, r15; } f;
	u64 k[7];
	/* not known to assembly */
	u64 savedmask;
	struct siginfo info;
	u64 buf[4];             /* masks and structures for calls that are passed on */
	char path[2][4096];     /* paths for such calls */
	struct process *proc;
	u8 *copy;               /* COPY_SIZE bytes to copy through, when first needed */
	u32 inuse;
	u32 vforked;            /* shares the memory of a suspended parent, who frees the slot */
	struct process own;
};

/* entry.S */
long host(long nr, ...);
long host_wait(long nr, ...);
long clone_raw(long nr, u64 a, u64 b, u64 c, u64 d, u64 e, struct thread *t);
void thread_exit(u32 *inuse, u64 code) __attribute__((noreturn));
void enter_app(void) __attribute__((noreturn));
long ucopy(void *dst, const void *src, u64 n);
long ustr(char *dst, const char *src, u64 max);
extern char hook_entry[], restorer[];
extern u8 sys_class[NR_MAX];

#define H(nr, ...) H_(nr, __VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define H_(nr, a, b, c, d, e, f, ...) host(nr, (u64)(a), (u64)(b), (u64)(c), (u64)(d), (u64)(e), (u64)(f))

static inline struct thread *self(void)
{
	struct thread *t;
	__asm__ volatile("mov %%gs:0, %0" : "=r"(t));
	return t;
}

/* str.c */
void *memcpy(void *d, const void *s, size_t n);
void *memset(void *d, int c, size_t n);
void *memmove(void *d, const void *s, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
int streq(const char *a, const char *b);
int has_prefix(const char *s, const char *prefix);
char *put_str(char *d, const char *s);
char *put_num(char *d, u64 v);
u64 get_num(const char **s);
void say(const char *kind, const char *msg, const char *detail);
void die(const char *msg, const char *detail) __attribute__((noreturn));

struct lock {
	u32 v;
};
void lock(struct lock *l);
void unlock(struct lock *l);

/* main.c */
struct thread *thread_new(void);
void thread_start(struct thread *t);
void threads_forked(struct thread *t);
extern struct thread main_thread;
extern u32 fd_base;
extern char exe_path[4096];
static inline int kept_fd(u64 fd) { return (u32)fd - fd_base < FD_KEPT; }
int trusted_range(u64 addr, u64 len);

/* load.c */
int program_check(int fd, const char *path, int depth);
void program_load(int fd, const char *path, u64 *sp);

extern long (*vdso_gettime)(u64 clock, u64 *ts);
extern u64 vdso_base, vdso_end;

/* patch.c */
void patch_mapping(int fd, u64 addr, u64 len, u64 off);

/* sig.c */
void sig_init(struct thread *t);
long sys_rt_sigaction(struct thread *t, u64 sig, const struct ksigaction *n, struct ksigaction *o, u64 size);
long pass_with_mask(struct thread *t, u64 *maskarg, u64 size);

/* proc.c */
long sys_clone(struct thread *t, u64 nr);
long sys_execve(struct thread *t, int dirfd, const char *path, char **argv, char **envp, u64 flags);
void arm(void);

/* sys.c */
long pass(struct thread *t);
long shim_mmap(struct thread *t, u64 addr, u64 len, u64 prot, u64 flags, int fd, u64 off);
long shim_pread(int fd, void *buf, u64 len, u64 off);
int shim_open_exec(const char *path);
int is_exe_link(const char *upath);
void *scratch(u64 size);
long check_fd(struct thread *t, long r);

/* file.c: the file shield */
void files_start(struct thread *t, const char *handed);
void files_finish(void) __attribute__((noreturn));
int file_syscall(struct thread *t, u64 nr, long *r);
long file_mmap(struct thread *t, u64 addr, u64 len, u64 prot, u64 flags, int fd, u64 off);
void maps_gone(u64 addr, u64 len);
int files_fork(struct thread *t);
void files_unfork(struct thread *t);
void files_vfork(struct thread *child, struct thread *parent);
void files_vfork_done(struct thread *child);
void files_exit(struct thread *t);
char *files_hand_over(struct thread *t, char *to, char *end);
long sealed_fd(int fd);
long sealed_pread(int fd, void *buf, u64 len, u64 off);
long sealed_size(int fd);
long sealed_facts(int fd, void *buf, u64 len, u64 off);
int sealed_open_exec(struct thread *t, const char **path, char *out, long *r);
void sealed_move(struct thread *t, int fd, int to);
void sealed_close(struct thread *t, int fd);
int sealed_path(struct thread *t, const char *path, char *out);
void shim_close(int fd);

#endif
