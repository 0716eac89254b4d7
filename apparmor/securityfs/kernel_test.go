// SPDX-License-Identifier: Apache-2.0

//go:build linux

package securityfs

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/decide"
	"github.com/palisade-sec/palisade/apparmor/dfa"
	"github.com/palisade-sec/palisade/internal/vmtest"
)

// profiles of all rule classes, for decisions.
var decisionTexts = []string{
	"profile d01 { file, network, capability, }",
	"profile d02 { /a/** rw, deny /a/b/** w, /a/*.so mr, owner /home/*/** rwk, /bin/{sh,ls} ix, /usr/bin/* px, }",
	"profile d03 { /etc/[a-m]* r, /etc/[^a-m]* w, /proc/[0-9]*/{stat,status} r, deny /proc/sys/** wl, /x{,y,z{1,2}}/? rwlk, }",
	"profile d04 { /bin/a px -> t1, /bin/b cx -> c, /bin/c pix, /bin/d PUx -> t2, /bin/e ux, /bin/f Cx, profile c { /r r, } }",
	"profile d05 { link /a/** -> /b/**, link subset /c/* -> /d/*, /e/* l, deny link /a/x -> /b/y, audit link /l -> /m, }",
	"profile d06 { change_profile -> t1, change_profile /bin/x -> t2, change_profile unsafe /bin/y -> :ns:t3, change_profile -> &t4, }",
	"profile d07 { network inet stream, network inet6, deny network inet6 raw, audit network netlink, network unix dgram, }",
	"profile d08 { network, deny network packet, audit deny network bluetooth, }",
	"profile d09 { signal (send) set=(term, kill) peer=d08, signal (receive) peer=unconfined, deny signal set=(stop), audit signal set=rtmin+3 peer=/usr/**, }",
	"profile d10 { ptrace (trace) peer=d10, ptrace (readby, tracedby), deny ptrace read peer=/x/*, }",
	"profile d11 { mount, umount, pivot_root, }",
	"profile d12 { mount options=(ro,nosuid) /dev/* -> /mnt/**, mount fstype=(ext4,xfs) /a -> /b/, umount /mnt/**, pivot_root oldroot=/o/ /n/, }",
	"profile d13 { mount options=(rw,bind) /a/** -> /b/**, mount options in (ro,nodev,noexec) /c -> /d, remount options=ro /r, deny mount options=move, mount options=(rw,make-rprivate) -> /**, }",
	"profile d14 flags=(complain) { /a r, deny /b w, signal peer=x, mount fstype=tmpfs, }",
	"profile d15 flags=(audit) { /a rw, audit /b r, network inet, }",
	"profile d16 { audit /a/** rw, audit deny /a/c rw, deny /a/d rw, audit owner /a/e ix, audit deny mount, }",
	"profile d17 { /** rwlkmix, deny /{etc,usr}/** wl, deny @{x}/** rw, }",
	"profile d18 { ^hat1 { /h1 r, } ^hat2 { /h2/** rw, } /main r, signal, ptrace, }",
	"profile d19 /opt/{a,b}*/bin/** xattrs=(user.k=v*) { /opt/** r, \"/sp ace/**\" r, /esc\\*aped r, /oct\\101l r, }",
	"profile d20 { dbus send bus=system path=/a/** interface=b.c member=d* peer=(name=e label=f), dbus bind bus=session name=g.*, unix (send,receive) type=stream peer=(addr=@x*), userns, io_uring, mqueue r /q, }",
}

func compileFor(t *testing.T, f *apparmor.Features, o compile.Options, text string) *compile.Policy {
	t.Helper()
	file, diags := apparmor.Parse("profile", []byte("@{x}=/secret{1,2} /private\n"+text))
	if diags.HasErrors() {
		t.Fatalf("%s: %v", text, diags.Err())
	}
	policy, diags := apparmor.Resolve(file, apparmor.Env{Kernel: f, ABI: f})
	if diags.HasErrors() {
		t.Fatalf("%s: %v", text, diags.Err())
	}
	o.Kernel = f
	out, diags := compile.New(o).Compile(policy)
	if diags.HasErrors() {
		t.Fatalf("%s: %v", text, diags.Err())
	}
	return out
}

