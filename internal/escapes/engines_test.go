// SPDX-License-Identifier: Apache-2.0

package escapes

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/oracle"
)

// script writes a program that is a call of a runtime which sees no unified
// control groups.
func (a *attempt) script(name string, line ...string) string {
	a.t.Helper()
	quoted := make([]string, len(line))
	for i, w := range line {
		quoted[i] = "'" + w + "'"
	}
	text := "#!/bin/sh\nexec unshare -m sh -c 'umount /sys/fs/cgroup/unified 2>/dev/null; exec \"$@\"' sh " + strings.Join(quoted, " ") + " \"$@\"\n"
	path := filepath.Join(a.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// run runs a program with its output in a file, for a minute and a half.
func (a *attempt) run(name string, args ...string) result {
	a.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 90*time.Second)
	defer cancel()
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = a.dir
	cmd.Env = append(os.Environ(), "PALISADE_STATE="+filepath.Join(a.dir, "palisade"), "PALISADE_RUNTIME=", "XDG_RUNTIME_DIR=")
	cmd.WaitDelay = 10 * time.Second
	if err := os.RemoveAll(filepath.Join(a.dir, "out")); err != nil {
		a.t.Fatal(err)
	}
	r := result{call: filepath.Base(name)}
	a.wait(&r, cmd)
	r.out = a.output()
	return r
}

// archive is the image's root as a tar file.
func (a *attempt) archive() string {
	a.t.Helper()
	path := filepath.Join(a.dir, "root.tar")
	f, err := os.Create(path)
	if err != nil {
		a.t.Fatal(err)
	}
	w := tar.NewWriter(f)
	err = filepath.WalkDir(a.root, func(p string, d fs.DirEntry, err error) error {
		if err != nil || p == a.root {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		link := ""
		if d.Type()&fs.ModeSymlink != 0 {
			if link, err = os.Readlink(p); err != nil {
				return err
			}
		}
		h, err := tar.FileInfoHeader(info, link)
		if err != nil {
			return err
		}
		if h.Name, err = filepath.Rel(a.root, p); err != nil {
			return err
		}
		if d.IsDir() {
			h.Name += "/"
		}
		if err := w.WriteHeader(h); err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		_, err = w.Write(b)
		return err
	})
	if err := errors.Join(err, w.Close(), f.Close()); err != nil {
		a.t.Fatal(err)
	}
	return path
}

// TestConfirmPodman runs an image with VOLUME /proc and programs where a last
// step would be looked up, by Podman over crun.
func TestConfirmPodman(t *testing.T) {
	s := newScratch(t)
	podman := oracle.Tool(t, "podman", "apt: podman")
	crun := s.crun(t)
	a := s.attempt(t, crun, bare, wayRun, 0)
	fakeProc(a, filepath.Join(a.root, "proc"))
	base := []string{
		"--root", filepath.Join(a.dir, "storage"), "--runroot", filepath.Join(a.dir, "run"), "--tmpdir", filepath.Join(a.dir, "tmp"),
		"--cgroup-manager=cgroupfs", "--events-backend=file", "--storage-driver=vfs",
	}
	imported := a.run(podman, append(base, "import", "--change", "VOLUME /proc", "--change", `CMD ["/inside", "status"]`, a.archive(), "localhost/escapes:latest")...)
	if imported.code != 0 {
		oracle.Missing(t, "podman cannot import an image here: %s", imported.out)
	}
	var rows []string
	for _, pol := range []string{bare, policyDefault, policyStrict} {
		command := []string{crun.path}
		if pol != bare {
			command = []string{
				filepath.Join(s.bin, "palisade-oci"), "--palisade-state", filepath.Join(a.dir, "palisade"),
				"--palisade-runtime", crun.path, "--palisade-policy", pol,
			}
		}
		runtime := a.script("runtime-"+pol, command...)
		// The limits that podman sets are more than every root has.
		res := a.run(podman, append(base, "--runtime", runtime, "run", "--rm", "--network", "none",
			"--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096", "localhost/escapes:latest")...)
		mode, ran := line0(res.out, "seccomp")
		_, impostor := line(res.out, "impostor", "ran")
		text := fmt.Sprintf("exit code %d: %s", res.code, lastLine(res.out))
		if ran {
			text = "Seccomp " + strings.TrimSuffix(mode, " ok")
		}
		rows = append(rows, pol+": "+text)
		switch {
		case pol == bare && (!ran || mode != "2 ok"):
			t.Errorf("podman over crun alone: exit code %d: %s", res.code, res.out)
		case pol != bare && impostor:
			t.Errorf("podman over palisade-oci, %s: the image's program ran as the last step, Seccomp %s", pol, mode)
		case pol != bare && ran && mode != "2 ok":
			t.Errorf("podman over palisade-oci, %s: Seccomp %s", pol, mode)
		}
	}
	t.Logf("an image with VOLUME /proc, Podman over crun: %s", strings.Join(rows, "; "))
	removeAll(t, a.dir)
}

// line0 is line for the last such line, which is the workload's.
func line0(out string, words ...string) (string, bool) {
	rest, ok := "", false
	for l := range strings.Lines(out) {
		if r, found := line(l, words...); found {
			rest, ok = r, true
		}
	}
	return rest, ok
}

// TestConfirmRun goes the way of `palisade run` into containers whose root or
// volumes are hostile. There is no runtime alone to compare with.
func TestConfirmRun(t *testing.T) {
	s := newScratch(t)
	tests := []struct {
		name    string
		on      []string
		setup   func(a *attempt) (flags []string)
		args    []string
		reached func(*attempt, result) (string, bool)
	}{
		{"control", []string{"crun", "1.1.4"}, func(*attempt) []string { return nil }, []string{"/inside", "status"}, lessFiltered},
		{"a volume on /proc", []string{"crun", "1.1.4"}, func(a *attempt) []string {
			fakeProc(a, filepath.Join(a.dir, "fake"))
			return []string{"-v", filepath.Join(a.dir, "fake") + ":/proc"}
		}, []string{"/inside", "status"}, lessFilteredRun},
		{"a volume on /proc/1/fd", []string{"crun", "1.1.4"}, func(a *attempt) []string {
			fakeProc(a, filepath.Join(a.dir, "fake"))
			return []string{"-v", filepath.Join(a.dir, "fake/self/fd") + ":/proc/1/fd"}
		}, []string{"/inside", "status"}, lessFilteredRun},
		{"a volume below /proc by a link", []string{"crun", "1.1.4"}, func(a *attempt) []string {
			a.link("/proc", "vol")
			a.mkdir(filepath.Join(a.dir, "tty"))
			return []string{"-v", filepath.Join(a.dir, "tty") + ":/vol/tty"}
		}, []string{"/inside", "statfs", "/proc/tty"}, inProc("/proc/tty")},
		{"/proc of the root is a link", []string{"1.1.4", "crun"}, func(a *attempt) []string {
			a.mkdir(filepath.Join(a.root, "elsewhere"))
			a.link("/elsewhere", "proc")
			return nil
		}, []string{"/inside", "stat", "/elsewhere/1"}, func(_ *attempt, r result) (string, bool) {
			rest, ok := line(r.out, "stat", "/elsewhere/1")
			return "procfs is where the link points", ok && strings.HasSuffix(rest, " ok")
		}},
		{"/dev of the root is a link", []string{"1.1.4", "crun"}, func(a *attempt) []string {
			a.link(a.outside, "dev")
			return nil
		}, []string{"/inside", "status"}, made},
		{"/etc of the root is a link", []string{"1.1.4", "crun"}, func(a *attempt) []string {
			a.link(a.outside, "etc")
			return nil
		}, []string{"/inside", "status"}, made},
		{"/dev/console of the root is a link", []string{"crun"}, func(a *attempt) []string {
			a.link(filepath.Join(a.outside, "console"), "dev/console")
			return nil
		}, []string{"/inside", "status"}, made},
		{"working folder is a leaked descriptor", []string{"1.1.4"}, func(a *attempt) []string {
			return []string{"-w", fmt.Sprintf("/proc/self/fd/%d", leakedFD(a))}
		}, nil, climbed("read")},
		{"working folder is a link to a leaked descriptor", []string{"1.1.4"}, func(a *attempt) []string {
			a.link(fmt.Sprintf("/proc/self/fd/%d", leakedFD(a)), "work")
			return []string{"-w", "/work"}
		}, nil, climbed("read")},
		{"users of the host by a link", []string{"1.1.4"}, func(a *attempt) []string {
			a.write(filepath.Join(a.outside, "passwd"), "escapes:x:4242:4242::/:/bin/sh\n")
			a.link(filepath.Join(a.outside, "passwd"), "etc/passwd")
			return []string{"-u", "escapes"}
		}, []string{"/inside", "status"}, said("a file of the host says who a user is:", "uid 4242")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			for _, name := range tt.on {
				rt := s.named(t, name)
				for _, pol := range []string{policyDefault, policyStrict} {
					variants := 1
					if tt.args == nil {
						variants = 14
					}
					var seen []string
					for n := range variants {
						a := s.attempt(t, rt, pol, wayRun, n)
						args := tt.args
						if args == nil {
							args = a.climbArgs()
						}
						flags := tt.setup(a)
						before, _ := made(a, result{})
						command := append([]string{filepath.Join(s.bin, "palisade"), "run", "--runtime", rt.path, "--policy", pol, "--rootfs", a.root}, flags...)
						command = a.commandLine(t.Context(), append(append(command, "--"), args...)).Args
						res := a.run(command[0], command[1:]...)
						what, ok := tt.reached(a, res)
						if before == what {
							ok = false // what the row put there itself
						}
						removeAll(t, a.dir)
						if ok {
							t.Errorf("%s, %s: %s", rt.name, pol, what)
							break
						}
						if tt.name == "control" && res.code != 0 {
							t.Errorf("%s, %s: exit code %d: %s", rt.name, pol, res.code, res.out)
						}
						if n == 0 {
							said := lastLine(res.out)
							if m := refusal.FindString(res.out); m != "" {
								said = short(m)
							}
							seen = append(seen, fmt.Sprintf("exit code %d: %s", res.code, said))
						}
					}
					t.Logf("%s, %s: %s", rt.name, pol, strings.Join(seen, "; "))
				}
			}
		})
	}
}

// lessFilteredRun is lessFiltered, or any workload with a /proc that is none.
func lessFilteredRun(a *attempt, r result) (string, bool) {
	if s, ok := notProc(a, r); ok {
		return s, true
	}
	if _, ok := line(r.out, "seccomp"); ok {
		return "the workload ran with a mount over /proc", true
	}
	return "", false
}
