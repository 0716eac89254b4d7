/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The last step before the workload: one task, no library, no allocation. The
 * OCI runtime executes it as /proc/self/fd/N inside the container. It confines
 * itself as the configuration on descriptor N+1 says, and becomes the workload.
 *
 * Everything that needs a system call which a filter might refuse is done before
 * the first filter. With filters in force there are only seccomp (for the next
 * filter), write and read (the gate), execve and exit_group; a filter that
 * refuses one of them ends the step.
 */
#include "config.h"
#include "sys.h"
#include "words.h"

/* Exit codes, as shells and engines use them. */
enum { FAILED = 125, NO_EXEC = 126, NOT_FOUND = 127 };

/* Bytes on the gate; config.go has the same. */
enum { REPORT = 'R', GO = 'G', NOT_EXECUTED = 'E', REFUSED = 'F' };

/*
 * A filter can answer EINTR for ever. The kernel cannot: no signal has a handler
 * after execve.
 */
enum { INTERRUPTIONS = 1 << 12 };

static int gate = -1;
static int filtered;
static char buffer[MAX_PATH + 1];
static char message[1024];
static size_t used;

ENTRY(step);

static _Noreturn void leave(int code)
{
	for (;;) {
		call(NR_exit_group, code);
		call(NR_exit, code);
		__builtin_trap();
	}
}

static void put(char c)
{
	/* Room for the newline stays. */
	if (used < sizeof(message) - 1)
		message[used++] = c;
}

/* append adds text to the message. What comes from outside does not reach a terminal's controls. */
static void append(const char *s)
{
	for (; *s; s++)
		put((u8)*s < ' ' || *s == 0x7f ? '?' : *s);
}

static void append_number(u64 n)
{
	char digits[20];
	int i = 0;
	do
		digits[i++] = '0' + n % 10;
	while (n /= 10);
	while (i)
		put(digits[--i]);
}

/*
 * refuse ends the step with a message: on the gate, whose other end has a better
 * place for it, or on standard error.
 */
static _Noreturn void refuse(int code, const char *what, const char *name, long number)
{
	put(REFUSED);
	append("palisade-init: ");
	append(what);
	if (name)
		append(name);
	if (number < 0) {
		append(": ");
		const char *w = words(-number);
		if (w) {
			append(w);
		} else {
			append("errno ");
			append_number(-number);
		}
	}
	long sent = -1;
	if (gate >= 0 && filtered)
		sent = call(NR_write, gate, message, used);
	else if (gate >= 0)
		sent = call(NR_sendto, gate, message, used, MSG_NOSIGNAL);
	if (sent != (long)used) {
		message[used++] = '\n';
		call(NR_write, 2, message + 1, used - 1);
	}
	leave(code);
}

/* decimal reads a number of up to seven digits and nothing else, or is -1. */
static long decimal(const char *s)
{
	long n = 0;
	int digits = 0;
	for (; *s >= '0' && *s <= '9' && digits < 8; s++, digits++)
		n = n * 10 + (*s - '0');
	return *s || !digits || digits > 7 ? -1 : n;
}

/* own_descriptor is the number in the path that the step was executed by, or -1. */
static int own_descriptor(const char *path)
{
	const char *number = path ? after(path, "/proc/self/fd/") : NULL;
	return number ? (int)decimal(number) : -1;
}

/*
 * read_config maps the configuration. Its seals say that no process changes or cuts
 * it while it is read.
 */
static void read_config(struct config *c, int fd)
{
	long seals = call(NR_fcntl, fd, F_GET_SEALS);
	if (seals < 0)
		refuse(FAILED, "no configuration", NULL, seals);
	if (~seals & (SEAL_WRITE | SEAL_SHRINK | SEAL_GROW))
		refuse(FAILED, "the configuration is not sealed", NULL, 0);
	long size = call(NR_lseek, fd, 0, SEEK_END);
	if (size <= 0 || size > MAX_CONFIG)
		refuse(FAILED, "no configuration", NULL, size < 0 ? size : -EINVAL);
	long at = call(NR_mmap, 0, size, PROT_READ, MAP_PRIVATE, fd, 0);
	if (at < 0 && at > -4096)
		refuse(FAILED, "read configuration", NULL, at);
	if (!decode(c, (const u8 *)at, size))
		refuse(FAILED, "malformed configuration of the last step", NULL, 0);
}

/*
 * in_proc opens a file of the container's /proc. It must be a whole procfs with
 * nothing mounted on the way: the container chose what is mounted there.
 */
