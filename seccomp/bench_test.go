// SPDX-License-Identifier: Apache-2.0

//go:build linux

package seccomp

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/cbpf"
	"github.com/palisade-sec/palisade/seccomp/install"
	"github.com/palisade-sec/palisade/seccomp/syscalls"
)

func compileText(tb testing.TB, text []byte, h Host, o Options) *Program {
	p, err := Parse("p", text)
	if err != nil {
		tb.Fatal(err)
	}
	f, err := p.Resolve(h)
	if err != nil {
		tb.Fatal(err)
	}
	prog, err := f.Compile(o)
	if err != nil {
		tb.Fatal(err)
	}
	return prog
}

// BenchmarkCompile goes from the profile's text to the filter, as a runtime that
// stays up would for every container.
func BenchmarkCompile(b *testing.B) {
	mix := Recorded()
	for _, tt := range []struct {
		name string
		host Host
		opt  Options
	}{
		{"docker/amd64+x86+x32", Host{Native: syscalls.X86_64, Archs: x86Family, Caps: dockerCaps}, Options{}},
		{"docker/amd64", Host{Native: syscalls.X86_64, Archs: x86Family[:1], Caps: dockerCaps}, Options{}},
		{"docker/amd64+x86+x32/mix", Host{Native: syscalls.X86_64, Archs: x86Family, Caps: dockerCaps}, Options{Weights: mix}},
		{"docker/amd64+x86+x32/strict", Host{Native: syscalls.X86_64, Archs: x86Family, Caps: dockerCaps}, Options{Mode: Strict}},
	} {
		b.Run(tt.name, func(b *testing.B) {
			b.ReportAllocs()
			var p *Program
			for b.Loop() {
				p = compileText(b, dockerJSON, tt.host, tt.opt)
			}
			b.ReportMetric(float64(len(p.Instructions)), "instructions")
			b.ReportMetric(p.Mean(nil), "mean-uniform")
			b.ReportMetric(p.Mean(mix.Counts[syscalls.X86_64]), "mean-mix")
		})
	}
}

// BenchmarkLibseccomp is the same work in libseccomp at both levels.
func BenchmarkLibseccomp(b *testing.B) {
	l := startLibseccomp(b)
	f, err := Docker().Resolve(Host{Native: syscalls.X86_64, Archs: x86Family, Caps: dockerCaps})
	if err != nil {
		b.Fatal(err)
	}
	mix := Recorded().Counts[syscalls.X86_64]
	for _, level := range []int{1, 2} {
		b.Run(fmt.Sprintf("docker/amd64+x86+x32/level%d", level), func(b *testing.B) {
			var insns cbpf.Program
			var ns int64
			best := int64(1) << 62
			for b.Loop() {
				insns, ns, _ = l.compile(f, level)
				best = min(best, ns)
			}
			p := Program{Instructions: insns, Native: syscalls.X86_64}
			b.ReportMetric(float64(best), "best-ns")
			b.ReportMetric(float64(len(insns)), "instructions")
			b.ReportMetric(p.Mean(nil), "mean-uniform")
			b.ReportMetric(p.Mean(mix), "mean-mix")
		})
	}
}

