// SPDX-License-Identifier: Apache-2.0
// Calls that would go around the shield must fail, each with its own error.
#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

static int bad;

static void want(const char *name, long r, int err)
{
	if (r != -1 || errno != err) {
		printf("%s: result %ld, errno %d\n", name, r, errno);
		bad = 1;
	}
}

int main(void)
{
	char b[256] = { 0 };
	want("io_uring_setup", syscall(SYS_io_uring_setup, 8, b), ENOSYS);
	want("ptrace", syscall(SYS_ptrace, 0, 0, 0, 0), EPERM);
	want("process_vm_readv", syscall(SYS_process_vm_readv, getpid(), 0, 0, 0, 0, 0), EPERM);
	want("process_vm_writev", syscall(SYS_process_vm_writev, getpid(), 0, 0, 0, 0, 0), EPERM);
	want("userfaultfd", syscall(SYS_userfaultfd, 0), EPERM);
	want("perf_event_open", syscall(SYS_perf_event_open, b, 0, 0, -1, 0), EPERM);
	want("bpf", syscall(SYS_bpf, 0, b, sizeof b), EPERM);
	want("dispatch off", prctl(59, 0, 0, 0, 0), EINVAL);
	want("gs base", syscall(SYS_arch_prctl, 0x1001, b), EPERM);
	want("unmap the shim", munmap((void *)0x100000000000, 4096), EINVAL);
	want("protect the shim", mprotect((void *)0x100000000000, 4096, PROT_READ), EACCES);
	want("map over the shim", (long)mmap((void *)0x100000000000, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0), EPERM);
	for (int fd = 0; fd < 2048; fd++)
		if (fd > 2)
			close(fd);
	if (access("/proc/self/exe", F_OK))
		bad = 1;
	return bad;
}
