// SPDX-License-Identifier: Apache-2.0

package launch

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// TestLookIn looks for commands in a root as their processes will.
func TestLookIn(t *testing.T) {
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{
		"bin/tool": 0o755, "usr/bin/tool2": 0o111, "bin/plain": 0o644, "work/here": 0o700, "opt/plain/x": 0o755, "opt/tool3": 0o755,
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
	}
	for name, to := range map[string]string{"bin/link": "/usr/bin/tool2", "bin/out": "../../../../usr/bin/tool2", "bin/gone": "nowhere", "bin/loop": "loop", "lib": "usr/bin"} {
		if err := os.Symlink(to, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(root)
	path := func(p string) []string { return []string{"HOME=/", "PATH=" + p} }
	for _, row := range []struct {
		command, cwd string
		env          []string
		code         int // 0 for one that is found
		err          error
	}{
		{"/bin/tool", "/", nil, 0, nil},
		{"/bin/link", "/", nil, 0, nil},
		{"/bin/out", "/", nil, 0, nil}, // a link that climbs stays in the root
		{"/lib/tool2", "/", nil, 0, nil},
		{"/bin/gone", "/", nil, 127, unix.ENOENT},
		{"/bin/loop", "/", nil, 0, nil}, // the process itself finds out
		{"/bin/none", "/", nil, 127, unix.ENOENT},
		{"/bin/tool/x", "/", nil, 127, unix.ENOTDIR},
		{"/bin/plain", "/", nil, 126, unix.EACCES},
		{"/bin", "/", nil, 126, unix.EISDIR},
		{"./here", "/work", nil, 0, nil},
		{"./here", "/", nil, 127, unix.ENOENT},
		{"bin/tool", "", nil, 0, nil},
		{"../bin/tool", "/work", nil, 0, nil},
		{"/proc/self/exe", "/", nil, 0, nil}, // what is there depends on who looks
		{"/bin/../proc/self/root/bin/tool", "/", nil, 0, nil},
		{"../proc/x", "/work", nil, 0, nil},
		{"/process", "/", nil, 127, unix.ENOENT},
		{"tool", "/", path("/bin"), 0, nil},
		{"tool2", "/", path("/none:/bin:/usr/bin"), 0, nil},
		{"tool", "/", nil, 0, nil}, // the usual path
		{"tool3", "/", nil, 127, errNotInPath},
		{"tool3", "/", path("/opt"), 0, nil},
		{"tool3", "/", append(path("/opt"), "PATH=/bin"), 127, errNotInPath}, // the last one counts
		{"tool3", "/", append(path("/opt"), "PATH="), 0, nil},
		{"tool3", "/opt", path("/bin:"), 0, nil}, // an empty member is the working directory
		{"here", "/work", path(":/bin"), 0, nil},
		{"plain", "/", path("/bin"), 126, unix.EACCES},
		{"plain", "/", path("/opt"), 127, errNotInPath}, // a folder of that name
		{"none", "/", path("/bin:/usr/bin"), 127, errNotInPath},
		{"", "/", path("/bin"), 127, errNotInPath},
	} {
		err := lookIn(root, row.command, row.cwd, row.env)
		if row.code == 0 {
			if err != nil {
				t.Errorf("%q in %q with %q: %v", row.command, row.cwd, row.env, err)
			}
			continue
		}
		var e *CommandError
		if !errors.As(err, &e) || e.Code != row.code || !errors.Is(err, row.err) || e.Command != row.command {
			t.Errorf("%q in %q with %q: %v, want %d and %v", row.command, row.cwd, row.env, err, row.code, row.err)
		}
	}
}
