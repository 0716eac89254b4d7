/* SPDX-License-Identifier: Apache-2.0 */
/* SHA-256 and HMAC, for keys and roots only: short inputs, no hurry. */
#include "seal.h"

static const u32 K[64] = {
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
};

static u32 ror(u32 x, int n) { return x >> n | x << (32 - n); }

static void block(u32 *s, const u8 *p)
{
	u32 w[64], a = s[0], b = s[1], c = s[2], d = s[3], e = s[4], f = s[5], g = s[6], h = s[7];
	for (int i = 0; i < 16; i++)
		w[i] = (u32)p[4 * i] << 24 | p[4 * i + 1] << 16 | p[4 * i + 2] << 8 | p[4 * i + 3];
	for (int i = 16; i < 64; i++)
		w[i] = w[i - 16] + w[i - 7] + (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
			(ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
	for (int i = 0; i < 64; i++) {
		u32 x = h + (ror(e, 6) ^ ror(e, 11) ^ ror(e, 25)) + ((e & f) ^ (~e & g)) + K[i] + w[i];
		u32 y = (ror(a, 2) ^ ror(a, 13) ^ ror(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
		h = g, g = f, f = e, e = d + x, d = c, c = b, b = a, a = x + y;
	}
	s[0] += a, s[1] += b, s[2] += c, s[3] += d, s[4] += e, s[5] += f, s[6] += g, s[7] += h;
}

struct sha { u32 s[8]; u64 n; u8 buf[64]; };

static void begin(struct sha *c)
{
	static const u32 iv[8] = { 0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19 };
	memcpy(c->s, iv, sizeof iv);
	c->n = 0;
}

static void add(struct sha *c, const u8 *p, u64 n)
{
	for (u64 i = 0; i < n; i++) {
		c->buf[c->n++ % 64] = p[i];
		if (c->n % 64 == 0) block(c->s, c->buf);
	}
}

static void end(struct sha *c, u8 *out)
{
	u64 bits = c->n * 8;
	u8 pad = 0x80, len[8];
	add(c, &pad, 1);
	for (pad = 0; c->n % 64 != 56;) add(c, &pad, 1);
	for (int i = 0; i < 8; i++) len[i] = bits >> (56 - 8 * i);
	add(c, len, 8);
	for (int i = 0; i < 32; i++) out[i] = c->s[i / 4] >> (24 - 8 * (i % 4));
	memset(c, 0, sizeof *c);
}

void sha256(const u8 *p, u64 n, u8 out[32])
{
	struct sha c;
	begin(&c);
	add(&c, p, n);
	end(&c, out);
}

void hmac_sha256(const u8 *key, u64 keylen, const u8 *msg, u64 n, u8 out[32])
{
	u8 k[64] = { 0 }, inner[32];
	struct sha c;
	memcpy(k, key, keylen); /* never more than 64 bytes here */
	for (int i = 0; i < 64; i++) k[i] ^= 0x36;
	begin(&c);
	add(&c, k, 64);
	add(&c, msg, n);
	end(&c, inner);
	for (int i = 0; i < 64; i++) k[i] ^= 0x36 ^ 0x5c;
	begin(&c);
	add(&c, k, 64);
	add(&c, inner, 32);
	end(&c, out);
	memset(k, 0, sizeof k);
}

int same(const u8 *a, const u8 *b, u64 n)
{
	u8 d = 0;
	for (u64 i = 0; i < n; i++) d |= a[i] ^ b[i];
	return d == 0;
}
