// SPDX-License-Identifier: Apache-2.0

package probe

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/caps"
	"github.com/palisade-sec/palisade/internal/await"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 3 && os.Args[1] == serveArgs[0] && os.Args[2] == serveArgs[1] {
		os.Exit(Serve(os.Args[3:], os.Stdin, os.Stdout))
	}
	if len(os.Args) > 1 && os.Args[1] == "probe-as-container" {
		os.Exit(containerMain())
	}
	if len(os.Args) == 3 && os.Args[1] == "probe-as-engine" {
		os.Exit(engineMain(os.Args[2]))
	}
	os.Exit(m.Run())
}

const (
	retErrno       = 0x00050000
	retKillProcess = 0x80000000
	flagTSync      = 1
)

// refuse puts a filter over the whole worker.
func refuse(w *world, nr uintptr, action uint32) attempt {
	if _, e := onThread(func() (uintptr, unix.Errno) {
		prog := filter(nr, action)
		if _, _, e := unix.RawSyscall6(unix.SYS_PRCTL, unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0); e != 0 {
			return 0, e
		}
		p := unix.SockFprog{Len: uint16(len(prog)), Filter: &prog[0]}
		_, _, e := unix.RawSyscall(unix.SYS_SECCOMP, 1, flagTSync, uintptr(unsafe.Pointer(&p)))
		return 0, e
	}); e != 0 {
		return notApplicable("no filter: " + e.Error())
	}
	w.seccomp = true
	return attempt{}
}

func init() {
	hidden = []spec{
		{name: "test-hang", try: func(*world) attempt {
			for { // not select {}: with nothing else to do, that is a deadlock
				_ = unix.Pause()
			}
		}},
		{name: "test-crash", try: func(*world) attempt { panic("crash") }},
		{name: "test-fine", try: func(*world) attempt { return open("") }},
		{name: "test-leave", try: func(*world) attempt {
			// A probe that is killed between making and removing its file.
			name := scratchName("/tmp", "left")
			_ = os.WriteFile(name, nil, 0o600)
			// The test has no other way to learn that this was reached.
			_ = os.WriteFile(filepath.Join(leaveFolder(os.Getppid()), filepath.Base(name)), nil, 0o600)
			for {
				_ = unix.Pause()
			}
		}},
		{name: "test-kill", own: true, try: func(w *world) attempt {
			if a := refuse(w, unix.SYS_ACCT, retKillProcess); a.outcome != "" {
				return a
			}
			return w.do(call{nr: unix.SYS_ACCT})
		}},
		{name: "test-eperm", own: true, try: func(w *world) attempt {
			if a := refuse(w, unix.SYS_ACCT, retErrno|uint32(unix.EPERM)); a.outcome != "" {
				return a
			}
			return w.do(call{nr: unix.SYS_ACCT, anyOf: caps.Of(caps.SysPacct)})
		}},
		{name: "test-enosys", own: true, try: func(w *world) attempt {
			if a := refuse(w, unix.SYS_ACCT, retErrno|uint32(unix.ENOSYS)); a.outcome != "" {
				return a
			}
			return w.do(call{nr: unix.SYS_ACCT})
		}},
		{name: "test-missing-call", own: true, try: func(w *world) attempt {
			// The filter is there and is not what answers.
			if a := refuse(w, unix.SYS_ACCT, retErrno|uint32(unix.EPERM)); a.outcome != "" {
				return a
			}
			return w.do(call{nr: 100000})
		}},
		{name: "test-other-eperm", own: true, try: func(w *world) attempt {
			if a := refuse(w, unix.SYS_ACCT, retErrno|uint32(unix.EPERM)); a.outcome != "" {
				return a
			}
			// Refused by the kernel itself: nobody signals what is not there,
			// and no capability would help.
			return w.do(call{nr: unix.SYS_SETPGID, args: [6]uintptr{1, 1}})
		}},
	}
}

// leaveFolder is where test-leave notes what it made, by the PID of the test.
func leaveFolder(pid int) string {
	return filepath.Join(os.TempDir(), "palisade-probe-test-leave-"+strconv.Itoa(pid))
}

