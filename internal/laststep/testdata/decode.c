/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last step's reader of configurations, for comparison with Decode: records
 * of a four-byte length and as many bytes come in, a line for each goes out.
 * With an argument it prints the words for error numbers.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "config.c"
#include "words.c"

static void hex(const void *p, size_t n)
{
	for (size_t i = 0; i < n; i++)
		printf("%02x", ((const uint8_t *)p)[i]);
}

static void show(const struct config *c)
{
	struct reader r;
	printf("%x", (unsigned)c->flags);
	if (c->flags & FLAG_APPARMOR) {
		printf(" a ");
		for (const char *s = c->apparmor; *s; s++)
			hex(s, 1);
	}
	if (c->flags & FLAG_CAPABILITIES)
		printf(" c %" PRIx64 " %" PRIx64, c->inheritable, c->ambient);
	if (c->flags & FLAG_LANDLOCK)
		printf(" l %" PRIx64 " %" PRIx64 " %" PRIx64, c->handled[0], c->handled[1], c->handled[2]);
	r = c->path;
	for (uint32_t i = 0; i < c->paths; i++) {
		uint64_t access;
		const char *path;
		next_path(&r, &access, &path);
		printf(" p %" PRIx64 " ", access);
		for (const char *s = path; *s; s++)
			hex(s, 1);
	}
	r = c->port;
	for (uint32_t i = 0; i < c->ports; i++) {
		uint64_t access, port;
		next_port(&r, &access, &port);
		printf(" t %" PRIx64 " %" PRIx64, access, port);
	}
	r = c->filter;
	for (uint32_t i = 0; i < c->filters; i++) {
		uint32_t flags, n;
		const uint8_t *program;
		next_filter(&r, &flags, &program, &n);
		printf(" f %x ", (unsigned)flags);
		hex(program, (size_t)n * INSTRUCTION);
	}
	printf("\n");
}

int main(int argc, char **argv)
{
	(void)argv;
	if (argc > 1) {
		for (int i = 0; i < 256; i++)
			printf("%s\n", words(i) ? words(i) : "");
		return 0;
	}
	uint32_t size;
	while (fread(&size, sizeof(size), 1, stdin) == 1) {
		/* Exactly as large as the bytes, so that a sanitizer sees a read behind them. */
		uint8_t *b = malloc(size ? size : 1);
		struct config c;
		if (!b || fread(b, 1, size, stdin) != size)
			return 1;
		uint8_t *exact = size ? b : b + 1;
		if (decode(&c, exact, size))
			show(&c);
		else
			printf("no\n");
		fflush(stdout);
		free(b);
	}
	return 0;
}
