// SPDX-License-Identifier: Apache-2.0

package seccomp

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/diag"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// full tells whether the long form of the differential tests is wanted, as
// `make oracle` runs it.
func full() bool { return os.Getenv("PALISADE_FULL") == "1" }

var dockerCaps = []string{
	"CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_FSETID", "CAP_FOWNER", "CAP_MKNOD", "CAP_NET_RAW", "CAP_SETGID", "CAP_SETUID",
	"CAP_SETFCAP", "CAP_SETPCAP", "CAP_NET_BIND_SERVICE", "CAP_SYS_CHROOT", "CAP_KILL", "CAP_AUDIT_WRITE",
}

var (
	x86Family = []syscalls.Arch{syscalls.X86_64, syscalls.X86, syscalls.X32}
	families  = [][]syscalls.Arch{
		x86Family,
		{syscalls.X86_64},
		{syscalls.X86_64, syscalls.X86},
		{syscalls.X86_64, syscalls.X32},
		{syscalls.ARM64, syscalls.ARM},
		{syscalls.S390X, syscalls.S390},
		{syscalls.PPC64LE},
		{syscalls.RISCV64},
		{syscalls.MIPS64, syscalls.MIPS, syscalls.MIPS64N32},
		{syscalls.MIPSEL64, syscalls.MIPSEL, syscalls.MIPSEL64N32},
		{syscalls.PPC64, syscalls.PPC},
		{syscalls.PARISC64, syscalls.PARISC},
	}
)

// cases hands out inputs for a filter: every number of its ABIs and the special
// ones, each with arguments at the borders of the filter's conditions.
type cases struct {
	rng    *rand.Rand
	f      *Filter
	audits []uint32
	nrs    [][]uint32 // by audit
	busy   [][]uint32 // numbers with conditions, by audit
	values [6][]uint64
}

func newCases(f *Filter, rng *rand.Rand) *cases {
	c := &cases{rng: rng, f: f}
	for i := range c.values {
		c.values[i] = []uint64{0, 1, ^uint64(0), 0xffffffff, 1 << 32, 1 << 31, 0x7fffffff, 1 << 63}
	}
	for _, a := range f.ABIs() {
		i := slices.Index(c.audits, a.Audit())
		if i < 0 {
			i = len(c.audits)
			c.audits = append(c.audits, a.Audit())
			c.nrs = append(c.nrs, []uint32{0xffffffff, 0xfffffffe, 0x80000000, 0x80000005, 0xc0000000, 0xc0000003, 0x3fffffff, 0x40000000, 0x7fffffff, 100000})
			c.busy = append(c.busy, nil)
		}
		last := uint32(0)
		a.Each(func(nr uint32, _ string) {
			c.nrs[i] = append(c.nrs[i], nr)
			if nr > 0 && nr-1 != last {
				c.nrs[i] = append(c.nrs[i], nr-1)
			}
			c.nrs[i] = append(c.nrs[i], nr+1)
			last = nr
		})
	}
	c.audits = append(c.audits, 0, 0xc000003f)
	c.nrs = append(c.nrs, []uint32{0, 1, 0xffffffff}, []uint32{5})
	c.busy = append(c.busy, nil, nil)
	for _, r := range f.Rules {
		for _, a := range r.Args {
			c.values[a.Index] = appendBorders(c.values[a.Index], a.Value)
			if a.Op == MaskedEQ {
				v := c.values[a.Index]
				v = appendBorders(v, a.ValueTwo)
				v = append(v, a.Value&a.ValueTwo, ^a.Value, ^a.Value|a.ValueTwo, a.ValueTwo|a.Value)
				c.values[a.Index] = v
			}
		}
		if len(r.Args) == 0 {
			continue
		}
		for _, n := range r.Names {
			for _, a := range f.ABIs() {
				for _, name := range []string{n.Text, "socketcall", "ipc"} {
					if nr, ok := a.Number(name); ok {
						i := slices.Index(c.audits, a.Audit())
						if !slices.Contains(c.busy[i], nr) {
							c.busy[i] = append(c.busy[i], nr)
						}
					}
				}
			}
		}
	}
	for i := range uint64(26) { // subcalls
		c.values[0] = append(c.values[0], i, i|1<<32, i|1<<16)
	}
	for i := range c.values {
		slices.Sort(c.values[i])
		c.values[i] = slices.Compact(c.values[i])
	}
	return c
}

