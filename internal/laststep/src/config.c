/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The reader of configurations. It allocates nothing and copies nothing, and it
 * accepts exactly what Decode in config.go accepts; the tests compare the two.
 */
#include "config.h"

static const uint8_t *take(struct reader *r, size_t n)
{
	const uint8_t *at = r->at;
	if (r->bad || n > r->left) {
		r->bad = 1;
		r->left = 0;
		return NULL;
	}
	r->at += n;
	r->left -= n;
	return at;
}

static uint32_t take32(struct reader *r)
{
	const uint8_t *b = take(r, 4);
	if (!b)
		return 0;
	return b[0] | (uint32_t)b[1] << 8 | (uint32_t)b[2] << 16 | (uint32_t)b[3] << 24;
}

static uint64_t take64(struct reader *r)
{
	uint64_t low = take32(r);
	return low | (uint64_t)take32(r) << 32;
}

static void spoil(struct reader *r)
{
	r->bad = 1;
	r->left = 0;
}

/* text takes a string of 1 to most bytes with a zero byte behind it and none inside. */
static const char *text(struct reader *r, uint32_t most)
{
	uint32_t n = take32(r);
	const uint8_t *b = NULL;
	if (n && n <= most)
		b = take(r, (size_t)n + 1);
	if (!b) {
		spoil(r);
		return "";
	}
	for (uint32_t i = 0; i <= n; i++) {
		if ((b[i] == 0) != (i == n)) {
			spoil(r);
			return "";
		}
	}
	return (const char *)b;
}

/* count takes a number of elements, of which each needs at least least bytes. */
static uint32_t count(struct reader *r, uint32_t most, uint32_t least)
{
	uint32_t n = take32(r);
	if (n > most || n > r->left / least) {
		spoil(r);
		return 0;
	}
	return n;
}

void next_path(struct reader *r, uint64_t *access, const char **path)
{
	*access = take64(r);
	*path = text(r, MAX_PATH);
	if (**path != '/')
		spoil(r);
}

void next_port(struct reader *r, uint64_t *access, uint64_t *port)
{
	*access = take64(r);
	*port = take64(r);
}

void next_filter(struct reader *r, uint32_t *flags, const uint8_t **program, uint32_t *instructions)
{
	*flags = take32(r);
	uint32_t n = take32(r);
	*program = NULL;
	if (n && n % INSTRUCTION == 0 && n / INSTRUCTION <= MAX_INSTRUCTIONS && !(*flags & ~(uint32_t)FILTER_FLAGS))
		*program = take(r, n);
	*instructions = n / INSTRUCTION;
	if (!*program)
		spoil(r);
}

int decode(struct config *c, const uint8_t *bytes, size_t size)
{
	struct reader r = { bytes, size, size > MAX_CONFIG };
	const uint8_t *magic = take(&r, 4);
	if (!magic || magic[0] != 'P' || magic[1] != 'L' || magic[2] != 'S' || magic[3] != 2)
		return 0;
	c->flags = take32(&r);
	c->apparmor = NULL;
	c->inheritable = c->ambient = 0;
	c->handled[0] = c->handled[1] = c->handled[2] = 0;
	c->paths = c->ports = 0;
	c->path = c->port = r;
	if (c->flags & ~(uint32_t)KNOWN_FLAGS)
		return 0;
	if (c->flags & FLAG_APPARMOR)
		c->apparmor = text(&r, MAX_PROFILE);
	if (c->flags & FLAG_CAPABILITIES) {
		c->inheritable = take64(&r);
		c->ambient = take64(&r);
	}
	if (c->flags & FLAG_LANDLOCK) {
		for (int i = 0; i < 3; i++)
			c->handled[i] = take64(&r);
		c->paths = count(&r, MAX_RULES, 14);
		c->path = r;
		for (uint32_t i = 0; i < c->paths && !r.bad; i++) {
			uint64_t access;
			const char *path;
			next_path(&r, &access, &path);
		}
		c->ports = count(&r, MAX_RULES, 16);
		c->port = r;
		for (uint32_t i = 0; i < c->ports && !r.bad; i++) {
			uint64_t access, port;
			next_port(&r, &access, &port);
		}
	}
	c->filters = count(&r, MAX_FILTERS, 16);
	c->filter = r;
	for (uint32_t i = 0; i < c->filters && !r.bad; i++) {
		uint32_t flags, n;
		const uint8_t *program;
		next_filter(&r, &flags, &program, &n);
	}
	return !r.bad && r.left == 0;
}