// TestKernelDecisions loads profiles of every rule class and compares the
// kernel's decisions with those made offline.
func TestKernelDecisions(t *testing.T) {
	n := 6000
	if s := os.Getenv("PALISADE_DECISIONS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	vmtest.Run(t, vmtest.Config{LSM: "apparmor", Env: []string{"PALISADE_DECISIONS=" + strconv.Itoa(n)}}, func(t *testing.T) {
		var fs FS
		f, err := fs.Features()
		if err != nil {
			t.Fatal(err)
		}
		var all []*blob.Profile
		for i, text := range decisionTexts {
			o := compile.Options{}
			if i%2 == 1 {
				o.Level = compile.Level4
			}
			p := compileFor(t, f, o, text)
			b, err := p.Encode()
			if err != nil {
				t.Fatal(err)
			}
			if err := fs.Replace(b); err != nil {
				t.Fatalf("%s: %v", text, err)
			}
			all = append(all, p.Blobs()...)
		}
		set := decide.NewSet(all...)
		q, err := fs.Query()
		if err != nil {
			t.Fatal(err)
		}
		defer q.Close()
		r := rand.New(rand.NewPCG(1, 7))
		// The kernel answers for stacks that exist; a thread about to enter one
		// makes it exist.
		stop, ready := make(chan struct{}), make(chan error)
		defer close(stop)
		partner := map[*blob.Profile]*blob.Profile{}
		for i, p := range all {
			o := all[(i*7+3)%len(all)]
			if o == p || p.Namespace != "" {
				continue
			}
			partner[p] = o
			go func() {
				runtime.LockOSThread()
				ready <- fs.ChangeOnExec(decide.FullName(p) + "//&" + decide.FullName(o))
				<-stop
			}()
			if err := <-ready; err != nil {
				t.Fatal(err)
			}
		}
		wrong, allowed := 0, 0
		classes := map[byte]int{}
		unpacked := map[*blob.Automaton]*dfa.DFA{}
		for i := 0; i < n && wrong < 20; i++ {
			p := all[i%len(all)]
			label := decide.FullName(p)
			stack := []*blob.Profile{p}
			if r.IntN(4) == 0 {
				if o := partner[p]; o != nil {
					stack = append(stack, o)
					label += "//&" + decide.FullName(o)
				}
			}
			query := randomQuery(r, p, unpacked)
			got, err := q.Ask(label, query)
			if err != nil {
				t.Fatalf("%s %q: %v", label, query, err)
			}
			d := decide.Query(stack, query)
			classes[query[0]]++
			if d.Allow != 0 {
				allowed++
			}
			if got != (Access{d.Allow, d.Deny, d.Audit, d.Quiet}) {
				wrong++
				t.Errorf("%s %q: kernel %08x, offline %08x", label, query, got, Access{d.Allow, d.Deny, d.Audit, d.Quiet})
			}
		}
		t.Logf("%d decisions on %d profiles, %d allow something, by class %v; %d differ", n, len(set.Names()), allowed, classes, wrong)
	})
}

var classBytes = []byte{2, 2, 2, 4, 7, 9, 10, 14, 15, 16, 17, 18, 22, 30, 32, 0, 1, 3, 21, 33, 255}

// randomQuery walks the profile's automata at random, and now and then off the
// way.
func randomQuery(r *rand.Rand, p *blob.Profile, unpacked map[*blob.Automaton]*dfa.DFA) []byte {
	query := []byte{classBytes[r.IntN(len(classBytes))]}
	a, s := p.PolicyDB, uint32(1)
	if query[0] == 2 {
		a = p.File
	} else if a != nil {
		s = a.Table.Step(1, int(query[0]))
	}
	if a == nil {
		return append(query, "/x"...)
	}
	d := unpacked[a]
	if d == nil {
		var err error
		if d, err = a.Table.Unpack(func(x, y uint32) uint32 { return x | y }); err != nil {
			return query
		}
		unpacked[a] = d
	}
	for range r.IntN(40) {
		c := byte(r.IntN(256))
		if edges := d.Edges(s); len(edges) > 0 && r.IntN(12) > 0 {
			if e := edges[r.IntN(len(edges))]; e.Sym < 256 && (e.To != 0 || r.IntN(4) == 0) {
				c = byte(e.Sym)
			}
		} else if r.IntN(2) == 0 {
			c = "/abx0\x00"[r.IntN(6)]
		}
		query = append(query, c)
		s = d.Next(s, int(c))
	}
	return query
}

