// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"os"
	"path/filepath"
	"testing"
)

// Profiles lists the AppArmor profile files of the distribution's packages, and a
// folder that holds them as an installation of these packages alone would, with
// etc/apparmor.d for their includes. What is installed on this machine plays no part.
func Profiles(tb testing.TB) (base string, files []string) {
	tb.Helper()
	base = tb.TempDir()
	for _, name := range []string{"apparmor", "apparmor-profiles", "apparmor-profiles-extra"} {
		dir := Package(tb, name)
		for _, sub := range []string{"etc/apparmor.d", "usr/share/apparmor/extra-profiles"} {
			from := filepath.Join(dir, sub)
			if _, err := os.Stat(from); err != nil {
				continue
			}
			if err := os.CopyFS(filepath.Join(base, sub), os.DirFS(from)); err != nil {
				tb.Fatal(err)
			}
			list, err := os.ReadDir(from)
			if err != nil {
				tb.Fatal(err)
			}
			for _, e := range list {
				if e.Type().IsRegular() && e.Name() != "README" {
					files = append(files, filepath.Join(base, sub, e.Name()))
				}
			}
		}
	}
	// Installing the packages makes an empty file for local changes for each.
	local := filepath.Join(base, "etc/apparmor.d/local")
	if err := os.MkdirAll(local, 0o755); err != nil {
		tb.Fatal(err)
	}
	for _, f := range files {
		p := filepath.Join(local, filepath.Base(f))
		if _, err := os.Stat(p); err != nil {
			if err := os.WriteFile(p, nil, 0o644); err != nil {
				tb.Fatal(err)
			}
		}
	}
	if len(files) == 0 {
		tb.Fatal("the packages have no profiles")
	}
	return base, files
}
