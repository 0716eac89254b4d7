/* SPDX-License-Identifier: Apache-2.0 */
/* Strings, numbers, messages and locks. memcpy and memset are in entry.S. */
#include "shim.h"

void *memmove(void *d, const void *s, size_t n)
{
	u8 *a = d;
	const u8 *b = s;
	if (a <= b || a >= b + n) return memcpy(d, s, n);
	while (n--) a[n] = b[n];
	return d;
}

int memcmp(const void *a, const void *b, size_t n)
{
	const u8 *x = a, *y = b;
	for (size_t i = 0; i < n; i++)
		if (x[i] != y[i]) return x[i] - y[i];
	return 0;
}

size_t strlen(const char *s)
{
	size_t n = 0;
	while (s[n]) n++;
	return n;
}

int streq(const char *a, const char *b)
{
	while (*a && *a == *b) a++, b++;
	return *a == *b;
}

int has_prefix(const char *s, const char *prefix)
{
	while (*prefix)
		if (*s++ != *prefix++) return 0;
	return 1;
}

char *put_str(char *d, const char *s)
{
	while (*s)
		*d++ = *s++;
	*d = 0;
	return d;
}

char *put_num(char *d, u64 v)
{
	char b[24];
	int i = sizeof b;
	do
		b[--i] = '0' + v % 10;
	while (v /= 10);
	while (i < (int)sizeof b)
		*d++ = b[i++];
	*d = 0;
	return d;
}

u64 get_num(const char **s)
{
	u64 v = 0;
	while (**s >= '0' && **s <= '9') v = v * 10 + (*(*s)++ - '0');
	return v;
}

void say(const char *kind, const char *msg, const char *detail)
{
	char b[1400], *p = b;
	p = put_str(put_str(put_str(p, "palisade: "), kind), ": ");
	p = put_str(p, msg);
	if (detail) {
		p = put_str(p, ": ");
		for (int i = 0; i < 1024 && detail[i]; i++)
			*p++ = detail[i] < ' ' ? '?' : detail[i];
	}
	*p++ = '\n';
	H(NR_write, 2, b, p - b);
}

void die(const char *msg, const char *detail)
{
	say("error", msg, detail);
	for (;;) H(NR_exit_group, 125);
}

/* A futex lock for memory of one process or of several: 0 free, 1 held, 2 waited for. */
void lock(struct lock *l)
{
	u32 c = __sync_val_compare_and_swap(&l->v, 0, 1);
	while (c) {
		if (c == 2 || __sync_val_compare_and_swap(&l->v, 1, 2)) H(NR_futex, &l->v, 0, 2, 0);
		c = __sync_val_compare_and_swap(&l->v, 0, 2);
	}
}

void unlock(struct lock *l)
{
	if (__sync_fetch_and_sub(&l->v, 1) != 1) {
		__atomic_store_n(&l->v, 0, __ATOMIC_RELEASE);
		H(NR_futex, &l->v, 1, 1);
	}
}