// TestHang: a probe without an answer is given up, and the run goes on. On a busy
// machine the other one may need more than the first timeouts as well.
func TestHang(t *testing.T) {
	for timeout := 500 * time.Millisecond; ; timeout *= 2 {
		results, err := Run(await.Context(t), Options{Only: []string{"test-hang", "test-fine"}, Timeout: timeout})
		if err != nil {
			t.Fatal(err)
		}
		if len(results) != 2 || results[0].Outcome != NotApplicable || results[0].Errno != "ETIMEDOUT" || results[0].Note != "no answer in "+timeout.String() {
			t.Fatalf("%+v", results)
		}
		if results[1].Errno != "ETIMEDOUT" {
			if results[1].Outcome != Open {
				t.Errorf("%+v", results[1])
			}
			return
		}
	}
}

func TestWorkers(t *testing.T) {
	tests := []struct {
		name    string
		outcome Outcome
		errno   string
		layer   Layer
		note    string
	}{
		{"test-crash", NotApplicable, "", "", "the process ended"},
		{"test-fine", Open, "", "", ""},
		{"test-kill", Blocked, "", seccompLayer, "killed"},
		{"test-eperm", Blocked, "EPERM", seccompLayer, ""},
		{"test-enosys", Blocked, "ENOSYS", seccompLayer, ""},
		{"test-missing-call", NotApplicable, "ENOSYS", "", "does not have"},
		{"test-other-eperm", Blocked, "*", "", ""},
		// The run goes on after each of them.
		{"socket-inet", "*", "*", "*", ""},
	}
	var names []string
	for _, test := range tests {
		names = append(names, test.name)
	}
	results, err := Run(await.Context(t), Options{Only: names, Timeout: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if len(results) != len(tests) {
		t.Fatalf("%d results for %d probes", len(results), len(tests))
	}
	for i, test := range tests {
		got := results[i]
		if strings.HasPrefix(got.Note, "no filter") {
			t.Logf("%s: %s", test.name, got.Note)
			continue
		}
		if test.outcome != "*" && got.Outcome != test.outcome || test.errno != "*" && got.Errno != test.errno ||
			test.layer != "*" && got.Layer != test.layer || !strings.Contains(got.Note, test.note) {
			t.Errorf("%s: %+v, want %+v", test.name, got, test)
		}
	}
}

func TestNothingIsLeft(t *testing.T) {
	folder := leaveFolder(os.Getpid())
	if err := os.Mkdir(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(folder) })
	var made []os.DirEntry
	for timeout := 100 * time.Millisecond; len(made) == 0; timeout *= 2 {
		if _, err := Run(await.Context(t), Options{Only: []string{"test-leave"}, Timeout: timeout}); err != nil {
			t.Fatal(err)
		}
		var err error
		if made, err = os.ReadDir(folder); err != nil {
			t.Fatal(err)
		}
	}
	for _, m := range made {
		if _, err := os.Lstat(filepath.Join("/tmp", m.Name())); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("left behind: %s (%v)", m.Name(), err)
		}
	}
}

func TestRunEnds(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	if _, err := Run(ctx, Options{Only: []string{"test-hang"}, Timeout: time.Minute}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("error %v", err)
	}
	if _, err := Run(context.Background(), Options{Only: []string{"no-such-probe"}}); err == nil {
		t.Error("an unknown name is no error")
	}
}

func TestTable(t *testing.T) {
	if len(table) < 100 {
		t.Errorf("%d probes", len(table))
	}
	seen := map[string]bool{}
	groups := map[string]bool{}
	for _, p := range table {
		if seen[p.name] {
			t.Errorf("two probes are named %s", p.name)
		}
		seen[p.name] = true
		groups[p.group] = true
		if p.about == "" || p.try == nil || p.group == "" {
			t.Errorf("%s is incomplete", p.name)
		}
	}
	if len(groups) < 7 {
		t.Errorf("groups %v", groups)
	}
	for _, c := range measuredControls() {
		for name := range c.Docker {
			if !seen[name] {
				t.Errorf("%s: %s is recorded and no probe", c.Name, name)
			}
		}
	}
}

