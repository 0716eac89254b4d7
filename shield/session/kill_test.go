// SPDX-License-Identifier: Apache-2.0

package session

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/palisade-sec/palisade/internal/await"
)

// TestMain is the service itself when TestKill runs this program as one.
func TestMain(m *testing.M) {
	dir := os.Getenv("SESSION_TEST_SERVE")
	if dir == "" {
		os.Exit(m.Run())
	}
	err := func() error {
		s, err := Open(Options{Dir: dir, Key: serviceKey(), Admins: strings.Fields(os.Getenv("SESSION_TEST_ADMIN")), AllowSim: true})
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return err
		}
		fp, err := s.Fingerprint()
		if err != nil {
			return err
		}
		fmt.Printf("https://%s %s\n", l.Addr(), fp)
		return s.Serve(context.Background(), l)
	}()
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

const killSecret = "the-text-of-a-secret-that-must-not-lie-about"

func killSession(name, owner string) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "name: %s\nattestation: {tee: [sim], allow_insecure_sim: true, measurements: [%s]}\n", name, strings.Repeat("01", 48))
	fmt.Fprintf(&b, "environment: {TOKEN: \"$$secret:token$$\"}\nsecrets:\n  - {name: token, value: %s}\n", killSecret)
	b.WriteString("  - {name: key, generate: 32}\nvolumes:\n")
	for i := range 3 {
		fmt.Fprintf(&b, "  - {name: v%d, path: /v%d, key: key, root: \"1:%064x\"}\n", i, i, 1)
	}
	fmt.Fprintf(&b, "access: {update: [%s]}\n", owner)
	return []byte(b.String())
}

