/* SPDX-License-Identifier: Apache-2.0 */
/* Numbers that C and assembly share. main.c asserts that they fit the C types. */
#ifndef LAYOUT_H
#define LAYOUT_H

/* The shim is linked here, far from where the kernel puts programs, libraries,
   heaps and stacks. The seccomp filter names this range by number. */
#define SHIM_BASE 0x100000000000
#define SHARED_BASE 0x110000000000

/* struct thread, addressed through %gs */
#define T_SELF 0
#define T_STACK 8    /* top of the shim's stack of this thread */
#define T_RET 16     /* where the program goes on */
#define T_FDTAB 24   /* two bytes per descriptor: not 0 = an open file of the volume */
#define T_PEND 32    /* a signal was put off (1), or the mask is to be restored (2) */
#define T_ACT 40     /* what to do after shim_syscall: ACT_* */
#define T_RESULT 48
#define T_MASK 56    /* signal mask to go back to */
#define F_RDI 64
#define F_RSI 72
#define F_RDX 80
#define F_R10 88
#define F_R8 96
#define F_R9 104
#define F_RAX 112
#define F_RSP 120
#define F_RBX 128
#define F_RBP 136
#define F_R12 144
#define F_R13 152
#define F_R14 160
#define F_R15 168
#define K_NR 176     /* the call to make instead: number and six arguments */
#define K_RDI 184
#define K_RSI 192
#define K_RDX 200
#define K_R10 208
#define K_R8 216
#define K_R9 224

#define ACT_RETURN 0 /* rax is the result */
#define ACT_PASS 1   /* make the call in K_* on the program's stack */
#define ACT_AGAIN 2  /* let the program make the same call again */

/* classes of system calls (sys_class[]) */
#define C_PASS 0     /* the kernel answers */
#define C_LEN 1      /* the kernel answers; the result must be <= the third argument */
#define C_FD 2       /* the kernel answers if the first argument is not our descriptor */
#define C_FDLEN 3    /* both */
#define C_SLOW 4     /* shim_syscall answers */
#define NR_MAX 512

#define STACK_SIZE 131072

#endif
