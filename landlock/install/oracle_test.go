// SPDX-License-Identifier: Apache-2.0

//go:build linux

package install

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"testing"

	other "github.com/landlock-lsm/go-landlock/landlock"
	ll "github.com/landlock-lsm/go-landlock/landlock/syscall"
	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/landlock"
)

// TestConfirmTable compares the table of rights with go-landlock's, which ends at ABI 9.
func TestConfirmTable(t *testing.T) {
	for i, theirs := range []other.Config{other.V1, other.V2, other.V3, other.V4, other.V5, other.V6, other.V7, other.V8, other.V9} {
		abi := i + 1
		ours := other.MustConfig(other.AccessFSSet(landlock.FSAt(abi)), other.AccessNetSet(landlock.NetAt(abi)), other.ScopedSet(landlock.ScopeAt(abi)))
		if ours != theirs {
			t.Errorf("ABI %d: %s, theirs %s", abi, ours, theirs)
		}
	}
	for name, pair := range map[string][2]uint64{
		"execute": {uint64(landlock.Execute), ll.AccessFSExecute}, "write_file": {uint64(landlock.WriteFile), ll.AccessFSWriteFile},
		"read_file": {uint64(landlock.ReadFile), ll.AccessFSReadFile}, "read_dir": {uint64(landlock.ReadDir), ll.AccessFSReadDir},
		"remove_dir": {uint64(landlock.RemoveDir), ll.AccessFSRemoveDir}, "remove_file": {uint64(landlock.RemoveFile), ll.AccessFSRemoveFile},
		"make_char": {uint64(landlock.MakeChar), ll.AccessFSMakeChar}, "make_dir": {uint64(landlock.MakeDir), ll.AccessFSMakeDir},
		"make_reg": {uint64(landlock.MakeReg), ll.AccessFSMakeReg}, "make_sock": {uint64(landlock.MakeSock), ll.AccessFSMakeSock},
		"make_fifo": {uint64(landlock.MakeFifo), ll.AccessFSMakeFifo}, "make_block": {uint64(landlock.MakeBlock), ll.AccessFSMakeBlock},
		"make_sym": {uint64(landlock.MakeSym), ll.AccessFSMakeSym}, "refer": {uint64(landlock.Refer), ll.AccessFSRefer},
		"truncate": {uint64(landlock.Truncate), ll.AccessFSTruncate}, "ioctl_dev": {uint64(landlock.IoctlDev), ll.AccessFSIoctlDev},
		"resolve_unix": {uint64(landlock.ResolveUnix), ll.AccessFSResolveUnix},
		"bind_tcp":     {uint64(landlock.BindTCP), ll.AccessNetBindTCP}, "connect_tcp": {uint64(landlock.ConnectTCP), ll.AccessNetConnectTCP},
		"abstract_unix_socket": {uint64(landlock.AbstractUnixSocket), ll.ScopeAbstractUnixSocket}, "signal": {uint64(landlock.Signal), ll.ScopeSignal},
		"log_same_exec_off": {uint64(landlock.LogSameExecOff), ll.FlagRestrictSelfLogSameExecOff}, "log_new_exec_on": {uint64(landlock.LogNewExecOn), ll.FlagRestrictSelfLogNewExecOn},
		"log_subdomains_off": {uint64(landlock.LogSubdomainsOff), ll.FlagRestrictSelfLogSubdomainsOff}, "tsync": {uint64(landlock.TSync), ll.FlagRestrictSelfTSync},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s: %#x, theirs %#x", name, pair[0], pair[1])
		}
		found := false
		for _, r := range landlock.Rights() {
			_, short, _ := strings.Cut(r.Name, ".")
			found = found || short == name && r.Bit == pair[0]
		}
		if !found {
			t.Errorf("%s is not in the table", name)
		}
	}
}

const oracleVariable = "PALISADE_LANDLOCK_ORACLE"

type oracleSpec struct {
	Root  string
	Rules landlock.Ruleset
}

