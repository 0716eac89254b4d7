// SPDX-License-Identifier: Apache-2.0

package compile

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/apparmor"
	"github.com/palisade-sec/palisade/apparmor/blob"
	"github.com/palisade-sec/palisade/internal/debian"
	"github.com/palisade-sec/palisade/internal/oracle"
)

// BenchmarkBesideParser compiles the same text for the same kernel here and with
// the installed apparmor_parser, in turns, and reports the processor time of both
// in milliseconds (the median) and their ratio. The parser's is that of its
// process; a process that does nothing takes about one.
func BenchmarkBesideParser(b *testing.B) {
	parser := oracle.Tool(b, "apparmor_parser", "apt: apparmor")
	base, files := debian.Profiles(b)
	etc := filepath.Join(base, "etc/apparmor.d")
	features := filepath.Join(b.TempDir(), "features")
	if err := os.WriteFile(features, []byte(Portable().String()), 0o600); err != nil {
		b.Fatal(err)
	}
	full := strings.Replace(strings.Replace(containerProfile(b), "@{PROC}=/proc/", "include <tunables/global>", 1),
		"  network,\n", "  include <abstractions/base>\n  network,\n", 1)
	for _, bb := range []struct {
		name  string
		stdin string // or the files
	}{{"bare", containerProfile(b)}, {"full", full}, {"debian", ""}} {
		b.Run(bb.name, func(b *testing.B) {
			env := apparmor.Env{FS: os.DirFS("/"), Search: []string{etc}, Dir: etc, Kernel: Portable(), ABI: Portable(), SkipExecCheck: true}
			args := []string{"-S", "-Q", "-K", "-T", "-q", "-b", etc, "-M", features}
			texts := map[string][]byte{}
			if bb.stdin != "" {
				texts["stdin"] = []byte(bb.stdin)
			} else {
				args = append(args, files...)
				for _, name := range files {
					text, err := os.ReadFile(name)
					if err != nil {
						b.Fatal(err)
					}
					texts[name] = text
				}
			}
			var ours, theirs []float64
			for b.Loop() {
				cmd := exec.Command(parser, args...)
				cmd.Stdin = strings.NewReader(bb.stdin)
				var stderr bytes.Buffer
				cmd.Stderr = &stderr
				if err := cmd.Run(); err != nil {
					b.Fatalf("%v\n%.2000s", err, &stderr)
				}
				theirs = append(theirs, ms(cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()))
				start := processTime(b)
				c := New(Options{Kernel: Portable()})
				for name, text := range texts {
					file, diags := apparmor.Parse(name, text)
					policy, more := apparmor.Resolve(file, env)
					if err := append(diags, more...).Err(); err != nil {
						b.Fatal(err)
					}
					out, diags := c.Compile(policy)
					if err := diags.Err(); err != nil {
						b.Fatal(err)
					}
					if _, err := blob.Encode(out.Blobs()...); err != nil {
						b.Fatal(err)
					}
				}
				ours = append(ours, ms(processTime(b)-start))
			}
			slices.Sort(ours)
			slices.Sort(theirs)
			o, p := ours[len(ours)/2], theirs[len(theirs)/2]
			b.ReportMetric(o, "palisade-ms")
			b.ReportMetric(p, "parser-ms")
			b.ReportMetric(p/o, "times")
		})
	}
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
