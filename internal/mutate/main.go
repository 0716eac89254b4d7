// SPDX-License-Identifier: Apache-2.0

// Command mutate changes packages in small ways and tells which changes no test
// notices. All mutants of a package are compiled into its tests at once, each
// behind a switch, so that a mutant costs the run of the tests that reach it and no
// build.
//
//	go run ./internal/mutate [flags] PACKAGE[:FILE,…][=PACKAGE,…] …
//
// Files are those that are changed, all of the package without. The packages behind =
// have tests that count as well. Mutants that change nothing
// that could be seen are listed, each with its reason, in the file that -equivalent
// names.
package main

import (
	"bufio"
	"cmp"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

type options struct {
	sample  int
	seed    uint64
	workers int
	slow    time.Duration
	min     float64
	match   string
	verbose bool
}

func main() {
	var o options
	var equivalents string
	flag.IntVar(&o.sample, "sample", 0, "try so many mutants of each package, drawn at random; 0 tries all")
	flag.Uint64Var(&o.seed, "seed", 1, "what the sample is drawn by")
	flag.IntVar(&o.workers, "workers", runtime.NumCPU(), "mutants tried at the same time")
	flag.DurationVar(&o.slow, "slow", 20*time.Second, "leave out tests that take more processor time than this")
	flag.Float64Var(&o.min, "min", 0, "fail when fewer than so many of a hundred mutants of a package are killed")
	flag.StringVar(&o.match, "match", "", "try the mutants whose name has this text")
	flag.BoolVar(&o.verbose, "v", false, "show the tests that are left out, and what was killed")
	flag.StringVar(&equivalents, "equivalent", "internal/mutate/equivalent.txt", "the `file` of mutants that change nothing")
	flag.Parse()
	if err := run(os.Stdout, o, equivalents, flag.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

// readEquivalents reads lines "NAME ## REASON".
func readEquivalents(name string) (map[string]string, error) {
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	out := map[string]string{}
	n := 0
	s := bufio.NewScanner(f)
	for s.Scan() {
		n++
		line := strings.TrimSpace(s.Text())
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		key, reason, ok := strings.Cut(line, " ## ")
		if key, reason = strings.TrimSpace(key), strings.TrimSpace(reason); !ok || reason == "" {
			return nil, fmt.Errorf("%s:%d: want NAME ## REASON", name, n)
		}
		if out[key] != "" {
			return nil, fmt.Errorf("%s:%d: %s is named twice", name, n, key)
		}
		out[key] = reason
	}
	return out, s.Err()
}

// score is what was found out about one package.
type score struct {
	pkg                                            string
	total, killed, survived, unreached, equivalent int
}

func (s score) percent() float64 {
	if n := s.killed + s.survived + s.unreached; n > 0 {
		return 100 * float64(s.killed) / float64(n)
	}
	return 100
}

func run(w io.Writer, o options, equivalents string, args []string) error {
	known, err := readEquivalents(equivalents)
	if err != nil {
		return err
	}
	var scores []score
	var errs []error
	for _, arg := range args {
		pkg, more, _ := strings.Cut(arg, "=")
		pkg, files, _ := strings.Cut(pkg, ":")
		tests := []string{pkg}
		if more != "" {
			tests = append(tests, strings.Split(more, ",")...)
		}
		var only []string
		if files != "" {
			only = strings.Split(files, ",")
		}
		s, err := one(w, o, known, pkg, only, tests)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", pkg, err))
			continue
		}
		scores = append(scores, s)
		if s.percent() < o.min {
			errs = append(errs, fmt.Errorf("%s: %.1f %% of the mutants are killed, fewer than %.1f %%", s.pkg, s.percent(), o.min))
		}
	}
	fmt.Fprintf(w, "\n%-36s %8s %8s %9s %9s %10s %7s\n", "package", "mutants", "killed", "survived", "unreached", "equivalent", "killed")
	sum := score{pkg: "all"}
	for _, s := range scores {
		sum.total, sum.killed, sum.survived = sum.total+s.total, sum.killed+s.killed, sum.survived+s.survived
		sum.unreached, sum.equivalent = sum.unreached+s.unreached, sum.equivalent+s.equivalent
	}
	for _, s := range append(scores, sum) {
		fmt.Fprintf(w, "%-36s %8d %8d %9d %9d %10d %6.1f%%\n", s.pkg, s.total, s.killed, s.survived, s.unreached, s.equivalent, s.percent())
	}
	return errors.Join(errs...)
}

// test is one test of a program.
type test struct {
	bin, dir, name string
	cpu            time.Duration
}

func one(w io.Writer, o options, known map[string]string, pkg string, only, tests []string) (score, error) {
	m, err := load(pkg, only)
	if err != nil {
		return score{}, err
	}
	rel := strings.TrimPrefix(pkg, "./")
	s := score{pkg: rel}
	// Not below the folder for temporary files, which each run has for itself.
	cache, err := os.UserCacheDir()
	if err != nil {
		return s, err
	}
	if err := os.MkdirAll(cache, 0o700); err != nil {
		return s, err
	}
	dir, err := os.MkdirTemp(cache, "palisade-mutate-")
	if err != nil {
		return s, err
	}
	defer os.RemoveAll(dir)
	bins, err := m.build(dir, tests)
	if err != nil {
		return s, err
	}
	r := &runner{dir: dir, known: known}
	reached, err := r.baseline(w, o, m, bins)
	if err != nil {
		return s, err
	}
	var chosen []*mutant
	for _, x := range m.mutants {
		if !m.dropped[x.id] && strings.Contains(x.key(rel), o.match) {
			chosen = append(chosen, x)
		}
	}
	if o.sample > 0 && o.sample < len(chosen) {
		random := rand.New(rand.NewPCG(o.seed, 0))
		random.Shuffle(len(chosen), func(i, j int) { chosen[i], chosen[j] = chosen[j], chosen[i] })
		chosen = chosen[:o.sample]
		slices.SortFunc(chosen, func(a, b *mutant) int { return a.id - b.id })
	}
	s.total = len(chosen)
	fmt.Fprintf(w, "%s: %d mutants, %d more do not compile\n", rel, len(chosen), len(m.dropped))
	var mu sync.Mutex
	var wg sync.WaitGroup
	work := make(chan *mutant)
	report := func(what string, x *mutant) {
		fmt.Fprintf(w, "%s\t%s:%d\t%s\n", what, filepath.Join(rel, x.file), x.line, x.key(rel))
	}
	for range o.workers {
		wg.Go(func() {
			for x := range work {
				killed := false
				if known[x.key(rel)] == "" && len(reached[x.id]) > 0 {
					killed = r.killed(x.id, reached[x.id])
				}
				mu.Lock()
				switch {
				case known[x.key(rel)] != "":
					s.equivalent++
				case len(reached[x.id]) == 0:
					s.unreached++
					report("unreached", x)
				case killed:
					s.killed++
					if o.verbose {
						report("killed", x)
					}
				default:
					s.survived++
					report("survived", x)
				}
				mu.Unlock()
			}
		})
	}
	for _, x := range chosen {
		work <- x
	}
	close(work)
	wg.Wait()
	fmt.Fprintf(w, "%s: %d of %d killed (%.1f %%), %d survived, %d unreached, %d equivalent\n", rel, s.killed, s.killed+s.survived+s.unreached, s.percent(), s.survived, s.unreached, s.equivalent)
	return s, nil
}

type runner struct {
	dir   string
	known map[string]string
}

// sandbox keeps a mutated program from writing anywhere but into temporary files and
// what tests keep for each other: it may have lost the check that names what it removes.
const sandbox = `mkdir -p "$1" && mount --bind "$1" "$1" && shift && mount -o remount,bind,ro / && mount -t tmpfs tmpfs /tmp && ` +
	`cd "$1" && shift && ulimit -t "$1" && ulimit -v 16000000 && shift && exec "$@"`

const plain = `cd "$1" && shift && ulimit -t "$1" && shift && exec "$@"`

// watch returns when a process group waits for ever: none of it has had a processor,
// or waited for one, for a while. A busy machine alone does not look like that.
func watch(group int, over <-chan struct{}) {
	tick := time.NewTicker(2 * time.Second)
	defer tick.Stop()
	last, still := "", 0
	for still < 15 {
		select {
		case <-over:
			return
		case <-tick.C:
		}
		now, waits := progress(group)
		if waits && now == last {
			still++
		} else {
			still = 0
		}
		last = now
	}
}

// progress is the processor time of each thread of a group, and whether all sleep.
func progress(group int) (string, bool) {
	var out strings.Builder
	waits := true
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue
		}
		_, after, _ := strings.Cut(string(b), ") ")
		f := strings.Fields(after)
		if len(f) < 3 || f[2] != strconv.Itoa(group) {
			continue
		}
		threads, _ := filepath.Glob(filepath.Join(filepath.Dir(name), "task/*"))
		for _, t := range threads {
			if b, err := os.ReadFile(t + "/schedstat"); err == nil {
				out.Write(b)
			}
			if b, err := os.ReadFile(t + "/stat"); err == nil {
				if _, after, _ := strings.Cut(string(b), ") "); !strings.HasPrefix(after, "S") && !strings.HasPrefix(after, "Z") {
					waits = false
				}
			}
		}
	}
	return out.String(), waits
}

