// SPDX-License-Identifier: Apache-2.0

package oci_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/palisade-sec/palisade/internal/engine/oci"
	"github.com/palisade-sec/palisade/internal/registry/authority"
	"github.com/palisade-sec/palisade/internal/state"
	"github.com/palisade-sec/palisade/svirt"
)

// envAs makes the test binary palisade-oci: with the labels of the host, or with
// labels that cost nothing, since nobody else ever sees them.
const envAs = "PALISADE_TEST_OCI"

func TestMain(m *testing.M) {
	switch os.Getenv(envAs) {
	case "host":
		os.Exit(oci.Main(os.Args[1:], func(dir *state.Dir) svirt.Authority { return authority.Open(dir.Path()) }))
	case "none":
		os.Exit(oci.Main(os.Args[1:], func(*state.Dir) svirt.Authority { return &svirt.Registry{Store: &svirt.Memory{}} }))
	}
	os.Exit(m.Run())
}

// BenchmarkLabels is what labels cost a container that an engine starts: create,
// start and delete by one and the same wrapper, without a registry, with the
// registry's file and its lock, and with the daemon, in turns. The metrics are in
// milliseconds: the median of the whole without labels, what labels add to it and
// to create and start alone (the median of the differences of neighbours, and the
// difference of the best of each, which other load disturbs less), and the
// processor time that they add to the calls.
func BenchmarkLabels(b *testing.B) {
	h := newHost(b)
	bundle := h.bundle(b, "exit 0", nil)
	original, err := os.ReadFile(filepath.Join(bundle, "config.json"))
	if err != nil {
		b.Fatal(err)
	}
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	daemon := filepath.Join(h.work, "daemon")
	h.daemon(b, func() bool {
		_, err := os.Stat(filepath.Join(daemon, "daemon.address"))
		return err == nil
	}, "env", "PALISADE_STATE="+daemon, filepath.Join(h.bin, "palisade"), "daemon")
	life := func(as, dir, id string) (start, whole, cpu time.Duration) {
		if err := os.WriteFile(filepath.Join(bundle, "config.json"), original, 0o644); err != nil {
			b.Fatal(err)
		}
		begin := time.Now()
		for _, args := range [][]string{{"create", "--bundle", bundle, id}, {"start", id}, {"delete", "--force", id}} {
			cmd := exec.Command(self, append([]string{"--palisade-state", dir, "--root", h.work + "/runc"}, args...)...)
			cmd.Env = append(h.env, envAs+"="+as)
			if err := cmd.Run(); err != nil {
				b.Fatalf("%s: %v", args[0], err)
			}
			cpu += cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
			if args[0] == "start" {
				start = time.Since(begin)
			}
		}
		return start, time.Since(begin), cpu
	}
	ways := []struct{ name, as, dir string }{{"none", "none", h.work + "/none"}, {"file", "host", h.work + "/file"}, {"daemon", "host", daemon}}
	starts, wholes, cpus := make([][]time.Duration, len(ways)), make([][]time.Duration, len(ways)), make([][]time.Duration, len(ways))
	unix.Sync()
	for i := 0; b.Loop(); i++ {
		for j := range ways {
			w := (i + j) % len(ways)
			s, l, c := life(ways[w].as, ways[w].dir, fmt.Sprintf("b%d-%d", i, w))
			if i == 0 {
				continue // the first finds no compiled filter
			}
			starts[w], wholes[w] = append(starts[w], s), append(wholes[w], l)
			cpus[w] = append(cpus[w], c)
		}
	}
	if len(starts[0]) == 0 {
		return // b.Loop's first, single iteration
	}
	b.ReportMetric(0, "ns/op")
	// Neighbours in time are compared, since what else runs changes.
	added := func(of [][]time.Duration, w int) float64 {
		d := make([]time.Duration, len(of[w]))
		for i := range d {
			d[i] = of[w][i] - of[0][i]
		}
		return median(d)
	}
	b.ReportMetric(median(wholes[0]), "none-ms")
	for w := 1; w < len(ways); w++ {
		b.ReportMetric(added(starts, w), ways[w].name+"-start-added-ms")
		b.ReportMetric(added(wholes, w), ways[w].name+"-added-ms")
		b.ReportMetric(best(starts[w])-best(starts[0]), ways[w].name+"-start-best-added-ms")
		b.ReportMetric(added(cpus, w), ways[w].name+"-cpu-added-ms")
		b.ReportMetric(median(wholes[w])/median(wholes[0]), ways[w].name+"-ratio")
	}
}

func best(d []time.Duration) float64 { return float64(slices.Min(d)) / float64(time.Millisecond) }

func median(d []time.Duration) float64 {
	s := slices.Sorted(slices.Values(d))
	return float64(s[len(s)/2]) / float64(time.Millisecond)
}
