/* SPDX-License-Identifier: Apache-2.0 */
/* The configuration of the last step, as config.go encodes it. */
#ifndef CONFIG_H
#define CONFIG_H

#include <stddef.h>
#include <stdint.h>

enum {
	FLAG_GATE = 1 << 0,
	FLAG_STDERR = 1 << 1,
	FLAG_LANDLOCK = 1 << 2,
	FLAG_NO_NEW_PRIVS = 1 << 3,
	FLAG_APPARMOR = 1 << 4,
	FLAG_CAPABILITIES = 1 << 5,
	KNOWN_FLAGS = (1 << 6) - 1,
};

/* Bounds; config.go has the same. */
enum {
	MAX_CONFIG = 16 << 20,
	MAX_RULES = 1 << 16,
	MAX_FILTERS = 64,
	MAX_INSTRUCTIONS = 4096, /* BPF_MAXINSNS */
	INSTRUCTION = 8,	 /* sizeof(struct sock_filter) */
	MAX_PATH = 4095,
	MAX_PROFILE = 4000,
	FILTER_FLAGS = 1 | 2 | 4, /* TSYNC, LOG, SPEC_ALLOW */
};

/* reader takes values off the front. After the first that is not there, bad is set and all that follow are zero. */
struct reader {
	const uint8_t *at;
	size_t left;
	int bad;
};

/* config is a view of an encoded configuration. The readers stand before the first element of each list. */
struct config {
	uint32_t flags;
	const char *apparmor;
	uint64_t inheritable, ambient;
	uint64_t handled[3]; /* files, network, scopes */
	uint32_t paths, ports, filters;
	struct reader path, port, filter;
};

/* decode reads a configuration and checks all of it. It returns 0 when the bytes are none. */
int decode(struct config *c, const uint8_t *bytes, size_t size);

/* Each of these takes one element off a list of a configuration that decode has checked. */
void next_path(struct reader *r, uint64_t *access, const char **path);
void next_port(struct reader *r, uint64_t *access, uint64_t *port);
void next_filter(struct reader *r, uint32_t *flags, const uint8_t **program, uint32_t *instructions);

#endif
