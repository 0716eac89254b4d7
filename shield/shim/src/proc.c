/* SPDX-License-Identifier: Apache-2.0 */
/* New threads, new processes, new programs. */
#include "path.h"

struct clone_args {
	u64 flags, pidfd, child_tid, parent_tid, exit_signal, stack, stack_size, tls, set_tid, set_tid_size, cgroup, rest[5];
};
#define CLONE_CLEAR_SIGHAND 0x100000000ul
enum { SIGCHLD = 17 };

long sys_clone(struct thread *t, u64 nr)
{
	struct clone_args c = { 0 };
	u64 size = 64, all = ~0ul;
	switch (nr) {
	case NR_fork:
		c.flags = SIGCHLD;
		break;
	case NR_vfork:
		c.flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
		break;
	case NR_clone:
		c.flags = t->f.rdi, c.stack = t->f.rsi, c.parent_tid = t->f.rdx, c.child_tid = t->f.r10, c.tls = t->f.r8;
		break;
	case NR_clone3:
		size = t->f.rsi;
		if (size < 64 || size > sizeof c) return size < 64 ? -EINVAL : -E2BIG;
		if (ucopy(&c, (void *)t->f.rdi, size)) return -EFAULT;
		c.stack += c.stack_size;
		break;
	}
	if (t->pend) return t->act = ACT_AGAIN;
	struct thread *n = 0;
	int forked = 0;
	u64 old, flags = c.flags;
	if (flags & CLONE_VM && !(n = thread_new())) return -EAGAIN;
	H(NR_rt_sigprocmask, 2, &all, &old, 8);
	if (n) {
		n->f = t->f;
		if (c.stack) n->f.rsp = c.stack;
		n->ret = t->ret;
		n->mask = old;
		n->fdtab = t->fdtab;
		n->proc = t->proc;
		if (!(flags & CLONE_FILES)) files_vfork(n, t);
		if (!(flags & CLONE_SIGHAND)) {
			n->own = *t->proc;
			n->proc = &n->own;
			n->own.acts[0].flags = 0;
			if (nr == NR_clone3 && flags & CLONE_CLEAR_SIGHAND) {
				n->own.acts[0].flags = 1;
				for (int i = 1; i < 65; i++)
					n->own.acts[i].handler &= n->own.acts[i].handler == 1;
			}
		}
		n->vforked = flags & CLONE_VFORK && !(flags & CLONE_THREAD);
		c.stack = n->stack;
	} else {
		c.stack = 0;
		forked = files_fork(t);
	}
	long r;
	if (nr == NR_clone3) {
		c.stack_size = n ? STACK_SIZE : 0;
		if (n) c.stack = n->stack - STACK_SIZE;
		r = n ? clone_raw(nr, (u64)&c, size, 0, 0, 0, n) : H(nr, &c, size);
	} else {
		r = n ? clone_raw(NR_clone, flags, c.stack, c.parent_tid, c.child_tid, c.tls, n) :
			H(NR_clone, flags, 0, c.parent_tid, c.child_tid, c.tls);
	}
	if (n && (IS_ERR(r) || n->vforked)) {
		if (n->fdtab != t->fdtab) files_vfork_done(n);
		n->inuse = 0;
	}
	if (forked && IS_ERR(r)) files_unfork(t);
	if (!n && r == 0) {
		threads_forked(t);
		forked_pid = 1;
		if (nr == NR_clone3 && flags & CLONE_CLEAR_SIGHAND) {
			for (int i = 1; i < 65; i++)
				t->proc->acts[i].handler &= t->proc->acts[i].handler == 1;
			sig_init(t);
		}
		u64 stack = nr == NR_clone ? t->f.rsi : 0;
		if (stack) t->f.rsp = stack;
		arm();
	}
	t->pend = 2;
	t->savedmask = old;
	return r;
}

/* exec_env copies envp with our own variable in front. */
static u64 count(char **v)
{
	u64 n = 0;
	for (char *p = (void *)1; v; n++) {
		if (ucopy(&p, v + n, 8)) return -1;
		if (!p) break;
	}
	return n;
}

/*
 * A new program is a new shim, which finds the opened program at FD_PROG. What
 * execve would refuse is found out before, since then there is no way back.
 */
long sys_execve(struct thread *t, int dirfd, const char *upath, char **argv, char **envp, u64 flags)
{
	char own[8192], path[4096], link[40];
	long n = get_path(upath, path);
	int fd;
	if (n < 0) return n;
	if (is_exe_link(path)) put_str(path, exe_path);
	if (!path[0] && flags & AT_EMPTY_PATH) {
		put_num(put_str(link, "/proc/self/fd/"), dirfd);
		fd = shim_open_exec(link);
		put_num(put_str(path, "/dev/fd/"), dirfd);
	} else if (path[0] == '/' || dirfd == AT_FDCWD) {
		fd = shim_open_exec(path);
	} else {
		fd = H(NR_openat, dirfd, path, O_CLOEXEC);
		put_num(put_str(link, "/proc/self/fd/"), fd);
		if (fd >= 0 && H(NR_readlink, link, path, sizeof path - 1) < 0) path[0] = 0;
	}
	if (fd < 0) return fd;
	long r = program_check(fd, path, 0);
	u64 envs = count(envp);
	if (!r && (envs == -1ul || count(argv) == -1ul)) r = -EFAULT;
	if (r || t->pend) {
		shim_close(fd);
		if (!r) t->act = ACT_AGAIN;
		return r;
	}
	u64 small[1024], *env = small;
	if (envs + 2 > 1024) {
		r = H(NR_mmap, 0, (envs + 2) * 8, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		if (IS_ERR(r)) {
			shim_close(fd);
			return r;
		}
		env = (u64 *)r;
	}
	H(NR_dup3, fd, fd_base + FD_PROG, 0);
	sealed_move(t, fd, fd_base + FD_PROG);
	shim_close(fd);
	char *p = put_str(put_num(put_str(own, "PALISADE_SHIM="), fd_base), ":");
	p = files_hand_over(t, p, own + sizeof own - 4100);
	if (!p) {
		r = -E2BIG;
		goto failed;
	}
	put_str(put_str(p, ":"), path);
	env[0] = (u64)own;
	memcpy(env + 1, envp, envs * 8);
	env[envs + 1] = 0;
	char *none[] = { path, 0 };
	char **av = argv && argv[0] ? argv : none;
	/* host_wait: a signal between here and the call would leave everything blocked */
	r = host_wait(NR_execveat, (u64)(fd_base + FD_SHIM), (u64)"", (u64)av, (u64)env, (u64)AT_EMPTY_PATH, 0ul);
failed:
	shim_close(fd_base + FD_PROG);
	if (env != small) H(NR_munmap, env, (envs + 2) * 8);
	if (r == -EINTR) t->act = ACT_AGAIN;
	return r;
}
