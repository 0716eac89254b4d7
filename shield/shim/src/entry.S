/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Entry points. The rule that everything here serves: a signal handler of the
 * program never runs while the shim is in the middle of something. Code is either
 * in a "window", whose registers sig.c can turn back into those of the program
 * (before its system call, or behind it), or it is critical and the signal waits.
 * The labels are what sig.c compares the interrupted address with.
 */
#include "layout.h"

	.text
	.globl _start
_start:
	mov	%rsp, %rdi
	lea	boot_stack_top(%rip), %rsp
	xor	%ebp, %ebp
	call	shim_main
	hlt

/* enter_app: leave for T_RET as the kernel starts a program; signals are blocked */
	.globl enter_app
enter_app:
	jmp	finish

/* host(nr, a, b, c, d, e, f): one call to the host */
	.globl host
host:
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	mov	%r8, %r10
	mov	%r9, %r8
	mov	8(%rsp), %r9
	syscall
	ret

/* host_wait(nr, a, b, c, d, e, f): the same for calls that may block: gives
   -EINTR when a signal waits for the program. */
	.globl host_wait, hw_begin, hw_sys, hw_done
host_wait:
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	mov	%r8, %r10
	mov	%r9, %r8
	mov	8(%rsp), %r9
hw_begin:
	cmpq	$0, %gs:T_PEND
	jne	1f
hw_sys:
	syscall
hw_done:
	ret
1:	mov	$-4, %rax
	ret

/*
 * The program arrives here from a rewritten site (through its stub) or from
 * sigsys(): rax and the arguments as for the system call, rcx = the address
 * behind it, all other registers and the stack its own. Like the kernel we may
 * change rax, rcx and r11 only.
 */
	.globl hook_entry, hook_stored, hook_slow, crit
	.globl sys_any, sys_any_done, sys_len, sys_len_done
	.p2align 6
hook_entry:
	mov	%rcx, %gs:T_RET
hook_stored:
	cmp	$NR_MAX, %rax
	jae	hook_slow
	lea	sys_class(%rip), %r11
	movzbl	(%r11,%rax), %r11d
	cmp	$C_LEN, %r11d
	je	sys_len
	ja	1f
sys_any:
	syscall
sys_any_done:
	jmp	*%gs:T_RET
sys_len:
	syscall
sys_len_done:
	cmp	%rdx, %rax
	ja	2f
	jmp	*%gs:T_RET
2:	cmp	$-4095, %rax		/* the host may fail, but not answer more than was asked for */
	jae	3f
	mov	$-5, %rax
3:	jmp	*%gs:T_RET
	.globl hook_more
hook_more:
1:	cmp	$C_SLOW, %r11d
	jae	hook_slow
	cmp	$65536, %edi
	jae	4f
	mov	%edi, %ecx
	add	%rcx, %rcx
	add	%gs:T_FDTAB, %rcx
	cmpw	$0, (%rcx)
	jne	hook_slow
4:	cmp	$C_FD, %r11d
	je	sys_any
	jmp	sys_len
hook_slow:
	mov	%rdi, %gs:F_RDI
	mov	%rsi, %gs:F_RSI
	mov	%rdx, %gs:F_RDX
	mov	%r10, %gs:F_R10
	mov	%r8, %gs:F_R8
	mov	%r9, %gs:F_R9
	mov	%rax, %gs:F_RAX
	mov	%rsp, %gs:F_RSP
	mov	%rbx, %gs:F_RBX
	mov	%rbp, %gs:F_RBP
	mov	%r12, %gs:F_R12
	mov	%r13, %gs:F_R13
	mov	%r14, %gs:F_R14
	mov	%r15, %gs:F_R15
	mov	%gs:T_STACK, %rsp
crit:
	mov	%gs:T_SELF, %rdi
	call	shim_syscall
/* From here on a signal that came in is answered before the program goes on:
   an interruption in check..check_end begins again at check. */
	.globl check, check_end, out, out_end, pass_sys, pass_done, pass_end, deliver
check:
	cmpq	$0, %gs:T_PEND
	jne	deliver
	cmpq	$ACT_PASS, %gs:T_ACT
	je	pass
	ja	deliver
	mov	%gs:F_RSP, %rsp
out:
	mov	%gs:F_RDI, %rdi
	mov	%gs:F_RSI, %rsi
	mov	%gs:F_RDX, %rdx
	mov	%gs:F_R10, %r10
	mov	%gs:F_R8, %r8
	mov	%gs:F_R9, %r9
	jmp	*%gs:T_RET
out_end:
pass:
	mov	%gs:K_NR, %rax
	mov	%gs:K_RDI, %rdi
	mov	%gs:K_RSI, %rsi
	mov	%gs:K_RDX, %rdx
	mov	%gs:K_R10, %r10
	mov	%gs:K_R8, %r8
	mov	%gs:K_R9, %r9
	mov	%gs:F_RSP, %rsp
check_end:
pass_sys:
	syscall
pass_done:
	mov	%gs:F_RDI, %rdi
	mov	%gs:F_RSI, %rsi
	mov	%gs:F_RDX, %rdx
	mov	%gs:F_R10, %r10
	mov	%gs:F_R8, %r8
	mov	%gs:F_R9, %r9
	jmp	*%gs:T_RET
pass_end:

/* Signals are blocked now. sig_flush() sends the one that waited again, and the
   kernel delivers it when the mask goes back, on the program's own stack. */
	.globl fin_sys, fin_done, fin_end
deliver:
	mov	%gs:T_SELF, %rdi
	mov	%rax, %rsi
	call	sig_flush
finish:
	mov	$14, %eax
	mov	$2, %edi
	mov	%gs:T_SELF, %rsi
	add	$T_MASK, %rsi
	xor	%edx, %edx
	mov	$8, %r10d
	mov	%gs:F_RSP, %rsp
fin_sys:
	syscall
fin_done:
	mov	%gs:F_RDI, %rdi
	mov	%gs:F_RSI, %rsi
	mov	%gs:F_RDX, %rdx
	mov	%gs:F_R10, %r10
	mov	%gs:F_R8, %r8
	mov	%gs:F_R9, %r9
	mov	%gs:F_RBX, %rbx
	mov	%gs:F_RBP, %rbp
	mov	%gs:F_R12, %r12
	mov	%gs:F_R13, %r13
	mov	%gs:F_R14, %r14
	mov	%gs:F_R15, %r15
	mov	%gs:T_RESULT, %rax
	jmp	*%gs:T_RET
fin_end:

/* clone_raw(nr, a, b, c, d, e, thread): a clone whose child has the thread's own
   shim stack. The child goes to the program with result 0. Signals are blocked. */
	.globl clone_raw
clone_raw:
	push	%r12
	mov	16(%rsp), %r12
	mov	%rdi, %rax
	mov	%rsi, %rdi
	mov	%rdx, %rsi
	mov	%rcx, %rdx
	mov	%r8, %r10
	mov	%r9, %r8
	syscall
	test	%rax, %rax
	jz	1f
	pop	%r12
	ret
1:	mov	T_STACK(%r12), %rsp
	mov	%r12, %rdi
	call	thread_start
	jmp	finish

/* thread_exit(inuse): give the slot back and end the thread, off its stack */
	.globl thread_exit
thread_exit:
	mov	%rsi, %rdx
	movl	$0, (%rdi)
	mov	%rdx, %rdi
	mov	$60, %eax
	syscall
	hlt

/* Every signal that the program handles comes here first, all signals blocked.
   The registers that a handler may change are free. */
	.globl sig_entry, sig_go_sys, sig_go_done, sig_go_end
sig_entry:
	mov	%rdi, %rbx
	mov	%rsi, %rbp
	mov	%rdx, %r12
	mov	%rsp, %r14
	sub	$24, %rsp
	mov	%rsp, %rcx
	call	sig_dispatch
	test	%rax, %rax
	jz	1f
	mov	%rax, %r13
	mov	$14, %eax
	mov	$2, %edi
	mov	%rsp, %rsi
	xor	%edx, %edx
	mov	$8, %r10d
sig_go_sys:
	syscall
sig_go_done:
	mov	%rbx, %rdi
	mov	%rbp, %rsi
	mov	%r12, %rdx
	mov	%r14, %rsp
	xor	%eax, %eax
	jmp	*%r13
sig_go_end:
1:	mov	%r14, %rsp
	ret

/* Unwinders know a signal frame by these very bytes. */
	.p2align 4
	nop
	.globl restorer, restorer_end
restorer:
	mov	$15, %rax
	syscall
restorer_end:
	hlt

/* Copies between the program's memory and ours. A fault inside answers -1.
   ustr(to, from, max) copies a string and gives its length, max when it is longer. */
	.globl ucopy, ucopy_begin, ucopy_end, ucopy_fault, ustr
ucopy:
	cmp	$16, %rdx		/* times and vectors: rep takes long to begin */
	jne	1f
ucopy_begin:
	mov	(%rsi), %rax
	mov	8(%rsi), %rcx
	mov	%rax, (%rdi)
	mov	%rcx, 8(%rdi)
	xor	%eax, %eax
	ret
1:	mov	%rdx, %rcx
	rep movsb
	xor	%eax, %eax
	ret
ustr:
	xor	%eax, %eax
1:	mov	(%rsi,%rax), %cl
	mov	%cl, (%rdi,%rax)
	test	%cl, %cl
	jz	ucopy_end
	inc	%rax
	cmp	%rdx, %rax
	jb	1b
ucopy_end:
	ret
ucopy_fault:
	mov	$-1, %rax
	ret

/* vec_call(f, arg): runs code that uses xmm0…15 with the program's values kept */
	.globl vec_call
vec_call:
	push	%rbp
	mov	%rsp, %rbp
	sub	$256, %rsp
	and	$-64, %rsp
	.irp r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movaps	%xmm\r, 16*\r(%rsp)
	.endr
	mov	%rdi, %rax
	mov	%rsi, %rdi
	call	*%rax
	.irp r, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
	movaps	16*\r(%rsp), %xmm\r
	.endr
	leave
	ret

	.globl memcpy, memset
memcpy:
	mov	%rdi, %rax
	mov	%rdx, %rcx
	rep movsb
	ret
memset:
	mov	%rdi, %r8
	mov	%esi, %eax
	mov	%rdx, %rcx
	rep stosb
	mov	%r8, %rax
	ret

	.bss
	.globl boot_stack_top
	.p2align 12
	.skip STACK_SIZE
boot_stack_top:

	.section .note.GNU-stack,"",@progbits