// start runs a program of tests; cpu bounds its processor time, which does not
// depend on what else the machine does.
func (r *runner) start(bin, dir string, cpu time.Duration, env []string, args ...string) ([]byte, *os.ProcessState, error) {
	seconds := strconv.Itoa(int(cpu/time.Second) + 1)
	shell := []string{"sh", "-c", plain, "sh", dir, seconds, bin}
	if os.Geteuid() == 0 {
		shell = []string{"unshare", "-m", "--propagation", "private", "sh", "-c", sandbox, "sh", filepath.Join(filepath.Dir(r.dir), "palisade-test"), dir, seconds, bin}
	}
	cmd := exec.Command(shell[0], slices.Concat(shell[1:], args)...)
	cmd.Env = slices.Concat(os.Environ(), []string{"TMPDIR=/tmp"}, env)
	// The tests' children are in the group and end with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.WaitDelay = 5 * time.Second
	if err := cmd.Start(); err != nil {
		return nil, nil, err
	}
	over := make(chan struct{})
	go func() {
		watch(cmd.Process.Pid, over)
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}()
	err := cmd.Wait()
	close(over)
	_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	return []byte(out.String()), cmd.ProcessState, err
}

// baseline runs each test by itself without a mutant, and gives for each mutant
// the tests that reach it, the cheapest first. What fails without a mutant, or is
// skipped, says nothing about mutants.
func (r *runner) baseline(w io.Writer, o options, m *mutated, bins map[string]string) (map[int][]test, error) {
	seen, err := os.CreateTemp("/dev/shm", "palisade-mutate-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(seen.Name())
	defer seen.Close()
	reached := map[int][]test{}
	ran := 0
	for pkg, bin := range bins {
		p, err := list("-json=Dir", pkg)
		if err != nil {
			return nil, err
		}
		names, _, err := r.start(bin, p[0].Dir, time.Minute, nil, "-test.list", "^(Test|Fuzz|Example)")
		if err != nil {
			return nil, fmt.Errorf("list tests: %w\n%s", err, names)
		}
		for _, name := range strings.Fields(string(names)) {
			if err := errors.Join(seen.Truncate(0), seen.Truncate(int64(len(m.mutants)+1))); err != nil {
				return nil, err
			}
			out, state, err := r.start(bin, p[0].Dir, o.slow, []string{seenEnv + "=" + seen.Name()}, "-test.short", "-test.timeout=0", "-test.v", "-test.run", "^"+name+"$")
			if err != nil || strings.Contains(string(out), "--- SKIP: "+name+" ") {
				if o.verbose || err != nil {
					fmt.Fprintf(w, "left out: %s %s: %v %s\n", pkg, name, err, tail(out))
				}
				continue
			}
			ran++
			t := test{bin: bin, dir: p[0].Dir, name: name, cpu: state.UserTime() + state.SystemTime()}
			b := make([]byte, len(m.mutants)+1)
			if _, err := seen.ReadAt(b, 0); err != nil {
				return nil, err
			}
			for id, v := range b {
				if v != 0 {
					reached[id] = append(reached[id], t)
				}
			}
		}
	}
	if ran == 0 {
		return nil, errors.New("no test passes without a mutant")
	}
	for _, ts := range reached {
		slices.SortStableFunc(ts, func(a, b test) int { return cmp.Compare(a.cpu, b.cpu) })
	}
	return reached, nil
}

func tail(b []byte) string {
	s := strings.TrimSpace(string(b))
	return strings.ReplaceAll(s[max(0, len(s)-300):], "\n", " | ")
}

// cheap is the processor time up to which tests share the first run.
const cheap = 300 * time.Millisecond

// killed runs the tests that reach a mutant with it, first the cheap ones.
func (r *runner) killed(id int, tests []test) bool {
	for len(tests) > 0 {
		// One run: the tests of one program, as many as are cheap together.
		bin := tests[0].bin
		var names []string
		var cpu time.Duration
		var rest []test
		for _, t := range tests {
			if t.bin == bin && (len(names) == 0 || cpu+t.cpu <= cheap) {
				names = append(names, t.name)
				cpu += t.cpu
			} else {
				rest = append(rest, t)
			}
		}
		_, _, err := r.start(bin, tests[0].dir, 10*cpu+5*time.Second, []string{activeEnv + "=" + strconv.Itoa(id)},
			"-test.short", "-test.timeout=0", "-test.failfast", "-test.run", "^("+strings.Join(names, "|")+")$")
		if err != nil {
			return true
		}
		tests = rest
	}
	return false
}
