// SPDX-License-Identifier: Apache-2.0

// Answers questions about a policy with libsepol, for tests that compare.
//
// usage: sepol POLICY
//
// All numbers are 32 bits, in the machine's byte order. First come the number of
// contexts and each context as length and text; the answer to each is 0 for an
// invalid one, or the length and text of its canonical form. Then come questions
// of five numbers: a letter, a class and up to three contexts, by index:
//   'd' source target      -> return code, allowed, auditallow, auditdeny
//   't' 'm' 'r' source target -> 0, or the length and text of a context
//   'v' from to process    -> return code
//   'f'                    -> nothing; what was answered is sent
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sepol/debug.h>
#include <sepol/policydb/services.h>
#include <sepol/sepol.h>

static void fail(const char *what)
{
	fprintf(stderr, "sepol: %s\n", what);
	exit(2);
}

static void get(void *p, size_t n)
{
	if (fread(p, 1, n, stdin) != n)
		fail("short input");
}

static void put(uint32_t v)
{
	fwrite(&v, sizeof(v), 1, stdout);
}

static void put_context(int rc, sepol_security_id_t sid)
{
	char *text;
	size_t len;

	if (rc || sepol_sid_to_context(sid, &text, &len)) {
		put(0);
		return;
	}
	len = strlen(text);
	put(len);
	fwrite(text, 1, len, stdout);
	free(text);
}

static uint32_t validate(sepol_security_id_t from, sepol_security_id_t to,
			 sepol_security_id_t process, uint32_t class)
{
	char *why = NULL;
	int rc = sepol_validate_transition_reason_buffer(from, to, process, class, &why, 0);

	free(why);
	return rc;
}

int main(int argc, char **argv)
{
	uint32_t count, i, len, q[5];
	int rc;
	sepol_security_id_t *sids, out;
	FILE *f;

	if (argc != 2 || !(f = fopen(argv[1], "r")))
		fail("cannot open the policy");
	sepol_debug(0);
	if (sepol_set_policydb_from_file(f))
		fail("libsepol refuses the policy");
	get(&count, sizeof(count));
	sids = calloc(count, sizeof(*sids));
	for (i = 0; i < count; i++) {
		char text[8192] = "";

		get(&len, sizeof(len));
		if (len >= sizeof(text))
			fail("long context");
		get(text, len);
		rc = sepol_context_to_sid(text, len + 1, &sids[i]);
		put_context(rc, sids[i]);
	}
	fflush(stdout);
	while (fread(q, sizeof(q), 1, stdin) == 1) {
		struct sepol_av_decision avd;

		memset(&avd, 0, sizeof(avd));
		switch (q[0]) {
		case 'd':
			rc = sepol_compute_av(sids[q[2]], sids[q[3]], q[1], ~0U, &avd);
			put(rc);
			put(avd.allowed);
			put(avd.auditallow);
			put(avd.auditdeny);
			break;
		case 't':
			rc = sepol_transition_sid(sids[q[2]], sids[q[3]], q[1], &out);
			put_context(rc, out);
			break;
		case 'm':
			rc = sepol_member_sid(sids[q[2]], sids[q[3]], q[1], &out);
			put_context(rc, out);
			break;
		case 'r':
			rc = sepol_change_sid(sids[q[2]], sids[q[3]], q[1], &out);
			put_context(rc, out);
			break;
		case 'v':
			put(validate(sids[q[2]], sids[q[3]], sids[q[4]], q[1]));
			break;
		case 'f':
			fflush(stdout);
			break;
		default:
			fail("unknown question");
		}
	}
	return 0;
}
