/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Signals. The kernel knows one handler for everything that the program handles:
 * sig_entry, which comes here. What was interrupted is either the program itself;
 * or a window of entry.S, whose context is turned into what the program would see
 * at its own system call; or the shim at work, and then the signal is put off:
 * it is noted, all signals are blocked, and `check` sends it again.
 */
#include "shim.h"

extern char __executable_start[], etext[];
extern char hook_stored[], crit[], sys_any[], sys_any_done[], sys_len[], sys_len_done[], hook_more[], check[], check_end[],
	out[], out_end[], pass_sys[], pass_done[], pass_end[], fin_done[], fin_end[], sig_entry[], sig_go_done[],
	sig_go_end[], restorer_end[], ucopy_begin[], ucopy_end[], ucopy_fault[], hw_begin[], hw_done[];

#define IN(a, b) (rip >= (u64)(a) && rip < (u64)(b))
#define FAULTS (SIGBIT(SIGSEGV) | SIGBIT(SIGBUS) | SIGBIT(4) | SIGBIT(5) | SIGBIT(8))

static void frame_regs(struct thread *t, struct ucontext *uc)
{
	uc->rdi = t->f.rdi, uc->rsi = t->f.rsi, uc->rdx = t->f.rdx;
	uc->r10 = t->f.r10, uc->r8 = t->f.r8, uc->r9 = t->f.r9;
}

/* as_program turns the context of a window into the program's, or answers 0. */
static int as_program(struct thread *t, struct ucontext *uc)
{
	u64 rip = uc->rip;
	if (IN(vdso_base, vdso_end)) return 0;
	if (!IN(__executable_start, etext) || IN(restorer, restorer_end)) return 1;
	if (rip == (u64)hook_entry) {
		uc->rip = uc->rcx - 2;
	} else if (IN(hook_stored, crit)) {
		if (IN(sys_len_done, hook_more) && uc->rax > uc->rdx && !IS_ERR(uc->rax))
			uc->rax = -EIO;
		uc->rip = IN(sys_any_done, sys_len) || IN(sys_len_done, hook_more) ? t->ret : t->ret - 2;
	} else if (IN(out, out_end) || IN(pass_sys, pass_end)) {
		frame_regs(t, uc);
		uc->rip = rip == (u64)pass_sys ? t->ret - 2 : t->ret;
	} else if (IN(fin_done, fin_end)) {
		frame_regs(t, uc);
		uc->rbx = t->f.rbx, uc->rbp = t->f.rbp, uc->r12 = t->f.r12;
		uc->r13 = t->f.r13, uc->r14 = t->f.r14, uc->r15 = t->f.r15;
		uc->rax = t->result;
		uc->rip = t->ret;
	} else if (IN(sig_go_done, sig_go_end)) { /* on the way to another handler */
		uc->rdi = uc->rbx, uc->rsi = uc->rbp, uc->rdx = uc->r12;
		uc->rip = uc->r13;
		uc->rsp = uc->r14;
		uc->rax = 0;
	} else {
		return 0;
	}
	return 1;
}

static void put_off(struct thread *t, struct siginfo *si, struct ucontext *uc)
{
	u64 rip = uc->rip;
	if (si->code > 0 && FAULTS & SIGBIT(si->signo)) {
		char b[64];
		put_num(b, rip);
		die("fault inside the shim at", b);
	}
	if (IN(check, check_end)) {
		uc->rip = (u64)check;
	} else if (IN(hw_begin, hw_done)) {
		uc->rax = -EINTR;
		uc->rip = (u64)hw_done;
	}
	t->savedmask = uc->sigmask;
	t->info = *si;
	t->pend = 1;
	uc->sigmask = ~(FAULTS | SIGBIT(SIGSYS));
}

/* Gives the program's handler, to be run under *mask, or 0. */
u64 sig_dispatch(int sig, struct siginfo *si, struct ucontext *uc, u64 *mask)
{
	struct thread *t = self();
	if (uc->rip >= (u64)ucopy_begin && uc->rip < (u64)ucopy_end && (sig == SIGSEGV || sig == SIGBUS) && si->code > 0) {
		uc->rip = (u64)ucopy_fault;
		return 0;
	}
	if (!as_program(t, uc)) {
		put_off(t, si, uc);
		return 0;
	}
	struct ksigaction *a = &t->proc->acts[sig];
	struct ksigaction act = *a;
	if (act.handler > 1) {
		*mask = (uc->sigmask | act.mask | (act.flags & SA_NODEFER ? 0 : SIGBIT(sig))) & ~SIGBIT(SIGSYS);
		if (act.flags & SA_RESETHAND) a->handler = 0;
		return act.handler;
	}
	int fault = si->code > 0 && FAULTS & SIGBIT(sig);
	if (act.handler == 1 && !fault) return 0;
	struct ksigaction dfl = { 0, SA_RESTORER, (u64)restorer, 0 };
	H(NR_rt_sigaction, sig, &dfl, 0, 8);
	if (!fault) /* a fault comes again by itself */
		H(NR_rt_tgsigqueueinfo, H(NR_getpid, 0), H(NR_gettid, 0), sig, si);
	return 0;
}

