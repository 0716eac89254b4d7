/* SPDX-License-Identifier: Apache-2.0 */
/* The program loader: scripts, static and dynamic ELF, and the stack that a new program finds. */
#include "shim.h"

struct ehdr {
	u8 ident[16];
	u16 type, machine;
	u32 version;
	u64 entry, phoff, shoff;
	u32 flags;
	u16 ehsize, phentsize, phnum, shentsize, shnum, shstrndx;
};
struct phdr {
	u32 type, flags;
	u64 offset, vaddr, paddr, filesz, memsz, align;
};
enum { PT_LOAD = 1, PT_DYNAMIC = 2, PT_INTERP = 3, MAX_PHDR = 64 };
enum { AT_PHDR = 3, AT_PHNUM = 5, AT_BASE = 7, AT_ENTRY = 9, AT_EXECFN = 31, AT_SYSINFO_EHDR = 33 };

static long read_headers(int fd, struct ehdr *eh, struct phdr *ph)
{
	if (shim_pread(fd, eh, sizeof *eh, 0) != sizeof *eh || memcmp(eh->ident, "\177ELF", 4)) return -ENOEXEC;
	if (eh->ident[4] != 2 || eh->ident[5] != 1 || eh->machine != 62 || (eh->type != 2 && eh->type != 3)) return -ENOEXEC;
	if (eh->phentsize != sizeof *ph || eh->phnum == 0 || eh->phnum > MAX_PHDR) return -ENOEXEC;
	if (shim_pread(fd, ph, eh->phnum * sizeof *ph, eh->phoff) != (long)(eh->phnum * sizeof *ph)) return -ENOEXEC;
	for (int i = 0; i < eh->phnum; i++)
		if (ph[i].type == PT_LOAD && (ph[i].vaddr + ph[i].memsz < ph[i].vaddr || ph[i].vaddr + ph[i].memsz > 1ul << 47 ||
			ph[i].memsz < ph[i].filesz || (ph[i].vaddr - ph[i].offset) % PAGE))
			return -ENOEXEC;
	return 0;
}

static long read_interp(int fd, struct ehdr *eh, struct phdr *ph, char *path)
{
	for (int i = 0; i < eh->phnum; i++) {
		if (ph[i].type != PT_INTERP) continue;
		if (ph[i].filesz < 2 || ph[i].filesz > 256 || shim_pread(fd, path, ph[i].filesz, ph[i].offset) != (long)ph[i].filesz)
			return -ENOEXEC;
		path[ph[i].filesz - 1] = 0;
		return 1;
	}
	return 0;
}

/* parse_script splits "#! interp arg"; answers 0 when it is none. */
static int parse_script(char *head, long n, char **interp, char **arg)
{
	if (n < 3 || head[0] != '#' || head[1] != '!') return 0;
	char *p = head + 2, *e = head + 2;
	while (e < head + n && *e != '\n') e++;
	*e = 0;
	while (*p == ' ' || *p == '\t') p++;
	*interp = p;
	while (*p && *p != ' ' && *p != '\t') p++;
	*arg = 0;
	if (*p) {
		*p++ = 0;
		while (*p == ' ' || *p == '\t') p++;
		while (e > p && (e[-1] == ' ' || e[-1] == '\t'))
			*--e = 0;
		if (*p)
			*arg = p;
	}
	return **interp != 0;
}

/* Whether the program could be started: what execve(2) would answer. */
int program_check(int fd, const char *path, int depth)
{
	char head[257], *interp, *arg;
	struct ehdr eh;
	struct phdr ph[MAX_PHDR];
	(void)path;
	long n = shim_pread(fd, head, 256, 0);
	if (n < 0) return n;
	if (parse_script(head, n, &interp, &arg)) {
		if (depth > 4) return -ELOOP;
	} else {
		if (read_headers(fd, &eh, ph)) return -ENOEXEC;
		n = read_interp(fd, &eh, ph, head);
		if (n <= 0) return n;
		interp = head;
		depth = 4;
	}
	int f = shim_open_exec(interp);
	if (f < 0) return f;
	n = program_check(f, interp, depth + 1);
	shim_close(f);
	return n;
}

struct image {
	u64 base, entry, phdr, phnum;
	char interp[257];
	int has_interp;
};

