/* SPDX-License-Identifier: Apache-2.0 */
/* Words for error numbers, those that Go has for them. */
#include "words.h"

static const struct {
	uint8_t number;
	const char *words;
} table[] = {
	{ 1, "operation not permitted" },
	{ 2, "no such file or directory" },
	{ 4, "interrupted system call" },
	{ 5, "input/output error" },
	{ 7, "argument list too long" },
	{ 8, "exec format error" },
	{ 9, "bad file descriptor" },
	{ 11, "resource temporarily unavailable" },
	{ 12, "cannot allocate memory" },
	{ 13, "permission denied" },
	{ 14, "bad address" },
	{ 16, "device or resource busy" },
	{ 19, "no such device" },
	{ 20, "not a directory" },
	{ 21, "is a directory" },
	{ 22, "invalid argument" },
	{ 23, "too many open files in system" },
	{ 24, "too many open files" },
	{ 26, "text file busy" },
	{ 28, "no space left on device" },
	{ 30, "read-only file system" },
	{ 32, "broken pipe" },
	{ 34, "numerical result out of range" },
	{ 36, "file name too long" },
	{ 38, "function not implemented" },
	{ 40, "too many levels of symbolic links" },
	{ 80, "accessing a corrupted shared library" },
	{ 88, "socket operation on non-socket" },
	{ 95, "operation not supported" },
	{ 110, "connection timed out" },
	{ 116, "stale file handle" },
};

const char *words(int number)
{
	for (unsigned i = 0; i < sizeof(table) / sizeof(table[0]); i++)
		if (table[i].number == number)
			return table[i].words;
	return 0;
}
