// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/policy"
	"github.com/palisade-sec/palisade/seccomp"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

// TestExcept wants the conditions to hold for everything but the values, whatever
// the bits above the lower 32.
func TestExcept(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfNDistinct(rapid.Uint32(), 1, 4, rapid.ID[uint32]).Draw(t, "values")
		conditions := except(1, values...)
		if len(conditions) > 32*len(values) {
			t.Fatalf("%d conditions for %d values", len(conditions), len(values))
		}
		arg := rapid.Uint64().Draw(t, "argument")
		if rapid.Bool().Draw(t, "near") {
			v := rapid.SampledFrom(values).Draw(t, "value")
			arg = arg<<32 | uint64(v)
			if rapid.Bool().Draw(t, "off by a bit") {
				arg ^= 1 << rapid.IntRange(0, 31).Draw(t, "bit")
			}
		}
		holds := slices.ContainsFunc(conditions, func(c seccomp.LinuxSeccompArg) bool { return arg&c.Value == c.ValueTwo })
		if want := !slices.Contains(values, uint32(arg)); holds != want {
			t.Fatalf("argument %#x: allowed %v, want %v", arg, holds, want)
		}
	})
}

// TestUses compiles the built-in policies and asks their programs.
func TestUses(t *testing.T) {
	native, ok := syscalls.FromGo("amd64")
	if !ok {
		t.Fatal("no table")
	}
	version, err := syscalls.ParseVersion("6.12.0")
	if err != nil {
		t.Fatal(err)
	}
	const (
		yes, no = true, false
		high    = 1 << 32
	)
	tests := []struct {
		call            string
		args            [6]uint64
		plain, def, str bool
	}{
		{"pipe2", [6]uint64{0, 0}, yes, yes, yes},
		{"pipe2", [6]uint64{0, 0o2000000 | 0o4000 | 0o40000}, yes, yes, yes}, // O_CLOEXEC, O_NONBLOCK, O_DIRECT
		{"pipe2", [6]uint64{0, 0x80}, yes, no, no},
		{"pipe2", [6]uint64{0, 0o2000000 | 0x80}, yes, no, no},
		{"pipe2", [6]uint64{0, high | 0x80}, yes, no, no},
		{"ioctl", [6]uint64{0, 0x5401}, yes, yes, yes}, // TCGETS
		{"ioctl", [6]uint64{0, 0x5410}, yes, yes, yes}, // TIOCSPGRP
		{"ioctl", [6]uint64{0, 0x5413}, yes, yes, yes}, // TIOCGWINSZ
		{"ioctl", [6]uint64{0, 0x541b}, yes, yes, yes}, // FIONREAD
		{"ioctl", [6]uint64{0, 0x541d}, yes, yes, yes},
		{"ioctl", [6]uint64{0, 0x5412}, yes, no, no},
		{"ioctl", [6]uint64{0, 0x541c}, yes, no, no},
		{"ioctl", [6]uint64{0, high | 0x5412}, yes, no, no},
		{"ioctl", [6]uint64{0, 0xffffffff0000541c}, yes, no, no},
		{"sendto", [6]uint64{0, 0, 0, 0x4000}, yes, yes, yes}, // MSG_NOSIGNAL
		{"sendto", [6]uint64{0, 0, 0, 1}, yes, yes, no},
		{"recvfrom", [6]uint64{0, 0, 0, 0x40}, yes, yes, yes},
		{"recvfrom", [6]uint64{0, 0, 0, 0x41}, yes, yes, no},
		{"sendmsg", [6]uint64{0, 0, 1}, yes, yes, no},
		{"sendmsg", [6]uint64{0, 0, 0, 1}, yes, yes, yes},
		{"recvmsg", [6]uint64{0, 0, high | 1}, yes, yes, no},
		{"sendmmsg", [6]uint64{0, 0, 1, 1}, yes, yes, no},
		{"recvmmsg", [6]uint64{0, 0, 1, 1}, yes, yes, no},
		{"recvmmsg", [6]uint64{0, 0, 1, 2}, yes, yes, yes},
		{"write", [6]uint64{1, 1, 1, 1}, yes, yes, yes},
	}
	none := policy.Default()
	none.Syscalls.DenyUses = nil
	allowing := policy.Default()
	allowing.Syscalls.Allow = []string{"ioctl"}
	for _, tt := range []struct {
		policy policy.Policy
		want   func(i int) bool
	}{
		{none, func(i int) bool { return tests[i].plain }},
		{policy.Default(), func(i int) bool { return tests[i].def }},
		{allowing, func(i int) bool { return tests[i].def }},
		{policy.Strict(), func(i int) bool { return tests[i].str }},
	} {
		l, err := syscallFilter(testTarget(), tt.policy, tt.policy.Capabilities)
		if err != nil {
			t.Fatal(err)
		}
		raw, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		profile, err := seccomp.Parse("test", raw)
		if err != nil {
			t.Fatal(err)
		}
		f, err := profile.Resolve(seccomp.Host{Native: native, Kernel: version})
		if err != nil {
			t.Fatal(err)
		}
		program, err := f.Compile(seccomp.Options{})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.SelfTest(seccomp.Compat, program.Instructions); err != nil {
			t.Error(err)
		}
		t.Logf("%s, uses %v: %d instructions", tt.policy.Name, tt.policy.Syscalls.DenyUses, len(program.Instructions))
		for i, c := range tests {
			nr, ok := native.Number(c.call)
			if !ok {
				t.Fatalf("no number of %s", c.call)
			}
			d := &cbpf.Data{Nr: nr, Arch: native.Audit(), Args: c.args}
			got := program.Instructions.Eval(d, false)
			if allowed := got == cbpf.Allow; allowed != tt.want(i) {
				t.Errorf("%s, uses %v: %s %#x: %v, want allowed %v", tt.policy.Name, tt.policy.Syscalls.DenyUses, c.call, c.args, got, tt.want(i))
			}
		}
	}
	bad := policy.Default()
	bad.Syscalls.DenyUses = []string{"sneezing"}
	if _, err := syscallFilter(testTarget(), bad, bad.Capabilities); !errors.Is(err, ErrUse) {
		t.Errorf("an unknown use: %v", err)
	}
	if err := bad.Validate(); err == nil {
		t.Error("an unknown use is valid")
	}
}

// TestUseOfConditionalCall refuses rather than loosen a call that has conditions.
func TestUseOfConditionalCall(t *testing.T) {
	l := &seccomp.LinuxSeccomp{Syscalls: []seccomp.LinuxSyscall{{
		Names: []string{"ioctl"}, Action: "SCMP_ACT_ALLOW",
		Args: []seccomp.LinuxSeccompArg{{Index: 1, Value: 0x5401, Op: "SCMP_CMP_EQ"}},
	}}}
	if err := refuseUses(l, []string{policy.UseTerminalInput}); !errors.Is(err, ErrUse) {
		t.Errorf("got %v", err)
	}
	l = &seccomp.LinuxSeccomp{}
	if err := refuseUses(l, []string{policy.UseTerminalInput}); err != nil || len(l.Syscalls) != 0 {
		t.Errorf("a call that is not allowed: %v, %+v", err, l.Syscalls)
	}
}
