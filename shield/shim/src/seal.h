/* SPDX-License-Identifier: Apache-2.0 */
/* Cryptography of the volume: blocks, keys, hashes. */
#ifndef SEAL_H
#define SEAL_H

#include "shim.h"

/* A key of section 2.2 of docs/sealfs.md: round keys and K1, made from raw. */
struct sealkey {
	u8 rk[15][16] __attribute__((aligned(16)));
	u8 k1[16];
	u8 raw[32];
};

/* One block to seal or open. in and out may be the same. */
struct box {
	const struct sealkey *key;
	const u8 *volume, *file;        /* 16 bytes each */
	u8 cls, level, clear;
	u64 index, n;
	u8 salt[12];
	u8 tag[16];
	const u8 *in;
	u8 *out;
};

void seal_box(struct box *b);
int open_box(struct box *b);
void seal_key(struct sealkey *k);
u64 vec_call(u64 (*f)(void *), void *arg); /* entry.S: saves the vector registers */

void sha256(const u8 *p, u64 n, u8 out[32]);
void hmac_sha256(const u8 *key, u64 keylen, const u8 *msg, u64 n, u8 out[32]);
int same(const u8 *a, const u8 *b, u64 n); /* in constant time */

#endif