/* sig_flush is called with signals blocked: sets T_RESULT, T_RET and T_MASK. */
void sig_flush(struct thread *t, u64 result)
{
	if (!t->pend) {
		u64 all = ~0ul;
		H(NR_rt_sigprocmask, 2, &all, &t->savedmask, 8);
	}
	if (t->pend == 1)
		H(NR_rt_tgsigqueueinfo, H(NR_getpid, 0), H(NR_gettid, 0), t->info.signo, &t->info);
	t->pend = 0;
	t->mask = t->savedmask;
	t->result = result;
	if (t->act != ACT_RETURN) {
		t->result = t->f.rax;
		t->ret -= 2;
	}
}

/* A system call outside of the shim that no table named. */
static void sigsys(int sig, struct siginfo *si, struct ucontext *uc)
{
	u64 rip = uc->rip;
	if (si->code <= 0) { /* sent by somebody */
		struct ksigaction dfl = { 0, SA_RESTORER, (u64)restorer, 0 };
		if (self()->proc->acts[SIGSYS].handler == 0) {
			H(NR_rt_sigaction, sig, &dfl, 0, 8);
			H(NR_rt_tgsigqueueinfo, H(NR_getpid, 0), H(NR_gettid, 0), sig, si);
		}
		return;
	}
	if (IN(__executable_start, etext) || IN(vdso_base, vdso_end)) { /* a filter around us refuses, or a clock needs a call */
		uc->rax = -ENOSYS;
		return;
	}
	if (si->rest[1] >> 32 != 0xc000003e)
		die("the program made a 32-bit system call, which is not supported", 0);
	__sync_fetch_and_add(&CFG->stat_sigsys, 1);
	uc->rcx = rip;
	uc->rip = (u64)hook_entry;
}

static void install(int sig, u64 handler, u64 flags)
{
	struct ksigaction k = { handler, flags | SA_SIGINFO | SA_RESTORER, (u64)restorer, ~0ul };
	H(NR_rt_sigaction, sig, &k, 0, 8);
}

void sig_init(struct thread *t)
{
	(void)t;
	install(SIGSYS, (u64)sigsys, SA_ONSTACK);
	install(SIGSEGV, (u64)sig_entry, 0);
	install(SIGBUS, (u64)sig_entry, 0);
}

long sys_rt_sigaction(struct thread *t, u64 sig, const struct ksigaction *np, struct ksigaction *op, u64 size)
{
	struct ksigaction n, k, old = { 0 };
	if (size != 8 || sig < 1 || sig > 64) return -EINVAL;
	if (np && ucopy(&n, np, sizeof n)) return -EFAULT;
	struct ksigaction *a = &t->proc->acts[sig];
	struct ksigaction prev = *a;
	int ours = sig == SIGSYS || sig == SIGSEGV || sig == SIGBUS;
	long r = 0;
	if (!np) {
		if (!ours)
			r = H(NR_rt_sigaction, sig, 0, &old, 8);
	} else {
		n.mask &= ~SIGBIT(SIGSYS);
		k = n;
		if (n.handler > 1 || sig == SIGSEGV || sig == SIGBUS) {
			k.handler = (u64)sig_entry;
			k.flags = (n.flags & (SA_NOCLDSTOP | SA_NOCLDWAIT | SA_ONSTACK | SA_RESTART)) | SA_SIGINFO | SA_RESTORER;
			k.restorer = (u64)restorer;
			k.mask = ~0ul;
		}
		if (sig != 9 && sig != 19)
			*a = n;
		if (sig != SIGSYS) r = H(NR_rt_sigaction, sig, &k, &old, 8);
	}
	if (IS_ERR(r)) return r;
	if (!ours && old.handler <= 1) /* what the kernel says: SIG_IGN may be inherited */
		prev = old;
	if (op && ucopy(op, &prev, sizeof prev)) return -EFAULT;
	return 0;
}

/* pass_with_mask makes the program's call with *maskarg (an argument in K_*,
   pointing to a signal set) replaced by a copy that leaves SIGSYS to us. */
long pass_with_mask(struct thread *t, u64 *maskarg, u64 size)
{
	if (*maskarg && size == 8) {
		if (ucopy(&t->buf[0], (void *)*maskarg, 8)) return t->act = ACT_RETURN, -EFAULT;
		t->buf[0] &= ~SIGBIT(SIGSYS);
		*maskarg = (u64)&t->buf[0];
	}
	return 0;
}
