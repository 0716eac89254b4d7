// SPDX-License-Identifier: Apache-2.0

//go:build linux

package vmtest

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/oracle"
)

func TestKernelBoots(t *testing.T) {
	Run(t, Config{Files: []File{{Guest: "/etc/greeting", Data: []byte("hello")}}, Env: []string{"COLOUR=green"}}, func(t *testing.T) {
		if os.Getuid() != 0 || os.Getpid() == 1 {
			t.Errorf("uid %d, pid %d", os.Getuid(), os.Getpid())
		}
		if b, _ := os.ReadFile("/etc/greeting"); string(b) != "hello" {
			t.Errorf("/etc/greeting = %q", b)
		}
		if os.Getenv("COLOUR") != "green" {
			t.Error("the environment did not come along")
		}
		b, err := os.ReadFile("/sys/kernel/security/lsm")
		if err != nil || !strings.Contains(string(b), "landlock") || strings.Contains(string(b), "selinux") {
			t.Errorf("lsm = %q, %v", b, err)
		}
		t.Run("security xattrs on tmpfs", func(t *testing.T) {
			f := filepath.Join(t.TempDir(), "f")
			if err := os.WriteFile(f, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := unix.Setxattr(f, "security.palisade", []byte("x"), 0); err != nil {
				t.Error(err)
			}
		})
	})
}

func TestKernelModules(t *testing.T) {
	for _, lsm := range []string{"selinux", "apparmor"} {
		t.Run(lsm, func(t *testing.T) {
			Run(t, Config{LSM: lsm}, func(t *testing.T) {
				b, err := os.ReadFile("/sys/kernel/security/lsm")
				if err != nil || !strings.Contains(string(b), lsm) {
					t.Errorf("lsm = %q, %v", b, err)
				}
			})
		})
	}
}

func TestCpio(t *testing.T) {
	tool := oracle.Tool(t, "cpio", "apt: cpio")
	host := filepath.Join(t.TempDir(), "host")
	if err := os.WriteFile(host, []byte("12345"), 0o640); err != nil {
		t.Fatal(err)
	}
	var c cpio
	c.file("/a/b/file", 0o640, host)
	c.data("/a/data", 0o755, []byte("x"))
	c.symlink("/a/link", "b/file")
	out := filepath.Join(t.TempDir(), "out")
	if err := c.writeTo(out); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd := exec.Command(tool, "-t", "--quiet")
	cmd.Stdin = f
	got, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, got)
	}
	if want := "a\na/b\na/b/file\na/data\na/link\n"; string(got) != want {
		t.Errorf("cpio -t printed %q, want %q", got, want)
	}
}

func TestParseResults(t *testing.T) {
	for _, tt := range []struct {
		out      string
		text     string
		code     int
		finished bool
	}{
		{"", "", 0, false},
		{"--- PASS", "--- PASS", 0, false},
		{"--- PASS\n" + doneMark + "0\n", "--- PASS", 0, true},
		{"panic\n" + doneMark + "2\n", "panic", 2, true},
		{doneMark + "x", "", 0, false},
	} {
		text, code, finished := parseResults([]byte(tt.out))
		if text != tt.text || code != tt.code || finished != tt.finished {
			t.Errorf("parseResults(%q) = %q, %d, %v", tt.out, text, code, finished)
		}
	}
}
