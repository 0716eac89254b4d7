/* SPDX-License-Identifier: Apache-2.0 */
/* Which system calls are passed on, and what becomes of the others. */
#include "shim.h"

u8 sys_class[NR_MAX] = {
	[NR_read] = C_FDLEN, [NR_write] = C_FDLEN, [NR_pread64] = C_FDLEN, [NR_pwrite64] = C_FDLEN,
	[NR_sendto] = C_LEN, [NR_recvfrom] = C_LEN, [NR_getdents64] = C_FDLEN, [NR_getdents] = C_FDLEN,

	[NR_rt_sigaction] = C_SLOW, [NR_rt_sigprocmask] = C_SLOW, [NR_rt_sigsuspend] = C_SLOW, [NR_pselect6] = C_SLOW,
	[NR_ppoll] = C_SLOW, [NR_epoll_pwait] = C_SLOW, [NR_epoll_pwait2] = C_SLOW,
	[NR_fork] = C_SLOW, [NR_vfork] = C_SLOW, [NR_clone] = C_SLOW, [NR_clone3] = C_SLOW,
	[NR_execve] = C_SLOW, [NR_execveat] = C_SLOW, [NR_exit] = C_SLOW, [NR_exit_group] = C_SLOW,
	[NR_mmap] = C_SLOW, [NR_munmap] = C_SLOW, [NR_mprotect] = C_SLOW, [NR_mremap] = C_SLOW, [NR_madvise] = C_SLOW,
	[NR_brk] = C_SLOW, [NR_shmat] = C_SLOW,
	[NR_prctl] = C_SLOW, [NR_arch_prctl] = C_SLOW, [NR_seccomp] = C_SLOW,
	[NR_close] = C_SLOW, [NR_close_range] = C_SLOW, [NR_dup2] = C_SLOW, [NR_dup3] = C_SLOW,
	[NR_open] = C_SLOW, [NR_openat] = C_SLOW, [NR_openat2] = C_SLOW, [NR_readlink] = C_SLOW, [NR_readlinkat] = C_SLOW,
	[NR_clock_gettime] = C_SLOW, [NR_gettimeofday] = C_SLOW,

	[NR_ptrace] = C_SLOW, [NR_process_vm_readv] = C_SLOW, [NR_process_vm_writev] = C_SLOW, [NR_userfaultfd] = C_SLOW,
	[NR_perf_event_open] = C_SLOW, [NR_bpf] = C_SLOW, [NR_io_uring_setup] = C_SLOW, [NR_io_uring_enter] = C_SLOW,
	[NR_io_uring_register] = C_SLOW, [NR_pidfd_getfd] = C_SLOW, [NR_process_madvise] = C_SLOW, [NR_modify_ldt] = C_SLOW,
};

/* pass lets the program's thread make the call in t->k on its own stack. */
long pass(struct thread *t)
{
	t->k[0] = t->f.rax, t->k[1] = t->f.rdi, t->k[2] = t->f.rsi, t->k[3] = t->f.rdx;
	t->k[4] = t->f.r10, t->k[5] = t->f.r8, t->k[6] = t->f.r9;
	t->act = ACT_PASS;
	return 0;
}

long shim_pread(int fd, void *buf, u64 len, u64 off)
{
	if (sealed_fd(fd)) return sealed_pread(fd, buf, len, off);
	long r = H(NR_pread64, fd, buf, len, off);
	return !IS_ERR(r) && (u64)r > len ? -EIO : r;
}

void shim_close(int fd)
{
	if (sealed_fd(fd)) sealed_close(self(), fd);
	H(NR_close, fd);
}

