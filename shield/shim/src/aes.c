/* SPDX-License-Identifier: Apache-2.0 */
/*
 * AES-256-GCM with AES-NI and PCLMULQDQ, and XAES-256-GCM's key derivation on top.
 * Compiled for legacy SSE encodings: only the low halves of the vector registers
 * change, and vec_call saves those. Nothing here depends on secrets in time.
 */
#define _MM_MALLOC_H_INCLUDED
#include <wmmintrin.h>
#include <smmintrin.h>
#include "seal.h"

typedef __m128i v;

static inline v load(const void *p) { return _mm_loadu_si128(p); }
static inline void store(void *p, v x) { _mm_storeu_si128(p, x); }
static inline v swap(v x)
{
	return _mm_shuffle_epi8(x, _mm_set_epi8(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15));
}

/* one step of the key schedule: fold the previous round key into itself */
static inline v fold(v k, v t)
{
	k = _mm_xor_si128(k, _mm_slli_si128(k, 4));
	k = _mm_xor_si128(k, _mm_slli_si128(k, 8));
	return _mm_xor_si128(k, t);
}

static void expand(v *rk, v a, v b)
{
	rk[0] = a;
	rk[1] = b;
#define ROUND(i, rcon) \
	rk[i] = a = fold(a, _mm_shuffle_epi32(_mm_aeskeygenassist_si128(b, rcon), 0xff)); \
	if (i < 14) \
		rk[i + 1] = b = fold(b, _mm_shuffle_epi32(_mm_aeskeygenassist_si128(a, 0), 0xaa))
	ROUND(2, 1); ROUND(4, 2); ROUND(6, 4); ROUND(8, 8); ROUND(10, 16); ROUND(12, 32); ROUND(14, 64);
#undef ROUND
}

static inline v encrypt(const v *rk, v x)
{
	x = _mm_xor_si128(x, rk[0]);
	for (int i = 1; i < 14; i++) x = _mm_aesenc_si128(x, rk[i]);
	return _mm_aesenclast_si128(x, rk[14]);
}

/* Products in GF(2^128) are summed before they are reduced. */
struct product { v lo, mid, hi; };

static inline void madd(struct product *p, v a, v b)
{
	p->lo = _mm_xor_si128(p->lo, _mm_clmulepi64_si128(a, b, 0x00));
	p->hi = _mm_xor_si128(p->hi, _mm_clmulepi64_si128(a, b, 0x11));
	p->mid = _mm_xor_si128(p->mid, _mm_xor_si128(_mm_clmulepi64_si128(a, b, 0x10), _mm_clmulepi64_si128(a, b, 0x01)));
}

static inline v reduce(const struct product *p)
{
	v lo = _mm_xor_si128(p->lo, _mm_slli_si128(p->mid, 8));
	v hi = _mm_xor_si128(p->hi, _mm_srli_si128(p->mid, 8));
	/* the operands are bit-reflected: the product is one bit short */
	v cl = _mm_srli_epi32(lo, 31), ch = _mm_srli_epi32(hi, 31);
	lo = _mm_or_si128(_mm_slli_epi32(lo, 1), _mm_slli_si128(cl, 4));
	hi = _mm_or_si128(_mm_or_si128(_mm_slli_epi32(hi, 1), _mm_slli_si128(ch, 4)), _mm_srli_si128(cl, 12));
	/* modulo x^128 + x^7 + x^2 + x + 1 */
	v t = _mm_xor_si128(_mm_slli_epi32(lo, 31), _mm_xor_si128(_mm_slli_epi32(lo, 30), _mm_slli_epi32(lo, 25)));
	v carry = _mm_srli_si128(t, 4);
	lo = _mm_xor_si128(lo, _mm_slli_si128(t, 12));
	t = _mm_xor_si128(_mm_srli_epi32(lo, 1), _mm_xor_si128(_mm_srli_epi32(lo, 2), _mm_srli_epi32(lo, 7)));
	return _mm_xor_si128(hi, _mm_xor_si128(lo, _mm_xor_si128(t, carry)));
}

static inline v mul(v a, v b)
{
	struct product p = { _mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128() };
	madd(&p, a, b);
	return reduce(&p);
}

struct gcm {
	v rk[15];
	v h[8];         /* H^1 … H^8 */
	v first;        /* encrypted counter 1, for the tag */
	v ctr;          /* the next counter block, big end first in memory */
	v sum;
};

static void ghash(struct gcm *g, const u8 *p, u64 n)
{
	while (n >= 128) {
		struct product s = { _mm_setzero_si128(), _mm_setzero_si128(), _mm_setzero_si128() };
		madd(&s, _mm_xor_si128(g->sum, swap(load(p))), g->h[7]);
		for (int i = 1; i < 8; i++) madd(&s, swap(load(p + 16 * i)), g->h[7 - i]);
		g->sum = reduce(&s);
		p += 128;
		n -= 128;
	}
	while (n) {
		u8 last[16] = { 0 };
		u64 k = n < 16 ? n : 16;
		for (u64 i = 0; i < k; i++) last[i] = p[i];
		g->sum = mul(_mm_xor_si128(g->sum, swap(load(last))), g->h[0]);
		p += k;
		n -= k;
	}
}

