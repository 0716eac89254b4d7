// SPDX-License-Identifier: Apache-2.0

package ss

import (
	"bufio"
	"encoding/binary"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/internal/selinuxtest"
	"github.com/palisade-sec/palisade/selinux/policydb"
)

// sepol is libsepol answering questions; see testdata/sepol.c.
type sepol struct {
	t     testing.TB
	in    *bufio.Writer
	out   *bufio.Reader
	pipe  io.Closer
	cmd   *exec.Cmd
	valid []bool
	canon []string
}

func startSepol(t testing.TB, data []byte, contexts []string) *sepol {
	t.Helper()
	helper := oracle.CHelper(t, "testdata/sepol.c", "apt: libsepol-dev", "-l:libsepol.a")
	file := filepath.Join(t.TempDir(), "policy")
	if err := os.WriteFile(file, data, 0o644); err != nil {
		t.Fatal(err)
	}
	s := &sepol{t: t, cmd: exec.Command(helper, file)}
	s.cmd.Stderr = os.Stderr
	in, err := s.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s.pipe, s.in, s.out = in, bufio.NewWriterSize(in, 1<<16), bufio.NewReaderSize(out, 1<<16)
	t.Cleanup(func() {
		s.in.Flush()
		s.pipe.Close()
		if err := s.cmd.Wait(); err != nil && !t.Failed() {
			t.Errorf("libsepol: %v", err)
		}
	})
	s.put(uint32(len(contexts)))
	for _, c := range contexts {
		s.put(uint32(len(c)))
		if _, err := s.in.WriteString(c); err != nil {
			t.Fatal(err)
		}
	}
	s.in.Flush()
	for range contexts {
		text := s.text()
		s.valid = append(s.valid, text != "")
		s.canon = append(s.canon, text)
	}
	return s
}

func (s *sepol) put(values ...uint32) {
	for _, v := range values {
		if err := binary.Write(s.in, binary.NativeEndian, v); err != nil {
			s.t.Fatal(err)
		}
	}
}

func (s *sepol) get() uint32 {
	var b [4]byte
	if _, err := io.ReadFull(s.out, b[:]); err != nil {
		s.t.Fatalf("libsepol: %v", err)
	}
	return binary.NativeEndian.Uint32(b[:])
}

func (s *sepol) text() string {
	b := make([]byte, s.get())
	if _, err := io.ReadFull(s.out, b); err != nil {
		s.t.Fatalf("libsepol: %v", err)
	}
	return string(b)
}

// count returns how many questions to ask: a share in the everyday tests, all
// with PALISADE_FULL=1.
func count(full, share int) int {
	if os.Getenv("PALISADE_FULL") == "1" {
		return full
	}
	return share
}

// changeBooleans returns the policy with a random half of its booleans flipped,
// and the server of the unchanged policy with the same values.
func changeBooleans(t *testing.T, s *Server, g *generator) ([]byte, *Server) {
	t.Helper()
	values := map[string]bool{}
	states := make([]bool, s.policy.Booleans.Prim)
	for b := range s.policy.Booleans.All() {
		states[b.Value-1] = b.State != (g.rng.IntN(2) == 0)
		values[b.Name] = states[b.Value-1]
	}
	data, err := s.policy.WithBooleans(states).Encode()
	if err != nil {
		t.Fatal(err)
	}
	changed, err := s.WithBooleans(values)
	if err != nil {
		t.Fatal(err)
	}
	return data, changed
}