func appendBorders(v []uint64, k uint64) []uint64 {
	return append(v, k, k-1, k+1, k|1<<32, k&0xffffffff, k^1<<63, k+1<<32, k-1<<32)
}

// next fills d with the i-th input: first every number once, then numbers with
// conditions and borders.
func (c *cases) next(i int, d *cbpf.Data) {
	for at := range c.audits {
		if i < len(c.nrs[at]) {
			*d = cbpf.Data{Arch: c.audits[at], Nr: c.nrs[at][i]}
			return
		}
		i -= len(c.nrs[at])
	}
	at := c.rng.IntN(len(c.audits))
	d.Arch = c.audits[at]
	if list := c.busy[at]; len(list) > 0 && c.rng.IntN(4) > 0 {
		d.Nr = list[c.rng.IntN(len(list))]
	} else {
		d.Nr = c.nrs[at][c.rng.IntN(len(c.nrs[at]))]
	}
	for j := range d.Args {
		d.Args[j] = c.values[j][c.rng.IntN(len(c.values[j]))]
	}
}

// randomProfile makes a profile that libseccomp accepts or refuses, with all
// operators, actions and overlaps.
func randomProfile(rng *rand.Rand, known []string) string {
	type arg struct {
		Index    int    `json:"index"`
		Value    uint64 `json:"value"`
		ValueTwo uint64 `json:"valueTwo"`
		Op       string `json:"op"`
	}
	type rule struct {
		Names    []string `json:"names"`
		Action   string   `json:"action"`
		ErrnoRet *int     `json:"errnoRet,omitempty"`
		Args     []arg    `json:"args,omitempty"`
	}
	type profile struct {
		DefaultAction   string `json:"defaultAction"`
		DefaultErrnoRet *int   `json:"defaultErrnoRet,omitempty"`
		Syscalls        []rule `json:"syscalls"`
	}
	pick := func(s ...string) string { return s[rng.IntN(len(s))] }
	errno := func(action string) *int {
		if (action == "SCMP_ACT_ERRNO" || action == "SCMP_ACT_TRACE") && rng.IntN(2) == 0 {
			n := []int{0, 1, 13, 38, 4095}[rng.IntN(5)]
			return &n
		}
		return nil
	}
	var p profile
	p.DefaultAction = pick("SCMP_ACT_ERRNO", "SCMP_ACT_ERRNO", "SCMP_ACT_ALLOW", "SCMP_ACT_KILL", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG", "SCMP_ACT_TRAP", "SCMP_ACT_TRACE")
	p.DefaultErrnoRet = errno(p.DefaultAction)
	actions := []string{"SCMP_ACT_ALLOW", "SCMP_ACT_ERRNO", "SCMP_ACT_ERRNO", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_LOG", "SCMP_ACT_TRAP", "SCMP_ACT_NOTIFY"}
	if rng.IntN(2) == 0 {
		actions = actions[:2]
	}
	few := make([]string, 0, 6)
	for range 2 + rng.IntN(4) {
		few = append(few, known[rng.IntN(len(known))])
	}
	few = append(few, pick("socket", "semop", "accept4", "shmat", "ioctl", "personality"))
	values := []uint64{0, 1, 2, 3, 5, 9, 16, 0xffffffff, 1 << 32, 5 | 1<<32, ^uint64(0), 0x7e020000, 1 << 63}
	for range 1 + rng.IntN(14) {
		r := rule{Action: actions[rng.IntN(len(actions))]}
		r.ErrnoRet = errno(r.Action)
		if rng.IntN(4) == 0 {
			for range rng.IntN(60) {
				if n := known[rng.IntN(len(known))]; n != "write" {
					r.Names = append(r.Names, n)
				}
			}
		} else {
			for _, n := range few {
				if rng.IntN(2) == 0 && n != "write" {
					r.Names = append(r.Names, n)
				}
			}
			for range rng.IntN(4) {
				if rng.IntN(3) == 0 {
					break
				}
				r.Args = append(r.Args, arg{
					Index: rng.IntN(3), Value: values[rng.IntN(len(values))], ValueTwo: values[rng.IntN(len(values))],
					Op: pick("SCMP_CMP_NE", "SCMP_CMP_LT", "SCMP_CMP_LE", "SCMP_CMP_EQ", "SCMP_CMP_EQ", "SCMP_CMP_GE", "SCMP_CMP_GT", "SCMP_CMP_MASKED_EQ"),
				})
			}
		}
		p.Syscalls = append(p.Syscalls, r)
	}
	b, _ := json.Marshal(p)
	return string(b)
}

// knownNames are the calls that both the library and our tables have, on all
// ABIs alike. What a newer table has besides is not compared.
//
// The library hands names from ABI to ABI by the number on the machine's own;
// of names that its own ABI lacks, some share one made-up number.
func knownNames(l *libseccomp) []string {
	count := map[int32]int{}
	for _, n := range syscalls.Names() {
		if nr, ok := l.number(syscalls.X86_64, n); ok {
			count[nr]++
		}
	}
	var out []string
	for _, n := range syscalls.Names() {
		if nr, ok := l.number(syscalls.X86_64, n); ok && count[nr] == 1 && l.differs(n) == "" {
			out = append(out, n)
		}
	}
	return out
}

// differs says where the library's number for a name is not ours.
func (l *libseccomp) differs(name string) string {
	n, ok := syscalls.Lookup(name)
	if !ok {
		return ""
	}
	for _, family := range families {
		for _, a := range family {
			nr, have := n.On(a)
			if _, _, muxed := muxOf(a, n); muxed {
				continue // a negative number that stands for the multiplexer
			}
			theirs, ok := l.number(a, name)
			switch {
			case (!ok || theirs < 0) && !have:
			case !ok || theirs < 0:
				return fmt.Sprintf("%v has %s, the library does not", a, name)
			case !have || uint32(theirs) != nr:
				return fmt.Sprintf("%v: %s is %d in the library", a, name, theirs)
			}
		}
	}
	return ""
}

// TestConfirmNumbers compares the tables with the library's. Differences are
// calls newer than the library, and those listed.
func TestConfirmNumbers(t *testing.T) {
	l := startLibseccomp(t)
	reasons := map[string]string{
		"cacheflush": "PA-RISC has it since 6.8, which is newer than the kernel tree of our PA-RISC table",
		"_llseek":    "the library lists it for 64-bit PA-RISC, whose table calls it lseek",
		"uretprobe":  "newer than the library", "uprobe": "newer than the library", "riscv_hwprobe": "newer than the library",
		"map_shadow_stack": "newer than the library on most ABIs",
	}
	for _, n := range syscalls.Names() {
		why := l.differs(n)
		if why == "" {
			continue
		}
		call, _ := syscalls.Lookup(n)
		if _, ok := l.number(syscalls.X86_64, n); !ok && call.Since(syscalls.X86_64) >= syscalls.V(6, 4, 0) {
			continue
		}
		if call.Since(syscalls.X86_64) >= syscalls.V(6, 7, 0) || reasons[n] != "" {
			continue
		}
		t.Errorf("%s: %s", n, why)
	}
}

// without drops names from a profile's rules.
func without(p *Profile, drop func(string) bool) *Profile {
	q := *p
	q.Rules = slices.Clone(p.Rules)
	for i := range q.Rules {
		q.Rules[i].Names = slices.DeleteFunc(slices.Clone(q.Rules[i].Names), func(n Name) bool { return drop(n.Text) })
	}
	return &q
}

// compare runs n cases through our filter, the library's at both levels with
// runc's stub, and the reference.
func compare(t *testing.T, l *libseccomp, f *Filter, n int, rng *rand.Rand) (compared int) {
	t.Helper()
	ours, err := f.Compile(Options{})
	linear, _, refused := l.compile(f, 1)
	tree, _, _ := l.compile(f, 2)
	if refused != 0 {
		var list diag.List
		if !errors.As(err, &list) {
			t.Errorf("libseccomp refuses the profile (%d), we do not: %v", refused, err)
		}
		return 0
	}
	if err != nil {
		if strings.Contains(err.Error(), "kernel takes") || len(linear) > cbpf.MaxInstructions {
			return 0
		}
		t.Errorf("we refuse what libseccomp takes: %v", err)
		return 0
	}
	stub := l.stub(f)
	ref := f.Reference(Compat)
	c := newCases(f, rng)
	big := f.Native.BigEndian()
	var d cbpf.Data
	mixedLinear, mixedTree := mixed(linear), mixed(tree)
	var fresh [2]bool
	bad := 0
	for i := range n {
		c.next(i, &d)
		got := ours.Instructions.Eval(&d, big)
		if r := ref(&d); r != got {
			t.Errorf("arch %#x nr %d args %#x: ours %v, reference %v", d.Arch, d.Nr, d.Args, got, r)
			bad++
		}
		want, stubbed := stub(d.Arch, d.Nr)
		if stubbed {
			compared++
			if got != want {
				t.Errorf("arch %#x nr %d args %#x: ours %v, runc's stub %v", d.Arch, d.Nr, d.Args, got, want)
				bad++
			}
		} else {
			for level, prog := range []cbpf.Program{linear, tree} {
				if prog == nil {
					continue
				}
				want, past := evalPast(prog, [][]bool{mixedLinear, mixedTree}[level], &d, big)
				if past {
					continue
				}
				compared++
				if got != want && !fresh[level] {
					// What the library makes can depend on what it made before
					// in the same process: ask a new one, once.
					fresh[level] = true
					l.start()
					again, _, _ := l.compile(f, level+1)
					if level == 0 {
						linear, mixedLinear = again, mixed(again)
					} else {
						tree, mixedTree = again, mixed(again)
					}
					if want, past = evalPast(again, mixed(again), &d, big); past {
						continue
					}
					if got == want {
						t.Logf("libseccomp at level %d answers differently in a new process", level+1)
					}
				}
				if got != want {
					t.Errorf("arch %#x nr %d args %#x: ours %v, libseccomp at level %d %v", d.Arch, d.Nr, d.Args, got, level+1, want)
					bad++
				}
			}
		}
		if bad > 5 {
			break
		}
	}
	return compared
}

// TestConfirmDocker compares real profiles for several capability sets and
// machines.
func TestConfirmDocker(t *testing.T) {
	l := startLibseccomp(t)
	known := map[string]bool{}
	for _, n := range knownNames(l) {
		known[n] = true
	}
	p := without(Docker(), func(n string) bool { return !known[n] })
	n := 60_000
	if full() {
		n = 500_000
	}
	total := 0
	for _, family := range families {
		for _, h := range []Host{{Caps: dockerCaps}, {AllCaps: true}, {}} {
			h.Native, h.Archs = family[0], family
			f, err := p.Resolve(h)
			if err != nil {
				t.Fatal(err)
			}
			total += compare(t, l, f, n, rand.New(rand.NewPCG(1, 2)))
		}
	}
	t.Logf("%d cases", total)
}

// TestConfirmRandom compares random profiles, which overlap and contradict
// themselves as no real one does.
func TestConfirmRandom(t *testing.T) {
	l := startLibseccomp(t)
	known := knownNames(l)
	profiles, n := 150, 6_000
	if full() {
		profiles, n = 1000, 500_000
	}
	total, used := 0, 0
	for seed := range profiles {
		rng := rand.New(rand.NewPCG(uint64(seed), 42))
		text := randomProfile(rng, known)
		p, err := Parse("random", []byte(text))
		if err != nil {
			t.Fatalf("%v\n%s", err, text)
		}
		family := families[rng.IntN(len(families))]
		f, err := p.Resolve(Host{Native: family[0], Archs: family})
		if err != nil {
			t.Fatal(err)
		}
		got := compare(t, l, f, n, rng)
		if got > 0 {
			used++
		}
		total += got
		if t.Failed() {
			t.Fatalf("seed %d, %v: %s", seed, family, text)
		}
	}
	t.Logf("%d profiles, %d of them accepted by libseccomp, %d cases", profiles, used, total)
}
