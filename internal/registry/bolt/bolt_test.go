// SPDX-License-Identifier: Apache-2.0

package bolt_test

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/palisade-sec/palisade/internal/registry/bolt"
	"github.com/palisade-sec/palisade/svirt"
)

// envReserve makes the test binary a process that reserves labels until it is
// killed, printing each once it holds it.
const envReserve = "PALISADE_TEST_RESERVE"

func TestMain(m *testing.M) {
	if path := os.Getenv(envReserve); path != "" {
		r := &svirt.Registry{Store: bolt.Open(path)}
		for i := 0; ; i++ {
			rec, err := r.Reserve(svirt.Claim{ID: fmt.Sprintf("%d-%d", os.Getpid(), i)})
			if err != nil {
				fmt.Fprintln(os.Stderr, err)
				os.Exit(1)
			}
			fmt.Println(rec.ID, rec.Level)
		}
	}
	os.Exit(m.Run())
}

func TestRegistry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "labels.db")
	store := bolt.Open(path)
	r := &svirt.Registry{Store: store, Quarantine: -1}
	if list, err := r.List(); err != nil || len(list) != 0 {
		t.Fatalf("before the first label: %v, %v", list, err)
	}
	a, err := r.Reserve(svirt.Claim{ID: "a", Holder: "test", Bundle: "/b"})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.Bind("a"); err != nil {
		t.Fatal(err)
	}
	// Another process sees it.
	other := &svirt.Registry{Store: bolt.Open(path), Quarantine: -1}
	list, err := other.List()
	if err != nil || len(list) != 1 || list[0].Level != a.Level || list[0].State != svirt.Bound || list[0].Holder != "test" {
		t.Fatalf("got %+v, %v", list, err)
	}
	if _, err := other.Reserve(svirt.Claim{ID: "b", Level: a.Level}); !errors.Is(err, svirt.ErrInUse) {
		t.Errorf("second holder: %v", err)
	}
	// What fails leaves nothing.
	boom := errors.New("boom")
	err = store.Update(func(tx svirt.Tx) error {
		if err := tx.Put(svirt.Record{ID: "c", Level: "s0:c1,c2"}); err != nil {
			t.Fatal(err)
		}
		return boom
	})
	if !errors.Is(err, boom) {
		t.Errorf("got %v", err)
	}
	if list, _ := r.List(); len(list) != 1 {
		t.Errorf("a failed transaction left %v", list)
	}
	if err := r.Release("a"); err != nil {
		t.Fatal(err)
	}
	if _, err := other.Reserve(svirt.Claim{ID: "b", Level: a.Level}); err != nil {
		t.Errorf("after the release: %v", err)
	}
	if err := store.Check(); err != nil {
		t.Error(err)
	}
}

func TestNotARegistry(t *testing.T) {
	path := filepath.Join(t.TempDir(), "labels.db")
	for _, content := range []string{"x", "this is a file that somebody put here by mistake, longer than a header\n"} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		r := &svirt.Registry{Store: bolt.Open(path)}
		if _, err := r.Reserve(svirt.Claim{ID: "a"}); err == nil {
			t.Errorf("%q was taken for a registry", content)
		}
		if b, _ := os.ReadFile(path); string(b) != content {
			t.Errorf("%q was overwritten", content)
		}
	}
}

// TestKill kills processes in the middle of their work: what they were told is
// theirs stays theirs, no label has two holders, and the file stays whole.
func TestKill(t *testing.T) {
	path := filepath.Join(t.TempDir(), "labels.db")
	promised := map[string]string{}
	for round := range 12 {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for range 2 {
			cmd := exec.Command(os.Args[0])
			cmd.Env = append(os.Environ(), envReserve+"="+path)
			cmd.Stderr = os.Stderr
			out, err := cmd.StdoutPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			wg.Go(func() {
				n := 0
				for sc := bufio.NewScanner(out); sc.Scan(); n++ {
					var id, level string
					if k, _ := fmt.Sscan(sc.Text(), &id, &level); k == 2 {
						mu.Lock()
						promised[id] = level
						mu.Unlock()
					}
					if n == round {
						_ = cmd.Process.Kill()
					}
				}
				_ = cmd.Wait()
			})
		}
		wg.Wait()
		store := bolt.Open(path)
		if err := store.Check(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		list, err := (&svirt.Registry{Store: store}).List()
		if err != nil {
			t.Fatal(err)
		}
		holders := map[string]string{}
		have := map[string]string{}
		for _, r := range list {
			if other := holders[r.Level]; other != "" {
				t.Fatalf("%s and %s hold %s", other, r.ID, r.Level)
			}
			holders[r.Level], have[r.ID] = r.ID, r.Level
		}
		for id, level := range promised {
			if have[id] != level {
				t.Fatalf("%s was promised %s and holds %q", id, level, have[id])
			}
		}
	}
	t.Logf("%d labels held", len(promised))
}

func BenchmarkReserve(b *testing.B) {
	r := &svirt.Registry{Store: bolt.Open(filepath.Join(b.TempDir(), "labels.db"))}
	for i := 0; b.Loop(); i++ {
		if _, err := r.Reserve(svirt.Claim{ID: fmt.Sprint(i)}); err != nil {
			b.Fatal(err)
		}
	}
}
