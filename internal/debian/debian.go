// SPDX-License-Identifier: Apache-2.0

// Package debian makes, for tests, what a Debian 12 host has: its SELinux
// policies as CIL and in binary form, with further modules where wanted, and its
// file contexts. Everything comes from the distribution's packages, unpacked
// into a cache; nothing is installed.
package debian

import (
	"bytes"
	"compress/bzip2"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// notDefault are the modules that Debian's maintainer script installs disabled.
var notDefault = strings.Fields("amtu bugzilla cobbler condor cyphesis git ksmtuned likewise livecd nessus numad oddjob openca soundserver thunderbird updfstab usernetctl")

// Package unpacks a distribution package into the cache and returns the folder.
func Package(tb testing.TB, name string) string {
	tb.Helper()
	if _, err := exec.LookPath("apt-get"); err != nil {
		oracle.Missing(tb, "package %s comes from a Debian or Ubuntu archive, and there is no apt-get here", name)
	}
	cache := oracle.CacheDir(tb, "debian")
	dir := filepath.Join(cache, name)
	once(tb, dir, func(tmp string) {
		debs := filepath.Join(filepath.Dir(tmp), filepath.Base(tmp)+".debs")
		if err := os.Mkdir(debs, 0o755); err != nil {
			tb.Fatal(err)
		}
		defer os.RemoveAll(debs)
		cmd := exec.Command("apt-get", "download", "-q", name)
		cmd.Dir = debs
		if msg, err := cmd.CombinedOutput(); err != nil {
			oracle.Missing(tb, "package %s cannot be had: %v: %s", name, err, msg)
		}
		got, _ := filepath.Glob(filepath.Join(debs, "*.deb"))
		if len(got) != 1 {
			tb.Fatalf("apt-get download %s brought %d packages", name, len(got))
		}
		run(tb, "dpkg-deb", "-x", got[0], tmp)
	})
	return dir
}

// PolicyTree returns the folder that is /etc/selinux/FLAVOUR on a Debian host,
// FLAVOUR being "default" or "mls"; it holds contexts/ and setrans.conf, but no
// policy: see [Policy].
func PolicyTree(tb testing.TB, flavour string) string {
	tb.Helper()
	return filepath.Join(Package(tb, "selinux-policy-"+flavour), "etc", "selinux", flavour)
}

// PolicyCIL returns the enabled modules of a policy as CIL files in name order,
// the order in which the maintainer script's tools link them.
func PolicyCIL(tb testing.TB, flavour string) []string {
	tb.Helper()
	pkg := Package(tb, "selinux-policy-"+flavour)
	pp := filepath.Join(Package(tb, "policycoreutils"), "usr", "libexec", "selinux", "hll", "pp")
	if out, err := exec.Command(pp, "--help").CombinedOutput(); err != nil && bytes.Contains(out, []byte("shared libraries")) {
		oracle.Missing(tb, "hll/pp does not run here (apt: libsepol2): %s", out)
	}
	dir := filepath.Join(oracle.CacheDir(tb, "debian"), "cil-"+flavour)
	once(tb, dir, func(tmp string) {
		from := filepath.Join(pkg, "usr", "share", "selinux", flavour)
		list, err := os.ReadFile(filepath.Join(from, ".modules"))
		if err != nil {
			tb.Fatal(err)
		}
		for _, m := range strings.Fields(string(list)) {
			if slices.Contains(notDefault, m) {
				continue
			}
			f, err := os.Open(filepath.Join(from, m+".pp.bz2"))
			if err != nil {
				tb.Fatal(err)
			}
			plain, err := io.ReadAll(bzip2.NewReader(f))
			f.Close()
			if err != nil {
				tb.Fatal(err)
			}
			in := filepath.Join(tmp, m+".pp")
			if err := os.WriteFile(in, plain, 0o644); err != nil {
				tb.Fatal(err)
			}
			run(tb, pp, in, filepath.Join(tmp, m+".cil"))
			os.Remove(in)
		}
	})
	files, err := filepath.Glob(filepath.Join(dir, "*.cil"))
	if err != nil || len(files) == 0 {
		tb.Fatalf("no CIL in %s (%v)", dir, err)
	}
	slices.Sort(files)
	return files
}

// Built is a compiled policy.
type Built struct {
	Policy       string // path of the kernel policy, version 33
	FileContexts string // path of the file contexts that the modules carry
}

// Policy compiles a flavour together with further CIL modules, given by name
// and text, with secilc. The result is kept by content. A module that does not
// compile is a failure of the test.
func Policy(tb testing.TB, flavour string, modules map[string][]byte) Built {
	tb.Helper()
	b, msg, err := TryPolicy(tb, flavour, modules)
	if err != nil {
		tb.Fatalf("secilc: %v\n%s", err, msg)
	}
	return b
}

// TryPolicy is [Policy] for modules that may be wrong: it returns what secilc
// printed and its error.
func TryPolicy(tb testing.TB, flavour string, modules map[string][]byte) (Built, []byte, error) {
	tb.Helper()
	secilc := oracle.Tool(tb, "secilc", "apt: secilc")
	files := PolicyCIL(tb, flavour)
	h := sha256.New()
	fmt.Fprintf(h, "%s\x00%d\x00", flavour, len(files))
	names := make([]string, 0, len(modules))
	for n := range modules {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		fmt.Fprintf(h, "%s\x00%d\x00%s", n, len(modules[n]), modules[n])
	}
	dir := filepath.Join(oracle.CacheDir(tb, "debian"), "policy-"+flavour+"-"+hex.EncodeToString(h.Sum(nil))[:20])
	b := Built{Policy: filepath.Join(dir, "policy.33"), FileContexts: filepath.Join(dir, "file_contexts")}
	var out []byte
	var failed error
	once(tb, dir, func(tmp string) {
		args := []string{"-m", "-c", "33", "-o", filepath.Join(tmp, "policy.33"), "-f", filepath.Join(tmp, "file_contexts")}
		args = append(args, files...)
		for _, n := range names {
			p := filepath.Join(tmp, n+".cil")
			if err := os.WriteFile(p, modules[n], 0o644); err != nil {
				tb.Fatal(err)
			}
			args = append(args, p)
		}
		if out, failed = exec.Command(secilc, args...).CombinedOutput(); failed != nil {
			os.RemoveAll(tmp)
		}
	})
	return b, out, failed
}

// once makes a folder whole or not at all, under a lock that other test
// binaries respect. make fills a temporary folder; if it removes that, nothing
// is kept.
func once(tb testing.TB, dir string, make func(tmp string)) {
	tb.Helper()
	defer lock(tb, dir+".lock")()
	if _, err := os.Stat(dir); err == nil {
		return
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), filepath.Base(dir)+".tmp-")
	if err != nil {
		tb.Fatal(err)
	}
	defer os.RemoveAll(tmp)
	make(tmp)
	if _, err := os.Stat(tmp); err != nil {
		return
	}
	if err := os.Chmod(tmp, 0o755); err != nil {
		tb.Fatal(err)
	}
	if err := os.Rename(tmp, dir); err != nil {
		tb.Fatal(err)
	}
}

// lock keeps two test binaries from making the same thing.
func lock(tb testing.TB, path string) (unlock func()) {
	tb.Helper()
	l, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		tb.Fatal(err)
	}
	if err := syscall.Flock(int(l.Fd()), syscall.LOCK_EX); err != nil {
		tb.Fatal(err)
	}
	return func() { l.Close() }
}

func run(tb testing.TB, name string, args ...string) {
	tb.Helper()
	var out bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		tb.Fatalf("%s: %v\n%s", filepath.Base(name), err, out.Bytes())
	}
}
