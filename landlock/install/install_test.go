// SPDX-License-Identifier: Apache-2.0

//go:build linux

package install

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/landlock"
)

func TestKernelABI(t *testing.T) {
	abi, err := ABI()
	if err != nil {
		if !errors.Is(err, ErrUnsupported) && !errors.Is(err, ErrDisabled) {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	if abi < 1 {
		t.Errorf("ABI %d", abi)
	}
	errata, err := Errata()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("ABI %d, errata %#x", abi, errata)
	// The kernel has exactly the rights that the table says.
	for _, r := range landlock.Rights() {
		var s landlock.Ruleset
		switch r.Kind {
		case landlock.KindFS:
			s.HandledFS = landlock.AccessFS(r.Bit)
		case landlock.KindNet:
			s.HandledNet = landlock.AccessNet(r.Bit)
		case landlock.KindScope:
			s.Scoped = landlock.Scope(r.Bit)
		case landlock.KindFlag:
			continue
		}
		if got, want := created(s), r.ABI <= abi; abi <= landlock.MaxABI && got != want {
			t.Errorf("%s (ABI %d): the kernel takes it: %t", r.Name, r.ABI, got)
		}
	}
	k, err := New(landlock.Ruleset{HandledFS: landlock.MakeBlock}, Refuse)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Close()
	for _, r := range landlock.Rights() {
		if r.Kind != landlock.KindFlag || abi > landlock.MaxABI || landlock.Flags(r.Bit) == landlock.TSync {
			continue // TSync would take the test's threads along
		}
		do := inDomain(t, nil, nil)
		err := do(func() error { return k.Restrict(landlock.Flags(r.Bit)) })
		if (err == nil) != (r.ABI <= abi) {
			t.Errorf("%s (ABI %d): %v", r.Name, r.ABI, err)
		}
	}
}

// created asks the kernel itself, without what New checks beforehand.
func created(s landlock.Ruleset) bool {
	fd, errno := create(s)
	if errno == 0 {
		unix.Close(fd)
	}
	return errno == 0
}

func TestKernelErrors(t *testing.T) {
	abi := needKernel(t)
	file := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(file, nil, 0o600))
	block := landlock.Ruleset{HandledFS: landlock.MakeBlock}
	for _, tt := range []struct {
		name string
		r    landlock.Ruleset
		want error
		text string
	}{
		{"nothing", landlock.Ruleset{}, landlock.ErrEmpty, ""},
		{"not handled", landlock.Ruleset{HandledFS: landlock.MakeBlock, Paths: []landlock.PathRule{{Access: landlock.Execute, Path: "/"}}}, landlock.ErrGrant, "fs.execute"},
		{"no such path", landlock.Ruleset{HandledFS: landlock.MakeBlock, Paths: []landlock.PathRule{{Access: landlock.MakeBlock, Path: "/no/such"}}}, os.ErrNotExist, `"/no/such"`},
		{"unknown", landlock.Ruleset{HandledFS: 1 << 40}, landlock.ErrRight, "0x10000000000"},
	} {
		k, err := New(tt.r, Refuse)
		if !errors.Is(err, tt.want) || !strings.Contains(err.Error(), tt.text) {
			t.Errorf("%s: %v", tt.name, err)
		}
		if k != nil {
			k.Close()
		}
	}
	if later := landlock.AllFS &^ landlock.FSAt(abi); later != 0 {
		if _, err := New(landlock.Ruleset{HandledFS: later}, Refuse); !errors.Is(err, landlock.ErrABI) {
			t.Errorf("a later right: %v", err)
		}
	}
	block.Paths = []landlock.PathRule{{Access: landlock.MakeBlock, Path: "/no/such"}, {Access: landlock.MakeBlock, Path: file}}
	k, err := New(block, Skip)
	if err != nil || len(k.Skipped) != 1 || k.Skipped[0] != "/no/such" {
		t.Fatalf("%+v, %v", k, err)
	}
	defer k.Close()

	t.Run("layers", func(t *testing.T) {
		do := inDomain(t, nil, nil)
		var domain *landlock.Domain
		for i := 0; ; i++ {
			kernel := do(func() error { return k.Restrict(0) })
			next, err := domain.Enter(landlock.Ruleset{HandledFS: landlock.MakeBlock})
			if (kernel == nil) != (err == nil) {
				t.Fatalf("layer %d: kernel %v, evaluator %v", i+1, kernel, err)
			}
			if err != nil {
				if i != landlock.MaxLayers || !errors.Is(kernel, unix.E2BIG) || !strings.Contains(kernel.Error(), "16 domains") {
					t.Errorf("layer %d: %v", i+1, kernel)
				}
				return
			}
			domain = next
		}
	})
	t.Run("privileges", func(t *testing.T) {
		// A thread that has neither no_new_privs nor a capability.
		err := withoutPrivileges(func() error { return k.Restrict(0) })
		if !errors.Is(err, ErrPrivileges) || !errors.Is(err, unix.EPERM) {
			t.Errorf("got %v", err)
		}
	})
}

func withoutPrivileges(f func() error) error {
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // never unlocked
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var none [2]unix.CapUserData
		if err := unix.Capset(&hdr, &none[0]); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}
