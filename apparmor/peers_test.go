// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"text/template"

	"github.com/palisade-sec/palisade/apparmor/dfa"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// deniedPaths is the automaton of the paths below /proc and /sys, label bit 1,
// with those that a profile denies a permission on, bit 0.
func deniedPaths(t *testing.T, text []byte, perm uint32) *dfa.DFA {
	t.Helper()
	f, diags := Parse("peer", text)
	if diags.HasErrors() {
		t.Fatalf("%v\n%s", diags, text)
	}
	p, diags := Resolve(f, Env{})
	if diags.HasErrors() {
		t.Fatalf("%v\n%s", diags, text)
	}
	a := dfa.NewArena()
	clean, _, err := a.Parse(`/(proc|sys)(/[^/\x00]+)+`)
	if err != nil {
		t.Fatal(err)
	}
	rules := []dfa.Rule{{Expr: clean, Accept: 2}}
	for _, r := range p.Profiles[0].Rules {
		b, ok := r.Body.(*FileBody)
		if !ok || r.Mode != ModeDeny || b.Perms&perm == 0 {
			continue
		}
		g, err := dfa.ConvertGlob("", dfa.FilterSlashes(b.Path), false)
		if err != nil {
			t.Fatal(err)
		}
		x, _, err := a.Parse(g.Regex)
		if err != nil {
			t.Fatal(err)
		}
		rules = append(rules, dfa.Rule{Expr: x, Accept: 1})
	}
	d, err := dfa.Build(a, rules, func(accepts []int32) (uint32, error) {
		var l uint32
		for _, x := range accepts {
			l |= uint32(x)
		}
		return l, nil
	}, dfa.Limits{})
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// onlyIn is a shortest clean path that a denies and b does not.
func onlyIn(a, b *dfa.DFA) string {
	d := dfa.Compare(a, b, func(la, lb uint32) bool { return la != 3 || lb != 2 })
	if d == nil {
		return ""
	}
	return string(bytes.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '_'
		}
		return r
	}, d.Bytes()))
}

// peers are the engines whose default profile is generated from a template in a
// published module. over is a shortest path that they deny writing to and our
// profile does not: Podman's pattern for folders of /proc that are no process
// also matches sys, so that its exception for shm* is none.
var peers = []struct{ module, file, over string }{
	{"github.com/moby/profiles/apparmor@v0.1.0", "template.go", ""},
	{"github.com/containerd/containerd/v2@v2.4.2", "contrib/apparmor/template.go", ""},
	{"github.com/containers/common@v0.62.0", "pkg/apparmor/apparmor_linux_template.go", "/proc/sys/kernel/shm"},
}

// TestConfirmPeerProfiles resolves the default profiles of the engines and
// holds ours to deny at least what they deny below /proc and /sys.
func TestConfirmPeerProfiles(t *testing.T) {
	for _, p := range peers {
		t.Run(p.module, func(t *testing.T) {
			source, err := os.ReadFile(filepath.Join(oracle.Module(t, p.module), p.file))
			if err != nil {
				t.Fatal(err)
			}
			m := regexp.MustCompile("(?s)emplate = `(.*?)`").FindSubmatch(source)
			if m == nil {
				t.Fatalf("no template in %s", p.file)
			}
			tmpl, err := template.New("profile").Parse(string(m[1]))
			if err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			err = tmpl.Execute(&text, map[string]any{
				"Abi": "abi/3.0", "Name": DockerDefaultName, "DaemonProfile": "unconfined", "RootlessKit": "", "Version": 300000,
				"Imports": []string{"#include <tunables/global>"}, "InnerImports": []string{"#include <abstractions/base>"},
			})
			if err != nil {
				t.Fatal(err)
			}
			ours := ContainerProfile{}.Text()
			w, ow := deniedPaths(t, text.Bytes(), MayWrite), deniedPaths(t, ours, MayWrite)
			r, or := deniedPaths(t, text.Bytes(), MayRead), deniedPaths(t, ours, MayRead)
			if got := onlyIn(w, ow); got != p.over {
				t.Errorf("writes that theirs denies and ours does not: %q, want %q", got, p.over)
			}
			if got := onlyIn(r, or); got != "" {
				t.Errorf("reads that theirs denies and ours does not: %q", got)
			}
		})
	}
}