// TestKernelLoad loads, lists, reads back, stacks, enforces and removes.
func TestKernelLoad(t *testing.T) {
	vmtest.Run(t, vmtest.Config{LSM: "apparmor"}, func(t *testing.T) {
		var fs FS
		f, err := fs.Features()
		if err != nil {
			t.Fatal(err)
		}
		if !f.Has("policy/versions/v7") {
			t.Errorf("features without versions: %s", f)
		}
		policy := compileFor(t, f, compile.Options{}, `
profile one { /** rmix, /tmp/ok w, deny /tmp/no rw, signal, profile kid { /k r, } }
profile two { /** rmix, /tmp/** rw, }
profile :space:three { /x r, }
`)
		writes, err := blob.Writes(policy.Blobs(), true)
		if err != nil || len(writes) != 2 {
			t.Fatalf("%d writes: %v", len(writes), err)
		}
		for _, b := range writes {
			if err := fs.Load(b); err != nil {
				t.Fatal(err)
			}
			if err := fs.Load(b); !errors.Is(err, ErrExists) {
				t.Errorf("loading again: %v", err)
			}
		}
		list, err := fs.Profiles()
		if err != nil {
			t.Fatal(err)
		}
		if s := fmt.Sprint(list); s != "[{:space:three enforce} {one enforce} {one//kid enforce} {two enforce}]" {
			t.Errorf("profiles %s", s)
		}
		for _, name := range []string{"one", "one//kid", ":space://three"} {
			raw, err := fs.RawData(name)
			if err != nil {
				t.Errorf("raw data of %s: %v", name, err)
				continue
			}
			if _, err := blob.Decode(raw); err != nil {
				t.Errorf("raw data of %s: %v", name, err)
			}
		}
		if ns, err := fs.Namespaces(""); err != nil || fmt.Sprint(ns) != "[space]" {
			t.Errorf("namespaces %v %v", ns, err)
		}
		if err := fs.CreateNamespace("other"); err != nil {
			t.Error(err)
		}
		if err := fs.RemoveNamespace("other"); err != nil {
			t.Error(err)
		}

		// Refusals say what the kernel found.
		broken := writes[1][:len(writes[1])-5]
		var le *LoadError
		if err := fs.Replace(broken); !errors.As(err, &le) || le.Info == "" {
			t.Errorf("broken policy: %v", err)
		} else {
			t.Log(err)
		}
		if err := fs.Remove("nobody"); !errors.Is(err, ErrNotLoaded) {
			t.Errorf("removing a stranger: %v", err)
		}

		// Enforcement: the test runs itself under a profile.
		for _, d := range []string{"/tmp/ok", "/tmp/no", "/tmp/else"} {
			if err := os.WriteFile(d, []byte("x"), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		for _, tt := range []struct{ label, want string }{
			{"one", "one ok=w no= else=r"},
			{"two", "two ok=rw no=rw else=rw"},
			{"one//&two", "one//&two ok=w no= else=r"},
		} {
			got := runUnder(t, fs, tt.label)
			if tt.label == "one//&two" {
				got = strings.Replace(got, "two//&one", "one//&two", 1)
			}
			if got != tt.want && got != strings.Replace(tt.want, "ok=w", "ok=rw", 1) {
				t.Errorf("under %s: %q, want %q", tt.label, got, tt.want)
			}
		}
		testStack(t, fs, f, compile.Options{})
		if err := fs.Remove("one"); err != nil {
			t.Error(err)
		}
		if list, _ := fs.Profiles(); len(list) != 2 {
			t.Errorf("after removal: %v", list)
		}
		if l, err := fs.LabelOf(0); err != nil || !l.Unconfined() {
			t.Errorf("own label %v %v", l, err)
		}
	})
}

func runUnder(t *testing.T, fs FS, label string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	type result struct {
		out []byte
		err error
	}
	done := make(chan result)
	go func() {
		// The thread keeps the attribute, so it ends with the goroutine.
		runtime.LockOSThread()
		if err := fs.ChangeOnExec(label); err != nil {
			done <- result{nil, err}
			return
		}
		cmd := exec.Command(self, "-test.run=^TestProbeChild$", "-test.v")
		cmd.Env = append(os.Environ(), "PALISADE_PROBE_CHILD=1")
		out, err := cmd.CombinedOutput()
		done <- result{out, err}
	}()
	r := <-done
	if r.err != nil {
		t.Fatalf("under %s: %v\n%s", label, r.err, r.out)
	}
	for line := range strings.Lines(string(r.out)) {
		if s, ok := strings.CutPrefix(line, "probe: "); ok {
			return strings.TrimSpace(s)
		}
	}
	return string(r.out)
}

// TestProbeChild is what runs under a profile in TestKernelLoad.
func TestProbeChild(t *testing.T) {
	if os.Getenv("PALISADE_PROBE_CHILD") != "1" {
		return
	}
	var fs FS
	l, err := fs.LabelOf(0)
	if err != nil {
		t.Fatal(err)
	}
	out := l.String()
	for _, name := range []string{"ok", "no", "else"} {
		out += " " + name + "="
		p := filepath.Join("/tmp", name)
		if f, err := os.Open(p); err == nil {
			out += "r"
			f.Close()
		}
		if f, err := os.OpenFile(p, os.O_WRONLY, 0); err == nil {
			out += "w"
			f.Close()
		}
	}
	fmt.Println("probe: " + out)
}