func TestRecord(t *testing.T) {
	if len(measuredControls()) < 2 {
		t.Fatalf("%d recordings", len(measuredControls()))
	}
	proven := 0
	for _, p := range table {
		if _, proves := controlOf(p.name); proves {
			proven++
		}
	}
	if proven < 80 {
		t.Errorf("only %d of %d probes were seen both blocked and open", proven, len(table))
	}
	// What Docker blocks, strict must not open.
	strictBlocks := strictClaims().Blocks
	for _, name := range defaultClaims().Blocks {
		if !slices.Contains(strictBlocks, name) {
			t.Errorf("%s is blocked by default and not by strict", name)
		}
	}
}

func TestParseClaims(t *testing.T) {
	tests := []struct {
		in     string
		policy string
		blocks int // -1 for any
		ok     bool
	}{
		{"", "none", 0, true},
		{"none", "none", 0, true},
		{" default\n", "default", -1, true},
		{"strict", "strict", -1, true},
		{"mount,umount", "given", 2, true},
		{`{"policy":"web","blocks":["mount"]}`, "web", 1, true},
		{`{"policy":"web","blocks":["mount"]} {}`, "", 0, false},
		{`{"policy":"web","bloks":["mount"]}`, "", 0, false},
		{`{"policy":"web"`, "", 0, false},
		{"mount,nonsense,other", "", 0, false},
		{strings.Repeat("mount,", 20000), "", 0, false},
	}
	for _, test := range tests {
		c, err := ParseClaims(test.in)
		if (err == nil) != test.ok {
			t.Errorf("%.40q: error %v", test.in, err)
			continue
		}
		if test.ok && (c.Policy != test.policy || test.blocks >= 0 && len(c.Blocks) != test.blocks) {
			t.Errorf("%.40q: %+v", test.in, c)
		}
	}
	if _, err := ParseClaims("mount,nonsense,other"); !strings.Contains(err.Error(), "nonsense") || !strings.Contains(err.Error(), "other") {
		t.Errorf("both names must be reported: %v", err)
	}
}

func TestParseMounts(t *testing.T) {
	list, err := parseMounts(strings.NewReader(`22 28 0:20 / /sys ro,nosuid shared:7 - sysfs sysfs rw
30 22 0:26 /a\040b /with\040space rw - tmpfs tmpfs ro,size=4k
`))
	if err != nil || len(list) != 2 {
		t.Fatalf("%+v, %v", list, err)
	}
	if m := list[1]; m.point != "/with space" || m.root != "/a b" || !m.has("ro") || !m.has("rw") || m.has("r") {
		t.Errorf("%+v", m)
	}
	w := &world{mounts: []mount{{point: "/"}, {point: "/proc"}, {point: "/proc/sys", options: "ro"}}}
	for path, want := range map[string]string{"/proc/sys/kernel": "/proc/sys", "/proc/sysrq": "/proc", "/x": "/"} {
		if m, _ := w.mountOf(path); m.point != want {
			t.Errorf("mountOf(%s) = %s", path, m.point)
		}
	}
}

func FuzzParseClaims(f *testing.F) {
	f.Add("default")
	f.Add("mount,umount")
	f.Add(`{"policy":"web","blocks":["mount"]}`)
	f.Fuzz(func(t *testing.T, text string) {
		c, err := ParseClaims(text)
		if err != nil {
			return
		}
		for _, name := range c.Blocks {
			if _, ok := byName(name); !ok {
				t.Fatalf("%q claims %q", text, name)
			}
		}
	})
}

func FuzzParseMounts(f *testing.F) {
	f.Add(`30 22 0:26 /a\040b /with\040space rw - tmpfs tmpfs ro,size=4k`)
	f.Fuzz(func(t *testing.T, text string) {
		list, err := parseMounts(strings.NewReader(text))
		if err != nil && list != nil {
			t.Fatal("half a table")
		}
		for _, m := range list {
			if len(m.point) > len(text) {
				t.Fatal("longer than the text")
			}
		}
	})
}
