// SPDX-License-Identifier: Apache-2.0

package effective

import (
	"bufio"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"github.com/opencontainers/runtime-spec/specs-go"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
)

// TestAsked: what each part of a configuration asks for.
func TestAsked(t *testing.T) {
	nothing := State{Seccomp: Seccomp{Mode: SeccompDisabled}, MaskedPaths: []string{}, ReadOnlyPaths: []string{}, Namespaces: []string{}}
	with := func(change func(*State)) State {
		s := nothing
		change(&s)
		return s
	}
	for name, tt := range map[string]struct {
		spec specs.Spec
		want State
	}{
		"nothing":    {specs.Spec{}, nothing},
		"a process":  {specs.Spec{Process: &specs.Process{}}, nothing},
		"a label":    {specs.Spec{Process: &specs.Process{SelinuxLabel: "u:r:t:s0"}}, with(func(s *State) { s.SELinux = "u:r:t:s0" })},
		"a profile":  {specs.Spec{Process: &specs.Process{ApparmorProfile: "p"}}, with(func(s *State) { s.AppArmor = "p" })},
		"no profile": {specs.Spec{Process: &specs.Process{ApparmorProfile: "unconfined"}}, nothing},
		"no more":    {specs.Spec{Process: &specs.Process{NoNewPrivileges: true}}, with(func(s *State) { s.NoNewPrivileges = true })},
		"a user":     {specs.Spec{Process: &specs.Process{User: specs.User{UID: 3, GID: 4}}}, with(func(s *State) { s.UID, s.GID = 3, 4 })},
		"a writable": {specs.Spec{Root: &specs.Root{}}, nothing},
		"a root":     {specs.Spec{Root: &specs.Root{Readonly: true}}, with(func(s *State) { s.ReadOnlyRoot = true })},
		"paths":      {specs.Spec{Linux: &specs.Linux{MaskedPaths: []string{"/b", "/a"}, ReadonlyPaths: []string{"/d", "/c"}}}, with(func(s *State) { s.MaskedPaths, s.ReadOnlyPaths = []string{"/a", "/b"}, []string{"/c", "/d"} })},
		"a filter":   {specs.Spec{Linux: &specs.Linux{Seccomp: &specs.LinuxSeccomp{}}}, with(func(s *State) { s.Seccomp = Seccomp{Mode: SeccompFilter, Filters: 1, InstalledBy: "runtime"} })},
		"namespaces": {specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "pid"}, {Type: "network"}, {Type: "mount"}}}}, with(func(s *State) { s.Namespaces = []string{"mnt", "net", "pid"} })},
		"joined":     {specs.Spec{Linux: &specs.Linux{Namespaces: []specs.LinuxNamespace{{Type: "pid", Path: "/x"}, {Type: "uts"}}}}, with(func(s *State) { s.Namespaces = []string{"uts"} })},
		"capabilities": {specs.Spec{Process: &specs.Process{Capabilities: &specs.LinuxCapabilities{Bounding: []string{"CAP_CHOWN"}, Effective: []string{"CAP_KILL", "nonsense"}, Permitted: []string{"CAP_MKNOD"}, Inheritable: []string{"CAP_SETUID"}, Ambient: []string{"CAP_SYSLOG"}}}}, with(func(s *State) {
			s.Capabilities = Capabilities{Bounding: caps.Of(caps.Chown), Effective: caps.Of(caps.Kill), Permitted: caps.Of(caps.Mknod), Inheritable: caps.Of(caps.Setuid), Ambient: caps.Of(caps.Syslog)}
		})},
	} {
		if got := Asked(&tt.spec); !reflect.DeepEqual(got, tt.want) {
			t.Errorf("%s: %+v, want %+v", name, got, tt.want)
		}
	}
}

