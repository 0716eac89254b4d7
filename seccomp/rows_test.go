// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// suite fetches the distribution's source package of libseccomp, whose tests are
// not part of this project, and returns its tests folder.
func suite(t *testing.T) string {
	apt := oracle.Tool(t, "apt-get", "a Debian system")
	oracle.Tool(t, "dpkg-source", "apt: dpkg-dev")
	dir := oracle.CacheDir(t, "libseccomp-source")
	find := func() string {
		m, _ := filepath.Glob(filepath.Join(dir, "libseccomp-*", "tests"))
		if len(m) == 0 {
			return ""
		}
		return m[0]
	}
	if d := find(); d != "" {
		return d
	}
	// Source packages are seldom among a machine's own sources: name them in a
	// list of our own, from the same place as the binary packages.
	out, err := exec.Command(apt, "indextargets", "--format", "$(REPO_URI) $(CODENAME) $(SIGNED_BY)", "Created-By: Packages").Output()
	if err != nil {
		oracle.Missing(t, "apt-get indextargets: %v", err)
		return ""
	}
	var lists []string
	for _, line := range strings.Split(string(out), "\n") {
		f := strings.Fields(line)
		if len(f) < 2 || !strings.Contains(f[0], "debian") && !strings.Contains(f[0], "ubuntu") {
			continue
		}
		by := ""
		if len(f) > 2 && strings.HasPrefix(f[2], "/") {
			by = "[signed-by=" + f[2] + "] "
		}
		lists = append(lists, "deb-src "+by+f[0]+" "+f[1]+" main")
	}
	if len(lists) == 0 {
		oracle.Missing(t, "no package source to take libseccomp's source from")
		return ""
	}
	list := filepath.Join(dir, "src.list")
	if err := os.WriteFile(list, []byte(strings.Join(lists, "\n")+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(dir, "lists", "partial"), 0o755); err != nil {
		t.Fatal(err)
	}
	args := []string{"-q", "-o", "Dir::Etc::sourcelist=" + list, "-o", "Dir::Etc::sourceparts=-", "-o", "Dir::State::lists=" + filepath.Join(dir, "lists"), "-o", "Dir::Cache=" + dir}
	for _, verb := range [][]string{{"update"}, {"source", "libseccomp"}} {
		cmd := exec.Command(apt, append(append([]string{}, args...), verb...)...)
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			oracle.Missing(t, "apt-get %s: %v\n%s", verb[0], err, out)
			return ""
		}
	}
	return find()
}

var suiteActions = map[string]Action{"ALLOW": cbpf.Allow, "KILL": cbpf.KillThread, "KILL_PROCESS": cbpf.KillProcess, "TRAP": cbpf.Trap, "LOG": cbpf.Log, "NOTIFY": cbpf.Notify}

// TestConfirmSuite runs the rows of libseccomp's own simulation tests: each
// script's rules are compiled here, and each row asked.
func TestConfirmSuite(t *testing.T) {
	tests := suite(t)
	python := oracle.Tool(t, "python3", "apt: python3")
	dir := t.TempDir()
	table := map[string]uint32{}
	syscalls.X86_64.Each(func(nr uint32, name string) { table[name] = nr })
	b, _ := json.Marshal(table)
	if err := os.WriteFile(filepath.Join(dir, "table.json"), b, 0o600); err != nil {
		t.Fatal(err)
	}
	mod, err := os.ReadFile("testdata/seccomp.py")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "seccomp.py"), mod, 0o600); err != nil {
		t.Fatal(err)
	}
	scripts, _ := filepath.Glob(filepath.Join(tests, "*-sim-*.py"))
	ran, rows, asked := 0, 0, 0
	for _, script := range scripts {
		name := strings.TrimSuffix(filepath.Base(script), ".py")
		cmd := exec.Command(python, "-B", script, "-b")
		cmd.Env = append(os.Environ(), "PYTHONPATH="+dir+":"+tests, "PALISADE_SYSCALLS="+filepath.Join(dir, "table.json"))
		var stderr strings.Builder
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			msg := strings.TrimSpace(stderr.String())
			t.Logf("%s: not read: %s", name, msg[strings.LastIndexByte(msg, '\n')+1:])
			continue
		}
		f, bad, err := suiteFilter(out)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		f.withoutStub = true
		prog, err := f.Compile(Options{})
		if err != nil {
			t.Logf("%s: %v", name, err)
			continue
		}
		ran++
		text, err := os.ReadFile(strings.TrimSuffix(script, ".py") + ".tests")
		if err != nil {
			t.Fatal(err)
		}
		r, a := suiteRows(t, name, string(text), f, prog, bad)
		rows += r
		asked += a
	}
	t.Logf("%d of %d scripts, %d rows, %d calls", ran, len(scripts), rows, asked)
	if ran < 30 {
		t.Errorf("only %d scripts could be run", ran)
	}
}