/* Private memory that is given back with munmap. */
void *scratch(u64 size)
{
	long r = H(NR_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	return IS_ERR(r) ? 0 : (void *)r;
}

/* A descriptor that the host says is new must not be one that is in use. */
long check_fd(struct thread *t, long r)
{
	if (r >= 0 && (r > 0x3fffffff || kept_fd(r) || (r < 65536 && t->fdtab[r])))
		die("the host answered with a descriptor that is in use", 0);
	return r;
}

int shim_open_exec(const char *path)
{
	u64 st[18];
	char led[4096];
	long r = 0;
	if (CFG->flags & CFG_FILES && sealed_open_exec(self(), &path, led, &r)) return r;
	r = H(NR_faccessat2, AT_FDCWD, path, 1, 0x200); /* X_OK, AT_EACCESS */
	if (r) return r;
	int fd = H(NR_open, path, O_CLOEXEC, 0);
	if (fd < 0) return fd;
	r = H(NR_fstat, fd, st);
	if (!r && (st[3] & S_IFMT) != S_IFREG) r = -EACCES;
	if (r) {
		H(NR_close, fd);
		return r;
	}
	return fd;
}

long shim_mmap(struct thread *t, u64 addr, u64 len, u64 prot, u64 flags, int fd, u64 off)
{
	if (flags & (MAP_FIXED | MAP_FIXED_NOREPLACE) && trusted_range(addr, len)) return -EPERM;
	if (flags & MAP_FIXED) maps_gone(addr, len);
	int sealed = !(flags & MAP_ANONYMOUS) && sealed_fd(fd);
	long r = sealed ? file_mmap(t, addr, len, prot, flags, fd, off) : H(NR_mmap, addr, len, prot, flags, fd, off);
	if (IS_ERR(r)) return r;
	if (r & (PAGE - 1) || trusted_range(r, len)) die("the host mapped memory over the shim", 0);
	if (prot & PROT_EXEC && !(flags & MAP_ANONYMOUS) && (flags & MAP_TYPE) == MAP_PRIVATE && !(prot & PROT_WRITE))
		patch_mapping(fd, r, len, off);
	return r;
}

/* Whether the path is the link to the running program, which would show the shim. */
int is_exe_link(const char *upath)
{
	char p[40], own[40];
	if ((u64)ustr(p, upath, sizeof p) >= sizeof p || !has_prefix(p, "/proc/")) return 0;
	if (streq(p, "/proc/self/exe") || streq(p, "/proc/thread-self/exe")) return 1;
	put_str(put_num(put_str(own, "/proc/"), H(NR_getpid, 0)), "/exe");
	return streq(p, own);
}

static long sys_readlink(struct thread *t, const char *upath, char *buf, u64 size)
{
	if (!is_exe_link(upath)) return pass(t);
	u64 n = MIN(strlen(exe_path), size);
	if (!size) return -EINVAL;
	return ucopy(buf, exe_path, n) ? -EFAULT : (long)n;
}

/* What the host tells as time never goes back. */
static long sys_clock(struct thread *t, u64 id, u64 *ts, int usec)
{
	u64 now[2];
	long r = -1;
	if (vdso_gettime && id < 8) r = vdso_gettime(id, now);
	if (r) r = H(NR_clock_gettime, id, now);
	if (IS_ERR(r)) return r;
	(void)t;
	if (now[1] >= 1000000000) return -EIO;
	if (id == 1 || id == 4 || id == 6 || id == 7) {
		u64 ns = now[0] * 1000000000 + now[1], last = CFG->clock[id];
		while (ns > last && !__sync_bool_compare_and_swap(&CFG->clock[id], last, ns))
			last = CFG->clock[id];
		if (ns < last) now[0] = last / 1000000000, now[1] = last % 1000000000;
	}
	if (usec) now[1] /= 1000;
	return ucopy(ts, now, sizeof now) ? -EFAULT : 0;
}

static long sys_close_range(struct thread *t, u64 first, u64 last, u64 flags)
{
	u32 lo = fd_base, hi = fd_base + FD_KEPT - 1;
	(void)t;
	if ((u32)first > (u32)last) return -EINVAL;
	first = (u32)first, last = (u32)last;
	if (first > hi || last < lo) return H(NR_close_range, first, last, flags);
	long r = 0;
	if (first < lo) r = H(NR_close_range, first, lo - 1, flags);
	if (!r && last > hi) r = H(NR_close_range, hi + 1, last, flags);
	return r;
}

long shim_syscall(struct thread *t)
{
	u64 nr = t->f.rax, a = t->f.rdi, b = t->f.rsi, c = t->f.rdx, d = t->f.r10, e = t->f.r8, f = t->f.r9;
	long r;
	t->act = ACT_RETURN;
	if (CFG->flags & CFG_FILES && file_syscall(t, nr, &r)) return r;
	switch (nr) {
	case NR_rt_sigaction: return sys_rt_sigaction(t, a, (void *)b, (void *)c, d);
	case NR_rt_sigprocmask:
		pass(t);
		return b && (u32)a != 1 ? pass_with_mask(t, &t->k[2], d) : 0;
	case NR_rt_sigsuspend: pass(t); return pass_with_mask(t, &t->k[1], b);
	case NR_ppoll: pass(t); return pass_with_mask(t, &t->k[4], e);
	case NR_epoll_pwait:
	case NR_epoll_pwait2: pass(t); return pass_with_mask(t, &t->k[5], f);
	case NR_pselect6:
		pass(t);
		if (f) {
			if (ucopy(&t->buf[1], (void *)f, 16)) return t->act = ACT_RETURN, -EFAULT;
			t->k[6] = (u64)&t->buf[1];
			return pass_with_mask(t, &t->buf[1], t->buf[2]);
		}
		return 0;
	case NR_fork: case NR_vfork: case NR_clone: case NR_clone3: return sys_clone(t, nr);
	case NR_execve: return sys_execve(t, AT_FDCWD, (void *)a, (void *)b, (void *)c, 0);
	case NR_execveat: return sys_execve(t, a, (void *)b, (void *)c, (void *)d, e);
	case NR_exit_group:
		files_exit(t);
		return H(nr, a);
	case NR_exit:
		if (t == &main_thread || t->vforked)
			H(NR_exit, a);
		else {
			u64 all = ~0ul;
			H(NR_rt_sigprocmask, 2, &all, 0, 8);
			thread_exit(&t->inuse, a);
		}
		return 0;
	case NR_mmap: return shim_mmap(t, a, b, c, d, e, f);
	case NR_munmap:
		if (trusted_range(a, b)) return -EINVAL;
		maps_gone(a, b);
		return H(nr, a, b);
	case NR_mprotect: return trusted_range(a, b) ? -EACCES : H(nr, a, b, c);
	case NR_madvise: return trusted_range(a, b) ? -EINVAL : H(nr, a, b, c);
	case NR_mremap:
		if (trusted_range(a, b) || (d & 2 && trusted_range(e, c))) return -EINVAL;
		r = H(nr, a, b, c, d, e);
		if (!IS_ERR(r) && trusted_range(r, c)) die("the host mapped memory over the shim", 0);
		return r;
	case NR_brk:
	case NR_shmat:
		r = H(nr, a, b, c);
		if (!IS_ERR(r) && nr == NR_shmat && trusted_range(r, 1))
			die("the host mapped memory over the shim", 0);
		return r;
	case NR_prctl:
		if ((u32)a == 59 || (u32)a == 22 || (u32)a == 35) /* dispatch, seccomp, PR_SET_MM */
			return -EINVAL;
		return pass(t);
	case NR_arch_prctl: return (u32)a == 0x1001 || (u32)a == 0x1004 ? -EPERM : pass(t);
	case NR_seccomp: return -EINVAL;
	case NR_close: return kept_fd(a) ? -EBADF : pass(t);
	case NR_close_range: return sys_close_range(t, a, b, c);
	case NR_dup2:
	case NR_dup3: return kept_fd(a) || kept_fd(b) ? -EBADF : pass(t);
	case NR_open:
		pass(t);
		if (is_exe_link((void *)a)) t->k[1] = (u64)exe_path;
		return 0;
	case NR_openat:
	case NR_openat2:
		pass(t);
		if (is_exe_link((void *)b)) t->k[2] = (u64)exe_path;
		return 0;
	case NR_readlink: return sys_readlink(t, (void *)a, (void *)b, c);
	case NR_readlinkat: return sys_readlink(t, (void *)b, (void *)c, d);
	case NR_clock_gettime: return sys_clock(t, a, (void *)b, 0);
	case NR_gettimeofday:
		if (b && (r = H(nr, 0, b))) return r;
		return a ? sys_clock(t, 0, (void *)a, 1) : 0;
	case NR_io_uring_setup: case NR_io_uring_enter: case NR_io_uring_register: /* programs fall back */
		return -ENOSYS;
	case NR_ptrace: case NR_process_vm_readv: case NR_process_vm_writev: case NR_userfaultfd: case NR_perf_event_open:
	case NR_bpf: case NR_pidfd_getfd: case NR_process_madvise: case NR_modify_ldt:
		return -EPERM;
	}
	return nr >= NR_MAX ? -ENOSYS : pass(t);
}
