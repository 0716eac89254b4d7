/* SPDX-License-Identifier: Apache-2.0 */

/*
 * Builds filters with libseccomp for tests to compare with. Commands on standard
 * input, one a line, answers on standard output:
 *
 *   version                        -> MAJOR.MINOR.MICRO
 *   begin ACTION OPTIMIZE          a new filter, native ABI only
 *   arch TOKEN                     one more ABI (SCMP_ARCH_..., as a number)
 *   native 0                       take the native ABI away
 *   rule ACTION NAME N (ARG OP A B)*N   -> return code, 1 for an unknown name
 *   resolve TOKEN NAME             -> number, or 'error'
 *   export                         -> COUNT, then COUNT lines CODE JT JF K
 *   time                           -> nanoseconds that export alone took
 */
#include <errno.h>
#include <inttypes.h>
#include <seccomp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

struct insn { uint16_t code; uint8_t jt, jf; uint32_t k; };

static scmp_filter_ctx ctx;
static int64_t started;

static int64_t now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void export_filter(void)
{
	int fd = memfd_create("bpf", 0);
	int rc = seccomp_export_bpf(ctx, fd);
	if (rc < 0) {
		printf("error %d\n", rc);
		close(fd);
		return;
	}
	off_t size = lseek(fd, 0, SEEK_END);
	struct insn *p = malloc(size ? size : 1);
	if (pread(fd, p, size, 0) != size)
		exit(1);
	printf("%zu %" PRId64 "\n", size / sizeof(*p), now() - started);
	for (size_t i = 0; i < size / sizeof(*p); i++)
		printf("%u %u %u %u\n", p[i].code, p[i].jt, p[i].jf, p[i].k);
	free(p);
	close(fd);
}

int main(void)
{
	static char line[1 << 16];

	while (fgets(line, sizeof(line), stdin)) {
		char *save, *word = strtok_r(line, " \n", &save);
		if (!word)
			continue;
#define NEXT() strtoull(strtok_r(NULL, " \n", &save), NULL, 0)
		if (!strcmp(word, "version")) {
			const struct scmp_version *v = seccomp_version();
			printf("%u.%u.%u\n", v->major, v->minor, v->micro);
		} else if (!strcmp(word, "begin")) {
			if (ctx)
				seccomp_release(ctx);
			started = now();
			uint32_t action = NEXT();
			ctx = seccomp_init(action);
			seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, NEXT());
			seccomp_attr_set(ctx, SCMP_FLTATR_CTL_NNP, 0);
		} else if (!strcmp(word, "arch")) {
			printf("%d\n", seccomp_arch_add(ctx, NEXT()));
		} else if (!strcmp(word, "native")) {
			printf("%d\n", seccomp_arch_remove(ctx, SCMP_ARCH_NATIVE));
		} else if (!strcmp(word, "rule")) {
			uint32_t action = NEXT();
			char *name = strtok_r(NULL, " \n", &save);
			unsigned int n = NEXT();
			struct scmp_arg_cmp arg[6];
			for (unsigned int i = 0; i < n && i < 6; i++) {
				arg[i].arg = NEXT();
				arg[i].op = NEXT();
				arg[i].datum_a = NEXT();
				arg[i].datum_b = NEXT();
			}
			int nr = seccomp_syscall_resolve_name(name);
			printf("%d\n", nr == __NR_SCMP_ERROR ? 1 : seccomp_rule_add_array(ctx, action, nr, n, arg));
		} else if (!strcmp(word, "resolve")) {
			uint32_t token = NEXT();
			int nr = seccomp_syscall_resolve_name_arch(token, strtok_r(NULL, " \n", &save));
			if (nr == __NR_SCMP_ERROR)
				printf("error\n");
			else
				printf("%d\n", nr);
		} else if (!strcmp(word, "export")) {
			export_filter();
		}
		fflush(stdout);
	}
	return 0;
}