func suiteFilter(out []byte) (*Filter, Action, error) {
	var in struct {
		Default, Badarch uint32
		Archs            []string
		Rules            []struct {
			Action uint32
			Name   string
			Args   [][4]uint64
		}
	}
	if err := json.Unmarshal(out, &in); err != nil {
		return nil, 0, err
	}
	p := &Profile{File: "suite", DefaultAction: Action(in.Default)}
	f := &Filter{Profile: p, Native: syscalls.X86_64, Default: Action(in.Default)}
	for i, a := range in.Archs {
		arch, ok := syscalls.ParseOCI("SCMP_ARCH_" + a)
		if !ok {
			return nil, 0, fmt.Errorf("ABI %s", a)
		}
		if i == 0 {
			f.Native = arch
		}
		f.Archs = append(f.Archs, arch)
	}
	for _, r := range in.Rules {
		rule := Rule{Action: Action(r.Action), Names: []Name{newName(r.Name, 0, 0)}}
		for _, a := range r.Args {
			ops := []Op{0, NE, LT, LE, EQ, GE, GT, MaskedEQ}
			rule.Args = append(rule.Args, Arg{Index: uint8(a[0]), Op: ops[a[1]], Value: a[2], ValueTwo: a[3]})
		}
		p.Rules = append(p.Rules, rule)
	}
	for i := range p.Rules {
		f.Rules = append(f.Rules, &p.Rules[i])
	}
	return f, Action(in.Badarch), nil
}

func suiteRows(t *testing.T, name, text string, f *Filter, prog *Program, bad Action) (rows, asked int) {
	kind := ""
	rng := rand.New(rand.NewPCG(1, 2))
	for _, line := range strings.Split(text, "\n") {
		if k, ok := strings.CutPrefix(line, "test type: "); ok {
			kind = strings.TrimSpace(k)
			continue
		}
		c := strings.Fields(line)
		if kind != "bpf-sim" || len(c) != 10 || strings.HasPrefix(c[0], "#") {
			continue
		}
		want, err := suiteAction(c[9])
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
		rows++
		for _, a := range suiteArchs(c[1], f) {
			for _, nr := range suiteNumbers(a, c[2]) {
				d := cbpf.Data{Arch: a.Audit(), Nr: nr}
				for i := range d.Args {
					d.Args[i] = suiteArg(c[3+i], a, rng)
				}
				asked++
				got := prog.Instructions.Eval(&d, f.Native.BigEndian())
				if got == cbpf.KillThread && bad != cbpf.KillThread && want == bad {
					got = bad // the attribute for foreign ABIs, which runc leaves alone
				}
				if got != want {
					t.Errorf("%s on %v, nr %d args %#x: %v", strings.Join(c, " "), a, int32(nr), d.Args, got)
					return rows, asked
				}
			}
		}
	}
	return rows, asked
}

func suiteAction(s string) (Action, error) {
	if a, ok := suiteActions[s]; ok {
		return a, nil
	}
	return cbpf.ParseAction(s)
}

