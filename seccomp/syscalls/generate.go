// SPDX-License-Identifier: Apache-2.0

//go:build ignore

// Command generate makes tables.go from data.txt, and data.txt from its sources.
//
//	go run generate.go
//	go run generate.go -collect -linux DIR -sys DIR -man FILE -systemd FILE
//
// The sources that data.txt names in its head: the system call tables and
// definitions of a Linux source tree, the numbers in golang.org/x/sys/unix (which
// come from a newer kernel's headers), the versions in the manual page
// syscalls(2), and the groups of systemd's seccomp-util.c. Only facts are taken
// from them: names, numbers, argument types, versions, membership.
package main

import (
	"bufio"
	"bytes"
	"cmp"
	"compress/gzip"
	"flag"
	"fmt"
	"go/format"
	"io"
	"io/fs"
	"log"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// abis in the order of the constants in arch.go. golang is the GOARCH whose
// numbers x/sys has; table is a kernel table with the ABI columns that count.
var abis = []struct {
	name, constant, golang, table string
	columns                       []string
	base                          uint32
	bits                          int
	floor                         string // no call is older on this ABI
}{
	{"amd64", "X86_64", "amd64", "arch/x86/entry/syscalls/syscall_64.tbl", []string{"common", "64"}, 0, 64, "2.4"},
	{"x86", "X86", "386", "arch/x86/entry/syscalls/syscall_32.tbl", []string{"i386"}, 0, 32, "1.0"},
	{"x32", "X32", "", "arch/x86/entry/syscalls/syscall_64.tbl", []string{"common", "x32"}, 0x40000000, 64, "3.4"},
	{"arm64", "ARM64", "arm64", "", nil, 0, 64, "3.7"},
	{"arm", "ARM", "arm", "arch/arm/tools/syscall.tbl", []string{"common", "eabi"}, 0, 32, "2.6.16"},
	{"riscv64", "RISCV64", "riscv64", "", nil, 0, 64, "4.15"},
	{"ppc64le", "PPC64LE", "ppc64le", "arch/powerpc/kernel/syscalls/syscall.tbl", []string{"common", "64", "nospu"}, 0, 64, "3.13"},
	{"ppc64", "PPC64", "ppc64", "arch/powerpc/kernel/syscalls/syscall.tbl", []string{"common", "64", "nospu"}, 0, 64, "2.6"},
	{"ppc", "PPC", "ppc", "arch/powerpc/kernel/syscalls/syscall.tbl", []string{"common", "32", "nospu"}, 0, 32, "1.0"},
	{"s390x", "S390X", "s390x", "arch/s390/kernel/syscalls/syscall.tbl", []string{"common", "64"}, 0, 64, "2.4"},
	{"s390", "S390", "", "arch/s390/kernel/syscalls/syscall.tbl", []string{"common", "32"}, 0, 32, "2.2"},
	{"loong64", "LOONG64", "loong64", "", nil, 0, 64, "5.19"},
	{"mips", "MIPS", "mips", "arch/mips/kernel/syscalls/syscall_o32.tbl", []string{"o32"}, 4000, 32, "1.0"},
	{"mips64", "MIPS64", "mips64", "arch/mips/kernel/syscalls/syscall_n64.tbl", []string{"n64"}, 5000, 64, "2.4"},
	{"mips64n32", "MIPS64N32", "", "arch/mips/kernel/syscalls/syscall_n32.tbl", []string{"n32"}, 6000, 64, "2.6"},
	{"mipsel", "MIPSEL", "mipsle", "arch/mips/kernel/syscalls/syscall_o32.tbl", []string{"o32"}, 4000, 32, "1.0"},
	{"mipsel64", "MIPSEL64", "mips64le", "arch/mips/kernel/syscalls/syscall_n64.tbl", []string{"n64"}, 5000, 64, "2.4"},
	{"mipsel64n32", "MIPSEL64N32", "", "arch/mips/kernel/syscalls/syscall_n32.tbl", []string{"n32"}, 6000, 64, "2.6"},
	{"m68k", "M68K", "", "arch/m68k/kernel/syscalls/syscall.tbl", []string{"common"}, 0, 32, "1.0"},
	{"sh", "SH", "", "arch/sh/kernel/syscalls/syscall.tbl", []string{"common"}, 0, 32, "2.4"},
	{"sheb", "SHEB", "", "arch/sh/kernel/syscalls/syscall.tbl", []string{"common"}, 0, 32, "2.4"},
	{"parisc", "PARISC", "", "arch/parisc/kernel/syscalls/syscall.tbl", []string{"common", "32"}, 0, 32, "2.4"},
	{"parisc64", "PARISC64", "", "arch/parisc/kernel/syscalls/syscall.tbl", []string{"common", "64"}, 0, 64, "2.4"},
}

// newer has the calls that came after the tree's kernel: version and argument
// types. Source: include/linux/syscalls.h of Linux 7.2.
var newer = map[string]struct{ since, widths string }{
	"cachestat": {"6.5", "ippi"}, "fchmodat2": {"6.6", "iphi"}, "map_shadow_stack": {"6.6", "lli"},
	"futex_wake": {"6.7", "plii"}, "futex_wait": {"6.7", "pllipi"}, "futex_requeue": {"6.7", "piii"},
	"statmount": {"6.8", "ppli"}, "listmount": {"6.8", "ppli"},
	"lsm_get_self_attr": {"6.8", "ippi"}, "lsm_set_self_attr": {"6.8", "ipii"}, "lsm_list_modules": {"6.8", "ppi"},
	"mseal": {"6.10", "lll"}, "setxattrat": {"6.13", "ipippl"}, "getxattrat": {"6.13", "ipippl"},
	"listxattrat": {"6.13", "ipipl"}, "removexattrat": {"6.13", "ipip"}, "open_tree_attr": {"6.15", "ipipl"},
	"file_getattr": {"6.17", "ippli"}, "file_setattr": {"6.17", "ippli"}, "listns": {"7.0", "ppli"},
	"rseq_slice_yield": {"7.1", ""}, "uretprobe": {"6.11", ""}, "uprobe": {"6.18", ""}, "riscv_hwprobe": {"6.4", "pllpi"},
}

// extra has versions that the manual page lacks.
var extra = map[string]string{
	"set_mempolicy_home_node": "5.17", "futex_waitv": "5.16", "process_mrelease": "5.15", "quotactl_fd": "5.14", "memfd_secret": "5.14",
	"riscv_flush_icache": "4.15", "swapcontext": "2.6.3", "sys_debug_setcontext": "2.6.11", "switch_endian": "4.1",
	"s390_guarded_storage": "4.12", "s390_sthyi": "4.15", "pidfd_getfd": "5.6", "arch_prctl": "2.6", "set_tls": "2.6.16", "get_tls": "4.15",
	"breakpoint": "2.6.16", "cacheflush": "2.6.16", "usr26": "2.6.16", "usr32": "2.6.16",
	"pread64": "2.2", "pwrite64": "2.2", "arm_fadvise64_64": "2.6.16", "arm_sync_file_range": "2.6.22", "multiplexer": "2.6",
	"rt_tgsigqueueinfo": "2.6.31", "mount_setattr": "5.12", "clock_gettime64": "5.1",
}

// armPrivate are the calls of arch/arm/include/uapi/asm/unistd.h that no table has.
var armPrivate = map[string]uint32{"breakpoint": 0xf0001, "cacheflush": 0xf0002, "usr26": 0xf0003, "usr32": 0xf0004, "set_tls": 0xf0005, "get_tls": 0xf0006}

type entry struct {
	nr     uint32
	widths string // "-" when not known
}

type call struct {
	name  string
	since string
	on    map[string]entry // ABI name
}

func main() {
	log.SetFlags(0)
	collectFlag := flag.Bool("collect", false, "make data.txt anew from the sources")
	linux := flag.String("linux", "", "Linux source tree")
	linuxVersion := flag.String("linux-version", "6.1", "its version")
	sys := flag.String("sys", "", "folder of golang.org/x/sys/unix")
	man := flag.String("man", "", "syscalls.2, may be .gz")
	systemd := flag.String("systemd", "", "systemd's src/shared/seccomp-util.c")
	flag.Parse()
	if *collectFlag {
		collect(*linux, *linuxVersion, *sys, *man, *systemd)
	}
	emit()
}

func must[T any](v T, err error) T {
	if err != nil {
		log.Fatal(err)
	}
	return v
}

func collect(linux, linuxVersion, sys, man, systemd string) {
	sigs := signatures(linux)
	since := versions(man)
	calls := map[string]*call{}
	get := func(name string) *call {
		c := calls[name]
		if c == nil {
			c = &call{name: name, on: map[string]entry{}}
			calls[name] = c
		}
		return c
	}
	entries := map[string]string{} // name → kernel entry point, from the first table that has one
	type row struct {
		nr    uint32
		entry string
	}
	tables := map[string]map[string]row{}
	for _, a := range abis {
		if a.table == "" {
			continue
		}
		t := map[string]row{}
		for _, line := range strings.Split(string(must(os.ReadFile(filepath.Join(linux, a.table)))), "\n") {
			f := strings.Fields(line)
			if len(f) < 3 || strings.HasPrefix(f[0], "#") || !slices.Contains(a.columns, f[1]) {
				continue
			}
			if regexp.MustCompile(`^(unused|reserved|available|ni_syscall)`).MatchString(f[2]) {
				continue
			}
			e := ""
			if len(f) > 3 {
				e = strings.TrimPrefix(f[3], "sys_")
			}
			t[f[2]] = row{uint32(must(strconv.ParseUint(f[0], 10, 32))), e}
			if e != "" && e != "ni_syscall" && entries[f[2]] == "" {
				entries[f[2]] = e
			}
		}
		tables[a.name] = t
	}
	widths := func(abi string, bits int, name string) string {
		if n, ok := newer[name]; ok {
			return fit(n.widths, bits)
		}
		if name == "clone" { // its definition is a choice of preprocessor branches
			return "llppl"
		}
		for _, e := range []string{tables[abi][name].entry, entries[name], name} {
			if s, ok := sigs[e]; ok && e != "" {
				return fit(s, bits)
			}
		}
		return "-"
	}
	sysRE := regexp.MustCompile(`^\s+SYS_(\w+)\s+= ([0-9]+)`)
	for _, a := range abis {
		add := func(name string, nr uint32) {
			get(name).on[a.name] = entry{nr, widths(a.name, a.bits, name)}
		}
		if a.golang == "" {
			for name, r := range tables[a.name] {
				add(name, r.nr+a.base)
			}
			continue
		}
		for _, line := range strings.Split(string(must(os.ReadFile(filepath.Join(sys, "zsysnum_linux_"+a.golang+".go")))), "\n") {
			if m := sysRE.FindStringSubmatch(line); m != nil {
				name := strings.ToLower(m[1])
				if name == "syscall_mask" || name == "arch_specific_syscall" || strings.HasPrefix(name, "unused") || strings.HasPrefix(name, "reserved") {
					continue
				}
				add(name, uint32(must(strconv.ParseUint(m[2], 10, 32))))
			}
		}
		if a.name == "arm" {
			for name, nr := range armPrivate {
				add(name, nr)
			}
		}
	}
	// Since 5.1 a new call has the same number in all tables. Those newer than
	// the tree are put on the ABIs that x/sys does not know.
	for name, c := range calls {
		amd, ok := c.on["amd64"]
		if !ok || amd.nr < 451 {
			continue
		}
		for _, a := range abis {
			if name == "map_shadow_stack" && a.name == "x32" { // 64 in the table, not common
				continue
			}
			if _, have := c.on[a.name]; !have {
				c.on[a.name] = entry{amd.nr + a.base, widths(a.name, a.bits, name)}
			}
		}
	}
	// s390's 31-bit table follows the 64-bit one, which got this call after 6.1.
	if e, ok := calls["memfd_secret"].on["s390x"]; ok {
		calls["memfd_secret"].on["s390"] = e
	}
	for name, c := range calls {
		switch {
		case newer[name].since != "":
			c.since = newer[name].since
		case extra[name] != "":
			c.since = extra[name]
		case regexp.MustCompile(`_time64$|^(clock_(adj|set)time|(timer|timerfd)_[gs]ettime)64$`).MatchString(name):
			c.since = "5.1" // all at once, for the year 2038
		default:
			c.since = cmp.Or(since[name], "-")
		}
	}
	var b bytes.Buffer
	fmt.Fprintf(&b, "# System calls of Linux. Collected %s by generate.go from:\n", time.Now().UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "#   Linux %s: arch/*/**/syscall*.tbl, SYSCALL_DEFINE in the C files (argument types)\n", linuxVersion)
	fmt.Fprintf(&b, "#   golang.org/x/sys %s/unix/zsysnum_linux_*.go (numbers, Linux 7.2)\n", regexp.MustCompile(`sys@(v[0-9.]+)`).FindStringSubmatch(sys)[1])
	fmt.Fprintf(&b, "#   the manual page syscalls(2) (kernel versions)\n#   systemd 252, src/shared/seccomp-util.c (groups)\n")
	b.WriteString("# call NAME SINCE ABI=NUMBER:WIDTHS…   widths: h 16 bits, i 32, l a word, p a pointer, q 64; - not known\n# group NAME MEMBER…\n")
	for _, name := range slices.Sorted(maps.Keys(calls)) {
		c := calls[name]
		fmt.Fprintf(&b, "call %s %s", name, c.since)
		for _, a := range abis {
			if e, ok := c.on[a.name]; ok {
				fmt.Fprintf(&b, " %s=%d:%s", a.name, e.nr, e.widths)
			}
		}
		b.WriteByte('\n')
	}
	for _, g := range groups(systemd) {
		b.WriteString(g + "\n")
	}
	if err := os.WriteFile("data.txt", b.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
}

// fit narrows a signature to an ABI: on 32 bits a 64-bit value takes two words.
func fit(s string, bits int) string {
	if bits == 32 {
		s = strings.NewReplacer("q", "ll").Replace(s)
	}
	return s[:min(len(s), 6)]
}

var defineRE = regexp.MustCompile(`(?s)\n(?:COMPAT_)?(SYSCALL_DEFINE[0-6])\((\w+)([^{;]*?)\)\s*\{`)

func signatures(linux string) map[string]string {
	out := map[string]string{}
	fromArch := map[string]string{}
	err := filepath.WalkDir(linux, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".c" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, m := range defineRE.FindAllSubmatch(append([]byte("\n"), text...), -1) {
			if bytes.HasPrefix(m[0], []byte("\nCOMPAT_")) {
				continue
			}
			w, ok := classify(string(m[3]))
			if !ok {
				continue
			}
			into := out
			if rel, _ := filepath.Rel(linux, path); strings.HasPrefix(rel, "arch/") {
				if !strings.HasPrefix(rel, "arch/x86/") && fromArch[string(m[2])] != "" {
					continue
				}
				into = fromArch
			}
			into[string(m[2])] = w
		}
		return nil
	})
	if err != nil {
		log.Fatal(err)
	}
	for k, v := range fromArch {
		if _, ok := out[k]; !ok {
			out[k] = v
		}
	}
	return out
}

// classify turns ", int, fd, char __user *, buf" into "ip".
func classify(args string) (string, bool) {
	args = regexp.MustCompile(`(?s)/\*.*?\*/`).ReplaceAllString(args, "")
	f := strings.Split(args, ",")
	w := ""
	for i := 1; i+1 < len(f); i += 2 {
		t := strings.Join(strings.Fields(f[i]), " ")
		base := strings.TrimSpace(strings.TrimPrefix(t, "const "))
		switch {
		case strings.Contains(t, "*"), base == "cap_user_header_t", base == "cap_user_data_t", base == "__sighandler_t":
			w += "p"
		case base == "umode_t", base == "old_uid_t", base == "old_gid_t":
			w += "h"
		case base == "loff_t", base == "u64", base == "__u64":
			w += "q"
		case slices.Contains([]string{"unsigned long", "long", "size_t", "ssize_t", "off_t", "old_sigset_t", "aio_context_t", "unsigned long int", "__kernel_size_t"}, base):
			w += "l"
		case slices.Contains([]string{"int", "unsigned int", "unsigned", "u32", "__u32", "s32", "__s32", "uid_t", "gid_t", "pid_t", "clockid_t", "timer_t", "key_t", "mqd_t", "key_serial_t", "qid_t", "rwf_t", "uint32_t", "uint"}, base), strings.HasPrefix(base, "enum "):
			w += "i"
		default:
			log.Printf("unknown argument type %q", t)
			return "", false
		}
	}
	return w, true
}

func versions(man string) map[string]string {
	f := must(os.Open(man))
	var r io.Reader = f
	if strings.HasSuffix(man, ".gz") {
		r = must(gzip.NewReader(f))
	}
	out := map[string]string{}
	re := regexp.MustCompile(`^\\fB(\w+)\\fP\(2\)\t([0-9.]+)`)
	for s := bufio.NewScanner(r); s.Scan(); {
		if m := re.FindStringSubmatch(s.Text()); m != nil {
			out[m[1]] = m[2]
		}
	}
	return out
}

func groups(systemd string) []string {
	text := string(must(os.ReadFile(systemd)))
	block := regexp.MustCompile(`(?s)\[SYSCALL_FILTER_SET_[A-Z_0-9]+\] = \{\s*\.name = "(@[a-z0-9-]+)".*?\.value =(.*?)\n        \},`)
	member := regexp.MustCompile(`"(@?[a-z0-9_-]+)\\0"`)
	var out []string
	for _, m := range block.FindAllStringSubmatch(text, -1) {
		if m[1] == "@known" {
			continue
		}
		line := "group " + m[1]
		// Lines in comments or conditionals count as well: what a kernel does
		// not have drops out by itself.
		for _, n := range member.FindAllStringSubmatch(m[2], -1) {
			line += " " + n[1]
		}
		out = append(out, line)
	}
	slices.Sort(out)
	return out
}

// hash must be the same as in lookup.go.
func hash(s string) uint32 {
	h := uint32(2166136261)
	for i := 0; i < len(s); i++ {
		h = (h ^ uint32(s[i])) * 16777619
	}
	return h ^ h>>15
}

func emit() {
	text := string(must(os.ReadFile("data.txt")))
	var head []string
	var calls []call
	var groups [][]string
	for _, line := range strings.Split(text, "\n") {
		f := strings.Fields(line)
		switch {
		case len(f) == 0:
		case f[0] == "#":
			head = append(head, "// "+strings.TrimPrefix(strings.TrimPrefix(line, "#"), " "))
		case f[0] == "call":
			c := call{name: f[1], since: f[2], on: map[string]entry{}}
			for _, e := range f[3:] {
				abi, rest, _ := strings.Cut(e, "=")
				nr, w, _ := strings.Cut(rest, ":")
				c.on[abi] = entry{uint32(must(strconv.ParseUint(nr, 10, 32))), w}
			}
			calls = append(calls, c)
		case f[0] == "group":
			groups = append(groups, f[1:])
		}
	}
	var b bytes.Buffer
	b.WriteString("// SPDX-License-Identifier: Apache-2.0\n\n// Code generated by generate.go from data.txt. DO NOT EDIT.\n//\n")
	for _, h := range head {
		if !strings.HasPrefix(h, "// call ") && !strings.HasPrefix(h, "// group ") {
			b.WriteString(h + "\n")
		}
	}
	b.WriteString("\npackage syscalls\n\n")
	fmt.Fprintf(&b, "const nameCount = %d\n\n", len(calls))
	b.WriteString("// names lists every call of every ABI, sorted.\nvar names = [nameCount]string{")
	for i, c := range calls {
		if i%6 == 0 {
			b.WriteString("\n\t")
		}
		fmt.Fprintf(&b, "%q, ", c.name)
	}
	b.WriteString("\n}\n\n// since is the version that first had the call, on whichever ABI.\nvar since = [nameCount]Version{")
	for i, c := range calls {
		if i%12 == 0 {
			b.WriteString("\n\t")
		}
		fmt.Fprintf(&b, "%#x, ", version(c.since))
	}
	const slots = 2048
	table := make([]int, slots)
	for i, c := range calls {
		at := hash(c.name) % slots
		for table[at] != 0 {
			at = (at + 1) % slots
		}
		table[at] = i + 1
	}
	b.WriteString("\n}\n\n// index is an open-addressed hash table of 1 + the position in names.\nvar index = [2048]uint16{")
	for i, v := range table {
		if i%24 == 0 {
			b.WriteString("\n\t")
		}
		fmt.Fprintf(&b, "%d,", v)
	}
	b.WriteString("\n}\n\n// numbers has, for each ABI, the number of each name, or -1.\nvar numbers = [archEnd][nameCount]int32{\n")
	for _, a := range abis {
		fmt.Fprintf(&b, "\t%s: {", a.constant)
		for i, c := range calls {
			if i%24 == 0 {
				b.WriteString("\n\t\t")
			}
			if e, ok := c.on[a.name]; ok {
				fmt.Fprintf(&b, "%d,", e.nr)
			} else {
				b.WriteString("-1,")
			}
		}
		b.WriteString("\n\t},\n")
	}
	b.WriteString("}\n\n// byNumber has, for each ABI, positions in names, in order of number.\nvar byNumber = [archEnd][]uint16{\n")
	for _, a := range abis {
		var ids []int
		for i, c := range calls {
			if _, ok := c.on[a.name]; ok {
				ids = append(ids, i)
			}
		}
		slices.SortFunc(ids, func(x, y int) int {
			return cmp.Or(cmp.Compare(calls[x].on[a.name].nr, calls[y].on[a.name].nr), cmp.Compare(calls[x].name, calls[y].name))
		})
		fmt.Fprintf(&b, "\t%s: {", a.constant)
		for i, v := range ids {
			if i%24 == 0 {
				b.WriteString("\n\t\t")
			}
			fmt.Fprintf(&b, "%d,", v)
		}
		b.WriteString("\n\t},\n")
	}
	// Argument widths: few different signatures, so they are numbered.
	sigs := map[string]int{"-": 0}
	list := []string{"-"}
	b.WriteString("}\n\n// widths has, for each ABI, the position in signatures for each name.\nvar widths = [archEnd][nameCount]uint8{\n")
	for _, a := range abis {
		fmt.Fprintf(&b, "\t%s: {", a.constant)
		for i, c := range calls {
			if i%24 == 0 {
				b.WriteString("\n\t\t")
			}
			w := "-"
			if e, ok := c.on[a.name]; ok {
				w = e.widths
			}
			if _, ok := sigs[w]; !ok {
				sigs[w] = len(list)
				list = append(list, w)
			}
			fmt.Fprintf(&b, "%d,", sigs[w])
		}
		b.WriteString("\n\t},\n")
	}
	if len(list) > 255 {
		log.Fatalf("%d signatures", len(list))
	}
	b.WriteString("}\n\n// signatures: h 16 bits, i 32, l a word, p a pointer, q 64; - not known.\nvar signatures = [...]string{")
	for i, s := range list {
		if i%10 == 0 {
			b.WriteString("\n\t")
		}
		fmt.Fprintf(&b, "%q, ", s)
	}
	b.WriteString("\n}\n\n// floors are the versions that first had the ABIs.\nvar floors = [archEnd]Version{\n")
	for _, a := range abis {
		fmt.Fprintf(&b, "\t%s: %#x,\n", a.constant, version(a.floor))
	}
	b.WriteString("}\n\nvar groups = []Group{\n")
	for _, g := range groups {
		fmt.Fprintf(&b, "\t{%q, []string{", g[0])
		for i, m := range g[1:] {
			if i%8 == 0 {
				b.WriteString("\n\t\t")
			}
			fmt.Fprintf(&b, "%q, ", m)
		}
		b.WriteString("\n\t}},\n")
	}
	b.WriteString("}\n")
	out, err := format.Source(b.Bytes())
	if err != nil {
		_ = os.WriteFile("tables.go.broken", b.Bytes(), 0o644)
		log.Fatal(err)
	}
	if err := os.WriteFile("tables.go", out, 0o644); err != nil {
		log.Fatal(err)
	}
}

func version(s string) uint32 {
	if s == "-" {
		return 0
	}
	var v [3]uint64
	for i, part := range strings.SplitN(s, ".", 3) {
		v[i] = must(strconv.ParseUint(part, 10, 8))
	}
	return uint32(v[0]<<16 | v[1]<<8 | v[2])
}
