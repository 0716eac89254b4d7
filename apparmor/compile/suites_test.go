// SPDX-License-Identifier: Apache-2.0

//go:build linux

package compile

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/internal/debian"
)

// suites are releases of Debian whose compiler is compared with ours, for which
// kernels, and the texts that their compiler means otherwise.
var suites = map[string]struct {
	features []string
	known    []string
}{
	// 4.1.0. 4.1.8, with which ours agrees, differs from it in these: mmap of a
	// path of px that a glob of ix covers, the subset bit of a link pair, and socket
	// types beyond the known ones.
	"trixie": {[]string{"6.1.features", "6.12.features"}, []string{"/b/* ix, /b/a px,", "/a l -> /b,", "network inet,", "network unix,", "network, deny network packet,", "network inet ip=", "network inet6 port="}},
	// 5.0.2 also attaches profiles whose name is a plain path.
	"sid": {[]string{"6.1.features", "6.12.features", "7.2.features", "parser-tests.all.features"}, []string{"profile /a {", "/usr/bin/p {"}},
}

// TestConfirmSuites compares with the reference compilers of other releases of
// Debian, each run with the libraries of its release ("make apparmor-parsers").
func TestConfirmSuites(t *testing.T) {
	if os.Getenv("PALISADE_PARSER_SUITES") == "" {
		t.Skip("downloads other releases' compilers; make apparmor-parsers runs it")
	}
	for name, suite := range suites {
		t.Run(name, func(t *testing.T) {
			root := debian.OpenSuite(t, name).Unpack(t, "apparmor", "libapparmor1", "libc6", "libgcc-s1", "libstdc++6")
			script := fmt.Sprintf("#!/bin/sh\nexec %s/usr/lib64/ld-linux-x86-64.so.2 --library-path %[1]s/usr/lib/x86_64-linux-gnu %[1]s/usr/sbin/apparmor_parser \"$@\"\n", root)
			bin := t.TempDir()
			if err := os.WriteFile(filepath.Join(bin, "apparmor_parser"), []byte(script), 0o755); err != nil {
				t.Fatal(err)
			}
			t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
			if referenceLevel(t) != Level4 {
				t.Fatal("the compiler is not that of the release")
			}
			for _, set := range suite.features {
				f, path := readFeatures(t, set)
				same, differ, refused := 0, 0, 0
				for _, r := range append(append([]string{}, ruleTexts...), ruleTexts4...) {
					text := "@{x}=m n{o,p}\nprofile p { " + r + " }"
					want, err := reference(t, text, path)
					if err != nil {
						refused++
						continue
					}
					err = sameProfiles(compileText(t, text, Options{Kernel: f, Level: Level4}, apparmor.Env{}).Blobs(), want)
					known := false
					for _, k := range suite.known {
						known = known || strings.Contains(text, k)
					}
					switch {
					case err == nil:
						same++
					case known:
						differ++
					default:
						t.Errorf("%s: %s: %v", set, text, err)
					}
				}
				t.Logf("%s: %d rules equal, %d known to differ, %d refused by the reference", set, same, differ, refused)
				if same < 150 {
					t.Errorf("%s: only %d rules were compared and equal", set, same)
				}
			}
		})
	}
}

func sameProfiles(got, want []*blob.Profile) error {
	if len(got) != len(want) {
		return fmt.Errorf("%d profiles, want %d", len(got), len(want))
	}
	for i := range got {
		if err := compareProfiles(got[i], want[i]); err != nil {
			return fmt.Errorf("profile %s: %w", want[i].Name, err)
		}
	}
	return nil
}
