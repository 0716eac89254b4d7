// SPDX-License-Identifier: Apache-2.0

package handover

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/laststep"
)

func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "palisade-init")
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestProgramCannotBeWritten opens what is handed over for writing, as root in a
// container could through /proc/PID/exe.
func TestProgramCannotBeWritten(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("making a mount needs root")
	}
	path := program(t)
	for name, open := range map[string]func() (*os.File, error){
		"mount": func() (*os.File, error) { return detached(path) },
		"copy":  func() (*os.File, error) { return copied(path, "") },
	} {
		f, err := open()
		if errors.Is(err, unix.ENOSYS) {
			t.Logf("%s: %v", name, err)
			continue
		} else if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		w, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", f.Fd()), os.O_WRONLY, 0)
		if err == nil {
			if _, err = w.Write([]byte("x")); err == nil {
				t.Errorf("%s: could be written to", name)
			}
			w.Close()
		}
		t.Logf("%s: %v", name, err)
		f.Close()
	}
	if b, err := os.ReadFile(path); err != nil || string(b) != "#!/bin/sh\n" {
		t.Errorf("the program is now %q, %v", b, err)
	}
}

func TestConfigIsSealed(t *testing.T) {
	c := &laststep.Config{Filters: []laststep.Filter{{Flags: 4, Program: []byte("12345678")}}}
	f, err := Config(c, "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("x"), 0); err == nil {
		t.Error("could be written to")
	}
	if err := f.Truncate(0); err == nil {
		t.Error("could be cut")
	}
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	if err != nil {
		t.Fatal(err)
	}
	if got, err := laststep.Decode(b); err != nil || len(got.Filters) != 1 {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestFind(t *testing.T) {
	path := program(t)
	t.Setenv(EnvInit, path)
	if got, err := Find(); got != path || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
	t.Setenv(EnvInit, path+".nosuch")
	if _, err := Find(); !errors.Is(err, ErrNoInit) {
		t.Errorf("got %v, want ErrNoInit", err)
	}
	t.Setenv(EnvInit, None)
	if got, err := Find(); got != "" || err != nil {
		t.Errorf("got %q, %v", got, err)
	}
}
