// SPDX-License-Identifier: Apache-2.0

package suites

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// limit is a bound of what a container may use, put into its configuration.
type limit struct {
	name string
	set  func(c map[string]any)
	// differs says why the outcome may differ; empty for the same.
	differs string
}

func resources(of string, what map[string]any) func(map[string]any) {
	return func(c map[string]any) {
		c["linux"].(map[string]any)["resources"] = map[string]any{of: what}
	}
}

const mebi = 1 << 20

// users counts the users that were given out.
var users int

var limits = []limit{
	{"no limit", func(map[string]any) {}, ""},
	{"1 process", resources("pids", map[string]any{"limit": 1}), ""},
	{"2 processes", resources("pids", map[string]any{"limit": 2}), ""},
	{"3 processes", resources("pids", map[string]any{"limit": 3}), ""},
	{"4 processes", resources("pids", map[string]any{"limit": 4}), ""},
	{"1 process of the user", func(c map[string]any) {
		// A user of its own: one that has ended counts until the host's init looks.
		users++
		p := c["process"].(map[string]any)
		p["user"] = map[string]any{"uid": 54321 + users, "gid": 54321}
		p["rlimits"] = []any{map[string]any{"type": "RLIMIT_NPROC", "soft": 1, "hard": 1}}
	}, ""},
	{"6 MB of memory", resources("memory", map[string]any{"limit": 6 * mebi}), ""},
	{"4 MB of memory", resources("memory", map[string]any{"limit": 4 * mebi}), ""},
	{"10 open files", func(c map[string]any) {
		c["process"].(map[string]any)["rlimits"] = []any{map[string]any{"type": "RLIMIT_NOFILE", "soft": 10, "hard": 10}}
	}, moreFiles},
}

// TestConfirmLimits runs a container, and adds a process to one, under tight limits:
// as far as the runtime alone gets.
func TestConfirmLimits(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a while")
	}
	h := newSide(t)
	const hide = `if [ -e /sys/fs/cgroup/unified ]; then umount /sys/fs/cgroup/unified; fi; exec "$@"`
	for _, name := range []string{"runc", "crun"} {
		alone := oracle.Tool(t, name, "apt: "+name)
		below := wrapped(t, h, alone)
		number := 0
		call := func(runtime string, args ...string) (string, int) {
			all := append([]string{"-m", "sh", "-c", hide, "sh", runtime, "--root", filepath.Join(h.Work, "root-"+name)}, args...)
			if name == "runc" {
				all = append([]string{runtime, "--root", filepath.Join(h.Work, "root-"+name)}, args...)
				return h.Run(t, all[0], all[1:]...)
			}
			return h.Run(t, "unshare", all...)
		}
		bundle := func(l limit, args ...string) string {
			number++
			dir := filepath.Join(h.Work, fmt.Sprintf("bundle-%s-%d", name, number))
			if err := os.Mkdir(dir, 0o755); err != nil {
				t.Fatal(err)
			}
			if out, code := h.Run(t, "sh", "-c", "cd "+dir+" && "+alone+" spec"); code != 0 {
				t.Fatal(out)
			}
			file := filepath.Join(dir, "config.json")
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			var c map[string]any
			if err := json.Unmarshal(b, &c); err != nil {
				t.Fatal(err)
			}
			p := c["process"].(map[string]any)
			delete(p, "rlimits")
			p["terminal"], p["args"] = false, args
			c["root"] = map[string]any{"path": h.Root, "readonly": true}
			l.set(c)
			if b, err = json.Marshal(c); err == nil {
				err = os.WriteFile(file, b, 0o644)
			}
			if err != nil {
				t.Fatal(err)
			}
			return dir
		}
		for _, l := range limits {
			t.Run(name+"/"+l.name, func(t *testing.T) {
				side := func(runtime string) (got []string) {
					said := func(what string, out string, code int) {
						// A runtime that fails says why in its own words.
						if code != 0 {
							out = ""
						}
						got = append(got, fmt.Sprintf("%s: %d %s", what, code, strings.TrimSpace(out)))
					}
					id := fmt.Sprintf("limits%d-%d", os.Getpid(), number)
					out, code := call(runtime, "run", "--bundle", bundle(l, "/bin/echo", "said"), id)
					said("run", out, code)
					out, code = call(runtime, "run", "--detach", "--bundle", bundle(l, "/bin/sleep", "1000"), id+"d")
					said("run --detach", out, code)
					if code == 0 {
						// runc alone ends one of four with a trace of its own, when the kernel
						// refuses it a thread.
						const most = 30
						for range most {
							if out, code = call(runtime, "exec", id+"d", "/bin/echo", "in"); !strings.Contains(out, "pthread_create failed") {
								break
							}
						}
						said("exec", out, code)
					}
					call(runtime, "delete", "--force", id+"d")
					return got
				}
				bare, confined := side(alone), side(below)
				switch {
				case fmt.Sprint(bare) == fmt.Sprint(confined):
				case l.differs != "":
					t.Logf("differs: %s: %s", l.differs, strings.Join(confined, "; "))
				default:
					t.Errorf("alone:\n%s\nbelow Palisade:\n%s", strings.Join(bare, "\n"), strings.Join(confined, "\n"))
				}
				t.Log(strings.Join(bare, "; "))
			})
		}
	}
}
