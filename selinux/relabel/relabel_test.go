// SPDX-License-Identifier: Apache-2.0

//go:build linux

package relabel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/selinux"
)

const (
	contextA = "system_u:object_r:container_file_t:s0:c1,c2"
	contextB = "system_u:object_r:container_file_t:s0:c3,c4"
)

func parse(tb testing.TB, s string) selinux.Context {
	tb.Helper()
	c, err := selinux.ParseContext(s)
	if err != nil {
		tb.Fatal(err)
	}
	return c
}

// labelled returns a folder on a file system that keeps labels, or skips: it
// takes root, as the security namespace does.
func labelled(tb testing.TB) string {
	tb.Helper()
	dir := tb.TempDir()
	if err := unix.Setxattr(dir, labelXattr, []byte("probe\x00"), 0); err != nil {
		tb.Skipf("cannot set security labels in %s: %v (root on ext4, xfs or btrfs can)", dir, err)
	}
	if err := unix.Removexattr(dir, labelXattr); err != nil {
		tb.Skipf("an LSM keeps the label: %v", err)
	}
	return dir
}

// tree makes folders × files with links, pipes and empty folders between them.
func tree(tb testing.TB, root string, folders, files int) (entries int64) {
	tb.Helper()
	entries = 1
	for i := range folders {
		dir := filepath.Join(root, fmt.Sprintf("d%d", i%10), fmt.Sprintf("e%d", i))
		if err := os.MkdirAll(dir, 0o755); err != nil {
			tb.Fatal(err)
		}
		for j := range files {
			if err := os.WriteFile(filepath.Join(dir, fmt.Sprintf("f%d", j)), nil, 0o644); err != nil {
				tb.Fatal(err)
			}
		}
	}
	_ = filepath.WalkDir(root, func(path string, _ fs.DirEntry, _ error) error {
		if path != root {
			entries++
		}
		return nil
	})
	return entries
}

