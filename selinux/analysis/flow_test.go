// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/selinux/policydb"
	"github.com/palisade-sec/palisade/selinux/ss"
)

// compiled compiles a policy source of the corpus.
func compiled(tb testing.TB, name string) string {
	tb.Helper()
	checkpolicy := oracle.Tool(tb, "checkpolicy", "apt: checkpolicy")
	conf := filepath.Join(oracle.Corpus(tb, "selinux/setools-conf"), name)
	out := filepath.Join(tb.TempDir(), name+".policy")
	text, err := exec.Command(checkpolicy, "-M", "-c", "33", "-o", out, conf).CombinedOutput()
	if err != nil {
		text2, err := exec.Command(checkpolicy, "-c", "33", "-o", out, conf).CombinedOutput()
		if err != nil {
			tb.Fatalf("%s\n%s", text, text2)
		}
	}
	return out
}

const flowMap = `3
class infoflow 7
low_w w 1
med_w w 5
hi_w w 10
low_r r 1
med_r r 5
hi_r r 10
ioctl n 1
class infoflow2 4
low_w w 1
hi_w w 10
super b 10
med_r r 5
class infoflow3 1
null n 1
`

func flowGraph(tb testing.TB, s *ss.Server, o FlowOptions) *FlowGraph {
	tb.Helper()
	g, err := NewFlowGraph(s, o)
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

func pathsText(paths [][]FlowStep) []string {
	var out []string
	for _, p := range paths {
		var b strings.Builder
		b.WriteString(p[0].From)
		for _, s := range p {
			b.WriteString(" " + s.To)
		}
		out = append(out, b.String())
	}
	slices.Sort(out)
	return out
}

func TestFlowSmall(t *testing.T) {
	m, err := ParsePermMap(strings.NewReader(flowMap))
	if err != nil {
		t.Fatal(err)
	}
	s := ss.New(load(t, compiled(t, "infoflow.conf")))
	for _, tt := range []struct {
		from, to string
		min      int
		exclude  []string
		want     []string
	}{
		{"node1", "node4", 1, nil, []string{"node1 node2 node4"}},
		{"node1", "node7", 8, nil, []string{"node1 node2 node4 node6 node7"}},
		{"node1", "node8", 8, nil, nil},
		{"node1", "node9", 3, nil, []string{"node1 node2 node4 node6 node5 node8 node9"}},
		{"node1", "node9", 1, nil, []string{"node1 node3 node5 node8 node9"}},
		{"node1", "node9", 1, []string{"node3"}, []string{"node1 node2 node4 node6 node5 node8 node9"}},
		{"node1", "node9", 1, []string{"node8"}, nil},
		{"disconnected1", "disconnected2", 1, nil, []string{"disconnected1 disconnected2"}},
		{"disconnected2", "disconnected1", 1, nil, []string{"disconnected2 disconnected1"}},
		{"node1", "disconnected3", 1, nil, nil},
		{"node1", "node1", 1, nil, nil},
	} {
		paths, err := flowGraph(t, s, FlowOptions{Map: m, MinWeight: tt.min, Exclude: tt.exclude}).Shortest(tt.from, tt.to, 0)
		if err != nil {
			t.Fatal(err)
		}
		if got := pathsText(paths); !slices.Equal(got, tt.want) {
			t.Errorf("%s to %s, weight %d, without %v: %q, want %q", tt.from, tt.to, tt.min, tt.exclude, got, tt.want)
		}
	}
	direct, err := flowGraph(t, s, FlowOptions{Map: m}).Direct("node1", false, true)
	if err != nil {
		t.Fatal(err)
	}
	want := []FlowStep{
		{"node1", "node2", 10, []string{"allow node1 node2:infoflow med_w;", "allow node2 node1:infoflow hi_r;"}},
		{"node1", "node3", 5, []string{"allow node3 node1:infoflow { low_r med_r };"}},
	}
	if diff := cmp.Diff(want, direct); diff != "" {
		t.Error(diff)
	}
}

func TestFlowBooleans(t *testing.T) {
	m, err := ParsePermMap(strings.NewReader(flowMap))
	if err != nil {
		t.Fatal(err)
	}
	off := ss.New(load(t, compiled(t, "conditionalinfoflow.conf")))
	on, err := off.WithBooleans(map[string]bool{"condition": true})
	if err != nil {
		t.Fatal(err)
	}
	for s, want := range map[*ss.Server]string{off: "src flow_false tgt", on: "src flow_true tgt"} {
		paths, err := flowGraph(t, s, FlowOptions{Map: m}).Shortest("src", "tgt", 0)
		if got := pathsText(paths); err != nil || !slices.Equal(got, []string{want}) {
			t.Errorf("%q, %v, want %q", got, err, want)
		}
		paths, err = flowGraph(t, s, FlowOptions{Map: m}).Shortest("src_remain", "tgt_remain", 0)
		if got := pathsText(paths); err != nil || !slices.Equal(got, []string{"src_remain flow_remain tgt_remain"}) {
			t.Errorf("%q, %v", got, err)
		}
	}
}

var flowLine = regexp.MustCompile(`(?m)^Flow \d+: (\S+) -> (\S+)`)

// TestConfirmFlow compares the flows out of a type of Debian's policy
// with seinfoflow's, both with setools' map.
func TestConfirmFlow(t *testing.T) {
	if !oracle.Required() {
		t.Skip("takes half a minute a question; REQUIRE_ORACLES=1 runs it")
	}
	seinfoflow := oracle.Tool(t, "seinfoflow", "apt: setools")
	path := debian.Policy(t, "default", nil).Policy
	found, err := filepath.Glob("/usr/lib/python3*/*-packages/setools/perm_map")
	if err != nil || len(found) == 0 {
		t.Fatalf("setools has no perm_map: %v", err)
	}
	f, err := os.Open(found[0])
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := ParsePermMap(f)
	if err != nil {
		t.Fatal(err)
	}
	g := flowGraph(t, ss.New(load(t, path)), FlowOptions{Map: m, MinWeight: 3})
	out, err := exec.Command(seinfoflow, "-p", path, "-m", found[0], "-s", "svirt_t", "-w", "3", "-b", "default").Output()
	if err != nil {
		t.Fatal(err)
	}
	var want []string
	for _, line := range flowLine.FindAllStringSubmatch(string(out), -1) {
		want = append(want, line[1]+" "+line[2])
	}
	direct, err := g.Direct("svirt_t", false, false)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range direct {
		got = append(got, s.From+" "+s.To)
	}
	slices.Sort(want)
	slices.Sort(got)
	if len(want) < 100 || !slices.Equal(want, got) {
		t.Errorf("%d flows, seinfoflow has %d:\n%.2000s", len(got), len(want), cmp.Diff(want, got))
	}
}

func TestPermMapErrors(t *testing.T) {
	for text, want := range map[string]string{
		"":                               "empty",
		"x":                              "line 1: want the number of classes",
		"0":                              "line 1: want the number of classes",
		"1\nklass file 1":                `line 2: want "class NAME COUNT"`,
		"1\nclass file -1":               "line 2: want a number of permissions",
		"1\nclass file 1\nread q 1":      "line 3: direction",
		"1\nclass file 1\nread r 11":     "line 3: weight",
		"1\nclass file 1\nread r x":      "line 3: weight",
		"1\nclass file 2\nread r 1":      "class file lacks 1 permissions",
		"2\nclass file 1\nread r 1":      "1 classes, the map begins with 2",
		"1\nclass a 1\nr r 1\nclass b 1": "line 4: more than the 1 classes",
		"1\nclass a 2\nr r 1\nr r 1":     "line 4: permission r of class a is there twice",
		"1\nclass a 1\nr r":              "line 3: want",
	} {
		if _, err := ParsePermMap(strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %s", text, err, want)
		}
	}
}

func FuzzParsePermMap(f *testing.F) {
	f.Add(flowMap)
	f.Add("1\nclass a 1\nr r 1 # comment\n")
	f.Fuzz(func(t *testing.T, text string) {
		m, err := ParsePermMap(strings.NewReader(text))
		if (m == nil) == (err == nil) {
			t.Fatal(m, err)
		}
	})
}

// TestBuiltinPermMap has a meaning for everything that Debian's policies have.
func TestBuiltinPermMap(t *testing.T) {
	_, p := defaultPolicy(t)
	if un := BuiltinPermMap().Unmapped(p); len(un) > 0 {
		t.Errorf("%d permissions are not mapped: %q", len(un), un)
	}
}

// TestFlowConstraints: what rules let flow between the types of two virtual
// machines does not flow between their labels.
func TestFlowConstraints(t *testing.T) {
	_, p := defaultPolicy(t)
	s := ss.New(p)
	// Content only, through the content that containers own.
	g := flowGraph(t, s, FlowOptions{MinWeight: 10})
	types, err := g.Shortest("container_t", "container_file_t", 1)
	if err != nil || len(types) != 1 || len(types[0]) != 1 {
		t.Fatalf("types: %+v, %v", types, err)
	}
	only := FlowOptions{MinWeight: 10}
	for ty := range p.Types.All() {
		if n := ty.Name; !ty.Attribute && !strings.HasPrefix(n, "container_") {
			only.Exclude = append(only.Exclude, n)
		}
	}
	g = flowGraph(t, s, only)
	for _, tt := range []struct {
		from, to, level string
		steps           int
	}{
		{containerAt + "c1,c2", "system_u:object_r:container_file_t:s0:c1,c2", "", 1},
		{containerAt + "c1,c2", "system_u:object_r:container_file_t:s0:c3,c4", "", 0},
		{containerAt + "c1,c2", containerAt + "c3,c4", "", 0},
		{"system_u:object_r:container_file_t:s0:c1,c2", containerAt + "c1,c2", "", 1},
	} {
		c := contexts(t, s, tt.from, tt.to)
		var ranges []policydb.Range
		if tt.level != "" {
			ranges = append(ranges, contexts(t, s, "system_u:object_r:container_file_t:"+tt.level)[0].Values().Range)
		}
		if got := g.ShortestBetween(c[0], c[1], ranges...); len(got.Path) != tt.steps {
			t.Errorf("%s to %s: %+v, want %d steps", tt.from, tt.to, got, tt.steps)
		}
	}
}

func BenchmarkFlow(b *testing.B) {
	path, _ := defaultPolicy(b)
	b.Run("load-graph-question", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			g := flowGraph(b, ss.New(load(b, path)), FlowOptions{})
			if paths, err := g.Shortest("shadow_t", "container_t", 1); err != nil {
				b.Fatal(fmt.Sprint(paths), err)
			}
		}
	})
	b.Run("contexts", func(b *testing.B) {
		s := ss.New(load(b, path))
		g := flowGraph(b, s, FlowOptions{MinWeight: 10})
		c := contexts(b, s, containerAt+"c1,c2", containerAt+"c3,c4")
		for b.Loop() {
			if got := g.ShortestBetween(c[0], c[1]); got.Decisions == 0 {
				b.Fatal("nothing was decided")
			}
		}
	})
}