// large profiles, which must neither blow up nor be refused without saying why.
func largeProfile(kind string) string {
	var b strings.Builder
	b.WriteString(`{"defaultAction":"SCMP_ACT_ERRNO","syscalls":[`)
	switch kind {
	case "400 values":
		for i := range 400 {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"names":["ioctl"],"action":"SCMP_ACT_ALLOW","args":[{"index":1,"value":%d,"op":"SCMP_CMP_EQ"}]}`, i*7919%100000)
		}
	case "10000 rules":
		names := []string{"ioctl", "prctl", "fcntl", "socket", "personality", "clone", "mmap", "openat", "kill", "ptrace"}
		for i := range 10000 {
			if i > 0 {
				b.WriteByte(',')
			}
			fmt.Fprintf(&b, `{"names":[%q],"action":"SCMP_ACT_ALLOW","args":[{"index":%d,"value":%d,"op":"SCMP_CMP_EQ"}]}`, names[i%10], i/10%2, i*104729%1000003)
		}
	}
	b.WriteString(`]}`)
	return b.String()
}

// BenchmarkLarge prints time and memory of profiles far beyond real ones.
func BenchmarkLarge(b *testing.B) {
	h := Host{Native: syscalls.X86_64, Archs: x86Family[:1]}
	for _, kind := range []string{"400 values", "10000 rules"} {
		text := []byte(largeProfile(kind))
		b.Run(strings.ReplaceAll(kind, " ", "-"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				p, err := Parse("p", text)
				if err != nil {
					b.Fatal(err)
				}
				f, err := p.Resolve(h)
				if err != nil {
					b.Fatal(err)
				}
				if _, err := f.Compile(Options{}); err != nil && !strings.Contains(err.Error(), "kernel takes") {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("500-profiles", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			for i := range 500 {
				h := Host{Native: syscalls.X86_64, Archs: x86Family}
				if i%2 == 0 {
					h.Caps = dockerCaps
				}
				compileText(b, dockerJSON, h, Options{})
			}
		}
	})
}

// Large profiles compile in bounded time and memory, or are refused with the
// rules that cost most.
func TestLarge(t *testing.T) {
	for _, mode := range []Mode{Compat, Strict} {
		for _, kind := range []string{"400 values", "10000 rules"} {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			start := time.Now()
			p, err := Parse("p", []byte(largeProfile(kind)))
			if err != nil {
				t.Fatal(err)
			}
			f, err := p.Resolve(Host{Native: syscalls.X86_64, Archs: x86Family[:1]})
			if err != nil {
				t.Fatal(err)
			}
			prog, err := f.Compile(Options{Mode: mode})
			runtime.ReadMemStats(&after)
			t.Logf("%v, %s: %v, %d MiB allocated: %v", mode, kind, time.Since(start), (after.TotalAlloc-before.TotalAlloc)>>20, err)
			switch {
			case err != nil && kind == "400 values":
				t.Error(err)
			case err == nil && kind == "400 values":
				if _, err := f.SelfTest(mode, prog.Instructions); err != nil {
					t.Error(err)
				}
			case err == nil:
				t.Errorf("10000 rules fit into %d instructions", len(prog.Instructions))
			}
		}
	}
}

// BenchmarkInstall times the kernel's work for a filter, on a thread that ends
// with it: Docker's as compiled here, and as libseccomp and runc make it, taking
// turns. ratio is ours to runc's, of the medians.
func BenchmarkInstall(b *testing.B) {
	l := startLibseccomp(b)
	f, err := Docker().Resolve(Host{Native: syscalls.X86_64, Archs: x86Family, Caps: dockerCaps})
	if err != nil {
		b.Fatal(err)
	}
	prog, err := f.Compile(Options{})
	if err != nil {
		b.Fatal(err)
	}
	linear, _, _ := l.compile(f, 1)
	tree, _, _ := l.compile(f, 2)
	blobs := []struct {
		name string
		blob []byte
	}{{"ours", prog.Bytes()}, {"runc", l.withStub(f, tree).Encode(false)}, {"level1", linear.Encode(false)}, {"level2", tree.Encode(false)}}
	best := make([]time.Duration, len(blobs))
	times := make([][]time.Duration, len(blobs))
	for b.Loop() {
		for i := range blobs {
			done := make(chan time.Duration)
			go func() {
				runtime.LockOSThread()
				if err := install.NoNewPrivs(); err != nil {
					b.Error(err)
				}
				start := time.Now()
				if _, err := install.Load(blobs[i].blob, install.SpecAllow); err != nil {
					b.Error(err)
				}
				done <- time.Since(start)
			}()
			d := <-done
			times[i] = append(times[i], d)
			if best[i] == 0 || d < best[i] {
				best[i] = d
			}
		}
	}
	for i := range blobs {
		slices.Sort(times[i])
		b.ReportMetric(float64(times[i][len(times[i])/2].Nanoseconds()), blobs[i].name+"-median-ns")
		b.ReportMetric(float64(best[i].Nanoseconds()), blobs[i].name+"-best-ns")
	}
	b.ReportMetric(float64(times[0][len(times[0])/2])/float64(times[1][len(times[1])/2]), "ratio")
}

// withStub puts runc's ENOSYS stub for the x86 family in front of a filter.
func (l *libseccomp) withStub(f *Filter, p cbpf.Program) cbpf.Program {
	last := map[syscalls.Arch]uint32{}
	for _, a := range x86Family {
		for _, r := range f.Rules {
			for _, n := range r.Names {
				if nr, ok := l.number(a, n.Text); ok && nr > 0 {
					last[a] = max(last[a], uint32(nr))
				}
			}
		}
	}
	stub := cbpf.Program{
		{Op: cbpf.LoadAbs, K: cbpf.OffsetArch},
		{Op: cbpf.JumpEq, K: syscalls.X86_64.Audit(), JT: 2},
		{Op: cbpf.JumpEq, K: syscalls.X86.Audit(), JT: 6},
		{Op: cbpf.Jump, K: 8},
		{Op: cbpf.LoadAbs, K: cbpf.OffsetNr},
		{Op: cbpf.JumpSet, K: syscalls.X32Bit, JT: 1},
		{Op: cbpf.JumpGt, K: last[syscalls.X86_64], JT: 4, JF: 1},
		{Op: cbpf.JumpGt, K: last[syscalls.X32], JT: 3},
		{Op: cbpf.Jump, K: 3},
		{Op: cbpf.LoadAbs, K: cbpf.OffsetNr},
		{Op: cbpf.JumpGt, K: last[syscalls.X86], JF: 1},
		{Op: cbpf.Return, K: uint32(cbpf.Errno(38))},
	}
	return append(stub, p...)
}
