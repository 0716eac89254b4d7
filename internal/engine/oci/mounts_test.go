// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/runtime-spec/specs-go"
)

// tree makes folders ("a/"), links ("a -> b") and files in a folder of the test.
func tree(t testing.TB, entries ...string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		name, target, link := strings.Cut(e, " -> ")
		p := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
			t.Fatal(err)
		}
		switch {
		case link:
			err = os.Symlink(target, p)
		case strings.HasSuffix(e, "/"):
			err = os.MkdirAll(p, 0o755)
		default:
			err = os.WriteFile(p, nil, 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func bindAt(dest, source string, options ...string) specs.Mount {
	return specs.Mount{Destination: dest, Type: "bind", Source: source, Options: slices.Concat([]string{"rbind"}, options)}
}

func TestCheckMounts(t *testing.T) {
	root := tree(t, "proc/", "etc/", "foo -> /proc", "deep/up -> ../../../proc/", "loop -> loop", "a/proc/", "file")
	volume := tree(t, "link -> /proc", "up -> ../proc", "plain/")
	proc := specs.Mount{Destination: "/proc", Type: "proc", Source: "proc"}
	for _, tt := range []struct {
		name   string
		mounts []specs.Mount
		want   error
	}{
		{"procfs", []specs.Mount{proc}, nil},
		{"procfs elsewhere", []specs.Mount{{Destination: "/mnt", Type: "proc"}}, nil},
		{"volumes", []specs.Mount{proc, bindAt("/etc", volume), bindAt("/processes", volume), bindAt("/a/proc", volume), bindAt("/file", volume)}, nil},
		{"the host's procfs", []specs.Mount{bindAt("/proc", "/proc")}, nil},
		{"a part of procfs", []specs.Mount{bindAt("/proc", "/proc/self/")}, ErrNoProcfs},
		{"a volume", []specs.Mount{bindAt("/proc", volume)}, ErrNoProcfs},
		{"a volume that says it is procfs", []specs.Mount{{Destination: "/proc", Type: "proc", Source: volume, Options: []string{"bind"}}}, ErrNoProcfs},
		{"tmpfs", []specs.Mount{{Destination: "/proc", Type: "tmpfs"}}, ErrNoProcfs},
		{"tmpfs over procfs", []specs.Mount{proc, {Destination: "/proc", Type: "tmpfs"}}, ErrNoProcfs},
		{"a file of procfs", []specs.Mount{proc, bindAt("/proc/1/fd", volume)}, ErrBelowProc},
		{"procfs below procfs", []specs.Mount{proc, {Destination: "/proc/x", Type: "proc"}}, ErrBelowProc},
		{"relative", []specs.Mount{bindAt("proc", volume)}, ErrNoProcfs},
		{"slashes", []specs.Mount{bindAt("//proc//sys/", volume)}, ErrBelowProc},
		{"dots", []specs.Mount{bindAt("/etc/../proc/.", volume)}, ErrNoProcfs},
		{"above the root", []specs.Mount{bindAt("/../../proc/sys", volume)}, ErrBelowProc},
		{"dots of what is not there", []specs.Mount{bindAt("/nothing/../proc", volume)}, ErrNoProcfs},
		{"link", []specs.Mount{bindAt("/foo", volume)}, ErrNoProcfs},
		{"below a link", []specs.Mount{bindAt("/foo/self", volume)}, ErrBelowProc},
		{"link that leaves the root", []specs.Mount{bindAt("/deep/up", volume)}, ErrNoProcfs},
		{"link of an earlier volume", []specs.Mount{bindAt("/v", volume), bindAt("/v/link/1", volume)}, ErrBelowProc},
		{"relative link of an earlier volume", []specs.Mount{bindAt("/v", volume), bindAt("/v/up", volume)}, ErrNoProcfs},
		{"link that an earlier mount hides", []specs.Mount{{Destination: "/deep", Type: "tmpfs"}, bindAt("/deep/up", volume)}, nil},
		{"link that an earlier mount copies", []specs.Mount{{Destination: "/deep", Type: "tmpfs", Options: []string{"tmpcopyup"}}, bindAt("/deep/up", volume)}, ErrNoProcfs},
		{"dots after a link", []specs.Mount{bindAt("/foo/../x", volume)}, nil},
		{"dots of a link, shortened", []specs.Mount{bindAt("/deep/up/x/../../proc", volume)}, ErrNoProcfs},
		{"loop", []specs.Mount{bindAt("/loop/x", volume)}, errLinks},
		{"the root", []specs.Mount{bindAt("/", volume)}, ErrOverRoot},
		{"the root, empty", []specs.Mount{bindAt("", volume)}, ErrOverRoot},
		{"the root by dots", []specs.Mount{{Destination: "/etc/..", Type: "tmpfs"}}, ErrOverRoot},
		{"no source", []specs.Mount{bindAt("/x", "/does/not/exist")}, os.ErrNotExist},
		{"too many", make([]specs.Mount, maxMounts+1), errTooMany},
		{"too long", slices.Repeat([]specs.Mount{{Destination: strings.Repeat("/a", 2000), Type: "tmpfs"}, {Destination: strings.Repeat("/b", 2000), Type: "tmpfs"}}, 1000), errTooMany},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := CheckMounts(&specs.Spec{Root: &specs.Root{Path: root}, Mounts: tt.mounts})
			if !errors.Is(err, tt.want) {
				t.Errorf("got %v, want %v", err, tt.want)
			}
		})
	}
	for dev, want := range map[string]error{"/dev/kvm": nil, "/proc/kcore": ErrBelowProc, "dev/../proc": ErrBelowProc, "/foo/1": ErrBelowProc, "/loop": errLinks} {
		s := &specs.Spec{Root: &specs.Root{Path: root}, Linux: &specs.Linux{Devices: []specs.LinuxDevice{{Path: dev}}}}
		if err := CheckMounts(s); !errors.Is(err, want) {
			t.Errorf("device %s: %v, want %v", dev, err, want)
		}
	}
	if err := CheckMounts(&specs.Spec{Root: &specs.Root{Path: "rel"}}); err == nil {
		t.Error("a relative root")
	}
}

