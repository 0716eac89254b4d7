// SPDX-License-Identifier: Apache-2.0

// A library to preload into crun: says what crun's own parser took from each
// command line that it reads from standard input, without running the command.
//
// Request, one a line: a letter, then each argument in hexadecimal with a dot
// before it. P parses; T also prints the tables of options.
// Answer, lines: "c NAME" the command, "o PHASE KEY HEX" an option, "r HEX" an argument that is none,
// "t PHASE KEY FLAGS ARG NAME" a row of a table, "passed" when the count of
// arguments was accepted, "end STATUS" last.
//
// crun's main is called in a new process for each request, so that nothing of
// one line is left for the next.
#define _GNU_SOURCE
#include <argp.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

static FILE *out;
static int phase, tables;
static argp_parser_t original;

static void hex(const char *s) {
	for (; s && *s; s++)
		fprintf(out, "%02x", (unsigned char)*s);
}

static void passed(void) {
	if (phase != 3)
		return;
	fprintf(out, "passed\n");
	fflush(out);
	_exit(0);
}

static error_t record(int key, char *arg, struct argp_state *state) {
	if (key != ARGP_KEY_ARG && !(key & 0x1000000)) {
		fprintf(out, "o %d %d ", phase, key);
		hex(arg);
		fprintf(out, "%s\n", arg ? "" : "-");
		fflush(out);
	}
	return original(key, arg, state);
}

error_t argp_parse(const struct argp *argp, int argc, char **argv, unsigned flags, int *index, void *input) {
	error_t (*real)(const struct argp *, int, char **, unsigned, int *, void *) = dlsym(RTLD_NEXT, "argp_parse");
	struct argp copy = *argp;
	int at = 0;
	phase++;
	if (phase == 2 && argp->args_doc)
		fprintf(out, "c %.*s\n", (int)strcspn(argp->args_doc, " "), argp->args_doc);
	if (tables)
		for (const struct argp_option *o = argp->options; o && (o->name || o->key); o++)
			fprintf(out, "t %d %d %d %s %s\n", phase, o->key, o->flags, o->arg ? o->arg : "-", o->name ? o->name : "-");
	original = argp->parser;
	copy.parser = record;
	error_t err = real(&copy, argc, argv, flags, &at, input);
	if (index)
		*index = at;
	if (phase == 2) {
		for (int i = at; i < argc; i++) {
			fprintf(out, "r ");
			hex(argv[i]);
			fprintf(out, "\n");
		}
		fflush(out);
		phase = 3;
	}
	return err;
}

// What crun calls next once it has accepted the count of arguments.
char *getenv(const char *name) {
	static char *(*real)(const char *);
	passed();
	if (!real)
		real = dlsym(RTLD_NEXT, "getenv");
	return real(name);
}

char *realpath(const char *path, char *to) {
	passed();
	(void)path, (void)to;
	errno = ENOENT;
	return NULL;
}

char *getcwd(char *to, size_t n) {
	passed();
	(void)to, (void)n;
	errno = ENOENT;
	return NULL;
}

int chdir(const char *path) {
	passed();
	(void)path;
	errno = ENOENT;
	return -1;
}

static int (*crun)(int, char **, char **);

static int serve(int argc, char **argv, char **env) {
	char *line = NULL;
	size_t room = 0;
	ssize_t n;
	(void)argc;
	out = fdopen(dup(1), "w");
	FILE *in = fdopen(dup(0), "r");
	int null = open("/dev/null", O_RDWR);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	while ((n = getline(&line, &room, in)) > 0) {
		int count = 0;
		for (ssize_t i = 0; i < n; i++)
			count += line[i] == '.';
		char **args = calloc(count + 2, sizeof *args), *text = calloc(n + 1, 1), *to = text;
		args[0] = argv[0];
		int at = 0;
		for (ssize_t i = 1; i < n && line[i] != '\n';) {
			if (line[i] == '.') {
				if (at)
					to++;
				args[++at] = to;
				i++;
				continue;
			}
			char pair[3] = {line[i], line[i + 1], 0};
			*to++ = (char)strtol(pair, NULL, 16);
			i += 2;
		}
		fflush(out);
		pid_t child = fork();
		if (child == 0) {
			tables = line[0] == 'T';
			alarm(1); // argp's --HANG sleeps for an hour
			exit(crun(at + 1, args, env));
		}
		int status = 0;
		waitpid(child, &status, 0);
		fprintf(out, "end %d\n", WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
		fflush(out);
		free(args);
		free(text);
	}
	_exit(0);
}

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv, void (*init)(void), void (*fini)(void),
		      void (*loader)(void), void *stack) {
	int (*real)(int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void), void (*)(void), void *) =
		dlsym(RTLD_NEXT, "__libc_start_main");
	crun = main;
	return real(serve, argc, argv, init, fini, loader, stack);
}
