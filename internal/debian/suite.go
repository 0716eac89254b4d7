// SPDX-License-Identifier: Apache-2.0

package debian

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/oracle"
)

const (
	mirror  = "http://deb.debian.org/debian"
	keyring = "/usr/share/keyrings/debian-archive-keyring.gpg"
)

// Suite is a release of Debian that is not the machine's: apt with lists and
// caches of its own, which trusts the archive's keys and nothing else. What the
// machine has installed, and its sources, play no part.
type Suite struct {
	name string
	root string
}

// maxListAge is how old the lists may be.
const maxListAge = 24 * time.Hour

// OpenSuite fetches the lists of a suite, for example "trixie-backports", unless
// those in the cache are fresh. Where neither can be had the oracle is missing.
func OpenSuite(tb testing.TB, name string) *Suite {
	tb.Helper()
	return open(tb, name, "deb")
}

// OpenSources is OpenSuite for the sources of a suite's packages.
func OpenSources(tb testing.TB, name string) *Suite {
	tb.Helper()
	return open(tb, name, "deb-src")
}

func open(tb testing.TB, name, kind string) *Suite {
	tb.Helper()
	if _, err := exec.LookPath("apt-get"); err != nil {
		oracle.Missing(tb, "suite %s comes from Debian's archive, and there is no apt-get here", name)
	}
	if _, err := os.Stat(keyring); err != nil {
		oracle.Missing(tb, "no keys of Debian's archive here (apt: debian-archive-keyring)")
	}
	s := &Suite{name: name, root: filepath.Join(oracle.CacheDir(tb, "debian"), "apt-"+name)}
	if kind != "deb" {
		s.root += "-" + kind
	}
	for _, dir := range []string{"state/lists/partial", "cache/archives/partial", "parts"} {
		if err := os.MkdirAll(filepath.Join(s.root, dir), 0o755); err != nil {
			tb.Fatal(err)
		}
	}
	done, unlock := filepath.Join(s.root, "updated"), lock(tb, s.root+".lock")
	defer unlock()
	if fi, err := os.Stat(done); err == nil && time.Since(fi.ModTime()) < maxListAge {
		return s
	}
	for file, text := range map[string]string{
		"sources.list": kind + " [signed-by=" + keyring + "] " + mirror + " " + name + " main\n",
		"status":       "",
	} {
		if err := os.WriteFile(filepath.Join(s.root, file), []byte(text), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	if msg, err := s.apt("apt-get", "update", "-q", "--error-on=any").CombinedOutput(); err != nil {
		if _, err := os.Stat(done); err == nil {
			return s // old ones will do
		}
		oracle.Missing(tb, "the lists of %s cannot be had: %v: %s", name, err, msg)
	}
	if err := os.WriteFile(done, nil, 0o644); err != nil {
		tb.Fatal(err)
	}
	return s
}

// apt is one of apt's programs, for this suite. Options on the command line win
// over what the machine configures.
func (s *Suite) apt(program string, args ...string) *exec.Cmd {
	for option, value := range map[string]string{
		"Dir::State": s.root + "/state", "Dir::State::status": s.root + "/status", "Dir::Cache": s.root + "/cache",
		"Dir::Etc::sourcelist": s.root + "/sources.list", "Dir::Etc::sourceparts": s.root + "/parts",
		"Dir::Etc::preferences": "/dev/null", "Dir::Etc::preferencesparts": s.root + "/parts",
		"Acquire::Languages": "none", "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
		"APT::Architecture": "amd64", "APT::Sandbox::User": "root",
	} {
		args = append(args, "-o", option+"="+value)
	}
	return exec.Command(program, args...)
}

var (
	sha256Field  = regexp.MustCompile(`(?m)^SHA256: ([0-9a-f]{64})$`)
	dependsField = regexp.MustCompile(`(?m)^Depends: (.*)$`)
	versionField = regexp.MustCompile(`(?m)^Version: ([0-9A-Za-z.+~:-]+)$`)
)

// show is the record of the newest version of a package.
func (s *Suite) show(tb testing.TB, name string) string {
	tb.Helper()
	out, err := s.apt("apt-cache", "show", "--no-all-versions", name).Output()
	if err != nil {
		oracle.Missing(tb, "%s has no package %s: %v", s.name, name, err)
	}
	return string(out)
}

// Depends lists the packages that a package depends on and that want likes, with
// those that they depend on, itself first.
func (s *Suite) Depends(tb testing.TB, name string, want func(string) bool) []string {
	tb.Helper()
	all := []string{name}
	for i := 0; i < len(all); i++ {
		m := dependsField.FindStringSubmatch(s.show(tb, all[i]))
		if m == nil {
			continue
		}
		for item := range strings.SplitSeq(m[1], ",") {
			dep, _, _ := strings.Cut(strings.TrimSpace(item), " ")
			if want(dep) && !slices.Contains(all, dep) {
				all = append(all, dep)
			}
		}
	}
	return all
}

// Unpack unpacks packages into one folder of the cache, which is named by the
// hashes of their files, and returns it.
func (s *Suite) Unpack(tb testing.TB, names ...string) string {
	tb.Helper()
	sum := sha256.New()
	for _, n := range names {
		m := sha256Field.FindStringSubmatch(s.show(tb, n))
		if m == nil {
			tb.Fatalf("%s: package %s has no hash", s.name, n)
		}
		sum.Write([]byte(n + " " + m[1] + "\n"))
	}
	dir := filepath.Join(oracle.CacheDir(tb, "debian"), names[0]+"-"+hex.EncodeToString(sum.Sum(nil))[:16])
	once(tb, dir, func(tmp string) {
		debs, err := os.MkdirTemp(filepath.Dir(tmp), "debs-")
		if err != nil {
			tb.Fatal(err)
		}
		defer os.RemoveAll(debs)
		cmd := s.apt("apt-get", append([]string{"download", "-q"}, names...)...)
		cmd.Dir = debs
		if msg, err := cmd.CombinedOutput(); err != nil {
			oracle.Missing(tb, "%s of %s cannot be had: %v: %s", strings.Join(names, ", "), s.name, err, bytes.TrimSpace(msg))
		}
		got, _ := filepath.Glob(filepath.Join(debs, "*.deb"))
		if len(got) != len(names) {
			tb.Fatalf("apt-get download brought %d packages, want %d", len(got), len(names))
		}
		for _, deb := range got {
			run(tb, "dpkg-deb", "-x", deb, tmp)
		}
	})
	return dir
}

// Source unpacks the source of a package into a folder of the cache, which is named
// by its version, and returns that and the version. The suite is one of
// [OpenSources].
func (s *Suite) Source(tb testing.TB, name string) (dir, version string) {
	tb.Helper()
	oracle.Tool(tb, "dpkg-source", "apt: dpkg-dev")
	out, err := s.apt("apt-cache", "showsrc", "--only-source", name).Output()
	m := versionField.FindSubmatch(out)
	if err != nil || m == nil {
		oracle.Missing(tb, "%s has no source of %s: %v", s.name, name, err)
	}
	version = string(m[1])
	dir = filepath.Join(oracle.CacheDir(tb, "debian"), name+"-source-"+version)
	once(tb, dir, func(tmp string) {
		cmd := s.apt("apt-get", "source", "-q", name+"="+version)
		cmd.Dir = tmp
		if msg, err := cmd.CombinedOutput(); err != nil {
			oracle.Missing(tb, "the source of %s in %s cannot be had: %v: %s", name, s.name, err, bytes.TrimSpace(msg))
		}
	})
	trees, err := filepath.Glob(filepath.Join(dir, name+"-*", "*"))
	if err != nil || len(trees) == 0 {
		tb.Fatalf("no tree of %s in %s", name, dir)
	}
	return filepath.Dir(trees[0]), version
}