// oracleOps are operations that leave nothing behind, the same in both processes.
func oracleOps(tr tree) (ops []op) {
	for _, f := range append(append([]string{}, treeFiles...), treeDevs...) {
		p := tr.path(f)
		for _, q := range []landlock.OpenRequest{{Path: p, Read: true}, {Path: p, Write: true}, {Path: p, Read: true, Write: true}} {
			flags := map[[2]bool]int{{true, false}: unix.O_RDONLY, {false, true}: unix.O_WRONLY, {true, true}: unix.O_RDWR}[[2]bool{q.Read, q.Write}]
			ops = append(ops, op{"open", one(q), func() error { return closing(unix.Open(p, flags|unix.O_CLOEXEC, 0)) }, nil})
		}
	}
	for _, f := range treeFiles {
		p := tr.path(f)
		ops = append(ops, op{"truncate", one(landlock.TruncateRequest{Path: p}), func() error { return unix.Truncate(p, 0) }, nil})
	}
	for _, d := range treeDirs {
		p := tr.path(d)
		ops = append(ops, op{"list", one(landlock.OpenRequest{Path: p, Kind: landlock.Directory, Read: true}), func() error { return closing(unix.Open(p, unix.O_RDONLY|unix.O_CLOEXEC, 0)) }, nil})
	}
	for _, f := range freeNames {
		p := tr.path(f)
		made, gone := landlock.MakeRequest{Path: p, Kind: landlock.Fifo}, landlock.RemoveRequest{Path: p, Kind: landlock.Fifo}
		ops = append(ops, op{"make and remove", []landlock.Request{made, gone}, func() error {
			if err := unix.Mkfifo(p, 0o600); err != nil {
				return err
			}
			return unix.Unlink(p)
		}, nil})
	}
	for _, port := range ports {
		ops = append(ops, op{"connect", one(landlock.PortRequest{Access: landlock.ConnectTCP, Port: port}), func() error {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			defer unix.Close(fd)
			return unix.Connect(fd, &unix.SockaddrInet4{Port: int(port), Addr: [4]byte{127, 0, 0, 1}})
		}, nil})
	}
	return ops
}

// runOracle puts a rule set into force through go-landlock, and prints what each operation failed with.
func runOracle(raw string) error {
	var s oracleSpec
	if err := json.Unmarshal([]byte(raw), &s); err != nil {
		return err
	}
	// A network in which nothing listens. The first thread is the only one that asks.
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return err
	}
	var rules []other.Rule
	for _, p := range s.Rules.Paths {
		rules = append(rules, other.PathAccess(other.AccessFSSet(p.Access), p.Path))
	}
	for _, p := range s.Rules.Ports {
		if p.Access&landlock.BindTCP != 0 {
			rules = append(rules, other.BindTCP(p.Port))
		}
		if p.Access&landlock.ConnectTCP != 0 {
			rules = append(rules, other.ConnectTCP(p.Port))
		}
	}
	config := other.MustConfig(other.AccessFSSet(s.Rules.HandledFS), other.AccessNetSet(s.Rules.HandledNet), other.ScopedSet(s.Rules.Scoped))
	if err := config.Restrict(rules...); err != nil {
		return err
	}
	for _, o := range oracleOps(tree{root: s.Root}) {
		fmt.Println(denial(o.do()) + ".")
	}
	return nil
}

// TestConfirmGoLandlock puts random rule sets into force through go-landlock: the process
// is denied what the evaluator says.
func TestConfirmGoLandlock(t *testing.T) {
	abi := min(needKernel(t), 9) // go-landlock ends there
	tr := newTree(t)
	ops := oracleOps(tr)
	denied, total := 0, 0
	for seed := range uint64(scale(30)) {
		r := rand.New(rand.NewPCG(15, seed))
		rules := randomRuleset(r, tr, abi)
		raw, err := json.Marshal(oracleSpec{tr.root, rules})
		must(t, err)
		cmd := exec.Command("/proc/self/exe")
		cmd.Env, cmd.Stderr = []string{oracleVariable + "=" + string(raw)}, os.Stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("seed %d: %v\n%s", seed, err, rules)
		}
		got := strings.Fields(string(out))
		if len(got) != len(ops) {
			t.Fatalf("seed %d: %d answers to %d operations", seed, len(got), len(ops))
		}
		var d *landlock.Domain
		d, err = d.Enter(rules)
		must(t, err)
		for i, o := range ops {
			want := landlock.Decision{Allowed: true}
			for _, q := range o.requests {
				if want = d.Decide(q); !want.Allowed {
					break
				}
			}
			total++
			if !want.Allowed {
				denied++
			}
			if got[i] != want.Errno+"." {
				t.Errorf("seed %d: %s %+v: go-landlock's domain %q, evaluator %s\n%s", seed, o.name, o.requests, got[i], want.Reason(), rules)
			}
			if o.name == "make and remove" && got[i] == "EACCES." {
				p := o.requests[0].(landlock.MakeRequest).Path
				if err := os.Remove(p); err != nil && !os.IsNotExist(err) {
					t.Fatal(err)
				}
			}
		}
	}
	t.Logf("%d operations, %d denied", total, denied)
	if denied == 0 || denied == total {
		t.Errorf("%d of %d denied: the test is blind", denied, total)
	}
}