// TestEachMismatch weakens one thing at a time, down to the single bit, and strengthens
// it, which is no mismatch.
func TestEachMismatch(t *testing.T) {
	base := func() State {
		s := full()
		c := caps.Of(caps.Chown, caps.Kill)
		s.Capabilities = Capabilities{Bounding: c, Effective: c, Permitted: c, Inheritable: c, Ambient: c}
		s.Landlock = &Landlock{ABI: 7, HandledFS: 6, HandledNet: 6, Scoped: 6}
		s.Seccomp = Seccomp{Mode: SeccompFilter, Filters: 2, SHA256: []string{"aa", "bb"}}
		s.MaskedPaths, s.ReadOnlyPaths, s.Namespaces = []string{"/m", "/n/"}, []string{"/r", "/s"}, []string{"mnt", "pid"}
		return s
	}
	type change = func(*State)
	landlock := func(f func(*Landlock)) change { return func(s *State) { f(s.Landlock) } }
	more := caps.Of(caps.Chown, caps.Kill, caps.SysAdmin)
	for name, tt := range map[string]struct {
		found change
		layer string // of the one mismatch; "" for none
		word  string
	}{
		"the same":             {func(*State) {}, "", ""},
		"no context":           {func(s *State) { s.SELinux = "" }, "selinux", "found none"},
		"another type":         {func(s *State) { s.SELinux = "u:r:x:s0:c1,c2" }, "selinux", "u:r:x"},
		"enforced":             {func(s *State) { s.AppArmor = "docker-default (enforce)" }, "", ""},
		"complains":            {func(s *State) { s.AppArmor = "docker-default (complain)" }, "apparmor", "does not enforce"},
		"kills":                {func(s *State) { s.AppArmor = "docker-default (kill)" }, "apparmor", "does not enforce"},
		"another profile":      {func(s *State) { s.AppArmor = "docker-default2 (enforce)" }, "apparmor", "not confined by"},
		"no profile":           {func(s *State) { s.AppArmor = "" }, "apparmor", "found none"},
		"strict":               {func(s *State) { s.Seccomp.Mode = SeccompStrict }, "", ""},
		"disabled":             {func(s *State) { s.Seccomp.Mode = SeccompDisabled }, "seccomp", "no system call"},
		"one filter less":      {func(s *State) { s.Seccomp.Filters = 1 }, "seccomp", "a filter is missing"},
		"no filter":            {func(s *State) { s.Seccomp.Filters = 0 }, "seccomp", "a filter is missing"},
		"one filter more":      {func(s *State) { s.Seccomp.Filters = 3 }, "", ""},
		"filters not told":     {func(s *State) { s.Seccomp.Filters = -1 }, "", ""},
		"hashes not read":      {func(s *State) { s.Seccomp.SHA256 = nil }, "", ""},
		"no hash":              {func(s *State) { s.Seccomp.SHA256 = []string{} }, "seccomp", "filter aa"},
		"one hash":             {func(s *State) { s.Seccomp.SHA256 = []string{"aa"} }, "seccomp", "filter bb"},
		"other order":          {func(s *State) { s.Seccomp.SHA256 = []string{"bb", "cc", "aa"} }, "", ""},
		"privileges":           {func(s *State) { s.NoNewPrivileges = false }, "no_new_privileges", "found no"},
		"bounding":             {func(s *State) { s.Capabilities.Bounding = more }, "capabilities", "bounding"},
		"effective":            {func(s *State) { s.Capabilities.Effective = more }, "capabilities", "effective"},
		"permitted":            {func(s *State) { s.Capabilities.Permitted = more }, "capabilities", "permitted"},
		"inheritable":          {func(s *State) { s.Capabilities.Inheritable = more }, "capabilities", "inheritable"},
		"ambient":              {func(s *State) { s.Capabilities.Ambient = more }, "capabilities", "has sys_admin in addition"},
		"fewer capabilities":   {func(s *State) { s.Capabilities = Capabilities{} }, "", ""},
		"no domain":            {func(s *State) { s.Landlock = nil }, "landlock", "not entered"},
		"a right of files":     {landlock(func(l *Landlock) { l.HandledFS = 4 }), "landlock", "denies less"},
		"a right of ports":     {landlock(func(l *Landlock) { l.HandledNet = 2 }), "landlock", "denies less"},
		"a scope":              {landlock(func(l *Landlock) { l.Scoped = 0 }), "landlock", "denies less"},
		"more rights":          {landlock(func(l *Landlock) { l.HandledFS, l.HandledNet, l.Scoped = 7, 7, 7 }), "", ""},
		"another ABI":          {landlock(func(l *Landlock) { l.ABI = 1 }), "", ""},
		"a writable root":      {func(s *State) { s.ReadOnlyRoot = false }, "mounts", "writable root"},
		"one mask":             {func(s *State) { s.MaskedPaths = []string{"/n"} }, "mounts", "masked /m"},
		"a cleaned mask":       {func(s *State) { s.MaskedPaths = []string{"/m", "/n"} }, "", ""},
		"one writable":         {func(s *State) { s.ReadOnlyPaths = []string{"/r"} }, "mounts", "read-only /s"},
		"a shared namespace":   {func(s *State) { s.Namespaces = []string{"pid", "uts"} }, "namespaces", "same mnt namespace"},
		"a namespace more":     {func(s *State) { s.Namespaces = []string{"mnt", "pid", "uts"} }, "", ""},
		"another user and ABI": {func(s *State) { s.UID, s.GID = 7, 8 }, "", ""},
	} {
		found := base()
		tt.found(&found)
		m := Compare(base(), found)
		err := Check(base(), found)
		if tt.layer == "" {
			if len(m) != 0 || err != nil {
				t.Errorf("%s: %v, %v", name, m, err)
			}
			continue
		}
		var mismatch *MismatchError
		if len(m) != 1 || m[0].Layer != tt.layer || !strings.Contains(m[0].String(), tt.word) || !errors.As(err, &mismatch) || !reflect.DeepEqual(mismatch.Mismatches, m) {
			t.Errorf("%s: %v, %v; want %s with %q", name, m, err, tt.layer, tt.word)
		}
		// Nothing of it was asked for: then it is right.
		if m := Compare(State{Capabilities: Capabilities{Bounding: more, Effective: more, Permitted: more, Inheritable: more, Ambient: more}}, found); len(m) != 0 {
			t.Errorf("%s, not asked for: %v", name, m)
		}
	}
	// The whole list is told.
	if m := Compare(base(), State{Capabilities: Capabilities{Bounding: caps.All}}); len(m) < 10 {
		t.Errorf("%v", m)
	}
	if err := Check(base(), State{}); err == nil || !strings.HasPrefix(err.Error(), "the container is less confined than asked: selinux: asked for u:r:t") || strings.Count(err.Error(), "; ") < 8 {
		t.Errorf("%v", err)
	}
	asked := base()
	asked.AppArmor = "docker-default (enforce)"
	if m := Compare(asked, base()); len(m) != 0 {
		t.Errorf("asked for with its mode: %v", m)
	}
}