// TestKill kills a service with SIGKILL at random points while programs report the
// roots of their volumes and an owner makes sessions. What was answered holds after the
// restart, generations never went down, the audit log is whole, and nothing secret is
// readable in the state. SESSION_KILLS is how often.
func TestKill(t *testing.T) {
	kills := 5
	if n, err := strconv.Atoi(os.Getenv("SESSION_KILLS")); err == nil {
		kills = n
	}
	dir := filepath.Join(t.TempDir(), "state")
	owner, fp := newKey(t)
	r := rand.New(rand.NewPCG(5, 6))
	var mu sync.Mutex
	acked, tried := map[string]uint64{}, map[string]uint64{} // by volume
	made := map[string]bool{}
	total := 0
	for round := range kills {
		cmd := exec.Command(os.Args[0])
		cmd.Env = append(os.Environ(), "SESSION_TEST_SERVE="+dir, "SESSION_TEST_ADMIN="+fp)
		cmd.Stderr = os.Stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		var addr, service string
		if _, err := fmt.Fscan(out, &addr, &service); err != nil {
			t.Fatalf("round %d: the service did not start: %v", round, err)
		}
		ctx, cancel := context.WithCancel(context.Background())
		var wg sync.WaitGroup
		broken := make(chan error, 4) // what programs and the owner met, before or by the kill
		client, err := NewClient(addr, service, owner)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := client.Create(ctx, killSession("base", fp)); err != nil && round == 0 {
			t.Fatal(err)
		}
		for i := range 3 {
			volume := fmt.Sprintf("v%d", i)
			key, _ := newKey(t)
			program, err := NewClient(addr, service, key)
			if err != nil {
				t.Fatal(err)
			}
			evidence := simEvidence(t, 1)
			wg.Go(func() { // a program
				defer program.Close()
				c, err := program.Config(ctx, "base", evidence)
				if err != nil {
					broken <- err
					return
				}
				root, err := ParseRoot(c.Volumes[i].Root)
				if err != nil {
					t.Error(err)
					broken <- err
					return
				}
				mu.Lock()
				if root.Generation < acked[volume] {
					t.Errorf("round %d: %s is at %d, %d was answered for", round, volume, root.Generation, acked[volume])
				}
				mu.Unlock()
				for g := root.Generation + 1; ctx.Err() == nil; g++ {
					mu.Lock()
					tried[volume] = max(tried[volume], g)
					mu.Unlock()
					if err := program.Advance(ctx, "base", volume, fmt.Sprintf("%d:%064x", g, g)); err != nil {
						broken <- err
						return
					}
					mu.Lock()
					acked[volume] = max(acked[volume], g)
					total++
					mu.Unlock()
				}
			})
		}
		wg.Go(func() { // an owner
			defer client.Close()
			for n := 0; ctx.Err() == nil; n++ {
				name := fmt.Sprintf("s-%d-%d", round, n)
				if _, err := client.Create(ctx, killSession(name, fp)); err != nil {
					broken <- err
					return
				}
				mu.Lock()
				made[name] = true
				mu.Unlock()
			}
		})
		// The kill falls into the work behind a random number of answers, the first of
		// all rounds behind some of each kind.
		mu.Lock()
		roots, sessions := total, len(made)
		mu.Unlock()
		answers := r.IntN(60)
		await.Until(t, fmt.Sprintf("%d answers in round %d", answers, round), func() (bool, error) {
			select {
			case err := <-broken:
				return false, fmt.Errorf("no answer from a service that runs: %w", err)
			default:
			}
			mu.Lock()
			defer mu.Unlock()
			return total-roots+len(made)-sessions >= answers && total > 0 && len(made) > 0, nil
		})
		if err := cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = cmd.Wait()
		cancel()
		wg.Wait()

		err = filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(name)
			if bytes.Contains(b, []byte(killSecret)) || bytes.Contains(b, []byte("TOKEN")) {
				t.Errorf("round %d: %s has a secret in clear", round, name)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	// The last restart: opening verifies the audit log.
	s := start(t, dir, true, fp)
	key, _ := newKey(t)
	c, err := s.client(key).Config(t.Context(), "base", simEvidence(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range c.Volumes {
		root, err := ParseRoot(v.Root)
		if err != nil || root.Generation < acked[v.Name] || root.Generation > max(tried[v.Name], 1) {
			t.Errorf("%s is at %v (%v), %d was answered for", v.Name, v.Root, err, acked[v.Name])
		}
		if acked[v.Name] > 1 {
			err = s.client(key).Advance(t.Context(), "base", v.Name, fmt.Sprintf("%d:%064x", acked[v.Name]-1, 7))
			var refused *RefusedError
			if !errors.As(err, &refused) {
				t.Errorf("%s: an older generation: %v", v.Name, err)
			}
		}
	}
	for name := range made {
		if _, err := s.client(owner).Get(t.Context(), name); err != nil {
			t.Errorf("%s was made: %v", name, err)
		}
	}
	t.Logf("%d kills, %d roots and %d sessions answered for", kills, total, len(made))
}

// faultyLog fails after so many bytes, as a full disk does, having written some of them.
type faultyLog struct {
	*os.File
	left int
	sync error
	cut  error
}

func (f *faultyLog) Write(p []byte) (int, error) {
	if len(p) > f.left {
		n, _ := f.File.Write(p[:f.left])
		return n, errors.New("no space left on device")
	}
	f.left -= len(p)
	return f.File.Write(p)
}

func (f *faultyLog) Sync() error { return f.sync }

func (f *faultyLog) Truncate(size int64) error {
	if f.cut != nil {
		return f.cut
	}
	return f.File.Truncate(size)
}

// TestAuditFull writes a log on a full disk: what was not written whole is not there.
func TestAuditFull(t *testing.T) {
	name := filepath.Join(t.TempDir(), "audit.log")
	var end auditEnd
	a, err := openAudit(name, serviceKey(), end, func(e auditEnd) error { end = e; return nil })
	if err != nil {
		t.Fatal(err)
	}
	f := &faultyLog{File: a.f.(*os.File), left: 1 << 20}
	a.f = f
	write := func(want string) {
		t.Helper()
		if err := a.write(event{Action: "test"}); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
	write("")
	f.left = 40
	write("no space left")
	f.left = 1 << 20
	write("")
	f.sync = errors.New("input/output error")
	write("input/output error")
	f.sync = nil
	write("")
	last, _, err := func() (auditEnd, int64, error) {
		b, err := os.ReadFile(name)
		if err != nil {
			return auditEnd{}, 0, err
		}
		return checkAudit(bytes.NewReader(b), serviceKey(), end)
	}()
	if err != nil || last.Seq != 3 {
		t.Errorf("%+v, %v", last, err)
	}
	f.left, f.cut = 10, errors.New("read-only file system")
	write("cannot be taken off")
	f.left, f.cut = 1<<20, nil
	write("cannot be taken off") // and nothing more is written
}
