// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/internal/debian"
)

// containerProfile is what container engines load: no rule of it names anything
// outside of /proc, /sys and the peers.
func containerProfile(tb testing.TB) string {
	tb.Helper()
	text, err := os.ReadFile("../testdata/docker-default")
	if err != nil {
		tb.Fatal(err)
	}
	return string(text)
}

func textToBlob(t testing.TB, text string, o Options, env apparmor.Env) []byte {
	file, diags := apparmor.Parse("bench", []byte(text))
	if diags.HasErrors() {
		t.Fatal(diags.Err())
	}
	env.Kernel, env.ABI, env.SkipExecCheck = o.Kernel, o.Kernel, true
	policy, diags := apparmor.Resolve(file, env)
	if diags.HasErrors() {
		t.Fatal(diags.Err())
	}
	out, diags := New(o).Compile(policy)
	if diags.HasErrors() {
		t.Fatal(diags.Err())
	}
	b, err := out.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// cpu measures the processor time of the whole process, which is what a loaded
// machine leaves comparable.
func cpu(b *testing.B) func() {
	start := processTime(b)
	return func() {
		b.ReportMetric(float64((processTime(b)-start).Microseconds())/1000/float64(b.N), "cpu-ms/op")
	}
}

func processTime(b *testing.B) time.Duration {
	var r syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &r); err != nil {
		b.Fatal(err)
	}
	return time.Duration(r.Utime.Nano() + r.Stime.Nano())
}

// BenchmarkContainerProfile is text to binary policy.
func BenchmarkContainerProfile(b *testing.B) {
	full := strings.Replace(strings.Replace(containerProfile(b), "@{PROC}=/proc/", "include <tunables/global>", 1),
		"  network,\n", "  include <abstractions/base>\n  network,\n", 1)
	for _, bb := range []struct{ name, text string }{{"bare", containerProfile(b)}, {"full", full}} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			defer cpu(b)()
			for b.Loop() {
				textToBlob(b, bb.text, Options{Kernel: Portable()}, apparmor.Env{})
			}
		})
	}
}

// BenchmarkDebianProfiles compiles all profiles of Debian's packages in one
// process.
func BenchmarkDebianProfiles(b *testing.B) {
	base, files := debian.Profiles(b)
	etc := filepath.Join(base, "etc/apparmor.d")
	env := apparmor.Env{FS: os.DirFS("/"), Search: []string{etc}, Dir: etc, Kernel: Portable(), ABI: Portable(), SkipExecCheck: true}
	defer cpu(b)()
	for b.Loop() {
		c := New(Options{Kernel: Portable()})
		bytes := 0
		for _, name := range files {
			text, err := os.ReadFile(name)
			if err != nil {
				b.Fatal(err)
			}
			file, diags := apparmor.Parse(name, text)
			if diags.HasErrors() {
				b.Fatal(diags.Err())
			}
			policy, diags := apparmor.Resolve(file, env)
			if diags.HasErrors() {
				b.Fatal(diags.Err())
			}
			out, diags := c.Compile(policy)
			if diags.HasErrors() {
				b.Fatal(diags.Err())
			}
			p, err := blob.Encode(out.Blobs()...)
			if err != nil {
				b.Fatal(err)
			}
			bytes += len(p)
		}
		b.ReportMetric(float64(bytes)/1e6, "MB-policy")
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.Sys)/(1<<20), "MiB-process")
}
