// SPDX-License-Identifier: Apache-2.0

package analysis

import (
	"os/exec"
	"regexp"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/selinux/ss"
)

var sedtaLine = regexp.MustCompile(`(?m)^Transition \d+: (\S+) -> (\S+)`)

// TestConfirmDomains compares the changes out of a domain with sedta's.
func TestConfirmDomains(t *testing.T) {
	sedta := oracle.Tool(t, "sedta", "apt: setools")
	for path, domains := range map[string][]string{
		compiled(t, "dta.conf"):                 {"start", "trans1", "trans2", "trans3", "trans5", "dyntrans100", "dyntrans101", "bothtrans200", "bothtrans201"},
		debian.Policy(t, "default", nil).Policy: {"init_t", "virtd_t"},
	} {
		g := NewDomainGraph(ss.New(load(t, path)), true)
		for _, domain := range domains {
			out, err := exec.Command(sedta, "-p", path, "-s", domain).CombinedOutput()
			if err != nil {
				t.Fatalf("sedta: %v\n%s", err, out)
			}
			var want, got []string
			for _, line := range sedtaLine.FindAllStringSubmatch(string(out), -1) {
				want = append(want, line[1]+" "+line[2])
			}
			steps, err := g.Direct(domain, false)
			if err != nil {
				t.Fatal(err)
			}
			for _, s := range steps {
				got = append(got, s.From+" "+s.To)
			}
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("%s (-sedta +ours):\n%.2000s", domain, diff)
			}
		}
	}
}

func TestDomains(t *testing.T) {
	g := NewDomainGraph(ss.New(load(t, compiled(t, "dta.conf"))), true)
	want := []DomainStep{
		{From: "start", To: "trans1", Exec: []DomainExec{{"trans1_exec", true}}},
		{From: "trans1", To: "trans2", Exec: []DomainExec{{"trans2_exec", false}}, OnRequest: true},
		{From: "trans2", To: "trans3", Exec: []DomainExec{{"trans3_exec1", true}, {"trans3_exec2", false}}, OnRequest: true},
	}
	paths, err := g.Shortest("start", "trans3", 0)
	if err != nil || len(paths) != 1 {
		t.Fatalf("%+v, %v", paths, err)
	}
	if diff := cmp.Diff(want, paths[0]); diff != "" {
		t.Error(diff)
	}
	for _, to := range []string{"trans4", "trans300", "trans301", "trans302", "dyntrans102"} {
		if paths, err := g.Shortest("start", to, 0); err != nil || len(paths) > 0 {
			t.Errorf("start to %s: %+v, %v", to, paths, err)
		}
	}
	steps, err := g.Direct("bothtrans200", true)
	if err != nil || len(steps) != 1 || !steps[0].Dynamic || len(steps[0].Exec) != 1 {
		t.Errorf("into bothtrans200: %+v, %v", steps, err)
	}
	if _, err := g.Direct("nosuch", false); err == nil {
		t.Error("an unknown domain")
	}
}
