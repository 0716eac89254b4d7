// SPDX-License-Identifier: Apache-2.0

// Package escapes tries public, fixed weaknesses of container runtimes, of
// engines and of the kernel: what the affected version does on its own, and what
// it does below Palisade. The affected versions are built from their published
// sources by the tests.
//
// The package has tests only. This file builds the old versions, for other tests
// as well.
package escapes

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// A recipe says how one program of one module version is built.
type recipe struct {
	module, version string
	pkg             string // of the program, "." or "./cmd/name"
	tags            string
	static          bool
	// goMod replaces the module's own go.mod; empty for modules that have one.
	goMod string
}

// The versions of runc that build, oldest first.
var RuncVersions = []string{
	"1.0.0-rc6", "1.0.0-rc8", "1.0.0-rc93", "1.0.2", "1.1.4", "1.1.11", "1.1.15",
	"1.2.7", "1.3.2", "1.3.4", "1.4.0", "1.4.3",
}

// HookVersions are the versions of NVIDIA's toolkit whose nvidia-cdi-hook builds.
var HookVersions = []string{"1.16.1", "1.17.3", "1.17.7", "1.17.8"}

// goModBefore is the go.mod of the versions of runc that come without one.
const goModBefore = `module github.com/opencontainers/runc

go 1.18

require (
	github.com/containerd/console v1.0.1
	github.com/coreos/go-systemd v0.0.0-20190719114852-fd7a80b32e1f
	github.com/coreos/pkg v0.0.0-20180928190104-399ea9e2e55f
	github.com/cyphar/filepath-securejoin v0.2.2
	github.com/docker/go-units v0.3.3
	github.com/godbus/dbus v0.0.0-20190422162347-ade71ed3457e
	github.com/golang/protobuf v1.4.3
	github.com/mrunalp/fileutils v0.5.0
	github.com/opencontainers/runtime-spec v1.0.2
	github.com/opencontainers/selinux SELINUX
	github.com/pkg/errors v0.8.1
	github.com/seccomp/libseccomp-golang v0.9.1
	github.com/sirupsen/logrus v1.4.1
	github.com/syndtr/gocapability v0.0.0-20180916011248-d98352740cb2
	github.com/urfave/cli v1.20.0
	github.com/vishvananda/netlink v1.1.0
	golang.org/x/sys v0.28.0
	MORE
)
`

func runcRecipe(version string) recipe {
	r := recipe{module: "github.com/opencontainers/runc", version: "v" + version, pkg: ".", tags: "seccomp apparmor selinux"}
	old := func(selinux, more string) string {
		return strings.NewReplacer("SELINUX", selinux, "MORE", more).Replace(goModBefore)
	}
	switch version {
	case "1.0.0-rc6":
		r.goMod = old("v1.0.0", "")
		r.tags, r.static = "seccomp apparmor netgo osusergo", true
	case "1.0.0-rc8":
		r.goMod = old("v1.2.2", "github.com/checkpoint-restore/go-criu v0.0.0-20181120144056-17b0214f6c48")
		r.tags, r.static = "seccomp apparmor selinux netgo osusergo", true
	}
	return r
}

// Runc is the path of runc of a version, built if need be. What it takes and is
// not here is a missing oracle.
func Runc(tb testing.TB, version string) string {
	tb.Helper()
	return build(tb, "runc-"+version, runcRecipe(version))
}

// Hook is the path of nvidia-cdi-hook of a version, built if need be.
func Hook(tb testing.TB, version string) string {
	tb.Helper()
	return build(tb, "nvidia-cdi-hook-"+version, recipe{
		module: "github.com/NVIDIA/nvidia-container-toolkit", version: "v" + version, pkg: "./cmd/nvidia-cdi-hook",
	})
}

func (r recipe) ldflags(name string) string {
	f := "-X main.version=" + strings.TrimPrefix(r.version, "v")
	switch {
	case r.static:
		f += " -extldflags -static"
	case strings.HasPrefix(name, "nvidia"):
		// The driver's library is opened at run time, where there is one.
		f += " '-extldflags=-Wl,--export-dynamic -Wl,--unresolved-symbols=ignore-in-object-files'"
	}
	return f
}

// build returns the program that a recipe makes, from the cache if it was made
// before by the same recipe and compiler.
func build(tb testing.TB, name string, r recipe) string {
	tb.Helper()
	goTool := oracle.Tool(tb, "go", "https://go.dev/dl")
	oracle.Tool(tb, "cc", "apt: gcc libc6-dev")
	compiler, err := exec.Command(goTool, "env", "GOVERSION").Output()
	if err != nil {
		tb.Fatal(err)
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v\x00%s\x00%s", r, r.ldflags(name), compiler))
	cache := oracle.CacheDir(tb, "runtimes")
	out := filepath.Join(cache, name+"-"+hex.EncodeToString(sum[:8]))
	unlock := lock(tb, out+".lock")
	defer unlock()
	if _, err := os.Stat(out); err == nil {
		return out
	}
	if strings.Contains(r.tags, "seccomp") {
		oracle.Tool(tb, "pkg-config", "apt: pkg-config")
		if err := exec.Command("pkg-config", "--exists", "libseccomp").Run(); err != nil {
			oracle.Missing(tb, "no libseccomp to build %s with (apt: libseccomp-dev)", name)
		}
	}
	// CopyFS makes files writable, which those of the module cache are not.
	work := filepath.Join(tb.TempDir(), "source")
	if err := os.CopyFS(work, os.DirFS(oracle.Module(tb, r.module+"@"+r.version))); err != nil {
		tb.Fatal(err)
	}
	if r.goMod != "" {
		if err := os.WriteFile(filepath.Join(work, "go.mod"), []byte(r.goMod), 0o644); err != nil {
			tb.Fatal(err)
		}
	}
	tmp, err := os.CreateTemp(cache, name+".tmp-")
	if err != nil {
		tb.Fatal(err)
	}
	tmp.Close()
	defer os.Remove(tmp.Name())
	cmd := exec.Command(goTool, "build", "-trimpath", "-buildvcs=false", "-tags", r.tags, "-ldflags", r.ldflags(name), "-o", tmp.Name(), r.pkg)
	cmd.Dir, cmd.Env = work, append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off", "CGO_ENABLED=1")
	if msg, err := cmd.CombinedOutput(); err != nil {
		oracle.Missing(tb, "cannot build %s: %v\n%s", name, err, msg[max(0, len(msg)-2000):])
	}
	if err := errors.Join(os.Chmod(tmp.Name(), 0o755), os.Rename(tmp.Name(), out)); err != nil {
		tb.Fatal(err)
	}
	return out
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
