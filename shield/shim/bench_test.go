// SPDX-License-Identifier: Apache-2.0

//go:build linux && amd64

package shim

import (
	"crypto/rand"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/palisade-sec/palisade/internal/oracle"
	"github.com/palisade-sec/palisade/shield/sealfs"
	"github.com/palisade-sec/palisade/shield/volfile"
)

// The figures here are ratios of runs that follow each other at once, shielded and
// bare, the median of several rounds: absolute times say little on a busy machine.
// Each benchmark does its own fixed work, whatever b.N is.

func benchVolume(b *testing.B, dir string) (how, volume string, key []byte) {
	b.Helper()
	key = make([]byte, 32)
	_, _ = rand.Read(key) // never fails
	volume = filepath.Join(b.TempDir(), "volume")
	root, err := os.OpenRoot(dir)
	if err != nil {
		b.Fatal(err)
	}
	defer root.Close()
	err = volfile.Create(volume, false, func(f *volfile.File) error {
		_, err := sealfs.Seal(f, key, sealfs.Options{}, sealfs.Source{Entries: volfile.Directory(root), Facts: Facts})
		return err
	})
	if err != nil {
		b.Fatal(err)
	}
	name := filepath.Join(b.TempDir(), "key")
	if err := os.WriteFile(name, key, 0o600); err != nil {
		b.Fatal(err)
	}
	return volume + "|" + name, volume, key
}

func median(v []float64) float64 {
	v = append([]float64(nil), v...)
	for i := range v {
		for j := i; j > 0 && v[j] < v[j-1]; j-- {
			v[j], v[j-1] = v[j-1], v[j]
		}
	}
	return v[len(v)/2]
}