// withBounds returns the policy with random types bounded by others, which no
// compiler would write, since it checks that nothing needs to be masked. Types
// that bound are not bounded themselves: libsepol 3.4 cannot follow such chains.
func withBounds(t *testing.T, p *policydb.Policy, g *generator) []byte {
	t.Helper()
	for i := range p.Types.Entries {
		e := &p.Types.Entries[i]
		if e.Attribute || e.Alias || e.Value%2 == 0 || g.rng.IntN(2) == 0 {
			continue
		}
		if up := p.Types.ByName(g.pick(g.types)); up.Value%2 == 0 {
			e.Bounds = up.ID()
		}
	}
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// TestConfirmDecide compares decisions with libsepol's: 4 000 000 in full.
func TestConfirmDecide(t *testing.T) {
	for i, tt := range decideCases(t) {
		t.Run(tt.name, func(t *testing.T) {
			data := tt.policy(t)
			s := loadServer(t, data)
			g := newGenerator(s.policy, uint64(i)+1)
			switch tt.variant {
			case "booleans":
				data, s = changeBooleans(t, s, g)
			case "bounds":
				data = withBounds(t, s.policy, g)
				s = loadServer(t, data)
			}
			texts := withoutQuirks(g.contexts(1500))
			confirmContexts(t, s, startSepol(t, data, texts), texts)
			confirmDecisions(t, s, data, g, texts, count(tt.full, tt.share))
		})
	}
}

func compiled(file string, version int, flags ...string) func(testing.TB) []byte {
	return func(tb testing.TB) []byte {
		return selinuxtest.CompileFile(tb, "../policydb/testdata/"+file, version, flags...)
	}
}

// withoutQuirks leaves out contexts that libsepol takes and the kernel refuses:
// those whose range ends in a dash.
func withoutQuirks(texts []string) []string {
	return slices.DeleteFunc(texts, func(s string) bool { return strings.HasSuffix(s, "-") })
}

type decideCase struct {
	name, variant string
	policy        func(testing.TB) []byte
	full, share   int
}

func decideCases(*testing.T) []decideCase {
	def := func(tb testing.TB) []byte { return debianPolicy(tb, "default") }
	mls := func(tb testing.TB) []byte { return debianPolicy(tb, "mls") }
	return []decideCase{
		{"default", "", def, 1_500_000, 30_000},
		{"mls", "", mls, 1_500_000, 30_000},
		{"default booleans", "booleans", def, 500_000, 10_000},
		{"default bounds", "bounds", def, 200_000, 5_000},
		{"mls booleans", "booleans", mls, 300_000, 10_000},
		{"every", "", everyPolicy, 100_000, 20_000},
		{"every booleans", "booleans", everyPolicy, 50_000, 10_000},
		{"talos", "", talosPolicy, 100_000, 20_000},
		{"no levels", "", compiled("every-nomls.conf", 33), 20_000, 5_000},
		{"no levels booleans", "booleans", compiled("every-nomls.conf", 31), 20_000, 5_000},
		{"version 24", "", compiled("old.conf", 24, "-M"), 20_000, 5_000},
		{"version 23", "", compiled("old.conf", 23, "-M"), 20_000, 5_000},
		{"version 20", "", compiled("old.conf", 20, "-M"), 20_000, 5_000},
		{"version 19", "", compiled("old.conf", 19, "-M"), 20_000, 5_000},
		{"version 15", "", compiled("old-nomls.conf", 15), 20_000, 5_000},
		{"xen", "", compiled("xen.conf", 24, "-t", "xen"), 20_000, 5_000},
	}
}

func confirmContexts(t *testing.T, s *Server, o *sepol, texts []string) {
	t.Helper()
	valid := 0
	for i, c := range resolve(s, texts) {
		if (c != nil) != o.valid[i] {
			_, err := s.ParseContext(texts[i])
			t.Errorf("%s: libsepol says valid %t; here %v", texts[i], o.valid[i], err)
			continue
		}
		if c != nil {
			valid++
			if c.String() != o.canon[i] {
				t.Errorf("%s: printed %s, by libsepol %s", texts[i], c, o.canon[i])
			}
		}
	}
	if valid < len(texts)/20 || valid == len(texts) {
		t.Errorf("%d of %d contexts are valid", valid, len(texts))
	}
}

type question struct{ op, class, a, b, c uint32 }

// confirmDecisions asks libsepol n questions while another goroutine reads.
func confirmDecisions(t *testing.T, s *Server, data []byte, g *generator, texts []string, n int) {
	t.Helper()
	o := startSepol(t, data, texts)
	contexts := resolve(s, texts)
	var usable []uint32
	for i, c := range contexts {
		if c != nil && o.valid[i] {
			usable = append(usable, uint32(i))
		}
	}
	questions := make([]question, n)
	for i := range questions {
		questions[i] = question{'d', g.class(), usable[g.rng.IntN(len(usable))], usable[g.rng.IntN(len(usable))], 0}
	}
	done := ask(o, questions)
	wrong := 0
	for _, q := range questions {
		o.get()
		want := Decision{Allowed: o.get(), AuditAllow: o.get(), AuditDeny: o.get()}
		got := s.Decide(contexts[q.a], contexts[q.b], policydb.ClassID(q.class))
		got.Flags = 0 // libsepol has none
		if got != want {
			if wrong++; wrong <= 5 {
				t.Errorf("%s %s %s:\n got %s\nwant %s", texts[q.a], texts[q.b], s.policy.ClassName(policydb.ClassID(q.class)), describe(got), describe(want))
			}
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	if wrong > 0 {
		t.Errorf("%d of %d decisions differ", wrong, n)
	}
	t.Logf("%d decisions, %d differences", n, wrong)
}

func ask(o *sepol, questions []question) <-chan error {
	done := make(chan error, 1)
	go func() {
		var b []byte
		for _, q := range append(questions, question{op: 'f'}) {
			b = b[:0]
			for _, v := range [...]uint32{q.op, q.class, q.a, q.b, q.c} {
				b = binary.NativeEndian.AppendUint32(b, v)
			}
			if _, err := o.in.Write(b); err != nil {
				done <- err
				return
			}
		}
		done <- o.in.Flush()
	}()
	return done
}

// TestConfirmTransition compares new contexts with libsepol's: 200 000 in full.
//
// Known difference: libsepol takes sockets for files, the kernel for processes.
func TestConfirmTransition(t *testing.T) {
	for i, tt := range decideCases(t) {
		if tt.variant == "bounds" {
			continue
		}
		t.Run(tt.name, func(t *testing.T) {
			data := tt.policy(t)
			s := loadServer(t, data)
			g := newGenerator(s.policy, 100+uint64(i))
			if tt.variant == "booleans" {
				data, s = changeBooleans(t, s, g)
			}
			texts := append(withoutQuirks(g.contexts(300)), transitionContexts(g, 900)...)
			confirmTransitions(t, s, data, g, texts, count(30_000, 3_000))
		})
	}
}

// transitionContexts returns contexts of types that rules about new contexts
// have, which random types seldom meet.
func transitionContexts(g *generator, n int) []string {
	p := g.p
	var pairs []policydb.Rule
	for _, r := range p.Rules {
		if r.Kind().IsType() {
			pairs = append(pairs, r)
		}
	}
	for i := range p.Conditionals {
		for _, list := range [2][]policydb.Rule{p.Conditionals[i].True, p.Conditionals[i].False} {
			for _, r := range list {
				if r.Kind().IsType() {
					pairs = append(pairs, r, r)
				}
			}
		}
	}
	for _, r := range p.RangeTransitions {
		pairs = append(pairs, policydb.NewRule(policydb.TypeTransition, r.Source, r.Target, r.Class, 0))
	}
	var out []string
	for len(out) < n && len(pairs) > 0 {
		r := pairs[g.rng.IntN(len(pairs))]
		level := g.pick(g.levels)
		if level != "" {
			level = ":" + level
		}
		user, role := g.userAndRole(r.Source)
		out = append(out, user+":"+role+":"+p.TypeName(r.Source)+level, g.pick(g.users)+":object_r:"+p.TypeName(r.Target)+level)
	}
	return out
}

// userAndRole returns a user and a role that a type may be with.
func (g *generator) userAndRole(t policydb.TypeID) (user, role string) {
	pairs := [][2]string{{g.pick(g.users), "object_r"}}
	for r := range g.p.Roles.All() {
		for u := range g.p.Users.All() {
			if r.Types.HasValue(uint32(t)) && u.Roles.HasValue(r.Value) {
				pairs = append(pairs, [2]string{u.Name, r.Name})
			}
		}
	}
	pair := pairs[g.rng.IntN(len(pairs))]
	return pair[0], pair[1]
}

func confirmTransitions(t *testing.T, s *Server, data []byte, g *generator, texts []string, n int) {
	t.Helper()
	o := startSepol(t, data, texts)
	contexts := resolve(s, texts)
	var usable []uint32
	for i, c := range contexts {
		if (c != nil) != o.valid[i] {
			t.Fatalf("%s: valid %t", texts[i], o.valid[i])
		}
		if c != nil {
			usable = append(usable, uint32(i))
		}
	}
	if len(usable) < 10 {
		t.Fatalf("only %d contexts", len(usable))
	}
	common := []string{"process", "file", "dir", "chr_file", "lnk_file", "fifo_file", "sock_file"}
	questions := make([]question, n)
	for i := range questions {
		class := g.class()
		if c := s.Class(common[g.rng.IntN(len(common))]); c != 0 && g.rng.IntN(2) == 0 {
			class = uint32(c)
		}
		a := g.rng.IntN(len(usable))
		b := g.rng.IntN(len(usable))
		if g.rng.IntN(2) == 0 {
			b = min(a+1, len(usable)-1)
		}
		questions[i] = question{[]uint32{'t', 't', 'm', 'r', 'v'}[g.rng.IntN(5)], class, usable[a], usable[b], usable[g.rng.IntN(len(usable))]}
		if _, socket := socketClasses[s.policy.ClassName(policydb.ClassID(class))]; socket && questions[i].op != 'v' {
			questions[i].op = 'm'
			questions[i].class = uint32(s.Class("file"))
		}
	}
	done := ask(o, questions)
	wrong, invalid, moved, refused := 0, 0, 0, 0
	for _, q := range questions {
		a, b, class := contexts[q.a], contexts[q.b], policydb.ClassID(q.class)
		var got, want string
		if q.op == 'v' {
			want = strconv.FormatBool(o.get() == 0)
			err := s.ValidateTransition(a, b, contexts[q.c], class)
			got = strconv.FormatBool(err == nil)
			if err != nil {
				refused++
			}
		} else {
			want = o.text()
			c, err := newContext(s, q.op, a, b, class)
			if err == nil {
				got = c.String()
			} else {
				invalid++
			}
			if err == nil && c.typ != a.typ && c.typ != b.typ {
				moved++
			}
		}
		if got != want {
			if wrong++; wrong <= 5 {
				t.Errorf("%c %s %s %s: got %q, want %q", q.op, texts[q.a], texts[q.b], s.policy.ClassName(class), got, want)
			}
		}
	}
	if err := <-done; err != nil {
		t.Error(err)
	}
	t.Logf("%d questions, %d differences; %d results not valid, %d types by rule, %d changes refused", n, wrong, invalid, moved, refused)
	if wrong > 0 {
		t.Errorf("%d of %d differ", wrong, n)
	}
}

func newContext(s *Server, op uint32, a, b *Context, class policydb.ClassID) (*Context, error) {
	switch op {
	case 't':
		return s.Transition(a, b, class, "")
	case 'm':
		return s.Member(a, b, class)
	default:
		return s.Relabel(a, b, class)
	}
}
