// SPDX-License-Identifier: Apache-2.0

package apparmor

import (
	"io/fs"
	"strings"
	"testing"
)

// TestBuiltinFiles: whatever is brought along is good by itself and together.
func TestBuiltinFiles(t *testing.T) {
	files := 0
	err := fs.WalkDir(Builtin(), ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files++
		text, err := fs.ReadFile(Builtin(), p)
		if err != nil {
			return err
		}
		if strings.HasPrefix(p, "abi/") {
			f, err := ParseFeatures(string(text))
			if err != nil {
				t.Errorf("%s: %v", p, err)
				return nil
			}
			if !f.Has("rlimit/mask") || !f.Has("caps/mask/chown") {
				t.Errorf("%s lacks what every abi has", p)
			}
			g, err := ParseFeatures(f.String())
			if err != nil || g.String() != f.String() {
				t.Errorf("%s: not the same after printing: %v", p, err)
			}
			return nil
		}
		f, diags := Parse(p, text)
		if len(diags) > 0 {
			t.Errorf("%s: %v", p, diags)
		}
		roundTrip(t, p, f)
		return nil
	})
	if err != nil || files < 15 {
		t.Fatalf("%d files: %v", files, err)
	}
	for _, abi := range []string{"3.0", "4.0", "5.0", "default", "kernel"} {
		f, diags := Parse("p", []byte("abi <"+strings.Replace("abi/"+abi, "abi/kernel", "kernel", 1)+">,\ninclude <tunables/global>\nprofile p /p {\n include <abstractions/base>\n @{HOME}/.x rw,\n @{apparmorfs}/.null r,\n}\n"))
		if diags.HasErrors() {
			t.Fatal(diags)
		}
		p, diags := Resolve(f, Env{})
		if len(diags) > 0 {
			t.Fatalf("abi %s: %v", abi, diags)
		}
		if !p.ABIDeclared || len(p.Profiles) != 1 || len(p.Profiles[0].Rules) < 40 {
			t.Errorf("abi %s: %d profiles", abi, len(p.Profiles))
		}
	}
}