// helperNumber runs a program bare or shielded and gives the number it prints.
func helperNumber(b *testing.B, how string, args ...string) float64 {
	b.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if how != "" {
		self, err := os.Executable()
		if err != nil {
			b.Fatal(err)
		}
		cmd = exec.Command(self, args...)
		cmd.Env = append(os.Environ(), serveVariable+"="+how)
	}
	out, err := cmd.Output()
	if err != nil {
		b.Fatalf("%v: %v", args, err)
	}
	n, err := strconv.ParseFloat(strings.TrimSpace(string(out)), 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// BenchmarkCall is the cost of a rewritten call that the shim answers itself, and
// of one that it passes on, beside the kernel's alone.
func BenchmarkCall(b *testing.B) {
	prog := oracle.CHelper(b, filepath.Join("testdata", "bench.c"), "apt: gcc libc6-dev")
	var answered, passed, native []float64
	for range 3 {
		native = append(native, helperNumber(b, "", prog, "p", "1000000"))
		passed = append(passed, helperNumber(b, "passed", prog, "p", "1000000"))
		answered = append(answered, helperNumber(b, "passed", prog, "a", "3000000"))
	}
	b.ReportMetric(median(answered), "answered-ns")
	b.ReportMetric(median(passed), "passed-ns")
	b.ReportMetric(median(native), "native-ns")
	b.ReportMetric(0, "ns/op")
}

// BenchmarkRead4K is CPU time of random 4 KiB preads of a sealed file that is in
// the cache, as a ratio to the same of a plain file in the kernel's cache.
func BenchmarkRead4K(b *testing.B) {
	prog := oracle.CHelper(b, filepath.Join("testdata", "bench.c"), "apt: gcc libc6-dev")
	dir := b.TempDir()
	content := make([]byte, 32<<20)
	_, _ = rand.Read(content)
	if err := os.WriteFile(filepath.Join(dir, "f"), content, 0o644); err != nil {
		b.Fatal(err)
	}
	how, _, _ := benchVolume(b, dir)
	var warm []float64
	for range 5 {
		n := helperNumber(b, "", prog, "r", "200000", filepath.Join(dir, "f"))
		warm = append(warm, helperNumber(b, how, prog, "r", "200000", "/sealed/f")/n)
	}
	b.ReportMetric(median(warm), "sealed/native-cpu")
	b.ReportMetric(0, "ns/op")
}

var perSecond = regexp.MustCompile(`([0-9.]+) requests per second|Requests/sec:\s+([0-9.]+)`)

// load runs a load generator and gives requests a second.
func load(b *testing.B, args ...string) float64 {
	b.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	m := perSecond.FindAllStringSubmatch(string(out), -1)
	if err != nil || m == nil {
		b.Fatalf("%v: %v\n%s", args, err, out)
	}
	last := m[len(m)-1]
	n, err := strconv.ParseFloat(last[1]+last[2], 64)
	if err != nil {
		b.Fatal(err)
	}
	return n
}

// compare runs a server in several ways by turns and reports throughput and CPU
// time for each request, as ratios to the first way. A timed load makes as many
// requests as it can, any other always the same number.
func compare(b *testing.B, timed bool, ways []string, start func(way int, port int) *server, work func(port int) float64) {
	rate, cpu := make([][]float64, len(ways)), make([][]float64, len(ways))
	for range 5 {
		var r0, c0 float64
		for i := range ways {
			port := freePort(b)
			s := start(i, port)
			began := treeCPU(s.cmd.Process.Pid)
			r := work(port)
			c := treeCPU(s.cmd.Process.Pid) - began
			s.stop(b)
			if i == 0 {
				r0, c0 = r, c
				continue
			}
			rate[i] = append(rate[i], r/r0)
			if timed { // not the same number of requests
				c, c0 := c/r, c0/r0
				cpu[i] = append(cpu[i], c/c0)
			} else {
				cpu[i] = append(cpu[i], c/c0)
			}
		}
	}
	for i := 1; i < len(ways); i++ {
		b.ReportMetric(median(rate[i]), ways[i]+"/native-rate")
		b.ReportMetric(median(cpu[i]), ways[i]+"/native-cpu")
	}
	b.ReportMetric(0, "ns/op")
}

// treeCPU sums the CPU ticks of a process and its descendants.
func treeCPU(pid int) float64 {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	f := strings.Fields(after)
	sum := 0.0
	for _, i := range []int{11, 12, 13, 14} { // own and of children that ended
		n, _ := strconv.ParseFloat(f[i], 64)
		sum += n
	}
	threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, t := range threads {
		list, _ := os.ReadFile(t)
		for _, c := range strings.Fields(string(list)) {
			n, _ := strconv.Atoi(c)
			sum += treeCPU(n)
		}
	}
	return sum
}

func BenchmarkRedis(b *testing.B) {
	oracle.Tool(b, "redis-server", "apt: redis-server")
	bench := oracle.Tool(b, "redis-benchmark", "apt: redis-tools")
	compare(b, false, []string{"native", "passed"}, func(way, port int) *server {
		return serve(b, []string{"", "passed"}[way], port, redisAnswers, "redis-server", "--bind", loopback, "--port", fmt.Sprint(port), "--save", "", "--dir", b.TempDir())
	}, func(port int) float64 {
		return load(b, bench, "-h", loopback, "-p", fmt.Sprint(port), "-n", "150000", "-c", "30", "-q", "-t", "get")
	})
}

func BenchmarkRedisAOF(b *testing.B) {
	oracle.Tool(b, "redis-server", "apt: redis-server")
	bench := oracle.Tool(b, "redis-benchmark", "apt: redis-tools")
	compare(b, false, []string{"native", "sealed"}, func(way, port int) *server {
		how, dir := "", b.TempDir()
		if way == 1 {
			how, _, _ = benchVolume(b, dir)
			dir = "/sealed"
		}
		return serve(b, how, port, redisAnswers, "redis-server", "--bind", loopback, "--port", fmt.Sprint(port), "--save", "", "--appendonly", "yes", "--appendfsync", "everysec", "--dir", dir)
	}, func(port int) float64 {
		return load(b, bench, "-h", loopback, "-p", fmt.Sprint(port), "-n", "150000", "-c", "30", "-q", "-t", "set")
	})
}

func BenchmarkNginx(b *testing.B) {
	oracle.Tool(b, "nginx", "apt: nginx")
	wrk := oracle.Tool(b, "wrk", "apt: wrk")
	dir := b.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "f"), []byte(strings.Repeat("nginx", 4096/5)), 0o644); err != nil {
		b.Fatal(err)
	}
	how, _, _ := benchVolume(b, dir)
	compare(b, true, []string{"native", "passed", "sealed"}, func(way, port int) *server {
		return nginx(b, []string{"", "passed", how}[way], []string{dir, dir, "/sealed"}[way], port)
	}, func(port int) float64 {
		return load(b, wrk, "-t", "1", "-c", "16", "-d", "2s", fmt.Sprintf("http://%s:%d/f", loopback, port))
	})
}

