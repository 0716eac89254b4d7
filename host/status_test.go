// SPDX-License-Identifier: Apache-2.0

package host

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/palisade-sec/palisade/target"
)

var update = flag.Bool("update", false, "write the results into the golden files")

// plant writes the files of an archive but the wanted ones below a new root.
func plant(t *testing.T, a *txtar.Archive) string {
	t.Helper()
	root := t.TempDir()
	for _, f := range a.Files {
		if strings.HasPrefix(f.Name, "want") {
			continue
		}
		path := filepath.Join(root, f.Name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		mode := os.FileMode(0o644)
		if bytes.HasPrefix(f.Data, []byte("#!")) {
			mode = 0o755
		}
		if err := os.WriteFile(path, f.Data, mode); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestStatusOfRecordedHosts(t *testing.T) {
	files, err := filepath.Glob("testdata/status/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no recorded hosts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			a, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			root := plant(t, a)
			got, err := json.MarshalIndent(Read(context.Background(), Options{Root: root}), "", "  ")
			if err != nil {
				t.Fatal(err)
			}
			got = append(bytes.ReplaceAll(got, []byte(root), nil), '\n')
			i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == "want.json" })
			if *update {
				a.Files[i].Data = got
				if err := os.WriteFile(file, txtar.Format(a), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if !bytes.Equal(got, a.Files[i].Data) {
				t.Errorf("status differs; got:\n%s", got)
			}
		})
	}
}

// TestStatusContract checks the keys that other programs rely on.
func TestStatusContract(t *testing.T) {
	text, err := json.Marshal(Read(context.Background(), Options{}))
	if err != nil {
		t.Fatal(err)
	}
	var m map[string]any
	if err := json.Unmarshal(text, &m); err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{"lsm", "runtimes"} {
		if _, ok := m[key].([]any); !ok {
			t.Errorf("%s is %T, want an array", key, m[key])
		}
	}
	for _, key := range []string{"selinux", "apparmor", "landlock", "seccomp", "bpf_lsm", "tee"} {
		o, ok := m[key].(map[string]any)
		if !ok {
			t.Errorf("%s is %T, want an object", key, m[key])
			continue
		}
		state, _ := o["state"].(string)
		if !slices.Contains([]string{"enforcing", "off", "absent", "unknown"}, state) {
			t.Errorf("%s.state = %q", key, state)
		}
		if o["why"] == "" || o["detail"] == "" && state != "unknown" {
			t.Errorf("%s lacks its line: %v", key, o)
		}
		if state != "enforcing" && state != "unknown" && o["enable"] == nil {
			t.Errorf("%s is %s and does not say how to turn it on", key, state)
		}
	}
}

// TestConfirmLSMList compares the two ways in which the running kernel tells
// its active modules.
func TestConfirmLSMList(t *testing.T) {
	byCall, err := lsmListModules()
	if err != nil {
		t.Skipf("the kernel has no lsm_list_modules: %v", err)
	}
	r := newReader(Options{})
	defer r.done()
	byFile, source, err := r.lsmList()
	if err != nil || source != "/sys/kernel/security/lsm" {
		t.Skipf("securityfs cannot be read: %v", err)
	}
	// Modules of integrity are in the file and have no number before 6.13.
	if !slices.Equal(byCall, byFile) {
		t.Errorf("lsm_list_modules says %v, securityfs %v", byCall, byFile)
	}
}

// TestReadLeavesNothing checks that looking mounts nothing for others to see.
func TestReadLeavesNothing(t *testing.T) {
	before, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Skipf("no /proc: %v", err)
	}
	fds := openFiles(t)
	Read(context.Background(), Options{})
	after, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(before, after) {
		t.Errorf("mounts changed:\n%s\n%s", before, after)
	}
	if now := openFiles(t); now > fds+2 {
		t.Errorf("%d files were open, %d are now", fds, now)
	}
}

func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestTargetAgreesWithStatus(t *testing.T) {
	s := Read(context.Background(), Options{Quick: true})
	got := Target()
	if !reflect.DeepEqual(got, s.Target()) {
		t.Errorf("%+v\n%+v", got, s.Target())
	}
	if got.Seccomp.State == target.Enforcing && !slices.Contains(got.Seccomp.Actions, "allow") {
		t.Errorf("seccomp without allow: %+v", got.Seccomp)
	}
}

func TestWithModule(t *testing.T) {
	tests := []struct {
		active  []string
		add     string
		without []string
		want    string
	}{
		{[]string{"lockdown", "capability", "landlock", "yama", "apparmor", "tomoyo", "bpf"}, "selinux", []string{"apparmor", "tomoyo"}, "lsm=lockdown,landlock,yama,selinux,bpf"},
		{[]string{"lockdown", "capability", "landlock"}, "apparmor", nil, "lsm=lockdown,landlock,apparmor"},
		{[]string{"apparmor"}, "apparmor", nil, "lsm=apparmor"},
		{nil, "selinux", nil, "lsm=selinux"},
	}
	for _, test := range tests {
		if got := withModule(test.active, test.add, test.without...); got != test.want {
			t.Errorf("withModule(%v, %s) = %s, want %s", test.active, test.add, got, test.want)
		}
	}
}

func TestParseConfig(t *testing.T) {
	got := parseConfig([]byte("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_LSM=\"a,b\"\n#comment\nX=1\nCONFIG_\n# CONFIG_C is\n"))
	want := map[string]string{"CONFIG_A": "y", "CONFIG_B": "n", "CONFIG_LSM": "a,b"}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("%v", got)
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte("CONFIG_A=y\n# CONFIG_B is not set\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		for name := range parseConfig(text) {
			if !strings.HasPrefix(name, "CONFIG_") {
				t.Fatalf("%q", name)
			}
		}
	})
}

func FuzzCountProfiles(f *testing.F) {
	f.Add("docker-default (enforce)\nx (complain)\n")
	f.Fuzz(func(t *testing.T, text string) {
		modes, _ := countProfiles(text)
		n := 0
		for _, c := range modes {
			n += c
		}
		if n > strings.Count(text, "\n")+1 {
			t.Fatalf("%d profiles in %q", n, text)
		}
	})
}
