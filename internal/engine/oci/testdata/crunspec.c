// SPDX-License-Identifier: Apache-2.0

/* Reads OCI configurations as crun does, with the library of crun's package, and
 * prints what it has read. A request and an answer are a length in decimal, a line
 * feed, and so many bytes; an answer that starts with "!" is an error. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct parser_context
{
  unsigned int options;
  FILE *errfile;
};

void *runtime_spec_schema_config_schema_parse_data (const char *json, const struct parser_context *ctx, char **err);
char *runtime_spec_schema_config_schema_generate_json (const void *spec, const struct parser_context *ctx, char **err);
void free_runtime_spec_schema_config_schema (void *spec);

static void
answer (const char *mark, const char *text)
{
  printf ("%zu\n%s%s", strlen (mark) + strlen (text), mark, text);
  fflush (stdout);
}

int
main (void)
{
  size_t n;
  /* Options as in crun's libcrun_container_load_from_memory. */
  struct parser_context ctx = { 0, stderr };

  while (scanf ("%zu", &n) == 1 && getchar () == '\n' && n < (1 << 24))
    {
      char *err = NULL, *out, *raw = calloc (n + 1, 1);
      void *spec;

      if (raw == NULL || fread (raw, 1, n, stdin) != n)
        return 1;
      spec = runtime_spec_schema_config_schema_parse_data (raw, &ctx, &err);
      if (spec == NULL)
        answer ("!", err ? err : "refused");
      else
        {
          out = runtime_spec_schema_config_schema_generate_json (spec, &ctx, &err);
          if (out == NULL)
            answer ("!generate: ", err ? err : "");
          else
            answer ("", out);
          free (out);
          free_runtime_spec_schema_config_schema (spec);
        }
      free (err);
      free (raw);
    }
  return 0;
}