// BenchmarkGocryptfs runs the same fio jobs on a sealed volume, on gocryptfs and on
// the plain file system.
func BenchmarkGocryptfs(b *testing.B) {
	fio := oracle.Tool(b, "fio", "apt: fio")
	gocryptfs := oracle.Tool(b, "gocryptfs", "apt: gocryptfs")
	plain, cipher, mount := b.TempDir(), b.TempDir(), b.TempDir()
	pass := filepath.Join(b.TempDir(), "pass")
	if err := os.WriteFile(pass, []byte("benchmark\n"), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, args := range [][]string{{"-init", "-q", "-scryptn", "10", "-passfile", pass, cipher}, {"-q", "-passfile", pass, cipher, mount}} {
		if out, err := exec.Command(gocryptfs, args...).CombinedOutput(); err != nil {
			b.Skipf("gocryptfs cannot be mounted here: %v %s", err, out)
		}
	}
	defer func() {
		_ = exec.Command("fusermount3", "-u", mount).Run()
		_ = exec.Command("fusermount", "-u", mount).Run()
	}()
	content := make([]byte, 64<<20)
	_, _ = rand.Read(content)
	for _, d := range []string{plain, mount} {
		if err := os.WriteFile(filepath.Join(d, "f"), content, 0o644); err != nil {
			b.Fatal(err)
		}
	}
	how, _, _ := benchVolume(b, plain)
	iops := regexp.MustCompile(`(?m)^3;.*`)
	job := func(how, dir, rw string) float64 {
		args := []string{fio, "--name=j", "--filename=" + dir + "/f", "--rw=" + rw, "--bs=4k", "--size=64m", "--runtime=3", "--time_based", "--ioengine=psync", "--thread", "--minimal"}
		cmd := exec.Command(args[0], args[1:]...)
		if how != "" {
			self, _ := os.Executable()
			cmd = exec.Command(self, args...)
			cmd.Env = append(os.Environ(), serveVariable+"="+how)
		}
		cmd.Dir = b.TempDir()
		out, err := cmd.Output()
		f := strings.Split(iops.FindString(string(out)), ";")
		field := 7 // read IOPS of fio's terse format 3
		if rw == "randwrite" {
			field = 48
		}
		if err != nil || len(f) <= field {
			b.Fatalf("fio: %v\n%s", err, out)
		}
		n, err := strconv.ParseFloat(f[field], 64)
		if err != nil {
			b.Fatal(err)
		}
		return n
	}
	for _, rw := range []string{"randread", "randwrite"} {
		var toGocryptfs, toPlain []float64
		for range 3 {
			n, g, s := job("", plain, rw), job("", mount, rw), job(how, "/sealed", rw)
			toGocryptfs = append(toGocryptfs, s/g)
			toPlain = append(toPlain, s/n)
			syscall.Sync() // what gocryptfs has not written back yet is not the next job's
		}
		b.ReportMetric(median(toGocryptfs), rw+"-sealed/gocryptfs")
		b.ReportMetric(median(toPlain), rw+"-sealed/native")
	}
	b.ReportMetric(0, "ns/op")
}