static long in_proc(const char *name, int flags)
{
	struct statx st;
	struct {
		u64 flags, mode, resolve;
	} how = { flags | O_CLOEXEC, 0, RESOLVE_NO_XDEV | RESOLVE_NO_MAGICLINKS };
	u64 fs[16]; /* struct statfs; the type comes first */
	long proc = call(NR_openat, AT_FDCWD, "/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (proc < 0)
		return proc;
	long fd = call(NR_fstatfs, proc, fs);
	if (fd == 0)
		fd = call(NR_statx, proc, "", AT_EMPTY_PATH, STATX_INO, &st);
	if (fd == 0 && (fs[0] != PROC_SUPER_MAGIC || st.ino != PROC_ROOT_INO))
		fd = -ENODEV;
	if (fd == 0) {
		fd = call(NR_openat2, proc, name, &how, sizeof(how));
		if (fd == -ENOSYS || fd == -EPERM) {
			fd = call(NR_openat, proc, name, flags | O_CLOEXEC);
			if (fd >= 0 && (call(NR_fstatfs, fd, fs) != 0 || fs[0] != PROC_SUPER_MAGIC)) {
				call(NR_close, fd);
				fd = -ENODEV;
			}
		}
	}
	call(NR_close, proc);
	return fd;
}

/* close_from closes every descriptor from first on. */
static void close_from(int first)
{
	if (call(NR_close_range, first, -1u, 0) == 0)
		return;
	/* Before Linux 5.9, or refused by a filter of the runtime. */
	long dir = in_proc("self/fd", O_RDONLY | O_DIRECTORY);
	if (dir < 0)
		refuse(FAILED, "close descriptors", NULL, dir);
	long n;
	while ((n = call(NR_getdents64, dir, buffer, sizeof(buffer))) > 0) {
		for (long at = 0; at < n;) {
			/* struct linux_dirent64: the length at 16, the name at 19. */
			const char *entry = buffer + at;
			long fd = decimal(entry + 19);
			if (fd >= first && fd != dir)
				call(NR_close, fd);
			at += (u8)entry[16] | (u8)entry[17] << 8;
		}
	}
	if (n < 0)
		refuse(FAILED, "close descriptors", NULL, n);
	call(NR_close, dir);
}

/* listed tells whether mountinfo, which shows what is below the root, has a mount. */
static int listed(u64 id)
{
	long fd = in_proc("self/mountinfo", O_RDONLY);
	if (fd < 0)
		refuse(FAILED, "working directory: mounts", NULL, fd);
	u64 number = 0;
	int first = 1, found = 0;
	long n;
	while ((n = call(NR_read, fd, buffer, sizeof(buffer))) > 0) {
		for (long i = 0; i < n; i++) {
			if (buffer[i] == '\n') {
				first = 1;
				number = 0;
			} else if (first && buffer[i] >= '0' && buffer[i] <= '9') {
				number = number * 10 + (buffer[i] - '0');
			} else if (first) {
				found |= number == id;
				first = 0;
			}
		}
	}
	if (n < 0)
		refuse(FAILED, "working directory: mounts", NULL, n);
	call(NR_close, fd);
	return found;
}

/*
 * stay_inside refuses a working directory outside of the container, which is where
 * a descriptor that the runtime leaked leads to (CVE-2024-21626).
 *
 * The kernel finds no way from the working directory up to the root when there is
 * none, and says so. The way leads over mounts of one namespace; that this is the
 * container's shows in the mount of the working directory, so that a root outside
 * is refused as well.
 *
 * Source: fs/d_path.c, getcwd; fs/namespace.c, do_statmount.
 */
static void stay_inside(void)
{
	static const char outside[] = "working directory: it lies outside of the container";
	long n = call(NR_getcwd, buffer, sizeof(buffer));
	if (n < 0)
		refuse(FAILED, "working directory", NULL, n);
	if (n < 2 || buffer[0] != '/')
		refuse(FAILED, outside, NULL, 0);

	struct statx st;
	struct {
		u32 size, spare;
		u64 id, param;
	} request = { 24, 0, 0, 0 };
	n = call(NR_statx, AT_FDCWD, "", AT_EMPTY_PATH, STATX_MNT_ID_UNIQUE, &st);
	if (n == 0 && st.mask & STATX_MNT_ID_UNIQUE) {
		request.id = st.mnt_id;
		n = call(NR_statmount, &request, buffer, sizeof(buffer), 0);
		if (n == 0)
			return;
		if (n == -ENOENT)
			refuse(FAILED, outside, NULL, 0);
	}
	/* Before Linux 6.8, or refused by a filter of the runtime. */
	n = call(NR_statx, AT_FDCWD, "", AT_EMPTY_PATH, STATX_MNT_ID, &st);
	if (n < 0)
		refuse(FAILED, "working directory", NULL, n);
	if (!(st.mask & STATX_MNT_ID) || st.mnt_id == 0)
		return; /* before Linux 5.8 there is only the kernel's word from above; 0 is no mount that can be seen */
	if (!listed(st.mnt_id))
		refuse(FAILED, outside, NULL, 0);
}

/* change_profile puts this task under an AppArmor profile. Source: security/apparmor/lsm.c, do_setattr. */
static void change_profile(const char *profile)
{
	static const char command[] = "changeprofile ";
	static const char what[] = "AppArmor profile ";
	size_t at = 0;
	for (const char *s = command; *s; s++)
		buffer[at++] = *s;
	for (const char *s = profile; *s; s++)
		buffer[at++] = *s;
	long fd = in_proc("thread-self/attr/apparmor/current", O_WRONLY);
	/* Before Linux 5.8 there was one file for whichever module is there. */
	if (fd == -ENOENT)
		fd = in_proc("thread-self/attr/current", O_WRONLY);
	if (fd < 0)
		refuse(FAILED, what, profile, fd);
	/* A shorter name would be another profile. */
	long n = call(NR_write, fd, buffer, at);
	if (n != (long)at)
		refuse(FAILED, what, profile, n < 0 ? n : -EIO);
	call(NR_close, fd);
}
_Static_assert(sizeof("changeprofile ") + MAX_PROFILE <= sizeof(buffer), "a profile's name fits into one write");

/* limit_capabilities takes away what is neither allowed to be inherited nor to be ambient (CVE-2022-29162). */
static void limit_capabilities(u64 inheritable, u64 ambient)
{
	struct {
		u32 version;
		int pid;
	} header = { 0x20080522, 0 };
	struct {
		u32 effective, permitted, inheritable;
	} data[2];
	long e;
	if (ambient == 0) {
		e = call(NR_prctl, PR_CAP_AMBIENT, AMBIENT_CLEAR_ALL);
		if (e < 0)
			refuse(FAILED, "ambient capabilities", NULL, e);
	} else {
		for (int i = 0; i < 64; i++) {
			if (ambient >> i & 1)
				continue;
			e = call(NR_prctl, PR_CAP_AMBIENT, AMBIENT_LOWER, i);
			if (e == -EINVAL && i > 0)
				break; /* the kernel knows no more of them */
			if (e < 0)
				refuse(FAILED, "ambient capabilities", NULL, e);
		}
	}
	e = call(NR_capget, &header, data);
	if (e < 0)
		refuse(FAILED, "inheritable capabilities", NULL, e);
	u32 low = data[0].inheritable & (u32)inheritable, high = data[1].inheritable & (u32)(inheritable >> 32);
	if (low == data[0].inheritable && high == data[1].inheritable)
		return;
	data[0].inheritable = low;
	data[1].inheritable = high;
	e = call(NR_capset, &header, data);
	if (e < 0)
		refuse(FAILED, "inheritable capabilities", NULL, e);
}

/*
 * allow_path adds a rule of the domain. What cannot be reached need not be allowed.
 * A path through a link of the image leads somewhere else than the policy says, to
 * the whole root for example, and allows nothing.
 */
static void allow_path(int ruleset, u64 access, const char *path)
{
	/* Rights that a file can have: execute, write, read, truncate, ioctl on devices. */
	const u64 of_files = 1 << 0 | 1 << 1 | 1 << 2 | 1 << 14 | 1 << 15;
	struct statx st;
	struct {
		u64 flags, mode, resolve;
	} how = { O_PATH | O_CLOEXEC, 0, RESOLVE_NO_SYMLINKS };
	long fd = call(NR_openat2, AT_FDCWD, path, &how, sizeof(how));
	if (fd == -ENOENT || fd == -ENOTDIR || fd == -EACCES || fd == -ELOOP)
		return;
	if (fd < 0)
		refuse(FAILED, "landlock: ", path, fd);
	long e = call(NR_statx, fd, "", AT_EMPTY_PATH, STATX_TYPE, &st);
	if (e < 0)
		refuse(FAILED, "landlock: ", path, e);
	if ((st.mode & S_IFMT) != S_IFDIR)
		access &= of_files;
	struct __attribute__((packed)) {
		u64 access;
		int parent;
	} rule = { access, fd };
	if (access) {
		e = call(NR_landlock_add_rule, ruleset, LANDLOCK_RULE_PATH, &rule, 0);
		if (e < 0)
			refuse(FAILED, "landlock: allow ", path, e);
	}
	call(NR_close, fd);
}

/* enter makes this task a member of a Landlock domain. */
static void enter(const struct config *c)
{
	/* Older kernels refuse members that they do not know unless these are zero. */
	long ruleset = call(NR_landlock_create_ruleset, c->handled, sizeof(c->handled), 0);
	if (ruleset < 0)
		refuse(FAILED, "landlock: create ruleset", NULL, ruleset);
	struct reader r = c->path;
	for (u32 i = 0; i < c->paths; i++) {
		u64 access;
		const char *path;
		next_path(&r, &access, &path);
		allow_path(ruleset, access, path);
	}
	r = c->port;
	for (u32 i = 0; i < c->ports; i++) {
		u64 rule[2];
		next_port(&r, &rule[0], &rule[1]);
		long e = call(NR_landlock_add_rule, ruleset, LANDLOCK_RULE_PORT, rule, 0);
		if (e < 0)
			refuse(FAILED, "landlock: add port", NULL, e);
	}
	long e = call(NR_landlock_restrict_self, ruleset, 0);
	if (e < 0)
		refuse(FAILED, "landlock: restrict", NULL, e);
	call(NR_close, ruleset);
}

/* filter installs the system call filters; the last is the newest. */
static void filter(const struct config *c)
{
	struct reader r = c->filter;
	for (u32 i = 0; i < c->filters; i++) {
		struct {
			u16 instructions;
			const u8 *program;
		} program;
		u32 flags, n;
		next_filter(&r, &flags, &program.program, &n);
		program.instructions = n;
		long e = call(NR_seccomp, SECCOMP_SET_MODE_FILTER, flags, &program);
		if (e > 0)
			e = -EINVAL; /* a thread that cannot follow; there is none */
		if (e < 0)
			refuse(FAILED, "seccomp: install filter", NULL, e);
		filtered = 1;
	}
}

/* pass_gate says that everything is in force, and waits to be told to go on. */
static void pass_gate(void)
{
	char b[2] = { REPORT, 0 };
	long n;
	int tries = INTERRUPTIONS;
	while ((n = call(NR_write, gate, b, 1)) == -EINTR && --tries)
		;
	if (n != 1)
		leave(FAILED); /* no reader */
	b[0] = 0;
	tries = INTERRUPTIONS;
	while ((n = call(NR_read, gate, b, sizeof(b))) == -EINTR && --tries)
		;
	if (n != 1 || b[0] != GO)
		leave(FAILED); /* refused, or the other end is closed */
}

/*
 * activate makes LISTEN_PID name this task when sockets were passed on and it does
 * not. Runtimes write 1, which is right for the first process alone, or nothing.
 * Where the variable is missing, the arguments move into the place of the step's
 * own name, and it comes where they ended. The result is the workload's arguments.
 *
 * Source: sd_listen_fds(3).
 */
static char **activate(long argc, char **argv, char ***envp, int self)
{
	static char variable[32] = "LISTEN_PID=";
	long sockets = -1, pid = -1;
	int seen = 0, named = 0;
	for (char **e = *envp; *e; e++) {
		const char *v;
		if (sockets < 0 && (v = after(*e, "LISTEN_FDS=")))
			sockets = decimal(v);
		else if (!seen && (v = after(*e, "LISTEN_PID="))) {
			pid = decimal(v);
			seen = 1;
		}
	}
	if (sockets < 1 || sockets > self - 3)
		return argv + 1;
	long mine = call(NR_getpid);
	if (pid == mine)
		return argv + 1;
	used = 0;
	append_number(mine);
	for (size_t i = 0; i < used; i++)
		variable[11 + i] = message[i];
	used = 0;
	char **to = *envp;
	for (char **e = *envp; *e; e++) {
		if (after(*e, "LISTEN_PIDFDID="))
			continue; /* of the process that LISTEN_PID named */
		if (!after(*e, "LISTEN_PID="))
			*to++ = *e;
		else if (!named++)
			*to++ = variable;
	}
	*to = NULL;
	if (named)
		return argv + 1;
	for (long i = 0; i < argc; i++)
		argv[i] = argv[i + 1];
	*--*envp = variable;
	return argv;
}

/* try executes a file. It returns only when that failed. */
static long try(const char *path, char **argv, char **envp)
{
	long e = call(NR_execve, path, argv, envp);
	return e < 0 ? e : -EPERM; /* a filter can answer anything */
}

/*
 * become executes the workload, which it looks for in the last PATH of the
 * environment, and returns why it could not: -ENOENT when there is none, -EACCES
 * when one cannot be executed but another folder might have it.
 */
static long become(char **argv, char **envp)
{
	const char *name = argv[0], *search = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
	size_t n = 0;
	for (; name[n]; n++)
		if (name[n] == '/') {
			long e = try(name, argv, envp);
			return e == -ENOTDIR ? -ENOENT : e;
		}
	if (n == 0)
		return -ENOENT;
	if (n > 255)
		return -ENAMETOOLONG;
	for (char **e = envp; *e; e++) {
		const char *v = after(*e, "PATH=");
		if (v && *v)
			search = v;
	}
	long why = -ENOENT;
	for (;;) {
		size_t at = 0;
		for (; *search && *search != ':'; search++)
			if (at <= MAX_PATH)
				buffer[at++] = *search;
		if (at == 0)
			buffer[at++] = '.';
		if (at + 1 + n <= MAX_PATH) { /* a longer one cannot be there */
			buffer[at++] = '/';
			for (size_t i = 0; i <= n; i++)
				buffer[at++] = name[i];
			long e = try(buffer, argv, envp);
			if (e == -EACCES)
				why = e;
			else if (e != -ENOENT && e != -ENOTDIR)
				return e;
		}
		if (!*search++)
			return why;
	}
}

/* step is the whole program; stack is what the kernel has started it with. */
__attribute__((used)) static _Noreturn void step(long *stack)
{
	/* First of all: what runs in the container beside us must not trace us before we are confined. */
	long undumpable = call(NR_prctl, PR_SET_DUMPABLE, 0);
	long argc = stack[0];
	char **argv = (char **)(stack + 1), **envp = argv + argc + 1, **end = envp;
	while (*end)
		end++;
	int self = -1;
	for (u64 *aux = (u64 *)(end + 1); aux[0] != AT_NULL; aux += 2)
		if (aux[0] == AT_EXECFN)
			self = own_descriptor((const char *)aux[1]);
	if (self < 0 && argc > 0)
		self = own_descriptor(argv[0]);
	if (self < 3 || argc < 2)
		refuse(FAILED, "this program is for palisade to run inside containers", NULL, 0);
	if (undumpable < 0)
		refuse(FAILED, "protect from tracing", NULL, undumpable);

	struct config c;
	read_config(&c, self + 1);
	call(NR_close, self);
	call(NR_close, self + 1);
	int next = self + 2;
	long e;
	if (c.flags & FLAG_GATE) {
		e = call(NR_fcntl, next, F_SETFD, FD_CLOEXEC);
		if (e < 0)
			refuse(FAILED, "gate", NULL, e);
		gate = next++;
	}
	if (c.flags & FLAG_STDERR) {
		e = call(NR_dup3, next, 2, 0);
		if (e < 0)
			refuse(FAILED, "standard error", NULL, e);
	}
	close_from(next);
	stay_inside();
	char **args = activate(argc, argv, &envp, self);
	if (c.flags & FLAG_APPARMOR)
		change_profile(c.apparmor);
	if (c.flags & FLAG_NO_NEW_PRIVS) {
		e = call(NR_prctl, PR_SET_NO_NEW_PRIVS, 1);
		if (e < 0)
			refuse(FAILED, "no new privileges", NULL, e);
	}
	if (c.flags & FLAG_CAPABILITIES)
		limit_capabilities(c.inheritable, c.ambient);
	if (c.flags & FLAG_LANDLOCK)
		enter(&c);
	filter(&c);
	if (gate >= 0)
		pass_gate();

	e = become(args, envp);
	int code = e == -ENOENT ? NOT_FOUND : NO_EXEC;
	if (gate < 0)
		refuse(code, "exec ", args[0], e);
	/* Whoever holds the other end has better words for it. */
	u8 report[3] = { NOT_EXECUTED, code, -e };
	call(NR_write, gate, report, sizeof(report));
	leave(code);
}
