// SPDX-License-Identifier: Apache-2.0

//go:build linux

package securityfs

import (
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/apparmor/compile"
	"github.com/palisade-sec/palisade/apparmor/decide"
	"github.com/palisade-sec/palisade/apparmor/dfa"
	"github.com/palisade-sec/palisade/internal/vmtest"
)

// newerSuite is the release of Debian whose kernel is the newest that can be had.
const newerSuite = "trixie-backports"

// newerTexts are profiles of the classes that only newer kernels mediate.
var newerTexts = []string{
	"profile n01 { userns, deny io_uring override_creds, io_uring sqpoll label=n0*, mqueue (create,read) type=posix /q*, mqueue write type=sysv 12, }",
	"profile n02 { unix (create,bind,listen,getattr,setattr,getopt,setopt,shutdown), unix (send,receive,connect,accept) type=stream peer=(label=n02), deny unix type=dgram addr=@x*, audit unix (connect,send) peer=(addr=@y/**), }",
	"profile n03 { network inet stream, network (connect,send,receive) inet stream peer=(ip=10.1.2.3 port=80), network (bind) inet6 dgram ip=::1 port=53, deny network inet peer=(ip=192.168.0.1), }",
	"profile n04 { dbus send bus=system path=/a/** interface=b.c member=d* peer=(name=e label=f), dbus bind bus=session name=g.*, deny dbus eavesdrop bus=session, }",
	"profile n05 { all, deny userns, deny network inet6, }",
	"profile n06 { priority=2 deny /a/** w, priority=5 /a/b/** rw, /** r, priority=1 /bin/* px, signal, mount, }",
}

// TestKernelNewer loads profiles of every class in both formats into the newest
// kernel of Debian, compares what it holds and decides with what was compiled, and
// tries real operations.
func TestKernelNewer(t *testing.T) {
	n := 3000
	if s := os.Getenv("PALISADE_DECISIONS"); s != "" {
		n, _ = strconv.Atoi(s)
	}
	vmtest.Run(t, vmtest.Config{LSM: "apparmor", Suite: newerSuite, Env: []string{"PALISADE_DECISIONS=" + strconv.Itoa(n)}}, func(t *testing.T) {
		var fs FS
		f, err := fs.Features()
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{"policy/permstable32_version/0x000003", "policy/diff-encode", "network_v9/af_unix", "namespaces/mask/userns_create", "io_uring"} {
			if !f.Has(want) {
				t.Errorf("the kernel has no %s; its features are\n%s", want, f)
			}
		}
		for _, format := range []compile.Format{compile.FormatV7, compile.FormatPermstable} {
			name := map[compile.Format]string{compile.FormatV7: "v7", compile.FormatPermstable: "permstable"}[format]
			t.Run(name, func(t *testing.T) {
				var all []*blob.Profile
				for _, text := range append(append([]string{}, decisionTexts...), newerTexts...) {
					p := compileFor(t, f, compile.Options{Format: format, Level: compile.Level4}, text)
					b, err := p.Encode()
					if err != nil {
						t.Fatal(err)
					}
					if err := fs.Replace(b); err != nil {
						t.Errorf("%s: %v", text, err)
						continue
					}
					all = append(all, p.Blobs()...)
					raw, err := fs.RawData(decide.FullName(p.Blobs()[0]))
					if err != nil || string(raw) != string(b) {
						t.Errorf("%s: raw data of %d bytes, loaded were %d: %v", text, len(raw), len(b), err)
					}
				}
				newerDecisions(t, fs, all, n, format)
				testStack(t, fs, f, compile.Options{Format: format, Level: compile.Level4})
				testOperations(t, fs, f, compile.Options{Format: format, Level: compile.Level4})
			})
		}
	})
}

func newerDecisions(t *testing.T, fs FS, all []*blob.Profile, n int, format compile.Format) {
	q, err := fs.Query()
	if err != nil {
		t.Fatal(err)
	}
	defer q.Close()
	r := rand.New(rand.NewPCG(1, 7))
	wrong, allowed := 0, 0
	classes := map[byte]int{}
	unpacked := map[*blob.Automaton]*dfa.DFA{}
	for i := 0; i < n && wrong < 20; i++ {
		p := all[i%len(all)]
		label := decide.FullName(p)
		query := randomQuery(r, p, unpacked)
		if i%2 == 0 {
			query[0] = newerClasses[r.IntN(len(newerClasses))]
		}
		got, err := q.Ask(label, query)
		if err != nil {
			t.Fatalf("%s %q: %v", label, query, err)
		}
		d := decide.Query([]*blob.Profile{p}, query)
		classes[query[0]]++
		if d.Allow != 0 {
			allowed++
		}
		want := Access{d.Allow, d.Deny, d.Audit, d.Quiet}
		if format == compile.FormatV7 && query[0] != 2 && reaches(p.PolicyDB, query) {
			// These kernels add the right to lock to what they read in the old format.
			want.Allow |= blob.MayLock
			if p.Audit != 0 {
				want.Audit |= blob.MayLock
			}
		}
		if got != want {
			wrong++
			t.Errorf("%s %q: kernel %08x, offline %08x", label, query, got, want)
		}
	}
	t.Logf("%d decisions on %d profiles, %d allow something, by class %v; %d differ", n, len(all), allowed, classes, wrong)
}

// reaches tells whether an automaton knows the query at all.
func reaches(a *blob.Automaton, query []byte) bool {
	s := uint32(1)
	for _, c := range query {
		s = a.Table.Step(s, int(c))
	}
	return s != dfa.Trap
}

var newerClasses = []byte{14, 15, 17, 18, 21, 22, 30, 32}
