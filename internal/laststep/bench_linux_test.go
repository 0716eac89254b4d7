// SPDX-License-Identifier: Apache-2.0

package laststep_test

import (
	"os"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/handover"
	"github.com/palisade-sec/palisade/internal/laststep"
)

// BenchmarkStep starts a small program through the step and without it, in turns:
// with nothing to do, with a domain, and with filters; how long the kernel takes to
// install those depends on their instructions. The metrics are medians in
// microseconds.
func BenchmarkStep(b *testing.B) {
	box := busybox(b)
	program, err := handover.Program("")
	if err != nil {
		b.Fatal(err)
	}
	defer program.Close()
	calls := map[uint32]uint32{}
	for i := range uint32(31) {
		calls[1000+i] = kill
	}
	domain := &laststep.Landlock{HandledFS: llReadDir, Paths: []laststep.PathRule{{Access: llReadDir, Path: "/"}}}
	for name, c := range map[string]*laststep.Config{
		"nothing":           {},
		"domain_and_limits": {NoNewPrivileges: true, Capabilities: &laststep.Capabilities{}, Landlock: domain},
		"two_filters_of_64": filtered(filter(allow, calls), filter(allow, calls)),
	} {
		b.Run(name, func(b *testing.B) {
			config, err := handover.Config(c, "")
			if err != nil {
				b.Fatal(err)
			}
			defer config.Close()
			run := func(path string, args ...string) time.Duration {
				files := []uintptr{0, 1, 2, program.Fd(), config.Fd()}
				start := time.Now()
				pid, err := syscall.ForkExec(path, args, &syscall.ProcAttr{Files: files, Env: os.Environ()})
				if err != nil {
					b.Fatal(err)
				}
				var ws syscall.WaitStatus
				if _, err := syscall.Wait4(pid, &ws, 0, nil); err != nil || ws != 0 {
					b.Fatal(ws, err)
				}
				return time.Since(start)
			}
			var with, without []time.Duration
			for b.Loop() {
				without = append(without, run(box, "true"))
				with = append(with, run(handover.Path(3), handover.Path(3), box, "true"))
			}
			b.ReportMetric(us(with), "with-us")
			b.ReportMetric(us(without), "without-us")
			b.ReportMetric(us(with)-us(without), "step-us")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func us(d []time.Duration) float64 {
	slices.Sort(d)
	return float64(d[len(d)/2]) / float64(time.Microsecond)
}