func wantLabels(t *testing.T, root, label string) {
	t.Helper()
	err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		got, err := getLabel(path, false)
		if err != nil || got != label {
			t.Errorf("%s: label %q, %v; want %q", path, got, err, label)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestRelabel(t *testing.T) {
	root := labelled(t)
	n := tree(t, root, 30, 7)
	outside := filepath.Join(t.TempDir(), "outside")
	if err := os.WriteFile(outside, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		os.Symlink(outside, filepath.Join(root, "out")),
		os.Symlink("nowhere", filepath.Join(root, "dangling")),
		os.Symlink(filepath.Dir(outside), filepath.Join(root, "outdir")),
		unix.Mkfifo(filepath.Join(root, "fifo"), 0o600),
		os.WriteFile(filepath.Join(root, "with\nnewline"), nil, 0o600),
		os.WriteFile(filepath.Join(root, "readonly"), nil, 0o400),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	n += 6
	ctx := context.Background()

	dry, err := Relabel(ctx, root, parse(t, contextA), Options{DryRun: true})
	if err != nil || dry.Changed != n || dry.Seen != n {
		t.Errorf("dry run: %+v, %v; want %d to change", dry, err, n)
	}
	if got, _ := getLabel(root, false); got != "" {
		t.Errorf("a dry run set %q", got)
	}
	got, err := Relabel(ctx, root, parse(t, contextA), Options{})
	if err != nil || got != (Counts{Seen: n, Changed: n}) {
		t.Errorf("first run: %+v, %v", got, err)
	}
	wantLabels(t, root, contextA)
	for _, p := range []string{outside, filepath.Dir(outside)} {
		if l, _ := getLabel(p, false); l != "" {
			t.Errorf("%s outside the tree was labelled %q", p, l)
		}
	}

	again, err := Relabel(ctx, root, parse(t, contextA), Options{})
	if err != nil || again != (Counts{Marked: true}) {
		t.Errorf("second run: %+v, %v", again, err)
	}
	forced, err := Relabel(ctx, root, parse(t, contextA), Options{IgnoreMarker: true})
	if err != nil || forced != (Counts{Seen: n, Already: n}) {
		t.Errorf("second run without marker: %+v, %v", forced, err)
	}
	other, err := Relabel(ctx, root, parse(t, contextB), Options{})
	if err != nil || other.Changed != n {
		t.Errorf("other context: %+v, %v", other, err)
	}
	wantLabels(t, root, contextB)
}

// TestResume cancels runs at random places: what is left is never marked as
// finished, and running again finishes it.
func TestResume(t *testing.T) {
	root := labelled(t)
	n := tree(t, root, 60, 20)
	for i := range 8 {
		label := []string{contextA, contextB}[i%2]
		ctx, cancel := context.WithCancel(context.Background())
		limit := int64(i * 100)
		_, err := Relabel(ctx, root, parse(t, label), Options{Workers: 2, Progress: func(c Counts) {
			if c.Seen >= limit {
				cancel()
			}
		}})
		cancel()
		if err == nil {
			continue
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		c, err := Relabel(context.Background(), root, parse(t, label), Options{})
		if err != nil || c.Marked || c.Seen != n {
			t.Fatalf("resumed: %+v, %v", c, err)
		}
		wantLabels(t, root, label)
	}
}

func TestGuardRefuses(t *testing.T) {
	root := labelled(t)
	tree(t, root, 1, 3)
	if _, err := Relabel(context.Background(), root, parse(t, contextA), Options{}); err != nil {
		t.Fatal(err)
	}
	held := errors.New("held by web-1")
	_, err := Relabel(context.Background(), root, parse(t, contextB), Options{Guard: func(present string) error {
		if present != contextA {
			t.Errorf("present label %q", present)
		}
		return held
	}})
	if !errors.Is(err, held) {
		t.Errorf("err = %v", err)
	}
	wantLabels(t, root, contextA)
}

func TestMountsAreNotCrossed(t *testing.T) {
	root := labelled(t)
	n := tree(t, root, 3, 3)
	for _, d := range []string{"mnt", "tmp"} {
		if err := os.Mkdir(filepath.Join(root, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	file := filepath.Join(root, "boundfile")
	other := filepath.Join(t.TempDir(), "other")
	for _, f := range []string{file, other} {
		if err := os.WriteFile(f, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mount("tmpfs", filepath.Join(root, "mnt"), "tmpfs", 0, ""); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	defer unix.Unmount(filepath.Join(root, "mnt"), unix.MNT_DETACH)
	if err := unix.Mount(other, file, "", unix.MS_BIND, ""); err != nil {
		t.Skipf("cannot mount: %v", err)
	}
	defer unix.Unmount(file, unix.MNT_DETACH)
	c, err := Relabel(context.Background(), root, parse(t, contextA), Options{})
	if err != nil || c.Mounts != 2 || c.Seen != n+1 {
		t.Errorf("%+v, %v; want 2 mounts left out of %d entries", c, err, n+1)
	}
	if l, _ := getLabel(other, false); l != "" {
		t.Errorf("the bind-mounted file was labelled %q", l)
	}
}

// TestHostileTree swaps folders for links to the outside while the walk runs.
func TestHostileTree(t *testing.T) {
	root := labelled(t)
	tree(t, root, 40, 10)
	victim := labelled(t)
	if err := os.WriteFile(filepath.Join(victim, "secret"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		at, aside := filepath.Join(root, "d1"), filepath.Join(root, "aside")
		for {
			select {
			case <-stop:
				return
			default:
			}
			_ = os.Rename(at, aside)
			_ = os.Symlink(victim, at)
			_ = os.Remove(at)
			_ = os.Rename(aside, at)
		}
	})
	for i := range 40 {
		_, _ = Relabel(context.Background(), root, parse(t, []string{contextA, contextB}[i%2]), Options{IgnoreMarker: true})
	}
	close(stop)
	wg.Wait()
	for _, p := range []string{victim, filepath.Join(victim, "secret")} {
		if l, _ := getLabel(p, false); l != "" {
			t.Fatalf("%s outside the tree was labelled %q", p, l)
		}
	}
}

func TestRefuse(t *testing.T) {
	for _, dir := range []string{"/", "/etc", "/etc/ssl", "/usr/share/x", "/proc/1", "/sys", "/home", "/home/alice", "/root", "/var", "/var/lib", "/var/lib/docker", "/usr/../etc", "/boot/efi", "/tmp"} {
		if err := Refuse(dir); !errors.Is(err, ErrSystemPath) {
			t.Errorf("Refuse(%s) = %v", dir, err)
		}
	}
	for _, dir := range []string{"/srv/data", "/home/alice/project", "/var/lib/mysql", "/tmp/x", "/opt/app", "/etcetera", "/data"} {
		if err := Refuse(dir); err != nil {
			t.Errorf("Refuse(%s) = %v", dir, err)
		}
	}
	// A link to a system folder is no way around.
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink("/etc", link); err != nil {
		t.Fatal(err)
	}
	if _, err := Relabel(context.Background(), link, parse(t, contextA), Options{DryRun: true}); !errors.Is(err, ErrSystemPath) {
		t.Errorf("through a link: %v", err)
	}
}

func TestNotSupported(t *testing.T) {
	if _, err := Relabel(context.Background(), "/dev/nosuch", parse(t, contextA), Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing folder: %v", err)
	}
	f := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(f, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Relabel(context.Background(), f, parse(t, contextA), Options{}); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("a file: %v", err)
	}
}

func FuzzDirent(f *testing.F) {
	f.Add([]byte{})
	f.Add(append(make([]byte, 16), 24, 0, 4, 'a', 0, 0, 0, 0))
	f.Fuzz(func(t *testing.T, b []byte) {
		for n := 0; len(b) > 0; n++ {
			_, _, rest, ok := dirent(b)
			if !ok {
				return
			}
			if len(rest) >= len(b) {
				t.Fatal("no progress")
			}
			b = rest
		}
	})
}

// BenchmarkRelabel changes the labels of 100,000 warm files, beside chcon -R and
// setfiles in the same run.
func BenchmarkRelabel(b *testing.B) {
	root := labelled(b)
	n := tree(b, root, 1000, 100)
	chcon := oracle.Tool(b, "chcon", "apt: coreutils")
	setfiles := oracle.Tool(b, "setfiles", "apt: policycoreutils")
	specs := filepath.Join(b.TempDir(), "file_contexts")
	// The host's own file contexts, as setfiles has them, and ours behind.
	host, err := os.ReadFile(debian.Policy(b, "default", nil).FileContexts)
	if err != nil {
		b.Fatal(err)
	}
	// Two lines for one pattern are an error to setfiles.
	host = regexp.MustCompile(`(?m)^/\.\*\s.*\n`).ReplaceAll(host, nil)
	write := func(c string) {
		if err := os.WriteFile(specs, fmt.Appendf(bytes.Clone(host), "\n/.*\t%s\n", c), 0o644); err != nil {
			b.Fatal(err)
		}
	}
	write(contextA)
	per := func(b *testing.B) {
		b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(n), "ns/file")
	}
	flip := func(i int) string { return []string{contextA, contextB}[i%2] }
	b.Run("palisade", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if _, err := Relabel(context.Background(), root, parse(b, flip(i)), Options{}); err != nil {
				b.Fatal(err)
			}
		}
		per(b)
	})
	b.Run("chcon", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if out, err := exec.Command(chcon, "-R", flip(i), root).CombinedOutput(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
		per(b)
	})
	b.Run("setfiles", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			b.StopTimer()
			write(flip(i))
			b.StartTimer()
			if out, err := exec.Command(setfiles, "-F", "-T", "0", specs, root).CombinedOutput(); err != nil && !strings.Contains(string(out), "SELinux") {
				b.Fatalf("%v: %s", err, out)
			}
		}
		per(b)
	})
	b.Run("marked", func(b *testing.B) {
		if _, err := Relabel(context.Background(), root, parse(b, contextA), Options{}); err != nil {
			b.Fatal(err)
		}
		b.ResetTimer()
		for b.Loop() {
			if c, err := Relabel(context.Background(), root, parse(b, contextA), Options{}); err != nil || !c.Marked {
				b.Fatal(c, err)
			}
		}
	})
}
