// SPDX-License-Identifier: Apache-2.0

//go:build linux

package socket

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/palisade-sec/palisade/internal/await"
	"github.com/palisade-sec/palisade/internal/registry/bolt"
	"github.com/palisade-sec/palisade/svirt"
)

// serve starts a daemon over a durable store and returns its socket.
func serve(tb testing.TB) (path string, store *bolt.Owned) {
	tb.Helper()
	return serveIn(tb, tb.TempDir())
}

func serveIn(tb testing.TB, dir string) (path string, store *bolt.Owned) {
	tb.Helper()
	store, err := bolt.Own(filepath.Join(dir, "labels.db"), time.Second)
	if err != nil {
		tb.Fatal(err)
	}
	path = filepath.Join(dir, "socket")
	l, err := Listen(path)
	if err != nil {
		tb.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- Serve(ctx, l, &svirt.Registry{Store: store}) }()
	tb.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			tb.Error(err)
		}
		if err := store.Check(); err != nil {
			tb.Error(err)
		}
		if err := store.Close(); err != nil {
			tb.Error(err)
		}
	})
	return path, store
}

func dial(tb testing.TB, path string) *Client {
	tb.Helper()
	c, err := Dial(path)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.Close() })
	return c
}

func TestConversation(t *testing.T) {
	path, _ := serve(t)
	a, b := dial(t, path), dial(t, path)
	rec, err := a.Reserve(svirt.Claim{ID: "web", Content: []string{"/srv/web"}})
	if err != nil || rec.State != svirt.Reserved {
		t.Fatalf("%+v, %v", rec, err)
	}
	for _, step := range []func(string) error{a.Bind, a.Drain, a.Bind} {
		if err := step("web"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := b.Reserve(svirt.Claim{ID: "x", Level: rec.Level}); !errors.Is(err, svirt.ErrInUse) || !strings.Contains(err.Error(), "held by web") {
		t.Errorf("err = %v", err)
	}
	if err := b.Bind("nobody"); !errors.Is(err, svirt.ErrNotHeld) {
		t.Errorf("err = %v", err)
	}
	if _, err := b.Reserve(svirt.Claim{ID: "a b"}); !errors.Is(err, svirt.ErrID) {
		t.Errorf("err = %v", err)
	}
	list, err := b.List()
	if err != nil || len(list) != 1 || list[0].State != svirt.Bound || !slices.Equal(list[0].Content, []string{"/srv/web"}) {
		t.Errorf("%+v, %v", list, err)
	}
	rep, err := b.Reconcile([]svirt.Observation{{Source: "docker", ID: "d", Level: "s0:c7,c8"}})
	if err != nil || len(rep.Adopted) != 1 {
		t.Errorf("%+v, %v", rep, err)
	}
	if v, err := b.Check([]svirt.Observation{{Source: "podman", ID: "p", Level: rec.Level}}); err != nil || len(v) != 1 {
		t.Errorf("%+v, %v", v, err)
	}
	if err := a.Release("web"); err != nil {
		t.Fatal(err)
	}
	if n, err := a.Expire(); err != nil || n != 0 {
		t.Errorf("expired %d, %v", n, err)
	}
}

func TestNoDaemon(t *testing.T) {
	if _, err := Dial(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("err = %v", err)
	}
	path, _ := serve(t)
	if _, err := Listen(path); err == nil || !strings.Contains(err.Error(), "another daemon") {
		t.Errorf("a second daemon: %v", err)
	}
	// A socket that a killed daemon left is taken over; a file is not.
	dead := filepath.Join(t.TempDir(), "dead")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: dead})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	again, err := Listen(dead)
	if err != nil {
		t.Fatal(err)
	}
	again.Close()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, []byte("x"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Listen(file); err == nil {
		t.Error("a file was replaced by a socket")
	}
}

// TestHostileRequests wants an answer or a closed connection, and the next
// client served.
func TestHostileRequests(t *testing.T) {
	path, _ := serve(t)
	for _, line := range []string{
		"\n", "nonsense\n", "{}\n", `{"v":99,"op":"list"}` + "\n", `{"v":1,"op":"nosuch"}` + "\n", `{"v":1,"op":"reserve"}` + "\n",
		`{"v":1,"op":"reserve","claim":{"id":"` + strings.Repeat("x", 300) + `"}}` + "\n",
		`{"v":1,"op":"release","id":"shared:x"}` + "\n", strings.Repeat("x", maxRequest+10) + "\n", `{"v":1`,
	} {
		c, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = c.Write([]byte(line))
		_ = c.(*net.UnixConn).CloseWrite()
		// No deadline: a daemon that neither answers nor closes is found by that of the whole run.
		ans, _ := bufio.NewReader(c).ReadString('\n')
		if len(line) < 1000 && strings.HasSuffix(line, "\n") && !strings.Contains(ans, "error") && !strings.Contains(line, "release") {
			t.Errorf("%.60q: answer %q", line, ans)
		}
		c.Close()
	}
	if _, err := dial(t, path).Reserve(svirt.Claim{ID: "fine"}); err != nil {
		t.Error(err)
	}
}

// TestMany has many clients at once, all labels of which differ.
func TestMany(t *testing.T) {
	path, _ := serve(t)
	var wg sync.WaitGroup
	var mu sync.Mutex
	levels := map[string]string{}
	for i := range 40 {
		c := dial(t, path)
		wg.Go(func() {
			for j := range 25 {
				id := fmt.Sprintf("%d-%d", i, j)
				rec, err := c.Reserve(svirt.Claim{ID: id})
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				if other := levels[rec.Level]; other != "" {
					t.Errorf("%s and %s have %s", other, id, rec.Level)
				}
				levels[rec.Level] = id
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(levels) != 1000 {
		t.Errorf("%d labels", len(levels))
	}
}

const (
	envServe = "PALISADE_TEST_SERVE"
	envKills = "SVIRT_KILLS"
)

// TestMain lets the test binary be a daemon that can be killed.
func TestMain(m *testing.M) {
	if dir := os.Getenv(envServe); dir != "" {
		store, err := bolt.Own(filepath.Join(dir, "labels.db"), 10*time.Second)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		l, err := Listen(filepath.Join(dir, "socket"))
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		fmt.Println("ready")
		_ = Serve(context.Background(), l, &svirt.Registry{Store: store})
	}
	os.Exit(m.Run())
}

// TestKill kills a loaded daemon again and again at random moments. What a client
// was told stays true, no label has two holders, and the file stays whole.
func TestKill(t *testing.T) {
	kills := 15
	if s := os.Getenv(envKills); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil {
			t.Fatal(err)
		}
		kills = n
	}
	dir := t.TempDir()
	var mu sync.Mutex
	promised := map[string]string{} // ID → level, as clients were told
	released := map[string]bool{}   // release was asked for; done or not, it may be gone
	for round := range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), envServe+"="+dir)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "ready\n" {
			t.Fatalf("round %d: %q, %v", round, line, err)
		}
		var wg sync.WaitGroup
		broken := make(chan error, 8) // what clients met, before or by the kill
		answers := 0
		for worker := range 8 {
			wg.Go(func() {
				c, err := Dial(filepath.Join(dir, "socket"))
				if err != nil {
					broken <- err
					return
				}
				defer c.Close()
				for i := 0; ; i++ {
					id := fmt.Sprintf("%d-%d-%d", round, worker, i)
					rec, err := c.Reserve(svirt.Claim{ID: id})
					if err != nil {
						broken <- err
						return
					}
					mu.Lock()
					promised[id] = rec.Level
					answers++
					mu.Unlock()
					if i%3 == 0 {
						mu.Lock()
						released[id] = true
						mu.Unlock()
						if err := c.Release(id); err != nil {
							broken <- err
							return
						}
					}
				}
			})
		}
		wanted := rand.IntN(100)
		await.Until(t, fmt.Sprintf("%d answers in round %d", wanted, round), func() (bool, error) {
			select {
			case err := <-broken:
				return false, fmt.Errorf("no answer from a daemon that runs: %w", err)
			default:
			}
			mu.Lock()
			defer mu.Unlock()
			return answers >= wanted && len(promised) > 0, nil
		})
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		wg.Wait()
		store := bolt.Open(filepath.Join(dir, "labels.db"))
		if round%10 == 0 || round == kills-1 {
			if err := store.Check(); err != nil {
				t.Fatalf("round %d: %v", round, err)
			}
		}
		list, err := (&svirt.Registry{Store: store}).List()
		if err != nil {
			t.Fatal(err)
		}
		have, holder := map[string]string{}, map[string]string{}
		for _, rec := range list {
			if other := holder[rec.Level]; other != "" {
				t.Fatalf("round %d: %s and %s hold %s", round, other, rec.ID, rec.Level)
			}
			holder[rec.Level], have[rec.ID] = rec.ID, rec.Level
		}
		for id, level := range promised {
			if got := have[id]; got != level && (got != "" || !released[id]) {
				t.Fatalf("round %d: %s was promised %s and has %q", round, id, level, got)
			}
		}
	}
	t.Logf("%d kills, %d labels promised", kills, len(promised))
}

// BenchmarkReserve is the durable allocation through the daemon with 100 clients
// at once, into a registry that is empty and into one that holds 500,000 labels,
// in turns: the same operations on IDs as engines draw them, 10,000 at a time,
// which are taken away again while the clock stands. The ratio is that of a
// label's cost, and of the medians of what clients wait.
func BenchmarkReserve(b *testing.B) {
	empty, full := newBenched(b, 0), newBenched(b, 500_000)
	for b.Loop() {
		empty.allocate(b)
		full.allocate(b)
	}
	b.ReportMetric(0, "ns/op")
	for name, s := range map[string]*benched{"empty": empty, "full": full} {
		slices.Sort(s.times)
		b.ReportMetric(s.rate(), name+"-allocations/s")
		b.ReportMetric(s.quantile(50), name+"-p50-ms")
		b.ReportMetric(s.quantile(99), name+"-p99-ms")
	}
	b.ReportMetric(empty.rate()/full.rate(), "ratio")
	b.ReportMetric(full.quantile(50)/empty.quantile(50), "ratio-p50")
}

// benched is a daemon under load.
type benched struct {
	store   *bolt.Owned
	clients []*Client
	times   []time.Duration
	elapsed time.Duration
	drawn   int
}

const benchRound = 10_000

func newBenched(b *testing.B, held int) *benched {
	b.Helper()
	dir := b.TempDir()
	// As a daemon finds them that is started anew.
	if store, err := bolt.Own(filepath.Join(dir, "labels.db"), time.Second); err != nil {
		b.Fatal(err)
	} else {
		fill(b, &svirt.Registry{Store: store}, held)
		if err := store.Close(); err != nil {
			b.Fatal(err)
		}
	}
	path, store := serveIn(b, dir)
	s := &benched{store: store}
	for range 100 {
		s.clients = append(s.clients, dial(b, path))
	}
	return s
}

func (s *benched) rate() float64 { return float64(len(s.times)) / s.elapsed.Seconds() }

func (s *benched) quantile(percent int) float64 {
	return float64(s.times[len(s.times)*percent/100].Microseconds()) / 1000
}

// engineID is a container's ID as engines draw them.
func engineID(i int) string { return fmt.Sprintf("%x", sha256.Sum256([]byte(strconv.Itoa(i)))) }

func (s *benched) allocate(b *testing.B) {
	ids := make([]string, benchRound)
	for i := range ids {
		s.drawn++
		ids[i] = engineID(-s.drawn)
	}
	times := make([][]time.Duration, len(s.clients))
	var wg sync.WaitGroup
	begin := time.Now()
	for i, c := range s.clients {
		wg.Go(func() {
			for j := i; j < len(ids); j += len(s.clients) {
				start := time.Now()
				if _, err := c.Reserve(svirt.Claim{ID: ids[j]}); err != nil {
					b.Error(err)
					return
				}
				times[i] = append(times[i], time.Since(start))
			}
		})
	}
	wg.Wait()
	s.elapsed += time.Since(begin)
	s.times = append(s.times, slices.Concat(times...)...)
	if err := s.store.Update(func(tx svirt.Tx) error {
		for _, id := range ids {
			if err := tx.Delete(id); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		b.Fatal(err)
	}
}

func fill(b *testing.B, r *svirt.Registry, n int) {
	b.Helper()
	for done := 0; done < n; {
		// Many in one transaction: this only prepares.
		err := r.Store.Update(func(tx svirt.Tx) error {
			one := &svirt.Registry{Store: inside{tx}}
			for range min(20_000, n-done) {
				if _, err := one.Reserve(svirt.Claim{ID: engineID(done)}); err != nil {
					return err
				}
				done++
			}
			return nil
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}

// inside runs updates within a transaction that is under way.
type inside struct{ tx svirt.Tx }

func (i inside) Update(fn func(svirt.Tx) error) error { return fn(i.tx) }
func (i inside) View(fn func(svirt.Tx) error) error   { return fn(i.tx) }
