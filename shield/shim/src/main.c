/* SPDX-License-Identifier: Apache-2.0 */
/* Start of a process image, threads' slots, dispatch and filter. */
#include "shim.h"

#define AT(field, off) _Static_assert(offsetof(struct thread, field) == off, #field)
AT(self, T_SELF); AT(stack, T_STACK); AT(ret, T_RET); AT(fdtab, T_FDTAB); AT(pend, T_PEND); AT(act, T_ACT);
AT(result, T_RESULT); AT(mask, T_MASK); AT(f.rdi, F_RDI); AT(f.rax, F_RAX); AT(f.rsp, F_RSP); AT(f.r15, F_R15);
AT(k, K_NR);

extern char boot_stack_top[];
extern char __executable_start[], etext[], end[];

struct thread main_thread;
u32 fd_base;
char exe_path[4096];

struct slot {
	struct slot *next;
	u64 low;
	struct thread t;
};
static struct slot *slots;

struct thread *thread_new(void)
{
	for (struct slot *s = slots; s; s = s->next)
		if (__sync_bool_compare_and_swap(&s->t.inuse, 0, 1)) {
			u8 *copy = s->t.copy;
			memset(&s->t.pend, 0, sizeof s->t - offsetof(struct thread, pend));
			s->t.copy = copy;
			s->t.inuse = 1;
			return &s->t;
		}
	u64 size = PAGE + STACK_SIZE + ALIGN_UP(sizeof(struct slot), PAGE);
	long a = H(NR_mmap, 0, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (IS_ERR(a)) return 0;
	H(NR_mprotect, a, PAGE, 0);
	struct slot *s = (void *)(a + PAGE + STACK_SIZE);
	s->low = a;
	s->t.self = &s->t;
	s->t.stack = (u64)s;
	s->t.inuse = 1;
	do
		s->next = slots;
	while (!__sync_bool_compare_and_swap(&slots, s->next, s));
	return &s->t;
}

/* In the child of a fork only the calling thread lives on. */
void threads_forked(struct thread *t)
{
	for (struct slot *s = slots; s; s = s->next)
		if (&s->t != t) s->t.inuse = 0;
}

/* Whether [addr, addr+len) touches what belongs to the shim. */
int trusted_range(u64 addr, u64 len)
{
	u64 hi = addr + len;
	if (hi < addr) return 1;
	if (addr < ALIGN_UP((u64)end, PAGE) && hi > SHIM_BASE) return 1;
	if (addr < SHARED_BASE + CFG->shared_size && hi > SHARED_BASE) return 1;
	for (struct slot *s = slots; s; s = s->next)
		if (addr < (u64)s + sizeof *s && hi > s->low) return 1;
	u64 tab = (u64)main_thread.fdtab;
	return addr < tab + FDTAB_SIZE && hi > tab;
}

/* Syscall User Dispatch for this thread, if asked for. It is not inherited by new
   threads and processes, as the filter is. */
void arm(void)
{
	if (CFG->flags & CFG_SUD && H(NR_prctl, 59, 1, __executable_start, etext - __executable_start, 0))
		die("this kernel has no Syscall User Dispatch (Linux 5.11 or newer is needed)", 0);
}

void thread_start(struct thread *t)
{
	H(NR_arch_prctl, 0x1001, t);
	if (t->own.acts[0].flags) /* CLONE_CLEAR_SIGHAND took our handlers too */
		sig_init(t);
	arm();
}

/* Host calls come from our text only; any other is a SIGSYS. Inherited for good. */
static void filter(void)
{
	struct { u16 code; u8 jt, jf; u32 k; } prog[] = {
		{ 0x20, 0, 0, 4 },                         /* arch */
		{ 0x15, 0, 6, 0xc000003e },
		{ 0x20, 0, 0, 12 },                        /* instruction pointer, high half */
		{ 0x15, 0, 3, SHIM_BASE >> 32 },
		{ 0x20, 0, 0, 8 },
		{ 0x35, 1, 0, (u32)((u64)etext + 1) },
		{ 0x06, 0, 0, 0x7fff0000 },                /* allow */
		{ 0x06, 0, 0, 0x00030000 },                /* trap */
		{ 0x06, 0, 0, 0x80000000 },                /* kill the process */
	};
	struct { u16 len; void *p; } fprog = { sizeof prog / sizeof *prog, prog };
	H(NR_prctl, 38, 1, 0, 0, 0);
	long r = H(NR_seccomp, 1, 0, &fprog);
	if (r) die("cannot install the seccomp filter", 0);
	CFG->filtered = 1;
}

static void map_shared(void)
{
	u64 st[18];
	if (H(NR_fstat, fd_base + FD_SHARED, st)) die("the shim was not started by palisade", 0);
	long r = H(NR_mmap, SHARED_BASE, st[6], PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED_NOREPLACE, fd_base + FD_SHARED, 0);
	if (r != SHARED_BASE || CFG->magic != CONFIG_MAGIC || CFG->shared_size != st[6])
		die("the shim's shared memory is damaged", 0);
}

/* The launcher hands its descriptors over with the lowest numbers; those belong to the program. */
static void move_fds(void)
{
	for (u32 i = 0; i < FD_KEPT; i++)
		if (H(NR_fcntl, fd_base + i, 1, 0) >= 0) {
			if (H(NR_dup3, fd_base + i, CFG->fd_base + i, 0) < 0)
				die("cannot move descriptors", 0);
			H(NR_close, fd_base + i);
		}
	fd_base = CFG->fd_base;
}

void shim_main(u64 *sp)
{
	struct thread *t = &main_thread;
	u64 all = ~0ul;
	H(NR_rt_sigprocmask, 2, &all, &t->mask, 8);
	char **env = (char **)(sp + 1 + sp[0] + 1);
	const char *own = 0;
	for (; *env && !own; env++)
		if (has_prefix(*env, "PALISADE_SHIM=")) own = *env + 14;
	if (!own) die("the shim was not started by palisade", 0);
	int first = *own == '+';
	own += first;
	fd_base = get_num(&own);
	if (*own++ != ':') die("the shim was not started by palisade", 0);
	map_shared();
	if (first) move_fds();
	const char *handed = own;
	while (*own && *own != ':') own++;
	own += *own == ':';
	t->self = t;
	t->stack = (u64)boot_stack_top;
	t->inuse = 1;
	t->proc = &t->own;
	H(NR_arch_prctl, 0x1001, t);
	long tab = H(NR_mmap, 0, FDTAB_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (IS_ERR(tab)) die("out of memory", 0);
	t->fdtab = (u16 *)tab;
	sig_init(t);
	if (CFG->flags & CFG_FILES) files_start(t, handed);
	if (CFG->flags & CFG_FINISH) files_finish();
	program_load(H(NR_fcntl, fd_base + FD_PROG, 1, 0) >= 0 ? (int)(fd_base + FD_PROG) : -1, own, sp);
	if (!CFG->filtered) filter();
	arm();
	enter_app();
}