// TestEscapes: mountinfo's names.
func TestEscapes(t *testing.T) {
	for in, want := range map[string]string{
		"": "", "/a": "/a", `/a\040b`: "/a b", `\011\012\134`: "\t\n\\", `/a\04`: `/a\04`, `/a\`: `/a\`, `\040`: " ", `x\040`: "x ", `\08x`: `\08x`, `\777`: `\777`, `\377`: "\xff", `\400`: `\400`,
		`\0400`: " 0", `\0\040`: `\0 `, `\/40`: `\/40`, `\:40`: `\:40`, `a\040\040b`: "a  b",
	} {
		if got := unescape(in); got != want {
			t.Errorf("%s: %q, want %q", in, got, want)
		}
	}
	for line, ok := range map[string]bool{
		"1 0 0:1 / / ro - tmpfs none rw": true, "1 0 0:1 / / ro shared:1 master:2 - tmpfs none rw": true, "1 0 0:1 / /  ro - tmpfs none rw": true,
		"1 0 0:1 / / - tmpfs none rw": false, "1 0 0:1 / / ro - tmpfs none": false, "1 0 0:1 / / ro tmpfs none rw": false, "1 0 0:1 / / ro - tmpfs  rw": true, "": false,
	} {
		m, err := readMounts(strings.NewReader(line + "\n"))
		if (err == nil) != ok || ok && (len(m) != 1 || m[0].point != "/" || m[0].fstype != "tmpfs") {
			t.Errorf("%q: %+v, %v", line, m, err)
		}
	}
	if _, err := readMounts(strings.NewReader(strings.Repeat("x", 1<<20+1))); !errors.Is(err, bufio.ErrTooLong) {
		t.Errorf("a line without an end: %v", err)
	}
	long := "1 0 0:1 / /" + strings.Repeat("y", 100<<10) + " ro - tmpfs none rw\n"
	if m, err := readMounts(strings.NewReader(long)); err != nil || len(m) != 1 {
		t.Errorf("a long name: %v", err)
	}
	if _, ok := covering(nil, "/a"); ok {
		t.Error("a mount covers where there is none")
	}
	over := []mount{{point: "/", source: "a"}, {point: "/x", source: "b"}, {point: "/x", source: "c"}, {point: "/xy", source: "d"}, {point: "/", source: "e"}}
	for p, want := range map[string]string{"/": "e", "/x": "c", "/x/y": "c", "/xy": "d", "/xyz": "e", "/z": "e"} {
		if m, ok := covering(over, p); !ok || m.source != want {
			t.Errorf("%s: %+v, want %s", p, m, want)
		}
	}
	if m := []mount{{point: "/a", options: []string{"ro"}}}; masked(m, "/b") || readOnly(m, "/b") {
		t.Error("what is on no mount is masked")
	}
	for _, m := range []mount{{point: "/p", root: "/null"}, {point: "/p", fstype: "tmpfs", options: []string{"ro"}}, {point: "/p", fstype: "tmpfs", super: []string{"ro"}}} {
		if !masked([]mount{m}, "/p") || masked([]mount{m}, "/p/q") {
			t.Errorf("%+v", m)
		}
	}
	for _, m := range []mount{{point: "/p", root: "/nullx"}, {point: "/p", fstype: "tmpfs"}, {point: "/p", fstype: "ext4", options: []string{"ro"}}} {
		if masked([]mount{m}, "/p") {
			t.Errorf("%+v is masked", m)
		}
	}
}

// TestStatusLines: each line of the status, and each one missing or broken.
func TestStatusLines(t *testing.T) {
	lines := []string{"Uid:\t1\t2\t3\t4", "Gid:\t5\t6\t7\t8", "CapInh:\t1", "CapPrm:\t2", "CapEff:\t4", "CapBnd:\t8", "CapAmb:\t10", "NoNewPrivs:\t1", "Seccomp:\t2", "Seccomp_filters:\t3", "Other:\tx"}
	read := func(lines []string) (State, error) {
		var st State
		err := st.readStatus([]byte(strings.Join(lines, "\n")))
		return st, err
	}
	want := State{UID: 2, GID: 6, NoNewPrivileges: true, Seccomp: Seccomp{Mode: SeccompFilter, Filters: 3}, Capabilities: Capabilities{Inheritable: 1, Permitted: 2, Effective: 4, Bounding: 8, Ambient: 16}}
	if st, err := read(lines); err != nil || !reflect.DeepEqual(st, want) {
		t.Errorf("%+v, %v", st, err)
	}
	for i, line := range lines {
		key, _, _ := strings.Cut(line, ":")
		st, err := read(slices.Delete(slices.Clone(lines), i, i+1))
		if strings.HasPrefix(key, "Cap") != (err != nil) {
			t.Errorf("without %s: %v", key, err)
		}
		switch key {
		case "Seccomp":
			if st.Seccomp.Mode != SeccompDisabled {
				t.Errorf("without %s: %+v", key, st)
			}
		case "Seccomp_filters":
			if st.Seccomp.Filters != -1 {
				t.Errorf("without %s: %+v", key, st)
			}
		case "NoNewPrivs":
			if st.NoNewPrivileges {
				t.Errorf("without %s: %+v", key, st)
			}
		}
		for _, value := range []string{"", "x", "-1", "1 2 3 4 5 6", "99999999999999999999999"} {
			broken := slices.Clone(lines)
			broken[i] = key + ":\t" + value
			st, err := read(broken)
			switch {
			case key == "Other", key == "NoNewPrivs" && err == nil && !st.NoNewPrivileges:
			case key == "Seccomp_filters" && value == "-1", strings.HasSuffix(key, "id") && value == "1 2 3 4 5 6":
				if err != nil {
					t.Errorf("%s %q: %v", key, value, err)
				}
			case err == nil:
				t.Errorf("%s %q: %+v", key, value, st)
			}
		}
	}
	for value, mode := range map[string]string{"0": SeccompDisabled, "1": SeccompStrict, "2": SeccompFilter, "3": ""} {
		broken := slices.Clone(lines)
		broken[8] = "Seccomp:\t" + value
		if st, err := read(broken); (err == nil) != (mode != "") || err == nil && st.Seccomp.Mode != mode {
			t.Errorf("mode %s: %+v, %v", value, st, err)
		}
	}
	for value, want := range map[string]uint32{"0 7": 7, "1 4294967295 2 3": 1<<32 - 1, "0 10": 10} {
		if got, err := effectiveID(value); err != nil || got != want {
			t.Errorf("%s: %d, %v", value, got, err)
		}
	}
	for _, value := range []string{"", "1", "1 x", "1 -1", "1 4294967296"} {
		if got, err := effectiveID(value); err == nil {
			t.Errorf("%q: %d", value, got)
		}
	}
	for _, err := range []error{unix.ESRCH, fs.ErrNotExist, unix.ENOENT, fmt.Errorf("x: %w", unix.ESRCH)} {
		if !errors.Is(gone(err), ErrGone) {
			t.Errorf("%v", err)
		}
	}
	if err := gone(unix.EACCES); !errors.Is(err, unix.EACCES) || errors.Is(err, ErrGone) || gone(nil) != nil {
		t.Errorf("%v", err)
	}
}

// TestLabelFiles: which file a label comes from, and that one that cannot be read is
// not one that is absent.
func TestLabelFiles(t *testing.T) {
	if _, err := os.Stat("/sys/fs/selinux/enforce"); err == nil {
		t.Skip("SELinux is on here")
	}
	for name, tt := range map[string]struct {
		files map[string]string
		want  string
	}{
		"none":          {nil, ""},
		"new":           {map[string]string{"apparmor/current": "p (enforce)\n", "current": "q"}, "p (enforce)"},
		"old":           {map[string]string{"current": "q (complain)\x00"}, "q (complain)"},
		"unconfined":    {map[string]string{"apparmor/current": "unconfined\n"}, ""},
		"unconfined by": {map[string]string{"apparmor/current": "unconfined (x)\n"}, "unconfined (x)"},
	} {
		proc := t.TempDir()
		for f, text := range tt.files {
			p := filepath.Join(proc, "attr", f)
			if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(text), 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		if selinux, apparmor, err := labels(proc); selinux != "" || apparmor != tt.want || err != nil {
			t.Errorf("%s: %q, %q, %v", name, selinux, apparmor, err)
		}
	}
	proc := t.TempDir()
	if err := os.MkdirAll(filepath.Join(proc, "attr", "current"), 0o755); err != nil {
		t.Fatal(err)
	}
	if _, _, err := labels(proc); !errors.Is(err, unix.EISDIR) {
		t.Errorf("a folder: %v", err)
	}
	if _, _, err := Labels(1 << 30); !errors.Is(err, ErrGone) {
		t.Errorf("nobody: %v", err)
	}
	if _, _, err := Labels(os.Getpid()); err != nil {
		t.Errorf("this process: %v", err)
	}
}

// TestNamespaceFiles: what is not shared, whatever kinds the kernel has.
func TestNamespaceFiles(t *testing.T) {
	proc := t.TempDir()
	if err := os.Mkdir(filepath.Join(proc, "ns"), 0o755); err != nil {
		t.Fatal(err)
	}
	link := func(kind, to string) {
		t.Helper()
		if err := os.Symlink(to, filepath.Join(proc, "ns", kind)); err != nil {
			t.Fatal(err)
		}
	}
	for _, kind := range []string{"uts", "cgroup"} {
		link(kind, kind+":[1]")
	}
	ours, err := os.Readlink("/proc/self/ns/mnt")
	if err != nil {
		t.Fatal(err)
	}
	link("mnt", ours)
	if got, err := namespaces(proc); err != nil || !slices.Equal(got, []string{"cgroup", "uts"}) {
		t.Errorf("%q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(proc, "ns", "ipc"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := namespaces(proc); !errors.Is(err, unix.EINVAL) {
		t.Errorf("what is no link: %q, %v", got, err)
	}
	if got, err := namespaces(t.TempDir()); err != nil || got == nil || len(got) != 0 {
		t.Errorf("no kinds: %q, %v", got, err)
	}
}

const envConfined = "PALISADE_TEST_CONFINED"

// allowAll is a filter of one instruction, as the kernel keeps it.
var allowAll = []byte{0x06, 0, 0, 0, 0, 0, 0xff, 0x7f}

// confine is what the child of TestConfined does to itself.
func confine(dir string) error {
	runtime.LockOSThread()
	insn := unix.SockFilter{Code: 0x06, K: 0x7fff0000}
	prog := unix.SockFprog{Len: 1, Filter: &insn}
	if err := unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""); err != nil {
		return err
	}
	if err := unix.Mount("/dev/null", filepath.Join(dir, "masked"), "", unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Mount("tmpfs", filepath.Join(dir, "ro"), "tmpfs", 0, ""); err != nil {
		return err
	}
	if err := unix.Mount("", filepath.Join(dir, "ro"), "", unix.MS_REMOUNT|unix.MS_RDONLY|unix.MS_BIND, ""); err != nil {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	const setModeFilter, tsync = 1, 1
	if _, _, e := unix.Syscall(unix.SYS_SECCOMP, setModeFilter, tsync, uintptr(unsafe.Pointer(&prog))); e != 0 {
		return e
	}
	return nil
}

// TestConfined reads a process that was confined in a known way.
func TestConfined(t *testing.T) {
	if dir := os.Getenv(envConfined); dir != "" {
		if err := confine(dir); err != nil {
			t.Fatal(err)
		}
		fmt.Println("confined")
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	if os.Geteuid() != 0 {
		t.Skip("namespaces and mounts need root")
	}
	dir := t.TempDir()
	for _, name := range []string{"ro", "open"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"masked", "visible"} {
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestConfined$")
	cmd.Env = append(os.Environ(), envConfined+"="+dir)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWUTS}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "confined\n" {
		t.Fatalf("%q, %v", line, err)
	}
	pid := cmd.Process.Pid
	sum := sha256.Sum256(allowAll)
	hash := hex.EncodeToString(sum[:])
	path := func(name string) string { return filepath.Join(dir, name) }
	asked := State{
		MaskedPaths:   []string{path("masked"), path("visible"), path("none"), path("open")},
		ReadOnlyPaths: []string{path("ro"), path("open"), path("none"), path("ro/none")},
		Landlock:      &Landlock{ABI: 1},
		Seccomp:       Seccomp{Mode: SeccompFilter, SHA256: []string{hash}},
	}
	self, err := Read(os.Getpid(), State{})
	if err != nil {
		t.Fatal(err)
	}
	for _, read := range []func() (State, error){
		func() (State, error) { return Read(pid, asked) },
		func() (State, error) { return readStopped(t, pid, asked) },
	} {
		st, err := read()
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(st.MaskedPaths, []string{path("masked"), path("none")}) || !slices.Equal(st.ReadOnlyPaths, []string{path("ro"), path("none"), path("ro/none")}) || st.ReadOnlyRoot != self.ReadOnlyRoot {
			t.Errorf("paths: %+v", st)
		}
		if !slices.Equal(st.Namespaces, []string{"mnt", "uts"}) || !st.NoNewPrivileges || st.UID != 0 || st.Capabilities.Bounding != self.Capabilities.Bounding {
			t.Errorf("%+v", st)
		}
		if st.Seccomp.Mode != SeccompFilter || st.Seccomp.Filters != 1+max(self.Seccomp.Filters, 0) || !slices.Contains(st.Seccomp.SHA256, hash) || st.Seccomp.SHA256[0] != hash {
			t.Errorf("filters: %+v", st.Seccomp)
		}
		if !reflect.DeepEqual(st.Landlock, asked.Landlock) {
			t.Errorf("with the step's filter: %+v", st.Landlock)
		}
	}
	// Another filter than the step's: it has not come so far.
	other := asked
	other.Seccomp.SHA256 = []string{strings.Repeat("0", 64)}
	if st, err := Read(pid, other); err != nil || st.Landlock != nil {
		t.Errorf("with another filter: %+v, %v", st.Landlock, err)
	}
	// Where no hash is known none is read.
	other.Seccomp.SHA256 = nil
	if st, err := Read(pid, other); err != nil || st.Seccomp.SHA256 != nil {
		t.Errorf("without a hash: %+v, %v", st.Seccomp, err)
	}
	if hashFilters(pid) != nil {
		t.Error("filters of a process that is not stopped")
	}
}

// readStopped stops the process for this thread first.
func readStopped(t *testing.T, pid int, asked State) (State, error) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if e := ptrace(unix.PTRACE_SEIZE, pid, 0, 0); e != 0 {
		t.Fatal(e)
	}
	defer func() { _ = ptrace(unix.PTRACE_DETACH, pid, 0, 0) }()
	if e := ptrace(unix.PTRACE_INTERRUPT, pid, 0, 0); e != 0 || !stopped(pid) {
		t.Fatal(e)
	}
	return ReadStopped(pid, asked)
}