// suiteArchs expands a row's list: all is the machine's own ABI, +all_le all
// little-endian ones, +NAME that one, -NAME not that one; those that the filter
// has count.
func suiteArchs(list string, f *Filter) (out []syscalls.Arch) {
	names := map[string]syscalls.Arch{
		"x86": syscalls.X86, "x86_64": syscalls.X86_64, "x32": syscalls.X32, "arm": syscalls.ARM, "aarch64": syscalls.ARM64,
		"mipsel": syscalls.MIPSEL, "mipsel64": syscalls.MIPSEL64, "mipsel64n32": syscalls.MIPSEL64N32, "ppc64le": syscalls.PPC64LE, "riscv64": syscalls.RISCV64,
		"mips": syscalls.MIPS, "mips64": syscalls.MIPS64, "mips64n32": syscalls.MIPS64N32, "ppc": syscalls.PPC, "ppc64": syscalls.PPC64, "s390": syscalls.S390, "s390x": syscalls.S390X,
		"parisc": syscalls.PARISC, "parisc64": syscalls.PARISC64,
	}
	pick := map[syscalls.Arch]bool{}
	native := syscalls.X86_64
	for _, part := range strings.Split(list, ",") {
		switch part {
		case "all", "all_le", "all_64", "x86_64":
			pick[native] = true
		case "+all_le", "+all_be":
			for _, a := range f.ABIs() {
				if a.BigEndian() == (part == "+all_be") {
					pick[a] = true
				}
			}
		default:
			if a, ok := names[strings.TrimLeft(part, "+-")]; ok && part[0] == '+' {
				pick[a] = true
			}
		}
	}
	for _, a := range f.ABIs() {
		if pick[a] && !strings.Contains(","+list+",", ",-"+a.String()+",") {
			out = append(out, a)
		}
	}
	return out
}

// suiteNumbers expands a row's call: a name, a number or a range.
func suiteNumbers(a syscalls.Arch, s string) []uint32 {
	if n, ok := syscalls.Lookup(s); ok {
		if _, _, muxed := muxOf(a, n); muxed {
			return nil // the suite means a number of its own there
		}
	}
	from, to, isRange := strings.Cut(s, "-")
	if !isRange || from == "" {
		from, to = s, s
	}
	lo, err1 := strconv.ParseInt(from, 0, 64)
	hi, err2 := strconv.ParseInt(to, 0, 64)
	if err1 != nil || err2 != nil {
		if nr, err := suiteOne(a, s); err == nil {
			return []uint32{nr}
		}
		return nil
	}
	var out []uint32
	for v := lo; v <= hi; v++ {
		if nr, err := suiteOne(a, strconv.FormatInt(v, 10)); err == nil {
			out = append(out, nr)
		}
	}
	return out
}

func suiteOne(a syscalls.Arch, s string) (uint32, error) {
	if nr, ok := a.Number(s); ok {
		return nr, nil
	}
	v, err := strconv.ParseInt(s, 0, 64)
	if i := v - 1000; err == nil && i >= 0 && i < int64(len(suiteAlias)) {
		if nr, ok := a.Number(suiteAlias[i]); ok {
			return nr, nil
		}
	}
	if err == nil && (v < -1<<31 || v >= 1<<32) {
		err = strconv.ErrRange
	}
	return uint32(v), err
}

// suiteAlias stands for the numbers from 1000, as in testdata/seccomp.py.
var suiteAlias = []string{"tuxcall", "security", "vserver", "afs_syscall", "getpmsg", "putpmsg", "nfsservctl", "query_module", "get_kernel_syms", "create_module", "epoll_ctl_old", "epoll_wait_old"}

func suiteArg(s string, a syscalls.Arch, rng *rand.Rand) uint64 {
	if s == "N" {
		return 0
	}
	num := func(s string) uint64 {
		if v, err := strconv.ParseUint(s, 0, 64); err == nil {
			return v
		}
		v, _ := strconv.ParseInt(s, 0, 64)
		return uint64(v)
	}
	if from, to, ok := strings.Cut(s, "-"); ok && from != "" {
		lo, hi := num(from), num(to)
		return lo + rng.Uint64N(hi-lo+1)
	}
	return num(s)
}