static void load_image(int fd, const char *path, struct image *im)
{
	static struct ehdr eh;
	static struct phdr ph[MAX_PHDR];
	struct thread *t = self();
	if (read_headers(fd, &eh, ph)) die("not a 64-bit x86 ELF program", path);
	u64 lo = ~0ul, hi = 0, align = PAGE, bias = 0;
	for (int i = 0; i < eh.phnum; i++)
		if (ph[i].type == PT_LOAD) {
			lo = MIN(lo, ph[i].vaddr & -PAGE);
			hi = MAX(hi, ALIGN_UP(ph[i].vaddr + ph[i].memsz, PAGE));
			if (ph[i].align > align && !(ph[i].align & (ph[i].align - 1)) && ph[i].align <= 1 << 21)
				align = ph[i].align;
		}
	if (lo >= hi) die("the program has nothing to load", path);
	if (eh.type == 3) {
		long a = H(NR_mmap, 0, hi - lo + align, 0, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
		if (IS_ERR(a)) die("no address space for the program", path);
		bias = ALIGN_UP((u64)a, align) - lo;
		if (bias + lo > (u64)a) H(NR_munmap, a, bias + lo - a);
		if (a + align > bias + lo)
			H(NR_munmap, bias + hi, a + align - (bias + lo));
	} else if (trusted_range(lo, hi - lo) ||
		H(NR_mmap, lo, hi - lo, 0, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE, -1, 0) != (long)lo) {
		die("the addresses that the program wants are taken", path);
	}
	im->has_interp = read_interp(fd, &eh, ph, im->interp);
	for (int i = 0; i < eh.phnum; i++) {
		struct phdr *p = &ph[i];
		if (p->type != PT_LOAD) continue;
		u64 prot = (p->flags & 4 ? PROT_READ : 0) | (p->flags & 2 ? PROT_WRITE : 0) | (p->flags & 1 ? PROT_EXEC : 0);
		u64 in = p->vaddr & (PAGE - 1), a = bias + p->vaddr - in, file_end = bias + p->vaddr + p->filesz;
		u64 mem_end = ALIGN_UP(bias + p->vaddr + p->memsz, PAGE), zero = a;
		if (p->filesz) {
			long r = shim_mmap(t, a, p->filesz + in, prot, MAP_PRIVATE | MAP_FIXED, fd, p->offset - in);
			if (r != (long)a) die("cannot map the program", path);
			zero = ALIGN_UP(file_end, PAGE);
			if (p->memsz > p->filesz && prot & PROT_WRITE)
				memset((void *)file_end, 0, zero - file_end); /* to the page's end: ld.so allocates there */
		}
		if (mem_end > zero && H(NR_mmap, zero, mem_end - zero, prot, MAP_PRIVATE | MAP_FIXED | MAP_ANONYMOUS, -1, 0) != (long)zero)
			die("no memory for the program", path);
		if (eh.phoff >= p->offset && eh.phoff < p->offset + p->filesz)
			im->phdr = bias + p->vaddr + eh.phoff - p->offset;
	}
	im->base = bias + (eh.type == 3 ? lo : 0);
	im->entry = bias + eh.entry;
	im->phnum = eh.phnum;
}

/* The kernel's page of time functions. The program does not see it; we use it. */
long (*vdso_gettime)(u64 clock, u64 *ts);
u64 vdso_base, vdso_end;

static void find_vdso(u64 base)
{
	struct ehdr *eh = (void *)base;
	struct phdr *ph = (void *)(base + eh->phoff);
	u64 size = 0, strtab = 0, symtab = 0;
	for (int i = 0; i < eh->phnum; i++) {
		if (ph[i].type == PT_LOAD) size = ALIGN_UP(ph[i].vaddr + ph[i].memsz, PAGE);
		for (u64 *d = (u64 *)(base + ph[i].vaddr); ph[i].type == PT_DYNAMIC && *d; d += 2) {
			if (*d == 5) strtab = d[1];
			if (*d == 6) symtab = d[1];
		}
	}
	for (struct { u32 name; u8 info, other; u16 shndx; u64 value, size; } *y = (void *)(base + symtab); symtab && (u64)y < base + strtab; y++)
		if (streq((char *)base + strtab + y->name, "__vdso_clock_gettime")) {
			vdso_base = base;
			vdso_end = base + size;
			vdso_gettime = (void *)(base + y->value);
		}
}

/*
 * program_load maps the program (fd, or the file at path when fd < 0) and puts
 * onto the thread's frame how it starts. The vectors of arguments, environment and
 * auxiliary values are built anew below the ones that the kernel made for us.
 */
void program_load(int fd, const char *path, u64 *sp)
{
	static char heads[5][257];
	static struct image im, ld;
	const char *prefix[16];
	int nprefix = 0;
	struct thread *t = self();
	if (fd < 0 && (fd = shim_open_exec(path)) < 0)
		die(fd == -EACCES ? "permission denied" : "no such program", path);
	const char *file = path;
	for (int depth = 0;; depth++) {
		char *interp, *arg;
		long n = shim_pread(fd, heads[depth], 256, 0);
		if (n < 0) die("cannot read", file);
		if (!parse_script(heads[depth], n, &interp, &arg)) break;
		if (depth == 4) die("scripts are nested too deeply", path);
		/* prefix is kept in reverse: the last interpreter comes first in argv */
		prefix[nprefix++] = file;
		if (arg) prefix[nprefix++] = arg;
		prefix[nprefix] = interp;
		shim_close(fd);
		file = interp;
		fd = shim_open_exec(interp);
		if (fd < 0) die("the script's interpreter cannot be opened", interp);
	}
	if (nprefix) nprefix++;
	long n = 0;
	char link[40];
	if (!sealed_path(t, file, exe_path)) {
		put_num(put_str(link, "/proc/self/fd/"), fd);
		n = H(NR_readlink, link, exe_path, sizeof exe_path - 1);
		exe_path[n > 0 ? n : 0] = 0;
	}
	load_image(fd, file, &im);
	shim_close(fd);
	u64 entry = im.entry;
	if (im.has_interp) {
		fd = shim_open_exec(im.interp);
		if (fd < 0)
			die("the program's interpreter (dynamic loader) cannot be opened", im.interp);
		load_image(fd, im.interp, &ld);
		if (ld.has_interp) die("the interpreter wants an interpreter", im.interp);
		shim_close(fd);
		entry = ld.entry;
	}
	const char *comm = file;
	for (const char *p = path; *p; p++)
		if (*p == '/') comm = p + 1;
	if (!comm[0] || comm == file) comm = path;
	H(NR_prctl, 15, comm);

	u64 argc = sp[0];
	char **argv = (char **)(sp + 1), **env = argv + argc + 1;
	u64 nenv = 0, naux = 0;
	while (env[nenv]) nenv++;
	u64 *aux = (u64 *)(env + nenv + 1);
	while (aux[2 * naux]) naux++;
	u64 words = 1 + argc + nprefix + 2 + nenv + 1 + 2 * (naux + 1);
	u64 *to = (u64 *)(((u64)sp - words * 8 - 256) & -16ul), *d = to;
	u64 *count = d++;
	for (int i = nprefix; i-- > 0;)
		*d++ = (u64)prefix[i];
	for (u64 i = nprefix ? 1 : 0; i < argc; i++)
		*d++ = (u64)argv[i];
	*count = d - to - 1;
	*d++ = 0;
	for (u64 i = 0; i < nenv; i++)
		if (!has_prefix(env[i], "PALISADE_SHIM="))
			*d++ = (u64)env[i];
	*d++ = 0;
	for (u64 i = 0; i < naux; i++) {
		u64 k = aux[2 * i], v = aux[2 * i + 1];
		switch (k) {
		case AT_SYSINFO_EHDR: find_vdso(v); continue; /* time comes through us */
		case AT_PHDR: v = im.phdr; break;
		case AT_PHNUM: v = im.phnum; break;
		case AT_BASE: v = im.has_interp ? ld.base : 0; break;
		case AT_ENTRY: v = im.entry; break;
		case AT_EXECFN: v = (u64)path; break;
		}
		*d++ = k;
		*d++ = v;
	}
	*d++ = 0;
	*d++ = 0;
	t->ret = entry;
	t->f.rsp = (u64)to;
}