func TestCheckProc(t *testing.T) {
	root := tree(t, "proc/")
	for _, tt := range []struct {
		mounts []specs.Mount
		want   error
	}{
		{nil, ErrNoProcfs},
		{[]specs.Mount{{Destination: "/mnt", Type: "proc"}}, ErrNoProcfs},
		{[]specs.Mount{{Destination: "//proc/", Type: "proc"}}, nil},
	} {
		if err := checkProc(&specs.Spec{Root: &specs.Root{Path: root}, Mounts: tt.mounts}); !errors.Is(err, tt.want) {
			t.Errorf("%v: %v", tt.mounts, err)
		}
	}
}

func TestCheckRoot(t *testing.T) {
	for _, tt := range []struct {
		name    string
		entries []string
		want    error
	}{
		{"folders", []string{"proc/", "dev/", "sys/"}, nil},
		{"nothing", nil, nil},
		{"proc is a link", []string{"vol/", "proc -> vol"}, ErrRootFolder},
		{"dev is a link", []string{"dev -> /dev"}, ErrRootFolder},
		{"sys is a link to nothing", []string{"sys -> nothing"}, ErrRootFolder},
		{"dev is a file", []string{"dev"}, ErrRootFolder},
	} {
		if err := CheckRoot(tree(t, tt.entries...)); !errors.Is(err, tt.want) {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	dir := tree(t, "real/rootfs/", "real/other/", "bundle/", "bundle/rootfs -> ../real/rootfs", "bundle/odd -> ../real/rootfs", "bundle/other/")
	if err := CheckRoot(filepath.Join(dir, "bundle/rootfs")); err == nil {
		t.Error("a root that is a link")
	}
	want := filepath.Join(dir, "real/rootfs")
	for _, p := range []string{"rootfs", "./rootfs/", "../real/rootfs", want} {
		r, err := resolveRoot(filepath.Join(dir, "bundle"), p)
		if err != nil || r.Path != want || r.Ino == 0 {
			t.Errorf("%s: %+v, %v", p, r, err)
		}
	}
	for _, p := range []string{"odd/../other", "", "nothing"} {
		if r, err := resolveRoot(filepath.Join(dir, "bundle"), p); err == nil {
			t.Errorf("%q: %+v", p, r)
		}
	}
	if _, err := resolveRoot("bundle", "rootfs"); !errors.Is(err, errBundle) {
		t.Error(err)
	}
}

func TestMounted(t *testing.T) {
	root := tree(t, "var/", "var/run -> /run", "run/")
	volume := tree(t, "a/", "b -> a", "file")
	dev, ino := func(p string) uint64 { id, _ := identify(filepath.Join(volume, p)); return id.dev }, func(p string) uint64 { id, _ := identify(filepath.Join(volume, p)); return id.ino }
	got, err := Mounted(&specs.Spec{Root: &specs.Root{Path: root}, Mounts: []specs.Mount{
		{Destination: "/proc", Type: "proc", Source: "proc"},
		{Destination: "/dev/", Type: "tmpfs", Source: "tmpfs", Options: []string{"ro", "rw"}},
		bindAt("/var/run/x", filepath.Join(volume, "b"), "ro"),
		{Destination: "/etc/hosts", Source: filepath.Join(volume, "file"), Options: []string{"bind"}},
		{Destination: "/run", Type: "tmpfs"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	want := []Mount{
		{Index: 0, Destination: "/proc", Type: "proc"},
		{Index: 1, Destination: "/dev", Type: "tmpfs"},
		{Index: 2, Destination: "/run/x", Bind: true, Recursive: true, Source: filepath.Join(volume, "a"), Dev: dev("a"), Ino: ino("a"), ReadOnly: true, Covered: true},
		{Index: 3, Destination: "/etc/hosts", Bind: true, Source: filepath.Join(volume, "file"), Dev: dev("file"), Ino: ino("file")},
		{Index: 4, Destination: "/run", Type: "tmpfs"},
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Error(d)
	}
}

func TestCheckStateReach(t *testing.T) {
	host := tree(t, "var/lib/palisade/containers/x/", "var/lib/other/", "run -> var/lib", "srv/", "alias -> var/lib/palisade/containers", "rootfs/")
	state := filepath.Join(host, "var/lib/palisade")
	at := func(p string) string { return filepath.Join(host, p) }
	for _, tt := range []struct {
		name  string
		state string
		mount specs.Mount
		reach bool
	}{
		{"another folder", state, bindAt("/x", at("srv")), false},
		{"a folder beside it", state, bindAt("/x", at("var/lib/other")), false},
		{"itself", state, bindAt("/x", state), true},
		{"read-only", state, bindAt("/x", state, "ro"), true},
		{"its parent", state, bindAt("/x", at("var/lib")), true},
		{"a folder above", state, bindAt("/x", at("var")), true},
		{"the host's root", state, bindAt("/x", "/"), true},
		{"below it", state, bindAt("/x", at("var/lib/palisade/containers/x")), true},
		{"a link", state, bindAt("/x", at("run")), true},
		{"a link below it", state, bindAt("/x", at("alias")), true},
		{"the state by a link", at("run/palisade"), bindAt("/x", at("var")), true},
		{"a state that is not there yet", at("var/lib/new/folder"), bindAt("/x", at("var/lib")), true},
		{"a state that is not there yet, beside", at("var/lib/new"), bindAt("/x", at("srv")), false},
		{"a layer", state, specs.Mount{Destination: "/x", Type: "overlay", Options: []string{"lowerdir=" + at("srv") + ":" + at("var")}}, true},
		{"layers", state, specs.Mount{Destination: "/x", Type: "overlay", Options: []string{"lowerdir=" + at("srv")}}, false},
		{"no bind", state, specs.Mount{Destination: "/x", Type: "tmpfs", Source: "/"}, false},
	} {
		s := &specs.Spec{Root: &specs.Root{Path: at("rootfs")}, Mounts: []specs.Mount{tt.mount}}
		if err := CheckStateReach(s, tt.state); errors.Is(err, ErrStateReach) != tt.reach || err != nil && !tt.reach {
			t.Errorf("%s: %v", tt.name, err)
		}
	}
	for root, reach := range map[string]bool{"/": true, at("var/lib"): true, at("srv"): false, at("var/lib/palisade/containers/x"): false} {
		if err := CheckStateReach(&specs.Spec{Root: &specs.Root{Path: root}}, state); errors.Is(err, ErrStateReach) != reach {
			t.Errorf("root %s: %v", root, err)
		}
	}
	if err := CheckStateReach(&specs.Spec{Mounts: []specs.Mount{bindAt("/x", "rel")}}, state); err == nil {
		t.Error("a relative source")
	}
	if err := CheckStateReach(&specs.Spec{Mounts: []specs.Mount{bindAt("/x", at("gone"))}}, state); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a source that is not there: %v", err)
	}
}

// FuzzMounts wants destinations to be clean, and nothing accepted that is at or
// below /proc in any reading.
func FuzzMounts(f *testing.F) {
	root := tree(f, "proc/", "foo -> /proc", "bar/up -> ../../proc/self", "x/", "loop -> loop", "abs -> /x/../proc")
	for _, dest := range []string{"/foo", "/x/../foo/a", "proc", "//bar/up/..", "/loop", "/abs", "/x/y", "../../proc/.", "/bar/up/../.."} {
		f.Add(dest, "/x")
		f.Add("/x", dest)
	}
	f.Fuzz(func(t *testing.T, first, second string) {
		s := &specs.Spec{Root: &specs.Root{Path: root}, Mounts: []specs.Mount{
			{Destination: first, Type: "bind", Source: root}, {Destination: second, Type: "tmpfs"},
		}}
		if strings.ContainsRune(first+second, 0) {
			return
		}
		mounts, err := Mounted(s)
		if err != nil {
			return
		}
		accepted := CheckMounts(s) == nil
		for _, m := range mounts {
			if m.Destination != filepath.Clean(m.Destination) || !filepath.IsAbs(m.Destination) {
				t.Errorf("destination %q", m.Destination)
			}
			if accepted && (m.Destination == "/" || m.Destination == "/proc" || strings.HasPrefix(m.Destination, "/proc/")) {
				t.Errorf("%q was accepted at %q", s.Mounts[m.Index].Destination, m.Destination)
			}
		}
		if !accepted || strings.Contains(first, "..") {
			return
		}
		// The kernel's reading of the first: it has links of the root only.
		if got, err := inRoot(root, first); err == nil && strings.HasPrefix(got+"/", filepath.Join(root, "proc")+"/") {
			t.Errorf("%q was accepted and is %q", first, got)
		}
	})
}
