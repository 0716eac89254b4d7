// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/selinux/ss"
)

func contexts(tb testing.TB, s *ss.Server, texts ...string) []*ss.Context {
	tb.Helper()
	out := make([]*ss.Context, len(texts))
	for i, text := range texts {
		c, err := s.ParseContext(text)
		if err != nil {
			tb.Fatal(err)
		}
		out[i] = c
	}
	return out
}

func isolate(tb testing.TB, s *ss.Server, accepted string, texts ...string) Proof {
	tb.Helper()
	a, err := ParseAccepted(accepted)
	if err != nil {
		tb.Fatal(err)
	}
	p, err := Isolate(s, contexts(tb, s, texts...), a)
	if err != nil {
		tb.Fatal(err)
	}
	return p
}

func residuals(p Proof) []string {
	var out []string
	for _, r := range p.Residual {
		out = append(out, r.Class+" "+r.Perm)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

const containerAt = "system_u:system_r:container_t:s0:"

// TestContainerModule proves two containers under our own module apart, with an
// empty list of accepted residuals.
func TestContainerModule(t *testing.T) {
	_, p := defaultPolicy(t)
	s := ss.New(p)
	got := isolate(t, s, "", containerAt+"c1,c2", containerAt+"c3,c4")
	if !got.Proven || len(got.Residual) > 0 || got.Checked < 100 {
		t.Errorf("proven %v, %d decisions, problems %q, residuals %q", got.Proven, got.Checked, got.Problems, residuals(got))
	}
	// A control: the proof can fail.
	for _, tt := range []struct {
		name, a, b, problem, residual string
	}{
		{"same label", containerAt + "c1,c2", containerAt + "c1,c2", "the same level", "file read"},
		{"dominating label", containerAt + "c1,c2,c3", containerAt + "c1,c2", "dominates", "file write"},
		{"privileged", "system_u:system_r:spc_t:s0:c1,c2", containerAt + "c3,c4", "", "process ptrace"},
		{"host", "system_u:system_r:initrc_t:s0", containerAt + "c3,c4", "", "process transition"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got := isolate(t, s, "", tt.a, tt.b)
			if got.Proven || !slices.Contains(residuals(got), tt.residual) {
				t.Errorf("proven %v, residuals %v, want %s", got.Proven, residuals(got), tt.residual)
			}
			if tt.problem != "" && !strings.Contains(strings.Join(got.Problems, " "), tt.problem) {
				t.Errorf("problems %q, want %q", got.Problems, tt.problem)
			}
		})
	}
}

// TestRefpolicyResiduals finds what refpolicy's own constraints leave between two
// virtual machines, and lets it be accepted line by line.
func TestRefpolicyResiduals(t *testing.T) {
	s := ss.New(load(t, debian.Policy(t, "default", nil).Policy))
	a, b := "system_u:system_r:svirt_t:s0:c1,c2", "system_u:system_r:svirt_t:s0:c3,c4"
	got := isolate(t, s, "", a, b)
	have := residuals(got)
	if got.Proven {
		t.Fatal("svirt_t is proven apart, which it is not")
	}
	for _, want := range []string{"file getattr", "file map", "process signull", "process sigchld", "filesystem getattr"} {
		if !slices.Contains(have, want) {
			t.Errorf("%s is not among %v", want, have)
		}
	}
	for _, not := range []string{"file read", "file write", "process ptrace", "process signal", "unix_stream_socket connectto"} {
		if slices.Contains(have, not) {
			t.Errorf("%s is left", not)
		}
	}
	var lines strings.Builder
	for _, r := range got.Residual {
		fmt.Fprintf(&lines, "%s %s %s %s # seen\n", r.Class, r.Perm, r.Source, r.Target)
	}
	if again := isolate(t, s, lines.String(), a, b); !again.Proven {
		t.Errorf("with all accepted: %+v", again)
	}
	again := isolate(t, s, "* getattr * *", a, b)
	for _, r := range again.Residual {
		if r.Accepted != (r.Perm == "getattr") {
			t.Errorf("with getattr accepted: %+v", r)
		}
	}
	if again.Proven {
		t.Error("proven with only getattr accepted")
	}
}

func TestParseAccepted(t *testing.T) {
	if _, err := ParseAccepted("# comment\n\nfile read a_t b_t\nfile read\n"); err == nil || !strings.Contains(err.Error(), "line 4") {
		t.Errorf("err = %v", err)
	}
}

func BenchmarkIsolate(b *testing.B) {
	_, p := defaultPolicy(b)
	s := ss.New(p)
	for _, n := range []int{2, 500} {
		texts := make([]string, n)
		for i := range texts {
			texts[i] = fmt.Sprintf("%sc%d,c%d", containerAt, 2*i%1023, 1023-i%7)
		}
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				fresh := ss.New(s.Policy())
				if p, err := Isolate(fresh, contexts(b, fresh, texts...), Accepted{}); err != nil || p.Pairs != n*(n-1) {
					b.Fatal(err)
				}
			}
		})
	}
}