static void ctr(struct gcm *g, const u8 *in, u8 *out, u64 n)
{
	const v one = _mm_set_epi32(0, 0, 0, 1);
	v c = swap(g->ctr);
	while (n >= 128) {
		v x[8];
		for (int i = 0; i < 8; i++) {
			x[i] = _mm_xor_si128(swap(c), g->rk[0]);
			c = _mm_add_epi32(c, one);
		}
		for (int r = 1; r < 14; r++)
			for (int i = 0; i < 8; i++) x[i] = _mm_aesenc_si128(x[i], g->rk[r]);
		for (int i = 0; i < 8; i++)
			store(out + 16 * i, _mm_xor_si128(_mm_aesenclast_si128(x[i], g->rk[14]), load(in + 16 * i)));
		in += 128, out += 128, n -= 128;
	}
	while (n) {
		u8 b[16];
		u64 k = n < 16 ? n : 16;
		store(b, encrypt(g->rk, swap(c)));
		c = _mm_add_epi32(c, one);
		for (u64 i = 0; i < k; i++) out[i] = in[i] ^ b[i];
		in += k, out += k, n -= k;
	}
	g->ctr = swap(c);
}

static void start(struct gcm *g, const struct box *b)
{
	const v *rk = (const v *)b->key->rk;
	v k1 = load(b->key->k1), m[2];
	u8 n[16] = { 0, 1, 'X', 0 };
	for (int i = 0; i < 12; i++) n[4 + i] = b->salt[i];
	m[0] = encrypt(rk, _mm_xor_si128(k1, load(n)));
	n[1] = 2;
	m[1] = encrypt(rk, _mm_xor_si128(k1, load(n)));
	expand(g->rk, m[0], m[1]);
	v h = swap(encrypt(g->rk, _mm_setzero_si128()));
	g->h[0] = h;
	for (int i = 1; i < 8; i++) g->h[i] = mul(g->h[i - 1], h);
	u8 iv[16] = { b->level, 0, 0, 0 };
	for (int i = 0; i < 8; i++) iv[4 + i] = b->index >> 8 * i;
	iv[15] = 1;
	g->first = encrypt(g->rk, load(iv));
	iv[15] = 2;
	g->ctr = load(iv);
	g->sum = _mm_setzero_si128();
}

static v finish(struct gcm *g, u64 aad, u64 n)
{
	v len = _mm_set_epi64x(aad * 8, n * 8); /* already in the order that swap gives */
	g->sum = mul(_mm_xor_si128(g->sum, len), g->h[0]);
	return _mm_xor_si128(swap(g->sum), g->first);
}

static void aad_of(const struct box *b, u8 *a)
{
	const u8 head[8] = { 'S', 'F', 'S', '1', 1, b->cls, b->level, 12 };
	for (int i = 0; i < 8; i++) {
		a[i] = head[i];
		a[8 + i] = b->index >> 8 * i;
	}
	store(a + 16, load(b->volume));
	store(a + 32, load(b->file));
}

static v work(struct gcm *g, struct box *b, int sealing)
{
	u8 a[48];
	aad_of(b, a);
	start(g, b);
	ghash(g, a, 48);
	if (b->clear) { /* authenticated only: the content is part of the aad */
		ghash(g, b->in, b->n);
		if (b->out != b->in)
			for (u64 i = 0; i < b->n; i += 16) store(b->out + i, load(b->in + i));
		return finish(g, 48 + b->n, 0);
	}
	if (!sealing) ghash(g, b->in, b->n);
	ctr(g, b->in, b->out, b->n);
	if (sealing) ghash(g, b->out, b->n);
	return finish(g, 48, b->n);
}

static void wipe(struct gcm *g)
{
	for (u64 i = 0; i < sizeof *g / 16; i++) ((volatile v *)g)[i] = _mm_setzero_si128();
}

static u64 do_seal(void *p)
{
	struct box *b = p;
	struct gcm g;
	store(b->tag, work(&g, b, 1));
	wipe(&g);
	return 0;
}

static u64 do_open(void *p)
{
	struct box *b = p;
	struct gcm g;
	v d = _mm_xor_si128(work(&g, b, 0), load(b->tag));
	wipe(&g);
	return !_mm_testz_si128(d, d);
}

static u64 do_key(void *p)
{
	struct sealkey *k = p;
	v *rk = (v *)k->rk;
	u8 l[16];
	expand(rk, load(k->raw), load(k->raw + 16));
	store(l, encrypt(rk, _mm_setzero_si128()));
	for (int i = 0; i < 16; i++) k->k1[i] = l[i] << 1 | (i < 15 ? l[i + 1] >> 7 : 0);
	k->k1[15] ^= 0x87 & -(l[0] >> 7);
	store(k->raw, _mm_setzero_si128());
	store(k->raw + 16, _mm_setzero_si128());
	return 0;
}

void seal_box(struct box *b) { vec_call(do_seal, b); }

/* 0 when the tag is right; otherwise out holds nothing to be used. */
int open_box(struct box *b) { return vec_call(do_open, b); }

/* Expands key->raw, which is wiped. */
void seal_key(struct sealkey *k) { vec_call(do_key, k); }
